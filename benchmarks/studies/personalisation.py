"""How to personalise: learning rate, updates, and what is trained.

    python -m benchmarks.studies.personalisation [--updates 400] [--only ...]

Starts from the generic weights on two heads that neither training nor the comparison
has: 64 electrodes, and 102 magnetometers over a cortex with folds of its own. Prints
the validation loss of ``fit`` before and after: how far estimates are from the truth,
with waveforms and background that the fit does not train on. Results go to
``results/personalisation.json``.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import argparse
import copy
import json
import time

import mne
import numpy as np
import torch

from mne_deepsif.head.leadfield import make_leadfield
from mne_deepsif.inverse.weights import load_model
from mne_deepsif.simulation.library import make_library
from mne_deepsif.training.personal import make_personal_leadfield
from mne_deepsif.training.trainer import Trainer, TrainingOptions

from ..comparison.papers import random_forward
from ..comparison.subjects import biosemi_info, helmet
from ..making.heads import folded_normals, with_normals
from ..options import SMALL_LIBRARY, parse_args
from ..provenance import provenance

# name: (learning rate, factor of the updates, parameters that are trained)
VARIANTS = {
    "learning rate 1e-4": (1e-4, 1, ""),
    "learning rate 3e-4": (3e-4, 1, ""),
    "learning rate 1e-3": (1e-3, 1, ""),
    "3e-4, gates only": (3e-4, 1, "gate power"),
    "3e-4, linear layers only": (3e-4, 1, "embed linear readout"),
    "3e-4, a quarter of the updates": (3e-4, 0.25, ""),
    "3e-4, 4 times the updates": (3e-4, 4, ""),
}


def make_electrodes(ico):
    """Return Info and forward of the head with electrodes."""
    info = biosemi_info()
    return info, random_forward(info, 5, ico)


def make_folded(ico):
    """Return Info and forward of the magnetometers over a cortex with other folds."""
    info = helmet(0.0)
    fwd = random_forward(info, 6, ico)
    folds = folded_normals(fwd["src"], np.random.default_rng(6), 3e-3)
    return info, with_normals(fwd, folds)


HEADS = {"64 electrodes": make_electrodes, "102 mag, folded": make_folded}


def personalise(start, library, leadfield, n_steps, learning_rate, trained):
    """Train, and return the losses and the time."""
    network, parts = copy.deepcopy(start.network).float(), trained.split()
    for parameter, values in network.named_parameters():
        values.requires_grad_(not parts or any(p in parameter for p in parts))
    options = TrainingOptions(
        n_steps=n_steps,
        learning_rate=learning_rate,
        n_warmup=min(200, max(1, n_steps // 10)),
        validate_every=max(1, n_steps // 4),
    )
    trainer = Trainer(network, library, leadfield, options)
    began = time.perf_counter()
    trainer.run()
    return dict(history=trainer.history, seconds=time.perf_counter() - began)


def main():
    """Train the variants one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--heads", nargs="+", default=list(HEADS), choices=HEADS)
    parser.add_argument("--only", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    args = parse_args(parser, smoke=True)
    mne.set_log_level("ERROR")
    start = load_model("generic")
    options = SMALL_LIBRARY if args.smoke else dict(sfreq=start.sfreq)
    library = make_library(start.parcels, **options)
    fname = args.results / "personalisation.json"
    results = json.loads(fname.read_text()) if fname.exists() else {}
    results |= provenance() | dict(threads=torch.get_num_threads())
    for head in args.heads:
        info, fwd = HEADS[head](2 if args.smoke else 3)
        leadfield = make_leadfield(
            info, fwd, mne.make_ad_hoc_cov(info), parcels=start.parcels
        )
        leadfield = make_personal_leadfield(
            leadfield,
            fwd,
            start.parcels,
            library.background,
            start.network.sizes["scan_width"] > 0,
            0,
        )
        found = results.setdefault("heads", {}).setdefault(head, {})
        for name in args.only:
            learning_rate, factor, trained = VARIANTS[name]
            n_steps = max(1, int(factor * args.updates))
            found[name] = personalise(
                start, library, leadfield, n_steps, learning_rate, trained
            )
            losses = " ".join(f"{loss:.4f}" for _, loss in found[name]["history"])
            seconds = found[name]["seconds"]
            print(f"{head}: {name:32s} {n_steps} updates, {seconds:.0f} s: {losses}")
            fname.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""How soon ``fit`` begins to learn, and whether its short library costs anything.

    nice python -m benchmarks.studies.start time [--tree PATH]
    nice python -m benchmarks.studies.start loss [--updates 150]

``time`` runs a fit in a new process with an empty cache of libraries, three times, to
its first update. ``--tree`` is a checkout of another commit to compare with; the runs
alternate. ``loss`` fits with the short library and with the full one, and compares the
results on waveforms, patches and forwards that none of them has seen. Results go to
``results/start.json``.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import mne
import numpy as np
import torch

import mne_deepsif
from mne_deepsif import DeepSIFEstimator, make_template_forward
from mne_deepsif.head.leadfield import make_leadfield
from mne_deepsif.inverse.weights import load_model
from mne_deepsif.simulation.library import make_library
from mne_deepsif.training.cortical import CorticalBatches
from mne_deepsif.training.personal import make_personal_leadfield
from mne_deepsif.training.trainer import Trainer

from ..comparison.subjects import biosemi_info, sample_forward, sample_info
from ..provenance import ROOT, provenance

SHORT = dict(n_patches=1, n_waveforms=8000, background=60.0)  # that of fit
# what no fit has seen: other waveforms and background, patches and errors of forwards
UNSEEN = SHORT | dict(random_state=9001)
UNSEEN_SEED, N_SAMPLES = 9002, 64  # of each of the 24 forwards
BATCH_SIZE = 128  # of the fits that are compared


class EnoughError(Exception):
    """The first update is done."""


def first_update():
    """Return the seconds from the call of ``fit`` to the end of its first update."""
    info = biosemi_info()
    fwd = make_template_forward(info)
    step, seconds = Trainer._train_step, []

    def once(trainer):
        step(trainer)
        seconds.append((time.perf_counter() - began, time.process_time() - used))
        raise EnoughError

    with mock.patch.object(Trainer, "_train_step", once):
        began, used = time.perf_counter(), time.process_time()
        try:
            DeepSIFEstimator(random_state=0).fit(fwd, info)
        except EnoughError:
            return seconds[0]


def time_in_process(tree):
    """Run :func:`first_update` in a new process on a checkout, without a library."""
    make_template_forward(biosemi_info())  # the head is in the cache before
    data = mne_deepsif.data_path()
    with tempfile.TemporaryDirectory() as folder:
        for entry in data.iterdir():
            if entry.name != "libraries":
                os.symlink(entry, Path(folder) / entry.name)
        package = Path(folder) / "package"  # of the checkout; all else is of this one
        package.mkdir()
        os.symlink(tree.resolve() / "mne_deepsif", package / "mne_deepsif")
        environ = dict(os.environ, MNE_DEEPSIF_DATA=folder)
        environ["PYTHONPATH"] = os.pathsep.join([str(package), str(ROOT)])
        command = [sys.executable, "-P", "-m", "benchmarks.studies.start", "once"]
        found = subprocess.run(
            command, env=environ, cwd=ROOT, capture_output=True, text=True, check=True
        )
    wall, cpu = json.loads(found.stdout.splitlines()[-1])
    return dict(wall=wall, cpu=cpu, load=os.getloadavg()[0])


def compare_times(trees, n_runs):
    """Time the checkouts in turn; yield what is known after each run."""
    runs = {name: [] for name in trees}
    for _ in range(n_runs):
        for name, tree in trees.items():
            runs[name].append(time_in_process(tree))
            print(name, runs[name][-1], flush=True)
            yield {name: _summarise(found) for name, found in runs.items() if found}


def _summarise(runs):
    medians = {key: float(np.median([run[key] for run in runs])) for key in runs[0]}
    return dict(median=medians, runs=runs)


# ------------------------------------------------------------------------ loss


def make_unseen(info, fwd, start):
    """Make batches of what no fit has seen."""
    library = make_library(start.parcels, start.sfreq, **UNSEEN)
    leadfield = make_leadfield(
        info, fwd, mne.make_ad_hoc_cov(info), parcels=start.parcels
    )
    scans = start.network.sizes["scan_width"] > 0
    personal = make_personal_leadfield(
        leadfield, fwd, start.parcels, library.background, scans, UNSEEN_SEED
    )
    n_components = start.network.sizes["n_components"]
    return CorticalBatches(library, *personal, start.n_times, n_components, UNSEEN_SEED)


def score(network, batches):
    """Return the loss on each forward, always on the same samples."""
    batches.generator.manual_seed(UNSEEN_SEED)
    network.eval()
    with torch.inference_mode():
        drawn = (batches.draw([index], N_SAMPLES) for index in range(len(batches)))
        return [float(batches.error(network(X), *rest)) for X, *rest in drawn]


def compare_losses(n_updates, seeds):
    """Fit with both libraries and all seeds, and score the results."""
    info = sample_info("mag")
    fwd = sample_forward(info)
    start = load_model("generic")
    unseen = make_unseen(info, fwd, start)
    before = score(start.network.float(), unseen)
    rows = [dict(library="none: before the fit", losses=before)]
    print(f"before: {np.mean(before):.4f}", flush=True)
    for seed in seeds:
        for name, sizes in {"short": SHORT, "full": {}}.items():
            library = make_library(start.parcels, start.sfreq, **sizes)
            estimator = DeepSIFEstimator(
                n_steps=n_updates,
                batch_size=BATCH_SIZE,
                library=library,
                random_state=seed,
            )
            began = time.perf_counter()
            network = estimator.fit(fwd, info).network_
            losses = score(network, unseen)
            rows.append(dict(library=name, seed=seed, losses=losses))
            rows[-1] |= dict(
                seconds=time.perf_counter() - began, history=estimator.history_
            )
            rows[-1]["metrics"] = estimator.metrics_
            print(f"{name}, seed {seed}: {np.mean(losses):.4f}", flush=True)
            print(estimator.history_, estimator.metrics_, flush=True)
    for row in rows:
        row["loss"] = float(np.mean(row["losses"]))
    where = dict(sensors="102 magnetometers, real subject", n_samples=N_SAMPLES)
    return where | dict(updates=n_updates, batch_size=BATCH_SIZE, rows=rows)


def main():
    """Measure one of both, and keep the other."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", choices=["time", "loss", "once"])
    parser.add_argument("--tree", type=Path, help="checkout to compare with")
    parser.add_argument("--runs", type=int, default=3, help="of each checkout")
    parser.add_argument("--updates", type=int, default=150)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    results = ROOT / "benchmarks" / "results"
    parser.add_argument("--results", type=Path, default=results)
    args = parser.parse_args()
    mne.set_log_level("ERROR")
    if args.part == "once":
        print(json.dumps(first_update()))
        return
    record = provenance() | dict(threads=torch.get_num_threads())
    if args.part == "time":
        trees = {"after": ROOT} | ({"before": args.tree} if args.tree else {})
        found = compare_times(trees, args.runs)
    else:
        found = [compare_losses(args.updates, args.seeds)]
    fname = args.results / "start.json"
    kept = json.loads(fname.read_text()) if fname.exists() else {}
    for known in found:
        text = json.dumps(kept | {args.part: record | known}, indent=1)
        fname.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

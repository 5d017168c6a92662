"""Train on parcels: the first stage of the generic weights, before the last step.

Run ``python benchmarks/train_parcels.py INPUT.npz OUTPUT_FOLDER``, with an input file
written by :func:`save_training_set`. The loss is that of the network's own answer. All
training since then is that of ``python -m mne_deepsif.training``.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from mne_deepsif.network.architectures import make_network
from mne_deepsif.network.device import resolve_device
from mne_deepsif.network.encoder import N_KERNELS
from mne_deepsif.simulation.ingredients import Library
from mne_deepsif.training.batches import TrainingLeadfield
from mne_deepsif.training.trainer import Trainer, TrainingOptions


def save_training_set(fname, library, leadfields, validation_leadfields=()):
    """Write everything that training reads into one ``.npz`` file.

    Parameters
    ----------
    fname : path-like
        File to write; gains and background are stored in half precision.
    library : Library
        See :class:`~mne_deepsif.simulation.Library`.
    leadfields, validation_leadfields : list of TrainingLeadfield
        Leadfields for training and for validation.
    """
    arrays = {f"library_{name}": value for name, value in library.asdict().items()}
    for kind, group in (("train", leadfields), ("validation", validation_leadfields)):
        for index, one in enumerate(group):
            scale = np.sqrt(np.mean(np.square(one.gain)))
            gain = np.asarray(one.gain / scale, np.float16)
            arrays[f"{kind}_{index:04d}_gain"] = gain
            if one.whitener is not None:
                arrays[f"{kind}_{index:04d}_whitener"] = np.float32(one.whitener)
    np.savez(fname, **arrays)


def read_training_set(fname):
    """Read what :func:`save_training_set` wrote.

    Returns
    -------
    library : Library
        The library.
    leadfields, validation_leadfields : list of TrainingLeadfield
        The leadfields.
    """
    with np.load(fname) as arrays:
        library = {
            name.removeprefix("library_"): arrays[name]
            for name in arrays
            if name.startswith("library_")
        }
        library["sfreq"] = float(library["sfreq"])
        groups = {
            kind: [
                TrainingLeadfield(
                    arrays[name], arrays.get(name.replace("gain", "whitener"))
                )
                for name in sorted(arrays)
                if name.startswith(kind) and name.endswith("gain")
            ]
            for kind in ("train", "validation")
        }
    return Library(**library), groups["train"], groups["validation"]


def main(arguments=None):
    """Train from the command line; see ``--help``."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("input", help="file written by save_training_set")
    parser.add_argument("output", type=Path, help="folder for checkpoint and weights")
    parser.add_argument("--steps", type=int, default=TrainingOptions.n_steps)
    parser.add_argument("--batch-size", type=int, default=TrainingOptions.batch_size)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--gate-width", type=int, default=512)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--components", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--start", help="weights.pt of an earlier training")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true", help="needs a C++ compiler")
    args = parser.parse_args(arguments)
    args.output.mkdir(parents=True, exist_ok=True)
    library, leadfields, validation_leadfields = read_training_set(args.input)
    n_parcels = len(library.background)
    options = TrainingOptions(
        n_steps=args.steps, batch_size=args.batch_size, learning_rate=args.learning_rate
    )
    network = make_network(
        "compact",
        N_KERNELS * n_parcels,
        n_parcels,
        options.n_times,
        width=args.width,
        gate_width=args.gate_width,
        n_blocks=args.blocks,
        n_components=args.components,
    )
    if args.start:
        network.load_state_dict(torch.load(args.start, weights_only=True))
    trainer = Trainer(
        network,
        library,
        leadfields,
        options,
        device=resolve_device(args.device),
        validation_leadfields=validation_leadfields,
        checkpoint=args.output / "checkpoint.pt",
        callback=_Log(args.output / "log.jsonl"),
        compiled=args.compile,
    )
    trainer.run()
    torch.save(trainer.network.state_dict(), args.output / "weights.pt")
    (args.output / "history.json").write_text(
        json.dumps(
            {
                "history": trainer.history,
                "seconds": trainer.seconds,
                "options": asdict(options),
                "sizes": network.sizes,
            },
            indent=1,
        )
    )


class _Log:
    """Writes a line every 50 updates."""

    def __init__(self, fname):
        self.fname = fname
        self.start = time.perf_counter()

    def __call__(self, trainer):
        if trainer.step % 50:
            return
        line = {
            "step": trainer.step,
            "loss": round(float(trainer.loss), 4),
            "validation": trainer.history[-1],
            "wall": round(time.perf_counter() - self.start, 1),
            **{name: round(value, 1) for name, value in trainer.seconds.items()},
        }
        with open(self.fname, "a") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()

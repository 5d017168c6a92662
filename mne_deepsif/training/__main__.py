"""Train generic weights from a bundle, on any machine that has torch and NumPy.

Run ``python -m mne_deepsif.training BUNDLE OUT``. It uses a GPU if there is one. The
folder OUT gets a checkpoint, from which a stopped training goes on, a log, the weights
in files of at most 14 MiB, and a record. Several devices, or processes, share the work
if ``torchrun`` starts them::

    torchrun --nproc_per_node 2 -m mne_deepsif.training BUNDLE OUT
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import argparse
import hashlib
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from ..network.device import resolve_device
from .bundle import read_bundle
from .generic import GenericTraining, Options, read_weights

# a GPU is busy with many samples only, and can learn from them in larger steps
_ON_GPU = dict(
    **dict(learning_rate=1e-3, batch_size=512, n_leadfields=4, draw_every=2),
    **dict(n_pool=48, n_patches=6000, n_validation=256, save_every=250),
)
_SMALL = dict(
    **dict(n_updates=2, n_pool=2, n_patches=50, batch_size=4, n_leadfields=2),
    n_validation=4,
)


def main(arguments=None):
    """Train from the command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog="python -m mne_deepsif.training", description=main.__doc__
    )
    parser.add_argument("bundle", type=Path, help="what training reads, .npz")
    parser.add_argument("out", type=Path, help="folder for checkpoint and weights")
    parser.add_argument(
        "--start", type=Path, help="OUT of an earlier training, or model file"
    )
    parser.add_argument("--validation", type=int, help="head (default: the last)")
    parser.add_argument("--minutes", type=float, default=Options.minutes)
    parser.add_argument("--learning-rate", type=float, help="largest")
    parser.add_argument("--seed", type=int, default=Options.seed)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--smoke", action="store_true", help="two small updates")
    args = parser.parse_args(arguments)
    device = resolve_device(args.device)
    if device == "cpu":
        torch.set_num_threads(1)  # processor time is what limits a training
        torch.set_flush_denormal(True)
    if together := "LOCAL_RANK" in os.environ:  # torchrun sets it
        torch.distributed.init_process_group("gloo" if device == "cpu" else "nccl")
        device = device if device == "cpu" else f"cuda:{os.environ['LOCAL_RANK']}"
    options = Options(minutes=args.minutes, seed=args.seed)
    options = replace(options, **({} if device == "cpu" else _ON_GPU))
    if args.learning_rate is not None:
        options = replace(options, learning_rate=args.learning_rate)
    options = replace(options, **(_SMALL if args.smoke else {}))
    n_processes = int(os.environ.get("WORLD_SIZE", 1))
    n_each = -(-options.n_leadfields // n_processes)
    options = replace(options, n_leadfields=n_each * n_processes)
    args.out.mkdir(parents=True, exist_ok=True)
    cortex, heads, n_smoothings = read_bundle(args.bundle, device)
    training = GenericTraining(
        args.out,
        cortex,
        heads,
        n_smoothings,
        max(heads) if args.validation is None else args.validation,
        options,
        source=hashlib.sha256(args.bundle.read_bytes()).hexdigest()[:16],
        device=device,
        start=read_weights(args.start)[0] if args.start else None,
        log=partial(print, flush=True),
    )
    if training.update == 0:
        text = training.measure(2 if args.smoke else 10)
        if training.process == 0:
            training.log(text)
    training.run()
    if together:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()

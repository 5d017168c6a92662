"""What the embedded generic weights reach, beside MNE's dSPM and sLORETA.

    python -m benchmarks.studies.first_results [--n 50] [--parts simulated ...]

Prints every figure and writes all of them to ``benchmarks/results/first_results.txt``
(or, with ``--parts``, to a file named after the parts; doc/results.rst shows them).
Real recordings are part of ``benchmarks/comparison``. Seeds, heads and positions here
are used in no training.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time

import mne
import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch.utils.flop_counter import FlopCounterMode

import mne_deepsif
from mne_deepsif.network.architectures import make_network
from mne_deepsif.network.encoder import N_KERNELS
from mne_deepsif.simulation.library import make_library
from mne_deepsif.training.trainer import Trainer, TrainingOptions

from ..comparison.subjects import biosemi_info, helmet
from ..options import SMALL_LIBRARY, parse_args
from ..provenance import Lines
from .scoring import (
    METHODS,
    RULES,
    Methods,
    held_out_library,
    score_cell,
)

SNRS = (5.0, 10.0, 15.0, 20.0)  # dB
LINES = Lines()
say = LINES.say


# ---------------------------------------------------------------- simulated data
def print_scores(title, cells):
    """Print the pooled scores of several cells, a line a method and rule."""
    pooled = {}
    for cell in cells:
        for key, values in cell.items():
            pooled.setdefault(key, []).extend(values)
    for rule in RULES:
        for method in METHODS:
            values = {
                name: np.array(pooled[method, rule, name], float)
                for name in ("le", "precision", "recall", "correlation", "missed")
            }
            le = 1e3 * values["le"][~np.isnan(values["le"])]
            texts = [
                f"LE {le.mean():5.1f} ±{le.std():5.1f} median {np.median(le):5.1f}"
            ]
            texts += [
                f"{name} {values[name].mean():.2f} ±{values[name].std():.2f}"
                for name in ("precision", "recall", "correlation")
            ]
            texts.append(f"missed {values['missed'].mean():.3f} n={len(le)}")
            say(f"{title:12s}{rule:8s}{method:8s} " + " ".join(texts))


def simulated(args):
    """1, 2, 3 sources at 5, 10, 15, 20 dB on the template head, 64 electrodes."""
    say("\n== Simulated: template head, 64 electrodes, held-out waveforms, patches and")
    say("noise; 1 s at 500 Hz, noise drawn there as the authors' scripts do (nominal")
    say("SNR, power halved), 10-15 dB over background. LE one-sided, mm, per source")
    say("(estimate matched to the nearest patch), mean ± SD; missed: no parcel found")
    library = held_out_library(mne_deepsif.make_template_parcels(), args.smoke)
    info = biosemi_info()
    methods = Methods(info, mne_deepsif.make_template_forward(info))
    everything = {}
    for n_sources in (1, 2, 3):
        for snr in SNRS:
            everything[n_sources, snr] = score_cell(
                methods, library, n_sources, snr, args.n, seed=int(100 * snr)
            )
        cells = [cell for (n, _), cell in everything.items() if n == n_sources]
        print_scores(f"{n_sources} source(s)", cells)
    for snr in SNRS:
        print_scores(
            f"{snr:.0f} dB", [cell for (_, s), cell in everything.items() if s == snr]
        )


def unseen(args):
    """2 sources, by sensors that the training never saw."""
    say("\n== Simulated: sensors that the training never saw, 2 sources, 5-20 dB")
    library = held_out_library(mne_deepsif.make_template_parcels(), args.smoke)
    for name, info in unseen_infos().items():
        methods = Methods(info, mne_deepsif.make_template_forward(info))
        cells = [
            score_cell(methods, library, 2, snr, args.n, seed=int(7 * snr))
            for snr in SNRS
        ]
        print_scores(name, cells)


def unseen_infos():
    """Return a montage and helmet positions that are not in the training bank."""
    egi = biosemi_info(montage="GSN-HydroCel-64_1.0")
    return {"EGI 64": egi, "102 mag": helmet(0.0), "102 mag 5°": helmet(5.0)}


# ---------------------------------------------------------------- speed and memory
def run(code, folder=None):
    """Run Python code in a process of its own and return the last line it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=os.environ | ({"MNE_DEEPSIF_DATA": folder} if folder else {}),
        cwd=folder,
        stdout=subprocess.PIPE,  # errors go where ours go
        text=True,
        check=True,
    )
    return done.stdout.strip().splitlines()[-1]


IMPORT = "import time; t = time.perf_counter(); import mne; a = time.perf_counter(); \
import mne_deepsif; print(a - t, time.perf_counter() - a)"

FORWARD = """
import time, mne, mne_deepsif
mne.set_log_level("ERROR")
montage = mne.channels.make_standard_montage("biosemi64")
info = mne.create_info(montage.ch_names, 500.0, "eeg").set_montage(montage)
t = time.perf_counter()
fwd = mne_deepsif.make_template_forward(info)
print(time.perf_counter() - t)
"""

SAVE = FORWARD + "fwd.save('template-fwd.fif')"

APPLY = """
import time, mne, mne_deepsif, numpy as np
mne.set_log_level("ERROR")
fwd = mne.read_forward_solution("template-fwd.fif")
montage = mne.channels.make_standard_montage("biosemi64")
info = mne.create_info(montage.ch_names, 500.0, "eeg").set_montage(montage)
data = np.random.default_rng(0).standard_normal((64, 500)) * 1e-6
evoked = mne.EvokedArray(data, info).set_eeg_reference(projection=True)
cov = mne.make_ad_hoc_cov(info)

def seconds(function, n):
    times = []
    for _ in range(n):
        t = time.perf_counter()
        function()
        times.append(time.perf_counter() - t)
    return times

def sloreta():
    inverse = mne.minimum_norm.make_inverse_operator(
        evoked.info, fwd, cov, fixed=True, depth=None)
    mne.minimum_norm.apply_inverse(evoked, inverse, 1 / 9, "sLORETA")

def memory():  # of this process alone: ru_maxrss starts at the parent's
    status = open("/proc/self/status").read()
    return int(status.split("VmHWM:")[1].split()[0])

before = memory()
ours = seconds(lambda: mne_deepsif.apply_deepsif(evoked, fwd, cov), 8)
peak = memory()
peer = seconds(sloreta, 5)
print(ours[0], np.median(ours[1:]), np.median(peer), before / 1e6, peak / 1e6)
"""


def speed(args):
    """Print times and memory of imports, forwards and estimates on this machine."""
    say("\n== Speed and memory (wall seconds, medians where repeated; shared machine)")
    runs = np.median([list(map(float, run(IMPORT).split())) for _ in range(3)], 0)
    say(f"import mne {runs[0]:.2f} s, then import mne_deepsif {runs[1]:.3f} s")
    with tempfile.TemporaryDirectory() as folder:
        first = float(run(FORWARD, folder))
        second = float(run(SAVE, folder))
        say(f"template forward, 64 electrodes: from nothing {first:.1f} s")
        say(f"template forward, 64 electrodes: head in the cache {second:.1f} s")
        first, ours, peer, before, peak = map(float, run(APPLY, folder).split())
    say(f"apply_deepsif, 1 s of 64 channels at 500 Hz, given the forward: {ours:.2f} s")
    say(f"  (first call in a process {first:.2f} s: torch is imported); MNE's sLORETA,")
    say(f"  its operator made afresh too: {peer:.2f} s; ratio {ours / peer:.2f}")
    say(f"peak memory of that process {peak:.2f} GB ({before:.2f} GB with the forward)")


def training(args):
    """Print simulated samples and training updates per second."""
    info = biosemi_info()
    methods = Methods(info, mne_deepsif.make_template_forward(info))
    library = make_library(methods.parcels, **SMALL_LIBRARY if args.smoke else {})
    n_features = N_KERNELS * methods.parcels.n_parcels
    n_first, n_timed = (1, 4) if args.smoke else (12, 40)  # the first updates compile
    options = TrainingOptions(
        n_steps=n_first + n_timed, n_validation=64, validate_every=1000
    )

    def forget(trainer):
        if trainer.step == n_first:
            trainer.seconds = dict.fromkeys(trainer.seconds, 0.0)

    trainer = Trainer(
        make_network("compact", n_features, methods.parcels.n_parcels, options.n_times),
        library,
        [methods.scaled],
        options,
        callback=forget,
        compiled=not args.smoke,
    )
    trainer.run()
    total = sum(trainer.seconds.values())
    generation = trainer.seconds["generation"]
    rate = n_timed / total
    n_batch = options.batch_size
    X = torch.zeros(n_batch, trainer.network.sizes["n_components"], n_features)
    with FlopCounterMode(display=False) as counter:
        trainer.network(X).sum().backward()
    flops = counter.get_total_flops()
    network_rate = flops * n_timed / trainer.seconds["network"] / 1e12
    start = time.perf_counter()
    for _ in range(10):
        trainer.stream._draw_pool()
    fresh = 10 * n_batch * options.n_uses / (time.perf_counter() - start)
    say("\n== Speed of training")
    say(f"simulated samples per second, by themselves: {fresh:.0f}, each of them in")
    say(f"  {options.n_uses} batches; network compiled")
    say(f"training updates of {n_batch} samples per second: {rate:.2f}; waiting for")
    say(f"  data takes {generation / total:.0%} of the time")
    say(f"  (probability of each number of sources: {options.n_sources})")
    say(f"network part {network_rate:.2f} TFLOP/s on its share of the threads, beside")
    say(f"  {matrix_rate():.2f} TFLOP/s of one {trainer.dtype} matrix product on all")
    with threadpool_limits(1, "openmp"):
        say(f"  and {matrix_rate():.2f} TFLOP/s on one thread")


def matrix_rate():
    """Measure the bfloat16 matrix product of the embedding's size (TFLOP/s)."""
    a, b = (torch.randn(4096, 2048).bfloat16(), torch.randn(2048, 512).bfloat16())
    times = []
    for _ in range(20):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * 4096 * 2048 * 512 / np.median(times) / 1e12


FUNCTIONS = (simulated, unseen, speed, training)
PARTS = {function.__name__: function for function in FUNCTIONS}


def main():
    """Run the parts and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=50, help="samples per cell")
    names = list(PARTS)
    parser.add_argument("--parts", nargs="+", default=names, choices=names)
    args = parse_args(parser, smoke=True)
    if args.smoke:
        args.n = 1
    mne.set_log_level("ERROR")
    LINES.say_provenance()
    for part in args.parts:
        PARTS[part](args)
    fname = args.results / "first_results.txt"
    if args.parts != names:  # some parts must not replace the whole
        fname = fname.with_stem("-".join([fname.stem, *args.parts]))
    LINES.write(fname)


if __name__ == "__main__":
    main()

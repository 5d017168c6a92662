"""Latency of an estimate, beside sLORETA's and LCMV's, and an hour of a stream.

    python -m benchmarks.timing.latency [--runs 200] [--minutes 60] [--threads 1]

64 electrodes, 1 kHz, everything prepared. The methods take turns, on the same 0.5 s of
data, so that other work on the machine meets them all; "processor" is the median of the
time that a call computes, without waiting for a core. Prints the tables and writes them
to ``benchmarks/results/latency.txt``.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import argparse
import os
import time
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import mne
import numpy as np
import torch
from scipy import sparse

import mne_deepsif
from mne_deepsif import apply as front
from mne_deepsif.inverse import model, plan, span, sums
from mne_deepsif.network import architectures, few_sources

from ..comparison.subjects import biosemi_info
from ..options import parse_args
from ..provenance import Lines

SFREQ, N_WINDOW, N_PIECE = 1000.0, 500, 50
# what the table of the time calls the functions that it watches; from "evidence" to
# "their mean" they are the last step
PARTS = {
    "network": [(architectures.CompactNetwork, "forward")],
    "its input": [(model, "encode_windows")],
    "evidence": [(model, "reweigh")],
    "one source": [(few_sources.FewSources, "explain")],
    "eigenvalues": [(model.PreparedPrior, "_spectrum")],
    "sums": [(sums.Sums, part) for part in ("estimate", "of_patches", "kernels")],
    "their mean": [
        (model.PreparedPrior, "_find_prior"),
        (model.PreparedPrior, "_judge"),
        (model.PreparedPrior, "_estimate_batch"),
        (span._Remembered, "_combine"),
    ],
    "resampling": [
        *((model, "cut"), (model, "overlap_add")),
        *((span, "cut"), (span, "overlap_add")),
    ],
    "trust": [
        *((front, "warn_if_unusual"), (front, "warn_wrong_units")),
        *((front, "warn_constant"), (plan, "_power_in_modes")),
    ],
    "MNE objects": [(front, "make_plan"), (front, "make_stc")],
}
LINES = Lines()
say = LINES.say


# ---------------------------------------------------------------- data
def make_data(n_times):
    """Return noise of 1 to 40 Hz, 10 µV (V)."""
    rng = np.random.default_rng(0)
    data = rng.standard_normal((64, n_times))
    data = mne.filter.filter_data(data, SFREQ, 1.0, 40.0, verbose="error")
    return 1e-5 * data / data.std()


def make_label(operator):
    """Return a label of ten parcels around a place."""
    parcels = operator.model.parcels
    labels = parcels.to_labels()
    distances = np.linalg.norm(parcels.centers - parcels.centers[100], axis=1)
    ten = np.argsort(distances)[:10]
    return sum((labels[i] for i in ten[1:]), labels[ten[0]])


# ---------------------------------------------------------------- methods
def make_calls(info, fwd, data):
    """Return, for a label and for all parcels, a function of each method."""
    cov = mne.make_ad_hoc_cov(info)
    operator = mne_deepsif.make_deepsif_operator(info, fwd, cov)
    label = make_label(operator)
    means = operator.leadfield.vertex_area.T.tocsr()
    means = sparse.diags_array(1 / means.sum(axis=1)) @ means
    fixed = mne.convert_forward_solution(fwd, surf_ori=True, force_fixed=True)
    filters = mne.beamformer.make_lcmv(info, fixed, cov, reg=0.05, noise_cov=cov)
    inverse = mne.minimum_norm.make_inverse_operator(
        info, fwd, cov, fixed=True, depth=None
    )
    inverse = mne.minimum_norm.prepare_inverse_operator(inverse, 1, 1 / 9, "sLORETA")
    evoked = mne.EvokedArray(data[:, :N_WINDOW], info)

    def minimum_norm(label=None):
        options = dict(prepared=True, label=label)
        return mne.minimum_norm.apply_inverse(
            evoked, inverse, 1 / 9, "sLORETA", **options
        )

    def to_parcels(stc):  # MNE's extract_label_time_course takes seconds for so many
        return means @ stc.data

    def at_once(**options):
        stream = mne_deepsif.DeepSIFStream(operator, **options)
        stream.push(data[:, :N_WINDOW])
        return stream.finish()

    return operator, {
        "a label of ten parcels": {
            "DeepSIF, stream": Moving(operator, data, label=label),
            "DeepSIF, window": lambda: at_once(label=label),
            "DeepSIF, Evoked": lambda: mne_deepsif.apply_deepsif(
                evoked, operator, label=label
            ),
            "sLORETA": lambda: minimum_norm(label),
            "LCMV": lambda: mne.beamformer.apply_lcmv(evoked, filters).in_label(label),
        },
        "the whole cortex in parcels": {
            "DeepSIF, stream": Moving(operator, data, parcels=True),
            "DeepSIF, window": lambda: at_once(parcels=True),
            "sLORETA": lambda: to_parcels(minimum_norm()),
            "LCMV": lambda: to_parcels(mne.beamformer.apply_lcmv(evoked, filters)),
        },
    }


class Moving:
    """A stream that gets 50 ms more at each call, and estimates the latest samples."""

    def __init__(self, operator, data, **options):
        self.data, self.start = data, 0
        self.stream = mne_deepsif.DeepSIFStream(operator, **options)
        for _ in range(40):
            self()

    def __call__(self):
        """Push 50 ms and preview."""
        piece = self.data[:, self.start : self.start + N_PIECE]
        self.start = (self.start + N_PIECE) % (self.data.shape[1] - N_PIECE)
        self.stream.push(piece)
        return self.stream.preview()


# ---------------------------------------------------------------- tables
def compare(calls, n_runs):
    """Time the methods in turn; print medians and the 99th percentiles."""
    for what, methods in calls.items():
        say(f"\n== {what}: 0.5 s of 64 channels at 1 kHz, prepared (ms)")
        seconds = {name: [] for name in methods}
        processor = {name: [] for name in methods}
        for run in range(n_runs + 3):
            for name, call in methods.items():
                began = time.perf_counter(), time.process_time()
                call()
                if run >= 3:
                    seconds[name].append(time.perf_counter() - began[0])
                    processor[name].append(time.process_time() - began[1])
        say(f"{'':18s}{'least':>8s}{'median':>8s}{'99 %':>8s}{'processor':>11s}")
        for name, found in seconds.items():
            row = 1e3 * np.percentile(found, (0, 50, 99))
            used = 1e3 * np.median(processor[name])
            row = "".join(f"{value:8.1f}" for value in row)
            say(f"{name:18s}{row}{used:11.1f}")


class Stopwatch:
    """Shares of the time by part; what a part calls counts for what it belongs to."""

    def __init__(self):
        self.seconds, self.running = dict.fromkeys(PARTS, 0.0), []

    def watch(self, part, function):
        """Return the function, with its time counted."""

        def watched(*args, **kwargs):
            began, inner = time.perf_counter(), [0.0]
            self.running.append(inner)
            try:
                return function(*args, **kwargs)
            finally:
                self.running.pop()
                took = time.perf_counter() - began
                self.seconds[part] += took - inner[0]
                if self.running:
                    self.running[-1][0] += took

        return watched

    def time(self, call, n_runs):
        """Return milliseconds of each part and of the rest, mean of some runs."""
        with ExitStack() as stack:
            for part, functions in PARTS.items():
                for owner, name in functions:
                    watched = self.watch(part, getattr(owner, name))
                    stack.enter_context(mock.patch.object(owner, name, watched))
            began = time.perf_counter()
            for _ in range(n_runs):
                call()
            total = time.perf_counter() - began
        found = {part: 1e3 * value / n_runs for part, value in self.seconds.items()}
        total = 1e3 * total / n_runs
        return found | {"the rest": total - sum(found.values()), "total": total}


def share_out(calls, n_runs):
    """Print where the time goes."""
    columns = {}
    for name, call in calls["a label of ten parcels"].items():
        if name.startswith("DeepSIF"):
            columns[f"{name[9:]}, label"] = Stopwatch().time(call, n_runs)
    call = calls["the whole cortex in parcels"]["DeepSIF, stream"]
    columns["stream, parcels"] = Stopwatch().time(call, n_runs)
    say("\n== where the time goes: DeepSIF, mean (ms)")
    say(f"{'':12s}" + "".join(f"{name:>17s}" for name in columns))
    for part in next(iter(columns.values())):
        row = "".join(f"{column[part]:17.1f}" for column in columns.values())
        say(f"{part:12s}{row}")


def settle(operator, data, n_runs):
    """Print how much estimates of the latest samples change until they are final."""
    stream = mne_deepsif.DeepSIFStream(operator, parcels=True)
    previews, final = [], []
    for start in range(0, min(data.shape[1], N_PIECE * n_runs), N_PIECE):
        final.append(stream.push(data[:, start : start + N_PIECE]).data)
        previews.append((start + N_PIECE, stream.preview().data))
    final = np.concatenate([*final, stream.finish().data], axis=1)
    say("\n== the newest samples: correlation of all parcels with the final estimate")
    for low, high in ((0, 50), (50, 100), (100, 200), (200, 400)):
        found = []
        for now, data_then in previews[len(previews) // 4 : -20]:
            columns = slice(now - high, now - low)
            then = data_then[:, data_then.shape[1] - high :][:, : high - low]
            found.append(np.corrcoef(then.ravel(), final[:, columns].ravel())[0, 1])
        say(f"{low:4d} to {high:3d} ms old: {np.median(found):.2f} (median)")


def run_hour(operator, data, n_minutes):
    """Push a long recording as fast as possible; print speed and memory."""
    label = make_label(operator)
    stream = mne_deepsif.DeepSIFStream(operator, label=label, decim=8)
    n_piece = int(SFREQ)  # accelerated: more at once
    n_pieces = int(n_minutes * 60 * SFREQ) // n_piece
    rows, count, n_events, began = [], 0, 0, time.perf_counter()
    for index in range(n_pieces):
        start = index * n_piece % (data.shape[1] - n_piece)
        times = (index * n_piece + np.arange(n_piece)) / SFREQ
        estimate = stream.push(data[:, start : start + n_piece], times)
        count += len(estimate.times)
        n_events += len(estimate.events)
        if index % max(1, n_pieces // 6) == min(60, n_pieces - 1):
            rows.append((times[0] / 60, resident()))
    count += len(stream.finish().times)
    rows.append((n_pieces * n_piece / SFREQ / 60, resident()))
    seconds = time.perf_counter() - began
    say(f"\n== {n_minutes:g} minutes in pieces of 1 s, the same label, decim=8")
    speed = n_pieces * n_piece / SFREQ / seconds
    say(f"{seconds:.0f} s: {speed:.1f} x real time; {count} final samples,")
    say(f"{n_events} events. Resident memory (MB) at minute:")
    say("".join(f"{minute:8.0f}" for minute, _ in rows))
    say("".join(f"{memory:8.1f}" for _, memory in rows))


def resident():
    """Return the memory that the process has now (MB)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main():
    """Run all and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    args = parse_args(parser)
    mne.set_log_level("ERROR")
    LINES.say_provenance()
    say(f"{args.threads} thread(s) of torch")
    info, data = biosemi_info(SFREQ), make_data(20_000)
    fwd = mne_deepsif.make_template_forward(info)
    torch.set_num_threads(args.threads)  # numba, in the forward, changes them
    operator, calls = make_calls(info, fwd, data)
    compare(calls, args.runs)
    share_out(calls, max(3, args.runs // 4))
    settle(operator, data, args.runs)
    run_hour(operator, data, args.minutes)
    LINES.write(args.results / "latency.txt")


if __name__ == "__main__":
    main()

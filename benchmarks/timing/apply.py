"""Time, memory and amplitudes of the front doors, beside MNE's sLORETA and LCMV.

    python -m benchmarks.timing.apply [--parts evoked ...] [--runs 5] [--minutes 60]

Every figure is the median of ``--runs`` runs after a first one, in a process of its
own; "peak" is the most memory that this process ever had (VmHWM), imports included.
Prints the table and writes it to ``benchmarks/results/apply.txt`` (with ``--parts`` or
``--methods``, to a file named after them). The hour of raw data is a file in a
temporary folder, read without loading it; its estimates are restricted to a label, as
they must be.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import mne
import numpy as np

import mne_deepsif

from ..comparison.subjects import biosemi_info
from ..options import parse_args
from ..provenance import ROOT, Lines
from .cohort import peak_memory

SFREQ = 1000.0  # Hz
METHODS = ("DeepSIF", "sLORETA", "LCMV")
PARTS = {
    "start": "imports, and the template's forward of 64 channels, in fresh processes",
    "evoked": "1 s of 64 channels at 1 kHz, from forward and covariance each time",
    "prepared": "the same with operator, inverse operator or filters prepared",
    "latency": "0.5 s of 64 channels at 1 kHz, prepared",
    "label": "the same, vertices of one label only",
    "epochs": "100 epochs of 1 s, prepared, one estimate in memory at a time",
    "raw": "{minutes} minutes of 64 channels at 1 kHz from a file, one label",
}
LINES = Lines()
say = LINES.say


# ---------------------------------------------------------------- data
def make_data(n_times, seed=0):
    """Return noise between 1 and 40 Hz or so, 10 µV (V)."""
    rng = np.random.default_rng(seed)
    data = rng.standard_normal((64, n_times), dtype=np.float32)
    fast, slow = (np.hanning(n) / np.hanning(n).sum() for n in (25, 501))
    kernel = np.pad(fast, 238) - slow
    data = np.array([np.convolve(row, kernel, "same") for row in data])
    return 1e-5 * data / data.std()


def make_label(fwd):
    """Return the vertices within 10 mm of one of them."""
    vertices = fwd["src"][0]["vertno"]
    rr = fwd["src"][0]["rr"][vertices]
    near = np.linalg.norm(rr - rr[5000], axis=1) < 0.01
    return mne.Label(vertices[near], hemi="lh", subject="fsaverage5")


def make_raw_file(fname, n_minutes):
    """Write the recording; a process of its own does it."""
    minute = make_data(60_000)
    raw = mne.io.RawArray(np.tile(minute, n_minutes), biosemi_info(SFREQ), copy=None)
    raw.save(fname, overwrite=True)


# ---------------------------------------------------------------- what is timed
def make_call(part, method, fname):
    """Return a function without arguments: one run of a part with a method."""
    info = biosemi_info(SFREQ)
    fwd = mne_deepsif.make_template_forward(info)
    cov = mne.make_ad_hoc_cov(info)
    make = dict(DeepSIF=make_operator, sLORETA=make_inverse, LCMV=make_filters)[method]
    prepared = None if part == "evoked" else make(info, fwd, cov)
    label = make_label(fwd) if part in ("label", "raw") else None
    if part == "raw":
        raw = mne.io.read_raw_fif(fname)
        return partial(apply, raw, prepared, label=label)
    if part == "epochs":
        data = make_data(100_000).reshape(64, 100, 1000).transpose(1, 0, 2)
        epochs = mne.EpochsArray(data, info)
        return lambda: sum(1 for _ in apply(epochs, prepared))
    n_times = 500 if part in ("latency", "label") else 1000
    evoked = mne.EvokedArray(make_data(n_times), info)
    if part == "evoked":
        return lambda: apply(evoked, make(info, fwd, cov))
    return partial(apply, evoked, prepared, label=label)


def make_operator(info, fwd, cov):
    """Prepare DeepSIF."""
    return mne_deepsif.make_deepsif_operator(info, fwd, cov)


def make_inverse(info, fwd, cov):
    """Prepare sLORETA."""
    inverse = mne.minimum_norm.make_inverse_operator(
        info, fwd, cov, fixed=True, depth=None
    )
    return mne.minimum_norm.prepare_inverse_operator(inverse, 1, 1 / 9, "sLORETA")


def make_filters(info, fwd, cov):
    """Prepare the beamformer."""
    fwd = mne.convert_forward_solution(fwd, surf_ori=True, force_fixed=True)
    return mne.beamformer.make_lcmv(info, fwd, cov, reg=0.05, noise_cov=cov)


def apply(inst, prepared, label=None):
    """Apply what was prepared, by the function for the kind of data."""
    kind = "raw" if isinstance(inst, mne.io.BaseRaw) else "epochs"
    kind = "" if isinstance(inst, mne.Evoked) else kind
    name = f"_{kind}" if kind else ""
    if isinstance(prepared, mne.beamformer.Beamformer):
        kwargs = dict(return_generator=True) if kind == "epochs" else {}
        stc = getattr(mne.beamformer, f"apply_lcmv{name}")(inst, prepared, **kwargs)
        return stc if label is None else stc.in_label(label)
    kwargs = dict(label=label) if kind != "epochs" else dict(return_generator=True)
    if isinstance(prepared, mne.minimum_norm.InverseOperator):
        function = getattr(mne.minimum_norm, f"apply_inverse{name}")
        return function(inst, prepared, 1 / 9, "sLORETA", prepared=True, **kwargs)
    return getattr(mne_deepsif, f"apply_deepsif{name}")(inst, prepared, **kwargs)


def worker(part, method, n_runs, fname):
    """Run a part, and print seconds and memory as JSON."""
    call = make_call(part, method, fname)
    seconds = []
    for _ in range(n_runs + (part != "raw")):  # the first run of raw is warm enough
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    first, seconds = seconds[0], seconds[part != "raw" :]
    print(json.dumps(dict(seconds=seconds, first=first, peak=peak_memory())))


def run_worker(*args):
    """Start this script for one part and method; return what it prints."""
    command = [sys.executable, "-m", "benchmarks.timing.apply", "--worker"]
    command += map(str, args)
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if out.returncode:
        return None, out.stderr.strip().splitlines()[-1][:60]
    return json.loads(out.stdout or "null"), ""


# ---------------------------------------------------------------- tables
def speed(part, methods, n_runs, n_minutes, fname):
    """Print the line of each method."""
    say(f"\n== {part}: {PARTS[part].format(minutes=n_minutes)}")
    for method in methods:
        if part == "raw" and method == "LCMV":
            say("LCMV     not run: apply_lcmv_raw has no label: 10 GB for each minute")
            continue
        result, error = run_worker(part, method, n_runs, fname)
        if result is None:
            say(f"{method:8s} failed: {error}")
            continue
        seconds = result["seconds"]
        median = np.median(seconds)
        line = f"{method:8s} median {1e3 * median:9.1f} ms of {len(seconds)} runs "
        line += f"({1e3 * min(seconds):.1f} to {1e3 * max(seconds):.1f})"
        if part == "raw":
            line += f", {60 * n_minutes / median:.0f} x real time"
        else:
            line += f", the first {result['first']:.2f} s"
        say(f"{line}, peak {result['peak']:.2f} GB")


IMPORT = """
import time
times = [time.perf_counter()]
import mne
times.append(time.perf_counter())
import mne_deepsif
times.append(time.perf_counter())
print(times[1] - times[0], times[2] - times[1])
"""
FORWARD = """
import time
from benchmarks.timing.apply import SFREQ, biosemi_info, mne_deepsif
began, info = time.perf_counter(), biosemi_info(SFREQ)
mne_deepsif.make_template_forward(info, verbose="error")
print(time.perf_counter() - began)
"""


def start():
    """Print how long it takes until the first estimate can begin."""
    say(f"\n== start: {PARTS['start']}")
    mne_alone, package = np.median([run_code(IMPORT) for _ in range(3)], axis=0)
    say(f"import mne {mne_alone:.2f} s, then import mne_deepsif {package:.3f} s")
    with tempfile.TemporaryDirectory() as folder:
        for what in ("from nothing", "head in the cache"):
            seconds = run_code(FORWARD, MNE_DEEPSIF_DATA=folder)[0]
            say(f"template forward, {what}: {seconds:.1f} s")


def run_code(code, **environment):
    """Run Python code in a process of its own; return the numbers that it prints."""
    environment = os.environ | {"MNE_LOGGING_LEVEL": "error"} | environment
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        **dict(env=environment, cwd=ROOT, check=True, text=True),
        stdout=subprocess.PIPE,  # errors go where ours go
    )
    return [float(number) for number in done.stdout.split()]


def amplitude(n_samples):
    """Compare the moment of a patch at its peak with the true one."""
    say(f"\n== amplitude: {n_samples} simulated evoked, one patch, 64 channels, 500 Hz")
    say("estimated over true moment at the true peak: sum over the true patch, largest")
    say("of a vertex, net dipole of the cortex; |error| is the ratio's distance to 1")
    rng = np.random.default_rng(0)
    info = biosemi_info()  # at 500 Hz
    fwd = mne_deepsif.make_template_forward(info)
    snrs = np.resize((20.0, 10.0, 5.0), n_samples)
    seeds = rng.integers(2**31, size=n_samples)
    ratios = np.array([_ratios(fwd, info, *args) for args in zip(snrs, seeds.tolist())])
    for snr in (20.0, 10.0, 5.0, None):
        some = ratios if snr is None else ratios[snrs == snr]
        for name, values in zip(("patch", "largest", "net"), some.T):
            low, mid, high = np.percentile(values, (25, 50, 75))
            error = 100 * np.median(np.abs(values - 1))
            say(
                f"snr {'all' if snr is None else f'{snr:.0f} dB':6s}{name:8s}"
                f"{mid:5.2f} ({low:.2f} to {high:.2f})  |error| median {error:.0f} %"
            )


def _ratios(fwd, info, snr, seed):
    """Return estimated over true: sum over the patch, maximum, net dipole."""
    evoked, whole, truth = mne_deepsif.simulate_evoked(
        fwd, info, snr=snr, random_state=seed
    )
    stc = mne_deepsif.apply_deepsif(evoked, fwd, truth.noise_cov)
    at = stc.time_as_index(truth.peak_times[0][0], use_rounding=True)[0]
    rows = np.flatnonzero(np.abs(_on_all(truth.stc, stc)[:, at]) > 0)
    sign = np.sign(whole.data[rows, at].sum())
    estimate, true = sign * stc.data[:, at], sign * whole.data[:, at]
    normals = np.concatenate([s["nn"][s["vertno"]] for s in fwd["src"]])
    nets = [normals.T @ x for x in (estimate, true)]
    return (
        estimate[rows].sum() / true[rows].sum(),
        estimate.max() / true.max(),
        np.linalg.norm(nets[0]) / np.linalg.norm(nets[1]),
    )


def _on_all(stc, like):
    """Return the data of an estimate on the vertices of another (0 elsewhere)."""
    return stc.expand(like.vertices).data


def main():
    """Run the parts and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [*PARTS, "amplitude"]
    parser.add_argument("--parts", nargs="+", default=names, choices=names)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--minutes", type=int, default=60, help="length of raw")
    parser.add_argument("--n", type=int, default=201, help="samples of amplitude")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    args = parse_args(parser)
    mne.set_log_level("ERROR")
    if args.worker:
        part, method, n_runs, fname = args.worker
        if part == "file":
            return make_raw_file(fname, int(n_runs))
        return worker(part, method, int(n_runs), fname)
    LINES.say_provenance()
    with tempfile.TemporaryDirectory() as folder:
        fname = Path(folder) / "long_raw.fif"
        if "raw" in args.parts:
            run_worker("file", "", args.minutes, fname)
        for part in args.parts:
            if part == "amplitude":
                amplitude(args.n)
            elif part == "start":
                start()
            else:
                speed(part, args.methods, args.runs, args.minutes, fname)
    fname = args.results / "apply.txt"
    chosen = [] if args.parts == names else args.parts
    chosen = chosen + ([] if args.methods == list(METHODS) else args.methods)
    fname = fname.with_stem("-".join([fname.stem, *chosen]))  # not in place of all
    LINES.write(fname)


if __name__ == "__main__":
    main()

"""cMEM and FAST-IRES beside sLORETA and DeepSIF: one patch on the sample subject.

    python -m benchmarks.timing.comparators [--n 2]

Prints every figure and writes them to ``benchmarks/results/comparators.txt``
(doc/comparators.rst shows them). ``../shared/data`` must lie beside the checkout.
"""

import argparse
from collections import defaultdict
from functools import cache
from time import thread_time

import mne
import numpy as np
from scipy import sparse
from threadpoolctl import threadpool_limits

from mne_deepsif import apply_deepsif, stc_metrics
from mne_deepsif.comparators import apply_cmem, apply_fast_ires
from mne_deepsif.head.channels import make_whitener
from mne_deepsif.head.leadfield import surface_graph

from ..options import parse_args
from ..provenance import ROOT, as_lines, provenance

FOLDER = ROOT.parent / "shared" / "data" / "sample"
N_VERTICES = 2562  # of each hemisphere: ico4
SNR = 10.0  # dB, power of the signal within 0.05 s of its peak over that of the noise
RADIUS = 0.015  # m, along the surface
SFREQ, N_TIMES = 250.0, 100
MOVED = (0.004, 0.0, 0.0)  # m: head against brain, in the second scenario
SENSORS = {"EEG": dict(eeg=True), "magnetometers": dict(meg="mag")}


@cache
def read_bem():
    """Return the subject's BEM solution."""
    fname = FOLDER / "sample_fs5" / "bem" / "sample_fs5-1280-1280-1280-bem.fif"
    return mne.make_bem_solution(mne.read_bem_surfaces(fname))


def make_forward(info, shift=(0.0, 0.0, 0.0)):
    """Return the subject's forward solution, with the head moved."""
    src = mne.read_source_spaces(FOLDER / "sample_fs5" / "bem" / "sample_fs5-src.fif")
    for s in src:
        s["inuse"][N_VERTICES:] = 0
        s.update(nuse=N_VERTICES, vertno=np.arange(N_VERTICES))
    trans = mne.read_trans(FOLDER / "sample_fs5-trans.fif")
    trans["trans"][:3, 3] += shift
    fwd = mne.make_forward_solution(info, trans, src, read_bem(), mindist=0.0)
    return mne.convert_forward_solution(fwd, force_fixed=True)


def simulate(fwd, info, cov, seed, rng):
    """Return a recording of a patch around a vertex, and the truth."""
    near = sparse.csgraph.dijkstra(
        surface_graph(fwd["src"]), indices=seed, limit=RADIUS
    )
    times = (np.arange(N_TIMES) - N_TIMES // 2) / SFREQ
    wave = np.exp(-0.5 * (times / 0.03) ** 2)
    vertices = [s["vertno"] for s in fwd["src"]]
    subject = fwd["src"][0]["subject_his_id"]
    truth = mne.SourceEstimate(
        1e-9 * np.isfinite(near)[:, np.newaxis] * wave,
        *(vertices, times[0], 1 / SFREQ, subject),
    )
    evoked = mne.apply_forward(fwd, truth, info, verbose="error")
    evoked.add_proj(info["projs"], remove_existing=True)
    whitener = make_whitener(evoked.info, cov, evoked.ch_names)
    white = whitener @ evoked.data[:, np.abs(times) < 0.05]
    scale = 10 ** (SNR / 20) / np.sqrt(np.mean(white**2))
    evoked.data *= scale
    truth.data *= scale
    mne.simulation.add_noise(evoked, cov, random_state=rng)
    return evoked, truth


def apply_sloreta(evoked, fwd, cov):
    """Apply sLORETA; it evens out depth by itself."""
    inverse = mne.minimum_norm.make_inverse_operator(
        evoked.info, fwd, cov, loose=0, fixed=True, depth=None
    )
    return mne.minimum_norm.apply_inverse(evoked, inverse, 1 / 9, "sLORETA")


METHODS = {
    "cMEM": apply_cmem,
    "FAST-IRES": apply_fast_ires,
    "sLORETA": apply_sloreta,
    "DeepSIF": lambda *args: apply_deepsif(*args, subjects_dir=FOLDER),
}


def score(stc, truth, src):
    """Return peak distance, localization error (mm), precision, recall, correlation."""
    rr = np.vstack([s["rr"][s["vertno"]] for s in src])
    row = np.abs(stc.data).max(axis=1).argmax()
    true = np.flatnonzero(truth.data.any(axis=1))
    peak = np.linalg.norm(rr[true] - rr[row], axis=1).min()
    names = ("localization_error", "precision", "recall", "linear_correlation")
    values = [getattr(stc_metrics, name)(truth, stc, src) for name in names]
    return [1e3 * peak, 1e3 * values[0], *values[1:]]


def measure(fwds, info, cov, n_patches):
    """Yield method, median scores and median seconds over patches."""
    rng = np.random.RandomState(0)
    true, assumed = fwds
    scores, seconds = defaultdict(list), defaultdict(list)
    for seed in rng.choice(true["nsource"], n_patches, replace=False):
        evoked, truth = simulate(true, info, cov, seed, rng)
        for name, method in METHODS.items():
            start = thread_time()
            stc = method(evoked, assumed, cov)
            seconds[name].append(thread_time() - start)
            scores[name].append(score(stc, truth, assumed["src"]))
    for name in METHODS:
        yield name, np.nanmedian(scores[name], axis=0), np.median(seconds[name])


def main():
    """Run all and store the lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=2, help="number of patches")
    args = parse_args(parser, smoke=True)
    n_patches = 1 if args.smoke else args.n
    mne.set_log_level("ERROR")
    recording = mne.read_evokeds(FOLDER / "sample_audvis-ave.fif", "Left visual")
    recording.resample(SFREQ)
    cov = mne.read_cov(FOLDER / "sample_audvis-cov.fif")
    lines = as_lines(provenance())
    lines.append(
        f"{n_patches} patches of {1e3 * RADIUS:.0f} mm, {SNR:.0f} dB, medians; mm, "
        "rule 'peak'; seconds of one thread"
    )
    for sensors, kind in SENSORS.items():
        info = recording.copy().pick_types(**kind, exclude="bads").info
        with info._unlock():
            info["sfreq"] = SFREQ
        true, moved = make_forward(info), make_forward(info, MOVED)
        for scenario, fwds in {
            "same forward": (true, true),
            "moved by 4 mm": (moved, true),
        }.items():
            lines.append(
                f"{sensors}, {scenario}: {true['nchan']} channels, "
                f"{true['nsource']} vertices, {N_TIMES} samples"
            )
            for name, values, time in measure(fwds, info, cov, n_patches):
                peak, error, *shares = values
                shares = " ".join(f"{share:5.2f}" for share in shares)
                lines.append(
                    f"  {name:10s} peak {peak:5.1f}  LE {error:5.1f}  "
                    f"precision, recall, correlation {shares}  {time:6.2f} s"
                )
            print("\n".join(lines[-1 - len(METHODS) :]), flush=True)
    (args.results / "comparators.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    with threadpool_limits(1):
        main()

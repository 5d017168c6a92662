"""Speed of the neural masses, and agreement with The Virtual Brain.

python -m benchmarks.studies.jansen_rit [--tvb-python PATH] [--connectome ZIP] [--quick]
    [--parts speed agreement] [--results FOLDER]

Prints network-seconds per second (wall) and per core and second (processor time, which
other work on the machine changes less), and writes results/jansen_rit.json, of which
the documentation makes its tables; parts that are not run stay as they are there.
The Virtual Brain runs where ``--tvb-python`` (default: this Python) can import it.
The speed takes two minutes on idle cores, the agreement about ten.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from scipy.signal import find_peaks, welch
from scipy.stats import t as student

from mne_deepsif.simulation.connectome import (
    NMM_994_INDEX,
    Connectome,
    make_distance_connectome,
    read_tvb_connectivity,
)
from mne_deepsif.simulation.jansen_rit import INPUT_SETTINGS, simulate_jansen_rit

from ..options import parse_args
from ..provenance import ROOT

SHARED = ROOT.parent / "shared/data/reference/connectivity_998.zip"
# Counted by hand in the kernel, per parcel and step: six sigmoids of 25, slopes and
# update 65, noise 30; and two per tract.
FLOPS, FLOPS_PER_TRACT = 245, 2
PARTS = ("speed", "agreement")


def timed(function):
    """Return wall and processor seconds of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cpu


def random_centers(n_parcels):
    """Points on two half spheres of 8 cm: centres and hemispheres."""
    points = np.random.default_rng(0).standard_normal((n_parcels // 2, 3))
    points *= 0.08 / np.linalg.norm(points, axis=1, keepdims=True)
    points[:, 0] = np.abs(points[:, 0]) + 0.005
    centers = np.concatenate([points * [-1, 1, 1], points])
    return centers, np.repeat([0, 1], n_parcels // 2)


def measure_speed(connectome, n_networks, n_jobs, duration, **options):
    """Return network-seconds per wall second and per processor second."""

    def run():
        simulate_jansen_rit(
            duration,
            connectome,
            n_networks=n_networks,
            n_jobs=n_jobs,
            transient=0,
            verbose="error",
            **options,
        )

    return speed(run, n_networks * duration)


def speed(run, work):
    """Return network-seconds per wall second and per processor second, best of 3."""
    wall, cpu = np.min([timed(run) for _ in range(3)], axis=0)
    return {"per_second": work / wall, "per_core_second": work / cpu}


def plain_torch(connectome, n_networks, duration):
    """Run the same equations as one would write them in torch, float32."""
    weights = torch.tensor(connectome.weights.toarray(), dtype=torch.float32)
    y = torch.zeros(6, connectome.n_parcels, n_networks)

    def sigmoid(v):
        return 0.005 * torch.sigmoid(0.56 * (v - 6))

    def slopes(y, drive):
        y0, y1, y2, y3, y4, y5 = y
        d3 = 0.325 * sigmoid(y1 - y2) - 0.2 * y3 - 0.01 * y0
        d4 = 0.325 * (drive + 108 * sigmoid(135 * y0)) - 0.2 * y4 - 0.01 * y1
        d5 = 1.1 * 33.75 * sigmoid(33.75 * y0) - 0.1 * y5 - 0.0025 * y2
        return torch.stack([y3, y4, y5, d3, d4, d5])

    for _ in range(int(duration * 2000)):
        drive = 0.087 + weights @ sigmoid(y[1] - y[2])
        noise = torch.zeros_like(y)
        noise[4] = 0.0195 * 0.5**0.5 * torch.randn(y.shape[1:])
        first = slopes(y, drive)
        y = y + 0.25 * (first + slopes(y + 0.5 * first + noise, drive)) + noise
    return y


def sgemm_peak():
    """Return the float32 operations per processor second of a matrix product."""
    a = np.ones((2048, 2048), np.float32)
    _, cpu = min(timed(lambda: a @ a) for _ in range(5))
    return 2 * 2048**3 / cpu


def memory_bandwidth():
    """Return the bytes per processor second that a copy of large arrays moves."""
    source, target = np.ones((2, 50_000_000), np.float32)
    _, cpu = min(timed(lambda: np.copyto(target, source)) for _ in range(5))
    return (source.nbytes + target.nbytes) / cpu


def run_tvb(python, **options):
    """Simulate with The Virtual Brain: psp (n_parcels, n_steps), seconds."""
    with tempfile.TemporaryDirectory() as folder:
        files = [f"{folder}/in.npz", f"{folder}/out.npz"]
        np.savez(files[0], **options)
        command = [python, str(Path(__file__).with_name("jansen_rit_tvb.py")), *files]
        subprocess.run(command, check=True, capture_output=True)
        out = np.load(files[1])
        return out["psp"], float(out["seconds"])


def compare_trajectories(python):
    """Compare both without noise over 1 s: the 12 parcels of the test."""
    rng = np.random.default_rng(0)
    weights = rng.random((12, 12)) * 5 * (rng.random((12, 12)) < 0.5)
    np.fill_diagonal(weights, 0)
    lengths = np.where(weights > 0, rng.uniform(5, 150, (12, 12)), 0)
    A = np.where(np.arange(12) == 0, 3.6, 3.25)
    initial = np.array([0.05, 8, 6, 0, 0, 0])
    result = {}
    for speed in (None, 3.0):
        given = lengths if speed else 0 * lengths
        options = dict(A=A, mu=0.11, noise_std=0, duration=1.0, speed=3.0)
        theirs, _ = run_tvb(
            python, weights=weights, lengths=given, initial=initial, **options
        )
        for dtype in ("float64", "float32"):
            ours = simulate_jansen_rit(
                1.0005,
                Connectome(sparse.csr_array(weights), sparse.csr_array(given)),
                A=A[None],
                mu=0.11,
                noise_std=0,
                speed=speed,
                sfreq=2000,
                transient=0,
                initial=np.repeat(initial[:, None], 12, 1),
                dtype=dtype,
            )[0, :, 1:]
            error = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
            result[f"{dtype}, {'delays' if speed else 'no delays'}"] = error
    return result


def statistics(psp, seed):
    """Return mean, SD, relative power below 4, 8, 16 Hz, spikes/s of the seed."""
    freqs, power = welch(psp, 500, nperseg=500, detrend="constant")
    power = power.mean(0).cumsum() / power.mean(0).sum()
    peaks = find_peaks(psp[seed], height=8, distance=100)[0]
    return {
        "mean": psp.mean(),
        "std": np.median(psp.std(-1)),
        "power below 4, 8, 16 Hz": power[np.searchsorted(freqs, [4, 8, 16])].tolist(),
        "seed spikes per s": len(peaks) / psp.shape[1] * 500,
    }


def compare_statistics(python, connectome, duration, seed=100):
    """Compare both with noise: one run of theirs, 16 of ours (mean and SD)."""
    A = np.full(connectome.n_parcels, 3.25)
    A[seed] = 3.6
    theirs, seconds = run_tvb(python, **tvb_options(connectome, duration + 1, A))
    ours = simulate_jansen_rit(
        duration,
        connectome,
        n_networks=16,
        A=A[None],
        speed=3.0,
        transient=1.0,
        random_state=0,
    )
    each = [statistics(psp, seed) for psp in ours]
    reference = statistics(theirs[:, 2000::4], seed)
    return {
        "TVB": reference,
        "p, TVB's run drawn from ours (Student's t, 15 d.f., two-sided)": {
            k: prediction_p(reference[k], [e[k] for e in each]) for k in reference
        },
        "ours, mean": {k: np.mean([e[k] for e in each], 0).tolist() for k in each[0]},
        "ours, SD": {k: np.std([e[k] for e in each], 0).tolist() for k in each[0]},
        "TVB network-seconds per second": (duration + 1) / seconds,
    }


def prediction_p(value, sample):
    """P value of one more draw from the normal distribution of a sample."""
    sample, n = np.array(sample), len(sample)
    z = (value - sample.mean(0)) / (sample.std(0, ddof=1) * np.sqrt(1 + 1 / n))
    return (2 * student.sf(np.abs(z), n - 1)).tolist()


def make_connectomes(fname):
    """Return the connectomes to measure, by name."""
    found = {f"distance, {n}": random_centers(n) for n in (250, 994, 4000)}
    found = {k: make_distance_connectome(*v) for k, v in found.items()}
    if Path(fname).is_file():
        found["papers', 994"] = read_tvb_connectivity(fname, NMM_994_INDEX)
    return found


def has_tvb(python):
    check = [python, "-c", "import tvb.simulator"]
    return subprocess.run(check, capture_output=True).returncode == 0


def measure_all(python, connectomes, main, quick):
    """Return the speed of all, in one run."""
    results = {}
    for name, connectome in connectomes.items():
        duration = (0.5 if quick else 2.0) * 994 / connectome.n_parcels
        for n_networks, n_jobs in ((1, 1), (16, 1), (32, 2), (64, 2)):
            key = f"{name} parcels, {n_networks} networks, {n_jobs} threads"
            results[key] = measure_speed(
                connectome, n_networks, n_jobs, round(duration, 1)
            )
    results["delays, 32 networks, 2 threads"] = measure_speed(
        main, 32, 2, 0.5, speed=3.0
    )
    results["float64 reference, 16 networks"] = measure_speed(
        main, 16, 1, 0.05, dtype="float64"
    )
    plain_torch(main, 16, 0.001)  # warm
    results["plain torch, 16 networks"] = speed(lambda: plain_torch(main, 16, 0.1), 1.6)
    if has_tvb(python):
        _, seconds = run_tvb(python, **tvb_options(main, 0.5))
        # one thread that never waits: processor time is wall time
        results["The Virtual Brain"] = dict.fromkeys(
            ("per_second", "per_core_second"), 0.5 / seconds
        )
    return {"load average at the start": os.getloadavg(), "speed": results}


def tvb_options(connectome, duration, A=3.25):
    return dict(
        weights=connectome.weights.toarray(),
        lengths=connectome.tract_lengths.toarray(),
        A=np.broadcast_to(A, connectome.n_parcels),
        mu=0.087,
        noise_std=1.0,
        duration=duration,
        speed=3.0,
        initial=np.zeros(6),
    )


def measure_use(main, per_core_second):
    """Return what share of a core's arithmetic and memory the engine uses."""
    steps = per_core_second * 2000 * main.n_parcels
    flops = steps * (FLOPS + FLOPS_PER_TRACT * main.weights.nnz / main.n_parcels)
    return {
        "flops per core": flops,
        "share of sgemm flops": flops / sgemm_peak(),
        "memory bandwidth of a core (GB/s)": memory_bandwidth() / 1e9,
        # both stages of a step read and write six states and the noise
        "bandwidth needed were the states in memory (GB/s)": steps * 2 * 2 * 7 * 4e-9,
        "bandwidth of the result, all that goes there (GB/s)": steps / 4 * 4e-9,
    }


def compare(python, main, quick):
    """Return the agreement with The Virtual Brain."""
    results = {
        "spikes per s, A = 3.55": {
            str(setting): spike_rate(main, *setting) for setting in INPUT_SETTINGS
        }
    }
    if has_tvb(python):
        results["error without noise"] = compare_trajectories(python)
        results["with noise"] = compare_statistics(python, main, 2 if quick else 10)
    return results


def spike_rate(connectome, mu, noise_std):
    """Spikes per second of 16 x 20 seeds."""
    rng = np.random.default_rng(0)
    n_parcels = connectome.n_parcels
    seeds = np.array([rng.choice(n_parcels, 20, replace=False) for _ in range(16)])
    A = np.full((16, n_parcels), 3.25)
    np.put_along_axis(A, seeds, 3.55, 1)
    psp = simulate_jansen_rit(
        5,
        connectome,
        n_networks=16,
        A=A,
        mu=mu,
        noise_std=noise_std,
        picks=seeds,
        random_state=0,
    )
    traces = psp.reshape(320, -1)
    return sum(len(find_peaks(x, height=8, distance=100)[0]) for x in traces) / 1600


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tvb-python", default=sys.executable)
    parser.add_argument("--connectome", default=SHARED)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    args = parse_args(parser)
    fname = args.results / "jansen_rit.json"
    results = json.loads(fname.read_text()) if fname.is_file() else {}
    results["machine"] = f"{platform.machine()}, {os.cpu_count()} cores"
    connectomes = make_connectomes(args.connectome)
    name = [name for name in connectomes if "994" in name][-1]  # the papers', if there
    main = connectomes[name]
    if "speed" in args.parts:
        results |= measure_all(args.tvb_python, connectomes, main, args.quick)
        one = results["speed"][f"{name} parcels, 16 networks, 1 threads"]
        results |= measure_use(main, one["per_core_second"])
    if "agreement" in args.parts:
        results |= compare(args.tvb_python, main, args.quick)
    text = json.dumps(results, indent=2, default=float)
    print(text)
    fname.write_text(text + "\n")


if __name__ == "__main__":
    main()

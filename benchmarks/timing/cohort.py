"""Time, memory and disk of a cohort, by engine.

    python -m benchmarks.timing.cohort [--n 6] [--minutes 5] [--repeats 3]

Writes a BIDS dataset of ``--n`` subjects (64 channels at 500 Hz, 20 spikes) into a
temporary folder, and runs it on the template with each engine, in a process of its own,
in turn. Figures are medians over the repeats. Needs the extras ``bids`` and ``dask``.
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
import warnings
from pathlib import Path

import mne
import numpy as np

from ..provenance import ROOT, as_lines, provenance

SFREQ = 500.0
N_SPIKES = 20
ENGINES = {
    "one process": dict(jobs=1),
    "two processes": dict(jobs=2),
    "Dask, one worker": dict(workers=1),
    "Dask, two workers": dict(workers=2),
    "one process, reports": dict(jobs=1, report=True),
}
PAIRS = (
    ("one process", "two processes"),
    ("Dask, one worker", "Dask, two workers"),
    ("one process", "Dask, one worker"),
)
MANY = 10_000  # recordings, for the arithmetic
N_CORES = 200


# ---------------------------------------------------------------- data
def make_dataset(root, n_subjects, minutes):
    """Write a dataset: noise, and spikes of one place."""
    import mne_bids

    montage = mne.channels.make_standard_montage("biosemi64")
    info = mne.create_info(montage.ch_names, SFREQ, "eeg").set_montage(montage)
    for number in range(n_subjects):
        raw = _simulate(info, 60 * minutes, np.random.default_rng(number))
        path = mne_bids.BIDSPath(
            subject=f"{number + 1:03d}", task="rest", datatype="eeg", root=root
        )
        with warnings.catch_warnings():  # data that were never in a file
            warnings.simplefilter("ignore")
            mne_bids.write_raw_bids(
                raw, path, allow_preload=True, format="BrainVision", verbose="error"
            )


def _simulate(info, seconds, rng):
    n_times = int(seconds * SFREQ)
    data = 5e-6 * rng.standard_normal((len(info["ch_names"]), n_times))
    onsets = np.linspace(1, seconds - 1, N_SPIKES)
    places = np.array([ch["loc"][:3] for ch in info["chs"]])
    seed = places[rng.integers(len(places))]
    topography = np.exp(-0.5 * (np.linalg.norm(places - seed, axis=1) / 0.04) ** 2)
    times = np.arange(-50, 51) / SFREQ
    spike = 6e-5 * np.outer(topography, np.exp(-0.5 * (times / 0.02) ** 2))
    for onset in (onsets * SFREQ).astype(int):
        data[:, onset - 50 : onset + 51] += spike
    raw = mne.io.RawArray(data, info)
    raw.info["line_freq"] = 50.0
    return raw.set_annotations(mne.Annotations(onsets, 0.0, "spike"))


# ---------------------------------------------------------------- one run
def worker(root, out, name):
    """Run the dataset twice with an engine, and print what it took as JSON."""
    from mne_deepsif.cohort import CohortSettings, run_cohort

    engine = dict(report=False) | ENGINES[name]
    n_workers = engine.pop("workers", None)
    settings = dict(root=root, out=out, tmin=-0.5, baseline=(-0.5, -0.1)) | engine
    mne.set_log_level("ERROR")
    with _Cluster(n_workers) as cluster:
        settings |= cluster.settings
        walls, tables, cpu = [], [], [cpu_time()]
        for _ in range(2):
            began = time.perf_counter()
            tables.append(run_cohort(CohortSettings(**settings)))
            walls.append(time.perf_counter() - began)
            cpu.append(cpu_time())
        peaks = cluster.peaks()
    assert set(tables[0].status) == {"done"} and set(tables[1].status) == {"kept"}
    size = sum(f.stat().st_size for f in Path(out).rglob("*") if f.is_file())
    record = dict(wall=walls[0], kept=walls[1], cpu=cpu[1] - cpu[0])
    record |= dict(peaks=peaks, bytes=size, load=os.getloadavg()[0])
    print(json.dumps(record | dict(seconds=list(tables[0].seconds.astype(float)))))


class _Cluster:
    """Workers of Dask, if any, and the memory that the processes at work have used."""

    def __init__(self, n_workers):
        self.settings, self.n_workers, self.client = {}, n_workers, None

    def __enter__(self):
        if self.n_workers is not None:
            import distributed

            self.cluster = distributed.LocalCluster(
                n_workers=self.n_workers,
                threads_per_worker=1,
                dashboard_address="127.0.0.1:0",
            )
            self.client = distributed.Client(self.cluster)
            self.settings = dict(dask=self.cluster.scheduler_address)
        return self

    def peaks(self):
        if self.client is not None:
            return sorted(self.client.run(peak_memory).values())
        import psutil

        workers = psutil.Process().children(recursive=True)
        pids = [p.pid for p in workers if "LokyProcess" in " ".join(p.cmdline())]
        return sorted(peak_memory(pid) for pid in pids or ["self"])

    def __exit__(self, *error):
        if self.client is not None:
            self.client.close()
            self.cluster.close()


def peak_memory(pid="self"):
    """Return the largest resident memory that a process ever had (GB)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(x.split()[1]) for x in lines if x.startswith("VmHWM")) / 1e6


def cpu_time():
    """Return the processor time of this process and its children (s)."""
    import psutil

    me = psutil.Process()
    times = [one.cpu_times() for one in (me, *me.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def run_worker(*args):
    """Start this module for one run; return what it prints."""
    command = [sys.executable, "-m", "benchmarks.timing.cohort", "--worker", *args]
    env = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    out = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    if out.returncode:
        raise RuntimeError(out.stderr[-3000:])
    return json.loads(out.stdout.splitlines()[-1])


# ---------------------------------------------------------------- all
def measure(n_subjects, minutes, n_repeats):
    """Return the figures of each engine."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "bids"
        make_dataset(root, n_subjects, minutes)
        size = sum(f.stat().st_size for f in root.rglob("*") if f.is_file())
        runs = {name: [] for name in ENGINES}
        for repeat in range(n_repeats):
            for number, name in enumerate(ENGINES):
                out = f"{folder}/out-{number}-{repeat}"
                runs[name].append(run_worker(str(root), out, name))
    found = {name: summarise(many, n_subjects, name) for name, many in runs.items()}
    return dict(mb_of_data=size / n_subjects / 1e6, engines=found)


def summarise(runs, n_subjects, name):
    """Return medians over the runs of an engine."""
    n_workers = ENGINES[name].get("workers", ENGINES[name].get("jobs"))
    walls = np.array([run["wall"] for run in runs])
    work = np.array([sum(run["seconds"]) for run in runs])
    return dict(
        subjects_per_minute=60 * n_subjects / np.median(walls),
        cpu_seconds=np.median([run["cpu"] for run in runs]) / n_subjects,
        seconds_of_a_recording=np.median(np.concatenate([r["seconds"] for r in runs])),
        seconds_beside_it=np.median(walls * n_workers - work) / n_subjects,
        seconds_if_kept=np.median([run["kept"] for run in runs]) / n_subjects,
        gb_of_memory=max(peak for run in runs for peak in run["peaks"]),
        mb_on_disk=np.median([run["bytes"] for run in runs]) / n_subjects / 1e6,
        walls=walls.tolist(),
        loads=[run["load"] for run in runs],
    )


def describe(found):
    """Return the table and the arithmetic for many recordings as lines."""
    lines = [
        f"{'':22}{'subjects':>10}{'s of a':>11}{'s beside':>10}{'CPU':>7}{'s if':>7}"
        f"{'GB per':>9}{'MB on':>8}",
        f"{'':22}{'per min':>10}{'recording':>11}{'it':>10}{'s':>7}{'kept':>7}"
        f"{'worker':>9}{'disk':>8}",
    ]
    engines = found["engines"]
    for name, one in engines.items():
        lines.append(
            f"{name:22}{one['subjects_per_minute']:10.1f}"
            f"{one['seconds_of_a_recording']:11.1f}{one['seconds_beside_it']:10.2f}"
            f"{one['cpu_seconds']:7.1f}{one['seconds_if_kept']:7.2f}{one['gb_of_memory']:9.2f}"
            f"{one['mb_on_disk']:8.1f}"
        )
    rate = {name: one["subjects_per_minute"] for name, one in engines.items()}
    for one, two in PAIRS:
        lines.append(f"{two}: {rate[two] / rate[one]:.2f} times as fast as {one}")
    loads = np.concatenate([one["loads"] for one in engines.values()])
    text = f"{loads.min():.1f} to {loads.max():.1f}"
    lines += [f"load of the machine: {text} on {os.cpu_count()} cores", ""]
    for name in ("one process", "one process, reports"):
        one = engines[name]
        hours = MANY * one["cpu_seconds"] / 3600
        disk = MANY * one["mb_on_disk"] / 1e6
        lines.append(
            f"{MANY} recordings, {name}: {hours:.0f} core hours, "
            f"{hours / N_CORES:.1f} h on {N_CORES} cores, {disk:.2f} TB of results"
        )
    hours = MANY * engines["one process"]["seconds_if_kept"] / 3600
    lines.append(f"{MANY} recordings, all kept: {hours:.1f} core hours")
    return lines


def main(arguments=None):
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=6, help="subjects")
    parser.add_argument("--minutes", type=float, default=5, help="of each recording")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.worker:
        return worker(*args.worker)
    stamp = provenance()
    sizes = dict(n=args.n, minutes=args.minutes, repeats=args.repeats)
    found = measure(args.n, args.minutes, args.repeats)
    text = f"{args.n} subjects, 64 channels, {args.minutes:g} min at {SFREQ:g} Hz "
    text += (
        f"({found['mb_of_data']:.0f} MB), {N_SPIKES} spikes; median of {args.repeats}"
    )
    lines = [*as_lines(stamp), text, "", *describe(found)]
    args.results.mkdir(parents=True, exist_ok=True)
    (args.results / "cohort.txt").write_text("\n".join(lines) + "\n")
    record = dict(provenance=stamp, sizes=sizes, **found)
    (args.results / "cohort.json").write_text(json.dumps(record, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

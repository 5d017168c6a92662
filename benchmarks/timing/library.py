"""Time, memory and size of a library of at least 50 000 spikes, from nothing.

    python -m benchmarks.timing.library [--sfreq 125]

Each library is built in a fresh process and an empty folder (the kernel's compilation
included where numba has not cached it). Prints and writes results/library.json.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time

from ..options import parse_args
from ..provenance import ROOT

MODULE = "benchmarks.timing.library"

# half of a mixed library is spikes as they are
LIBRARIES = {
    "spikes and others": dict(n_waveforms=100_000),
    "spikes only": dict(n_waveforms=50_000, papers_only=True),
}
SMALL = dict(n_parcels=100, n_patches=1000, n_waveforms=100, background=8.0)


def build(n_parcels=994, **options):
    """Build one library in this process and return its figures."""
    wall, cpu = time.perf_counter(), time.process_time()
    from mne_deepsif import data_path, make_template_parcels
    from mne_deepsif.simulation.library import SHARES, make_library

    parcels = make_template_parcels(n_parcels)
    library = make_library(parcels, **options)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    start = time.perf_counter()
    make_library(parcels, **options)
    n_spikes = len(library.waveforms)
    n_spikes *= 1.0 if options.get("papers_only") else SHARES["spikes"]
    files = (data_path() / "libraries").rglob("*.npy")
    return {
        "seconds": wall,
        "processor seconds": cpu,
        "seconds to read it again": time.perf_counter() - start,
        # in KiB on Linux, in bytes on macOS
        "peak memory (GB)": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        * (1 if sys.platform == "darwin" else 1024)
        / 1e9,
        "size on disk (MB)": sum(file.stat().st_size for file in files) / 1e6,
        "spikes as they are": int(n_spikes),
        "waveforms": list(library.waveforms.shape),
        "background (s)": library.background.shape[1] / library.sfreq,
        "patches": len(library.patches),
    }


def build_apart(options):
    """Run :func:`build` in a fresh process and an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        out = subprocess.run(
            [sys.executable, "-m", MODULE, "--build", json.dumps(options)],
            cwd=ROOT,
            env=os.environ | {"MNE_DEEPSIF_DATA": folder},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    return json.loads(out.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sfreq", type=float, default=125.0)
    parser.add_argument("--build", help=argparse.SUPPRESS)
    args = parse_args(parser, smoke=True)
    if args.build:
        print(json.dumps(build(**json.loads(args.build))))
        return
    results = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load average at the start": os.getloadavg(),
        "sfreq (Hz)": args.sfreq,
    }
    fname = args.results / "library.json"
    small = SMALL if args.smoke else {}
    for name, options in LIBRARIES.items():
        results[name] = build_apart(options | {"sfreq": args.sfreq} | small)
        text = json.dumps(results, indent=2)
        fname.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

"""A release of pretrained weights: file, checksum, registry, model card, and a check.

    python -m benchmarks.making.release NAME FILE OUT --description TEXT
    python -m benchmarks.making.release generic

The first writes into OUT what a mirror serves: the file under a name that tells its
checksum, a ``.sha256`` for ``sha256sum -c``, the card, and ``weights.json``, the
package's registry with the new entry, which takes the place of
``mne_deepsif/data/weights.json``. A fresh install with that registry then has to fetch
the file from OUT, from an HTTP server on this machine and from what ``--base`` names,
and to make the same estimate with it as with the file itself. The second writes the
card of the weights in the package.

The card has the figures of results that name the file (see ``card.py``): release it,
run the benchmarks with the released file, and release it again.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mne
import numpy as np

import mne_deepsif
from mne_deepsif.cache import PACKAGE_DATA, hash_file, whole_file
from mne_deepsif.cohort.derivatives import write_json
from mne_deepsif.inverse.files import read_model
from mne_deepsif.inverse.weights import read_registry

from ..comparison.subjects import biosemi_info
from .card import REGISTRY, make_card, weights_at

# ------------------------------------------------------------------- the file


def release(name, fname, out, description):
    """Write a file of weights, its checksum, the registry and the card.

    Parameters
    ----------
    name : str
        Name of the weights.
    fname : Path
        The file that ``DeepSIFEstimator.save`` or a training wrote.
    out : Path
        The folder to write to.
    description : str
        What the weights are for, in a line.

    Returns
    -------
    entry : dict
        The entry in the registry.
    """
    registry = read_registry()
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        raise ValueError(f"name must be of a-z, 0-9 and hyphens, got {name!r}.")
    if registry.get(name, {}).get("embedded"):
        raise ValueError(f"name {name!r} is part of the package: choose another one.")
    read_model(fname)  # raises if it is none
    sha256 = hash_file(fname)
    entry = dict(
        file=f"{name}-{sha256[:8]}.safetensors",
        sha256=sha256,
        embedded=False,
        description=description,
    )
    out.mkdir(parents=True, exist_ok=True)
    with whole_file(out / entry["file"]) as part:
        shutil.copyfile(fname, part)
    with whole_file(out / f"{entry['file']}.sha256") as part:
        part.write_text(f"{sha256}  {entry['file']}\n")
    write_json(out / "weights.json", registry | {name: entry})
    return entry


def write_card(name, entry, folder):
    """Write the card beside the file."""
    with whole_file(folder / f"{name}.md") as part:
        text = make_card(name, entry, folder / entry["file"], weights_at)
        part.write_text(text, encoding="utf-8")


# ------------------------------------------------------------------- the check


def check_release(name, out, evoked, fwd, bases=()):
    """Fetch released weights as a fresh install would, and estimate with them.

    Parameters
    ----------
    name : str
        Name of the weights.
    out : Path
        The folder of the release.
    evoked : Evoked
        Data to estimate.
    fwd : Forward
        Their forward solution.
    bases : sequence of str
        Addresses to fetch from, beside the folder and a server on this machine.

    Returns
    -------
    differences : dict of float
        By address, the largest difference of the estimate to that with the file itself,
        over the largest value. Above 1e-5, a RuntimeError is raised.
    """
    file = out / json.loads((out / "weights.json").read_text())[name]["file"]
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        _install(out, work / "site")
        evoked.save(work / "data-ave.fif")
        mne.write_forward_solution(work / "data-fwd.fif", fwd)
        wanted = _estimate(work, file.resolve(), "http://127.0.0.1:9").data
        address = stack.enter_context(serve(out))
        differences = {}
        for base in (out.resolve().as_uri(), address, *bases):
            found = _estimate(work, name, base).data
            difference = np.abs(found - wanted).max() / np.abs(wanted).max()
            if not difference <= 1e-5:
                raise RuntimeError(
                    f"The estimate with {name!r} from {base} differs by "
                    f"{difference:.1g} of the largest value from that with {file}."
                )
            differences[base] = float(difference)
        return differences


def _install(out, site):
    """Copy the package, with the registry of the release."""
    package = Path(mne_deepsif.__file__).parent
    leave = shutil.ignore_patterns("__pycache__")
    shutil.copytree(package, site / "mne_deepsif", ignore=leave)
    shutil.copyfile(out / "weights.json", site / REGISTRY)


def _estimate(work, weights, base):
    """Estimate by the command line of the copy, in an empty home; read the result."""
    with tempfile.TemporaryDirectory(dir=work) as home:
        environment = {
            name: os.environ[name]
            for name in ("PATH", "SYSTEMROOT")
            if name in os.environ
        }
        environment |= dict(HOME=home, USERPROFILE=home, APPDATA=home)
        environment |= dict(PYTHONPATH=str(work / "site"), MNE_DEEPSIF_URL=base)
        options = ["--forward", work / "data-fwd.fif", "--noise-cov", "adhoc"]
        options += ["--weights", weights, "--out", home, "--no-report"]
        command = [sys.executable, "-m", "mne_deepsif", "estimate"]
        found = subprocess.run(
            [*command, work / "data-ave.fif", *options],
            env=environment,
            cwd=home,
            capture_output=True,
            text=True,
        )
        if found.returncode:
            raise RuntimeError(f"{weights} from {base}: {found.stderr.strip()}")
        (fname,) = Path(home).glob("*-stc.h5")
        return mne.read_source_estimate(fname)


@contextmanager
def serve(folder):
    """Serve a folder on this machine; yield the address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = partial(Quiet, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def make_data():
    """Return a response of one patch, as 64 electrodes on the template see it."""
    info = biosemi_info()
    fwd = mne_deepsif.make_template_forward(info)
    fixed = mne.convert_forward_solution(fwd, force_fixed=True, surf_ori=True)
    vertices = [source["vertno"] for source in fixed["src"]]
    rr = fixed["source_rr"]
    wave = np.exp(-0.5 * ((np.arange(100) - 50) / 8) ** 2)
    patch = np.linalg.norm(rr - rr[3000], axis=1) < 0.015
    stc = mne.SourceEstimate(1e-9 * np.outer(patch, wave), vertices, 0.0, 1 / 200)
    info = mne.create_info(info.ch_names, 200.0, "eeg").set_montage("biosemi64")
    evoked = mne.apply_forward(fixed, stc, info)
    return evoked.set_eeg_reference(projection=True), fwd


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="name of the weights")
    parser.add_argument("file", nargs="?", type=Path, help="the file")
    parser.add_argument("out", nargs="?", type=Path, help="folder of the release")
    parser.add_argument("--description", help="what they are for, in a line")
    parser.add_argument("--base", nargs="*", default=(), help="addresses to check too")
    args = parser.parse_args()
    if args.file is None:
        write_card(args.name, read_registry()[args.name], PACKAGE_DATA)
        print(PACKAGE_DATA / f"{args.name}.md")
        return
    if args.out is None or not args.description:
        parser.error("FILE needs OUT and --description.")
    entry = release(args.name, args.file, args.out, args.description)
    write_card(args.name, entry, args.out)
    print(json.dumps({args.name: entry}, indent=1))
    for base, difference in check_release(
        args.name, args.out, *make_data(), args.base
    ).items():
        print(f"{base}: fetched; the estimate differs by {difference:.1g} of its peak")


if __name__ == "__main__":
    main()

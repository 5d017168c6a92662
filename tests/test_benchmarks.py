"""Each script of the benchmarks runs at its smallest size and writes its result."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from functools import reduce
from importlib import import_module
from importlib.util import find_spec
from operator import getitem
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from mne_deepsif import read_deepsif

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "benchmarks"
DATA = ROOT.parent / "shared" / "data"
# what no smoke run may touch
STORED = (SCRIPTS / "results", ROOT / "doc" / "figures", ROOT / "mne_deepsif" / "data")
# variants that patch the package, each in another place
ABLATIONS = (
    "base",
    "all 64 times instead of components",
    "bidirectional LSTM instead of mixing",
    "four kernels, 1 to 0.001",
    "kernels normalised by noise (dSPM)",
    "no last gates",
    "noise level as input",
    "learning rate falls linearly",
    "Muon",
    "average of the weights (EMA)",
    "loss on amplitudes' square roots",
    "smoothed extents as targets",
)

if not SCRIPTS.is_dir():
    pytest.skip(f"needs {SCRIPTS}", allow_module_level=True)


class Case(NamedTuple):
    """A script and its options, a file that it writes, and what must be in there."""

    script: str  # module of benchmarks, or a file that other Pythons run
    options: str  # {results}, {bundle}, {tvb_input}: a folder and files
    output: str
    expected: tuple  # pieces of text; of a JSON file, keys
    needs: str | None = None  # a module, or a folder of ../shared/data
    check: Callable | None = None  # of the folder with the results


def _all_differ(results):
    """Check that each variant gives another error: its patch is where it matters."""
    found = json.loads((results / "ablation.json").read_text())["variants"]
    assert len({one["error"] for one in found.values()}) == len(ABLATIONS)


def _starts_ahead(results):
    """Check that random weights are worse, and that no sample failed."""
    found = json.loads((results / "changes.json").read_text())["cases"]["no change"]
    first = {name: one["losses"][0][1] for name, one in found["heads"]["0"].items()}
    assert first["personalised"] < first["from scratch"]
    failed = [one for one in found["summary"] if one["metric"] == "failed"]
    assert [(one["mean"], one["n"]) for one in failed] == [(0, 2)] * 3
    assert (results / "changes.png").stat().st_size > 5000


def _trains(results):
    """Train on the bundle as on a GPU, and check the weights that are exported."""
    options = {
        "PYTHON": sys.executable,
        "OPTIONS": "--smoke --device cpu",
        "RUN": f"{results}/tmp",
    }
    subprocess.run(
        ["bash", SCRIPTS / "making/gpu.sh", results / "bundle.npz", results / "run"],
        env=os.environ | options,
        check=True,
        capture_output=True,
    )
    log = (results / "run/log.txt").read_text()
    assert "samples a second" in log and '{"update": 2, "loss": 0.' in log
    fname = f"{results}/x.safetensors"
    options = ["export", "--out", f"{results}", "--fname", fname]
    _run("making.weights", options)
    estimator = read_deepsif(fname)
    assert estimator.recipe_["n_updates"] == 2
    assert estimator.model_.network.sizes["share_width"] == 64


CASES = (
    Case(
        "studies.ablation",
        f"{{bundle}} --smoke --only {shlex.join(ABLATIONS)}",
        "ablation.json",
        ("variants/Muon/updates", "variants/base/parameters"),
        check=_all_differ,
    ),
    Case(
        "timing.apply",
        "--parts start label raw amplitude --methods DeepSIF --runs 1 --minutes 1 "
        "--n 3",
        "apply-start-label-raw-amplitude-DeepSIF.txt",
        ("head in the cache", "== label", "x real time, peak", "snr all   net"),
    ),
    Case(
        "making.extents",
        "fit test --smoke",
        "extents.json",
        (
            *("calibration/both/error", "windows/no source/probability/empty"),
            *("windows/radius 25 mm/otsu/all_found", "min_probability"),
        ),
    ),
    Case(
        "studies.changes",
        "--smoke --updates 2 --times 1 --batch-size 8 --n 2 --n-curve 1 "
        "--out {results}",
        "changes.json",
        ("cases/no change/heads/0/from scratch/losses", "cases/no change/summary"),
        check=_starts_ahead,
    ),
    Case("making.figures_simulation", "", "spikes.png", ("PNG",)),
    Case("making.figures_viz", "", "trust.png", ("PNG",)),
    Case(
        "studies.fast_activity",
        "--smoke",
        "fast_activity.txt",
        ("peak (mm)", "150 Hz, 5 dB                      1000"),
    ),
    Case(
        "studies.real_extents",
        "--smoke",
        "real_extents.txt",
        ("in its window", ", eeg"),
        needs="sample",
    ),
    Case(
        "studies.real_trust",
        "--smoke",
        "real_trust.txt",
        ("no response", "Left visual     eeg      all      own"),
        needs="sample",
    ),
    Case(
        "studies.order",
        "--smoke",
        "order.txt",
        ("share that is told", "eeg 19    random"),
        needs="sample",
    ),
    Case(
        "studies.shifted_caps",
        "--smoke",
        "shifted_caps.txt",
        ("mean (mm)", "biosemi64           20  right"),
    ),
    Case(
        "studies.geometry",
        "--smoke",
        "geometry.txt",
        ("error  warning   silent  harmful   missed", "turned and shifted"),
    ),
    Case(
        "studies.jansen_rit",
        "--parts agreement",
        "jansen_rit.json",
        ("spikes per s, A = 3.55/(0.087, 1.0)",),
    ),
    Case(
        "studies/jansen_rit_tvb.py",
        "{tvb_input} {results}/out.npz",
        "out.npz",
        ("psp.npy", "seconds.npy"),
        needs="tvb",
    ),
    Case(
        "timing.lanes",
        "--repeats 1 --duration 0.1",
        "lanes.json",
        ("figures/this processor/994 coupled parcels/plain over vectors",),
    ),
    Case(
        "timing.library",
        "--smoke",
        "library.json",
        ("spikes only/processor seconds", "spikes and others/size on disk (MB)"),
    ),
    Case(
        "studies.mutated_files",
        "--smoke",
        "mutated_files.json",
        ("counts/flipped/refused", "peak_mb/huge_sizes", "problems"),
    ),
    Case(
        "studies.personalisation",
        "--smoke --updates 2 --heads '102 mag, folded' --only '3e-4, gates only'",
        "personalisation.json",
        ("heads/102 mag, folded/3e-4, gates only/history",),
    ),
    Case(
        "studies.published",
        "--minutes 0.01 --n 4 --waveforms 100 --background 40 --batch-size 2 "
        "--out {results}",
        "published.txt",
        (
            *("their regions: 3 sources", "| published | usual | authors |"),
            *("| compact | usual | otsu |", "| the papers | their own head |"),
        ),
        needs="reference",
    ),
    Case(
        "studies.readers",
        "--smoke",
        "readers.txt",
        ("26 channels used", "has no position for 138 channels"),
        needs="readers",
    ),
    Case(
        "making.weights",
        "heads bundle --smoke --out {results}",
        "bundle.npz",
        (),
        check=_trains,
    ),
    Case(
        "making.trust",
        "fit test --smoke",
        "trust.txt",
        ("all artefacts detected", "confidence: expected calibration error"),
    ),
)


def _run(script, options):
    """Run a module, or a file, in a process of its own; options are a list of str."""
    where = [str(SCRIPTS / script)]
    if not script.endswith(".py"):
        where = ["-m", f"benchmarks.{script}"]
    done = subprocess.run(
        [sys.executable, *where, *options],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-5000:]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Make a bundle of one head."""
    folder = tmp_path_factory.mktemp("bundle")
    _run("making.weights", f"heads bundle --smoke --out {folder}".split())
    return folder / "bundle.npz"


@pytest.fixture
def tvb_input(tmp_path):
    """Write what jansen_rit_tvb.py reads: two coupled parcels, 20 ms."""
    weights = np.array([[0.0, 1.0], [1.0, 0.0]])
    arrays = dict(weights=weights, lengths=10 * weights, A=np.full(2, 3.25))
    scalars = dict(mu=0.09, noise_std=1.0, duration=0.02, speed=3.0)
    np.savez(tmp_path / "in.npz", **arrays, **scalars, initial=np.zeros(6))
    return tmp_path / "in.npz"


def _skip_without(needs):
    if needs == "tvb" and find_spec("tvb") is None:
        pytest.skip("needs tvb-library: pip install mne_deepsif[benchmark]")
    if needs in ("readers", "reference", "sample") and not (DATA / needs).is_dir():
        pytest.skip(f"needs the data in {DATA / needs}")


def _fill(option, request, results):
    """Put in fixtures, but only those that are asked for."""
    option = option.replace("{results}", str(results))
    for name in ("bundle", "tvb_input"):
        if f"{{{name}}}" in option:
            value = request.getfixturevalue(name)
            option = option.replace(f"{{{name}}}", str(value))
    return option


def _stored():
    """Return when each stored result was written."""
    return {file: file.stat().st_mtime_ns for path in STORED for file in path.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.script)
def test_script_writes_its_result(case, request, tmp_path):
    _skip_without(case.needs)
    results, before = tmp_path / "results", _stored()
    options = [_fill(x, request, results) for x in shlex.split(case.options)]
    if case.needs != "tvb":  # that one says where to write
        options += ["--results", str(results)]
    results.mkdir()
    _run(case.script, options)
    content = (results / case.output).read_bytes()
    assert b" failed: " not in content  # what apply.py says of its processes
    for text in case.expected:
        if case.output.endswith(".json"):
            reduce(getitem, text.split("/"), json.loads(content))
        else:
            assert text.encode() in content
    if case.check is not None:
        case.check(results)
    assert _stored() == before


def test_every_script_has_a_case():
    """Others have a test file of their own."""
    found = set()
    for file in SCRIPTS.rglob("*.py"):
        if 'if __name__ == "__main__":' in file.read_text(encoding="utf-8"):
            found.add(".".join(file.relative_to(SCRIPTS).with_suffix("").parts))
    cases = {case.script.removesuffix(".py").replace("/", ".") for case in CASES}
    assert found - cases == OTHERS


OTHERS = {
    *("comparison.__main__", "making.release", "studies.start", "studies.variants"),
    *("timing.cohort", "timing.exported", "timing.latency"),
}


@pytest.mark.parametrize("script", sorted(OTHERS))
def test_others_find_what_they_import(script, monkeypatch):
    """Slow tests run them, which nobody runs after each change of the package."""
    monkeypatch.syspath_prepend(ROOT)
    if script == "timing.exported":
        pytest.importorskip("onnxruntime")
    import_module(f"benchmarks.{script}")


# ---------------------------------------------------------------- all of them
RECORDS = SCRIPTS / "making" / "records.sh"
OTHERWISE = {"ablation", "recordings", "spectrum_tvb", "training_gpu"}


def _records():
    """Return names and modules of what the script makes."""
    text = RECORDS.read_text().splitlines()
    lines = [line.split() for line in text if not line.startswith(" ")]
    made = {words[1]: words[2] for words in lines if words[:1] == ["record"]}
    suites = [words[1] for words in lines if words[:1] == ["suite"]]
    return made | dict.fromkeys(suites, "comparison")


def test_one_script_makes_all_stored_results():
    """Each module is there, and no result is forgotten."""
    for module in _records().values():
        place = SCRIPTS / module.replace(".", "/")
        assert place.is_dir() or place.with_suffix(".py").is_file()
    stored = {file.stem for file in (SCRIPTS / "results").iterdir()}
    assert stored - OTHERWISE == set(_records())


@pytest.mark.skipif(sys.platform == "win32", reason="needs bash")
def test_records_go_on_where_they_stopped(tmp_path):
    """What is done is not made again; what failed is; a dirty tree is refused."""
    copy = tmp_path / "main" / "benchmarks" / "making" / RECORDS.name
    copy.parent.mkdir(parents=True)
    copy.write_text(RECORDS.read_text())
    (copy.parents[1] / "results").mkdir()
    (copy.parents[1] / "results" / "start.json").write_text("{}")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for command in (
        ["init", "--quiet"],
        ["add", "."],
        ["commit", "--quiet", "-m", "x"],
    ):
        subprocess.run([*git, *command], cwd=tmp_path / "main", check=True)
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\necho "$2" >>{tmp_path}/calls\n'
        f"case $2 in *order) test -e {tmp_path}/mended;; esac\n"
    )
    python.chmod(0o755)

    def make(*names):
        return subprocess.run(
            ["bash", copy, tmp_path / "out", *names],
            env=os.environ | {"PYTHON": str(python)},
            capture_output=True,
            text=True,
        )

    failed = make("readers", "order", "geometry")
    assert failed.returncode == 1 and "order failed; see" in failed.stderr
    (tmp_path / "mended").touch()
    assert make("readers", "order", "geometry").returncode == 0
    calls = (tmp_path / "calls").read_text().split()
    steps = ("geometry", "order", "order", "readers")
    assert calls == [f"benchmarks.studies.{step}" for step in steps]
    assert make().returncode == 0
    assert len((tmp_path / "calls").read_text().split()) == 1 + len(_records())
    copy.write_text(RECORDS.read_text() + "\n")
    assert "Commit first." in make().stderr

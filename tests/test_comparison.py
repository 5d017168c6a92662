"""The suite of comparisons: cells, their store, and engines that compute them."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import joblib
import mne
import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist

from mne_deepsif.estimator import _SHORT_LIBRARY

ROOT = Path(__file__).parents[1]
if not (ROOT / "benchmarks").is_dir():
    pytest.skip(f"needs {ROOT / 'benchmarks'}", allow_module_level=True)
sys.path.append(str(ROOT))  # at the end: the package is the installed one

from benchmarks.comparison import (  # noqa: E402
    heads,
    methods,
    recordings,
    report,
    run,
    scores,
    subjects,
)
from benchmarks.comparison.registry import HEADLINE, SCENARIOS  # noqa: E402
from benchmarks.comparison.report import (  # noqa: E402
    as_markdown,
    headline,
    recording_lines,
)
from benchmarks.comparison.scenarios import (  # noqa: E402
    Chunk,
    Sample,
    correlate,
    draw,
)
from benchmarks.comparison.store import Cell, Store  # noqa: E402
from benchmarks.making import extents  # noqa: E402
from benchmarks.studies import start, variants  # noqa: E402

SMALL = SCENARIOS["quick"][0]
EVERY = [one for group in SCENARIOS.values() for one in group]


# ---------------------------------------------------------------- scenarios
def test_names_tell_scenarios_apart():
    found = set(EVERY)
    assert len({one.name for one in found}) == len(found)
    assert set(HEADLINE.values()) <= {one.name for one in found}


def test_scenarios_are_json():
    for one in EVERY:
        json.dumps(asdict(one))


@pytest.mark.parametrize("n_heads", (1, 4))
def test_chunks_share_out_the_samples(n_heads):
    plan = run.make_plan(EVERY[0], ["MNE"], {"MNE": [0]}, n_samples=24, size=6)
    chunks = [Chunk(number, 6) for number in range(len(plan))]
    numbers = sorted(n for chunk in chunks for n in chunk.samples(n_heads))
    assert numbers == list(range(24))
    for chunk in chunks:  # a chunk has one head
        assert {n % n_heads for n in chunk.samples(n_heads)} == {chunk.number % n_heads}


def test_correlated_waveforms():
    first, second = np.random.default_rng(0).normal(size=(2, 75))
    mixed = correlate(first, second, 0.7)
    assert np.corrcoef(first, mixed)[0, 1] == pytest.approx(0.7)
    assert np.abs(mixed).max() == pytest.approx(1)


def test_dipoles_are_tilted_by_the_angle():
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(50, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    (turned,) = heads._tilt(dict(src=[dict(nn=normals)]), rng, 30.0)
    np.testing.assert_allclose((turned * normals).sum(axis=1), np.cos(np.pi / 6))
    np.testing.assert_allclose(np.linalg.norm(turned, axis=1), 1)


@pytest.mark.skipif(
    not (subjects.DATA / "readers" / "bti").is_dir(), reason="needs shared/data/readers"
)
def test_magnetometers_lie_far_apart():
    """The 148 of 248 cover the helmet more evenly than the first 148 do."""
    places = [
        np.array([ch["loc"][:3] for ch in subjects.magnes(n)["chs"]])
        for n in (148, 248)
    ]
    gaps = [np.sort(pdist(one))[0] for one in (places[0], places[1][:148])]
    assert len(places[0]) == 148 and gaps[0] > gaps[1]


# ---------------------------------------------------------------- scores
@pytest.fixture
def line():
    """Give a cortex of ten vertices of 1 cm², 10 mm apart, all of which are scored."""
    places = np.zeros((10, 3))
    places[:, 0] = 0.01 * np.arange(10)
    cortex = SimpleNamespace(
        rows=np.arange(10),
        places=places,
        areas=np.full(10, 1e-4),
        parcel=np.arange(10) // 2,
        centers=places[::2] + [0.005, 0, 0],
    )
    return SimpleNamespace(cortex=cortex)


def _score(values, patches, head, time=None):
    stc = SimpleNamespace(data=np.atleast_2d(values).T)
    sample = Sample(7, None, [np.array(patch) for patch in patches], time)
    return {(r.rule, r.metric): r.value for r in scores.score(stc, sample, head)}


def test_scores_by_hand(line):
    values = np.array([0, 0, 8, 10, 6, 0, 0, 0, 0, 3.0])
    found = _score(values, [[1, 2]], line)
    assert found["-", "peak"] == pytest.approx(10)
    assert found["half", "le"] == pytest.approx((0 + 10 + 20) / 3)
    assert found["half", "precision"] == pytest.approx(1 / 3)
    assert found["half", "recall"] == 0.5
    assert found["half", "area"] == pytest.approx(3)
    assert found["half", "area_ratio"] == pytest.approx(1.5)
    assert found["quarter", "precision"] == pytest.approx(1 / 4)
    assert found["-", "dispersion"] == pytest.approx((10 * 10 + 20 * 6 + 70 * 3) / 27)


def test_scores_on_parcels_by_hand(line):
    """Vertices 1 and 2 are true, so are parcels 0 and 1; vertex 8 is a false alarm."""
    values = np.array([0, 0, 10, 0, 0, 0, 0, 0, 10.0, 0])
    found = _score(values, [[1, 2]], line)
    # one half of the mass stays in parcel 1, the other goes from parcel 0 to parcel 4
    assert found["-", "emd"] == pytest.approx(80 / 2)
    # parcel 2 is close, and silent; of the far ones, 3 and 4, one is active
    assert found["half", "close"] == 1
    assert found["half", "far"] == pytest.approx(1 / 2)
    assert found["half", "specificity"] == pytest.approx(3 / 4)
    assert found["half", "balance"] == pytest.approx(np.sqrt(1 / 2 * 3 / 4))


def test_scores_of_two_patches(line):
    found = _score(np.eye(10)[0], [[0], [9]], line)
    assert found["half", "found"] == 0.5
    assert found["half", "all_found"] == 0


def test_silent_estimate_is_scored(line):
    found = _score(np.zeros(10), [[0]], line)
    assert np.isnan(found["-", "peak"]) and found["-", "auc"] == 0.5
    assert np.isnan(found["otsu", "le"]) and found["otsu", "found"] == 0


def test_no_source_leaves_the_area(line):
    found = _score(np.eye(10)[0], [], line)
    assert set(found) == {(rule, "area") for rule in scores.RULES}


# ---------------------------------------------------------------- report
def test_calibration_error_by_hand():
    """Of four candidates at .75, all are near a source; of two at .15, none is."""
    likely, near = [0.75] * 4 + [0.15] * 2, [1.0] * 4 + [0.0] * 2
    rows = [
        (0, "-", name, value)
        for pair in zip(likely, near)
        for name, value in zip(("probability", "near"), pair)
    ]
    rows = pd.DataFrame(rows, columns=["sample", "rule", "metric", "value"])
    rows = rows.assign(scenario="s", method="m", choice="usual", settings="")
    found = report.summarise(rows).set_index("metric")
    assert found.loc["ece", "mean"] == pytest.approx((4 * 0.25 + 2 * 0.15) / 6)
    assert found.loc["ece", "n"] == 6


def test_headline_marks_the_least():
    title, scenario = next(iter(HEADLINE.items()))
    peaks = {("DeepSIF", "best"): 4.0, ("sLORETA", "usual"): 9.0, ("MNE", "best"): 3.0}
    summary = [
        dict(scenario=scenario, metric="peak", method=method, choice=choice)
        | dict(mean=mean, n=24)
        for (method, choice), mean in peaks.items()
    ]
    lines = headline(summary, [])
    assert lines[1:] == [(title, "4.0", "9.0", "**3.0** (MNE, tuned)", "24")]
    assert as_markdown(lines).count("\n") == 2


@pytest.mark.parametrize(
    "method, expected",
    [("DeepSIF", ("4.0", "-", "-")), ("sLORETA", ("-", "4.0", "4.0 (sLORETA)"))],
)
def test_headline_of_one_method(method, expected):
    """Where a run has nothing to compare, it says so."""
    title, scenario = next(iter(HEADLINE.items()))
    row = dict(
        scenario=scenario, metric="peak", method=method, choice="usual", mean=4.0, n=9
    )
    assert headline([row], [])[1:] == [(title, *expected, "9")]


def test_headline_of_recordings():
    """Responses without a place count for nothing; ours is the better one here."""
    names = ("recording", "method", "distance")
    found = [
        dict(zip(names, one))
        for one in (
            *(("Left visual", "DeepSIF", 2.0), ("Right Auditory", "DeepSIF", 4.0)),
            *(("Left visual", "dSPM", 5.0), ("Left visual", "dSPM", np.nan)),
            ("VEP", "dSPM", 1.0),
        )
    ]
    (line,) = headline([], found)[1:]
    assert line[1:] == ("**3.0**", "-", "5.0 (dSPM)", "2")


@pytest.mark.parametrize("name", ["comparison", "conditions", "papers", "slow"])
def test_stored_tables_are_those_of_the_stored_summary(name):
    """Nothing in them is typed by hand."""
    folder = ROOT / "benchmarks" / "results"
    record = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    keys = ("scenario", "method", "settings")
    rules = {tuple(one[key] for key in keys): one["rule"] for one in record["rules"]}
    found = report.read_recordings(folder) if name == report.NAME else []
    text = report.as_text(pd.DataFrame(record["summary"]), rules, found)
    assert (folder / f"{name}.md").read_text(encoding="utf-8") == text


# ---------------------------------------------------------------- store and engines
@pytest.fixture
def plan():
    """Plan four cells, two methods on two chunks."""
    names = ["DeepSIF", "sLORETA"]
    return run.make_plan(SMALL, names, dict.fromkeys(names, [0]), n_samples=4, size=2)


def test_store_knows_what_is_missing(tmp_path, plan):
    store = Store(tmp_path)
    assert store.missing(plan) == plan
    store.save(plan[1], dict(rows=[]))
    assert store.missing(plan) == [plan[0], *plan[2:]]
    assert store.load(plan[1])["key"]["method"] == plan[1].method
    assert len({store.fname(cell) for cell in plan}) == len(plan)


def test_other_settings_are_another_cell(tmp_path):
    cells = [Cell(SMALL, "MNE", number, Chunk(0, 2)) for number in range(3)]
    assert len({Store(tmp_path).fname(cell) for cell in cells}) == 3


def test_new_extents_make_only_judged_cells_stale(tmp_path, monkeypatch):
    shutil.copytree(methods.PACKAGE, tmp_path / "package")
    monkeypatch.setattr(methods, "PACKAGE", tmp_path / "package")
    version_of = methods.version_of.__wrapped__  # without its cache
    before = [version_of("DeepSIF", judged) for judged in (False, True)]
    (tmp_path / "package/data/extents.json").write_text("{}")
    after = [version_of("DeepSIF", judged) for judged in (False, True)]
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_sources_of_extents_are_in_the_frame_of_the_estimate():
    """The cortex may be in the frame of other sensors, some mm away."""
    places = np.random.default_rng(0).uniform(-0.1, 0.1, (30, 3))
    rows = np.arange(5, 25)
    cortex = SimpleNamespace(rows=rows, places=places[rows] + [0, 0.03, 0])
    tree = extents.source_tree([np.array([3]), np.array([7])], cortex, places)
    assert extents.is_near(tree, places[[rows[3]]])
    assert not extents.is_near(tree, cortex.places[[3]])
    assert not extents.is_near(extents.source_tree([], cortex, places), places)


@pytest.mark.slow
def test_silence_is_judged_by_the_extents_that_users_get():
    """Without a source there is none, though Otsu's threshold would find some."""
    scenarios = {one.cell: one for one in SCENARIOS["quick"] if one.sources.judged}
    for cell, silent in (("no source", 1.0), ("1 source", 0.0)):
        rows = run.compute(Cell(scenarios[cell], "DeepSIF", 0, Chunk(0, 2)))["rows"]
        found = [row.value for row in rows if row[1:3] == ("-", "empty")]
        assert found == [silent] * 2


@pytest.mark.slow
def test_samples_are_a_function_of_their_number():
    first = list(draw(SMALL, Chunk(0, 4))[1])
    for number in (2, 3):
        other = list(draw(SMALL, Chunk(number, 1))[1])[0]
        np.testing.assert_array_equal(other.evoked.data, first[number].evoked.data)


@pytest.mark.slow
def test_candidates_have_a_probability():
    """Where there is a source, the likeliest one is near it."""
    one = next(s for s in SCENARIOS["quick"] if s.cell == "1 source")
    record = run.compute(Cell(one, "DeepSIF", 0, Chunk(0, 2)))
    found = {"probability": [], "near": []}
    for _, _, metric, value in record["rows"]:
        if metric in found:
            found[metric].append(value)
    likely, near = map(np.array, found.values())
    assert len(likely) == len(near) >= 2
    assert ((0 <= likely) & (likely <= 1)).all() and near[likely.argmax()] == 1
    assert all(0 <= one["depth"] < 80 for one in record["samples"].values())


@pytest.mark.slow
def test_a_failure_is_counted(monkeypatch):
    def prepare(problem):
        raise RuntimeError("no answer")

    monkeypatch.setitem(methods.METHODS, "none", methods.Method(prepare))
    record = run.compute(Cell(SMALL, "none", 0, Chunk(0, 2)))
    assert record["rows"] == [(0, "-", "failed", 1.0), (1, "-", "failed", 1.0)]
    assert record["errors"] == dict.fromkeys((0, 1), "RuntimeError: no answer")


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    """Compute the rows of the plan in this process."""
    names = ["DeepSIF", "sLORETA"]
    plan = run.make_plan(SMALL, names, dict.fromkeys(names, [0]), n_samples=4, size=2)
    store = Store(tmp_path_factory.mktemp("serial"))
    assert run.run(plan, store, n_jobs=1) == len(plan)
    return [store.load(cell)["rows"] for cell in plan]


@pytest.mark.slow
def test_processes_give_the_same_rows(tmp_path, plan, serial):
    store = Store(tmp_path)
    run.run(plan, store, n_jobs=2)
    assert [store.load(cell)["rows"] for cell in plan] == serial
    assert run.run(plan, store, n_jobs=2) == 0


@pytest.fixture
def dask_client(tmp_path):
    """Start a cluster of two workers."""
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        dashboard_address="127.0.0.1:0",
        local_directory=tmp_path,
        silence_logs=50,  # of the worker that is killed
    )
    with cluster, distributed.Client(cluster) as client:
        yield client


@pytest.mark.slow
def test_dask_gives_the_same_rows(tmp_path, plan, serial, dask_client):
    store = Store(tmp_path / "store")
    with joblib.parallel_config("dask"):
        run.run(plan, store)
    assert [store.load(cell)["rows"] for cell in plan] == serial


@pytest.mark.slow
def test_dask_finishes_without_a_worker_that_is_killed(tmp_path, dask_client):
    """One worker dies when a cell is stored; what it had to do, another one does."""
    one = ["sLORETA"]
    plan = run.make_plan(SMALL, one, {"sLORETA": [0]}, n_samples=8, size=1)
    store, killed = Store(tmp_path / "store"), []
    (pid, *_) = dask_client.run(os.getpid).values()

    def kill():
        while len(store.missing(plan)) == len(plan):
            time.sleep(0.01)
        killed.append(len(store.missing(plan)))
        os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    with joblib.parallel_config("dask"):
        assert run.run(plan, store) == len(plan)
        assert run.run(plan, store) == 0
    thread.join()
    assert killed[0] > 0  # in the middle
    assert pid not in dask_client.run(os.getpid).values()
    for cell in plan:
        assert store.load(cell)["rows"] == [list(r) for r in run.compute(cell)["rows"]]


def _start(folder, *options):
    command = [sys.executable, "-m", "benchmarks.comparison", "--quick", *options]
    command += ["--store", str(folder / "store"), "--results", str(folder / "results")]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _files(folder):
    return {f: f.stat().st_mtime_ns for f in (folder / "store").rglob("*.json")}


@pytest.mark.slow
def test_quick_run_goes_on_after_a_worker_was_killed(tmp_path):
    psutil = pytest.importorskip("psutil")
    process = _start(tmp_path, "--jobs", "2")
    deadline = time.monotonic() + 300
    while len(_files(tmp_path)) < 5 and time.monotonic() < deadline:
        time.sleep(0.1)
        assert process.poll() is None, process.communicate()[0]
    workers = psutil.Process(process.pid).children(recursive=True)
    busy = [one for one in workers if "loky" in " ".join(one.cmdline())]
    busy[-1].kill()
    process.communicate()
    assert process.returncode != 0  # joblib says that a worker died
    kept = _files(tmp_path)
    assert len(kept) >= 5
    for file in kept:
        assert json.loads(file.read_text())["rows"]
    process = _start(tmp_path, "--jobs", "1")
    output = process.communicate()[0]
    assert process.returncode == 0, output[-5000:]
    assert kept.items() <= _files(tmp_path).items()  # none was computed again
    assert f"## {SMALL.name}" in output
    records = json.loads((tmp_path / "results" / "comparison.json").read_text())
    found = {row["method"] for row in records["summary"]}
    assert {"DeepSIF", "sLORETA", "LCMV"} <= found


# ---------------------------------------------------------------- methods
def test_norm_has_the_sign_of_the_normal():
    """One vertex, three channels that are its three directions, the normal is z."""
    info = mne.create_info(3, 100.0, "eeg")
    evoked = mne.EvokedArray([[3.0, 0.0], [0.0, 0.0], [4.0, -2.0]], info)
    vertices, normals = [np.arange(1), np.arange(0)], np.array([[0.0, 0, 1]])
    kernel = np.eye(3, dtype=np.float32)[np.newaxis]
    stc = methods.apply_kernel(kernel, vertices, evoked, normals)
    np.testing.assert_allclose(stc.data, [[5, -2]])


# ---------------------------------------------------------------- recordings
def test_recordings_that_are_absent_say_so(monkeypatch, tmp_path):
    monkeypatch.setattr(recordings, "DATA", tmp_path)
    monkeypatch.setattr(mne.datasets, "has_dataset", lambda name: False)
    found = recordings.score_recordings(["MNE"])
    assert {one["recording"] for one in found} == set(recordings.RECORDINGS)
    assert all(
        "is not there" in o["skipped"] or "not been" in o["skipped"] for o in found
    )
    assert len(recording_lines(found)) == 1 + len(found)


def test_lines_of_recordings():
    """The least is bold, a failure has no distance, a method that is absent a dash."""
    found = [
        dict(recording="a", sensors="eeg", method="DeepSIF", distance=2.04),
        dict(recording="a", sensors="eeg", method="dSPM", distance=1.0),
        dict(recording="b", sensors="eeg", method="DeepSIF", failed="ValueError: x"),
        dict(recording="c", skipped="not here"),
    ]
    assert recording_lines(found) == [
        ("recording", "sensors", "DeepSIF", "dSPM"),
        ("a", "eeg", "2.0", "**1.0**"),
        ("b", "eeg", "failed", "-"),
        ("c", "skipped: not here", "-", "-"),
    ]


def test_a_recording_that_cannot_be_read_says_so(monkeypatch):
    """A data set of another layout costs its own rows, not the run."""

    def broken():
        raise FileNotFoundError("x_raw.fif")
        yield

    monkeypatch.setattr(recordings, "RECORDINGS", {"broken": broken})
    (found,) = recordings.score_recordings(["MNE"])
    assert found == dict(recording="broken", skipped="FileNotFoundError: x_raw.fif")


def test_distance_of_a_recording(monkeypatch, eeg_info):
    """A peak at a vertex that lies 5 mm from the nearest of two places."""
    white = [np.array([[0.0, 0, 0], [0.01, 0, 0]]), np.zeros((1, 3))]
    places = [np.array([[0.015, 0, 0], [0.05, 0, 0]]), np.zeros((0, 3))]
    data = np.array([[0.0, 1.0], [3.0, -4.0], [0.0, 2.0]])
    stc = mne.SourceEstimate(data, [np.arange(2), np.arange(1)], 0, 0.01)
    method = methods.Method(lambda problem: lambda evoked: stc)
    monkeypatch.setitem(methods.METHODS, "fixed", method)
    evoked = mne.EvokedArray(np.zeros((len(eeg_info.ch_names), 2)), eeg_info)
    case = recordings.Case("r", "eeg", evoked, None, (0, 0.01), places, white)
    row = recordings.score_case(case, "fixed")
    assert (row["hemi"], row["time"]) == ("lh", 0.01)
    assert row["distance"] == pytest.approx(5)


# ---------------------------------------------------------------- studies
@pytest.mark.slow
def test_variants_differ():
    """Each patch is where it matters: no variant scores as the shipped one does."""
    names = ("as shipped", "patches only", "prior of one source only", "floor 0.2")
    rows = [variants.score_variant(SMALL, name, n_samples=2) for name in names]
    assert len({row["auc"]["mean"] for row in rows}) == len(names)
    assert all(set(variants.METRICS) <= set(row) for row in rows)
    assert rows[0]["peak"]["n"] == 2


def test_variants_change_what_is_there():
    for name, changes in variants.VARIANTS.items():
        for module, constants in changes.items():
            for constant in constants:
                assert hasattr(module, constant), (name, module, constant)


def test_variants_have_their_scenarios():
    for kind in ("eeg", "mag"):
        found = variants.find_scenarios(kind)
        assert [one.cell for one in found] == list(variants.CELLS)
        assert {one.head.error for one in found} == {"all"}


def test_the_library_of_the_study_is_that_of_fit():
    assert start.SHORT == _SHORT_LIBRARY
    assert start.UNSEEN["random_state"] != 0, "what make_library takes"


def test_checkouts_are_timed_in_turn(monkeypatch):
    """What is known is kept after each run."""
    walls = iter([3.0, 30.0, 1.0, 50.0, 2.0, 40.0])
    times = lambda tree: dict(wall=next(walls), cpu=1.0, load=0.5)  # noqa: E731
    monkeypatch.setattr(start, "time_in_process", times)
    found = list(start.compare_times(dict(after="here", before="there"), 3))
    assert [len(one) for one in found] == [1, 2, 2, 2, 2, 2]
    medians = {name: one["median"]["wall"] for name, one in found[-1].items()}
    assert medians == {"after": 2.0, "before": 40.0}
    assert len(found[-1]["after"]["runs"]) == 3

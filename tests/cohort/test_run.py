"""A cohort's run: results, reruns, failures, engines."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import json
import os
import re
import signal
import sys
import threading
import time
from concurrent.futures import BrokenExecutor
from functools import partial

import joblib
import mne
import numpy as np
import pandas as pd
import pytest
import torch

import mne_deepsif
from mne_deepsif.cohort import CohortSettings, GroupSettings, run, run_cohort
from mne_deepsif.cohort.group import run_group


def _run(settings, **changes):
    return run_cohort(CohortSettings(**(settings | changes)))


def _statuses(table):
    return dict(zip(table.subject, table.status))


def _files(folder):
    """Return when each result of a recording was written."""
    return {f: f.stat().st_mtime_ns for f in folder.rglob("*") if "sub-" in f.name}


@pytest.fixture
def folder(dataset):
    return dataset / "derivatives" / "mne_deepsif"


def test_results_are_derivatives(settings, folder, quick, fwd16):
    table = _run(settings | dict(report=True, subjects=["01"]))
    assert list(table.status) == ["done"] and list(table.conditions) == [
        "spike/left: 8"
    ]
    assert (table.n_channels[0], table.sfreq[0]) == (16, 250.0)
    place = folder / "sub-01" / "eeg"
    stem = "sub-01_task-spikes"
    names = {f"{stem}_desc-spikeleft{end}" for end in ("-stc.h5", "_extents.tsv")}
    names |= {f"{stem}_report.html", f"{stem}_deepsif.json"}
    names |= {name.rsplit(".", 1)[0] + ".json" for name in names}
    assert {path.name for path in place.iterdir()} == names
    stc = mne.read_source_estimate(place / f"{stem}_desc-spikeleft-stc.h5")
    assert stc.shape == (sum(s["nuse"] for s in fwd16["src"]), 151)
    assert stc.times[0] == pytest.approx(-0.4)
    # the activity is largest at the spike, and near the vertex that made it
    assert abs(stc.times[np.abs(stc.data).sum(0).argmax()]) < 0.02
    place_of_peak, _ = stc.get_peak(vert_as_index=True)
    rr = np.vstack([s["rr"][s["vertno"]] for s in fwd16["src"]])
    assert np.linalg.norm(rr[place_of_peak] - rr[500]) < 0.03
    about = json.loads((place / f"{stem}_desc-spikeleft-stc.json").read_text())
    assert about["Units"] == "A m" and about["NumberOfAverages"] == 8
    assert f"bids:raw:sub-01/eeg/{stem}_events.tsv" in about["Sources"]
    extents = pd.read_csv(place / f"{stem}_desc-spikeleft_extents.tsv", sep="\t")
    assert len(extents) and (extents.area_cm2 >= 1).all()
    report = (place / f"{stem}_report.html").read_text()
    assert "spike/left" in report and "Table of extents" in report
    description = json.loads((folder / "dataset_description.json").read_text())
    weights = description["GeneratedBy"][0]["Weights"]
    assert weights["SHA256"] == run.describe_weights("generic")["SHA256"]
    stored = pd.read_csv(folder / "cohort.tsv", sep="\t")
    assert list(stored.columns) == list(table.columns)


def test_rerun_does_what_is_missing_or_changed(settings, dataset, folder, quick):
    assert _statuses(_run(settings)) == {"01": "done", "02": "done"}
    before = _files(folder)
    # touched, and computed with other engines: the content is the same
    events = dataset / "sub-01" / "eeg" / "sub-01_task-spikes_events.tsv"
    os.utime(events, (1, 1))
    again = _run(settings)
    assert _statuses(again) == {"01": "kept", "02": "kept"}
    assert list(again.conditions) == ["spike/left: 8"] * 2
    assert _files(folder) == before
    # an input that says something else
    events.write_text(events.read_text().replace("spike/left", "sharp", 1))
    dry = _run(settings, dry_run=True)
    assert _statuses(dry) == {"01": "would run", "02": "kept"}
    assert _files(folder) == before
    assert _statuses(_run(settings)) == {"01": "done", "02": "kept"}
    # a result that is missing, and one that is damaged
    next((folder / "sub-02").rglob("*-stc.h5")).unlink()
    assert _statuses(_run(settings)) == {"01": "kept", "02": "done"}
    next((folder / "sub-02").rglob("*extents.tsv")).write_text("")
    assert _statuses(_run(settings)) == {"01": "kept", "02": "done"}
    # results of other settings are removed with them
    assert _statuses(_run(settings, events=["spike"], subjects=["01"])) == {
        "01": "done"
    }
    names = [fname.name for fname in (folder / "sub-01").rglob("*-stc.h5")]
    assert names == ["sub-01_task-spikes_desc-spike-stc.h5"]
    # a setting
    assert set(_statuses(_run(settings, min_area=2e-4, dry_run=True)).values()) == {
        "would run"
    }


def test_a_failed_rerun_destroys_nothing(settings, dataset, folder, quick):
    """Results stay, but no longer count; the next run that succeeds replaces them."""
    settings |= dict(subjects=["01"])
    _run(settings)
    place = folder / "sub-01" / "eeg"
    record = place / "sub-01_task-spikes_deepsif.json"
    report = place / "sub-01_task-spikes_report.html"
    report.write_text("of an earlier run")
    other = place / "sub-01_task-spikes_acq-x_desc-y-stc.h5"
    other.write_text("")
    before = set(place.iterdir())
    events = dataset / "sub-01" / "eeg" / "sub-01_task-spikes_events.tsv"
    text = events.read_text()
    events.write_text(text.splitlines()[0] + "\n")
    assert _statuses(_run(settings, dry_run=True)) == {"01": "would run"}
    assert set(place.iterdir()) == before
    assert _statuses(_run(settings)) == {"01": "failed"}
    assert set(place.iterdir()) == before - {record}
    assert record in before
    group = GroupSettings(folder=str(folder), condition="spike/left", baseline=(-1, 0))
    with (
        pytest.warns(RuntimeWarning, match="Left out.*sub-01_task-spikes_desc"),
        pytest.raises(ValueError, match="no file .* of a finished recording"),
    ):
        run_group(group)
    events.write_text(text)
    assert _statuses(_run(settings, l_freq=1.0)) == {"01": "done"}
    assert record.exists() and other.exists() and not report.exists()


def test_a_failure_before_the_start_counts(settings, dataset, folder, quick):
    """Such as files that cannot be told apart: the record goes all the same."""
    settings |= dict(subjects=["01"])
    _run(settings)
    for name in ("one", "two"):
        place = dataset / "derivatives" / name / "sub-01"
        place.mkdir(parents=True)
        (place / "sub-01_task-spikes_fwd.fif").write_text("")
    assert _statuses(_run(settings, dry_run=True)) == {"01": "failed"}
    assert list(folder.rglob("*_deepsif.json"))
    assert _statuses(_run(settings)) == {"01": "failed"}
    assert not list(folder.rglob("*_deepsif.json"))
    assert list(folder.rglob("*-stc.h5"))


def test_failures_are_reported_and_do_not_stop_the_others(
    tmp_path, settings, dataset, folder, make_raw, write_bids, quick
):
    """Each kind of bad input is a line; the good subjects are done."""
    plain = make_raw(0)
    plain.set_annotations(None)
    write_bids(dataset, plain, "03")  # no events
    for number, sfreq in enumerate((250.0, 500.0), start=1):
        write_bids(dataset, make_raw(0, sfreq), "04", run=str(number))
    lost = make_raw(0)
    lost.set_montage(None)
    write_bids(dataset, lost, "05")
    path = write_bids(dataset, make_raw(0), "06")
    path.fpath.with_suffix(".eeg").unlink()
    path.fpath.write_text("nonsense")
    few = make_raw(0).pick(make_raw(0).ch_names[:12])
    write_bids(dataset, make_raw(0), "07", session="a")
    write_bids(dataset, few, "07", session="b")
    table = _run(settings, subjects=["01", "03", "04", "05", "06"])
    assert _statuses(table) == {"01": "done"} | dict.fromkeys(
        ("03", "04", "05", "06"), "failed"
    )
    errors = dict(zip(table.subject, table.error))
    assert "no events" in errors["03"]
    assert "different sampling rates" in errors["04"]
    assert "no positions of 16 of 16 electrodes" in errors["05"]
    assert errors["06"]
    assert not list((folder / "sub-03").rglob("*_deepsif.json"))
    stored = json.loads((folder / "cohort.json").read_text())["Recordings"]
    assert sum("Traceback" in row["traceback"] for row in stored) == 4
    assert all("\n" not in row["error"] for row in stored)


def test_sessions_with_other_montages(settings, dataset, make_raw, write_bids, quick):
    few = make_raw(0)
    write_bids(dataset, make_raw(0), "07", session="a")
    write_bids(dataset, few.pick(few.ch_names[:12]), "07", session="b")
    table = _run(settings, subjects=["07"])
    assert list(table.status) == ["done", "done"]
    text = "other channels than sub-07_ses-a_task-spikes (12, there 16)"
    assert text in table.warnings[1] and text not in table.warnings[0]
    # known from the record, too, where nothing is computed again
    assert text in _run(settings, subjects=["07"]).warnings[1]


def test_individual_forward(settings, dataset, fwd16, monkeypatch):
    """It is used where it lies in derivatives, and a new one is a new input."""
    monkeypatch.setattr(run, "make_template_forward", None)
    fname = dataset / "derivatives" / "pipeline" / "sub-01" / "sub-01_fwd.fif"
    fname.parent.mkdir(parents=True)
    mne.write_forward_solution(fname, fwd16)
    table = _run(settings, subjects=["01"])
    assert list(table.status) == ["done"]
    assert list(table.forward) == ["derivatives/pipeline/sub-01/sub-01_fwd.fif"]
    with monkeypatch.context() as patched:  # it is large
        patched.setattr(mne, "read_forward_solution", None)
        assert _statuses(_run(settings, subjects=["01"])) == {"01": "kept"}
    scaled = fwd16.copy()
    scaled["_orig_sol"] *= 2  # what MNE writes
    mne.write_forward_solution(fname, scaled, overwrite=True)
    assert _statuses(_run(settings, subjects=["01"])) == {"01": "done"}


@pytest.mark.parametrize(
    "name", ("surf/lh.sphere.reg", "surf/rh.white", "mri/transforms/talairach.xfm")
)
def test_surfaces_of_the_subject_are_inputs(
    settings, dataset, fwd16, tmp_path, monkeypatch, name
):
    """A new sphere gives other parcels, another transform other MNI coordinates."""
    monkeypatch.setattr(run, "_estimate", lambda *args: {})
    fname = dataset / "derivatives" / "pipeline" / "sub-01" / "sub-01_fwd.fif"
    fname.parent.mkdir(parents=True)
    mne.write_forward_solution(fname, fwd16)
    surface = tmp_path / "surfaces" / fwd16["src"][0]["subject_his_id"] / name
    surface.parent.mkdir(parents=True)
    surface.write_text("first")
    settings |= dict(subjects=["01"], subjects_dir=str(tmp_path / "surfaces"))
    assert _statuses(_run(settings)) == {"01": "done"}
    assert _statuses(_run(settings)) == {"01": "kept"}
    surface.write_text("second")
    assert _statuses(_run(settings)) == {"01": "done"}


@pytest.mark.slow
def test_personalised_weights(
    settings, folder, quick, small_template_training, monkeypatch
):
    settings |= dict(subjects=["01"], personalise=2)
    assert _statuses(_run(settings)) == {"01": "done"}
    (fname,) = folder.rglob("*_desc-personal_model.safetensors")
    assert mne_deepsif.read_deepsif(fname).recipe_["n_steps"] == 2
    # another result is missing: it is made again, without another training
    monkeypatch.setattr(mne_deepsif.DeepSIFEstimator, "fit", None)
    next(folder.rglob("*-stc.h5")).unlink()
    assert _statuses(_run(settings)) == {"01": "done"}
    fname.write_bytes(b"")  # now it has to be trained
    assert _statuses(_run(settings)) == {"01": "failed"}


@pytest.mark.parametrize(
    ("change", "error"),
    (
        (lambda raw: raw.set_eeg_reference(["T7"]), "Custom EEG .*projection=True"),
        (lambda raw: raw.annotations.rename({"spike/left": "a/b"}), None),
    ),
)
def test_nothing_is_trained_in_vain(
    settings, quick, make_raw, monkeypatch, change, error
):
    """What fails the estimates fails before the training, with the advice."""
    raw = make_raw(0)
    raw.annotations.append(raw.annotations.onset + 0.1, 0.0, "ab")
    change(raw)
    error = error or "events 'a/b' and 'ab' would have the same file name"
    monkeypatch.setattr(run, "read_runs", lambda recording: {"a": raw})
    monkeypatch.setattr(mne_deepsif.DeepSIFEstimator, "fit", None)
    table = _run(settings, subjects=["01"], personalise=2)
    assert re.search(error, table.error[0])


def test_killed_processes(settings, quick, monkeypatch):
    """Who is killed with others runs alone; who is killed again is reported."""

    class Parallel:
        def __init__(self, *args, **kwargs):
            pass

        def __call__(self, tasks):
            tasks = list(tasks)
            for function, (recording,), kwargs in tasks:
                if recording.entities["subject"] == "01":
                    raise BrokenExecutor("killed")
                yield function(recording, **kwargs)

    monkeypatch.setattr(joblib, "Parallel", Parallel)
    table = _run(settings)
    assert _statuses(table) == {"01": "failed", "02": "done"}
    assert "its process was killed" in table.error[0]


DEADLY = """
import os, signal
from mne_deepsif.cohort.bids import Recording

class Deadly(Recording):
    def inputs(self):
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_recording_that_kills_its_process(settings, tmp_path, monkeypatch):
    (tmp_path / "deadly.py").write_text(DEADLY)
    monkeypatch.syspath_prepend(tmp_path)
    from deadly import Deadly

    first, second = run.find_recordings(CohortSettings(**settings))
    found = [Deadly(first.runs), second]
    monkeypatch.setattr(run, "find_recordings", lambda settings: found)
    table = _run(settings, jobs=2)
    assert _statuses(table) == {"01": "failed", "02": "done"}
    assert "its process was killed" in table.error[0]


def test_weights_that_are_not_there(settings):
    with pytest.raises(ValueError, match="No weights of the name 'x'"):
        _run(settings, weights="x")
    with pytest.raises(ValueError, match="x.safetensors' is not a file"):
        _run(settings, weights="x.safetensors")


# ---------------------------------------------------------------- twelve subjects
@pytest.fixture(scope="module")
def twelve(tmp_path_factory, eeg16, write_bids):
    """Twelve subjects, simulated with neural masses on the template."""
    root = tmp_path_factory.mktemp("twelve")
    raw = mne.io.RawArray(np.zeros((16, 1)), eeg16).set_eeg_reference(projection=True)
    fwd = mne_deepsif.make_template_forward(raw.info)
    for number in range(12):
        raw, _, _ = mne_deepsif.simulate_raw(
            *(fwd, eeg16), n_spikes=6, duration=7.0, random_state=number
        )
        raw = mne.io.RawArray(raw.get_data(), eeg16).set_annotations(raw.annotations)
        raw.info["line_freq"] = 50.0
        write_bids(root, raw, f"{number + 1:02d}")
    return root


def _estimates(folder):
    fnames = sorted(folder.rglob("*-stc.h5"))
    return {fname.name: mne.read_source_estimate(fname) for fname in fnames}


def _assert_same(ours, theirs):
    """Compare estimates, up to the rounding of single precision."""
    assert set(ours) == set(theirs)
    for name, stc in theirs.items():
        atol = 1e-5 * np.abs(stc.data).max()
        np.testing.assert_allclose(ours[name].data, stc.data, rtol=0, atol=atol)


@pytest.mark.slow
def test_dask_with_a_worker_killed_gives_what_a_serial_run_gives(twelve, tmp_path):
    distributed = pytest.importorskip("distributed")
    settings = dict(root=str(twelve), tmin=-0.5, baseline=(-0.5, -0.1), report=False)
    serial = _run(settings, out=str(tmp_path / "serial"))
    assert set(serial.status) == {"done"}
    cluster = distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        dashboard_address="127.0.0.1:0",
        local_directory=tmp_path,
    )
    with cluster, distributed.Client(cluster) as client:
        workers = client.run(os.getpid)
        out = tmp_path / "dask"
        killer = threading.Thread(target=partial(_kill_one, out, workers))
        killer.start()
        table = _run(settings, out=str(out), dask=cluster.scheduler_address)
        killer.join()
        assert set(client.run(os.getpid).values()) != set(workers.values())
    # kept: what the killed worker had written, but not yet handed over
    assert set(table.status) <= {"done", "kept"} and len(table) == 12
    theirs, ours = _estimates(tmp_path / "serial"), _estimates(out)
    assert len(theirs) == 12
    _assert_same(ours, theirs)
    # all results are current, whoever made them
    assert set(_run(settings, out=str(out)).status) == {"kept"}


def test_dask_with_workers_of_many_threads(settings, tmp_path, quick):
    """One recording at a time in a process: figures and warnings are global."""
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=4,
        processes=False,
        dashboard_address="127.0.0.1:0",
    )
    with cluster:
        table = _run(settings, dask=cluster.scheduler_address)
    assert list(table.status) == ["done", "done"]


def _kill_one(out, workers):
    """Kill a worker when some results are there, and others are being made."""
    deadline = time.monotonic() + 300
    while len(list(out.rglob("*_deepsif.json"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(next(iter(workers.values())), signal.SIGKILL)


@pytest.mark.slow
def test_processes_give_what_a_serial_run_gives(settings, tmp_path, monkeypatch):
    serial = _run(settings, out=str(tmp_path / "serial"))
    table = _run(settings, out=str(tmp_path / "two"), jobs=2)
    assert list(table.status) == list(serial.status) == ["done", "done"]
    theirs, ours = _estimates(tmp_path / "serial"), _estimates(tmp_path / "two")
    _assert_same(ours, theirs)


def test_without_distributed(settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"pip install mne-deepsif\[dask\]"):
        _run(settings, dask="tcp://127.0.0.1:1")


def test_one_thread_and_back():
    before = torch.get_num_threads()
    with run.one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before

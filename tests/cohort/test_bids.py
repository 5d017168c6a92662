"""BIDS datasets: recordings, their files, forwards in derivatives."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import builtins

import pytest

from mne_deepsif.cohort.bids import find_forward, find_recordings, read_runs
from mne_deepsif.cohort.settings import CohortSettings


@pytest.fixture
def large(tmp_path, make_raw, write_bids):
    """Write a subject with two sessions, the first of two runs, and one without."""
    for run in ("1", "2"):
        write_bids(tmp_path, make_raw(0), "01", session="a", run=run)
    write_bids(tmp_path, make_raw(0), "01", session="b")
    write_bids(tmp_path, make_raw(1), "02")
    write_bids(tmp_path, make_raw(1), "02", task="rest")
    return tmp_path


def _find(root, **selection):
    return find_recordings(CohortSettings(root=str(root), **selection))


def _names(root, **selection):
    return [recording.name for recording in _find(root, **selection)]


def test_recordings_and_their_selection(large):
    first, second = "sub-01_ses-a_task-spikes", "sub-01_ses-b_task-spikes"
    rest, third = "sub-02_task-rest", "sub-02_task-spikes"
    assert _names(large) == [first, second, rest, third]
    assert _names(large, subjects=["sub-01"]) == [first, second]
    assert _names(large, sessions=["b"]) == [second]
    assert _names(large, tasks=["spikes"], subjects=["02"]) == [third]
    assert _names(large, datatype="eeg") == _names(large)
    recording = _find(large)[0]
    assert recording.entities == dict(subject="01", session="a", task="spikes")
    assert recording.place.as_posix() == "sub-01/ses-a/eeg"
    assert recording.datatype == "eeg"
    raws = read_runs(recording)
    assert len(raws) == 2
    assert all(len(raw.annotations) == 8 for raw in raws.values())


def test_nothing_to_do(large):
    with pytest.raises(ValueError, match=r"no recording .* for {'tasks': \('x',\)}"):
        _find(large, tasks=["x"])
    with pytest.raises(ValueError, match=r"subjects: \['7'\] are not in"):
        _find(large, subjects=["7"])
    with pytest.raises(ValueError, match="has no dataset_description.json"):
        _find(large / "sub-01")


def test_inputs_are_the_recordings_own_files(large):
    names = {path.name for path in _find(large, subjects=["02"])[1].inputs()}
    assert "sub-02_task-spikes_eeg.vhdr" in names
    assert "sub-02_task-spikes_events.tsv" in names
    assert any(name.endswith("electrodes.tsv") for name in names)
    assert not any("task-rest" in name for name in names)
    assert not any("scans" in name for name in names)
    # sidecars that all subjects share, and those of a session
    for name in ("task-spikes_eeg.json", "task-rest_eeg.json", "events.json"):
        (large / name).write_text("{}")
    (large / "sub-01" / "sub-01_task-spikes_channels.tsv").write_text("")
    names = {path.name for path in _find(large, subjects=["02"])[1].inputs()}
    assert {"task-spikes_eeg.json", "events.json"} <= names
    assert "task-rest_eeg.json" not in names
    assert not names & {"participants.tsv", "dataset_description.json", "README"}
    first, second = _find(large, subjects=["01"])
    for recording, theirs in ((first, "ses-b"), (second, "ses-a")):
        names = {path.name for path in recording.inputs()}
        assert "sub-01_task-spikes_channels.tsv" in names
        assert not any(theirs in name for name in names)


def test_forward_that_fits_best(large):
    folder = large / "derivatives" / "pipeline"
    recording, other = _find(large, subjects=["01"])
    assert find_forward(recording, large / "derivatives") is None

    def put(name):
        fname = folder / name
        fname.parent.mkdir(parents=True, exist_ok=True)
        fname.touch()
        return fname

    put("sub-02/eeg/sub-02_task-spikes_fwd.fif")
    put("sub-01/meg/sub-01_fwd.fif")
    put("sub-01/sub-01_ses-a_run-1_fwd.fif")  # of one run: not of both
    assert find_forward(recording, large / "derivatives") is None
    whole = put("sub-01/eeg/sub-01-fwd.fif").rename(
        folder / "sub-01" / "sub-01_fwd.fif"
    )
    assert find_forward(recording, large / "derivatives") == whole
    own = put("sub-01/ses-a/eeg/sub-01_ses-a_task-spikes_fwd.fif")
    assert find_forward(recording, large / "derivatives") == own
    assert find_forward(other, large / "derivatives") == whole
    put("sub-01/again/sub-01_ses-a_task-spikes_fwd.fif")
    with pytest.raises(ValueError, match="several forward solutions fit"):
        find_forward(recording, large / "derivatives")


def test_without_mne_bids(monkeypatch, tmp_path):
    original = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "mne_bids":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"pip install mne-deepsif\[bids\]"):
        _find(tmp_path)

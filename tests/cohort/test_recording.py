"""Recordings: epochs of runs, averages, noise covariance, positions, errors."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
import pytest

import mne_deepsif
from mne_deepsif.cohort.recording import (
    average,
    make_epochs,
    make_noise_cov,
    prepare_raw,
    read_recording,
    set_positions,
)
from mne_deepsif.cohort.settings import CohortSettings

SETTINGS = CohortSettings(tmin=-0.4, tmax=0.2, baseline=(-0.4, -0.1))


def _with(**values):
    return CohortSettings(**(dict(tmin=-0.4, tmax=0.2, baseline=(-0.4, -0.1)) | values))


def test_runs_are_averaged_together(make_raw):
    """The average of all epochs, whichever run they are of; baseline about 0."""
    raws = {"run-1": make_raw(0), "run-2": make_raw(0, name="spike/right")}
    raws["run-2"]._data *= 3
    epochs = make_epochs(raws, SETTINGS)
    assert len(epochs) == 16 and epochs.event_id == {"spike/left": 1, "spike/right": 2}
    (both,) = average(epochs, ("spike",))
    left, right = average(epochs, None)
    assert (both.nave, left.nave, both.comment) == (16, 8, "spike")
    np.testing.assert_allclose(both.data, (left.data + right.data) / 2)
    np.testing.assert_allclose(right.data, 3 * left.data, atol=1e-10)
    quiet = both.copy().crop(-0.4, -0.1).data.mean(1)
    assert np.abs(quiet).max() < 1e-6 * np.abs(both.data).max()


def test_only_events_that_are_wanted(make_raw):
    raw = make_raw(0)
    raw.annotations.description[:3] = "other"
    raw.annotations.description[3] = "BAD_x"
    assert len(make_epochs({"r": raw}, _with(events=["spike"]))) == 4
    assert set(make_epochs({"r": raw}, SETTINGS).event_id) == {"other", "spike/left"}


def test_events_at_the_same_sample(make_raw):
    """Events that are lost, and conditions that vanish with them, are told of."""
    raw = make_raw(0)
    onsets = raw.annotations.onset
    names = ["artefact"] * 3 + ["spike/left"] * 8 + ["zzz"] * 8
    onsets = np.concatenate([onsets[:3], onsets, onsets])
    raw.set_annotations(mne.Annotations(onsets, 0.0, names))
    match = r"Left out: spike/left \(3 of 8\), zzz \(all of 8\)\. Name"
    with pytest.warns(RuntimeWarning, match=match):
        epochs = make_epochs({"r": raw}, SETTINGS)
    assert set(epochs.event_id) == {"artefact", "spike/left"} and len(epochs) == 8
    assert len(make_epochs({"r": raw}, _with(events=["zzz"]))) == 8  # no warning


def test_spans_annotated_as_bad_are_left_out(make_raw):
    raw = make_raw(0)
    raw.annotations.append(1.4, 0.1, "BAD_movement")
    assert len(make_epochs({"r": raw}, SETTINGS)) == 7
    raw.annotations.append(0.0, 12.0, "BAD_movement")
    with pytest.raises(ValueError, match=r"no epoch is left.*BAD_movement \(8\)"):
        make_epochs({"r": raw}, SETTINGS)


def test_bad_in_one_run_is_bad_in_all(make_raw):
    raws = {"1": make_raw(0), "2": make_raw(1)}
    raws["2"].info["bads"] = ["Cz"]
    raws["1"].info["bads"] = ["Pz"]
    for raw in raws.values():
        prepare_raw(raw, SETTINGS)
    info = make_epochs(raws, SETTINGS).info
    assert info["bads"] == ["Cz", "Pz"]
    (reference,) = info["projs"]
    assert not {"Cz", "Pz"} & set(reference["data"]["col_names"])
    assert reference["data"]["ncol"] == 14


def test_mixed_rates(make_raw):
    raws = {"run-1": make_raw(0), "run-2": make_raw(1, sfreq=500.0)}
    with pytest.raises(ValueError, match=r"run-1: 250 Hz, run-2: 500 Hz\).*sfreq"):
        make_epochs(raws, SETTINGS)
    epochs = make_epochs(raws, _with(sfreq=200.0))
    assert len(epochs) == 16 and epochs.info["sfreq"] == 200.0
    same = make_epochs({"run-1": raws["run-1"]}, _with(sfreq=250.0))
    assert (len(epochs.times), len(same.times)) == (120, 150)
    # the spike is where it was
    for one in (epochs, same):
        evoked = one.average()
        assert np.abs(evoked.times[np.abs(evoked.data).max(0).argmax()]) <= 0.005


def test_runs_with_other_channels(make_raw):
    raws = {"run-1": make_raw(0), "run-2": make_raw(1).drop_channels(["Cz"])}
    with pytest.raises(ValueError, match="run-1: 16 channels, run-2: 15 channels"):
        make_epochs(raws, SETTINGS)


def _project(raw, seed, active=False):
    """Add a projector of a random field, as of a heartbeat."""
    field = np.random.default_rng(seed).standard_normal((1, len(raw.ch_names)))
    field /= np.linalg.norm(field)
    data = dict(nrow=1, ncol=field.size, row_names=None, col_names=raw.ch_names)
    proj = mne.Projection(data=data | dict(data=field), desc=f"ECG-{seed}")
    raw.add_proj(proj)
    return raw.apply_proj() if active else raw


def _remove(data, fields):
    """Remove what fields span, by least squares."""
    return data - fields.T @ np.linalg.lstsq(fields.T, data, rcond=None)[0]


@pytest.mark.parametrize("active", (False, True))
def test_runs_with_other_projectors(make_raw, fwd16, active):
    """What is removed from one run is removed from all, and from the leadfield."""
    raws = {"a": _project(make_raw(0), 1, active), "b": _project(make_raw(0), 2)}
    raws["b"]._data *= 3
    plain = make_epochs({"a": make_raw(0)}, SETTINGS).average().data
    with pytest.warns(RuntimeWarning, match=r"all 2 of their fields.*\(ECG-1, ECG-2\)"):
        epochs = make_epochs(raws, SETTINGS)
    (evoked,) = average(epochs, None)
    fields = np.vstack(
        [np.ones(16), *(proj["data"]["data"] for proj in evoked.info["projs"])]
    )
    assert len(evoked.info["projs"]) == 3 and evoked.nave == 16
    np.testing.assert_allclose(evoked.data, _remove(2 * plain, fields), atol=1e-12)
    cov = make_noise_cov(epochs, (-0.4, -0.1))
    stc, residual = mne_deepsif.apply_deepsif(evoked, fwd16, cov, return_residual=True)
    assert np.abs(fields @ residual.data).max() < 1e-6 * np.abs(evoked.data).max()
    assert np.abs(stc.data).max(0).argmax() == pytest.approx(100, abs=3)


def test_runs_with_references_of_other_channels(make_raw):
    """Projectors over other good channels, or one that is applied: no warning."""
    raws = {"a": make_raw(0), "b": make_raw(0)}
    raws["b"].info["bads"] = ["Cz"]
    for raw in raws.values():
        raw.set_eeg_reference(projection=True)
    raws["a"].apply_proj()
    evoked = make_epochs(raws, SETTINGS).average()
    assert evoked.info["bads"] == ["Cz"] and evoked.nave == 16
    plain = make_raw(0)
    plain.info["bads"] = ["Cz"]
    wanted = make_epochs({"a": plain}, SETTINGS).apply_proj().average()
    good = mne.pick_types(evoked.info, eeg=True)
    np.testing.assert_allclose(evoked.data[good], wanted.data[good], atol=1e-12)
    raws = {"a": make_raw(0).set_eeg_reference(["T7"]), "b": make_raw(0)}
    with pytest.raises(ValueError, match=r"runs \['a'\] have an EEG reference that"):
        make_epochs(raws, SETTINGS)


@pytest.mark.parametrize("kind", ("eeg", "mag"))
def test_runs_with_other_head_positions(make_raw, kind):
    raws = {f"run-{number}": make_raw(0) for number in (1, 2)}
    for number, raw in enumerate(raws.values()):
        kinds = dict.fromkeys(raw.ch_names, kind)
        raw.set_channel_types(kinds, on_unit_change="ignore")
        trans = mne.transforms.translation(z=0.01 * number)
        raw.info["dev_head_t"] = mne.transforms.Transform("meg", "head", trans)
    if kind == "eeg":  # it moves with the head
        assert len(make_epochs(raws, SETTINGS)) == 16
    else:
        with pytest.raises(ValueError, match=r"runs \['run-2'\] .*maxwell_filter"):
            make_epochs(raws, SETTINGS)


def test_missing_events(make_raw):
    raw = make_raw(0)
    with pytest.raises(ValueError, match="no event 'sharp': there are spike/left"):
        make_epochs({"r": raw}, _with(events=["sharp"]))
    with pytest.raises(ValueError, match=r"no epoch is left.*NO_DATA \(8\)"):
        make_epochs({"r": raw}, _with(tmin=-20.0, tmax=20.0))
    raw.set_annotations(None)
    with pytest.raises(ValueError, match="neither events.tsv nor"):
        make_epochs({"r": raw}, SETTINGS)


def test_average_of_an_event_that_is_not_there(make_raw):
    epochs = make_epochs({"r": make_raw(0)}, SETTINGS)
    with pytest.raises(ValueError, match="no event 'x': there are spike/left"):
        average(epochs, ("x",))


def test_positions(make_raw):
    raw = make_raw(0)
    places = [ch["loc"][:3].copy() for ch in raw.info["chs"]]
    set_positions(raw, None)  # has them: nothing to do
    raw.set_montage(None)
    with pytest.raises(ValueError, match="no positions of 16 of 16 electrodes .Fp1"):
        set_positions(raw, None)
    set_positions(raw, "biosemi16")
    np.testing.assert_allclose([ch["loc"][:3] for ch in raw.info["chs"]], places)


def test_electrodes_that_the_montage_does_not_know(make_raw):
    """The fewer are left out, with a warning; the more are an error."""
    raw = make_raw(0)
    raw.set_montage(None)
    raw.rename_channels(
        {raw.ch_names[0]: "E", raw.ch_names[1]: raw.ch_names[1].upper()}
    )
    with pytest.warns(RuntimeWarning, match="Left out, as the montage has .*: E\\."):
        set_positions(raw, "biosemi16")
    assert len(raw.ch_names) == 15 and "E" not in raw.ch_names
    places = np.array([ch["loc"][:3] for ch in raw.info["chs"]])
    assert np.isfinite(places).all() and places.any(1).all()
    raw = make_raw(0)
    raw.set_montage(None)
    raw.rename_channels({name: f"X{name}" for name in raw.ch_names[2:]})
    with pytest.raises(ValueError, match="no place for 14 of 16 electrodes .X.*cap"):
        set_positions(raw, "biosemi16")


def test_prepared_raw(make_raw):
    raw = make_raw(0)
    extra = raw.copy().pick([0]).rename_channels({"Fp1": "x"})
    extra.set_channel_types({"x": "eog"})
    raw.add_channels([extra], force_update_info=True)
    prepare_raw(raw, _with(l_freq=1.0, h_freq=40.0))
    assert "x" not in raw.ch_names
    assert (raw.info["highpass"], raw.info["lowpass"]) == (1.0, 40.0)
    for _ in range(2):  # no second reference
        assert len(make_epochs({"r": raw}, SETTINGS).info["projs"]) == 1
    with pytest.raises(ValueError, match="no EEG or MEG channels, only eog"):
        prepare_raw(extra, SETTINGS)


def test_noise_covariance_is_of_single_trials(make_raw):
    """The spikes are not in it: 2 µV of white noise are, average reference aside."""
    raw = make_raw(0)
    prepare_raw(raw, SETTINGS)
    epochs = make_epochs({"r": raw}, SETTINGS)
    cov = make_noise_cov(epochs, SETTINGS.baseline)
    assert np.sqrt(np.diag(cov.data).mean()) == pytest.approx(2e-6, rel=0.1)


def test_files_by_their_names(tmp_path, make_raw):
    raw = make_raw(0)
    epochs = make_epochs({"r": raw}, SETTINGS)
    raw.save(tmp_path / "x_raw.fif")
    epochs.save(tmp_path / "x_epo.fif")
    mne.write_evokeds(tmp_path / "x_ave.fif", average(epochs, None))
    assert isinstance(read_recording(tmp_path / "x_raw.fif"), mne.io.BaseRaw)
    assert isinstance(read_recording(tmp_path / "x_epo.fif"), mne.BaseEpochs)
    assert isinstance(read_recording(tmp_path / "x_ave.fif")[0], mne.Evoked)
    with pytest.raises(FileNotFoundError, match="y_ave.fif"):
        read_recording(tmp_path / "y_ave.fif")
    for name in ("x.nothing", "x.data", "y_ave.fif", "y.edf"):
        (tmp_path / name).write_text("nonsense")
        match = rf"cannot read file .*{name}.*mne.io.read_raw_.*_raw.fif"
        with pytest.raises(ValueError, match=match):
            read_recording(tmp_path / name)

"""One file: raw data, epochs, averages, with and without forward and covariance."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import json

import mne
import numpy as np
import pandas as pd
import pytest

import mne_deepsif
from mne_deepsif.cohort import estimates
from mne_deepsif.cohort.recording import average, make_epochs, prepare_raw
from mne_deepsif.cohort.settings import CohortSettings, EstimateSettings
from mne_deepsif.cohort.single import plan_single, run_single
from mne_deepsif.trust.candidates import default_probability

SPAN = dict(tmin=-0.4, tmax=0.2, baseline=(-0.4, -0.1))


@pytest.fixture
def raw_file(tmp_path, make_raw):
    raw = make_raw(0)
    raw.save(tmp_path / "x_raw.fif")
    return tmp_path / "x_raw.fif"


@pytest.fixture
def epochs(make_raw):
    raw = make_raw(0)
    prepare_raw(raw, CohortSettings())
    return make_epochs({"r": raw}, CohortSettings(**SPAN))


def _settings(file, **values):
    return EstimateSettings(file=str(file), **(dict(report=False) | values))


def _read(fnames):
    (fname,) = (fname for fname in fnames if fname.suffix == ".h5")
    return mne.read_source_estimate(fname)


def test_raw_with_events_is_what_the_functions_give(raw_file, epochs, quick, fwd16):
    fnames = run_single(_settings(raw_file, events=["spike"], **SPAN), "command")
    assert {fname.name for fname in fnames} == {
        *("x_raw_desc-spike-stc.h5", "x_raw_desc-spike-stc.json"),
        *("x_raw_desc-spike_extents.tsv", "x_raw_desc-spike_extents.json"),
        "x_raw_deepsif.json",
    }
    about = json.loads((raw_file.parent / "x_raw_desc-spike_extents.json").read_text())
    assert f"a probability of {default_probability():g} or" in about["Description"]
    cov = mne.compute_covariance(
        epochs, tmin=-0.4, tmax=-0.1, method="shrunk", rank="info"
    )
    stc = mne_deepsif.apply_deepsif(epochs.average(), fwd16, cov)
    found = _read(fnames).data
    np.testing.assert_allclose(found, stc.data, atol=1e-3 * np.abs(stc.data).max())
    record = json.loads((raw_file.parent / "x_raw_deepsif.json").read_text())
    assert record["GeneratedBy"]["command"] == "command"
    assert record["Settings"]["events"] == ["spike"]
    with pytest.raises(FileExistsError, match="x_raw_deepsif.json exists.*--overwrite"):
        run_single(_settings(raw_file, events=["spike"], **SPAN), "command")
    run_single(_settings(raw_file, events=["spike"], overwrite=True, **SPAN), "command")


def test_the_default_baseline_is_that_of_the_epochs(raw_file, make_raw, quick, fwd16):
    """Raw data begin at 0, their epochs before: all of that is in the covariance."""
    span = dict(tmin=-0.4, tmax=0.2)
    fnames = run_single(_settings(raw_file, events=["spike"], **span), "command")
    raw = make_raw(0)
    prepare_raw(raw, CohortSettings())
    epochs = make_epochs({"r": raw}, CohortSettings(**span))
    cov = mne.compute_covariance(epochs, tmax=0.0, method="shrunk", rank="info")
    stc = mne_deepsif.apply_deepsif(epochs.average(), fwd16, cov)
    found = _read(fnames).data
    np.testing.assert_allclose(found, stc.data, atol=1e-3 * np.abs(stc.data).max())


def test_continuous_raw(raw_file, quick):
    settings = dict(baseline=(0.0, 1.0), tmin=1.0, tmax=5.0, sfreq=125.0, report=True)
    fnames = run_single(_settings(raw_file, **settings), "command")
    stc = _read(fnames)
    assert stc.data.shape[1] == 500 and stc.times[0] == 1.0
    strength = np.abs(stc.data).max(0)
    spikes = [1.5, 2.7, 3.9]
    near = np.abs(stc.times[:, None] - spikes).min(1) < 0.03
    assert (
        near[strength.argmax()] and strength[near].mean() > 5 * strength[~near].mean()
    )
    assert any(fname.name == "x_raw_report.html" for fname in fnames)
    with pytest.raises(ValueError, match="noise_cov of continuous data needs a quiet"):
        run_single(_settings(raw_file, overwrite=True), "command")


def test_times_after_a_bad_span(tmp_path, make_raw, quick):
    raw = make_raw(0)
    raw._data[:, 2100:] *= 3  # the spike at 8.7 s
    raw.set_annotations(mne.Annotations(3.0, 3.0, "BAD"))
    raw.save(tmp_path / "x_raw.fif")
    settings = dict(baseline=(0.0, 1.0), tmin=2.0, tmax=9.0, sfreq=125.0)
    fnames = run_single(_settings(tmp_path / "x_raw.fif", **settings), "")
    (table,) = (fname for fname in fnames if fname.name.endswith("_extents.tsv"))
    extents = pd.read_csv(table, sep="\t")
    # the weights are those of a test: another spike may look stronger
    assert np.abs(extents["peak_time"] - 8.7).min() < 0.05
    assert extents["tmax"][0] == pytest.approx(9 - 1 / 125)
    assert np.isnan(_read(fnames).data).any()  # the file says what is not known


def test_continuous_raw_that_is_too_long(raw_file, quick, monkeypatch):
    monkeypatch.setattr(estimates, "_LARGEST", 1e7)
    settings = dict(baseline=(0.0, 1.0))
    with pytest.raises(ValueError, match="3000 samples on 5113 vertices would be"):
        run_single(_settings(raw_file, **settings), "")
    run_single(_settings(raw_file, **settings, tmin=0.0, tmax=1.0), "")


def test_epochs_and_averages(tmp_path, epochs, quick, fwd16):
    epochs.save(tmp_path / "x_epo.fif")
    average_of = average(epochs, None)
    mne.write_evokeds(tmp_path / "x_ave.fif", average_of)
    cov = mne.compute_covariance(
        epochs, tmin=-0.4, tmax=-0.1, method="shrunk", rank="info"
    )
    mne.write_cov(tmp_path / "x-cov.fif", cov)
    mne.write_forward_solution(tmp_path / "x-fwd.fif", fwd16)
    one = run_single(_settings(tmp_path / "x_epo.fif", baseline=(-0.4, -0.1)), "")
    with pytest.raises(
        ValueError, match="noise_cov of averages must be a file or adhoc"
    ):
        run_single(_settings(tmp_path / "x_ave.fif"), "")
    files = dict(
        noise_cov=str(tmp_path / "x-cov.fif"), forward=str(tmp_path / "x-fwd.fif")
    )
    two = run_single(_settings(tmp_path / "x_ave.fif", **files), "")
    peak = np.abs(_read(one).data).max()
    np.testing.assert_allclose(_read(one).data, _read(two).data, atol=1e-3 * peak)
    adhoc = run_single(
        _settings(
            tmp_path / "x_ave.fif",
            noise_cov="adhoc",
            out=str(tmp_path / "out"),
            sfreq=125.0,
        ),
        "",
    )
    assert _read(adhoc).tstep == 1 / 125 and adhoc[0].parent == tmp_path / "out"


def test_span_and_baseline_of_files_that_have_a_baseline(
    tmp_path, epochs, quick, fwd16
):
    drift = np.linspace(-1e-4, 1e-4, 16)[:, np.newaxis]
    epochs._data += drift * epochs.times  # means of spans differ
    epochs.save(tmp_path / "x_epo.fif")
    evoked = epochs.average()
    mne.write_evokeds(tmp_path / "x_ave.fif", evoked)
    evoked.crop(-0.3, 0.1).apply_baseline((-0.15, -0.1))
    cov = mne.make_ad_hoc_cov(evoked.info)
    wanted = mne_deepsif.apply_deepsif(evoked, fwd16, cov)
    span = dict(tmin=-0.3, tmax=0.1, baseline=(-0.15, -0.1), noise_cov="adhoc")
    for name in ("x_epo.fif", "x_ave.fif"):
        found = _read(run_single(_settings(tmp_path / name, **span), ""))
        np.testing.assert_allclose(found.times, wanted.times, atol=1e-6)
        atol = 1e-4 * np.abs(wanted.data).max()  # files are in single precision
        np.testing.assert_allclose(found.data, wanted.data, atol=atol)
    wrong = _settings(tmp_path / name, **span | dict(tmin=-0.5, overwrite=True))
    with pytest.raises(ValueError, match="file's -0.4 to 0.2 s.* got -0.5 and 0.1"):
        run_single(wrong, "")


@pytest.mark.parametrize("events", (None, ["spike"]))
def test_eeg_referenced_to_an_electrode(tmp_path, make_raw, quick, events):
    raw = make_raw(0).set_eeg_reference(["T7"], verbose="error")
    raw.save(tmp_path / "x_raw.fif")
    span = SPAN if events else dict(tmin=0.0, tmax=2.0, baseline=(0.0, 1.0))
    settings = _settings(tmp_path / "x_raw.fif", events=events, **span)
    with pytest.raises(ValueError, match=r"Custom EEG reference.*set_eeg_reference"):
        run_single(settings, "")
    raw.set_eeg_reference(projection=True, verbose="error")  # as the error says
    raw.save(tmp_path / "x_raw.fif", overwrite=True)
    assert np.isfinite(_read(run_single(settings, "")).data).all()


def test_continuous_data_without_a_quiet_span(raw_file):
    """Found before anything is computed, also by a dry run."""
    for function in (plan_single, lambda settings: run_single(settings, "")):
        with pytest.raises(ValueError, match="noise_cov of continuous data needs a qu"):
            function(_settings(raw_file))


def test_standard_errors_are_not_estimated(tmp_path, epochs, quick):
    both = [epochs.average(), epochs.standard_error()]
    both[1].comment = both[0].comment
    mne.write_evokeds(tmp_path / "x_ave.fif", both)
    fnames = run_single(_settings(tmp_path / "x_ave.fif", noise_cov="adhoc"), "")
    about = json.loads(fnames[1].read_text())
    assert about["NumberOfAverages"] == 8
    strength = np.abs(_read(fnames).data).max(0)
    assert strength.argmax() == pytest.approx(100, abs=3)  # the spike, at 0 s
    mne.write_evokeds(tmp_path / "x_ave.fif", both[1], overwrite=True)
    with pytest.raises(ValueError, match="only standard errors"):
        plan_single(_settings(tmp_path / "x_ave.fif"))


def test_what_would_run(tmp_path, raw_file, epochs):
    epochs.save(tmp_path / "x_epo.fif")
    mne.write_evokeds(tmp_path / "x_ave.fif", average(epochs, None))
    before = set(tmp_path.iterdir())
    text = "\n".join(plan_single(_settings(raw_file, baseline=(0.0, 1.0))))
    assert "16 channels" in text and "none: continuous" in text
    for name in ("x_epo.fif", "x_ave.fif"):
        text = "\n".join(plan_single(_settings(tmp_path / name)))
        assert "conditions  spike/left" in text
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "name, values, match",
    (
        ("x_ave.fif", dict(events=["y"]), r"events \['y'\] are not in the file"),
        ("x_ave.fif", dict(h_freq=40.0), "l_freq and h_freq filter continuous data"),
        ("x_raw.fif", dict(events=["y"], **SPAN), "no event 'y'"),
    ),
)
def test_errors(tmp_path, raw_file, epochs, quick, name, values, match):
    mne.write_evokeds(tmp_path / "x_ave.fif", average(epochs, None))
    cov = "baseline" if name == "x_raw.fif" else "adhoc"
    with pytest.raises(ValueError, match=match):
        run_single(_settings(tmp_path / name, noise_cov=cov, **values), "")
    for missing in ("file", "forward", "noise_cov"):
        files = dict(file=str(raw_file)) | {missing: "nowhere"}
        with pytest.raises(FileNotFoundError, match=f"{missing} 'nowhere'"):
            run_single(EstimateSettings(**files), "")


@pytest.mark.slow
def test_estimate_of_the_real_recording(sample_dir, sample_fwd, tmp_path):
    """Auditory and visual averages, MEG and EEG, with an individual forward."""
    mne.write_forward_solution(tmp_path / "x-fwd.fif", sample_fwd)
    fnames = run_single(
        _settings(
            sample_dir / "sample_audvis-ave.fif",
            events=["Left visual"],
            forward=str(tmp_path / "x-fwd.fif"),
            noise_cov=str(sample_dir / "sample_audvis-cov.fif"),
            subjects_dir=str(sample_dir),
            out=str(tmp_path / "out"),
        ),
        "",
    )
    stc = _read(fnames).crop(0.08, 0.13)
    assert stc.subject == "sample_fs5"
    # V1 is in the medial occipital lobe of the other hemisphere
    assert np.abs(stc.rh_data).max() > np.abs(stc.lh_data).max()

"""The trust report: features by construction, verdicts on simulated recordings."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import warnings

import mne
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mne_deepsif import (
    apply_deepsif,
    assess_deepsif,
    make_leadfield,
    simulate_evoked,
)
from mne_deepsif.head.eyes import eye_gain
from mne_deepsif.inverse.plan import (
    ParcelEstimate,
    Power,
    estimate_parcels,
    make_plan,
)
from mne_deepsif.trust import confidence, verdict
from mne_deepsif.trust.features import measure_features

SFREQ = 250.0


@pytest.fixture(scope="module")
def estimator(minimum_norm):
    """Stand in for the network: a linear estimate, which is quick."""
    return minimum_norm()


@pytest.fixture(scope="module")
def cov(eeg_info):
    return mne.make_ad_hoc_cov(eeg_info)


@pytest.fixture(scope="module")
def leadfield(eeg_info, eeg_fwd, cov, parcels):
    return make_leadfield(eeg_info, eeg_fwd, cov, parcels=parcels)


@pytest.fixture(scope="module")
def eyes(eeg_info):
    return eye_gain(eeg_info)


def _wave(frequency=None, n_times=250):
    times = np.arange(n_times) / SFREQ
    if frequency:
        return np.sin(2 * np.pi * frequency * times)
    return np.exp(-(((times - times[n_times // 2]) / 0.02) ** 2))


def _noise(leadfield, std=1.0):
    rng = np.random.default_rng(0)
    shape = len(leadfield.gain), 250
    return std * 0.2e-6 * rng.standard_normal(shape)  # std of the ad-hoc covariance


def _measure(leadfield, data, eyes, sources=None):
    sources = np.zeros((leadfield.gain.shape[1], 250)) if sources is None else sources
    return measure_features(
        leadfield, _as_estimate(leadfield, data, sources), SFREQ, eyes
    )


def _as_estimate(leadfield, data, sources):
    white, fit = leadfield.whiten(data), leadfield.gain_white @ sources
    return ParcelEstimate(data, white, sources, fit, Power())


# --------------------------------------------------------------- features


def test_noise(leadfield, eyes):
    """White noise: no brain, nothing predicts anything, all channels are alike."""
    features, _, n_modes = _measure(leadfield, _noise(leadfield), eyes)
    assert features["snr"] <= -10 and n_modes <= 3
    assert_allclose(features["prediction"], 0, atol=0.3)
    assert features["channel"] < 3 and abs(features["residual"]) < 1e-9
    # of 125 Hz, 6 are within 3 Hz of 50
    assert_allclose(features["line"], 10 * np.log10(6 / 125), atol=1.5)


def test_brain(leadfield, eyes):
    """A patch with a little noise, and an estimate that is right."""
    sources = np.zeros((200, 250))
    sources[[20, 21]] = 1e-3 * _wave()
    data = leadfield.gain @ sources
    data = 5e-6 * data / np.abs(data).max() + _noise(leadfield, 0.1)
    sources *= 5e-6 / np.abs(leadfield.gain @ sources).max()
    features, _, n_modes = _measure(leadfield, data, eyes, sources)
    assert features["snr"] > 15 and n_modes > 10
    assert features["prediction"] < -10
    assert features["residual"] < -20 and features["eyes"] < -15
    assert features["line"] < -15


def test_units_and_size_do_not_matter(leadfield, eyes):
    data = np.outer(leadfield.gain[:, 20], _wave()) * 1e-6 + _noise(leadfield)
    one, _, _ = _measure(leadfield, data, eyes)
    two, _, _ = _measure(leadfield, 1e3 * data, eyes)
    assert_allclose(list(one.values()), list(two.values()), atol=1e-6)


def test_electrode(leadfield, eyes):
    """The channel that is alone is named, also by neighbours that are quiet."""
    data = _noise(leadfield)
    data[7] += 1e-4 * _wave()
    features, worst, _ = _measure(leadfield, data, eyes)
    assert worst == 7
    assert features["channel"] > 12 and features["prediction"] > -1


@pytest.mark.parametrize(("frequency", "share"), ((50, 1), (60, 1), (10, 0)))
def test_line(leadfield, eyes, frequency, share):
    weight = np.random.default_rng(1).standard_normal((32, 1))
    data = 1e-4 * weight * _wave(frequency) + _noise(leadfield)
    features, _, _ = _measure(leadfield, data, eyes)
    assert_allclose(10 ** (features["line"] / 10), share, atol=0.05)


def test_eyes(leadfield, eyes, eeg_info):
    """The field of the eyes is frontal, falls off, and is known again."""
    up = eyes[:, 2] - eyes[:, 2].mean()
    names = np.array(eeg_info["ch_names"])[np.argsort(-up)]
    assert set(names[:2]) == {"Fp1", "Fp2"}
    assert up[eeg_info["ch_names"].index("Oz")] < 0.1 * up.max()
    data = 1e-4 * np.outer(up / up.max(), _wave()) + _noise(leadfield)
    features, _, _ = _measure(leadfield, data, eyes)
    assert features["eyes"] > 10
    features, _, _ = _measure(leadfield, data, None)
    assert np.isnan(features["eyes"])


def test_eyes_of_meg_and_without_positions():
    info = mne.channels.read_meg_canonical_info("neuromag")
    info = mne.pick_info(info, mne.pick_types(info, meg="mag"))
    trans = np.eye(4)
    trans[2, 3] = 0.045
    with info._unlock():
        info["dev_head_t"] = mne.transforms.Transform("meg", "head", trans)
    field = eye_gain(info)
    front = np.array([ch["loc"][1] for ch in info["chs"]]) > 0
    assert field.shape == (102, 3)
    assert np.square(field[front]).sum() > 5 * np.square(field[~front]).sum()
    with info._unlock():
        info["dev_head_t"] = None
    assert eye_gain(info) is None
    assert eye_gain(mne.create_info(["a", "b"], 100.0, "eeg")) is None


def test_silence(leadfield, eyes):
    """Data of zero have no power to judge: they count as noise."""
    features, _, _ = _measure(leadfield, np.zeros((32, 250)), eyes)
    assert verdict.classify(features)["good"] < 0.5


def test_classify():
    """Probabilities sum to 1; what was not measured takes its usual value."""
    usual = dict(zip(verdict.FEATURES, verdict.read_calibration()["kinds"]["usual"]))
    probabilities = verdict.classify(usual)
    assert set(probabilities) == set(verdict.KINDS)
    assert_allclose(sum(probabilities.values()), 1)
    assert probabilities["good"] > 0.9
    assert verdict.classify(usual | {"eyes": np.nan}) == probabilities
    for name, kind in (("line", "line"), ("eyes", "blink")):
        worse = verdict.classify(usual | {name: 1e3})
        assert worse[kind] > probabilities[kind]


# --------------------------------------------------------------- the report


@pytest.fixture(scope="module")
def recordings(eeg_fwd, eeg_info, parcels):
    """Simulate a good recording, and sensor noise alone."""
    evoked, _, truth = simulate_evoked(
        eeg_fwd, eeg_info, seeds=[20], parcels=parcels, snr=15.0, random_state=0
    )
    std = np.sqrt(truth.noise_cov["data"])[:, np.newaxis]
    noise = evoked.copy()
    noise.data[:] = std * np.random.default_rng(0).standard_normal(evoked.data.shape)
    return evoked, noise, truth


def test_generic_weights(eeg_fwd, recordings):
    """The embedded weights are trusted on the one and not on the other."""
    evoked, noise, truth = recordings
    report = assess_deepsif(evoked, eeg_fwd, truth.noise_cov, n_passes=3)
    assert report.is_trustworthy and report.score < 0.5
    assert report.goodness_of_fit.shape == report.times.shape == evoked.times.shape
    peak = np.abs(evoked.times).argmin()
    assert report.goodness_of_fit[peak] > 0.5
    assert (report.n_channels, report.rank, report.sfreq) == (32, 31, 250.0)
    inside = report.confidence.in_label(truth.labels[0])
    assert inside.data.mean() > 3 * report.confidence.data.mean()
    report = assess_deepsif(noise, eeg_fwd, truth.noise_cov, n_passes=0)
    assert not report.is_trustworthy and report.score > 0.5
    assert "noise" in report.reasons[0] and "noise" in repr(report)
    assert report.confidence is None and report.spread is None


def test_maps(eeg_fwd, recordings, estimator):
    """The maps lie on the source space and repeat with the seed."""
    evoked, _, truth = recordings
    options = dict(noise_cov=truth.noise_cov, estimator=estimator, n_passes=4)
    report = assess_deepsif(evoked, eeg_fwd, **options)
    assert report.confidence.shape == (eeg_fwd["nsource"], 1)
    assert report.spread.shape == (eeg_fwd["nsource"], len(evoked.times))
    assert report.confidence.subject == report.spread.subject == "fsaverage5"
    assert 0 <= report.confidence.data.min() < report.confidence.data.max() <= 1
    again = assess_deepsif(evoked, eeg_fwd, **options)
    assert_allclose(again.spread.data, report.spread.data)
    other = assess_deepsif(evoked, eeg_fwd, **options, random_state=1)
    assert np.abs(other.spread.data - report.spread.data).max() > 0


def test_passes_agree_where_channels_repeat(
    eeg_fwd, recordings, estimator, monkeypatch
):
    """With all of the channels in each pass, the estimate is the whole one."""
    evoked, _, truth = recordings
    plan = _plan(evoked, eeg_fwd, truth.noise_cov, estimator)
    white = plan.leadfield.whiten(evoked.data[plan.picks])
    whole = estimator.estimate(white, plan.leadfield.gain_white, 250.0)
    monkeypatch.setattr(confidence, "_KEPT", 1.0)
    (one,) = confidence.estimate_again(evoked.data[plan.picks], plan, 1, 0)
    assert_allclose(one, whole, atol=1e-6 * np.abs(whole).max())


def _plan(evoked, fwd, noise_cov, estimator):
    return make_plan(
        evoked.info,
        fwd,
        noise_cov,
        estimator,
        label=None,
        pick_ori=None,
        rank=None,
        subjects_dir=None,
    )


def test_confidence_follows_the_passes(parcels):
    """A parcel that all passes show gets more than one that one pass shows."""
    passes = np.zeros((4, 200, 3))
    passes[:, 5], passes[0, 9] = 1.0, 1.0
    chance = confidence.parcel_confidence(passes, snr=15.0, rank=31)
    assert chance[5] > chance[9] > chance[20]
    silent = confidence.parcel_confidence(np.zeros((4, 200, 3)), snr=15.0, rank=31)
    assert not silent.any()


def test_warning(eeg_fwd, recordings, estimator):
    """The front doors' one line: silent on good data, a warning with the reason."""
    evoked, noise, truth = recordings
    plan = _plan(evoked, eeg_fwd, truth.noise_cov, estimator)
    silence = np.zeros((200, len(evoked.times)))

    def of(evoked, sources):
        return _as_estimate(plan.leadfield, evoked.data, sources)

    with pytest.warns(RuntimeWarning, match="may be wrong: the data look like sensor"):
        verdict.warn_if_unusual(of(noise, silence), plan)
    bad = noise.copy()
    bad.data[3] *= 300
    with pytest.warns(RuntimeWarning, match="channel 'F3' stands alone"):
        verdict.warn_if_unusual(of(bad, silence), plan)
    verdict.warn_if_unusual(estimate_parcels(evoked.data, plan), plan)


def test_apply_warns(eeg_fwd, recordings, estimator):
    """apply_deepsif says so of noise, and nothing of a good recording."""
    evoked, noise, truth = recordings
    with pytest.warns(RuntimeWarning, match="may be wrong: the data look like sensor"):
        apply_deepsif(noise, eeg_fwd, truth.noise_cov, estimator=estimator)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        apply_deepsif(evoked, eeg_fwd, truth.noise_cov, estimator=estimator)


def test_unlike_training(eeg_fwd, recordings, estimator):
    """Few channels and a low rate are reasons of their own."""
    evoked, _, truth = recordings
    few = evoked.copy().pick(evoked.ch_names[::3])
    few.resample(50.0)
    report = assess_deepsif(
        few, eeg_fwd, truth.noise_cov, estimator=estimator, n_passes=0
    )
    assert "10 independent channels" in "; ".join(report.reasons)
    assert "sampled at 50 Hz" in "; ".join(report.reasons)


def test_errors(eeg_fwd, recordings):
    evoked, _, truth = recordings
    with pytest.raises(TypeError, match="evoked must be an instance of"):
        assess_deepsif(evoked.data, eeg_fwd, truth.noise_cov)
    with pytest.raises(ValueError, match="n_passes must be 0 or more, got -1"):
        assess_deepsif(evoked, eeg_fwd, truth.noise_cov, n_passes=-1)

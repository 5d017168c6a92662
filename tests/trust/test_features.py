"""Features of the trust report, by construction."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mne_deepsif.head.eyes import eye_gain
from mne_deepsif.trust import verdict
from mne_deepsif.trust.features import measure_features

SFREQ = 250.0


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


@pytest.fixture
def measure(leadfield, as_estimate):
    def function(data, eyes, sources=None):
        n_parcels = leadfield.gain.shape[1]
        sources = np.zeros((n_parcels, 250)) if sources is None else sources
        estimate = as_estimate(leadfield, data, sources)
        return measure_features(leadfield, estimate, SFREQ, eyes)

    return function


def test_noise(leadfield, eyes, measure):
    """White noise: no brain, nothing predicts anything, all channels are alike."""
    features, _, n_modes = measure(_noise(leadfield), eyes)
    assert features["snr"] <= -10 and n_modes <= 3
    assert_allclose(features["prediction"], 0, atol=0.3)
    assert features["channel"] < 3 and abs(features["residual"]) < 1e-9
    # of 125 Hz, 6 are within 3 Hz of 50
    assert_allclose(features["line"], 10 * np.log10(6 / 125), atol=1.5)


def test_brain(leadfield, eyes, measure):
    """A patch with a little noise, and an estimate that is right."""
    sources = np.zeros((200, 250))
    sources[[20, 21]] = 1e-3 * _wave()
    data = leadfield.gain @ sources
    data = 5e-6 * data / np.abs(data).max() + _noise(leadfield, 0.1)
    sources *= 5e-6 / np.abs(leadfield.gain @ sources).max()
    features, _, n_modes = measure(data, eyes, sources)
    assert features["snr"] > 15 and n_modes > 10
    assert features["prediction"] < -10
    assert features["residual"] < -20 and features["eyes"] < -15
    assert features["line"] < -15


def test_units_and_size_do_not_matter(leadfield, eyes, measure):
    data = np.outer(leadfield.gain[:, 20], _wave()) * 1e-6 + _noise(leadfield)
    one, _, _ = measure(data, eyes)
    two, _, _ = measure(1e3 * data, eyes)
    assert_allclose(list(one.values()), list(two.values()), atol=1e-6)


def test_electrode(leadfield, eyes, measure):
    """The channel that is alone is named, also by neighbours that are quiet."""
    data = _noise(leadfield)
    data[7] += 1e-4 * _wave()
    features, worst, _ = measure(data, eyes)
    assert worst == 7
    assert features["channel"] > 12 and features["prediction"] > -1


@pytest.mark.parametrize(("frequency", "share"), ((50, 1), (60, 1), (10, 0)))
def test_line(leadfield, eyes, frequency, share, measure):
    weight = np.random.default_rng(1).standard_normal((32, 1))
    data = 1e-4 * weight * _wave(frequency) + _noise(leadfield)
    features, _, _ = measure(data, eyes)
    assert_allclose(10 ** (features["line"] / 10), share, atol=0.05)


def test_eyes(leadfield, eyes, eeg_info, measure):
    """The field of the eyes is frontal, falls off, and is known again."""
    up = eyes[:, 2] - eyes[:, 2].mean()
    names = np.array(eeg_info["ch_names"])[np.argsort(-up)]
    assert set(names[:2]) == {"Fp1", "Fp2"}
    assert up[eeg_info["ch_names"].index("Oz")] < 0.1 * up.max()
    data = 1e-4 * np.outer(up / up.max(), _wave()) + _noise(leadfield)
    features, _, _ = measure(data, eyes)
    assert features["eyes"] > 10
    features, _, _ = measure(data, None)
    assert np.isnan(features["eyes"])


def test_silence(leadfield, eyes, measure):
    """Data of zero have no power to judge: they count as noise."""
    features, _, _ = measure(np.zeros((32, 250)), eyes)
    assert verdict.classify(features)["good"] < 0.5

"""Check the measure of the data's band."""

import mne
import numpy as np
import pytest
import scipy.signal
from numpy.testing import assert_allclose

from mne_deepsif.inverse.band import effective_band, independent_rate, noise_spectra


def make_noise(sfreq, passband, n_channels=32, seconds=4, seed=0):
    """White noise on all channels, filtered, and a source far above it."""
    rng = np.random.default_rng(seed)
    times = np.arange(round(seconds * sfreq)) / sfreq
    data = rng.standard_normal((n_channels, len(times)))
    data += 20 * np.outer(rng.standard_normal(n_channels), np.sin(10 * np.pi * times))
    if passband is None:
        return data
    kind = "lowpass" if np.ndim(passband) == 0 else "bandpass"
    sos = scipy.signal.butter(4, passband, kind, fs=sfreq, output="sos")
    return scipy.signal.sosfiltfilt(sos, data)


@pytest.mark.parametrize(
    ("sfreq", "band", "rate"),
    [
        (1000, None, 125),
        (1000, 0, 125),
        (1000, 30, 60),
        (100, None, 100),
        (100, 70, 100),
        (100, 0.1, 16),
    ],
)
def test_independent_samples(sfreq, band, rate):
    """Samples that come faster than the data change tell no more."""
    assert independent_rate(sfreq, band) == rate


@pytest.mark.parametrize("n_channels", [10, 19, 64, 300])
@pytest.mark.parametrize("sfreq", [100, 250, 1000])
@pytest.mark.parametrize("passband", [None, 40, 30, 20, (8, 15)])
def test_measured_band(n_channels, sfreq, passband):
    """A strong slow source changes nothing."""
    band = effective_band([make_noise(sfreq, passband, n_channels)], sfreq, None)
    expected = min(62.5, sfreq / 2) if passband is None else np.max(passband)
    assert_allclose(band, expected, rtol=0.3)


@pytest.mark.parametrize("exponent", [1, 2])
def test_no_filter(exponent):
    """The spectrum of the brain falls, but not like that."""
    data = np.fft.rfft(make_noise(500, None))
    frequency = np.arange(1, data.shape[1] + 1)
    data = np.fft.irfft(data * frequency ** (-exponent / 2))
    assert effective_band([data], 500, None) == 62.5


def test_data_decide_where_info_is_wrong():
    fast, slow = make_noise(500, None), make_noise(500, 25)
    assert effective_band([fast], 500, 40) == 62.5  # info of a recording, other data
    assert effective_band([fast], 500, None) == 62.5
    assert effective_band([slow], 500, 30) == 30  # about right: as told
    assert effective_band([slow], 500, 15) > 20
    assert 20 < effective_band([slow], 500, None) < 30  # nobody told
    assert 20 < effective_band([slow[:, :500], slow[:, 500:]], 500, 250) < 30


@pytest.mark.parametrize("data", [np.zeros((9, 700)), np.full((9, 700), np.nan)])
def test_nothing_to_measure(data):
    assert len(noise_spectra(data, 500)) == 0
    assert effective_band([data], 500, 40) == 40
    assert effective_band([data], 500, None) == 62.5
    assert effective_band([], 500, None) == 62.5


@pytest.mark.parametrize("told", [20, 40])
@pytest.mark.parametrize("n_channels, n_times", [(7, 1000), (32, 1), (8, 3), (64, 200)])
def test_few_data(n_channels, n_times, told):
    """Nothing is measured, and info counts."""
    data = make_noise(500, None, n_channels)[:, :n_times]
    assert effective_band([data], 500, told) == told


@pytest.mark.parametrize("n_channels", [19, 32, 64])
@pytest.mark.parametrize("passband", [(None, 40), (None, 15), (None, 8), (1, 4)])
def test_right_info_stays(n_channels, passband):
    """What MNE's filters leave above their frequency is no noise."""
    data = make_noise(500, None, n_channels, seconds=20)
    data = mne.filter.filter_data(data, 500, *passband, verbose="error")
    for seconds in (0.2, 0.6, 2.0):
        part = data[:, 4000 : 4000 + round(500 * seconds)]
        assert effective_band([part], 500, passband[1]) <= 1.5 * max(8, passband[1])


def test_no_noise():
    """Of a few sources without noise, nothing is measured."""
    rng = np.random.default_rng(3)
    data = rng.standard_normal((32, 3)) @ make_noise(500, 30, 3)
    assert effective_band([data], 500, 30) == 30


def test_epochs_of_any_number():
    """Windows are taken from all epochs alike."""
    fast = make_noise(250, None, seconds=60).reshape(32, 100, 150).swapaxes(0, 1)
    assert 32 < len(noise_spectra(fast, 250)) <= 64
    slow = make_noise(250, 20, seconds=60).reshape(32, 100, 150).swapaxes(0, 1)
    assert effective_band([slow], 250, None) < 25
    slow[80:] = fast[80:]
    assert effective_band([slow], 250, None) == 62.5

"""Waveforms: where their peaks are, and how wide they are."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mne_deepsif.simulation import waveforms as module
from mne_deepsif.simulation.connectome import make_distance_connectome
from mne_deepsif.simulation.waveforms import find_spikes

# --------------------------------------------------------------- spikes


def test_find_spikes_by_hand():
    """Maxima above 8 mV; of two within 0.2 s the larger one counts."""
    trace = np.zeros(1000)
    trace[[100, 200, 250, 400, 500, 700]] = 9, 7.9, 8.1, 12, 9, 9
    trace[[450, 760]] = 10, 11  # within 0.2 s of a larger one, and of a smaller one
    assert_array_equal(find_spikes(trace), [100, 250, 400, 500, 760])
    # at half the rate 0.2 s are 50 samples
    expected = [100, 250, 400, 450, 500, 700, 760]
    assert_array_equal(find_spikes(trace, sfreq=250.0), expected)


@pytest.fixture(scope="module")
def spikes(coarse):
    connectome = make_distance_connectome(coarse.centers, coarse.hemi)
    return module.make_spikes(connectome, 300, np.random.default_rng(0))


def test_spikes_have_their_peak_of_one_in_the_middle(spikes):
    half = spikes.shape[1] // 2
    assert spikes.shape == (300, 1536)  # twice 0.768 s either side, for stretching
    assert_allclose(spikes[:, half], 1)
    assert_allclose(np.median(spikes, axis=1), 0, atol=1e-6)
    near = spikes[:, half - 5 : half + 6]
    assert_array_equal(near.argmax(1), 5)
    # the highest within 0.2 s either side, unless that one gave way to a third
    near = spikes[:, half - 99 : half + 100]
    assert np.mean(near.argmax(1) == 99) > 0.95


def test_spikes_are_spikes(spikes):
    """Narrow: above half of the peak for 10 to 100 ms about it."""
    half = spikes.shape[1] // 2
    above = spikes > 0.5
    after = (~above[:, half:]).argmax(1)
    before = (~above[:, half::-1]).argmax(1)
    width = (after + before) / 500
    assert 0.01 < np.median(width) < 0.1
    assert len(np.unique(spikes.round(4), axis=0)) == 300  # no spike twice


# --------------------------------------------------------------- other waveforms


@pytest.mark.parametrize("make", (module.make_evoked, module.make_bursts))
def test_other_waveforms_have_their_peak_of_one_in_the_middle(make):
    waves = make(40, np.random.default_rng(0))
    assert waves.shape == (40, 1536)
    assert_array_equal(np.abs(waves).argmax(1), 768)
    assert_allclose(waves[:, 768], 1)
    edges = np.abs(waves[:, [*range(100), *range(-100, 0)]])
    assert np.median(edges.max(1)) < 0.3  # back at the baseline


def test_bursts_are_rhythmic():
    """Their spectrum peaks near 10 Hz, where Jansen-Rit masses oscillate."""
    bursts = module.make_bursts(60, np.random.default_rng(1))
    power = np.square(np.abs(np.fft.rfft(bursts))).mean(0)
    frequencies = np.fft.rfftfreq(bursts.shape[1], 1 / 500)
    power[frequencies < 3] = 0
    assert 7 < frequencies[power.argmax()] < 14


# --------------------------------------------------------------- rates and places


@pytest.mark.parametrize("factor", module.STRETCHES)
@pytest.mark.parametrize("sfreq", (125.0, 500.0))
def test_stretch(factor, sfreq):
    """A bump gets as many times wider as asked for, its peak stays in the middle."""
    times = (np.arange(1536) - 768) / 500
    out = module.stretch(np.exp(-0.5 * (times / 0.03) ** 2)[None], factor, sfreq)[0]
    assert len(out) == round(2 * 0.768 * sfreq)
    times = (np.arange(len(out)) - len(out) // 2) / sfreq
    middle = np.average(times, weights=out)
    width = np.sqrt(np.average((times - middle) ** 2, weights=out))
    assert abs(middle) < 0.51 / sfreq  # within half a sample
    assert_allclose(width, 0.03 * factor, rtol=0.01)
    assert_allclose(out.max(), 1)


@pytest.mark.parametrize("ratio", (0.25, 0.5, 0.8, 1.5, 4.0))
def test_change_rate_keeps_what_fits_the_band(ratio):
    """Sines of up to 20 Hz under a window, at the times of the other rate."""
    sfreq, n_times = 500.0, 1000

    def sines(sfreq, n_times):
        times = np.arange(n_times) / sfreq
        window = np.sin(np.pi * times / 2.0) ** 2  # 2 s, zero at both ends
        frequencies = np.array([3.0, 10.0, 20.0])[:, np.newaxis]
        return window * np.sin(2 * np.pi * frequencies * times + 0.3)

    out = module.change_rate(sines(sfreq, n_times), ratio)
    expected = sines(ratio * sfreq, round(ratio * n_times))
    assert out.shape == expected.shape and out.dtype == np.float32
    assert_allclose(out, expected, atol=1e-3)


def test_change_rate_removes_what_does_not_fit():
    """A sine of 100 Hz is gone at 125 Hz: it does not come back as one of 25 Hz."""
    times = np.arange(1000) / 500
    window = np.sin(np.pi * times / 2.0) ** 2
    data = (window * np.sin(2 * np.pi * 100 * times))[np.newaxis]
    assert np.abs(module.change_rate(data, 0.25)).max() < 0.01


def test_change_rate_of_many_rows():
    """They go in pieces, which do not show; the same rate is the same array."""
    data = np.random.default_rng(0).standard_normal((900, 3000)).astype(np.float32)
    assert module.change_rate(data, 1) is data
    out = module.change_rate(data, 0.25)
    for row in (0, 665, 666, 667, 899):  # 2e6 / 3000 are 666
        expected = module.change_rate(data[row : row + 1], 0.25)
        assert_array_equal(out[row], expected[0])


def test_place_windows_by_hand():
    """The middle of a window falls on its peak; what reaches out is cut off."""
    windows = np.array([[1, 2, 3, 4], [10, 20, 30, 40], [100, 200, 300, 400]])
    out = module.place_windows(windows, [0, 3, 6], 7)
    assert_array_equal(out, [3, 4 + 10, 20, 30, 40 + 100, 200, 300])
    assert_array_equal(module.place_windows(windows[:0], [], 3), [0, 0, 0])


def test_recipe_lists_every_constant(monkeypatch):
    """By name or by value: none is left out of the key of a library."""
    before = module.recipe()
    values = list(before.values())
    for name, value in list(vars(module).items()):
        if name.isupper() and name[0] != "_":
            assert value in values, name
            with monkeypatch.context() as patch:
                patch.setattr(module, name, 2 * value)
                assert module.recipe() != before, name

"""A fitted model on arrays: time axis, amplitudes, batches, threads, devices."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from mne_deepsif import Model
from mne_deepsif.inverse import model as module
from mne_deepsif.inverse.model import PreparedModel
from mne_deepsif.inverse.windows import chunks, resample

SFREQ, N_TIMES = 125.0, 32


@pytest.fixture
def model(tiny_estimator):
    return tiny_estimator.model_


@pytest.fixture(scope="module")
def arrays(parcels):
    """Whitened data at the network's rate and their gain, in odd units."""
    rng = np.random.default_rng(1)
    gain = 1e-5 * rng.standard_normal((31, parcels.n_parcels))
    sources = np.zeros((parcels.n_parcels, N_TIMES))
    sources[[20, 21]] = 3e-4 * np.hanning(N_TIMES)
    return gain @ sources + 1e-10 * rng.standard_normal((31, N_TIMES)), gain


class Identity(PreparedModel):
    """Returns the windows that it is given, as sources and as fit."""

    def estimate_windows(self, windows, *, mixing=None):
        return np.concatenate([windows, windows], axis=1)


# --------------------------------------------------------------- preparing


def test_prepared_once_for_many_data(model, arrays):
    """The same as at once; kernels belong to the leadfield, not to the data."""
    data, gain = arrays
    prepared = model.prepare(gain)
    kernels = prepared.kernels
    for factor in (1, -3):
        expected = model.estimate(factor * data, gain, SFREQ)
        assert_array_equal(prepared.estimate(factor * data, SFREQ), expected)
    assert prepared.kernels is kernels
    assert not torch.equal(model.prepare(gain[::-1]).kernels, kernels)


def test_chunks_join_wherever_the_data_end(model, arrays):
    """The last windows change the scales of those before them."""
    rng = np.random.default_rng(3)
    prepared = model.prepare(arrays[1])
    given = 1e-10 * rng.standard_normal((31, 200)).cumsum(1)
    for n_times in range(96, 136, 3):
        data = given[:, :n_times]
        whole = prepared.estimate(data, SFREQ)
        for first, last, start, stop in chunks(n_times, N_TIMES, n_windows=1):
            keep = slice(start - first, stop - first)
            part = prepared.estimate(data[:, first:last], SFREQ, keep=keep)
            atol = 1e-5 * np.abs(whole).max()
            assert_allclose(part, whole[:, start:stop], atol=atol)


def test_profiles_are_made_once_for_a_model(model, arrays, monkeypatch):
    """They belong to the parcels, whatever the leadfield."""
    data, gain = arrays
    model, calls = replace(model), []
    make = module.patch_profiles
    monkeypatch.setattr(
        module, "patch_profiles", lambda *args: calls.append(1) or make(*args)
    )
    for _ in range(2):
        assert model.estimate(data, gain, SFREQ).any()
    assert len(calls) == 1


def test_other_device_gets_a_copy_once(model, arrays, monkeypatch):
    """Off the CPU: one copy for all estimates, and the weights stay where they are."""
    copies = []
    monkeypatch.setattr(module, "resolve_device", lambda device: "cpu:0")
    monkeypatch.setattr(
        copy, "deepcopy", lambda network: copies.append(network) or network
    )
    data, gain = arrays
    other = model.on("elsewhere")
    prepared = other.prepare(gain)
    for _ in range(3):
        assert prepared.estimate(data, SFREQ).any()
    other.prepare(2 * gain).estimate(data, SFREQ)
    assert copies == [model.network]
    assert {p.device.type for p in other.network.parameters()} == {"cpu"}


def test_on_the_same_device_is_the_same_model(model):
    assert model.on(model.device) is model
    assert model.on("cpu:0").device == "cpu:0" and model.device != "cpu:0"


@pytest.mark.parametrize(
    "sfreq, most", [(125.0, 1e-6), (250.0, 0.25), (300.0, 0.25), (1017.25, 0.35)]
)
def test_at_another_rate(model, arrays, sfreq, most):
    """The windows are as long, and slow data give nearly the same.

    The weights of the priors depend on the rate as well: at 1017 Hz, by three tenths.
    """
    _, gain = arrays
    other = model.at(sfreq)
    prepared, own = other.prepare(gain), model.prepare(gain)
    assert other.network is model.network and other.sfreq == sfreq
    assert prepared.window(sfreq) == own.window(sfreq) == other.n_times
    smooth = gain[:, [20, 90, 150]] @ bumps(0.8, round(0.8 * sfreq))
    expected = own.estimate(smooth, sfreq)
    difference = prepared.estimate(smooth, sfreq) - expected
    assert np.linalg.norm(difference) < most * np.linalg.norm(expected)


def test_at_another_rate_fast_activity_is_seen(model, arrays):
    """A rate of 125 Hz sees little at 80 Hz: what short windows let through."""
    _, gain = arrays
    times = np.arange(800) / 1000
    data = gain[:, [20]] * (np.sin(2 * np.pi * 80 * times) * np.hanning(800))
    for rate, least, most in ((125, -0.05, 0.2), (400, 0.8, 1), (1000, 0.8, 1)):
        _, fit = model.at(rate).prepare(gain).estimate(data, 1000.0, fit=True)
        explained = 1 - np.square(data - fit).sum() / np.square(data).sum()
        assert least <= explained <= most


@pytest.mark.parametrize("sfreq", (0, 124.9, np.nan, np.inf))
def test_at_no_lower_rate(model, sfreq):
    with pytest.raises(ValueError, match="at least the model's own rate of 125 Hz"):
        model.at(sfreq)


def test_channels_are_read_at_one_rate(model):
    with pytest.raises(ValueError, match="reads channels.*DeepSIFEstimator.sfreq"):
        replace(model, encoder="sensors").at(250)


def test_mixing_is_a_product(model, arrays):
    """Rows of a mixture are estimated as if all parcels had been."""
    data, gain = arrays
    mixing = np.random.default_rng(3).standard_normal((4, gain.shape[1]))
    expected = mixing @ model.estimate(data, gain, SFREQ)
    found = model.estimate(data, gain, SFREQ, mixing=mixing)
    assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_pickle_takes_the_model_along(model, arrays):
    data, gain = arrays
    expected = model.estimate(data, gain, SFREQ)
    again = pickle.loads(pickle.dumps(model))
    assert isinstance(again, Model) and "_profiles" not in vars(again)
    assert_array_equal(again.estimate(data, gain, SFREQ), expected)


def test_repr(model):
    text = repr(model)
    assert text.startswith("<Model | backprojection, compact, 200 parcels")
    assert "0.256 s at 125 Hz" in text


# --------------------------------------------------------------- times


def bumps(duration, n_times):
    """Smooth signals within the network's band that vanish at both ends."""
    times = duration * np.arange(n_times) / n_times
    middles = np.array([[0.4], [0.6]]) * duration
    return np.vstack(
        [
            np.exp(-0.5 * ((times - middles) / 0.02) ** 2),
            np.sin(2 * np.pi * 10 * times) * np.sin(np.pi * times / duration) ** 2,
        ]
    )


@pytest.mark.parametrize("sfreq", (100.0, 125.0, 250.0, 256.0, 512.0, 600.615, 1000.0))
@pytest.mark.parametrize("duration", (0.2, 0.4, 0.801, 2.0))
def test_time_axis_is_kept(model, arrays, sfreq, duration):
    """There and back through resampling, padding and windows: nothing is shifted."""
    n_times = int(round(duration * sfreq))
    data = bumps(duration, n_times)
    identity = Identity(model, arrays[1])
    out = identity.estimate(data, sfreq)
    assert_allclose(out, data, atol=0.01)
    kept, fitted = identity.estimate(data, sfreq, fit=True, keep=slice(1, -2, 3))
    assert_allclose(kept, out[:, 1:-2:3], atol=1e-12)
    assert_allclose(fitted, out, atol=1e-12)


@pytest.mark.parametrize("sizes", ((100, 37), (41, 51), (350, 44), (601, 75)))
def test_resample_is_exact(sizes):
    """Samples fall where they should: at k / n of the duration."""
    before, after = sizes
    signal = bumps(0.3, before)
    assert_allclose(resample(signal, after), bumps(0.3, after), atol=0.005)
    assert resample(signal, before) is signal


@pytest.mark.parametrize("n_times", (1, 2, 3, 31, 32, 33, 48, 49, 200, 1001))
def test_length_of_output_is_that_of_input(model, arrays, n_times):
    _, gain = arrays
    data = np.random.default_rng(0).standard_normal((31, n_times))
    for sfreq in (100.0, 125.0, 600.0, 5000.0):
        out = model.estimate(data, gain, sfreq)
        assert out.shape == (gain.shape[1], n_times)
        assert np.isfinite(out).all()


def test_long_data_are_windows_side_by_side(model, arrays):
    """Far from a window's border the estimate does not know of the rest."""
    data, gain = arrays
    long = np.concatenate([data, data, data], axis=1)
    out = model.estimate(long, gain, SFREQ)
    # the same data in each window of N_TIMES: the blend of two phases repeats
    period = out[:, N_TIMES : 2 * N_TIMES]
    assert period.any()
    half = N_TIMES // 2
    shifted = np.concatenate([data, data], axis=1)[:, half : half + N_TIMES]
    one, two = (model.estimate(x, gain, SFREQ) for x in (data, shifted))
    taper = np.sin(np.pi * (np.arange(N_TIMES) + 0.5) / N_TIMES) ** 2
    expected = one * taper + np.roll(two * taper, half, axis=1)
    # short windows share their scale with those of both long windows around them
    assert_allclose(period, expected, atol=1e-4 * np.abs(expected).max())


def test_sampling_rate_does_not_matter(model, arrays):
    """The same signal at 500 and 1000 Hz gives the same estimate at common times."""
    _, gain = arrays
    rng = np.random.default_rng(0)
    times = np.arange(800) / 1000
    course = np.exp(-0.5 * ((times - 0.4) / 0.05) ** 2)
    topography = gain[:, 20:21] + 0.1 * rng.standard_normal((31, 1)) * gain.std()
    data = topography * course
    fine = model.estimate(data, gain, 1000.0)[:, ::2]
    coarse = model.estimate(data[:, ::2], gain, 500.0)
    assert fine.any()
    assert_allclose(coarse, fine, atol=0.05 * np.abs(fine).max())


# --------------------------------------------------------------- amplitudes


@pytest.mark.parametrize("factor", (1e-6, 1e9))
def test_unit_of_the_leadfield(model, arrays, factor):
    """Sources have the data's unit over the leadfield's."""
    data, gain = arrays
    expected = model.estimate(data, gain, SFREQ)
    out = factor * model.estimate(data, factor * gain, SFREQ)
    assert_allclose(out, expected, atol=1e-3 * np.abs(expected).max())


def test_amplitude_explains_the_data_best(model, arrays):
    """No other factor on the estimate leaves less of the data."""
    data, gain = arrays
    fit = gain @ model.estimate(data, gain, SFREQ)
    assert_allclose(np.sum(fit * (data - fit)), 0, atol=1e-4 * np.sum(data**2))
    residuals = [np.sum((data - factor * fit) ** 2) for factor in (0.95, 1, 1.05)]
    assert np.argmin(residuals) == 1
    assert residuals[1] < 0.99 * np.sum(data**2)


# --------------------------------------------------------------- batches, threads


def assert_close(out, expected):
    """Equal within what the order of float32 sums makes of it."""
    assert expected.any()
    assert_allclose(out, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.fixture(scope="module")
def long_data(parcels):
    """10 windows and a rest, 9 channels: data and gain."""
    rng = np.random.default_rng(2)
    gain = rng.standard_normal((9, parcels.n_parcels))
    return rng.standard_normal((9, 5 * N_TIMES + 7)), gain


def test_batch_size_does_not_matter(model, long_data, monkeypatch):
    expected = model.estimate(*long_data, SFREQ)
    for size in (1, 3, 1000):
        monkeypatch.setattr(module, "_BATCH", size)
        assert_close(model.estimate(*long_data, SFREQ), expected)


def test_band_of_the_data(model, long_data):
    """It matters if it is below that of the network."""
    data, gain = long_data
    prepared = model.prepare(gain)
    expected = prepared.estimate(data, SFREQ)
    assert_array_equal(prepared.estimate(data, SFREQ, band=SFREQ / 2), expected)
    out = prepared.estimate(data, SFREQ, band=10.0)
    assert np.abs(out - expected).max() > 1e-3 * np.abs(expected).max()


def test_number_of_threads_does_not_matter(model, long_data):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = model.estimate(*long_data, SFREQ)
        torch.set_num_threads(3)
        assert_close(model.estimate(*long_data, SFREQ), expected)
    finally:
        torch.set_num_threads(before)


def test_epochs_together_or_alone(model, long_data):
    """What else is estimated at the same time does not matter."""
    data, gain = long_data
    epochs = np.stack([data, -2 * data, 1e3 * data, 0 * data])
    together = model.estimate(epochs, gain, SFREQ)
    for epoch, out in zip(epochs[:3], together):
        assert_close(out, model.estimate(epoch, gain, SFREQ))
    assert not together[3].any()


def test_threads_at_once(model, long_data):
    """Four threads share an estimator; each gets its own answer."""
    data, gain = long_data
    several = [np.roll(data, shift, axis=0) for shift in range(8)]
    expected = [model.estimate(x, gain, SFREQ) for x in several]
    with ThreadPoolExecutor(4) as pool:
        outs = list(pool.map(lambda x: model.estimate(x, gain, SFREQ), several * 2))
    for out, want in zip(outs, expected * 2, strict=True):
        assert_close(out, want)

"""Superposition and noise, measured on what comes out."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from mne_deepsif.simulation import Library, Simulator, noise_std

N_PARCELS, N_CHANNELS, SFREQ = 30, 12, 125.0


@pytest.fixture(scope="module")
def library():
    """Patches on a ring, bumps of 40 to 200 ms, white background."""
    rng = np.random.default_rng(0)
    seeds = np.arange(N_PARCELS)
    times = (np.arange(192) - 96) / SFREQ
    widths = rng.uniform(0.02, 0.1, 50)[:, None]
    return Library(
        patches=np.stack([seeds, (seeds + 1) % N_PARCELS, seeds * 0 - 1], 1),
        decay=np.tile(np.float32([1, 0.5, 0]), (N_PARCELS, 1)),
        waveforms=np.exp(-0.5 * (times / widths) ** 2).astype(np.float32),
        background=rng.standard_normal((N_PARCELS, 4000)).astype(np.float32),
        sfreq=SFREQ,
    )


@pytest.fixture(scope="module")
def gain():
    """Make a leadfield whose channels differ in size by a factor of up to 30."""
    rng = np.random.default_rng(1)
    size = np.geomspace(1, 30, N_CHANNELS)[:, None]
    return torch.tensor(rng.standard_normal((N_CHANNELS, N_PARCELS)) * size).float()


def simulate(library, gain, n_batch=20, n_times=64, **kwargs):
    """Return data, sources and what they were made of, as float64 arrays."""
    kwargs = dict(n_sources={1: 1.0}, margin=-0.3) | kwargs
    simulator = Simulator(library, n_times, **kwargs)
    drawn = simulator.draw(n_batch)
    arrays = *simulator.project(gain, *drawn), *drawn
    return [array.double().numpy() for array in arrays]


# --------------------------------------------------------------- signal and noise


@pytest.mark.parametrize("snr", ((10.0, 10.0), (17.0, 17.0), (10.0, 20.0)))
def test_background_snr(library, gain, snr):
    """Patch over background at the sensors, within 0.1 s of the waveform's peak."""
    data, _, _, waves, background, _, _ = simulate(
        library, gain, 300, background_snr=snr, sensor_snr=(200, 200)
    )
    ongoing = gain.double().numpy() @ background
    signal = data - ongoing
    measured = []
    for one, wave, other in zip(signal, waves[:, 0], ongoing):
        peak = np.abs(wave).argmax()
        near = one[:, max(peak - 12, 0) : peak + 13]  # 0.1 s are 12.5 samples
        measured.append(10 * np.log10(np.mean(near**2) / np.mean(other**2)))
    if snr[0] == snr[1]:
        assert_allclose(measured, snr[0], atol=0.05)
    else:
        assert min(measured) > snr[0] - 0.05 and max(measured) < snr[1] + 0.05
        assert_allclose(np.mean(measured), np.mean(snr), atol=0.5)
        assert_allclose(np.std(measured), (snr[1] - snr[0]) / np.sqrt(12), atol=0.3)


def noise_and_clean(library, gain, noise, snr, n_batch=20):
    """Return noise and noise-free data: same draws, once with hardly any noise."""
    noisy, clean = (
        simulate(library, gain, n_batch, 192, noise=noise, sensor_snr=(s, s))[0]
        for s in (snr, 200)
    )
    return noisy - clean, clean


@pytest.mark.parametrize(
    ("noise", "gained"), (("nominal", 0.0), ("authors", 3.01), ("uniform", 0.0))
)
@pytest.mark.parametrize("snr", (5.0, 20.0))
def test_sensor_snr(library, gain, noise, gained, snr):
    """Signal over noise is what was asked for; the authors' is 3 dB better."""
    white, clean = noise_and_clean(library, gain, noise, snr)
    power, noise_power = (np.mean(x**2, axis=(0, 2)) for x in (clean, white))
    if noise == "uniform":
        assert_allclose(noise_power, noise_power.mean(), rtol=0.15)
        power, noise_power = power.mean(), noise_power.mean()
    assert_allclose(10 * np.log10(power / noise_power), snr + gained, atol=0.4)
    flat = white / white.std((0, 2), keepdims=True)
    neighbours = np.mean(flat[..., 1:] * flat[..., :-1])
    assert abs(neighbours) < 0.02  # white in time


def test_noise_of_the_default_is_one_or_the_other(library, gain):
    white, clean = noise_and_clean(library, gain, None, 10.0, n_batch=100)
    spread = white.std(-1).max(1) / white.std(-1).min(1)
    uniform = spread < 1.5
    assert 30 < uniform.sum() < 70
    ratio = np.mean(clean**2, -1) / np.mean(white**2, -1)
    assert_allclose(10 * np.log10(ratio[~uniform]), 10, atol=2)


def test_noise_std_by_hand():
    data = torch.tensor([[[1.0, -1.0], [3.0, 3.0]]])  # powers 1 and 9
    snr = torch.tensor([10.0])
    assert_allclose(noise_std(data, snr, "nominal")[0, :, 0] ** 2, [0.1, 0.9])
    assert_allclose(noise_std(data, snr)[0, :, 0] ** 2, [0.05, 0.45])  # authors
    assert_allclose(noise_std(data, snr, "uniform")[0, :, 0] ** 2, [0.5])


@pytest.mark.parametrize("n_sources", (1, 2, 3))
def test_data_are_gain_times_sources(library, gain, n_sources):
    """Without background and noise, up to one factor per sample."""
    data, sources, *_ = simulate(
        library,
        gain,
        n_sources={n_sources: 1.0},
        background_snr=(90, 95),
        sensor_snr=(200, 200),
    )
    expected = gain.double().numpy() @ sources
    factor = np.sum(data * expected, (1, 2)) / np.sum(expected**2, (1, 2))
    assert (factor > 0).all()
    error = data - factor[:, None, None] * expected
    assert_allclose(error, 0, atol=2e-4 * np.abs(data).max((1, 2)).min())


def test_target(library, gain):
    """Only patches are active, profile times waveform, the largest value is 1."""
    _, sources, weights, waves, _, chosen, _ = simulate(
        library, gain, n_sources={1: 0.5, 3: 0.5}, flip=True
    )
    assert_allclose(np.abs(sources).max((1, 2)), 1, rtol=1e-6)
    assert_array_equal(np.unique((chosen >= 0).sum(1)), [1, 3])
    for source, patches in zip(sources, chosen.astype(int)):
        inside = library.patches[patches[patches >= 0], :2]
        outside = np.setdiff1d(np.arange(N_PARCELS), inside)
        assert not source[outside].any()
    for b in np.flatnonzero((chosen >= 0).sum(1) == 1):
        expected = weights[b, 0][:, None] * waves[b, 0]
        assert_allclose(sources[b], expected / np.abs(expected).max(), atol=1e-6)


def test_each_source_has_its_own_snr(library, gain):
    """The sensor power of three superposed sources is set one by one."""
    same = dict(n_sources={2: 1.0}, background_snr=(15, 15), sensor_snr=(200, 200))
    _, sources, weights, waves, *_ = simulate(library, gain, 50, **same)
    gain = gain.double().numpy()
    powers = []
    for source, profile, wave in zip(sources, weights, waves):
        # amplitudes of both sources in the target, by least squares
        basis = np.stack([np.outer(p, w).ravel() for p, w in zip(profile, wave)], 1)
        amplitude = np.linalg.lstsq(basis, source.ravel())[0]
        peaks = np.abs(wave).argmax(1)
        near = [w[max(p - 12, 0) : p + 13] for w, p in zip(wave, peaks)]
        size = [np.mean(n**2) for n in near]
        powers.append(amplitude**2 * np.sum((gain @ profile.T) ** 2, 0) * size)
    powers = np.array(powers)
    assert_allclose(powers[:, 0] / powers[:, 1], 1, rtol=0.02)


def test_no_source(library, gain):
    """Samples without a source: background and noise, and a target of zeros."""
    data, sources, *_ = simulate(library, gain, n_sources={0: 1.0, 2: 0.0})
    assert not sources.any()
    assert np.isfinite(data).all() and (data.std(-1) > 0).all()


def test_sources_that_no_sensor_sees_are_left_out(library, gain):
    """A patch in parcels without gain gives no NaN, and is no source."""
    blind = gain.clone()
    blind[:, :15] = 0
    data, sources, _, _, _, chosen, _ = simulate(library, blind, 100)
    unseen = chosen[:, 0] < 14
    assert 0 < unseen.sum() < 100
    assert np.isfinite(data).all() and np.isfinite(sources).all()
    assert not sources[unseen].any()
    assert sources[~unseen].any((1, 2)).all()


def test_number_of_sources(library):
    simulator = Simulator(library, 64, n_sources={0: 0.1, 1: 0.6, 3: 0.3})
    weights, _, _, chosen, _ = simulator.draw(4000)
    assert torch.equal(weights.any(2), chosen >= 0)  # absent sources have no profile
    counts = np.bincount((chosen >= 0).sum(1), minlength=4) / 4000
    assert_allclose(counts, [0.1, 0.6, 0, 0.3], atol=0.03)


@pytest.mark.parametrize("flip", (True, False))
def test_signs(library, flip):
    simulator = Simulator(library, 64, n_sources={1: 1.0}, flip=flip, margin=-0.2)
    waves = simulator.draw(400)[1][:, 0].numpy()
    peaks = np.take_along_axis(waves, np.abs(waves).argmax(1)[:, None], 1)
    assert_allclose(np.abs(peaks), 1)
    share = np.mean(peaks > 0)
    assert abs(share - 0.5) < 0.1 if flip else share == 1


@pytest.mark.parametrize("margin", (-0.25, 0.0, 0.2))
def test_peak_times(library, margin):
    """Peaks fall evenly into the window, less or plus its margin."""
    simulator = Simulator(library, 64, n_sources={1: 1.0}, margin=margin)
    waves = simulator.draw(2000)[1][:, 0].numpy()
    at = np.abs(waves).argmax(1)
    inside = np.abs(waves).max(1) > 0.999
    low, high = -64 * margin, 64 * (1 + margin)
    share = min(1.0, 1 / (1 + 2 * margin))
    assert_allclose(np.mean(inside), share, atol=0.03)
    assert at[inside].min() <= max(low, 0) + 1 and at.min() >= max(low - 1, 0)
    assert at[inside].max() >= min(high, 63) - 1 and at.max() <= min(high + 1, 63)


def test_simulator_is_deterministic(library, gain):
    first, again, other = (
        Simulator(library, 64, n_sources={2: 1.0}, seed=seed).batch(gain, 8)
        for seed in (5, 5, 6)
    )
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_simulator_leaves_the_global_generator_alone(library, gain):
    state = torch.get_rng_state()
    Simulator(library, 64, n_sources={1: 1.0}).batch(gain, 4)
    assert torch.equal(state, torch.get_rng_state())


def test_windows_longer_than_the_library(library):
    with pytest.raises(ValueError, match="n_times=200 .* 192"):
        Simulator(library, 200, n_sources={1: 1.0})


# --------------------------------------------------------------- correlated sources


def test_draws_of_the_defaults_stay_the_same(library):
    """Pinned before the option of correlated sources came: it takes no random number.

    Another waveform or background would change training, and its figures.
    """
    simulator = Simulator(library, 64, n_sources={1: 0.5, 2: 0.3, 3: 0.2}, seed=7)
    _, _, _, chosen, _ = simulator.draw(6)
    expected = [[8, -1, -1], [10, -1, -1], [3, 18, 6], [10, 5, -1], [28, 8, 23]]
    assert_array_equal(chosen, [*expected, [7, 0, 8]])
    off = Simulator(
        library,
        64,
        n_sources={1: 0.5, 2: 0.3, 3: 0.2},
        seed=7,
        correlated=0,
        lag=(0, 1),
    )
    again = Simulator(library, 64, n_sources={1: 0.5, 2: 0.3, 3: 0.2}, seed=7)
    for one, two in zip(off.draw(6), again.draw(6)):
        assert torch.equal(one, two)


def test_waves_of_the_defaults_stay_the_same():
    """As above, on bumps without a random number: sums over sources and times."""
    seeds = np.arange(N_PARCELS)
    times = (np.arange(192) - 96) / SFREQ
    widths = np.linspace(0.02, 0.1, 50)[:, None]
    bumps = Library(
        patches=np.stack([seeds, (seeds + 1) % N_PARCELS, seeds * 0 - 1], 1),
        decay=np.tile(np.float32([1, 0.5, 0]), (N_PARCELS, 1)),
        waveforms=np.exp(-0.5 * (times / widths) ** 2).astype(np.float32),
        background=np.zeros((N_PARCELS, 4000), np.float32),
        sfreq=SFREQ,
    )
    simulator = Simulator(bumps, 64, n_sources={1: 0.5, 2: 0.3, 3: 0.2}, seed=7)
    waves = simulator.draw(6)[1].double()
    assert_allclose(waves.sum(), 95.32021, rtol=1e-5)
    expected = [25.39011, 28.02129, 42.66471, 43.22554, 22.89217, 48.82710]
    assert_allclose(waves.abs().sum((1, 2)), expected, rtol=1e-5)


@pytest.mark.parametrize("correlated", (0.3, 1.0))
def test_correlated_sources(library, correlated):
    """The share asked for has one waveform, shifted by the lags asked for, any sign."""
    lag = (0.04, 0.08)
    simulator = Simulator(
        library,
        128,
        n_sources={3: 1.0},
        correlated=correlated,
        lag=lag,
        margin=-0.4,
    )
    waves = simulator.draw(400)[1].numpy()
    first, *others = np.abs(waves).transpose(1, 0, 2)
    at = first.argmax(1)
    n_same = 0
    for other in others:
        shift = other.argmax(1) - at
        # the slowest bumps reach over the window's end: compare what both show
        same = [
            5 <= s <= 10 and np.allclose(b[s:], a[:-s], atol=1e-6)
            for a, b, s in zip(first, other, shift)
        ]
        n_same += np.mean(same) / 2
    assert_allclose(n_same, correlated, atol=0.07)
    signs = np.sign(np.take_along_axis(waves, np.abs(waves).argmax(2)[..., None], 2))
    assert 0.4 < np.mean(signs[:, 0] == signs[:, 1]) < 0.6


@pytest.mark.parametrize(
    ("bad", "match"),
    (
        (dict(correlated=-0.1), "correlated must be a probability"),
        (dict(correlated=1.5), "correlated must be a probability"),
        (dict(correlated=np.nan), "correlated must be a probability"),
        (dict(lag=(0.05, 0.01)), "lag must be"),
        (dict(lag=(-0.1, 0.1)), "lag must be"),
        (dict(lag=(0.0, np.nan)), "lag must be"),
    ),
)
def test_bad_correlation(library, bad, match):
    with pytest.raises(ValueError, match=match):
        Simulator(library, 64, n_sources={2: 1.0}, **bad)

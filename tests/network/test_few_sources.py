"""Tests of the estimates of one source and of two."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from mne_deepsif.network import few_sources as module
from mne_deepsif.network.few_sources import FewSources
from mne_deepsif.network.prior import CorticalPrior, split_modes

N_CHANNELS, N_PARCELS, N_TIMES, N_PATCHES = 12, 5, 8, 40
N_OF_SIZE = (25, 15)
N_MEMBERS = np.repeat([1, 7], N_OF_SIZE)
ONE, TWO = np.array(module._HANDICAPS) / N_TIMES


@pytest.fixture(scope="module")
def topographies():
    rng = np.random.default_rng(0)
    size = rng.uniform(0.5, 20, (N_PATCHES, 1))
    return size * rng.standard_normal((N_PATCHES, N_CHANNELS))


@pytest.fixture(scope="module")
def prior():
    rng = np.random.default_rng(1)
    fine = rng.standard_normal((N_CHANNELS, 2 * N_PARCELS))
    uniform = rng.standard_normal((N_CHANNELS, N_PARCELS))
    return CorticalPrior(
        torch.as_tensor(fine).float(),
        torch.arange(N_PARCELS).repeat(2),
        torch.as_tensor(uniform).float(),
        torch.eye(N_PARCELS),
    )


def make_few(prior, topographies):
    given = (torch.as_tensor(x) for x in (topographies, N_MEMBERS))
    return FewSources(prior, *(x.float() for x in given), N_OF_SIZE)


@pytest.fixture(scope="module")
def few(prior, topographies):
    return make_few(prior, topographies)


def find(few, data, n_independent=N_TIMES):
    """Return how one source explains data, and how two do: a Found for each."""
    data = torch.as_tensor(np.array(data)).float()
    found = few.explain(*split_modes(few._prior, data), n_independent)
    return [module.Found(*(part[:, i] for part in found)) for i in range(2)]


def make_two(topographies):
    """Noise in two windows, with two sources in each."""
    unit = topographies / np.linalg.norm(topographies, axis=1, keepdims=True)
    rng = np.random.default_rng(5)
    waves = 3 * N_CHANNELS**0.5 * rng.standard_normal((2, 2, N_TIMES))
    pairs = unit[[[3, 31], [20, 26]]]
    return rng.standard_normal((2, N_CHANNELS, N_TIMES)) + pairs.mT @ waves


def make_data(topographies, level=2.0):
    """Noise in three windows, with a source in each."""
    data = np.random.default_rng(2).standard_normal((3, N_CHANNELS, N_TIMES))
    unit = topographies / np.linalg.norm(topographies, axis=1, keepdims=True)
    return data + level * N_CHANNELS**0.5 * unit[[3, 20, 7], :, np.newaxis]


def shares_by_hand(unit, window, given=None):
    """Return what patches explain, beside a given one or alone."""
    known = np.ones((N_CHANNELS, 0)) if given is None else unit[[given]].T
    shares = []
    for patch in unit:
        columns = np.column_stack([known, patch])
        fit = columns @ np.linalg.lstsq(columns, window, rcond=None)[0]
        shares.append(np.sum(fit**2) / np.sum(window**2))
    return np.array(shares)


def likely_by_hand(unit, window, given=None):
    """Return the probabilities of patches, beside a given one or alone."""
    exponent = module.SHARPNESS * N_CHANNELS * N_TIMES / 2
    missed = 1 - shares_by_hand(unit, window, given)
    likely = (missed + module._MISFIT) ** -exponent
    likely /= np.repeat(N_OF_SIZE, N_OF_SIZE)
    if given is not None:
        likely *= N_MEMBERS
    for size in np.split(np.arange(N_PATCHES), np.cumsum(N_OF_SIZE)[:-1]):
        likely[size] /= likely[size].sum() ** (1 - module._OF_SIZES)
    return likely / likely.sum()


def estimate_by_hand(prior, unit, window, likely, kept, given=None):
    """Return cost, amplitudes and fit of the likeliest patches, in channels."""
    background = module._FLOOR * prior.floor().numpy().astype(float)
    background = prior.modes.numpy() @ background @ prior.modes.numpy().T
    variance = N_CHANNELS * (1 - module._FLOOR)
    if given is not None:
        variance /= 2
        background_of = variance * np.outer(unit[given], unit[given])
    best = np.inf
    for ratio in module._LAMBDAS:
        noise = background + ratio * np.eye(N_CHANNELS)
        if given is not None:
            noise = noise + background_of
        costs, activity = [], []
        for patch in kept:
            source = variance * np.outer(unit[patch], unit[patch])
            inverse = np.linalg.inv(source + noise)
            power = np.sum(window * (inverse @ window))
            det = np.linalg.slogdet(source + noise)[1]
            costs.append(det + N_CHANNELS * np.log(power))
            activity.append(likely[patch] * variance * unit[patch] @ inverse @ window)
        cost = np.average(costs, weights=likely[kept])
        if cost < best:
            best, found = cost, np.array(activity)
    return best, found, unit[kept].T @ found


def test_one_by_hand(few, prior, topographies):
    """Each patch by itself: its posterior, and a Gaussian estimate with noise."""
    data = make_data(topographies, 0.7)
    found, _ = find(few, data)
    size = np.linalg.norm(topographies, axis=1)
    unit = topographies / size[:, np.newaxis]
    for index, window in enumerate(data):
        likely = likely_by_hand(unit, window)
        kept = np.arange(N_PATCHES)
        cost, expected, fit = estimate_by_hand(prior, unit, window, likely, kept)
        order = np.argsort(found.which[index].numpy())
        assert_allclose(found.cost[index], cost + ONE, rtol=1e-4)
        out = found.amplitudes[index].numpy()[order]
        expected = expected / size[:, np.newaxis]
        assert_allclose(out, expected, rtol=1e-2, atol=1e-4 * np.abs(expected).max())
        out = prior.modes.numpy() @ found.predicted[index].numpy()
        assert_allclose(out, fit, atol=1e-3 * np.abs(fit).max())


def test_two_by_hand(few, prior, topographies, monkeypatch):
    """Each of two patches beside the likeliest of the other."""
    monkeypatch.setattr(module, "_HOPELESS", np.inf)
    monkeypatch.setattr(module, "_APART", 1e-6)
    data = make_two(topographies)
    one, found = find(few, data)
    size = np.linalg.norm(topographies, axis=1)
    unit = topographies / size[:, np.newaxis]
    for index, window in enumerate(data):
        shares = shares_by_hand(unit, window, int(one.which[index, 0]))
        second = N_OF_SIZE[0] + shares[N_OF_SIZE[0] :].argmax()
        costs, amplitudes, fits, which = [], [], [], []
        for _ in range(module._N_SCANS):
            likely = likely_by_hand(unit, window, second)
            kept = np.argsort(-likely)[: N_PATCHES // 2]
            given = prior, unit, window, likely, kept, second
            cost, expected, fit = estimate_by_hand(*given)
            costs.append(cost)
            amplitudes.append(expected / size[kept, np.newaxis])
            fits.append(fit)
            which.append(kept)
            second = kept[0]
        assert_allclose(found.cost[index], np.mean(costs[-2:]) + TWO, rtol=1e-4)
        expected = np.zeros((2, N_PATCHES, N_TIMES))
        out = expected.copy()
        for half in range(2):
            expected[half, which[half - 2]] = amplitudes[half - 2]
            part = slice(half * N_PATCHES // 2, (half + 1) * N_PATCHES // 2)
            out[half, found.which[index, part]] = found.amplitudes[index, part]
        assert_allclose(out, expected, rtol=1e-2, atol=1e-3 * np.abs(expected).max())
        out = prior.modes.numpy() @ found.predicted[index].numpy()
        assert_allclose(out, sum(fits[-2:]), atol=1e-3 * np.abs(sum(fits[-2:])).max())


def test_two_sources(few, topographies):
    """Both are found, one beside the other, even if they are as strong at all times."""
    wave = np.hanning(N_TIMES)
    data = [np.outer(topographies[9] + topographies[30], wave)]
    one, two = find(few, data)
    half = N_PATCHES // 2
    assert {int(two.which[0, 0]), int(two.which[0, half])} == {9, 30}
    for place in (0, half):
        assert_allclose(two.amplitudes[0, place], wave, atol=0.05)
    assert two.cost[0] - TWO < one.cost[0] - ONE


def test_hopeless(few, topographies):
    """What one source explains is not looked at as two."""
    one, two = find(few, make_data(topographies, 5.0))
    assert one.cost.isfinite().all() and two.cost.isinf().all()
    assert not two.amplitudes.any() and not two.predicted.any()


def test_strong_source(few, topographies):
    """All of it is one patch, and of the right amplitude."""
    wave = np.hanning(N_TIMES)
    found, _ = find(few, [np.outer(topographies[9], wave)])
    assert found.which[0, 0] == 9
    assert_allclose(found.amplitudes[0, 0], wave, atol=0.02)
    assert found.amplitudes[0, 1:].abs().max() < 0.02


def test_many_windows_are_as_few(few, topographies, monkeypatch):
    """They are compared with a few topographies at a time."""
    data = make_two(topographies)
    monkeypatch.setattr(module, "_AT_ONCE", 7 * 30 * N_TIMES)
    monkeypatch.setattr(module, "_LEAST", 1)
    many = find(few, np.tile(data, (10, 1, 1)))
    for found, expected in zip(many, find(few, data), strict=True):
        for one, other in zip(found, expected, strict=True):
            assert_allclose(one[:2], other, rtol=1e-3, atol=1e-4)
            assert_allclose(one[-2:], other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("n", [40, 32 * 5, 32 * 5 + 7, 2000])
def test_largest(n):
    """The same as torch finds."""
    values = torch.as_tensor(np.random.default_rng(3).standard_normal((6, n)))
    for found, expected in zip(
        module._largest(values, 5), values.topk(5, dim=1), strict=True
    ):
        assert_allclose(found, expected, rtol=0)


@pytest.mark.parametrize("n_patches", [1, 2, 3])
def test_hardly_any_patches(prior, topographies, n_patches):
    """As of a source space of one vertex: all of its activity is that vertex's."""
    some = torch.as_tensor(topographies[:n_patches]).float()
    few = FewSources(prior, some, torch.ones(n_patches), (n_patches,))
    wave = np.hanning(N_TIMES)
    one, two = find(few, [np.outer(topographies[0], wave)])
    assert one.which[0, 0] == 0
    assert_allclose(one.amplitudes[0, 0], wave, atol=0.05)
    assert two.cost.isinf().all() and not two.amplitudes.any()


def test_no_data(few):
    found = find(few, np.zeros((2, N_CHANNELS, N_TIMES)))
    assert found[0].cost.isfinite().all()
    for one in found:
        assert not one.amplitudes.any() and not one.predicted.any()


def test_unseen_patch(prior, topographies, monkeypatch):
    """A patch that no sensor sees is never found to be active."""
    monkeypatch.setattr(module, "_HOPELESS", np.inf)
    unseen = topographies.copy()
    unseen[:30] = 0
    for found in find(make_few(prior, unseen), make_two(topographies)):
        active = found.which[found.amplitudes.abs().sum(2) > 0]
        assert len(active) and active.min() >= 30


def test_scale_does_not_matter(few, topographies):
    data = make_data(topographies)
    small, large = find(few, 1e-6 * data)[0], find(few, 1e6 * data)[0]
    assert_allclose(1e12 * small.amplitudes, large.amplitudes, rtol=1e-3, atol=1e2)


def test_dependent_samples(few, topographies):
    """Twice the samples with half of the independence say the same."""
    data = make_data(topographies, 0.7)
    twice, _ = find(few, np.repeat(data, 2, axis=2))
    once, _ = find(few, data)
    assert_allclose(twice.amplitudes[..., ::2], once.amplitudes, rtol=1e-2, atol=1e-4)
    less, _ = find(few, data, 1)
    assert (
        less.amplitudes.abs().amax((1, 2)).sum()
        < once.amplitudes.abs().amax((1, 2)).sum()
    )

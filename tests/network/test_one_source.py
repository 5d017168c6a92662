"""Tests of the estimate of a single source."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from mne_deepsif.network import one_source as module
from mne_deepsif.network.one_source import OneSource
from mne_deepsif.network.prior import CorticalPrior, split_modes

N_CHANNELS, N_PARCELS, N_TIMES, N_PATCHES = 12, 5, 8, 40


@pytest.fixture(scope="module")
def topographies():
    rng = np.random.default_rng(0)
    size = rng.uniform(0.5, 20, (N_PATCHES, 1))
    return size * rng.standard_normal((N_PATCHES, N_CHANNELS))


@pytest.fixture(scope="module")
def probability():
    probability = np.random.default_rng(4).uniform(0.2, 1, N_PATCHES)
    return probability / probability.sum()


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


@pytest.fixture(scope="module")
def one_source(prior, topographies, probability):
    given = (torch.as_tensor(x).float() for x in (topographies, probability))
    return OneSource(prior, *given)


def find(one_source, data, n_independent=N_TIMES):
    modes, rest = split_modes(
        one_source._prior, torch.as_tensor(np.array(data)).float()
    )
    return one_source.explain(modes, rest, n_independent)


def make_data(topographies, level=2.0):
    """Noise in three windows, with a source in each."""
    data = np.random.default_rng(2).standard_normal((3, N_CHANNELS, N_TIMES))
    unit = topographies / np.linalg.norm(topographies, axis=1, keepdims=True)
    return data + level * N_CHANNELS**0.5 * unit[[3, 20, 7], :, np.newaxis]


def test_by_hand(one_source, prior, topographies, probability):
    """Each patch by itself: its posterior, and a Gaussian estimate with noise."""
    data = make_data(topographies, 0.7)
    found = find(one_source, data)
    background = module._FLOOR * prior.floor().numpy().astype(float)
    background = prior.modes.numpy() @ background @ prior.modes.numpy().T
    variance = N_CHANNELS * (1 - module._FLOOR)
    unit = topographies / np.linalg.norm(topographies, axis=1, keepdims=True)
    n_kept = module._N_KEPT
    for index, window in enumerate(data):
        share = np.sum((unit @ window) ** 2, axis=1) / np.sum(window**2)
        exponent = module.SHARPNESS * N_CHANNELS * N_TIMES / 2
        likely = probability * (1 - share + module._MISFIT) ** -exponent
        likely /= likely.sum()
        kept = np.argsort(-likely)[:n_kept]
        best = np.inf
        for ratio in module._LAMBDAS:
            noise = background + ratio * np.eye(N_CHANNELS)
            costs, activity, fits = [], [], []
            for patch in kept:
                source = variance * np.outer(unit[patch], unit[patch])
                inverse = np.linalg.inv(source + noise)
                power = np.sum(window * (inverse @ window))
                det = np.linalg.slogdet(source + noise)[1]
                costs.append(det + N_CHANNELS * np.log(power))
                course = likely[patch] * variance * unit[patch] @ inverse @ window
                activity.append(course / np.linalg.norm(topographies[patch]))
                fits.append(np.outer(unit[patch], course))
            cost = np.average(costs, weights=likely[kept])
            if cost < best:
                best, expected, fit = cost, np.array(activity), np.sum(fits, axis=0)
        order = np.argsort(found.which[index].numpy())
        assert_allclose(np.sort(found.which[index]), np.sort(kept))
        assert_allclose(found.cost[index], best, rtol=1e-4)
        out = found.amplitudes[index].numpy()[order]
        expected = expected[np.argsort(kept)]
        assert_allclose(out, expected, rtol=1e-2, atol=1e-4 * np.abs(expected).max())
        out = prior.modes.numpy() @ found.predicted[index].numpy()
        assert_allclose(out, fit, atol=1e-3 * np.abs(fit).max())


def test_strong_source(one_source, topographies):
    """All of it is one patch, and of the right amplitude."""
    wave = np.hanning(N_TIMES)
    found = find(one_source, [np.outer(topographies[9], wave)])
    assert found.which[0, 0] == 9
    assert_allclose(found.amplitudes[0, 0], wave, atol=0.02)
    assert found.amplitudes[0, 1:].abs().max() < 0.02


def test_many_windows_are_as_few(one_source, topographies, monkeypatch):
    """They are compared with a few topographies at a time."""
    few = make_data(topographies)
    monkeypatch.setattr(module, "_AT_ONCE", 7 * 30 * N_TIMES)
    many = find(one_source, np.tile(few, (10, 1, 1)))
    for one, expected in zip(many, find(one_source, few), strict=True):
        assert_allclose(one[:3], expected, rtol=1e-3, atol=1e-4)
        assert_allclose(one[-3:], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("n", [40, 32 * 5, 32 * 5 + 7, 2000])
def test_largest(n):
    """The same as torch finds."""
    values = torch.as_tensor(np.random.default_rng(3).standard_normal((6, n)))
    for found, expected in zip(
        module._largest(values, 5), values.topk(5, dim=1), strict=True
    ):
        assert_allclose(found, expected, rtol=0)


def test_no_data(one_source):
    found = find(one_source, np.zeros((2, N_CHANNELS, N_TIMES)))
    assert not found.amplitudes.any() and not found.predicted.any()
    assert found.cost.isfinite().all()


def test_unseen_patch(prior, topographies, probability):
    """A patch that no sensor sees is never found to be active."""
    unseen = topographies.copy()
    unseen[:30] = 0
    given = (torch.as_tensor(x).float() for x in (unseen, probability))
    found = find(OneSource(prior, *given), make_data(topographies))
    active = found.which[found.amplitudes.abs().sum(2) > 0]
    assert len(active) and active.min() >= 30


def test_scale_does_not_matter(one_source, topographies):
    data = make_data(topographies)
    small, large = find(one_source, 1e-6 * data), find(one_source, 1e6 * data)
    assert_allclose(1e12 * small.amplitudes, large.amplitudes, rtol=1e-3, atol=1e2)


def test_dependent_samples(one_source, topographies):
    """Twice the samples with half of the independence say the same."""
    data = make_data(topographies, 0.7)
    twice = find(one_source, np.repeat(data, 2, axis=2))
    once = find(one_source, data)
    assert_allclose(twice.amplitudes[..., ::2], once.amplitudes, rtol=1e-2, atol=1e-4)
    less = find(one_source, data, 1)
    assert (
        less.amplitudes.abs().amax((1, 2)).sum()
        < once.amplitudes.abs().amax((1, 2)).sum()
    )

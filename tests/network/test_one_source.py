"""Tests of the prior of a single source."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from mne_deepsif.network import one_source as module
from mne_deepsif.network.one_source import OneSource
from mne_deepsif.network.prior import CorticalPrior, split_modes

N_CHANNELS, N_PARCELS, N_TIMES = 12, 5, 8
OWNER = np.array([0, 2, 0, 1, 2, 2, 4])  # parcel 3 has no point


@pytest.fixture(scope="module")
def points():
    """Topographies of three sizes of source at each point."""
    return np.random.default_rng(0).standard_normal((3, len(OWNER), N_CHANNELS))


@pytest.fixture(scope="module")
def one_source(points):
    rng = np.random.default_rng(1)
    fine = rng.standard_normal((N_CHANNELS, 2 * N_PARCELS))
    uniform = rng.standard_normal((N_CHANNELS, N_PARCELS))
    prior = CorticalPrior(
        torch.as_tensor(fine).float(),
        torch.arange(N_PARCELS).repeat(2),
        torch.as_tensor(uniform).float(),
        torch.eye(N_PARCELS),
    )
    return OneSource(prior, torch.as_tensor(points).float(), torch.as_tensor(OWNER))


def find(one_source, data, n_independent=N_TIMES):
    modes, rest = split_modes(
        one_source._prior, torch.as_tensor(np.array(data)).float()
    )
    return one_source.variances(modes, rest, n_independent).numpy()


def test_by_hand(one_source, points):
    """Each topography by itself: its likelihood, divided among a parcel's points."""
    data = np.random.default_rng(2).standard_normal((3, N_CHANNELS, N_TIMES))
    data += 2 * points[1, 3][:, np.newaxis]
    found = find(one_source, data).reshape(3, 2, N_PARCELS)
    for window, variances in zip(data, found, strict=True):
        likely = np.zeros((2, N_PARCELS))
        for size, topographies in enumerate(points):
            for parcel, topography in zip(OWNER, topographies, strict=True):
                unit = topography / np.linalg.norm(topography)
                share = np.sum((unit @ window) ** 2) / np.sum(window**2)
                missed = 1 - share + module._MISFIT
                exponent = module.SHARPNESS * N_CHANNELS * N_TIMES / 2
                weight = missed**-exponent / np.sum(OWNER == parcel)
                likely[int(size == 2), parcel] += weight
        likely /= likely.sum()
        total = likely.sum(0)
        # a parcel without points is as likely to have either kind of activity
        share = np.divide(likely, total, np.full_like(likely, 0.5), where=total > 0)
        expected = share * (N_PARCELS * total + module._FLOOR)
        assert_allclose(variances, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("size, kind", ((0, 0), (1, 0), (2, 1)))
def test_strong_source(one_source, points, size, kind):
    """It takes nearly all of the prior, as a patch if it is as large as one."""
    wave = np.hanning(N_TIMES)
    found = find(one_source, [np.outer(points[size, 3], wave)])
    found = found.reshape(2, N_PARCELS)
    assert np.unravel_index(found.argmax(), found.shape) == (kind, OWNER[3])
    assert found.max() > 0.95 * N_PARCELS


def test_no_data(one_source):
    """Zeros say nothing: parcels that have points are equally likely."""
    found = find(one_source, np.zeros((2, N_CHANNELS, N_TIMES)))
    total = found.reshape(2, 2, N_PARCELS).sum(1)
    assert_allclose(total[:, 3], module._FLOOR, rtol=1e-5)
    others = np.delete(total, 3, axis=1)
    assert_allclose(others, others[0, 0], rtol=1e-5)


def test_dependent_samples(one_source, points):
    """Twice the samples with half of the independence say the same."""
    data = np.random.default_rng(3).standard_normal((2, N_CHANNELS, N_TIMES))
    data += points[0, 0][:, np.newaxis]
    twice = np.repeat(data, 2, axis=2)
    assert_allclose(find(one_source, twice), find(one_source, data), rtol=1e-4)
    assert find(one_source, data, 1).max() < find(one_source, data).max()

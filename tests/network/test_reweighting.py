"""The minimum norm weighted by the network's answer."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import sparse
from scipy.sparse.csgraph import shortest_path

from mne_deepsif.network.reweighting import (
    _EXPONENT,
    _FLOOR,
    _LAMBDAS,
    neighbour_correlation,
    reweight,
)

N_CHANNELS, N_PARCELS, N_TIMES = 8, 30, 4


@pytest.fixture
def correlation():
    """Give the correlation of parcels in a row."""
    pairs = np.ones(N_PARCELS - 1)
    pairs[[9, 19, 20]] = 0  # blocks of 10, 10, 1 and 9 parcels
    return neighbour_correlation(sparse.diags_array([pairs, pairs], offsets=[-1, 1]))


@pytest.fixture
def case():
    """Give answers of three windows, data and gain."""
    rng = np.random.default_rng(0)
    shapes = (3, N_PARCELS, N_TIMES), (3, N_CHANNELS, N_TIMES), (N_CHANNELS, N_PARCELS)
    return [torch.as_tensor(rng.standard_normal(s)).float() for s in shapes]


def test_neighbour_correlation(parcels):
    """A correlation that falls with the number of borders in between."""
    blocks = neighbour_correlation(parcels.adjacency)
    assert [len(block) for block in blocks] == np.bincount(parcels.hemi).tolist()
    found = torch.block_diag(*blocks).numpy()
    assert_allclose(np.diag(found), 1, rtol=1e-6)
    assert_allclose(found, found.T, atol=1e-6)
    assert np.linalg.eigvalsh(found.astype(float)).min() > -1e-5
    steps = shortest_path(parcels.adjacency > 0, unweighted=True)
    means = [found[steps == n].mean() for n in range(8)]
    assert (np.diff(means[:7]) < 0).all()
    assert means[7] == 0 and found[np.isinf(steps)].max(initial=0) == 0


def test_formula(case, correlation):
    """It is the textbook's estimate, with the likeliest of the noise levels."""
    answer, data, gain = (values.double().numpy() for values in case)
    found = reweight(*case, correlation)
    for window in range(len(data)):
        power = np.square(answer[window]).sum(1)
        variance = (power / power.mean()) ** _EXPONENT
        std = np.sqrt(variance / variance.mean() + _FLOOR)
        prior = np.outer(std, std) * torch.block_diag(*correlation).double().numpy()
        signal = gain @ prior @ gain.T
        found_by = {}
        for ratio in _LAMBDAS:
            noise = ratio * np.trace(signal) / N_CHANNELS * np.eye(N_CHANNELS)
            weights = np.linalg.solve(signal + noise, data[window])
            scale = np.sum(data[window] * weights) / data[window].size
            log_det = np.linalg.slogdet(scale * (signal + noise))[1]
            found_by[log_det] = prior @ gain.T @ weights
        expected = found_by[min(found_by)]
        assert_allclose(found[window], expected, atol=1e-4 * np.abs(expected).max())


def test_sign_and_scale(case, correlation):
    """It follows sign and scale of the data; those of the answer do not matter."""
    answer, data, gain = case
    expected = reweight(answer, data, gain, correlation)
    for sign in (-1.0, 1e-3, 1e4):
        found = reweight(answer, sign * data, gain, correlation)
        assert_allclose(found, sign * expected, rtol=1e-3, atol=1e-4 * abs(sign))
        found = reweight(sign * answer, data, gain, correlation)
        assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_windows_do_not_mix(case, correlation):
    """A window alone gives what it gives among others."""
    answer, data, gain = case
    together = reweight(*case, correlation)
    alone = reweight(answer[1:2], data[1:2], gain, correlation)
    assert_allclose(alone[0], together[1], rtol=1e-4, atol=1e-5)


def test_silence(case, correlation):
    """No answer, or no data: no activity."""
    answer, data, gain = case
    answer[0], data[1] = 0, 0
    found = reweight(answer, data, gain, correlation)
    assert not found[:2].any() and found[2].any()
    assert torch.isfinite(found).all()


def test_other_orientation(case, correlation):
    """A parcel that the answer has with the wrong sign gets the right one."""
    _, _, gain = case
    sources = torch.zeros(1, N_PARCELS, N_TIMES)
    sources[0, [5, 20]] = torch.tensor([[1.0, 2, 1, 0], [0, 1, 2, 1]])
    answer = sources.clone()
    answer[0, 20] *= -1
    found = reweight(answer, gain @ sources, gain, correlation)
    for parcel in (5, 20):
        assert np.corrcoef(found[0, parcel], sources[0, parcel])[0, 1] > 0.9
    loud = found.square().sum(-1)[0]
    assert set(loud.argsort()[-2:].tolist()) <= {4, 5, 6, 19, 20, 21}

"""Sums of activity: those of all coefficients, whichever way they are computed."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import sparse

from mne_deepsif.inverse import sums as module
from mne_deepsif.inverse.sums import Sums
from mne_deepsif.network.prior import CorticalPrior, patch_profiles

N_PARCELS, N_EACH, N_TIMES = 9, 3, 4
NO_PATCHES = sparse.csr_array((0, N_PARCELS * (N_EACH + 1)))


@pytest.fixture(scope="module")
def prior():
    """Make a chain of parcels with three patterns each, in no order."""
    rng = np.random.default_rng(5)
    adjacency = sparse.diags_array(
        [1.0, 1.0], offsets=[-1, 1], shape=(N_PARCELS, N_PARCELS)
    )
    parcel = rng.permutation(np.repeat(np.arange(N_PARCELS), N_EACH))
    return CorticalPrior(
        torch.as_tensor(rng.standard_normal((6, len(parcel)))).float(),
        torch.as_tensor(parcel),
        torch.as_tensor(rng.standard_normal((6, N_PARCELS))).float(),
        torch.as_tensor(patch_profiles(adjacency)).float(),
    )


@pytest.fixture(scope="module")
def weights():
    """Make weights of five windows with three priors each, and their shares."""
    rng = np.random.default_rng(6)
    weights = torch.as_tensor(rng.standard_normal((5, 3, 6, N_TIMES))).float()
    shares = torch.as_tensor(rng.uniform(size=(5, 3))).float()
    shares[0, 1] = shares[3, :2] = 0
    return weights, shares, torch.as_tensor(rng.integers(0, 4, (5, 3)))


def make_mixing(kind):
    """Return sums (n_rows, n_patterns) that have a term per parcel, or more."""
    rng, n_fine = np.random.default_rng(7), N_PARCELS * N_EACH
    if kind == "all":
        return None
    mixing = rng.standard_normal((2 if kind == "few" else 20, n_fine + N_PARCELS))
    if kind == "few":
        mixing[:, 9:] = 0
    if kind == "patches":
        mixing[:, :n_fine] = 0
    if kind == "fine":
        mixing[:, n_fine:] = 0
    if kind == "sparse":
        mixing[rng.uniform(size=mixing.shape) > 0.05] = 0
    return mixing


def average(prior, mixing, weights, shares, which, variances, has_patterns=True):
    """Estimate all coefficients with each prior, and add up."""
    total = 0
    for index in range(shares.shape[1]):
        given = variances[which[:, index]], weights[:, index]
        total += shares[:, index, None, None] * prior.estimate(*given)
    if not has_patterns:
        total = sum(total.chunk(2, 1))
    if mixing is not None:
        total = torch.as_tensor(mixing).float() @ total
    return total.mT


@pytest.mark.parametrize("kind", ("all", "few", "many", "patches", "fine", "sparse"))
@pytest.mark.parametrize("at_once", (1, 2**18))
def test_sums(prior, weights, kind, at_once, monkeypatch):
    monkeypatch.setattr(module, "_AT_ONCE", at_once)
    mixing = make_mixing(kind)
    variances = torch.rand(4, 2 * N_PARCELS, generator=torch.Generator().manual_seed(0))
    expected = average(prior, mixing, *weights, variances)
    sums = Sums(prior, mixing, True, NO_PATCHES)
    assert_allclose(sums.estimate(*weights, variances), expected, rtol=1e-4, atol=1e-5)
    # the same by a matrix for each prior
    kernels = sums.kernels(variances)[weights[2]]
    found = (weights[1][..., None, None] * (kernels @ weights[0])).sum(1).mT
    assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_parcels_without_patterns(weights):
    """Both parts of a parcel are its activity."""
    rng = np.random.default_rng(8)
    gain = torch.as_tensor(rng.standard_normal((6, N_PARCELS))).float()
    profiles = torch.as_tensor(rng.uniform(size=(N_PARCELS, N_PARCELS))).float()
    prior = CorticalPrior(gain, torch.arange(N_PARCELS), gain, profiles)
    variances = torch.as_tensor(rng.uniform(size=(4, 2 * N_PARCELS))).float()
    for mixing in (None, rng.standard_normal((3, N_PARCELS))):
        expected = average(prior, mixing, *weights, variances, has_patterns=False)
        sums = Sums(prior, mixing, False, NO_PATCHES[:, :N_PARCELS])
        found = sums.estimate(*weights, variances)
        assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_few_terms(prior):
    """There is one for each sum and parcel, or one for each pattern."""
    n_fine = N_PARCELS * N_EACH
    parcel = prior.parcel.numpy()
    mixing = sparse.lil_array((2, n_fine + N_PARCELS))
    mixing[0, np.flatnonzero(parcel == 4)] = mixing[1, np.flatnonzero(parcel == 7)] = 1
    assert len(Sums(prior, mixing, True, NO_PATCHES)._owner) == 2
    assert len(Sums(prior, None, True, NO_PATCHES)._owner) == n_fine + N_PARCELS


@pytest.mark.parametrize("kind", ["all", "few", "sparse"])
def test_patches(prior, kind):
    """Each is a sum of patterns; one may have none."""
    rng = np.random.default_rng(9)
    n_columns = NO_PATCHES.shape[1]
    coefficients = rng.standard_normal((20, n_columns))
    coefficients[rng.uniform(size=coefficients.shape) > 0.2] = 0
    coefficients[4] = 0
    mixing = make_mixing(kind)
    which = torch.as_tensor(rng.permuted(np.tile(np.arange(20), (5, 1)), axis=1)[:, :7])
    amplitudes = torch.as_tensor(rng.standard_normal((5, 7, N_TIMES))).float()
    sums = Sums(prior, mixing, True, sparse.csr_array(coefficients))
    found = sums.of_patches(which, amplitudes)
    expected = np.einsum("wkt,wkc->wtc", amplitudes, coefficients[which])
    if mixing is not None:
        expected = expected @ mixing.T
    assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    nothing = sums.of_patches(which[:0], amplitudes[:0])
    assert nothing.shape == (0, *expected.shape[1:])

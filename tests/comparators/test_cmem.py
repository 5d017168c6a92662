"""cMEM: the dual, its limits, its symmetries, and a patch."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import linalg, sparse
from scipy.optimize import approx_fprime

from mne_deepsif.comparators import apply_cmem
from mne_deepsif.comparators.cmem import (
    estimate_cmem,
    grow_parcels,
    make_smoother,
    maximize_entropy,
    mean_of,
    median_of,
    minimum_norm,
    negative_dual,
    prelocalize,
)
from mne_deepsif.comparators.problem import make_problem


@pytest.fixture(scope="module")
def model(toy, noisy):
    """Parcels, smoother, probabilities and variances of the small mesh."""
    parcel = grow_parcels(prelocalize(noisy, toy.gain), toy.graph, 2)
    n_parcels = parcel.max() + 1
    rng = np.random.default_rng(2)
    active = rng.uniform(0.05, 0.95, n_parcels)
    variance = rng.uniform(0.001, 0.02, (n_parcels, noisy.shape[1]))
    return parcel, make_smoother(parcel, toy.graph), active, variance


# --------------------------------------------------------------- the dual


def test_gradient_of_the_dual(toy, noisy, model):
    """It agrees with finite differences."""
    parcel, smoother, active, variance = model
    spread = toy.gain @ smoother
    log_odds = np.log(active / (1 - active))
    args = noisy[:, 5], spread, parcel, log_odds, variance[:, 5]
    at = 0.3 * np.random.default_rng(3).standard_normal(30)
    _, gradient = negative_dual(at, *args)
    numeric = approx_fprime(at, lambda x: negative_dual(x, *args)[0], 1e-6)
    assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-3)


def test_the_dual_is_that_of_the_papers(toy, noisy, model):
    """Its value, with the sum over parcels written out."""
    parcel, smoother, active, variance = model
    at = 0.05 * np.random.default_rng(3).standard_normal(30)
    expected = at @ noisy[:, 5] - 0.5 * at @ at
    for k, (a, v) in enumerate(zip(active, variance[:, 5])):
        members = parcel == k
        w = smoother.toarray()[np.ix_(members, members)]
        xi = toy.gain[:, members].T @ at
        expected -= np.log(1 - a + a * np.exp(0.5 * v * xi @ w @ w.T @ xi))
    args = noisy[:, 5], toy.gain @ smoother, parcel, np.log(active / (1 - active))
    value, _ = negative_dual(at, *args, variance[:, 5])
    assert_allclose(-value, expected)


def test_the_estimate_follows_from_its_own_residual(toy, noisy, model):
    """At the optimum, the multipliers are what the estimate leaves unexplained."""
    parcel, smoother, active, variance = model
    sources = maximize_entropy(noisy, toy.gain, *model)
    multipliers = noisy - toy.gain @ sources
    w = smoother.toarray()
    energy = variance * np.array(
        [
            0.5 * np.square(w.T[parcel == k] @ toy.gain.T @ multipliers).sum(axis=0)
            for k in range(len(active))
        ]
    )
    odds = (active / (1 - active))[:, np.newaxis] * np.exp(energy)
    scale = (variance * odds / (1 + odds))[parcel]
    expected = w @ (scale * (w.T @ toy.gain.T @ multipliers))
    assert_allclose(sources, expected, atol=1e-3 * np.abs(expected).max())


def test_parcels_that_are_always_active_give_a_minimum_norm(toy, noisy, model):
    """The dual is quadratic, and its solution known."""
    parcel, smoother, active, variance = model
    sources = maximize_entropy(
        noisy, toy.gain, parcel, smoother, np.ones_like(active), variance
    )
    w = smoother.toarray()
    for time in (0, 7):
        prior = w @ np.diag(variance[parcel, time]) @ w.T
        kernel = (
            prior
            @ toy.gain.T
            @ np.linalg.inv(toy.gain @ prior @ toy.gain.T + np.eye(30))
        )
        expected = kernel @ noisy[:, time]
        atol = 1e-4 * np.abs(expected).max()
        assert_allclose(sources[:, time], expected, atol=atol)


def test_parcels_that_are_never_active_are_silent(toy, noisy, model):
    parcel, smoother, active, variance = model
    sources = maximize_entropy(
        noisy, toy.gain, parcel, smoother, 0 * active, 1e-5 * variance
    )
    assert np.abs(sources).max() < 1e-9


# --------------------------------------------------------------- the model


def test_scores_of_a_source_without_noise(toy):
    """Scores are squared cosines: 1 for what makes the data, less for others."""
    data = 100 * np.outer(toy.gain[:, 60], np.sin(np.arange(20)))
    scores = prelocalize(data, toy.gain)
    unit = toy.gain / np.linalg.norm(toy.gain, axis=0)
    assert_allclose(scores, np.square(unit.T @ unit[:, 60]))
    assert scores.argmax() == 60
    assert prelocalize(data, toy.gain * (np.arange(144) > 0))[0] == 0


def test_parcels_on_a_line():
    """Around 3 and then 9, two steps each way; the pieces left are small."""
    graph = sparse.diags_array([np.ones(13)] * 2, offsets=[-1, 1], shape=(14, 14))
    scores = np.zeros(14)
    scores[[3, 9]] = 2, 1
    parcel = grow_parcels(scores, graph.tocsr(), 2)
    # 0 joins 3's parcel, 6 both and so the first one, 12 and 13 that of 9
    assert_array_equal(parcel, [0] * 7 + [1] * 7)


def test_parcels_are_connected(toy):
    scores = np.random.default_rng(0).uniform(size=144)
    parcel = grow_parcels(scores, toy.graph, 2)
    assert_array_equal(np.unique(parcel), np.arange(parcel.max() + 1))
    for one in range(parcel.max() + 1):
        members = np.flatnonzero(parcel == one)
        inside = toy.graph[members][:, members]
        assert sparse.csgraph.connected_components(inside)[0] == 1
    assert np.bincount(parcel).min() >= 5


def test_smoother_is_the_exponential_of_the_adjacency(toy, model):
    parcel, smoother, *_ = model
    same = parcel[:, np.newaxis] == parcel
    expected = linalg.expm(0.6 * (toy.graph.toarray() > 0) * same)
    assert_allclose(smoother.toarray(), expected, atol=0.01 * expected.max())
    assert not smoother.toarray()[~same].any()


def test_statistics_of_parcels():
    values, parcel = np.array([1.0, 5, 2, 9, 4]), np.array([0, 1, 0, 1, 0])
    assert_allclose(median_of(values, parcel), [2, 7])
    assert_allclose(mean_of(values[:, np.newaxis], parcel)[:, 0], [7 / 3, 7])


def test_minimum_norm_is_that_of_mne(patch, eeg_fwd, cov):
    """Up to MNE's scaling, which makes the trace of the gain's power the rank."""
    problem = make_problem(patch.evoked, eeg_fwd, cov, None)
    ours = minimum_norm(problem.data, problem.gain)
    inverse = mne.minimum_norm.make_inverse_operator(
        patch.evoked.info, eeg_fwd, cov, loose=0, depth=None, fixed=True
    )
    theirs = mne.minimum_norm.apply_inverse(patch.evoked, inverse, 1 / 9, "MNE")
    assert_allclose(ours, theirs.data, atol=1e-3 * np.abs(ours).max())


# --------------------------------------------------------------- symmetries


def test_order_of_vertices_and_channels_does_not_matter(toy, noisy):
    sources = estimate_cmem(noisy, toy.gain, toy.graph, 2)
    rng = np.random.default_rng(4)
    rows, columns = rng.permutation(30), rng.permutation(144)
    other = estimate_cmem(
        noisy[rows],
        toy.gain[rows][:, columns],
        toy.graph[columns][:, columns],
        2,
    )
    assert_allclose(other, sources[columns], atol=1e-4 * np.abs(sources).max())


def test_sign_of_the_data(toy, noisy):
    sources = estimate_cmem(noisy, toy.gain, toy.graph, 2)
    other = estimate_cmem(-noisy, toy.gain, toy.graph, 2)
    assert_allclose(other, -sources, atol=1e-6 * np.abs(sources).max())


# --------------------------------------------------------------- MNE objects


def test_a_patch_is_found(patch, eeg_fwd, cov):
    stc = apply_cmem(patch.evoked, eeg_fwd, cov)
    peak, error = patch.distances(stc)
    assert peak < 0.01 and error < 0.02
    again = patch.evoked.copy()
    again.reorder_channels(again.ch_names[::-1])
    other = apply_cmem(again, eeg_fwd, cov)
    assert_allclose(other.data, stc.data, atol=1e-3 * np.abs(stc.data).max())


def test_no_data_no_sources(patch, eeg_fwd, cov):
    evoked = patch.evoked.copy().crop(0, 0.01)
    evoked.data[:] = 0
    assert not apply_cmem(evoked, eeg_fwd, cov).data.any()


@pytest.mark.parametrize(
    "name, value, error",
    (
        ("neighborhood_order", 0, ValueError),
        ("neighborhood_order", 1.5, TypeError),
        ("active_variance", 0, ValueError),
        ("active_variance", "5%", TypeError),
        ("depth", 1.5, ValueError),
        ("depth", None, TypeError),
    ),
)
def test_wrong_options_are_named(patch, eeg_fwd, cov, name, value, error):
    with pytest.raises(error, match=f"^{name} must be"):
        apply_cmem(patch.evoked, eeg_fwd, cov, **{name: value})

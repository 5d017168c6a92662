"""FAST-IRES: descent, constraint, recovery, symmetries, and a patch."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import chi2

from mne_deepsif.comparators import apply_fast_ires
from mne_deepsif.comparators.fast_ires import (
    constrained_least_squares,
    edge_differences,
    estimate_fast_ires,
    minimize_edges,
)
from mne_deepsif.comparators.problem import make_problem, signal_components


@pytest.fixture(scope="module")
def solved(toy, noisy):
    """Solve for two random time courses of the small mesh, with random weights."""
    rng = np.random.default_rng(5)
    maps = noisy[:, [3, 12]]
    differences = edge_differences(toy.graph)
    weights = rng.uniform(0.5, 2, 144), rng.uniform(0.5, 2, differences.shape[0])
    args = maps, toy.gain, differences, weights, 9.0
    start = constrained_least_squares(*args)
    return args, start, *minimize_edges(*args, start)


def _objective(sources, differences, weights):
    parts = sources, differences @ sources
    return sum(w @ np.sqrt((part**2).sum(1)) for w, part in zip(weights, parts))


# --------------------------------------------------------------- the solver


def test_least_squares_meets_the_conditions_of_its_optimum(solved):
    """The residual has the norm given; the gradients are parallel."""
    (maps, gain, differences, weights, radius), sources, *_ = solved
    residual = maps - gain @ sources
    assert_allclose(np.linalg.norm(residual), radius)
    pull = differences.T @ (weights[1][:, np.newaxis] * (differences @ sources))
    pull += weights[0][:, np.newaxis] * sources
    push = gain.T @ residual
    cosine = np.sum(pull * push) / np.linalg.norm(pull) / np.linalg.norm(push)
    assert_allclose(cosine, 1)


def test_the_objective_never_rises(solved):
    *_, objective = solved
    assert len(objective) > 5
    assert np.all(np.diff(objective) <= 1e-9 * objective[0])
    assert objective[-1] < 0.9 * objective[0]


def test_no_estimate_nearby_is_better(solved):
    """Of estimates that fit the data as well, none has a lower objective."""
    (maps, gain, differences, weights, radius), _, sources, objective = solved
    lowest = _objective(sources, differences, weights)
    assert_allclose(lowest, objective[-1], rtol=0.02)  # norms are smooth near zero
    null = np.eye(144) - np.linalg.pinv(gain) @ gain
    rng = np.random.default_rng(6)
    for size in (0.001, 0.01, 0.1):
        for _ in range(50):
            change = null @ rng.standard_normal(sources.shape)
            change *= size * np.linalg.norm(sources) / np.linalg.norm(change)
            other = _objective(sources + change, differences, weights)
            assert other > 0.995 * lowest


def test_differences_along_edges(toy):
    differences = edge_differences(toy.graph)
    assert differences.shape == (toy.graph.nnz // 2, 144)
    assert_allclose(differences @ np.ones(144), 0)
    laplacian = (differences.T @ differences).toarray()
    assert_allclose(laplacian + (toy.graph.toarray() > 0), np.diag(np.diag(laplacian)))


# --------------------------------------------------------------- the estimate


def test_the_constraint_is_met(toy, noisy):
    """The residual is as strong as the noise may be."""
    sources = estimate_fast_ires(noisy, toy.gain, toy.graph, np.ones(144))
    _, courses = signal_components(noisy)
    residual = (noisy - toy.gain @ sources) @ courses.T
    limit = chi2.ppf(0.99, 30 * len(courses))
    assert_allclose(np.sum(residual**2), limit)


def test_a_patch_without_noise_is_recovered(toy):
    """A constant patch comes back, up to the noise that is assumed."""
    loud = 1e4  # times the noise that the constraint allows
    sources = estimate_fast_ires(loud * toy.data, toy.gain, toy.graph, np.ones(144))
    scale = np.abs(toy.truth).max()
    assert_allclose(sources / loud, toy.truth, atol=0.01 * scale)


def test_order_of_vertices_and_channels_does_not_matter(toy, noisy):
    sources = estimate_fast_ires(noisy, toy.gain, toy.graph, np.ones(144))
    rng = np.random.default_rng(4)
    rows, columns = rng.permutation(30), rng.permutation(144)
    graph = toy.graph[columns][:, columns]
    other = estimate_fast_ires(
        noisy[rows], toy.gain[rows][:, columns], graph, np.ones(144)
    )
    assert_allclose(other, sources[columns], atol=1e-6 * np.abs(sources).max())


def test_sign_and_basis_of_time(toy, noisy):
    """The estimate turns with the basis of time, and changes sign with the data."""
    sources = estimate_fast_ires(noisy, toy.gain, toy.graph, np.ones(144))
    turn = np.linalg.qr(np.random.default_rng(7).standard_normal((20, 20)))[0]
    other = estimate_fast_ires(-noisy @ turn, toy.gain, toy.graph, np.ones(144))
    assert_allclose(other, -sources @ turn, atol=1e-6 * np.abs(sources).max())


# --------------------------------------------------------------- MNE objects


def test_a_patch_is_found(patch, eeg_fwd, cov):
    stc = apply_fast_ires(patch.evoked, eeg_fwd, cov)
    peak, error = patch.distances(stc)
    assert peak < 0.01 and error < 0.01
    problem = make_problem(patch.evoked, eeg_fwd, cov, None)
    _, courses = signal_components(problem.data)
    residual = (problem.data - problem.gain @ stc.data) @ courses.T
    assert_allclose(np.sum(residual**2), chi2.ppf(0.99, 31 * len(courses)))


def test_noise_alone_gives_zero(patch, eeg_fwd, cov):
    evoked = patch.evoked.copy()
    evoked.data = 1e-8 * np.random.default_rng(0).standard_normal(evoked.data.shape)
    with pytest.warns(RuntimeWarning, match="could be noise. Check noise_cov"):
        stc = apply_fast_ires(evoked, eeg_fwd, cov)
    assert not stc.data.any()


@pytest.mark.parametrize(
    "name, value, error",
    (
        ("alpha", 0, ValueError),
        ("alpha", "auto", TypeError),
        ("probability", 1, ValueError),
        ("probability", None, TypeError),
        ("depth", -1, ValueError),
        ("depth", None, TypeError),
    ),
)
def test_wrong_options_are_named(patch, eeg_fwd, cov, name, value, error):
    with pytest.raises(error, match=f"^{name} must be"):
        apply_fast_ires(patch.evoked, eeg_fwd, cov, **{name: value})

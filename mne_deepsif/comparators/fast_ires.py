"""Fast iteratively reweighted edge sparsity (FAST-IRES)."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
from mne.utils import _validate_type, logger, verbose, warn
from scipy import sparse
from scipy.optimize import brentq
from scipy.sparse.linalg import splu
from scipy.stats import chi2

from .problem import (
    check_depth,
    depth_weights,
    make_problem,
    signal_components,
    to_stc,
)

_ROUNDING = 1e-3  # of the largest value: norms are smooth below
_FLOOR = 0.05  # of the largest value: what reweighting takes for zero
_MAX_STEPS, _TOLERANCE = 50, 1e-3  # of one solution: relative fall of its objective
_MAX_ROUNDS, _CHANGE = 5, 0.05  # of reweighting: relative change of the estimate


@verbose
def apply_fast_ires(
    evoked,
    fwd,
    noise_cov,
    *,
    alpha=0.5,
    probability=0.99,
    depth=0.5,
    rank=None,
    verbose=None,
):
    """Estimate sources by iteratively reweighted edge sparsity (FAST-IRES).

    The method is that of :footcite:`SohrabpourEtAl2016,SohrabpourEtAl2020`: few
    vertices are active, few of the mesh's edges join vertices of unlike activity, and
    the rest is noise.

    Parameters
    ----------
    evoked : Evoked
        The data. Activity is composed of the few time courses that stand above the
        noise.
    fwd : Forward
        Forward solution with a surface source space of both hemispheres. Free
        orientation is converted to the surface normals, in a copy.
    noise_cov : Covariance
        Noise covariance of single trials. It is divided by ``evoked.nave``. It decides
        how closely the data are fitted.
    alpha : float
        Weight of the sparsity of activity, relative to that of its edges.
    probability : float
        Probability that noise alone is weaker than what the estimate leaves
        unexplained.
    depth : float
        Exponent of the depth weighting, between 0 (none) and 1.
    rank : None | 'info' | 'full' | dict
        Rank of the noise covariance, see :func:`mne.compute_rank`.
    %(verbose)s

    Returns
    -------
    stc : SourceEstimate
        Dipole moments (A m) of all vertices of ``fwd['src']``, along the normals. It is
        zero if the data could be noise.

    See Also
    --------
    apply_cmem : The other comparator.

    Notes
    -----
    :doc:`/comparators` has the formulae and what differs from the papers.

    References
    ----------
    .. footbibliography::
    """
    _check_options(alpha, probability, depth)
    problem = make_problem(evoked, fwd, noise_cov, rank)
    cost = 1 / depth_weights(problem.gain, depth)
    sources = estimate_fast_ires(*problem, cost, alpha, probability)
    return to_stc(sources, evoked, fwd)


def _check_options(alpha, probability, depth):
    _validate_type(alpha, "numeric", "alpha")
    if not 0 < alpha < np.inf:
        raise ValueError(f"alpha must be positive, got {alpha}. The default is 0.5.")
    _validate_type(probability, "numeric", "probability")
    if not 0 < probability < 1:
        raise ValueError(
            f"probability must be between 0 and 1, got {probability}. The default is "
            "0.99."
        )
    check_depth(depth)


# --------------------------------------------------------------- arrays


def estimate_fast_ires(data, gain, graph, cost, alpha=0.5, probability=0.99):
    """Estimate sources of whitened data.

    Parameters
    ----------
    data : array of shape (rank, n_times)
        Whitened data.
    gain : array of shape (rank, n_vertices)
        Whitened gain.
    graph : csr_array of shape (n_vertices, n_vertices)
        Neighbours are not zero.
    cost : array of shape (n_vertices,)
        What activity of each vertex costs; an edge costs the mean of its two ends.
    alpha : float
        Weight of the sparsity of activity.
    probability : float
        Probability that noise alone is weaker than the residual.

    Returns
    -------
    sources : array of shape (n_vertices, n_times)
        The estimate.
    """
    _, courses = signal_components(data)
    maps = data @ courses.T  # (rank, n_components)
    radius = np.sqrt(chi2.ppf(probability, maps.size))
    if np.linalg.norm(maps) <= radius:
        warn(
            "The estimate is zero: at the probability given, the data could be noise. "
            "Check noise_cov and evoked.nave, or crop evoked to the response."
        )
        return np.zeros((gain.shape[1], data.shape[1]))
    differences = edge_differences(graph)
    costs = alpha * cost, abs(differences) @ cost / 2
    return reweight(maps, gain, differences, costs, radius) @ courses


def edge_differences(graph):
    """Make the matrix that takes the difference along each edge.

    Parameters
    ----------
    graph : csr_array of shape (n_vertices, n_vertices)
        Neighbours are not zero.

    Returns
    -------
    differences : csr_array of shape (n_edges, n_vertices)
        One end minus the other.
    """
    i, j = sparse.triu(graph, 1).nonzero()
    edge = np.arange(len(i))
    values = np.concatenate([np.ones(len(i)), -np.ones(len(i))])
    entries = values, (np.tile(edge, 2), np.concatenate([i, j]))
    return sparse.csr_array(entries, shape=(len(i), graph.shape[0]))


def reweight(maps, gain, differences, costs, radius):
    """Solve again and again, with higher costs for what was small before.

    Parameters
    ----------
    maps : array of shape (rank, n_components)
        Topographies of the time courses.
    gain : array of shape (rank, n_vertices)
        Whitened gain.
    differences : csr_array of shape (n_edges, n_vertices)
        Differences along the edges.
    costs : tuple of array
        Costs of the vertices and of the edges.
    radius : float
        Largest norm of the residual.

    Returns
    -------
    sources : array of shape (n_vertices, n_components)
        Activity of the vertices in each of the time courses.
    """
    weights = costs
    sources = constrained_least_squares(maps, gain, differences, weights, radius)
    for round_ in range(1, _MAX_ROUNDS + 1):
        before = sources
        sources, objective = minimize_edges(
            maps, gain, differences, weights, radius, sources
        )
        change = np.linalg.norm(sources - before) / np.linalg.norm(before)
        logger.info(
            "Round %d: %d steps, change %.3f.", round_, len(objective) - 1, change
        )
        if round_ > 1 and change < _CHANGE:
            break
        sizes = _norms(sources), _norms(differences @ sources)
        weights = [c / (s / s.max() + _FLOOR) for c, s in zip(costs, sizes)]
    return sources


def minimize_edges(maps, gain, differences, weights, radius, sources):
    """Minimize the weighted norms of activity and edges; the residual is bounded.

    Each step minimizes a quadratic function that lies above the objective and touches
    it at the last estimate, so the objective never rises.

    Parameters
    ----------
    maps : array of shape (rank, n_components)
        Topographies of the time courses.
    gain : array of shape (rank, n_vertices)
        Whitened gain.
    differences : csr_array of shape (n_edges, n_vertices)
        Differences along the edges.
    weights : tuple of array
        Weights of the vertices and of the edges.
    radius : float
        Largest norm of the residual.
    sources : array of shape (n_vertices, n_components)
        Where to start.

    Returns
    -------
    sources : array of shape (n_vertices, n_components)
        The estimate.
    objective : list of float
        The objective at the start and after each step.
    """
    floor = _ROUNDING * _norms(sources).max()
    objective = []
    for _ in range(_MAX_STEPS):
        sizes = [
            np.hypot(_norms(part), floor) for part in (sources, differences @ sources)
        ]
        objective.append(sum(w @ size for w, size in zip(weights, sizes)))
        if len(objective) > 1 and _has_converged(*objective[-2:]):
            break
        above = [w / size for w, size in zip(weights, sizes)]
        sources = constrained_least_squares(maps, gain, differences, above, radius)
    return sources, objective


def _has_converged(before, now):
    return before - now < _TOLERANCE * now


def constrained_least_squares(maps, gain, differences, weights, radius):
    """Minimize a weighted sum of squares; the residual has the given norm.

    Parameters
    ----------
    maps : array of shape (rank, n_components)
        Topographies of the time courses; their norm is above ``radius``.
    gain : array of shape (rank, n_vertices)
        Whitened gain.
    differences : csr_array of shape (n_edges, n_vertices)
        Differences along the edges.
    weights : tuple of array
        Weights of the squares of vertices and of edges.
    radius : float
        Norm of the residual.

    Returns
    -------
    sources : array of shape (n_vertices, n_components)
        The estimate.
    """
    on_vertices, on_edges = (sparse.diags_array(w) for w in weights)
    metric = differences.T @ on_edges @ differences + on_vertices
    factor = splu(
        metric.tocsc(),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options=dict(SymmetricMode=True),
    )
    spread = factor.solve(np.ascontiguousarray(gain.T))  # (n_vertices, rank)
    power, modes = np.linalg.eigh(gain @ spread)
    power = np.maximum(power, 1e-14 * power.max())
    part = modes.T @ maps  # (rank, n_components)
    noise = _find_noise(power, np.square(part).sum(axis=1), radius**2)
    return spread @ (modes @ (part / (power + noise)[:, np.newaxis]))


def _find_noise(power, data, target):
    """Find the regularization that leaves a residual of the given power."""

    def excess(log_noise):
        left = 1 / (1 + power / np.exp(log_noise))
        return data @ np.square(left) - target

    middle = np.log(power.max())
    return np.exp(brentq(excess, middle - 60, middle + 60, xtol=1e-10))


def _norms(rows):
    return np.linalg.norm(rows, axis=1)

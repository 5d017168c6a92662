"""Coherent maximum entropy on the mean (cMEM)."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
from mne.utils import _validate_type, logger, verbose
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import expit, logit

from .problem import (
    check_depth,
    depth_weights,
    make_problem,
    signal_components,
    to_stc,
)

_MIN_SIZE = 5  # vertices; a smaller parcel joins a neighbour
_SMOOTHNESS = 0.6  # strength of the smoothing within parcels, and ...
_N_TERMS = 8  # ... where its series ends
_SNR = 3.0  # that MNE assumes for averaged data, in the minimum norm
# gtol is a misfit in standard deviations of the noise
_OPTIONS = dict(gtol=1e-5, ftol=1e-14, maxcor=20, maxiter=1000)


@verbose
def apply_cmem(
    evoked,
    fwd,
    noise_cov,
    *,
    neighborhood_order=4,
    active_variance=0.05,
    depth=0.5,
    rank=None,
    verbose=None,
):
    """Estimate sources by maximum entropy on the mean (cMEM).

    The method is that of :footcite:`AmblardEtAl2004,GrovaEtAl2006,ChowdhuryEtAl2013`:
    parcels that the data define are active or silent, and smooth where they are active.

    Parameters
    ----------
    evoked : Evoked
        The data. All of its samples together define the parcels, so crop it to the
        response.
    fwd : Forward
        Forward solution with a surface source space of both hemispheres. Free
        orientation is converted to the surface normals, in a copy.
    noise_cov : Covariance
        Noise covariance of single trials. It is divided by ``evoked.nave``.
    neighborhood_order : int
        How many steps along the mesh a parcel grows from its seed.
    active_variance : float
        Variance of an active parcel, relative to the mean square of the minimum norm
        estimate in this parcel at this time.
    depth : float
        Exponent of the depth weighting, between 0 (none) and 1.
    rank : None | 'info' | 'full' | dict
        Rank of the noise covariance, see :func:`mne.compute_rank`.
    %(verbose)s

    Returns
    -------
    stc : SourceEstimate
        Dipole moments (A m) of all vertices of ``fwd['src']``, along the normals.

    See Also
    --------
    apply_fast_ires : The other comparator.

    Notes
    -----
    :doc:`/comparators` has the formulae and what differs from the papers.

    References
    ----------
    .. footbibliography::
    """
    _check_options(neighborhood_order, active_variance, depth)
    problem = make_problem(evoked, fwd, noise_cov, rank)
    weights = depth_weights(problem.gain, depth)
    sources = estimate_cmem(
        problem.data,
        problem.gain * weights,
        problem.graph,
        neighborhood_order,
        active_variance,
    )
    return to_stc(weights[:, np.newaxis] * sources, evoked, fwd)


def _check_options(order, variance, depth):
    _validate_type(order, "int-like", "neighborhood_order")
    if order < 1:
        raise ValueError(
            f"neighborhood_order must be 1 or more, got {order}. The default is 4."
        )
    _validate_type(variance, "numeric", "active_variance")
    if not 0 < variance < np.inf:
        raise ValueError(
            f"active_variance must be positive, got {variance}. The default is 0.05."
        )
    check_depth(depth)


# --------------------------------------------------------------- arrays


def estimate_cmem(data, gain, graph, order=4, active_variance=0.05):
    """Estimate sources of whitened data.

    Parameters
    ----------
    data : array of shape (rank, n_times)
        Whitened data.
    gain : array of shape (rank, n_vertices)
        Whitened gain.
    graph : csr_array of shape (n_vertices, n_vertices)
        Neighbours are not zero.
    order : int
        How many steps a parcel grows.
    active_variance : float
        Variance of an active parcel, relative to the minimum norm's mean square.

    Returns
    -------
    sources : array of shape (n_vertices, n_times)
        The posterior mean.
    """
    scores = prelocalize(data, gain)
    parcel = grow_parcels(scores, graph, order)
    active = median_of(scores, parcel)
    energy = mean_of(np.square(minimum_norm(data, gain)), parcel)
    logger.info("The scores of the vertices define %d parcels.", len(active))
    smoother = make_smoother(parcel, graph)
    return maximize_entropy(
        data, gain, parcel, smoother, active, active_variance * energy
    )


def prelocalize(data, gain):
    """Score the vertices: how much of each gain lies in the space of the signal.

    Parameters
    ----------
    data : array of shape (rank, n_times)
        Whitened data.
    gain : array of shape (rank, n_vertices)
        Whitened gain.

    Returns
    -------
    scores : array of shape (n_vertices,)
        Squared cosine between each column and the space of the signal's topographies,
        0 to 1.
    """
    maps, _ = signal_components(data)
    power = np.square(gain).sum(axis=0)
    seen = np.square(maps.T @ gain).sum(axis=0)
    return np.divide(seen, power, out=np.zeros_like(power), where=power > 0)


def grow_parcels(scores, graph, order):
    """Cut the cortex into parcels, grown around the vertices with the highest scores.

    Parameters
    ----------
    scores : array of shape (n_vertices,)
        Scores of the vertices.
    graph : csr_array of shape (n_vertices, n_vertices)
        Neighbours are not zero.
    order : int
        How many steps a parcel grows over vertices that are still free.

    Returns
    -------
    parcel : array of int, shape (n_vertices,)
        Parcel of each vertex. Those with higher scores at their seeds come first.
    """
    parcel = np.full(len(scores), -1)
    n_parcels = 0
    for seed in np.argsort(-scores, kind="stable"):
        if parcel[seed] >= 0:
            continue
        parcel[seed], ring = n_parcels, np.array([seed])
        for _ in range(order):
            near = np.unique(graph[ring].indices)
            ring = near[parcel[near] < 0]
            parcel[ring] = n_parcels
        n_parcels += 1
    return _merge_small(parcel, graph)


def _merge_small(parcel, graph):
    """Let small parcels join the neighbour whose seed has the highest score."""
    size = np.bincount(parcel)
    for small in np.flatnonzero(size < _MIN_SIZE)[::-1]:
        members = np.flatnonzero(parcel == small)
        near = np.setdiff1d(parcel[graph[members].indices], small)
        if len(near):
            parcel[members] = near.min()
    return np.unique(parcel, return_inverse=True)[1]


def median_of(values, parcel):
    """Compute the median of each parcel.

    Parameters
    ----------
    values : array of shape (n_vertices,)
        Values of the vertices.
    parcel : array of int, shape (n_vertices,)
        Parcel of each vertex.

    Returns
    -------
    medians : array of shape (n_parcels,)
        The medians.
    """
    order = np.argsort(parcel, kind="stable")
    bounds = np.cumsum(np.bincount(parcel))[:-1]
    return np.array([np.median(part) for part in np.split(values[order], bounds)])


def mean_of(values, parcel):
    """Compute the mean over each parcel.

    Parameters
    ----------
    values : array of shape (n_vertices, n_times)
        Values of the vertices.
    parcel : array of int, shape (n_vertices,)
        Parcel of each vertex.

    Returns
    -------
    means : array of shape (n_parcels, n_times)
        The means.
    """
    share = 1 / np.bincount(parcel)[parcel]
    entries = share, (parcel, np.arange(len(parcel)))
    return sparse.csr_array(entries) @ values


def minimum_norm(data, gain):
    """Compute the minimum norm estimate with MNE's usual regularization.

    Parameters
    ----------
    data : array of shape (rank, n_times)
        Whitened data.
    gain : array of shape (rank, n_vertices)
        Whitened gain.

    Returns
    -------
    sources : array of shape (n_vertices, n_times)
        The estimate.
    """
    gram = gain @ gain.T
    noise = np.trace(gram) / len(gram) / _SNR**2
    return gain.T @ np.linalg.solve(gram + noise * np.eye(len(gram)), data)


def make_smoother(parcel, graph):
    """Make the matrix that smooths within parcels.

    Parameters
    ----------
    parcel : array of int, shape (n_vertices,)
        Parcel of each vertex.
    graph : csr_array of shape (n_vertices, n_vertices)
        Neighbours are not zero.

    Returns
    -------
    smoother : csr_array of shape (n_vertices, n_vertices)
        The exponential of the adjacency within parcels, a symmetric matrix.
    """
    i, j = graph.nonzero()
    inside = parcel[i] == parcel[j]
    entries = np.ones(np.count_nonzero(inside)), (i[inside], j[inside])
    adjacency = sparse.csr_array(entries, shape=graph.shape)
    term = smoother = sparse.eye_array(len(parcel), format="csr")
    for power in range(1, _N_TERMS + 1):
        term = _SMOOTHNESS / power * (term @ adjacency)
        smoother = smoother + term
    return smoother


# --------------------------------------------------------------- the dual


def maximize_entropy(data, gain, parcel, smoother, active, variance):
    """Maximize the dual at each time; return the posterior mean.

    Parameters
    ----------
    data : array of shape (rank, n_times)
        Whitened data.
    gain : array of shape (rank, n_vertices)
        Whitened gain.
    parcel : array of int, shape (n_vertices,)
        Parcel of each vertex.
    smoother : csr_array of shape (n_vertices, n_vertices)
        Matrix W; the covariance of active parcels is their variance times W W'.
    active : array of shape (n_parcels,)
        Prior probability that a parcel is active.
    variance : array of shape (n_parcels, n_times)
        Variance of each parcel at each time.

    Returns
    -------
    sources : array of shape (n_vertices, n_times)
        The posterior mean.
    """
    spread = smoother.T @ gain.T  # (n_vertices, rank)
    log_odds = logit(np.clip(active, 1e-12, 1 - 1e-12))
    power, modes = _modes_of_prior(spread, parcel, active, variance)
    spread, data = np.ascontiguousarray((spread @ modes).T), modes.T @ data
    sources = np.zeros((gain.shape[1], data.shape[1]))
    steepest = 0.0
    for time, (now, width) in enumerate(zip(data.T, variance.T)):
        args = now, spread, parcel, log_odds, width
        multipliers, gradient = _minimize(args, 1 / np.sqrt(1 + power * width.sum()))
        steepest = max(steepest, np.abs(gradient).max())
        field = spread.T @ multipliers
        sources[:, time] = _scale(field, parcel, log_odds, width) * field
    logger.info("The dual's gradient is %.1g or less at all times.", steepest)
    return smoother @ sources


def _modes_of_prior(spread, parcel, active, variance):
    """Decompose the prior covariance of the data, for a sum of variances of 1."""
    mean = active * variance.mean(axis=1) / max(variance.mean(axis=1).sum(), 1e-300)
    return np.linalg.eigh((spread.T * mean[parcel]) @ spread)


def _minimize(args, scale):
    """Minimize the negative dual in coordinates in which it is nearly a sphere."""

    def scaled(point):
        value, gradient = negative_dual(scale * point, *args)
        return value, scale * gradient

    start = np.zeros(len(scale))
    found = minimize(scaled, start, method="L-BFGS-B", jac=True, options=_OPTIONS)
    return scale * found.x, found.jac / scale


def negative_dual(multipliers, data, spread, parcel, log_odds, variance):
    """Compute the dual of maximum entropy, with the sign changed, and its gradient.

    Parameters
    ----------
    multipliers : array of shape (rank,)
        Lagrange multipliers of the whitened data.
    data : array of shape (rank,)
        Whitened data at one time.
    spread : array of shape (rank, n_vertices)
        Whitened gain times smoother.
    parcel : array of int, shape (n_vertices,)
        Parcel of each vertex.
    log_odds : array of shape (n_parcels,)
        Prior log odds that a parcel is active.
    variance : array of shape (n_parcels,)
        Variance of each parcel.

    Returns
    -------
    value : float
        The negative dual, which is convex.
    gradient : array of shape (rank,)
        Its gradient: multipliers plus what the estimate explains, minus data.
    """
    field = spread.T @ multipliers
    energy = _energy(field, parcel, variance)
    # log((1 - a) + a exp(energy)), in terms of the log odds of a
    log_mean = np.logaddexp(0, log_odds + energy) - np.logaddexp(0, log_odds)
    value = 0.5 * multipliers @ multipliers - multipliers @ data + log_mean.sum()
    explained = spread @ (_scale(field, parcel, log_odds, variance) * field)
    return value, multipliers + explained - data


def _energy(field, parcel, variance):
    return 0.5 * variance * np.bincount(parcel, np.square(field))


def _scale(field, parcel, log_odds, variance):
    """Posterior probability times variance, for each vertex."""
    probability = expit(log_odds + _energy(field, parcel, variance))
    return (probability * variance)[parcel]

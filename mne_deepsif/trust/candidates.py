"""Candidates for sources: pieces of cortex around the peaks of an estimate.

For each, :func:`probability_of` says how likely it is to belong to a source.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import json
from functools import lru_cache

import numpy as np
from scipy import sparse
from scipy.optimize import nnls
from scipy.special import expit

from ..cache import PACKAGE_DATA

FEATURES = ("own", "height", "contrast", "spread", "fit", "modes", "number")
_FLOOR = 0.1  # of the largest peak; what lies below is no candidate
_SADDLE = 0.5  # of the lower of two peaks; above it, they are one
_BORDER = 0.25  # of a candidate's own peak
_MAX_CANDIDATES = 30
_LEAST = 1e-4  # least value of a share, before its logarithm
_RIDGE = 1e-6  # for candidates with the same field


def find_sources(sources, graph, areas, gain, data):
    """Find candidates for sources, and how likely each is one.

    Parameters
    ----------
    sources : array of shape (n_vertices, n_times)
        The estimate.
    graph : csr_array of shape (n_vertices, n_vertices)
        Neighbours on the cortex.
    areas, gain, data : array
        As in :func:`describe_candidates`.

    Returns
    -------
    found : list of tuple
        The vertices of each candidate, and its probability; the largest peak first.
    """
    candidates = find_candidates(np.abs(sources).max(axis=1), graph)
    if not candidates or not data.any():
        return []
    table = describe_candidates(candidates, sources, areas, gain, data)
    return list(zip(candidates, probability_of(table)))


def find_candidates(peaks, graph):
    """Split active cortex into pieces, each around a peak of its own.

    Two peaks are one if the cortex between them is more than half as active as the
    lower one. Each piece ends where activity falls to a quarter of its own peak. So a
    weak source is not measured by a strong one's threshold.

    Parameters
    ----------
    peaks : array of shape (n_vertices,)
        Largest absolute amplitude of each vertex.
    graph : csr_array of shape (n_vertices, n_vertices)
        Neighbours on the cortex.

    Returns
    -------
    candidates : list of array of int
        The vertices of each piece, the largest peak first. Pieces whose peak is below a
        tenth of the largest are left out, as are those after the 30th.
    """
    basin, tops = _basins(peaks, graph)
    kept = np.flatnonzero(basin >= 0)
    kept = kept[peaks[kept] >= _BORDER * tops[basin[kept]]]
    near = graph[kept][:, kept].tocoo()
    same = basin[kept][near.row] == basin[kept][near.col]
    near = sparse.coo_array(
        (near.data[same], (near.row[same], near.col[same])), near.shape
    )
    n_pieces, piece = sparse.csgraph.connected_components(near, directed=False)
    pieces = [kept[piece == number] for number in range(n_pieces)]
    return sorted(pieces, key=lambda one: -peaks[one].max())[:_MAX_CANDIDATES]


def _basins(peaks, graph):
    """Return the peak that each vertex belongs to (-1: none), and the peaks' heights.

    The cortex is flooded from above: a vertex joins its higher neighbours, or is a new
    peak.
    """
    order = np.argsort(-peaks, kind="stable")
    order = order[peaks[order] > _FLOOR * peaks.max(initial=0.0)]
    basin = np.full(len(peaks), -1)
    tops, parents = [], []

    def root(number):
        while parents[number] != number:
            number = parents[number]
        return number

    for vertex in order:
        around = basin[graph.indices[graph.indptr[vertex] : graph.indptr[vertex + 1]]]
        near = sorted({root(number) for number in around if number >= 0})
        if not near:
            near = [len(tops)]
            parents.append(len(tops))
            tops.append(peaks[vertex])
        basin[vertex] = near[0]  # peaks are numbered by height
        for lower in near[1:]:
            if peaks[vertex] > _SADDLE * tops[lower]:
                parents[lower] = near[0]
    basin[order] = [root(number) for number in basin[order]]
    return basin, np.array(tops)


def describe_candidates(candidates, sources, areas, gain, data):
    """Measure what tells sources from what an estimate makes of noise.

    None of it depends on the scale of the noise covariance.

    Parameters
    ----------
    candidates : list of array of int
        The vertices of each candidate.
    sources : array of shape (n_vertices, n_times)
        The estimate.
    areas : array of shape (n_vertices,)
        Area of cortex that each vertex stands for (m²).
    gain, data : array of shape (n_modes, n_vertices) and (n_modes, n_times)
        Whitened gain and data.

    Returns
    -------
    table : array of shape (n_candidates, 7)
        The :data:`FEATURES`. ``own``: log of the share that a candidate explains of
        what the others leave unexplained. ``height``: log of its peak over the largest
        peak. ``contrast``: log of its field's maximum over its root mean square over
        time. ``spread``: log of the share of the cortex that the estimate covers.
        ``fit``: log of the share of the data that all explain. ``modes``: log of the
        number of modes; where there are few, some are explained by chance.
        ``number``: log of the number of candidates.
    """
    fields = np.array([gain[:, one] @ sources[one] for one in candidates])
    own, fit = _shares(fields.reshape(len(fields), -1), data.ravel())
    strength = np.sqrt(np.square(fields).sum(axis=1))  # (n_candidates, n_times)
    rms = np.sqrt(np.mean(np.square(strength), axis=1))
    peaks = np.abs(sources).max(axis=1)
    heights = np.array([peaks[one].max() for one in candidates]) / peaks.max()
    power = np.square(peaks / peaks.max())
    spread = (areas @ power) ** 2 / (areas @ power**2) / areas.sum()
    contrast = strength.max(axis=1) / np.where(rms > 0, rms, np.inf)
    columns = np.broadcast_arrays(
        np.log(np.maximum(own, _LEAST)),
        np.log(heights),
        np.log(np.maximum(contrast, 1.0)),
        np.log(spread),
        np.log(max(fit, _LEAST)),
        np.log(len(data)),
        np.log(len(candidates)),
    )
    return np.column_stack(columns)


def _shares(fields, data):
    """Return what share of the data only one field explains, and what all explain.

    Parameters
    ----------
    fields : array of shape (n_fields, n_values)
        The fields. Each has a scale of its own, which is never negative.
    data : array of shape (n_values,)
        The data.

    Returns
    -------
    own : array of shape (n_fields,)
        Share that a field explains of what the others leave.
    fit : float
        Share that all of them explain.
    """
    sizes = np.linalg.norm(fields, axis=1, keepdims=True)
    fields = fields / np.where(sizes > 0, sizes, 1)
    products = fields @ fields.T + _RIDGE * np.eye(len(fields))
    cosines = fields @ data / np.linalg.norm(data)

    def explained(kept):
        if not len(kept):  # nnls does not take it
            return 0.0
        root = np.linalg.cholesky(products[np.ix_(kept, kept)])
        target = np.linalg.solve(root, cosines[kept])
        return target @ target - nnls(root.T, target)[1] ** 2

    everyone = np.arange(len(fields))
    fit = explained(everyone)
    without = [explained(np.delete(everyone, one)) for one in everyone]
    own = np.maximum(fit - without, 0)
    return own / (1 - fit + own), fit


@lru_cache
def read_model():
    """Read the coefficients that ``python -m benchmarks.making.extents fit`` found."""
    return json.loads((PACKAGE_DATA / "extents.json").read_text(encoding="utf-8"))


def default_probability():
    """Return the least probability of an extent that is listed by default.

    At this value, 3 % of the fit's windows without a source have an extent.
    """
    return read_model()["min_probability"]


def probability_of(table):
    """Compute how likely candidates are to belong to a source, by logistic regression.

    It knows the features, their squares and their products.

    Parameters
    ----------
    table : array of shape (n_candidates, 7)
        What :func:`describe_candidates` returned. Values beyond those of the training
        count as the nearest of them. If an estimate explains less of the data than any
        in the training did, even of noise, it is none of these data: the probability
        is 0.

    Returns
    -------
    probability : array of shape (n_candidates,)
        The probability that a source lies within 1 cm of the candidate.
    """
    model = read_model()
    low = np.array(model["low"])
    inside = np.clip(table, low, model["high"])
    fit = FEATURES.index("fit")
    explains = np.asarray(table)[:, fit] >= low[fit]
    terms = with_products((inside - model["mean"]) / model["scale"])
    return explains * expit(terms @ model["coef"] + model["intercept"])


def with_products(table):
    """Add the squares and products of all columns to a table."""
    first, second = np.triu_indices(table.shape[1])
    return np.hstack([table, table[:, first] * table[:, second]])

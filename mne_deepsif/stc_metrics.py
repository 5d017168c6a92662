"""Scores of a ``SourceEstimate`` against the truth, in MNE's argument order.

The true estimate is zero, or has no vertices, where nothing is active. The other one is
thresholded over its whole time range, by the rule that you name. Lengths are in metres.
Each function is that of :mod:`mne_deepsif.metrics`, with vertices in place of parcels.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from typing import NamedTuple

import numpy as np
from mne import SourceEstimate
from mne.utils import _validate_type

from . import metrics
from .head.mesh import edge_graph, find_rows, nearest_along, vertex_areas


def localization_error(stc_true, stc_est, src, *, rule="peak"):
    """Compute the papers' localization error, which is one-sided.

    See :func:`mne_deepsif.metrics.localization_error`.

    Parameters
    ----------
    stc_true, stc_est : SourceEstimate
        The true and the estimated activity.
    src : SourceSpaces
        The surface source space that holds the vertices of both.
    rule : str
        The rule of :func:`mne_deepsif.metrics.active_parcels`.

    Returns
    -------
    error : float
        The error in metres; NaN if nothing is true or nothing is active.
    """
    arrays = _to_arrays(stc_true, stc_est, src, rule)
    return metrics.localization_error(arrays.true, arrays.active, arrays.positions)


def two_sided_localization_error(stc_true, stc_est, src, *, rule="peak"):
    """Compute the localization error in both directions.

    See :func:`mne_deepsif.metrics.two_sided_localization_error`. It differs from
    :func:`mne.simulation.metrics.region_localization_error` only in the threshold.

    Parameters
    ----------
    stc_true, stc_est : SourceEstimate
        The true and the estimated activity.
    src : SourceSpaces
        The surface source space that holds the vertices of both.
    rule : str
        The rule of :func:`mne_deepsif.metrics.active_parcels`.

    Returns
    -------
    error : float
        The error in metres; NaN if nothing is true or nothing is active.
    """
    arrays = _to_arrays(stc_true, stc_est, src, rule)
    return metrics.two_sided_localization_error(
        arrays.true, arrays.active, arrays.positions
    )


def precision(stc_true, stc_est, src, *, rule="peak"):
    """Compute the share of the active area that is true.

    Parameters
    ----------
    stc_true, stc_est : SourceEstimate
        The true and the estimated activity.
    src : SourceSpaces
        The surface source space that holds the vertices of both.
    rule : str
        The rule of :func:`mne_deepsif.metrics.active_parcels`.

    Returns
    -------
    precision : float
        Between 0 and 1; 0 if nothing is active.
    """
    arrays = _to_arrays(stc_true, stc_est, src, rule)
    return metrics.precision(arrays.true, arrays.active, arrays.areas)


def recall(stc_true, stc_est, src, *, rule="peak"):
    """Compute the share of the true area that is active.

    Parameters
    ----------
    stc_true, stc_est : SourceEstimate
        The true and the estimated activity.
    src : SourceSpaces
        The surface source space that holds the vertices of both.
    rule : str
        The rule of :func:`mne_deepsif.metrics.active_parcels`.

    Returns
    -------
    recall : float
        Between 0 and 1; 0 if nothing is true.
    """
    arrays = _to_arrays(stc_true, stc_est, src, rule)
    return metrics.recall(arrays.true, arrays.active, arrays.areas)


def f1(stc_true, stc_est, src, *, rule="peak"):
    """Compute the harmonic mean of precision and recall, by area.

    Parameters
    ----------
    stc_true, stc_est : SourceEstimate
        The true and the estimated activity.
    src : SourceSpaces
        The surface source space that holds the vertices of both.
    rule : str
        The rule of :func:`mne_deepsif.metrics.active_parcels`.

    Returns
    -------
    f1 : float
        Between 0 and 1; 0 if precision and recall are both 0.
    """
    arrays = _to_arrays(stc_true, stc_est, src, rule)
    return metrics.f1(arrays.true, arrays.active, arrays.areas)


def spatial_dispersion(stc_true, stc_est, src):
    """Compute how far the estimate spreads around the true region.

    See :func:`mne_deepsif.metrics.spatial_dispersion`; nothing is thresholded.

    Parameters
    ----------
    stc_true, stc_est : SourceEstimate
        The true and the estimated activity.
    src : SourceSpaces
        The surface source space that holds the vertices of both.

    Returns
    -------
    dispersion : float
        The dispersion in metres; NaN if nothing is true or the estimate is zero.
    """
    true = _on_source_space(stc_true, src, "stc_true").any(axis=1)
    sources = _on_source_space(stc_est, src, "stc_est")
    return metrics.spatial_dispersion(true, sources, _positions(src))


def linear_correlation(stc_true, stc_est, src):
    """Compute Pearson's correlation of the waveforms, averaged over the true area.

    Parameters
    ----------
    stc_true, stc_est : SourceEstimate
        The true and the estimated activity, at the same times.
    src : SourceSpaces
        The surface source space that holds the vertices of both.

    Returns
    -------
    correlation : float
        Between -1 and 1; NaN if nothing is true.
    """
    true = _on_source_space(stc_true, src, "stc_true")
    sources = _on_source_space(stc_est, src, "stc_est")
    if true.shape != sources.shape:
        raise ValueError(
            "stc_true and stc_est must have the same times, got "
            f"{true.shape[1]} and {sources.shape[1]}. Crop or resample one of them."
        )
    rows = true.any(axis=1)
    if not rows.any():
        return np.nan
    each = metrics.linear_correlation(true[rows], sources[rows])
    return float(np.average(each, weights=_areas(src)[rows]))


class _Arrays(NamedTuple):
    true: np.ndarray  # (n_vertices,) bool
    active: np.ndarray  # (n_vertices,) bool
    positions: np.ndarray  # (n_vertices, 3), m
    areas: np.ndarray  # (n_vertices,), m²


def _to_arrays(stc_true, stc_est, src, rule):
    """Spread both estimates over all vertices of a source space and threshold one."""
    true = _on_source_space(stc_true, src, "stc_true").any(axis=1)
    sources = _on_source_space(stc_est, src, "stc_est")
    active = metrics.active_parcels(sources, rule)
    return _Arrays(true, active, _positions(src), _areas(src))


def _positions(src):
    return np.concatenate([surf["rr"][surf["vertno"]] for surf in src])


def _areas(src):
    return np.concatenate([_hemi_areas(surf) for surf in src])


def _hemi_areas(surf):
    """Return the area nearest to each used vertex, along the surface."""
    if not len(surf["tris"]) or len(surf["rr"]) != surf["np"]:
        raise ValueError(
            "src must hold the whole surfaces with their triangles. Pass the source "
            "space of mne.setup_source_space, or that of the forward made with it."
        )
    areas = vertex_areas(surf["rr"], surf["tris"])
    graph = edge_graph(surf["tris"], surf["np"], surf["rr"])
    owner = nearest_along(graph, surf["vertno"])
    near = owner >= 0
    return np.bincount(owner[near], areas[near], surf["nuse"])


def _on_source_space(stc, src, name):
    """Spread an estimate over all vertices of a source space, zero elsewhere."""
    _validate_type(stc, SourceEstimate, name)
    data = np.zeros((sum(s["nuse"] for s in src), stc.data.shape[1]))
    data[find_rows(stc.vertices, [s["vertno"] for s in src], name)] = stc.data
    return data

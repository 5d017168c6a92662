"""Estimates as arrays over the vertices of a source space."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from typing import NamedTuple

import numpy as np
from mne import SourceEstimate
from mne.utils import _validate_type

from .. import metrics
from ..head.mesh import edge_graph, find_rows, nearest_along, sum_areas, vertex_areas


class Arrays(NamedTuple):
    """The vertices of a source space: what is true, what is active, and where."""

    true: np.ndarray  # (n_vertices,) bool
    active: np.ndarray  # (n_vertices,) bool
    positions: np.ndarray  # (n_vertices, 3), m
    areas: np.ndarray  # (n_vertices,), m²


def to_arrays(stc_true, stc_est, src, rule):
    """Spread both estimates over all vertices of a source space and threshold one."""
    true, sources = true_and_estimate(stc_true, stc_est, src)
    active = metrics.active_parcels(sources, rule)
    return Arrays(true, active, vertex_positions(src), owned_areas(src))


def true_and_estimate(stc_true, stc_est, src):
    """Return the mask of true vertices, and the estimate on all vertices."""
    true = on_source_space(stc_true, src, "stc_true").any(axis=1)
    return true, on_source_space(stc_est, src, "stc_est")


def vertex_positions(src):
    """Return the positions (m) of all vertices of a source space."""
    return np.concatenate([surf["rr"][surf["vertno"]] for surf in src])


def owned_areas(src):
    """Return the areas (m²) that all vertices of a source space stand for."""
    return np.concatenate([hemi_areas(surf) for surf in src])


def hemi_areas(surf):
    """Return the area nearest to each used vertex, along the surface."""
    if not len(surf["tris"]) or len(surf["rr"]) != surf["np"]:
        raise ValueError(
            "src must hold the whole surfaces with their triangles. Pass the source "
            "space of mne.setup_source_space, or that of the forward made with it."
        )
    areas = vertex_areas(surf["rr"], surf["tris"])
    graph = edge_graph(surf["tris"], surf["np"], surf["rr"])
    owner = nearest_along(graph, surf["vertno"])
    return sum_areas(owner, areas, surf["nuse"])


def on_source_space(stc, src, name):
    """Spread an estimate over all vertices of a source space, zero elsewhere."""
    _validate_type(stc, SourceEstimate, name)
    data = np.zeros((sum(s["nuse"] for s in src), stc.data.shape[1]))
    data[find_rows(stc.vertices, [s["vertno"] for s in src], name)] = stc.data
    return data

"""Patches of several sizes all over the cortex: what a single source may be."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from typing import NamedTuple

import numpy as np
from scipy import sparse

# m, and around how many vertices at most
_SIZES = {0: 10000, 6e-3: 10000, 12e-3: 5000, 18e-3: 2500, 25e-3: 1700, 32e-3: 1250}
_STRAIGHT = 0.9  # of the edges' length: how far along a mesh one comes with each edge
_HOPS = (0, 1, 2)  # sizes of patches of parcels
_RIDGE = 0.1  # of the mean square of the patterns, which nearly coincide
_SMALL = 0.02  # coefficients that are left out, over the largest of a patch


class Patches(NamedTuple):
    """Patches of uniform activity.

    Attributes
    ----------
    gain : array of shape (n_patches, n_channels)
        Gain of each.
    coefficients : csr_array of shape (n_patches, n_patterns)
        The patterns that make up each.
    probability : array of shape (n_patches,)
        How likely each is before there are data. All sizes are as likely.
    """

    gain: np.ndarray
    coefficients: sparse.csr_array
    probability: np.ndarray


def vertex_patches(graph, parcel):
    """List patches of vertices.

    Parameters
    ----------
    graph : csr_array of shape (n_vertices, n_vertices)
        Lengths of the mesh's edges (m).
    parcel : array of int, shape (n_vertices,)
        The parcel of each vertex; -1 belongs to no patch.

    Returns
    -------
    members : csr_array of shape (n_patches, n_vertices)
        1 for each vertex of a patch.
    probability : array of shape (n_patches,)
        See :class:`Patches`.
    """
    inside = np.flatnonzero(parcel >= 0)
    inside = inside[np.argsort(parcel[inside], kind="stable")]
    lengths = graph.data[graph.data > 0]
    step = _STRAIGHT * lengths.mean() if lengths.size else np.inf
    sizes = {}
    for radius, n_most in _SIZES.items():
        sizes.setdefault(round(radius / step), n_most)
    seeds = [inside[:: -(-len(inside) // n_most)] for n_most in sizes.values()]
    members, probability = _spread(graph, seeds, sizes)
    members.data[parcel[members.indices] < 0] = 0
    members.eliminate_zeros()
    return members, probability


def parcel_patches(adjacency, gain):
    """Return patches of whole parcels.

    Parameters
    ----------
    adjacency : sparse array of shape (n_parcels, n_parcels)
        Nonzero where two parcels share a border.
    gain : array of shape (n_channels, n_parcels)
        Leadfield.

    Returns
    -------
    patches : Patches
        Each parcel with its neighbours, and theirs. The patterns are the parcels.
    """
    seeds = [np.arange(gain.shape[1])] * len(_HOPS)
    members, probability = _spread(adjacency, seeds, _HOPS)
    return Patches(members @ gain.T, members, probability)


def _spread(graph, seeds, n_hops):
    """List what lies within some hops of seeds, for each number of hops."""
    edges = sparse.csr_array(graph) > 0
    step = (edges + sparse.eye_array(edges.shape[0])).astype(np.float32).tocsr()
    members = []
    for some, n in zip(seeds, n_hops, strict=True):
        rows = np.ones(len(some), np.float32), (np.arange(len(some)), some)
        patches = sparse.csr_array(rows, shape=(len(some), step.shape[0]))
        for _ in range(n):
            patches = patches @ step
            patches.data[:] = 1
        members.append(patches)
    probability = np.concatenate([np.full(len(s), 1 / len(s)) for s in seeds])
    return sparse.vstack(members, format="csr"), probability / len(seeds)


def in_patterns(members, patterns, owner, borders):
    """Express patches in patterns: those that come closest on the vertices.

    A pattern overlaps with those of parcels up to two borders away. What is further is
    left out of the normal equations, which makes their inverse sparse.

    Parameters
    ----------
    members : csr_array of shape (n_patches, n_vertices)
        The vertices of each patch.
    patterns : csr_array of shape (n_vertices, n_patterns)
        Activity of the vertices for each pattern.
    owner : array of int, shape (n_patterns,)
        The parcel of each pattern.
    borders : sparse array of shape (n_parcels, n_parcels)
        Nonzero where two parcels share a border.

    Returns
    -------
    coefficients : csr_array of shape (n_patches, n_patterns)
        Coefficients; small ones are left out.
    """
    patterns = patterns.astype(np.float32)
    gram = (patterns.T @ patterns).toarray()
    size = np.sqrt(np.maximum(gram.diagonal(), 1e-30))
    gram /= size
    gram /= size[:, np.newaxis]
    near = (sparse.csr_array(borders) + sparse.eye_array(borders.shape[0])).tocsr()
    near = (near @ near).tocsr()
    of_parcel = [np.flatnonzero(owner == parcel) for parcel in range(near.shape[0])]
    rows, columns, values = [], [], []
    for parcel, own in enumerate(of_parcel):
        parcels = near.indices[near.indptr[parcel] : near.indptr[parcel + 1]]
        around = np.concatenate([own, *(of_parcel[p] for p in parcels if p != parcel)])
        part = gram[np.ix_(around, around)] + _RIDGE * np.eye(len(around))
        inverse = np.linalg.solve(part, np.eye(len(around))[:, : len(own)])
        rows.append(np.repeat(around, len(own)))
        columns.append(np.tile(own, len(around)))
        values.append((inverse / size[around, np.newaxis] / size[own]).ravel())
    inverse = sparse.csr_array(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))),
        shape=gram.shape,
    )
    inverse = inverse.astype(np.float32)
    coefficients = ((members @ patterns) @ inverse).tocsr()
    largest = abs(coefficients).max(axis=1).toarray()
    least = _SMALL * np.repeat(largest, np.diff(coefficients.indptr))
    coefficients.data[np.abs(coefficients.data) < least] = 0
    coefficients.eliminate_zeros()
    return coefficients

"""Patches of several sizes all over the cortex: what a source may be."""

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
_AT_ONCE = 1024  # patches, whose coefficients stay in the processor's cache


class Patches(NamedTuple):
    """Patches of uniform activity.

    Attributes
    ----------
    gain : array of shape (n_patches, n_channels)
        Gain of each.
    coefficients : csr_array of shape (n_patches, n_patterns)
        The patterns that make up each.
    n_members : array of int, shape (n_patches,)
        How many vertices each has, or parcels.
    n_of_size : tuple of int
        How many patches there are of each size, one size after the other.
    """

    gain: np.ndarray
    coefficients: sparse.csr_array
    n_members: np.ndarray
    n_of_size: tuple


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
    n_of_size : tuple of int
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
    members = _spread(graph, seeds, sizes)
    members.data[parcel[members.indices] < 0] = 0
    members.eliminate_zeros()
    return members, tuple(len(some) for some in seeds)


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
    members = _spread(adjacency, seeds, _HOPS)
    n_of_size = tuple(len(some) for some in seeds)
    return Patches(members @ gain.T, members, np.diff(members.indptr), n_of_size)


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
    return sparse.vstack(members, format="csr")


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
    # side by side, those of a parcel make dense blocks of the matrices
    order = np.argsort(owner, kind="stable")
    owner, n_each = owner[order], np.bincount(owner).max()
    place = n_each * owner + np.arange(len(owner)) - np.searchsorted(owner, owner)
    shape = len(owner), n_each * borders.shape[0]
    to_place = np.ones(len(owner), np.float32), (order, place)
    patterns = patterns.astype(np.float32) @ sparse.csr_array(to_place, shape=shape)
    inverse = _local_inverse(patterns, borders, n_each)
    coefficients = []
    for first in range(0, members.shape[0], _AT_ONCE):
        blocks = (members[first : first + _AT_ONCE] @ patterns).tobsr((1, n_each))
        coefficients.append(_large(blocks @ inverse))
    coefficients = sparse.vstack(coefficients, format="csr")
    at_place = np.zeros(shape[1], int)
    at_place[place] = order
    entries = coefficients.data, at_place[coefficients.indices], coefficients.indptr
    return sparse.csr_array(entries, shape=(members.shape[0], len(owner)))


def _local_inverse(patterns, borders, n_each):
    """Invert the normal equations of patterns, of which each parcel has n_each.

    Return a bsr_array of shape (n_patterns, n_patterns).
    """
    gram = (patterns.T @ patterns).toarray()
    size = np.sqrt(np.maximum(gram.diagonal(), 1e-30))
    gram /= size
    gram /= size[:, np.newaxis]
    near = (sparse.csr_array(borders) + sparse.eye_array(borders.shape[0])).tocsr()
    near = (near @ near).tocsr()
    places = np.arange(len(gram)).reshape(-1, n_each)
    inverse = []
    parcels_of = np.split(near.indices, near.indptr[1:-1])
    for own, parcels in zip(places, parcels_of, strict=True):
        around = places[parcels].ravel()
        part = gram[np.ix_(around, around)] + _RIDGE * np.eye(len(around))
        columns = np.linalg.solve(part, 1.0 * (around[:, np.newaxis] == own))
        columns /= size[around, np.newaxis] * size[own]
        inverse.append(columns.reshape(-1, n_each, n_each).swapaxes(1, 2))
    inverse = np.concatenate(inverse).astype(np.float32)
    return sparse.bsr_array((inverse, near.indices, near.indptr)).T


def _large(blocks):
    """Leave out what is small within a row of a bsr_array: return a csr_array."""
    blocks = blocks.tocsr()
    size = np.abs(blocks.data)
    row = np.repeat(np.arange(blocks.shape[0]), np.diff(blocks.indptr))
    largest = np.zeros(blocks.shape[0], size.dtype)
    np.maximum.at(largest, row, size)
    blocks.data[size < _SMALL * largest[row]] = 0
    blocks.eliminate_zeros()
    return blocks

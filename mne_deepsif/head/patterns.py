"""Patterns of activity within the parcels, from the gains of single vertices."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import sparse

from .patches import Patches, in_patterns, vertex_patches

_SPREAD = 30e-6  # m²: mean square distance of the smoothing along the surface
_N_EACH = 3  # fine patterns of a parcel; they hold 99 % of its gain's power
_N_POINTS = 10  # vertices of a parcel at most, around which a scan looks for sources
# How often activity around a point is smoothed, for each size of source: not at all,
# once, to some 5 mm, or to some 10 mm.
SCALES = (0, 1, 4)


class PatternGain(NamedTuple):
    """Gain of patterns, in the unit of the leadfield that they come with.

    Attributes
    ----------
    fine : array of shape (n_channels, n_fine)
        Gain of the fine patterns.
    uniform : array of shape (n_channels, n_parcels)
        Gain of uniform activity of each parcel.
    parcel : array of int, shape (n_fine,)
        The parcel of each fine pattern.
    points : array of shape (n_scales, n_points, n_channels)
        Gain of sources around some vertices, of growing size.
    owner : array of int, shape (n_points,)
        The parcel of each point.
    patches : Patches
        What a source may be.
    """

    fine: np.ndarray
    uniform: np.ndarray
    parcel: np.ndarray
    points: np.ndarray
    owner: np.ndarray
    patches: Patches


@dataclass(frozen=True)
class Patterns:
    """Patterns of activity, of which an estimate is a sum.

    Parameters
    ----------
    activity : csr_array of shape (n_vertices, n_fine + n_parcels)
        Dipole moments of the vertices (A m), for an activity of 1 A/m: first of the
        fine patterns, then of uniform activity of each parcel.
    gain : array of shape (n_channels, n_fine + n_parcels)
        Their gain after projectors, V or T (T/m) per A/m.
    parcel : array of int, shape (n_fine,)
        The parcel of each fine pattern.
    points : array of shape (n_scales, n_points, n_channels)
        Gain of sources around some vertices, of growing size, after projectors.
    owner : array of int, shape (n_points,)
        The parcel of each point.
    patches : Patches
        What a source may be. Its gain is one after projectors.
    """

    activity: sparse.csr_array
    gain: np.ndarray
    parcel: np.ndarray
    points: np.ndarray
    owner: np.ndarray
    patches: Patches

    def gain_of(self, matrix):
        """Return the gain after a linear operation on the channels.

        Parameters
        ----------
        matrix : array of shape (n_rows, n_channels)
            The operation, e.g. a whitener.

        Returns
        -------
        gain : PatternGain
            The gain of the rows.
        """
        fine, uniform = np.split(matrix @ self.gain, [len(self.parcel)], axis=1)
        points = self.points @ matrix.T
        patches = self.patches._replace(gain=self.patches.gain @ matrix.T)
        return PatternGain(fine, uniform, self.parcel, points, self.owner, patches)

    def to_parcels(self, leadfield):
        """Return the matrix from coefficients to the mean activity of the parcels.

        Parameters
        ----------
        leadfield : Leadfield
            The leadfield that the patterns were made for.

        Returns
        -------
        matrix : csr_array of shape (n_parcels, n_fine + n_parcels)
            The mean over the vertices of each parcel (A/m).
        """
        moments = leadfield.vertex_area.T @ self.activity
        squares = leadfield.vertex_area.power(2).sum(axis=0)
        return (sparse.diags_array(1 / np.maximum(squares, 1e-30)) @ moments).tocsr()


def make_patterns(leadfield):
    """Find the patterns within each parcel that the sensors see best.

    Activity is smooth along the surface: it is white noise, averaged over some 5 mm.
    Of each parcel, the patterns are the leading right singular vectors of its whitened
    gain.

    Parameters
    ----------
    leadfield : Leadfield
        Leadfield with the gains of the vertices.

    Returns
    -------
    patterns : Patterns
        Up to three fine patterns for each parcel, and uniform activity of each.
    """
    parcel = np.concatenate(leadfield.parcel_of_vertex)
    n_parcels = leadfield.gain.shape[1]
    smooth = make_smoother(leadfield.surface_graph)
    area = np.asarray(leadfield.vertex_area.sum(axis=1)).ravel()
    scales = smooth_gains((leadfield.vertex_gain * area).T, smooth)
    gain = scales[1] @ leadfield.whitener.T  # (n_vertices, rank)
    order = np.argsort(parcel, kind="stable")
    bounds = np.searchsorted(parcel[order], np.arange(n_parcels + 1))
    rows, columns, values, owner, points = [], [], [], [], []
    for index in range(n_parcels):
        members = order[bounds[index] : bounds[index + 1]]
        vectors = _leading_vectors(gain[members])
        n_found = vectors.shape[1]
        rows.append(np.repeat(members, n_found))
        columns.append(np.tile(len(owner) + np.arange(n_found), len(members)))
        values.append(vectors.ravel())
        owner += [index] * n_found
        points.append(members[:: max(1, -(-len(members) // _N_POINTS))])
    inside = np.flatnonzero(parcel >= 0)
    rows.append(inside)
    columns.append(len(owner) + parcel[inside])
    values.append(np.ones(len(inside)))
    entries = np.concatenate(rows), np.concatenate(columns)
    shape = (len(parcel), len(owner) + n_parcels)
    density = sparse.csr_array((np.concatenate(values), entries), shape=shape)
    density = smooth(density).tocsr()
    activity = (sparse.diags_array(area) @ density).tocsr()
    points = np.concatenate(points)
    members, n_of_size = vertex_patches(leadfield.surface_graph, parcel)
    patches = Patches(
        members @ scales[0],
        in_patterns(
            members,
            density,
            np.concatenate([owner, np.arange(n_parcels)]),
            leadfield.vertex_area.T @ leadfield.surface_graph @ leadfield.vertex_area,
        ),
        np.diff(members.indptr),
        n_of_size,
    )
    return Patterns(
        activity,
        leadfield.vertex_gain @ activity,
        np.array(owner, int),
        np.stack([gain[points] for gain in scales]),
        parcel[points],
        patches,
    )


def smooth_gains(gain, smooth):
    """Return gains of sources of growing size, one for each of ``SCALES``.

    Parameters
    ----------
    gain : array of shape (n_vertices, n_channels)
        Gain of the vertices.
    smooth : callable
        What :func:`make_smoother` returned.

    Returns
    -------
    gains : list of array of shape (n_vertices, n_channels)
        The gains.
    """
    gains, n_done = [], 0
    for n_times in SCALES:
        for _ in range(n_times - n_done):
            gain = smooth(gain, transpose=True)
        gains.append(gain)
        n_done = n_times
    return gains


def _leading_vectors(gain):
    """Return the leading left singular vectors of (n_members, rank), by columns."""
    if not len(gain):
        return np.zeros((0, 0))
    if len(gain) > gain.shape[1]:
        return np.linalg.svd(gain, full_matrices=False)[0][:, :_N_EACH]
    return np.linalg.eigh(gain @ gain.T)[1][:, ::-1][:, :_N_EACH]


def smoothing_steps(graph):
    """Return the steps of :func:`make_smoother` on a mesh.

    Each step halves the distance to the mean of the neighbours. On a mesh with edges of
    length d, it carries activity over a mean square distance of d² / 2.
    """
    lengths = graph.data[graph.data > 0]
    if not lengths.size:
        return 0
    return max(1, round(2 * _SPREAD / np.mean(np.square(lengths))))


def make_smoother(graph):
    """Return a function that averages along the surface, over some 5 mm."""
    n_steps = smoothing_steps(graph)
    borders = (graph > 0).astype(float)
    degree = np.asarray(borders.sum(axis=1)).ravel()
    borders = sparse.diags_array(1 / np.maximum(degree, 1)) @ borders
    step = 0.5 * (sparse.eye_array(len(degree)) + borders)
    alone = sparse.diags_array(0.5 * (degree == 0))
    step = (step + alone).tocsr()

    def smooth(values, transpose=False):
        matrix = step.T.tocsr() if transpose else step
        for _ in range(n_steps):
            values = matrix @ values
        return values

    return smooth

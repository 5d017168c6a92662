"""Affine match of one pair of cortical surfaces with another. Arrays only."""

# License: BSD-3-Clause

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

# Normals count as 5 mm per unit: they keep the two banks of a sulcus apart
_NORMAL_WEIGHT = 0.005
# Head and MRI coordinates differ by a pitch of up to 40 degrees
_PITCHES = (-40, -20, 0, 20, 40)
_N_POINTS = 2000


def match_vertices(fro, to):
    """Find the vertex of other surfaces that is nearest after an affine match.

    Parameters
    ----------
    fro, to : list of tuple (rr, nn)
        Left and right surface: vertices in m and unit normals, each an array of shape
        (n_vertices, 3); x to the right and z up, roughly.

    Returns
    -------
    numbers : list of array of shape (n_vertices,)
        For each vertex of ``fro`` one of ``to``.
    """
    trees = [cKDTree(_features(*surf)) for surf in to]
    few = [[x[:: max(1, len(x) // _N_POINTS)] for x in surf] for surf in fro]
    middle = [
        np.mean([rr.mean(axis=0) for rr, _ in surfs], axis=0) for surfs in (few, to)
    ]
    best = np.inf
    for pitch in _PITCHES:
        start = _turn(pitch, *middle)
        trial, error = _iterate(few, to, trees, start)
        if error < best:
            affine, best = trial, error
    affine, _ = _iterate(fro, to, trees, affine, n_iter=10)
    return [tree.query(_features(*_move(*s, affine)))[1] for s, tree in zip(fro, trees)]


def _features(rr, nn):
    return np.hstack([rr, _NORMAL_WEIGHT * nn])  # (n_vertices, 6)


def _turn(pitch, middle, goal):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("x", pitch, degrees=True).as_matrix()
    affine[:3, 3] = goal - affine[:3, :3] @ middle
    return affine


def _move(rr, nn, affine):
    nn = nn @ np.linalg.inv(affine[:3, :3])  # normals turn by the inverse transpose
    nn = nn / np.linalg.norm(nn, axis=1, keepdims=True)
    return rr @ affine[:3, :3].T + affine[:3, 3], nn


def _iterate(fro, to, trees, affine, n_iter=25):
    """Iterate closest points; return the affine and the mean squared distance."""
    points = np.vstack([rr for rr, _ in fro])
    points = np.hstack([points, np.ones((len(points), 1))])
    for _ in range(n_iter):
        found = [t.query(_features(*_move(*s, affine))) for s, t in zip(fro, trees)]
        goal = np.vstack([rr[number] for (rr, _), (_, number) in zip(to, found)])
        # pairs that are far apart are wrong: Cauchy weights
        distance = np.concatenate([distance for distance, _ in found])
        weight = 1 / (1 + (distance / np.median(distance)) ** 2)
        root = np.sqrt(weight)[:, np.newaxis]
        solution = np.linalg.lstsq(root * points, root * goal, rcond=None)[0]
        affine = np.vstack([solution.T, [0, 0, 0, 1]])
    return affine, np.mean(distance**2)

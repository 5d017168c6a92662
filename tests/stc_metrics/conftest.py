"""Source spaces whose vertices one can count."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
import pytest


def _grid(offset, n=5, vertno=None):
    """Make one hemisphere: a flat grid of n x n vertices, 10 mm apart."""
    rows, cols = np.divmod(np.arange(n * n), n)
    rr = 0.01 * np.column_stack([cols + offset, rows, np.zeros(n * n)])
    corner = np.flatnonzero((rows < n - 1) & (cols < n - 1))
    lower = np.column_stack([corner, corner + 1, corner + n])
    upper = np.column_stack([corner + 1, corner + n + 1, corner + n])
    vertno = np.arange(n * n) if vertno is None else vertno
    tris = np.concatenate([lower, upper])
    return dict(rr=rr, tris=tris, np=n * n, vertno=vertno, nuse=len(vertno))


def _stc(lh, rh=(), n_times=4):
    """Make an estimate that is 1, 2, ... at some vertices and has no others."""
    data = np.outer(np.ones(len(lh) + len(rh)), np.arange(1.0, n_times + 1))
    vertices = [np.array(lh, int), np.array(rh, int)]
    return mne.SourceEstimate(data, vertices, 0, 1e-3, "grid")


@pytest.fixture
def make_grid():
    return _grid


@pytest.fixture
def make_stc():
    return _stc


@pytest.fixture
def src():
    """Two grids, 100 mm apart."""
    return [_grid(0), _grid(10)]


@pytest.fixture
def folded():
    """Fold a sheet: walls of 20 x 20 mm, 2 mm apart, that join at the bottom.

    On the first wall a few vertices are used, on the second one all of them; so are all
    along the bottom, so that no way around it is the shortest.
    """
    n = 6  # vertices along each side of a wall, 4 mm apart
    z = np.r_[np.arange(n)[::-1], np.arange(n)]  # down the one wall, up the other
    profile = np.column_stack([0.002 * (np.arange(2 * n) >= n), 0.004 * z])
    rr = np.array([[x, 0.004 * y, z] for x, z in profile for y in range(n)])
    rows, cols = np.divmod(np.arange(len(rr)), n)
    corner = np.flatnonzero((rows < 2 * n - 1) & (cols < n - 1))
    lower = np.column_stack([corner, corner + 1, corner + n])
    upper = np.column_stack([corner + 1, corner + n + 1, corner + n])
    few = (rows % 3 == 1) & (cols % 3 == 1)
    vertno = np.flatnonzero((rows >= n - 1) | few)
    return dict(
        rr=rr,
        tris=np.concatenate([lower, upper]),
        np=len(rr),
        vertno=vertno,
        nuse=len(vertno),
    )

"""Tests of the patches that a source may be."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from mne_deepsif.head import patches as module
from mne_deepsif.head.patches import in_patterns, parcel_patches, vertex_patches

SPACING = 3e-3


def make_strip(n_vertices, spacing=SPACING):
    """Join each vertex of a chain with the next."""
    edges = np.full(n_vertices - 1, spacing)
    return sparse.diags_array([edges, edges], offsets=[-1, 1], format="csr")


def test_sizes():
    """Patches reach as far as they should, to either side, and no further."""
    parcel = np.zeros(200, int)
    members, n_of_size = vertex_patches(make_strip(200), parcel)
    sizes, counts = np.unique(members[:].sum(axis=1), return_counts=True)
    radii = np.array([0, 6, 12, 18, 25, 32])
    expected = 1 + 2 * np.round(radii / (module._STRAIGHT * 1e3 * SPACING))
    assert {*expected} <= {*sizes}  # others are at the ends of the strip
    assert counts[np.isin(sizes, expected)].min() > 150
    assert_array_equal(np.unique(members.data), [1.0])
    assert n_of_size == (200,) * 6
    for row in (500, 1100):
        assert np.ptp(members[[row]].indices) == members[[row]].nnz - 1


def test_number(monkeypatch):
    """Large patches are fewer."""
    sizes = {0: 30, 6e-3: 30, 12e-3: 10}
    monkeypatch.setattr(module, "_SIZES", sizes)
    members, n_of_size = vertex_patches(make_strip(60), np.zeros(60, int))
    assert members.shape == (70, 60)
    assert n_of_size == (30, 30, 10)


def test_outside():
    """No patch has vertices without a parcel."""
    parcel = np.repeat([0, -1, 1], 20)
    members, _ = vertex_patches(make_strip(60), parcel)
    inside = members.sum(axis=0) > 0
    assert_array_equal(inside, parcel >= 0)


@pytest.mark.parametrize("spacing", [20e-3, 0.0])
def test_coarse_meshes(spacing):
    """A coarse mesh has fewer sizes; points without a mesh have one."""
    graph = make_strip(30, spacing)
    members, n_of_size = vertex_patches(graph, np.arange(30))
    sizes = {*members.sum(axis=1)}
    if spacing == 0:
        assert sizes == {1}
    else:  # others are at the ends of the strip
        assert {1, 3, 5} < sizes and max(sizes) == 5
    assert sum(n_of_size) == members.shape[0]


def test_parcels():
    gain = np.random.default_rng(0).standard_normal((4, 9))
    patches = parcel_patches(make_strip(9), gain)
    assert patches.coefficients.shape == (27, 9)
    assert_array_equal(patches.coefficients[[13]].toarray()[0], np.arange(9) // 3 == 1)
    assert_allclose(patches.gain, patches.coefficients @ gain.T)
    assert patches.n_of_size == (9, 9, 9)
    assert_array_equal(patches.n_members[[4, 9, 13, 22]], [1, 2, 3, 5])


@pytest.fixture(scope="module")
def chain():
    """Smooth patterns of parcels in a row, one with fewer: owners and borders."""
    rng = np.random.default_rng(1)
    parcel = np.repeat(np.arange(10), 8)
    owner = np.concatenate([np.repeat(np.arange(10), 2), np.arange(10)])
    patterns = rng.standard_normal((80, 30))
    patterns[:, 20:] = 1
    patterns[parcel[:, np.newaxis] != owner] = 0
    blur = sum(np.eye(80, k=k) for k in (-1, 0, 1)) / 3
    patterns, owner = np.delete(blur @ patterns, 7, axis=1), np.delete(owner, 7)
    return sparse.csr_array(patterns), owner, make_strip(10)


def test_closest_patterns(chain, monkeypatch):
    """They come as close as all patterns together can, with some ridge."""
    monkeypatch.setattr(module, "_SMALL", 0.0)
    patterns, owner, borders = chain
    members = np.zeros((4, 80))
    members[0, 30:33] = members[1, 16:40] = members[2, 5:70] = members[3, 0] = 1
    out = in_patterns(sparse.csr_array(members), patterns, owner, borders).toarray()
    dense = patterns.toarray()
    size = np.linalg.norm(dense, axis=0)
    unit = dense / size
    gram = unit.T @ unit + module._RIDGE * np.eye(29)
    expected = np.linalg.solve(gram, unit.T @ members.T).T / size
    assert_allclose(out, expected, atol=0.02 * np.abs(expected).max())
    within = out[1] @ dense.T
    assert within[18:38].min() > 0.6 and np.abs(within[:13]).max() < 0.15


def test_small_coefficients_are_left_out(chain, monkeypatch):
    members = np.zeros((2, 80))
    members[0, 30:33] = 1e-3
    members[1, 10:50] = 1e3
    given = sparse.csr_array(members), *chain
    out = in_patterns(*given).toarray()
    monkeypatch.setattr(module, "_SMALL", 0.0)
    expected = in_patterns(*given).toarray()
    largest = np.abs(expected).max(axis=1, keepdims=True)
    kept = np.abs(expected) >= 0.02 * largest
    assert 0 < kept.sum() < np.count_nonzero(expected)
    assert_allclose(out, np.where(kept, expected, 0))

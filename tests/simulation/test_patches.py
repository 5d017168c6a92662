"""Extents of patches; how they grow is tested in test_simulation.py."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from mne_deepsif import make_template_parcels
from mne_deepsif.patches import make_patches, patch_areas


def test_patch_areas_by_hand():
    patches = np.array([[2, 0, -1], [1, -1, -1], [0, 1, 2]])
    assert_allclose(patch_areas(patches, [1e-4, 2e-4, 5e-4]), [6e-4, 2e-4, 8e-4])
    assert_allclose(patch_areas([0, 2], [1e-4, 2e-4, 5e-4]), [6e-4])


def test_extents_on_the_template():
    """In cm²: the median that doc/simulation.rst states."""
    parcels = make_template_parcels()
    seeds = np.arange(0, parcels.n_parcels, 2)
    patches, _ = make_patches(seeds, parcels.adjacency, parcels.centers, 0)
    areas = 1e4 * patch_areas(patches, parcels.areas)
    assert 18 < np.median(areas) < 22
    assert areas.min() > 1 and areas.max() < 60


def test_patches_stay_the_same():
    """Pinned: other patches would change training, and its figures."""
    steps = np.abs(np.subtract.outer(np.arange(60), np.arange(60))) % 57
    adjacency = sparse.csr_array((steps <= 3) & ~np.eye(60, dtype=bool))
    angle = np.arange(60) * 2 * np.pi / 60
    centers = 0.05 * np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1)
    patches, decay = make_patches(np.arange(0, 60, 6), adjacency, centers, 3)
    assert_array_equal(patches[1], [6, 3, 4, 5, 7, 8, 9, 10, 11, *[-1] * 7])
    sizes = (patches >= 0).sum(1)
    assert_array_equal(sizes, [16, 9, 10, 14, 10, 10, 10, 14, 15, 12])
    assert_allclose(decay.sum(), 105.67859, rtol=1e-6)

"""Patches: how they grow on the template, and their extents."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from mne_deepsif import make_template_parcels
from mne_deepsif.patches import make_patches, patch_areas
from mne_deepsif.simulation.patches import _keep

# --------------------------------------------------------------- growth


@pytest.fixture(scope="module")
def grown(parcels):
    """Three patches around each of 200 parcels: masks, seeds, and the raw output."""
    seeds = np.tile(np.arange(parcels.n_parcels), 3)
    patches, decay = make_patches(seeds, parcels.adjacency, parcels.centers, 0)
    masks = np.zeros((len(seeds), parcels.n_parcels), bool)
    for mask, patch in zip(masks, patches):
        mask[patch[patch >= 0]] = True
    return masks, seeds, patches, decay


def test_patches_are_contiguous(parcels, grown):
    for mask in grown[0]:
        inside = parcels.adjacency[mask][:, mask]
        n_pieces, _ = sparse.csgraph.connected_components(inside, directed=False)
        assert n_pieces == 1


def test_patches_list_each_parcel_once_and_the_seed_first(grown):
    masks, seeds, patches, decay = grown
    assert_array_equal(patches[:, 0], seeds)
    filled = patches >= 0
    assert_array_equal(filled.sum(1), masks.sum(1))  # no parcel twice
    assert not (np.diff(filled.astype(int), axis=1) > 0).any()  # padding comes last
    assert not decay[~filled].any()


def test_patches_hold_the_neighbours_of_the_seed(parcels, grown):
    """All of them, but for those that hang on the seed alone; few loose ends."""
    adjacency = parcels.adjacency.toarray()
    n_loose = 0
    for mask, seed in zip(grown[0], grown[1]):
        n_links = adjacency[mask].sum(0)
        assert mask[adjacency[seed] & (n_links > 1)].all()
        n_loose += (n_links[mask] < 2).sum()
    # ends are cut once: what hung on them may be the next end
    assert n_loose < 0.01 * grown[0].sum()


def test_patches_reach_two_or_three_layers(parcels, grown):
    """Half of the patches may grow into the third layer, hardly any beyond."""
    steps = sparse.csgraph.shortest_path(parcels.adjacency, unweighted=True)
    reach = np.array([steps[seed, mask].max() for mask, seed in zip(*grown[:2])])
    assert 0.4 < np.mean(reach > 2) < 0.55
    assert np.mean(reach > 3) < 0.02


def test_patch_sizes_are_those_of_the_papers(grown):
    """Median 18 parcels, 4 to 43 (papers, 994 parcels with 6 neighbours each)."""
    sizes = grown[0].sum(1)
    assert 14 <= np.median(sizes) <= 20
    assert sizes.min() >= 3 and sizes.max() <= 45
    assert np.ptp(np.percentile(sizes, (5, 95))) >= 10


def test_patches_have_no_holes(parcels, grown):
    """No parcel outside has all of its neighbours inside."""
    degree = parcels.adjacency.sum(1)
    touching = grown[0].astype(int) @ parcels.adjacency
    assert not ((touching == degree) & ~grown[0]).any()


def test_decay_is_gaussian_with_half_amplitude_at_40_to_60_mm(parcels, grown):
    _, seeds, patches, decay = grown
    assert_allclose(decay[:, 0], 1)
    half = []
    for patch, values, seed in zip(patches, decay.astype(float), seeds):
        others = patch[1:][patch[1:] >= 0]
        offsets = parcels.centers[others] - parcels.centers[seed]
        square = np.sum(offsets**2, axis=1)
        widths = np.sqrt(-square / 2 / np.log(values[1 : len(others) + 1]))
        assert_allclose(widths, widths[0], rtol=1e-3)
        half.append(widths[0] * np.sqrt(2 * np.log(2)))
    assert 0.0399 < min(half) < 0.041 and 0.059 < max(half) < 0.0601
    assert_allclose(np.mean(half), 0.05, atol=0.001)


def test_growth_prefers_a_direction():
    """Kept at a rate of the stretched cosine plus the bias, in [0, 1]."""
    rng = np.random.default_rng(0)
    cosine = np.tile([0.2, 0.4, 0.6, 0.9], (20_000, 1))
    candidates = np.tile([True, True, True, False], (20_000, 1))
    for bias in (0.0, 0.1, -0.15):
        kept = _keep(cosine, candidates, np.full(20_000, bias), rng)
        expected = np.clip(np.array([0, 0.5, 1]) + bias, 0, 1)
        assert_allclose(kept[:, :3].mean(0), expected, atol=0.015)


def test_patches_are_deterministic(parcels):
    args = np.arange(50), parcels.adjacency, parcels.centers
    first, again, other = (make_patches(*args, seed) for seed in (3, 3, 4))
    for one, two in zip(first, again):
        assert_array_equal(one, two)
    assert first[0].shape != other[0].shape or (first[0] != other[0]).any()


def test_a_parcel_without_neighbours_is_a_patch_of_its_own():
    adjacency = sparse.csr_array((3, 3), dtype=bool)
    patches, decay = make_patches([2, 0], adjacency, np.eye(3), 0)
    assert_array_equal(patches, [[2], [0]])
    assert_array_equal(decay, [[1], [1]])


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


# --------------------------------------------------------------- extents


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

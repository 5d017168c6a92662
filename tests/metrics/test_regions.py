"""Sublobar regions and their scores, worked out by hand."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from mne_deepsif import metrics

# ten parcels: three regions of three parcels, and one parcel outside
REGIONS = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, -1])


def test_regions_divide_the_atlas():
    """Ten regions hold each of the 34 labels once."""
    members = [name for region in metrics.SUBLOBAR_REGIONS.values() for name in region]
    assert len(metrics.SUBLOBAR_REGIONS) == 10
    assert len(members) == len(set(members)) == 34


def test_regions_of_names():
    names = ["lateralorbitofrontal-lh", "lingual-lh", "insula-rh", "unknown-lh"]
    assert_array_equal(metrics.sublobar_regions(names), [0, 9, 16, -1])
    with pytest.raises(ValueError, match=r"names of aparc .*, got \['insula'\]"):
        metrics.sublobar_regions(["insula-rh", "insula"])


def test_concordance_by_hand():
    """The peak is parcel 4 of region 1, whatever the other true region is."""
    sources = np.zeros((10, 2))
    sources[[4, 8], [0, 1]] = -2, 1
    assert metrics.sublobar_concordance([3, 8], sources, REGIONS) == 1
    assert metrics.sublobar_concordance([0, 8], sources, REGIONS) == 0
    sources[9] = 3  # outside of all regions
    assert metrics.sublobar_concordance([3, 9], sources, REGIONS) == 0


def test_sensitivity_and_specificity_by_hand():
    """True in regions 0 and 1; active in 1, and in the parcel outside."""
    true, estimated = [0, 1, 5], [3, 9]
    assert metrics.sublobar_sensitivity(true, estimated, REGIONS) == 1 / 2
    assert metrics.sublobar_specificity(true, estimated, REGIONS) == 1
    # true in region 0; active in 0 and 2: one of two others is silent
    assert metrics.sublobar_sensitivity([0], [1, 6], REGIONS) == 1
    assert metrics.sublobar_specificity([0], [1, 6], REGIONS) == 1 / 2


def test_nothing():
    """Nothing true has no score; nothing estimated is specific, not sensitive."""
    sources = np.eye(10)
    for true in ([], [9]):
        assert np.isnan(metrics.sublobar_concordance(true, sources, REGIONS))
        assert np.isnan(metrics.sublobar_sensitivity(true, [1], REGIONS))
        assert np.isnan(metrics.sublobar_specificity(true, [1], REGIONS))
    assert np.isnan(metrics.sublobar_concordance([1], np.ones((10, 2)), REGIONS))
    assert np.isnan(metrics.sublobar_specificity([0, 3, 6], [1], REGIONS))
    assert metrics.sublobar_sensitivity([0], [], REGIONS) == 0
    assert metrics.sublobar_specificity([0], [], REGIONS) == 1

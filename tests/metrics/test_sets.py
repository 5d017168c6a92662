"""Masks, indices, and the strength of parcels."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from mne_deepsif import metrics
from mne_deepsif.metrics import sets


def test_masks_and_indices():
    assert_array_equal(sets.indices([False, True, True]), [1, 2])
    assert_array_equal(sets.indices([]), [])
    assert_array_equal(sets.mask([2], 3), [False, False, True])
    assert_array_equal(sets.mask(np.array([True, False]), 2), [True, False])


def test_strongest_parcel():
    """Largest absolute value; the first of equals; none if all are equal."""
    assert sets.strongest([[1, -3], [2, 2], [3, 0]]) == 0
    assert sets.strongest(np.ones((4, 2))) is None


def test_one_dimension_is_refused():
    """Whether it is parcels or times is not guessed."""
    with pytest.raises(ValueError, match=r"must have shape .* got shape \(3,\)"):
        metrics.roc_auc([0], np.arange(3.0))


@pytest.mark.parametrize("bad", (np.nan, np.inf))
def test_nan_is_refused(line, bad):
    """An estimate with NaN or infinity is not scored."""
    centers, _ = line
    sources = np.eye(10)
    sources[3, 4] = bad
    for score in (
        lambda: metrics.roc_auc([1], sources),
        lambda: metrics.average_precision([1], sources),
        lambda: metrics.peak_error([1], sources, centers),
        lambda: metrics.sublobar_concordance([1], sources, np.arange(10)),
        lambda: metrics.earth_movers_distance(np.eye(10), sources, centers),
        lambda: metrics.earth_movers_distance(sources, np.eye(10), centers),
    ):
        with pytest.raises(ValueError, match="sources must be finite, got NaN or inf"):
            score()
    with pytest.raises(ValueError, match="values must be finite"):
        metrics.specificity([1], sources, centers)


def test_nan_that_passes(line):
    """As documented: a dispersion of NaN, and a correlation of 0."""
    centers, _ = line
    sources = np.eye(10)
    sources[3, 4] = np.nan
    assert np.isnan(metrics.spatial_dispersion([1], sources, centers))
    assert metrics.linear_correlation(sources[3], np.arange(10.0)) == 0

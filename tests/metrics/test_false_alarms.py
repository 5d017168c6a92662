"""Specificity close to the truth and far from it, worked out by hand."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import pytest

from mne_deepsif import metrics


def test_specificity_by_hand(line):
    """Half of the close parcels wrongly active, and one of two of the far ones."""
    centers, _ = line
    sources = np.zeros((10, 1))
    sources[[0, 1, 2]] = 1.0  # truth is 0, 1; 2 is close and wrong
    sources[8] = 0.9  # the strongest far maximum, wrong; the next, 7 or 9, is inactive
    close = 1 - 1 / 3  # 2, 3, 4 lie within 30 mm of 1
    score = metrics.specificity([0, 1], sources, centers)
    assert score == pytest.approx((close + 1 / 2) / 2)
    perfect = np.zeros((10, 1))
    perfect[[0, 1]] = 1.0
    assert metrics.specificity([0, 1], perfect, centers) == 1


def test_close_and_far_by_hand(line):
    """As above: one of three close parcels is wrong, and one of two far ones."""
    centers, _ = line
    sources = np.zeros((10, 1))
    sources[[0, 1, 2]], sources[8] = 1.0, 0.9
    close, far = metrics.specificity_close_far([0, 1], sources, centers)
    assert close == pytest.approx(2 / 3)  # 2, 3, 4 lie within 30 mm of 1
    assert far == pytest.approx(1 / 2)  # two parcels as the truth: 8 and one beside it
    # within 10 mm, 2 is the only close one
    assert metrics.specificity_close_far([0, 1], sources, centers, radius=0.015) == (
        0,
        1 / 2,
    )


def test_without_close_or_far_parcels(line):
    """A missing share is NaN; the mean is then the other one."""
    centers, _ = line
    sources = np.eye(10)[:, :1]
    close, far = metrics.specificity_close_far([0], sources, centers, radius=1.0)
    assert close == 1 and np.isnan(far)
    assert metrics.specificity([0], sources, centers, radius=1.0) == 1
    everything = np.ones(10, bool)
    assert np.isnan(metrics.specificity(everything, sources, centers))


def test_nothing_true_and_nothing_active(line):
    """Without truth there is no specificity; silence is always specific."""
    centers, _ = line
    none = np.zeros(10, bool)
    assert np.isnan(metrics.specificity(none, np.eye(10), centers))
    assert np.isnan(metrics.specificity_close_far(none, np.eye(10), centers)).all()
    assert metrics.specificity([0], np.zeros((10, 1)), centers) == 1
    assert metrics.specificity([0], np.ones((10, 1)), centers) == 1  # none stands out

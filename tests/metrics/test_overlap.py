"""Shares of areas and of parcels, worked out by hand."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mne_deepsif import metrics


def test_area_scores_by_hand(line):
    """Truth 7, 8, 9 (5 cm²); estimate 6, 9 (4 cm²); overlap 9 (3 cm²)."""
    _, areas = line
    true, estimated = np.arange(10) >= 7, np.array([6, 9])
    assert metrics.precision(true, estimated, areas) == pytest.approx(3 / 4)
    assert metrics.recall(true, estimated, areas) == pytest.approx(3 / 5)
    assert metrics.f1(true, estimated, areas) == pytest.approx(2 * 3 / 9)


def test_sensitivity_counts_parcels(line):
    """Truth 7, 8, 9; estimate 6, 9: 1 of 3 parcels, but 3 of 5 cm²."""
    _, areas = line
    true, estimated = [7, 8, 9], np.isin(np.arange(10), [6, 9])
    assert metrics.sensitivity(true, estimated) == pytest.approx(1 / 3)
    assert metrics.recall(true, estimated, areas) == pytest.approx(3 / 5)
    assert metrics.sensitivity(true, []) == 0
    assert np.isnan(metrics.sensitivity([], estimated))


def test_means_by_hand():
    """Of 1/4 and 1: root of 1/4; 2/4 over 5/4."""
    assert metrics.geometric_mean(0.25, 1.0) == pytest.approx(1 / 2)
    assert metrics.harmonic_mean(0.25, 1.0) == pytest.approx(2 / 5)
    scores = [0.25, 0.0, 0.0, np.nan], [1.0, 0.5, 0.0, 1.0]
    assert_allclose(metrics.geometric_mean(*scores), [1 / 2, 0, 0, np.nan])
    assert_allclose(metrics.harmonic_mean(*scores), [2 / 5, 0, 0, np.nan])


def test_area_correlation_by_hand(line):
    """True areas 1, 2, 3 cm², estimated 3, 1, 5 cm²."""
    _, areas = line
    true = [[0], [0, 1], [9]]
    estimated = [[0, 1, 2], np.arange(10) == 4, [7, 8, 9]]
    # deviations -1, 0, 1 and 0, -2, 2: products 0 + 0 + 2, norms sqrt(2) and sqrt(8)
    expected = 2 / np.sqrt(2 * 8)
    found = metrics.area_correlation(true, estimated, areas)
    assert found == pytest.approx(expected)


def test_areas_that_do_not_vary(line):
    """One sample, no sample, or equal areas have no correlation."""
    _, areas = line
    assert np.isnan(metrics.area_correlation([[0]], [[1]], areas))
    assert np.isnan(metrics.area_correlation([], [], areas))
    assert np.isnan(metrics.area_correlation([[0], [1, 2]], [[], []], areas))


def test_empty_sets(line):
    """Nothing over nothing is 0 by area, without a warning."""
    _, areas = line
    none, some = np.zeros(10, bool), [1]
    assert metrics.precision(some, [], areas) == 0
    assert metrics.recall(none, some, areas) == 0
    assert metrics.f1(some, none, areas) == 0

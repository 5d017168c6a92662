"""Scores without a threshold, by hand and against MNE's own."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
import pytest
from mne.simulation import metrics as mne_metrics
from numpy.testing import assert_allclose, assert_array_equal

from mne_deepsif import stc_metrics


def test_waveforms_count_by_area(src, make_stc):
    """A vertex inside (1 cm²) follows its truth, the corner (1/6 cm²) is opposed."""
    true, est = make_stc([0, 6]), make_stc([0, 6])
    est.data[0] = -est.data[0]
    expected = (1 - 1 / 6) / (1 + 1 / 6)
    assert stc_metrics.linear_correlation(true, est, src) == pytest.approx(expected)


def test_other_times(src, make_stc):
    """Waveforms of other lengths cannot be correlated."""
    with pytest.raises(ValueError, match="must have the same times, got 4 and 5"):
        stc_metrics.linear_correlation(make_stc([6]), make_stc([6], n_times=5), src)


def _everywhere(values):
    """Make an estimate of one time on all vertices of the two grids."""
    return mne.SourceEstimate(values[:, None], [np.arange(25)] * 2, 0, 1e-3, "grid")


def test_correlation_by_hand(src, make_stc):
    """One of two true vertices is found, with its waveform; the other is silent."""
    true, est = make_stc([6, 7]), make_stc([7], [0])
    assert stc_metrics.linear_correlation(true, est, src) == pytest.approx(1 / 2)
    nothing = make_stc([6]) * 0
    assert np.isnan(stc_metrics.linear_correlation(nothing, true, src))


def test_auc_is_mnes(src, make_stc):
    """On all vertices, at one time."""
    true = make_stc([6, 7, 8], n_times=1)
    est = _everywhere(np.random.default_rng(0).normal(size=50))
    expected = mne_metrics.roc_auc_score(true, est)
    assert stc_metrics.roc_auc(true, est, src) == pytest.approx(expected[0])


def test_ranking_by_hand(src, make_stc):
    """Strengths 50, 49 ... 1; the first and the third are true."""
    true, est = make_stc([0, 2]), _everywhere(np.arange(50.0, 0, -1))
    # of the 2 * 48 pairs of a true vertex and another, one is lost (3rd against 2nd)
    assert stc_metrics.roc_auc(true, est, src) == pytest.approx(1 - 1 / 96)
    expected = 1 / 2 * 1 + 1 / 2 * 2 / 3
    found = stc_metrics.average_precision(true, est, src)
    assert found == pytest.approx(expected)


def test_calibration_by_hand(src, make_stc):
    """.25 at four vertices, two of which are true; the other 46 have 0."""
    true, prob = make_stc([0, 1]), make_stc([0, 1, 2, 3], n_times=1) * 0.25
    predicted, observed, counts = stc_metrics.reliability_curve(true, prob, src)
    assert_allclose(predicted, [0, 0.25])
    assert_allclose(observed, [0, 0.5])
    assert_array_equal(counts, [46, 4])
    error = stc_metrics.expected_calibration_error(true, prob, src)
    assert error == pytest.approx(4 / 50 * 0.25)


def test_one_probability_per_vertex(src, make_stc):
    with pytest.raises(ValueError, match="stc_prob must have a single time, got 4"):
        stc_metrics.reliability_curve(make_stc([0]), make_stc([0]), src)


def test_nothing_true(src, make_stc):
    nothing = make_stc([6]) * 0
    assert np.isnan(stc_metrics.roc_auc(nothing, make_stc([7]), src))
    assert np.isnan(stc_metrics.average_precision(nothing, make_stc([7]), src))
    equal = stc_metrics.roc_auc(make_stc([7]), nothing, src)
    assert equal == 1 / 2

"""Calibration, worked out by hand."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mne_deepsif import metrics


def test_by_hand():
    """Two bins: .1, .3, .2 with one true, .8, .9 with two true."""
    probabilities, true = [0.1, 0.8, 0.3, 0.9, 0.2], [1, 2, 3]
    predicted, observed, counts = metrics.reliability_curve(true, probabilities, 2)
    assert_allclose(predicted, [0.6 / 3, 1.7 / 2])
    assert_allclose(observed, [1 / 3, 1])
    assert_array_equal(counts, [3, 2])
    # 3/5 of a gap of 1/3 - 1/5 = 2/15, and 2/5 of one of 3/20
    expected = 3 / 5 * 2 / 15 + 2 / 5 * 3 / 20
    error = metrics.expected_calibration_error(true, probabilities, 2)
    assert error == pytest.approx(expected)


def test_counts_are_those_of_the_bins():
    """Counts times means give the sums, with values on the edges as well."""
    rng = np.random.default_rng(0)
    probabilities = np.r_[rng.random(200), np.arange(11) / 10]
    true = rng.random(211) < 0.2
    predicted, observed, counts = metrics.reliability_curve(true, probabilities)
    assert counts @ predicted == pytest.approx(probabilities.sum())
    assert counts @ observed == pytest.approx(true.sum())


def test_calibrated_probabilities_have_no_error():
    """A quarter of those with 1/4 is true, and all of those with 1."""
    probabilities = [0.25, 0.25, 0.25, 0.25, 1.0]
    assert metrics.expected_calibration_error([0, 4], probabilities) == 0


def test_nothing_true_and_all_equal():
    """The error is the mean probability; equal values share one bin."""
    mean = metrics.expected_calibration_error([], [0.1, 0.5, 0.9])
    assert mean == pytest.approx(0.5)
    predicted, observed, counts = metrics.reliability_curve([0], [0.5, 0.5])
    assert (predicted, observed, counts) == (0.5, 0.5, 2)
    everything = metrics.expected_calibration_error([0, 1], [0.5, 0.5])
    assert everything == pytest.approx(0.5)


@pytest.mark.parametrize("bad", ([], [0.5, np.nan], [0.5, 1.5], [-0.1]))
def test_what_is_no_probability(bad):
    with pytest.raises(ValueError, match="probabilities must lie between 0 and 1"):
        metrics.reliability_curve([], bad)

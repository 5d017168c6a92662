"""Overlap by hand on a grid, and against MNE's own."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import pytest
from mne.simulation.metrics import f1_score, precision_score, recall_score

from mne_deepsif import stc_metrics


def test_precision_on_a_folded_sheet(folded, make_stc, make_grid):
    """The truth is one wall, the estimate both: half of the area is right."""
    src = [folded, make_grid(10)]
    first = folded["rr"][folded["vertno"], 0] == 0
    true, est = make_stc(folded["vertno"][first]), make_stc(folded["vertno"])
    assert stc_metrics.precision(true, est, src) == pytest.approx(1 / 2)
    assert stc_metrics.recall(true, est, src) == pytest.approx(1)
    assert stc_metrics.recall(est, true, src) == pytest.approx(1 / 2)


def test_by_hand(src, make_stc):
    """Truth: two inner vertices, 1 cm² each; estimate: one of them, and a corner."""
    true, est = make_stc([6, 7]), make_stc([7], [0])
    # the corner vertex has one triangle of 1/2 cm², a third of which is its own
    assert stc_metrics.precision(true, est, src) == pytest.approx(1 / (1 + 1 / 6))
    assert stc_metrics.recall(true, est, src) == pytest.approx(1 / 2)
    p, r = 6 / 7, 1 / 2
    assert stc_metrics.f1(true, est, src) == pytest.approx(2 * p * r / (p + r))
    assert stc_metrics.sensitivity(true, est, src) == 1 / 2


def test_equal_areas_are_mnes_counts(src, make_stc):
    """With the threshold out of the way, inner vertices count as in MNE."""
    true, est = make_stc([6, 7, 11], [12]), make_stc([7, 11, 13])
    for ours, theirs in (
        (stc_metrics.precision, precision_score),
        (stc_metrics.recall, recall_score),
        (stc_metrics.f1, f1_score),
        (stc_metrics.sensitivity, recall_score),
    ):
        expected = theirs(true, est, threshold=0, per_sample=False)
        assert ours(true, est, src) == pytest.approx(expected)


def test_specificity_by_hand(src, make_stc):
    """Truth: the corner 0. Close: 8 vertices within 25 mm; far: the strongest."""
    true, est = make_stc([0]), make_stc([0, 1], [12])
    # within 25 mm of the corner of a grid of 10 mm: 1, 2 along each side, and (1, 1),
    # (1, 2), (2, 1): seven vertices, of which 1 is active
    close, far = stc_metrics.specificity_close_far(true, est, src, radius=0.025)
    assert close == pytest.approx(1 - 1 / 7)
    assert far == 0  # one vertex as the truth: 12 on the right, active
    both = stc_metrics.specificity(true, est, src, radius=0.025)
    assert both == pytest.approx((6 / 7 + 0) / 2)


def test_area_correlation_by_hand(src, make_stc):
    """True 1, 2, 3 inner vertices, estimated 2, 1, 3 (1 cm² each)."""
    true = [make_stc(one) for one in ([6], [6, 7], [6, 7, 8])]
    est = [make_stc(one) for one in ([16, 17], [16], [16, 17, 18])]
    # deviations -1, 0, 1 and 0, -1, 1: products sum to 1, norms are both sqrt(2)
    found = stc_metrics.area_correlation(true, est, src)
    assert found == pytest.approx(1 / 2)
    assert np.isnan(stc_metrics.area_correlation(true[:1], est[:1], src))


def test_empty_estimate(src, make_stc):
    """An estimate of zero is scored as the array functions do."""
    true, est = make_stc([6]), make_stc([7]) * 0
    assert stc_metrics.precision(true, est, src) == 0
    assert stc_metrics.sensitivity(true, est, src) == 0
    assert np.isnan(stc_metrics.sensitivity(est, true, src))
    assert stc_metrics.specificity(true, est, src) == 1
    assert np.isnan(stc_metrics.specificity(est, true, src))

"""Ranking scores, by hand and against their definition."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import pytest

from mne_deepsif import metrics


def test_by_hand():
    """Strengths 5, 4, 3, 2, 1; the first and the third are true."""
    sources = np.array([[0, -5], [4, 0], [3, 3], [2, 0], [1, -1]])
    # pairs of a true and another: 5 > 4, 2, 1 and 3 > 2, 1, but 3 < 4: 5 of 6
    assert metrics.roc_auc([0, 2], sources) == pytest.approx(5 / 6)
    # precision 1 at the first true one, 2/3 at the second; each adds 1/2 of recall
    expected = 1 / 2 * 1 + 1 / 2 * 2 / 3
    assert metrics.average_precision([0, 2], sources) == pytest.approx(expected)


def test_ties_count_half():
    """True 1 against 1 and 0: half a win and a win."""
    assert metrics.roc_auc([0], np.array([[1], [1], [0]])) == pytest.approx(3 / 4)


def test_auc_is_a_share_of_pairs():
    """The definition in the docstring, on random numbers."""
    rng = np.random.default_rng(0)
    sources, true = rng.integers(0, 5, size=(40, 3)), rng.random(40) < 0.3
    peaks = sources.max(axis=1)
    gap = peaks[true][:, None] - peaks[~true]
    expected = np.mean((gap > 0) + (gap == 0) / 2)
    assert metrics.roc_auc(true, sources) == pytest.approx(expected)


@pytest.mark.parametrize("level", (0.0, 1.0))
def test_equal_strengths(level):
    """No parcel stands out: chance."""
    sources = np.full((8, 2), level)
    assert metrics.roc_auc([1, 2], sources) == 1 / 2
    assert metrics.average_precision([1, 2], sources) == 2 / 8


def test_nothing_or_everything_true():
    sources = np.eye(4)
    assert np.isnan(metrics.roc_auc([], sources))
    assert np.isnan(metrics.roc_auc(np.ones(4, bool), sources))
    assert np.isnan(metrics.average_precision([], sources))
    assert metrics.average_precision(np.ones(4, bool), sources) == 1

"""Scores source by source, worked out by hand."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mne_deepsif import metrics


def test_matching_by_hand(line):
    """Estimated parcels go to the nearest patch, ties to the first."""
    centers, _ = line
    patches = [np.array([0, 1]), np.array([7])]
    matched, distances = metrics.match_patches([0, 3, 4, 5, 8], patches, centers)
    assert [list(m) for m in matched] == [[0, 3, 4], [5, 8]]
    assert_allclose(distances[0], [0, 0.02, 0.03], atol=1e-12)
    assert_allclose(distances[1], [0.02, 0.01])


def test_evaluate_parcels_by_hand(line):
    """Two patches, one found with one parcel too many, one half found."""
    centers, areas = line
    times = np.arange(100) / 100
    waveforms = np.array([np.sin(6 * times), np.cos(9 * times)])
    patches = [np.array([1, 2]), np.array([8, 9])]
    sources = np.zeros((10, 100))
    sources[[1, 2, 3]] = waveforms[0]
    sources[8] = -waveforms[1]
    scores = metrics.evaluate_parcels(sources, patches, waveforms, centers, areas)
    assert_allclose(scores["le"], [0.01 / 3, 0], atol=1e-12)
    assert_allclose(scores["precision"], [2 / 3, 1])
    assert_allclose(scores["recall"], [1, 1 / 4])
    assert_allclose(scores["correlation"], [1, -1])
    assert_array_equal(scores["missed"], [False, False])


@pytest.mark.parametrize("rule", ("peak", "authors"))
def test_evaluate_nothing(line, rule):
    """An estimate of zero is scored without a division by zero."""
    centers, areas = line
    scores = metrics.evaluate_parcels(
        np.zeros((10, 5)),
        [np.array([1]), np.array([2])],
        np.eye(2, 5),
        centers,
        areas,
        rule,
    )
    assert np.isnan(scores["le"]).all() and scores["missed"].all()
    for name in ("precision", "recall", "correlation"):
        assert_array_equal(scores[name], [0, 0])

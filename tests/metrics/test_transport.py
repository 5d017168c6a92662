"""Earth mover's distance: by hand, and against SciPy's."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.stats import wasserstein_distance, wasserstein_distance_nd

from mne_deepsif import metrics


def test_by_hand(line):
    """Truth 1, 1 at 0 and 10 mm; estimate 3, 1 at 10 and 50 mm."""
    centers, _ = line
    true, sources = np.zeros((10, 1)), np.zeros((10, 2))
    true[[0, 1]] = 7.0
    sources[1, 1], sources[5, 0] = -3, 1
    # shares 1/2, 1/2 and 3/4, 1/4: 1/4 moves from 10 to 0 mm, 1/4 from 50 to 0 mm
    # (or 10 -> 0 mm for 1/2 and 50 -> 10 mm for 1/4: the same)
    expected = (0.01 + 0.05) / 4
    found = metrics.earth_movers_distance(true, sources, centers)
    assert found == pytest.approx(expected, abs=1e-6)


def test_on_a_line_it_is_scipys(line):
    centers, _ = line
    true, sources = np.random.default_rng(0).random((2, 10, 1))
    position = centers[:, 0]
    expected = wasserstein_distance(position, position, true[:, 0], sources[:, 0])
    found = metrics.earth_movers_distance(true, sources, centers)
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("n_true", (3, 60))
def test_in_space_it_is_scipys(n_true):
    rng = np.random.default_rng(n_true)
    centers = 0.1 * rng.random((80, 3))
    true, sources = np.zeros((80, 1)), rng.exponential(size=(80, 1))
    true[:n_true] = rng.random((n_true, 1))
    expected = wasserstein_distance_nd(centers, centers, true[:, 0], sources[:, 0])
    found = metrics.earth_movers_distance(true, sources, centers)
    assert found == pytest.approx(expected, abs=1e-6)


def test_equal_masses_are_an_assignment():
    """Hundreds of equal masses: the best assignment, found by another algorithm."""
    rng = np.random.default_rng(1)
    centers = 0.1 * rng.random((600, 3))
    true = np.arange(600) < 300
    cost = cdist(centers[true], centers[~true])
    expected = cost[linear_sum_assignment(cost)].mean()
    sources = (~true).astype(float)[:, None]
    found = metrics.earth_movers_distance(true[:, None], sources, centers)
    assert found == pytest.approx(expected, abs=1e-6)


def test_one_true_parcel_is_the_dispersion(line):
    centers, _ = line
    true, sources = np.eye(10)[:, 2:3], np.random.default_rng(2).normal(size=(10, 4))
    expected = metrics.spatial_dispersion([2], sources, centers)
    found = metrics.earth_movers_distance(true, sources, centers)
    assert found == pytest.approx(expected, abs=1e-6)


def test_scale_and_order_do_not_matter(line):
    centers, _ = line
    true, sources = np.random.default_rng(3).random((2, 10, 1))
    there = metrics.earth_movers_distance(true, 1e-9 * sources, centers)
    back = metrics.earth_movers_distance(sources, true, centers)
    assert_allclose(there, back, atol=2e-6)


def test_equal_and_empty(line):
    """An estimate that equals the truth is 0 away; nothing has no distance."""
    centers, _ = line
    some, none = np.random.default_rng(4).random((10, 1)), np.zeros((10, 1))
    found = metrics.earth_movers_distance(some, 3 * some, centers)
    assert found == pytest.approx(0, abs=1e-12)
    in_one_place = np.zeros((10, 3))
    assert metrics.earth_movers_distance(some, 1 - some, in_one_place) == 0
    assert np.isnan(metrics.earth_movers_distance(none, some, centers))
    assert np.isnan(metrics.earth_movers_distance(some, none, centers))


def test_without_the_package(line, monkeypatch):
    """The error names the extra."""
    monkeypatch.setitem(sys.modules, "ot", None)
    some = np.ones((10, 1))
    with pytest.raises(ImportError, match=r'pip install "mne-deepsif\[metrics\]"'):
        metrics.earth_movers_distance(some, some, line[0])

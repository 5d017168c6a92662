"""Distances worked out by hand on a line."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import pytest

from mne_deepsif import metrics


def test_localization_errors_by_hand(line):
    """Truth 2, 3; estimate 3, 5, 9: distances 0, 20, 60 mm there; 10, 0 back."""
    centers, _ = line
    true, estimated = np.array([2, 3]), np.array([3, 5, 9])
    one_sided = (0 + 0.02 + 0.06) / 3
    two_sided = (one_sided + (0.01 + 0) / 2) / 2
    assert metrics.localization_error(true, estimated, centers) == pytest.approx(
        one_sided
    )
    assert metrics.two_sided_localization_error(
        true, estimated, centers
    ) == pytest.approx(two_sided)


def test_spatial_dispersion_by_hand(line):
    """Strengths 1, 2 and 1 at 0, 20 and 60 mm: (0 + 40 + 60) / 4 mm."""
    centers, _ = line
    sources = np.zeros((10, 3))
    sources[3, 1], sources[5, 2], sources[9, 0] = -1, 2, 1
    dispersion = metrics.spatial_dispersion([2, 3], sources, centers)
    assert dispersion == pytest.approx(0.1 / 4)


def test_peak_error_by_hand(line):
    """The peak is parcel 6, at 60 mm; truth 2, 3 ends at 30 mm."""
    centers, _ = line
    sources = np.zeros((10, 2))
    sources[[3, 6], [0, 1]] = 1, -2
    assert metrics.peak_error([2, 3], sources, centers) == pytest.approx(0.03)
    assert metrics.peak_error([5, 6], sources, centers) == 0
    assert np.isnan(metrics.peak_error([2], np.ones((10, 2)), centers))
    assert np.isnan(metrics.peak_error([], sources, centers))


def test_soz_error_by_hand(line):
    """Electrodes at 0 and 30 mm, 40 mm off the line; estimate at 0 and 60 mm."""
    centers, _ = line
    electrodes = [[0, 0.04, 0], [0.03, 0.04, 0]]
    # to the estimate: 40 mm straight up; hypot(30, 40) = 50 mm to either parcel
    # from the estimate: 0 mm -> 40 mm; 60 mm -> hypot(30, 40) = 50 mm
    expected = ((0.04 + 0.05) / 2 + (0.04 + 0.05) / 2) / 2
    assert metrics.soz_error(electrodes, [0, 6], centers) == pytest.approx(expected)
    # one parcel: to it 40 and 50 mm, from it 40 mm
    assert metrics.soz_error(electrodes, [0], centers) == pytest.approx(
        ((0.04 + 0.05) / 2 + 0.04) / 2
    )


def test_soz_error_is_the_two_sided_error(line):
    """Where each electrode lies at a parcel, parcels and electrodes are the same."""
    centers, _ = line
    assert metrics.soz_error(centers[[2, 3]], [3, 5, 9], centers) == pytest.approx(
        metrics.two_sided_localization_error([2, 3], [3, 5, 9], centers)
    )


def test_nothing_to_measure(line):
    """Empty sets, silent estimates and unknown positions have no distance."""
    centers, _ = line
    none, some = np.zeros(10, bool), [1]
    assert np.isnan(metrics.localization_error(some, none, centers))
    assert np.isnan(metrics.two_sided_localization_error([], some, centers))
    assert np.isnan(metrics.spatial_dispersion(some, np.zeros((10, 4)), centers))
    assert np.isnan(metrics.soz_error([], some, centers))
    assert np.isnan(metrics.soz_error([[0, 0, 0]], none, centers))
    assert np.isnan(metrics.soz_error([[0, 0, np.nan]], some, centers))

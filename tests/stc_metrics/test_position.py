"""Distances by hand on a grid, and against MNE's own."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import pytest
from mne.simulation.metrics import peak_position_error, region_localization_error

from mne_deepsif import stc_metrics


def test_two_sided_is_mnes(src, make_stc):
    """With the threshold out of the way it is MNE's region localization error."""
    true, est = make_stc([6, 7, 11]), make_stc([7, 13], [3, 9])
    expected = region_localization_error(true, est, src, threshold=0, per_sample=False)
    assert stc_metrics.two_sided_localization_error(true, est, src) == pytest.approx(
        expected
    )


def test_spread_counts_by_amplitude(src, make_stc):
    """By hand: three times the amplitude at 10 mm, once at 30 mm, none at the truth."""
    est = make_stc([7, 9])
    est.data[0] *= 3
    found = stc_metrics.spatial_dispersion(make_stc([6]), est, src)
    assert found == pytest.approx((3 * 0.01 + 0.03) / 4)


def test_by_hand(src, make_stc):
    """Truth: two inner vertices; estimate: one of them, one in the other grid."""
    true, est = make_stc([6, 7]), make_stc([7], [0])
    # vertex 7 is at (20, 10) mm, vertex 0 of the right at (100, 0)
    far = np.hypot(0.1 - 0.02, 0.01)
    error = stc_metrics.localization_error(true, est, src)
    assert error == pytest.approx(far / 2)
    assert stc_metrics.spatial_dispersion(true, est, src) == pytest.approx(far / 2)
    # shares 1/2 and 1/2: from 6 to 7 nothing, what 6 has too much goes far; as the
    # half at 7 stays, the other half moves from vertex 0 to 6, at (10, 10) mm
    moved = np.hypot(0.1 - 0.01, 0.01) / 2
    found = stc_metrics.earth_movers_distance(true, est, src)
    assert found == pytest.approx(moved, abs=1e-6)


def test_peak_error_of_one_vertex_is_mnes(src, make_stc):
    """One active vertex is its own centre of mass; 3 cm and 1 cm away: sqrt(10)."""
    true, est = make_stc([6]), make_stc([14])  # (10, 10) and (40, 20) mm
    expected = peak_position_error(true, est, src, per_sample=False)
    found = stc_metrics.peak_error(true, est, src)
    assert found == pytest.approx(expected)
    assert found == pytest.approx(0.01 * np.sqrt(10))


def test_empty_estimate(src, make_stc):
    """An estimate of zero is scored as the array functions do."""
    true, est = make_stc([6]), make_stc([7]) * 0
    for name in (
        *("localization_error", "two_sided_localization_error", "peak_error"),
        *("spatial_dispersion", "earth_movers_distance"),
    ):
        score = getattr(stc_metrics, name)
        assert np.isnan(score(true, est, src)), name
        assert np.isnan(score(est, true, src)), name

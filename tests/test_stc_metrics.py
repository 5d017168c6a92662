"""Metrics on SourceEstimate: by hand on a grid, and against MNE's own."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
import pytest
from mne.simulation.metrics import region_localization_error
from numpy.testing import assert_allclose

from mne_deepsif import metrics, stc_metrics

SHELLS = (
    "localization_error",
    "two_sided_localization_error",
    "precision",
    "recall",
    "f1",
    "spatial_dispersion",
    "linear_correlation",
)


def _grid(offset, n=5, vertno=None):
    """Make one hemisphere: a flat grid of n x n vertices, 10 mm apart."""
    rows, cols = np.divmod(np.arange(n * n), n)
    rr = 0.01 * np.column_stack([cols + offset, rows, np.zeros(n * n)])
    corner = np.flatnonzero((rows < n - 1) & (cols < n - 1))
    lower = np.column_stack([corner, corner + 1, corner + n])
    upper = np.column_stack([corner + 1, corner + n + 1, corner + n])
    vertno = np.arange(n * n) if vertno is None else vertno
    tris = np.concatenate([lower, upper])
    return dict(rr=rr, tris=tris, np=n * n, vertno=vertno, nuse=len(vertno))


@pytest.fixture
def src():
    """Two grids, 100 mm apart."""
    return [_grid(0), _grid(10)]


def _stc(lh, rh=(), n_times=4):
    """Make an estimate that is 1, 2, ... at some vertices and has no others."""
    data = np.outer(np.ones(len(lh) + len(rh)), np.arange(1.0, n_times + 1))
    vertices = [np.array(lh, int), np.array(rh, int)]
    return mne.SourceEstimate(data, vertices, 0, 1e-3, "grid")


def test_by_hand(src):
    """Truth: two inner vertices, 1 cm² each; estimate: one of them, one 20 mm away."""
    true, est = _stc([6, 7]), _stc([7], [0])
    far = 0.1 - 0.02  # vertex 7 is at (20, 10) mm, vertex 0 of the right at (100, 0)
    far = np.hypot(far, 0.01)
    error = stc_metrics.localization_error(true, est, src)
    assert error == pytest.approx(far / 2)
    # the corner vertex has one triangle of 1/2 cm², a third of which is its own
    assert stc_metrics.precision(true, est, src) == pytest.approx(1 / (1 + 1 / 6))
    assert stc_metrics.recall(true, est, src) == pytest.approx(1 / 2)
    p, r = 6 / 7, 1 / 2
    assert stc_metrics.f1(true, est, src) == pytest.approx(2 * p * r / (p + r))
    assert stc_metrics.spatial_dispersion(true, est, src) == pytest.approx(far / 2)
    assert stc_metrics.linear_correlation(true, est, src) == pytest.approx(1 / 2)


def test_two_sided_is_mnes(src):
    """With the threshold out of the way it is MNE's region localization error."""
    true, est = _stc([6, 7, 11]), _stc([7, 13], [3, 9])
    expected = region_localization_error(true, est, src, threshold=0, per_sample=False)
    assert stc_metrics.two_sided_localization_error(true, est, src) == pytest.approx(
        expected
    )


def test_areas_of_a_decimated_source_space():
    """The used vertices of a grid share its whole area."""
    every_other = np.arange(0, 25, 2)
    areas = stc_metrics._hemi_areas(_grid(0, vertno=every_other))
    assert areas.shape == every_other.shape
    assert_allclose(areas.sum(), 16e-4)
    assert areas.min() > 0


def test_empty_estimate(src):
    """An estimate of zero is scored as the array functions do."""
    true, est = _stc([6]), _stc([7]) * 0
    assert np.isnan(stc_metrics.localization_error(true, est, src))
    assert stc_metrics.precision(true, est, src) == 0
    assert np.isnan(stc_metrics.linear_correlation(est, true, src))


@pytest.mark.parametrize("name", SHELLS)
def test_shells_share_their_name_and_their_checks(src, name):
    """Each has an array function of the same name and refuses other vertices."""
    assert hasattr(metrics, name)
    shell = getattr(stc_metrics, name)
    decimated = [_grid(0, vertno=np.arange(0, 25, 2)), src[1]]
    with pytest.raises(ValueError, match="stc_est must lie on the vertices of src"):
        shell(_stc([6]), _stc([7]), decimated)
    with pytest.raises(TypeError, match="stc_true must be an instance of"):
        shell(np.eye(3), _stc([7]), src)


def test_other_times(src):
    """Waveforms of other lengths cannot be correlated."""
    with pytest.raises(ValueError, match="must have the same times, got 4 and 5"):
        stc_metrics.linear_correlation(_stc([6]), _stc([6], n_times=5), src)

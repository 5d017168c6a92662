"""Metrics on SourceEstimate: by hand on a grid, and against MNE's own."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
import pytest
from mne.simulation.metrics import region_localization_error
from numpy.testing import assert_allclose
from scipy.spatial import cKDTree

from mne_deepsif import stc_metrics

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
    """By hand: in a strip of 2 x 5 vertices, the first and fourth of a row are used."""
    rr = 0.01 * np.array([[col, row, 0.0] for row in range(2) for col in range(5)])
    corner = np.arange(4)
    lower = np.column_stack([corner, corner + 1, corner + 5])
    upper = np.column_stack([corner + 1, corner + 6, corner + 5])
    used = np.array([0, 3])
    strip = dict(rr=rr, tris=np.concatenate([lower, upper]), np=10)
    strip |= dict(vertno=used, nuse=2)
    # thirds of triangles (1/2 cm²) at each vertex; two columns are nearest the first
    thirds = [[1, 3, 3, 3, 2], [2, 3, 3, 3, 1]]
    expected = [np.sum(thirds, 0)[part].sum() / 6 for part in (slice(2), slice(2, 5))]
    assert_allclose(1e4 * stc_metrics._hemi_areas(strip), expected)
    assert expected == [1.5, 2.5]
    every_other = np.arange(0, 25, 2)
    areas = stc_metrics._hemi_areas(_grid(0, vertno=every_other))
    assert areas.shape == every_other.shape
    assert_allclose(areas.sum(), 16e-4)


@pytest.fixture
def folded():
    """Fold a sheet: walls of 20 x 20 mm, 2 mm apart, that join at the bottom.

    On the first wall a few vertices are used, on the second one all of them; so are all
    along the bottom, so that no way around it is the shortest.
    """
    n = 6  # vertices along each side of a wall, 4 mm apart
    z = np.r_[np.arange(n)[::-1], np.arange(n)]  # down the one wall, up the other
    profile = np.column_stack([0.002 * (np.arange(2 * n) >= n), 0.004 * z])
    rr = np.array([[x, 0.004 * y, z] for x, z in profile for y in range(n)])
    rows, cols = np.divmod(np.arange(len(rr)), n)
    corner = np.flatnonzero((rows < 2 * n - 1) & (cols < n - 1))
    lower = np.column_stack([corner, corner + 1, corner + n])
    upper = np.column_stack([corner + 1, corner + n + 1, corner + n])
    few = (rows % 3 == 1) & (cols % 3 == 1)
    vertno = np.flatnonzero((rows >= n - 1) | few)
    return dict(
        rr=rr,
        tris=np.concatenate([lower, upper]),
        np=len(rr),
        vertno=vertno,
        nuse=len(vertno),
    )


def test_areas_do_not_jump_to_the_opposite_wall(folded):
    """Each wall has its own 4 cm² and half of the bottom's .4, however few are used."""
    areas = stc_metrics._hemi_areas(folded)
    first = folded["rr"][folded["vertno"], 0] == 0
    assert 5 < first.sum() < (~first).sum()
    walls = [areas[first].sum(), areas[~first].sum()]
    assert_allclose(walls, [4.2e-4, 4.2e-4], rtol=1e-9)
    # the nearest in space is on the other wall: the first would lose half of it
    _, nearest = cKDTree(folded["rr"][folded["vertno"]]).query(folded["rr"])
    on_first = folded["rr"][:, 0] == 0
    assert (on_first & ~first[nearest]).sum() > on_first.sum() / 3


def test_precision_on_a_folded_sheet(folded):
    """The truth is one wall, the estimate both: half of the area is right."""
    src = [folded, _grid(10)]
    first = folded["rr"][folded["vertno"], 0] == 0
    true, est = _stc(folded["vertno"][first]), _stc(folded["vertno"])
    assert stc_metrics.precision(true, est, src) == pytest.approx(1 / 2)
    assert stc_metrics.recall(true, est, src) == pytest.approx(1)
    assert stc_metrics.recall(est, true, src) == pytest.approx(1 / 2)


def test_waveforms_count_by_area(src):
    """A vertex inside (1 cm²) follows its truth, the corner (1/6 cm²) is opposed."""
    true, est = _stc([0, 6]), _stc([0, 6])
    est.data[0] = -est.data[0]
    expected = (1 - 1 / 6) / (1 + 1 / 6)
    assert stc_metrics.linear_correlation(true, est, src) == pytest.approx(expected)


def test_spread_counts_by_amplitude(src):
    """By hand: three times the amplitude at 10 mm, once at 30 mm, none at the truth."""
    est = _stc([7, 9])
    est.data[0] *= 3
    found = stc_metrics.spatial_dispersion(_stc([6]), est, src)
    assert found == pytest.approx((3 * 0.01 + 0.03) / 4)


def test_empty_estimate(src):
    """An estimate of zero is scored as the array functions do."""
    true, est = _stc([6]), _stc([7]) * 0
    assert np.isnan(stc_metrics.localization_error(true, est, src))
    assert stc_metrics.precision(true, est, src) == 0
    assert np.isnan(stc_metrics.linear_correlation(est, true, src))


@pytest.mark.parametrize("name", SHELLS)
def test_what_each_refuses(src, name):
    """Vertices that the source space does not use, arrays, incomplete surfaces."""
    shell = getattr(stc_metrics, name)
    decimated = [_grid(0, vertno=np.arange(0, 25, 2)), src[1]]
    with pytest.raises(ValueError, match="stc_est must lie on the vertices of src"):
        shell(_stc([6]), _stc([7]), decimated)
    with pytest.raises(TypeError, match="stc_true must be an instance of"):
        shell(np.eye(3), _stc([7]), src)


@pytest.mark.parametrize("name", ("precision", "recall", "f1", "linear_correlation"))
def test_areas_need_the_whole_surface(src, name):
    """A forward keeps triangles; a source space without them has no areas."""
    bare = [dict(one, tris=np.zeros((0, 3), int)) for one in src]
    with pytest.raises(ValueError, match="src must hold the whole surfaces"):
        getattr(stc_metrics, name)(_stc([6]), _stc([7]), bare)


def test_other_times(src):
    """Waveforms of other lengths cannot be correlated."""
    with pytest.raises(ValueError, match="must have the same times, got 4 and 5"):
        stc_metrics.linear_correlation(_stc([6]), _stc([6], n_times=5), src)

"""Areas of vertices, worked out by hand; which input is refused."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.spatial import cKDTree

from mne_deepsif import stc_metrics
from mne_deepsif.stc_metrics import source_space

SHELLS = (
    *("average_precision", "earth_movers_distance", "expected_calibration_error"),
    *("f1", "linear_correlation", "localization_error", "peak_error", "precision"),
    *("recall", "reliability_curve", "roc_auc", "sensitivity", "spatial_dispersion"),
    *("specificity", "specificity_close_far", "two_sided_localization_error"),
)


def test_areas_of_a_decimated_source_space(make_grid):
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
    assert_allclose(1e4 * source_space.hemi_areas(strip), expected)
    assert expected == [1.5, 2.5]
    every_other = np.arange(0, 25, 2)
    areas = source_space.hemi_areas(make_grid(0, vertno=every_other))
    assert areas.shape == every_other.shape
    assert_allclose(areas.sum(), 16e-4)


def test_areas_do_not_jump_to_the_opposite_wall(folded):
    """Each wall has its own 4 cm² and half of the bottom's .4, however few are used."""
    areas = source_space.hemi_areas(folded)
    first = folded["rr"][folded["vertno"], 0] == 0
    assert 5 < first.sum() < (~first).sum()
    walls = [areas[first].sum(), areas[~first].sum()]
    assert_allclose(walls, [4.2e-4, 4.2e-4], rtol=1e-9)
    # the nearest in space is on the other wall: the first would lose half of it
    _, nearest = cKDTree(folded["rr"][folded["vertno"]]).query(folded["rr"])
    on_first = folded["rr"][:, 0] == 0
    assert (on_first & ~first[nearest]).sum() > on_first.sum() / 3


@pytest.mark.parametrize("name", SHELLS)
def test_what_each_refuses(src, name, make_stc, make_grid):
    """Vertices that the source space does not use, arrays, incomplete surfaces."""
    shell = getattr(stc_metrics, name)
    decimated = [make_grid(0, vertno=np.arange(0, 25, 2)), src[1]]
    with pytest.raises(
        ValueError, match="stc_(est|prob) must lie on the vertices of src"
    ):
        shell(make_stc([6]), make_stc([7]), decimated)
    with pytest.raises(TypeError, match="stc_true must be an instance of"):
        shell(np.eye(3), make_stc([7]), src)


@pytest.mark.parametrize("name", ("precision", "recall", "f1", "linear_correlation"))
def test_areas_need_the_whole_surface(src, name, make_stc):
    """A forward keeps triangles; a source space without them has no areas."""
    bare = [dict(one, tris=np.zeros((0, 3), int)) for one in src]
    with pytest.raises(ValueError, match="src must hold the whole surfaces"):
        getattr(stc_metrics, name)(make_stc([6]), make_stc([7]), bare)


def test_labels_are_scored_as_an_estimate(make_grid, make_stc):
    """A resection as the truth, as the module's docstring says."""
    used = np.arange(0, 25, 2)
    surf = make_grid(0, vertno=used)
    surf |= dict(type="surf", inuse=np.isin(np.arange(25), used).astype(int))
    src = mne.SourceSpaces([surf, surf])
    resection = mne.Label([6, 7, 8, 9], hemi="lh", subject="grid")
    true = mne.labels_to_stc([resection.restrict(src)], [1.0])
    # of the resection, 6 and 8 are vertices of src
    assert stc_metrics.sensitivity(true, make_stc([8, 10]), src) == 1 / 2

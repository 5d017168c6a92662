"""Drawing the cortex: surfaces, views that show the activity, maps between vertices."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import pytest
from matplotlib import pyplot as plt
from numpy.testing import assert_allclose, assert_array_equal

from mne_deepsif.viz.cortex import (
    VIEWS,
    choose_views,
    draw,
    make_axes,
    read_hemispheres,
    spread,
)

NONE = [np.array([], int)] * 2
# the side of a hemisphere at which a vertex is extreme: axis, sign for lh and for rh
EXTREMES = {
    "lateral": (0, -1, 1),
    "medial": (0, 1, -1),
    "dorsal": (2, 1, 1),
    "ventral": (2, -1, -1),
    "rostral": (1, 1, 1),
    "caudal": (1, -1, -1),
}


@pytest.fixture(scope="module")
def balls(sphere_dir):
    return read_hemispheres("ball", NONE, "inflated", sphere_dir)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("hemi", (0, 1), ids=("lh", "rh"))
def test_the_first_view_faces_the_peak(balls, view, hemi):
    """A spot on each side of a sphere is seen from that side."""
    axis, *signs = EXTREMES[view]
    rr = balls[hemi].rr
    peak = np.argmax(signs[hemi] * rr[:, axis])
    maps = [np.zeros(len(ball.rr)) for ball in balls]
    maps[hemi][peak] = 1.0
    first, second = choose_views(maps, peak + hemi * len(rr), balls)
    assert first == view and second != view


def test_the_second_view_shows_what_the_first_does_not(balls):
    """Spots on top of the left sphere, at the peak, and below the right one."""
    tops = balls[0].rr[:, 2]
    maps = [1.0 * (tops > 45), 0.9 * (tops < -40)]
    views = choose_views(maps, tops.argmax(), balls)
    assert views == ["dorsal", "ventral"]


def test_nothing_is_left_for_the_second_view(balls):
    """If the first view shows the whole spot, the second is a usual one."""
    peaks = {"dorsal": 2, "rostral": 1}
    for view, axis in peaks.items():
        place = balls[0].rr[:, axis]
        maps = [1.0 * (place > 40), np.zeros(642)]
        assert choose_views(maps, place.argmax(), balls) == [view, "lateral"]


def test_template_needs_no_folder():
    """Its hemispheres lie on their sides; sulci are darker."""
    left, right = read_hemispheres("fsaverage5", NONE)
    assert len(left.rr) == len(right.rr) == 10242
    assert len(np.unique(left.grey)) == 2
    white = read_hemispheres("fsaverage", NONE, "white", "nowhere")
    assert white[0].rr[:, 0].mean() < -20 and white[1].rr[:, 0].mean() > 20  # mm


def test_spread_fills_what_is_between(balls):
    """A constant stays one; a map of all vertices stays as it is."""
    ball = balls[0]
    few = np.arange(162)  # those of the coarser icosahedron
    assert_allclose(spread(np.full(162, 3.0), few, ball), 3.0)
    height = ball.rr[:, 2]
    assert np.corrcoef(spread(height[few], few, ball), height)[0, 1] > 0.98
    assert_array_equal(spread(height, np.arange(642), ball), height)
    assert_array_equal(spread([], [], ball), 0)


@pytest.mark.parametrize("n_vertices", (162, 642), ids=("decimated", "all"))
def test_spread_does_not_leave_a_label(balls, n_vertices):
    """What lies far from all values stays grey."""
    ball = balls[0]
    few = np.flatnonzero(ball.rr[:n_vertices, 2] > 30)
    full = spread(np.ones(len(few)), few, ball)
    assert (full[ball.rr[:, 2] < 10] == 0).all() and (full[few] == 1).all()


def test_drawing_shows_the_side_that_faces_the_eye(balls):
    """Half of the triangles, the nearest last; colours where alpha is 1."""
    ball = balls[0]
    ax = make_axes(plt.figure(), balls, ["dorsal"])[0, 0]
    color = np.tile([1.0, 0.0, 0.0], (642, 1))
    draw(ax, ball, "dorsal", color, 1.0 * (ball.rr[:, 2] > 0))
    (mesh,) = ax.collections
    tris = mesh._triangulation.triangles
    assert 0.45 < len(tris) / len(ball.tris) < 0.55
    depth = ball.rr[tris, 2].mean(1)
    assert (np.diff(depth) >= -1e-9).all() and depth[-1] > 45
    colors = mesh.get_facecolor()
    red, grey = colors[ball.rr[:, 2] > 0], colors[ball.rr[:, 2] < 0]
    assert (red[:, 1] == 0).all() and (red[:, 0] >= 0.5).all()
    assert_allclose(grey[:, 0], grey[:, 1])


def test_errors(sphere_dir):
    with pytest.raises(FileNotFoundError, match="must hold ball/surf/lh.pial"):
        read_hemispheres("ball", NONE, "pial", sphere_dir)
    with pytest.raises(FileNotFoundError, match="got subjects_dir='nowhere'"):
        read_hemispheres("nobody", NONE, subjects_dir="nowhere")
    with pytest.raises(ValueError, match="subject must be the name of a FreeSurfer"):
        read_hemispheres(None, NONE)
    with pytest.raises(ValueError, match="Invalid value for the 'surface'"):
        read_hemispheres("ball", NONE, "sphere", sphere_dir)
    with pytest.raises(ValueError, match="but vertex 642 is needed"):
        read_hemispheres("ball", [[642], []], "inflated", sphere_dir)

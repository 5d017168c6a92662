"""Figures of extents: on the cortex and over time."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mne_deepsif import (
    estimate_extent,
    make_template_source_space,
    plot_extent_courses,
    plot_extents,
)

MEDIAL, LATERAL = 1652, 3316  # vertices of fsaverage5, rh and lh


@pytest.fixture(scope="module")
def stc(make_bump):
    """Give an estimate with a strong source on the right and a weaker one."""
    stc = make_bump(1, MEDIAL, 3e-9)
    stc.data[:] -= make_bump(0, LATERAL).data
    return stc


@pytest.fixture(scope="module")
def extents(stc):
    return estimate_extent(stc, make_template_source_space(), min_area=1e-4)


def test_extents_on_the_cortex(extents):
    """Each extent has a colour, the same in legend and picture, where it lies."""
    figure = plot_extents(extents)
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts[0].startswith("extent0-rh: ") and "100 ms, 3 nAm" in texts[0]
    assert f"{1e4 * extents[0].area:.1f} cm²" in texts[0]
    assert texts[1].endswith("100 ms, −2 nAm")
    assert figure.axes[0].get_ylabel() == "medial"
    for extent, patch in zip(extents, legend.get_patches(), strict=True):
        ax = figure.axes[int(extent.label.hemi == "rh")]
        colors = ax.collections[0].get_facecolor()[:, :3]
        inside = np.zeros(len(colors), bool)
        inside[extent.label.vertices] = True
        hue = np.array(patch.get_facecolor()[:3])
        shade = colors @ hue / np.linalg.norm(colors, axis=1) / np.linalg.norm(hue)
        assert_allclose(shade[inside], 1, atol=1e-6)
        assert (shade[~inside] < 0.99).all()


def test_courses(extents, stc):
    """The curve is that of the peak's vertex, and the dot lies on it."""
    ax = plot_extent_courses(extents, stc).axes[0]
    lines = [line for line in ax.lines if line.get_label().startswith("extent")]
    assert_allclose(lines[0].get_xdata(), [0, 50, 100, 150, 200], atol=1e-9)
    assert_allclose(lines[0].get_ydata(), 3 * np.array([0, 0.5, 1, -0.4, 0]), atol=1e-6)
    assert_allclose(lines[1].get_ydata().min(), -2, rtol=1e-6)
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert_allclose([dot.get_ydata()[0] for dot in dots], [3, -2], rtol=1e-6)
    assert "nAm" in ax.get_ylabel() and not ax.patches  # one window: nothing is shaded


def test_windows_are_shaded(stc):
    src = make_template_source_space()
    extents = estimate_extent(stc, src, windows=[(0.0, 0.1), (0.15, 0.2)])
    ax = plot_extent_courses(extents, stc).axes[0]
    assert len(ax.patches) == 2
    assert len({extent.label.name for extent in extents}) == len(extents)


def test_many(extents):
    """The ten largest are drawn; the figure says how many are not."""
    many = [
        dataclasses.replace(extents[0], peak_amplitude=1e-9 * n) for n in range(1, 13)
    ]
    (legend,) = plot_extents(many).legends
    assert len(legend.get_patches()) == 10
    assert "2 smaller ones" in legend.get_title().get_text()
    assert "12 nAm" in legend.get_texts()[0].get_text()


def test_errors(extents, stc):
    with pytest.raises(ValueError, match="extents is empty"):
        plot_extents([])
    with pytest.raises(TypeError, match="extents must be an instance of"):
        plot_extents(None)
    few = stc.copy().in_label(extents[1].label)
    with pytest.raises(ValueError, match="Pass the estimate that the extents were"):
        plot_extent_courses(extents, few)

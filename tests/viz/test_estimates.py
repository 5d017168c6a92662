"""Figures of estimates: what they say, and what they show."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mne_deepsif
from mne_deepsif import plot_compare_estimates, plot_estimate
from mne_deepsif.viz.estimates import format_number

MEDIAL, LATERAL = 1652, 3316  # vertices of fsaverage5, rh and lh


def parts(figure):
    """Return the panels, and the axes of the colour bar."""
    *panels, bar = figure.axes
    return panels, bar


def is_colored(ax):
    """Say whether a panel shows activity, in a triangle that faces the eye."""
    (mesh,) = ax.collections
    shown = np.unique(mesh._triangulation.triangles)
    red, green, blue, _ = mesh.get_facecolor()[shown].T
    return bool((np.abs(red - green) + np.abs(red - blue) > 0.05).any())


def test_defaults(make_bump):
    """Both hemispheres, the peak's time and view, nAm, the sign."""
    figure = plot_estimate(make_bump(1, MEDIAL))
    panels, bar = parts(figure)
    assert [ax.get_title() for ax in panels] == ["left", "right", "", ""]
    assert figure.get_suptitle() == "100 ms, the peak"
    assert panels[0].get_ylabel() == "medial"
    assert [is_colored(ax) for ax in panels[:2]] == [False, True]
    assert "nAm" in bar.get_xlabel() and "out of the cortex" in bar.get_xlabel()
    assert_allclose(bar.get_xlim(), [-2, 2])


def test_numbers_have_a_true_minus_and_no_negative_zero():
    """Single precision makes -3.2e-9 s of 0."""
    assert format_number(-3.2e-6, ".0f") == "0" and format_number(-12.4, ".0f") == "−12"
    assert format_number(-2.34, ".2g") == "−2.3"


def test_sign_and_time(make_bump):
    """The sign chooses the colour; a time need not be the peak."""
    stc = make_bump(0, LATERAL)
    for time, color in ((0.1, 0), (0.15, 2)):  # positive red, negative blue
        figure = plot_estimate(stc, initial_time=time, views=["lateral"])
        panels, bar = parts(figure)
        assert figure.get_suptitle() == f"{1e3 * time:.0f} ms" and len(panels) == 2
        (mesh,) = panels[0].collections
        assert mesh.get_facecolor()[LATERAL, :3].argmax() == color
    assert_allclose(bar.get_xlim(), [-0.8, 0.8])


def test_without_sign(make_bump):
    """A norm has no sign; a single sample no time."""
    stc = make_bump(0, LATERAL)
    vector = mne.VectorSourceEstimate(
        np.stack([stc.data, 0 * stc.data, 0 * stc.data], 1)[..., 2:3],
        stc.vertices,
        *(0.1, 0.05, "fsaverage5"),
    )
    figure = plot_estimate(vector)
    _, bar = parts(figure)
    assert figure.get_suptitle() == "" and bar.get_xlabel() == "amplitude (nAm)"
    assert_allclose(bar.get_xlim(), [0, 2])


def test_threshold_and_scale(make_bump):
    stc = make_bump(0, LATERAL)
    figure = plot_estimate(stc, views=["lateral"], vmax=20, unit="a value")
    panels, bar = parts(figure)
    assert not is_colored(panels[0])  # 2e-9 is far below the threshold
    assert_allclose(bar.get_xlim(), [-20, 20])
    assert bar.get_xlabel().startswith("a value\n")


def test_silence(make_bump):
    """An estimate of zeros, or with NaN spans as of raw data, can be drawn."""
    stc = make_bump(0, LATERAL)
    stc.data[:, 0] = np.nan
    assert plot_estimate(stc).get_suptitle() == "100 ms, the peak"
    plot_estimate(0 * make_bump(0, LATERAL))


def test_individual_subject(sphere_dir):
    """Its surfaces are read from subjects_dir; no sulc, one grey."""
    vertices = [np.arange(162), np.arange(42)]
    data = np.zeros((204, 2))
    data[5, 1] = -1e-9
    stc = mne.SourceEstimate(data, vertices, 0, 0.01, "ball")
    panels, _ = parts(plot_estimate(stc, subjects_dir=sphere_dir))
    assert [is_colored(ax) for ax in panels[:2]] == [True, False]
    with pytest.raises(FileNotFoundError, match="subjects_dir must hold ball/surf"):
        plot_estimate(stc)


def test_compare(make_bump):
    """One scale for one unit; the time and the view of the first one's peak."""
    weak, strong = make_bump(1, MEDIAL, 1e-9), make_bump(0, LATERAL, 3e-9)
    figure = plot_compare_estimates({"before": weak, "after": strong})
    titles = [part.get_suptitle() for part in figure.subfigs]
    assert titles == ["before\n100 ms", "after\n100 ms"]
    bars = [parts(part)[1] for part in figure.subfigs]
    for bar in bars:
        assert_allclose(bar.get_xlim(), [-3, 3])
    assert figure.subfigs[0].axes[0].get_ylabel() == "medial"
    assert is_colored(figure.subfigs[1].axes[2])  # the other one is seen as well
    unit = {"before": "nAm", "after": "dSPM value"}
    figure = plot_compare_estimates({"before": weak, "after": strong}, unit=unit)
    assert_allclose(parts(figure.subfigs[0])[1].get_xlim(), [-1, 1])


def test_errors(make_bump, monkeypatch):
    stc = make_bump(0, LATERAL)
    with pytest.raises(TypeError, match="stc must be an instance of"):
        plot_estimate(stc.data)
    with pytest.raises(ValueError, match="initial_time must lie between 0 and 0.2 s"):
        plot_estimate(stc, initial_time=1.0)
    with pytest.raises(ValueError, match="the 'each element of views"):
        plot_estimate(stc, views=["top"])
    with pytest.raises(ValueError, match="threshold must be from 0 to below 1"):
        plot_estimate(stc, threshold=1.0)
    with pytest.raises(ValueError, match="unit must have the keys of stcs"):
        plot_compare_estimates({"one": stc}, unit={"two": "nAm"})
    with pytest.raises(ValueError, match="stcs must hold at least one"):
        plot_compare_estimates({})
    monkeypatch.setattr(mne_deepsif.viz.estimates, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install \"mne-deepsif\[plot\]\""):
        plot_estimate(stc, backend="pyvista")


def test_pyvista_gets_what_matplotlib_shows(make_bump, monkeypatch):
    """The brain of MNE gets the template's folder, nAm, views and limits."""
    given = {}
    monkeypatch.setattr(mne_deepsif.viz.estimates, "find_spec", lambda name: True)
    monkeypatch.setattr(
        mne.SourceEstimate,
        "plot",
        lambda stc, **kwargs: given.update(kwargs, largest=stc.data.max()),
    )
    plot_estimate(make_bump(1, MEDIAL), backend="pyvista")
    assert (given["subjects_dir"] / "fsaverage5" / "surf" / "lh.inflated").is_file()
    assert_allclose(given["largest"], 2)
    assert_allclose(given["clim"]["pos_lims"], [0.6, 1.3, 2])
    assert given["views"][0] == "medial" and given["hemi"] == "split"
    assert given["initial_time"] == pytest.approx(0.1)

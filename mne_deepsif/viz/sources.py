"""Figures of extents: where they lie on the cortex, and their time courses."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import matplotlib as mpl
import mne
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import Patch
from mne.utils import _validate_type

from ..extent import check_extents
from ..head.anatomy import HEMIS
from .cortex import (
    check_views,
    choose_views,
    draw,
    figure_size,
    make_axes,
    read_hemispheres,
)
from .estimates import format_number

_COLORS = mpl.colormaps["tab10"].colors
_WIDTH = 3.0  # of a hemisphere, inches


def plot_extents(
    extents,
    *,
    views=None,
    surface="inflated",
    unit="nAm",
    subject=None,
    subjects_dir=None,
):
    """Draw extents on both hemispheres.

    Parameters
    ----------
    extents : Extents
        The extents that :func:`estimate_extent` found. If there are more than ten, the
        ten with the largest peaks are drawn.
    views : list of str | None
        As in :func:`plot_estimate`.
    surface : "inflated" | "white" | "pial"
        The surface to draw on.
    unit : str
        Unit of the amplitudes in the legend, as in :func:`plot_estimate`.
    subject : str | None
        The FreeSurfer subject. None takes that of the extents.
    subjects_dir : path-like | None
        As in :func:`plot_estimate`.

    Returns
    -------
    figure : matplotlib.figure.Figure
        The figure. Where extents of several windows overlap, the one with the larger
        peak is on top.
    """
    chosen = _choose(extents)
    label = chosen[0].label
    used = [_vertices(chosen, hemi) for hemi in HEMIS]
    subject = label.subject if subject is None else subject
    hemispheres = read_hemispheres(subject, used, surface, subjects_dir)
    numbers = [_paint(chosen, hemisphere) for hemisphere in hemispheres]
    if views is None:
        peak = label.vertices[np.argmax(label.values)]
        peak += len(numbers[0]) * (label.hemi == "rh")
        views = choose_views([number >= 0 for number in numbers], peak, hemispheres)
    views = check_views(views)
    height = figure_size(hemispheres, views, 2 * _WIDTH) + 0.5
    height += 0.25 * len(chosen) + 0.3
    figure = plt.figure(figsize=(2 * _WIDTH + 0.4, height), layout="constrained")
    axes = make_axes(figure, hemispheres, views)
    for row, view in zip(axes, views):
        for ax, number, hemisphere in zip(row, numbers, hemispheres):
            draw(ax, hemisphere, view, np.array(_COLORS)[number], 1.0 * (number >= 0))
    handles = [
        Patch(color=color, label=_describe(extent, unit))
        for color, extent in zip(_COLORS, chosen)
    ]
    more = len(extents) - len(chosen)
    title = f"{more} smaller ones are not drawn" if more else None
    figure.legend(handles=handles, loc="outside lower center", title=title)
    return figure


def plot_extent_courses(extents, stc, *, unit="nAm"):
    """Draw the time course of each extent, at the vertex of its peak.

    Parameters
    ----------
    extents : Extents
        The extents that :func:`estimate_extent` found in ``stc``. If there are more
        than ten, the ten with the largest peaks are drawn.
    stc : SourceEstimate
        The estimate.
    unit : str
        As in :func:`plot_estimate`.

    Returns
    -------
    figure : matplotlib.figure.Figure
        The figure. Dots mark the peaks that the table of the extents lists. The windows
        of the extents are shaded, if they do not span the whole estimate.
    """
    chosen = _choose(extents)
    _validate_type(stc, mne.SourceEstimate, "stc")
    scale = 1e9 if unit == "nAm" else 1.0
    figure, ax = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    ax.axhline(0, color="0.6", lw=0.8)
    for color, extent in zip(_COLORS, chosen):
        course = scale * _course(extent, stc)
        ax.plot(1e3 * stc.times, course, color=color, label=_describe(extent, None))
        peak = (1e3 * extent.peak_time, scale * extent.peak_amplitude)
        ax.plot(*peak, "o", color=color)
    for tmin, tmax in {(extent.tmin, extent.tmax) for extent in chosen}:
        if tmax - tmin < stc.times[-1] - stc.times[0] - stc.tstep / 2:
            ax.axvspan(1e3 * tmin, 1e3 * tmax, color="0.93", zorder=0)
    ax.set(xlabel="time (ms)", xlim=1e3 * stc.times[[0, -1]])
    ax.set_ylabel(f"amplitude ({unit})\n+ out of the cortex, − into it")
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _choose(extents):
    """Return the extents to draw, the largest peak first."""
    check_extents(extents)
    if not len(extents):
        raise ValueError(
            "extents is empty: nothing stood out of the estimate, or min_probability "
            "or min_area left all out, so there is nothing to draw."
        )
    ranked = sorted(extents, key=lambda extent: -abs(extent.peak_amplitude))
    return ranked[: len(_COLORS)]


def _describe(extent, unit):
    parts = [
        f"{1e4 * extent.area:.1f} cm²",
        format_number(1e3 * extent.peak_time, ".0f") + " ms",
    ]
    if unit is not None:
        scale = 1e9 if unit == "nAm" else 1.0
        parts.append(f"{format_number(scale * extent.peak_amplitude, '.2g')} {unit}")
    return f"{extent.label.name}: {', '.join(parts)}"


def _vertices(extents, hemi):
    found = [extent.label.vertices for extent in extents if extent.label.hemi == hemi]
    return np.concatenate([np.zeros(0, int), *found])


def _paint(extents, hemisphere):
    """Return the number of the extent at each vertex, -1 for none."""
    number = np.full(len(hemisphere.rr), -1)
    for index in reversed(range(len(extents))):
        label = extents[index].label
        if label.hemi == hemisphere.hemi:
            number[label.vertices] = index
    return number


def _course(extent, stc):
    """Return the time course of the vertex with the largest amplitude."""
    hemi = extent.label.hemi == "rh"
    row = np.flatnonzero(stc.vertices[hemi] == extent.peak_vertex)
    if not len(row):
        raise ValueError(
            f"stc lacks vertex {extent.peak_vertex} ({extent.label.hemi}), the peak of "
            f"{extent.label.name}. Pass the estimate that the extents were found in."
        )
    return stc.data[row[0] + hemi * len(stc.vertices[0])]

"""Figures of estimates on the cortex: one, or several side by side."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import dataclass
from importlib.util import find_spec

import matplotlib as mpl
import mne
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap, Normalize
from mne.utils import _check_option, _validate_type

from .cortex import (
    check_views,
    choose_views,
    draw,
    figure_size,
    find_folder,
    make_axes,
    read_hemispheres,
    spread,
)

_SIGNED, _UNSIGNED = "coolwarm", "inferno"
_SOFT = 0.1  # share of the scale over which colours fade in above the threshold
_CORTEX = 0.61  # the grey of the colour bar where nothing is shown
_WIDTH = 3.0  # of a hemisphere, inches


def plot_estimate(
    stc,
    *,
    initial_time=None,
    views=None,
    surface="inflated",
    threshold=0.3,
    vmax=None,
    unit="nAm",
    title=None,
    subject=None,
    subjects_dir=None,
    backend="matplotlib",
):
    """Draw an estimate on both hemispheres, at its peak.

    Parameters
    ----------
    stc : SourceEstimate | VectorSourceEstimate
        The estimate. For a vector estimate, the norm is drawn.
    initial_time : float | None
        The time to draw (s). None takes the time of the largest absolute amplitude.
    views : list of str | None
        Some of ``"lateral"``, ``"medial"``, ``"dorsal"``, ``"ventral"``, ``"rostral"``
        and ``"caudal"``. None takes two: the one that shows the peak best, and the one
        that shows the most of what the first does not.
    surface : "inflated" | "white" | "pial"
        The surface to draw on.
    threshold : float
        Amplitudes below this share of ``vmax`` are not shown.
    vmax : float | None
        Amplitude (in ``unit``) at the end of the colour bar. None takes the largest at
        the time drawn.
    unit : str
        ``"nAm"`` shows an estimate in A m in nAm. Any other text is shown as it is,
        with the numbers as they are, e.g. ``"dSPM value"``.
    title : str | None
        The title. None takes the time.
    subject : str | None
        The FreeSurfer subject. None takes that of ``stc``.
    subjects_dir : path-like | None
        FreeSurfer subjects directory. None takes MNE's setting. Not needed for the
        template ``fsaverage5``.
    backend : "matplotlib" | "pyvista"
        ``"matplotlib"`` draws a figure and needs no display. ``"pyvista"`` opens MNE's
        interactive brain, which needs ``pip install "mne-deepsif[plot]"``.

    Returns
    -------
    figure : matplotlib.figure.Figure | mne.viz.Brain
        The figure, or MNE's brain for ``backend="pyvista"``.

    See Also
    --------
    plot_compare_estimates : Several estimates side by side.
    plot_extents : The sources that :func:`estimate_extent` found.

    Notes
    -----
    Positive amplitudes are current that flows out of the cortex, along the surface
    normal. If no amplitude is negative (norms, MNE's methods without ``pick_ori``), the
    colours have no sign. Between the vertices of a decimated source space, the values
    of the nearest ones are shown, slightly smoothed.
    """
    _check_option("backend", backend, ("matplotlib", "pyvista"))
    picture = take_map(stc, initial_time, unit, vmax)
    title = picture.title if title is None else title
    hemispheres, maps = to_surface(stc, [picture], surface, subject, subjects_dir)
    views = find_views(views, maps, hemispheres)
    if backend == "pyvista":
        return _plot_brain(
            stc, picture, threshold, views, surface, subject, subjects_dir, title
        )
    height = figure_size(hemispheres, views, 2 * _WIDTH)
    figure = plt.figure(figsize=(2 * _WIDTH + 0.4, height + 1.5), layout="constrained")
    draw_map(figure, picture, maps[0], hemispheres, views, threshold)
    figure.suptitle(title)
    return figure


def plot_compare_estimates(
    stcs,
    *,
    initial_time=None,
    views=None,
    surface="inflated",
    threshold=0.3,
    vmax=None,
    unit="nAm",
    subject=None,
    subjects_dir=None,
):
    """Draw estimates side by side: before and after, or one method beside another.

    Parameters
    ----------
    stcs : dict of SourceEstimate
        The estimates, by the name to show. All are of one subject.
    initial_time : float | None
        The time to draw (s). None takes the peak of the first estimate.
    views : list of str | None
        As in :func:`plot_estimate`, chosen by all estimates. The peak is that of the
        first one.
    surface : "inflated" | "white" | "pial"
        The surface to draw on.
    threshold : float
        As in :func:`plot_estimate`.
    vmax : float | None
        As in :func:`plot_estimate`. None takes one scale for all estimates of the same
        unit.
    unit : str | dict of str
        As in :func:`plot_estimate`. A dict has the unit of each estimate, by name.
    subject : str | None
        As in :func:`plot_estimate`.
    subjects_dir : path-like | None
        As in :func:`plot_estimate`.

    Returns
    -------
    figure : matplotlib.figure.Figure
        The figure: for each estimate both hemispheres and a colour bar.
    """
    _validate_type(stcs, dict, "stcs")
    if not stcs:
        raise ValueError("stcs must hold at least one estimate, got an empty dict.")
    units = unit if isinstance(unit, dict) else dict.fromkeys(stcs, unit)
    if units.keys() != stcs.keys():
        raise ValueError(
            f"unit must have the keys of stcs, {list(stcs)}, got {list(units)}."
        )
    first = next(iter(stcs.values()))
    if initial_time is None:
        initial_time = first.times[_peak_sample(_scalar(first))]
    pictures = {
        name: take_map(stc, initial_time, units[name], vmax)
        for name, stc in stcs.items()
    }
    _share_scale(pictures.values())
    hemispheres, maps = to_surface(
        first, pictures.values(), surface, subject, subjects_dir
    )
    views = find_views(views, maps, hemispheres)
    width = 0.8 * 2 * _WIDTH
    height = figure_size(hemispheres, views, width)
    figure = plt.figure(
        figsize=(width * len(stcs) + 0.2, height + 1.7), layout="constrained"
    )
    parts = figure.subfigures(1, len(stcs), squeeze=False)[0]
    for part, (name, picture), values in zip(parts, pictures.items(), maps):
        draw_map(part, picture, values, hemispheres, views, threshold)
        part.suptitle(f"{name}\n{picture.title}")
    return figure


# --------------------------------------------------------------- one map


@dataclass(eq=False)
class Picture:
    """A map of one time.

    Attributes
    ----------
    values : list of array
        Values of the vertices; lh and rh.
    vertices : list of array of int
        The vertices.
    unit : str
        Their unit.
    title : str
        What is drawn.
    time : float
        Its time (s).
    signed : bool
        Whether the estimate has negative values.
    vmax : float
        End of the colour scale.
    """

    values: list
    vertices: list
    unit: str
    title: str
    time: float
    signed: bool
    vmax: float


def _scalar(stc):
    _validate_type(stc, (mne.SourceEstimate, mne.VectorSourceEstimate), "stc")
    return stc.magnitude() if isinstance(stc, mne.VectorSourceEstimate) else stc


def _peak_sample(stc):
    return int(np.nan_to_num(np.abs(stc.data)).max(0).argmax())


def take_map(stc, time, unit, vmax):
    """Take the map of a time; None is the peak."""
    stc = _scalar(stc)
    sample, peak = _peak_sample(stc), ", the peak"
    if time is not None:
        first, last = stc.times[[0, -1]]
        if not first - stc.tstep / 2 <= time <= last + stc.tstep / 2:
            raise ValueError(
                f"initial_time must lie between {first:g} and {last:g} s, the times of "
                f"the estimate, got {time:g}."
            )
        sample, peak = int(np.abs(stc.times - time).argmin()), ""
    data = np.nan_to_num(stc.data[:, sample]) * (1e9 if unit == "nAm" else 1.0)
    title = ""
    if len(stc.times) > 1:
        title = format_number(1e3 * stc.times[sample], ".0f") + " ms" + peak
    return Picture(
        values=np.split(data, [len(stc.vertices[0])]),
        vertices=stc.vertices,
        unit=unit,
        title=title,
        time=float(stc.times[sample]),
        signed=bool((np.nan_to_num(stc.data) < 0).any()),
        vmax=vmax or float(np.abs(data).max()) or 1.0,
    )


def format_number(value, spec):
    """Format a number with a true minus sign, as axes do, and none before a zero.

    Parameters
    ----------
    value : float
        The number.
    spec : str
        The format.

    Returns
    -------
    text : str
        The number.
    """
    return format(value, f"z{spec}").replace("-", "−")


def _share_scale(pictures):
    """Give maps of the same unit the same scale."""
    largest = {}
    for picture in pictures:
        largest[picture.unit] = max(picture.vmax, largest.get(picture.unit, 0.0))
    for picture in pictures:
        picture.vmax = largest[picture.unit]


def to_surface(stc, pictures, surface, subject, subjects_dir):
    """Read the surfaces, and spread the maps over them."""
    pictures = list(pictures)
    used = [
        np.concatenate([picture.vertices[hemi] for picture in pictures])
        for hemi in range(2)
    ]
    subject = stc.subject if subject is None else subject
    hemispheres = read_hemispheres(subject, used, surface, subjects_dir)
    maps = [
        [
            spread(values, vertno, hemisphere)
            for values, vertno, hemisphere in zip(
                picture.values, picture.vertices, hemispheres
            )
        ]
        for picture in pictures
    ]
    return hemispheres, maps


def find_views(views, maps, hemispheres):
    """Check the views; None chooses them by the clear part of all maps."""
    if views is not None:
        return check_views(views)
    clear = [_clear_part(values) for values in maps]
    peak = np.concatenate(clear[0]).argmax()  # that of the first estimate
    return choose_views([sum(hemi) for hemi in zip(*clear)], peak, hemispheres)


def _clear_part(values):
    """Return the share of the largest amplitude where it is above a half, else 0."""
    values = [np.abs(hemi) for hemi in values]
    largest = max(hemi.max() for hemi in values) or 1.0
    return [np.where(hemi > largest / 2, hemi / largest, 0.0) for hemi in values]


# ------------------------------------------------------------------ drawing


def draw_map(figure, picture, maps, hemispheres, views, threshold, label=None):
    """Draw a map on both hemispheres, with a colour bar.

    Parameters
    ----------
    figure : Figure | SubFigure
        Where to draw.
    picture : Picture
        The map; its scale and unit count here.
    maps : list of array of shape (n_vertices,)
        Its values on the whole surface; lh and rh.
    hemispheres : list of Hemisphere
        The surfaces.
    views : list of str
        The views.
    threshold : float
        Share of the scale below which nothing is shown.
    label : str | None
        Label of the colour bar. None makes it from the unit.
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold must be from 0 to below 1, got {threshold}.")
    low = -picture.vmax if picture.signed else 0.0
    norm = Normalize(low, picture.vmax)
    cmap = mpl.colormaps[_SIGNED if picture.signed else _UNSIGNED]
    axes = make_axes(figure, hemispheres, views)
    for row, view in zip(axes, views):
        for ax, values, hemisphere in zip(row, maps, hemispheres):
            alpha = _fade(values / picture.vmax, threshold)
            draw(ax, hemisphere, view, cmap(norm(values))[:, :3], alpha)
    bar = plt.cm.ScalarMappable(norm, _bar_colors(cmap, norm, picture.vmax, threshold))
    bar = figure.colorbar(bar, ax=axes, location="bottom", shrink=0.6, aspect=30)
    bar.set_label(_bar_label(picture) if label is None else label)


def _fade(share, threshold):
    return np.clip((np.abs(share) - threshold) / _SOFT, 0, 1)


def _bar_colors(cmap, norm, vmax, threshold):
    """Return the colours as they look on the cortex."""
    values = np.linspace(norm.vmin, norm.vmax, 256)
    alpha = _fade(values / vmax, threshold)[:, np.newaxis]
    return ListedColormap(alpha * cmap(norm(values))[:, :3] + (1 - alpha) * _CORTEX)


def _bar_label(picture):
    name = f"amplitude ({picture.unit})" if picture.unit == "nAm" else picture.unit
    return f"{name}\n+ out of the cortex, − into it" if picture.signed else name


def _plot_brain(stc, picture, threshold, views, surface, subject, subjects_dir, title):
    """Open MNE's brain."""
    if find_spec("pyvista") is None:
        raise ImportError(
            'backend="pyvista" needs PyVista, which is not installed: pip install '
            '"mne-deepsif[plot]". backend="matplotlib" does without.'
        )
    stc = _scalar(stc)
    subject = stc.subject if subject is None else subject
    folder = find_folder(subject, stc.vertices, surface, subjects_dir)
    limits = np.array([threshold, (1 + threshold) / 2, 1.0]) * picture.vmax
    return (stc * 1e9 if picture.unit == "nAm" else stc).plot(
        subject=folder.parent.name,
        subjects_dir=folder.parents[1],
        surface=surface,
        hemi="split",
        views=views,
        initial_time=picture.time,
        colormap=_SIGNED if picture.signed else _UNSIGNED,
        background="white",
        clim=dict(kind="value", **{"pos_lims" if picture.signed else "lims": limits}),
        title=title,
    )

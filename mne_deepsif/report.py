"""A recording's estimate as a section of MNE's HTML report."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from html import escape

import mne
import numpy as np
from matplotlib import pyplot as plt
from mne.utils import _validate_type, verbose

from .apply import apply_deepsif
from .extent import estimate_extent
from .goodness import explained_by
from .inverse.operator import make_deepsif_operator
from .trust.report import assess_deepsif
from .viz.estimates import plot_estimate
from .viz.sources import plot_extent_courses, plot_extents
from .viz.verdict import plot_trust

_HEADER = (
    *("extent", "area (cm²)", "sure (%)", "peak (ms)", "peak (nAm)", "explained (%)"),
    *("x, y, z (mm)", "MNI x, y, z (mm)"),
)
_NOTHING = "<p>Nothing stands out of the estimate: there is no extent.</p>"


@verbose
def add_deepsif(
    report,
    evoked,
    fwd,
    noise_cov=None,
    *,
    estimator="generic",
    windows=None,
    min_area=1e-4,
    n_passes=10,
    rank=None,
    subjects_dir=None,
    title="DeepSIF",
    tags=("deepsif",),
    replace=False,
    verbose=None,
):
    """Estimate the sources of an Evoked and add them to a report of MNE.

    Parameters
    ----------
    report : mne.Report
        The report. It is changed in place.
    evoked : Evoked
        The data.
    fwd : Forward
        As in :func:`apply_deepsif`.
    noise_cov : Covariance | None
        As in :func:`apply_deepsif`.
    estimator : str | path-like | DeepSIFEstimator
        As in :func:`apply_deepsif`.
    windows : list of tuple | None
        As in :func:`estimate_extent`.
    min_area : float
        As in :func:`estimate_extent`, but extents below 1 cm² are left out by default.
    n_passes : int
        As in :func:`assess_deepsif`. 0 leaves out the map of confidence.
    rank : None | 'info' | 'full' | dict
        As in :func:`apply_deepsif`.
    subjects_dir : path-like | None
        FreeSurfer subjects directory, with the surfaces to draw on. None takes MNE's
        setting. Not needed for the template ``fsaverage5``.
    title : str
        Title of the section.
    tags : tuple of str
        Tags of its parts, as in :class:`mne.Report`.
    replace : bool
        Whether to replace the parts of a section of the same title.
    %(verbose)s

    See Also
    --------
    plot_estimate : The first figure alone.

    Notes
    -----
    The section holds the estimate at its peak, a table of the extents with the share of
    the data that each explains, the extents on the cortex, their time courses, and the
    trust report. The figures are made with matplotlib, so the report needs neither
    PyVista nor a display.
    """
    _validate_type(report, mne.Report, "report")
    _validate_type(evoked, mne.Evoked, "evoked")
    _validate_type(fwd, mne.Forward, "fwd")
    operator = make_deepsif_operator(
        evoked.info,
        fwd,
        noise_cov,
        estimator=estimator,
        rank=rank,
        subjects_dir=subjects_dir,
    )
    stc = apply_deepsif(evoked, operator)
    trust = assess_deepsif(evoked, operator, n_passes=n_passes)
    if noise_cov is None:
        noise_cov = mne.make_ad_hoc_cov(evoked.info)
    extents = estimate_extent(
        stc,
        fwd,
        evoked,
        noise_cov,
        windows=windows,
        min_area=min_area,
        rank=rank,
        subjects_dir=subjects_dir,
    )
    shares = explained_by(extents, stc, evoked, fwd, noise_cov, rank=rank)
    place = dict(subjects_dir=subjects_dir)
    parts = {"Estimate at its peak": plot_estimate(stc, **place)}
    parts["Table of extents"] = _make_table(extents, shares)
    parts["Extents"] = plot_extents(extents, **place) if extents else _NOTHING
    parts["Time courses"] = plot_extent_courses(extents, stc) if extents else _NOTHING
    parts["Trust"] = plot_trust(trust, **place)
    for name, part in parts.items():
        where = dict(title=name, section=title, tags=tags, replace=replace)
        if isinstance(part, str):
            report.add_html(part, **where)
        else:
            report.add_figure(part, **where)
            plt.close(part)


def _make_table(extents, shares):
    """Return the extents as an HTML table."""
    if not extents:
        return _NOTHING
    rows = ["".join(f"<th>{name}</th>" for name in _HEADER)]
    for extent, share in zip(extents, shares, strict=True):
        cells = [
            escape(extent.label.name),
            f"{1e4 * extent.area:.1f}",
            f"{100 * extent.probability:.0f}",
            f"{1e3 * extent.peak_time:.0f}",
            f"{1e9 * extent.peak_amplitude:.2g}",
            f"{100 * share:.0f}",
            _format_place(extent.position),
            _format_place(extent.position_mni),
        ]
        rows.append("".join(f"<td>{cell}</td>" for cell in cells))
    rows = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<table class="table table-striped">{rows}</table>'


def _format_place(position):
    if np.isnan(position).any():
        return "unknown"
    return ", ".join(f"{1e3 * x:.0f}" for x in position)

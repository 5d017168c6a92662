"""The figure of a trust report."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import textwrap

import numpy as np
from matplotlib import pyplot as plt
from mne.utils import _validate_type

from ..trust.report import TrustReport
from .cortex import figure_size
from .estimates import draw_map, find_views, take_map, to_surface

_NAMES = {
    "good": "brain activity",
    "noise": "sensor noise",
    "blink": "blink",
    "line": "power line",
    "electrode": "bad electrode",
}
_GOOD, _BAD = "#2a7f3f", "#b5422c"


def plot_trust(report, *, views=None, surface="inflated", subjects_dir=None):
    """Draw a trust report: the verdict, its numbers, and the map of confidence.

    Parameters
    ----------
    report : TrustReport
        The report of :func:`assess_deepsif`.
    views : list of str | None
        As in :func:`plot_estimate`.
    surface : "inflated" | "white" | "pial"
        The surface to draw on.
    subjects_dir : path-like | None
        As in :func:`plot_estimate`.

    Returns
    -------
    figure : matplotlib.figure.Figure
        The figure: what the data look like, the share of them that the estimate
        explains over time, and the probability that a vertex is active. The last part
        is missing if the report has no maps (``n_passes=0``).
    """
    _validate_type(report, TrustReport, "report")
    has_map = report.confidence is not None
    height = 4.0
    if has_map:
        picture = take_map(report.confidence, None, "", 1.0)
        hemispheres, maps = to_surface(
            report.confidence, [picture], surface, None, subjects_dir
        )
        views = find_views(views, maps, hemispheres)
        height = max(height, figure_size(hemispheres, views, 5.0) + 1.2)
    headline = _headline(report, 90 if has_map else 45)
    height += 0.2 * headline.count("\n")
    figure = plt.figure(figsize=(9.4 if has_map else 4.8, height), layout="constrained")
    color = _GOOD if report.is_trustworthy else _BAD
    figure.suptitle(headline, color=color, size="medium")
    left = figure
    if has_map:
        left, right = figure.subfigures(1, 2, width_ratios=(4, 5))
        label = "probability that there is activity"
        draw_map(right, picture, maps[0], hemispheres, views, 0.1, label)
    bars, fit = left.subplots(2, 1)
    _draw_probabilities(bars, report.probabilities)
    _draw_fit(fit, report)
    return figure


def _headline(report, width):
    """Return the reasons, one below the other, in lines of up to a width."""
    reasons = report.reasons or ["nothing speaks against the estimate"]
    return "\n".join(textwrap.fill(r[0].upper() + r[1:], width) for r in reasons)


def _draw_probabilities(ax, probabilities):
    colors = [_GOOD if kind == "good" else _BAD for kind in probabilities]
    names = [_NAMES[kind] for kind in probabilities]
    shares = 100 * np.array(list(probabilities.values()))
    bars = ax.barh(names, shares, color=colors)
    ax.bar_label(bars, fmt="%.0f %%", padding=3)
    ax.invert_yaxis()
    ax.set(xlim=(0, 118), xticks=(0, 50, 100), xlabel="probability (%)")
    ax.set_title("The data look like")
    ax.spines[["top", "right"]].set_visible(False)


def _draw_fit(ax, report):
    share = 100 * np.clip(report.goodness_of_fit, 0, 1)
    ax.plot(1e3 * report.times, share, color="0.2")
    ax.set(xlabel="time (ms)", ylabel="of the data (%)", ylim=(0, 100))
    ax.set_xlim(1e3 * report.times[[0, -1]] if len(report.times) > 1 else None)
    ax.set_title("The estimate explains")
    ax.spines[["top", "right"]].set_visible(False)

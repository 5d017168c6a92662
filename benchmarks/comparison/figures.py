"""Figures of a comparison, as in the papers."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import re

import matplotlib.pyplot as plt

# what a figure's axis shows, and how it stands in the names of scenarios
AXES = {
    "radius": ("radius of the source (mm)", r"^(.+): radius (\d+) mm$"),
    "snr": ("SNR (dB)", r"^(.+): SNR (\d+) dB$"),
    "electrodes": (
        "electrodes",
        r"^template (biosemi|GSN-HydroCel-)(\d+)\S*, error none: radius 14 mm$",
    ),
}


def plot(rows, summary, folder, prefix):
    """Draw all figures for which there are rows.

    Parameters
    ----------
    rows, summary : DataFrame
        See :mod:`~.report`.
    folder : Path
        Where to write.
    prefix : str
        How the files' names begin.

    Returns
    -------
    fnames : list of Path
        The figures.
    """
    fnames = [plot_distributions(rows, folder / f"{prefix}_peaks.png")]
    for name, (label, pattern) in AXES.items():
        fname = folder / f"{prefix}_{name}.png"
        if plot_curves(summary, label, pattern, fname):
            fnames.append(fname)
    return fnames


def plot_distributions(rows, fname):
    """Draw the distribution of the peak errors of each method at its best settings."""
    rows = rows[(rows["metric"] == "peak") & (rows["choice"] == "best")].dropna(
        subset="value"
    )
    names = list(dict.fromkeys(rows["method"]))
    values = [rows.loc[rows["method"] == name, "value"] for name in names]
    fig, ax = plt.subplots(figsize=(7, 0.4 * len(names) + 1), layout="constrained")
    ax.boxplot(values, orientation="horizontal", tick_labels=names, showmeans=True)
    ax.invert_yaxis()
    ax.set(xlabel="peak error of a sample (mm), all scenarios", xscale="symlog")
    fig.savefig(fname, dpi=150)
    plt.close(fig)
    return fname


def plot_curves(summary, label, pattern, fname):
    """Draw mean peak error over a property of the source; False if there is none."""
    rows = summary[(summary["metric"] == "peak") & (summary["choice"] == "best")]
    found = {}
    for row in rows.itertuples():
        if match := re.match(pattern, row.scenario):
            where, value = match[1], float(match[2])
            curves = found.setdefault(where, {})
            curves.setdefault(row.method, {})[value] = row.mean
    found = {where: curves for where, curves in found.items() if _is_curve(curves)}
    if not found:
        return False
    size = dict(figsize=(4 * len(found) + 1.5, 3.5), sharey=True, squeeze=False)
    fig, axes = plt.subplots(1, len(found), layout="constrained", **size)
    for ax, (where, curves) in zip(axes[0], found.items()):
        for method, curve in curves.items():
            points = sorted(curve.items())
            ax.plot(*zip(*points), marker="o", label=method)
        ax.set(xlabel=label, title=where)
    axes[0, 0].set(ylabel="mean peak error (mm)")
    fig.legend(*ax.get_legend_handles_labels(), loc="outside right center")
    fig.savefig(fname, dpi=150)
    plt.close(fig)
    return True


def _is_curve(curves):
    return max(len(curve) for curve in curves.values()) > 1

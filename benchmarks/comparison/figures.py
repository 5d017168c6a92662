"""Figures of a comparison, as in the papers. Each is drawn from rows of the store."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from mne_deepsif.metrics import linear_correlation

from .maps import plot_maps

# what a figure's axis shows, and how it stands in the names of scenarios
AXES = {
    "radius": ("radius of the source (mm)", r"^(.+): radius (\d+) mm$"),
    "snr": ("SNR (dB)", r"^(.+): SNR (\d+) dB$"),
    "electrodes": (
        "electrodes",
        r"^template (biosemi|GSN-HydroCel-)(\d+)\S*, error none: radius 14 mm$",
    ),
}
# one source, in forwards that are wrong
SINGLE = r"^sample (eeg|mag), error all: (radius \d+ mm|SNR \d+ dB)$"
PAIR = r"^sample (eeg|mag), error all: pair (\d+-\d+) mm apart, correlation (\S+)$"
KINDS = {"eeg": "EEG", "mag": "magnetometers"}
WRONG = "head, electrodes and skull are wrong"
# a panel for each: heading, metric, limits
SCORES = (
    ("peak error (mm)", "peak", (0, 40)),
    ("localization error (mm)", "le", (0, 60)),
    ("earth mover's distance (mm)", "emd", (0, 80)),
    ("spatial dispersion (mm)", "dispersion", (0, 80)),
    ("AUC", "auc", (0.5, 1)),
    ("average precision", "ap", (0, 1)),
    ("precision", "precision", (0, 1)),
    ("recall", "recall", (0, 1)),
    ("specificity", "specificity", (0, 1)),
)
FREE = ("peak", "emd", "dispersion", "auc", "ap")  # of no rule
# methods of the figures that have panels for each; the tables have them all
DETAILED = ("DeepSIF", "dSPM", "sLORETA", "eLORETA", "LCMV")
N_BINS = 5  # of depth
SAVE = dict(dpi=120)


def plot(rows, summary, rules, folder, prefix):
    """Draw all figures for which there are rows.

    Parameters
    ----------
    rows, summary : DataFrame
        See :mod:`~.report`.
    rules : dict
        See :func:`~.report.best_rules`.
    folder : Path
        Where to write.
    prefix : str
        How the files' names begin.

    Returns
    -------
    fnames : list of Path
        The figures.
    """
    rows = at_best(rows, rules)
    drawn = {name: plot_curves(summary, *what) for name, what in AXES.items()}
    drawn["distributions"] = plot_distributions(rows)
    drawn["depth"] = plot_depth(rows)
    drawn["pairs"] = plot_pairs(rows)
    drawn["areas"] = plot_areas(rows)
    detailed = rows[rows["method"].isin(DETAILED)]
    drawn["maps"] = plot_maps(of_single(detailed), KINDS, WRONG)
    fnames = []
    for name, figure in drawn.items():
        if figure is not None:
            fnames.append(folder / f"{prefix}_{name}.png")
            figure.savefig(fnames[-1], **SAVE)
            plt.close(figure)
    return fnames


# ---------------------------------------------------------------- rows
def at_best(rows, rules):
    """Return the scores of each method at its best settings and its best rule.

    Columns are scores, and what is known of the samples.
    """
    rows = rows[rows["choice"] == "best"]
    keys = zip(rows["scenario"], rows["method"], rows["settings"])
    best = pd.Series([rules.get(key, "otsu") for key in keys], rows.index)
    rows = rows[rows["rule"].isin(("-",)) | (rows["rule"] == best)]
    where = ["scenario", "method", "sample"]
    known = rows.groupby(where, sort=False)[["vertex", "depth", "snr"]].first()
    scores = rows.pivot_table("value", where, "metric", sort=False)
    return scores.join(known).reset_index()


def of_single(rows):
    """Return the samples of one source in wrong forwards, with their ``kind``."""
    found = rows["scenario"].str.extract(SINGLE)
    rows = rows.assign(kind=found[0])[found[0].notna()]
    return rows[rows["depth"].notna()] if len(rows) else rows


def panels(rows, height=3.0, width=4.0, **options):
    """Make a panel for each kind of sensors; return figure, and (kind, axes, rows)."""
    kinds = [kind for kind in KINDS if (rows["kind"] == kind).any()]
    size = (width * len(kinds) + 1.6, height)
    fig, axes = plt.subplots(
        1, len(kinds), figsize=size, layout="constrained", squeeze=False, **options
    )
    found = [(ax, rows[rows["kind"] == kind]) for ax, kind in zip(axes[0], kinds)]
    for (ax, part), kind in zip(found, kinds):
        ax.set_title(f"{KINDS[kind]}, n = {count(part)}")
    return fig, found


def count(rows):
    """Return the number of samples of a method."""
    return rows.groupby("method", sort=False).size().max()


def colors(methods):
    """Give each method its colour."""
    return {name: f"C{number}" for number, name in enumerate(dict.fromkeys(methods))}


# ---------------------------------------------------------------- figures
def plot_distributions(rows):
    """Draw the distribution of each score for each method; None without rows."""
    rows = of_single(rows)
    if not len(rows):
        return None
    kinds = [kind for kind in KINDS if (rows["kind"] == kind).any()]
    methods = list(dict.fromkeys(rows["method"]))
    size = (11, 3 * (0.16 * len(methods) * len(kinds) + 0.75) + 0.4)
    fig, axes = plt.subplots(3, 3, figsize=size, layout="constrained", sharey=True)
    offsets = np.linspace(-0.2, 0.2, len(kinds)) if len(kinds) > 1 else [0.0]
    handles = []
    for ax, (heading, metric, limits) in zip(axes.flat, SCORES):
        for kind, offset, color in zip(kinds, offsets, ("C0", "C1")):
            part = rows[rows["kind"] == kind]
            scores = [part.loc[part["method"] == name, metric] for name in methods]
            boxes = ax.boxplot(
                [values.dropna() for values in scores],
                positions=np.arange(len(methods)) + offset,
                widths=0.32,
                orientation="horizontal",
                patch_artist=True,
                showfliers=False,
                showmeans=True,
                meanprops=dict(marker="D", ms=4, mfc="white", mec="black"),
                medianprops=dict(color="black"),
                boxprops=dict(facecolor=color, alpha=0.6),
                manage_ticks=False,
            )
            if metric == SCORES[0][1]:
                handles.append((boxes["boxes"][0], f"{KINDS[kind]}, n = {count(part)}"))
        ax.set(xlabel=heading, xlim=limits)
        ax.set_yticks(range(len(methods)), methods)
        ax.grid(axis="x", alpha=0.3)
    axes[0, 0].invert_yaxis()
    fig.suptitle(f"One source; {WRONG}. Diamonds are means", size="medium")
    fig.legend(*zip(*handles), loc="outside lower center", ncols=2, frameon=False)
    return fig


def plot_depth(rows):
    """Draw the mean peak error over depth; None without rows."""
    rows = of_single(rows)
    if not len(rows):
        return None
    fig, found = panels(rows, sharey=True)
    shades = colors(rows["method"])
    for ax, part in found:
        edges = np.quantile(part["depth"], np.linspace(0, 1, N_BINS + 1))
        bins = np.digitize(part["depth"], edges[1:-1])
        for method, one in part.groupby("method", sort=False):
            groups = one.groupby(bins[part["method"] == method])
            error = groups["peak"].sem(ddof=0)
            style = dict(marker="o", color=shades[method], label=method, capsize=2)
            means = groups["depth"].mean(), groups["peak"].mean()
            ax.errorbar(*means, error, **style)
        ax.set(xlabel="depth of the source (mm)")
        ax.grid(alpha=0.3)
    found[0][0].set(ylabel="peak error (mm): mean ± s.e.", ylim=(0, None))
    finish(fig, f"One source; {WRONG}")
    return fig


def finish(fig, title):
    """Add the title and the methods' names."""
    fig.suptitle(title, size="medium")
    handles = fig.axes[0].get_legend_handles_labels()
    fig.legend(*handles, loc="outside right center", frameon=False)


def plot_pairs(rows):
    """Draw the F1 of two sources by distance and correlation; None without rows."""
    found = rows["scenario"].str.extract(PAIR)
    rows = rows.assign(kind=found[0], apart=found[1], correlation=found[2])
    rows = rows[rows["kind"].notna() & rows["method"].isin(DETAILED)]
    if not len(rows):
        return None
    kinds = [kind for kind in KINDS if (rows["kind"] == kind).any()]
    methods = list(dict.fromkeys(rows["method"]))
    size = (1.9 * len(methods) + 1.2, 1.9 * len(kinds) + 0.8)
    fig, axes = plt.subplots(
        *(len(kinds), len(methods)),
        **dict(figsize=size, layout="constrained", squeeze=False),
        **dict(sharex=True, sharey=True),
    )
    for row, kind in zip(axes, kinds):
        for ax, method in zip(row, methods):
            part = rows[(rows["kind"] == kind) & (rows["method"] == method)]
            table = part.pivot_table("f1", "correlation", "apart")
            image = ax.imshow(table, vmin=0, vmax=1, cmap="viridis", origin="lower")
            for (y, x), value in np.ndenumerate(table.to_numpy()):
                shade = "black" if value > 0.6 else "white"
                ax.text(x, y, f"{value:.2f}", ha="center", va="center", color=shade)
            ax.set_xticks(range(table.shape[1]), table.columns)
            ax.set_yticks(range(table.shape[0]), table.index)
        row[0].set_ylabel(f"{KINDS[kind]}\ncorrelation")
    for ax, method in zip(axes[0], methods):
        ax.set_title(method, size="medium")
    fig.supxlabel("distance of the two sources (mm)", size="medium")
    n = int(rows.groupby(["scenario", "method"]).size().max())
    fig.suptitle(f"{WRONG.capitalize()}; n = {n} in each square", size="medium")
    fig.colorbar(image, ax=axes, label="mean F1 of active cortex")
    return fig


def plot_areas(rows):
    """Draw estimated over true areas of each method; None without rows."""
    rows = of_single(rows)
    rows = rows[rows["area_ratio"] > 0] if len(rows) else rows
    if not len(rows):
        return None
    rows = rows[rows["method"].isin(DETAILED)]
    methods = list(dict.fromkeys(rows["method"]))
    size = (2.2 * len(methods) + 0.6, 3.3)
    options = dict(sharex=True, sharey=True, squeeze=False, layout="constrained")
    fig, axes = plt.subplots(1, len(methods), figsize=size, **options)
    for ax, method in zip(axes[0], methods):
        one = rows[rows["method"] == method]
        ax.axline((1, 1), (10, 10), color="gray", lw=1)
        found = []
        for kind, marker in zip(KINDS, "o^"):
            part = one[one["kind"] == kind]
            if len(part) > 1:
                true = part["area"] / part["area_ratio"]
                style = dict(ms=4, mew=0, alpha=0.5)
                label = f"{KINDS[kind]}, n = {len(part)}"
                ax.plot(true, part["area"], marker, label=label, **style)
                r = linear_correlation(true.to_numpy(), part["area"].to_numpy())
                found.append(f"{float(r):.2f}")
        ax.set_title(f"{method}\nr = {', '.join(found)}", size="medium")
        ax.set(xscale="log", yscale="log", xlabel="true area (cm²)")
    axes[0, 0].set(ylabel="estimated area (cm²)")
    fig.suptitle(f"One source; {WRONG}", size="medium")
    handles = axes[0, 0].get_legend_handles_labels()
    fig.legend(*handles, loc="outside lower center", ncols=2, frameon=False)
    return fig


def plot_curves(summary, label, pattern):
    """Draw mean peak error over a property of the source; None if there is none."""
    rows = summary[(summary["metric"] == "peak") & (summary["choice"] == "best")]
    found = {}
    for row in rows.itertuples():
        if match := re.match(pattern, row.scenario):
            where, value = match[1], float(match[2])
            curves = found.setdefault(where, {})
            error = row.sd / np.sqrt(row.n)
            curves.setdefault(row.method, {})[value] = row.mean, error, row.n
    found = {where: curves for where, curves in found.items() if _is_curve(curves)}
    if not found:
        return None
    n_columns = min(len(found), 2)
    n_rows = -(-len(found) // n_columns)
    size = dict(figsize=(4 * n_columns + 1.6, 2.9 * n_rows + 0.2), squeeze=False)
    shades = colors(rows["method"])
    fig, axes = plt.subplots(
        n_rows, n_columns, layout="constrained", sharey=True, **size
    )
    for ax, (where, curves) in zip(axes.flat, found.items()):
        for method, curve in curves.items():
            values, points = zip(*sorted(curve.items()))
            mean, error, n = zip(*points)
            style = dict(marker="o", color=shades[method], label=method, capsize=2)
            ax.errorbar(values, mean, error, **style)
        ax.set(xlabel=label, title=f"{_title(where)}, n = {min(n):.0f} each")
        ax.grid(alpha=0.3)
    for ax in axes[:, 0]:
        ax.set(ylabel="peak error (mm): mean ± s.e.", ylim=(0, None))
    handles = axes[0, 0].get_legend_handles_labels()
    fig.legend(*handles, loc="outside right center", frameon=False)
    return fig


def _title(where):
    """Return what the sensors are, and whether the forward is right."""
    match = re.match(r"^sample (eeg|mag), error (none|all)$", where)
    if match is None:
        return where
    return f"{KINDS[match[1]]}, {dict(none='right', all='wrong')[match[2]]} forward"


def _is_curve(curves):
    return max(len(curve) for curve in curves.values()) > 1

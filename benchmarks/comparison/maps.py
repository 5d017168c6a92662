"""Maps of the mean error over the cortex, drawn from rows of the store."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import Normalize
from scipy.spatial import KDTree

from mne_deepsif.viz.cortex import draw, make_axes, read_hemispheres

WIDTH = 20.0  # mm, standard deviation of the average over neighbouring sources
FAR = 30.0  # mm; cortex that is farther from any source stays grey
WORST = 20.0  # mm, end of the scale
VIEWS = ["lateral", "medial"]
N_HEMI = 10_242  # vertices of fsaverage5, which all subjects here share


def plot_maps(rows, kinds, title):
    """Draw the mean peak error around each place; None without rows.

    Parameters
    ----------
    rows : DataFrame
        Samples of one source: ``vertex``, ``peak`` (mm), ``method``, ``kind``.
    kinds : dict of str
        Names of the kinds of sensors.
    title : str
        What the forwards are.

    Returns
    -------
    fig : Figure | None
        The maps: a row for each kind of sensors, a column for each method.
    """
    rows = rows.dropna(subset=["vertex", "peak"]) if len(rows) else rows
    if not len(rows):
        return None
    methods = list(dict.fromkeys(rows["method"]))
    kinds = {kind: name for kind, name in kinds.items() if (rows["kind"] == kind).any()}
    hemispheres = read_hemispheres("fsaverage5", [[], []])
    places = read_hemispheres("fsaverage5", [[], []], "white")
    norm, cmap = Normalize(0, WORST), mpl.colormaps["viridis_r"]
    widths = [2.1 * len(methods), 1.0]
    size = (sum(widths), 2.0 * len(kinds) + 0.4)
    fig = plt.figure(figsize=size, layout="constrained")
    left, right = fig.subfigures(1, 2, width_ratios=widths)
    grid = left.subfigures(len(kinds), len(methods), squeeze=False)
    for line, (kind, name) in zip(grid, kinds.items()):
        for part, method in zip(line, methods):
            one = rows[(rows["kind"] == kind) & (rows["method"] == method)]
            axes = make_axes(part, hemispheres, VIEWS)
            for row, view in zip(axes, VIEWS):
                row[0].set_ylabel("")
                for ax, hemisphere, surface, first in zip(
                    row, hemispheres, places, (0, N_HEMI)
                ):
                    mean, known = average(one, surface.rr, first)
                    draw(ax, hemisphere, view, cmap(norm(mean))[:, :3], known)
            part.suptitle(f"{method}, {name}, n = {len(one)}", size="x-small")
    scale = plt.cm.ScalarMappable(norm, cmap)
    ax = right.subplots(gridspec_kw=dict(left=0.1, right=0.3, bottom=0.15, top=0.85))
    fig.colorbar(scale, cax=ax, extend="max", label="mean peak error (mm)")
    fig.suptitle(f"One source; {title}", size="medium")
    return fig


def average(rows, places, first):
    """Average the errors of the sources around each place of a hemisphere.

    Returns
    -------
    mean : array of shape (n_vertices,)
        The mean, weighted by a Gaussian of the distance.
    known : array of shape (n_vertices,)
        1 where a source is near enough, else 0.
    """
    vertex = rows["vertex"].to_numpy().astype(int) - first
    here = (vertex >= 0) & (vertex < len(places))
    sources, errors = places[vertex[here]], rows["peak"].to_numpy()[here]
    if not len(sources):
        return np.zeros(len(places)), np.zeros(len(places))
    gaps = np.linalg.norm(places[:, np.newaxis] - sources, axis=2)
    weights = np.exp(-((gaps / WIDTH) ** 2) / 2)
    near = KDTree(sources).query(places)[0] <= FAR
    return weights @ errors / np.maximum(weights.sum(axis=1), 1e-12), near.astype(float)

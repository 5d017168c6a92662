"""Reliability diagrams: how often what is likely to be so is so."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np


def draw_reliability(curve, fname, *, xlabel, ylabel):
    """Draw what :func:`mne_deepsif.metrics.reliability_curve` returned.

    Parameters
    ----------
    curve : tuple of array
        Predicted probability, observed share and count of each bin.
    fname : Path
        The figure.
    xlabel, ylabel : str
        What was predicted, and what was observed.
    """
    import matplotlib.pyplot as plt

    predicted, observed, counts = (np.asarray(part) for part in curve)
    fig, ax = plt.subplots(figsize=(4, 4), layout="constrained")
    ax.plot([0, 1], [0, 1], ":", color="gray", label="perfect")
    error = np.sqrt(observed * (1 - observed) / counts)
    ax.errorbar(predicted, observed, error, marker="o", label="not fitted on")
    for x, y, count in zip(predicted, observed, counts):
        ax.annotate(f"{count}", (x, y), (4, -10), textcoords="offset points", size=7)
    ax.set(xlabel=xlabel, ylabel=ylabel, xlim=(0, 1), ylim=(0, 1))
    ax.legend()
    fig.savefig(fname, dpi=120)

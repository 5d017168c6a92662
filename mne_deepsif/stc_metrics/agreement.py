"""Scores that need no threshold."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np

from .. import metrics
from .source_space import on_source_space, owned_areas, true_and_estimate


def linear_correlation(stc_true, stc_est, src):
    """Compute Pearson's correlation of the waveforms, averaged over the true area.

    Parameters
    ----------
    stc_true, stc_est : SourceEstimate
        The true and the estimated activity, at the same times.
    src : SourceSpaces
        The surface source space that holds the vertices of both.

    Returns
    -------
    correlation : float
        Between -1 and 1; NaN if nothing is true.
    """
    true = on_source_space(stc_true, src, "stc_true")
    sources = on_source_space(stc_est, src, "stc_est")
    if true.shape != sources.shape:
        raise ValueError(
            "stc_true and stc_est must have the same times, got "
            f"{true.shape[1]} and {sources.shape[1]}. Crop or resample one of them."
        )
    rows = true.any(axis=1)
    if not rows.any():
        return np.nan
    each = metrics.linear_correlation(true[rows], sources[rows])
    return float(np.average(each, weights=owned_areas(src)[rows]))


def roc_auc(stc_true, stc_est, src):
    """Compute the area under the ROC curve.

    See :func:`mne_deepsif.metrics.roc_auc`. Vertices count alike. For one time, and
    estimates that hold all vertices of ``src``, it is
    :func:`mne.simulation.metrics.roc_auc_score`.

    Parameters
    ----------
    stc_true, stc_est : SourceEstimate
        The true and the estimated activity.
    src : SourceSpaces
        The surface source space that holds the vertices of both.

    Returns
    -------
    auc : float
        Between 0 and 1; 0.5 for chance. NaN if no vertex is true, or all are.
    """
    return metrics.roc_auc(*true_and_estimate(stc_true, stc_est, src))


def average_precision(stc_true, stc_est, src):
    """Compute the average precision, the area under the precision-recall curve.

    See :func:`mne_deepsif.metrics.average_precision`. Vertices count alike.

    Parameters
    ----------
    stc_true, stc_est : SourceEstimate
        The true and the estimated activity.
    src : SourceSpaces
        The surface source space that holds the vertices of both.

    Returns
    -------
    average_precision : float
        Between 0 and 1; NaN if no vertex is true.
    """
    return metrics.average_precision(*true_and_estimate(stc_true, stc_est, src))


def reliability_curve(stc_true, stc_prob, src, *, n_bins=10):
    """Compare probabilities of being active with how often they come true.

    See :func:`mne_deepsif.metrics.reliability_curve`.

    Parameters
    ----------
    stc_true : SourceEstimate
        The true activity.
    stc_prob : SourceEstimate
        The probability that a vertex is active, at a single time, such as
        ``TrustReport.confidence``. Vertices that it lacks have probability 0.
    src : SourceSpaces
        The surface source space that holds the vertices of both.
    n_bins : int
        The number of bins.

    Returns
    -------
    predicted, observed : array of shape (n_filled,)
        The mean probability and the share of true vertices in each bin that holds
        vertices.
    counts : array of int, shape (n_filled,)
        The number of vertices in it.
    """
    true, probabilities = _true_and_probabilities(stc_true, stc_prob, src)
    return metrics.reliability_curve(true, probabilities, n_bins)


def expected_calibration_error(stc_true, stc_prob, src, *, n_bins=10):
    """Compute by how much probabilities of being active are off, on average.

    See :func:`mne_deepsif.metrics.expected_calibration_error`.

    Parameters
    ----------
    stc_true : SourceEstimate
        The true activity.
    stc_prob : SourceEstimate
        The probability that a vertex is active, at a single time, such as
        ``TrustReport.confidence``. Vertices that it lacks have probability 0.
    src : SourceSpaces
        The surface source space that holds the vertices of both.
    n_bins : int
        The number of bins.

    Returns
    -------
    error : float
        Between 0 and 1; 0 if all probabilities come true.
    """
    true, probabilities = _true_and_probabilities(stc_true, stc_prob, src)
    return metrics.expected_calibration_error(true, probabilities, n_bins)


def _true_and_probabilities(stc_true, stc_prob, src):
    true = on_source_space(stc_true, src, "stc_true").any(axis=1)
    probabilities = on_source_space(stc_prob, src, "stc_prob")
    if probabilities.shape[1] != 1:
        raise ValueError(
            f"stc_prob must have a single time, got {probabilities.shape[1]}. Choose "
            "one with stc_prob.crop."
        )
    return true, probabilities[:, 0]

"""How much of the truth and of the estimate is common."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from .. import metrics
from .source_space import (
    owned_areas,
    to_arrays,
    true_and_estimate,
    vertex_positions,
)


def precision(stc_true, stc_est, src, *, rule="peak"):
    """Compute the share of the active area that is true.

    Parameters
    ----------
    stc_true, stc_est : SourceEstimate
        The true and the estimated activity.
    src : SourceSpaces
        The surface source space that holds the vertices of both.
    rule : str
        The rule of :func:`mne_deepsif.metrics.active_parcels`.

    Returns
    -------
    precision : float
        Between 0 and 1; 0 if nothing is active.
    """
    arrays = to_arrays(stc_true, stc_est, src, rule)
    return metrics.precision(arrays.true, arrays.active, arrays.areas)


def recall(stc_true, stc_est, src, *, rule="peak"):
    """Compute the share of the true area that is active.

    Parameters
    ----------
    stc_true, stc_est : SourceEstimate
        The true and the estimated activity.
    src : SourceSpaces
        The surface source space that holds the vertices of both.
    rule : str
        The rule of :func:`mne_deepsif.metrics.active_parcels`.

    Returns
    -------
    recall : float
        Between 0 and 1; 0 if nothing is true.
    """
    arrays = to_arrays(stc_true, stc_est, src, rule)
    return metrics.recall(arrays.true, arrays.active, arrays.areas)


def f1(stc_true, stc_est, src, *, rule="peak"):
    """Compute the harmonic mean of precision and recall, by area.

    Parameters
    ----------
    stc_true, stc_est : SourceEstimate
        The true and the estimated activity.
    src : SourceSpaces
        The surface source space that holds the vertices of both.
    rule : str
        The rule of :func:`mne_deepsif.metrics.active_parcels`.

    Returns
    -------
    f1 : float
        Between 0 and 1; 0 if precision and recall are both 0.
    """
    arrays = to_arrays(stc_true, stc_est, src, rule)
    return metrics.f1(arrays.true, arrays.active, arrays.areas)


def sensitivity(stc_true, stc_est, src, *, rule="peak"):
    """Compute the share of the true vertices that are active.

    See :func:`mne_deepsif.metrics.sensitivity`. Vertices count alike.

    Parameters
    ----------
    stc_true, stc_est : SourceEstimate
        The true and the estimated activity.
    src : SourceSpaces
        The surface source space that holds the vertices of both.
    rule : str
        The rule of :func:`mne_deepsif.metrics.active_parcels`.

    Returns
    -------
    sensitivity : float
        Between 0 and 1; NaN if nothing is true.
    """
    true, sources = true_and_estimate(stc_true, stc_est, src)
    return metrics.sensitivity(true, metrics.active_parcels(sources, rule))


def specificity(stc_true, stc_est, src, *, rule="peak", radius=0.03):
    """Compute the share of inactive vertices that the estimate leaves inactive.

    See :func:`mne_deepsif.metrics.specificity`. Vertices count alike.

    Parameters
    ----------
    stc_true, stc_est : SourceEstimate
        The true and the estimated activity.
    src : SourceSpaces
        The surface source space that holds the vertices of both.
    rule : str
        The rule of :func:`mne_deepsif.metrics.active_parcels`.
    radius : float
        The distance in metres up to which an inactive vertex counts as close.

    Returns
    -------
    specificity : float
        Between 0 and 1; NaN if nothing is true.
    """
    return metrics.specificity(
        *true_and_estimate(stc_true, stc_est, src), vertex_positions(src), rule, radius
    )


def specificity_close_far(stc_true, stc_est, src, *, rule="peak", radius=0.03):
    """Compute the two shares of which :func:`specificity` is the mean.

    See :func:`mne_deepsif.metrics.specificity_close_far`. Vertices count alike.

    Parameters
    ----------
    stc_true, stc_est : SourceEstimate
        The true and the estimated activity.
    src : SourceSpaces
        The surface source space that holds the vertices of both.
    rule : str
        The rule of :func:`mne_deepsif.metrics.active_parcels`.
    radius : float
        The distance in metres up to which an inactive vertex counts as close.

    Returns
    -------
    close, far : float
        The shares, between 0 and 1; NaN if nothing is true.
    """
    return metrics.specificity_close_far(
        *true_and_estimate(stc_true, stc_est, src), vertex_positions(src), rule, radius
    )


def area_correlation(stcs_true, stcs_est, src, *, rule="peak"):
    """Compute Pearson's correlation of true and active areas over samples.

    See :func:`mne_deepsif.metrics.area_correlation`.

    Parameters
    ----------
    stcs_true, stcs_est : list of SourceEstimate
        The true and the estimated activity of each sample.
    src : SourceSpaces
        The surface source space that holds the vertices of all.
    rule : str
        The rule of :func:`mne_deepsif.metrics.active_parcels`.

    Returns
    -------
    correlation : float
        Between -1 and 1. NaN for fewer than two samples, or if all true areas or all
        active ones are equal.
    """
    pairs = zip(stcs_true, stcs_est, strict=True)
    pairs = [true_and_estimate(*pair, src) for pair in pairs]
    true = [true for true, _ in pairs]
    active = [metrics.active_parcels(sources, rule) for _, sources in pairs]
    return metrics.area_correlation(true, active, owned_areas(src))

"""How much of the truth and of the estimate is common."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np

from .sets import indices
from .waveforms import linear_correlation


def _overlap_share(parcels, others, areas):
    """Return the share of the parcels' area that lies in others; 0 for no area."""
    areas = np.asarray(areas)
    parcels, others = indices(parcels), indices(others)
    total = areas[parcels].sum()
    return float(areas[np.intersect1d(parcels, others)].sum() / total) if total else 0.0


def precision(true, estimated, areas):
    """Compute the share of the estimated area that is true.

    Parameters
    ----------
    true, estimated : array of bool or int
        The parcels, as masks or indices.
    areas : array of shape (n_parcels,)
        The parcels' areas.

    Returns
    -------
    precision : float
        Between 0 and 1; 0 if nothing was estimated.
    """
    return _overlap_share(estimated, true, areas)


def recall(true, estimated, areas):
    """Compute the share of the true area that was estimated.

    Parameters
    ----------
    true, estimated : array of bool or int
        The parcels, as masks or indices.
    areas : array of shape (n_parcels,)
        The parcels' areas.

    Returns
    -------
    recall : float
        Between 0 and 1; 0 if nothing is true.
    """
    return _overlap_share(true, estimated, areas)


def f1(true, estimated, areas):
    """Compute the harmonic mean of precision and recall.

    Parameters
    ----------
    true, estimated : array of bool or int
        The parcels, as masks or indices.
    areas : array of shape (n_parcels,)
        The parcels' areas.

    Returns
    -------
    f1 : float
        Between 0 and 1; 0 if precision and recall are both 0.
    """
    return harmonic_mean(
        precision(true, estimated, areas), recall(true, estimated, areas)
    )


def sensitivity(true, estimated):
    """Compute the share of the true parcels that were estimated.

    Here parcels count alike, as in :func:`specificity` and in the papers' scripts. In
    :func:`recall` they count by area.

    Parameters
    ----------
    true, estimated : array of bool or int
        The parcels, as masks or indices.

    Returns
    -------
    sensitivity : float
        Between 0 and 1; NaN if nothing is true.
    """
    true = np.unique(indices(true))
    return float(np.isin(true, indices(estimated)).mean()) if len(true) else np.nan


def geometric_mean(first, second):
    r"""Compute the geometric mean of two scores, :math:`\sqrt{ab}`.

    The MEG paper :footcite:`SunEtAl2023` takes it of sensitivity and specificity.

    Parameters
    ----------
    first, second : float | array
        The scores, between 0 and 1.

    Returns
    -------
    mean : float | array
        Their mean; 0 where a score is 0, NaN where one is NaN.

    References
    ----------
    .. footbibliography::
    """
    return np.sqrt(np.multiply(first, second))


def harmonic_mean(first, second):
    r"""Compute the harmonic mean of two scores, :math:`2ab / (a + b)`.

    Of precision and recall, it is :func:`f1`.

    Parameters
    ----------
    first, second : float | array
        The scores, between 0 and 1.

    Returns
    -------
    mean : float | array
        Their mean; 0 where a score is 0, NaN where one is NaN.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    total = first + second
    mean = np.divide(
        2 * first * second, total, out=np.zeros(total.shape), where=total != 0
    )
    return mean if mean.ndim else float(mean)


def area_correlation(true, estimated, areas):
    """Compute Pearson's correlation of true and estimated areas over samples.

    Parameters
    ----------
    true, estimated : list of array of bool or int
        The parcels of each sample, as masks or indices.
    areas : array of shape (n_parcels,)
        The parcels' areas.

    Returns
    -------
    correlation : float
        Between -1 and 1. NaN for fewer than two samples, or if all true areas or all
        estimated ones are equal.
    """
    areas = np.asarray(areas)
    totals = [
        np.array([areas[indices(parcels)].sum() for parcels in samples])
        for samples in (true, estimated)
    ]
    if not all(len(total) and np.ptp(total) > 0 for total in totals):
        return np.nan
    return float(linear_correlation(*totals))

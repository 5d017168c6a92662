"""How well an estimate ranks true parcels above the others, without a threshold."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np

from .sets import mask, strength


def roc_auc(true, sources):
    """Compute the area under the ROC curve.

    It is the probability that a true parcel is stronger than one that is not true; ties
    count half :footcite:`GrovaEtAl2006`. All parcels count alike. The strength of a
    parcel is its largest absolute activity. Compare
    :func:`mne.simulation.metrics.roc_auc_score`, which looks at each time by itself.

    Parameters
    ----------
    true : array of bool or int
        The true parcels, as a mask or indices.
    sources : array of shape (n_parcels, n_times)
        The estimated activity, in any unit.

    Returns
    -------
    auc : float
        Between 0 and 1; 0.5 for chance, and if all parcels are equally strong. NaN if
        no parcel is true, or all are.

    References
    ----------
    .. footbibliography::
    """
    from sklearn.metrics import roc_auc_score

    peaks = strength(sources)
    inside = mask(true, len(peaks))
    if inside.all() or not inside.any():
        return np.nan
    return float(roc_auc_score(inside, peaks))


def average_precision(true, sources):
    r"""Compute the average precision, the area under the precision-recall curve.

    .. math:: AP = \sum_n (R_n - R_{n-1}) P_n

    where :math:`P_n` and :math:`R_n` are precision and recall at the :math:`n`-th
    threshold :footcite:`DavisGoadrich2006`. All parcels count alike. Few parcels are
    true, so this score tells good estimates apart better than :func:`roc_auc` does.

    Parameters
    ----------
    true : array of bool or int
        The true parcels, as a mask or indices.
    sources : array of shape (n_parcels, n_times)
        The estimated activity, in any unit.

    Returns
    -------
    average_precision : float
        Between 0 and 1. The share of true parcels if all are equally strong. NaN if no
        parcel is true.

    References
    ----------
    .. footbibliography::
    """
    from sklearn.metrics import average_precision_score

    peaks = strength(sources)
    inside = mask(true, len(peaks))
    if not inside.any():
        return np.nan
    return float(average_precision_score(inside, peaks))

"""Whether probabilities of being active come true."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np

from .sets import mask


def reliability_curve(true, probabilities, n_bins=10):
    """Compare predicted probabilities with how often they come true.

    Parcels are sorted by probability into equal bins between 0 and 1.

    Parameters
    ----------
    true : array of bool or int
        The true parcels, as a mask or indices.
    probabilities : array of shape (n_parcels,)
        The probability that each parcel is active.
    n_bins : int
        The number of bins.

    Returns
    -------
    predicted : array of shape (n_filled,)
        The mean probability in each bin that holds parcels.
    observed : array of shape (n_filled,)
        The share of true parcels in it.
    counts : array of int, shape (n_filled,)
        The number of parcels in it.

    See Also
    --------
    sklearn.calibration.calibration_curve : Does the work.
    """
    from sklearn.calibration import calibration_curve

    probabilities = np.asarray(probabilities, float)
    inside = (probabilities >= 0) & (probabilities <= 1)  # not so for NaN
    if not probabilities.size or not inside.all():
        raise ValueError(
            f"probabilities must lie between 0 and 1, got {probabilities.size} values, "
            f"{np.count_nonzero(~inside)} of them outside or NaN."
        )
    inner_edges = np.linspace(0, 1, n_bins + 1)[1:-1]  # as scikit-learn bins
    counts = np.bincount(np.searchsorted(inner_edges, probabilities))
    observed, predicted = calibration_curve(
        mask(true, len(probabilities)), probabilities, pos_label=True, n_bins=n_bins
    )
    return predicted, observed, counts[counts > 0]


def expected_calibration_error(true, probabilities, n_bins=10):
    r"""Compute by how much probabilities are off, on average.

    .. math:: ECE = \sum_b \frac{n_b}{n} |o_b - p_b|

    where :math:`p_b` is the mean probability in a bin of :func:`reliability_curve`,
    :math:`o_b` the share of its parcels that are true, and :math:`n_b` their number
    :footcite:`NaeiniEtAl2015`.

    Parameters
    ----------
    true : array of bool or int
        The true parcels, as a mask or indices.
    probabilities : array of shape (n_parcels,)
        The probability that each parcel is active.
    n_bins : int
        The number of bins.

    Returns
    -------
    error : float
        Between 0 and 1; 0 if all probabilities come true. If nothing is true, it is the
        mean probability.

    References
    ----------
    .. footbibliography::
    """
    predicted, observed, counts = reliability_curve(true, probabilities, n_bins)
    return float(counts @ np.abs(observed - predicted) / counts.sum())

"""How much of what is silent stays silent, close to the truth and far from it."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
from scipy.spatial import KDTree

from .sets import distances, indices, strength
from .threshold import active_parcels


def specificity(true, sources, centers, rule="peak", radius=0.03):
    """Compute the share of inactive parcels that the estimate leaves inactive.

    It is the mean of two shares :footcite:`SunEtAl2023,ChowdhuryEtAl2013`. One is over
    inactive parcels close to the true region (within ``radius``), the other over far
    ones where the estimate is largest. For each, the papers draw as many parcels as the
    true region has. Here nothing is random: the first share is the expectation of the
    draw (all close parcels count alike), and the second takes the parcels nearest to
    the strongest far local maxima.

    Parameters
    ----------
    true : array of bool or int
        The true parcels, as a mask or indices.
    sources : array of shape (n_parcels, n_times)
        The estimated activity, in any unit.
    centers : array of shape (n_parcels, 3)
        The parcels' centres, in metres.
    rule : str
        The rule of :func:`active_parcels`.
    radius : float
        The distance in metres up to which an inactive parcel counts as close.

    Returns
    -------
    specificity : float
        Between 0 and 1. A share without any parcel is left out of the mean. NaN if both
        shares are left out, or if nothing is true.

    References
    ----------
    .. footbibliography::
    """
    close, far = specificity_close_far(true, sources, centers, rule, radius)
    shares = [share for share in (close, far) if not np.isnan(share)]
    return float(np.mean(shares)) if shares else np.nan


def specificity_close_far(true, sources, centers, rule="peak", radius=0.03):
    """Compute the two shares of which :func:`specificity` is the mean.

    Parameters
    ----------
    true : array of bool or int
        The true parcels, as a mask or indices.
    sources : array of shape (n_parcels, n_times)
        The estimated activity, in any unit.
    centers : array of shape (n_parcels, 3)
        The parcels' centres, in metres.
    rule : str
        The rule of :func:`active_parcels`.
    radius : float
        The distance in metres up to which an inactive parcel counts as close.

    Returns
    -------
    close : float
        The share of close inactive parcels that the estimate leaves inactive. It says
        how much the estimate spreads :footcite:`ChowdhuryEtAl2013`. NaN if there are
        none, or if nothing is true.
    far : float
        The same for as many parcels as are true, at the strongest local maxima farther
        away. It says whether there are false sources.

    References
    ----------
    .. footbibliography::
    """
    true = indices(true)
    if not len(true):
        return np.nan, np.nan
    active = active_parcels(sources, rule)
    silent = silent_parcels(true, strength(sources), np.asarray(centers), radius)
    return tuple(silent_share(active, part) for part in silent)


def silent_parcels(true, peaks, centers, radius=0.03):
    """Return close inactive parcels, and as many far ones as there are true ones."""
    parcels = np.arange(len(peaks))
    apart = distances(parcels, true, centers)
    inactive = np.setdiff1d(parcels, true)
    close = inactive[apart[inactive] <= radius]
    far = inactive[apart[inactive] > radius]
    return close, _around_maxima(peaks, far, centers)[: len(true)]


def silent_share(active, parcels):
    """Return the share of parcels that a mask leaves out; NaN for none."""
    return float(1 - active[parcels].mean()) if len(parcels) else np.nan


def _around_maxima(peaks, parcels, centers, reach=0.015):
    """Order parcels: the strongest local maximum, its surroundings, the next one, ...

    None of ``parcels`` within ``reach`` (m) of a local maximum exceeds it.
    """
    order = parcels[np.argsort(-peaks[parcels], kind="stable")]
    around = KDTree(centers[order]).query_ball_point(centers[order], reach)
    maxima = [rank for rank, near in enumerate(around) if min(near) == rank]
    ranks = [r for top in maxima for r in [top, *sorted(around[top])]]
    return order[list(dict.fromkeys(ranks))]

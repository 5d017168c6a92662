"""How far the estimate is from the truth, in metres."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
from scipy.spatial.distance import cdist

from .sets import distances, indices, strongest


def localization_error(true, estimated, centers):
    """Compute the papers' localization error, which is one-sided.

    It is the mean, over the estimated parcels, of the distance to the nearest true
    parcel. Missing a part of the truth costs nothing, so look at the recall as well.
    Do not compare it with :func:`mne.simulation.metrics.region_localization_error`,
    which is two-sided.

    Parameters
    ----------
    true, estimated : array of bool or int
        The parcels, as masks or indices.
    centers : array of shape (n_parcels, 3)
        The parcels' centres, in metres.

    Returns
    -------
    error : float
        The error in metres; NaN if either set is empty.
    """
    true, estimated = indices(true), indices(estimated)
    if not (len(true) and len(estimated)):
        return np.nan
    return float(distances(estimated, true, np.asarray(centers)).mean())


def two_sided_localization_error(true, estimated, centers):
    """Compute the localization error in both directions.

    It is the mean of two one-sided errors (:func:`localization_error`): from the
    estimate to the truth, and from the truth to the estimate. This is the formula of
    :func:`mne.simulation.metrics.region_localization_error`, and of the papers' error
    with respect to the seizure onset zone.

    Parameters
    ----------
    true, estimated : array of bool or int
        The parcels, as masks or indices.
    centers : array of shape (n_parcels, 3)
        The parcels' centres, in metres.

    Returns
    -------
    error : float
        The error in metres; NaN if either set is empty.
    """
    there = localization_error(true, estimated, centers)
    return (there + localization_error(estimated, true, centers)) / 2


def spatial_dispersion(true, sources, centers):
    r"""Compute how far the estimate spreads around the true region.

    .. math:: SD = \sum_i d_i J_i / \sum_i J_i

    where :math:`d_i` is the distance of parcel :math:`i` to the nearest true parcel and
    :math:`J_i` its largest absolute activity. For the dispersion of the thresholded
    estimate, set inactive parcels to zero first.

    Parameters
    ----------
    true : array of bool or int
        The true parcels (or those of a resection), as a mask or indices.
    sources : array of shape (n_parcels, n_times)
        The estimated activity, in any unit.
    centers : array of shape (n_parcels, 3)
        The parcels' centres, in metres.

    Returns
    -------
    dispersion : float
        The dispersion in metres; NaN if nothing is true, or if the estimate is zero or
        has NaN.
    """
    true, strength = indices(true), np.abs(sources).max(axis=-1)
    if not len(true) or not strength.any():
        return np.nan
    apart = distances(np.arange(len(strength)), true, np.asarray(centers))
    return float(apart @ strength / strength.sum())


def peak_error(true, sources, centers):
    """Compute the distance of the estimate's peak to the true region.

    The peak is the parcel of the largest absolute activity. Do not compare it with
    :func:`mne.simulation.metrics.peak_position_error`, which takes the centre of mass
    of the estimate, and a truth of one dipole.

    Parameters
    ----------
    true : array of bool or int
        The true parcels, as a mask or indices.
    sources : array of shape (n_parcels, n_times)
        The estimated activity, in any unit.
    centers : array of shape (n_parcels, 3)
        The parcels' centres, in metres.

    Returns
    -------
    error : float
        The distance in metres; 0 if the peak is true. Of equal peaks, the first counts.
        NaN if nothing is true, or if all parcels are equally strong.
    """
    true, peak = indices(true), strongest(sources)
    if not len(true) or peak is None:
        return np.nan
    return float(distances([peak], true, np.asarray(centers))[0])


def soz_error(electrodes, estimated, centers):
    r"""Compute the localization error with respect to a seizure onset zone (SOZ).

    .. math::

        LE_{SOZ} = \frac{1}{2N} \sum_k \min_i \|e_k - r_i\|
                 + \frac{1}{2M} \sum_i \min_k \|e_k - r_i\|

    where :math:`e_k` are the :math:`N` electrodes of the SOZ and :math:`r_i` the
    :math:`M` estimated parcels :footcite:`SunEtAl2022`.

    Parameters
    ----------
    electrodes : array of shape (n_electrodes, 3)
        The positions of the SOZ's electrodes, in metres, in the frame of ``centers``.
    estimated : array of bool or int
        The estimated parcels, as a mask or indices.
    centers : array of shape (n_parcels, 3)
        The parcels' centres, in metres.

    Returns
    -------
    error : float
        The error in metres; NaN if there is no electrode or no estimated parcel, or if
        a position is NaN.

    References
    ----------
    .. footbibliography::
    """
    electrodes, estimated = np.reshape(electrodes, (-1, 3)), indices(estimated)
    if not (len(electrodes) and len(estimated)):
        return np.nan
    apart = cdist(electrodes, np.asarray(centers)[estimated])
    return float((apart.min(axis=0).mean() + apart.min(axis=1).mean()) / 2)

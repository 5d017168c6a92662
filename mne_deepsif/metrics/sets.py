"""Sets of parcels as masks or indices, their distances, and how strong parcels are."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
from scipy.spatial import KDTree


def indices(parcels):
    """Turn a mask or an index array into an index array."""
    parcels = np.asarray(parcels)
    # astype: an empty list arrives as float
    return np.flatnonzero(parcels) if parcels.dtype == bool else parcels.astype(int)


def mask(parcels, n_parcels):
    """Turn a mask or an index array into a mask."""
    inside = np.zeros(n_parcels, bool)
    inside[indices(parcels)] = True
    return inside


def distances(parcels, others, centers):
    """Return the distance of each parcel to the nearest of others; none is empty."""
    return KDTree(centers[others]).query(centers[parcels])[0]


def strength(sources):
    """Return the largest absolute activity of each parcel, which must be finite."""
    if np.ndim(sources) != 2:
        raise ValueError(
            "sources must have shape (n_parcels, n_times), got shape "
            f"{np.shape(sources)}. For a single time, pass sources[:, np.newaxis]."
        )
    peaks = np.abs(sources).max(axis=1)
    if not np.isfinite(peaks).all():
        raise ValueError(
            "sources must be finite, got NaN or infinite values in "
            f"{np.count_nonzero(~np.isfinite(peaks))} parcels. Remove these first."
        )
    return peaks


def strongest(sources):
    """Return the parcel with the largest absolute activity; None if all are equal."""
    peaks = strength(sources)
    return int(peaks.argmax()) if np.ptp(peaks) else None

"""Earth mover's distance."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
from scipy.spatial.distance import cdist

from .sets import strength

_N_ITER = 10_000_000  # of the network simplex: more than it needs


def earth_movers_distance(true_sources, sources, centers):
    r"""Compute how far activity must move to turn the estimate into the truth.

    .. math:: EMD = \min_{f \ge 0} \sum_{ij} f_{ij} \|r_i - r_j\|

    where :math:`f_{ij}` moves from true parcel :math:`i` to estimated parcel
    :math:`j` :footcite:`RubnerEtAl2000`. The strength of a parcel is its largest
    absolute activity. Both estimate and truth are scaled to a total strength of 1. So
    the distance sees place and extent, not amplitude. If a single parcel is true, it is
    the :func:`spatial_dispersion`.

    Parameters
    ----------
    true_sources, sources : array of shape (n_parcels, n_times)
        The true and the estimated activity, in any unit. They may have different times.
    centers : array of shape (n_parcels, 3)
        The parcels' centres, in metres.

    Returns
    -------
    distance : float
        The distance in metres. NaN if nothing is true or the estimate
        is zero.

    Notes
    -----
    It needs the package POT, of the extra ``metrics``. The time it takes grows with the
    product of the numbers of true and of estimated parcels that are not zero: half a
    second for 100 and 4000, some ten seconds for 200 and 20 000.

    References
    ----------
    .. footbibliography::
    """
    try:
        from ot import emd2
    except ImportError as error:
        raise ImportError(
            "earth_movers_distance needs the package POT. Install it with "
            'pip install "mne-deepsif[metrics]".'
        ) from error
    true, estimated = strength(true_sources), strength(sources)
    if not (true.any() and estimated.any()):
        return np.nan
    fro, to = np.flatnonzero(true), np.flatnonzero(estimated)
    centers = np.asarray(centers)
    masses = [one / one.sum() for one in (true[fro], estimated[to])]
    cost = cdist(centers[fro], centers[to])
    return float(emd2(*masses, cost, numItermax=_N_ITER))

"""One estimate scored source by source, as the papers' tables do."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np

from .overlap import precision, recall
from .sets import distances, indices
from .threshold import active_parcels
from .waveforms import linear_correlation


def match_patches(estimated, patches, centers):
    """Give each estimated parcel to the nearest true patch.

    Parameters
    ----------
    estimated : array of bool or int
        The estimated parcels, as a mask or indices.
    patches : list of array of int
        The parcels of each true patch.
    centers : array of shape (n_parcels, 3)
        The parcels' centres, in metres.

    Returns
    -------
    matched : list of array of int
        The estimated parcels that are nearest to each patch, possibly none. If two
        patches are equally near, the first one gets the parcel.
    distances : list of array of float
        Their distances to that patch, in metres.
    """
    estimated, centers = indices(estimated), np.asarray(centers)
    to_patch = np.array([distances(estimated, patch, centers) for patch in patches])
    nearest = to_patch.argmin(axis=0)
    chosen = [nearest == k for k in range(len(patches))]
    return (
        [estimated[mask] for mask in chosen],
        [to_patch[k, mask] for k, mask in enumerate(chosen)],
    )


def evaluate_parcels(sources, patches, waveforms, centers, areas, rule="peak"):
    """Score one estimate, source by source, as the papers' tables do.

    Each active parcel is matched to the nearest patch. Each patch is then scored with
    the parcels matched to it.

    Parameters
    ----------
    sources : array of shape (n_parcels, n_times)
        The estimated activity, in any unit.
    patches : list of array of int
        The parcels of each true patch.
    waveforms : array of shape (n_sources, n_times)
        The true waveform of each patch.
    centers : array of shape (n_parcels, 3)
        The parcels' centres, in metres.
    areas : array of shape (n_parcels,)
        The parcels' areas.
    rule : str
        The rule of :func:`active_parcels`.

    Returns
    -------
    scores : dict of array of shape (n_sources,)
        ``"le"``: :func:`localization_error` in metres, NaN for a patch without matched
        parcels. ``"precision"``: 0 for such a patch. ``"recall"``: counts all active
        parcels. ``"correlation"``: between the true waveform and the estimate's
        area-weighted mean over the patch, so no threshold is involved. ``"missed"``:
        True where no active parcel lies in the patch.
    """
    sources, areas = np.asarray(sources), np.asarray(areas)
    active = np.flatnonzero(active_parcels(sources, rule))
    matched, distances = match_patches(active, patches, centers)
    means = np.array([areas[p] @ sources[p] / areas[p].sum() for p in patches])
    recalls = np.array([recall(patch, active, areas) for patch in patches])
    return dict(
        le=np.array([d.mean() if len(d) else np.nan for d in distances]),
        precision=np.array(
            [precision(p, m, areas) for p, m in zip(patches, matched, strict=True)]
        ),
        recall=recalls,
        correlation=linear_correlation(np.asarray(waveforms), means),
        missed=recalls == 0,
    )

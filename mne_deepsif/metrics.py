"""Scores of an estimate against the truth, on arrays over parcels.

Lengths are in metres. Sets of parcels are boolean masks or index arrays. Where a score
would be 0 / 0, its docstring says what you get instead, and there is no warning.
For the same scores of a ``SourceEstimate``, see :mod:`mne_deepsif.stc_metrics`.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
from mne.utils import _check_option
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

# The authors' scripts ask for more than 7 of 500 samples, with 100 bins.
_AUTHORS_SHARE = 7 / 500
_AUTHORS_BINS = 100


def otsu_threshold(values, n_bins=256):
    r"""Split values in two classes by Otsu's rule.

    The threshold is the bin centre :math:`t` that maximises the variance between the
    classes, :math:`w_0(t) w_1(t) (\mu_0(t) - \mu_1(t))^2` :footcite:`Otsu1979`.

    Parameters
    ----------
    values : array
        The finite values, of any shape.
    n_bins : int
        The number of equal bins between the smallest and the largest value.

    Returns
    -------
    threshold : float
        The threshold, on the scale of ``values``. If all values are equal (up to
        rounding), it is the largest value, so nothing lies above it.

    References
    ----------
    .. footbibliography::
    """
    values = np.asarray(values).ravel()
    values = values.astype(np.result_type(values, np.float32), copy=False)
    low, high = (values.min(), values.max()) if values.size else (np.nan, np.nan)
    if not np.isfinite([low, high]).all():
        raise ValueError(
            f"values must be finite and not empty, got {values.size} values, "
            f"{np.count_nonzero(~np.isfinite(values))} of them NaN or infinite. Remove "
            "these first."
        )
    if high - low <= n_bins * np.spacing(max(abs(low), abs(high))):
        return float(high)
    counts = _count_in_bins(values, low, high, n_bins)
    edges = np.linspace(float(low), float(high), n_bins + 1)
    centers = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    sum_below = np.cumsum(counts * centers)[:-1]
    sum_above = counts @ centers - sum_below
    between = below * above * (sum_below / below - sum_above / above) ** 2
    return float(centers[np.argmax(between)])


def _count_in_bins(values, low, high, n_bins):
    """Count values in equal bins, three times faster than np.histogram."""
    position = values - low
    position /= high - low
    position *= n_bins
    index = position.astype(np.intp)
    np.minimum(index, n_bins - 1, out=index)  # the last bin holds the largest value
    return np.bincount(index, minlength=n_bins)


def active_parcels(sources, rule="peak"):
    """Find the parcels that are active in an estimate.

    Parameters
    ----------
    sources : array of shape (n_parcels, n_times)
        The estimated activity, in any unit.
    rule : str
        ``"peak"``: Otsu's threshold over the parcels' largest absolute values.
        ``"authors"``: the rule of the papers' scripts. It takes one threshold (100
        bins) over the absolute values of all parcels and times. An active parcel
        exceeds it in more than 7 of 500 samples (1.4 % for other lengths). Both rules
        use absolute values; the scripts compare signed ones.

    Returns
    -------
    active : array of bool, shape (n_parcels,)
        True where the parcel is active. If the estimate is constant, none is.

    Notes
    -----
    The two rules can differ more than two methods do. Always name the rule that you
    used next to your numbers.
    """
    _check_option("rule", rule, ("peak", "authors"))
    amplitude = np.abs(np.atleast_2d(sources))
    if rule == "peak":
        peak = amplitude.max(axis=1)
        return peak > otsu_threshold(peak)
    above = amplitude > otsu_threshold(amplitude, _AUTHORS_BINS)
    return np.count_nonzero(above, axis=1) > _AUTHORS_SHARE * amplitude.shape[1]


def _indices(parcels):
    """Turn a mask or an index array into an index array."""
    parcels = np.asarray(parcels)
    # astype: an empty list arrives as float
    return np.flatnonzero(parcels) if parcels.dtype == bool else parcels.astype(int)


def _distances(parcels, others, centers):
    """Return the distance of each parcel to the nearest of others; none is empty."""
    return cdist(centers[parcels], centers[others]).min(axis=1)


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
    true, estimated = _indices(true), _indices(estimated)
    if not (len(true) and len(estimated)):
        return np.nan
    return float(_distances(estimated, true, np.asarray(centers)).mean())


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


def _overlap_share(parcels, others, areas):
    """Return the share of the parcels' area that lies in others; 0 for no area."""
    areas = np.asarray(areas)
    parcels, others = _indices(parcels), _indices(others)
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
    p, r = precision(true, estimated, areas), recall(true, estimated, areas)
    return 2 * p * r / (p + r) if p + r else 0.0


def linear_correlation(true, estimated):
    """Compute Pearson's correlation of waveforms, row by row.

    Parameters
    ----------
    true, estimated : array of shape (..., n_times)
        The waveforms.

    Returns
    -------
    correlation : array of shape (...)
        Between -1 and 1; 0 where a waveform is constant.
    """
    true = true - np.mean(true, axis=-1, keepdims=True)
    estimated = estimated - np.mean(estimated, axis=-1, keepdims=True)
    norm = np.linalg.norm(true, axis=-1) * np.linalg.norm(estimated, axis=-1)
    product = np.sum(true * estimated, axis=-1)
    return np.divide(product, norm, out=np.zeros_like(product), where=norm > 0)


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
    estimated, centers = _indices(estimated), np.asarray(centers)
    to_patch = np.array([_distances(estimated, patch, centers) for patch in patches])
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
        The dispersion in metres; NaN if nothing is true or the estimate is zero.
    """
    true, strength = _indices(true), np.abs(sources).max(axis=-1)
    if not len(true) or not strength.any():
        return np.nan
    distances = _distances(np.arange(len(strength)), true, np.asarray(centers))
    return float(distances @ strength / strength.sum())


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
    true, centers = _indices(true), np.asarray(centers)
    if not len(true):
        return np.nan
    active = active_parcels(sources, rule)
    distances = _distances(np.arange(len(active)), true, centers)
    inactive = np.setdiff1d(np.arange(len(active)), true)
    close = inactive[distances[inactive] <= radius]
    far = inactive[distances[inactive] > radius]
    far = _around_maxima(np.abs(sources).max(axis=-1), far, centers)[: len(true)]
    shares = [1 - active[part].mean() for part in (close, far) if len(part)]
    return float(np.mean(shares)) if shares else np.nan


def _around_maxima(strength, parcels, centers, reach=0.015):
    """Order parcels: the strongest local maximum, its surroundings, the next one, ...

    None of ``parcels`` within ``reach`` (m) of a local maximum exceeds it.
    """
    order = parcels[np.argsort(-strength[parcels], kind="stable")]
    around = KDTree(centers[order]).query_ball_point(centers[order], reach)
    maxima = [rank for rank, near in enumerate(around) if min(near) == rank]
    ranks = [r for top in maxima for r in [top, *sorted(around[top])]]
    return order[list(dict.fromkeys(ranks))]

"""How far the estimate is from the truth, in metres."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from .. import metrics
from .source_space import (
    on_source_space,
    to_arrays,
    true_and_estimate,
    vertex_positions,
)


def localization_error(stc_true, stc_est, src, *, rule="peak"):
    """Compute the papers' localization error, which is one-sided.

    See :func:`mne_deepsif.metrics.localization_error`.

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
    error : float
        The error in metres; NaN if nothing is true or nothing is active.
    """
    arrays = to_arrays(stc_true, stc_est, src, rule)
    return metrics.localization_error(arrays.true, arrays.active, arrays.positions)


def two_sided_localization_error(stc_true, stc_est, src, *, rule="peak"):
    """Compute the localization error in both directions.

    See :func:`mne_deepsif.metrics.two_sided_localization_error`. It differs from
    :func:`mne.simulation.metrics.region_localization_error` only in the threshold.

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
    error : float
        The error in metres; NaN if nothing is true or nothing is active.
    """
    arrays = to_arrays(stc_true, stc_est, src, rule)
    return metrics.two_sided_localization_error(
        arrays.true, arrays.active, arrays.positions
    )


def spatial_dispersion(stc_true, stc_est, src):
    """Compute how far the estimate spreads around the true region.

    See :func:`mne_deepsif.metrics.spatial_dispersion`; nothing is thresholded.

    Parameters
    ----------
    stc_true, stc_est : SourceEstimate
        The true and the estimated activity.
    src : SourceSpaces
        The surface source space that holds the vertices of both.

    Returns
    -------
    dispersion : float
        The dispersion in metres; NaN if nothing is true or the estimate is zero.
    """
    true, sources = true_and_estimate(stc_true, stc_est, src)
    return metrics.spatial_dispersion(true, sources, vertex_positions(src))


def peak_error(stc_true, stc_est, src):
    """Compute the distance of the estimate's peak to the nearest true vertex.

    See :func:`mne_deepsif.metrics.peak_error`; nothing is thresholded.

    Parameters
    ----------
    stc_true, stc_est : SourceEstimate
        The true and the estimated activity.
    src : SourceSpaces
        The surface source space that holds the vertices of both.

    Returns
    -------
    error : float
        The distance in metres; NaN if nothing is true, or if all vertices are equally
        strong.
    """
    return metrics.peak_error(
        *true_and_estimate(stc_true, stc_est, src), vertex_positions(src)
    )


def earth_movers_distance(stc_true, stc_est, src):
    """Compute how far activity must move to turn the estimate into the truth.

    See :func:`mne_deepsif.metrics.earth_movers_distance`; nothing is thresholded. It
    takes half a second for 100 and 4000 vertices that are not zero, and needs the extra
    ``metrics``.

    Parameters
    ----------
    stc_true, stc_est : SourceEstimate
        The true and the estimated activity.
    src : SourceSpaces
        The surface source space that holds the vertices of both.

    Returns
    -------
    distance : float
        The distance in metres; NaN if nothing is true or the estimate is zero.
    """
    return metrics.earth_movers_distance(
        on_source_space(stc_true, src, "stc_true"),
        on_source_space(stc_est, src, "stc_est"),
        vertex_positions(src),
    )

"""Scores of an estimate: long rows of rule, metric and value.

Lengths are in mm, areas in cm². Rule ``"-"`` needs no threshold.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from typing import NamedTuple

import numpy as np
from scipy.spatial import KDTree

import mne_deepsif
from mne_deepsif import metrics
from mne_deepsif.metrics.false_alarms import silent_parcels, silent_share
from mne_deepsif.trust.candidates import default_probability

NEAR = 0.01  # m; active cortex so near to a source finds it
HALF = 0.5  # of the data; an extent that explains no more does not stand out
# thresholds: Otsu's, or a share of the maximum
RULES = {"otsu": None, "quarter": 0.25, "half": 0.5, "three quarters": 0.75}


class Row(NamedTuple):
    """A score of a sample."""

    sample: int
    rule: str
    metric: str
    value: float


def score(stc, sample, head):
    """Score an estimate.

    Parameters
    ----------
    stc : SourceEstimate
        The estimate, on all vertices.
    sample : Sample
        What was to be found.
    head : Head
        The head, with the cortex on which scores are computed.

    Returns
    -------
    rows : list of Row
        The scores: threshold-free ones, and for each rule those of the active vertices.
    """
    activity = stc.data[head.cortex.rows]
    if sample.time is not None:
        activity = activity[:, sample.time - 1 : sample.time + 2]
    peaks = np.abs(activity).max(axis=1)
    found = {"-": free_scores(peaks, sample.patches, head.cortex)}
    masks = {rule: peaks > threshold(peaks, share) for rule, share in RULES.items()}
    for rule, active in masks.items():
        found[rule] = active_scores(active, sample.patches, head.cortex)
    if sample.patches:
        emd, silent = parcel_scores(peaks, masks, sample.patches, head.cortex)
        found["-"] |= emd
        for rule, scores in silent.items():
            found[rule] |= scores
            found[rule] |= balance(found[rule])
    return as_rows(sample.number, found)


def as_rows(number, found):
    """Turn nested dicts into rows."""
    return [
        Row(number, rule, metric, float(value))
        for rule, scores in found.items()
        for metric, value in scores.items()
    ]


def threshold(peaks, share):
    """Return a share of the largest value, or Otsu's threshold."""
    return metrics.otsu_threshold(peaks) if share is None else share * peaks.max()


def free_scores(peaks, patches, cortex):
    """Score a map of magnitudes without a threshold."""
    if not patches:
        return {}
    true, places = np.concatenate(patches), cortex.places
    sources = peaks[:, np.newaxis]  # (n_vertices, one time)
    return dict(
        peak=1e3 * metrics.peak_error(true, sources, places),
        auc=metrics.roc_auc(true, sources),
        ap=metrics.average_precision(true, sources),
        dispersion=1e3 * metrics.spatial_dispersion(true, sources, places),
    )


def parcel_scores(peaks, masks, patches, cortex):
    """Score by parcels what would take seconds by vertices.

    Earth mover's distance: the mass of a parcel is the sum over its vertices. A whole
    map of vertices differs from that by half a millimetre, and takes 5 s.
    Specificity: a parcel is active, or true, if one of its vertices is.

    Returns
    -------
    emd : dict
        The distance.
    silent : dict of dict
        The specificity by each rule.
    """
    parcel, n_parcels = cortex.parcel, len(cortex.centers)
    vertices = np.concatenate(patches)
    masses = (
        np.bincount(parcel[vertices], minlength=n_parcels),
        np.bincount(parcel, peaks, n_parcels),
    )
    true, estimated = (mass[:, np.newaxis].astype(float) for mass in masses)
    emd = 1e3 * metrics.earth_movers_distance(true, estimated, cortex.centers)
    highest = np.zeros(n_parcels)
    np.maximum.at(highest, parcel, peaks)
    groups = silent_parcels(np.unique(parcel[vertices]), highest, cortex.centers)
    silent = {}
    for rule, active in masks.items():
        hit = np.bincount(parcel[active], minlength=n_parcels) > 0
        silent[rule] = specificity(hit, groups)
    return dict(emd=emd), silent


def specificity(active, groups):
    """Return the share of silent parcels, close and far, and the mean of the two."""
    shares = [silent_share(active, group) for group in groups]
    found = dict(zip(("close", "far"), shares))
    known = [share for share in shares if not np.isnan(share)]
    return found | dict(specificity=np.mean(known) if known else np.nan)


def balance(scores):
    """Return the geometric mean of sensitivity and specificity."""
    pair = scores["recall"], scores["specificity"]
    return dict(balance=metrics.geometric_mean(*pair))


def active_scores(active, patches, cortex):
    """Score a set of active vertices."""
    area = 1e4 * cortex.areas[active].sum()
    if not patches:
        return dict(area=area)
    true = np.unique(np.concatenate(patches))
    tree = KDTree(cortex.places[active]) if active.any() else None
    gaps = [gap(tree, cortex.places[patch]) for patch in patches]
    return dict(
        le=1e3 * metrics.localization_error(true, active, cortex.places),
        precision=metrics.precision(true, active, cortex.areas),
        recall=metrics.recall(true, active, cortex.areas),
        f1=metrics.f1(true, active, cortex.areas),
        area=area,
        area_ratio=1e-4 * area / cortex.areas[true].sum(),
        found=np.mean(np.array(gaps) <= NEAR),
        all_found=max(gaps) <= NEAR,
    )


def gap(tree, places):
    """Return the least distance of active cortex to a patch."""
    return np.inf if tree is None else tree.query(places)[0].min()


def score_extents(stc, sample, head, likely):
    """Say what a user hears of the sources that an estimate in A m has.

    ``empty``: :func:`mne_deepsif.estimate_extent`, with the data, finds nothing.
    ``weak``: none of what it finds explains more than half of the data, see
    :func:`mne_deepsif.explained_by`. If ``likely``, all candidates are listed: their
    ``probability``, and whether a source is ``near``.
    """
    fwd, evoked, noise_cov = head.problem.fwd, sample.evoked, head.problem.noise_cov
    candidates = mne_deepsif.estimate_extent(
        stc, fwd, evoked, noise_cov, min_probability=0.0
    )
    least = default_probability()
    extents = [one for one in candidates if one.probability >= least]
    shares = mne_deepsif.explained_by(extents, stc, evoked, fwd, noise_cov)
    silence = dict(empty=not extents, weak=max(shares, default=0.0) <= HALF)
    rows = as_rows(sample.number, {"-": silence})
    for one in candidates if likely else ():
        near = is_near(vertices_of(one, stc), sample.patches, head.cortex)
        found = dict(probability=one.probability, near=near)
        rows += as_rows(sample.number, {"-": found})
    return rows


def vertices_of(extent, stc):
    """Return the rows of an estimate that an extent holds."""
    label, left = extent.label, len(stc.vertices[0])
    hemi = int(label.hemi == "rh")
    return hemi * left + np.flatnonzero(np.isin(stc.vertices[hemi], label.vertices))


def is_near(rows, patches, cortex):
    """Say whether vertices (rows of an estimate) are near to one of the patches."""
    active = np.isin(cortex.rows, rows)
    tree = KDTree(cortex.places[active]) if active.any() else None
    gaps = [gap(tree, cortex.places[patch]) for patch in patches]
    return min(gaps, default=np.inf) <= NEAR

"""Confidence in each parcel, from estimates with parts of the channels."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
from mne.utils import ProgressBar
from scipy.special import expit

from ..head.leadfield import channel_std
from ..metrics import otsu_threshold
from .verdict import read_calibration

_KEPT = 0.8  # share of the channels in each pass


def estimate_again(data, plan, n_passes, random_state):
    """Estimate from random subsets of the channels.

    Parameters
    ----------
    data : array of shape (n_channels, n_times)
        Data of the channels used.
    plan : Plan
        The plan of the first estimate.
    n_passes : int
        Number of subsets.
    random_state : int | None
        Seed of the subsets.

    Returns
    -------
    passes : array of shape (n_passes, n_parcels, n_times)
        The mean activity of the parcels.
    """
    rng = np.random.default_rng(random_state)
    leadfield, std = plan.leadfield, channel_std(plan.leadfield)
    unwhiten = np.linalg.pinv(leadfield.whitener) / std
    noise = unwhiten @ unwhiten.T
    band = plan.band_of([leadfield.whiten(data)])
    data, gain = leadfield.projector @ data / std, leadfield.gain / std
    patterns = plan.operator._patterns
    n_channels = len(data)
    passes = []
    bar = "Estimating from parts of the channels"
    for _ in ProgressBar(range(n_passes), mesg=bar, unit=" passes"):
        kept = rng.choice(n_channels, max(1, round(_KEPT * n_channels)), replace=False)
        values, vectors = np.linalg.eigh(noise[np.ix_(kept, kept)])
        large = values > 1e-8 * values[-1]
        whitener = (vectors[:, large] / np.sqrt(values[large])).T
        fine = patterns.gain_of(whitener @ (np.eye(n_channels) / std)[kept])
        prepared = plan.model.prepare(whitener @ gain[kept], fine)
        passes.append(
            prepared.estimate(
                whitener @ data[kept],
                plan.info["sfreq"],
                band=band,
                mixing=plan.operator._to_parcels,
            )
        )
    return np.array(passes)


def stability(passes, snr, rank):
    """Describe each parcel by how well several estimates agree on it.

    Parameters
    ----------
    passes : array of shape (n_passes, n_parcels, n_times)
        The estimates.
    snr : float
        The feature ``"snr"`` (dB).
    rank : int
        Rank of the whitened data.

    Returns
    -------
    table : array of shape (n_parcels, 4)
        How often the peak exceeds Otsu's threshold; log of the mean peak over the
        threshold; SNR (dB / 10); log of the rank.
    """
    peaks = np.abs(passes).max(-1)
    thresholds = np.array([otsu_threshold(peak) for peak in peaks])[:, None]
    ratio = peaks / np.where(thresholds > 0, thresholds, 1)
    often, strength = (peaks > thresholds).mean(0), np.log(ratio.mean(0) + 0.05)
    rest = np.broadcast_to([np.clip(snr, 0, 30) / 10, np.log(rank)], (len(often), 2))
    return np.column_stack([often, strength, rest])


def parcel_confidence(passes, snr, rank):
    """Compute the probability that each parcel is active, given good data.

    Parameters
    ----------
    passes : array of shape (n_passes, n_parcels, n_times)
        Estimates from subsets of the channels.
    snr : float
        The feature ``"snr"`` (dB).
    rank : int
        Rank of the whitened data.

    Returns
    -------
    confidence : array of shape (n_parcels,)
        Between 0 and 1; 0 where all passes are zero.
    """
    confidence = confidence_of(stability(passes, snr, rank))
    return np.where(passes.any((0, 2)), confidence, 0.0)


def confidence_of(table):
    """Turn the rows of :func:`stability` into probabilities.

    Parameters
    ----------
    table : array of shape (n_parcels, 4)
        What :func:`stability` returned.

    Returns
    -------
    confidence : array of shape (n_parcels,)
        Between 0 and 1.
    """
    model = read_calibration()["confidence"]
    return expit(table @ np.array(model["coef"]) + model["intercept"])

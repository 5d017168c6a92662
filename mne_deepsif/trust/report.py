"""The trust report: whether you can believe an estimate."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import dataclass, replace

import mne
import numpy as np
from mne.utils import _validate_type, logger, verbose

from ..inverse.plan import (
    describe_wrong_units,
    estimate_sources,
    explained,
    make_plan,
    make_stc,
)
from .confidence import estimate_again, parcel_confidence
from .verdict import judge


@dataclass(frozen=True, repr=False)
class TrustReport:
    """What speaks for and against an estimate.

    Attributes
    ----------
    probabilities : dict of float
        What the data look like: ``"good"`` (brain activity as in training), ``"noise"``
        (sensor noise), ``"blink"``, ``"line"`` (power line) or ``"electrode"`` (a
        single bad one). They sum to 1.
    features : dict of float
        The numbers behind the probabilities, in dB. ``"snr"``: brain activity over
        noise, from the spatial spectrum (power over the modes of the leadfield, fitted
        by ``a * eigenvalue + b``). ``"residual"``: share of power that the estimate
        does not explain. ``"prediction"``: share of the channels' power that the other
        channels do not predict, if all came from the brain. ``"channel"``: this power
        for the least predicted channel, over that of the mean channel. ``"eyes"``: what
        the estimate does not explain, over what dipoles at the eyes do not explain (NaN
        without sensor positions). ``"line"``: share of power at 50 or 60 Hz, over all
        samples. The others use the samples with at least half of the largest power.
    reasons : list of str
        Why not to trust the estimate; empty if nothing speaks against it.
    goodness_of_fit : array of shape (n_times,)
        Share of the whitened data's power that the estimate explains at each time; see
        :func:`goodness_of_fit`.
    times : array of shape (n_times,)
        The times (s).
    n_channels : int
        Number of channels used.
    rank : int
        Rank of the whitened data.
    n_modes : int
        Number of modes of the leadfield in which brain activity exceeds the noise.
    sfreq : float
        Sampling rate of the data (Hz).
    confidence : SourceEstimate | None
        Probability that a vertex belongs to an active source, for the whole time range
        (a single sample). It is the probability if the data are good, times the
        probability that they are.
    spread : SourceEstimate | None
        Standard deviation (A m) of the estimate over passes with 80 % of the channels.
    """

    probabilities: dict
    features: dict
    reasons: list
    goodness_of_fit: np.ndarray
    times: np.ndarray
    n_channels: int
    rank: int
    n_modes: int
    sfreq: float
    confidence: mne.SourceEstimate | None
    spread: mne.SourceEstimate | None

    @property
    def score(self):
        """How unusual the data are, ``1 - probabilities["good"]``: 0 good, 1 bad."""
        return 1 - self.probabilities["good"]

    @property
    def is_trustworthy(self):
        """Whether nothing speaks against the estimate."""
        return not self.reasons

    def __repr__(self):
        """Give the verdict and the reasons."""
        verdict = "; ".join(self.reasons) or "nothing speaks against the estimate"
        good = self.probabilities["good"]
        peak = np.nan_to_num(self.goodness_of_fit).max()
        return (
            f"<TrustReport | {verdict} | probability of brain activity {good:.0%}, the "
            f"estimate explains up to {peak:.0%} of the data, {self.n_channels} "
            "channels>"
        )


@verbose
def assess_deepsif(
    evoked,
    fwd,
    noise_cov=None,
    *,
    estimator="generic",
    n_passes=10,
    rank=None,
    subjects_dir=None,
    random_state=0,
    verbose=None,
):
    """Judge whether you can believe :func:`apply_deepsif` on these data.

    Parameters
    ----------
    evoked : Evoked
        The data.
    fwd : Forward | DeepSIFOperator
        As in :func:`apply_deepsif`.
    noise_cov : Covariance | None
        As in :func:`apply_deepsif`.
    estimator : str | path-like | DeepSIFEstimator
        As in :func:`apply_deepsif`. The report was calibrated for ``"generic"``.
    n_passes : int
        Number of estimates behind the maps of confidence and spread, each from 80 %% of
        the channels, drawn at random. 0 leaves the maps out.
    rank : None | 'info' | 'full' | dict
        As in :func:`apply_deepsif`.
    subjects_dir : path-like | None
        As in :func:`apply_deepsif`.
    random_state : int | None
        Seed of the channels drawn.
    %(verbose)s

    Returns
    -------
    report : TrustReport
        Goodness of fit, how unusual the data are and why, and a map of confidence.

    Notes
    -----
    The report compares the data with simulated responses and simulated artefacts, so it
    finds only what it knows. Ongoing activity without any event, muscle artefacts or a
    wrong forward solution may go unnoticed. An estimator with ``encoder="sensors"``
    needs all its channels, so it gives no maps.
    """
    _validate_type(evoked, mne.Evoked, "evoked")
    _validate_type(n_passes, "int-like", "n_passes")
    if n_passes < 0:
        raise ValueError(f"n_passes must be 0 or more, got {n_passes}.")
    plan = make_plan(
        evoked.info,
        fwd,
        noise_cov,
        estimator,
        label=None,
        pick_ori=None,
        rank=rank,
        nave=evoked.nave,
        subjects_dir=subjects_dir,
    )
    estimate = estimate_sources(evoked.data, plan)
    judged = judge(estimate, plan)
    judged["reasons"] += describe_wrong_units(estimate.data, plan, evoked)[0]
    if plan.operator.doubt:
        judged["reasons"].append(plan.operator.doubt)
    leadfield = plan.leadfield
    rank = len(estimate.data_white)
    confidence = spread = None
    if n_passes and plan.model.encoder == "sensors":
        logger.info("encoder='sensors' needs all its channels: no maps are made.")
    elif n_passes:
        passes = estimate_again(estimate.data, plan, n_passes, random_state)
        chance = parcel_confidence(passes, judged["features"]["snr"], rank)
        chance *= judged["probabilities"]["good"]
        confidence = _map_of(chance, plan, evoked)
        spread = make_stc(
            passes.std(0),
            replace(plan, activity=leadfield.vertex_area),
            evoked.times[0],
        )
    report = TrustReport(
        **judged,
        goodness_of_fit=explained(estimate.data_white, estimate.fit_white),
        times=evoked.times.copy(),
        n_channels=len(leadfield.ch_names),
        rank=rank,
        sfreq=evoked.info["sfreq"],
        confidence=confidence,
        spread=spread,
    )
    logger.info("%s", report)
    return report


def _map_of(values, plan, evoked):
    """Give each vertex the value of its parcel, as an estimate of one sample."""
    parcel = np.concatenate(plan.leadfield.parcel_of_vertex)
    data = np.append(values, 0.0)[parcel][:, np.newaxis]  # -1: no parcel
    return mne.SourceEstimate(
        data,
        plan.vertices,
        float(evoked.times[0]),
        1 / evoked.info["sfreq"],
        plan.leadfield.subject,
    )

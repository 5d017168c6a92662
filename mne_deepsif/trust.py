"""Is an estimate to be believed: how usual the data are, how stable the answer is."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import mne
import numpy as np
from mne.utils import _validate_type, logger, verbose, warn
from scipy.special import expit, softmax

from .features import FEATURES, channel_std, measure_features
from .metrics import otsu_threshold
from .prepared import apply_array, make_plan, make_stc, one_blas_thread
from .windows import explained

KINDS = ("good", "noise", "blink", "line", "electrode")
_REASONS = {
    "noise": "the data look like sensor noise (spatial SNR {snr:.0f} dB)",
    "blink": "a blink: dipoles at the eyes leave {eyes:.0f} dB less of the data than "
    "the estimate does",
    "line": "power line noise: 50 or 60 Hz hold {line:.0%} of the power",
    "electrode": "channel {channel!r} stands alone: no other channel sees what it does",
}
# The generic weights saw 19 channels and more, of which up to a tenth were dropped.
_MIN_CHANNELS = 16
_KEPT = 0.8  # share of the channels in each pass


@dataclass(frozen=True, repr=False)
class TrustReport:
    """What speaks for and against an estimate.

    Attributes
    ----------
    probabilities : dict of float
        What the data look like: ``"good"`` (brain activity as in training), or
        ``"noise"``, ``"blink"``, ``"line"`` (power line), ``"electrode"`` (a single bad
        one) instead. They sum to 1.
    features : dict of float
        What that was judged by, in dB. At the samples with at least half of the largest
        power: ``"snr"``, brain activity over noise by the spatial spectrum (power over
        the modes of the leadfield, fitted by ``a * eigenvalue + b``); ``"residual"``,
        the share of power that the estimate leaves; ``"prediction"``, the share of each
        channel that the others do not predict, as if all were from the brain;
        ``"channel"``, the channel least predicted over the mean channel; ``"eyes"``,
        what the estimate leaves over what dipoles at the eyes leave (NaN without
        sensor positions). Over all samples: ``"line"``, the share of power at 50 or
        60 Hz.
    reasons : list of str
        Why not to trust the estimate; empty if nothing speaks against it.
    goodness_of_fit : array of shape (n_times,)
        Share of the whitened data's power that is explained at each time; see
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
        Probability that a vertex belongs to an active source, over the whole time range
        (a single sample). It is that of good data, times the probability that the data
        are good.
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
        """How unusual the data are, from 0 to 1: ``1 - probabilities["good"]``."""
        return 1 - self.probabilities["good"]

    @property
    def is_trustworthy(self):
        """Whether nothing speaks against the estimate."""
        return not self.reasons

    def __repr__(self):
        """Say the verdict, and why."""
        verdict = "; ".join(self.reasons) or "nothing speaks against the estimate"
        snr, peak = self.features["snr"], np.nan_to_num(self.goodness_of_fit).max()
        return (
            f"<TrustReport | {verdict} | score {self.score:.2f}, SNR {snr:.0f} dB, "
            f"fit up to {peak:.0%}, {self.n_channels} channels>"
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
    """Judge whether :func:`apply_deepsif` is to be believed on these data.

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
        Number of estimates from 80 %% of the channels, drawn at random, behind the maps
        of confidence and spread. 0 leaves the maps out.
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
        Goodness of fit, how unusual the data are and why, a map of confidence.

    Notes
    -----
    The report compares the data with simulated responses and simulated artefacts: it
    finds what it knows. Ongoing activity without any event, muscle artefacts or a
    wrong forward solution may pass. An estimator with ``encoder="sensors"`` needs all
    its channels, so that it gives no maps.
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
    sources, _ = apply_array(evoked.data, plan)
    judged = _judge(evoked.data, sources, plan)
    leadfield = plan.leadfield
    white = leadfield.whiten(evoked.data[plan.picks])
    confidence = spread = None
    if n_passes and plan.estimator.encoder == "sensors":
        logger.info("encoder='sensors' needs all its channels: no maps are made.")
    elif n_passes:
        passes = np.array(
            list(_passes(evoked.data[plan.picks], plan, n_passes, random_state))
        )
        chance = parcel_confidence(passes, judged["features"]["snr"], len(white))
        chance *= judged["probabilities"]["good"]
        confidence = _map_of(chance, plan, evoked)
        spread = make_stc(passes.std(0), plan, evoked.times[0])
    report = TrustReport(
        **judged,
        goodness_of_fit=explained(white, leadfield.gain_white @ sources),
        times=evoked.times.copy(),
        n_channels=len(leadfield.ch_names),
        rank=len(white),
        sfreq=evoked.info["sfreq"],
        confidence=confidence,
        spread=spread,
    )
    logger.info("%s", report)
    return report


def warn_if_unusual(data, sources, plan):
    """Warn if data do not look like brain activity as in training.

    Parameters
    ----------
    data : array of shape (n_all_channels, n_times)
        Data of all channels of ``plan.info``.
    sources : array of shape (n_parcels, n_times)
        The estimate (A/m).
    plan : Plan
        What the estimate was made with.
    """
    if reasons := _judge(data, sources, plan)["reasons"]:
        warn(
            f"The estimate may be wrong: {'; '.join(reasons)}. Look at the data and at "
            "mne_deepsif.assess_deepsif."
        )


@one_blas_thread()
def _judge(data, sources, plan):
    """Return the first fields of a report."""
    leadfield, sfreq = plan.leadfield, plan.info["sfreq"]
    features, worst, n_modes = measure_features(
        leadfield, data[plan.picks], sources, sfreq, plan.operator._eyes
    )
    probabilities = classify(features)
    reasons = list_reasons(probabilities, features, leadfield.ch_names[worst])
    reasons += _unlike_training(leadfield, sfreq, plan.estimator)
    return dict(
        probabilities=probabilities, features=features, reasons=reasons, n_modes=n_modes
    )


def list_reasons(probabilities, features, channel):
    """Say what the data look like, if not like brain activity that was found.

    Parameters
    ----------
    probabilities : dict of float
        What :func:`classify` returned.
    features : dict of float
        The numbers of :data:`FEATURES`.
    channel : str
        The channel that the others predict least.

    Returns
    -------
    reasons : list of str
        One reason or none.
    """
    limits = _model()["limits"]
    share = 1 - 10 ** (features["residual"] / 10)
    if 1 - probabilities["good"] > limits["score"]:
        worst = max(KINDS[1:], key=probabilities.get)
        line = 10 ** (features["line"] / 10)
        return [_REASONS[worst].format(**features | dict(line=line, channel=channel))]
    if share < limits["explained"]:
        return [f"the estimate explains {share:.0%} of the data where they are largest"]
    return []


def _unlike_training(leadfield, sfreq, estimator):
    """List what the training data never were, whatever is in the recording."""
    reasons = []
    n_channels = min(leadfield.whitener.shape)
    if estimator.encoder == "backprojection" and n_channels < _MIN_CHANNELS:
        reasons.append(
            f"the data have {n_channels} independent channels, training had at least "
            f"{_MIN_CHANNELS}"
        )
    if sfreq < 0.9 * estimator.sfreq_:
        reasons.append(
            f"the data are sampled at {sfreq:g} Hz, the network's rate is "
            f"{estimator.sfreq_:g} Hz"
        )
    return reasons


@lru_cache
def _model():
    """Read what ``benchmarks/trust.py fit`` found."""
    fname = Path(__file__).parent / "data" / "trust.json"
    return json.loads(fname.read_text(encoding="utf-8"))


def classify(features):
    """Compute what data look like, by multinomial logistic regression.

    Parameters
    ----------
    features : dict of float
        The numbers of :data:`FEATURES`; NaN stands for the usual value.

    Returns
    -------
    probabilities : dict of float
        The probability of each of :data:`KINDS`.
    """
    model = _model()["kinds"]
    values = np.array([features[name] for name in FEATURES])
    values = np.where(np.isnan(values), model["usual"], values)
    values = np.clip(values, model["low"], model["high"])  # do not extrapolate
    logits = np.array(model["coef"]) @ values + model["intercept"]
    return dict(zip(KINDS, softmax(logits).tolist()))


# --------------------------------------------------------------- the maps


def _passes(data, plan, n_passes, random_state):
    """Yield estimates (n_parcels, n_times) from random subsets of the channels."""
    rng = np.random.default_rng(random_state)
    leadfield, std = plan.leadfield, channel_std(plan.leadfield)
    unwhiten = np.linalg.pinv(leadfield.whitener) / std
    noise = unwhiten @ unwhiten.T
    data, gain = leadfield.projector @ data / std, leadfield.gain / std
    n_channels = len(data)
    for _ in range(n_passes):
        kept = rng.choice(n_channels, max(1, round(_KEPT * n_channels)), replace=False)
        values, vectors = np.linalg.eigh(noise[np.ix_(kept, kept)])
        large = values > 1e-8 * values[-1]
        whitener = (vectors[:, large] / np.sqrt(values[large])).T
        yield plan.estimator._estimate(
            whitener @ data[kept], whitener @ gain[kept], plan.info["sfreq"]
        )


def stability(passes, snr, rank):
    """Describe parcels by what several estimates say of them.

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
        Between 0 and 1; 0 where no pass shows anything.
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
    model = _model()["confidence"]
    return expit(table @ np.array(model["coef"]) + model["intercept"])


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

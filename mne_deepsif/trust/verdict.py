"""The verdict on an estimate: what its data look like, and what speaks against it."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import json
from functools import lru_cache

import numpy as np
from mne.utils import warn
from scipy.special import softmax

from ..cache import PACKAGE_DATA
from ..head.leadfield import channel_std
from ..inverse.plan import describe_lost_band, one_blas_thread
from .features import FEATURES, measure_features
from .order import find_order

KINDS = ("good", "noise", "blink", "line", "electrode")
_REASONS = {
    "noise": "the data look like sensor noise (spatial SNR {snr:.0f} dB)",
    "blink": "the data look like a blink{blink}",
    "line": "power line noise: {line:.0%} of the power is at 50 or 60 Hz",
    "electrode": "channel {channel!r} stands alone: no other channel sees what it does",
}
_SHUFFLED = (
    "{kind} channels are no more like their neighbours than like any others: the rows "
    "of the data may have another order than the channel names, or this is no brain "
    "activity"
)
_SWAPPED = (
    "by the data, {kind} channels are exchanged ({pairs}): the rows of the data may "
    "have another order than the channel names, or cables were swapped"
)
_REARRANGED = (
    "by the data, the rows of {kind} channels have another order than the channel "
    "names: {how}"
)
_NAMES = {"eeg": "EEG", "mag": "MEG", "grad": "MEG"}
_ALIKE = 3.0  # dB, up to which two explanations of the data are about as good
# The generic weights saw 19 channels or more, up to a tenth of them dropped.
_MIN_CHANNELS = 16


def warn_if_unusual(estimate, plan):
    """Warn if data do not look like brain activity as in training.

    Parameters
    ----------
    estimate : SourceActivity
        Data and estimate.
    plan : Plan
        The plan of the estimate.
    """
    if reasons := judge(estimate, plan)["reasons"]:
        _warn("; ".join(reasons))


def warn_if_disordered(data, plan):
    """Warn if the rows of data have another order than the channels.

    Return whether there was a warning.
    """
    if reason := describe_disorder(data, plan):
        _warn(reason)
    return bool(reason)


def _warn(reasons):
    warn(
        f"The estimate may be wrong: {reasons}. Look at the data and at "
        "mne_deepsif.assess_deepsif."
    )


@one_blas_thread()
def judge(estimate, plan):
    """Judge an estimate.

    Parameters
    ----------
    estimate : SourceActivity
        Data and estimate.
    plan : Plan
        The plan of the estimate.

    Returns
    -------
    judged : dict
        The fields of a :class:`TrustReport` that say what the data look like.
    """
    leadfield, sfreq = plan.leadfield, plan.info["sfreq"]
    features, worst, n_modes = measure_features(
        leadfield, estimate, sfreq, plan.operator._eyes
    )
    probabilities = classify(features)
    reasons = list_reasons(probabilities, features, leadfield.ch_names[worst])
    if not reasons and (disorder := describe_disorder(estimate.data, plan)):
        reasons = [disorder]
    reasons += _unlike_training(leadfield, sfreq, plan.model)
    if lost := describe_lost_band(estimate.power, plan):
        reasons.append(lost)
    return dict(
        probabilities=probabilities, features=features, reasons=reasons, n_modes=n_modes
    )


def list_reasons(probabilities, features, channel):
    """Say what the data look like, unless the estimate explains brain activity.

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
    limits = read_calibration()["limits"]
    share = 1 - 10 ** (features["residual"] / 10)
    if 1 - probabilities["good"] > limits["score"]:
        worst = max(KINDS[1:], key=probabilities.get)
        words = features | dict(
            line=10 ** (features["line"] / 10),
            blink=_compare_with_eyes(features["eyes"]),
            channel=channel,
        )
        return [_REASONS[worst].format(**words)]
    if share < limits["explained"]:
        return [
            f"the estimate explains only {share:.0%} of the data where they are largest"
        ]
    return []


@one_blas_thread()
def describe_disorder(data, plan):
    """Say that the rows of data have another order than the channels, else None.

    Parameters
    ----------
    data : array of shape (..., n_channels, n_times)
        Data of the channels used.
    plan : Plan
        The plan of the estimate.

    Returns
    -------
    reason : str | None
        What is wrong.
    """
    leadfield, std = plan.leadfield, channel_std(plan.leadfield)
    types = np.array(leadfield.ch_types)
    for kind in sorted(set(types)):
        picks = np.flatnonzero(types == kind)
        projector = leadfield.projector[np.ix_(picks, picks)]
        order = find_order(
            data[..., picks, :],
            leadfield.gain[picks],
            projector,
            std[picks],
            plan.info["sfreq"],
            kind,
        )
        names = [leadfield.ch_names[pick] for pick in picks]
        if order is not None and (reason := _describe_order(order, kind, names)):
            return reason
    return None


def _describe_order(order, kind, names):
    """Say what is wrong with the order of channels of a type, else None."""
    if order.is_rearranged and (
        order.rearranged_gain > order.gain or not order.is_random
    ):
        how = _describe_rearrangement(order.rearrangement, names)
        return _REARRANGED.format(kind=_NAMES[kind], how=how)
    if order.is_random:
        return _SHUFFLED.format(kind=_NAMES[kind])
    if not order.is_swapped(kind):
        return None
    pairs = [f"{names[i]} and {names[j]}" for i, j in order.swaps[:3]]
    pairs = ", ".join(pairs) + (", ..." if len(order.swaps) > 3 else "")
    return _SWAPPED.format(kind=_NAMES[kind], pairs=pairs)


def _describe_rearrangement(rearrangement, names):
    """Say which rows seem to be where."""
    if not rearrangement:
        return "they seem to be reversed"
    if len(rearrangement) == 1:
        (shift,) = rearrangement
        return (
            f"the row of {names[0]} seems to be that called {names[shift]}, and so on"
        )
    first, second, size = rearrangement
    blocks = [f"{names[i]} to {names[i + size - 1]}" for i in (first, second)]
    return f"{blocks[0]} seem to be exchanged with {blocks[1]}"


def _compare_with_eyes(eyes):
    """Say in words how well the eyes explain the data; NaN: their place is unknown."""
    if np.isnan(eyes):
        return ""
    how = "better than" if eyes > _ALIKE else "about as well as"
    if eyes < -_ALIKE:
        how = "too, though less well than"
    return f": sources at the eyes explain them {how} the estimate does"


def _unlike_training(leadfield, sfreq, model):
    """List what the training data never had, whatever the recording shows."""
    reasons = []
    n_channels = min(leadfield.whitener.shape)
    if model.encoder == "backprojection" and n_channels < _MIN_CHANNELS:
        reasons.append(
            f"the data have {n_channels} independent channels, but training used at "
            f"least {_MIN_CHANNELS}"
        )
    if sfreq < 0.9 * model.sfreq:
        reasons.append(
            f"the data are sampled at {sfreq:g} Hz, but the network's rate is "
            f"{model.sfreq:g} Hz"
        )
    return reasons


@lru_cache
def read_calibration():
    """Read the numbers that ``benchmarks.making.trust fit`` found."""
    return json.loads((PACKAGE_DATA / "trust.json").read_text(encoding="utf-8"))


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
    kinds = read_calibration()["kinds"]
    values = np.array([features[name] for name in FEATURES])
    values = np.where(np.isnan(values), kinds["usual"], values)
    values = np.clip(values, kinds["low"], kinds["high"])  # do not extrapolate
    logits = np.array(kinds["coef"]) @ values + kinds["intercept"]
    return dict(zip(KINDS, softmax(logits).tolist()))

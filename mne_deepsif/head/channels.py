"""Channels: which are used, and how they are projected and whitened.

The rules for channels are here, in :mod:`.reference` and in :mod:`.bipolar`, and
nowhere else. :func:`pick_ch_names` says which channels are used, :func:`make_whitener`
what happens to them.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
from mne.utils import logger, warn

from .._mne import (
    FIFF,
    annotations_starts_stops,
    check_compensation_grade,
    make_projector,
)
from .bipolar import mark_bipolar
from .covariance import check_noise_cov
from .reference import add_average_reference

_MAX_DISPLACEMENT = 5e-3  # m; between the sensors of the data and of the forward
_INFINITE = 1e30  # V or T; the square of more may overflow when whitened


# --------------------------------------------------------------- which channels


def pick_ch_names(info, fwd, noise_cov):
    """List the channels used, in the order of the data.

    Parameters
    ----------
    info : Info
        Measurement info of the data.
    fwd : Forward
        Forward solution.
    noise_cov : Covariance | None
        Noise covariance.

    Returns
    -------
    ch_names : list of str
        EEG, magnetometers and gradiometers that all three have, and that neither the
        data nor the covariance marks as bad.
    """
    picks = mne.pick_types(info, meg=True, eeg=True, ref_meg=False, exclude=())
    names = [info["ch_names"][pick] for pick in picks]
    if not names:
        raise ValueError("The data have neither EEG nor MEG channels.")
    names = _keep_shared(names, fwd["sol"]["row_names"], "forward")
    bads = set(info["bads"])
    if noise_cov is not None:
        names = _keep_shared(names, noise_cov["names"], "noise covariance")
        if set(noise_cov["bads"]) ^ bads & set(noise_cov["names"]):
            logger.info(
                'info["bads"] and noise_cov["bads"] do not match, excluding bad '
                "channels from both"
            )
        bads |= set(noise_cov["bads"])
    good = [name for name in names if name not in bads]
    if not good:
        raise ValueError(
            f"All {len(names)} channels that the data share with the forward solution "
            "and the noise covariance are marked bad. Check info['bads'] and "
            "noise_cov['bads']."
        )
    logger.info("Using %d channels (%d bad).", len(good), len(names) - len(good))
    return good


def _keep_shared(names, others, what):
    shared = [name for name in names if name in set(others)]
    if not shared:
        raise ValueError(
            f"The data and the {what} have no channel in common: the data start with "
            f"{names[:3]}, the {what} with {list(others)[:3]}. Use a {what} made for "
            "these channels, or rename the channels of the data."
        )
    if len(shared) < len(names):
        n_missing = len(names) - len(shared)
        logger.info("Leaving out %d channels that are not in the %s.", n_missing, what)
    return shared


def demand_ch_names(ch_names, usable):
    """Return the channels that an estimator reads; raise if one cannot be used."""
    missing = [name for name in ch_names if name not in set(usable)]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(ch_names)} channels that the estimator reads are "
            "bad or missing in the data, the forward or the noise covariance: "
            f"{missing}. Interpolate the data to the estimator's sensors "
            "(interpolate_bads, interpolate_to), train an estimator for these "
            "channels (fit), or use estimator='generic', which takes any channels."
        )
    return list(ch_names)


def check_ch_types(info, fwd_info, ch_names):
    """Raise if data and forward call a channel by different types."""
    here, there = (
        dict(zip(one["ch_names"], one.get_channel_types())) for one in (info, fwd_info)
    )
    wrong = [name for name in ch_names if here[name] != there[name]]
    if wrong:
        raise ValueError(
            f"{len(wrong)} channel(s) are of another type in the data than in the "
            f"forward, e.g. {wrong[0]!r} is {here[wrong[0]]!r} in the data and "
            f"{there[wrong[0]]!r} in the forward. Set the type (set_channel_types), or "
            "make the forward with the info of the data."
        )


def check_sensor_positions(info, fwd_info, ch_names):
    """Warn if the forward solution was computed for sensors at other positions."""
    here, there = sensor_positions(info), sensor_positions(fwd_info)
    moves = [np.linalg.norm(here[name] - there[name]) for name in ch_names]
    largest = np.nanmax(moves) if np.isfinite(moves).any() else 0.0
    if largest > _MAX_DISPLACEMENT:
        warn(
            f"The sensors of the data and of the forward are up to "
            f"{1e3 * largest:.0f} mm apart in head coordinates: the forward may "
            "belong to another recording. Recompute it with the info of the data."
        )


def sensor_positions(info):
    """Return positions in head coordinates (m) by name, NaN where unknown."""
    positions = {}
    for ch in info["chs"]:
        position = ch["loc"][:3]
        if ch["kind"] == FIFF.FIFFV_MEG_CH:
            trans = info["dev_head_t"]
            known = trans is not None
            position = mne.transforms.apply_trans(trans, position) if known else np.nan
        elif not np.any(position):  # zeros mean no position
            position = np.nan
        positions[ch["ch_name"]] = np.asarray(position)
    return positions


def pick_info(info, ch_names):
    """Copy info with only the channels used."""
    info = mark_bipolar(info)
    info = mne.pick_info(info, [info["ch_names"].index(name) for name in ch_names])
    info["bads"] = []
    return info


# --------------------------------------------------------------- noise


def make_projector_and_whitener(info, noise_cov, rank=None):
    """Compute the projector and the whitener of all channels of an Info.

    Parameters
    ----------
    info : Info
        Measurement info of the channels used, see :func:`pick_info`. An average
        reference that was applied is added to its projectors.
    noise_cov : Covariance | None
        Noise covariance of single trials; None makes an ad-hoc one, with a warning.
    rank : None | 'info' | 'full' | dict
        Rank of the noise covariance.

    Returns
    -------
    projector : array of shape (n_channels, n_channels)
        SSP projectors and EEG average reference.
    whitener : array of shape (rank, n_channels)
        Whitener, including the projector.
    """
    add_average_reference(info)
    projector, _, _ = make_projector(info["projs"], info["ch_names"])
    if noise_cov is None:
        warn(
            "No noise covariance was given: assuming independent noise of 0.2 µV "
            "(EEG), 20 fT (magnetometers), 5 fT/cm (gradiometers). Give noise_cov, "
            "e.g. from mne.compute_covariance."
        )
        noise_cov = mne.make_ad_hoc_cov(info)
    check_noise_cov(noise_cov, info["ch_names"], info.get_channel_types())
    noise_cov = mne.cov.prepare_noise_cov(noise_cov, info, info["ch_names"], rank)
    whitener, _ = mne.cov.compute_whitener(noise_cov, pca=True)
    return projector, whitener @ projector


def make_whitener(info, noise_cov, ch_names, rank=None):
    """Compute the whitener of some channels, including the projectors.

    Parameters
    ----------
    info : Info
        Measurement info of the data.
    noise_cov : Covariance
        Noise covariance with all of the channels.
    ch_names : list of str
        The channels.
    rank : None | 'info' | 'full' | dict
        Rank of the noise covariance.

    Returns
    -------
    whitener : array of shape (rank, n_channels)
        Whitener for a single trial.
    """
    return make_projector_and_whitener(pick_info(info, ch_names), noise_cov, rank)[1]


# --------------------------------------------------------------- data that come later


def check_same_sensors(info, made_for, leadfield):
    """Check that a leadfield made for one recording suits another.

    Parameters
    ----------
    info : Info
        Measurement info of the data.
    made_for : Info
        Measurement info that the leadfield was made with.
    leadfield : Leadfield
        The leadfield.
    """
    ch_names = leadfield.ch_names
    wrong = set(info["bads"]) | (set(ch_names) - set(info["ch_names"]))
    wrong = [name for name in ch_names if name in wrong]
    remedy = "Make one for these data: make_deepsif_operator(evoked.info, ...)."
    if wrong:
        raise ValueError(
            f"{len(wrong)} of the operator's {len(ch_names)} channels are bad or "
            f"missing in the data: {wrong[:10]}. {remedy}"
        )
    check_compensation_grade(made_for, info, "operator")
    if not _same_positions(info, made_for, ch_names):  # ten times faster than the next
        check_sensor_positions(info, made_for, ch_names)
    if not _same_projectors(info, made_for):
        raise ValueError(
            "The projectors or the EEG reference of the data differ from those that "
            f"the operator was made with. {remedy}"
        )


def _same_positions(info, other, ch_names):
    """Say whether positions are exactly equal."""
    if info["dev_head_t"] != other["dev_head_t"]:
        return False
    here, there = _locations(info, ch_names), _locations(other, ch_names)
    return np.array_equal(here, there, equal_nan=True)


def _locations(info, ch_names):
    loc = {ch["ch_name"]: ch["loc"] for ch in info["chs"]}
    return np.array([loc[name] for name in ch_names])


def _same_projectors(info, other):
    """Compare projectors, active or not; an applied reference counts as one."""
    if info["custom_ref_applied"] != other["custom_ref_applied"]:
        return False
    if len(info["projs"]) != len(other["projs"]):
        return False
    return all(
        one["data"]["col_names"] == two["data"]["col_names"]
        and np.allclose(one["data"]["data"], two["data"]["data"])
        for one, two in zip(info["projs"], other["projs"])
    )


def pick_data(data, picks, ch_names):
    """Return the data of the channels used; raise if they have impossible values.

    Parameters
    ----------
    data : array of shape (..., n_all_channels, n_times)
        Data of all channels.
    picks : list of int
        Indices of the channels used.
    ch_names : list of str
        Their names.

    Returns
    -------
    data : array of shape (..., n_channels, n_times)
        Data of the channels used.
    """
    if data.shape[-1] == 0:
        raise ValueError("The data have no samples. Use a longer time range.")
    if np.iscomplexobj(data):
        raise ValueError(
            "The data are complex, but sources can only be estimated from real "
            "signals. Estimate the real and the imaginary part separately."
        )
    data = data[..., picks, :]
    finite = is_possible(data).all(-1).reshape(-1, len(ch_names)).all(0)
    if not finite.all():
        wrong = [name for name, good in zip(ch_names, finite) if not good]
        raise ValueError(
            f"The data have NaN or infinite values in {len(wrong)} channel(s): "
            f"{wrong[:10]} ({_INFINITE:g} or more counts as infinite). Mark these "
            "channels in info['bads'], or crop the data."
        )
    return data


def is_possible(data):
    """Say which values (V or T) are neither NaN nor infinite, or as good as that."""
    return np.abs(data) < _INFINITE


def good_spans(raw, start, stop):
    """List the spans without an annotation that marks them as bad or as an edge.

    Parameters
    ----------
    raw : Raw
        The recording.
    start, stop : int
        The range of samples to look at.

    Returns
    -------
    spans : list of tuple of int
        For each span without annotations that start with ``"bad"`` or ``"edge"`` (in
        upper or lower case): its first sample, and the first sample after it.
    """
    onsets, ends = annotations_starts_stops(raw, ("bad", "edge"))
    bad = np.zeros(stop - start + 1, bool)
    onsets, ends = (np.clip(x - start, 0, stop - start) for x in (onsets, ends))
    for onset, end in zip(onsets, ends):
        bad[onset:end] = True
    bounds = np.unique([0, *onsets, *ends, stop - start])
    return [
        (start + int(first), start + int(last))
        for first, last in zip(bounds[:-1], bounds[1:])
        if not bad[first]
    ]

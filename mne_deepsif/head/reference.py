"""The reference of EEG: whether it is the average, and its projector."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
from mne.utils import logger
from numpy.polynomial.legendre import legval

from .._mne import FIFF, make_eeg_average_ref_proj
from .bipolar import find_bipolar

_MAX_MEAN = 1e-3  # of average-referenced channels, over their rms: rounding of files
_FLAT = 1e-12  # V; anything smaller is a flat stretch with rounding errors
_STIFFNESS, _DEGREES, _SMOOTHING = 4, 50, 1e-5  # of MNE's spherical splines


# --------------------------------------------------------------- the projector


def add_average_reference(info):
    """Complete the average reference among the projectors of an Info, in place.

    Parameters
    ----------
    info : Info
        Measurement info of the channels used. If they are referenced to their average,
        or if a projector leaves some of them out, the projectors get a complete one.

    Notes
    -----
    An incomplete projector that is active stays as well. It may have changed the
    reference of some channels and not of the others; both together remove either.
    Bipolar channels have no reference that matters.
    """
    eeg = {info["ch_names"][pick] for pick in mne.pick_types(info, eeg=True)}
    eeg = sorted(eeg - set(find_bipolar(info)))
    average = [proj for proj in info["projs"] if _is_average_reference(proj)]
    if not eeg or _removes_mean(average, eeg):
        return
    if not average and not info["custom_ref_applied"]:
        raise ValueError(
            "EEG average reference (using a projector) is mandatory for modeling, use "
            "the method set_eeg_reference(projection=True)"
        )
    if average:
        logger.info("The average reference leaves some channels out: completing it.")
    else:
        logger.info("Assuming that the EEG reference applied is the average.")
    for proj in average:
        if not proj["active"]:
            info["projs"].remove(proj)
    eeg_info = mne.create_info(eeg, 1.0, "eeg")
    info["projs"].append(make_eeg_average_ref_proj(eeg_info))


def _is_average_reference(proj):
    return (
        proj["kind"] == FIFF.FIFFV_PROJ_ITEM_EEG_AVREF
        or proj["desc"] == "Average EEG reference"
    )


def _removes_mean(projs, ch_names):
    """Tell whether projectors together remove what is the same in all channels."""
    vectors = [np.zeros((0, len(ch_names)))]
    for proj in projs:
        column = {name: i for i, name in enumerate(proj["data"]["col_names"])}
        data = np.pad(proj["data"]["data"], ((0, 0), (0, 1)))  # 0: not in the projector
        vectors.append(data[:, [column.get(name, -1) for name in ch_names]])
    vectors, same = np.vstack(vectors).T, np.ones(len(ch_names))
    left = same - vectors @ np.linalg.lstsq(vectors, same)[0]
    return np.abs(left).max() < 1e-3


# --------------------------------------------------------------- the data


def check_average_reference(info, data, ch_names):
    """Check that EEG with a custom reference is average-referenced.

    Parameters
    ----------
    info : Info
        Measurement info of the data.
    data : array of shape (..., n_all_channels, n_times)
        Data of all channels of ``info``, of one or more epochs.
    ch_names : list of str
        The channels used.

    Notes
    -----
    MNE marks an applied average reference as a custom reference, without saying which,
    nor over which channels. So the data decide. The mean must be zero over all EEG
    channels, over the good ones, or, if channels were interpolated afterwards, over the
    others. Bipolar channels have no reference.
    """
    if not info["custom_ref_applied"]:
        return
    eeg = mne.pick_types(info, eeg=True, exclude=())
    names = np.array(info["ch_names"])
    single = eeg[~np.isin(names[eeg], list(find_bipolar(info)))]
    if not set(ch_names) & set(names[single]):
        return
    good = np.intersect1d(single, mne.pick_types(info, eeg=True, exclude="bads"))
    data = _flatten(data)
    share = min(_mean_share(data[picks]) for picks in (good, eeg, single))
    if share < _MAX_MEAN or any(
        _is_average_of_others(info, data, picks) for picks in (good, single)
    ):
        return
    raise ValueError(
        "Custom EEG reference is not allowed for inverse modeling, unless it is the "
        f"average: the mean over the EEG channels is {100 * share:.0f} % of their root "
        "mean square, but should be 0 (channels that MNE's splines interpolated "
        "afterwards do not count). If all channels have the same reference, such as "
        "linked ears, use set_eeg_reference('average', projection=True). If they have "
        "not, this would not help: start from the data before they were re-referenced."
    )


def _flatten(data):
    """Return (n_channels, n_samples) without NaN, which is reported later."""
    data = np.moveaxis(data, -2, 0).reshape(data.shape[-2], -1)
    return np.nan_to_num(data, posinf=0, neginf=0)


def _rms(data):
    return np.sqrt(np.mean(np.square(data), axis=-1))


def _mean_share(data):
    """Compute rms of the channels' mean over rms of the channels."""
    rms = _rms(data.ravel())
    return _rms(data.mean(0)) / rms if rms > _FLAT else 0.0


def _is_average_of_others(info, data, picks):
    """Tell whether the mean is zero without channels that others predict.

    Interpolation leaves no trace in ``info``, but what it makes of channels follows
    from the places in there: they are exactly what the others' spline says. Channels
    are left out one after another, those first that it suits best, at most half.
    """
    points = [info["chs"][pick]["loc"][:3] for pick in picks]
    weights = _spline_weights(info, np.array(points, float).reshape(-1, 3))
    if weights is None:
        return False
    data = data[picks]
    order = np.argsort(-_rms(weights @ data))
    means = np.cumsum(data[order], 0) / np.arange(1, len(data) + 1)[:, np.newaxis]
    shares = _rms(means[len(data) // 2 :]) / max(_rms(data.ravel()), _FLAT)
    return bool(shares.min() < _MAX_MEAN)


def _spline_weights(info, points):
    """Return the matrix that subtracts from each channel the others' spline.

    The spline is that of Perrin et al. (1989) as MNE interpolates with it. Without a
    point it leaves, there, the point's own residual over the diagonal of the inverse.
    None if MNE could not interpolate.
    """
    if len(points) < 3 or not np.isfinite(points).all() or not info["dig"]:
        return None
    try:
        _, origin, _ = mne.bem.fit_sphere_to_headshape(info, units="m", verbose="error")
    except (RuntimeError, ValueError):  # too few points
        return None
    points = points - origin
    points = points / np.linalg.norm(points, axis=1, keepdims=True)
    degree = np.arange(1, _DEGREES + 1)
    factors = (2 * degree + 1) / (4 * np.pi * (degree * (degree + 1.0)) ** _STIFFNESS)
    spline = legval(points @ points.T, [0, *factors])
    spline += _SMOOTHING * np.eye(len(points))
    system = np.pad(spline, (0, 1), constant_values=1.0)
    system[-1, -1] = 0
    inverse = np.linalg.pinv(system)[:-1, :-1]
    return inverse / np.diag(inverse)[:, np.newaxis]

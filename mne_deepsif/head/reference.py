"""The reference of EEG: whether it is the average, and its projector."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
from mne.utils import logger
from scipy.linalg import qr
from scipy.optimize import linprog

from .._mne import FIFF, make_eeg_average_ref_proj
from .bipolar import find_bipolar

# Both in units of the data's size. Files hold single precision.
_MAX_MEAN = 1e-3  # the mean over average-referenced channels is zero, up to rounding
_ROUNDING = 1e-6  # of combinations of channels
_FLAT = 1e-12  # V; anything smaller is a flat stretch with rounding errors
_N_TRIALS = 10


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
    channels, over the good ones, or, if channels were interpolated afterwards, over
    more than half of them. Bipolar channels have no reference.
    """
    if not info["custom_ref_applied"]:
        return
    eeg = mne.pick_types(info, eeg=True, exclude=())
    names = np.array(info["ch_names"])
    single = eeg[~np.isin(names[eeg], list(find_bipolar(info)))]
    if not set(ch_names) & set(names[single]):
        return
    good = mne.pick_types(info, eeg=True, exclude="bads")
    share = min(_mean_share(data[..., picks, :]) for picks in (good, eeg, single))
    if share < _MAX_MEAN or _is_average_of_some(data[..., eeg, :]):
        return
    raise ValueError(
        "Custom EEG reference is not allowed for inverse modeling, unless it is the "
        f"average: the mean over the EEG channels is {100 * share:.0f} % of their root "
        "mean square, but should be 0 (channels interpolated afterwards do not count). "
        "If all channels have the same reference, such as linked ears, use "
        "set_eeg_reference('average', projection=True). If they have not, this would "
        "not help: start from the data before they were re-referenced."
    )


def _mean_share(data):
    """Compute rms of the channels' mean over rms of the channels, without NaN."""
    data = np.nan_to_num(data, posinf=0, neginf=0)
    rms = np.sqrt(np.mean(np.square(data)))
    return np.sqrt(np.mean(np.square(data.mean(-2)))) / rms if rms > _FLAT else 0.0


def _is_average_of_some(data):
    """Tell whether the mean over more than half of the channels is zero.

    The sums over channels that are always zero form a subspace. Of its vectors with
    weights from 0 to 1, the largest is sought by linear programming. Interpolation
    keeps what is the same in all channels, so that there may be several of the same
    size. Weights near 1 are therefore favoured more and more, until all are 0 or 1.
    """
    data = np.moveaxis(data, -2, 0).reshape(data.shape[-2], -1)
    data = data[np.isfinite(data).all(1)]
    zero_sums = _zero_sums(data)
    if not zero_sums.size:
        return False
    favour = np.ones(len(data))
    for _ in range(_N_TRIALS):
        found = linprog(
            -favour @ zero_sums,
            A_ub=np.vstack([zero_sums, -zero_sums]),
            b_ub=np.repeat([1.0, 0.0], len(data)) + 1e-6,
            bounds=(None, None),
        )
        if found.status != 0:
            return False
        weights = zero_sums @ found.x
        keep = weights > 0.5
        if np.abs(weights - keep).max() < 0.01:
            return keep.mean() > 0.5 and _mean_share(data[keep]) < _MAX_MEAN
        favour = 1 / (1.1 - weights)
    return False


def _zero_sums(data):
    """Return an orthonormal basis (n_channels, n) of the weights with zero sums."""
    step = max(1, data.shape[1] // (4 * len(data)))  # so many samples are enough
    (triangle,) = qr(data[:, ::step].T, mode="r", check_finite=False)
    _, sizes, patterns = np.linalg.svd(triangle[: len(data)])
    return patterns[np.count_nonzero(sizes > _ROUNDING * sizes[0]) :].T

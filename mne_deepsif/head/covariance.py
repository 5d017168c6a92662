"""Whether a noise covariance can be one: its values, units, and number of samples."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
from mne.utils import warn

# Standard deviation of the noise of a single trial (median over channels). Amplifiers
# and sensors make more than the least of these below 5 Hz alone.
USUAL_NOISE = {
    "eeg": (1e-8, 1e-3, "V"),
    "mag": (1e-15, 1e-9, "T"),
    "grad": (1e-13, 1e-8, "T/m"),
}
_ABSURD = 1e9  # times beyond the usual: numbers too large or small to compute with
_ROUNDING = 1e-4  # of correlations; files have single precision
_TINY = 1e-12  # of the median variance; smaller ones are rounding
_RANK = 1e-8  # of the largest eigenvalue; smaller ones are rounding
_REMEDY = "Compute it again, with mne.compute_covariance"


def check_noise_cov(noise_cov, ch_names, ch_types):
    """Check the noise covariance of the channels that are used.

    Parameters
    ----------
    noise_cov : Covariance
        Noise covariance with all of the channels.
    ch_names, ch_types : list of str
        The channels, and their types: ``'eeg'``, ``'mag'`` or ``'grad'``.
    """
    index = [noise_cov["names"].index(name) for name in ch_names]
    data = noise_cov["data"]
    diagonal = data.ndim == 1
    data = np.diag(data[index]) if diagonal else data[np.ix_(index, index)]
    names, types = np.array(ch_names), np.array(ch_types)
    _check_finite(data, names)
    for kind in sorted(set(ch_types)):
        used = types == kind
        variance = np.diag(data)[used]
        tiny = np.abs(variance) < _TINY * np.median(np.abs(variance))
        data[np.flatnonzero(used)[tiny]] = 0  # rounding; a copy
        data[:, np.flatnonzero(used)[tiny]] = 0
        _check_variance(np.diag(data)[used], names[used], kind)
    if not diagonal:
        _check_matrix(data, noise_cov["nfree"])


def _check_finite(data, names):
    wrong = ~np.isfinite(data).all(0)
    if wrong.any():
        raise ValueError(
            f"noise_cov has NaN or infinite values at {wrong.sum()} channel(s): "
            f"{_some(names[wrong])}. Compute it from data without them, or mark these "
            "channels in noise_cov['bads']."
        )


def _check_variance(variance, names, kind):
    """Check the variances of channels of one type."""
    negative, none = variance < 0, variance == 0
    if negative.any():
        raise ValueError(
            f"noise_cov has negative variances at {negative.sum()} channel(s): "
            f"{_some(names[negative])}. {_REMEDY}."
        )
    if none.all():
        raise ValueError(
            f"noise_cov is 0 for all {len(names)} channels of type {kind!r} that are "
            f"used: it was computed from data without noise. {_REMEDY} from a baseline "
            "or an empty room, or use mne.make_ad_hoc_cov(info)."
        )
    if none.sum() > (kind == "eeg"):  # one electrode may be the reference
        warn(
            f"noise_cov is 0 at {none.sum()} channel(s): {_some(names[none])}. If "
            "these are flat, mark them in info['bads']. Else compute noise_cov from "
            "data in which they are not."
        )
    typical = np.sqrt(np.median(variance[~none]))
    low, high, unit = USUAL_NOISE[kind]
    if low <= typical <= high:
        return
    text = (
        f"The noise that noise_cov has for type {kind!r} is {typical:.1g} {unit} "
        f"(median standard deviation). Usual are {low:g} to {high:g} {unit}, so it may "
        f"be in other units than MNE's. {_REMEDY}, from data in {unit}."
    )
    if not low / _ABSURD <= typical <= high * _ABSURD:
        raise ValueError(text)
    warn(text)


def _check_matrix(data, n_free):
    """Check that a matrix is a covariance, of enough samples."""
    std = np.sqrt(np.diag(data))
    std[std == 0] = 1
    correlation = data / std / std[:, np.newaxis]
    if np.abs(correlation - correlation.T).max() > _ROUNDING:
        raise ValueError(
            "noise_cov is not symmetric, so it is no covariance. Give the covariance "
            "between channels, as mne.compute_covariance does."
        )
    values = np.linalg.eigvalsh(correlation)
    if values[0] < -_ROUNDING * values[-1]:
        raise ValueError(
            f"noise_cov has a negative eigenvalue ({values[0]:.1g} in units of the "
            "variances), so it is no covariance: some sums of channels would have a "
            f"negative variance. {_REMEDY}."
        )
    rank = np.sum(values > _RANK * values[-1])
    if n_free <= rank <= n_free + 1 < len(data):  # fewer: Maxwell filters, projectors
        warn(
            f"noise_cov comes from {n_free} independent samples, but is to describe "
            f"{len(data)} channels: it knows {rank} directions, and the others are not "
            "used. Take more data, or mne.compute_covariance(..., method='shrunk')."
        )


def _some(names):
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")

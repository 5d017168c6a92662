"""Whether data can be in MNE's units: V, T and T/m."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
from mne.utils import warn

from .covariance import USUAL_NOISE

# Median deviation from the median over time: brain data, clean or not, of single trials
# or averages of up to _AVERAGES, lie between these limits. Then what is typical, MNE's
# unit, and what one of others is.
_USUAL = {
    "eeg": (3e-9, 3e-4, 1e-5, "V", {"mV": 1e-3, "µV": 1e-6}),
    "mag": (1e-16, 1e-8, 2e-13, "T", {"nT": 1e-9, "pT": 1e-12, "fT": 1e-15}),
    "grad": (2e-14, 1e-7, 2e-12, "T/m", {"T/cm": 100, "fT/cm": 1e-13}),
}
_AVERAGES = 100
_BURST = 1e-3  # of the peak; if the median is less, most samples are nearly 0
_LEAST = 0.05  # times the noise of a single trial


def check_units(data, ch_types, std=None, nave=1):
    """Warn if data are much too large or too small for a brain, or for their noise.

    Parameters
    ----------
    data : array of shape (..., n_channels, n_times)
        As in :func:`describe_units`.
    ch_types : list of str
        As in :func:`describe_units`.
    std : array of shape (n_channels, 1) | None
        As in :func:`describe_units`.
    nave : float
        As in :func:`describe_units`.

    Returns
    -------
    told : bool
        Whether the data of all types vary in time, so that they could be judged.
    """
    reasons, told = describe_units(data, ch_types, std, nave)
    for reason in reasons:
        warn(reason)
    return told


def describe_units(data, ch_types, std=None, nave=1):
    """Say that data are much too large or too small for a brain, or for their noise.

    Parameters
    ----------
    data : array of shape (..., n_channels, n_times)
        Sensor data in SI units, as MNE has them.
    ch_types : list of str
        Type of each channel: ``'eeg'``, ``'mag'`` or ``'grad'``.
    std : array of shape (n_channels, 1) | None
        Standard deviation of the noise of each channel in a single trial. None leaves
        it out of account.
    nave : float
        Number of averages.

    Returns
    -------
    reasons : list of str
        One for each type that is wrong.
    told : bool
        Whether the data of all types vary in time, so that they could be judged.

    Notes
    -----
    The check takes the deviation from each channel's median over time, and of this the
    median over samples and channels of a type. So neither offsets of DC amplifiers nor
    single artefacts matter. Nor does what all electrodes have in common, as the
    reference. Data that do not vary in time are not judged. Nor are small ones with a
    peak of more than 1000 times the median, as of a short response without noise.
    """
    reasons, told = [], True
    deviation = data - np.median(data, -1, keepdims=True)
    for ch_type in sorted(set(ch_types)):
        picks = np.array(ch_types) == ch_type
        some = deviation[..., picks, :]
        if ch_type == "eeg" and picks.sum() > 2:
            some = some - np.median(some, -2, keepdims=True)
        typical, peak = np.median(np.abs(some)), np.abs(some).max(initial=0)
        noise = None if std is None else np.median(std[picks])
        told &= bool(typical > 0)
        if typical > 0 and (reason := _judge_size(typical, peak, ch_type, noise, nave)):
            reasons.append(reason)
    return reasons, told


def _judge_size(typical, peak, ch_type, noise, nave):
    """Compare the deviation of data of a type with brain data, and with the noise."""
    low, high, _, unit, _ = _USUAL[ch_type]
    low /= max(1, np.sqrt(nave / _AVERAGES))
    least, most, _ = USUAL_NOISE[ch_type]
    vary = (
        f"The data of type {ch_type!r} vary by {typical:.1g} {unit} (median deviation)"
    )
    if typical <= high and typical < _BURST * peak:
        return None
    if not low <= typical <= high:
        return (
            f"{vary}. Brain data vary by {low:.1g} to {high:g} {unit}, so these "
            f"{_guess_unit(typical, ch_type)}"
        )
    if noise is None or not least <= noise <= most:  # this was said of noise_cov
        return None
    if typical < _LEAST * noise / np.sqrt(nave):
        return (
            f"{vary}, but noise_cov says that the noise of a single trial is "
            f"{noise:.1g} {unit}. One of them may be in other units than MNE's {unit}, "
            "or the covariance comes from data that were filtered otherwise."
        )
    return None


def _guess_unit(typical, ch_type):
    """Say in which unit data of some size would be as usual, and what to do."""
    low, high, usual, wanted, units = _USUAL[ch_type]
    unit = min(units, key=lambda unit: abs(np.log10(typical * units[unit] / usual)))
    if low <= typical * units[unit] <= high:
        return (
            f"seem to be in {unit}. MNE wants {wanted}: multiply the data by "
            f"{units[unit]:g}, and compute the noise covariance from them."
        )
    return f"may be in another unit. MNE wants data in {wanted}."

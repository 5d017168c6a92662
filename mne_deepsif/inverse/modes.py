"""The modes of a leadfield: how much of the power the brain can make (arrays only)."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
from scipy.fft import dct

_RATIOS = 10 ** np.linspace(-2, 4, 61)  # of brain to noise power, mean over modes
_NOISE = 0.1  # such a ratio, or a smaller one, cannot be told from noise


def leadfield_modes(gain):
    """Compute the spatial patterns of the brain, the weakest first.

    Parameters
    ----------
    gain : array of shape (n_channels, n_parcels)
        Whitened leadfield.

    Returns
    -------
    values : array of shape (n_channels,)
        Power of the modes if all parcels are active alike; their mean is 1.
    vectors : array of shape (n_channels, n_channels)
        The modes, in columns.
    """
    values, vectors = np.linalg.eigh(gain @ gain.T)
    return values.clip(0) / values.mean(), vectors


def fit_ratio(power, values):
    """Fit power = b (ratio * value + 1) over the modes of the leadfield.

    The fit is by maximum likelihood, with one Gaussian amplitude per mode.

    Parameters
    ----------
    power : array of shape (n_channels,)
        Power of the data in each mode; not all of it zero.
    values : array of shape (n_channels,)
        What :func:`leadfield_modes` returned.

    Returns
    -------
    ratio : float
        Power of the brain over that of the noise, mean over modes: from .01 to 1e4.
    """
    power = power / power.max()  # the smallest numbers cannot be divided
    expected = _RATIOS[:, np.newaxis] * values + 1
    cost = np.log(expected).mean(1) + np.log((power / expected).mean(1))
    return _RATIOS[cost.argmin()]


def power_above(data, frequency, sfreq, vectors):
    """Compute the power in each mode, in all and above a frequency.

    Parameters
    ----------
    data : array of shape (..., n_channels, n_times)
        Whitened data.
    frequency : float
        The frequency (Hz).
    sfreq : float
        Sampling rate of the data (Hz).
    vectors : array of shape (n_channels, n_channels)
        The modes, see :func:`leadfield_modes`.

    Returns
    -------
    power : array of shape (2, n_channels)
        Sum over samples (and epochs): of everything, and of what is above the
        frequency. The data are mirrored at their ends, so steps there do not matter.
    """
    n_times = data.shape[-1]
    spectrum = dct(vectors.T @ data, norm="ortho")
    first = int(np.floor(2 * n_times * frequency / sfreq)) + 1
    parts = np.square(spectrum), np.square(spectrum[..., first:])
    return np.array([part.sum(-1).reshape(-1, len(vectors)).sum(0) for part in parts])


def brain_share(power, values):
    """Estimate what share of the brain's power lies above a frequency.

    Noise, which has no modes, does not count.

    Parameters
    ----------
    power : array of shape (2, n_channels)
        What :func:`power_above` returned.
    values : array of shape (n_channels,)
        What :func:`leadfield_modes` returned.

    Returns
    -------
    share : float
        The share, from 0 on; 0 if what is above the frequency looks like noise.
    """
    if not power[1].sum() > 0:
        return 0.0
    ratios = np.array([fit_ratio(each, values) for each in power])
    brain = ratios / (ratios + 1)
    total = power.sum(1)
    share = total[1] / total[0] * brain[1] / brain[0]
    return share if ratios[1] > _NOISE else 0.0

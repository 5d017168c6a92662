"""The band of data, and how many of their samples are independent."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np

from .windows import resample, window_length, window_starts

_RATE, _N_TIMES = 125.0, 64  # Hz; samples of a window in which the band is measured
_MOST = 64  # windows
# channels and components: of fewer, each may hold activity
_FEWEST, _N_USED = 8, 32
_RESIDUE = 1e-6  # of the strongest component, which a filter may leave of others
_CLOSE = 1.5  # times the measured band: what counts as the same
_DROP, _WIDTH = 0.03, 1.6  # a filter leaves less power at so many times its frequency
# Hz; samples that come faster tell no more, and each window of estimates has one
_INDEPENDENT, _DEPENDENT = 125.0, 16.0


def independent_rate(sfreq, band=None):
    """Return how many independent samples data have per second.

    Parameters
    ----------
    sfreq : float
        Sampling rate (Hz).
    band : float | None
        Highest frequency in the data (Hz). None or 0 if unknown.

    Returns
    -------
    rate : float
        Independent samples per second.
    """
    rate = min(sfreq, 2 * band if band else np.inf)
    return min(max(rate, _DEPENDENT), _INDEPENDENT)


def effective_band(pieces, sfreq, lowpass):
    """Return the highest frequency in data, as it is told unless the data differ.

    Simulated data often have the ``info`` of a recording that was filtered, and some
    files say nothing of a filter. Of data shorter than a window, nothing is measured.

    Parameters
    ----------
    pieces : iterable of array of shape (..., n_channels, n_times)
        Whitened data, in one or more pieces of any length.
    sfreq : float
        Sampling rate (Hz).
    lowpass : float | None
        What ``info`` says (Hz).

    Returns
    -------
    band : float
        Highest frequency (Hz), at most 62.5 Hz and half of the sampling rate.
    """
    told = independent_rate(sfreq, lowpass) / 2
    highest = independent_rate(sfreq) / 2
    spectra = [noise_spectra(piece, sfreq) for piece in pieces]
    spectra = np.concatenate(spectra) if spectra else np.empty(0)
    if not len(spectra):
        return told
    measured = _cutoff(spectra.mean(0), highest)
    return told if 1 / _CLOSE <= told / measured <= _CLOSE else measured


def _cutoff(spectrum, highest):
    """Return where a low-pass filter cuts a spectrum off, else the highest frequency.

    Above a filter there is next to nothing. The spectrum of the brain falls less.
    """
    frequency = np.arange(1, len(spectrum) + 1) * _RATE / _N_TIMES
    frequency = frequency[frequency <= highest]
    spectrum = spectrum[: len(frequency)]
    before_drop = [
        f
        for f, power in zip(frequency, spectrum, strict=True)
        if _WIDTH * f <= frequency[-1]
        and spectrum[frequency >= _WIDTH * f].max() < _DROP * power
    ]
    if not before_drop:
        return highest
    return np.sqrt(before_drop[0] * before_drop[-1])


def noise_spectra(data, sfreq):
    """Compute spectra of the noise in windows of half a second.

    The strongest principal components of a window are left out, for they may hold
    activity, and those that are next to nothing, for they are what a filter leaves.

    Parameters
    ----------
    data : array of shape (..., n_channels, n_times)
        Whitened data.
    sfreq : float
        Sampling rate (Hz).

    Returns
    -------
    spectra : array of shape (n_windows, 32)
        Power at multiples of 1.95 Hz, of a sum of 1, of each window with enough
        components. No windows if there are fewer than 8 channels, or data for less.
    """
    length = window_length(_N_TIMES, _RATE, sfreq)
    if data.shape[-2] < _FEWEST or data.shape[-1] < length:
        return np.empty((0, _N_TIMES // 2))
    step = -(-data.shape[-2] // _N_USED)
    data = data[..., ::step, :]
    data = data.reshape(-1, *data.shape[-2:])
    starts = window_starts(data.shape[-1], length)
    chosen = np.linspace(0, len(data) * len(starts), _MOST, endpoint=False).astype(int)
    windows = np.stack(
        [
            data[epoch, :, starts[i] : starts[i] + length]
            for epoch, i in (divmod(one, len(starts)) for one in np.unique(chosen))
        ]
    )
    windows = resample(windows[np.isfinite(windows).all((1, 2))], _N_TIMES)
    size = np.square(windows).sum((1, 2))
    windows = windows - windows.mean(-1, keepdims=True)
    # courses of the principal components, the strongest first
    values, courses = np.linalg.eigh(windows.mT @ windows)
    values, courses = values[:, ::-1], courses[:, :, ::-1]
    taper = np.hanning(_N_TIMES + 2)[1:-1, None]
    spectra = [np.empty((0, _N_TIMES // 2))]
    for value, course, whole in zip(values, courses, size, strict=True):
        least = max(_RESIDUE * value[0], 1e-12 * whole)
        n = min(np.count_nonzero(value > least), _N_USED)
        if n >= _FEWEST:
            noise = slice(n // 4, n // 2)
            course = taper * course[:, noise] * np.sqrt(value[noise])
            power = (np.abs(np.fft.rfft(course, axis=0)[1:]) ** 2).sum(1)
            spectra.append(power[np.newaxis] / power.sum())
    return np.concatenate(spectra)

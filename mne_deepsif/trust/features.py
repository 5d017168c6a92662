"""Numbers that tell brain activity from artefacts, for any sensors and any head."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
from scipy.ndimage import uniform_filter1d

from ..head.leadfield import channel_std
from ..inverse.modes import fit_ratio, leadfield_modes

FEATURES = ("snr", "residual", "prediction", "channel", "line", "eyes")
_LINE = (50.0, 60.0)  # Hz
# the features of data without any power
_SILENCE = dict(zip(FEATURES, (-20.0, 0.0, 0.0, 0.0, -30.0, 0.0)))


def measure_features(leadfield, estimate, sfreq, eyes=None):
    """Measure the features that :class:`mne_deepsif.TrustReport` lists.

    Parameters
    ----------
    leadfield : Leadfield
        Leadfield of the channels used.
    estimate : SourceActivity
        Data and estimate.
    sfreq : float
        Sampling rate (Hz).
    eyes : array of shape (n_channels, n_eyes) | None
        Fields of the eyes, see :func:`eye_gain`. If None, ``"eyes"`` is NaN.

    Returns
    -------
    features : dict of float
        The numbers of :data:`FEATURES`, in dB. Data without any power get those of
        noise.
    worst : int
        The channel that the others predict least.
    n_modes : int
        Number of modes of the leadfield in which the brain exceeds the noise.
    """
    white, gain = estimate.data_white, leadfield.gain_white
    if not np.square(white).sum() > 0:
        return dict(_SILENCE), 0, 0
    event = _find_event(white, sfreq)
    chosen = white[:, event]
    share = _power(chosen - estimate.fit_white[:, event]) / _power(chosen)
    ratio, n_modes = _fit_modes(chosen, gain)
    std = channel_std(leadfield)
    channels = leadfield.projector @ estimate.data[:, event] / std
    left = _left_out(channels, leadfield.gain / std, ratio)
    eyes_share = np.nan
    if eyes is not None:
        eyes_share = _outside(chosen, leadfield.whitener @ eyes)
    features = {
        "snr": _db(ratio * _power(gain) / len(gain)),
        "residual": _db(share),
        "prediction": _db(left.sum() / _power(channels)),
        "channel": _db(left.max() / left.mean()),
        "line": _db(_line_share(white, sfreq)),
        "eyes": _db(share / eyes_share),
    }
    return features, int(left.argmax()), n_modes


def _db(ratio):
    return float(10 * np.log10(np.clip(ratio, 1e-3, 1e6)))


def _power(data):
    return np.square(data).sum()


def _find_event(white, sfreq):
    """Mark the samples in which the power (over 30 ms) is above half its maximum."""
    power = uniform_filter1d(np.square(white).mean(0), max(1, round(0.03 * sfreq)))
    return power >= power.max() / 2


def _fit_modes(white, gain):
    """Fit the power over the modes of the leadfield, see :func:`fit_ratio`.

    Return the ratio of brain to noise, per unit of power of the gain, and the number of
    modes in which the brain is the stronger one.
    """
    values, vectors = leadfield_modes(gain)
    ratio = fit_ratio(np.square(vectors.T @ white).mean(1), values)
    return ratio / (_power(gain) / len(gain)), int(np.sum(ratio * values > 1))


def _left_out(channels, gain, ratio):
    """Compute the power of each channel that the others do not predict.

    The prediction is that of a Gaussian with covariance ``ratio * gain gain^T + 1``.
    """
    precision = np.linalg.inv(ratio * gain @ gain.T + np.eye(len(gain)))
    error = precision @ channels / np.diag(precision)[:, np.newaxis]
    return np.square(error).sum(1)


def _line_share(white, sfreq):
    """Compute the share of the power within 3 Hz of the power line's frequency."""
    white = white - white.mean(1, keepdims=True)
    spectrum = np.fft.rfft(white * np.hanning(white.shape[1] + 2)[1:-1])
    power = np.square(np.abs(spectrum)).sum(0)
    if not power.sum() > 0:  # nothing changes
        return 0.0
    frequency = np.fft.rfftfreq(white.shape[1], 1 / sfreq)
    shares = [power[np.abs(frequency - line) <= 3].sum() for line in _LINE]
    return max(shares) / power.sum()


def _outside(white, gain):
    """Compute the share of the power outside of a subspace, per degree of freedom."""
    basis, _ = np.linalg.qr(gain)
    if len(basis) <= basis.shape[1]:
        return 1.0
    inside = _power(basis.T @ white) / _power(white)
    outside = max(1 - inside, 1e-9)  # rounding may make it negative
    return outside / (1 - basis.shape[1] / len(basis))

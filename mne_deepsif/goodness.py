"""How much of the data an estimate, or a single extent of it, explains."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
from mne.utils import _validate_type

from .extent import check_extents, check_same_times, times_within
from .head.channels import make_whitener
from .head.leadfield import whiten_evoked
from .head.mesh import find_rows


def explained(data_white, fit_white):
    """Compute the share of the data's power that a fit explains, at each time.

    Parameters
    ----------
    data_white, fit_white : array of shape (..., n_channels, n_times)
        Whitened data, and the leadfield times the estimate.

    Returns
    -------
    share : array of shape (..., n_times)
        ``1 - |data - fit|² / |data|²``. 1 means that all is explained, 0 that the fit
        is no better than silence. Negative where it is worse than silence, NaN where
        the data are 0.
    """
    power = np.sum(np.square(data_white), axis=-2)
    rest = np.sum(np.square(data_white - fit_white), axis=-2)
    return 1 - np.divide(rest, power, out=np.full(power.shape, np.nan), where=power > 0)


def goodness_of_fit(evoked, residual, noise_cov, *, rank=None):
    """Compute the share of the data that an estimate explains, at each time.

    Parameters
    ----------
    evoked : Evoked
        The data.
    residual : Evoked
        Data that the estimate does not explain, from
        ``apply_deepsif(..., return_residual=True)`` or
        :func:`mne.minimum_norm.apply_inverse`.
    noise_cov : Covariance
        Noise covariance, which makes channels of different types comparable.
    rank : None | 'info' | 'full' | dict
        Rank of the noise covariance, see :func:`mne.compute_rank`.

    Returns
    -------
    share : array of shape (n_times,)
        ``1 - |residual|² / |data|²`` of the whitened data; 1 means that all is
        explained. An estimate should not explain noise, so the share falls where the
        signal is weak. Negative where the estimate is worse than none, NaN where the
        data are 0.
    """
    for name, inst in dict(evoked=evoked, residual=residual).items():
        _validate_type(inst, mne.Evoked, name)
    missing = [name for name in residual.ch_names if name not in evoked.ch_names]
    if missing or len(evoked.times) != len(residual.times):
        raise ValueError(
            f"residual does not belong to evoked: {len(missing)} of its channels are "
            f"not in evoked, and it has {len(residual.times)} times instead of "
            f"{len(evoked.times)}. Use the residual of this evoked from apply_deepsif."
        )
    whiten = make_whitener(evoked.info, noise_cov, residual.ch_names, rank)
    picks = [evoked.ch_names.index(name) for name in residual.ch_names]
    data, rest = whiten @ evoked.data[picks], whiten @ residual.data
    return explained(data, data - rest)


def explained_by(extents, stc, evoked, fwd, noise_cov, *, rank=None):
    """Compute how much of the data each extent explains on its own.

    The network finds sources in pure noise, too. A source that stands out explains much
    of the data around its peak. A source found in noise explains little, because noise
    is everywhere at once. :doc:`/extent` says where to draw the line.

    Parameters
    ----------
    extents : Extents
        The extents that :func:`estimate_extent` found in ``stc``.
    stc : SourceEstimate
        The estimate.
    evoked : Evoked
        The data that ``stc`` was estimated from.
    fwd : Forward
        The forward solution.
    noise_cov : Covariance
        Noise covariance.
    rank : None | 'info' | 'full' | dict
        Rank of the noise covariance, see :func:`mne.compute_rank`.

    Returns
    -------
    share : array of shape (n_extents,)
        Share of the whitened data's power that each extent explains in its window,
        from 0 to 1. The scale of its activity is fitted to the data. The share is 0
        where the fitted scale is negative.

    Notes
    -----
    In simulated data with one source, 10 to 15 dB above ongoing activity and 5 to 20 dB
    above noise, the best extent explains more than half in nearly all samples. In the
    same data without the source, it does so in about one sample of 200 (``silence`` in
    :doc:`/results`). Each of several equal sources explains only its part.
    """
    check_extents(extents)
    _validate_type(stc, mne.SourceEstimate, "stc")
    _validate_type(evoked, mne.Evoked, "evoked")
    _validate_type(fwd, mne.Forward, "fwd")
    _validate_type(noise_cov, mne.Covariance, "noise_cov")
    check_same_times(stc, evoked)
    gain_white, data_white = whiten_evoked(evoked, fwd, noise_cov, rank)
    rows = find_rows(stc.vertices, [s["vertno"] for s in fwd["src"]], "stc")
    gain_white = gain_white[:, rows]
    shares = []
    for extent in extents:
        inside = _within(extent.label, stc.vertices)
        keep = times_within(stc, extent.tmin, extent.tmax)
        fit = gain_white[:, inside] @ stc.data[np.ix_(inside, keep)]
        size = np.linalg.norm(fit) * np.linalg.norm(data_white[:, keep])
        cosine = np.sum(fit * data_white[:, keep]) / size if size > 0 else 0.0
        shares.append(max(0.0, cosine) ** 2)
    return np.array(shares)


def _within(label, vertices):
    """Mark the vertices, lh and rh, that a label holds."""
    masks = [
        np.isin(vertno, label.vertices) & (hemi == label.hemi)
        for hemi, vertno in zip(("lh", "rh"), vertices, strict=True)
    ]
    return np.concatenate(masks)

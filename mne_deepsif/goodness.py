"""How much of the data an estimate, or a single extent of it, explains."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
from mne.utils import _validate_type

from .extent import check_extents, times_within
from .leadfield import make_whitener
from .windows import explained


def goodness_of_fit(evoked, residual, noise_cov, *, rank=None):
    """Compute the share of the data that an estimate explains, at each time.

    Parameters
    ----------
    evoked : Evoked
        The data.
    residual : Evoked
        What the estimate leaves, from ``apply_deepsif(..., return_residual=True)`` or
        :func:`mne.minimum_norm.apply_inverse`.
    noise_cov : Covariance
        Noise covariance, which makes channels of different types comparable.
    rank : None | 'info' | 'full' | dict
        Rank of the noise covariance, see :func:`mne.compute_rank`.

    Returns
    -------
    share : array of shape (n_times,)
        ``1 - |residual|² / |data|²`` of the whitened data: 1 is all of it. Noise is not
        meant to be explained, so that it falls where the signal is weak, and it is
        negative where the estimate is worse than none. NaN where the data are 0.
    """
    for name, inst in dict(evoked=evoked, residual=residual).items():
        _validate_type(inst, mne.Evoked, name)
    missing = [name for name in residual.ch_names if name not in evoked.ch_names]
    if missing or len(evoked.times) != len(residual.times):
        raise ValueError(
            f"residual does not belong to evoked: {len(missing)} of its channels are "
            f"not in evoked, and it has {len(residual.times)} times instead of "
            f"{len(evoked.times)}. Use what apply_deepsif returned for this evoked."
        )
    whiten = make_whitener(evoked.info, noise_cov, residual.ch_names, rank)
    picks = [evoked.ch_names.index(name) for name in residual.ch_names]
    data, rest = whiten @ evoked.data[picks], whiten @ residual.data
    return explained(data, data - rest)


def explained_by(extents, stc, evoked, fwd, noise_cov, *, rank=None):
    """Compute how much of the data each extent explains by itself.

    A network answers noise as well. A source that stands above all else explains most
    of the data around its peak; what is found in noise explains little, since noise is
    in all places at once.

    Parameters
    ----------
    extents : Extents
        What :func:`estimate_extent` found in ``stc``.
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
        For each extent, the share of the power of the whitened data within its window
        that its activity explains when its scale is fitted: from 0 to 1, and 0 where
        the fitted scale is negative.

    Notes
    -----
    Of simulated data with one source, 10 to 15 dB over ongoing activity and 5 to 20 dB
    over noise, the best extent explains more than one half in nearly all samples; of
    the same data without the source, it does in about one of 200 (``silence`` in
    :doc:`/results`). Of several equal sources each explains its part only.
    """
    check_extents(extents)
    _validate_type(stc, mne.SourceEstimate, "stc")
    _validate_type(evoked, mne.Evoked, "evoked")
    _validate_type(fwd, mne.Forward, "fwd")
    _validate_type(noise_cov, mne.Covariance, "noise_cov")
    same = len(stc.times) == len(evoked.times)
    if not same or np.abs(stc.times - evoked.times).max() > 0.01 * stc.tstep:
        raise ValueError(
            "stc and evoked must have the same times: crop one as the other was."
        )
    fwd = mne.convert_forward_solution(fwd, force_fixed=True, verbose="error")
    bads = {*evoked.info["bads"], *noise_cov["bads"]}
    shared = {*fwd["sol"]["row_names"]} & {*noise_cov["names"]} - bads
    names = [name for name in evoked.ch_names if name in shared]
    if not names:
        raise ValueError(
            "evoked, fwd and noise_cov have no good channel in common: use those that "
            "stc was estimated with."
        )
    fwd = mne.pick_channels_forward(fwd, names, ordered=True)
    whiten = make_whitener(evoked.info, noise_cov, names, rank)
    data_white = whiten @ evoked.copy().pick(names, exclude=()).data
    shares = []
    for extent in extents:
        vertices = stc.vertices[extent.label.hemi == "rh"]
        if not np.isin(vertices, extent.label.vertices).any():
            shares.append(0.0)  # in_label would raise
            continue
        part = stc.in_label(extent.label)
        fit = whiten @ mne.apply_forward(fwd, part, evoked.info, verbose="error").data
        keep = times_within(stc, extent.tmin, extent.tmax)
        fit, data = fit[:, keep], data_white[:, keep]
        size = np.linalg.norm(fit) * np.linalg.norm(data)
        cosine = np.sum(fit * data) / size if size > 0 else 0.0
        shares.append(max(0.0, cosine) ** 2)
    return np.array(shares)

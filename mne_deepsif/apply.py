"""Front doors: apply an estimator to Evoked, Epochs or Raw."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import os
from dataclasses import replace

import mne
import numpy as np
from mne.utils import ProgressBar, _validate_type, verbose

from .head.channels import check_units, good_spans
from .inverse.plan import (
    Power,
    estimate_parcels,
    log_explained,
    make_plan,
    make_stc,
    warn_constant,
)
from .inverse.windows import chunks, window_starts
from .trust.verdict import warn_if_unusual

_GROUP = 32  # windows estimated together
_DENSE = 2**29  # bytes; a larger estimate of raw stays in parcels until it is used


@verbose
def apply_deepsif(
    evoked,
    fwd,
    noise_cov=None,
    *,
    estimator="generic",
    label=None,
    pick_ori=None,
    rank=None,
    return_residual=False,
    subjects_dir=None,
    verbose=None,
):
    """Estimate the sources of an Evoked.

    Parameters
    ----------
    evoked : Evoked
        The data.
    fwd : Forward | DeepSIFOperator
        Forward solution with a surface source space of both hemispheres, or what
        :func:`make_deepsif_operator` prepared from one.
    noise_cov : Covariance | None
        Noise covariance of single trials: it is divided by ``evoked.nave``. None
        makes an ad-hoc one, with a warning.
    estimator : str | path-like | DeepSIFEstimator
        Name of pretrained weights, file of an estimator, or a fitted estimator.
    label : Label | BiHemiLabel | None
        Restricts the vertices returned; the estimate itself stays the same.
    pick_ori : None | "normal" | "vector"
        None and ``"normal"`` return the signed activity along the cortex's normals,
        positive outwards, as MNE does for fixed orientation. ``"vector"`` returns
        a :class:`mne.VectorSourceEstimate` along them.
    rank : None | 'info' | 'full' | dict
        Rank of the noise covariance, see :func:`mne.compute_rank`.
    return_residual : bool
        Also return the data that the estimate does not explain.
    subjects_dir : path-like | None
        Where the ``sphere.reg`` surfaces of the forward's subject are. Not needed for
        ``fsaverage`` and ``fsaverage5``.
    %(verbose)s

    Returns
    -------
    stc : SourceEstimate | VectorSourceEstimate
        Dipole moments (A m) of all vertices of ``fwd['src']``, 0 outside of the
        parcels, such that ``mne.apply_forward(fwd, stc, info)`` explains the data.
    residual : Evoked
        Data minus what the estimate explains, for the channels used, projected. Only
        returned if ``return_residual`` is True.

    See Also
    --------
    apply_deepsif_epochs : The same for single trials.
    apply_deepsif_raw : The same for continuous data.

    Notes
    -----
    The channels that data, forward and noise covariance share are used, without bad
    ones. EEG must have an average reference, applied or as a projector.

    Data that do not look like brain activity (sensor noise, a blink, line noise, a
    single bad electrode), or of which the estimate explains next to nothing, are
    estimated with a warning; :func:`assess_deepsif` says more.
    ``verbose="error"`` silences it.
    """
    _validate_type(evoked, mne.Evoked, "evoked")
    plan = make_plan(
        evoked.info,
        fwd,
        noise_cov,
        estimator,
        label=label,
        pick_ori=pick_ori,
        rank=rank,
        nave=evoked.nave,
        subjects_dir=subjects_dir,
    )
    estimate = estimate_parcels(evoked.data, plan)
    log_explained(estimate.power)
    warn_constant(estimate.power, plan)
    check_units(estimate.data, plan.leadfield.ch_types)
    warn_if_unusual(estimate, plan)
    stc = make_stc(estimate.sources, plan, evoked.times[0])
    if not return_residual:
        return stc
    residual = evoked.copy().pick(plan.leadfield.ch_names).apply_proj()
    residual.data[:] = _subtract_fit(estimate, plan)
    return stc, residual


@verbose
def apply_deepsif_epochs(
    epochs,
    fwd,
    noise_cov=None,
    *,
    estimator="generic",
    label=None,
    pick_ori=None,
    rank=None,
    return_generator=False,
    subjects_dir=None,
    verbose=None,
):
    """Estimate the sources of each epoch.

    Parameters
    ----------
    epochs : Epochs
        The data. They are not averaged.
    fwd : Forward | DeepSIFOperator
        As in :func:`apply_deepsif`.
    noise_cov : Covariance | None
        As in :func:`apply_deepsif`, of single trials.
    estimator : str | path-like | DeepSIFEstimator
        As in :func:`apply_deepsif`.
    label : Label | BiHemiLabel | None
        As in :func:`apply_deepsif`.
    pick_ori : None | "normal" | "vector"
        As in :func:`apply_deepsif`.
    rank : None | 'info' | 'full' | dict
        As in :func:`apply_deepsif`.
    return_generator : bool
        Return a generator, which keeps few epochs in memory, instead of a list.
    subjects_dir : path-like | None
        As in :func:`apply_deepsif`.
    %(verbose)s

    Returns
    -------
    stcs : list of SourceEstimate | generator
        One estimate per epoch, see :func:`apply_deepsif`.

    Notes
    -----
    Several epochs go through the network at once, which is faster and changes the
    estimates by no more than rounding (1e-4 of the peak).
    """
    _validate_type(epochs, mne.BaseEpochs, "epochs")
    plan = make_plan(
        epochs.info,
        fwd,
        noise_cov,
        estimator,
        label=label,
        pick_ori=pick_ori,
        rank=rank,
        subjects_dir=subjects_dir,
    )
    stcs = _iterate_epochs(epochs, plan)
    return stcs if return_generator else list(stcs)


@verbose
def apply_deepsif_raw(
    raw,
    fwd,
    noise_cov=None,
    *,
    estimator="generic",
    start=None,
    stop=None,
    decim=1,
    label=None,
    pick_ori=None,
    reject_by_annotation=True,
    rank=None,
    subjects_dir=None,
    verbose=None,
):
    """Estimate the sources of continuous data.

    Parameters
    ----------
    raw : Raw
        The data. They are read piece by piece, so ``preload=False`` is fine.
    fwd : Forward | DeepSIFOperator
        As in :func:`apply_deepsif`.
    noise_cov : Covariance | None
        As in :func:`apply_deepsif`.
    estimator : str | path-like | DeepSIFEstimator
        As in :func:`apply_deepsif`.
    start : int | None
        Index of the first sample, None is 0.
    stop : int | None
        Index of the first sample not to use, None is the end.
    decim : int
        Keep every so many-th sample of the estimate. It contains nothing above half
        the estimator's rate (62.5 Hz for the generic weights), so that ``decim=8``
        loses nothing at 1000 Hz.
    label : Label | BiHemiLabel | None
        As in :func:`apply_deepsif`. Saves memory.
    pick_ori : None | "normal" | "vector"
        As in :func:`apply_deepsif`.
    reject_by_annotation : bool
        If True (default), spans whose annotation starts with ``'bad'`` are NaN in the
        estimate, and no window reaches into them or over an edge (where recordings
        were joined): an artefact cannot spoil what lies beside it. If False,
        annotations are ignored, as :func:`mne.minimum_norm.apply_inverse_raw` does.
    rank : None | 'info' | 'full' | dict
        As in :func:`apply_deepsif`.
    subjects_dir : path-like | None
        As in :func:`apply_deepsif`.
    %(verbose)s

    Returns
    -------
    stc : SourceEstimate | VectorSourceEstimate
        See :func:`apply_deepsif`; in single precision. Times count from the raw's
        first sample.

    Notes
    -----
    Windows overlap by half; they are the same however long the recording is. What
    grows with it is only the result: 4 bytes for each parcel (of ``label``) and sample
    kept. The data of an estimate above 0.5 GB are multiplied out to vertices when
    ``stc.data`` is used, as those of :func:`mne.minimum_norm.apply_inverse_epochs`
    are; :meth:`stc.crop <mne.SourceEstimate.crop>` it first.
    """
    _validate_type(raw, mne.io.BaseRaw, "raw")
    start, stop = _check_range(start, stop, raw.n_times)
    _validate_type(decim, "int-like", "decim")
    if decim < 1:
        raise ValueError(f"decim must be 1 or more, got {decim}.")
    plan = make_plan(
        raw.info,
        fwd,
        noise_cov,
        estimator,
        label=label,
        pick_ori=pick_ori,
        rank=rank,
        subjects_dir=subjects_dir,
    )
    spans = good_spans(raw, start, stop) if reject_by_annotation else [(start, stop)]
    if not spans:
        raise ValueError(
            f"All of raw between samples {start} and {stop} is annotated as bad. Use "
            "reject_by_annotation=False to estimate it all the same."
        )
    sources, parcels = _apply_raw(raw, plan, spans, start, stop, decim)
    return _make_raw_stc(sources, parcels, plan, raw.times[start], decim)


def _apply_raw(raw, plan, spans, start, stop, decim):
    """Estimate the parcels of the plan's vertices: (n_used, n_times), and which."""
    used = np.unique(plan.vertex_area.indices)
    if not used.size:  # a label outside of the parcels: one, for the spans that are NaN
        used = np.array([0])
    n_times = -(-(stop - start) // decim)
    vector = plan.normals is not None
    _check_memory(plan.normals.size if vector else len(used), n_times)
    sources = np.full((len(used), n_times), np.nan, np.float32)
    power, units_known = Power(), False
    pieces = [
        [first + bound for bound in piece]
        for first, last in spans
        for piece in chunks(last - first, plan.window, _GROUP)
    ]
    for first, last, begin, end in ProgressBar(pieces, mesg="Estimating"):
        data = raw.get_data(start=first, stop=last)
        if not units_known:  # once, and before hours of work
            units_known = check_units(data[plan.picks], plan.leadfield.ch_types)
        estimate = estimate_parcels(data, plan, used)
        power += estimate.power
        skip = -(begin - start) % decim  # to the next sample to keep
        piece = estimate.sources[:, begin - first + skip : end - first : decim]
        at = (begin - start + skip) // decim
        sources[:, at : at + piece.shape[1]] = piece
    log_explained(power)
    warn_constant(power, plan)
    return sources, used


def _check_memory(n_rows, n_times):
    """Say so before a long computation whose result no memory can hold."""
    needed = 4 * n_rows * n_times
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows
        return
    if needed > total:
        raise MemoryError(
            f"The estimate of {n_rows} time courses of {n_times} samples needs "
            f"{needed / 1e9:.1f} GB, this machine has {total / 1e9:.1f} GB. Use label, "
            "decim, or start and stop."
        )


def _make_raw_stc(sources, parcels, plan, tmin, decim):
    """Spread over vertices, or leave that to the SourceEstimate if it is much."""
    plan = replace(plan, vertex_area=plan.vertex_area[:, parcels].astype(np.float32))
    n_vertices = plan.vertex_area.shape[0]
    if plan.normals is not None or 4 * n_vertices * sources.shape[1] <= _DENSE:
        stc = make_stc(sources, plan, tmin, decim)
        stc.data[..., np.isnan(sources).any(0)] = np.nan  # outside of the parcels too
        return stc
    return mne.SourceEstimate(
        (plan.vertex_area.toarray(), sources),
        vertices=plan.vertices,
        tmin=float(tmin),
        tstep=decim / plan.info["sfreq"],
        subject=plan.leadfield.subject,
    )


def _check_range(start, stop, n_times):
    for name, value in (("start", start), ("stop", stop)):
        _validate_type(value, ("int-like", None), name)
    first, last, _ = slice(start, stop).indices(n_times)
    if first >= last:
        raise ValueError(
            f"start={start}, stop={stop} hold no sample of raw, which has {n_times}. "
            "They are sample indices, not seconds."
        )
    return first, last


def _subtract_fit(estimate, plan):
    leadfield = plan.leadfield
    return leadfield.projector @ estimate.data - leadfield.gain @ estimate.sources


def _iterate_epochs(epochs, plan):
    """Yield the estimates of epochs, some of which go through the network at once."""
    length = max(len(epochs.times), plan.window)
    n_group = max(1, _GROUP // len(window_starts(length, plan.window)))
    power = Power()
    for index, group in enumerate(_group(epochs, n_group)):
        estimate = estimate_parcels(np.stack(group), plan)
        power += estimate.power
        if index == 0:  # once, and before a generator is left half used
            warn_constant(estimate.power, plan)
            check_units(estimate.data, plan.leadfield.ch_types)
        for sources in estimate.sources:
            yield make_stc(sources, plan, epochs.times[0])
    log_explained(power)


def _group(epochs, n_group):
    """Yield lists of up to n_group epochs' data, at least one."""
    group, empty = [], True
    for data in epochs:
        empty = False
        group.append(data)
        if len(group) == n_group:
            yield group
            group = []
    if group:
        yield group
    if empty:
        raise ValueError("epochs is empty: all epochs were dropped, see drop_log.")

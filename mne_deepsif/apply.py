"""Apply an estimator to Evoked, Epochs or Raw."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import copy
import os
from collections import deque
from dataclasses import replace

import mne
import numpy as np
import torch
from mne.utils import ProgressBar, _validate_type, verbose

from .head.channels import good_spans
from .inverse.plan import (
    Power,
    choose_rows,
    estimate_sources,
    log_explained,
    make_plan,
    make_stc,
    one_blas_thread,
    warn_constant,
    warn_lost_band,
    warn_wrong_units,
    with_band,
)
from .inverse.windows import chunks, window_starts
from .network.device import open_threads
from .trust.verdict import warn_if_disordered, warn_if_unusual

_SAMPLES = 16  # windows of raw in which its band is measured
_GROUP = 32  # windows estimated together
_PIECE = 2**26  # bytes; a larger piece of raw has no more windows than a group
_DENSE = 2**29  # bytes; a larger estimate of raw stays in patterns until it is used


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
        Forward solution with a surface source space of both hemispheres, or an
        operator from :func:`make_deepsif_operator`.
    noise_cov : Covariance | None
        Noise covariance of single trials. The number of averages (``evoked.nave``)
        does not change the estimate. None makes an ad-hoc covariance, with a warning
        if the estimator whitens the data.
    estimator : str | path-like | DeepSIFEstimator
        Name of pretrained weights, file of a saved estimator, or a fitted estimator.
    label : Label | BiHemiLabel | None
        Return only the vertices of this label. The estimate itself stays the same.
    pick_ori : None | "normal" | "vector"
        None and ``"normal"`` return signed activity along the surface normals,
        positive outwards, as MNE does for fixed orientation. ``"vector"`` returns
        the same activity as a :class:`mne.VectorSourceEstimate`.
    rank : None | 'info' | 'full' | dict
        Rank of the noise covariance, see :func:`mne.compute_rank`.
    return_residual : bool
        Also return the data that the estimate does not explain.
    subjects_dir : path-like | None
        FreeSurfer subjects directory with the ``sphere.reg`` surfaces of the forward
        solution's subject. Not needed for ``fsaverage5``, nor for ``fsaverage`` with
        an ico source space (up to ico-5).
    %(verbose)s

    Returns
    -------
    stc : SourceEstimate | VectorSourceEstimate
        Dipole moments (A m) of all vertices of ``fwd['src']``, in single precision; 0
        outside the parcels.
        ``mne.apply_forward(fwd, stc, info)`` gives the sensor data that they explain.
    residual : Evoked
        Data minus what the estimate explains, for the channels used and with
        projectors applied. Only returned if ``return_residual`` is True.

    See Also
    --------
    apply_deepsif_epochs : The same for single trials.
    apply_deepsif_raw : The same for continuous data.

    Notes
    -----
    The estimate uses the channels that the data, the forward solution and the noise
    covariance share, without bad ones. EEG needs an average reference, applied or as
    a projector.

    You get a warning if the data do not look like brain activity (sensor noise, a
    blink, line noise, a single bad electrode), if their rows seem to have another order
    than the channel names, if the estimate explains next to nothing, or if much of the
    activity is faster than half the estimator's sampling rate. :func:`assess_deepsif`
    tells you more. ``verbose="error"`` silences the warning.
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
    estimate = estimate_sources(evoked.data, plan)
    log_explained(estimate.power)
    warn_constant(estimate.power, plan)
    warn_wrong_units(estimate.data, plan, evoked)
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
        Return a generator instead of a list. It keeps only a few epochs in memory, and
        you can iterate over ``epochs`` at the same time.
    subjects_dir : path-like | None
        As in :func:`apply_deepsif`.
    %(verbose)s

    Returns
    -------
    stcs : list of SourceEstimate | generator
        One estimate per epoch, see :func:`apply_deepsif`.

    Notes
    -----
    Several epochs go through the network at once. This is faster, and changes the
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
    # an Epochs object iterates over itself: a second one (that shares the data) keeps
    # the caller's own iteration from being disturbed
    stcs = _iterate_epochs(copy.copy(epochs), plan)
    if return_generator:
        return stcs
    bar = ProgressBar(
        stcs, max_value=len(epochs.events), mesg="Estimating", unit=" epochs"
    )
    return list(bar)


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
        Index of the first sample. None is 0.
    stop : int | None
        Index of the first sample after the range. None is the end.
    decim : int
        Keep every ``decim``-th sample of the estimate. The estimate contains nothing
        above half the estimator's sampling rate (62.5 Hz for the generic weights), so
        ``decim=8`` loses nothing at 1000 Hz. :meth:`Model.at` gives other rates.
    label : Label | BiHemiLabel | None
        As in :func:`apply_deepsif`. A label saves memory.
    pick_ori : None | "normal" | "vector"
        As in :func:`apply_deepsif`.
    reject_by_annotation : bool
        If True (default), spans whose annotation starts with ``'bad'`` are NaN in the
        estimate. No window reaches into them or across an edge (where recordings were
        joined), so an artefact cannot spoil the data beside it. If False, annotations
        are ignored, as in :func:`mne.minimum_norm.apply_inverse_raw`.
    rank : None | 'info' | 'full' | dict
        As in :func:`apply_deepsif`.
    subjects_dir : path-like | None
        As in :func:`apply_deepsif`.
    %(verbose)s

    Returns
    -------
    stc : SourceEstimate | VectorSourceEstimate
        As in :func:`apply_deepsif`. Time 0 is the first sample of ``raw``.

    Notes
    -----
    Windows overlap by half, however long the recording is. Only the result grows with
    it: 4 bytes for each sample kept and each vertex, or each of some 4000 patterns if
    these are fewer. A scalar estimate above 0.5 GB stays in patterns until you use
    ``stc.data``, as in
    :func:`mne.minimum_norm.apply_inverse_epochs`. To save memory, crop it first with
    :meth:`stc.crop <mne.SourceEstimate.crop>`.
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
            "reject_by_annotation=False to estimate it anyway."
        )
    sources, activity = _apply_raw(raw, plan, spans, start, stop, decim)
    plan = replace(plan, activity=activity)
    return _make_raw_stc(sources, plan, raw.times[start], decim)


def _apply_raw(raw, plan, spans, start, stop, decim):
    """Return activity (n_used, n_times) and the activity of vertices for each row."""
    rows, activity = choose_rows(plan)
    n_rows = activity.shape[1]
    n_times = -(-(stop - start) // decim)
    vector = plan.normals is not None
    _check_memory(plan.normals.size if vector else n_rows, n_times)
    sources = np.full((n_rows, n_times), np.nan, np.float32)
    n_windows = _count_windows(plan, n_rows / decim, stop - start)
    pieces = [
        [first + bound for bound in piece]
        for first, last in spans
        for piece in chunks(last - first, plan.window, n_windows)
    ]
    power = Power()
    plan = with_band(plan, _samples_of(raw, spans, plan.window))
    bar = ProgressBar(pieces, mesg="Estimating", unit=" pieces")
    for at, estimate in _estimate_pieces(bar, raw, plan, rows, start, decim):
        power += estimate.power
        sources[:, at : at + estimate.sources.shape[1]] = estimate.sources
    log_explained(power)
    warn_constant(power, plan)
    warn_lost_band(power, plan)
    return sources, activity


def _samples_of(raw, spans, n_times):
    """Yield windows of raw, evenly spaced in some spans."""
    windows = [
        (start, min(start + n_times, last))
        for first, last in spans
        for start in range(first, max(first + 1, last - n_times + 1), n_times)
    ]
    chosen = np.linspace(0, len(windows), _SAMPLES, endpoint=False).astype(int)
    for start, stop in (windows[i] for i in np.unique(chosen)):
        yield raw.get_data(start=start, stop=stop)


def _count_windows(plan, n_kept, n_total):
    """Return how many windows a piece of raw has: the more, the fewer have a seam.

    Each thread of torch should have two pieces or more.
    """
    n_channels, n_times = len(plan.picks), max(1, plan.window // 2)
    most = int(_PIECE / n_times / (8 * n_channels + 4 * n_kept))
    fair = n_total // n_times // (2 * torch.get_num_threads())
    return min(max(min(most, fair), _GROUP), 4 * _GROUP)


def _estimate_pieces(pieces, raw, plan, rows, start, decim):
    """Yield the place in the estimate and the estimate of each piece, in order.

    Each thread of torch estimates pieces of its own.
    """
    known, told, running = False, False, deque()

    def finish():
        nonlocal told
        at, check, job = running.popleft()
        estimate = job.result()
        if check and not told:
            told = warn_if_disordered(estimate.data, plan)
        return at, estimate

    with one_blas_thread(), open_threads(plan.model.device) as (threads, n_threads):
        for index, (first, last, begin, end) in enumerate(pieces):
            data = raw.get_data(start=first, stop=last)
            check = not known
            if check:  # once, and before hours of work
                known = warn_wrong_units(data[plan.picks], plan)
            skip = -(begin - start) % decim  # to the next sample to keep
            keep = slice(begin - first + skip, end - first, decim)
            job = threads.submit(
                *(estimate_sources, data, plan, rows, keep), check_reference=check
            )
            running.append(((begin - start + skip) // decim, check, job))
            # what is wrong with the first is said before hours of work
            if index == 0 or len(running) > n_threads:
                yield finish()
        while running:
            yield finish()


def _check_memory(n_rows, n_times):
    """Raise before a long computation whose result does not fit in memory."""
    needed = 4 * n_rows * n_times
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows
        return
    if needed > total:
        raise MemoryError(
            f"The estimate of {n_rows} time courses of {n_times} samples needs "
            f"{needed / 1e9:.1f} GB, but this machine has {total / 1e9:.1f} GB. Use "
            "label, decim, or start and stop to keep less."
        )


def _make_raw_stc(sources, plan, tmin, decim):
    """Spread over vertices, but leave a large estimate to the SourceEstimate."""
    n_vertices = plan.activity.shape[0]
    if plan.normals is not None or 4 * n_vertices * sources.shape[1] <= _DENSE:
        stc = make_stc(sources, plan, tmin, decim)
        stc.data[..., np.isnan(sources).any(0)] = np.nan  # outside of the parcels too
        return stc
    return mne.SourceEstimate(
        (plan.activity.toarray(), sources),
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
            f"start={start}, stop={stop} hold no sample of raw, which has {n_times} "
            "samples. Both are sample indices, not seconds."
        )
    return first, last


def _subtract_fit(estimate, plan):
    leadfield = plan.leadfield
    return leadfield.projector @ estimate.data - plan.operator._gain @ estimate.sources


def _iterate_epochs(epochs, plan):
    """Yield one estimate per epoch; several go through the network at once."""
    length = max(len(epochs.times), plan.window)
    n_group = max(1, _GROUP // len(window_starts(length, plan.window)))
    power, known, lost = Power(), False, False
    for index, group in enumerate(_group(epochs, n_group)):
        group = np.stack(group)
        if index == 0:
            plan = with_band(plan, [group])
        estimate = estimate_sources(group, plan, check_reference=not known)
        power += estimate.power
        if index == 0:  # once, and early: the caller may not use up the generator
            warn_constant(estimate.power, plan)
            warn_if_disordered(estimate.data, plan)
        if not known:
            known = warn_wrong_units(estimate.data, plan)
        lost = lost or warn_lost_band(power, plan)
        for sources in estimate.sources:
            yield make_stc(sources, plan, epochs.times[0])
    log_explained(power)


def _group(epochs, n_group):
    """Yield lists with the data of up to n_group epochs; raise if there are none."""
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
        raise ValueError("epochs is empty: all epochs were dropped (see drop_log).")

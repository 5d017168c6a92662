"""Front doors: apply an estimator to Evoked, Epochs or Raw."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import dataclass, replace

import mne
import numpy as np
from mne.utils import _check_option, _validate_type, logger, verbose
from scipy import sparse

from .leadfield import Leadfield, check_average_reference, make_leadfield


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
    fwd : Forward
        Forward solution with a surface source space of both hemispheres.
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
    """
    _validate_type(evoked, mne.Evoked, "evoked")
    plan = _make_plan(
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
    sources = _apply_array(evoked.data, plan)
    stc = _make_stc(sources, plan, evoked.times[0])
    if not return_residual:
        return stc
    residual = evoked.copy().pick(plan.leadfield.ch_names).apply_proj()
    residual.data[:] = _subtract_fit(evoked.data, sources, plan)
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
    fwd : Forward
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
        Return a generator, which keeps one epoch in memory, instead of a list.
    subjects_dir : path-like | None
        As in :func:`apply_deepsif`.
    %(verbose)s

    Returns
    -------
    stcs : list of SourceEstimate | generator
        One estimate per epoch, see :func:`apply_deepsif`.
    """
    _validate_type(epochs, mne.BaseEpochs, "epochs")
    plan = _make_plan(
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
    label=None,
    pick_ori=None,
    rank=None,
    subjects_dir=None,
    verbose=None,
):
    """Estimate the sources of continuous data.

    Parameters
    ----------
    raw : Raw
        The data.
    fwd : Forward
        As in :func:`apply_deepsif`.
    noise_cov : Covariance | None
        As in :func:`apply_deepsif`.
    estimator : str | path-like | DeepSIFEstimator
        As in :func:`apply_deepsif`.
    start : int | None
        Index of the first sample, None is 0.
    stop : int | None
        Index of the first sample not to use, None is the end.
    label : Label | BiHemiLabel | None
        As in :func:`apply_deepsif`. Saves memory.
    pick_ori : None | "normal" | "vector"
        As in :func:`apply_deepsif`.
    rank : None | 'info' | 'full' | dict
        As in :func:`apply_deepsif`.
    subjects_dir : path-like | None
        As in :func:`apply_deepsif`.
    %(verbose)s

    Returns
    -------
    stc : SourceEstimate | VectorSourceEstimate
        See :func:`apply_deepsif`. Times count from the raw's first sample.
    """
    _validate_type(raw, mne.io.BaseRaw, "raw")
    start, stop = _check_range(start, stop, raw.n_times)
    plan = _make_plan(
        raw.info,
        fwd,
        noise_cov,
        estimator,
        label=label,
        pick_ori=pick_ori,
        rank=rank,
        subjects_dir=subjects_dir,
    )
    sources = _apply_array(raw.get_data(start=start, stop=stop), plan)
    return _make_stc(sources, plan, raw.times[start])


# --------------------------------------------------------------- the shared path


@dataclass(frozen=True)
class _Plan:
    """All that does not depend on the data's values."""

    info: mne.Info  # of the data
    leadfield: Leadfield
    estimator: object
    vertices: list  # to return, lh and rh
    vertex_area: sparse.csr_array  # (n_vertices, n_parcels), m²
    normals: np.ndarray | None  # (n_vertices, 3); None for a scalar estimate

    @property
    def picks(self):
        """Indices of the channels used."""
        index = {name: pick for pick, name in enumerate(self.info["ch_names"])}
        return [index[name] for name in self.leadfield.ch_names]


def _make_plan(
    info, fwd, noise_cov, estimator, *, label, pick_ori, rank, subjects_dir, nave=1
):
    _check_option("pick_ori", pick_ori, [None, "normal", "vector"])
    _validate_type(label, (mne.Label, mne.BiHemiLabel, None), "label")
    estimator = _resolve_estimator(estimator)
    if estimator.encoder == "sensors" and noise_cov is None:
        noise_cov = mne.make_ad_hoc_cov(info)  # its data are not whitened: no warning
    leadfield = make_leadfield(
        info,
        fwd,
        noise_cov,
        parcels=estimator.parcels_,
        ch_names=estimator.ch_names_,
        rank=rank,
        nave=nave,
        subjects_dir=subjects_dir,
    )
    plan = _Plan(
        info=info,
        leadfield=leadfield,
        estimator=estimator,
        vertices=leadfield.vertices,
        vertex_area=leadfield.vertex_area,
        normals=leadfield.normals if pick_ori == "vector" else None,
    )
    return plan if label is None else _restrict_to_label(plan, label)


def _resolve_estimator(estimator):
    """Load an estimator by name or file, or check that it is a fitted one."""
    from sklearn.utils.validation import check_is_fitted

    if isinstance(estimator, type) or not hasattr(estimator, "_estimate"):
        _validate_type(
            estimator, ("path-like",), "estimator", "str, path-like, DeepSIFEstimator"
        )
        from .weights import load_estimator

        return load_estimator(estimator)
    check_is_fitted(estimator, "parcels_")
    return estimator


def _restrict_to_label(plan, label):
    index = np.arange(plan.vertex_area.shape[0], dtype=float)[:, np.newaxis]
    subject = plan.leadfield.subject
    if label.subject is not None and subject is not None and label.subject != subject:
        raise ValueError(
            f"label is of subject {label.subject!r}, fwd of subject {subject!r}. Use "
            "mne.morph_labels, or a label of the forward's subject."
        )
    stc = mne.SourceEstimate(index, plan.vertices, 0, 1, subject).in_label(label)
    chosen = stc.data[:, 0].astype(int)
    return replace(
        plan,
        vertices=stc.vertices,
        vertex_area=plan.vertex_area[chosen],
        normals=None if plan.normals is None else plan.normals[chosen],
    )


def _apply_array(data, plan):
    """Estimate parcel activity.

    Parameters
    ----------
    data : array of shape (n_all_channels, n_times)
        Data of all channels of ``plan.info``.
    plan : _Plan
        Leadfield and estimator.

    Returns
    -------
    sources : array of shape (n_parcels, n_times)
        Activity of the parcels in A/m.
    """
    leadfield, estimator = plan.leadfield, plan.estimator
    check_average_reference(plan.info, data, leadfield.ch_names)
    data = data[plan.picks]
    _check_data(data, leadfield.ch_names)
    sfreq = plan.info["sfreq"]
    data_white = leadfield.whiten(data)
    if estimator.encoder == "sensors":
        data = leadfield.projector @ data
        sources = estimator._estimate(data, leadfield.gain, sfreq)
    else:
        sources = estimator._estimate(data_white, leadfield.gain_white, sfreq)
    _log_explained(data_white, leadfield.gain_white @ sources)
    return sources


def _check_data(data, ch_names):
    if data.shape[1] == 0:
        raise ValueError("The data have no samples. Use a longer time range.")
    finite = np.isfinite(data).all(1)
    if not finite.all():
        wrong = [name for name, good in zip(ch_names, finite) if not good]
        raise ValueError(
            f"The data have NaN or infinite values in {len(wrong)} channel(s): "
            f"{wrong[:10]}. Mark them in info['bads'], or crop the data."
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


def _log_explained(data_white, fit_white):
    power = np.sum(np.square(data_white))
    if power > 0:
        share = 1 - np.sum(np.square(data_white - fit_white)) / power
        logger.info("Explained %0.1f%% of the whitened data's power.", 100 * share)


def _subtract_fit(data, sources, plan):
    leadfield = plan.leadfield
    return leadfield.projector @ data[plan.picks] - leadfield.gain @ sources


def _iterate_epochs(epochs, plan):
    empty = True
    for data in epochs:
        empty = False
        yield _make_stc(_apply_array(data, plan), plan, epochs.times[0])
    if empty:
        raise ValueError("epochs is empty: all epochs were dropped, see drop_log.")


def _make_stc(sources, plan, tmin):
    """Spread parcel activity (A/m) over the vertices (A m)."""
    data = plan.vertex_area @ sources
    kind = mne.SourceEstimate
    if plan.normals is not None:
        data = plan.normals[:, :, np.newaxis] * data[:, np.newaxis]
        kind = mne.VectorSourceEstimate
    return kind(
        data,
        vertices=plan.vertices,
        tmin=float(tmin),
        tstep=1 / plan.info["sfreq"],
        subject=plan.leadfield.subject,
    )

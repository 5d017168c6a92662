"""The path of all front doors: a prepared operator, checks, estimate, vertices."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import threading
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache, cached_property

import mne
import numpy as np
from mne.utils import _check_option, _validate_type, logger, verbose, warn
from scipy import sparse
from threadpoolctl import ThreadpoolController

from .checks import check_fingerprint
from .features import eye_gain
from .leadfield import (
    Leadfield,
    check_average_reference,
    check_same_sensors,
    make_leadfield,
)
from .windows import constant_power, window_length

_INFINITE = 1e30  # in V or T; the square of more may overflow when whitened
_MAX_CONSTANT = 0.75  # share of the power below about 0.6 Hz: see the warning


@dataclass(frozen=True)
class DeepSIFOperator:
    """A forward solution, a noise covariance and an estimator, ready for data.

    Made by :func:`make_deepsif_operator`.

    Attributes
    ----------
    info : Info
        Measurement info that it was made for.
    leadfield : Leadfield
        Whitened leadfield of the parcels, for a single trial.
    estimator : DeepSIFEstimator
        The fitted estimator.
    """

    info: mne.Info
    leadfield: Leadfield
    estimator: object

    def __repr__(self):
        """Say what it is for."""
        n_channels, n_parcels = self.leadfield.gain.shape
        subject = self.leadfield.subject
        return (
            f"<DeepSIFOperator | {n_channels} channels, {n_parcels} parcels, "
            f"subject {subject!r}>"
        )

    @cached_property
    def _eyes(self):
        """Fields of the eyes at the channels used, for the trust report."""
        names = self.leadfield.ch_names
        picks = mne.pick_channels(self.info["ch_names"], names, ordered=True)
        return eye_gain(mne.pick_info(self.info, picks))

    def _for_nave(self, nave):
        """Return the whitened leadfield for the average of nave trials."""
        if not nave > 0:
            raise ValueError(f"The number of averages (nave) must be > 0, got {nave}.")
        leadfield, factor = self.leadfield, np.sqrt(nave)
        return replace(
            leadfield,
            whitener=factor * leadfield.whitener,
            gain_white=factor * leadfield.gain_white,
        )


@verbose
def make_deepsif_operator(
    info,
    fwd,
    noise_cov=None,
    *,
    estimator="generic",
    rank=None,
    subjects_dir=None,
    verbose=None,
):
    """Prepare forward, noise covariance and estimator for many data.

    ``apply_deepsif(evoked, operator)`` is ``apply_deepsif(evoked, fwd, noise_cov)``
    without the time that the leadfield takes; so are the functions for epochs and
    raw. Compare :func:`mne.minimum_norm.make_inverse_operator`.

    Parameters
    ----------
    info : Info
        Measurement info of the data: channels, bads, projectors, reference.
    fwd : Forward
        As in :func:`apply_deepsif`.
    noise_cov : Covariance | None
        As in :func:`apply_deepsif`.
    estimator : str | path-like | DeepSIFEstimator
        As in :func:`apply_deepsif`.
    rank : None | 'info' | 'full' | dict
        As in :func:`apply_deepsif`.
    subjects_dir : path-like | None
        As in :func:`apply_deepsif`.
    %(verbose)s

    Returns
    -------
    operator : DeepSIFOperator
        What the ``apply_deepsif`` functions take in place of ``fwd``.

    Notes
    -----
    It is for data with the same channels, bads, projectors, compensation and sensor
    positions; others are an error (or, for positions, a warning). Sampling rate,
    length and number of averages may differ.
    """
    _validate_type(info, mne.Info, "info")
    estimator = resolve_estimator(estimator)
    if estimator.encoder == "sensors" and noise_cov is None:
        noise_cov = mne.make_ad_hoc_cov(info)  # its data are not whitened: no warning
    leadfield = make_leadfield(
        info,
        fwd,
        noise_cov,
        parcels=estimator.parcels_,
        ch_names=estimator.ch_names_,
        rank=rank,
        subjects_dir=subjects_dir,
    )
    check_fingerprint(getattr(estimator, "fingerprint_", None), fwd, leadfield)
    return DeepSIFOperator(info.copy(), leadfield, estimator)


def resolve_operator(info, fwd, noise_cov, estimator, rank, subjects_dir):
    """Make an operator, or check that the given one suits the data."""
    if not isinstance(fwd, DeepSIFOperator):
        return make_deepsif_operator(
            info,
            fwd,
            noise_cov,
            estimator=estimator,
            rank=rank,
            subjects_dir=subjects_dir,
        )
    given = dict(noise_cov=noise_cov, rank=rank, subjects_dir=subjects_dir)
    given["estimator"] = None if estimator == "generic" else estimator
    for name, value in given.items():
        if value is not None:
            raise ValueError(
                f"{name} is part of the operator that was given as fwd: give it to "
                "make_deepsif_operator instead."
            )
    check_same_sensors(info, fwd.info, fwd.leadfield)
    return fwd


def resolve_estimator(estimator):
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


# --------------------------------------------------------------- from data to vertices


@dataclass(frozen=True)
class Plan:
    """All that does not depend on the data's values."""

    info: mne.Info  # of the data
    operator: DeepSIFOperator
    leadfield: Leadfield  # the operator's, for the data's number of averages
    vertices: list  # to return, lh and rh
    vertex_area: sparse.csr_array  # (n_vertices, n_parcels), m²
    normals: np.ndarray | None  # (n_vertices, 3); None for a scalar estimate

    @property
    def estimator(self):
        """The fitted estimator."""
        return self.operator.estimator

    @property
    def picks(self):
        """Indices of the channels used."""
        index = {name: pick for pick, name in enumerate(self.info["ch_names"])}
        return [index[name] for name in self.leadfield.ch_names]

    @property
    def window(self):
        """Length of the network's window in samples of the data."""
        estimator = self.estimator
        sfreq = self.info["sfreq"]
        return window_length(estimator.n_times_, estimator.sfreq_, sfreq)


def make_plan(
    info, fwd, noise_cov, estimator, *, label, pick_ori, rank, subjects_dir, nave=1
):
    """Check the arguments of a front door and bring together what it needs."""
    _check_option("pick_ori", pick_ori, [None, "normal", "vector"])
    _validate_type(label, (mne.Label, mne.BiHemiLabel, None), "label")
    operator = resolve_operator(info, fwd, noise_cov, estimator, rank, subjects_dir)
    leadfield = operator._for_nave(nave)
    plan = Plan(
        info=info,
        operator=operator,
        leadfield=leadfield,
        vertices=leadfield.vertices,
        vertex_area=leadfield.vertex_area,
        normals=leadfield.normals if pick_ori == "vector" else None,
    )
    return plan if label is None else _restrict_to_label(plan, label)


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


@contextmanager
def one_blas_thread():
    """Hold NumPy's matrix products to one thread.

    The threads of OpenBLAS wait busily after each product, on the cores that torch's
    threads need: with both, an estimate takes more than twice as long as with either.
    The limit holds for the whole process, so that only the main thread sets it: of
    several that come and go, one would restore what is another's.
    """
    limits = nullcontext()
    if threading.current_thread() is threading.main_thread():
        limits = _openblas().limit(limits=1)
    with limits:
        yield


@cache
def _openblas():
    return ThreadpoolController().select(internal_api="openblas")


@one_blas_thread()
def apply_array(data, plan, parcels=None):
    """Estimate parcel activity.

    Parameters
    ----------
    data : array of shape (..., n_all_channels, n_times)
        Data of all channels of ``plan.info``.
    plan : Plan
        Leadfield and estimator.
    parcels : array of int | None
        The parcels to return, None is all of them.

    Returns
    -------
    sources : array of shape (..., n_parcels, n_times)
        Activity of the parcels in A/m.
    powers : array of shape (4,)
        Sums to report: power of the whitened data, of what is left of it, of their
        windows, and of the windows' means (both 0 where the network sees these).
    """
    leadfield, estimator = plan.leadfield, plan.estimator
    data = _check_data(data, plan)
    data_white = leadfield.whiten(data)
    given = data_white, leadfield.gain_white, plan.info["sfreq"]
    constant = 0.0, 0.0
    if estimator.encoder == "sensors":
        given = leadfield.projector @ data, leadfield.gain, plan.info["sfreq"]
        constant = constant_power(data_white, plan.window)
    if parcels is None:
        sources = estimator._estimate(*given)
        fit = leadfield.gain_white @ sources
    else:
        some = np.eye(leadfield.gain.shape[1])[parcels]
        mixed = estimator._estimate(*given, np.vstack([some, leadfield.gain_white]))
        sources, fit = np.split(mixed, [len(parcels)], axis=-2)
    powers = [np.sum(np.square(data_white)), np.sum(np.square(data_white - fit))]
    return sources, np.array([*powers, *constant])


def _check_data(data, plan):
    """Check values and reference; return the channels used."""
    ch_names = plan.leadfield.ch_names
    if data.shape[-1] == 0:
        raise ValueError("The data have no samples. Use a longer time range.")
    if np.iscomplexobj(data):
        raise ValueError(
            "The data are complex, the estimate is of real signals: give the real and "
            "the imaginary part, one after the other."
        )
    for epoch in data.reshape(-1, *data.shape[-2:]):
        check_average_reference(plan.info, epoch, ch_names)
    data = data[..., plan.picks, :]
    finite = (np.abs(data) < _INFINITE).all(-1).reshape(-1, len(ch_names)).all(0)
    if not finite.all():
        wrong = [name for name, good in zip(ch_names, finite) if not good]
        raise ValueError(
            f"The data have NaN or infinite values in {len(wrong)} channel(s): "
            f"{wrong[:10]} ({_INFINITE:g} counts as infinite). Mark them in "
            "info['bads'], or crop the data."
        )
    return data


def log_explained(powers):
    """Log how much of the data is explained."""
    power, rest, _, _ = powers
    if power > 0 and rest == power:
        logger.info("The network finds no source: the estimate is zero.")
    elif power > 0:
        share = 1 - rest / power
        logger.info("Explained %0.1f%% of the whitened data's power.", 100 * share)


def warn_constant(powers, plan):
    """Warn if most of the data is what a network that reads channels cannot see."""
    _, _, windows, means = powers
    if means > _MAX_CONSTANT * windows:
        seconds = plan.window / plan.info["sfreq"]
        warn(
            f"{100 * means / windows:.0f} % of the whitened data's power does not "
            f"change within the network's window of {seconds:.2g} s, and the estimate "
            "leaves it out. If it is an offset or a drift, use a high-pass filter or a "
            "baseline; if it is slow activity of interest (below 1 Hz) or few "
            "samples, use estimator='generic', which explains it."
        )


def make_stc(sources, plan, tmin, decim=1):
    """Spread parcel activity (A/m) over the vertices (A m)."""
    data = plan.vertex_area @ sources
    kind = mne.SourceEstimate
    if plan.normals is not None:
        data = plan.normals[:, :, np.newaxis].astype(data.dtype) * data[:, np.newaxis]
        kind = mne.VectorSourceEstimate
    return kind(
        data,
        vertices=plan.vertices,
        tmin=float(tmin),
        tstep=decim / plan.info["sfreq"],
        subject=plan.leadfield.subject,
    )

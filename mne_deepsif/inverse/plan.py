"""The steps that all apply functions share: plan, checks, estimate, vertices."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import threading
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache, cached_property

import mne
import numpy as np
from mne.utils import _check_option, _validate_type, logger, warn
from scipy import sparse
from threadpoolctl import ThreadpoolController

from ..head.channels import pick_data
from ..head.leadfield import channel_std, check_nave
from ..head.reference import check_average_reference
from ..head.units import check_units, describe_units
from .band import effective_band
from .modes import brain_share, power_above
from .operator import DeepSIFOperator, resolve_operator
from .windows import constant_power

_MAX_CONSTANT = 0.75  # share of the power below about 0.6 Hz: see the warning
_UNTOLD = 25  # averages that an Evoked may have whose nave is 1, as nobody set it
_FEWEST = 32  # samples; noise of fewer can look like activity above the band
_MAX_LOST = 0.2  # share of the power above the network's band, and of the brain's


@dataclass(frozen=True)
class Plan:
    """Everything that does not depend on the values of the data."""

    info: mne.Info  # of the data
    operator: DeepSIFOperator
    vertices: list  # to return, lh and rh
    activity: sparse.csr_array  # (n_vertices, n_rows): moments for rows of 1 A/m
    normals: np.ndarray | None  # (n_vertices, 3); None for a scalar estimate
    band: float | None = None  # Hz; None measures it in each piece of data

    @property
    def leadfield(self):
        """The leadfield, whitened for a single trial."""
        return self.operator.leadfield

    @property
    def model(self):
        """The fitted model."""
        return self.operator.model

    @cached_property
    def picks(self):
        """Indices of the channels used."""
        index = {name: pick for pick, name in enumerate(self.info["ch_names"])}
        return [index[name] for name in self.leadfield.ch_names]

    def to_model(self, data):
        """Return data of the channels used as the model reads them."""
        if self.model.encoder == "sensors":
            return self.leadfield.projector @ data
        return self.leadfield.whiten(data)

    def band_of(self, pieces):
        """Return the band (Hz) of whitened data, given in pieces."""
        return effective_band(pieces, self.info["sfreq"], self.info["lowpass"])

    @property
    def window(self):
        """Length of the network's window in samples of the data."""
        return self.operator._prepared.window(self.info["sfreq"])


@dataclass(frozen=True)
class Power:
    """Power of whitened data, summed over channels and samples."""

    data: float = 0.0
    rest: float = 0.0  # of what the estimate does not explain
    windows: float = 0.0  # of the windows, for a network that reads channels
    means: float = 0.0  # of the windows' means, which such a network does not see
    modes: float | np.ndarray = 0.0  # (2, rank): all, and above the network's band
    strongest: tuple = (0.0, 0.0)  # of the strongest sample: all, and not explained

    def __add__(self, other):
        """Add up the powers of two pieces of data."""
        names = ("data", "rest", "windows", "means", "modes")
        sums = [getattr(self, name) + getattr(other, name) for name in names]
        return Power(*sums, max(self.strongest, other.strongest))


@dataclass(frozen=True)
class SourceActivity:
    """An estimate before it is spread over the vertices, and the data behind it."""

    data: np.ndarray  # (..., n_channels, n_times): the channels used, as given
    data_white: np.ndarray  # (..., rank, n_times)
    sources: np.ndarray  # (..., n_rows, n_times), A/m: parcels or patterns
    fit_white: np.ndarray  # (..., rank, n_times): leadfield times all sources
    power: Power


def make_plan(
    info, fwd, noise_cov, estimator, *, label, pick_ori, rank, subjects_dir, nave=1
):
    """Check the arguments of an apply function and collect what it needs.

    The number of averages is only checked. It would scale data and leadfield alike, so
    neither the estimate nor the report about it depends on it.
    """
    _check_option("pick_ori", pick_ori, [None, "normal", "vector"])
    _validate_type(label, (mne.Label, mne.BiHemiLabel, None), "label")
    check_nave(nave)
    operator = resolve_operator(info, fwd, noise_cov, estimator, rank, subjects_dir)
    leadfield = operator.leadfield
    plan = Plan(
        info=info,
        operator=operator,
        vertices=leadfield.vertices,
        activity=operator._activity,
        normals=leadfield.normals if pick_ori == "vector" else None,
    )
    return plan if label is None else _restrict_to_label(plan, label)


def _restrict_to_label(plan, label):
    index = np.arange(plan.activity.shape[0], dtype=float)[:, np.newaxis]
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
        activity=plan.activity[chosen],
        normals=None if plan.normals is None else plan.normals[chosen],
    )


def with_band(plan, pieces):
    """Return a plan that knows the band of the data.

    Parameters
    ----------
    plan : Plan
        The plan.
    pieces : iterable of array of shape (..., n_all_channels, n_times)
        Some of the data.

    Returns
    -------
    plan : Plan
        The same, for all of the data.
    """
    leadfield, picks = plan.leadfield, plan.picks
    used = (pick_data(data, picks, leadfield.ch_names) for data in pieces)
    return replace(plan, band=plan.band_of(map(leadfield.whiten, used)))


def choose_rows(plan):
    """Choose what to keep of an estimate, so that it is small.

    Parameters
    ----------
    plan : Plan
        Tells the vertices.

    Returns
    -------
    rows : csr_array of shape (n_kept, n_rows) | None
        Sums of an estimate's rows to keep: patterns, or vertices if these are fewer.
        None keeps all rows.
    activity : sparse array of shape (n_vertices, n_kept)
        Moments of the vertices (A m) for what is kept.
    """
    n_vertices, n_rows = plan.activity.shape
    used = np.unique(plan.activity.indices)
    if not used.size:  # a label outside the parcels: keep one, for the NaN spans
        used = np.array([0])
    if n_vertices < len(used):  # a label: its vertices are fewer than its patterns
        return plan.activity, sparse.eye_array(n_vertices, dtype=np.float32)
    activity = plan.activity[:, used].astype(np.float32)
    if len(used) == n_rows:
        return None, activity
    return sparse.eye_array(n_rows, format="csr")[used], activity


@contextmanager
def one_blas_thread():
    """Limit NumPy's matrix products to one thread.

    After each product, the threads of OpenBLAS wait busily on the cores that torch's
    threads need. With both, an estimate takes more than twice as long as with either.
    The limit applies to the whole process, so only the main thread sets it. If several
    threads did, one could restore the limit of another.
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
def estimate_sources(data, plan, rows=None, keep=slice(None), *, check_reference=True):
    """Estimate activity.

    Parameters
    ----------
    data : array of shape (..., n_all_channels, n_times)
        Data of all channels of ``plan.info``.
    plan : Plan
        Leadfield and model.
    rows : csr_array of shape (n_sums, n_rows) | None
        Sums of rows to return. None returns all rows.
    keep : slice
        The times of the sources to return, with a positive step.
    check_reference : bool
        Whether to check that EEG has an average reference. If it has in one part of a
        recording, it has in all.

    Returns
    -------
    estimate : SourceActivity
        The activity and all intermediate results.
    """
    leadfield, sfreq = plan.leadfield, plan.info["sfreq"]
    used = pick_data(data, plan.picks, leadfield.ch_names)
    if check_reference:
        check_average_reference(plan.info, data, leadfield.ch_names)
    data = used
    data_white = leadfield.whiten(data)
    given, constant = data_white, (0.0, 0.0)
    if plan.model.encoder == "sensors":
        given = leadfield.projector @ data
        constant = constant_power(data_white, plan.window)
    band = plan.band_of([data_white]) if plan.band is None else plan.band
    sources, fit_white = plan.operator._prepared.estimate(
        given, sfreq, band=band, mixing=rows, fit=True, keep=keep
    )
    if plan.model.encoder == "sensors":
        fit_white = leadfield.whitener @ fit_white
    samples = np.square(data_white).sum(-2)
    rest = np.square(data_white - fit_white).sum(-2)
    strongest = np.unravel_index(samples.argmax(), samples.shape)
    power = Power(
        samples.sum(),
        rest.sum(),
        *constant,
        _power_in_modes(data_white, plan),
        (samples[strongest], rest[strongest]),
    )
    return SourceActivity(data, data_white, sources, fit_white, power)


def _power_in_modes(data_white, plan):
    sfreq, highest = plan.info["sfreq"], plan.model.sfreq / 2
    if sfreq <= plan.model.sfreq or data_white.shape[-1] < _FEWEST:
        return 0.0
    return power_above(data_white, highest, sfreq, plan.operator._modes[1])


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


def log_explained(power):
    """Log how much of the data is explained."""
    if power.data > 0 and power.rest == power.data:
        logger.info("The network finds no source: the estimate is zero.")
    elif power.data > 0:
        strongest, rest = power.strongest
        logger.info(
            "The estimate explains %.0f %% of the data where they are strongest, and "
            "%.0f %% over all times, noise included.",
            100 * (1 - rest / strongest),
            100 * (1 - power.rest / power.data),
        )


def warn_constant(power, plan):
    """Warn if a network that reads channels cannot see most of the data."""
    if power.means > _MAX_CONSTANT * power.windows:
        seconds = plan.window / plan.info["sfreq"]
        warn(
            f"{100 * power.means / power.windows:.0f} % of the whitened data's power "
            f"does not change within the network's window of {seconds:.2g} s. The "
            "estimate leaves this part out. If it is an offset or a drift, use a "
            "high-pass filter or a baseline. If it is slow activity of interest (below "
            "1 Hz), or if there are few samples, use estimator='generic', which "
            "explains it."
        )


def describe_wrong_units(data, plan, evoked=None):
    """Say that data cannot be in MNE's units.

    Parameters
    ----------
    data : array of shape (..., n_channels, n_times)
        Data of the channels used.
    plan : Plan
        Tells the noise of the channels.
    evoked : Evoked | None
        Where they come from. None stands for single trials.

    Returns
    -------
    reasons : list of str
        One for each type of channel that is wrong.
    told : bool
        Whether the data vary in time, so that they could be judged.
    """
    return describe_units(data, *_expected_of(plan, evoked))


def warn_wrong_units(data, plan, evoked=None):
    """Warn if data cannot be in MNE's units; return whether they could be judged."""
    return check_units(data, *_expected_of(plan, evoked))


def _expected_of(plan, evoked):
    """Return types and noise of the channels used, and the number of averages."""
    leadfield = plan.leadfield
    nave = 1 if evoked is None else max(evoked.nave, _UNTOLD)
    return leadfield.ch_types, channel_std(leadfield), nave


def describe_lost_band(power, plan):
    """Say that much of the brain's activity is too fast for the network, else None."""
    if np.ndim(power.modes) == 0:
        return None
    total, above = power.modes.sum(1)
    brain = brain_share(power.modes, plan.operator._modes[0])
    if not min(above, brain * total) > _MAX_LOST * total:
        return None
    return (
        f"{above / total:.0%} of the whitened data's power is above "
        f"{plan.model.sfreq / 2:g} Hz, half the network's sampling rate: the estimate "
        "leaves it out (see mne_deepsif.Model.at)"
    )


def warn_lost_band(power, plan):
    """Warn if much of the brain's activity is too fast for the network.

    Return whether there was a warning.
    """
    lost = describe_lost_band(power, plan)
    if lost:
        warn(
            f"{lost}. If it is activity of interest, {_at_higher_rate(plan)}. If it is "
            "an artefact, low-pass filter it."
        )
    return bool(lost)


def _at_higher_rate(plan):
    """Say how to estimate all of the data's band."""
    if plan.model.encoder == "sensors":
        return "use an estimator of a higher rate (DeepSIFEstimator(sfreq=...))"
    return (
        "use the same weights at the data's rate: estimator=model.at"
        f"({plan.info['sfreq']:g}), where model is "
        "mne_deepsif.read_deepsif(mne_deepsif.fetch_weights()).model_, or that of your "
        "own estimator"
    )


def make_stc(sources, plan, tmin, decim=1):
    """Spread activity (A/m) over the vertices (A m)."""
    data = plan.activity.astype(sources.dtype) @ sources
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

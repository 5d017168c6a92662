"""Estimates of a recording while it runs."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import mne
import numpy as np
from mne.utils import _validate_type
from scipy import sparse

from ..head.channels import is_possible
from ..head.reference import check_average_reference
from .clock import Clock, StreamEvent
from .operator import DeepSIFOperator
from .plan import Plan, choose_rows, make_plan, one_blas_thread, warn_wrong_units
from .span import Span


@dataclass(frozen=True)
class StreamEstimate:
    """What a stream returns: estimates of some samples, and what happened.

    Attributes
    ----------
    data : array of shape (n_rows, n_times)
        Dipole moments of the vertices (A m), or mean activity of the parcels (A/m).
    times : array of shape (n_times,)
        Times of the samples (s), as they were pushed.
    final : bool
        Whether the estimate is that of :func:`apply_deepsif_raw`, which no later data
        change. Otherwise it is the one for data that end here.
    events : list of StreamEvent
        What happened since the last call, in order.
    """

    data: np.ndarray
    times: np.ndarray
    final: bool
    events: list
    _plan: Plan = field(repr=False, default=None)
    _tstep: float = field(repr=False, default=0.0)

    def to_stc(self):
        """Return the estimate as an object of MNE.

        Returns
        -------
        stc : SourceEstimate
            Dipole moments (A m). Its times are uniform, from the first sample on.
        """
        if self._plan is None:
            raise ValueError(
                "Parcels are no vertices. Use data and times, or a stream with "
                "parcels=False."
            )
        steps = np.diff(self.times)
        if not len(self.times) or (np.abs(steps - self._tstep) > self._tstep / 2).any():
            what = "gaps" if len(self.times) else "no samples"
            raise ValueError(
                f"The estimate has {what}, so it cannot be a SourceEstimate. Use data "
                "and times."
            )
        return mne.SourceEstimate(
            self.data,
            vertices=self._plan.vertices,
            tmin=float(self.times[0]),
            tstep=self._tstep,
            subject=self._plan.leadfield.subject,
        )


class DeepSIFStream:
    """Estimate the sources of a recording while it runs.

    Push what is new with :meth:`push`, in pieces of any size. It returns estimates that
    are final: put together, they are what :func:`apply_deepsif_raw` returns for all of
    the data, if ``info["lowpass"]`` of the operator is right, which a stream cannot
    measure. :meth:`preview` estimates the latest samples, which are not final yet.

    Parameters
    ----------
    operator : DeepSIFOperator
        From :func:`make_deepsif_operator`.
    info : Info | None
        Measurement info of the data: channels and sampling rate. None is
        ``operator.info``.
    label : Label | BiHemiLabel | None
        Return only the vertices (or parcels) of this label. The estimate itself stays
        the same.
    parcels : bool
        Return the mean activity of parcels (A/m) instead of the moments of vertices.
        With a label, these are all parcels with a vertex in it.
    decim : int
        Keep every ``decim``-th sample of the estimate, see :func:`apply_deepsif_raw`.

    Attributes
    ----------
    info : Info
        Measurement info of the data.
    vertices : list of array of int
        Vertices of the rows, lh and rh; None for parcels.
    parcels : array of int
        Indices of the parcels of the rows; None for vertices.
    delay : float
        How long it takes at most until an estimate is final (s), beside computing.

    See Also
    --------
    apply_deepsif_raw : The same for a recording that is over.

    Notes
    -----
    A gap ends a span, and a new one begins after it, as beside a bad annotation in
    :func:`apply_deepsif_raw`. All that a stream does not use, and why, is told by
    events (``StreamEstimate.events``). Nothing is shifted: each estimate has the time
    that came with its sample.

    Memory does not grow: a stream keeps about 1.5 s of data.
    """

    def __init__(self, operator, info=None, *, label=None, parcels=False, decim=1):
        _validate_type(operator, DeepSIFOperator, "operator")
        _validate_type(info, (mne.Info, None), "info")
        _validate_type(parcels, bool, "parcels")
        _validate_type(decim, "int-like", "decim")
        if decim < 1:
            raise ValueError(f"decim must be 1 or more, got {decim}.")
        self.info = (operator.info if info is None else info).copy()
        options = dict(pick_ori=None, rank=None, subjects_dir=None)
        self._plan = make_plan(
            self.info, operator, None, "generic", label=label, **options
        )
        self.vertices, self.parcels = self._plan.vertices, None
        self._rows, self._activity = choose_rows(self._plan)
        if parcels:
            self.vertices, self.parcels = None, _parcels_in(self._plan, label)
            self._rows = operator._to_parcels[self.parcels]
            self._activity = sparse.eye_array(len(self.parcels), dtype=np.float32)
        self._n_rows = self._activity.shape[0]
        if _is_identity(self._activity):
            self._activity = None
        self._decim = decim
        self._clock = Clock(self.info["sfreq"])
        self._checked, self._unchecked = False, []
        self._out = None  # why samples are left out at the moment
        self._start_span(0)

    def __repr__(self):
        """Describe the stream in one line."""
        n_channels = len(self._plan.leadfield.ch_names)
        what = f"{len(self.parcels)} parcels" if self.vertices is None else ""
        what = what or f"{sum(map(len, self.vertices))} vertices"
        return (
            f"<DeepSIFStream | {n_channels} channels at {self.info['sfreq']:g} Hz, "
            f"{what}>"
        )

    @property
    def delay(self):
        """How long it takes at most until an estimate is final (s)."""
        window = self._plan.window
        return (window + 2 * max(1, window // 2)) / self.info["sfreq"]

    @one_blas_thread()
    def push(self, data, times=None, bads=()):
        """Add new data, and return the estimates that have become final.

        Parameters
        ----------
        data : array of shape (n_channels, n_times)
            Data of all channels of ``info``, in the units of MNE (V or T).
        times : array of shape (n_times,) | None
            Times of the samples (s), by any clock. None counts samples; the first one
            is at 0 s.
        bads : list of str
            Channels that are bad now. Samples with a bad channel of the operator are
            left out: make an operator without this channel, and a new stream.

        Returns
        -------
        estimate : StreamEstimate
            Estimates of samples of which none has been returned before.
        """
        data, times = self._check(data, times)
        _validate_type(bads, (list, tuple, set), "bads")
        events, parts = [], []
        if data.shape[1]:
            order, events = self._clock.sort(times)
            if len(order):
                data, times = data[:, order], times[order]
                parts = self._add(data, times, bads, events)
        return self._make(parts, events)

    @one_blas_thread()
    def preview(self):
        """Estimate the samples that are not final, as if the data ended here.

        Returns
        -------
        estimate : StreamEstimate
            The estimate of all samples after those that :meth:`push` has returned.
        """
        return self._make([self._preview()], [], final=False)

    @one_blas_thread()
    def finish(self):
        """Return the last estimates: the data end here.

        The stream can be used again. Its next data may have any times.

        Returns
        -------
        estimate : StreamEstimate
            The estimate of all samples after those that :meth:`push` has returned.
        """
        self._clock, self._out = Clock(self.info["sfreq"]), None
        return self._make([self._end_span(0)], [])

    def push_lsl(self, source):
        """Push what is new in a stream of the lab streaming layer.

        Parameters
        ----------
        source : StreamLSL
            A connected :class:`mne_lsl.stream.StreamLSL` (extra ``stream``). Its
            channels may be in any order. Those in ``source.info["bads"]`` are bad now.

        Returns
        -------
        estimate : StreamEstimate
            As :meth:`push` returns it.
        """
        if not source.connected:
            raise RuntimeError(
                f"The source {source.name!r} is not connected, or has lost its "
                "connection. Connect it, and push on: the time without data is a gap."
            )
        if not np.isclose(source.info["sfreq"], self.info["sfreq"], rtol=1e-3):
            raise ValueError(
                f"The source has a sampling rate of {source.info['sfreq']:g} Hz, but "
                f"the stream was made for {self.info['sfreq']:g} Hz. Make it with an "
                "info of that rate."
            )
        names = self.info["ch_names"]
        index = {name: pick for pick, name in enumerate(source.ch_names)}
        missing = [name for name in names if name not in index]
        given, times = source.get_data(exclude=())
        # times that the source has not filled yet are 0
        new = times > (0.0 if self._clock.last is None else self._clock.last)
        data = np.zeros((len(names), new.sum()))
        for row, name in zip(data, names, strict=True):
            if name in index:
                exponent = int(source.info["chs"][index[name]]["unit_mul"])
                row[:] = given[index[name], new] * 10.0**exponent
        return self.push(data, times[new], [*source.info["bads"], *missing])

    def _check(self, data, times):
        """Return data and times as arrays; raise if they do not fit."""
        data, n_channels = np.asarray(data), len(self.info["ch_names"])
        if data.ndim != 2 or len(data) != n_channels or data.dtype.kind not in "fiu":
            raise ValueError(
                f"data must be a real array of shape ({n_channels}, n_times), with all "
                f"channels of the stream's info, got shape {data.shape} and dtype "
                f"{data.dtype}."
            )
        if times is None:
            return data, self._clock.count(data.shape[1])
        times = np.asarray(times, float)
        if times.shape != data.shape[1:] or not np.isfinite(times).all():
            raise ValueError(
                f"times must be {data.shape[1]} finite numbers, one for each sample of "
                f"data, got an array of shape {times.shape}."
            )
        return data, times

    def _add(self, data, times, bads, events):
        """Sort new samples into spans; return what is final."""
        used, last = data[self._plan.picks], self._clock.last
        index, missing, steady = self._clock.advance(times)
        reasons = self._find_reasons(used, steady, bads)
        gaps = (missing > 0) & steady
        bounds = np.flatnonzero((reasons[1:] != reasons[:-1]) | gaps[1:]) + 1
        parts = []
        for start, stop in pairwise([0, *bounds, len(times)]):
            reason, some, when = reasons[start], used[:, start:stop], times[start:stop]
            if gaps[start] and self._out is None:
                before = times[start - 1] if start else last
                events.append(_tell_gap(before, when[0], missing[start]))
                parts.append(self._end_span(index[start]))
            if reason != self._out:
                if self._out is None:
                    parts.append(self._preview())
                events.append(self._tell(reason, some, when, bads))
                self._start_span(index[start])
                self._out = reason
            if reason is None:
                self._check_values(data[:, start:stop], some)
                parts.append(self._extend(some, when))
        return parts

    def _find_reasons(self, used, steady, bads):
        """Return why each sample is left out, None where it is not."""
        reasons = np.full(used.shape[1], None)
        reasons[~is_possible(used).all(0)] = "values"
        reasons[~steady] = "rate"
        if set(bads) & set(self._plan.leadfield.ch_names):
            reasons[:] = "channels"
        return reasons

    def _tell(self, reason, used, times, bads):
        """Make the event of samples that are left out from here on, or no longer."""
        names, start = self._plan.leadfield.ch_names, float(times[0])
        event = partial(StreamEvent, start=start, stop=np.nan, n_samples=len(times))
        if reason is None:
            text = f"The estimate begins anew at {start:.6f} s."
            return event("resumed", text=text)
        if reason == "channels":
            wrong = [name for name in names if name in set(bads)]
            what = f"channels of the operator are bad or missing: {wrong[:10]}"
        elif reason == "values":
            wrong = ~is_possible(used).all(1)
            wrong = [name for name, bad in zip(names, wrong, strict=True) if bad]
            what = f"the data have NaN or infinite values in {wrong[:10]}"
        else:
            what = f"the rate is not {self.info['sfreq']:g} Hz"
            if len(times) > 1:
                what += f" but {1 / np.median(np.diff(times)):.5g} Hz"
        text = f"From {start:.6f} s on, {what}. These samples are left out."
        return event(reason, text=text)

    def _check_values(self, data, used):
        """Check units and reference, once in the life of a stream."""
        if self._checked:
            return
        check_average_reference(self.info, data, self._plan.leadfield.ch_names)
        self._unchecked.append(used)
        if sum(some.shape[1] for some in self._unchecked) >= self._plan.window:
            beginning = np.concatenate(self._unchecked, axis=1)
            self._checked = warn_wrong_units(beginning, self._plan)
            self._unchecked = []

    def _start_span(self, index):
        """Begin a span at a place on the grid of the sampling rate."""
        self._span = Span(
            self._plan.operator._prepared,
            self.info["sfreq"],
            self._rows,
            band=self.info["lowpass"],
            decim=self._decim,
            skip=-index % self._decim,
        )
        self._times = np.zeros(0)  # of its samples from n_done on

    def _extend(self, used, times):
        """Add samples to the span; return what is final."""
        start = self._span.n_done
        self._span.append(self._plan.to_model(used))
        times = np.concatenate([self._times, times])
        sources = self._span.settle()
        n_final = self._span.n_done - start
        self._times = times[n_final:]
        return sources, times[:n_final][self._span.kept(start, n_final)]

    def _preview(self):
        start, n_times = self._span.n_done, len(self._times)
        return self._span.preview(), self._times[self._span.kept(start, n_times)]

    def _end_span(self, index):
        part = self._preview()
        self._start_span(index)
        return part

    def _make(self, parts, events, final=True):
        """Put parts, each a list of sources and their times, together."""
        data = [some for sources, _ in parts for some in sources]
        if self._activity is not None:
            data = [self._activity @ some for some in data]
        if len(data) != 1:  # one needs no copy
            data = [np.zeros((self._n_rows, 0), np.float32), *data]
            data = [np.concatenate(data, axis=1)]
        return StreamEstimate(
            data[0],
            np.concatenate([np.zeros(0), *(times for _, times in parts)]),
            final,
            events,
            None if self.vertices is None else self._plan,
            self._decim / self.info["sfreq"],
        )


def _parcels_in(plan, label):
    """Return the parcels with a vertex in a label."""
    leadfield = plan.leadfield
    parcel = np.concatenate(leadfield.parcel_of_vertex)
    pairs = zip(leadfield.vertices, plan.vertices, strict=True)
    chosen = np.concatenate([np.isin(every, some) for every, some in pairs])
    found = np.unique(parcel[chosen & (parcel >= 0)])
    if not len(found):
        raise ValueError(
            f"label {label.name!r} lies outside of the parcels. Use another label, or "
            "parcels=False."
        )
    return found


def _is_identity(matrix):
    n_rows, n_columns = matrix.shape
    return n_rows == n_columns and (matrix != sparse.eye_array(n_rows)).nnz == 0


def _tell_gap(start, stop, n_missing):
    text = (
        f"{n_missing} samples are missing between {start:.6f} and {stop:.6f} s. The "
        "estimate begins anew."
    )
    return StreamEvent("gap", float(start), float(stop), int(n_missing), text)

"""Times of samples as they arrive: gaps, late samples, another rate (arrays only)."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import dataclass

import numpy as np

_ODD = 0.5  # samples by which a step between two samples may differ from one
_N_ODD = 8  # odd steps in a row that make another rate
_N_MEAN = 64  # steps over which the rate is measured
_RATE = 0.01  # relative difference that makes another rate


@dataclass(frozen=True)
class StreamEvent:
    """Something that a stream does not pass over in silence.

    Attributes
    ----------
    kind : str
        ``"gap"``: samples are missing. ``"late"``: samples came after later ones, or
        twice, and are left out. ``"order"``: samples of a piece were not in order, and
        have been sorted. ``"rate"``: the times have another rate; ``"values"``: NaN or
        infinite values; ``"channels"``: channels of the operator are bad or missing.
        From these three on, samples are left out until ``"resumed"``.
    start, stop : float
        The first and the last time concerned (s). For a gap, the last sample before it
        and the first after it. If it is not over, ``stop`` is NaN.
    n_samples : int
        Number of samples concerned, as far as known; for a gap, those that are missing.
    text : str
        The event in a sentence.
    """

    kind: str
    start: float
    stop: float
    n_samples: int
    text: str

    def __str__(self):
        """Return the event in a sentence."""
        return self.text


class Clock:
    """Compares the times of samples with a sampling rate.

    Parameters
    ----------
    sfreq : float
        The sampling rate (Hz).
    """

    def __init__(self, sfreq):
        self.sfreq = sfreq
        self.last = None  # time of the latest sample
        self.index = -1  # its place on the grid of the sampling rate
        self._n_odd = 0  # odd steps in a row, up to the latest sample
        self._steps = np.ones(0)  # the latest steps that are not odd, in samples

    def count(self, n_times):
        """Return times of samples that came without any."""
        first = 0.0 if self.last is None else self.last + 1 / self.sfreq
        return first + np.arange(n_times) / self.sfreq

    def sort(self, times):
        """Put new samples in order, and leave out those that come too late.

        Parameters
        ----------
        times : array of shape (n_times,)
            Their times (s).

        Returns
        -------
        order : array of int, shape (n_used,)
            The samples to use, in order.
        events : list of StreamEvent
            ``"order"`` and ``"late"``.
        """
        events, order = [], np.arange(len(times))
        if (np.diff(times) < 0).any():
            order = np.argsort(times, kind="stable")
            moved = order != np.arange(len(times))
            events.append(
                _describe(
                    "order",
                    times[moved],
                    "{n} samples of a piece between {start:.6f} and {stop:.6f} s were "
                    "not in order of time. They have been sorted.",
                )
            )
        latest = -np.inf if self.last is None else self.last
        new = np.diff(times[order], prepend=-np.inf) > 0
        new &= times[order] > latest
        if not new.all():
            events.append(
                _describe(
                    "late",
                    times[order[~new]],
                    "{n} samples between {start:.6f} and {stop:.6f} s came twice, or "
                    "after later ones. They are left out.",
                )
            )
        return order[new], events

    def advance(self, times):
        """Take note of new samples.

        Parameters
        ----------
        times : array of shape (n_times,)
            Their times (s), in order and after all before.

        Returns
        -------
        index : array of int, shape (n_times,)
            Places of the samples on the grid of the sampling rate. Samples without a
            gap between them are neighbours on the grid, whatever their times.
        missing : array of int, shape (n_times,)
            Number of samples that are missing before each sample.
        steady : array of bool, shape (n_times,)
            False where the samples come at another rate.
        """
        before = times[0] - 1 / self.sfreq if self.last is None else self.last
        steps = np.diff(times, prepend=before) * self.sfreq
        odd = np.abs(steps - 1) > _ODD
        missing = np.where(odd, np.maximum(np.rint(steps).astype(int) - 1, 0), 0)
        steady = ~self._in_long_runs(odd) & ~self._has_drifted(steps, odd)
        index = self.index + np.cumsum(1 + missing)
        self.last, self.index = times[-1], index[-1]
        return index, missing, steady

    def _in_long_runs(self, odd):
        """Say which steps belong to a long run of odd ones."""
        bounds = np.flatnonzero(np.diff(odd, prepend=False, append=False))
        long = np.zeros(len(odd), bool)
        for start, stop in bounds.reshape(-1, 2):
            carried = self._n_odd if start == 0 else 0
            long[start:stop] = carried + stop - start >= _N_ODD
        if odd.all():
            self._n_odd += len(odd)
        else:
            self._n_odd = int(np.argmin(odd[::-1]))
        return long

    def _has_drifted(self, steps, odd):
        """Say where the mean of the latest steps differs from one, odd ones aside."""
        known = len(self._steps)
        all_steps = np.concatenate([self._steps, steps[~odd]])
        total = np.concatenate([[0.0], np.cumsum(all_steps)])
        mean = np.ones(len(all_steps))
        mean[_N_MEAN - 1 :] = (total[_N_MEAN:] - total[:-_N_MEAN]) / _N_MEAN
        self._steps = all_steps[-_N_MEAN:]
        drifted = np.zeros(len(steps), bool)
        drifted[~odd] = np.abs(mean[known:] - 1) > _RATE
        return drifted


def _describe(kind, times, text):
    start, stop, n = float(times.min()), float(times.max()), len(times)
    return StreamEvent(kind, start, stop, n, text.format(n=n, start=start, stop=stop))

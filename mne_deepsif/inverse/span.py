"""A span of data that grows, and the estimate of it (arrays only).

The windows are those of :mod:`.windows`, so the estimate is that of the whole span.
What has been found for a window is kept as long as windows beside it need it.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import copy
from collections import Counter
from typing import NamedTuple

import numpy as np
import torch

from ..network.device import one_thread
from .band import independent_rate
from .model import (
    _SEEN,
    _SHORT,
    PreparedPrior,
    _common_scale,
    weighted_mean,
)
from .windows import covering, cut, n_settled, overlap_add, reach, window_starts

_GROUP = 32  # windows estimated together
_FIELDS = ("values", "vectors", "level")  # of a Spectrum, a row for each prior


class Span:
    """Data without a gap, of which more and more are known.

    Parameters
    ----------
    prepared : PreparedModel
        Estimates the data.
    sfreq : float
        Sampling rate of the data (Hz).
    mixing : sparse array of shape (n_rows, n_patterns) | None
        Sums of the activity to return.
    band : float | None
        Highest frequency in the data (Hz); None is half of the sampling rate.
    decim : int
        Keep every ``decim``-th sample of the estimate.
    skip : int
        The first sample to keep.
    """

    def __init__(self, prepared, sfreq, mixing=None, *, band=None, decim=1, skip=0):
        self.n_total = 0
        self.n_done = 0  # samples whose estimate was returned for good
        self._decim, self._skip = decim, skip
        self._window = prepared.window(sfreq)
        remembers = isinstance(prepared, PreparedPrior)
        kind = _Remembered if remembers else _Recomputed
        self._estimator = kind(prepared, sfreq, mixing, band)
        self._pieces, self._first = [], 0  # data from this sample on

    def append(self, data):
        """Add data of shape (n_channels, n_times), as the prepared model reads them."""
        self._pieces.append(data)
        self.n_total += data.shape[1]

    def settle(self):
        """Return estimates that more data cannot change, each only once.

        Returns
        -------
        sources : list of array of shape (n_rows, n_kept)
            The estimate of more samples, from ``n_done`` on, piece by piece.
        """
        end = n_settled(self.n_total, self._window)
        most = _GROUP * max(1, self._window // 2)
        before, after = reach(self._window)
        sources = []
        while self.n_done < end:
            stop = min(end, self.n_done + most)
            sources += self._estimate(stop, stop + after)
            self.n_done = stop
            self._forget(max(0, stop - before))
        return sources

    def preview(self):
        """Return the estimate from ``n_done`` on as if no data were to follow.

        Returns
        -------
        sources : list of array of shape (n_rows, n_kept)
            The estimate; an empty list if there is none.
        """
        sources = self._estimate(self.n_total, self.n_total)
        self._estimator.forget(self._first)
        return sources

    def kept(self, start, n_times):
        """Return which of some samples estimates have: a slice of n_times samples.

        Parameters
        ----------
        start : int
            The first one's place in the span.
        n_times : int
            Their number.
        """
        return slice((self._skip - start) % self._decim, n_times, self._decim)

    def _estimate(self, stop, last):
        """Estimate samples from n_done to stop with the data before last."""
        kept = self.kept(self.n_done, stop - self.n_done)
        if kept.start >= kept.stop:
            return []
        data = self._gather()
        first = max(0, self.n_done - reach(self._window)[0])
        offset = self.n_done - first
        keep = slice(offset + kept.start, offset + kept.stop, kept.step)
        data = data[:, first - self._first : last - self._first]
        with one_thread():
            return [self._estimator.estimate(data, first, keep)]

    def _gather(self):
        if len(self._pieces) > 1:
            self._pieces = [np.concatenate(self._pieces, axis=1)]
        return self._pieces[0]

    def _forget(self, first):
        """Keep only the data and windows from a sample on."""
        if first > self._first:
            data = self._gather()[:, first - self._first :]
            self._pieces, self._first = [data.copy()], first
        self._estimator.forget(first)


class _Recomputed:
    """Estimates each part anew: right for any model."""

    def __init__(self, prepared, sfreq, mixing, band):
        self.prepared, self.sfreq = prepared, sfreq
        self.options = dict(mixing=mixing, band=band)

    def estimate(self, data, first, keep):
        """Estimate a part of the span, which starts at its sample ``first``."""
        return self.prepared.estimate(data, self.sfreq, keep=keep, **self.options)

    def forget(self, first):
        """Forget what lies before a sample."""


class _Remembered(_Recomputed):
    """Estimates each window once.

    Short windows are named by their starts in the span, and those that the network sees
    by length and start. Nothing is kept that the next part does not use.
    """

    def __init__(self, prepared, sfreq, mixing, band):
        super().__init__(prepared, sfreq, mixing, band)
        self.rate = independent_rate(sfreq, band)
        self.length = prepared.window(sfreq)
        self.short = self.length // _SHORT
        self.sums = prepared._make_sums(mixing)
        prepared.prior.expect_few_windows()
        self.priors = {}  # of a window that the network sees: kernel and spectrum
        self.judged = {}  # of a short one: its scale, and what few sources make of it
        self.explained = {}  # of it and one around it: cost, sources, predicted
        self.estimates = {}  # of a short one and all around it: sources, powers

    def estimate(self, data, first, keep):
        """Estimate a part of the span, which starts at its sample ``first``."""
        if data.shape[1] < self.length:  # mirrored at both ends, so its windows change
            return super().estimate(data, first, keep)
        hop = self.length // 2
        short = window_starts(data.shape[1], self.short)
        # those that share a long window with one to keep
        begin, end = hop if first else 0, keep.stop + hop
        short = [start for start in short if begin <= start < end]
        seen, around = self._around(data.shape[1], short)
        names = [
            (first + start, *((seen[i][0], first + seen[i][1]) for i in row))
            for start, row in zip(short, around, strict=True)
        ]
        with torch.inference_mode():
            self._find_priors(data, first, [seen[i] for i in np.unique(around)])
            self._judge(data, first, short)
            self._combine(names)
            return self._blend(data.shape[1], short, around, names, keep)

    def _around(self, n_total, short):
        """Find the windows that the network sees, and which of them are around others.

        Return pairs of length and start, and indices (n_short, 2 * n_lengths).
        """
        seen, around = [], []
        for part in _SEEN:
            length = self.length // part
            starts = window_starts(n_total, length)
            around.append(len(seen) + covering(short, starts, self.short, length))
            seen += [(length, start) for start in starts]
        return seen, np.concatenate(around, axis=1)

    def forget(self, first):
        """Forget windows that begin before a sample, and those at the end of the data.

        The latter begin where no other window does.
        """
        self.priors = {
            (length, start): prior
            for (length, start), prior in self.priors.items()
            if start >= first and start % (length // 2) == 0
        }
        self.judged = {
            start: judged
            for start, judged in self.judged.items()
            if start >= first and start % (self.short // 2) == 0
        }
        self.explained = {
            pair: explained
            for pair, explained in self.explained.items()
            if pair[0] in self.judged and pair[1] in self.priors
        }
        self.estimates = {
            name: estimate
            for name, estimate in self.estimates.items()
            if name[0] in self.judged and {*name[1:]} <= self.priors.keys()
        }

    def _find_priors(self, data, first, seen):
        """Find the priors of the windows that are new."""
        new = [one for one in seen if (one[0], first + one[1]) not in self.priors]
        if not new:
            return
        windows = []
        for part in _SEEN:
            length = self.length // part
            starts = [start for n, start in new if n == length]
            windows.append(self._cut(data, starts, length, part)[0])
        variances = self.prepared._find_priors(windows)
        spectra = _split(self.prepared._spectrum(variances))
        kernels = self.sums.kernels(variances)
        for (length, start), *prior in zip(new, kernels, spectra, strict=True):
            self.priors[length, first + start] = prior

    def _judge(self, data, first, short):
        """Explain the short windows that are new by one source, and by two."""
        new = [start for start in short if first + start not in self.judged]
        if not new:
            return
        windows, scales = self._cut(data, new, self.short, _SHORT)
        judged = self.prepared._judge(windows, self.rate)
        few = judged.cost.isfinite()  # two sources are often out of the question
        found = self.sums.of_patches(judged.which[few], judged.amplitudes[few])
        sources = found.new_zeros(*few.shape, *found.shape[1:])
        sources[few] = found
        kept = judged.modes, judged.rest, judged.cost, sources, judged.predicted
        for start, scale, *row in zip(new, scales, *map(_rows, kept), strict=True):
            self.judged[first + start] = scale.item(), _Window(*row)

    def _cut(self, data, starts, length, part):
        """Return windows, which may be none, and their scales."""
        n_times = max(1, self.prepared.model.n_times // part)
        windows = np.zeros((0, len(data), n_times))
        if starts:
            windows = cut(data, length, n_times, starts)
        return self.prepared._scale(windows)

    def _combine(self, names):
        """Estimate the windows that have others around them than before."""
        names = [name for name in names if name not in self.estimates]
        if not names:
            return
        self._explain(names)
        own = [self.judged[name[0]][1] for name in names]
        found = [
            row
            for name, window in zip(names, own, strict=True)
            for row in (
                (window.cost[0], window.sources[0], window.predicted[0]),
                *(self.explained[name[0], one] for one in name[1:]),
            )
        ]
        cost, sources, predicted = (
            torch.cat(part).unflatten(0, (len(names), -1))
            for part in zip(*found, strict=True)
        )
        modes = torch.cat([window.modes for window in own])
        rest = torch.cat([window.rest for window in own])
        shares = self.prepared._shares(cost, modes, self.rate)
        sources = weighted_mean(sources, shares)
        _, *powers = self.prepared._fit(modes, rest, predicted, shares)
        for name, one, *power in zip(names, sources, *powers, strict=True):
            self.estimates[name] = one, *power

    def _explain(self, names):
        """Explain windows by those around them that are new."""
        pairs = {(one, name[0]) for name in names for one in name[1:]}
        pairs = sorted(pair for pair in pairs if pair[::-1] not in self.explained)
        if not pairs:
            return
        used = sorted({one for one, _ in pairs})
        counts = Counter(one for one, _ in pairs)
        kernels, spectra = zip(*(self.priors[one] for one in used), strict=True)
        device = kernels[0].device
        which = torch.arange(len(used), device=device).repeat_interleave(
            torch.tensor([counts[one] for one in used], device=device)
        )
        windows = [self.judged[start][1] for _, start in pairs]
        cost, weights, predicted = _join(spectra).explain(
            torch.cat([window.modes for window in windows]),
            torch.cat([window.rest for window in windows]),
            which,
        )
        parts = weights.split([counts[one] for one in used])
        sources = torch.cat(
            [
                (part.mT.flatten(0, 1) @ kernel.T).unflatten(0, (len(part), -1))
                for part, kernel in zip(parts, kernels, strict=True)
            ]
        )
        rows = zip(*map(_rows, (cost, sources, predicted)), strict=True)
        for (one, start), row in zip(pairs, rows, strict=True):
            self.explained[start, one] = row

    def _blend(self, n_total, short, around, names, keep):
        """Scale the windows, and blend those that hold samples to keep."""
        device = self.prepared.gain.device
        scale = np.array([self.judged[name[0]][0] for name in names])
        scale = torch.as_tensor(scale, device=device)
        _, *powers = zip(*(self.estimates[name] for name in names), strict=True)
        powers = (scale**2 * torch.stack(power) for power in powers)
        around = torch.as_tensor(around[:, :2], device=device)
        factor = (_common_scale(*powers, around) * scale / self.prepared.unit).float()
        seen = [
            i
            for i, start in enumerate(short)
            if start < keep.stop and start + self.short > keep.start
        ]
        sources = torch.stack([self.estimates[names[i]][0] for i in seen])
        sources *= factor[seen, None, None]
        sources = sources.mT.cpu().numpy()
        starts = [short[i] for i in seen]
        return overlap_add(sources, self.short, n_total, keep, starts)


class _Window(NamedTuple):
    """A short window, and what one source and two make of it.

    Attributes
    ----------
    modes, rest, cost, predicted : tensor
        As in :class:`Judged`, of one window.
    sources : tensor of shape (1, 2, n_times, n_rows)
        The sums of activity.
    """

    modes: torch.Tensor
    rest: torch.Tensor
    cost: torch.Tensor
    sources: torch.Tensor
    predicted: torch.Tensor


def _rows(values):
    """Split along the first axis; none gives none, unlike torch's own split."""
    return [values[i : i + 1] for i in range(len(values))]


def _split(spectrum):
    """Return one spectrum for each prior."""
    fields = (_rows(getattr(spectrum, name)) for name in _FIELDS)
    return [_with_fields(spectrum, row) for row in zip(*fields, strict=True)]


def _join(spectra):
    """Undo :func:`_split`."""
    rows = ([getattr(one, name) for one in spectra] for name in _FIELDS)
    return _with_fields(spectra[0], map(torch.cat, rows))


def _with_fields(spectrum, values):
    spectrum = copy.copy(spectrum)
    vars(spectrum).update(zip(_FIELDS, values, strict=True))
    return spectrum

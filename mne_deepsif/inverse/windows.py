"""Sampling rates and windows: cutting, resampling, overlap-add (NumPy only).

Windows have the sampling rate of the data. Each is resampled to the network's rate and
back on its own. So data outside a window do not matter to it, and a recording can be
cut into chunks without seams.
"""

from functools import lru_cache
from itertools import pairwise

import numpy as np
import scipy.signal


def window_length(n_times, sfreq_network, sfreq):
    """Return how many samples at sfreq a window of n_times network samples has."""
    return max(1, round(n_times * sfreq / sfreq_network))


def window_hop(n_times, sfreq_network, sfreq):
    """Return a sixteenth of a window of n_times network samples, at least one."""
    return max(1, round(n_times * sfreq / sfreq_network / 16))


def resample(data, n_times):
    """Resample (..., n) to (..., n_times); the first samples coincide.

    The data and their mirror image form one period, with a whole number of samples at
    both rates. The padding of :func:`mne.filter.resample` does not ensure this: it
    shifts the output by up to half a sample.
    """
    n_given = data.shape[-1]
    if n_given == n_times:
        return data
    if not _has_small_matrix(n_given, n_times):
        return _mirror_and_resample(data, n_times)
    return data @ _resampler(n_given, n_times)


_LONGEST = 1024  # samples; making the matrix for so many takes 50 MB
_LARGEST = 2**18  # numbers; several matrices of 2 MB are kept


def _has_small_matrix(n_given, n_times):
    return n_given <= _LONGEST and n_given * n_times <= _LARGEST


@lru_cache(maxsize=8)
def _resampler(n_given, n_times):
    """Make the matrix (n_given, n_times) of :func:`resample`, which is linear."""
    return _mirror_and_resample(np.eye(n_given), n_times)


def _mirror_and_resample(data, n_times):
    period = np.concatenate([data, data[..., ::-1]], axis=-1)
    return scipy.signal.resample(period, 2 * n_times, axis=-1)[..., :n_times]


def pad(data, n_times):
    """Mirror the ends of data shorter than a window."""
    missing = max(0, n_times - data.shape[-1])
    widths = [(0, 0)] * (data.ndim - 1) + [(missing // 2, missing - missing // 2)]
    return np.pad(data, widths, "symmetric")


def window_starts(n_total, n_times):
    """Return starts of windows that overlap by half and cover everything."""
    starts = list(range(0, n_total - n_times + 1, max(1, n_times // 2)))
    if starts[-1] != n_total - n_times:
        starts.append(n_total - n_times)
    return starts


def covering(short, long, n_short, n_long):
    """Find the long windows that hold each short window.

    Parameters
    ----------
    short, long : list of int
        Starts of the windows, see :func:`window_starts`.
    n_short, n_long : int
        Lengths of the windows.

    Returns
    -------
    which : array of int, shape (n_windows, 2)
        Of each short window, the first and the last long window that hold it.
    """
    short = np.asarray(short)
    first = np.searchsorted(long, short + n_short - n_long)
    last = np.searchsorted(long, short, "right") - 1
    return np.stack([first, last], axis=1)


def cut(data, n_times, n_resampled, starts=None):
    """Cut (..., n_rows, n_total) into windows (..., n_windows, n_rows, n_resampled).

    Without starts, they are those of :func:`window_starts`.
    """
    if starts is None:
        starts = window_starts(data.shape[-1], n_times)
    windows = [data[..., start : start + n_times] for start in starts]
    return resample(np.stack(windows, axis=-3), n_resampled)


def overlap_add(windows, n_times, n_total, keep=slice(None), starts=None):
    """Undo :func:`cut`: blend the windows under sine tapers.

    Parameters
    ----------
    windows : array of shape (..., n_windows, n_rows, n_resampled)
        The windows, in the order of :func:`window_starts`.
    n_times : int
        Length of a window before resampling.
    n_total : int
        Length of the data.
    keep : slice
        The samples of the data to return, with a positive step. The windows must cover
        them.
    starts : list of int | None
        Where the windows start. None stands for :func:`window_starts`.

    Returns
    -------
    total : array of shape (..., n_rows, n_kept)
        Weighted mean of the windows that overlap.
    """
    taper = np.sin(np.pi * (np.arange(n_times) + 0.5) / n_times) ** 2
    blend = _make_blend(windows.shape[-1], taper, windows.dtype)
    first, stop, step = keep.indices(n_total)
    n_kept = len(range(first, stop, step))
    if starts is None:
        starts = window_starts(n_total, n_times)
    n_run, n_resampled = 0, windows.shape[-1]
    at_once = n_resampled < n_times and _has_small_matrix(n_resampled, n_times)
    halves = step == 1 and n_times % 2 == 0 and not (first - starts[0]) % (n_times // 2)
    if at_once and halves:
        n_run = _count_regular(starts, n_times // 2)
    run = windows[..., :n_run, :, :]
    total, weight = _add_run(run, blend, taper, first - starts[0], n_kept)
    for index, start in list(enumerate(starts))[n_run:]:
        # the samples to keep from the first one of the window on
        begin, end = (
            min(n_kept, max(0, -(-(bound - first) // step)))
            for bound in (start, start + n_times)
        )
        if begin < end:
            columns = first + step * np.arange(begin, end) - start
            total[..., begin:end] += blend(windows[..., index, :, :], columns)
            weight[begin:end] += taper[columns]
    uneven = np.abs(weight - 1) > 1e-9
    total[..., uneven] /= weight[uneven].astype(total.dtype)
    return total


def _count_regular(starts, hop):
    """Count the first windows that follow each other by a hop."""
    irregular = starts != starts[0] + hop * np.arange(len(starts))
    return int(irregular.argmax()) if irregular.any() else len(starts)


def _add_run(windows, blend, taper, offset, n_kept):
    """Blend windows that follow each other by half, all at once; they may be none.

    Each half of a window holds two windows: the end of one and the beginning of the
    next.

    Parameters
    ----------
    windows : array of shape (..., n_windows, n_rows, n_resampled)
        The windows.
    blend : callable
        See :func:`_make_blend`.
    taper : array of shape (n_times,)
        The taper of each window.
    offset : int
        The first sample to keep, from the first window on: a whole number of halves.
    n_kept : int
        How many samples to keep.

    Returns
    -------
    total : array of shape (..., n_rows, n_kept)
        Sum of the windows under their tapers.
    weight : array of shape (n_kept,)
        Sum of the tapers.
    """
    *shape, n_windows, n_rows, n_resampled = windows.shape
    if not n_windows:
        return np.zeros((*shape, n_rows, n_kept), windows.dtype), np.zeros(n_kept)
    hop = len(taper) // 2
    begin, end = offset // hop, -((-offset - n_kept) // hop)
    rows = np.zeros((*shape, n_rows, end + 1, n_resampled), windows.dtype)
    used = min(n_windows, end)
    rows[..., 1 : used + 1, :] = windows[..., :used, :, :].swapaxes(-3, -2)
    pairs = rows[..., begin:end, :], rows[..., begin + 1 :, :]
    unit = np.eye(n_resampled, dtype=windows.dtype)
    halves = blend(unit, np.arange(hop, 2 * hop)), blend(unit, np.arange(hop))
    total = np.concatenate(pairs, -1).reshape(-1, 2 * n_resampled)
    total = total @ np.concatenate(halves)
    total = total.reshape(*shape, n_rows, -1)[..., :n_kept]
    place = np.arange(begin, end)[:, np.newaxis]
    weight = np.where((place > 0) & (place <= n_windows), taper[hop:], 0.0)
    weight += np.where(place < n_windows, taper[:hop], 0.0)
    return total, weight.ravel()[:n_kept]


def _make_blend(n_resampled, taper, dtype):
    """Return what resamples a window, tapers it and takes some of its columns."""
    n_times = len(taper)
    if n_resampled == n_times or not _has_small_matrix(n_resampled, n_times):
        taper = taper.astype(dtype)
        return lambda x, columns: resample(x, n_times)[..., columns] * taper[columns]
    weighted = resample(np.eye(n_resampled), n_times) * taper
    weighted = weighted.astype(dtype)
    return lambda x, columns: x @ weighted[:, columns]


def chunks(n_total, n_times, n_windows=32):
    """Cut a long recording so that the estimates of the chunks join without a seam.

    Parameters
    ----------
    n_total : int
        Length of the recording.
    n_times : int
        Length of a window.
    n_windows : int
        Windows per chunk, not counting those that reach into the next.

    Yields
    ------
    first, last : int
        The samples to estimate together, as in a slice.
    start, stop : int
        The samples of these to keep. Their windows are those of the whole recording.
    """
    hop = max(1, n_times // 2)
    before, after = reach(n_times)
    # what the last window changes must lie within the last chunk
    bounds = [*range(0, n_settled(n_total, n_times) + 1, n_windows * hop), n_total]
    for start, stop in pairwise(bounds):
        yield max(0, start - before), min(stop + after, n_total), start, stop


def reach(n_times):
    """Return how many samples before and after a sample matter to its estimate.

    A window knows of those that it overlaps, and they of theirs. Before, these are
    whole hops, so that the windows start where they did.
    """
    hop = max(1, n_times // 2)
    overlap = n_times - hop
    return -(-overlap // hop) * hop + hop, overlap + hop


def n_settled(n_total, n_times):
    """Return how many of the first samples have an estimate that more data leave alone.

    However long the recording becomes. Its last windows end where it ends. The others
    that they overlap have their scales from them, too.
    """
    hop = max(1, n_times // 2)
    return max(0, n_total - n_times - hop) // hop * hop


def constant_power(data, n_times):
    """Compute the power of windows and of their means.

    Parameters
    ----------
    data : array of shape (..., n_channels, n_times)
        Whitened data.
    n_times : int
        Length of a window.

    Returns
    -------
    windows, means : float
        Power of all windows, and of their means in time.
    """
    windows = means = 0.0
    for start in window_starts(max(data.shape[-1], n_times), n_times):
        window = data[..., start : start + n_times]
        windows += np.sum(np.square(window))
        means += window.shape[-1] * np.sum(np.square(window.mean(-1)))
    return windows, means

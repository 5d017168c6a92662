"""Windows: chunks that cover a recording, and sums of powers."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mne_deepsif.inverse.windows import (
    chunks,
    constant_power,
    covering,
    cut,
    overlap_add,
    resample,
    window_hop,
    window_length,
    window_starts,
)


@pytest.mark.parametrize("n_times", (1, 2, 7, 64))
@pytest.mark.parametrize("n_total", (1, 5, 64, 127, 128, 129, 700, 1003))
def test_chunks(n_times, n_total):
    """What is kept covers all once; its windows are those of the whole."""
    pieces = list(chunks(n_total, n_times, n_windows=3))
    kept = [sample for _, _, a, b in pieces for sample in range(a, b)]
    assert kept == list(range(n_total))
    if n_total < n_times:
        assert pieces == [(0, n_total, 0, n_total)]
        return
    whole = set(window_starts(n_total, n_times))
    for first, last, start, stop in pieces:
        starts = {first + s for s in window_starts(last - first, n_times)}
        assert starts <= whole
        reach = {s for s in whole if s < stop and s + n_times > start}
        assert reach <= starts


@pytest.mark.parametrize("shape", ((3, 130), (2, 3, 130), (2, 1, 64)))
def test_cut_and_overlap_add(shape):
    """Cutting and blending is the identity; more samples are batched."""
    data = np.random.default_rng(0).standard_normal(shape)
    windows = cut(data, 64, 64)
    assert windows.shape[:-3] == shape[:-2]
    assert windows.shape[-2:] == (shape[-2], 64)
    assert_allclose(overlap_add(windows, 64, shape[-1]), data, atol=1e-12)
    for keep in (slice(3, 60, 7), slice(40, None, 50), slice(5, 5)):
        kept = overlap_add(windows, 64, shape[-1], keep)
        assert_allclose(kept, data[..., keep], atol=1e-12)


@pytest.mark.parametrize("sizes", ((512, 64), (64, 512), (77, 64), (2100, 64)))
def test_resample(sizes):
    """By a matrix, or directly if that would be large: smooth data stay the same."""
    n_given, n_times = sizes
    given, expected = (
        [np.cos(np.pi * k * (np.arange(n) + 0.5 * n / n_given) / n) for k in (0, 3, 9)]
        for n in sizes
    )
    assert_allclose(resample(np.array(given), n_times), expected, atol=1e-12)
    other = resample(np.array([given, given]), n_times)
    assert_allclose(other, [expected, expected], atol=1e-12)


@pytest.mark.parametrize("sfreq, n_times", ((125, 64), (1000, 512), (20, 10), (0.1, 1)))
def test_window_length(sfreq, n_times):
    assert window_length(64, 125.0, sfreq) == n_times


def test_constant_power():
    """A constant is all in the means; what has none in a window is not."""
    constant = np.full((2, 256), 3.0)
    windows, means = constant_power(constant, 64)
    assert_allclose(means, windows)
    wave = np.sin(2 * np.pi * np.arange(256) / 32)[np.newaxis]
    windows, means = constant_power(wave, 64)
    assert windows > 0 and means < 1e-20 * windows
    windows, both = constant_power(np.stack([constant, constant]), 64)
    assert_allclose(both, windows)
    assert constant_power(np.ones((1, 10)), 64) == (10.0, 10.0)


@pytest.mark.parametrize("n_total", (64, 65, 100, 128, 333))
def test_covering(n_total):
    """Each short window lies in both of its long ones: the first and the last."""
    which = covering(*(window_starts(n_total, n) for n in (16, 64)), 16, 64)
    long = np.array(window_starts(n_total, 64))
    for start, (first, last) in zip(window_starts(n_total, 16), which, strict=True):
        holds = np.flatnonzero((long <= start) & (start + 16 <= long + 64))
        assert (first, last) == (holds[0], holds[-1])


def test_window_hop():
    """A sixteenth of a window at the data's rate, but at least a sample."""
    hops = [window_hop(64, 125.0, sfreq) for sfreq in (125, 250, 256, 1, 1000)]
    assert hops == [4, 8, 8, 1, 32]


@pytest.mark.parametrize("n_resampled", (9999, 10_000))
def test_long_windows_need_little_memory(n_resampled):
    """Not the square of their length, whether they are resampled or not."""
    times = np.arange(10_000)
    data = np.cos(np.pi * np.array([[0], [3], [9]]) * (times + 0.5) / 10_000)
    windows = cut(data, 10_000, n_resampled)
    tracemalloc.start()
    blended = overlap_add(windows, 10_000, 10_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6
    assert_allclose(blended, data, atol=2e-3)


@pytest.mark.parametrize("n_total", (64, 96, 130, 320, 333))
@pytest.mark.parametrize("n_resampled", (8, 64))
@pytest.mark.parametrize("keep", (slice(None), slice(32, 70), slice(64, 90, 3)))
def test_windows_at_once(n_total, n_resampled, keep):
    """Those that follow each other by half are blended as others are, one by one."""
    rng, starts = np.random.default_rng(2), window_starts(n_total, 64)
    windows = rng.standard_normal((2, len(starts), 3, n_resampled))
    taper = np.sin(np.pi * (np.arange(64) + 0.5) / 64) ** 2
    total, weight = np.zeros((2, 3, n_total)), np.zeros(n_total)
    for index, start in enumerate(starts):
        total[..., start : start + 64] += taper * resample(windows[:, index], 64)
        weight[start : start + 64] += taper
    expected = (total / weight)[..., keep]
    assert_allclose(overlap_add(windows, 64, n_total, keep), expected, atol=1e-12)
    # the first windows may be left out, if no sample to keep is in them
    if keep.start == 64 and n_total > 128:
        some = windows[:, 1:], 64, n_total, keep, starts[1:]
        assert_allclose(overlap_add(*some), expected, atol=1e-12)

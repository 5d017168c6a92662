"""Times of samples: nothing is lost, moved or sped up in silence."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from mne_deepsif import StreamEvent
from mne_deepsif.inverse.clock import Clock


def advance(times, bounds=(), sfreq=1000.0):
    """Give times to a clock, cut at some bounds."""
    clock = Clock(sfreq)
    found = [clock.advance(part) for part in np.split(times, bounds) if len(part)]
    return [np.concatenate(part) for part in zip(*found, strict=True)]


@given(st.lists(st.integers(0, 300)), st.sampled_from([0.0, 1.7e9]))
@settings(max_examples=50, deadline=None)
def test_gaps_in_any_pieces(bounds, start):
    """Counted and placed on the grid, however the samples arrive, by any clock."""
    places = np.delete(np.arange(300), [*range(100, 107), 250])
    index, missing, steady = advance(start + places / 1000, sorted(bounds))
    assert_array_equal(index, places)
    assert_array_equal(np.flatnonzero(missing), [100, 243])
    assert_array_equal(missing[[100, 243]], [7, 1])
    assert steady.all()


def test_jitter_is_no_gap():
    """Nor another rate: times may be off by a quarter of a sample."""
    rng = np.random.default_rng(0)
    times = (np.arange(2000) + rng.uniform(-0.24, 0.24, 2000)) / 1000
    index, missing, steady = advance(times, [13, 500])
    assert_array_equal(index, np.arange(2000))
    assert not missing.any() and steady.all()


def test_a_slow_clock_does_not_add_up():
    """A day at 999.9 Hz loses no sample against the grid, and makes none."""
    index, missing, steady = advance(np.arange(200_000) / 999.9, [77_777])
    assert index[-1] == 199_999 and not missing.any() and steady.all()


@pytest.mark.parametrize("size", (1, 10, 5000))
@pytest.mark.parametrize("rate", (250.0, 500.0, 980.0, 1024.0, 1900.0, 4000.0))
def test_another_rate(rate, size):
    """Found after 64 samples at most, and left when it is over."""
    parts = np.full(500, 1e-3), np.full(500, 1 / rate), np.full(500, 1e-3)
    times = np.cumsum(np.concatenate(parts))
    steady = advance(times, range(size, len(times), size))[2]
    assert steady[:500].all()
    assert not steady[564:1000].any()
    assert steady[1064:].all()
    if size == 5000 and abs(1000 / rate - 1) > 0.5:  # known beforehand
        assert not steady[500:1000].any() and steady[1000:].all()


def test_a_few_short_steps_are_no_rate():
    """Seven samples twice as fast are not."""
    times = np.cumsum(np.r_[np.full(50, 1e-3), np.full(7, 0.4e-3), np.full(50, 1e-3)])
    assert advance(times)[2].all()


def test_order_and_late_samples():
    """A piece is sorted; what is not after all before is left out, and told."""
    clock = Clock(1000.0)
    order, events = clock.sort(np.array([0.001, 0.0, 0.002, 0.002]))
    assert_array_equal(order, [1, 0, 2])
    assert [event.kind for event in events] == ["order", "late"]
    assert (events[0].start, events[0].stop, events[0].n_samples) == (0.0, 0.001, 2)
    assert (events[1].start, events[1].stop, events[1].n_samples) == (0.002, 0.002, 1)
    clock.advance(np.array([0.0, 0.001, 0.002]))
    order, events = clock.sort(np.array([0.001, 0.002, 0.003]))
    assert_array_equal(order, [2])
    assert [(event.kind, event.n_samples) for event in events] == [("late", 2)]
    assert clock.sort(np.array([0.003, 0.004]))[1] == []


def test_samples_without_times():
    """They follow one another."""
    clock = Clock(500.0)
    assert_allclose(clock.count(3), [0, 0.002, 0.004])
    clock.advance(np.array([7.0, 7.002]))
    assert_allclose(clock.count(2), [7.004, 7.006])


def test_event_is_a_sentence():
    assert str(StreamEvent("gap", 0.0, 1.0, 999, "Something.")) == "Something."

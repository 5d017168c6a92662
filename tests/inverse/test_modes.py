"""The modes of a leadfield: against data of known ratio and known spectrum."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mne_deepsif.inverse.modes import (
    brain_share,
    fit_ratio,
    leadfield_modes,
    power_above,
)


@pytest.fixture
def gain():
    """Give a leadfield of 20 channels whose modes differ a lot."""
    rng = np.random.default_rng(0)
    return np.logspace(0, -3, 20)[:, np.newaxis] * rng.standard_normal((20, 100))


def test_modes_are_those_of_the_gain(gain):
    values, vectors = leadfield_modes(gain)
    assert values.mean() == pytest.approx(1) and np.all(np.diff(values) >= 0)
    power = np.square(vectors.T @ gain).sum(1)
    assert_allclose(power / power.mean(), values, atol=1e-12)
    assert_allclose(vectors.T @ vectors, np.eye(20), atol=1e-12)


@pytest.mark.parametrize("ratio", (0.1, 1.0, 30.0, 1000.0))
def test_ratio(gain, ratio):
    """Brain of this power, over noise of power 1: found, whatever the unit."""
    values, _ = leadfield_modes(gain)
    for unit in (1e-6, 1.0):
        found = fit_ratio(unit * (ratio * values + 1), values)
        assert found == pytest.approx(ratio, rel=0.15)  # the step of the grid is 1.26


@pytest.mark.parametrize("unit", (5e-324, 1e300))
def test_powers_at_the_end_of_the_numbers(gain, unit):
    """Noise stays noise, without a warning of NumPy."""
    values, _ = leadfield_modes(gain)
    assert fit_ratio(np.full(20, unit), values) == 0.01
    assert brain_share(np.full((2, 20), unit), values) == 0


def test_power_above(gain):
    """Two rhythms of one pattern, at 20 and at 80 Hz."""
    _, vectors = leadfield_modes(gain)
    times = np.arange(1000) / 500
    course = 3 * np.cos(2 * np.pi * 20 * times) + np.cos(2 * np.pi * 80 * times)
    data = vectors[:, [4]] * course
    power = power_above(np.stack([data, data]), 62.5, 500.0, vectors)
    assert_allclose(np.delete(power, 4, 1), 0, atol=1e-9)
    assert power[0, 4] == pytest.approx(2 * np.sum(course**2))
    assert power[1, 4] / power[0, 4] == pytest.approx(0.1, rel=0.02)
    step = power_above(vectors[:, [4]] * times, 62.5, 500.0, vectors)
    assert step[1, 4] < 1e-4 * step[0, 4]  # the ends of a slope are no fast activity


def test_brain_share(gain):
    """Noise does not count, above a frequency or in all."""
    values, _ = leadfield_modes(gain)
    brain, noise = 100 * values, np.ones(20)
    assert brain_share(np.array([brain + noise, noise]), values) == 0
    assert brain_share(np.array([brain + noise, 0 * noise]), values) == 0
    share = brain_share(np.array([2 * brain + noise, brain + noise]), values)
    assert share == pytest.approx(0.5, abs=0.05)

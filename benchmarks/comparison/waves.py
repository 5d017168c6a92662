"""Waveforms of sources: Gaussians, spikes of neural masses, and rhythmic bursts."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from functools import lru_cache

import numpy as np

from mne_deepsif.simulation.waveforms import change_rate, make_bursts

from .heads import SFREQ, brain_library
from .subjects import LIBRARY_SEED

N_TIMES = 75  # of a sample
BURST_SEED = 9001


def gaussian(rng, peak=None):
    """Draw a Gaussian with an undershoot of up to 0.6, 1 or -1 at its peak.

    Where no time of the peak (s) is given, time and width are drawn.
    """
    width = rng.uniform(0.012, 0.035) if peak is None else 0.01
    peak = rng.uniform(0.15, 0.45) if peak is None else peak
    times = (np.arange(N_TIMES) / SFREQ - peak) / width
    wave = np.exp(-(times**2) / 2)
    wave -= rng.uniform(0, 0.6) * np.exp(-(((times - 2.3) / 1.4) ** 2) / 2)
    return rng.choice([-1, 1]) * wave / np.abs(wave).max()


def spike(rng, peak=None):
    """Draw a spike of a neural mass, as the papers' sources."""
    return _cut(spikes(), rng, peak)


def burst(rng, peak=None):
    """Draw a burst of a neural mass's rhythm."""
    return _cut(bursts(), rng, peak)


def _cut(windows, rng, peak):
    """Choose a window whose peak is in its middle, and move the peak."""
    peak = rng.uniform(0.15, 0.45) if peak is None else peak
    window = windows[rng.integers(len(windows))]
    padded = np.pad(window, N_TIMES)
    start = len(padded) // 2 - round(peak * SFREQ)
    wave = padded[start : start + N_TIMES]
    return rng.choice([-1, 1]) * wave / np.abs(wave).max()


@lru_cache(1)
def spikes():
    """Return held-out spikes at ``SFREQ``."""
    library = brain_library(120.0, LIBRARY_SEED)
    waveforms = np.asarray(library.waveforms, float)
    return change_rate(waveforms, SFREQ / library.sfreq)


@lru_cache(1)
def bursts():
    """Return held-out bursts at ``SFREQ``."""
    return change_rate(make_bursts(100, np.random.default_rng(BURST_SEED)), SFREQ / 500)


WAVES = {"gaussian": gaussian, "spikes": spike, "bursts": burst}

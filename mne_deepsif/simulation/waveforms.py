"""Source waveforms from the neural masses: spikes, evoked responses, bursts."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
from scipy.signal import find_peaks

from .jansen_rit import INPUT_SETTINGS, STANDARD_GAIN, simulate_jansen_rit

SFREQ = 500.0  # Hz, of the neural masses, as in the papers
STEP = 0.0005  # s, of their integration

SPIKE_GAINS = (3.5, 3.55, 3.6)  # mV: a seed emits spikes
SPIKE_THRESHOLD = 8.0  # mV
SPIKE_DISTANCE = 0.2  # s

HALF_LENGTH = 0.768  # s on either side of a waveform's peak
STRETCHES = (0.5, 0.7, 1.0, 1.4, 2.0)  # time scales of the waveforms
N_SEEDS = 16  # spiking seed parcels per network, mostly far apart
LONGEST = 60.0  # s, of a simulation of spikes
LEAST_RATE = 0.65  # spikes per second to count on; most seeds have more than one
_HALF = int(HALF_LENGTH * max(STRETCHES) * SFREQ)  # samples, before stretching
_LONE = 0.3  # s, on either side: where a lone spike's own slow waves may be high


def recipe():
    """List everything that the waveforms depend on, for the key of a library."""
    return dict(
        sfreq=SFREQ,
        step=STEP,
        inputs=INPUT_SETTINGS,
        standard_gain=STANDARD_GAIN,
        gains=SPIKE_GAINS,
        threshold=SPIKE_THRESHOLD,
        distance=SPIKE_DISTANCE,
        half_length=HALF_LENGTH,
        stretches=STRETCHES,
        n_seeds=N_SEEDS,
        longest=LONGEST,
        least_rate=LEAST_RATE,
    )


def make_spikes(connectome, n_waveforms, rng, *, n_networks=32, duration=None):
    """Simulate spikes (n_waveforms, n_times) at 500 Hz, with a peak of 1 in the middle.

    Several seed parcels share a network, because the neighbours of a seed hardly change
    its spikes. The baseline (the window's median) is subtracted. Networks are simulated
    in rounds of ``n_networks`` for ``duration`` seconds until there are enough spikes.
    None is as long as one round needs, but at most a minute.
    """
    if duration is None:
        n_seeds = n_networks * min(N_SEEDS, connectome.n_parcels)
        duration = n_waveforms / (LEAST_RATE * n_seeds) + 2 * _HALF / SFREQ
        duration = min(duration, LONGEST)
    windows, n_found = [], 0
    while n_found < n_waveforms:
        seeds, A = _draw_seeds(connectome, n_networks, rng)
        setting = rng.integers(len(INPUT_SETTINGS), size=n_networks)
        inputs = np.array(INPUT_SETTINGS)[setting]
        psp = simulate_jansen_rit(
            duration,
            connectome,
            n_networks=n_networks,
            A=A,
            mu=inputs[:, 0],
            noise_std=inputs[:, 1],
            picks=seeds,
            random_state=int(rng.integers(2**31)),
        )
        windows += [_spike_windows(trace) for trace in psp.reshape(-1, psp.shape[-1])]
        n_found = sum(map(len, windows))
    chosen = rng.permutation(n_found)[:n_waveforms]
    return np.concatenate(windows)[chosen]


def make_lone_spikes(connectome, n_spikes, rng):
    """Simulate spikes (n_spikes, n_times) at 500 Hz without other spikes close by."""
    found, n_found = [], 0
    while n_found < n_spikes:
        windows = make_spikes(connectome, 200, rng, n_networks=16, duration=5.0)
        aside = np.abs(windows)
        middle, half = aside.shape[1] // 2, int(_LONE * SFREQ)
        aside[:, middle - half : middle + half] = 0
        near = aside[:, middle - 2 * half : middle + 2 * half]
        found.append(windows[near.max(1) < 0.5])
        n_found += len(found[-1])
    return np.concatenate(found)[:n_spikes]


def _draw_seeds(connectome, n_networks, rng):
    """Return seeds (n_networks, n_seeds) and gains A (n_networks, n_parcels)."""
    n_parcels = connectome.n_parcels
    n_seeds = min(N_SEEDS, n_parcels)
    A = np.full((n_networks, n_parcels), STANDARD_GAIN)
    seeds = np.empty((n_networks, n_seeds), int)
    for network in range(n_networks):
        seeds[network] = rng.choice(n_parcels, n_seeds, replace=False)
        A[network, seeds[network]] = rng.choice(SPIKE_GAINS, n_seeds)
    return seeds, A


def find_spikes(trace, sfreq=SFREQ):
    """Return the samples of spikes: maxima above 8 mV at least 0.2 s apart."""
    distance = int(round(SPIKE_DISTANCE * sfreq))
    return find_peaks(trace, height=SPIKE_THRESHOLD, distance=distance)[0]


def _spike_windows(trace):
    peaks = find_spikes(trace)
    peaks = peaks[(peaks >= _HALF) & (peaks < len(trace) - _HALF)]
    windows = trace[peaks[:, None] + np.arange(-_HALF, _HALF)].astype(np.float32)
    windows -= np.median(windows, axis=1, keepdims=True)
    return windows / windows[:, _HALF, None]


def make_evoked(n_waveforms, rng):
    """Simulate evoked responses of single neural masses to pulses of input."""
    n_times = 2 * _HALF
    windows = []
    while sum(map(len, windows)) < n_waveforms:
        n_networks = 256
        stimulus = _pulses(n_networks, n_times / SFREQ, rng)
        psp = simulate_jansen_rit(
            n_times / SFREQ,
            n_networks=n_networks,
            n_parcels=1,
            mu=rng.uniform(0.03, 0.09, n_networks),
            noise_std=rng.uniform(0, 0.5, n_networks),
            stimulus=stimulus,
            random_state=int(rng.integers(2**31)),
        )
        windows.append(_centre_peaks(psp[:, 0]))
    return np.concatenate(windows)[:n_waveforms]


def _pulses(n_networks, duration, rng):
    """Return input pulses (per ms), one value per step, about the middle."""
    times = np.arange(0, duration, STEP)
    onset = duration / 2 + rng.uniform(-0.02, 0.02, (n_networks, 1))
    width = rng.uniform(0.005, 0.06, (n_networks, 1))
    size = rng.uniform(0.1, 0.6, (n_networks, 1))
    return size * np.exp(-0.5 * ((times - onset) / width) ** 2)


def _centre_peaks(traces):
    """Shift and scale each trace to a largest deviation of 1 in the middle."""
    n_times = traces.shape[1]
    traces = traces - np.median(traces, axis=1, keepdims=True)
    middle = slice(n_times // 4, 3 * n_times // 4)
    peaks = np.abs(traces[:, middle]).argmax(1) + n_times // 4
    times = (np.arange(n_times) + peaks[:, None] - n_times // 2) % n_times
    rows = np.arange(len(traces))
    size = traces[rows, peaks][:, None]
    good = np.abs(size[:, 0]) > 0
    return (np.take_along_axis(traces, times, 1)[good] / size[good]).astype(np.float32)


def make_bursts(n_waveforms, rng):
    """Cut bursts from the rhythm of single neural masses, tapered to 0.2 to 1 s."""
    psp = simulate_jansen_rit(
        60.0,
        n_networks=64,
        n_parcels=1,
        mu=rng.uniform(0.1, 0.3, 64),
        random_state=int(rng.integers(2**31)),
    )[:, 0]
    rows = rng.integers(len(psp), size=n_waveforms)
    starts = rng.integers(psp.shape[1] - 2 * _HALF, size=n_waveforms)
    windows = psp[rows[:, None], starts[:, None] + np.arange(2 * _HALF)]
    windows = windows - np.median(windows, axis=1, keepdims=True)
    times = (np.arange(2 * _HALF) - _HALF) / SFREQ
    width = rng.uniform(0.05, 0.25, (n_waveforms, 1))
    return _centre_peaks(windows * np.exp(-0.5 * (times / width) ** 2))


def stretch(windows, factor, sfreq):
    """Slow windows at 500 Hz down by a factor, cut and resample them to ``sfreq``."""
    half = int(round(HALF_LENGTH / factor * SFREQ))
    middle = windows.shape[1] // 2
    windows = windows[:, middle - half : middle + half]
    n_times = 2 * int(round(HALF_LENGTH * sfreq))
    windows = change_rate(windows, n_times / windows.shape[1])
    return windows / np.abs(windows).max(1, keepdims=True)


def change_rate(data, ratio):
    """Resample the rows of (n_rows, n_times) by a ratio of sampling rates."""
    if ratio == 1:
        return data
    n_times = int(round(data.shape[1] * ratio))
    out = np.empty((len(data), n_times), np.float32)
    n_rows = max(1, int(2e6 / max(data.shape[1], n_times)))  # 16 MB at a time
    for start in range(0, len(data), n_rows):
        rows = slice(start, start + n_rows)
        out[rows] = mne.filter.resample(
            data[rows].astype(float), up=n_times, down=data.shape[1], verbose="error"
        )
    return out


def place_windows(windows, peaks, n_times):
    """Add up windows (n_windows, n_times), each centred on the sample of its peak."""
    half = windows.shape[1] // 2
    out = np.zeros(n_times + 2 * half)
    for window, peak in zip(windows, peaks):
        out[peak : peak + 2 * half] += window
    return out[half : half + n_times]

"""Waveforms and background activity from the neural-mass model, cached on disk."""

import hashlib
import inspect
import os
import tempfile

import mne
import numpy as np
from mne.utils import logger
from scipy.signal import find_peaks

from .connectome import make_distance_connectome
from .jansen_rit import simulate_jansen_rit
from .simulation import Library, make_patches
from .template import data_path

SFREQ = 500.0  # Hz, of the neural masses, as in the papers
STEP = 0.0005  # s, of their integration
LIBRARY_VERSION = 1  # raise when the same parameters give other numbers

# Settings under which a seed emits spikes (papers.md): input per ms, noise factor
SPIKE_GAINS = (3.5, 3.55, 3.6)
SPIKE_INPUTS = ((0.087, 1.0), (0.08, 1.7), (0.083, 1.5))
SPIKE_THRESHOLD = 8.0  # mV
SPIKE_DISTANCE = 0.2  # s

HALF_LENGTH = 0.768  # s on either side of a waveform's peak
STRETCHES = (0.5, 0.7, 1.0, 1.4, 2.0)  # time scales of the waveforms
N_SEEDS = 16  # spiking seeds per network, far apart


def make_library(
    parcels,
    sfreq=125.0,
    *,
    n_patches=20_000,
    n_waveforms=40_000,
    background=300.0,
    papers_only=False,
    random_state=0,
):
    """Simulate what training data are made of; the result is cached on disk.

    Parameters
    ----------
    parcels : Parcels
        The parcellation.
    sfreq : float
        Sampling rate of the result (Hz).
    n_patches : int
        Number of patches, about equally many per seed.
    n_waveforms : int
        Number of source waveforms.
    background : float
        Duration of the background activity (s).
    papers_only : bool
        Only spikes as they are, as in the papers. Otherwise half of the waveforms are
        spikes stretched in time by a factor of 0.5 to 2, evoked responses and rhythmic
        bursts, which is what lets the network serve other data than spikes.
    random_state : int
        Seed.

    Returns
    -------
    library : Library
        Patches, waveforms and background.
    """
    arguments = inspect.signature(make_library).bind(
        None, sfreq, n_patches=n_patches, n_waveforms=n_waveforms,
        background=background, papers_only=papers_only, random_state=random_state,
    ).arguments  # fmt: skip
    arguments.pop("parcels")
    key = hashlib.sha256(repr((LIBRARY_VERSION, sorted(arguments.items()))).encode())
    key.update(parcels.mapping.tobytes())
    fname = data_path() / "libraries" / f"library-{key.hexdigest()[:16]}.npz"
    if not fname.exists():
        logger.info("Simulating neural masses (kept in %s) ...", fname)
        _save(fname, _make_library(parcels, **arguments))
    with np.load(fname) as arrays:
        library = {name: arrays[name] for name in arrays}
    library["sfreq"] = float(library["sfreq"])
    return Library(**library)


def _save(fname, library):
    """Write the file whole or not at all, also with two processes at work."""
    fname.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(suffix=".npz", dir=fname.parent)
    os.close(handle)
    try:
        np.savez(part, **library.asdict())
        os.replace(part, fname)
    except BaseException:
        os.unlink(part)
        raise


def _make_library(
    parcels, sfreq, n_patches, n_waveforms, background, papers_only, random_state
):
    rng = np.random.default_rng([random_state, LIBRARY_VERSION])
    connectome = make_distance_connectome(parcels.centers, parcels.hemi)
    seeds = rng.permutation(np.arange(n_patches) % parcels.n_parcels)
    patches, decay = make_patches(
        seeds, parcels.adjacency, parcels.centers, rng.integers(2**31)
    )
    ongoing = make_background(connectome, background, rng.integers(2**31))
    return Library(
        patches=patches,
        decay=decay,
        waveforms=_make_waveforms(connectome, n_waveforms, sfreq, papers_only, rng),
        background=_resample(ongoing, sfreq / SFREQ).astype(np.float16),
        sfreq=sfreq,
    )


def make_background(connectome, duration, seed):
    """Simulate ongoing activity: (n_parcels, n_times) at 500 Hz, zero mean, SD 1."""
    n_networks = 16
    psp = simulate_jansen_rit(
        duration / n_networks, connectome, n_networks=n_networks, random_state=seed
    )
    psp -= psp.mean(-1, keepdims=True)
    psp /= psp.std()
    return np.concatenate(list(psp), axis=1)


def _make_waveforms(connectome, n_waveforms, sfreq, papers_only, rng):
    """Return (n_waveforms, n_times) in half precision."""
    if papers_only:
        spikes = make_spikes(connectome, n_waveforms, rng)
        return _stretch(spikes, 1.0, sfreq).astype(np.float16)
    shares = {"spikes": 0.5, "stretched": 0.25, "evoked": 0.15, "bursts": 0.1}
    numbers = {name: int(share * n_waveforms) for name, share in shares.items()}
    spikes = make_spikes(connectome, numbers["spikes"], rng)
    other = [
        spikes[rng.integers(len(spikes), size=numbers["stretched"])],
        make_evoked(numbers["evoked"], rng),
        make_bursts(numbers["bursts"], rng),
    ]
    groups = np.array_split(rng.permutation(np.concatenate(other)), len(STRETCHES))
    pairs = zip(groups, STRETCHES, strict=True)
    stretched = [_stretch(group, factor, sfreq) for group, factor in pairs]
    waveforms = np.concatenate([_stretch(spikes, 1.0, sfreq), *stretched])
    return rng.permutation(waveforms).astype(np.float16)


def make_spikes(connectome, n_waveforms, rng):
    """Simulate spikes: (n_waveforms, n_times) at 500 Hz, the peak, of 1, amid.

    Seeds far apart share a network, since the neighbours of a seed hardly change its
    spikes. The baseline (the window's median) is taken off.
    """
    windows, n_found = [], 0
    while n_found < n_waveforms:
        seeds, A = _draw_seeds(connectome, 32, rng)
        setting = rng.integers(len(SPIKE_INPUTS), size=32)
        inputs = np.array(SPIKE_INPUTS)[setting]
        psp = simulate_jansen_rit(
            60.0,
            connectome,
            n_networks=32,
            A=A,
            mu=inputs[:, 0],
            noise_std=inputs[:, 1],
            picks=seeds,
            random_state=int(rng.integers(2**31)),
        )
        windows += [_spike_windows(trace) for trace in psp.reshape(-1, psp.shape[-1])]
        n_found = sum(map(len, windows))
    return rng.permutation(np.concatenate(windows))[:n_waveforms]


def _draw_seeds(connectome, n_networks, rng):
    """Return seeds (n_networks, N_SEEDS) and gains A (n_networks, n_parcels)."""
    n_parcels = connectome.weights.shape[0]
    A = np.full((n_networks, n_parcels), 3.25)
    seeds = np.empty((n_networks, N_SEEDS), int)
    for network in range(n_networks):
        seeds[network] = rng.choice(n_parcels, N_SEEDS, replace=False)
        A[network, seeds[network]] = rng.choice(SPIKE_GAINS, N_SEEDS)
    return seeds, A


def find_spikes(trace, sfreq=SFREQ):
    """Return the samples of spikes: maxima above 8 mV at least 0.2 s apart."""
    distance = int(round(SPIKE_DISTANCE * sfreq))
    return find_peaks(trace, height=SPIKE_THRESHOLD, distance=distance)[0]


def _spike_windows(trace):
    half = int(HALF_LENGTH * max(STRETCHES) * SFREQ)
    peaks = find_spikes(trace)
    peaks = peaks[(peaks >= half) & (peaks < len(trace) - half)]
    windows = trace[peaks[:, None] + np.arange(-half, half)].astype(np.float32)
    windows -= np.median(windows, axis=1, keepdims=True)
    return windows / windows[:, half, None]


def make_evoked(n_waveforms, rng):
    """Simulate evoked responses of single neural masses to pulses of input."""
    half = int(HALF_LENGTH * max(STRETCHES) * SFREQ)
    n_times = 2 * half
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
    """Shift each trace so that its largest deviation, made 1, lies in the middle."""
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
    half = int(HALF_LENGTH * max(STRETCHES) * SFREQ)
    psp = simulate_jansen_rit(
        60.0,
        n_networks=64,
        n_parcels=1,
        mu=rng.uniform(0.1, 0.3, 64),
        random_state=int(rng.integers(2**31)),
    )[:, 0]
    rows = rng.integers(len(psp), size=n_waveforms)
    starts = rng.integers(psp.shape[1] - 2 * half, size=n_waveforms)
    windows = psp[rows[:, None], starts[:, None] + np.arange(2 * half)]
    windows = windows - np.median(windows, axis=1, keepdims=True)
    times = (np.arange(2 * half) - half) / SFREQ
    width = rng.uniform(0.05, 0.25, (n_waveforms, 1))
    return _centre_peaks(windows * np.exp(-0.5 * (times / width) ** 2))


def _stretch(windows, factor, sfreq):
    """Slow windows at 500 Hz down by a factor, cut and resample them to ``sfreq``."""
    half = int(round(HALF_LENGTH / factor * SFREQ))
    middle = windows.shape[1] // 2
    windows = windows[:, middle - half : middle + half]
    n_times = 2 * int(round(HALF_LENGTH * sfreq))
    windows = _resample(windows, n_times / windows.shape[1])
    return windows / np.abs(windows).max(1, keepdims=True)


def _resample(data, ratio):
    if ratio == 1:
        return data
    n_times = int(round(data.shape[1] * ratio))
    out = np.empty((len(data), n_times), np.float32)
    for start in range(0, len(data), 1000):
        rows = slice(start, start + 1000)
        out[rows] = mne.filter.resample(
            data[rows].astype(float), up=n_times, down=data.shape[1], verbose="error"
        )
    return out

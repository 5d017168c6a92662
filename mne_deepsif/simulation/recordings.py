"""Simulated recordings as MNE objects: the source model without the network."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
from mne.utils import _check_option, _validate_type, verbose
from scipy.signal.windows import tukey

from ._recordings import (
    Truth,  # noqa: F401
    add_background,
    draw_patches,
    make_setup,
    make_truth,
    measure,
    to_stc,
)
from .patches import LAG
from .waveforms import (
    make_bursts,
    make_evoked,
    make_lone_spikes,
    place_windows,
    stretch,
)

_GAP = 1.0  # s, between spikes of a raw recording
_KINDS = ("spikes", "evoked", "bursts")


@verbose
def simulate_evoked(
    fwd,
    info,
    noise_cov=None,
    *,
    n_sources=1,
    seeds=None,
    waveforms="spikes",
    correlated=False,
    peak_times=None,
    amplitude=5e-4,
    background_snr=15.0,
    snr=10.0,
    nave=1,
    duration=1.0,
    parcels=None,
    subjects_dir=None,
    random_state=None,
    verbose=None,
):
    """Simulate an evoked response with the neural masses.

    Parameters
    ----------
    fwd : Forward
        Forward solution with a surface source space, of the template or of a subject.
    info : Info
        Measurement info: channels (those that ``fwd`` lacks are left out) and sampling
        rate.
    noise_cov : Covariance | None
        Covariance of the sensor noise of one trial. None makes an ad-hoc one.
    n_sources : int
        Number of patches, if no ``seeds`` are given.
    seeds : array of int, shape (n_sources,) | None
        Seed parcels from which the patches grow. None draws them at random.
    waveforms : "spikes" | "evoked" | "bursts" | array of shape (n_sources, n_times)
        Kind of neural-mass activity of the patches, or the waveforms themselves. Each
        of these is scaled to a largest absolute value of ``amplitude``.
    correlated : bool
        Give all patches the waveform of the first one, 10 to 50 ms later.
        ``peak_times``, if given, replace this delay.
    peak_times : array of shape (n_sources,) | None
        Time at which each source peaks (s). None puts the first at 0 and the others
        within 0.1 s of it.
    amplitude : float
        Largest dipole moment density of a patch (A m per m²). 5e-4 is 0.5 nA m per
        mm², within the range of human neocortex (0.16 to 0.77)
        :footcite:`MurakamiOkada2015`. Positive currents flow out of the cortex.
    background_snr : float | None
        Ratio of patches to background activity at the sensors (dB). None leaves the
        background out.
    snr : float | None
        Ratio of brain signal to sensor noise (dB). The noise is scaled to give it. None
        takes ``noise_cov`` as it is, divided by ``nave``.
    nave : int
        Number of averages. ``snr`` and ``background_snr`` are those of the average.
    duration : float
        Length (s), with time 0 in the middle.
    parcels : Parcels | None
        The parcellation. None takes :func:`make_template_parcels`.
    subjects_dir : path-like | None
        FreeSurfer subjects directory of the forward's subject, see
        :func:`assign_vertices`.
    random_state : int | None
        Seed.
    %(verbose)s

    Returns
    -------
    evoked : Evoked
        The recording. EEG has an average reference projector, not applied. Projectors,
        bad-channel marks and filter settings of ``info`` are dropped, as in
        :func:`mne.apply_forward`.
    stc : SourceEstimate
        Activity of the whole cortex, including the background (A m), along the normals.
        ``mne.apply_forward(fwd, stc, evoked.info)`` is ``evoked`` without noise.
    truth : Truth
        The patches alone: their parcels, waveforms and peak times, with the noise
        covariance.

    Notes
    -----
    Both ratios compare powers of the whitened data (mean over channels and times). The
    signal is measured within 0.1 s of the peaks. ``background_snr`` is the power of the
    patches over the mean power of the background. ``snr`` is the power of patches and
    background over that of the noise.

    References
    ----------
    .. footbibliography::
    """
    rng = np.random.default_rng(random_state)
    _check_numbers(amplitude, background_snr, snr, duration)
    _validate_type(nave, "int-like", "nave")
    if nave < 1:
        raise ValueError(f"nave must be at least 1, got {nave}.")
    setup = make_setup(fwd, info, noise_cov, parcels, subjects_dir)
    sfreq = info["sfreq"]
    n_times = int(round(duration * sfreq))
    profiles, patches = draw_patches(setup, n_sources, seeds, rng)
    tmin = -(n_times // 2) / sfreq
    if isinstance(waveforms, str):
        peaks = _draw_peaks(len(patches), peak_times, correlated, rng) - tmin
        peaks = _to_samples(peaks[:, None], sfreq, n_times)
        waves = _draw_waves(setup, waveforms, peaks, n_times, correlated, rng)
    else:
        waves = _check_waveforms(waveforms, (len(patches), n_times))
        peaks = np.abs(waves).argmax(1)[:, None]
    waves = amplitude * waves
    activity = add_background(setup, profiles, waves, peaks, background_snr, rng)
    data, cov = measure(setup, activity, peaks, snr, nave, rng)
    evoked = mne.EvokedArray(data, setup.info, tmin, "simulated", int(nave))
    stc = to_stc(setup, activity, tmin)
    truth = make_truth(setup, profiles, patches, waves, peaks, tmin, cov)
    return evoked, stc, truth


@verbose
def simulate_raw(
    fwd,
    info,
    noise_cov=None,
    *,
    n_sources=1,
    seeds=None,
    n_spikes=10,
    correlated=False,
    amplitude=5e-4,
    background_snr=15.0,
    snr=10.0,
    duration=60.0,
    parcels=None,
    subjects_dir=None,
    random_state=None,
    verbose=None,
):
    """Simulate a recording with spikes.

    Parameters
    ----------
    fwd : Forward
        Forward solution with a surface source space, of the template or of a subject.
    info : Info
        Measurement info: channels (those that ``fwd`` lacks are left out) and sampling
        rate.
    noise_cov : Covariance | None
        Covariance of the sensor noise. None makes an ad-hoc one.
    n_sources : int
        Number of patches, if no ``seeds`` are given.
    seeds : array of int, shape (n_sources,) | None
        Seed parcels from which the patches grow. None draws them at random.
    n_spikes : int
        Number of spikes of each patch, at least 1 s apart.
    correlated : bool
        Let all patches spike together: with the waveforms of the first one, 10 to 50 ms
        later (the same delay for all spikes).
    amplitude : float
        Dipole moment density at the peaks of the spikes (A m per m²), see
        :func:`simulate_evoked`.
    background_snr : float | None
        Ratio of patches to background activity at the sensors (dB). None leaves the
        background out.
    snr : float | None
        Ratio of brain signal near the spikes to sensor noise (dB). The noise is scaled
        to give it. None takes ``noise_cov`` as it is.
    duration : float
        Length (s).
    parcels : Parcels | None
        The parcellation. None takes :func:`make_template_parcels`.
    subjects_dir : path-like | None
        FreeSurfer subjects directory of the forward's subject, see
        :func:`assign_vertices`.
    random_state : int | None
        Seed.
    %(verbose)s

    Returns
    -------
    raw : Raw
        The recording, with an annotation at each spike (``"spike/0"`` for the first
        patch). EEG has an average reference projector, not applied.
    stc : SourceEstimate
        Activity of the whole cortex, including the background (A m). Its values are
        computed when you first use them. To save memory, crop it first.
    truth : Truth
        The patches alone: their parcels, waveforms and peak times, with the noise
        covariance.

    Notes
    -----
    The ratios are defined in :func:`simulate_evoked`.
    """
    rng = np.random.default_rng(random_state)
    _check_numbers(amplitude, background_snr, snr, duration)
    _check_n_spikes(n_spikes, duration)
    setup = make_setup(fwd, info, noise_cov, parcels, subjects_dir)
    sfreq = info["sfreq"]
    n_times = int(round(duration * sfreq))
    profiles, patches = draw_patches(setup, n_sources, seeds, rng)
    times = _draw_spike_times(len(patches), n_spikes, duration, correlated, rng)
    peaks = _to_samples(times, sfreq, n_times)
    waves = amplitude * _draw_waves(setup, "spikes", peaks, n_times, correlated, rng)
    activity = add_background(setup, profiles, waves, peaks, background_snr, rng)
    data, cov = measure(setup, activity, peaks, snr, 1, rng)
    raw = mne.io.RawArray(data, setup.info)
    names = [f"spike/{i}" for i, row in enumerate(peaks) for _ in row]
    raw.set_annotations(mne.Annotations(peaks.ravel() / sfreq, 0.0, names))
    stc = to_stc(setup, activity, 0.0, lazy=True)
    truth = make_truth(setup, profiles, patches, waves, peaks, 0.0, cov)
    return raw, stc, truth


# --------------------------------------------------------------- checks


def _check_numbers(amplitude, background_snr, snr, duration):
    for name, value in (("background_snr", background_snr), ("snr", snr)):
        _validate_type(value, ("numeric", None), name)
        if value is not None and not np.isfinite(value):
            raise ValueError(f"{name} must be finite (dB) or None, got {value}.")
    if not np.isfinite(amplitude) or amplitude == 0:
        raise ValueError(f"amplitude must be finite and not zero, got {amplitude}.")
    if not 0.1 <= duration < np.inf:
        raise ValueError(f"duration must be at least 0.1 s, got {duration}.")


def _check_n_spikes(n_spikes, duration):
    _validate_type(n_spikes, "int-like", "n_spikes")
    most = int(duration / _GAP)
    if not 1 <= n_spikes <= most:
        raise ValueError(
            f"n_spikes must be from 1 to {most} in {duration} s (one per second), got "
            f"{n_spikes}."
        )


def _check_waveforms(waveforms, shape):
    waves = np.array(waveforms, float)
    if waves.shape != shape or not np.isfinite(waves).all():
        raise ValueError(
            f"waveforms must be one of {_KINDS} or a finite array of shape "
            f"(n_sources, n_times), here {shape}, got shape {waves.shape}."
        )
    size = np.abs(waves).max(1, keepdims=True)
    if not size.all():
        raise ValueError("waveforms must not be all zero for any source.")
    return waves / size


# --------------------------------------------------------------- time


def _draw_peaks(n_sources, peak_times, correlated, rng):
    """Return the time of each source's peak (s), about 0."""
    if peak_times is not None:
        peaks = np.atleast_1d(np.asarray(peak_times, float))
        if peaks.shape != (n_sources,) or not np.isfinite(peaks).all():
            raise ValueError(
                f"peak_times must be {n_sources} finite times, got {peak_times}."
            )
        return peaks
    peaks = rng.uniform(*(LAG if correlated else (-0.1, 0.1)), n_sources)
    peaks[0] = 0
    return peaks


def _draw_spike_times(n_sources, n_spikes, duration, correlated, rng):
    """Return (n_sources, n_spikes), in s, at least a gap apart."""
    free = duration - n_spikes * _GAP
    times = np.sort(rng.uniform(0, free, (n_sources, n_spikes)), axis=1)
    times += _GAP * (np.arange(n_spikes) + 0.5)
    if correlated:
        lag = rng.uniform(*LAG, (n_sources, 1))
        lag[0] = 0
        times = times[:1] + lag
    return times


def _to_samples(times, sfreq, n_times):
    samples = np.rint(times * sfreq).astype(int)
    if samples.min() < 0 or samples.max() >= n_times:
        raise ValueError(
            "peak_times must lie in the window, from -duration / 2 to duration / 2. "
            "Raise duration."
        )
    return samples


def _draw_waves(setup, kind, peaks, n_times, correlated, rng):
    """Return waveforms (n_sources, n_times) of size 1, with the given peaks."""
    _check_option("waveforms", kind, _KINDS)
    n_rows = 1 if correlated else len(peaks)
    n_windows = n_rows * peaks.shape[1]
    if kind == "spikes":
        windows = make_lone_spikes(setup.connectome, n_windows, rng)
    else:
        windows = {"evoked": make_evoked, "bursts": make_bursts}[kind](n_windows, rng)
    windows = stretch(windows, 1.0, setup.info["sfreq"])
    windows *= tukey(windows.shape[1], 0.2)  # no step where a window begins
    windows = windows.reshape(n_rows, peaks.shape[1], -1)
    windows = np.broadcast_to(windows, (len(peaks), *windows.shape[1:]))
    return np.stack([place_windows(w, p, n_times) for w, p in zip(windows, peaks)])

"""The parts of a simulated recording: head and sensors, patches, background."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import dataclass
from typing import NamedTuple

import mne
import numpy as np
from mne.utils import _validate_type, logger

from .._mne import FIFF, update_info
from ..head.leadfield import Leadfield, fix_orientation, make_leadfield
from ..head.parcels import Parcels, make_template_parcels
from .connectome import Connectome, make_distance_connectome
from .jansen_rit import simulate_jansen_rit
from .patches import make_patches, patch_areas
from .waveforms import SFREQ, change_rate

_NEAR_PEAK = 0.1  # s, on either side: where signal-to-noise ratios are measured


@dataclass(frozen=True)
class Truth:
    """The truth behind a simulated recording.

    Attributes
    ----------
    stc : SourceEstimate
        The patches alone, on their vertices (A m), without background activity.
    labels : list of Label
        The patches as labels on the forward's source space.
    patches : list of array of int
        Parcels of each patch, the seed parcel first.
    areas : array of shape (n_sources,)
        Areas of the patches (m²).
    waveforms : array of shape (n_sources, n_times)
        Dipole moment density at each seed parcel (A m per m²).
    peak_times : list of array
        Peak times of each source (s).
    noise_cov : Covariance
        Noise covariance of one trial. That of an average is 1 / ``nave`` of it.
    """

    stc: mne.SourceEstimate
    labels: list
    patches: list
    areas: np.ndarray
    waveforms: np.ndarray
    peak_times: list
    noise_cov: mne.Covariance


class Setup(NamedTuple):
    """Everything that stays the same from recording to recording."""

    info: mne.Info
    gain: np.ndarray  # (n_channels, n_parcels), no projector applied
    leadfield: Leadfield
    noise_cov: mne.Covariance
    parcels: Parcels
    connectome: Connectome


# --------------------------------------------------------------- head and sensors


def make_setup(fwd, info, noise_cov, parcels, subjects_dir):
    _validate_type(fwd, mne.Forward, "fwd")
    _validate_type(info, mne.Info, "info")
    _validate_type(noise_cov, (mne.Covariance, None), "noise_cov")
    _validate_type(parcels, (Parcels, None), "parcels")
    parcels = make_template_parcels() if parcels is None else parcels
    info = _make_info(info, fwd)
    if noise_cov is None:
        noise_cov = mne.make_ad_hoc_cov(info, verbose="error")
    if lost := [name for name in info["ch_names"] if name not in noise_cov["names"]]:
        raise ValueError(
            f"noise_cov must have all channels that info and fwd share, but {lost} are "
            "missing. Give a covariance of these channels, or drop them from info."
        )
    leadfield = make_leadfield(
        info, fwd, noise_cov, parcels=parcels, subjects_dir=subjects_dir
    )
    gain, _ = fix_orientation(fwd, info["ch_names"])
    return Setup(
        info=info,
        gain=gain @ leadfield.vertex_area,
        leadfield=leadfield,
        noise_cov=noise_cov,
        parcels=parcels,
        connectome=make_distance_connectome(parcels.centers, parcels.hemi),
    )


def _make_info(info, fwd):
    """Keep the forward's channels, and no projector but the average reference.

    Simulated data are not filtered, whatever those of the given info were.
    """
    picks = mne.pick_types(info, meg=True, eeg=True, ref_meg=False, exclude=())
    known = set(fwd["sol"]["row_names"])
    picks = [pick for pick in picks if info["ch_names"][pick] in known]
    if not picks:
        raise ValueError(
            "info and fwd must share EEG or MEG channels: info starts with "
            f"{info['ch_names'][:3]}, fwd with {fwd['sol']['row_names'][:3]}."
        )
    info = mne.pick_info(info, picks)
    off = FIFF.FIFFV_MNE_CUSTOM_REF_OFF
    band = dict(highpass=0.0, lowpass=info["sfreq"] / 2)
    # as apply_forward does
    update_info(info, projs=[], bads=[], custom_ref_applied=off, **band)
    raw = mne.io.RawArray(np.zeros((len(picks), 1)), info, verbose="error")
    return raw.set_eeg_reference(projection=True).info if "eeg" in raw else raw.info


# --------------------------------------------------------------- space


def draw_patches(setup, n_sources, seeds, rng):
    """Return profiles (n_sources, n_parcels) and the parcels of each patch."""
    parcels = setup.parcels
    seen = np.unique(np.concatenate(setup.leadfield.parcel_of_vertex))
    seen = seen[seen >= 0]
    if seeds is None:
        _validate_type(n_sources, "int-like", "n_sources")
        if not 1 <= n_sources <= len(seen):
            raise ValueError(
                f"n_sources must be from 1 to {len(seen)}, the number of parcels with "
                f"a vertex, got {n_sources}."
            )
        seeds = rng.choice(seen, n_sources, replace=False)
    seeds = _check_seeds(seeds, seen)
    padded, decay = make_patches(
        seeds, parcels.adjacency, parcels.centers, rng.integers(2**31)
    )
    profiles = np.zeros((len(seeds), parcels.n_parcels))
    patches = [patch[patch >= 0] for patch in padded]
    for profile, patch, weights in zip(profiles, patches, decay):
        profile[patch] = weights[: len(patch)]
    logger.info("Patches of %s cm².", np.round(1e4 * _areas(patches, parcels), 1))
    return profiles, patches


def _areas(patches, parcels):
    return np.concatenate([patch_areas(patch, parcels.areas) for patch in patches])


def to_stc(setup, activity, tmin, lazy=False):
    """Spread the activity of parcels (A m per m²) over their vertices (A m)."""
    leadfield = setup.leadfield
    area = leadfield.vertex_area
    data = (area.toarray(), activity) if lazy else area @ activity
    return mne.SourceEstimate(
        data, leadfield.vertices, tmin, 1 / setup.info["sfreq"], leadfield.subject
    )


def make_truth(setup, profiles, patches, waves, peaks, tmin, cov):
    leadfield, sfreq = setup.leadfield, setup.info["sfreq"]
    inside = [
        np.isin(parcel, np.concatenate(patches))
        for parcel in leadfield.parcel_of_vertex
    ]
    area = leadfield.vertex_area[np.flatnonzero(np.concatenate(inside))]
    stc = mne.SourceEstimate(
        (area @ profiles.T) @ waves,
        [vertno[mask] for vertno, mask in zip(leadfield.vertices, inside)],
        tmin,
        1 / sfreq,
        leadfield.subject,
    )
    return Truth(
        stc=stc,
        labels=[_make_label(leadfield, i, patch) for i, patch in enumerate(patches)],
        patches=patches,
        areas=_areas(patches, setup.parcels),
        waveforms=waves,
        peak_times=[tmin + row / sfreq for row in peaks],
        noise_cov=cov,
    )


def _make_label(leadfield, number, patch):
    """Make a label of a patch, which lies in one hemisphere."""
    masks = [np.isin(parcel, patch) for parcel in leadfield.parcel_of_vertex]
    hemi = int(masks[1].any())
    return mne.Label(
        leadfield.vertices[hemi][masks[hemi]],
        hemi=("lh", "rh")[hemi],
        name=f"patch{number}",
        subject=leadfield.subject,
    )


def _check_seeds(seeds, seen):
    """Return seeds as an array; ``seen`` are the parcels that have a vertex."""
    seeds = np.atleast_1d(seeds)
    if seeds.ndim > 1 or seeds.dtype.kind not in "iu" or not seeds.size:
        raise ValueError(f"seeds must be numbers of parcels (int), got {seeds!r}.")
    if lost := sorted(set(seeds.tolist()) - set(seen.tolist())):
        raise ValueError(
            "seeds must be parcels with a vertex in the forward's source space "
            f"({len(seen)} parcels, from {seen[0]} to {seen[-1]}), got {lost}."
        )
    if len(set(seeds.tolist())) < len(seeds):
        raise ValueError(f"seeds must differ, got {seeds.tolist()}.")
    return seeds


# --------------------------------------------------------------- background, noise


def add_background(setup, profiles, waves, peaks, snr, rng):
    """Return the activity of patches and background: (n_parcels, n_times)."""
    activity = profiles.T @ waves
    if snr is None:
        return activity
    n_times, gain = waves.shape[1], setup.leadfield.gain_white
    near = _near_peaks(peaks, n_times, setup.info["sfreq"])
    signal = np.mean(np.square((gain @ profiles.T) @ waves[:, near]))
    ongoing = _draw_background(setup, n_times, rng)
    power = np.mean(np.square(gain @ ongoing))
    ongoing *= np.sqrt(signal / power * 10 ** (-snr / 10))
    return activity + ongoing


def _draw_background(setup, n_times, rng):
    """Simulate ongoing activity (n_parcels, n_times) of one network."""
    sfreq = setup.info["sfreq"]
    psp = simulate_jansen_rit(
        n_times / sfreq + 0.2,
        setup.connectome,
        dt=1.0,  # the same statistics as 0.5, at half the cost
        random_state=int(rng.integers(2**31)),
    )[0]
    psp -= psp.mean(-1, keepdims=True)
    start = int(round(0.1 * sfreq))  # resampling bends the ends
    return change_rate(psp, sfreq / SFREQ)[:, start : start + n_times].astype(float)


def _near_peaks(peaks, n_times, sfreq):
    """Mark the samples close to a peak of any source."""
    half = int(round(_NEAR_PEAK * sfreq))
    near = peaks.ravel()[:, None] + np.arange(-half, half + 1)
    mask = np.zeros(n_times, bool)
    mask[np.clip(near, 0, n_times - 1)] = True
    return mask


def measure(setup, activity, peaks, snr, nave, rng):
    """Return data (n_channels, n_times) with noise, and one trial's covariance."""
    factor = 1.0
    if snr is not None:
        near = _near_peaks(peaks, activity.shape[1], setup.info["sfreq"])
        power = np.mean(np.square(setup.leadfield.gain_white @ activity[:, near]))
        factor = nave * power / 10 ** (snr / 10)
    cov = setup.noise_cov.copy()
    cov["data"] = factor * cov["data"]
    cov["eig"] = cov["eigvec"] = None
    noise = _draw_noise(cov, setup.info["ch_names"], activity.shape[1], rng)
    return setup.gain @ activity + noise / np.sqrt(nave), cov


def _draw_noise(cov, ch_names, n_times, rng):
    picks = [cov["names"].index(name) for name in ch_names]
    data = np.diag(cov["data"]) if cov["diag"] else cov["data"]
    values, vectors = np.linalg.eigh(data[np.ix_(picks, picks)])
    coloring = vectors * np.sqrt(np.maximum(values, 0))
    return coloring @ rng.standard_normal((len(picks), n_times))

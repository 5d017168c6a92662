"""Heads: sensors, the forward that makes the data, and the one that is inverted.

A head is a pure function of its :class:`HeadSpec`.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import joblib
import mne
import numpy as np
from scipy.spatial.transform import Rotation

import mne_deepsif
from mne_deepsif._mne import ico_downsample
from mne_deepsif.cache import cached
from mne_deepsif.head.channels import make_projector_and_whitener
from mne_deepsif.head.template import (
    make_template_bem,
    make_template_source_space,
    make_template_trans,
)
from mne_deepsif.simulation.library import make_library

from ..making.heads import random_folds, random_head, with_normals
from .cortex import Cortex
from .subjects import (
    LIBRARY_SEED,
    SAMPLE_BEM,
    anatomy,
    decimate,
    sensor_info,
    subjects_dir,
)

SFREQ = 125.0  # Hz
NOISE = {"eeg": 2e-7, "mag": 5e-15, "grad": 2e-13}  # SD of the sensors (V, T, T/m)
BRAIN = 3.0  # power of the brain's noise over that of the sensors
NOISE_SEED = 51_000
HEAD_SEED = 100
FOLDED_SEED = 78_000  # of shapes and folds; training draws its heads from other seeds
FOLDS = (1.5e-3, 4.5e-3)  # m, as in training
CENTER = np.array([0.0, 0.0, 0.04])  # m, about which the head turns
KEPT = 6  # heads in memory


@dataclass(frozen=True)
class Error:
    """What is wrong with the forward that the methods invert."""

    moved: float = 0.0  # m, of the head
    turned: float = 0.0  # degrees, of the head
    misplaced: float = 0.0  # m, of each electrode
    skull: tuple = (1.0,)  # factors of its conductivity in the truth, head by head
    tilted: float = 0.0  # degrees, of each true dipole from the cortex's normal
    assumed: str = "bem"  # or "coarse bem", "template"


ERRORS = {
    "none": Error(),
    "head 2 mm, 1°": Error(moved=2e-3, turned=1.0),
    "head 5 mm, 3°": Error(moved=5e-3, turned=3.0),
    "electrodes 2 mm": Error(misplaced=2e-3),
    "electrodes 5 mm": Error(misplaced=5e-3),
    "skull x 0.5": Error(skull=(0.5,)),
    "skull x 2": Error(skull=(2.0,)),
    "dipoles tilted by 30°": Error(tilted=30.0),
    "coarse bem": Error(assumed="coarse bem"),
    "template": Error(assumed="template"),
    "all": Error(4e-3, 2.0, 4e-3, (0.67, 1.5)),
}


@dataclass(frozen=True)
class HeadSpec:
    """What a head depends on.

    Parameters
    ----------
    subject : str
        The anatomy: ``"sample"``, ``"template"``, or ``"folded 3"``, the third of the
        heads of :func:`folded_anatomy`.
    sensors : str
        See :func:`~.subjects.sensor_info`.
    error : str
        One of ``ERRORS``.
    number : int
        Seed of the error and of the noise.
    baseline : float
        Duration (s) for the noise covariance. As much again is noise for the samples.
    library_seed : int
        Seed of the brain's noise.
    n_vertices : int
        Number of vertices of a hemisphere.
    """

    subject: str = "sample"
    sensors: str = "eeg"
    error: str = "none"
    number: int = 0
    baseline: float = 60.0
    library_seed: int = LIBRARY_SEED
    n_vertices: int = 10242

    @property
    def name(self):
        """The name in tables."""
        text = f"{self.subject} {self.sensors}, error {self.error}"
        if self.baseline != HeadSpec.baseline:
            text += f", {self.baseline:.0f} s of baseline"
        if self.n_vertices != HeadSpec.n_vertices:
            text += f", {2 * self.n_vertices} vertices"
        return text

    @property
    def needs(self):
        """The folders of ``../shared/data`` that it reads."""
        return {"sample"} & {self.subject}

    def make(self):
        """Return the head, a :class:`Head`."""
        return make_head(self)


@dataclass(frozen=True, eq=False)  # hashed by identity
class Problem:
    """What a method may know of a head."""

    info: mne.Info
    fwd: mne.Forward
    noise_cov: mne.Covariance
    subjects_dir: Path


@dataclass(eq=False)
class Head:
    """A problem, and what makes its data."""

    problem: Problem
    cortex: Cortex
    gain: np.ndarray  # of the cortex, in the forward that makes the data
    noise: np.ndarray
    whitener: np.ndarray


@lru_cache(KEPT)
def make_head(spec):
    """Make the head of a :class:`HeadSpec`."""
    info = make_info(spec)
    cortex = make_cortex(spec.subject, spec.n_vertices)
    truth = make_truth(spec)
    noise = make_noise(spec, truth)
    n_baseline = noise.shape[1] // 2
    baseline = mne.io.RawArray(noise[:, :n_baseline], info)
    noise_cov = mne.compute_raw_covariance(baseline)
    _, whitener = make_projector_and_whitener(info.copy(), noise_cov)
    fwd = make_assumed(spec)
    folder = subjects_dir("template" if is_template(spec) else spec.subject)
    problem = Problem(info, fwd, noise_cov, folder)
    gain = truth.vertex_gain[:, cortex.rows]
    return Head(problem, cortex, gain, noise[:, n_baseline:], whitener)


def is_template(spec):
    """Say whether the methods assume the template's head instead of the subject's."""
    return ERRORS[spec.error].assumed == "template"


def make_info(spec):
    """Return the sensors where they are assumed to be."""
    info = sensor_info(spec.subject, spec.sensors)
    with info._unlock():
        info["sfreq"], info["lowpass"] = SFREQ, SFREQ / 2  # not that of the recording
    return info


@lru_cache(2)
def make_cortex(subject, n_vertices):
    """Return the cortex of a subject; sensors do not matter."""
    sensors = "eeg" if subject == "sample" else "biosemi64"
    spec = HeadSpec(subject, sensors, n_vertices=n_vertices)
    fwd = make_forward(spec)
    return Cortex(fwd["src"], make_leadfield(spec, fwd))


def make_leadfield(spec, fwd):
    """Return the leadfield of a forward of the subject."""
    info = make_info(spec)
    return mne_deepsif.make_leadfield(
        info,
        fwd,
        mne.make_ad_hoc_cov(info),
        parcels=mne_deepsif.make_template_parcels(),
        subjects_dir=subjects_dir(spec.subject),
    )


# ---------------------------------------------------------------- forwards
def make_truth(spec):
    """Return the leadfield that makes the data."""
    return make_leadfield(spec, make_forward(spec))


def make_forward(spec):
    """Return the forward that makes the data; it is kept on disk."""
    error = ERRORS[spec.error]
    what = asdict(replace(error, assumed="bem")) | dict(number=spec.number)
    return _keep(spec, what, lambda: _forward(spec, error))


def make_assumed(spec):
    """Return the forward that methods invert; it is kept on disk."""
    assumed = ERRORS[spec.error].assumed
    if assumed == "bem":
        return make_forward(replace(spec, error="none", number=0))
    return _keep(spec, assumed, lambda: _other_forward(spec, assumed))


def _keep(spec, what, make):
    return keep([spec.subject, spec.sensors, spec.n_vertices, what], make)


def keep(what, make):
    """Make a forward, or read it; in full precision, which FIF files do not have."""
    return cached("comparison", what, ".joblib", joblib.load, _dump, make)


def _dump(fname, content):
    joblib.dump(content, fname)


def _forward(spec, error):
    """Move the head, the electrodes, and change the skull."""
    rng = np.random.default_rng(HEAD_SEED + spec.number)
    axis, shift = (_unit(rng) for _ in range(2))
    info = make_info(spec)
    for pick in mne.pick_types(info, meg=False, eeg=True):
        info["chs"][pick]["loc"][:3] += error.misplaced * _unit(rng)
    skull = error.skull[(spec.number - 1) % len(error.skull)]
    trans, src, bem = find_anatomy(spec.subject, info, skull, spec.n_vertices)
    motion = np.eye(4)
    turn = np.deg2rad(error.turned) * axis
    motion[:3, :3] = Rotation.from_rotvec(turn).as_matrix()
    motion[:3, 3] = CENTER - motion[:3, :3] @ CENTER + error.moved * shift
    trans = mne.transforms.Transform("head", "mri", trans["trans"] @ motion)
    fwd = solve(info, trans, src, bem)
    n_outside = sum(s["nuse"] for s in src) - fwd["nsource"]
    if n_outside:
        raise ValueError(
            f"subject must have its cortex within the skull, but {n_outside} vertices "
            f"of {spec.subject!r} lie outside. Take another number."
        )
    return with_normals(fwd, _tilt(fwd, rng, error.tilted)) if error.tilted else fwd


def _tilt(fwd, rng, degrees):
    """Turn the normals of the cortex, each in a direction of its own."""
    turned = []
    for s in fwd["src"]:
        aside = np.cross(s["nn"], rng.normal(size=s["nn"].shape))
        aside /= np.linalg.norm(aside, axis=1, keepdims=True)
        angle = np.deg2rad(degrees)
        turned.append(np.cos(angle) * s["nn"] + np.sin(angle) * aside)
    return turned


def find_anatomy(subject, info, skull, n_vertices):
    """Return co-registration, source space and head model of a subject."""
    if subject.startswith("folded "):
        return folded_anatomy(int(subject.split()[1]), info, skull, n_vertices)
    return anatomy(subject, info, skull, n_vertices)


def folded_anatomy(number, info, skull, n_vertices):
    """Return the same of a random head, with folds that the template lacks.

    Its shape, its layers, their conductivities and its folds are those that training
    draws, from other seeds. Here the folds also move places, so that banks of a sulcus
    come near to each other, as in an individual's cortex.
    """
    rng = np.random.default_rng([FOLDED_SEED, number])
    shape, layers, ratio, scalp = random_head(rng, deform=True)
    fold = random_folds(rng, rng.uniform(*FOLDS))
    src = make_template_source_space(affine=lambda rr: fold(shape["affine"](rr)))
    conductivity = (scalp, scalp * ratio * skull, scalp)
    if "eeg" not in info.get_channel_types():
        conductivity, layers = (0.3,), {}
    bem = make_template_bem(**shape, **layers, conductivity=conductivity)
    trans = make_template_trans(info, **shape)
    return trans, decimate(src, n_vertices), bem


def _other_forward(spec, assumed):
    """Return a forward of another head model, or of another head."""
    info = make_info(spec)
    subject = "template" if assumed == "template" else spec.subject
    trans, src, bem = anatomy(subject, info, n_vertices=spec.n_vertices)
    if assumed == "coarse bem":
        bem = _coarse_bem()
    return solve(info, trans, src, bem)


def _coarse_bem():
    """Return the real subject's head model of 320 triangles a surface."""
    surfaces = mne.read_bem_surfaces(SAMPLE_BEM / "sample_fs5-1280-1280-1280-bem.fif")
    coarse = []
    for fine in surfaces:
        surface = ico_downsample(fine, 2)
        surface = mne.surface.complete_surface_info(surface, copy=False)
        kept = {key: fine[key] for key in ("id", "sigma", "coord_frame")}
        coarse.append(surface | kept)
    return mne.make_bem_solution(coarse)


def solve(info, trans, src, bem):
    """Return the forward solution of all vertices."""
    return mne.make_forward_solution(
        info, trans, src, bem, mindist=0.0, on_inside="ignore"
    )


def _unit(rng):
    vector = rng.normal(size=3)
    return vector / np.linalg.norm(vector)


# ---------------------------------------------------------------- noise
def make_noise(spec, truth):
    """Return noise of the brain and of the sensors, projected as real data are."""
    rng = np.random.default_rng([NOISE_SEED, spec.number])
    std = np.array([[NOISE[kind]] for kind in truth.ch_types])
    brain = truth.gain @ make_background(2 * spec.baseline, spec.library_seed)
    brain *= np.sqrt(BRAIN / np.mean((brain / std) ** 2))
    return brain + truth.projector @ rng.normal(0, std, brain.shape)


@lru_cache(1)
def make_background(duration, seed):
    """Return the parcels' activity at ``SFREQ``, of another seed than the training."""
    library = brain_library(duration, seed)

    def make():
        background = np.asarray(library.background, float)
        return mne.filter.resample(background, down=library.sfreq / SFREQ)

    what = [duration, seed]
    return cached("background", what, ".npy", np.load, _save, make)


def brain_library(duration, seed):
    """Return background (s), and the spikes of neural masses."""
    return make_library(
        mne_deepsif.make_template_parcels(),
        sfreq=500.0,
        n_patches=1000,
        n_waveforms=100,
        background=duration,
        papers_only=True,
        random_state=seed,
    )


def _save(fname, content):
    np.save(fname, content)

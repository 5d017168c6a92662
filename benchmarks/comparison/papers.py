"""The papers' task: patches of whole parcels, made and scored on parcels.

Data have 1 s at 500 Hz: 1 to 3 sources with spikes of neural masses, background
activity 10 to 15 dB below each, and white noise of 5, 10, 15 or 20 dB, scaled for each
channel and halved in power as in the authors' scripts. The forward is exact, the noise
covariance ad hoc.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import mne
import numpy as np
import torch
from scipy import sparse

import mne_deepsif
from mne_deepsif import metrics
from mne_deepsif.head.leadfield import channel_std, make_leadfield
from mne_deepsif.head.template import (
    make_template_bem,
    make_template_source_space,
    make_template_trans,
)
from mne_deepsif.metrics.false_alarms import silent_parcels

from ..making.heads import folded_normals, random_head, with_normals
from . import authors
from .heads import KEPT, Problem, keep, solve
from .scores import Row, balance, specificity
from .simulator import make_simulator
from .subjects import anatomy, sensor_info, subjects_dir

SNRS = (5.0, 10.0, 15.0, 20.0)  # dB
RANDOM_SEED = 77_000  # of head shapes; training draws its heads from other seeds
RULES = {"authors": "authors", "otsu": "peak"}  # names in metrics.active_parcels
# what the papers report, on heads, parcels and data of their own: mean and SD
PUBLISHED = {
    "authors, authors, their regions: 1 source": dict(
        le=(1.12, 2.14),
        precision=(0.88, 0.15),
        recall=(0.95, 0.07),
        correlation=(0.99, 0.02),
    ),
    "authors, authors, their regions: 2 sources": dict(
        le=(1.55, 1.74),
        precision=(0.79, 0.18),
        recall=(0.83, 0.18),
        correlation=(0.91, 0.16),
    ),
    "authors, authors, their regions: 3 sources": dict(
        le=(1.56, 1.66),
        precision=(0.76, 0.17),
        recall=(0.75, 0.19),
        correlation=(0.85, 0.19),
    ),
    # 148 magnetometers
    **dict.fromkeys(
        (f"template, {sensors}: 1 to 3 sources" for sensors in ("mag", "magnes 148")),
        dict(le=(1.52, 1.74), correlation=(0.98, 0.02)),
    ),
    "template, mag tilted by 5°: 1 to 3 sources": dict(
        le=(5.98, 9.75), correlation=(0.94, 0.13)
    ),
    "random, mag: 1 to 3 sources": dict(le=(6.57, 8.18), correlation=(0.93, 0.21)),
}


# ---------------------------------------------------------------- heads
@dataclass(frozen=True)
class PapersHead:
    """What a head of the papers' task depends on.

    Parameters
    ----------
    place : "template" | "sample" | "random" | "authors"
        The anatomy; of the authors', only the gain is known.
    sensors : str
        See :func:`~.subjects.sensor_info`.
    normals : str
        Whose directions the cortex has, ``"template"`` or ``"sample"``, or how far
        waves move it, such as ``"folds of 3 mm"``. Empty: its own.
    number : int
        Which of the random heads.
    regions : bool
        Sources are patches of the authors' regions, and scored on these.
    library : "held out" | "small"
        What sources and background are drawn from.
    n_vertices : int
        Number of vertices of a hemisphere.
    """

    place: str = "template"
    sensors: str = "biosemi64"
    normals: str = ""
    number: int = 0
    regions: bool = False
    library: str = "held out"
    n_vertices: int = 10242

    @property
    def name(self):
        """The name in tables."""
        text = f"{self.place}, {self.sensors}"
        text += f", normals of {self.normals}" if self.normals else ""
        text += ", their regions" if self.regions else ""
        return text + ("" if self.library == "held out" else ", a small library")

    @property
    def needs(self):
        """The folders of ``../shared/data`` that it reads."""
        words = f"{self.place} {self.sensors} {self.normals}"
        found = dict(sample="sample", authors="reference", magnes="readers")
        return {folder for word, folder in found.items() if word in words}

    def make(self):
        """Return the head, a :class:`ParcelHead`."""
        return make_parcel_head(self)


@dataclass(eq=False)
class ParcelHead:
    """A problem, and what makes its data and scores.

    ``gain`` (n_channels, n_parcels) is in units of the channels' noise, ``std``.
    ``mean`` (n_parcels, n_vertices) averages the vertices of each parcel, of which each
    has ``area`` (n_parcels,).
    """

    problem: Problem
    gain: torch.Tensor
    std: np.ndarray
    parcels: mne_deepsif.Parcels
    mean: sparse.csr_array
    area: np.ndarray
    vertices: list


@lru_cache(KEPT)
def make_parcel_head(spec):
    """Make the head of a :class:`PapersHead`."""
    info = sensor_info("sample" if spec.place == "sample" else "template", spec.sensors)
    fwd, noise_cov = make_forward(spec, info), mne.make_ad_hoc_cov(info)
    folder = subjects_dir("sample" if spec.place == "sample" else "template")
    parcels = mne_deepsif.make_template_parcels()
    leadfield = make_leadfield(
        info, fwd, noise_cov, parcels=parcels, subjects_dir=folder
    )
    std = channel_std(leadfield)
    gain, parcel = leadfield.gain, np.concatenate(leadfield.parcel_of_vertex)
    if spec.regions:
        gain, parcel = authors.read_gain()
        gain, parcels = leadfield.projector @ gain, authors.make_regions()
    gain = gain / std
    counts = np.bincount(parcel[parcel >= 0], minlength=parcels.n_parcels)
    return ParcelHead(
        Problem(info, fwd, noise_cov, folder),
        torch.as_tensor(gain / np.abs(gain).max()).float(),
        std,
        parcels,
        average(parcel, counts),
        parcels.areas / np.maximum(counts, 1),
        leadfield.vertices,
    )


def average(parcel, counts):
    """Return the matrix that averages vertices, given the parcel of each (or -1)."""
    rows = np.flatnonzero(parcel >= 0)
    share = 1 / counts[parcel[rows]]
    return sparse.csr_array(
        (share.astype(np.float32), (parcel[rows], rows)),
        shape=(len(counts), len(parcel)),
    )


def make_forward(spec, info):
    """Return the forward, which is kept on disk."""
    what = [spec.place, spec.sensors, spec.number, spec.n_vertices]
    fwd = keep(["papers", *what], lambda: _forward(spec, info))
    if not spec.normals:
        return fwd
    if spec.normals.startswith("folds"):
        millimetres = int(spec.normals.split()[2])
        rng = np.random.default_rng(millimetres)
        return with_normals(fwd, folded_normals(fwd["src"], rng, 1e-3 * millimetres))
    other = dataclasses.replace(spec, place=spec.normals, normals="")
    return with_normals(fwd, [s["nn"] for s in make_forward(other, info)["src"]])


def _forward(spec, info):
    if spec.place == "authors":
        return authors.make_forward()
    if spec.place == "random":
        return random_forward(info, spec.number)
    return solve(info, *anatomy(spec.place, info, n_vertices=spec.n_vertices))


def random_forward(info, number, ico=3):
    """Return the forward of a random head that training has not seen.

    ``ico`` is the resolution of the head model.
    """
    shape, layers, ratio, scalp = random_head(
        np.random.default_rng([RANDOM_SEED, number]), deform=True
    )
    conductivity = (scalp, scalp * ratio, scalp)
    if "eeg" not in info.get_channel_types():
        conductivity, layers = (0.3,), {}
    bem = make_template_bem(**shape, **layers, conductivity=conductivity, ico=ico)
    src = make_template_source_space(**shape)
    return solve(info, make_template_trans(info, **shape), src, bem)


# ---------------------------------------------------------------- sources
class ParcelSample(NamedTuple):
    """An evoked response, the parcels to find, and their waveforms."""

    number: int
    evoked: mne.Evoked
    patches: list
    waves: np.ndarray
    snr: float


@dataclass(frozen=True)
class PapersSources:
    """The sources of a sample.

    Parameters
    ----------
    numbers : tuple of int
        Numbers of sources; each is equally likely.
    snrs : tuple of float
        Levels of the noise (dB); each is equally likely.
    noise : "white" | "resting EEG" | "resting EEG by channel"
        The noise. Resting EEG keeps its topography, or each channel gets the power that
        white noise has there.
    correlated : bool
        All sources have one waveform, 10 to 50 ms apart.
    deep : bool
        The gain of the patches' seeds is in the lowest quarter.
    slow : bool
        Waveforms have frequencies of 1 to 3 Hz.
    """

    numbers: tuple = (1, 2, 3)
    snrs: tuple = SNRS
    noise: str = "white"
    correlated: bool = False
    deep: bool = False
    slow: bool = False
    judged = False  # no field: whether to ask if there is a source at all

    @property
    def n_sources(self):
        """The largest number of sources."""
        return max(self.numbers)

    def draw(self, head, scenario, number):
        """Draw one sample."""
        seeds = np.random.default_rng(scenario.seeds(number)).integers(2**62, size=2)
        simulator = make_simulator(self, head, scenario.head)
        simulator.generator.manual_seed(int(seeds[0]))
        snr = self.snrs[int(seeds[1] % len(self.snrs))]
        simulator.sensor_snr = snr, snr
        weights, waves, *rest, chosen, power = simulator.draw(1)
        data, _ = simulator.project(head.gain, weights, waves, *rest, chosen, power)
        # so that the noise is as large as the noise covariance says
        data = data[0].double().numpy() / simulator.level * head.std
        evoked = mne.EvokedArray(data, head.problem.info)
        present = (chosen[0] >= 0).numpy()
        patches = [np.flatnonzero(profile) for profile in weights[0].numpy()[present]]
        waves = waves[0].double().numpy()[present]
        return ParcelSample(number, evoked, patches, waves, snr)

    def describe(self, sample, head):
        """Return the level of the noise (dB), and the number of sources."""
        return dict(snr=sample.snr, n_sources=len(sample.patches))

    def score(self, stc, sample, head, moments):
        """Score an estimate: rows for each source, by two rules of activity.

        What is estimated of a parcel is its activity, so dipole moments are divided by
        the area.
        """
        sources = head.mean @ stc.expand(head.vertices).data.astype(np.float32)
        if moments:
            sources /= head.area[:, np.newaxis].astype(np.float32)
        return list(score_parcels(sources, sample, head.parcels))


def score_parcels(sources, sample, parcels):
    """Yield the scores of the parcels' activity (n_parcels, n_times)."""
    true = np.concatenate(sample.patches)
    peaks = np.abs(sources).max(axis=1, keepdims=True)
    centers, areas = parcels.centers, parcels.areas
    truth = np.isin(np.arange(len(peaks)), true)[:, np.newaxis].astype(float)
    free = dict(
        peak=1e3 * metrics.peak_error(true, peaks, centers),
        auc=metrics.roc_auc(true, peaks),
        ap=metrics.average_precision(true, peaks),
        dispersion=1e3 * metrics.spatial_dispersion(true, peaks, centers),
        emd=1e3 * metrics.earth_movers_distance(truth, peaks, centers),
    )
    yield from (Row(sample.number, "-", name, float(x)) for name, x in free.items())
    for rule, name in RULES.items():
        found = metrics.evaluate_parcels(
            sources, sample.patches, sample.waves, centers, areas, name
        )
        found["le"] = 1e3 * found["le"]
        active = metrics.active_parcels(sources, name)
        groups = silent_parcels(np.unique(true), peaks[:, 0], centers)
        whole = specificity(active, groups)
        whole["f1"] = metrics.f1(true, active, areas)
        whole["area"] = 1e4 * areas[active].sum()
        whole["area_ratio"] = 1e-4 * whole["area"] / areas[np.unique(true)].sum()
        sensitivity = metrics.recall(true, active, areas)
        whole |= balance(dict(recall=sensitivity, specificity=whole["specificity"]))
        found |= {metric: [value] for metric, value in whole.items()}
        for metric, values in found.items():
            where = "-" if metric == "correlation" else rule
            if where == "-" and rule != "otsu":  # needs no rule: once
                continue
            yield from (Row(sample.number, where, metric, float(x)) for x in values)

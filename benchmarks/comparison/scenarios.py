"""Scenarios: which sources, on which heads, in which noise. Each is one registry entry.

``draw(scenario, chunk)`` gives a head and the samples of a chunk. A sample depends on
the scenario and the sample's number alone.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import dataclass, field, replace
from typing import NamedTuple
from zlib import crc32

import mne
import numpy as np

from .heads import SFREQ, HeadSpec
from .scores import score
from .waves import N_TIMES, WAVES

# seeds of the samples that are scored, and of those that choose settings
SEED, VALIDATION_SEED = 51_000, 52_000
EARLY_PEAKS = (0.2, 0.28)  # s, of two sources one after the other
SOFT = 0.5  # standard deviation of a soft edge over the radius


@dataclass(frozen=True)
class Sources:
    """The sources of a sample.

    Parameters
    ----------
    radius : float
        Radius of the patches along the surface (m); 0 is a single vertex.
    n_sources : int
        Number of sources.
    snr : float
        Largest topography of each source over the noise, root mean square over the
        whitened channels.
    apart : float
        Least distance between the centres of two sources (m).
    near : float | None
        Largest such distance.
    early : float | None
        If given, the amplitude of the first of two sources over that of the second,
        which comes 80 ms later. The first one alone is to be found, at its own time.
    mirrored : bool
        The second source is the mirror image of the first one, at the same time.
    correlation : float | None
        Correlation of the second waveform with the first one.
    soft : bool
        Activity falls off from the centre, to 0.14 at the edge.
    deep : float
        Least depth of the centres (m).
    waves : str
        One of ``WAVES``.
    judged : bool
        Ask of each estimate whether there is a source at all.
    """

    radius: float = 0.014
    n_sources: int = 1
    snr: float = 5.0
    apart: float = 0.0
    near: float | None = None
    early: float | None = None
    mirrored: bool = False
    correlation: float | None = None
    soft: bool = False
    deep: float = 0.0
    waves: str = "gaussian"
    judged: bool = False

    def draw(self, head, scenario, number):
        """Draw one sample."""
        return draw_sample(head, scenario, number)

    def score(self, stc, sample, head, moments):
        """Score an estimate; a head model may leave out vertices, which are zero."""
        return score(stc.expand(head.cortex.vertices), sample, head)

    def describe(self, sample, head):
        """Return where the source is, if it is one: its vertex, its depth (mm)."""
        if len(sample.patches) != 1:
            return {}
        (patch,), cortex = sample.patches, head.cortex
        row = cortex.rows[cortex.middle(patch)]
        return dict(vertex=int(row), depth=1e3 * float(cortex.depth[patch].mean()))


@dataclass(frozen=True)
class Scenario:
    """Heads, and sources on them.

    Parameters
    ----------
    cell : str
        What the sources are. It seeds them: scenarios of the same cell have the same
        sources, as far as their heads allow.
    sources : Sources | PapersSources
        The sources; they know how to ``draw`` and to ``score``.
    head : HeadSpec | PapersHead
        The head; it knows how to ``make`` itself.
    numbers : tuple of int
        Numbers of the heads that take turns.
    seed : int
        Seed of the samples.
    """

    cell: str
    sources: Sources = field(default_factory=Sources)
    head: HeadSpec = field(default_factory=HeadSpec)
    numbers: tuple = (0,)
    seed: int = SEED

    @property
    def name(self):
        """The name in tables."""
        return f"{self.head.name}: {self.cell}"

    def seeds(self, number):
        """Return what seeds a sample."""
        return [self.seed, crc32(self.cell.encode()), number]

    def for_validation(self):
        """Return the same with samples of other seeds."""
        return replace(self, seed=VALIDATION_SEED)


class Chunk(NamedTuple):
    """A part of the samples: those of one head, ``size`` of them."""

    number: int
    size: int

    def samples(self, n_heads):
        """Return the numbers of its samples, of which each head has every n-th."""
        block, head = divmod(self.number, n_heads)
        first = block * self.size
        return [head + n_heads * k for k in range(first, first + self.size)]


class Sample(NamedTuple):
    """An evoked response, the patches to find, and the time to look at."""

    number: int
    evoked: mne.Evoked
    patches: list  # of index arrays; empty if there is no source
    time: int | None  # None looks at all times


def head_of(scenario, chunk):
    """Return the specification of a chunk's head."""
    number = scenario.numbers[chunk.number % len(scenario.numbers)]
    return replace(scenario.head, number=number)


def draw(scenario, chunk):
    """Return the head of a chunk, and its samples (a generator)."""
    head = head_of(scenario, chunk).make()
    return head, (
        scenario.sources.draw(head, scenario, number)
        for number in chunk.samples(len(scenario.numbers))
    )


def draw_sample(head, scenario, number):
    """Draw one sample."""
    sources = scenario.sources
    rng = np.random.default_rng(scenario.seeds(number))
    patches, profiles = draw_patches(head.cortex, rng, sources)
    waves = draw_waves(rng, sources)
    start = rng.integers(head.noise.shape[1] - N_TIMES)
    data = head.noise[:, start : start + N_TIMES].copy()
    loud = [sources.early or 1.0] + [1.0] * len(waves)
    for patch, profile, wave, factor in zip(patches, profiles, waves, loud):
        topography = head.gain[:, patch] @ (profile * head.cortex.areas[patch])
        white = head.whitener @ topography
        amplitude = factor * sources.snr / np.sqrt(np.mean(white**2))
        data += np.outer(amplitude * topography, wave)
    evoked = mne.EvokedArray(data, head.problem.info, nave=1)
    if sources.early:
        return Sample(number, evoked, patches[:1], round(EARLY_PEAKS[0] * SFREQ))
    return Sample(number, evoked, patches, None)


def draw_patches(cortex, rng, sources):
    """Draw the vertices of each source, and their activity."""
    patches, profiles = [], []
    for seed in draw_seeds(cortex, rng, sources):
        distance = cortex.distances(seed, sources.radius)
        patch = np.flatnonzero(distance <= sources.radius)
        patches.append(patch)
        profiles.append(np.ones(len(patch)))
        if sources.soft and sources.radius:
            steps = distance[patch] / (SOFT * sources.radius)
            profiles[-1] = np.exp(-(steps**2) / 2)
    return patches, profiles


def draw_seeds(cortex, rng, sources):
    """Draw centres that lie as deep and as far apart as they should."""
    seeds = []
    while len(seeds) < sources.n_sources:
        new = [rng.integers(len(cortex.rows))]
        if sources.deep and cortex.depth[new[0]] < sources.deep:
            continue
        if sources.mirrored:
            new.append(cortex.mirror(new[0]))
        if sources.near and seeds and cortex.gap(seeds + new) > sources.near:
            continue
        if cortex.gap(seeds + new) >= sources.apart:
            seeds += new
    return seeds


def draw_waves(rng, sources):
    """Draw the waveform of each source."""
    n_sources = sources.n_sources
    peaks = EARLY_PEAKS if sources.early else (None,) * n_sources
    waves = [WAVES[sources.waves](rng, peak) for peak in peaks[:n_sources]]
    if sources.mirrored:
        return waves[:1] * 2
    if sources.correlation is not None:
        waves[1] = correlate(waves[0], waves[1], sources.correlation)
    return waves


def correlate(first, second, correlation):
    """Mix two waveforms so that they have a correlation; the largest value is 1."""
    first, second = first - first.mean(), second - second.mean()
    second = second - first * (first @ second) / (first @ first)
    unit = [wave / np.linalg.norm(wave) for wave in (first, second)]
    mixed = correlation * unit[0] + np.sqrt(1 - correlation**2) * unit[1]
    return mixed / np.abs(mixed).max()

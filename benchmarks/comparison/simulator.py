"""What draws the samples of the papers' task."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import replace
from functools import lru_cache

import numpy as np
import scipy.signal
import torch

import mne_deepsif
from mne_deepsif.simulation import Simulator, noise_std
from mne_deepsif.simulation.library import make_library

from ..options import SMALL_LIBRARY
from . import authors
from .subjects import LIBRARY_SEED

N_TIMES, SFREQ = 500, 500.0  # of a sample, Hz
LIBRARIES = {
    "held out": dict(
        sfreq=SFREQ,
        n_patches=4000,
        n_waveforms=4000,
        background=60.0,
        papers_only=True,
        random_state=LIBRARY_SEED,
    ),
    "small": SMALL_LIBRARY,
}


@lru_cache(2)
def read_library(name, regions):
    """Return patches, waveforms and background that no training has seen."""
    parcels = authors.make_regions() if regions else mne_deepsif.make_template_parcels()
    return make_library(parcels, **LIBRARIES[name])


@lru_cache(2)
def make_simulator(sources, head, spec):
    """Return what draws samples; its seed and its noise level are set for each."""
    library = read_library(spec.library, spec.regions)
    if sources.deep:
        library = deep_library(library, head)
    if sources.slow:
        library = slow_library(library)
    return PapersSimulator(
        library,
        N_TIMES,
        n_sources={n: 1 / len(sources.numbers) for n in sources.numbers},
        background_snr=(10.0, 15.0),
        noise="authors",
        margin=-0.1,
        correlated=float(sources.correlated),
        added=sources.noise,
    )


class PapersSimulator(Simulator):
    """Adds white noise or resting EEG, and remembers its root mean square, ``level``.

    ``added`` is the noise of :class:`PapersSources`.
    """

    def __init__(self, *args, added, **options):
        super().__init__(*args, **options)
        self.added = added

    def _add_noise(self, data):
        if self.added == "white":
            noise = super()._add_noise(data) - data
        else:
            noise = self._draw_resting(data)
        self.level = float(noise.square().mean().sqrt())
        return data + noise

    def _draw_resting(self, data):
        """Draw the authors' resting EEG, shifted in time."""
        std = noise_std(data, self._uniform(*self.sensor_snr, len(data)), self.noise)
        recording = torch.as_tensor(authors.read_noise())
        recording = recording[self._integers(len(recording), len(data))]
        shift = int(self._integers(recording.shape[-1], 1))
        noise = torch.roll(recording, shift, -1).to(data.dtype)
        power = noise.square().mean(-1, keepdim=True)
        if not self.added.endswith("by channel"):
            power, std = power.mean(1, keepdim=True), std.square().mean(1, True).sqrt()
        return std * noise / power.sqrt()


def slow_library(library, band=(1.0, 3.0)):
    """Return the library with its waveforms in a band, their largest value middle."""
    sos = scipy.signal.butter(2, band, "band", fs=library.sfreq, output="sos")
    waves = scipy.signal.sosfiltfilt(sos, np.asarray(library.waveforms, float), axis=1)
    middle = waves.shape[1] // 2
    near = np.abs(waves[:, middle - 100 : middle + 100]).argmax(axis=1) - 100
    waves = np.array([np.roll(w, -k) for w, k in zip(waves, near, strict=True)])
    waves /= waves[:, middle, None]
    return replace(library, waveforms=waves.astype(np.float16))


def deep_library(library, head):
    """Return the library with the patches whose seed the sensors see least."""
    norm = head.gain.norm(dim=0).numpy()
    deep = norm[library.patches[:, 0]] <= np.quantile(norm, 0.25)
    return replace(library, patches=library.patches[deep], decay=library.decay[deep])

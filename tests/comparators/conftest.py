"""A small mesh with random sensors, and a patch on the template."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import dataclass

import mne
import numpy as np
import pytest
from scipy import sparse

from mne_deepsif import stc_metrics
from mne_deepsif.head.leadfield import surface_graph
from mne_deepsif.head.mesh import edge_graph


@dataclass(frozen=True, eq=False)
class Toy:
    """A square mesh, of which random sensors see a patch."""

    gain: np.ndarray  # (30, 144)
    graph: sparse.csr_array
    truth: np.ndarray  # (144, 20): a constant patch of 9 vertices
    data: np.ndarray  # (30, 20), without noise


@pytest.fixture(scope="session")
def toy():
    """Make a mesh of 12 by 12 vertices and 30 sensors."""
    rng = np.random.default_rng(0)
    number = np.arange(144).reshape(12, 12)
    corners = [number[:-1, :-1], number[1:, :-1], number[:-1, 1:], number[1:, 1:]]
    a, b, c, d = (corner.ravel() for corner in corners)
    graph = edge_graph(np.vstack([np.c_[a, b, c], np.c_[b, d, c]]), 144)
    gain = rng.standard_normal((30, 144))
    truth = np.zeros((144, 20))
    truth[number[3:6, 5:8].ravel()] = 10 * np.sin(np.arange(20) / 3)
    return Toy(gain, graph, truth, gain @ truth)


@pytest.fixture(scope="session")
def noisy(toy):
    """Add white noise to the data of the small mesh."""
    return toy.data + np.random.default_rng(1).standard_normal(toy.data.shape)


@dataclass(frozen=True, eq=False)
class Patch:
    """A recording of one patch, and the truth."""

    evoked: mne.Evoked
    truth: mne.SourceEstimate
    src: mne.SourceSpaces

    def distances(self, stc):
        """Return peak distance and localization error of an estimate (m)."""
        row = np.abs(stc.data).max(axis=1).argmax()
        true = np.flatnonzero(self.truth.data.any(axis=1))
        rr = np.vstack([s["rr"][s["vertno"]] for s in self.src])
        peak = np.linalg.norm(rr[true] - rr[row], axis=1).min()
        return peak, stc_metrics.localization_error(self.truth, stc, self.src)


@pytest.fixture(scope="session")
def patch(eeg_fwd, eeg_info, cov):
    """Simulate a patch of 15 mm radius in the left hemisphere, with MNE."""
    fwd = mne.convert_forward_solution(eeg_fwd, force_fixed=True)
    near = sparse.csgraph.dijkstra(surface_graph(fwd["src"]), indices=700, limit=0.015)
    data = np.zeros((near.size, 50))
    data[np.isfinite(near)] = 30e-9 * np.exp(-0.5 * ((np.arange(50) - 20) / 6) ** 2)
    vertices = [s["vertno"] for s in fwd["src"]]
    truth = mne.SourceEstimate(data, vertices, -0.05, 1 / 250, "fsaverage5")
    evoked = mne.simulation.simulate_evoked(
        fwd, truth, eeg_info, cov, nave=20, random_state=0
    )
    return Patch(evoked, truth, fwd["src"])

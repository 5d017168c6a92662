"""Estimates to draw, and a subject of two small spheres."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import matplotlib
import mne
import numpy as np
import pytest

from mne_deepsif.head.anatomy import read_white

matplotlib.use("agg")
from matplotlib import pyplot as plt  # noqa: E402


@pytest.fixture(autouse=True)
def closed_figures():
    """Close what a test has drawn."""
    yield
    plt.close("all")


@pytest.fixture(scope="session")
def make_bump():
    """Make an estimate of the template with a bump around a vertex, at 100 ms."""
    white, _ = read_white()

    def make(hemi, vertex, amplitude=2e-9):
        distance = np.linalg.norm(white[hemi] - white[hemi][vertex], axis=1)
        data = np.zeros((2, 10242, 5))
        data[hemi] = np.exp(-0.5 * (distance / 0.008) ** 2)[:, np.newaxis]
        data *= amplitude * np.array([0, 0.5, 1, -0.4, 0])
        vertices = [np.arange(10242)] * 2
        return mne.SourceEstimate(
            data.reshape(-1, 5), vertices, 0.0, 0.05, "fsaverage5"
        )

    return make


@pytest.fixture(scope="session")
def sphere_dir(tmp_path_factory):
    """Write a subject whose hemispheres are spheres: 642 vertices, radius 50 mm."""
    subjects_dir = tmp_path_factory.mktemp("subjects")
    folder = subjects_dir / "ball" / "surf"
    folder.mkdir(parents=True)
    sphere = mne.surface._get_ico_surface(3)
    for hemi in ("lh", "rh"):
        mne.write_surface(
            folder / f"{hemi}.inflated", 50 * sphere["rr"], sphere["tris"]
        )
    return subjects_dir

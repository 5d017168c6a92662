"""Parcels that one can score by hand."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import pytest


@pytest.fixture
def line():
    """Ten parcels on a line, 10 mm apart, of 1 cm² each but the last, of 3 cm²."""
    centers = np.zeros((10, 3))
    centers[:, 0] = 0.01 * np.arange(10)
    areas = np.full(10, 1e-4)
    areas[-1] = 3e-4
    return centers, areas

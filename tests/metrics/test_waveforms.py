"""Pearson's correlation."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mne_deepsif import metrics


def test_linear_correlation():
    """Pearson's r, blind to scale and offset, 0 for a constant."""
    rng = np.random.default_rng(2)
    true, estimated = rng.normal(size=(2, 3, 50))
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(true, estimated, strict=True)]
    assert_allclose(metrics.linear_correlation(true, 3 * estimated + 2), expected)
    assert metrics.linear_correlation(true[0], -true[0]) == pytest.approx(-1)
    assert_array_equal(metrics.linear_correlation(true, np.ones((3, 50))), np.zeros(3))

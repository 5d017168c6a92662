"""Leadfields of 32 electrodes."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
import pytest

from mne_deepsif.head.leadfield import make_leadfield


@pytest.fixture(scope="module")
def eeg_cov(eeg_info):
    """Draw a full covariance of the 32 electrodes, in V²."""
    rng = np.random.default_rng(0)
    mixing = 1e-6 * rng.standard_normal((32, 64))
    data = mixing @ mixing.T
    return mne.Covariance(data, eeg_info["ch_names"], [], [], nfree=1000)


@pytest.fixture
def make(eeg_info, eeg_fwd, eeg_cov, parcels):
    """Make the leadfield of the 32 electrodes, with changes."""

    def function(info=eeg_info, fwd=eeg_fwd, noise_cov=eeg_cov, **kwargs):
        return make_leadfield(info, fwd, noise_cov, parcels=parcels, **kwargs)

    return function

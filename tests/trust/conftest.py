"""A linear estimate, and recordings to judge."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import pytest

from mne_deepsif import make_leadfield, simulate_evoked
from mne_deepsif.inverse.plan import Power, SourceActivity, make_plan


@pytest.fixture(scope="module")
def estimator(minimum_norm):
    """Stand in for the network: a linear estimate, which is quick."""
    return minimum_norm()


@pytest.fixture(scope="module")
def leadfield(eeg_info, eeg_fwd, cov, parcels):
    return make_leadfield(eeg_info, eeg_fwd, cov, parcels=parcels)


@pytest.fixture(scope="module")
def recordings(eeg_fwd, eeg_info, parcels):
    """Simulate a good recording, and sensor noise alone."""
    evoked, _, truth = simulate_evoked(
        eeg_fwd, eeg_info, seeds=[20], parcels=parcels, snr=15.0, random_state=0
    )
    std = np.sqrt(truth.noise_cov["data"])[:, np.newaxis]
    noise = evoked.copy()
    noise.data[:] = std * np.random.default_rng(0).standard_normal(evoked.data.shape)
    return evoked, noise, truth


@pytest.fixture(scope="module")
def plan(eeg_fwd, recordings, estimator):
    """Plan the estimates of both recordings."""
    evoked, _, truth = recordings
    return make_plan(
        evoked.info,
        eeg_fwd,
        truth.noise_cov,
        estimator,
        label=None,
        pick_ori=None,
        rank=None,
        subjects_dir=None,
    )


@pytest.fixture(scope="session")
def as_estimate():
    """Put data and sources together as an estimate."""

    def function(leadfield, data, sources):
        white, fit = leadfield.whiten(data), leadfield.gain_white @ sources
        return SourceActivity(data, white, sources, fit, Power())

    return function

"""Confidence in parcels: passes over parts of the channels."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
from numpy.testing import assert_allclose

from mne_deepsif.trust import confidence


def test_passes_agree_where_channels_repeat(recordings, plan, estimator, monkeypatch):
    """With all of the channels in each pass, the estimate is the whole one."""
    evoked, _, _ = recordings
    white = plan.leadfield.whiten(evoked.data[plan.picks])
    whole = estimator.estimate(white, plan.leadfield.gain_white, 250.0)
    monkeypatch.setattr(confidence, "_KEPT", 1.0)
    (one,) = confidence.estimate_again(evoked.data[plan.picks], plan, 1, 0)
    assert_allclose(one, whole, atol=1e-6 * np.abs(whole).max())


def test_confidence_follows_the_passes(parcels):
    """A parcel that all passes show gets more than one that one pass shows."""
    passes = np.zeros((4, 200, 3))
    passes[:, 5], passes[0, 9] = 1.0, 1.0
    chance = confidence.parcel_confidence(passes, snr=15.0, rank=31)
    assert chance[5] > chance[9] > chance[20]
    silent = confidence.parcel_confidence(np.zeros((4, 200, 3)), snr=15.0, rank=31)
    assert not silent.any()

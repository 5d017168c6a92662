"""Verdicts: probabilities, reasons and warnings."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mne_deepsif import apply_deepsif, assess_deepsif
from mne_deepsif.inverse.plan import estimate_sources
from mne_deepsif.trust import verdict


def test_classify():
    """Probabilities sum to 1; what was not measured takes its usual value."""
    usual = dict(zip(verdict.FEATURES, verdict.read_calibration()["kinds"]["usual"]))
    probabilities = verdict.classify(usual)
    assert set(probabilities) == set(verdict.KINDS)
    assert_allclose(sum(probabilities.values()), 1)
    assert probabilities["good"] > 0.9
    assert verdict.classify(usual | {"eyes": np.nan}) == probabilities
    for name, kind in (("line", "line"), ("eyes", "blink")):
        worse = verdict.classify(usual | {name: 1e3})
        assert worse[kind] > probabilities[kind]


def test_warning(recordings, plan, as_estimate):
    """The front doors' one line: silent on good data, a warning with the reason."""
    evoked, noise, _ = recordings
    silence = np.zeros((200, len(evoked.times)))

    def of(evoked, sources):
        return as_estimate(plan.leadfield, evoked.data, sources)

    with pytest.warns(RuntimeWarning, match="may be wrong: the data look like sensor"):
        verdict.warn_if_unusual(of(noise, silence), plan)
    bad = noise.copy()
    bad.data[3] *= 300
    with pytest.warns(RuntimeWarning, match="channel 'F3' stands alone"):
        verdict.warn_if_unusual(of(bad, silence), plan)
    verdict.warn_if_unusual(estimate_sources(evoked.data, plan), plan)


def test_apply_warns(eeg_fwd, recordings, estimator):
    """apply_deepsif says so of noise, and nothing of a good recording."""
    evoked, noise, truth = recordings
    with pytest.warns(RuntimeWarning, match="may be wrong: the data look like sensor"):
        apply_deepsif(noise, eeg_fwd, truth.noise_cov, estimator=estimator)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        apply_deepsif(evoked, eeg_fwd, truth.noise_cov, estimator=estimator)


def test_unlike_training(eeg_fwd, recordings, estimator):
    """Few channels and a low rate are reasons of their own."""
    evoked, _, truth = recordings
    few = evoked.copy().pick(evoked.ch_names[::3])
    few.resample(50.0)
    report = assess_deepsif(
        few, eeg_fwd, truth.noise_cov, estimator=estimator, n_passes=0
    )
    assert "10 independent channels" in "; ".join(report.reasons)
    assert "sampled at 50 Hz" in "; ".join(report.reasons)


@pytest.mark.parametrize(
    ("eyes", "words"),
    [
        (10.0, ": sources at the eyes explain them better than the estimate does"),
        (-1.0, ": sources at the eyes explain them about as well as the estimate does"),
        (-9.0, ": sources at the eyes explain them too, though less well than"),
        (np.nan, ""),
    ],
)
def test_blink_in_words(eyes, words):
    """No decibels, and nothing about eyes whose place is unknown."""
    usual = dict(zip(verdict.FEATURES, verdict.read_calibration()["kinds"]["usual"]))
    probabilities = dict.fromkeys(verdict.KINDS, 0.1) | dict(good=0.0, blink=0.7)
    (reason,) = verdict.list_reasons(probabilities, usual | dict(eyes=eyes), "Cz")
    assert reason.startswith("the data look like a blink" + words)
    assert "dB" not in reason and "nan" not in reason

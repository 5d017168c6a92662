"""The trust report: on simulated recordings, with maps and errors."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mne_deepsif import apply_deepsif, assess_deepsif


def test_generic_weights(eeg_fwd, recordings):
    """The embedded weights are trusted on the one and not on the other."""
    evoked, noise, truth = recordings
    report = assess_deepsif(evoked, eeg_fwd, truth.noise_cov, n_passes=3)
    assert report.is_trustworthy and report.score < 0.5
    assert report.goodness_of_fit.shape == report.times.shape == evoked.times.shape
    peak = np.abs(evoked.times).argmin()
    assert report.goodness_of_fit[peak] > 0.5
    assert (report.n_channels, report.rank, report.sfreq) == (32, 31, 250.0)
    inside = report.confidence.in_label(truth.labels[0])
    assert inside.data.mean() > 3 * report.confidence.data.mean()
    report = assess_deepsif(noise, eeg_fwd, truth.noise_cov, n_passes=0)
    assert not report.is_trustworthy and report.score > 0.5
    assert "noise" in report.reasons[0] and "noise" in repr(report)
    assert report.confidence is None and report.spread is None


def test_maps(eeg_fwd, recordings, estimator):
    """The maps lie on the source space and repeat with the seed."""
    evoked, _, truth = recordings
    options = dict(noise_cov=truth.noise_cov, estimator=estimator, n_passes=4)
    report = assess_deepsif(evoked, eeg_fwd, **options)
    assert report.confidence.shape == (eeg_fwd["nsource"], 1)
    assert report.spread.shape == (eeg_fwd["nsource"], len(evoked.times))
    assert report.confidence.subject == report.spread.subject == "fsaverage5"
    assert 0 <= report.confidence.data.min() < report.confidence.data.max() <= 1
    again = assess_deepsif(evoked, eeg_fwd, **options)
    assert_allclose(again.spread.data, report.spread.data)
    other = assess_deepsif(evoked, eeg_fwd, **options, random_state=1)
    assert np.abs(other.spread.data - report.spread.data).max() > 0


def outcome(evoked, fwd, noise_cov, estimator):
    """Return the estimate, the report and the warnings."""
    options = dict(noise_cov=noise_cov, estimator=estimator)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        stc = apply_deepsif(evoked, fwd, **options)
    report = assess_deepsif(evoked, fwd, n_passes=2, **options)
    return stc, report, [str(one.message) for one in said]


@pytest.mark.parametrize("which", (0, 1), ids=("good", "noise"))
@pytest.mark.parametrize("kind", ("generic", "linear"))
def test_number_of_averages_does_not_matter(
    eeg_fwd, recordings, estimator, which, kind
):
    """It would scale data and leadfield alike: estimate, report, warning are equal."""
    estimator = estimator if kind == "linear" else "generic"
    evoked, noise_cov = recordings[which], recordings[2].noise_cov
    outcomes = []
    for nave in (1, 50):
        evoked = evoked.copy()
        evoked.nave = nave
        outcomes.append(outcome(evoked, eeg_fwd, noise_cov, estimator))
    (stc, report, said), (other_stc, other, other_said) = outcomes
    assert_array_equal(other_stc.data, stc.data)
    assert said == other_said and bool(said) == bool(which)
    assert other.probabilities == report.probabilities
    assert other.features == report.features and other.reasons == report.reasons
    assert (other.rank, other.n_modes) == (report.rank, report.n_modes)
    assert_array_equal(other.goodness_of_fit, report.goodness_of_fit)
    assert_array_equal(other.confidence.data, report.confidence.data)
    assert_array_equal(other.spread.data, report.spread.data)


def test_errors(eeg_fwd, recordings):
    evoked, _, truth = recordings
    with pytest.raises(TypeError, match="evoked must be an instance of"):
        assess_deepsif(evoked.data, eeg_fwd, truth.noise_cov)
    with pytest.raises(ValueError, match="n_passes must be 0 or more, got -1"):
        assess_deepsif(evoked, eeg_fwd, truth.noise_cov, n_passes=-1)

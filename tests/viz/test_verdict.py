"""The figure of a trust report."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mne_deepsif import TrustReport, plot_trust


@pytest.fixture
def make_report(make_bump):
    def make(reasons=(), has_map=True):
        confidence = make_bump(1, 1652, 0.9)
        confidence = mne.SourceEstimate(
            confidence.data[:, 2:3], confidence.vertices, 0, 1, "fsaverage5"
        )
        shares = dict(good=0.9, noise=0.06, blink=0.03, line=0.01, electrode=0.0)
        return TrustReport(
            probabilities=shares,
            features=dict(snr=-20.0),
            reasons=list(reasons),
            goodness_of_fit=np.array([np.nan, 0.5, -0.2, 0.8]),
            times=np.arange(4) / 100,
            n_channels=32,
            rank=31,
            n_modes=5,
            sfreq=100.0,
            confidence=confidence if has_map else None,
            spread=None,
        )

    return make


def test_good(make_report):
    """The verdict, the probabilities, the fit, and the map from 0 to 1."""
    figure = plot_trust(make_report())
    assert figure.get_suptitle() == "Nothing speaks against the estimate"
    left, right = figure.subfigs
    bars, fit = left.axes
    assert_allclose([bar.get_width() for bar in bars.patches], [90, 6, 3, 1, 0])
    assert bars.get_yticklabels()[0].get_text() == "brain activity"
    assert_allclose(fit.lines[0].get_ydata(), [np.nan, 50, 0, 80])
    assert right.axes[0].get_ylabel() == "medial"
    assert_allclose(right.axes[-1].get_xlim(), [0, 1])
    assert "probability" in right.axes[-1].get_xlabel()


def test_doubtful(make_report):
    """Every reason is there, also without a map."""
    figure = plot_trust(make_report(["a blink", "few channels"], has_map=False))
    assert figure.get_suptitle() == "A blink\nFew channels"
    assert not figure.subfigs and len(figure.axes) == 2


def test_repr_reads_correctly(make_report):
    """A higher number is better, and no decibel is left to puzzle over."""
    text = repr(make_report())
    assert "probability of brain activity 90%" in text and "dB" not in text
    assert "explains up to 80% of the data" in text


def test_errors():
    with pytest.raises(TypeError, match="report must be an instance of TrustReport"):
        plot_trust(None)

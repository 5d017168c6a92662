"""Otsu's threshold against scikit-image's, and the rules."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from skimage.filters import threshold_otsu

from mne_deepsif import metrics


@pytest.mark.parametrize("n_bins", (10, 100, 256))
def test_otsu_agrees_with_scikit_image(n_bins):
    """Our threshold is scikit-image's, on mixtures of several shapes."""
    rng = np.random.default_rng(0)
    mixtures = (
        np.concatenate([rng.normal(0, 1, 900), rng.normal(5, 1, 94)]),
        rng.exponential(size=994) ** 3,
        np.abs(rng.normal(size=(30, 40))),
    )
    for values in mixtures:
        expected = threshold_otsu(values, n_bins)
        assert_allclose(metrics.otsu_threshold(values, n_bins), expected)


def test_otsu_keeps_single_precision():
    """Single precision is not converted, and gives the threshold of double."""
    values = np.abs(np.random.default_rng(0).normal(size=(30, 40))).astype(np.float32)
    expected = metrics.otsu_threshold(values.astype(float), 100)
    assert_allclose(metrics.otsu_threshold(values, 100), expected, rtol=1e-6)
    tiny = metrics.otsu_threshold(1e-40 * values, 100)  # denormal in single precision
    assert_allclose(tiny, 1e-40 * expected, rtol=1e-3)


@settings(deadline=None)
@given(
    values=st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=50),
    scale=st.sampled_from((1e-9, 1.0, 1e6)),
)
def test_otsu_lies_between_the_extremes_and_scales(values, scale):
    """The threshold stays in the range of the values and follows their unit."""
    values = np.array(values)
    threshold = metrics.otsu_threshold(values)
    assert values.min() <= threshold <= values.max()
    assert values.min() * scale <= metrics.otsu_threshold(values * scale)
    assert metrics.otsu_threshold(values * 4) == pytest.approx(4 * threshold)


def test_otsu_of_equal_values_has_nothing_above():
    """Constant values have no foreground, exactly or to rounding."""
    assert metrics.otsu_threshold(np.full(5, 2.5)) == 2.5
    nearly = np.array([1.0, np.nextafter(1.0, 2.0)])
    assert metrics.otsu_threshold(nearly) == nearly.max()


@pytest.mark.parametrize("values", ([], [0.0, np.nan], [1.0, np.inf]))
def test_otsu_rejects_bad_values(values):
    """Empty, NaN and infinite values get one clear error."""
    with pytest.raises(ValueError, match="values must be finite and not empty"):
        metrics.otsu_threshold(values)


def test_rules_differ_as_documented():
    """A short peak is active by the peak rule, by the authors' only if it lasts."""
    sources = np.zeros((50, 500))
    sources[3, 100:107] = -1.0  # 7 samples
    sources[4, 100:108] = 1.0  # 8 samples
    assert_array_equal(np.flatnonzero(metrics.active_parcels(sources)), [3, 4])
    by_authors = metrics.active_parcels(sources, "authors")
    assert_array_equal(np.flatnonzero(by_authors), [4])
    # 1.4 % of 64 samples is 0.9: one sample above the threshold is enough
    short = sources[:, 100:101] * (np.arange(64) == 5)
    assert_array_equal(np.flatnonzero(metrics.active_parcels(short, "authors")), [3, 4])


def test_authors_rule_matches_its_definition():
    """The rule is that of the scripts, on the normalised absolute estimate."""
    rng = np.random.default_rng(1)
    sources = rng.normal(size=(100, 500)) * 0.1
    sources[20:30] += 2 * np.sin(np.arange(500) / 30)
    scaled = np.abs(sources) - np.abs(sources).min()
    scaled /= scaled.max()
    above = scaled > threshold_otsu(scaled, nbins=100)
    expected = (above.sum(axis=1) > 7).nonzero()[0]
    assert_array_equal(
        metrics.active_parcels(sources, "authors").nonzero()[0], expected
    )
    assert_array_equal(expected, np.arange(20, 30))


def test_unknown_rule():
    """A rule that does not exist is named, with those that do."""
    with pytest.raises(ValueError, match="Invalid value for the 'rule' parameter"):
        metrics.active_parcels(np.eye(3), "otsu")

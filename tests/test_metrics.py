"""Metrics: worked out by hand, and against scikit-image's Otsu."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from skimage.filters import threshold_otsu

from mne_deepsif import metrics


@pytest.fixture
def line():
    """Ten parcels on a line, 10 mm apart, of 1 cm² each but the last, of 3 cm²."""
    centers = np.zeros((10, 3))
    centers[:, 0] = 0.01 * np.arange(10)
    areas = np.full(10, 1e-4)
    areas[-1] = 3e-4
    return centers, areas


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


def test_localization_errors_by_hand(line):
    """Truth 2, 3; estimate 3, 5, 9: distances 0, 20, 60 mm there; 10, 0 back."""
    centers, _ = line
    true, estimated = np.array([2, 3]), np.array([3, 5, 9])
    one_sided = (0 + 0.02 + 0.06) / 3
    two_sided = (one_sided + (0.01 + 0) / 2) / 2
    assert metrics.localization_error(true, estimated, centers) == pytest.approx(
        one_sided
    )
    assert metrics.two_sided_localization_error(
        true, estimated, centers
    ) == pytest.approx(two_sided)


def test_area_scores_by_hand(line):
    """Truth 7, 8, 9 (5 cm²); estimate 6, 9 (4 cm²); overlap 9 (3 cm²)."""
    _, areas = line
    true, estimated = np.arange(10) >= 7, np.array([6, 9])
    assert metrics.precision(true, estimated, areas) == pytest.approx(3 / 4)
    assert metrics.recall(true, estimated, areas) == pytest.approx(3 / 5)
    assert metrics.f1(true, estimated, areas) == pytest.approx(2 * 3 / 9)


def test_empty_sets(line):
    """Nothing over nothing is what the docstrings say, without a warning."""
    centers, areas = line
    none, some = np.zeros(10, bool), [1]
    assert np.isnan(metrics.localization_error(some, none, centers))
    assert np.isnan(metrics.two_sided_localization_error([], some, centers))
    assert metrics.precision(some, [], areas) == 0
    assert metrics.recall(none, some, areas) == 0
    assert metrics.f1(some, none, areas) == 0
    assert np.isnan(metrics.spatial_dispersion(some, np.zeros((10, 4)), centers))
    assert np.isnan(metrics.specificity(none, np.eye(10), centers))


def test_linear_correlation():
    """Pearson's r, blind to scale and offset, 0 for a constant."""
    rng = np.random.default_rng(2)
    true, estimated = rng.normal(size=(2, 3, 50))
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(true, estimated, strict=True)]
    assert_allclose(metrics.linear_correlation(true, 3 * estimated + 2), expected)
    assert metrics.linear_correlation(true[0], -true[0]) == pytest.approx(-1)
    assert_array_equal(metrics.linear_correlation(true, np.ones((3, 50))), np.zeros(3))


def test_spatial_dispersion_by_hand(line):
    """Strengths 1, 2 and 1 at 0, 20 and 60 mm: (0 + 40 + 60) / 4 mm."""
    centers, _ = line
    sources = np.zeros((10, 3))
    sources[3, 1], sources[5, 2], sources[9, 0] = -1, 2, 1
    dispersion = metrics.spatial_dispersion([2, 3], sources, centers)
    assert dispersion == pytest.approx(0.1 / 4)


def test_specificity_by_hand(line):
    """Half of the close parcels wrongly active, and one of two of the far ones."""
    centers, _ = line
    sources = np.zeros((10, 1))
    sources[[0, 1, 2]] = 1.0  # truth is 0, 1; 2 is close and wrong
    sources[8] = 0.9  # the strongest far maximum, wrong; the next, 7 or 9, is inactive
    close = 1 - 1 / 3  # 2, 3, 4 lie within 30 mm of 1
    score = metrics.specificity([0, 1], sources, centers)
    assert score == pytest.approx((close + 1 / 2) / 2)
    perfect = np.zeros((10, 1))
    perfect[[0, 1]] = 1.0
    assert metrics.specificity([0, 1], perfect, centers) == 1


def test_matching_by_hand(line):
    """Estimated parcels go to the nearest patch, ties to the first."""
    centers, _ = line
    patches = [np.array([0, 1]), np.array([7])]
    matched, distances = metrics.match_patches([0, 3, 4, 5, 8], patches, centers)
    assert [list(m) for m in matched] == [[0, 3, 4], [5, 8]]
    assert_allclose(distances[0], [0, 0.02, 0.03], atol=1e-12)
    assert_allclose(distances[1], [0.02, 0.01])


def test_evaluate_parcels_by_hand(line):
    """Two patches, one found with one parcel too many, one half found."""
    centers, areas = line
    times = np.arange(100) / 100
    waveforms = np.array([np.sin(6 * times), np.cos(9 * times)])
    patches = [np.array([1, 2]), np.array([8, 9])]
    sources = np.zeros((10, 100))
    sources[[1, 2, 3]] = waveforms[0]
    sources[8] = -waveforms[1]
    scores = metrics.evaluate_parcels(sources, patches, waveforms, centers, areas)
    assert_allclose(scores["le"], [0.01 / 3, 0], atol=1e-12)
    assert_allclose(scores["precision"], [2 / 3, 1])
    assert_allclose(scores["recall"], [1, 1 / 4])
    assert_allclose(scores["correlation"], [1, -1])
    assert_array_equal(scores["missed"], [False, False])


@pytest.mark.parametrize("rule", ("peak", "authors"))
def test_evaluate_nothing(line, rule):
    """An estimate of zero is scored without a division by zero."""
    centers, areas = line
    scores = metrics.evaluate_parcels(
        np.zeros((10, 5)),
        [np.array([1]), np.array([2])],
        np.eye(2, 5),
        centers,
        areas,
        rule,
    )
    assert np.isnan(scores["le"]).all() and scores["missed"].all()
    for name in ("precision", "recall", "correlation"):
        assert_array_equal(scores[name], [0, 0])

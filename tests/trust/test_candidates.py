"""Candidates for sources: on a line of vertices by hand, and on random maps."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.preprocessing import PolynomialFeatures

from mne_deepsif.trust.candidates import (
    FEATURES,
    default_probability,
    describe_candidates,
    find_candidates,
    find_sources,
    probability_of,
    read_model,
    with_products,
)


def _line(n_vertices):
    """Connect each vertex with the next one."""
    ones = np.ones(n_vertices - 1)
    return sparse.csr_array(sparse.diags([ones, ones], [-1, 1]))


@pytest.mark.parametrize(
    "peaks, expected",
    [
        # a quarter of the peak ends it
        ([0, 0.2, 0.3, 1, 0.3, 0.2, 0], [[2, 3, 4]]),
        # the weak peak has a border of its own
        ([1, 0.3, 0.2, 0.4, 0.11], [[0, 1], [3, 4]]),
        # a valley above half of the lower peak does not part them
        ([1, 0.6, 0.8, 0.1], [[0, 1, 2]]),
        ([1, 0.3, 0.8, 0.1], [[0, 1], [2]]),
        # below a tenth of the largest, nothing is a candidate
        ([1, 0, 0.09], [[0]]),
        ([0, 0, 0], []),
        ([1, 1, 1], [[0, 1, 2]]),
    ],
)
def test_pieces_by_hand(peaks, expected):
    found = find_candidates(np.array(peaks, float), _line(len(peaks)))
    assert [sorted(one) for one in found] == expected


def test_a_low_shoulder_is_apart_from_the_piece_it_leans_on():
    """It belongs to the peak, but a gap below the border lies between them."""
    peaks = np.array([1.0, 0.2, 0.3, 0.0])
    found = find_candidates(peaks, _line(4))
    assert [list(one) for one in found] == [[0], [2]]


def test_no_vertex_has_two_candidates():
    rng = np.random.default_rng(0)
    peaks = np.convolve(rng.random(500), np.ones(5))[:500] ** 4
    found = find_candidates(peaks, _line(500))
    together = np.concatenate(found)
    assert len(found) > 3 and len(np.unique(together)) == len(together)
    heights = [peaks[one].max() for one in found]
    assert heights == sorted(heights, reverse=True)
    assert all(peaks[one].min() >= 0.25 * peaks[one].max() for one in found)
    scaled = find_candidates(1e-9 * peaks, _line(500))
    for one, other in zip(found, scaled, strict=True):
        assert_array_equal(one, other)


@pytest.fixture(scope="module")
def two_sources():
    """Two sources of unequal strength, apart in place and time, and their data."""
    rng = np.random.default_rng(1)
    gain = rng.standard_normal((30, 400))
    sources = np.zeros((400, 20))
    sources[5:8, 4:8] = 3.0
    sources[30, 12:16] = 1.0
    return sources, np.full(400, 1e-4), gain, gain @ sources


def test_features_by_hand(two_sources):
    sources, areas, gain, data = two_sources
    found = find_candidates(np.abs(sources).max(1), _line(400))
    table = describe_candidates(found, *two_sources)
    assert table.shape == (2, len(FEATURES))
    columns = dict(zip(FEATURES, table.T))
    assert_allclose(np.exp(columns["own"]), 1, atol=1e-4)  # nothing else explains it
    assert_allclose(np.exp(columns["height"]), [1, 1 / 3])
    assert_allclose(np.exp(columns["contrast"]), np.sqrt(5))  # 4 of 20 samples
    power = np.array([9, 9, 9, 1])
    spread = power.sum() ** 2 / (power**2).sum() / 400
    assert_allclose(np.exp(columns["spread"]), spread)
    assert_allclose(np.exp(columns["fit"]), 1, atol=1e-5)
    assert_allclose(np.exp(columns["modes"]), 30)
    assert_allclose(np.exp(columns["number"]), 2)


def test_scale_and_noise_level_do_not_matter(two_sources):
    sources, areas, gain, data = two_sources
    data = data + np.random.default_rng(2).standard_normal(data.shape)
    found = find_candidates(np.abs(sources).max(1), _line(400))
    table = describe_candidates(found, sources, areas, gain, data)
    other = describe_candidates(found, 1e-9 * sources, 3 * areas, 7 * gain, 7 * data)
    assert_allclose(other, table, rtol=1e-6)


def test_a_twin_explains_nothing_of_its_own(two_sources):
    """Two pieces with the same field: either could be left out."""
    sources, areas, gain, _ = two_sources
    gain = gain.copy()
    gain[:, 30] = gain[:, 5:8].sum(axis=1)
    sources = sources.copy()
    sources[30] = sources[5]
    data = gain @ sources + np.random.default_rng(2).standard_normal((30, 20))
    pieces = [np.array([5, 6, 7]), np.array([30])]
    table = describe_candidates(pieces, sources, areas, gain, data)
    assert (table[:, FEATURES.index("own")] < np.log(1e-3)).all()
    table = describe_candidates(pieces[:1], sources, areas, gain, data)
    assert (table[:, FEATURES.index("own")] > np.log(0.5)).all()


def test_probability(two_sources):
    """What explains all is a source; the same estimate of other data is none."""
    sources, areas, gain, data = two_sources
    found = find_sources(sources, _line(400), areas, gain, data)
    assert [list(vertices) for vertices, _ in found] == [[5, 6, 7], [30]]
    assert all(chance > 0.5 for _, chance in found)
    noise = np.random.default_rng(3).standard_normal(data.shape)
    for others in (noise, -data):
        found = find_sources(sources, _line(400), areas, gain, others)
        assert [chance for _, chance in found] == [0, 0]
    assert find_sources(0 * sources, _line(400), areas, gain, data) == []
    assert find_sources(sources, _line(400), areas, gain, 0 * data) == []


def test_products_are_those_of_scikit_learn():
    table = np.random.default_rng(0).standard_normal((5, len(FEATURES)))
    expected = PolynomialFeatures(2, include_bias=False).fit_transform(table)
    assert_allclose(with_products(table), expected)
    model = read_model()
    assert len(model["coef"]) == expected.shape[1]


def test_default_probability():
    assert 0.1 < default_probability() < 0.9


def test_beyond_the_training_the_nearest_value_counts():
    model = read_model()
    assert tuple(model["features"]) == FEATURES
    far = np.array(model["high"]) + 5
    assert_allclose(probability_of(far[np.newaxis]), probability_of([model["high"]]))

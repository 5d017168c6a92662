"""Patterns of activity within the parcels."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import replace

import mne
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import sparse

from mne_deepsif.head import patterns as module
from mne_deepsif.head.leadfield import make_leadfield
from mne_deepsif.head.patterns import make_patterns


@pytest.fixture(scope="module")
def leadfield(eeg_info, eeg_fwd, parcels):
    cov = mne.make_ad_hoc_cov(eeg_info)
    return make_leadfield(eeg_info, eeg_fwd, cov, parcels=parcels)


@pytest.fixture(scope="module")
def patterns(leadfield):
    return make_patterns(leadfield)


def test_gain_is_that_of_the_activity(leadfield, patterns):
    expected = leadfield.vertex_gain @ patterns.activity.toarray()
    assert_allclose(patterns.gain, expected, atol=1e-12 * np.abs(expected).max())
    found = patterns.gain_of(leadfield.whitener)
    n_parcels = leadfield.gain.shape[1]
    assert found.uniform.shape == (len(leadfield.whitener), n_parcels)
    assert found.fine.shape == (len(leadfield.whitener), len(found.parcel))
    assert_allclose(
        np.hstack([found.fine, found.uniform]), leadfield.whitener @ patterns.gain
    )


def test_three_for_each_parcel(leadfield, patterns):
    """Parcels of ico4 have a dozen vertices; activity outside of parcels is zero."""
    n_parcels = leadfield.gain.shape[1]
    assert_allclose(np.bincount(patterns.parcel), np.full(n_parcels, 3))
    outside = np.concatenate(leadfield.parcel_of_vertex) < 0
    assert outside.any() and not patterns.activity[outside].count_nonzero()


def test_points_are_sources_of_growing_size(leadfield, patterns):
    """Up to ten vertices of each parcel: alone, then smoothed once and four times."""
    found = patterns.gain_of(leadfield.whitener)
    counts = np.bincount(found.owner, minlength=leadfield.gain.shape[1])
    sizes = np.bincount(np.concatenate(leadfield.parcel_of_vertex) + 1)[1:]
    assert counts.max() <= 10 and counts.min() >= 4
    assert (counts == sizes)[sizes <= 10].all()
    assert found.points.shape == (3, len(found.owner), len(leadfield.whitener))
    # the first point of parcel 7, by hand
    vertex = np.flatnonzero(np.concatenate(leadfield.parcel_of_vertex) == 7)[0]
    density = np.zeros(leadfield.vertex_gain.shape[1])
    density[vertex] = 1.0
    smooth = module.make_smoother(leadfield.surface_graph)
    area = np.asarray(leadfield.vertex_area.sum(axis=1)).ravel()
    row = np.flatnonzero(found.owner == 7)[0]
    for scale, n_times in enumerate(module.SCALES):
        activity = density
        for _ in range(n_times):
            activity = smooth(activity)
        expected = leadfield.whitener @ leadfield.vertex_gain @ (area * activity)
        assert_allclose(found.points[scale, row], expected, rtol=1e-6, atol=1e-9)


def test_they_hold_what_the_sensors_see(leadfield, patterns):
    """Of smooth activity within a parcel, nearly all of the field."""
    smooth = module.make_smoother(leadfield.surface_graph)
    area = np.asarray(leadfield.vertex_area.sum(axis=1)).ravel()
    rng = np.random.default_rng(0)
    white = leadfield.whitener @ leadfield.vertex_gain * area
    fine = patterns.gain_of(leadfield.whitener).fine
    missed = []
    for parcel in rng.choice(leadfield.gain.shape[1], 20, replace=False):
        members = leadfield.vertex_area[:, [parcel]].toarray()[:, 0] > 0
        density = smooth(members * rng.standard_normal(len(members)))
        field = white @ density
        own = fine[:, patterns.parcel == parcel]
        fit = own @ np.linalg.lstsq(own, field, rcond=None)[0]
        missed.append(np.sum((field - fit) ** 2) / np.sum(field**2))
    assert np.mean(missed) < 0.03


def test_back_to_parcels(leadfield, patterns):
    """The mean over the vertices of a parcel; uniform activity mostly stays its own."""
    matrix = patterns.to_parcels(leadfield)
    n_fine = len(patterns.parcel)
    rng = np.random.default_rng(1)
    coefficients = rng.standard_normal(patterns.activity.shape[1])
    moments = patterns.activity @ coefficients
    parcel = np.concatenate(leadfield.parcel_of_vertex)
    area = np.asarray(leadfield.vertex_area.sum(axis=1)).ravel()
    for index in (0, 77, 199):
        inside = parcel == index
        expected = np.mean(moments[inside] / area[inside])
        assert_allclose((matrix @ coefficients)[index], expected)
    uniform = matrix[:, n_fine:].toarray()
    assert_allclose(uniform.sum(1), 1, atol=0.35)  # the rest is smoothed out of cortex
    assert (uniform.argmax(1) == np.arange(len(uniform))).all()


def test_smoothing_is_the_same_on_any_mesh():
    """The mean square distance is some 30 mm² on meshes of 1.5 to 5 mm."""
    for edge in (1.5e-3, 3e-3, 5e-3):
        n = int(60e-3 / edge)
        grid = np.stack(np.meshgrid(np.arange(n), np.arange(n)), -1).reshape(-1, 2)
        # a triangular mesh: six neighbours
        steps = np.array([[1, 0], [0, 1], [1, -1]])
        index = {tuple(point): k for k, point in enumerate(grid)}
        pairs = [
            (k, index[tuple(point + step)])
            for k, point in enumerate(grid)
            for step in steps
            if tuple(point + step) in index
        ]
        i, j = np.transpose(pairs)
        graph = sparse.csr_array((np.full(len(i), edge), (i, j)), shape=(n * n, n * n))
        smooth = module.make_smoother((graph + graph.T).tocsr())
        middle = np.zeros(n * n)
        middle[index[n // 2, n // 2]] = 1
        spread = smooth(middle)
        assert_allclose(spread.sum(), 1)
        rr = edge * grid @ np.array([[1, 0], [0.5, np.sqrt(0.75)]])
        mean = spread @ rr
        distance = np.square(rr - mean).sum(1)
        assert_allclose(spread @ distance, module._SPREAD, rtol=0.35)


def test_any_number_of_vertices(leadfield, eeg_info):
    """Parcels of no or one vertex, or of very many; vertices without neighbours."""
    few = [part.copy() for part in leadfield.parcel_of_vertex]
    few[0][few[0] == 3] = -1
    few[0][np.flatnonzero(few[0] == 5)[1:]] = -1
    few[1][few[1] >= 0] = 150  # one huge parcel
    area = leadfield.vertex_area.sum(axis=1)
    parcel = np.concatenate(few)
    inside = np.flatnonzero(parcel >= 0)
    other = replace(
        leadfield,
        parcel_of_vertex=few,
        vertex_area=sparse.csr_array(
            (np.asarray(area).ravel()[inside], (inside, parcel[inside])),
            shape=leadfield.vertex_area.shape,
        ),
        surface_graph=0 * leadfield.surface_graph,
    )
    found = make_patterns(other)
    counts = np.bincount(found.parcel, minlength=200)
    assert (counts[3], counts[5], counts[150]) == (0, 1, 3)
    assert np.isfinite(found.gain).all()

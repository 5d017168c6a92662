"""Heads on a small sphere: patches, sensors, and leadfields that are drawn of them."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from scipy.sparse.csgraph import dijkstra

from mne_deepsif.head.patterns import make_smoother, smooth_gains, smoothing_steps
from mne_deepsif.training import heads as module
from mne_deepsif.training.cortical import RADII, draw_samples
from mne_deepsif.training.heads import (
    KINDS,
    Spread,
    draw_cap,
    draw_leadfield,
    draw_patches,
    draw_sensors,
    estimated_whitener,
    farthest_points,
    geodesic_distances,
)


def generator(seed=0):
    """Return torch's random numbers."""
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def graph(cortex, head):
    """Give the distances between neighbours as SciPy wants them."""
    rows, columns = np.nonzero(
        np.arange(len(head.rr))[:, None] != cortex.neighbours.numpy()
    )
    columns = cortex.neighbours.numpy()[rows, columns]
    rr = head.rr.numpy()
    length = np.linalg.norm(rr[rows] - rr[columns], axis=1)
    return sparse.csr_array((length, (rows, columns)), shape=(len(rr),) * 2)


@pytest.fixture(scope="module")
def patches(head, cortex):
    """Give patches of all sizes."""
    return draw_patches(head, cortex, 2, 900, np.random.default_rng(0))


def test_geodesic_distances(head, cortex, graph):
    """SciPy's search finds the same paths, and what is beyond the limit."""
    middle, limit = torch.tensor([0, 7, 30]), torch.tensor([0.0, 0.03, 0.2])
    found = geodesic_distances(head.rr, cortex.neighbours, middle, limit).numpy()
    for column, start, most in zip(found.T, middle.tolist(), limit.tolist()):
        expected = dijkstra(graph, indices=start)
        expected[expected > most] = np.inf
        assert_allclose(column, expected, rtol=1e-5)
    assert np.isfinite(found).sum(axis=0)[0] == 1


def test_smoothing_is_that_of_estimates(cortex, graph):
    """The package smooths gains and activity with SciPy."""
    smooth = make_smoother(graph)
    n_steps = smoothing_steps(graph)
    smoothing = cortex.smoothing(n_steps)
    values = np.random.default_rng(0).standard_normal((len(cortex.area), 3))
    tensor = torch.as_tensor(values).float()
    assert_allclose(smoothing @ tensor, smooth(values), atol=1e-5)
    transposed = smoothing.transpose() @ tensor
    assert_allclose(transposed, smooth(values, transpose=True), atol=1e-5)
    gains = module._smoothed(tensor, smoothing.transpose(), (0, 1, 4))
    for one, two in zip(gains, smooth_gains(values, smooth), strict=True):
        assert_allclose(one, two, atol=1e-5)


def test_smoothing_on_a_gpu(cortex):
    """There, one dense matrix in bfloat16 replaces sparse steps."""
    sparse_steps = cortex.smoothing(3)
    dense = sparse_steps.steps[0].to_dense().matrix_power(3).bfloat16()
    values = torch.randn(len(cortex.area), 4, generator=generator())
    for one, two in (
        (sparse_steps, module.Smoothing([dense])),
        (sparse_steps.transpose(), module.Smoothing([dense]).transpose()),
    ):
        assert_allclose(two @ values, one @ values, atol=2e-2)


def test_patches(patches, head, cortex, graph):
    """They have the sizes that they should, and are 1 in the middle."""
    activity = patches.activity.float().numpy()
    middle = torch.cdist(patches.centre, head.rr).argmin(1).numpy()
    assert_allclose(activity[np.arange(len(middle)), middle], 1)
    assert_allclose(activity.max(axis=1), 1)
    assert set(middle) <= set(cortex.middles) and len(set(middle)) > 140
    reach = [
        np.max(dijkstra(graph, indices=one)[row > 0])
        for one, row in zip(middle[::30], activity[::30])
    ]
    assert 0.02 < max(reach) <= RADII[-1][1] * 1e-3  # edges have some 25 mm
    single = np.sum(activity > 0, axis=1) == 1
    assert 0.6 < single.mean() < 0.85  # all below the length of an edge
    is_soft = np.any((activity > 0) & (activity < 0.99), axis=1)
    assert 0.3 < is_soft[~single].mean() < 0.5
    assert_allclose(
        patches.smoothed.float().T,
        patches.smoothing @ patches.activity.float().T,
        atol=1e-3,
    )
    inside = head.parcel.numpy() >= 0
    power = np.square(patches.smoothed.float().numpy()) @ inside.T
    assert_allclose(patches.power.T, power, rtol=1e-3)


def test_caps(head):
    """Usual caps as often as they should, else electrodes that spread."""
    rng = np.random.default_rng(0)
    caps = [set(np.flatnonzero(cap)) for cap in head.caps]
    drawn = [set(draw_cap(head, rng)) for _ in range(400)]
    of_a_cap = np.mean([any(one <= cap for cap in caps) for one in drawn])
    assert 0.5 < of_a_cap < 0.75  # few of the spread ones are in a cap by chance
    assert min(map(len, drawn)) >= 8


def test_farthest_points():
    """Evenly spread: on a line, the largest gap is about the mean one."""
    points = np.linspace(0, 1, 1001)[:, None]
    picks = farthest_points(points, 33, np.random.default_rng(0))
    assert len(np.unique(picks)) == 33
    assert np.diff(points[picks, 0]).max() < 2.5 / 33


@pytest.mark.parametrize("kind", KINDS)
def test_sensors_are_those_of_the_head(head, kind, monkeypatch):
    """With the right forward, the gain is the product along the normals."""
    monkeypatch.setattr(module, "_WRONG", 0.0)
    normals = head.normals[0]
    rng = np.random.default_rng(3)
    sensors = draw_sensors(head, kind, normals, rng, generator())
    assert_array_equal(sensors.assumed, sensors.true)
    assert_allclose(sensors.noise.trace(), len(sensors.noise), rtol=1e-5)
    if kind != "mag":
        return
    full = torch.einsum("hacr,rpk->hacpk", head.meg, head.meg_patterns)
    full = torch.einsum("hacpk,pk->hacp", full, normals)[:, 0].flatten(0, 1)
    full, found = full / full.norm(dim=1, keepdim=True), sensors.assumed
    found = found / found.norm(dim=1, keepdim=True)
    best = (found @ full.T).abs().amax(1)
    assert_allclose(best, 1, atol=1e-4)


def test_potentials_have_no_reference(head, monkeypatch):
    """What is added to all electrodes changes nothing."""
    monkeypatch.setattr(module, "_WRONG", 0.0)
    shifted = replace(head, eeg=head.eeg + 5)
    one, two = (
        draw_sensors(x, "eeg", head.normals[0], np.random.default_rng(0), generator())
        for x in (head, shifted)
    )
    assert_allclose(one.assumed, two.assumed, atol=1e-3)


def test_most_forwards_are_wrong(head):
    rng, random = np.random.default_rng(0), generator()
    wrong = []
    for _ in range(60):
        sensors = draw_sensors(head, "mag", head.normals[0], rng, random)
        wrong.append(not torch.equal(sensors.assumed, sensors.true))
    assert 0.55 < np.mean(wrong) < 0.92


def test_estimated_whitener():
    """With many samples, whitened noise is white."""
    rng = np.random.default_rng(0)
    factor = torch.randn(12, 12, generator=generator()) + 3 * torch.eye(12)
    covariance = factor @ factor.T
    errors = []
    for _ in range(8):
        whitener = estimated_whitener(covariance, rng, generator())
        white = whitener @ covariance @ whitener.T
        errors.append(float((white - torch.eye(12)).abs().max()))
    assert 0.005 < min(errors) < 0.1 < max(errors) < 2


def test_spread(cortex):
    """Activity is that of the places plus that of their parcels, smoothed."""
    used, parcel = torch.tensor([1, 2, 5]), torch.tensor([0, 1, 1])
    smoothing = cortex.smoothing(2)
    spread = Spread(smoothing, used, parcel, len(cortex.area))
    coefficients = torch.tensor([[1.0], [2.0], [3.0], [10.0], [20.0]])
    places = torch.zeros(len(cortex.area), 1)
    places[used] = torch.tensor([[11.0], [22.0], [23.0]])
    assert_allclose(spread @ coefficients, smoothing @ places)


@pytest.mark.parametrize("kind", KINDS)
def test_leadfield_and_truth_agree(head, patches, cortex, kind, monkeypatch):
    """With the right forward and covariance, simulated noise is white.

    And the gain of an estimate's patterns is that of the activity they stand for.
    """
    monkeypatch.setattr(module, "_WRONG", 0.0)
    monkeypatch.setattr(module, "estimated_whitener", exact_whitener)
    leadfield, truth = draw_leadfield(
        head, patches, cortex, np.random.default_rng(5), generator(), kind
    )
    n_channels, n_used = leadfield.prior.n_channels, len(leadfield.spread.used)
    noise = truth.noise @ truth.noise.T
    brain = truth.background @ cortex.covariance @ truth.background.T
    assert_allclose(noise + brain, torch.eye(n_channels), atol=1e-3)
    # the gain of each place follows from that of the patches
    activity = patches.activity.double()
    assert torch.linalg.matrix_rank(activity) == len(head.rr)
    moments = torch.linalg.lstsq(activity, truth.patch_gain.double()).solution
    n_parcels = len(cortex.parcel_areas)
    spread = (leadfield.spread @ torch.eye(n_used + n_parcels)).double()
    expected = (spread.T @ moments).T
    prior = leadfield.prior
    fine = prior.modes @ torch.cat([prior.fine, prior.patch], 1)
    expected[:, n_used:] = expected[:, n_used:] @ prior.profiles.double()
    scale = (fine * expected).sum() / expected.square().sum()
    assert_allclose(fine, scale * expected, atol=2e-2 * float(fine.abs().max()))


def exact_whitener(covariance, *_):
    """Whiten by the true covariance."""
    return torch.linalg.inv(torch.linalg.cholesky(covariance))


def test_samples_of_a_drawn_leadfield(head, patches, cortex):
    """Windows without sources have white noise, of unit variance on average."""
    leadfield, truth = draw_leadfield(
        head, patches, cortex, np.random.default_rng(2), generator(), "mag"
    )
    samples = draw_samples(
        truth, cortex.waveforms, cortex.background, 125.0, 256, 32, generator()
    )
    silent = samples.data[~samples.is_on.any(1)]
    assert 0.3 < silent.square().mean() < 3
    assert leadfield.targets_of(samples.patch).shape == (256, 5, len(head.rr))

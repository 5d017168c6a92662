"""The minimum norm whose prior is the network's answer."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import copy
import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.sparse.csgraph import shortest_path

from mne_deepsif.network.device import FewRows
from mne_deepsif.network.encoder import N_SCALES, backprojection_kernels, scan
from mne_deepsif.network.prior import (
    _EXPONENT,
    _FLOOR,
    _LAMBDAS,
    CorticalPrior,
    Spectrum,
    differentiable_estimate,
    patch_profiles,
    prior_variances,
    reweigh,
    split_modes,
)

N_CHANNELS, N_PARCELS, N_TIMES = 8, 30, 4
# parcels of three, two, one or no fine patterns, not in order
PARCEL = np.random.default_rng(0).permutation(np.repeat(np.arange(30), [3, 2, 1] * 10))


@pytest.fixture
def gains():
    """Give the gains of fine patterns and of whole parcels, and profiles of patches."""
    rng = np.random.default_rng(1)
    fine = rng.standard_normal((N_CHANNELS, len(PARCEL)))
    uniform = rng.standard_normal((N_CHANNELS, N_PARCELS))
    profiles = np.eye(N_PARCELS) + 0.3 * np.eye(N_PARCELS, k=1)
    return fine, uniform, profiles / profiles.sum(0)


@pytest.fixture
def prior(gains):
    """Give the prior of these gains."""
    fine, uniform, profiles = (torch.as_tensor(g).float() for g in gains)
    return CorticalPrior(fine, torch.as_tensor(PARCEL), uniform, profiles)


@pytest.fixture
def case():
    """Give answers of three windows, and data."""
    rng = np.random.default_rng(2)
    shapes = (3, 2 * N_PARCELS, N_TIMES), (3, N_CHANNELS, N_TIMES)
    return [torch.as_tensor(rng.standard_normal(s)).float() for s in shapes]


def spectrum_of(prior, variances):
    """Return eigenvalues and eigenvectors of the data's covariance."""
    return Spectrum(prior.covariance(variances), prior.n_channels)


def solve(prior, variances, data):
    """Return the coefficients of data, and the cost of the prior."""
    modes, each = split_modes(prior, data), torch.arange(len(data))
    found = spectrum_of(prior, variances).explain(*modes, each)
    return prior.estimate(variances, found.weights), found.cost


def test_patch_profiles(parcels):
    """Activity falls with the number of borders in between, down to zero."""
    profiles = patch_profiles(parcels.adjacency)
    assert_allclose(profiles.sum(0), 1)
    steps = shortest_path(parcels.adjacency > 0, unweighted=True)
    means = [profiles[steps == n].mean() for n in range(5)]
    assert (np.diff(means[:4]) < 0).all() and means[4] == 0
    assert profiles[np.isinf(steps)].max(initial=0) == 0  # not into the other half


def test_variances(case):
    """The power of both parts, with an exponent and a floor; their share is kept."""
    answer, _ = case
    found = prior_variances(answer, N_PARCELS)
    power = answer.square().sum(2).reshape(3, 2, N_PARCELS)
    total = power.sum(1)
    expected = (total / total.mean(1, keepdim=True)) ** _EXPONENT
    expected = expected / expected.mean(1, keepdim=True) + _FLOOR
    expected = expected[:, None] * power / total[:, None]
    assert_allclose(found.reshape(3, 2, N_PARCELS), expected, rtol=1e-5)
    # one row for each parcel: half for each part
    half = prior_variances(answer[:, :N_PARCELS], N_PARCELS)
    assert_allclose(half[:, :N_PARCELS], half[:, N_PARCELS:])
    assert not prior_variances(0 * answer, N_PARCELS).any()


def test_textbook(prior, gains, case):
    """It is the minimum norm of this prior, with the likeliest of the noise levels."""
    answer, data = case
    variances = prior_variances(answer, N_PARCELS)
    found, cost = solve(prior, variances, data)
    fine, uniform, profiles = gains
    patch = uniform @ profiles
    ratio = np.sum(fine**2) / np.sum(patch**2)
    mixing = np.block(
        [
            [np.eye(len(PARCEL)), np.zeros((len(PARCEL), N_PARCELS))],
            [np.zeros((N_PARCELS, len(PARCEL))), np.sqrt(ratio) * profiles],
        ]
    )
    gain = np.hstack([fine, uniform])
    for window, y in enumerate(data.double().numpy()):
        small, large = variances[window].double().numpy().reshape(2, -1)
        covariance = mixing @ np.diag(np.r_[small[PARCEL], large]) @ mixing.T
        signal = gain @ covariance @ gain.T
        found_by = {}
        for level in _LAMBDAS:
            noise = level * np.trace(signal) / N_CHANNELS * np.eye(N_CHANNELS)
            weights = np.linalg.solve(signal + noise, y)
            scale = np.sum(y * weights) / y.size
            log_det = np.linalg.slogdet(scale * (signal + noise))[1]
            found_by[log_det] = covariance @ gain.T @ weights
        expected = found_by[min(found_by)]
        assert_allclose(found[window], expected, atol=1e-4 * np.abs(expected).max())
        # minus twice the log likelihood per time, up to a constant
        constant = N_CHANNELS * np.log(y.size)
        assert cost[window] == pytest.approx(min(found_by) + constant, rel=1e-4)


def test_covariance_is_that_of_the_estimate(prior, case):
    """Gain times coefficients is covariance times weights."""
    answer, data = case
    variances = prior_variances(answer, N_PARCELS)
    weights = prior.modes.T @ data
    estimate = prior.estimate(variances, weights)
    fine = prior.fine @ estimate[:, : len(PARCEL)]
    patch = prior.patch @ torch.linalg.solve(prior.profiles, estimate[:, len(PARCEL) :])
    expected = prior.covariance(variances) @ weights
    assert_allclose(fine + patch, expected, atol=1e-4 * expected.abs().max())
    found = spectrum_of(prior, variances).explain(
        weights, torch.zeros(3), torch.arange(3)
    )
    expected = prior.covariance(variances) @ found.weights
    assert_allclose(found.predicted, expected, atol=1e-4 * expected.abs().max())


def test_modes_leave_nothing_out(gains):
    """Few modes hold the gain of many channels that see the same."""
    fine, uniform, profiles = gains
    rng = np.random.default_rng(3)
    basis = np.linalg.qr(rng.standard_normal((40, N_CHANNELS)))[0]
    few = [torch.as_tensor(g).float() for g in (fine, uniform, profiles)]
    many = [torch.as_tensor(basis @ g).float() for g in (fine, uniform)]
    parcel = torch.as_tensor(PARCEL)
    prior = CorticalPrior(many[0], parcel, many[1], few[2])
    assert prior.modes.shape == (40, N_CHANNELS)
    data = torch.as_tensor(rng.standard_normal((2, 40, 3))).float()
    variances = torch.rand(2, 2 * N_PARCELS) + 0.1
    _, cost = solve(prior, variances, data)
    # the same with all channels, by the textbook
    signal = prior.modes @ prior.covariance(variances) @ prior.modes.T
    level = signal.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(40)
    costs = []
    for ratio in _LAMBDAS:
        weights = torch.linalg.solve(signal + ratio * level, data)
        power = (data * weights).sum((1, 2))
        costs.append(torch.logdet(signal + ratio * level) + 40 * power.log())
    assert_allclose(cost, torch.stack(costs).amin(0), rtol=1e-4)


def test_sign_and_scale(prior, case):
    """It follows sign and scale of the data; those of the answer do not matter."""
    answer, data = case
    expected, _ = solve(prior, prior_variances(answer, N_PARCELS), data)
    for sign in (-1.0, 1e-3, 1e4):
        found, _ = solve(prior, prior_variances(answer, N_PARCELS), sign * data)
        assert_allclose(found, sign * expected, rtol=1e-3, atol=1e-4 * abs(sign))
        found, _ = solve(prior, prior_variances(sign * answer, N_PARCELS), data)
        assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_windows_do_not_mix(prior, case):
    """A window alone gives what it gives among others; a prior is chosen by index."""
    answer, data = case
    variances = prior_variances(answer, N_PARCELS)
    together, costs = solve(prior, variances, data)
    alone, cost = solve(prior, variances[1:2], data[1:2])
    assert_allclose(alone[0], together[1], rtol=1e-4, atol=1e-5)
    assert_allclose(cost, costs[1:2], rtol=1e-5)
    modes = prior.modes.T @ data
    spectrum = spectrum_of(prior, variances)
    turned = spectrum.explain(modes[[2, 0]], torch.zeros(2), torch.tensor([2, 0]))
    assert_allclose(turned.cost, costs[[2, 0]], rtol=1e-4)


def test_silence(prior, case):
    """No answer, or no data: no activity."""
    answer, data = case
    answer[0], data[1] = 0, 0
    found, _ = solve(prior, prior_variances(answer, N_PARCELS), data)
    assert not found[:2].any() and found[2].any()
    assert torch.isfinite(found).all()


def test_the_true_prior_is_the_likelier(prior):
    """Data of one parcel: its own prior costs less than that of another."""
    variances = torch.full((2, 2 * N_PARCELS), 1e-3)
    variances[0, 5] = variances[1, 20] = 10.0
    rng = np.random.default_rng(4)
    fine = prior.fine[:, prior.parcel == 5]
    data = fine @ torch.as_tensor(rng.standard_normal((fine.shape[1], 6))).float()
    data = (data + 1e-2 * torch.as_tensor(rng.standard_normal(data.shape)).float())[
        None
    ]
    spectrum, rest = spectrum_of(prior, variances), torch.zeros(1)
    costs = [
        float(spectrum.explain(data, rest, torch.tensor([k])).cost) for k in (0, 1)
    ]
    assert costs[0] < costs[1] - 5


def test_gradient(prior, case):
    """Training gets the same estimate, and gradients where nothing is active, too."""
    answer, data = case
    answer[0, :5] = answer[0, N_PARCELS : N_PARCELS + 5] = 0
    answer.requires_grad_()
    variances = prior_variances(answer, N_PARCELS)
    found = differentiable_estimate(prior, variances, data)
    held = variances.detach()
    held = reweigh(prior, held, *split_modes(prior, data))
    expected, _ = solve(prior, held, data)
    assert_allclose(found.detach(), expected, rtol=1e-3, atol=1e-5)
    found.square().sum().backward()
    assert torch.isfinite(answer.grad).all() and answer.grad.any()


# ------------------------------------------------------- evidence of the data


def test_evidence_is_flat_where_the_prior_is_right(prior):
    """Many data of the prior itself: each parcel explains what is expected of it."""
    generator = torch.Generator().manual_seed(6)
    variances = torch.rand(1, 2 * N_PARCELS, generator=generator) + 0.1
    covariance = prior.covariance(variances)[0] + 0.1 * torch.eye(len(prior.fine))
    factor = torch.linalg.cholesky(covariance)
    noise = torch.randn(len(factor), 40_000, generator=generator)
    inverse = torch.linalg.inv(covariance)
    ratios = prior.evidence((inverse @ factor @ noise)[None], inverse[None])
    used = torch.cat([torch.bincount(prior.parcel, minlength=N_PARCELS) > 0] * 2)
    used[N_PARCELS:] = True
    assert_allclose(ratios[0, used] / 40_000, 1, atol=0.05)
    # the sum over a parcel's patterns, by hand
    fine = prior.fine[:, prior.parcel == 3]
    weights = torch.randn(1, len(factor), 5, generator=generator)
    found = (fine.T @ weights[0]).square().sum() / (fine.T @ inverse @ fine).trace()
    assert_allclose(prior.evidence(weights, inverse[None])[0, 3], found, rtol=1e-3)


def test_reweighing_raises_the_likelihood(prior):
    """Variance goes to the parcel that holds the source; the data become likelier."""
    variances = torch.ones(2, 2 * N_PARCELS)
    rng = np.random.default_rng(7)
    fine = (prior.modes @ prior.fine)[:, prior.parcel == 5]
    data = fine @ torch.as_tensor(rng.standard_normal((2, fine.shape[1], 6))).float()
    data += 0.1 * torch.as_tensor(rng.standard_normal(data.shape)).float()
    costs = [solve(prior, variances, data)[1]]
    for _ in range(3):
        variances = reweigh(prior, variances, *split_modes(prior, data))
        costs.append(solve(prior, variances, data)[1])
        assert (variances[:, :N_PARCELS].argmax(1) == 5).all()
    assert (torch.diff(torch.stack(costs), dim=0) < -0.5).all()
    # neither sign nor scale of the data matters, nor that of other windows
    again = reweigh(prior, variances, *split_modes(prior, -1e-3 * data))
    expected = reweigh(prior, variances[:1], *split_modes(prior, data[:1]))
    assert_allclose(again[:1], expected, rtol=1e-3)


def test_reweighing_keeps_silence(prior, case):
    """No answer stays none, and without data nothing breaks."""
    answer, data = case
    answer[0], data[1] = 0, 0
    variances = prior_variances(answer, N_PARCELS)
    found = reweigh(prior, variances, *split_modes(prior, data))
    assert not found[0].any() and torch.isfinite(found).all()
    assert_allclose(found[1:].mean(1), 1 + _FLOOR / 2, rtol=1e-4)


# --------------------------------------------------------------- the scan


@pytest.fixture
def points(gains):
    """Give the gains of fine patterns as points of all scales, and their parcels."""
    fine = torch.as_tensor(gains[0].T).float()
    return fine.expand(N_SCALES, -1, -1), torch.as_tensor(PARCEL)


def test_scan_finds_each_point(prior, points):
    """The score is largest in the parcel of the point that is active, at all scales."""
    kernels = prior.scan_kernels(*points, 1e-6)
    assert kernels.shape == (3, N_CHANNELS, N_SCALES * N_PARCELS)
    scores = scan(points[0][0].T[None], kernels)[0].unflatten(1, (N_SCALES, -1))
    for scale in range(N_SCALES):
        assert_allclose(scores[:, scale].argmax(1), PARCEL)


def test_scan_of_single_points_is_a_backprojection(gains):
    """With one point for each parcel, scores are absolute values of sLORETA's."""
    gain = torch.as_tensor(gains[0][:, :N_PARCELS]).float()
    each = torch.arange(N_PARCELS)
    prior = CorticalPrior(gain, each, gain, torch.eye(N_PARCELS))
    expected = backprojection_kernels(gain, [0.1])
    data = torch.randn(2, N_CHANNELS, 3, generator=torch.Generator().manual_seed(0))
    expected = (expected @ data).abs().mT
    sizes = torch.tensor([1.0, 7.0, 1e-3])[:, None, None]  # of no account
    scores = scan(data, prior.scan_kernels(gain.T * sizes, each))
    assert_allclose(scores.square().sum(1).mean(1).sqrt(), 1, rtol=1e-5)
    for found in scores.split(N_PARCELS, 2):
        assert_allclose(found / scores[:, :1, :1], expected / expected[:, :1, :1], 2e-3)


def test_scan_without_gain_or_data(prior, points):
    """Parcels without points score nothing; without data, none does."""
    kernels = prior.scan_kernels(*points)
    empty = np.setdiff1d(np.arange(N_PARCELS), PARCEL)
    data = torch.ones(1, N_CHANNELS, 1)
    assert not scan(data, kernels)[..., empty].any()
    assert not scan(0 * data, kernels).any()
    silent = points[0].clone()
    silent[:, 0] = 0  # a vertex that no channel sees
    assert torch.isfinite(scan(data, prior.scan_kernels(silent, points[1]))).all()


def test_few_windows_are_the_same(prior):
    """The products for a few windows are those for many."""
    rng = np.random.default_rng(5)
    variances = torch.as_tensor(10 ** rng.uniform(-3, 3, (3, 2 * N_PARCELS))).float()
    covariance = prior.covariance(variances)
    inverse = torch.linalg.inv(covariance.double() + torch.eye(len(prior.fine)))
    weights = torch.as_tensor(rng.standard_normal((3, len(prior.fine), 4))).float()
    ratios = prior.evidence(weights, inverse.float())
    few = copy.copy(prior)
    few.expect_few_windows()
    assert FewRows.suits(prior._squares) == (few._few_rows is not None)
    assert_allclose(few.covariance(variances), covariance, rtol=1e-5, atol=1e-5)
    assert_allclose(few.evidence(weights, inverse.float()), ratios, rtol=1e-4)
    assert pickle.loads(pickle.dumps(few))._few_rows is None
    assert few.covariance(variances.requires_grad_()).requires_grad

"""The encoders: kernels against MNE, encoding and components written out."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
import pytest
import torch
from mne.minimum_norm import apply_inverse, make_inverse_operator
from numpy.testing import assert_allclose, assert_array_equal

from mne_deepsif import Model, make_leadfield
from mne_deepsif.estimator import make_training_leadfield
from mne_deepsif.head.leadfield import channel_std
from mne_deepsif.network.architectures import make_network
from mne_deepsif.network.encoder import (
    N_KERNELS,
    REGULARIZATIONS,
    backprojection_kernels,
    encode,
    encode_windows,
    principal_components,
)
from mne_deepsif.training.batches import Batches

N_CHANNELS, N_PARCELS = 20, 50


@pytest.fixture(scope="module")
def gain():
    generator = torch.Generator().manual_seed(0)
    options = dict(generator=generator, dtype=torch.float64)
    mixing = torch.randn(N_CHANNELS, N_CHANNELS, **options)
    return mixing @ torch.randn(N_CHANNELS, N_PARCELS, **options)


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, N_CHANNELS, 16, generator=generator, dtype=torch.float64)


# --------------------------------------------------------------- back-projection


@pytest.mark.parametrize("regularization", (1e-4, 0.003, 0.1, 10.0))
def test_point_sources_are_localised_without_error(gain, regularization):
    """The property that sLORETA has and minimum norm lacks."""
    kernel = backprojection_kernels(gain, [regularization])
    response = (kernel @ gain).abs()
    assert_array_equal(response.argmax(0), np.arange(N_PARCELS))


@pytest.mark.parametrize("regularization", REGULARIZATIONS)
def test_kernels_are_those_of_mne(eeg_info, eeg_fwd, regularization):
    """MNE's sLORETA of the same forward differs by one factor only."""
    cov = mne.make_ad_hoc_cov(eeg_info)
    fwd = mne.convert_forward_solution(eeg_fwd, surf_ori=True, force_fixed=True)
    rng = np.random.default_rng(0)
    evoked = mne.EvokedArray(1e-6 * rng.standard_normal((32, 10)), eeg_info)
    inverse = make_inverse_operator(eeg_info, fwd, cov, fixed=True, depth=None)
    expected = apply_inverse(evoked, inverse, regularization, "sLORETA").data

    whitener, _ = mne.cov.compute_whitener(cov, eeg_info, pca=True)
    gain_white = torch.tensor(whitener @ fwd["sol"]["data"].astype(float))
    assert len(gain_white) == 31  # the average reference takes one
    kernel = backprojection_kernels(gain_white, [regularization]).numpy()
    estimate = kernel @ (whitener @ evoked.data)
    estimate *= np.sum(estimate * expected) / np.sum(estimate**2)
    assert_allclose(estimate, expected, atol=1e-5 * np.abs(expected).max())


def test_kernels_lie_one_below_the_other(gain):
    kernels = backprojection_kernels(gain)
    assert kernels.shape == (N_KERNELS * N_PARCELS, N_CHANNELS)
    for kernel, regularization in zip(kernels.split(N_PARCELS), REGULARIZATIONS):
        assert torch.equal(kernel, backprojection_kernels(gain, [regularization]))


def test_kernels_do_not_depend_on_the_unit(gain):
    """The values of sLORETA do not have the unit of sources."""
    expected = backprojection_kernels(gain)
    assert_allclose(1e6 * backprojection_kernels(1e6 * gain), expected)


def test_parcels_without_gain_have_zero_rows(gain):
    gain = gain.clone()
    gain[:, [4, 17]] = 0
    kernels = backprojection_kernels(gain).view(N_KERNELS, N_PARCELS, N_CHANNELS)
    assert torch.isfinite(kernels).all()
    silent = (kernels == 0).all(2)
    assert_array_equal(silent.nonzero()[:, 1], [4, 17, 4, 17])


def test_encoding_does_not_depend_on_the_basis_of_the_channels(gain, data):
    """A rotation of the whitened channels, as between two whiteners, is not seen."""
    generator = torch.Generator().manual_seed(2)
    square = torch.randn(20, 20, generator=generator, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(square)
    X = encode(data, backprojection_kernels(gain))
    rotated = encode(rotation @ data, backprojection_kernels(rotation @ gain))
    assert_allclose(rotated, X, atol=1e-10)


# --------------------------------------------------------------- encoding


def written_out(data, kernels):
    """Encode one sample in NumPy: (n_times, n_features)."""
    if kernels is None:
        data = data - data.mean(1, keepdims=True)
        return data.T / np.abs(data).max()
    blocks = [kernel @ data for kernel in np.split(kernels, N_KERNELS)]
    return np.concatenate([b / np.sqrt(np.sum(b**2) / len(b)) for b in blocks]).T


@pytest.mark.parametrize("encoder", ("sensors", "backprojection"))
def test_encode(gain, data, encoder):
    kernels = None if encoder == "sensors" else backprojection_kernels(gain)
    X = encode(data, kernels)
    kernels = None if kernels is None else kernels.numpy()
    expected = [written_out(sample, kernels) for sample in data.numpy()]
    assert_allclose(X, np.stack(expected), atol=1e-12)


@pytest.mark.parametrize("encoder", ("sensors", "backprojection"))
def test_encode_forgets_scale(gain, data, encoder):
    """Each sample may have its own factor; as published, channels their baselines."""
    kernels = None if encoder == "sensors" else backprojection_kernels(gain)
    factor = torch.tensor([1e-12, 1.0, 1e6], dtype=torch.float64)[:, None, None]
    offset = torch.arange(20.0, dtype=torch.float64)[:, None]
    other = encode(factor * (data + offset * (kernels is None)), kernels)
    assert_allclose(other, encode(data, kernels), atol=1e-9)
    assert_allclose(encode(-data, kernels), -encode(data, kernels), atol=1e-12)


@pytest.mark.parametrize("encoder", ("sensors", "backprojection"))
def test_encode_zero(gain, encoder):
    kernels = None if encoder == "sensors" else backprojection_kernels(gain)
    zeros = torch.zeros(2, N_CHANNELS, 8, dtype=torch.float64)
    assert not encode(zeros, kernels).any()


# --------------------------------------------------------------- principal components


@pytest.mark.parametrize("n_channels", (5, 16, 20))
def test_principal_components(n_channels):
    """The best approximation of that rank, whichever side is longer."""
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(3, n_channels, 16, generator=generator, dtype=torch.float64)
    patterns, courses = principal_components(data, 4)
    assert patterns.shape == (3, n_channels, 4) and courses.shape == (3, 4, 16)
    assert_allclose(courses @ courses.mT, np.tile(np.eye(4), (3, 1, 1)), atol=1e-9)
    U, s, V = np.linalg.svd(data.numpy(), full_matrices=False)
    best = (U[..., :4] * s[:, None, :4]) @ V[:, :4]
    assert_allclose(patterns @ courses, best, atol=1e-9)
    assert_allclose(patterns.norm(dim=1), s[:, :4], atol=1e-9)


def test_principal_components_by_subspace_iteration():
    """Signals above noise: nearly all of the power, orthonormal courses."""
    generator = torch.Generator().manual_seed(0)
    signal = torch.randn(4, 30, 3, generator=generator) * torch.tensor([9.0, 4, 2])
    data = signal @ torch.randn(4, 3, 64, generator=generator)
    data += torch.randn(4, 30, 64, generator=generator)
    best = principal_components(data, 4)[0].square().sum((1, 2))
    patterns, courses = principal_components(data, 4, exact=False)
    assert_allclose(courses @ courses.mT, np.tile(np.eye(4), (4, 1, 1)), atol=1e-4)
    assert_allclose(patterns.square().sum((1, 2)), best, rtol=1e-3)
    residual = (data - patterns @ courses).square().sum((1, 2))
    assert_allclose(residual + best, data.square().sum((1, 2)), rtol=1e-3)


def test_principal_components_beyond_the_rank():
    """Fewer channels than components, and silence: zeros, nothing infinite."""
    data = torch.randn(2, 3, 16, generator=torch.Generator(), dtype=torch.float64)
    data[1] = 0
    patterns, courses = principal_components(data, 5)
    assert patterns.shape == (2, 3, 5) and courses.shape == (2, 5, 16)
    assert_allclose(patterns @ courses, data, atol=1e-7)
    assert torch.isfinite(courses).all() and not patterns[1].any()


def test_components_have_the_size_of_the_data(gain, data):
    """Encoded components of full rank are the encoded data in another basis."""
    kernels = backprojection_kernels(gain)
    patterns, courses = principal_components(data, 16)
    assert_allclose(
        courses.mT @ encode(patterns, kernels), encode(data, kernels), atol=1e-6
    )


def test_windows_of_several_lengths(gain, data):
    """They are encoded together as each length is alone."""
    kernels = backprojection_kernels(gain).float()
    parts = [data, data[:, :, :5]]
    together = encode_windows(parts, kernels, 4)
    alone = [encode_windows(part, kernels, 4) for part in parts]
    assert together.courses is None
    for name in ("X", "data"):
        expected = torch.cat([getattr(one, name) for one in alone])
        assert_allclose(getattr(together, name), expected, atol=1e-5)


def test_embedding(gain, data):
    """Kernels and first layer in one give what the layer makes of the input."""
    kernels = backprojection_kernels(gain).float()
    network = make_network("compact", len(kernels), gain.shape[1], 16, width=7)
    torch.nn.init.normal_(network.readout.weight)  # zero at first
    windows = torch.cat([data, torch.zeros_like(data[:1])])
    encoded = encode_windows(
        windows, kernels, 4, embedding=network.embed_kernels(kernels, 2)
    )
    with torch.no_grad():
        expected = network.embed(encoded.X)
        assert_allclose(encoded.features.detach(), expected, atol=1e-5)
        out = network(encoded.X, encoded.features)
        assert_allclose(out, network(encoded.X), atol=1e-5)
    assert encode_windows(data, kernels, 4).features is None


# --------------------------------------------------------------- one path


class Recorder(torch.nn.Module):
    """A network that keeps what it reads and finds nothing."""

    sizes = {"n_components": 16}

    def __init__(self, n_parcels):
        super().__init__()
        self.n_parcels, self.read = n_parcels, []

    def embed_kernels(self, kernels, n_kernels):
        return kernels.new_zeros(n_kernels, kernels.shape[1], 1)

    def forward(self, X, features=None):
        self.read.append(X.double().clone())
        return X.new_zeros(*X.shape[:2], self.n_parcels)


class Given:
    """A simulator whose samples are given."""

    def __init__(self, data, n_parcels):
        self.data = torch.as_tensor(data).float()
        self.background = torch.zeros(len(self.data[0, 0]), n_parcels)

    def draw_sources(self, n_batch):
        weights = torch.zeros(n_batch, 1, self.background.shape[1])
        return weights, self.data[:, :1], torch.zeros(n_batch, 1), None

    def draw_windows(self, activity, n_batch):
        return activity

    def superpose(self, gain, weights, waves, ongoing, chosen, peak_power):
        return self.data, waves


@pytest.fixture(scope="module")
def leadfield(eeg_info, eeg_fwd, parcels):
    """Give a leadfield whose channels differ in noise, and are correlated."""
    rng = np.random.default_rng(0)
    mixing = np.diag(rng.uniform(0.2e-6, 1e-6, 32))
    mixing[:, :3] += 0.3e-6 * rng.standard_normal((32, 3))
    names = eeg_info["ch_names"]
    cov = mne.Covariance(mixing @ mixing.T, names, [], [], nfree=1000)
    return make_leadfield(eeg_info, eeg_fwd, cov, parcels=parcels)


@pytest.fixture(scope="module")
def windows(leadfield):
    """Six windows of 64 samples, in V: three strong sources and noise."""
    rng = np.random.default_rng(1)
    times = np.arange(64)
    noise = np.linalg.pinv(leadfield.whitener)
    made = []
    for _ in range(6):
        picks = rng.choice(leadfield.gain.shape[1], 3, replace=False)
        middles, widths = rng.uniform(10, 54, (3, 1)), rng.uniform(2, 9, (3, 1))
        waves = np.exp(-0.5 * ((times - middles) / widths) ** 2)
        field = leadfield.gain[:, picks]
        field = field / np.abs(field).max(0) * rng.uniform(5e-6, 20e-6, 3)
        made.append(field @ waves + noise @ rng.standard_normal((31, 64)))
    return np.array(made)


@pytest.fixture(scope="module")
def as_in_use(leadfield, windows, parcels):
    """Kernels, and what the network reads: as an estimate does it."""
    network = Recorder(parcels.n_parcels)
    model = Model(network, "backprojection", parcels, 125.0, 64, device="cpu")
    prepared = model.prepare(leadfield.gain_white)
    white = np.array([leadfield.whiten(window) for window in windows])
    prepared.estimate(white, 125.0)
    X = network.read[0][: len(windows)]  # the long windows; short ones follow
    return prepared.kernels.double(), X


@pytest.fixture(scope="module")
def as_in_training(leadfield, windows, parcels):
    """Kernels, and what the network reads: as a batch is made."""
    one = make_training_leadfield(leadfield, "backprojection")
    data = windows / channel_std(leadfield)  # a training leadfield's channels
    simulator = Given(data, parcels.n_parcels)
    batches = Batches(simulator, [one], Recorder.sizes["n_components"], "cpu")
    X, _, _ = batches.draw([0], len(windows))
    return batches.kernels[0].double(), X.double()


def test_training_and_use_have_the_same_kernels(as_in_training, as_in_use):
    """Up to one factor: each scales its leadfield.

    Training solves in single precision: 4e-6 of the largest entry (measured).
    """
    (one, _), (two, _) = as_in_training, as_in_use
    one, two = (kernels / kernels.norm() for kernels in (one, two))
    assert_allclose(one, two, rtol=0, atol=3e-5 * two.abs().max())


def test_training_and_use_have_the_same_input(as_in_training, as_in_use):
    """Data in V on the one way, in units of the channels' noise on the other.

    Components have neither sign nor order of their own, but the sum of their outer
    products has. Measured: up to .0044 of the largest entry, all of it from training's
    two steps of subspace iteration. With exact components it is 1.4e-5: rounding.
    """
    (_, one), (_, two) = as_in_training, as_in_use
    assert one.shape == two.shape == (6, 16, N_KERNELS * 200)
    one, two = (X.mT @ X for X in (one, two))
    for found, expected in zip(one, two):
        assert_allclose(found, expected, rtol=0, atol=1e-2 * expected.abs().max())

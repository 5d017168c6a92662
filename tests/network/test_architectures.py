"""The encoders and the networks, against MNE and against equations written out."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
import pytest
import torch
from mne.minimum_norm import apply_inverse, make_inverse_operator
from numpy.testing import assert_allclose, assert_array_equal

from mne_deepsif.network.architectures import (
    ARCHITECTURES,
    PublishedNetwork,
    make_network,
)
from mne_deepsif.network.encoder import (
    N_KERNELS,
    REGULARIZATIONS,
    backprojection_kernels,
    encode,
    principal_components,
)

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


# --------------------------------------------------------------- networks


def test_published_network_is_that_of_the_papers():
    """Sun et al. (2022): 75 channels, 500 hidden units, 3 LSTM layers, 994 regions."""
    with torch.device("meta"):
        network = PublishedNetwork(75, 994)
    shapes = {name: tuple(p.shape) for name, p in network.named_parameters()}
    expected = {
        "spatial.fc11": (75, 75),
        "spatial.fc12": (75, 75),
        "spatial.fc21": (500, 75),
        "spatial.fc22": (500, 500),
        "spatial.fc23": (500, 75),
        "spatial.value": (500, 500),
    }
    expected = {f"{name}.weight": shape for name, shape in expected.items()} | {
        f"{name}.bias": shape[:1] for name, shape in expected.items()
    }
    for layer, n_in in enumerate((500, 994, 994)):
        for kind, n in (("ih", n_in), ("hh", 994)):
            expected[f"temporal.rnns.0.weight_{kind}_l{layer}"] = (4 * 994, n)
            expected[f"temporal.rnns.0.bias_{kind}_l{layer}"] = (4 * 994,)
    assert shapes == expected
    assert list(network.state_dict()) == list(shapes)  # no buffers
    spatial = 2 * (75 * 75 + 75) + 2 * (75 * 500 + 500) + 2 * (500 * 500 + 500)
    temporal = 4 * 994 * (500 + 5 * 994) + 3 * 2 * 4 * 994
    assert spatial + temporal == 588_400 + 21_772_576
    assert sum(p.numel() for p in network.parameters()) == spatial + temporal


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(x, w_in, w_state, b_in, b_state):
    """Run one LSTM layer over (n_times, n_in): input, forget, cell, output gates."""
    h = c = np.zeros(w_state.shape[1])
    out = []
    for now in x:
        i, f, g, o = np.split(w_in @ now + b_in + w_state @ h + b_state, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        out.append(h)
    return np.array(out)


def test_published_network_by_its_equations():
    """The papers' text in NumPy, on random weights."""
    network = make_network("published", 6, 9, 20, seed=3, n_hidden=7, n_layers=3)
    network = network.double()
    generator = torch.Generator().manual_seed(0)
    X = 3 * torch.randn(2, 20, 6, generator=generator, dtype=torch.float64)
    w = {name: value.numpy() for name, value in network.state_dict().items()}

    def linear(name, x):
        return x @ w[f"spatial.{name}.weight"].T + w[f"spatial.{name}.bias"]

    for x, found in zip(X.numpy(), network(X).detach().numpy()):
        x = elu(linear("fc12", elu(linear("fc11", x))) + x)  # identity skip
        x = elu(linear("fc22", elu(linear("fc21", x))) + linear("fc23", x))
        x = elu(linear("value", x))
        for layer in range(3):
            kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            x = lstm(x, *(w[f"temporal.rnns.0.{kind}_l{layer}"] for kind in kinds))
        assert_allclose(found, x, atol=1e-12)


def test_published_output_is_bounded():
    """The hidden state of an LSTM lies within ±1, whatever comes in."""
    network = make_network("published", 5, 8, 30, n_hidden=6)
    with torch.inference_mode():
        for parameter in network.parameters():
            parameter *= 20
        output = network(1e4 * torch.randn(4, 30, 5, generator=torch.Generator()))
    assert 0.5 < output.abs().max() <= 1


def test_compact_network_starts_at_zero_and_can_leave_it():
    """The estimate starts at zero, but its gradient does not vanish."""
    network = make_network("compact", 12, 7, 16, width=10)
    X = torch.randn(3, 16, 12, generator=torch.Generator())
    output = network(X)
    assert output.shape == (3, 16, 7) and not output.any()
    (output - 1).square().mean().backward()
    assert network.readout.weight.grad.abs().sum() > 0


@pytest.fixture(scope="module")
def compact():
    """Return a small network whose estimate is not zero, in double precision."""
    network = make_network("compact", 12, 7, 16, width=10, gate_width=9).double()
    torch.nn.init.normal_(
        network.readout.weight, generator=torch.Generator().manual_seed(0)
    )
    return network


def test_compact_network_turns_with_the_data(compact):
    """Orthogonal mixtures of the times, a change of sign among them, pass through."""
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(2, 16, 12, generator=generator, dtype=torch.float64)
    mixing, _ = torch.linalg.qr(
        torch.randn(16, 16, generator=generator, dtype=torch.float64)
    )
    with torch.inference_mode():
        assert_allclose(compact(mixing @ X), mixing @ compact(X), atol=1e-10)
        assert_allclose(compact(-X), -compact(X), atol=1e-12)


def test_compact_network_is_not_linear(compact):
    """What one source does to the gates shows in the estimate of another."""
    X = torch.zeros(1, 2, 12, dtype=torch.float64)
    X[0, 0, :4], X[0, 1, 6:] = 1, 1  # two sources at two times
    with torch.inference_mode():
        both = compact(X)
        alone = torch.stack([compact(X[:, [t]])[0, 0] for t in (0, 1)])
    assert (both[0] - alone).abs().max() > 0.01 * both.abs().max()


def test_compact_network_ignores_empty_times(compact):
    """Zeros beyond the rank of the data change nothing."""
    X = torch.randn(2, 3, 12, generator=torch.Generator(), dtype=torch.float64)
    padded = torch.nn.functional.pad(X, (0, 0, 0, 2))
    with torch.inference_mode():
        assert_allclose(compact(padded)[:, :3], compact(X), atol=1e-12)
        assert not compact(padded)[:, 3:].any()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_samples_of_a_batch_are_independent(architecture):
    network = make_network(architecture, 6, 5, 10, seed=1).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0, 0.1, generator=torch.Generator())
    X = torch.randn(4, 10, 6, generator=torch.Generator())
    with torch.inference_mode():
        assert_allclose(network(X)[1:2], network(X[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_make_network_is_seeded(architecture):
    """Same seed, same weights; the global generator does not move."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, two, other = (
        make_network(architecture, 6, 5, 8, seed).state_dict() for seed in (4, 4, 5)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)
    assert all(value.dtype is torch.float32 for value in one.values())


@pytest.mark.parametrize(
    ("architecture", "sizes"),
    (("compact", dict(width=12, n_blocks=3)), ("published", dict(n_layers=1))),
)
def test_sizes_rebuild_the_network(architecture, sizes):
    """What a file keeps of the architecture is enough to make it again."""
    network = make_network(architecture, 6, 5, 8, **sizes)
    assert network.sizes.items() >= sizes.items()
    again = make_network(architecture, 6, 5, 8, **network.sizes)
    again.load_state_dict(network.state_dict())

"""The networks, against equations written out."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from mne_deepsif.network.architectures import (
    ARCHITECTURES,
    PublishedNetwork,
    make_network,
)
from mne_deepsif.network.encoder import N_SCALES

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


def test_scan_adds_to_the_answer():
    """More rows, never negative: largest where the scores are, whatever their scale."""
    network = make_network("compact", 12, 7, 16, width=10, gate_width=9, scan_width=5)
    generator = torch.Generator().manual_seed(3)
    torch.nn.init.normal_(network.readout.weight, generator=generator)
    X = torch.randn(4, 2, 12, generator=generator)
    scores = torch.rand(4, 2, N_SCALES * 7, generator=generator)
    with torch.inference_mode():
        output = network(torch.cat([X, scores], 2))
        scaled = network(torch.cat([X, scores * torch.tensor([[[3.0], [1.0]]])], 2))
        silent = network(torch.cat([X, 0 * scores], 2))
    assert output.shape == (4, 2 + 2 * N_SCALES, 7)
    answer, scan = output.split([2, 2 * N_SCALES], 1)
    assert_allclose(answer.square().sum(1).amax(1), 1, rtol=1e-4)
    assert (scan >= 0).all() and not silent[:, 2:].any()
    assert (scan[scan > 0] > 1e-20).all()  # no denormal numbers, which are slow
    torch.nn.init.zeros_(network.scan.gate[1].weight)  # the same for all parcels
    with torch.inference_mode():
        scan = network(torch.cat([X, scores], 2))[:, 2:].unflatten(1, (2, N_SCALES))
    scores = scores.unflatten(2, (N_SCALES, 7))
    assert torch.equal(scan.argmax(3), scores.argmax(3))
    # at first, each scale has half of the weight
    gate = torch.nn.functional.softplus(torch.tensor(-3.0)).item()
    assert_allclose(scan.amax((1, 3)), np.full((4, N_SCALES), gate / 2), rtol=1e-5)
    weaker = scaled[:, 2:].unflatten(1, (2, N_SCALES))[:, 1]  # beside the first
    assert (weaker.amax(2) < output[:, 2 + N_SCALES :].amax(2)).all()


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
    (
        ("compact", dict(width=12, n_blocks=3, scan_width=5)),
        ("published", dict(n_layers=1)),
    ),
)
def test_sizes_rebuild_the_network(architecture, sizes):
    """What a file keeps of the architecture is enough to make it again."""
    network = make_network(architecture, 6, 5, 8, **sizes)
    assert network.sizes.items() >= sizes.items()
    again = make_network(architecture, 6, 5, 8, **network.sizes)
    again.load_state_dict(network.state_dict())

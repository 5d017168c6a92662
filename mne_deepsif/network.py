"""The networks and the two encoders (torch only, no MNE)."""

import torch
from torch import nn

# Kernel regularisations in units of the mean eigenvalue of the Gram matrix: MNE's
# lambda² = 1/SNR². The first suits averages of SNR 3, the second clean data.
REGULARIZATIONS = (0.1, 0.003)
N_KERNELS = len(REGULARIZATIONS)


def backprojection_kernels(gain_white, regularizations=REGULARIZATIONS):
    """Compute sLORETA-normalised minimum-norm kernels of a whitened leadfield.

    Parameters
    ----------
    gain_white : tensor of shape (n_channels, n_parcels)
        Whitened leadfield; ``n_channels`` is its rank.
    regularizations : tuple of float
        Regularisation of each kernel in units of ``trace(G G^T) / n_channels``.

    Returns
    -------
    kernels : tensor of shape (n_kernels * n_parcels, n_channels)
        The kernels, one below the other. A parcel without gain gets zero rows.
    """
    gram = gain_white @ gain_white.T
    unit = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    unit *= torch.trace(gram) / len(gram)
    kernels = []
    for regularization in regularizations:
        kernel = torch.linalg.solve(gram + regularization * unit, gain_white)
        resolution = (kernel * gain_white).sum(0)
        tiny = 1e-6 * resolution.max()
        scale = torch.where(resolution > tiny, resolution.clamp_min(tiny).rsqrt(), 0.0)
        kernels.append((kernel * scale).T)
    return torch.cat(kernels)


def principal_components(data, n_components, exact=True):
    """Cut windows into their strongest spatial patterns and their time courses.

    Parameters
    ----------
    data : tensor of shape (n_batch, n_channels, n_times)
        Whitened data.
    n_components : int
        How many to keep.
    exact : bool
        If False, two steps of subspace iteration take the place of the eigenvectors:
        several times faster, within 0.1 % of the power that the best ones hold.

    Returns
    -------
    patterns : tensor of shape (n_batch, n_channels, n_components)
        Patterns scaled by their singular values, strongest first; zero beyond the rank.
    courses : tensor of shape (n_batch, n_components, n_times)
        Orthonormal time courses: ``patterns @ courses`` is the best approximation of
        ``data`` of that rank.
    """
    n_channels, n_times = data.shape[1:]
    n_kept = min(n_components, n_channels, n_times)
    wide = n_channels < n_times  # the smaller Gram matrix gives the same components
    square = data @ data.mT if wide else data.mT @ data
    if exact:
        values, vectors = torch.linalg.eigh(square)
    else:
        values, vectors = _leading(square, n_kept + 8)
    sizes = values[:, -n_kept:].flip(-1).clamp_min(0).sqrt()
    vectors = vectors[:, :, -n_kept:].flip(-1)
    if wide:
        patterns = vectors * sizes[:, None]
        seen = sizes > 1e-6 * sizes[:, :1]
        inverse = torch.where(seen, sizes, torch.inf).reciprocal()
        courses = (vectors * inverse[:, None]).mT @ data
    else:
        patterns, courses = data @ vectors, vectors.mT
    missing = n_components - n_kept
    patterns = nn.functional.pad(patterns, (0, missing))
    return patterns, nn.functional.pad(courses, (0, 0, 0, missing))


def _leading(square, n_vectors, n_iterations=2):
    """Approximate the leading eigenvalues and vectors of a batch of matrices."""
    size = square.shape[-1]
    if size <= n_vectors:
        return torch.linalg.eigh(square)
    options = dict(dtype=square.dtype, device=square.device)
    index = torch.arange(size, **options)[:, None] + 0.5
    start = torch.cos(torch.pi / size * index * torch.arange(n_vectors, **options))
    basis = start.expand(len(square), -1, -1)
    for _ in range(n_iterations):
        basis = torch.linalg.qr(square @ basis)[0]
    values, vectors = torch.linalg.eigh(basis.mT @ square @ basis)
    return values, basis @ vectors


def encode(data, kernels=None, n_kernels=N_KERNELS):
    """Turn sensor data into the input of a network.

    This is the only way into a network, in training and in use. Without kernels
    (``encoder="sensors"``) the time mean of each channel is removed and all channels
    are divided by their largest absolute value, as published. With kernels
    (``encoder="backprojection"``) the back-projection through each of them is divided
    by its size: the root of its power, summed over times and averaged over parcels.

    Parameters
    ----------
    data : tensor of shape (n_batch, n_channels, n_times)
        Sensor data in SI units or, if kernels are given, whitened data or their
        patterns (:func:`principal_components`), which have the same size.
    kernels : tensor of shape (n_kernels * n_parcels, n_channels) | None
        See :func:`backprojection_kernels`.
    n_kernels : int
        The number of kernels in ``kernels``.

    Returns
    -------
    X : tensor of shape (n_batch, n_times, n_features)
        Network input, free of any unit.
    """
    X = data.mT
    if kernels is None:
        X = X - X.mean(1, keepdim=True)
        size = X.abs().amax((1, 2), keepdim=True)
        return X / torch.where(size > 0, size, 1.0)
    X = nn.functional.linear(X.contiguous(), kernels)
    blocks = X.unflatten(2, (n_kernels, -1))
    size = torch.linalg.vector_norm(blocks, dim=(1, 3), keepdim=True)
    size = size / blocks.shape[3] ** 0.5
    blocks /= torch.where(size > 0, size, 1.0)  # X is ours: no copy needed
    return X


class CompactNetwork(nn.Module):
    """The default: linear filters whose gates open where the window has power.

    The data of a window pass through linear layers only, time by time; between them
    each feature is multiplied by a gate. The gates are the same for all times: they are
    computed, by the deeper part of the network, from the power of the features over the
    window. So the estimate is linear in time, like that of an adaptive spatial filter;
    it changes sign with the data, and does not depend on how many times (or principal
    components) stand for the window.

    Parameters
    ----------
    n_features : int
        Input size: ``2 * n_parcels`` after back-projection.
    n_parcels : int
        Output size.
    n_times : int
        Length of the windows; the weights do not depend on it.
    width : int
        Number of features of the linear layers.
    gate_width : int
        Number of features from which the gates are computed.
    n_blocks : int
        Number of linear layers between input and output, each with gates.
    n_components : int
        Principal components of a window that are passed through the network.
    """

    def __init__(
        self,
        n_features,
        n_parcels,
        n_times=64,
        width=640,
        gate_width=512,
        n_blocks=2,
        n_components=4,
    ):
        super().__init__()
        self.sizes = {
            "width": width,
            "gate_width": gate_width,
            "n_blocks": n_blocks,
            "n_components": n_components,
        }
        self.embed = nn.Linear(n_features, width, bias=False)
        self.linear = nn.ModuleList(
            nn.Linear(width, width, bias=False) for _ in range(n_blocks - 1)
        )
        self.gates = nn.ModuleList(_Gates(width, gate_width) for _ in range(n_blocks))
        self.power = nn.Linear(n_features, gate_width)
        self.readout = nn.Linear(width, n_parcels, bias=False)
        self.parcel_gates = nn.Linear(gate_width, n_parcels)
        self.last_gates = _Gates(n_parcels, gate_width)
        # the first estimate is zero: most parcels are silent most of the time
        nn.init.zeros_(self.readout.weight)

    def forward(self, X):
        """Map (n_batch, n_times, n_features) to (n_batch, n_times, n_parcels)."""
        state = self.power(_root_power(X))
        features = self.embed(X)
        gated, state = self.gates[0](features, state)
        for linear, gates in zip(self.linear, self.gates[1:], strict=True):
            gated, state = gates(gated + linear(gated), state)
        opening = nn.functional.softplus(self.parcel_gates(_normalise(state)))
        estimate = self.readout(gated) * opening[:, None]
        return self.last_gates(estimate, state)[0]


class _Gates(nn.Module):
    """Gates of features: from their power and a state that all blocks share."""

    def __init__(self, n_features, width):
        super().__init__()
        self.power = nn.Linear(n_features, width)
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, width)
        self.gate = nn.Linear(width, n_features)

    def forward(self, features, state):
        """Map (n_batch, n_times, n_features), (n_batch, width) to the same shapes."""
        state = state + self.power(_root_power(features))
        state = state + self.fc2(nn.functional.elu(self.fc1(_normalise(state))))
        gate = 2 * torch.sigmoid(self.gate(_normalise(state)))
        return features * gate[:, None], state


def _root_power(features):
    """Return the root of the power over times: (n_batch, n_features)."""
    dtype = torch.promote_types(features.dtype, torch.float32)
    return (features.to(dtype).square().sum(1) + 1e-6).sqrt()


def _normalise(state):
    """Divide by the root mean square over features."""
    return state * (state.square().mean(-1, keepdim=True) + 1e-6).rsqrt()


class _PublishedSpatial(nn.Module):
    """Residual block C -> C, residual block C -> hidden, linear layer (with ELU)."""

    def __init__(self, n_channels, n_hidden, output):
        super().__init__()
        self.output = output
        self.fc11 = nn.Linear(n_channels, n_channels)
        self.fc12 = nn.Linear(n_channels, n_channels)
        self.fc21 = nn.Linear(n_channels, n_hidden)
        self.fc22 = nn.Linear(n_hidden, n_hidden)
        self.fc23 = nn.Linear(n_channels, n_hidden)
        self.value = nn.Linear(n_hidden, n_hidden)

    def forward(self, x):
        elu = nn.functional.elu
        x = elu(self.fc12(elu(self.fc11(x))) + x)
        x = elu(self.fc22(elu(self.fc21(x))) + self.fc23(x))
        x = self.value(x)
        return elu(x) if self.output == "value_activation" else x


class _PublishedTemporal(nn.Module):
    """Stacked LSTM layers with one unit per parcel; the hidden state is the output."""

    def __init__(self, n_hidden, n_parcels, n_layers):
        super().__init__()
        self.rnns = nn.ModuleList(
            [nn.LSTM(n_hidden, n_parcels, n_layers, batch_first=True)]
        )

    def forward(self, x):
        return self.rnns[0](x)[0]


class PublishedNetwork(nn.Module):
    """The network of Sun et al. (2022), parameter for parameter.

    Parameter names are those of the authors' checkpoints, so their state
    dictionaries load as they are.

    Parameters
    ----------
    n_features : int
        Number of channels.
    n_parcels : int
        Number of parcels; 994 in the papers.
    n_times : int
        Length of the windows; the weights do not depend on it.
    n_hidden : int
        Output size of the spatial module; 500 in the first paper.
    n_layers : int
        Number of LSTM layers.
    spatial_output : "value_activation" | "value"
        Whether an ELU follows the last linear layer of the spatial module, as in the
        papers, or not, as in the checkpoints that the authors released.
    """

    def __init__(
        self,
        n_features,
        n_parcels,
        n_times=500,
        n_hidden=500,
        n_layers=3,
        spatial_output="value_activation",
    ):
        super().__init__()
        self.sizes = {
            "n_hidden": n_hidden,
            "n_layers": n_layers,
            "spatial_output": spatial_output,
        }
        self.spatial = _PublishedSpatial(n_features, n_hidden, spatial_output)
        self.temporal = _PublishedTemporal(n_hidden, n_parcels, n_layers)

    def forward(self, X):
        """Map (n_batch, n_times, n_features) to (n_batch, n_times, n_parcels)."""
        return self.temporal(self.spatial(X))


ARCHITECTURES = {"compact": CompactNetwork, "published": PublishedNetwork}


def make_network(architecture, n_features, n_parcels, n_times, seed=0, **sizes):
    """Build a network with seeded initial weights.

    Parameters
    ----------
    architecture : "compact" | "published"
        Name of the architecture.
    n_features, n_parcels : int
        Input and output size.
    n_times : int
        Length of the windows in samples.
    seed : int
        Seed of the initial weights; torch's global generator is left untouched.
    **sizes : dict
        Sizes of the architecture, e.g. ``width`` or ``n_layers``; the network keeps
        them as its attribute ``sizes``.

    Returns
    -------
    network : torch.nn.Module
        The network, in float32 on the CPU.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ARCHITECTURES[architecture](n_features, n_parcels, n_times, **sizes)

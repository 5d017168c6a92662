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


def encode(data, kernels=None, n_kernels=N_KERNELS):
    """Turn sensor data into the input of a network.

    This is the only way into a network, in training and in use. The time mean is
    removed per channel. Without kernels (``encoder="sensors"``) the channels
    themselves are divided by their largest absolute value, as published; with kernels
    (``encoder="backprojection"``) the back-projection through each of them is divided
    by its root mean square, which trains faster.

    Parameters
    ----------
    data : tensor of shape (n_batch, n_channels, n_times)
        Sensor data: whitened if kernels are given, else in SI units.
    kernels : tensor of shape (n_kernels * n_parcels, n_channels) | None
        See :func:`backprojection_kernels`.
    n_kernels : int
        The number of kernels in ``kernels``.

    Returns
    -------
    X : tensor of shape (n_batch, n_times, n_features)
        Network input, free of any unit.
    """
    X = (data - data.mean(-1, keepdim=True)).transpose(1, 2)
    if kernels is None:
        n_kernels = 1
    else:
        X = nn.functional.linear(X.contiguous(), kernels)
    blocks = X.unflatten(2, (n_kernels, -1))
    if kernels is None:
        size = blocks.abs().amax((1, 3), keepdim=True)
    else:
        size = torch.linalg.vector_norm(blocks, dim=(1, 3), keepdim=True)
        size = size / (blocks.shape[1] * blocks.shape[3]) ** 0.5
    blocks /= torch.where(size > 0, size, 1.0)  # X is ours: no copy needed
    return X


class ResidualBlock(nn.Module):
    """Two linear layers beside an identity (or linear) skip, ELU after each."""

    def __init__(self, n_features):
        super().__init__()
        self.fc1 = nn.Linear(n_features, n_features)
        self.fc2 = nn.Linear(n_features, n_features)

    def forward(self, x):
        """Map (..., n_features) to (..., n_features)."""
        hidden = nn.functional.elu(self.fc1(x))
        return nn.functional.elu(self.fc2(hidden) + x)


class TemporalMixing(nn.Module):
    """Two linear layers over the times of a window, the same for all features."""

    def __init__(self, n_times):
        super().__init__()
        self.fc1 = nn.Linear(n_times, 2 * n_times)
        self.fc2 = nn.Linear(2 * n_times, n_times)

    def forward(self, x):
        """Map (n_batch, n_times, n_features) to the same shape."""
        hidden = nn.functional.elu(self.fc1(x.transpose(1, 2)))
        return x + self.fc2(hidden).transpose(1, 2)


class CompactNetwork(nn.Module):
    """The default: mixes parcels per time and times per feature, in turn.

    Parameters
    ----------
    n_features : int
        Input size: ``2 * n_parcels`` after back-projection.
    n_parcels : int
        Output size.
    n_times : int
        Length of the windows.
    width : int
        Hidden size.
    n_blocks : int
        Number of pairs of spatial and temporal mixing.
    """

    def __init__(self, n_features, n_parcels, n_times=64, width=512, n_blocks=2):
        super().__init__()
        self.sizes = {"width": width, "n_blocks": n_blocks}
        self.embed = nn.Linear(n_features, width)
        self.spatial = nn.ModuleList(ResidualBlock(width) for _ in range(n_blocks))
        self.temporal = nn.ModuleList(TemporalMixing(n_times) for _ in range(n_blocks))
        self.readout = nn.Linear(width, n_parcels)
        # the first estimate is zero: most parcels are silent most of the time
        nn.init.zeros_(self.readout.weight)
        nn.init.zeros_(self.readout.bias)

    def forward(self, X):
        """Map (n_batch, n_times, n_features) to (n_batch, n_times, n_parcels)."""
        hidden = nn.functional.elu(self.embed(X))
        for spatial, temporal in zip(self.spatial, self.temporal, strict=True):
            hidden = temporal(spatial(hidden))
        return self.readout(hidden)


class _PublishedSpatial(nn.Module):
    """Residual block C -> C, residual block C -> hidden, linear layer with ELU."""

    def __init__(self, n_channels, n_hidden):
        super().__init__()
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
        return elu(self.value(x))


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
    """

    def __init__(self, n_features, n_parcels, n_times=500, n_hidden=500, n_layers=3):
        super().__init__()
        self.sizes = {"n_hidden": n_hidden, "n_layers": n_layers}
        self.spatial = _PublishedSpatial(n_features, n_hidden)
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

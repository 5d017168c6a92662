"""The networks and the two encoders (torch only, no MNE)."""

import torch
from torch import nn

# Kernel regularisations in units of the mean eigenvalue of the Gram matrix: MNE's
# lambda² = 1/SNR². The first suits averages of SNR 3, the second clean data.
REGULARIZATIONS = (0.1, 0.003)


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


def encode(data, kernels=None, n_kernels=len(REGULARIZATIONS)):
    """Turn sensor data into the input of a network.

    This is the only way into a network, in training and in use. The time mean is
    removed per channel. Without kernels (``encoder="sensors"``) the channels
    themselves are divided by their largest absolute value; with kernels
    (``encoder="backprojection"``) the back-projection through each of them is.

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
        Network input, each block within [-1, 1].
    """
    X = (data - data.mean(-1, keepdim=True)).transpose(1, 2)
    if kernels is None:
        n_kernels = 1
    else:
        X = X @ kernels.T
    blocks = X.unflatten(2, (n_kernels, -1))
    low, high = blocks.amin((1, 3), keepdim=True), blocks.amax((1, 3), keepdim=True)
    peak = torch.maximum(high, -low)
    return (blocks / torch.where(peak > 0, peak, 1.0)).flatten(2)


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


class CompactNetwork(nn.Module):
    """The default: spatial mixing per time, one bidirectional LSTM, linear read-out.

    Parameters
    ----------
    n_features : int
        Input size: ``2 * n_parcels`` after back-projection.
    n_parcels : int
        Output size.
    width : int
        Hidden size; each direction of the LSTM has half of it.
    """

    def __init__(self, n_features, n_parcels, width=512):
        super().__init__()
        self.embed = nn.Linear(n_features, width)
        self.spatial = ResidualBlock(width)
        self.temporal = nn.LSTM(
            width, width // 2, batch_first=True, bidirectional=True
        )
        self.readout = nn.Linear(width, n_parcels)

    def forward(self, X):
        """Map (n_batch, n_times, n_features) to (n_batch, n_times, n_parcels)."""
        hidden = self.spatial(nn.functional.elu(self.embed(X)))
        hidden = hidden + self.temporal(hidden)[0]
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
    n_hidden : int
        Output size of the spatial module; 500 in the first paper.
    n_layers : int
        Number of LSTM layers.
    """

    def __init__(self, n_features, n_parcels, n_hidden=500, n_layers=3):
        super().__init__()
        self.spatial = _PublishedSpatial(n_features, n_hidden)
        self.temporal = _PublishedTemporal(n_hidden, n_parcels, n_layers)

    def forward(self, X):
        """Map (n_batch, n_times, n_features) to (n_batch, n_times, n_parcels)."""
        return self.temporal(self.spatial(X))


ARCHITECTURES = {"compact": CompactNetwork, "published": PublishedNetwork}


def make_network(architecture, n_features, n_parcels, seed=0, **options):
    """Build a network with seeded initial weights.

    Parameters
    ----------
    architecture : "compact" | "published"
        Name of the architecture.
    n_features, n_parcels : int
        Input and output size.
    seed : int
        Seed of the initial weights; torch's global generator is left untouched.
    **options : dict
        Sizes of the architecture, e.g. ``width`` or ``n_layers``.

    Returns
    -------
    network : torch.nn.Module
        The network, in float32 on the CPU.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ARCHITECTURES[architecture](n_features, n_parcels, **options)

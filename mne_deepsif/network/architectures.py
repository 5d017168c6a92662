"""The networks: ours and the published one (torch only)."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import torch
from torch import nn

from .encoder import N_SCALES

# of the scales' largest scores, which differ by some hundredths
_CONTRAST = 30.0
# The least logarithm of a sharpened score. Smaller ones make no difference, but would
# be denormal numbers, with which processors are slow.
_LEAST = -40.0


class CompactNetwork(nn.Module):
    """The default: linear filters whose gates open where the window has power.

    The data of a window pass through linear layers only, time by time. Between layers,
    each feature is multiplied by a gate. The gates are the same for all times: the
    deeper part of the network computes them from the power of the features over the
    window. So the estimate is linear in time, like that of an adaptive spatial filter.
    It changes sign with the data, and does not depend on how many times (or principal
    components) represent the window.

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
    share_width : int
        Number of features from which the patches' share of each parcel's power is
        computed. 0 leaves the share out.
    scan_width : int
        Number of features between the scores of a scan of the parcels and the gates.
        The scores follow after the other features, see :func:`scan`. Sharpened and
        gated, they add to the power of the answer. 0 leaves the scan out.
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
        share_width=0,
        scan_width=0,
    ):
        super().__init__()
        self.sizes = {
            "width": width,
            "gate_width": gate_width,
            "n_blocks": n_blocks,
            "n_components": n_components,
            "share_width": share_width,
            "scan_width": scan_width,
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
        self.share = None
        if share_width:
            self.share = nn.Sequential(
                nn.Linear(gate_width, share_width),
                nn.ELU(),
                nn.Linear(share_width, n_parcels),
            )
            nn.init.zeros_(self.share[2].weight)
            nn.init.constant_(self.share[2].bias, -1.0)
        self.scan = None
        if scan_width:
            self.scan = _Scan(n_parcels, gate_width, scan_width)
        # the first estimate is zero: most parcels are silent most of the time
        nn.init.zeros_(self.readout.weight)

    def embed_kernels(self, kernels, n_kernels):
        """Compute what the first layer makes of each back-projection kernel.

        Parameters
        ----------
        kernels : tensor of shape (n_kernels * n_parcels, n_channels)
            The kernels, one below the other.
        n_kernels : int
            Their number.

        Returns
        -------
        embedding : tensor of shape (n_kernels, n_channels, width)
            Data times this are the layer's output before they are divided by a size:
            far fewer numbers than its weights, for one leadfield.
        """
        weight = self.embed.weight.to(kernels).unflatten(1, (n_kernels, -1))
        return kernels.unflatten(0, (n_kernels, -1)).mT @ weight.permute(1, 2, 0)

    def forward(self, X, features=None):
        """Map (n_batch, n_times, n_features) to (n_batch, n_times, n_rows).

        There are ``2 * n_parcels`` rows: the part of each parcel's activity that is
        piecewise, and the part that belongs to a patch. The roots of their shares are
        the factors, so that the power is split. Without shares, there is one row for
        each parcel. With a scan, the scores' answer follows as ``N_SCALES * n_times``
        more. ``features`` is what the first layer makes of ``X``, if it is known.
        """
        n_features = self.embed.in_features
        X, scores = X[..., :n_features], X[..., n_features:]
        state = self.power(_root_power(X))
        if self.scan is not None:
            state = state + self.scan.power(_root_power(scores))
        if features is None:
            features = self.embed(X)
        gated, state = self.gates[0](features, state)
        for linear, gates in zip(self.linear, self.gates[1:], strict=True):
            gated, state = gates(gated + linear(gated), state)
        opening = nn.functional.softplus(self.parcel_gates(_normalise(state)))
        estimate = self.readout(gated) * opening[:, None]
        estimate, state = self.last_gates(estimate, state)
        if self.scan is not None:
            estimate = torch.cat([_scaled(estimate), self.scan(scores, state)], 1)
        if self.share is None:
            return estimate
        logits = self.share(_normalise(state)).float()
        factors = [torch.sigmoid(sign * logits).sqrt() for sign in (-1, 1)]
        return torch.cat([estimate * one[:, None] for one in factors], -1)


class _Scan(nn.Module):
    """Turn the scores of a scan into an answer: sharpened and gated.

    A source is where the score of its size is largest, but the scores around it are
    nearly as large. So they are raised to a power, and each scale has a weight. Both
    depend on the state of the gates, and on which scale has the largest score.
    """

    def __init__(self, n_parcels, gate_width, width):
        super().__init__()
        self.power = nn.Sequential(
            nn.Linear(N_SCALES * n_parcels, width // 2, bias=False),
            nn.Linear(width // 2, gate_width, bias=False),
        )
        self.gate = nn.Sequential(
            nn.Linear(gate_width, width, bias=False), nn.Linear(width, n_parcels)
        )
        self.exponent = nn.Linear(gate_width, N_SCALES)
        self.weight = nn.Linear(gate_width, N_SCALES)
        self.compare = nn.Linear(N_SCALES, 2 * N_SCALES, bias=False)
        nn.init.zeros_(self.power[1].weight)
        nn.init.constant_(self.gate[1].bias, -3.0)
        nn.init.constant_(self.exponent.bias, 15.0)
        nn.init.zeros_(self.weight.weight)
        nn.init.zeros_(self.weight.bias)
        nn.init.zeros_(self.compare.weight)

    def forward(self, scores, state):
        """Map scores (n_batch, n_components, N_SCALES * n_parcels) to an answer.

        The state is (n_batch, gate_width). The answer has N_SCALES times as many
        components.
        """
        state = _normalise(state)
        gate = nn.functional.softplus(self.gate(state).float())
        scores = scores.float().unflatten(2, (N_SCALES, -1))
        largest = scores.amax(3).clamp_min(1e-6)  # (n_batch, n_components, N_SCALES)
        best = largest.amax(2, keepdim=True)
        compared = self.compare(_CONTRAST * (largest / best).log()).float()
        compared = compared.split(N_SCALES, 2)
        exponent, weight = (
            layer(state).float()[:, None] + part
            for layer, part in zip((self.exponent, self.weight), compared, strict=True)
        )
        relative = (scores / largest[..., None]).clamp_min(1e-3)
        sharp = nn.functional.softplus(exponent)[..., None] * relative.log()
        sharp = sharp.clamp_min(_LEAST).exp() * (sharp > _LEAST)
        # a component counts by its size
        size = best / best.amax(1, keepdim=True) * torch.sigmoid(weight)
        return (size[..., None] * sharp).flatten(1, 2) * gate[:, None]


def _scaled(answer):
    """Divide an answer by its largest size of a parcel."""
    size = _root_power(answer).amax(1)[:, None, None]
    return answer / size


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

    Parameter names are those of the authors' checkpoints, so their state dictionaries
    load unchanged.

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

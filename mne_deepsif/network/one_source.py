"""A window that holds a single source: where it is, and how large (torch only)."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from typing import NamedTuple

import torch

from .prior import _FLOOR, _LAMBDAS

SHARPNESS = 0.3  # of the likelihood: samples depend on each other, forwards are wrong
_MISFIT = 0.1  # of the data's power, which no topography explains
_N_KEPT = 32  # most likely patches of a window
_AT_ONCE = 2**18  # numbers: 1 MB, which stay in the processor's cache
_N_GROUPS = 32  # of patches, see _largest


class Found(NamedTuple):
    """What a single source makes of windows.

    Attributes
    ----------
    cost : tensor of shape (n_windows,)
        Minus twice the log likelihood per time, as in :class:`Explained`.
    which : tensor of int, shape (n_windows, n_kept)
        The most likely patches.
    amplitudes : tensor of shape (n_windows, n_kept, n_times)
        Activity of each, times its probability.
    predicted : tensor of shape (n_windows, n_modes, n_times)
        What the estimate explains of the data.
    """

    cost: torch.Tensor
    which: torch.Tensor
    amplitudes: torch.Tensor
    predicted: torch.Tensor


class OneSource:
    """The estimate if there is one source, somewhere and of some size.

    It is the mean over patches, weighed by how likely each makes the data. So a weak
    source in a short window is found where a network, which wants to see more of it,
    spreads it out, and a patch keeps its border.

    Parameters
    ----------
    prior : CorticalPrior
        The prior of the leadfield.
    topographies : tensor of shape (n_patches, n_channels)
        Whitened gain of the patches.
    probability : tensor of shape (n_patches,)
        How likely each is before there are data.
    """

    def __init__(self, prior, topographies, probability):
        self._prior = prior
        topographies = topographies @ prior.modes
        size = torch.linalg.vector_norm(topographies, dim=1, keepdim=True)
        topographies = topographies / size.clamp_min(1e-30)
        self._inverse_size = torch.where(size > 0, 1 / size.clamp_min(1e-30), 0.0)
        self._log_probability = probability.log()
        # besides the source, all parcels are a little active
        values, vectors = torch.linalg.eigh(prior.floor().double())
        self._turn = vectors.float()
        self._topographies = topographies @ self._turn
        self._background = (_FLOOR * values.clamp_min(0)).float()

    def explain(self, modes, rest, n_independent):
        """Explain windows by a single source.

        Parameters
        ----------
        modes, rest : tensor
            The data, see :func:`split_modes`.
        n_independent : float
            How many independent samples a window has.

        Returns
        -------
        found : Found
            The likelihood, and what is needed for an estimate.
        """
        data = self._turn.T @ modes
        log = self._log_posterior(data, rest, n_independent)
        total = log.logsumexp(1, keepdim=True)
        log, which = _largest(log, min(_N_KEPT, log.shape[1]))
        probability = (log - total).exp()
        topographies = self._topographies[which]
        amplitudes, cost = self._amplitudes(topographies, data, rest, probability)
        predicted = self._turn @ (topographies.mT @ amplitudes)
        return Found(cost, which, amplitudes * self._inverse_size[which], predicted)

    def _log_posterior(self, data, rest, n_independent):
        """Return log probabilities (n_windows, n_patches) up to a constant."""
        power = (data.square().sum((1, 2)) + rest).clamp_min(1e-30)
        exponent = SHARPNESS * self._prior.n_channels * n_independent / 2
        n_windows, n_modes, n_times = data.shape
        at_times = (data / power.sqrt()[:, None, None]).permute(2, 0, 1)
        rows = at_times.reshape(-1, n_modes)
        n_at_once = max(1, _AT_ONCE // len(rows))
        log = rows.new_empty(n_windows, len(self._topographies))
        for block, known, out in zip(
            self._topographies.split(n_at_once),
            self._log_probability.split(n_at_once),
            log.split(n_at_once, 1),
            strict=True,
        ):
            score = (rows @ block.T).square_().view(n_times, n_windows, -1)
            missed = score.sum(0).neg_().add_(1 + _MISFIT).clamp_min_(_MISFIT)
            torch.add(known, missed.log_(), alpha=-exponent, out=out)
        return log

    def _amplitudes(self, topographies, data, rest, probability):
        """Return amplitudes (n_windows, n_kept, n_times), and cost (n_windows,).

        The noise level is the most likely one. Topographies have a length of 1.
        """
        n_channels, background = self._prior.n_channels, self._background
        variance = n_channels * (1 - _FLOOR)
        share = probability / probability.sum(1, keepdim=True)
        costs, amplitudes = [], []
        for ratio in _LAMBDAS:
            weighted = topographies / (background + ratio)
            gain = 1 + variance * (weighted * topographies).sum(2)
            score = weighted @ data
            power = (data.square() / (background + ratio)[:, None]).sum((1, 2))
            power = (power + rest / ratio)[:, None]
            power = power - variance * score.square().sum(2) / gain
            power = power.clamp_min(torch.finfo(power.dtype).tiny)
            cost = gain.log() + n_channels * power.log()
            costs.append((share * cost).sum(1) + self._log_det(ratio))
            amplitudes.append((variance * probability / gain)[..., None] * score)
        cost, best = torch.stack(costs).min(0)
        each = torch.arange(len(data), device=data.device)
        return torch.stack(amplitudes)[best, each], cost

    def _log_det(self, ratio):
        """Return the log determinant of background and noise."""
        n_rest = self._prior.n_channels - len(self._background)
        background = (self._background + ratio).log().sum()
        return background + n_rest * torch.tensor(ratio).log()


def _largest(values, n_most):
    """Return the largest of each row and their places, as topk does, but sooner.

    The largest are in the groups that have the largest maxima.
    """
    width = values.shape[1] // _N_GROUPS
    if width < n_most:
        return values.topk(n_most, dim=1)
    n_grouped = width * _N_GROUPS
    groups = values[:, :n_grouped].unflatten(1, (_N_GROUPS, width))
    best = groups.amax(1).topk(n_most, dim=1).indices
    first = torch.arange(0, n_grouped, width, device=best.device)
    rest = torch.arange(n_grouped, values.shape[1], device=best.device)
    places = [(first[:, None] + best[:, None]).flatten(1), rest.expand(len(best), -1)]
    places = torch.cat(places, 1)
    found, which = values.gather(1, places).topk(n_most, dim=1)
    return found, places.gather(1, which)

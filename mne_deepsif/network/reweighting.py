"""Turn the network's answer into an estimate that agrees with leadfield and data."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from itertools import pairwise

import numpy as np
import torch

_EXPONENT = 0.6  # of the answer's power: 0 would be a minimum norm, more is sparser
_FLOOR = 0.1  # prior variance of a silent parcel, over the mean of all
_LAMBDAS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # noise over signal, mean over channels
_NEIGHBOUR, _N_STEPS = 0.3, 3  # how far neighbouring parcels act together


def neighbour_correlation(adjacency):
    """Compute the prior correlation of parcels from their common borders.

    Parameters
    ----------
    adjacency : sparse array of shape (n_parcels, n_parcels)
        Nonzero where two parcels share a border.

    Returns
    -------
    correlation : list of tensor of shape (n_block, n_block)
        Blocks along the diagonal, split where no border crosses: the hemispheres.
        Entries are 1 on the diagonal, about .8, .4 and .15 for parcels that are 1, 2
        and 3 borders apart, and 0 from 7 borders on.
    """
    borders = adjacency.toarray() > 0
    n_parcels = len(borders)
    reach = np.where(borders, np.arange(n_parcels), 0).max(1, initial=0)
    reach = np.maximum.accumulate(np.maximum(reach, np.arange(n_parcels)))
    bounds = [0, *(np.flatnonzero(reach == np.arange(n_parcels)) + 1)]
    return [_correlation(borders[a:b, a:b]) for a, b in pairwise(bounds)]


def _correlation(borders):
    step = np.eye(len(borders)) + _NEIGHBOUR * borders
    spread = np.linalg.matrix_power(step, _N_STEPS)
    covariance = spread @ spread.T
    std = np.sqrt(np.diag(covariance))
    return torch.as_tensor(covariance / np.outer(std, std)).float()


def reweight(answer, data, gain, correlation):
    """Compute the minimum-norm estimate with the network's answer as its prior.

    The answer says where activity is likely. The leadfield, with the orientations of
    this head, then says which activity there explains the data. For each window, the
    most likely of a few noise-to-signal ratios is used. Apart from these weights, the
    estimate is linear in the data, so it keeps the sign.

    Parameters
    ----------
    answer : tensor of shape (n_windows, n_parcels, n_times)
        The network's answer, on any scale.
    data : tensor of shape (n_windows, n_channels, n_times)
        Whitened data.
    gain : tensor of shape (n_channels, n_parcels)
        Whitened leadfield.
    correlation : list of tensor of shape (n_block, n_block)
        What :func:`neighbour_correlation` returned.

    Returns
    -------
    estimate : tensor of shape (n_windows, n_parcels, n_times)
        Activity in the unit of data over gain; zero where the answer is all zero.
    """
    power = answer.square().sum(-1)
    mean = power.mean(1, keepdim=True)
    silent = ~(mean > 0)
    variance = (power / torch.where(silent, 1.0, mean)) ** _EXPONENT
    variance = variance / variance.mean(1, keepdim=True).clamp_min(1e-30) + _FLOOR
    std = variance.sqrt().unsqueeze(-1)
    sizes = [len(block) for block in correlation]
    parts = zip(gain.split(sizes, 1), std.split(sizes, 1), strict=True)
    scaled = [part * part_std.mT for part, part_std in parts]
    mixed = [part @ block for part, block in zip(scaled, correlation, strict=True)]
    covariance = sum(a @ b.mT for a, b in zip(mixed, scaled, strict=True))
    weights = _most_likely_weights(covariance, data)
    estimate = std * torch.cat([part.mT @ weights for part in mixed], 1)
    return torch.where(silent.unsqueeze(-1), 0.0, estimate)


def _most_likely_weights(covariance, data):
    """Solve (covariance + noise) x = data with the most likely noise level."""
    n_channels, n_times = data.shape[1:]
    noise = covariance.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    noise = noise * torch.eye(n_channels, device=data.device)
    lowest = torch.full((len(data), 1, 1), torch.inf, device=data.device)
    weights = torch.zeros_like(data)
    for ratio in _LAMBDAS:
        factor = torch.linalg.cholesky(covariance + ratio * noise)
        found = torch.cholesky_solve(data, factor)
        # minus the log likelihood at the best common scale, in units of n_times / 2
        log_det = 2 * factor.diagonal(dim1=1, dim2=2).log().sum(1)[:, None, None]
        cost = log_det + n_channels * (data * found).sum((1, 2), keepdim=True).log()
        better = cost < lowest
        lowest = torch.where(better, cost, lowest)
        weights = torch.where(better, found, weights)
    return weights

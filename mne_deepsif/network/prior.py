"""The last step: minimum norm with the network's answer as its prior (torch only)."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from typing import NamedTuple

import numpy as np
import torch

from .encoder import N_SCANNED

_EXPONENT = 0.6  # of the answer's power: 0 would be a minimum norm, more is sparser
_FLOOR = 0.05  # prior variance of a silent parcel, over the mean of all
_LAMBDAS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # noise over signal, mean over channels
_NEIGHBOUR, _N_STEPS = 0.3, 3  # how far a patch reaches beyond its parcel
_TAIL = 1e-4  # share of the gain's power that the modes leave out


def patch_profiles(adjacency):
    """Compute the activity of a patch around each parcel.

    Parameters
    ----------
    adjacency : sparse array of shape (n_parcels, n_parcels)
        Nonzero where two parcels share a border.

    Returns
    -------
    profiles : array of shape (n_parcels, n_parcels)
        One patch per column: it falls off over three borders. A column sums to 1.
    """
    borders = adjacency.toarray() > 0
    step = np.eye(len(borders)) + _NEIGHBOUR * borders
    profiles = np.linalg.matrix_power(step, _N_STEPS)
    return profiles / profiles.sum(0)


def prior_variances(answer, n_parcels):
    """Turn the network's answer into prior variances.

    Parameters
    ----------
    answer : tensor of shape (n_windows, n_rows, n_times)
        The network's answer, on any scale. ``n_rows`` is ``2 * n_parcels``: first how
        much of each parcel is active piece by piece, then how much as a patch. With
        ``n_parcels`` rows, both are the same.
    n_parcels : int
        Number of parcels.

    Returns
    -------
    variances : tensor of shape (n_windows, 2 * n_parcels)
        Variances, of a mean of about 1 in all; zero where the answer is all zero.
    """
    power = answer.float().square().sum(-1)
    if power.shape[1] == n_parcels:
        power = torch.cat([power, power], 1) / 2
    fine, patch = power.split(n_parcels, 1)
    total = fine + patch
    mean = total.mean(1, keepdim=True)
    silent = mean == 0
    # the power's slope is infinite at 0, which would spoil the gradient
    relative = (total / torch.where(silent, 1.0, mean)).clamp_min(1e-12)
    variance = relative**_EXPONENT
    variance = variance / variance.mean(1, keepdim=True).clamp_min(1e-30) + _FLOOR
    share = patch / total.clamp_min(1e-30)
    variances = torch.cat([variance * (1 - share), variance * share], 1)
    return torch.where(silent, 0.0, variances)


class CorticalPrior:
    """The covariance that prior variances of the parcels give to the data.

    Activity within a parcel is a sum of *fine* patterns, which are independent. A
    *patch* is activity of one sign that reaches into the neighbouring parcels. Both
    have a variance for each parcel.

    Parameters
    ----------
    fine : tensor of shape (n_channels, n_fine)
        Whitened gain of the fine patterns.
    parcel : tensor of int, shape (n_fine,)
        The parcel of each fine pattern.
    uniform : tensor of shape (n_channels, n_parcels)
        Whitened gain of uniform activity of each parcel.
    profiles : tensor of shape (n_parcels, n_parcels)
        See :func:`patch_profiles`.
    """

    def __init__(self, fine, parcel, uniform, profiles):
        self.n_channels, self.n_parcels = uniform.shape
        power = (uniform @ profiles).square().sum().clamp_min(1e-30)
        # both kinds are as strong
        self.profiles = profiles * (fine.square().sum() / power).sqrt()
        patch = uniform @ self.profiles
        self.modes = _leading_modes(torch.cat([fine, patch], 1))
        self.fine, self.parcel = self.modes.T @ fine, parcel
        self.patch = self.modes.T @ patch
        rows, columns = torch.triu_indices(*[len(self.fine)] * 2, device=fine.device)
        self._full = torch.zeros(
            len(self.fine), len(self.fine), dtype=torch.long, device=fine.device
        )
        self._full[rows, columns] = torch.arange(len(rows), device=fine.device)
        self._full[columns, rows] = self._full[rows, columns]
        blocks = self._by_parcel()
        squares = [part @ part.mT for part in blocks.split(64)]
        squares = torch.cat([part[:, rows, columns] for part in squares])
        patches = self.patch.T[:, rows] * self.patch.T[:, columns]
        self._squares = torch.cat([squares, patches])

    def _by_parcel(self):
        """Return the fine gains as (n_parcels, n_modes, n_most), padded with zeros."""
        order = torch.argsort(self.parcel, stable=True)
        parcel = self.parcel[order]
        counts = torch.bincount(parcel, minlength=self.n_parcels)
        first = torch.cumsum(counts, 0) - counts
        place = torch.arange(len(parcel), device=parcel.device) - first[parcel]
        shape = (self.n_parcels, int(counts.max()), len(self.fine))
        blocks = torch.zeros(shape, device=parcel.device)
        blocks[parcel, place] = self.fine.T[order]
        return blocks.mT

    def scan_kernels(self, regularization=0.1):
        """Compute kernels that tell how much of the data each parcel could explain.

        As sLORETA does, but with the leading directions of the parcel's fine patterns
        instead of one topography. So a source is seen at its place whatever its
        orientation within the parcel.

        Parameters
        ----------
        regularization : float
            Noise over the mean power of a channel's gain.

        Returns
        -------
        kernels : tensor of shape (n_parcels * n_each, n_channels)
            Kernels; the squares of a parcel's ``n_each`` sum to its score.
        """
        blocks = self._by_parcel().double()  # (n_parcels, n_modes, n_most)
        fine = self.fine.double()
        covariance = fine @ fine.T
        level = regularization * covariance.trace() / len(covariance)
        covariance += level * torch.eye(len(covariance), device=fine.device)
        vectors = torch.linalg.eigh(blocks.mT @ blocks)[1].flip(2)[:, :, :N_SCANNED]
        directions = blocks @ vectors
        kernels = torch.linalg.solve(covariance, directions)
        values, vectors = torch.linalg.eigh(directions.mT @ kernels)
        # a parcel may have fewer directions
        seen = values > 1e-6 * values[:, -1:].clamp_min(1e-30)
        roots = torch.where(seen, values, torch.inf).rsqrt()
        kernels = (kernels @ (vectors * roots[:, None])).mT
        missing = N_SCANNED - kernels.shape[1]
        kernels = torch.nn.functional.pad(kernels, (0, 0, 0, missing))
        return (kernels @ self.modes.T.double()).flatten(0, 1).float()

    def covariance(self, variances):
        """Compute the covariance of the data's modes: (n_windows, n_modes, n_modes)."""
        return (variances @ self._squares)[:, self._full]

    def estimate(self, variances, weights):
        """Turn weights of the modes into coefficients.

        Parameters
        ----------
        variances : tensor of shape (n_windows, 2 * n_parcels)
            What :func:`prior_variances` returned.
        weights : tensor of shape (n_windows, n_modes, n_times)
            Data divided by their covariance.

        Returns
        -------
        coefficients : tensor of shape (n_windows, n_fine + n_parcels, n_times)
            Coefficients of the fine patterns, then activity of whole parcels.
        """
        fine, patch = variances.split(self.n_parcels, 1)
        weights = weights.mT  # rows of all windows in one product, not one for each
        fine = weights @ self.fine * fine[:, None, self.parcel]
        patch = (weights @ self.patch * patch[:, None]) @ self.profiles.T
        return torch.cat([fine, patch], 2).mT


def _leading_modes(gain):
    """Return the modes (n_channels, n_modes) that hold nearly all of a gain's power."""
    values, vectors = torch.linalg.eigh(gain.double() @ gain.double().T)
    tail = torch.cumsum(values.clamp_min(0), 0)
    kept = tail > _TAIL * tail[-1]
    return vectors[:, kept].float() if kept.any() else vectors[:, -1:].float()


class Explained(NamedTuple):
    """How a prior explains data.

    Attributes
    ----------
    cost : tensor of shape (n_windows,)
        Minus twice the log likelihood at the best scale, per time.
    weights : tensor of shape (n_windows, n_modes, n_times)
        Data divided by their covariance.
    predicted : tensor of shape (n_windows, n_modes, n_times)
        What the estimate explains of the data.
    noise : tensor of shape (n_windows,)
        Variance of the noise: the most likely of a few.
    """

    cost: torch.Tensor
    weights: torch.Tensor
    predicted: torch.Tensor
    noise: torch.Tensor


class Spectrum:
    """Eigenvalues and eigenvectors of the covariance that some priors give to the data.

    Parameters
    ----------
    prior : CorticalPrior
        The prior of the leadfield.
    variances : tensor of shape (n_priors, 2 * n_parcels)
        Prior variances.
    """

    def __init__(self, prior, variances):
        self.n_channels = prior.n_channels
        values, self.vectors = torch.linalg.eigh(prior.covariance(variances))
        self.values = values.clamp_min(0)
        level = self.values.sum(1) / self.n_channels
        self.level = torch.where(level == 0, 1.0, level)

    def explain(self, data, rest, which):
        """Explain data by one of the priors each, at the most likely noise level.

        Parameters
        ----------
        data : tensor of shape (n_windows, n_modes, n_times)
            Modes of the data.
        rest : tensor of shape (n_windows,)
            Power of the data outside of the modes.
        which : tensor of int, shape (n_windows,)
            The prior of each window.

        Returns
        -------
        explained : Explained
            The likelihood, and what is needed for an estimate.
        """
        values, vectors = self.values[which], self.vectors[which]
        ratios = torch.tensor(_LAMBDAS, device=values.device)
        noise = self.level[which, None] * ratios
        turned = vectors.mT @ data
        total = values[:, None] + noise[..., None]  # (n_windows, n_ratios, n_modes)
        power = (turned.square().sum(2)[:, None] / total).sum(2) + rest[:, None] / noise
        power = power.clamp_min(torch.finfo(power.dtype).tiny)
        n_rest = self.n_channels - values.shape[1]
        log_det = total.log().sum(2) + n_rest * noise.log()
        cost, best = (log_det + self.n_channels * power.log()).min(1)
        noise = noise.gather(1, best[:, None])
        weights = turned / (values + noise)[..., None]
        predicted = vectors @ (values[..., None] * weights)
        return Explained(cost, vectors @ weights, predicted, noise[:, 0])


def split_modes(prior, data):
    """Split data into the modes of a prior and the power of the rest.

    Parameters
    ----------
    prior : CorticalPrior
        The prior.
    data : tensor of shape (n_windows, n_channels, n_times)
        Whitened data.

    Returns
    -------
    modes : tensor of shape (n_windows, n_modes, n_times)
        The modes.
    rest : tensor of shape (n_windows,)
        Power outside of them.
    """
    modes = prior.modes.T @ data
    rest = data.square().sum((1, 2)) - modes.square().sum((1, 2))
    return modes, rest.clamp_min(0)


def differentiable_estimate(prior, variances, data):
    """Estimate activity so that the gradient reaches the prior variances.

    The noise level is chosen as in :meth:`Spectrum.explain`, and then held.

    Parameters
    ----------
    prior : CorticalPrior
        The prior of the leadfield.
    variances : tensor of shape (n_windows, 2 * n_parcels)
        Prior variances.
    data : tensor of shape (n_windows, n_channels, n_times)
        Whitened data.

    Returns
    -------
    coefficients : tensor of shape (n_windows, n_fine + n_parcels, n_times)
        As :meth:`CorticalPrior.estimate` returns them.
    """
    with torch.no_grad():
        modes, rest = split_modes(prior, data)
        each = torch.arange(len(data), device=data.device)
        noise = Spectrum(prior, variances).explain(modes, rest, each).noise
    covariance = prior.covariance(variances)
    unit = torch.eye(covariance.shape[1], device=covariance.device)
    factor, _ = torch.linalg.cholesky_ex(covariance + noise[:, None, None] * unit)
    return prior.estimate(variances, torch.cholesky_solve(modes, factor))

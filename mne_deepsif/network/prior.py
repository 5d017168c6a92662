"""The last step: minimum norm with the network's answer as its prior (torch only)."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from typing import NamedTuple

import numpy as np
import torch

from .device import FewRows

_EXPONENT = 0.6  # of the answer's power: 0 would be a minimum norm, more is sparser
_FLOOR = 0.05  # prior variance of a silent parcel, over the mean of all
_MOST_CHANGE = (1e-4, 1e4)  # of a variance's evidence
_LAMBDAS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # noise over signal, mean over channels
_NEIGHBOUR, _N_STEPS = 0.3, 3  # how far a patch reaches beyond its parcel
_FEW = 8  # windows: to read the squares of the patterns takes longer than to compute
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
        n_modes, device = len(self.fine), fine.device
        rows, columns = torch.triu_indices(n_modes, n_modes, device=device)
        # where the upper triangle is in a matrix, and a matrix in the triangle
        self._upper = rows * n_modes + columns
        full = torch.zeros(n_modes, n_modes, dtype=torch.long, device=device)
        full[rows, columns] = torch.arange(len(rows), device=device)
        self._full = (full + full.triu(1).T).flatten()
        self._twice = torch.where(rows == columns, 1.0, 2.0)  # for the lower one
        blocks = pad_by_owner(self.fine.T, parcel, self.n_parcels).mT
        squares = [part @ part.mT for part in blocks.split(64)]
        squares = torch.cat([part[:, rows, columns] for part in squares])
        patches = self.patch.T[:, rows] * self.patch.T[:, columns]
        self._squares = torch.cat([squares, patches])
        self._few_rows = None  # see expect_few_windows

    def scan_kernels(self, points, owner, regularization=0.1):
        """Compute kernels that tell how well single topographies explain the data.

        As sLORETA does, with the covariance that equal variances of all fine patterns
        give to the data.

        Parameters
        ----------
        points : tensor of shape (n_scales, n_points, n_channels)
            Whitened topographies of sources around some points, of growing size.
        owner : tensor of int, shape (n_points,)
            The parcel of each point.
        regularization : float
            Noise over the mean power of a channel's gain.

        Returns
        -------
        kernels : tensor of shape (n_most, n_channels, n_scales * n_parcels)
            Kernels of the first point of each parcel, of the second, and so on; the
            columns are one scale after the other. A parcel with fewer points than
            others has zeros in their place.
        """
        fine = (self.modes @ self.fine).double()
        covariance = fine @ fine.T
        level = regularization * covariance.trace() / len(covariance)
        covariance += level * torch.eye(len(covariance), device=fine.device)
        points = points.double()
        kernels = torch.linalg.solve(covariance, points.mT).mT
        size = (kernels * points).sum(2, keepdim=True)
        seen = size > 1e-9 * size.amax().clamp_min(1e-30)
        kernels = torch.where(seen, kernels * size.rsqrt(), 0.0).float()
        kernels = pad_by_owner(kernels.transpose(0, 1), owner, self.n_parcels)
        # (n_parcels, n_most, n_scales, n_channels)
        return kernels.permute(1, 3, 2, 0).flatten(2).contiguous()

    def evidence(self, weights, inverse):
        """Compare the power that data hold of each parcel with what is expected of it.

        Parameters
        ----------
        weights : tensor of shape (n_windows, n_modes, n_times)
            Data divided by their covariance.
        inverse : tensor of shape (n_windows, n_modes, n_modes)
            Inverse of that covariance.

        Returns
        -------
        ratios : tensor of shape (n_windows, 2 * n_parcels)
            Summed over times. All the same where the prior variances are right, up to
            chance. A parcel that explains more than its variance allows has more.
        """
        half = inverse.flatten(1).index_select(1, self._upper) * self._twice
        expected = self._with_squares(half, transposed=True)
        fine = (weights.mT @ self.fine).square().sum(1)
        total = torch.zeros(len(fine), self.n_parcels, device=fine.device)
        fine = total.index_add(1, self.parcel, fine)
        patch = (weights.mT @ self.patch).square().sum(1)
        return torch.cat([fine, patch], 1) / expected.clamp_min(1e-20)

    def covariance(self, variances):
        """Compute the covariance of the data's modes: (n_windows, n_modes, n_modes)."""
        upper = self._with_squares(variances)
        return upper.index_select(1, self._full).unflatten(1, (len(self.fine), -1))

    def floor(self):
        """Compute the covariance (n_modes, n_modes) of equal variances everywhere.

        Its trace is the number of channels.
        """
        equal = torch.full((1, 2 * self.n_parcels), 0.5, device=self.fine.device)
        covariance = self.covariance(equal)[0]
        return self.n_channels * covariance / covariance.trace().clamp_min(1e-30)

    def expect_few_windows(self):
        """Let evidence and covariance of a few windows take less time, more memory."""
        if self._few_rows is None and FewRows.suits(self._squares):
            self._few_rows = FewRows(self._squares), FewRows(self._squares.T)

    def _with_squares(self, rows, transposed=False):
        """Multiply rows with the squares of all patterns, or with their transpose."""
        if self._few_rows and len(rows) <= _FEW and not rows.requires_grad:
            return self._few_rows[transposed](rows)
        return rows @ (self._squares.T if transposed else self._squares)

    def __getstate__(self):
        """Leave out what can be made again."""
        return {**vars(self), "_few_rows": None}

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


def pad_by_owner(rows, owner, n_owners):
    """Gather rows (n_rows, ...) as (n_owners, n_most, ...), padded with zeros."""
    order = torch.argsort(owner, stable=True)
    owner = owner[order]
    counts = torch.bincount(owner, minlength=n_owners)
    first = torch.cumsum(counts, 0) - counts
    place = torch.arange(len(owner), device=owner.device) - first[owner]
    shape = (n_owners, int(counts.max()), *rows.shape[1:])
    padded = torch.zeros(shape, device=rows.device)
    padded[owner, place] = rows[order]
    return padded


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
    """

    cost: torch.Tensor
    weights: torch.Tensor
    predicted: torch.Tensor


def _most_likely(noise, power, log_det, rest, n_rest, n_channels):
    """Return cost (n_windows,) and level (n_windows, 1) of the most likely noise.

    ``noise``, and of the modes ``power`` and ``log_det``, are (n_windows, n_ratios).
    Outside of the modes, in ``n_rest`` channels, there is noise alone.
    """
    power = power + rest[:, None] / noise
    power = power.clamp_min(torch.finfo(power.dtype).tiny)
    log_det = log_det + n_rest * noise.log()
    cost, best = (log_det + n_channels * power.log()).min(1)
    return cost, noise.gather(1, best[:, None])


class Spectrum:
    """Eigenvalues and eigenvectors of the covariance that some priors give to the data.

    Parameters
    ----------
    covariance : tensor of shape (n_priors, n_modes, n_modes)
        See :meth:`CorticalPrior.covariance`.
    n_channels : int
        Number of channels; noise is in those outside of the modes as well.
    """

    def __init__(self, covariance, n_channels):
        self.n_channels = n_channels
        values, self.vectors = torch.linalg.eigh(covariance)
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
        turned = data.mT @ vectors
        total = values[:, None] + noise[..., None]  # (n_windows, n_ratios, n_modes)
        power = (turned.square().sum(1)[:, None] / total).sum(2)
        log_det = total.log().sum(2)
        n_rest = self.n_channels - values.shape[1]
        cost, noise = _most_likely(noise, power, log_det, rest, n_rest, self.n_channels)
        weights = turned / (values + noise)[:, None]
        predicted = (values[:, None] * weights) @ vectors.mT
        return Explained(cost, (weights @ vectors.mT).mT, predicted.mT)


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


def reweigh(prior, variances, modes, rest):
    """Adapt prior variances to data: one step to the maximum of their likelihood.

    A parcel gains variance if it explains more of the data than its variance lets
    expect, and loses if it explains less. So what the network gave to too many parcels
    is taken from those that the data do not need. The gradient reaches the variances.

    Parameters
    ----------
    prior : CorticalPrior
        The prior of the leadfield.
    variances : tensor of shape (n_windows, 2 * n_parcels)
        What :func:`prior_variances` returned.
    modes, rest : tensor
        The data, see :func:`split_modes`.

    Returns
    -------
    variances : tensor of shape (n_windows, 2 * n_parcels)
        The variances, of the same scale as before.

    Notes
    -----
    The step is that of the convex bound on the log determinant
    :footcite:p:`WipfEtAl2010`: each variance times the root of the power found over
    that expected.

    References
    ----------
    .. footbibliography::
    """
    factor, noise = _factor(prior, variances, modes, rest)
    unit = torch.eye(len(prior.fine), device=factor.device).expand_as(factor)
    root = torch.linalg.solve_triangular(factor, unit, upper=False)
    weights = root.mT @ (root @ modes)
    ratios = prior.evidence(weights, root.mT @ root)
    power = (weights * modes).sum((1, 2)) + rest / noise
    ratios = ratios * (prior.n_channels / power.clamp_min(1e-30))[:, None]
    moved = variances * ratios.clamp(*_MOST_CHANGE).sqrt()
    moved = moved / moved.mean(1, keepdim=True).clamp_min(1e-30) + _FLOOR / 2
    return torch.where(variances.amax(1, keepdim=True) == 0, 0.0, moved)


def _factor(prior, variances, modes, rest):
    """Return the Cholesky factor of the data's covariance, and the noise in it.

    The noise level is chosen as in :meth:`Spectrum.explain`, and then held.
    """
    covariance = prior.covariance(variances)
    unit = torch.eye(covariance.shape[1], device=covariance.device)
    n_rest = prior.n_channels - len(unit)
    with torch.no_grad():
        level = covariance.diagonal(dim1=1, dim2=2).sum(1) / prior.n_channels
        level = torch.where(level <= 0, 1.0, level)
        ratios = torch.tensor(_LAMBDAS, device=level.device)
        noises = ratios * level[:, None]  # (n_windows, n_ratios)
        factors = _cholesky(covariance[:, None], noises, unit)
        parts = torch.linalg.solve_triangular(factors, modes[:, None], upper=False)
        power = parts.square().sum((2, 3))
        log_det = 2 * factors.diagonal(dim1=2, dim2=3).log().sum(2)
        _, noise = _most_likely(noises, power, log_det, rest, n_rest, prior.n_channels)
        noise = noise[:, 0]
    return _cholesky(covariance, noise, unit), noise


def _cholesky(covariance, noise, unit):
    """Return the factor of a covariance to which noise is added."""
    return torch.linalg.cholesky_ex(covariance + noise[..., None, None] * unit)[0]


def differentiable_estimate(prior, variances, data):
    """Estimate activity so that the gradient reaches the prior variances.

    Parameters
    ----------
    prior : CorticalPrior
        The prior of the leadfield.
    variances : tensor of shape (n_windows, 2 * n_parcels)
        What :func:`prior_variances` returned.
    data : tensor of shape (n_windows, n_channels, n_times)
        Whitened data.

    Returns
    -------
    coefficients : tensor of shape (n_windows, n_fine + n_parcels, n_times)
        As :meth:`CorticalPrior.estimate` returns them.
    """
    modes, rest = split_modes(prior, data)
    variances = reweigh(prior, variances, modes, rest)
    factor, _ = _factor(prior, variances, modes, rest)
    half = torch.linalg.solve_triangular(factor, modes, upper=False)
    weights = torch.linalg.solve_triangular(factor.mT, half, upper=True)
    return prior.estimate(variances, weights)

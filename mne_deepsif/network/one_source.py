"""The prior of a window that holds a single source (torch only)."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import torch

from .prior import _FLOOR, pad_by_owner

SHARPNESS = 0.3  # of the likelihood: samples depend on each other, forwards are wrong
_FEW = 16  # windows
_MISFIT = 0.1  # of the data's power, which no topography explains


class OneSource:
    """Prior variances if there is one source: how likely it is in each parcel.

    The source may be anywhere and of several sizes. Each candidate has a topography of
    its own. So a weak source in a short window is found where a network, which wants to
    see more of it, spreads it out.

    Parameters
    ----------
    prior : CorticalPrior
        The prior of the leadfield.
    points : tensor of shape (n_scales, n_points, n_channels)
        Whitened topographies of sources around some points, of growing size. The last
        size is that of a patch.
    owner : tensor of int, shape (n_points,)
        The parcel of each point.
    """

    def __init__(self, prior, points, owner):
        self._prior, self._n_scales = prior, len(points)
        topographies = torch.nn.functional.normalize(points @ prior.modes, dim=2)
        topographies = topographies.transpose(0, 1)
        counts = torch.bincount(owner, minlength=prior.n_parcels)
        # parcels with most points first: those that have one more are a prefix
        order = torch.argsort(counts, descending=True, stable=True)
        self._place = torch.argsort(order)
        topographies = pad_by_owner(topographies, self._place[owner], prior.n_parcels)
        # all parcels are as likely, and so are the points within
        self._log_weights = -counts[order].clamp_min(1).log()[:, None]
        # (n_scales * n_with, n_modes): a block for the first point of each parcel that
        # has one, one for the second, and so on
        self._blocks = [
            topographies[: int((counts > index).sum()), index]
            .transpose(0, 1)
            .flatten(0, 1)
            .contiguous()
            for index in range(topographies.shape[1])
        ]

    def variances(self, modes, rest, n_independent):
        """Compute prior variances of windows.

        Parameters
        ----------
        modes, rest : tensor
            The data, see :func:`split_modes`.
        n_independent : float
            How many independent samples a window has.

        Returns
        -------
        variances : tensor of shape (n_windows, 2 * n_parcels)
            Variances as :func:`prior_variances` returns them. They add up to those of
            the posterior probabilities, and the floor.
        """
        n_parcels = self._prior.n_parcels
        power = modes.square().sum((1, 2)) + rest
        exponent = SHARPNESS * self._prior.n_channels * n_independent / 2
        likely = self._posterior(modes, power.clamp_min(1e-30), exponent)
        *fine, patch = likely[:, self._place].mT
        likely = torch.stack([sum(fine), patch], 1)
        total = likely.sum(1, keepdim=True)
        parts = torch.where(total > 0, likely / total.clamp_min(1e-30), 0.5)
        return (parts * (n_parcels * total + _FLOOR)).flatten(1)

    def _posterior(self, modes, power, exponent):
        """Return probabilities (n_scales, n_parcels, n_windows), in order of blocks."""
        at_times = modes.permute(2, 1, 0).contiguous()
        n_with = [len(block) // self._n_scales for block in self._blocks]
        logs = [_explained(block, at_times) for block in self._blocks]
        for log, n in zip(logs, n_with, strict=True):
            missed = log.div_(power).neg_().add_(1).clamp_min_(0).add_(_MISFIT)
            missed.log_().mul_(-exponent)
            log.view(self._n_scales, n, -1).add_(self._log_weights[:n])
        largest = torch.stack([log.amax(0) for log in logs]).amax(0)
        shape = (self._n_scales, self._prior.n_parcels, len(modes))
        likely = torch.zeros(shape, device=modes.device)
        for log, n in zip(logs, n_with, strict=True):
            likely[:, :n] += log.sub_(largest).exp_().view(self._n_scales, n, -1)
        return likely / likely.sum((0, 1))


def _explained(block, at_times):
    """Return the power that each topography explains, (n_rows, n_windows)."""
    n_windows = at_times.shape[2]
    if n_windows < _FEW:  # to read the topographies takes longest: all times at once
        score = at_times.permute(2, 0, 1).flatten(0, 1) @ block.T
        score = score.square_().unflatten(0, (n_windows, -1))
        return score.sum(1).T.contiguous()
    total = (block @ at_times[0]).square_()
    score = torch.empty_like(total)
    # one time after the other: the sums stay in the processor's cache
    for data in at_times[1:]:
        torch.mm(block, data, out=score)
        total.addcmul_(score, score)
    return total

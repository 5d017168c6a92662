"""The prior of a window that holds a single source (torch only)."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import torch

from .prior import _FLOOR, pad_by_owner

SHARPNESS = 0.3  # of the likelihood: samples depend on each other, forwards are wrong
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
        self._prior = prior
        topographies = torch.nn.functional.normalize(points @ prior.modes, dim=2)
        topographies = pad_by_owner(
            topographies.transpose(0, 1), owner, prior.n_parcels
        )
        # (n_most, n_scales * n_parcels, n_modes): one block for each point of a parcel
        self._topographies = topographies.permute(1, 2, 0, 3).flatten(1, 2).contiguous()
        weights = pad_by_owner(
            torch.ones(len(owner)).to(points), owner, prior.n_parcels
        )
        weights = weights / weights.sum(1, keepdim=True).clamp_min(1)
        # all parcels are as likely, and so are the points within; no point, no source
        weights = weights.T[:, None].expand(-1, len(points), -1)
        self._log_weights = weights.flatten(1).log()[..., None]

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
        share = self._explained(modes) / power.clamp_min(1e-30)
        exponent = SHARPNESS * self._prior.n_channels * n_independent / 2
        missed = (1 - share).clamp_min(0) + _MISFIT
        log = self._log_weights - exponent * missed.log()
        likely = log.flatten(0, 1).softmax(0).unflatten(0, log.shape[:2]).sum(0)
        *fine, patch = likely.T.unflatten(1, (-1, n_parcels)).unbind(1)
        likely = torch.stack([sum(fine), patch], 1)
        total = likely.sum(1, keepdim=True)
        parts = torch.where(total > 0, likely / total.clamp_min(1e-30), 0.5)
        return (parts * (n_parcels * total + _FLOOR)).flatten(1)

    def _explained(self, modes):
        """Return the power that each topography explains, (..., n_windows)."""
        explained = modes.new_zeros(*self._topographies.shape[:2], len(modes))
        score = torch.empty_like(explained[0])
        at_times = modes.permute(2, 1, 0).contiguous()
        # one time after the other: the sums stay in the processor's cache
        for total, block in zip(explained, self._topographies, strict=True):
            for data in at_times:
                torch.mm(block, data, out=score)
                total.addcmul_(score, score)
        return explained

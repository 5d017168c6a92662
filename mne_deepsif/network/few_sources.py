"""A window that holds one source, or two: where, and how large (torch only)."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from typing import NamedTuple

import torch

from .prior import _FLOOR, _LAMBDAS

SHARPNESS = 0.3  # of the likelihood: samples depend on each other, forwards are wrong
_OF_SIZES = 0.5  # how much of it counts for sizes, which wrong forwards falsify
_MISFIT = 0.1  # of the data's power, which no topography explains
_APART = 0.1  # least share of a topography's power that the other source's lacks
_N_KEPT = 64  # most likely patches of a window
# how much better than the network's an explanation must be to count as much (minus
# twice the log likelihood): by one source, by two
_HANDICAPS = (-12.0, 48.0)
# a first pair worse than one source by as much, handicaps included, is given up
_HOPELESS = 30.0
_N_SCANS = 4  # for two sources, each beside the other in turn
_AT_ONCE = 2**17  # numbers: 0.5 MB, which stay in the processor's cache
_LEAST = 128  # topographies compared at once, however many windows and times there are
_N_GROUPS = 32  # of patches, see _largest


class Found(NamedTuple):
    """How one source explains windows, and how two sources do.

    Attributes
    ----------
    cost : tensor of shape (n_windows, 2)
        Minus twice the log likelihood per time, as in :class:`Explained`, and what the
        explanation must be better. It is infinite for two sources that are no match for
        one.
    which : tensor of int, shape (n_windows, 2, n_kept)
        The most likely patches; one half for each of two sources.
    amplitudes : tensor of shape (n_windows, 2, n_kept, n_times)
        Activity of each, times its probability.
    predicted : tensor of shape (n_windows, 2, n_modes, n_times)
        What the estimate explains of the data.
    """

    cost: torch.Tensor
    which: torch.Tensor
    amplitudes: torch.Tensor
    predicted: torch.Tensor


class FewSources:
    """Estimates for one source or two, anywhere and of any size.

    They are means over patches, weighed by how likely each makes the data. So a weak
    source in a short window is found where a network, which wants to see more of it,
    spreads it out, and a patch keeps its border. Of two sources, each is the mean over
    patches beside the likeliest patch of the other.

    Parameters
    ----------
    prior : CorticalPrior
        The prior of the leadfield.
    topographies : tensor of shape (n_patches, n_channels)
        Whitened gain of the patches, one size after the other.
    n_members : tensor of shape (n_patches,)
        How many vertices each has, or parcels.
    n_of_size : sequence of int
        How many patches there are of each size.
    """

    def __init__(self, prior, topographies, n_members, n_of_size):
        self._prior = prior
        topographies = topographies @ prior.modes
        size = torch.linalg.vector_norm(topographies, dim=1, keepdim=True)
        topographies = topographies / size.clamp_min(1e-30)
        self._inverse_size = torch.where(size > 0, 1 / size.clamp_min(1e-30), 0.0)
        self._n_of_size = [int(n) for n in n_of_size]
        counts = torch.tensor(self._n_of_size, device=size.device)
        # before there are data, all sizes are as likely
        alone = -counts.repeat_interleave(counts).log()
        # of two sources, many pairs of small ones resemble a large one
        beside = alone + n_members.clamp_min(1).log()
        self._log_probability = alone, beside
        # besides the sources, all parcels are a little active
        values, vectors = torch.linalg.eigh(prior.floor().double())
        self._turn = vectors.float()
        self._topographies = topographies @ self._turn
        self._background = (_FLOOR * values.clamp_min(0)).float()

    def explain(self, modes, rest, n_independent):
        """Explain windows by one source, and by two.

        Parameters
        ----------
        modes, rest : tensor
            The data, see :func:`split_modes`.
        n_independent : float
            How many independent samples a window has.

        Returns
        -------
        found : Found
            The likelihoods, and what is needed for estimates.
        """
        data = self._turn.T @ modes
        power = (data.square().sum((1, 2)) + rest).clamp_min(1e-30)
        shares = data / power.sqrt()[:, None, None]
        explained = self._explained(shares)
        log = self._log_posterior(shares, explained, n_independent)
        one = self._mean_over_patches(log, data, rest, n_independent)
        given = data, rest, shares, explained
        two = self._explain_by_two(*given, n_independent, one)
        return Found(*(torch.stack(pair, 1) for pair in zip(one, two, strict=True)))

    def _explain_by_two(self, data, rest, shares, explained, n_independent, one):
        """Explain windows by two sources, unless the first guess is no match for one.

        Return a Found without its second dimension, as ``one``.
        """
        first = one.which[:, 0]
        second = self._likeliest_beside(first, shares, explained)
        sure = torch.ones(len(data), 1, device=data.device)
        given = self._topographies[second][:, None], data, rest, sure
        cost = self._amplitudes(*given, self._topographies[first])[1]
        cost += _HANDICAPS[1] / n_independent
        kept = cost < one.cost + _HOPELESS / n_independent
        two = Found(
            torch.full_like(one.cost, torch.inf),
            *(torch.zeros_like(x) for x in one[1:]),
        )
        if not kept.any():
            return two
        data, rest, beside, parts = data[kept], rest[kept], second[kept], []
        shares, explained = shares[kept], explained[kept]
        for _ in range(_N_SCANS):
            log = self._log_posterior(shares, explained, n_independent, beside)
            part = self._mean_over_patches(log, data, rest, n_independent, beside)
            parts.append(part)
            beside = part.which[:, 0]
        cost, which, amplitudes, predicted = zip(*parts[-2:], strict=True)
        two.cost[kept] = sum(cost) / 2
        two.which[kept] = torch.cat(which, 1)
        two.amplitudes[kept] = torch.cat(amplitudes, 1)
        two.predicted[kept] = sum(predicted)
        return two

    def _likeliest_beside(self, beside, shares, explained):
        """Return the patches (n_windows,) of a medium size that explain the data best.

        It is a first guess, for which one size will do.
        """
        middle = len(self._n_of_size) // 2
        first = sum(self._n_of_size[:middle])
        stop = first + self._n_of_size[middle]
        missed = self._missed(shares, explained, beside, first, stop)
        return first + torch.cat([part for _, part in missed], 1).argmin(1)

    def _explained(self, shares):
        """Return the share of the power that each patch explains.

        ``shares`` are data (n_windows, n_modes, n_times) over the root of their power.
        """
        n_windows, n_modes, n_times = shares.shape
        rows = shares.permute(2, 0, 1).reshape(-1, n_modes)
        explained = shares.new_empty(n_windows, len(self._topographies))
        for some in _blocks(0, len(self._topographies), len(rows)):
            score = (rows @ self._topographies[some].T).square_()
            score = score.view(n_times, n_windows, -1)
            torch.sum(score, 0, out=explained[:, some])
        return explained

    def _missed(self, shares, explained, beside, first=0, stop=None):
        """Yield which patches, and the share of the power that each misses.

        The latter are (n_windows, n_some). Those of patches ``beside`` a topography,
        (n_windows,) or None, are explained already. What it leaves of the data is not
        multiplied by all topographies again: ``explained`` changes by products with
        the other topography, and with the data at its own times.
        """
        stop = len(self._topographies) if stop is None else stop
        if beside is None:
            for some in _blocks(first, stop, len(shares)):
                yield some, torch.sub(1, explained[:, some]).clamp_min_(0)
            return
        other = self._topographies[beside]
        course = other[:, None] @ shares
        power = course.square().sum((1, 2))[:, None]
        rows = torch.cat([other, (shares @ course.mT)[..., 0]])
        for some in _blocks(first, stop, len(rows)):
            along, cross = (rows @ self._topographies[some].T).chunk(2)
            score = explained[:, some] + along * (along * power - 2 * cross)
            score /= (1 - along.square()).clamp_min_(_APART)
            yield some, torch.sub(1 - power, score).clamp_min_(0)

    def _log_posterior(self, shares, explained, n_independent, beside=None):
        """Return log probabilities (n_windows, n_patches).

        ``beside`` are patches of another source (n_windows,), which are taken as given.
        """
        exponent = SHARPNESS * self._prior.n_channels * n_independent / 2
        log_probability = self._log_probability[beside is not None]
        log = torch.empty_like(explained)
        for some, missed in self._missed(shares, explained, beside):
            log_missed = missed.add_(_MISFIT).log_()
            known = log_probability[some]
            torch.add(known, log_missed, alpha=-exponent, out=log[:, some])
        sizes = log.split(self._n_of_size, 1)
        likely = torch.stack([size.logsumexp(1) for size in sizes], 1)
        total = (_OF_SIZES * likely).logsumexp(1, keepdim=True)
        excess = (1 - _OF_SIZES) * likely + total
        for size, one in zip(sizes, excess.T, strict=True):
            size -= one[:, None]
        return log

    def _mean_over_patches(self, log, data, rest, n_independent, beside=None):
        """Return the mean over the most likely patches, a Found without pairs."""
        n_patches = log.shape[1]
        n_each = max(1, min(_N_KEPT, n_patches) // 2)  # a single one cannot be halved
        n_kept = min(2 * n_each, n_patches) if beside is None else n_each
        log, which = _largest(log, n_kept)
        topographies, other = self._topographies[which], None
        if beside is not None:
            other = self._topographies[beside]
        given = topographies, data, rest, log.exp(), other
        amplitudes, cost = self._amplitudes(*given)
        cost = cost + _HANDICAPS[beside is not None] / n_independent
        predicted = self._turn @ (topographies.mT @ amplitudes)
        return Found(cost, which, amplitudes * self._inverse_size[which], predicted)

    def _amplitudes(self, topographies, data, rest, probability, other=None):
        """Return amplitudes (n_windows, n_kept, n_times), and cost (n_windows,).

        The noise level is the most likely one. Topographies have a length of 1.
        ``other`` (n_windows, n_modes) are those of another source.
        """
        n_channels, background = self._prior.n_channels, self._background
        variance = n_channels * (1 - _FLOOR)
        if other is not None:
            variance, other = variance / 2, other[:, None]
        share = probability / probability.sum(1, keepdim=True)
        costs, amplitudes = [], []
        for ratio in _LAMBDAS:
            weight = 1 / (background + ratio)
            weighted = topographies * weight
            score = weighted @ data
            gain = 1 / variance + (weighted * topographies).sum(2)
            power = (data.square() * weight[:, None]).sum((1, 2)) + rest / ratio
            power, log_det = power[:, None], 0.0
            if other is not None:  # what it explains is taken off
                known = (other * weight) @ data
                level = 1 / variance + ((other * weight) * other).sum(2)
                shared = (weighted * other).sum(2)
                power = power - known.square().sum(2) / level
                log_det = (variance * level).log()
                score = score - (shared / level)[..., None] * known
                gain = gain - shared.square() / level
            power = power - score.square().sum(2) / gain
            power = power.clamp_min(torch.finfo(power.dtype).tiny)
            log_det = log_det + (variance * gain).log()
            cost = log_det + n_channels * power.log()
            costs.append((share * cost).sum(1) + self._log_det(ratio))
            amplitudes.append((probability / gain)[..., None] * score)
        cost, best = torch.stack(costs).min(0)
        each = torch.arange(len(data), device=data.device)
        return torch.stack(amplitudes)[best, each], cost

    def _log_det(self, ratio):
        """Return the log determinant of background and noise."""
        n_rest = self._prior.n_channels - len(self._background)
        background = (self._background + ratio).log().sum()
        return background + n_rest * torch.tensor(ratio).log()


def _blocks(first, stop, n_rows):
    """Return slices of patches, whose products with some rows stay in the cache."""
    n_at_once = max(_LEAST, _AT_ONCE // n_rows)
    starts = range(first, stop, n_at_once)
    return [slice(start, min(start + n_at_once, stop)) for start in starts]


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

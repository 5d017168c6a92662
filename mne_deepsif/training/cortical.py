"""Train through the last step, on patches of any size in forwards that are not exact.

Patches cover a single vertex, or up to a part of a lobe. The leadfield that makes the
data may differ from the one that is inverted. The loss is that of the estimate, on the
cortex. (torch and NumPy only)
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from ..network.encoder import encode_windows
from ..network.prior import CorticalPrior, differentiable_estimate, prior_variances

# probability of 0, 1 ... 5 sources
N_SOURCES = (0.04, 0.36, 0.32, 0.18, 0.06, 0.04)
STRONGEST = (0.8, 12.0)  # the peak of the window's sources, over the noise
# radius of the patches (mm): none (a single place), a gyrus' width ... part of a lobe
RADII = ((3, 8), (8, 16), (16, 30), (30, 45))
RADIUS_SHARES = (0.14, 0.22, 0.28, 0.24, 0.12)
SOFT_SHARE, SOFT_WIDTH = 0.4, 1.2  # patches that fall off to their edge, like a cosine
# lengths of training windows over the network's: estimates look at parts of long ones
LENGTHS = (0.125, 0.25, 0.375, 0.5, 0.75, 1.0)
_N_PARTS = 4  # of a window, which count alone in the loss


def to_tensor(array):
    """Return a tensor in single precision."""
    return torch.as_tensor(np.asarray(array, np.float32))


@dataclass(frozen=True)
class CorticalLeadfield:
    """The leadfield that estimates assume, and the places where these are compared.

    Parameters
    ----------
    kernels : tensor of shape (2 * n_parcels, n_channels)
        See :func:`backprojection_kernels`.
    scanning : tensor of shape (n_most, n_channels, n_scales * n_parcels) | None
        See :meth:`CorticalPrior.scan_kernels`.
    prior : CorticalPrior
        The prior of the whitened patterns.
    spread : tensor of shape (n_places, n_fine + n_parcels)
        Turns coefficients of the patterns into activity of the places. Sparse, or
        anything else that multiplies tensors from the left.
    rr : tensor of shape (n_places, 3)
        Positions of the places.
    centre : tensor of shape (n_patches, 3)
        Positions of the middles of the patches.
    targets : tensor of shape (n_patches, n_places)
        Activity of the patches, as smooth as estimates are, which cannot be sharper.
        In half precision.
    power : tensor of shape (n_patches,)
        Power of each patch on all of the cortex, scaled to the number of places.
    inside : tensor of shape (n_places,)
        1 at the places that count, 0 at others.
    """

    kernels: torch.Tensor
    scanning: torch.Tensor | None
    prior: CorticalPrior
    spread: Any
    rr: torch.Tensor
    centre: torch.Tensor
    targets: torch.Tensor
    power: torch.Tensor
    inside: torch.Tensor

    def activity(self, coefficients):
        """Return the activity of the places: (n_batch, n_places, n_components)."""
        n_batch, n_rows, _ = coefficients.shape
        columns = coefficients.transpose(0, 1).reshape(n_rows, -1)
        return (self.spread @ columns).unflatten(1, (n_batch, -1)).transpose(0, 1)

    def targets_of(self, patch):
        """Return the activity of patches: (n_batch, n_sources, n_places)."""
        return self.targets[patch.ravel()].float().unflatten(0, patch.shape)


@dataclass(frozen=True)
class Truth:
    """A leadfield that makes data, and their noise; whitened as the data are.

    Parameters
    ----------
    patch_gain : tensor of shape (n_patches, n_channels)
        Gain of each patch; in half precision where they are many.
    background : tensor of shape (n_channels, n_parcels)
        Gain of background activity.
    noise : tensor of shape (n_channels, n_channels)
        Factor of the covariance of the sensors' noise.
    """

    patch_gain: torch.Tensor
    background: torch.Tensor
    noise: torch.Tensor


class PersonalLeadfield(NamedTuple):
    """What estimates of one subject assume, and what may be true.

    Attributes
    ----------
    assumed : CorticalLeadfield
        The leadfield of the estimates.
    truths : list of Truth
        Leadfields that make data.
    """

    assumed: CorticalLeadfield
    truths: list

    def split(self):
        """Return one to train on and one to validate on: a quarter of all.

        They share neither truths nor patches. Otherwise, a network that learns these by
        heart seems to learn.
        """
        n_patches, n_truths = len(self.assumed.centre), len(self.truths)
        if min(n_patches, n_truths) < 4:
            return self, self
        parts = []
        for is_validation in (False, True):
            patches, truths = (
                np.flatnonzero((np.arange(n) % 4 == 0) == is_validation)
                for n in (n_patches, n_truths)
            )
            assumed = replace(
                self.assumed,
                centre=self.assumed.centre[patches],
                targets=self.assumed.targets[patches],
                power=self.assumed.power[patches],
            )
            chosen = [self.truths[number] for number in truths]
            chosen = [replace(x, patch_gain=x.patch_gain[patches]) for x in chosen]
            parts.append(PersonalLeadfield(assumed, chosen))
        return tuple(parts)


# --------------------------------------------------------------------- samples


class Samples(NamedTuple):
    """Simulated windows.

    Attributes
    ----------
    data : tensor of shape (n_batch, n_channels, n_times)
        Whitened data.
    patch : tensor of int, shape (n_batch, n_sources)
        The patch of each source.
    is_on : tensor of bool, shape (n_batch, n_sources)
        Whether the source is there.
    size : tensor of shape (n_batch, n_sources)
        Its peak in the data, over the noise.
    amplitude : tensor of shape (n_batch, n_sources)
        Its peak.
    courses : tensor of shape (n_batch, n_sources, n_times)
        Its time course.
    gram : tensor of shape (n_batch, n_sources, n_sources)
        Products of the sources' topographies.
    """

    data: torch.Tensor
    patch: torch.Tensor
    is_on: torch.Tensor
    size: torch.Tensor
    amplitude: torch.Tensor
    courses: torch.Tensor
    gram: torch.Tensor


def draw_samples(truth, waveforms, background, sfreq, n_batch, n_times, generator):
    """Draw windows of none to five patches in background activity and noise.

    Parameters
    ----------
    truth : Truth
        What makes the data.
    waveforms : tensor of shape (n_waveforms, n_wave_times)
        Time courses of neural masses, with their peaks in the middle.
    background : tensor of shape (n_all_times, n_parcels)
        Background activity.
    sfreq : float
        Sampling rate (Hz).
    n_batch, n_times : int
        Number of windows, and their length.
    generator : Generator
        Random numbers.

    Returns
    -------
    samples : Samples
        The windows.
    """
    options = dict(generator=generator, device=generator.device)
    rand, randint = partial(torch.rand, **options), partial(torch.randint, **options)
    arange = partial(torch.arange, device=generator.device)
    most = len(N_SOURCES) - 1
    limits = torch.tensor(N_SOURCES, device=generator.device).cumsum(0)[:-1]
    n_sources = torch.bucketize(rand(n_batch), limits, right=True)
    is_on = arange(most) < n_sources[:, None]
    patch = randint(len(truth.patch_gain), (n_batch, most))
    waves = draw_waves(waveforms, sfreq, (n_batch, most), n_times, generator)
    low, high = np.log(STRONGEST)
    size = torch.exp(low + (high - low) * rand(n_batch, 1))
    # half of the sources are weak beside the others
    is_weak, weak = rand(n_batch, most) < 0.5, 0.1 ** rand(n_batch, most)
    size = size * torch.where(is_weak, weak, 0.6 ** rand(n_batch, most)) * is_on
    sign = 2 * randint(2, (n_batch, most)) - 1
    # the sources of a window have one time course, as networks do
    together = rand(n_batch, 1, 1) < 0.15
    waves = torch.where(together, waves[:, :1], waves)
    topography = truth.patch_gain[patch].float()  # (n_batch, most, n_channels)
    n_channels = len(truth.noise)
    norm = topography.norm(dim=-1).clamp_min(1e-6) / n_channels**0.5
    amplitude = sign * size / norm
    courses = amplitude[..., None] * waves
    data = topography.mT @ courses
    start = randint(len(background) - n_times, (n_batch,))
    ongoing = background[start[:, None] + arange(n_times)].float()
    data = data + truth.background @ ongoing.mT
    shape = (n_batch, n_channels, n_times)
    data = data + truth.noise @ torch.randn(shape, **options)
    gram = topography @ topography.mT
    return Samples(data, patch, is_on, size, amplitude, courses, gram)


def draw_waves(waveforms, sfreq, shape, n_times, generator):
    """Draw time courses, arrays of shape ``(*shape, n_times)``.

    A fifth each are bumps, bumps with a slow wave after them, and bursts. The others
    come from neural masses.
    """
    options = dict(generator=generator, device=generator.device)
    rand, randint = partial(torch.rand, **options), partial(torch.randint, **options)
    arange = partial(torch.arange, device=generator.device)
    latency = rand(*shape, 1) * (n_times / sfreq + 0.06) - 0.03  # s, of the peak
    width = 0.008 + 0.035 * rand(*shape, 1)  # s
    frequency = 2 + 14 * rand(*shape, 1)  # Hz
    kind = randint(5, (*shape, 1))
    time = arange(n_times) / sfreq - latency
    bump = torch.exp(-0.5 * (time / width) ** 2)
    slow = torch.exp(-0.5 * ((time - 2.2 * width) / (1.3 * width)) ** 2)
    envelope = torch.exp(-0.5 * (time / (2 * width)) ** 2)
    burst = envelope * torch.cos(2 * np.pi * frequency * time)
    number = randint(len(waveforms), shape)
    length = waveforms.shape[1]  # the peak is in the middle
    start = length // 2 - (sfreq * latency[..., 0]).long()
    start = start.clamp(0, length - n_times)[..., None] + arange(n_times)
    waves = torch.where(kind == 1, bump - 0.7 * slow, bump)
    waves = torch.where(kind == 2, burst, waves)
    drawn = waveforms[number[..., None], start].float()
    return torch.where(kind >= 3, drawn, waves)


def window_lengths(longest):
    """Return the lengths of training windows, which can be cut into quarters."""
    lengths = {_N_PARTS * max(1, int(share * longest / _N_PARTS)) for share in LENGTHS}
    return sorted(lengths)


class CorticalBatches:
    """Draws windows for a leadfield, and tells how good estimates of them are.

    Parameters
    ----------
    library : Library
        Its waveforms and its background are used.
    leadfield : CorticalLeadfield
        What estimates assume.
    truths : list of Truth
        What makes the data.
    n_times : int
        Window of the network in samples.
    n_components : int
        Number of principal components that the network reads.
    seed : int
        Seed of the samples.
    """

    def __init__(self, library, leadfield, truths, n_times, n_components, seed):
        self.waveforms = torch.as_tensor(np.array(library.waveforms)).float()
        self.background = torch.as_tensor(np.ascontiguousarray(library.background.T))
        self.sfreq, self.n_components = library.sfreq, n_components
        self.leadfield, self.truths = leadfield, truths
        longest = min(n_times, self.waveforms.shape[1])
        self.lengths = window_lengths(longest)
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self):
        """Count the leadfields that make data."""
        return len(self.truths)

    def draw(self, which, n_batch):
        """Draw the network's input and what :meth:`error` needs, as tensors.

        The first dimension of each is ``n_batch``. All windows have the same length.
        """
        chosen = torch.randint(len(self.lengths), (), generator=self.generator)
        bounds = np.linspace(0, n_batch, len(which) + 1).astype(int)
        parts = [
            self._draw(self.truths[index], size, self.lengths[chosen])
            for index, size in zip(which, np.diff(bounds).tolist(), strict=True)
        ]
        return [torch.cat(part) for part in zip(*parts, strict=True)]

    def _draw(self, truth, n_batch, n_times):
        ongoing = self.waveforms, self.background, self.sfreq
        samples = draw_samples(truth, *ongoing, n_batch, n_times, self.generator)
        encoded = encode_windows(
            samples.data,
            self.leadfield.kernels,
            self.n_components,
            scanning=self.leadfield.scanning,
            exact=False,
        )
        return [encoded.X, encoded.data, encoded.courses, *samples]

    def error(self, answer, data, courses, *samples):
        """Return the loss of an answer to the first of what :meth:`draw` returned.

        The others are the further arguments.
        """
        samples = Samples(*samples)
        return estimation_loss(answer.cpu(), self.leadfield, data, courses, samples)


# ------------------------------------------------------------------------ loss


def estimation_loss(answer, leadfield, data, courses, samples):
    """Return how far the last step's estimates are from the truth: 0 to 2.

    Parameters
    ----------
    answer : tensor of shape (n_batch, n_components or more, n_rows)
        What the network returned.
    leadfield : CorticalLeadfield
        The leadfield of the estimates.
    data, courses : tensor
        The patterns of the principal components, and their time courses; see
        :class:`Encoded`.
    samples : Samples
        The truth.
    """
    variances = prior_variances(answer.mT, leadfield.prior.n_parcels)
    estimate = differentiable_estimate(leadfield.prior, variances, data)
    return mismatch(leadfield.activity(estimate), courses, leadfield, samples)


def mismatch(activity, courses, leadfield, samples, n_parts=_N_PARTS):
    """Return 1 minus the cosine of estimate and truth, over space and time.

    Each quarter of a window counts alone: what is weak at other times is to be found at
    its own. A quarter counts less the more its sources are below the noise.
    """
    targets = leadfield.targets_of(samples.patch)
    weight = place_weights(leadfield, samples)
    weighted = targets * weight[:, None]
    overlap = weighted @ targets.mT  # of sources with sources
    found = weighted @ activity  # ... with the estimate
    size = (activity * weight[..., None]).mT @ activity  # the estimate with itself
    n_times = courses.shape[2] // n_parts
    parts, truth = (
        x.unflatten(2, (n_parts, n_times)).transpose(1, 2)
        for x in (courses, samples.courses)
    )  # (n_batch, n_parts, n_components or n_sources, n_times)
    products = truth @ truth.mT

    def total(matrix):
        return matrix.sum((2, 3))

    true_power = total(overlap[:, None] * products).clamp_min(0)
    power = total(size[:, None] * (parts @ parts.mT)).clamp_min(1e-12)
    product = total(found[:, None] @ parts * truth)
    cosine = product / (power * true_power.clamp_min(1e-12)).sqrt()
    signal = total(samples.gram[:, None] * products).clamp_min(0)
    snr = signal / (leadfield.prior.n_channels * n_times)
    share = snr / (snr + 0.3)
    return (share * (1 - cosine)).sum() / share.sum().clamp_min(1e-6)


@torch.no_grad()
def place_weights(leadfield, samples):
    """Return weights of the places: (n_batch, n_places).

    Each place is weighed in the scale of the nearest source. A focal source has more
    power on its few places than a wide one that the sensors see as well: it would be
    all that counts.
    """
    power = leadfield.power[samples.patch] * samples.amplitude.square()
    size = samples.size / samples.size.amax(1, keepdim=True).clamp_min(1e-9)
    scale = torch.where(samples.is_on, size / power.clamp_min(1e-20), 0.0)
    scale = scale / scale.amax(1, keepdim=True).clamp_min(1e-30)
    centre = leadfield.centre[samples.patch]
    places = leadfield.rr.expand(len(centre), -1, -1)
    distance = torch.cdist(places, centre)  # sources last: argmin is quick there
    nearest = torch.where(samples.is_on[:, None], distance, torch.inf).argmin(2)
    return scale.gather(1, nearest) * leadfield.inside

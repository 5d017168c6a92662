"""Heads to draw leadfields from, a new one each time (torch and NumPy only).

Of each head, the gains of many sensors are kept as a product: patterns over the places
of the cortex, for all orientations, times weights of the sensors. Sensors, folds of
the cortex, parcels, noise and errors are then drawn, and the leadfield is a few small
products. No forward is computed.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import warnings
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from ..network.encoder import backprojection_kernels
from ..network.prior import CorticalPrior
from .cortical import (
    RADII,
    RADIUS_SHARES,
    SOFT_SHARE,
    SOFT_WIDTH,
    CorticalLeadfield,
    Truth,
)

KINDS = {"eeg": 0.5, "mag": 0.35, "both": 0.15}  # there are more caps than helmets
_CAP_SHARES = (0.15, 0.15, 0.25)  # of usual caps; the others are spread electrodes
_TILTED = 12.0  # degrees, normals: no surface is known exactly
_WRONG = 0.75  # share of leadfields whose data come from another one
_N_AT_ONCE = 500  # patches


class Smoothing(NamedTuple):
    """Averages along the surface.

    Attributes
    ----------
    steps : list of tensor of shape (n_places, n_places)
        Multiplied one after the other.
    """

    steps: list

    def __matmul__(self, activity):
        """Average activity of the places (n_places, n_columns)."""
        for step in self.steps:
            activity = (step @ activity.to(step.dtype)).float()
        return activity

    def transpose(self):
        """Return the transposed operation."""
        if self.steps[0].layout == torch.strided:
            return Smoothing([step.T for step in self.steps])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            transposed = self.steps[0].to_sparse_coo().T.to_sparse_csr()
        return Smoothing([transposed] * len(self.steps))


@dataclass(frozen=True)
class Cortex:
    """What is the same for all heads.

    Parameters
    ----------
    neighbours : tensor of int, shape (n_places, n_most)
        Neighbours of each place; itself where it has fewer.
    area : tensor of shape (n_places,)
        Area of each place (m²).
    parcel_areas : tensor of shape (n_parcels,)
        Areas of the parcels (m²).
    middles : array of int
        Places that may be the middle of a patch.
    profiles : tensor of shape (n_parcels, n_parcels)
        See :func:`~mne_deepsif.network.prior.patch_profiles`.
    scales : tuple of int
        How often the activity of each size of a scan's sources is smoothed.
    waveforms : tensor of shape (n_waveforms, n_wave_times)
        Time courses of sources.
    background : tensor of shape (n_times, n_parcels)
        Background activity.
    """

    neighbours: torch.Tensor
    area: torch.Tensor
    parcel_areas: torch.Tensor
    middles: np.ndarray
    profiles: torch.Tensor
    scales: tuple
    waveforms: torch.Tensor
    background: torch.Tensor
    covariance: torch.Tensor = field(init=False)

    def __post_init__(self):
        """Compute the background's covariance."""
        covariance = torch.cov(self.background[::3].float().T)
        object.__setattr__(self, "covariance", covariance)

    def smoothing(self, n_steps):
        """Return what averages along the surface in so many steps, as matrices.

        Each is to be multiplied after the other. A CPU is quick with sparse ones, a GPU
        with a single dense one in bfloat16.
        """
        n_places, n_most = self.neighbours.shape
        device = self.neighbours.device
        own = torch.arange(n_places, device=device)
        is_one = self.neighbours != own[:, None]
        degree = is_one.sum(1, keepdim=True).clamp_min(1)
        step = torch.zeros(n_places, n_places, device=device)
        step.scatter_add_(1, self.neighbours, 0.5 * is_one / degree)
        step.diagonal().add_(0.5)
        if device.type == "cpu":
            with warnings.catch_warnings():  # torch calls its sparse matrices new
                warnings.simplefilter("ignore", UserWarning)
                return Smoothing([step.to_sparse_csr()] * n_steps)
        return Smoothing([torch.linalg.matrix_power(step, n_steps).bfloat16()])


@dataclass(frozen=True)
class Head:
    """A head to draw leadfields from.

    Parameters
    ----------
    eeg : tensor of shape (4, n_electrodes, n_eeg)
        Weights of the electrodes: of two gains to assume, then two that may be true.
    eeg_patterns : tensor of shape (n_eeg, n_places, 3)
        What the weights multiply. The gain is the product, without a unit.
    meg : tensor of shape (n_helmets, 2, n_magnetometers, n_meg)
        Weights of the magnetometers: of a gain to assume, and of one that may be true.
    meg_patterns : tensor of shape (n_meg, n_places, 3)
        What the weights multiply.
    electrodes : array of shape (n_electrodes, 3)
        Positions of the electrodes (m).
    caps : array of bool, shape (n_caps, n_electrodes)
        Electrodes of usual caps.
    normals : tensor of shape (n_cortices, n_places, 3)
        Normals of cortices with other folds.
    parcel : tensor of int, shape (n_cortices, n_places)
        Parcels of cortices with other folds; -1 where there is none.
    rr : tensor of shape (n_places, 3)
        Positions of the places (m).
    """

    eeg: torch.Tensor
    eeg_patterns: torch.Tensor
    meg: torch.Tensor
    meg_patterns: torch.Tensor
    electrodes: np.ndarray
    caps: np.ndarray
    normals: torch.Tensor
    parcel: torch.Tensor
    rr: torch.Tensor


class Patches(NamedTuple):
    """Patches to draw sources from.

    Attributes
    ----------
    centre : tensor of shape (n_patches, 3)
        Position of the middle (m).
    activity, smoothed : tensor of shape (n_patches, n_places)
        Activity, 1 in the middle; and as smooth as estimates are. Half precision.
    power : tensor of shape (n_cortices, n_patches)
        Power of the smooth activity in the parcels.
    smoothing : Smoothing
        How smooth estimates are.
    """

    centre: torch.Tensor
    activity: torch.Tensor
    smoothed: torch.Tensor
    power: torch.Tensor
    smoothing: Smoothing


# --------------------------------------------------------------------- patches


def geodesic_distances(rr, neighbours, middle, limit):
    """Return distances along the edges of a mesh, up to a limit.

    Parameters
    ----------
    rr : tensor of shape (n_places, 3)
        Positions.
    neighbours : tensor of int, shape (n_places, n_most)
        Neighbours of each place, or itself.
    middle : tensor of int, shape (n_patches,)
        From where.
    limit : tensor of shape (n_patches,)
        How far.

    Returns
    -------
    distance : tensor of shape (n_places, n_patches)
        Infinite beyond the limit.
    """
    length = (rr[neighbours] - rr[:, None]).norm(dim=2)[..., None]
    distance = torch.full((len(rr), len(middle)), torch.inf, device=rr.device)
    distance[middle, torch.arange(len(middle), device=rr.device)] = 0
    while True:
        reached = torch.minimum(distance, (distance[neighbours] + length).amin(1))
        reached = torch.where(reached <= limit, reached, torch.inf)
        if torch.equal(reached, distance):
            return distance
        distance = reached


def draw_patches(head, cortex, n_smoothings, n_patches, rng):
    """Draw patches of any size around places of a head.

    Parameters
    ----------
    head : Head
        The head.
    cortex : Cortex
        Neighbours of the places.
    n_smoothings : int
        Steps after which activity is as smooth as estimates are.
    n_patches : int
        How many to draw.
    rng : Generator
        NumPy's random numbers.

    Returns
    -------
    patches : Patches
        The patches.
    """
    device = head.rr.device
    limits = np.array([(0, 0), *RADII])[
        rng.choice(len(RADIUS_SHARES), n_patches, p=RADIUS_SHARES)
    ]
    # those of one size together: small ones are quick
    radius = np.sort(1e-3 * rng.uniform(*limits.T))
    middle = rng.choice(cortex.middles, n_patches).astype(np.int64)
    middle = torch.as_tensor(middle, device=device)
    is_soft = torch.as_tensor(rng.random(n_patches) < SOFT_SHARE, device=device)
    radius = torch.as_tensor(radius.astype(np.float32), device=device)
    smoothing = cortex.smoothing(n_smoothings)
    activity, smoothed = [], []
    for part in torch.arange(n_patches, device=device).split(_N_AT_ONCE):
        size = radius[part]
        distance = geodesic_distances(head.rr, cortex.neighbours, middle[part], size)
        fall = torch.cos(0.5 * torch.pi * distance / (SOFT_WIDTH * size))
        fall = torch.where(is_soft[part] & (size > 0), fall, 1.0)
        one = torch.where(distance.isfinite(), fall, 0.0)
        activity.append(one.T.half())
        smoothed.append((smoothing @ one).T.half())
    activity, smoothed = torch.cat(activity), torch.cat(smoothed)
    inside = (head.parcel >= 0).float()
    power = [part.float().square() @ inside.T for part in smoothed.split(_N_AT_ONCE)]
    power = torch.cat(power).T
    return Patches(head.rr[middle], activity, smoothed, power, smoothing)


# --------------------------------------------------------------------- sensors


class Sensors(NamedTuple):
    """Gains and noise of some channels, without a unit.

    Attributes
    ----------
    assumed, true : tensor of shape (n_channels, n_places)
        The gain that the estimate uses, and the one that makes the data.
    noise : tensor of shape (n_channels, n_channels)
        Covariance of the sensors' noise.
    """

    assumed: torch.Tensor
    true: torch.Tensor
    noise: torch.Tensor


def farthest_points(points, n_points, rng):
    """Pick points that spread: each the farthest from those before.

    Parameters
    ----------
    points : array of shape (n_all, 3)
        Where they may be.
    n_points : int
        How many to pick.
    rng : Generator
        Random numbers; distances vary by a fifth.

    Returns
    -------
    picks : array of int, shape (n_points,)
        The points, in ascending order.
    """
    picks = [int(rng.integers(len(points)))]
    distance = np.full(len(points), np.inf)
    while len(picks) < n_points:
        step = np.linalg.norm(points - points[picks[-1]], axis=1)
        distance = np.minimum(distance, step)
        picks.append(int(np.argmax(distance * rng.uniform(0.8, 1, len(points)))))
    return np.sort(picks)


def draw_cap(head, rng):
    """Return the channels of a usual cap or of spread electrodes, some without bads."""
    kind = np.searchsorted(np.cumsum(_CAP_SHARES), rng.random(), side="right")
    if kind < len(head.caps):
        picks = np.flatnonzero(head.caps[kind])
    else:
        n_channels = int(np.exp(rng.uniform(np.log(19), np.log(128))))
        n_channels = min(n_channels, len(head.electrodes))
        picks = farthest_points(head.electrodes, n_channels, rng)
    if rng.random() < 0.4:
        order = rng.permutation(picks)
        picks = np.sort(order[int(rng.uniform(0, 0.1) * len(picks)) :])
    return picks


def _gains(weights, patterns, normals):
    """Return the gain to assume and the true one; arguments are pairs but the second.

    Places are many, so what they share is computed once for each orientation.
    """
    return [
        one @ torch.einsum("rpk,pk->rp", patterns, nn)
        for one, nn in zip(weights, normals, strict=True)
    ]


def _draw_noise(n_channels, rng, device):
    """Return the noise's covariance: channels differ by a quarter."""
    variance = np.exp(rng.normal(0, 0.25, n_channels)) ** 2
    return torch.diag(torch.as_tensor(variance, dtype=torch.float32, device=device))


def _draw_eeg(head, normals, is_wrong, rng):
    """Draw a cap; ``normals`` are those to assume and the true ones."""
    picks = draw_cap(head, rng)
    assumed = rng.integers(2)
    true = rng.integers(2, 4) if is_wrong else assumed
    weights = [head.eeg[i][picks] for i in (assumed, true)]
    weights = [one - one.mean(0) for one in weights]
    gains = _gains(weights, head.eeg_patterns, normals)
    scale = gains[0].square().mean().rsqrt()
    # without the reference, so that the channels have full rank
    n_channels, device = len(picks), gains[0].device
    first = torch.eye(n_channels, device=device)
    first[:, 0] = 1
    basis = torch.linalg.qr(first)[0][:, 1:].T
    noise = basis @ _draw_noise(n_channels, rng, device) @ basis.T
    return Sensors(*(basis @ gain * scale for gain in gains), noise)


def _draw_meg(head, normals, is_wrong, rng, is_joined):
    """Draw a helmet; beside electrodes, its noise relative to theirs differs."""
    n_channels = head.meg.shape[2]
    order = rng.permutation(n_channels)
    n_used = rng.integers(int(0.91 * n_channels), n_channels + 1)
    picks = np.sort(order[:n_used])
    helmet = head.meg[rng.integers(len(head.meg))]
    weights = [helmet[i][picks] for i in (0, int(is_wrong))]
    gains = _gains(weights, head.meg_patterns, normals)
    scale = float(np.exp(rng.normal(0, 0.7))) if is_joined else 1.0
    scale = scale * gains[0].square().mean().rsqrt()
    noise = _draw_noise(n_used, rng, scale.device)
    return Sensors(*(gain * scale for gain in gains), noise)


def draw_sensors(head, kind, assumed, rng, generator):
    """Draw EEG, MEG or both.

    Parameters
    ----------
    head : Head
        The head.
    kind : "eeg" | "mag" | "both"
        Which sensors.
    assumed : tensor of shape (n_places, 3)
        Normals to assume.
    rng, generator : Generator
        Random numbers of NumPy and of torch.

    Returns
    -------
    sensors : Sensors
        The sensors. Three of four times the true gain is another one.
    """
    direction = torch.randn(assumed.shape, generator=generator, device=assumed.device)
    true = assumed + direction * float(np.tan(np.deg2rad(rng.uniform(0, _TILTED))))
    true = true / true.norm(dim=1, keepdim=True)
    is_wrong = rng.random() < _WRONG
    normals = assumed, true if is_wrong else assumed
    parts = []
    if kind in ("eeg", "both"):
        parts.append(_draw_eeg(head, normals, is_wrong, rng))
    if kind in ("mag", "both"):
        parts.append(_draw_meg(head, normals, is_wrong, rng, kind == "both"))
    assumed, true, noise = zip(*parts, strict=True)
    noise = torch.block_diag(*noise)
    return Sensors(torch.cat(assumed), torch.cat(true), noise * _unit(noise))


def _unit(covariance):
    """Return the factor that makes a mean variance of 1."""
    return len(covariance) / covariance.trace()


# ------------------------------------------------------------------ leadfields


class Spread:
    """Turns coefficients of places and parcels into activity of the places.

    Parameters
    ----------
    smoothing : Smoothing
        Averages along the surface.
    used : tensor of int, shape (n_fine,)
        The places that have a coefficient.
    parcel : tensor of int, shape (n_fine,)
        Their parcels.
    n_places : int
        Number of places.
    """

    def __init__(self, smoothing, used, parcel, n_places):
        self.smoothing, self.used, self.parcel = smoothing, used, parcel
        self.n_places = n_places

    def __matmul__(self, coefficients):
        """Map (n_fine + n_parcels, n_columns) to (n_places, n_columns)."""
        fine, uniform = coefficients.tensor_split([len(self.used)])
        places = fine.new_zeros(self.n_places, fine.shape[1])
        places = places.index_copy(0, self.used, fine + uniform[self.parcel])
        return self.smoothing @ places


def draw_leadfield(head, patches, cortex, rng, generator, kind=None):
    """Draw what estimates assume and the truth of a head.

    Parameters
    ----------
    head : Head
        The head.
    patches : Patches
        Its patches.
    cortex : Cortex
        What is the same for all heads.
    rng, generator : Generator
        Random numbers of NumPy and of torch.
    kind : "eeg" | "mag" | "both" | None
        Which sensors; by chance if None.

    Returns
    -------
    assumed : CorticalLeadfield
        What estimates assume.
    truth : Truth
        What makes the data.
    """
    kind = kind or rng.choice(list(KINDS), p=list(KINDS.values()))
    normals = head.normals[rng.integers(len(head.normals))]
    number = rng.integers(len(head.parcel))
    parcel = head.parcel[number]
    sensors = draw_sensors(head, kind, normals, rng, generator)
    used = torch.nonzero(parcel >= 0)[:, 0]
    owner, n_parcels = parcel[used], len(cortex.parcel_areas)

    def of_parcels(gain):
        # as in a leadfield of the package, the places of a parcel share its area
        counts = torch.bincount(owner, minlength=n_parcels).clamp_min(1)
        share = (cortex.parcel_areas / counts)[owner]
        total = torch.zeros(len(gain), n_parcels, device=gain.device)
        return total.index_add(1, owner, gain[:, used] * share)

    background = of_parcels(sensors.true)
    # ongoing activity is in four of five measured covariances
    ratio = 10 ** rng.uniform(-0.7, 1.5) if rng.random() < 0.8 else 0.0
    brain = background @ cortex.covariance @ background.T
    level = ratio * _unit(brain)
    covariance = sensors.noise + level * brain
    scale = _unit(covariance)
    whitener = estimated_whitener(scale * covariance, rng, generator)
    gain_white = whitener @ of_parcels(sensors.assumed)
    gain_white = gain_white / gain_white.square().mean().sqrt()
    scales = _smoothed(
        (whitener @ (sensors.assumed * cortex.area)).T,
        patches.smoothing.transpose(),
        cortex.scales,
    )
    fine = scales[1][used].T
    unit = fine.square().mean().sqrt()
    uniform = torch.zeros(len(fine), n_parcels, device=fine.device)
    uniform = uniform.index_add(1, owner, fine / unit)
    prior = CorticalPrior(fine / unit, owner, uniform, cortex.profiles)
    points = torch.stack([gain[used] for gain in scales])
    patch_gain = patches.activity.float() @ (whitener @ (sensors.true * cortex.area)).T
    assumed = CorticalLeadfield(
        kernels=backprojection_kernels(gain_white.double()).float(),
        scanning=prior.scan_kernels(points, owner),
        prior=prior,
        spread=Spread(patches.smoothing, used, owner, len(parcel)),
        rr=head.rr,
        centre=patches.centre,
        targets=patches.smoothed,
        power=patches.power[number],
        inside=(parcel >= 0).float(),
    )
    truth = Truth(
        patch_gain=patch_gain,
        background=whitener @ background * (scale * level).sqrt(),
        noise=whitener @ torch.linalg.cholesky(scale * sensors.noise),
    )
    return assumed, truth


def _smoothed(gain, smoothing, scales):
    """Return gains (n_places, n_channels) of sources of growing size."""
    gains, n_done = [], 0
    for n_times in scales:
        for _ in range(n_times - n_done):
            gain = smoothing @ gain
        gains.append(gain)
        n_done = n_times
    return gains


def estimated_whitener(covariance, rng, generator):
    """Return the whitener of a covariance that is estimated from a few samples.

    Parameters
    ----------
    covariance : tensor of shape (n_channels, n_channels)
        The true covariance.
    rng, generator : Generator
        Random numbers of NumPy and of torch.

    Returns
    -------
    whitener : tensor of shape (n_channels, n_channels)
        The whitener. The number of samples is between three times that of channels and
        20000.
    """
    n_channels, device = len(covariance), covariance.device
    most, fewest = np.log(20_000), np.log(3 * n_channels + 50)
    n_samples = int(np.exp(rng.uniform(fewest, most)))
    noise = torch.randn(n_channels, n_samples, generator=generator, device=device)
    samples = (torch.linalg.cholesky(covariance.double())).float() @ noise
    values, vectors = torch.linalg.eigh((samples @ samples.T / n_samples).double())
    values = values.clamp_min(1e-6 * values.max())
    return (vectors * values.rsqrt()).T.float()

"""Batches of simulated data: superposition and sensor noise (NumPy and torch)."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import torch

from .patches import LAG


def noise_std(data, snr, definition="authors"):
    """Compute the standard deviation of the white sensor noise.

    Parameters
    ----------
    data : tensor of shape (n_batch, n_channels, n_times)
        Noise-free sensor data (background activity included).
    snr : tensor of shape (n_batch,)
        Signal-to-noise ratio (dB): power of ``data`` over power of the noise.
    definition : "authors" | "nominal" | "uniform"
        ``"nominal"`` scales the noise to the power of each channel, as the papers
        say. ``"authors"`` also halves the noise power, as their scripts do, so the true
        ratio is 3 dB better than ``snr``. ``"uniform"`` gives all channels the same
        noise, relative to the mean power over channels, as in whitened recordings.

    Returns
    -------
    std : tensor of shape (n_batch, n_channels or 1, 1)
        Standard deviation of the noise, in the unit of ``data``.
    """
    power = data.square().mean(-1, keepdim=True)
    if definition == "uniform":
        power = power.mean(1, keepdim=True)
    elif definition == "authors":
        power = power / 2
    return (power * 10 ** (-snr / 10)[:, None, None]).sqrt()


def _check_length(library, n_times):
    longest = min(library.waveforms.shape[1], library.background.shape[1])
    if n_times > longest:
        raise ValueError(
            f"n_times={n_times} is longer than the library's waveforms or background, "
            f"which have {longest} samples at {library.sfreq} Hz. Use a shorter window "
            "or a lower sampling rate."
        )


def _check_correlated(correlated, lag):
    if not 0 <= correlated <= 1:
        raise ValueError(
            f"correlated must be a probability, from 0 to 1, got {correlated}."
        )
    if not 0 <= lag[0] <= lag[1] < np.inf:
        raise ValueError(
            "lag must be the shortest and the longest lag in s, not negative, got "
            f"{lag}."
        )


class Simulator:
    """Draws batches of sensor data and sources from a library.

    Parameters
    ----------
    library : Library
        Patches, waveforms and background.
    n_times : int
        Length of a sample.
    n_sources : dict
        Probability of each number of sources, e.g. ``{1: 0.5, 2: 0.5}``.
    background_snr : tuple of float
        Range of the ratio of patch to background activity (dB), drawn uniformly per
        source. It is the sensor power of the patch within 0.1 s of the waveform's peak,
        over that of the background. The default is the papers' range.
    sensor_snr : tuple of float
        Range of the ratio of signal to sensor noise (dB), drawn uniformly; see
        :func:`noise_std`. The default is the papers' range.
    noise : str | None
        Definition of the noise. None mixes ``"nominal"`` and ``"uniform"`` at random.
    margin : float
        How far outside the window a waveform's peak may lie, as a fraction of the
        window. A negative margin keeps it inside.
    flip : bool
        Give each source a random sign.
    correlated : float
        Probability that all sources of a sample share the waveform of the first, as
        when activity spreads.
    lag : tuple of float
        Range of the delay of such sources after the first one (s), drawn uniformly per
        source.
    seed : int
        Seed of the random choices.
    device : str
        Where to compute.
    """

    def __init__(
        self,
        library,
        n_times,
        *,
        n_sources,
        background_snr=(10.0, 20.0),
        sensor_snr=(5.0, 20.0),
        noise=None,
        margin=0.1,
        flip=True,
        correlated=0.0,
        lag=LAG,
        seed=0,
        device="cpu",
    ):
        _check_length(library, n_times)
        _check_correlated(correlated, lag)
        self.n_times = n_times
        self.background_snr, self.sensor_snr = background_snr, sensor_snr
        self.noise, self.margin, self.flip = noise, margin, flip
        self.correlated, self.lag = correlated, lag
        self.device = device
        self.generator = torch.Generator(device).manual_seed(seed)
        counts = torch.tensor(list(n_sources), device=device)
        weights = torch.tensor(list(n_sources.values()), device=device)
        self._counts, self._count_weights = counts, weights.float()
        self.patches = torch.as_tensor(library.patches, device=device).long()
        self.decay = torch.as_tensor(library.decay, device=device).float()
        self.waveforms = torch.as_tensor(library.waveforms, device=device)
        # times first: a window is then one block of memory
        background = np.ascontiguousarray(library.background.T)
        self.background = torch.as_tensor(background, device=device)
        self.n_parcels = len(library.background)
        self._duration = n_times / library.sfreq
        self._half = int(round(0.1 * library.sfreq))

    def _uniform(self, low, high, *shape):
        random = torch.rand(shape, generator=self.generator, device=self.device)
        return low + (high - low) * random

    def _integers(self, high, *shape):
        return torch.randint(high, shape, generator=self.generator, device=self.device)

    def draw_sources(self, n_batch):
        """Draw the sources of a batch, without a leadfield.

        Returns
        -------
        weights : tensor of shape (n_batch, max_sources, n_parcels)
            Spatial profile of each source; zero for absent sources.
        waves : tensor of shape (n_batch, max_sources, n_times)
            Waveform of each source, its peak at 1 (or -1).
        chosen : tensor of shape (n_batch, max_sources)
            Index of each source's patch, -1 where absent.
        peak_power : tensor of shape (n_batch, max_sources)
            Mean square of each waveform within 0.1 s of its peak.
        """
        picks = torch.multinomial(
            self._count_weights, n_batch, replacement=True, generator=self.generator
        )
        n_max = int(self._counts.max())
        present = torch.arange(n_max, device=self.device) < self._counts[picks][:, None]
        chosen = self._integers(len(self.patches), n_batch, n_max)
        weights = torch.zeros(n_batch, n_max, self.n_parcels, device=self.device)
        # padding points at parcel 0 with weight 0: adding it changes nothing
        weights.scatter_add_(2, self.patches[chosen].clamp_min(0), self.decay[chosen])
        weights *= present[..., None]
        waves, peak_power = self._draw_waves(n_batch, n_max)
        return weights, waves, torch.where(present, chosen, -1), peak_power

    def draw(self, n_batch):
        """Draw the sources and the background of a batch.

        Returns
        -------
        weights, waves : tensors
            See :meth:`draw_sources`.
        background : tensor of shape (n_batch, n_parcels, n_times)
            Ongoing activity.
        chosen, peak_power : tensors
            See :meth:`draw_sources`.
        """
        weights, waves, chosen, peak_power = self.draw_sources(n_batch)
        background = self.draw_windows(self.background, n_batch)
        return weights, waves, background, chosen, peak_power

    def _draw_waves(self, n_batch, n_max):
        which = self._integers(len(self.waveforms), n_batch, n_max)
        length = self.waveforms.shape[1]
        peak = self._uniform(-self.margin, 1 + self.margin, n_batch, n_max)
        if self.correlated > 0:
            which, peak = self._correlate(which, peak)
        start = length // 2 - (peak * self.n_times).long()
        start = start.clamp(0, length - self.n_times)
        times = start[..., None] + torch.arange(self.n_times, device=self.device)
        waves = self.waveforms[which[..., None], times].float()
        middle = slice(length // 2 - self._half, length // 2 + self._half + 1)
        peak_power = self.waveforms[which][..., middle].float().square().mean(-1)
        if self.flip:
            waves = waves * (2.0 * self._integers(2, n_batch, n_max) - 1)[..., None]
        return waves, peak_power

    def _correlate(self, which, peak):
        """Give some samples one waveform, with later sources behind the first."""
        shared = self._uniform(0.0, 1.0, len(which), 1) < self.correlated
        lag = self._uniform(*self.lag, *which.shape) / self._duration
        lag[:, 0] = 0
        return (
            torch.where(shared, which[:, :1], which),
            torch.where(shared, peak[:, :1] + lag, peak),
        )

    def draw_windows(self, activity, n_batch):
        """Draw windows of ongoing activity.

        Parameters
        ----------
        activity : tensor of shape (n_background_times, n_rows)
            ``background``, or its projection on sensors.
        n_batch : int
            Number of windows.

        Returns
        -------
        windows : tensor of shape (n_batch, n_rows, n_times)
            The windows.
        """
        start = self._integers(len(activity) - self.n_times + 1, n_batch)
        times = start[:, None] + torch.arange(self.n_times, device=self.device)
        return activity[times].float().transpose(1, 2)

    def project(self, gain, weights, waves, background, chosen, peak_power):
        """Scale the sources, project them with a leadfield and add noise.

        Parameters
        ----------
        gain : tensor of shape (n_channels, n_parcels)
            Leadfield, whitened or not.
        weights, waves, background, chosen, peak_power : tensors
            What :meth:`draw` returned.

        Returns
        -------
        data : tensor of shape (n_batch, n_channels, n_times)
            Noisy sensor data.
        sources : tensor of shape (n_batch, n_parcels, n_times)
            Activity of the patches without background, largest absolute value 1.
        """
        ongoing = (background.transpose(1, 2) @ gain.T).transpose(1, 2)
        data, waves = self.superpose(gain, weights, waves, ongoing, chosen, peak_power)
        sources = waves.transpose(1, 2) @ weights  # times first in memory
        peak = torch.maximum(sources.amax((1, 2)), -sources.amin((1, 2)))
        sources /= torch.where(peak > 0, peak, 1.0)[:, None, None]
        return data, sources.transpose(1, 2)

    def superpose(self, gain, weights, waves, ongoing, chosen, peak_power):
        """Scale the sources, add ongoing activity at the sensors, and add noise.

        Parameters
        ----------
        gain : tensor of shape (n_channels, n_parcels)
            Leadfield, whitened or not.
        weights, waves : tensors
            What :meth:`draw_sources` returned.
        ongoing : tensor of shape (n_batch, n_channels, n_times)
            Background activity as the sensors see it.
        chosen, peak_power : tensors
            What :meth:`draw_sources` returned.

        Returns
        -------
        data : tensor of shape (n_batch, n_channels, n_times)
            Noisy sensor data.
        waves : tensor of shape (n_batch, max_sources, n_times)
            The waveforms, scaled; zero for sources that are absent or unseen.
        """
        topographies = weights @ gain.T  # (n_batch, max_sources, n_channels)
        snr = self._uniform(*self.background_snr, *chosen.shape)
        patch_power = topographies.square().sum(-1) * peak_power
        noise_power = ongoing.square().mean(-1).sum(-1, keepdim=True)
        scale = (10 ** (snr / 10) * noise_power / patch_power).sqrt()
        seen = (chosen >= 0) & (patch_power > 0)
        waves = waves * torch.where(seen, scale, 0.0)[..., None]
        data = topographies.transpose(1, 2) @ waves + ongoing
        return self._add_noise(data), waves

    def _add_noise(self, data):
        snr = self._uniform(*self.sensor_snr, len(data))
        if self.noise is not None:
            std = noise_std(data, snr, self.noise)
        else:
            uniform = self._integers(2, len(data))[:, None, None] == 1
            nominal_std = noise_std(data, snr, "nominal")
            std = torch.where(uniform, noise_std(data, snr, "uniform"), nominal_std)
        white = torch.randn(data.shape, generator=self.generator, device=self.device)
        return data + std * white

    def batch(self, gain, n_batch):
        """Draw and project in one step: ``data, sources`` of a batch."""
        return self.project(gain, *self.draw(n_batch))

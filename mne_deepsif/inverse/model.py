"""A fitted model: arrays in, arrays out."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import copy
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch

from ..head.parcels import Parcels
from ..network.device import resolve_device
from ..network.encoder import backprojection_kernels, encode_windows
from ..network.reweighting import neighbour_correlation, reweight
from .windows import cut, overlap_add, pad, window_length

_BATCH = 64  # windows that go through the network at once


@dataclass(frozen=True, eq=False)
class Model:
    """A trained network, and all that you need to use it on arrays.

    :meth:`DeepSIFEstimator.fit` makes one. Files and names of weights stand for one.
    The apply functions take one as ``estimator``.

    Parameters
    ----------
    network : torch.nn.Module
        The network, on the CPU. It maps ``(n_batch, n_times, n_features)`` to
        ``(n_batch, n_times, n_parcels)``. For ``"backprojection"``, its dict ``sizes``
        gives the number of principal components as ``"n_components"``.
    encoder : "backprojection" | "sensors"
        What the network reads, see :class:`DeepSIFEstimator`.
    parcels : Parcels
        The parcellation.
    sfreq : float
        Sampling rate of the network (Hz).
    n_times : int
        Window of the network in samples.
    architecture : "compact" | "published"
        Name of the network's architecture.
    ch_names : list of str | None
        Channels that ``encoder="sensors"`` reads, in order; None for the other encoder.
    recipe : dict
        How the weights were made.
    history : list of tuple
        Number of updates and validation loss, for each validation.
    metrics : dict | None
        How good the weights are.
    fingerprint : dict | None
        Positions of cortex and sensors in the training.
    device : str
        Torch device for estimates; ``"auto"`` takes a GPU where there is one.
    """

    network: torch.nn.Module
    encoder: str
    parcels: Parcels
    sfreq: float
    n_times: int
    architecture: str = "compact"
    ch_names: list | None = None
    recipe: dict = field(default_factory=dict)
    history: list = field(default_factory=list)
    metrics: dict | None = None
    fingerprint: dict | None = None
    device: str = "auto"

    def __repr__(self):
        """Describe the model in one line."""
        return (
            f"<Model | {self.encoder}, {self.architecture}, "
            f"{self.parcels.n_parcels} parcels, windows of "
            f"{self.n_times / self.sfreq:.3g} s at {self.sfreq:g} Hz>"
        )

    def on(self, device):
        """Return the same model for another device.

        Parameters
        ----------
        device : str
            Torch device, or ``"auto"``.

        Returns
        -------
        model : Model
            The model. It is the same object if the device is the same.
        """
        return self if device == self.device else replace(self, device=device)

    def prepare(self, gain):
        """Prepare the model for a leadfield.

        Parameters
        ----------
        gain : array of shape (n_channels, n_parcels)
            Leadfield: whitened for ``encoder="backprojection"``, in channels for
            ``encoder="sensors"``.

        Returns
        -------
        prepared : PreparedModel
            Estimates sources from data of these channels.
        """
        return PreparedModel(self, gain)

    def estimate(self, data, gain, sfreq, *, mixing=None):
        """Estimate the activity of the parcels.

        Parameters
        ----------
        data : array of shape (n_channels, n_times) or (n_samples, n_channels, n_times)
            Whitened data (``encoder="backprojection"``) or channels
            (``encoder="sensors"``) of one or more epochs of equal length.
        gain : array of shape (n_channels, n_parcels)
            Leadfield in the same units.
        sfreq : float
            Sampling rate of the data (Hz).
        mixing : array of shape (n_rows, n_parcels) | None
            Return ``mixing @ sources`` instead. This is less work for few rows.

        Returns
        -------
        sources : array of shape (..., n_parcels or n_rows, n_times)
            Activity in the unit of data over gain. The scale of each window is the one
            that explains the data best.
        """
        return self.prepare(gain).estimate(data, sfreq, mixing=mixing)

    def __getstate__(self):
        """Leave out what can be computed again."""
        made_again = ("_device_network", "_correlation")
        return {k: v for k, v in self.__dict__.items() if k not in made_again}

    @cached_property
    def _device_network(self):
        """The network on its device; a copy if that is not the CPU, as it is shared."""
        device = resolve_device(self.device)
        if device == "cpu":
            return self.network
        return copy.deepcopy(self.network).to(device)

    @cached_property
    def _correlation(self):
        """Prior correlation of the parcels, one block for each hemisphere."""
        blocks = neighbour_correlation(self.parcels.adjacency)
        return [block.to(resolve_device(self.device)) for block in blocks]


class PreparedModel:
    """A model and a leadfield, prepared once for any number of recordings.

    Parameters
    ----------
    model : Model
        The model.
    gain : array of shape (n_channels, n_parcels)
        Leadfield, see :meth:`Model.prepare`.
    """

    def __init__(self, model, gain):
        self.model = model
        self.unit = np.sqrt(np.mean(np.square(gain)))  # keeps float32 from underflow
        device = resolve_device(model.device)
        gain = np.asarray(gain / self.unit, np.float32)
        self.gain = torch.as_tensor(gain, device=device)
        self.kernels = None
        if model.encoder == "backprojection":
            with torch.inference_mode():
                self.kernels = backprojection_kernels(self.gain.double()).float()

    def estimate(self, data, sfreq, *, mixing=None):
        """Estimate the activity of the parcels.

        Parameters
        ----------
        data : array of shape (n_channels, n_times) or (n_samples, n_channels, n_times)
            As in :meth:`Model.estimate`.
        sfreq : float
            Sampling rate of the data (Hz).
        mixing : array of shape (n_rows, n_parcels) | None
            As in :meth:`Model.estimate`.

        Returns
        -------
        sources : array of shape (..., n_parcels or n_rows, n_times)
            As in :meth:`Model.estimate`.
        """
        model, n_times = self.model, data.shape[-1]
        length = window_length(model.n_times, model.sfreq, sfreq)
        padded = pad(data, length)
        windows = cut(padded, length, model.n_times)
        batch = windows.reshape(-1, *windows.shape[-2:])
        sources = self.estimate_windows(batch, mixing=mixing)
        sources = sources.reshape(*windows.shape[:-2], *sources.shape[-2:])
        sources = overlap_add(sources, length, padded.shape[-1])
        first = (padded.shape[-1] - n_times) // 2
        return sources[..., first : first + n_times]

    def estimate_windows(self, windows, *, mixing=None):
        """Estimate the activity of the parcels in windows of the network's length.

        Parameters
        ----------
        windows : array of shape (n_windows, n_channels, n_times)
            Data at the network's sampling rate, in windows of its length.
        mixing : array of shape (n_rows, n_parcels) | None
            As in :meth:`Model.estimate`.

        Returns
        -------
        sources : array of shape (n_windows, n_parcels or n_rows, n_times)
            The activity.
        """
        if mixing is not None:
            mixing = torch.as_tensor(mixing, device=self.gain.device)
        scale = np.abs(windows).max((1, 2), keepdims=True)
        scale = np.where(scale > 0, scale, 1.0)
        data = torch.as_tensor(windows / scale, device=self.gain.device)
        with torch.inference_mode():
            sources = [self._estimate_batch(x, mixing) for x in data.split(_BATCH)]
        return torch.cat(sources).cpu().numpy() * (scale / self.unit)

    def _estimate_batch(self, data, mixing):
        """Map (n_windows, n_channels, n_times) to (n_windows, n_rows, n_times)."""
        network = self.model._device_network
        n_components = network.sizes.get("n_components")
        encoded = encode_windows(data, self.kernels, n_components)
        estimate = network(encoded.X).mT
        if self.kernels is not None:
            correlation = self.model._correlation
            estimate = reweight(estimate, encoded.data, self.gain, correlation)
        estimate = _least_squares_scale(encoded.data, estimate, self.gain) * estimate
        if mixing is not None:  # before the time courses: less to multiply
            estimate = mixing @ estimate.double()
        if encoded.courses is None:
            return estimate
        return estimate @ encoded.courses.to(estimate.dtype)


def _least_squares_scale(data, estimate, gain):
    """Return the factor (n_windows, 1, 1) >= 0 with which gain @ estimate fits best."""
    predicted = gain @ estimate
    power = predicted.square().sum((1, 2), keepdim=True)
    product = (data * predicted).sum((1, 2), keepdim=True)
    # the network decides on the sign: a fit with the wrong sign explains nothing
    return (product / power.clamp_min(1e-30)).clamp_min(0.0)

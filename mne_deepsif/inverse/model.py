"""A fitted model: arrays in, arrays out."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from mne.utils import _validate_type
from scipy import sparse

from ..head.parcels import Parcels
from ..head.patches import parcel_patches
from ..network.device import place_network, resolve_device, sparse_tensor
from ..network.encoder import (
    N_KERNELS,
    N_SCALES,
    backprojection_kernels,
    encode_windows,
)
from ..network.few_sources import SHARPNESS, FewSources
from ..network.prior import (
    CorticalPrior,
    Spectrum,
    patch_profiles,
    prior_variances,
    reweigh,
    split_modes,
)
from .band import independent_rate
from .sums import Sums
from .windows import (
    covering,
    cut,
    overlap_add,
    pad,
    window_hop,
    window_length,
    window_starts,
)

_BATCH = 128  # windows that go through the network at once
# windows per longest one, without overlap: those that the network sees, of estimates
_SEEN, _SHORT = (1, 4), 8
# how much better than that of the longest windows that of each length must be to count
# as much (minus twice the log likelihood)
_HANDICAPS = (0.0, 8.0)
_NEGLIGIBLE = 0.02  # weight of a prior


@dataclass(frozen=True, eq=False)
class Model:
    """A trained network, and all that you need to use it on arrays.

    :meth:`DeepSIFEstimator.fit` makes one. Files and names of weights stand for one.
    The apply functions take one as ``estimator``.

    Parameters
    ----------
    network : torch.nn.Module
        The network, on the CPU. It maps ``(n_batch, n_times, n_features)`` to
        ``(n_batch, n_times, n_parcels)``. For ``"backprojection"``, it is like
        ``CompactNetwork``: its dict ``sizes`` gives the number of principal
        components as ``"n_components"``, and it has ``embed_kernels``.
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

    def at(self, sfreq):
        """Return the same model for faster activity: up to half of another rate.

        The network sees a window by its principal components, so it does not matter how
        many samples the window has. The weights stay the same. So does the length of
        the windows, but for rounding to 16 samples.

        Parameters
        ----------
        sfreq : float
            Sampling rate of the network (Hz), not below its own.

        Returns
        -------
        model : Model
            The model. It needs more time and memory, and its estimates hold the noise
            up to ``sfreq / 2``.
        """
        if self.encoder == "sensors":
            raise ValueError(
                "A network that reads channels (encoder='sensors') knows no other "
                "sampling rate. Use estimator='generic', or train one: "
                "DeepSIFEstimator(sfreq=...)."
            )
        _validate_type(sfreq, "numeric", "sfreq")
        if not self.sfreq <= sfreq < np.inf:
            raise ValueError(
                f"sfreq must be at least the model's own rate of {self.sfreq:g} Hz, "
                f"got {sfreq}."
            )
        # of data at this rate, the windows need not be resampled
        n_times = 2 * _SHORT * window_hop(self.n_times, self.sfreq, sfreq)
        return replace(self, sfreq=float(sfreq), n_times=n_times)

    def prepare(self, gain, patterns=None):
        """Prepare the model for a leadfield.

        Parameters
        ----------
        gain : array of shape (n_channels, n_parcels)
            Leadfield: whitened for ``encoder="backprojection"``, in channels for
            ``encoder="sensors"``.
        patterns : PatternGain | None
            Whitened gain of patterns of activity within the parcels. None takes each
            parcel as one. Only for ``encoder="backprojection"``.

        Returns
        -------
        prepared : PreparedModel
            Estimates sources from data of these channels.
        """
        if self.encoder == "sensors":
            return PreparedModel(self, gain)
        return PreparedPrior(self, gain, patterns)

    def estimate(self, data, gain, sfreq, *, band=None, mixing=None):
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
        band : float | None
            Highest frequency in the data (Hz). None is half of the sampling rate.
        mixing : array of shape (n_rows, n_parcels) | None
            Return ``mixing @ sources`` instead. This is less work for few rows.

        Returns
        -------
        sources : array of shape (..., n_parcels or n_rows, n_times)
            Activity in the unit of data over gain. The scale of each window is the one
            that explains the data best.
        """
        return self.prepare(gain).estimate(data, sfreq, band=band, mixing=mixing)

    def __getstate__(self):
        """Leave out what can be computed again."""
        made_again = ("_device_network", "_profiles")
        return {k: v for k, v in self.__dict__.items() if k not in made_again}

    @cached_property
    def _device_network(self):
        """The network on its device, made for estimates."""
        return place_network(self.network, resolve_device(self.device))

    @cached_property
    def _profiles(self):
        """Activity of a patch around each parcel."""
        profiles = patch_profiles(self.parcels.adjacency)
        return torch.as_tensor(profiles, device=resolve_device(self.device)).float()


class PreparedModel:
    """A model that reads channels, and a leadfield, prepared once for many recordings.

    Parameters
    ----------
    model : Model
        The model.
    gain : array of shape (n_channels, n_parcels)
        Leadfield, see :meth:`Model.prepare`.
    """

    has_patterns = False  # whether estimates are finer than parcels

    def __init__(self, model, gain):
        self.model = model
        self.unit = np.sqrt(np.mean(np.square(gain)))  # keeps float32 from underflow
        self.gain = self._to_tensor(gain)

    def _to_tensor(self, gain):
        gain = np.asarray(gain / self.unit, np.float32)
        return torch.as_tensor(gain, device=resolve_device(self.model.device))

    def window(self, sfreq):
        """Return the length of a window in samples of the data."""
        return window_length(self.model.n_times, self.model.sfreq, sfreq)

    def estimate(
        self, data, sfreq, *, band=None, mixing=None, fit=False, keep=slice(None)
    ):
        """Estimate the activity.

        Parameters
        ----------
        data : array of shape (n_channels, n_times) or (n_samples, n_channels, n_times)
            As in :meth:`Model.estimate`.
        sfreq : float
            Sampling rate of the data (Hz).
        band : float | None
            Highest frequency in the data (Hz), see :func:`effective_band`. None is half
            of the sampling rate. Of slower data, fewer samples are independent.
        mixing : array or sparse array of shape (n_rows, n_parcels) | None
            Sums of the activity to return instead. With ``has_patterns``, it has one
            column for each pattern.
        fit : bool
            Also return what the estimate explains of the data.
        keep : slice
            The times of the sources to return, with a positive step.

        Returns
        -------
        sources : array of shape (..., n_parcels or n_rows, n_kept)
            As in :meth:`Model.estimate`. With ``has_patterns``, the activity of each
            pattern.
        fitted : array of shape (..., n_channels, n_times)
            The leadfield times all of the activity. Only if ``fit`` is True.
        """
        length, n_times = self.window(sfreq), data.shape[-1]
        padded = pad(data, length)
        n_total = padded.shape[-1]
        first = (n_total - n_times) // 2
        start, stop, step = keep.indices(n_times)
        keep = slice(first + start, first + stop, step)
        rate = independent_rate(sfreq, band)
        sources, fitted, length = self._estimate_padded(padded, length, mixing, rate)
        sources = overlap_add(sources, length, n_total, keep)
        if not fit:
            return sources
        whole = slice(first, first + n_times)
        return sources, overlap_add(fitted, length, n_total, whole)

    def _estimate_padded(self, padded, length, mixing, rate):
        """Return estimates in windows, (..., n_windows, n_rows, n_times), fit, length.

        The fit is in windows as well.
        """
        windows = cut(padded, length, self.model.n_times)
        batch = windows.reshape(-1, *windows.shape[-2:])
        n_channels = padded.shape[-2]
        mixing = _append_rows(mixing, self.gain.cpu().numpy() * self.unit)
        sources = self.estimate_windows(batch, mixing=mixing)
        sources = sources.reshape(*windows.shape[:-2], *sources.shape[-2:])
        return sources[..., :-n_channels, :], sources[..., -n_channels:, :], length

    def estimate_windows(self, windows, *, mixing=None):
        """Estimate the activity of the parcels in windows of the network's length.

        Parameters
        ----------
        windows : array of shape (n_windows, n_channels, n_times)
            Data at the network's sampling rate, in windows of its length.
        mixing : array of shape (n_rows, n_parcels) | None
            As in :meth:`estimate`.

        Returns
        -------
        sources : array of shape (n_windows, n_parcels or n_rows, n_times)
            The activity.
        """
        data, scale = self._scale(windows)
        mixing = _mixing_to_tensor(mixing, self.gain.device)
        with torch.inference_mode():
            sources = [self._estimate_batch(x, mixing) for x in data.split(_BATCH)]
        return torch.cat(sources).cpu().numpy() * np.float32(scale / self.unit)

    def _scale(self, windows):
        """Return the windows as a tensor of a maximum of 1, and the divisor."""
        scale = np.abs(windows).max((1, 2), keepdims=True)
        scale = np.where(scale > 0, scale, 1.0)
        return torch.as_tensor(windows / scale, device=self.gain.device), scale

    def _estimate_batch(self, data, mixing):
        encoded = encode_windows(data)
        estimate = self.model._device_network(encoded.X).mT
        scale = _least_squares_scale(encoded.data, self.gain @ estimate)
        return _mix(mixing, _check_finite(scale * estimate))


class Judged(NamedTuple):
    """Windows, and how one source and two explain them; one row for each.

    Attributes
    ----------
    modes, rest : tensor
        The data, see :func:`split_modes`.
    cost, which, amplitudes, predicted : tensor
        As of :class:`Found`.
    """

    modes: torch.Tensor
    rest: torch.Tensor
    cost: torch.Tensor
    which: torch.Tensor
    amplitudes: torch.Tensor
    predicted: torch.Tensor


class PreparedPrior(PreparedModel):
    """A model whose network gives the prior, and a whitened leadfield.

    The network looks at windows of its length and at windows of a quarter of it.
    Estimates are made in windows of an eighth. Each is the mean over several priors,
    weighed by how likely they make its data: those of the long windows and of the
    quarters around it, that of a single source, and that of two. So what is weak in a
    long window is found at its own time, and what is weak at all times is found in the
    long one.

    Parameters
    ----------
    model : Model
        The model.
    gain, patterns : array
        See :meth:`Model.prepare`.
    """

    def __init__(self, model, gain, patterns=None):
        super().__init__(model, gain)
        self.has_patterns = patterns is not None
        self._latest = None  # mixing and its sums
        fine, uniform = self.gain, self.gain
        parcel = owner = torch.arange(gain.shape[1])
        points = self.gain.T.expand(N_SCALES, -1, -1)
        if patterns is not None:
            fine = self._to_tensor(patterns.fine)
            uniform = self._to_tensor(patterns.uniform)
            points = self._to_tensor(patterns.points)
            parcel, owner = (
                torch.as_tensor(x) for x in (patterns.parcel, patterns.owner)
            )
            patches = patterns.patches
        else:
            patches = parcel_patches(model.parcels.adjacency, gain)
        self.coefficients = patches.coefficients
        topographies = self._to_tensor(patches.gain)
        n_members = torch.as_tensor(patches.n_members, device=self.gain.device)
        parcel, owner = (x.to(self.gain.device) for x in (parcel, owner))
        with torch.inference_mode():
            kernels = backprojection_kernels(self.gain.double())
            self.kernels = kernels.float()
            self.embedding = model.network.embed_kernels(kernels, N_KERNELS).float()
            self.prior = CorticalPrior(fine, parcel, uniform, model._profiles)
            self.few_sources = FewSources(
                self.prior, topographies, n_members, patches.n_of_size
            )
            self.scanning = None
            if model.network.sizes.get("scan_width", 0):
                self.scanning = self.prior.scan_kernels(points, owner)

    def window(self, sfreq):
        """Return the length of a long window in samples of the data."""
        return 2 * _SHORT * window_hop(self.model.n_times, self.model.sfreq, sfreq)

    def _estimate_padded(self, padded, length, mixing, rate):
        n_total, n_times = padded.shape[-1], self.model.n_times
        short = length // _SHORT
        windows = cut(padded, short, max(1, n_times // _SHORT))
        starts = window_starts(n_total, short)
        seen, around, n_seen = [], [], 0
        for part in _SEEN:
            one = cut(padded, length // part, max(1, n_times // part))
            first = n_seen + np.arange(0, one[..., 0, 0].size, one.shape[-3])
            pair = covering(
                starts, window_starts(n_total, length // part), short, length // part
            )
            seen.append(one.reshape(-1, *one.shape[-2:]))
            around.append((first[:, None, None] + pair).reshape(-1, 2))
            n_seen += len(seen[-1])
        around = torch.as_tensor(np.concatenate(around, 1), device=self.gain.device)
        with torch.inference_mode():
            found = self._estimate_local(
                seen, windows.reshape(-1, *windows.shape[-2:]), around, mixing, rate
            )
        shape = windows.shape[:-2]
        sources, fitted = (x.reshape(*shape, *x.shape[-2:]).mT for x in found)
        return sources, fitted, short

    def _estimate_local(self, seen, windows, around, mixing, rate):
        """Estimate windows with their own priors and those that the network sees.

        Return sources and fit, (n_windows, n_times, n_rows or n_channels).
        """
        sums = self._make_sums(mixing)
        priors = self._find_priors([self._scale(one)[0] for one in seen])
        data, scale = self._scale(windows)
        parts = (x.split(_BATCH) for x in (data, around))
        parts = [
            self._estimate_batch(*part, priors, sums, rate)
            for part in zip(*parts, strict=True)
        ]
        sources, *others = zip(*parts, strict=True)
        sources = _join_rows(sources)
        fitted, *powers = map(torch.cat, others)
        squared = torch.as_tensor(np.square(scale[:, 0, 0]), device=self.gain.device)
        factor = _common_scale(*(squared * power for power in powers), around[:, :2])
        factor = factor[:, None, None] * torch.as_tensor(scale, device=factor.device)
        factor = factor.float()  # double would convert all sources
        sources *= factor / self.unit
        fitted *= factor
        return sources.cpu().numpy(), fitted.cpu().numpy()

    def _make_sums(self, mixing):
        """Return what estimates the sums of activity that a mixing matrix asks for.

        The latest is kept: the pieces of a recording ask for the same.
        """
        latest = self._latest  # another thread may replace it
        if latest is None or latest[0] is not mixing:
            given = self.prior, mixing, self.has_patterns, self.coefficients
            latest = mixing, Sums(*given)
            self._latest = latest
        return latest[1]

    def _find_priors(self, seen):
        """Return prior variances of windows of several lengths, one after the other.

        If they are few, they go through the network together: reading its weights takes
        longer than computing with them.
        """
        parts = [part for one in seen for part in one.split(_BATCH) if len(part)]
        together = sum(len(part) for part in parts) <= _BATCH
        groups = [parts] if together else [[part] for part in parts]
        return torch.cat([self._find_prior(group) for group in groups])

    def _find_prior(self, group):
        """Return prior variances of windows that may have several lengths."""
        network = self.model._device_network
        n_components = network.sizes["n_components"]
        encoded = encode_windows(
            group,
            self.kernels,
            n_components,
            scanning=self.scanning,
            embedding=self.embedding,
        )
        answer = network(encoded.X, encoded.features).mT
        variances = prior_variances(answer, self.model.parcels.n_parcels)
        data = split_modes(self.prior, encoded.data)
        return reweigh(self.prior, _check_finite(variances), *data)

    def _spectrum(self, variances):
        return Spectrum(self.prior.covariance(variances), self.prior.n_channels)

    def _estimate_batch(self, data, around, priors, sums, rate):
        """Map (n_windows, n_channels, n_times) to (n_windows, n_times, n_rows).

        Also return the fit, its product with the data, and its power.
        """
        near, around = torch.unique(around, return_inverse=True)
        near, own = priors[near], self._judge(data, rate)
        windows = torch.arange(len(data), device=near.device)
        windows = windows.repeat_interleave(around.shape[1])
        spectrum = self._spectrum(near)
        modes, rest = own.modes[windows], own.rest[windows]
        cost, weights, predicted = (
            some.unflatten(0, around.shape)
            for some in spectrum.explain(modes, rest, around.flatten())
        )
        cost = torch.cat([own.cost, cost], 1)
        predicted = torch.cat([own.predicted, predicted], 1)
        shares = self._shares(cost, modes, rate)
        n_own = own.cost.shape[1]
        estimate = sums.estimate(weights, shares[:, n_own:], around, near)
        few = shares[:, :n_own].nonzero(as_tuple=True)
        amplitudes = shares[few][:, None, None] * own.amplitudes[few]
        estimate.index_add_(0, few[0], sums.of_patches(own.which[few], amplitudes))
        predicted, *powers = self._fit(own.modes, own.rest, predicted, shares)
        return estimate, predicted.mT @ self.prior.modes.T, *powers

    def _judge(self, data, rate):
        """Explain windows by one source, and by two."""
        modes, rest = split_modes(self.prior, data.float())
        n_independent = self._n_independent(modes, rate)
        return Judged(
            modes, rest, *self.few_sources.explain(modes, rest, n_independent)
        )

    def _n_independent(self, windows, rate):
        """Return how many samples of windows of estimates count as independent."""
        return windows.shape[2] / self.model.sfreq * rate

    def _shares(self, cost, windows, rate):
        """Return what the priors of each window count, (n_windows, n_priors).

        The first are the window's own. Those that the network sees follow, two of each
        length. A prior counts by how likely it makes the data.
        """
        n_independent = self._n_independent(windows, rate)
        handicaps = np.repeat(_HANDICAPS, 2)
        handicaps = [0.0] * (cost.shape[1] - len(handicaps)) + handicaps.tolist()
        cost = cost + torch.tensor(handicaps, device=cost.device) / n_independent
        shares = torch.softmax(-SHARPNESS * n_independent / 2 * cost, 1)
        shares = torch.where(shares < _NEGLIGIBLE, 0.0, shares)
        return shares / shares.sum(1, keepdim=True)

    def _fit(self, modes, rest, predicted, shares):
        """Return the fit, and its product with the data and its power.

        The latter two are for the scale of the long windows. A window whose fit does
        not resemble its data, such as an artefact's, hardly counts there.
        """
        predicted = weighted_mean(predicted, shares)
        product, power = (modes * predicted).sum((1, 2)), predicted.square().sum((1, 2))
        total = (modes.square().sum((1, 2)) + rest) * power
        likeness = (product.square() / total.clamp_min(1e-30)) ** 4
        return predicted, likeness * product, likeness * power


def _join_rows(parts):
    """Concatenate (n_windows, n_times, n_rows), of which the rows come from products.

    So the samples of a row stay side by side, as overlap-add wants them.
    """
    rows = torch.cat([part.permute(2, 0, 1) for part in parts], 1)
    return rows.permute(1, 2, 0)


def weighted_mean(values, shares):
    """Average (n_windows, n_priors, ...) over priors, with (n_windows, n_priors)."""
    return (shares[:, None] @ values.flatten(2)).view(len(shares), *values.shape[2:])


def _check_finite(answer):
    """Refuse what a network with damaged weights makes of some data."""
    if not torch.isfinite(answer).all():
        raise ValueError(
            "The network's answer is not finite, although the data are: the weights of "
            "the estimator are damaged or much too large. Train it again, or use "
            "estimator='generic'."
        )
    return answer


def _common_scale(product, power, around):
    """Return the factor (n_windows,) with which long windows fit best.

    A minimum norm is too small, the more so the noisier its window is. The windows
    within a long one share their factor. So noise stays small beside a response.
    """
    first, last = around.T
    total = [torch.zeros(int(last.max()) + 1, device=product.device).double()] * 2
    total = [
        one.index_add(0, first, part.double()).index_add(
            0, last, torch.where(first == last, 0.0, part.double())
        )
        for one, part in zip(total, (product, power), strict=True)
    ]
    product, power = (one[first] + one[last] for one in total)
    return product / power.clamp_min(1e-300)


def _mix(mixing, estimate):
    """Multiply (n_rows, n_patterns) by (n_windows, n_patterns, n_times)."""
    if mixing is None:
        return estimate
    n_windows, n_patterns, n_times = estimate.shape
    columns = estimate.transpose(0, 1).reshape(n_patterns, -1)
    return (mixing @ columns).unflatten(1, (n_windows, n_times)).transpose(0, 1)


def _append_rows(mixing, rows):
    """Append rows to a mixing matrix; None is that of all patterns."""
    if mixing is None:
        mixing = sparse.eye_array(rows.shape[1])
    return sparse.vstack([sparse.csr_array(mixing), sparse.csr_array(rows)])


def _mixing_to_tensor(mixing, device):
    if mixing is None:
        return None
    if sparse.issparse(mixing):
        return sparse_tensor(mixing, device)
    return torch.as_tensor(mixing, device=device).float()


def _least_squares_scale(data, predicted):
    """Return the factor (n_windows, 1, 1) >= 0 with which a prediction fits best."""
    power = predicted.square().sum((1, 2), keepdim=True)
    product = (data * predicted).sum((1, 2), keepdim=True)
    # the network decides on the sign: a fit with the wrong sign explains nothing
    return (product / power.clamp_min(1e-30)).clamp_min(0.0)

"""The order of the channels: neighbours must record alike. Arrays only.

Fields of the brain are smooth on the scalp, so a channel can be told from its
neighbours. If the rows of the data have another order than the names, it cannot.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.signal import detrend
from scipy.signal.windows import tukey

_FEWEST = {"eeg": 16, "mag": 16, "grad": 50}  # channels
_BAND = (1.0, 40.0)  # Hz; below are drifts, above is the power line
_N_FIELDS = 10  # strongest fields that are looked at
_NOISE = 0.1  # of the channels, relative to the brain, when they are predicted
_STRONG = 2.0  # times the median channel's power; more does not count
_BAD = 50.0  # times the median channel: a bad one, which leaks into the others
_N_ORDERS = 30  # drawn at random, to compare with
_N_SWAPS = 20
_LEAST_GAIN = 0.002  # of a swap
_ALIKE = 0.5  # correlation of two channels, from which on they are not swapped
# Limits, see benchmarks/studies/order.py. Noise has as many fields as noise has. Right
# orders leave up to half unpredicted, and three quarters where few channels have weak
# signals, but then swaps gain less than 3.
_STRUCTURE, _UNPREDICTED, _GAIN = 0.5, 0.6, 3.0
# Right orders gain up to 10 (EEG) and 24 (MEG with fields from outside). Planar
# gradiometers tell too little of one another.
_SWAPPED = {"eeg": 15.0, "mag": 30.0}
# Twenty swaps make a single field smoother. In right orders over one patch, of 20 to
# 40 dB, they gained up to 17, 22 and 53 with 32, 64 and 128 electrodes, and 56 with 102
# magnetometers; with more fields than this, none of 366 gained too much.
_SINGLE, _SWAPPED_SINGLE = 1.05, 0.5  # number of fields; gain per channel
# What a rearrangement of many rows gains: in right orders up to 1.2, and mostly less
# than 0, but 4 with 19 electrodes over shallow sources. Headboxes and connectors have
# these numbers of channels.
_REARRANGED, _BLOCKS = 4.0, (8, 16, 32)
_FEWEST_REARRANGED = 32  # channels


class Order(NamedTuple):
    """How the order of channels suits data.

    Attributes
    ----------
    unpredicted : float
        Power of a channel that the others do not predict (median over channels),
        relative to that in random orders: near 0 in the right order, 1 in a random one.
    n_fields : float
        Number of independent fields in the data, relative to that of noise.
    swaps : list of tuple of int
        Pairs of rows that, exchanged one after another, make the data more likely.
    gain : float
        Log likelihood that the swaps gain, for one independent sample.
    rearrangement : tuple of int
        The best shift of all rows ``(n_rows,)``, exchange of two blocks ``(first,
        second, n_rows)``, or none of both for the reverse order.
    rearranged_gain : float
        Log likelihood that it gains; negative if the order given is better, and minus
        infinity for fewer than 32 channels, where it is not judged.
    n_seen : float
        Number of independent fields, with too strong channels weakened.
    n_channels : int
        Number of channels.
    """

    unpredicted: float
    n_fields: float
    swaps: list
    gain: float
    rearrangement: tuple = ()
    rearranged_gain: float = -np.inf
    n_seen: float = np.inf
    n_channels: int = 0

    @property
    def is_told(self):
        """Whether there is more than noise, so that the order can be judged."""
        return self.n_fields < _STRUCTURE

    @property
    def is_random(self):
        """Whether the order is no better than random ones."""
        too_much = self.unpredicted > _UNPREDICTED and self.gain > _GAIN
        return self.is_told and too_much

    @property
    def is_rearranged(self):
        """Whether all rows, or blocks of them, are elsewhere."""
        return self.is_told and self.rearranged_gain > _REARRANGED

    def is_swapped(self, ch_type):
        """Tell whether some channels are exchanged."""
        limit = _SWAPPED.get(ch_type, np.inf)
        if self.n_seen < _SINGLE:
            limit = max(limit, _SWAPPED_SINGLE * self.n_channels)
        return self.is_told and not self.is_random and self.gain > limit


def find_order(data, gain, projector, std, sfreq, ch_type="eeg"):
    """Compare the order of channels with what neighbours must have in common.

    Parameters
    ----------
    data : array of shape (..., n_channels, n_times)
        Data of channels of one type, V or T (T/m).
    gain : array of shape (n_channels, n_sources)
        Their leadfield.
    projector : array of shape (n_channels, n_channels)
        Their projectors.
    std : array of shape (n_channels, 1)
        Standard deviation of their noise, in the unit of the data.
    sfreq : float
        Sampling rate (Hz).
    ch_type : str
        Their type: ``'eeg'``, ``'mag'`` or ``'grad'``.

    Returns
    -------
    order : Order | None
        How the order suits the data. None if there are too few channels or samples,
        no power between 1 and 40 Hz, or channels that must be bad.

    Notes
    -----
    Each channel is predicted from the others as a Gaussian with the covariance
    ``gain @ gain.T`` and noise. The same is done for random orders of the channels.
    """
    n_channels = len(gain)
    if n_channels < _FEWEST[ch_type]:
        return None
    fields, n_fields = _find_fields(data, projector, std, sfreq)
    if fields is None:
        return None
    gain, projector = gain / std, projector / std
    covariance = gain @ gain.T
    covariance *= n_channels / np.trace(covariance)
    precision = np.linalg.inv(covariance + _NOISE * np.eye(n_channels))
    rng = np.random.default_rng(0)
    given = projector @ fields
    power = np.square(given).sum(1)
    if power.max() > _BAD * np.median(power):
        return None
    orders = [rng.permutation(n_channels) for _ in range(_N_ORDERS)]
    usual = [_unpredicted(projector @ fields[order], precision) for order in orders]
    best, least = (), np.inf
    if n_channels >= _FEWEST_REARRANGED:
        best, least = _find_rearrangement(_limit(given), precision)
    swaps, ratio = _find_swaps(given, precision, _are_alike(covariance))
    return Order(
        unpredicted=_unpredicted(given, precision) / np.median(usual),
        n_fields=n_fields,
        swaps=swaps,
        gain=-n_channels / 2 * np.log(ratio),
        rearrangement=best,
        rearranged_gain=-n_channels / 2 * np.log(least),
        n_seen=_effective_number(np.linalg.svd(_limit(given), compute_uv=False) ** 2),
        n_channels=n_channels,
    )


def _find_fields(data, projector, std, sfreq):
    """Return the strongest fields (n_channels, n_fields), and how many there are."""
    n_times = data.shape[-1]
    frequency = np.fft.rfftfreq(n_times, 1 / sfreq)
    band = (frequency >= _BAND[0]) & (frequency <= _BAND[1])
    if not band.any():
        return None, np.nan
    spectrum = np.fft.rfft(detrend(data) * tukey(n_times))[..., band]
    spectrum = np.moveaxis(spectrum, -2, 0).reshape(len(std), -1) / std
    spectrum = np.concatenate([spectrum.real, spectrum.imag], axis=1)
    values, vectors = np.linalg.eigh(spectrum @ spectrum.T)
    projected = (projector * std.T / std) @ spectrum
    power = np.square(projected).sum(0)
    if not values[-1] > 0 or not power.sum() > 0:
        return None, np.nan
    n_samples = 2 * _effective_number(power.reshape(2, -1).sum(0))
    noise = len(std) * n_samples / (len(std) + n_samples)
    n_fields = _effective_number(np.linalg.eigvalsh(projected @ projected.T))
    strongest = vectors[:, -_N_FIELDS:] * np.sqrt(values[-_N_FIELDS:].clip(0))
    return std * strongest, n_fields / noise


def _effective_number(values):
    """Return how many of some values there are, small ones counting less."""
    return values.sum() ** 2 / np.square(values).sum()


def _unpredicted(fields, precision):
    """Return the share of a channel that the others do not predict (median)."""
    fields = _limit(fields)
    error = np.square(precision @ fields).sum(1) / np.diag(precision) ** 2
    power = np.square(fields).sum(1)
    used = power > 1e-12 * power.max()
    return np.median(error[used] / power[used])


def _limit(fields):
    """Weaken channels that are too strong, so that a few do not decide for all."""
    power = np.square(fields).sum(1, keepdims=True)
    usual = _STRONG * np.median(power)
    return fields * np.sqrt(usual / np.maximum(power, usual)) if usual > 0 else fields


def _are_alike(covariance):
    """Tell which pairs of channels record nearly the same: they may be neighbours."""
    std = np.sqrt(np.diag(covariance))
    return np.abs(covariance) > _ALIKE * std * std[:, np.newaxis]


def _find_swaps(fields, precision, alike):
    """Swap rows as long as it makes them more likely, the best pair first.

    Return the pairs, and the ratio of what is minimised (the Mahalanobis distance).
    """
    fields = _limit(fields)
    start, swaps = None, []
    for _ in range(_N_SWAPS):
        gains, distance = _gains(fields, precision)
        gains[alike] = 0
        start = start or distance
        i, j = np.unravel_index(gains.argmax(), gains.shape)
        if not gains[i, j] > _LEAST_GAIN * distance:
            break
        fields[[i, j]] = fields[[j, i]]
        swaps.append((int(min(i, j)), int(max(i, j))))
    return swaps, _gains(fields, precision)[1] / start


def _find_rearrangement(fields, precision):
    """Find the shift, reversal or exchange of blocks that makes rows most likely.

    Return it as in :class:`Order`, and the ratio of the Mahalanobis distances.
    """
    start = np.vdot(precision @ fields, fields)
    found = []
    for which, order in _rearrangements(len(fields)):
        moved = fields[order]
        found.append((np.vdot(precision @ moved, moved) / start, which))
    least, best = min(found)
    return best, least


def _rearrangements(n_rows):
    """Yield orders of rows that mend a shift, a reversal or exchanged blocks."""
    rows = np.arange(n_rows)
    yield (), rows[::-1]
    for shift in range(1, n_rows):
        yield (shift,), np.roll(rows, -shift)
    for size in _BLOCKS:
        starts = range(0, n_rows - size + 1, size)
        for first, second in combinations(starts, 2):
            order = rows.copy()
            order[first : first + size] = rows[second : second + size]
            order[second : second + size] = rows[first : first + size]
            yield (first, second, size), order


def _gains(fields, precision):
    """Return what each swap gains, (n_channels, n_channels), and the distance."""
    mixed = precision @ fields @ fields.T
    products = fields @ fields.T
    own, power, weight = np.diag(mixed), np.diag(products), np.diag(precision)
    change = mixed + mixed.T - own - own[:, np.newaxis]
    weights = weight + weight[:, np.newaxis] - 2 * precision
    powers = power + power[:, np.newaxis] - 2 * products
    return -(2 * change + weights * powers), own.sum()

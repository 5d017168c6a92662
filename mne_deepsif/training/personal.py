"""Training on one subject's forward solution, and on forwards that differ from it."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.csgraph import dijkstra
from scipy.spatial.transform import Rotation

from ..head.bipolar import is_bipolar_coil
from ..head.channels import sensor_positions
from ..head.patterns import make_patterns, make_smoother
from ..network.device import sparse_tensor
from ..network.encoder import backprojection_kernels
from ..network.prior import CorticalPrior, patch_profiles
from .cortical import (
    RADII,
    RADIUS_SHARES,
    SOFT_SHARE,
    SOFT_WIDTH,
    CorticalLeadfield,
    PersonalLeadfield,
    Truth,
    to_tensor,
)

_N_TRUTHS, _N_EXACT = 24, 6  # leadfields that make data; those without an error
_N_PATCHES, _N_PLACES = 12_000, 3000  # fewer patches are learned by heart
_N_AT_ONCE = 64  # patches drawn in one go
_N_NEIGHBOURS = 6  # sensors from which the field beside one is interpolated
_MOVED, _TURNED = (1e-3, 5e-3), (0.5, 3.0)  # m, degrees: coregistration
_MISPLACED = (1.2e-3, 6e-3)  # m, electrodes
_TILTED = 12.0  # degrees, normals
_LEAST_RATIO, _MOST_RATIO = 0.2, 5.0  # of the brain's to the sensors' noise power


class Patches(NamedTuple):
    """Patches to draw sources from.

    Attributes
    ----------
    centre : array of shape (n_patches, 3)
        Position of the middle (m).
    activity : csr_array of shape (n_patches, n_places)
        Activity, 1 in the middle.
    """

    centre: np.ndarray
    activity: sparse.csr_array


def draw_patches(rr, graph, middles, rng, n_patches):
    """Draw patches around places of the cortex; four of ten fall off to their edge.

    Parameters
    ----------
    rr : array of shape (n_places, 3)
        Positions (m).
    graph : csr_array of shape (n_places, n_places)
        Distances between neighbours (m).
    middles : array of int
        Places that may be the middle of a patch.
    rng : Generator
        Random numbers.
    n_patches : int
        How many to draw.

    Returns
    -------
    patches : Patches
        The patches.
    """
    middle = rng.choice(middles, n_patches)
    limits = np.array([(0, 0), *RADII]).T
    kind = rng.choice(len(RADII) + 1, n_patches, p=RADIUS_SHARES)
    radius = 1e-3 * rng.uniform(*limits[:, kind])
    is_soft = rng.random(n_patches) < SOFT_SHARE
    rows, order = [], np.argsort(radius)
    for start in range(0, n_patches, _N_AT_ONCE):  # patches of about the same size
        chosen = order[start : start + _N_AT_ONCE]
        limit = max(radius[chosen[-1]], 1e-4)
        distance = dijkstra(graph, indices=middle[chosen], limit=limit)
        row, place = np.nonzero(distance <= radius[chosen, None])
        patch = chosen[row]
        fall = np.where(is_soft & (radius > 0), 0.5 * np.pi / SOFT_WIDTH, 0)[patch]
        share = distance[row, place] / np.maximum(radius[patch], 1e-9)
        activity = np.cos(fall * share).astype(np.float32)
        rows.append((activity, patch, place))
    activity, patch, place = (np.concatenate(x) for x in zip(*rows, strict=True))
    shape = (n_patches, len(rr))
    return Patches(rr[middle], sparse.csr_array((activity, (patch, place)), shape))


class Sensors(NamedTuple):
    """Sensors of a forward solution.

    Attributes
    ----------
    places : array of shape (n_channels, 3)
        Positions (m).
    axes : array of shape (n_channels, 3)
        A direction that tells gradiometers of one place apart, in any frame.
    ch_types : list of str
        ``'eeg'``, ``'bipolar'``, ``'mag'`` or ``'grad'``.
    """

    places: np.ndarray
    axes: np.ndarray
    ch_types: list


class Draft(NamedTuple):
    """A personal leadfield before the background is known.

    Attributes
    ----------
    assumed : CorticalLeadfield
        The leadfield of the estimates.
    truths : list of tuple
        For each truth, the gain of patches, that of parcels, and the background's share
        of the noise.
    """

    assumed: CorticalLeadfield
    truths: list

    def complete(self, background):
        """Return the personal leadfield.

        Parameters
        ----------
        background : array of shape (n_parcels, n_times)
            Background activity.

        Returns
        -------
        personal : PersonalLeadfield
            The leadfields.
        """
        covariance = np.cov(np.asarray(background[:, ::3], np.float32))
        truths = [_make_truth(*truth, covariance) for truth in self.truths]
        return PersonalLeadfield(self.assumed, truths)


def make_personal_leadfield(leadfield, fwd, parcels, background, scans, seed):
    """Make what training on one forward solution needs.

    Parameters
    ----------
    leadfield : Leadfield
        The leadfield of the estimates.
    fwd : Forward
        The forward solution that it was made of.
    parcels : Parcels
        The parcellation.
    background : array of shape (n_parcels, n_times)
        Background activity.
    scans : bool
        Whether the network reads the scores of a scan.
    seed : int
        Seed of patches and errors.

    Returns
    -------
    personal : PersonalLeadfield
        The leadfields.

    See Also
    --------
    draft_personal_leadfield : The same, before the background is known.
    """
    draft = draft_personal_leadfield(leadfield, fwd, parcels, scans, seed)
    return draft.complete(background)


def draft_personal_leadfield(leadfield, fwd, parcels, scans, seed):
    """Make what training on one forward solution needs, except for the background.

    A quarter of the data come from the forward itself. For the others, the head is
    moved and turned within the sensors, electrodes are misplaced, and normals are
    tilted, each by errors as they are usual.

    Parameters
    ----------
    leadfield : Leadfield
        The leadfield of the estimates.
    fwd : Forward
        The forward solution that it was made of.
    parcels : Parcels
        The parcellation.
    scans : bool
        Whether the network reads the scores of a scan.
    seed : int
        Seed of patches and errors.

    Returns
    -------
    draft : Draft
        The leadfields, to be completed.
    """
    rng = np.random.default_rng(seed)
    rr = np.concatenate([s["rr"][s["vertno"]] for s in fwd["src"]])
    inside = np.flatnonzero(np.concatenate(leadfield.parcel_of_vertex) >= 0)
    graph = leadfield.surface_graph
    patches = draw_patches(rr, graph, inside, rng, _N_PATCHES)
    n_places = min(_N_PLACES, len(inside))
    places = np.sort(rng.choice(inside, n_places, replace=False))
    smoothed = make_smoother(graph)(patches.activity.T.tocsr()).T.tocsr()
    smoothed = smoothed.astype(np.float32)
    area = np.asarray(leadfield.vertex_area.sum(axis=1)).ravel()
    prior, scanning, spread = _make_prior(leadfield, parcels, area)
    gain = torch.as_tensor(leadfield.gain_white)
    assumed = CorticalLeadfield(
        kernels=backprojection_kernels(gain / gain.square().mean().sqrt()).float(),
        scanning=scanning if scans else None,
        prior=prior,
        spread=sparse_tensor(spread[places]),
        rr=to_tensor(rr[places]),
        centre=to_tensor(patches.centre),
        targets=torch.as_tensor(smoothed[:, places].toarray()).half(),
        power=to_tensor(smoothed.power(2).sum(axis=1) * (n_places / len(inside))),
        inside=torch.ones(n_places),
    )
    moments = (sparse.diags_array(area) @ patches.activity.T).astype(np.float32)
    exact = _whiten(leadfield, leadfield.vertex_gain, moments)
    truths = [(*exact, _draw_share(rng)) for _ in range(_N_EXACT)]
    for gain in _draw_gains(leadfield, fwd, rng, _N_TRUTHS - _N_EXACT):
        truths.append((*_whiten(leadfield, gain, moments), _draw_share(rng)))
    return Draft(assumed, truths)


def _make_prior(leadfield, parcels, area):
    """Return the prior, a scan, and the matrix from coefficients to activity (A/m)."""
    patterns = make_patterns(leadfield)
    gain = patterns.gain_of(leadfield.whitener)
    unit = np.sqrt(np.mean(np.square(gain.fine)))
    prior = CorticalPrior(
        to_tensor(gain.fine / unit),
        torch.as_tensor(gain.parcel),
        to_tensor(gain.uniform / unit),
        to_tensor(patch_profiles(parcels.adjacency)),
    )
    scanning = prior.scan_kernels(
        to_tensor(gain.points / unit), torch.as_tensor(gain.owner)
    )
    inverse = np.divide(1, area, out=np.zeros_like(area), where=area > 0)
    return prior, scanning, (sparse.diags_array(inverse) @ patterns.activity).tocsr()


def _whiten(leadfield, gain, moments):
    """Return the whitened gain of patches and that of parcels, which background has."""
    white = leadfield.whitener @ gain
    patch_gain = (white.astype(np.float32) @ moments).T
    # only its shape counts: with a size of 1, amplitudes are those over the noise
    patch_gain /= np.sqrt(np.mean(np.square(patch_gain)))
    return to_tensor(patch_gain).half(), white @ leadfield.vertex_area


def _draw_share(rng):
    """Draw the share of noise that is brain noise: none in half of the cases."""
    if rng.random() >= 0.5:
        return 0.0
    ratio = np.exp(rng.uniform(np.log(_LEAST_RATIO), np.log(_MOST_RATIO)))
    return ratio / (1 + ratio)


def _make_truth(patch_gain, background, share, covariance):
    """Make what is whitened a truth; some of its noise is of the brain."""
    power = np.trace(background @ covariance @ background.T) / len(background)
    return Truth(
        patch_gain=patch_gain,
        background=to_tensor(background * np.sqrt(share / power)),
        noise=to_tensor(np.sqrt(1 - share) * np.eye(len(background))),
    )


# ---------------------------------------------------------------------- errors


def _draw_gains(leadfield, fwd, rng, n_gains):
    """Yield gains (n_channels, n_vertices) that may be true, projected."""
    sensors = read_sensors(fwd, leadfield.ch_names, leadfield.ch_types)
    free = _free_gain(fwd, leadfield.ch_names)
    for _ in range(n_gains):
        nn = leadfield.normals
        if free is None:
            gain = leadfield.vertex_gain
        else:
            tilt = np.tan(np.deg2rad(rng.uniform(0, _TILTED)))
            nn = nn + tilt * rng.normal(size=nn.shape)
            nn /= np.linalg.norm(nn, axis=1, keepdims=True)
            gain = np.einsum("cvk,vk->cv", free, nn)
        moved = displace(sensors, draw_shifts(sensors, rng)) @ gain
        yield leadfield.projector @ moved


def _free_gain(fwd, ch_names):
    """Return the gain along the axes of the head: (n_channels, n_vertices, 3) or None.

    None if the forward solution has a fixed orientation.
    """
    if fwd["sol"]["data"].shape[1] == fwd["nsource"]:
        return None
    rows = [fwd["sol"]["row_names"].index(name) for name in ch_names]
    gain = fwd["sol"]["data"][rows].reshape(len(rows), -1, 3)
    axes = fwd["source_nn"].reshape(-1, 3, 3)  # of each vertex
    return np.einsum("cva,vak->cvk", gain, axes)


def read_sensors(fwd, ch_names, ch_types):
    """Return the sensors of a forward solution, in the order of some names."""
    positions = sensor_positions(fwd["info"])
    chs = {ch["ch_name"]: ch for ch in fwd["info"]["chs"]}
    places, axes, types = [], [], []
    for name, ch_type in zip(ch_names, ch_types, strict=True):
        # differences of electrodes have no neighbours
        bipolar = is_bipolar_coil(chs[name])
        types.append("bipolar" if bipolar else ch_type)
        places.append(positions[name])
        axes.append([1.0, 0, 0] if ch_type == "eeg" else chs[name]["loc"][3:6])
    return Sensors(np.array(places), np.array(axes), types)


def draw_shifts(sensors, rng):
    """Draw how far sensors are from where they are assumed: (n_channels, 3), m.

    All move with the head; electrodes also by themselves.
    """

    def direction(n):
        vectors = rng.normal(size=(n, 3))
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    places = sensors.places
    angle = np.deg2rad(rng.uniform(*_TURNED))
    turn = Rotation.from_rotvec(angle * direction(1)[0])
    centre = places.mean(axis=0)
    shifts = turn.apply(places - centre) - (places - centre)
    shifts += rng.uniform(*_MOVED) * direction(1)
    eeg = np.array(sensors.ch_types) == "eeg"
    sizes = rng.uniform(*_MISPLACED, (eeg.sum(), 1))
    shifts[eeg] += sizes * direction(eeg.sum())
    return shifts


def displace(sensors, shifts):
    """Return the matrix that turns data of sensors into those of displaced ones.

    The field beside a sensor is interpolated linearly between it and the nearest ones
    of its type and direction.

    Parameters
    ----------
    sensors : Sensors
        The sensors.
    shifts : array of shape (n_channels, 3)
        Displacement of each sensor (m); only its part along the sensors counts.

    Returns
    -------
    matrix : array of shape (n_channels, n_channels)
        The interpolation; rows sum to 1.
    """
    places, axes, ch_types = sensors
    ch_types, matrix = np.array(ch_types), np.eye(len(places))
    for index, shift in enumerate(shifts):
        alike = (ch_types == ch_types[index]) & (axes @ axes[index] > 0.7)
        alike &= ch_types != "bipolar"
        alike[index] = False
        others = np.flatnonzero(alike)
        offsets = places[others] - places[index]
        nearest = np.argsort(np.linalg.norm(offsets, axis=1))[:_N_NEIGHBOURS]
        if len(nearest) < 3:  # nothing to interpolate from
            continue
        # without the direction away from the head, in which neighbours hardly differ
        weights = shift @ np.linalg.pinv(offsets[nearest], rcond=0.4)
        matrix[index, others[nearest]] += weights
        matrix[index, index] -= weights.sum()
    return matrix

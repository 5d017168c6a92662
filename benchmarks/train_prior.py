"""Train the generic weights through the last step: heads, training, export.

Steps, each of which can be run again, alone or after others::

    python benchmarks/train_prior.py heads --out /tmp/prior
    python benchmarks/train_prior.py train --out /tmp/prior
    python benchmarks/train_prior.py export --out /tmp/prior --fname X.safetensors

The network's answer is the prior of a minimum norm over patterns finer than parcels. So
the loss is that of the minimum norm's estimate. ``heads`` stores gains of all
orientations at the places of ico4. ``train`` draws from them a leadfield that is
assumed, and a true one that differs. It can be stopped, and goes on where it was.
``export`` also corrects the checksum in a ``weights.json`` beside the file.

The training starts from a file of weights, see ``--start``. The generic weights were
made in steps, which ``doc/decisions.rst`` lists with their commits.

Nothing here reads the data that the benchmarks test on.
"""

import argparse
import hashlib
import json
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import mne
import numpy as np
import scipy.linalg
import torch
from options import SMALL_LIBRARY, parse_args
from scipy import sparse
from train_generic import (
    STANDARD,
    displaced_parcels,
    eeg_info,
    farthest_points,
    folded_normals,
    meg_info,
    misplaced,
    random_head,
)

from mne_deepsif import Model
from mne_deepsif.cache import whole_file
from mne_deepsif.head.mesh import mesh_edges, vertex_areas
from mne_deepsif.head.parcels import make_template_parcels
from mne_deepsif.head.patterns import make_smoother, smooth_gains
from mne_deepsif.head.template import (
    make_template_bem,
    make_template_source_space,
    make_template_trans,
)
from mne_deepsif.inverse.files import write_model
from mne_deepsif.inverse.weights import load_model
from mne_deepsif.network.architectures import make_network
from mne_deepsif.network.device import resolve_precision, sparse_tensor
from mne_deepsif.network.encoder import backprojection_kernels, encode_windows
from mne_deepsif.network.prior import CorticalPrior, patch_profiles
from mne_deepsif.simulation.library import make_library
from mne_deepsif.training.cortical import (
    CorticalLeadfield,
    Truth,
    draw_samples,
    estimation_loss,
    to_tensor,
    window_lengths,
)
from mne_deepsif.training.personal import Patches, draw_patches

HEAD_SEED = 777
VALIDATION_SEED = 99
N_HALF = 2562  # vertices of a hemisphere in ico4: the first ones of fsaverage5
N_RIGHT = 10_242  # first vertex of the right hemisphere in the parcels' mapping
SFREQ, N_TIMES = 125.0, 64  # of the network
STEPS = ("heads", "train", "export")


@dataclass(frozen=True)
class Bank:
    """What is stored of a head.

    Parameters
    ----------
    ico : int
        Resolution of the head models.
    n_helmets : int
        Positions of the MEG helmet.
    n_cortices : int
        Sets of folded normals, and of displaced parcels.
    """

    ico: int = 3
    n_helmets: int = 5
    n_cortices: int = 8


@dataclass(frozen=True)
class Options:
    """How to train.

    Parameters
    ----------
    minutes : float
        Processor time; the learning rate falls to zero along a cosine over it.
    learning_rate : float
        Largest learning rate, reached after ``n_warmup`` updates. Layers that read a
        scan, which start untrained, learn five times as fast.
    seed : int
        Seed of leadfields and samples.
    batch_size : int
        Samples of each leadfield in an update.
    n_leadfields : int
        Leadfields of an update.
    n_pool : int
        The latest leadfields, from which those of an update are chosen, so that not
        each update has to draw some.
    draw_every : int
        Updates after which a new leadfield replaces the oldest of the pool.
    n_patches : int
        Patches of each head.
    n_warmup : int
        Updates over which the learning rate rises.
    n_validation : int
        Samples of each leadfield in a validation.
    save_every : int
        Updates between validations (and checkpoints).
    n_updates : int | None
        Stop after so many updates; None stops by time alone.
    """

    minutes: float = 66.0
    learning_rate: float = 5e-4
    seed: int = 0
    batch_size: int = 32
    n_leadfields: int = 3
    n_pool: int = 24
    draw_every: int = 4
    n_patches: int = 6000
    n_warmup: int = 200
    n_validation: int = 48
    save_every: int = 100
    n_updates: int | None = None


SMALL_BANK = Bank(ico=2, n_helmets=1, n_cortices=2)
SMALL = dict(n_updates=2, n_pool=2, n_patches=50, batch_size=4, n_validation=4)


# ------------------------------------------------------------------- the heads


def make_heads(out, n_heads, bank):
    """Compute the heads one by one; those that are there are left alone."""
    for index in range(n_heads):
        fname = out / f"head-{index:02d}.npz"
        if fname.exists():
            continue
        start = time.perf_counter()
        arrays = make_head(index, bank)
        with whole_file(fname) as part:
            np.savez(part, **arrays)
        print(f"{fname.name}: {time.perf_counter() - start:.0f} s", flush=True)


def make_head(index, bank):
    """Return the arrays of one head, see :class:`Head`; 0 is the template itself."""
    rng = np.random.default_rng([HEAD_SEED, index])
    shape, layers, ratio, scalp = random_head(rng, deform=index > 0)
    whole = make_template_source_space(**shape)
    src = _ico4(whole)
    info = eeg_info(rng, 0.002)
    trans = make_template_trans(info, **shape)
    if index:
        trans["trans"] = misplaced(trans["trans"], rng)
    make_bem = partial(make_template_bem, **shape, **layers, ico=bank.ico)
    # a second skull conducts half as much to twice as much as the first
    factors = 1.0, np.exp(rng.uniform(np.log(0.5), np.log(2)))
    skulls = [scalp * ratio * factor for factor in factors]
    bems = [make_bem(conductivity=(scalp, skull, scalp)) for skull in skulls]
    meg_bem = make_bem(conductivity=(0.3,))
    to_head = mne.transforms.invert_transform(trans)
    surface = mne.transforms.apply_trans(to_head, bems[0]["surfs"][0]["rr"])
    eeg = _eeg_gains(info, trans, src, bems, rng)
    meg = [_meg_gains(surface, trans, src, meg_bem, rng) for _ in range(bank.n_helmets)]
    normals, parcel = _cortices(whole, index, bank.n_cortices, rng)
    return dict(
        eeg=eeg,
        electrodes=np.array([channel["loc"][:3] for channel in info["chs"]]),
        names=np.array(info.ch_names),
        meg=np.array(meg),
        # gains are in head coordinates
        normals=(normals @ trans["trans"][:3, :3]).astype(np.float32),
        parcel=parcel,
        rr=np.concatenate([s["rr"][:N_HALF] for s in whole]).astype(np.float32),
    )


def _ico4(src):
    """Return a source space of the first vertices alone, which are those of ico4."""
    src = src.copy()
    for s in src:
        s["inuse"][N_HALF:] = 0
        s.update(vertno=np.arange(N_HALF), nuse=N_HALF)
    return src


def _free_gain(info, trans, src, bem):
    """Return the gain of three orientations: (n_channels, n_places, 3)."""
    fwd = mne.make_forward_solution(
        info, trans, src, bem, mindist=0.0, on_inside="ignore"
    )
    gain = fwd["sol"]["data"]
    return gain.reshape(len(gain), -1, 3).astype(np.float32)


def _eeg_gains(info, trans, src, bems, rng):
    """Return two gains to assume, then two that may be true, of two skulls each.

    True electrodes are 1.2 to 6 mm from where they are assumed, and the cap is off.
    """
    gains = [_free_gain(info, trans, src, bem) for bem in bems]
    for bem in bems:
        placed = info.copy()
        for channel in placed["chs"]:
            shift = rng.normal(size=3)
            shift /= np.linalg.norm(shift)
            channel["loc"][:3] += 4e-3 * shift * rng.uniform(0.3, 1.5)
        gains.append(_free_gain(placed, _moved(trans, rng), src, bem))
    return np.array(gains)


def _meg_gains(surface, trans, src, bem, rng):
    """Return the gain to assume and the one that may be true, of one helmet."""
    info = meg_info(rng, "neuromag", surface)
    # a network reads parcels, not channels: one kind of coils is enough to train on
    info = mne.pick_info(info, mne.pick_types(info, meg="mag"))
    places = trans, _moved(trans, rng)
    return np.array([_free_gain(info, place, src, bem) for place in places])


def _moved(trans, rng):
    """Return a transform with the error of a coregistration: 1 to 5 mm, 0.5 to 3°."""
    size, degrees = rng.uniform(1e-3, 5e-3), rng.uniform(0.5, 3)
    move = mne.transforms.rotation(*np.deg2rad(degrees * rng.normal(size=3) / 3**0.5))
    shift = rng.normal(size=3)
    move[:3, 3] = size * shift / np.linalg.norm(shift)
    moved = trans.copy()
    moved["trans"] = trans["trans"] @ move
    return moved


def _cortices(src, index, n_cortices, rng):
    """Return normals and parcels of cortices with other folds; the first is plain."""
    parcels = make_template_parcels()
    normals, mappings = [], []
    for number in range(n_cortices):
        nn, moved = [s["nn"] for s in src], parcels
        if number and rng.random() < 0.8:
            nn = folded_normals(src, rng, rng.uniform(0.0015, 0.0045))
        if number and index:
            moved = displaced_parcels(parcels, rng)
        normals.append(np.concatenate([x[:N_HALF] for x in nn]))
        # places that are thinned out keep their parcel: here all of them are used
        mappings.append(np.where(moved.mapping < 0, parcels.mapping, moved.mapping))
    return np.array(normals), np.array(mappings)[:, _places()]


def _places():
    """Return the rows of the places among all vertices of fsaverage5."""
    return np.concatenate([np.arange(N_HALF), N_RIGHT + np.arange(N_HALF)])


# ---------------------------------------------------------- places and patches


class Mesh(NamedTuple):
    """The places: vertices of ico4, of both hemispheres.

    Attributes
    ----------
    pairs : array of shape (n_edges, 2)
        Neighbours.
    area : array of shape (n_places,)
        Area of each place (m²).
    """

    pairs: np.ndarray
    area: np.ndarray

    def graph(self, rr):
        """Return the distances between neighbours: (n_places, n_places)."""
        i, j = self.pairs.T
        length = np.linalg.norm(rr[i] - rr[j], axis=1)
        entries = np.r_[length, length], (np.r_[i, j], np.r_[j, i])
        return sparse.csr_array(entries, shape=(len(rr), len(rr)))


def make_mesh():
    """Find neighbours and areas of the places.

    The further vertices of fsaverage5 are the midpoints of the edges of ico4: each has
    two neighbours among the first ones, which share its area. (MNE numbers the vertices
    of its own ico4 in another way.)
    """
    pairs, areas = [], []
    for number, s in enumerate(make_template_source_space()):
        edges = mesh_edges(s["tris"])
        edges = edges[(edges[:, 0] < N_HALF) & (edges[:, 1] >= N_HALF)]
        ends = edges[np.argsort(edges[:, 1], kind="stable"), 0].reshape(-1, 2)
        fine = vertex_areas(s["rr"], s["tris"])
        shared = np.bincount(ends.ravel(), np.repeat(fine[N_HALF:] / 2, 2))
        pairs.append(ends + number * N_HALF)
        areas.append(fine[:N_HALF] + shared)
    return Mesh(np.concatenate(pairs), np.concatenate(areas))


@dataclass(frozen=True)
class Head:
    """A head to draw leadfields from.

    Parameters
    ----------
    eeg : array of shape (4, n_electrodes, n_places, 3)
        Gains in head coordinates: two to assume, then two that may be true.
    electrodes : array of shape (n_electrodes, 3)
        Their positions.
    names : array of str, shape (n_electrodes,)
        Their names.
    meg : array of shape (n_helmets, 2, n_magnetometers, n_places, 3)
        For each helmet, the gain to assume, then the one that may be true.
    normals : array of shape (n_cortices, n_places, 3)
        Normals of cortices with other folds.
    parcel : array of shape (n_cortices, n_places)
        Parcels of cortices with other folds; -1 where there is none.
    rr : array of shape (n_places, 3)
        Positions of the places (MRI coordinates).
    mesh : Mesh
        Neighbours and areas of the places.
    patches : Patches
        Patches to draw sources from.
    smoothed : csr_array of shape (n_patches, n_places)
        Their activity, as smooth as estimates are.
    """

    eeg: np.ndarray
    electrodes: np.ndarray
    names: np.ndarray
    meg: np.ndarray
    normals: np.ndarray
    parcel: np.ndarray
    rr: np.ndarray
    mesh: Mesh
    patches: Patches
    smoothed: sparse.csr_array


def read_head(fname, mesh, n_patches):
    """Read a head and draw its patches."""
    with np.load(fname) as file:
        arrays = {name: file[name] for name in file.files}
    middles = np.flatnonzero(make_template_parcels().mapping[_places()] >= 0)
    rng = np.random.default_rng(int(fname.stem.split("-")[1]))
    graph = mesh.graph(arrays["rr"])
    patches = draw_patches(arrays["rr"], graph, middles, rng, n_patches)
    smoothed = make_smoother(graph)(patches.activity.T.tocsr()).T.tocsr()
    return Head(**arrays, mesh=mesh, patches=patches, smoothed=smoothed)


# ------------------------------------------------------------------ leadfields


class Sensors(NamedTuple):
    """Gains and noise of some channels, without a unit.

    Attributes
    ----------
    assumed, true : array of shape (n_channels, n_places)
        The gain that the estimate uses, and the one that makes the data.
    noise : array of shape (n_channels, n_channels)
        Covariance of the sensors' noise.
    """

    assumed: np.ndarray
    true: np.ndarray
    noise: np.ndarray


def _along(gain, normals):
    """Return the gain along normals: (n_channels, n_places)."""
    return np.einsum("cpk,pk->cp", gain, normals)


def _draw_noise(n_channels, rng):
    """Return the noise's covariance: channels differ by a quarter."""
    return np.diag(np.exp(rng.normal(0, 0.25, n_channels)) ** 2)


def draw_cap(head, rng):
    """Return the channels of a usual cap or of spread electrodes, some without bads."""
    kind = rng.random()
    for limit, name in ((0.15, "eeg-19"), (0.3, "eeg-32"), (0.55, "eeg-64")):
        if kind < limit:
            picks = np.flatnonzero(np.isin(head.names, STANDARD[name]))
            break
    else:
        n_channels = int(np.exp(rng.uniform(np.log(19), np.log(128))))
        picks = farthest_points(head.electrodes, n_channels, rng)
    if rng.random() < 0.4:
        order = rng.permutation(picks)
        picks = np.sort(order[int(rng.uniform(0, 0.1) * len(picks)) :])
    return picks


def draw_eeg(head, normals, is_wrong, rng):
    """Draw a cap; ``normals`` are those to assume and the true ones."""
    picks = draw_cap(head, rng)
    assumed = rng.integers(2)
    true = rng.integers(2, 4) if is_wrong else assumed
    gains = [_along(head.eeg[i][picks], nn) for i, nn in zip((assumed, true), normals)]
    gains = [gain - gain.mean(0) for gain in gains]
    scale = 1 / np.sqrt(np.square(gains[0]).mean())
    # without the reference, so that the channels have full rank
    n_channels = len(picks)
    first = np.c_[np.ones(n_channels), np.eye(n_channels)[:, 1:]]
    basis = np.linalg.qr(first)[0][:, 1:].T
    noise = basis @ _draw_noise(n_channels, rng) @ basis.T
    return Sensors(*(basis @ gain * scale for gain in gains), noise)


def draw_meg(head, normals, is_wrong, rng, is_joined):
    """Draw a helmet; beside electrodes, its noise relative to theirs differs."""
    n_channels = head.meg.shape[2]
    order = rng.permutation(n_channels)
    n_used = rng.integers(int(0.91 * n_channels), n_channels + 1)
    picks = np.sort(order[:n_used])
    helmet = head.meg[rng.integers(len(head.meg))]
    which = 0, int(is_wrong)
    gains = [_along(helmet[i][picks], nn) for i, nn in zip(which, normals)]
    scale = np.exp(rng.normal(0, 0.7)) if is_joined else 1.0
    scale /= np.sqrt(np.square(gains[0]).mean())
    return Sensors(*(gain * scale for gain in gains), _draw_noise(n_used, rng))


def draw_sensors(head, kind, assumed, rng):
    """Draw EEG, MEG or both, with normals (n_places, 3) to assume.

    Three of four times the true forward is another one.
    """
    direction = rng.normal(size=assumed.shape)  # no surface is known exactly
    true = assumed + direction * np.tan(np.deg2rad(rng.uniform(0, 12)))
    true /= np.linalg.norm(true, axis=1, keepdims=True)
    is_wrong = rng.random() < 0.75
    normals = assumed, true if is_wrong else assumed
    parts = []
    if kind in ("eeg", "both"):
        parts.append(draw_eeg(head, normals, is_wrong, rng))
    if kind in ("mag", "both"):
        parts.append(draw_meg(head, normals, is_wrong, rng, kind == "both"))
    assumed, true, noise = zip(*parts)
    noise = scipy.linalg.block_diag(*noise)
    noise *= len(noise) / np.trace(noise)
    return Sensors(np.concatenate(assumed), np.concatenate(true), noise)


class Simulation(NamedTuple):
    """What is the same for all heads.

    Attributes
    ----------
    areas : array of shape (n_parcels,)
        Areas of the parcels (m²).
    profiles : tensor of shape (n_parcels, n_parcels)
        See :func:`patch_profiles`.
    waveforms : tensor of shape (n_waveforms, n_wave_times)
        Time courses of sources.
    background : tensor of shape (n_times, n_parcels)
        Background activity.
    covariance : array of shape (n_parcels, n_parcels)
        Its covariance.
    """

    areas: np.ndarray
    profiles: torch.Tensor
    waveforms: torch.Tensor
    background: torch.Tensor
    covariance: np.ndarray


def make_simulation(library):
    """Return what is the same for all heads; ``library`` are options."""
    parcels = make_template_parcels()
    library = make_library(parcels, **library)
    every_third = np.asarray(library.background[:, ::3], np.float32)
    return Simulation(
        parcels.areas,
        to_tensor(patch_profiles(parcels.adjacency)),
        torch.as_tensor(np.array(library.waveforms)).float(),
        torch.as_tensor(np.ascontiguousarray(library.background.T)),
        np.cov(every_third).astype(np.float32),
    )


def draw_leadfield(head, simulation, rng, kind=None):
    """Draw what estimates assume and the truth of a head.

    ``kind`` is "eeg", "mag", "both" or by chance.
    """
    # most are EEG, of which there are more kinds than of helmets
    kind = kind or rng.choice(["eeg", "mag", "both"], p=[0.5, 0.35, 0.15])
    normals = head.normals[rng.integers(len(head.normals))].astype(float)
    parcel = head.parcel[rng.integers(len(head.parcel))]
    sensors = draw_sensors(head, kind, normals, rng)
    to_parcels = _parcel_moments(parcel, simulation.areas)
    background = sensors.true @ to_parcels
    # ongoing activity is in four of five measured covariances
    ratio = 10 ** rng.uniform(-0.7, 1.5) if rng.random() < 0.8 else 0.0
    brain = background @ simulation.covariance @ background.T
    level = ratio * len(brain) / np.trace(brain)
    covariance = sensors.noise + level * brain
    scale = len(brain) / np.trace(covariance)
    whitener = estimated_whitener(scale * covariance, rng)
    gain_white = whitener @ (sensors.assumed @ to_parcels)
    gain_white /= np.sqrt(np.square(gain_white).mean())
    used, smooth = np.flatnonzero(parcel >= 0), make_smoother(head.mesh.graph(head.rr))
    scales = smooth_gains((whitener @ (sensors.assumed * head.mesh.area)).T, smooth)
    prior = make_prior(scales[1][used], parcel[used], simulation.profiles)
    points = to_tensor(np.stack([gain[used] for gain in scales]))
    patch_gain = head.patches.activity @ (sensors.true * head.mesh.area).T
    targets = head.smoothed[:, used]
    assumed = CorticalLeadfield(
        kernels=backprojection_kernels(torch.as_tensor(gain_white)).float(),
        scanning=prior.scan_kernels(points, torch.as_tensor(parcel[used])),
        prior=prior,
        spread=sparse_tensor(_spread(smooth, used, parcel, len(simulation.areas))),
        rr=to_tensor(head.rr[used]),
        centre=to_tensor(head.patches.centre),
        targets=targets,
        power=to_tensor(targets.power(2).sum(axis=1)),
    )
    truth = Truth(
        patch_gain=to_tensor(patch_gain @ whitener.T),
        background=to_tensor(whitener @ background * np.sqrt(scale * level)),
        noise=to_tensor(whitener @ np.linalg.cholesky(scale * sensors.noise)),
    )
    return assumed, truth


def _spread(smooth, used, parcel, n_parcels):
    """Return the matrix from coefficients of places and parcels to activity."""
    smoother = smooth(sparse.eye_array(len(parcel), format="csr"))[used][:, used]
    entries = np.ones(len(used)), (np.arange(len(used)), parcel[used])
    whole = sparse.csr_array(entries, shape=(len(used), n_parcels))
    return sparse.hstack([smoother, smoother @ whole])


def _parcel_moments(parcel, areas):
    """Return the moments of places for uniform activity of parcels.

    As in a leadfield of the package, the places of a parcel share its area.
    """
    used = np.flatnonzero(parcel >= 0)
    counts = np.bincount(parcel[used], minlength=len(areas))
    values = (areas / np.maximum(counts, 1))[parcel[used]]
    shape = (len(parcel), len(areas))
    return sparse.csr_array((values, (used, parcel[used])), shape=shape)


def estimated_whitener(covariance, rng):
    """Return the whitener of a covariance that is estimated from a few samples.

    Between three times as many samples as channels and 20000.
    """
    n_channels = len(covariance)
    most, fewest = np.log(20_000), np.log(3 * n_channels + 50)
    n_samples = int(np.exp(rng.uniform(fewest, most)))
    noise = rng.standard_normal((n_channels, n_samples), dtype=np.float32)
    samples = np.linalg.cholesky(covariance) @ noise
    values, vectors = np.linalg.eigh(samples @ samples.T / n_samples)
    return (vectors / np.sqrt(np.maximum(values, 1e-6 * values.max()))).T


def make_prior(gain, parcel, profiles):
    """Make the prior whose fine patterns are places of whitened gain (n_used, rank)."""
    fine = to_tensor(gain.T / np.sqrt(np.square(gain).mean()))
    parcel = torch.as_tensor(parcel.astype(np.int64))
    uniform = torch.zeros(len(fine), len(profiles)).index_add_(1, parcel, fine)
    return CorticalPrior(fine, parcel, uniform, profiles)


# -------------------------------------------------------------------- training


def start_network(start):
    """Return a network with a model's weights; what is new starts at its default."""
    sizes = start.network.sizes
    network = make_network(
        "compact",
        start.network.embed.in_features,
        start.parcels.n_parcels,
        N_TIMES,
        **sizes | {"share_width": 64, "scan_width": 128},
    )
    torch.nn.init.zeros_(network.share[2].bias)  # new shares of one half
    network.load_state_dict(start.network.state_dict(), strict=False)
    return network.train()


class Training:
    """Trains a network; leadfields and samples are drawn while it does.

    All that an update draws follows from the seed and its number. So a training that
    was stopped goes on as if it had not been; only the learning rate follows the clock.

    Parameters
    ----------
    out : Path
        Folder with the heads; checkpoint and log are written there.
    start : Model
        Where to start.
    held_out : int
        The head to validate on. If it is the only one, training sees it too.
    options : Options
        How to train.
    library : dict
        Options of the library of time courses.
    """

    def __init__(self, out, start, held_out, options, library):
        self.out, self.options = out, options
        mesh = make_mesh()
        heads = {
            int(fname.stem.split("-")[1]): read_head(fname, mesh, options.n_patches)
            for fname in sorted(out.glob("head-*.npz"))
        }
        if held_out not in heads:
            raise ValueError(
                f"--validation must be a head in {out}, one of {sorted(heads)}, got "
                f"{held_out}. Make more with the step heads and --number."
            )
        self.head_numbers = sorted(heads.keys() - {held_out}) or [held_out]
        self.heads, self.simulation = heads, make_simulation(library)
        self.dtype = resolve_precision("auto", "cpu")
        self.network = start_network(start)
        untrained = list(self.network.scan.parameters())
        chosen = {id(one) for one in untrained}
        trained = [p for p in self.network.parameters() if id(p) not in chosen]
        self.optimizer = torch.optim.AdamW(
            [dict(params=trained, factor=1.0), dict(params=untrained, factor=5.0)],
            lr=options.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=1e-6,
        )
        rng = np.random.default_rng(VALIDATION_SEED)
        self.validation = [
            draw_leadfield(heads[held_out], self.simulation, rng, kind)
            for kind in ("eeg", "mag", "eeg", "both")
        ]
        self.pool, self.update, self.seconds, self.losses = {}, 0, 0.0, []
        self.history = []
        self.recipe = {
            "script": "benchmarks/train_prior.py",
            "start": start.recipe,
            "heads": {"training": self.head_numbers, "validation": [held_out]},
            "options": asdict(options),
        }
        if self.checkpoint.exists():
            self._load()

    @property
    def checkpoint(self):
        """File of the state."""
        return self.out / "checkpoint.pt"

    def run(self):
        """Train until the time is over."""
        if not self.history:
            self._validate()
        start = time.process_time() - self.seconds
        while not self._is_done():
            self._train_step()
            self.seconds = time.process_time() - start
            if self.update % self.options.save_every == 0:
                self._validate_and_save()
        if self.history[-1]["update"] < self.update:
            self._validate_and_save()

    def _is_done(self):
        n_updates = self.options.n_updates
        return self._share_done() >= 1 or self.update == n_updates

    def _share_done(self):
        return self.seconds / (60 * self.options.minutes)

    def _train_step(self):
        options = self.options
        rate = options.learning_rate * min(1, (self.update + 1) / options.n_warmup)
        rate *= 0.5 * (1 + np.cos(np.pi * self._share_done()))
        for group in self.optimizer.param_groups:
            group["lr"] = float(
                rate * group["factor"]
            )  # a checkpoint holds plain numbers
        # NumPy's generator chooses, torch's draws samples
        rng = np.random.default_rng([options.seed, 0, self.update])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        pool = self._fill_pool()
        # estimates look at whole windows and at quarters of them
        n_times = int(rng.choice(window_lengths(N_TIMES)))
        n_chosen = min(options.n_leadfields, len(pool))
        chosen = rng.choice(len(pool), n_chosen, replace=False)
        losses = [
            self._loss(pool[i], options.batch_size, n_times, generator) for i in chosen
        ]
        loss = sum(losses) / len(losses)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.update += 1
        self.losses.append(float(loss.detach()))

    def _fill_pool(self):
        """Return the latest leadfields: one more at each update until it is full."""
        n_pool, every = self.options.n_pool, self.options.draw_every
        last = min(self.update, n_pool - 1)
        last += max(0, self.update // every - (n_pool - 1) // every)
        numbers = range(max(0, last + 1 - n_pool), last + 1)
        self.pool = {n: self.pool.get(n) or self._draw_leadfield(n) for n in numbers}
        return list(self.pool.values())

    def _draw_leadfield(self, number):
        rng = np.random.default_rng([self.options.seed, 1, number])
        head = self.heads[int(rng.choice(self.head_numbers))]
        return draw_leadfield(head, self.simulation, rng)

    def _loss(self, pair, n_batch, n_times, generator):
        leadfield, truth = pair
        simulation, sizes = self.simulation, self.network.sizes
        samples = draw_samples(
            truth,
            simulation.waveforms,
            simulation.background,
            SFREQ,
            n_batch,
            n_times,
            generator,
        )
        encoded = encode_windows(
            samples.data,
            leadfield.kernels,
            sizes["n_components"],
            scanning=leadfield.scanning,
            exact=False,
        )
        is_short = self.dtype is torch.bfloat16
        with torch.autocast("cpu", dtype=self.dtype, enabled=is_short):
            answer = self.network(encoded.X)
        return estimation_loss(
            answer, leadfield, encoded.data, encoded.courses, samples
        )

    @torch.inference_mode()
    def _validate(self):
        """Add the losses of short and of long windows to the history."""
        self.network.eval()
        generator = torch.Generator().manual_seed(7)  # the same samples each time
        found = [
            [
                float(self._loss(one, self.options.n_validation, n, generator))
                for n in (16, 64)
            ]
            for one in self.validation
        ]
        self.network.train()
        short, long = np.mean(found, axis=0).round(4).tolist()
        line = {
            "update": self.update,
            "loss": round(float(np.mean(self.losses)), 4) if self.losses else None,
            "validation": {"16 samples": short, "64 samples": long},
            "seconds": round(self.seconds, 1),
        }
        self.losses = []
        self.history.append(line)
        print(json.dumps(line), flush=True)

    def _validate_and_save(self):
        self._validate()
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sizes": self.network.sizes,
            "update": self.update,
            "seconds": self.seconds,
            "history": self.history,
            "recipe": self.recipe,
        }
        with whole_file(self.checkpoint) as part:
            torch.save(state, part)
        lines = [json.dumps(line) + "\n" for line in self.history]
        (self.out / "log.jsonl").write_text("".join(lines))

    def _load(self):
        state = torch.load(self.checkpoint, weights_only=True)
        if state["recipe"]["options"] != self.recipe["options"]:
            raise ValueError(
                f"The checkpoint {self.checkpoint} was written with other options "
                f"({state['recipe']['options']}). Use these again, or another folder."
            )
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name in ("update", "seconds", "history", "recipe"):
            setattr(self, name, state[name])


# ---------------------------------------------------------------------- export


def export(out, fname):
    """Write the trained network as a model file, in half precision."""
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    parcels, weights = make_template_parcels(), state["network"]
    n_features = weights["embed.weight"].shape[1]
    network = make_network(
        "compact", n_features, parcels.n_parcels, N_TIMES, **state["sizes"]
    )
    network.load_state_dict(weights)
    history = [
        (line["update"], round(sum(line["validation"].values()) / 2, 4))
        for line in state["history"]
    ]
    model = Model(
        network=network.eval(),
        encoder="backprojection",
        parcels=parcels,
        sfreq=SFREQ,
        n_times=N_TIMES,
        recipe=state["recipe"]
        | {"n_updates": state["update"], "seconds": state["seconds"]},
        history=history,
        metrics={"error on a head never trained on": history[-1][1]},
    )
    write_model(model, fname, {}, overwrite=True, dtype=np.float16)
    _register(fname)


def _register(fname):
    """Correct the checksum of a file in the registry beside it, if it is there."""
    registry = fname.with_name("weights.json")
    if not registry.exists():
        return
    entries = json.loads(registry.read_text())
    for entry in entries.values():
        if entry["file"] == fname.name:
            entry["sha256"] = hashlib.sha256(fname.read_bytes()).hexdigest()
    registry.write_text(json.dumps(entries, indent=1) + "\n")


def main():
    default = Options()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", nargs="+", choices=STEPS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--number", type=int, default=20, help="heads: how many")
    parser.add_argument("--start", default="generic", help="train: name or file")
    parser.add_argument("--minutes", type=float, default=default.minutes)
    parser.add_argument("--learning-rate", type=float, default=default.learning_rate)
    parser.add_argument("--validation", type=int, help="train: head (default: last)")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--fname", type=Path, help="export: the file to write")
    args = parse_args(parser, smoke=True)
    if "export" in args.step and args.fname is None:
        parser.error("export needs --fname.")
    args.out.mkdir(parents=True, exist_ok=True)
    mne.set_log_level("ERROR")
    torch.set_num_threads(1)  # processor time is what limits a training
    torch.set_flush_denormal(True)
    for step in args.step:
        run_step(step, args)


def run_step(step, args):
    n_heads = 1 if args.smoke else args.number
    if step == "heads":
        make_heads(args.out, n_heads, SMALL_BANK if args.smoke else Bank())
    elif step == "train":
        options = Options(args.minutes, args.learning_rate, args.seed)
        options = replace(options, **SMALL) if args.smoke else options
        held_out = n_heads - 1 if args.validation is None else args.validation
        library = SMALL_LIBRARY if args.smoke else dict(sfreq=SFREQ)
        Training(args.out, load_model(args.start), held_out, options, library).run()
    else:
        export(args.out, args.fname)


if __name__ == "__main__":
    main()

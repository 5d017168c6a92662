"""Make the generic weights: heads, a bundle of them, and a model file.

Steps, each of which can be run again, alone or after others::

    python -m benchmarks.making.weights heads --out /tmp/prior
    python -m benchmarks.making.weights bundle --out /tmp/prior
    python -m mne_deepsif.training /tmp/prior/bundle.npz /tmp/prior/run
    python -m benchmarks.making.weights export --out /tmp/prior --fname X.safetensors

The network's answer is the prior of a minimum norm over patterns finer than parcels. So
the loss is that of the minimum norm's estimate. ``heads`` stores gains of all
orientations at the places of ico4. ``bundle`` packs some heads and a library of time
courses into one file, which is all that the training reads: it can be done on another
machine. ``export`` also corrects the checksum in a ``weights.json`` beside the file.

The generic weights were made in steps, which ``doc/decisions.rst`` lists with their
commits. Nothing here reads the data that the benchmarks test on.
"""

import argparse
import hashlib
import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import mne
import numpy as np
from scipy import sparse

from mne_deepsif import Model
from mne_deepsif.cache import whole_file
from mne_deepsif.head.mesh import mesh_edges, vertex_areas
from mne_deepsif.head.parcels import make_template_parcels
from mne_deepsif.head.patterns import SCALES, smoothing_steps
from mne_deepsif.head.template import (
    make_template_bem,
    make_template_source_space,
    make_template_trans,
)
from mne_deepsif.inverse.files import write_model
from mne_deepsif.network.prior import patch_profiles
from mne_deepsif.simulation.library import make_library
from mne_deepsif.training.bundle import N_EEG, N_MEG, compress_gains, save_bundle
from mne_deepsif.training.generic import (
    N_TIMES,
    SFREQ,
    read_weights,
    start_network,
)

from ..options import SMALL_LIBRARY, parse_args
from .heads import (
    STANDARD,
    displaced_parcels,
    eeg_info,
    folded_normals,
    meg_info,
    misplaced,
    random_head,
)

HEAD_SEED = 777
N_HALF = 2562  # vertices of a hemisphere in ico4: the first ones of fsaverage5
N_RIGHT = 10_242  # first vertex of the right hemisphere in the parcels' mapping
STEPS = ("heads", "bundle", "export")


@dataclass(frozen=True)
class Bank:
    """What is stored of a head, and of the library.

    Parameters
    ----------
    ico : int
        Resolution of the head models.
    n_helmets : int
        Positions of the MEG helmet.
    n_cortices : int
        Sets of folded normals, and of displaced parcels.
    n_waveforms : int
        Time courses of sources.
    n_times : int
        Samples of background activity.
    """

    ico: int = 3
    n_helmets: int = 5
    n_cortices: int = 8
    n_waveforms: int = 16_000
    n_times: int = 6000


SMALL_BANK = Bank(ico=2, n_helmets=1, n_cortices=2)

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

    def neighbours(self):
        """Return the neighbours of each place, or itself: (n_places, n_most)."""
        pairs = np.concatenate([self.pairs, self.pairs[:, ::-1]])
        place, neighbour = pairs[np.argsort(pairs[:, 0], kind="stable")].T
        n_places = len(self.area)
        counts = np.bincount(place, minlength=n_places)
        column = np.arange(len(place)) - (np.cumsum(counts) - counts)[place]
        neighbours = np.tile(np.arange(n_places)[:, None], counts.max())
        neighbours[place, column] = neighbour
        return neighbours.astype(np.int16)

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


# ---------------------------------------------------------------------- bundle


def bundle_cortex(mesh, library, size):
    """Return what is the same for all heads, as arrays; ``library`` are options."""
    parcels = make_template_parcels()
    library = make_library(parcels, **library)
    n_waveforms = min(size.n_waveforms, len(library.waveforms))
    rng = np.random.default_rng(0)
    picks = np.sort(rng.choice(len(library.waveforms), n_waveforms, replace=False))
    return dict(
        neighbours=mesh.neighbours(),
        area=mesh.area.astype(np.float32),
        parcel_areas=parcels.areas.astype(np.float32),
        middles=np.flatnonzero(parcels.mapping[_places()] >= 0).astype(np.int16),
        profiles=patch_profiles(parcels.adjacency).astype(np.float32),
        scales=np.array(SCALES),
        waveforms=np.array(library.waveforms[picks], np.float32),
        background=np.array(library.background[:, : size.n_times].T, np.float32),
    )


def bundle_head(fname, mesh):
    """Return the arrays of a head for a bundle."""
    with np.load(fname) as file:
        head = {name: file[name] for name in file.files}
    # potentials against the mean of all electrodes
    eeg = head["eeg"] - head["eeg"].mean(axis=1, keepdims=True)
    eeg, eeg_patterns = compress_gains(eeg, N_EEG)
    meg, meg_patterns = compress_gains(head["meg"], N_MEG)
    return dict(
        eeg=eeg,
        eeg_patterns=eeg_patterns,
        meg=meg,
        meg_patterns=meg_patterns,
        electrodes=head["electrodes"].astype(np.float32),
        caps=np.array([np.isin(head["names"], names) for names in STANDARD.values()]),
        normals=head["normals"],
        parcel=head["parcel"].astype(np.int16),
        rr=head["rr"],
        n_smoothings=smoothing_steps(mesh.graph(head["rr"])),
    )


def make_bundle(out, n_heads, library, size):
    """Write the first heads and a library into one file; print its size."""
    mesh = make_mesh()
    fnames = sorted(out.glob("head-*.npz"))[:n_heads]
    heads = {int(one.stem.split("-")[1]): bundle_head(one, mesh) for one in fnames}
    fname = out / "bundle.npz"
    save_bundle(fname, bundle_cortex(mesh, library, size), heads)
    print(f"{fname}: {len(heads)} heads, {fname.stat().st_size / 2**20:.1f} MiB")


# ---------------------------------------------------------------------- export


def export(out, fname):
    """Write the trained network as a model file, in half precision."""
    state, record = read_weights(out / "run")
    parcels = make_template_parcels()
    history = [
        (line["update"], round(sum(line["validation"].values()) / 2, 4))
        for line in record["history"]
    ]
    model = Model(
        network=start_network(parcels.n_parcels, state).eval(),
        encoder="backprojection",
        parcels=parcels,
        sfreq=SFREQ,
        n_times=N_TIMES,
        recipe=record["recipe"]
        | {"n_updates": record["n_updates"], "seconds": record["seconds"]},
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", nargs="+", choices=STEPS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--number", type=int, default=12, help="of heads")
    parser.add_argument("--fname", type=Path, help="export: the file to write")
    args = parse_args(parser, smoke=True)
    if "export" in args.step and args.fname is None:
        parser.error("export needs --fname.")
    args.out.mkdir(parents=True, exist_ok=True)
    mne.set_log_level("ERROR")
    for step in args.step:
        run_step(step, args)


def run_step(step, args):
    bank = SMALL_BANK if args.smoke else Bank()
    n_heads = 1 if args.smoke else args.number
    if step == "heads":
        make_heads(args.out, n_heads, bank)
    elif step == "bundle":
        library = SMALL_LIBRARY if args.smoke else dict(sfreq=SFREQ)
        make_bundle(args.out, n_heads, library, bank)
    else:
        export(args.out, args.fname)


if __name__ == "__main__":
    main()

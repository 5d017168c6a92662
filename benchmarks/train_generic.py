"""Make the embedded generic weights: forward bank, library, training, packing.

Steps, each of which can be run again, alone or after others::

    python benchmarks/train_generic.py forwards --out /tmp/generic
    python benchmarks/train_generic.py library --out /tmp/generic
    python benchmarks/train_generic.py train --out /tmp/generic --steps 36000
    python benchmarks/train_generic.py pack --out /tmp/generic

``train`` can be stopped and goes on where it was; ``pack`` writes into the package (and
its figure into the documentation), or into ``--results``. Nothing here reads the data
that the benchmarks test on: heads, montages, helmet positions, patches, waveforms,
background and noise are drawn from seeds of their own.
"""

import argparse
import json
import os
import sys
import time
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import NamedTuple

import mne
import numpy as np
import scipy.linalg
from options import RESULTS, SMALL_LIBRARY, figures_folder, parse_args
from scipy.spatial import cKDTree
from train_parcels import save_training_set

from mne_deepsif.cache import PACKAGE_DATA
from mne_deepsif.head.leadfield import make_leadfield
from mne_deepsif.head.parcels import make_template_parcels
from mne_deepsif.head.template import (
    make_template_bem,
    make_template_source_space,
    make_template_subject,
    make_template_trans,
)
from mne_deepsif.simulation.library import make_library
from mne_deepsif.training.batches import TrainingLeadfield
from mne_deepsif.training.heads import farthest_points

SEED = 20_261_121
LIBRARY_SEED = 1
N_FOLDS = {"eeg": 2, "meg": 3}  # cortices of each set of sensors of a head
STEPS = ("forwards", "library", "train", "average", "pack")
JOINED = {"eeg-64": "neuromag", "eeg-random0": "mag", "eeg-32": "ctf275"}


class Bank(NamedTuple):
    """Which heads there are, and which of the sensors."""

    recipe: int  # to be raised with every change of what a head is
    n_heads: int  # 0 is the template itself
    validation: dict  # heads that no training sees, and their sensors
    sensors: tuple | None = None  # None: all
    n_vertices: int | None = None  # of each hemisphere, None: all
    ico: int = 3  # resolution of the head models

    def has(self, name):
        """Return whether there are these sensors."""
        return self.sensors is None or name in self.sensors


BANK = Bank(
    recipe=3,
    n_heads=18,
    validation={
        16: "eeg-19 eeg-64 eeg-128 hydrocel-64 mag neuromag ctf275 joint-ctf275",
        17: "eeg-32 eeg-75 eeg-256 hydrocel-128 grad ctf151 joint-neuromag joint-mag",
    },
)
SMALL_BANK = Bank(
    recipe=0,
    n_heads=2,
    validation={1: "eeg-19 mag joint-neuromag"},
    sensors=("eeg-19", "eeg-64", "mag", "neuromag"),
    n_vertices=2562,  # the first ones: those of ico4
    ico=2,
)
SMALL_NETWORK = "--batch-size 8 --width 16 --gate-width 16 --blocks 1"


# ----------------------------------------------------------------------- heads


def random_head(rng, deform):
    """Return keyword arguments of the template's functions for a random head."""
    if not deform:
        return {"affine": None}, {}, 1 / 50, 0.3
    scale = np.diag(np.r_[rng.uniform(0.9, 1.08) * rng.uniform(0.95, 1.05, 3), 1.0])
    shear = np.eye(4)
    shear[:3, :3] += rng.normal(0, 0.02, (3, 3))
    layers = {
        "skull_scale": rng.uniform(0.75, 1.3),
        "scalp_scale": rng.uniform(0.8, 1.25),
    }
    ratio = 1 / np.exp(rng.uniform(np.log(20), np.log(80)))
    scalp = rng.uniform(0.25, 0.45)
    return {"affine": random_warp(rng, shear @ scale)}, layers, ratio, scalp


def random_warp(rng, affine, n_waves=6):
    """Return a smooth deformation of points of shape (n, 3): affine and waves.

    The waves move points by 2 to 5 mm (rms), over wavelengths of 12 to 30 cm. Their
    slopes add up to less than 1, so nothing can fold and the shells stay nested.
    """
    direction = rng.normal(size=(n_waves, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    waves = 2 * np.pi / rng.uniform(0.12, 0.3, (n_waves, 1)) * direction
    amplitude = rng.normal(size=(n_waves, 3))
    amplitude *= rng.uniform(0.002, 0.005) / np.sqrt(np.square(amplitude).sum() / 2)
    phase = rng.uniform(0, 2 * np.pi, n_waves)

    def warp(points):
        moved = points + np.sin(points @ waves.T + phase) @ amplitude
        return mne.transforms.apply_trans(affine, moved)

    return warp


@cache
def template_spheres():
    """Return the registration spheres of both hemispheres (unit radius)."""
    surf = make_template_subject() / "fsaverage5" / "surf"
    points = [mne.read_surface(surf / f"{hemi}.sphere.reg")[0] for hemi in ("lh", "rh")]
    return [rr / np.linalg.norm(rr, axis=1, keepdims=True) for rr in points]


def displaced_parcels(parcels, rng, largest=0.009, n_waves=12):
    """Return parcels as a cortex with other folds would have them.

    Smooth waves (2 to 8 cm) move the parcels along the registration sphere, by 0 to
    9 mm (rms), not at all in a quarter of the cases. At 6 mm the parcels' normals turn
    by 13 degrees (median; a tenth by more than 34). Half of the cortices are thinned to
    a quarter of their vertices or more, as source spaces are.
    """
    amplitude = largest * max(0, rng.uniform(-1 / 3, 1))
    direction = rng.normal(size=(n_waves, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    length = np.exp(rng.uniform(np.log(0.02), np.log(0.08), (n_waves, 1)))
    waves = 2 * np.pi / length * direction
    moves = rng.normal(size=(n_waves, 3))
    moves *= amplitude / np.sqrt(np.square(moves).sum() / 3)
    mapping = []
    for sphere, part in zip(template_spheres(), parcels.by_hemi(), strict=True):
        points = 0.1 * sphere  # a hemisphere's is about 10 cm in radius
        phase = rng.uniform(0, 2 * np.pi, n_waves)
        moved = points + np.sin(points @ waves.T + phase) @ moves
        moved /= np.linalg.norm(moved, axis=1, keepdims=True)
        mapping.append(part[cKDTree(sphere).query(moved)[1]])
    mapping = np.concatenate(mapping)
    kept = rng.uniform(0.25, 1) if rng.random() < 0.5 else 1.0
    mapping = np.where(rng.random(len(mapping)) < kept, mapping, -1)
    return replace(parcels, mapping=mapping)


def folded_normals(src, rng, amplitude, n_waves=40):
    """Return the normals of a cortex with more folds than the template's.

    The template is an average of many, and smooth: within a parcel of an individual
    cortex the normals differ more, so that more of the field cancels. Waves of 1 to 2
    cm move the vertices by ``amplitude`` (m, rms); their normals are taken, not their
    places.
    At 3 mm the normals of a parcel average to a length of .74 (median; template .84,
    MNE's sample subject .71) and turn by 12 degrees (a tenth by more than 28; those of
    the subject by 14 and 29).
    """
    direction = rng.normal(size=(n_waves, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    length = np.exp(rng.uniform(np.log(0.01), np.log(0.02), (n_waves, 1)))
    waves = 2 * np.pi / length * direction
    moves = length * rng.normal(size=(n_waves, 3))
    moves *= amplitude / np.sqrt(np.square(moves).sum() / 2)
    phase = rng.uniform(0, 2 * np.pi, n_waves)
    normals = []
    for s in src:
        rr = s["rr"] + np.sin(s["rr"] @ waves.T + phase) @ moves
        surface = dict(rr=rr, tris=s["tris"], np=len(rr), ntri=len(s["tris"]))
        normals.append(mne.surface.complete_surface_info(surface)["nn"])
    return normals


def with_normals(fwd, normals):
    """Return a fixed-orientation forward along other normals."""
    fwd = fwd.copy()
    for s, nn in zip(fwd["src"], normals, strict=True):
        s["nn"] = nn
    return mne.convert_forward_solution(
        fwd, surf_ori=True, force_fixed=True, use_cps=False
    )


def misplaced(trans, rng):
    """Return a head to MRI transform with the error of a cap put on by landmarks.

    The pitch is the largest one: caps by fiducials and caps by the cortex differ by
    about 8 degrees on the two heads where both are known.
    """
    turn = mne.transforms.rotation(*np.deg2rad(rng.normal(0, [5.0, 2.0, 2.0])))
    turn[:3, 3] = rng.normal(0, 0.004, 3)
    return trans @ turn


# --------------------------------------------------------------------- sensors


def eeg_info(rng, jitter, kind="colin27_1005"):
    """Return the electrodes of a net, displaced by electrode placement noise (m)."""
    positions = mne.channels.make_standard_montage(kind).get_positions()
    names = list(positions["ch_pos"])
    points = np.array([positions["ch_pos"][name] for name in names])
    keep = np.ones(len(names), bool)
    if kind == "colin27_1005":
        # the lowest electrodes (below the ears) are in no usual cap
        keep = points[:, 2] > positions["lpa"][2] - 0.035
        _, first = np.unique(points.round(4), axis=0, return_index=True)
        keep &= np.isin(np.arange(len(names)), first)  # T3 is T7 ...
    placed = points + rng.normal(0, jitter, points.shape)
    ch_pos = {n: p for n, p, k in zip(names, placed, keep, strict=True) if k}
    montage = mne.channels.make_dig_montage(
        ch_pos, **{k: positions[k] for k in ("nasion", "lpa", "rpa", "coord_frame")}
    )
    info = mne.create_info(list(ch_pos), 500.0, "eeg")
    raw = mne.io.RawArray(np.zeros((len(ch_pos), 1)), info, verbose="error")
    raw.set_montage(montage).set_eeg_reference(projection=True)
    return raw.info


def meg_info(rng, system, scalp, n_draws=20):
    """Return a MEG array at a random position over the head.

    The helmet's middle comes over the head's, turned by up to 10 degrees about each
    axis and shifted by up to 20 mm, then pushed away until all coils are clear of the
    scalp by 12 to 22 mm (in head coordinates). Positions that end far above are drawn
    again; where a large head fits none, the lowest of them is taken.
    """
    info = mne.channels.read_meg_canonical_info(system)
    coils = np.array([channel["loc"][:3] for channel in info["chs"]])
    lowest, clearance = np.inf, rng.uniform(0.012, 0.022)
    for _ in range(n_draws):
        trans = mne.transforms.rotation(*np.deg2rad(rng.uniform(-10, 10, 3)))
        shift = rng.normal(size=3)
        shift *= rng.uniform(0, 0.02) / np.linalg.norm(shift)
        start = _middle(scalp[scalp[:, 2] > 0]) - _middle(coils)
        start[2] = scalp[:, 2].max() + 0.02 - coils[:, 2].max()
        trans[:3, 3] = start + shift
        placed = mne.transforms.apply_trans(trans, coils)
        trans[:3, 3] += _push_away(placed, scalp, clearance)
        top = mne.transforms.apply_trans(trans, coils)[:, 2].max()
        if top < lowest:
            lowest, best = top, trans
        if lowest < scalp[:, 2].max() + 0.04:
            break
    with info._unlock():
        info["dev_head_t"] = mne.transforms.Transform("meg", "head", best)
        info["projs"], info["bads"] = [], []
    return info


def _middle(points):
    return (points.min(0) + points.max(0)) / 2


def _push_away(points, scalp, clearance, step=0.002):
    """Return a shift that takes points clear of the scalp, upwards if wedged."""
    tree, push = cKDTree(scalp), np.zeros(3)
    normals = scalp - scalp.mean(0)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    for number in count():
        distance, nearest = tree.query(points + push)
        outward = ((points + push - scalp[nearest]) * normals[nearest]).sum(1)
        close = nearest[np.sign(outward) * distance < clearance]
        if not close.size:
            return push
        # a helmet that is still wedged goes straight up
        direction = normals[close].mean(0) + [0, 0, 0.2 if number < 100 else 2.0]
        push += step * direction / np.linalg.norm(direction)


STANDARD = {
    "eeg-19": "Fp1 Fp2 F7 F3 Fz F4 F8 T7 C3 Cz C4 T8 P7 P3 Pz P4 P8 O1 O2".split(),
    "eeg-32": mne.channels.make_standard_montage("biosemi32").ch_names,
    "eeg-64": mne.channels.make_standard_montage("biosemi64").ch_names,
}


def eeg_subsets(info, rng, n_random=4):
    """Return channel lists by name: standard caps and evenly spread electrodes."""
    names = np.array(info.ch_names)
    points = np.array([channel["loc"][:3] for channel in info["chs"]])
    subsets = {name: np.intersect1d(subset, names) for name, subset in STANDARD.items()}
    sizes = {f"eeg-{size}": size for size in (75, 128, 256)}
    random = np.exp(rng.uniform(np.log(16), np.log(160), n_random)).astype(int)
    sizes |= {f"eeg-random{number}": size for number, size in enumerate(random)}
    for name, size in sizes.items():
        subsets[name] = names[farthest_points(points, size, rng)]
    return subsets


def drop_bads(info, rng, most=0.1):
    """Drop up to a tenth of the channels in half of the cases.

    A third of these lose a channel and its nearest neighbours, the others any.
    """
    n_channels = len(info["chs"])
    n_bads = int(rng.uniform(0, most) * n_channels) if rng.random() < 0.5 else 0
    order = rng.permutation(n_channels)
    if rng.random() < 1 / 3:
        points = np.array([channel["loc"][:3] for channel in info["chs"]])
        order = np.argsort(np.linalg.norm(points - points[order[0]], axis=1))
    return mne.pick_info(info, np.sort(order[n_bads:]))


def add_projectors(info, rng, share=0.3):
    """Add 1 to 3 SSP projectors of low spatial frequency in some of the cases.

    Each channel type has its own. A topography is a vector field linear in space,
    along the channel's direction: the normal of a magnetometer, the base line of a
    planar gradiometer, the position of an electrode.
    """
    if rng.random() > share:
        return
    types = np.array(info.get_channel_types())
    n_projectors = rng.integers(1, 4)
    for kind in np.unique(types):
        picks = np.flatnonzero(types == kind)
        loc = np.array([info["chs"][pick]["loc"] for pick in picks])
        direction = {"eeg": loc[:, :3], "mag": loc[:, 9:12], "grad": loc[:, 3:6]}[kind]
        names = [info.ch_names[pick] for pick in picks]
        fields = rng.normal(size=(n_projectors, 3, 4)) * [1, 10, 10, 10]  # 1/m
        places = np.column_stack([np.ones(len(loc)), loc[:, :3]])
        vectors = np.einsum("pdk,ck,cd->pc", fields, places, direction)
        for vector in np.linalg.qr(vectors.T)[0].T:
            data = dict(
                nrow=1, ncol=len(names), row_names=None, col_names=names, data=[vector]
            )
            data["data"] = np.array(data["data"])
            info["projs"].append(mne.Projection(data=data, desc=f"SSP {kind}"))


# -------------------------------------------------------------------- the bank


def leadfield_of(info, fwd, names, folds, rng):
    """Return the leadfield of some channels, by the path that users take.

    ``folds`` are the parcels and the normals (MRI coordinates) of a cortex.
    """
    parcels, normals = folds
    picked = mne.pick_info(info, mne.pick_channels(info.ch_names, names))
    picked = drop_bads(picked, rng)
    with picked._unlock():
        picked["projs"] = list(picked["projs"])
    add_projectors(picked, rng)
    cov = mne.make_ad_hoc_cov(picked, verbose="error")
    variance = cov.data * np.exp(rng.normal(0, 0.2, len(picked.ch_names))) ** 2
    cov = mne.Covariance(np.diag(variance), cov.ch_names, [], cov["projs"], 0)
    fwd = mne.pick_channels_forward(fwd, picked.ch_names, ordered=True)
    rotation = fwd["mri_head_t"]["trans"][:3, :3]
    fwd = with_normals(fwd, [nn @ rotation.T for nn in normals])
    leadfield = make_leadfield(picked, fwd, cov, parcels=parcels)
    std = np.sqrt(variance)
    return TrainingLeadfield(leadfield.gain / std[:, None], leadfield.whitener * std)


def joined(first, second, rng):
    """Return the leadfield of MEG and EEG together, one of the two with less noise."""
    factor = np.exp(rng.normal(0, 0.8))
    return TrainingLeadfield(
        np.concatenate([first.gain * factor, second.gain]),
        scipy.linalg.block_diag(first.whitener, second.whitener),
    )


def head_leadfields(index, parcels, bank=BANK):
    """Return the leadfields of one head, by the name of the sensors."""
    rng = np.random.default_rng([SEED, index])
    shape, layers, ratio, scalp = random_head(rng, deform=index > 0)
    src = make_template_source_space(**shape)
    for s in src:
        kept = s["vertno"][: bank.n_vertices]
        s["inuse"][kept[-1] + 1 :] = 0
        s.update(vertno=kept, nuse=len(kept))
    conductivity = (scalp, scalp * ratio, scalp)
    bem = make_template_bem(**shape, **layers, conductivity=conductivity, ico=bank.ico)
    leadfields, folds = {}, {}

    def folded(name):  # MEG and EEG that are joined see the same folds
        name = JOINED.get(name, name)
        if name not in folds:
            folds[name] = parcels, [s["nn"] for s in src]
            if index or "~" in name:
                moved = displaced_parcels(parcels, rng)
                amplitude = rng.uniform(0.0015, 0.0045) if rng.random() < 0.75 else 0.0
                folds[name] = moved, folded_normals(src, rng, amplitude)
        return folds[name]

    def add(info, fwd, name, names, kind):
        for number in range(1 if index in bank.validation else N_FOLDS[kind]):
            full = f"{name}~{number}" if number else name
            leadfields[full] = leadfield_of(info, fwd, names, folded(full), rng)

    def add_eeg(info, subsets):
        trans = make_template_trans(info, **shape)
        if index:
            trans["trans"] = misplaced(trans["trans"], rng)
        fwd = mne.make_forward_solution(info, trans, src, bem, mindist=0.0)
        for name, names in subsets.items():
            if bank.has(name):
                add(info, fwd, name, names, "eeg")

    jitter = 0.003 if index else 0.0
    info = eeg_info(rng, jitter)
    add_eeg(info, eeg_subsets(info, rng))
    for size in (64, 128):
        if index in bank.validation and bank.has(f"hydrocel-{size}"):
            kind = "GSN-HydroCel-64_1.0" if size == 64 else f"GSN-HydroCel-{size}"
            net = eeg_info(rng, jitter, kind)
            add_eeg(net, {f"hydrocel-{size}": net.ch_names})

    meg_bem = make_template_bem(**shape, conductivity=(0.3,), ico=bank.ico)
    trans = make_template_trans(info, **shape)
    mri_head = mne.transforms.invert_transform(trans)
    scalp = mne.transforms.apply_trans(mri_head, bem["surfs"][0]["rr"])

    def add_meg(system, suffix=""):
        if not bank.has(system + suffix):
            return
        info = meg_info(rng, system, scalp)
        fwd = mne.make_forward_solution(info, trans, src, meg_bem, mindist=0.0)
        kinds = {"mag": "mag", "grad": "grad"} if system == "neuromag" else {}
        for name, kind in {**kinds, system: True}.items():
            names = [info.ch_names[pick] for pick in mne.pick_types(info, meg=kind)]
            if bank.has(name + suffix):
                add(info, fwd, name + suffix, names, "meg")

    add_meg("neuromag")
    add_meg("neuromag", "-2")  # at another position
    add_meg("ctf275")
    if index in bank.validation:
        add_meg("ctf151")
    for eeg, meg in JOINED.items():
        if bank.has(eeg) and bank.has(meg):
            leadfields[f"joint-{meg}"] = joined(leadfields[meg], leadfields[eeg], rng)
    return leadfields


def make_forwards(out, bank, every=1, first=0):
    """Compute the bank head by head; heads that are there are left alone."""
    parcels = make_template_parcels()
    for index in range(first, bank.n_heads, every):
        fname = out / f"head-{index:02d}.npz"
        if fname.exists() and np.load(fname).get("recipe") == bank.recipe:
            continue
        start = time.perf_counter()
        arrays = {}
        for name, one in head_leadfields(index, parcels, bank).items():
            scale = np.sqrt(np.mean(np.square(one.gain)))
            arrays[f"{name}_gain"] = (one.gain / scale).astype(np.float16)
            arrays[f"{name}_whitener"] = one.whitener.astype(np.float32)
        part = fname.with_suffix(".part")
        with open(part, "wb") as file:
            np.savez(file, seed=[SEED, index], recipe=bank.recipe, **arrays)
        os.replace(part, fname)
        seconds = time.perf_counter() - start
        print(f"{fname.name}: {len(arrays) // 2} leadfields, {seconds:.0f} s", flush=1)


def read_head(out, index):
    """Read the leadfields of one head, by name."""
    with np.load(out / f"head-{index:02d}.npz") as arrays:
        names = [name[: -len("_gain")] for name in arrays if name.endswith("_gain")]
        return {
            name: TrainingLeadfield(
                arrays[f"{name}_gain"].astype(np.float32), arrays[f"{name}_whitener"]
            )
            for name in names
        }


def with_brain_noise(leadfield, activity, rng):
    """Return a leadfield whose noise covariance was estimated from ongoing activity.

    Covariances from baselines hold the brain's own activity, whose strongest patterns a
    whitener then turns down: measured ones look like this, ad-hoc ones do not.

    Parameters
    ----------
    leadfield : TrainingLeadfield
        Leadfield, whitened for the noise of the channels alone.
    activity : array of shape (n_parcels, n_parcels)
        Covariance of ongoing activity.
    rng : Generator
        Draws its power over that of the noise, 0.1 to 100, and its distribution.

    Returns
    -------
    leadfield : TrainingLeadfield
        The same leadfield, whitened for noise and activity.
    """
    gain = leadfield.whitener @ leadfield.gain
    gain = gain * np.exp(rng.normal(0, 0.5, gain.shape[1]))
    covariance = gain @ activity @ gain.T
    covariance *= len(covariance) / np.trace(covariance)
    covariance *= np.exp(rng.uniform(np.log(0.1), np.log(100)))
    values, vectors = np.linalg.eigh(np.eye(len(covariance)) + covariance)
    whitener = (vectors / np.sqrt(values)).T @ leadfield.whitener
    return TrainingLeadfield(leadfield.gain, whitener.astype(np.float32))


def make_training_set(out, bank, library):
    """Put a library (its options are given) and the bank into one file for training.

    ``sensors.json`` names the leadfields of both groups, in their order.
    """
    library = make_library(make_template_parcels(), **library)
    heads = {index: read_head(out, index) for index in range(bank.n_heads)}
    names = {"train": [], "validation": []}
    for index, leadfields in heads.items():
        held_out = bank.validation.get(index)
        group = "train" if held_out is None else "validation"
        picks = leadfields if held_out is None else held_out.split()
        names[group] += [(index, name) for name in picks]
    groups = [[heads[index][name] for index, name in names[kind]] for kind in names]
    background = np.asarray(library.background, np.float32)
    activity = np.cov(background.astype(float))
    rng = np.random.default_rng([SEED, bank.n_heads])
    for group in groups:  # every second one as with a measured covariance
        group[::2] = [with_brain_noise(one, activity, rng) for one in group[::2]]
    (out / "sensors.json").write_text(json.dumps({"seed": SEED, **names}, indent=1))
    save_training_set(out / "part.npz", library, *groups)
    os.replace(out / "part.npz", out / "training.npz")


def train(out, steps, small):
    """Train; goes on from the checkpoint if there is one.

    A single arena of memory: threads but the first otherwise hand large arrays back to
    the system each time, and an update takes 1.4 times as long.
    """
    command = [
        sys.executable,
        Path(__file__).with_name("train_parcels.py"),
        out / "training.npz",
        out,
    ]
    command += ["--steps", str(steps)]
    command += SMALL_NETWORK.split() if small else ["--compile"]
    environment = os.environ | {"MALLOC_ARENA_MAX": "1"}
    os.execve(sys.executable, list(map(str, command)), environment)


def average(out, start, shares=(0.0, 0.2, 0.35, 0.5, 0.65, 0.8, 1.0)):
    """Average the weights of this training with those that it started from.

    Both lie in one valley: a mean of the two can be better than either. The share of
    the new ones is chosen on the validation heads, on eight times as many samples as
    the training's own validation has.
    """
    import torch
    from train_parcels import read_training_set

    from mne_deepsif.network.architectures import make_network
    from mne_deepsif.network.encoder import N_KERNELS
    from mne_deepsif.training.trainer import Trainer

    record = json.loads((out / "history.json").read_text())
    library, _, validation = read_training_set(out / "training.npz")
    n_parcels = len(library.background)
    options = read_options(record)
    network = make_network(
        "compact", N_KERNELS * n_parcels, n_parcels, options.n_times, **record["sizes"]
    )
    trainer = Trainer(
        network,
        library,
        validation[:1],
        replace(options, n_validation=8 * options.n_validation),
        validation_leadfields=validation,
    )
    old, new = (torch.load(f, weights_only=True) for f in (start, out / "weights.pt"))
    states, losses = [], []
    for share in shares:
        states.append({k: torch.lerp(old[k], new[k], share) for k in old})
        network.load_state_dict(states[-1])
        trainer._validate()
        losses.append(trainer.history[-1][1])
        print(f"{share:4.0%} of the new weights: validation loss {losses[-1]:.4f}")
    best = int(np.argmin(losses))
    torch.save(states[best], out / "weights.pt")
    record["average"] = {"share": shares[best], "losses": dict(zip(shares, losses))}
    (out / "history.json").write_text(json.dumps(record, indent=1))


def read_options(record):
    """Return the options of a training; JSON has turned numbers of sources to text."""
    from mne_deepsif.training.trainer import TrainingOptions

    options = record["options"]
    n_sources = {int(number): p for number, p in options["n_sources"].items()}
    return TrainingOptions(**options | {"n_sources": n_sources})


def pack(out, n_heads, results):
    """Write the trained network as the embedded weights.

    ``stages.json``, if there is one, says what the training started from: a list of
    texts, the last one being this training.
    """
    import hashlib

    import torch

    from mne_deepsif import Model
    from mne_deepsif.inverse.files import write_model
    from mne_deepsif.network.architectures import make_network
    from mne_deepsif.network.encoder import N_KERNELS

    parcels = make_template_parcels()
    record = json.loads((out / "history.json").read_text())
    n_parcels, n_times = parcels.n_parcels, record["options"]["n_times"]
    network = make_network(
        "compact", N_KERNELS * n_parcels, n_parcels, n_times, **record["sizes"]
    )
    network.load_state_dict(torch.load(out / "weights.pt", weights_only=True))
    losses = [loss for _, loss in record["history"]]
    stages = out / "stages.json"
    model = Model(
        network=network.eval(),
        encoder="backprojection",
        parcels=parcels,
        sfreq=125.0,
        n_times=n_times,
        recipe={
            "script": "benchmarks/train_generic.py",
            "stages": json.loads(stages.read_text()) if stages.exists() else [],
            "options": record["options"],
            "seconds": record["seconds"],
            "average": record.get("average"),
            "n_heads": n_heads,
        },
        history=record["history"],
        metrics={"error on heads never trained on": min(losses)},
    )
    folder = PACKAGE_DATA if results == RESULTS else results
    fname = folder / "generic.safetensors"
    write_model(model, fname, {}, overwrite=True, dtype=np.float16)
    registry = {
        "generic": {
            "file": fname.name,
            "sha256": hashlib.sha256(fname.read_bytes()).hexdigest(),
            "embedded": True,
            "description": "EEG, MEG or both, any montage and head.",
        }
    }
    (folder / "weights.json").write_text(json.dumps(registry, indent=1) + "\n")
    draw_curve(out, figures_folder(results))


def draw_curve(out, folder):
    """Draw the learning curve."""
    import matplotlib.pyplot as plt

    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    steps, losses = np.array([(line["step"], line["loss"]) for line in lines]).T
    width = min(20, len(losses))  # of 50 updates
    mean = np.convolve(losses, np.ones(width) / width, "valid")
    history = json.loads((out / "history.json").read_text())["history"]
    fig, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
    ax.plot(steps[width - 1 :], mean, label="training heads (mean of 1000 updates)")
    ax.plot(*zip(*history, strict=True), label="heads and systems never trained on")
    ax.set(xlabel="updates", ylabel="share of the sources' power that is missed")
    ax.legend()
    fig.savefig(folder / "learning_curve.png", dpi=120)
    plt.close(fig)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", nargs="+", choices=STEPS)
    parser.add_argument("--start", type=Path, help="average: weights to average with")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=36_000)
    parser.add_argument("--every", type=int, default=1, help="forwards: 2 of ...")
    parser.add_argument("--first", type=int, default=0, help="... two processes")
    args = parse_args(parser, smoke=True)
    if "train" in args.step[:-1]:
        parser.error("train takes the place of this process: give it last, or alone.")
    args.out.mkdir(parents=True, exist_ok=True)
    mne.set_log_level("WARNING")
    for step in args.step:
        run_step(step, args)


def run_step(step, args):
    bank = SMALL_BANK if args.smoke else BANK
    if step == "forwards":
        make_forwards(args.out, bank, args.every, args.first)
    elif step == "library":
        library = SMALL_LIBRARY if args.smoke else dict(random_state=LIBRARY_SEED)
        make_training_set(args.out, bank, library)
    elif step == "train":
        train(args.out, args.steps, args.smoke)
    elif step == "average":
        average(args.out, args.start)
    else:
        pack(args.out, bank.n_heads - len(bank.validation), args.results)


if __name__ == "__main__":
    main()

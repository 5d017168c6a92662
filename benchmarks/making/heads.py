"""What heads are drawn from: shapes, folds of the cortex, electrodes, helmets.

Each is a pure function of a random generator.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import replace
from functools import cache
from itertools import count

import mne
import numpy as np
from scipy.spatial import cKDTree

from mne_deepsif.head.template import make_template_subject

from ..comparison.subjects import TEN_TWENTY

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


def random_folds(rng, amplitude, n_waves=40):
    """Return a deformation of points of shape (n, 3): folds that the template lacks.

    The template is an average of many, and smooth. Waves of 1 to 2 cm move the points
    by ``amplitude`` (m, rms). At 3 mm the template's cortex gets 18 % more area, and at
    4.5 mm 47 %.
    """
    direction = rng.normal(size=(n_waves, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    length = np.exp(rng.uniform(np.log(0.01), np.log(0.02), (n_waves, 1)))
    waves = 2 * np.pi / length * direction
    moves = length * rng.normal(size=(n_waves, 3))
    moves *= amplitude / np.sqrt(np.square(moves).sum() / 2)
    phase = rng.uniform(0, 2 * np.pi, n_waves)
    return lambda points: points + np.sin(points @ waves.T + phase) @ moves


def folded_normals(src, rng, amplitude):
    """Return the normals of a cortex with more folds than the template's.

    Within a parcel of an individual cortex the normals differ more than within one of
    the template's, so that more of the field cancels. The normals of
    :func:`random_folds` are taken, not their places.
    At 3 mm the normals of a parcel average to a length of .74 (median; template .84,
    MNE's sample subject .71) and turn by 12 degrees (a tenth by more than 28; those of
    the subject by 14 and 29).
    """
    fold = random_folds(rng, amplitude)
    normals = []
    for s in src:
        rr = fold(s["rr"])
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
    "eeg-19": TEN_TWENTY,
    "eeg-32": mne.channels.make_standard_montage("biosemi32").ch_names,
    "eeg-64": mne.channels.make_standard_montage("biosemi64").ch_names,
}

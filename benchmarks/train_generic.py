"""Make the embedded generic weights: forward bank, library, training, packing.

Steps, each of which can be run again or alone::

    python benchmarks/train_generic.py forwards --out /tmp/generic
    python benchmarks/train_generic.py library --out /tmp/generic
    python benchmarks/train_generic.py train --out /tmp/generic --steps 14000
    python benchmarks/train_generic.py pack --out /tmp/generic

``train`` can be stopped and goes on where it was. Nothing here reads the data that the
benchmarks test on: heads, montages, helmet positions, patches, waveforms, background
and noise are drawn from seeds of their own.
"""

import argparse
import json
from pathlib import Path

import mne
import numpy as np
import scipy.linalg
from scipy.spatial import cKDTree

from mne_deepsif.leadfield import make_leadfield
from mne_deepsif.library import make_library
from mne_deepsif.parcels import make_template_parcels
from mne_deepsif.template import (
    make_template_bem,
    make_template_source_space,
    make_template_trans,
)
from mne_deepsif.training import Sensors, save_training_set

N_HEADS = 13  # the first is the template itself, the last is for validation
SEED = 20_261_120
LIBRARY_SEED = 1


def random_head(rng, deform):
    """Return keyword arguments of the template's functions for a random head."""
    if not deform:
        return {"affine": None}, {}, 1 / 50, 0.3
    scale = np.diag(np.r_[rng.uniform(0.92, 1.08) * rng.uniform(0.95, 1.05, 3), 1.0])
    shear = np.eye(4)
    shear[:3, :3] += rng.normal(0, 0.02, (3, 3))
    layers = {
        "skull_scale": rng.uniform(0.75, 1.3),
        "scalp_scale": rng.uniform(0.8, 1.25),
    }
    ratio = 1 / np.exp(rng.uniform(np.log(20), np.log(80)))
    return {"affine": shear @ scale}, layers, ratio, rng.uniform(0.25, 0.45)


def eeg_info(rng, jitter):
    """Return all 10-05 electrodes, displaced by electrode placement noise (m)."""
    montage = mne.channels.make_standard_montage("colin27_1005")
    positions = montage.get_positions()
    names = list(positions["ch_pos"])
    points = np.array([positions["ch_pos"][name] for name in names])
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


def meg_info(rng, scalp):
    """Return a Neuromag array at a random position over the head.

    Where a coil would come closer than 12 mm to the scalp (in head coordinates), the
    helmet is lifted.
    """
    info = mne.channels.read_meg_canonical_info("neuromag")
    coils = np.array([channel["loc"][:3] for channel in info["chs"]])
    angles = rng.uniform(-10, 10, 3) * np.pi / 180
    trans = mne.transforms.rotation(*angles)
    trans[:3, 3] = rng.uniform(-0.012, 0.012, 3) + [0, 0, 0.04]
    while _clearance(mne.transforms.apply_trans(trans, coils), scalp) < 0.012:
        trans[2, 3] += 0.002
    with info._unlock():
        info["dev_head_t"] = mne.transforms.Transform("meg", "head", trans)
        info["projs"], info["bads"] = [], []
    return info


def _clearance(points, scalp):
    """Return the smallest distance of points to the scalp, negative inside of it."""
    distance, nearest = cKDTree(scalp).query(points)
    outward = ((points - scalp[nearest]) * (scalp[nearest] - scalp.mean(0))).sum(1)
    return (np.sign(outward) * distance).min()


def farthest_points(points, n_points, rng):
    """Pick points that spread: each the farthest from those before."""
    picks = [int(rng.integers(len(points)))]
    distance = np.full(len(points), np.inf)
    while len(picks) < n_points:
        step = np.linalg.norm(points - points[picks[-1]], axis=1)
        distance = np.minimum(distance, step)
        picks.append(int(np.argmax(distance * rng.uniform(0.8, 1, len(points)))))
    return np.sort(picks)


STANDARD = {
    "19": "Fp1 Fp2 F7 F3 Fz F4 F8 T7 C3 Cz C4 T8 P7 P3 Pz P4 P8 O1 O2".split(),
    "biosemi64": mne.channels.make_standard_montage("biosemi64").ch_names,
}


def eeg_subsets(info, rng, n_random):
    """Return channel lists: standard caps and random ones of 19 to 128."""
    names = np.array(info.ch_names)
    points = np.array([channel["loc"][:3] for channel in info["chs"]])
    sizes = np.exp(rng.uniform(np.log(19), np.log(128), n_random)).astype(int)
    random = [names[farthest_points(points, size, rng)] for size in sizes]
    standard = [np.intersect1d(subset, names) for subset in STANDARD.values()]
    chosen = [*standard, *random]
    return [_drop(subset, rng) for subset in chosen]


def _drop(names, rng, most=0.1):
    """Drop up to a tenth of the channels in half of the cases."""
    if rng.random() < 0.5:
        return list(names)
    keep = rng.random(len(names)) > rng.uniform(0, most)
    return [name for name, kept in zip(names, keep, strict=True) if kept]


def sensors_of(info, fwd, names, parcels, rng):
    """Return training sensors of some channels, by the path that users take."""
    picked = mne.pick_info(info, mne.pick_channels(info.ch_names, names))
    cov = mne.make_ad_hoc_cov(picked, verbose="error")
    spread = np.exp(rng.normal(0, 0.2, len(picked.ch_names)))
    cov = mne.Covariance(
        np.diag(cov.data) * spread**2, cov.ch_names, cov["bads"], cov["projs"], 0
    )
    leadfield = make_leadfield(picked, fwd, cov, parcels=parcels)
    std = np.sqrt(np.square(np.linalg.pinv(leadfield.whitener)).sum(1))
    return Sensors(leadfield.gain / std[:, None], leadfield.whitener * std)


def joined(first, second, rng):
    """Return MEG and EEG as one set of sensors, one of the two with less noise."""
    factor = np.exp(rng.normal(0, 0.5))
    return Sensors(
        np.concatenate([first.gain * factor, second.gain]),
        scipy.linalg.block_diag(first.whitener, second.whitener),
    )


def misplaced(trans, rng):
    """Return a head to MRI transform with the error of a cap put on by landmarks.

    The pitch is the largest one: caps by fiducials and caps by the cortex differ by
    about 8 degrees on the two heads where both are known.
    """
    turn = mne.transforms.rotation(*np.deg2rad(rng.normal(0, [5.0, 2.0, 2.0])))
    turn[:3, 3] = rng.normal(0, 0.004, 3)
    return trans @ turn


def head_sensors(index, parcels):
    """Return all training sensors of one head."""
    rng = np.random.default_rng([SEED, index])
    shape, layers, ratio, scalp = random_head(rng, deform=index > 0)
    src = make_template_source_space(**shape)
    eeg_bem = make_template_bem(
        **shape, **layers, conductivity=(scalp, scalp * ratio, scalp)
    )
    info = eeg_info(rng, jitter=0.003 if index else 0.0)
    trans = make_template_trans(info, **shape)
    if index:
        trans["trans"] = misplaced(trans["trans"], rng)
    fwd = mne.make_forward_solution(info, trans, src, eeg_bem, mindist=0.0)
    eeg = [
        sensors_of(info, fwd, names, parcels, rng)
        for names in eeg_subsets(info, rng, n_random=6)
    ]
    meg_bem = make_template_bem(**shape, conductivity=(0.3,))
    mri_head = mne.transforms.invert_transform(trans)
    scalp = mne.transforms.apply_trans(mri_head, eeg_bem["surfs"][0]["rr"])
    meg = []
    for _ in range(2):
        info = meg_info(rng, scalp)
        fwd = mne.make_forward_solution(
            info, make_template_trans(info, **shape), src, meg_bem, mindist=0.0
        )
        for pick in ("mag", True):
            picks = mne.pick_types(info, meg=pick)
            names = _drop([info.ch_names[pick] for pick in picks], rng)
            meg.append(sensors_of(info, fwd, names, parcels, rng))
    both = [joined(meg[1], eeg[1], rng), joined(meg[3], eeg[5], rng)]
    return eeg + meg + both


def make_forwards(out, every=1, first=0):
    """Compute the bank head by head; heads that are there are left alone."""
    parcels = make_template_parcels()
    for index in range(first, N_HEADS, every):
        fname = out / f"head-{index:02d}.npz"
        if fname.exists():
            continue
        arrays = {}
        for number, sensors in enumerate(head_sensors(index, parcels)):
            arrays[f"{number:02d}_gain"] = sensors.gain.astype(np.float32)
            arrays[f"{number:02d}_whitener"] = sensors.whitener.astype(np.float32)
        np.savez(fname, **arrays)
        mne.utils.logger.info("%s: %d leadfields", fname.name, len(arrays) // 2)


def read_head(fname):
    """Read the sensors of one head."""
    with np.load(fname) as arrays:
        names = sorted(name for name in arrays if name.endswith("gain"))
        return [
            Sensors(arrays[n], arrays[n.replace("gain", "whitener")]) for n in names
        ]


def make_training_set(out):
    """Put library and bank into the one file that training reads."""
    library = make_library(make_template_parcels(), random_state=LIBRARY_SEED)
    heads = [read_head(fname) for fname in sorted(out.glob("head-*.npz"))]
    train = [sensors for head in heads[:-1] for sensors in head]
    save_training_set(out / "training.npz", library, train, heads[-1])


def train(out, steps):
    """Train; goes on from the checkpoint if there is one."""
    from mne_deepsif import training

    arguments = [str(out / "training.npz"), str(out), "--steps", str(steps)]
    training.main([*arguments, "--width", "640"])


def pack(out):
    """Write the trained network as the embedded weights."""
    import hashlib

    import torch

    from mne_deepsif import estimator as module
    from mne_deepsif import weights
    from mne_deepsif.network import make_network

    parcels = make_template_parcels()
    record = json.loads((out / "history.json").read_text())
    network = make_network(
        "compact",
        2 * parcels.n_parcels,
        parcels.n_parcels,
        record["options"]["n_times"],
        **record["sizes"],
    )
    network.load_state_dict(torch.load(out / "weights.pt", weights_only=True))
    estimator = module.DeepSIFEstimator(weights=None)
    estimator.network_, estimator.parcels_ = network.eval(), parcels
    estimator.sfreq_, estimator.n_times_ = 125.0, record["options"]["n_times"]
    estimator.ch_names_, estimator.history_ = None, record["history"]
    estimator.recipe_ = {
        "script": "benchmarks/train_generic.py",
        "options": record["options"],
        "seconds": record["seconds"],
        "n_heads": N_HEADS - 1,
    }
    fname = weights._DATA / "generic.safetensors"
    module._write(estimator, fname, overwrite=True, dtype=np.float16)
    registry = {
        "generic": {
            "file": fname.name,
            "sha256": hashlib.sha256(fname.read_bytes()).hexdigest(),
            "embedded": True,
            "description": "EEG, MEG or both, any montage and head.",
        }
    }
    (weights._DATA / "weights.json").write_text(json.dumps(registry, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["forwards", "library", "train", "pack"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=14_000)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    mne.set_log_level("WARNING")
    if args.step == "forwards":
        make_forwards(args.out)
    elif args.step == "library":
        make_training_set(args.out)
    elif args.step == "train":
        train(args.out, args.steps)
    else:
        pack(args.out)

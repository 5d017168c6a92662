"""The files of DeepSIF's authors: gain, regions, electrodes, resting EEG."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from functools import cache

import mne
import numpy as np
from scipy.io import loadmat

import mne_deepsif

from .subjects import DATA, biosemi_info

FOLDER = DATA / "reference"
# regions (from 0) whose column of the gain has the wrong sign
WRONG_SIGN = [408, 409, *range(415, 421), 439, 441, 492, 495, 498, 910]
WRONG_SIGN += [*range(915, 920), 922, 923]
N_HEMI = 10_242  # vertices of a hemisphere


@cache
def read_gain():
    """Return the gain (75, 994), its signs put right, and the region of each vertex.

    A column is the sum over the vertices of a region.
    """
    gain = loadmat(FOLDER / "leadfield_75_20k.mat")["fwd"].astype(float)
    gain[:, WRONG_SIGN] *= -1
    region = loadmat(FOLDER / "fs_cortex_20k_region_mapping.mat")["rm"].ravel()
    return gain, region.astype(int)


def read_info():
    """Return their 75 electrodes: the few without a standard name by an affine fit."""
    table = loadmat(FOLDER / "electrode_75.mat", squeeze_me=True)["eloc75"]
    names = [str(name) for name in table["labels"]]
    points = np.array([-table["Y"], table["X"], table["Z"]], float).T
    positions = mne.channels.make_standard_montage("colin27_1005").get_positions()
    ch_pos = positions.pop("ch_pos")
    known = [name in ch_pos for name in names]
    points = np.c_[points, np.ones(len(points))]
    goal = np.array([ch_pos[name] for name in names if name in ch_pos])
    fitted = points @ np.linalg.lstsq(points[known], goal, rcond=None)[0]
    ch_pos = {n: ch_pos.get(n, p) for n, p in zip(names, fitted, strict=True)}
    positions = {k: positions[k] for k in ("nasion", "lpa", "rpa", "coord_frame")}
    return biosemi_info(montage=mne.channels.make_dig_montage(ch_pos, **positions))


def make_forward():
    """Return a forward of all vertices: each has the mean gain of its region.

    It has free orientation, the gain along the normal, so that it goes the way of any
    other forward.
    """
    gain, region = read_gain()
    fwd = mne_deepsif.make_template_forward(read_info())
    normals = np.concatenate([s["nn"][s["vertno"]] for s in fwd["src"]])
    vertex_gain = (gain / np.bincount(region))[:, region]
    data = (vertex_gain[:, :, None] * normals).reshape(len(gain), -1)
    data *= np.linalg.norm(fwd["sol"]["data"]) / np.linalg.norm(data)
    for key in ("sol", "_orig_sol"):
        if isinstance(fwd[key], dict):
            fwd[key]["data"] = data
        else:
            fwd[key] = data.copy()
    return fwd


@cache
def make_regions():
    """Return their regions as parcels."""
    _, region = read_gain()
    labels = []
    for number in range(region.max() + 1):
        vertices = np.flatnonzero(region == number)
        hemi = ("lh", "rh")[int(vertices[0] >= N_HEMI)]
        name = f"{number}-{hemi}"
        label = mne.Label(vertices % N_HEMI, hemi=hemi, name=name, subject="fsaverage5")
        labels.append(label)
    return mne_deepsif.make_parcels(labels)


@cache
def read_noise():
    """Return resting EEG on their electrodes, average reference: (4, 75, 500)."""
    noise = loadmat(FOLDER / "realistic_noise.mat")["data"]
    noise = noise.transpose(0, 2, 1).astype(np.float32)
    return noise - noise.mean(axis=1, keepdims=True)

"""Cases: real responses, and where their sources should be."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import dataclass
from pathlib import Path

import mne
import numpy as np
from scipy.spatial import cKDTree

from .heads import Problem

HEMIS = ("lh", "rh")
AUDITORY, SOMATOSENSORY, VISUAL = (0.07, 0.12), (0.03, 0.06), (0.08, 0.13)  # s
KINDS = {"meg+eeg": ("meg", "eeg"), "eeg": ("eeg",), "meg": ("meg",)}


class Skip(Exception):  # noqa: N818 it is no error
    """A recording that is not on this machine, and why."""


@dataclass
class Case:
    """A response, and the places where its source should be.

    ``places`` are positions (m) in each hemisphere, in the frame of ``white``.
    """

    recording: str
    sensors: str
    evoked: mne.Evoked
    problem: Problem
    window: tuple  # s
    places: list  # of arrays, lh and rh
    white: list  # positions of the vertices, lh and rh


# ---------------------------------------------------------------- anatomy
def white_positions(subject, folder):
    """Return the white surface's vertices of both hemispheres (m)."""
    surf = Path(folder) / subject / "surf"
    return [mne.read_surface(surf / f"{hemi}.white")[0] / 1e3 for hemi in HEMIS]


def read_region(subject, folder, name):
    """Return a region of a subject's ``aparc``, a label for each hemisphere."""
    return [
        mne.read_labels_from_annot(
            subject, "aparc", hemi, regexp=f"^{name}", subjects_dir=folder
        )[0]
        for hemi in HEMIS
    ]


def carry_region(atlas, target, name):
    """Return a region of one subject's ``aparc`` on another's cortex, lh and rh.

    The spheres of FreeSurfer's registration say which vertices correspond.

    Parameters
    ----------
    atlas, target : tuple of str and path-like
        Subjects and the folders that they are in.
    name : str
        How the region's name begins.

    Returns
    -------
    places : list of array of shape (n_vertices, 3)
        Positions on the target's white surface (m).
    """
    places = []
    for label, white in zip(read_region(*atlas, name), white_positions(*target)):
        points = _sphere(*target, label.hemi)
        near = cKDTree(_sphere(*atlas, label.hemi)).query(points)[1]
        places.append(white[np.isin(near, label.vertices)])
    return places


def _sphere(subject, folder, hemi):
    """Return the registered vertices as unit vectors."""
    fname = Path(folder) / subject / "surf" / f"{hemi}.sphere.reg"
    points = mne.read_surface(fname)[0]
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def only_in(places, hemi):
    """Return the places of one hemisphere, for peaks in either."""
    return [places[HEMIS.index(hemi)]] * 2


# ---------------------------------------------------------------- MNE's data sets
def find_dataset(name):
    """Return the folder of one of MNE's data sets; nothing is downloaded."""
    module = mne.datasets
    path = f"mne.datasets.{name}"
    if name.startswith("bst_"):
        module, path = module.brainstorm, f"mne.datasets.brainstorm.{name}"
    try:
        is_here = mne.datasets.has_dataset(name)
    except FileNotFoundError:  # the folder in MNE's settings is not there either
        is_here = False
    if not is_here:
        raise Skip(f"{path}.data_path() has not been downloaded")
    return Path(getattr(module, name).data_path(download=False))

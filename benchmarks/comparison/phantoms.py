"""Phantoms: dipoles at known places in a sphere, judged on a cortex that is turned.

A phantom has no cortex, and all methods here need one. Its conductor is a sphere, which
looks the same from all sides. So the template's cortex is put into it, with the centre
of the head at that of the sphere, and turned by the least angle that puts a vertex on
the dipole with its normal along it. Along the radius, the vertex may be 2 mm off and
its normal tilted by 25°: MEG does not see what is radial in a sphere. So the source is
one that all methods allow, a single vertex, and its place is known to 2 mm. The turn is
5 to 76° (Elekta's 32 dipoles; half of them under 23°): by so much, the helmet is tilted
on this head.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np

from mne_deepsif.head.parcels import make_template_parcels
from mne_deepsif.head.template import (
    SUBJECT,
    make_template_source_space,
    make_template_trans,
)

from . import cases
from .cases import Case, white_positions
from .heads import CENTER, Problem
from .subjects import biosemi_info, decimate, subjects_dir

MAX_OFFSET = 2e-3  # m, of the vertex from the dipole, along the radius
MIN_TANGENTIAL = np.cos(np.deg2rad(25))  # part of the normal that MEG sees
N_VERTICES = 2562  # of a hemisphere (ico-4); each dipole is a problem of its own
ELEKTA_BADS = ["MEG1933", "MEG2421"]
CTF_PLACE = np.array([0.018, 0.0, 0.049])  # m
CTF_FREQUENCY = 23.0  # Hz
TSSS = dict(origin=(0.0, 0.0, 0.0), st_duration=10.0)


# ---------------------------------------------------------------- the cortex within
def turn_cortex(place, direction, src):
    """Put a vertex of the template's cortex on a dipole, its normal along it.

    Parameters
    ----------
    place : array of shape (3,)
        Position (m) in the phantom's frame, whose origin is the sphere's centre.
    direction : array of shape (3,)
        A unit vector, tangential to the sphere.
    src : SourceSpaces
        The template's, in MRI coordinates.

    Returns
    -------
    trans : Transform
        From the phantom's frame ("head") to the cortex's ("mri").
    angle : float
        By how much (radians) the cortex is turned from upright.
    """
    upright = make_template_trans(biosemi_info())
    to_head = mne.transforms.invert_transform(upright)
    points = np.concatenate([s["rr"][s["vertno"]] for s in src])
    points = mne.transforms.apply_trans(to_head, points) - CENTER
    normals = np.concatenate([s["nn"][s["vertno"]] for s in src])
    normals = mne.transforms.apply_trans(to_head, normals, move=False)
    frames, tangential = _frames(points, normals)
    offset = np.abs(np.linalg.norm(points, axis=1) - np.linalg.norm(place))
    parcels = make_template_parcels().by_hemi()
    parcel = np.concatenate([p[s["vertno"]] for p, s in zip(parcels, src)])
    usable = (parcel >= 0) & (offset < MAX_OFFSET) & (tangential > MIN_TANGENTIAL)
    frames = frames[usable]
    wanted, _ = _frames(place[np.newaxis], direction[np.newaxis])
    flips = np.diag([1, -1, -1.0])  # either sign of the normal will do
    turns = np.concatenate([wanted @ flip @ frames.mT for flip in (np.eye(3), flips)])
    traces = np.trace(turns, axis1=1, axis2=2)
    best = traces.argmax()
    matrix = np.eye(4)
    matrix[:3, :3] = turns[best].T
    matrix[:3, 3] = CENTER
    trans = mne.transforms.Transform("head", "mri", upright["trans"] @ matrix)
    return trans, float(np.arccos(np.clip((traces[best] - 1) / 2, -1, 1)))


def _frames(points, normals):
    """Return orthonormal axes as columns, and the normals' tangential parts.

    The first axis is along the radius, the second along the normal's tangential part.
    """
    radial = points / np.linalg.norm(points, axis=1, keepdims=True)
    along = normals - radial * (normals * radial).sum(axis=1, keepdims=True)
    lengths = np.linalg.norm(along, axis=1)
    along /= lengths[:, np.newaxis]
    return np.stack([radial, along, np.cross(radial, along)], axis=2), lengths


def make_case(name, evoked, cov, place, direction, window):
    """Return the case of one dipole."""
    src = decimate(make_template_source_space(), N_VERTICES)
    surfaces = subjects_dir("template")
    trans, _ = turn_cortex(place, direction, src)
    sphere = mne.make_sphere_model((0.0, 0.0, 0.0), head_radius=None)
    fwd = mne.make_forward_solution(evoked.info, trans, src, sphere, eeg=False)
    problem = Problem(evoked.info, fwd, cov, surfaces)
    places = [mne.transforms.apply_trans(trans, place[np.newaxis])] * 2
    white = white_positions(SUBJECT, surfaces)
    return Case(name, "meg", evoked, problem, window, places, white)


# ---------------------------------------------------------------- MNE's data sets
def phantom_elekta():
    """Yield the 32 dipoles of the VectorView phantom, at 200 nA m and 20 Hz."""
    root = cases.find_dataset("bst_phantom_elekta")
    raw = mne.io.read_raw_fif(root / "kojak_all_200nAm_pp_no_chpi_no_ms_raw.fif")
    raw.info["bads"] = ELEKTA_BADS
    events = mne.find_events(raw, "STI201")
    places, directions = mne.dipole.get_phantom_dipoles()
    event_id = {str(n + 1): n + 1 for n in range(len(places))}
    cut = dict(tmin=-0.1, tmax=0.1, baseline=(None, -0.05), picks="meg", preload=True)
    epochs = mne.Epochs(raw, events, event_id, **cut)
    cov = mne.compute_covariance(epochs, tmax=-0.05)
    for name, place, direction in zip(event_id, places, directions):
        evoked = epochs[name][1:-1].average()  # as in MNE's tutorial
        title = f"phantom Elekta, dipole {name}"
        yield make_case(title, evoked, cov, place, direction, (0.0, 0.1))


def phantom_ctf():
    """Yield the dipole of the CTF phantom, at 20 µA and 23 Hz.

    Its place is known. Its direction is that of the best dipole there.
    """
    root = cases.find_dataset("bst_phantom_ctf")
    raw = mne.io.read_raw_ctf(root / "phantom_20uA_20150603_03.ds", preload=True)
    course = raw.get_data("HDAC006-4408")[0]
    onsets = np.flatnonzero(np.diff((course > 0.5).astype(int)) > 0) + raw.first_samp
    events = np.c_[onsets, np.zeros_like(onsets), np.ones_like(onsets)]
    raw = mne.preprocessing.maxwell_filter(raw.apply_gradient_compensation(0), **TSSS)
    half = 1.5 / CTF_FREQUENCY  # three cycles, whose mean is that of the source
    cut = dict(tmin=-half, tmax=half, baseline=(None, None), picks="meg")
    evoked = mne.Epochs(raw, events, 1, preload=True, **cut).average()
    cov = _empty_room(root / "emptyroom_20150709_01.ds")
    sphere = mne.make_sphere_model((0.0, 0.0, 0.0), head_radius=0.08)
    peak = evoked.copy().crop(0.0, 0.0)
    dipole, _ = mne.fit_dipole(peak, cov, sphere, pos=CTF_PLACE, rank="info")
    window = (-0.25 / CTF_FREQUENCY, 0.25 / CTF_FREQUENCY)
    yield make_case("phantom CTF", evoked, cov, CTF_PLACE, dipole.ori[0], window)


def _empty_room(fname):
    """Return the covariance of a recording of nothing."""
    raw = mne.io.read_raw_ctf(fname, preload=True).apply_gradient_compensation(0)
    raw = mne.preprocessing.maxwell_filter(raw, coord_frame="meg", **TSSS)
    return mne.compute_raw_covariance(raw, picks="meg")

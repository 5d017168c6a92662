"""Whether sensors lie where they can lie, asked of recordings and of forwards."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import replace
from functools import cache

import mne
import numpy as np
from mne.utils import warn
from scipy.spatial.transform import Rotation

from .._mne import FIFF
from .anatomy import read_white
from .channels import sensor_positions
from .faults import find_fault
from .helmet import check_forward_helmet
from .placement import Fault
from .standard import fit_similarity, sort_fiducials, template_head

_TEMPLATES = ("fsaverage5", "fsaverage")
# m; right ones are 13 (the template), 17 (a real subject) and 27 mm (a small head on
# the template) off, those without trans 45 mm, with an inverted one 52 to 88 mm
_ASTRAY = 0.036
# degrees; the brain lies turned by up to 10 under right fiducials (a real subject; 0 on
# the template), by 26 without that subject's trans
_ASKEW = 22


def check_template_electrodes(info, trans):
    """Check electrodes before a forward solution of the template is made.

    Parameters
    ----------
    info : Info
        Measurement info.
    trans : Transform
        Head to MRI transform.
    """
    picks = mne.pick_types(info, meg=False, eeg=True, exclude="bads")
    names = [info["ch_names"][pick] for pick in picks]
    _tell(_judge(sensor_positions(info), names, info, trans["trans"]))


def check_forward_geometry(info, fwd, leadfield, parcels):
    """Check the sensors of a forward solution against its cortex.

    Parameters
    ----------
    info : Info
        Measurement info of the data, with the fiducials.
    fwd : mne.Forward
        The forward solution, with its own positions.
    leadfield : Leadfield
        Its leadfield.
    parcels : Parcels
        The parcels of the leadfield.

    Returns
    -------
    doubt : str | None
        The first sentence of the warning, if there was one.

    Notes
    -----
    The positions are moved to the template as parcels are moved onto those of the
    template, by rotation, shift and size.
    """
    trans = _to_template(fwd, leadfield, parcels)
    channels = zip(leadfield.ch_names, leadfield.ch_types)
    names = [name for name, ch_type in channels if ch_type == "eeg"]
    fault = _judge(sensor_positions(fwd["info"]), names, info, trans)
    if fault is not None:
        again = " Then make the forward solution again, with that info."
        fault = replace(fault, text=fault.text + again)
    if fault is None and _has_all_parcels(leadfield, parcels):
        fault = _judge_cortex(read_fiducials(info), trans)
    _tell(fault)
    check_forward_helmet(fwd, leadfield, trans)
    return None if fault is None else fault.text.partition(". ")[0]


def _judge_cortex(fiducials, trans):
    """Find a cortex that is not where the fiducials of the head put it."""
    if fiducials is None:
        return None
    head = template_head()
    there = mne.transforms.apply_trans(trans, fiducials) - head.fiducials
    distance = np.linalg.norm(there, axis=1).mean()
    turn = trans[:3, :3] @ np.linalg.inv(head.align(fiducials)[:3, :3])
    turn /= np.cbrt(np.linalg.det(turn))  # without the size
    angle = np.degrees(Rotation.from_matrix(turn).magnitude())
    if distance < _ASTRAY and angle < _ASKEW:
        return None
    return Fault(
        f"For this cortex, nasion, LPA and RPA lie {1e3 * distance:.0f} mm (mean) from "
        f"where they are on a head, and are turned by {angle:.0f} degrees: trans, the "
        "transform from head to MRI coordinates, may be inverted, missing or another "
        "subject's. Look at "
        "mne.viz.plot_alignment(info, trans), and make the forward solution again with "
        "the right trans.",
        certain=False,
    )


def _judge(positions, names, info, trans):
    points = np.array([positions[name] * np.ones(3) for name in names]).reshape(-1, 3)
    known = np.isfinite(points).all(1)
    names = [name for name, one in zip(names, known) if one]
    if not names:
        return None
    return find_fault(points[known], names, read_fiducials(info), trans)


def _tell(fault):
    if fault is None:
        return
    if fault.certain:
        raise ValueError(fault.text)
    warn(fault.text)


def read_fiducials(info):
    """Return digitised nasion, LPA and RPA in head coordinates, if they tell anything.

    Parameters
    ----------
    info : Info
        Measurement info.

    Returns
    -------
    fiducials : array of shape (3, 3) | None
        Their positions (m). None if one is missing, if two are the same, or if MNE has
        made them up: those lie on the axes, as far from the origin as electrodes do on
        average.
    """
    fiducials = sort_fiducials(
        point
        for point in info["dig"] or ()
        if point["kind"] == FIFF.FIFFV_POINT_CARDINAL
        and point["coord_frame"] == FIFF.FIFFV_COORD_HEAD
    )
    if fiducials is None or not np.isfinite(fiducials).all():
        return None
    sides = np.linalg.norm(fiducials - np.roll(fiducials, 1, axis=0), axis=1)
    if sides.min() < 1e-4 * sides.max() or not sides.any():  # two are the same point
        return None
    return None if _are_made_up(fiducials, info) else fiducials


def _are_made_up(fiducials, info):
    """Tell fiducials that MNE puts where there are none, on a sphere, from others."""
    radius = np.abs(fiducials).max()
    axes = np.array([[0, 1, 0], [-1, 0, 0], [1, 0, 0]])
    points = [p["r"] for p in info["dig"] if p["kind"] == FIFF.FIFFV_POINT_EEG]
    usual = np.linalg.norm(np.reshape(points, (-1, 3)), axis=1)
    return (
        np.allclose(fiducials, radius * axes, rtol=0, atol=1e-5 * radius)
        and len(points) > 0
        and abs(usual.mean() / radius - 1) < 0.05
    )


# --------------------------------------------------------------- any head


def _to_template(fwd, leadfield, parcels):
    """Return the transform from head coordinates to the template's MRI coordinates.

    It matches the parcels, with a factor on the size. If too few of them have vertices,
    it matches middle and size of the cortex.
    """
    members = leadfield.vertex_area > 0
    count = np.asarray(members.sum(0)).ravel()
    used = count > 0
    there = parcels.centers[used]
    if not _has_all_parcels(leadfield, parcels):
        return _by_extent(_in_head(np.concatenate([s["rr"] for s in fwd["src"]]), fwd))
    here = (members.T @ _in_head(fwd["source_rr"], fwd))[used] / count[used, np.newaxis]
    return _join(*fit_similarity(here, there))


def _has_all_parcels(leadfield, parcels):
    """Tell whether there are parcels of the template in all parts of the cortex."""
    used = np.asarray((leadfield.vertex_area > 0).sum(0)).ravel() > 0
    if parcels.subject not in _TEMPLATES or used.sum() < 20:
        return False
    there = parcels.centers[used]
    return np.linalg.norm(there - there.mean(0), axis=1).mean() > 0.04


def _in_head(points, fwd):
    if fwd["coord_frame"] == FIFF.FIFFV_COORD_MRI:
        return mne.transforms.apply_trans(fwd["mri_head_t"], points)
    return np.asarray(points, float)


def _by_extent(points):
    """Match middle and extent of a cortex, as head coordinates turn it."""
    turn = template_head().to_mri[:3, :3]
    middle, extent = _template_extent()
    scale = extent / np.linalg.norm(points - points.mean(0), axis=1).mean()
    return _join(scale, turn, middle - scale * turn @ points.mean(0))


def _join(scale, turn, shift):
    return np.vstack([np.column_stack([scale * turn, shift]), [0, 0, 0, 1]])


@cache
def _template_extent():
    points = np.concatenate(read_white()[0])
    middle = points.mean(0)
    return middle, np.linalg.norm(points - middle, axis=1).mean()

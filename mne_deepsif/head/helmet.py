"""Whether a MEG helmet lies around the head."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from functools import cache

import mne
import numpy as np
from mne.utils import warn
from scipy.spatial import cKDTree

from .anatomy import builtin_path
from .channels import sensor_positions
from .mesh import are_inside
from .standard import fit_sphere, template_head

_SURFACES = 3, 4  # numbers of the skull's and the scalp's surface in a BEM
_FAR = 0.07  # m; from the scalp to the nearest sensor
# The mean direction of sensors from the middle of the head. Its length is 0.24 to 0.38
# for real helmets, 0.5 for half a sphere, 0.7 for arrays on one side of the head. It
# points up, give or take 32 degrees.
_SHORTEST, _WHOLE, _LONGEST = 0.15, 0.41, 0.65
_TURNED = 50  # degrees
_SCALES = np.arange(0.95, 0.45, -0.05)
_OWN = "Take it from the recording, or pass the right trans."


def check_template_helmet(info, trans, bem):
    """Raise if MEG sensors are inside the template's skull; warn if inside the scalp.

    Parameters
    ----------
    info : Info
        Measurement info, with ``dev_head_t``.
    trans : Transform
        Head to MRI transform.
    bem : ConductorModel
        The template's BEM solution.
    """
    positions = sensor_positions(info)
    picks = mne.pick_types(info, meg=True, exclude=())
    sensors = np.array([positions[info["ch_names"][pick]] for pick in picks])
    sensors = mne.transforms.apply_trans(trans["trans"], sensors)
    surfs = {surf["id"]: surf for surf in bem["surfs"]}
    skull = surfs.get(_SURFACES[0], bem["surfs"][-1])
    scalp = surfs.get(_SURFACES[1], skull)
    n_inside, n_inside_scalp = (
        are_inside(sensors, surf["rr"], surf["tris"]).sum() for surf in (skull, scalp)
    )
    if n_inside:
        raise ValueError(
            f"info places {n_inside} of {len(picks)} MEG sensors inside the template's "
            f"skull. {_explain(info, sensors, skull)}"
        )
    if n_inside_scalp:
        warn(
            f"{n_inside_scalp} of {len(picks)} MEG sensors lie inside the template's "
            "scalp. Either the recorded head is smaller, or info['dev_head_t'] is "
            "wrong."
        )
    _check_around(sensors)


def _explain(info, sensors, skull):
    """Say why sensors are inside the skull, and what to do."""
    if np.abs(info["dev_head_t"]["trans"] - np.eye(4)).max() < 1e-3:
        return (
            "info['dev_head_t'] is an identity: the position of the head in the helmet "
            f"is missing. {_OWN}"
        )
    _, radius, rest = fit_sphere(sensors)
    head = fit_sphere(skull["rr"])[1]
    scale = _fitting_scale(sensors, skull)
    if rest > 0.15 or radius > head + 0.015 or scale is None:
        return f"info['dev_head_t'] is probably wrong. {_OWN}"
    return (
        f"The sensors lie on a sphere of radius {1e3 * radius:.0f} mm, too small for "
        "the template's head of an adult: the helmet is made for infants, and "
        "info['dev_head_t'] need not be wrong. Use the subject's own MRI, or a smaller "
        f"template: affine = numpy.diag([{scale:.2g}, {scale:.2g}, {scale:.2g}, 1]); "
        "fwd = mne.make_forward_solution(info, "
        "mne_deepsif.make_template_trans(info, affine=affine), "
        "mne_deepsif.make_template_source_space(affine=affine), "
        "mne_deepsif.make_template_bem(affine=affine, conductivity=(0.3,)), "
        "mindist=0, ignore_ref=True, on_inside='ignore')"
    )


def _fitting_scale(sensors, skull):
    """Return the largest size of a skull that holds no sensor."""
    ears = template_head().ears
    for scale in _SCALES:
        moved = ears + (sensors - ears) / scale
        if not are_inside(moved, skull["rr"], skull["tris"]).any():
            return scale
    return None


# --------------------------------------------------------------- any head


def check_forward_helmet(fwd, leadfield, trans):
    """Check the MEG sensors of a forward solution against its head.

    Parameters
    ----------
    fwd : mne.Forward
        The forward solution.
    leadfield : Leadfield
        Its leadfield.
    trans : array of shape (4, 4)
        From head coordinates to the template's MRI coordinates, with a factor on the
        size.
    """
    positions = sensor_positions(fwd["info"])
    channels = zip(leadfield.ch_names, leadfield.ch_types)
    sensors = [positions[name] * np.ones(3) for name, kind in channels if kind != "eeg"]
    sensors = mne.transforms.apply_trans(trans, np.reshape(sensors, (-1, 3)))
    sensors = sensors[np.isfinite(sensors).all(1)]
    if not len(sensors):
        return
    rr, nn, tree = _inner_skull()
    distance, index = tree.query(sensors)
    deep = (((sensors - rr[index]) * nn[index]).sum(1) < 0) & (distance > 0.005)
    if deep.any():
        raise ValueError(
            f"{deep.sum()} of {len(deep)} MEG sensors lie up to "
            f"{1e3 * distance[deep].max():.0f} mm inside the skull of the forward "
            "solution's head. info['dev_head_t'], the position of the head in the "
            "helmet, is probably missing or wrong, or the head is larger than the "
            "recorded one. Make the forward solution again with the recording's own "
            "info and the right trans."
        )
    _check_around(sensors)


@cache
def _inner_skull():
    (surf,) = mne.read_bem_surfaces(builtin_path("inner_skull-bem"), verbose="error")
    return surf["rr"], surf["nn"], cKDTree(surf["rr"])


def _check_around(sensors):
    """Find helmets (on the template, m) far from the head, or turned."""
    head = template_head()
    gap = -head.depth(sensors).max()
    if gap > _FAR:
        text = (
            f"The MEG sensors lie {1e3 * gap:.0f} mm and more from the scalp. "
            "info['dev_head_t'], the position of the head in the helmet, or trans may "
            "be wrong or in another unit than m. Take it from the recording."
        )
        if gap > 3 * _FAR:
            raise ValueError(text)
        warn(text)
        return
    directions = sensors - head.middle
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    mean = directions.mean(0)
    length = np.linalg.norm(mean)
    angle = np.degrees(np.arccos(mean[2] / length))
    if len(sensors) <= 30 or not _SHORTEST < length < _LONGEST or angle <= _TURNED:
        return
    text = (
        f"The MEG helmet is turned by about {angle:.0f} degrees: it does not surround "
        "the upper head. info['dev_head_t'] or trans is wrong. Take it from the "
        "recording."
    )
    if length < _WHOLE:
        raise ValueError(text)
    warn(f"{text} If these are sensors of one side or of a part alone, all is well.")

"""The field of the eyes at the sensors, in a sphere."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np

from .._mne import FIFF, make_forward_solution

_EYES = np.array([[-0.032, -0.022, -0.010], [0.032, -0.022, -0.010]])  # from nasion, m
_NASION = np.array([0.0, 0.1, 0.0])  # where it is not digitised; head coordinates, m
_MIDDLE = (0.0, 0.0, 0.04)  # of the head; head coordinates, m


def eye_gain(info, shift=(0.0, 0.0, 0.0)):
    """Compute the field of dipoles at the eyes, in a homogeneous sphere.

    Parameters
    ----------
    info : Info
        Measurement info of the channels.
    shift : array of shape (3,)
        Moves both eyes (head coordinates, m).

    Returns
    -------
    gain : array of shape (n_channels, 3) | None
        Field of both eyes' dipoles along x, y and z (head coordinates). None if the
        position of a channel in head coordinates or the definition of its coil is
        unknown.
    """
    points = np.array([ch["loc"][:3] for ch in info["chs"]])
    placed = np.isfinite(points).all() and points.any(1).all()
    meg = set(info.get_channel_types(unique=True)) - {"eeg"}
    if not placed or (meg and info["dev_head_t"] is None):
        return None
    eyes = _nasion(info) + _EYES + shift
    # the sphere is large enough for the eyes to lie below its surface
    radius = np.linalg.norm(eyes - _MIDDLE, axis=1).max() / 0.88
    sphere = mne.make_sphere_model(
        _MIDDLE, radius, relative_radii=(0.98, 1.0), sigmas=(0.33, 0.33), verbose=False
    )
    src = mne.setup_volume_source_space(
        pos={"rr": eyes, "nn": np.tile([0.0, 0.0, 1.0], (2, 1))}, verbose=False
    )
    try:
        fwd = make_forward_solution(
            info,
            None,
            src,
            sphere,
            mindist=0.0,
            ignore_ref=True,
            on_inside="ignore",
            verbose=False,
        )
    except RuntimeError as error:  # a coil of the user's own (mne.use_coil_def)
        if "coil definition not found" not in str(error):
            raise
        return None
    return fwd["sol"]["data"].reshape(-1, 2, 3).sum(1)


def _nasion(info):
    for point in info["dig"] or ():
        cardinal = point["kind"] == FIFF.FIFFV_POINT_CARDINAL
        if cardinal and point["ident"] == FIFF.FIFFV_POINT_NASION:
            return point["r"]
    return _NASION

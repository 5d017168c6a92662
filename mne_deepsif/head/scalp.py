"""Electrodes beside the scalp, where names do not tell: depth, distance, axes."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
from scipy.spatial.transform import Rotation

from .placement import HEADS, Fault
from .standard import fit_sphere, sides, template_head

_MANY = 0.2  # share of the channels in the depth
# m; of channels among others whose names are known, and among any; electrodes on the
# face lie 26 mm under the scalp of a head that suits the others
_DEEP = 0.025, 0.035
_UNDER = 0.012  # m; 90 % of the electrodes of real caps and montages are less deep


def judge_depth(electrodes):
    """Find contacts in the depth of the head."""
    head, points = template_head(), electrodes.placed
    deep = _find_deep(electrodes)
    middle, radius, rest = fit_sphere(points)
    central = np.linalg.norm(middle - head.middle) < 0.075  # shafts touch spheres, too
    even = 0.05 if deep.mean() >= _MANY else 0.005
    on_sphere = central and radius < 0.13 and rest < even
    # a cap of a size between those of heads is left to judge_scalp
    if not deep.any() or (on_sphere and radius > 0.055):
        return None
    depth = 1e3 * head.depth(points)[deep]
    names = [name for name, one in zip(electrodes.names, deep) if one][:3]
    text = (
        f"{deep.sum()} of {len(deep)} EEG channels lie {depth.min():.0f} to "
        f"{depth.max():.0f} mm inside the head ({', '.join(names)}, ...)"
    )
    if on_sphere:
        return Fault(
            f"{text}. Their positions may be in another unit or coordinate frame. Give "
            "them in m and with the fiducials: info.set_montage("
            "mne.channels.make_dig_montage(ch_pos, nasion, lpa, rpa)).",
            certain=False,
        )
    return Fault(
        f"{text}: these are no scalp electrodes, and cannot be taken for such. If they "
        "are depth or subdural contacts, say so, then they are left out: "
        "raw.set_channel_types({name: 'seeg' for name in contacts}). If not, their "
        "positions are in another unit or coordinate frame.",
        certain=True,
    )


def _find_deep(electrodes):
    """Return which channels are in the depth, even of the smallest head if many are."""
    head, best, points = template_head(), electrodes.placement, electrodes.placed
    if best is not None and (best.fits or best.agrees):
        others = ~np.isin(np.arange(len(points)), best.standard.picks)
        if best is electrodes.in_head:
            points = electrodes.aligned
        return others & (head.depth(points, np.clip(best.scale, *HEADS)) > _DEEP[0])
    deep = head.depth(points, HEADS[0]) > 0.01
    if deep.mean() >= _MANY:
        return deep
    return head.depth(points, _nearest_size(points)[0]) > _DEEP[1]


def judge_scalp(electrodes):
    """Find electrodes far from any head's scalp."""
    _, distances = _nearest_size(electrodes.placed)
    typical, most = np.quantile(distances, [0.5, 0.9])
    if typical < 0.03 and most < 0.05:
        return _judge_under_scalp(electrodes)
    return Fault(
        f"The electrodes lie {1e3 * typical:.0f} mm from the scalp (median; 10 % lie "
        f"more than {1e3 * most:.0f} mm from it). Their positions may be in another "
        "coordinate frame than the head. Give them with the fiducials of the same "
        "frame: info.set_montage(mne.channels.make_dig_montage(ch_pos, nasion, lpa, "
        "rpa)).",
        certain=typical > 0.06,
    )


def _judge_under_scalp(electrodes):
    """Find contacts on the brain: under the scalp of a head of the fiducials' size."""
    if electrodes.fiducials is None:
        return None
    ratio = sides(electrodes.fiducials) / sides(template_head().fiducials)
    depth = template_head().depth(electrodes.aligned, ratio.mean())
    if np.quantile(depth, 1 - _MANY) < _UNDER:
        return None
    under = depth > _UNDER
    return Fault(
        f"{under.sum()} of {len(under)} EEG channels lie {1e3 * _UNDER:.0f} to "
        f"{1e3 * depth.max():.0f} mm under the scalp, for a head of the size that the "
        "fiducials tell. If they are subdural contacts, say so, then they are left "
        "out: raw.set_channel_types({name: 'ecog' for name in contacts}).",
        certain=False,
    )


def _nearest_size(points):
    """Return the size of the head on which points lie best, and their distances."""
    head = template_head()
    found = []
    for size in np.linspace(*HEADS, 10):
        distances = np.abs(head.depth(points, size))
        found.append((np.median(distances), size, distances))
    _, size, distances = min(found, key=lambda one: one[0])
    return size, distances


def judge_unknown(electrodes):
    """Find caps of which neither fiducials nor names tell the axes."""
    if electrodes.fiducials is not None:
        return None
    return Fault(
        "Nothing tells whether the axes of the electrodes' positions are right: info "
        f"has no fiducials, and the names ({', '.join(electrodes.names[:3])}, ...) are "
        f"not those of MNE's montages.{_quarter_turn(electrodes.placed)} Give the "
        "fiducials: info.set_montage(mne.channels.make_dig_montage(ch_pos, nasion, "
        "lpa, rpa)).",
        certain=False,
    )


def _quarter_turn(points):
    """Say so if points suit the head's long shape better after a quarter turn."""
    ears = template_head().ears
    angles = np.outer([0, 90, -90], [0, 0, 1])
    here, *others = (
        np.median(_nearest_size(ears + (points - ears) @ turn.T)[1])
        for turn in Rotation.from_rotvec(angles, degrees=True).as_matrix()
    )
    if len(points) < 16 or here < 0.007 or min(others) > 0.65 * here:
        return ""
    return (
        f" They lie {1e3 * here:.0f} mm from the scalp (median), and would lie "
        f"{1e3 * min(others):.0f} mm from it after a quarter turn: X may point to the "
        "nose."
    )

"""Faults of electrode positions: units, axes, fiducials, names. Arrays only."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from itertools import permutations

import numpy as np
from mne.transforms import apply_trans
from scipy.spatial.transform import Rotation

from .placement import FAR, HEAD_RADIUS, HEADS, Electrodes, Fault, spread
from .scalp import judge_depth, judge_scalp, judge_unknown
from .standard import fit_sphere, sides, template_head

_SIDE = 0.14  # m; mean distance of nasion, LPA and RPA of an adult
_FIDUCIALS = (0.075, 0.23)  # m; the same, of any head
_UNITS = {6: "µm", 3: "mm", 2: "cm", 1: "dm", -3: "km"}
_AXES = ("to the right", "to the left"), ("to the nose", "to the back"), ("up", "down")
_WAYS = ("to the right", "to the left"), ("to the front", "to the back"), ("up", "down")
_KEYS = ("nasion", "lpa", "rpa")
# m; MNE's montages stay below 1 mm sideways, and with 20 mm errors of simulated sources
# reach it. Along the other axes they differ by up to 14 mm, and so do heads.
_BESIDE = np.array([0.015, 0.035, 0.035])
_FEWEST = 8  # electrodes
_BEYOND = 0.25  # m; from the middle of the head, where no cap reaches that was shifted
_MOST = 0.9  # of the electrodes; if more are beyond, all are
_GAP = 1.5  # times as far as the farthest of the others
_BODY = 3.0  # m; farther from the head no electrode is
_ON_HEAD = (0.6, 1.4)  # times the head's radius, from its middle


def find_fault(points, names, fiducials=None, trans=None):
    """Judge the positions of electrodes.

    Parameters
    ----------
    points : array of shape (n_channels, 3)
        Positions in head coordinates (m).
    names : list of str
        Names of the channels.
    fiducials : array of shape (3, 3) | None
        Nasion, LPA and RPA in head coordinates (m).
    trans : array of shape (4, 4) | None
        From head coordinates to the template's MRI coordinates. It may change the size,
        if the head is not the template's. None takes the fiducials.

    Returns
    -------
    fault : Fault | None
        What is wrong, None if nothing is.

    Notes
    -----
    Where MNE's montages know the names, the places must be those of the names, on a
    head of 0.7 to 1.15 times the template's size. Else the electrodes must lie on the
    scalp of such a head.
    """
    electrodes = Electrodes(np.asarray(points, float), list(names), fiducials, trans)
    best = electrodes.placement
    judges = [_judge_fiducials, _judge_some_units, _judge_units, _judge_swap]
    judges.append(judge_depth)
    if best is None:
        judges += [judge_scalp, judge_unknown]
    elif best.agrees:
        judges = [_judge_some_units, _judge_units, _judge_trans, _judge_size]
        judges += [judge_depth, _judge_strays, _judge_beside]
    else:
        judges += [_judge_axes, _judge_names]
    faults = (judge(electrodes) for judge in judges)
    return next((fault for fault in faults if fault is not None), None)


# --------------------------------------------------------------- units and sizes


def _judge_fiducials(electrodes):
    """Find fiducials in other units than the electrodes."""
    if electrodes.fiducials is None:
        return None
    size = sides(electrodes.fiducials).mean()
    if _FIDUCIALS[0] <= size <= _FIDUCIALS[1] or not 0.5 <= electrodes.size <= 2:
        return None
    unit, formula = _unit(size / _SIDE, electrodes.fiducials[:1])
    formula = formula.format(xyz="{}")
    keys = ", ".join(formula.format(key) for key in _KEYS)
    return Fault(
        f"Nasion, LPA and RPA are {_metres(size)} apart (mean), while the electrodes "
        f"have the size of a head: the fiducials seem to be {unit}, the electrodes in "
        "m. Give all in m: info.set_montage(mne.channels.make_dig_montage(ch_pos, "
        f"{keys})).",
        certain=True,
    )


def _judge_some_units(electrodes):
    """Find single electrodes that are not in m, or not on the head."""
    middle = template_head().middle
    distance = np.linalg.norm(electrodes.aligned - middle, axis=1)
    far = distance > _BEYOND
    if not far.any() or far.mean() > _MOST:
        return None
    least, most = distance[far].min(), distance[far].max()
    if least < _GAP * distance[~far].max():  # one cap, far off
        return None
    names = [name for name, one in zip(electrodes.names, far) if one]
    few = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    where = (
        f"{far.sum()} of {len(far)} electrodes lie {_metres(least)} to "
        f"{_metres(most)} from the middle of the head ({few}), the others where a head "
        "is"
    )
    factor = np.median(distance[far]) / HEAD_RADIUS
    if least < _BODY and not (far.sum() > 2 and _is_scaled(electrodes, far, factor)):
        return Fault(
            f"{where}. Mark these channels as bad, or set their type if they are on "
            "the body, as for an ECG. If they are on the head, give their positions "
            "in m.",
            certain=False,
        )
    unit, formula = _unit(factor, electrodes.points[:1])
    scaled = formula.format(xyz="ch_pos[name]")
    return Fault(
        f"{where}: the positions of these seem to be {unit}. Mark these "
        "channels as bad, or give all in m. In the positions that you give to "
        f"mne.channels.make_dig_montage: ch_pos.update({{name: {scaled} for name in "
        f"{names}}})",
        certain=True,
    )


def _is_scaled(electrodes, far, factor):
    """Tell whether some electrodes are on the head, but for a power of ten."""
    power = _power(factor)
    points = electrodes.points[far] / 10.0**power
    points = apply_trans(template_head().align(electrodes.fiducials), points)
    distance = np.linalg.norm(points - template_head().middle, axis=1) / HEAD_RADIUS
    return bool(power) and ((distance > _ON_HEAD[0]) & (distance < _ON_HEAD[1])).all()


def _judge_units(electrodes):
    """Find positions that are not in m."""
    size, best = electrodes.size, electrodes.placement
    named = best is not None and best.fits
    smallest = 0.5 if named else 0.12 if len(electrodes.points) > 7 else 0.0
    if smallest <= size <= (2 if named else 2.2) or _is_local(electrodes):
        return None
    unit, formula = _unit(size, electrodes.points)
    what, mend = _scale_all(electrodes, formula)
    extent = spread(electrodes.points)
    return Fault(
        f"The {what} are {size:.3g} times as far apart as on an adult's head: the "
        f"electrodes lie {_metres(extent)} from their middle (median). Their positions "
        f"seem to be {unit}, and MNE wants m. Scale them: {mend}",
        certain=True,
    )


def _is_local(electrodes):
    """Tell a patch or a shaft in a head from a cap in too large a unit."""
    points = electrodes.points
    return 2 * spread(points) < np.linalg.norm(points.mean(0)) < 0.2


def _scale_all(electrodes, formula):
    """Return what is in the wrong unit, and the call that scales it."""
    xyz = formula.format(xyz="xyz")
    if electrodes.fiducials is None:  # those that MNE has made up do not count
        return "electrodes", _mend(xyz, "pos.update(nasion=None, lpa=None, rpa=None); ")
    ratio = sides(electrodes.fiducials).mean() / _SIDE / electrodes.size
    if not 0.5 < ratio < 2:
        better = " (better: in the positions that you gave, before set_montage)"
        return "electrodes", _mend(xyz) + better
    scaled = formula.format(xyz="pos[key]")
    more = f"pos.update({{key: {scaled} for key in {_KEYS}}}); "
    return "electrodes and the fiducials", _mend(xyz, more)


def _unit(factor, points):
    """Guess the unit of positions that are too large by a factor."""
    middle, radius, rest = fit_sphere(points)
    if abs(radius - 1) < 0.05 and rest < 0.03:
        return "on a sphere of radius 1", f"{{xyz}} * {HEAD_RADIUS}"
    if power := _power(factor):
        formula = f"{{xyz}} / {10**power}" if power > 0 else f"{{xyz}} * {10**-power}"
        return f"in {_UNITS.get(power, 'another unit')}", formula
    return "in another unit", f"{{xyz}} / {factor:.2g}"


def _power(factor):
    """Return the power of ten that a factor is near to, 0 if none."""
    power = int(np.round(np.log10(factor)))
    return power if abs(np.log10(factor) - power) < 0.2 else 0


def _judge_size(electrodes):
    """Find caps that fit their names but no head's size."""
    size, fiducials = electrodes.size, electrodes.fiducials
    if _around_ears(electrodes.points):
        size = fit_sphere(electrodes.points)[1] / HEAD_RADIUS
    smallest = HEADS[0] if fiducials is None else 0.64
    if not electrodes.placement.fits or smallest <= size + 1e-3 <= 1.35:
        return None
    if fiducials is not None and size < 1:  # those of a small head are close, too
        ratio = sides(fiducials) / sides(template_head().fiducials)
        if 0.6 < ratio.mean() < 1.25 * size:
            return None
    return Fault(
        f"The electrodes are {size:.2g} times as far apart as on an adult's head. "
        "Heads, of infants too, are 0.7 to 1.15 times as large. Measure them again, or "
        f"scale them: {_mend(f'xyz / {size:.2g}')}",
        certain=False,
    )


def _around_ears(points):
    """Tell whether points lie on a sphere about the origin of head coordinates."""
    middle, _, rest = fit_sphere(points)
    return rest < 0.07 and np.linalg.norm(middle) < 0.015


def _judge_strays(electrodes):
    """Find single electrodes that are not where their names belong."""
    best = electrodes.placement
    far = best.strays
    if not far.any():
        return None
    return Fault(
        f"{far.sum()} of {len(far)} electrodes lie {1e3 * best.moved[far].min():.0f} "
        f"to {1e3 * best.moved[far].max():.0f} mm from where their names belong "
        f"({_some(electrodes, best, far)}). Check the order of names and positions; "
        "mark channels that lie elsewhere as bad.",
        certain=False,
    )


def _judge_beside(electrodes):
    """Find caps that sit beside their place: heads are as wide on the left."""
    best = electrodes.placement
    limits = _BESIDE
    if best.standard.numbered:  # the middle is no surer than the places around it
        limits = limits + np.quantile(best.rest, 0.75)
    beyond = np.abs(best.beside) / limits
    axis = int(beyond.argmax())
    if len(best.rest) < _FEWEST or not best.fits or beyond[axis] < 1:
        return None
    way = _WAYS[axis][int(best.beside[axis] < 0)]
    remedy = "the fiducials, and the coordinate frame"
    if axis == 0:
        remedy = (
            "the fiducials LPA and RPA, and the coordinate frame: both ears must be as "
            "far from the electrodes at the midline (Cz)"
        )
    return Fault(
        f"The electrodes lie {1e3 * abs(best.beside[axis]):.0f} mm too far {way} for "
        f"their names. Check {remedy}.",
        certain=False,
    )


# --------------------------------------------------------------- frames and axes


def _judge_trans(electrodes):
    """Find a head to MRI transform that contradicts the fiducials."""
    here, there = electrodes.in_head, electrodes.on_cortex
    if there is None or there.distance < FAR:
        return None
    return Fault(
        "In head coordinates the electrodes are where their names belong "
        f"({1e3 * here.distance:.0f} mm off in the median), but on this head they lie "
        f"{1e3 * there.distance:.0f} mm from there{_turned(there)}: trans, the "
        "transform from head to MRI coordinates, does not suit these positions. Leave "
        "it out in make_template_forward(info), or coregister again "
        "(mne.gui.coregistration) and make the forward solution with that trans.",
        certain=True,
    )


def _judge_swap(electrodes):
    """Find fiducials that go by one another's names."""
    if electrodes.fiducials is None:
        return None
    orders = _orders_by_names if electrodes.placement else _orders_by_shape
    order = orders(electrodes)
    if order is None:
        return None
    really = [_KEYS[order.index(i)] for i in range(3)]
    wrong = [f"{a} is the {b}" for a, b in zip(_KEYS, really) if a != b]
    swapped = ", ".join(f"pos['{_KEYS[i]}']" for i in order)
    keys = ", ".join(f"pos['{key}']" for key in _KEYS)
    return Fault(
        f"The fiducials seem to be swapped: the point given as {', as '.join(wrong)}. "
        f"Head coordinates follow from them, so the electrodes are turned"
        f"{_off(electrodes.placement)}. Name them right: pos = "
        f"info.get_montage().get_positions(); {keys} = {swapped}; pos['coord_frame'] = "
        "'unknown'; info.set_montage(mne.channels.make_dig_montage(**pos))",
        certain=True,
    )


def _orders():
    return [order for order in permutations(range(3)) if order != (0, 1, 2)]


def _orders_by_names(electrodes):
    """Return the order of fiducials that puts electrodes where their names belong."""
    found = []
    for order in _orders():
        trans = template_head().align(electrodes.fiducials[list(order)])
        best = electrodes.best(apply_trans(trans, electrodes.points))
        if best is not None and best.agrees:
            found.append((best.distance, order))
    return min(found, default=(0, None))[1]


def _orders_by_shape(electrodes):
    """Return the order that makes the triangle even and puts electrodes on top."""
    fiducials = electrodes.fiducials
    if _unevenness(fiducials) < 0.15 and _height(electrodes, (0, 1, 2)) > -0.02:
        return None
    found = [
        (_unevenness(fiducials[list(order)]), order)
        for order in _orders()
        if _height(electrodes, order) > 0.01
    ]
    unevenness, order = min(found, default=(1, None))
    return order if unevenness < 0.1 else None


def _unevenness(fiducials):
    _, left, right = sides(fiducials)
    return 2 * abs(left - right) / (left + right)


def _height(electrodes, order):
    """Return how high the electrodes' middle lies above the fiducials' plane (m)."""
    nasion, lpa, rpa = electrodes.fiducials[list(order)]
    up = np.cross(rpa - lpa, nasion - lpa)
    return (electrodes.points.mean(0) - lpa) @ up / max(np.linalg.norm(up), 1e-12)


def _judge_axes(electrodes):
    """Find caps that are turned, mirrored or shifted as a whole."""
    best = electrodes.placement
    if not best.fits:
        return None
    angle = _angle(best)
    if best.mirrored:
        what = "mirrored: left and right are exchanged"
    elif angle > 15:
        what = f"turned by {angle:.0f} degrees"
    else:
        what = f"shifted by {1e3 * best.shift:.0f} mm"
    axes = _read_axes(electrodes)
    if _around_ears(electrodes.points) and not best.standard.numbered:
        mend = (
            "Their positions lie on a sphere about the origin of head coordinates, "
            "which is between the ears, while a head's middle lies 45 mm higher. They "
            "are not measured: use info.set_montage('spherical_1005')."
        )
    elif axes is None:
        montage = best.standard.montage
        mend = (
            "Give the fiducials of the same coordinate frame, from which MNE finds the "
            "axes: info.set_montage(mne.channels.make_dig_montage(ch_pos, nasion, lpa, "
            "rpa)); of MRI coordinates, montage.add_estimated_fiducials(subject) finds "
            "them, of MNI coordinates montage.add_mni_fiducials(). If the positions "
            f"are not measured, use info.set_montage({montage!r})."
        )
    else:
        words, formula = axes
        mend = f"{words} MNE's axes point to the right, to the nose and up. {formula}"
    lacking = "" if electrodes.fiducials is not None else " (info has no fiducials)"
    return Fault(
        f"The electrodes are {what}{lacking}{_off(best)}. {mend}",
        certain=best.mirrored or angle > 45 or best.distance > FAR,
    )


def _angle(placement):
    turn = placement.turn * (-1 if placement.mirrored else 1)
    return np.degrees(Rotation.from_matrix(turn).magnitude())


def _read_axes(electrodes):
    """Say where the axes of the positions point, if they are axes of the head."""
    head = electrodes.trans
    if head is None:
        head = template_head().align(electrodes.fiducials)
    to_mri = head[:3, :3] / np.cbrt(np.linalg.det(head[:3, :3]))  # without the size
    right = (to_mri.T @ electrodes.placement.turn @ to_mri).T  # right = right @ given
    axes = np.round(right)
    whole = (np.abs(axes).sum(0) == 1).all() and (np.abs(axes).sum(1) == 1).all()
    if not whole or np.array_equal(axes, np.eye(3)) or np.trace(right.T @ axes) < 2.75:
        return None
    words, parts = [], []
    for i, letter in enumerate("XYZ"):
        j = int(np.abs(axes[:, i]).argmax())
        words.append(f"{letter} seems to point {_AXES[j][int(axes[j, i] < 0)]}")
        k = int(np.abs(axes[i]).argmax())
        parts.append(f"{'-' if axes[i, k] < 0 else ''}xyz[{k}]")
    formula = f"[{', '.join(parts)}]"
    return f"{', '.join(words)}.", f"Turn them: {_mend(formula)}"


def _judge_names(electrodes):
    """Report names that do not belong to the places."""
    best = electrodes.placement
    far = best.strays if best.strays.any() else best.moved >= best.distance
    return Fault(
        f"Names and places of the electrodes do not match: {far.sum()} of {len(far)} "
        f"electrodes lie {1e3 * best.moved[far].min():.0f} to "
        f"{1e3 * best.moved[far].max():.0f} mm from where their names belong "
        f"({_some(electrodes, best, far)}). Check the order of names and positions. If "
        "the positions are not measured, use "
        f"info.set_montage({best.standard.montage!r}).",
        certain=best.distance > FAR,
    )


# --------------------------------------------------------------- words


def _mend(formula, more=""):
    """Return the call that puts a formula of ``xyz`` in the place of positions."""
    return (
        "pos = info.get_montage().get_positions(); pos['ch_pos'] = {name: "
        f"{formula} for name, xyz in pos['ch_pos'].items()}}; {more}"
        "info.set_montage(mne.channels.make_dig_montage(**pos))"
    )


def _metres(length):
    return f"{length:.3g} m" if length >= 0.1 else f"{1e3 * length:.3g} mm"


def _off(placement):
    if placement is None:
        return ""
    return (
        f", and lie {1e3 * placement.distance:.0f} mm (median) from where their names "
        "belong"
    )


def _turned(placement):
    angle = _angle(placement)
    return f", turned by {angle:.0f} degrees" if angle > 15 else ""


def _some(electrodes, placement, which):
    picks = placement.standard.picks[which]
    names = [electrodes.names[pick] for pick in picks[:5]]
    return ", ".join(names) + (", ..." if len(picks) > 5 else "")

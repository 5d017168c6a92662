"""Faults of electrode positions: what is found, what is said, what is not."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import re

import mne
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mne_deepsif.head.faults import find_fault
from mne_deepsif.head.standard import template_head

KEYS = "nasion", "lpa", "rpa"


def cap(montage="biosemi64"):
    """Return positions, names and fiducials in head coordinates."""
    found = mne.channels.make_standard_montage(montage)
    info = mne.create_info(found.ch_names, 250.0, "eeg").set_montage(found)
    found = info.get_montage().get_positions()
    points = np.array(list(found["ch_pos"].values()))
    return points, info["ch_names"], np.array([found[key] for key in KEYS])


def to_head(points, nasion, lpa, rpa):
    """Turn points and fiducials as head coordinates are defined."""
    trans = mne.transforms.get_ras_to_neuromag_trans(nasion, lpa, rpa)
    fiducials = mne.transforms.apply_trans(trans, np.array([nasion, lpa, rpa]))
    return mne.transforms.apply_trans(trans, points), fiducials


# --------------------------------------------------------------- what is right


@pytest.mark.parametrize("montage", mne.channels.get_builtin_montages())
def test_montages_of_mne(montage):
    """On heads of infants and of large adults, and a little displaced."""
    points, names, fiducials = cap(montage)
    rng = np.random.default_rng(0)
    for size in (0.7, 0.85, 1.0, 1.15):
        moved = points + rng.normal(0, 3e-3, points.shape)
        for given in (points, moved):
            fault = find_fault(size * given, names, size * fiducials)
            assert fault is None, fault


@pytest.mark.parametrize("n_channels", (1, 2, 3, 4, 8))
def test_few_electrodes(n_channels):
    points, names, fiducials = cap()
    rng = np.random.default_rng(n_channels)
    for _ in range(10):
        some = rng.permutation(64)[:n_channels]
        fault = find_fault(points[some], np.array(names)[some], fiducials)
        assert fault is None, fault


def test_known_names_need_no_fiducials():
    points, names, _ = cap()
    assert find_fault(points, names) is None


def test_head_of_another_size():
    """What counts is the head at hand: an infant's cap on an infant's head."""
    points, names, fiducials = cap()
    to_mri = template_head().align(fiducials)
    trans = to_mri @ np.diag([2, 2, 2, 1.0])
    fault = find_fault(0.5 * points, [f"X{i}" for i in range(64)], None, trans)
    assert "Nothing tells" in fault.text  # but the size is right


# --------------------------------------------------------------- units, sizes


UNITS = (
    (1e3, "in mm", "xyz / 1000"),
    (1e2, "in cm", "xyz / 100"),
    (1 / 0.095, "on a sphere of radius 1", "xyz * 0.095"),
    (1e-3, "in km", "xyz * 1000"),
)


@pytest.mark.parametrize(("factor", "unit", "formula"), UNITS)
@pytest.mark.parametrize("known", (True, False))
def test_units(factor, unit, formula, known):
    points, names, fiducials = cap()
    names = names if known else [f"X{i}" for i in range(64)]
    fault = find_fault(factor * points, names, factor * fiducials)
    assert fault.certain and "electrodes and the fiducials" in fault.text
    assert unit in fault.text and formula in fault.text
    for given in (fiducials, None):
        fault = find_fault(factor * points, names, given)
        assert fault.certain and "the fiducials" not in fault.text
        assert unit in fault.text and formula in fault.text


@pytest.mark.parametrize(("factor", "formula"), ((1e3, " / 1000"), (1e-2, " * 100")))
def test_units_of_fiducials(factor, formula):
    points, names, fiducials = cap()
    points, fiducials = to_head(points + [0, 0.02, 0.04], *(factor * fiducials))
    fault = find_fault(points, names, fiducials)
    assert fault.certain and "Nasion, LPA and RPA are" in fault.text
    assert f"nasion{formula}, lpa{formula}, rpa{formula}" in fault.text


@pytest.mark.parametrize("factor", (0.55, 1.5))
def test_sizes_of_no_head(factor):
    points, names, _ = cap()
    fault = find_fault(factor * points, names)
    assert not fault.certain and "times as far apart" in fault.text


@pytest.mark.parametrize(("factor", "formula"), ((1e3, "/ 1000"), (10, "/ 10")))
@pytest.mark.parametrize("n_wrong", (1, 3, 32, 50))
@pytest.mark.parametrize("known", (True, False))
def test_units_of_some_electrodes(factor, formula, n_wrong, known):
    """They are projected onto the scalp like others, but named; with the mend."""
    points, names, fiducials = cap()
    names = names if known else [f"X{i}" for i in range(64)]
    wrong = np.random.default_rng(n_wrong).permutation(64)[:n_wrong]
    points[wrong] *= factor
    for given in (fiducials, None):
        fault = find_fault(points, names, given)
        assert fault.text.startswith(f"{n_wrong} of 64 electrodes")
        assert fault.certain == (n_wrong > 2 or factor > 10)
        if not fault.certain:  # one at 1 m may be on a leg
            continue
        assert f"ch_pos[name] {formula} for" in fault.text
        named = re.search(r"for name in (\[.*?\])", fault.text)[1]
        assert eval(named) == [names[i] for i in sorted(wrong)]


@pytest.mark.parametrize(
    "places",  # m, in head coordinates
    (
        [(0.05, 0.08, -0.3)],  # ECG on the chest
        [(0.15, 0.05, -0.25), (-0.15, 0.05, -0.25)],  # shoulders
        [(0.4, 0.1, -0.6), (-0.4, 0.1, -0.6), (0.15, 0.1, -1.3)],  # limbs
    ),
)
@pytest.mark.parametrize("known", (True, False))
def test_electrodes_on_the_body(places, known):
    """They are doubtful, but in no other unit."""
    points, names, fiducials = cap()
    names = names if known else [f"X{i}" for i in range(64)]
    points = np.vstack([points, places])
    names = names + ["ECG", "EMG1", "EMG2"][: len(places)]
    fault = find_fault(points, names, fiducials)
    assert not fault.certain and "unit" not in fault.text
    assert "(ECG" in fault.text and "Mark these channels as bad" in fault.text


# --------------------------------------------------------------- axes, frames


@pytest.mark.parametrize(
    ("axes", "formula"),
    (  # how right positions (x, y, z) are given, and how to get them back
        (lambda x, y, z: (y, -x, z), "[-xyz[1], xyz[0], xyz[2]]"),
        (lambda x, y, z: (-y, x, z), "[xyz[1], -xyz[0], xyz[2]]"),
        (lambda x, y, z: (-x, -y, z), "[-xyz[0], -xyz[1], xyz[2]]"),
        (lambda x, y, z: (x, -z, y), "[xyz[0], xyz[2], -xyz[1]]"),
        (lambda x, y, z: (-x, y, z), "[-xyz[0], xyz[1], xyz[2]]"),
        (lambda x, y, z: (y, x, z), "[xyz[1], xyz[0], xyz[2]]"),
    ),
)
@pytest.mark.parametrize("montage", ("biosemi64", "GSN-HydroCel-128", "fsaverage_1020"))
def test_axes(axes, formula, montage):
    points, names, _ = cap(montage)
    given = np.column_stack(axes(*points.T))
    fault = find_fault(given, names)
    assert fault.certain and formula in fault.text
    mirrored = np.linalg.det(np.column_stack(axes(*np.eye(3)))) < 0
    assert ("mirrored" in fault.text) == mirrored
    assert ("turned by" in fault.text) != mirrored


@pytest.mark.parametrize(("angle", "certain"), ((30, None), (60, True), (170, True)))
def test_turned(angle, certain):
    points, names, _ = cap()
    for axis in np.eye(3):
        turn = Rotation.from_rotvec(angle * axis, degrees=True).as_matrix()
        fault = find_fault(points @ turn.T, names)
        assert "turned by" in fault.text and "(info has no fiducials)" in fault.text
        assert certain is None or fault.certain


@pytest.mark.parametrize("montage", ("biosemi64", "GSN-HydroCel-128", "fsaverage_1020"))
@pytest.mark.parametrize("size", (0.75, 1.0, 1.15))
def test_beside_the_middle(montage, size):
    """A head is as wide on the left: 10 mm are let pass, 20 mm are not."""
    points, names, _ = cap(montage)
    for shift, side in ((0.02, "right"), (-0.02, "left")):
        moved = size * (points + [shift, 0, 0])
        fault = find_fault(moved, names)
        assert f"too far to the {side} for their names" in fault.text
        assert not fault.certain
        assert abs(int(re.search(r"(\d+) mm too far", fault.text)[1]) - 20) <= 2
        assert find_fault(size * (points + [shift / 2, 0, 0]), names) is None
    half = points[:, 0] > 0.01  # the middle of half a cap is beside that of the head
    assert find_fault(size * points[half], np.array(names)[half]) is None


@pytest.mark.parametrize("axis, ways", ((1, ("front", "back")), (2, ("up", "down"))))
def test_far_from_the_place(axis, ways):
    """Heads and montages differ by up to 14 mm along these axes."""
    points, names, fiducials = cap("GSN-HydroCel-128")
    for sign, way in zip((1, -1), ways):
        shift = sign * 0.04 * np.eye(3)[axis]
        fault = find_fault(points + shift, names, fiducials)
        assert re.search(f"mm too far (to the )?{way} for their names", fault.text)
        assert find_fault(points + 0.4 * shift, names, fiducials) is None


def test_positions_in_mri_coordinates():
    """Not turned much, but 45 mm too low."""
    points, names, _ = cap("colin27_1005")
    given = mne.transforms.apply_trans(template_head().to_mri, points)
    fault = find_fault(given, names)
    assert "shifted by" in fault.text and "add_estimated_fiducials" in fault.text


def test_trans_that_does_not_suit():
    """The electrodes are right, but not where trans puts them on the head."""
    points, names, fiducials = cap()
    right = template_head().align(fiducials)
    wrong = right @ mne.transforms.rotation(z=np.pi / 2)
    assert find_fault(points, names, fiducials, right) is None
    fault = find_fault(points, names, fiducials, wrong)
    assert fault.certain and "trans, the transform" in fault.text
    assert re.search("turned by (8|9).", fault.text)


# --------------------------------------------------------------- fiducials, names


@pytest.mark.parametrize(
    ("order", "text"),
    (
        ((0, 2, 1), "lpa is the rpa, as rpa is the lpa"),
        ((1, 0, 2), "nasion is the lpa, as lpa is the nasion"),
        ((2, 1, 0), "nasion is the rpa, as rpa is the nasion"),
        ((1, 2, 0), "nasion is the lpa, as lpa is the rpa, as rpa is the nasion"),
        ((2, 0, 1), "nasion is the rpa, as lpa is the nasion, as rpa is the lpa"),
    ),
)
@pytest.mark.parametrize("known", (True, False))
def test_swapped_fiducials(order, text, known):
    points, names, fiducials = cap()
    names = names if known else [f"X{i}" for i in range(64)]
    points, given = to_head(points, *fiducials[list(order)])
    fault = find_fault(points, names, given)
    assert fault.certain and f"the point given as {text}." in fault.text
    assert ("where their names belong" in fault.text) == known


@pytest.mark.parametrize("montage", ("biosemi64", "GSN-HydroCel-128", "biosemi256"))
def test_names_in_another_order(montage):
    points, names, fiducials = cap(montage)
    order = np.random.default_rng(0).permutation(len(names))
    fault = find_fault(points[order], names, fiducials)
    assert fault.certain and "Names and places" in fault.text
    assert f"of {len(names)} electrodes lie" in fault.text


def test_two_names_exchanged():
    points, names, fiducials = cap()
    some = [names.index("Fp1"), names.index("O2")]
    points[some] = points[some[::-1]]
    fault = find_fault(points, names, fiducials)
    assert not fault.certain and fault.text.startswith("2 of 64 electrodes lie")
    assert "(Fp1, O2)" in fault.text

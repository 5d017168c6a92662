"""Electrodes beside the scalp, where names do not tell."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
import pytest

from mne_deepsif.head.faults import find_fault

RNG = np.random.default_rng(0)


def cap(montage="biosemi64"):
    """Return positions and fiducials in head coordinates, and names without meaning."""
    found = mne.channels.make_standard_montage(montage)
    info = mne.create_info(found.ch_names, 250.0, "eeg").set_montage(found)
    found = info.get_montage().get_positions()
    fiducials = np.array([found[key] for key in ("nasion", "lpa", "rpa")])
    points = np.array(list(found["ch_pos"].values()))
    return points, [f"X{i}x" for i in range(len(points))], fiducials


def shafts(points, n_shafts):
    """Return contacts every 3.5 mm from 15 mm under electrodes towards the middle."""
    contacts = []
    for entry in points[RNG.permutation(len(points))[:n_shafts]]:
        inwards = np.array([0, 0, 0.04]) - entry
        inwards /= np.linalg.norm(inwards)
        contacts += [entry + inwards * (0.015 + 0.0035 * i) for i in range(14)]
    return np.array(contacts)


@pytest.mark.parametrize("montage", ("biosemi64", "GSN-HydroCel-256", "fsaverage_1020"))
@pytest.mark.parametrize("size", (0.7, 0.85, 1.0, 1.15))
def test_caps_are_silent(montage, size):
    points, names, fiducials = cap(montage)
    assert find_fault(size * points, names, size * fiducials) is None


@pytest.mark.parametrize("with_fiducials", (True, False))
@pytest.mark.parametrize("n_shafts", (1, 3, 8))
def test_depth_contacts(n_shafts, with_fiducials):
    points, _, fiducials = cap()
    contacts = shafts(points, n_shafts)
    names = [f"L{i // 14}C{i % 14}" for i in range(len(contacts))]
    fault = find_fault(contacts, names, fiducials if with_fiducials else None)
    assert fault.certain
    assert "inside the head" in fault.text and "'seeg'" in fault.text


@pytest.mark.parametrize("known", (True, False))
def test_depth_contacts_among_electrodes(known):
    """A few of them, which are those that the message counts."""
    montage = mne.channels.make_standard_montage("biosemi64")
    points, names, fiducials = cap()
    names = montage.ch_names if known else names
    contacts = shafts(points, 1)[-4:]
    both = np.vstack([points, contacts])
    fault = find_fault(both, [*names, *"abcd"], fiducials)
    assert fault.certain and fault.text.startswith("4 of 68 EEG channels lie")


@pytest.mark.parametrize("move", ([0, 0.1, 0], [0, 0, 0.09], [0.2, 0, 0]))
def test_caps_beside_the_head(move):
    points, names, fiducials = cap()
    fault = find_fault(points + move, names, fiducials)
    assert "mm from the scalp" in fault.text or "inside the head" in fault.text
    assert "coordinate frame" in fault.text


def test_axes_that_nothing_tells():
    """Neither names nor fiducials; a long head tells of a quarter turn."""
    points, names, _ = cap("fsaverage_1010")
    fault = find_fault(points, names)
    assert not fault.certain and "Nothing tells whether the axes" in fault.text
    assert "quarter turn" not in fault.text
    turned = points[:, [1, 0, 2]] * [1, -1, 1]
    assert "quarter turn" in find_fault(turned, names).text


def test_upside_down():
    """LPA and RPA exchanged turn head coordinates by 180 degrees about the nose."""
    points, names, fiducials = cap()
    turned, swapped = points * [-1, 1, -1], fiducials[[0, 2, 1]] * [-1, 1, -1]
    fault = find_fault(turned, names, swapped)
    assert fault.certain
    assert "the point given as lpa is the rpa, as rpa is the lpa" in fault.text


def test_spherical_caps():
    """MNE's, whatever the size: nothing tells their axes, but they are caps."""
    points, names, _ = cap("spherical_1010")
    for size in (0.7, 0.9, 1.0, 1.1, 1.15):
        fault = find_fault(size * points, names)
        assert not fault.certain and "Nothing tells" in fault.text


def test_shaft_of_few_contacts():
    """It is not called a cap of another unit."""
    points = np.array([[-0.065 + 0.0035 * i, 0.0, 0.04] for i in range(12)])
    fault = find_fault(points, [f"LH{i}" for i in range(12)])
    assert fault.certain and "inside the head" in fault.text


def test_subdural_grid():
    """Fiducials tell how large the head is, and that the contacts lie under it."""
    points, _, fiducials = cap("fsaverage_1005")
    side = points[(points[:, 0] < -0.04) & (points[:, 2] > 0)]
    names = [f"G{i}" for i in range(len(side))]
    middle = np.array([0, 0, 0.04])
    assert find_fault(side, names, fiducials) is None
    fault = find_fault(middle + 0.8 * (side - middle), names, fiducials)
    assert not fault.certain and "'ecog'" in fault.text


def test_patch_of_electrodes():
    """Sixteen electrodes within 2 cm are no cap in another unit."""
    points, _, fiducials = cap("fsaverage_1005")
    near = np.argsort(np.linalg.norm(points - points[40], axis=1))[:16]
    patch = points[40] + 0.4 * (points[near] - points[40])
    fault = find_fault(patch, [f"P{i}x" for i in range(16)], fiducials)
    assert fault is None or not fault.certain, fault

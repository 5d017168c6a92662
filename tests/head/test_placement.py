"""Caps compared with where their names belong."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mne_deepsif.head.placement import Electrodes


def cap(montage="biosemi64"):
    """Return names, positions and fiducials in head coordinates."""
    found = mne.channels.make_standard_montage(montage)
    info = mne.create_info(found.ch_names, 250.0, "eeg").set_montage(found)
    found = info.get_montage().get_positions()
    fiducials = np.array([found[key] for key in ("nasion", "lpa", "rpa")])
    return info["ch_names"], np.array(list(found["ch_pos"].values())), fiducials


def test_a_cap_in_its_place():
    names, points, fiducials = cap()
    electrodes = Electrodes(points, names, fiducials)
    placement = electrodes.placement
    assert placement.agrees and placement.fits and not placement.strays.any()
    assert not placement.mirrored
    assert electrodes.size == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("factor", (0.01, 0.8, 30.0))
@pytest.mark.parametrize("mirror", (1, -1))
def test_size_and_turn_are_found(factor, mirror):
    """Relative to the cap in its place, also with a few wrong electrodes."""
    names, points, _ = cap()
    before = Electrodes(points, names).placement
    turn = Rotation.from_rotvec([0.4, 1.0, -0.7]).as_matrix() * [mirror, 1, 1]
    moved = factor * points @ turn.T + [0.3, 0, -0.1]
    moved[:5] = 0.0
    electrodes = Electrodes(moved, names)
    placement = electrodes.placement
    assert placement.mirrored == (mirror < 0)
    assert electrodes.size / before.scale == pytest.approx(factor, rel=0.05)
    # the template's coordinates differ from head coordinates by 3 degrees
    to_mri = np.eye(4)[:3, :3]
    difference = placement.turn @ (turn @ before.turn).T
    angle = np.degrees(np.arccos((np.trace(difference @ to_mri) - 1) / 2))
    assert angle < 12 and placement.fits and not placement.agrees


def test_numbers_of_another_cap_mean_nothing():
    """64 channels named E1 to E64 that do not lie as those of EGI do."""
    _, points, fiducials = cap("biosemi64")
    names = [f"E{i}" for i in range(1, 65)]
    assert Electrodes(points, names, fiducials).placement is None


def test_a_whole_cap_in_another_order():
    """Then the places say which cap it is, though the names lie elsewhere."""
    names, points, fiducials = cap("GSN-HydroCel-128")
    order = np.random.default_rng(0).permutation(len(points))
    placement = Electrodes(points[order], names, fiducials).placement
    assert placement is not None and not placement.agrees and not placement.fits

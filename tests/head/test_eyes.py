"""The field of the eyes: against formulas of a sphere, and where it is largest."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
import pytest
from mne.io.constants import FIFF
from numpy.testing import assert_allclose
from scipy.special import eval_legendre

from mne_deepsif.head.eyes import eye_gain

# right and left of the nasion, behind and below it (m); middle of the sphere
EYES = np.array([[-0.032, -0.022, -0.010], [0.032, -0.022, -0.010]])
MIDDLE = np.array([0.0, 0.0, 0.04])


def electrodes(nasion=None):
    """Give 32 electrodes, with a nasion of their montage or another one."""
    montage = mne.channels.make_standard_montage("biosemi32").get_positions()
    if nasion is not None:
        montage["nasion"] = np.array(nasion)
    places = {key: montage[key] for key in ("ch_pos", "nasion", "lpa", "rpa")}
    made = mne.channels.make_dig_montage(**places, coord_frame="head")
    info = mne.create_info(made.ch_names, 100.0, "eeg")
    return info.set_montage(made)


def magnetometers():
    """Give 102 magnetometers, 45 mm above where the device's origin would put them."""
    info = mne.channels.read_meg_canonical_info("neuromag")
    info = mne.pick_info(info, mne.pick_types(info, meg="mag"))
    trans = np.eye(4)
    trans[2, 3] = 0.045
    with info._unlock():
        info["dev_head_t"] = mne.transforms.Transform("meg", "head", trans)
    return info


# --------------------------------------------------------------- formulas


def potential(source, sensors, radius, sigma=0.33, n_terms=400, step=1e-5):
    """Sum the Legendre series of dipoles in a homogeneous sphere, on its surface."""
    n = np.arange(1, n_terms)

    def series(point):
        r = np.linalg.norm(point)
        cosine = sensors @ point / (np.linalg.norm(sensors, axis=1) * r)
        terms = eval_legendre(n, cosine[:, np.newaxis])
        terms *= (2 * n + 1) / n * (r / radius) ** n / radius
        return terms.sum(1) / (4 * np.pi * sigma)

    return np.column_stack(
        [
            (series(source + move) - series(source - move)) / (2 * step)
            for move in step * np.eye(3)
        ]
    )


def test_eeg_by_the_series_of_a_sphere():
    """The potential of Legendre's series, at electrodes that lie on the sphere."""
    nasion = np.array([0.0, 0.095, 0.004])
    info = electrodes(nasion)
    sources = nasion + EYES - MIDDLE
    radius = np.linalg.norm(sources, axis=1).max() / 0.88
    for ch in info["chs"]:  # MNE takes electrodes where they are
        place = ch["loc"][:3] - MIDDLE
        ch["loc"][:3] = MIDDLE + radius * place / np.linalg.norm(place)
    sensors = np.array([ch["loc"][:3] for ch in info["chs"]]) - MIDDLE
    expected = sum(potential(source, sensors, radius) for source in sources)
    found = eye_gain(info)
    expected, found = (x - x.mean(0) for x in (expected, found))
    assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def sarvas(moment, source, points, normals):
    """Compute the field (T) of a dipole in a sphere about the origin (Sarvas, 1987)."""
    a = points - source
    la, lr = np.linalg.norm(a, axis=1), np.linalg.norm(points, axis=1)
    ar = (a * points).sum(1)
    F = la * (lr * la + lr**2 - points @ source)
    c1 = la**2 / lr + ar / la + 2 * la + 2 * lr
    c2 = la + 2 * lr + ar / la
    slope = c1[:, np.newaxis] * points - c2[:, np.newaxis] * source
    turn = np.cross(moment, source)
    field = F[:, np.newaxis] * turn - (points @ turn)[:, np.newaxis] * slope
    return 1e-7 * (field / F[:, np.newaxis] ** 2 * normals).sum(1)


def test_meg_by_the_formula_of_sarvas():
    """Point magnetometers, and a nasion 10 cm before the middle where none is known."""
    info = magnetometers()
    for ch in info["chs"]:
        ch["coil_type"] = FIFF.FIFFV_COIL_POINT_MAGNETOMETER
    assert not info["dig"]
    loc = np.array([ch["loc"] for ch in info["chs"]])
    points = loc[:, :3] + [0, 0, 0.045] - MIDDLE
    sources = np.array([0.0, 0.1, 0.0]) + EYES - MIDDLE
    expected = np.column_stack(
        [
            sum(sarvas(moment, source, points, loc[:, 9:]) for source in sources)
            for moment in np.eye(3)
        ]
    )
    assert_allclose(eye_gain(info), expected, atol=1e-6 * np.abs(expected).max())


# --------------------------------------------------------------- where it is largest


def test_frontal_electrodes_see_the_eyes_best():
    """Those nearest the eyes have the largest potentials, the last ones the least."""
    info = electrodes()
    field = eye_gain(info)
    size = np.linalg.norm(field - field.mean(0), axis=1)
    order = np.array(info["ch_names"])[np.argsort(-size)]
    assert set(order[:2]) == {"Fp1", "Fp2"}
    assert set(order[:6]) == {"Fp1", "Fp2", "AF3", "AF4", "F7", "F8"}
    behind = [info["ch_names"].index(name) for name in ("O1", "Oz", "O2", "Pz")]
    assert size[behind].max() < 0.4 * size.max()


def test_frontal_magnetometers_see_the_eyes_best():
    info = magnetometers()
    size = np.linalg.norm(eye_gain(info), axis=1)
    y = np.array([ch["loc"][1] for ch in info["chs"]])
    assert y[np.argsort(-size)[:10]].min() > 0.02  # m, in front of the middle


@pytest.mark.parametrize("make", (electrodes, magnetometers))
def test_mirrored(make):
    """On sensors that are symmetric, dipoles along x change sign from side to side."""
    info = make()
    points = np.array([ch["loc"][:3] for ch in info["chs"]])
    apart = np.linalg.norm(points[:, np.newaxis] - points * [-1, 1, 1], axis=2)
    other = apart.argmin(1)
    assert apart.min(1).max() < 5e-3
    field = eye_gain(info)
    # a potential is even, a magnetic field odd: it turns with the mirror
    sign = np.array([-1, 1, 1]) * (1 if make is electrodes else -1)
    close = apart.min(1) < 1e-3
    assert close.mean() > 0.4
    tolerance = 0.05 * np.abs(field).max(0)
    assert (np.abs(field - sign * field[other])[close] < tolerance).all()


# --------------------------------------------------------------- where the eyes are


def test_shift_moves_the_eyes_as_the_nasion_does():
    """Dipoles 10 mm higher are those of a nasion 10 mm higher, and are seen better."""
    nasion, shift = np.array([0.0, 0.095, 0.0]), np.array([0.0, 0.0, 0.01])
    moved = eye_gain(electrodes(nasion), shift)
    assert_allclose(moved, eye_gain(electrodes(nasion + shift)), rtol=1e-9)
    plain = eye_gain(electrodes(nasion))
    assert np.abs(moved - plain).max() > 0.05 * np.abs(plain).max()
    info = magnetometers()
    nearer = eye_gain(info, (0.0, 0.01, 0.01))
    assert np.linalg.norm(nearer) > 1.1 * np.linalg.norm(eye_gain(info))


def test_nasion_where_none_is_digitised():
    info = electrodes([0.0, 0.1, 0.0])
    expected = eye_gain(info)
    with info._unlock():
        info["dig"] = None
    assert_allclose(eye_gain(info), expected, rtol=1e-9)


def test_one_channel_is_one_row():
    """What a sensor sees does not depend on the other sensors."""
    info = electrodes()
    few = mne.pick_info(info, [30, 2])
    assert_allclose(eye_gain(few), eye_gain(info)[[30, 2]], rtol=1e-9)


def test_eyes_of_meg_and_without_positions():
    info = magnetometers()
    field = eye_gain(info)
    front = np.array([ch["loc"][1] for ch in info["chs"]]) > 0
    assert field.shape == (102, 3)
    assert np.square(field[front]).sum() > 5 * np.square(field[~front]).sum()
    with info._unlock():
        info["dev_head_t"] = None
    assert eye_gain(info) is None
    assert eye_gain(mne.create_info(["a", "b"], 100.0, "eeg")) is None


def test_own_coils_need_their_definition(tmp_path):
    """As those of MNE's OPM data set, which come with a file."""
    info = magnetometers()
    points = info.copy()
    for ch in info["chs"]:
        ch["coil_type"] = 9999
    for ch in points["chs"]:
        ch["coil_type"] = FIFF.FIFFV_COIL_POINT_MAGNETOMETER
    assert eye_gain(info) is None
    text = '1   9999 {} 1 0.0 0.0 "OPM"\n 1.0 0.0 0.0 0.0 0.0 0.0 1.0\n'
    coils = tmp_path / "coil_def.dat"
    coils.write_text("".join(text.format(accuracy) for accuracy in range(3)))
    with mne.use_coil_def(coils):
        assert_allclose(eye_gain(info), eye_gain(points))

"""Where electrodes belong: the template's scalp, names, fits."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from mne_deepsif.head.standard import (
    find_standards,
    fit_similarity,
    fit_sphere,
    sort_fiducials,
    template_head,
)

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("mirrored", (False, True))
def test_similarity(mirrored):
    """It finds the transform that the points were moved by."""
    points = RNG.standard_normal((9, 3))
    turn = Rotation.from_rotvec([0.3, -1.0, 0.2]).as_matrix()
    turn = turn * ([-1, 1, 1] if mirrored else 1)
    moved = 3.0 * points @ turn.T + [1, 2, 3]
    scale, found, shift = fit_similarity(points, moved, mirrored=mirrored)
    assert scale == pytest.approx(3)
    assert_allclose(found, turn, atol=1e-12)
    assert_allclose(shift, [1, 2, 3], atol=1e-12)
    weights = np.r_[np.ones(8), 0]
    moved[8] = 100.0  # does not count
    _, found, _ = fit_similarity(points, moved, weights=weights, mirrored=mirrored)
    assert_allclose(found, turn, atol=1e-12)


def test_sphere():
    directions = RNG.standard_normal((20, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    middle, radius, rest = fit_sphere(0.09 * directions + [0, 0.01, 0.04])
    assert_allclose(middle, [0, 0.01, 0.04], atol=1e-9)
    assert radius == pytest.approx(0.09) and rest < 1e-9
    assert fit_sphere(directions[:7])[1] == np.inf


def test_alignment_is_mnes():
    """Of fiducials by rotation and shift; without them, the built-in transform."""
    head = template_head()
    fiducials = np.array([[0, 0.1, 0], [-0.08, 0, 0], [0.08, 0, 0]])
    expected = mne.coreg.fit_matched_points(fiducials, head.fiducials)
    assert_allclose(head.align(fiducials), expected, atol=1e-5)
    assert_allclose(
        mne.transforms.apply_trans(head.align(None), [0.0, 0, 0]), head.ears
    )


def test_depth():
    """Points beside vertices, along the normals."""
    head = template_head()
    some = np.argsort(head.rr[:, 2])[-200:]
    for move in (0.004, -0.004):
        depth = head.depth(head.rr[some] + move * head.nn[some])
        assert_allclose(depth, -move, atol=1e-3)
    half = head.ears + 0.5 * (head.rr[some] - head.ears)
    assert_allclose(head.depth(half, 0.5), 0, atol=1e-12)


def test_fiducials_are_sorted():
    points = [dict(ident=i, r=np.full(3, i)) for i in (3, 1, 2)]  # RPA, LPA, nasion
    assert_allclose(sort_fiducials(points)[:, 0], [2, 1, 3])
    assert sort_fiducials(points[:2]) is None


@pytest.mark.parametrize(
    "spelling",
    (
        str,
        str.upper,
        "EEG {}".format,
        "EEG {}-REF".format,
        "{}-LE".format,
        "{}.".format,
    ),
)
def test_names_of_the_ten_twenty_system(spelling):
    names = ["Fp1", "Cz", "T3", "O2", "A1"]
    (standard,) = find_standards([spelling(name) for name in names])
    assert standard.montage == "fsaverage_1005" and not standard.numbered
    assert list(standard.picks) == [0, 1, 2, 3, 4]
    front, top, left, back, ear = standard.places
    assert front[1] > 0.05 > -0.05 > back[1]
    assert top[2] == standard.places[:, 2].max()
    assert left[0] < -0.05 and ear[0] < -0.05


@pytest.mark.parametrize(
    "montage", ("GSN-HydroCel-128", "biosemi256", "easycap-M10", "mgh60", "EGI_256")
)
def test_names_that_are_numbers(montage):
    names = mne.channels.make_standard_montage(montage).ch_names
    standards = find_standards(names)
    assert all(standard.numbered for standard in standards)
    assert montage in [standard.montage for standard in standards]


def test_letters_of_biosemi():
    """A1 to B32 are the names of its 64 channels in the 10-20 system, in that order."""
    letters = [f"{letter}{i}" for letter in "AB" for i in range(1, 33)]
    known = mne.channels.make_standard_montage("biosemi64").ch_names
    (standard,) = [s for s in find_standards(letters) if s.montage == "biosemi64"]
    (named,) = find_standards(known)
    # a sphere's place and a head's
    assert np.linalg.norm(standard.places - named.places, axis=1).max() < 0.02


def test_names_that_nothing_knows():
    assert not find_standards(["LA1", "LA2", "LA3"])
    assert not find_standards(["Cz", "LA1", "LA2"])  # less than half

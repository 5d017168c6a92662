"""One subject's leadfield, and the errors that a forward solution may have."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from mne_deepsif.head.leadfield import make_leadfield
from mne_deepsif.head.template import make_template_trans
from mne_deepsif.network.encoder import N_SCALES
from mne_deepsif.training import personal
from mne_deepsif.training.personal import (
    Sensors,
    displace,
    draw_shifts,
    make_personal_leadfield,
    read_sensors,
)


@pytest.fixture(scope="module")
def grid():
    """Give electrodes, magnetometers, pairs of gradiometers on a plane, 3 cm apart."""
    x, y = (0.03 * axis.ravel() for axis in np.mgrid[:5, :5])
    places = np.tile(np.c_[x, y, 0 * x], (4, 1))
    axes = np.repeat([[1.0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]], 25, axis=0)
    return Sensors(places, axes, np.repeat(["eeg", "mag", "grad", "grad"], 25))


def test_displacement_is_exact_for_linear_fields(grid):
    """Only within the plane of the sensors, and only among those of a kind."""
    slope = np.random.default_rng(0).standard_normal((4, 3))
    kind = np.repeat(np.arange(4), 25)  # a field of its own for each kind

    def field(places):
        return (slope[kind] * places).sum(1) + kind

    shifts = np.random.default_rng(1).uniform(-4e-3, 4e-3, (100, 3))
    matrix = displace(grid, shifts)
    along = shifts * [1, 1, 0]
    assert_allclose(matrix @ field(grid.places), field(grid.places + along), atol=1e-10)
    assert_allclose(matrix.sum(1), 1)
    assert_allclose(displace(grid, 0 * shifts), np.eye(100))


def test_too_few_neighbours(grid):
    """Sensors without three others of their kind stay as they are."""
    few = Sensors(grid.places[:3], grid.axes[:3], grid.ch_types[:3])
    assert_allclose(displace(few, np.full((3, 3), 1e-3)), np.eye(3))


def test_shifts(grid):
    """Electrodes move with the head and by themselves, coils with the head alone."""
    shifts = draw_shifts(grid, np.random.default_rng(2))
    distance = np.linalg.norm(shifts, axis=1)
    assert 1e-3 < np.median(distance) < 1e-2
    assert_allclose(shifts[25:50], shifts[50:75])  # two coils of one place
    assert np.abs(shifts[:25] - shifts[25:50]).max() > 1e-3


def test_displacement_against_a_forward(eeg_info, eeg_fwd, template_src):
    """Maps change by as much as those that MNE computes, and much alike."""
    sphere = mne.make_sphere_model((0.0, 0.0, 0.04), 0.125, eeg_info)
    trans = make_template_trans(eeg_info)
    names = eeg_info.ch_names
    sensors = read_sensors(eeg_fwd, names, ["eeg"] * len(names))
    shifts = draw_shifts(sensors, np.random.default_rng(3))
    info = eeg_info.copy()
    for ch, shift in zip(info["chs"], shifts, strict=True):
        ch["loc"][:3] += shift
    moved = mne.make_forward_solution(info, trans, template_src, sphere, mindist=0.0)
    given, true = eeg_fwd["sol"]["data"], moved["sol"]["data"]
    found = displace(sensors, shifts) @ given
    expected, found = (
        (one - given - (one - given).mean(0)).ravel() for one in (true, found)
    )
    # the sparser a cap, the less its neighbours tell
    assert np.corrcoef(expected, found)[0, 1] > 0.25
    assert 0.3 < np.linalg.norm(found) / np.linalg.norm(expected) < 1.5


@pytest.fixture(scope="module", params=("free", "fixed"))
def made(request, eeg_info, eeg_fwd, parcels):
    """Give a personal leadfield, and what it was made of."""
    fwd = eeg_fwd
    if request.param == "fixed":
        fwd = mne.convert_forward_solution(fwd, surf_ori=True, force_fixed=True)
    cov = mne.make_ad_hoc_cov(eeg_info)
    leadfield = make_leadfield(eeg_info, fwd, cov, parcels=parcels)
    rng = np.random.default_rng(4)
    background = rng.standard_normal((parcels.n_parcels, 900))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(personal, "_N_PATCHES", 50)
        found = make_personal_leadfield(leadfield, fwd, parcels, background, True, 0)
    return found, leadfield, background


def test_truths(made):
    """A quarter have the gain that is assumed; the noise of all is as strong."""
    (assumed, truths), leadfield, background = made
    gains = torch.stack([truth.patch_gain for truth in truths])
    n_exact = len(truths) // 4
    for gain in gains[1:n_exact]:
        assert_allclose(gain, gains[0], atol=1e-6 * gains.abs().max())
    flat = gains.flatten(1)
    likeness = torch.cosine_similarity(flat[:1], flat[n_exact:])
    assert (likeness < 0.9999).all() and (likeness > 0.9).all()
    covariance = np.cov(background[:, ::3])
    powers = []
    for truth in truths:
        brain, noise = truth.background.double().numpy(), truth.noise.numpy()
        total = np.trace(brain @ covariance @ brain.T) + np.trace(noise @ noise.T)
        powers.append(total / len(noise))
    assert_allclose(powers, 1, rtol=1e-3)
    silent = [not truth.background.any() for truth in truths]
    assert 0.2 < np.mean(silent) < 0.8


def test_a_quarter_is_kept_for_validation(made):
    """Neither truths nor patches are in both; some truths of each are exact."""
    personal, _, _ = made
    parts = personal.split()
    n_truths, n_patches = len(personal.truths), len(personal.assumed.centre)
    exact = personal.truths[0].patch_gain
    likeness = []
    for part, truths, patches in zip(
        parts,
        (np.arange(n_truths) % 4 > 0, np.arange(n_truths) % 4 == 0),
        (np.arange(n_patches) % 4 > 0, np.arange(n_patches) % 4 == 0),
        strict=True,
    ):
        originals = [personal.truths[i] for i in np.flatnonzero(truths)]
        for truth, original in zip(part.truths, originals, strict=True):
            assert torch.equal(truth.patch_gain, original.patch_gain[patches])
            assert truth.background is original.background
        for name in ("centre", "targets", "power"):
            whole = getattr(personal.assumed, name)
            assert torch.equal(getattr(part.assumed, name), whole[patches])
        likeness.append(
            [torch.allclose(x.patch_gain, exact[patches]) for x in part.truths]
        )
    assert all(0 < sum(one) < len(one) for one in likeness)


def test_a_few_truths_serve_both(made):
    few = made[0]._replace(truths=made[0].truths[:2])
    assert all(part is few for part in few.split())


def test_assumed_is_what_estimates_use(made, parcels):
    """Gain and activity of the patterns fit together."""
    (assumed, truths), leadfield, _ = made
    n_fine = assumed.prior.fine.shape[1]
    assert assumed.spread.shape == (len(assumed.rr), n_fine + parcels.n_parcels)
    assert assumed.targets.shape == (50, len(assumed.rr))
    assert assumed.scanning.shape[2] == N_SCALES * parcels.n_parcels
    # uniform activity of all parcels is 1, but for places at the medial wall
    whole = assumed.spread.to_dense()[:, n_fine:]
    total = whole.sum(1)
    assert (
        whole.min() >= 0
        and total.max() < 1.001
        and (total > 0.999).float().mean() > 0.8
    )
    # ... and each is strongest within the parcel
    parcel = np.concatenate(leadfield.parcel_of_vertex)
    largest = torch.bincount(whole.argmax(1), minlength=parcels.n_parcels)
    sizes = np.bincount(parcel[parcel >= 0], minlength=parcels.n_parcels)
    assert np.corrcoef(largest, sizes)[0, 1] > 0.8

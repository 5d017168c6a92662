"""Fingerprints: whether a forward is that of fit."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import warnings

import mne
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mne_deepsif import (
    DeepSIFEstimator,
    apply_deepsif,
    make_template_source_space,
    read_deepsif,
)
from mne_deepsif.head.fingerprint import (
    check_fingerprint,
    cortex_distance,
    make_fingerprint,
)
from mne_deepsif.head.leadfield import make_leadfield
from mne_deepsif.head.template import make_template_trans


def make_fwd(info, move=None, n_vertices=642):
    """Make a forward of the template, optionally moved: 4 x 4, head coordinates."""
    src = make_template_source_space()
    for s in src:
        s["inuse"][n_vertices:] = 0
        s.update(nuse=n_vertices, vertno=np.arange(n_vertices))
    trans = make_template_trans(info)
    if move is not None:
        trans["trans"] = move @ trans["trans"]
    sphere = mne.make_sphere_model((0.0, 0.0, 0.04), 0.2, info)
    return mne.make_forward_solution(info, trans, src, sphere, mindist=0.0)


def shift(distance):
    move = np.eye(4)
    move[2, 3] = distance
    return move


@pytest.fixture(scope="module")
def make(eeg_info, parcels):
    """Make forward and leadfield of an Info."""

    def make(info=eeg_info, **kwargs):
        fwd = make_fwd(info, **kwargs)
        cov = mne.make_ad_hoc_cov(info)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*parcels have no vertex.*")
            return fwd, make_leadfield(info, fwd, cov, parcels=parcels)

    return make


@pytest.fixture(scope="module")
def fingerprint(make):
    return make_fingerprint(*make(n_vertices=2562))


def test_fingerprint(fingerprint, eeg_info, parcels):
    """Positions in head coordinates: those of the electrodes, and of the cortex."""
    assert fingerprint["ch_names"] == eeg_info["ch_names"]
    expected = [ch["loc"][:3] for ch in eeg_info["chs"]]
    assert_allclose(fingerprint["sensors"], expected, rtol=1e-6)
    head_mri = make_template_trans(eeg_info)
    mri_head = mne.transforms.invert_transform(head_mri)
    centers = mne.transforms.apply_trans(mri_head, parcels.centers)
    apart = np.linalg.norm(fingerprint["parcels"] - centers, axis=1)
    assert np.nanmedian(apart) < 0.005
    assert sum(fingerprint[name].nbytes for name in ("sensors", "parcels")) < 15_000


def test_the_same_forward(fingerprint, make, eeg_info):
    """Fewer vertices, bad channels and another order are no other forward."""
    check_fingerprint(fingerprint, *make(n_vertices=2562))
    check_fingerprint(fingerprint, *make(n_vertices=642))
    info = eeg_info.copy()
    info["bads"] = info["ch_names"][::3]
    check_fingerprint(fingerprint, *make(info))
    info = mne.pick_info(eeg_info, np.arange(32)[::-1])
    check_fingerprint(fingerprint, *make(info))
    check_fingerprint(None, *make())  # generic weights


@pytest.mark.parametrize("distance", (0.003, -0.01))
def test_another_head(fingerprint, make, distance):
    match = f"another forward.*cortex lay {1e3 * abs(distance):.0f} mm from here.*Fit"
    with pytest.warns(RuntimeWarning, match=match):
        check_fingerprint(fingerprint, *make(move=shift(distance)))


def test_small_errors_of_position(fingerprint, make, eeg_info):
    """1 mm of the cortex, 3 mm of each electrode."""
    check_fingerprint(fingerprint, *make(move=shift(0.001)))
    info = eeg_info.copy()
    for ch, offset in zip(info["chs"], 3e-3 * np.eye(32, 3)):
        ch["loc"][:3] += offset
    check_fingerprint(fingerprint, *make(info))


def test_other_sensors(fingerprint, make, eeg_info):
    info = eeg_info.copy()
    for ch in info["chs"]:
        ch["loc"][:3] *= 1.1
    with pytest.warns(RuntimeWarning, match=r"its sensors were 1. mm from here"):
        check_fingerprint(fingerprint, *make(info))
    renamed = [f"E{i}" for i in range(20)] + eeg_info["ch_names"][20:]
    with pytest.warns(RuntimeWarning, match="it had 12 of these 32 channels"):
        check_fingerprint(fingerprint | {"ch_names": renamed}, *make())


def test_cortex_distance():
    """Errors of single parcels do not count, parcels without vertices neither."""
    rng = np.random.default_rng(0)
    before = rng.uniform(-0.07, 0.07, (900, 3))
    now = before + rng.normal(0, 0.003, before.shape)
    now[::7], before[::11] = np.nan, np.nan
    assert cortex_distance(before, now) < 0.0005
    assert_allclose(cortex_distance(before, now + [0, 0, 0.005]), 0.005, atol=5e-4)
    grown = np.median(0.05 * np.linalg.norm(before[~np.isnan(before[:, 0])], axis=1))
    assert_allclose(cortex_distance(before, 1.05 * now), grown, rtol=0.1)
    assert cortex_distance(before, np.full_like(now, np.nan)) == np.inf


def test_estimator_for_another_head(
    tiny_estimator, eeg_info, eeg_fwd, tmp_path, recwarn
):
    """It warns in use, also after a file; never for the forward of fit."""
    fname = tmp_path / "x-deepsif.safetensors"
    tiny_estimator.save(fname)
    other = make_fwd(eeg_info, shift(0.02), 2562)
    noise = 1e-5 * np.random.default_rng(0).standard_normal((32, 50))
    evoked = mne.EvokedArray(noise, eeg_info)
    cov = mne.make_ad_hoc_cov(eeg_info)
    for estimator in (tiny_estimator, read_deepsif(fname), fname):
        apply_deepsif(evoked, eeg_fwd, cov, estimator=estimator)
        with pytest.warns(RuntimeWarning, match="another forward.* 20 mm from here"):
            apply_deepsif(evoked, other, cov, estimator=estimator)
    assert isinstance(tiny_estimator, DeepSIFEstimator)

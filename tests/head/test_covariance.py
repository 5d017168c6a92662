"""Noise covariances: what is wrong with them is said, in any of their forms."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import warnings

import mne
import numpy as np
import pytest

from mne_deepsif.head.covariance import check_noise_cov
from mne_deepsif.head.leadfield import make_leadfield

NAMES = [f"C{i}" for i in range(20)]


def covariance(data, n_free=1000):
    return mne.Covariance(np.asarray(data, float), NAMES, [], [], n_free)


def full(n_samples=2000, std=1e-6):
    """Return a covariance of noise, as recordings have it."""
    noise = std * np.random.default_rng(0).standard_normal((len(NAMES), n_samples))
    return np.cov(noise), n_samples - 1


def check(cov, kind="eeg"):
    check_noise_cov(cov, NAMES, [kind] * len(NAMES))


def changed(*changes):
    """Return a good covariance with some entries changed."""
    data, n_free = full()
    for i, j, factor in changes:
        data[i, j] = factor * np.sqrt(data[i, i] * data[j, j])
    return covariance(data, n_free)


def test_right_ones_are_silent(sample_cov, sample_evoked):
    """Diagonal, of few samples but regularised, of a real recording, one reference."""
    check(covariance(np.full(20, 4e-14), 0))
    check(covariance(*full()))
    data, _ = full(10)
    check(covariance(data + 1e-14 * np.eye(20), 9))
    data, n_free = full()
    data[3] = data[:, 3] = 0  # an electrode that is the reference
    check(covariance(data, n_free))
    for rounding in (1e-44, -1e-30):  # what projecting it out leaves
        data[3, 3], data[3, 4], data[4, 3] = rounding, 1e-28, 1e-28
        check(covariance(data, n_free))
        assert data[3, 3] == rounding
    info = mne.pick_info(
        sample_evoked.info, mne.pick_types(sample_evoked.info, eeg=True)
    )
    check_noise_cov(sample_cov, info["ch_names"], info.get_channel_types())


@pytest.mark.parametrize("diagonal", [True, False])
def test_zeros(diagonal):
    zeros = np.zeros(20) if diagonal else np.zeros((20, 20))
    with pytest.raises(ValueError, match="noise_cov is 0 for all 20.*make_ad_hoc_cov"):
        check(covariance(zeros))
    data = full()[0]
    data[:2] = data[:, :2] = 0
    with pytest.warns(RuntimeWarning, match=r"0 at 2 channel\(s\): C0, C1.*bads"):
        check(covariance(np.diag(data) if diagonal else data))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite(value):
    with pytest.raises(ValueError, match=r"NaN or infinite values at 1 .*: C7\."):
        check(changed((7, 7, value)))


def test_no_covariance():
    """What cannot be the covariance of anything."""
    with pytest.raises(ValueError, match=r"negative variances at 1 channel\(s\): C2"):
        check(changed((2, 2, -1)))
    with pytest.raises(ValueError, match="negative variances at 20"):
        check(covariance(-full()[0]))
    with pytest.raises(ValueError, match="not symmetric"):
        check(changed((0, 1, 0.5)))
    with pytest.raises(ValueError, match="negative eigenvalue"):
        check(changed((0, 1, 3), (1, 0, 3)))


@pytest.mark.parametrize("kind, unit", [("eeg", "V"), ("mag", "T"), ("grad", "T/m")])
@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_units(kind, unit, factor):
    """Volts beside microvolts, and the like: the ad-hoc noise is the usual one."""
    std = {"eeg": 2e-7, "mag": 2e-14, "grad": 5e-13}[kind]
    check(covariance(np.full(20, std**2)), kind)
    with pytest.warns(RuntimeWarning, match=f"other units.*from data in {unit}"):
        check(covariance(np.full(20, (factor * std) ** 2)), kind)
    with pytest.raises(ValueError, match="other units"):
        check(covariance(np.full(20, (factor**3 * std) ** 2)), kind)


def test_few_samples():
    with pytest.warns(RuntimeWarning, match="9 independent samples.*shrunk"):
        check(covariance(*full(10)))


def test_only_channels_used_count(eeg_info, eeg_fwd, parcels, cov):
    """A wrong value of a bad channel does not matter; of another one, it does."""
    cov = mne.Covariance(cov["data"].copy(), cov["names"], [], [], 0)
    cov["data"][4] = np.nan
    with pytest.raises(ValueError, match=f"noise_cov has NaN.*{cov['names'][4]}"):
        make_leadfield(eeg_info, eeg_fwd, cov, parcels=parcels)
    cov["bads"] = [cov["names"][4]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        leadfield = make_leadfield(eeg_info, eeg_fwd, cov, parcels=parcels)
    assert len(leadfield.ch_names) == 31

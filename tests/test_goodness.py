"""What single extents of an estimate explain of the data."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import replace

import mne
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mne_deepsif import (
    apply_deepsif,
    estimate_extent,
    explained_by,
    simulate_evoked,
)
from mne_deepsif.inverse.plan import explained


@pytest.fixture(scope="module")
def two_sources(eeg_fwd, eeg_info, parcels):
    """Two patches, one on either hemisphere, without noise or background."""
    spike = np.sin(np.linspace(0, np.pi, 50)) ** 8
    evoked, stc, _ = simulate_evoked(
        eeg_fwd,
        eeg_info,
        seeds=[20, 150],
        waveforms=[spike, -spike],
        background_snr=None,
        snr=None,
        duration=0.2,
        parcels=parcels,
        random_state=0,
    )
    cov = mne.make_ad_hoc_cov(eeg_info)
    return evoked, stc, cov


def test_share_by_hand(two_sources, eeg_fwd):
    """The squared cosine between the data and the field of the vertices inside."""
    evoked, stc, cov = two_sources
    extents = estimate_extent(stc, eeg_fwd, windows=[(0.0, 0.1)])
    assert len(extents) == 2
    shares = explained_by(extents, stc, evoked, eeg_fwd, cov)
    keep = (stc.times >= 0) & (stc.times <= 0.1)
    data = evoked.data - evoked.data.mean(0)  # ad-hoc noise is the same on all
    for extent, share in zip(extents, shares, strict=True):
        part = stc.copy().in_label(extent.label)
        fit = mne.apply_forward(eeg_fwd, part, evoked.info).data
        fit = fit - fit.mean(0)
        cosine = np.corrcoef(data[:, keep].ravel(), fit[:, keep].ravel())[0, 1]
        assert_allclose(share, cosine**2, rtol=1e-3)
        assert 0 < share < 1


@pytest.mark.parametrize("fixed", (True, False))
def test_channels_and_noise(two_sources, eeg_fwd, fixed):
    """Whitened by a full covariance; missing and bad channels, another order."""
    evoked, stc, _ = two_sources
    rng = np.random.default_rng(0)
    mixing = 1e-6 * rng.standard_normal((32, 64))
    cov = mne.Covariance(mixing @ mixing.T, evoked.ch_names, ["Oz"], [], 100)
    extents = estimate_extent(stc, eeg_fwd, windows=[(-0.1, 0.0), (0.0, 0.09)])
    data = evoked.copy().drop_channels(["Cz"])
    data.info["bads"] = ["Fz"]
    data.reorder_channels(data.ch_names[::-1])
    fwd = mne.convert_forward_solution(eeg_fwd, force_fixed=fixed, copy=True)
    shares = explained_by(extents, stc, data, fwd, cov)
    # by hand: the covariance of the average-referenced channels, its pseudo-inverse
    names = [n for n in evoked.ch_names if n not in ("Cz", "Fz", "Oz")]
    picks = [evoked.ch_names.index(name) for name in names]
    centring = np.eye(len(names)) - 1 / len(names)
    inverse = np.linalg.pinv(
        centring @ cov.data[np.ix_(picks, picks)] @ centring, rcond=1e-10
    )
    for extent, share in zip(extents, shares, strict=True):
        part = stc.copy().in_label(extent.label)
        fit = mne.apply_forward(eeg_fwd, part, evoked.info).data[picks]
        keep = (stc.times >= extent.tmin) & (stc.times <= extent.tmax)
        x, y = (centring @ d[:, keep] for d in (evoked.data[picks], fit))
        products = [np.sum(a * (inverse @ b)) for a, b in ((x, y), (x, x), (y, y))]
        expected = products[0] ** 2 / (products[1] * products[2])
        assert_allclose(share, expected, rtol=1e-3)


def test_the_only_source_explains_everything(two_sources, eeg_fwd):
    """At any scale, but not with the wrong sign."""
    evoked, stc, cov = two_sources
    strong = estimate_extent(stc, eeg_fwd)[0]
    alone = stc.copy().in_label(strong.label)
    evoked = evoked.copy()
    evoked.data = mne.apply_forward(eeg_fwd, alone, evoked.info).data
    args = evoked, eeg_fwd, cov
    assert_allclose(explained_by([strong], 3 * stc, *args), 1, rtol=1e-6)
    assert_allclose(explained_by([strong], -1 * stc, *args), 0)
    assert_allclose(explained_by([strong], 0 * stc, *args), 0)
    bad = evoked.copy()
    bad.info["bads"] = ["Cz"]
    bad.data[bad.ch_names.index("Cz")] *= 1e3
    assert_allclose(explained_by([strong], stc, bad, eeg_fwd, cov), 1, rtol=1e-6)
    assert explained_by([], stc, *args).shape == (0,)


def test_single_samples(two_sources, eeg_fwd):
    """Times that are off by rounding, as after cropping, are found."""
    evoked, stc, cov = two_sources
    peak = stc.times[np.abs(stc.data).max(0).argmax()]
    extents = estimate_extent(stc, eeg_fwd, windows=[(peak, peak)])
    expected = explained_by(extents, stc, evoked, eeg_fwd, cov)
    later = [
        replace(extent, tmin=peak + 1e-12, tmax=peak + 1e-12) for extent in extents
    ]
    found = explained_by(later, stc, evoked, eeg_fwd, cov)
    assert expected.max() > 0.5
    assert_allclose(found, expected)


def test_source_and_no_source(eeg_info, eeg_fwd):
    """What the network finds in noise explains less than half, a spike more."""
    best = []
    spike = np.sin(np.linspace(0, np.pi, 125)) ** 8  # neural masses take seconds
    for seed in range(4):
        options = dict(duration=0.5, random_state=seed, waveforms=[spike])
        evoked, _, truth = simulate_evoked(eeg_fwd, eeg_info, snr=15.0, **options)
        noise = evoked.copy()
        noise.data = np.random.default_rng(seed).normal(size=evoked.data.shape)
        noise.data *= 1e-6
        for data in (evoked, noise):
            stc = apply_deepsif(data, eeg_fwd, truth.noise_cov)
            extents = estimate_extent(stc, eeg_fwd)
            best.append(
                explained_by(extents, stc, data, eeg_fwd, truth.noise_cov).max()
            )
    assert (np.array(best[::2]) > 0.5).sum() >= 3
    assert max(best[1::2]) < 0.5


def test_errors(two_sources, eeg_fwd):
    evoked, stc, cov = two_sources
    extents = estimate_extent(stc, eeg_fwd)
    with pytest.raises(TypeError, match="each element of extents must be"):
        explained_by([extents[0].label], stc, evoked, eeg_fwd, cov)
    with pytest.raises(ValueError, match="stc and evoked must have the same times"):
        explained_by(extents, stc.copy().crop(0.05), evoked, eeg_fwd, cov)
    other = evoked.copy().rename_channels(lambda name: f"x{name}")
    with pytest.raises(ValueError, match="no channel in common"):
        explained_by(extents, stc, other, eeg_fwd, cov)
    with pytest.raises(TypeError, match="evoked must be an instance of"):
        explained_by(extents, stc, evoked.data, eeg_fwd, cov)


def test_explained():
    """By hand: all, nothing, worse than nothing, no data."""
    data = np.array([[1.0, 1.0, 1.0, 0.0], [0.0, 2.0, 0.0, 0.0]])
    fit = np.array([[1.0, 0.0, -1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    assert_array_equal(explained(data, fit), [1.0, 0.0, -3.0, np.nan])

"""What a bundle keeps of the numbers that are written into it."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mne_deepsif.training.bundle import compress_gains, pack, read_bundle, save_bundle


def test_gains_of_low_rank_come_back():
    """A product of rank 5 needs no more; of more, the best approximation is kept."""
    rng = np.random.default_rng(0)
    gains = np.einsum(
        "acr,rpk->acpk", rng.normal(size=(2, 9, 5)), rng.normal(size=(5, 30, 3))
    )
    scale = np.sqrt(np.mean(gains**2))
    weights, patterns = compress_gains(gains, 5)
    assert weights.shape == (2, 9, 5) and patterns.shape == (5, 30, 3)
    assert_allclose(np.einsum("acr,rpk->acpk", weights, patterns), gains / scale)
    weights, patterns = compress_gains(gains, 3)
    error = np.einsum("acr,rpk->acpk", weights, patterns) - gains / scale
    values = np.linalg.svd(gains.reshape(18, 90) / scale, compute_uv=False)
    assert_allclose(np.sum(error**2), np.sum(values[3:] ** 2))


@pytest.mark.parametrize("axis", [None, 0, (1, 2)])
def test_pack(axis):
    """Nothing is off by more than half a step of its scale."""
    array = np.random.default_rng(0).normal(size=(4, 5, 6)) * np.arange(6)
    whole, scale = pack(array, axis)
    assert whole.dtype == np.int8 and abs(whole).max() == 127
    assert np.all(np.abs(whole * scale - array) <= 0.501 * scale)


def test_silence_is_kept():
    whole, scale = pack(np.zeros((2, 3)), 0)
    assert_array_equal(whole * scale, 0)


def test_round_trip(cortex_arrays, head_arrays, bundle):
    cortex, heads, n_smoothings = read_bundle(bundle)
    assert list(heads) == [0, 3] and n_smoothings == {0: 2, 3: 2}
    for name in ("neighbours", "area", "parcel_areas", "middles", "profiles"):
        assert_array_equal(getattr(cortex, name), cortex_arrays[name])
    assert cortex.scales == (0, 1, 4)
    for name in ("waveforms", "background"):
        one, two = getattr(cortex, name).float(), cortex_arrays[name]
        assert_allclose(one, two, atol=0.01 * np.abs(two).max())
    covariance = np.cov(cortex_arrays["background"][::3].T)
    assert_allclose(cortex.covariance, covariance, atol=0.02)
    for number, head in heads.items():
        arrays = head_arrays[number]
        for name in ("electrodes", "caps", "parcel", "rr"):
            assert_array_equal(getattr(head, name), arrays[name])
        for name in ("eeg", "eeg_patterns", "meg", "meg_patterns", "normals"):
            error = getattr(head, name).numpy() - arrays[name]
            assert np.abs(error).max() < 0.01 * np.abs(arrays[name]).max()
        assert_allclose(head.normals.norm(dim=2), 1, rtol=1e-6)


def test_a_bundle_is_small(cortex_arrays, head_arrays, tmp_path):
    """Patterns, which are most of it, take a byte each or less."""
    sizes = []
    for heads in ({}, {0: head_arrays[0]}):
        save_bundle(tmp_path / "x.npz", cortex_arrays, heads)
        sizes.append((tmp_path / "x.npz").stat().st_size)
    patterns = sum(head_arrays[0][f"{x}_patterns"].size for x in ("eeg", "meg"))
    assert sizes[1] - sizes[0] < 1.7 * patterns

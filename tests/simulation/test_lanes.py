"""Vectors of sixteen numbers, against NumPy and SciPy."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import pytest
from numba import njit
from scipy.stats import kstest

from mne_deepsif.simulation import _lanes


def test_normals():
    """The generator gives independent standard normals on all lanes."""
    state = np.random.default_rng(0).integers(2**32, size=64, dtype=np.uint32)
    draws = np.empty((20001, 16), np.float32)  # an odd number of rows
    _lanes.draw_normals(state, draws.reshape(-1))
    assert kstest(draws[:, 3], "norm").pvalue > 1e-3
    assert kstest(draws.ravel(), "norm").pvalue > 1e-3
    both = np.concatenate([draws[:-1], draws[1:], draws[:-1] ** 2, draws[1:] ** 2], 1)
    correlation = np.corrcoef(both.T) - np.eye(64)
    same = np.abs(correlation) > 0.99
    assert not same.any()
    assert np.abs(correlation).max() < 5 / np.sqrt(20000)


def test_exp2():
    """The exponential is as exact as float32 needs."""

    @njit
    def run(x, out):
        for i in range(0, x.size, 16):
            _lanes.store(out, i, _lanes.exp2(_lanes.load(x, i)))

    x = np.linspace(-40, 40, 16000, dtype=np.float32)
    out = np.empty_like(x)
    run(x, out)
    np.testing.assert_allclose(out, np.exp2(x.astype(float)), rtol=5e-7)


# --------------------------------------------------------------- vectors

load, store, splat = _lanes.load, _lanes.store, _lanes.splat
THREE, SHIFT = np.float32(3), np.uint32(5)


@njit
def _floats(x, y, out):
    """Store the results of arithmetic on two vectors, and on a vector and a number."""
    a, b = load(x, 0), load(y, 0)
    store(out, 0, a + b)
    store(out, 16, a - b)
    store(out, 32, a * b)
    store(out, 48, a / b)
    store(out, 64, a + THREE)
    store(out, 80, THREE - a)
    store(out, 96, THREE * a)
    store(out, 112, a * THREE)
    store(out, 128, THREE / b)
    store(out, 144, b / THREE)
    store(out, 160, a - THREE)
    store(out, 176, _lanes.sqrt(b))
    store(out, 192, splat(THREE))
    store(out, 208, _lanes.clip(a, np.float32(-0.5), np.float32(0.75)))
    store(out, 224, _lanes.logistic2(a))


def test_arithmetic_on_floats():
    rng = np.random.default_rng(0)
    x = rng.standard_normal(16).astype(np.float32)
    y = rng.uniform(0.5, 3, 16).astype(np.float32)
    out = np.full((15, 16), np.nan, np.float32)
    _floats(x, y, out.ravel())
    a, b = x.astype(float), y.astype(float)
    expected = [a + b, a - b, a * b, a / b, a + 3, 3 - a, 3 * a, a * 3, 3 / b, b / 3]
    expected += [a - 3, np.sqrt(b), np.full(16, 3), a.clip(-0.5, 0.75)]
    expected += [1 / (1 + 2**a)]
    assert len(expected) == len(out)
    for i, (found, row) in enumerate(zip(out, expected)):
        np.testing.assert_allclose(found, row, rtol=2e-6, atol=2e-7, err_msg=str(i))
    assert ((a < -0.5).any() and (a > 0.75).any()) and (np.abs(a) < 0.5).any()


@njit
def _integers(x, y, out):
    a, b = load(x, 0), load(y, 0)
    store(out, 0, a + b)
    store(out, 16, a - b)
    store(out, 32, a * b)
    store(out, 48, a ^ b)
    store(out, 64, a | b)
    store(out, 80, a & b)
    store(out, 96, a << SHIFT)
    store(out, 112, a >> SHIFT)
    store(out, 128, a + SHIFT)
    store(out, 144, SHIFT - a)
    store(out, 160, a & SHIFT)


def test_arithmetic_on_integers():
    """Modulo 2**32, and shifts that fill with zeros."""
    rng = np.random.default_rng(1)
    x, y = rng.integers(2**32, size=(2, 16), dtype=np.uint32)
    out = np.zeros((11, 16), np.uint32)
    _integers(x, y, out.ravel())
    expected = [x + y, x - y, x * y, x ^ y, x | y, x & y, x << 5, x >> 5]
    expected += [x + SHIFT, SHIFT - x, x & SHIFT]
    np.testing.assert_array_equal(out, expected)
    assert (x > 2**31).any()  # the sign bit is a bit as any other


@njit
def _convert(x, bits, out, words):
    store(words, 0, _lanes.as_int(load(x, 0)))
    store(words, 16, _lanes.to_int(load(x, 0)))
    store(out, 0, _lanes.as_float(load(bits, 0)))
    store(out, 16, _lanes.to_float(load(words, 16)))


def test_conversions():
    """Bits as they are; numbers cut off towards zero, negative ones as signed."""
    x = np.linspace(-7.6, 7.6, 16).astype(np.float32)
    bits = np.random.default_rng(2).uniform(-9, 9, 16).astype(np.float32)
    out, words = np.zeros(32, np.float32), np.zeros(32, np.uint32)
    _convert(x, bits.view(np.uint32), out, words)
    np.testing.assert_array_equal(words[:16], x.view(np.uint32))
    np.testing.assert_array_equal(words[16:].view(np.int32), np.trunc(x))
    np.testing.assert_array_equal(out[:16], bits)
    np.testing.assert_array_equal(out[16:], np.trunc(x))


@njit
def _move(x, source, out, target):
    store(out, target, load(x, source))


@pytest.mark.parametrize("dtype", (np.float32, np.uint32))
@pytest.mark.parametrize("source, target", ((0, 0), (3, 20), (17, 1)))
def test_load_and_store(dtype, source, target):
    """16 elements from anywhere to anywhere, and none beside them."""
    x, out = np.arange(1, 65).astype(dtype), np.zeros(64, dtype)
    _move(x, source, out, target)
    expected = np.zeros(64, dtype)
    expected[target : target + 16] = x[source : source + 16]
    np.testing.assert_array_equal(out, expected)


@njit
def _draw(state, out):
    first, second = _lanes.normal_pair(state)
    store(out, 0, first)
    store(out, 16, second)


def test_generator_is_xoshiro():
    """Box and Muller's normals of xoshiro128++, lane by lane in Python's integers."""
    state = np.random.default_rng(3).integers(2**32, size=(4, 16), dtype=np.uint32)
    before, out = state.copy(), np.empty((2, 16), np.float32)
    _draw(state.ravel(), out.ravel())

    def turn(x, k):
        return ((x << k) | (x >> (32 - k))) & 0xFFFFFFFF

    for lane in range(16):
        s = [int(word) for word in before[:, lane]]
        draws = []
        for _ in range(2):
            draws.append((turn((s[0] + s[3]) & 0xFFFFFFFF, 7) + s[0]) & 0xFFFFFFFF)
            shifted = (s[1] << 9) & 0xFFFFFFFF
            s[2] ^= s[0]
            s[3] ^= s[1]
            s[1] ^= s[2]
            s[0] ^= s[3]
            s[2] ^= shifted
            s[3] = turn(s[3], 11)
        assert s == [int(word) for word in state[:, lane]]
        radius = np.sqrt(-2 * np.log(((draws[0] >> 1) + 0.5) / 2**31))
        angle = 2 * np.pi * draws[1] / 2**32  # a whole turn more is no difference
        expected = radius * np.array([np.sin(angle), np.cos(angle)])
        np.testing.assert_allclose(out[:, lane], expected, atol=2e-6)

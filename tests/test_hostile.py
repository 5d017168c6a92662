"""Hostile data: a finite answer, or one clear error or warning, never silence."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import os
import warnings

import mne
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

from mne_deepsif import (
    apply_deepsif,
    apply_deepsif_epochs,
    apply_deepsif_raw,
    make_deepsif_operator,
)

N_CHANNELS = 32
TYPICAL = 1e-5  # V
CLEAR = (
    "The data have no samples",
    "The data have NaN or infinite values in",
)
ALLOWED = (
    "The data of type 'eeg' vary",  # units
    "The estimate may be wrong",  # artefacts
)
N_EXAMPLES = os.environ.get("MNE_DEEPSIF_EXAMPLES")  # by night: a thousand, others each
few = settings(
    max_examples=int(N_EXAMPLES or 25), deadline=None, derandomize=not N_EXAMPLES
)


@pytest.fixture(scope="module")
def operator(eeg_info, eeg_fwd, tiny_estimator):
    cov = mne.make_ad_hoc_cov(eeg_info)
    return make_deepsif_operator(eeg_info, eeg_fwd, cov, estimator=tiny_estimator)


@pytest.fixture(scope="module")
def waves():
    """Give sensor data of a usual size: (n_channels, n_times) in V."""
    return TYPICAL * np.random.default_rng(0).standard_normal((N_CHANNELS, 70))


def answer(data, operator, function=apply_deepsif, **kwargs):
    """Return the estimate; or the text of an error, which must be a clear one."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            inst = mne.EvokedArray(data, operator.info, verbose="error")
            stc = function(inst, operator, **kwargs)
        except ValueError as error:
            assert any(text in str(error) for text in CLEAR), error
            return str(error)
    for warning in said:
        text = str(warning.message)
        assert any(allowed in text for allowed in ALLOWED), text
    assert np.isfinite(stc.data).all()
    assert stc.data.shape[1] == np.shape(data)[1]
    return stc.data


# --------------------------------------------------------------- any values


@few
@given(
    st.integers(0, 90).flatmap(
        lambda n_times: (
            arrays(
                st.sampled_from(["f8", "f4", "i8", "i2", "u1"]),
                (N_CHANNELS, n_times),
                fill=st.nothing(),
                elements=None,
            )
            if n_times < 3
            else arrays("f8", (N_CHANNELS, n_times), elements=st.floats(width=64))
        )
    )
)
def test_any_array(operator, data):
    """Whatever the values are: finite, or said to be wrong."""
    result = answer(data, operator)
    if data.shape[1] == 0:
        assert "no samples" in result
    elif not (np.abs(data.astype(float)) < 1e30).all():
        assert "NaN or infinite" in result
    else:
        assert not isinstance(result, str)


@few
@example(-163, "all", 5)  # the squares are the smallest numbers that there are
@given(
    st.integers(-310, 300),
    st.sampled_from(["all", "single", "row", "column"]),
    st.integers(1, 90),
)
def test_any_size(operator, exponent, where, n_times):
    """From denormal to huge, everywhere or in one place."""
    rng = np.random.default_rng(n_times)
    data = TYPICAL * rng.standard_normal((N_CHANNELS, n_times))
    part = {
        "all": np.s_[:],
        "single": np.s_[3, n_times // 2],
        "row": np.s_[3],
        "column": np.s_[:, n_times // 2],
    }
    data[part[where]] *= 10.0**exponent
    result = answer(data, operator)
    assert isinstance(result, str) == bool((np.abs(data) >= 1e30).any())


@few
@given(st.floats(1e-12, 1e12))
def test_unit_of_the_data_is_that_of_the_estimate(operator, waves, factor):
    """Other units are another scale, and are said to be where they are far off."""
    expected = answer(waves, operator)
    result = answer(factor * waves, operator)
    assert_allclose(result / factor, expected, atol=1e-4 * np.abs(expected).max())


@few
@given(
    st.lists(st.integers(0, N_CHANNELS - 1), max_size=8),
    st.lists(st.integers(0, 69), max_size=8),
    st.sampled_from([np.nan, np.inf, -np.inf]),
)
def test_any_value_that_is_not_finite(operator, waves, rows, columns, value):
    data = waves.copy()
    for row, column in zip(rows, columns):
        data[row, column] = value
    result = answer(data, operator)
    wrong = sorted({row for row, _ in zip(rows, columns)})
    if not wrong:
        assert_array_equal(result, answer(waves, operator))
        return
    assert f"in {len(wrong)} channel(s)" in result
    for row in wrong:
        assert operator.info["ch_names"][row] in result


@few
@given(st.lists(st.integers(0, N_CHANNELS - 1), unique=True), st.floats(-1e-2, 1e-2))
def test_constant_channels(operator, waves, rows, value):
    """Also all of them: nothing changes, nothing is estimated."""
    data = waves.copy()
    data[rows] = value
    result = answer(data, operator)
    if len(rows) == N_CHANNELS:
        scale = np.abs(answer(waves, operator)).max() / TYPICAL
        assert np.abs(result).max() <= 1e-6 * scale * abs(value)


@few
@given(st.lists(st.integers(0, N_CHANNELS - 1), min_size=2, max_size=N_CHANNELS))
def test_channels_with_the_same_data(operator, waves, rows):
    """Bridged electrodes."""
    data = waves.copy()
    data[rows] = waves[rows[0]]
    assert not isinstance(answer(data, operator), str)


@pytest.mark.parametrize("dtype", ("i2", "i8", "f4", "u1", "?"))
def test_types_of_numbers(operator, dtype):
    """As the same numbers in double precision."""
    data = (np.arange(N_CHANNELS * 40) % 7).reshape(N_CHANNELS, -1).astype(dtype)
    result = answer(data, operator)
    expected = answer(data.astype(float), operator)
    assert_array_equal(result, expected)


def test_complex_data(operator):
    """No real estimate of them without a word."""
    data = TYPICAL * np.ones((N_CHANNELS, 40)) * 1j
    with pytest.raises(ValueError, match="The data are complex.*imaginary part"):
        apply_deepsif(mne.EvokedArray(data, operator.info), operator)


@few
@example(2, 1000.0)  # noise of so few samples looked like fast activity
@given(st.integers(1, 400), st.sampled_from([10.0, 99.9, 125.0, 1000.0, 30000.0]))
def test_any_length_and_rate(eeg_info, eeg_fwd, tiny_estimator, n_times, sfreq):
    """The answer has the times of the question."""
    rng = np.random.default_rng(0)
    info = mne.create_info(eeg_info["ch_names"], sfreq, "eeg")
    raw = mne.io.RawArray(TYPICAL * rng.standard_normal((N_CHANNELS, n_times)), info)
    raw.set_montage(eeg_info.get_montage()).set_eeg_reference(projection=True)
    cov = mne.make_ad_hoc_cov(raw.info)
    stc = apply_deepsif_raw(raw, eeg_fwd, cov, estimator=tiny_estimator)
    assert stc.data.shape[1] == n_times and np.isfinite(stc.data).all()
    assert_allclose(stc.times, raw.times, atol=1e-9)


# --------------------------------------------------------------- the three front doors


@pytest.mark.parametrize("value", (np.nan, np.inf))
def test_one_bad_epoch(operator, waves, value):
    """It is not passed over in silence, nor does it spoil the others."""
    data = np.stack([waves, 2 * waves, 3 * waves])
    data[1, 5, 7] = value
    epochs = mne.EpochsArray(data, operator.info, proj=False)
    with pytest.raises(ValueError, match="NaN or infinite values in 1 channel"):
        apply_deepsif_epochs(epochs, operator)
    stcs = apply_deepsif_epochs(epochs[[0, 2]], operator)
    alone = apply_deepsif_epochs(epochs[[0]], operator)[0].data
    assert_allclose(stcs[0].data, alone, atol=1e-5 * np.abs(alone).max())


def test_one_huge_epoch(operator, waves):
    """An artefact does not change what the other epochs give."""
    data = np.stack([waves, 1e6 * waves, waves])
    epochs = mne.EpochsArray(data, operator.info, proj=False)
    stcs = apply_deepsif_epochs(epochs, operator)
    alone = apply_deepsif_epochs(epochs[[0]], operator)[0].data
    for stc in (stcs[0], stcs[2]):
        assert_allclose(stc.data, alone, atol=1e-4 * np.abs(alone).max())


@pytest.mark.parametrize("shape", ((N_CHANNELS, 0), (N_CHANNELS, 1), (N_CHANNELS, 2)))
def test_hardly_any_sample(operator, shape):
    result = answer(TYPICAL * np.ones(shape), operator)
    assert isinstance(result, str) == (shape[1] == 0)

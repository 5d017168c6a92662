"""Operators: the same as the forward, which data they suit, what they refuse."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from mne_deepsif import (
    DeepSIFEstimator,
    Model,
    apply_deepsif,
    apply_deepsif_epochs,
    apply_deepsif_raw,
    make_deepsif_operator,
)


@pytest.fixture
def estimator(minimum_norm):
    return minimum_norm()


@pytest.fixture
def evoked(eeg_info):
    """100 samples of 1 µV."""
    data = 1e-6 * np.random.default_rng(0).standard_normal((32, 100))
    return mne.EvokedArray(data, eeg_info, tmin=-0.1, nave=10)


# --------------------------------------------------------------- prepared


def test_operator(evoked, epochs, raw, eeg_fwd, cov, estimator):
    """It gives the same as the forward, for every kind of data."""
    operator = make_deepsif_operator(evoked.info, eeg_fwd, cov, estimator=estimator)
    assert repr(operator) == (
        "<DeepSIFOperator | 32 channels, 200 parcels, subject 'fsaverage5'>"
    )
    expected = apply_deepsif(evoked, eeg_fwd, cov, estimator=estimator)
    assert_array_equal(apply_deepsif(evoked, operator).data, expected.data)
    one = apply_deepsif_epochs(epochs, operator, pick_ori="vector")[0]
    assert isinstance(one, mne.VectorSourceEstimate)
    stc = apply_deepsif_raw(raw, operator)
    other = apply_deepsif_raw(raw, eeg_fwd, cov, estimator=estimator)
    assert_array_equal(stc.data, other.data)
    order = evoked.ch_names[::-1]
    stc = apply_deepsif(evoked.reorder_channels(order), operator)
    assert_allclose(stc.data, expected.data, atol=1e-12 * expected.data.max())


def test_operator_of_other_data(evoked, eeg_fwd, cov, estimator):
    operator = make_deepsif_operator(evoked.info, eeg_fwd, cov, estimator=estimator)
    for name, value in dict(noise_cov=cov, estimator=estimator, rank="info").items():
        with pytest.raises(ValueError, match=f"{name} is part of the operator"):
            apply_deepsif(evoked, operator, **{name: value})
    wrong = evoked.copy()
    wrong.info["bads"] = ["Cz"]
    with pytest.raises(
        ValueError, match=r"1 of the operator's 32 .*\['Cz'\].*Make one"
    ):
        apply_deepsif(wrong, operator)
    with pytest.raises(ValueError, match="1 of the operator's 32 channels"):
        apply_deepsif(evoked.copy().drop_channels(["Pz"]), operator)
    wrong = evoked.copy()
    wrong.add_proj(mne.compute_proj_evoked(wrong, n_eeg=1))
    with pytest.raises(ValueError, match="projectors or the EEG reference of the data"):
        apply_deepsif(wrong, operator)
    wrong = evoked.copy().del_proj()
    with pytest.raises(ValueError, match="projectors or the EEG reference of the data"):
        apply_deepsif(wrong, operator)
    wrong = evoked.copy()
    for ch in wrong.info["chs"]:
        ch["loc"][:3] += 0.01
    with pytest.warns(RuntimeWarning, match="17 mm apart"):
        apply_deepsif(wrong, operator)


# --------------------------------------------------------------- models


@pytest.mark.parametrize("wrong", (3, DeepSIFEstimator, Model, BaseEstimator()))
def test_wrong_estimator(evoked, eeg_fwd, cov, wrong):
    with pytest.raises(TypeError, match="estimator must be an instance of .*DeepSIF"):
        apply_deepsif(evoked, eeg_fwd, cov, estimator=wrong)


def test_not_fitted(evoked, eeg_fwd, cov):
    with pytest.raises(NotFittedError, match="DeepSIFEstimator.* is not fitted"):
        apply_deepsif(evoked, eeg_fwd, cov, estimator=DeepSIFEstimator())


# --------------------------------------------------------------- hostile input


@pytest.mark.parametrize(
    "value, text",
    ((np.nan, "at 1 of 5113 vertices"), (np.inf, "infinite values"), (0, "is zero")),
)
@pytest.mark.parametrize("fixed", (True, False))
def test_hostile_forward(eeg_info, eeg_fwd, tiny_estimator, value, text, fixed):
    """One bad value would be in each estimate."""
    fwd = mne.convert_forward_solution(eeg_fwd, force_fixed=fixed, copy=True)
    where = np.s_[:] if value == 0 else np.s_[3, 12:15]
    fwd["sol"]["data"] = fwd["sol"]["data"].copy()
    fwd["sol"]["data"][where if value == 0 or not fixed else np.s_[3, 12]] = value
    fwd["_orig_sol"] = fwd["sol"]["data"].copy()
    cov = mne.make_ad_hoc_cov(eeg_info)
    with pytest.raises(ValueError, match=text):
        make_deepsif_operator(eeg_info, fwd, cov, estimator=tiny_estimator)


@pytest.mark.parametrize("value", (np.nan, np.inf))
def test_hostile_covariance(eeg_info, eeg_fwd, tiny_estimator, value):
    cov = mne.make_ad_hoc_cov(eeg_info).as_diag()
    cov["data"][3] = value
    with pytest.raises(ValueError, match="noise_cov has NaN or infinite"):
        make_deepsif_operator(eeg_info, eeg_fwd, cov, estimator=tiny_estimator)

"""Units of data: what can be right passes, what cannot is named."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mne_deepsif import assess_deepsif
from mne_deepsif.head.units import check_units

TYPICAL = {"eeg": 1e-5, "mag": 2e-13, "grad": 5e-12}  # V, T, T/m


def noise(ch_types, shape=()):
    rng = np.random.default_rng(0)
    sizes = np.array([TYPICAL[ch_type] for ch_type in ch_types])[:, None]
    return sizes * rng.standard_normal((*shape, len(ch_types), 50))


@pytest.mark.parametrize("factor", (1e-2, 1, 30))  # an average, artefacts
@pytest.mark.parametrize("ch_type", ("eeg", "mag", "grad"))
def test_units_of_brain_data(ch_type, factor):
    """Averages, offsets of an amplifier and single artefacts are as usual."""
    data = factor * noise([ch_type] * 9)
    check_units(data, [ch_type] * 9)
    data += np.random.default_rng(1).standard_normal((9, 1)) * 1e5 * TYPICAL[ch_type]
    data[:, :5] *= 1e7
    data[3] *= 1e7
    check_units(data, [ch_type] * 9)


@pytest.mark.parametrize("factor", (1e-6, 1e6))
@pytest.mark.parametrize("ch_type", ("eeg", "mag", "grad"))
@pytest.mark.parametrize("shape", ((), (3,)))
def test_wrong_units(ch_type, factor, shape):
    """The type that is wrong is named, among right ones, in epochs as well."""
    ch_types = ["eeg"] * 3 + ["mag"] * 4 + ["grad"] * 5
    data = noise(ch_types, shape)
    check_units(data, ch_types)
    data[..., np.array(ch_types) == ch_type, :] *= factor
    with pytest.warns(RuntimeWarning, match=f"type '{ch_type}' vary.*MNE wants"):
        check_units(data, ch_types)


@pytest.mark.parametrize(
    ("ch_type", "factor", "unit", "back"),
    (
        ("eeg", 1e3, "mV", "0.001"),
        ("eeg", 1e6, "µV", "1e-06"),
        ("mag", 1e15, "fT", "1e-15"),
        ("mag", 1e12, "pT", "1e-12"),
        ("grad", 1e-2, "T/cm", "100"),
        ("grad", 1e13, "fT/cm", "1e-13"),
    ),
)
@pytest.mark.parametrize("level", (0.2, 1.0))  # of a response; of what goes on
def test_unit_is_named(ch_type, factor, unit, back, level):
    """With the factor that leads back, whatever the noise covariance has."""
    level *= 0.2 if unit == "T/cm" else 1.0  # see test_range_of_units
    data = level * factor * noise([ch_type] * 9)
    match = f"seem to be in {unit}. MNE wants .*multiply the data by {back},"
    for std in (None, np.full((9, 1), factor * TYPICAL[ch_type])):
        with pytest.warns(RuntimeWarning, match=match):
            check_units(data, [ch_type] * 9, std)
    check_units(data * float(back), [ch_type] * 9)


@pytest.mark.parametrize(
    ("ch_type", "factor", "told", "missed"),
    (("eeg", 1e3, 6e-7, 4e-7), ("grad", 1e-2, 2.5e-12, 3.5e-12)),
)
def test_range_of_units(ch_type, factor, told, missed):
    """Small averages in mV and large data in T/cm are like a brain's (see limits)."""
    data = factor / TYPICAL[ch_type] * noise([ch_type] * 9)
    with pytest.warns(RuntimeWarning, match="seem to be in"):
        check_units(told * data, [ch_type] * 9, nave=25)
    check_units(missed * data, [ch_type] * 9, nave=25)
    level = TYPICAL[ch_type]
    std = np.full((9, 1), level)
    if ch_type == "grad":  # a covariance in T/m tells
        with pytest.warns(RuntimeWarning, match="but noise_cov says"):
            check_units(level * data, [ch_type] * 9, std)
    else:
        with pytest.warns(RuntimeWarning, match="seem to be in mV"):
            check_units(level * data, [ch_type] * 9, std)


@pytest.mark.parametrize("nave", (100, 5000, 20_000))
@pytest.mark.parametrize(
    ("ch_type", "density"), (("eeg", 3e-8), ("mag", 3e-15), ("grad", 3e-13))
)
def test_units_of_many_averages(ch_type, density, nave):
    """The noise of the sensors alone, below 500 Hz."""
    level = density * np.sqrt(500 / nave) / TYPICAL[ch_type]
    check_units(level * noise([ch_type] * 9), [ch_type] * 9, nave=nave)


def test_units_of_a_burst():
    """A short response without noise is nearly 0 most of the time."""
    times = np.linspace(-1, 1, 200)
    data = 1e-6 * np.linspace(-1, 1, 9)[:, None] * np.exp(-((times / 0.05) ** 2) / 2)
    for std in (None, np.full((9, 1), TYPICAL["eeg"])):
        check_units(data, ["eeg"] * 9, std)
    with pytest.warns(RuntimeWarning, match="may be in another unit. MNE wants data"):
        check_units(1e-9 * noise(["eeg"] * 9), ["eeg"] * 9)


def test_what_electrodes_have_in_common():
    """The reference does not count: this ramp is the same at all electrodes."""
    check_units(noise(["eeg"] * 9) + np.linspace(0, 0.1, 50), ["eeg"] * 9)


@pytest.mark.parametrize("ch_type", ("eeg", "mag", "grad"))
def test_data_far_below_their_noise(ch_type):
    """A hundredth of the noise of a trial, unless it is an average."""
    std = np.full((9, 1), TYPICAL[ch_type])
    data = 0.02 * noise([ch_type] * 9)
    with pytest.warns(RuntimeWarning, match="but noise_cov says.*in other units"):
        check_units(data, [ch_type] * 9, std)
    for nave in (25, 1000):
        check_units(data, [ch_type] * 9, std, nave)
    check_units(50 * data, [ch_type] * 9, std)


@pytest.mark.parametrize("data", (np.zeros((3, 9)), np.ones((3, 9)), np.ones((3, 1))))
def test_units_of_data_without_change(data):
    check_units(data, ["eeg"] * 3)


@pytest.mark.parametrize("kind", ("evoked", "epochs", "raw"))
def test_microvolts(eeg_info, eeg_fwd, tiny_estimator, kind):
    """The front doors say so once, and answer all the same."""

    def estimate(data):
        if kind == "raw":
            inst = mne.io.RawArray(data, eeg_info)
        elif kind == "epochs":
            inst = mne.EpochsArray(np.stack([data] * 40), eeg_info, proj=False)
        else:
            inst = mne.EvokedArray(data, eeg_info)
        stc = tiny_estimator.predict(inst, eeg_fwd, mne.make_ad_hoc_cov(eeg_info))
        return stc[0].data if kind == "epochs" else stc.data

    expected = estimate(noise(["eeg"] * 32))
    assert expected.any()
    with pytest.warns(RuntimeWarning, match="in µV. MNE wants V: multiply") as said:
        out = estimate(1e6 * noise(["eeg"] * 32))
    # that noise is no brain activity is said as well
    said = [w for w in said if "The estimate may be wrong" not in str(w.message)]
    assert len(said) == 1
    assert_allclose(out, 1e6 * expected, atol=1e2 * np.abs(expected).max())


@pytest.mark.parametrize("factor", (1e3, 1e6))
def test_report_tells_the_unit(eeg_info, eeg_fwd, minimum_norm, factor):
    """Also if the covariance is in the same wrong unit, and everything else fits."""
    data = factor * noise(["eeg"] * 32)
    cov = mne.make_ad_hoc_cov(eeg_info)
    cov["data"] *= (50 * factor) ** 2
    evoked = mne.EvokedArray(data, eeg_info)
    with pytest.warns(RuntimeWarning, match="noise_cov has.*other units than MNE's"):
        report = assess_deepsif(
            evoked, eeg_fwd, cov, estimator=minimum_norm(), n_passes=0
        )
    assert any("seem to be in" in reason for reason in report.reasons)
    assert not report.is_trustworthy

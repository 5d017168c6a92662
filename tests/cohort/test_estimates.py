"""Files of estimates: names, sidecars, hashes."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import json

import mne
import numpy as np
import pytest

from mne_deepsif.cache import hash_file
from mne_deepsif.cohort.estimates import (
    Results,
    choose_samples,
    write_evoked_estimates,
    write_raw_estimate,
)
from mne_deepsif.cohort.settings import CohortSettings, EstimateSettings


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path, "sub-01_task-x", dict(Key="k"))


@pytest.fixture
def evokeds(eeg16, fwd16):
    """Two averages of one source, the second with the opposite sign."""
    gain = fwd16["sol"]["data"][:, 3 * 500 + 2]
    data = 1e-8 * np.outer(gain - gain.mean(), np.hanning(50))
    info = mne.io.RawArray(data, eeg16).set_eeg_reference(projection=True).info
    return [
        mne.EvokedArray(sign * data, info, -0.1, name, nave=10)
        for sign, name in ((1, "a/b"), (-1, "c"))
    ]


@pytest.mark.parametrize(
    "tmin, tmax", ((-2.0, 5.0), (0.0, 12.5), (13.0, 14.0), (1.0, 1.001))
)
def test_ranges_that_are_not_in_the_data(make_raw, tmin, tmax):
    settings = EstimateSettings(tmin=tmin, tmax=tmax)
    with pytest.raises(ValueError, match=f"to 12 s, .* got {tmin:g} and {tmax:g}"):
        write_raw_estimate(make_raw(0), None, None, settings, None)


def test_samples_of_continuous_data(make_raw):
    raw = make_raw(0)
    assert choose_samples(raw, EstimateSettings(tmax=12.0)) == (0, 3000, 1)
    some = EstimateSettings(tmin=0.5, tmax=1.0, sfreq=125.0)
    assert choose_samples(raw, some) == (125, 250, 2)


@pytest.mark.parametrize(
    "sfreq, wanted, near",
    (
        (1000.0, 300.0, "250 or 333.333"),
        (1000.0, 100.0, "125"),  # aliases
        (256.0, 125.0, "128"),
        (250.0, 500.0, "250"),
        (100.0, 50.0, "100"),
    ),
)
def test_rates_that_decimation_cannot_give(make_raw, sfreq, wanted, near):
    raw, settings = make_raw(0, sfreq), EstimateSettings(sfreq=wanted)
    with pytest.raises(ValueError, match=f"Nearest are {near}, got {wanted:g}"):
        choose_samples(raw, settings)
    same = EstimateSettings(sfreq=sfreq)  # however low
    assert choose_samples(raw, same)[2] == 1


def test_names(results):
    assert results.fname("a/b", "-stc.h5").name == "sub-01_task-x_desc-ab-stc.h5"
    assert results.fname(None, "_report.html").name == "sub-01_task-x_report.html"


def test_files_and_sidecars(results, evokeds, fwd16):
    cov = mne.make_ad_hoc_cov(evokeds[0].info)
    settings = CohortSettings(report=False)
    write_evoked_estimates(evokeds, fwd16, cov, "generic", settings, results)
    names = {path.name for path in results.folder.iterdir()}
    assert names == set(results.outputs) and len(names) == 8
    for name, sha256 in results.outputs.items():
        assert hash_file(results.folder / name) == sha256
        if name.endswith(".json"):
            about = json.loads((results.folder / name).read_text())
            assert about["Key"] == "k" and about["NumberOfAverages"] == 10
            assert about["Condition"] == ("a/b" if "-ab" in name else "c")
    one, two = (
        mne.read_source_estimate(results.fname(evoked.comment, "-stc.h5"))
        for evoked in evokeds
    )
    peak = np.abs(one.data).max()
    np.testing.assert_allclose(one.data, -two.data, atol=1e-4 * peak)


def test_conditions_that_share_a_name(results, evokeds, fwd16):
    evokeds[1].comment = "ab"
    cov = mne.make_ad_hoc_cov(evokeds[0].info)
    with pytest.raises(ValueError, match="'a/b' and 'ab' would have the same file"):
        write_evoked_estimates(evokeds, fwd16, cov, "generic", None, results)
    assert not list(results.folder.iterdir())

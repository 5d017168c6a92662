"""Settings: checks, TOML, and which of them matter."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import fields

import pytest

from mne_deepsif.cohort.settings import (
    CohortSettings,
    EstimateSettings,
    GroupSettings,
    read_settings,
)

KINDS = (CohortSettings, EstimateSettings, GroupSettings)


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_pass_their_own_checks(kind):
    settings = kind()
    assert all(getattr(settings, one.name) == one.default for one in fields(kind))
    assert all(one.metadata["help"] for one in fields(kind))


@pytest.mark.parametrize(
    "values, match",
    (
        (dict(tmin="0"), "tmin must be a number, got '0'"),
        (dict(jobs=1.5), "jobs must be an integer"),
        (dict(jobs=0), "jobs must be 1 or more, got 0"),
        (dict(report="yes"), "report must be true/false"),
        (dict(report=None), "report must be true/false, got None"),
        (dict(baseline=[0.0]), r"baseline must be two values, got \[0.0\]"),
        (dict(subjects=[]), "subjects must be at least one value"),
        (dict(events=["a", 2]), "events must be text, got 2"),
        (dict(datatype="ieeg"), "datatype must be one of .'eeg', 'meg'"),
        (dict(tmin=0.5, tmax=0.1), "tmin must be before tmax"),
        (dict(tmin=0.7), "tmin must be before tmax, got 0.7 and 0.5"),
        (dict(sfreq=1), "sfreq must be 50 Hz or more"),
        (dict(l_freq=40.0, h_freq=1.0), "l_freq must be below h_freq"),
        (
            dict(baseline=(-0.5, -0.1)),
            "baseline must be .* from tmin to tmax, -0.2 to 0",
        ),
        (dict(tmin=0.1), "baseline must be two times from tmin to tmax"),
        (dict(personalise=-1), "personalise must be 0 or more"),
    ),
)
def test_errors_name_the_setting(values, match):
    with pytest.raises(ValueError, match=match):
        CohortSettings(root="x", **values)


def test_continuous_data_may_begin_after_the_end_of_an_epoch():
    assert EstimateSettings(file="x", tmin=1.0).tmin == 1.0
    with pytest.raises(ValueError, match="tmin must be before tmax, got 1.0 and 0.9"):
        EstimateSettings(file="x", tmin=1.0, tmax=0.9)


def test_lists_become_tuples_and_one_value_a_tuple_of_one():
    settings = CohortSettings(
        events="spike", subjects=["01", "02"], tmin=-1, baseline=[-1, 0]
    )
    assert settings.events == ("spike",) and settings.subjects == ("01", "02")
    assert settings.baseline == (-1.0, 0.0)


def test_every_setting_is_a_key(tmp_path):
    """Each field can be given in TOML, and is read back."""
    text = dict(str='"x"', int="3", float="75", bool="true")
    config = tmp_path / "config.toml"
    for kind in KINDS:
        lines = []
        for one in fields(kind):
            meta = one.metadata
            value = text[meta["kind"].__name__]
            value = f'"{meta["choices"][0]}"' if meta["choices"] else value
            value = {None: value, 2: "[-0.5, 0]", "+": '["a", "b"]'}[meta["many"]]
            special = {"tmin": "-0.5", "tmax": "0.5", "h_freq": "80"}
            value = special.get(one.name, value)
            lines.append(f"{one.name} = {value}")
        config.write_text("\n".join(lines))
        settings = read_settings(kind, config)
        changed = [
            x.name for x in fields(kind) if getattr(settings, x.name) != x.default
        ]
        same = {"tmax", "report"} & {one.name for one in fields(kind)}
        assert {one.name for one in fields(kind)} - set(changed) <= same


def test_options_win_over_the_file(tmp_path):
    config = tmp_path / "config.toml"
    config.write_text('root = "there"\njobs = 4\n')
    settings = read_settings(CohortSettings, config, dict(jobs=2))
    assert settings.root == "there" and settings.jobs == 2


@pytest.mark.parametrize(
    "text, match",
    (
        ("weight = 'x'", r"unknown keys \['weight'\]; allowed are .*'weights'"),
        ("jobs = ", "not valid TOML"),
        ("jobs = 'two'", "jobs must be an integer, got 'two'.*config.toml"),
        ("jobs = 2", "root is needed"),
    ),
)
def test_errors_of_a_file(tmp_path, text, match):
    config = tmp_path / "config.toml"
    config.write_text(text)
    with pytest.raises(ValueError, match=match):
        read_settings(CohortSettings, config)
    with pytest.raises(ValueError, match="No such file"):
        read_settings(CohortSettings, tmp_path / "none.toml")


def test_engine_and_selection_do_not_matter():
    """Whoever computes it, and with whom, the result of a recording is the same."""
    one = CohortSettings(root="a", jobs=1, subjects=["01"])
    two = CohortSettings(root="b", out="c", jobs=2, dask="tcp://x:1", dry_run=True)
    assert one.that_matter() == two.that_matter()
    other = CohortSettings(root="a", h_freq=40.0)
    assert one.that_matter() != other.that_matter()

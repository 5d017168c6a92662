"""The command line: commands, dry runs, errors and exit codes."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import importlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import mne
import pytest

import mne_deepsif
from mne_deepsif.cohort import run
from mne_deepsif.cohort.commands import main

OPTIONS = [
    "--tmin",
    "-0.4",
    "--tmax",
    "0.2",
    "--baseline",
    "-0.4",
    "-0.1",
    "--no-report",
]


@pytest.fixture(autouse=True)
def _log_level():
    """Put MNE's log level back."""
    with mne.utils.use_log_level("WARNING"):
        yield


def test_cohort_and_its_exit_codes(dataset, quick, capsys, make_raw, write_bids):
    command = ["cohort", str(dataset), *OPTIONS]
    folder = dataset / "derivatives" / "mne_deepsif"
    assert main([*command, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "2 would run" in out and "sub-01_task-spikes would run template" in out
    assert not folder.exists()
    assert main([*command, "--subjects", "01"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 done"
    description = json.loads((folder / "dataset_description.json").read_text())
    assert description["GeneratedBy"][0]["Description"].startswith("mne-deepsif cohort")
    raw = make_raw(0)
    raw.set_annotations(None)
    write_bids(dataset, raw, "03")
    assert main([*command, "--subjects", "01", "03"]) == 3
    found = capsys.readouterr()
    assert found.out.splitlines()[-1] in ("1 kept, 1 failed", "1 failed, 1 kept")
    assert found.err.startswith("sub-03_task-spikes: ValueError: no events")


def test_config_instead_of_options(dataset, quick, tmp_path, capsys):
    config = tmp_path / "cohort.toml"
    config.write_text(
        f'root = "{dataset}"\nsubjects = ["02"]\ntmin = -0.4\ntmax = 0.2\n'
        "baseline = [-0.4, -0.1]\nreport = false\n"
    )
    assert main(["cohort", "--config", str(config)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 done"
    # the same settings as options: nothing is left to do
    assert main(["cohort", str(dataset), "--subjects", "02", *OPTIONS]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 kept"
    assert main(["cohort", "--config", str(config), "--subjects", "01"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 done"


def test_estimate(tmp_path, make_raw, quick, capsys):
    make_raw(0).save(tmp_path / "x_raw.fif")
    command = ["estimate", str(tmp_path / "x_raw.fif"), "--events", "spike", *OPTIONS]
    assert main([*command, "--dry-run"]) == 0
    assert "conditions  spike" in capsys.readouterr().out
    assert len(list(tmp_path.iterdir())) == 1
    assert main(command) == 0
    printed = capsys.readouterr().out.splitlines()
    assert str(tmp_path / "x_raw_desc-spike-stc.h5") in printed
    assert main(command) == 1
    assert "exists: use --overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0


@pytest.mark.parametrize(
    "arguments, code, match",
    (
        (["cohort"], 2, "error: root is needed"),
        (["cohort", "x", "--jobs", "0"], 2, "error: jobs must be 1 or more, got 0"),
        (
            ["cohort", "x", "--config", "none.toml"],
            2,
            "error: config none.toml: No such",
        ),
        (["cohort", "nowhere"], 1, "error: root must be a BIDS dataset"),
        (["estimate", "nowhere_ave.fif"], 1, "error: file 'nowhere_ave.fif' does not"),
        (
            ["group", "nowhere", "--condition", "a", "--baseline", "-1", "0"],
            1,
            "no file",
        ),
        (["fetch", "nothing"], 1, "No weights of the name 'nothing'"),
    ),
)
def test_errors_are_one_line(arguments, code, match, capsys):
    assert main(arguments) == code
    error = capsys.readouterr().err
    assert match in error and error.count("\n") == 1
    assert error.startswith("mne-deepsif: error: ")


@pytest.mark.parametrize(
    "arguments", ([], ["nothing"], ["cohort", "x", "--datatype", "ieeg"], ["fetch"])
)
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as found:
        main(arguments)
    assert found.value.code == 2
    assert "usage: mne-deepsif" in capsys.readouterr().err


def test_ctrl_c(dataset, monkeypatch, capsys):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "run_recording", stop)
    assert main(["cohort", str(dataset), *OPTIONS]) == 130
    assert "stopped: the same command goes on" in capsys.readouterr().err


def test_verbose_shows_the_traceback():
    with pytest.raises(ValueError, match="No weights of the name"):
        main(["fetch", "nothing", "--verbose"])


def test_warnings_are_lines(tmp_path):
    """Without code and place; none of libraries about libraries."""
    code = (
        "import sys, warnings, mne; from mne_deepsif.cohort import commands\n"
        "def fetch(*args):\n"
        "    mne.utils.warn('one\\n two')\n"
        "    warnings.warn('old', FutureWarning)\n"
        "    return 0\n"
        "commands.fetch = fetch\n"
        "sys.exit(commands.main(['fetch', 'x']))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stderr == "mne-deepsif: warning: one two\n"


def test_fetch_and_info(capsys):
    assert main(["fetch", "generic"]) == 0
    assert capsys.readouterr().out.strip() == str(mne_deepsif.fetch_weights("generic"))
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert f"mne_deepsif           {mne_deepsif.__version__}" in out
    assert "part of the package" in out and "sha256 " in out


def test_console_script():
    """What pyproject.toml installs as mne-deepsif is there."""
    fname = Path(__file__).parents[2] / "pyproject.toml"
    scripts = tomllib.loads(fname.read_text(encoding="utf-8"))["project"]["scripts"]
    module, _, name = scripts["mne-deepsif"].partition(":")
    assert getattr(importlib.import_module(module), name) is main


def test_python_m():
    """The module runs, and help does not load torch."""
    command = [sys.executable, "-X", "importtime", "-m", "mne_deepsif", "cohort", "-h"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--personalise" in done.stdout and "Exit codes" in done.stdout
    assert "| torch\n" not in done.stderr and "mne_deepsif.cohort" in done.stderr

"""What a stored result must say of its making: command, commit, date, versions."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import mne_deepsif

ROOT = Path(__file__).resolve().parents[1]


def provenance():
    """Return command, commit, date, versions and number of cores, as a dict."""
    return dict(
        command=" ".join([_describe_program(), *sys.argv[1:]]),
        commit=_describe_commit(),
        date=time.strftime("%Y-%m-%d"),
        versions=dict(
            python=platform.python_version(),
            mne=version("mne"),
            torch=version("torch"),
            mne_deepsif=mne_deepsif.__version__,
        ),
        n_cores=os.cpu_count(),
    )


def _describe_program():
    """Return how the program was called, a script or a module of a package."""
    program = Path(sys.argv[0])
    names = [program.parent.name, program.stem]
    names = [name for name in names if name != "__main__"]
    return "python -m " + ".".join(["benchmarks", *names])


def _describe_commit():
    """Name the commit; ``-dirty`` follows if files other than results have changed."""
    commit = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "-uno", "--", ".", ":!benchmarks/results")
    return f"{commit}-dirty" if changed else commit


def _git(*arguments):
    command = ["git", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT
    ).stdout.strip()


class Lines:
    """Lines of a result: printed as they come, kept, and written at the end."""

    def __init__(self):
        self.kept = []

    def say(self, text=""):
        """Print a line and keep it."""
        print(text, flush=True)
        self.kept.append(text)

    def say_provenance(self):
        """Say what :func:`provenance` returns."""
        self.say("\n".join(as_lines(provenance())))

    def write(self, fname):
        """Write what was said."""
        fname.write_text("\n".join(self.kept) + "\n", encoding="utf-8")


def as_lines(record):
    """Return what :func:`provenance` returned as two lines of text."""
    versions = ", ".join(f"{name} {text}" for name, text in record["versions"].items())
    where = f"commit {record['commit']}, {record['date']}, {versions}"
    return [record["command"], f"{where}, {record['n_cores']} cores"]

"""The commands of the command line, and what they tell scripts."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import argparse
import shlex
import sys
import warnings
from contextlib import contextmanager
from dataclasses import MISSING, fields

import mne

from .. import __version__
from .settings import (
    CohortSettings,
    EstimateSettings,
    GroupSettings,
    read_settings,
)

OK, ERROR, USAGE, SOME_FAILED, STOPPED = 0, 1, 2, 3, 130
_EPILOG = (
    "Exit codes: 0 all is done; 1 an error, which is printed; 2 wrong options or "
    "config; 3 the run is complete, but some recordings failed (see cohort.tsv); "
    "130 Ctrl-C."
)


# ---------------------------------------------------------------- the command line
def main(arguments=None):
    """Run a command.

    Parameters
    ----------
    arguments : list of str | None
        The command line after the program's name. None takes the program's own.

    Returns
    -------
    code : int
        The exit code.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    args = _make_parser().parse_args(arguments)
    mne.set_log_level("INFO" if args.verbose else "WARNING")
    command = shlex.join(["mne-deepsif", *arguments])
    try:
        settings = _read(args)
    except ValueError as error:
        return _say_error(error, USAGE)
    try:
        with _short_warnings():
            return args.run(settings, command)
    except KeyboardInterrupt:
        return _say_error("stopped: the same command goes on", STOPPED)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        if args.verbose:
            raise
        return _say_error(error, ERROR)


@contextmanager
def _short_warnings():
    """Show a warning as a line, without code; none of libraries about libraries."""
    formatwarning = warnings.formatwarning
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.formatwarning = _format_warning
        try:
            yield
        finally:
            warnings.formatwarning = formatwarning


def _format_warning(message, *args, **kwargs):
    return f"mne-deepsif: warning: {' '.join(str(message).split())}\n"


def _say_error(error, code):
    text = " ".join(str(error).split())
    sys.stderr.write(f"mne-deepsif: error: {text}\n")
    return code


def _say(text):
    sys.stdout.write(f"{text}\n")


def _make_parser():
    parser = argparse.ArgumentParser(
        prog="mne-deepsif",
        description="Deep-learning source imaging of EEG and MEG.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, kind, positional, run, text in (
        ("estimate", EstimateSettings, ["file"], estimate, "one recording"),
        ("cohort", CohortSettings, ["root"], cohort, "all recordings of a dataset"),
        ("group", GroupSettings, ["folder"], group, "average over subjects"),
    ):
        sub = commands.add_parser(name, help=text, description=text, epilog=_EPILOG)
        sub.add_argument("--config", help="TOML file with any of the options as keys")
        for one in fields(kind):
            _add_option(sub, one, one.name in positional)
        _add_common(sub, run, kind)
    sub = commands.add_parser("fetch", help="download weights, and print their files")
    sub.add_argument("names", nargs="+", help="names of weights, see info")
    _add_common(sub, fetch, None)
    sub = commands.add_parser("info", help="versions, and the weights there are")
    _add_common(sub, info, None)
    return parser


def _add_common(parser, run, kind):
    parser.add_argument("--verbose", action="store_true", help="tell more")
    parser.set_defaults(run=run, kind=kind)


def _add_option(parser, one, positional):
    """Add a setting; what is not given is left to the config and the defaults."""
    meta = one.metadata
    text = meta["help"]
    if one.default not in (None, "", MISSING) and meta["kind"] is not bool:
        text += f" (default: {one.default})"
    options = dict(help=text.replace("%", "%%"), default=argparse.SUPPRESS)
    if positional:
        parser.add_argument(one.name, nargs="?", **options)
        return
    flag = f"--{one.name.replace('_', '-')}"
    if meta["kind"] is bool:
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, **options)
        return
    parser.add_argument(
        flag,
        type=meta["kind"],
        nargs=meta["many"],
        choices=meta["choices"],
        metavar=None if meta["choices"] else one.name.split("_")[-1].upper(),
        **options,
    )


def _read(args):
    """Return the settings of a command, or the plain arguments of fetch and info."""
    if args.kind is None:
        return args
    given = {
        one.name: getattr(args, one.name)
        for one in fields(args.kind)
        if hasattr(args, one.name)
    }
    return read_settings(args.kind, args.config, given)


# ---------------------------------------------------------------- the commands
def estimate(settings, command):
    """Estimate one recording."""
    from .single import plan_single, run_single

    if settings.dry_run:
        for line in plan_single(settings):
            _say(line)
        return OK
    for fname in run_single(settings, command):
        _say(fname)
    return OK


def cohort(settings, command):
    """Estimate the recordings of a BIDS dataset."""
    from .run import run_cohort

    with mne.utils.use_log_level("INFO"):
        table = run_cohort(settings, command)
    if settings.dry_run:
        _say(table[["recording", "status", "forward", "error"]].to_string(index=False))
    counts = table.status.value_counts()
    _say(", ".join(f"{count} {status}" for status, count in counts.items()))
    for _, row in table[table.status == "failed"].iterrows():
        sys.stderr.write(f"{row.recording}: {row.error}\n")
    return SOME_FAILED if "failed" in counts else OK


def group(settings, command):
    """Average over subjects."""
    from .group import run_group

    for fname in run_group(settings, command):
        _say(fname)
    return OK


def fetch(args, command):
    """Download weights."""
    from ..inverse.weights import fetch_weights

    for name in args.names:
        _say(fetch_weights(name))
    return OK


def info(args, command):
    """Print versions, and weights with their hashes."""
    from ..inverse.weights import read_registry
    from ..versions import sys_info

    sys_info()
    _say("\nweights")
    for name, entry in read_registry().items():
        place = "part of the package" if entry["embedded"] else "to be downloaded"
        _say(f"{name:<22}{entry['description']} ({place})")
        _say(f"{'':<22}sha256 {entry['sha256']}")
    return OK

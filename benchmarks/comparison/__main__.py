"""Run the suite.

    python -m benchmarks.comparison [--quick | --full] [--jobs 2]

Rows are kept in ``--store``; a second run computes only what is missing. The summary
goes to ``--results``.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import argparse
from pathlib import Path
from typing import NamedTuple

import mne

from ..provenance import ROOT, provenance
from . import report
from .methods import METHODS, SLOW
from .recordings import score_recordings
from .registry import DEFAULT, QUICK, SCENARIOS
from .run import choose, make_plan, run
from .store import Store
from .subjects import DATA


class Size(NamedTuple):
    """How much is computed."""

    groups: tuple  # of scenarios
    methods: tuple
    n: int  # samples of a scenario
    n_validation: int
    chunk: int  # samples of a cell


FAST = tuple(name for name in METHODS if name not in SLOW)
SIZES = {
    "quick": Size(QUICK, FAST, 4, 2, 4),
    "default": Size(DEFAULT, FAST, 24, 8, 6),
    "full": Size(tuple(SCENARIOS), tuple(METHODS), 47_712, 100, 568),
}


def parse_args(arguments=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    size = parser.add_mutually_exclusive_group()
    for name in ("quick", "full"):
        size.add_argument(f"--{name}", dest="size", action="store_const", const=name)
    parser.set_defaults(size="default")
    parser.add_argument("--jobs", type=int, help="processes")
    parser.add_argument("--groups", nargs="+", choices=SCENARIOS, help="of scenarios")
    parser.add_argument("--only", default="", help="text in the scenarios' names")
    parser.add_argument("--methods", nargs="+", help="also DeepSIF:file_of_weights")
    parser.add_argument("--n", type=int, help="samples of a scenario")
    text = "only the real recordings"
    parser.add_argument("--recordings", action="store_true", help=text)
    parser.add_argument("--name", default=report.NAME, help="of the files of results")
    results = ROOT / "benchmarks" / "results"
    parser.add_argument("--results", type=Path, default=results)
    parser.add_argument("--store", type=Path, default=ROOT / "benchmarks" / "store")
    return parser.parse_args(arguments)


def chosen_size(args):
    """Return the size that was asked for, with the options that change it."""
    size = SIZES[args.size]
    changed = dict(groups=args.groups, methods=args.methods, n=args.n)
    return size._replace(**{name: x for name, x in changed.items() if x is not None})


def find_scenarios(groups, text=""):
    """Return the scenarios of some groups; those without their data are left out."""
    found = [one for group in groups for one in SCENARIOS[group] if text in one.name]
    found = list(dict.fromkeys(found))
    here = {path.name for path in DATA.iterdir()} if DATA.is_dir() else set()
    kept = [one for one in found if one.head.needs <= here]
    if len(kept) < len(found):
        print(f"skipped: {len(found) - len(kept)} scenarios need data in {DATA}")
    return kept


def compare(size, scenarios, store, n_jobs):
    """Choose settings, compute what is missing, and return rows and rules."""
    n_jobs = dict(n_jobs=n_jobs)
    shape = size.n_validation, size.chunk
    best = choose(scenarios, size.methods, store, *shape, **n_jobs)
    plan, validation, choices = [], [], {}
    for one in scenarios:
        wanted = {}
        for name in size.methods:
            wanted[name] = sorted({0, best[one][name]})
            for choice, number in (("usual", 0), ("best", best[one][name])):
                choices.setdefault((one, name, number), []).append(choice)
                quiet = one.for_validation(), name, number
                choices.setdefault(quiet, []).append(choice)
        plan += make_plan(one, size.methods, wanted, size.n, size.chunk)
        validation += make_plan(one.for_validation(), size.methods, wanted, *shape)
    run(validation + plan, store, **n_jobs)
    rules = report.best_rules(report.read_rows(validation, choices, store))
    return report.read_rows(plan, choices, store), rules


def main(arguments=None):
    """Run the suite and write its report."""
    args, stamp = parse_args(arguments), provenance()
    mne.set_log_level("WARNING")
    size, store = chosen_size(args), Store(args.store)
    scenarios = find_scenarios(size.groups, args.only)
    args.results.mkdir(parents=True, exist_ok=True)
    if args.size != "quick" and args.name == report.NAME:
        found = score_recordings(size.methods)
        report.write_recordings(found, stamp, args.results)
    if args.recordings:
        return
    rows, rules = compare(size, scenarios, store, args.jobs)
    report.write(rows, rules, stamp, args.results, args.name)
    print((args.results / f"{args.name}.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()

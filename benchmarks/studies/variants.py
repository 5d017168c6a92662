"""Variants of the last step, on the scenarios that tell them apart.

    python -m benchmarks.studies.variants [--n 24] [--kinds eeg mag]

The samples are those that choose settings in the comparison, none that it scores.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import argparse
import json
import time
from contextlib import ExitStack
from unittest import mock

import mne
import numpy as np
import pandas as pd
import torch

from mne_deepsif.inverse import model
from mne_deepsif.network import few_sources, prior

from ..comparison.registry import SCENARIOS
from ..comparison.report import statistics
from ..comparison.run import compute, make_plan
from ..comparison.scores import Row
from ..options import parse_args
from ..provenance import provenance

CELLS = (
    "radius 6 mm",
    "radius 14 mm",
    "radius 25 mm",
    "early source, 0.15 of the late one",
    "radius 25 mm, SNR 1",
)
ONE, TWO = few_sources._HANDICAPS
METRICS = ("peak", "auc", "le", "precision", "recall", "area_ratio")


def share(patches):
    """Return a function of prior variances in which patches have a given share."""

    def variances(answer, n_parcels):
        fine, patch = prior.prior_variances(answer, n_parcels).split(n_parcels, 1)
        total = fine + patch
        return torch.cat([(1 - patches) * total, patches * total], 1)

    return variances


# what each changes: constants of modules
VARIANTS = {
    "as shipped": {},
    "fine patterns only": {model: dict(prior_variances=share(0.0))},
    "half of each": {model: dict(prior_variances=share(0.5))},
    "patches only": {model: dict(prior_variances=share(1.0))},
    "prior of 512 ms only": {
        model: dict(_HANDICAPS=(0.0, np.inf)),
        few_sources: dict(_HANDICAPS=(np.inf, np.inf)),
    },
    "prior of one source only": {few_sources: dict(_HANDICAPS=(-1e6, np.inf))},
    "no prior of one source": {few_sources: dict(_HANDICAPS=(np.inf, TWO))},
    "no prior of two sources": {few_sources: dict(_HANDICAPS=(ONE, np.inf))},
    "no prior of 128 ms": {model: dict(_HANDICAPS=(0.0, np.inf))},
    "no handicaps": {
        model: dict(_HANDICAPS=(0.0, 0.0)),
        few_sources: dict(_HANDICAPS=(0.0, 0.0)),
    },
    "exponent 0.4": {prior: dict(_EXPONENT=0.4)},
    "exponent 0.8": {prior: dict(_EXPONENT=0.8)},
    "floor 0.01": {prior: dict(_FLOOR=0.01), few_sources: dict(_FLOOR=0.01)},
    "floor 0.2": {prior: dict(_FLOOR=0.2), few_sources: dict(_FLOOR=0.2)},
}


def find_scenarios(kind):
    """Return the scenarios with a wrong forward on one kind of sensors."""
    groups = (SCENARIOS[name] for name in ("radius", "early", "weak"))
    found = {one.cell: one for group in groups for one in group if _fits(one, kind)}
    return [found[cell].for_validation() for cell in CELLS]


def _fits(scenario, kind):
    return scenario.head.sensors == kind and scenario.head.error == "all"


def score_variant(scenario, name, n_samples):
    """Score one variant: a row of means, SD, medians and numbers."""
    plan = make_plan(scenario, ["DeepSIF"], {"DeepSIF": [0]}, n_samples, n_samples)
    with ExitStack() as stack:
        for module, constants in VARIANTS[name].items():
            stack.enter_context(mock.patch.multiple(module, **constants))
        rows = [row for cell in plan for row in compute(cell)["rows"]]
    rows = pd.DataFrame(rows, columns=Row._fields)
    rows = rows[rows["rule"].isin(["-", "otsu"])]
    found = statistics(rows.groupby("metric")["value"]).loc[list(METRICS)]
    where = dict(kind=scenario.head.sensors, cell=scenario.cell, method=name)
    return where | json.loads(found.to_json(orient="index"))


def main():
    """Score all variants and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=24, help="samples of a scenario")
    parser.add_argument("--kinds", nargs="+", default=["eeg", "mag"])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    args = parse_args(parser)
    mne.set_log_level("ERROR")
    began = time.perf_counter()
    rows = [
        score_variant(scenario, name, args.n)
        for kind in args.kinds
        for scenario in find_scenarios(kind)
        for name in args.variants
    ]
    seconds = time.perf_counter() - began
    record = provenance() | dict(n=args.n, seconds=seconds, rows=rows)
    text = json.dumps(record, indent=1)
    (args.results / "variants.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

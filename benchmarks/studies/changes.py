"""The MEG paper's experiment: generic, personalised and random weights on other heads.

    python -m benchmarks.studies.changes [--updates 250] [--heads 2] [--n 48]

The cases are those of the suite's group ``changes``, with 102 magnetometers: the
template's head, its helmet tilted by 5°, and heads that no training has seen. On each
head, the generic weights are trained for ``--updates`` updates as ``fit`` does, and
random weights of the same network for ``--times`` as many, on the same samples and with
the same loss, so that their validation losses can be compared. (``fit`` trains random
weights with another loss, on parcels.) Weights at some numbers of updates, and the best
ones, are scored by the suite's cells, on samples of the papers' task. Results go to
``results/changes.json``, and curves like those of the paper's Fig. 2c to
``doc/figures``. A run that was stopped goes on if it is started again with the same
options.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import argparse
import copy
import json
import time
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import mne
import pandas as pd
import torch

import mne_deepsif
from mne_deepsif.head.leadfield import make_leadfield
from mne_deepsif.inverse.files import write_model
from mne_deepsif.inverse.weights import load_model
from mne_deepsif.network.architectures import make_network
from mne_deepsif.network.encoder import N_KERNELS
from mne_deepsif.simulation.library import make_library
from mne_deepsif.training.personal import make_personal_leadfield
from mne_deepsif.training.trainer import Trainer, TrainingOptions

from ..comparison.papers import PapersHead
from ..comparison.registry import ANY, on
from ..comparison.report import statistics
from ..comparison.run import run
from ..comparison.scenarios import Chunk, head_of
from ..comparison.store import Cell, Store
from ..options import SMALL_LIBRARY, figures_folder, parse_args
from ..provenance import provenance

# case: head, and how many numbers of heads there are
CASES = {
    "no change": (PapersHead(sensors="mag"), 1),
    "tilted by 5°": (PapersHead(sensors="mag tilted by 5°"), 1),
    "other heads": (PapersHead("random", "mag"), 4),
}
METHODS = GENERIC, PERSONAL, SCRATCH = "generic", "personalised", "from scratch"
COLORS = dict(zip(METHODS, ("0.5", "C0", "C1")))
BEST = "best"  # the weights of the lowest validation loss, beside numbers of updates
LIBRARY = dict(n_patches=1, n_waveforms=8000, background=60.0, random_state=0)  # fit's
RATES = {PERSONAL: 3e-4, SCRATCH: 1e-3}  # fit's
N_VALIDATIONS = 8
SHARES = (8, 4, 2, 1)  # parts of a training after which its weights are scored
# scores of each source or sample; lengths in mm
METRICS = ("le", "recall", "specificity", "balance", "precision", "correlation", "peak")


# ---------------------------------------------------------------- training
def make_personal(scenario, number, start, library):
    """Return what a fit on a head trains and validates on."""
    problem = head_of(scenario, Chunk(number, 1)).make().problem
    leadfield = make_leadfield(
        problem.info,
        problem.fwd,
        problem.noise_cov,
        parcels=start.parcels,
        subjects_dir=problem.subjects_dir,
    )
    scans = start.network.sizes["scan_width"] > 0
    background = library.background
    return make_personal_leadfield(
        leadfield, problem.fwd, start.parcels, background, scans, 0
    )


def make_random(start):
    """Return the network of some weights with random ones."""
    n_parcels, sizes = start.parcels.n_parcels, start.network.sizes
    n_features = N_KERNELS * n_parcels
    return make_network("compact", n_features, n_parcels, start.n_times, 0, **sizes)


def train(name, start, library, personal, n_steps, args, folder):
    """Train, and keep weights on the way.

    Returns
    -------
    found : dict
        Validation losses by number of updates, and the time (s).
    files : dict of Path
        The weights by number of updates, and the best ones.
    """
    network = make_random(start) if name == SCRATCH else start.network
    options = TrainingOptions(
        n_steps=n_steps,
        batch_size=args.batch_size,
        learning_rate=RATES[name],
        n_warmup=max(1, n_steps // 10),
        validate_every=max(1, n_steps // N_VALIDATIONS),
    )
    wanted = [0, *(max(1, n_steps // part) for part in SHARES), BEST]
    files = {what: folder / f"{name} {what}.safetensors" for what in wanted}

    def keep(what, network):
        model = replace(start, network=copy.deepcopy(network).eval(), recipe={})
        write_model(model, files[what], {}, overwrite=True)

    def keep_some(trainer):
        if trainer.step in files:
            keep(trainer.step, trainer.network)

    trainer = Trainer(
        copy.deepcopy(network).float(),
        library,
        personal,
        options,
        checkpoint=folder / f"{name}.pt",
        callback=keep_some,
    )
    keep(0, network)
    trainer.run()
    keep(BEST, trainer.network)
    seconds = sum(trainer.seconds.values())
    return dict(losses=trainer.history, seconds=seconds), files


# ---------------------------------------------------------------- scores
def score(scenario, number, fname, n, store):
    """Return the scores of weights on the samples of one head, by the suite."""
    cell = Cell(scenario, f"DeepSIF:{fname}", 0, Chunk(number, n))
    run([cell], store, 1)
    rows = pd.DataFrame(
        store.load(cell)["rows"], columns=["sample", "rule", "metric", "value"]
    )
    return rows[rows["metric"].isin((*METRICS, "failed"))]


def summarise(rows, *keys):
    """Return mean, SD, median and number of each score, as records."""
    groups = rows.groupby([*keys, "rule", "metric"], sort=False)["value"]
    return statistics(groups).reset_index().to_dict("records")


def study_head(scenario, number, start, library, args, out):
    """Train both networks on one head, and score all weights.

    Returns
    -------
    found : dict
        Of each training, the validation losses and what :func:`summarise` returns for
        each number of updates.
    rows : DataFrame
        The scores of the generic and of the best weights.
    """
    folder, store = out / f"{scenario.head.name} {number}", Store(out / "store")
    folder.mkdir(parents=True, exist_ok=True)
    personal = make_personal(scenario, number, start, library)
    found, last = {}, {}
    for name, times in ((PERSONAL, 1), (SCRATCH, args.times)):
        n_steps = times * args.updates
        found[name], files = train(
            name, start, library, personal, n_steps, args, folder
        )
        last[name] = files.pop(BEST)
        curve = [
            score(scenario, number, fname, args.n_curve, store).assign(update=update)
            for update, fname in files.items()
        ]
        found[name]["curve"] = summarise(pd.concat(curve), "update")
        if name == PERSONAL:
            last[GENERIC] = files[0]
    rows = [
        score(scenario, number, last[name], args.n, store).assign(method=name)
        for name in METHODS
    ]
    return found, pd.concat(rows)


# ---------------------------------------------------------------- the whole
def draw(cases, fname):
    """Draw validation loss and localization error against the updates."""
    options = dict(sharex=True, sharey="row", layout="constrained")
    fig, axes = plt.subplots(2, len(cases), figsize=(9, 5), squeeze=False, **options)
    for column, (case, found) in zip(axes.T, cases.items(), strict=True):
        for head in found["heads"].values():
            for name in (SCRATCH, PERSONAL):
                style = dict(color=COLORS[name], marker=".")
                column[0].plot(*zip(*head[name]["losses"]), label=name, **style)
                points = [
                    (one["update"], one["mean"])
                    for one in head[name]["curve"]
                    if (one["rule"], one["metric"]) == ("otsu", "le")
                ]
                column[1].plot(*zip(*points), **style)
            loss = head[PERSONAL]["losses"][0][1]
            column[0].axhline(loss, color=COLORS[GENERIC], ls="--", label=GENERIC)
        column[0].set(title=case)
        column[1].set(xlabel="updates")
    axes[0, 0].set(ylabel="validation loss")
    axes[1, 0].set(ylabel="localization error (mm)", ylim=(0, None))
    handles = axes[0, 0].get_legend_handles_labels()
    by_name = dict(zip(*reversed(handles)))
    fig.legend(by_name.values(), by_name, loc="outside right center", frameon=False)
    fig.savefig(fname, dpi=100)
    plt.close(fig)


def parse(parser):
    """Read the options."""
    parser.add_argument("--updates", type=int, default=250, help="of given weights")
    parser.add_argument("--times", type=int, default=2, help="as many from scratch")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--heads", type=int, default=2, help="other heads, at most 4")
    parser.add_argument("--n", type=int, default=48, help="samples of each head")
    parser.add_argument("--n-curve", type=int, default=12, help="for points of curves")
    parser.add_argument("--out", type=Path, help="folder for weights and scores")
    return parse_args(parser, smoke=True)


def main():
    """Study each head, and write what is known so far after each."""
    args = parse(argparse.ArgumentParser(description=__doc__.split("\n")[0]))
    mne.set_log_level("ERROR")
    out = args.out or mne_deepsif.data_path() / "changes"
    start, cases = load_model("generic"), CASES
    options = LIBRARY | dict(sfreq=start.sfreq)
    if args.smoke:
        head = PapersHead(sensors="mag", library="small", n_vertices=2562)
        cases, options = {"no change": (head, 1)}, SMALL_LIBRARY
    library = make_library(start.parcels, **options)
    sizes = ("updates", "times", "batch_size", "n", "n_curve")
    record = provenance() | {name: getattr(args, name) for name in sizes}
    record |= dict(threads=torch.get_num_threads(), cases={})
    for case, (head, n_heads) in cases.items():
        (scenario,) = on(ANY, head, tuple(range(n_heads)))
        heads, parts = {}, []
        for number in range(min(n_heads, args.heads)):
            began = time.perf_counter()
            heads[number], rows = study_head(
                scenario, number, start, library, args, out
            )
            parts.append(rows)
            summary = summarise(pd.concat(parts), "method")
            record["cases"][case] = dict(heads=heads, summary=summary)
            text = json.dumps(record, indent=1)
            (args.results / "changes.json").write_text(text + "\n", encoding="utf-8")
            draw(record["cases"], figures_folder(args.results) / "changes.png")
            seconds = time.perf_counter() - began
            print(f"{case}, head {number}: {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()

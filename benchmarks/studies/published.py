"""The papers' network on the papers' own gain: the reference point.

    python -m benchmarks.studies.published [--minutes 30] [--n 300]

Trains ``architecture="published"`` (``encoder="sensors"``) for the given number of
processor minutes on the authors' 75-channel gain and 994 regions, and our compact
network (``encoder="backprojection"``) for as many minutes on the same gain and kinds
of samples. The published network sees windows of 1 s, as in the papers, but at 125
instead of 500 Hz (``--sfreq``): its time goes into the recurrence over samples, and an
update at 500 Hz takes four times as long. Then the suite's cells score both networks,
and the generic weights, on 1, 2 and 3 sources of the papers' task. Prints the tables
and writes ``results/published.txt`` and, with the learning curves,
``results/published.json``. A run that was stopped goes on if it is started again with
the same options. ``OMP_NUM_THREADS=1`` saves processor time: the many small steps of an
LSTM gain little from a second thread and wait for it a lot.

Needs ``../shared/data/reference`` beside the checkout.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import mne

import mne_deepsif
from mne_deepsif import Model
from mne_deepsif.estimator import make_training_leadfield
from mne_deepsif.head.leadfield import make_leadfield
from mne_deepsif.inverse.files import write_model
from mne_deepsif.network.architectures import make_network
from mne_deepsif.network.device import resolve_device
from mne_deepsif.network.encoder import N_KERNELS
from mne_deepsif.simulation.connectome import NMM_994_INDEX
from mne_deepsif.simulation.library import make_library
from mne_deepsif.training.trainer import Trainer, TrainingOptions

from ..comparison import authors, report
from ..comparison.papers import PapersHead
from ..comparison.registry import NUMBERS, on
from ..comparison.run import make_plan, run
from ..comparison.store import Store
from ..options import parse_args
from ..provenance import Lines, provenance

HEAD = PapersHead("authors", "authors", regions=True)
TRAIN_SEED = 1  # of the library; the suite draws its samples from another
CHUNK = 50  # samples of a cell
PROBE = 3  # updates that tell how long one takes
CONDITIONS = """
Held-out waveforms, patches, background and noise; 1 s at 500 Hz, noise drawn there as
the authors' scripts do (5, 10, 15, 20 dB nominal, power halved), 10-15 dB over
background. Scores per source, mean ± SD; LE one-sided; n: samples. The generic weights
were trained on other heads and on sources of any size."""
LINES = Lines()
say = LINES.say


# ---------------------------------------------------------------- the papers' head
def read_leadfield():
    """Return the leadfield of the suite's head with the authors' gain and regions."""
    problem = HEAD.make().problem
    return make_leadfield(
        problem.info,
        problem.fwd,
        problem.noise_cov,
        parcels=authors.make_regions(),
        subjects_dir=problem.subjects_dir,
    )


def read_library(sfreq, args):
    """Simulate spikes, background and patches under the papers' connectome."""
    fname = authors.FOLDER / "connectivity_998.zip"
    return make_library(
        authors.make_regions(),
        sfreq=sfreq,
        n_patches=40_000,
        n_waveforms=args.waveforms,
        background=args.background,
        papers_only=True,
        connectome=mne_deepsif.read_tvb_connectivity(fname, NMM_994_INDEX),
        random_state=TRAIN_SEED,
    )


# ---------------------------------------------------------------- training
def clock(device):
    """Return processor seconds so far (of all threads), or seconds on a GPU."""
    return time.process_time() if device == "cpu" else time.perf_counter()


class Log:
    """Appends the processor seconds of each update to a file, also over restarts."""

    def __init__(self, fname, device):
        self.fname, self.device = fname, device
        lines = fname.read_text().splitlines() if fname.exists() else []
        self.seconds = dict(map(json.loads, lines))
        self.start, self.before = clock(device), None

    def __call__(self, trainer):
        """Note an update."""
        if self.before is None:  # the first update of this process
            self.before = self.seconds.get(trainer.step - 1, 0.0)
            self.file = open(self.fname, "a", buffering=1)
        self.seconds[trainer.step] = self.before + clock(self.device) - self.start
        self.file.write(json.dumps([trainer.step, self.seconds[trainer.step]]) + "\n")


class Published:
    """The papers' network: channels in, windows of 1 s."""

    encoder, architecture = "sensors", "published"

    def __init__(self, leadfield, args):
        self.sfreq, self.n_features = args.sfreq, len(leadfield.gain)
        self.options = TrainingOptions(
            n_leadfields=1,
            learning_rate=3e-4,  # the papers' rate
            n_times=round(args.sfreq),
            batch_size=args.batch_size,
            n_validation=4 * args.batch_size,
        )


class Compact:
    """Our network: back-projections in, windows of 64 samples at 125 Hz."""

    encoder, architecture, sfreq = "backprojection", "compact", 125.0
    options = TrainingOptions(n_leadfields=1)

    def __init__(self, leadfield, args):
        self.n_features = N_KERNELS * leadfield.gain.shape[1]


def make_trainer(kind, leadfield, library, options, device, **kwargs):
    """Return what trains a network on the leadfield."""
    n_parcels = len(library.background)
    network = make_network(
        kind.architecture, kind.n_features, n_parcels, options.n_times, options.seed
    )
    leadfields = [make_training_leadfield(leadfield, kind.encoder)]
    return Trainer(network, library, leadfields, options, device=device, **kwargs)


def count_updates(kind, leadfield, library, minutes, device):
    """Measure how many updates fit into the time, a tenth of it for validation."""
    options = replace(kind.options, n_steps=PROBE, n_validation=1, n_warmup=1)
    times = []
    note = dict(callback=lambda _: times.append(clock(device)))
    make_trainer(kind, leadfield, library, options, device, **note).run()
    seconds = (times[-1] - times[0]) / (PROBE - 1)
    return max(2, int(0.9 * 60 * minutes / seconds))


def train(kind, leadfield, args, device, out):
    """Train one network; return the file of its weights and the record."""
    library = read_library(kind.sfreq, args)
    plan = out / f"{kind.architecture}.json"
    if not plan.exists():
        n_steps = count_updates(kind, leadfield, library, args.minutes, device)
        plan.write_text(json.dumps(n_steps))
    n_steps = json.loads(plan.read_text())
    options = replace(
        kind.options,
        n_steps=n_steps,
        n_warmup=min(200, max(1, n_steps // 10)),
        validate_every=max(1, n_steps // 12),
    )
    log = Log(out / f"{kind.architecture}.jsonl", device)
    trainer = make_trainer(
        kind,
        leadfield,
        library,
        options,
        device,
        checkpoint=out / f"{kind.architecture}.pt",
        callback=log,
    )
    trainer.run()
    curve = [
        {"update": step, "loss": loss, "seconds": log.seconds.get(step, 0.0)}
        for step, loss in trainer.history
    ]
    record = {"curve": curve, "options": asdict(options), "seconds": trainer.seconds}
    fname = out / f"{kind.architecture}-deepsif.safetensors"
    params = {"sfreq": kind.sfreq, "n_times": options.n_times}
    write_model(make_model(kind, trainer, leadfield), fname, params, overwrite=True)
    return fname, record


def make_model(kind, trainer, leadfield):
    """Return the trained network as the model that users have."""
    return Model(
        network=trainer.network,
        encoder=kind.encoder,
        parcels=authors.make_regions(),
        sfreq=kind.sfreq,
        n_times=trainer.options.n_times,
        architecture=kind.architecture,
        ch_names=leadfield.ch_names if kind.encoder == "sensors" else None,
        recipe={"script": "benchmarks.studies.published", "n_steps": trainer.step},
        history=list(trainer.history),
    )


# ---------------------------------------------------------------- scores
def score(methods, n, store):
    """Return the suite's summary of methods on 1, 2 and 3 sources.

    ``methods`` are the suite's names by those of the tables.
    """
    plan = []
    for scenario in on(NUMBERS, HEAD, (0,)):
        settings = dict.fromkeys(methods.values(), (0,))
        plan += make_plan(scenario, list(methods.values()), settings, n, CHUNK)
    run(plan, store, 1)
    choices = {(one.scenario, one.method, 0): ["usual"] for one in plan}
    rows = report.read_rows(plan, choices, store)
    titles = {method: title for title, method in methods.items()}
    return report.summarise(rows.assign(method=rows["method"].map(titles)))


# ---------------------------------------------------------------- the whole
def describe(kind, record):
    """Print how long a network was trained and how far it came."""
    last, n_steps = record["curve"][-1], record["options"]["n_steps"]
    losses = [f"{point['loss']:.3f}" for point in record["curve"]]
    say(
        f"{kind.architecture}: {n_steps} updates of {record['options']['batch_size']} "
        f"samples of {record['options']['n_times'] / kind.sfreq:.2f} s, "
        f"{last['seconds'] / 60:.1f} processor minutes; validation loss (zero "
        f"estimate: 1) {' '.join(losses)}"
    )


def main():
    """Train both networks, score them, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0, help="for each network")
    parser.add_argument("--n", type=int, default=300, help="samples per cell")
    parser.add_argument("--batch-size", type=int, default=64, help="of the papers' net")
    parser.add_argument("--sfreq", type=float, default=125.0, help="of its windows")
    parser.add_argument("--waveforms", type=int, default=40_000, help="in the library")
    parser.add_argument("--background", type=float, default=300.0, help="of it, in s")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, help="folder for checkpoints and networks")
    args = parse_args(parser)
    mne.set_log_level("ERROR")
    device = resolve_device(args.device)
    out = args.out or mne_deepsif.data_path() / f"published-{args.minutes:g}"
    out.mkdir(parents=True, exist_ok=True)
    LINES.say_provenance()
    leadfield, methods, records = read_leadfield(), {}, {}
    for kind in (Published(leadfield, args), Compact(leadfield, args)):
        name = kind.architecture
        fname, records[name] = train(kind, leadfield, args, device, out)
        methods[name] = f"DeepSIF:{fname}"
        describe(kind, records[name])
    summary = score(methods | dict(generic="DeepSIF"), args.n, Store(out / "store"))
    say(CONDITIONS)
    for scenario in summary["scenario"].unique():
        lines = report.papers_table(summary, scenario)
        say(f"\n{scenario}\n\n{report.as_markdown(lines)}")
    fname = args.results / "published.txt"
    LINES.write(fname)
    records["summary"] = json.loads(summary.to_json(orient="records"))
    text = json.dumps(provenance() | records, indent=1)
    fname.with_suffix(".json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

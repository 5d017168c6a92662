"""The papers' network on the papers' own gain: the reference point.

    python -m benchmarks.studies.published [--minutes 30] [--n 300]

Trains ``architecture="published"`` (``encoder="sensors"``) for the given number of
processor minutes on the authors' 75-channel gain and 994 regions, and our compact
network (``encoder="backprojection"``) for as many minutes on the same gain and kinds
of samples. The published network sees windows of 1 s, as in the papers, but at 125
instead of 500 Hz (``--sfreq``): its time goes into the recurrence over samples, and an
update at 500 Hz takes four times as long. Prints how both find 1, 2 and 3 sources and
writes ``results/published.txt`` and the learning curves, ``results/published.json``. A
run that was stopped goes on if it is started again with the same options.
``OMP_NUM_THREADS=1`` saves processor time: the many small steps of an LSTM gain little
from a second thread and wait for it a lot.

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
import numpy as np
import torch
from scipy.io import loadmat

import mne_deepsif
from mne_deepsif import Model, metrics
from mne_deepsif.head.parcels import _build_parcels
from mne_deepsif.inverse.files import write_model
from mne_deepsif.network.architectures import make_network
from mne_deepsif.network.device import resolve_device
from mne_deepsif.network.encoder import N_KERNELS
from mne_deepsif.simulation import Simulator
from mne_deepsif.simulation.connectome import NMM_994_INDEX
from mne_deepsif.simulation.library import make_library
from mne_deepsif.training.batches import TrainingLeadfield
from mne_deepsif.training.trainer import Trainer, TrainingOptions

from ..options import parse_args
from ..provenance import ROOT, Lines, provenance

DATA = ROOT.parent / "shared" / "data" / "reference"
TRAIN_SEED, TEST_SEED = 1, 9000  # of the libraries
SFREQ, N_TIMES = 500.0, 500  # of the papers' samples
SNRS = (5.0, 10.0, 15.0, 20.0)  # dB, nominal, of the papers' test samples
CHUNK = 50  # samples estimated at once
PROBE = 3  # updates that tell how long one takes
# mean ± SD, authors' rule
PAPERS = """\
papers (75/76 channels, authors' rule)   1 source      2 sources     3 sources
  LE mm                                  1.12 ± 2.14   1.55 ± 1.74   1.56 ± 1.66
  precision                               .88 ± .15     .79 ± .18     .76 ± .17
  recall                                  .95 ± .07     .83 ± .18     .75 ± .19
  correlation                             .99 ± .02     .91 ± .16     .85 ± .19"""
CONDITIONS = """
Held-out waveforms, patches, background and noise; 1 s at 500 Hz, noise drawn there as
the authors' scripts do (5, 10, 15, 20 dB nominal, power halved), 10-15 dB over
background. Scores per source, mean ± SD (median); LE one-sided; n: sources"""
LINES = Lines()
say = LINES.say


# ---------------------------------------------------------------- the papers' head
def read_parcels():
    """Return the papers' 994 regions on the pial surface on which they were cut."""
    cortex = loadmat(DATA / "fs_cortex_20k.mat")
    rr, tris = cortex["pos"] / 1e3, cortex["tri"].astype(int)
    tris -= tris.min()  # MATLAB counts from 1
    mapping = loadmat(DATA / "fs_cortex_20k_region_mapping.mat")["rm"].ravel()
    n_lh = len(rr) // 2
    left = (tris < n_lh).all(1)
    return _build_parcels(
        "fsaverage5",
        mapping.astype(int),
        [rr[:n_lh], rr[n_lh:]],
        [tris[left], tris[~left] - n_lh],
    )


def read_gain():
    """Return the papers' gain (75, 994), average-referenced, mean square 1."""
    gain = loadmat(DATA / "leadfield_75_20k.mat")["fwd"]
    gain = gain - gain.mean(0)
    return gain / np.sqrt(np.mean(gain**2))


def reference_whitener(n_channels):
    """Return the whitener (n_channels - 1, n_channels) of average-referenced noise."""
    centring = np.eye(n_channels) - 1 / n_channels
    return np.linalg.eigh(centring)[1][:, 1:].T


def read_library(parcels, sfreq, seed, args, test=False):
    """Simulate spikes, background and patches under the papers' connectome."""
    connectome = mne_deepsif.read_tvb_connectivity(
        DATA / "connectivity_998.zip", NMM_994_INDEX
    )
    share = 0.1 if test else 1.0
    return make_library(
        parcels,
        sfreq=sfreq,
        n_patches=max(994, int(share * 40_000)),
        n_waveforms=int(share * args.waveforms),
        background=max(5.0, share * args.background),
        papers_only=True,
        connectome=connectome,
        random_state=seed,
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
    options = TrainingOptions(n_leadfields=1, learning_rate=3e-4)  # the papers' rate

    def __init__(self, gain, args):
        self.leadfield, self.sfreq = TrainingLeadfield(gain), args.sfreq
        self.options = replace(
            self.options,
            n_times=round(args.sfreq),
            batch_size=args.batch_size,
            n_validation=4 * args.batch_size,
        )
        self.n_features = len(gain)

    def given(self, channels):
        """Return data or gain as the network's estimate takes them."""
        return channels


class Compact:
    """Our network: back-projections in, windows of 64 samples at 125 Hz."""

    encoder, architecture, sfreq = "backprojection", "compact", 125.0
    options = TrainingOptions(n_leadfields=1)

    def __init__(self, gain, args):
        self.leadfield = TrainingLeadfield(gain, reference_whitener(len(gain)))
        self.n_features = N_KERNELS * gain.shape[1]

    def given(self, channels):
        """Return data or gain as the network's estimate takes them."""
        return self.leadfield.whitener @ channels


def make_trainer(kind, library, options, device, **kwargs):
    n_parcels = len(library.background)
    network = make_network(
        kind.architecture, kind.n_features, n_parcels, options.n_times, options.seed
    )
    return Trainer(network, library, [kind.leadfield], options, device=device, **kwargs)


def count_updates(kind, library, minutes, device):
    """Measure how many updates fit into the time, a tenth of it for validation."""
    options = replace(kind.options, n_steps=PROBE, n_validation=1, n_warmup=1)
    times = []
    make_trainer(
        kind, library, options, device, callback=lambda _: times.append(clock(device))
    ).run()
    seconds = (times[-1] - times[0]) / (PROBE - 1)
    return max(2, int(0.9 * 60 * minutes / seconds))


def train(kind, parcels, args, device, out):
    """Train one network; return the model and the record of the training."""
    library = read_library(parcels, kind.sfreq, TRAIN_SEED, args)
    plan = out / f"{kind.architecture}.json"
    if not plan.exists():
        plan.write_text(json.dumps(count_updates(kind, library, args.minutes, device)))
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
    model = make_model(kind, trainer, parcels)
    params = {"sfreq": model.sfreq, "n_times": model.n_times}
    fname = out / f"{kind.architecture}-deepsif.safetensors"
    write_model(model, fname, params, overwrite=True)
    return model, record


def make_model(kind, trainer, parcels):
    """Return the trained network as the model that users have."""
    labels = loadmat(DATA / "electrode_75.mat", squeeze_me=True)["eloc75"]["labels"]
    return Model(
        network=trainer.network,
        encoder=kind.encoder,
        parcels=parcels,
        sfreq=kind.sfreq,
        n_times=trainer.options.n_times,
        architecture=kind.architecture,
        ch_names=list(labels) if kind.encoder == "sensors" else None,
        recipe={"script": "benchmarks.studies.published", "n_steps": trainer.step},
        history=list(trainer.history),
    )


# ---------------------------------------------------------------- scores
def draw(library, gain, n_sources, n_samples):
    """Yield chunks of ``data, weights, waves``, a quarter at each signal-to-noise."""
    gain = torch.as_tensor(gain).float()
    for snr in SNRS:
        simulator = Simulator(
            library,
            N_TIMES,
            n_sources={n_sources: 1.0},
            background_snr=(10.0, 15.0),  # of the papers' test samples
            sensor_snr=(snr, snr),
            noise="authors",
            margin=-0.1,
            seed=int(100 * snr) + n_sources,
        )
        left = -(-n_samples // len(SNRS))
        while left > 0:
            weights, waves, *rest = simulator.draw(min(CHUNK, left))
            data, _ = simulator.project(gain, weights, waves, *rest)
            yield tuple(x.double().numpy() for x in (data, weights, waves))
            left -= CHUNK


def score(kinds, models, library, gain, parcels, n_sources, n_samples):
    """Return {(network, rule): {metric: list of values}} over the sources."""
    scores = {}
    prepared = [model.prepare(kind.given(gain)) for kind, model in zip(kinds, models)]
    for data, weights, waves in draw(library, gain, n_sources, n_samples):
        for kind, one in zip(kinds, prepared, strict=True):
            estimates = one.estimate(kind.given(data), SFREQ)
            for sources, weight, wave in zip(estimates, weights, waves, strict=True):
                patches = [np.flatnonzero(profile) for profile in weight]
                for rule in ("authors", "peak"):
                    cell = metrics.evaluate_parcels(
                        sources, patches, wave, parcels.centers, parcels.areas, rule
                    )
                    pooled = scores.setdefault((kind.architecture, rule), {})
                    for name, values in cell.items():
                        pooled.setdefault(name, []).extend(values)
    return scores


def report(n_sources, scores):
    """Print a line a network and rule."""
    for (architecture, rule), cell in scores.items():
        values = {name: np.array(value, float) for name, value in cell.items()}
        values["le"] = 1e3 * values["le"][~np.isnan(values["le"])]
        texts = [f"LE mm {summary(values['le'], 1)}"]
        texts += [
            f"{name} {summary(values[name], 2)}"
            for name in ("precision", "recall", "correlation")
        ]
        say(
            f"{n_sources} source(s) {architecture:9s} {rule:7s} {'  '.join(texts)}  "
            f"missed {values['missed'].mean():.3f}  n={len(values['recall'])}"
        )


def summary(values, digits):
    """Format mean ± SD (median)."""
    if not len(values):
        return "-"
    numbers = (values.mean(), values.std(), np.median(values))
    mean, std, median = (f"{number:.{digits}f}" for number in numbers)
    return f"{mean} ±{std} ({median})"


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
    mne.set_log_level("WARNING")
    device = resolve_device(args.device)
    out = args.out or mne_deepsif.data_path() / f"published-{args.minutes:g}"
    out.mkdir(parents=True, exist_ok=True)
    LINES.say_provenance()
    parcels, gain = read_parcels(), read_gain()
    kinds = [Published(gain, args), Compact(gain, args)]
    models, records = [], {}
    for kind in kinds:
        model, records[kind.architecture] = train(kind, parcels, args, device, out)
        models.append(model)
        describe(kind, records[kind.architecture])
    say(CONDITIONS)
    library = read_library(parcels, SFREQ, TEST_SEED, args, test=True)
    for n_sources in (1, 2, 3):
        scores = score(kinds, models, library, gain, parcels, n_sources, args.n)
        report(n_sources, scores)
    say(PAPERS)
    fname = args.results / "published.txt"
    LINES.write(fname)
    text = json.dumps(provenance() | records, indent=1)
    fname.with_suffix(".json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

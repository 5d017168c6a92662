"""How the network's answer should weigh the minimum norm: on validation heads only.

    python benchmarks/reweighting.py --out /tmp/generic [--n 40]

``--out`` is the folder in which ``benchmarks/train_generic.py library`` has put
``training.npz``: leadfields of the two validation heads, waveforms and patches that the
training left out. Two conditions: noise and background as in the papers, and hard ones
(noise of 15 to -5 dB, background 2 to 12 dB, and a gain that is wrong by 20 % in each
channel). Results go to ``results/reweighting.json``.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from options import parse_args
from provenance import provenance

from mne_deepsif import metrics
from mne_deepsif.inverse.weights import load_model
from mne_deepsif.network import reweighting
from mne_deepsif.network.encoder import backprojection_kernels, encode_windows
from mne_deepsif.simulation import Simulator
from mne_deepsif.training.training_set import read_training_set

CONDITIONS = {  # background (dB), sensor noise (dB), error of the gain
    "papers": ((10.0, 15.0), (5.0, 25.0), 0.0),
    "hard": ((2.0, 12.0), (-5.0, 15.0), 0.2),
}
LAMBDAS = reweighting._LAMBDAS
# name: exponent, floor, noise over signal, weight of a neighbour, steps
VARIANTS = {
    "as shipped": (0.6, 0.1, LAMBDAS, 0.3, 3),
    "exponent 0 (minimum norm)": (0.0, 0.1, LAMBDAS, 0.3, 3),
    "exponent 0.5": (0.5, 0.1, LAMBDAS, 0.3, 3),
    "exponent 0.75": (0.75, 0.1, LAMBDAS, 0.3, 3),
    "exponent 1": (1.0, 0.1, LAMBDAS, 0.3, 3),
    "floor 0.03": (0.6, 0.03, LAMBDAS, 0.3, 3),
    "floor 0.3": (0.6, 0.3, LAMBDAS, 0.3, 3),
    "noise fixed at 1/9 (MNE)": (0.6, 0.1, (1 / 9,), 0.3, 3),
    "parcels independent": (0.6, 0.1, LAMBDAS, 0.0, 1),
    "2 steps": (0.6, 0.1, LAMBDAS, 0.3, 2),
    "5 steps": (0.6, 0.1, LAMBDAS, 0.3, 5),
}


def draw(leadfield, library, n_samples, condition, seed):
    """Return whitened gain, whitened data and truth of samples."""
    background_snr, sensor_snr, error = CONDITIONS[condition]
    simulator = Simulator(
        library,
        64,
        n_sources={1: 1 / 3, 2: 1 / 3, 3: 1 / 3},
        background_snr=background_snr,
        sensor_snr=sensor_snr,
        margin=-0.1,
        seed=seed,
    )
    gain = torch.as_tensor(leadfield.gain).float()
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.randn(gain.shape, generator=generator)
    wrong = gain + error * gain.square().mean(0).sqrt() * wrong
    drawn = simulator.draw(n_samples)
    data, _ = simulator.project(wrong, *drawn)
    weights, waves, _, chosen, _ = drawn
    truth = []
    for profiles, courses, which in zip(weights, waves, chosen, strict=True):
        present = (which >= 0).numpy()
        truth.append((profiles.numpy()[present], courses.double().numpy()[present]))
    white = torch.as_tensor(leadfield.whitener @ leadfield.gain).float()
    data = torch.as_tensor(leadfield.whitener).float() @ data.float()
    return white / white.square().mean().sqrt(), data, truth


def answers(network, gain, data):
    """Return patterns, courses and the network's answer."""
    kernels = backprojection_kernels(gain.double()).float()
    n_components = network.sizes["n_components"]
    encoded = encode_windows(data.double(), kernels, n_components)
    with torch.inference_mode():
        return encoded.data, encoded.courses, network(encoded.X).mT


def add_scores(scores, sources, truth, parcels):
    """Score the estimates of one leadfield."""
    for estimate, (profiles, courses) in zip(sources, truth, strict=True):
        patches = [np.flatnonzero(profile) for profile in profiles]
        for rule in ("authors", "peak"):
            cell = metrics.evaluate_parcels(
                estimate, patches, courses, parcels.centers, parcels.areas, rule=rule
            )
            for name, values in cell.items():
                scores[f"{name}, {rule}"].extend(np.atleast_1d(values))
        exact = profiles.T @ courses
        product = (estimate * exact).sum() ** 2
        power = np.square(estimate).sum() * np.square(exact).sum()
        scores["missed power, best scale"].append(1 - product / max(power, 1e-300))
        order = np.argsort(-np.abs(estimate).max(1))
        hits = np.cumsum(profiles.any(0)[order])
        sizes = np.arange(1, len(order) + 1) + hits[-1]
        scores["Dice, best threshold"].append((2 * hits / sizes).max())


def kind_of(name):
    """Return EEG, MEG or both."""
    if name.startswith("joint"):
        return "MEG+EEG"
    return "EEG" if name.startswith(("eeg", "hydrocel")) else "MEG"


def main():
    """Score all variants in both conditions."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, default=40, help="samples per leadfield")
    args = parse_args(parser)
    fname = args.results / "reweighting.json"
    model = load_model("generic")
    parcels, network = model.parcels, model.network
    library, _, validation = read_training_set(args.out / "training.npz")
    _, library = library.split(0.1, 0)  # as the training does
    names = json.loads((args.out / "sensors.json").read_text())["validation"]
    results = provenance() | {"n": args.n, "conditions": {}}
    for condition in CONDITIONS:
        sets = []
        for seed, leadfield in enumerate(validation):
            gain, data, truth = draw(leadfield, library, args.n, condition, seed)
            sets.append((gain, *answers(network, gain, data), truth))
        found = {}
        for variant in ("the network's answer", *VARIANTS):
            scores = defaultdict(lambda: defaultdict(list))
            if variant in VARIANTS:
                exponent, floor, lambdas, neighbour, n_steps = VARIANTS[variant]
                reweighting._EXPONENT, reweighting._FLOOR = exponent, floor
                reweighting._LAMBDAS = lambdas
                reweighting._NEIGHBOUR, reweighting._N_STEPS = neighbour, n_steps
                correlation = reweighting.neighbour_correlation(parcels.adjacency)
            for (_, name), case in zip(names, sets, strict=True):
                gain, patterns, courses, sources, truth = case
                if variant in VARIANTS:
                    sources = reweighting.reweight(sources, patterns, gain, correlation)
                sources = (sources @ courses).double().numpy()
                add_scores(scores[kind_of(name)], sources, truth, parcels)
            found[variant] = {
                kind: {name: float(np.nanmean(v)) for name, v in values.items()}
                for kind, values in scores.items()
            }
            for kind, cell in found[variant].items():
                print(
                    f"{condition:7s}{variant:27s}{kind:8s} LE "
                    f"{1e3 * cell['le, authors']:5.2f} {1e3 * cell['le, peak']:5.2f} "
                    f"precision {cell['precision, authors']:.2f} recall "
                    f"{cell['recall, authors']:.2f} correlation "
                    f"{cell['correlation, authors']:.3f} Dice "
                    f"{cell['Dice, best threshold']:.3f} missed power "
                    f"{cell['missed power, best scale']:.3f}",
                    flush=True,
                )
        results["conditions"][condition] = found
        fname.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

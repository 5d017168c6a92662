"""What the generic weights must show, beside sLORETA, dSPM and the papers' numbers.

    python -m benchmarks.studies.generic [--parts authors meg ...] [--n 1000] [--jobs 2]

A part's table and figures replace those of an earlier run in
``benchmarks/results/generic.json``; ``generic.txt`` beside it is all of them as text.
``../shared/data`` must lie beside the checkout for ``authors``, ``robustness`` and the
real subject of ``heads``. Heads, patches, waveforms, background and noise have seeds
that are used nowhere in training. ``DeepSIF`` is ours; ``papers`` are the papers'
numbers, on their heads, parcels and data.
"""

import argparse
import ctypes
import dataclasses
import inspect
import json
import sys
import time
from functools import lru_cache, partial

import mne
import numpy as np
import scipy.signal
import torch
from scipy import sparse
from scipy.io import loadmat

import mne_deepsif
from mne_deepsif.head.template import (
    make_template_bem,
    make_template_source_space,
    make_template_trans,
)
from mne_deepsif.inverse.weights import load_model
from mne_deepsif.metrics import active_parcels, otsu_threshold
from mne_deepsif.simulation import Simulator, noise_std

from ..comparison.subjects import (
    DATA,
    biosemi_info,
    helmet,
    sample_forward,
    sample_info,
)
from ..options import figures_folder, parse_args
from ..provenance import as_lines, provenance
from .scoring import (
    BATCH,
    METHODS,
    RULES,
    SECONDS,
    Methods,
    held_out_library,
    in_chunks,
    score_cell,
)

SNRS = (5.0, 10.0, 15.0, 20.0)  # dB
NUMBERS = (1, 2, 3)  # of sources
HEAD_SEED = 77_000  # training draws its heads from other seeds
N_HEADS = 4
# regions (from 0) whose column of the authors' gain has the wrong sign: papers.md
WRONG_SIGN = [408, 409, *range(415, 421), 439, 441, 492, 495, 498, 910]
WRONG_SIGN += [*range(915, 920), 922, 923]
SCORES = ("precision", "recall", "correlation")
HEADER = (
    f"{'':24s}{'rule':8s}{'method':8s}{'n':>5s}{'LE mm':>7s}{'SD':>6s}{'median':>7s}"
    f"{'precision':>12s}{'recall':>11s}{'correl.':>11s}{'missed':>8s}"
)


class Report:
    """Lines, rows and figures of one part."""

    def __init__(self):
        self.lines, self.rows, self.values = [], [], {}

    def say(self, text=""):
        """Print a line and keep it."""
        print(text, flush=True)
        self.lines.append(text)

    def add_scores(self, cell, n_samples, scores):
        """Print a line a rule and method, and keep the numbers."""
        for rule in RULES:
            for method in METHODS:
                row = dict(cell=cell, rule=rule, method=method, n=n_samples)
                row |= summarise(scores, method, rule)
                self.rows.append(row)
                self._say_row(row)

    def add_papers(self, cell, le, **scores):
        """Print what the papers report: mean and SD of each score."""
        row = dict(cell=cell, rule="authors", method="papers", n=None, missed=None)
        for name in SCORES:
            row[name] = dict(zip(("mean", "sd"), scores.get(name, ())))
        self.rows.append(row | {"le": dict(mean=le[0], sd=le[1], median=None)})
        self._say_row(self.rows[-1])

    def _say_row(self, row):
        le = row["le"]
        texts = [f"{row['cell']:24s}{row['rule']:8s}{row['method']:8s}"]
        texts.append(f"{row['n'] or '-':>5}{le['mean']:7.2f}{le['sd']:6.2f}")
        texts.append("      -" if le["median"] is None else f"{le['median']:7.2f}")
        for name in SCORES:
            score = row[name]
            text = f"{score['mean']:.2f} ±{score['sd']:.2f}" if score else "-"
            texts.append(f"{text:>{12 if name == 'precision' else 11}s}")
        texts.append("" if row["missed"] is None else f"{row['missed']:8.3f}")
        self.say("".join(texts))

    def add_value(self, name, value, target="", papers="", interval=None):
        """Print and keep a figure with its target and the papers' number."""
        texts = [f"{name:60s}{value:7.2f}"]
        if interval is not None:
            texts.append(f"[{interval[0]:.2f}, {interval[1]:.2f}]")
        if target:
            texts.append(f"target {target}")
        if papers:
            texts.append(f"papers {papers}")
        self.say("  ".join(texts))
        self.values[name] = dict(value=value, target=target, papers=papers)
        if interval is not None:
            self.values[name]["interval"] = list(interval)


def summarise(scores, method, rule):
    """Return mean, SD and median of each score, LE in mm over the sources found."""
    values = {
        name: np.array(scores[method, rule, name], float)
        for name in ("le", *SCORES, "missed")
    }
    values["le"] = 1e3 * values["le"][~np.isnan(values["le"])]
    row = {
        name: dict(
            mean=float(np.mean(values[name])),
            sd=float(np.std(values[name])),
            median=float(np.median(values[name])),
        )
        for name in ("le", *SCORES)
    }
    n_sources = len(values["missed"])
    return row | dict(n_sources=n_sources, missed=float(values["missed"].mean()))


def pool(cells):
    """Join the scores of several cells."""
    pooled = {}
    for cell in cells:
        for key, values in cell.items():
            pooled.setdefault(key, []).extend(values)
    return pooled


def mean_le(scores, rule, statistic=np.nanmean, method="DeepSIF"):
    """Return the mean (or median) LE in mm."""
    return 1e3 * float(statistic(scores[method, rule, "le"]))


def le_ratio(scores, base, rule, n_draws=1000):
    """Return the ratio of mean LE, and its 95 % interval by a bootstrap over sources.

    Cells of the same seeds and number of channels have the same sources: these are
    then drawn in pairs.
    """
    new, old = (np.array(s["DeepSIF", rule, "le"]) for s in (scores, base))
    rng = np.random.default_rng(0)
    draws = [rng.integers(len(x), size=(n_draws, len(x))) for x in (new, old)]
    if len(new) == len(old):
        draws[1] = draws[0]
    ratios = np.nanmean(new[draws[0]], axis=1) / np.nanmean(old[draws[1]], axis=1)
    return np.nanmean(new) / np.nanmean(old), np.percentile(ratios, [2.5, 97.5])


def add_ratio(report, name, scores, base, target="", papers=""):
    """Print the ratio of mean LE by both rules."""
    for rule in RULES:
        ratio, interval = le_ratio(scores, base, rule)
        report.add_value(f"{name}, {rule} rule", ratio, target, papers, interval)


def on_template(info, args):
    """Return the methods on the template head."""
    return Methods(info, mne_deepsif.make_template_forward(info), args.model)


# ---------------------------------------------------------------- 1: the authors' gain
PAPERS_EEG = {
    1: dict(le=(1.12, 2.14), precision=(0.88, 0.15), recall=(0.95, 0.07),
            correlation=(0.99, 0.02)),
    2: dict(le=(1.55, 1.74), precision=(0.79, 0.18), recall=(0.83, 0.18),
            correlation=(0.91, 0.16)),
    3: dict(le=(1.56, 1.66), precision=(0.76, 0.17), recall=(0.75, 0.19),
            correlation=(0.85, 0.19)),
    "all": dict(le=(1.41, 1.87), precision=(0.81, 0.17), recall=(0.85, 0.18)),
}  # fmt: skip
PAPERS_SNR = {5.0: 1.65, 10.0: 1.43, 15.0: 1.29, 20.0: 1.26}
CORRELATION_TARGET = {1: ">= .98", 2: ">= .95", 3: ">= .92"}


@lru_cache
def authors_data():
    """Return the authors' gain (signs put right), region of each vertex and Info."""
    folder = DATA / "reference"
    gain = loadmat(folder / "leadfield_75_20k.mat")["fwd"].astype(float)
    gain[:, WRONG_SIGN] *= -1
    region = loadmat(folder / "fs_cortex_20k_region_mapping.mat")["rm"].ravel()
    table = loadmat(folder / "electrode_75.mat", squeeze_me=True)["eloc75"]
    names = [str(name) for name in table["labels"]]
    points = np.array([-table["Y"], table["X"], table["Z"]], float).T
    return gain, region.astype(int), biosemi_info(montage=make_montage(names, points))


def make_montage(names, points):
    """Place electrodes by name; the few without a standard name by an affine fit."""
    positions = mne.channels.make_standard_montage("colin27_1005").get_positions()
    ch_pos = positions.pop("ch_pos")
    known = [name in ch_pos for name in names]
    points = np.c_[points, np.ones(len(points))]
    goal = np.array([ch_pos[name] for name in names if name in ch_pos])
    fitted = points @ np.linalg.lstsq(points[known], goal, rcond=None)[0]
    ch_pos = {n: ch_pos.get(n, p) for n, p in zip(names, fitted, strict=True)}
    positions = {k: positions[k] for k in ("nasion", "lpa", "rpa", "coord_frame")}
    return mne.channels.make_dig_montage(ch_pos, **positions)


def authors_forward():
    """Return a forward of all vertices with the authors' gain.

    The file has one column a region, the sum over its vertices: each vertex gets the
    mean of its region. Made with free orientation, the gain along the normal, so that
    it goes the way of any other forward.
    """
    gain, region, info = authors_data()
    fwd = mne_deepsif.make_template_forward(info)
    normals = np.concatenate([s["nn"][s["vertno"]] for s in fwd["src"]])
    vertex_gain = (gain / np.bincount(region))[:, region]
    data = (vertex_gain[:, :, None] * normals).reshape(len(gain), -1)
    data *= np.linalg.norm(fwd["sol"]["data"]) / np.linalg.norm(data)
    for key in ("sol", "_orig_sol"):
        if isinstance(fwd[key], dict):
            fwd[key]["data"] = data
        else:
            fwd[key] = data.copy()
    return fwd


@lru_cache
def authors_methods(model):
    """Return the methods with the authors' gain on our parcels."""
    return Methods(authors_data()[2], authors_forward(), model)


def authors_regions(methods, small):
    """Return the library and what ``score_cell`` takes as truth: the authors' regions.

    Estimates on our parcels are carried over by the share of each region's vertices
    that lie in each parcel.
    """
    gain, region, _ = authors_data()
    labels = []
    for number in range(gain.shape[1]):
        vertices = np.flatnonzero(region == number)
        hemi = ("lh", "rh")[int(vertices[0] >= 10242)]
        name = f"{number}-{hemi}"
        label = mne.Label(vertices % 10242, hemi=hemi, name=name, subject="fsaverage5")
        labels.append(label)
    parcels = mne_deepsif.make_parcels(labels)
    mapping = methods.parcels.mapping
    inside = np.flatnonzero(mapping >= 0)
    count = np.maximum(np.bincount(region[inside], minlength=len(labels)), 1)
    share = (1 / count[region[inside]]).astype(np.float32)
    overlap = sparse.csr_array(
        (share, (region[inside], mapping[inside])),
        shape=(len(labels), methods.parcels.n_parcels),
    )
    overlap.sum_duplicates()
    gain = methods.leadfield.projector @ gain / methods.std[:, None]
    truth = gain / np.abs(gain).max(), overlap, parcels
    return held_out_library(parcels, small), truth


def authors(args, report):
    """1, 2 and 3 sources on 75 electrodes, the authors' gain; 5, 10, 15 and 20 dB.

    'ours': their gain, of which the file has a column a region (sum over its vertices),
    is spread over the regions' vertices and averaged over our parcels; the data are
    made from that, so it is smoother than theirs. 'theirs': the data are made of their
    regions and exact gain, and the estimate on our parcels is carried over to their
    regions, which blurs it. 'template': the same electrodes on our template head, our
    parcels. 21 columns of the wrong sign are turned. No training saw the first two.
    """
    report.say(HEADER)
    methods = authors_methods(args.model)
    regions, truth = authors_regions(methods, args.smoke)
    template = on_template(authors_data()[2], args)
    run_authors(args, report, "ours", methods, args.library)
    run_authors(args, report, "theirs", methods, regions, truth=truth)
    run_authors(args, report, "template", template, args.library)


def run_authors(args, report, name, methods, library, truth=None):
    """Score one of the three ways to use the authors' electrodes."""
    cells = {
        (number, snr): score_cell(
            methods, library, number, snr, args.n // 4, seed=int(1000 * number + snr),
            truth=truth, n_jobs=args.jobs,
        )
        for number in NUMBERS
        for snr in SNRS
    }  # fmt: skip
    n_samples = 4 * (args.n // 4)
    groups = {number: [cells[number, snr] for snr in SNRS] for number in NUMBERS}
    for number, group in groups.items():
        report.add_scores(f"{name}: {number} source(s)", n_samples, pool(group))
        report.add_papers(f"{name}: {number} source(s)", **PAPERS_EEG[number])
    everything = pool(cells.values())
    report.add_scores(f"{name}: all", 3 * n_samples, everything)
    report.add_papers(f"{name}: all", **PAPERS_EEG["all"])
    for snr in SNRS:
        cell = pool(cells[number, snr] for number in NUMBERS)
        for rule in RULES:
            papers = PAPERS_SNR[snr] if rule == "authors" else ""
            title = f"{name}: LE at {snr:.0f} dB, {rule} rule"
            report.add_value(title, mean_le(cell, rule), papers=papers)
    add_authors_targets(report, name, groups, everything)


def add_authors_targets(report, name, groups, everything):
    """Print the figures that have a target."""
    least = {"authors": "<= 1.4 (at least 3.0)", "peak": "<= 1.4 (at least 2.0)"}
    for rule in RULES:
        le = mean_le(everything, rule)
        papers = 1.41 if rule == "authors" else ""
        report.add_value(f"{name}: LE, all, {rule} rule", le, least[rule], papers)
    values = summarise(everything, "DeepSIF", "authors")
    for score, target in (
        ("precision", ">= .81 (at least .72)"), ("recall", ">= .87 (at least .88)")
    ):  # fmt: skip
        papers = PAPERS_EEG["all"][score][0]
        value = values[score]["mean"]
        report.add_value(f"{name}: {score}, all, authors rule", value, target, papers)
    for number, group in groups.items():
        value = summarise(pool(group), "DeepSIF", "peak")["correlation"]["mean"]
        report.add_value(
            f"{name}: correlation, {number} source(s)", value,
            CORRELATION_TARGET[number], PAPERS_EEG[number]["correlation"][0],
        )  # fmt: skip


# ---------------------------------------------------------------- 2: helmet positions
def meg(args, report):
    """102 magnetometers over the template head, upright and tilted by 5 degrees.

    1 to 3 sources, 5 to 20 dB, the same sources and noise in both. The training has
    seen neither position. Papers: 148 magnetometers, trained on one position.
    """
    report.say(HEADER)
    cells = {}
    for name, tilt in (("upright", 0.0), ("tilted 5 degrees", 5.0)):
        info = helmet(tilt)
        methods = on_template(info, args)
        cells[name] = score_cell(
            methods, args.library, NUMBERS, (5, 20), args.n, 200, n_jobs=args.jobs
        )
        report.add_scores(name, args.n, cells[name])
    report.add_papers("upright", (1.52, 1.74), correlation=(0.98, 0.02))
    report.add_papers("tilted 5 degrees", (5.98, 9.75), correlation=(0.94, 0.13))
    upright, tilted = cells.values()
    add_ratio(report, "LE tilted over upright", tilted, upright, "<= 1.03", "3.9")


# ---------------------------------------------------------------- 3: other heads
def head_forward(info, number, ico=3):
    """Return the forward of a random head shape that training has not seen.

    ``ico`` is the resolution of the head model.
    """
    from ..making.heads import random_head

    shape, layers, ratio, scalp = random_head(
        np.random.default_rng([HEAD_SEED, number]), deform=True
    )
    conductivity = (scalp, scalp * ratio, scalp)
    if "eeg" not in info.get_channel_types():
        conductivity, layers = (0.3,), {}
    bem = make_template_bem(**shape, **layers, conductivity=conductivity, ico=ico)
    return mne.make_forward_solution(
        info,
        make_template_trans(info, **shape),
        make_template_source_space(**shape),
        bem,
        mindist=0.0,
        on_inside="ignore",
    )


def heads(args, report):
    """Held-out head shapes and a real head, over the template head.

    Four deformed heads (affine and smooth warps, shells and conductivities of their
    own) whose seeds are not in training, each with its own forward, and the real head
    of MNE's sample subject (own BEM and co-registration); beside the template head with
    the same sensors, sources and noise. 1 to 3 sources, 5 to 20 dB; distances are taken
    on the template. Papers: 148 magnetometers, 3 other heads.
    """
    report.say(HEADER)
    n_samples = max(1, args.n // N_HEADS)
    options = dict(n_sources=NUMBERS, snr=(5, 20), n_jobs=args.jobs)
    run = partial(score_cell, library=args.library, n_samples=n_samples, **options)
    for name, info in (("64 electrodes", biosemi_info()), ("102 mag", helmet(0.0))):
        template = on_template(info, args)
        base, others = [], []
        for number in range(N_HEADS):
            methods = Methods(info, head_forward(info, number), args.model)
            base.append(run(template, seed=300 + number))
            others.append(run(methods, seed=300 + number))
        add_head(report, name, N_HEADS * n_samples, "others", pool(others), pool(base))
    report.add_papers("same head", (1.52, 1.74), correlation=(0.98, 0.02))
    report.add_papers("other heads", (6.57, 8.18), correlation=(0.93, 0.21))
    if not (DATA / "sample").is_dir():
        report.say("no real head: ../shared/data/sample is not there")
        return
    for kind, name in (("eeg", "60 electrodes"), ("mag", "102 mag, real")):
        info = sample_info(kind)
        template = on_template(info, args)
        subject = Methods(info, sample_forward(info), args.model, DATA / "sample")
        base, other = (run(m, n_samples=args.n, seed=350) for m in (template, subject))
        add_head(report, name, args.n, "subject", other, base)


def add_head(report, name, n_samples, what, other, base):
    """Print the cells of other heads and of the template, and their ratio."""
    report.add_scores(f"{name}: template", n_samples, base)
    report.add_scores(f"{name}: {what}", n_samples, other)
    title = f"LE over template, {name}: {what}"
    add_ratio(report, title, other, base, "<= 1.2", "4.3")


def folds(args, report):
    """102 magnetometers on cortices with other folds, over the template's normals.

    Places and normals of the template, or of MNE's sample subject (both cortices have
    the same vertices), or the template's normals with the random folds of the forward
    bank: "template / subject" has the template's places and the subject's normals. Same
    sensors, sources and noise.
    """
    report.say(HEADER)
    if not (DATA / "sample").is_dir():
        report.say("no real head: ../shared/data/sample is not there")
        return
    from ..making.heads import folded_normals, with_normals

    info = sample_info("mag")
    places = dict(
        template=(mne_deepsif.make_template_forward(info), None),
        subject=(sample_forward(info), DATA / "sample"),
    )
    normals = {who: [s["nn"] for s in fwd["src"]] for who, (fwd, _) in places.items()}
    template = places["template"][0]["src"]
    for mm in (2, 3, 4):
        rng = np.random.default_rng(mm)
        normals[f"folds {mm} mm"] = folded_normals(template, rng, 1e-3 * mm)
    cells = [("template", who) for who in normals]
    cells += [("subject", "template"), ("subject", "subject")]
    base, n_samples = None, max(1, args.n // 3)
    for where, who in cells:
        fwd, subjects_dir = places[where]
        fwd = with_normals(fwd, normals[who])
        methods = Methods(info, fwd, args.model, subjects_dir)
        cell = score_cell(methods, args.library, NUMBERS, (5, 20), n_samples, 360,
                          n_jobs=args.jobs)  # fmt: skip
        base = base or cell
        name = f"{where} / {who}"
        report.add_scores(name, n_samples, cell)
        add_ratio(report, f"LE over template, {name}", cell, base)


# ---------------------------------------------------------------- 4: electrodes
TEN_TWENTY = tuple("Fp1 Fp2 F7 F3 Fz F4 F8 T7 C3 Cz C4 T8 P7 P3 Pz P4 P8 O1 O2".split())
MONTAGES = {
    ("BioSemi", 16): ("biosemi16", None),
    ("10-20", 19): ("colin27_1020", TEN_TWENTY),
    ("BioSemi", 32): ("biosemi32", None),
    ("BioSemi", 64): ("biosemi64", None),
    ("BioSemi", 128): ("biosemi128", None),
    ("BioSemi", 256): ("biosemi256", None),
    ("HydroCel", 32): ("GSN-HydroCel-32", None),
    ("HydroCel", 64): ("GSN-HydroCel-64_1.0", None),
    ("HydroCel", 128): ("GSN-HydroCel-128", None),
    ("HydroCel", 256): ("GSN-HydroCel-256", None),
}


def electrodes(args, report):
    """16 to 256 electrodes on the template head, 1 to 3 sources, 5 to 20 dB.

    No cap of the HydroCel family is in the training. Curve: doc/figures/electrodes.png.
    """
    report.say(HEADER)
    cells = {}
    for (family, n_electrodes), (montage, names) in MONTAGES.items():
        methods = on_template(biosemi_info(montage=montage, ch_names=names), args)
        scores = score_cell(
            methods, args.library, NUMBERS, (5, 20), args.n, 400, n_jobs=args.jobs
        )
        cells[family, n_electrodes] = scores
        report.add_scores(f"{family} {n_electrodes}", args.n, scores)
    add_ratio(report, "LE of HydroCel 64 over BioSemi 64",
              cells["HydroCel", 64], cells["BioSemi", 64], "<= 1.2")  # fmt: skip
    for key in (("BioSemi", 16), ("10-20", 19)):
        for rule in RULES:
            le = mean_le(cells[key], rule)
            report.add_value(f"LE of {key[0]} {key[1]}, {rule} rule", le, "<= 9 mm")
    plot_electrodes(report.rows, args.results)


def plot_electrodes(rows, results):
    """Save the curve of LE over the number of electrodes."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(8, 3.5), layout="constrained", sharex=True)
    colors = dict(zip(METHODS, ("C0", "C1", "C2"), strict=True))
    for ax, rule in zip(axes, RULES, strict=True):
        for method in METHODS:
            for style, seen in (("o-", True), ("s:", False)):
                points = sorted(
                    (int(row["cell"].split()[-1]), row["le"]["mean"])
                    for row in rows
                    if (row["rule"], row["method"]) == (rule, method)
                    and ("HydroCel" not in row["cell"]) == seen
                )
                label = method if seen else f"{method}, HydroCel (never seen)"
                ax.plot(
                    *zip(*points, strict=True), style, color=colors[method], label=label
                )
        ax.set(title=f"{rule} rule", xlabel="electrodes", xscale="log", ylim=(0, None))
        ax.set_xticks([16, 32, 64, 128, 256], ["16", "32", "64", "128", "256"])
        ax.minorticks_off()
    axes[0].set_ylabel("localization error (mm)")
    axes[1].legend(fontsize="x-small")
    fig.savefig(figures_folder(results) / "electrodes.png", dpi=150)
    plt.close(fig)


# ---------------------------------------------------------------- 5: personalised
def personalised(args, report):
    """fit() from the generic weights on heads of their own, beside the generic weights.

    64 electrodes on a head shape that neither training nor the part 'heads' has, and
    102 magnetometers on the real subject; 1 to 3 sources, 5 to 20 dB, from the held-out
    library: no fit has seen its patches, waveforms and background.
    """
    report.say(HEADER)
    info = biosemi_info()
    # a head that the part "heads" has not
    cases = [("64 electrodes", info, head_forward(info, N_HEADS), None)]
    if (DATA / "sample").is_dir():
        info = sample_info("mag")
        cases.append(("102 mag, real", info, sample_forward(info), DATA / "sample"))
    for name, info, fwd, subjects_dir in cases:
        where = (fwd, info, None, subjects_dir)
        n_steps = count_steps(args.model, where, 60 * args.minutes)
        began = time.perf_counter()
        fitted = fit(args.model, n_steps, where)
        minutes = (time.perf_counter() - began) / 60
        losses = [loss for _, loss in fitted.history]
        cells = []
        for what, model in (("generic", args.model), ("personalised", fitted)):
            methods = Methods(info, fwd, model, subjects_dir)
            cells.append(score_cell(methods, args.library, NUMBERS, (5, 20), args.n,
                                    500, n_jobs=args.jobs))  # fmt: skip
            report.add_scores(f"{name}: {what}", args.n, cells[-1])
        report.say(
            f"{n_steps} updates in {minutes:.1f} minutes, {torch.get_num_threads()} "
            f"threads; its own validation loss {losses[0]:.4f} -> {min(losses):.4f}"
        )
        title = f"LE personalised over generic, {name}"
        add_ratio(report, title, cells[1], cells[0], "<= 0.8")
        report.values[f"updates, {name}"] = dict(value=n_steps, minutes=minutes)


def fit(start, n_steps, where):
    """Return the personalised model."""
    fwd, info, noise_cov, subjects_dir = where
    estimator = mne_deepsif.DeepSIFEstimator(start, n_steps=n_steps, random_state=0)
    return estimator.fit(fwd, info, noise_cov, subjects_dir=subjects_dir).model_


def count_steps(start, where, seconds):
    """Return the number of updates that fit in the time, by two short fits."""
    times, lengths = [], (5, 25)
    for n_steps in (5, *lengths):  # the first one may build the library
        began = time.perf_counter()
        fit(start, n_steps, where)
        times.append(time.perf_counter() - began)
    rate = (lengths[1] - lengths[0]) / max(1e-3, times[2] - times[1])
    fixed = times[1] - lengths[0] / rate
    return max(lengths[1], int((seconds - fixed) * rate))


# ---------------------------------------------------------------- 6: no source
class WithAndWithout(Simulator):
    """Draws data and keeps the noise, so that the source can be left out."""

    def _add_noise(self, data):
        noisy = super()._add_noise(data)
        self.added = noisy - data
        return noisy


def silence(args, report):
    """No source: background and sensor noise only; 64 electrodes, template head.

    Each sample is one with a source (10 to 15 dB over background, 5 to 20 dB over
    noise), and the same with the source left out, the noise unchanged. The
    false-positive area of the latter, the estimate scaled to explain the data as it is
    for users, by three rules:
    own scale: Otsu's threshold over the peaks of its own parcels, as if each picture
    were shown on its own scale; it finds something unless the estimate is zero;
    with source: the threshold that Otsu gives for the same sample with its source, as
    when one colour scale serves a recording;
    explaining: of the parcels found on its own scale, those whose contiguous cluster
    alone explains half of the power of the whitened data or more, as a source stronger
    than all the rest would. 'kept' is the share of the samples with a source that have
    such a cluster; then the median share that the best cluster explains.
    """
    report.say(
        f"{'':14s}{'method':8s}{'n':>6s}{'< 2 cm2':>9s}{'median':>8s}{'95 %':>8s}  cm2"
    )
    methods = on_template(biosemi_info(), args)
    chunks = in_chunks(partial(silence_chunk, methods, args.library), args.n, args.jobs)
    for method in METHODS:
        table = np.concatenate([chunk[method] for chunk in chunks])
        best = table[:, 3:]  # share of the best cluster, without and with source
        for column, name in enumerate(("own scale", "with source", "explaining")):
            areas = 1e4 * table[:, column]
            row = dict(cell=name, method=method, n=len(areas),
                       share_below_2_cm2=float((areas < 2).mean()),
                       median=float(np.median(areas)),
                       percentile_95=float(np.percentile(areas, 95)))  # fmt: skip
            report.rows.append(row)
            text = f"{name:14s}{method:8s}{row['n']:6d}{row['share_below_2_cm2']:9.3f}"
            text += f"{row['median']:8.1f}{row['percentile_95']:8.1f}"
            if name == "explaining":
                row["kept"] = float((best[:, 1] >= EXPLAINED).mean())
                text += f"  kept {row['kept']:.3f}; best cluster without"
                text += " {:.2f}, with {:.2f}".format(*np.median(best, axis=0))
            report.say(text)
    for row in report.rows:
        if row["method"] == "DeepSIF":
            name = f"share of samples below 2 cm2, {row['cell']}"
            report.add_value(name, row["share_below_2_cm2"], ">= .95")


EXPLAINED = 0.5  # share of power: a source 0 dB over the rest


def silence_chunk(methods, library, offset, n_samples):
    """Return what ``silence_row`` does, (n_samples, 5) for each method."""
    simulator = WithAndWithout(
        library, 500, n_sources={1: 1.0}, background_snr=(10.0, 15.0),
        noise="authors", margin=-0.1, seed=600 + offset,
    )  # fmt: skip
    gain = torch.as_tensor(methods.scaled.gain).float()
    whitener = methods.scaled.whitener
    gain_white = methods.leadfield.gain_white.astype(np.float32)
    rows = {method: [] for method in METHODS}
    for first in range(0, n_samples, BATCH):
        size = min(BATCH, n_samples - first)
        pairs = [draw_pair(simulator, gain) for _ in range(size)]
        silent, active = np.array(pairs).swapaxes(0, 1)
        for method in METHODS:
            estimates = [methods.estimate(data, method) for data in (silent, active)]
            white = [(whitener @ data).astype(np.float32) for data in (silent, active)]
            for data, sources in zip(zip(*white), zip(*estimates)):
                row = silence_row(methods.parcels, gain_white, data, sources)
                rows[method].append(row)
    return {method: np.array(values) for method, values in rows.items()}


def draw_pair(simulator, gain):
    """Return the data of a sample without and with its source."""
    weights, waves, background, chosen, power = simulator.draw(1)
    data, _ = simulator.project(gain, weights, waves, background, chosen, power)
    silent = gain @ background[0] + simulator.added[0]
    return silent.double().numpy(), data[0].double().numpy()


def silence_row(parcels, gain_white, data, sources):
    """Score one sample.

    Parameters
    ----------
    parcels : Parcels
        The parcels.
    gain_white : array of shape (n_channels, n_parcels)
        Their whitened leadfield.
    data, sources : tuple of array
        Whitened data and estimate, without and with the source.

    Returns
    -------
    row : list of float
        The three areas (m²) without the source; the share of the power that the best
        cluster explains, without and with it.
    """
    without, with_source = (np.abs(s).max(axis=1) for s in sources)
    paired = parcels.areas[without > otsu_threshold(with_source)].sum()
    clusters = [explain(parcels, gain_white, *pair) for pair in zip(data, sources)]
    areas, shares = clusters[0].T
    best = [cluster[:, 1].max(initial=0) for cluster in clusters]
    return [areas.sum(), paired, areas[shares >= EXPLAINED].sum(), *best]


def explain(parcels, gain_white, data, sources):
    """Return area and explained share of power of each cluster of active parcels."""
    active = np.flatnonzero(active_parcels(sources, "peak"))
    graph = parcels.adjacency[active][:, active]
    n_clusters, cluster = sparse.csgraph.connected_components(graph, directed=False)
    rows = np.zeros((n_clusters, 2))
    for number in range(n_clusters):
        members = active[cluster == number]
        fit = (gain_white[:, members] @ sources[members]).astype(float)
        size = np.linalg.norm(fit) * np.linalg.norm(data)
        cosine = np.sum(fit * data) / size if size > 0 else 0.0
        rows[number] = parcels.areas[members].sum(), max(0.0, cosine) ** 2
    return rows


# ---------------------------------------------------------------- 7: robustness
class RealisticNoise(Simulator):
    """Adds resting EEG instead of white noise, a random segment, shifted in time."""

    def __init__(self, *args, recording, per_channel, **options):
        super().__init__(*args, **options)
        self.recording, self.per_channel = torch.as_tensor(recording), per_channel

    def _add_noise(self, data):
        std = noise_std(data, self._uniform(*self.sensor_snr, len(data)), self.noise)
        recording = self.recording[self._integers(len(self.recording), len(data))]
        shift = int(self._integers(recording.shape[-1], 1))
        noise = torch.roll(recording, shift, -1).to(data.dtype)
        power = noise.square().mean(-1, keepdim=True)
        if not self.per_channel:  # the recording's topography stays as it is
            power, std = power.mean(1, keepdim=True), std.square().mean(1, True).sqrt()
        return data + std * noise / power.sqrt()


def read_noise():
    """Return resting EEG on the authors' electrodes, average reference."""
    noise = loadmat(DATA / "reference" / "realistic_noise.mat")["data"]
    noise = noise.transpose(0, 2, 1).astype(np.float32)  # (4, 75, 500)
    return noise - noise.mean(axis=1, keepdims=True)


def slow_library(library, band=(1.0, 3.0)):
    """Return the library with its waveforms in a band, their largest value middle."""
    sos = scipy.signal.butter(2, band, "band", fs=library.sfreq, output="sos")
    waves = scipy.signal.sosfiltfilt(sos, np.asarray(library.waveforms, float), axis=1)
    middle = waves.shape[1] // 2
    near = np.abs(waves[:, middle - 100 : middle + 100]).argmax(axis=1) - 100
    waves = np.array([np.roll(w, -k) for w, k in zip(waves, near, strict=True)])
    waves /= waves[:, middle, None]
    return dataclasses.replace(library, waveforms=waves.astype(np.float16))


def deep_library(library, methods):
    """Return the library with the patches whose seed the sensors see least."""
    norm = np.linalg.norm(methods.leadfield.gain_white, axis=0)
    deep = norm[library.patches[:, 0]] <= np.quantile(norm, 0.25)
    return dataclasses.replace(
        library, patches=library.patches[deep], decay=library.decay[deep]
    )


def robustness(args, report):
    """Noise, sources and waveforms unlike those of the training.

    The authors' gain on our parcels (75 electrodes), 2 sources, 5 to 20 dB. Resting EEG
    as noise: scaled channel by channel as the white noise is, or as a whole.
    Correlated: one waveform, 10 to 50 ms apart. Deep: the seeds' gain is in the lowest
    quarter of the parcels. 1-3 Hz: the sources' waveforms filtered.
    """
    report.say(HEADER)
    methods, library = authors_methods(args.model), args.library
    noisy = partial(RealisticNoise, recording=read_noise())
    cells = {
        "base": dict(library=library),
        "resting EEG, channels": dict(
            library=library, simulator=partial(noisy, per_channel=True)
        ),
        "resting EEG, whole": dict(
            library=library, simulator=partial(noisy, per_channel=False)
        ),
        "correlated sources": dict(library=library, correlated=1.0),
        "deep sources": dict(library=deep_library(library, methods)),
        "1-3 Hz": dict(library=slow_library(library)),
    }
    scores = {}
    for name, options in cells.items():
        scores[name] = score_cell(
            methods, n_sources=2, snr=(5, 20), n_samples=args.n, seed=700,
            n_jobs=args.jobs, **options,
        )  # fmt: skip
        report.add_scores(name, args.n, scores[name])
    for name, cell in scores.items():
        for rule in RULES if name != "base" else ():
            medians = [mean_le(c, rule, np.nanmedian) for c in (cell, scores["base"])]
            title = f"median LE over base (mm), {name}, {rule} rule"
            papers = "LE about 6" if "deep" in name else "<= 1"
            report.add_value(title, medians[0] - medians[1], "<= 1", papers)


# ---------------------------------------------------------------- running
FUNCTIONS = (
    authors,
    meg,
    heads,
    folds,
    electrodes,
    personalised,
    silence,
    robustness,
)
PARTS = {function.__name__: function for function in FUNCTIONS}


def keep_memory():
    """Ask glibc not to give memory back after each array: a third of the time.

    The three are M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_ARENA_MAX of mallopt(3).
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        for option, value in ((-1, 2**30), (-3, 2**25), (-8, 1)):
            libc.mallopt(option, value)


def run_part(name, args):
    """Run a part and return its record."""
    report = Report()
    report.say(f"\n== {name}")
    report.say(inspect.cleandoc(PARTS[name].__doc__))
    SECONDS.clear()
    began = time.perf_counter()
    PARTS[name](args, report)
    seconds = time.perf_counter() - began
    stages = dict(SECONDS)
    n_samples = stages.pop("samples", 0)
    stages = {stage: 1e3 * value / n_samples for stage, value in stages.items()}
    times = ", ".join(f"{stage} {value:.1f}" for stage, value in stages.items())
    report.say(f"{seconds:.0f} s; processor ms per sample: {times or 'not measured'}")
    record = provenance() | dict(
        command=command_of(name, args),
        seconds=seconds,
        ms_per_sample=stages,
        rows=report.rows,
        values=report.values,
    )
    return record | {"lines": report.lines}


def command_of(name, args):
    """Return the command that runs this part alone."""
    command = f"python -m benchmarks.studies.generic --parts {name} --n {args.n}"
    command += f" --jobs {args.jobs} --weights {args.weights}"
    return command + (f" --minutes {args.minutes:g}" if name == "personalised" else "")


def save(record, name, results):
    """Put a part's record beside those of the other parts, and write the text anew."""
    fname = results / "generic.json"
    records = json.loads(fname.read_text()) if fname.is_file() else {}
    records[name] = record
    records = {part: records[part] for part in PARTS if part in records}
    fname.write_text(json.dumps(records, indent=1) + "\n")
    lines = [
        "Noise drawn at 500 Hz over 1 s, scaled per channel, power halved, as in the",
        "authors' scripts; 10-15 dB over background. LE: one-sided, mm, per source",
        "(active parcels matched to the nearest patch). n: samples; missed: share of",
        "sources in whose patch no parcel is active. Ratios: mean LE of DeepSIF, 95 %",
        "intervals of a bootstrap over sources. 'papers': other heads, parcels, data.",
    ]
    for record in records.values():
        title, *rest = record["lines"]
        lines += [title, *as_lines(record), *rest]
    (results / "generic.txt").write_text("\n".join(lines) + "\n")


def main():
    """Run the parts and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    names = list(PARTS)
    parser.add_argument("--parts", nargs="+", default=names, choices=names)
    parser.add_argument("--n", type=int, default=1000, help="samples per cell")
    parser.add_argument("--minutes", type=float, default=10.0, help="of one fit")
    parser.add_argument("--jobs", type=int, default=2, help="threads; with a GPU use 1")
    parser.add_argument("--weights", default="generic", help="name or file")
    args = parse_args(parser, smoke=True)
    if args.smoke:
        args.n = 4
    if args.n < 4:
        parser.error(f"--n must be at least 4, got {args.n}.")
    mne.set_log_level("ERROR")
    keep_memory()
    args.model = load_model(args.weights)
    args.library = held_out_library(mne_deepsif.make_template_parcels(), args.smoke)
    for name in args.parts:
        save(run_part(name, args), name, args.results)


if __name__ == "__main__":
    main()

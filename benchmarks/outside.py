"""Scenarios outside of the package's own simulation, beside MNE's methods.

    python benchmarks/outside.py [--parts radius early ...] [--n 40] [--kinds eeg mag]

The data come from another forward than the one that is inverted, and the sources are
patches of any radius around any vertex, not parcels. All methods get the same evoked
responses through the public functions, and the noise covariance of 60 s of baseline.
The head is MNE's sample subject, in ``../shared/data``. Results go to
``results/outside.json``, part by part.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import argparse
import json
import time
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple
from unittest import mock
from zlib import crc32

import mne
import numpy as np
import torch
from generic import keep_memory, sample_info
from mne.minimum_norm import apply_inverse, make_inverse_operator
from options import SMALL_LIBRARY, parse_args
from provenance import provenance
from scipy import sparse
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import KDTree
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation
from scoring import DATA, LIBRARY_SEED, sample_forward
from sklearn.metrics import roc_auc_score

import mne_deepsif
from mne_deepsif import metrics
from mne_deepsif.head.mesh import vertex_areas
from mne_deepsif.inverse import model
from mne_deepsif.network import prior
from mne_deepsif.simulation.library import make_library

SUBJECTS_DIR = DATA / "sample"
SFREQ = 125.0  # Hz
N_TIMES = 75  # of a sample
BASELINE = 7500  # times, for the noise covariance
SNR = 5.0  # of each source at its peak, mean over whitened channels
NOISE = {"eeg": 2e-7, "mag": 5e-15}  # SD of the sensors' noise (V, T)
BRAIN = 3.0  # power of the brain's noise over that of the sensors
# seeds of the samples that are scored, and of those that choose MNE's lambda2
SEED, VALIDATION_SEED = 51_000, 52_000
N_VALIDATION = 8
PEERS = ("MNE", "dSPM", "sLORETA", "eLORETA")
LAMBDA2 = (1.0, 1 / 9, 1 / 25, 1 / 100)
NEAR = 0.01  # m; active cortex so near to a source finds it
# factors of the skull's conductivity in the wrong forwards, by number
SKULLS = {1: 0.67, 2: 1.5, 3: 0.67, 4: 1.5}
HEAD_SEED = 100
MOVED, TURNED, MISPLACED = 4e-3, np.deg2rad(2), 4e-3  # m, rad, m

# format of each metric in a table
METRICS = {
    "peak": ".1f",  # error of the largest peak (mm)
    "auc": ".3f",
    "le": ".1f",  # one-sided (mm)
    "precision": ".2f",
    "recall": ".2f",
    "area": ".1f",  # over the true area
    "found": ".2f",  # share of the sources with active cortex within NEAR
    "all_found": ".2f",
}


# ---------------------------------------------------------------- forwards
@cache
def head_model(skull):
    """Return the subject's head model; the skull's conductivity times a factor."""
    folder = SUBJECTS_DIR / "sample_fs5" / "bem"
    surfaces = mne.read_bem_surfaces(folder / "sample_fs5-1280-1280-1280-bem.fif")
    surfaces[1]["sigma"] *= skull  # scalp, skull, brain
    return mne.make_bem_solution(surfaces)


def wrong_forward(info, number):
    """Return a forward unlike that of :func:`sample_forward`, which methods invert.

    The head is moved and turned, each electrode is elsewhere, the skull conducts more
    or less.
    """
    rng = np.random.default_rng(HEAD_SEED + number)
    axis, shift = (_unit(rng) for _ in range(2))
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_rotvec(TURNED * axis).as_matrix()
    center = np.array([0.0, 0.0, 0.04])
    motion[:3, 3] = center - motion[:3, :3] @ center + MOVED * shift
    info = info.copy()
    for pick in mne.pick_types(info, eeg=True):
        info["chs"][pick]["loc"][:3] += MISPLACED * _unit(rng)
    trans = mne.read_trans(SUBJECTS_DIR / "sample_fs5-trans.fif")
    trans = mne.transforms.Transform("head", "mri", trans["trans"] @ motion)
    src = SUBJECTS_DIR / "sample_fs5" / "bem" / "sample_fs5-src.fif"
    return mne.make_forward_solution(
        info, trans, src, head_model(SKULLS[number]), mindist=0.0, on_inside="ignore"
    )


def _unit(rng):
    vector = rng.normal(size=3)
    return vector / np.linalg.norm(vector)


# ---------------------------------------------------------------- cortex and sensors
class Cortex:
    """The vertices within parcels: indices, places, areas and distances (m).

    Patches and scores are on these vertices. ``hemi`` is 0 or 1.
    """

    def __init__(self, src, leadfield):
        parcel = leadfield.parcel_of_vertex
        self.rows = np.flatnonzero(np.concatenate(parcel) >= 0)
        self.hemi = np.repeat([0, 1], [len(p) for p in parcel])[self.rows]
        areas = np.concatenate([vertex_areas(s["rr"], s["tris"]) for s in src])
        self.places = np.concatenate([s["rr"] for s in src])[self.rows]
        self.areas = areas[self.rows]
        self.graph = sparse.csr_array(leadfield.surface_graph)[self.rows][:, self.rows]

    def patch(self, seed, radius):
        """Return the vertices up to a distance from one, along the surface."""
        return np.flatnonzero(
            dijkstra(self.graph, indices=seed, limit=radius) <= radius
        )

    def mirror(self, seed):
        """Return the vertex nearest the mirrored place in the other hemisphere."""
        others = np.flatnonzero(self.hemi != self.hemi[seed])
        place = self.places[seed] * [-1, 1, 1]
        return others[KDTree(self.places[others]).query(place)[1]]


@dataclass(eq=False)  # hashed by identity
class Head:
    """Sensors over a head: what makes the data, and what estimates their sources."""

    fwd: mne.Forward  # the right one
    gain: np.ndarray  # of the cortex, in the forward that makes the data
    noise: np.ndarray
    noise_cov: mne.Covariance
    operator: mne_deepsif.DeepSIFOperator
    inverse: mne.minimum_norm.InverseOperator
    cortex: Cortex

    @cache  # noqa: B019 heads live as long as the script
    def kernel(self, method, lambda2):
        """Return MNE's linear estimate, (n_vertices, n_channels), of the cortex."""
        info = self.operator.info
        unit = mne.EvokedArray(np.eye(len(info.ch_names)), info, nave=1)
        stc = apply_inverse(unit, self.inverse, lambda2, method)
        return stc.data[self.cortex.rows].astype(np.float32)

    def estimate(self, evoked, method, lambda2=None):
        """Return the activity of the cortex, (n_vertices, n_times)."""
        if method in PEERS:
            return self.kernel(method, lambda2) @ evoked.data.astype(np.float32)
        return self.apply(evoked).data[self.cortex.rows]

    def apply(self, evoked):
        """Return the package's estimate."""
        return mne_deepsif.apply_deepsif(evoked, self.operator, verbose="error")


def draw_noise(leadfield, background, rng):
    """Return noise of the brain and of the sensors, projected as real data are."""
    std = NOISE[leadfield.ch_types[0]]
    brain = leadfield.gain @ background
    brain *= np.sqrt(BRAIN / np.mean(brain**2)) * std
    return brain + leadfield.projector @ rng.normal(0, std, brain.shape)


def make_heads(kind, wrong, background, weights):
    """Return the heads by number: 0 has the right forward, the others a wrong one."""
    info = sample_info(kind)
    with info._unlock():
        info["sfreq"] = SFREQ
    right = sample_forward(info)
    lead = partial(
        mne_deepsif.make_leadfield,
        info,
        noise_cov=mne.make_ad_hoc_cov(info),
        parcels=mne_deepsif.make_template_parcels(),
        subjects_dir=SUBJECTS_DIR,
    )
    cortex = Cortex(right["src"], lead(right))
    heads = {}
    for number in (0, *wrong):
        truth = lead(wrong_forward(info, number) if number else right)
        rng = np.random.default_rng([SEED, number])
        noise = draw_noise(truth, background, rng)
        n_baseline = min(BASELINE, noise.shape[1] // 2)
        baseline = mne.io.RawArray(noise[:, :n_baseline], info)
        cov = mne.compute_raw_covariance(baseline)
        operator = mne_deepsif.make_deepsif_operator(
            info, right, cov, estimator=weights, subjects_dir=SUBJECTS_DIR
        )
        inverse = make_inverse_operator(info, right, cov, fixed=True, depth=None)
        gain, noise = truth.vertex_gain[:, cortex.rows], noise[:, n_baseline:]
        heads[number] = Head(right, gain, noise, cov, operator, inverse, cortex)
    return heads


def make_background(small):
    """Return the parcels' activity at ``SFREQ``, of another seed than the training."""
    options = SMALL_LIBRARY
    if not small:
        options = options | dict(background=120.0, random_state=LIBRARY_SEED)
    library = make_library(mne_deepsif.make_template_parcels(), **options)
    background = np.asarray(library.background, float)
    return mne.filter.resample(background, down=library.sfreq / SFREQ)


# ---------------------------------------------------------------- samples
class Sample(NamedTuple):
    """An evoked response, the patches to find, and the time to look at."""

    evoked: mne.Evoked
    patches: list  # of index arrays; empty if there is no source
    time: int | None  # None looks at all times


def draw_sample(
    head,
    rng,
    *,
    radius=0.014,
    n_sources=1,
    snr=SNR,
    apart=0.0,
    early=None,
    mirrored=False,
):
    """Draw an evoked response.

    Parameters
    ----------
    head : Head
        The head.
    rng : Generator
        Random numbers.
    radius : float
        Radius of the patches along the surface (m); 0 is a single vertex.
    n_sources : int
        Number of sources.
    snr : float
        Largest topography of each source over the noise, root mean square over the
        whitened channels.
    apart : float
        Least distance between the centres of two sources (m).
    early : float | None
        If given, the amplitude of the first of two sources over that of the second,
        which comes 80 ms later. The first one alone is to be found, at its own time.
    mirrored : bool
        The second source is the mirror image of the first one, at the same time.

    Returns
    -------
    sample : Sample
        The sample.
    """
    seeds = draw_seeds(head.cortex, rng, n_sources, apart, mirrored)
    patches = [head.cortex.patch(seed, radius) for seed in seeds]
    peaks = [0.2, 0.28] if early else [None] * n_sources
    waves = [draw_wave(rng, peak) for peak in peaks[:n_sources]]
    if mirrored:
        waves = waves[:1] * 2
    start = rng.integers(head.noise.shape[1] - N_TIMES)
    data = head.noise[:, start : start + N_TIMES].copy()
    for number, (patch, wave) in enumerate(zip(patches, waves, strict=True)):
        topography = head.gain[:, patch] @ head.cortex.areas[patch]
        white = head.operator.leadfield.whitener @ topography
        amplitude = snr / np.sqrt(np.mean(white**2))
        if early and number == 0:
            amplitude *= early
        data += np.outer(amplitude * topography, wave)
    evoked = mne.EvokedArray(data, head.operator.info, nave=1)
    if early:
        return Sample(evoked, patches[:1], round(peaks[0] * SFREQ))
    return Sample(evoked, patches, None)


def draw_seeds(cortex, rng, n_sources, apart, mirrored):
    """Draw vertices with a least distance from each other."""
    seeds = []
    while len(seeds) < n_sources:
        new = [rng.integers(len(cortex.rows))]
        if mirrored:
            new.append(cortex.mirror(new[0]))
        if pdist(cortex.places[seeds + new]).min(initial=np.inf) >= apart:
            seeds += new
    return seeds


def draw_wave(rng, peak=None):
    """Draw a Gaussian with an undershoot of up to 0.6, 1 or -1 at its peak.

    Where no time of the peak (s) is given, time and width are drawn.
    """
    width = rng.uniform(0.012, 0.035) if peak is None else 0.01
    peak = rng.uniform(0.15, 0.45) if peak is None else peak
    times = (np.arange(N_TIMES) / SFREQ - peak) / width
    wave = np.exp(-(times**2) / 2)
    wave -= rng.uniform(0, 0.6) * np.exp(-(((times - 2.3) / 1.4) ** 2) / 2)
    return rng.choice([-1, 1]) * wave / np.abs(wave).max()


def draw_samples(heads, n_samples, seed, name, **options):
    """Yield heads in turn and a sample of each; the same sources for all heads."""
    for number in range(n_samples):
        rng = np.random.default_rng([seed, crc32(name.encode()), number])
        head = heads[number % len(heads)]
        yield head, draw_sample(head, rng, **options)


# ---------------------------------------------------------------- scores
def score(activity, sample, cortex):
    """Score an estimate.

    Parameters
    ----------
    activity : array of shape (n_vertices, n_times)
        The estimate on the cortex, in any unit.
    sample : Sample
        What was to be found.
    cortex : Cortex
        The cortex.

    Returns
    -------
    scores : dict of float
        The ``METRICS``. Active are the vertices above Otsu's threshold of the largest
        absolute values over time.
    """
    if sample.time is not None:
        activity = activity[:, sample.time - 1 : sample.time + 2]
    peaks = np.abs(activity).max(axis=1)
    true = np.zeros(len(peaks), bool)
    true[np.concatenate(sample.patches)] = True
    active = peaks > metrics.otsu_threshold(peaks)
    distance = KDTree(cortex.places[true]).query(cortex.places)[0]
    tree = KDTree(cortex.places[active])
    gaps = [tree.query(cortex.places[patch])[0].min() for patch in sample.patches]
    return dict(
        peak=1e3 * distance[peaks.argmax()],
        auc=roc_auc_score(true, peaks),
        le=1e3 * distance[active].mean() if active.any() else np.nan,
        precision=metrics.precision(true, active, cortex.areas),
        recall=metrics.recall(true, active, cortex.areas),
        area=cortex.areas[active].sum() / cortex.areas[true].sum(),
        found=np.mean(np.array(gaps) <= NEAR),
        all_found=float(max(gaps) <= NEAR),
    )


def choose_lambda2(heads, n_samples, name, **options):
    """Return the lambda2 of least mean peak error, then best AUC, for MNE's methods."""
    found = {(method, value): [] for method in PEERS for value in LAMBDA2}
    samples = draw_samples(heads, n_samples, VALIDATION_SEED, name, **options)
    for head, sample in samples:
        for (method, value), ranks in found.items():
            activity = head.estimate(sample.evoked, method, value)
            scores = score(activity, sample, head.cortex)
            ranks.append((scores["peak"], -scores["auc"]))
    mean = {key: tuple(np.mean(ranks, axis=0)) for key, ranks in found.items()}
    return {m: min((mean[m, value], value) for value in LAMBDA2)[1] for m in PEERS}


def summarise(values):
    """Return mean, SD, median and number of the values that are not NaN."""
    values = np.array(values, float)
    values = values[~np.isnan(values)]
    functions = dict(mean=np.mean, sd=np.std, median=np.median)
    found = {
        name: float(function(values)) if len(values) else None
        for name, function in functions.items()
    }
    return found | dict(n=len(values))


def score_cell(heads, args, name, **options):
    """Score all methods on the same samples; return a row for each method."""
    chosen = choose_lambda2(heads, args.n_validation, name, **options)
    scores = {method: [] for method in ("DeepSIF", *PEERS)}
    for head, sample in draw_samples(heads, args.n, SEED, name, **options):
        for method, found in scores.items():
            activity = head.estimate(sample.evoked, method, chosen.get(method))
            found.append(score(activity, sample, head.cortex))
    return [
        dict(method=method, lambda2=chosen.get(method))
        | {metric: summarise([one[metric] for one in found]) for metric in METRICS}
        for method, found in scores.items()
    ]


def print_cell(title, rows):
    """Print a cell: a line for each method; means, unless named otherwise."""
    names = ["lambda2", "peak", "SD", "median", *list(METRICS)[1:]]
    print(f"\n{title}, n = {rows[0]['peak']['n']}")
    print(" " * 30 + "".join(f"{name:>10s}" for name in names))
    for row in rows:
        peak = row["peak"]
        texts = [f"1/{1 / row['lambda2']:.0f}" if row["lambda2"] else "-"]
        texts += [f"{peak[key]:.1f}" for key in ("mean", "sd", "median")]
        for metric, form in list(METRICS.items())[1:]:
            mean = row[metric]["mean"]
            texts.append("-" if mean is None else f"{mean:{form}}")
        text = "".join(f"{text:>10s}" for text in texts)
        print(f"  {row['method']:28s}{text}", flush=True)


# ---------------------------------------------------------------- parts
class Part(NamedTuple):
    """Cells of a table: name and options of ``draw_sample``; and the forwards."""

    cells: dict
    forwards: tuple = ("wrong",)


PARTS = {
    "radius": Part(
        {f"radius {mm} mm": dict(radius=1e-3 * mm) for mm in (0, 6, 14, 25, 40)},
        ("right", "wrong"),
    ),
    "early": Part(
        {
            f"early source, {early:g} of the late one": dict(
                radius=0.012, n_sources=2, apart=0.05, early=early
            )
            for early in (1.0, 0.3, 0.15)
        }
    ),
    "two": Part({"2 sources": dict(n_sources=2, apart=0.04)}),
    "many": Part({f"{n} sources": dict(n_sources=n, apart=0.04) for n in (3, 5)}),
    "weak": Part({"radius 25 mm, SNR 1": dict(radius=0.025, snr=1.0)}),
    "sync": Part({"mirrored pair": dict(n_sources=2, apart=0.04, mirrored=True)}),
    "silence": Part({"no source": dict(n_sources=0), "1 source": {}}),
}
# of the last step, by the cells that tell them apart
PARTS["variants"] = Part(
    {
        cell: PARTS[part].cells[cell]
        for part, cell in (
            ("radius", "radius 6 mm"),
            ("radius", "radius 14 mm"),
            ("radius", "radius 25 mm"),
            ("early", "early source, 0.15 of the late one"),
            ("weak", "radius 25 mm, SNR 1"),
        )
    }
)


def share(patches):
    """Return a function of prior variances in which patches have a given share."""

    def variances(answer, n_parcels):
        fine, patch = prior.prior_variances(answer, n_parcels).split(n_parcels, 1)
        total = fine + patch
        return torch.cat([(1 - patches) * total, patches * total], 1)

    return variances


VARIANTS = {
    "as shipped": (prior, {}),
    "fine patterns only": (model, dict(prior_variances=share(0.0))),
    "half of each": (model, dict(prior_variances=share(0.5))),
    "patches only": (model, dict(prior_variances=share(1.0))),
    "windows of 512 ms only": (model, dict(_GAIN=np.inf)),
    "windows of 128 ms only": (model, dict(_GAIN=-np.inf)),
    "windows by likelihood alone": (model, dict(_GAIN=0.0)),
    "exponent 0.4": (prior, dict(_EXPONENT=0.4)),
    "exponent 0.8": (prior, dict(_EXPONENT=0.8)),
    "floor 0.01": (prior, dict(_FLOOR=0.01)),
    "floor 0.2": (prior, dict(_FLOOR=0.2)),
}


def score_variants(heads, args, name, **options):
    """Score variants of the last step on samples of their own; a row for each."""
    rows = []
    for variant, (module, constants) in VARIANTS.items():
        found = []
        with mock.patch.multiple(module, **constants) if constants else nullcontext():
            for head, sample in draw_samples(
                heads, args.n, VALIDATION_SEED, name, **options
            ):
                activity = head.estimate(sample.evoked, "DeepSIF")
                found.append(score(activity, sample, head.cortex))
        values = {m: summarise([one[m] for one in found]) for m in METRICS}
        rows.append(dict(method=variant, lambda2=None) | values)
    return rows


def judge_silence(heads, args, name, **options):
    """Return shares of the samples in which the package reports no source.

    ``empty``: ``estimate_extent`` finds nothing. ``nothing explains half``: none of
    what it finds explains more than half of the data, the rule of ``explained_by``.
    """
    empty, weak = [], []
    for head, (evoked, *_) in draw_samples(heads, args.n, SEED, name, **options):
        stc = head.apply(evoked)
        extents = mne_deepsif.estimate_extent(stc, head.fwd)
        shares = mne_deepsif.explained_by(
            extents, stc, evoked, head.fwd, head.noise_cov
        )
        empty.append(not extents)
        weak.append(max(shares, default=0.0) <= 0.5)
    shares = {"empty": np.mean(empty), "nothing explains half": np.mean(weak)}
    shares = {name: float(value) for name, value in shares.items()}
    return [dict(method="DeepSIF", n=args.n) | shares]


def run_part(name, heads, args):
    """Run a part on all kinds of sensors and forwards, and return its record."""
    began, rows = time.perf_counter(), []
    run, show = score_cell, print_cell
    if name == "silence":
        run, show = judge_silence, print
    elif name == "variants":
        run = score_variants
    cells = list(PARTS[name].cells.items())[: 1 if args.smoke else None]
    for kind, numbered in heads.items():
        groups = dict(right=[numbered[0]], wrong=list(numbered.values())[1:])
        for forward in PARTS[name].forwards:
            for cell, options in cells:
                found = run(groups[forward], args, cell, **options)
                show(f"{kind}, {forward} forward, {cell}", found)
                where = dict(kind=kind, forward=forward, cell=cell)
                rows += [where | row for row in found]
    return provenance() | dict(
        n=args.n,
        weights=args.weights,
        seconds=time.perf_counter() - began,
        rows=rows,
    )


def save(record, name, fname):
    """Put the record of a part beside those of the others."""
    records = json.loads(fname.read_text()) if fname.is_file() else {}
    records[name] = record
    records = {part: records[part] for part in PARTS if part in records}
    fname.write_text(json.dumps(records, indent=1) + "\n")


def main():
    """Run the parts and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--kinds", nargs="+", default=list(NOISE), choices=NOISE)
    parser.add_argument("--n", type=int, default=40, help="samples per cell")
    parser.add_argument("--weights", default="generic", help="name or file")
    args = parse_args(parser, smoke=True)
    args.n_validation = N_VALIDATION
    wrong = list(SKULLS)
    if args.smoke:
        args.n, args.n_validation, wrong = 2, 1, wrong[:1]
    mne.set_log_level("ERROR")
    keep_memory()
    background, n_threads = make_background(args.smoke), torch.get_num_threads()
    heads = {
        kind: make_heads(kind, wrong, background, args.weights) for kind in args.kinds
    }
    torch.set_num_threads(n_threads)  # numba, in MNE's forwards, sets it to all cores
    for name in args.parts:
        save(run_part(name, heads, args), name, args.results / "outside.json")


if __name__ == "__main__":
    main()

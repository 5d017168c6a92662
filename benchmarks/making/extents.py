"""Calibrate and test the probability of extents on simulated responses.

    python -m benchmarks.making.extents fit
    python -m benchmarks.making.extents test

``fit`` writes ``mne_deepsif/data/extents.json``, ``test`` ``results/extents.json`` and
the figure; with ``--results`` all of them go to that folder. To be run again, in this
order, whenever the generic weights or the last step change. ``fit`` simulates on the
template's head and on random ones with folds, ``test`` on the real subject's; they
share no seed, no noise and no error of a forward. ``--n`` is the number of responses of
each kind on each head.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import argparse
import json
from zlib import crc32

import mne
import numpy as np
import pandas as pd
from scipy.spatial import KDTree
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import mne_deepsif
from mne_deepsif import metrics
from mne_deepsif.cache import PACKAGE_DATA
from mne_deepsif.head.leadfield import surface_graph, whiten_evoked
from mne_deepsif.stc_metrics.source_space import owned_areas, vertex_positions
from mne_deepsif.trust.candidates import (
    FEATURES,
    default_probability,
    describe_candidates,
    find_candidates,
    with_products,
)

from ..comparison.heads import HeadSpec, make_head
from ..comparison.methods import METHODS
from ..comparison.registry import MIRRORED, PATCHES, SEVERAL, WEAK
from ..comparison.scenarios import Scenario, Sources, draw_patches, draw_sample
from ..comparison.scores import NEAR, active_scores, vertices_of
from ..options import RESULTS, figures_folder, parse_args
from ..provenance import provenance
from .reliability import draw_reliability

SEEDS = {"fit": 66_000, "test": 64_000}
LIBRARY_SEED = 7  # of the brain's noise in the fit
CELLS = {
    "no source": Sources(n_sources=0),
    **PATCHES,
    **SEVERAL,
    **MIRRORED,
    **WEAK,
    "radius 14 mm, SNR 2": Sources(snr=2.0),
    "radius 25 mm, SNR 10": Sources(radius=0.025, snr=10.0),
    "2 sources, SNR 2": Sources(n_sources=2, apart=0.04, snr=2.0),
    **{
        f"2 sources, one {share:g} of the other": Sources(
            radius=0.012, n_sources=2, apart=0.05, early=share
        )
        for share in (0.5, 0.3, 0.15)
    },
}
SILENT = 4  # times as many responses without a source
ALLOWED = 0.03  # share of the windows without a source that may have an extent
# heads of the fit: sensors, anatomy, error, vertices of a hemisphere
TEMPLATES = (
    ("biosemi16", "template", "none", 2562),
    ("biosemi32", "template", "all", 10242),
    ("biosemi64", "template", "none", 2562),
    ("biosemi128", "template", "all", 2562),
    ("mag", "template", "all", 2562),
)
FOLDED = (
    ("GSN-HydroCel-64_1.0", "folded 102", "all", 2562),
    ("mag", "folded 103", "all", 10242),
    ("biosemi64", "folded 104", "none", 10242),
    ("mag tilted by 5°", "folded 107", "none", 2562),
    ("10-20", "folded 108", "all", 2562),
    ("meg", "folded 102", "all", 2562),
)
WINDOWS = (1.0, 1.0, 0.5, 0.2)  # of the response, around its largest field, in turns


def head_specs(step, small):
    """Return the heads of a step."""
    if small:
        return [HeadSpec("template", "biosemi64", "none", 0, 8.0, 0, 2562)]
    if step == "fit":
        return [
            HeadSpec(anatomy, sensors, error, number, 60.0, LIBRARY_SEED, n_vertices)
            for first, heads in ((40, TEMPLATES), (60, FOLDED))
            for number, (sensors, anatomy, error, n_vertices) in enumerate(heads, first)
        ]
    return [
        HeadSpec(sensors=kind, error=error, number=number)
        for kind in ("eeg", "mag")
        for error, number in (("all", 5), ("all", 6), ("none", 7))
    ]


def draw_all(step, spec, n, small):
    """Draw responses of all kinds on a head: kind, patches, and the response.

    The window is a part of the response.
    """
    head = make_head(spec)
    cells = {"no source", "radius 25 mm"} if small else CELLS
    for cell in cells:
        sources = CELLS[cell]
        scenario = Scenario(cell, sources, spec, seed=SEEDS[step])
        for k in range(n if sources.n_sources else SILENT * n):
            number = 1000 * spec.number + k
            # all sources, also those that the comparison does not ask for
            rng = np.random.default_rng([scenario.seed, crc32(cell.encode()), number])
            patches, _ = draw_patches(head.cortex, rng, sources)
            evoked = draw_sample(head, scenario, number).evoked
            yield (
                cell,
                patches,
                evoked,
                window_of(evoked, head.whitener, WINDOWS[k % 4]),
            )


def window_of(evoked, whitener, share):
    """Return first and last time of a window around the largest field."""
    n_times = round(share * len(evoked.times))
    peak = np.square(whitener @ evoked.data).sum(axis=0).argmax()
    first = int(np.clip(peak - n_times // 2, 0, len(evoked.times) - n_times))
    return evoked.times[first], evoked.times[first + n_times - 1]


# ---------------------------------------------------------------- steps


def fit(n, small, results):
    """Fit the logistic regression and write its coefficients."""
    tables, near, silent = [], [], []  # silent: tables of windows without a source
    for spec in head_specs("fit", small):
        head = make_head(spec)
        problem, cortex = head.problem, head.cortex
        estimate = METHODS["DeepSIF"].prepare(problem)
        src = problem.fwd["src"]
        graph, areas, places = (
            surface_graph(src),
            owned_areas(src),
            vertex_positions(src),
        )
        for _, patches, evoked, window in draw_all("fit", spec, n, small):
            stc = estimate(evoked).crop(*window)
            gain, data = whiten_evoked(
                evoked.crop(*window), problem.fwd, problem.noise_cov
            )
            candidates = find_candidates(np.abs(stc.data).max(axis=1), graph)
            tables.append(describe_candidates(candidates, stc.data, areas, gain, data))
            silent += [] if patches else tables[-1:]
            tree = source_tree(patches, cortex, places)
            near += [is_near(tree, places[one]) for one in candidates]
        print(f"{spec.sensors}, {spec.error}: {len(near)} candidates", flush=True)
    table = np.concatenate(tables)
    scaler = StandardScaler().fit(table)
    terms = with_products(scaler.transform(table))
    model = LogisticRegression(max_iter=5000).fit(terms, near)
    silent = [with_products(scaler.transform(one)) for one in silent]
    largest = [model.predict_proba(one)[:, 1].max() for one in silent]
    content = {
        "features": FEATURES,
        "low": table.min(0).round(4).tolist(),
        "high": table.max(0).round(4).tolist(),
        "mean": scaler.mean_.round(5).tolist(),
        "scale": scaler.scale_.round(5).tolist(),
        "coef": model.coef_[0].round(5).tolist(),
        "intercept": round(float(model.intercept_[0]), 5),
        "min_probability": round_up(np.quantile(largest, 1 - ALLOWED)),
        "n_candidates": len(near),
        "n_silent": len(silent),
        "made_by": provenance(),
    }
    fname = (PACKAGE_DATA if results == RESULTS else results) / "extents.json"
    fname.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {fname}")


def round_up(share):
    """Round to two digits, never down."""
    return float(np.ceil(100 * share)) / 100


def source_tree(patches, cortex, places):
    """Return a tree of the places of all sources; None without a source.

    ``places`` are those of the estimate's vertices. The cortex has its own, which may
    be in another head's frame: that of other sensors.
    """
    if not patches:
        return None
    return KDTree(places[cortex.rows[np.concatenate(patches)]])


def is_near(tree, places):
    """Say whether a source lies near some places."""
    return tree is not None and bool(tree.query(places)[0].min() <= NEAR)


def test(n, small, results):
    """Write calibration and scores of the extents that users get, and the figure."""
    candidates, windows = [], []
    for spec in head_specs("test", small):
        head = make_head(spec)
        estimate = METHODS["DeepSIF"].prepare(head.problem)
        for cell, patches, evoked, window in draw_all("test", spec, n, small):
            stc = estimate(evoked).crop(*window)
            what = dict(sensors=spec.sensors, error=spec.error, cell=cell)
            evoked.crop(*window)
            found, scores = judge(stc, evoked, patches, head)
            candidates += [what | one for one in found]
            windows += [what | one for one in scores]
        print(f"{spec.sensors}, {spec.error}: {len(windows) // 2} windows", flush=True)
    candidates, windows = pd.DataFrame(candidates), pd.DataFrame(windows)
    by_error = {error: calibrate(some) for error, some in candidates.groupby("error")}
    record = dict(
        provenance=provenance(),
        n=n,
        min_probability=default_probability(),
        calibration={"both": calibrate(candidates), **by_error},
        windows=summarise(windows),
    )
    fname = results / "extents.json"
    fname.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {fname}")
    figure = figures_folder(results) / "extents_reliability.png"
    both = record["calibration"]["both"]
    draw_reliability(
        [both[name] for name in ("predicted", "observed", "counts")],
        figure,
        xlabel="Probability of an extent",
        ylabel="Share with a source within 1 cm",
    )


def judge(stc, evoked, patches, head):
    """Return the candidates of a window, and scores of both rules."""
    problem, cortex = head.problem, head.cortex
    with_data = mne_deepsif.estimate_extent(
        stc, problem.fwd, evoked, problem.noise_cov, min_probability=0.0
    )
    least = default_probability()
    rules = dict(
        probability=[one for one in with_data if one.probability >= least],
        otsu=mne_deepsif.estimate_extent(stc, problem.fwd),
    )
    places = vertex_positions(problem.fwd["src"])
    tree = source_tree(patches, cortex, places)
    used = {id(one): vertices_of(one, stc) for one in with_data + rules["otsu"]}
    near = {key: is_near(tree, places[rows]) for key, rows in used.items()}
    candidates = [
        dict(probability=one.probability, near=near[id(one)]) for one in with_data
    ]
    scores = []
    for rule, extents in rules.items():
        mask = np.zeros(len(places), bool)
        for one in extents:
            mask[used[id(one)]] = True
        false = sum(not near[id(one)] for one in extents)
        row = dict(empty=not extents, false=false)
        row |= active_scores(mask[cortex.rows], patches, cortex)
        scores.append(dict(rule=rule) | {key: float(x) for key, x in row.items()})
    return candidates, scores


def calibrate(candidates):
    """Return the reliability curve of some candidates."""
    true, chance = (candidates[name].to_numpy() for name in ("near", "probability"))
    true = true.astype(bool)
    predicted, observed, counts = metrics.reliability_curve(true, chance)
    return dict(
        error=float(metrics.expected_calibration_error(true, chance)),
        auc=float(metrics.roc_auc(np.flatnonzero(true), chance[:, np.newaxis])),
        n=len(true),
        predicted=np.round(predicted, 3).tolist(),
        observed=np.round(observed, 3).tolist(),
        counts=np.asarray(counts).tolist(),
    )


def summarise(windows):
    """Return means over the windows of each kind, by rule."""
    groups = windows.groupby(["cell", "rule"])
    means = groups.mean(numeric_only=True).assign(n=groups.size())
    return {
        cell: {
            rule: {key: round(float(x), 3) for key, x in row.items() if x == x}
            for rule, row in means.loc[cell].iterrows()
        }
        for cell in windows["cell"].unique()
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", nargs="+", choices=["fit", "test"])
    parser.add_argument("--n", type=int, default=6)
    args = parse_args(parser, smoke=True)
    if args.smoke:
        args.n = 4
    mne.set_log_level("ERROR")
    for step in args.step:
        {"fit": fit, "test": test}[step](args.n, args.smoke, args.results)

"""Calibrate and test the trust report on simulated recordings.

    python -m benchmarks.making.trust fit --n 200
    python -m benchmarks.making.trust test --n 200

``fit`` writes ``mne_deepsif/data/trust.json``, ``test`` ``results/trust.txt`` and the
figure; with ``--results`` all of them go to that folder. To be run again, in this
order, whenever the generic weights change. ``--n`` is the number of good recordings;
there are as many with an artefact. Heads, montages, patches, waveforms and noise of
``fit`` and ``test`` share no seed, and no head.
"""

import argparse
import json

import mne
import numpy as np
from scipy.spatial import KDTree
from sklearn.linear_model import LogisticRegression

import mne_deepsif
from mne_deepsif import metrics
from mne_deepsif.cache import PACKAGE_DATA
from mne_deepsif.head import eyes
from mne_deepsif.head.leadfield import make_leadfield
from mne_deepsif.head.parcels import make_template_parcels
from mne_deepsif.head.template import (
    make_template_bem,
    make_template_source_space,
    make_template_trans,
)
from mne_deepsif.inverse.plan import estimate_sources, make_plan
from mne_deepsif.inverse.weights import load_model
from mne_deepsif.simulation.library import make_library
from mne_deepsif.trust.confidence import confidence_of, estimate_again, stability
from mne_deepsif.trust.features import FEATURES, measure_features
from mne_deepsif.trust.verdict import KINDS, classify, list_reasons

from ..options import RESULTS, SMALL_LIBRARY, figures_folder, parse_args
from ..provenance import as_lines, provenance
from .heads import STANDARD
from .reliability import draw_reliability

SEEDS = {"fit": 1_205, "test": 88_305}
N_HEADS = 3  # of fit, and as many others of test
N_PASSES = 10  # estimates behind a map
ARTEFACTS = ("noise", "blink", "line", "electrode")


# ---------------------------------------------------------------- heads, sensors


def draw_heads(rng, n_heads, ico=3):
    """Return forwards (fixed orientation, ico4): EEG of random heads, and one MEG.

    ``ico`` is the resolution of the head models.
    """
    kinds = ["eeg"] * (n_heads - 1) + ["meg"]
    return [_draw_head(rng, kind, ico) for kind in kinds]


def _draw_head(rng, kind, ico):
    scale = rng.uniform(0.92, 1.08) * rng.uniform(0.95, 1.05, 3)
    affine = np.diag(np.r_[scale, 1.0])
    src = make_template_source_space(affine=affine)
    for s in src:  # the first vertices are those of ico4
        s["inuse"][2562:] = 0
        s.update(nuse=2562, vertno=np.arange(2562))
    if kind == "meg":
        info, conductivity = _meg_info(rng, src), (0.3,)
    else:
        info = _eeg_info(rng)
        conductivity = (0.33, 0.33 / rng.uniform(25, 70), 0.33)
    bem = make_template_bem(affine=affine, conductivity=conductivity, ico=ico)
    trans = make_template_trans(info, affine=affine)
    fwd = mne.make_forward_solution(info, trans, src, bem, mindist=0.0)
    return info, mne.convert_forward_solution(fwd, surf_ori=True, force_fixed=True)


def _eeg_info(rng):
    """Return the electrodes of three caps, each displaced by some 3 mm."""
    montage = mne.channels.make_standard_montage("colin27_1005")
    positions = montage.get_positions()
    names = sorted({name for cap in caps().values() for name in cap})
    ch_pos = {n: positions["ch_pos"][n] + rng.normal(0, 3e-3, 3) for n in names}
    fiducials = {k: positions[k] for k in ("nasion", "lpa", "rpa", "coord_frame")}
    info = mne.create_info(names, 250.0, "eeg")
    info.set_montage(mne.channels.make_dig_montage(ch_pos, **fiducials))
    return info


def caps():
    """Return channel names of three caps."""
    known = mne.channels.make_standard_montage("colin27_1005").ch_names
    return {
        **STANDARD,
        "easycap": [
            name
            for name in mne.channels.make_standard_montage("easycap-M1").ch_names
            if name in known
        ],
    }


def _meg_info(rng, src):
    """Return a helmet, lifted until it is 30 mm away from the cortex."""
    info = mne.channels.read_meg_canonical_info("neuromag")
    trans = mne.transforms.rotation(*rng.uniform(-0.1, 0.1, 3))
    trans[:3, 3] = rng.uniform(-0.005, 0.005, 3) + [0, 0, 0.045]
    to_head = mne.transforms.invert_transform(make_template_trans(info))
    cortex = np.concatenate([s["rr"][s["vertno"]] for s in src])
    cortex = KDTree(mne.transforms.apply_trans(to_head, cortex))
    coils = np.array([ch["loc"][:3] for ch in info["chs"]])
    while cortex.query(mne.transforms.apply_trans(trans, coils))[0].min() < 0.03:
        trans[2, 3] += 0.002
    with info._unlock():
        info["dev_head_t"] = mne.transforms.Transform("meg", "head", trans)
        info["projs"], info["bads"] = [], []
    return info


def draw_sensors(rng, heads):
    """Return info and forward of a random cap, or of MEG, at a random rate."""
    info, fwd = heads[rng.integers(len(heads))]
    if "eeg" in info.get_channel_types():
        names = list(caps().values())[rng.integers(len(caps()))]
    else:
        picks = mne.pick_types(info, meg=rng.choice(["mag", "grad"]))
        names = [info["ch_names"][pick] for pick in picks]
    names = [name for name in info["ch_names"] if name in set(names)]
    info = mne.pick_info(info, mne.pick_channels(info["ch_names"], names))
    with info._unlock():
        info["sfreq"] = float(rng.choice([250.0, 500.0]))
    return info, mne.pick_channels_forward(fwd, names, ordered=True)


# ---------------------------------------------------------------- recordings


def draw_good(rng, heads, activity):
    """Simulate an evoked response of one to three patches, 5 to 20 dB.

    In every second case its noise covariance holds ongoing activity, of 0.1 to 100
    times the power of the sensors' noise, as those from baselines do.
    """
    info, fwd = draw_sensors(rng, heads)
    evoked, stc, truth = mne_deepsif.simulate_evoked(
        fwd,
        info,
        n_sources=int(rng.integers(1, 4)),
        waveforms=str(rng.choice(["spikes", "spikes", "evoked", "bursts"])),
        background_snr=rng.uniform(10, 20),
        snr=rng.uniform(5, 20),
        duration=float(rng.choice([0.6, 1.0])),
        random_state=int(rng.integers(2**31)),
    )
    cov = truth.noise_cov
    if rng.random() < 0.5:
        leadfield = make_leadfield(
            evoked.info, fwd, cov, parcels=make_template_parcels()
        )
        brain = leadfield.gain @ activity @ leadfield.gain.T
        noise = np.diag(cov["data"]) if cov["diag"] else cov["data"]
        factor = np.exp(rng.uniform(np.log(0.1), np.log(100)))
        data = noise + factor * np.trace(noise) / np.trace(brain) * brain
        cov = mne.Covariance(data, cov["names"], [], cov["projs"], cov["nfree"])
    return evoked, fwd, truth, cov


def draw_artefact(kind, evoked, fwd, truth, cov, rng):
    """Put an artefact in the place of the patches, as strong as they were."""
    gain = mne.convert_forward_solution(fwd, force_fixed=True, copy=True)
    rows = np.concatenate(
        [np.isin(s["vertno"], v) for s, v in zip(fwd["src"], truth.stc.vertices)]
    )
    patches = gain["sol"]["data"][:, rows] @ truth.stc.data
    order = [cov["names"].index(name) for name in evoked.ch_names]
    noise = np.diag(cov["data"]) if cov["diag"] else cov["data"]
    noise = noise[np.ix_(order, order)]
    std = np.sqrt(np.diag(noise))[:, None]
    if kind == "noise":
        data = np.linalg.cholesky(noise) @ rng.standard_normal(evoked.data.shape)
    else:
        artefact = _ARTEFACTS[kind](evoked, rng)
        power = [np.square(d / std).mean(0).max() for d in (patches, artefact)]
        data = evoked.data - patches + artefact * np.sqrt(power[0] / power[1])
    return mne.EvokedArray(data, evoked.info, evoked.tmin, kind)


def _blink(evoked, rng):
    """Return both eyes' dipoles, turned up, for 0.2 to 0.5 s."""
    gain = _eye_field(evoked.info, rng.normal(0, 5e-3, 3))
    moment = rng.normal([0, 0.3, 1], 0.15)
    length = rng.uniform(0.2, 0.5)
    phase = (evoked.times - rng.uniform(-0.1, 0.1)) / length
    wave = np.where(np.abs(phase) < 0.5, np.cos(np.pi * phase) ** 2, 0)
    return np.outer(gain @ moment, wave)


def _eye_field(info, shift):
    """Return the fields of the eyes; for EEG by other physics than the package's.

    Those are dipoles in an infinite conductor, of unequal size.
    """
    if "eeg" not in info.get_channel_types():
        return eyes.eye_gain(info, shift)
    points = np.array([ch["loc"][:3] for ch in info["chs"]])
    places = eyes._nasion(info) + eyes._EYES + shift
    away = points[:, None] - places
    distance = np.linalg.norm(away, axis=2, keepdims=True)
    return np.average(away / distance**3, axis=1, weights=[1.0, 0.8])


def _line(evoked, rng):
    """Return 50 or 60 Hz with a weight, and a little phase, of each channel's own."""
    frequency = rng.choice([50.0, 60.0])
    phase = rng.uniform(0, 2 * np.pi) + rng.normal(0, 0.3, (len(evoked.data), 1))
    weight = rng.standard_normal((len(evoked.data), 1))
    if rng.random() < 0.5:  # a field that varies slowly over the sensors
        points = np.array([ch["loc"][:3] for ch in evoked.info["chs"]])
        weight = points @ rng.standard_normal((3, 1)) + 0.1 * points.std() * weight
    return weight * np.sin(2 * np.pi * frequency * evoked.times + phase)


def _electrode(evoked, rng):
    """Return one channel alone: a pop, a drift or noise."""
    n_times = len(evoked.times)
    start = int(rng.uniform(0.2, 0.7) * n_times)
    pop = np.exp(-np.arange(n_times) / (0.1 * evoked.info["sfreq"]))
    waves = [
        np.r_[np.zeros(start), pop[: n_times - start]],
        np.cumsum(rng.standard_normal(n_times)),
        rng.standard_normal(n_times),
    ]
    artefact = np.zeros(evoked.data.shape)
    artefact[rng.integers(len(artefact))] = waves[rng.integers(3)]
    return artefact


_ARTEFACTS = {"blink": _blink, "line": _line, "electrode": _electrode}


# ---------------------------------------------------------------- measuring


def measure(model, evoked, fwd, noise_cov, n_passes=0):
    """Return features and, if asked for, estimates from subsets of the channels."""
    plan = make_plan(
        evoked.info,
        fwd,
        noise_cov,
        model,
        label=None,
        pick_ori=None,
        rank=None,
        subjects_dir=None,
    )
    estimate = estimate_sources(evoked.data, plan)
    numbers, _, _ = measure_features(
        plan.leadfield, estimate, plan.info["sfreq"], plan.operator._eyes
    )
    passes = estimate_again(estimate.data, plan, n_passes, 0)
    return numbers, passes, len(plan.leadfield.whitener)


def collect(name, n_samples, small):
    """Simulate and measure; returns features by kind, and stability with truth."""
    model = load_model("generic")
    rng = np.random.default_rng(SEEDS[name])
    n_heads, ico, n_passes = (2, 2, 2) if small else (N_HEADS, 3, N_PASSES)
    heads = draw_heads(rng, n_heads, ico)
    options = SMALL_LIBRARY if small else {}
    background = make_library(make_template_parcels(), **options).background
    activity = np.cov(np.asarray(background, float))
    numbers = {kind: [] for kind in KINDS}
    tables, truths = [], []
    for sample in range(n_samples):
        evoked, fwd, truth, cov = draw_good(rng, heads, activity)
        # the maps take most of the time: a third of the recordings is enough
        wanted = n_passes if sample % 3 == 0 else 0
        found, passes, rank = measure(model, evoked, fwd, cov, wanted)
        numbers["good"].append(found)
        if wanted:
            tables.append(stability(passes, found["snr"], rank))
            inside = np.zeros(model.parcels.n_parcels, bool)
            inside[np.concatenate(truth.patches)] = True
            truths.append(inside)
        kind = ARTEFACTS[sample % len(ARTEFACTS)]
        artefact = draw_artefact(kind, evoked, fwd, truth, cov, rng)
        numbers[kind].append(measure(model, artefact, fwd, cov)[0])
        if (sample + 1) % 20 == 0:
            print(f"{name}: {sample + 1} of {n_samples}", flush=True)
    return numbers, np.concatenate(tables), np.concatenate(truths)


# ---------------------------------------------------------------- steps


def fit(n_samples, small, results):
    """Fit both logistic regressions and write their coefficients."""
    numbers, table, truth = collect("fit", n_samples, small)
    X = np.array([[f[n] for n in FEATURES] for k in numbers for f in numbers[k]])
    y = np.repeat(np.arange(len(numbers)), [len(rows) for rows in numbers.values()])
    low, high = X.min(0), X.max(0)
    mean, scale = X.mean(0), X.std(0)
    model = LogisticRegression(C=1.0, max_iter=5000).fit((X - mean) / scale, y)
    coef = model.coef_ / scale
    chance = LogisticRegression(C=1.0, max_iter=5000).fit(table, truth)
    scores = 1 - model.predict_proba((X - mean) / scale)[:, 0]
    explained = 1 - 10 ** (X[:, FEATURES.index("residual")] / 10)
    content = {
        "kinds": {
            "features": FEATURES,
            "usual": np.median(X[y == 0], axis=0).round(3).tolist(),
            "low": low.round(3).tolist(),
            "high": high.round(3).tolist(),
            "coef": coef.round(5).tolist(),
            "intercept": (model.intercept_ - coef @ mean).round(5).tolist(),
        },
        "confidence": {
            "coef": chance.coef_[0].round(5).tolist(),
            "intercept": round(float(chance.intercept_[0]), 5),
        },
        "limits": choose_limits(scores, explained, y == 0),
        "made_by": f"python -m benchmarks.making.trust fit --n {n_samples}",
    }
    fname = (PACKAGE_DATA if results == RESULTS else results) / "trust.json"
    fname.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {fname}")


def choose_limits(scores, explained, good):
    """Choose limits that flag 2 % of the good recordings by score, 1 % by fit.

    The score's stays between one half and what 98 % of the artefacts exceed.
    """
    score = np.quantile(scores[good], 0.98)
    score = max(0.5, min(score, np.quantile(scores[~good], 0.02)))
    share = np.quantile(explained[good & (scores <= score)], 0.01)
    return {"score": round(float(score), 3), "explained": round(float(share), 3)}


def test(n_samples, small, results):
    """Write detection, false alarms and the reliability diagram."""
    numbers, table, truth = collect("test", n_samples, small)
    lines = [*as_lines(provenance()), "\nheads and seeds not fitted on"]
    flagged = {}
    for kind, rows in numbers.items():
        chances = [classify(found) for found in rows]
        scores = [1 - chance["good"] for chance in chances]
        flagged[kind] = [
            bool(list_reasons(chance, found, "?"))
            for chance, found in zip(chances, rows)
        ]
        what = "false alarms" if kind == "good" else "detected"
        low, middle, high = np.quantile(scores, [0.05, 0.5, 0.95])
        lines.append(
            f"{kind:10s}{what:13s}{100 * np.mean(flagged[kind]):6.1f} % of {len(rows)}"
            f"  score: median {middle:.3f}, 5 to 95 % {low:.3f} to {high:.3f}"
        )
    bad = sum((flagged[kind] for kind in ARTEFACTS), [])
    lines.append(f"all artefacts detected: {100 * np.mean(bad):.1f} % of {len(bad)}")
    confidence = confidence_of(table)
    curve = metrics.reliability_curve(truth, confidence)
    predicted, observed, counts = curve
    error = np.average(np.abs(predicted - observed), weights=counts)
    large = counts >= 20
    lines.append(
        f"confidence: expected calibration error {error:.3f}, largest deviation of a "
        f"bin of 20 and more {np.abs(predicted - observed)[large].max():.2f}, Brier "
        f"score {np.mean((confidence - truth) ** 2):.4f} (always saying "
        f"{truth.mean():.3f}: {truth.mean() * (1 - truth.mean()):.4f})"
    )
    for bin_ in zip(predicted, observed, counts):
        lines.append("  predicted {:.2f} observed {:.2f} parcels {}".format(*bin_))
    print("\n".join(lines))
    fname = results / "trust.txt"
    fname.write_text("\n".join(lines) + "\n", encoding="utf-8")
    figure = figures_folder(results) / "reliability.png"
    draw_reliability(
        curve,
        figure,
        xlabel="Confidence of a parcel",
        ylabel="Share that lies in a true patch",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", nargs="+", choices=["fit", "test"])
    parser.add_argument("--n", type=int, default=200)
    args = parse_args(parser, smoke=True)
    if args.smoke:
        args.n = len(ARTEFACTS)  # one of each kind
    mne.set_log_level("ERROR")
    for step in args.step:
        {"fit": fit, "test": test}[step](args.n, args.smoke, args.results)

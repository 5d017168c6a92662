"""How often a wrong order of the channels is told from the data, and a right one not.

    python -m benchmarks.studies.order        # writes results/order.txt

Right orders are those of the real responses of ``real_trust.py`` (with all sensors and
with some, and in parts: the baseline and 90 ms around the response), of the recordings
of ``readers.py``, and of simulated responses. The forward used for these is another one
than that behind the data: the skull conducts half or twice as much, or the head has
moved by 5 mm. Then the rows of the data get another order than the names. "random" and
"pair" are a shuffle of all rows and an exchange of two, "block" is one of the first 8,
16 or 32 rows for the next ones (headboxes), "shift" moves all by 1 or 8, "reversed"
turns them round.

First comes the share of those that are told, then the files that are told in the right
order, then simulated responses: a case is harmful if the peak of the estimate moves by
more than 20 mm against that with the right order. It is silent if ``apply_deepsif``
says nothing of any kind.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import argparse
import warnings
from collections import defaultdict
from itertools import chain

import mne
import numpy as np

import mne_deepsif
from mne_deepsif.head.template import (
    make_template_bem,
    make_template_source_space,
    make_template_trans,
)
from mne_deepsif.inverse.plan import estimate_sources, make_plan
from mne_deepsif.trust.verdict import describe_disorder, judge

from ..options import parse_args
from ..provenance import Lines
from . import readers
from .real_trust import find_cases, thin_out

CAPS = {
    "19": "standard_1020",
    "32": "biosemi32",
    "64": "biosemi64",
    "128": "GSN-HydroCel-128",
}
TEN_TWENTY = "Fp1 Fp2 F7 F3 Fz F4 F8 T3 C3 Cz C4 T4 T5 P3 Pz P4 T6 O1 O2".split()
SKULLS = 0.0033, 0.0066, 0.0132  # S/m; half, as assumed, twice
MOVED = (0.003, 0.004, 0.0)  # m
SNRS = 0.0, 5.0, 10.0, 20.0  # dB
N_PAIRS = 3  # and as many shuffles
HARMFUL = 0.02  # m


# ---------------------------------------------------------------- orders


def orders(groups, rng):
    """Yield orders of rows that are not the right one, each within groups of rows."""

    def within(change):
        order = np.arange(max(max(group) for group in groups) + 1)
        for group in groups:
            order[group] = change(np.array(group))
        return order

    for _ in range(N_PAIRS):
        yield "random", within(rng.permutation)
        yield "pair", within(lambda group: exchange(group, rng))
    smallest = min(len(group) for group in groups)
    for size in (8, 16, 32):
        if smallest >= 2 * size:
            yield f"block of {size}", within(lambda group, size=size: swap(group, size))
    for size in (1, 8):
        yield f"shift by {size}", within(lambda group, size=size: np.roll(group, size))
    yield "reversed", within(lambda group: group[::-1])


def exchange(group, rng):
    """Exchange two rows."""
    one, two = rng.choice(len(group), 2, replace=False)
    group[[one, two]] = group[[two, one]]
    return group


def swap(group, size):
    """Exchange the first rows for the next ones."""
    return np.concatenate([group[size : 2 * size], group[:size], group[2 * size :]])


def groups_of(plan):
    """Return the rows of each type of sensor."""
    types = np.array(plan.leadfield.ch_types)
    return [np.flatnonzero(types == kind) for kind in sorted(set(types))]


# ---------------------------------------------------------------- recordings


def plan_of(info, fwd, cov, folder=None):
    """Prepare an estimate; warnings about the rest of the data are no matter here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make_plan(
            info,
            fwd,
            cov,
            "generic",
            label=None,
            pick_ori=None,
            rank=None,
            subjects_dir=folder,
        )


def real_responses(cases):
    """Yield kind, sensors, plan and data of responses, baselines, and parts."""
    rng = np.random.default_rng(0)
    for case in cases:
        for size, one in thin_out(case, rng):
            problem, evoked = one.problem, one.evoked
            plan = plan_of(
                evoked.info, problem.fwd, problem.noise_cov, problem.subjects_dir
            )
            start, stop = one.window
            parts = {
                "response": evoked,
                "baseline": evoked.copy().crop(None, 0),
                "90 ms": evoked.copy().crop(start - 0.02, stop + 0.02),
            }
            sensors = f"{one.sensors} {size}"
            for kind, part in parts.items():
                yield kind, sensors, plan, part.data[plan.picks]


def real_recordings(recordings):
    """Yield kind, system, plan and data of the first second of files."""
    for recording in recordings:
        raw = readers.read(recording)
        if recording.montage is not None:
            raw = readers.add_positions(raw, recording.montage, recording.prefix)
        if "eeg" in raw:
            raw.set_eeg_reference(projection=True)
        try:
            fwd = mne_deepsif.make_template_forward(raw.info)
        except ValueError:  # no positions
            continue
        plan = plan_of(raw.info, fwd, mne.make_ad_hoc_cov(raw.info))
        yield "file", recording.system, plan, raw.get_data()[plan.picks]


# ---------------------------------------------------------------- simulations


def infos():
    """Yield sensors: caps, and magnetometers of a helmet."""
    for size, name in CAPS.items():
        montage = mne.channels.make_standard_montage(name)
        info = mne.create_info(montage.ch_names, 250.0, "eeg").set_montage(montage)
        if size == "19":
            info = mne.pick_info(info, [info["ch_names"].index(n) for n in TEN_TWENTY])
        yield f"eeg {size}", info
    info = mne.channels.read_meg_canonical_info("neuromag")
    info = mne.pick_info(info, mne.pick_types(info, meg="mag"))
    trans = mne.transforms.translation(z=0.055)
    with info._unlock():
        info["dev_head_t"] = mne.transforms.Transform("meg", "head", trans)
        info["projs"], info["bads"], info["sfreq"] = [], [], 250.0
    yield "mag 102", info


def forward(info, src, *, skull=SKULLS[1], moved=(0, 0, 0)):
    """Make a forward of the template with another skull, or at another place."""
    meg = "mag" in info.get_channel_types()
    bem = make_template_bem(conductivity=(0.3,) if meg else (0.33, skull, 0.33), ico=3)
    trans = mne.transforms.translation(*moved) @ make_template_trans(info)["trans"]
    trans = mne.transforms.Transform("head", "mri", trans)
    kwargs = dict(mindist=0.0, on_inside="ignore")
    fwd = mne.make_forward_solution(info, trans, src, bem, **kwargs)
    return mne.convert_forward_solution(fwd, surf_ori=True, force_fixed=True)


def simulations(n, sensors=None):
    """Yield kind, sensors, plan, data and places of vertices of simulations."""
    src = make_template_source_space()
    for s in src:  # the first vertices are those of ico4
        s["inuse"][2562:] = 0
        s.update(nuse=2562, vertno=np.arange(2562))
    rng = np.random.default_rng(0)
    for name, info in list(infos())[:sensors]:
        assumed = forward(info, src)
        true = [forward(info, src, moved=MOVED)]
        if "eeg" in info.get_channel_types():
            true += [forward(info, src, skull=skull) for skull in SKULLS[::2]]
        for fwd in true:
            for number in range(n):
                evoked, _, truth = mne_deepsif.simulate_evoked(
                    fwd,
                    info,
                    n_sources=int(rng.integers(1, 4)),
                    snr=SNRS[number % len(SNRS)],
                    background_snr=rng.uniform(5, 20),
                    waveforms=str(rng.choice(["spikes", "evoked"])),
                    random_state=int(rng.integers(2**31)),
                )
                plan = plan_of(evoked.info, assumed, truth.noise_cov)
                kind = f"simulated, {SNRS[number % len(SNRS)]:.0f} dB"
                yield kind, name, plan, evoked.data[plan.picks], assumed["source_rr"]


def find_peak(data, plan):
    """Return the vertex with the peak, and whether something speaks against it."""
    full = np.zeros((plan.info["nchan"], data.shape[1]))
    full[plan.picks] = data
    estimate = estimate_sources(full, plan, check_reference=False)
    peaks = np.abs(plan.activity @ estimate.sources).max(axis=1)
    return peaks.argmax(), bool(judge(estimate, plan)["reasons"])


# ---------------------------------------------------------------- main


def told_of(data, plan, rng):
    """Yield each order's name, the data in it, and whether it is told."""
    yield "right", data, describe_disorder(data, plan) is not None
    for name, order in orders(groups_of(plan), rng):
        yield name, data[order], describe_disorder(data[order], plan) is not None


def count(cases):
    """Return told and all cases by kind and order, files told, and what it cost."""
    rng = np.random.default_rng(0)
    told, files, costs = defaultdict(list), [], defaultdict(list)
    for kind, sensors, plan, data, *places in cases:
        print(kind, sensors, flush=True)
        large = min(len(group) for group in groups_of(plan)) >= 16
        key = kind if large or places else f"{kind}, few"
        right = find_peak(data, plan)[0] if places else None
        for name, shuffled, found in told_of(data, plan, rng):
            told[key, name].append(found)
            if kind == "file" and name == "right" and found:
                files.append(sensors)
            if places and name != "right":
                peak, said = find_peak(shuffled, plan)
                moved = np.linalg.norm(places[0][peak] - places[0][right])
                costs[sensors, name].append((moved > HARMFUL, said, found))
    return told, files, costs


def main():
    """Judge all orders, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=4, help="simulations of each kind")
    args = parse_args(parser, smoke=True)
    mne.set_log_level("ERROR")
    real, recordings = find_cases(), readers.RECORDINGS
    if args.smoke:
        real, recordings = real[1:2], recordings[:1]
    n, sensors = (1, 1) if args.smoke else (args.n, None)
    found = real_responses(real), real_recordings(recordings), simulations(n, sensors)
    told, files, costs = count(chain(*found))
    lines = Lines()
    lines.say_provenance()
    names = list(dict.fromkeys(name for _, name in told))
    lines.say("\nshare that is told" + " " * 6 + "".join(f"{n:>12s}" for n in names))
    for kind in dict.fromkeys(kind for kind, _ in told):
        row = [told.get((kind, name), []) for name in names]
        cells = [f"{np.mean(x):12.2f}" if x else f"{'-':>12s}" for x in row]
        lines.say(f"{kind:18s}{len(row[0]):5d} " + "".join(cells))
    lines.say(f"\nfiles told in the right order: {', '.join(files) or 'none'}")
    lines.say(
        f"\n{'simulated':24s}{'cases':>6s}{'harmful':>9s}{'told':>6s}{'silent':>8s}"
    )
    for (sensors, name), rows in costs.items():
        harmful, said, found = np.array(rows).T
        told_ones, silent = (harmful & found).sum(), (harmful & ~said).sum()
        numbers = f"{len(rows):6d}{harmful.sum():9d}{told_ones:6d}{silent:8d}"
        lines.say(f"{sensors:10s}{name:14s}{numbers}")
    lines.write(args.results / "order.txt")


if __name__ == "__main__":
    main()

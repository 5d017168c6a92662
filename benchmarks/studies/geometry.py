"""How often wrong positions of electrodes are passed over, and right ones called wrong.

    python -m benchmarks.studies.geometry --n 10

Positions of caps with known and with unknown names are spoilt at random, and simulated
patches are estimated with them. A case is harmful if an estimate is more than 20 mm off
that is at most 2 mm off with the right positions, and missed if it is harmful and
nothing was said. Right positions are MNE's montages on heads of 0.7 to 1.15 times the
size, with every electrode displaced, parts of them, and real recordings. Writes
``results/geometry.json`` and ``geometry.txt``.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import argparse
import json
import warnings
from unittest import mock

import mne
import numpy as np
from scipy.spatial.transform import Rotation

import mne_deepsif
from mne_deepsif import stc_metrics
from mne_deepsif.head.geometry import check_template_electrodes
from mne_deepsif.head.template import (
    make_template_bem,
    make_template_source_space,
    make_template_trans,
)

from ..options import parse_args
from ..provenance import ROOT, as_lines, provenance

SHARED = ROOT.parent / "shared" / "data"
CAPS = "biosemi64", "easycap-M1", "fsaverage_1020", "GSN-HydroCel-128", "biosemi128"
KEYS = "nasion", "lpa", "rpa"
SEEDS = 100, 300, 600, 850  # parcels of the simulated patches
SIZES = 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15
CHECK = "mne_deepsif.inverse.operator.check_forward_geometry"


# ---------------------------------------------------------------- positions


def read_cap(name):
    """Return names, positions and fiducials of a montage, in head coordinates."""
    montage = mne.channels.make_standard_montage(name)
    info = mne.create_info(montage.ch_names, 250.0, "eeg").set_montage(montage)
    found = info.get_montage().get_positions()
    points = np.array(list(found["ch_pos"].values()))
    return montage.ch_names, points, np.array([found[key] for key in KEYS])


def make_info(names, points, fiducials=None):
    """Return an Info; fiducials, if there are any, define its head coordinates."""
    fiducials = {} if fiducials is None else dict(zip(KEYS, fiducials))
    frame = "unknown" if fiducials else "head"
    montage = mne.channels.make_dig_montage(
        dict(zip(names, points)), **fiducials, coord_frame=frame
    )
    return mne.create_info(list(names), 250.0, "eeg").set_montage(montage)


def turned(rng, low=15, high=180):
    axis = rng.standard_normal(3)
    angle = np.radians(rng.uniform(low, high))
    return Rotation.from_rotvec(angle * axis / np.linalg.norm(axis)).as_matrix()


def direction(rng, low, high):
    axis = rng.standard_normal(3)
    return rng.uniform(low, high) * axis / np.linalg.norm(axis)


# ---------------------------------------------------------------- faults


def units(rng, names, x, f):
    """Give all in another unit, with and without fiducials, or one of both."""
    factor = rng.choice([1e3, 1e2, 10.0, 1 / 0.095, 39.37, 1e-2, 1e-3])
    which = rng.integers(4)
    if which == 0:
        return names, factor * x, factor * f
    if which == 1:
        return names, factor * x, None
    return (names, factor * x, f) if which == 2 else (names, x, factor * f)


def sizes(rng, names, x, f):
    """Change the size, without fiducials."""
    return names, x * np.exp(rng.uniform(np.log(0.3), np.log(3))), None


def turns(rng, names, x, f):
    """Turn by 15 to 180 degrees, without fiducials."""
    return names, x @ turned(rng).T, None


def motions(rng, names, x, f):
    """Turn, and shift by up to 150 mm, without fiducials."""
    return names, x @ turned(rng, 0).T + direction(rng, 0, 0.15), None


def shifts(rng, names, x, f):
    """Shift by 20 to 100 mm, without fiducials."""
    return names, x + direction(rng, 0.02, 0.1), None


def axes(rng, names, x, f):
    """Exchange or mirror axes, with or without fiducials."""
    while True:
        turn = np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], 3)
        if not np.array_equal(turn, np.eye(3)):
            break
    return names, x @ turn.T, f if rng.random() < 0.5 else None


def orders(rng, names, x, f):
    """Exchange two or more names."""
    n = int(np.exp(rng.uniform(np.log(2), np.log(len(x) + 1))))
    some = rng.permutation(len(x))[:n]
    x = x.copy()
    x[some] = x[np.roll(some, 1)]
    return names, x, f


def swapped_fiducials(rng, names, x, f):
    """Give fiducials one another's names."""
    orders = [[0, 2, 1], [1, 0, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]]
    return names, x, f[orders[rng.integers(5)]]


def moved_fiducial(rng, names, x, f):
    """Move one fiducial by 20 to 60 mm."""
    f = f.copy()
    f[rng.integers(3)] += direction(rng, 0.02, 0.06)
    return names, x, f


def depth(rng, names, x, f):
    """Put contacts on straight electrodes from the scalp to the head's middle."""
    points = []
    while len(points) < len(x):
        entry = x[rng.integers(len(x))]
        target = [0, 0, 0.045] + direction(rng, 0, 0.03)
        steps = 0.015 + 0.0035 * np.arange(rng.integers(8, 16))
        length = np.linalg.norm(target - entry)
        points += [entry + (target - entry) * step / length for step in steps]
    contacts = [f"L{i // 10}C{i % 10}" for i in range(len(x))]
    return contacts, np.array(points[: len(x)]), f


FAULTS = {
    "units": units,
    "size": sizes,
    "turned": turns,
    "turned and shifted": motions,
    "shifted": shifts,
    "axes": axes,
    "order of names": orders,
    "fiducials swapped": swapped_fiducials,
    "one fiducial moved": moved_fiducial,
    "depth contacts": depth,
}
BY_NAMES_ALONE = {"order of names"}


# ---------------------------------------------------------------- what is said


class Cap:
    """A cap with the right positions, and sources simulated with them."""

    def __init__(self, name, src, bem):
        self.names, self.points, self.fiducials = read_cap(name)
        self.src, self.bem, self.name = src, bem, name
        self.info = make_info(self.names, self.points, self.fiducials)
        self.fwd = self.forward(self.info)
        made = [
            mne_deepsif.simulate_evoked(
                self.fwd, self.info, seeds=[seed], snr=15.0, random_state=seed
            )
            for seed in SEEDS
        ]
        errors = self.errors(self.info, self.fwd, made)
        self.made = [one for one, error in zip(made, errors) if error <= 2e-3]

    def forward(self, info):
        """Make a forward without any check."""
        trans = make_template_trans(info)
        return mne.make_forward_solution(
            info, trans, self.src, self.bem, mindist=0.0, on_inside="ignore"
        )

    def errors(self, info, fwd, made=None):
        """Return localization errors (m) of the simulated sources."""
        made = self.made if made is None else made
        cov = made[0][2].noise_cov
        cov = mne.Covariance(cov["data"], info["ch_names"], [], [], cov["nfree"])
        raw = mne.io.RawArray(made[0][0].data, info).set_eeg_reference(projection=True)
        with mock.patch(CHECK):
            operator = mne_deepsif.make_deepsif_operator(raw.info, fwd, cov)
        found = []
        for evoked, _, truth in made:
            data = mne.EvokedArray(evoked.data, raw.info, tmin=evoked.tmin)
            stc = mne_deepsif.apply_deepsif(data, operator)
            found.append(
                stc_metrics.localization_error(truth.stc, stc, self.fwd["src"])
            )
        return np.array(found)


def listen(function, *args):
    """Return ``"error"``, ``"warning"`` or ``"silent"``, and what was said."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            with mne.use_log_level("WARNING"):  # else MNE's warnings are not heard
                function(*args)
        except ValueError as error:
            return "error", str(error)
    texts = [str(warning.message) for warning in said]
    return ("warning", texts[0]) if texts else ("silent", "")


def judge(info, fwd=None):
    """Say what is said before a forward is made, and if nothing, before an estimate."""
    said = listen(check_template_electrodes, info, make_template_trans(info))
    if said[0] != "silent" or fwd is None:
        return said
    raw = mne.io.RawArray(np.zeros((info["nchan"], 1)), info)
    raw.set_eeg_reference(projection=True)
    cov = mne.make_ad_hoc_cov(raw.info)
    return listen(mne_deepsif.make_deepsif_operator, raw.info, fwd, cov)


# ---------------------------------------------------------------- rates


def rate_faults(caps, n, known):
    """Return counts of harmful and missed cases of each fault."""
    results = {}
    for number, (name, fault) in enumerate(FAULTS.items()):
        if not known and name in BY_NAMES_ALONE:
            continue
        rng = np.random.default_rng([number, known])
        counts = dict(n=n, error=0, warning=0, silent=0, harmful=0, missed=0)
        worst = 0.0
        for i in range(n):
            cap = caps[i % len(caps)]
            names, points, fiducials = fault(rng, cap.names, cap.points, cap.fiducials)
            if not known:
                names = [f"X_{name}_x" for name in names]
            info = make_info(names, points, fiducials)
            fwd = cap.forward(info)
            said, text = judge(info, fwd)
            error = cap.errors(info, fwd).max()
            counts[said] += 1
            counts["harmful"] += bool(error > 0.02)
            if said == "silent":
                worst = max(worst, error)
                counts["missed"] += bool(error > 0.02)
            print(f"{name}, {cap.name}: {1e3 * error:.0f} mm, {said} {text[:90]}")
        counts["largest silent error (mm)"] = round(1e3 * float(worst), 1)
        results[name] = counts
    return results


def right_positions(n):
    """Yield Infos with positions that are right, and what they are."""
    rng = np.random.default_rng(0)
    for montage in mne.channels.get_builtin_montages():
        names, points, fiducials = read_cap(montage)
        unknown = [f"X_{name}_x" for name in names]
        for size in SIZES:
            for labels, what in ((names, ""), (unknown, ", names unknown")):
                info = make_info(labels, size * points, size * fiducials)
                yield f"montages{what}", f"{montage} {size}", info
        for _ in range(n):
            size = rng.uniform(SIZES[0], SIZES[-1])
            noisy = points + rng.normal(0, 4e-3, points.shape)
            info = make_info(names, size * noisy, size * fiducials)
            yield "montages, 4 mm of noise", montage, info
            some = rng.permutation(len(names))[: rng.integers(1, 20)]
            info = make_info(np.array(names)[some], points[some], fiducials)
            yield "1 to 19 channels", montage, info
    fname = SHARED / "readers" / "eeglab" / "test_raw_chanloc.set"
    if fname.is_file():
        yield "recordings", "EEGLAB", mne.io.read_raw_eeglab(fname).info
        yield "recordings", "sample", read_sample().info


def read_sample():
    fname = SHARED / "sample" / "sample_audvis-ave.fif"
    evoked = mne.read_evokeds(fname, condition=0)
    return evoked.pick("eeg", exclude=()).apply_baseline((None, 0))


def rate_right(n):
    """Return how often right positions are called wrong."""
    results = {}
    for kind, what, info in right_positions(n):
        counts = results.setdefault(kind, dict(n=0, error=0, warning=0, silent=0))
        said, text = judge(info)
        counts["n"] += 1
        counts[said] += 1
        if said != "silent":
            print(f"FALSE: {kind}, {what}: {said} {text}")
    return results


# ---------------------------------------------------------------- main


def table(results):
    """Return both rates as lines of text."""
    lines = []
    kinds = {"right": "right positions", "names known": "wrong positions, names known"}
    kinds["names unknown"] = "wrong positions, names unknown"
    for kind, title in kinds.items():
        columns = list(next(iter(results[kind].values())))
        lines += ["", f"{title:32s}" + "".join(f"{name:>9s}" for name in columns[:6])]
        for case, counts in results[kind].items():
            numbers = [f"{counts[name]:9d}" for name in columns[:6]]
            lines.append(f"  {case:30s}" + "".join(numbers))
    return lines


def main():
    """Print and store both rates."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=20, help="cases of each fault")
    args = parse_args(parser, smoke=True)
    if args.smoke:
        args.n = 1
    mne.set_log_level("ERROR")
    src = make_template_source_space()
    for s in src:  # the first vertices are those of ico4
        s["inuse"][2562:] = 0
        s.update(nuse=2562, vertno=np.arange(2562))
    bem = make_template_bem(ico=2 if args.smoke else 3)
    caps = [Cap(name, src, bem) for name in CAPS[: 1 if args.smoke else None]]
    results = provenance() | {"right": rate_right(1 if args.smoke else 5)}
    for known, name in ((True, "names known"), (False, "names unknown")):
        results[name] = rate_faults(caps, args.n, known)
    text = "\n".join(as_lines(results) + table(results)) + "\n"
    print(text)
    (args.results / "geometry.txt").write_text(text, encoding="utf-8")
    text = json.dumps(results, indent=1) + "\n"
    (args.results / "geometry.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

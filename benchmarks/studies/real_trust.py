"""How often the trust warning is right and wrong on real responses.

    python -m benchmarks.studies.real_trust   # writes results/real_trust.txt

The responses of ``benchmarks.comparison.recordings`` whose place anatomy tells, each
with all of its sensors and with some of them drawn at random, with the recording's own
noise covariance and with an ad-hoc one. An estimate is right if its peak is within
10 mm of the place, wrong if it is more than 20 mm away. The baseline before each
response is data without one. The warning is that of ``apply_deepsif``, about the whole
response. All of it is one subject and six averages of six trials (and the authors'
visual response, which is of the same subject): the rates describe these data, and no
more.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import argparse
import warnings
from collections import Counter
from dataclasses import replace

import mne
import numpy as np

import mne_deepsif

from ..comparison.recordings import RESPONSES, Skip, peak_of
from ..options import parse_args
from ..provenance import as_lines, provenance

RIGHT, WRONG = 10.0, 20.0  # mm
SIZES = {"eeg": (19, 32), "meg": (40, 100)}  # channels of the subsets
N_DRAWS = 2  # of each size
KINDS = ("right", "between", "wrong", "no response")


def find_cases():
    """Return the cases of all responses that are here."""
    cases = []
    for make in RESPONSES.values():
        try:
            cases += make()
        except Skip:
            continue
    return cases


def thin_out(case, rng):
    """Yield a case with all sensors, and with some of them."""
    yield "all", case
    for size in N_DRAWS * SIZES.get(case.sensors, ()):
        names = list(case.evoked.ch_names)
        if len(names) > size:
            names = sorted(rng.choice(names, size, replace=False), key=names.index)
            evoked = case.evoked.copy().pick(names)
            problem = replace(case.problem, info=evoked.info)
            yield f"{size}", replace(case, evoked=evoked, problem=problem)


def covariances(case):
    """Yield the recording's own noise covariance, and one that assumes usual noise."""
    yield "own", case.problem.noise_cov
    if case.recording != "VEP":  # it has no other
        yield "ad hoc", mne.make_ad_hoc_cov(case.evoked.info)


def listen(evoked, operator):
    """Return the estimate and what the warning says, if there is one."""
    with warnings.catch_warnings(record=True) as said, mne.use_log_level("WARNING"):
        warnings.simplefilter("always")
        stc = mne_deepsif.apply_deepsif(evoked, operator)
    texts = [str(one.message) for one in said]
    texts = [text for text in texts if text.startswith("The estimate may be wrong")]
    return stc, texts[0] if texts else ""


def distance(case, stc):
    """Return the distance of the peak to the place in its hemisphere (mm)."""
    hemi, vertex, _ = peak_of(stc, *case.window)
    places = case.places[hemi]
    if not len(places):
        return np.inf
    return 1e3 * np.linalg.norm(places - case.white[hemi][vertex], axis=1).min()


def judge(case):
    """Yield kind, distance and warning for a case and for its baseline."""
    for cov_name, cov in covariances(case):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            operator = mne_deepsif.make_deepsif_operator(
                case.evoked.info,
                case.problem.fwd,
                cov,
                subjects_dir=case.problem.subjects_dir,
            )
        stc, said = listen(case.evoked, operator)
        gap = distance(case, stc)
        kind = "right" if gap <= RIGHT else "wrong" if gap > WRONG else "between"
        yield cov_name, kind, gap, said
        before = case.evoked.copy().crop(None, 0)
        yield cov_name, "no response", np.nan, listen(before, operator)[1]


def main():
    """Judge all cases, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args = parse_args(parser, smoke=True)
    mne.set_log_level("ERROR")
    rng, rows = np.random.default_rng(0), []
    cases = find_cases()
    for case in cases[1:2] if args.smoke else cases:
        for sensors, one in thin_out(case, rng):
            names = case.recording, case.sensors, sensors
            rows += [(*names, *found) for found in judge(one)]
            print(*rows[-2:], flush=True)
    lines = [*as_lines(provenance()), ""]
    lines += [f"{'':14s}{'warned':>8s}{'of':>5s}   reasons"]
    for kind in KINDS:
        said = [row[-1] for row in rows if row[4] == kind]
        reasons = Counter(shorten(text) for text in said if text)
        text = "; ".join(f"{n} x {reason}" for reason, n in reasons.most_common())
        lines.append(f"{kind:14s}{sum(map(bool, said)):8d}{len(said):5d}   {text}")
    lines += ["", "{:16s}{:9s}{:9s}{:8s}{:>10s}   warning".format(*TITLES)]
    for name, kind, sensors, cov, what, gap, said in rows:
        if what != "no response":
            line = f"{name:16s}{kind:9s}{sensors:9s}{cov:8s}{gap:10.1f}"
            lines.append(f"{line}   {shorten(said)}".rstrip())
    text = "\n".join(lines) + "\n"
    print(text)
    (args.results / "real_trust.txt").write_text(text, encoding="utf-8")


TITLES = "response", "sensors", "channels", "noise", "peak (mm)"


def shorten(said):
    """Return a word or two for what the warning says."""
    words = {
        "sensor noise": "noise",
        "blink": "blink",
        "power line": "line",
        "stands alone": "electrode",
        "explains only": "explains little",
        "independent channels": "few channels",
        "is above": "fast",
    }
    return ", ".join(word for text, word in words.items() if text in said)


if __name__ == "__main__":
    main()

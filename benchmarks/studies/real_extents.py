"""How likely the extents of real responses are sources.

    python -m benchmarks.studies.real_extents   # writes results/real_extents.txt

The responses of ``benchmarks.comparison.recordings``: the probability of the likeliest
candidate in a window around the response, over the whole response, and before the
stimulus, where there should be no source.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import argparse

import mne

import mne_deepsif
from mne_deepsif.trust.candidates import default_probability

from ..comparison.methods import METHODS
from ..options import parse_args
from ..provenance import Lines
from .real_trust import find_cases


def likeliest(case):
    """Return the probability of the likeliest candidate in each of three windows."""
    stc = METHODS["DeepSIF"].prepare(case.problem)(case.evoked)
    windows = [case.window, (stc.times[0], stc.times[-1]), (stc.times[0], 0.0)]
    for window in windows:
        extents = mne_deepsif.estimate_extent(
            stc,
            case.problem.fwd,
            case.evoked,
            case.problem.noise_cov,
            windows=[window],
            min_probability=0.0,
        )
        yield max((extent.probability for extent in extents), default=0.0)


def main():
    """Print and store the probabilities of all responses."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args = parse_args(parser, smoke=True)
    mne.set_log_level("ERROR")
    lines = Lines()
    lines.say_provenance()
    lines.say(f"\nextents are listed from {default_probability():g} on")
    lines.say(f"\n{'':26s}{'in its window':>14s}{'whole':>8s}{'before':>8s}")
    cases = find_cases()
    for case in cases[1:2] if args.smoke else cases:
        name = f"{case.recording}, {case.sensors}"
        around, whole, before = likeliest(case)
        lines.say(f"{name:26s}{around:14.2f}{whole:8.2f}{before:8.2f}")
    lines.write(args.results / "real_extents.txt")


if __name__ == "__main__":
    main()

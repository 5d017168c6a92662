"""What a cap that is shifted as a whole costs, and what is said about it.

    python -m benchmarks.studies.shifted_caps    # writes results/shifted_caps.txt

The sources are those of ``geometry.py``, simulated with the right positions. The
fiducials are missing, so that only the names tell where the electrodes belong.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import argparse

import mne
import numpy as np

from mne_deepsif.head.template import make_template_bem, make_template_source_space

from ..options import parse_args
from ..provenance import as_lines, provenance
from .geometry import Cap, judge, make_info

CAPS = "biosemi64", "GSN-HydroCel-128"
SHIFTS = 10, 20, 30  # mm
SIDES = {
    "right": (1, 0, 0),
    "front": (0, 1, 0),
    "back": (0, -1, 0),
    "up": (0, 0, 1),
    "down": (0, 0, -1),
}


def shift(cap, vector):
    """Return errors (mm) of a cap's sources after a shift (mm), and what is said."""
    info = make_info(cap.names, cap.points + 1e-3 * np.array(vector))
    fwd = cap.forward(info)
    return 1e3 * cap.errors(info, fwd), judge(info, fwd)[0]


def main():
    """Shift, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args = parse_args(parser, smoke=True)
    mne.set_log_level("ERROR")
    src, bem = make_template_source_space(), make_template_bem(ico=3)
    lines = [*as_lines(provenance()), ""]
    titles = "cap", "mm", "to the", "mean (mm)", "largest", "said"
    lines.append("{:18s}{:>4s}  {:8s}{:>10s}{:>9s}   {}".format(*titles))
    for name in CAPS[:1] if args.smoke else CAPS:
        cap = Cap(name, src, bem)
        for size in SHIFTS[1:2] if args.smoke else SHIFTS:
            for side, vector in SIDES.items():
                errors, said = shift(cap, size * np.array(vector))
                lines.append(
                    f"{name:18s}{size:4d}  {side:8s}{errors.mean():10.1f}"
                    f"{errors.max():9.1f}   {said}"
                )
                print(lines[-1], flush=True)
    text = "\n".join(lines) + "\n"
    (args.results / "shifted_caps.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

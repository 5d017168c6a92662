"""Options that the scripts share: where results go, and the smallest run of all."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import tempfile
from pathlib import Path

from .provenance import ROOT

RESULTS = ROOT / "benchmarks" / "results"
# options of the one library that smoke runs share; its simulation takes half a minute
SMALL_LIBRARY = dict(
    sfreq=500.0,
    n_patches=1000,
    n_waveforms=100,
    background=16.0,
    papers_only=True,
    random_state=0,
)


def parse_args(parser, *, smoke=False):
    """Add ``--results`` to a parser, ``--smoke`` if asked for, and parse.

    Results of a smoke run go to a temporary folder unless another one is given.
    """
    parser.add_argument("--results", type=Path, help="folder for results and figures")
    if smoke:
        text = "the smallest size, to see that all works"
        parser.add_argument("--smoke", action="store_true", help=text)
    args = parser.parse_args()
    if args.results is None:
        temporary = smoke and args.smoke
        args.results = Path(tempfile.mkdtemp()) if temporary else RESULTS
    args.results.mkdir(parents=True, exist_ok=True)
    return args


def figures_folder(results):
    """Return where figures go: into the documentation, or with results elsewhere."""
    return ROOT / "doc" / "figures" if results == RESULTS else results

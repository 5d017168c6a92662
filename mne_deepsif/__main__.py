"""The command line: ``python -m mne_deepsif``, or ``mne-deepsif`` where installed."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import sys

from .cohort.commands import main

if __name__ == "__main__":
    sys.exit(main())

"""Many recordings: a BIDS dataset estimated by one command, and a group's average.

Also what the command line does with one recording (``mne-deepsif --help``).
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "group": ["group_statistics"],
        "run": ["run_cohort"],
        "settings": ["CohortSettings", "GroupSettings"],
    },
)

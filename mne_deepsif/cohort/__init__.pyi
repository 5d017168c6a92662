"""Where the names of the package are defined."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from .group import group_statistics as group_statistics
from .run import run_cohort as run_cohort
from .settings import CohortSettings as CohortSettings
from .settings import GroupSettings as GroupSettings

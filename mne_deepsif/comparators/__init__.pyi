"""Where the names of the package are defined."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from .cmem import apply_cmem as apply_cmem
from .fast_ires import apply_fast_ires as apply_fast_ires

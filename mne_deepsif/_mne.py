"""Names that MNE does not document, imported here and nowhere else; its quirks.

The exceptions are ``_validate_type``, ``_check_option`` and ``_check_fname`` of
:mod:`mne.utils`. Packages around MNE share them, and every module may use them.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import sys

from mne import make_forward_solution as _make_forward_solution
from mne.annotations import _annotations_starts_stops as annotations_starts_stops
from mne.bem import _ico_downsample as ico_downsample
from mne.forward import is_fixed_orient
from mne.io.constants import FIFF
from mne.proj import make_eeg_average_ref_proj, make_projector
from mne.utils.check import _check_compensation_grade as check_compensation_grade

__all__ = [
    "FIFF",
    "annotations_starts_stops",
    "check_compensation_grade",
    "ico_downsample",
    "is_fixed_orient",
    "make_eeg_average_ref_proj",
    "make_forward_solution",
    "make_projector",
    "update_info",
]


def update_info(info, **entries):
    """Set entries of an Info that MNE locks, in place."""
    with info._unlock():
        info.update(entries)


def make_forward_solution(*args, **kwargs):
    """Call :func:`mne.make_forward_solution`, and leave torch its number of threads.

    MNE's compiled functions start numba's threads. Through OpenMP, their number becomes
    that of torch, whatever OMP_NUM_THREADS or torch.set_num_threads asked for.
    """
    torch = sys.modules.get("torch")
    n_threads = None if torch is None else torch.get_num_threads()
    try:
        return _make_forward_solution(*args, **kwargs)
    finally:
        if n_threads is not None:
            torch.set_num_threads(n_threads)

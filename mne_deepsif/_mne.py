"""Names that MNE does not document, imported here and nowhere else.

The exceptions are ``_validate_type``, ``_check_option`` and ``_check_fname`` of
:mod:`mne.utils`. Packages around MNE share them, and every module may use them.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

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
    "make_projector",
    "update_info",
]


def update_info(info, **entries):
    """Set entries of an Info that MNE locks, in place."""
    with info._unlock():
        info.update(entries)

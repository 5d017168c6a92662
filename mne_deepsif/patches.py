"""Source patches; see :mod:`mne_deepsif.simulation.patches`."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from .simulation.patches import make_patches, patch_areas

__all__ = ["make_patches", "patch_areas"]

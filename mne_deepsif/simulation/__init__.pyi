"""Where the names of the package are defined."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from .ingredients import Library as Library
from .patches import make_patches as make_patches
from .patches import patch_areas as patch_areas
from .simulator import Simulator as Simulator
from .simulator import noise_std as noise_std

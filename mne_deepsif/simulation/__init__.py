"""Simulated brains: neural masses, patches, batches for training, recordings."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "ingredients": ["Library"],
        "patches": ["make_patches", "patch_areas"],
        "simulator": ["Simulator", "noise_std"],
    },
)

"""Inverse methods that the DeepSIF papers compare with: cMEM and FAST-IRES."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={"cmem": ["apply_cmem"], "fast_ires": ["apply_fast_ires"]},
)

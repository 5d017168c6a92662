"""The papers' regions in their connectome; see :mod:`mne_deepsif.simulation`."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from .simulation.connectome import NMM_994_INDEX

__all__ = ["NMM_994_INDEX"]

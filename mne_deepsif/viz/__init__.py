"""Figures of estimates, extents and trust reports."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

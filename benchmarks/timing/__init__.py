"""Timing: how long estimates take, and where the time goes."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

"""Time and memory of the package's ways to run, and where the time goes."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

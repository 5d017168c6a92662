"""Studies: what decided how the package works."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

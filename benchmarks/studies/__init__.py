"""Studies: what decided how the package works, and what it withstands."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

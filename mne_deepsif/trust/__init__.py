"""Whether you can trust an estimate."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

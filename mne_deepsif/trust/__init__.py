"""Whether an estimate is to be trusted."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

"""How the pretrained weights are made and released."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

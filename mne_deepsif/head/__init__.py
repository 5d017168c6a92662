"""The head: cortex, parcels, template, channels, leadfield."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

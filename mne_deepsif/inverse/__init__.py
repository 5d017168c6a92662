"""From sensor data to source estimates: models, operators, files."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

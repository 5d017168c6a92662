"""Making of what the package and its pages hold: weights, limits of trust, figures."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

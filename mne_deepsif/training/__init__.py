"""Training on simulated batches (torch and NumPy only)."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

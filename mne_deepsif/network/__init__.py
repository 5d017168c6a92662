"""The networks, what they read, and the minimum norm behind them (torch only)."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

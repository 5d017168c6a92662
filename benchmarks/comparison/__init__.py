"""Every method that a user would pick instead, on every scenario, in one command.

    python -m benchmarks.comparison [--quick | --full] [--jobs 2]

A cell is a scenario, a method with its settings, and a chunk of samples. It depends on
nothing else, and has a file of its own in the store.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

"""The ingredients of simulated data: parts that share nothing."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
from numpy.testing import assert_array_equal

from mne_deepsif.simulation import Library

SFREQ = 125.0


def test_split_shares_nothing():
    """Number everything: each number is in one of the two parts."""
    library = Library(
        patches=np.arange(100)[:, None],
        decay=np.arange(100.0)[:, None],
        waveforms=np.tile(np.arange(50.0)[:, None], (1, 8)),
        background=np.tile(np.arange(1000.0), (3, 1)),
        sfreq=SFREQ,
    )
    parts = library.split(0.2, random_state=0)
    for name, n_second in (("patches", 20), ("waveforms", 10)):
        ids = [getattr(part, name)[:, 0] for part in parts]
        assert len(ids[1]) == n_second
        assert_array_equal(np.sort(np.concatenate(ids)), getattr(library, name)[:, 0])
    times = [part.background[0] for part in parts]
    assert_array_equal(np.concatenate(times), np.arange(1000))
    assert len(times[1]) == 200
    for part in parts:
        assert part.sfreq == SFREQ
        assert_array_equal(part.decay, part.patches)
    assert_array_equal(library.split(0.2, 0)[1].patches, parts[1].patches)
    assert (library.split(0.2, 1)[1].patches != parts[1].patches).any()

"""How alike waveforms are."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np


def linear_correlation(true, estimated):
    """Compute Pearson's correlation of waveforms, row by row.

    Parameters
    ----------
    true, estimated : array of shape (..., n_times)
        The waveforms.

    Returns
    -------
    correlation : array of shape (...)
        Between -1 and 1; 0 where a waveform is constant or has NaN.
    """
    true = true - np.mean(true, axis=-1, keepdims=True)
    estimated = estimated - np.mean(estimated, axis=-1, keepdims=True)
    norm = np.linalg.norm(true, axis=-1) * np.linalg.norm(estimated, axis=-1)
    product = np.sum(true * estimated, axis=-1)
    return np.divide(product, norm, out=np.zeros_like(product), where=norm > 0)

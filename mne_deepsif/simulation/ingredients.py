"""The ingredients of simulated data, at one sampling rate (NumPy only)."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class Library:
    """Ingredients of the simulation, sampled at one rate.

    Parameters
    ----------
    patches : array of shape (n_patches, max_size)
        Parcels of each patch, the seed parcel first, padded with -1.
    decay : array of shape (n_patches, max_size)
        Amplitude of each parcel relative to the seed parcel, 0 where padded.
    waveforms : array of shape (n_waveforms, n_wave_times)
        Source waveforms, with a peak of size 1 in the middle.
    background : array of shape (n_parcels, n_background_times)
        Ongoing neural-mass activity, zero mean per parcel, common scale.
    sfreq : float
        Sampling rate of the waveforms and of the background (Hz).
    """

    patches: np.ndarray
    decay: np.ndarray
    waveforms: np.ndarray
    background: np.ndarray
    sfreq: float

    def split(self, fraction, random_state=None):
        """Split into two libraries that share no patch, waveform or background."""
        rng = np.random.default_rng(random_state)
        parts = {}
        for name, n_total in (
            ("patches", len(self.patches)),
            ("waveforms", len(self.waveforms)),
        ):
            order = rng.permutation(n_total)
            n_second = max(1, int(round(fraction * n_total)))
            parts[name] = order[n_second:], order[:n_second]
        n_times = self.background.shape[1]
        cut = n_times - max(1, int(round(fraction * n_times)))
        parts["background"] = slice(0, cut), slice(cut, n_times)
        return tuple(
            Library(
                patches=self.patches[parts["patches"][i]],
                decay=self.decay[parts["patches"][i]],
                waveforms=self.waveforms[parts["waveforms"][i]],
                background=self.background[:, parts["background"][i]],
                sfreq=self.sfreq,
            )
            for i in range(2)
        )

    def asdict(self):
        """Return the arrays by name, as ``np.savez`` takes them."""
        return asdict(self)

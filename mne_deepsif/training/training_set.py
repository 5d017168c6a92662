"""One file that holds everything that training reads."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np

from ..simulation.ingredients import Library
from .batches import TrainingLeadfield


def save_training_set(fname, library, leadfields, validation_leadfields=()):
    """Write everything that training reads into one ``.npz`` file.

    Parameters
    ----------
    fname : path-like
        File to write; gains and background are stored in half precision.
    library : Library
        See :class:`~mne_deepsif.simulation.Library`.
    leadfields, validation_leadfields : list of TrainingLeadfield
        Leadfields for training and for validation.
    """
    arrays = {f"library_{name}": value for name, value in library.asdict().items()}
    for kind, group in (("train", leadfields), ("validation", validation_leadfields)):
        for index, one in enumerate(group):
            scale = np.sqrt(np.mean(np.square(one.gain)))
            gain = np.asarray(one.gain / scale, np.float16)
            arrays[f"{kind}_{index:04d}_gain"] = gain
            if one.whitener is not None:
                arrays[f"{kind}_{index:04d}_whitener"] = np.float32(one.whitener)
    np.savez(fname, **arrays)


def read_training_set(fname):
    """Read what :func:`save_training_set` wrote.

    Returns
    -------
    library : Library
        The library.
    leadfields, validation_leadfields : list of TrainingLeadfield
        The leadfields.
    """
    with np.load(fname) as arrays:
        library = {
            name.removeprefix("library_"): arrays[name]
            for name in arrays
            if name.startswith("library_")
        }
        library["sfreq"] = float(library["sfreq"])
        groups = {
            kind: [
                TrainingLeadfield(
                    arrays[name], arrays.get(name.replace("gain", "whitener"))
                )
                for name in sorted(arrays)
                if name.startswith(kind) and name.endswith("gain")
            ]
            for kind in ("train", "validation")
        }
    return Library(**library), groups["train"], groups["validation"]

"""One file that holds everything that training generic weights reads.

Gains are kept as products of low rank, and most numbers as whole ones of 8 bits. So a
dozen heads fit into some 40 MB. (torch and NumPy only)
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import torch

from ..cache import whole_file
from .heads import Cortex, Head

_LARGEST = 127  # whole number of 8 bits
N_EEG, N_MEG = 80, 100  # ranks: channels are within 1 % of what they were


def compress_gains(gains, rank):
    """Write gains of many sensors as a product of low rank.

    Parameters
    ----------
    gains : array of shape (..., n_channels, n_places, 3)
        The gains.
    rank : int
        The rank of all of them together.

    Returns
    -------
    weights : array of shape (..., n_channels, rank)
        Weights of the sensors.
    patterns : array of shape (rank, n_places, 3)
        Patterns of the best approximation, strongest first.
    """
    *shape, n_places, _ = gains.shape
    rows = gains.reshape(-1, 3 * n_places).astype(float)
    rows /= np.sqrt(np.mean(np.square(rows)))
    _, vectors = np.linalg.eigh(rows @ rows.T)
    vectors = vectors[:, : -rank - 1 : -1]
    patterns = vectors.T @ rows
    rank = patterns.shape[0]
    return vectors.reshape(*shape, rank), patterns.reshape(rank, n_places, 3)


def pack(array, axis=None):
    """Return whole numbers of 8 bits and the scale that turns them into numbers.

    Parameters
    ----------
    array : array
        Numbers.
    axis : int | tuple of int | None
        Along which all have one scale.

    Returns
    -------
    whole : array of int8
        Whole numbers up to 127.
    scale : array
        What they are to be multiplied with.
    """
    scale = np.max(np.abs(array), axis=axis, keepdims=True) / _LARGEST
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    return np.round(array / scale).astype(np.int8), scale


def save_bundle(fname, cortex, heads):
    """Write a bundle.

    Parameters
    ----------
    fname : path-like
        The file, ``.npz``.
    cortex : dict
        Arrays as :class:`~mne_deepsif.training.heads.Cortex` describes them.
    heads : dict of dict
        By number: arrays as :class:`~mne_deepsif.training.heads.Head` describes them,
        and ``n_smoothings``, steps after which activity is as smooth as estimates are.
    """
    arrays = dict(cortex)
    for name in ("waveforms", "background"):
        arrays[name], arrays[f"{name}_scale"] = pack(cortex[name], 0)
    for number, head in heads.items():
        head = dict(head)
        for name, axis in (("eeg", (1, 2)), ("meg", (1, 2)), ("normals", None)):
            name = name if name == "normals" else f"{name}_patterns"
            head[name], head[f"{name}_scale"] = pack(head[name], axis)
        for name in ("eeg", "meg"):
            head[name] = head[name].astype(np.float16)
        arrays |= {f"{number:02d}/{name}": array for name, array in head.items()}
    with whole_file(fname) as part:
        np.savez_compressed(part, **arrays)


def read_bundle(fname, device="cpu"):
    """Read a bundle.

    Parameters
    ----------
    fname : path-like
        What :func:`save_bundle` wrote.
    device : str
        Where the tensors are.

    Returns
    -------
    cortex : Cortex
        What is the same for all heads.
    heads : dict of Head
        The heads by their number.
    n_smoothings : dict of int
        For each head, the steps after which activity is as smooth as estimates are.
    """
    with np.load(fname) as file:
        arrays = dict(file)

    def unpack(name, dtype=torch.float32):
        array = torch.as_tensor(arrays[name], device=device).to(dtype)
        if (scale := arrays.get(f"{name}_scale")) is not None:
            array = array * torch.as_tensor(scale, device=device).to(dtype)
        return array

    cortex = Cortex(
        neighbours=unpack("neighbours", torch.long),
        area=unpack("area"),
        parcel_areas=unpack("parcel_areas"),
        middles=arrays["middles"],
        profiles=unpack("profiles"),
        scales=tuple(arrays["scales"].tolist()),
        waveforms=unpack("waveforms", torch.half),
        background=unpack("background", torch.half),
    )
    heads, n_smoothings = {}, {}
    for number in sorted({name[:2] for name in arrays if name[2:3] == "/"}):
        tensors = {
            name: unpack(f"{number}/{name}")
            for name in ("eeg", "eeg_patterns", "meg", "meg_patterns", "normals", "rr")
        }
        tensors["normals"] /= tensors["normals"].norm(dim=2, keepdim=True)
        heads[int(number)] = Head(
            electrodes=arrays[f"{number}/electrodes"],
            caps=arrays[f"{number}/caps"],
            parcel=unpack(f"{number}/parcel", torch.long),
            **tensors,
        )
        n_smoothings[int(number)] = int(arrays[f"{number}/n_smoothings"])
    return cortex, heads, n_smoothings

"""Connectome: coupling weights and tract lengths between parcels."""

import io
import zipfile
from dataclasses import dataclass

import numpy as np
from scipy import sparse


@dataclass(frozen=True)
class Connectome:
    """Coupling between parcels.

    Parameters
    ----------
    weights : sparse array of shape (n_parcels, n_parcels)
        Coupling weights, rows are targets, columns sources.
    tract_lengths : sparse array of shape (n_parcels, n_parcels) | None
        Length of each tract (mm), on the same entries as ``weights``.
    centers : array of shape (n_parcels, 3) | None
        Centres of the parcels (m).
    region_labels : list of str | None
        Names of the parcels.
    """

    weights: sparse.csr_array
    tract_lengths: sparse.csr_array | None = None
    centers: np.ndarray | None = None
    region_labels: list | None = None

    @property
    def n_parcels(self):
        """Number of parcels."""
        return self.weights.shape[0]


def read_tvb_connectivity(fname, index=None):
    """Read a connectome in The Virtual Brain's zip format.

    Parameters
    ----------
    fname : path-like
        The zip file, with ``weights.txt``, ``tract_lengths.txt`` and ``centres.txt``.
    index : array of int, shape (n_parcels,) | None
        Regions to keep, in this order.

    Returns
    -------
    connectome : Connectome
        The connectome.
    """
    with zipfile.ZipFile(fname) as archive:
        weights = np.loadtxt(io.BytesIO(archive.read("weights.txt")))
        lengths = np.loadtxt(io.BytesIO(archive.read("tract_lengths.txt")))
        lines = archive.read("centres.txt").decode().split("\n")
    table = [line.split() for line in lines if line.strip()]
    centers = np.array([row[1:4] for row in table], float) / 1000
    names = [row[0] for row in table]
    index = np.arange(len(weights)) if index is None else np.asarray(index)
    weights = sparse.csr_array(weights[np.ix_(index, index)])
    lengths = lengths[np.ix_(index, index)]
    rows, columns = weights.nonzero()
    lengths = sparse.csr_array((lengths[rows, columns], (rows, columns)), weights.shape)
    return Connectome(weights, lengths, centers[index], [names[i] for i in index])

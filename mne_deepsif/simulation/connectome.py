"""Connectome: coupling weights and tract lengths between parcels."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mne.utils import _check_fname, _validate_type
from scipy import sparse
from scipy.spatial import cKDTree

# The papers' 994 regions in their 998-region connectome. Four of the regions have no
# vertex on fsaverage5, and the last four regions take their place.
NMM_994_INDEX = np.arange(994)
NMM_994_INDEX[[7, 325, 921, 949]] = 994, 997, 996, 995


@dataclass(frozen=True)
class Connectome:
    """Coupling between parcels.

    Parameters
    ----------
    weights : sparse array of shape (n_parcels, n_parcels)
        Coupling weights, not negative; rows are targets, columns sources.
    tract_lengths : sparse array of shape (n_parcels, n_parcels) | None
        Length of each tract (mm).
    centers : array of shape (n_parcels, 3) | None
        Centres of the parcels (m).
    region_labels : list of str | None
        Names of the parcels.
    """

    weights: sparse.csr_array
    tract_lengths: sparse.csr_array | None = None
    centers: np.ndarray | None = None
    region_labels: list | None = None

    def __post_init__(self):
        """Check the arrays."""
        matrices = (np.ndarray, sparse.sparray, sparse.spmatrix)
        _validate_type(self.weights, matrices, "weights")
        _validate_type(self.tract_lengths, (*matrices, None), "tract_lengths")
        n_parcels = self.weights.shape[0]
        for name in ("weights", "tract_lengths"):
            if getattr(self, name) is None:
                continue
            matrix = sparse.csr_array(getattr(self, name))
            object.__setattr__(self, name, matrix)
            if matrix.shape != (n_parcels, n_parcels):
                raise ValueError(
                    f"{name} must have the shape (n_parcels, n_parcels), here "
                    f"{(n_parcels, n_parcels)}, got {matrix.shape}."
                )
            if not np.all(np.isfinite(matrix.data)) or np.any(matrix.data < 0):
                raise ValueError(
                    f"{name} must be finite and not negative, got values from "
                    f"{matrix.data.min()} to {matrix.data.max()}."
                )

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
        Regions to keep, in this order; None keeps all. For the papers' 994 regions
        give ``mne_deepsif.connectome.NMM_994_INDEX``.

    Returns
    -------
    connectome : Connectome
        The connectome.
    """
    fname = _check_fname(fname, overwrite="read", must_exist=True, name="fname")
    tables = _read_tables(fname)
    weights, lengths, centers = _to_arrays(tables, fname)
    if index is None:
        index = np.arange(len(weights))
    index = np.asarray(index)
    if index.dtype.kind not in "iu" or index.min() < 0 or index.max() >= len(weights):
        raise ValueError(
            f"index must hold region numbers (int) from 0 to {len(weights) - 1}, the "
            f"regions of {fname}, got {index.min()} to {index.max()} ({index.dtype})."
        )
    weights = sparse.csr_array(weights[np.ix_(index, index)])
    lengths = _on_entries(lengths[np.ix_(index, index)], weights)
    names = [tables["centres"][i][0] for i in index]
    return Connectome(weights, lengths, centers[index] / 1000, names)


def _read_tables(fname):
    """Read the files of a zip as lists of lists of str."""
    if not zipfile.is_zipfile(fname):
        raise ValueError(f"fname must be a TVB connectivity zip file, got {fname}.")
    tables = dict()
    with zipfile.ZipFile(fname) as archive:
        names = {Path(name).stem: name for name in archive.namelist()}
        for name in ("weights", "tract_lengths", "centres"):
            if name not in names:
                raise ValueError(
                    f"{fname} has no {name}.txt, so it is not a TVB connectivity file. "
                    f"It has {archive.namelist()}."
                )
            with archive.open(names[name]) as file:
                lines = io.TextIOWrapper(file).read().splitlines()
            tables[name] = [line.split() for line in lines if line.strip()]
            if len({len(row) for row in tables[name]}) > 1:
                raise ValueError(f"{fname}: {name}.txt has rows of different lengths.")
    return tables


def _to_arrays(tables, fname):
    """Return weights, tract lengths and centres (mm) as arrays of one size."""
    regions = [row[1:4] for row in tables["centres"]]
    try:
        weights = np.array(tables["weights"], float)
        lengths = np.array(tables["tract_lengths"], float)
        centers = np.array(regions, float)
    except ValueError as error:
        raise ValueError(
            f"{fname} holds something else than numbers: {error}."
        ) from None
    n = len(centers)
    if not weights.shape == lengths.shape == (n, n) or centers.shape != (n, 3):
        raise ValueError(
            f"{fname} must have weights and tract_lengths of shape (n_regions, "
            f"n_regions) and n_regions centres, got {weights.shape}, {lengths.shape} "
            f"and {n} centres."
        )
    return weights, lengths, centers


def _on_entries(matrix, weights):
    """Keep a dense matrix where ``weights`` has entries, zeros included."""
    rows = np.repeat(np.arange(weights.shape[0]), np.diff(weights.indptr))
    data = matrix[rows, weights.indices]
    return sparse.csr_array((data, weights.indices, weights.indptr), weights.shape)


def make_distance_connectome(
    centers,
    hemi,
    *,
    length=0.01,
    n_neighbors=30,
    homotopic=0.1,
    strength=17.8,
):
    r"""Make a connectome by an exponential distance rule.

    Parameters
    ----------
    centers : array of shape (n_parcels, 3)
        Centres of the parcels (m), x from left to right.
    hemi : array of int, shape (n_parcels,)
        Hemisphere of each parcel, 0 left, 1 right.
    length : float
        Length constant of the rule (m).
    n_neighbors : int
        Number of nearest parcels of the same hemisphere that each parcel links to.
    homotopic : float
        Share of the total weight that lies on the links to the mirror parcels.
    strength : float
        Sum of the weights that enter a parcel, averaged over parcels.

    Returns
    -------
    connectome : Connectome
        The connectome. It is symmetric. Tracts are 1.25 times the straight distance.

    Notes
    -----
    Links to near parcels have the weight :math:`w_{ij} \propto e^{-d_{ij}/l}`, where
    :math:`d_{ij}` is the distance between the centres. The defaults are those of the
    papers' connectome: ``strength`` is its mean, ``n_neighbors`` its number of links,
    ``homotopic`` its share of weight between hemispheres, ``length`` its decay from 15
    to 40 mm. They give its activity without tuning. The table compares the two on the
    papers' 994 regions, in 16 networks of 4 s, for the three input settings. In each
    pair, the first number is for the papers' connectome, the second for this one.

    ============================= =========== =========== ===========
    ..                            .087, 1     .08, 1.7    .083, 1.5
    ============================= =========== =========== ===========
    mean PSP (mV)                 1.30 1.28   1.01 1.00   1.14 1.12
    its SD over parcels           .13  .06    .11  .05    .12  .06
    SD over time (mV)             .34  .34    .57  .57    .51  .50
    spikes/s of seeds at A = 3.55 1.54 1.60   .78  .76    1.10 1.10
    parcels with a spike in 4 s   .2 % .01 %  1.0 % .4 %  .9 % .3 %
    ============================= =========== =========== ===========

    Parcels differ less than in the papers' connectome, and fewer spike spontaneously,
    because the rule makes no hubs.
    """
    centers, hemi = _check_centers(centers, hemi)
    _check_rule(length, n_neighbors, homotopic, strength)
    within = _neighbor_weights(centers, hemi, length, n_neighbors)
    across = _mirror_links(centers, hemi)
    share = homotopic if across.nnz else 0.0
    weights = (1 - share) * _mean_strength(within) + share * _mean_strength(across)
    weights = sparse.csr_array(strength * weights)
    weights.sort_indices()
    rows = np.repeat(np.arange(len(hemi)), np.diff(weights.indptr))
    lengths = 1250 * np.linalg.norm(centers[rows] - centers[weights.indices], axis=1)
    lengths = sparse.csr_array(
        (lengths, weights.indices, weights.indptr), weights.shape
    )
    return Connectome(weights, lengths, centers)


def _check_centers(centers, hemi):
    centers, hemi = np.asarray(centers, float), np.asarray(hemi)
    shape = (len(hemi), 3) if hemi.ndim == 1 and hemi.size else None
    if centers.shape != shape:
        raise ValueError(
            "centers must have the shape (n_parcels, 3) and hemi (n_parcels,), got "
            f"{centers.shape} and {hemi.shape}."
        )
    if not np.all(np.isfinite(centers)) or np.ptp(centers, axis=0).max() > 1:
        raise ValueError(
            "centers must be finite and in metres, got values from "
            f"{centers.min():.3g} to {centers.max():.3g}. Divide by 1000 if in mm."
        )
    if not np.isin(hemi, (0, 1)).all():
        raise ValueError(f"hemi must be 0 (left) or 1 (right), got {np.unique(hemi)}.")
    return centers, hemi


def _check_rule(length, n_neighbors, homotopic, strength):
    _validate_type(n_neighbors, "int-like", "n_neighbors")
    if n_neighbors < 1:
        raise ValueError(f"n_neighbors must be at least 1, got {n_neighbors}.")
    values = dict(length=length, homotopic=homotopic, strength=strength)
    for name, value in values.items():
        _validate_type(value, "numeric", name)
    if not 0 < length < np.inf:
        raise ValueError(f"length must be positive and finite (m), got {length}.")
    if not 0 <= homotopic <= 1:
        raise ValueError(f"homotopic must be a share, from 0 to 1, got {homotopic}.")
    if not 0 <= strength < np.inf:
        raise ValueError(f"strength must be finite and not negative, got {strength}.")


def _neighbor_weights(centers, hemi, length, n_neighbors):
    """Weigh the links to the nearest parcels of the same hemisphere, symmetric."""
    n_parcels = len(centers)
    weights = sparse.csr_array((n_parcels, n_parcels))
    for side in (0, 1):
        (index,) = np.nonzero(hemi == side)
        if len(index) < 2:
            continue
        k = min(n_neighbors, len(index) - 1)
        distance, near = cKDTree(centers[index]).query(centers[index], k + 1)
        rows, columns = np.repeat(index, k), index[near[:, 1:].ravel()]
        # relative to the nearest: coarse parcellations must not underflow
        values = np.exp(-(distance[:, 1:] - distance[:, 1].min()) / length).ravel()
        weights += sparse.csr_array((values, (rows, columns)), (n_parcels, n_parcels))
    return sparse.csr_array(weights.maximum(weights.T))


def _mirror_links(centers, hemi):
    """Link each parcel with the one nearest its mirror image, symmetric."""
    n_parcels = len(centers)
    links = sparse.csr_array((n_parcels, n_parcels))
    left, right = (np.nonzero(hemi == side)[0] for side in (0, 1))
    if not len(left) or not len(right):
        return links
    middle = (centers[left, 0].mean() + centers[right, 0].mean()) / 2
    mirrored = centers * [-1, 1, 1] + [2 * middle, 0, 0]
    for here, there in ((left, right), (right, left)):
        _, near = cKDTree(centers[there]).query(mirrored[here])
        entries = np.ones(len(here)), (here, there[near])
        links += sparse.csr_array(entries, (n_parcels, n_parcels))
    return sparse.csr_array(links.maximum(links.T))


def _mean_strength(weights):
    """Scale to a mean row sum of one."""
    total = weights.sum()
    return weights * (weights.shape[0] / total) if total else weights

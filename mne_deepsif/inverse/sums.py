"""Sums of activity, without what they do not need."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
import torch
from scipy import sparse

from ..network.device import sparse_tensor

_DENSE = 0.1  # share of numbers that are not 0, from which a matrix is a dense one
_WINDOWS = 16  # windows whose patches are summed at once
_AT_ONCE = 2**18  # numbers: 1 MB, which stay in the processor's cache


class Sums:
    """Sums of activity to estimate.

    An estimate is linear in the weights of the data, and all fine patterns of a parcel
    have one variance. So what a sum takes from a parcel is one *term*: a topography's
    product with the weights, times that variance. A patch is a term as well. Terms are
    added over priors before they are added to sums.

    Parameters
    ----------
    prior : CorticalPrior
        The prior of the leadfield.
    mixing : array or sparse array of shape (n_rows, n_patterns) | None
        The sums: of fine patterns and activity of whole parcels, one after the other,
        or of parcels. None is each pattern by itself.
    has_patterns : bool
        Whether the columns of ``mixing`` are patterns, not parcels.
    coefficients : csr_array of shape (n_patches, n_columns)
        What makes up the patches that a source may be.
    """

    def __init__(self, prior, mixing, has_patterns, coefficients):
        n_fine, n_parcels = prior.fine.shape[1], prior.n_parcels
        if mixing is None:
            mixing = sparse.eye_array(n_fine + n_parcels * has_patterns)
        fine = patch = sparse.csc_array(mixing)
        self.n_rows = fine.shape[0]
        patches = (coefficients @ fine.T).tocsr()
        self._patches = [
            torch.as_tensor(one, device=prior.fine.device)
            for one in (
                patches.indptr.astype(np.int64),
                patches.indices.astype(np.int64),
                patches.data.astype(np.float32),
            )
        ]
        if has_patterns:
            fine, patch = fine[:, :n_fine], fine[:, n_fine:]
        profiles = sparse.csr_array(prior.profiles.cpu().numpy())
        patch = sparse.csc_array(patch @ profiles)
        active = np.flatnonzero(np.diff(patch.indptr))
        parcel = prior.parcel.cpu().numpy()
        spread, owner, fine = _merge(fine, parcel, n_parcels)
        device = prior.fine.device
        self._gain = torch.cat(
            [
                sparse_tensor(spread.T, device) @ prior.fine.T,
                prior.patch.T[torch.as_tensor(active, device=device)],
            ]
        ).T.contiguous()
        owner = np.concatenate([owner, n_parcels + active])
        self._owner = torch.as_tensor(owner, device=device)
        matrix = sparse.hstack([fine, patch[:, active]], format="csr")
        self._given = matrix
        self._matrix = self._to_tensor()

    def _to_tensor(self):
        device, matrix = self._gain.device, self._given
        if matrix.nnz > _DENSE * np.prod(matrix.shape):
            return torch.as_tensor(matrix.toarray(), device=device).float()
        return sparse_tensor(matrix, device)

    def __getstate__(self):
        """Leave out a tensor that torch cannot copy if it is sparse."""
        return {**vars(self), "_matrix": None}

    def __setstate__(self, state):
        """Make it again."""
        vars(self).update(state)
        self._matrix = self._to_tensor()

    def estimate(self, weights, shares, which, variances):
        """Estimate the sums: the mean over several priors for each window.

        Parameters
        ----------
        weights : tensor of shape (n_windows, n_priors, n_modes, n_times)
            Data divided by their covariance, with each prior.
        shares : tensor of shape (n_windows, n_priors)
            What each prior counts; those of 0 take no time.
        which : tensor of int, shape (n_windows, n_priors)
            Places of the priors in ``variances``.
        variances : tensor of shape (n_variances, 2 * n_parcels)
            Prior variances.

        Returns
        -------
        sums : tensor of shape (n_windows, n_times, n_rows)
            The sums.
        """
        n_windows, _, n_modes, n_times = weights.shape
        n_terms = len(self._owner)
        variances = variances.index_select(1, self._owner)
        terms = weights.new_zeros(n_windows, n_times * n_terms)
        used = shares.nonzero()
        for some in used.split(max(1, _AT_ONCE // max(1, n_times * n_terms))):
            window, prior = some.T
            rows = weights[window, prior] * shares[window, prior, None, None]
            part = (rows.mT.reshape(-1, n_modes) @ self._gain).unflatten(
                0, (-1, n_times)
            )
            part *= variances[which[window, prior], None]
            terms.index_add_(0, window, part.flatten(1))
        terms = terms.view(n_windows * n_times, n_terms).T.contiguous()
        return (self._matrix @ terms).T.unflatten(0, (n_windows, n_times))

    def of_patches(self, which, amplitudes):
        """Sum the activity of patches.

        Parameters
        ----------
        which : tensor of int, shape (n_windows, n_kept)
            The patches.
        amplitudes : tensor of shape (n_windows, n_kept, n_times)
            Their activity.

        Returns
        -------
        sums : tensor of shape (n_windows, n_times, n_rows)
            The sums.
        """
        n_windows, n_kept, n_times = amplitudes.shape
        if n_windows > _WINDOWS:
            parts = (x.split(_WINDOWS) for x in (which, amplitudes))
            return torch.cat([self.of_patches(*p) for p in zip(*parts, strict=True)])
        pointers, columns, values = self._patches
        first = pointers[which.flatten()]
        n_each = pointers[which.flatten() + 1] - first
        row = torch.repeat_interleave(n_each)  # for each coefficient of the patches
        place = torch.arange(len(row), device=row.device)
        place += (first - n_each.cumsum(0) + n_each)[row]
        target = (row // n_kept) * self.n_rows + columns[place]
        parts = values[place, None] * amplitudes.flatten(0, 1)[row]
        sums = parts.new_zeros(n_windows * self.n_rows, n_times)
        sums.index_add_(0, target, parts)
        return sums.view(n_windows, self.n_rows, n_times).mT

    def kernels(self, variances):
        """Compute what turns weights of the data into sums, for each prior.

        Parameters
        ----------
        variances : tensor of shape (n_priors, 2 * n_parcels)
            Prior variances.

        Returns
        -------
        kernels : tensor of shape (n_priors, n_rows, n_modes)
            ``kernels[i] @ weights[j, i]`` are the sums that :meth:`estimate` averages.
        """
        variances = variances.index_select(1, self._owner).T
        terms = variances[..., None] * self._gain.T[:, None]
        kernels = self._matrix @ terms.flatten(1)
        return kernels.unflatten(1, (len(variances.T), -1)).transpose(0, 1)


def _merge(fine, parcel, n_parcels):
    """Merge the fine patterns of a parcel in each sum, or leave out those of no use.

    Parameters
    ----------
    fine : sparse array of shape (n_rows, n_fine)
        Sums of fine patterns.
    parcel : array of int, shape (n_fine,)
        Their parcels.
    n_parcels : int
        Number of parcels.

    Returns
    -------
    spread : sparse array of shape (n_fine, n_terms)
        Fine patterns of the terms: as few terms as there can be.
    owner : array of int, shape (n_terms,)
        Their parcels.
    matrix : sparse array of shape (n_rows, n_terms)
        The sums of terms; ``matrix @ spread.T`` is ``fine``.
    """
    fine = fine.tocoo()
    row, column = fine.coords
    pairs, place = np.unique(row * n_parcels + parcel[column], return_inverse=True)
    used = np.unique(column)
    n_rows, n_fine = fine.shape
    if len(used) <= len(pairs):
        matrix = fine.tocsc()[:, used]
        spread = sparse.eye_array(n_fine, format="csc")[:, used]
        return spread, parcel[used], matrix
    spread = sparse.coo_array((fine.data, (column, place)), (n_fine, len(pairs)))
    each = np.arange(len(pairs)), np.ones(len(pairs))
    row, owner = np.divmod(pairs, n_parcels)
    matrix = sparse.coo_array((each[1], (row, each[0])), (n_rows, len(pairs)))
    return spread, owner, matrix

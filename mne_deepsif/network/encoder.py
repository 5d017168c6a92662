"""Turn sensor data into the input of a network (torch only).

Training and estimation both use :func:`encode_windows`.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from typing import NamedTuple

import torch
from torch import nn

# Kernel regularisations in units of the mean eigenvalue of the Gram matrix: MNE's
# lambda² = 1/SNR². The first suits averages of SNR 3, the second clean data.
REGULARIZATIONS = (0.1, 0.003)
N_KERNELS = len(REGULARIZATIONS)
_FEW = 32  # patterns
N_SCALES = 3  # sizes of the sources that a scan looks for


def backprojection_kernels(gain_white, regularizations=REGULARIZATIONS):
    """Compute sLORETA-normalised minimum-norm kernels of a whitened leadfield.

    Parameters
    ----------
    gain_white : tensor of shape (n_channels, n_parcels)
        Whitened leadfield; ``n_channels`` is its rank.
    regularizations : tuple of float
        Regularisation of each kernel in units of ``trace(G G^T) / n_channels``.

    Returns
    -------
    kernels : tensor of shape (n_kernels * n_parcels, n_channels)
        The kernels, one below the other. A parcel without gain gets zero rows.
    """
    gram = gain_white @ gain_white.T
    unit = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    unit *= torch.trace(gram) / len(gram)
    kernels = []
    for regularization in regularizations:
        kernel = torch.linalg.solve(gram + regularization * unit, gain_white)
        resolution = (kernel * gain_white).sum(0)
        tiny = 1e-6 * resolution.max()
        scale = torch.where(resolution > tiny, resolution.clamp_min(tiny).rsqrt(), 0.0)
        kernels.append((kernel * scale).T)
    return torch.cat(kernels)


def principal_components(data, n_components, exact=True):
    """Split windows into their strongest spatial patterns and their time courses.

    Parameters
    ----------
    data : tensor of shape (n_batch, n_channels, n_times)
        Whitened data.
    n_components : int
        Number of components to keep.
    exact : bool
        If False, two steps of subspace iteration replace the eigenvectors. This is
        several times faster, and within 0.1 % of the power that the best ones hold.

    Returns
    -------
    patterns : tensor of shape (n_batch, n_channels, n_components)
        Patterns scaled by their singular values, strongest first; zero beyond the rank.
    courses : tensor of shape (n_batch, n_components, n_times)
        Orthonormal time courses. ``patterns @ courses`` is the best approximation of
        ``data`` of that rank.
    """
    n_channels, n_times = data.shape[1:]
    n_kept = min(n_components, n_channels, n_times)
    wide = n_channels < n_times  # the smaller Gram matrix gives the same components
    square = data @ data.mT if wide else data.mT @ data
    if exact:
        values, vectors = torch.linalg.eigh(square)
    else:
        values, vectors = _leading(square, n_kept + 8)
    sizes = values[:, -n_kept:].flip(-1).clamp_min(0).sqrt()
    vectors = vectors[:, :, -n_kept:].flip(-1)
    if wide:
        patterns = vectors * sizes[:, None]
        seen = sizes > 1e-6 * sizes[:, :1]
        inverse = torch.where(seen, sizes, torch.inf).reciprocal()
        courses = (vectors * inverse[:, None]).mT @ data
    else:
        patterns, courses = data @ vectors, vectors.mT
    missing = n_components - n_kept
    patterns = nn.functional.pad(patterns, (0, missing))
    return patterns, nn.functional.pad(courses, (0, 0, 0, missing))


def _leading(square, n_vectors, n_iterations=2):
    """Approximate the leading eigenvalues and vectors of a batch of matrices."""
    size = square.shape[-1]
    if size <= n_vectors:
        return torch.linalg.eigh(square)
    options = dict(dtype=square.dtype, device=square.device)
    index = torch.arange(size, **options)[:, None] + 0.5
    start = torch.cos(torch.pi / size * index * torch.arange(n_vectors, **options))
    basis = start.expand(len(square), -1, -1)
    for _ in range(n_iterations):
        basis = _orthonormal(square @ basis)
    values, vectors = torch.linalg.eigh(basis.mT @ square @ basis)
    return values, basis @ vectors


def _orthonormal(vectors):
    """Return an orthonormal basis of what a few columns span.

    The Cholesky factor of their products gives it: a batch of these is quick on any
    device, unlike Householder's reflections.
    """
    columns = vectors.double()
    columns = columns / columns.norm(dim=1, keepdim=True).clamp_min(1e-300)
    products = columns.mT @ columns
    products.diagonal(dim1=1, dim2=2).add_(1e-13)
    factor = torch.linalg.cholesky_ex(products)[0]
    basis = torch.linalg.solve_triangular(factor.mT, columns, upper=True, left=False)
    return basis.to(vectors.dtype)


def encode(data, kernels=None, n_kernels=N_KERNELS):
    """Turn sensor data into the input of a network.

    Without kernels (``encoder="sensors"``), the time mean of each channel is removed.
    Then all channels are divided by their largest absolute value, as published. With
    kernels (``encoder="backprojection"``), the back-projection through each kernel is
    divided by its size: the root of its power, summed over times and averaged over
    parcels.

    Parameters
    ----------
    data : tensor of shape (n_batch, n_channels, n_times)
        Without kernels: sensor data in SI units. With kernels: whitened data or their
        patterns (:func:`principal_components`), which have the same size.
    kernels : tensor of shape (n_kernels * n_parcels, n_channels) | None
        See :func:`backprojection_kernels`.
    n_kernels : int
        The number of kernels in ``kernels``.

    Returns
    -------
    X : tensor of shape (n_batch, n_times, n_features)
        Network input, without any unit.
    """
    X = data.mT
    if kernels is None:
        X = X - X.mean(1, keepdim=True)
        size = X.abs().amax((1, 2), keepdim=True)
        return X / torch.where(size > 0, size, 1.0)
    return _backproject(X, kernels, n_kernels)[0]


def _backproject(X, kernels, n_kernels=N_KERNELS):
    """Project (n_batch, n_times, n_channels) back, and divide by the size of each.

    Also return the sizes, (n_batch, 1, n_kernels, 1); 1 where there are no data.
    """
    X = nn.functional.linear(X.contiguous(), kernels)
    blocks = X.unflatten(2, (n_kernels, -1))
    size = torch.linalg.vector_norm(blocks, dim=(1, 3), keepdim=True)
    size = size / blocks.shape[3] ** 0.5
    size = torch.where(size > 0, size, 1.0)
    blocks /= size  # X is ours: no copy needed
    return X, size


def scan(patterns, kernels):
    """Scan patterns of data with topographies of sources, some in each parcel.

    Parameters
    ----------
    patterns : tensor of shape (n_batch, n_channels, n_components)
        Patterns of the principal components.
    kernels : tensor of shape (n_most, n_channels, N_SCALES * n_parcels)
        See :meth:`CorticalPrior.scan_kernels`.

    Returns
    -------
    scores : tensor of shape (n_batch, n_components, N_SCALES * n_parcels)
        How large each pattern is for the best topography of each parcel, divided by the
        root mean square over components, scales and parcels.
    """
    rows = patterns.mT.flatten(0, 1)
    scores = []
    # small enough for the processor's cache
    for kernel in kernels.chunk(N_SCALES if len(rows) > _FEW else 1, 2):
        score = (rows @ kernel[0]).abs_()
        for other in kernel[1:]:  # the largest so far
            score = torch.maximum(score, (rows @ other).abs_())
        scores.append(score)
    scores = torch.cat(scores, 1).unflatten(0, (len(patterns), -1))
    size = torch.linalg.vector_norm(scores, dim=(1, 2), keepdim=True)
    size = size / scores.shape[2] ** 0.5
    return scores / torch.where(size > 0, size, 1.0)


class Encoded(NamedTuple):
    """Windows as a network reads them.

    Attributes
    ----------
    X : tensor of shape (n_batch, n_components or n_times, n_features)
        The network's input. Scores of a scan follow after the other features.
    data : tensor of shape (n_batch, rank or n_channels, n_components or n_times)
        What the estimate has to explain: the patterns of the principal components, or
        the channels without their means.
    courses : tensor of shape (n_batch, n_components, n_times) | None
        Time courses of the components; None where the network reads all times, and for
        windows of several lengths.
    features : tensor of shape (n_batch, n_components, width) | None
        What the network's first layer makes of ``X``, if there is an embedding.
    """

    X: torch.Tensor
    data: torch.Tensor
    courses: torch.Tensor | None
    features: torch.Tensor | None = None


def encode_windows(
    data,
    kernels=None,
    n_components=None,
    *,
    scanning=None,
    embedding=None,
    whitener=None,
    exact=True,
):
    """Turn windows of sensor data into the input of a network.

    Training and estimation both use this function, and no other.

    Parameters
    ----------
    data : tensor of shape (n_batch, n_channels, n_times) | list of tensor
        The windows. With kernels: whitened data, or data that ``whitener`` whitens;
        a list holds windows of several lengths. Without kernels: the channels in any
        unit.
    kernels : tensor of shape (n_kernels * n_parcels, rank) | None
        See :func:`backprojection_kernels`. With None, the network reads channels.
    n_components : int | None
        Number of principal components that represent the times. Only with kernels.
    scanning : tensor of shape (n_most, rank, N_SCALES * n_parcels) | None
        Kernels of :func:`scan`, for networks that read its scores as well.
    embedding : tensor of shape (n_kernels, rank, width) | None
        The network's first layer after each kernel, see
        :meth:`CompactNetwork.embed_kernels`.
    whitener : tensor of shape (rank, n_channels) | None
        Whitens the data. None if they are white already.
    exact : bool
        See :func:`principal_components`.

    Returns
    -------
    encoded : Encoded
        Input of the network, and what else the estimate needs, in single precision.
    """
    if kernels is None:
        data = (data - data.mean(-1, keepdim=True)).float()
        return Encoded(encode(data), data, None)
    parts = [data] if torch.is_tensor(data) else data
    if whitener is not None:
        parts = [whitener @ part for part in parts]
    parts = [principal_components(part, n_components, exact) for part in parts]
    patterns = torch.cat([patterns for patterns, _ in parts]).float()
    courses = parts[0][1].float() if len(parts) == 1 else None
    X, size = _backproject(patterns.mT, kernels)
    features = None
    if embedding is not None:
        features = (patterns.mT[:, :, None] / size).flatten(2) @ embedding.flatten(0, 1)
    if scanning is not None:
        X = torch.cat([X, scan(patterns, scanning)], 2)
    return Encoded(X, patterns, courses, features)

"""Source patches: seed parcels and the parcels around that share their waveform."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np

# Distance at which the activity of a patch has fallen to one half (m), from the papers.
HALF_AMPLITUDE = (0.04, 0.06)
LAG = (0.01, 0.05)  # s, the delay between patches that share a waveform


def make_patches(seeds, adjacency, centers, random_state=None):
    """Grow source patches around seed parcels, as the papers do.

    A patch is its seed parcel, the seed's neighbours and some parcels of the second
    layer. Half of the patches, chosen at random, also get some parcels of the third
    layer. Each candidate is kept with a probability that rises with the absolute cosine
    between its direction and a random growth direction. Then holes are filled, and
    parcels with a single neighbour in the patch are dropped.

    Parameters
    ----------
    seeds : array of int, shape (n_patches,)
        Seed parcels.
    adjacency : sparse array of shape (n_parcels, n_parcels)
        Which parcels touch.
    centers : array of shape (n_parcels, 3)
        Centres of the parcels (m).
    random_state : int | None
        Seed of the random choices.

    Returns
    -------
    patches : array of int, shape (n_patches, max_size)
        Parcels of each patch, the seed first, padded with -1.
    decay : array of shape (n_patches, max_size)
        ``exp(-d² / 2 s²)`` with the distance ``d`` to the seed's centre and half
        amplitude at 40 to 60 mm (random per patch); 0 where padded.
    """
    rng = np.random.default_rng(random_state)
    seeds = np.asarray(seeds)
    masks = [
        _grow_patches(chunk, adjacency, centers, rng)
        for chunk in np.array_split(seeds, max(1, len(seeds) // 2000))
    ]
    return _list_patches(np.concatenate(masks), seeds, centers, rng)


def _grow_patches(seeds, adjacency, centers, rng):
    """Return masks of shape (n_patches, n_parcels)."""
    adjacency = adjacency.astype(np.float32)
    degree = np.asarray(adjacency.sum(1)).ravel()
    seed_mask = np.zeros((len(seeds), len(centers)), bool)
    seed_mask[np.arange(len(seeds)), seeds] = True

    def touching(mask):
        return mask.astype(np.float32) @ adjacency  # number of neighbours in the mask

    first = touching(seed_mask) > 0
    cosine = _growth_cosine(seeds, first, centers, rng)
    deep = rng.random(len(seeds)) < 0.5
    inner = seed_mask | first
    second = (touching(first) > 0) & ~inner
    second &= _keep(cosine, second, np.where(deep, 0.1, 0.0), rng)
    third = (touching(second) > 0) & ~inner & ~second & deep[:, None]
    third &= _keep(cosine, third, np.full(len(seeds), -0.15), rng)
    mask = inner | second | third
    mask |= touching(mask) > np.maximum(degree - 1.5, 0.5)  # at most one gap around
    mask &= (touching(mask) > 1.5) | seed_mask
    return mask


def _growth_cosine(seeds, first, centers, rng):
    """Return |cos| between each parcel's direction and a random growth direction."""
    lone = ~first.any(1)
    chosen = np.where(first, rng.random(first.shape), -1).argmax(1)
    chosen[lone] = seeds[lone]

    def direction(points):
        vectors = points - centers[seeds].reshape(-1, *[1] * (points.ndim - 2), 3)
        norm = np.linalg.norm(vectors, axis=-1, keepdims=True)
        return vectors / np.where(norm > 0, norm, 1)

    growth = direction(centers[chosen])
    return np.abs(np.einsum("npk,nk->np", direction(centers[None]), growth))


def _keep(cosine, candidates, bias, rng):
    """Draw which candidates stay; the cosine is stretched to [0, 1] per patch."""
    low = np.where(candidates, cosine, np.inf).min(1, keepdims=True)
    high = np.where(candidates, cosine, -np.inf).max(1, keepdims=True)
    span = np.where(high > low, high - low, 1)
    return rng.random(cosine.shape) < (cosine - low) / span + bias[:, None]


def _list_patches(masks, seeds, centers, rng):
    """Turn masks into padded lists with the seed first, and their decay."""
    sizes = masks.sum(1)
    patches = np.full((len(masks), sizes.max()), -1, np.int16)
    rank = masks.astype(np.int8)
    rank[np.arange(len(seeds)), seeds] = 2
    order = np.argsort(-rank, axis=1, kind="stable")[:, : sizes.max()]
    filled = np.arange(sizes.max()) < sizes[:, None]
    patches[filled] = order[filled]
    distance = np.linalg.norm(centers[order] - centers[seeds][:, None], axis=-1)
    width = 0.8493 * rng.uniform(*HALF_AMPLITUDE, (len(masks), 1))  # half at 1.1774 s
    decay = np.where(filled, np.exp(-(distance**2) / (2 * width**2)), 0)
    return patches, decay.astype(np.float32)


def patch_areas(patches, areas):
    """Compute the areas of patches.

    Parameters
    ----------
    patches : array of int, shape (n_patches, max_size)
        Parcels of each patch, padded with -1, as :func:`make_patches` returns them.
    areas : array of shape (n_parcels,)
        Areas of the parcels (m²), e.g. ``parcels.areas``.

    Returns
    -------
    extents : array of shape (n_patches,)
        Area of each patch (m²; times 1e4 in cm²).
    """
    patches, areas = np.atleast_2d(patches), np.asarray(areas, float)
    return np.where(patches >= 0, areas[patches], 0).sum(1)

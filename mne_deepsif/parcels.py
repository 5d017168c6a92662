"""Parcels: near-equal pieces of the template's cortex, and their way to a subject."""

# License: BSD-3-Clause

from dataclasses import dataclass
from pathlib import Path

import mne
import numpy as np
from mne.io.constants import FIFF
from mne.utils import _validate_type, logger, warn
from scipy import sparse

from .template import SUBJECT, _cached, _read_nilearn, make_template_subject

_VERSION = 2  # raise it when the construction changes: the cache is keyed by it
# mm. The map is a group average, so only 30 % of the medial wall is exactly 0; below
# 1.2 mm lie 71 % of it, and 0.1 % of the cortex (against one subject's aparc).
_MIN_THICKNESS = 1.2


@dataclass(frozen=True)
class Parcels:
    """A parcellation of a template's cortex.

    Attributes
    ----------
    subject : str
        The subject whose vertices are numbered.
    mapping : array of shape (n_vertices_lh + n_vertices_rh,)
        Parcel of each vertex, -1 where there is none (medial wall).
    areas : array of shape (n_parcels,)
        Area on the white surface in m².
    centers : array of shape (n_parcels, 3)
        The parcel's vertex nearest its mean, MRI (surface RAS) coordinates in m.
    adjacency : csr_array of shape (n_parcels, n_parcels)
        True where two parcels touch; the diagonal is empty.
    n_vertices_lh : int
        Number of vertices in the left hemisphere.
    """

    subject: str
    mapping: np.ndarray
    areas: np.ndarray
    centers: np.ndarray
    adjacency: sparse.csr_array
    n_vertices_lh: int = 10242

    @property
    def n_parcels(self):
        """Number of parcels."""
        return len(self.areas)

    @property
    def hemi(self):
        """Hemisphere of each parcel, array of shape (n_parcels,): 0 left, 1 right."""
        hemi = np.zeros(self.n_parcels, int)
        right = self.mapping[self.n_vertices_lh :]
        hemi[right[right >= 0]] = 1
        return hemi

    def by_hemi(self):
        """Return the mapping as a list of two arrays (lh, rh)."""
        return np.split(self.mapping, [self.n_vertices_lh])

    def to_labels(self):
        """Return the parcels as labels.

        Returns
        -------
        labels : list of Label
            One label per parcel, in the parcels' order.
        """
        labels = []
        for parcel, hemi in enumerate(self.hemi):
            vertices = np.flatnonzero(self.by_hemi()[hemi] == parcel)
            name = ("lh", "rh")[hemi]
            labels.append(
                mne.Label(
                    vertices,
                    hemi=name,
                    name=f"parcel{parcel:04d}-{name}",
                    subject=self.subject,
                )
            )
        return labels


# --------------------------------------------------------------- construction


def make_template_parcels(n_parcels=994):
    """Cut the template's white surface into contiguous parcels of similar area.

    Parameters
    ----------
    n_parcels : int
        Number of parcels in both hemispheres together.

    Returns
    -------
    parcels : Parcels
        Parcels of ``fsaverage5``, lh first. The medial wall has none. The result
        is deterministic and cached on disk.
    """
    _validate_type(n_parcels, "int", "n_parcels")
    if not 2 <= n_parcels <= 4000:
        raise ValueError(f"n_parcels must be from 2 to 4000, got {n_parcels}.")
    mapping = _cached(
        f"{SUBJECT}-parcels",
        [_VERSION, int(n_parcels)],
        ".npy",
        np.load,
        np.save,
        lambda: _cut_template(n_parcels),
    )
    return _build_parcels(SUBJECT, mapping, *_template_surfaces())


def _template_surfaces():
    """Return vertices (m) and triangles of the template's white surface."""
    white = [_read_nilearn("white", hemi) for hemi in ("lh", "rh")]
    return [rr.astype(float) / 1e3 for rr, _ in white], [tris for _, tris in white]


def _cut_template(n_parcels):
    rrs, triss = _template_surfaces()
    cortex = [_cortex_mask(h, tris) for h, tris in zip(("lh", "rh"), triss)]
    areas = [_vertex_areas(*surf) for surf in zip(rrs, triss)]
    total = [area[keep].sum() for area, keep in zip(areas, cortex)]
    n_left = int(np.clip(round(n_parcels * total[0] / sum(total)), 1, n_parcels - 1))
    mapping, start = [], 0
    for rr, tris, keep, n in zip(rrs, triss, cortex, (n_left, n_parcels - n_left)):
        part = np.full(len(rr), -1, np.int32)
        part[keep] = start + _cut_surface(rr, tris, keep, n)
        mapping.append(part)
        start += n
    return np.concatenate(mapping)


def _cortex_mask(hemi, tris):
    (thickness,) = _read_nilearn("thick", hemi)
    cortex = thickness > _MIN_THICKNESS
    for value in (False, True):  # fill holes in the wall, then lone bits of cortex
        keep = np.flatnonzero(cortex == value)
        graph = _edges(tris, len(cortex))[keep][:, keep]
        _, part = sparse.csgraph.connected_components(graph, directed=False)
        cortex[keep[part != np.bincount(part).argmax()]] = not value
    return cortex


def _edges(tris, n, values=None):
    """Make the symmetric matrix of a mesh's edges."""
    i, j = np.concatenate([tris[:, [0, 1]], tris[:, [1, 2]], tris[:, [2, 0]]]).T
    lo, hi = np.unique(np.sort([i, j], axis=0), axis=1)
    values = np.ones(len(lo)) if values is None else values(lo, hi)
    graph = sparse.csr_array((values, (lo, hi)), shape=(n, n))
    return (graph + graph.T).tocsr()


def _vertex_areas(rr, tris):
    a, b, c = (rr[tris[:, ii]] for ii in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    return np.bincount(tris.ravel(), np.repeat(area / 3, 3), minlength=len(rr))


def _cut_surface(rr, tris, keep, n_parcels, n_iter=120):
    """Cut one hemisphere by Lloyd's algorithm with geodesic, weighted cells.

    Cell k is the set of vertices v that minimise d(v, seed_k) + offset_k, which is
    a subtree of shortest paths and therefore contiguous. Cells that are too large
    get a larger offset; seeds move to the middle of their cells.
    """
    def length(i, j):
        return np.linalg.norm(rr[i] - rr[j], axis=1)

    graph = _edges(tris, len(rr), length)[keep][:, keep]
    area = _vertex_areas(rr, tris)[keep]
    pos = rr[keep]
    goal = area.sum() / n_parcels
    seeds = _spread_seeds(graph, n_parcels)
    offset = np.zeros(n_parcels)
    best = np.inf
    for it in range(n_iter):
        cells = _weighted_cells(graph, seeds, offset)
        size = np.bincount(cells, area, minlength=n_parcels)
        spread = size.std() / goal
        if spread < best:
            best, result = spread, cells
        if it < n_iter // 2:
            seeds = _middles(pos, area, cells, n_parcels)
        offset += 0.15 * np.sqrt(goal) * (size / goal - 1)
        offset -= offset.mean()
    result = _trade_vertices(graph, area, result, n_parcels)
    return result


def _spread_seeds(graph, n_seeds):
    """Choose seeds one by one, each the vertex farthest from those before it."""
    seeds, dist = [0], np.full(graph.shape[0], np.inf)
    while len(seeds) < n_seeds:
        near = sparse.csgraph.dijkstra(
            graph, indices=seeds[-1], limit=dist[np.isfinite(dist)].max(initial=np.inf)
            if np.isfinite(dist).all() else np.inf
        )
        dist = np.minimum(dist, near)
        seeds.append(int(dist.argmax()))
    return np.array(seeds)


def _weighted_cells(graph, seeds, offset):
    """Give each vertex to the seed with the smallest distance plus offset."""
    n, n_seeds = graph.shape[0], len(seeds)
    # a source connected to each seed by an edge of length offset_k > 0
    start = sparse.csr_array(
        (offset - offset.min() + 1e-6, (np.zeros(n_seeds, int), seeds)), shape=(1, n)
    )
    full = sparse.block_array([[graph, None], [start, sparse.csr_array((1, 1))]])
    _, before = sparse.csgraph.dijkstra(
        full.tocsr(), indices=n, return_predecessors=True
    )
    up = np.where(before[:n] == n, np.arange(n), before[:n])
    while not np.array_equal(up, up[up]):  # climb the shortest path tree to its root
        up = up[up]
    cell = np.full(n, -1)
    cell[seeds] = np.arange(n_seeds)
    return cell[up]


def _middles(pos, area, cells, n_parcels):
    """Return the vertex of each cell that is nearest its mean."""
    size = np.bincount(cells, area, minlength=n_parcels)
    mean = [np.bincount(cells, area * x, minlength=n_parcels) / size for x in pos.T]
    dist = np.linalg.norm(pos - np.array(mean).T[cells], axis=1)
    order = np.lexsort((dist, cells))
    _, first = np.unique(cells[order], return_index=True)
    return order[first]


def _trade_vertices(graph, area, cells, n_parcels, n_pass=20):
    """Move border vertices to a smaller neighbour while both stay contiguous."""
    cells = cells.copy()
    size = np.bincount(cells, area, minlength=n_parcels)
    indptr, indices = graph.indptr, graph.indices
    for _ in range(n_pass):
        n_moved = 0
        for v in range(len(cells)):
            near = indices[indptr[v] : indptr[v + 1]]
            own = cells[v]
            others = cells[near]
            target = others[np.argmin(size[others])]
            if size[target] + area[v] >= size[own]:
                continue
            members = np.flatnonzero(cells == own)
            members = members[members != v]
            part = sparse.csgraph.connected_components(graph[members][:, members])[0]
            if part == 1:
                cells[v] = target
                size[own] -= area[v]
                size[target] += area[v]
                n_moved += 1
        if n_moved == 0:
            break
    return cells


def _build_parcels(subject, mapping, rrs, triss):
    """Compute areas, centres, adjacency of a mapping."""
    n_parcels = mapping.max() + 1
    rr = np.concatenate(rrs)
    tris = np.concatenate([triss[0], triss[1] + len(rrs[0])])
    area = _vertex_areas(rr, tris)
    inside = np.flatnonzero(mapping >= 0)
    areas = np.bincount(mapping[inside], area[inside], minlength=n_parcels)
    middles = _middles(rr[inside], area[inside], mapping[inside], n_parcels)
    return Parcels(
        subject=subject,
        mapping=mapping.astype(np.int32),
        areas=areas,
        centers=rr[inside[middles]],
        adjacency=_adjacency(mapping, tris, n_parcels),
        n_vertices_lh=len(rrs[0]),
    )


def _adjacency(mapping, tris, n_parcels):
    i, j = np.concatenate([tris[:, [0, 1]], tris[:, [1, 2]], tris[:, [2, 0]]]).T
    i, j = mapping[i], mapping[j]
    touch = (i != j) & (i >= 0) & (j >= 0)
    i, j = np.r_[i[touch], j[touch]], np.r_[j[touch], i[touch]]
    ones = np.ones(len(i), bool)
    adjacency = sparse.csr_array((ones, (i, j)), shape=(n_parcels, n_parcels))
    adjacency.sum_duplicates()
    return adjacency


# ---------------------------------------------------------------- from labels


def make_parcels(labels, subjects_dir=None):
    """Make parcels from labels.

    Parameters
    ----------
    labels : list of Label | str
        Labels that do not overlap, all of one subject; or the name of an annotation
        (``parc``) of ``fsaverage5``. Parcels keep the order of the labels.
    subjects_dir : path-like | None
        Where the labels' subject lies. Not needed for ``fsaverage5``.

    Returns
    -------
    parcels : Parcels
        The parcels.
    """
    _validate_type(labels, (list, tuple, str), "labels")
    if isinstance(labels, str):
        labels = mne.read_labels_from_annot(
            SUBJECT, labels, subjects_dir=subjects_dir, verbose="error"
        )
    subject = _check_labels(labels)
    if subject == SUBJECT:
        rrs, triss = _template_surfaces()
    else:
        rrs, triss = _read_white(subject, subjects_dir)
    mapping = np.full(sum(len(rr) for rr in rrs), -1, np.int32)
    for parcel, label in enumerate(labels):
        vertices = label.vertices + (len(rrs[0]) if label.hemi == "rh" else 0)
        if (mapping[vertices] >= 0).any():
            raise ValueError(f"labels must not overlap, but {label.name} does.")
        mapping[vertices] = parcel
    return _build_parcels(subject, mapping, rrs, triss)


def _check_labels(labels):
    if len(labels) < 2:
        raise ValueError(f"labels must hold at least 2 labels, got {len(labels)}.")
    for label in labels:
        _validate_type(label, mne.Label, "each element of labels")
        if len(label.vertices) == 0:
            raise ValueError(f"labels must not be empty, but {label.name} is.")
    subjects = {label.subject for label in labels}
    if len(subjects) != 1 or None in subjects:
        raise ValueError(f"labels must share one subject, got {sorted(map(str, subjects))}.")
    return subjects.pop()


def _read_white(subject, subjects_dir):
    subjects_dir = mne.utils.get_subjects_dir(subjects_dir, raise_error=True)
    surfs = [
        mne.read_surface(Path(subjects_dir) / subject / "surf" / f"{hemi}.white")
        for hemi in ("lh", "rh")
    ]
    return [rr / 1e3 for rr, _ in surfs], [tris for _, tris in surfs]


# --------------------------------------------------------------- to a subject


def assign_vertices(parcels, src, subjects_dir=None):
    """Find the parcel of each vertex of a source space.

    Parameters
    ----------
    parcels : Parcels
        The parcels.
    src : SourceSpaces
        A surface source space (also of a forward: ``fwd["src"]``) of any subject.
    subjects_dir : path-like | None
        Where the subject's ``surf/{lh,rh}.sphere.reg`` lie. Without them the white
        surfaces are matched by an affine transform, with a warning.

    Returns
    -------
    parcel_of_vertex : list of two array of shape (n_vertices,)
        Parcel of each of ``src[h]["vertno"]``, -1 where there is none.
    """
    _validate_type(parcels, Parcels, "parcels")
    subject = _check_src(src)
    numbers = _numbers_by_name(parcels, src, subject)
    if numbers is None:
        numbers = _numbers_by_sphere(parcels, src, subject, subjects_dir)
    if numbers is None:
        numbers = _numbers_by_shape(parcels, src, subject, subjects_dir)
    return [part[number] for part, number in zip(parcels.by_hemi(), numbers)]


def _check_src(src):
    kinds = [s["type"] for s in src]
    if kinds != ["surf", "surf"]:
        raise ValueError(
            "src must be a surface source space of two hemispheres, got "
            f"{kinds}. Make one with mne.setup_source_space."
        )
    return src[0].get("subject_his_id")


def _numbers_by_name(parcels, src, subject):
    """Template vertex of each vertex where numbers alone tell it, else None."""
    sizes = [len(part) for part in parcels.by_hemi()]
    if subject == parcels.subject and [s["np"] for s in src] == sizes:
        return [s["vertno"] for s in src]
    # fsaverage's first 10242 vertices are fsaverage5's
    family = {"fsaverage", SUBJECT}
    if {subject, parcels.subject} <= family and all(
        s["vertno"].max(initial=0) < size for s, size in zip(src, sizes)
    ):
        return [s["vertno"] for s in src]
    return None


def _numbers_by_sphere(parcels, src, subject, subjects_dir):
    """Nearest template vertex on the registration sphere, None without spheres."""
    to = _read_spheres(parcels.subject, subjects_dir)
    fro = _read_spheres(subject, subjects_dir)
    if to is None or fro is None:
        return None
    if any(len(rr) != s["np"] for rr, s in zip(fro, src)):
        raise ValueError(
            f"src has {[s['np'] for s in src]} vertices but the sphere.reg of subject "
            f"{subject!r} has {[len(rr) for rr in fro]}: is subjects_dir the right one?"
        )
    return [_nearest(b, a[s["vertno"]]) for a, b, s in zip(fro, to, src)]


def _read_spheres(subject, subjects_dir):
    subjects_dir = mne.utils.get_subjects_dir(subjects_dir, raise_error=False)
    folder = None if subjects_dir is None else Path(subjects_dir) / str(subject)
    if subject == SUBJECT:
        folder = make_template_subject() / SUBJECT
    fnames = [] if folder is None else [
        folder / "surf" / f"{hemi}.sphere.reg" for hemi in ("lh", "rh")
    ]
    if not fnames or not all(fname.is_file() for fname in fnames):
        return None
    rrs = [mne.read_surface(fname)[0] for fname in fnames]
    return [rr / np.linalg.norm(rr, axis=1, keepdims=True) for rr in rrs]


def _nearest(rr, points):
    from scipy.spatial import cKDTree

    return cKDTree(rr).query(points)[1]


def _numbers_by_shape(parcels, src, subject, subjects_dir):
    """Nearest template vertex after an affine match of the white surfaces."""
    warn(
        f"No sphere.reg surfaces found for subject {subject!r} (subjects_dir="
        f"{subjects_dir}): its source space is matched to the template by an affine "
        "transform, which is coarse. Pass the subjects_dir that holds the subject."
    )
    if parcels.subject == SUBJECT:
        white = _template_surfaces()[0]
    else:
        white = _read_white(parcels.subject, subjects_dir)[0]
    moved = _match_affine([s["rr"] for s in src], white)
    return [_nearest(b, a[s["vertno"]]) for a, b, s in zip(moved, white, src)]


def _match_affine(fro, to, n_iter=50):
    """Move two surfaces onto two others: iterated closest points, affine."""
    fro = [np.asarray(rr, float) for rr in fro]
    goal = np.concatenate(to)
    points = np.concatenate(fro)
    # start: same centre and same left-right axis, whatever the frame
    moved = points - points.mean(0) + goal.mean(0)
    split = [len(fro[0])]
    ones = np.ones((len(points), 1))
    for _ in range(n_iter):
        parts = np.split(moved, split)
        target = np.concatenate([rr[_nearest(rr, a)] for rr, a in zip(to, parts)])
        affine = np.linalg.lstsq(np.hstack([points, ones]), target, rcond=None)[0]
        moved = np.hstack([points, ones]) @ affine
    return np.split(moved, split)

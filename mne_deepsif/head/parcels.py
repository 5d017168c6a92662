"""Parcels: near-equal pieces of the template's cortex, and their use on subjects."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import dataclass
from pathlib import Path

import mne
import numpy as np
from mne.utils import _validate_type, warn
from scipy import sparse
from scipy.spatial import cKDTree

from ..cache import cached
from .anatomy import read_cortex, read_white
from .mesh import (
    cut_mesh,
    edge_graph,
    match_vertices,
    mesh_edges,
    nearest_mean,
    vertex_areas,
)
from .template import SUBJECT, make_template_subject

_VERSION = 2  # raise it when the construction changes: the cache is keyed by it
# mm. The map is a group average, so only 30 % of the medial wall is exactly 0. A limit
# of 1.2 mm catches 71 % of it, and 0.1 % of the cortex (by one subject's aparc).
_MIN_THICKNESS = 1.2
_NO_CORTEX = ("unknown", "corpuscallosum", "medial_wall", "medialwall", "???")


@dataclass(frozen=True)
class Parcels:
    """A parcellation of a template's cortex.

    Attributes
    ----------
    subject : str
        The subject to whose vertices ``mapping`` refers.
    mapping : array of shape (n_vertices_lh + n_vertices_rh,)
        Parcel of each vertex, -1 where there is none (medial wall).
    areas : array of shape (n_parcels,)
        Area on the white surface in m².
    centers : array of shape (n_parcels, 3)
        The parcel's vertex nearest its mean, in MRI (surface RAS) coordinates (m).
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
        """Split the mapping into hemispheres.

        Returns
        -------
        mappings : list of two array of shape (n_vertices,)
            Parcel of each vertex, lh and rh.
        """
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
    mapping = cached(
        f"{SUBJECT}-parcels",
        [_VERSION, int(n_parcels)],
        ".npy",
        np.load,
        np.save,
        lambda: _cut_template(n_parcels),
    )
    return _build_parcels(SUBJECT, mapping, *read_white())


def _cut_template(n_parcels):
    surfs = list(zip(("lh", "rh"), *read_white()))
    cortex = [_cortex_mask(hemi, tris) for hemi, _, tris in surfs]
    areas = [vertex_areas(rr, tris) for _, rr, tris in surfs]
    total = [area[keep].sum() for area, keep in zip(areas, cortex)]
    n_left = int(np.clip(round(n_parcels * total[0] / sum(total)), 1, n_parcels - 1))
    mapping, counts = [], (n_left, n_parcels - n_left)
    for (_, rr, tris), keep, area, n in zip(surfs, cortex, areas, counts):
        graph = edge_graph(tris, len(rr), rr)[keep][:, keep]
        part = np.full(len(rr), -1, np.int32)
        part[keep] = cut_mesh(graph, rr[keep], area[keep], n)
        mapping.append(part)
    mapping[1][cortex[1]] += n_left
    return np.concatenate(mapping)


def _cortex_mask(hemi, tris):
    (thickness,) = read_cortex("thick", hemi)
    cortex = thickness > _MIN_THICKNESS
    # keep only the largest piece of the wall, then only the largest piece of the cortex
    for value in (False, True):
        keep = np.flatnonzero(cortex == value)
        graph = edge_graph(tris, len(cortex))[keep][:, keep]
        _, part = sparse.csgraph.connected_components(graph, directed=False)
        cortex[keep[part != np.bincount(part).argmax()]] = not value
    return cortex


def _build_parcels(subject, mapping, rrs, triss):
    """Compute the areas, centres and adjacency of a mapping."""
    n_parcels = mapping.max() + 1
    rr = np.concatenate(rrs)
    tris = np.concatenate([triss[0], triss[1] + len(rrs[0])])
    area = vertex_areas(rr, tris)
    inside = np.flatnonzero(mapping >= 0)
    areas = np.bincount(mapping[inside], area[inside], minlength=n_parcels)
    middles = nearest_mean(rr[inside], area[inside], mapping[inside], n_parcels)
    return Parcels(
        subject=subject,
        mapping=mapping.astype(np.int32),
        areas=areas,
        centers=rr[inside[middles]],
        adjacency=_adjacency(mapping, tris, n_parcels),
        n_vertices_lh=len(rrs[0]),
    )


def _adjacency(mapping, tris, n_parcels):
    i, j = mapping[mesh_edges(tris)].T
    touch = (i != j) & (i >= 0) & (j >= 0)
    i, j = np.r_[i[touch], j[touch]], np.r_[j[touch], i[touch]]
    adjacency = sparse.csr_array(
        (np.ones(len(i), bool), (i, j)), shape=(n_parcels, n_parcels)
    )
    adjacency.sum_duplicates()
    return adjacency


# ---------------------------------------------------------------- from labels


def make_parcels(labels, subjects_dir=None):
    """Make parcels from labels.

    Parameters
    ----------
    labels : list of Label | str
        Labels of one subject that do not overlap, or the name of an annotation
        (``parc``) of ``fsaverage5``. Its ``unknown``, ``corpuscallosum`` and
        ``medial_wall`` are left out. Parcels keep the order of the labels.
    subjects_dir : path-like | None
        FreeSurfer subjects directory with the labels' subject. Not needed for a list of
        labels of ``fsaverage5``.

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
        labels = [
            label for label in labels if label.name[:-3].lower() not in _NO_CORTEX
        ]
    subject = _check_labels(labels)
    if subject == SUBJECT:
        rrs, triss = read_white()
    else:
        rrs, triss = _read_subject(subject, subjects_dir)
    mapping = _map_labels(labels, [len(rr) for rr in rrs])
    return _build_parcels(subject, mapping, rrs, triss)


def _map_labels(labels, sizes):
    mapping = np.full(sum(sizes), -1, np.int32)
    for parcel, label in enumerate(labels):
        hemi = int(label.hemi == "rh")
        if label.vertices.max() >= sizes[hemi]:
            raise ValueError(
                f"labels must lie on the {sizes[hemi]} vertices of {label.subject}, "
                f"but {label.name} has vertex {label.vertices.max()}."
            )
        vertices = label.vertices + hemi * sizes[0]
        if (mapping[vertices] >= 0).any():
            raise ValueError(f"labels must not overlap, but {label.name} does.")
        mapping[vertices] = parcel
    return mapping


def _check_labels(labels):
    if len(labels) < 2:
        raise ValueError(f"labels must hold at least 2 labels, got {len(labels)}.")
    for label in labels:
        _validate_type(label, mne.Label, "each element of labels")
        if len(label.vertices) == 0:
            raise ValueError(f"labels must not be empty, but {label.name} is.")
    subjects = {label.subject for label in labels}
    if len(subjects) != 1 or None in subjects:
        raise ValueError(
            f"labels must share one subject, got {sorted(map(str, subjects))}."
        )
    return subjects.pop()


def _read_subject(subject, subjects_dir):
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
        A surface source space of any subject, such as ``fwd["src"]``.
    subjects_dir : path-like | None
        FreeSurfer subjects directory with the subject's ``surf/{lh,rh}.sphere.reg``.
        Without them, the white surfaces are matched by an affine transform, with a
        warning.

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
    """Return the template vertex of each vertex if its number tells, else None."""
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
    """Return the nearest template vertex on the spheres, None without spheres."""
    to = _read_spheres(parcels.subject, subjects_dir)
    fro = _read_spheres(subject, subjects_dir)
    if to is None or fro is None:
        return None
    if any(len(rr) != s["np"] for rr, s in zip(fro, src)):
        raise ValueError(
            f"src has {[s['np'] for s in src]} vertices but the sphere.reg of subject "
            f"{subject!r} has {[len(rr) for rr in fro]}. Is subjects_dir the right one?"
        )
    return [_nearest(b, a[s["vertno"]]) for a, b, s in zip(fro, to, src)]


def _read_spheres(subject, subjects_dir):
    subjects_dir = mne.utils.get_subjects_dir(subjects_dir, raise_error=False)
    folder = None if subjects_dir is None else Path(subjects_dir) / str(subject)
    if subject == SUBJECT:
        folder = make_template_subject() / SUBJECT
    fnames = (
        []
        if folder is None
        else [folder / "surf" / f"{hemi}.sphere.reg" for hemi in ("lh", "rh")]
    )
    if not fnames or not all(fname.is_file() for fname in fnames):
        return None
    rrs = [mne.read_surface(fname)[0] for fname in fnames]
    return [rr / np.linalg.norm(rr, axis=1, keepdims=True) for rr in rrs]


def _nearest(rr, points):
    return cKDTree(rr).query(points)[1]


def _numbers_by_shape(parcels, src, subject, subjects_dir):
    """Return the nearest template vertex after an affine match of white surfaces."""
    if any(len(s["rr"]) != s["np"] or s["np"] < 500 for s in src):
        raise ValueError(
            f"src of subject {subject!r} holds no complete surfaces, so it cannot be "
            "matched with the template. Pass the subjects_dir that holds the subject's "
            "surf/lh.sphere.reg and surf/rh.sphere.reg."
        )
    folder = mne.utils.get_subjects_dir(subjects_dir, raise_error=False)
    where = "no subjects_dir is given or set" if folder is None else f"in {folder}"
    warn(
        f"No sphere.reg surfaces of subject {subject!r} ({where}): its source space is "
        "matched with the template by shape. On a real subject this moved parcels by "
        "2 mm (median; at most 15 mm), and peaks moved by up to 31 mm. Pass the "
        "subjects_dir that holds them, or set SUBJECTS_DIR (mne.set_config)."
    )
    if parcels.subject == SUBJECT:
        white = read_white()
    else:
        white = _read_subject(parcels.subject, subjects_dir)
    goal = [(rr, _vertex_normals(rr, tris)) for rr, tris in zip(*white)]
    numbers = match_vertices([(s["rr"], s["nn"]) for s in src], goal)
    return [number[s["vertno"]] for number, s in zip(numbers, src)]


def _vertex_normals(rr, tris):
    surf = dict(rr=rr, tris=tris)
    surf = mne.surface.complete_surface_info(
        surf, copy=False, do_neighbor_tri=False, verbose="error"
    )
    return surf["nn"]

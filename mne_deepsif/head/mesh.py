"""Triangle meshes: edges, areas, rays, cutting, matching. Arrays only."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
from mne.utils import ProgressBar
from scipy import sparse
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

# Normals count as 5 mm per unit: they keep the two banks of a sulcus apart
_NORMAL_WEIGHT = 0.005
# Head and MRI coordinates differ by a pitch of up to 40 degrees
_PITCHES = (-40, -20, 0, 20, 40)
_N_POINTS = 2000


def mesh_edges(tris):
    """List the edges of a mesh, once each.

    Parameters
    ----------
    tris : array of shape (n_tris, 3)
        Vertices of each triangle.

    Returns
    -------
    edges : array of shape (n_edges, 2)
        Two vertices per edge, the smaller number first.
    """
    edges = np.concatenate([tris[:, [0, 1]], tris[:, [1, 2]], tris[:, [2, 0]]])
    return _unique_pairs(edges)


def _unique_pairs(pairs):
    """Sort each pair and all pairs; list each once."""
    first, second = np.sort(pairs, axis=1).astype(np.int64).T
    n = second.max(initial=0) + 1
    numbers = np.sort(first * n + second)  # much faster than np.unique of rows
    unique = numbers[np.diff(numbers, prepend=-1) > 0]
    return np.stack(np.divmod(unique, n), axis=1).astype(pairs.dtype)


def edge_graph(tris, n_vertices, rr=None):
    """Make the symmetric matrix of a mesh's edges.

    Parameters
    ----------
    tris : array of shape (n_tris, 3)
        Vertices of each triangle.
    n_vertices : int
        Number of vertices.
    rr : array of shape (n_vertices, 3) | None
        Positions. If given, the values are edge lengths, else they are 1.

    Returns
    -------
    graph : csr_array of shape (n_vertices, n_vertices)
        The graph.
    """
    return _graph_of(mesh_edges(tris), n_vertices, rr)


def _graph_of(edges, n_vertices, rr):
    """Make the symmetric matrix of edges; see :func:`edge_graph`."""
    i, j = edges.T
    values = np.ones(len(i)) if rr is None else np.linalg.norm(rr[i] - rr[j], axis=1)
    graph = sparse.csr_array((values, (i, j)), shape=(n_vertices, n_vertices))
    return (graph + graph.T).tocsr()


def vertex_areas(rr, tris):
    """Give each vertex a third of the area of its triangles.

    Parameters
    ----------
    rr : array of shape (n_vertices, 3)
        Vertices.
    tris : array of shape (n_tris, 3)
        Vertices of each triangle.

    Returns
    -------
    areas : array of shape (n_vertices,)
        Areas, in the square of the unit of ``rr``.
    """
    a, b, c = (rr[tris[:, ii]] for ii in range(3))
    areas = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    return np.bincount(tris.ravel(), np.repeat(areas / 3, 3), minlength=len(rr))


def smooth(values, tris, n_iter):
    """Average a map with its neighbours, ``n_iter`` times.

    Parameters
    ----------
    values : array of shape (n_vertices,)
        The map.
    tris : array of shape (n_tris, 3)
        Vertices of each triangle.
    n_iter : int
        Number of passes.

    Returns
    -------
    values : array of shape (n_vertices,)
        The smoothed map.
    """
    near = edge_graph(tris, len(values)) + sparse.eye_array(len(values))
    near = sparse.diags_array(1 / near.sum(axis=1)) @ near
    for _ in range(n_iter):
        values = near @ values
    return values


def outermost_hits(origin, directions, rr, tris):
    """Measure how far rays travel to their last crossing of a mesh.

    Parameters
    ----------
    origin : array of shape (3,)
        Where all rays start.
    directions : array of shape (n_rays, 3)
        Unit vectors.
    rr : array of shape (n_vertices, 3)
        Vertices.
    tris : array of shape (n_tris, 3)
        Vertices of each triangle.

    Returns
    -------
    distances : array of shape (n_rays,)
        Distances (Moeller-Trumbore intersection), 0 where nothing is hit.
    """
    a, b, c = (rr[tris[:, ii]] - origin for ii in range(3))
    e1, e2 = b - a, c - a  # (n_tris, 3)
    q = np.cross(-a, e1)
    height = (e2 * q).sum(axis=1)
    distances = np.zeros(len(directions))
    for ii, direction in enumerate(directions):
        p = np.cross(direction, e2)
        det = (e1 * p).sum(axis=1)
        det[np.abs(det) < 1e-15] = np.nan  # parallel: no hit
        u, v, t = -(a * p).sum(axis=1) / det, q @ direction / det, height / det
        hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)
        distances[ii] = t[hit].max(initial=0)
    return distances


def are_inside(points, rr, tris):
    """Tell which points lie in a star-shaped closed mesh (a skull, a scalp).

    Parameters
    ----------
    points : array of shape (n_points, 3)
        The points.
    rr : array of shape (n_vertices, 3)
        Vertices.
    tris : array of shape (n_tris, 3)
        Vertices of each triangle.

    Returns
    -------
    inside : array of bool, shape (n_points,)
        True inside.
    """
    origin = rr.mean(axis=0)
    distances = np.linalg.norm(points - origin, axis=1)
    rays = (points - origin) / distances[:, np.newaxis]
    return distances < outermost_hits(origin, rays, rr, tris)


def nearest_along(graph, sources):
    """Find the source that is nearest to each vertex along the edges.

    Parameters
    ----------
    graph : csr_array of shape (n_vertices, n_vertices)
        Edge lengths.
    sources : array of int, shape (n_sources,)
        Vertices, sorted.

    Returns
    -------
    nearest : array of int, shape (n_vertices,)
        Index in ``sources``; -1 for a vertex that is not connected to any.
    """
    nearest = np.full(graph.shape[0], -1)
    if len(sources):
        *_, found = sparse.csgraph.dijkstra(
            graph,
            directed=False,
            indices=sources,
            min_only=True,
            return_predecessors=True,
        )
        reached = found >= 0
        nearest[reached] = np.searchsorted(sources, found[reached])
    return nearest


def sum_areas(owner, areas, n_owners):
    """Sum the areas that belong to each used vertex.

    Parameters
    ----------
    owner : array of int, shape (n_vertices,)
        What :func:`nearest_along` returned.
    areas : array of shape (n_vertices,)
        Area of each vertex of the surface.
    n_owners : int
        Number of used vertices.

    Returns
    -------
    areas : array of shape (n_owners,)
        The sums. What no used vertex reaches belongs to none.
    """
    near = owner >= 0
    return np.bincount(owner[near], areas[near], n_owners)


def used_graph(surf):
    """Connect the used vertices of a surface with their neighbours.

    Parameters
    ----------
    surf : dict
        A hemisphere of a source space.

    Returns
    -------
    graph : csr_array of shape (n_used, n_used)
        Distances (m) between the neighbours; empty if the source space does not hold
        its surface.
    """
    vertno, rr = surf["vertno"], surf["rr"]
    n_used = len(vertno)
    empty = sparse.csr_array((n_used, n_used))
    tris = surf.get("use_tris")
    if np.shape(tris)[1:] == (3,) and len(tris) and np.isin(tris, vertno).all():
        return edge_graph(np.searchsorted(vertno, tris), n_used, rr[vertno])
    tris = surf.get("tris")
    if not n_used or np.shape(tris)[1:] != (3,):
        return empty
    edges = mesh_edges(tris)
    owner = nearest_along(_graph_of(edges, len(rr), rr), vertno)
    i, j = owner[edges].T
    between = (i != j) & (i >= 0) & (j >= 0)
    return _graph_of(_unique_pairs(np.c_[i, j][between]), n_used, rr[vertno])


def find_rows(vertices, vertnos, name):
    """Find the rows of vertices among those of a source space.

    Parameters
    ----------
    vertices, vertnos : list of array of int
        Vertices of an estimate and of the source space, lh and rh.
    name : str
        Name of the estimate in the error message.

    Returns
    -------
    rows : array of int
        Rows of the source space.
    """
    rows, offset = [], 0
    for few, all_ in zip(vertices, vertnos, strict=True):
        if not np.isin(few, all_).all():
            raise ValueError(
                f"{name} must lie on the vertices of src, but "
                f"{np.setdiff1d(few, all_).size} of its vertices are not in it. Pass "
                "the forward that made the estimate, or its source space."
            )
        rows.append(offset + np.searchsorted(all_, few))
        offset += len(all_)
    return np.concatenate(rows).astype(int)


def nearest_mean(rr, areas, cells, n_cells):
    """Find the vertex of each cell that is nearest the cell's mean.

    Parameters
    ----------
    rr : array of shape (n_vertices, 3)
        Vertices.
    areas : array of shape (n_vertices,)
        Weights of the vertices in the mean.
    cells : array of shape (n_vertices,)
        Cell of each vertex. Each of ``range(n_cells)`` must occur.
    n_cells : int
        Number of cells.

    Returns
    -------
    middles : array of shape (n_cells,)
        Vertices.
    """
    size = np.bincount(cells, areas, minlength=n_cells)
    mean = [np.bincount(cells, areas * x, minlength=n_cells) / size for x in rr.T]
    distance = np.linalg.norm(rr - np.array(mean).T[cells], axis=1)
    order = np.lexsort((distance, cells))
    return order[np.unique(cells[order], return_index=True)[1]]


# ------------------------------------------------------------------- cutting


def cut_mesh(graph, rr, areas, n_cells, n_iter=120):
    r"""Cut a mesh into contiguous cells of nearly equal area.

    This is Lloyd's algorithm on the mesh, with weighted cells. Vertex :math:`v` goes to
    the seed :math:`s_k` with the smallest :math:`d(v, s_k) + w_k`, where :math:`d` is
    the distance along edges. A cell is a subtree of shortest paths, hence contiguous.
    In the first half of the iterations, seeds move to the middle of their cells. In all
    iterations, the offsets :math:`w_k` of large cells grow. Finally, vertices on
    borders are traded one by one.

    Parameters
    ----------
    graph : csr_array of shape (n_vertices, n_vertices)
        Edge lengths; connected.
    rr : array of shape (n_vertices, 3)
        Vertices.
    areas : array of shape (n_vertices,)
        Area of each vertex.
    n_cells : int
        Number of cells.
    n_iter : int
        Number of iterations.

    Returns
    -------
    cells : array of shape (n_vertices,)
        Cell of each vertex.
    """
    goal = areas.sum() / n_cells
    seeds, offset = _spread_seeds(graph, n_cells), np.zeros(n_cells)
    cells, best = _weighted_cells(graph, seeds, offset), np.inf
    bar = "Cutting the cortex into parcels"
    for ii in ProgressBar(range(n_iter), mesg=bar, unit=" iterations"):
        trial = _weighted_cells(graph, seeds, offset)
        size = np.bincount(trial, areas, minlength=n_cells)
        if size.min() > 0 and size.std() < best:
            cells, best = trial, size.std()
        if ii < n_iter // 2 and size.min() > 0:
            seeds = nearest_mean(rr, areas, trial, n_cells)
        offset += 0.15 * np.sqrt(goal) * (size / goal - 1)
        offset -= offset.mean()
    return _trade_vertices(graph, areas, cells, n_cells)


def _spread_seeds(graph, n_seeds):
    """Choose seeds one by one, each the vertex farthest from those before it."""
    distance = sparse.csgraph.dijkstra(graph, indices=0)
    seeds = [0]
    while len(seeds) < n_seeds:
        seed = int(distance.argmax())
        near = sparse.csgraph.dijkstra(graph, indices=seed, limit=distance[seed])
        distance = np.minimum(distance, near)
        seeds.append(seed)
    return np.array(seeds)


def _weighted_cells(graph, seeds, offset):
    """Give each vertex to the seed with the smallest distance plus offset."""
    n, n_seeds = graph.shape[0], len(seeds)
    # one more vertex, joined to each seed by an edge as long as the seed's offset
    start = (offset - offset.min() + 1e-6, (np.zeros(n_seeds, int), seeds))
    start = sparse.csr_array(start, shape=(1, n))
    graph = sparse.block_array([[graph, None], [start, sparse.csr_array((1, 1))]])
    _, up = sparse.csgraph.dijkstra(graph.tocsr(), indices=n, return_predecessors=True)
    up = np.where(up[:n] == n, np.arange(n), up[:n])
    while not np.array_equal(up, up[up]):  # climb to the roots, which are seeds
        up = up[up]
    cells = np.full(n, -1)
    cells[seeds] = np.arange(n_seeds)
    return cells[up]


def _trade_vertices(graph, areas, cells, n_cells, n_pass=20):
    """Move border vertices to a smaller neighbour while cells stay contiguous."""
    cells = cells.copy()
    size = np.bincount(cells, areas, minlength=n_cells)
    for _ in range(n_pass):
        before = cells.copy()
        for v in range(len(cells)):
            near = cells[graph.indices[graph.indptr[v] : graph.indptr[v + 1]]]
            own, other = cells[v], near[np.argmin(size[near])]
            if size[other] + areas[v] < size[own] and _can_leave(graph, cells, v):
                cells[v] = other
                size[own] -= areas[v]
                size[other] += areas[v]
        if np.array_equal(before, cells):
            break
    return cells


def _can_leave(graph, cells, v):
    rest = np.flatnonzero(cells == cells[v])
    rest = rest[rest != v]
    part = graph[rest][:, rest]
    return sparse.csgraph.connected_components(part, directed=False)[0] == 1


# ------------------------------------------------------------------ matching


def match_vertices(fro, to):
    """Find the vertex of other surfaces that is nearest after an affine match.

    Parameters
    ----------
    fro, to : list of tuple (rr, nn)
        Left and right surface: vertices in m and unit normals, each an array of shape
        (n_vertices, 3); x to the right and z up, roughly.

    Returns
    -------
    numbers : list of array of shape (n_vertices,)
        For each vertex of ``fro``, the nearest vertex of ``to``.
    """
    trees = [cKDTree(_features(*surf)) for surf in to]
    few = [[x[:: max(1, len(x) // _N_POINTS)] for x in surf] for surf in fro]
    middle = [
        np.mean([rr.mean(axis=0) for rr, _ in surfs], axis=0) for surfs in (few, to)
    ]
    best = np.inf
    for pitch in _PITCHES:
        start = _turn(pitch, *middle)
        trial, error = _iterate(few, to, trees, start)
        if error < best:
            affine, best = trial, error
    affine, _ = _iterate(fro, to, trees, affine, n_iter=10)
    return [tree.query(_features(*_move(*s, affine)))[1] for s, tree in zip(fro, trees)]


def _features(rr, nn):
    return np.hstack([rr, _NORMAL_WEIGHT * nn])  # (n_vertices, 6)


def _turn(pitch, middle, goal):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("x", pitch, degrees=True).as_matrix()
    affine[:3, 3] = goal - affine[:3, :3] @ middle
    return affine


def _move(rr, nn, affine):
    nn = nn @ np.linalg.inv(affine[:3, :3])  # normals turn by the inverse transpose
    nn = nn / np.linalg.norm(nn, axis=1, keepdims=True)
    return rr @ affine[:3, :3].T + affine[:3, 3], nn


def _iterate(fro, to, trees, affine, n_iter=25):
    """Iterate closest points; return the affine and the mean squared distance."""
    points = np.vstack([rr for rr, _ in fro])
    points = np.hstack([points, np.ones((len(points), 1))])
    for _ in range(n_iter):
        found = [t.query(_features(*_move(*s, affine))) for s, t in zip(fro, trees)]
        goal = np.vstack([rr[number] for (rr, _), (_, number) in zip(to, found)])
        # pairs that are far apart are wrong, so they get small (Cauchy) weights
        distance = np.concatenate([distance for distance, _ in found])
        weight = 1 / (1 + (distance / np.median(distance)) ** 2)
        root = np.sqrt(weight)[:, np.newaxis]
        solution = np.linalg.lstsq(root * points, root * goal, rcond=None)[0]
        affine = np.vstack([solution.T, [0, 0, 0, 1]])
    return affine, np.mean(distance**2)

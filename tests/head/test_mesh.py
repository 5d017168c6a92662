"""Meshes: spheres, rays, cuts and matches that can be worked out."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import sparse

from mne_deepsif import make_template_source_space
from mne_deepsif.head.mesh import (
    are_inside,
    cut_mesh,
    edge_graph,
    find_rows,
    match_vertices,
    mesh_edges,
    nearest_along,
    nearest_mean,
    outermost_hits,
    smooth,
    used_graph,
    vertex_areas,
)


@pytest.fixture
def sphere():
    """Give a sphere of radius 0.1 m with 642 vertices."""
    surf = mne.bem._get_ico_surface(3)
    return 0.1 * surf["rr"], surf["tris"]


@pytest.fixture(scope="module")
def src():
    return make_template_source_space()


# --------------------------------------------------------------- array functions


def test_mesh_of_a_sphere(sphere):
    rr, tris = sphere
    edges = mesh_edges(tris)
    assert len(rr) - len(edges) + len(tris) == 2  # Euler
    assert vertex_areas(rr, tris).sum() == pytest.approx(4 * np.pi * 0.01, rel=0.02)
    graph = edge_graph(tris, len(rr), rr)
    assert (graph != graph.T).nnz == 0
    i, j = edges[7]
    assert graph[i, j] == pytest.approx(np.linalg.norm(rr[i] - rr[j]))


def test_rays_hit_a_sphere(sphere):
    rr, tris = sphere
    rays = np.random.RandomState(0).randn(50, 3)
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    both = np.vstack([rr, 0.5 * rr])  # the last crossing counts
    tris_both = np.vstack([tris, tris + len(rr)])
    distance = outermost_hits(np.zeros(3), rays, both, tris_both)
    np.testing.assert_allclose(distance, 0.1, rtol=0.02)
    start = np.array([0.0, 0.0, 0.03])
    distance = outermost_hits(start, np.array([[0, 0, 1.0], [0, 0, -1]]), rr, tris)
    np.testing.assert_allclose(distance, [0.07, 0.13], rtol=0.02)
    assert outermost_hits(np.array([1.0, 0, 0]), np.eye(3), rr, tris)[0] == 0


def test_are_inside(sphere):
    points = np.array([[0.01, 0, 0], [0, 0.09, 0], [0, 0, -0.11], [0.1, 0.1, 0.1]])
    np.testing.assert_array_equal(are_inside(points, *sphere), [1, 1, 0, 0])


def test_smooth_keeps_constants(sphere):
    rr, tris = sphere
    np.testing.assert_allclose(smooth(np.full(len(rr), 3.0), tris, 4), 3)
    assert smooth(rr[:, 0], tris, 10).std() < rr[:, 0].std()


def test_nearest_mean():
    rr = np.array([[0, 0, 0], [1, 0, 0], [3, 0, 0], [7, 0, 0], [8, 0, 0.0]])
    middles = nearest_mean(rr, np.ones(5), np.array([1, 1, 1, 0, 0]), 2)
    assert middles[1] == 1
    assert middles[0] in (3, 4)


# --------------------------------------------------------------- along the surface


def test_nearest_along_a_path():
    """By hand: 0 -1- 1 -1- 2 -5- 3 -1- 4, and 5 alone."""
    lengths = np.array([1.0, 1.0, 5.0, 1.0])
    graph = sparse.csr_array((lengths, (np.arange(4), np.arange(1, 5))), shape=(6, 6))
    graph = (graph + graph.T).tocsr()
    np.testing.assert_array_equal(
        nearest_along(graph, np.array([0, 4])), [0, 0, 0, 1, 1, -1]
    )
    np.testing.assert_array_equal(
        nearest_along(graph, np.array([1, 3, 5])), [0, 0, 0, 1, 1, 2]
    )
    assert (nearest_along(graph, np.zeros(0, int)) == -1).all()


@pytest.mark.parametrize("n_sources", (1, 5, 60))
def test_nearest_along_is_the_nearest_of_all_distances(sphere, n_sources):
    """SciPy's distance from each source in turn; the nearest one is taken."""
    rr, tris = sphere
    rng = np.random.default_rng(n_sources)
    rr = rr * rng.uniform(0.9, 1.1, (len(rr), 1))  # no two ways of the same length
    graph = edge_graph(tris, len(rr), rr)
    sources = np.sort(rng.choice(len(rr), n_sources, replace=False))
    distances = sparse.csgraph.dijkstra(graph, indices=sources)
    np.testing.assert_array_equal(nearest_along(graph, sources), distances.argmin(0))


def test_nearest_along_does_not_leave_a_piece(sphere):
    """Two spheres that lie inside each other: each vertex finds its own sphere's."""
    rr, tris = sphere
    both = np.vstack([rr, 0.99 * rr])
    graph = edge_graph(np.vstack([tris, tris + len(rr)]), len(both), both)
    found = nearest_along(graph, np.array([3, 700]))
    np.testing.assert_array_equal(found, np.repeat([0, 1], len(rr)))
    found = nearest_along(graph, np.array([3]))
    np.testing.assert_array_equal(found, np.repeat([0, -1], len(rr)))


def test_find_rows_by_hand():
    vertnos = [np.array([2, 5, 7, 9]), np.array([0, 5, 6])]
    rows = find_rows([np.array([5, 9]), np.array([0, 6])], vertnos, "stc")
    np.testing.assert_array_equal(rows, [1, 3, 4, 6])
    rows = find_rows([np.array([], int), np.array([5])], vertnos, "stc")
    np.testing.assert_array_equal(rows, [5])
    none = [np.array([], int), np.array([], int)]
    assert find_rows(none, vertnos, "stc").dtype.kind == "i"
    # 2 is in the left hemisphere only
    with pytest.raises(ValueError, match="stc_true must lie .* but 2 of its vertices"):
        find_rows([np.array([2]), np.array([2, 5, 8])], vertnos, "stc_true")


# --------------------------------------------------------------- cutting


@pytest.mark.parametrize("n_cells", [1, 2, 7, 40])
def test_cut_a_sphere(sphere, n_cells):
    rr, tris = sphere
    graph, areas = edge_graph(tris, len(rr), rr), vertex_areas(rr, tris)
    cells = cut_mesh(graph, rr, areas, n_cells)
    sizes = np.bincount(cells, areas)
    assert len(sizes) == n_cells
    assert sizes.std() < 0.05 * sizes.mean()
    for cell in range(n_cells):
        members = cells == cell
        assert sparse.csgraph.connected_components(graph[members][:, members])[0] == 1


# --------------------------------------------------------------- matching


def test_affine_match_is_exact(src):
    """The template itself, stretched, pitched and moved, finds itself."""
    affine = np.diag([1.05, 0.9, 1.1])
    affine = mne.transforms.rotation(x=np.deg2rad(30))[:3, :3] @ affine
    goal = [(s["rr"], s["nn"]) for s in src]
    fro = []
    for s in src:
        nn = s["nn"] @ np.linalg.inv(affine)
        nn /= np.linalg.norm(nn, axis=1, keepdims=True)
        fro.append((s["rr"] @ affine.T + [0.03, -0.02, 0.05], nn))
    for number in match_vertices(fro, goal):
        assert (number == np.arange(10242)).mean() > 0.98


# --------------------------------------------------------------- used vertices


def test_used_graph_of_all_ways(template_src):
    """By the triangles of the used vertices, or by what lies nearest to them."""
    surf = make_template_source_space()[0]
    full = used_graph(surf)
    assert_allclose(full.toarray()[:50], _lengths(surf)[:50])
    few = template_src[0]  # ico4 without triangles of its own
    graph = used_graph(few)
    assert graph.shape == (2562, 2562) and (graph != graph.T).nnz == 0
    degree = (graph > 0).sum(axis=1)
    assert 5.5 < degree.mean() < 6.6 and degree.min() >= 4
    i, j = graph.nonzero()
    rr = few["rr"][few["vertno"]]
    lengths = graph.tocoo().data
    assert_allclose(np.sort(lengths), np.sort(np.linalg.norm(rr[i] - rr[j], axis=1)))
    assert 4e-3 < lengths.mean() < 8e-3


def test_used_graph_without_a_surface(template_src):
    """No triangles, or no vertices: nothing is connected."""
    surf = dict(template_src[0], tris=np.zeros((1, 0), int))
    assert used_graph(surf).nnz == 0
    surf = dict(template_src[0], vertno=np.zeros(0, int))
    assert used_graph(surf).shape == (0, 0)


def _lengths(surf):
    return edge_graph(surf["tris"], surf["np"], surf["rr"]).toarray()

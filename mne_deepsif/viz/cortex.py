"""The cortex as a picture: surfaces, views, and how maps are spread and drawn.

The cortex is drawn in two dimensions: vertices are turned and projected, triangles that
face away are left out, the others drawn from back to front. It takes half the time of
nilearn's 3D axes (1.5 s a view for 160 000 vertices), and has no empty margins.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import dataclass
from pathlib import Path

import mne
import numpy as np
from matplotlib.collections import TriMesh
from matplotlib.tri import Triangulation
from mne.utils import _check_option, _validate_type
from scipy import sparse

from ..head.anatomy import HEMIS
from ..head.mesh import edge_graph, mesh_edges, smooth, vertex_areas
from ..head.template import SUBJECT, make_template_subject

SURFACES = ("inflated", "white", "pial")
# The axes to the right, up, and towards the eye, for the left hemisphere
_AXES = {
    "lateral": ((0, -1, 0), (0, 0, 1), (-1, 0, 0)),
    "medial": ((0, 1, 0), (0, 0, 1), (1, 0, 0)),
    "dorsal": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "ventral": ((-1, 0, 0), (0, 1, 0), (0, 0, -1)),
    "rostral": ((-1, 0, 0), (0, 0, 1), (0, 1, 0)),
    "caudal": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
}
VIEWS = tuple(_AXES)
_GYRUS, _SULCUS = 0.72, 0.5  # greys
_LIGHT = np.array([0.0, 0.3, 1.0]) / np.hypot(0.3, 1)  # from the eye, and above it
_CLEAR = 0.3  # cosine from which a vertex is clearly seen
_LITTLE = 0.1  # share of all activity that makes a second view worth while
# to find what is hidden: cells per side, and share of the depth
_GRID, _DEPTH = 60, 0.03


@dataclass(frozen=True, eq=False)
class Hemisphere:
    """The surface of a hemisphere.

    Attributes
    ----------
    hemi : "lh" | "rh"
        The hemisphere.
    rr : array of shape (n_vertices, 3)
        Vertices (mm).
    tris : array of shape (n_tris, 3)
        Triangles.
    grey : array of shape (n_vertices,)
        Brightness: sulci are darker than gyri.
    """

    hemi: str
    rr: np.ndarray
    tris: np.ndarray
    grey: np.ndarray

    def turn(self, view):
        """Turn vertices so that x points to the right, y up, and z to the eye."""
        right, up, eye = np.array(_AXES[view], float)
        if self.hemi == "rh" and view in ("lateral", "medial"):
            right, eye = -right, -eye
        return self.rr @ np.stack([right, up, eye], axis=1)


# ---------------------------------------------------------------- surfaces


def read_hemispheres(subject, vertices, surface="inflated", subjects_dir=None):
    """Read the surfaces of both hemispheres.

    Parameters
    ----------
    subject : str
        The subject. ``fsaverage5`` comes with the package.
    vertices : list of array of int
        Vertices that must be on the surfaces; lh and rh.
    surface : "inflated" | "white" | "pial"
        The surface.
    subjects_dir : path-like | None
        FreeSurfer subjects directory. None takes MNE's setting.

    Returns
    -------
    hemispheres : list of Hemisphere
        Left and right.
    """
    _check_option("surface", surface, SURFACES)
    folder = find_folder(subject, vertices, surface, subjects_dir)
    hemispheres = []
    for hemi, used in zip(HEMIS, vertices, strict=True):
        rr, tris = mne.read_surface(folder / f"{hemi}.{surface}")
        if len(used) and max(used) >= len(rr):
            raise ValueError(
                f"The {surface} surface in {folder} has {len(rr)} vertices ({hemi}), "
                f"but vertex {max(used)} is needed. Pass the subject and the "
                "subjects_dir that the source space was made with."
            )
        hemispheres.append(Hemisphere(hemi, rr, tris, _read_grey(folder, hemi, rr)))
    return hemispheres


def find_folder(subject, vertices, surface, subjects_dir):
    """Find the folder with the surfaces of a subject.

    Parameters
    ----------
    subject : str | None
        The subject.
    vertices : list of array of int
        Vertices that must be on the surfaces; lh and rh.
    surface : str
        The surface.
    subjects_dir : path-like | None
        FreeSurfer subjects directory. None takes MNE's setting.

    Returns
    -------
    folder : Path
        The folder ``subjects_dir/subject/surf``, of the template for ``fsaverage5``.
    """
    if subject is None:
        raise ValueError(
            "subject must be the name of a FreeSurfer subject, got None, and the "
            "estimate does not know it. Pass subject='...'."
        )
    if subject == SUBJECT:
        return make_template_subject() / SUBJECT / "surf"
    subjects_dir = mne.utils.get_subjects_dir(subjects_dir, raise_error=False)
    folder = Path(subjects_dir or "") / subject / "surf"
    if all((folder / f"{hemi}.{surface}").is_file() for hemi in HEMIS):
        return folder
    # the first vertices of fsaverage are those of fsaverage5
    if subject == "fsaverage" and np.concatenate(vertices).max(initial=0) < 10242:
        return make_template_subject() / SUBJECT / "surf"
    raise FileNotFoundError(
        f"subjects_dir must hold {subject}/surf/lh.{surface} and rh.{surface}, got "
        f"subjects_dir={str(subjects_dir) if subjects_dir else None!r}. Pass the "
        "FreeSurfer subjects directory of this subject, or set it for all of MNE with "
        "mne.set_config('SUBJECTS_DIR', ...). The template fsaverage5 needs none."
    )


def _read_grey(folder, hemi, rr):
    """Return the brightness of vertices: two greys, from sulc or curv if there."""
    import nibabel as nib

    for kind in ("sulc", "curv"):
        if (folder / f"{hemi}.{kind}").is_file():
            depth = nib.freesurfer.read_morph_data(folder / f"{hemi}.{kind}")
            return np.where(depth > 0, _SULCUS, _GYRUS)
    return np.full(len(rr), (_GYRUS + _SULCUS) / 2)


# -------------------------------------------------------------------- maps


def spread(values, vertno, hemisphere):
    """Spread the values of some vertices over the surface between them.

    Parameters
    ----------
    values : array of shape (n_used,)
        The map.
    vertno : array of int, shape (n_used,)
        Its vertices.
    hemisphere : Hemisphere
        The surface.

    Returns
    -------
    values : array of shape (n_vertices,)
        Each vertex has the value of the nearest one with a value, smoothed over half
        the distance between those. Vertices with a value keep it. What is farther away
        than this distance is 0.
    """
    n_vertices = len(hemisphere.rr)
    full = np.zeros(n_vertices)
    full[vertno] = values
    steps, nearest = _count_steps(vertno, hemisphere.tris, n_vertices)
    spacing = _steps_between(steps, nearest, hemisphere.tris)
    if spacing < 2:  # neighbours have values: there is nothing between them
        return full
    near = steps <= spacing
    full[near] = full[nearest[near]]
    full = smooth(full, hemisphere.tris, int(spacing) // 2)
    full[vertno] = values
    return full


def _count_steps(vertno, tris, n_vertices):
    """Count the edges from each vertex to the nearest of some; return that one, too."""
    if not len(vertno):
        return np.full(n_vertices, np.inf), np.full(n_vertices, -1)
    steps, _, nearest = sparse.csgraph.dijkstra(
        edge_graph(tris, n_vertices),
        directed=False,
        indices=vertno,
        min_only=True,
        return_predecessors=True,
    )
    return steps, nearest


def _steps_between(steps, nearest, tris):
    """Return the median number of edges from a vertex with a value to the next one."""
    i, j = mesh_edges(tris).T
    border = (nearest[i] != nearest[j]) & (nearest[i] >= 0) & (nearest[j] >= 0)
    i, j = i[border], j[border]
    if not len(i):  # no vertex with a value, or a single one
        return 0.0
    between = np.full(len(steps), np.inf)
    for owner in (nearest[i], nearest[j]):
        np.minimum.at(between, owner, steps[i] + steps[j] + 1)
    return float(np.median(between[np.isfinite(between)]))


# ------------------------------------------------------------------- views


def check_views(views):
    """Check names of views.

    Parameters
    ----------
    views : list of str
        The names.

    Returns
    -------
    views : list of str
        The same, as a list.
    """
    _validate_type(views, (list, tuple), "views")
    for view in views:
        _check_option("each element of views", view, VIEWS)
    return list(views)


def choose_views(maps, peak, hemispheres):
    """Choose the two views in which activity is seen best.

    Parameters
    ----------
    maps : list of array of shape (n_vertices,)
        Activity of each vertex, 0 or more; lh and rh.
    peak : int
        Index of the vertex to show best, in both maps joined.
    hemispheres : list of Hemisphere
        The surfaces.

    Returns
    -------
    views : list of str
        First the view that shows the peak best, then the one that shows the most of
        what is not seen in the first.
    """
    seen = {
        view: np.concatenate([_visibility(h, view) for h in hemispheres])
        for view in VIEWS
    }
    areas = [vertex_areas(hemisphere.rr, hemisphere.tris) for hemisphere in hemispheres]
    mass = np.concatenate(maps) * np.concatenate(areas)
    first = max(VIEWS, key=lambda view: seen[view][peak])
    least = _LITTLE * mass.sum()
    mass[seen[first] > _CLEAR] = 0.0
    others = [view for view in VIEWS if view != first]
    shown = {view: mass[seen[view] > _CLEAR].sum() for view in others}
    second = max(others, key=shown.get)  # lateral or medial, if all is seen already
    return [first, second if shown[second] > least else others[0]]


def _visibility(hemisphere, view):
    """Return how well each vertex is seen: 0 if hidden, 1 if it faces the eye."""
    points = hemisphere.turn(view)
    facing = _normals(points, hemisphere.tris)[:, 2]
    low, size = points.min(0), np.ptp(points, 0)
    x, y = (_GRID * (points - low) / size * 0.999).astype(int)[:, :2].T
    front = np.full((_GRID, _GRID), -np.inf)
    np.maximum.at(front, (x, y), points[:, 2])
    hidden = points[:, 2] < front[x, y] - _DEPTH * size.max()
    return np.where(hidden, 0.0, np.clip(facing, 0, 1))


def _normals(points, tris):
    """Return unit normals of vertices."""
    a, b, c = (points[tris[:, ii]] for ii in range(3))
    normals = np.cross(b - a, c - a)
    sums = [np.bincount(tris.ravel(), np.repeat(n, 3), len(points)) for n in normals.T]
    return np.stack(sums, 1) / np.maximum(np.linalg.norm(sums, axis=0), 1e-12)[:, None]


# ----------------------------------------------------------------- drawing


def make_axes(figure, hemispheres, views, **options):
    """Make axes for hemispheres (columns) in views (rows), all at one scale.

    Parameters
    ----------
    figure : Figure | SubFigure
        Where to put them.
    hemispheres : list of Hemisphere
        The surfaces.
    views : list of str
        The views.
    **options : dict
        Passed on to ``figure.subplots``.

    Returns
    -------
    axes : array of Axes, shape (n_views, n_hemispheres)
        The axes.
    """
    sizes = _panel_sizes(hemispheres, views)
    axes = figure.subplots(
        *(len(views), len(hemispheres)),
        squeeze=False,
        gridspec_kw=dict(height_ratios=sizes[:, 1]),
        **options,
    )
    for row, view, (_, height) in zip(axes, views, sizes):
        row[0].set_ylabel(view)
        for ax in row:
            ax.set(xticks=[], yticks=[], aspect="equal", facecolor="none")
            ax.set(xlim=np.array([-0.5, 0.5]) * sizes[:, 0].max())
            ax.set(ylim=np.array([-0.5, 0.5]) * height)
            ax.spines[:].set_visible(False)
    for ax, hemisphere in zip(axes[0], hemispheres):
        ax.set_title(HEMIS[hemisphere.hemi])
    return axes


def _panel_sizes(hemispheres, views):
    """Return width and height (mm) of each view."""
    sizes = [[np.ptp(h.turn(v)[:, :2], axis=0) for h in hemispheres] for v in views]
    return np.max(sizes, axis=1)


def figure_size(hemispheres, views, width):
    """Compute the height of a figure of axes of a width, without margins.

    Parameters
    ----------
    hemispheres : list of Hemisphere
        The surfaces.
    views : list of str
        The views.
    width : float
        Width (inches).

    Returns
    -------
    height : float
        Height (inches).
    """
    sizes = _panel_sizes(hemispheres, views)
    return width * sizes[:, 1].sum() / (len(hemispheres) * sizes[:, 0].max())


def draw(ax, hemisphere, view, colors, alpha):
    """Draw a hemisphere.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    hemisphere : Hemisphere
        The surface.
    view : str
        The view.
    colors : array of shape (n_vertices, 3)
        Colours of what is shown.
    alpha : array of shape (n_vertices,)
        Where it is shown: 0 leaves the grey of the cortex.
    """
    points, tris = hemisphere.turn(view), hemisphere.tris
    points = points - (points.min(0) + points.max(0)) / 2
    alpha = alpha[:, np.newaxis]
    mixed = alpha * colors + (1 - alpha) * hemisphere.grey[:, np.newaxis]
    light = 0.5 + 0.5 * np.clip(_normals(points, tris) @ _LIGHT, 0, 1)
    mixed = np.column_stack([mixed * light[:, np.newaxis], np.ones(len(points))])
    a, b, c = (points[tris[:, ii]] for ii in range(3))
    faces_eye = np.cross(b - a, c - a)[:, 2] > 0
    tris = tris[faces_eye]
    tris = tris[np.argsort((a + b + c)[faces_eye, 2])]  # from back to front
    mesh = TriMesh(Triangulation(*points[:, :2].T, tris), rasterized=True)
    mesh.set_facecolor(mixed)
    ax.add_collection(mesh, autolim=False)

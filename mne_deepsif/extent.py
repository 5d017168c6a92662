"""Extended sources of an estimate: where, how large, when, how strong."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import dataclass
from pathlib import Path

import mne
import numpy as np
from mne.utils import _check_option, _validate_type, verbose
from scipy import sparse

from ._mne import FIFF
from .head.anatomy import read_white
from .head.mesh import edge_graph, find_rows, nearest_along, vertex_areas
from .metrics import active_parcels

_HEMIS = ("lh", "rh")


@dataclass(frozen=True)
class Extent:
    """An extended source.

    Attributes
    ----------
    label : Label
        All surface vertices of the extent. Values are the largest absolute amplitudes
        in the window. Positions are in surface RAS (m).
    tmin, tmax : float
        First and last time of the window (s).
    area : float
        Area on the surface of the source space (m²).
    center : int
        Vertex of the source space nearest the centre of mass, among the vertices of
        the extent. The mass is area times peak amplitude.
    position : array of shape (3,)
        Position of ``center`` in surface RAS (m); NaN if unknown.
    position_mni : array of shape (3,)
        The same in MNI coordinates (MNI305, in m); NaN if unknown.
    peak_vertex : int
        Vertex of the source space where the absolute amplitude is largest.
    peak_time : float
        Time at which it is largest (s).
    peak_amplitude : float
        Signed amplitude of that vertex at that time, in the unit of the estimate: A m
        for :func:`apply_deepsif`.
    """

    label: mne.Label
    tmin: float
    tmax: float
    area: float
    center: int
    position: np.ndarray
    position_mni: np.ndarray
    peak_vertex: int
    peak_time: float
    peak_amplitude: float


class Extents(list):
    """A list of :class:`Extent` that you can turn into a table.

    Parameters
    ----------
    iterable : iterable of Extent
        The extents.
    """

    def to_data_frame(self):
        """Return a table of the extents, in the units that reports use.

        Returns
        -------
        df : pandas.DataFrame
            One row per extent: window and peak time in s, area in cm², positions
            (surface RAS ``x``, ``y``, ``z`` and MNI) in mm, amplitude in the unit of
            the estimate.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError(
                "to_data_frame needs pandas, which is not installed: pip install pandas"
            ) from error
        return pd.DataFrame([_row(extent) for extent in self], columns=_COLUMNS)

    def __repr__(self):
        """List the extents: name, area, and the peak's time and amplitude."""
        if not self:
            return "<Extents | no extent>"
        lines = [
            f"  {e.label.name}: {1e4 * e.area:.1f} cm², peak {e.peak_amplitude:.2g} at "
            f"{_tidy(e.peak_time):g} s"
            for e in self[:_N_LISTED]
        ]
        if len(self) > _N_LISTED:
            lines.append(f"  ... and {len(self) - _N_LISTED} more")
        return "\n".join([f"<Extents | n_extents={len(self)}", *lines]) + ">"


_N_LISTED = 10  # in the repr
_COLUMNS = [
    *("name", "hemi", "tmin", "tmax", "area_cm2", "peak_time", "peak_amplitude"),
    *("peak_vertex", "center_vertex", "x", "y", "z", "mni_x", "mni_y", "mni_z"),
]


def _row(extent):
    label = extent.label
    row = [label.name, label.hemi, _tidy(extent.tmin), _tidy(extent.tmax)]
    row += [1e4 * extent.area, _tidy(extent.peak_time), extent.peak_amplitude]
    row += [extent.peak_vertex, extent.center]
    return [*row, *(1e3 * extent.position), *(1e3 * extent.position_mni)]


def _tidy(time):
    """Round a time to µs: single precision makes -3.2e-09 s of 0."""
    return round(time, 6) + 0.0  # 0.0 instead of -0.0


@verbose
def estimate_extent(
    stc,
    src,
    *,
    windows=None,
    labels=None,
    rule="peak",
    min_area=0.0,
    subjects_dir=None,
    verbose=None,
):
    """Find the active sources of an estimate and measure their extents.

    In each window, Otsu's threshold decides which vertices are active. Each connected
    piece of active surface is one extent.

    Parameters
    ----------
    stc : SourceEstimate | VectorSourceEstimate
        The estimate. For a vector estimate, the norm is used.
    src : Forward | SourceSpaces
        The forward solution that made the estimate, or its surface source space.
        It must hold the whole surfaces, as from :func:`mne.setup_source_space`.
        Vertices that ``stc`` lacks count as silent.
    windows : list of tuple | None
        First and last time (s) of each window. Each window has its own threshold.
        None takes the whole estimate as one window.
    labels : list of Label | None
        Measure these labels (a resection, regions of an atlas) instead of looking for
        active vertices. Labels without a vertex in ``src`` give no extent.
    rule : "peak" | "authors"
        The rule of :func:`mne_deepsif.metrics.active_parcels`.
    min_area : float
        Leave out extents smaller than this (m²; 1e-4 is 1 cm²).
    subjects_dir : path-like | None
        FreeSurfer subjects directory. MNI coordinates need the subject's
        ``mri/transforms/talairach.xfm`` and ``surf``. Not needed for ``fsaverage5``,
        nor for ``fsaverage`` decimated to the vertices of ``fsaverage5``.
    %(verbose)s

    Returns
    -------
    extents : Extents
        A list of :class:`Extent`, window by window. Within a window, the largest peak
        comes first. Names are numbered through all windows. The list is empty if
        nothing stands out.
        :meth:`Extents.to_data_frame` makes a table of it.

    See Also
    --------
    mne.labels_to_stc : Turns labels into an estimate.
    mne.Label.restrict : Keeps the vertices of a label that a source space uses.
    mne.Label.fill : Fills the surface between the vertices of such a label.

    Notes
    -----
    In a decimated source space, each vertex stands for the part of the surface that is
    nearer to it, along the surface, than to any other vertex. Labels and areas cover
    these parts. Estimates of this package are smooth over some 5 mm, so the area of a
    smaller source comes out too large. Areas are measured on the surface in ``src``,
    usually the white surface. The same patch is about a third larger on the
    pial surface. On the template head, you get areas on the template.
    """
    stc = _check_stc(stc)
    surfs, to_mri = _check_src(src)
    _check_option("rule", rule, ("peak", "authors"))
    _check_labels(labels, stc.subject)
    if not min_area >= 0:
        raise ValueError(f"min_area must be 0 or more (m²), got {min_area}.")
    surfaces = [_Surface(surf, to_mri) for surf in surfs]
    data = _spread(stc, surfs)
    mni = _mni(stc.subject, subjects_dir)
    extents = Extents()
    for keep in _window_masks(stc, windows):
        found = _measure_window(
            data[:, keep], stc.times[keep], surfaces, stc.subject, labels, rule, mni
        )
        found = [extent for extent in found if extent.area >= min_area]
        found.sort(key=lambda extent: -abs(extent.peak_amplitude))
        if labels is None:
            for number, extent in enumerate(found, start=len(extents)):
                extent.label.name = f"extent{number}-{extent.label.hemi}"
        extents += found
    return extents


# --------------------------------------------------------------- input


def check_extents(extents):
    """Check that extents are a list of Extent."""
    _validate_type(extents, (list, tuple), "extents")
    for extent in extents:
        _validate_type(extent, Extent, "each element of extents")


def _check_stc(stc):
    _validate_type(stc, (mne.SourceEstimate, mne.VectorSourceEstimate), "stc")
    if not np.isfinite(stc.data).all():
        raise ValueError(
            "stc must be finite, but it has NaN or infinite values. Find out where they"
            " come from, or remove them with stc.crop."
        )
    return stc.magnitude() if isinstance(stc, mne.VectorSourceEstimate) else stc


def _check_src(src):
    """Return the two surfaces and the transform of their positions to surface RAS."""
    _validate_type(src, (mne.Forward, mne.SourceSpaces), "src")
    trans = None
    if isinstance(src, mne.Forward):
        src, trans = src["src"], src["mri_head_t"]
    if [s["type"] for s in src] != ["surf", "surf"]:
        raise ValueError(
            "src must be a surface source space of two hemispheres, got "
            f"{[s['type'] for s in src]}. Make one with mne.setup_source_space."
        )
    for surf in src:
        if not len(surf["tris"]) or len(surf["rr"]) != surf["np"]:
            raise ValueError(
                "src must hold the whole surfaces with their triangles. Pass the "
                "source space of mne.setup_source_space, or the forward made with it."
            )
    frame = src[0]["coord_frame"]
    if frame == FIFF.FIFFV_COORD_MRI:
        return src, np.eye(4)
    if trans is None:  # head coordinates, without the transform to MRI
        return src, np.full((4, 4), np.nan)
    return src, np.linalg.inv(trans["trans"])  # mri_head_t


def _check_labels(labels, subject):
    _validate_type(labels, (list, tuple, None), "labels")
    for label in labels or ():
        _validate_type(label, mne.Label, "each element of labels")
        if None not in (label.subject, subject) and label.subject != subject:
            raise ValueError(
                f"labels must be of the subject of stc, {subject!r}, but {label.name} "
                f"is of {label.subject!r}. Use mne.morph_labels."
            )


def times_within(stc, tmin, tmax):
    """Mark the times of an estimate from tmin to tmax, with slack for rounding."""
    slack = 0.01 * stc.tstep
    return (stc.times >= tmin - slack) & (stc.times <= tmax + slack)


def _window_masks(stc, windows):
    """Return a mask of the times of each window."""
    if windows is None:
        return [np.ones(len(stc.times), bool)]
    masks = []
    for window in windows:
        if np.shape(window) != (2,):
            raise ValueError(
                "windows must be a list of (tmin, tmax) pairs in s, e.g. "
                f"[(0.0, 0.05)], got the element {window!r}."
            )
        tmin, tmax = window
        mask = times_within(stc, tmin, tmax)
        if not mask.any():
            raise ValueError(
                f"windows: ({tmin}, {tmax}) holds no sample of stc, which lasts from "
                f"{stc.times[0]:g} to {stc.times[-1]:g} s."
            )
        masks.append(mask)
    return masks


def _spread(stc, surfs):
    """Return amplitudes of all vertices of the source space, lh and rh."""
    data = np.zeros((sum(surf["nuse"] for surf in surfs), len(stc.times)))
    data[find_rows(stc.vertices, [surf["vertno"] for surf in surfs], "stc")] = stc.data
    return data


# --------------------------------------------------------------- one window


class _Surface:
    """A hemisphere: its mesh, areas, and the used vertex that stands for each."""

    def __init__(self, surf, to_mri):
        self.vertno, self.rr = surf["vertno"], surf["rr"]
        self.position = mne.transforms.apply_trans(to_mri, surf["rr"])
        self.areas = vertex_areas(surf["rr"], surf["tris"])
        self.graph = edge_graph(surf["tris"], surf["np"], surf["rr"])
        # index of the used vertex nearest each vertex
        self.owner = nearest_along(self.graph, self.vertno)

    def of_used(self, mask):
        """Turn a mask of used vertices into one of all vertices."""
        return np.append(mask, False)[self.owner]

    def pieces(self, mask):
        """Split a mask of all vertices into index arrays of connected pieces."""
        inside = np.flatnonzero(mask)
        n_pieces, piece = sparse.csgraph.connected_components(
            self.graph[inside][:, inside], directed=False
        )
        return [inside[piece == number] for number in range(n_pieces)]


def _measure_window(data, times, surfaces, subject, labels, rule, mni):
    active = active_parcels(data, rule)
    extents = []
    for hemi, (surface, used, values) in enumerate(
        zip(surfaces, _by_hemi(active, surfaces), _by_hemi(data, surfaces))
    ):
        if labels is None:
            pieces = surface.pieces(surface.of_used(used))
            pieces = [(None, piece) for piece in pieces]
        else:
            pieces = [
                (label.name, label.get_vertices_used(np.arange(len(surface.rr))))
                for label in labels
                if label.hemi == _HEMIS[hemi]
            ]
        extents += [
            _measure(name, piece, values, times, surface, hemi, subject, mni)
            for name, piece in pieces
            if len(piece) and (surface.owner[piece] >= 0).any()
        ]
    return extents


def _by_hemi(array, surfaces):
    return np.split(array, [len(surfaces[0].vertno)])


def _measure(name, piece, values, times, surface, hemi, subject, mni):
    """Describe the vertices ``piece`` of a hemisphere's surface."""
    used = surface.owner[piece]
    piece, used = piece[used >= 0], used[used >= 0]
    row, when = np.unravel_index(np.abs(values[used]).argmax(), (len(used), len(times)))
    peaks = np.abs(values[used]).max(1)
    weights = surface.areas[piece] * peaks
    center = _nearest_used(surface, used, piece, weights)
    label = mne.Label(
        piece,
        surface.position[piece],
        peaks,
        hemi=_HEMIS[hemi],
        name=name,
        subject=subject,
    )
    return Extent(
        label=label,
        tmin=float(times[0]),
        tmax=float(times[-1]),
        area=float(surface.areas[piece].sum()),
        center=int(center),
        position=surface.position[center],
        position_mni=mni(center, hemi),
        peak_vertex=int(surface.vertno[used[row]]),
        peak_time=float(times[when]),
        peak_amplitude=float(values[used[row], when]),
    )


def _nearest_used(surface, used, piece, weights):
    """Return the used vertex nearest the centre of mass of vertices."""
    weights = weights if weights.any() else np.ones(len(piece))  # a silent label
    middle = np.average(surface.rr[piece], axis=0, weights=weights)
    candidates = surface.vertno[np.unique(used)]
    distance = np.linalg.norm(surface.rr[candidates] - middle, axis=1)
    return candidates[distance.argmin()]


# --------------------------------------------------------------- coordinates


def _mni(subject, subjects_dir):
    """Return a function from vertex and hemisphere to MNI coordinates (m)."""
    unknown = np.full(3, np.nan)
    folder = mne.utils.get_subjects_dir(subjects_dir, raise_error=False)
    if subject is not None and folder is not None:
        subject_dir = Path(folder) / subject
        if (subject_dir / "mri" / "transforms" / "talairach.xfm").is_file():
            return lambda vertex, hemi: (
                mne.vertex_to_mni(vertex, hemi, subject, folder).ravel() / 1e3
            )
    if subject in ("fsaverage", "fsaverage5"):
        white, _ = read_white()  # surface RAS of fsaverage is MNI
        return lambda vertex, hemi: (
            white[hemi][vertex] if vertex < len(white[hemi]) else unknown
        )
    return lambda vertex, hemi: unknown

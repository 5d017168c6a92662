"""Extended sources of an estimate: where, how large, when, how strong."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import mne
import numpy as np
from mne.utils import _check_option, _validate_type, verbose
from scipy import sparse

from ._mne import FIFF
from .head.anatomy import read_white
from .head.leadfield import surface_graph, whiten_evoked
from .head.mesh import (
    edge_graph,
    find_rows,
    nearest_along,
    sum_areas,
    vertex_areas,
)
from .metrics import active_parcels
from .trust.candidates import default_probability, find_sources

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
    probability : float
        Probability that there is a source here, up to 1 cm away. NaN if the extents
        were found by Otsu's threshold, or are labels.
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
    probability: float = np.nan


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
            One row per extent: window and peak time in s, area in cm², probability,
            positions (surface RAS ``x``, ``y``, ``z`` and MNI) in mm, amplitude in the
            unit of the estimate.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError(
                "to_data_frame needs pandas, which is not installed: pip install pandas"
            ) from error
        return pd.DataFrame([_row(extent) for extent in self], columns=_COLUMNS)

    def __repr__(self):
        """List the extents: name, area, probability, the peak's time and amplitude."""
        if not self:
            return "<Extents | no extent>"
        lines = [
            f"  {e.label.name}: {1e4 * e.area:.1f} cm²{_certainty(e)}, peak "
            f"{e.peak_amplitude:.2g} at {_tidy(e.peak_time):g} s"
            for e in self[:_N_LISTED]
        ]
        if len(self) > _N_LISTED:
            lines.append(f"  ... and {len(self) - _N_LISTED} more")
        return "\n".join([f"<Extents | n_extents={len(self)}", *lines]) + ">"


_N_LISTED = 10  # in the repr
_LEAST_TIMES = 3  # of data; noise of fewer looks like a source
_COLUMNS = [
    *("name", "hemi", "tmin", "tmax", "area_cm2", "probability"),
    *("peak_time", "peak_amplitude"),
    *("peak_vertex", "center_vertex", "x", "y", "z", "mni_x", "mni_y", "mni_z"),
]


def _certainty(extent):
    return "" if np.isnan(extent.probability) else f", {extent.probability:.0%} sure"


def _row(extent):
    label = extent.label
    row = [label.name, label.hemi, _tidy(extent.tmin), _tidy(extent.tmax)]
    row += [1e4 * extent.area, extent.probability]
    row += [_tidy(extent.peak_time), extent.peak_amplitude]
    row += [extent.peak_vertex, extent.center]
    return [*row, *(1e3 * extent.position), *(1e3 * extent.position_mni)]


def _tidy(time):
    """Round a time to µs: single precision makes -3.2e-09 s of 0."""
    return round(time, 6) + 0.0  # 0.0 instead of -0.0


@verbose
def estimate_extent(
    stc,
    src,
    evoked=None,
    noise_cov=None,
    *,
    windows=None,
    labels=None,
    rule=None,
    min_probability=None,
    min_area=0.0,
    rank=None,
    subjects_dir=None,
    verbose=None,
):
    """Find the active sources of an estimate and measure their extents.

    With the data, each piece of cortex around a peak of its own is a candidate for a
    source. The data tell how likely it is one. The others are left out, so the list is
    empty where there is no source. Without the data, Otsu's threshold decides which
    vertices are active, and each connected piece of active surface is one extent. This
    rule finds something in any data, even in noise.

    Parameters
    ----------
    stc : SourceEstimate | VectorSourceEstimate
        The estimate. For a vector estimate, the norm is used, and Otsu's threshold.
    src : Forward | SourceSpaces
        The forward solution that made the estimate. Without ``evoked``, its surface
        source space will do. It must hold the whole surfaces, as from
        :func:`mne.setup_source_space`. Vertices that ``stc`` lacks count as silent.
    evoked : Evoked | None
        The data that ``stc`` was estimated from, with the same times.
    noise_cov : Covariance | None
        Noise covariance. None takes an ad hoc one, as in :func:`apply_deepsif`.
    windows : list of tuple | None
        First and last time (s) of each window. Each window is looked at by itself.
        None takes the whole estimate as one window.
    labels : list of Label | None
        Measure these labels (a resection, regions of an atlas) instead of looking for
        active vertices. Labels without a vertex in ``src`` give no extent.
    rule : "probability" | "peak" | "authors" | None
        ``"probability"`` needs ``evoked``, of three samples or more. ``"peak"`` and
        ``"authors"`` are Otsu's threshold, see
        :func:`mne_deepsif.metrics.active_parcels`. None takes ``"probability"`` if
        there is such an ``evoked``, and else ``"peak"``.
    min_probability : float | None
        Leave out what is less likely to be a source. 0 lists all candidates. None takes
        the value at which 3 %% of simulated windows without a source have an extent.
        Not used by the other rules and for labels.
    min_area : float
        Leave out extents smaller than this (m²; 1e-4 is 1 cm²).
    rank : None | 'info' | 'full' | dict
        Rank of the noise covariance, see :func:`mne.compute_rank`.
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
    :doc:`/extent` says how the probability is computed, and how far it can be trusted.

    In a decimated source space, each vertex stands for the part of the surface that is
    nearer to it, along the surface, than to any other vertex. Labels and areas cover
    these parts. Estimates of this package are smooth over some 5 mm, so the area of a
    smaller source comes out too large. Areas are measured on the surface in ``src``,
    usually the white surface. The same patch is about a third larger on the
    pial surface. On the template head, you get areas on the template.
    """
    rule = _check_rule(rule, stc, src, evoked, labels)
    if noise_cov is not None and evoked is None:
        raise ValueError("evoked must be given too if there is noise_cov.")
    stc = _check_stc(stc)
    surfs, to_mri = _check_src(src)
    _check_labels(labels, stc.subject)
    if min_probability is None:
        min_probability = default_probability()
    _check_least(min_area, min_probability)
    surfaces = [_Surface(surf, to_mri) for surf in surfs]
    rows = find_rows(stc.vertices, [surf["vertno"] for surf in surfs], "stc")
    sources = np.zeros((sum(surf["nuse"] for surf in surfs), len(stc.times)))
    sources[rows] = stc.data
    masks = _window_masks(stc, windows)
    if labels is not None:
        pieces = [_label_pieces(labels, surfaces)] * len(masks)
    elif rule == "probability":
        check_same_times(stc, evoked)
        gain, data = whiten_evoked(evoked, src, noise_cov, rank)
        graph, areas = surface_graph(surfs), _used_areas(surfaces, rows)
        found = (
            find_sources(sources[:, keep], graph, areas, gain, data[:, keep])
            for keep in masks
        )
        pieces = [_source_pieces(one, min_probability, surfaces) for one in found]
    else:
        active = (active_parcels(sources[:, keep], rule) for keep in masks)
        pieces = [_active_pieces(one, surfaces) for one in active]
    mni = _mni(stc.subject, subjects_dir)
    extents = Extents()
    for keep, here in zip(masks, pieces):
        window, times = sources[:, keep], stc.times[keep]
        found = [
            _measure(piece, surfaces, window, times, stc.subject, mni)
            for piece in here
            if (surfaces[piece.hemi].owner[piece.vertices] >= 0).any()
        ]
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


def check_same_times(stc, evoked):
    """Demand an estimate and data of the same times."""
    same = len(stc.times) == len(evoked.times)
    if not same or np.abs(stc.times - evoked.times).max() > 0.01 * stc.tstep:
        raise ValueError(
            "stc and evoked must have the same times. Crop one to those of the other."
        )


def _check_rule(rule, stc, src, evoked, labels):
    """Choose the rule, and demand what it needs."""
    _check_option("rule", rule, ("probability", "peak", "authors", None))
    _validate_type(evoked, (mne.Evoked, None), "evoked")
    vector = isinstance(stc, mne.VectorSourceEstimate)
    enough = evoked is not None and len(evoked.times) >= _LEAST_TIMES
    if rule is None:
        rule = "probability" if enough and labels is None and not vector else "peak"
    if rule == "probability":
        if labels is not None:
            raise ValueError(
                "labels are measured as they are: rule must be None if they are given."
            )
        if evoked is not None and not enough:
            raise ValueError(
                f"evoked must have {_LEAST_TIMES} samples or more for "
                f"rule='probability', got {len(evoked.times)}: noise is not everywhere "
                "at once in fewer."
            )
        if evoked is None:
            raise ValueError(
                "evoked must be given for rule='probability': it compares the estimate "
                "with the data. Pass the Evoked that stc was estimated from."
            )
        _validate_type(stc, mne.SourceEstimate, "stc")
        _validate_type(src, mne.Forward, "src")
    return rule


def _check_least(min_area, min_probability):
    if not min_area >= 0:
        raise ValueError(f"min_area must be 0 or more (m²), got {min_area}.")
    if not 0 <= min_probability <= 1:
        raise ValueError(
            f"min_probability must be between 0 and 1, got {min_probability}."
        )


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


class _Piece(NamedTuple):
    """Vertices of a hemisphere's surface that are measured."""

    hemi: int
    vertices: np.ndarray
    name: str | None = None
    probability: float = np.nan


def _label_pieces(labels, surfaces):
    pieces = []
    for label in sorted(labels, key=lambda label: label.hemi):
        hemi = _HEMIS.index(label.hemi)
        vertices = label.get_vertices_used(np.arange(len(surfaces[hemi].rr)))
        pieces.append(_Piece(hemi, vertices, label.name))
    return pieces


def _active_pieces(active, surfaces):
    """Return the connected pieces of a mask of the used vertices, lh and rh."""
    return [
        _Piece(hemi, vertices)
        for hemi, (surface, used) in enumerate(
            zip(surfaces, _by_hemi(active, surfaces))
        )
        for vertices in surface.pieces(surface.of_used(used))
    ]


def _source_pieces(found, min_probability, surfaces):
    """Return the surface of what is likely enough."""
    pieces = []
    n_left = len(surfaces[0].vertno)
    for used, probability in found:
        if probability < min_probability:
            continue
        hemi = int(used[0] >= n_left)
        mask = np.zeros(len(surfaces[hemi].vertno), bool)
        mask[used - hemi * n_left] = True
        vertices = np.flatnonzero(surfaces[hemi].of_used(mask))
        pieces.append(_Piece(hemi, vertices, probability=float(probability)))
    return pieces


def _by_hemi(array, surfaces):
    return np.split(array, [len(surfaces[0].vertno)])


def _used_areas(surfaces, rows):
    """Return the area of each used vertex, lh and rh; zero but in some rows."""
    areas = np.concatenate(
        [sum_areas(one.owner, one.areas, len(one.vertno)) for one in surfaces]
    )
    kept = np.zeros(len(areas))
    kept[rows] = areas[rows]
    return kept


def _measure(piece, surfaces, data, times, subject, mni):
    """Describe a piece of a hemisphere's surface."""
    surface, hemi = surfaces[piece.hemi], piece.hemi
    values = _by_hemi(data, surfaces)[hemi]
    used = surface.owner[piece.vertices]
    vertices, used = piece.vertices[used >= 0], used[used >= 0]
    row, when = np.unravel_index(np.abs(values[used]).argmax(), (len(used), len(times)))
    peaks = np.abs(values[used]).max(1)
    weights = surface.areas[vertices] * peaks
    center = _nearest_used(surface, used, vertices, weights)
    label = mne.Label(
        vertices,
        surface.position[vertices],
        peaks,
        hemi=_HEMIS[hemi],
        name=piece.name,
        subject=subject,
    )
    return Extent(
        label=label,
        tmin=float(times[0]),
        tmax=float(times[-1]),
        area=float(surface.areas[vertices].sum()),
        center=int(center),
        position=surface.position[center],
        position_mni=mni(center, hemi),
        peak_vertex=int(surface.vertno[used[row]]),
        peak_time=float(times[when]),
        peak_amplitude=float(values[used[row], when]),
        probability=piece.probability,
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

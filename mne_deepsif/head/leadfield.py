"""The whitened leadfield of the parcels, from info, forward and noise covariance.

Training and estimation both use :func:`make_leadfield`.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import dataclass
from typing import NamedTuple

import mne
import numpy as np
from mne.utils import _validate_type, logger, verbose, warn
from scipy import sparse

from .._mne import check_compensation_grade, is_fixed_orient
from .bipolar import match_bipolar
from .channels import (
    check_ch_types,
    check_sensor_positions,
    demand_ch_names,
    make_projector_and_whitener,
    pick_ch_names,
    pick_data,
    pick_info,
)
from .mesh import used_graph
from .parcels import assign_vertices


@dataclass(frozen=True)
class Leadfield:
    """Leadfield of the parcels for the channels that are used.

    Parameters
    ----------
    ch_names : list of str
        The channels used, in the order of the data.
    ch_types : list of str
        Their types: ``'eeg'``, ``'mag'`` or ``'grad'``.
    gain : array of shape (n_channels, n_parcels)
        Parcel gain after projectors and average reference, V or T (T/m) per A/m: the
        mean gain of the parcel's vertices, times the parcel's area. Zero for a parcel
        without vertices.
    projector : array of shape (n_channels, n_channels)
        SSP projectors and EEG average reference in one matrix.
    whitener : array of shape (rank, n_channels)
        Whitener, including the projector.
    gain_white : array of shape (rank, n_parcels)
        ``whitener @ gain``.
    parcel_of_vertex : list of array of int
        Parcel of each source space vertex, lh and rh; -1 where there is none.
    vertex_area : csr_array of shape (n_vertices, n_parcels)
        Turns parcel activity (A/m) into dipole moments of the vertices (A m). Entries
        are the parcel's area divided by its number of vertices.
    vertex_gain : array of shape (n_channels, n_vertices)
        Gain of each vertex after projectors and average reference, V or T (T/m) per
        A m.
    surface_graph : csr_array of shape (n_vertices, n_vertices)
        Distances between neighbouring vertices (m).
    normals : array of shape (n_vertices, 3)
        Orientation of the vertices' dipoles in the forward's coordinate frame.
    vertices : list of array of int
        Vertex numbers of the source space, lh and rh.
    subject : str | None
        The subject of the source space.
    """

    ch_names: list
    ch_types: list
    gain: np.ndarray
    projector: np.ndarray
    whitener: np.ndarray
    gain_white: np.ndarray
    parcel_of_vertex: list
    vertex_area: sparse.csr_array
    vertex_gain: np.ndarray
    surface_graph: sparse.csr_array
    normals: np.ndarray
    vertices: list
    subject: str | None

    def whiten(self, data):
        """Project and whiten sensor data.

        Parameters
        ----------
        data : array of shape (n_channels, n_times)
            Data of the channels ``ch_names``, projected or not.

        Returns
        -------
        data_white : array of shape (rank, n_times)
            Data in units of the noise's standard deviation.
        """
        return self.whitener @ data


@verbose
def make_leadfield(
    info,
    fwd,
    noise_cov=None,
    *,
    parcels,
    ch_names=None,
    rank=None,
    nave=1,
    subjects_dir=None,
    verbose=None,
):
    """Make the whitened leadfield of the parcels.

    Parameters
    ----------
    info : Info
        Measurement info of the data: channels, bads, projectors, compensation.
    fwd : Forward
        Forward solution with a surface source space of both hemispheres. Free
        orientation is converted to the surface normals, in a copy.
    noise_cov : Covariance | None
        Noise covariance. None makes an ad-hoc one, with a warning.
    parcels : Parcels
        Parcels of the template.
    ch_names : list of str | None
        The channels to use, in this order. It is an error if one cannot be used. None
        takes all usable channels.
    rank : None | 'info' | 'full' | dict
        Rank of the noise covariance, see :func:`mne.compute_rank`.
    nave : int
        Number of averages: the noise covariance is divided by it.
    subjects_dir : path-like | None
        FreeSurfer subjects directory, with the surfaces of the forward's subject.
    %(verbose)s

    Returns
    -------
    leadfield : Leadfield
        Leadfield of the parcels, plain and whitened.

    Notes
    -----
    The channels used are the EEG, magnetometer and gradiometer channels that the data,
    the forward solution and the noise covariance share, in the order of the data.
    Channels that the data or the covariance mark as bad are left out. The forward
    solution's own list of bad channels is ignored, as in
    :func:`mne.minimum_norm.make_inverse_operator`.

    All projectors of ``info``, active or not, are applied to the gain and to the data.
    EEG needs an average reference, either as a projector or applied
    (``set_eeg_reference('average')``). An applied one becomes a projector over the
    channels used. Whether the data really have it is checked when you estimate them.
    """
    vertex = make_vertex_gain(info, fwd, noise_cov, ch_names, rank, nave)
    parcel_of_vertex = assign_vertices(parcels, fwd["src"], subjects_dir)
    vertex_area = _make_vertex_area(parcel_of_vertex, parcels)
    gain = vertex.gain @ vertex_area
    return Leadfield(
        ch_names=vertex.info["ch_names"],
        ch_types=vertex.info.get_channel_types(),
        gain=gain,
        projector=vertex.projector,
        whitener=vertex.whitener,
        gain_white=vertex.whitener @ gain,
        parcel_of_vertex=parcel_of_vertex,
        vertex_area=vertex_area,
        vertex_gain=vertex.gain,
        surface_graph=surface_graph(fwd["src"]),
        normals=vertex.normals,
        vertices=[s["vertno"] for s in fwd["src"]],
        subject=fwd["src"][0].get("subject_his_id"),
    )


class VertexGain(NamedTuple):
    """Gain of the vertices for the channels that are used.

    Attributes
    ----------
    info : Info
        Measurement info of the channels used, in the order of the data.
    gain : array of shape (n_channels, n_vertices)
        Gain after projectors and average reference, V or T (T/m) per A m.
    normals : array of shape (n_vertices, 3)
        Orientation of the dipoles in the forward's coordinate frame.
    projector : array of shape (n_channels, n_channels)
        SSP projectors and EEG average reference in one matrix.
    whitener : array of shape (rank, n_channels)
        Whitener, including the projector.
    """

    info: mne.Info
    gain: np.ndarray
    normals: np.ndarray
    projector: np.ndarray
    whitener: np.ndarray


def make_vertex_gain(info, fwd, noise_cov, ch_names=None, rank=None, nave=1):
    """Choose the channels; make the gain of the vertices and the whitener.

    Parameters
    ----------
    info : Info
        As in :func:`make_leadfield`, like all of the others.
    fwd : Forward
        Forward solution.
    noise_cov : Covariance | None
        Noise covariance.
    ch_names : list of str | None
        The channels to use.
    rank : None | 'info' | 'full' | dict
        Rank of the noise covariance.
    nave : int
        Number of averages.

    Returns
    -------
    vertex : VertexGain
        Gain and whitener.
    """
    _check_input(info, fwd, noise_cov, nave)
    fwd = match_bipolar(fwd, info)
    usable = pick_ch_names(info, fwd, noise_cov)
    ch_names = usable if ch_names is None else demand_ch_names(ch_names, usable)
    check_compensation_grade(fwd["info"], info, "fwd")
    check_ch_types(info, fwd["info"], ch_names)
    check_sensor_positions(info, fwd["info"], ch_names)
    info = pick_info(info, ch_names)
    projector, whitener = make_projector_and_whitener(info, noise_cov, rank)
    whitener = np.sqrt(nave) * whitener
    gain, normals = fix_orientation(fwd, ch_names)
    _check_gain(gain)
    return VertexGain(info, projector @ gain, normals, projector, whitener)


def whiten_evoked(evoked, fwd, noise_cov, rank=None):
    """Whiten a response, and the gain of the vertices.

    Parameters
    ----------
    evoked : Evoked
        The response.
    fwd : Forward
        Forward solution.
    noise_cov : Covariance | None
        Noise covariance; None takes an ad hoc one.
    rank : None | 'info' | 'full' | dict
        Rank of the noise covariance.

    Returns
    -------
    gain_white : array of shape (rank, n_vertices)
        Gain along the normals.
    data_white : array of shape (rank, n_times)
        The data, in units of the noise of a single trial.
    """
    if noise_cov is None:
        noise_cov = mne.make_ad_hoc_cov(evoked.info)
    vertex = make_vertex_gain(evoked.info, fwd, noise_cov, rank=rank)
    picks = [evoked.ch_names.index(name) for name in vertex.info["ch_names"]]
    data = pick_data(evoked.data, picks, vertex.info["ch_names"])
    return vertex.whitener @ vertex.gain, vertex.whitener @ data


def surface_graph(src):
    """Connect neighbouring vertices of a source space.

    Parameters
    ----------
    src : SourceSpaces
        A surface source space.

    Returns
    -------
    graph : csr_array of shape (n_vertices, n_vertices)
        Distances between neighbouring vertices (m), lh and rh.
    """
    return sparse.block_diag([used_graph(s) for s in src], "csr")


def channel_std(leadfield):
    """Compute the noise of each channel from the whitener.

    Parameters
    ----------
    leadfield : Leadfield
        Leadfield of the channels used.

    Returns
    -------
    std : array of shape (n_channels, 1)
        Standard deviation of the projected noise, in V or T (T/m).
    """
    std = np.sqrt(np.square(np.linalg.pinv(leadfield.whitener)).sum(1))
    return np.where(std > 0, std, std.max())[:, np.newaxis]


# --------------------------------------------------------------- input


def _check_input(info, fwd, noise_cov, nave):
    _validate_type(info, mne.Info, "info")
    _validate_type(fwd, mne.Forward, "fwd")
    _validate_type(noise_cov, (mne.Covariance, None), "noise_cov")
    check_nave(nave)
    src = fwd["src"]
    if src.kind != "surface" or len(src) != 2:
        raise ValueError(
            "fwd must have a surface source space of both hemispheres, got "
            f"{len(src)} source space(s) of kind {src.kind!r}. Make the forward "
            "solution with the source space of mne.setup_source_space, without volumes."
        )


def check_nave(nave):
    """Check a number of averages."""
    _validate_type(nave, "numeric", "nave")
    if not nave > 0:
        raise ValueError(f"The number of averages (nave) must be > 0, got {nave}.")


# --------------------------------------------------------------- gain


def fix_orientation(fwd, ch_names):
    """Compute the gain along the normals of the cortex.

    Parameters
    ----------
    fwd : Forward
        Forward solution, of free or fixed orientation.
    ch_names : list of str
        The channels.

    Returns
    -------
    gain : array of shape (n_channels, n_vertices)
        The gain (V or T per A m).
    normals : array of shape (n_vertices, 3)
        The normals, in the forward's coordinate frame.
    """
    fwd = mne.pick_channels_forward(fwd, ch_names, ordered=True)
    if not is_fixed_orient(fwd):
        fwd = mne.convert_forward_solution(fwd, surf_ori=True, force_fixed=True)
    return fwd["sol"]["data"].astype(float), fwd["source_nn"].astype(float)


def _check_gain(gain):
    if not np.isfinite(gain).all():
        wrong = np.count_nonzero(~np.isfinite(gain).all(0))
        raise ValueError(
            f"The forward solution has NaN or infinite values at {wrong} of "
            f"{gain.shape[1]} vertices. Compute it again."
        )
    if not gain.any():
        raise ValueError("The forward solution is zero everywhere. Compute it again.")


def _make_vertex_area(parcel_of_vertex, parcels):
    """Share each parcel's area among its vertices: (n_vertices, n_parcels), m²."""
    parcel = np.concatenate(parcel_of_vertex)
    vertex = np.flatnonzero(parcel >= 0)
    n_vertices = np.bincount(parcel[vertex], minlength=parcels.n_parcels)
    _report_empty(n_vertices == 0, parcels.adjacency)
    area = (parcels.areas / np.maximum(n_vertices, 1))[parcel[vertex]]
    shape = (len(parcel), parcels.n_parcels)
    return sparse.csr_array((area, (vertex, parcel[vertex])), shape)


def _report_empty(empty, adjacency):
    if empty.all():
        raise ValueError("No vertex of the forward's source space lies in a parcel.")
    message = (
        f"{empty.sum()} of {len(empty)} parcels have no vertex in the forward's source "
        "space and cannot be estimated."
    )
    if empty.mean() <= 0.05:
        if empty.any():
            logger.info(message)
    elif _is_one_region(~empty, adjacency):
        warn(
            f"{message} It covers only a part of the cortex. Activity elsewhere would "
            "be placed into this part. Use the forward of the whole cortex, and label "
            "to choose what is returned."
        )
    else:
        warn(f"{message} Use a denser source space, e.g. oct6.")


def _is_one_region(filled, adjacency):
    """Tell whether parcels lie together, in contrast to being scattered evenly."""
    neighbours = adjacency[filled].astype(int)
    together = (neighbours @ filled).sum() / max(1, neighbours.sum())
    by_chance = filled.mean()
    return filled.sum() == 1 or together > min(by_chance + 0.1, (by_chance + 1) / 2)

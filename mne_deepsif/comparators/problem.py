"""What both comparators start from: whitened data, whitened gain, neighbours."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from typing import NamedTuple

import mne
import numpy as np
from mne.utils import _validate_type
from scipy import sparse

from ..head.channels import pick_data
from ..head.leadfield import make_vertex_gain, surface_graph
from ..head.reference import check_average_reference
from ..head.units import check_units


class Problem(NamedTuple):
    """Data and gain in units of the noise's standard deviation.

    Attributes
    ----------
    data : array of shape (rank, n_times)
        Whitened data.
    gain : array of shape (rank, n_vertices)
        Whitened gain along the normals, per A m.
    graph : csr_array of shape (n_vertices, n_vertices)
        Distances between neighbouring vertices (m).
    """

    data: np.ndarray
    gain: np.ndarray
    graph: sparse.csr_array


def make_problem(evoked, fwd, noise_cov, rank):
    """Whiten data and gain of an Evoked.

    Parameters
    ----------
    evoked : Evoked
        The data.
    fwd : Forward
        Forward solution with a surface source space of both hemispheres.
    noise_cov : Covariance
        Noise covariance of single trials.
    rank : None | 'info' | 'full' | dict
        Rank of the noise covariance.

    Returns
    -------
    problem : Problem
        Whitened data and gain.
    """
    _validate_type(evoked, mne.Evoked, "evoked")
    _validate_type(noise_cov, mne.Covariance, "noise_cov")
    info = evoked.info
    vertex = make_vertex_gain(info, fwd, noise_cov, rank=rank, nave=evoked.nave)
    graph = surface_graph(fwd["src"])
    if not graph.nnz:
        raise ValueError(
            "fwd must have a source space with triangles, but its vertices have no "
            "neighbours. Make the forward solution with the source space of "
            "mne.setup_source_space."
        )
    ch_names = vertex.info["ch_names"]
    picks = mne.pick_channels(info["ch_names"], ch_names, ordered=True)
    data = pick_data(evoked.data, picks, ch_names)
    check_average_reference(info, evoked.data, ch_names)
    check_units(data, vertex.info.get_channel_types(), nave=evoked.nave)
    return Problem(vertex.whitener @ data, vertex.whitener @ vertex.gain, graph)


def to_stc(sources, evoked, fwd):
    """Give dipole moments of all vertices as a SourceEstimate.

    Parameters
    ----------
    sources : array of shape (n_vertices, n_times)
        Dipole moments (A m).
    evoked : Evoked
        The data, for the times.
    fwd : Forward
        Forward solution, for the vertices.

    Returns
    -------
    stc : SourceEstimate
        The estimate.
    """
    return mne.SourceEstimate(
        sources,
        vertices=[s["vertno"] for s in fwd["src"]],
        tmin=float(evoked.times[0]),
        tstep=1 / evoked.info["sfreq"],
        subject=fwd["src"][0].get("subject_his_id"),
    )


def signal_components(data):
    """Decompose whitened data; keep what is stronger than noise.

    The largest singular value of unit white noise of shape (n, m) is close to
    sqrt(n) + sqrt(m). Components with larger ones are kept, but at least one.

    Parameters
    ----------
    data : array of shape (rank, n_times)
        Whitened data.

    Returns
    -------
    maps : array of shape (rank, n_components)
        Orthonormal topographies, strongest first.
    courses : array of shape (n_components, n_times)
        Orthonormal time courses.
    """
    maps, values, courses = np.linalg.svd(data, full_matrices=False)
    noise = np.sqrt(data.shape).sum()
    n_components = max(1, np.count_nonzero(values > noise))
    return maps[:, :n_components], courses[:n_components]


def check_depth(depth):
    """Check the exponent of a depth weighting."""
    _validate_type(depth, "numeric", "depth")
    if not 0 <= depth <= 1:
        raise ValueError(
            f"depth must be between 0 and 1, got {depth}. Use 0 for no weighting."
        )


def depth_weights(gain, depth):
    """Compute the weights that make up for the distance from the sensors.

    Parameters
    ----------
    gain : array of shape (rank, n_vertices)
        Whitened gain.
    depth : float
        0 does nothing, 1 makes the gains of all vertices equally large.

    Returns
    -------
    weights : array of shape (n_vertices,)
        The norm of each column, relative to the largest, to the power -depth.
    """
    norms = np.linalg.norm(gain, axis=0)
    # a vertex that no sensor sees needs a weight, too
    return np.maximum(norms / norms.max(), 1e-6) ** -depth

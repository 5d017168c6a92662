"""From data, forward and noise covariance to the whitened leadfield of the parcels.

The only module that knows channels: which ones are used, how they are referenced,
projected and whitened. Training and use both come through :func:`make_leadfield`.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import dataclass

import mne
import numpy as np

# Names that MNE does not document; they are imported here and nowhere else.
from mne.annotations import _annotations_starts_stops
from mne.forward import is_fixed_orient
from mne.io.constants import FIFF
from mne.proj import make_eeg_average_ref_proj, make_projector
from mne.utils import _validate_type, logger, verbose, warn
from mne.utils.check import _check_compensation_grade
from scipy import sparse

from .parcels import assign_vertices

# The mean over average-referenced channels is zero, apart from rounding and from the
# few channels interpolated afterwards; that of bipolar EEG is about 1 / sqrt(n).
_MAX_MEAN = 0.05
_FLAT = 1e-12  # V: less is what rounding leaves of a flat stretch
_MAX_DISPLACEMENT = 5e-3  # m; between the sensors of the data and of the forward


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
        Parcel gain after projectors and average reference, V or T (T/m) per A/m:
        the mean over the parcel's vertices times its area. Zero for a parcel
        without vertices.
    projector : array of shape (n_channels, n_channels)
        SSP projectors and EEG average reference in one matrix.
    whitener : array of shape (rank, n_channels)
        Whitener, the projector included.
    gain_white : array of shape (rank, n_parcels)
        ``whitener @ gain``.
    parcel_of_vertex : list of array of int
        Parcel of each source space vertex, lh and rh; -1 where there is none.
    vertex_area : csr_array of shape (n_vertices, n_parcels)
        Turns parcel activity (A/m) into dipole moments of the vertices (A m): the
        parcel's area over its number of vertices.
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
        Forward solution with a surface source space of both hemispheres; one with
        free orientation is converted to the surface normals in a copy.
    noise_cov : Covariance | None
        Noise covariance; None makes an ad-hoc one, with a warning.
    parcels : Parcels
        Parcels of the template.
    ch_names : list of str | None
        The channels to use, in this order; an error if one cannot be used. None
        uses all that can be.
    rank : None | 'info' | 'full' | dict
        Rank of the noise covariance, see :func:`mne.compute_rank`.
    nave : int
        Number of averages: the noise covariance is divided by it.
    subjects_dir : path-like | None
        Where the surfaces of the forward's subject are.
    %(verbose)s

    Returns
    -------
    leadfield : Leadfield
        Leadfield in parcels, plain and whitened.

    Notes
    -----
    Used channels are the EEG, magnetometer and gradiometer channels that data,
    forward and noise covariance share, without those that the data or the
    covariance call bad, in the order of the data. The forward's own list of bads is
    not consulted, as in :func:`mne.minimum_norm.make_inverse_operator`.

    All projectors of ``info`` are applied to the gain and to the data, active or
    not. EEG needs an average reference: either as a projector or applied
    (``set_eeg_reference('average')``). The latter becomes a projector over the
    used channels here; see :func:`check_average_reference`.
    """
    _check_input(info, fwd, noise_cov, nave)
    usable = _pick_ch_names(info, fwd, noise_cov)
    ch_names = usable if ch_names is None else _demand_ch_names(ch_names, usable)
    _check_compensation_grade(fwd["info"], info, "fwd")
    _check_sensor_positions(info, fwd["info"], ch_names)
    info = _pick_info(info, ch_names)
    projector, whitener = _make_whitener(info, noise_cov, rank, nave)
    vertex_gain, normals = _fix_orientation(fwd, ch_names)
    _check_gain(vertex_gain)
    parcel_of_vertex = assign_vertices(parcels, fwd["src"], subjects_dir)
    vertex_area = _make_vertex_area(parcel_of_vertex, parcels.areas)
    gain = projector @ (vertex_gain @ vertex_area)
    return Leadfield(
        ch_names=ch_names,
        ch_types=info.get_channel_types(),
        gain=gain,
        projector=projector,
        whitener=whitener,
        gain_white=whitener @ gain,
        parcel_of_vertex=parcel_of_vertex,
        vertex_area=vertex_area,
        normals=normals,
        vertices=[s["vertno"] for s in fwd["src"]],
        subject=fwd["src"][0].get("subject_his_id"),
    )


def check_average_reference(info, data, ch_names):
    """Check that EEG with a custom reference is average-referenced.

    Parameters
    ----------
    info : Info
        Measurement info of the data.
    data : array of shape (n_all_channels, n_times)
        Data of all channels of ``info``.
    ch_names : list of str
        The channels used.

    Notes
    -----
    MNE marks an applied average reference as a custom one and does not keep which
    it is, so the data tell: the mean over the EEG channels (the good ones, or all
    of them) must stay below 5 % of their root mean square.
    """
    eeg = mne.pick_types(info, eeg=True, exclude=())
    if not info["custom_ref_applied"] or not set(ch_names) & {
        info["ch_names"][pick] for pick in eeg
    }:
        return
    good = mne.pick_types(info, eeg=True, exclude="bads")
    share = min(_mean_share(data[good]), _mean_share(data[eeg]))
    if not share < _MAX_MEAN:
        raise ValueError(
            "Custom EEG reference is not allowed for inverse modeling, unless it is "
            f"the average: the mean over the EEG channels is {100 * share:.0f} % of "
            "their root mean square, it should be 0. Use "
            "set_eeg_reference('average', projection=True)."
        )


def check_same_sensors(info, made_for, leadfield):
    """Check that a leadfield made for one recording suits another.

    Parameters
    ----------
    info : Info
        Measurement info of the data.
    made_for : Info
        Measurement info that the leadfield was made with.
    leadfield : Leadfield
        The leadfield.
    """
    ch_names = leadfield.ch_names
    wrong = set(info["bads"]) | (set(ch_names) - set(info["ch_names"]))
    wrong = [name for name in ch_names if name in wrong]
    remedy = "Make one for these data: make_deepsif_operator(evoked.info, ...)."
    if wrong:
        raise ValueError(
            f"{len(wrong)} of the operator's {len(ch_names)} channels are bad or "
            f"missing in the data: {wrong[:10]}. {remedy}"
        )
    _check_compensation_grade(made_for, info, "operator")
    if not _same_positions(info, made_for, ch_names):  # a tenth of the other's time
        _check_sensor_positions(info, made_for, ch_names)
    if not _same_projectors(info, made_for):
        raise ValueError(
            "The projectors or the EEG reference of the data are not those that the "
            f"operator was made with. {remedy}"
        )


def _same_positions(info, other, ch_names):
    """Say whether positions are exactly equal."""
    if info["dev_head_t"] != other["dev_head_t"]:
        return False
    here, there = _locations(info, ch_names), _locations(other, ch_names)
    return np.array_equal(here, there, equal_nan=True)


def _locations(info, ch_names):
    loc = {ch["ch_name"]: ch["loc"] for ch in info["chs"]}
    return np.array([loc[name] for name in ch_names])


def _same_projectors(info, other):
    """Compare projectors, active or not; an applied reference counts as one."""
    if info["custom_ref_applied"] != other["custom_ref_applied"]:
        return False
    if len(info["projs"]) != len(other["projs"]):
        return False
    return all(
        one["data"]["col_names"] == two["data"]["col_names"]
        and np.allclose(one["data"]["data"], two["data"]["data"])
        for one, two in zip(info["projs"], other["projs"])
    )


def good_spans(raw, start, stop):
    """List the spans between what is annotated as bad or as an edge.

    Parameters
    ----------
    raw : Raw
        The recording.
    start, stop : int
        The samples looked at.

    Returns
    -------
    spans : list of tuple of int
        First sample, and first sample after, of each span without annotations that
        start with ``"bad"`` or ``"edge"`` (in any case).
    """
    onsets, ends = _annotations_starts_stops(raw, ("bad", "edge"))
    bad = np.zeros(stop - start + 1, bool)
    onsets, ends = (np.clip(x - start, 0, stop - start) for x in (onsets, ends))
    for onset, end in zip(onsets, ends):
        bad[onset:end] = True
    bounds = np.unique([0, *onsets, *ends, stop - start])
    return [
        (start + int(first), start + int(last))
        for first, last in zip(bounds[:-1], bounds[1:])
        if not bad[first]
    ]


def _mean_share(data):
    """Compute rms of the channels' mean over rms of the channels."""
    rms = np.sqrt(np.mean(np.square(data)))
    return np.sqrt(np.mean(np.square(data.mean(0)))) / rms if rms > _FLAT else 0.0


# --------------------------------------------------------------- input


def _check_input(info, fwd, noise_cov, nave):
    _validate_type(info, mne.Info, "info")
    _validate_type(fwd, mne.Forward, "fwd")
    _validate_type(noise_cov, (mne.Covariance, None), "noise_cov")
    _validate_type(nave, "numeric", "nave")
    if not nave > 0:
        raise ValueError(f"nave must be positive, got {nave}.")
    src = fwd["src"]
    if src.kind != "surface" or len(src) != 2:
        raise ValueError(
            "fwd must have a surface source space of both hemispheres, got "
            f"{len(src)} source space(s) of kind {src.kind!r}. Make the forward with "
            "the source space of mne.setup_source_space, without volumes."
        )


def _pick_ch_names(info, fwd, noise_cov):
    """List the channels used, in the order of the data."""
    picks = mne.pick_types(info, meg=True, eeg=True, ref_meg=False, exclude=())
    names = [info["ch_names"][pick] for pick in picks]
    if not names:
        raise ValueError("The data have neither EEG nor MEG channels.")
    names = _keep_shared(names, fwd["sol"]["row_names"], "forward")
    bads = set(info["bads"])
    if noise_cov is not None:
        names = _keep_shared(names, noise_cov["names"], "noise covariance")
        if set(noise_cov["bads"]) ^ bads & set(noise_cov["names"]):
            logger.info(
                'info["bads"] and noise_cov["bads"] do not match, excluding bad '
                "channels from both"
            )
        bads |= set(noise_cov["bads"])
    good = [name for name in names if name not in bads]
    if not good:
        raise ValueError(
            f"All {len(names)} channels that the data share with the forward and the "
            "noise covariance are marked bad. Check info['bads'] and "
            "noise_cov['bads']."
        )
    logger.info("Using %d channels (%d bad).", len(good), len(names) - len(good))
    return good


def _keep_shared(names, others, what):
    shared = [name for name in names if name in set(others)]
    if not shared:
        raise ValueError(
            f"The data and the {what} have no channel in common: the data start with "
            f"{names[:3]}, the {what} with {list(others)[:3]}. Use a {what} made for "
            "these channels, or rename the channels of the data."
        )
    if len(shared) < len(names):
        n_missing = len(names) - len(shared)
        logger.info("%d channels are not in the %s: left out.", n_missing, what)
    return shared


def _demand_ch_names(ch_names, usable):
    missing = [name for name in ch_names if name not in set(usable)]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(ch_names)} channels that the estimator reads are "
            "bad or missing in the data, the forward or the noise covariance: "
            f"{missing}. Either interpolate the data to the estimator's sensors "
            "(interpolate_bads, interpolate_to), or train an estimator for these "
            "channels (fit), or use estimator='generic', which takes any channels."
        )
    return list(ch_names)


def _check_sensor_positions(info, fwd_info, ch_names):
    """Warn if the forward was computed for sensors elsewhere."""
    here, there = _sensor_positions(info), _sensor_positions(fwd_info)
    moves = [np.linalg.norm(here[name] - there[name]) for name in ch_names]
    largest = np.nanmax(moves) if np.isfinite(moves).any() else 0.0
    if largest > _MAX_DISPLACEMENT:
        warn(
            f"The sensors of the data and of the forward are up to "
            f"{1e3 * largest:.0f} mm apart in head coordinates: the forward may "
            "belong to another recording. Recompute it with the info of the data."
        )


def _sensor_positions(info):
    """Return positions in head coordinates (m) by name, NaN where unknown."""
    positions = {}
    for ch in info["chs"]:
        position = ch["loc"][:3]
        if ch["kind"] == FIFF.FIFFV_MEG_CH:
            trans = info["dev_head_t"]
            known = trans is not None
            position = mne.transforms.apply_trans(trans, position) if known else np.nan
        elif not np.any(position):  # zeros stand for no position
            position = np.nan
        positions[ch["ch_name"]] = np.asarray(position)
    return positions


def _pick_info(info, ch_names):
    """Copy info with the channels used only."""
    info = mne.pick_info(info, [info["ch_names"].index(name) for name in ch_names])
    info["bads"] = []
    return info


# --------------------------------------------------------------- reference, noise


def _add_average_reference(info):
    """Turn an applied average reference into a projector, in place."""
    eeg = {info["ch_names"][pick] for pick in mne.pick_types(info, eeg=True)}
    if not eeg or any(
        _is_average_reference(proj) and eeg <= set(proj["data"]["col_names"])
        for proj in info["projs"]
    ):
        return
    if not info["custom_ref_applied"]:
        raise ValueError(
            "EEG average reference (using a projector) is mandatory for modeling, use "
            "the method set_eeg_reference(projection=True)"
        )
    logger.info("Taking the EEG reference that was applied for the average.")
    eeg_info = mne.create_info(sorted(eeg), 1.0, "eeg")
    info["projs"].append(make_eeg_average_ref_proj(eeg_info))


def _is_average_reference(proj):
    return (
        proj["kind"] == FIFF.FIFFV_PROJ_ITEM_EEG_AVREF
        or proj["desc"] == "Average EEG reference"
    )


def make_whitener(info, noise_cov, ch_names, rank=None):
    """Compute the whitener of some channels, the projectors included.

    Parameters
    ----------
    info : Info
        Measurement info of the data.
    noise_cov : Covariance
        Noise covariance with all of the channels.
    ch_names : list of str
        The channels.
    rank : None | 'info' | 'full' | dict
        Rank of the noise covariance.

    Returns
    -------
    whitener : array of shape (rank, n_channels)
        Whitener for a single trial.
    """
    return _make_whitener(_pick_info(info, ch_names), noise_cov, rank)[1]


def _make_whitener(info, noise_cov, rank, nave=1):
    """Compute projector (n_channels, n_channels) and whitener (rank, n_channels)."""
    _add_average_reference(info)
    projector, _, _ = make_projector(info["projs"], info["ch_names"])
    if noise_cov is None:
        warn(
            "No noise covariance was given: assuming independent noise of 0.2 µV "
            "(EEG), 20 fT (magnetometers), 5 fT/cm (gradiometers). Give noise_cov, "
            "e.g. from mne.compute_covariance."
        )
        noise_cov = mne.make_ad_hoc_cov(info)
    if not np.isfinite(noise_cov["data"]).all():
        raise ValueError(
            "The noise covariance has NaN or infinite values. Compute it from data "
            "without them."
        )
    noise_cov = mne.cov.prepare_noise_cov(noise_cov, info, info["ch_names"], rank)
    whitener, _ = mne.cov.compute_whitener(noise_cov, pca=True)
    return projector, np.sqrt(nave) * whitener @ projector


# --------------------------------------------------------------- gain


def _fix_orientation(fwd, ch_names):
    """Return gain (n_channels, n_vertices) along the normals, and the normals."""
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


def _make_vertex_area(parcel_of_vertex, areas):
    """Share each parcel's area among its vertices (n_vertices, n_parcels), m²."""
    parcel = np.concatenate(parcel_of_vertex)
    n_parcels = len(areas)
    vertex = np.flatnonzero(parcel >= 0)
    n_vertices = np.bincount(parcel[vertex], minlength=n_parcels)
    _report_empty(np.sum(n_vertices == 0), n_parcels)
    area = (areas / np.maximum(n_vertices, 1))[parcel[vertex]]
    shape = (len(parcel), n_parcels)
    return sparse.csr_array((area, (vertex, parcel[vertex])), shape)


def _report_empty(n_empty, n_parcels):
    if n_empty == n_parcels:
        raise ValueError("No vertex of the forward's source space lies in a parcel.")
    message = (
        f"{n_empty} of {n_parcels} parcels have no vertex in the forward's source "
        "space and cannot be estimated."
    )
    if n_empty > 0.05 * n_parcels:
        warn(f"{message} Use a denser source space, e.g. oct6.")
    elif n_empty:
        logger.info(message)

"""The geometry of a forward solution, by which an estimator recognises it."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
from mne.utils import warn

from .channels import sensor_positions

_MAX_CORTEX = 2e-3  # m; another source space density moves it 0.1 mm, another head 4 mm
_MAX_SENSORS = 5e-3  # m


def make_fingerprint(fwd, leadfield):
    """Extract the geometry by which a forward solution is recognised.

    Parameters
    ----------
    fwd : mne.Forward
        The forward solution.
    leadfield : Leadfield
        Its leadfield.

    Returns
    -------
    fingerprint : dict
        ``"ch_names"``; ``"sensors"``, array of shape (n_channels, 3), and
        ``"parcels"``, array of shape (n_parcels, 3): positions in head coordinates (m),
        NaN where there is none.
    """
    positions = sensor_positions(fwd["info"])
    sensors = np.array([positions[name] * np.ones(3) for name in leadfield.ch_names])
    return {
        "ch_names": list(leadfield.ch_names),
        "sensors": sensors.astype(np.float32),
        "parcels": _parcel_positions(fwd, leadfield).astype(np.float32),
    }


def _parcel_positions(fwd, leadfield):
    """Return the mean position of each parcel's vertices (m), NaN without vertices."""
    members = leadfield.vertex_area > 0
    n_vertices = np.asarray(members.sum(0)).ravel()
    total = members.T @ fwd["source_rr"]
    return np.where(n_vertices > 0, total.T / np.maximum(n_vertices, 1), np.nan).T


def check_fingerprint(fingerprint, fwd, leadfield):
    """Warn if a forward solution is not the one that an estimator was fitted on.

    Parameters
    ----------
    fingerprint : dict | None
        What :func:`make_fingerprint` returned. None (weights for any head) is fine.
    fwd : mne.Forward
        The forward solution to use.
    leadfield : Leadfield
        Its leadfield, of the same parcels.

    Notes
    -----
    The positions of cortex and sensors are compared in millimetres. Order and number of
    the channels, bad channels, projectors, noise covariance and the density of the
    source space may differ. So may what has no geometry: the conductivities and the
    kind of head model.
    """
    if fingerprint is None:
        return
    problem = _compare(fingerprint, make_fingerprint(fwd, leadfield))
    if problem:
        warn(
            f"The estimator was fitted on another forward solution: {problem}. Fit it "
            "on this one as well (weights=estimator), or use estimator='generic'."
        )


def _compare(before, now):
    """Say what differs, None if nothing does."""
    cortex = cortex_distance(before["parcels"], now["parcels"])
    if not cortex <= _MAX_CORTEX:
        return f"its cortex lay {1e3 * cortex:.0f} mm from here (median of the parcels)"
    row = {name: i for i, name in enumerate(before["ch_names"])}
    common = [name for name in now["ch_names"] if name in row]
    n_channels = len(now["ch_names"])
    if len(common) < n_channels / 2:
        return f"it had {len(common)} of these {n_channels} channels"
    there = before["sensors"][[row[name] for name in common]]
    here = now["sensors"][[name in row for name in now["ch_names"]]]
    moves = np.linalg.norm(here - there, axis=1)
    moves = moves[np.isfinite(moves)]
    if len(moves) and np.median(moves) > _MAX_SENSORS:
        return f"its sensors were {1e3 * np.median(moves):.0f} mm from here (median)"
    return None


def cortex_distance(before, now):
    """Compute how far parcels have moved.

    Parameters
    ----------
    before, now : array of shape (n_parcels, 3)
        Positions (m), NaN where there is none.

    Returns
    -------
    distance : float
        Median movement of the parcels (m). It is smoothed by an affine fit, because the
        mean position of a parcel with few vertices is not exact.
    """
    known = np.isfinite(before).all(1) & np.isfinite(now).all(1)
    if known.sum() < 4:
        return np.inf
    before, now = before[known], now[known]
    design = np.column_stack([before, np.ones(len(before))])
    moved = design @ np.linalg.lstsq(design, now - before)[0]
    return float(np.median(np.linalg.norm(moved, axis=1)))

"""An estimate against a seizure onset zone: labels, or electrodes."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np
from mne import Label
from mne.utils import _validate_type
from scipy.spatial import KDTree

from .. import metrics
from .source_space import on_source_space, vertex_positions

_HEMIS = ("lh", "rh")


def sublobar_labels(labels):
    """Join the labels of the Desikan-Killiany atlas to 20 sublobar regions.

    :func:`mne_deepsif.metrics.sublobar_regions` lists what belongs to which.

    Parameters
    ----------
    labels : list of Label
        FreeSurfer's ``aparc``, both hemispheres, from
        :func:`mne.read_labels_from_annot`.

    Returns
    -------
    regions : list of Label
        The regions, such as ``"orbitofrontal-lh"``: ten of the left hemisphere, then
        ten of the right one.
    """
    numbers = metrics.sublobar_regions([label.name for label in labels])
    names = [f"{name}-{hemi}" for hemi in _HEMIS for name in metrics.SUBLOBAR_REGIONS]
    return [
        _join([label for label, other in zip(labels, numbers) if other == number], name)
        for number, name in enumerate(names)
    ]


def _join(labels, name):
    if not labels:
        raise ValueError(
            f"labels must be the whole aparc atlas, but none lies in {name}. Read them "
            'with mne.read_labels_from_annot(subject, parc="aparc").'
        )
    joined = sum(labels[1:], start=labels[0].copy())
    joined.name = name
    return joined


def soz_error(soz, stc_est, src, *, rule="peak"):
    """Compute the localization error with respect to a seizure onset zone (SOZ).

    See :func:`mne_deepsif.metrics.soz_error`. The surface vertices of labels count as
    electrodes.

    Parameters
    ----------
    soz : list of Label | array of shape (n_electrodes, 3)
        The seizure onset zone: labels, or positions of electrodes in metres, in the
        frame of ``src`` (head coordinates for the source space of a forward).
    stc_est : SourceEstimate
        The estimated activity.
    src : SourceSpaces
        The surface source space that holds its vertices, with the whole surfaces.
    rule : str
        The rule of :func:`mne_deepsif.metrics.active_parcels`.

    Returns
    -------
    error : float
        The error in metres; NaN if there is no SOZ or nothing is active.
    """
    if _are_labels(soz):
        soz = np.concatenate([s["rr"] for s in src])[_label_vertices(soz, src, "soz")]
    active = metrics.active_parcels(on_source_space(stc_est, src, "stc_est"), rule)
    return metrics.soz_error(soz, active, vertex_positions(src))


def sublobar_concordance(soz, stc_est, src, regions):
    """Tell whether the estimate's peak lies in a region of the seizure onset zone.

    See :func:`mne_deepsif.metrics.sublobar_concordance`. A label lies in all regions
    that hold one of its vertices. An electrode lies in the region of the nearest
    surface vertex.

    Parameters
    ----------
    soz : list of Label | array of shape (n_electrodes, 3)
        The seizure onset zone: labels, or positions of electrodes in metres, in the
        frame of ``src`` (head coordinates for the source space of a forward).
    stc_est : SourceEstimate
        The estimated activity.
    src : SourceSpaces
        The surface source space that holds its vertices, with the whole surfaces.
    regions : list of Label
        The regions, such as those of :func:`sublobar_labels`.

    Returns
    -------
    concordance : float
        1 or 0. NaN if no region holds a part of the SOZ, or if all vertices are equally
        strong.
    """
    return metrics.sublobar_concordance(*_by_region(soz, stc_est, src, regions))


def sublobar_sensitivity(soz, stc_est, src, regions, *, rule="peak"):
    """Compute the share of the regions with a seizure onset zone that are active.

    See :func:`mne_deepsif.metrics.sublobar_sensitivity`, and
    :func:`sublobar_concordance` on what lies in a region.

    Parameters
    ----------
    soz : list of Label | array of shape (n_electrodes, 3)
        The seizure onset zone: labels, or positions of electrodes in metres, in the
        frame of ``src`` (head coordinates for the source space of a forward).
    stc_est : SourceEstimate
        The estimated activity.
    src : SourceSpaces
        The surface source space that holds its vertices, with the whole surfaces.
    regions : list of Label
        The regions, such as those of :func:`sublobar_labels`.
    rule : str
        The rule of :func:`mne_deepsif.metrics.active_parcels`.

    Returns
    -------
    sensitivity : float
        Between 0 and 1; 0 if nothing is active. NaN if no region holds a part of the
        SOZ.
    """
    true, sources, region = _by_region(soz, stc_est, src, regions)
    active = metrics.active_parcels(sources, rule)
    return metrics.sublobar_sensitivity(true, active, region)


def sublobar_specificity(soz, stc_est, src, regions, *, rule="peak"):
    """Compute the share of the regions without a seizure onset zone that are inactive.

    See :func:`mne_deepsif.metrics.sublobar_specificity`, and
    :func:`sublobar_concordance` on what lies in a region.

    Parameters
    ----------
    soz : list of Label | array of shape (n_electrodes, 3)
        The seizure onset zone: labels, or positions of electrodes in metres, in the
        frame of ``src`` (head coordinates for the source space of a forward).
    stc_est : SourceEstimate
        The estimated activity.
    src : SourceSpaces
        The surface source space that holds its vertices, with the whole surfaces.
    regions : list of Label
        The regions, such as those of :func:`sublobar_labels`.
    rule : str
        The rule of :func:`mne_deepsif.metrics.active_parcels`.

    Returns
    -------
    specificity : float
        Between 0 and 1; 1 if nothing is active. NaN if no region holds a part of the
        SOZ, or if each does.
    """
    true, sources, region = _by_region(soz, stc_est, src, regions)
    active = metrics.active_parcels(sources, rule)
    return metrics.sublobar_specificity(true, active, region)


def _by_region(soz, stc_est, src, regions):
    """Return what the array functions want, on the vertices of the source space.

    All vertices of a region with a part of the seizure onset zone are true.
    """
    region = np.full(sum(len(s["rr"]) for s in src), -1)  # of each surface vertex
    for number, label in enumerate(regions):
        region[_label_vertices([label], src, "regions")] = number
    if _are_labels(soz):
        places = _label_vertices(soz, src, "soz")
    else:
        inside = np.flatnonzero(region >= 0)
        tree = KDTree(np.concatenate([s["rr"] for s in src])[inside])
        places = inside[tree.query(np.reshape(soz, (-1, 3)))[1]]
    used = np.concatenate([s["vertno"] + start for s, start in zip(src, _starts(src))])
    true = np.isin(region[used], np.setdiff1d(region[places], [-1]))
    return true, on_source_space(stc_est, src, "stc_est"), region[used]


def _are_labels(soz):
    """Tell labels from positions."""
    _validate_type(soz, (list, tuple, np.ndarray), "soz")
    return len(soz) > 0 and all(isinstance(one, Label) for one in soz)


def _label_vertices(labels, src, name):
    """Return the rows of the labels' vertices among all surface vertices."""
    starts = dict(zip(_HEMIS, _starts(src)))
    sizes = dict(zip(_HEMIS, (len(s["rr"]) for s in src)))
    for label in labels:
        if label.vertices.max(initial=-1) >= sizes[label.hemi]:
            raise ValueError(
                f"{name} must lie on the surfaces of src, but {label.name} has other "
                "vertices. Use mne.morph_labels if it is of another subject."
            )
    rows = [starts[label.hemi] + label.vertices for label in labels]
    return np.unique(np.concatenate(rows))


def _starts(src):
    """Return the row of each hemisphere's first surface vertex."""
    return 0, len(src[0]["rr"])

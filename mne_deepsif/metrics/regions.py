"""Sublobar regions of the cortex, and whether an estimate lies in the right ones."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import numpy as np

from .sets import indices, strongest

# The MEG paper does not list its ten regions of a hemisphere. These are our choice: the
# lobes that FreeSurfer makes of aparc, with the frontal and the temporal one divided,
# and the strip around the central sulcus taken out of the frontal and parietal ones.
SUBLOBAR_REGIONS = {
    "orbitofrontal": ("lateralorbitofrontal", "medialorbitofrontal", "frontalpole"),
    "lateral frontal": (
        *("rostralmiddlefrontal", "caudalmiddlefrontal"),
        *("parsopercularis", "parstriangularis", "parsorbitalis"),
    ),
    "superior frontal": ("superiorfrontal",),
    "central": ("precentral", "postcentral", "paracentral"),
    "parietal": ("superiorparietal", "inferiorparietal", "supramarginal", "precuneus"),
    "cingulate": (
        *("rostralanteriorcingulate", "caudalanteriorcingulate"),
        *("posteriorcingulate", "isthmuscingulate"),
    ),
    "insula": ("insula",),
    "lateral temporal": (
        *("superiortemporal", "middletemporal", "inferiortemporal"),
        *("bankssts", "transversetemporal"),
    ),
    "mesial temporal": ("entorhinal", "parahippocampal", "temporalpole", "fusiform"),
    "occipital": ("lateraloccipital", "cuneus", "pericalcarine", "lingual"),
}
_OUTSIDE = [
    f"{name}-{hemi}" for name in ("unknown", "corpuscallosum") for hemi in ("lh", "rh")
]


def sublobar_regions(names):
    """Find the sublobar region of each region of the Desikan-Killiany atlas.

    Parameters
    ----------
    names : list of str
        Names of FreeSurfer's ``aparc`` :footcite:`DesikanEtAl2006` with the
        hemisphere, such as ``"insula-lh"``.

    Returns
    -------
    regions : array of int, shape (n_names,)
        0 to 9 in the left hemisphere, 10 to 19 in the right one, in the order of
        ``SUBLOBAR_REGIONS``. -1 for names outside of the cortex (``"unknown"``,
        ``"corpuscallosum"``).

    Notes
    -----
    The MEG paper :footcite:`SunEtAl2023` scores 20 sublobar regions. We do not know
    which, so these are ours:

    - orbitofrontal: lateral and medial orbitofrontal, frontal pole
    - lateral frontal: rostral and caudal middle frontal, pars opercularis, triangularis
      and orbitalis
    - superior frontal
    - central: precentral, postcentral, paracentral
    - parietal: superior and inferior parietal, supramarginal, precuneus
    - cingulate: rostral and caudal anterior, posterior, isthmus
    - insula
    - lateral temporal: superior, middle, inferior and transverse temporal, banks of the
      superior temporal sulcus
    - mesial temporal: entorhinal, parahippocampal, temporal pole, fusiform
    - occipital: lateral occipital, cuneus, pericalcarine, lingual

    References
    ----------
    .. footbibliography::
    """
    number = {
        f"{name}-{hemi}": 10 * right + index
        for right, hemi in enumerate(("lh", "rh"))
        for index, members in enumerate(SUBLOBAR_REGIONS.values())
        for name in members
    }
    number |= dict.fromkeys(_OUTSIDE, -1)
    strange = [name for name in names if name not in number]
    if strange:
        raise ValueError(
            'names must be names of aparc such as "insula-lh", got '
            f"{strange[:3]} ({len(strange)} strange names). Read the labels with "
            'mne.read_labels_from_annot(subject, parc="aparc").'
        )
    return np.array([number[name] for name in names], int)


def sublobar_concordance(true, sources, regions):
    """Tell whether the estimate's peak lies in a region with a true parcel.

    This is the sublobar concordance of the MEG paper :footcite:`SunEtAl2023`, where
    the parcels with electrodes of the seizure onset zone are true. The paper reports
    the share of patients.

    Parameters
    ----------
    true : array of bool or int
        The true parcels, as a mask or indices.
    sources : array of shape (n_parcels, n_times)
        The estimated activity, in any unit.
    regions : array of int, shape (n_parcels,)
        The region of each parcel (see :func:`sublobar_regions`); -1 for none.

    Returns
    -------
    concordance : float
        1 or 0. Of equal peaks, the first counts. NaN if no region holds a true parcel,
        or if all parcels are equally strong.

    References
    ----------
    .. footbibliography::
    """
    found, peak = _regions_of(true, regions), strongest(sources)
    if not len(found) or peak is None:
        return np.nan
    return float(regions[peak] in found)


def sublobar_sensitivity(true, estimated, regions):
    """Compute the share of regions with true parcels that hold estimated ones.

    Parameters
    ----------
    true, estimated : array of bool or int
        The parcels, as masks or indices.
    regions : array of int, shape (n_parcels,)
        The region of each parcel (see :func:`sublobar_regions`); -1 for none.

    Returns
    -------
    sensitivity : float
        Between 0 and 1; 0 if nothing was estimated. NaN if no region holds a true
        parcel.
    """
    found, active = _regions_of(true, regions), _regions_of(estimated, regions)
    return float(np.isin(found, active).mean()) if len(found) else np.nan


def sublobar_specificity(true, estimated, regions):
    """Compute the share of regions without true parcels that hold no estimated ones.

    Parameters
    ----------
    true, estimated : array of bool or int
        The parcels, as masks or indices.
    regions : array of int, shape (n_parcels,)
        The region of each parcel (see :func:`sublobar_regions`); -1 for none.

    Returns
    -------
    specificity : float
        Between 0 and 1; 1 if nothing was estimated. NaN if nothing is true, or if every
        region holds a true parcel.
    """
    found, active = _regions_of(true, regions), _regions_of(estimated, regions)
    others = np.setdiff1d(regions, [-1, *found])
    if not (len(found) and len(others)):
        return np.nan
    return float(1 - np.isin(others, active).mean())


def _regions_of(parcels, regions):
    """Return the regions that hold some of the parcels."""
    return np.setdiff1d(np.asarray(regions)[indices(parcels)], [-1])

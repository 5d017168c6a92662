"""Where electrodes belong: the template's scalp, and the places that names stand for.

Everything is in the template's MRI coordinates, in m.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import re
from dataclasses import dataclass
from functools import cache, cached_property

import mne
import numpy as np
from scipy.spatial import cKDTree

from .anatomy import builtin_path

_TEN_FIVE = "fsaverage_1005"
# older names, and those that only the montage of Colin27 has
_MORE_TEN_FIVE = ("colin27_1005", ("T3", "T4", "T5", "T6", "A1", "A2", "M1", "M2"))
# caps whose amplifier numbers the channels in this order: A1 to A32, then B1 to B32
_IN_ORDER = ("biosemi16", "biosemi32", "biosemi64")
_MIN_SHARE = 0.5  # of the channels whose names a system must know


# --------------------------------------------------------------- the template's scalp


@dataclass(frozen=True)
class Head:
    """The template's scalp and fiducials.

    Attributes
    ----------
    rr, nn : array of shape (n_vertices, 3)
        Vertices of the scalp and normals, outwards.
    tree : cKDTree
        Finds the nearest vertices.
    fiducials : array of shape (3, 3)
        Nasion, LPA and RPA.
    ears : array of shape (3,)
        The origin of head coordinates, in MNE's built-in alignment.
    to_mri : array of shape (4, 4)
        That alignment: head to MRI coordinates.
    """

    rr: np.ndarray
    nn: np.ndarray
    tree: cKDTree
    fiducials: np.ndarray
    ears: np.ndarray
    to_mri: np.ndarray

    @property
    def middle(self):
        """The middle of the upper head, 45 mm above the ears."""
        return mne.transforms.apply_trans(self.to_mri, [0.0, 0.0, 0.045])

    def depth(self, points, scale=1.0):
        """Measure how deep points lie in a head of another size.

        Parameters
        ----------
        points : array of shape (n_points, 3)
            The points.
        scale : float
            Size of the head; it grows from the point between the ears.

        Returns
        -------
        depth : array of shape (n_points,)
            Distance from the scalp (m), negative outside.
        """
        points = self.ears + (points - self.ears) / scale
        distance, index = self.tree.query(points)
        above = ((points - self.rr[index]) * self.nn[index]).sum(1) > 0
        return scale * np.where(above, -distance, distance)

    def on_scalp(self, points):
        """Move points to the nearest vertex of the scalp."""
        return self.rr[self.tree.query(points)[1]]

    def align(self, fiducials):
        """Find the rigid transform from head coordinates to the template.

        Parameters
        ----------
        fiducials : array of shape (3, 3) | None
            Nasion, LPA and RPA. None takes MNE's built-in alignment.

        Returns
        -------
        trans : array of shape (4, 4)
            The transform.
        """
        if fiducials is None:
            return self.to_mri
        _, turn, shift = fit_similarity(fiducials, self.fiducials, scaled=False)
        return np.vstack([np.column_stack([turn, shift]), [0, 0, 0, 1]])


@cache
def template_head():
    """Read the template's scalp (2033 vertices) and fiducials from MNE's files."""
    (surf,) = mne.read_bem_surfaces(builtin_path("head"), verbose="error")
    points, _ = mne.io.read_fiducials(builtin_path("fiducials"), verbose="error")
    fiducials = sort_fiducials(points)
    to_mri = mne.read_trans(builtin_path("trans"))["trans"]
    ears = to_mri[:3, 3]
    return Head(surf["rr"], surf["nn"], cKDTree(surf["rr"]), fiducials, ears, to_mri)


def sort_fiducials(points):
    """Return nasion, LPA and RPA of digitised points, None if one is missing."""
    points = {int(point["ident"]): point["r"] for point in points}
    if not {1, 2, 3} <= set(points):
        return None
    return np.array([points[ident] for ident in (2, 1, 3)], float)


def sides(fiducials):
    """Measure the triangle of the fiducials.

    Parameters
    ----------
    fiducials : array of shape (3, 3)
        Nasion, LPA and RPA.

    Returns
    -------
    sides : array of shape (3,)
        The distances LPA to RPA, nasion to LPA, nasion to RPA.
    """
    nasion, lpa, rpa = fiducials
    return np.linalg.norm([lpa - rpa, nasion - lpa, nasion - rpa], axis=1)


def fit_similarity(fro, to, *, weights=None, scaled=True, mirrored=False):
    """Find the similarity transform that moves points onto others best (Kabsch).

    Parameters
    ----------
    fro, to : array of shape (n_points, 3)
        The points.
    weights : array of shape (n_points,) | None
        Weights of the squared distances.
    scaled : bool
        Whether the size may change.
    mirrored : bool
        Whether to mirror as well.

    Returns
    -------
    scale : float
        Factor on the size.
    turn : array of shape (3, 3)
        Rotation, with a reflection if ``mirrored``.
    shift : array of shape (3,)
        ``scale * fro @ turn.T + shift`` is near ``to``.
    """
    weights = np.ones(len(fro)) if weights is None else weights
    weights = (weights / weights.sum())[:, np.newaxis]
    middles = (weights * fro).sum(0), (weights * to).sum(0)
    a, b = fro - middles[0], to - middles[1]
    u, s, vt = np.linalg.svd((weights * b).T @ a)
    signs = np.ones(3)
    signs[2] = np.sign(np.linalg.det(u @ vt)) * (-1 if mirrored else 1)
    turn = (u * signs) @ vt
    size = (weights * a**2).sum()
    scale = (s * signs).sum() / size if scaled and size > 0 else 1.0
    return scale, turn, middles[1] - scale * turn @ middles[0]


def fit_sphere(points):
    """Fit a sphere by least squares.

    Parameters
    ----------
    points : array of shape (n_points, 3)
        The points, 8 or more.

    Returns
    -------
    middle : array of shape (3,)
        Its middle.
    radius : float
        Mean distance from there; infinite for fewer points.
    rest : float
        Standard deviation of the distances by their mean.
    """
    if len(points) < 8:
        return points.mean(0), np.inf, np.inf
    design = np.column_stack([2 * points, np.ones(len(points))])
    middle = np.linalg.lstsq(design, (points**2).sum(1), rcond=None)[0][:3]
    radii = np.linalg.norm(points - middle, axis=1)
    return middle, radii.mean(), radii.std() / radii.mean()


# --------------------------------------------------------------- names


@dataclass(frozen=True)
class Standard:
    """Places that a system of names gives to channels.

    Attributes
    ----------
    montage : str
        MNE's name of the montage.
    numbered : bool
        Whether the names are numbers of a cap, which others use for their own caps.
    picks : array of int, shape (n_known,)
        The channels whose names it knows.
    places : array of shape (n_known, 3)
        Where they belong.
    cap : array of shape (n_all, 3)
        All places of the system.
    """

    montage: str
    numbered: bool
    picks: np.ndarray
    places: np.ndarray
    cap: np.ndarray

    @cached_property
    def on_scalp(self):
        """The places, moved to the template's scalp."""
        return template_head().on_scalp(self.places)


def find_standards(names):
    """Find the systems of names that know at least half of some channels.

    Parameters
    ----------
    names : list of str
        Names of channels. Upper and lower case, ``"EEG "`` before a name and the
        reference or cathode after it do not matter.

    Returns
    -------
    standards : list of Standard
        The 10-05 system if it knows them. Else all that do: numbers of BioSemi's,
        EGI's and other caps, those of a like number of channels first.
    """
    spellings = [_spell(name) for name in names]
    found = _match(spellings, _TEN_FIVE, _ten_five(), numbered=False)
    if found is not None and len(found.picks) > 0.9 * len(names):
        return [found]
    others = [
        _match(spellings, montage, table, numbered=True)
        for montage, table in _numbered()
    ]
    found = [match for match in (found, *others) if match is not None]
    return sorted(found, key=lambda one: abs(len(one.cap) - len(names)))


def _spell(name):
    """Return the spellings by which tables may know a channel."""
    name = re.sub(r"[\s.]", "", name.upper())
    anode = name.partition("-")[0]
    return list(dict.fromkeys([name, anode, anode.removeprefix("EEG")]))


def _match(spellings, montage, table, numbered):
    picks, places = [], []
    for pick, names in enumerate(spellings):
        found = [table[name] for name in names if name in table]
        if found:
            picks.append(pick)
            places.append(found[0])
    if not picks or len(picks) < _MIN_SHARE * len(spellings):
        return None
    cap = np.array(list(table.values()))
    return Standard(montage, numbered, np.array(picks), np.array(places), cap)


@cache
def _ten_five():
    table = _read_places(_TEN_FIVE)
    montage, names = _MORE_TEN_FIVE
    more = _read_places(montage)
    return table | {name: more[name] for name in names}


@cache
def _numbered():
    """List names and places of MNE's other caps for EEG, once."""
    found = []
    for montage in mne.channels.get_builtin_montages():
        table = _read_places(montage)
        if montage in _IN_ORDER:
            letters = [f"{'AB'[i // 32]}{i % 32 + 1}" for i in range(len(table))]
            found.append((montage, dict(zip(letters, table.values()))))
        elif len(set(table) - set(_ten_five())) > 0.1 * len(table):
            found.append((montage, table))
    return found


def _read_places(montage):
    """Read a montage of MNE: places on the template by name in upper case."""
    found = mne.channels.make_standard_montage(montage).get_positions()
    fiducials = np.array([found[key] for key in ("nasion", "lpa", "rpa")])
    trans = template_head().align(fiducials)
    places = mne.transforms.apply_trans(trans, np.array(list(found["ch_pos"].values())))
    return {name.upper(): place for name, place in zip(found["ch_pos"], places)}

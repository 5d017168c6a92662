"""Electrodes on the template's head, compared with where their names belong.

Everything is in m.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from mne.transforms import apply_trans
from scipy.spatial import cKDTree

from .standard import Standard, find_standards, fit_similarity, template_head

HEADS = (0.7, 1.15)  # sizes of heads, the template's is 1
HEAD_RADIUS = 0.095
# How far electrodes lie from where their names belong, along the scalp, as a median:
# with 33 mm the errors of simulated sources begin to reach 20 mm, with 55 mm most do.
# MNE's montages stay below 25 mm. Numbered caps follow the head less closely: one real
# recording has 34 mm. Fewer than four electrodes do not tell the size of the head.
_MOVED, _MOVED_NUMBERS, _MOVED_FEW = 0.033, 0.045, 0.045
FAR = 0.055
_STRAY, _STRAY_NUMBERS = 0.06, 0.09  # of a single electrode
_FITS = 0.025  # what size, turn and shift leave, if names and places belong together
_FITS_NUMBERS = 0.015  # the same for numbers, which may be those of another cap
_SAME_CAP = 0.004  # from the places of a cap, whatever the names
_SPREAD = 0.09  # median distance of a cap's electrodes from their middle


@dataclass(frozen=True)
class Fault:
    """What is wrong, and the call that mends it.

    Attributes
    ----------
    text : str
        The message.
    certain : bool
        Whether estimates are certainly wrong. Else they are doubtful.
    """

    text: str
    certain: bool


@dataclass(frozen=True)
class Placement:
    """Places of electrodes compared with those that their names stand for.

    Attributes
    ----------
    standard : Standard
        The names' places, of n electrodes.
    scale : float
        Size of the cap, 1 for the template's head.
    turn : array of shape (3, 3)
        How the cap is turned, or mirrored, from where it belongs.
    shift : float
        How far its middle is from where it belongs (m).
    beside : array of shape (3,)
        How far it is to the right, front and top of where it belongs, for a head of its
        size (m).
    rest : array of shape (n,)
        What size, turn and shift do not explain (m, on the template).
    moved : array of shape (n,)
        Distance from where they belong (m) along the scalp, for a head of its size.
    points : array of shape (n, 3)
        Where the electrodes are.
    """

    standard: Standard
    scale: float
    turn: np.ndarray
    shift: float
    beside: np.ndarray
    rest: np.ndarray
    moved: np.ndarray
    points: np.ndarray

    @property
    def mirrored(self):
        """Whether left and right are exchanged."""
        return np.linalg.det(self.turn) < 0

    @property
    def distance(self):
        """Median distance from where the electrodes belong (m)."""
        return float(np.median(self.moved))

    @property
    def known(self):
        """Whether the names mean these places."""
        fits = np.quantile(self.rest, 0.75) < _FITS_NUMBERS
        return not self.standard.numbered or fits or self._is_same_cap()

    def _is_same_cap(self):
        """Tell whether the points, in any order, are the places of a whole cap."""
        cap, points = self.standard.cap, self.points
        if len(points) < max(16, 0.9 * len(cap)):
            return False
        points = points * (spread(cap) / spread(points))
        points = points + cap.mean(0) - points.mean(0)
        return bool(np.median(cKDTree(cap).query(points)[0]) < _SAME_CAP)

    @property
    def fits(self):
        """Whether size, turn and shift explain the places."""
        return len(self.rest) > 3 and np.quantile(self.rest, 0.75) < _FITS

    @property
    def agrees(self):
        """Whether the electrodes are where their names belong."""
        limit = _MOVED_NUMBERS if self.standard.numbered else _MOVED
        return self.distance < (limit if len(self.moved) > 3 else _MOVED_FEW)

    @property
    def strays(self):
        """Which electrodes are far from where their names belong."""
        return self.moved > (_STRAY_NUMBERS if self.standard.numbered else _STRAY)


def _place(points, standard):
    """Compare electrodes (on the template, m) with the places of their names."""
    head, places = template_head(), standard.places
    points = points[standard.picks]
    scale, turn, middle, rest = 1.0, np.eye(3), points.mean(0), None
    if len(points) > 3:
        scale, turn, middle, rest = _fit(places, points)
    size = np.clip(scale, *HEADS)
    sized = head.ears + (points - head.ears) / size
    moved = np.linalg.norm(head.on_scalp(sized) - standard.on_scalp, axis=1)
    shift = float(np.linalg.norm(middle - places.mean(0)))
    beside = head.ears + (middle - head.ears) / size - places.mean(0)
    rest = moved if rest is None else rest
    return Placement(standard, float(scale), turn, shift, beside, rest, moved, points)


def _fit(places, points):
    """Fit size, turn and shift, mirrored if that is much better."""
    plain = _fit_robustly(places, points, False)
    rest = _most(plain[-1])
    if rest < 0.012:
        return plain
    mirror = _fit_robustly(places, points, True)
    centred = places - places.mean(0)
    thickness = np.sqrt(np.linalg.eigvalsh(centred.T @ centred / len(places))[0])
    better = _most(mirror[-1]) < 0.5 * rest and thickness > 0.015
    return mirror if better else plain


def _most(rest):
    """Return the mean without the largest tenth.

    A median would do for no mirror image: that of its middle half suits a cap.
    """
    return np.sort(rest)[: max(1, int(0.9 * len(rest)))].mean()


def _fit_robustly(places, points, mirrored, n_iter=10):
    """Fit with small (Cauchy) weights of what does not fit; return the rest, too."""
    weights = np.ones(len(points))
    for _ in range(n_iter):
        scale, turn, shift = fit_similarity(
            places, points, weights=weights, mirrored=mirrored
        )
        fitted = scale * places @ turn.T + shift
        rest = np.linalg.norm(fitted - points, axis=1) / max(abs(scale), 1e-9)
        weights = 1 / (1 + (rest / max(np.median(rest), 1e-4)) ** 2)
    return abs(scale), turn, fitted.mean(0), rest


def spread(points):
    """Return how far points lie from their middle (median), more than 0."""
    distance = np.linalg.norm(points - points.mean(0), axis=1)
    return max(float(np.median(distance)), 1e-9)


# --------------------------------------------------------------- the electrodes


@dataclass(frozen=True)
class Electrodes:
    """Electrodes to judge.

    Attributes
    ----------
    points : array of shape (n_channels, 3)
        Positions in head coordinates (m).
    names : list of str
        Names of the channels.
    fiducials : array of shape (3, 3) | None
        Nasion, LPA and RPA in head coordinates (m).
    trans : array of shape (4, 4) | None
        From head coordinates to the template's MRI coordinates; it may change the size.
        None takes the fiducials.
    """

    points: np.ndarray
    names: list
    fiducials: np.ndarray | None = None
    trans: np.ndarray | None = None

    @cached_property
    def aligned(self):
        """The points on the template, by fiducials alone."""
        return apply_trans(template_head().align(self.fiducials), self.points)

    @cached_property
    def placed(self):
        """The points on the template."""
        if self.trans is None:
            return self.aligned
        return apply_trans(self.trans, self.points)

    @cached_property
    def standards(self):
        """What is known about the names."""
        return find_standards(self.names)

    def best(self, points):
        """Return the placement of the names that suits points best, None if none."""
        found = []
        for standard in self.standards:
            placement = _place(points, standard)
            if placement.known:
                found.append(placement)
                if placement.agrees and not placement.strays.any():
                    return placement
        return min(found, key=lambda one: one.distance, default=None)

    @cached_property
    def in_head(self):
        """The best placement by fiducials alone."""
        return self.best(self.aligned)

    @cached_property
    def on_cortex(self):
        """The best placement on the head at hand."""
        return self.in_head if self.trans is None else self.best(self.placed)

    @cached_property
    def placement(self):
        """The placement to judge.

        It is that by fiducials, if names and places agree there: how a brain lies under
        landmarks of the scalp differs from person to person.
        """
        agrees = self.in_head is not None and self.in_head.agrees
        return self.in_head if agrees else self.on_cortex

    @cached_property
    def size(self):
        """Size of the cap, 1 for the template's head."""
        best, points = self.placement, self.placed
        if best is not None and best.fits:
            return best.scale
        if len(points) > 7:
            return spread(points) / _SPREAD
        distances = np.linalg.norm(points - template_head().middle, axis=1)
        return float(np.median(distances)) / HEAD_RADIUS

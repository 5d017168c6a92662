"""The template head: fsaverage5, built offline from what MNE and nilearn ship."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import logging
from contextlib import contextmanager
from pathlib import Path

import mne
import numpy as np
from mne.utils import _check_option, _validate_type, logger, verbose

from .._mne import FIFF, ico_downsample, make_forward_solution
from ..cache import cached, data_path, whole_folder
from .anatomy import builtin_path, make_layers, write_cortex, write_head
from .geometry import check_template_electrodes
from .helmet import check_template_helmet

SUBJECT = "fsaverage5"
_MAX_STRAIN = 0.01  # of a head to MRI transform; files have single precision
_ANNOUNCEMENT = (
    "Computing a forward solution on %s. The first one takes longer, since the head "
    "is made and kept ..."
)
_EEG_CONDUCTIVITY = (0.3, 0.006, 0.3)
_BEM_IDS = (
    FIFF.FIFFV_BEM_SURF_ID_BRAIN,
    FIFF.FIFFV_BEM_SURF_ID_SKULL,
    FIFF.FIFFV_BEM_SURF_ID_HEAD,
)


# ---------------------------------------------------------------- the cortex


@verbose
def make_template_subject(subjects_dir=None, *, verbose=None):
    """Write the FreeSurfer-like subject ``fsaverage5``.

    The surfaces come from nilearn's installed files, so no download is needed.

    Parameters
    ----------
    subjects_dir : path-like | None
        Where to write. Default: ``subjects`` in :func:`data_path`.
    %(verbose)s

    Returns
    -------
    subjects_dir : Path
        The folder that holds ``fsaverage5``.
    """
    if subjects_dir is None:
        subjects_dir = data_path() / "subjects"
    subjects_dir = Path(subjects_dir)
    subject = subjects_dir / SUBJECT
    if subject.is_dir():
        return subjects_dir
    with whole_folder(subject) as folder:
        write_cortex(folder / "surf")
        write_head(folder / "bem")
    logger.info(f"Template subject {SUBJECT} written to {subjects_dir}")
    return subjects_dir


@verbose
def make_template_source_space(*, affine=None, verbose=None):
    """Make the template's source space: every vertex of the white surface.

    Parameters
    ----------
    affine : array of shape (3, 4) or (4, 4) | callable | None
        Deformation of the head, applied to MRI coordinates (m): a matrix or, for a
        smooth warp, a function from points to points of shape (n, 3). Use the same one
        in :func:`make_template_bem` and :func:`make_template_trans`.
    %(verbose)s

    Returns
    -------
    src : SourceSpaces
        2 x 10242 vertices with surface normals, subject ``fsaverage5``, in MRI
        coordinates.
    """
    src = cached(
        f"{SUBJECT}-all",
        [],
        "-src.fif",
        mne.read_source_spaces,
        mne.write_source_spaces,
        lambda: mne.setup_source_space(
            SUBJECT,
            spacing="all",
            surface="white",
            subjects_dir=make_template_subject(),
            add_dist=False,
        ),
    )
    for s in src:
        s.update(_move_surface(s, _check_affine(affine)))
    return src


# ------------------------------------------------------------------ the head


def _check_affine(affine):
    if affine is None:
        return np.eye(4)
    if callable(affine):
        return affine
    affine = np.array(affine, float)
    if affine.shape not in ((3, 4), (4, 4)):
        raise ValueError(f"affine must have shape (3, 4) or (4, 4), got {affine.shape}")
    affine = np.vstack([affine[:3], [0, 0, 0, 1]])
    if not np.isfinite(affine).all() or np.linalg.det(affine[:3, :3]) <= 0:
        raise ValueError("affine must be finite, and not mirror or flatten the head.")
    return affine


def _move_points(points, affine):
    """Move points of shape (n, 3) by a checked ``affine``."""
    if callable(affine):
        return affine(points)
    return mne.transforms.apply_trans(affine, points)


def _is_identity(affine):
    return not callable(affine) and np.array_equal(affine, np.eye(4))


def _move_surface(surf, affine):
    """Move the vertices of a surface, and turn its normals with them."""
    if _is_identity(affine):
        return {}
    rr = _move_points(surf["rr"], affine)
    moved = dict(rr=rr, tris=surf["tris"], np=len(rr), ntri=len(surf["tris"]))
    moved = mne.surface.complete_surface_info(
        moved, copy=False, do_neighbor_tri=False, verbose=False
    )
    return dict(rr=moved["rr"], nn=moved["nn"])


@verbose
def make_template_bem(
    *,
    conductivity=_EEG_CONDUCTIVITY,
    skull_scale=1.0,
    scalp_scale=1.0,
    affine=None,
    ico=3,
    verbose=None,
):
    """Make the template's boundary element model.

    Parameters
    ----------
    conductivity : tuple of float
        Conductivities in S/m of brain, skull and scalp, or of the brain alone
        (a single-layer model, enough for MEG).
    skull_scale, scalp_scale : float
        Factors on the thickness of the skull and of the scalp.
    affine : array of shape (3, 4) or (4, 4) | callable | None
        Deformation of the head, see :func:`make_template_source_space`.
    ico : 2 | 3 | 4
        Resolution of each surface: 320, 1280 or 5120 triangles.
    %(verbose)s

    Returns
    -------
    bem : ConductorModel
        The BEM solution. It is cached on disk, unless you deform or scale the head.
    """
    _check_option("ico", ico, (2, 3, 4))
    if not (skull_scale > 0 and scalp_scale > 0):
        raise ValueError(
            "skull_scale and scalp_scale must be positive, got "
            f"{skull_scale} and {scalp_scale}."
        )
    conductivity = np.atleast_1d(conductivity).astype(float).tolist()
    _check_option("number of conductivities", len(conductivity), (1, 3))
    affine = _check_affine(affine)

    def make():
        layers = make_layers(skull_scale, scalp_scale)[: len(conductivity)]
        return _solve_bem(layers, conductivity, affine, ico)

    params = [conductivity, skull_scale, scalp_scale, ico]
    plain = (skull_scale, scalp_scale) == (1, 1) and _is_identity(affine)
    if not plain:
        return make()
    return cached(
        f"{SUBJECT}-bem",
        params,
        "-bem-sol.fif",
        mne.read_bem_solution,
        mne.write_bem_solution,
        make,
    )


def _solve_bem(layers, conductivity, affine, ico):
    surfs = []
    for layer, sigma, id_ in zip(layers, conductivity, _BEM_IDS):
        surf = ico_downsample(layer, ico)
        rr = _move_points(surf["rr"], affine)
        surf = dict(rr=rr, tris=surf["tris"], np=len(rr), ntri=len(surf["tris"]))
        surf = mne.surface.complete_surface_info(surf, copy=False, verbose=False)
        surf.update(id=id_, sigma=sigma, coord_frame=FIFF.FIFFV_COORD_MRI)
        surfs.insert(0, surf)  # MNE's order: the outermost first
    return mne.make_bem_solution(surfs)


@verbose
def make_template_trans(info, *, affine=None, verbose=None):
    """Align a recording with the template head.

    Parameters
    ----------
    info : Info
        Measurement info. Digitised nasion, LPA and RPA (head coordinates) are matched
        with the template's by rotation and translation. If one is missing or has no
        values (NaN, zeros), MNE's built-in transform of fsaverage takes their place.
    affine : array of shape (3, 4) or (4, 4) | callable | None
        Deformation of the head, see :func:`make_template_source_space`.
    %(verbose)s

    Returns
    -------
    trans : Transform
        The head to MRI transform.

    Notes
    -----
    Fiducials leave the pitch uncertain. On a real subject (MNE's sample recording), the
    electrodes end up about 2 cm from where the subject's own MRI puts them (r of the
    gains .91 instead of .96). Fitting the digitised scalp does not help.
    """
    _validate_type(info, mne.Info, "info")
    fiducials = _sort_points(mne.io.read_fiducials(builtin_path("fiducials"))[0])
    digitised = [
        point
        for point in info["dig"] or []
        if point["kind"] == FIFF.FIFFV_POINT_CARDINAL
        and point["coord_frame"] == FIFF.FIFFV_COORD_HEAD
    ]
    points = _sort_points(digitised)
    if not _are_three(points):
        to_head = mne.transforms.invert_transform(mne.read_trans(builtin_path("trans")))
        points = mne.transforms.apply_trans(to_head, fiducials)
    fiducials = _move_points(fiducials, _check_affine(affine))
    trans = mne.coreg.fit_matched_points(points, fiducials)
    return mne.transforms.Transform("head", "mri", trans)


def _are_three(points):
    """Tell whether fiducials are three places."""
    if points.shape != (3, 3) or not np.isfinite(points).all():
        return False
    return len(np.unique(points, axis=0)) == 3


def _sort_points(points):
    points = {point["ident"]: point["r"] for point in points}
    return np.array([points[ident] for ident in sorted(points)])


# --------------------------------------------------------------- the forward


@verbose
def make_template_forward(
    info, *, head="fsaverage5", trans=None, n_jobs=None, verbose=None
):
    """Make a forward solution on the template head for any recording.

    Parameters
    ----------
    info : Info
        Measurement info. EEG channels need positions (``info.set_montage``). MEG
        channels need the recording's ``dev_head_t``.
    head : "fsaverage5" | "fsaverage"
        ``"fsaverage5"`` comes with the package and works offline. ``"fsaverage"`` is
        MNE's fsaverage with its measured BEM, downloaded when absent
        (:func:`mne.datasets.fetch_fsaverage`).
    trans : Transform | path-like | "fsaverage" | None
        Head to MRI transform. None takes that of :func:`make_template_trans`,
        ``"fsaverage"`` MNE's built-in one, as in :func:`mne.make_forward_solution`.
    %(n_jobs)s
    %(verbose)s
        With ``None`` you read only what was made, with ``True`` all that MNE says on
        the way.

    Returns
    -------
    fwd : Forward
        Forward solution with free orientation, all EEG and MEG channels of ``info``,
        and 2 x 10242 vertices. ``"fsaverage5"`` uses three layers for EEG, one for MEG
        alone.

    Notes
    -----
    The positions of the sensors are checked first: units, axes, fiducials, names and
    places. What is certainly wrong is an error, what is doubtful a warning.

    MEG reference channels are left out, unless the data are compensated by them.
    """
    _validate_type(info, mne.Info, "info")
    _check_option("head", head, ("fsaverage5", "fsaverage"))
    kinds = {"eeg", "mag", "grad"} & set(info.get_channel_types())
    _check_positions(info, kinds)
    ignore_ref = _can_ignore_references(info)
    logger.info(_ANNOUNCEMENT, head)
    with _without_details(verbose):
        trans = make_template_trans(info) if trans is None else _read_trans(trans)
        if "eeg" in kinds:
            check_template_electrodes(info, trans)
        src, bem = _fetch_fsaverage() if head == "fsaverage" else _make_head(kinds)
        if kinds - {"eeg"}:
            check_template_helmet(info, trans, bem)
        fwd = make_forward_solution(
            info,
            trans,
            src,
            bem,
            mindist=0.0,
            ignore_ref=ignore_ref,
            n_jobs=n_jobs,
            on_inside="ignore",
        )
    text = "Forward solution on %s: %d channels, %d vertices."
    logger.info(text, head, fwd["nchan"], fwd["nsource"])
    return fwd


@contextmanager
def _without_details(verbose):
    """Keep MNE's messages back, unless the user has asked for messages."""
    level = logger.level
    if verbose is None and level == logging.INFO:  # MNE's default
        level = logging.WARNING
    with mne.use_log_level(level):
        yield


def _make_head(kinds):
    """Return source space and BEM solution of fsaverage5, for types of channels."""
    layers = _EEG_CONDUCTIVITY if "eeg" in kinds else _EEG_CONDUCTIVITY[:1]
    return make_template_source_space(), make_template_bem(conductivity=layers)


def _can_ignore_references(info):
    """Say whether MEG reference channels, if any, do not matter to the forward."""
    grades = {
        int(info["chs"][pick]["coil_type"]) >> 16
        for pick in mne.pick_types(info, meg=True)
    }
    if any(grades):  # compensated data are sums of sensors and references
        return False
    if n := len(mne.pick_types(info, meg=False, ref_meg=True, exclude=())):
        logger.info("Leaving out %d MEG reference channels.", n)
    return True


def _read_trans(trans):
    if isinstance(trans, str) and trans == "fsaverage":
        trans = builtin_path("trans")
    _validate_type(trans, (mne.transforms.Transform, "path-like"), "trans")
    if not isinstance(trans, mne.transforms.Transform):
        if not Path(trans).is_file():
            raise FileNotFoundError(
                'trans must be a Transform, its file, or "fsaverage" (MNE\'s built-in '
                f"one), got {str(trans)!r}, which is no file."
            )
        trans = mne.read_trans(trans)
    _check_rigid(trans["trans"])
    if trans["from"] == FIFF.FIFFV_COORD_MRI:
        trans = mne.transforms.invert_transform(trans)
    return trans


def _check_rigid(matrix):
    """Raise if a head to MRI transform is no rotation and shift."""
    turn = matrix[:3, :3]
    finite = np.isfinite(matrix).all()
    square = finite and np.abs(turn @ turn.T - np.eye(3)).max() < _MAX_STRAIN
    if square and np.linalg.det(turn) > 0 and (matrix[3] == [0, 0, 0, 1]).all():
        return
    what = "has NaN or infinite values"
    if square and np.linalg.det(turn) > 0:
        what = f"has the last row {matrix[3].tolist()} instead of [0, 0, 0, 1]"
    elif finite:
        lengths = ", ".join(f"{size:.3g}" for size in np.linalg.svd(turn)[1])
        what = f"scales by {lengths}" + (
            ", and mirrors" if np.linalg.det(turn) < 0 else ""
        )
    raise ValueError(
        "trans must be the rotation and shift (m) from head to MRI coordinates, got a "
        f"matrix that {what}. Coregister again (mne.gui.coregistration), leave it out, "
        'or use trans="fsaverage". For a head of another size use affine in '
        "make_template_source_space, make_template_bem and make_template_trans."
    )


def _check_positions(info, kinds):
    if not kinds:
        raise ValueError(
            "info must hold EEG or MEG channels, got the types "
            f"{sorted(set(info.get_channel_types()))}."
        )
    picks = mne.pick_types(info, meg=True, eeg=True, exclude=())
    lost = []
    for ch in (info["chs"][pick] for pick in picks):
        if not np.isfinite(ch["loc"][:3]).all() or not ch["loc"][:3].any():
            lost.append(ch["ch_name"])
    cardinal = [
        point["r"]
        for point in info["dig"] or ()
        if point["kind"] == FIFF.FIFFV_POINT_CARDINAL
    ]
    if lost and not np.isfinite(cardinal).all():
        raise ValueError(
            f"info has no position for {len(lost)} channels, as nasion, LPA and RPA "
            "lie on one line or have NaN, and define no head coordinates. Give three "
            "different points: info.set_montage(mne.channels.make_dig_montage(ch_pos, "
            "nasion, lpa, rpa))."
        )
    if lost:
        raise ValueError(
            f"info has no position for {len(lost)} channels ({', '.join(lost[:5])}"
            f"{', ...' if len(lost) > 5 else ''}). Set them with "
            "info.set_montage(...), or drop these channels."
        )
    if kinds - {"eeg"} and info["dev_head_t"] is None:
        raise ValueError(
            "info['dev_head_t'] must be the position of the head in the MEG helmet, "
            "got None. Take it from the recording."
        )


def _fetch_fsaverage():
    """Return source space and BEM solution of MNE's fsaverage."""
    try:
        folder = Path(mne.datasets.fetch_fsaverage()) / "bem"
    except Exception as exc:
        raise RuntimeError(
            "head='fsaverage' needs MNE's fsaverage files, and they could not be "
            "downloaded. Run mne.datasets.fetch_fsaverage() where there is a "
            "connection, or use head='fsaverage5', which needs none."
        ) from exc
    src = mne.read_source_spaces(folder / "fsaverage-ico-5-src.fif")
    return src, mne.read_bem_solution(folder / "fsaverage-5120-5120-5120-bem-sol.fif")

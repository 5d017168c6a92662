"""The template head: fsaverage5, built offline from what MNE and nilearn ship."""

# License: BSD-3-Clause

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import mne
import numpy as np
from mne.io.constants import FIFF
from mne.utils import _check_option, _validate_type, logger, verbose

SUBJECT = "fsaverage5"
_VERSION = 1  # part of every cache key: raise it when a recipe below changes
_HEMIS = {"lh": "left", "rh": "right"}
_EEG_CONDUCTIVITY = (0.3, 0.006, 0.3)
_BEM_IDS = (
    FIFF.FIFFV_BEM_SURF_ID_BRAIN,
    FIFF.FIFFV_BEM_SURF_ID_SKULL,
    FIFF.FIFFV_BEM_SURF_ID_HEAD,
)


def data_path():
    """Return the folder where mne_deepsif keeps what it builds and downloads.

    Returns
    -------
    path : Path
        ``MNE_DEEPSIF_DATA`` (environment or MNE config) if set, else
        ``mne_deepsif`` in MNE's data folder. It is created if needed.
    """
    path = mne.get_config("MNE_DEEPSIF_DATA")
    if path is None:
        path = Path(mne.get_config("MNE_DATA", "~/mne_data")) / "mne_deepsif"
    path = Path(path).expanduser()
    path.mkdir(parents=True, exist_ok=True)
    return path


def _cached(name, params, suffix, read, write, make):
    """Read the file that ``params`` name, or make and write it (atomically)."""
    key = json.dumps([_VERSION, mne.__version__, params], sort_keys=True)
    key = hashlib.sha256(key.encode()).hexdigest()[:12]
    fname = data_path() / f"{name}-{key}{suffix}"
    if not fname.is_file():
        with tempfile.TemporaryDirectory(dir=data_path()) as folder:
            part = Path(folder) / fname.name
            write(part, make())
            os.replace(part, fname)
    return read(fname)


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
    subjects_dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=subjects_dir, prefix=".tmp_"))
    try:
        _write_cortex(folder / "surf")
        _write_head(folder / "bem")
        folder.chmod(0o755)
        os.rename(folder, subject)
    except OSError:
        if not subject.is_dir():  # else another process was faster: use its work
            raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    logger.info(f"Template subject {SUBJECT} written to {subjects_dir}")
    return subjects_dir


def _write_cortex(folder):
    import nibabel as nib

    folder.mkdir()
    surfaces = dict(white="white", pial="pial", inflated="infl", sphere="sphere")
    surfaces["sphere.reg"] = "sphere"
    morphs = dict(curv="curv", sulc="sulc", thickness="thick", area="area")
    for hemi in _HEMIS:
        for name, key in surfaces.items():
            rr, tris = _read_nilearn(key, hemi)
            fname = folder / f"{hemi}.{name}"
            nib.freesurfer.write_geometry(fname, rr, tris, create_stamp="mne_deepsif")
        for name, key in morphs.items():
            (values,) = _read_nilearn(key, hemi)
            nib.freesurfer.write_morph_data(folder / f"{hemi}.{name}", values)


def _read_nilearn(key, hemi):
    """Read an fsaverage5 surface or map (mm) from nilearn's wheel."""
    import nibabel as nib
    from nilearn import datasets

    fname = datasets.fetch_surf_fsaverage("fsaverage5")[f"{key}_{_HEMIS[hemi]}"]
    return [array.data for array in nib.load(fname).darrays]


def _write_head(folder):
    folder.mkdir()
    source = Path(mne.__file__).parent / "data" / "fsaverage"
    for kind in ("head", "fiducials"):
        shutil.copyfile(
            source / f"fsaverage-{kind}.fif", folder / f"{SUBJECT}-{kind}.fif"
        )
    mne.write_trans(folder / f"{SUBJECT}-trans.fif", _builtin_trans())


@verbose
def make_template_source_space(*, affine=None, verbose=None):
    """Make the template's source space: every vertex of the white surface.

    Parameters
    ----------
    affine : array of shape (3, 4) or (4, 4) | None
        Deformation of the head (in m, applied to MRI coordinates). Use the same
        one in :func:`make_template_bem` and :func:`make_template_trans`.
    %(verbose)s

    Returns
    -------
    src : SourceSpaces
        2 x 10242 vertices with surface normals, subject ``fsaverage5``, in MRI
        coordinates.
    """
    src = _cached(
        f"{SUBJECT}-all",
        [],
        "-src.fif",
        mne.read_source_spaces,
        lambda fname, src: mne.write_source_spaces(fname, src),
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
    affine = np.array(affine, float)
    if affine.shape not in ((3, 4), (4, 4)):
        raise ValueError(f"affine must have shape (3, 4) or (4, 4), got {affine.shape}")
    affine = np.vstack([affine[:3], [0, 0, 0, 1]])
    if not np.isfinite(affine).all() or np.linalg.det(affine[:3, :3]) <= 0:
        raise ValueError("affine must be finite and must not mirror or flatten.")
    return affine


def _move_surface(surf, affine):
    """Move the vertices of a surface, and turn its normals with them."""
    if np.array_equal(affine, np.eye(4)):
        return {}
    rr = mne.transforms.apply_trans(affine, surf["rr"])
    moved = dict(rr=rr, tris=surf["tris"], np=len(rr), ntri=len(surf["tris"]))
    moved = mne.surface.complete_surface_info(
        moved, copy=False, do_neighbor_tri=False, verbose=False
    )
    return dict(rr=moved["rr"], nn=moved["nn"])


def _read_builtin(kind):
    fname = Path(mne.__file__).parent / "data" / "fsaverage" / f"fsaverage-{kind}.fif"
    (surf,) = mne.read_bem_surfaces(fname, verbose=False)
    return surf


def _builtin_trans():
    path = Path(mne.__file__).parent / "data" / "fsaverage"
    return mne.read_trans(path / "fsaverage-trans.fif")


def _builtin_fiducials():
    path = Path(mne.__file__).parent / "data" / "fsaverage"
    return mne.io.read_fiducials(path / "fsaverage-fiducials.fif", verbose=False)[0]


def _outermost_hits(origin, directions, rr, tris):
    """Distance from origin to the last crossing of each ray with a surface.

    Moeller-Trumbore intersection of every ray with every triangle.
    """
    a, b, c = (rr[tris[:, ii]] - origin for ii in range(3))
    e1, e2 = b - a, c - a  # (n_tris, 3)
    q = np.cross(-a, e1)  # the ray starts at the origin
    dist = np.zeros(len(directions))
    for ii, d in enumerate(directions):
        p = np.cross(d, e2)
        det = np.einsum("ij,ij->i", e1, p)
        det[np.abs(det) < 1e-15] = np.nan
        u = -np.einsum("ij,ij->i", a, p) / det
        v = q @ d / det
        t = np.einsum("ij,ij->i", e2, q) / det
        hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)
        dist[ii] = t[hit].max(initial=0)
    return dist


def _smooth(values, tris, n_iter):
    """Average with the neighbours, n_iter times."""
    from scipy import sparse

    n = len(values)
    i, j = np.concatenate([tris[:, [0, 1]], tris[:, [1, 2]], tris[:, [2, 0]]]).T
    near = sparse.csr_array((np.ones(len(i)), (i, j)), shape=(n, n))
    near = ((near + near.T) > 0).astype(float) + sparse.eye_array(n)
    near = sparse.diags_array(1 / near.sum(axis=1)) @ near
    for _ in range(n_iter):
        values = near @ values
    return values


def _template_layers(skull_scale=1.0, scalp_scale=1.0):
    """Make nested inner skull, outer skull, scalp with one topology (ico 4), in m."""
    ico = mne.bem._ico_downsample(_read_builtin("inner_skull-bem"), 4)
    rr, tris = ico["rr"], ico["tris"]
    origin = rr.mean(axis=0)
    radius = np.linalg.norm(rr - origin, axis=1)
    rays = (rr - origin) / radius[:, np.newaxis]
    head = _read_builtin("head")
    total = _outermost_hits(origin, rays, head["rr"], head["tris"]) - radius
    total = _smooth(np.clip(total, 7e-3, 35e-3), tris, 5)
    skull = np.clip(0.45 * total, 4e-3, 9e-3) * skull_scale
    scalp = np.maximum((total - skull) * scalp_scale, 3e-3)
    return [
        dict(rr=origin + rays * (radius + depth)[:, np.newaxis], tris=tris)
        for depth in (np.zeros_like(total), skull, skull + scalp)
    ]


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
        Conductivities in S/m of brain, skull, scalp; or of the brain alone
        (a single-layer model, enough for MEG).
    skull_scale, scalp_scale : float
        Factors on the thickness of the skull and of the scalp.
    affine : array of shape (3, 4) or (4, 4) | None
        Deformation of the head, see :func:`make_template_source_space`.
    ico : 3 | 4
        Resolution of each surface: 1280 or 5120 triangles.
    %(verbose)s

    Returns
    -------
    bem : ConductorModel
        The BEM solution. Without deformation or scales it is cached on disk.
    """
    _check_option("ico", ico, (2, 3, 4))
    conductivity = np.atleast_1d(conductivity).astype(float).tolist()
    _check_option("number of conductivities", len(conductivity), (1, 3))
    affine = _check_affine(affine)

    def make():
        layers = _template_layers(skull_scale, scalp_scale)[: len(conductivity)]
        return _solve_bem(layers, conductivity, affine, ico)

    params = [conductivity, skull_scale, scalp_scale, ico]
    plain = (skull_scale, scalp_scale) == (1, 1) and np.array_equal(affine, np.eye(4))
    if not plain:
        return make()
    return _cached(
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
        surf = mne.bem._ico_downsample(layer, ico)
        rr = mne.transforms.apply_trans(affine, surf["rr"])
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
        With digitised nasion, LPA and RPA the three are matched with the
        template's (rotation and translation); otherwise MNE's built-in head to
        MRI transform of fsaverage is taken.
    affine : array of shape (3, 4) or (4, 4) | None
        Deformation of the head, see :func:`make_template_source_space`.
    %(verbose)s

    Returns
    -------
    trans : Transform
        The head to MRI transform.
    """
    affine = _check_affine(affine)
    fiducials = _builtin_fiducials()
    for point in fiducials:
        point["r"] = mne.transforms.apply_trans(affine, point["r"])
    cardinal = [d for d in info["dig"] or [] if d["kind"] == FIFF.FIFFV_POINT_CARDINAL]
    if len(cardinal) < 3:
        cardinal = _builtin_fiducials()
        for point in cardinal:
            point["r"] = mne.transforms.apply_trans(
                mne.transforms.invert_transform(_builtin_trans()), point["r"]
            )
    order = lambda points: np.array(
        [p["r"] for p in sorted(points, key=lambda p: p["ident"])]
    )
    trans = mne.coreg.fit_matched_points(order(cardinal), order(fiducials))
    return mne.transforms.Transform("head", "mri", trans)


@verbose
def make_template_forward(
    info, *, head="fsaverage5", trans=None, n_jobs=None, verbose=None
):
    """Make a forward solution on the template head for any recording.

    Parameters
    ----------
    info : Info
        EEG channels need positions (``set_montage``), MEG channels ``dev_head_t``.
    head : "fsaverage5" | "fsaverage"
        The offline template, or MNE's fsaverage with its measured BEM, which is
        downloaded when needed.
    trans : Transform | path-like | None
        Head to MRI transform. None: see :func:`make_template_trans`.
    %(n_jobs)s
    %(verbose)s

    Returns
    -------
    fwd : Forward
        Free orientation, all channels of ``info``.
    """
    _validate_type(info, mne.Info, "info")
    _check_option("head", head, ("fsaverage5", "fsaverage"))
    if trans is None:
        trans = make_template_trans(info)
    eeg = "eeg" in info.get_channel_types()
    bem = make_template_bem(conductivity=_EEG_CONDUCTIVITY if eeg else (0.3,))
    src = make_template_source_space()
    return mne.make_forward_solution(
        info, trans, src, bem, mindist=0.0, n_jobs=n_jobs
    )

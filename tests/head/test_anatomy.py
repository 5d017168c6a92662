"""The template's surfaces and layers, as nilearn, nibabel and MNE read them."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import nibabel as nib
import numpy as np
import pytest
from nilearn import datasets, surface
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial import cKDTree

from mne_deepsif.head.anatomy import (
    builtin_path,
    make_layers,
    read_white,
    write_cortex,
    write_head,
)

# FreeSurfer's names and nilearn's
SURFACES = {"white": "white", "pial": "pial", "inflated": "infl", "sphere": "sphere"}
MAPS = {"curv": "curv", "sulc": "sulc", "thickness": "thick", "area": "area"}
HEMIS = {"lh": "left", "rh": "right"}


@pytest.fixture(scope="module")
def installed():
    """Name the files that nilearn installs."""
    return datasets.fetch_surf_fsaverage("fsaverage5")


@pytest.fixture(scope="module")
def surf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("subject") / "surf"
    write_cortex(folder)
    return folder


# --------------------------------------------------------------- cortex


@pytest.mark.parametrize("hemi", HEMIS)
@pytest.mark.parametrize("name", (*SURFACES, "sphere.reg"))
def test_surfaces_are_those_of_nilearn(installed, surf, hemi, name):
    """What nibabel reads back is what nilearn reads from its own file."""
    key = SURFACES[name.removesuffix(".reg")]
    mesh = surface.load_surf_mesh(installed[f"{key}_{HEMIS[hemi]}"])
    rr, tris = nib.freesurfer.read_geometry(surf / f"{hemi}.{name}")
    assert_array_equal(rr, np.float32(mesh.coordinates))
    assert_array_equal(tris, mesh.faces)


@pytest.mark.parametrize("hemi", HEMIS)
@pytest.mark.parametrize("name", MAPS)
def test_maps_are_those_of_nilearn(installed, surf, hemi, name):
    expected = surface.load_surf_data(installed[f"{MAPS[name]}_{HEMIS[hemi]}"])
    values = nib.freesurfer.read_morph_data(surf / f"{hemi}.{name}")
    assert_allclose(values, expected, rtol=1e-6)
    assert np.std(values) > 0


def test_white_surfaces_are_in_metres(surf):
    for hemi, rr, tris in zip(HEMIS, *read_white()):
        expected, faces = nib.freesurfer.read_geometry(surf / f"{hemi}.white")
        assert_allclose(1e3 * rr, expected, atol=1e-4)  # mm
        assert_array_equal(tris, faces)


# --------------------------------------------------------------- head


@pytest.mark.parametrize(
    ("kind", "read"),
    (
        ("head", mne.read_bem_surfaces),
        ("inner_skull-bem", mne.read_bem_surfaces),
        ("fiducials", mne.io.read_fiducials),
        ("trans", mne.read_trans),
    ),
)
def test_builtin_files(kind, read):
    """They come with MNE, and MNE reads them."""
    assert builtin_path(kind).is_file()
    assert len(read(builtin_path(kind)))


def test_head_is_copied(tmp_path):
    write_head(tmp_path / "bem")
    copies = {path.name: path.read_bytes() for path in (tmp_path / "bem").iterdir()}
    assert copies == {
        f"fsaverage5-{kind}.fif": builtin_path(kind).read_bytes()
        for kind in ("head", "fiducials", "trans")
    }


def winding(points, rr, tris):
    """Count how often a closed mesh winds around points, by its solid angles."""
    corners = rr[tris][np.newaxis] - points[:, np.newaxis, np.newaxis]
    a, b, c = np.moveaxis(corners, 2, 0)  # each (n_points, n_tris, 3)
    la, lb, lc = (np.linalg.norm(x, axis=-1) for x in (a, b, c))
    ab, bc, ca = ((x * y).sum(-1) for x, y in ((a, b), (b, c), (c, a)))
    volume = (a * np.cross(b, c)).sum(-1)
    angles = np.arctan2(volume, la * lb * lc + ab * lc + bc * la + ca * lb)
    return angles.sum(1) / (2 * np.pi)


@pytest.mark.parametrize("scales", ((1.0, 1.0), (0.5, 2.0), (2.0, 0.01)))
def test_layers_are_nested(scales):
    inner, outer, scalp = make_layers(*scales)
    for within, around in ((inner, outer), (outer, scalp)):
        points = within["rr"][::40]
        assert_allclose(winding(points, around["rr"], around["tris"]), 1, atol=1e-6)
        points = around["rr"][::40]
        assert_allclose(winding(points, within["rr"], within["tris"]), 0, atol=1e-6)


def thickness(layers):
    """Return the thickness of skull and scalp along each ray, in m."""
    rr = [layer["rr"] for layer in layers]
    return [np.linalg.norm(b - a, axis=1) for a, b in zip(rr[:-1], rr[1:])]


def test_thickness_of_the_layers():
    """6 mm of skull; both together 12 to 35 mm, so 6 to 29 mm of scalp."""
    skull, scalp = thickness(make_layers())
    assert_allclose(skull, 6e-3, rtol=1e-9)
    assert_allclose([scalp.min(), scalp.max()], [6e-3, 29e-3], rtol=1e-6)
    thin, thick = thickness(make_layers(0.5, 2.0))
    assert_allclose(thin, 3e-3, rtol=1e-9)
    assert_allclose(thick, 2 * scalp, rtol=1e-9)
    _, least = thickness(make_layers(1.0, 0.3))
    assert_allclose(least, np.maximum(0.3 * scalp, 3e-3), rtol=1e-9)
    assert 0.3 * scalp.min() < 3e-3 < 0.3 * scalp.max()


def test_inner_skull_is_that_of_mne():
    inner = make_layers(0.7, 1.3)[0]
    (expected,) = mne.read_bem_surfaces(builtin_path("inner_skull-bem"))
    apart, which = cKDTree(expected["rr"]).query(inner["rr"])
    assert_allclose(apart, 0, atol=1e-7)
    assert len(np.unique(which)) == 2562 and inner["tris"].shape == (5120, 3)


def test_scalp_is_that_of_mne_where_it_is_free():
    """On top, fsaverage's scalp is 12 to 35 mm away, so it is kept within 2 mm."""
    inner, _, scalp = (layer["rr"] for layer in make_layers())
    (head,) = mne.read_bem_surfaces(builtin_path("head"))
    top = scalp[:, 2] > scalp[:, 2].max() - 0.04
    rays = scalp[top] - inner[top]
    rays *= 2e-3 / np.linalg.norm(rays, axis=1, keepdims=True)
    below, above = (
        winding(scalp[top][::10] + step * rays[::10], head["rr"], head["tris"])
        for step in (-1, 1)
    )
    assert np.mean(below > 0.5) > 0.95 and np.mean(above < 0.5) > 0.95

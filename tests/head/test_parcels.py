"""Parcels: how they are cut, and how they get to a subject."""

from pathlib import Path

import mne
import nibabel as nib
import numpy as np
import pytest
from scipy import sparse

from mne_deepsif import (
    Parcels,
    assign_vertices,
    make_parcels,
    make_template_parcels,
    make_template_source_space,
    make_template_subject,
)
from mne_deepsif.head.mesh import (
    edge_graph,
    mesh_edges,
)

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def full():
    """Give the parcellation that the package uses."""
    return make_template_parcels()


@pytest.fixture(scope="module")
def src():
    return make_template_source_space()


@pytest.fixture(scope="module")
def nmm_labels():
    """Give the DeepSIF authors' 994 regions."""
    folder = SHARED / "reference"
    if not folder.is_dir():
        pytest.skip(f"needs the authors' annotation in {folder}")
    labels = []
    for hemi in ("lh", "rh"):
        labels += mne.read_labels_from_annot(
            "fsaverage5",
            annot_fname=folder / f"{hemi}.nmm_994.annot",
            hemi=hemi,
            subjects_dir=make_template_subject(),
        )
    return labels


def _rename(src, subject):
    src = src.copy()
    for s in src:
        s["subject_his_id"] = subject
    return src


def _keep(src, vertno):
    src = src.copy()
    for s in src:
        s["inuse"][:] = 0
        s["inuse"][vertno] = 1
        s.update(vertno=np.array(vertno), nuse=len(vertno))
    return src


# ------------------------------------------------------------- template parcellation


def test_template_parcels(full):
    assert isinstance(full, Parcels)
    assert full.subject == "fsaverage5"
    assert full.n_parcels == 994
    np.testing.assert_array_equal(np.unique(full.mapping), np.arange(-1, 994))
    assert full.mapping.shape == (20484,)
    assert full.mapping.dtype == np.int32
    assert full.areas.std() < 0.05 * full.areas.mean()
    assert 0.11 < full.areas.sum() < 0.14  # m²: fsaverage's white surface


def test_no_parcel_crosses_the_midline(full):
    left, right = full.by_hemi()
    assert not set(left[left >= 0]) & set(right[right >= 0])
    np.testing.assert_array_equal(full.hemi, full.centers[:, 0] > 0)
    np.testing.assert_array_equal(
        np.unique(right[right >= 0]), np.flatnonzero(full.hemi)
    )


def test_parcels_are_contiguous(full, src):
    start = 0
    for s in src:
        graph = edge_graph(s["tris"], s["np"])
        part = full.mapping[start : start + s["np"]]
        start += s["np"]
        edges = mesh_edges(s["tris"])
        inner = edges[part[edges[:, 0]] == part[edges[:, 1]]]
        i, j = inner.T
        graph = sparse.csr_array((np.ones(len(i)), (i, j)), shape=(s["np"], s["np"]))
        _, piece = sparse.csgraph.connected_components(graph, directed=False)
        # a parcel that were in two pieces would have more pieces than parcels
        assert len(np.unique(piece)) == len(np.unique(part))


def test_medial_wall_is_left_out(full):
    surf = make_template_subject() / "fsaverage5" / "surf"
    for hemi, part in zip(("lh", "rh"), full.by_hemi()):
        thickness = nib.freesurfer.read_morph_data(surf / f"{hemi}.thickness")
        assert (part[thickness <= 0] == -1).mean() > 0.99
        assert 500 < (part == -1).sum() < 900


def test_medial_wall_of_a_subject(full):
    """The subject's aparc names 870 vertices a side that are no cortex."""
    if not SHARED.is_dir():
        pytest.skip("needs the project's ../shared/data")
    for hemi, part in zip(("lh", "rh"), full.by_hemi()):
        fname = SHARED / "sample" / "sample_fs5" / "label" / f"{hemi}.aparc.annot"
        number, _, names = nib.freesurfer.read_annot(fname)
        none = (number < 0) | (number == names.index(b"unknown"))
        assert none[part == -1].mean() > 0.95
        assert (part[none] == -1).mean() > 0.65


def test_adjacency(full):
    adjacency = full.adjacency
    assert adjacency.dtype == bool
    assert (adjacency != adjacency.T).nnz == 0
    assert adjacency.diagonal().sum() == 0
    degree = adjacency.sum(axis=1)
    assert degree.min() >= 1
    assert 5 <= np.median(degree) <= 7  # cells of a plane have 6 neighbours on average
    i, j = adjacency.nonzero()
    assert (full.hemi[i] == full.hemi[j]).all()
    assert sparse.csgraph.connected_components(adjacency)[0] == 2
    assert np.linalg.norm(full.centers[i] - full.centers[j], axis=1).max() < 0.04


def test_centers_lie_in_their_parcels(full, src):
    rr = np.concatenate([s["rr"] for s in src])
    for parcel in (0, 300, 993):
        distance = np.linalg.norm(rr - full.centers[parcel], axis=1)
        assert distance.min() < 1e-6
        assert full.mapping[distance.argmin()] == parcel


def test_areas_add_up(full, src):
    for parcel in (5, 700):
        s = src[full.hemi[parcel]]
        part = full.by_hemi()[full.hemi[parcel]]
        # triangles inside make less, triangles touching make more
        share = (part[s["tris"]] == parcel).sum(axis=1)
        area = mne.surface.complete_surface_info(dict(rr=s["rr"], tris=s["tris"]))
        area = area["tri_area"]
        assert area[share == 3].sum() < full.areas[parcel] < area[share > 0].sum()
        assert full.areas[parcel] == pytest.approx((area * share).sum() / 3, rel=1e-4)


def test_cutting_is_deterministic(tmp_path, monkeypatch):
    one = make_template_parcels(60)
    monkeypatch.setenv("MNE_DEEPSIF_DATA", str(tmp_path))
    two = make_template_parcels(60)
    np.testing.assert_array_equal(one.mapping, two.mapping)
    assert two.n_parcels == 60
    assert [path.suffix for path in tmp_path.iterdir()] == [".npy"]


@pytest.mark.parametrize("n_parcels", [1, 5000])
def test_bad_number_of_parcels(n_parcels):
    with pytest.raises(ValueError, match="n_parcels"):
        make_template_parcels(n_parcels)


# -------------------------------------------------------------------------- labels


def test_labels_and_back(parcels):
    labels = parcels.to_labels()
    assert len(labels) == parcels.n_parcels
    assert len({label.name for label in labels}) == parcels.n_parcels
    back = make_parcels(labels)
    np.testing.assert_array_equal(back.mapping, parcels.mapping)
    np.testing.assert_allclose(back.areas, parcels.areas)
    np.testing.assert_allclose(back.centers, parcels.centers)
    assert (back.adjacency != parcels.adjacency).nnz == 0


def test_some_labels(parcels):
    labels = parcels.to_labels()[150:40:-10]
    few = make_parcels(labels)
    assert few.n_parcels == len(labels)
    np.testing.assert_allclose(few.areas, parcels.areas[150:40:-10])
    np.testing.assert_array_equal(few.hemi, parcels.hemi[150:40:-10])


def test_authors_regions(nmm_labels):
    parcels = make_parcels(nmm_labels)
    assert parcels.n_parcels == 994
    assert (parcels.mapping >= 0).all()


def test_annotation_by_name(parcels, tmp_path):
    subjects_dir = make_template_subject(tmp_path)
    (tmp_path / "fsaverage5" / "label").mkdir()
    mne.write_labels_to_annot(
        parcels.to_labels(), "fsaverage5", "mine", subjects_dir=subjects_dir
    )
    back = make_parcels("mine", subjects_dir=subjects_dir)
    assert back.n_parcels == parcels.n_parcels
    np.testing.assert_allclose(np.sort(back.areas), np.sort(parcels.areas))


def test_labels_of_another_subject(parcels, tmp_path):
    make_template_subject(tmp_path)
    (tmp_path / "fsaverage5").rename(tmp_path / "other")
    labels = parcels.to_labels()
    for label in labels:
        label.subject = "other"
    back = make_parcels(labels, subjects_dir=tmp_path)
    assert back.subject == "other"
    np.testing.assert_array_equal(back.mapping, parcels.mapping)


def test_bad_labels(parcels):
    labels = parcels.to_labels()[:3]
    with pytest.raises(ValueError, match="overlap"):
        make_parcels([*labels, labels[1]])
    with pytest.raises(ValueError, match="at least 2"):
        make_parcels(labels[:1])
    with pytest.raises(TypeError, match="labels must be"):
        make_parcels(3)
    with pytest.raises(TypeError, match="element of labels"):
        make_parcels([labels[0], "another"])
    labels[1].subject = "someone"
    with pytest.raises(ValueError, match="share one subject"):
        make_parcels(labels)
    labels[1] = mne.Label([], hemi="lh", name="none", subject="fsaverage5")
    with pytest.raises(ValueError, match="empty.*none"):
        make_parcels(labels)


def test_label_beyond_the_surface(parcels):
    labels = parcels.to_labels()[:3]
    labels.append(mne.Label([10242], hemi="lh", name="far", subject="fsaverage5"))
    with pytest.raises(ValueError, match="far.*10242"):
        make_parcels(labels)


# -------------------------------------------------------------------- to a subject


@pytest.mark.parametrize("subject", ["fsaverage5", "fsaverage"])
def test_template_numbering(parcels, src, subject):
    found = assign_vertices(parcels, _rename(src, subject))
    np.testing.assert_array_equal(np.concatenate(found), parcels.mapping)


def test_decimated_source_space(parcels, src):
    vertno = np.r_[5:500:7, 9000:10242:11]
    found = assign_vertices(parcels, _keep(src, vertno))
    for part, whole in zip(found, parcels.by_hemi()):
        np.testing.assert_array_equal(part, whole[vertno])


def test_through_the_sphere(parcels, src, tmp_path):
    """Another subject: the same brain with its vertices shuffled."""
    make_template_subject(tmp_path)
    (tmp_path / "fsaverage5").rename(tmp_path / "other")
    other, order = _rename(src, "other"), np.random.RandomState(0).permutation(10242)
    for hemi, s in zip(("lh", "rh"), other):
        s.update(rr=s["rr"][order] + 1.0, nn=s["nn"][order])
        fname = tmp_path / "other" / "surf" / f"{hemi}.sphere.reg"
        rr, tris = mne.read_surface(fname)
        mne.write_surface(
            fname, 0.5 * rr[order], np.argsort(order)[tris], overwrite=True
        )
    found = assign_vertices(parcels, other, subjects_dir=tmp_path)
    for part, whole in zip(found, parcels.by_hemi()):
        np.testing.assert_array_equal(part, whole[order])


def test_wrong_sphere(parcels, src, tmp_path):
    make_template_subject(tmp_path)
    (tmp_path / "fsaverage5").rename(tmp_path / "other")
    other = _rename(src, "other")
    for s in other:
        s.update(rr=s["rr"][:5000], np=5000)
    with pytest.raises(ValueError, match="right one"):
        assign_vertices(parcels, other, subjects_dir=tmp_path)


def test_sample_subject_sphere(nmm_labels, sample_dir):
    """A real subject on fsaverage5's topology: numbers must agree."""
    parcels = make_parcels(nmm_labels)
    fname = sample_dir / "sample_fs5" / "bem" / "sample_fs5-src.fif"
    found = assign_vertices(parcels, mne.read_source_spaces(fname), sample_dir)
    np.testing.assert_array_equal(np.concatenate(found), parcels.mapping)
    # independently: the subject's own annotation
    for hemi, part in zip(("lh", "rh"), found):
        annot = sample_dir / "sample_fs5" / "label" / f"{hemi}.nmm_994.annot"
        number, _, _ = nib.freesurfer.read_annot(annot)
        pairs = np.unique(np.c_[number, part], axis=0)
        assert len(pairs) == len(np.unique(part))


def test_sample_subject_in_head_coordinates(parcels, sample_dir):
    """A forward keeps its source space in head coordinates; the sphere still works."""
    fname = sample_dir / "sample_fs5" / "bem" / "sample_fs5-src.fif"
    src = mne.read_source_spaces(fname)
    trans = mne.read_trans(sample_dir / "sample_fs5-trans.fif")
    src._transform_to("head", trans)
    found = assign_vertices(parcels, src, sample_dir)
    np.testing.assert_array_equal(np.concatenate(found), parcels.mapping)


@pytest.mark.parametrize("frame", ["mri", "head"])
def test_sample_subject_by_shape(full, src, sample_dir, frame):
    """Without spheres most vertices come close to where the spheres put them."""
    fname = sample_dir / "sample_fs5" / "bem" / "sample_fs5-src.fif"
    sample = _rename(mne.read_source_spaces(fname), "nobody")
    if frame == "head":
        sample._transform_to(
            "head", mne.read_trans(sample_dir / "sample_fs5-trans.fif")
        )
    with pytest.warns(
        RuntimeWarning, match="No sphere.reg surfaces of subject 'nobody'"
    ):
        found = assign_vertices(full, sample)
    found, wanted = np.concatenate(found), full.mapping
    both = (found >= 0) & (wanted >= 0)
    away = np.linalg.norm(
        full.centers[found[both]] - full.centers[wanted[both]], axis=1
    )
    assert (away == 0).mean() > 0.6
    assert np.percentile(away, 95) < 0.015


def test_source_space_without_surfaces(parcels, src):
    bare = _rename(_keep(src, np.arange(100)), "nobody")
    for s in bare:
        s.update(rr=s["rr"][:100], nn=s["nn"][:100], np=100)
    with pytest.raises(ValueError, match="no complete surfaces.*subjects_dir"):
        assign_vertices(parcels, bare)


def test_other_source_spaces(parcels, src):
    with pytest.raises(ValueError, match="two hemispheres"):
        assign_vertices(parcels, src[:1])
    volume = mne.setup_volume_source_space(pos=40.0, sphere=(0.0, 0.0, 0.0, 0.09))
    with pytest.raises(ValueError, match="surface source space"):
        assign_vertices(parcels, volume)
    with pytest.raises(TypeError, match="parcels must be"):
        assign_vertices("nmm_994", src)

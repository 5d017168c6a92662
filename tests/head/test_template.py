"""The offline template head."""

import logging
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import mne
import nibabel as nib
import numpy as np
import pytest
import scipy.io

from mne_deepsif import (
    make_template_bem,
    make_template_forward,
    make_template_source_space,
    make_template_subject,
    make_template_trans,
)

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="needs the project's ../shared/data"
)


@pytest.fixture(scope="module")
def info():
    montage = mne.channels.make_standard_montage("fsaverage_1020")
    names = ["Fpz", "Fz", "Cz", "Pz", "Oz", "C3", "C4", "T7", "T8", "P7", "P8", "F7"]
    return mne.create_info(names, 250.0, "eeg").set_montage(montage)


@pytest.fixture(scope="module")
def fwd(info):
    return make_template_forward(info)


@pytest.fixture(scope="module")
def meg_info():
    info = mne.channels.read_meg_canonical_info("ctf151")
    shift = np.eye(4)
    shift[:3, 3] = [0.0, 0.02, 0.05]  # raises the helmet above the head
    turn = mne.transforms.rotation(z=-np.pi / 4)  # CTF's x axis points to the nose
    info["dev_head_t"] = mne.transforms.Transform("meg", "head", shift @ turn)
    return mne.pick_info(info, mne.pick_types(info, meg=True)[::10])


def _fixed(fwd):
    return mne.convert_forward_solution(
        fwd, surf_ori=True, force_fixed=True, use_cps=True
    )["sol"]["data"]


def _enclosed_volume(rr, tris):
    a, b, c = (rr[tris[:, ii]] for ii in range(3))
    return np.einsum("ij,ij->", a, np.cross(b, c)) / 6


# ------------------------------------------------------------------- the subject


def test_subject_is_a_freesurfer_subject(tmp_path):
    subjects_dir = make_template_subject(tmp_path)
    assert subjects_dir == tmp_path
    for hemi in ("lh", "rh"):
        for name in ("white", "pial", "inflated", "sphere", "sphere.reg"):
            rr, tris = nib.freesurfer.read_geometry(
                tmp_path / "fsaverage5" / "surf" / f"{hemi}.{name}"
            )
            assert (len(rr), len(tris)) == (10242, 20480)
            # closed, of genus 0
            edges = np.sort(np.concatenate([tris[:, [0, 1]], tris[:, 1:]]), axis=1)
            edges = np.vstack([edges, np.sort(tris[:, [0, 2]], axis=1)])
            assert len(rr) - len(np.unique(edges, axis=0)) + len(tris) == 2
        folder = tmp_path / "fsaverage5" / "surf"
        for name in ("curv", "sulc", "thickness"):
            assert len(nib.freesurfer.read_morph_data(folder / f"{hemi}.{name}")) == (
                10242
            )
    assert [path.name for path in tmp_path.iterdir()] == ["fsaverage5"]


def test_subject_is_written_once(tmp_path):
    make_template_subject(tmp_path)
    mark = tmp_path / "fsaverage5" / "mark"
    mark.touch()
    make_template_subject(tmp_path)
    assert mark.is_file()


def test_subject_by_two_processes(tmp_path):
    code = "import sys, mne_deepsif as m; m.make_template_subject(sys.argv[1])"
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    jobs = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=env)
        for _ in range(2)
    ]
    assert [job.wait() for job in jobs] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["fsaverage5"]


def test_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def stop(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr("mne_deepsif.head.template.write_head", stop)
    with pytest.raises(KeyboardInterrupt):
        make_template_subject(tmp_path)
    assert not list(tmp_path.iterdir())


# --------------------------------------------------------- source space and head


def test_source_space():
    src = make_template_source_space()
    assert [s["nuse"] for s in src] == [10242, 10242]
    assert src[0]["subject_his_id"] == "fsaverage5"
    assert src[0]["rr"][:, 0].mean() < 0 < src[1]["rr"][:, 0].mean()
    for s in src:
        np.testing.assert_allclose(np.linalg.norm(s["nn"], axis=1), 1, rtol=1e-5)
        # moving along the normals makes the surface larger: they point outwards
        step = _enclosed_volume(s["rr"] + 1e-4 * s["nn"], s["tris"])
        assert step > _enclosed_volume(s["rr"], s["tris"]) > 0


@needs_shared
def test_numbering_is_fsaverage5():
    cortex = scipy.io.loadmat(SHARED / "reference" / "fs_cortex_20k.mat")
    folder = make_template_subject() / "fsaverage5" / "surf"
    pial = [nib.freesurfer.read_geometry(folder / f"{h}.pial")[0] for h in ("lh", "rh")]
    np.testing.assert_allclose(np.concatenate(pial), cortex["pos"], atol=1e-3)


@pytest.mark.parametrize("scales", [{}, dict(skull_scale=0.6, scalp_scale=0.3)])
def test_layers_are_nested(scales):
    bem = make_template_bem(ico=2, **scales)
    assert [surf["id"] for surf in bem["surfs"]] == [4, 3, 1]
    assert [surf["sigma"] for surf in bem["surfs"]] == pytest.approx([0.3, 0.006, 0.3])
    skull = 6e-3 * scales.get("skull_scale", 1)
    scalp, outer, inner = (surf["rr"] for surf in bem["surfs"])
    np.testing.assert_allclose(np.linalg.norm(outer - inner, axis=1), skull, rtol=1e-3)
    assert np.linalg.norm(scalp - outer, axis=1).min() > 2.9e-3
    volumes = [_enclosed_volume(surf["rr"], surf["tris"]) for surf in bem["surfs"]]
    assert volumes[0] > volumes[1] > volumes[2] > 1.2e-3  # m³, a brain and its water


def test_deformation_is_the_same_for_all():
    affine = np.array([[1.1, 0, 0, 0], [0, 0.9, 0.05, 0], [0, 0, 1.2, 0.01]])
    src, moved = make_template_source_space(), make_template_source_space(affine=affine)
    bem = make_template_bem(conductivity=(0.3,), ico=2)
    bem_moved = make_template_bem(conductivity=(0.3,), ico=2, affine=affine)
    for old, new in zip([*src, *bem["surfs"]], [*moved, *bem_moved["surfs"]]):
        expected = mne.transforms.apply_trans(
            np.vstack([affine, [0, 0, 0, 1]]), old["rr"]
        )
        np.testing.assert_allclose(new["rr"], expected, atol=1e-6)
        # a face's normal turns with the inverse transpose
        turned = old["nn"] @ np.linalg.inv(affine[:, :3])
        turned /= np.linalg.norm(turned, axis=1, keepdims=True)
        assert np.median((turned * new["nn"]).sum(axis=1)) > 0.99


def test_deformation_by_a_function(info):
    matrix = np.array(
        [[1.1, 0, 0, 0], [0, 0.9, 0.05, 0], [0, 0, 1.2, 0.01], [0, 0, 0, 1]]
    )
    calls = [make_template_source_space, partial(make_template_trans, info)]
    calls.append(partial(make_template_bem, conductivity=(0.3,), ico=2))
    moved, expected = (
        [call(affine=affine) for call in calls]
        for affine in (partial(mne.transforms.apply_trans, matrix), matrix)
    )
    for new, old in zip(
        [*moved[0], *moved[2]["surfs"]], [*expected[0], *expected[2]["surfs"]]
    ):
        np.testing.assert_array_equal(new["rr"], old["rr"])
        np.testing.assert_array_equal(new["nn"], old["nn"])
    np.testing.assert_array_equal(moved[1]["trans"], expected[1]["trans"])


@pytest.mark.parametrize(
    ("affine", "match"),
    [
        (np.eye(3), "shape"),
        (np.diag([-1, 1, 1, 1]), "mirror"),
        (np.full((4, 4), np.nan), "finite"),
    ],
)
def test_bad_affine(affine, match):
    with pytest.raises(ValueError, match=match):
        make_template_source_space(affine=affine)


def test_bad_bem_parameters():
    with pytest.raises(ValueError, match="ico"):
        make_template_bem(ico=5)
    with pytest.raises(ValueError, match="conductivities"):
        make_template_bem(conductivity=(0.3, 0.006))
    with pytest.raises(ValueError, match="skull_scale"):
        make_template_bem(skull_scale=0.0)


def test_cached_bem_equals_fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("MNE_DEEPSIF_DATA", str(tmp_path))
    one = make_template_bem(conductivity=(0.3,), ico=2)
    (fname,) = tmp_path.iterdir()
    stamp = fname.stat().st_mtime_ns
    two = make_template_bem(conductivity=(0.3,), ico=2)
    assert fname.stat().st_mtime_ns == stamp
    np.testing.assert_array_equal(one["solution"], two["solution"])
    make_template_bem(conductivity=(0.33,), ico=2)
    assert len(list(tmp_path.iterdir())) == 2


# ------------------------------------------------------------------- the forward


def test_trans_of_template_montage_is_builtin(info):
    builtin = Path(mne.__file__).parent / "data" / "fsaverage" / "fsaverage-trans.fif"
    builtin = mne.read_trans(builtin)
    trans = make_template_trans(info)
    electrodes = np.array([ch["loc"][:3] for ch in info["chs"]])
    one, two = (mne.transforms.apply_trans(t, electrodes) for t in (trans, builtin))
    np.testing.assert_allclose(one, two, atol=2e-3)
    assert (trans["from"], trans["to"]) == (4, 5)  # head, MRI
    bare = mne.create_info(["a"], 100.0, "eeg")
    np.testing.assert_allclose(
        make_template_trans(bare)["trans"], builtin["trans"], atol=1e-6
    )


def test_trans_follows_the_deformed_head(info):
    affine = np.eye(4)
    affine[:3, 3] = [0.01, -0.02, 0.03]
    plain, moved = make_template_trans(info), make_template_trans(info, affine=affine)
    np.testing.assert_allclose(moved["trans"], affine @ plain["trans"], atol=1e-7)


def test_trans_matches_fiducials():
    digitised = dict(nasion=[0, 0.1, 0], lpa=[-0.08, 0, 0], rpa=[0.08, 0, 0])
    montage = mne.channels.make_dig_montage({"a": [0, 0, 0.1]}, **digitised)
    info = mne.create_info(["a"], 100.0, "eeg").set_montage(montage)
    fname = Path(mne.__file__).parent / "data" / "fsaverage" / "fsaverage-fiducials.fif"
    expected = mne.coreg.coregister_fiducials(info, str(fname))
    np.testing.assert_allclose(
        make_template_trans(info)["trans"], expected["trans"], atol=1e-6
    )


def test_eeg_forward(info, fwd):
    assert fwd["sol"]["row_names"] == info["ch_names"]
    assert fwd["nsource"] == 20484  # no vertex lies outside the inner skull
    assert fwd["src"][0]["subject_his_id"] == "fsaverage5"
    gain = _fixed(fwd)
    assert gain.shape == (12, 20484)
    gain = gain - gain.mean(axis=0)
    # a dipole on the gyrus below C3 gives C3 the largest potential, of 0.1 V/A·m order
    best = np.abs(gain[info["ch_names"].index("C3")]).argmax()
    assert best < 10242
    assert info["ch_names"][np.abs(gain[:, best]).argmax()] == "C3"
    assert 10 < np.abs(gain).max() < 1000


def test_forward_is_symmetric(info, fwd):
    gain = np.linalg.norm(_fixed(fwd), axis=1)
    gain = dict(zip(info["ch_names"], gain))
    for left, right in (("C3", "C4"), ("T7", "T8"), ("P7", "P8")):
        assert gain[left] == pytest.approx(gain[right], rel=0.2)


def test_trans_may_be_given(info, fwd, tmp_path):
    inverse = mne.transforms.invert_transform(make_template_trans(info))
    mne.write_trans(tmp_path / "some-trans.fif", inverse)
    few = mne.pick_info(info, [0, 3])
    given = make_template_forward(few, trans=tmp_path / "some-trans.fif")
    np.testing.assert_allclose(
        given["sol"]["data"], fwd["sol"]["data"][[0, 3]], rtol=1e-3, atol=1e-3
    )
    with pytest.raises(TypeError, match="trans must be"):
        make_template_forward(few, trans=3)
    with pytest.raises(FileNotFoundError, match='or "fsaverage".*got .fsaverage5.'):
        make_template_forward(few, trans="fsaverage5")


@pytest.mark.parametrize(
    ("level", "verbose", "expected"),
    [
        ("info", None, "own"),
        ("error", None, ""),
        ("info", False, ""),
        ("error", True, "MNE's own"),
        ("debug", None, "MNE's own"),
    ],
)
def test_messages(info, fwd, monkeypatch, level, verbose, expected):
    """By default two lines say what is made; MNE's are there for who wants them."""

    def make(*args, **kwargs):
        mne.utils.logger.info("a line of MNE's")
        return fwd

    monkeypatch.setattr("mne_deepsif.head.template.make_forward_solution", make)
    with mne.use_log_level(level), mne.utils.catch_logging() as log:
        make_template_forward(info, verbose=verbose)
        assert mne.utils.logger.level == getattr(logging, level.upper())
        said = log.getvalue()
    own = f"Forward solution on fsaverage5: {fwd['nchan']} channels, 20484 vertices.\n"
    assert ("a line of MNE's\n" in said) == ("MNE's" in expected)
    assert ("Loading surfaces" in said) == ("MNE's" in expected)
    assert own in said if "own" in expected else said == ""
    if expected == "own":
        first = "Computing a forward solution on fsaverage5. The first one takes longer"
        assert said.startswith(first) and said.endswith(own)
        assert len(said.splitlines()) == 2


def test_meg_forward(meg_info):
    fwd = make_template_forward(meg_info)
    assert fwd["nsource"] == 20484
    assert np.isfinite(fwd["sol"]["data"]).all()
    assert np.abs(fwd["sol"]["data"]).max() > 1e-8  # T/(A·m): not zero, not far away


def test_helmet_on_the_head_is_wanted(meg_info):
    meg_info = meg_info.copy()
    meg_info["dev_head_t"] = mne.transforms.Transform("meg", "head", np.eye(4))
    with pytest.raises(ValueError, match="inside the template's skull.*dev_head_t"):
        make_template_forward(meg_info)
    meg_info["dev_head_t"] = None
    with pytest.raises(ValueError, match="dev_head_t"):
        make_template_forward(meg_info)


@pytest.mark.parametrize(
    ("matrix", "what"),
    (
        (np.zeros((4, 4)), "scales by 0, 0, 0"),
        (np.diag([1.0, 1.0, 0.0, 1.0]), "scales by 1, 1, 0"),
        (np.diag([-1.0, 1.0, 1.0, 1.0]), "mirrors"),
        (np.diag([1.3, 1.3, 1.3, 1.0]), "scales by 1.3"),
        (np.full((4, 4), np.nan), "NaN"),
        (np.eye(4) + np.eye(4, k=-3), r"last row \[1.0, 0.0, 0.0, 1.0\] instead of"),
    ),
)
def test_trans_that_is_no_motion(info, matrix, what):
    """Singular ones, too: no error of linear algebra."""
    for direction in (("head", "mri"), ("mri", "head")):
        trans = mne.transforms.Transform(*direction, matrix)
        match = f"trans must be the rotation and shift.*{what}"
        with pytest.raises(ValueError, match=match):
            make_template_forward(info, trans=trans)


@pytest.mark.parametrize("value", (np.nan, 0.0))
def test_trans_of_fiducials_without_values(info, value):
    """As without fiducials."""
    bare = mne.create_info(["x"], 100.0, "eeg")
    broken = info.copy()
    for point in broken["dig"][:3]:
        point["r"] = np.full(3, value, np.float32)
    np.testing.assert_array_equal(
        make_template_trans(broken)["trans"], make_template_trans(bare)["trans"]
    )


@pytest.mark.filterwarnings("ignore:invalid value encountered in divide")
def test_fiducials_that_are_the_same_point(info):
    """MNE makes all positions NaN; the message says why."""
    pos = info.get_montage().get_positions()
    pos["lpa"] = pos["rpa"]
    pos["coord_frame"] = "unknown"
    wrong = mne.create_info(info["ch_names"], 250.0, "eeg")
    wrong.set_montage(mne.channels.make_dig_montage(**pos))
    with pytest.raises(ValueError, match="nasion, LPA and RPA lie on one line"):
        make_template_forward(wrong)


def test_channels_without_position(info):
    lost = mne.create_info([f"E{ii}" for ii in range(7)], 100.0, "eeg")
    with pytest.raises(ValueError, match=r"7 channels \(E0, .*set_montage"):
        make_template_forward(lost)
    with pytest.raises(ValueError, match="EEG or MEG"):
        make_template_forward(mne.create_info(["a"], 100.0, "ecog"))
    with pytest.raises(TypeError, match="info must be"):
        make_template_forward(dict(info))
    with pytest.raises(ValueError, match="head"):
        make_template_forward(info, head="colin27")


def test_measured_fsaverage(info, tmp_path, monkeypatch):
    """The other head: files as MNE names them, without the download."""
    folder = tmp_path / "fsaverage" / "bem"
    folder.mkdir(parents=True)
    src = make_template_source_space()
    for s in src:
        s["subject_his_id"] = "fsaverage"
    mne.write_source_spaces(folder / "fsaverage-ico-5-src.fif", src)
    mne.write_bem_solution(
        folder / "fsaverage-5120-5120-5120-bem-sol.fif", make_template_bem(ico=2)
    )
    monkeypatch.setattr(
        mne.datasets, "fetch_fsaverage", lambda: str(tmp_path / "fsaverage")
    )
    fwd = make_template_forward(mne.pick_info(info, [2, 4]), head="fsaverage")
    assert fwd["src"][0]["subject_his_id"] == "fsaverage"
    assert fwd["sol"]["data"].shape == (2, 3 * 20484)


def test_measured_fsaverage_offline(info, monkeypatch):
    def fail():
        raise OSError("no route to host")

    monkeypatch.setattr(mne.datasets, "fetch_fsaverage", fail)
    with pytest.raises(RuntimeError, match="use head='fsaverage5'"):
        make_template_forward(info, head="fsaverage")


@needs_shared
def test_authors_gain():
    """The published 75-channel gain, from another head model of the same cortex."""
    folder = SHARED / "reference"
    gain = scipy.io.loadmat(folder / "leadfield_75_20k.mat")["fwd"]
    regions = scipy.io.loadmat(folder / "fs_cortex_20k_region_mapping.mat")["rm"]
    names = scipy.io.loadmat(folder / "electrode_75.mat", squeeze_me=True)["eloc75"]
    montage = mne.channels.make_standard_montage("fsaverage_1005")
    rows = [ii for ii, n in enumerate(names["labels"]) if n in montage.ch_names]
    info = mne.create_info(list(names["labels"][rows]), 250.0, "eeg")
    ours = np.zeros((len(rows), gain.shape[1]))
    vertices = _fixed(make_template_forward(info.set_montage(montage)))
    np.add.at(ours.T, regions.ravel(), vertices.T)
    ours, theirs = ours - ours.mean(axis=0), gain[rows] - gain[rows].mean(axis=0)
    r = [abs(np.corrcoef(a, b)[0, 1]) for a, b in zip(ours.T, theirs.T)]
    assert len(rows) > 65
    assert np.median(r) > 0.92
    assert np.percentile(r, 5) > 0.8


@needs_shared
def test_real_recording():
    """A real helmet position: all 366 sensors outside the template's head."""
    info = mne.io.read_info(SHARED / "sample" / "sample_audvis-ave.fif")
    picks = mne.pick_types(info, meg="mag")[::20]
    picks = np.r_[picks, mne.pick_types(info, meg=False, eeg=True)[::20]]
    fwd = make_template_forward(mne.pick_info(info, picks))
    assert fwd["nchan"] == len(picks)


@pytest.mark.slow
def test_a_forward_leaves_the_threads_of_torch_alone():
    """In a process of its own: numba starts its threads once."""
    code = (
        "import mne, torch, mne_deepsif\n"
        "assert torch.get_num_threads() == 1\n"
        "montage = mne.channels.make_standard_montage('biosemi16')\n"
        "info = mne.create_info(montage.ch_names, 250.0, 'eeg').set_montage(montage)\n"
        "mne_deepsif.make_template_forward(info)\n"
        "print(torch.get_num_threads())\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    environment |= {"NUMBA_NUM_THREADS": "2", "NUMBA_THREADING_LAYER": "omp"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "1"

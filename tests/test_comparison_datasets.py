"""MNE's data sets and phantoms: each reader runs on a small copy of the same layout.

The copies are simulated: a known source on the template's cortex, under a whole helmet.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import shutil
import sys
from pathlib import Path

import mne
import numpy as np
import pytest

from mne_deepsif.head.template import SUBJECT, make_template_bem, make_template_trans

ROOT = Path(__file__).parents[1]
if not (ROOT / "benchmarks").is_dir():
    pytest.skip(f"needs {ROOT / 'benchmarks'}", allow_module_level=True)
sys.path.append(str(ROOT))  # at the end: the package is the installed one

from benchmarks.comparison import (  # noqa: E402
    cases,
    datasets,
    phantoms,
    recordings,
    subjects,
)

SFREQ, N_TRIALS = 250.0, 40
TIMES = np.arange(-50, 101) / SFREQ
NOISE = {"mag": 5e-14, "grad": 1.5e-12, "eeg": 1e-6}  # of a trial (T, T/m, V)
MOMENT = 40e-9  # A m
# regions of the atlas: a place in the right hemisphere (m, MRI)
REGIONS = {
    "postcentral": (0.040, -0.025, 0.050),
    "transversetemporal": (0.046, -0.020, 0.006),
    "pericalcarine": (0.010, -0.080, 0.006),
}


# ---------------------------------------------------------------- a subject
def _subject(folder, name):
    """Write the template as a subject of another name, with an atlas of three."""
    template = subjects.subjects_dir("template") / SUBJECT
    shutil.copytree(template, folder / name)
    labels = []
    for region, place in REGIONS.items():
        for hemi, sign, white in zip(
            ("lh", "rh"), (-1, 1), cases.white_positions(name, folder)
        ):
            vertices = _around(white, np.multiply(place, (sign, 1, 1)))
            labels.append(
                mne.Label(
                    vertices, white[vertices], None, hemi, name=region, subject=name
                )
            )
    (folder / name / "label").mkdir()
    mne.write_labels_to_annot(labels, name, "aparc", subjects_dir=folder)
    return labels


def _around(white, place):
    """Return the vertices within 1 cm of the vertex next to a place."""
    center = white[np.linalg.norm(white - place, axis=1).argmin()]
    return np.flatnonzero(np.linalg.norm(white - center, axis=1) < 0.01)


def _forward(info, name, src):
    """Make the forward of a subject: 2 x 2562 vertices."""
    src = src.copy()
    for s in src:
        s["subject_his_id"] = name
    layers = (0.3, 0.006, 0.3) if "eeg" in info.get_channel_types() else (0.3,)
    bem = make_template_bem(conductivity=layers)
    return mne.make_forward_solution(info, make_template_trans(info), src, bem)


# ---------------------------------------------------------------- its responses
def _response(fwd, folder, name, region, hemi, peak):
    """Return the field of an active region: (n_channels, n_times)."""
    fixed = mne.convert_forward_solution(fwd, force_fixed=True)
    white = cases.white_positions(name, folder)[hemi == "rh"]
    place = np.multiply(REGIONS[region], (1 if hemi == "rh" else -1, 1, 1))
    vertices = fixed["src"][hemi == "rh"]["vertno"]
    active = np.flatnonzero(np.isin(vertices, _around(white, place)))
    rows = active + (hemi == "rh") * len(fixed["src"][0]["vertno"])
    field = fixed["sol"]["data"][:, rows].sum(axis=1) * MOMENT / len(rows)
    return np.outer(field, np.exp(-(((TIMES - peak) / 0.01) ** 2)))


def _raw(info, responses, stim, codes, n_trials=N_TRIALS):
    """Record responses one after the other, with noise and a channel of triggers."""
    rng = np.random.default_rng(0)
    sds = np.array([NOISE[kind] for kind in info.get_channel_types()])
    step = len(TIMES)
    data = rng.normal(size=(len(sds), (n_trials * len(codes) + 4) * step))
    data *= sds[:, np.newaxis]
    trigger = np.zeros(data.shape[1])
    for trial in range(n_trials * len(codes)):
        start = (trial + 2) * step
        kind = trial % len(codes)
        data[:, start : start + step] += responses[kind]
        trigger[start + 50 : start + 55] = codes[kind]
    names = [*info.ch_names, stim]
    stim_info = mne.create_info([stim], info["sfreq"], "stim")
    raw = mne.io.RawArray(data, info)
    raw.add_channels(
        [mne.io.RawArray(trigger[np.newaxis], stim_info)], force_update_info=True
    )
    assert raw.ch_names == names
    return raw


@pytest.fixture(scope="module")
def helmet():
    """Give 306 sensors."""
    info = subjects.helmet(0.0, True)
    with info._unlock():
        info["sfreq"], info["lowpass"] = SFREQ, SFREQ / 2
    return info


@pytest.fixture(scope="module")
def mags(helmet):
    """Give the 102 magnetometers, and a gradiometer that Elekta's phantom calls bad."""
    kept = [ch["ch_name"] for ch in helmet["chs"] if ch["ch_name"][-1] == "1"]
    return mne.pick_info(
        helmet, mne.pick_channels(helmet["ch_names"], [*kept, "MEG 1933"])
    )


@pytest.fixture
def use(monkeypatch, tmp_path):
    """Take the test's folder for a data set, and nothing for others."""

    def use(name):
        def find(wanted):
            assert wanted == name
            return tmp_path

        monkeypatch.setattr(cases, "find_dataset", find)
        return tmp_path

    return use


def _score(make, method="sLORETA"):
    """Return the rows of the cases that a function yields."""
    found = list(make())
    rows = [recordings.score_case(case, method) for case in found]
    assert not [row["failed"] for row in rows if "failed" in row]
    return found, rows


def _write(fname, save, *args, **kwargs):
    fname.parent.mkdir(parents=True, exist_ok=True)
    save(fname, *args, **kwargs)


# ---------------------------------------------------------------- the data sets
@pytest.mark.parametrize("method", ["sLORETA", "DeepSIF"])
def test_somato(use, helmet, template_src, method):
    root = use("somato")
    folder = root / "derivatives" / "freesurfer" / "subjects"
    _subject(folder, "01")
    fwd = _forward(helmet, "01", template_src)
    response = _response(fwd, folder, "01", "postcentral", "rh", 0.045)
    raw = _raw(helmet, [response], "STI 014", [1])
    _write(root / "sub-01" / "meg" / "sub-01_task-somato_meg.fif", raw.save)
    fname = root / "derivatives" / "sub-01" / "sub-01_task-somato-fwd.fif"
    _write(fname, mne.write_forward_solution, fwd)
    _, (row,) = _score(datasets.somato, method)
    assert row["hemi"] == "rh" and row["distance"] < 10
    assert row["time"] == pytest.approx(0.045, abs=0.006)


def test_sample(use, helmet, template_src, monkeypatch, tmp_path):
    """MNE's whole data set stands in where the six trials are not."""
    monkeypatch.setattr(recordings, "DATA", tmp_path / "none")
    root = use("sample")
    folder, surfaces = root / "MEG" / "sample", root / "subjects"
    labels = _subject(surfaces, "sample")
    raw = mne.io.RawArray(np.zeros((306, 1)), helmet)
    eeg = subjects.biosemi_info(SFREQ)
    raw.add_channels([mne.io.RawArray(np.zeros((64, 1)), eeg)], force_update_info=True)
    raw.set_eeg_reference(projection=True)
    fwd = _forward(raw.info, "sample", template_src)
    rng, found = np.random.default_rng(0), []
    for comment, region, hemi, peak in (
        ("Left visual", "pericalcarine", "rh", 0.1),
        ("Right Auditory", "transversetemporal", "lh", 0.09),
    ):
        data = _response(fwd, surfaces, "sample", region, hemi, peak)
        sds = [NOISE[kind] / 5 for kind in raw.get_channel_types()]
        data += rng.normal(size=data.shape) * np.array(sds)[:, np.newaxis]
        found.append(mne.EvokedArray(data, raw.info, TIMES[0], comment, nave=25))
    _write(folder / "sample_audvis-ave.fif", mne.write_evokeds, found)
    variances = np.square([NOISE[kind] for kind in raw.get_channel_types()])
    cov = mne.Covariance(np.diag(variances), raw.ch_names, [], [], 1000)
    _write(folder / "sample_audvis-cov.fif", mne.write_cov, cov)
    fname = folder / "sample_audvis-meg-eeg-oct-6-fwd.fif"
    _write(fname, mne.write_forward_solution, fwd)
    for label in labels:
        if label.name.startswith("pericalcarine"):
            label.save(surfaces / "sample" / "label" / f"{label.hemi}.V1.label")
    _, rows = _score(recordings.sample)
    assert [(row["recording"], row["sensors"]) for row in rows] == [
        (name, sensors)
        for name in ("Left visual", "Right Auditory")
        for sensors in cases.KINDS
    ]
    assert max(row["distance"] for row in rows) < 12
    assert {row["hemi"] for row in rows[:3]} == {"rh"}
    assert {row["hemi"] for row in rows[3:]} == {"lh"}


MULTIMODAL = {  # conditions: active region and hemisphere, peak
    "Visual Upper right": ("pericalcarine", "lh", 0.1),
    "Somato left": ("postcentral", "rh", 0.045),
    "Auditory right": ("transversetemporal", "lh", 0.09),
}


def _acquisition(conditions):
    """Write what Elekta's software stores of its averages, in its own words."""
    limits = (
        "megMax 5e-9 megMin 1e-15 megNoise 0 megSlope 0 megSpike 0 eegMax 1e-3 "
        "eegMin 1e-9 eegNoise 0 eegSlope 0 eegSpike 0 eogMax 150e-6 ecgMax 0 "
        "stimSource 1 triggerMap 0 update 0 artefIgnore 0 averUpdate 0"
    ).split()
    n = str(len(conditions))
    pairs = list(zip(limits[::2], limits[1::2])) + [("ncateg", n), ("nevent", n)]
    for number, comment in enumerate(conditions, 1):
        category = dict(Display="1", Start="-0.15", State="1", End="0.3")
        category |= dict(Event=number, Nave="100", ReqEvent="0", ReqWhen="1")
        category |= dict(ReqWithin="0", SubAve="0", Comment=comment)
        pairs += [(f"cat{key}{number:02d}", val) for key, val in category.items()]
        event = (("eventComment", comment), ("eventDelay", "0"))
        pairs += [(f"{key}{number:02d}", val) for key, val in event]
    return "\n".join(f"ERF{key}\n{value}" for key, value in pairs)


@pytest.mark.slow
def test_multimodal(use, mags, template_src, monkeypatch, tmp_path):
    """Eight conditions are told apart by the names that the recording gives them."""
    root = use("multimodal")
    _subject(tmp_path / "atlas", "other")
    monkeypatch.setattr(datasets, "find_atlas", lambda: ("other", tmp_path / "atlas"))
    fwd = _forward(mags, SUBJECT, template_src)
    folder = subjects.subjects_dir("template")
    responses = [_response(fwd, folder, SUBJECT, *one) for one in MULTIMODAL.values()]
    raw = _raw(mags, responses, "STI 014", [1, 2, 4])
    with raw.info._unlock():
        raw.info["acq_pars"] = _acquisition(MULTIMODAL)
    _write(root / "multimodal_raw.fif", raw.save)
    found, rows = _score(datasets.multimodal)
    assert [row["recording"] for row in rows] == [
        f"multimodal, {c}" for c in MULTIMODAL
    ]
    assert max(row["distance"] for row in rows) < 12
    assert [row["hemi"] for row in rows] == ["lh", "rh", "lh"]
    assert all(case.evoked.nave == N_TRIALS for case in found)
    for case, (region, *_) in zip(found, MULTIMODAL.values()):
        one_sided = case.places[0] is case.places[1]
        assert one_sided == (region != "transversetemporal")


def test_the_atlas_is_of_either_sample_subject(use, monkeypatch, tmp_path):
    monkeypatch.setattr(datasets, "DATA", tmp_path)
    root = use("sample")
    assert datasets.find_atlas() == ("sample", root / "subjects")
    (tmp_path / "sample").mkdir()
    assert datasets.find_atlas() == ("sample_fs5", tmp_path / "sample")


def test_regions_are_carried_over_by_the_spheres(tmp_path):
    """To the same cortex, they come as they are."""
    _subject(tmp_path, "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b" / "a")
    labels = cases.read_region("a", tmp_path, "postcentral")
    found = cases.carry_region(("a", tmp_path), ("a", tmp_path / "b"), "postcentral")
    for label, places in zip(labels, found):
        assert len(places) > 3
        np.testing.assert_allclose(places, label.pos, atol=1e-6)


@pytest.mark.parametrize("name", ["sample", "bst_phantom_ctf"])
def test_data_sets_are_found_by_name(monkeypatch, tmp_path, name):
    module = mne.datasets if name == "sample" else mne.datasets.brainstorm
    monkeypatch.setattr(mne.datasets, "has_dataset", lambda wanted: wanted == name)
    monkeypatch.setattr(
        getattr(module, name), "data_path", lambda download: tmp_path / str(download)
    )
    assert cases.find_dataset(name) == tmp_path / "False"
    with pytest.raises(cases.Skip, match=r"brainstorm.bst_phantom_elekta.data_path"):
        cases.find_dataset("bst_phantom_elekta")


@pytest.mark.parametrize("method", ["sLORETA", "DeepSIF"])
def test_opm(use, helmet, template_src, monkeypatch, method):
    """Nine magnetometers of a coil that MNE does not know."""
    root = use("opm")
    folder = root / "MEG" / "OPM"
    _subject(root / "subjects", "OPM_sample")
    mags = mne.pick_info(helmet, mne.pick_types(helmet, meg="mag"))
    places = np.array([ch["loc"][:3] for ch in mags["chs"]])
    trans = make_template_trans(mags)
    to_mri = mne.transforms.combine_transforms(mags["dev_head_t"], trans, "meg", "mri")
    gaps = mne.transforms.apply_trans(to_mri, places) - REGIONS["postcentral"]
    info = mne.pick_info(mags, np.sort(np.linalg.norm(gaps, axis=1).argsort()[:9]))
    for ch in info["chs"]:
        ch["coil_type"] = 9999
    text = '1   9999 {} 1 0.0 0.0 "OPM"\n 1.0 0.0 0.0 0.0 0.0 0.0 1.0\n'
    folder.mkdir(parents=True)
    coils = folder / "coil_def.dat"
    coils.write_text("".join(text.format(accuracy) for accuracy in range(3)))
    with mne.use_coil_def(coils):
        fwd = _forward(info, "OPM_sample", template_src)
    args = "OPM_sample", "postcentral", "rh", 0.045
    response = _response(fwd, root / "subjects", *args)
    raw = _raw(info, [response], "STI101", [datasets.OPM_TRIGGER])
    _write(folder / "OPM_SEF_raw.fif", raw.save)
    _write(folder / "OPM_sample-fwd.fif", mne.write_forward_solution, fwd)
    if method == "DeepSIF":  # the atlas of another subject
        shutil.move(root / "subjects" / "OPM_sample" / "label", root / "label")
        _subject(root / "atlas", "other")
        monkeypatch.setattr(datasets, "find_atlas", lambda: ("other", root / "atlas"))
    (case,), (row,) = _score(datasets.opm, method)
    assert len(case.evoked.ch_names) == 9 and case.evoked.nave == N_TRIALS
    assert case.places[0] is case.places[1]
    if method == "sLORETA":  # DeepSIF goes where nine sensors see nothing
        assert row["hemi"] == "rh" and row["distance"] < 10


# ---------------------------------------------------------------- phantoms
def test_the_cortex_is_turned_onto_a_dipole():
    """A vertex is 2 mm away at most; its normal is the dipole's but for the radius."""
    src = subjects.decimate(phantoms.make_template_source_space(), phantoms.N_VERTICES)
    for place, direction in zip(
        *(one[::7] for one in mne.dipole.get_phantom_dipoles())
    ):
        trans, angle = phantoms.turn_cortex(place, direction, src)
        place = mne.transforms.apply_trans(trans, place)
        direction = mne.transforms.apply_trans(trans, direction, move=False)
        points = np.concatenate([s["rr"][s["vertno"]] for s in src])
        normals = np.concatenate([s["nn"][s["vertno"]] for s in src])
        near = np.linalg.norm(points - place, axis=1) < phantoms.MAX_OFFSET
        assert np.abs(normals[near] @ direction).max() > phantoms.MIN_TANGENTIAL
        np.testing.assert_allclose(np.linalg.det(trans["trans"]), 1)
        assert angle < np.deg2rad(90)


def _dipole_field(info, place, direction):
    """Return the field of 1 A m in the phantom."""
    dipole = mne.Dipole([0], place[np.newaxis], [1.0], direction[np.newaxis], [100])
    sphere = mne.make_sphere_model((0.0, 0.0, 0.0), head_radius=None)
    return mne.make_forward_dipole(dipole, sphere, info)[0]["sol"]["data"][:, 0]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sLORETA", "DeepSIF"])
def test_phantom_elekta(use, mags, monkeypatch, method):
    """Two of the dipoles, at 64 and 44 mm from the middle."""
    root = use("bst_phantom_elekta")
    info = mags.copy()
    mne.rename_channels(info, lambda name: name.replace(" ", ""))
    with info._unlock():
        info["dev_head_t"]["trans"][:3, 3] = 0, 0, 0.01
    places, directions = (one[[0, 18]] for one in mne.dipole.get_phantom_dipoles())
    monkeypatch.setattr(mne.dipole, "get_phantom_dipoles", lambda: (places, directions))
    course = np.where(TIMES > 0, 2e-7 * np.sin(2 * np.pi * 20 * TIMES), 0.0)
    responses = [
        np.outer(_dipole_field(info, *one), course) for one in zip(places, directions)
    ]
    raw = _raw(info, responses, "STI201", [1, 2])
    _write(root / "kojak_all_200nAm_pp_no_chpi_no_ms_raw.fif", raw.save)
    found, rows = _score(phantoms.phantom_elekta, method)
    assert [case.evoked.nave for case in found] == [N_TRIALS - 2] * 2
    assert set(phantoms.ELEKTA_BADS) <= set(found[0].evoked.info["bads"])
    assert max(row["distance"] for row in rows) < 10


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Something went wrong in the data-driven")
def test_phantom_ctf(use, monkeypatch):
    """Its files are read by MNE's reader; here, FIF files stand in for them."""
    root = use("bst_phantom_ctf")
    info = mne.channels.read_meg_canonical_info("ctf275")
    trans = np.eye(4)
    trans[2, 3] = 0.04
    with info._unlock():
        info["dev_head_t"] = mne.transforms.Transform("meg", "head", trans)
        info["projs"], info["sfreq"], info["lowpass"] = [], 300.0, 150.0
    info = mne.pick_info(info, mne.pick_types(info, meg=True, ref_meg=False))
    times = np.arange(int(12 * info["sfreq"])) / info["sfreq"]
    rng = np.random.default_rng(0)
    noise = [rng.normal(size=(len(info.ch_names), len(times))) * 2e-14 for _ in "ab"]
    course = np.sin(2 * np.pi * phantoms.CTF_FREQUENCY * times)
    field = _dipole_field(info, phantoms.CTF_PLACE, np.array([0.0, 1.0, 0.0]))
    raw = mne.io.RawArray(1e-7 * np.outer(field, course) + noise[0], info)
    extra = mne.create_info(["HDAC006-4408"], info["sfreq"], "misc")
    extra = mne.io.RawArray(course[np.newaxis], extra)
    raw.add_channels([extra], force_update_info=True)
    for name, one in (
        ("phantom_20uA_20150603_03", raw),
        ("emptyroom_20150709_01", mne.io.RawArray(noise[1], info)),
    ):
        _write(root / f"{name}.ds" / "x_raw.fif", one.save)
    monkeypatch.setattr(
        mne.io,
        "read_raw_ctf",
        lambda folder, **kwargs: mne.io.read_raw_fif(folder / "x_raw.fif", **kwargs),
    )
    (case,), (row,) = _score(phantoms.phantom_ctf)
    assert row["distance"] < 10
    assert case.evoked.data.shape[1] == pytest.approx(3 * 300 / 23, abs=2)

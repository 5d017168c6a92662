"""The geometry of recordings and forwards, as users meet it."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import os
import time
import warnings
from pathlib import Path

import mne
import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from mne.io.constants import FIFF
from scipy.spatial.transform import Rotation

from mne_deepsif import (
    apply_deepsif_epochs,
    assess_deepsif,
    make_deepsif_operator,
    make_template_forward,
    make_template_trans,
)
from mne_deepsif.head.geometry import check_template_electrodes, read_fiducials

READERS = Path(__file__).parents[3] / "shared" / "data" / "readers"


@pytest.fixture(scope="module")
def given():
    """Give the positions of a cap as a user has them: names, places, fiducials."""
    return mne.channels.make_standard_montage("biosemi64").get_positions()


def make_info(ch_pos, frame="unknown", **fiducials):
    """Return an Info with these positions."""
    montage = mne.channels.make_dig_montage(ch_pos, **fiducials, coord_frame=frame)
    return mne.create_info(list(ch_pos), 250.0, "eeg").set_montage(montage)


def scaled(given, factor):
    """Return the positions in another unit."""
    ch_pos = {name: factor * xyz for name, xyz in given["ch_pos"].items()}
    fiducials = {key: factor * given[key] for key in ("nasion", "lpa", "rpa")}
    return make_info(ch_pos, **fiducials)


def mend(info, text):
    """Do what a message says."""
    start, end = text.index("pos = info"), text.index("make_dig_montage(**pos))")
    exec(text[start:end] + "make_dig_montage(**pos))", dict(info=info, mne=mne))


def check(info):
    check_template_electrodes(info, make_template_trans(info))


# --------------------------------------------------------------- before a forward


@pytest.mark.parametrize(
    ("factor", "unit"), ((1e3, "in mm"), (1e2, "in cm"), (1 / 0.095, "sphere"))
)
def test_positions_in_other_units(given, factor, unit):
    """An error that names the unit; what it says to do makes them right."""
    right, info = scaled(given, 1), scaled(given, factor)
    with pytest.raises(
        ValueError, match=f"electrodes and the fiducials.*{unit}"
    ) as error:
        make_template_forward(info)
    mend(info, str(error.value))
    for ch, expected in zip(info["chs"], right["chs"]):
        np.testing.assert_allclose(ch["loc"][:3], expected["loc"][:3], atol=1e-6)
    check(info)


def test_some_electrodes_in_mm(given):
    """An error that names them; what it says to do makes them right."""
    ch_pos = dict(given["ch_pos"])
    fiducials = {key: given[key] for key in KEYS}
    for name in ("Fz", "O2", "TP7"):
        ch_pos[name] = 1e3 * ch_pos[name]
    info = make_info(ch_pos, **fiducials)
    with pytest.raises(ValueError, match="3 of 64 electrodes.*TP7.*in mm") as error:
        make_template_forward(info)
    text = str(error.value)
    exec(text[text.index("ch_pos.update") :], dict(ch_pos=ch_pos))
    for name, expected in given["ch_pos"].items():
        np.testing.assert_allclose(ch_pos[name], expected)
    check(make_info(ch_pos, **fiducials))


def test_turned_axes_without_fiducials(given):
    """X to the nose and Y to the left."""
    right = scaled(given, 1)
    ch_pos = right.get_montage().get_positions()["ch_pos"]
    turned = {name: np.array([y, -x, z]) for name, (x, y, z) in ch_pos.items()}
    info = make_info(turned, "head")
    with pytest.raises(
        ValueError, match="turned by.*no fiducials.*X seems to"
    ) as error:
        make_template_forward(info)
    assert "X seems to point to the nose, Y seems to point to the left" in str(
        error.value
    )
    mend(info, str(error.value))
    for ch, expected in zip(info["chs"], right["chs"]):
        np.testing.assert_allclose(ch["loc"][:3], expected["loc"][:3], atol=1e-12)
    check(info)


def test_swapped_fiducials(given):
    info = make_info(
        given["ch_pos"], nasion=given["lpa"], lpa=given["nasion"], rpa=given["rpa"]
    )
    with pytest.raises(ValueError, match="The fiducials seem to be swapped") as error:
        make_template_forward(info)
    mend(info, str(error.value))
    for ch, expected in zip(info["chs"], scaled(given, 1)["chs"]):
        np.testing.assert_allclose(ch["loc"][:3], expected["loc"][:3], atol=1e-6)


def test_depth_contacts(given):
    """Typed as EEG by a reader; typed as what they are, they are left out."""
    rng = np.random.default_rng(0)
    points = list(given["ch_pos"].values())
    deep = {f"LA{i}": xyz * rng.uniform(0.2, 0.6) for i, xyz in enumerate(points)}
    info = make_info(deep, **{key: given[key] for key in ("nasion", "lpa", "rpa")})
    with pytest.raises(ValueError, match="inside the head.*no scalp electrodes.*seeg"):
        make_template_forward(info)


def test_bad_channels_may_lie_anywhere(given):
    info = scaled(given, 1)
    info["chs"][0]["loc"][:3] = -info["chs"][0]["loc"][:3]
    with pytest.warns(RuntimeWarning, match=r"1 of 64 .*\(Fp1\).*mark channels"):
        check(info)
    info["bads"] = ["Fp1"]
    check(info)


def test_built_in_trans(given):
    """By name, as in MNE."""
    info = mne.pick_info(scaled(given, 1), range(0, 64, 16))
    fname = Path(mne.__file__).parent / "data/fsaverage/fsaverage-trans.fif"
    expected = make_template_forward(info, trans=fname)
    found = make_template_forward(info, trans="fsaverage")
    np.testing.assert_array_equal(found["sol"]["data"], expected["sol"]["data"])


# --------------------------------------------------------------- fiducials


def test_fiducials_that_mne_makes_up(given):
    """They tell nothing; measured ones do."""
    info = scaled(given, 1)
    ch_pos = info.get_montage().get_positions()["ch_pos"]
    assert read_fiducials(info).shape == (3, 3)
    assert read_fiducials(make_info(ch_pos, "head")) is None
    assert read_fiducials(mne.create_info(["a"], 100.0, "eeg")) is None


@pytest.mark.parametrize("value", (np.nan, 0.0))
def test_fiducials_without_values(given, value):
    """NaN or zeros, which some files have, tell nothing either; nothing crashes."""
    info = scaled(given, 1)
    for point in info["dig"][:3]:
        assert point["kind"] == FIFF.FIFFV_POINT_CARDINAL
        point["r"] = np.full(3, value, np.float32)
    assert read_fiducials(info) is None
    check_template_electrodes(info, make_template_trans(scaled(given, 1)))


# --------------------------------------------------------------- before an estimate


@pytest.fixture(scope="module")
def operator(eeg_info, template_src, minimum_norm):
    """Make an operator of a forward that MNE makes of any positions."""
    sphere = mne.make_sphere_model((0.0, 0.0, 0.04), 0.125, eeg_info)

    def make(change, trans=None):
        info = eeg_info.copy()
        for ch in info["chs"]:
            ch["loc"][:3] = change(ch["loc"][:3])
        trans = make_template_trans(eeg_info) if trans is None else trans
        fwd = mne.make_forward_solution(info, trans, template_src, sphere, mindist=0.0)
        cov = mne.make_ad_hoc_cov(info)
        return make_deepsif_operator(info, fwd, cov, estimator=minimum_norm())

    return make


def test_right_forward(operator):
    operator(lambda xyz: xyz)


@pytest.mark.parametrize(
    ("change", "match"),
    (
        (lambda xyz: 1e3 * xyz, "seem to be in mm"),
        (lambda xyz: 0.095 * xyz, "times as far apart"),
        (lambda xyz: [xyz[1], -xyz[0], xyz[2]], "turned by 9"),
        (lambda xyz: [-xyz[0], xyz[1], xyz[2]], "mirrored"),
    ),
)
def test_wrong_forward(operator, change, match):
    with pytest.raises(ValueError, match=match):
        operator(change)


def test_wrong_trans(operator, eeg_info):
    """The recording is right, the head was turned."""
    trans = make_template_trans(eeg_info)
    turn = mne.transforms.rotation(z=np.pi / 2)
    trans = mne.transforms.Transform("head", "mri", trans["trans"] @ turn)
    with pytest.raises(ValueError, match="trans, the transform from head to MRI"):
        operator(lambda xyz: xyz, trans)


def test_report_knows_of_the_doubt(operator, eeg_info):
    """The warning comes with the operator; a report of data says it again."""
    with pytest.warns(RuntimeWarning, match="too far to the right for their names"):
        doubtful = operator(lambda xyz: xyz + [0.025, 0, 0])
    data = 1e-5 * np.random.default_rng(0).standard_normal((32, 125))
    evoked = mne.EvokedArray(data, doubtful.info)
    report = assess_deepsif(evoked, doubtful, n_passes=0)
    assert any("too far to the right" in reason for reason in report.reasons)
    assert operator(lambda xyz: xyz).doubt is None


def test_missing_trans(operator):
    """Electrodes are on a scalp, but not on that of this brain."""
    trans = mne.transforms.Transform("head", "mri", np.eye(4))
    with pytest.warns(RuntimeWarning, match="inverted, missing or another subject's"):
        operator(lambda xyz: xyz, trans)


def test_missing_trans_of_a_real_head(
    sample_fwd, sample_dir, _sample_evoked, minimum_norm
):
    """The brain lies near its place, but turned as the MRI scanner saw it."""
    info = _sample_evoked.copy().pick("eeg").info
    fwd = mne.pick_channels_forward(sample_fwd, info["ch_names"], ordered=True)
    rest = mne.make_ad_hoc_cov(info)
    kwargs = dict(estimator=minimum_norm(), subjects_dir=sample_dir)
    make_deepsif_operator(info, fwd, rest, **kwargs)
    back = np.linalg.inv(fwd["mri_head_t"]["trans"])
    fwd["source_rr"] = mne.transforms.apply_trans(back, fwd["source_rr"])
    with pytest.warns(RuntimeWarning, match="turned by 26 degrees: trans.* missing"):
        make_deepsif_operator(info, fwd, rest, **kwargs)


def test_inverted_trans(operator, eeg_info):
    trans = np.linalg.inv(make_template_trans(eeg_info)["trans"])
    trans = mne.transforms.Transform("head", "mri", trans)
    with pytest.raises(ValueError, match="trans, the transform from head to MRI"):
        operator(lambda xyz: xyz, trans)


def test_helmet_in_the_head(sample_fwd, _sample_evoked, sample_cov, minimum_norm):
    info = mne.pick_info(
        _sample_evoked.info, mne.pick_types(_sample_evoked.info, meg="mag")
    )
    fwd = mne.pick_channels_forward(sample_fwd, info["ch_names"], ordered=True)
    model = minimum_norm()
    cov = mne.make_ad_hoc_cov(info)
    subjects_dir = Path(__file__).parents[3] / "shared" / "data" / "sample"
    make_deepsif_operator(info, fwd, cov, estimator=model, subjects_dir=subjects_dir)
    for one in (info, fwd["info"]):
        trans = one["dev_head_t"]["trans"].copy()
        trans[2, 3] -= 0.06
        one["dev_head_t"] = mne.transforms.Transform("meg", "head", trans)
    with pytest.raises(ValueError, match="inside the skull of the forward.*dev_head_t"):
        make_deepsif_operator(
            info, fwd, cov, estimator=model, subjects_dir=subjects_dir
        )


def test_time(given):
    """The check is a small part of an estimate."""
    info = scaled(given, 1)
    check(info)  # reads the standard places, once
    times = []
    for _ in range(5):
        start = time.perf_counter()
        check_template_electrodes(info, make_template_trans(info))
        times.append(time.perf_counter() - start)
    assert min(times) < 0.1


# --------------------------------------------------------------- any mistake


KEYS = "nasion", "lpa", "rpa"
SEEDS = 500, 1500, 3500  # vertices of the template, ico4
N_EXAMPLES = os.environ.get("MNE_DEEPSIF_EXAMPLES")  # by night: others each time
few = settings(
    max_examples=int(N_EXAMPLES or 12), deadline=None, derandomize=not N_EXAMPLES
)


class Patches:
    """Three simulated patches, and how far from them estimates are."""

    def __init__(self, src, given):
        info = scaled(given, 1)
        found = info.get_montage().get_positions()
        self.names = info["ch_names"]
        self.points = np.array(list(found["ch_pos"].values()))
        self.fiducials = np.array([found[key] for key in KEYS])
        self.src, self.data = src, None
        self.sphere = mne.make_sphere_model((0.0, 0.0, 0.04), 0.125)
        fwd = mne.convert_forward_solution(self.forward(info), force_fixed=True)
        self.places, gain = fwd["source_rr"], fwd["sol"]["data"]
        rng, fields = np.random.default_rng(0), []
        for seed in SEEDS:
            near = np.linalg.norm(self.places - self.places[seed], axis=1) < 0.01
            fields.append(gain[:, near].sum(1))
        fields = 1e-5 * np.array(fields) / np.abs(fields).max(1, keepdims=True)
        course = np.exp(-0.5 * ((np.arange(125) - 62) / 8) ** 2)
        self.data = fields[:, :, np.newaxis] * course
        self.data += 2e-7 * rng.standard_normal(self.data.shape)

    def forward(self, info):
        trans = make_template_trans(info)
        kwargs = dict(mindist=0.0, on_inside="ignore")
        return mne.make_forward_solution(info, trans, self.src, self.sphere, **kwargs)

    def errors(self, info):
        """Return how far off the largest amplitudes are (m); None if it was said."""
        info = mne.io.RawArray(np.zeros((info["nchan"], 1)), info)
        info = info.set_eeg_reference(projection=True).info
        cov = mne.make_ad_hoc_cov(info)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                check(info)
                if not said:
                    operator = make_deepsif_operator(info, self.forward(info), cov)
            except ValueError:
                return None
        if said:
            return None
        epochs = mne.EpochsArray(self.data, info, proj=False)
        stcs = apply_deepsif_epochs(epochs, operator)
        peaks = [np.abs(stc.data).max(1).argmax() for stc in stcs]
        offsets = self.places[peaks] - self.places[list(SEEDS)]
        return np.linalg.norm(offsets, axis=1)


@pytest.fixture(scope="module")
def patches(template_src, given):
    return Patches(template_src, given)


def test_right_geometry_finds_the_patches(patches, given):
    assert patches.errors(scaled(given, 1)).max() < 0.01


still = st.just((0.0, 0.0, 0.0))


@few
@drawn(
    still | st.tuples(*[st.floats(-np.pi, np.pi)] * 3),  # a rotation vector
    still | st.tuples(*[st.floats(-0.15, 0.15)] * 3),  # m
    st.just(1.0) | st.sampled_from([1e3, 100, 10, 10.5, 39.4, 0.1, 1e-3]),
    st.floats(0.9, 1.08),
    st.just([]) | st.lists(st.integers(0, 63), unique=True, min_size=2),
    st.sampled_from(["of all", "of the head", "none"]) | st.permutations(range(3)),
)
def test_no_silent_mistake(patches, turn, shift, unit, size, exchanged, fiducials):
    """Wrong positions under names that MNE knows: said, or they do little harm.

    Except for caps that lie 10 to 33 mm (median) from where they belong: this can be
    accepted, and costs up to 75 mm (see doc/using.rst). What is not drawn: one fiducial
    that is off by centimetres, names that nobody knows, heads of children.
    """
    wrong = turn, shift, unit * size
    moved = displacement(patches, mistaken(patches, *wrong, [], fiducials))
    errors = patches.errors(mistaken(patches, *wrong, exchanged, fiducials))
    assert errors is None or errors.max() < 0.02 or 0.01 < moved < 0.033


def displacement(patches, info):
    """Return how far electrodes lie from where they belong (m, median)."""
    points = np.array([ch["loc"][:3] for ch in info["chs"]])
    return np.median(np.linalg.norm(points - patches.points, axis=1))


def mistaken(patches, turn, shift, scale, exchanged, fiducials):
    """Return an Info whose electrodes are moved, with fiducials that may be as well."""

    def move(points):
        return scale * points @ Rotation.from_rotvec(turn).as_matrix().T + shift

    points = move(patches.points)
    if exchanged:
        points[exchanged] = points[np.roll(exchanged, 1)]
    ch_pos = dict(zip(patches.names, points))
    if fiducials == "none":
        return make_info(ch_pos, "head")
    given = patches.fiducials
    if fiducials != "of the head":
        given = move(given if fiducials == "of all" else given[list(fiducials)])
    return make_info(ch_pos, **dict(zip(KEYS, given)))


# --------------------------------------------------------------- real recordings


def test_sample_recording(sample_dir):
    """Silence about its positions of EEG, whose names are those of MGH's cap."""
    info = mne.io.read_info(sample_dir / "sample_audvis-ave.fif")
    info = mne.pick_info(info, mne.pick_types(info, eeg=True, exclude=()))
    rng = np.random.default_rng(0)
    for n_channels in (60, 58, 50, 40, 30, 20):
        for _ in range(10):
            some = rng.permutation(60)[:n_channels]
            check(mne.pick_info(info, np.sort(some)))


def test_file_of_eeglab():
    """Its positions lie on a sphere about the ears, 45 mm too low, without fiducials.

    Sources simulated with measured positions are found 38 to 51 mm off with these, 1 to
    8 mm off after what the message says.
    """
    fname = READERS / "eeglab" / "test_raw_chanloc.set"
    if not fname.is_file():
        pytest.skip(f"needs {fname}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the reader
        info = mne.io.read_raw_eeglab(fname).info
    match = (
        r"shifted by 5. mm.*sphere about the origin.*set_montage\('spherical_1005'\)"
    )
    with pytest.warns(RuntimeWarning, match=match):
        check(info)
    check(info.set_montage("spherical_1005"))

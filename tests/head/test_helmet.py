"""MEG helmets around heads: what is said where they are not."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import warnings

import mne
import numpy as np
import pytest
from mne.io.constants import FIFF
from scipy.spatial.transform import Rotation

import mne_deepsif
from mne_deepsif import make_template_forward
from mne_deepsif.head.helmet import check_template_helmet
from mne_deepsif.head.template import make_template_bem, make_template_trans


def helmet(radius, shift, n_channels=64, lowest=0.0):
    """Return an Info of magnetometers on half a sphere, or on more of it."""
    rng = np.random.default_rng(0)
    names = [f"MEG {i:03}" for i in range(n_channels)]
    info = mne.create_info(names, 1000.0, "mag")
    for ch in info["chs"]:
        out = rng.standard_normal(3)
        out /= np.linalg.norm(out)
        if out[2] < lowest:
            out[2] = -out[2]
        x = np.cross(out, [0, 1, 0])
        x /= np.linalg.norm(x)
        ch["loc"][:] = np.r_[radius * out, x, np.cross(out, x), out]
        ch["coil_type"] = FIFF.FIFFV_COIL_POINT_MAGNETOMETER
    trans = np.eye(4)
    trans[:3, 3] = shift
    info["dev_head_t"] = mne.transforms.Transform("meg", "head", trans)
    return info


@pytest.fixture(scope="module")
def check():
    """Check a helmet against the template."""
    bem = make_template_bem(conductivity=(0.3,))

    def function(info):
        check_template_helmet(info, make_template_trans(info), bem)

    return function


def test_right(check):
    check(helmet(0.12, [0, 0.02, 0.04]))


def test_infants(check):
    """It is not said that a measured dev_head_t is missing; the remedy works."""
    info = helmet(0.085, [0.001, 0.003, 0.02])
    with pytest.raises(ValueError, match="made for infants") as error:
        check(info)
    text = str(error.value)
    assert "sphere of radius 85 mm" in text and "subject's own MRI" in text
    assert "missing" not in text
    names = dict(mne=mne, numpy=np, mne_deepsif=mne_deepsif, info=info)
    exec(text[text.index("affine =") :], names)
    assert names["fwd"]["nsource"] == 20484


def test_missing(check):
    with pytest.raises(ValueError, match="dev_head_t'] is an identity.*is missing"):
        check(helmet(0.12, [0, 0, 0]))


def test_displaced(check):
    with pytest.raises(ValueError, match="inside the template's skull.*is probably"):
        check(helmet(0.12, [0, 0, -0.05]))


def test_in_mm(check):
    with pytest.raises(ValueError, match="mm and more from the scalp.*another unit"):
        check(helmet(0.12, [0, 20, 40]))


def test_far(check):
    with pytest.warns(RuntimeWarning, match="MEG sensors lie .* from the scalp"):
        check(helmet(0.12, [0, 0.02, 0.25]))


@pytest.mark.parametrize("turn", ((180, 0, 0), (90, 0, 0), (-90, 0, 0), (0, 90, 0)))
def test_turned(check, turn):
    """An error for a whole helmet, a warning for what may be a part of one."""
    turn = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
    info = helmet(0.14, [0, 0.02, 0.04], 200, lowest=-0.7)
    info["dev_head_t"]["trans"][:3, :3] = turn
    with pytest.raises(ValueError, match="helmet is turned by about"):
        check(info)
    info = helmet(0.14, [0, 0.02, 0.04])
    info["dev_head_t"]["trans"][:3, :3] = turn
    with pytest.warns(RuntimeWarning, match="helmet is turned by about.*of a part"):
        check(info)


def test_part_of_a_helmet(check):
    """Sensors of one side, or of the back and the sides, are no error."""
    info = helmet(0.13, [0, 0.01, 0.04], 300, lowest=-0.5)
    x, y, _ = np.array([ch["loc"][:3] for ch in info["chs"]]).T
    check(info)
    for chosen in (x < 0, y < 0, (y < -0.04) | (abs(x) > 0.08)):
        part = mne.pick_info(info, np.flatnonzero(chosen))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*of a part alone")
            check(part)


def test_sensors_on_one_side(check):
    """An array over the cerebellum is no helmet that is turned."""
    info = helmet(0.14, [0, 0.02, 0.04], 400)
    low = [ch["loc"][2] < 0.06 and ch["loc"][1] < -0.05 for ch in info["chs"]]
    info = mne.pick_info(info, np.flatnonzero(low))
    assert info["nchan"] > 30
    info["dev_head_t"]["trans"][:3, :3] = Rotation.from_euler("x", 0.6).as_matrix()
    check(info)


def test_kit_references():
    """MNE refuses them, and wants an argument; they are left out, and it is logged."""
    info = helmet(0.12, [0, 0.02, 0.04], 8)
    more = helmet(0.25, [0, 0.02, 0.04], 2)
    for ch, name in zip(more["chs"], ("REF 1", "REF 2")):
        ch.update(kind=FIFF.FIFFV_REF_MEG_CH, coil_type=FIFF.FIFFV_COIL_KIT_REF_MAG)
        ch["ch_name"] = name
    with info._unlock():
        info["chs"] = [*info["chs"], *more["chs"]]
        info["ch_names"] = [ch["ch_name"] for ch in info["chs"]]
        info["nchan"] = len(info["chs"])
    with mne.utils.catch_logging(verbose="info") as log:
        fwd = make_template_forward(info, verbose="info")
    assert fwd["sol"]["row_names"] == info["ch_names"][:8]
    assert "Leaving out 2 MEG reference channels" in log.getvalue()

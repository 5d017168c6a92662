"""Leadfield: against MNE's inverse operator and forward, and the rules for channels."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
import pytest
from mne.minimum_norm import make_inverse_operator, prepare_inverse_operator
from numpy.testing import assert_allclose, assert_array_equal

from mne_deepsif.head.channels import check_average_reference
from mne_deepsif.head.leadfield import make_leadfield


@pytest.fixture(scope="module")
def eeg_cov(eeg_info):
    """Draw a full covariance of the 32 electrodes, in V²."""
    rng = np.random.default_rng(0)
    mixing = 1e-6 * rng.standard_normal((32, 64))
    data = mixing @ mixing.T
    return mne.Covariance(data, eeg_info["ch_names"], [], [], nfree=1000)


@pytest.fixture
def make(eeg_info, eeg_fwd, eeg_cov, parcels):
    """Make the leadfield of the 32 electrodes, with changes."""

    def function(info=eeg_info, fwd=eeg_fwd, noise_cov=eeg_cov, **kwargs):
        return make_leadfield(info, fwd, noise_cov, parcels=parcels, **kwargs)

    return function


def _power(data):
    """Gram matrix: equal for data that differ by a rotation of the channels."""
    return data.T @ data


def _stc(leadfield, sources):
    data = leadfield.vertex_area @ sources
    subject = leadfield.subject
    return mne.SourceEstimate(data, leadfield.vertices, 0.0, 1e-3, subject)


# --------------------------------------------------------------- arrays


def test_shapes_and_rank(make, parcels):
    leadfield = make()
    n_vertices = sum(len(vertices) for vertices in leadfield.vertices)
    assert leadfield.gain.shape == (32, parcels.n_parcels)
    assert leadfield.whitener.shape == (31, 32)
    assert leadfield.normals.shape == (n_vertices, 3)
    assert leadfield.ch_types == ["eeg"] * 32
    assert leadfield.subject == "fsaverage5"
    assert np.linalg.matrix_rank(leadfield.gain_white) == 31
    assert_allclose(leadfield.gain_white, leadfield.whitener @ leadfield.gain)


def test_vertices_share_their_parcel_area(make, parcels):
    """The vertices of each parcel add up to its area."""
    assert_allclose(make().vertex_area.sum(0), parcels.areas)


@pytest.mark.parametrize("kind", ("free", "surf_ori", "fixed"))
def test_gain_agrees_with_apply_forward(make, eeg_info, eeg_fwd, parcels, kind):
    """Parcel gain times activity is MNE's forward of the vertices' moments."""
    fwd = mne.convert_forward_solution(
        eeg_fwd, surf_ori=kind != "free", force_fixed=kind == "fixed"
    )
    before = fwd["sol"]["data"].copy()
    leadfield = make(fwd=fwd)
    rng = np.random.default_rng(0)
    sources = 1e-6 * rng.standard_normal((parcels.n_parcels, 4))
    evoked = mne.apply_forward(eeg_fwd, _stc(leadfield, sources), eeg_info)
    expected = evoked.data - evoked.data.mean(0)
    assert_allclose(leadfield.gain @ sources, expected, atol=1e-6 * expected.max())
    assert_array_equal(fwd["sol"]["data"], before)


def test_white_noise_has_the_unit_covariance(make, eeg_cov):
    """Noise of the given covariance becomes white; nave makes it smaller."""
    whitener = make().whitener
    assert_allclose(whitener @ eeg_cov.data @ whitener.T, np.eye(31), atol=1e-8)
    assert_allclose(make(nave=9).whitener, 3 * whitener)


def test_reference_does_not_matter(make):
    """Adding the same to all channels changes nothing after whitening."""
    leadfield = make()
    data = np.random.default_rng(0).standard_normal((32, 5))
    assert_allclose(leadfield.whiten(data + 3), leadfield.whiten(data), rtol=1e-6)


def test_channels_follow_the_data(make, eeg_info):
    """Shuffled data and covariance give the same leadfield in another order."""
    order = np.random.default_rng(0).permutation(32)
    info = mne.pick_info(eeg_info, order)
    shuffled, leadfield = make(info), make()
    assert shuffled.ch_names == info["ch_names"]
    assert_allclose(shuffled.gain, leadfield.gain[order], atol=1e-12)
    assert_allclose(
        _power(shuffled.gain_white), _power(leadfield.gain_white), rtol=1e-6
    )


def test_demanded_channels(make, eeg_info):
    """ch_names sets the order; a bad one is an error with three ways out."""
    names = eeg_info["ch_names"][20:10:-1]
    assert make(ch_names=names).ch_names == names
    info = eeg_info.copy()
    info["bads"] = names[:1]
    with pytest.raises(ValueError, match=rf"{names[0]}.*interpolate_to.*fit.*generic"):
        make(info, ch_names=names)


# --------------------------------------------------------------- empty parcels


def test_empty_parcels_are_reported(make, eeg_fwd, parcels):
    """A sparse source space leaves parcels empty: zero gain and a warning."""
    stc = mne.SourceEstimate(
        np.zeros((100, 1)), [np.arange(50), np.arange(50)], 0, 1, "fsaverage5"
    )
    fwd = mne.forward.restrict_forward_to_stc(eeg_fwd, stc, on_missing="ignore")
    with pytest.warns(RuntimeWarning, match="parcels have no vertex.*oct6"):
        leadfield = make(fwd=fwd)
    filled = np.unique(np.concatenate(leadfield.parcel_of_vertex))
    empty = np.setdiff1d(np.arange(parcels.n_parcels), filled)
    assert len(empty) > 100
    assert not leadfield.gain[:, empty].any()


def test_no_parcel_at_all(make, eeg_fwd, parcels):
    """Vertices of the medial wall alone are an error."""
    wall = [np.flatnonzero(part[:2562] < 0) for part in parcels.by_hemi()]
    data = np.zeros((sum(map(len, wall)), 1))
    stc = mne.SourceEstimate(data, wall, 0, 1, "fsaverage5")
    fwd = mne.forward.restrict_forward_to_stc(eeg_fwd, stc, on_missing="ignore")
    with pytest.raises(ValueError, match="No vertex .* lies in a parcel"):
        make(fwd=fwd)


# --------------------------------------------------------------- reference


def _evoked(info, reference):
    """Random data with the projectors of info removed and a reference applied."""
    rng = np.random.default_rng(0)
    info = info.copy()
    for proj in list(info["projs"]):
        info["projs"].remove(proj)
    evoked = mne.EvokedArray(1e-6 * rng.standard_normal((32, 50)), info)
    return evoked if reference is None else evoked.set_eeg_reference(reference)


def test_missing_reference(make, eeg_info):
    with pytest.raises(ValueError, match=r"EEG average reference .* mandatory"):
        make(_evoked(eeg_info, None).info)


def test_applied_average_reference(make, eeg_info):
    """It counts as much as the projector, and gives the same whitened gain."""
    evoked = _evoked(eeg_info, "average")
    assert evoked.info["custom_ref_applied"]
    assert_allclose(make(evoked.info).gain_white, make().gain_white)
    assert not evoked.info["projs"]  # the caller's info stays
    check_average_reference(evoked.info, evoked.data, evoked.ch_names)


def test_average_reference_with_channels_marked_bad_later(eeg_info):
    """The mean of all channels or of the good ones may be zero."""
    evoked = _evoked(eeg_info, "average")
    evoked.info["bads"] = evoked.ch_names[:3]
    check_average_reference(evoked.info, evoked.data, evoked.ch_names[3:])
    again = _evoked(eeg_info, None)
    again.info["bads"] = again.ch_names[:3]
    again.set_eeg_reference("average")
    check_average_reference(again.info, again.data, again.ch_names[3:])


def test_average_reference_of_a_flat_stretch(eeg_info):
    """Rounding leaves the same 1e-18 V on all channels, which is no reference."""
    data = np.full((len(eeg_info["ch_names"]), 10), 1e-18)
    evoked = _evoked(eeg_info, "average")
    check_average_reference(evoked.info, data, evoked.ch_names)


def test_custom_reference(eeg_info):
    evoked = _evoked(eeg_info, eeg_info["ch_names"][:1])
    with pytest.raises(ValueError, match="Custom EEG reference is not allowed"):
        check_average_reference(evoked.info, evoked.data, evoked.ch_names)
    # no EEG channel is used: no matter
    check_average_reference(evoked.info, evoked.data, ["MEG 0111"])


# --------------------------------------------------------------- bad input


def test_wrong_types(make):
    with pytest.raises(TypeError, match="info must be an instance of Info"):
        make(info="info")
    with pytest.raises(TypeError, match="fwd must be an instance of Forward"):
        make(fwd="sample-fwd.fif")
    with pytest.raises(TypeError, match="noise_cov must be an instance of Covariance"):
        make(noise_cov=np.eye(32))
    with pytest.raises(ValueError, match="averages .nave. must be > 0, got 0"):
        make(nave=0)


def test_all_channels_bad(make, eeg_info, eeg_cov):
    info = eeg_info.copy()
    info["bads"] = info["ch_names"]
    with pytest.raises(ValueError, match="All 32 channels .* are marked bad"):
        make(info)


def test_no_channel_in_common(make):
    info = mne.create_info(["X1", "X2"], 100.0, "eeg")
    with pytest.raises(ValueError, match="data and the forward have no channel in com"):
        make(info)
    cov = mne.Covariance(np.ones(2), ["A", "B"], [], [], 1)
    with pytest.raises(ValueError, match="noise covariance have no channel in common"):
        make(noise_cov=cov)
    with pytest.raises(ValueError, match="neither EEG nor MEG"):
        make(mne.create_info(2, 100.0, "misc"))


def test_one_channel_is_not_enough(make, eeg_info):
    info = mne.pick_info(_evoked(eeg_info, "average").info, [0])
    with pytest.raises(RuntimeError, match="will yield no components"):
        make(info)


@pytest.mark.parametrize("kind", ("volume", "discrete", "mixed", "one hemisphere"))
def test_other_source_spaces(make, eeg_info, eeg_fwd, kind):
    sphere = mne.make_sphere_model((0.0, 0.0, 0.04), 0.125, eeg_info)
    pos = dict(rr=[[0.0, 0.0, 0.05]], nn=[[0.0, 0.0, 1.0]])
    src = mne.setup_volume_source_space(
        pos=pos if kind == "discrete" else 60.0, sphere=(0.0, 0.0, 0.04, 0.09)
    )
    if kind == "mixed":
        src = eeg_fwd["src"] + src
    elif kind == "one hemisphere":
        src = eeg_fwd["src"][:1]
    fwd = mne.make_forward_solution(eeg_info, None, src, sphere, mindist=0.0)
    with pytest.raises(ValueError, match="surface source space of both hemispheres"):
        make(fwd=fwd)


def test_ad_hoc_covariance(make, eeg_info):
    """Without a noise covariance there is a warning, and MNE's ad-hoc one."""
    with pytest.warns(RuntimeWarning, match="No noise covariance was given"):
        leadfield = make(noise_cov=None)
    expected = make(noise_cov=mne.make_ad_hoc_cov(eeg_info))
    assert_allclose(leadfield.whitener, expected.whitener)


def test_moved_sensors(make, eeg_info):
    """A forward made for other sensor positions is reported."""
    info = eeg_info.copy()
    for ch in info["chs"]:
        ch["loc"][:3] += 0.01
    with pytest.warns(RuntimeWarning, match="17 mm apart"):
        make(info)
    for ch in info["chs"]:  # unknown positions are not
        ch["loc"][:3] = np.nan
    make(info)


def test_other_subject_without_surfaces(make, eeg_fwd, tmp_path):
    """A subject without sphere.reg is matched by shape, with a warning."""
    fwd = eeg_fwd.copy()
    for s in fwd["src"]:
        s["subject_his_id"] = "bert"
    with pytest.warns(RuntimeWarning, match="No sphere.reg surfaces of .*'bert'"):
        leadfield = make(fwd=fwd, subjects_dir=tmp_path)
    same = np.concatenate(leadfield.parcel_of_vertex) == np.concatenate(
        make().parcel_of_vertex
    )
    assert same.mean() > 0.9


# --------------------------------------------------------------- the real recording


@pytest.fixture(scope="module")
def sample(sample_dir, sample_fwd, sample_cov, parcels):
    """Make the leadfield of the sample recording for an info."""

    def function(info, fwd=sample_fwd, noise_cov=sample_cov, **kwargs):
        return make_leadfield(
            info, fwd, noise_cov, parcels=parcels, subjects_dir=sample_dir, **kwargs
        )

    return function


def _mne_whiten(evoked, fwd, noise_cov, **kwargs):
    """Whiten as MNE's inverse operator does; return the data and its channels."""
    inverse = make_inverse_operator(
        evoked.info, fwd, noise_cov, fixed=True, depth=None, **kwargs
    )
    inverse = prepare_inverse_operator(inverse, evoked.nave, 1 / 9.0)
    names = inverse["info"]["ch_names"]
    data = inverse["whitener"] @ inverse["proj"] @ evoked.copy().pick(names).data
    return data, names


@pytest.mark.parametrize("picks", (["meg", "eeg"], ["eeg"], ["mag"], ["grad"]))
def test_whitening_is_that_of_minimum_norm(
    sample, sample_evoked, sample_fwd, sample_cov, picks
):
    """Same channels, same whitened data: rank, projectors, reference and nave."""
    evoked = sample_evoked.pick(picks, exclude=())
    expected, names = _mne_whiten(evoked, sample_fwd, sample_cov)
    leadfield = sample(evoked.info, nave=evoked.nave)
    assert leadfield.ch_names == names
    data = leadfield.whiten(evoked.copy().pick(names).data)
    assert_allclose(leadfield.gain_white, leadfield.whitener @ leadfield.gain)
    expected = _power(expected)
    assert_allclose(_power(data), expected, atol=1e-9 * expected.max())


def test_whitening_is_that_of_whiten_evoked(sample, sample_evoked, sample_cov):
    leadfield = sample(sample_evoked.info, nave=sample_evoked.nave)
    expected = mne.whiten_evoked(sample_evoked, sample_cov).pick(leadfield.ch_names)
    data = leadfield.whiten(sample_evoked.pick(leadfield.ch_names).data)
    assert_allclose(_power(data), _power(expected.data), atol=1e-9 * _power(data).max())


@pytest.mark.parametrize("where", ("data", "noise_cov", "fwd"))
def test_bads(sample, sample_evoked, sample_fwd, sample_cov, where):
    """Bads of data and covariance count; those of the forward do not, as in MNE."""
    info, cov, fwd = sample_evoked.info, sample_cov.copy(), sample_fwd.copy()
    owner = dict(data=info, noise_cov=cov, fwd=fwd["info"])[where]
    owner["bads"] = [*owner["bads"], "EEG 010", "MEG 0111"]
    inverse = make_inverse_operator(info, fwd, cov, fixed=True)
    leadfield = sample(info, fwd, cov)
    assert leadfield.ch_names == inverse["info"]["ch_names"]
    assert ("EEG 010" in leadfield.ch_names) == (where == "fwd")


def test_missing_anywhere(sample, sample_evoked, sample_fwd, sample_cov):
    """Channels that one of the three lacks are left out."""
    info = sample_evoked.drop_channels(["EEG 001"]).info
    names = sample_fwd["sol"]["row_names"]
    fwd = mne.pick_channels_forward(sample_fwd, exclude=["EEG 002"])
    cov = mne.pick_channels_cov(sample_cov, exclude=["EEG 003"])
    used = sample(info, fwd, cov).ch_names
    assert {"EEG 001", "EEG 002", "EEG 003"} & set(used) == set()
    assert len(used) == len(names) - 3 - 2


def test_projectors_need_not_be_active(sample, sample_evoked):
    """What the projectors remove does not matter; whether they are active neither."""
    leadfield = sample(sample_evoked.info)
    names = leadfield.ch_names
    data = sample_evoked.copy().pick(names).data
    proj = next(p for p in sample_evoked.info["projs"] if p["desc"] == "PCA-v1")
    topography = np.zeros(len(names))
    for name, value in zip(proj["data"]["col_names"], proj["data"]["data"][0]):
        if name in names:
            topography[names.index(name)] = value
    artefact = 1e-12 * topography[:, np.newaxis]
    info = sample_evoked.info.copy()
    for proj in info["projs"]:
        proj["active"] = False
    raw = sample(info)
    assert_allclose(raw.gain, leadfield.gain, atol=1e-12 * np.abs(raw.gain).max())
    white = raw.whiten(data + artefact)
    expected = leadfield.whiten(data)
    assert_allclose(_power(white), _power(expected), atol=1e-6 * _power(white).max())


def test_meg_needs_no_reference(sample, sample_evoked, sample_fwd):
    """EEG without reference is no matter where the EEG is not used."""
    info = sample_evoked.info.copy()
    info["projs"].pop()  # the average reference
    with pytest.raises(ValueError, match="EEG average reference"):
        sample(info)
    fwd = mne.pick_types_forward(sample_fwd, meg=True, eeg=False)
    assert set(sample(info, fwd).ch_types) == {"mag", "grad"}


def test_maxwell_filtered(sample, sample_dir, sample_fwd):
    """The rank of Maxwell-filtered data is MNE's, by info or given."""
    raw = mne.io.read_raw_fif(sample_dir / "sample_audvis_trunc_raw_sss.fif")
    with pytest.warns(RuntimeWarning, match="Too few samples"):
        cov = mne.compute_raw_covariance(raw, rank="info")
    rank = mne.compute_rank(cov, rank="info", info=raw.info)
    assert rank["meg"] < 80
    leadfield = sample(raw.info, noise_cov=cov, rank="info")
    assert len(leadfield.whitener) == sum(rank.values())
    evoked = mne.EvokedArray(raw.get_data(), raw.info)
    expected, names = _mne_whiten(evoked, sample_fwd, cov, rank="info")
    data = leadfield.whiten(evoked.pick(names).data)
    assert_allclose(_power(data), _power(expected), atol=1e-9 * _power(data).max())
    given = sample(raw.info, noise_cov=cov, rank=dict(meg=60, eeg=50))
    assert len(given.whitener) == 110


def test_compensation_must_match(sample, sample_evoked):
    info = sample_evoked.info
    for ch in info["chs"]:
        if ch["ch_name"].startswith("MEG"):
            ch["coil_type"] = int(ch["coil_type"]) + (3 << 16)
    with pytest.raises(RuntimeError, match="Compensation grade"):
        sample(info)


def test_tilted_helmet(sample, sample_evoked):
    """A forward of another head position is reported."""
    trans = mne.transforms.rotation(x=np.deg2rad(5))
    info = sample_evoked.info
    info["dev_head_t"]["trans"] = info["dev_head_t"]["trans"] @ trans
    with pytest.warns(RuntimeWarning, match="mm apart in head coordinates"):
        sample(info)

"""Leadfield: against MNE's forward, and which source spaces it takes."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal


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

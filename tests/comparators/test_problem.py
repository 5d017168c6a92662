"""What both comparators start from: whitening, components, depth."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mne_deepsif.comparators.problem import (
    depth_weights,
    make_problem,
    signal_components,
    to_stc,
)


def test_the_gain_of_a_patch_is_its_data(patch, eeg_fwd, eeg_info, cov):
    """Whitened gain times true sources is MNE's forward of them, whitened."""
    evoked = mne.apply_forward(
        mne.convert_forward_solution(eeg_fwd, force_fixed=True), patch.truth, eeg_info
    ).set_eeg_reference(projection=True)
    problem = make_problem(evoked, eeg_fwd, cov, None)
    expected = problem.gain @ patch.truth.data
    atol = 1e-6 * np.abs(expected).max()
    assert_allclose(problem.data, expected, atol=atol)


def test_averages_lower_the_noise(patch, eeg_fwd, cov):
    """Baseline noise has unit variance, whatever the number of averages is."""
    problem = make_problem(patch.evoked, eeg_fwd, cov, None)
    white = problem.data[:, 45:]
    assert len(problem.data) == 31
    assert_allclose(np.mean(white**2), 1, atol=0.3)


def test_components_of_noise_and_signal():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((40, 100))
    signal = 20 * np.outer(rng.standard_normal(40), np.sin(np.arange(100) / 5))
    signal += 20 * np.outer(rng.standard_normal(40), np.cos(np.arange(100) / 9))
    maps, courses = signal_components(noise)
    assert maps.shape == (40, 1) and courses.shape == (1, 100)
    maps, courses = signal_components(noise + signal)
    assert maps.shape == (40, 2) and courses.shape == (2, 100)
    assert_allclose(courses @ courses.T, np.eye(2), atol=1e-12)
    rest = signal - maps @ (maps.T @ signal)
    assert np.linalg.norm(rest) < 0.1 * np.linalg.norm(signal)


def test_depth_weights_even_out_the_gains(toy):
    assert_allclose(depth_weights(toy.gain, 0), 1)
    weighted = toy.gain * depth_weights(toy.gain, 1)
    norms = np.linalg.norm(weighted, axis=0)
    assert_allclose(norms, norms[0])
    assert np.isfinite(depth_weights(toy.gain * (np.arange(144) > 0), 1)).all()


def test_estimate_has_the_times_and_vertices_of_the_data(patch, eeg_fwd):
    stc = to_stc(patch.truth.data, patch.evoked, eeg_fwd)
    assert_allclose(stc.times, patch.evoked.times)
    for vertices, one in zip(stc.vertices, eeg_fwd["src"]):
        assert_array_equal(vertices, one["vertno"])
    assert stc.subject == "fsaverage5"


def test_wrong_inputs_are_named(patch, eeg_fwd, cov):
    with pytest.raises(TypeError, match="evoked must be"):
        make_problem(patch.truth, eeg_fwd, cov, None)
    with pytest.raises(TypeError, match="noise_cov must be"):
        make_problem(patch.evoked, eeg_fwd, None, None)
    with pytest.raises(TypeError, match="fwd must be"):
        make_problem(patch.evoked, None, cov, None)


def test_a_source_space_needs_triangles(patch, eeg_fwd, cov):
    fwd = eeg_fwd.copy()
    for s in fwd["src"]:
        s.update(tris=np.zeros((0, 3), int), use_tris=np.zeros((0, 3), int))
    with pytest.raises(ValueError, match="fwd must have .* mne.setup_source_space"):
        make_problem(patch.evoked, fwd, cov, None)

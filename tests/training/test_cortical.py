"""Training through the last step: samples, and the loss on the cortex."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from mne_deepsif.network.encoder import N_SCALES
from mne_deepsif.training.cortical import (
    CorticalBatches,
    Samples,
    Truth,
    draw_samples,
    mismatch,
    to_tensor,
    window_lengths,
)
from mne_deepsif.training.personal import RADII

N_PARCELS, N_CHANNELS = 20, 15  # of the line


@pytest.fixture(scope="module")
def library():
    """Give bumps, and background activity."""
    rng = np.random.default_rng(2)
    times = np.arange(-60, 60) / 125
    waveforms = np.exp(-0.5 * (times / rng.uniform(0.02, 0.05, (30, 1))) ** 2)
    background = rng.standard_normal((N_PARCELS, 1000)).astype(np.float16)
    return SimpleNamespace(waveforms=waveforms, background=background, sfreq=125.0)


def draw(truth, library, n_batch, n_times, seed=0):
    """Draw samples."""
    generator = torch.Generator().manual_seed(seed)
    ingredients = to_tensor(library.waveforms), to_tensor(library.background.T), 125.0
    return draw_samples(truth, *ingredients, n_batch, n_times, generator)


def test_patches(patches):
    """They reach as far as their radius, from one place to the largest one."""
    activity = patches.activity.toarray()
    widths = (activity > 0).sum(1)
    assert widths.min() == 1 and widths.max() <= 2 * (1e-1 * RADII[-1][1]) + 1
    assert len(np.unique(widths)) >= 4
    middle = np.round(patches.centre[:, 0] / 1e-2).astype(int)
    assert np.isin(middle, np.arange(10, 50)).all()
    assert_allclose(activity[np.arange(len(middle)), middle], 1)
    for one, place in zip(activity, middle, strict=True):  # symmetric and in one piece
        inside = np.flatnonzero(one)
        assert inside.mean() == place and np.ptp(inside) + 1 == len(inside)
    soft = (activity > 0) & (activity < 1)
    assert 0.1 < soft.any(1).mean() < 0.5


def test_samples_hold_what_they_say(pair, library):
    """Without noise, data are topographies times courses, of the size that is given."""
    truth = pair[1]
    silent = Truth(truth.patch_gain, truth.background, 0 * truth.noise)
    samples = draw(silent, library, 400, 64)
    topography = silent.patch_gain[samples.patch]
    assert_allclose(samples.data, topography.mT @ samples.courses, atol=1e-4)
    assert_allclose(samples.gram, topography @ topography.mT, rtol=1e-4)
    share = samples.is_on.sum(1).bincount(minlength=6) / 400
    assert share[0] < 0.1 and 0.25 < share[1] < 0.47 and share[5] > 0
    assert not samples.courses[~samples.is_on].any()
    largest = samples.courses.abs().amax(2)
    assert (largest <= 1.01 * samples.amplitude.abs()).all()
    size = samples.amplitude.abs() * topography.norm(dim=2) / N_CHANNELS**0.5
    assert_allclose(size, samples.size, rtol=1e-4)
    noisy = draw(truth, library, 400, 64)
    assert_allclose((noisy.data - samples.data).std(), 1, rtol=0.01)


def test_background_is_mixed_in(pair, library):
    """Its power is that of its gain."""
    truth = pair[1]
    gain = torch.ones(N_CHANNELS, N_PARCELS)
    samples = draw(Truth(truth.patch_gain, gain, 0 * truth.noise), library, 200, 32)
    silence = samples.data[~samples.is_on.any(1)]
    assert_allclose(silence.std(), N_PARCELS**0.5, rtol=0.2)


def make_case(pair, library):
    """Return the leadfield, samples of one time course each, and the true activity."""
    samples = draw(pair[1], library, 50, 32)
    samples = Samples(*(one[samples.is_on.any(1)] for one in samples))
    activity = pair[0].targets_of(samples.patch).mT @ samples.courses
    return pair[0], samples, activity


def test_loss_of_right_and_wrong_estimates(pair, library):
    """0 for the truth on any scale, 2 for its opposite, about 1 for noise."""
    leadfield, samples, activity = make_case(pair, library)
    courses = torch.eye(32).expand(len(activity), -1, -1)
    loss = [
        mismatch(factor * activity, courses, leadfield, samples).item()
        for factor in (1, 1e3, -1)
    ]
    assert_allclose(loss, [0, 0, 2], atol=1e-3)
    noise = torch.randn(activity.shape, generator=torch.Generator().manual_seed(1))
    noise *= activity.square().mean().sqrt()
    assert 0.8 < mismatch(noise, courses, leadfield, samples) < 1.2


def test_loss_sees_each_quarter(pair, library):
    """An estimate that is empty in a quarter of the window misses what is there."""
    leadfield, samples, activity = make_case(pair, library)
    courses = torch.eye(32).expand(len(activity), -1, -1)
    activity[..., :8] = 0
    one = mismatch(activity, courses, leadfield, samples)
    assert 0.02 < one < 0.5


def test_batches(pair, library):
    """Drawing again from a state gives the same; parts belong to their truths."""
    leadfield, truth = pair
    other = Truth(0 * truth.patch_gain, truth.background, 0 * truth.noise)
    batches = CorticalBatches(library, leadfield, [truth, other], 64, 4, 0)
    assert len(batches) == 2
    state = batches.generator.get_state()
    X, data, courses, *samples = batches.draw([0, 1], 9)
    assert X.shape == (9, 4, (2 + N_SCALES) * N_PARCELS) and data.shape == (
        9,
        N_CHANNELS,
        4,
    )
    assert courses.shape[2] in (8, 16, 24, 32, 48, 64)
    assert data[:4].flatten(1).any(1).all() and not data[4:].any()
    batches.generator.set_state(state)
    again = batches.draw([0, 1], 9)
    assert all(map(torch.equal, again, [X, data, courses, *samples]))
    answer = torch.rand(9, 4, N_PARCELS, requires_grad=True)
    loss = batches.error(answer, data, courses, *samples)
    loss.backward()
    assert 0 < loss.item() < 2 and answer.grad.isfinite().all()
    assert answer.grad[:4].any() and not answer.grad[4:].any()


def test_window_lengths():
    """Shares of the network's window; the loss looks at quarters of each."""
    assert window_lengths(64) == [8, 16, 24, 32, 48, 64]
    assert window_lengths(7) == [4]
    assert window_lengths(250) == [28, 60, 92, 124, 184, 248]


def test_short_waveforms(pair, library):
    """Windows are no longer than the time courses there are."""
    batches = CorticalBatches(library, pair[0], [pair[1]], 1000, 4, 0)
    assert max(batches.lengths) == 120

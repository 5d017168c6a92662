"""What the loss means: peaks and ranks of estimates of simulated windows."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from mne_deepsif.training.cortical import CorticalBatches, Samples, Truth
from mne_deepsif.training.score import score_estimates

N_PARCELS = 20


class Told(torch.nn.Module):
    """A network that is told its answers: power in some parcels, none in others."""

    def __init__(self, answers):
        super().__init__()
        self.answers = list(answers)

    def forward(self, X):
        """Answer to the next windows."""
        found, self.answers = self.answers[: len(X)], self.answers[len(X) :]
        return torch.stack(found)[:, None].expand(-1, X.shape[1], -1)


@pytest.fixture(scope="module")
def batches(pair):
    """Give windows without any noise."""
    leadfield, truth = pair
    silent = Truth(truth.patch_gain, truth.background, 0 * truth.noise)
    rng = np.random.default_rng(2)
    times = np.arange(-60, 60) / 125
    library = SimpleNamespace(
        waveforms=np.exp(-0.5 * (times / rng.uniform(0.02, 0.05, (30, 1))) ** 2),
        background=rng.standard_normal((N_PARCELS, 1000)).astype(np.float16),
        sfreq=125.0,
    )
    return CorticalBatches(library, leadfield, [silent], 64, 4, 0)


def find_parcels(batches, drawn):
    """Return 1 for the parcels of each window's sources (three places each)."""
    samples = Samples(*drawn[3:])
    targets = batches.leadfield.targets_of(samples.patch) * samples.is_on[..., None]
    return (targets.amax(1).unflatten(1, (N_PARCELS, 3)).amax(2) > 0).float()


def test_right_and_wrong_answers(batches):
    """Near 0 and 1 if the prior is the truth; far and by chance where it is not."""
    drawn = batches.draw([0], 200)
    parcels = find_parcels(batches, drawn)
    n_windows = int(parcels.any(1).sum())
    right = score_estimates(Told(parcels), batches, [drawn])
    assert right.n_windows == n_windows > 150
    assert right.peak_error < 0.002 and right.roc_auc > 0.95
    wrong = score_estimates(Told(1 - parcels), batches, [drawn])
    assert wrong.peak_error > 5 * right.peak_error and wrong.roc_auc < 0.6
    halves = [[part[:70] for part in drawn], [part[70:] for part in drawn]]
    again = score_estimates(Told(parcels), batches, halves)
    assert_allclose(again, right, rtol=1e-5)


def test_windows_without_a_source(batches):
    """They do not count; without any other, there is no score."""
    X, data, courses, *samples = batches.draw([0], 20)
    samples = Samples(*samples)
    empty = samples._replace(is_on=torch.zeros_like(samples.is_on))
    network = Told(torch.ones(20, N_PARCELS))
    score = score_estimates(network, batches, [[X, data, courses, *empty]])
    assert score.n_windows == 0 and np.isnan([*score[:2]]).all()


def test_silence(batches):
    """It has no peak, and no place is stronger than another."""
    drawn = batches.draw([0], 20)
    score = score_estimates(Told(torch.zeros(20, N_PARCELS)), batches, [drawn])
    assert np.isnan(score.peak_error) and score.roc_auc == 0.5

"""What the loss of a training means: scores of estimates of simulated windows."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from typing import NamedTuple

import numpy as np
import torch

from ..metrics import peak_error, roc_auc
from ..network.prior import differentiable_estimate, prior_variances
from .cortical import Samples

_INSIDE = 0.5  # of the most activity of a patch: what lies in it, once it is smoothed
_N_AT_ONCE = 64  # windows whose activity is held at once


class Score(NamedTuple):
    """Means over simulated windows with a source.

    Attributes
    ----------
    peak_error : float
        Distance of the estimate's peak to the nearest true place (m).
    roc_auc : float
        Area under the ROC curve.
    n_windows : int
        Number of windows.
    """

    peak_error: float
    roc_auc: float
    n_windows: int


def score_estimates(network, batches, drawn):
    """Score estimates of windows: network and last step, against the true patches.

    Parameters
    ----------
    network : torch.nn.Module
        The network, on the CPU.
    batches : CorticalBatches
        What drew the windows.
    drawn : list
        Results of :meth:`CorticalBatches.draw`.

    Returns
    -------
    score : Score
        How good the estimates are; NaN where no window has a source or no estimate a
        peak.
    """
    network.eval()
    rows = []
    with torch.inference_mode():
        for batch in drawn:
            for X, *rest in zip(*(part.split(_N_AT_ONCE) for part in batch)):
                rows += _score_batch(network(X), batches.leadfield, *rest)
    means = (_mean(np.array(column)) for column in zip(*rows))
    return Score(*means, len(rows)) if rows else Score(np.nan, np.nan, 0)


def _mean(values):
    """Return the mean of what is known; an estimate of silence has no peak."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else np.nan


def _score_batch(answer, leadfield, data, courses, *samples):
    """Return peak error and AUC of each window that has a source."""
    samples = Samples(*samples)
    variances = prior_variances(answer.float().mT, leadfield.prior.n_parcels)
    estimate = differentiable_estimate(leadfield.prior, variances, data)
    sources = (leadfield.activity(estimate) @ courses).numpy()
    targets = leadfield.targets_of(samples.patch)
    most = targets.amax(2, keepdim=True)
    inside = (targets >= _INSIDE * most) & (most > 0) & samples.is_on[..., None]
    true, centers = inside.any(1).numpy(), leadfield.rr.numpy()
    return [
        (peak_error(true[i], sources[i], centers), roc_auc(true[i], sources[i]))
        for i in np.flatnonzero(true.any(1))
    ]

"""Scores of a ``SourceEstimate`` against the truth, in MNE's argument order.

The true estimate is zero, or has no vertices, where nothing is active. The other one is
thresholded over its whole time range, by the rule that you name. Lengths are in metres.
Each function is that of :mod:`mne_deepsif.metrics`, with vertices in place of parcels.
To score against labels, such as a resection, make a true estimate of them:
``mne.labels_to_stc([label.restrict(src) for label in labels], [1.0] * len(labels))``.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from .agreement import (
    average_precision,
    expected_calibration_error,
    linear_correlation,
    reliability_curve,
    roc_auc,
)
from .overlap import (
    area_correlation,
    f1,
    precision,
    recall,
    sensitivity,
    specificity,
    specificity_close_far,
)
from .position import (
    earth_movers_distance,
    localization_error,
    peak_error,
    spatial_dispersion,
    two_sided_localization_error,
)
from .regions import (
    soz_error,
    sublobar_concordance,
    sublobar_labels,
    sublobar_sensitivity,
    sublobar_specificity,
)

__all__ = [
    "area_correlation",
    "average_precision",
    "earth_movers_distance",
    "expected_calibration_error",
    "f1",
    "linear_correlation",
    "localization_error",
    "peak_error",
    "precision",
    "recall",
    "reliability_curve",
    "roc_auc",
    "sensitivity",
    "soz_error",
    "spatial_dispersion",
    "specificity",
    "specificity_close_far",
    "sublobar_concordance",
    "sublobar_labels",
    "sublobar_sensitivity",
    "sublobar_specificity",
    "two_sided_localization_error",
]

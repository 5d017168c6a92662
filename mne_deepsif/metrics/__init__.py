"""Scores of an estimate against the truth, on arrays over parcels.

Lengths are in metres. Sets of parcels are boolean masks or index arrays. Where a score
would be 0 / 0, its docstring says what you get instead, and there is no warning.
Estimates with NaN are refused, unless the docstring says otherwise.
For the same scores of a ``SourceEstimate``, see :mod:`mne_deepsif.stc_metrics`.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from .calibration import expected_calibration_error, reliability_curve
from .evaluation import evaluate_parcels, match_patches
from .false_alarms import specificity, specificity_close_far
from .overlap import (
    area_correlation,
    f1,
    geometric_mean,
    harmonic_mean,
    precision,
    recall,
    sensitivity,
)
from .position import (
    localization_error,
    peak_error,
    soz_error,
    spatial_dispersion,
    two_sided_localization_error,
)
from .ranking import average_precision, roc_auc
from .regions import (
    SUBLOBAR_REGIONS,
    sublobar_concordance,
    sublobar_regions,
    sublobar_sensitivity,
    sublobar_specificity,
)
from .threshold import active_parcels, otsu_threshold
from .transport import earth_movers_distance
from .waveforms import linear_correlation

__all__ = [
    "SUBLOBAR_REGIONS",
    "active_parcels",
    "area_correlation",
    "average_precision",
    "earth_movers_distance",
    "evaluate_parcels",
    "expected_calibration_error",
    "f1",
    "geometric_mean",
    "harmonic_mean",
    "linear_correlation",
    "localization_error",
    "match_patches",
    "otsu_threshold",
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
    "sublobar_regions",
    "sublobar_sensitivity",
    "sublobar_specificity",
    "two_sided_localization_error",
]

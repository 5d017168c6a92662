"""Where the names of the package are defined."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from .calibration import expected_calibration_error as expected_calibration_error
from .calibration import reliability_curve as reliability_curve
from .evaluation import evaluate_parcels as evaluate_parcels
from .evaluation import match_patches as match_patches
from .false_alarms import specificity as specificity
from .false_alarms import specificity_close_far as specificity_close_far
from .overlap import area_correlation as area_correlation
from .overlap import f1 as f1
from .overlap import geometric_mean as geometric_mean
from .overlap import harmonic_mean as harmonic_mean
from .overlap import precision as precision
from .overlap import recall as recall
from .overlap import sensitivity as sensitivity
from .position import localization_error as localization_error
from .position import peak_error as peak_error
from .position import soz_error as soz_error
from .position import spatial_dispersion as spatial_dispersion
from .position import two_sided_localization_error as two_sided_localization_error
from .ranking import average_precision as average_precision
from .ranking import roc_auc as roc_auc
from .regions import SUBLOBAR_REGIONS as SUBLOBAR_REGIONS
from .regions import sublobar_concordance as sublobar_concordance
from .regions import sublobar_regions as sublobar_regions
from .regions import sublobar_sensitivity as sublobar_sensitivity
from .regions import sublobar_specificity as sublobar_specificity
from .threshold import active_parcels as active_parcels
from .threshold import otsu_threshold as otsu_threshold
from .transport import earth_movers_distance as earth_movers_distance
from .waveforms import linear_correlation as linear_correlation

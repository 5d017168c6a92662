"""Where the names of the package are defined."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from .agreement import average_precision as average_precision
from .agreement import expected_calibration_error as expected_calibration_error
from .agreement import linear_correlation as linear_correlation
from .agreement import reliability_curve as reliability_curve
from .agreement import roc_auc as roc_auc
from .overlap import area_correlation as area_correlation
from .overlap import f1 as f1
from .overlap import precision as precision
from .overlap import recall as recall
from .overlap import sensitivity as sensitivity
from .overlap import specificity as specificity
from .overlap import specificity_close_far as specificity_close_far
from .position import earth_movers_distance as earth_movers_distance
from .position import localization_error as localization_error
from .position import peak_error as peak_error
from .position import spatial_dispersion as spatial_dispersion
from .position import two_sided_localization_error as two_sided_localization_error
from .regions import soz_error as soz_error
from .regions import sublobar_concordance as sublobar_concordance
from .regions import sublobar_labels as sublobar_labels
from .regions import sublobar_sensitivity as sublobar_sensitivity
from .regions import sublobar_specificity as sublobar_specificity

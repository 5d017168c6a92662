"""
Beside dSPM and sLORETA
=======================

Two patches of cortex respond, one after the other. The same evoked response goes
through DeepSIF and through MNE's dSPM and sLORETA. Then we ask each method two
questions: where is the peak, and how far does the source extend?
"""

# %%
# A response with two sources
# ---------------------------
# Neural masses on the template's head, seen by 64 electrodes. ``truth`` has the patches
# and their time courses.
import mne
import numpy as np

import mne_deepsif
from mne_deepsif import stc_metrics

mne.set_log_level("warning")
# sphinx_gallery_thumbnail_number = 2
montage = mne.channels.make_standard_montage("biosemi64")
info = mne.create_info(montage.ch_names, 250.0, "eeg").set_montage(montage)
fwd = mne_deepsif.make_template_forward(info)
parcels = mne_deepsif.make_template_parcels()

places = [[-0.055, -0.025, 0.010], [0.035, -0.065, 0.045]]  # MNI coordinates (m)
seeds = [np.linalg.norm(parcels.centers - place, axis=1).argmin() for place in places]
evoked, _, truth = mne_deepsif.simulate_evoked(
    fwd, info, seeds=seeds, snr=10.0, peak_times=[0.0, 0.1], random_state=3
)
evoked.plot(spatial_colors=True, proj=True)

# %%
# Three estimates
# ---------------
# All see the same data and the same noise covariance.
noise_cov = truth.noise_cov
stcs = {"DeepSIF": mne_deepsif.apply_deepsif(evoked, fwd, noise_cov)}
inverse = mne.minimum_norm.make_inverse_operator(
    evoked.info, fwd, noise_cov, fixed=True
)
for method in ("dSPM", "sLORETA"):
    stcs[method] = mne.minimum_norm.apply_inverse(
        evoked, inverse, lambda2=1 / 9, method=method
    )

# %%
# The first peak
# --------------
# Colours are relative to each method's maximum, since the units differ. What is below
# 30 % of it stays grey.
units = {"DeepSIF": "nAm", "dSPM": "dSPM value", "sLORETA": "sLORETA value"}
mne_deepsif.plot_compare_estimates(
    stcs, unit=units, initial_time=truth.peak_times[0][0]
)

# %%
# The second peak
# ---------------
mne_deepsif.plot_compare_estimates(
    stcs, unit=units, initial_time=truth.peak_times[1][0]
)

# %%
# Scores
# ------
# The distance of the peak is that to the nearest true vertex. Precision is the share of
# the active area that is true, recall the share of the true area that is active. Which
# vertices are active is decided by Otsu's threshold on the peaks, the rule ``"peak"``.
# Both windows are scored by the patch that peaks in them.
print("window  method    peak (mm)  precision  recall")
for index, peaks in enumerate(truth.peak_times):
    tmin, tmax = peaks[0] - 0.03, peaks[0] + 0.03
    true = mne.labels_to_stc([truth.labels[index]], [1.0])
    for method, stc in stcs.items():
        part = stc.copy().crop(tmin, tmax)
        distance = 1e3 * stc_metrics.peak_error(true, part, fwd["src"])
        scores = [
            score(true, part, fwd["src"], rule="peak")
            for score in (stc_metrics.precision, stc_metrics.recall)
        ]
        row = f"{index + 1:6}  {method:8}  {distance:9.1f}"
        print(row + "{:11.2f}{:8.2f}".format(*scores))

# %%
# What to conclude
# ----------------
# One simulated response proves nothing, and these patches are of the kind that DeepSIF
# was trained on. A focal source is another matter: there, the peak of sLORETA is the
# better answer. The page on results has both, in numbers.

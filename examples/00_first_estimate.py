"""
First estimate: from an Evoked to extended sources
==================================================

A patch of visual cortex sends out an evoked response; 64 EEG electrodes record it.
We estimate the sources with DeepSIF and, beside it, with MNE's sLORETA. Nothing is
downloaded: the head is the fsaverage template, the weights are part of the package.
"""

# %%
# The head and the recording
# --------------------------
# Any montage will do. Without an individual MRI the forward solution comes from the
# template; with one, use your own from :func:`mne.make_forward_solution`.
from pathlib import Path

import mne
import numpy as np

import mne_deepsif

montage = mne.channels.make_standard_montage("biosemi64")
info = mne.create_info(montage.ch_names, sfreq=500.0, ch_types="eeg")
info.set_montage(montage)
fwd = mne_deepsif.make_template_forward(info)
mne.set_log_level("warning")  # from here on, only results are printed

# %%
# An evoked response with known sources
# -------------------------------------
# All parcels within 2.5 cm of the occipital pole of the right hemisphere are active,
# with a positive and a negative deflection.
parcels = mne_deepsif.make_template_parcels()
labels = parcels.to_labels()
right = parcels.hemi == 1
pole = np.argmin(np.where(right, parcels.centers[:, 1], np.inf))
distance = np.linalg.norm(parcels.centers - parcels.centers[pole], axis=1)
patch = np.flatnonzero(right & (distance < 0.025))

times = np.arange(-0.1, 0.5, 1 / info["sfreq"])
waveform = 4e-9 * (
    np.exp(-0.5 * ((times - 0.1) / 0.02) ** 2)
    - 0.6 * np.exp(-0.5 * ((times - 0.17) / 0.03) ** 2)
)
stc_true = mne.simulation.simulate_stc(
    fwd["src"],
    [labels[parcel] for parcel in patch],
    np.tile(waveform / 20, (len(patch), 1)),  # A m per vertex, about 20 of them
    tmin=times[0],
    tstep=1 / info["sfreq"],
    allow_overlap=True,
)
evoked = mne.apply_forward(fwd, stc_true, info, verbose="error")
evoked.set_eeg_reference(projection=True)
cov = mne.make_ad_hoc_cov(info, std=0.1e-6)  # noise of the average
mne.simulation.add_noise(evoked, cov, random_state=0)

# %%
# The estimates
# -------------
stc = mne_deepsif.apply_deepsif(evoked, fwd, cov)

inverse = mne.minimum_norm.make_inverse_operator(
    evoked.info, fwd, cov, fixed=True, depth=None
)
stc_sloreta = mne.minimum_norm.apply_inverse(
    evoked, inverse, lambda2=1 / 9, method="sLORETA"
)

# %%
# Where is the peak?
# ------------------
# The template's source space has all of its vertices, so that a row of the estimate is
# a vertex of the template, which the parcels know.
for name, estimate in (("DeepSIF", stc), ("sLORETA", stc_sloreta)):
    row, peak_time = estimate.get_peak(vert_as_index=True)
    parcel = parcels.mapping[row]
    error = np.linalg.norm(parcels.centers[patch] - parcels.centers[parcel], axis=1)
    print(
        f"{name}: peak at {1e3 * peak_time:.0f} ms in parcel {labels[parcel].name}, "
        f"{1e3 * error.min():.1f} mm from the true patch"
    )

# %%
# The figure
# ----------
# Both estimates at the peak of the response, on both hemispheres. The views are those
# that show the activity.
figure = mne_deepsif.plot_compare_estimates(
    {"DeepSIF": stc, "sLORETA": stc_sloreta},
    unit={"DeepSIF": "nAm", "sLORETA": "sLORETA value"},
)
fname = Path("first_estimate.png")
figure.savefig(fname, dpi=120)
print(f"Figure: {fname.resolve()}")

# %%
# How far do the sources extend?
# ------------------------------
extents = mne_deepsif.estimate_extent(stc, fwd, evoked, cov)
print(extents)
mne_deepsif.plot_extents(extents)

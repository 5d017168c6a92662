"""
Single trials and continuous data
=================================

A patch of cortex spikes ten times in twenty seconds of EEG. We estimate the average
spike, each spike by itself, and the continuous recording. All three go through one
prepared operator, and a label keeps the results small.
"""

# %%
# A recording with spikes
# -----------------------
import matplotlib.pyplot as plt
import mne
import numpy as np

import mne_deepsif

mne.set_log_level("warning")
# sphinx_gallery_thumbnail_number = 3
montage = mne.channels.make_standard_montage("biosemi64")
info = mne.create_info(montage.ch_names, 250.0, "eeg").set_montage(montage)
fwd = mne_deepsif.make_template_forward(info)
parcels = mne_deepsif.make_template_parcels()
place = [0.050, -0.030, -0.015]  # MNI coordinates (m)
seed = np.linalg.norm(parcels.centers - place, axis=1).argmin()
raw, _, truth = mne_deepsif.simulate_raw(
    fwd, info, seeds=[seed], n_spikes=10, snr=5.0, duration=20.0, random_state=0
)
events, event_id = mne.events_from_annotations(raw)
epochs = mne.Epochs(
    raw, events, event_id, tmin=-0.25, tmax=0.25, baseline=None, preload=True
)

# %%
# The average
# -----------
# The operator holds channels, whitener and leadfield. It is made once and serves all
# data of this recording.
noise_cov = truth.noise_cov
operator = mne_deepsif.make_deepsif_operator(raw.info, fwd, noise_cov)
evoked = epochs.average()
stc = mne_deepsif.apply_deepsif(evoked, operator)
mne_deepsif.plot_estimate(stc, title="Average of ten spikes")

# %%
# Its extent becomes a label
# --------------------------
# The largest source of the average. In the following, only its vertices are returned.
extents = mne_deepsif.estimate_extent(stc, fwd, evoked, noise_cov)
print(extents)
label = max(extents, key=lambda extent: abs(extent.peak_amplitude)).label
label = label.restrict(fwd["src"])

# %%
# Each spike
# ----------
# Epochs are estimated one at a time, so that they need little memory.
trials = [
    abs(trial).data.mean(0)
    for trial in mne_deepsif.apply_deepsif_epochs(
        epochs, operator, label=label, return_generator=True
    )
]
average = abs(mne_deepsif.apply_deepsif(evoked, operator, label=label)).data.mean(0)
figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
axes.plot(epochs.times, 1e9 * np.transpose(trials), color="0.7", lw=1)
axes.plot(epochs.times, 1e9 * average, color="C3", lw=2, label="average")
axes.set(xlabel="time (s)", ylabel="mean amplitude (nAm)", title="Single spikes, grey")
axes.legend()

# %%
# The whole recording
# -------------------
# ``decim=2`` keeps every second sample: there is nothing above 62.5 Hz in the estimate.
# Dotted lines are the true spikes. Peaks without a line are background activity and
# noise.
stc_raw = mne_deepsif.apply_deepsif_raw(raw, operator, label=label, decim=2)
figure, axes = plt.subplots(figsize=(9, 3.0), layout="constrained")
axes.plot(stc_raw.times, 1e9 * abs(stc_raw.data).mean(0), lw=1)
for time in truth.peak_times[0]:
    axes.axvline(time, color="C3", ls=":", lw=1)
axes.set(xlabel="time (s)", ylabel="mean amplitude (nAm)", xlim=(0, 20))

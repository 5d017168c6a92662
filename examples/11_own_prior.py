"""
Bring your own prior
====================

What a network finds is what it was trained on. Say that you study sleep spindles in
small patches of cortex: bursts of 11 to 15 Hz, which last half a second. We make such
sources, train a network on them from nothing, and compare it with the generic weights.
"""

# %%
# Patches
# -------
# A patch grows from a seed parcel to its neighbours, as in the papers. We keep the
# small ones, of up to 15 cm².
import matplotlib.pyplot as plt
import mne
import numpy as np

import mne_deepsif
from mne_deepsif import patches, stc_metrics
from mne_deepsif.simulation import Library

mne.set_log_level("warning")
# sphinx_gallery_thumbnail_number = 3
rng = np.random.default_rng(0)
parcels = mne_deepsif.make_template_parcels()
seeds = rng.integers(parcels.n_parcels, size=20_000)
drawn, decay = patches.make_patches(seeds, parcels.adjacency, parcels.centers, 0)
small = patches.patch_areas(drawn, parcels.areas) < 15e-4  # m²
print(f"{small.sum()} of {len(small)} patches are small enough")

# %%
# Waveforms
# ---------
# Any array will do, with the peak of size 1 in the middle. These have 1.5 s at 125 Hz,
# the rate of the network.
times = (np.arange(192) - 96) / 125.0
frequency = rng.uniform(11, 15, (3000, 1))
width = rng.uniform(0.10, 0.25, (3000, 1))
envelope = np.exp(-0.5 * (times / width) ** 2)
waveforms = np.cos(2 * np.pi * frequency * times) * envelope

figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
areas = 1e4 * patches.patch_areas(drawn, parcels.areas)
bins = np.arange(0.0, 50.0, 2.5)
axes[0].hist(areas, bins, color="0.8", label="drawn")
axes[0].hist(areas[small], bins, color="C3", label="kept")
axes[0].set(xlabel="area (cm²)", ylabel="patches")
axes[0].legend()
axes[1].plot(times, waveforms[:3].T + [0, 2, 4], color="C3", lw=1)
axes[1].set(xlabel="time (s)", yticks=[])

# %%
# Background and its connectome
# -----------------------------
# The background comes from neural masses. How they are coupled is yours to say. Here
# the rule of distance reaches twice as far as by default.
# :func:`~mne_deepsif.read_tvb_connectivity` reads a connectome of The Virtual Brain.
connectome = mne_deepsif.make_distance_connectome(
    parcels.centers, parcels.hemi, length=0.02
)
psp = mne_deepsif.simulate_jansen_rit(
    4.0, connectome, n_networks=16, sfreq=125.0, random_state=0
)
psp -= psp.mean(-1, keepdims=True)
background = np.concatenate(psp / psp.std(), axis=-1)  # one network after the other

figure, ax = plt.subplots(figsize=(4.5, 3.8), layout="constrained")
ax.spy(connectome.weights, markersize=0.2, color="0.2")
ax.xaxis.tick_bottom()
ax.set(xlabel="from parcel", ylabel="to parcel", title="Left, then right hemisphere")

# %%
# Train
# -----
# The three make a library. From random weights, ``fit`` takes all of it. From given
# weights it takes waveforms and background, and draws patches of any size. This is half
# a minute of training. The papers' networks were trained for days.
library = Library(
    patches=drawn[small],
    decay=decay[small],
    waveforms=waveforms.astype("float16"),
    background=background.astype("float16"),
    sfreq=125.0,
)
montage = mne.channels.make_standard_montage("biosemi64")
info = mne.create_info(montage.ch_names, 250.0, "eeg").set_montage(montage)
fwd = mne_deepsif.make_template_forward(info)
estimator = mne_deepsif.DeepSIFEstimator(
    weights=None, n_steps=250, batch_size=64, library=library, random_state=0
)
estimator.fit(fwd)
for n_updates, loss in estimator.history_:
    print(f"after {n_updates} updates: loss {loss:.3f}")

# %%
# A spindle
# ---------
# Its patch and waveform are of the same kind as those of the training, its background
# and noise are new.
place = [-0.035, -0.020, 0.060]  # MNI coordinates (m)
seed = np.linalg.norm(parcels.centers - place, axis=1).argmin()
t = np.arange(250) / 250.0 - 0.5
spindle = np.cos(2 * np.pi * 12.5 * t) * np.exp(-0.5 * (t / 0.18) ** 2)
evoked, _, truth = mne_deepsif.simulate_evoked(
    fwd, info, seeds=[seed], waveforms=[spindle], snr=5.0, random_state=1
)
stcs = {
    "own prior": mne_deepsif.apply_deepsif(
        evoked, fwd, truth.noise_cov, estimator=estimator
    ),
    "generic": mne_deepsif.apply_deepsif(evoked, fwd, truth.noise_cov),
}
mne_deepsif.plot_compare_estimates(stcs, initial_time=0.0)

for name, stc in stcs.items():
    error = 1e3 * stc_metrics.localization_error(truth.stc, stc, fwd["src"])
    f1 = stc_metrics.f1(truth.stc, stc, fwd["src"])
    print(f"{name:10} localization error {error:4.1f} mm, F1 {f1:.2f}")

# %%
# What to conclude
# ----------------
# Half a minute of training on one's own prior comes close to the generic weights, which
# were trained for hours on sources of all kinds. A prior of its own pays where sources
# are unlike all of those. Judge it on many sources, as on the next page, and on sources
# that it was not made for, too: a narrow prior finds what it expects.

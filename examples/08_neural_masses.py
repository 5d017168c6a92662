"""
Simulate neural masses
======================

Behind the network stands a simulated brain: a Jansen-Rit neural mass in each parcel of
the cortex. We make one mass spike, couple a thousand of them, and turn their activity
into EEG.
"""

# %%
# One mass
# --------
# A mass is a population of excitatory cells with its inhibition, driven by noise. ``A``
# is its largest excitatory potential. At the standard value of 3.25 mV, its activity
# fluctuates. A little above 3.4 mV, it emits spikes.
import matplotlib.pyplot as plt
import mne
import numpy as np

import mne_deepsif

mne.set_log_level("warning")
# sphinx_gallery_thumbnail_number = 3
gains = [3.25, 3.4, 3.55, 3.7]  # mV
psp = mne_deepsif.simulate_jansen_rit(
    5.0, n_networks=4, n_parcels=1, A=gains, random_state=0
)
times = np.arange(psp.shape[-1]) / 500.0  # the default rate is 500 Hz

figure, axes = plt.subplots(
    4, sharex=True, sharey=True, figsize=(7, 5), layout="constrained"
)
for ax, trace, gain in zip(axes, psp[:, 0], gains):
    ax.plot(times, trace, lw=1, color="0.2")
    ax.set_title(f"A = {gain} mV", loc="left", fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
axes[-1].set(xlabel="time (s)", xlim=(0, 5))
figure.supylabel("postsynaptic potential (mV)")

# %%
# A cortex of masses
# ------------------
# The parcels of the template are coupled by a rule of distance, with links to the other
# hemisphere. One parcel gets a larger ``A``. Its spikes hardly reach its neighbours. So
# a source of some size has to be put there: a patch of parcels with one waveform.
parcels = mne_deepsif.make_template_parcels()
connectome = mne_deepsif.make_distance_connectome(parcels.centers, parcels.hemi)
place = [-0.050, -0.030, -0.015]  # MNI coordinates (m)
distance = np.linalg.norm(parcels.centers - place, axis=1)
seed, near, far = distance.argsort()[[0, 1, -1]]
A = np.full((1, parcels.n_parcels), 3.25)
A[0, seed] = 3.55
psp = mne_deepsif.simulate_jansen_rit(3.0, connectome, A=A, random_state=0)[0]

figure, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
names = {"the seed": seed, "its neighbour": near, "far away": far}
for number, (name, parcel) in enumerate(names.items()):
    ax.plot(times[: psp.shape[1]], psp[parcel], lw=1, label=name, color=f"C{number}")
ax.set(
    xlabel="time (s)",
    ylabel="postsynaptic potential (mV)",
    xlim=(0, 3),
    ylim=(None, 16),
)
ax.spines[["top", "right"]].set_visible(False)
ax.legend(loc="upper right", ncols=3)

# %%
# From masses to EEG
# ------------------
# :func:`~mne_deepsif.simulate_evoked` does the whole way: a patch around the seed with
# a waveform from a spiking mass, background from all others, currents in A m, the
# electrodes, and noise. There are three kinds of waveforms.
montage = mne.channels.make_standard_montage("biosemi64")
info = mne.create_info(montage.ch_names, 250.0, "eeg").set_montage(montage)
fwd = mne_deepsif.make_template_forward(info)
kinds = ("spikes", "evoked", "bursts")
figure, axes = plt.subplots(2, 3, figsize=(9, 5), sharex=True, layout="constrained")
for column, kind in zip(axes.T, kinds):
    evoked, _, truth = mne_deepsif.simulate_evoked(
        fwd, info, seeds=[seed], waveforms=kind, snr=15.0, random_state=2
    )
    density = 1e3 * truth.waveforms[0]  # from A m per m² to nA m per mm²
    column[0].plot(evoked.times, density, color="C3")
    column[0].set_title(kind)
    column[1].plot(evoked.times, 1e6 * evoked.data.T, lw=0.5, color="0.2")
    column[1].set_xlabel("time (s)")
axes[0, 0].set_ylabel("patch (nA m / mm²)")
axes[1, 0].set_ylabel("64 electrodes (µV)")

# %%
# What to conclude
# ----------------
# The prior of the method is in these pictures: patches with one waveform, spikes and
# responses of some tens of milliseconds, bursts about 10 Hz. Activity that is unlike
# them all was not in the training. The page on your own prior says how to change this.

"""
MEG, and a head that moved in the helmet
========================================

Between two runs, the subject moved in the MEG helmet. The sensors now see the brain
from another side. We estimate the same source from both runs, each with its own forward
solution, and then the second run with the forward of the first.
"""

# %%
# Two positions
# -------------
# A recording knows where the head was: ``info["dev_head_t"]``. Here we take the 102
# magnetometers of a Neuromag helmet and set it by hand. In the second run the head is
# about 2 cm lower, and turned by up to 8 degrees.
import warnings

import matplotlib.pyplot as plt
import mne
import numpy as np

import mne_deepsif
from mne_deepsif import stc_metrics

mne.set_log_level("warning")


def put_helmet(shift, angles):
    """Return the sensors, shifted (m) and turned (degrees)."""
    info = mne.channels.read_meg_canonical_info("neuromag")
    info = mne.pick_info(info, mne.pick_types(info, meg="mag"))
    trans = mne.transforms.rotation(*np.deg2rad(angles))
    trans[:3, 3] = shift
    info["dev_head_t"] = mne.transforms.Transform("meg", "head", trans)
    return info


infos = [
    put_helmet([0.0, 0.0, 0.048], [0, 0, 0]),
    put_helmet([0.005, -0.005, 0.066], [-8, 4, 3]),
]
fwds = [mne_deepsif.make_template_forward(info) for info in infos]

# %%
# The same source, twice
# ----------------------
# A patch of the left hemisphere. The same ``random_state`` gives the same patch,
# waveform and background. The topographies differ all the same.
parcels = mne_deepsif.make_template_parcels()
place = [-0.050, -0.030, 0.045]  # MNI coordinates (m)
seed = np.linalg.norm(parcels.centers - place, axis=1).argmin()
evokeds, truths = [], []
for fwd, info in zip(fwds, infos):
    evoked, _, truth = mne_deepsif.simulate_evoked(
        fwd, info, seeds=[seed], snr=10.0, random_state=0
    )
    evokeds.append(evoked)
    truths.append(truth)

figure, axes = plt.subplots(1, 2, figsize=(7, 3.2), layout="constrained")
for number, (ax, evoked) in enumerate(zip(axes, evokeds), start=1):
    evoked.plot_topomap(0.0, axes=ax, colorbar=False, time_format=f"run {number}")

# %%
# Three estimates
# ---------------
# The network does not see sensors. It sees the data through the forward solution, so
# the same weights serve both runs. If the forward is that of the other run, there is a
# warning.
covs = [truth.noise_cov for truth in truths]
stcs = {
    "run 1": mne_deepsif.apply_deepsif(evokeds[0], fwds[0], covs[0]),
    "run 2": mne_deepsif.apply_deepsif(evokeds[1], fwds[1], covs[1]),
}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    stcs["run 2, forward of run 1"] = mne_deepsif.apply_deepsif(
        evokeds[1], fwds[0], covs[1]
    )
print(caught[0].message)
mne_deepsif.plot_compare_estimates(stcs, initial_time=0.0, views=["lateral"])

# %%
# Scores
# ------
# Precision is the share of the active area that is true, recall the share of the true
# area that is active.
true, src = truths[0].stc, fwds[0]["src"]
print("                         error (mm)  precision  recall")
for name, stc in stcs.items():
    error = 1e3 * stc_metrics.localization_error(true, stc, src)
    precision = stc_metrics.precision(true, stc, src)
    recall = stc_metrics.recall(true, stc, src)
    print(f"{name:24} {error:10.1f} {precision:10.2f} {recall:7.2f}")

# %%
# What to conclude
# ----------------
# Compute a forward solution for each run. Nothing has to be trained again.
# Alternatively, bring all runs to one position first
# (:func:`mne.preprocessing.maxwell_filter` with ``destination``). Then one forward
# serves all.

"""
Evaluate your own inverse method
================================

The simulations and scores serve any inverse method. Here, "yours" is a depth-weighted
minimum norm in a few lines of NumPy. It meets sLORETA and DeepSIF on the same data. The
data are made with one forward solution, and inverted with another, as in real life.
"""

# %%
# Two forward solutions
# ---------------------
# The methods assume that electrodes are where the montage says. In truth, each is some
# 5 mm away. Without an error of this kind, the comparison would be an "inverse crime":
# easier than any real recording.
import matplotlib.pyplot as plt
import mne
import numpy as np

import mne_deepsif
from mne_deepsif import stc_metrics

mne.set_log_level("warning")
rng = np.random.default_rng(0)
montage = mne.channels.make_standard_montage("biosemi64")
info = mne.create_info(montage.ch_names, 250.0, "eeg").set_montage(montage)
fwd = mne_deepsif.make_template_forward(info)

info_true = info.copy()
for ch in info_true["chs"]:
    ch["loc"][:3] += rng.normal(0, 0.003, 3)  # m
fwd_true = mne_deepsif.make_template_forward(info_true)

# %%
# Responses with a known truth
# ----------------------------
# One patch each, anywhere on the cortex, with background activity and noise.
parcels = mne_deepsif.make_template_parcels()
noise_cov = mne.make_ad_hoc_cov(info, std=2e-6)
samples = []
for seed in rng.choice(parcels.n_parcels, 8, replace=False):
    evoked, _, truth = mne_deepsif.simulate_evoked(
        *(fwd_true, info_true, noise_cov),
        seeds=[seed],
        snr=None,  # the noise is as large as noise_cov says
        duration=0.6,
        random_state=int(seed),
    )
    evoked.set_montage(montage)  # where the methods believe the electrodes to be
    samples.append((evoked, truth.stc))

# %%
# Three methods
# -------------
# All that the comparison needs is a function from an evoked response to a
# ``SourceEstimate``. What does not depend on the data is computed once.
fixed = mne.convert_forward_solution(fwd, force_fixed=True, use_cps=True)
gain = fixed["sol"]["data"] - fixed["sol"]["data"].mean(0)  # average reference
weights = np.linalg.norm(gain, axis=0) ** -1.6  # depth weighting
gram = (gain * weights) @ gain.T
noise = np.trace(gram) / len(gram) / 9  # for a signal-to-noise ratio of 3
kernel = weights[:, np.newaxis] * np.linalg.solve(gram + noise * np.eye(64), gain).T


def apply_mine(evoked):
    """Estimate with a depth-weighted minimum norm."""
    vertices = [s["vertno"] for s in fwd["src"]]
    data = kernel @ (evoked.data - evoked.data.mean(0))
    return mne.SourceEstimate(
        data, vertices, evoked.times[0], 1 / evoked.info["sfreq"], "fsaverage5"
    )


info = samples[0][0].info  # with the average reference
inverse = mne.minimum_norm.make_inverse_operator(info, fwd, noise_cov, fixed=True)
operator = mne_deepsif.make_deepsif_operator(info, fwd, noise_cov)
methods = {
    "mine": apply_mine,
    "sLORETA": lambda evoked: mne.minimum_norm.apply_inverse(
        evoked, inverse, method="sLORETA"
    ),
    "DeepSIF": lambda evoked: mne_deepsif.apply_deepsif(evoked, operator),
}

# %%
# Scores
# ------
# How far are patch and active cortex apart? How much do they share (F1)? Otsu's
# threshold says what is active. It suits smooth maps less than sparse ones. The area
# under the ROC curve needs no threshold: it asks whether true vertices are stronger
# than others.
scores = {
    "localization error (mm)": lambda true, stc: (
        1e3 * stc_metrics.localization_error(true, stc, src)
    ),
    "F1": lambda true, stc: stc_metrics.f1(true, stc, src),
    "area under the curve": lambda true, stc: stc_metrics.roc_auc(true, stc, src),
}
src = fwd["src"]
table = {score: {method: [] for method in methods} for score in scores}
for evoked, true in samples:
    for method, apply in methods.items():
        stc = apply(evoked).crop(-0.1, 0.1)
        for score, compute in scores.items():
            table[score][method].append(compute(true, stc))

figure, axes = plt.subplots(1, 3, figsize=(9, 3.5), layout="constrained")
for ax, (score, columns) in zip(axes, table.items()):
    values = np.array(list(columns.values()))
    ax.plot(values, "-", color="0.85", lw=1)
    ax.plot(values, "o", color="0.5", ms=4)
    ax.plot(np.mean(values, axis=1), "_", color="C3", ms=30, mew=3)
    ax.set_xticks(range(len(columns)), columns)
    ax.set(title=score, xlim=(-0.5, 2.5), ylim=(0, None))
    print(f"{score:24}", dict(zip(columns, np.mean(values, axis=1).round(2).tolist())))

# %%
# What to conclude
# ----------------
# Eight samples of one kind prove little, and this kind is that of DeepSIF's training:
# patches of 10 to 40 cm². Change what matters to you: the size of the sources, their
# number, the noise, the error of the forward. ``python -m benchmarks.comparison`` does
# this at length, for all of MNE's methods, and takes yours by one line.

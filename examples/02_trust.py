"""
When not to believe an estimate
===============================

A network answers to any input. We give it a good response, mere noise, a blink and one
loose electrode. For each, the package says whether the data look like brain activity.
At the end comes an artefact that it does not notice.
"""

# %%
# A good response
# ---------------
import matplotlib.pyplot as plt
import mne
import numpy as np

import mne_deepsif

mne.set_log_level("error")  # the warnings are the subject of this page: shown below
# sphinx_gallery_thumbnail_number = 1
montage = mne.channels.make_standard_montage("biosemi64")
info = mne.create_info(montage.ch_names, 250.0, "eeg").set_montage(montage)
fwd = mne_deepsif.make_template_forward(info)
good, _, truth = mne_deepsif.simulate_evoked(fwd, info, snr=15.0, random_state=5)
noise_cov = truth.noise_cov

report = mne_deepsif.assess_deepsif(good, fwd, noise_cov)
print(report)
mne_deepsif.plot_trust(report)

# %%
# Three that are not
# ------------------
# Noise has the covariance given. A blink is a field of dipoles at the eyes, here in an
# infinite conductor. The loose electrode jumps by itself.
times = good.times
bump = np.exp(-0.5 * (times / 0.08) ** 2)
positions = np.array([ch["loc"][:3] for ch in info["chs"]])


def make_map(place, direction):
    """Compute the potential of a dipole at the electrodes, of size 1."""
    r = positions - place
    potential = r @ direction / np.linalg.norm(r, axis=1) ** 3
    return potential / np.abs(potential).max()


noise = good.copy()
noise.data = np.zeros_like(good.data)
mne.simulation.add_noise(noise, noise_cov, random_state=0)

blink = noise.copy()
for x in (-0.03, 0.03):  # the eyes, in head coordinates (m)
    eye = make_map([x, 0.085, -0.02], [0, 0.5, 1])
    blink.data += 80e-6 * np.outer(eye, bump)

loose = noise.copy()
loose.data[info.ch_names.index("P5")] += 60e-6 * bump

# %%
# What the package says
# ---------------------
reports = {"response": report}
for name, evoked in (("noise", noise), ("blink", blink), ("loose electrode", loose)):
    reports[name] = mne_deepsif.assess_deepsif(evoked, fwd, noise_cov, n_passes=0)
for name, found in reports.items():
    print(f"{name}: {'; '.join(found.reasons) or 'nothing speaks against it'}")

kinds = list(report.probabilities)
shares = [[found.probabilities[kind] for kind in kinds] for found in reports.values()]
figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
image = axes.imshow(shares, vmin=0, vmax=1, cmap="Greys", aspect="auto")
axes.set_xticks(range(len(kinds)), kinds)
axes.set_yticks(range(len(reports)), reports)
axes.set_xlabel("taken for")
figure.colorbar(image, label="probability")

# %%
# The estimates look as good as any
# ---------------------------------
# There is a clear source for the loose electrode, too. The picture alone does not tell.
stc = mne_deepsif.apply_deepsif(loose, fwd, noise_cov)
mne_deepsif.plot_estimate(stc, title="A loose electrode")

# %%
# Not everything is noticed
# -------------------------
# A muscle of the temple twitches: a dipole outside of the skull. The report knows
# nothing like it. Look at the data, too: no warning does not mean that all is well.
muscle = noise.copy()
twitch = bump * np.sin(2 * np.pi * 20 * times)
muscle.data += 40e-6 * np.outer(make_map([0.075, 0.02, 0.0], [1, 0, 0]), twitch)
found = mne_deepsif.assess_deepsif(muscle, fwd, noise_cov, n_passes=0)
print(f"muscle: {'; '.join(found.reasons) or 'nothing speaks against it'}")

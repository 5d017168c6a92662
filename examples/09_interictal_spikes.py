"""
Interictal spikes: from the recording to the resection
======================================================

A patient's spikes are averaged and localised. The table of extents says where the
source is, how far it extends, and how much of the data it explains. Then the estimate
is compared with the cortex that a surgeon took out, and with the contacts in which
seizures began. This is research software: plan no surgery with it.
"""

# %%
# The recording
# -------------
# A minute and a half of EEG with thirty spikes, marked by annotations. They are
# simulated in the right temporal lobe. With your own recording, begin at ``raw``.
import mne
import numpy as np

import mne_deepsif
from mne_deepsif import stc_metrics

mne.set_log_level("warning")
# sphinx_gallery_thumbnail_number = 2
montage = mne.channels.make_standard_montage("biosemi64")
info = mne.create_info(montage.ch_names, 250.0, "eeg").set_montage(montage)
fwd = mne_deepsif.make_template_forward(info)
src = fwd["src"]
parcels = mne_deepsif.make_template_parcels()
place = [0.058, -0.012, -0.022]  # MNI coordinates (m)
seed = np.linalg.norm(parcels.centers - place, axis=1).argmin()
raw, _, truth = mne_deepsif.simulate_raw(
    fwd, info, seeds=[seed], n_spikes=30, snr=3.0, duration=90.0, random_state=0
)

# %%
# The average spike
# -----------------
# The noise covariance comes from the same epochs, before the spikes.
events, event_id = mne.events_from_annotations(raw)
epochs = mne.Epochs(raw, events, event_id, -0.5, 0.3, baseline=(-0.5, -0.2))
noise_cov = mne.compute_covariance(epochs, tmax=-0.2, method="shrunk", rank="info")
evoked = epochs.average().crop(-0.2, 0.3)
evoked.plot_joint(times=[-0.04, 0.0, 0.1], title=f"Average of {evoked.nave} spikes")

# %%
# Can it be trusted?
# ------------------
report = mne_deepsif.assess_deepsif(evoked, fwd, noise_cov, n_passes=0)
print(report)

# %%
# Where, and how far
# ------------------
# Two windows: the rise to the peak, which may be nearer to the onset than what follows,
# and the peak. The data say how likely each extent is a source. What is not likely
# enough is left out (``min_probability``), and so are pieces of less than 1 cm².
# ``explained_by`` tells how much of the data each explains by itself.
stc = mne_deepsif.apply_deepsif(evoked, fwd, noise_cov)
extents = mne_deepsif.estimate_extent(
    *(stc, fwd, evoked, noise_cov),
    windows=[(-0.05, -0.02), (-0.02, 0.02)],
    min_area=1e-4,  # m²
)
table = extents.to_data_frame()
table["explains"] = mne_deepsif.explained_by(extents, stc, evoked, fwd, noise_cov)
columns = ["name", "tmin", "area_cm2", "probability", "mni_x", "mni_y", "mni_z"]
columns.append("explains")
print(table[columns].round(2).to_string(index=False))

# %%
# Beside the resection
# --------------------
# A resection is a label, drawn on the postoperative MRI. Here it is a disk of 25 mm
# around a point a little in front of the source. To see both, measure the label with
# the same function, and draw the two. The first of the list is on top.
front = np.linalg.norm(parcels.centers - [0.058, 0.003, -0.028], axis=1).argmin()
vertex = parcels.to_labels()[front].center_of_mass(
    "fsaverage5",
    restrict_vertices=True,
    subjects_dir=mne_deepsif.make_template_subject(),
)
resection = mne.grow_labels(
    *("fsaverage5", vertex, 25.0, parcels.hemi[front]),
    subjects_dir=mne_deepsif.make_template_subject(),
    names="resection",
)[0]
spike = [extent for extent in extents if extent.tmin > -0.03][:1]  # at the peak
peak = stc.copy().crop(-0.02, 0.02)
taken = mne_deepsif.estimate_extent(peak, fwd, labels=[resection])
mne_deepsif.plot_extents([*taken, *spike], views=["lateral", "ventral"])

# %%
# In numbers
# ----------
# The scores take a resection as if it were the truth. Precision is then the share of
# the active cortex that was resected. Contacts of depth or grid electrodes are
# positions in metres, in head coordinates as is ``src``.
resected = mne.labels_to_stc([resection.restrict(src)], [1.0])
distance = 1e3 * stc_metrics.peak_error(resected, peak, src)
share = stc_metrics.precision(resected, peak, src)
print(f"from the peak to the resection: {distance:.0f} mm")
print(f"active cortex that was resected: {share:.0%}")

vertices = truth.labels[0].vertices[[0, 100, 200]]
contacts = src[1]["rr"][vertices]  # three, on the right hemisphere
error = 1e3 * stc_metrics.soz_error(contacts, peak, src)
print(f"between contacts with seizure onset and active cortex: {error:.0f} mm")

# %%
# What to conclude
# ----------------
# Together with the table, a report should name the rule behind it (here the defaults
# of :func:`~mne_deepsif.estimate_extent`, with the data), the head (here the template)
# and the trust report. On a patient's own MRI, read the regions of ``aparc`` and see
# :func:`~mne_deepsif.stc_metrics.sublobar_concordance`.

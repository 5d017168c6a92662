"""
No MRI: an EEG file and a montage
=================================

Most EEG recordings come without an MRI, and many files without positions of their
electrodes. A montage by name and the template's head are enough for an estimate. The
positions are checked on the way, and mistakes are named.
"""

# %%
# A file without positions
# ------------------------
# It stands for yours: 32 electrodes, forty visual responses, and nothing but names. The
# responses are simulated in occipital cortex, by the same functions that a later page
# explains.
import tempfile
from pathlib import Path

import mne
import numpy as np

import mne_deepsif

mne.set_log_level("warning")
# sphinx_gallery_thumbnail_number = 2
montage = mne.channels.make_standard_montage("biosemi32")
info = mne.create_info(montage.ch_names, 250.0, "eeg").set_montage(montage)
parcels = mne_deepsif.make_template_parcels()
place = [0.015, -0.095, 0.005]  # MNI coordinates (m)
seed = np.linalg.norm(parcels.centers - place, axis=1).argmin()
simulated, _, _ = mne_deepsif.simulate_raw(
    mne_deepsif.make_template_forward(info),
    info,
    seeds=[seed],
    n_spikes=40,
    snr=0.0,
    duration=60.0,
    random_state=1,
)
simulated.set_montage(None).del_proj()
folder = tempfile.TemporaryDirectory()
fname = Path(folder.name) / "responses_raw.fif"
simulated.save(fname)

# %%
# What the package says about it
# ------------------------------
# Read it as any file, with the reader of your system. Without positions there is no
# forward solution.
raw = mne.io.read_raw(fname, preload=True)
try:
    mne_deepsif.make_template_forward(raw.info)
except ValueError as error:
    print(error)

# %%
# Positions in the wrong unit are another frequent mistake. The estimate would look as
# good as any, so this is an error, too.
in_mm = {name: 1e3 * place for name, place in montage.get_positions()["ch_pos"].items()}
try:
    wrong = mne.channels.make_dig_montage(in_mm, coord_frame="head")
    mne_deepsif.make_template_forward(raw.copy().set_montage(wrong).info)
except ValueError as error:
    print(error)

# %%
# With the right montage
# ----------------------
# The average reference is a projector, as for MNE's inverse methods. The noise
# covariance comes from the time before the responses.
raw.set_montage("biosemi32").set_eeg_reference(projection=True)
raw.filter(0.5, 40.0)
events, event_id = mne.events_from_annotations(raw)
epochs = mne.Epochs(raw, events, event_id, -0.4, 0.4, baseline=(None, -0.2))
noise_cov = mne.compute_covariance(epochs, tmax=-0.2, method="shrunk", rank="info")
evoked = epochs.average()
evoked.plot_joint(times=[-0.05, 0.0, 0.1], title="Average of forty responses")

# %%
# The estimate
# ------------
# The figure needs no ``subjects_dir``. Functions of MNE do: pass them
# ``subjects_dir=mne_deepsif.make_template_subject()``.
fwd = mne_deepsif.make_template_forward(evoked.info)
stc = mne_deepsif.apply_deepsif(evoked, fwd, noise_cov)
mne_deepsif.plot_estimate(stc)

# %%
# Where is it?
# ------------
# On the template, positions are MNI coordinates. So you can compare them with the
# literature.
extents = mne_deepsif.estimate_extent(stc, fwd, evoked, noise_cov)
columns = ["name", "area_cm2", "probability", "peak_time", "mni_x", "mni_y", "mni_z"]
print(extents.to_data_frame()[columns].round(2).to_string(index=False))
error = 1e3 * np.linalg.norm(extents[0].position_mni - parcels.centers[seed])
print(f"The first centre lies {error:.0f} mm from the middle of the true patch.")

# %%
# What to conclude
# ----------------
# Here, the recorded head *is* the template, and the electrodes are where their names
# say. A real head has another shape and other folds, and a real cap sits a little
# differently. Expect a place to within a centimetre or two, and areas of the template,
# not of the subject. If there is an MRI, use it: see the page on an individual head.

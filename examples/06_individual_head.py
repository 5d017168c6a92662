"""
An individual head
==================

With an MRI, use the subject's own cortex. Two things carry it to the package: the
forward solution, and ``subjects_dir``, where FreeSurfer's surfaces are. Where MNE's
sample dataset is installed, this page takes its visual response. Otherwise a head is
made here: the template, longer, narrower and lower.
"""

# %%
# The head
# --------
# What follows this block is the same for any subject: a forward solution, an evoked
# response, a noise covariance, and the folder of FreeSurfer's subjects. The response of
# the head that is made here comes from occipital cortex of the right hemisphere, as the
# real one does.
import os
import shutil
import tempfile
import warnings
from pathlib import Path

import mne
import numpy as np

import mne_deepsif

mne.set_log_level("warning")
if mne.datasets.has_dataset("sample"):
    folder = mne.datasets.sample.data_path(download=False)
    subjects_dir, subject = folder / "subjects", "sample"
    recording = folder / "MEG" / "sample"
    evoked = mne.read_evokeds(
        recording / "sample_audvis-ave.fif", "Left visual", baseline=(None, 0)
    )
    evoked.pick("eeg").crop(-0.1, 0.2)
    fwd = mne.read_forward_solution(recording / "sample_audvis-eeg-oct-6-fwd.fif")
    noise_cov = mne.read_cov(recording / "sample_audvis-cov.fif")
else:
    temporary = tempfile.TemporaryDirectory()
    subjects_dir, subject = Path(temporary.name), "sub-01"
    template = mne_deepsif.make_template_subject() / "fsaverage5"
    shutil.copytree(template, subjects_dir / "fsaverage5")
    (subjects_dir / "fsaverage5" / "mri").mkdir()  # MNE wants it
    size = [0.92, 1.06, 0.96]
    mne.scale_mri(
        *("fsaverage5", subject, size), subjects_dir=subjects_dir, labels=False
    )
    montage = mne.channels.make_standard_montage("biosemi64")
    info = mne.create_info(montage.ch_names, 250.0, "eeg").set_montage(montage)
    affine = np.diag([*size, 1.0])
    fwd = mne.make_forward_solution(
        info,
        mne_deepsif.make_template_trans(info, affine=affine),
        mne.setup_source_space(subject, "ico4", "white", subjects_dir, add_dist=False),
        mne_deepsif.make_template_bem(affine=affine),
    )
    parcels = mne_deepsif.make_template_parcels()
    seed = np.linalg.norm(parcels.centers - [0.015, -0.095, 0.005], axis=1).argmin()
    evoked, _, truth = mne_deepsif.simulate_evoked(
        *(fwd, info), seeds=[seed], random_state=0, subjects_dir=subjects_dir
    )
    noise_cov = truth.noise_cov
print(subject, fwd)

# %%
# The estimate
# ------------
# The parcels of the network are those of the template. The surfaces ``lh.sphere.reg``
# and ``rh.sphere.reg`` carry them over to the subject.
stc = mne_deepsif.apply_deepsif(evoked, fwd, noise_cov, subjects_dir=subjects_dir)
mne_deepsif.plot_estimate(stc, subjects_dir=subjects_dir)

# %%
# Set it once
# -----------
# You need not pass ``subjects_dir`` each time. MNE's setting is enough. Here it is set
# for this session; ``mne.set_config("SUBJECTS_DIR", ...)`` keeps it. The head that is
# made here has one true source. The others of the list are false, and less sure.
os.environ["SUBJECTS_DIR"] = str(subjects_dir)
extents = mne_deepsif.estimate_extent(stc, fwd, evoked, noise_cov)
print(extents)
mne_deepsif.plot_extents(extents)

# %%
# Without the surfaces
# --------------------
# If they are not found, the parcels are matched by a linear transform. The warning says
# what that can cost.
del os.environ["SUBJECTS_DIR"]
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    stc_matched = mne_deepsif.apply_deepsif(evoked, fwd, noise_cov)
print(caught[0].message)
mne_deepsif.plot_compare_estimates(
    {"sphere.reg": stc, "matched by shape": stc_matched}, subjects_dir=subjects_dir
)

# %%
# What to conclude
# ----------------
# A head that is made by scaling the template is matched by shape almost perfectly, so
# both maps agree. A real head is not: there, the warning is worth attending to.

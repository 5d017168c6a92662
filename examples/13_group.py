"""
A group: morph, average, statistics
===================================

Eight subjects with heads of their own saw the same stimulus. Each estimate is made on
the subject's cortex, carried to the template, and averaged. A permutation test over
subjects then says where the group responds.
"""

# %%
# Eight subjects
# --------------
# Each is the template with other proportions, a folder as FreeSurfer makes it. The
# response comes from the left auditory cortex, a little elsewhere in each subject, and
# with noise of its own. With your own group, the loop begins at ``apply_deepsif``.
import shutil
import tempfile
from functools import partial
from pathlib import Path

import mne
import numpy as np

import mne_deepsif

mne.set_log_level("warning")
# sphinx_gallery_thumbnail_number = 2
rng = np.random.default_rng(0)
folder = tempfile.TemporaryDirectory()
subjects_dir = Path(folder.name)
template = mne_deepsif.make_template_subject() / "fsaverage5"
shutil.copytree(template, subjects_dir / "fsaverage5")
(subjects_dir / "fsaverage5" / "mri").mkdir()  # MNE wants it

montage = mne.channels.make_standard_montage("biosemi32")
info = mne.create_info(montage.ch_names, 125.0, "eeg").set_montage(montage)
parcels = mne_deepsif.make_template_parcels()
auditory = [-0.052, -0.022, 0.008]  # MNI coordinates (m)
near = np.linalg.norm(parcels.centers - auditory, axis=1).argsort()[:10]

# %%
# Estimate, and morph
# -------------------
# All estimates go to one source space, where they can be compared. The absolute value
# is taken first: a small shift across a sulcus turns the sign of a current, and signs
# would cancel in the average.
src_to = mne.setup_source_space(
    "fsaverage5", "ico4", "white", subjects_dir=subjects_dir, add_dist=False
)
stcs = []
for number in range(8):
    subject, size = f"sub-{number + 1:02}", rng.uniform(0.94, 1.06, 3)
    mne.scale_mri("fsaverage5", subject, size, subjects_dir=subjects_dir, labels=False)
    src = mne.setup_source_space(
        subject, "ico4", "white", subjects_dir=subjects_dir, add_dist=False
    )
    affine = np.diag([*size, 1.0])
    fwd = mne.make_forward_solution(
        info,
        mne_deepsif.make_template_trans(info, affine=affine),
        src,
        mne_deepsif.make_template_bem(affine=affine, ico=2),
    )
    evoked, _, truth = mne_deepsif.simulate_evoked(
        *(fwd, info),
        seeds=[rng.choice(near)],
        waveforms="evoked",
        snr=3.0,
        background_snr=6.0,
        subjects_dir=subjects_dir,
        random_state=number,
    )
    stc = mne_deepsif.apply_deepsif(
        evoked, fwd, truth.noise_cov, subjects_dir=subjects_dir
    )
    morph = mne.compute_source_morph(
        abs(stc), subject, "fsaverage5", subjects_dir, src_to=src_to, smooth=5
    )
    stcs.append(morph.apply(abs(stc)))

# %%
# The average
# -----------
average = sum(stcs[1:], start=stcs[0].copy()) / len(stcs)
mne_deepsif.plot_compare_estimates(
    {"sub-01": stcs[0], "sub-02": stcs[1], "average of eight": average},
    initial_time=0.0,
    views=["lateral"],
    threshold=0.1,
)

# %%
# Where does the group respond?
# -----------------------------
# The response within 50 ms of its peak, against the time before. The sizes of clusters
# are compared with those under all signs of the subjects' differences. ``sigma`` keeps
# the t value finite where all subjects are silent.
response = np.array([stc.copy().crop(-0.05, 0.05).data.mean(1) for stc in stcs])
before = np.array([stc.copy().crop(None, -0.2).data.mean(1) for stc in stcs])
t_values, clusters, p_values, _ = mne.stats.spatio_temporal_cluster_1samp_test(
    (response - before)[:, np.newaxis],  # one time
    threshold=3.0,
    tail=1,
    n_permutations="all",
    adjacency=mne.spatial_src_adjacency(src_to),
    out_type="mask",
    buffer_size=None,
    stat_fun=partial(mne.stats.ttest_1samp_no_p, sigma=1e-3),
)
kept = np.zeros(t_values.shape, bool)
for mask, p_value in zip(clusters, p_values):
    if p_value < 0.05:
        kept |= mask
        print(f"a cluster of {mask.sum()} vertices, p = {p_value:.3f}")
significant = mne.SourceEstimate(
    np.where(kept, t_values, 0.0).T, average.vertices, 0.0, 1.0, "fsaverage5"
)
mne_deepsif.plot_estimate(
    significant, unit="t value", views=["lateral"], title="p < .05, over eight subjects"
)

# %%
# What to conclude
# ----------------
# The cluster says that the group responds, and roughly where. It does not say that each
# of its vertices responds, nor how far the source of one subject extends: the average
# of several places is wider than each. Without MRIs, all estimates are on the template
# already (:func:`~mne_deepsif.make_template_forward`), and the morph falls away.

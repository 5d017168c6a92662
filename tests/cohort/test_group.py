"""Group statistics: moments, clusters, morphing, files of a cohort."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import json

import mne
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mne_deepsif import make_template_source_space
from mne_deepsif.cohort import GroupSettings, group_statistics
from mne_deepsif.cohort.group import run_group, to_fsaverage

VERTICES = [np.arange(10242)] * 2


def _stc(data, subject="fsaverage5", tmin=-0.1, tstep=0.02):
    return mne.SourceEstimate(data, VERTICES, tmin, tstep, subject)


@pytest.fixture(scope="module")
def patch():
    """Vertices within 15 mm of one of the left hemisphere."""
    rr = make_template_source_space()[0]["rr"]
    return np.flatnonzero(np.linalg.norm(rr - rr[3000], axis=1) < 0.015)


def _draw(n_subjects, n_times, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n_subjects, 20484, n_times)).astype(np.float32)


def test_moments_in_one_pass():
    """As NumPy and SciPy have them, from a generator that is used once."""
    data = 1e-9 * (5 + _draw(5, 3))
    found = group_statistics((_stc(x) for x in data), n_permutations=0)
    assert found.n_subjects == 5 and len(found.clusters) == 0
    np.testing.assert_allclose(found.mean.data, data.mean(0, float), rtol=1e-5)
    variance = data.var(0, float, ddof=1)
    np.testing.assert_allclose(found.variance.data, variance, rtol=1e-4)
    t, _ = stats.ttest_1samp(data.astype(float), 0)
    np.testing.assert_allclose(found.t.data, t, rtol=1e-4)
    assert found.mean.subject == "fsaverage" and found.mean.tmin == -0.1


def test_silent_vertices_have_no_t():
    data = _draw(3, 2)
    data[:, 7] = 0.0
    found = group_statistics(map(_stc, data), n_permutations=0)
    assert np.isfinite(found.t.data).all() and not found.t.data[7].any()


def test_clusters_are_where_the_effect_is(patch):
    """An effect in a patch, at 2 of 4 times; its sign does not matter."""
    data = _draw(8, 4)
    data[:, patch[:, None], [1, 2]] -= 3.0
    found = group_statistics(map(_stc, data), n_permutations=64, p_threshold=0.001)
    best, others = found.clusters.iloc[0], found.clusters.iloc[1:]
    assert best.p_value <= 2 / 64 and (others.p_value > 0.2).all()
    assert best.peak_vertex in patch and best.hemi == "lh"
    assert 0.5 * len(patch) < best.n_vertices < 1.2 * len(patch)
    np.testing.assert_allclose((best.tmin, best.tmax), (-0.08, -0.06))
    assert best.sum_t < 0
    again = group_statistics(map(_stc, data), n_permutations=64, p_threshold=0.001)
    pd.testing.assert_frame_equal(again.clusters, found.clusters)


@pytest.mark.parametrize(
    "stcs, match",
    (
        ([_stc(np.zeros((20484, 2)))], "at least two subjects, got 1"),
        ([], "at least two subjects, got 0"),
        (
            [_stc(np.ones((20484, 2))), _stc(np.ones((20484, 3)))],
            r"stcs\[1\] must have the times of the first one, -0.1 to -0.08 s at 50 Hz",
        ),
        (
            [_stc(np.ones((20484, 2))), _stc(np.ones((20484, 2)), tstep=0.1)],
            r"stcs\[1\].*estimate all with the same sfreq",
        ),
        (
            [mne.SourceEstimate(np.ones((4, 2)), [[0, 1], [0, 1]], 0, 1)],
            r"10242 vertices per hemisphere of fsaverage, got \[2, 2\]",
        ),
    ),
)
def test_errors(stcs, match):
    with pytest.raises(ValueError, match=match):
        group_statistics(stcs, n_permutations=0)
    with pytest.raises(ValueError, match="p_threshold must be between 0 and 1"):
        group_statistics(stcs, p_threshold=1.0)


def test_template_to_fsaverage():
    """Vertices keep their numbers; those that an estimate lacks are silent."""
    stc = mne.SourceEstimate(np.ones((3, 1)), [[5, 9], [7]], 0, 1, "fsaverage5")
    moved = to_fsaverage(stc)
    assert moved.subject == "fsaverage" and len(moved.data) == 20484
    assert list(np.flatnonzero(moved.data[:, 0])) == [5, 9, 10242 + 7]


def test_subject_to_fsaverage(sample_dir):
    """The subject's vertices are fsaverage's, so a patch comes out where it was."""
    rr, _ = mne.read_surface(sample_dir / "sample_fs5" / "surf" / "lh.sphere.reg")
    near = np.linalg.norm(rr - rr[3000], axis=1) < 12
    data = np.zeros((20484, 1))
    data[:10242][near] = 1.0
    before = set(sample_dir.rglob("*"))
    moved = to_fsaverage(_stc(data, "sample_fs5"), sample_dir)
    assert set(sample_dir.rglob("*")) == before  # nothing is written there
    assert moved.subject == "fsaverage"
    kept = moved.data[:10242, 0] > 0.5
    assert (kept & near).sum() > 0.9 * near.sum()
    assert (kept & ~near).sum() < 0.1 * near.sum()


@pytest.fixture
def cohort(tmp_path, patch):
    """Six subjects, the first in two sessions; conditions of other amplitudes."""
    rng = np.random.default_rng(1)
    for number in range(6):
        for session in ("a", "b") if number == 0 else ("a",):
            folder = tmp_path / f"sub-{number}" / f"ses-{session}" / "eeg"
            folder.mkdir(parents=True)
            for name, size in (("one", 4.0), ("two", 1.0)):
                data = rng.standard_normal((20484, 6))
                # signs differ between subjects, as folds do
                data[patch, 3:] += size * (-1) ** number
                stem = f"sub-{number}_ses-{session}_task-x_desc-{name}"
                _stc(1e-9 * data).save(folder / f"{stem}-stc.h5", ftype="h5")
    return tmp_path


def test_group_of_a_cohort(cohort, patch):
    quiet = dict(baseline=(-0.1, -0.06), permutations=0)
    fnames = run_group(
        GroupSettings(folder=str(cohort), condition="one", tmin=0.0, **quiet), "command"
    )
    names = {fname.name for fname in fnames if fname.suffix == ".h5"}
    kinds = ("mean", "variance", "t")
    assert names == {f"group_desc-one_stat-{kind}-stc.h5" for kind in kinds}
    stc = mne.read_source_estimate(cohort / "group" / "group_desc-one_stat-mean-stc.h5")
    assert stc.data.shape[1] == 1 and stc.times[0] == pytest.approx(0.0)
    inside = stc.data[patch, 0].mean()
    assert inside == pytest.approx(3.2e-9, rel=0.1)  # 4 less E|noise| = 0.8
    others = np.delete(stc.data[:, 0], patch)
    assert np.abs(others.mean()) < 0.02e-9
    about = json.loads(fnames[1].read_text())
    assert about["NumberOfSubjects"] == 6 and len(about["Sources"]) == 7


def test_contrast_of_conditions(cohort, patch):
    settings = dict(
        folder=str(cohort), permutations=32, tmin=-0.05, out=str(cohort / "x")
    )
    run_group(GroupSettings(condition="one", contrast="two", **settings), "command")
    clusters = pd.read_csv(
        cohort / "x" / "group_desc-oneminusTwo_clusters.tsv", sep="\t"
    )
    assert clusters.peak_vertex[0] in patch and clusters.p_value[0] < 0.1


def test_group_errors(cohort):
    settings = dict(folder=str(cohort), condition="one")
    with pytest.raises(ValueError, match="group needs baseline or contrast"):
        run_group(GroupSettings(**settings), "")
    with pytest.raises(ValueError, match=r"no file sub-\*_desc-none-stc.h5"):
        run_group(
            GroupSettings(folder=str(cohort), condition="none", contrast="one"), ""
        )
    with pytest.raises(ValueError, match="contrast: there is no .*desc-three"):
        run_group(GroupSettings(**settings, contrast="three"), "")
    with pytest.raises(ValueError, match=r"no file sub-\*_desc-one"):
        run_group(GroupSettings(**settings, contrast="two", task="y"), "")
    (other,) = (cohort / "sub-1").rglob("*_desc-one-stc.h5")
    other.rename(str(other).replace("task-x", "task-y"))
    with pytest.raises(ValueError, match=r"task must be one of \['x', 'y'\]"):
        run_group(GroupSettings(**settings, contrast="two"), "")
    settings["task"] = "x"
    with pytest.raises(ValueError, match="baseline .* holds no sample"):
        run_group(GroupSettings(**settings, baseline=(5.0, 6.0)), "")

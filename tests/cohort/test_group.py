"""Group statistics: moments, clusters, morphing, files of a cohort."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import json
from pathlib import Path

import mne
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mne_deepsif import make_template_source_space
from mne_deepsif.cache import hash_file
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


@pytest.mark.parametrize("subject", ("fsaverage", "fsaverage5"))
def test_template_to_fsaverage(patch, subject):
    """All vertices keep their values; between those of ico-4, nothing is silent."""
    data = np.zeros((20484, 1), np.float32)
    data[patch] = 1.0
    moved = to_fsaverage(_stc(data, subject))
    assert moved.subject == "fsaverage"
    np.testing.assert_array_equal(moved.data, data)
    rows = np.r_[:2562, 10242 : 10242 + 2562]
    few = [np.arange(2562)] * 2
    sparse = mne.SourceEstimate(4 * data[rows], few, 0, 1, subject)
    moved = to_fsaverage(sparse)
    assert sparse.subject == subject and moved.data.shape == data.shape
    assert moved.data.sum() == pytest.approx(data.sum(), rel=0.15)
    assert (moved.data[patch] > 0.2).mean() > 0.95
    beyond = mne.SourceEstimate(np.ones((1, 1)), [[10242], []], 0, 1, subject)
    with pytest.raises(ValueError, match="vertices beyond ico-5"):
        to_fsaverage(beyond)


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


def test_density_of_the_source_space(sample_dir, patch):
    """The same activity on a quarter of the vertices, each with 4 times the moment."""
    data = np.zeros((20484, 1))
    data[patch] = 1.0
    few = [np.arange(2562), np.arange(10242)]  # ico-4 on the left
    rows = np.r_[few[0], 10242 + few[1]]
    scale = np.r_[np.full(2562, 10242 / 2562), np.ones(10242)][:, None]
    data[10242 + patch] = 1.0
    sparse = mne.SourceEstimate(scale * data[rows], few, 0, 1, "sample_fs5")
    dense = to_fsaverage(_stc(data, "sample_fs5"), sample_dir).data
    moved = to_fsaverage(sparse, sample_dir).data
    for hemi in (slice(10242), slice(10242, None)):
        assert moved[hemi].sum() == pytest.approx(dense[hemi].sum(), rel=0.15)
        assert np.median(moved[hemi][patch]) == pytest.approx(1.0, rel=0.05)


@pytest.fixture
def cohort(tmp_path, patch):
    """Six subjects, the first in two sessions; conditions of other amplitudes."""
    rng = np.random.default_rng(1)
    for number in range(6):
        for session in ("a", "b") if number == 0 else ("a",):
            folder = tmp_path / f"sub-{number}" / f"ses-{session}" / "eeg"
            folder.mkdir(parents=True)
            outputs = {}
            for name, size in (("one", 4.0), ("two", 1.0)):
                data = rng.standard_normal((20484, 6))
                # signs differ between subjects, as folds do
                data[patch, 3:] += size * (-1) ** number
                recording = f"sub-{number}_ses-{session}_task-x"
                stem = f"{recording}_desc-{name}"
                fname = folder / f"{stem}-stc.h5"
                _stc(1e-9 * data).save(fname, ftype="h5")
                outputs[fname.name] = hash_file(fname)
                about = dict(Settings=dict(l_freq=1.0), Weights=dict(SHA256="ab"))
                (folder / f"{stem}-stc.json").write_text(json.dumps(about))
            record = folder / f"{recording}_deepsif.json"
            record.write_text(json.dumps(dict(Outputs=outputs)))
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


@pytest.mark.parametrize(
    "about, match",
    (
        (dict(Settings=dict(l_freq=2.0), Weights=dict(SHA256="ab")), "other l_freq"),
        (dict(Settings=dict(l_freq=1.0), Weights=dict(SHA256="cd")), "other weights"),
        (dict(), "must say which Settings and Weights"),
    ),
)
def test_estimates_that_were_made_differently(cohort, about, match):
    (fname,) = (cohort / "sub-3").rglob("*_desc-two-stc.json")
    fname.write_text(json.dumps(about))
    settings = GroupSettings(folder=str(cohort), condition="one", contrast="two")
    with pytest.raises(ValueError, match=match):
        run_group(settings, "")


def _rename(cohort, subject, short):
    """Give the recordings of a subject another entity."""
    for fname in (cohort / subject).rglob("*_task-x_*"):
        text = fname.read_text() if fname.name.endswith("_deepsif.json") else ""
        new = fname.with_name(fname.name.replace("task-x_", f"task-x_{short}-high_"))
        fname.rename(new)
        if text:
            new.write_text(text.replace("task-x_", f"task-x_{short}-high_"))


@pytest.mark.parametrize(
    ("name", "short"), (("acquisition", "acq"), ("processing", "proc"))
)
def test_recordings_of_other_kinds(cohort, name, short):
    """They are not averaged unasked; one kind is chosen, also that without a label."""
    for subject in ("sub-3", "sub-4"):
        _rename(cohort, subject, short)
    settings = dict(folder=str(cohort), condition="one", contrast="two")
    with pytest.raises(ValueError, match=rf"{name} must be one of \['', 'high'\]"):
        run_group(GroupSettings(**settings), "")
    settings |= dict(permutations=0)
    for label, subjects in (("high", {"3", "4"}), ("", {"0", "1", "2", "5"})):
        run_group(GroupSettings(**settings, **{name: label}), "")
        about = json.loads(
            (cohort / "group" / "group_desc-oneminusTwo_stat-t-stc.json").read_text()
        )
        assert {Path(name).name[4] for name in about["Sources"]} == subjects
    with pytest.raises(ValueError, match="no file"):
        run_group(GroupSettings(**settings, **{name: "low"}), "")


def test_recordings_that_did_not_finish_are_left_out(cohort):
    """Neither without a record nor with a file of another run; it is said."""
    (cohort / "sub-0" / "ses-b" / "eeg" / "sub-0_ses-b_task-x_deepsif.json").unlink()
    settings = dict(folder=str(cohort), condition="one", contrast="two")
    (fname,) = (cohort / "sub-1").rglob("*_desc-one-stc.h5")
    (another,) = (cohort / "sub-2").rglob("*_desc-one-stc.h5")
    fname.write_bytes(another.read_bytes())
    with pytest.warns(RuntimeWarning, match="Left out, .*sub-0_ses-b.* sub-1_ses-a"):
        run_group(GroupSettings(**settings, permutations=0), "")
    about = json.loads(
        (cohort / "group" / "group_desc-oneminusTwo_stat-mean-stc.json").read_text()
    )
    assert about["NumberOfSubjects"] == 5 and len(about["Sources"]) == 10
    assert not any("ses-b" in name or "sub-1" in name for name in about["Sources"])

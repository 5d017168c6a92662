"""Pages of the gallery, run as a user would run them."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import os
import subprocess
import sys
from pathlib import Path

import mne
import pytest

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT.parent / "shared" / "data" / "sample"


def run_page(name, folder, **environment):
    """Run a page in a process of its own; return what it prints."""
    environment = os.environ | dict(MPLBACKEND="agg") | environment
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / f"{name}.py"],
        **dict(cwd=folder, env=environment, capture_output=True, text=True),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["00_first_estimate", "01_beside_dspm", "04_no_mri"])
def test_page(name, tmp_path):
    """The pages that a user meets first run to their end, and leave no other file."""
    run_page(name, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {"first_estimate.png"}


@pytest.mark.slow
@pytest.mark.skipif(not SAMPLE.is_dir(), reason="needs the project's ../shared/data")
def test_individual_head_of_the_sample_dataset(tmp_path):
    """Where MNE's sample dataset lies as MNE unpacks it, its subject is taken."""
    folder = tmp_path / "MNE-sample-data"
    recording, subjects = folder / "MEG" / "sample", folder / "subjects"
    recording.mkdir(parents=True)
    subjects.mkdir()
    subject, bem = subjects / "sample", SAMPLE / "sample_fs5" / "bem"
    subject.symlink_to(SAMPLE / "sample_fs5")
    for name in ("ave", "cov"):
        fname = f"sample_audvis-{name}.fif"
        (recording / fname).symlink_to(SAMPLE / fname)
    src = mne.read_source_spaces(bem / "sample_fs5-src.fif")
    for one in src:
        one["subject_his_id"] = "sample"  # as in the dataset
    surfaces = mne.read_bem_surfaces(bem / "sample_fs5-1280-1280-1280-bem.fif")
    fwd = mne.make_forward_solution(
        recording / "sample_audvis-ave.fif",
        SAMPLE / "sample_fs5-trans.fif",
        src,
        mne.make_bem_solution(surfaces),
        meg=False,
    )
    mne.write_forward_solution(recording / "sample_audvis-eeg-oct-6-fwd.fif", fwd)
    said = run_page(
        "06_individual_head", tmp_path, MNE_DATASETS_SAMPLE_PATH=str(tmp_path)
    )
    assert said.startswith("sample <Forward | MEG channels: 0 | EEG channels: 60")

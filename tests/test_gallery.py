"""Pages of the gallery where MNE's sample dataset is installed.

``.ci/run`` runs all of them without it, when it builds the documentation.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import mne
import pytest

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT.parent / "shared" / "data" / "sample"
PAGES = sorted(page.stem for page in (ROOT / "examples").glob("*.py"))


def run_page(name, folder, **environment):
    """Run a page in a process of its own; return what it prints."""
    environment = os.environ | dict(MPLBACKEND="agg") | environment
    with TemporaryDirectory() as home:  # MNE writes where its data are to its settings
        environment["_MNE_FAKE_HOME_DIR"] = home
        done = subprocess.run(
            [sys.executable, ROOT / "examples" / f"{name}.py"],
            **dict(cwd=folder, env=environment, capture_output=True, text=True),
        )
    assert done.returncode == 0, done.stderr[-2000:]
    assert not any(folder.iterdir()), "a page leaves no files"
    return done.stdout


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """Lay out the recording as MNE unpacks its sample dataset; the forward is ours."""
    if not SAMPLE.is_dir():
        pytest.skip("needs the project's ../shared/data")
    home = tmp_path_factory.mktemp("mne_data")
    recording = home / "MNE-sample-data" / "MEG" / "sample"
    subjects = home / "MNE-sample-data" / "subjects"
    recording.mkdir(parents=True)
    subjects.mkdir()
    (subjects / "sample").symlink_to(SAMPLE / "sample_fs5")
    for name in ("ave", "cov"):
        fname = f"sample_audvis-{name}.fif"
        (recording / fname).symlink_to(SAMPLE / fname)
    bem = SAMPLE / "sample_fs5" / "bem"
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
    return home


@pytest.mark.slow
def test_individual_head_of_the_sample_dataset(sample, tmp_path):
    """Where MNE's sample dataset is, its subject is taken."""
    said = run_page(
        "06_individual_head", tmp_path, MNE_DATASETS_SAMPLE_PATH=str(sample)
    )
    assert said.startswith("sample <Forward | MEG channels: 0 | EEG channels: 60")


@pytest.mark.slow
def test_methods_on_the_sample_dataset(sample, tmp_path):
    """There, the three methods meet a real response, too."""
    said = run_page("01_beside_dspm", tmp_path, MNE_DATASETS_SAMPLE_PATH=str(sample))
    distances = re.findall(r"peak (\d+) mm from the transverse temporal gyrus", said)
    assert len(distances) == 3 and all(int(text) < 40 for text in distances)


def test_all_pages_with_the_dataset_are_tested():
    """A page that takes real data where they are is run on them, too."""
    texts = {page: (ROOT / "examples" / f"{page}.py").read_text() for page in PAGES}
    branching = {page for page, text in texts.items() if "has_dataset(" in text}
    assert branching == {"01_beside_dspm", "06_individual_head"}

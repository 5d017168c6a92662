"""The code blocks of README and guides, run as they stand on a small recording."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import os
import re
import textwrap
from pathlib import Path

import joblib
import matplotlib
import mne
import numpy as np
import pytest

import mne_deepsif
from mne_deepsif import metrics

matplotlib.use("agg")
from matplotlib import pyplot as plt  # noqa: E402

ROOT = Path(__file__).parents[1]
# A block in .md, and one in .rst: all that is indented further than the directive.
FENCE = re.compile(r"^```python\n(?P<code>.*?)^```$", re.M | re.S)
DIRECTIVE = re.compile(
    r"^(?P<indent> *)\.\. code-block:: python\n"
    r"(?P<code>(?:(?P=indent)   .*\n| *\n)+)",
    re.M,
)

# What is not run as it stands: numbers that make it slow, each replaced by a small one.
SMALLER = {
    # minutes of training: two updates show that the call is right
    ("doc/quickstart.rst", "n_steps=2000"): "n_steps=2, batch_size=8",
    ("doc/files.rst", 'weights="generic")'): (
        'weights="generic", n_steps=2, batch_size=8)'
    ),
    # seconds of data, on each of the template's 20 484 vertices
    ("doc/quickstart.rst", "stop=5000"): "stop=500",
    # a minute of neural masses
    ("doc/simulation.rst", "n_spikes=10, duration=60.0"): "n_spikes=2, duration=4.0",
}
# Pages that are not run at all, each for a reason.
NOT_RUN = {
    # needs the authors' weights, which are not ours to give; tests/test_original.py
    # runs the same calls on a checkpoint of its own
    "doc/original.rst",
    # both need a Slurm cluster and Dask; tests/cohort/test_run.py runs the calls of the
    # second on a dataset of its own
    "doc/comparison.rst",
    "doc/cohort.rst",
}


def find_blocks(page):
    """Return (line, code) of each Python block of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    pattern = FENCE if page.endswith(".md") else DIRECTIVE
    return [
        (text[: found.start("code")].count("\n") + 1, textwrap.dedent(found["code"]))
        for found in pattern.finditer(text)
    ]


def find_pages():
    """Return the pages that have a Python block."""
    files = [ROOT / "README.md", *sorted((ROOT / "doc").glob("*.rst"))]
    pages = [file.relative_to(ROOT).as_posix() for file in files if file.is_file()]
    return [page for page in pages if find_blocks(page)]


PAGES = find_pages()


@pytest.fixture(scope="module")
def recording(eeg_info, eeg_fwd, parcels):
    return mne_deepsif.simulate_evoked(
        eeg_fwd, eeg_info, seeds=[20], parcels=parcels, snr=15.0, random_state=0
    )


@pytest.fixture
def names(recording, eeg_fwd, parcels, tiny_estimator):
    """Give what a reader has by then: a recording on the template, as in the guides."""
    evoked, stc, truth = recording
    evoked = evoked.copy()
    trials = mne.EpochsArray(
        np.stack([evoked.data, -evoked.data] * 2),
        evoked.info,
        tmin=evoked.times[0],
        baseline=(None, 0.0),
        proj=False,
    )
    raw = mne.io.RawArray(np.tile(evoked.data, 3), evoked.info)
    label = parcels.to_labels()[20]
    return {
        "mne": mne,
        "mne_deepsif": mne_deepsif,
        "evoked": evoked,
        "evokeds": [evoked, evoked.copy()],
        "epochs": trials,
        "raw": raw,
        "fwd": eeg_fwd,
        "noise_cov": truth.noise_cov,
        "stc_true": stc,
        "estimator": tiny_estimator,
        "resection": label,
        "soz": [label],
        "subject": "fsaverage5",
    }


@pytest.fixture
def folder(names, tmp_path, monkeypatch):
    """Work in a folder with the files and the atlas that the guides read."""
    monkeypatch.chdir(tmp_path)
    mne.write_evokeds("sub-01-ave.fif", names["evokeds"], verbose="error")
    mne.write_forward_solution("sub-01-fwd.fif", names["fwd"])
    mne.write_cov("sub-01-cov.fif", names["noise_cov"])
    (tmp_path / "fsaverage5" / "label").mkdir(parents=True)
    surfaces = mne_deepsif.make_template_subject() / "fsaverage5" / "surf"
    (tmp_path / "fsaverage5" / "surf").symlink_to(surfaces)
    names["subjects_dir"] = str(tmp_path)
    # what mne.set_config writes and puts into the environment is undone
    monkeypatch.setenv("_MNE_FAKE_HOME_DIR", str(tmp_path))
    monkeypatch.setenv("SUBJECTS_DIR", str(tmp_path))
    monkeypatch.setenv("MNE_DEEPSIF_DATA", os.environ["MNE_DEEPSIF_DATA"])
    mne.write_labels_to_annot(
        _make_atlas(), "fsaverage5", "aparc", subjects_dir=tmp_path, verbose="error"
    )


def _make_atlas():
    """Return labels with the names of the aparc atlas, each of some 300 vertices."""
    regions = [name for one in metrics.SUBLOBAR_REGIONS.values() for name in one]
    parts = np.array_split(np.arange(10242), len(regions))
    return [
        mne.Label(vertices, hemi=hemi, name=f"{name}-{hemi}", subject="fsaverage5")
        for hemi in ("lh", "rh")
        for name, vertices in zip(regions, parts, strict=True)
    ]


# both are announced by the guide
@pytest.mark.filterwarnings("ignore:.*noise_cov.*:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:Setting non-standard config:RuntimeWarning")
@pytest.mark.parametrize("page", [page for page in PAGES if page not in NOT_RUN])
def test_blocks_run(page, names, folder, small_template_training):
    """Each page in one go, from its first block to its last."""
    for line, code in find_blocks(page):
        for (where, long), short in SMALLER.items():
            code = code.replace(long, short) if where == page else code
        # the line numbers of an error are those of the page
        padded = "\n" * (line - 1) + code
        with joblib.parallel_config(backend="threading"):  # no new processes
            exec(compile(padded, str(ROOT / page), "exec"), names)  # noqa: S102
    plt.close("all")


@pytest.mark.parametrize("page", sorted(NOT_RUN))
def test_what_is_not_run_is_python(page):
    for _, code in find_blocks(page):
        compile(code, page, "exec")


def test_exceptions_are_needed():
    """Nothing is excused that is no longer there."""
    assert NOT_RUN <= set(PAGES)
    for page, long in SMALLER:
        assert any(long in code for _, code in find_blocks(page))

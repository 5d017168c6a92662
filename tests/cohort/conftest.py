"""A BIDS dataset of a few small recordings with spikes, written by mne-bids."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import warnings

import mne
import numpy as np
import pytest


def pytest_collection_modifyitems(items):
    """Allow what mne-bids and pybv say about recordings that were never on a disk."""
    for item in items:
        if "cohort" in str(item.path):
            item.add_marker(pytest.mark.filterwarnings("ignore:.*:FutureWarning"))


@pytest.fixture(scope="session")
def eeg16():
    """16 electrodes with positions."""
    montage = mne.channels.make_standard_montage("biosemi16")
    info = mne.create_info(montage.ch_names, 250.0, "eeg")
    return info.set_montage(montage)


@pytest.fixture(scope="session")
def fwd16(eeg16, template_src):
    """Forward of the 16 electrodes on a sphere; ico4."""
    from mne_deepsif.head.template import make_template_trans

    sphere = mne.make_sphere_model((0.0, 0.0, 0.04), 0.125, eeg16)
    trans = make_template_trans(eeg16)
    return mne.make_forward_solution(eeg16, trans, template_src, sphere, mindist=0.0)


@pytest.fixture(scope="session")
def make_raw(eeg16, fwd16):
    """Make a recording of 12 s with 8 spikes of one place, named ``spike/left``."""

    def make(seed=0, sfreq=250.0, name="spike/left"):
        rng = np.random.default_rng(seed)
        info = mne.create_info(eeg16["ch_names"], sfreq, "eeg")
        info.set_montage(eeg16.get_montage())
        n_times = int(12 * sfreq)
        onsets = 1.5 + 1.2 * np.arange(8)
        times = np.arange(n_times) / sfreq
        wave = np.exp(-0.5 * ((times - onsets[:, None]) / 0.02) ** 2).sum(0)
        topography = fwd16["sol"]["data"][:, 3 * (500 + 100 * seed) + 2]
        topography = topography - topography.mean()
        data = 3e-5 * np.outer(topography / np.abs(topography).max(), wave)
        data += 2e-6 * rng.standard_normal(data.shape)
        raw = mne.io.RawArray(data, info)
        raw.info["line_freq"] = 50.0
        return raw.set_annotations(mne.Annotations(onsets, 0.0, name))

    return make


@pytest.fixture(scope="session")
def write_bids():
    """Write a recording to a BIDS dataset."""
    mne_bids = pytest.importorskip("mne_bids")
    pytest.importorskip("pybv")

    def write(root, raw, subject, **entities):
        entities = dict(task="spikes", datatype="eeg") | entities
        path = mne_bids.BIDSPath(subject=subject, root=root, **entities)
        options = dict(allow_preload=True, format="BrainVision", overwrite=True)
        with warnings.catch_warnings():  # converting a file that has none
            warnings.simplefilter("ignore")
            mne_bids.write_raw_bids(raw, path, verbose="error", **options)
        return path

    return write


@pytest.fixture
def dataset(tmp_path, make_raw, write_bids):
    """Two subjects; the results of one do not depend on the other."""
    root = tmp_path / "bids"
    for seed in range(2):
        write_bids(root, make_raw(seed), f"{seed + 1:02d}")
    return root


@pytest.fixture
def quick(monkeypatch, fwd16):
    """Take a small forward for the template, which takes seconds."""
    from mne_deepsif.cohort import run, single

    for module in (run, single):
        monkeypatch.setattr(module, "make_template_forward", lambda info: fwd16)


@pytest.fixture
def settings(dataset):
    """Give the settings of a cohort, as keywords."""
    return dict(
        root=str(dataset), tmin=-0.4, tmax=0.2, baseline=(-0.4, -0.1), report=False
    )

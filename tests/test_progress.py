"""Progress bars: each long step has a name and a unit, and can be silenced."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
import pytest

import mne_deepsif
from mne_deepsif.head.mesh import cut_mesh, edge_graph


@pytest.fixture
def evoked(eeg_info):
    data = 1e-6 * np.random.default_rng(0).standard_normal((32, 200))
    return mne.EvokedArray(data, eeg_info, tmin=-0.1)


def estimate_epochs(evoked, epochs, raw, fwd, cov, estimator):
    mne_deepsif.apply_deepsif_epochs(epochs, fwd, cov, estimator=estimator)


def estimate_raw(evoked, epochs, raw, fwd, cov, estimator):
    mne_deepsif.apply_deepsif_raw(raw, fwd, cov, estimator=estimator)


def assess(evoked, epochs, raw, fwd, cov, estimator):
    mne_deepsif.assess_deepsif(evoked, fwd, cov, estimator=estimator, n_passes=3)


def simulate(*inputs):
    mne_deepsif.simulate_jansen_rit(0.1, n_parcels=3, random_state=0)


def cut(*inputs):
    sphere = mne.surface._get_ico_surface(2)
    rr, tris = sphere["rr"], sphere["tris"]
    cut_mesh(edge_graph(tris, len(rr), rr), rr, np.ones(len(rr)), 10)


@pytest.mark.parametrize(
    ("run", "name", "unit"),
    [
        (estimate_epochs, "Estimating : 3/3", "epochs/s"),
        (estimate_raw, "Estimating : 1/1", "pieces/s"),
        (assess, "Estimating from parts of the channels : 3/3", "passes/s"),
        (simulate, "Simulating neural masses : 4/4", "blocks/s"),
        (cut, "Cutting the cortex into parcels : ", "iterations/s"),
    ],
)
def test_bars(run, name, unit, evoked, epochs, raw, eeg_fwd, cov, plain, capsys):
    inputs = evoked, epochs, raw, eeg_fwd, cov, plain
    with mne.utils.use_log_level("info"):
        run(*inputs)
    shown = capsys.readouterr().err
    assert name in shown and unit in shown
    *_, last = shown.split("\r")
    assert last.startswith("100%"), "the bar ends where it should"
    with mne.utils.use_log_level("warning"):
        run(*inputs)
    assert name not in capsys.readouterr().err

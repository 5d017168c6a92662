"""The former first stage: one file with all that it reads, and its command."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import json
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from mne_deepsif.network.architectures import make_network
from mne_deepsif.network.encoder import N_KERNELS
from mne_deepsif.training.batches import TrainingLeadfield

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "train_parcels.py"
read_training_set, save_training_set, main = map(
    runpy.run_path(SCRIPT).get, ("read_training_set", "save_training_set", "main")
)
N_PARCELS = 12


# what the recipe for a machine with a GPU may not need
NOT_NEEDED = (
    *("matplotlib", "mne", "nibabel", "nilearn", "numba", "pooch"),
    *("safetensors", "scipy", "sklearn"),
)


def test_training_set_round_trip(library, sensors, tmp_path):
    """All comes back, gains up to their scale, which training does not use."""
    fname = tmp_path / "set.npz"
    scaled = replace(sensors[0], gain=3e-6 * sensors[0].gain)  # below half precision
    save_training_set(fname, library, [*sensors, scaled], sensors[:1])
    read, train, validation = read_training_set(fname)
    for name, value in library.asdict().items():
        assert_array_equal(getattr(read, name), value)
    assert isinstance(read.sfreq, float)
    assert len(train) == 3 and len(validation) == 1
    for one, two in zip([*train, *validation], [*sensors, scaled, sensors[0]]):
        assert_allclose(one.whitener, two.whitener, rtol=1e-6)
        gains = [x.gain.astype(float) for x in (one, two)]
        gains = [gain / np.sqrt(np.mean(gain**2)) for gain in gains]
        assert_allclose(*gains, atol=2e-3)


def test_training_set_of_the_sensors_encoder(library, sensors, tmp_path):
    fname = tmp_path / "set.npz"
    save_training_set(fname, library, [TrainingLeadfield(sensors[0].gain)])
    assert read_training_set(fname)[1][0].whitener is None


@pytest.fixture
def long_set(library, sensors, tmp_path):
    """Write a training set for windows of 64 samples."""
    fname = tmp_path / "set.npz"
    save_training_set(fname, library, sensors, sensors[:1])
    return fname


def test_command_line_needs_torch_and_numpy_only(long_set, tmp_path):
    """As on a rented GPU: the modules that science needs cannot be imported."""
    folder = tmp_path / "out"
    code = (
        "import runpy, sys\n"
        f"sys.modules.update(dict.fromkeys({NOT_NEEDED}))\n"
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
    )
    arguments = [str(long_set), str(folder), "--steps", "3", "--batch-size", "4"]
    arguments += ["--width", "16", "--gate-width", "8", "--blocks", "1"]
    arguments += ["--device", "cpu"]
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = json.loads((folder / "history.json").read_text())
    assert [step for step, _ in record["history"]] == [0, 3]
    assert record["options"]["batch_size"] == 4
    sizes = {"width": 16, "gate_width": 8, "n_blocks": 1, "n_components": 4}
    sizes |= {"share_width": 0, "scan_width": 0}
    assert record["sizes"] == sizes
    state = torch.load(folder / "weights.pt", weights_only=True)
    n_times = record["options"]["n_times"]
    net = make_network(
        "compact", N_KERNELS * N_PARCELS, N_PARCELS, n_times, **record["sizes"]
    )
    net.load_state_dict(state)
    assert (folder / "checkpoint.pt").is_file()


def test_command_line_help(capsys):
    with pytest.raises(SystemExit) as error:
        main(["--help"])
    assert error.value.code == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("input", "output", "--steps", "--device"))

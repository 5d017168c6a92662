"""Training of generic weights on a small bundle, and its command."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from mne_deepsif.cache import PACKAGE_DATA
from mne_deepsif.training import generic
from mne_deepsif.training.__main__ import main
from mne_deepsif.training.bundle import read_bundle
from mne_deepsif.training.generic import (
    GenericTraining,
    Options,
    read_weights,
    start_network,
    write_weights,
)

# what a machine with a GPU may not need
NOT_NEEDED = (
    *("matplotlib", "mne", "nibabel", "nilearn", "numba", "pooch"),
    *("safetensors", "scipy", "sklearn"),
)
OPTIONS = Options(
    **dict(minutes=1e6, n_updates=6, batch_size=8, n_leadfields=2, n_pool=3),
    **dict(draw_every=2, n_patches=60, n_warmup=2, n_validation=16, save_every=2),
)
SMALL = {"width": 40, "gate_width": 24, "share_width": 8, "scan_width": 8}


@pytest.fixture
def make(bundle, tmp_path, monkeypatch):
    """Make a training of a small network; by default, in its own folder."""
    monkeypatch.setattr(generic, "SIZES", generic.SIZES | SMALL)

    def make_training(name="run", held_out=3, source="", **options):
        out = tmp_path / name
        out.mkdir(exist_ok=True)
        lines = []
        training = GenericTraining(
            out,
            *read_bundle(bundle),
            held_out,
            replace(OPTIONS, **options),
            source=source,
            log=lines.append,
        )
        training.lines = lines
        training.dtype = torch.float32
        return training

    return make_training


def test_training_goes_on_exactly(make):
    """Stopped after four updates and started again: the same weights."""
    one = make("one")
    one.run()
    two = make("two")
    while two.update < 4:
        two._train_step()
        if two.update % 2 == 0:
            two._validate_and_save()
    two = make("two")
    assert two.update == 4
    two.run()
    for x, y in zip(*(t.network.state_dict().values() for t in (one, two))):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-6)
    assert [line["update"] for line in one.history] == [0, 2, 4, 6]
    assert json.loads(one.lines[-1])["update"] == 6
    log = (one.out / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in log] == one.history


def test_weights_come_back(make):
    training = make()
    training.run()
    state, record = read_weights(training.out)
    network = start_network(20, state)
    for name, value in training.network.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], value)
    assert record["n_updates"] == 6 and record["n_skipped"] == 0
    assert record["recipe"]["heads"] == {"training": [0], "validation": [3]}
    assert record["sizes"] == network.sizes
    for part in training.out.glob("weights-*.npz"):
        assert part.stat().st_size < 16 * 2**20
    assert len(list(training.out.glob("weights-*.npz"))) == 1
    np.savez(training.out / "weights-7.npz", left_over=np.zeros(3))
    write_weights(training.out, training.network, record)
    assert set(read_weights(training.out)[0]) == set(state)


def test_large_weights_are_split(make, monkeypatch):
    """No part is larger than asked for, but for a single array."""
    monkeypatch.setattr("mne_deepsif.training.generic._PART_SIZE", 3000)
    training = make(n_updates=1)
    training.run()
    parts = sorted(training.out.glob("weights-*.npz"))
    assert len(parts) > 3
    for part in parts:
        with np.load(part) as file:
            sizes = [file[name].nbytes for name in file.files]
        assert sum(sizes) <= 3000 or len(sizes) == 1
    state, _ = read_weights(training.out)
    assert set(state) == set(training.network.state_dict())


def test_the_loss_falls(make):
    """On the same few windows, from untrained weights."""
    training = make(n_patches=20)
    found = []
    for _ in range(40):
        generator = torch.Generator().manual_seed(0)
        loss = sum(training._losses(training.validation[:1], 8, 16, [generator]))
        training.optimizer.zero_grad()
        loss.backward()
        training.optimizer.param_groups[0]["lr"] = 1e-2
        training.optimizer.step()
        found.append(float(loss.detach()))
    assert found[-1] < found[0] - 0.1


def test_a_bad_update_is_skipped(make, monkeypatch):
    training = make(n_updates=1)
    before = {k: v.clone() for k, v in training.network.state_dict().items()}
    losses = training._losses
    monkeypatch.setattr(
        training, "_losses", lambda *args: [x * torch.nan for x in losses(*args)]
    )
    training._train_step()
    assert training.n_skipped == 1
    for name, value in training.network.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_measuring_changes_nothing(make):
    one, two = make("one"), make("two")
    text = one.measure(2)
    assert "samples a second" in text and "TFLOP/s" in text
    one.run()
    two.run()
    for x, y in zip(*(t.network.state_dict().values() for t in (one, two))):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-6)


def test_errors(make):
    with pytest.raises(ValueError, match=r"one of \[0, 3\], got 7"):
        make(held_out=7)
    make().run()
    with pytest.raises(ValueError, match="written with another recipe"):
        make(batch_size=4)
    with pytest.raises(ValueError, match="written with another recipe"):
        make(source="another bundle")


def test_start_from_the_generic_weights():
    """All layers are there. Half of a name is another network, not a fresh start."""
    state, record = read_weights(PACKAGE_DATA / "generic.safetensors")
    network = start_network(994, state)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, state[name])
    assert record == {}
    wrong = {f"network.{name}": value for name, value in state.items()}
    with pytest.raises(ValueError, match="those of another network"):
        start_network(994, wrong)
    with pytest.raises(ValueError, match="those of another network"):
        start_network(994, {})


def test_fresh_networks_can_learn_in_all_layers(make):
    training = make()
    generators = [torch.Generator().manual_seed(i) for i in range(4)]
    losses = training._losses(training.validation, 8, 16, generators)
    sum(losses).backward()
    for name, parameter in training.network.named_parameters():
        if name not in ("share.0.weight", "share.0.bias", "scan.power.0.weight"):
            # those follow after a layer that starts at zero
            assert parameter.grad.abs().max() > 0, name


def test_command_needs_torch_and_numpy_only(bundle, tmp_path):
    """As on a rented GPU: the modules that science needs cannot be imported."""
    out = tmp_path / "out"
    code = (
        "import runpy, sys\n"
        f"sys.modules.update(dict.fromkeys({NOT_NEEDED}))\n"
        "runpy.run_module('mne_deepsif.training', run_name='__main__')\n"
    )
    arguments = [str(bundle), str(out), "--smoke", "--device", "cpu"]
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "samples a second" in lines[0]
    assert [json.loads(line)["update"] for line in lines[1:]] == [0, 2]
    assert {one.name for one in out.iterdir()} == {
        *("checkpoint.pt", "log.jsonl", "record.json", "weights-0.npz"),
    }


COMMAND = f"""
import functools
import sys
import torch
from mne_deepsif.training import __main__ as command, generic
generic.SIZES = generic.SIZES | {SMALL}
generic.resolve_precision = lambda *_: torch.float32
# without, the first step is as large for a gradient that is zero up to rounding
torch.optim.AdamW = functools.partial(torch.optim.AdamW, eps=1e-2)
command._SMALL = command._SMALL | dict(n_updates=5, n_warmup=1, save_every=1)
command.main(sys.argv[1:])
"""


def test_two_processes_train_as_one(bundle, tmp_path):
    """Each takes half of the leadfields; the losses are those of one process."""
    script = tmp_path / "command.py"
    script.write_text(COMMAND)
    options = ["--smoke", "--device", "cpu", "--learning-rate", "0.01"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    curves = []
    for name, launcher in (("one", []), ("two", torchrun)):
        done = subprocess.run(
            [sys.executable, *launcher, script, bundle, tmp_path / name, *options],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count('{"update": 5') == 1  # the first process alone tells
        _, record = read_weights(tmp_path / name)
        curves.append(
            [(x["loss"], *x["validation"].values()) for x in record["history"]]
        )
    one, two = (np.array(curve[1:]) for curve in curves)
    assert np.ptp(one[:, 1]) > 0.01  # the weights have moved
    np.testing.assert_allclose(one, two, atol=1e-3)


def test_leadfields_are_shared_evenly(make, monkeypatch):
    monkeypatch.setattr(generic, "processes", lambda: (1, 3))
    with pytest.raises(ValueError, match="multiple of the 3 processes, got 2"):
        make()


@pytest.fixture
def own_process():
    """Undo what the command sets for its process."""
    n_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(n_threads)
    torch.set_flush_denormal(False)


@pytest.mark.usefixtures("own_process")
def test_command_starts_from_weights(bundle, make, tmp_path, capsys):
    training = make(n_updates=1)
    training.run()
    out = tmp_path / "more"
    options = ["--smoke", "--device", "cpu", "--start", str(training.out)]
    main([str(bundle), str(out), *options, "--learning-rate", "0"])
    state = read_weights(out)[0]
    for name, value in training.network.state_dict().items():
        torch.testing.assert_close(state[name], value, rtol=0, atol=1e-5)
    capsys.readouterr()


def test_command_help(capsys):
    with pytest.raises(SystemExit) as error:
        main(["--help"])
    assert error.value.code == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("bundle", "out", "--minutes", "--device"))

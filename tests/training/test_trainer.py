"""Training: it learns, goes on where it was, can be stopped, and needs no MNE."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import _thread
import json
import subprocess
import sys
import threading
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from mne_deepsif.network.architectures import make_network
from mne_deepsif.network.device import resolve_device, resolve_precision
from mne_deepsif.network.encoder import N_KERNELS
from mne_deepsif.simulation import Library
from mne_deepsif.training.__main__ import main
from mne_deepsif.training.batches import BatchStream, TrainingLeadfield
from mne_deepsif.training.trainer import Trainer, TrainingOptions, relative_error
from mne_deepsif.training.training_set import read_training_set, save_training_set

N_PARCELS, N_CHANNELS, N_TIMES = 12, 8, 32
# what the recipe for a machine with a GPU may not need
NOT_NEEDED = (
    *("matplotlib", "mne", "nibabel", "nilearn", "numba", "pooch"),
    *("safetensors", "scipy", "sklearn"),
)


@pytest.fixture(scope="module")
def library():
    """Patches of three parcels on a ring, bumps, hardly any background."""
    rng = np.random.default_rng(0)
    seeds = np.arange(N_PARCELS).repeat(2)
    times = (np.arange(96) - 48) / 125
    widths = rng.uniform(0.02, 0.06, 60)[:, None]
    return Library(
        patches=(seeds[:, None] + [0, 1, -1]) % N_PARCELS,
        decay=np.tile(np.float32([1, 0.6, 0.6]), (len(seeds), 1)),
        waveforms=np.exp(-0.5 * (times / widths) ** 2).astype(np.float16),
        background=rng.standard_normal((N_PARCELS, 2000)).astype(np.float16),
        sfreq=125.0,
    )


@pytest.fixture(scope="module")
def sensors():
    """Two leadfields with noise of several sizes, whitened."""
    rng = np.random.default_rng(1)
    made = []
    for _ in range(2):
        std = rng.uniform(0.5, 2, N_CHANNELS)
        gain = rng.standard_normal((N_CHANNELS, N_PARCELS))
        made.append(TrainingLeadfield(gain, np.diag(1 / std)))
    return made


OPTIONS = TrainingOptions(
    n_steps=20,
    batch_size=8,
    n_leadfields=2,
    n_warmup=5,
    n_times=N_TIMES,
    n_validation=32,
    validate_every=5,
    precision="float32",
)


def network(seed=0, readout=0.0):
    """Return a small network; its first estimate is zero unless ``readout`` is not."""
    n_features = N_KERNELS * N_PARCELS
    sizes = dict(width=24, gate_width=24)
    made = make_network("compact", n_features, N_PARCELS, N_TIMES, seed, **sizes)
    if readout:
        generator = torch.Generator().manual_seed(seed)
        torch.nn.init.normal_(made.readout.weight, 0, readout, generator=generator)
    return made


def make_trainer(library, sensors, net=None, **kw):
    names = {field.name for field in fields(TrainingOptions)}
    options = replace(OPTIONS, **{k: v for k, v in kw.items() if k in names})
    others = {k: v for k, v in kw.items() if k not in names}
    net = network() if net is None else net
    return Trainer(net, library, sensors, options, **others)


def weights(trainer):
    return {k: v.numpy().copy() for k, v in trainer.network.state_dict().items()}


def assert_same(one, two):
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert_array_equal(value, two[name], err_msg=name)


def validation_loss(trainer):
    """Mean over leadfields of the error's power over that of the truth, in NumPy."""
    losses = []
    for X, Y, power in trainer.validation:
        with torch.inference_mode():
            estimate = trainer.network(X).double().numpy()
        truth, power = Y.double().numpy(), float(power.sum())
        lost = power - np.sum(truth**2)
        assert lost > -1e-3 * power
        losses.append((np.sum((estimate - truth) ** 2) + lost) / power)
    return np.mean(losses)


# --------------------------------------------------------------- learning


def test_it_learns(library, sensors):
    """From a zero estimate (loss 1) to most of the power on unseen samples."""
    options = dict(n_steps=200, batch_size=32, validate_every=100, learning_rate=5e-3)
    trainer = make_trainer(library, sensors, **options)
    assert trainer.run() is False
    steps, losses = zip(*trainer.history)
    assert steps == (0, 100, 200)
    assert_allclose(losses[0], 1, rtol=1e-6)
    assert losses[-1] < 0.5 and trainer.best_loss == min(losses)
    assert_allclose(validation_loss(trainer), trainer.best_loss, rtol=1e-4)


def test_relative_error_by_hand():
    sources, power = torch.tensor([[3.0, 0.0], [0.0, -4.0]]), torch.tensor([20.0, 5.0])
    assert_allclose(relative_error(0 * sources, sources, power), 1)
    assert_allclose(relative_error(sources, sources, power), 0)
    assert_allclose(relative_error(sources + 1, sources, power), 4 / 25)
    # what no component holds counts as missed
    assert_allclose(relative_error(sources, sources, 2 * power), 0.5)
    silent = 0 * sources, torch.zeros(2)  # a batch without a source
    assert_allclose(relative_error(0 * sources, *silent), 0)
    assert torch.isfinite(relative_error(sources, *silent))


def test_components_hold_nearly_all_of_the_sources(library, sensors):
    """Error in components and error over all times are the same thing."""
    trainer = make_trainer(library, sensors, n_validation=64)
    for _, Y, power in trainer.validation:
        assert Y.shape[1:] == (trainer.network.sizes["n_components"], N_PARCELS)
        assert 0.8 < float(Y.square().sum() / power.sum()) <= 1 + 1e-5


def test_same_seed_same_result(library, sensors):
    one, two, other = (
        make_trainer(library, sensors, seed=seed, n_steps=6) for seed in (0, 0, 1)
    )
    for trainer in (one, two, other):
        trainer.run()
    assert_same(weights(one), weights(two))
    assert one.history == two.history != other.history


@pytest.mark.parametrize("learning_rate", (1e-3, 1e4))
def test_never_worse_than_the_start(library, sensors, learning_rate):
    """Also when training ruins the network: then the start comes back."""
    start = network(readout=0.05)
    before = {k: v.numpy().copy() for k, v in start.state_dict().items()}
    trainer = make_trainer(library, sensors, start, learning_rate=learning_rate)
    first = validation_loss(trainer)
    trainer.run()
    assert_allclose(trainer.history[0][1], first, rtol=1e-4)
    assert validation_loss(trainer) <= first * (1 + 1e-4)
    if learning_rate > 1:
        assert not trainer.history[-1][1] < first  # it was ruined
        assert_same(weights(trainer), before)


@pytest.mark.parametrize("n_uses, batch_size", ((1, 8), (2, 8), (3, 8), (2, 3), (1, 1)))
def test_each_sample_is_used_so_often(library, sensors, n_uses, batch_size):
    """In ``n_uses`` batches of a pool, once in each pass over it; any batch size."""
    sensors = [*sensors, sensors[0]]
    trainer = make_trainer(
        library, sensors, n_uses=n_uses, batch_size=batch_size, n_leadfields=3
    )
    batches = []
    for _ in range(n_uses**2):
        X, Y, power = trainer.stream.take()
        assert len(X) == len(Y) == len(power) == batch_size
        batches.append(X)
    for first in range(0, n_uses**2, n_uses):  # one pass
        once = torch.cat(batches[first : first + n_uses]).flatten(1)
        assert len(once.unique(dim=0)) == n_uses * batch_size
    assert len(torch.cat(batches).flatten(1).unique(dim=0)) == len(once)
    fresh = trainer.stream.take()[0].flatten(1)
    assert len(torch.cat([once, fresh]).unique(dim=0)) == len(once) + len(fresh)


def test_samples_are_drawn_meanwhile(library, sensors, monkeypatch):
    """By another thread, and those that are drawn without one."""
    names = set()
    draw = BatchStream._draw_pool

    def noted(self):
        names.add(threading.current_thread().name)
        return draw(self)

    monkeypatch.setattr(BatchStream, "_draw_pool", noted)
    trainer, other = (make_trainer(library, sensors) for _ in range(2))
    trainer.run()
    assert len(names) == 2  # the first pool is drawn where it is needed
    while other.step < trainer.step:
        other._train_step()
    other._validate()
    assert other.history[-1] == trainer.history[-1]


def test_error_while_drawing(library, sensors, monkeypatch):
    """It ends the training, with torch's settings as they were."""
    trainer = make_trainer(library, sensors)
    draw, calls = trainer.batches.draw, []

    def fail(*args):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("no more samples")
        return draw(*args)

    monkeypatch.setattr(trainer.batches, "draw", fail)
    n_threads = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="no more samples"):
        trainer.run()
    found = [torch.get_num_threads()]
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert found == [n_threads] * 2


def test_compiled_training_asks_torch(library, sensors, monkeypatch):
    """The updates go through torch.compile, the validation does not need it."""
    compiled = []

    def compile_(function):
        return lambda *args: compiled.append(1) or function(*args)

    monkeypatch.setattr(torch, "compile", compile_)
    one = make_trainer(library, sensors, n_steps=6, compiled=True)
    one.run()
    assert len(compiled) == 6
    two = make_trainer(library, sensors, n_steps=6)
    two.run()
    assert_same(weights(one), weights(two))


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch and Python
def test_compiled_training_is_the_same(library, sensors):
    """With a C++ compiler: the same losses, but for rounding."""
    one = make_trainer(library, sensors, n_steps=10, compiled=True)
    two = make_trainer(library, sensors, n_steps=10)
    for trainer in (one, two):
        trainer.run()
    assert_allclose(*([loss for _, loss in t.history] for t in (one, two)), rtol=1e-3)


def test_patience(library, sensors):
    """It stops after so many validations without progress."""
    trainer = make_trainer(library, sensors, learning_rate=1e-30, patience=3)
    trainer.run()
    assert [step for step, _ in trainer.history] == [0, 5, 10, 15]


def test_learning_rate_rises_and_falls(library, sensors):
    rates = []
    trainer = make_trainer(
        library,
        sensors,
        callback=lambda t: rates.append(t.optimizer.param_groups[0]["lr"]),
        learning_rate=0.01,
    )
    trainer.run()
    steps = np.arange(20)
    expected = 0.01 * np.minimum(1, (steps + 1) / 5) * np.cos(np.pi * steps / 40) ** 2
    assert_allclose(rates, expected)


def test_validation_and_training_share_nothing(library, sensors):
    """Waveforms of validation samples are never drawn in training."""
    trainer = make_trainer(library, sensors)
    drawn = trainer.batches.simulator.waveforms
    parts = library.split(0.1, OPTIONS.seed)
    assert_array_equal(drawn.numpy(), parts[0].waveforms)
    assert_array_equal(trainer.batches.simulator.patches.numpy(), parts[0].patches)
    kept = {tuple(wave) for wave in parts[1].waveforms}
    assert kept and not kept & {tuple(wave) for wave in drawn.numpy()}


def test_units_of_the_leadfield_do_not_matter(library, sensors):
    """Volts or microvolts: the network gets the same input."""
    scaled = [replace(one, gain=1e-7 * one.gain) for one in sensors]
    for (X, Y, _), (other_X, other_Y, _) in zip(
        make_trainer(library, sensors).validation,
        make_trainer(library, scaled).validation,
    ):
        # components have no sign of their own
        assert_allclose(X.mT @ X, other_X.mT @ other_X, atol=1e-2)
        assert_allclose(X.mT @ Y, other_X.mT @ other_Y, atol=1e-2)


def test_sensors_encoder_trains(library, sensors):
    """Without a whitener the network reads the channels."""
    plain = [TrainingLeadfield(one.gain) for one in sensors]
    net = make_network("compact", N_CHANNELS, N_PARCELS, N_TIMES, width=24)
    trainer = make_trainer(library, plain, net)
    assert trainer.validation[0][0].shape[2] == N_CHANNELS
    trainer.run()
    assert trainer.best_loss < trainer.history[0][1]


# --------------------------------------------------------------- stop and go on


class KilledError(Exception):
    """What ends a training from outside."""


def _kill_at(step):
    def callback(trainer):
        if trainer.step == step:
            raise KilledError

    return callback


def test_resumed_training_is_as_if_never_stopped(library, sensors, tmp_path):
    """Killed after update 13, taken up from the checkpoint at update 10."""
    whole = make_trainer(library, sensors)
    whole.run()
    fname = tmp_path / "checkpoint.pt"
    killed = make_trainer(library, sensors, checkpoint=fname, callback=_kill_at(13))
    with pytest.raises(KilledError):
        killed.run()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
    resumed = make_trainer(library, sensors, network(seed=9), checkpoint=fname)
    assert resumed.step == 10
    resumed.run()
    assert resumed.history == whole.history
    assert resumed.best_loss == whole.best_loss
    assert_same(weights(resumed), weights(whole))


def test_finished_training_is_not_repeated(library, sensors, tmp_path):
    fname = tmp_path / "checkpoint.pt"
    done = make_trainer(library, sensors, checkpoint=fname)
    done.run()
    steps = []
    again = make_trainer(
        library, sensors, network(seed=9), checkpoint=fname, callback=steps.append
    )
    again.run()
    assert not steps
    assert_same(weights(again), weights(done))


@pytest.mark.parametrize("other", (dict(seed=1), dict(learning_rate=0.5)))
def test_checkpoint_of_other_options(library, sensors, tmp_path, other):
    fname = tmp_path / "checkpoint.pt"
    make_trainer(library, sensors, checkpoint=fname, n_steps=2).run()
    with pytest.raises(ValueError, match="checkpoint.pt was written with other train"):
        make_trainer(library, sensors, checkpoint=fname, n_steps=2, **other)


def test_ctrl_c_keeps_the_best_weights(library, sensors, tmp_path):
    """The interrupt comes to the main thread, as that of the keyboard does."""

    def press(trainer):
        if trainer.step == 12:
            _thread.interrupt_main()

    fname = tmp_path / "checkpoint.pt"
    options = dict(n_steps=20_000, validate_every=10_000, callback=press)
    trainer = make_trainer(library, sensors, checkpoint=fname, **options)
    assert trainer.run() is True
    assert 12 <= trainer.step < 10_000
    # what came after the last validation is not lost
    assert trainer.history[-1][0] == trainer.step
    assert torch.load(fname, weights_only=True)["step"] == trainer.step
    assert trainer.best_loss < 1 == round(trainer.history[0][1], 6)
    assert_allclose(validation_loss(trainer), trainer.best_loss, rtol=1e-4)
    assert not trainer.network.training


def test_the_caller_is_left_alone(library, sensors):
    """Generators, denormal numbers, gradients: as before, also after an error."""
    tiny = torch.full((1000,), 1e-40)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    make_trainer(library, sensors, n_steps=2).run()
    with pytest.raises(KilledError):
        make_trainer(library, sensors, callback=_kill_at(1)).run()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert_array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert (tiny * 1 != 0).all()
    assert torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")


def test_training_flushes_denormal_numbers(library, sensors):
    """An LSTM's fading gradients become denormal, which slows training 40 times."""
    seen = []
    tiny = torch.full((1000,), 1e-40)
    make_trainer(
        library, sensors, n_steps=1, callback=lambda _: seen.append((tiny * 1).any())
    ).run()
    assert seen == [False]


# --------------------------------------------------------------- device, precision


def test_resolve_device(monkeypatch):
    for there, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert resolve_device() == expected
        assert resolve_device("cpu") == "cpu"
        assert resolve_device("cuda:1") == "cuda:1"


def test_resolve_precision(monkeypatch):
    assert resolve_precision("bfloat16", "cpu") is torch.bfloat16
    assert resolve_precision("float32", "cuda") is torch.float32
    for fast, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(
            torch.cpu, "_is_avx512_bf16_supported", lambda fast=fast: fast
        )
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda fast=fast: fast)
        assert resolve_precision("auto", "cpu") is expected
        assert resolve_precision("auto", "cuda:0") is expected
        assert resolve_precision("auto", "mps") is torch.float32


def test_half_precision_is_for_products_only(library, sensors):
    """Weights stay in float32; the loss is near that of full precision."""
    half, full = (
        make_trainer(library, sensors, network(readout=0.05), precision=precision)
        for precision in ("bfloat16", "float32")
    )
    for trainer in (half, full):
        trainer.run()
    assert {w.dtype for w in weights(half).values()} == {np.dtype("float32")}
    losses = [[loss for _, loss in trainer.history] for trainer in (half, full)]
    assert_allclose(*losses, rtol=0.05)
    assert losses[0] != losses[1]


@pytest.mark.gpu
def test_training_on_a_gpu(library, sensors):
    """The same path; the network comes back to the CPU."""
    trainer = Trainer(network(), library, sensors, OPTIONS, device="cuda")
    trainer.run()
    assert trainer.best_loss < trainer.history[0][1]
    assert {p.device.type for p in trainer.network.parameters()} == {"cpu"}


# --------------------------------------------------------------- one file, anywhere


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
        "runpy.run_module('mne_deepsif.training', run_name='__main__')\n"
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


@pytest.mark.parametrize("name", ("n_steps", "batch_size", "n_uses", "validate_every"))
def test_counts(name):
    with pytest.raises(ValueError, match=f"{name} must be 1 or more, got 0"):
        TrainingOptions(**{name: 0})

"""Training: it learns, goes on where it was, and can be stopped."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import _thread
import shutil

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from mne_deepsif.network.architectures import make_network
from mne_deepsif.network.encoder import N_KERNELS
from mne_deepsif.training.batches import TrainingLeadfield
from mne_deepsif.training.cortical import PersonalLeadfield
from mne_deepsif.training.trainer import Trainer, TrainingOptions, relative_error

N_PARCELS, N_CHANNELS, N_TIMES = 12, 8, 32


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


def test_it_learns(library, sensors, make_trainer):
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


def test_components_hold_nearly_all_of_the_sources(library, sensors, make_trainer):
    """Error in components and error over all times are the same thing."""
    trainer = make_trainer(library, sensors, n_validation=64)
    for _, Y, power in trainer.validation:
        assert Y.shape[1:] == (trainer.network.sizes["n_components"], N_PARCELS)
        assert 0.8 < float(Y.square().sum() / power.sum()) <= 1 + 1e-5


def test_same_seed_same_result(library, sensors, make_trainer):
    one, two, other = (
        make_trainer(library, sensors, seed=seed, n_steps=6) for seed in (0, 0, 1)
    )
    for trainer in (one, two, other):
        trainer.run()
    assert_same(weights(one), weights(two))
    assert one.history == two.history != other.history


@pytest.mark.parametrize("learning_rate", (1e-3, 1e4))
def test_never_worse_than_the_start(
    library, sensors, learning_rate, make_trainer, network
):
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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch and Python
@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_compiled_training_is_the_same(library, sensors, make_trainer, monkeypatch):
    """The same losses as the plain one, but for rounding; only updates are compiled."""
    compiled, compile_ = [], torch.compile

    def counted(function):
        fused = compile_(function)
        return lambda *args: compiled.append(1) or fused(*args)

    monkeypatch.setattr(torch, "compile", counted)
    one = make_trainer(library, sensors, n_steps=10, compiled=True)
    two = make_trainer(library, sensors, n_steps=10)
    for trainer in (one, two):
        trainer.run()
    assert len(compiled) == 10
    losses = [[loss for _, loss in trainer.history] for trainer in (one, two)]
    assert losses[0][-1] < 0.999 * losses[0][0]  # it has learned something
    assert_allclose(*losses, rtol=1e-3)


def test_patience(library, sensors, make_trainer):
    """It stops after so many validations without progress."""
    trainer = make_trainer(library, sensors, learning_rate=1e-30, patience=3)
    trainer.run()
    assert [step for step, _ in trainer.history] == [0, 5, 10, 15]


def test_learning_rate_rises_and_falls(library, sensors, make_trainer):
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


def test_validation_and_training_share_nothing(library, sensors, make_trainer):
    """Waveforms of validation samples are never drawn in training."""
    trainer = make_trainer(library, sensors)
    drawn = trainer.batches.simulator.waveforms
    parts = library.split(0.1, trainer.options.seed)
    assert_array_equal(drawn.numpy(), parts[0].waveforms)
    assert_array_equal(trainer.batches.simulator.patches.numpy(), parts[0].patches)
    kept = {tuple(wave) for wave in parts[1].waveforms}
    assert kept and not kept & {tuple(wave) for wave in drawn.numpy()}


def test_sensors_encoder_trains(library, sensors, make_trainer):
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


def test_resumed_training_is_as_if_never_stopped(
    library, sensors, tmp_path, make_trainer, network
):
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


def test_finished_training_is_not_repeated(
    library, sensors, tmp_path, make_trainer, network
):
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
def test_checkpoint_of_other_options(library, sensors, tmp_path, other, make_trainer):
    fname = tmp_path / "checkpoint.pt"
    make_trainer(library, sensors, checkpoint=fname, n_steps=2).run()
    with pytest.raises(ValueError, match="checkpoint.pt was written with other train"):
        make_trainer(library, sensors, checkpoint=fname, n_steps=2, **other)


def test_checkpoint_of_another_network(library, sensors, tmp_path, make_trainer):
    fname = tmp_path / "checkpoint.pt"
    make_trainer(library, sensors, checkpoint=fname, n_steps=2).run()
    n_parcels = len(library.background)
    other = make_network("compact", N_KERNELS * n_parcels, n_parcels, 32, width=7)
    with pytest.raises(ValueError, match="checkpoint.pt belongs to another training"):
        make_trainer(library, sensors, other, checkpoint=fname, n_steps=2)


def test_ctrl_c_keeps_the_best_weights(library, sensors, tmp_path, make_trainer):
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


def test_the_caller_is_left_alone(library, sensors, make_trainer):
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


def test_training_flushes_denormal_numbers(library, sensors, make_trainer):
    """An LSTM's fading gradients become denormal, which slows training 40 times."""
    seen = []
    tiny = torch.full((1000,), 1e-40)
    make_trainer(
        library, sensors, n_steps=1, callback=lambda _: seen.append((tiny * 1).any())
    ).run()
    assert seen == [False]


# --------------------------------------------------------------- device, precision


def test_half_precision_is_for_products_only(library, sensors, make_trainer, network):
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
def test_training_on_a_gpu(library, sensors, make_trainer):
    """The same path; the network comes back to the CPU."""
    trainer = make_trainer(library, sensors, device="cuda")
    trainer.run()
    assert trainer.best_loss < trainer.history[0][1]
    assert {p.device.type for p in trainer.network.parameters()} == {"cpu"}


# --------------------------------------------------------------- bad input


@pytest.mark.parametrize("name", ("n_steps", "batch_size", "n_uses", "validate_every"))
def test_counts(name):
    with pytest.raises(ValueError, match=f"{name} must be 1 or more, got 0"):
        TrainingOptions(**{name: 0})


def test_a_part_of_a_subject_is_kept_for_validation(library, make_trainer, monkeypatch):
    """Else a network that learns truths and patches by heart seems to learn."""
    given = []

    def make_batches(trainer, library, leadfields, seed):
        given.append(leadfields)
        if len(given) == 2:
            raise KilledError
        return [None]  # has a length

    personal = PersonalLeadfield(None, None)
    monkeypatch.setattr(PersonalLeadfield, "split", lambda self: ("train", "other"))
    monkeypatch.setattr(Trainer, "_make_batches", make_batches)
    with pytest.raises(KilledError):
        make_trainer(library, personal)
    assert given == ["train", "other"]

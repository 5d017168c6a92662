"""Training: loss, loop, device, precision, checkpoints (torch and NumPy only).

``python -m mne_deepsif.training INPUT.npz OUTPUT_FOLDER`` trains on any machine that
has torch and NumPy; :func:`save_training_set` writes the input.
"""

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from .network import (
    N_KERNELS,
    backprojection_kernels,
    encode,
    make_network,
    principal_components,
)
from .simulation import Library, Simulator


@dataclass(frozen=True)
class Sensors:
    """One leadfield to train on.

    Parameters
    ----------
    gain : array of shape (n_channels, n_parcels)
        Leadfield in units of each channel's noise.
    whitener : array of shape (rank, n_channels) | None
        Whitener of data in those units; None for ``encoder="sensors"``.
    """

    gain: np.ndarray
    whitener: np.ndarray | None = None


@dataclass
class TrainingOptions:
    """How to train.

    Parameters
    ----------
    n_steps : int
        Number of updates; the learning rate falls to zero along a cosine over them.
    batch_size : int
        Samples per update.
    n_sensors : int
        Number of leadfields for each batch that is drawn.
    n_uses : int
        How often a sample is used: so many batches are drawn at once, from as many
        times ``n_sensors`` leadfields, and that often shuffled into batches anew.
    learning_rate : float
        Largest learning rate, reached after ``n_warmup`` updates.
    n_warmup : int
        Updates over which the learning rate rises.
    weight_decay : float
        Decoupled weight decay of AdamW.
    n_times : int
        Length of a training window in samples.
    n_validation : int
        Samples in the validation set.
    validate_every : int
        Updates between validations (and checkpoints).
    patience : int | None
        Stop after so many validations without a better loss; None: never.
    precision : "auto" | "bfloat16" | "float32"
        Precision of the matrix products; ``"auto"`` is bfloat16 where it is fast.
    seed : int
        Seed of batches and validation set.
    """

    n_steps: int = 10_000
    batch_size: int = 256
    n_sensors: int = 8
    n_uses: int = 2
    learning_rate: float = 1e-3
    n_warmup: int = 200
    weight_decay: float = 1e-6
    n_times: int = 64
    n_validation: int = 512
    validate_every: int = 500
    patience: int | None = None
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self):
        """Refuse counts below 1."""
        for name in _COUNTS:
            if (found := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be 1 or more, got {found}.")


_COUNTS = (
    "n_steps",
    "batch_size",
    "n_sensors",
    "n_uses",
    "n_times",
    "n_validation",
    "validate_every",
)
N_SOURCES = {0: 0.05, 1: 0.30, 2: 0.35, 3: 0.20, 4: 0.10}
# dB. Wider than in the papers (10 to 20 and 5 to 20): averages of few trials are worse,
# whitened noise has as many dimensions as there are channels, and the papers' 20 dB at
# 500 Hz are 29 dB when pooled to 125 Hz at halved noise power.
BACKGROUND_SNR = (2.0, 20.0)
SENSOR_SNR = (-5.0, 30.0)


def resolve_device(device="auto"):
    """Return the name of the torch device to use: CUDA if there is one."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def resolve_precision(precision, device):
    """Return the torch dtype for matrix products on a device."""
    if precision == "auto":
        if device == "cpu":
            fast = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
        else:
            fast = device.startswith("cuda") and torch.cuda.is_bf16_supported()
        precision = "bfloat16" if fast else "float32"
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[precision]


def relative_error(estimate, target, power):
    """Power of the error over that of the sources (1 = nothing explained).

    Parameters
    ----------
    estimate, target : tensor of shape (n_batch, n_times, n_parcels)
        Activity at all times, or its projection on orthonormal time courses.
    power : tensor of shape (n_batch,)
        Power of the sources, what the time courses do not hold included.
    """
    power = power.sum()
    error = (estimate.float() - target).square().sum()
    return (error + (power - target.square().sum())) / power.clamp_min(1e-12)


class _Batches:
    """Draws network inputs and targets from a simulator over several leadfields."""

    def __init__(self, simulator, sensors, n_components, device):
        self.simulator, self.n_components = simulator, n_components
        self.gains, self.whiteners, self.kernels, self.ongoing = [], [], [], []
        background = simulator.background.float()
        for one in sensors:
            gain = torch.as_tensor(one.gain, device=device).float()
            gain = gain / gain.square().mean().sqrt()
            self.gains.append(gain)
            # projected once: a window is then a few rows of a small array
            self.ongoing.append((background @ gain.T).half())
            self.whiteners.append(None)
            self.kernels.append(None)
            if one.whitener is not None:
                whitener = torch.as_tensor(one.whitener, device=device).float()
                self.whiteners[-1] = whitener
                self.kernels[-1] = backprojection_kernels(whitener @ gain)

    def __len__(self):
        return len(self.gains)

    def draw(self, which, n_batch):
        """Return input, target and its power over leadfields ``which``.

        Input and target are (n_batch, n_times, ...), the power (n_batch,). With a
        whitener, principal components stand for the times, and each sample's sources
        have the power ``n_parcels``; without, the sources' largest absolute value is 1,
        as published.
        """
        bounds = np.linspace(0, n_batch, len(which) + 1).astype(int)
        parts = [
            self._draw(index, size)
            for index, size in zip(which, np.diff(bounds).tolist(), strict=True)
        ]
        return [torch.cat(part) for part in zip(*parts, strict=True)]

    def _draw(self, index, n_batch):
        simulator, gain = self.simulator, self.gains[index]
        weights, waves, chosen, peak_power = simulator.draw_sources(n_batch)
        ongoing = simulator.draw_windows(self.ongoing[index], n_batch)
        data, waves = simulator.superpose(
            gain, weights, waves, ongoing, chosen, peak_power
        )
        if self.whiteners[index] is None:
            Y = waves.mT @ weights
            peak = Y.abs().amax((1, 2), keepdim=True)
            Y = Y / torch.where(peak > 0, peak, 1.0)
            return encode(data), Y, Y.square().sum((1, 2))
        products = (weights @ weights.mT) * (waves @ waves.mT)
        size = products.sum((1, 2)).clamp_min(0).sqrt() / weights.shape[2] ** 0.5
        active = size > 0
        waves = waves / torch.where(active, size, 1.0)[:, None, None]
        patterns, courses = principal_components(
            self.whiteners[index] @ data, self.n_components, exact=False
        )
        Y = (waves @ courses.mT).mT @ weights
        return encode(patterns, self.kernels[index]), Y, active * float(Y.shape[2])


def _set_threads(n_threads):
    """Prepare a thread in which torch works."""
    torch.set_flush_denormal(True)
    torch.set_num_threads(n_threads)


class Trainer:
    """Trains a network on simulated batches.

    Parameters
    ----------
    network : torch.nn.Module
        Maps (n_batch, n_times, n_features) to (n_batch, n_times, n_parcels); trained
        in place and left with the best weights.
    library : Library
        What batches are drawn from; a part of it is kept for validation.
    sensors : list of Sensors
        Leadfields to train on.
    options : TrainingOptions
        How to train.
    device : str
        Where to train.
    validation_sensors : list of Sensors | None
        Leadfields of the validation set; those of the training if None.
    checkpoint : path-like | None
        File to write the state to at each validation, and to go on from if it exists.
    callback : callable | None
        Called after each update with the trainer.
    compiled : bool
        Fuse the network's small operations with :func:`torch.compile`, which needs a
        C++ compiler: worth it for training that takes more than some minutes.
    """

    def __init__(
        self,
        network,
        library,
        sensors,
        options,
        *,
        device="cpu",
        validation_sensors=None,
        checkpoint=None,
        callback=None,
        compiled=False,
    ):
        self.options, self.device = options, device
        self.network = network.to(device)
        self._loss = torch.compile(self._error) if compiled else self._error
        self.callback = callback
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.dtype = resolve_precision(options.precision, device)
        self._stop = threading.Event()
        train_library, validation_library = library.split(0.1, options.seed)
        simulator = {
            "n_sources": N_SOURCES,
            "background_snr": BACKGROUND_SNR,
            "sensor_snr": SENSOR_SNR,
            "device": device,
        }
        self.simulator = Simulator(
            train_library, options.n_times, seed=options.seed, **simulator
        )
        self.n_components = network.sizes.get("n_components")
        self.batches = _Batches(self.simulator, sensors, self.n_components, device)
        self.validation = self._draw_validation(
            Simulator(
                validation_library, options.n_times, seed=options.seed + 1, **simulator
            ),
            validation_sensors or sensors,
        )
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=options.learning_rate,
            weight_decay=options.weight_decay,
            betas=(0.9, 0.98),
            fused=True,
        )
        self.rng = np.random.default_rng(options.seed)
        self.step, self.best_loss, self.n_bad = 0, np.inf, 0
        self.best_state, self.history = None, []
        self.pool, self.pool_origin = [], None
        self._generator, self._coming = None, None  # a thread, and the pool it draws
        self.seconds = {"generation": 0.0, "network": 0.0}
        if self.checkpoint is not None and self.checkpoint.exists():
            self._load_checkpoint()

    def run(self):
        """Train until done, stopped or interrupted; keep the best weights.

        Returns
        -------
        interrupted : bool
            Whether Ctrl-C cut the training short.
        """
        # A thread of its own: denormal numbers are flushed per thread, and the worker
        # threads that torch starts from it inherit the setting; the caller keeps his.
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(self._run)
            try:
                while not future.done():
                    time.sleep(0.05)
                interrupted = False
            except KeyboardInterrupt:
                self._stop.set()
                interrupted = True
            future.result()
        return interrupted

    def _run(self):
        torch.set_flush_denormal(True)
        if self.device != "cpu":  # its work is queued behind the network's anyway
            return self._loop()
        n_threads = torch.get_num_threads()
        share = max(1, n_threads // 3)
        try:
            with ThreadPoolExecutor(1, "", _set_threads, (share,)) as generator:
                self._generator = generator
                self._loop()
        finally:
            self._generator = None
            torch.set_num_threads(n_threads)  # the default of threads to come

    def _loop(self):
        if self.best_state is None:
            self._validate()
        while self.step < self.options.n_steps and not self._stop.is_set():
            self._train_step()
            if self.callback is not None:
                self.callback(self)
            last = self.step == self.options.n_steps
            if self.step % self.options.validate_every == 0 or last:
                self._validate_and_save()
                patience = self.options.patience
                if patience is not None and self.n_bad >= patience:
                    break
        if self.history[-1][0] < self.step:  # stopped in between
            self._validate_and_save()
        self.network.load_state_dict(self.best_state)
        self.network.eval().cpu()

    def _learning_rate(self):
        options = self.options
        warmup = min(1.0, (self.step + 1) / options.n_warmup)
        cosine = 0.5 * (1 + np.cos(np.pi * self.step / options.n_steps))
        return float(options.learning_rate * warmup * cosine)

    def _train_step(self):
        start = time.perf_counter()
        X, Y, power = self._next_batch()
        middle = time.perf_counter()
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.network.train()
        loss = self._loss(X, Y, power)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        self.loss = loss.detach()
        self.seconds["generation"] += middle - start
        self.seconds["network"] += time.perf_counter() - middle

    def _next_batch(self):
        """Return the next batch of a pool, whose samples are used ``n_uses`` times."""
        if not self.pool:
            self.pool_origin, drawn, parts = self._take_pool()
            # those before have been used when a training goes on from a checkpoint
            self.pool = [(drawn, part) for part in parts[self.step % len(parts) :]]
        drawn, part = self.pool.pop(0)
        return [tensor[part] for tensor in drawn]

    def _take_pool(self):
        """Return a pool; where a thread is there for it, have the next one drawn."""
        pool = self._draw_pool() if self._coming is None else self._coming.result()
        self._coming = None
        if self._generator is not None:
            self._coming = self._generator.submit(self._draw_pool)
        return pool

    def _draw_pool(self):
        """Draw a pool: random state before, samples, indices of each batch."""
        options, origin = self.options, self._random_state()
        n_samples = options.n_uses * options.batch_size
        most = options.n_uses * options.n_sensors
        n_sensors = min(most, len(self.batches), n_samples)
        which = self.rng.choice(len(self.batches), n_sensors, replace=False)
        drawn = self.batches.draw(which, n_samples)
        orders = [self.rng.permutation(n_samples) for _ in range(options.n_uses)]
        # n_uses batches, each of them n_uses times
        parts = np.concatenate(orders).reshape(-1, options.batch_size)
        return origin, drawn, torch.as_tensor(parts, device=self.device)

    def _next_origin(self):
        """Return the random state before the pool that the next batch is from."""
        if self.pool:
            return self.pool_origin
        if self._coming is not None:
            return self._coming.result()[0]
        return self._random_state()

    def _random_state(self):
        return {
            "generator": self.simulator.generator.get_state(),
            "rng": json.dumps(self.rng.bit_generator.state),
        }

    def _error(self, X, Y, power):
        with torch.autocast(
            torch.device(self.device).type,
            dtype=torch.bfloat16,
            enabled=self.dtype is torch.bfloat16,
        ):
            estimate = self.network(X)
        return relative_error(estimate, Y, power)

    def _draw_validation(self, simulator, sensors):
        batches = _Batches(simulator, sensors, self.n_components, self.device)
        n_each = max(1, self.options.n_validation // len(batches))
        return [batches.draw([index], n_each) for index in range(len(batches))]

    def _validate(self):
        self.network.eval()
        with torch.inference_mode():
            losses = [
                float(self._error(X, Y, power)) for X, Y, power in self.validation
            ]
        loss = float(np.mean(losses))
        self.history.append((self.step, loss))
        self.n_bad += 1
        if loss < self.best_loss or self.best_state is None:
            self.best_loss, self.n_bad = loss, 0
            state = self.network.state_dict()
            self.best_state = {k: v.detach().clone() for k, v in state.items()}

    def _validate_and_save(self):
        self._validate()
        if self.checkpoint is not None:
            self._save_checkpoint()

    def _save_checkpoint(self):
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best_state": self.best_state,
            "best_loss": self.best_loss,
            "n_bad": self.n_bad,
            "step": self.step,
            "history": self.history,
            "seconds": self.seconds,
            "options": asdict(self.options),
            **self._next_origin(),  # that pool is drawn again
        }
        part = self.checkpoint.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, self.checkpoint)

    def _load_checkpoint(self):
        state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        if state["options"] != asdict(self.options):
            raise ValueError(
                f"The checkpoint {self.checkpoint} was written with other training "
                f"options ({state['options']}); use them again, or another file."
            )
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.simulator.generator.set_state(state["generator"])
        self.rng.bit_generator.state = json.loads(state["rng"])
        names = ("best_state", "best_loss", "n_bad", "step", "history", "seconds")
        for name in names:
            setattr(self, name, state[name])


def save_training_set(fname, library, sensors, validation_sensors=()):
    """Write everything that training reads into one ``.npz`` file.

    Parameters
    ----------
    fname : path-like
        File to write; gains and background are stored in half precision.
    library : Library
        See :class:`~mne_deepsif.simulation.Library`.
    sensors, validation_sensors : list of Sensors
        Leadfields for training and for validation.
    """
    arrays = {f"library_{name}": value for name, value in library.asdict().items()}
    for kind, group in (("train", sensors), ("validation", validation_sensors)):
        for index, one in enumerate(group):
            scale = np.sqrt(np.mean(np.square(one.gain)))
            gain = np.asarray(one.gain / scale, np.float16)
            arrays[f"{kind}_{index:04d}_gain"] = gain
            if one.whitener is not None:
                arrays[f"{kind}_{index:04d}_whitener"] = np.float32(one.whitener)
    np.savez(fname, **arrays)


def read_training_set(fname):
    """Read what :func:`save_training_set` wrote.

    Returns
    -------
    library : Library
        The library.
    sensors, validation_sensors : list of Sensors
        The leadfields.
    """
    with np.load(fname) as arrays:
        library = {
            name.removeprefix("library_"): arrays[name]
            for name in arrays
            if name.startswith("library_")
        }
        library["sfreq"] = float(library["sfreq"])
        groups = {
            kind: [
                Sensors(arrays[name], arrays.get(name.replace("gain", "whitener")))
                for name in sorted(arrays)
                if name.startswith(kind) and name.endswith("gain")
            ]
            for kind in ("train", "validation")
        }
    return Library(**library), groups["train"], groups["validation"]


def main(arguments=None):
    """Train from the command line; see ``--help``."""
    import argparse

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("input", help="file written by save_training_set")
    parser.add_argument("output", type=Path, help="folder for checkpoint and weights")
    parser.add_argument("--steps", type=int, default=TrainingOptions.n_steps)
    parser.add_argument("--batch-size", type=int, default=TrainingOptions.batch_size)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--gate-width", type=int, default=512)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--components", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--start", help="weights.pt of an earlier training")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true", help="needs a C++ compiler")
    args = parser.parse_args(arguments)
    args.output.mkdir(parents=True, exist_ok=True)
    library, sensors, validation_sensors = read_training_set(args.input)
    n_parcels = len(library.background)
    options = TrainingOptions(
        n_steps=args.steps, batch_size=args.batch_size, learning_rate=args.learning_rate
    )
    network = make_network(
        "compact",
        N_KERNELS * n_parcels,
        n_parcels,
        options.n_times,
        width=args.width,
        gate_width=args.gate_width,
        n_blocks=args.blocks,
        n_components=args.components,
    )
    if args.start:
        network.load_state_dict(torch.load(args.start, weights_only=True))
    trainer = Trainer(
        network,
        library,
        sensors,
        options,
        device=resolve_device(args.device),
        validation_sensors=validation_sensors,
        checkpoint=args.output / "checkpoint.pt",
        callback=_Log(args.output / "log.jsonl"),
        compiled=args.compile,
    )
    trainer.run()
    torch.save(trainer.network.state_dict(), args.output / "weights.pt")
    (args.output / "history.json").write_text(
        json.dumps(
            {
                "history": trainer.history,
                "seconds": trainer.seconds,
                "options": asdict(options),
                "sizes": network.sizes,
            },
            indent=1,
        )
    )


class _Log:
    """Writes a line every 50 updates."""

    def __init__(self, fname):
        self.fname = fname
        self.start = time.perf_counter()

    def __call__(self, trainer):
        if trainer.step % 50:
            return
        line = {
            "step": trainer.step,
            "loss": round(float(trainer.loss), 4),
            "validation": trainer.history[-1],
            "wall": round(time.perf_counter() - self.start, 1),
            **{name: round(value, 1) for name, value in trainer.seconds.items()},
        }
        with open(self.fname, "a") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()

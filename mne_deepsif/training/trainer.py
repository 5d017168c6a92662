"""The training loop: options, loss, updates, validation, checkpoints."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from ..cache import whole_file
from ..network.device import resolve_precision
from ..simulation.simulator import Simulator
from .batches import Batches, BatchStream
from .cortical import CorticalBatches, PersonalLeadfield


@dataclass
class TrainingOptions:
    """How to train.

    Parameters
    ----------
    n_steps : int
        Number of updates; the learning rate falls to zero along a cosine over them.
    batch_size : int
        Samples per update.
    n_leadfields : int
        Number of leadfields that a batch is drawn from.
    n_uses : int
        How often each sample is used. With 2, two batches are drawn at once, from twice
        as many leadfields, and shuffled into four batches.
    learning_rate : float
        Largest learning rate, reached after ``n_warmup`` updates.
    n_warmup : int
        Updates over which the learning rate rises.
    weight_decay : float
        Decoupled weight decay of AdamW.
    n_times : int
        Length of a training window in samples.
    n_sources : dict
        Probability of each number of sources in a sample.
    background_snr : tuple of float
        Range of the ratio of each source to the background activity (dB).
    sensor_snr : tuple of float
        Range of the ratio of signal to sensor noise (dB).
    n_validation : int
        Samples in the validation set.
    validate_every : int
        Updates between validations (and checkpoints).
    patience : int | None
        Stop after this many validations without a better loss. None never stops early.
    precision : "auto" | "bfloat16" | "float32"
        Precision of the matrix products. ``"auto"`` is bfloat16 where it is fast.
    seed : int
        Seed of batches and validation set.
    """

    n_steps: int = 10_000
    batch_size: int = 256
    n_leadfields: int = 8
    n_uses: int = 2
    learning_rate: float = 1e-3
    n_warmup: int = 200
    weight_decay: float = 1e-6
    n_times: int = 64
    # Both SNR ranges are wider than in the papers (10 to 20 and 5 to 20). Averages of
    # few trials are worse. Whitened noise has as many dimensions as there are channels.
    # The papers' 20 dB at 500 Hz are 29 dB if pooled to 125 Hz with halved noise power.
    n_sources: dict = field(
        default_factory=lambda: {0: 0.05, 1: 0.30, 2: 0.35, 3: 0.20, 4: 0.10}
    )
    background_snr: tuple = (2.0, 20.0)
    sensor_snr: tuple = (-5.0, 30.0)
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
    "n_leadfields",
    "n_uses",
    "n_times",
    "n_validation",
    "validate_every",
)


def relative_error(estimate, target, power):
    """Divide the power of the error by that of the sources (1 = nothing explained).

    Parameters
    ----------
    estimate, target : tensor of shape (n_batch, n_times, n_parcels)
        Activity at all times, or its projection on orthonormal time courses.
    power : tensor of shape (n_batch,)
        Power of the sources, including what the time courses do not hold.
    """
    power = power.sum()
    error = (estimate.float() - target).square().sum()
    return (error + (power - target.square().sum())) / power.clamp_min(1e-12)


def _set_threads(n_threads):
    """Prepare a thread in which torch works."""
    torch.set_flush_denormal(True)
    torch.set_num_threads(n_threads)


def load_optimizer():
    """Make torch load what its first optimizer needs (torch._dynamo): some seconds."""
    torch.optim.AdamW([torch.zeros(1)])


class Trainer:
    """Trains a network on simulated batches.

    Parameters
    ----------
    network : torch.nn.Module
        Maps (n_batch, n_times, n_features) to (n_batch, n_times, n_parcels); trained
        in place and left with the best weights.
    library : Library
        Source of the batches. A part of it is kept for validation.
    leadfields : list of TrainingLeadfield | PersonalLeadfield
        Leadfields to train on. With a personal one, the loss is that of the estimate,
        through the last step, and the mixture of sources is that of
        :class:`CorticalBatches`, not of the options. Start from trained weights then.
    options : TrainingOptions
        How to train.
    device : str
        Where to train.
    validation_leadfields : list of TrainingLeadfield | PersonalLeadfield | None
        Leadfields of the validation set. None takes those of the training; of a
        personal one, a quarter of what makes data is kept for validation.
    checkpoint : path-like | None
        File for the state, written at each validation. If it exists, training resumes
        from it.
    callback : callable | None
        Called after each update with the trainer.
    compiled : bool
        Fuse the network's small operations with :func:`torch.compile`. This needs a C++
        compiler, and pays off if training takes more than a few minutes.
    """

    def __init__(
        self,
        network,
        library,
        leadfields,
        options,
        *,
        device="cpu",
        validation_leadfields=None,
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
        if isinstance(leadfields, PersonalLeadfield) and validation_leadfields is None:
            leadfields, validation_leadfields = leadfields.split()
        train_library, validation_library = library.split(0.1, options.seed)
        self.batches = self._make_batches(train_library, leadfields, options.seed)
        self.stream = BatchStream(
            self.batches,
            batch_size=options.batch_size,
            n_leadfields=options.n_leadfields,
            n_uses=options.n_uses,
            seed=options.seed,
        )
        self.validation_batches = self._make_batches(
            validation_library, validation_leadfields or leadfields, options.seed + 1
        )
        self.validation = self._draw_validation()
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=options.learning_rate,
            weight_decay=options.weight_decay,
            betas=(0.9, 0.98),
            fused=True,
        )
        self.step, self.best_loss, self.n_bad = 0, np.inf, 0
        self.best_state, self.history = None, []
        self.seconds = {"generation": 0.0, "network": 0.0}
        if self.checkpoint is not None and self.checkpoint.exists():
            self._load_checkpoint()

    def _make_batches(self, library, leadfields, seed):
        """Return what draws samples of a library."""
        n_components = self.network.sizes.get("n_components")
        if isinstance(leadfields, PersonalLeadfield):
            return CorticalBatches(
                library, *leadfields, self.options.n_times, n_components, seed
            )
        options = self.options
        simulator = Simulator(
            library,
            options.n_times,
            n_sources=options.n_sources,
            background_snr=options.background_snr,
            sensor_snr=options.sensor_snr,
            device=self.device,
            seed=seed,
        )
        return Batches(simulator, leadfields, n_components, self.device)

    def run(self):
        """Train until done, stopped or interrupted; keep the best weights.

        Returns
        -------
        interrupted : bool
            Whether Ctrl-C cut the training short.
        """
        # Train in a separate thread. Denormal numbers are flushed per thread, and the
        # worker threads of torch inherit this. The caller's thread keeps its setting.
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
        on_gpu = self.device != "cpu" and isinstance(self.batches, Batches)
        if on_gpu:  # it queues this behind the network's work anyway
            return self._loop()
        n_threads = torch.get_num_threads()
        share = max(1, n_threads // 3)
        try:
            with self.stream.drawing_ahead(_set_threads, share):
                self._loop()
        finally:
            torch.set_num_threads(n_threads)  # the default of later threads

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
        batch = self.stream.take()
        middle = time.perf_counter()
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.network.train()
        loss = self._loss(self.batches, *batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        self.loss = loss.detach()
        self.seconds["generation"] += middle - start
        self.seconds["network"] += time.perf_counter() - middle

    def _error(self, batches, X, *truth):
        with torch.autocast(
            torch.device(self.device).type,
            dtype=torch.bfloat16,
            enabled=self.dtype is torch.bfloat16,
        ):
            answer = self.network(X.to(self.device))
        if isinstance(batches, CorticalBatches):
            return batches.error(answer, *truth)
        return relative_error(answer, *truth)

    def _draw_validation(self):
        batches = self.validation_batches
        n_each = max(1, self.options.n_validation // len(batches))
        return [batches.draw([index], n_each) for index in range(len(batches))]

    def _validate(self):
        self.network.eval()
        with torch.inference_mode():
            losses = [
                float(self._error(self.validation_batches, *batch))
                for batch in self.validation
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
            "task": self._task(),
            **self.stream.state(),
        }
        with whole_file(self.checkpoint) as part:
            torch.save(state, part)

    def _task(self):
        """Say which loss is that of which network: others cannot be compared."""
        loss = "estimate" if isinstance(self.batches, CorticalBatches) else "answer"
        return {"loss": loss, "sizes": self.network.sizes}

    def _load_checkpoint(self):
        state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        if state["options"] != asdict(self.options):
            raise ValueError(
                f"The checkpoint {self.checkpoint} was written with other training "
                f"options ({state['options']}). Use these again, or another file."
            )
        if state.get("task") != self._task():
            raise ValueError(
                f"The checkpoint {self.checkpoint} belongs to another training: "
                f"{state.get('task')}, now {self._task()}. Use another file."
            )
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        names = ("best_state", "best_loss", "n_bad", "step", "history", "seconds")
        for name in names:
            setattr(self, name, state[name])
        self.stream.restore(state, self.step)

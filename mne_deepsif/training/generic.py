"""Training of generic weights through the last step, on CPUs or GPUs.

Several processes, started by ``torchrun``, share the leadfields of an update.
(torch and NumPy only)
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import copy
import hashlib
import json
import time
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from torch.utils.flop_counter import FlopCounterMode

from ..cache import whole_file
from ..network.architectures import make_network
from ..network.device import resolve_precision
from ..network.encoder import N_KERNELS, encode_windows
from .cortical import draw_samples, estimation_loss, window_lengths
from .heads import draw_leadfield, draw_patches

SFREQ, N_TIMES = 125.0, 64  # of the network
SIZES = {"share_width": 64, "scan_width": 128}
_VALIDATION_SEED = 99
_VALIDATION_KINDS = ("eeg", "mag", "eeg", "both")
_PART_SIZE = 14 * 2**20  # bytes of a file of weights, at most
_TESTED = {"cpu": 1024, "cuda": 8192}  # size of the product that tells a device's rate


@dataclass(frozen=True)
class Options:
    """How to train.

    Parameters
    ----------
    minutes : float
        Time; the learning rate falls to zero along a cosine over it. Processor time on
        a CPU, which others may use, and time on the clock on a GPU.
    learning_rate : float
        Largest learning rate, reached after ``n_warmup`` updates.
    seed : int
        Seed of leadfields and samples.
    batch_size : int
        Samples of each leadfield in an update.
    n_leadfields : int
        Leadfields of an update.
    n_pool : int
        The latest leadfields, from which those of an update are chosen, so that not
        each update has to draw some.
    draw_every : int
        Updates after which a new leadfield replaces the oldest of the pool.
    n_patches : int
        Patches of each head.
    n_warmup : int
        Updates over which the learning rate rises.
    n_validation : int
        Samples of each leadfield in a validation.
    save_every : int
        Updates between validations (and checkpoints).
    n_updates : int | None
        Stop after so many updates; None stops by time alone.
    """

    minutes: float = 66.0
    learning_rate: float = 5e-4
    seed: int = 0
    batch_size: int = 24
    n_leadfields: int = 4
    n_pool: int = 24
    draw_every: int = 4
    n_patches: int = 3000
    n_warmup: int = 200
    n_validation: int = 64
    save_every: int = 100
    n_updates: int | None = None


def start_network(n_parcels, state=None):
    """Return a network to train.

    Parameters
    ----------
    n_parcels : int
        Number of parcels.
    state : dict of tensor | None
        Weights of an earlier network. Layers that it lacks start untrained, but no
        layer of it may be unknown.

    Returns
    -------
    network : Module
        The network.
    """
    network = make_network(
        "compact", N_KERNELS * n_parcels, n_parcels, N_TIMES, **SIZES
    )
    # where all is zero, the power that the last step reads has no slope
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network.readout.reset_parameters()
    if state is None:
        return network.train()
    found = network.load_state_dict(state, strict=False)
    if found.unexpected_keys or len(found.missing_keys) == len(network.state_dict()):
        raise ValueError(
            f"The weights to start from are those of another network: it has "
            f"{sorted(state)[:3]} ..., this one {sorted(network.state_dict())[:3]} ..."
        )
    return network.train()


def fingerprint(state):
    """Return a hash of weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(name.encode() + tensor.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def matmul_rate(device, dtype):
    """Return the rate of large matrix products (operations per second)."""
    size = _TESTED[torch.device(device).type]
    one, other = torch.randn(2, size, size, device=device).to(dtype)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        _ = float((one @ other)[0, 0])  # waits for it
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / np.median(seconds[1:])


def processes():
    """Return the number of this process, and how many train together."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


class GenericTraining:
    """Trains a network; leadfields and samples are drawn while it does.

    All that an update draws follows from the seed and its number. So a training that
    was stopped goes on as if it had not been; only the learning rate follows the clock.

    Parameters
    ----------
    out : Path
        Folder for checkpoint, log and weights.
    cortex : Cortex
        What is the same for all heads.
    heads : dict of Head
        The heads by their number.
    n_smoothings : dict of int
        For each head, the steps after which activity is as smooth as estimates are.
    held_out : int
        The head to validate on. If it is the only one, training sees it too.
    options : Options
        How to train.
    source : str
        What the heads came from: a hash. A checkpoint of another source is refused.
    device : str
        Where to train: "cpu", "cuda", or "cuda:1" and so on.
    start : dict | None
        Weights to start from.
    log : callable
        Called with a line of text at each validation.

    Notes
    -----
    If torch's process group is initialised, each of its processes takes its share of
    the leadfields of an update. The gradients are averaged, so the weights are those of
    a single process up to rounding. The first process writes files.
    """

    def __init__(
        self,
        out,
        cortex,
        heads,
        n_smoothings,
        held_out,
        options,
        *,
        source="",
        device="cpu",
        start=None,
        log=print,
    ):
        self.out, self.options, self.device, self.log = out, options, device, log
        self.cortex, self.heads = cortex, heads
        if held_out not in heads:
            raise ValueError(
                f"The head to validate on must be in the bundle, one of "
                f"{sorted(heads)}, got {held_out}."
            )
        self.process, self.n_processes = processes()
        if options.n_leadfields % self.n_processes:
            raise ValueError(
                f"n_leadfields must be a multiple of the {self.n_processes} processes, "
                f"got {options.n_leadfields}."
            )
        self.patches = {
            number: draw_patches(
                head,
                cortex,
                n_smoothings[number],
                options.n_patches,
                np.random.default_rng(number),
            )
            for number, head in heads.items()
        }
        self.head_numbers = sorted(heads.keys() - {held_out}) or [held_out]
        self.device_type = torch.device(device).type
        self.dtype = resolve_precision("auto", device)
        self.network = start_network(len(cortex.parcel_areas), start).to(device)
        self.learner = self.network
        if self.n_processes > 1:
            self.learner = DistributedDataParallel(self.network)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=options.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=1e-6,
            fused=True,
        )
        rng = np.random.default_rng(_VALIDATION_SEED)
        generator = self._generator(_VALIDATION_SEED)
        self.validation = [
            self._draw_of(held_out, rng, generator, kind) for kind in _VALIDATION_KINDS
        ]
        self.pool, self.update, self.seconds, self.losses = {}, 0, 0.0, []
        self.n_skipped, self.history = 0, []
        self.recipe = {
            "command": "python -m mne_deepsif.training",
            "bundle": source,
            "start": None if start is None else fingerprint(start),
            "heads": {"training": self.head_numbers, "validation": [held_out]},
            "options": asdict(options),
            "device": self.device_type,
        }
        if self.checkpoint.exists():
            self._load()

    @property
    def checkpoint(self):
        """File of the state."""
        return self.out / "checkpoint.pt"

    def _generator(self, seed):
        return torch.Generator(self.device).manual_seed(seed)

    def _clock(self):
        on_cpu = self.device_type == "cpu"
        return time.process_time() if on_cpu else time.perf_counter()

    def run(self):
        """Train until the time is over; then write the weights."""
        if not self.history:
            self._validate()
        start = self._clock() - self.seconds
        while not self._is_done():
            self._train_step()
            self.seconds = self._agreed(self._clock() - start)
            if self.update % self.options.save_every == 0:
                self._validate_and_save()
        if self.history[-1]["update"] < self.update:
            self._validate_and_save()
        record = {
            "n_updates": self.update,
            "n_skipped": self.n_skipped,
            "seconds": round(self.seconds, 1),
            "history": self.history,
            "recipe": self.recipe,
        }
        if self.process == 0:
            write_weights(self.out, self.network, record)

    def _agreed(self, number):
        """Return the first process's number."""
        if self.n_processes == 1:
            return number
        shared = torch.tensor([number], dtype=torch.float64, device=self.device)
        distributed.broadcast(shared, 0)
        return float(shared)

    def _mean(self, number):
        """Return the mean over all processes."""
        if self.n_processes > 1:
            distributed.all_reduce(number)
        return number / self.n_processes

    def _is_done(self):
        return self._share_done() >= 1 or self.update == self.options.n_updates

    def _share_done(self):
        return self.seconds / (60 * self.options.minutes)

    def _train_step(self):
        options = self.options
        rate = options.learning_rate * min(1, (self.update + 1) / options.n_warmup)
        rate *= 0.5 * (1 + np.cos(np.pi * self._share_done()))
        for group in self.optimizer.param_groups:
            group["lr"] = float(rate)  # a checkpoint holds plain numbers
        # NumPy's generator chooses, torch's draw samples: one for each leadfield
        rng = np.random.default_rng([options.seed, 0, self.update])
        numbers = self._pool_numbers()
        # estimates look at whole windows and at quarters of them
        n_times = int(rng.choice(window_lengths(N_TIMES)))
        chosen = rng.choice(numbers, options.n_leadfields, replace=False)
        seeds = rng.integers(2**62, size=len(chosen))
        mine = slice(self.process, None, self.n_processes)
        losses = self._losses(
            [self._leadfield(number) for number in chosen[mine]],
            options.batch_size,
            n_times,
            [self._generator(int(seed)) for seed in seeds[mine]],
        )
        loss = torch.stack(losses).mean()
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        if torch.isfinite(norm):
            self.optimizer.step()
        else:
            self.n_skipped += 1
        self.update += 1
        self.losses.append(loss.detach())

    def _pool_numbers(self):
        """Return the latest leadfields: those of an update, then one more at each."""
        n_pool, every = self.options.n_pool, self.options.draw_every
        n_more = n_pool - self.options.n_leadfields  # updates until there are all
        last = self.options.n_leadfields - 1 + min(self.update, n_more)
        last += max(0, self.update - n_more) // every
        numbers = range(max(0, last + 1 - n_pool), last + 1)
        self.pool = {n: self.pool[n] for n in numbers if n in self.pool}
        return numbers

    def _leadfield(self, number):
        """Return a leadfield of the pool; it is drawn when it is first needed."""
        if number not in self.pool:
            self.pool[number] = self._draw_leadfield(number)
        return self.pool[number]

    def _draw_leadfield(self, number):
        rng = np.random.default_rng([self.options.seed, 1, number])
        generator = self._generator(int(rng.integers(2**62)))
        return self._draw_of(int(rng.choice(self.head_numbers)), rng, generator)

    def _draw_of(self, head, rng, generator, kind=None):
        parts = self.heads[head], self.patches[head], self.cortex
        return draw_leadfield(*parts, rng, generator, kind)

    def _losses(self, pairs, n_batch, n_times, generators):
        """Return the loss of new samples for each pair of leadfields."""
        ongoing = self.cortex.waveforms, self.cortex.background, SFREQ
        samples, encoded = [], []
        for (leadfield, truth), generator in zip(pairs, generators, strict=True):
            drawn = draw_samples(truth, *ongoing, n_batch, n_times, generator)
            samples.append(drawn)
            encoded.append(
                encode_windows(
                    drawn.data,
                    leadfield.kernels,
                    self.network.sizes["n_components"],
                    scanning=leadfield.scanning,
                    exact=False,
                )
            )
        is_short = self.dtype is torch.bfloat16
        learner = self.learner if self.network.training else self.network
        with torch.autocast(self.device_type, dtype=self.dtype, enabled=is_short):
            answers = learner(torch.cat([one.X for one in encoded]))
        return [
            estimation_loss(answer, pair[0], one.data, one.courses, drawn)
            for answer, pair, one, drawn in zip(
                answers.split(n_batch), pairs, encoded, samples, strict=True
            )
        ]

    @torch.no_grad()
    def _validate(self):
        """Add the losses of short and of long windows to the history."""
        self.network.eval()
        found = {}
        for n_times in (16, 64):
            # the same samples each time
            generators = [self._generator(7 + i) for i in range(len(self.validation))]
            losses = self._losses(
                self.validation, self.options.n_validation, n_times, generators
            )
            found[f"{n_times} samples"] = float(torch.stack(losses).mean())
        self.network.train()
        loss = None
        if self.losses:
            loss = float(self._mean(torch.stack(self.losses).mean()))
        line = {
            "update": self.update,
            "loss": loss and round(loss, 4),
            "validation": {name: round(loss, 4) for name, loss in found.items()},
            "seconds": round(self.seconds, 1),
        }
        self.losses = []
        self.history.append(line)
        if self.process == 0:
            self.log(json.dumps(line))

    def _validate_and_save(self):
        self._validate()
        if self.process:
            return
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "update": self.update,
            "seconds": self.seconds,
            "n_skipped": self.n_skipped,
            "history": self.history,
            "recipe": self.recipe,
        }
        with whole_file(self.checkpoint) as part:
            torch.save(state, part)
        lines = [json.dumps(line) + "\n" for line in self.history]
        (self.out / "log.jsonl").write_text("".join(lines))

    def _load(self):
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        if state["recipe"] != self.recipe:
            raise ValueError(
                f"The checkpoint {self.checkpoint} was written with another recipe "
                f"({state['recipe']}). Use this again, or another folder."
            )
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name in ("update", "seconds", "n_skipped", "history"):
            setattr(self, name, state[name])

    def measure(self, n_updates=10):
        """Measure the rate of training; the weights are what they were.

        Parameters
        ----------
        n_updates : int
            Over how many updates, after as many that warm up.

        Returns
        -------
        text : str
            Samples a second, and what share of the device's rate that is.
        """
        n_skipped = self.n_skipped
        before = copy.deepcopy(self.network.state_dict())
        optimizer = copy.deepcopy(self.optimizer.state_dict())
        for _ in range(n_updates):
            self._train_step()
        start = time.perf_counter()
        for _ in range(n_updates):
            self._train_step()
        float(self.losses[-1])  # waits for it
        seconds = (time.perf_counter() - start) / n_updates
        self.update -= 1  # its leadfields are there already
        with FlopCounterMode(display=False) as counter:
            self._train_step()
        n_samples = self.options.batch_size * self.options.n_leadfields
        rate = counter.get_total_flops() / seconds / 1e12
        peak = matmul_rate(self.device, self.dtype) / 1e12
        self.network.load_state_dict(before)
        self.optimizer.load_state_dict(optimizer)
        self.update, self.losses, self.n_skipped = 0, [], n_skipped
        return (
            f"{n_samples / seconds:.0f} samples a second, {1e3 * seconds:.0f} ms an "
            f"update: {rate:.2f} TFLOP/s, {rate / peak:.1%} of the device's {peak:.2f} "
            f"in large products ({self.dtype}; process 1 of {self.n_processes})"
        )


def write_weights(folder, network, record):
    """Write weights in files of at most 14 MiB, and a record of the training.

    Parameters
    ----------
    folder : Path
        Where to write.
    network : Module
        The network.
    record : dict
        What to say of it.
    """
    parts, size = [{}], 0
    for name, tensor in network.state_dict().items():
        array = tensor.cpu().numpy()
        size += array.nbytes
        if size > _PART_SIZE and parts[-1]:
            parts, size = [*parts, {}], array.nbytes
        parts[-1][name] = array
    for old in folder.glob("weights-*.npz"):
        old.unlink()
    for number, arrays in enumerate(parts):
        with whole_file(folder / f"weights-{number}.npz") as part:
            np.savez(part, **arrays)
    text = json.dumps(record | {"sizes": network.sizes}, indent=1)
    with whole_file(folder / "record.json") as part:
        part.write_text(text + "\n")


def read_weights(path):
    """Read weights to start from, or what :func:`write_weights` wrote.

    Parameters
    ----------
    path : Path
        The folder; or a model file of the package, which needs safetensors.

    Returns
    -------
    state : dict of tensor
        The weights.
    record : dict
        The record of the training; empty for a model file.
    """
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        prefix = "network."
        return {
            name.removeprefix(prefix): tensor.float()
            for name, tensor in load_file(path).items()
            if name.startswith(prefix)
        }, {}
    state = {}
    for fname in sorted(path.glob("weights-*.npz")):
        with np.load(fname) as file:
            state |= {name: torch.as_tensor(file[name]) for name in file.files}
    return state, json.loads((path / "record.json").read_text())

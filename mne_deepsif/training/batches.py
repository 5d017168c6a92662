"""Training batches: leadfields, samples, and drawing them ahead of time."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from ..network.encoder import backprojection_kernels, encode_windows


@dataclass(frozen=True)
class TrainingLeadfield:
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


class Batches:
    """Draws network inputs and targets from a simulator over several leadfields.

    Parameters
    ----------
    simulator : Simulator
        Draws sources, background and noise.
    leadfields : list of TrainingLeadfield
        The leadfields.
    n_components : int | None
        Number of principal components that the network reads; None without whitener.
    device : str
        Where to compute.
    """

    def __init__(self, simulator, leadfields, n_components, device):
        self.simulator, self.n_components = simulator, n_components
        self.gains, self.whiteners, self.kernels, self.ongoing = [], [], [], []
        background = simulator.background.float()
        for one in leadfields:
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

    @property
    def generator(self):
        """The generator of all random numbers."""
        return self.simulator.generator

    def __len__(self):
        """Count the leadfields."""
        return len(self.gains)

    def draw(self, which, n_batch):
        """Draw input, target and the target's power over leadfields ``which``.

        Input and target are (n_batch, n_times, ...), the power is (n_batch,). With a
        whitener, principal components replace the times, and each sample's sources have
        the power ``n_parcels``. Without, the sources' largest absolute value is 1, as
        published.
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
            return encode_windows(data).X, Y, Y.square().sum((1, 2))
        products = (weights @ weights.mT) * (waves @ waves.mT)
        size = products.sum((1, 2)).clamp_min(0).sqrt() / weights.shape[2] ** 0.5
        active = size > 0
        waves = waves / torch.where(active, size, 1.0)[:, None, None]
        encoded = encode_windows(
            data,
            self.kernels[index],
            self.n_components,
            whitener=self.whiteners[index],
            exact=False,
        )
        Y = (waves @ encoded.courses.mT).mT @ weights
        return encoded.X, Y, active * float(Y.shape[2])


class BatchStream:
    """An endless stream of batches, each sample used several times.

    Samples are drawn in pools of ``n_uses`` batches. Each pool is shuffled into batches
    ``n_uses`` times. A thread can draw the next pool while training uses this one. A
    stream can continue exactly where another one stopped.

    Parameters
    ----------
    batches : Batches
        Draws samples.
    batch_size, n_leadfields, n_uses : int
        See :class:`TrainingOptions`.
    seed : int
        Seed for choosing leadfields and for shuffling.
    """

    def __init__(self, batches, *, batch_size, n_leadfields, n_uses, seed):
        self.batches = batches
        self.batch_size, self.n_uses = batch_size, n_uses
        most = min(n_uses * n_leadfields, n_uses * batch_size)
        self.n_leadfields = min(most, len(batches))
        self.rng = np.random.default_rng(seed)
        self._pool = None  # (state before it was drawn, samples, batches as indices)
        self._n_taken = 0  # batches taken from the pool
        self._thread, self._next = None, None  # draws ahead; the pool it draws

    @contextmanager
    def drawing_ahead(self, initializer, *args):
        """Draw pools in a thread that starts with ``initializer(*args)``."""
        with ThreadPoolExecutor(1, "", initializer, args) as self._thread:
            if self._pool is None and self._next is None:
                self._next = self._thread.submit(self._draw_pool)
            try:
                yield
            finally:
                self._thread = None

    def take(self):
        """Return the next batch, see :meth:`Batches.draw`."""
        if self._pool is not None and self._n_taken == len(self._pool[2]):
            self._pool, self._n_taken = None, 0
        if self._pool is None:
            self._pool = self._take_pool()
        _, samples, parts = self._pool
        self._n_taken += 1
        return [tensor[parts[self._n_taken - 1]] for tensor in samples]

    def _take_pool(self):
        pool = self._draw_pool() if self._next is None else self._next.result()
        self._next = None
        if self._thread is not None:
            self._next = self._thread.submit(self._draw_pool)
        return pool

    def _draw_pool(self):
        before = self._random_state()
        n_samples = self.n_uses * self.batch_size
        which = self.rng.choice(len(self.batches), self.n_leadfields, replace=False)
        samples = self.batches.draw(which, n_samples)
        orders = [self.rng.permutation(n_samples) for _ in range(self.n_uses)]
        parts = np.concatenate(orders).reshape(-1, self.batch_size)
        return before, samples, torch.as_tensor(parts, device=samples[0].device)

    def _random_state(self):
        return {
            "generator": self.batches.generator.get_state(),
            "rng": json.dumps(self.rng.bit_generator.state),
        }

    def state(self):
        """Return the random state from which :meth:`restore` draws the same batches."""
        if self._pool is not None and self._n_taken < len(self._pool[2]):
            return self._pool[0]
        return self._random_state() if self._next is None else self._next.result()[0]

    def restore(self, state, n_batches):
        """Continue from a state after ``n_batches`` batches in all."""
        self.batches.generator.set_state(state["generator"])
        self.rng.bit_generator.state = json.loads(state["rng"])
        self._pool, self._n_taken = None, n_batches % self.n_uses**2

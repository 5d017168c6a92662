"""Blocks of 16 Jansen-Rit networks: the compiled integrator and its reference."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import njit
from scipy import sparse

from . import _lanes
from ._lanes import N_LANES, draw_normals, load, logistic2, normal_pair, splat, store

STANDARD_GAIN = 3.25  # mV: A of a parcel that emits no spikes
_N_ROWS = 9  # rows of a parcel's record: six states, A a, mu, noise per step
CHUNK = 16  # samples between two returns to Python


@dataclass(frozen=True)
class Tracts:
    """Incoming tracts of each parcel, as the integrators read them."""

    indptr: np.ndarray  # (n_parcels + 1,)
    sources: np.ndarray  # (n_tracts,)
    delays: np.ndarray  # (n_tracts,) steps
    weights: np.ndarray  # (n_tracts,)
    n_slots: int  # length of the history ring

    @property
    def offsets(self):
        """How many rows before the current one a tract's source is found."""
        offsets = self.delays * (len(self.indptr) - 1) - self.sources
        return offsets.astype(np.int32)

    @property
    def collect(self):
        """Sum over the tracts of each parcel, (n_parcels, n_tracts)."""
        n_tracts, n_parcels = len(self.sources), len(self.indptr) - 1
        entries = np.ones(n_tracts), np.arange(n_tracts), self.indptr
        return sparse.csr_array(entries, (n_parcels, n_tracts))


# What the compiled integrator reads. Its arrays are flat, lanes innermost.


class _Memory(NamedTuple):
    x: np.ndarray  # records of the parcels
    history: np.ndarray  # firing rates over the top rate, a ring of slots
    state: np.ndarray  # of the random generators


class _Coupling(NamedTuple):
    indptr: np.ndarray
    offsets: np.ndarray
    weights: np.ndarray


class _Constants(NamedTuple):
    dt: np.float32
    half: np.float32  # of dt
    a2: np.float32  # 2 a
    aa: np.float32  # a²
    b2: np.float32  # 2 b
    bb: np.float32  # b²
    k0: np.float32  # exponents of the sigmoids, for powers of two: the constant,
    kv: np.float32  # times the potential,
    k1: np.float32  # times the first state, of excitation,
    k3: np.float32  # and of inhibition
    gs: np.float32  # top rates: of the pyramidal cells,
    ge: np.float32  # of excitation,
    gi: np.float32  # of inhibition


class _Pulses(NamedTuple):
    stimulus: np.ndarray  # a value for each step; empty without stimulus
    gates: np.ndarray  # a value for each parcel


class _Steps(NamedTuple):
    start: int  # steps done before
    n_steps: int
    decim: int  # steps per sample stored, 0 to store none


class _Samples(NamedTuple):
    picks: np.ndarray  # parcels to store
    out: np.ndarray


def _compile_integrator(lanes_source):
    """Compile the integrator.

    Numba keeps what it compiled on disk, and looks at this file and at the values that
    the function closes over to see whether it is still valid. So the function closes
    over the source of ``_lanes``: what is changed there is compiled anew as well.
    """

    @njit(nogil=True, cache=True)
    def integrate(memory, coupling, c, pulses, steps, samples):
        """Advance 16 networks by ``steps.n_steps``."""
        lanes_source  # noqa: B018  closed over, see above
        x, history = memory.x, memory.history
        indptr, offsets, weights = coupling.indptr, coupling.offsets, coupling.weights
        n_parcels = indptr.size - 1
        n_rows = history.size // N_LANES
        n_slots = n_rows // n_parcels
        with_stimulus = pulses.stimulus.size > 0
        z0 = splat(c.dt)
        z1 = z0
        for step in range(steps.n_steps):
            if steps.decim > 0 and step % steps.decim == 0:
                sample = (step // steps.decim) * samples.picks.size
                for i in range(samples.picks.size):
                    at = samples.picks[i] * _N_ROWS * N_LANES + i % N_LANES
                    psp = x[at + N_LANES] - x[at + 2 * N_LANES]
                    samples.out[sample + i] = psp
            now = ((steps.start + step) % n_slots) * n_parcels
            then = ((steps.start + step + 1) % n_slots) * n_parcels
            for parcel in range(n_parcels):
                if parcel % 2 == 0:
                    z0, z1 = normal_pair(memory.state)
                z = z0 if parcel % 2 == 0 else z1
                at = parcel * _N_ROWS * N_LANES
                y0, y1, y2 = load(x, at), load(x, at + 16), load(x, at + 32)
                y3, y4, y5 = load(x, at + 48), load(x, at + 64), load(x, at + 80)
                gain, drive = load(x, at + 96), load(x, at + 112)
                noise = load(x, at + 128) * z
                for j in range(indptr[parcel], indptr[parcel + 1]):
                    row = now - offsets[j]
                    if row < 0:
                        row += n_rows
                    drive = drive + weights[j] * load(history, row * N_LANES)
                if with_stimulus:
                    pulse = load(pulses.stimulus, step * N_LANES)
                    drive = drive + pulse * load(pulses.gates, parcel * N_LANES)
                firing = load(history, (now + parcel) * N_LANES)
                # predictor
                excited = c.ge * logistic2(c.k0 + c.k1 * y0)
                d3 = gain * (c.gs * firing) - c.a2 * y3 - c.aa * y0
                d4 = gain * (drive + excited) - c.a2 * y4 - c.aa * y1
                d5 = c.gi * logistic2(c.k0 + c.k3 * y0) - c.b2 * y5 - c.bb * y2
                p0, p1, p2 = y0 + c.dt * y3, y1 + c.dt * y4, y2 + c.dt * y5
                p3, p4, p5 = y3 + c.dt * d3, y4 + c.dt * d4 + noise, y5 + c.dt * d5
                # corrector: mean of both slopes, the same coupling and noise
                firing = logistic2(c.k0 + c.kv * (p1 - p2))
                excited = c.ge * logistic2(c.k0 + c.k1 * p0)
                e3 = gain * (c.gs * firing) - c.a2 * p3 - c.aa * p0
                e4 = gain * (drive + excited) - c.a2 * p4 - c.aa * p1
                e5 = c.gi * logistic2(c.k0 + c.k3 * p0) - c.b2 * p5 - c.bb * p2
                y1 = y1 + c.half * (y4 + p4)
                y2 = y2 + c.half * (y5 + p5)
                store(x, at, y0 + c.half * (y3 + p3))
                store(x, at + 16, y1)
                store(x, at + 32, y2)
                store(x, at + 48, y3 + c.half * (d3 + e3))
                store(x, at + 64, y4 + c.half * (d4 + e4) + noise)
                store(x, at + 80, y5 + c.half * (d5 + e5))
                firing = logistic2(c.k0 + c.kv * (y1 - y2))
                store(history, (then + parcel) * N_LANES, firing)

    return integrate


_integrate = _compile_integrator(Path(_lanes.__file__).read_text(encoding="utf-8"))


def _aligned(shape, dtype=np.float32):
    """Allocate zeros at the start of a cache line, else each load costs two."""
    size = int(np.prod(shape))
    memory = np.zeros(size + N_LANES, dtype)
    start = (-memory.ctypes.data % 64) // memory.itemsize
    return memory[start : start + size].reshape(shape)


def _make_constants(p, dt):
    """Put the model in the form that the kernel reads."""
    log2e = np.log2(np.e)
    top = 2 * p.nu_max
    constants = _Constants(
        dt=dt,
        half=dt / 2,
        a2=2 * p.a,
        aa=p.a**2,
        b2=2 * p.b,
        bb=p.b**2,
        k0=p.r * p.v0 * log2e,
        kv=-p.r * log2e,
        k1=-p.r * p.a1 * p.J * log2e,
        k3=-p.r * p.a3 * p.J * log2e,
        gs=top,
        ge=p.a2 * p.J * top,
        gi=p.B * p.b * p.a4 * p.J * top,
    )
    return _Constants(*map(np.float32, constants))


def _noise_per_step(noise_std, p, dt):
    """Return the SD of the noise that a step adds to the fifth state."""
    return p.a * STANDARD_GAIN * 0.06 * noise_std * np.sqrt(dt)


class Block:
    """Sixteen networks side by side, in float32."""

    def __init__(self, values, tracts, parameters, dt, state):
        self.n_networks, n_parcels = values["A"].shape
        self.tracts, self.step = tracts, 0
        self.stimulus = _to_lanes(values["stimulus"])
        self.gates = _to_lanes(values["gates"]) if self.stimulus.size else _aligned(0)
        self.c = _make_constants(parameters, dt)
        self.state = _aligned((4, N_LANES), np.uint32)
        self.state[:] = 1
        self.state[:, : self.n_networks] = state
        self.x = _aligned((n_parcels, _N_ROWS, N_LANES))
        self.x[:, :6] = _to_lanes(values["initial"]).swapaxes(0, 1)
        self.x[:, 6] = _to_lanes(values["A"]) * np.float32(parameters.a)
        self.x[:, 7] = _to_lanes(values["mu"])
        noise = _noise_per_step(values["noise_std"], parameters, dt)
        self.x[:, 8] = _to_lanes(noise)
        self.picks = _to_lanes(values["picks"]).astype(np.int32)
        self.history = _aligned((tracts.n_slots, n_parcels, N_LANES))
        exponent = self.c.k0 + self.c.kv * (self.x[:, 1] - self.x[:, 2])
        with np.errstate(over="ignore"):  # 1 / infinity is what it should be
            self.history[:] = 1 / (1 + np.exp2(exponent))
        self.weights = (tracts.weights * 2 * parameters.nu_max).astype(np.float32)

    def advance(self, n_steps, stimulus, decim, out):
        """Integrate ``n_steps``, storing each ``decim``-th state's PSP in ``out``."""
        tracts = self.tracts
        gates = self.gates if stimulus.size else stimulus
        _integrate(
            _Memory(self.x.ravel(), self.history.ravel(), self.state.ravel()),
            _Coupling(tracts.indptr, tracts.offsets, self.weights),
            self.c,
            _Pulses(stimulus.ravel(), gates.ravel()),
            _Steps(self.step, n_steps, decim),
            _Samples(self.picks.ravel(), out.ravel()),
        )
        self.step += n_steps

    def run(self, out, n_transient, decim, stop, report):
        """Integrate the transient, then fill ``out`` (n_networks, n_picks, n_times)."""
        n_steps = CHUNK * decim
        nothing = _aligned(0)
        for first in range(0, n_transient, n_steps):
            if stop.is_set():
                return
            self.advance(min(n_steps, n_transient - first), nothing, 0, nothing)
        buffer = _aligned((CHUNK, *self.picks.shape), self.x.dtype)
        for first in range(0, out.shape[-1], CHUNK):
            if stop.is_set():
                return
            n_times = min(CHUNK, out.shape[-1] - first)
            stimulus = self.stimulus[first * decim : (first + n_times) * decim]
            self.advance(n_times * decim, stimulus, decim, buffer)
            samples = buffer[:n_times, :, : self.n_networks]
            out[..., first : first + n_times] = samples.transpose(2, 1, 0)
            report(first)


def _to_lanes(values, dtype=np.float32):
    """Put networks last and repeat the last one until there are 16."""
    values = np.asarray(values)
    missing = N_LANES - len(values)
    values = np.concatenate([values, np.repeat(values[-1:], missing, 0)])
    lanes = _aligned((*values.shape[1:], N_LANES), dtype)
    lanes[...] = np.moveaxis(values, 0, -1)
    return lanes


class ReferenceBlock(Block):
    """The same networks and noise in float64 and plain NumPy."""

    def __init__(self, values, tracts, parameters, dt, state):
        super().__init__(values, tracts, parameters, dt, state)
        self.dt, self.p = dt, parameters
        self.x = self.x.astype(float)
        # what float32 has rounded
        self.x[:, :6] = _to_lanes(values["initial"], float).swapaxes(0, 1)
        self.A, self.mu = _to_lanes(values["A"], float), _to_lanes(values["mu"], float)
        noise = _noise_per_step(values["noise_std"], parameters, dt)
        self.noise_std = _to_lanes(noise, float)
        self.firing = np.repeat(self._sigmoid(self._psp())[None], tracts.n_slots, 0)

    def _psp(self):
        return self.x[:, 1] - self.x[:, 2]

    def _sigmoid(self, v):
        with np.errstate(over="ignore"):
            return 2 * self.p.nu_max / (1 + np.exp(self.p.r * (self.p.v0 - v)))

    def _slopes(self, y, drive):
        p = self.p
        y0, y1, y2, y3, y4, y5 = y
        d3 = self.A * p.a * self._sigmoid(y1 - y2) - 2 * p.a * y3 - p.a**2 * y0
        excitation = drive + p.a2 * p.J * self._sigmoid(p.a1 * p.J * y0)
        d4 = self.A * p.a * excitation - 2 * p.a * y4 - p.a**2 * y1
        inhibition = p.a4 * p.J * self._sigmoid(p.a3 * p.J * y0)
        d5 = p.B * p.b * inhibition - 2 * p.b * y5 - p.b**2 * y2
        return np.stack([y3, y4, y5, d3, d4, d5])

    def _coupling(self):
        tracts, n_slots = self.tracts, self.tracts.n_slots
        slots = (self.step - tracts.delays) % n_slots
        firing = self.firing[slots, tracts.sources]  # (n_tracts, 16)
        return tracts.collect @ (tracts.weights[:, None] * firing)

    def advance(self, n_steps, stimulus, decim, out):
        """Integrate ``n_steps``, storing each ``decim``-th state's PSP in ``out``."""
        z = _aligned((len(self.x), N_LANES))
        for step in range(n_steps):
            if decim and step % decim == 0:
                out[step // decim] = np.take_along_axis(self._psp(), self.picks, 0)
            draw_normals(self.state.ravel(), z.ravel())
            noise = np.zeros((6, *z.shape))
            noise[4] = self.noise_std * z
            drive = self.mu + self._coupling()
            if stimulus.size:
                drive = drive + stimulus[step] * self.gates
            y = self.x[:, :6].swapaxes(0, 1)
            slopes = self._slopes(y, drive)
            predicted = y + self.dt * slopes + noise
            slopes = (slopes + self._slopes(predicted, drive)) / 2
            self.x[:, :6] = (y + self.dt * slopes + noise).swapaxes(0, 1)
            self.step += 1
            self.firing[self.step % self.tracts.n_slots] = self._sigmoid(self._psp())

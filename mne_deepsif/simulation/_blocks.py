"""Blocks of 16 Jansen-Rit networks: the compiled integrator and its reference."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy import sparse

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


@njit(nogil=True, cache=True)
def _integrate(
    x,
    history,
    state,
    indptr,
    offsets,
    weights,
    stimulus,
    gates,
    c,
    start,
    n_steps,
    decim,
    picks,
    out,
):
    """Advance 16 networks by ``n_steps``; all arrays are flat, lanes innermost."""
    n_parcels = indptr.size - 1
    n_rows = history.size // N_LANES
    n_slots = n_rows // n_parcels
    dt, half = c[0], c[1]
    a2, aa, b2, bb = c[2], c[3], c[4], c[5]
    k0, kv, k1, k3 = c[6], c[7], c[8], c[9]
    gs, ge, gi = c[10], c[11], c[12]
    with_stimulus = gates.size > 0
    z0 = splat(dt)
    z1 = z0
    for step in range(n_steps):
        if decim > 0 and step % decim == 0:
            sample = (step // decim) * picks.size
            for i in range(picks.size):
                at = picks[i] * _N_ROWS * N_LANES + i % N_LANES
                out[sample + i] = x[at + N_LANES] - x[at + 2 * N_LANES]
        now = ((start + step) % n_slots) * n_parcels
        then = ((start + step + 1) % n_slots) * n_parcels
        for parcel in range(n_parcels):
            if parcel % 2 == 0:
                z0, z1 = normal_pair(state)
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
                pulse = load(stimulus, step * N_LANES)
                drive = drive + pulse * load(gates, parcel * N_LANES)
            firing = load(history, (now + parcel) * N_LANES)
            # predictor
            d3 = gain * (gs * firing) - a2 * y3 - aa * y0
            d4 = gain * (drive + ge * logistic2(k0 + k1 * y0)) - a2 * y4 - aa * y1
            d5 = gi * logistic2(k0 + k3 * y0) - b2 * y5 - bb * y2
            p0, p1, p2 = y0 + dt * y3, y1 + dt * y4, y2 + dt * y5
            p3, p4, p5 = y3 + dt * d3, y4 + dt * d4 + noise, y5 + dt * d5
            # corrector: mean of both slopes, the same coupling and noise
            firing = logistic2(k0 + kv * (p1 - p2))
            e3 = gain * (gs * firing) - a2 * p3 - aa * p0
            e4 = gain * (drive + ge * logistic2(k0 + k1 * p0)) - a2 * p4 - aa * p1
            e5 = gi * logistic2(k0 + k3 * p0) - b2 * p5 - bb * p2
            y1 = y1 + half * (y4 + p4)
            y2 = y2 + half * (y5 + p5)
            store(x, at, y0 + half * (y3 + p3))
            store(x, at + 16, y1)
            store(x, at + 32, y2)
            store(x, at + 48, y3 + half * (d3 + e3))
            store(x, at + 64, y4 + half * (d4 + e4) + noise)
            store(x, at + 80, y5 + half * (d5 + e5))
            store(history, (then + parcel) * N_LANES, logistic2(k0 + kv * (y1 - y2)))


def _aligned(shape, dtype=np.float32):
    """Allocate zeros at the start of a cache line, else each load costs two."""
    size = int(np.prod(shape))
    memory = np.zeros(size + N_LANES, dtype)
    start = (-memory.ctypes.data % 64) // memory.itemsize
    return memory[start : start + size].reshape(shape)


def _constants(p, dt):
    """Put the model in the form that the kernel reads."""
    log2e = np.log2(np.e)  # exponentials are powers of two
    top = 2 * p.nu_max
    return np.array(
        [dt, dt / 2, 2 * p.a, p.a**2, 2 * p.b, p.b**2]
        + [p.r * p.v0 * log2e, -p.r * log2e]
        + [-p.r * p.a1 * p.J * log2e, -p.r * p.a3 * p.J * log2e]
        + [top, p.a2 * p.J * top, p.B * p.b * p.a4 * p.J * top]
    )


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
        self.c = _constants(parameters, dt).astype(np.float32)
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
        exponent = self.c[6] + self.c[7] * (self.x[:, 1] - self.x[:, 2])
        with np.errstate(over="ignore"):  # 1 / infinity is what it should be
            self.history[:] = 1 / (1 + np.exp2(exponent))
        self.weights = (tracts.weights * 2 * parameters.nu_max).astype(np.float32)

    def advance(self, n_steps, stimulus, decim, out):
        """Integrate ``n_steps``, storing each ``decim``-th state's PSP in ``out``."""
        _integrate(
            self.x.ravel(),
            self.history.ravel(),
            self.state.ravel(),
            self.tracts.indptr,
            self.tracts.offsets,
            self.weights,
            stimulus.ravel(),
            self.gates.ravel() if stimulus.size else stimulus.ravel(),
            self.c,
            self.step,
            n_steps,
            decim,
            self.picks.ravel(),
            out.ravel(),
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

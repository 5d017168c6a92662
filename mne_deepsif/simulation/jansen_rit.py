"""Coupled stochastic Jansen-Rit neural masses (units: ms and mV).

The model, the coupling and the integrator are those of The Virtual Brain
(``JansenRit``, ``SigmoidalJansenRit``, ``HeunStochastic``). Many networks run at once.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import os
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from threading import Event

import numpy as np
from mne.utils import ProgressBar, _check_option, _validate_type, verbose
from scipy import sparse

from ._blocks import CHUNK, STANDARD_GAIN, Block, ReferenceBlock, Tracts
from ._lanes import N_LANES
from .connectome import Connectome

# Mean input (1/ms) and noise factor of the papers' three settings.
INPUT_SETTINGS = ((0.087, 1.0), (0.08, 1.7), (0.083, 1.5))
_N_STATES = 6
_LARGEST = 1e6  # limit of all parameters: float32 then holds all results
_LONGEST_DELAY = 1000.0  # ms


@dataclass(frozen=True)
class JansenRit:
    """Constants that all neural masses share (ms, mV), with standard values.

    Each must be from 1e-6 to 1e6.
    """

    B: float = 22.0
    a: float = 0.1
    b: float = 0.05
    v0: float = 6.0
    nu_max: float = 0.0025
    r: float = 0.56
    J: float = 135.0
    a1: float = 1.0
    a2: float = 0.8
    a3: float = 0.25
    a4: float = 0.25

    def __post_init__(self):
        """Check that all constants are positive and of a sensible size."""
        for name, value in asdict(self).items():
            _validate_type(value, "numeric", name)
            if not 1 / _LARGEST <= value <= _LARGEST:
                raise ValueError(
                    f"{name} must be positive, from {1 / _LARGEST:g} to {_LARGEST:g}, "
                    f"got {value}."
                )


@verbose
def simulate_jansen_rit(
    duration,
    connectome=None,
    *,
    n_networks=1,
    n_parcels=None,
    A=STANDARD_GAIN,
    mu=INPUT_SETTINGS[0][0],
    noise_std=INPUT_SETTINGS[0][1],
    stimulus=None,
    stimulus_weights=1.0,
    picks=None,
    parameters=JansenRit(),
    coupling=1.0,
    speed=None,
    dt=0.5,
    sfreq=500.0,
    transient=0.5,
    initial=0.0,
    dtype="float32",
    n_jobs=-1,
    random_state=None,
    verbose=None,
):
    r"""Simulate networks of coupled stochastic Jansen-Rit neural masses.

    Parameters
    ----------
    duration : float
        Length of the returned activity (s).
    connectome : Connectome | None
        Coupling between parcels; None leaves them uncoupled.
    n_networks : int
        Number of independent networks. Multiples of 16 times the number of threads are
        fastest.
    n_parcels : int | None
        Number of parcels if there is no connectome.
    A : float | array of shape (n_networks,) or (n_networks, n_parcels)
        Maximum excitatory potential (mV). Above about 3.4 a parcel emits spikes.
    mu : float | array of shape (n_networks,) or (n_networks, n_parcels)
        Mean external input (pulses per ms).
    noise_std : float | array of shape (n_networks,) or (n_networks, n_parcels)
        Strength of the noise in the input, in the papers' unit: white noise of
        0.06 × ``noise_std`` pulses per ms and square root of ms.
    stimulus : array of shape (n_steps,) or (n_networks, n_steps) | None
        Input added to ``mu`` (pulses per ms), one value per step of ``dt``, from the
        first returned sample on; zero before and after.
    stimulus_weights : float | array of shape (n_parcels,) or (n_networks, n_parcels)
        How much of the stimulus each parcel gets.
    picks : array of int, shape (n_picks,) or (n_networks, n_picks) | None
        Parcels to return, the same for all networks or different for each. None
        returns all.
    parameters : JansenRit
        Constants that all parcels share.
    coupling : float
        Factor on the weights of the connectome.
    speed : float | None
        Conduction speed (m/s) for delays from the connectome's tract lengths; None
        couples without delay.
    dt : float
        Integration step (ms).
    sfreq : float
        Sampling rate of the result (Hz); every ``1000 / (sfreq * dt)``-th step is
        kept, without averaging, as the papers do.
    transient : float
        Length dropped at the beginning (s).
    initial : float | array of shape (6, n_parcels) or (n_networks, 6, n_parcels)
        The six states at the start (and, with delays, before it).
    dtype : "float32" | "float64"
        Precision. ``"float64"`` is a plain NumPy reference, 20 times slower.
    n_jobs : int | None
        Number of threads, -1 for one per core. The result does not depend on it.
    random_state : int | None
        Seed. Network ``i`` has its own stream: the same seed gives it the same noise
        whatever ``n_networks`` is.
    %(verbose)s

    Returns
    -------
    psp : array of shape (n_networks, n_parcels or n_picks, n_times)
        Postsynaptic potential of the pyramidal cells, ``y1 - y2`` (mV).

    Notes
    -----
    The model is that of :footcite:`JansenRit1995`, with :math:`S(v) = 2 \nu_{max} /
    (1 + e^{r (v_0 - v)})`:

    .. math::
        \ddot y_0 &= A a S(y_1 - y_2) - 2 a \dot y_0 - a^2 y_0 \\
        \ddot y_1 &= A a [p + a_2 J S(a_1 J y_0) + \textstyle\sum_j w_{ij}
                     S(y_1^j - y_2^j)] - 2 a \dot y_1 - a^2 y_1 + \sigma \xi \\
        \ddot y_2 &= B b a_4 J S(a_3 J y_0) - 2 b \dot y_2 - b^2 y_2

    with :math:`p` = ``mu`` plus stimulus, :math:`\xi` white noise and
    :math:`\sigma = 0.06 \cdot 3.25 a` ``noise_std`` (the noise does not grow with
    ``A``). It is integrated by Heun's rule. This is of second order without coupling
    and of first order with it, because coupling, stimulus and noise are held constant
    during a step, as in The Virtual Brain. Steps of 1 ms give the same statistics at
    half the cost.

    The Virtual Brain has delays by default (3 m/s); ``speed=3`` does the same and
    takes two to three times longer. Mean, variance and spikes do not change.

    References
    ----------
    .. footbibliography::
    """
    _check_option("dtype", dtype, ("float32", "float64"))
    _validate_type(connectome, (Connectome, None), "connectome")
    _validate_type(parameters, JansenRit, "parameters")
    _check_counts(n_networks, n_parcels, n_jobs, random_state)
    _check_times(duration, sfreq, transient, dt)
    n_parcels = _get_n_parcels(connectome, n_parcels)
    decim = _check_decim(dt, sfreq, parameters)
    shape = (n_networks, n_parcels)
    values = dict(
        A=_check_parameter("A", A, shape),
        mu=_check_parameter("mu", mu, shape),
        noise_std=_check_parameter("noise_std", noise_std, shape),
        initial=_check_initial(initial, shape),
        picks=_check_picks(picks, shape),
    )
    n_times = int(round(duration * sfreq))
    n_transient = int(round(transient * 1000 / dt))
    values["stimulus"], values["gates"] = _check_stimulus(
        stimulus, stimulus_weights, n_times * decim, shape
    )
    tracts = _check_tracts(connectome, coupling, speed, dt, n_parcels)
    seeds = np.random.SeedSequence(random_state).spawn(n_networks)
    kind = Block if dtype == "float32" else ReferenceBlock
    out = np.empty((n_networks, values["picks"].shape[1], n_times), dtype)

    def run(start, stop, report):
        lanes = slice(start, min(start + N_LANES, n_networks))
        block = kind(
            {k: v[lanes] for k, v in values.items()},
            tracts,
            parameters,
            dt,
            np.array([seed.generate_state(4) for seed in seeds[lanes]]).T,
        )
        block.run(out[lanes], n_transient, decim, stop, report)

    starts = range(0, n_networks, N_LANES)
    n_chunks = len(starts) * -(-n_times // CHUNK)
    _run_blocks(run, starts, n_chunks, _count_threads(n_jobs))
    return out


def _run_blocks(run, starts, n_chunks, n_jobs):
    """Run blocks in threads, showing progress; Ctrl-C stops them all."""
    stop, done = Event(), []
    # not as a context: that is for bars shared by processes, and sets it back to 0
    progress = ProgressBar(n_chunks, mesg="Simulating neural masses", unit=" blocks")
    with ThreadPoolExecutor(n_jobs) as pool:
        jobs = [pool.submit(run, start, stop, done.append) for start in starts]
        pending = set(jobs)
        try:
            while pending:
                _, pending = wait(pending, timeout=0.2)
                progress.update(len(done))
        except BaseException:
            stop.set()
            for job in jobs:
                job.cancel()
            raise
    for job in jobs:
        job.result()


def _check_tracts(connectome, coupling, speed, dt, n_parcels):
    coupling = _check_parameter("coupling", coupling, ()).item()
    _validate_type(speed, ("numeric", None), "speed")
    if connectome is None:
        empty = np.zeros(0, np.int32)
        return Tracts(np.zeros(n_parcels + 1, np.int32), empty, empty, empty, 2)
    weights = sparse.csr_array(connectome.weights)
    delays = _check_delays(connectome, weights, speed, dt)
    return Tracts(
        weights.indptr.astype(np.int32),
        weights.indices.astype(np.int32),
        delays,
        _to_floats("coupling times the connectome's weights", coupling * weights.data),
        int(delays.max(initial=0)) + 2,
    )


def _check_delays(connectome, weights, speed, dt):
    """Return the delay of each tract (steps)."""
    if speed is None:
        return np.zeros(weights.nnz, np.int32)
    if not speed > 0 or connectome.tract_lengths is None:
        raise ValueError(
            "speed must be positive and needs a connectome with tract_lengths, "
            f"got speed={speed} m/s. Use speed=None to couple without delays."
        )
    rows = np.repeat(np.arange(weights.shape[0]), np.diff(weights.indptr))
    lengths = sparse.csr_array(connectome.tract_lengths)[rows, weights.indices]
    delays = np.asarray(lengths).ravel() / speed  # mm and m/s: ms
    if delays.max(initial=0) > _LONGEST_DELAY:
        raise ValueError(
            f"speed={speed} m/s gives delays of up to {delays.max():.4g} ms, but at "
            f"most {_LONGEST_DELAY:.0f} ms are allowed. Raise speed; are the "
            "tract_lengths in mm?"
        )
    return np.rint(delays / dt).astype(np.int32)


def _check_counts(n_networks, n_parcels, n_jobs, random_state):
    _validate_type(n_networks, "int-like", "n_networks")
    _validate_type(n_parcels, ("int-like", None), "n_parcels")
    _validate_type(n_jobs, ("int-like", None), "n_jobs")
    _validate_type(random_state, ("int-like", None), "random_state")
    if n_networks < 1 or (n_parcels is not None and n_parcels < 1):
        raise ValueError(
            "n_networks and n_parcels must be positive, got "
            f"n_networks={n_networks} and n_parcels={n_parcels}."
        )
    if random_state is not None and random_state < 0:
        raise ValueError(f"random_state must not be negative, got {random_state}.")


def _check_times(duration, sfreq, transient, dt):
    values = dict(duration=duration, sfreq=sfreq, transient=transient, dt=dt)
    for name, value in values.items():
        _validate_type(value, "numeric", name)
    for name in ("duration", "sfreq"):
        if not 0 < values[name] < np.inf:
            raise ValueError(f"{name} must be positive and finite, got {values[name]}.")
    if round(duration * sfreq) < 1 or not 0 <= transient < np.inf:
        raise ValueError(
            "duration must be at least one sample and transient finite and not "
            f"negative, got duration={duration} s at sfreq={sfreq} Hz and "
            f"transient={transient} s."
        )


def _get_n_parcels(connectome, n_parcels):
    if connectome is None:
        return 1 if n_parcels is None else int(n_parcels)
    if n_parcels not in (None, connectome.n_parcels):
        raise ValueError(
            f"The connectome has {connectome.n_parcels} parcels but n_parcels is "
            f"{n_parcels}. Leave n_parcels out or give the matching connectome."
        )
    return connectome.n_parcels


def _count_threads(n_jobs):
    """Return the number of threads: None is one, -1 all cores, -2 all but one."""
    n_jobs = 1 if n_jobs is None else int(n_jobs)
    if n_jobs < 0:
        n_jobs = os.cpu_count() + 1 + n_jobs
    return max(1, n_jobs)


def _check_decim(dt, sfreq, parameters):
    """Return the number of steps per sample."""
    # Heun's rule is stable up to dt = 2 / a, but spikes are wrong from 0.8 / a on
    max_dt = 0.4 / max(parameters.a, parameters.b)
    if not 0 < dt <= max_dt:
        raise ValueError(
            f"dt must be above 0 and at most {max_dt:.3g} ms (0.4 / a: beyond that the "
            f"integrator loses the dynamics), got {dt}. The papers use dt=0.5."
        )
    decim = 1000 / (sfreq * dt)
    if decim < 0.999 or abs(decim - round(decim)) > 1e-6:
        raise ValueError(
            "A sample must take a whole number of steps: 1000 / (sfreq * dt) must be a "
            f"whole number, got {decim:.4g} for sfreq={sfreq} Hz and dt={dt} ms."
        )
    return int(round(decim))


def _check_parameter(name, value, shape):
    """Return ``value``, not negative, as (n_networks, n_parcels)."""
    value = _to_floats(name, value, lowest=0)
    full = value[:, None] if value.ndim == 1 else value
    return _broadcast(name, full, shape, "(n_networks,) or (n_networks, n_parcels)")


def _to_floats(name, value, lowest=-_LARGEST):
    try:
        value = np.asarray(value, float)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be numeric, got {value!r}.") from None
    if not np.all((value >= lowest) & (value <= _LARGEST)):
        raise ValueError(
            f"{name} must be finite and from {lowest:g} to {_LARGEST:g}, got values "
            f"from {value.min():g} to {value.max():g}."
        )
    return value


def _broadcast(name, value, shape, wanted):
    """Broadcast with an error that says which shapes are ``wanted``."""
    try:
        return np.broadcast_to(value, shape)
    except ValueError:
        raise ValueError(
            f"{name} must be a number or have the shape {wanted}, at most {shape} "
            f"here, got {value.shape}."
        ) from None


def _check_initial(initial, shape):
    initial = _to_floats("initial", initial)
    wanted = "(6, n_parcels) or (n_networks, 6, n_parcels)"
    return _broadcast("initial", initial, (shape[0], _N_STATES, shape[1]), wanted)


def _check_picks(picks, shape):
    n_networks, n_parcels = shape
    picks = np.arange(n_parcels) if picks is None else np.asarray(picks)
    ok = picks.ndim in (1, 2) and picks.dtype.kind in "iu"
    if not ok or not picks.size or picks.min() < 0 or picks.max() >= n_parcels:
        raise ValueError(
            "picks must hold parcel numbers (int), from 0 to "
            f"{n_parcels - 1}, with shape (n_picks,) or (n_networks, n_picks), got "
            f"{picks.dtype} of shape {picks.shape}."
        )
    wanted = "(n_picks,) or (n_networks, n_picks)"
    return _broadcast("picks", picks, (n_networks, picks.shape[-1]), wanted)


def _check_stimulus(stimulus, weights, n_steps, shape):
    """Return (n_networks, n_steps or 0) and (n_networks, n_parcels)."""
    n_networks = shape[0]
    stimulus = np.atleast_1d(
        _to_floats("stimulus", [] if stimulus is None else stimulus)
    )
    weights = _to_floats("stimulus_weights", weights)
    n_given = stimulus.shape[-1]
    if n_given > n_steps:
        raise ValueError(
            f"stimulus has {n_given} steps but the simulation {n_steps}. Shorten it or "
            "raise duration."
        )
    full = np.zeros((n_networks, n_steps if n_given else 0))
    wanted = "(n_steps,) or (n_networks, n_steps)"
    full[:, :n_given] = _broadcast("stimulus", stimulus, (n_networks, n_given), wanted)
    wanted = "(n_parcels,) or (n_networks, n_parcels)"
    return full, _broadcast("stimulus_weights", weights, shape, wanted)

"""The neural masses: known physics, The Virtual Brain, seeds, checks."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import signal
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.optimize import brentq
from scipy.signal import find_peaks, welch

from mne_deepsif.simulation.connectome import Connectome
from mne_deepsif.simulation.jansen_rit import (
    INPUT_SETTINGS,
    JansenRit,
    simulate_jansen_rit,
)

QUIET = dict(noise_std=0.0, transient=0.0)


def _sigmoid(v):
    return 0.005 / (1 + np.exp(0.56 * (6 - v)))


def _fixed_point_psp(y0, A, mu):
    """Compute y1 - y2 at rest for a given y0, from the equations at rest."""
    y1 = A / 0.1 * (mu + 0.8 * 135 * _sigmoid(135 * y0))
    return y1 - 22 / 0.05 * 0.25 * 135 * _sigmoid(0.25 * 135 * y0)


def _rest(A, mu):
    """Return the lowest resting PSP, where y0 = A / a S(y1 - y2)."""

    def excess(y0):
        return A / 0.1 * _sigmoid(_fixed_point_psp(y0, A, mu)) - y0

    grid = np.linspace(0, 0.2, 20001)
    first = np.flatnonzero(np.diff(np.sign(excess(grid))))[0]
    return _fixed_point_psp(brentq(excess, grid[first], grid[first + 1]), A, mu)


@pytest.fixture
def connectome():
    """Give 12 parcels with tracts of 5 to 150 mm."""
    rng = np.random.default_rng(0)
    weights = rng.random((12, 12)) * 5 * (rng.random((12, 12)) < 0.5)
    np.fill_diagonal(weights, 0)
    lengths = np.where(weights > 0, rng.uniform(5, 150, (12, 12)), 0)
    return Connectome(sparse.csr_array(weights), sparse.csr_array(lengths))


def _spike_rate(psp, sfreq=500):
    """Count peaks above 8 mV, 0.2 s apart, per second."""
    traces = psp.reshape(-1, psp.shape[-1])
    distance = int(0.2 * sfreq)
    n_peaks = sum(len(find_peaks(x, height=8, distance=distance)[0]) for x in traces)
    return n_peaks / traces.size * sfreq


def test_defaults():
    """One call without options gives one parcel's activity."""
    psp = simulate_jansen_rit(1.0)
    assert psp.shape == (1, 1, 500)
    assert psp.dtype == np.float32
    assert np.isfinite(psp).all()


# ------------------------------------------------------------------ known physics


@pytest.mark.parametrize("A, mu", [(3.25, 0.05), (3.25, 0.087), (2.0, 0.2)])
def test_fixed_point(A, mu):
    """Without noise the activity comes to rest where the equations say."""
    psp = simulate_jansen_rit(0.5, A=A, mu=mu, noise_std=0, transient=3)
    np.testing.assert_allclose(psp, _rest(A, mu), atol=2e-5)


def test_alpha_rhythm():
    """At the classical input of 220 pulses per s the rhythm is alpha."""
    psp = simulate_jansen_rit(20, n_networks=16, mu=0.22, random_state=0)[:, 0]
    freqs, power = welch(psp, 500, nperseg=1000, detrend="constant")
    assert 9 < freqs[power.mean(0).argmax()] < 12


def test_spike_threshold():
    """Spikes begin at the gain where the lower resting point vanishes."""
    mu = 0.1
    gains = np.linspace(3.0, 4.0, 1001)
    rest = np.array([_rest(A, mu) for A in gains])
    threshold = gains[np.diff(rest).argmax()]  # the jump to the upper branch
    A = threshold + np.array([-0.02, 0.02])
    psp = simulate_jansen_rit(2, n_networks=2, A=A, mu=mu, noise_std=0, transient=4)
    assert 3.25 < threshold < 3.6
    assert np.ptp(psp[0]) < 1e-3
    assert np.ptp(psp[1]) > 8


def test_spikes_of_the_papers():
    """Noise makes spikes above the papers' gains, ever more, and none at 3.25."""
    A = np.repeat([3.0, 3.25, 3.5, 3.6], 16)
    psp = simulate_jansen_rit(
        10, n_networks=64, n_parcels=4, A=A, mu=0.093, random_state=0
    )
    rates = [_spike_rate(part) for part in np.split(psp, 4)]
    assert rates[0] == 0
    assert rates[1] < 0.1 < rates[2] < rates[3]


def test_noise_std():
    """With A = 0 the noise passes a critically damped filter of known gain."""
    std = np.array([1.0, 1.7, 0.0, 3.0] * 4)
    psp = simulate_jansen_rit(
        20, n_networks=16, n_parcels=8, A=0, noise_std=std, random_state=0
    )
    expected = 0.1 * 3.25 * 0.06 * std / np.sqrt(4 * 0.1**3)
    measured = np.sqrt(psp.var(-1).mean(1))
    np.testing.assert_allclose(measured, expected, rtol=0.03, atol=1e-5)


@pytest.mark.parametrize("coupled, order", [(False, 2), (True, 1)])
def test_convergence_order(connectome, coupled, order):
    """Heun's rule is of second order; TVB's coupling, held in a step, of first."""
    options = dict(connectome=connectome) if coupled else dict(n_parcels=12)
    A = np.linspace(3, 3.6, 12)[None]

    def run(dt):
        return simulate_jansen_rit(
            0.1, A=A, mu=0.2, dt=dt, sfreq=250, dtype="float64", **options, **QUIET
        )

    exact = run(1 / 32)
    errors = [np.abs(run(dt) - exact).max() for dt in (0.5, 0.25)]
    np.testing.assert_allclose(np.log2(errors[0] / errors[1]), order, atol=0.15)


def test_bounded(connectome):
    """Activity stays within what the sigmoids allow, whatever the parameters."""
    rng = np.random.default_rng(0)
    A, mu = rng.uniform(0, 20, 64), rng.uniform(0, 2, 64)
    psp = simulate_jansen_rit(
        2, connectome, n_networks=64, A=A, mu=mu, coupling=3, dt=4, sfreq=250, **QUIET
    )
    inflow = mu + 0.8 * 135 * 0.005 + 3 * 0.005 * connectome.weights.sum(1).max()
    # 10 %: a step of 4 ms may overshoot
    assert (psp.max((1, 2)) < 1.1 * A / 0.1 * inflow + 0.1).all()
    assert psp.min() > -1.1 * 22 / 0.05 * 0.25 * 135 * 0.005
    noisy = simulate_jansen_rit(
        2, connectome, n_networks=64, A=A, mu=mu, noise_std=10, dt=4, sfreq=250
    )
    assert np.isfinite(noisy).all()


def _sizes(low, high):
    return st.floats(np.log10(low), np.log10(high)).map(lambda x: float(10**x))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.lists(_sizes(1e-6, 0.8), min_size=2, max_size=2),  # a, b: dt=0.5 allows these
    st.lists(_sizes(1.1e-6, 9e5), min_size=9, max_size=9),  # the other constants
    st.lists(_sizes(1e-6, 9e5), min_size=6, max_size=6),  # A, mu, noise, coupling, ...
)
def test_never_nan(rates, constants, values):
    """Whatever is permitted, however absurd, the activity stays finite."""
    names = ("B", "v0", "nu_max", "r", "J", "a1", "a2", "a3", "a4")
    parameters = JansenRit(*_in_order(rates, dict(zip(names, constants))))
    A, mu, noise_std, coupling, stimulus, initial = values
    psp = simulate_jansen_rit(
        0.1,
        Connectome(np.ones((3, 3)) - np.eye(3)),
        n_networks=2,
        A=A,
        mu=mu,
        noise_std=noise_std,
        coupling=coupling,
        stimulus=[stimulus, -stimulus],
        initial=initial,
        parameters=parameters,
        transient=0.1,
        random_state=0,
    )
    assert np.isfinite(psp).all()


def _in_order(rates, constants):
    constants |= dict(zip(("a", "b"), rates))
    return [constants[name] for name in JansenRit.__dataclass_fields__]


# ------------------------------------------------------------- The Virtual Brain

# tvb-library 2.10: HeunDeterministic, dt = 0.5, SigmoidalJansenRit(a=1), PSP of
# parcels 0, 5, 11 each 100 ms; made by benchmarks/studies/jansen_rit.py
TVB = {
    None: [
        [2.285395, 1.117276, 6.236141, 1.679893, 5.643143]
        + [2.053545, 2.568618, 7.499733, 12.207964, 1.672638],
        [5.243525, 0.196492, 2.471091, 4.188037, 3.864898]
        + [6.36744, 7.868997, 8.709768, 7.87156, 8.386176],
        [5.635601, 0.227261, 2.173532, 2.695597, 6.691084]
        + [2.633049, 1.623683, 3.217231, 8.490521, 1.337287],
    ],
    3.0: [
        [3.199871, 3.649616, 3.05769, 7.757746, 3.296706]
        + [2.305399, 4.507468, 2.573777, 5.332539, 2.556126],
        [6.637078, 7.181297, 5.55649, 5.422199, 5.61403]
        + [5.699042, 5.839571, 5.588092, 5.542689, 5.587309],
        [6.584215, 4.104138, 3.43413, 10.76411, 4.605908]
        + [3.504863, 4.947693, 3.428882, 2.023258, 7.571424],
    ],
}


@pytest.mark.parametrize("speed", [None, 3.0])
@pytest.mark.parametrize("dtype, rtol", [("float64", 1e-4), ("float32", 5e-3)])
def test_same_as_tvb(connectome, speed, dtype, rtol):
    """Trajectories without noise are those of The Virtual Brain."""
    A = np.full((1, 12), 3.25)
    A[0, 0] = 3.6
    initial = np.repeat([[0.05], [8], [6], [0], [0], [0]], 12, axis=1)
    psp = simulate_jansen_rit(
        1.1,
        connectome,
        A=A,
        mu=0.11,
        speed=speed,
        sfreq=10,
        initial=initial,
        picks=[0, 5, 11],
        dtype=dtype,
        **QUIET,
    )
    np.testing.assert_allclose(psp[0, :, 1:], TVB[speed], rtol=rtol)


# ------------------------------------------------------------ seeds and precision


def _run(connectome, **options):
    options = dict(n_networks=5, random_state=0, transient=0.05) | options
    return simulate_jansen_rit(0.3, connectome, **options)


def test_seed(connectome):
    """The result depends on the seed alone: not on threads or other networks."""
    psp = _run(connectome, n_networks=40, n_jobs=1)
    np.testing.assert_array_equal(psp, _run(connectome, n_networks=40, n_jobs=3))
    np.testing.assert_array_equal(psp[:5], _run(connectome))
    assert np.abs(psp[:5] - _run(connectome, random_state=1)).max() > 0.1
    assert np.unique(psp[:, 0, -1]).size == 40


@pytest.mark.parametrize("speed", [None, 2.0])
def test_float32_against_float64(connectome, speed):
    """The fast path and the plain NumPy one see the same noise and agree."""
    rng = np.random.default_rng(1)
    options = dict(
        A=rng.uniform(3, 3.6, (5, 12)),
        mu=rng.uniform(0.05, 0.2, 5),
        noise_std=rng.uniform(0, 2, (5, 12)),
        stimulus=rng.uniform(0, 0.1, (5, 600)),
        stimulus_weights=rng.random(12),
        picks=rng.integers(12, size=(5, 3)),
        speed=speed,
    )
    psp = _run(connectome, **options)
    reference = _run(connectome, dtype="float64", **options)
    assert psp.shape == (5, 3, 150)
    np.testing.assert_allclose(psp, reference, atol=2e-3)


# ------------------------------------------------------------------- input, delay


def test_stimulus():
    """A constant stimulus is the same as more input, where its weight is one."""
    options = dict(n_networks=2, n_parcels=3, random_state=0, transient=0)
    more = simulate_jansen_rit(0.5, mu=0.1, **options)
    less = simulate_jansen_rit(0.5, mu=0.08, **options)
    psp = simulate_jansen_rit(
        0.5,
        mu=0.08,
        stimulus=np.full(1000, 0.02),
        stimulus_weights=[0, 1, 0],
        **options,
    )
    np.testing.assert_allclose(psp[:, 1], more[:, 1], atol=1e-3)
    np.testing.assert_array_equal(psp[:, [0, 2]], less[:, [0, 2]])


def test_evoked_response():
    """A short pulse in one network makes one response that fades."""
    times = np.arange(0, 100, 0.5)
    pulse = 0.0005 * (times / 5) ** 7 * np.exp(-times / 5)
    stimulus = np.stack([np.zeros(200), pulse])
    options = dict(n_networks=2, mu=0.05, noise_std=0, transient=3)
    psp = simulate_jansen_rit(1, stimulus=stimulus, **options)[:, 0]
    assert np.ptp(psp[0]) < 1e-3
    assert abs(psp[1, 0] - psp[0, 0]) < 1e-3  # it starts with the first sample
    assert psp[1].max() > psp[0].max() + 1
    assert abs(psp[1, -1] - psp[0, -1]) < 0.05


def test_picks(connectome):
    """Picked parcels are the same as in the whole."""
    psp = _run(connectome)
    np.testing.assert_array_equal(_run(connectome, picks=[3, 1]), psp[:, [3, 1]])
    picks = np.array([[0], [5], [2], [11], [7]])
    each = _run(connectome, picks=picks)
    np.testing.assert_array_equal(each, np.take_along_axis(psp, picks[..., None], 1))


def test_delay():
    """A tract of 30 mm at 3 m/s delays the response of its target by 10 ms."""
    weights = sparse.csr_array([[0.0, 20.0], [0.0, 0.0]])
    pair = Connectome(weights, 30 * (weights > 0).astype(float))
    rest = simulate_jansen_rit(0.1, pair, mu=0.05, noise_std=0, transient=5)
    options = dict(
        mu=0.05,
        noise_std=0,
        transient=5,
        stimulus=np.r_[np.zeros(100), np.full(20, 0.5)],
        stimulus_weights=[0, 1],
    )
    now = simulate_jansen_rit(0.5, pair, **options)[0]
    later = simulate_jansen_rit(0.5, pair, speed=3, **options)[0]
    np.testing.assert_allclose(now[1], later[1], atol=1e-4)
    np.testing.assert_allclose(later[0, 5:], now[0, :-5], atol=1e-4)
    assert now[0].max() > rest[0, 0].max() + 0.1


def test_uncoupled_parcels(connectome):
    """Without coupling a parcel's activity does not depend on the others' input."""
    mu = np.full((5, 12), 0.1)
    mu[:, 1:] = 0.2
    alone = _run(None, n_parcels=12, mu=0.1)
    np.testing.assert_array_equal(
        _run(connectome, mu=mu, coupling=0)[:, 0], alone[:, 0]
    )
    assert np.abs(_run(connectome, mu=0.1)[:, 0] - alone[:, 0]).max() > 0.1


def test_ctrl_c(monkeypatch, connectome):
    """Ctrl-C stops the threads and reaches the caller."""

    def interrupt(self, n_done):
        raise KeyboardInterrupt

    monkeypatch.setattr("mne.utils.ProgressBar.update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        simulate_jansen_rit(1e4, connectome, n_networks=32, picks=[0])


def test_ctrl_c_of_a_process():
    """A real interrupt, while threads integrate, ends a real process."""
    code = (
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from mne_deepsif import simulate_jansen_rit\n"
        "simulate_jansen_rit(0.1)\n"  # compile
        "print('running', flush=True)\n"
        "try:\n"
        "    simulate_jansen_rit(1e5, n_networks=32, sfreq=1.0, verbose='error')\n"
        "except KeyboardInterrupt:\n"
        "    print('stopped', flush=True)\n"
    )
    job = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert job.stdout.readline() == b"running\n"
    with pytest.raises(subprocess.TimeoutExpired):  # it is at work
        job.wait(0.5)
    job.send_signal(signal.SIGINT)
    out, _ = job.communicate(timeout=300)
    assert (out, job.returncode) == (b"stopped\n", 0)


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "options, match",
    [
        (dict(A=-1), r"A must be finite and from 0 to 1e\+06, got .* -1"),
        (dict(mu=np.nan), "mu must be finite"),
        (dict(mu=[0.1, np.nan]), "mu must be finite"),
        (dict(noise_std=np.inf), "noise_std must be finite"),
        (dict(A=1e7), r"A must be finite and from 0 to 1e\+06, got .* 1e\+07"),
        (dict(A=np.ones(3)), r"A must be a number or have the shape"),
        (dict(A=np.ones((2, 11))), r"\(2, 12\) here, got \(2, 11\)"),
        (dict(dt=5), "dt must be above 0 and at most 4 ms"),
        (dict(dt=0), "dt must be above 0"),
        (dict(dt=np.nan), "dt must be above 0"),
        (dict(dt=0.2, parameters=JansenRit(b=4.0)), "at most 0.1 ms"),
        (dict(sfreq=300), "whole number of steps"),
        (dict(sfreq=4000), "whole number of steps"),
        (dict(duration=0), "duration must be positive"),
        (dict(duration=np.nan), "duration must be positive and finite, got nan"),
        (dict(duration=0.001), "at least one sample"),
        (dict(transient=-1), "transient finite and not negative"),
        (dict(transient=np.nan), "transient finite and not negative"),
        (dict(n_networks=0), "n_networks and n_parcels must be positive"),
        (dict(n_parcels=-1), "n_networks and n_parcels must be positive"),
        (dict(random_state=-1), "random_state must not be negative"),
        (dict(n_parcels=5), "connectome has 12 parcels but n_parcels is 5"),
        (dict(coupling=-1), "coupling must be finite and from 0"),
        (dict(coupling=1e6), "coupling times the connectome's weights must be"),
        (dict(speed=0), "speed must be positive"),
        (dict(speed=np.nan), "speed must be positive"),
        (dict(speed=0.001), "delays of up to .* ms, but at most 1000 ms"),
        (dict(picks=[12]), "from 0 to 11"),
        (dict(picks=[0.5]), "picks must hold parcel numbers"),
        (dict(picks=[]), "picks must hold parcel numbers"),
        (dict(stimulus=np.ones(5000)), "stimulus has 5000 steps"),
        (dict(stimulus=[np.nan]), "stimulus must be finite"),
        (dict(stimulus=[1], stimulus_weights=np.inf), "stimulus_weights must be fin"),
        (dict(stimulus=np.ones((3, 9))), "stimulus must be a number or have the shape"),
        (dict(stimulus=[1], stimulus_weights=np.ones(5)), "stimulus_weights must"),
        (dict(initial=np.nan), "initial must be finite"),
        (dict(initial=np.zeros((5, 12))), "initial must be a number or have"),
        (dict(dtype="float16"), "dtype"),
    ],
)
def test_bad_input(connectome, options, match):
    """Each bad value has an error that names it."""
    options = dict(duration=1.0, connectome=connectome, n_networks=2) | options
    with pytest.raises(ValueError, match=match):
        simulate_jansen_rit(**options)


@pytest.mark.parametrize(
    "options",
    (
        dict(connectome="tvb"),
        dict(parameters=dict(a=0.1)),
        dict(n_networks=2.5),
        dict(n_parcels=2.5),
        dict(n_jobs="all"),
        dict(random_state=0.5),
        dict(duration="1"),
        dict(speed="3"),
        dict(A="high"),
        dict(stimulus="pulse"),
    ),
    ids=lambda options: next(iter(options)),
)
def test_bad_types(options):
    with pytest.raises(TypeError, match=f"{next(iter(options))} must be"):
        simulate_jansen_rit(**dict(duration=1.0) | options)


@pytest.mark.parametrize("value", (0, -0.1, np.nan, np.inf, 1e7))
@pytest.mark.parametrize("name", JansenRit.__dataclass_fields__)
def test_bad_constants(name, value):
    with pytest.raises(ValueError, match=f"{name} must be positive, from 1e-06 to"):
        JansenRit(**{name: value})


def test_bad_constant_type_and_bare_connectome():
    """Constants are numbers; tracts are needed for delays."""
    with pytest.raises(TypeError, match="a must be"):
        JansenRit(a="0.1")
    bare = Connectome(sparse.csr_array((2, 2)))
    with pytest.raises(ValueError, match="needs a connectome with tract_lengths"):
        simulate_jansen_rit(1, bare, speed=3)
    assert len(INPUT_SETTINGS) == 3

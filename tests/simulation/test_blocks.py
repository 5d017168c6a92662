"""Blocks of sixteen networks: the compiled integrator against plain NumPy."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import os
import shutil
import subprocess
import sys
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import mne_deepsif
from mne_deepsif.simulation._blocks import CHUNK, Block, ReferenceBlock, Tracts
from mne_deepsif.simulation._lanes import N_LANES
from mne_deepsif.simulation.jansen_rit import JansenRit

N_PARCELS = 7  # odd: the generator gives normals in pairs
DT = 0.5  # ms
# states of an active network: three potentials (mV), three slopes (mV / ms)
MIDDLE = np.array([0.05, 8.0, 6.0, 0.0, 0.0, 0.0])[:, np.newaxis]
SPREAD = np.array([0.03, 4.0, 3.0, 0.01, 0.5, 0.3])[:, np.newaxis]


@pytest.fixture
def tracts():
    """Give about half of all tracts, with delays of 0 to 5 steps."""
    rng = np.random.default_rng(1)
    there = rng.random((N_PARCELS, N_PARCELS)) < 0.5
    _, sources = np.nonzero(there)
    return Tracts(
        np.r_[0, np.cumsum(there.sum(1))].astype(np.int32),
        sources.astype(np.int32),
        rng.integers(0, 6, len(sources)).astype(np.int32),
        rng.uniform(0, 5, len(sources)),
        7,
    )


def draw_values(n_networks, noise_std=0.0, n_steps=0):
    """Draw what makes a block, of networks that are all different."""
    rng = np.random.default_rng(0)
    shape = (N_LANES, N_PARCELS)
    values = dict(
        A=rng.uniform(2, 4, shape),
        mu=rng.uniform(0.05, 0.2, shape),
        noise_std=np.full(shape, noise_std),
        initial=MIDDLE + SPREAD * rng.standard_normal((N_LANES, 6, N_PARCELS)),
        picks=np.tile(np.arange(N_PARCELS), (N_LANES, 1)),
        stimulus=rng.uniform(0, 0.3, (N_LANES, n_steps)),
        gates=rng.random(shape),
    )
    return {name: value[:n_networks] for name, value in values.items()}


def draw_state(n_networks):
    rng = np.random.default_rng(2)
    return rng.integers(1, 2**32, size=(4, N_LANES), dtype=np.uint32)[:, :n_networks]


def make(kind, tracts, n_networks=N_LANES, **kwargs):
    values = draw_values(n_networks, **kwargs)
    return kind(values, tracts, JansenRit(), DT, draw_state(n_networks))


def advance(block, n_steps):
    """Integrate; return the states (n_parcels, 6, 16), and the PSP of each step."""
    out = np.zeros((n_steps, N_PARCELS, N_LANES), block.x.dtype)
    block.advance(n_steps, block.stimulus[:n_steps], 1, out)
    return block.x[:, :6].astype(float), out


# --------------------------------------------------------------- the integrator


@pytest.mark.parametrize("n_stimulus", (0, 20))
@pytest.mark.parametrize("n_steps", (1, 20))
def test_steps_are_those_of_the_reference(tracts, n_steps, n_stimulus):
    """Without noise, from random states, through delays that go round the ring."""
    (one, psp), (two, expected) = (
        advance(make(kind, tracts, n_steps=n_stimulus), n_steps)
        for kind in (Block, ReferenceBlock)
    )
    start = draw_values(N_LANES)["initial"].transpose(2, 1, 0)
    assert (np.abs(two - start).max((0, 2)) > 1e-4).all()  # each state moves
    size = np.abs(two).max((0, 2), keepdims=True)  # each state has its own
    assert_allclose(one / size, two / size, atol=2e-5 * np.sqrt(n_steps))
    assert_allclose(psp, expected, atol=1e-3)


def test_a_step_is_heuns():
    """One parcel that nothing reaches: the rule written out, for each network."""
    p = JansenRit()
    empty = np.zeros(0, np.int32)
    alone = Tracts(np.zeros(2, np.int32), empty, empty, np.zeros(0), 2)
    values = {name: x[..., :1] for name, x in draw_values(N_LANES).items()}
    values["stimulus"] = np.zeros((N_LANES, 0))

    def sigmoid(v):
        return 2 * p.nu_max / (1 + np.exp(p.r * (p.v0 - v)))

    def slopes(y, A, mu):
        excited = mu + p.a2 * p.J * sigmoid(p.a1 * p.J * y[0])
        inhibited = p.a4 * p.J * sigmoid(p.a3 * p.J * y[0])
        return np.array(
            [
                *y[3:],
                A * p.a * sigmoid(y[1] - y[2]) - 2 * p.a * y[3] - p.a**2 * y[0],
                A * p.a * excited - 2 * p.a * y[4] - p.a**2 * y[1],
                p.B * p.b * inhibited - 2 * p.b * y[5] - p.b**2 * y[2],
            ]
        )

    y, A, mu = values["initial"][:, :, 0].T, values["A"][:, 0], values["mu"][:, 0]
    first = slopes(y, A, mu)
    expected = y + DT / 2 * (first + slopes(y + DT * first, A, mu))
    for kind, rtol in ((ReferenceBlock, 1e-12), (Block, 1e-5)):
        block = kind(values, alone, p, DT, draw_state(N_LANES))
        nothing = np.zeros(0, np.float32)
        block.advance(1, nothing, 0, nothing)
        tolerance = rtol * np.abs(expected).max(1, keepdims=True)
        assert (np.abs(block.x[0, :6] - expected) <= tolerance).all()


def test_noise_is_added_to_the_fifth_state_alone(tracts):
    """With the same size in both precisions, from the same draws."""
    quiet, noisy = (make(Block, tracts, noise_std=std) for std in (0.0, 1.5))
    reference = make(ReferenceBlock, tracts, noise_std=1.5)
    (still, _), (one, _), (two, _) = (advance(b, 1) for b in (quiet, noisy, reference))
    moved = np.abs(one - still).max((0, 2))
    std = 0.1 * 3.25 * 0.06 * 1.5 * np.sqrt(DT)
    assert_allclose((one - still)[:, 4].std(), std, rtol=0.2)
    # the rule's second half carries a share of it on, but not to these
    assert_allclose(moved[[0, 2, 3, 5]], 0, atol=1e-6)
    assert_allclose(one, two, atol=2e-5 * np.abs(two).max())
    assert_array_equal(noisy.state, reference.state)


# --------------------------------------------------------------- lanes


@pytest.mark.parametrize("n_networks", (1, 3, 15))
def test_unused_lanes_do_not_leak(tracts, n_networks):
    """Whatever they hold: the networks are those of a full block, bit by bit."""
    settings = dict(noise_std=1.0, n_steps=40)
    full, few = (make(Block, tracts, n, **settings) for n in (N_LANES, n_networks))
    rng = np.random.default_rng(5)
    few.x[..., n_networks:] = rng.uniform(-1e6, 1e6, few.x[..., n_networks:].shape)
    few.history[..., n_networks:] = 7.0
    few.gates[..., n_networks:] = -3.0
    few.state[..., n_networks:] = 12345
    outs = []
    for block in (full, few):
        out = np.zeros((n_networks, N_PARCELS, 2 * CHUNK), np.float32)
        n = block.n_networks
        whole = np.zeros((n, *out.shape[1:]), np.float32)
        block.run(whole, 5, 1, Event(), lambda first: None)
        outs.append(whole[:n_networks])
    assert outs[0].std() > 0.1
    assert_array_equal(outs[1], outs[0])


def test_unused_lanes_repeat_the_last_network(tracts):
    """Their numbers are those of a network, so they are as quick as one."""
    block = make(Block, tracts, 3)
    for array in (block.x, block.history):
        assert_array_equal(array[..., 3:], np.repeat(array[..., 2:3], 13, -1))
    assert (block.state != 0).any(0).all()  # zeros would give zeros for ever


def test_stop_ends_a_run(tracts):
    """Before the next chunk."""
    block, stop = make(Block, tracts), Event()
    out = np.full((N_LANES, N_PARCELS, 3 * CHUNK), np.nan, np.float32)
    block.run(out, 0, 1, stop, lambda first: stop.set())
    assert np.isfinite(out[..., :CHUNK]).all() and np.isnan(out[..., CHUNK:]).all()


# --------------------------------------------------------------- numba's cache

SIMULATE = """
import sys
import mne_deepsif
from mne_deepsif.simulation import _blocks
from mne_deepsif.simulation.jansen_rit import simulate_jansen_rit

assert mne_deepsif.__file__.startswith(sys.argv[1]), mne_deepsif.__file__
psp = simulate_jansen_rit(0.02, n_parcels=2, random_state=0, n_jobs=1)
stats = _blocks._integrate.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()), psp.tolist())
"""


@pytest.mark.slow
def test_numbas_cache_notices_changed_lanes(tmp_path):
    """Other constants in ``_lanes``: the integrator in ``_blocks`` is compiled anew."""
    source = Path(mne_deepsif.__file__).parent
    copy = tmp_path / "mne_deepsif"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__", "data"))
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    folder = str(tmp_path / "numba")
    environment = os.environ | dict(PYTHONPATH=path, NUMBA_CACHE_DIR=folder)

    def simulate():
        """Return the number of hits and misses, and the result."""
        command = [sys.executable, "-c", SIMULATE, str(tmp_path)]
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split(maxsplit=2)

    hits, misses, first = simulate()
    assert (hits, misses) == ("0", "1")
    lanes = copy / "simulation" / "_lanes.py"
    text = lanes.read_text(encoding="utf-8")
    assert text.count("(0.5, 1, 2, -2)") == 1  # the last one is Box and Muller's
    lanes.write_text(text.replace("(0.5, 1, 2, -2)", "(0.5, 1, 2, -3)"), "utf-8")
    hits, misses, changed = simulate()
    assert (hits, misses) == ("0", "1") and changed != first
    hits, misses, again = simulate()
    assert (hits, misses) == ("1", "0") and again == changed
    lanes.write_text(text, "utf-8")
    hits, _, back = simulate()
    assert back == first

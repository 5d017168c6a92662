"""The library: its contents, its cache, networks that run away."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import errno
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from mne_deepsif import make_template_parcels
from mne_deepsif.simulation import Library, waveforms
from mne_deepsif.simulation import library as module
from mne_deepsif.simulation.library import make_library

SMALL = dict(n_patches=120, n_waveforms=200, background=16.0)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Build in an empty folder; return where the libraries are kept."""
    monkeypatch.setenv("MNE_DEEPSIF_DATA", str(tmp_path))
    return tmp_path / "libraries"


@pytest.fixture(scope="module")
def library(coarse, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("data")
        patch.setenv("MNE_DEEPSIF_DATA", str(folder))
        return make_library(coarse, **SMALL)


@pytest.fixture
def cheap(monkeypatch):
    """Replace the simulation by a few random numbers; return its calls."""
    calls = []

    def fake(parcels, sfreq, *args, random_state, **kwargs):
        calls.append(random_state)
        rng = np.random.default_rng(random_state)
        arrays = [rng.standard_normal((3, 4)) for _ in range(4)]
        return Library(*arrays, sfreq)

    monkeypatch.setattr(module, "_make_library", fake)
    return calls


# --------------------------------------------------------------- the library


def test_library_contents(library, coarse):
    """Shapes, rates, peaks; patches of each seed; background of zero mean."""
    assert library.sfreq == 125.0
    assert library.waveforms.shape == (200, 192)  # 0.768 s either side
    waves = library.waveforms.astype(float)
    assert_allclose(np.abs(waves).max(1), 1, atol=1e-3)
    assert (np.abs(waves[:, 96]) > 0.5).all()
    seeds = np.bincount(library.patches[:, 0], minlength=40)
    assert_array_equal(seeds, 3)
    assert library.patches.shape == library.decay.shape
    background = library.background.astype(float)
    assert background.shape == (40, 16 * 125)
    assert_allclose(background.mean(1), 0, atol=0.01)
    assert_allclose(background.std(), 1, atol=0.1)
    assert len(np.unique(background.round(3), axis=0)) == 40


def test_library_is_deterministic(library, coarse, cache):
    """The same seed gives the same numbers, another one does not."""
    again = make_library(coarse, **SMALL)
    for name, value in library.asdict().items():
        assert_array_equal(getattr(again, name), value)
    other = make_library(coarse, random_state=1, papers_only=True, **SMALL)
    for name in ("decay", "waveforms", "background"):
        assert not np.array_equal(getattr(other, name), getattr(library, name))
    assert (other.waveforms[:, 96] > 0.5).all()  # spikes only: upright


# --------------------------------------------------------------- the cache


def test_second_call_reads_the_file(coarse, cache, cheap):
    first = make_library(coarse)
    (fname,) = cache.iterdir()
    written = fname.stat().st_mtime_ns
    second = make_library(coarse)
    assert len(cheap) == 1 and fname.stat().st_mtime_ns == written
    assert list(cache.iterdir()) == [fname]
    for name, value in first.asdict().items():
        assert_array_equal(getattr(second, name), value)
    assert isinstance(second.sfreq, float)


@pytest.mark.parametrize(
    "other",
    (
        dict(sfreq=250.0),
        dict(n_patches=100),
        dict(n_waveforms=100),
        dict(background=100.0),
        dict(papers_only=True),
        dict(random_state=1),
    ),
    ids=lambda other: next(iter(other)),
)
def test_other_parameters_make_another_file(coarse, cache, cheap, other):
    make_library(coarse)
    make_library(coarse, **other)
    assert len(cheap) == len(list(cache.iterdir())) == 2


def test_other_parcels_and_versions_make_another_file(
    coarse, parcels, cache, cheap, monkeypatch
):
    make_library(coarse)
    make_library(parcels)
    monkeypatch.setattr(module, "LIBRARY_VERSION", -1)
    make_library(coarse)
    assert len(cheap) == len(list(cache.iterdir())) == 3


def test_a_killed_build_leaves_nothing(coarse, cache, cheap, monkeypatch):
    """Half a folder is never left, and the next call builds anew."""

    def killed(fname, array):
        with open(fname, "wb") as file:
            file.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(np, "save", killed)
        make_library(coarse)
    assert list(cache.iterdir()) == []
    make_library(coarse)
    assert len(cheap) == 2


CHILD = """
import signal, sys, time
import mne, numpy as np
from mne_deepsif import make_template_parcels
from mne_deepsif.simulation import library as module
from mne_deepsif.simulation import Library

signal.signal(signal.SIGINT, signal.default_int_handler)
mne.set_log_level("ERROR")

def wait():
    print("here", flush=True)
    time.sleep(600)

def make(parcels, sfreq, **kwargs):
    if sys.argv[1] == "simulating":
        wait()
    return Library(*[np.ones((3, 4)) for _ in range(4)], sfreq)

save = np.save

def save_one(fname, array):
    if "decay" in str(fname):  # the second of four
        wait()
    save(fname, array)

module._make_library, np.save = make, save_one
module.make_library(make_template_parcels(40))
"""


@pytest.mark.parametrize("when", ("simulating", "writing"))
@pytest.mark.parametrize("number", (signal.SIGKILL, signal.SIGINT))
def test_a_process_that_is_killed(coarse, cache, cheap, number, when):
    """A real process ends amid a build: the next one builds, and reads no half."""
    command = [sys.executable, "-c", CHILD, when]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    job = subprocess.Popen(command, **pipes)
    assert job.stdout.readline() == b"here\n"
    job.send_signal(number)
    _, errors = job.communicate(timeout=300)
    assert job.returncode != 0
    left = list(cache.iterdir())
    if number == signal.SIGINT:
        assert b"KeyboardInterrupt" in errors and not left
    else:  # no time to clean up
        names = [part.name[:18] for part in left]
        assert names == [".mne_deepsif-part-"] * (when == "writing")
    library = make_library(coarse)
    assert len(cheap) == 1 and library.decay.std() > 0.1  # not the ones of the other
    assert set(left) < set(cache.iterdir())  # it might still have been at work


def test_leftovers_are_removed_after_a_day(coarse, cache, cheap):
    make_library(coarse, n_patches=1)
    (other,) = cache.iterdir()
    old, young = cache / ".mne_deepsif-part-old", cache / ".mne_deepsif-part-young"
    for folder in (old, young):
        folder.mkdir()
        (folder / "decay.npy").write_bytes(b"half")
    for folder in (old, other):
        os.utime(folder, (time.time() - 2 * 86400,) * 2)
    make_library(coarse)
    assert not old.exists() and young.exists() and other.exists()


def test_disk_that_fills_up(coarse, cache, cheap, monkeypatch):
    """Another program took the space meanwhile: an error, and nothing is left."""

    def full(fname, array):
        with open(fname, "wb") as file:
            file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(fname))

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(np, "save", full)
        make_library(coarse)
    assert list(cache.iterdir()) == []


def test_arrays_are_memory_mapped(coarse, cache, cheap):
    """Changes stay in memory, and torch takes the arrays without a warning."""
    library = make_library(coarse)
    for name in ("patches", "decay", "waveforms", "background"):
        array = getattr(library, name)
        assert isinstance(array, np.memmap) and array.flags.writeable
    before = library.background.copy()
    torch.as_tensor(library.background)[:] = 5
    assert_array_equal(library.background, 5)
    assert_array_equal(make_library(coarse).background, before)


def test_numbers_of_any_type_name_the_same_library(coarse, cache, cheap):
    make_library(coarse, 250, n_waveforms=np.int64(500), background=30)
    make_library(coarse, 250.0, n_waveforms=500, background=np.float32(30))
    assert len(cheap) == len(list(cache.iterdir())) == 1


@pytest.mark.parametrize(
    "name", [name for name in vars(waveforms) if name.isupper() and name[0] != "_"]
)
def test_other_constants_make_another_library(coarse, cache, cheap, monkeypatch, name):
    """Each public constant of the waveforms counts, those of the model included."""
    make_library(coarse)
    monkeypatch.setattr(waveforms, name, 2 * getattr(waveforms, name))
    make_library(coarse)
    assert len(cheap) == 2


def test_other_connectomes_make_another_library(coarse, cache, cheap):
    make_library(coarse)
    same = module.make_distance_connectome(coarse.centers, coarse.hemi)
    make_library(coarse, connectome=same)
    other = module.make_distance_connectome(coarse.centers, coarse.hemi, strength=9.0)
    make_library(coarse, connectome=other)
    assert len(cheap) == 2


def test_two_builds_at_once(coarse, cache, cheap, monkeypatch):
    """The first to finish wins, the other uses its library and leaves nothing."""
    make = module._make_library

    def slow(*args, **kwargs):
        with monkeypatch.context() as patch:
            patch.setattr(module, "_make_library", make)
            make_library(coarse)  # another process, done first
        return make(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_make_library", slow)
        first = make_library(coarse)
    assert len(cheap) == 2 and len(list(cache.iterdir())) == 1
    assert_array_equal(make_library(coarse).decay, first.decay)


TOGETHER = """
import os, sys, time
from pathlib import Path
import mne, numpy as np
from mne_deepsif import make_template_parcels
from mne_deepsif.simulation import library as module
from mne_deepsif.simulation import Library

mne.set_log_level("ERROR")

def make(parcels, sfreq, **kwargs):
    (Path(sys.argv[1]) / str(os.getpid())).touch()
    while len(os.listdir(sys.argv[1])) < 3:  # until all have begun
        time.sleep(0.01)
    return Library(*[np.full((500, 4000), os.getpid()) for _ in range(4)], sfreq)

module._make_library = make
library = module.make_library(make_template_parcels(40))
print(*{int(x) for x in np.ravel([library.patches, library.background])})
"""


@pytest.mark.slow
def test_many_processes_at_once(cache, tmp_path_factory):
    """Three real processes build the same library together: all read one's."""
    folder = str(tmp_path_factory.mktemp("begun"))
    command = [sys.executable, "-c", TOGETHER, folder]
    jobs = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]
    outs = [job.communicate(timeout=900)[0].decode() for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0, 0]
    assert outs[0] == outs[1] == outs[2]
    assert int(outs[0]) in [job.pid for job in jobs]
    (folder,) = cache.iterdir()
    assert len(list(folder.iterdir())) == 5


def test_not_enough_disk(coarse, cache, cheap, monkeypatch):
    """Said before the simulation, with what is needed and what to do."""
    monkeypatch.setattr(
        module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10e6)
    )
    with pytest.raises(OSError, match=r"needs 2\d MB on disk.*has 10 MB.*n_waveforms"):
        make_library(coarse)
    assert not cheap and list(cache.iterdir()) == []
    make_library(coarse, n_waveforms=1000)


# --------------------------------------------------------------- runaway networks


def test_runaway_networks_are_replaced(coarse, monkeypatch):
    """A network far above the others is simulated anew, the others are kept."""
    calls = []

    def fake(duration, connectome, *, n_networks, random_state):
        calls.append(n_networks)
        rng = np.random.default_rng(random_state)
        psp = 1.3 + 0.1 * rng.standard_normal((n_networks, 5, 100)).astype("f4")
        if len(calls) == 1:
            psp[[3, 8]] *= 1.6
        return psp

    monkeypatch.setattr(module, "simulate_jansen_rit", fake)
    background = module.make_background(None, 16.0, 0)
    assert calls == [16, 2]
    assert background.shape == (5, 1600)
    assert_allclose(background.std(), 1, rtol=1e-5)
    spread = background.reshape(5, 16, 100).std((0, 2))
    assert spread.max() < 1.2


def test_background_that_always_runs_away(monkeypatch):
    def fake(duration, connectome, *, n_networks, random_state):
        return np.repeat([1.0, 9.0], [9, 7])[:n_networks, None, None] * np.ones((5, 9))

    def later(*args, n_networks, **kwargs):
        if n_networks < 16:
            return np.full((n_networks, 5, 9), 9.0)
        return fake(*args, n_networks=n_networks, **kwargs)

    monkeypatch.setattr(module, "simulate_jansen_rit", later)
    with pytest.raises(RuntimeError, match="runs away again and again"):
        module.make_background(None, 16.0, 0)


# --------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("bad", "match"),
    (
        (dict(n_waveforms=0), "n_waveforms must be at least 10, got 0"),
        (dict(n_waveforms=9), "n_waveforms must be at least 10, got 9"),
        (dict(n_waveforms=-5, papers_only=True), "n_waveforms must be at least 1"),
        (dict(n_patches=0), "n_patches must be at least 1"),
        (dict(random_state=-1), "random_state must be at least 0"),
        (dict(sfreq=0.0), "sfreq must be from 10 to 4000 Hz, got 0"),
        (dict(sfreq=np.nan), "sfreq must be from 10 to 4000 Hz, got nan"),
        (dict(background=-1.0), "background must be at least 2 s"),
        (dict(background=np.nan), "background must be at least 2 s, got nan"),
        (dict(background=np.inf), "background must be at least 2 s, got inf"),
    ),
)
def test_bad_numbers(coarse, cache, cheap, bad, match):
    with pytest.raises(ValueError, match=match):
        make_library(coarse, **bad)
    assert not cheap and not cache.exists()


@pytest.mark.parametrize(
    "bad",
    (
        dict(n_waveforms=10.5),
        dict(n_patches=np.nan),
        dict(random_state=None),
        dict(sfreq="125"),
        dict(papers_only="yes"),
        dict(connectome="tvb"),
    ),
    ids=lambda bad: next(iter(bad)),
)
def test_bad_types(coarse, cache, cheap, bad):
    with pytest.raises(TypeError, match=f"{next(iter(bad))} must be"):
        make_library(coarse, **bad)


def test_connectome_of_the_wrong_size(coarse, cache, cheap):
    connectome = module.make_distance_connectome(coarse.centers[:30], coarse.hemi[:30])
    with pytest.raises(ValueError, match="as many parcels as .* 40, got 30"):
        make_library(coarse, connectome=connectome)
    with pytest.raises(TypeError, match="parcels must be"):
        make_library(coarse.centers)


def test_the_smallest_library(cache):
    """Ten waveforms, one of them a burst, of 12 parcels."""
    small = make_library(
        make_template_parcels(12), n_patches=3, n_waveforms=10, background=2.0
    )
    assert small.waveforms.shape == (10, 192) and small.patches.shape[0] == 3
    assert np.isfinite(small.waveforms).all() and np.isfinite(small.background).all()

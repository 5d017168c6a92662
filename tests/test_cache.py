"""Where files are kept, and that they appear whole or not at all."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import errno
import hashlib
import os
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import mne
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from mne_deepsif import cache, data_path
from mne_deepsif.cache import (
    cached,
    hash_file,
    remove_leftovers,
    whole_file,
    whole_folder,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_hash_of_a_file_and_of_a_folder(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert hash_file(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    whole = hash_file(tmp_path)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c").write_bytes(b"")
    assert hash_file(tmp_path) != whole


def test_data_path_follows_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MNE_DEEPSIF_DATA", str(tmp_path / "here"))
    assert data_path() == tmp_path / "here"
    assert data_path().is_dir()
    monkeypatch.delenv("MNE_DEEPSIF_DATA")
    monkeypatch.setenv("MNE_DATA", str(tmp_path))
    assert data_path() == tmp_path / "mne_deepsif"


# --------------------------------------------------------------- files


@pytest.mark.parametrize("overwrite", (True, False))
def test_a_file_appears_complete(tmp_path, overwrite):
    """Under a name with the same end, as writers look at it; then under its own."""
    fname = tmp_path / "x-src.fif"
    with whole_file(fname, overwrite) as part:
        assert part.parent == tmp_path and part.name.endswith("x-src.fif")
        part.write_text("half, ")
        assert not fname.exists()
        with part.open("a") as file:
            file.write("whole")
        assert not fname.exists()
    assert fname.read_text() == "half, whole"
    assert names(tmp_path) == ["x-src.fif"]


class DiskError(OSError):
    """What a disk that is full raises."""


@pytest.mark.parametrize("error", (ValueError, DiskError, KeyboardInterrupt))
@pytest.mark.parametrize("older", (True, False))
def test_an_error_leaves_nothing_of_a_file(tmp_path, error, older):
    """Neither a part nor the file; one that was there stays as it was."""
    fname = tmp_path / "x.txt"
    if older:
        fname.write_text("older")
    with pytest.raises(error), whole_file(fname) as part:
        part.write_text("half")
        raise error
    assert names(tmp_path) == ["x.txt"] * older
    assert not older or fname.read_text() == "older"


def test_an_older_file_is_replaced(tmp_path):
    fname = tmp_path / "x.txt"
    fname.write_text("older")
    with whole_file(fname) as part:
        part.write_text("newer")
        assert fname.read_text() == "older"
    assert fname.read_text() == "newer" and names(tmp_path) == ["x.txt"]


def test_a_file_that_appears_meanwhile(tmp_path):
    """Without overwrite it stays, and the later one is told."""
    fname = tmp_path / "x.txt"
    with pytest.raises(FileExistsError), whole_file(fname, overwrite=False) as part:
        part.write_text("later")
        fname.write_text("earlier")
    assert fname.read_text() == "earlier" and names(tmp_path) == ["x.txt"]


def test_a_disk_without_hard_links(tmp_path, monkeypatch):
    """FAT, some network drives: the file is renamed instead."""
    asked = []

    def refuse(*args):
        asked.append(args)
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with whole_file(tmp_path / "x.txt", overwrite=False) as part:
        part.write_text("whole")
    assert asked
    assert (tmp_path / "x.txt").read_text() == "whole"
    assert names(tmp_path) == ["x.txt"]


def test_threads_that_write_a_file_at_once(tmp_path):
    """All but one are told; the file is whole, and that of the one."""
    fname, together = tmp_path / "x.txt", threading.Barrier(4)

    def write(number):
        try:
            with whole_file(fname, overwrite=False) as part:
                part.write_text(str(number) * 10_000)
                together.wait(10)
        except FileExistsError:
            return None
        return number

    with ThreadPoolExecutor(4) as pool:
        (winner,) = {x for x in pool.map(write, range(4)) if x is not None}
    assert fname.read_text() == str(winner) * 10_000
    assert names(tmp_path) == ["x.txt"]


# --------------------------------------------------------------- folders


def test_a_folder_appears_complete(tmp_path):
    """Its parents are made; others may read it, as a folder of mkdir."""
    folder = tmp_path / "deep" / "down"
    with whole_folder(folder) as part:
        (part / "one").write_text("1")
        assert not folder.exists()
        (part / "two").write_text("2")
    assert names(folder) == ["one", "two"]
    assert names(tmp_path / "deep") == ["down"]
    if os.name == "posix":
        assert stat.S_IMODE(folder.stat().st_mode) == 0o755


@pytest.mark.parametrize("error", (ValueError, DiskError, KeyboardInterrupt))
def test_an_error_leaves_nothing_of_a_folder(tmp_path, error):
    with pytest.raises(error), whole_folder(tmp_path / "x") as part:
        (part / "one").write_text("half")
        raise error
    assert names(tmp_path) == []


def test_a_folder_that_appears_meanwhile(tmp_path):
    """It stays, and nobody minds: both hold the same."""
    folder = tmp_path / "x"
    with whole_folder(folder) as part:
        (part / "who").write_text("later")
        folder.mkdir()
        (folder / "who").write_text("earlier")
    assert (folder / "who").read_text() == "earlier"
    assert names(tmp_path) == ["x"]


def test_threads_that_write_a_folder_at_once(tmp_path):
    """It is that of one of them, whole."""
    folder, together = tmp_path / "x", threading.Barrier(2)

    def write(number):
        with whole_folder(folder) as part:
            (part / "one").write_text(str(number))
            together.wait(10)
            (part / "two").write_text(str(number))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, range(2)))
    assert names(tmp_path) == ["x"] and names(folder) == ["one", "two"]
    written = {(folder / name).read_text() for name in ("one", "two")}
    assert len(written) == 1 and written < {"0", "1"}


# --------------------------------------------------------------- leftovers


def test_leftovers_of_a_day_ago_go(tmp_path):
    """Files and folders of parts; younger ones and other files stay."""
    prefix = cache._PART
    for name in (f"{prefix}old", f"{prefix}young", "other"):
        (tmp_path / name).write_text("half")
        (tmp_path / f"{name}-folder").mkdir()
        (tmp_path / f"{name}-folder" / "x").write_text("half")
    hour = 3600
    for path in tmp_path.iterdir():
        age = 23 * hour if "young" in path.name else 25 * hour
        os.utime(path, (time.time() - age,) * 2)
    remove_leftovers(tmp_path)
    stay = [f"{prefix}young", f"{prefix}young-folder", "other", "other-folder"]
    assert names(tmp_path) == sorted(stay)


def test_leftovers_that_vanish_meanwhile(tmp_path, monkeypatch):
    """Their process has just finished: no error."""
    part = tmp_path / f"{cache._PART}old"
    part.write_text("half")
    os.utime(part, (0, 0))
    glob = type(tmp_path).glob

    def late(self, pattern):
        found = list(glob(self, pattern))
        part.unlink()
        return iter(found)

    monkeypatch.setattr(type(tmp_path), "glob", late)
    remove_leftovers(tmp_path)
    assert names(tmp_path) == []


# --------------------------------------------------------------- cached


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Keep in an empty folder; list what is made and read."""
    monkeypatch.setenv("MNE_DEEPSIF_DATA", str(tmp_path))
    return []


@pytest.fixture
def numbers(calls):
    """Make numbers, or read those that were made."""

    def get(params, name="numbers", write=np.save):
        def make():
            calls.append("make")
            return np.arange(5.0) + len(calls)

        def read(fname):
            calls.append("read")
            return np.load(fname)

        return cached(name, params, ".npy", read, write, make)

    return get


def test_made_once_and_read_after(calls, numbers, tmp_path):
    """The first answer is read as well, so all are the same."""
    first = numbers([1, "two"])
    assert calls == ["make", "read"]
    (name,) = names(tmp_path)
    assert name.startswith("numbers-") and name.endswith(".npy")
    assert_array_equal(first, np.arange(5.0) + 1)
    assert_array_equal(numbers([1, "two"]), first)
    assert calls == ["make", "read", "read"] and names(tmp_path) == [name]


def test_what_a_cached_file_depends_on(calls, numbers, tmp_path, monkeypatch):
    """Its parameters, its name, MNE's version and ours."""
    numbers(dict(a=1, b=2))
    numbers(dict(b=2, a=1))
    assert calls.count("make") == 1  # in any order
    numbers(dict(a=1, b=3))
    numbers(dict(a=1, b=2), name="others")
    monkeypatch.setattr(mne, "__version__", "0.0")
    numbers(dict(a=1, b=2))
    monkeypatch.setattr(cache, "_VERSION", -1)
    numbers(dict(a=1, b=2))
    assert calls.count("make") == len(names(tmp_path)) == 5


def test_a_cached_file_that_could_not_be_written(calls, numbers, tmp_path):
    """It is made anew, not read as half."""

    def fail(fname, content):
        fname.write_bytes(b"half")
        raise DiskError

    with pytest.raises(DiskError):
        numbers([1], write=fail)
    assert names(tmp_path) == [] and calls == ["make"]
    assert numbers([1]).shape == (5,)


def test_cached_removes_leftovers(numbers, tmp_path):
    old = tmp_path / f"{cache._PART}old"
    old.write_text("half")
    os.utime(old, (0, 0))
    numbers([1])
    assert not old.exists()

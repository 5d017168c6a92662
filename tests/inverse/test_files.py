"""Files of estimators: whole or not at all, read again years later, hostile ones."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import importlib
import json
import os
import stat
import tracemalloc
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone

from mne_deepsif import DeepSIFEstimator, Model, Parcels, apply_deepsif, read_deepsif
from mne_deepsif.inverse import files
from mne_deepsif.network.architectures import make_network
from mne_deepsif.network.encoder import N_KERNELS

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
STORED = Path(__file__).parents[1] / "data" / "format1-deepsif.safetensors"
EXPECTED = STORED.with_name("format1-estimate.npz")
N_TIMES, SEED = 16, 6
KINDS = (
    ("backprojection", "compact"),
    ("sensors", "compact"),
    ("sensors", "published"),
)


@pytest.fixture
def fname(tmp_path):
    return tmp_path / "x-deepsif.safetensors"


def make_small(encoder="backprojection", architecture="compact", **kwargs):
    """Put an estimator of 6 parcels together; its weights are random."""
    n_parcels = 6
    n_features = 5 if encoder == "sensors" else N_KERNELS * n_parcels
    sizes = {"width": 7, "gate_width": 5, "n_blocks": 2, "n_components": 3}
    if architecture == "published":
        sizes = {"n_hidden": 7, "n_layers": 2}
    net = make_network(architecture, n_features, n_parcels, N_TIMES, **sizes)
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    estimator = DeepSIFEstimator(None, encoder, architecture=architecture, **kwargs)
    parcels = Parcels(
        subject="nobody",
        mapping=np.repeat(np.arange(-1, n_parcels), 3),
        areas=np.full(n_parcels, 1e-4),
        centers=0.01 * np.eye(n_parcels, 3),
        adjacency=sparse.csr_array(
            np.eye(n_parcels, k=1) + np.eye(n_parcels, k=-1) > 0
        ),
        n_vertices_lh=12,
    )
    fingerprint = {
        "ch_names": ["Cz", "Pz"],
        "sensors": np.full((2, 3), 0.1, np.float32),
        "parcels": np.full((n_parcels, 3), np.nan, np.float32),
    }
    estimator.model_ = Model(
        network=net,
        encoder=encoder,
        parcels=parcels,
        sfreq=125.0,
        n_times=N_TIMES,
        architecture=architecture,
        ch_names=list("ABCDE") if encoder == "sensors" else None,
        recipe={"n_steps": 9},
        history=[(0, 1.0), (9, 0.5)],
        metrics={"localization_error": 4e-3},
        fingerprint=fingerprint,
    )
    return estimator


def estimate(estimator):
    """Estimate from fixed data that need no random numbers."""
    n_parcels = estimator.parcels_.n_parcels
    gain = np.sin(1.0 + np.arange(5 * n_parcels).reshape(5, -1))
    data = gain @ np.cos(np.arange(n_parcels * N_TIMES).reshape(n_parcels, -1) / 5)
    return estimator.model_.estimate(data, gain, estimator.sfreq_)


def state(estimator):
    return {k: v.numpy() for k, v in estimator.network_.state_dict().items()}


def assert_same(one, two):
    one, two = state(one), state(two)
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert_array_equal(value, two[name], err_msg=name)


# --------------------------------------------------------------- there and back


@pytest.mark.parametrize(("encoder", "architecture"), KINDS)
def test_all_comes_back(fname, encoder, architecture):
    estimator = make_small(encoder, architecture)
    estimator.save(fname)
    again = read_deepsif(fname)
    assert_same(again, estimator)
    assert estimate(again).any()
    assert_array_equal(estimate(again), estimate(estimator))
    names = ("sfreq_", "n_times_", "ch_names_", "history_", "recipe_", "metrics_")
    for name in names:
        assert getattr(again, name) == getattr(estimator, name), name
    for name, value in estimator.fingerprint_.items():
        assert_array_equal(again.fingerprint_[name], value)
    for name in ("subject", "mapping", "areas", "centers", "n_vertices_lh"):
        value = getattr(estimator.parcels_, name)
        assert_array_equal(getattr(again.parcels_, name), value)
    assert (again.parcels_.adjacency != estimator.parcels_.adjacency).nnz == 0
    assert not again.network_.training
    again.save(fname, overwrite=True)
    assert_array_equal(estimate(read_deepsif(fname)), estimate(estimator))


def test_model_without_metrics_and_fingerprint(fname):
    """As the generic weights are, in half precision."""
    estimator = make_small()
    estimator.model_ = replace(estimator.model_, metrics=None, fingerprint=None)
    files.write_model(estimator.model_, fname, {}, dtype=np.float16)
    again = read_deepsif(fname)
    assert again.metrics_ is None and again.fingerprint_ is None
    for name, value in state(estimator).items():
        assert_array_equal(state(again)[name], value.astype(np.float16))


def test_numbers_of_numpy(fname):
    """They come from a parameter search, say; a generator is not kept."""
    kwargs = dict(n_steps=np.int64(7), learning_rate=np.float32(0.5))
    estimator = make_small(random_state=np.random.RandomState(0), **kwargs)
    metrics = {"curve": np.arange(3), "nothing": None}
    estimator.model_ = replace(estimator.model_, metrics=metrics)
    estimator.save(fname)
    again = read_deepsif(fname)
    assert (again.n_steps, again.learning_rate, again.random_state) == (7, 0.5, None)
    assert again.metrics_ == {"curve": [0, 1, 2], "nothing": None}


def test_what_belongs_to_a_machine_is_not_kept(fname):
    estimator = make_small(device="cpu", checkpoint=fname, verbose=True)
    estimator.save(fname)
    again = read_deepsif(fname)
    assert (again.device, again.checkpoint, again.verbose) == ("auto", None, None)
    # nor believed where a file has it: fit would open the checkpoint
    rewrite(fname, lambda header, _: header["params"].update(checkpoint="/etc/passwd"))
    assert read_deepsif(fname).checkpoint is None


def test_parcels_of_another_subject(tiny_estimator, fname):
    """A parcellation whose left hemisphere has another number of vertices."""
    estimator = clone(tiny_estimator)
    vars(estimator).update(vars(tiny_estimator))
    mapping = np.repeat(np.arange(200), 10)
    parcels = replace(
        tiny_estimator.parcels_, subject="bert", mapping=mapping, n_vertices_lh=700
    )
    estimator.model_ = replace(tiny_estimator.model_, parcels=parcels)
    estimator.save(fname)
    parcels = read_deepsif(fname).parcels_
    assert parcels.subject == "bert"
    assert_array_equal(parcels.hemi, np.repeat([0, 1], [70, 130]))


# --------------------------------------------------------------- a file from before


def test_file_of_format_1(fname):
    """What was stored in November 2026 is read, and the network answers the same.

    What is made of the answer has changed since, and may again: see the decisions.
    """
    assert STORED.stat().st_size < 100_000
    expected = np.load(EXPECTED)
    estimator = read_deepsif(STORED)
    assert estimator.recipe_ == {"n_steps": 9}
    assert estimator.history_ == [(0, 1.0), (9, 0.5)]
    X = np.sin(np.arange(N_TIMES * expected["n_features"]))
    X = torch.as_tensor(X.reshape(1, N_TIMES, -1), dtype=torch.float32)
    with torch.inference_mode():
        Y = estimator.network_(X).numpy()
    assert_allclose(Y, expected["Y"], atol=1e-5 * np.abs(expected["Y"]).max())
    out, before = estimate(estimator), expected["sources"]
    assert before.any()
    assert_allclose(out, before, atol=1e-4 * np.abs(before).max())


def test_file_of_another_format(fname):
    make_small().save(fname)
    rewrite(fname, lambda header, _: header.update(format_version=99))
    match = "format version 99, this version of the package reads 1: another version of"
    with pytest.raises(ValueError, match=match):
        read_deepsif(fname)


def test_early_files_have_no_checksum(fname):
    """Nor metrics, nor a fingerprint."""
    estimator = make_small()
    estimator.save(fname)

    def forget(header, arrays):
        del header["metrics_"], header["fingerprint_ch_names"], header["checksum"]
        del arrays["fingerprint.sensors"], arrays["fingerprint.parcels"]

    rewrite(fname, forget, checksum=False)
    again = read_deepsif(fname)
    assert_array_equal(estimate(again), estimate(estimator))
    assert again.metrics_ is None and again.fingerprint_ is None


def write_stored():
    """Write the stored file and what it estimates: once per format, then keep them."""
    STORED.unlink(missing_ok=True)
    estimator = make_small()
    estimator.save(STORED)
    n_features = N_KERNELS * estimator.parcels_.n_parcels
    X = np.sin(np.arange(N_TIMES * n_features)).reshape(1, N_TIMES, -1)
    with torch.inference_mode():
        Y = estimator.network_(torch.as_tensor(X, dtype=torch.float32)).numpy()
    sources = estimate(estimator)
    np.savez(EXPECTED, n_features=n_features, Y=Y, sources=sources)


# --------------------------------------------------------------- saving


def test_save_does_not_overwrite_by_itself(fname):
    fname.write_text("precious")
    estimator = make_small()
    with pytest.raises(FileExistsError, match="x-deepsif.*exists; use overwrite=True"):
        estimator.save(fname)
    assert fname.read_text() == "precious"
    estimator.save(fname, overwrite=True)
    assert_same(read_deepsif(fname), estimator)


def test_save_leaves_one_file_as_others_are(fname, tmp_path):
    """Readable by whom the umask allows, not by the owner alone."""
    for overwrite in (False, True):
        make_small().save(fname, overwrite=overwrite)
        assert list(tmp_path.iterdir()) == [fname]
    other = tmp_path / "other"
    other.write_text("")
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (fname, other)]
    assert modes[0] == modes[1]


@pytest.mark.parametrize("overwrite", (True, False))
def test_save_on_a_full_disk(fname, tmp_path, monkeypatch, overwrite):
    """No half file, and the old one is as it was."""
    if overwrite:
        fname.write_text("precious")

    def full(path, content):
        with open(path, "wb") as file:
            file.write(content[:100])
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(type(fname), "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        make_small().save(fname, overwrite=overwrite)
    assert list(tmp_path.iterdir()) == [fname] * overwrite
    assert not overwrite or fname.read_text() == "precious"


def test_save_interrupted(fname, tmp_path, monkeypatch):
    def ctrl_c(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        make_small().save(fname, overwrite=True)
    assert list(tmp_path.iterdir()) == []


@contextmanager
def not_root():
    """Root may write anywhere: be somebody else for a moment."""
    if os.name != "posix" or os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_save_where_one_may_not_write(fname, tmp_path):
    estimator = make_small()
    estimator.save(fname)  # all modules are imported
    fname.unlink()
    tmp_path.chmod(0o555)
    try:
        with not_root(), pytest.raises(PermissionError, match=tmp_path.name):
            estimator.save(fname)
    finally:
        tmp_path.chmod(0o755)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("overwrite", (True, False))
def test_save_over_a_folder(tmp_path, overwrite):
    folder = tmp_path / "weights"
    folder.mkdir()
    with pytest.raises(IsADirectoryError, match="weights' is a folder; give the name"):
        make_small().save(folder, overwrite=overwrite)
    assert list(tmp_path.iterdir()) == [folder] and list(folder.iterdir()) == []


def test_save_in_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="folder of fname=.*x' does not exist"):
        make_small().save(tmp_path / "nowhere" / "x")


def test_save_what_is_no_file_name():
    with pytest.raises(TypeError, match="fname must be an instance of path-like"):
        make_small().save(3)


@pytest.mark.parametrize("overwrite", (True, False))
def test_save_at_once(fname, tmp_path, overwrite):
    """One of them remains, whole; without overwrite the others hear of it."""
    estimators = [make_small(n_steps=n) for n in range(1, 9)]

    def save(estimator):
        try:
            estimator.save(fname, overwrite=overwrite)
        except FileExistsError as error:
            assert "use overwrite=True" in str(error)
            return None
        return estimator.n_steps

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(save, estimators))
    done = [n_steps for n_steps in done if n_steps]
    assert len(done) == (8 if overwrite else 1)
    assert read_deepsif(fname).n_steps in done
    assert list(tmp_path.iterdir()) == [fname]


def test_save_on_a_file_system_without_links(fname, tmp_path, monkeypatch):
    def cannot(*args):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", cannot)
    make_small().save(fname)
    assert read_deepsif(fname).n_times_ == N_TIMES
    assert list(tmp_path.iterdir()) == [fname]


# --------------------------------------------------------------- wrong files


def test_read_what_is_not_there(tmp_path, fname):
    for path in (fname, tmp_path):
        with pytest.raises(FileNotFoundError, match="does not exist"):
            read_deepsif(path)
    with pytest.raises(TypeError, match="fname must be an instance of path-like"):
        read_deepsif(None)


def rewrite(fname, change=lambda header, arrays: None, checksum=True):
    """Write a file again, its header and arrays changed."""
    arrays = safetensors.numpy.load_file(fname)
    with safetensors.safe_open(fname, "numpy") as file:
        header = json.loads(file.metadata()["mne_deepsif"])
    change(header, arrays)
    arrays = {k: np.ascontiguousarray(v) for k, v in arrays.items()}
    metadata = {"mne_deepsif": json.dumps(header)}
    if checksum:
        metadata["sha256"] = files._checksum(metadata["mne_deepsif"], arrays)
    safetensors.numpy.save_file(arrays, fname, metadata)


def put(name, value):
    """Return a change of one array."""

    def change(header, arrays):
        new = value(arrays[name].copy()) if callable(value) else value
        arrays[name] = np.asarray(new)

    return change


def tell(**entries):
    """Return a change of the header."""
    return lambda header, arrays: header.update(entries)


def size(**sizes):
    """Return a change of the network's sizes."""
    return lambda header, arrays: header["sizes"].update(sizes)


def poison(array):
    array.flat[0] = np.nan
    return array


WRONG = {
    "newer format": (tell(format_version=2), "format version 2"),
    "no format": (lambda h, a: h.pop("format_version"), "no entry 'format_version'"),
    "no areas": (lambda h, a: a.pop("parcels.areas"), "no entry 'parcels.areas'"),
    "no parcels": (put("parcels.areas", np.zeros(0)), "areas"),
    "too many parcels": (put("parcels.areas", np.ones(5001)), "areas.*up to 5000"),
    "areas not finite": (put("parcels.areas", poison), "areas"),
    "areas negative": (put("parcels.areas", lambda x: -x), "areas"),
    "areas of text": (put("parcels.areas", np.zeros(6, np.uint8)), "areas"),
    "centers of others": (put("parcels.centers", np.zeros((5, 3))), "centers"),
    "centers not finite": (put("parcels.centers", poison), "centers"),
    "mapping too large": (put("parcels.mapping", lambda x: x + 1), "mapping"),
    "mapping too small": (put("parcels.mapping", lambda x: x - 1), "mapping"),
    "mapping of floats": (put("parcels.mapping", lambda x: x * 1.0), "mapping"),
    "mapping of two axes": (put("parcels.mapping", lambda x: x[None]), "mapping"),
    "edges out of range": (put("parcels.edges", lambda x: x + 10**6), "edges"),
    "edges negative": (put("parcels.edges", lambda x: x - 1), "edges"),
    "edges of one": (put("parcels.edges", lambda x: x[:1]), "edges"),
    "hemisphere": (tell(n_vertices_lh=10**9), "n_vertices_lh is 1000000000, for 21"),
    "half a hemisphere": (tell(n_vertices_lh=1.5), "n_vertices_lh is 1.5"),
    "subject": (tell(subject=["x"]), "subject must be an instance of str"),
    "no weight": (lambda h, a: a.pop("network.embed.weight"), "'embed.weight' is miss"),
    "unknown weight": (put("network.more", [1.0]), "weight 'more'"),
    "weight of other size": (
        put("network.embed.weight", lambda x: x[:, 1:]),
        "'embed.weight'.*another size",
    ),
    "weight not finite": (
        put("network.embed.weight", poison),
        "embed.weight must hold",
    ),
    "weight beyond float32": (
        put("network.embed.weight", lambda x: x.astype(float) + 1e300),
        "embed.weight must hold",
    ),
    "integer weights": (
        put("network.embed.weight", lambda x: x.astype(int)),
        "embed.weight must hold",
    ),
    "weights that overflow": (
        put("network.readout.weight", lambda x: np.full_like(x, 3e38)),
        "",
    ),
    "terabytes wide": (size(width=10**9), "width=1000000000"),
    "endless blocks": (size(n_blocks=10**9), "n_blocks=10000"),
    "no width": (size(width=-7), "width=-7"),
    "width of nothing": (size(width=0), "another size"),
    "gates of nothing": (size(gate_width=0), "another size"),
    "empty weight": (put("network.embed.weight", lambda x: x[:0]), "must hold finite"),
    "sizes of lists": (size(width=[7] * 9), "width must be an instance"),
    "unknown size": (size(depth=3), "depth"),
    "sizes no dict": (tell(sizes=3), ""),
    "terabytes of features": (tell(n_features=10**12), "n_features=1000000000000"),
    "features of others": (tell(n_features=6), "another size"),
    "endless window": (tell(n_times_=10**12), "n_times_ must be in"),
    "half a sample": (tell(n_times_=16.5), "n_times_ must be an instance of int"),
    "no rate": (lambda header, _: header.pop("sfreq_"), "no entry 'sfreq_'"),
    "endless rate": (tell(sfreq_=1e300), "sfreq_ must be in"),
    "rate not a number": (tell(sfreq_=float("nan")), "sfreq_ must be in"),
    "hardly any rate": (tell(sfreq_=1e-300), "its window is 1.6e.301 s long"),
    "rate of zero": (tell(sfreq_=0), "sfreq_ must be in"),
    "channels": (tell(ch_names_=["Cz"]), "ch_names_ must be null"),
    "history": (tell(history_=[1, 2]), ""),
    "recipe": (tell(recipe_="secret"), "recipe_ must be an instance of dict"),
    "metrics": (tell(metrics_=[1]), "metrics_ must be an instance of dict"),
    "fingerprint's names": (tell(fingerprint_ch_names=["Cz"] * 2), "different names"),
    "fingerprint of others": (put("fingerprint.parcels", np.zeros((3, 3))), "points"),
    "unknown parameter": (lambda h, a: h["params"].update(magic=1), "magic"),
    "unknown encoder": (lambda h, a: h["params"].update(encoder="x"), "'encoder' par"),
    "parameters no dict": (tell(params=[]), ""),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_content(fname, name):
    """One clear error: which file, what is wrong, what to give instead."""
    change, match = WRONG[name]
    make_small().save(fname)
    rewrite(fname, change)
    match = f"(?s)x-deepsif.*is not a readable mne_deepsif estimator.*{match}.*"
    with pytest.raises(ValueError, match=match + r"DeepSIFEstimator\.save"):
        read_deepsif(fname)


@pytest.mark.parametrize("names", (list("ABCD"), list("ABCDD"), list("ABCD") + [1], 3))
def test_wrong_channels(fname, names):
    make_small("sensors").save(fname)
    rewrite(fname, tell(ch_names_=names))
    with pytest.raises(ValueError, match="x-deepsif.*ch_names_ must be"):
        read_deepsif(fname)


def nested(fname):
    text = "[" * 10**5
    safetensors.numpy.save_file({}, fname, {"mne_deepsif": text})


@pytest.mark.parametrize(
    "wrong",
    (
        lambda f: f.write_text("hello, this is no estimator"),
        lambda f: f.write_bytes(b""),
        lambda f: f.write_bytes(f.read_bytes()[:-1000]),
        lambda f: f.write_bytes(f.read_bytes() + b"more"),
        lambda f: f.write_bytes(b"\xff" * 8 + f.read_bytes()[8:]),  # header of 2^64
        lambda f: f.write_bytes((10**8).to_bytes(8, "little") + f.read_bytes()[8:]),
        lambda f: safetensors.numpy.save_file({"x": np.zeros(3)}, f),
        lambda f: safetensors.numpy.save_file({}, f, {"mne_deepsif": "[not json"}),
        lambda f: safetensors.numpy.save_file({}, f, {"mne_deepsif": "3"}),
        nested,
    ),
    ids=(
        *("text", "empty", "truncated", "longer", "endless header", "long header"),
        *("other safetensors", "other header", "number", "nested"),
    ),
)
def test_wrong_file(fname, wrong):
    make_small().save(fname)
    wrong(fname)
    match = "(?s)x-deepsif.*is not a readable mne_deepsif estimator.*; give a file that"
    with pytest.raises(ValueError, match=match):
        read_deepsif(fname)


def test_one_bit_is_enough(fname):
    """A weight with another sign is no less a weight: the checksum tells."""
    make_small().save(fname)
    arrays = safetensors.numpy.load_file(fname)
    content = bytearray(fname.read_bytes())
    at = content.index(arrays["network.embed.weight"].tobytes())
    content[at + 3] ^= 0x80
    fname.write_bytes(content)
    with pytest.raises(ValueError, match="x-deepsif.*its checksum is wrong"):
        read_deepsif(fname)


def test_checksum_of_another_name(fname):
    """Damage may hide the checksum, which does not make the file an early one."""
    make_small().save(fname)
    fname.write_bytes(fname.read_bytes().replace(b'"sha256":', b'"sha257":'))
    with pytest.raises(ValueError, match="x-deepsif.*its checksum is wrong"):
        read_deepsif(fname)


def test_percent_in_the_name(tmp_path):
    fname = tmp_path / "100%s of %d %(x)s-deepsif.safetensors"
    fname.write_text("no estimator")
    with pytest.raises(ValueError) as info:
        read_deepsif(fname)
    assert "100%s of %d %(x)s-deepsif" in str(info.value)


def test_nothing_in_a_file_is_executed(fname, tmp_path):
    """A pickle by the name of an estimator is refused, not loaded."""

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "boom"),)

    torch.save(Bomb(), fname)
    with pytest.raises(ValueError, match="is not a readable"):
        read_deepsif(fname)
    assert list(tmp_path.iterdir()) == [fname]


def test_not_allowed_to_read(fname):
    """That is the system's to say: nothing is wrong with the file."""
    make_small().save(fname)
    read_deepsif(fname)  # all modules are imported
    fname.chmod(0)
    with not_root(), pytest.raises(PermissionError):
        read_deepsif(fname)


# --------------------------------------------------------------- fuzz


def _flip(content, rng):
    content = bytearray(content)
    for _ in range(rng.integers(1, 9)):
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    return content


def _flip_header(content, rng):
    n_header = 8 + int.from_bytes(content[:8], "little")
    return bytes(_flip(content[:n_header], rng)) + content[n_header:]


def _truncate(content, rng):
    return content[: rng.integers(len(content))]


def _extend(content, rng):
    return content + rng.bytes(rng.integers(1, 2000))


def _overwrite(content, rng):
    start, size = rng.integers(len(content)), rng.integers(1, 64)
    return content[:start] + rng.bytes(size) + content[start + size :]


def _delete(content, rng):
    start, size = rng.integers(len(content)), rng.integers(1, 64)
    return content[:start] + content[start + size :]


def _resize_header(content, rng):
    size = int(rng.choice([0, 1, 7, 10**8, 2**31, 2**63, rng.integers(5000)]))
    return size.to_bytes(8, "little") + content[8:]


def _noise(content, rng):
    return rng.bytes(rng.integers(3000))


VALUES = (
    *(None, True, "", "x", "sensors", "published", 0, 1, -1, 7, 12, 2**31, 2**63),
    *(10**12, 10**400, 0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf")),
    *([], [[]], {}, {"width": 10**10}, [1] * 1000, ["A"] * 5, "\x00", "é%s"),
)


def _change_header(header, arrays, rng):
    place = header
    while True:
        key = rng.choice(sorted(place))
        if not (isinstance(place[key], dict) and place[key] and rng.random() < 0.7):
            break
        place = place[key]
    if rng.random() < 0.15:
        del place[key]
    else:
        place[key] = VALUES[rng.integers(len(VALUES))]


def _change_array(header, arrays, rng):
    name = rng.choice(sorted(arrays))
    array = arrays.pop(name)
    kinds = (
        lambda: array.astype(rng.choice(["f8", "f2", "i1", "u8", "i8", "?"])),
        lambda: array[..., : rng.integers(array.shape[-1] + 1)],
        lambda: np.repeat(array, rng.integers(2, 5), 0),
        lambda: array.reshape(-1),
        lambda: array[None],
        lambda: array.T,
        lambda: array * array.dtype.type(rng.choice([-1, 0, 3, 100])),
        lambda: array + array.dtype.type(rng.choice([-1, 1, 7, 100])),
        lambda: np.full_like(array, rng.choice([np.nan, np.inf, 1e4])),
        lambda: np.zeros((0, 10**15)),
        lambda: None,
    )
    with np.errstate(all="ignore"):
        changed = kinds[rng.integers(len(kinds))]()
    if changed is not None:
        arrays[name] = changed


BYTES = (_flip, _flip_header, _truncate, _extend, _overwrite, _delete, _resize_header)
BYTES += (_noise,)
CONTENTS = (_change_header, _change_array)


def outcome_of(fname):
    """Read; return "error" or "read", and fail on anything that is neither."""
    try:
        estimator = read_deepsif(fname)
    except ValueError as error:
        assert repr(str(fname)) in str(error) and "is not a readable" in str(error)
        return "error"
    n_parcels, n_times = estimator.parcels_.n_parcels, estimator.n_times_
    n_channels = len(estimator.ch_names_ or "12345")
    data = np.cos(np.arange(n_channels * n_times)).reshape(n_channels, -1)
    gain = np.sin(1.0 + np.arange(n_channels * n_parcels)).reshape(n_channels, -1)
    sources = estimator.model_.estimate(data, gain, estimator.sfreq_)
    assert sources.shape == (n_parcels, n_times)
    assert np.isfinite(sources).all()
    return "read"


def content_of(fname):
    with safetensors.safe_open(fname, "numpy") as file:
        text = file.metadata()["mne_deepsif"]
    return files._checksum(text, safetensors.numpy.load_file(fname))


def fuzz(folder, n_cases, seed=0):
    """Damage files in all ways in turn; count the outcomes by kind of damage."""
    rng = np.random.default_rng(seed)
    fname, counts = folder / "fuzz-deepsif.safetensors", Counter()
    originals = []
    for kind in KINDS:
        make_small(*kind).save(fname, overwrite=True)
        originals.append(fname.read_bytes())
    kinds = BYTES + CONTENTS
    for case in range(n_cases):
        kind, original = kinds[case % len(kinds)], originals[rng.integers(3)]
        if kind in BYTES:
            fname.write_bytes(kind(original, rng))
        else:
            fname.write_bytes(original)
            rewrite(fname, lambda header, arrays, kind=kind: kind(header, arrays, rng))
        outcome = outcome_of(fname)
        if kind in BYTES and outcome == "read":  # the name of the checksum is damaged
            outcome = "content unchanged"
            changed = content_of(fname)
            fname.write_bytes(original)
            assert changed == content_of(fname), kind
        counts[f"{kind.__name__.removeprefix('_')}: {outcome}"] += 1
    assert os.listdir(folder) == [fname.name]
    return counts


def test_fuzz(tmp_path):
    """Damage is one error; what is still read works."""
    counts = fuzz(tmp_path, 300)
    assert sum(n for key, n in counts.items() if key.endswith("error")) > 200


@pytest.mark.nightly
def test_fuzz_for_long(tmp_path):
    """The figures are in doc/files.rst."""
    counts = fuzz(tmp_path, 12_000, seed=1)
    print("\n".join(f"{n:6d} {key}" for key, n in sorted(counts.items())))  # noqa: T201
    assert sum(counts.values()) == 12_000


def test_mutated_files(tmp_path, monkeypatch):
    """Mutations that know the format; figures of a longer run are in doc/files.rst."""
    if not SCRIPTS.is_dir():
        pytest.skip(f"needs {SCRIPTS}")
    monkeypatch.syspath_prepend(SCRIPTS.parent)
    mutated_files = importlib.import_module("benchmarks.studies.mutated_files")
    found = mutated_files.run(tmp_path, 420, seed=1)
    assert found["problems"] == [] and found["left"] == []
    assert max(found["peak_mb"].values()) < 200
    counts = found["counts"]
    assert all(count["refused"] > 0 for count in counts.values())
    # some are harmless: they reach what the others do not
    assert sum(count.get("read", 0) for count in counts.values()) > 40


@pytest.mark.parametrize("n_times", (3_997, 9_999))
def test_long_windows_in_a_file(fname, n_times):
    """A file of 7 kB asks for the longest window: that needs little memory.

    So do windows whose short ones are nearly as long as a matrix may be.
    """
    for kind in KINDS:
        make_small(*kind).save(fname, overwrite=True)
        rewrite(fname, tell(n_times_=n_times, sfreq_=100))
        tracemalloc.start()
        assert read_deepsif(fname).n_times_ == n_times
        assert tracemalloc.get_traced_memory()[1] < 30e6
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("encoder", "architecture", "name"),
    (
        ("sensors", "published", "spatial.fc22.weight"),
        ("backprojection", "compact", "readout.weight"),
    ),
)
def test_weights_that_overflow_in_use(encoder, architecture, name):
    """What reads well may fail on other data: with one clear error."""
    estimator = make_small(encoder, architecture)
    with torch.no_grad():
        estimator.network_.get_parameter(name).fill_(3e38)
    data, gain = np.ones((5, N_TIMES)), np.ones((5, 6))
    with pytest.raises(ValueError, match="answer is not finite.*weights.*'generic'"):
        estimator.model_.estimate(data, gain, estimator.sfreq_)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner)
    ),
    max_leaves=5,
)
entries = ("params", "n_features", "sizes", "subject", "n_vertices_lh", "sfreq_")
entries += ("n_times_", "ch_names_", "history_", "recipe_", "metrics_")
entries += ("fingerprint_ch_names", "format_version", "something")


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from(entries), json_values, min_size=1, max_size=3))
def test_any_json_in_the_header(tmp_path_factory, changes):
    fname = tmp_path_factory.getbasetemp() / "json-deepsif.safetensors"
    fname.write_bytes(STORED.read_bytes())
    rewrite(fname, lambda header, _: header.update(changes))
    outcome_of(fname)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.binary(max_size=300))
def test_any_bytes(tmp_path_factory, content):
    fname = tmp_path_factory.getbasetemp() / "bytes-deepsif.safetensors"
    fname.write_bytes(content)
    assert outcome_of(fname) == "error"


# --------------------------------------------------------------- in use


def test_estimator_by_file_name(tiny_estimator, fname, eeg_info, eeg_fwd):
    import mne

    tiny_estimator.save(fname)
    data = 1e-6 * np.sin(np.outer(np.arange(1, 33), np.arange(50) / 9))
    evoked = mne.EvokedArray(data, eeg_info)
    cov = mne.make_ad_hoc_cov(eeg_info)
    expected = apply_deepsif(evoked, eeg_fwd, cov, estimator=tiny_estimator)
    assert expected.data.any()
    for name in (fname, str(fname)):
        stc = apply_deepsif(evoked, eeg_fwd, cov, estimator=name)
        assert_array_equal(stc.data, expected.data)


if __name__ == "__main__":
    write_stored()

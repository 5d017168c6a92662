"""Pretrained weights: names, checks, download, and what the generic ones find."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import errno
import gzip
import hashlib
import os
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from time import sleep
from time import time as now

import mne
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mne_deepsif import (
    DeepSIFEstimator,
    Model,
    apply_deepsif,
    assign_vertices,
    fetch_weights,
    make_template_bem,
    make_template_parcels,
    make_template_trans,
    metrics,
)
from mne_deepsif import estimator as estimator_module
from mne_deepsif.head.leadfield import make_leadfield
from mne_deepsif.inverse import weights
from mne_deepsif.inverse.weights import load_model
from mne_deepsif.simulation import Library, library, make_patches

CONTENT = b"what a mirror serves" * 100


# --------------------------------------------------------------- names


# of the file in the package: to be changed with it, and so are the answers below
GENERIC = "552395fe1fcf7fc06fb57b9635ab66c608588fcff0d75c29d8091b5bfae1e10c"


def test_generic_weights():
    """The file is the one that was tested, and no larger than the package promises."""
    fname = fetch_weights()
    assert fname.parent == weights.PACKAGE_DATA
    content = fname.read_bytes()
    assert len(content) <= 16 * 2**20
    assert hashlib.sha256(content).hexdigest() == GENERIC
    assert weights.read_registry()["generic"]["sha256"] == GENERIC
    model = load_model("generic")
    assert isinstance(model, Model)
    assert load_model("generic") is model  # read once


def test_generic_weights_are_for_the_template():
    """Its parcels in their order, its rate; without channels of their own."""
    model, parcels = load_model("generic"), make_template_parcels()
    assert model.parcels.subject == "fsaverage5"
    assert_array_equal(model.parcels.mapping, parcels.mapping)
    assert_allclose(model.parcels.centers, parcels.centers)
    assert_allclose(model.parcels.areas, parcels.areas)
    assert (model.parcels.adjacency != parcels.adjacency).nnz == 0
    assert (model.sfreq, model.n_times) == (125.0, 64)
    assert (model.encoder, model.ch_names) == ("backprojection", None)


def radial_dipoles(centers):
    """Return 40 sensors' potentials of dipoles that point outwards, without a head."""
    middle = centers.mean(0)
    outwards = centers - middle
    outwards /= np.linalg.norm(outwards, axis=1, keepdims=True)
    offsets = (middle + 0.11 * outwards[::25])[:, np.newaxis] - centers
    gain = (offsets * outwards).sum(2) / np.linalg.norm(offsets, axis=2) ** 3
    gain -= gain.mean(0)
    return gain / np.linalg.norm(gain, 2)


# the strongest parcels when each of two sources peaks, and their activity over the peak
ANSWERS = {
    20: {300: 0.44344},
    44: {700: 0.99262},
}


def test_answer_of_the_generic_weights():
    """Pinned: what is made of a fixed input with them."""
    model = load_model("generic")
    gain, times = radial_dipoles(model.parcels.centers), np.arange(64)
    waves = np.exp(-0.5 * ((times - np.array([[20], [44]])) / 5) ** 2)
    noise = 0.02 * np.sin(np.outer(np.arange(1, 41), times + 1.0) ** 2)
    sources = gain[:, [300, 700]] / np.abs(gain[:, [300, 700]]).max(0)
    out = model.estimate(sources @ waves + noise, gain, 125.0)
    assert_allclose(np.abs(out).max(), 48.936295, rtol=1e-3)
    out /= np.abs(out).max()
    for time, strongest in ANSWERS.items():
        order = np.argsort(-np.abs(out[:, time]))
        assert_array_equal(order[: len(strongest)], list(strongest))
        found = out[list(strongest), time]
        assert_allclose(found, list(strongest.values()), rtol=0, atol=1e-3)


def test_unknown_name():
    with pytest.raises(ValueError, match=r"name 'best'; allowed are \['generic'.*path"):
        fetch_weights("best")
    with pytest.raises(ValueError, match="No weights of the name 'best'"):
        load_model("best")
    with pytest.raises(TypeError, match="name must be an instance of str"):
        fetch_weights(None)


def test_unknown_name_in_use(eeg_info, eeg_fwd):
    """The front door and fit say the same."""
    evoked = mne.EvokedArray(np.ones((32, 10)), eeg_info)
    with pytest.raises(ValueError, match="No weights of the name 'best'"):
        apply_deepsif(evoked, eeg_fwd, estimator="best")
    with pytest.raises(ValueError, match="No weights of the name 'best'"):
        DeepSIFEstimator(weights="best").fit(eeg_fwd)


def test_file_that_is_not_there(tmp_path):
    for fname in (tmp_path / "x-deepsif.safetensors", "x-deepsif.safetensors"):
        with pytest.raises(FileNotFoundError, match="x-deepsif.safetensors' does not"):
            load_model(fname)


def test_damaged_embedded_file(tmp_path, monkeypatch):
    """One bit is enough."""
    content = bytearray(fetch_weights().read_bytes())
    content[len(content) // 2] ^= 1
    entry = weights.read_registry()["generic"]
    (tmp_path / entry["file"]).write_bytes(content)
    monkeypatch.setattr(weights, "read_registry", lambda: {"generic": entry})
    monkeypatch.setattr(weights, "PACKAGE_DATA", tmp_path)
    with pytest.raises(RuntimeError, match="damaged .*install mne_deepsif again"):
        fetch_weights("generic")


# --------------------------------------------------------------- download


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """Serve a folder over HTTP; ``extra`` weights are registered, nothing is cached."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    (folder / "extra.safetensors").write_bytes(CONTENT)
    entry = {
        "file": "extra.safetensors",
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "embedded": False,
    }
    monkeypatch.setattr(weights, "read_registry", lambda: {"extra": entry})
    monkeypatch.setenv("MNE_DEEPSIF_DATA", str(tmp_path / "data"))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            server.requests.append(self.requestline.split()[1])  # path as asked

        def do_GET(self):  # noqa: N802
            server.answer(self) if server.answer else super().do_GET()

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    server.requests, server.folder, server.answer = [], folder, None
    server.released = threading.Event()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("MNE_DEEPSIF_URL", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()
    thread.join()


def _cached(tmp_path):
    return [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


def test_download(mirror, tmp_path, monkeypatch):
    """Fetched once into the cache, then at hand even without the server."""
    fname = fetch_weights("extra")
    assert _cached(tmp_path) == [fname]
    assert fname.read_bytes() == CONTENT
    assert mirror.requests == ["/extra.safetensors"]
    assert fetch_weights("extra") == fname
    assert len(mirror.requests) == 1
    monkeypatch.setenv("MNE_DEEPSIF_URL", "http://127.0.0.1:9/")  # nobody there
    assert fetch_weights("extra") == fname
    _forget_address(monkeypatch)
    assert fetch_weights("extra") == fname


def test_download_address_may_end_in_a_slash(mirror, monkeypatch):
    monkeypatch.setenv("MNE_DEEPSIF_URL", f"http://127.0.0.1:{mirror.server_port}/")
    assert fetch_weights("extra").read_bytes() == CONTENT
    assert mirror.requests == ["/extra.safetensors"]


def test_damaged_file_in_the_cache_is_replaced(mirror, tmp_path):
    fname = fetch_weights("extra")
    fname.write_bytes(CONTENT[:-1])
    assert fetch_weights("extra").read_bytes() == CONTENT
    assert _cached(tmp_path) == [fname]


def test_corrupt_download(mirror, tmp_path):
    """It is refused, and nothing of it stays."""
    (mirror.folder / "extra.safetensors").write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(RuntimeError, match="'extra' could not be fetched .*hash"):
        fetch_weights("extra")
    assert _cached(tmp_path) == []


def test_truncated_download(mirror, tmp_path):
    """The server promises all and hangs up after half."""

    def half(request):
        request.send_response(200)
        request.send_header("Content-Length", str(len(CONTENT)))
        request.end_headers()
        request.wfile.write(CONTENT[: len(CONTENT) // 2])

    mirror.answer = half
    with pytest.raises(RuntimeError, match="'extra' could not be fetched from"):
        fetch_weights("extra")
    assert _cached(tmp_path) == []
    mirror.answer = None
    assert fetch_weights("extra").read_bytes() == CONTENT


def test_server_that_stalls(mirror, tmp_path, monkeypatch):
    """Before its answer or within it: given up, and nothing stays."""
    monkeypatch.setattr(weights, "_TIMEOUT", 0.2)

    def stall(request):
        mirror.released.wait()

    def stall_within(request):
        request.send_response(200)
        request.send_header("Content-Length", str(len(CONTENT)))
        request.end_headers()
        request.wfile.write(CONTENT[:100])
        request.wfile.flush()
        mirror.released.wait()

    for mirror.answer in (stall, stall_within):
        with pytest.raises(
            RuntimeError, match="'extra' could not.*timed out.*'generic'"
        ):
            fetch_weights("extra")
        assert _cached(tmp_path) == []


def test_server_with_an_error(mirror, tmp_path):
    mirror.answer = lambda request: request.send_error(503)
    with pytest.raises(RuntimeError, match="'extra' could not be fetched.*503"):
        fetch_weights("extra")
    assert _cached(tmp_path) == []


def _answer(body=CONTENT, status=200, **headers):
    """Return an answer with these headers; None leaves out the length."""

    def answer(request):
        request.send_response(status)
        for name, value in {"content_length": len(body), **headers}.items():
            if value is not None:
                request.send_header(name.replace("_", "-"), str(value))
        request.end_headers()
        request.wfile.write(body)

    return answer


def _hang_up(request):
    """Reset the connection within the content."""
    _answer(CONTENT[:100], content_length=len(CONTENT))(request)
    no_lingering = struct.pack("ii", 1, 0)
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_lingering)
    request.connection.close()


def _endless(request):
    """Send the content again and again."""
    _answer(content_length=None)(request)
    with suppress(OSError):  # the client has given up
        while True:
            request.wfile.write(CONTENT)


PAGE = b"<html><body>Please log in to this network.</body></html>"
LIES = {
    "short length": (_answer(content_length=10), "hash"),
    "long length": (_answer(content_length=10**6), "IncompleteRead"),
    "length of nonsense": (_answer(content_length="many"), ""),
    "nothing": (_answer(b""), "hash"),
    "other content": (_answer(CONTENT[::-1]), "hash"),
    "content twice": (_answer(2 * CONTENT), "hash"),
    "a page": (_answer(PAGE, content_type="text/html"), "hash"),
    "a page of an error": (_answer(PAGE, 404), "404"),
    "an error": (_answer(b"", 500), "500"),
    "an error with the content": (_answer(status=500), "500"),
    "a loop": (_answer(b"", 302, location="/extra.safetensors"), "redirects"),
    "to a file": (_answer(b"", 302, location="file:///etc/hosts"), "adapters"),
    "to nobody": (_answer(b"", 302, location="http://127.0.0.1:9/x"), "refused"),
    "to nowhere": (_answer(b"", 302), "hash"),
    "to nonsense": (_answer(b"", 302, location="http://"), ""),
    "not packed": (_answer(content_encoding="gzip"), "decod"),
    "packed by halves": (
        _answer(gzip.compress(CONTENT)[:-20], content_encoding="gzip"),
        "",
    ),
    "packed without a word": (_answer(gzip.compress(CONTENT)), "hash"),
    "no HTTP": (lambda request: request.wfile.write(b"hello\r\n\r\n"), "hello"),
    "hangs up": (_hang_up, ""),
    "endless": (_endless, "the server sends more than 100000 bytes"),
    "packed zeros": (
        _answer(gzip.compress(bytes(10**6)), content_encoding="gzip"),
        "the server sends more than 100000 bytes",
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_server_that_lies(mirror, tmp_path, monkeypatch, name):
    """One error with address, reason and remedy; the cache is as it was."""
    monkeypatch.setattr(weights, "_LARGEST", 100_000)
    old = tmp_path / "data" / "weights" / "extra.safetensors"
    mirror.answer, reason = LIES[name]
    match = f"(?s)'extra' could not be fetched from {os.environ['MNE_DEEPSIF_URL']}"
    match += f"/extra.safetensors into .*{reason}.*check the connection.*'generic'"
    with pytest.raises(RuntimeError, match=match):
        fetch_weights("extra")
    assert _cached(tmp_path) == []
    old.write_bytes(b"damaged, but not by us")
    with pytest.raises(RuntimeError, match=match):
        fetch_weights("extra")
    assert _cached(tmp_path) == [old]
    assert old.read_bytes() == b"damaged, but not by us"
    old.write_bytes(CONTENT)
    n_requests = len(mirror.requests)
    assert fetch_weights("extra") == old  # without asking the server
    assert len(mirror.requests) == n_requests
    assert old.read_bytes() == CONTENT


def _slow(request):
    """Send the content bit by bit."""
    _answer(b"", content_length=len(CONTENT))(request)
    for start in range(0, len(CONTENT), 200):
        sleep(0.03)
        request.wfile.write(CONTENT[start : start + 200])
        request.wfile.flush()


HONEST = {
    "no length": _answer(content_length=None),
    "packed": _answer(gzip.compress(CONTENT), content_encoding="gzip"),
    "slow": _slow,
    "called a page": _answer(content_type="text/html"),
}


@pytest.mark.parametrize("name", HONEST)
def test_server_with_other_manners(mirror, tmp_path, monkeypatch, name):
    """What counts is the content."""
    monkeypatch.setattr(weights, "_TIMEOUT", 0.2)
    mirror.answer = HONEST[name]
    fname = fetch_weights("extra")
    assert fname.read_bytes() == CONTENT and _cached(tmp_path) == [fname]


def test_redirected_to_another_server(mirror, tmp_path):
    """Mirrors do so; the hash says whether the file is the right one."""
    port = mirror.server_port
    there = f"http://localhost:{port}/there"

    def redirect(request):
        if request.path == "/there":
            return _answer()(request)
        return _answer(b"", 302, location=there)(request)

    mirror.answer = redirect
    assert fetch_weights("extra").read_bytes() == CONTENT
    assert mirror.requests == ["/extra.safetensors", "/there"]


@pytest.mark.parametrize("url", ("ftp://127.0.0.1", "nonsense", "http:", "file:"))
def test_address_of_another_kind(mirror, tmp_path, monkeypatch, url):
    monkeypatch.setenv("MNE_DEEPSIF_URL", url)
    match = f"'extra' could not be fetched from {url}/.*MNE_DEEPSIF_URL"
    with pytest.raises(RuntimeError, match=match):
        fetch_weights("extra")
    assert _cached(tmp_path) == []


def test_folder_as_a_mirror(mirror, tmp_path, monkeypatch):
    """A share in the network, also if its name has a blank."""
    folder = mirror.folder.rename(tmp_path / "a share")
    monkeypatch.setenv("MNE_DEEPSIF_URL", folder.as_uri())
    fname = fetch_weights("extra")
    assert fname.read_bytes() == CONTENT and _cached(tmp_path) == [fname]
    assert mirror.requests == []


def _remove(file):
    file.unlink()


def _cut(file):
    file.write_bytes(CONTENT[:-1])


def _replace_by_folder(file):
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    ("damage", "reason"),
    ((_remove, "No such file"), (_cut, "hash"), (_replace_by_folder, "directory")),
)
def test_folder_as_a_mirror_without_the_file(
    mirror, tmp_path, monkeypatch, damage, reason
):
    monkeypatch.setenv("MNE_DEEPSIF_URL", mirror.folder.as_uri())
    damage(mirror.folder / "extra.safetensors")
    match = f"'extra' could not be fetched from file:///.*{reason}.*'generic'"
    with pytest.raises(RuntimeError, match=match):
        fetch_weights("extra")
    assert _cached(tmp_path) == []


@pytest.mark.parametrize("kind", ("http", "file"))
def test_no_space(mirror, tmp_path, monkeypatch, kind):
    """The disk is full after the first bytes: said so, and nothing stays."""
    if kind == "file":
        monkeypatch.setenv("MNE_DEEPSIF_URL", mirror.folder.as_uri())
    limited = weights._Limited

    class Full(limited):
        def __init__(self, file):
            write = file.write

            class Disk:
                flush = file.flush

                def write(self, content):
                    write(content[:10])
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            super().__init__(Disk())

    monkeypatch.setattr(weights, "_Limited", Full)
    match = "'extra' could not.*No space left on device.*another .*MNE_DEEPSIF_DATA"
    with pytest.raises(RuntimeError, match=match):
        fetch_weights("extra")
    assert _cached(tmp_path) == []
    monkeypatch.setattr(weights, "_Limited", limited)
    assert fetch_weights("extra").read_bytes() == CONTENT


def test_download_of_a_killed_process(mirror, tmp_path):
    """It has left half a file: the next one starts again; it goes after a day."""
    half = tmp_path / "data" / "weights" / ".mne_deepsif-part-0-extra.safetensors"
    half.parent.mkdir(parents=True)
    half.write_bytes(CONTENT[:100])
    fname = fetch_weights("extra")
    assert fname.read_bytes() == CONTENT
    assert sorted(_cached(tmp_path)) == [half, fname]  # it may be at work
    old = now() - 2 * 86400
    os.utime(half, (old, old))
    fname.unlink()
    fetch_weights("extra")
    assert _cached(tmp_path) == [fname]


def test_download_interrupted(mirror, tmp_path, monkeypatch):
    """After Ctrl-C nothing stays."""

    def ctrl_c(file, content):
        assert len(_cached(tmp_path)) == 1  # the unfinished file
        raise KeyboardInterrupt

    monkeypatch.setattr(weights._Limited, "write", ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        fetch_weights("extra")
    assert _cached(tmp_path) == []


def test_download_at_once(mirror, tmp_path):
    """All get the whole file, whoever is first; one file stays."""
    with ThreadPoolExecutor(8) as pool:
        fnames = list(pool.map(fetch_weights, ["extra"] * 8))
    assert _cached(tmp_path) == [fnames[0]] and set(fnames) == {fnames[0]}
    assert fnames[0].read_bytes() == CONTENT


def test_a_folder_that_cannot_be_written(mirror, tmp_path):
    """What is in the way is named."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "weights").write_text("no folder")
    with pytest.raises(RuntimeError, match=r"'extra' could not be.*data.weights \("):
        fetch_weights("extra")
    assert mirror.requests == []


def test_missing_on_the_server(mirror, tmp_path):
    (mirror.folder / "extra.safetensors").unlink()
    match = "'extra' could not be fetched from http://.*404.*MNE_DEEPSIF_URL"
    with pytest.raises(RuntimeError, match=match):
        fetch_weights("extra")
    assert _cached(tmp_path) == []


def test_offline(mirror, tmp_path, monkeypatch):
    monkeypatch.setenv("MNE_DEEPSIF_URL", "http://127.0.0.1:9")
    with pytest.raises(RuntimeError, match="'extra' could not be fetched.*connection"):
        fetch_weights("extra")
    assert _cached(tmp_path) == []


def _forget_address(monkeypatch):
    """Neither in the environment nor in the config of who runs the tests."""
    monkeypatch.delenv("MNE_DEEPSIF_URL")
    get_config = mne.get_config

    def forgetful(key, *args):
        return None if key == "MNE_DEEPSIF_URL" else get_config(key, *args)

    monkeypatch.setattr(mne, "get_config", forgetful)


def test_no_address(mirror, monkeypatch):
    _forget_address(monkeypatch)
    match = r"set MNE_DEEPSIF_URL .*holds 'extra.safetensors'.*estimator='generic'"
    with pytest.raises(RuntimeError, match=match):
        fetch_weights("extra")


def test_downloaded_file_that_is_no_estimator(mirror):
    with pytest.raises(ValueError, match="is not a readable mne_deepsif estimator"):
        load_model("extra")


# --------------------------------------------------------------- what they find


@pytest.fixture(scope="module")
def generic():
    return load_model("generic")


@pytest.fixture(scope="module")
def template(eeg_fwd):
    """64 electrodes on the template head (BEM, ico4): info, forward, covariance."""
    montage = mne.channels.make_standard_montage("biosemi64")
    info = mne.create_info(montage.ch_names, 250.0, "eeg").set_montage(montage)
    raw = mne.io.RawArray(np.zeros((64, 1)), info).set_eeg_reference(projection=True)
    src = eeg_fwd["src"].copy()
    for s in src:
        mne.transform_surface_to(s, "mri", eeg_fwd["mri_head_t"], copy=False)
    bem = make_template_bem()
    trans = make_template_trans(raw.info)
    fwd = mne.make_forward_solution(raw.info, trans, src, bem, mindist=0.0)
    return raw.info, fwd, mne.make_ad_hoc_cov(raw.info)


def _patch(parcels, seed, radius=0.02):
    """Parcels of one hemisphere within 20 mm of the seed."""
    distance = np.linalg.norm(parcels.centers - parcels.centers[seed], axis=1)
    return np.flatnonzero((distance < radius) & (parcels.hemi == parcels.hemi[seed]))


# lateral, frontal, occipital and top: points of the template's surface (m)
PLACES = (
    (-0.06, -0.02, 0.02),
    (0.03, 0.05, 0.02),
    (0.02, -0.09, 0.0),
    (-0.02, 0, 0.07),
)


def _make_evoked(parcels, template, place, sign):
    """Simulate one active patch; return it and the sensor data."""
    info, fwd, cov = template
    leadfield = make_leadfield(info, fwd, cov, parcels=parcels)
    seed = np.linalg.norm(parcels.centers - place, axis=1).argmin()
    patch = _patch(parcels, seed)
    course = np.exp(-0.5 * ((np.arange(150) - 75) / 8) ** 2)  # 75 ms wide
    data = leadfield.gain[:, patch].sum(1, keepdims=True) * sign * course
    data *= 10e-6 / np.abs(data).max()
    rng = np.random.default_rng(0)
    evoked = mne.EvokedArray(data + 2e-7 * rng.standard_normal(data.shape), info)
    return evoked, patch


@pytest.mark.parametrize("sign", (1, -1))
@pytest.mark.parametrize("place", PLACES)
def test_a_strong_source_is_found(generic, template, place, sign):
    """Peak and extent within 20 mm of where a patch was put, its sign right."""
    info, fwd, cov = template
    parcels = generic.parcels
    evoked, patch = _make_evoked(parcels, template, place, sign)
    stc = apply_deepsif(evoked, fwd, cov)  # estimator="generic"

    vertex_parcel = np.concatenate(assign_vertices(parcels, fwd["src"]))
    sources = np.zeros((parcels.n_parcels, 150))
    inside = vertex_parcel >= 0
    sources[vertex_parcel[inside]] = stc.data[inside]
    away = _distance_to(parcels, patch)
    peak, time = np.unravel_index(np.abs(sources).argmax(), sources.shape)
    assert away[peak] < 0.02
    assert abs(time - 75) <= 5  # 20 ms
    assert np.sign(sources[peak, time]) == sign
    estimated = metrics.active_parcels(sources)
    assert metrics.localization_error(patch, estimated, parcels.centers) < 0.02
    assert np.mean(away[np.flatnonzero(_strong(sources))]) < 0.02


def _distance_to(parcels, patch):
    offsets = parcels.centers[:, None] - parcels.centers[patch]
    return np.linalg.norm(offsets, axis=-1).min(1)


def _strong(sources):
    """Parcels above half of the maximum, a rule that needs no threshold."""
    peaks = np.abs(sources).max(1)
    return peaks > 0.5 * peaks.max()


def test_generic_weights_explain_the_data(generic, template):
    """MNE's forward of the estimate is near the data, less their time means."""
    info, fwd, cov = template
    evoked, _ = _make_evoked(generic.parcels, template, PLACES[0], 1)
    _, residual = apply_deepsif(evoked, fwd, cov, return_residual=True)
    left, data = (
        x.data - x.data.mean(1, keepdims=True) for x in (residual, evoked.apply_proj())
    )
    assert np.sum(left**2) < 0.6 * np.sum(data**2)


def test_generic_weights_are_a_starting_point(generic, template, monkeypatch):
    """Training goes on from them, on a copy: they are shared between calls."""
    parcels = generic.parcels
    seeds = np.arange(0, parcels.n_parcels, 10)
    patches, decay = make_patches(seeds, parcels.adjacency, parcels.centers, 0)
    bump = np.exp(-0.5 * ((np.arange(192) - 96) / 6) ** 2)
    rng = np.random.default_rng(0)
    made = Library(
        patches=patches,
        decay=decay,
        waveforms=np.tile(bump, (10, 1)).astype(np.float32),
        background=rng.standard_normal((parcels.n_parcels, 700)).astype(np.float32),
        sfreq=125.0,
    )
    monkeypatch.setattr(library, "make_library", lambda parcels, **_: made)
    options = partial(estimator_module.TrainingOptions, n_validation=8)
    monkeypatch.setattr(estimator_module, "TrainingOptions", options)
    before = {k: v.clone() for k, v in generic.network.state_dict().items()}
    info, fwd, cov = template
    estimator = DeepSIFEstimator(n_steps=1, batch_size=2, random_state=0)
    estimator.fit(fwd, info, cov)
    assert estimator.history_[0][1] < 0.9  # they know something already
    assert estimator.recipe_["start"] == generic.recipe
    assert estimator.n_times_ == generic.n_times
    for name, value in load_model("generic").network.state_dict().items():
        assert_array_equal(value, before[name])

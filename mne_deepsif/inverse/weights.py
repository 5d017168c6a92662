"""Pretrained weights: names, files, checksums, download."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import json
import os
import shutil
from functools import lru_cache
from urllib.request import urlopen

import mne
import pooch
from mne.utils import _validate_type

from ..cache import (
    PACKAGE_DATA,
    check_writable,
    data_path,
    hash_file,
    remove_leftovers,
    whole_file,
)
from .files import read_model

_TIMEOUT = 30  # s without a byte from the server
_LARGEST = 2**30  # bytes; no weights have as many


def read_registry():
    """Return {name: {"file", "sha256", "embedded", "description"}}."""
    return json.loads((PACKAGE_DATA / "weights.json").read_text())


def fetch_weights(name="generic"):
    """Return the file of pretrained weights, downloading it if needed.

    Parameters
    ----------
    name : str
        Name of the weights. ``"generic"`` is part of the package. Others are downloaded
        from the address in ``MNE_DEEPSIF_URL`` (environment or MNE config) and kept in
        ``weights`` of :func:`data_path`. The address starts with ``https://``,
        ``http://`` or, for a folder of your own, ``file:///``.

    Returns
    -------
    fname : pathlib.Path
        The file, with its SHA-256 checked.

    Notes
    -----
    A download gets its name only once it is complete and its SHA-256 is right. One that
    was interrupted starts again. Several processes may ask for it at once. If the
    download fails, or the server is silent for 30 s or sends more than 1 GiB, you get a
    RuntimeError that says what to do.
    """
    _validate_type(name, str, "name")
    registry = read_registry()
    if name not in registry:
        raise ValueError(
            f"No weights of the name {name!r}; allowed are {sorted(registry)}, or the "
            "path of a file that DeepSIFEstimator.save wrote."
        )
    entry = registry[name]
    if entry["embedded"]:
        fname = PACKAGE_DATA / entry["file"]
        _check_hash(fname, entry["sha256"])
        return fname
    return _download(name, entry)


def _download(name, entry):
    fname = data_path() / "weights" / entry["file"]
    if fname.is_file() and hash_file(fname) == entry["sha256"]:
        return fname
    base = os.environ.get("MNE_DEEPSIF_URL") or mne.get_config("MNE_DEEPSIF_URL")
    if not base:
        raise RuntimeError(
            f"The weights {name!r} have to be downloaded: set MNE_DEEPSIF_URL (in the "
            "environment or with mne.set_config) to the address of the folder that "
            f"holds {entry['file']!r}, or use estimator='generic', which is built in."
        )
    url = f"{base.rstrip('/')}/{entry['file']}"
    try:
        check_writable(fname.parent)
        remove_leftovers(fname.parent)
        with whole_file(fname) as part:
            with open(part, "wb") as file:
                _copy(url, _Limited(file))
            if (found := hash_file(part)) != entry["sha256"]:
                raise ValueError(f"its SHA-256 hash is {found}, not {entry['sha256']}")
    except Exception as error:
        raise RuntimeError(
            f"The weights {name!r} could not be fetched from {url} into {fname.parent} "
            f"({error}); check the connection, MNE_DEEPSIF_URL and the folder (choose "
            "another one with MNE_DEEPSIF_DATA), or use estimator='generic'."
        ) from error
    return fname


def _copy(url, file):
    if url.startswith("file:"):
        with urlopen(url) as source:
            shutil.copyfileobj(source, file)
    else:
        pooch.HTTPDownloader(timeout=_TIMEOUT)(url, file, None)


class _Limited:
    """A file of limited size: a server may never stop sending."""

    def __init__(self, file):
        self._write, self.flush = file.write, file.flush
        self._left = _LARGEST

    def write(self, content):
        self._left -= len(content)
        if self._left < 0:
            raise ValueError(f"the server sends more than {_LARGEST} bytes")
        self._write(content)


def _check_hash(fname, sha256):
    found = hash_file(fname)
    if found != sha256:
        raise RuntimeError(
            f"The weights file {fname} is damaged (SHA-256 {found}, not {sha256});"
            " install mne_deepsif again."
        )


def load_model(name):
    """Return the fitted model of a name or file.

    Parameters
    ----------
    name : str | path-like
        Name of pretrained weights, or a file.

    Returns
    -------
    model : Model
        The fitted model, shared between calls: do not change it.
    """
    if not isinstance(name, str) or name.endswith(".safetensors"):
        return read_model(name)[0]
    return _load_named(name)


@lru_cache(maxsize=4)
def _load_named(name):
    return read_model(fetch_weights(name))[0]

"""Files of fitted models: safetensors with a JSON header. No code is executed."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import hashlib
import json
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from mne.utils import _check_option, _validate_type
from safetensors import safe_open
from safetensors.numpy import save

from .. import __version__
from ..cache import whole_file
from ..head.parcels import Parcels
from ..network.architectures import ARCHITECTURES, make_network
from .model import Model

# Raise it when the reader below would misunderstand new files. The new reader must
# accept the older versions as well. Optional entries do not need a new version.
FORMAT_VERSION = 1
_FINGERPRINT = ("sensors", "parcels")  # its arrays
# Hz, samples, s: limits, so that no window fills the memory
_MAX_SFREQ, _MAX_N_TIMES, _MAX_WINDOW = 1e5, 10_000, 100.0


def read_model(fname):
    """Read a model and the parameters of the estimator that was saved.

    Parameters
    ----------
    fname : path-like
        The file.

    Returns
    -------
    model : Model
        The model.
    params : dict
        Parameters of a :class:`mne_deepsif.DeepSIFEstimator` by name, unchecked.
    """
    _validate_type(fname, "path-like", "fname")
    fname = Path(fname)
    if not fname.is_file():
        raise FileNotFoundError(f"fname={str(fname)!r} does not exist.")
    with one_clear_error(fname):
        header, arrays = _read(fname)
        _validate_type(header["params"], dict, "params")
        return _make_model(header, arrays), header["params"]


@contextmanager
def one_clear_error(fname):
    """Turn errors from a file's content into a ValueError that names the file."""
    try:
        yield
    except (OSError, MemoryError):  # says nothing about the content
        raise
    except Exception as error:
        reason = f"no entry {error}" if isinstance(error, KeyError) else error
        raise ValueError(
            f"fname={str(fname)!r} is not a readable mne_deepsif estimator ({reason}); "
            "give a file that DeepSIFEstimator.save wrote."
        ) from error


def _read(fname):
    """Return the header (dict) and the arrays by name, from the same open file."""
    with safe_open(fname, "numpy") as file:
        metadata = file.metadata() or {}
        _check("mne_deepsif" in metadata, "its header has no mne_deepsif entry")
        text = metadata["mne_deepsif"]
        header = json.loads(text)
        version = header["format_version"]
        _check(
            version == FORMAT_VERSION,
            f"format version {version!r}, this version of the package reads "
            f"{FORMAT_VERSION}: another version of mne_deepsif may read it",
        )
        arrays = {name: file.get_tensor(name) for name in file.keys()}
    checksum = metadata.get("sha256", header.get("checksum"))  # early files have none
    _check(checksum in (None, _checksum(text, arrays)), "its checksum is wrong")
    return header, arrays


def _check(condition, problem):
    if not condition:
        raise ValueError(problem)


def _checksum(text, arrays):
    digest = hashlib.sha256(text.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _make_model(header, arrays):
    params = header["params"]
    encoder, architecture = params["encoder"], params["architecture"]
    _check_option("encoder", encoder, ["backprojection", "sensors"])
    _check_option("architecture", architecture, list(ARCHITECTURES))
    parcels = _make_parcels(header, arrays)
    sfreq = _check_number(header, "sfreq_", _MAX_SFREQ)
    n_times = _check_number(header, "n_times_", _MAX_N_TIMES, int)
    _check(n_times / sfreq <= _MAX_WINDOW, f"its window is {n_times / sfreq:g} s long")
    model = Model(
        network=_make_network(architecture, parcels, n_times, header, arrays),
        encoder=encoder,
        parcels=parcels,
        sfreq=sfreq,
        n_times=n_times,
        architecture=architecture,
        ch_names=_check_ch_names(header, encoder),
        recipe=_check_dict(header, "recipe_") or {},
        history=[tuple(entry) for entry in header["history_"]],
        metrics=_check_dict(header, "metrics_"),
        fingerprint=_read_fingerprint(header, arrays, parcels.n_parcels),
    )
    _check_runs(model.on("cpu"), header["n_features"])
    return model


_MAX_PARCELS = 5000  # the prior correlation of more would take gigabytes


def _make_parcels(header, arrays):
    mapping, areas, centers, edges = (
        arrays[f"parcels.{name}"] for name in ("mapping", "areas", "centers", "edges")
    )
    n_parcels, n_vertices_lh = areas.size, header["n_vertices_lh"]
    _check(
        areas.shape == (n_parcels,)
        and areas.dtype.kind == "f"
        and 0 < n_parcels <= _MAX_PARCELS
        and bool(np.all(np.isfinite(areas) & (areas > 0))),
        f"the areas of the parcels must be up to {_MAX_PARCELS} positive numbers",
    )
    _check(
        centers.shape == (n_parcels, 3)
        and centers.dtype.kind == "f"
        and bool(np.isfinite(centers).all()),
        f"the centers must be {n_parcels} finite points, one per parcel",
    )
    _check(
        mapping.ndim == 1 and _in_range(mapping, -1, n_parcels),
        f"the mapping must hold parcels from 0 to {n_parcels - 1}, or -1",
    )
    _check(
        edges.ndim == 2 and len(edges) == 2 and _in_range(edges, 0, n_parcels),
        f"the edges must be pairs of parcels from 0 to {n_parcels - 1}",
    )
    _check(
        type(n_vertices_lh) is int and 0 <= n_vertices_lh <= mapping.size,
        f"n_vertices_lh is {n_vertices_lh!r}, for {mapping.size} vertices",
    )
    _validate_type(header["subject"], (str, None), "subject")
    pairs = (np.ones(edges.shape[1], bool), tuple(edges))
    return Parcels(
        subject=header["subject"],
        mapping=mapping.astype(np.int32),
        areas=areas,
        centers=centers,
        adjacency=sp.csr_array(pairs, shape=(n_parcels, n_parcels)),
        n_vertices_lh=n_vertices_lh,
    )


def _in_range(array, start, stop):
    """Return whether all are integers from start to stop - 1."""
    return array.dtype.kind == "i" and bool(np.all((array >= start) & (array < stop)))


def _check_number(header, name, largest, types=(int, float)):
    value = header[name]
    _validate_type(value, types, name)
    _check(0 < value <= largest, f"{name} must be in (0, {largest:g}], got {value!r}")
    return value


def _check_ch_names(header, encoder):
    ch_names = header["ch_names_"]
    if encoder == "sensors":
        _check_names("ch_names_", ch_names, header["n_features"])
    else:
        _check(ch_names is None, f"ch_names_ must be null for encoder={encoder!r}")
    return ch_names


def _check_names(where, names, n_names):
    _validate_type(names, list, where)
    unique = {name for name in names if isinstance(name, str)}
    _check(
        len(unique) == len(names) == n_names,
        f"{where} must be {n_names} different names",
    )


def _check_dict(header, name):
    _validate_type(header.get(name), (dict, None), name)
    return header.get(name)


def _read_fingerprint(header, arrays, n_parcels):
    ch_names = header.get("fingerprint_ch_names")
    if ch_names is None:
        return None
    sensors, parcels = (arrays[f"fingerprint.{name}"] for name in _FINGERPRINT)
    _check_names("fingerprint_ch_names", ch_names, len(sensors))
    for array, n_rows in ((sensors, len(ch_names)), (parcels, n_parcels)):
        _check(
            array.shape == (n_rows, 3) and array.dtype.kind == "f",
            "the positions of the fingerprint must be points",
        )
    return {"ch_names": ch_names, "sensors": sensors, "parcels": parcels}


def _make_network(architecture, parcels, n_times, header, arrays):
    """Build the network after comparing its sizes with those of the arrays."""
    arrays = {
        name.removeprefix("network."): _check_weights(name, array)
        for name, array in arrays.items()
        if name.startswith("network.")
    }
    largest = max((max(a.shape, default=1) for a in arrays.values()), default=0)
    n_features, sizes = header["n_features"], header["sizes"]
    for name, size in {"n_features": n_features, **sizes}.items():
        _validate_type(size, (int, float, str, None), name)
        _check(
            not isinstance(size, int | float) or 0 <= size <= largest,
            f"{name}={size!r}, but no weight is larger than {largest}",
        )
    settings = architecture, n_features, parcels.n_parcels, n_times
    with torch.device("meta"), warnings.catch_warnings():  # no memory yet
        warnings.simplefilter("ignore")  # of torch, about layers without features
        expected = make_network(*settings, **sizes).state_dict()
    for name in expected.keys() | arrays.keys():
        shapes = [tuple(x[name].shape) for x in (expected, arrays) if name in x]
        _check(
            len(shapes) == 2 and shapes[0] == shapes[1],
            f"weight {name!r} is missing, unknown or of another size",
        )
    network = make_network(*settings, **sizes)
    network.load_state_dict({k: torch.as_tensor(v) for k, v in arrays.items()})
    return network.eval()


def _check_weights(name, array):
    with np.errstate(over="ignore"):
        weights = array.astype(np.float32)
    _check(
        array.dtype.kind == "f" and array.size and bool(np.isfinite(weights).all()),
        f"{name} must hold finite floating-point numbers",
    )
    return weights


def _check_runs(model, n_features):
    """Estimate something once, to make sure that the model works."""
    n_parcels = model.parcels.n_parcels
    n_channels = n_features if model.encoder == "sensors" else min(4, n_parcels)
    rng = np.random.default_rng(0)
    gain = rng.standard_normal((n_channels, n_parcels))
    data = rng.standard_normal((n_channels, model.n_times))
    sources = model.estimate(data, gain, model.sfreq)
    _check(
        sources.shape == (n_parcels, model.n_times)
        and bool(np.isfinite(sources).all()),
        "its estimates are not finite",
    )


def write_model(model, fname, params, *, overwrite=False, dtype=np.float32):
    """Write a model; the file appears complete or not at all.

    Parameters
    ----------
    model : Model
        The model.
    fname : path-like
        The file.
    params : dict
        Parameters of the model's estimator, as JSON-serialisable values.
    overwrite : bool
        Replace an existing file.
    dtype : dtype
        Precision of the weights.
    """
    fname = _check_target(fname, overwrite)
    arrays = _collect_arrays(model, dtype)
    text = json.dumps(_collect_header(model, params), default=_to_json)
    metadata = {"mne_deepsif": text, "sha256": _checksum(text, arrays)}
    content = save(arrays, metadata)
    try:
        with whole_file(fname, overwrite) as part:
            part.write_bytes(content)
    except FileExistsError:  # another process has just written it
        raise FileExistsError(_exists(fname)) from None


def _check_target(fname, overwrite):
    _validate_type(fname, "path-like", "fname")
    fname = Path(fname)
    if fname.is_dir():
        raise IsADirectoryError(
            f"fname={str(fname)!r} is a folder; give the name of a file in it."
        )
    if not fname.parent.is_dir():
        raise FileNotFoundError(
            f"The folder of fname={str(fname)!r} does not exist; make it first."
        )
    if fname.exists() and not overwrite:
        raise FileExistsError(_exists(fname))
    return fname


def _exists(fname):
    return f"fname={str(fname)!r} exists; use overwrite=True to replace it."


def _collect_arrays(model, dtype):
    parcels = model.parcels
    arrays = {
        f"network.{name}": np.ascontiguousarray(value.cpu().numpy().astype(dtype))
        for name, value in model.network.state_dict().items()
    }
    arrays |= {
        "parcels.mapping": parcels.mapping,
        "parcels.areas": parcels.areas,
        "parcels.centers": parcels.centers,
        "parcels.edges": np.array(sp.coo_array(parcels.adjacency).coords, np.int32),
    }
    if model.fingerprint is not None:
        positions = {name: model.fingerprint[name] for name in _FINGERPRINT}
        arrays |= {f"fingerprint.{name}": value for name, value in positions.items()}
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _collect_header(model, params):
    parcels, fingerprint = model.parcels, model.fingerprint
    kinds = {"encoder": model.encoder, "architecture": model.architecture}
    return {
        "format_version": FORMAT_VERSION,
        "version": __version__,
        "params": params | kinds,
        "n_features": next(iter(model.network.parameters())).shape[1],
        "sizes": model.network.sizes,
        "subject": parcels.subject,
        "n_vertices_lh": int(parcels.n_vertices_lh),
        "sfreq_": model.sfreq,
        "n_times_": model.n_times,
        "ch_names_": model.ch_names,
        "history_": model.history,
        "recipe_": model.recipe,
        "metrics_": model.metrics,
        "fingerprint_ch_names": fingerprint and fingerprint["ch_names"],
        "checksum": "sha256",  # so that it is missed where damage has renamed it
    }


def _to_json(value):
    """Turn NumPy numbers and arrays into Python's; drop random generators."""
    if isinstance(value, np.random.RandomState | np.random.Generator):
        return None
    return value.tolist()

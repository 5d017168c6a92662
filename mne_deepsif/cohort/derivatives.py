"""Derivatives: what is written, from what, and whether it has to be written again."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import json
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .. import __version__
from ..cache import hash_file, hash_object, whole_file

BIDS_VERSION = "1.9.0"
_VERSION = 2  # part of every key: raise it when results change with the same settings
_PACKAGES = ("mne", "mne-bids", "torch", "numpy", "scipy")


# ---------------------------------------------------------------- content
def make_key(inputs, settings, weights):
    """Return what results depend on: contents and settings, not names or times.

    Parameters
    ----------
    inputs : dict of str
        SHA-256 of each input, by name.
    settings : dict
        Settings that matter.
    weights : str
        SHA-256 of the weights.

    Returns
    -------
    key : str
        A hash. Results with the same key need not be computed again.
    """
    return hash_object([_VERSION, __version__, inputs, settings, weights])


# ---------------------------------------------------------------- names
def entity(condition):
    """Return a condition as the value of an entity: letters and digits."""
    name = re.sub(r"[^A-Za-z0-9]", "", condition)
    if not name:
        raise ValueError(f"event {condition!r} has neither letters nor digits")
    return name


def check_names(conditions):
    """Raise if two conditions would be written to the same file."""
    seen = {}
    for condition in conditions:
        name = entity(condition)
        if name in seen:
            raise ValueError(
                f"events {seen[name]!r} and {condition!r} would have the same file "
                "name: rename one, or name the events to estimate (setting events)"
            )
        seen[name] = condition


# ---------------------------------------------------------------- writing
def write_json(fname, content):
    """Write a JSON file, whole or not at all."""
    with whole_file(fname) as part:
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        part.write_text(text, encoding="utf-8")


def write_table(fname, frame):
    """Write a data frame as BIDS wants tables, whole or not at all."""
    with whole_file(fname) as part:
        frame.to_csv(part, sep="\t", index=False, na_rep="n/a")


def write_sidecar(fname, **entries):
    """Write the JSON file beside a result that says what it is."""
    write_json(Path(fname).with_suffix(".json"), entries)


def versions():
    """Return the versions of Python and of the packages that matter."""
    found = {"python": platform.python_version(), "mne_deepsif": __version__}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # mne-bids is an extra
            continue
    return found


def write_description(folder, root, command, weights):
    """Write ``dataset_description.json`` of a folder of derivatives.

    Parameters
    ----------
    folder : Path
        The folder.
    root : path-like
        The BIDS dataset that the results are of.
    command : str
        What was run.
    weights : dict
        ``"Name"`` and ``"SHA256"`` of the weights.
    """
    made_by = dict(Name="mne_deepsif", Version=__version__, Description=command)
    others = [
        dict(Name=name, Version=text)
        for name, text in versions().items()
        if name != "mne_deepsif"
    ]
    uri = Path(root).resolve().as_uri()
    content = dict(
        Name="DeepSIF source estimates",
        BIDSVersion=BIDS_VERSION,
        DatasetType="derivative",
        GeneratedBy=[made_by | dict(Weights=weights), *others],
        SourceDatasets=[dict(URL=uri)],
        DatasetLinks=dict(raw=uri),
    )
    write_json(folder / "dataset_description.json", content)


# ---------------------------------------------------------------- again?
def read_record(fname):
    """Return what was noted of a recording, a dict; empty if nothing can be read."""
    try:
        record = json.loads(Path(fname).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def is_current(record, key, folder):
    """Tell whether all results that a record lists are there, made from this key."""
    if record.get("Key") != key:
        return False
    outputs = record.get("Outputs", {})
    return all(
        (folder / name).is_file() and hash_file(folder / name) == sha256
        for name, sha256 in outputs.items()
    )

"""What to tell when you ask for help: versions of the package and of what it uses."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import sys
from importlib.metadata import PackageNotFoundError, version

import mne

from . import __version__
from .cache import data_path

_PACKAGES = ("torch", "safetensors")


def sys_info(fid=None, **kwargs):
    """Print the versions that a report of a problem needs.

    Parameters
    ----------
    fid : file-like | None
        Where to write. None is ``sys.stdout``.
    **kwargs : dict
        Passed on to :func:`mne.sys_info`, which writes the second part.

    Examples
    --------
    >>> import mne_deepsif
    >>> mne_deepsif.sys_info()  # doctest: +SKIP
    """
    fid = sys.stdout if fid is None else fid
    rows = {"mne_deepsif": __version__, "data": data_path()}
    rows |= {name: _version(name) for name in _PACKAGES}
    for name, text in rows.items():
        fid.write(f"{name:<22}{text}\n")
    fid.write("\n")
    mne.sys_info(fid, **kwargs)


def _version(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"

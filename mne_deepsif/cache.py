"""The folder for what the package builds and downloads, hashes, and atomic writing.

A file or folder written here gets its name only once it is complete. This holds when
the disk is full, after Ctrl-C, and when several processes write it at once.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import hashlib
import json
import os
import shutil
import tempfile
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path

PACKAGE_DATA = Path(__file__).parent / "data"
_VERSION = 2  # part of every key: raise it when the template is made differently
_PART = ".mne_deepsif-part-"  # prefix of unfinished files and folders
_DAY = 86400  # s


def data_path():
    """Return the folder where mne_deepsif keeps what it builds and downloads.

    Returns
    -------
    path : Path
        ``MNE_DEEPSIF_DATA`` (environment or MNE config) if set, else
        ``mne_deepsif`` in MNE's data folder. It is created if needed. If all that you
        need is there already, it may be read-only.
    """
    path = _data_folder()
    with _naming_the_setting(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def _data_folder():
    import mne  # here: training writes files without MNE

    path = mne.get_config("MNE_DEEPSIF_DATA")
    if path is None:
        path = Path(mne.get_config("MNE_DATA", "~/mne_data")) / "mne_deepsif"
    return Path(path).expanduser()


@contextmanager
def _naming_the_setting(folder):
    """Say how to choose another data folder if this one cannot be written."""
    try:
        yield
    except OSError as error:
        data = _data_folder()
        if data != Path(folder) and data not in Path(folder).parents:
            raise
        raise OSError(
            error.errno,
            f"mne_deepsif cannot write to its data folder, {data} ({error.strerror}). "
            "Choose one that you can write: set MNE_DEEPSIF_DATA in the environment "
            "before you start Python, or call mne.set_config('MNE_DEEPSIF_DATA', "
            "'/path/to/folder')",
        ) from error


def check_writable(folder):
    """Make a folder and write to it, before something is made that will be kept there.

    Parameters
    ----------
    folder : path-like
        The folder. If it is in the data folder and cannot be written, the OSError says
        how to choose another one.
    """
    with _naming_the_setting(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(prefix=_PART, dir=folder).close()


def cached(name, params, suffix, read, write, make):
    """Read the cached file for ``params``; make and write it first if it is missing.

    Parameters
    ----------
    name : str
        How the file's name begins.
    params : object
        What the content depends on. It must be JSON serialisable.
    suffix : str
        How the file's name ends.
    read : callable
        Reads the content. Called with the file's path.
    write : callable
        Writes the content. Called with a path and the content.
    make : callable
        Makes the content.

    Returns
    -------
    content : object
        The content, as ``read`` returns it.
    """
    import mne

    key = hash_object([_VERSION, mne.__version__, params])[:12]
    fname = data_path() / f"{name}-{key}{suffix}"
    if not fname.is_file():
        check_writable(fname.parent)
        remove_leftovers(fname.parent)
        with whole_file(fname) as part:
            write(part, make())
    return read(fname)


def hash_file(path):
    """Return the SHA-256 of a file, or of the names and files of a folder.

    Parameters
    ----------
    path : path-like
        The file or folder.

    Returns
    -------
    sha256 : str
        In hexadecimal digits.
    """
    path = Path(path)
    if path.is_dir():
        inner = {str(p.relative_to(path)): p for p in path.rglob("*") if p.is_file()}
        return hash_object({name: hash_file(p) for name, p in inner.items()})
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_object(content):
    """Return the SHA-256 of what JSON can hold."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def whole_file(fname, overwrite=True):
    """Write a file that appears complete, or not at all.

    Parameters
    ----------
    fname : path-like
        The file.
    overwrite : bool
        Replace an existing file. If False, you get a FileExistsError if another process
        has written the file in the meantime.

    Yields
    ------
    part : Path
        Where to write. The name ends like that of ``fname``.
    """
    fname = Path(fname)
    part = fname.with_name(f"{_PART}{uuid.uuid4().hex}-{fname.name}")
    try:
        yield part
        _move(part, fname, overwrite)
    finally:
        part.unlink(missing_ok=True)


def _move(part, fname, overwrite):
    if not overwrite:
        try:
            os.link(part, fname)  # unlike a rename, it never replaces
            return
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            pass
    os.replace(part, fname)


@contextmanager
def whole_folder(folder):
    """Write a folder that appears complete, or not at all.

    Parameters
    ----------
    folder : path-like
        The folder. If another process makes it in the meantime, that one stays.

    Yields
    ------
    part : Path
        The folder to write into.
    """
    folder = Path(folder)
    check_writable(folder.parent)
    remove_leftovers(folder.parent)
    part = Path(tempfile.mkdtemp(prefix=_PART, dir=folder.parent))
    try:
        yield part
        part.chmod(0o755)
        os.rename(part, folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def remove_leftovers(folder):
    """Remove what killed processes left in a folder more than a day ago."""
    for part in Path(folder).glob(f"{_PART}*"):
        with suppress(OSError):  # its process has just finished
            if time.time() - part.stat().st_mtime < _DAY:
                continue  # its process may be at work
            if part.is_dir():
                shutil.rmtree(part, ignore_errors=True)
            else:
                part.unlink()

"""Waveforms and background activity from the neural-mass model, cached on disk."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import hashlib
import json
import shutil
from dataclasses import asdict, fields

import numpy as np
from mne.utils import _validate_type, logger

from ..cache import check_writable, data_path, remove_leftovers, whole_folder
from ..head.parcels import Parcels
from .connectome import Connectome, make_distance_connectome
from .ingredients import Library
from .jansen_rit import JansenRit, simulate_jansen_rit
from .patches import HALF_AMPLITUDE, make_patches
from .waveforms import (
    HALF_LENGTH,
    SFREQ,
    STRETCHES,
    change_rate,
    make_bursts,
    make_evoked,
    make_spikes,
    recipe,
    stretch,
)

LIBRARY_VERSION = 1  # raise when the same parameters give other numbers
N_BACKGROUND = 16  # networks that share the background's duration
RUNAWAY = 1.5  # a network is dropped if its mean PSP is above this times the median's
# Shares of the waveforms, unless papers_only
SHARES = {"spikes": 0.5, "stretched": 0.25, "evoked": 0.15, "bursts": 0.1}


def make_library(
    parcels,
    sfreq=125.0,
    *,
    n_patches=20_000,
    n_waveforms=40_000,
    background=300.0,
    papers_only=False,
    connectome=None,
    random_state=0,
):
    """Simulate the ingredients of training data; the result is cached on disk.

    Parameters
    ----------
    parcels : Parcels
        The parcellation.
    sfreq : float
        Sampling rate of the result (Hz).
    n_patches : int
        Number of patches, about equally many for each seed parcel.
    n_waveforms : int
        Number of source waveforms.
    background : float
        Duration of the background activity (s).
    papers_only : bool
        Use only unstretched spikes, as in the papers. Otherwise half of the waveforms
        are spikes, evoked responses and rhythmic bursts, stretched in time by a factor
        of 0.5 to 2. They let the network work on other data than spikes.
    connectome : Connectome | None
        Coupling of the parcels; None takes
        :func:`~mne_deepsif.make_distance_connectome` with its defaults.
    random_state : int
        Seed.

    Returns
    -------
    library : Library
        Patches, waveforms and background. The arrays are memory-mapped. Changes to
        them stay in memory.

    Notes
    -----
    A library is a folder of ``.npy`` files in ``libraries`` of
    :func:`~mne_deepsif.data_path`, of about
    ``2 * sfreq * (1.536 * n_waveforms + n_parcels * background)`` bytes. It is written
    under another name and then renamed, so a killed build, or two at once, do no harm.
    A later build removes what a killed one left more than a day ago.
    """
    _validate_type(parcels, Parcels, "parcels")
    if connectome is None:
        connectome = make_distance_connectome(parcels.centers, parcels.hemi)
    _check_connectome(connectome, parcels)
    parameters = _check_parameters(
        dict(n_patches=n_patches, n_waveforms=n_waveforms, random_state=random_state),
        dict(sfreq=sfreq, background=background),
        papers_only,
    )
    key = _make_key(parcels, connectome, parameters)
    folder = data_path() / "libraries" / f"library-{key}"
    if not folder.is_dir():
        check_writable(folder.parent)
        remove_leftovers(folder.parent)
        _check_disk(folder.parent, parcels.n_parcels, parameters)
        logger.info("Simulating neural masses (kept in %s) ...", folder)
        library = _make_library(parcels, connectome=connectome, **parameters)
        _save(folder, library, parameters)
    return _read(folder, parameters["sfreq"])


# --------------------------------------------------------------- checks


def _check_connectome(connectome, parcels):
    _validate_type(connectome, Connectome, "connectome")
    if connectome.n_parcels != parcels.n_parcels:
        raise ValueError(
            "connectome must have as many parcels as the parcellation, "
            f"{parcels.n_parcels}, got {connectome.n_parcels}."
        )


def _check_parameters(counts, lengths, papers_only):
    """Return the parameters as plain int, float and bool."""
    # a kind of waveform with a share of a tenth needs ten waveforms to get one
    lowest = dict(n_patches=1, n_waveforms=1 if papers_only else 10, random_state=0)
    for name, value in counts.items():
        _validate_type(value, "int-like", name)
        if value < lowest[name]:
            raise ValueError(f"{name} must be at least {lowest[name]}, got {value}.")
    for name, value in lengths.items():
        _validate_type(value, "numeric", name)
    if not 10 <= lengths["sfreq"] <= 4000:
        raise ValueError(
            f"sfreq must be from 10 to 4000 Hz, got {lengths['sfreq']}. The neural "
            f"masses are sampled at {SFREQ:.0f} Hz."
        )
    if not 2 <= lengths["background"] < np.inf:
        raise ValueError(
            f"background must be at least 2 s, got {lengths['background']}."
        )
    _validate_type(papers_only, bool, "papers_only")
    return (
        {name: int(value) for name, value in counts.items()}
        | {name: float(value) for name, value in lengths.items()}
        | {"papers_only": bool(papers_only)}
    )


def _check_disk(folder, n_parcels, parameters):
    """Raise before the simulation if the result would not fit on the disk."""
    n_wave_times = 2 * HALF_LENGTH * parameters["sfreq"]
    needed = 2 * parameters["n_waveforms"] * n_wave_times
    needed += 2 * n_parcels * parameters["background"] * parameters["sfreq"]
    needed += 6 * parameters["n_patches"] * min(n_parcels, 60)
    free = shutil.disk_usage(folder).free
    if free < 1.1 * needed:
        raise OSError(
            f"The library needs {1.1e-6 * needed:.0f} MB on disk, but {folder} has "
            f"{1e-6 * free:.0f} MB left. Free some space, set MNE_DEEPSIF_DATA to "
            "another folder (mne.set_config), or use a smaller n_waveforms or a "
            "shorter background."
        )


# --------------------------------------------------------------- the cache


def _make_key(parcels, connectome, parameters):
    """Hash everything that the numbers depend on."""
    constants = (
        *(LIBRARY_VERSION, N_BACKGROUND, RUNAWAY, SHARES, HALF_AMPLITUDE),
        *(asdict(JansenRit()), recipe()),
    )
    key = hashlib.sha256(json.dumps([constants, parameters], sort_keys=True).encode())
    weights, adjacency = connectome.weights, parcels.adjacency
    for array in (
        *(parcels.mapping, parcels.centers, adjacency.indptr, adjacency.indices),
        *(weights.indptr, weights.indices, weights.data),
    ):
        key.update(np.ascontiguousarray(array).tobytes())
    return key.hexdigest()[:16]


def _save(folder, library, parameters):
    with whole_folder(folder) as part:
        for name in _array_names():
            np.save(part / f"{name}.npy", getattr(library, name))
        text = json.dumps(parameters | {"version": LIBRARY_VERSION}, indent=2)
        (part / "parameters.json").write_text(text, encoding="utf-8")


def _read(folder, sfreq):
    """Map the arrays; copy-on-write, since torch warns about read-only memory."""
    arrays = {
        name: np.load(folder / f"{name}.npy", mmap_mode="c") for name in _array_names()
    }
    return Library(**arrays, sfreq=sfreq)


def _array_names():
    return [field.name for field in fields(Library) if field.name != "sfreq"]


# --------------------------------------------------------------- its parts


def _make_library(
    parcels,
    connectome,
    sfreq,
    n_patches,
    n_waveforms,
    background,
    papers_only,
    random_state,
):
    rng = np.random.default_rng([random_state, LIBRARY_VERSION])
    seeds = rng.permutation(np.arange(n_patches) % parcels.n_parcels)
    patches, decay = make_patches(
        seeds, parcels.adjacency, parcels.centers, rng.integers(2**31)
    )
    ongoing = change_rate(
        make_background(connectome, background, int(rng.integers(2**31))), sfreq / SFREQ
    )
    return Library(
        patches=patches,
        decay=decay,
        waveforms=_make_waveforms(connectome, n_waveforms, sfreq, papers_only, rng),
        background=ongoing.astype(np.float16),
        sfreq=sfreq,
    )


def make_background(connectome, duration, seed):
    """Simulate ongoing activity: (n_parcels, n_times) at 500 Hz, zero mean, SD 1.

    Networks that run away are replaced. With some connectomes, a few end in a state in
    which a third of the parcels spike.
    """
    kept, n_missing, limit = [], N_BACKGROUND, None
    for attempt in range(10):
        psp = simulate_jansen_rit(
            duration / N_BACKGROUND,
            connectome,
            n_networks=n_missing,
            random_state=seed + attempt,
        )
        level = psp.mean((1, 2))
        limit = RUNAWAY * np.median(level) if limit is None else limit
        kept.append(psp if (level <= limit).all() else psp[level <= limit])
        n_missing -= len(kept[-1])
        if not n_missing:
            break
        logger.info("Replacing %d networks that ran away.", n_missing)
    else:
        raise RuntimeError(
            "The background activity runs away again and again with this connectome. "
            "Lower the weights of the connectome."
        )
    psp = kept[0] if len(kept) == 1 else np.concatenate(kept)
    psp -= psp.mean(-1, keepdims=True)
    psp /= psp.std()
    return np.concatenate(list(psp), axis=1)


def _make_waveforms(connectome, n_waveforms, sfreq, papers_only, rng):
    """Return (n_waveforms, n_times) in half precision."""
    if papers_only:
        spikes = make_spikes(connectome, n_waveforms, rng)
        return stretch(spikes, 1.0, sfreq).astype(np.float16)
    numbers = {name: int(share * n_waveforms) for name, share in SHARES.items()}
    numbers["spikes"] += n_waveforms - sum(numbers.values())  # rounding
    spikes = make_spikes(connectome, numbers["spikes"], rng)
    other = [
        spikes[rng.integers(len(spikes), size=numbers["stretched"])],
        make_evoked(numbers["evoked"], rng),
        make_bursts(numbers["bursts"], rng),
    ]
    groups = np.array_split(rng.permutation(np.concatenate(other)), len(STRETCHES))
    pairs = zip(groups, STRETCHES, strict=True)
    stretched = [stretch(group, factor, sfreq) for group, factor in pairs]
    waveforms = np.concatenate([stretch(spikes, 1.0, sfreq), *stretched])
    return rng.permutation(waveforms).astype(np.float16)

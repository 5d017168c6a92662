"""A run: all recordings of a BIDS dataset, on one machine or on many."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import threading
import time
import traceback
import warnings
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import joblib
import mne
import pandas as pd
import torch
from mne.utils import _validate_type, logger
from threadpoolctl import threadpool_limits

from ..cache import hash_file, remove_leftovers
from ..estimator import DeepSIFEstimator, read_deepsif
from ..head.reference import check_average_reference
from ..head.template import make_template_forward
from ..inverse.weights import fetch_weights
from .bids import find_forward, find_recordings, read_runs
from .derivatives import (
    check_names,
    is_current,
    make_key,
    read_record,
    versions,
    write_description,
    write_json,
    write_table,
)
from .estimates import Results, write_evoked_estimates
from .recording import average, make_epochs, make_noise_cov, prepare_raw, set_positions
from .settings import CohortSettings

_COLUMNS = (
    *("recording", "datatype", "subject", "session", "task", "status", "error"),
    *("warnings", "conditions", "n_channels", "sfreq", "forward", "seconds"),
)
_ONE_AT_A_TIME = threading.Lock()  # in a process, whatever threads its engine has
_SURFACES = (  # of a subject: spheres for parcels, the rest for MNI coordinates
    *("surf/lh.sphere.reg", "surf/rh.sphere.reg", "surf/lh.white", "surf/rh.white"),
    "mri/transforms/talairach.xfm",
)
_LONGEST = 500  # characters of an error in the table


# ---------------------------------------------------------------- many
def run_cohort(settings, command="run_cohort"):
    """Estimate all recordings of a BIDS dataset, as BIDS derivatives.

    Parameters
    ----------
    settings : CohortSettings
        The settings.
    command : str
        What was run, for ``dataset_description.json``.

    Returns
    -------
    table : pandas.DataFrame
        One row per recording. ``status`` is ``"done"``, ``"kept"`` (results of the same
        data, settings and weights are there) or ``"failed"``, with the reason in
        ``error``. With ``dry_run``, it is ``"would run"``, ``"kept"`` or ``"failed"``,
        and nothing is written.

    Notes
    -----
    A recording holds all runs of a subject in one session and task. They are averaged
    together. A recording that fails does not stop the others. The table is also
    written to ``cohort.tsv`` in the folder of the results, and with the tracebacks to
    ``cohort.json``.

    Inputs, settings and weights are compared by content (SHA-256). Files appear whole
    or not at all, so you can stop a run at any time, and start it again.
    """
    _validate_type(settings, CohortSettings, "settings")
    settings = _complete(settings)
    recordings = find_recordings(settings)
    folder = settings.folder
    weights = describe_weights(settings.weights)
    if not settings.dry_run:
        folder.mkdir(parents=True, exist_ok=True)
        write_description(folder, settings.root, command, weights)
    rows = []
    by_name = {(one.name, one.datatype): one for one in recordings}
    for row in _run_all(recordings, weights, settings):
        rows.append(row)
        if row["status"] == "failed" and not settings.dry_run:
            recording = by_name[row["recording"], row["datatype"]]
            _record_fname(recording, settings).unlink(missing_ok=True)
        text = f"{len(rows)}/{len(recordings)} {row['recording']}: {row['status']}"
        logger.info(f"{text} ({row['error']})" if row["error"] else text)
    rows.sort(key=lambda row: (row["recording"], row["datatype"]))
    _compare_sessions(rows)
    table = pd.DataFrame(rows)[list(_COLUMNS)]
    if not settings.dry_run:
        write_table(folder / "cohort.tsv", table)
        about = dict(Command=command, Weights=weights, Versions=versions())
        write_json(folder / "cohort.json", about | dict(Recordings=rows))
    return table


def _complete(settings):
    """Make paths absolute, as other machines need them; find the subjects directory."""
    settings = replace(settings, root=str(Path(settings.root).resolve()))
    settings = replace(settings, out=str(settings.folder.resolve()))
    surfaces = Path(settings.root) / "derivatives" / "freesurfer" / "subjects"
    if settings.subjects_dir is None and surfaces.is_dir():
        settings = replace(settings, subjects_dir=str(surfaces))
    if settings.weights.endswith(".safetensors"):
        settings = replace(settings, weights=str(Path(settings.weights).resolve()))
    return settings


def describe_weights(name):
    """Return name and SHA-256 of weights, given by name or file, for sidecars."""
    fname = Path(name) if name.endswith(".safetensors") else fetch_weights(name)
    if not fname.is_file():
        raise ValueError(f"weights {name!r} is not a file.")
    return dict(
        Name=fname.name if fname.suffix in name else name, SHA256=hash_file(fname)
    )


def _run_all(recordings, weights, settings):
    """Yield the row of each recording, as it is finished."""
    task = partial(run_recording, weights=weights, settings=settings)
    if settings.dask is None:
        yield from _run_here(recordings, task, settings.jobs)
    else:
        yield from _run_on_dask(recordings, task, settings.dask)


def _run_here(recordings, task, n_jobs):
    parallel = joblib.Parallel(n_jobs, batch_size=1, return_as="generator_unordered")
    left = {(one.name, one.datatype): one for one in recordings}
    try:
        for row in parallel(joblib.delayed(task)(one) for one in recordings):
            left.pop((row["recording"], row["datatype"]))
            yield row
        return
    except BrokenExecutor:  # joblib does not say which of them it was
        logger.warning("A process was killed: going on, one recording at a time.")
    for recording in left.values():
        try:
            yield from parallel([joblib.delayed(task)(recording)])
        except BrokenExecutor as error:
            yield _make_row(recording) | _killed(error)


def _run_on_dask(recordings, task, address):
    """Submit at once: joblib would count the workers, which come and go."""
    try:
        import distributed
    except ImportError as error:
        raise ImportError(
            "dask needs distributed, which is not installed: pip install "
            "mne-deepsif[dask]"
        ) from error
    with distributed.Client(address) as client:
        futures = client.map(task, recordings, pure=False)
        names = dict(zip((future.key for future in futures), recordings))
        for future in distributed.as_completed(futures):
            try:
                yield future.result()
            except distributed.KilledWorker as error:
                yield _make_row(names[future.key]) | _killed(error)


def _killed(error):
    text = "its process was killed, as for too little memory"
    return _failure(RuntimeError(text), error)


def _compare_sessions(rows):
    """Note sessions of a subject whose channels differ from those of the first."""
    first = {}
    for row in rows:
        names = row.pop("ch_names", None)
        if names is None:
            continue
        place = row["subject"], row["task"], row["datatype"]
        other, theirs = first.setdefault(place, (row["recording"], names))
        if set(names) != set(theirs):
            text = f"other channels than {other} ({len(names)}, there {len(theirs)})"
            row["warnings"] = "; ".join(filter(None, [row["warnings"], text]))


# ---------------------------------------------------------------- one
def run_recording(recording, weights, settings):
    """Estimate a recording, unless its results are current; never raise.

    Parameters
    ----------
    recording : Recording
        The recording.
    weights : dict
        Name and SHA-256 of the weights.
    settings : CohortSettings
        The settings.

    Returns
    -------
    row : dict
        What happened.
    """
    row = _make_row(recording)
    try:
        with _ONE_AT_A_TIME, one_thread():
            return row | _run(recording, weights, settings)
    except Exception as error:  # reported, whatever it is
        return row | _failure(error, error)


def _make_row(recording):
    entities = recording.entities
    row = dict.fromkeys((*_COLUMNS, "traceback"), "")
    row |= {name: entities.get(name, "") for name in ("subject", "session", "task")}
    return row | dict(recording=recording.name, datatype=recording.datatype)


def _failure(shown, error):
    text = " ".join(f"{type(shown).__name__}: {shown}".split())
    lines = traceback.format_exception(error)
    return dict(status="failed", error=text[:_LONGEST], traceback="".join(lines))


@contextmanager
def one_thread():
    """Use one thread, and log errors alone: tasks share the processors."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1), mne.utils.use_log_level("ERROR"):
            yield
    finally:
        torch.set_num_threads(n_threads)


def _run(recording, weights, settings):
    """Return what to note of a recording; estimate it if need be."""
    folder = settings.folder / recording.place
    fname = find_forward(recording, Path(settings.root) / "derivatives")
    sources = _find_sources(recording, fname, settings)
    inputs = {name: hash_file(path) for name, path in sources.items()}
    key = make_key(inputs, settings.that_matter(), weights["SHA256"])
    record_fname = _record_fname(recording, settings)
    record = read_record(record_fname)
    if is_current(record, key, folder):
        return record["Row"] | dict(status="kept")
    row = dict(forward="template")
    if fname is not None:
        row["forward"] = fname.relative_to(settings.root).as_posix()
    if settings.dry_run:
        return row | dict(status="would run")
    sidecar = dict(
        Sources=[f"bids:raw:{name}" for name in sources],
        Weights=weights,
        Settings=settings.that_matter(),
        Key=key,
    )
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    record_fname.unlink(missing_ok=True)  # until all is there, no result counts
    results = Results(folder, recording.name, sidecar)
    fwd = None if fname is None else mne.read_forward_solution(fname)
    row |= _estimate_noting_warnings(recording, fwd, settings, results)
    _remove_stale(record_fname, key)
    hashes = dict(Inputs=inputs, Outputs=results.outputs, Versions=versions())
    write_json(record_fname, sidecar | hashes | dict(Row=row))
    return row | dict(status="done")


def _record_fname(recording, settings):
    """Return the file that says that all results are there, and what they are of."""
    return settings.folder / recording.place / f"{recording.name}_deepsif.json"


def _remove_stale(record_fname, key):
    """Remove the results of a recording that have another key."""
    name = record_fname.name.removesuffix("_deepsif.json")
    for ending in ("_desc-*", "_report.*"):
        for fname in record_fname.parent.glob(f"{name}{ending}"):
            if read_record(fname.with_suffix(".json")).get("Key") != key:
                fname.unlink(missing_ok=True)


def _find_sources(recording, fname, settings):
    """Return all files that the results depend on, by name."""
    paths = [*recording.inputs(), *([] if fname is None else [fname])]
    sources = {path.relative_to(settings.root).as_posix(): path for path in paths}
    if fname is not None:
        surfaces = mne.utils.get_subjects_dir(settings.subjects_dir)
        src = mne.read_source_spaces(fname)  # of a forward whose gain is not read
        subject = src[0].get("subject_his_id")
        if surfaces is not None and subject is not None:
            for name in _SURFACES:
                path = Path(surfaces) / subject / name
                if path.is_file():
                    sources[f"{subject}/{name}"] = path
    return sources


def _estimate_noting_warnings(recording, fwd, settings, results):
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")  # of libraries about libraries
        for kind in (RuntimeWarning, UserWarning):
            warnings.simplefilter("always", kind)
        with mne.utils.use_log_level("WARNING"):  # it shows no warnings else
            row = _estimate(recording, fwd, settings, results)
    texts = dict.fromkeys(" ".join(str(one.message).split()) for one in caught)
    row["warnings"] = "; ".join(texts)
    return row | dict(seconds=round(time.perf_counter() - start, 2))


def _estimate(recording, fwd, settings, results):
    raws = read_runs(recording)
    for raw in raws.values():
        prepare_raw(raw, settings)
        if fwd is None:
            set_positions(raw, settings.montage)
    epochs = make_epochs(raws, settings)
    evokeds = average(epochs, settings.events)
    noise_cov = make_noise_cov(epochs, settings.baseline_of())
    if fwd is None:
        fwd = make_template_forward(epochs.info)
    estimator = settings.weights
    if settings.personalise:
        for evoked in evokeds:  # what would fail after the training
            check_average_reference(evoked.info, evoked.data, evoked.ch_names)
        check_names([evoked.comment for evoked in evokeds])
        estimator = _personalise(epochs.info, fwd, noise_cov, settings, results)
    write_evoked_estimates(evokeds, fwd, noise_cov, estimator, settings, results)
    counts = [f"{evoked.comment}: {evoked.nave}" for evoked in evokeds]
    return dict(
        conditions=", ".join(counts),
        n_channels=len(epochs.ch_names),
        sfreq=epochs.info["sfreq"],
        ch_names=epochs.ch_names,
    )


def _personalise(info, fwd, noise_cov, settings, results):
    """Return an estimator trained on the forward, from its file if that is current."""
    fname = results.fname("personal", "_model.safetensors")
    record = read_record(fname.with_suffix(".json"))
    key = results.sidecar["Key"]
    if (record.get("Key"), record.get("SHA256")) != (key, _hash_if_there(fname)):
        estimator = DeepSIFEstimator(
            settings.weights, n_steps=settings.personalise, random_state=0
        )
        estimator.fit(fwd, info, noise_cov, subjects_dir=settings.subjects_dir)
        estimator.save(fname, overwrite=True)
    results.add(fname, Description="Personalised weights", SHA256=hash_file(fname))
    return read_deepsif(fname)


def _hash_if_there(fname):
    return hash_file(fname) if fname.is_file() else None

"""Compute cells, here or on a cluster, and only those that are missing."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import json
import time
from functools import lru_cache
from itertools import groupby

import joblib
import numpy as np
from mne.utils import logger

from mne_deepsif.cohort.run import one_thread

from ..provenance import provenance
from .methods import find_method
from .scenarios import Chunk, draw, head_of
from .scores import as_rows, score_extents
from .store import Cell

PREPARED = 48  # methods in memory


# ---------------------------------------------------------------- one cell
def compute(cell):
    """Compute a cell.

    Parameters
    ----------
    cell : Cell
        The cell.

    Returns
    -------
    record : dict
        ``"rows"``: the scores, and whether the method failed; they depend on the cell
        alone. ``"errors"``: why it failed, by sample. ``"seconds"``: processor time of
        each estimate, by sample; what is prepared for a head does not count.
        ``"samples"``: what the samples are, see ``describe`` of their sources.
    """
    rows, errors, seconds, samples = [], {}, {}, {}
    with one_thread():
        head, drawn = draw(cell.scenario, cell.chunk)
        for sample in drawn:
            samples[sample.number] = cell.scenario.sources.describe(sample, head)
            found = None
            try:
                stc, seconds[sample.number] = _estimate(cell, sample.evoked)
                found = _score(cell, stc, sample, head)
            except Exception as error:  # counted and shown, whatever it is
                errors[sample.number] = f"{type(error).__name__}: {error}"[:300]
            rows += as_rows(sample.number, {"-": dict(failed=found is None)})
            rows += found or []
    return dict(rows=rows, errors=errors, seconds=seconds, samples=samples)


def _estimate(cell, evoked):
    settings = json.dumps(cell.settings)
    prepared = _prepare(cell.method, settings, head_of(cell.scenario, cell.chunk))
    began = time.thread_time()
    stc = prepared(evoked)
    seconds = time.thread_time() - began
    if not np.isfinite(stc.data).all():
        raise ValueError("the estimate is not finite")
    return stc, seconds


@lru_cache(PREPARED)
def _prepare(method, settings, spec):
    """Prepare a method for a head."""
    problem = spec.make().problem
    return find_method(method).prepare(problem, **json.loads(settings))


def _score(cell, stc, sample, head):
    sources, method = cell.scenario.sources, find_method(cell.method)
    rows = sources.score(stc, sample, head, method.moments)
    if sources.judged and method.moments:
        rows += score_extents(stc, sample, head, method.likely)
    return rows


# ---------------------------------------------------------------- many cells
def make_plan(scenario, methods, settings, n_samples, size):
    """List the cells of a scenario.

    Parameters
    ----------
    scenario : Scenario
        The scenario.
    methods : list of str
        The methods.
    settings : dict of list of int
        Numbers of the settings of each method.
    n_samples : int
        Number of samples; at least this many are drawn.
    size : int
        Samples of a chunk.

    Returns
    -------
    plan : list of Cell
        The cells, chunk by chunk.
    """
    n_heads = len(scenario.numbers)
    size = min(size, -(-n_samples // n_heads))
    n_chunks = n_heads * -(-n_samples // (n_heads * size))
    return [
        Cell(scenario, method, number, Chunk(chunk, size))
        for chunk in range(n_chunks)
        for method in methods
        for number in settings[method]
    ]


def run(plan, store, n_jobs=None):
    """Compute the cells that the store lacks, in processes, and save each.

    Parameters
    ----------
    plan : list of Cell
        What is wanted.
    store : Store
        Where rows are kept.
    n_jobs : int | None
        Number of processes. None leaves it to :func:`joblib.parallel_config`, which
        also chooses another engine than this machine.

    Returns
    -------
    n_computed : int
        How many cells were missing.
    """
    missing = store.missing(plan)
    missing.sort(key=_head_name)  # what is prepared for a head serves all of its cells
    tasks = [list(cells) for _, cells in groupby(missing, _place)]
    logger.info(f"{len(missing)} of {len(plan)} cells are missing")
    stamp = provenance()
    # all at once, so that an engine has work for workers that come later
    parallel = joblib.Parallel(n_jobs=n_jobs, batch_size=1, pre_dispatch="all")
    parallel(joblib.delayed(run_task)(cells, store, stamp) for cells in tasks)
    return len(missing)


def _head_name(cell):
    return str(head_of(cell.scenario, cell.chunk))


def _place(cell):
    """Return what the cells of a task share: they need the same head."""
    return cell.scenario, cell.chunk


def run_task(cells, store, stamp):
    """Compute and save cells."""
    for cell in cells:
        store.save(cell, compute(cell) | dict(provenance=stamp))


# ---------------------------------------------------------------- the choice
def choose(scenarios, methods, store, n_samples, size, n_jobs=None):
    """Choose the settings of each method, for each scenario, on samples of their own.

    Best is the least mean peak error, then the largest AUC. Settings that fail rank
    last.

    Returns
    -------
    best : dict of dict of int
        The number of the best settings, by scenario and method.
    """
    every = {name: range(len(find_method(name).settings)) for name in methods}
    tuned = [name for name in methods if len(every[name]) > 1]
    plans = {
        one: make_plan(one.for_validation(), tuned, every, n_samples, size)
        for one in scenarios
        if one.sources.n_sources
    }
    run([cell for plan in plans.values() for cell in plan], store, n_jobs)
    none = dict.fromkeys(methods, 0)
    return {one: none | _best(plans.get(one, []), store) for one in scenarios}


def _best(plan, store):
    """Return the best settings of each method in a plan."""
    ranks = {}
    for cell in plan:
        for _, _, metric, value in store.load(cell)["rows"]:
            found = ranks.setdefault((cell.method, cell.setting), {})
            found.setdefault(metric, []).append(value)
    best = {}
    for (method, setting), found in ranks.items():
        rank = (np.mean(found["failed"]), *_means(found), setting)
        best[method] = min(best.get(method, (np.inf,)), rank)
    return {method: rank[-1] for method, rank in best.items()}


def _means(found):
    """Return mean peak error and minus the mean AUC; infinite if all have failed."""
    if "peak" not in found:
        return np.inf, np.inf
    return np.mean(found["peak"]), -np.mean(found["auc"])

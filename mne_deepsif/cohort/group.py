"""A group: mean, variance and a cluster test of estimates over subjects."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import re
import shutil
import tempfile
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import mne
import numpy as np
import pandas as pd
from mne.utils import _validate_type, warn
from scipy import stats

from ..cache import hash_file, whole_file
from ..extent import times_within
from ..head.anatomy import read_white
from ..head.template import make_template_source_space, make_template_subject
from .derivatives import entity, read_record, versions, write_table
from .estimates import Results

_VERTICES = [np.arange(10242)] * 2  # of fsaverage, ico-5; fsaverage5 has no others
_HEMIS = ("lh", "rh")
_ENTITIES = dict(task="task", acquisition="acq", processing="proc")  # in file names


@dataclass(frozen=True)
class GroupStatistics:
    """Statistics over subjects.

    Attributes
    ----------
    n_subjects : int
        Number of subjects.
    mean, variance : SourceEstimate
        Mean, and unbiased variance, over subjects.
    t : SourceEstimate
        Student's t of the mean against 0; 0 where the variance is 0.
    clusters : pandas.DataFrame
        One row per cluster, the smallest p-value first; empty without a test.
    """

    n_subjects: int
    mean: mne.SourceEstimate
    variance: mne.SourceEstimate
    t: mne.SourceEstimate
    clusters: pd.DataFrame


# ---------------------------------------------------------------- arrays
class _Moments:
    """Mean and variance in one pass, by Welford's update."""

    def __init__(self):
        self.n, self.mean, self.squares = 0, 0.0, 0.0

    def add(self, data):
        self.n += 1
        delta = data - self.mean
        self.mean = self.mean + delta / self.n
        self.squares = self.squares + delta * (data - self.mean)

    @property
    def variance(self):
        return self.squares / (self.n - 1)


def _t_values(moments):
    error = np.sqrt(moments.variance / moments.n)
    return np.divide(moments.mean, error, np.zeros_like(error), where=error > 0)


# ---------------------------------------------------------------- estimates
def group_statistics(
    stcs, *, n_permutations=1024, p_threshold=0.001, n_jobs=None, random_state=0
):
    """Compute mean and variance over subjects, and test the mean against 0.

    Parameters
    ----------
    stcs : iterable of SourceEstimate
        One estimate per subject, on the vertices of fsaverage (ico-5) and at the same
        times. They must have a sign that means the same in all subjects, and 0 if
        there is no effect: a difference of conditions, or a change from a baseline.
    n_permutations : int
        Number of sign flips of the cluster test. 0 leaves it out. Then memory does not
        grow with the number of subjects; the test keeps all estimates (single
        precision).
    p_threshold : float
        Two-sided p-value of single vertices and times that forms clusters.
    n_jobs : int | None
        Number of processes of the test.
    random_state : int
        Seed of the sign flips.

    Returns
    -------
    statistics : GroupStatistics
        Mean, variance, t and clusters.

    See Also
    --------
    mne.stats.spatio_temporal_cluster_1samp_test : The test.
    """
    _validate_type(n_permutations, "int-like", "n_permutations")
    if not 0 < p_threshold < 1:
        raise ValueError(f"p_threshold must be between 0 and 1, got {p_threshold}.")
    moments, first, kept = _Moments(), None, []
    for number, stc in enumerate(stcs):
        first = stc if first is None else first
        _check_like(stc, first, number)
        moments.add(stc.data.astype(float))
        if n_permutations:
            kept.append(stc.data.T.astype(np.float32))
    if moments.n < 2:
        raise ValueError(f"stcs must hold at least two subjects, got {moments.n}.")
    arrays = moments.mean, moments.variance, _t_values(moments)
    mean, variance, t = (_like(array, first) for array in arrays)
    clusters = pd.DataFrame()
    if n_permutations:
        threshold = stats.t.isf(p_threshold / 2, moments.n - 1)
        clusters = _test(
            np.stack(kept), threshold, n_permutations, n_jobs, random_state
        )
        clusters = _describe(*clusters, t)
    return GroupStatistics(moments.n, mean, variance, t, clusters)


def _check_like(stc, first, number):
    _validate_type(stc, mne.SourceEstimate, "each element of stcs")
    same = [np.array_equal(a, b) for a, b in zip(stc.vertices, _VERTICES)]
    if not all(same):
        raise ValueError(
            f"stcs[{number}] must be on the {len(_VERTICES[0])} vertices per "
            f"hemisphere of fsaverage, got {[len(v) for v in stc.vertices]}: morph it "
            "first."
        )
    slack = first.tstep / 2  # other rates allow other first samples
    if stc.shape != first.shape or np.abs(stc.times - first.times).max() > slack:
        raise ValueError(
            f"stcs[{number}] must have the times of the first one, {_span(first)}, got "
            f"{_span(stc)}: estimate all with the same sfreq, tmin and tmax."
        )


def _span(stc):
    return f"{stc.times[0]:g} to {stc.times[-1]:g} s at {1 / stc.tstep:g} Hz"


def _like(data, stc):
    data = data.astype(np.float32)
    return mne.SourceEstimate(data, _VERTICES, stc.tmin, stc.tstep, "fsaverage")


def _test(X, threshold, n_permutations, n_jobs, random_state):
    """Return clusters and p-values of X (n_subjects, n_times, n_vertices)."""
    _, clusters, p_values, _ = mne.stats.spatio_temporal_cluster_1samp_test(
        X,
        threshold=threshold,
        n_permutations=n_permutations,
        adjacency=_make_adjacency(),
        n_jobs=n_jobs,
        seed=random_state,
        out_type="indices",
    )
    return clusters, p_values


def _make_adjacency():
    """Return which vertices of both hemispheres are neighbours."""
    tris = [surf["tris"] for surf in make_template_source_space()]
    offset = len(_VERTICES[0])
    return mne.spatial_tris_adjacency(np.vstack([tris[0], tris[1] + offset]))


def _describe(clusters, p_values, t):
    """Return a table of clusters."""
    columns = ["p_value", "tmin", "tmax", "n_vertices", "sum_t", "peak_t", "peak_time"]
    columns += ["hemi", "peak_vertex", "mni_x", "mni_y", "mni_z"]
    white, _ = read_white()  # surface RAS of fsaverage is MNI
    rows = []
    for (when, where), p_value in zip(clusters, p_values):
        values = t.data[where, when]
        peak = np.abs(values).argmax()
        hemi, vertex = divmod(int(where[peak]), len(_VERTICES[0]))
        row = [p_value, t.times[when.min()], t.times[when.max()], len(set(where))]
        row += [values.sum(), values[peak], t.times[when[peak]], _HEMIS[hemi], vertex]
        rows.append([*row, *(1e3 * white[hemi][vertex])])
    return pd.DataFrame(rows, columns=columns).sort_values("p_value", kind="stable")


# ---------------------------------------------------------------- fsaverage
def to_fsaverage(stc, subjects_dir=None):
    """Morph an estimate to the vertices of fsaverage (ico-5).

    Parameters
    ----------
    stc : SourceEstimate
        The estimate. On the template (``fsaverage5``), all vertices keep their values.
    subjects_dir : path-like | None
        FreeSurfer subjects directory with the subject's ``sphere.reg``.

    Returns
    -------
    stc : SourceEstimate
        The same on ``fsaverage``, as moments per vertex of ico-5: values of a
        hemisphere with n vertices are multiplied by n / 10242.
    """
    if stc.subject in ("fsaverage", "fsaverage5"):
        if any((vertices >= 10242).any() for vertices in stc.vertices):
            raise ValueError("the estimate has vertices beyond ico-5 of fsaverage")
        if stc.data.shape[0] == 2 * 10242:
            return _like(stc.data, stc)
        stc, folder = stc.copy(), make_template_subject()
        stc.subject = "fsaverage5"  # whose vertices have the same numbers
    else:
        folder = mne.utils.get_subjects_dir(subjects_dir, raise_error=True)
    with tempfile.TemporaryDirectory() as temporary:
        places = {stc.subject: Path(folder), "fsaverage": make_template_subject()}
        for subject, source in places.items():
            own = "fsaverage5" if subject == "fsaverage" else subject
            target = Path(temporary) / subject / "surf"
            target.mkdir(parents=True)
            for hemi in _HEMIS:
                shutil.copy(source / own / "surf" / f"{hemi}.sphere.reg", target)
        morph = mne.compute_source_morph(
            *(stc, stc.subject, "fsaverage", temporary), spacing=_VERTICES
        )
    # a vertex of a coarser source space stands for a larger area
    shares = [len(vertices) / 10242 for vertices in stc.vertices]
    moments = stc * np.repeat(shares, [len(v) for v in stc.vertices])[:, None]
    return _like(morph.apply(moments).data, stc)


# ---------------------------------------------------------------- a cohort's files
def run_group(settings, command="run_group"):
    """Average the estimates of a cohort over subjects, and write the statistics.

    Parameters
    ----------
    settings : GroupSettings
        The settings.
    command : str
        What was run, for the sidecars.

    Returns
    -------
    fnames : list of Path
        The files written.
    """
    files = _find_files(settings)
    effects = (_effect(files[subject], settings) for subject in files)
    found = group_statistics(
        effects,
        n_permutations=settings.permutations,
        p_threshold=settings.p_threshold,
        n_jobs=settings.jobs,
    )
    name = entity(settings.condition)
    if settings.contrast is not None:
        name += f"minus{entity(settings.contrast).capitalize()}"
    folder = (
        Path(settings.folder) / "group" if settings.out is None else Path(settings.out)
    )
    folder.mkdir(parents=True, exist_ok=True)
    sources = [str(path) for pairs in files.values() for pair in pairs for path in pair]
    sidecar = dict(
        NumberOfSubjects=found.n_subjects,
        Settings=settings.that_matter(),
        Sources=sources,
        GeneratedBy=versions() | dict(command=command),
    )
    results = Results(folder, "group", sidecar)
    for stat in ("mean", "variance", "t"):
        fname = results.fname(name, f"_stat-{stat}-stc.h5")
        with whole_file(fname) as part:
            getattr(found, stat).save(part, ftype="h5", overwrite=True)
        results.add(fname, Description=f"{stat} over subjects", Subject="fsaverage")
    if settings.permutations:
        fname = results.fname(name, "_clusters.tsv")
        write_table(fname, found.clusters)
        results.add(fname, Description="Clusters of the permutation test")
    return [folder / output for output in results.outputs]


def _find_files(settings):
    """Return the files of each subject, of the condition and of the contrast."""
    conditions = [settings.condition]
    if settings.contrast is not None:
        conditions.append(settings.contrast)
    elif settings.baseline is None:
        raise ValueError(
            "group needs baseline or contrast: amplitudes are never below 0, so their "
            "mean alone says nothing against 0"
        )
    folder = Path(settings.folder)
    ending = f"_desc-{entity(settings.condition)}-stc.h5"
    found = sorted(folder.glob(f"sub-*/**/*{ending}"))
    found = _choose(found, "datatype", settings.datatype, lambda x: x.parent.name)
    for name, short in _ENTITIES.items():
        value_of = partial(_entity_of, name=short)
        found = _choose(found, name, getattr(settings, name), value_of)
    found = _leave_out_unfinished(found, ending)
    if not found:
        raise ValueError(
            f"{folder} has no file sub-*{ending} of a finished recording: see the "
            "names there, and run the command cohort again if need be."
        )
    pairs = []
    for fname in found:
        stem = fname.name.removesuffix(ending)
        pair = [fname.with_name(f"{stem}_desc-{entity(c)}-stc.h5") for c in conditions]
        if missing := [str(path) for path in pair if not path.is_file()]:
            raise ValueError(f"contrast: there is no {missing[0]}")
        pairs.append((fname.relative_to(folder).parts[0], pair))
    _check_made_alike([fname for _, pair in pairs for fname in pair])
    return {
        subject: [pair for _, pair in some]
        for subject, some in groupby(pairs, key=lambda pair: pair[0])
    }


def _leave_out_unfinished(fnames, ending):
    """Return the files that their recording's record lists; warn of the others."""
    finished, others = [], []
    for fname in fnames:
        name = fname.name.removesuffix(ending)
        record = read_record(fname.with_name(f"{name}_deepsif.json"))
        is_listed = record.get("Outputs", {}).get(fname.name) == hash_file(fname)
        (finished if is_listed else others).append(fname)
    if others:
        names = ", ".join(fname.name for fname in others)
        warn(f"Left out, as their last run failed or did not finish: {names}.")
    return finished


def _check_made_alike(fnames):
    """Raise if estimates were made with other settings or weights than the first."""
    first = _read_settings(fnames[0])
    for fname in fnames:
        made = _read_settings(fname)
        if other := sorted(
            name for name in made | first if made.get(name) != first.get(name)
        ):
            raise ValueError(
                f"{fname} was made with other {', '.join(other)} than {fnames[0]}: run "
                "the command cohort again, with one config for all."
            )


def _read_settings(fname):
    """Return settings and SHA-256 of the weights that an estimate was made with."""
    sidecar = read_record(fname.with_suffix(".json"))
    if not {"Settings", "Weights"} <= set(sidecar):
        raise ValueError(
            f"{fname.with_suffix('.json')} must say which Settings and Weights the "
            "estimate was made with: run the command cohort again."
        )
    return sidecar["Settings"] | dict(weights=sidecar["Weights"]["SHA256"])


def _choose(fnames, name, wanted, value_of):
    """Return the files with a value; raise if those of several are averaged unasked."""
    if wanted is not None:
        return [fname for fname in fnames if value_of(fname) == wanted]
    values = sorted({value_of(fname) for fname in fnames})
    if len(values) > 1:
        raise ValueError(f"{name} must be one of {values}: the cohort has them all.")
    return fnames


def _entity_of(fname, name):
    found = re.search(rf"_{name}-([A-Za-z0-9]+)_", fname.name)
    return found[1] if found else ""


def _effect(pairs, settings):
    """Return a subject's change of amplitude on fsaverage, averaged over recordings."""
    mean = _Moments()
    for pair in pairs:
        one, *others = (_read_amplitude(fname, settings) for fname in pair)
        for other in others:
            if other.shape != one.shape:
                raise ValueError(f"{pair[0]} and {pair[1]} have different times")
            one -= other
        mean.add(_crop(one, settings).data)
    stc = _crop(one, settings)
    return _like(mean.mean, stc)


def _read_amplitude(fname, settings):
    """Read the absolute amplitude of an estimate: signs depend on folds."""
    stc = abs(mne.read_source_estimate(fname))
    if settings.baseline is not None:
        quiet = times_within(stc, *settings.baseline)
        if not quiet.any():
            raise ValueError(f"baseline {settings.baseline} holds no sample of {fname}")
        stc.data -= stc.data[:, quiet].mean(1, keepdims=True)
    return to_fsaverage(stc, settings.subjects_dir)


def _crop(stc, settings):
    return stc.copy().crop(settings.tmin, settings.tmax)

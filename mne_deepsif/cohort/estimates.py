"""Estimates of a recording, and the files that they are written to."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import dataclass, field
from pathlib import Path

import mne
import numpy as np
from matplotlib import pyplot as plt

from ..apply import apply_deepsif, apply_deepsif_raw
from ..cache import hash_file, whole_file
from ..extent import estimate_extent
from ..inverse.operator import make_deepsif_operator
from ..report import add_deepsif
from ..trust.candidates import default_probability
from ..viz.estimates import plot_estimate
from ..viz.sources import plot_extents
from .derivatives import check_names, entity, write_sidecar, write_table

_LOWEST = 125.0  # Hz; a lower rate would alias what estimates contain
_LARGEST = 8e9  # bytes of a continuous estimate, which is in memory twice


@dataclass
class Results:
    """Where the results of a recording are written, and what is told of each.

    Attributes
    ----------
    folder : Path
        The folder.
    name : str
        How the files' names begin.
    sidecar : dict
        What the JSON file beside each result says of all of them.
    outputs : dict of str
        SHA-256 of each file written, by name.
    """

    folder: Path
    name: str
    sidecar: dict
    outputs: dict = field(default_factory=dict)

    def fname(self, condition, suffix):
        """Return the file of a condition (None: of the whole recording)."""
        desc = "" if condition is None else f"_desc-{entity(condition)}"
        return self.folder / f"{self.name}{desc}{suffix}"

    def add(self, fname, **entries):
        """Write the sidecar of a file, and note both."""
        write_sidecar(fname, **entries, **self.sidecar)
        for one in (fname, fname.with_suffix(".json")):
            self.outputs[one.name] = hash_file(one)


def write_evoked_estimates(evokeds, fwd, noise_cov, estimator, settings, results):
    """Estimate averages and write estimates, extents and a report.

    Parameters
    ----------
    evokeds : list of Evoked
        The averages, each with its condition as comment.
    fwd : Forward
        The forward solution.
    noise_cov : Covariance
        The noise covariance.
    estimator : str | DeepSIFEstimator
        The estimator.
    settings : EstimateSettings | CohortSettings
        The settings.
    results : Results
        Where to write.
    """
    check_names([evoked.comment for evoked in evokeds])
    options = dict(estimator=estimator, subjects_dir=settings.subjects_dir)
    operator = make_deepsif_operator(evokeds[0].info, fwd, noise_cov, **options)
    for evoked in evokeds:
        stc = apply_deepsif(evoked, operator)
        entries = dict(Condition=evoked.comment, NumberOfAverages=evoked.nave)
        _write_stc(stc, evoked.comment, results, entries)
        _write_extents(stc, fwd, (evoked, noise_cov), settings, results, entries)
    if settings.report:
        report = mne.Report(title=results.name)
        for evoked in evokeds:
            more = dict(min_area=settings.min_area, title=evoked.comment)
            add_deepsif(report, evoked, fwd, noise_cov, **options, **more)
        _write_report(report, results)


def write_raw_estimate(raw, fwd, noise_cov, settings, results):
    """Estimate continuous data and write the estimate, its extents and a report.

    Parameters
    ----------
    raw : Raw
        The data.
    fwd : Forward
        The forward solution.
    noise_cov : Covariance
        The noise covariance.
    settings : EstimateSettings
        The settings.
    results : Results
        Where to write.
    """
    start, stop, decim = choose_samples(raw, settings)
    _check_size(len(range(start, stop, decim)), fwd["nsource"])
    stc = apply_deepsif_raw(
        raw,
        fwd,
        noise_cov,
        estimator=settings.weights,
        start=start,
        stop=stop,
        decim=decim,
        subjects_dir=settings.subjects_dir,
    )
    _write_stc(stc, None, results, {})
    # annotated as bad: NaN. The threshold is over peaks, so zeros do not change it
    np.nan_to_num(stc.data, copy=False)
    extents = _write_extents(stc, fwd, (None, None), settings, results, {})
    if settings.report:
        report = mne.Report(title=results.name)
        place = dict(subjects_dir=settings.subjects_dir)
        figures = {"Estimate at its peak": plot_estimate(stc, **place)}
        if extents:
            figures["Extents"] = plot_extents(extents, **place)
        for title, figure in figures.items():
            report.add_figure(figure, title)
            plt.close(figure)
        _write_report(report, results)


def choose_samples(raw, settings):
    """Return the samples of continuous data to estimate.

    Parameters
    ----------
    raw : Raw
        The data.
    settings : EstimateSettings
        The settings.

    Returns
    -------
    start, stop, decim : int
        First sample, first after the range, and step.
    """
    sfreq = raw.info["sfreq"]
    duration = raw.n_times / sfreq
    tmin = 0.0 if settings.tmin is None else settings.tmin
    tmax = duration if settings.tmax is None else settings.tmax
    start, stop = round(tmin * sfreq), round(tmax * sfreq)
    if not (0 <= tmin and start < stop <= raw.n_times):
        raise ValueError(
            "tmin and tmax of continuous data must be from 0, its first sample, to "
            f"{duration:g} s, tmin before tmax, got {tmin:g} and {tmax:g}"
        )
    return start, stop, _choose_decim(sfreq, settings.sfreq)


def _choose_decim(sfreq, wanted):
    """Return every how many samples to keep for the rate wanted."""
    if wanted is None:
        return 1
    ratio = sfreq / wanted
    decim = round(ratio)
    most = max(1, int(sfreq / _LOWEST))
    if abs(ratio - decim) > 1e-6 or not 1 <= decim <= most:
        near = {min(max(n, 1), most) for n in (int(ratio), int(ratio) + 1)}
        rates = " or ".join(f"{sfreq / n:g}" for n in sorted(near, reverse=True))
        raise ValueError(
            f"sfreq of continuous data must be a whole fraction of their {sfreq:g} Hz "
            f"and {_LOWEST:g} Hz or more, as estimates have content up to half of it. "
            f"Nearest are {rates}, got {wanted:g}"
        )
    return decim


def _check_size(n_times, n_vertices):
    """Raise before a long computation whose result is too large to be of use."""
    size = 4 * n_times * n_vertices
    if size > _LARGEST:
        raise ValueError(
            f"the estimate of {n_times} samples on {n_vertices} vertices would be "
            f"{size / 1e9:.0f} GB, more than {_LARGEST / 1e9:.0f}: give tmin and tmax, "
            "a lower sfreq (125 loses nothing), or events to average"
        )


def _write_stc(stc, condition, results, entries):
    fname = results.fname(condition, "-stc.h5")
    with whole_file(fname) as part:
        stc.save(part, ftype="h5", overwrite=True)
    about = dict(
        Description="Dipole moments along the surface normals of the source space",
        Units="A m",
        Subject=stc.subject,
        SamplingFrequency=1 / stc.tstep,
        StartTime=float(stc.times[0]),
        Duration=len(stc.times) * stc.tstep,
        NumberOfVertices=[len(vertices) for vertices in stc.vertices],
    )
    results.add(fname, **about, **entries)


def _write_extents(stc, fwd, data, settings, results, entries):
    extents = estimate_extent(
        *(stc, fwd, *data),
        min_area=settings.min_area,
        subjects_dir=settings.subjects_dir,
    )
    condition = entries.get("Condition")
    fname = results.fname(condition, "_extents.tsv")
    write_table(fname, extents.to_data_frame())
    units = dict.fromkeys(("x", "y", "z", "mni_x", "mni_y", "mni_z"), "mm")
    units |= dict.fromkeys(("tmin", "tmax", "peak_time"), "s")
    units |= dict(area_cm2="cm^2", peak_amplitude="A m")
    columns = {name: dict(Units=unit) for name, unit in units.items()}
    rule = "Otsu's threshold"
    if data[0] is not None:
        rule = f"a probability of {default_probability():g} or more"
    columns["probability"] = dict(Description="That a source lies here, within 1 cm")
    description = f"Extended sources, found by: {rule}"
    results.add(fname, Description=description, **columns, **entries)
    return extents


def _write_report(report, results):
    fname = results.fname(None, "_report.html")
    with whole_file(fname) as part:
        report.save(part, open_browser=False, overwrite=True)
    results.add(fname, Description="Report on the estimates")

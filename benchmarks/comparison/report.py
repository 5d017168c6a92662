"""Rows to tables: mean, SD, median and number; the calibration of probabilities."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import json

import numpy as np
import pandas as pd

from mne_deepsif import metrics

from ..options import figures_folder
from .figures import plot
from .papers import PUBLISHED, RULES
from .registry import HEADLINE

WHERE = ["scenario", "method", "choice", "settings", "rule", "metric"]
# what a table shows: heading, metric, format; those of active vertices need a rule
COLUMNS = (
    ("peak error (mm)", "peak", ".1f"),
    ("AUC", "auc", ".3f"),
    ("average precision", "ap", ".2f"),
    ("EMD (mm)", "emd", ".1f"),
    ("dispersion (mm)", "dispersion", ".1f"),
    ("LE (mm)", "le", ".1f"),
    ("precision", "precision", ".2f"),
    ("recall", "recall", ".2f"),
    ("F1", "f1", ".2f"),
    ("specificity", "specificity", ".2f"),
    ("close", "close", ".2f"),
    ("far", "far", ".2f"),
    ("geometric mean", "balance", ".2f"),
    ("area over true", "area_ratio", ".1f"),
    ("found", "found", ".2f"),
    ("failed", "failed", ".2f"),
    ("s (median)", "seconds", ".2f"),
)
SILENT = (
    ("active cortex (cm²)", "area", ".1f"),
    ("no extent", "empty", ".2f"),
    ("none explains half", "weak", ".2f"),
    ("calibration error", "ece", ".3f"),
    ("failed", "failed", ".2f"),
)
# of the papers' task: mean and SD over sources
OF_SOURCES = (
    ("LE (mm)", "le", ".2f"),
    ("precision", "precision", ".2f"),
    ("recall", "recall", ".2f"),
    ("correlation", "correlation", ".2f"),
)
# of the whole sample: means
OF_SAMPLES = (
    ("EMD (mm)", "emd", ".1f"),
    ("specificity", "specificity", ".2f"),
    ("area over true", "area_ratio", ".1f"),
    ("missed", "missed", ".3f"),
    ("failed", "failed", ".2f"),
)
# these do not depend on the rule of a table's line
FREE = (
    *("peak", "auc", "ap", "emd", "dispersion", "correlation", "failed", "seconds"),
    *("empty", "weak", "ece"),
)
OURS = "DeepSIF"
NAME = "comparison"  # of the files of results
HEADINGS = (OURS, "sLORETA", "best other method", "n")  # of the headline
REAL = ("Left visual", "Right Auditory")  # recordings in the headline


# ---------------------------------------------------------------- rows to a summary
def read_rows(plan, choices, store):
    """Read the rows of cells.

    Parameters
    ----------
    plan : list of Cell
        The cells.
    choices : dict of list of str
        What settings were chosen for, ``"usual"`` and ``"best"``, by scenario, method
        and number.
    store : Store
        Where they are kept.

    Returns
    -------
    rows : DataFrame
        A row for each score of a sample, and what is known of the sample.
    """
    frames = []
    for cell in plan:
        record = store.load(cell)
        seconds = [(int(n), "-", "seconds", s) for n, s in record["seconds"].items()]
        frame = pd.DataFrame(
            record["rows"] + seconds, columns=["sample", "rule", "metric", "value"]
        )
        frame["scenario"], frame["method"] = cell.scenario.name, cell.method
        frame["settings"] = describe(cell.settings)
        for name in ("vertex", "depth", "snr", "n_sources"):
            known = {int(k): v.get(name) for k, v in record["samples"].items()}
            frame[name] = frame["sample"].map(known).astype(float)
        for choice in choices[cell.scenario, cell.method, cell.setting]:
            frames.append(frame.assign(choice=choice))
    return pd.concat(frames, ignore_index=True)


def describe(settings):
    """Write settings as text."""
    return ", ".join(f"{name} {short(value)}" for name, value in settings.items())


def short(value):
    """Write a value with three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def summarise(rows):
    """Return mean, SD, median and number of the scores that are not NaN."""
    found = statistics(rows.groupby(WHERE, sort=False)["value"]).reset_index()
    return pd.concat([found, calibration_errors(rows)], ignore_index=True)


def calibration_errors(rows):
    """Return the calibration error of the probabilities of candidates."""
    keys, found = WHERE[:-1], []
    candidates = rows[rows["metric"].isin(("probability", "near"))]
    for key, part in candidates.groupby(keys, sort=False):
        likely, near = (
            part.loc[part["metric"] == name, "value"].to_numpy()
            for name in ("probability", "near")
        )
        error = metrics.expected_calibration_error(near.astype(bool), likely)
        found.append((*key, "ece", error, len(likely)))
    return pd.DataFrame(found, columns=[*WHERE, "mean", "n"])


def statistics(groups):
    """Return mean, SD, median and number of the values in each group."""
    found = groups.agg(["mean", "median", "count"])
    found.insert(1, "sd", groups.std(ddof=0))
    return found.rename(columns={"count": "n"})


def best_rules(validation):
    """Return the rule of the largest mean F1, by scenario and method."""
    f1 = validation[(validation["metric"] == "f1")]
    keys = ["scenario", "method", "settings"]
    mean = f1.groupby([*keys, "rule"])["value"].mean().reset_index()
    chosen = mean.loc[mean.groupby(keys)["value"].idxmax()]
    return {
        tuple(row[key] for key in keys): row["rule"] for _, row in chosen.iterrows()
    }


# ---------------------------------------------------------------- tables
def table(summary, rules, scenario):
    """List a scenario's methods, at their usual and their best settings.

    Returns
    -------
    lines : list of tuple of str
        The header, then a line for each method and choice.
    """
    part = summary[summary["scenario"] == scenario]
    columns = COLUMNS if "peak" in set(part["metric"]) else SILENT
    if "weak" in set(part["metric"]):
        columns = tuple(dict.fromkeys(columns + SILENT))
    lines = [("method", "settings", "rule", *(name for name, *_ in columns), "n")]
    for (method, choice), found in part.groupby(["method", "choice"], sort=False):
        settings = found["settings"].iloc[0]
        rule = "otsu"
        if choice == "best":
            rule = rules.get((scenario, method, settings), rule)
        cells = [cell_of(found, rule, *column[1:]) for column in columns]
        n = int(found[found["metric"] == "failed"]["n"].iloc[0])
        text = f"{choice}: {settings}" if settings else choice
        lines.append((method, text, rule, *cells, str(n)))
    return lines


def is_papers(part):
    """Say whether these rows of a summary are of the papers' task."""
    return "missed" in set(part["metric"])


def papers_table(summary, scenario):
    """List a scenario of the papers' task, by both rules of activity.

    Returns
    -------
    lines : list of tuple of str
        The header, then two lines for each method and choice, then the papers' own
        figures where they have some.
    """
    part = summary[summary["scenario"] == scenario]
    names = (name for name, *_ in OF_SOURCES + OF_SAMPLES)
    lines = [("method", "settings", "rule", *names, "n")]
    for (method, choice), found in part.groupby(["method", "choice"], sort=False):
        settings = found["settings"].iloc[0]
        text = f"{choice}: {settings}" if settings else choice
        for rule in RULES:
            cells = [_spread(found, rule, *column[1:]) for column in OF_SOURCES]
            cells += [cell_of(found, rule, *column[1:]) for column in OF_SAMPLES]
            n = int(found[found["metric"] == "failed"]["n"].iloc[0])
            lines.append((method, text, rule, *cells, str(n)))
    if scenario in PUBLISHED:
        given = PUBLISHED[scenario]
        cells = [
            "{:{form}} ± {:{form}}".format(*given[metric], form=form)
            if metric in given
            else "-"
            for _, metric, form in OF_SOURCES
        ]
        none = ["-"] * (len(OF_SAMPLES) + 1)
        lines.append(("the papers", "their own head", "authors", *cells, *none))
    return lines


def _spread(found, rule, metric, form):
    """Return mean ± SD as text, or a dash if there is none."""
    one = _of(found, rule, metric)
    if not one["n"].sum():
        return "-"
    return f"{one['mean'].iloc[0]:{form}} ± {one['sd'].iloc[0]:{form}}"


def _of(found, rule, metric):
    """Return the row of a metric, by a rule if it depends on one."""
    one = found[found["metric"] == metric]
    return one if metric in FREE else one[one["rule"] == rule]


def cell_of(found, rule, metric, form):
    """Return a mean as text, or a dash if there is none."""
    one = _of(found, rule, metric)
    statistic = "median" if metric == "seconds" else "mean"
    return f"{one[statistic].iloc[0]:{form}}" if one["n"].sum() else "-"


def headline(summary, recordings):
    """Return the six rows that a reader understands in ten seconds.

    Parameters
    ----------
    summary : list of dict
        The summary, as :func:`write` stores it.
    recordings : list of dict
        What :mod:`~.recordings` found.

    Returns
    -------
    lines : list of tuple of str
        The mean distance (mm) of the largest peak to the truth: the package's, that of
        sLORETA with MNE's defaults, and the least of the other methods, ``tuned`` if
        its settings were chosen for the line. The least of all is bold. The last
        column is the number of samples.
    """
    lines = [("distance of the peak to the source (mm)", *HEADINGS)]
    found = {
        title: scenario_peaks(summary, scenario) for title, scenario in HEADLINE.items()
    }
    found["EEG, MEG: responses of a real person"] = recording_peaks(recordings)
    for title, peaks in found.items():
        if peaks:
            lines.append(
                (title, *_three(peaks), str(max(n for _, n in peaks.values())))
            )
    return lines


def scenario_peaks(summary, scenario):
    """Return mean and number of the peak errors, by method and choice."""
    return {
        (row["method"], row["choice"]): (row["mean"], row["n"])
        for row in summary
        if row["scenario"] == scenario and row["metric"] == "peak"
    }


def recording_peaks(recordings):
    """Return mean and number of the distances to the anatomical place, by method."""
    rows = [one for one in recordings if one["recording"] in REAL]
    frame = pd.DataFrame(rows, columns=["method", "distance"]).dropna()
    found = frame.groupby("method")["distance"].agg(["mean", "count"])
    return {(row.Index, "usual"): (row.mean, row.count) for row in found.itertuples()}


def _three(peaks):
    """Return the three figures of a line of the headline, "-" where a run has none."""
    means = {key: mean for key, (mean, _) in peaks.items()}
    others = {key: mean for key, mean in means.items() if key[0] != OURS}
    best = min(others, key=others.get, default=None)
    ours = means.get((OURS, "best"), means.get((OURS, "usual")))
    theirs = means.get(("sLORETA", "usual"))
    marks = "", ""
    if best is not None and ours is not None:
        marks = ("**", "") if ours <= others[best] else ("", "**")
    texts = ["-" if x is None else f"{x:.1f}" for x in (ours, theirs)]
    if ours is not None:
        texts[0] = marks[0] + texts[0] + marks[0]
    if best is None:
        return *texts, "-"
    name = best[0] + (", tuned" if best[1] == "best" else "")
    return *texts, f"{marks[1]}{others[best]:.1f}{marks[1]} ({name})"


def as_markdown(lines):
    """Return a table as Markdown."""
    header, *rest = [f"| {' | '.join(line)} |" for line in lines]
    rule = "|" + "---|" * len(lines[0])
    return "\n".join([header, rule, *rest])


# ---------------------------------------------------------------- files
def write(rows, rules, stamp, folder, name=NAME):
    """Write the summary of rows, the tables and the figures.

    Parameters
    ----------
    rows : DataFrame
        See :func:`read_rows`.
    rules : dict
        See :func:`best_rules`.
    stamp : dict
        Provenance.
    folder : Path
        Where to write, and where :func:`write_recordings` has written. Figures of the
        stored results go to the documentation.
    name : str
        How the files' names begin. Recordings are only in the files of ``NAME``.
    """
    summary = summarise(rows)
    summary.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
    names = ("scenario", "method", "settings", "rule")
    best = [dict(zip(names, (*key, rule))) for key, rule in rules.items()]
    plot(rows, summary, rules, figures_folder(folder), name)
    kept = json.loads(summary.to_json(orient="records", double_precision=6))
    _dump(stamp | dict(summary=kept, rules=best), folder / f"{name}.json")
    recordings = read_recordings(folder) if name == NAME else []
    # of what is stored: the last digits may round to another side
    text = as_text(pd.DataFrame(kept), rules, recordings)
    (folder / f"{name}.md").write_text(text, encoding="utf-8")


def as_text(summary, rules, recordings):
    """Return all tables as Markdown.

    Parameters
    ----------
    summary : DataFrame
        See :func:`summarise`.
    rules : dict
        See :func:`best_rules`.
    recordings : list of dict
        What :mod:`~.recordings` found.

    Returns
    -------
    text : str
        The headline, the scenarios, the recordings.
    """
    lines = headline(summary.to_dict("records"), recordings)
    parts = ["# Comparison", *([as_markdown(lines)] if len(lines) > 1 else [])]
    for scenario in dict.fromkeys(summary["scenario"]):
        part = summary[summary["scenario"] == scenario]
        if is_papers(part):
            lines = papers_table(summary, scenario)
        else:
            lines = table(summary, rules, scenario)
        parts.append(f"## {scenario}\n\n{as_markdown(lines)}")
    if recordings:
        parts.append(f"## Recordings\n\n{as_markdown(recording_lines(recordings))}")
    return "\n\n".join(parts) + "\n"


def _dump(record, fname):
    text = json.dumps(record, ensure_ascii=False)
    fname.write_text(text + "\n", encoding="utf-8")


def write_recordings(recordings, stamp, folder):
    """Write what :mod:`~.recordings` found, and what it skipped."""
    _dump(stamp | dict(rows=recordings), folder / "recordings.json")


def read_recordings(folder):
    """Read what was written, if anything."""
    fname = folder / "recordings.json"
    return (
        json.loads(fname.read_text(encoding="utf-8"))["rows"] if fname.exists() else []
    )


def recording_lines(recordings):
    """List the distance (mm) of each method's peak to the known place.

    Parameters
    ----------
    recordings : list of dict
        What :mod:`~.recordings` found.

    Returns
    -------
    lines : list of tuple of str
        The header, a line for each case, whose least distance is bold, and one for
        each recording that was skipped, with the reason.
    """
    frame = pd.DataFrame([one for one in recordings if "skipped" not in one])
    skipped = [one for one in recordings if "skipped" in one]
    methods, lines = [], []
    if len(frame):
        methods = list(frame["method"].unique())
        for where, case in frame.groupby(["recording", "sensors"], sort=False):
            found = case.set_index("method").reindex(columns=["distance", "failed"])
            lines.append((*where, *_distances(found, methods)))
    none = ["-"] * len(methods)
    lines += [
        (one["recording"], f"skipped: {one['skipped']}", *none) for one in skipped
    ]
    return [("recording", "sensors", *methods), *lines]


def _distances(found, methods):
    """Return the distances of a case as text."""
    texts = []
    for name in methods:
        distance = found["distance"].get(name, np.nan)
        if name in found.index and isinstance(found["failed"][name], str):
            texts.append("failed")
        elif np.isnan(distance):
            texts.append("-")
        else:
            mark = "**" if distance == found["distance"].min() else ""
            texts.append(f"{mark}{distance:.1f}{mark}")
    return texts

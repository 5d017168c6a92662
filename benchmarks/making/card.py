"""The model card of pretrained weights, from their file and the stored results.

Figures are those of results that were made with exactly these weights. Of the weights
in the package, the registry at the result's commit must say so. Of others, the result
must name the file, whose name has the checksum.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import json
import re
import subprocess
import tomllib
from functools import partial
from pathlib import Path

import pandas as pd
from safetensors import safe_open

from mne_deepsif.inverse.files import read_model

from ..comparison.report import OURS, as_markdown, table
from ..provenance import ROOT, as_lines, provenance

RESULTS = ROOT / "benchmarks" / "results"
REGISTRY = "mne_deepsif/data/weights.json"


def make_card(name, entry, fname, weights_at):
    """Return the model card of weights as Markdown.

    Parameters
    ----------
    name : str
        Name of the weights.
    entry : dict
        Their entry in the registry.
    fname : Path
        The file.
    weights_at : callable
        Returns the SHA-256 of the weights in the package at a commit, or None.

    Returns
    -------
    text : str
        The card.
    """
    model, header = read_model(fname)[0], _read_header(fname)
    used, left_out = find_records(entry, weights_at)
    parts = [
        f"# Model card: {name}",
        entry["description"],
        as_markdown([("weights", name), *_describe_file(entry, fname, model, header)]),
        "## Training",
        "All training data are simulated: waveforms and background of neural masses, "
        "on heads that are made from the template's. No recording of a person was "
        "used. The pages on simulation and on decisions say how. These are the stages, "
        "as the file's header has them.",
        "\n".join(_describe_training(model.recipe)),
        "\n".join(f"- {what}: {x:.4g}" for what, x in (model.metrics or {}).items()),
        "## Results",
        *_describe_results(entry, used, left_out),
        "## Limits",
        _read_limits(),
        "## This card",
        "Made by\n\n```\n" + "\n".join(as_lines(provenance())) + "\n```",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _read_header(fname):
    with safe_open(fname, "numpy") as file:
        return json.loads(file.metadata()["mne_deepsif"])


def _describe_file(entry, fname, model, header):
    """Yield the rows of the table at the top."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    n_weights = sum(weight.numel() for weight in model.network.parameters())
    size = fname.stat().st_size / 2**20
    window = model.n_times / model.sfreq
    yield "file", f"`{entry['file']}`, {size:.1f} MiB"
    yield "SHA-256", f"`{entry['sha256']}`"
    yield "licence", project["license"]
    yield "written by", f"mne_deepsif {header['version']}"
    yield "file format", str(header["format_version"])
    yield "network", f"{model.architecture}, {n_weights / 1e6:.2f} million weights"
    yield "input", _describe_input(model)
    yield "rate and window", f"{model.sfreq:g} Hz, {window:.3g} s"
    parcels = model.parcels
    yield "cortex", f"{parcels.n_parcels} parcels of {parcels.subject}"


def _describe_input(model):
    if model.ch_names is None:
        return f"{model.encoder}: any sensors"
    return f"{model.encoder}: {len(model.ch_names)} channels"


def _describe_training(recipe):
    """Yield a list of the stages, the first one first."""
    stages = []
    while isinstance(recipe, dict):
        stages.insert(0, recipe)
        recipe = recipe.get("start")
    for number, stage in enumerate(stages, 1):
        yield f"{number}. {stage.get('script', 'no script is named')}"
        for key, value in stage.items():
            if key not in ("script", "start"):
                yield f"    - {key.replace('_', ' ')}: {_as_text(value)}"


def _as_text(value):
    if isinstance(value, dict):
        named = (f"{k.replace('_', ' ')} {_as_text(v)}" for k, v in value.items())
        return ", ".join(named)
    if isinstance(value, list):
        return "; ".join(_as_text(one) for one in value) or "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "none" if value is None else str(value)


def _read_limits():
    """Return the page on limits as Markdown, below a heading of its own."""
    text = (ROOT / "doc" / "limits.rst").read_text(encoding="utf-8")
    text = re.sub(r"\A.*?\n=+\n", "", text, flags=re.S)  # title
    text = re.sub(r"(?m)^\.\. .*\n", "", text)
    text = re.sub(r"(?m)^(.+)\n-+$", r"### \1", text)
    text = re.sub(r":doc:`(\w+)`", r"*\1*", text)
    text = re.sub(r":\w+:`([^`]+)`", r"`\1`", text)
    return text.replace("``", "`").strip()


# ------------------------------------------------------------------- results


def find_records(entry, weights_at):
    """Tell results of these weights from others.

    Parameters
    ----------
    entry : dict
        The entry in the registry.
    weights_at : callable
        See :func:`make_card`.

    Returns
    -------
    used : dict
        Records by name.
    left_out : list of str
        Name, commit and date of each of the others.
    """
    records = {
        name: json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("comparison", "papers", "recordings")
    }
    used, left_out = {}, []
    for name, record in records.items():
        if _is_of(record, entry, weights_at):
            used[name] = record
        else:
            left_out.append(f"{name} ({record['commit']}, {record['date']})")
    return used, left_out


def _is_of(record, entry, weights_at):
    if not entry["embedded"]:
        words = re.split(r"[\s:/'\"]+", record["command"])
        return entry["file"] in words
    is_named = re.search(r"--weights (?!generic\b)", record["command"])
    return not is_named and weights_at(record["commit"]) == entry["sha256"]


def weights_at(commit):
    """Return the SHA-256 of the weights in the package at a commit; None if unknown."""
    command = ["git", "show", f"{commit}:{REGISTRY}"]  # "-dirty" names no commit
    found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    return (
        json.loads(found.stdout)["generic"]["sha256"] if not found.returncode else None
    )


def _describe_results(entry, used, left_out):
    if not used:
        yield "No stored result is of these weights."
    for name, record in used.items():
        describe, about = _DESCRIBE[name]
        lines = list(describe(record, partial(_is_ours, entry)))
        if len(lines) > 1:
            yield f"### {name}"
            yield "\n".join(["```", *as_lines(record), "```"])
            yield about
            yield as_markdown(lines)
    if left_out:
        yield (
            "Left out, as made with other weights or from a commit that is not clean "
            f"or not known: {', '.join(left_out)}."
        )


def _is_ours(entry, method):
    """Tell whether a method is the package's, with these weights."""
    if entry["embedded"]:
        return method == OURS
    return method.startswith(f"{OURS}:") and Path(method).name == entry["file"]


def _describe_comparison(record, is_ours):
    """Yield the scores of the estimate in each scenario."""
    summary = pd.DataFrame(record["summary"])
    is_shown = summary["method"].map(is_ours) & (summary["choice"] == "usual")
    summary = summary[is_shown]
    shown = ("peak error (mm)", "AUC", "LE (mm)", "precision", "recall")
    shown = (*shown, "area over true", "active cortex (cm²)", "none explains half", "n")
    yield "scenario", *shown
    for scenario in summary["scenario"].unique():
        cells = dict(zip(*table(summary, {}, scenario)))
        yield scenario, *(cells.get(name, "") for name in shown)


def _describe_recordings(record, is_ours):
    """Yield how far peaks are from the anatomical places, in mm."""
    yield "recording", "sensors", "peak (ms)", "distance (mm)"
    for one in record["rows"]:
        if is_ours(one.get("method", "")) and "distance" in one:
            time, distance = f"{1e3 * one['time']:.0f}", f"{one['distance']:.1f}"
            yield one["recording"], one["sensors"], time, distance


def _describe_papers(record, is_ours):
    """Yield the scores under the papers' conditions, by either rule."""
    summary = pd.DataFrame(record["summary"])
    summary = summary[summary["method"].map(is_ours) & (summary["choice"] == "usual")]
    scores = ("precision", "recall", "correlation", "missed")
    yield "scenario", "rule", "LE (mm)", "median", *scores, "n"
    for scenario in summary["scenario"].unique():
        for rule in ("authors", "otsu"):
            part = summary[summary["scenario"].eq(scenario) & summary["rule"].eq(rule)]
            if not part.empty:
                found = part.set_index("metric")
                le = (f"{found.loc['le', what]:.2f}" for what in ("mean", "median"))
                known = [found["mean"].get(name) for name in scores]
                means = ("" if mean is None else f"{mean:.2f}" for mean in known)
                yield scenario, rule, *le, *means, f"{found.loc['le', 'n']:.0f}"


_DESCRIBE = {
    "comparison": (
        _describe_comparison,
        'Means over samples. Unless the error is "none", data come from another '
        "forward than the one that is inverted: head, electrodes and skull are wrong. "
        '"sample" is the real subject of MNE. Sources are patches around any vertex.',
    ),
    "papers": (
        _describe_papers,
        "Means over samples under the papers' conditions: whole parcels, the right "
        "gain. Rules are those of `mne_deepsif.metrics.active_parcels` over parcels.",
    ),
    "recordings": (
        _describe_recordings,
        "Real data: distance of the largest peak to the place that anatomy gives.",
    ),
}

"""Tables of the documentation, made from the benchmarks' results at each build."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
sys.path.append(str(ROOT))  # for the suite, whose report has the first table


def write_tables(folder):
    """Write the tables where the pages include them."""
    folder.mkdir(exist_ok=True)
    engine, library = (_read(name) for name in ("jansen_rit", "library"))
    tables = {
        "trajectories": trajectories(engine),
        "statistics": statistics(engine),
        "scaling": scaling(engine),
        "engines": engines(engine),
        "use": use(engine),
        "library": libraries(library),
        "ablation": ablations(_read("ablation")),
        "personalisation": personalisations(_read("personalisation")),
        "changes": changes(_read("changes")),
        "lanes": lanes(_read("lanes")),
        "headline": headlines(),
        "comparison": comparisons(_read("comparison")),
        "recordings": recordings(),
        "papers": papers(_read("papers")),
        "slow": comparisons(_read("slow"), ("failed", "s (median)")),
        "variants": variants(_read("variants")),
        "extents": extents(_read("extents")),
    }
    for name, (header, *rows) in tables.items():
        lines = [_row(cells) for cells in (header, *rows)]
        text = "\n   ".join([".. csv-table::", ":header-rows: 1", "", *lines])
        (folder / f"table_{name}.txt").write_text(f"{text}\n", encoding="utf-8")


def _read(name):
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def _row(cells):
    return ", ".join(f'"{cell}"' for cell in cells)


def lanes(results):
    """How much longer plain loops take than explicit vectors."""
    yield "processor", "activity", "vectors (s)", "plain loops (s)", "ratio"
    for processor, cases in results["figures"].items():
        for case, found in cases.items():
            seconds = found["processor seconds"]
            times = [f"{seconds[name]:.2f}" for name in ("vectors", "plain")]
            yield processor, case, *times, f"{found['plain over vectors']:.1f}"


def headlines():
    """List the six rows that a reader understands in ten seconds."""
    from benchmarks.comparison.report import headline, read_recordings

    return headline(_read("comparison")["summary"], read_recordings(RESULTS))


def recordings():
    """List how far each method's peak is from the anatomical place."""
    from benchmarks.comparison.report import read_recordings, recording_lines

    return recording_lines(read_recordings(RESULTS))


SHOWN = ("peak error (mm)", "AUC", "LE (mm)", "precision", "recall")


def comparisons(record, more=("area over true", "found")):
    """Scores of each method in each scenario of the suite, at its best settings."""
    import pandas as pd

    from benchmarks.comparison.report import OURS, table

    summary, names = pd.DataFrame(record["summary"]), ("scenario", "method", "settings")
    rules = {tuple(one[name] for name in names): one["rule"] for one in record["rules"]}
    shown = ("method", "rule", *SHOWN, *more, "n")
    yield "scenario", *shown
    for scenario in summary["scenario"].unique():
        header, *lines = table(summary, rules, scenario)
        if "AUC" not in header:  # no source: nothing to score
            continue
        picks = [header.index(name) for name in shown]
        for line in lines:
            is_usual = not line[1].startswith("best")
            if is_usual == (line[0] == OURS):  # ours has no settings to choose
                yield scenario, *(line[pick] for pick in picks)


def papers(record):
    """Scores of each method in the papers' task, by both rules of activity."""
    import pandas as pd

    from benchmarks.comparison.report import OURS, papers_table

    summary = pd.DataFrame(record["summary"])
    shown = ("LE (mm)", "precision", "recall", "correlation", "missed", "n")
    shown = ("method", "rule", *shown)
    yield "scenario", *shown
    for scenario in summary["scenario"].unique():
        header, *lines = papers_table(summary, scenario)
        picks = [header.index(name) for name in shown]
        for line in lines:
            is_usual = line[1].startswith("usual")
            if is_usual == line[0].startswith(OURS):  # ours has no settings to choose
                yield scenario, *(line[pick] for pick in picks)


def variants(record):
    """Scores of variants of the last step."""
    yield "sensors", "sources", "variant", "peak", "AUC", "LE", "p / r", "area"
    for row in record["rows"]:
        where = row["kind"], row["cell"], row["method"]
        yield *where, *_scores(row)


def _scores(row):
    names = ("peak", "auc", "le", "precision", "recall", "area_ratio")
    peak, auc, le, precision, recall, area = (row[name]["mean"] for name in names)
    yield f"{peak:.1f}"
    yield f"{auc:.3f}"
    yield "-" if le is None else f"{le:.1f}"
    yield f"{precision:.2f} / {recall:.2f}"
    yield f"{area:.1f}"


def ablations(results):
    """List the error of each variant after the same time, best first."""
    yield "variant", "error", "updates", "ms per update", "10⁶ parameters"
    variants = results["variants"].items()
    for name, found in sorted(variants, key=lambda item: item[1]["error"]):
        yield (
            name,
            f"{found['error']:.3f}",
            f"{found['updates']}",
            f"{found['ms per update']:.0f}",
            f"{found['parameters'] / 1e6:.1f}",
        )


def extents(results):
    """Compare the extents by probability with those by Otsu's threshold."""
    yield (
        *("simulated response", "windows", "rule", "no extent (%)", "found (%)"),
        *("all found (%)", "false extents", "LE (mm)", "precision / recall"),
    )
    names = dict(probability="probability", otsu="Otsu")
    for cell, rules in results["windows"].items():
        for rule, found in rules.items():
            scores = ("", "", f"{found['false']:.1f}", "", "")
            if "found" in found:
                scores = (
                    f"{100 * found['found']:.0f}",
                    f"{100 * found['all_found']:.0f}",
                    f"{found['false']:.1f}",
                    f"{found['le']:.1f}",
                    f"{found['precision']:.2f} / {found['recall']:.2f}",
                )
            empty = f"{100 * found['empty']:.0f}"
            yield cell, f"{found['n']:.0f}", names[rule], empty, *scores


def personalisations(results):
    """List the validation loss of each way to personalise, on each head."""
    heads = list(results["heads"])
    columns = [f"{head}: {what}" for head in heads for what in ("loss", "s")]
    yield "what is trained", "updates", *columns
    for name, first in results["heads"][heads[0]].items():
        row = []
        for head in heads:
            found = results["heads"][head][name]
            losses = [loss for _, loss in found["history"]]
            row += [f"{losses[0]:.4f} → {min(losses):.4f}", f"{found['seconds']:.0f}"]
        yield name, f"{first['history'][-1][0]}", *row


def changes(results):
    """List the scores of each kind of weights on the MEG paper's changes."""
    metrics = {
        "LE (mm)": ("le", ".2f"),
        "sensitivity": ("recall", ".2f"),
        "specificity": ("specificity", ".2f"),
        "geometric mean": ("balance", ".2f"),
        "correlation": ("correlation", ".2f"),
    }
    yield "data", "weights", *metrics, "n"
    for case, record in results["cases"].items():
        found = {
            (one["method"], one["metric"]): one
            for one in record["summary"]
            if one["rule"] in ("authors", "-")
        }
        for method in dict.fromkeys(method for method, _ in found):
            spread = [
                f"{found[method, metric]['mean']:{form}} ± "
                f"{found[method, metric]['sd']:{form}}"
                for metric, form in metrics.values()
            ]
            yield case, method, *spread, f"{found[method, 'failed']['n']}"


def trajectories(results):
    """Relative error over 1 s without noise."""
    errors = results["error without noise"]
    yield "relative error over 1 s, no noise", "without delays", "delays, 3 m/s"
    for dtype in ("float64", "float32"):
        yield (
            dtype,
            *(f"{errors[f'{dtype}, {x}']:.0e}" for x in ("no delays", "delays")),
        )


def statistics(results):
    """With noise: The Virtual Brain's run beside ours, and a test."""
    found = results["with noise"]
    (p,) = (value for name, value in found.items() if name.startswith("p, "))
    columns = [found["TVB"], found["ours, mean"], found["ours, SD"], p]
    names = {
        "mean PSP (mV)": ("mean", None),
        "standard deviation over time (mV)": ("std", None),
        "share of power below 4 Hz": ("power below 4, 8, 16 Hz", 0),
        "share of power below 8 Hz": ("power below 4, 8, 16 Hz", 1),
        "share of power below 16 Hz": ("power below 4, 8, 16 Hz", 2),
        "spikes per second of a seed, A = 3.6": ("seed spikes per s", None),
    }
    yield "with noise", "The Virtual Brain", "ours", "p"
    for name, (key, number) in names.items():
        row = [c[key] if number is None else c[key][number] for c in columns]
        theirs, mean, std, p = row
        digits = 2 if "spikes" in name else 4
        yield (
            name,
            f"{theirs:.{digits}f}",
            f"{mean:.{digits}f} ± {std:.{digits}f}",
            (f"{p:.2f}"),
        )


def scaling(results):
    """Network-seconds per second over parcels, networks and threads."""
    found = results["speed"]
    runs = ((1, 1), (16, 1), (32, 2), (64, 2))
    yield "parcels", *(f"{n} networks, {jobs} threads" for n, jobs in runs)
    names = {
        "distance, 250": "250",
        "distance, 994": "994",
        "papers', 994": "994, papers' connectome",
        "distance, 4000": "4000",
    }
    for key, name in names.items():
        keys = [f"{key} parcels, {n} networks, {jobs} threads" for n, jobs in runs]
        if all(key in found for key in keys):
            yield name, *(f"{found[key]['per_second']:.3g}" for key in keys)


def engines(results):
    """Network-seconds per second of all that compute the same."""
    found = results["speed"]
    main = "papers', 994 parcels, 32 networks, 2 threads"
    names = {
        main: "ours",
        "delays, 32 networks, 2 threads": "ours, with delays",
        "float64 reference, 16 networks": "ours, plain NumPy in float64 (one thread)",
        "plain torch, 16 networks": "plain torch",
        "The Virtual Brain": "The Virtual Brain (one thread, with delays)",
    }
    yield (
        "994 parcels, papers' connectome",
        "network-seconds per second",
        "ours over it",
    )
    for key, name in names.items():
        if key in found:
            value = found[key]["per_second"]
            ratio = found[main]["per_second"] / value
            yield name, f"{value:.3g}", f"{float(f'{ratio:.2g}'):g}"


def use(results):
    """Share of what a core can do."""
    yield "of one core", ""
    flops, share = results["flops per core"], results["share of sgemm flops"]
    yield "arithmetic (10⁹ operations per s)", f"{flops / 1e9:.0f}"
    yield "… of what a float32 matrix product reaches", f"{share:.0%}"
    for name, value in results.items():
        if "bandwidth" in name:
            yield name, f"{value:.2g}"


def libraries(results):
    """Time, memory and size of the two libraries."""
    cases = [name for name, value in results.items() if isinstance(value, dict)]
    yield "", *cases
    for key in results[cases[0]]:
        values = [results[case][key] for case in cases]
        if key == "waveforms":
            values = [f"{n_waveforms} of {n_times}" for n_waveforms, n_times in values]
        elif isinstance(values[0], float):
            values = [
                f"{value:.2g}" if value < 10 else f"{value:.0f}" for value in values
            ]
        yield key, *values

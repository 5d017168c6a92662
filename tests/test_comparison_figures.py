"""Figures of the suite: what they show of rows that are known."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
if not (ROOT / "benchmarks").is_dir():
    pytest.skip(f"needs {ROOT / 'benchmarks'}", allow_module_level=True)
sys.path.append(str(ROOT))  # at the end: the package is the installed one

from benchmarks.comparison import figures, maps, report  # noqa: E402
from benchmarks.comparison.registry import SCENARIOS  # noqa: E402

METHODS = ("DeepSIF", "sLORETA")
N = 12


def _rows(groups):
    """Make rows with random scores for some groups of scenarios."""
    rng, rows = np.random.default_rng(0), []
    scores = [metric for _, metric, _ in figures.SCORES]
    for one in (one for group in groups for one in SCENARIOS[group]):
        for method in METHODS:
            for sample in range(N):
                where = dict(scenario=one.name, method=method, sample=sample)
                where |= dict(choice="best", settings="")
                where |= dict(vertex=float(rng.integers(20_484)), snr=np.nan)
                where |= dict(depth=rng.uniform(0, 60), n_sources=np.nan)
                values = dict(zip(scores, rng.uniform(0, 1, len(scores))))
                values["peak"] = 40 * rng.uniform()
                values |= dict(area=rng.uniform(1, 50), f1=rng.uniform())
                values["area_ratio"] = rng.uniform(0.2, 5)
                for metric, value in values.items():
                    rule = "-" if metric in figures.FREE else "half"
                    rows.append(where | dict(rule=rule, metric=metric, value=value))
                rows.append(where | dict(rule="otsu", metric="le", value=1e6))
    rows = pd.DataFrame(rows)
    rules = {(s, m, ""): "half" for s in set(rows["scenario"]) for m in METHODS}
    return rows, rules


@pytest.mark.slow
def test_all_figures_are_drawn(tmp_path):
    rows, rules = _rows(("radius", "level", "pair"))
    fnames = figures.plot(rows, report.summarise(rows), rules, tmp_path, "x")
    names = {fname.stem.removeprefix("x_") for fname in fnames}
    singles = {"distributions", "depth", "areas", "maps"}
    assert names == singles | {"radius", "snr", "pairs"}
    assert all(fname.stat().st_size > 10_000 for fname in fnames)


def test_best_settings_and_their_rule_count():
    rows, rules = _rows(("weak",))
    usual = rows.assign(choice="usual", value=-1.0)
    found = figures.at_best(pd.concat([rows, usual]), rules)
    assert len(found) == rows.groupby(["scenario", "method", "sample"]).ngroups
    expected = rows[(rows["metric"] == "le") & (rows["rule"] == "half")]["value"]
    assert sorted(found["le"]) == sorted(expected)
    assert found["depth"].between(0, 60).all()


def test_areas_are_as_in_the_rows():
    rows, rules = _rows(("radius",))
    fig = figures.plot_areas(figures.at_best(rows, rules))
    n_scenarios = sum("error all" in one.name for one in SCENARIOS["radius"]) // 2
    for line in fig.axes[0].lines[1:]:  # the first is the diagonal
        true, estimated = line.get_data()
        assert len(true) == n_scenarios * N
        area = rows[rows["metric"] == "area"]["value"].to_numpy()
        assert np.isin(estimated, area).all()
        assert (true != estimated).all()
    plt.close(fig)


def test_curves_have_a_panel_for_each_kind_of_sensors():
    rows, _ = _rows(("level",))
    fig = figures.plot_curves(report.summarise(rows), *figures.AXES["snr"])
    titles = [ax.get_title() for ax in fig.axes]
    kinds = "EEG", "magnetometers"
    assert titles == [f"{kind}, wrong forward, n = {N} each" for kind in kinds]
    plt.close(fig)


def test_without_rows_there_is_no_figure(tmp_path):
    rows, rules = _rows(("silence",))
    rows["vertex"] = rows["depth"] = np.nan
    assert figures.plot(rows, report.summarise(rows), rules, tmp_path, "x") == []


def test_map_is_a_mean_over_neighbours():
    """Two sources, 100 mm apart: each place has the error of the nearer one."""
    places = np.zeros((101, 3))
    places[:, 0] = np.arange(101.0)
    rows = pd.DataFrame(dict(vertex=[1000.0, 1100.0, 5.0], peak=[2.0, 8.0, 99.0]))
    mean, known = maps.average(rows, places, 1000)
    assert mean[0] == pytest.approx(2, abs=1e-3)
    assert mean[50] == pytest.approx(5)
    assert mean[100] == pytest.approx(8, abs=1e-3)
    assert known[0] == known[30] == known[100] == 1 and known[50] == 0

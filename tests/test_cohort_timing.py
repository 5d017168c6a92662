"""The benchmark of cohorts: its figures, and a small run."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("needs benchmarks/", allow_module_level=True)
sys.path.insert(0, str(ROOT))

from benchmarks.timing import cohort  # noqa: E402


def test_figures_worked_out_by_hand():
    """Two workers, three recordings of 10 s, a wall time of 20 s: 10 s beside them."""
    run = dict(wall=20.0, kept=1.5, seconds=[10.0] * 3, peaks=[1.0, 2.0], bytes=6e6)
    run |= dict(cpu=21.0, load=1.0)
    other = run | dict(wall=30.0)
    found = cohort.summarise([run, run, other], 3, "two processes")
    assert found["subjects_per_minute"] == pytest.approx(9.0)
    assert found["seconds_of_a_recording"] == 10.0
    assert found["seconds_beside_it"] == pytest.approx(10.0 / 3)
    assert found["seconds_if_kept"] == pytest.approx(0.5)
    assert found["cpu_seconds"] == pytest.approx(7.0)
    assert found["gb_of_memory"] == 2.0
    assert found["mb_on_disk"] == pytest.approx(2.0)


def test_arithmetic_of_many():
    """At one a minute of CPU, 10 000 are 167 core hours: 0.8 h on 200 cores."""
    run = dict(wall=60.0, kept=3.6, seconds=[50.0], peaks=[1.0], bytes=5e7)
    run |= dict(cpu=60.0, load=1.0)
    engines = {name: cohort.summarise([run], 1, name) for name in cohort.ENGINES}
    text = "\n".join(cohort.describe(dict(engines=engines)))
    assert "10000 recordings, one process: 167 core hours, 0.8 h on 200 cores" in text
    assert "0.50 TB" in text and "all kept: 10.0 core hours" in text


@pytest.mark.slow
def test_small_run(tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    names = ("one process", "Dask, two workers")
    some = {name: cohort.ENGINES[name] for name in names}
    monkeypatch.setattr(cohort, "ENGINES", some)
    cohort.make_dataset(tmp_path / "bids", 2, 0.5)
    found = [
        cohort.run_worker(str(tmp_path / "bids"), str(tmp_path / name), name)
        for name in names
    ]
    assert [len(run["peaks"]) for run in found] == [1, 2]
    for run in found:
        assert (
            0 < run["kept"] < run["wall"] and run["cpu"] > 0 and min(run["peaks"]) > 0.3
        )
        assert len(run["seconds"]) == 2 and run["bytes"] > 1e6
    assert json.dumps(found)

"""Tables of the documentation, made from the stored results of the benchmarks."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import json
import re
import runpy
from pathlib import Path

import pytest

DOC = Path(__file__).parents[1] / "doc"


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    if not DOC.is_dir():
        pytest.skip(f"needs {DOC}")
    folder = tmp_path_factory.mktemp("tables")
    runpy.run_path(str(DOC / "tables.py"))["write_tables"](folder)
    return {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir()}


def test_all_tables_are_used(tables):
    pages = [page.read_text(encoding="utf-8") for page in DOC.glob("*.rst")]
    found = re.findall(r"generated/(table_\w+\.txt)", " ".join(pages))
    assert set(found) == set(tables)


def test_rows_have_as_many_cells_as_the_header(tables):
    for text in tables.values():
        rows = [line for line in text.splitlines() if line.startswith('   "')]
        assert len(rows) > 2 and len({row.count('", "') for row in rows}) == 1


def test_cells_are_the_benchmarks_figures(tables):
    fname = DOC.parent / "benchmarks/results/jansen_rit.json"
    results = json.loads(fname.read_text(encoding="utf-8"))
    theirs = results["with noise"]["TVB"]["mean"]
    assert f'"mean PSP (mV)", "{theirs:.4f}", ' in tables["table_statistics.txt"]
    ours = results["speed"]["distance, 250 parcels, 1 networks, 1 threads"]
    assert f'"250", "{ours["per_second"]:.3g}", ' in tables["table_scaling.txt"]

"""Tables of the documentation, made from the stored results of the benchmarks."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import json
import re
import runpy
from pathlib import Path

import pytest

from mne_deepsif.trust.candidates import default_probability

DOC = Path(__file__).parents[1] / "doc"


def find_links(page):
    """Return the relative links of a Markdown page."""
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(<?([^)>\s]+)>?\)", text)
    return [link for link in links if not re.match(r"[a-z]+:", link)]


@pytest.mark.parametrize("page", ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))
def test_links_lead_somewhere(page):
    """Files exist, and so do the headings that a link points to."""
    root = DOC.parent
    for link in find_links(root / page):
        name, _, heading = link.partition("#")
        target = root / (name or page)
        assert target.exists(), link
        if heading:
            titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M)
            slugs = [
                re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles
            ]
            assert heading in slugs, link


def test_the_guide_names_the_default_probability():
    """A new fit of the extents may change it."""
    text = (DOC / "extent.rst").read_text(encoding="utf-8")
    (found,) = re.findall(r"If you do not choose one, it is (\.\d+)", text)
    assert float(found) == default_probability()


def test_readme_has_links():
    assert len(find_links(DOC.parent / "README.md")) > 10


def test_links_of_the_site(tmp_path):
    """Files and places that are not there are found, and nothing else."""
    find_broken = runpy.run_path(str(DOC / "links.py"))["find_broken"]
    (tmp_path / "deep").mkdir()
    (tmp_path / "a file.png").touch()
    (tmp_path / "index.html").write_text(
        '<a href="deep/page.html#here">1</a><img src="a%20file.png"><a href="#">2</a>'
        '<a href="https://example.org/none#x">3</a><a href="mailto:a@b.c">4</a>'
        '<a href="deep">5</a><a href="deep/page.html?q=1">6</a>'
    )
    page = tmp_path / "deep" / "page.html"
    page.write_text('<h1 id="here"></h1><a href="../index.html">1</a>')
    assert not find_broken(tmp_path)
    wrong = ("none.html", "../index.html#none", "#none", "../none.png")
    page.write_text("".join(f'<a href="{link}">x</a>' for link in wrong))
    found = [f"deep/page.html: {link}" for link in sorted(wrong)]
    # the index points to a place that is gone, too
    assert find_broken(tmp_path) == [*found, "index.html: deep/page.html#here"]


def test_examples_are_numbered_and_draw():
    """The gallery follows the numbers; each page draws something."""
    pages = sorted((DOC.parent / "examples").glob("*.py"))
    assert len(pages) >= 11
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert re.match(r"\d\d_\w+$", page.stem), page
        assert re.search(r"plot_\w+\(|plt\.subplots\(", text), page


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

"""The papers' task of the suite: its samples, its scores by hand, its table."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import sys
from pathlib import Path
from types import SimpleNamespace

import mne
import numpy as np
import pandas as pd
import pytest
import torch

import mne_deepsif
from mne_deepsif.simulation.ingredients import Library

ROOT = Path(__file__).parents[1]
if not (ROOT / "benchmarks").is_dir():
    pytest.skip(f"needs {ROOT / 'benchmarks'}", allow_module_level=True)
sys.path.append(str(ROOT))  # at the end: the package is the installed one

from benchmarks.comparison import (  # noqa: E402
    authors,
    methods,
    papers,
    report,
    simulator,
)
from benchmarks.comparison.__main__ import find_scenarios  # noqa: E402
from benchmarks.comparison.registry import SCENARIOS  # noqa: E402
from benchmarks.comparison.scenarios import Chunk, Scenario, draw  # noqa: E402

SMALL = SCENARIOS["quick"][-1]
needs_reference = pytest.mark.skipif(
    not authors.FOLDER.is_dir(), reason=f"needs {authors.FOLDER}"
)


@pytest.fixture
def parcels():
    """Give ten parcels of 1 cm², 10 mm apart."""
    centers = np.zeros((10, 3))
    centers[:, 0] = 0.01 * np.arange(10)
    return SimpleNamespace(centers=centers, areas=np.full(10, 1e-4), n_parcels=10)


@pytest.fixture
def sample():
    """Give two sources: parcels 1 and 2, and parcel 8, with waveforms of their own."""
    waves = np.array([np.sin(np.arange(500) / 9), np.cos(np.arange(500) / 5)])
    patches = [np.array([1, 2]), np.array([8])]
    return papers.ParcelSample(7, None, patches, waves, 10.0)


def _collect(rows):
    found = {}
    for row in rows:
        assert row.sample == 7
        found.setdefault((row.rule, row.metric), []).append(row.value)
    return found


# ---------------------------------------------------------------- scores
def test_the_truth_scores_best(parcels, sample):
    sources = np.zeros((10, 500))
    sources[[1, 2]], sources[8] = sample.waves[0], sample.waves[1]
    found = _collect(papers.score_parcels(sources, sample, parcels))
    assert found["-", "peak"] == [0] and found["-", "auc"] == [1]
    np.testing.assert_allclose(found["-", "correlation"], [1, 1])
    for rule in ("authors", "otsu"):
        assert found[rule, "le"] == [0, 0] and found[rule, "missed"] == [0, 0]
        assert found[rule, "precision"] == found[rule, "recall"] == [1, 1]
        assert found[rule, "f1"] == [1]


def test_scores_by_hand(parcels, sample):
    """Parcels 2 to 4 are active, so the second source is missed."""
    sources = np.zeros((10, 500))
    sources[2:5] = sample.waves[0]
    found = _collect(papers.score_parcels(sources, sample, parcels))
    assert found["otsu", "le"][0] == pytest.approx((0 + 10 + 20) / 3)
    assert np.isnan(found["otsu", "le"][1])
    np.testing.assert_allclose(found["otsu", "precision"], [1 / 3, 0])
    np.testing.assert_allclose(found["otsu", "recall"], [1 / 2, 0])
    assert found["otsu", "missed"] == [0, 1]
    assert found["otsu", "f1"][0] == pytest.approx(2 / 6)
    assert found["otsu", "area"] == [pytest.approx(3)]
    assert found["otsu", "area_ratio"] == [pytest.approx(1)]
    # close: 0, 3, 4, 5 within 30 mm of 1 or 2, and 6, 7, 9 of 8; none is far
    assert found["otsu", "specificity"] == [pytest.approx(5 / 7)]
    assert found["otsu", "balance"] == [pytest.approx(np.sqrt(1 / 3 * 5 / 7))]
    # 2 stays, a third goes from 3 to 1, and a third from 4 to 8
    assert found["-", "emd"] == [pytest.approx((20 + 40) / 3)]


@pytest.mark.parametrize("moments", (True, False))
def test_moments_are_divided_by_the_area(parcels, sample, moments):
    """Parcel 5 has the largest mean, parcel 1 (a quarter of the area) the density."""
    parcel = np.repeat(np.arange(10), 2)
    area = np.full(10, 1e-4)
    area[1] /= 4
    head = SimpleNamespace(
        mean=papers.average(parcel, np.full(10, 2)),
        area=area,
        parcels=parcels,
        vertices=[np.arange(12), np.arange(8)],
    )
    data = np.zeros((20, 500))
    data[2:4], data[10:12] = 0.5 * sample.waves[0], sample.waves[0]
    stc = mne.SourceEstimate(data, head.vertices, 0, 0.002)
    rows = papers.PapersSources().score(stc, sample, head, moments)
    assert _collect(rows)["-", "peak"] == [0 if moments else pytest.approx(30)]


def test_vertices_outside_of_parcels_do_not_count():
    mean = papers.average(np.array([0, -1, 0, 1]), np.array([2, 1]))
    expected = [[0.5, 0, 0.5, 0], [0, 0, 0, 1]]
    np.testing.assert_array_equal(mean.toarray(), expected)


# ---------------------------------------------------------------- simulation
@pytest.fixture
def library():
    """Give a library of noise, 75 channels wide."""
    rng = np.random.default_rng(0)
    patches = np.array([[0, 1], [2, -1], [7, 8], [9, -1]])
    return Library(
        patches,
        np.where(patches < 0, 0, 1.0),
        rng.standard_normal((5, 1001)),
        rng.standard_normal((10, 2000)),
        500.0,
    )


def _simulator(library, added):
    drawing = simulator.PapersSimulator(
        library, 500, n_sources={1: 1.0}, noise="authors", added=added
    )
    drawing.sensor_snr = (10.0, 10.0)
    return drawing


def _powers(drawing):
    """Return power of data and of noise of each channel."""
    scale = torch.linspace(1, 3, 75)[:, None]
    data = scale * torch.randn(1, 75, 500, generator=torch.Generator().manual_seed(0))
    noise = drawing._add_noise(data) - data
    level = float(noise.square().mean().sqrt())
    assert drawing.level == pytest.approx(level, rel=1e-5)
    return [x[0].double().square().mean(1).numpy() for x in (data, noise)]


def test_noise_is_halved_in_power(library):
    data, noise = _powers(_simulator(library, "white"))
    decibels = 10 * np.log10(data / noise)
    assert decibels.mean() == pytest.approx(10 + 10 * np.log10(2), abs=0.2)
    assert decibels.std() < 1  # channel by channel


@needs_reference
def test_resting_eeg(library):
    """It has the power of white noise, in each channel or over all."""
    data, noise = _powers(_simulator(library, "resting EEG by channel"))
    np.testing.assert_allclose(10 * np.log10(data / noise), 13.01, atol=0.01)
    data, noise = _powers(_simulator(library, "resting EEG"))
    assert 10 * np.log10(data.sum() / noise.sum()) == pytest.approx(13.01, abs=0.01)
    assert (10 * np.log10(data / noise)).std() > 2


def test_deep_and_slow_libraries(library):
    gain = torch.ones(3, 10) * torch.arange(1.0, 11)
    deep = simulator.deep_library(library, SimpleNamespace(gain=gain))
    np.testing.assert_array_equal(deep.patches, [[0, 1], [2, -1]])
    slow = np.asarray(simulator.slow_library(library).waveforms, float)
    np.testing.assert_allclose(slow[:, 500], 1)
    power = np.abs(np.fft.rfft(slow)) ** 2
    frequencies = np.fft.rfftfreq(1001, 1 / 500)
    inside = (frequencies > 0.7) & (frequencies < 4)
    share = power[:, inside].sum(1) / power.sum(1)  # of white noise: 0.01
    assert share.min() > 0.7


@pytest.mark.slow
def test_samples_are_a_function_of_their_number():
    first = list(draw(SMALL, Chunk(0, 3))[1])
    again = list(draw(SMALL, Chunk(2, 1))[1])[0]
    np.testing.assert_array_equal(again.evoked.data, first[2].evoked.data)
    assert not np.array_equal(first[0].evoked.data, first[1].evoked.data)


@pytest.mark.slow
def test_heads_share_their_sources():
    other = Scenario(SMALL.cell, SMALL.sources, papers.PapersHead(library="small"))
    one, two = (next(draw(scenario, Chunk(0, 1))[1]) for scenario in (SMALL, other))
    np.testing.assert_array_equal(one.waves, two.waves)
    for patch, same in zip(one.patches, two.patches, strict=True):
        np.testing.assert_array_equal(patch, same)


# ---------------------------------------------------------------- the authors' files
@needs_reference
def test_regions_of_the_authors():
    gain, region = authors.read_gain()
    regions = authors.make_regions()
    assert gain.shape == (75, regions.n_parcels) == (75, 994)
    np.testing.assert_array_equal(regions.mapping, region)
    assert len(authors.read_info().ch_names) == 75


@needs_reference
@pytest.mark.slow
def test_forward_of_the_authors():
    """The sum over the vertices of a region is its column, up to one factor."""
    gain, region = authors.read_gain()
    fwd = mne.convert_forward_solution(authors.make_forward(), force_fixed=True)
    sums = papers.average(region, np.ones(994)) @ fwd["sol"]["data"].T
    np.testing.assert_allclose(
        sums.T / np.linalg.norm(sums), gain / np.linalg.norm(gain), atol=1e-5
    )


# ---------------------------------------------------------------- scenarios, table
def test_published_figures_belong_to_scenarios():
    names = {one.name for group in SCENARIOS.values() for one in group}
    assert set(papers.PUBLISHED) <= names


def test_scenarios_without_their_data_are_left_out(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("benchmarks.comparison.__main__.DATA", tmp_path)
    (tmp_path / "sample").mkdir()
    found = find_scenarios(("papers", "heads", "radius"))
    assert {one.head.needs <= {"sample"} for one in found} == {True}
    assert "skipped: 9 scenarios" in capsys.readouterr().out


def test_table_has_both_rules_and_the_papers_figures():
    name = "template, mag: 1 to 3 sources"
    values = [("-", "correlation", 0.9), ("-", "failed", 0.0)]
    for rule, le in (("authors", 3.0), ("otsu", 2.0)):
        values += [(rule, "le", le), (rule, "le", le + 1), (rule, "missed", 0.0)]
        values += [(rule, "precision", 0.5), (rule, "recall", 0.25)]
    rows = pd.DataFrame(values, columns=["rule", "metric", "value"])
    rows = rows.assign(scenario=name, method="DeepSIF", choice="usual", settings="")
    summary = report.summarise(rows)
    assert report.is_papers(summary)
    header, *lines = report.papers_table(summary, name)
    assert header[3] == "LE (mm)" and len(lines) == 3
    assert lines[0][2:5] == ("authors", "3.50 ± 0.50", "0.50 ± 0.00")
    assert lines[1][2:4] == ("otsu", "2.50 ± 0.50")
    assert lines[2][0] == "the papers" and lines[2][3] == "1.52 ± 1.74"
    assert {len(line) for line in lines} == {len(header)}


# ---------------------------------------------------------------- personalised
@pytest.mark.slow
def test_personalised_weights_are_fitted_once(monkeypatch, tmp_path):
    problem, n_steps = SMALL.head.make().problem, []
    monkeypatch.setenv("MNE_DEEPSIF_DATA", str(tmp_path))
    generic = mne_deepsif.inverse.weights.load_model("generic")

    def fit(self, fwd, info, noise_cov, subjects_dir):
        n_steps.append(self.n_steps)
        self.model_ = generic
        return self

    monkeypatch.setattr(mne_deepsif.DeepSIFEstimator, "fit", fit)
    sample = next(draw(SMALL, Chunk(0, 1))[1])
    method = methods.find_method(methods.PERSONALISED)
    for _ in range(2):
        stc = method.prepare(problem, **method.settings[0])(sample.evoked)
    assert n_steps == [500] and len(stc.times) == 500

"""Extents of estimates: on flat grids by hand, and on simulated patches."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
import pytest
from mne.io.constants import FIFF
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial import KDTree

from mne_deepsif import Extents, apply_deepsif, estimate_extent, simulate_evoked
from mne_deepsif.head.anatomy import read_white
from mne_deepsif.trust.candidates import default_probability

N = 9  # vertices a side


def _grid(offset, vertno):
    """Make one hemisphere: a flat grid of N x N vertices, 10 mm apart."""
    rows, cols = np.divmod(np.arange(N * N), N)
    rr = 0.01 * np.column_stack([cols + offset, rows, np.zeros(N * N)])
    corner = np.flatnonzero((rows < N - 1) & (cols < N - 1))
    lower = np.column_stack([corner, corner + 1, corner + N])
    upper = np.column_stack([corner + 1, corner + N + 1, corner + N])
    tris = np.concatenate([lower, upper])
    return dict(
        rr=rr,
        tris=tris,
        np=N * N,
        vertno=vertno,
        nuse=len(vertno),
        type="surf",
        coord_frame=FIFF.FIFFV_COORD_MRI,
    )


def _grids(vertno=None):
    vertno = np.arange(N * N) if vertno is None else vertno
    return mne.SourceSpaces([_grid(0, vertno), _grid(20, vertno)])


@pytest.fixture
def src():
    """Two grids, every vertex used."""
    return _grids()


def _stc(values, n_times=5, subject=None, vertno=None):
    """Make an estimate from {hemi: {(row, col): peak}}, largest in the third sample."""
    vertno = np.arange(N * N) if vertno is None else vertno
    data = np.zeros((2 * len(vertno), n_times))
    for hemi, peaks in values.items():
        for (row, col), peak in peaks.items():
            vertex = np.searchsorted(vertno, N * row + col) + hemi * len(vertno)
            data[vertex] = peak * np.array([0, 0.5, 1, 0.5, 0])[:n_times]
    return mne.SourceEstimate(data, [vertno, vertno], -0.1, 0.05, subject)


SQUARE = {(3, 3): 1.0, (3, 4): 1.0, (4, 3): 1.0, (4, 4): -2.0}  # 1 cm² a vertex


def test_by_hand(src):
    """A square of 4 cm² on the left, one vertex on the right that is stronger."""
    extents = estimate_extent(_stc({0: SQUARE, 1: {(6, 2): 3.0}}), src)
    assert isinstance(extents, Extents) and len(extents) == 2
    lone, square = extents  # the largest peak first
    assert (lone.label.hemi, square.label.hemi) == ("rh", "lh")
    assert_array_equal(square.label.vertices, [30, 31, 39, 40])
    assert_allclose(square.label.values, [1, 1, 1, 2])
    assert_allclose(square.label.pos, src[0]["rr"][[30, 31, 39, 40]])
    assert_allclose([square.area, lone.area], [4e-4, 1e-4])
    assert square.center == square.peak_vertex == 40  # it weighs most
    assert lone.center == lone.peak_vertex == 6 * N + 2
    assert_allclose(lone.position, [0.22, 0.06, 0])
    assert_allclose(square.peak_time, 0)
    assert square.peak_amplitude == -2 and lone.peak_amplitude == 3
    assert_allclose([square.tmin, square.tmax], [-0.1, 0.1])
    assert np.isnan(square.position_mni).all()


def test_pieces_and_small_ones(src):
    """Two patches of one hemisphere are told apart; small ones can be left out."""
    stc = _stc({0: SQUARE | {(7, 7): 1.5}})
    assert [e.label.name for e in estimate_extent(stc, src)] == [
        "extent0-lh",
        "extent1-lh",
    ]
    (large,) = estimate_extent(stc, src, min_area=2e-4)
    assert_allclose(large.area, 4e-4)


def test_windows(src):
    """Each window has its own threshold; its ends belong to it."""
    stc = _stc({0: SQUARE})
    stc.data[0, 4] = 0.1  # weak, and silent in the first window
    first, second = estimate_extent(stc, src, windows=[(-0.1, 0.05), (0.1, 0.1)])
    assert_allclose([first.tmin, first.tmax], [-0.1, 0.05])
    assert_array_equal(first.label.vertices, [30, 31, 39, 40])
    assert_array_equal(second.label.vertices, [0])
    assert_allclose(second.peak_time, 0.1)


def test_decimated():
    """Every ninth vertex stands for what is nearest; areas add up to the surface."""
    vertno = (N * np.arange(1, N, 3)[:, None] + np.arange(1, N, 3)).ravel()
    src = _grids(vertno)
    stc = _stc({0: {(4, 4): 1.0}}, vertno=vertno)
    (one,) = estimate_extent(stc, src)
    assert one.center == one.peak_vertex == 40
    assert set(one.label.restrict(src).vertices) == {40}
    assert_allclose(one.area, 9e-4)
    full = mne.Label(np.arange(N * N), hemi="lh")
    (whole,) = estimate_extent(stc, src, labels=[full])
    assert_allclose(whole.area, 64e-4)


def test_labels(src):
    """Given labels are measured as they are, active or not."""
    stc = _stc({0: SQUARE})
    labels = [
        mne.Label([31, 32], hemi="lh", name="half-lh"),
        mne.Label([40], hemi="rh", name="silent-rh"),
    ]
    half, silent = estimate_extent(stc, src, labels=labels)
    assert half.label.name == "half-lh" and silent.label.name == "silent-rh"
    assert_allclose([half.area, silent.area], [2e-4, 1e-4])
    assert half.peak_amplitude == 1 and silent.peak_amplitude == 0


def test_round_trip(src):
    """Labels of extents give back the active vertices, and measure the same."""
    stc = _stc({0: SQUARE, 1: {(6, 2): 3.0}}, subject="grid")
    extents = estimate_extent(stc, src)
    labels = [extent.label for extent in extents]
    mask = mne.labels_to_stc([label.restrict(src) for label in labels], [1.0, 2.0])
    active = np.abs(stc.data).max(1) > 0
    for vertices, inside in zip(mask.vertices, np.split(active, 2)):
        assert_array_equal(vertices, np.flatnonzero(inside))
    assert_array_equal(mask.data[:, 0], [2, 2, 2, 2, 1])
    again = estimate_extent(stc, src, labels=labels)
    assert {e.area for e in again} == {e.area for e in extents}


def test_nothing_stands_out(src):
    """Silence, and an estimate without vertices, have no extent but a table."""
    none = mne.SourceEstimate(np.zeros((0, 3)), [np.array([], int)] * 2, 0, 1)
    for stc in (_stc({}), none):
        extents = estimate_extent(stc, src)
        assert extents == []
        assert list(extents.to_data_frame().columns)[:2] == ["name", "hemi"]


def test_vector(src):
    """Of a vector estimate the norm counts."""
    stc = _stc({0: SQUARE})
    data = np.zeros((len(stc.data), 3, 5))
    data[:, 0], data[:, 1] = 0.6 * stc.data, -0.8 * stc.data
    vector = mne.VectorSourceEstimate(data, stc.vertices, stc.tmin, stc.tstep)
    (extent,) = estimate_extent(vector, src)
    assert_allclose(extent.area, 4e-4)
    assert_allclose(extent.peak_amplitude, 2)


def test_table(src):
    """The table is in the units of reports."""
    extents = estimate_extent(_stc({0: SQUARE}), src)
    row = extents.to_data_frame().iloc[0]
    assert row["name"] == "extent0-lh" and row["hemi"] == "lh"
    assert_allclose([row["area_cm2"], row["x"], row["y"]], [4, 40, 40])
    assert row["center_vertex"] == row["peak_vertex"] == 40
    assert_allclose(row["peak_amplitude"], -2)


def test_table_without_pandas(src, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(ImportError, match="to_data_frame needs pandas"):
        estimate_extent(_stc({0: SQUARE}), src).to_data_frame()


def test_errors(src):
    stc = _stc({0: SQUARE}, subject="grid")
    with pytest.raises(TypeError, match="stc must be an instance of"):
        estimate_extent(stc.data, src)
    with pytest.raises(TypeError, match="src must be an instance of"):
        estimate_extent(stc, None)
    broken = stc.copy()
    broken.data[3, 1] = np.nan
    with pytest.raises(ValueError, match="stc must be finite"):
        estimate_extent(broken, src)
    with pytest.raises(ValueError, match=r"windows: \(1.0, 2.0\) holds no sample"):
        estimate_extent(stc, src, windows=[(1.0, 2.0)])
    with pytest.raises(ValueError, match="windows must be a list of"):
        estimate_extent(stc, src, windows=(0.0, 1.0))
    with pytest.raises(ValueError, match="Invalid value for the 'rule'"):
        estimate_extent(stc, src, rule="half")
    with pytest.raises(ValueError, match="min_area must be 0 or more"):
        estimate_extent(stc, src, min_area=-1)
    with pytest.raises(ValueError, match="stc must lie on the vertices of src"):
        estimate_extent(stc, _grids(np.arange(5)))
    other = mne.Label([1], hemi="lh", name="one", subject="other")
    with pytest.raises(ValueError, match="one is of 'other'"):
        estimate_extent(stc, src, labels=[other])
    src[0]["tris"] = np.zeros((0, 3), int)
    with pytest.raises(ValueError, match="src must hold the whole surfaces"):
        estimate_extent(stc, src)


@pytest.mark.parametrize("seeds", ([20], [150], [20, 150]))
def test_simulated_patches(eeg_fwd, eeg_info, parcels, seeds):
    """Patches on either hemisphere are found with their areas, times and places."""
    spike = np.sin(np.linspace(0, np.pi, 50)) ** 8
    _, _, truth = simulate_evoked(
        eeg_fwd,
        eeg_info,
        seeds=seeds,
        waveforms=[spike, -spike][: len(seeds)],
        background_snr=None,
        duration=0.2,
        parcels=parcels,
        random_state=0,
    )
    extents = estimate_extent(truth.stc, eeg_fwd)
    assert len(extents) == len(seeds)
    order = [["lh", "rh"].index(extent.label.hemi) for extent in extents]
    extents = [extents[i] for i in np.argsort(order)]
    white, _ = read_white()
    for extent, label, area in zip(extents, truth.labels, truth.areas):
        assert extent.label.subject == "fsaverage5"
        assert extent.label.hemi == label.hemi
        found = extent.label.restrict(eeg_fwd["src"])
        # amplitudes fall to a half towards the border of a patch, and parcels differ
        # in their number of vertices: Otsu's threshold may cut off some of it
        assert np.isin(found.vertices, label.vertices).all()
        assert 0.7 * area < extent.area < 1.1 * area
        # in surface RAS, whatever the frame of the forward
        hemi = int(label.hemi == "rh")
        assert_allclose(extent.position, white[hemi][extent.center], atol=1e-6)
        assert_allclose(extent.position_mni, extent.position, atol=1e-6)
    peaks = [extent.peak_time for extent in extents]
    assert_allclose(peaks, np.concatenate(truth.peak_times), atol=1e-9)
    in_head = estimate_extent(truth.stc, eeg_fwd["src"])
    assert np.isnan(in_head[0].position).all()  # nothing says where the head lies
    assert np.isfinite(in_head[0].position_mni).all()


@pytest.fixture(scope="module")
def weak_and_strong(eeg_fwd, eeg_info, parcels):
    """Two patches in noise, one 60 ms before the other and a third as strong."""
    times = np.arange(125) / 250.0
    waves = [
        factor * np.exp(-(((times - peak) / 0.015) ** 2))
        for factor, peak in ((0.35, 0.2), (1.0, 0.26))
    ]
    evoked, _, truth = simulate_evoked(
        eeg_fwd,
        eeg_info,
        seeds=[150, 20],
        waveforms=waves,
        background_snr=None,
        snr=20,
        duration=0.5,
        parcels=parcels,
        random_state=0,
    )
    return evoked, apply_deepsif(evoked, eeg_fwd, truth.noise_cov), truth


def _places(label, fwd):
    return fwd["src"][("lh", "rh").index(label.hemi)]["rr"][label.vertices]


def test_with_data(weak_and_strong, eeg_fwd):
    """The weak source has its own border and time; the rest is left out."""
    evoked, stc, truth = weak_and_strong
    extents = estimate_extent(stc, eeg_fwd, evoked, truth.noise_cov)
    sources = KDTree(np.concatenate([_places(one, eeg_fwd) for one in truth.labels]))
    for one in extents:
        assert sources.query(_places(one.label, eeg_fwd))[0].min() < 0.01
    for label, peak_times in zip(truth.labels, truth.peak_times):
        nearest = [
            one for one in extents if np.isin(one.label.vertices, label.vertices).any()
        ]
        assert nearest
        assert_allclose(nearest[0].peak_time, peak_times[0], atol=0.012)
    assert all(default_probability() <= one.probability <= 1 for one in extents)
    everything = estimate_extent(
        stc, eeg_fwd, evoked, truth.noise_cov, min_probability=0.0
    )
    kept = [one for one in everything if one.probability >= default_probability()]
    assert len(kept) == len(extents)
    assert len(everything) >= len(extents)
    assert "probability" in everything.to_data_frame()
    assert "% sure, peak" in repr(extents)
    # the level of the noise covariance does not matter, nor where the pieces are from
    louder = truth.noise_cov.copy()
    louder["data"] = 9 * louder["data"]
    again = estimate_extent(stc, eeg_fwd, evoked, louder)
    assert_allclose([e.probability for e in again], [e.probability for e in extents])
    assert [e.label.name for e in again] == [e.label.name for e in extents]


def test_nothing_where_there_is_nothing(weak_and_strong, eeg_fwd, eeg_info):
    """Noise alone: Otsu's threshold finds pieces, the data speak against most of them.

    The noise is white in time, and of few electrodes: the guide says how bad this is.
    """
    _, _, truth = weak_and_strong
    std = np.sqrt(truth.noise_cov.data)[:, np.newaxis]  # of a diagonal matrix
    found, pieces = [], 0
    for seed in range(6):
        noise = std * np.random.default_rng(seed).standard_normal((len(std), 125))
        noise = mne.EvokedArray(noise, eeg_info)
        stc = apply_deepsif(noise, eeg_fwd, truth.noise_cov, verbose="error")
        pieces += len(estimate_extent(stc, eeg_fwd))
        found.append(estimate_extent(stc, eeg_fwd, noise, truth.noise_cov))
    empty = [one for one in found if one == []]
    assert len(empty) >= 4 and repr(empty[0]) == "<Extents | no extent>"
    assert sum(map(len, found)) < pieces / 10


def test_windows_of_the_data(weak_and_strong, eeg_fwd):
    """Each window is looked at by itself: the weak source leads in its own."""
    evoked, stc, truth = weak_and_strong
    peaks = np.concatenate(truth.peak_times)
    windows = [(peak - 0.02, peak + 0.02) for peak in peaks]
    extents = estimate_extent(stc, eeg_fwd, evoked, truth.noise_cov, windows=windows)
    for label, peak in zip(truth.labels, peaks):
        first = next(one for one in extents if one.tmin <= peak <= one.tmax)
        assert np.isin(first.label.vertices, label.vertices).any()
    whole = estimate_extent(stc, eeg_fwd, evoked, truth.noise_cov, min_area=1.0)
    assert whole == []


def test_labels_need_no_data(weak_and_strong, eeg_fwd):
    evoked, stc, truth = weak_and_strong
    measured = estimate_extent(stc, eeg_fwd, evoked, labels=truth.labels)
    assert [one.label.name for one in measured] == [
        label.name
        for label in sorted(
            truth.labels, key=lambda label: -np.abs(stc.in_label(label).data).max()
        )
    ]
    assert all(np.isnan(one.probability) for one in measured)


def test_probability_needs_data(weak_and_strong, eeg_fwd):
    evoked, stc, truth = weak_and_strong
    with pytest.raises(ValueError, match="evoked must be given for rule='probability'"):
        estimate_extent(stc, eeg_fwd, rule="probability")
    with pytest.raises(TypeError, match="src must be an instance of Forward"):
        estimate_extent(stc, eeg_fwd["src"], evoked)
    with pytest.raises(ValueError, match="stc and evoked must have the same times"):
        estimate_extent(stc, eeg_fwd, evoked.copy().crop(0, 0.1))
    with pytest.raises(ValueError, match="min_probability must be between 0 and 1"):
        estimate_extent(stc, eeg_fwd, evoked, min_probability=50)
    with pytest.raises(ValueError, match="evoked must be given too"):
        estimate_extent(stc, eeg_fwd, noise_cov=truth.noise_cov)
    with pytest.raises(ValueError, match="rule must be None if they are given"):
        estimate_extent(stc, eeg_fwd, evoked, labels=truth.labels, rule="probability")
    short = stc.copy().crop(0, 0.004), evoked.copy().crop(0, 0.004)
    with pytest.raises(ValueError, match="evoked must have 3 samples or more"):
        estimate_extent(short[0], eeg_fwd, short[1], rule="probability")
    assert np.isnan(estimate_extent(short[0], eeg_fwd, short[1])[0].probability)
    broken = evoked.copy()
    broken.data[3, 5] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite values in 1 channel"):
        estimate_extent(stc, eeg_fwd, broken)
    vector = mne.VectorSourceEstimate(
        np.repeat(stc.data[:, np.newaxis], 3, axis=1), stc.vertices, stc.tmin, stc.tstep
    )
    assert np.isnan(estimate_extent(vector, eeg_fwd, evoked)[0].probability)

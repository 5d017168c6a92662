"""Estimates of a running recording: those of apply_deepsif_raw, and what is told."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import copy
import subprocess
import sys
import time
from types import SimpleNamespace

import mne
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from mne_deepsif import DeepSIFStream, apply_deepsif_raw, make_deepsif_operator

SFREQ = 250.0


@pytest.fixture(scope="module")
def raw(eeg_info):
    """Make a rhythm that comes and goes in noise (V)."""
    rng = np.random.default_rng(0)
    times = np.arange(900) / SFREQ
    course = np.sin(2 * np.pi * 10 * times) * np.sin(2 * times) ** 2
    data = rng.standard_normal((32, 1)) * course + rng.standard_normal((32, 900))
    return mne.io.RawArray(1e-5 * data, eeg_info)


@pytest.fixture(scope="module")
def operator(eeg_info, eeg_fwd, cov, tiny_estimator):
    return make_deepsif_operator(eeg_info, eeg_fwd, cov, estimator=tiny_estimator)


@pytest.fixture(scope="module")
def label(eeg_fwd):
    """Give some 30 vertices of the right hemisphere."""
    return mne.Label(eeg_fwd["src"][1]["vertno"][:300:10], hemi="rh")


@pytest.fixture(scope="module")
def bads(raw):
    """Annotate what a test leaves out: 100 samples, and 7."""
    return mne.Annotations([300 / SFREQ, 700 / SFREQ], [100 / SFREQ, 7 / SFREQ], "bad")


def push(stream, data, times=None, pieces=()):
    """Push pieces; return all final estimates, their times, and the events."""
    parts, bounds = [], np.cumsum(pieces, dtype=int)
    times = np.arange(data.shape[1]) / SFREQ if times is None else times
    for piece in zip(np.split(data, bounds, axis=1), np.split(times, bounds)):
        parts.append(stream.push(*piece))
    parts.append(stream.finish())
    assert all(part.final for part in parts)
    return (
        np.concatenate([part.data for part in parts], axis=1),
        np.concatenate([part.times for part in parts]),
        [event for part in parts for event in part.events],
    )


def assert_same(found, expected):
    assert found.shape == expected.shape
    assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def kinds(events):
    return [event.kind for event in events]


# --------------------------------------------------------------- the estimate


@given(st.lists(st.integers(0, 500), max_size=8), st.sampled_from([1, 8]))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_any_pieces(raw, operator, label, pieces, decim):
    """It is that of the whole recording, with its times."""
    expected = apply_deepsif_raw(raw, operator, label=label, decim=decim)
    stream = DeepSIFStream(operator, label=label, decim=decim)
    data, times, events = push(stream, raw.get_data(), pieces=pieces)
    assert_same(data, expected.data)
    assert_allclose(times, expected.times)
    assert events == []


def test_filtered_data(raw, eeg_fwd, cov, tiny_estimator, label):
    """What info says of the filter counts, as for the whole recording."""
    filtered = raw.copy().filter(None, 20.0)
    operator = make_deepsif_operator(
        filtered.info, eeg_fwd, cov, estimator=tiny_estimator
    )
    expected = apply_deepsif_raw(filtered, operator, label=label).data
    data, _, _ = push(DeepSIFStream(operator, label=label), filtered.get_data())
    assert_same(data, expected)
    unknown = make_deepsif_operator(raw.info, eeg_fwd, cov, estimator=tiny_estimator)
    data, _, _ = push(DeepSIFStream(unknown, label=label), filtered.get_data())
    assert np.abs(data - expected).max() > 1e-3 * np.abs(expected).max()


def test_copy(raw, operator, label):
    """A copy goes on from where the stream is."""
    stream = DeepSIFStream(operator, label=label)
    stream.push(raw.get_data()[:, :500])
    other = copy.deepcopy(stream)
    rest = raw.get_data()[:, 500:]
    assert_same(other.push(rest).data, stream.push(rest).data)


def test_whole_cortex(raw, operator):
    """Vertices are those of the source space, in A m."""
    expected = apply_deepsif_raw(raw, operator, decim=10)
    stream = DeepSIFStream(operator, decim=10)
    data, _, _ = push(stream, raw.get_data(), pieces=[400])
    assert_same(data, expected.data)
    for found, wanted in zip(stream.vertices, expected.vertices, strict=True):
        assert_array_equal(found, wanted)


def test_parcels(raw, operator, label):
    """The mean of their vertices' moments, over the area of each (A/m)."""
    stc = apply_deepsif_raw(raw, operator)
    stream = DeepSIFStream(operator, parcels=True)
    data, _, _ = push(stream, raw.get_data(), pieces=[400])
    assert_array_equal(stream.parcels, np.arange(200))
    leadfield = operator.leadfield
    parcel = np.concatenate(leadfield.parcel_of_vertex)
    for index in (0, 77, 199):
        rows = parcel == index
        area = leadfield.vertex_area[rows][:, [index]].toarray().ravel()
        assert_allclose(area, area[0])
        expected = stc.data[rows].mean(0) / area[0]
        assert_allclose(data[index], expected, atol=1e-4 * np.abs(data).max())
    some = DeepSIFStream(operator, parcels=True, label=label)
    inside = leadfield.parcel_of_vertex[1][:300:10]
    assert_array_equal(some.parcels, np.unique(inside[inside >= 0]))
    assert_same(push(some, raw.get_data())[0], data[some.parcels])
    assert some.vertices is None


@pytest.mark.parametrize("decim", (1, 3))
def test_gaps_are_as_bad_spans(raw, operator, label, bads, decim):
    """Missing samples spoil nothing beside them; the rest stays on its grid."""
    marked = raw.copy().set_annotations(bads)
    expected = apply_deepsif_raw(marked, operator, label=label, decim=decim)
    good = np.isfinite(expected.data[0])
    there = np.delete(np.arange(900), [*range(300, 400), *range(700, 707)])
    data, times, events = push(
        DeepSIFStream(operator, label=label, decim=decim),
        raw.get_data()[:, there],
        50.0 + raw.times[there],
        pieces=[250, 100, 250],
    )
    assert_same(data, expected.data[:, good])
    assert_allclose(times, 50 + expected.times[good])
    assert kinds(events) == ["gap", "gap"]
    assert [event.n_samples for event in events] == [100, 7]
    assert_allclose((events[0].start, events[0].stop), 50 + raw.times[[299, 400]])
    assert "100 samples are missing" in str(events[0])


def test_impossible_values_are_as_bad_spans(raw, operator, label, bads):
    marked = raw.copy().set_annotations(bads)
    expected = apply_deepsif_raw(marked, operator, label=label, decim=3)
    good = np.isfinite(expected.data[0])
    given = raw.get_data()
    given[3, 300:400], given[5, 700:707] = np.nan, np.inf
    stream = DeepSIFStream(operator, label=label, decim=3)
    data, times, events = push(stream, given, pieces=[350])
    assert_same(data, expected.data[:, good])
    assert_allclose(times, expected.times[good])
    assert kinds(events) == ["values", "resumed"] * 2
    assert events[0].start == 300 / SFREQ and raw.ch_names[3] in str(events[0])
    assert events[1].start == 400 / SFREQ and raw.ch_names[5] in str(events[2])


def test_preview(raw, operator, label):
    """It is that of the recording so far, from where the final estimate ends."""
    stream, end = DeepSIFStream(operator, label=label), 0
    for start in range(0, 600, 75):
        final = stream.push(raw.get_data(start=start, stop=start + 75))
        end += len(final.times)
        found = stream.preview()
        expected = apply_deepsif_raw(raw, operator, label=label, stop=start + 75)
        assert not found.final and final.final
        assert_same(found.data, expected.data[:, end:])
        assert_allclose(found.times, expected.times[end:])
    assert 0 < end and 600 - end <= stream.delay * SFREQ
    assert DeepSIFStream(operator, label=label).preview().data.shape == (30, 0)


def test_embedded_weights(eeg_info, eeg_fwd, cov, label):
    """As for the small network: single precision is all that pieces change."""
    rng = np.random.default_rng(0)
    raw = mne.io.RawArray(1e-6 * rng.standard_normal((32, 500)).cumsum(1), eeg_info)
    raw.filter(1, None, method="iir")
    operator = make_deepsif_operator(eeg_info, eeg_fwd, cov)
    stream = DeepSIFStream(operator, label=label)
    data, _, _ = push(stream, raw.get_data(), pieces=[130, 200])
    assert_same(data, apply_deepsif_raw(raw, operator, label=label).data)


def test_network_that_reads_channels(raw, eeg_info, eeg_fwd, minimum_norm, label):
    """Channels in its order, projected, not whitened."""
    model = minimum_norm("sensors", ch_names=raw.ch_names[25:5:-1])
    operator = make_deepsif_operator(eeg_info, eeg_fwd, estimator=model)
    expected = apply_deepsif_raw(raw, operator, label=label)
    data, _, _ = push(DeepSIFStream(operator, label=label), raw.get_data())
    assert_same(data, expected.data)


# --------------------------------------------------------------- what is told


def test_late_and_unordered_samples(raw, operator, label):
    """Neither changes the estimate."""
    expected = apply_deepsif_raw(raw, operator, label=label)
    data, order = raw.get_data(), np.r_[0:900, 500:510]
    order[[850, 851]] = order[[851, 850]]
    found, times, events = push(
        DeepSIFStream(operator, label=label), data[:, order], order / SFREQ, [800, 100]
    )
    assert_same(found, expected.data)
    assert_allclose(times, expected.times)
    assert kinds(events) == ["order", "late"]
    assert [event.n_samples for event in events] == [2, 10]


@pytest.mark.parametrize("size", (30, 900))
def test_another_rate(raw, operator, label, size):
    """Samples at it are left out, until the rate is right again."""
    times = np.cumsum(np.r_[[0.0], np.full(399, 1.0), np.full(200, 2.0), np.ones(300)])
    times, pieces = times / SFREQ, np.full(900 // size - 1, size)
    stream = DeepSIFStream(operator, label=label)
    data, when, events = push(stream, raw.get_data(), times, pieces)
    assert [kind for kind in kinds(events) if kind != "gap"] == ["rate", "resumed"]
    rate = next(event for event in events if event.kind == "rate")
    assert "rate is not 250 Hz but 125 Hz" in str(rate)
    before = apply_deepsif_raw(raw, operator, label=label, stop=400).data
    assert_same(data[:, :400], before)
    after = apply_deepsif_raw(raw, operator, label=label, start=600).data
    assert_same(data[:, -300:], after)
    assert_allclose(when[-300:], times[-300:])
    assert data.shape[1] == 700 if size == 900 else 700 <= data.shape[1] < 708


def test_bad_channels(raw, operator, label):
    """Those of the operator end the estimate while they are bad, others do not."""
    stream = DeepSIFStream(operator, label=label)
    data = raw.get_data()
    assert stream.push(data[:, :100], bads=["EOG"]).events == []
    (event,) = stream.push(data[:, 100:200], bads=[raw.ch_names[3], "EOG"]).events
    assert event.kind == "channels" and event.start == 100 / SFREQ
    assert str([raw.ch_names[3]]) in str(event)
    assert stream.push(data[:, 200:250], bads=[raw.ch_names[3]]).events == []
    estimate = stream.push(data[:, 250:400])
    assert kinds(estimate.events) == ["resumed"]
    assert estimate.events[0].start == 250 / SFREQ
    assert estimate.times[0] == 250 / SFREQ


def test_another_clock_after_the_end(raw, operator, label):
    """A finished stream begins anew, by any clock."""
    stream = DeepSIFStream(operator, label=label)
    first = push(stream, raw.get_data(), 1e6 + raw.times)
    again = push(stream, raw.get_data())
    assert_array_equal(first[0], again[0])
    assert_allclose(first[1] - 1e6, again[1], atol=1e-9)
    assert first[2] == again[2] == []


def test_units_are_checked_once(raw, operator, label):
    data = raw.get_data()
    stream = DeepSIFStream(operator, label=label)
    with pytest.warns(RuntimeWarning, match="seem to be in µV") as record:
        for start in range(0, 900, 50):
            stream.push(1e6 * data[:, start : start + 50])
    assert len(record) == 1


def test_reference_is_checked(raw, eeg_fwd, cov, plain, label):
    """Data that should be average-referenced, and are not."""
    averaged = raw.copy().del_proj().set_eeg_reference("average")
    operator = make_deepsif_operator(averaged.info, eeg_fwd, cov, estimator=plain)
    DeepSIFStream(operator, label=label).push(averaged.get_data())
    with pytest.raises(ValueError, match="unless it is the average"):
        DeepSIFStream(operator, label=label).push(raw.get_data())


# --------------------------------------------------------------- objects and errors


def test_to_stc(raw, operator, label):
    stream = DeepSIFStream(operator, label=label, decim=2)
    stream.push(raw.get_data(), 5 + raw.times)
    found = stream.finish()
    stc = found.to_stc()
    assert_array_equal(stc.data, found.data)
    assert_allclose(stc.times, found.times)
    assert stc.tstep == 2 / SFREQ and stc.subject == "fsaverage5"
    assert_array_equal(stc.vertices[1], np.sort(label.vertices))
    with pytest.raises(ValueError, match="has no samples"):
        stream.preview().to_stc()
    times = raw.times + (np.arange(900) > 400)
    with pytest.raises(ValueError, match="has gaps"):
        stream.push(raw.get_data(), times).to_stc()
    with pytest.raises(ValueError, match="Parcels are no vertices"):
        DeepSIFStream(operator, parcels=True).preview().to_stc()


def test_description(operator, label):
    stream = DeepSIFStream(operator, label=label)
    assert repr(stream) == "<DeepSIFStream | 32 channels at 250 Hz, 30 vertices>"
    assert "200 parcels" in repr(DeepSIFStream(operator, parcels=True))
    assert stream.delay == 2 * 0.256  # a window of 256 ms and two hops


def test_wrong_arguments(operator, eeg_info, eeg_fwd):
    with pytest.raises(TypeError, match="operator must be an instance of DeepSIFOper"):
        DeepSIFStream(eeg_fwd)
    with pytest.raises(ValueError, match="decim must be 1 or more"):
        DeepSIFStream(operator, decim=0)
    with pytest.raises(ValueError, match="bad or missing in the data"):
        DeepSIFStream(operator, mne.pick_info(eeg_info, range(20)))
    outside = np.array(operator.leadfield.parcel_of_vertex[0]) < 0
    outside = operator.leadfield.vertices[0][outside]
    nowhere = mne.Label(outside[:3], hemi="lh", name="nowhere-lh")
    with pytest.raises(ValueError, match="'nowhere-lh' lies outside of the parcels"):
        DeepSIFStream(operator, label=nowhere, parcels=True)


@pytest.mark.parametrize(
    "data, times, match",
    (
        (np.zeros((31, 5)), None, r"\(32, n_times\), .* got shape \(31, 5\)"),
        (np.zeros(32), None, r"got shape \(32,\)"),
        (np.zeros((32, 5), complex), None, "dtype complex128"),
        (np.zeros((32, 5)), np.arange(4), r"times must be 5 finite .* shape \(4,\)"),
        (np.zeros((32, 2)), [0.0, np.nan], "times must be 2 finite numbers"),
    ),
)
def test_wrong_data(operator, label, data, times, match):
    """They change nothing."""
    stream = DeepSIFStream(operator, label=label)
    with pytest.raises(ValueError, match=match):
        stream.push(data, times)
    assert stream.preview().times.size == 0
    assert stream.push(np.zeros((32, 0))).events == []
    with pytest.raises(TypeError, match="bads must be an instance of"):
        stream.push(np.zeros((32, 5)), bads="EEG 001")  # a name is no list of names


# --------------------------------------------------------------- a source of LSL


def fake_source(raw, stop, names=None, exponent=0, bads=()):
    """Make what a StreamLSL is to the stream: a buffer of 200 samples."""
    names = raw.ch_names if names is None else names
    info = raw.copy().pick(names).reorder_channels(names).info
    info["bads"] = list(bads)
    for ch in info["chs"]:
        ch["unit_mul"] = exponent
    data = raw.get_data(names, start=max(0, stop - 200), stop=stop)
    times = np.pad(100 + raw.times[max(0, stop - 200) : stop], (50, 0))
    data = np.pad(data / 10.0**exponent, ((0, 0), (50, 0)))
    return SimpleNamespace(
        connected=True,
        name="amplifier",
        info=info,
        ch_names=names,
        get_data=lambda exclude: (data, times),
    )


def test_source(raw, operator, label):
    """What is new, in the channels' order, in V."""
    stream, parts = DeepSIFStream(operator, label=label), []
    names = raw.ch_names[::-1]
    for stop in (150, 150, 330, 420, 600):
        parts.append(stream.push_lsl(fake_source(raw, stop, names, -6)))
    parts.append(stream.finish())
    expected = apply_deepsif_raw(raw, operator, label=label, stop=600)
    assert_same(np.concatenate([part.data for part in parts], 1), expected.data)
    assert not any(part.events for part in parts)


def test_source_that_changes(raw, operator, label):
    """Lost samples, bad and missing channels are told."""
    stream = DeepSIFStream(operator, label=label)
    assert stream.push_lsl(fake_source(raw, 100)).events == []
    assert kinds(stream.push_lsl(fake_source(raw, 400)).events) == ["gap"]
    found = stream.push_lsl(fake_source(raw, 500, bads=raw.ch_names[:1]))
    assert kinds(found.events) == ["channels"]
    found = stream.push_lsl(fake_source(raw, 600, raw.ch_names[2:]))
    assert found.events == []
    assert kinds(stream.push_lsl(fake_source(raw, 700)).events) == ["resumed"]
    with pytest.raises(ValueError, match="rate of 125 Hz, but the stream .* 250 Hz"):
        stream.push_lsl(fake_source(raw.copy().resample(125), 100))
    source = fake_source(raw, 800)
    source.connected = False
    with pytest.raises(RuntimeError, match="'amplifier' is not connected"):
        stream.push_lsl(source)


PLAYER = """
import sys, time
from mne_lsl.player import PlayerLSL
player = PlayerLSL(sys.argv[1], chunk_size=10, n_repeat=1, name=sys.argv[2]).start()
while player.running:
    time.sleep(0.1)
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_player(raw, operator, label, tmp_path):
    """A process plays a recording: what arrives gets the estimate of the recording."""
    streams = pytest.importorskip("mne_lsl.stream", reason="needs extra 'stream'")
    fname, name = tmp_path / "played_raw.fif", f"deepsif-{time.time_ns()}"
    played = mne.io.RawArray(np.tile(raw.get_data(), 5), raw.info)
    played.save(fname)
    played = mne.io.read_raw_fif(fname, preload=True)
    command = [sys.executable, "-c", PLAYER, str(fname), name]
    player = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        source = streams.StreamLSL(4.0, name=name).connect(
            acquisition_delay=0.02, timeout=30
        )
        stream, parts, given = DeepSIFStream(operator, label=label), [], []
        original = stream.push
        stream.push = lambda data, *args: given.append(data) or original(data, *args)
        deadline = time.monotonic() + 30
        while sum(data.shape[1] for data in given) < 1500:
            assert time.monotonic() < deadline
            parts.append(stream.push_lsl(source))
            time.sleep(0.03)
        source.disconnect()
        parts.append(stream.finish())
    finally:
        player.terminate()
        player.wait(10)
    assert not any(part.events for part in parts)
    times = np.concatenate([part.times for part in parts])
    assert_allclose(np.diff(times), 1 / SFREQ, atol=1e-4)
    given = np.concatenate(given, axis=1)
    distance = np.abs(played.get_data() - given[:, :1]).max(0)
    start = int(np.argmin(distance))  # the recording repeats: any place will do
    stop = start + given.shape[1]
    assert_allclose(given, played.get_data(start=start, stop=stop), atol=1e-12)
    expected = apply_deepsif_raw(played, operator, label=label, start=start, stop=stop)
    assert_same(np.concatenate([part.data for part in parts], 1), expected.data)

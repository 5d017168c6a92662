"""Data that grow: the estimate of the whole, each window once, no more memory."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from mne_deepsif.inverse import span as module
from mne_deepsif.inverse.model import PreparedModel, PreparedPrior
from mne_deepsif.inverse.span import Span

N_TIMES = 700


class Kernel(PreparedModel):
    """As any other model: windows that overlap, each seen as a whole."""

    def estimate_windows(self, windows, *, mixing=None):
        sources = (mixing @ self.gain.numpy().T) @ windows
        return sources * np.square(windows).mean((1, 2), keepdims=True)


@pytest.fixture(scope="module")
def data():
    """Make a rhythm that comes and goes, and noise."""
    rng = np.random.default_rng(3)
    times = np.arange(N_TIMES)
    rhythm = np.sin(times / 9) * np.sin(times / 130) ** 2
    return 3 * rng.standard_normal((31, 1)) * rhythm + rng.standard_normal(
        (31, N_TIMES)
    )


@pytest.fixture(scope="module", params=("network", "kernel"))
def prepared(request, tiny_estimator, parcels):
    gain = np.random.default_rng(1).standard_normal((31, parcels.n_parcels))
    if request.param == "kernel":
        return Kernel(tiny_estimator.model_, gain)
    return tiny_estimator.model_.prepare(gain)


def estimate(prepared, data, sfreq, pieces, mixing=None, previews=False, **kwargs):
    """Push pieces, and return what is final, and how much of it was before the end."""
    span, sources = Span(prepared, sfreq, mixing, **kwargs), []
    for part in np.split(data, np.cumsum(pieces), axis=1):
        span.append(part)
        sources += span.settle()
        if previews:
            span.preview()
    n_done = span.n_done
    sources += span.preview() or [prepared.estimate(data[:, :1], sfreq)[:, :0]]
    return np.concatenate(sources, axis=1), n_done


def assert_same(found, expected):
    assert found.shape == expected.shape
    assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max(initial=0))


@given(
    st.lists(st.integers(0, 400), max_size=12),
    st.integers(1, N_TIMES),
    st.sampled_from([(125.0, 1, 0), (100.0, 1, 0), (130.0, 3, 2), (260.0, 7, 0)]),
    st.booleans(),
)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_any_pieces(prepared, data, pieces, n_times, rate, previews):
    """The estimate is that of all data at once, and its beginning is final early."""
    sfreq, decim, skip = rate
    window = prepared.window(sfreq)
    whole = prepared.estimate(data[:, :n_times], sfreq)[:, skip::decim]
    found, n_done = estimate(
        *(prepared, data[:, :n_times], sfreq, pieces),
        previews=previews,
        decim=decim,
        skip=skip,
    )
    assert_same(found, whole)
    assert n_times - n_done <= window + 2 * (window // 2)


def test_what_is_final_stays(prepared, data):
    """Wherever the data end: it is no longer than it can be."""
    window = prepared.window(125.0)
    for n_times in range(window, 4 * window, 5):
        span = Span(prepared, 125.0)
        span.append(data[:, :n_times])
        final = span.settle()
        for more in (0, 1, window // 3, window // 2 - 1, window):
            whole = prepared.estimate(data[:, : n_times + more], 125.0)
            for sources in final:
                assert_same(sources, whole[:, : span.n_done])


def test_preview(prepared, data):
    """It is what the data so far give, and leaves no trace."""
    span = Span(prepared, 125.0)
    for start in range(0, 300, 11):
        span.append(data[:, start : start + 11])
        span.settle()
        whole = prepared.estimate(data[:, : start + 11], 125.0)[:, span.n_done :]
        for _ in range(2):
            assert_same(*span.preview(), whole)
    assert Span(prepared, 125.0).preview() == []


def test_sums(prepared, data):
    """Few of them are estimated without the rest."""
    mixing = sparse.csr_array(([1.0, 2.0, -1.0], ([0, 0, 1], [7, 9, 9])), (2, 200))
    expected = mixing @ prepared.estimate(data, 125.0)
    assert_same(estimate(prepared, data, 125.0, [400], mixing)[0], expected)


def test_long_pieces_go_in_groups(prepared, data, monkeypatch):
    monkeypatch.setattr(module, "_GROUP", 2)
    expected = prepared.estimate(data, 125.0)
    assert_same(estimate(prepared, data, 125.0, [])[0], expected)


def test_each_window_once(tiny_estimator, parcels, data):
    """The network sees no window of the final estimate twice; previews add theirs."""
    gain = np.random.default_rng(1).standard_normal((31, parcels.n_parcels))
    prepared = tiny_estimator.model_.prepare(gain)
    find = PreparedPrior._find_priors
    with mock.patch.object(PreparedPrior, "_find_priors", autospec=True) as spy:
        spy.side_effect = find
        span = Span(prepared, 125.0)
        for start in range(0, 320, 4):
            span.append(data[:, start : start + 4])
            span.settle()
        n_long, n_quarter = np.sum(
            [[len(one) for one in call.args[1]] for call in spy.call_args_list], 0
        )
    # one each 16 samples, four times as many; and those that the last ones need
    assert (n_long, n_quarter) == (span.n_done // 16 + 1, span.n_done // 4 + 4)


def test_memory_is_constant(prepared, data):
    """What is kept does not grow, whether the latest samples are estimated or not."""
    span, sizes = Span(prepared, 125.0), []
    for _ in range(4):
        for start in range(0, N_TIMES, 20):
            span.append(data[:, start : start + 20])
            span.settle()
            span.preview()
            sizes.append(_count(span))
    half = len(sizes) // 2
    assert_array_equal(np.max(sizes[half:], 0), np.max(sizes[N_TIMES // 20 : half], 0))


def _count(span):
    kept = vars(span._estimator)
    names = ("priors", "judged", "explained", "estimates")
    names = [name for name in names if name in kept]
    n_samples = sum(piece.shape[1] for piece in span._pieces)
    return [n_samples, len(span._pieces), *(len(kept[name]) for name in names)]

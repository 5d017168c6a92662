"""Front doors, with a plain minimum norm as estimator so that all can be checked."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import copy
import warnings
from dataclasses import dataclass, field, replace

import mne
import numpy as np
import pytest
import torch
from mne.minimum_norm import apply_inverse, make_inverse_operator
from numpy.testing import assert_allclose, assert_array_equal

from mne_deepsif import (
    Model,
    apply_deepsif,
    apply_deepsif_epochs,
    apply_deepsif_raw,
    goodness_of_fit,
    make_deepsif_operator,
)
from mne_deepsif import apply as apply_module
from mne_deepsif.head.leadfield import make_leadfield
from mne_deepsif.inverse.model import PreparedModel
from mne_deepsif.inverse.plan import Power
from mne_deepsif.inverse.windows import chunks, window_length


@dataclass(frozen=True, eq=False)
class Windowed(Model):
    """A minimum norm by windows that, as a network, sees each of them as a whole."""

    calls: list = field(default_factory=list)  # number of windows in each

    def prepare(self, gain, patterns=None):
        return WindowedKernel(self, gain)


class WindowedKernel(PreparedModel):
    def __init__(self, model, gain):
        super().__init__(model, gain)
        gram = gain @ gain.T
        gram += 1e-2 * np.trace(gram) / len(gram) * np.eye(len(gram))
        self.kernel = gain.T @ np.linalg.pinv(gram, rcond=1e-12, hermitian=True)

    def estimate_windows(self, windows, *, mixing=None):
        self.model.calls.append(len(windows))
        windows = windows - windows.mean(-1, keepdims=True)
        sources = (self.kernel if mixing is None else mixing @ self.kernel) @ windows
        return sources * np.square(windows).mean((1, 2), keepdims=True)


@pytest.fixture
def estimator(minimum_norm):
    return minimum_norm()


@pytest.fixture
def windowed(parcels):
    return Windowed(None, "backprojection", parcels, 125.0, 64)


@pytest.fixture(scope="module")
def truth(eeg_info, eeg_fwd, cov, parcels):
    """Simulate one active parcel: the evoked and the true estimate."""
    leadfield = make_leadfield(eeg_info, eeg_fwd, cov, parcels=parcels)
    activity = 1e-5 * np.hanning(100)
    sources = np.zeros((parcels.n_parcels, 100))
    sources[np.abs(leadfield.gain).max(0).argmax()] = activity
    data = leadfield.vertex_area @ sources
    stc = mne.SourceEstimate(data, leadfield.vertices, -0.1, 1 / 250, "fsaverage5")
    evoked = mne.apply_forward(eeg_fwd, stc, eeg_info)
    evoked = mne.EvokedArray(evoked.data, eeg_info, tmin=-0.1, nave=10)
    return evoked, stc


@pytest.fixture
def evoked(truth):
    return truth[0].copy()


# --------------------------------------------------------------- what comes out


def test_source_estimate(truth, eeg_fwd, cov, estimator):
    """All vertices, subject, times; a source is found where it was put."""
    evoked, true = truth
    stc = apply_deepsif(evoked, eeg_fwd, cov, estimator=estimator)
    assert isinstance(stc, mne.SourceEstimate)
    for vertices, s in zip(stc.vertices, eeg_fwd["src"]):
        assert_array_equal(vertices, s["vertno"])
    assert stc.subject == "fsaverage5"
    assert_allclose(stc.times, evoked.times)
    src = eeg_fwd["src"]
    rr = np.concatenate([s["rr"][s["vertno"]] for s in src])
    peaks = [rr[np.abs(this.data).max(1).argmax()] for this in (stc, true)]
    assert np.linalg.norm(peaks[0] - peaks[1]) < 0.015
    assert not stc.data[~_in_parcels(estimator.parcels, stc.vertices)].any()


def _in_parcels(parcels, vertices):
    lh, rh = parcels.by_hemi()
    return np.concatenate([lh[vertices[0]], rh[vertices[1]]]) >= 0


def test_amplitude_explains_the_data(truth, eeg_fwd, cov, estimator):
    """With hardly any regularisation, MNE's forward of the estimate is the data."""
    evoked, _ = truth
    exact = replace(estimator, regularization=1e-9)
    stc = apply_deepsif(evoked, eeg_fwd, cov, estimator=exact)
    fit = mne.apply_forward(eeg_fwd, stc, evoked.info).data
    data = evoked.data - evoked.data.mean(0)
    assert_allclose(fit - fit.mean(0), data, atol=1e-4 * np.abs(data).max())


def test_orientations(evoked, eeg_fwd, cov, estimator):
    """'normal' is the default; 'vector' is the same along the normals."""
    signed, normal, vector = (
        apply_deepsif(evoked, eeg_fwd, cov, estimator=estimator, pick_ori=pick_ori)
        for pick_ori in (None, "normal", "vector")
    )
    assert signed.data.min() < 0 < signed.data.max()
    assert_array_equal(signed.data, normal.data)
    assert isinstance(vector, mne.VectorSourceEstimate)
    assert_allclose(vector.magnitude().data, np.abs(signed.data), rtol=1e-5)
    fits = [mne.apply_forward(eeg_fwd, x, evoked.info).data for x in (signed, vector)]
    assert_allclose(fits[0], fits[1], atol=1e-5 * np.abs(fits[0]).max())


@pytest.mark.parametrize("pick_ori", (None, "vector"))
@pytest.mark.parametrize("hemi", ("lh", "rh", "both"))
def test_label(evoked, eeg_fwd, cov, estimator, hemi, pick_ori):
    """A label picks vertices and changes nothing else."""
    label = mne.Label(np.arange(0, 5000, 7), hemi="lh", subject="fsaverage5")
    if hemi != "lh":
        other = mne.Label(np.arange(0, 99), hemi="rh", subject="fsaverage5")
        label = other if hemi == "rh" else label + other
    kwargs = dict(estimator=estimator, pick_ori=pick_ori)
    whole = apply_deepsif(evoked, eeg_fwd, cov, **kwargs)
    stc = apply_deepsif(evoked, eeg_fwd, cov, label=label, **kwargs)
    assert_array_equal(stc.data, whole.in_label(label).data)


def test_residual(evoked, eeg_fwd, cov, estimator):
    """Residual plus MNE's forward of the estimate is the projected data."""
    evoked.info["bads"] = ["Cz"]
    before = evoked.data.copy()
    stc, residual = apply_deepsif(
        evoked, eeg_fwd, cov, estimator=estimator, return_residual=True
    )
    assert_array_equal(evoked.data, before)
    fit = mne.apply_forward(eeg_fwd, stc, evoked.info)
    names = [name for name in evoked.ch_names if name != "Cz"]
    assert residual.ch_names == names
    assert all(proj["active"] for proj in residual.info["projs"])
    fit, data = fit.pick(names).data, evoked.pick(names).data
    expected = data - data.mean(0) - (fit - fit.mean(0))
    assert_allclose(residual.data, expected, atol=1e-5 * np.abs(data).max())
    assert np.square(residual.data).sum() < 0.2 * np.square(data).sum()


def test_log_says_what_is_explained(evoked, eeg_fwd, cov, estimator):
    """Where the data are strongest, and over all; in pieces as in one."""
    rng = np.random.default_rng(0)
    evoked.data[:, :10] = 1e-7 * rng.standard_normal((32, 10))  # a baseline of noise
    _, residual = apply_deepsif(
        evoked, eeg_fwd, cov, estimator=estimator, return_residual=True
    )
    whiten = make_leadfield(evoked.info, eeg_fwd, cov, parcels=estimator.parcels).whiten
    power, rest = (np.square(whiten(x.data)).sum(0) for x in (evoked, residual))
    peak = power.argmax()
    expected = (
        f"explains {100 * (1 - rest[peak] / power[peak]):.0f} % of the data where they "
        f"are strongest, and {100 * (1 - rest.sum() / power.sum()):.0f} % over all"
    )
    raw = mne.io.RawArray(evoked.data, evoked.info)
    with mne.utils.catch_logging(verbose="info") as log:
        apply_deepsif(evoked, eeg_fwd, cov, estimator=estimator)
        apply_deepsif_raw(raw, eeg_fwd, cov, estimator=estimator)
    assert log.getvalue().count(expected) == 2


def test_power_adds_up():
    """The strongest sample is that of the piece with the largest power."""
    one, other = Power(3.0, 1.0, strongest=(2.0, 0.5)), Power(9.0, strongest=(4.0, 3.0))
    assert one + other == other + one == Power(12.0, 1.0, strongest=(4.0, 3.0))


def test_the_estimator_gets_whitened_data(evoked, eeg_fwd, cov, estimator):
    """It sees what make_leadfield makes, of a single trial, and the data's rate."""
    apply_deepsif(evoked, eeg_fwd, cov, estimator=estimator)
    ((data, gain, sfreq),) = estimator.given
    leadfield = make_leadfield(evoked.info, eeg_fwd, cov, parcels=estimator.parcels)
    assert_allclose(data, leadfield.whiten(evoked.data), atol=1e-9 * data.max())
    assert_allclose(gain, leadfield.gain_white, atol=1e-9 * gain.max())
    assert sfreq == 250.0


def test_channel_order_does_not_matter(evoked, eeg_fwd, cov, estimator):
    expected = apply_deepsif(evoked, eeg_fwd, cov, estimator=estimator)
    order = np.random.default_rng(0).permutation(evoked.ch_names)
    evoked.reorder_channels(list(order))
    stc = apply_deepsif(evoked, eeg_fwd, cov, estimator=estimator)
    assert_allclose(stc.data, expected.data, atol=1e-8 * np.abs(expected.data).max())


def test_bad_channels_are_not_used(evoked, eeg_fwd, cov, estimator):
    """Neither garbage nor NaN in a bad channel matters."""
    evoked.info["bads"] = ["Cz", "Pz"]
    expected = apply_deepsif(evoked, eeg_fwd, cov, estimator=estimator)
    evoked.data[evoked.ch_names.index("Cz")] = 1e-3
    evoked.data[evoked.ch_names.index("Pz")] = np.nan
    stc = apply_deepsif(evoked, eeg_fwd, cov, estimator=estimator)
    assert_array_equal(stc.data, expected.data)


# --------------------------------------------------------------- epochs, raw


def test_epochs(evoked, epochs, eeg_fwd, cov, estimator):
    """A list, one estimate per epoch, each as for an Evoked of one trial."""
    stcs = apply_deepsif_epochs(epochs, eeg_fwd, cov, estimator=estimator)
    assert isinstance(stcs, list) and len(stcs) == 3
    evoked.nave = 1
    expected = apply_deepsif(evoked, eeg_fwd, cov, estimator=estimator)
    for stc, factor in zip(stcs, (1, -2, 0.5)):
        assert_allclose(stc.data, factor * expected.data, rtol=1e-6, atol=1e-20)
        assert_allclose(stc.times, epochs.times)


def test_epochs_generator(epochs, eeg_fwd, cov, estimator):
    """The generator yields the same, with input checked at once."""
    kwargs = dict(estimator=estimator, return_generator=True, pick_ori="vector")
    stcs = apply_deepsif_epochs(epochs, eeg_fwd, cov, **kwargs)
    assert not isinstance(stcs, list)
    first = next(stcs)
    kwargs["return_generator"] = False
    expected = apply_deepsif_epochs(epochs, eeg_fwd, cov, **kwargs)
    assert_array_equal(first.data, expected[0].data)
    with pytest.raises(TypeError, match="fwd must be an instance of Forward"):
        apply_deepsif_epochs(epochs, None, cov, **kwargs | {"return_generator": True})


@pytest.mark.parametrize("n_times", (20, 128, 300))
def test_epochs_together_are_as_one_by_one(eeg_info, eeg_fwd, cov, windowed, n_times):
    """Batches change nothing, whatever number of windows an epoch has."""
    epochs = mne.EpochsArray(noise((37, 32, n_times)), eeg_info)
    stcs = apply_deepsif_epochs(epochs, eeg_fwd, cov, estimator=windowed)
    assert len(stcs) == 37
    n_windows = {20: 1, 128: 1, 300: 4}[n_times]
    assert len(windowed.calls) == -(-37 * n_windows // 32)
    for i in (0, 31, 36):
        evoked = mne.EvokedArray(epochs.get_data(copy=False)[i], eeg_info)
        expected = apply_deepsif(evoked, eeg_fwd, cov, estimator=windowed)
        peak = np.abs(expected.data).max()
        assert_allclose(stcs[i].data, expected.data, atol=1e-9 * peak)


def noise(shape, seed=0):
    """White noise of 1 µV."""
    return 1e-6 * np.random.default_rng(seed).standard_normal(shape)


def test_raw(evoked, raw, eeg_fwd, cov, estimator):
    """Indices are start and stop; times count from the first sample of raw."""
    evoked.nave = 1
    expected = apply_deepsif(evoked, eeg_fwd, cov, estimator=estimator)
    tol = dict(atol=1e-6 * np.abs(expected.data).max())  # single precision
    stc = apply_deepsif_raw(raw, eeg_fwd, cov, estimator=estimator)
    assert_allclose(stc.data, np.tile(expected.data, 3), **tol)
    part = apply_deepsif_raw(
        raw, eeg_fwd, cov, estimator=estimator, start=100, stop=200
    )
    assert_allclose(part.data, expected.data, **tol)
    assert_allclose(part.times, raw.times[100:200])


@pytest.mark.parametrize("sfreq", (100.0, 250.0, 256.0, 600.615, 1000.0))
@pytest.mark.parametrize("n_windows", (0.1, 1.0, 4.3, 16.5, 17.0, 40.7))
def test_raw_has_no_seams(
    eeg_info, eeg_fwd, cov, windowed, sfreq, n_windows, monkeypatch
):
    """Chunk by chunk is as all at once: whole windows, a rest, or less than one."""
    info = mne.create_info(eeg_info["ch_names"], sfreq, "eeg")
    info.set_montage("biosemi32")
    n_times = round(n_windows * 64 * sfreq / 125)
    raw = mne.io.RawArray(noise((32, n_times)), info).set_eeg_reference(projection=True)
    label = mne.Label(np.arange(0, 2000, 9), hemi="lh", subject="fsaverage5")
    kwargs = dict(estimator=windowed, label=label)
    evoked = mne.EvokedArray(raw.get_data(), raw.info)
    whole = apply_deepsif(evoked, eeg_fwd, cov, **kwargs).data
    monkeypatch.setattr(apply_module, "_GROUP", 8)
    monkeypatch.setattr(apply_module, "_PIECE", 0)
    windowed.calls.clear()
    stc = apply_deepsif_raw(raw, eeg_fwd, cov, **kwargs)
    assert (len(windowed.calls) > 1) == (n_windows > 5)
    assert stc.data.shape == whole.shape
    assert_allclose(stc.data, whole, atol=1e-6 * np.abs(whole).max())


def test_embedded_weights_have_no_seams(eeg_info, eeg_fwd, cov, monkeypatch):
    """Single precision is all that chunks, or epochs in batches, change."""
    data = noise((32, 700)).cumsum(1)
    raw = mne.io.RawArray(data, eeg_info).filter(1, None, method="iir")
    operator = make_deepsif_operator(eeg_info, eeg_fwd, cov)
    whole = apply_deepsif(mne.EvokedArray(raw.get_data(), eeg_info), operator).data
    monkeypatch.setattr(apply_module, "_GROUP", 3)
    monkeypatch.setattr(apply_module, "_PIECE", 0)
    peak = np.abs(whole).max()
    assert_allclose(apply_deepsif_raw(raw, operator).data, whole, atol=1e-4 * peak)
    epochs = mne.make_fixed_length_epochs(raw, 0.4, preload=True)
    stcs = apply_deepsif_epochs(epochs, operator)
    for i in (0, 3, 6):
        expected = apply_deepsif(epochs[i].average(), operator).data
        peak = np.abs(expected).max()
        assert_allclose(stcs[i].data, expected, atol=1e-4 * peak)


def test_copy_of_a_used_operator(eeg_info, eeg_fwd, cov):
    """Whatever it has prepared meanwhile, with sparse sums or dense ones."""
    evoked = mne.EvokedArray(noise((32, 200)), eeg_info)
    operator = make_deepsif_operator(eeg_info, eeg_fwd, cov)
    expected = apply_deepsif(evoked, operator).data
    out = apply_deepsif(evoked, copy.deepcopy(operator)).data
    assert_allclose(out, expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("kind", ["evoked", "epochs", "raw"])
def test_info_that_is_wrong_about_a_filter(kind, eeg_info, eeg_fwd, cov):
    """Data are what counts: simulated ones have the info of some recording."""
    data = noise((32, 700))
    told = eeg_info.copy()
    with told._unlock():
        told["lowpass"] = 20.0
    operator = make_deepsif_operator(eeg_info, eeg_fwd, cov)

    def estimate(data, info):
        if kind == "evoked":
            return apply_deepsif(mne.EvokedArray(data, info), operator).data
        raw = mne.io.RawArray(data, info)
        if kind == "raw":
            return apply_deepsif_raw(raw, operator).data
        epochs = mne.make_fixed_length_epochs(raw, 0.7, preload=True)
        return np.array([stc.data for stc in apply_deepsif_epochs(epochs, operator)])

    assert_array_equal(estimate(data, told), estimate(data, eeg_info))
    data = mne.filter.filter_data(data, eeg_info["sfreq"], None, 20.0)
    expected = estimate(data, told)
    difference = estimate(data, eeg_info) - expected
    assert np.linalg.norm(difference) < 0.1 * np.linalg.norm(expected)


@pytest.mark.parametrize("n_threads", [1, 3])
def test_threads_share_the_pieces(eeg_info, eeg_fwd, cov, monkeypatch, n_threads):
    """Pieces come back in order, and so does an error; warnings' filters stay."""
    raw = mne.io.RawArray(noise((32, 2500)), eeg_info)
    label = mne.Label(np.arange(0, 2000, 9), hemi="lh", subject="fsaverage5")
    operator = make_deepsif_operator(eeg_info, eeg_fwd, cov)
    whole = mne.EvokedArray(raw.get_data(), eeg_info)
    expected = apply_deepsif(whole, operator, label=label).data
    monkeypatch.setattr(apply_module, "_GROUP", 3)
    monkeypatch.setattr(apply_module, "_PIECE", 0)
    filters, before = list(warnings.filters), torch.get_num_threads()
    try:
        torch.set_num_threads(n_threads)
        data = apply_deepsif_raw(raw, operator, label=label).data
        assert torch.get_num_threads() == n_threads
        raw._data[:, 2000] = np.nan
        with pytest.raises(ValueError, match="NaN"):
            apply_deepsif_raw(raw, operator, label=label)
    finally:
        torch.set_num_threads(before)
    assert_allclose(data, expected, atol=1e-4 * np.abs(expected).max())
    assert warnings.filters == filters


def test_raw_from_a_file(raw, eeg_fwd, cov, windowed, tmp_path):
    """It need not be loaded; some samples can be asked for."""
    raw.save(tmp_path / "x_raw.fif", fmt="double")
    lazy = mne.io.read_raw_fif(tmp_path / "x_raw.fif")
    args = eeg_fwd, cov
    for kwargs in (dict(), dict(start=17, stop=290), dict(start=17, decim=3)):
        kwargs["estimator"] = windowed
        expected = apply_deepsif_raw(raw, *args, **kwargs)
        stc = apply_deepsif_raw(lazy, *args, **kwargs)
        assert_allclose(stc.data, expected.data, atol=1e-6 * expected.data.max())
    assert not lazy.preload


@pytest.mark.parametrize("decim", (2, 7, 1000))
def test_raw_decim(eeg_info, eeg_fwd, cov, windowed, decim):
    """Every so many-th sample is the same as without decim, across chunks too."""
    raw = mne.io.RawArray(noise((32, 7000)), eeg_info)
    label = mne.Label(np.arange(9), hemi="rh", subject="fsaverage5")
    kwargs = dict(estimator=windowed, label=label, start=11)
    full = apply_deepsif_raw(raw, eeg_fwd, cov, **kwargs)
    stc = apply_deepsif_raw(raw, eeg_fwd, cov, decim=decim, **kwargs)
    assert_array_equal(stc.data, full.data[:, ::decim])
    assert_allclose(stc.times, full.times[::decim])
    with pytest.raises(ValueError, match="decim must be 1 or more, got 0"):
        apply_deepsif_raw(raw, eeg_fwd, cov, decim=0, **kwargs)


def test_raw_band_is_measured_in_good_spans(eeg_info, eeg_fwd, cov, windowed):
    """Also in one that is shorter than a window, next to one that is not finite."""
    data = noise((32, 400))
    data[:, 300:] = np.nan
    raw = mne.io.RawArray(data, eeg_info)
    bad = mne.Annotations([0.1, 300 / 250], [0.9, 100 / 250], "bad")
    raw.set_annotations(bad)
    stc = apply_deepsif_raw(raw, eeg_fwd, cov, estimator=windowed)
    assert np.isfinite(stc.data[:, 260:290]).all()
    assert np.isnan(stc.data[:, 310:]).all()


def test_raw_annotations_outside_of_the_parcels(eeg_info, eeg_fwd, cov, windowed):
    """Bad spans are NaN there too, the rest is 0."""
    raw = mne.io.RawArray(noise((32, 500)), eeg_info)
    raw.set_annotations(mne.Annotations([1.0], [0.4], ["BAD_blink"]))
    vertices = windowed.parcels.by_hemi()[0][eeg_fwd["src"][0]["vertno"]] < 0
    vertices = eeg_fwd["src"][0]["vertno"][vertices]
    label = mne.Label(vertices, hemi="lh", subject="fsaverage5")
    stc = apply_deepsif_raw(raw, eeg_fwd, cov, estimator=windowed, label=label)
    bad = np.isnan(stc.data)
    sfreq = eeg_info["sfreq"]
    assert bad.any() and bad[:, round(1.1 * sfreq)].all() and not stc.data[~bad].any()


@pytest.mark.parametrize("first_samp", (0, 1234))
def test_raw_annotations(eeg_info, eeg_fwd, cov, windowed, first_samp):
    """What is annotated as bad is NaN, and does not matter to what lies beside it."""
    data = noise((32, 1500))
    raw = mne.io.RawArray(data, eeg_info, first_samp=first_samp)
    onset = raw.first_time * (raw.annotations.orig_time is not None)
    raw.set_annotations(
        mne.Annotations(
            [onset + 2.0, onset + 3.0, onset + 4.0],
            [0.4, 0.0, 1.0],
            ["BAD_blink", "EDGE boundary", "speech"],
        )
    )
    label = mne.Label(np.arange(0, 2000, 9), hemi="lh", subject="fsaverage5")
    kwargs = dict(estimator=windowed, label=label)
    stc = apply_deepsif_raw(raw, eeg_fwd, cov, **kwargs).data
    assert np.isnan(stc[:, 500:600]).all()
    for start, stop in ((0, 500), (600, 750), (750, 1500)):
        evoked = mne.EvokedArray(data[:, start:stop], eeg_info)
        expected = apply_deepsif(evoked, eeg_fwd, cov, **kwargs).data
        assert_allclose(stc[:, start:stop], expected, atol=1e-6 * expected.max())
    raw[:, 500:600] = 1e-3
    again = apply_deepsif_raw(raw, eeg_fwd, cov, **kwargs).data
    assert_array_equal(again, stc)
    evoked = mne.EvokedArray(raw.get_data(), eeg_info)
    expected = apply_deepsif(evoked, eeg_fwd, cov, **kwargs).data
    kwargs["reject_by_annotation"] = False
    stc = apply_deepsif_raw(raw, eeg_fwd, cov, **kwargs).data
    assert_allclose(stc, expected, atol=1e-6 * expected.max())
    kwargs["reject_by_annotation"] = True
    with pytest.raises(ValueError, match="annotated as bad.*reject_by_annotation"):
        apply_deepsif_raw(raw, eeg_fwd, cov, start=510, stop=590, **kwargs)


def test_long_raw_is_kept_in_parcels(raw, eeg_fwd, cov, windowed, monkeypatch):
    """A large result is multiplied out when it is used, as in MNE."""
    expected = apply_deepsif_raw(raw, eeg_fwd, cov, estimator=windowed)
    monkeypatch.setattr(apply_module, "_DENSE", 0)
    stc = apply_deepsif_raw(raw, eeg_fwd, cov, estimator=windowed)
    assert stc._data is None and stc.shape == expected.shape
    part = stc.copy().crop(0.5, 0.6)
    assert part._data is None
    tol = dict(atol=1e-6 * np.abs(expected.data).max())
    assert_allclose(part.data, expected.copy().crop(0.5, 0.6).data, **tol)
    assert_allclose(stc.data, expected.data, **tol)


def test_raw_that_cannot_fit(raw, eeg_fwd, cov, windowed, monkeypatch):
    """Nothing is computed for a result that no memory holds."""
    monkeypatch.setattr(apply_module.os, "sysconf", lambda name: 100)
    match = r"200 time courses of 300 samples needs 0.0 GB.*Use label, decim, or"
    with pytest.raises(MemoryError, match=match):
        apply_deepsif_raw(raw, eeg_fwd, cov, estimator=windowed)
    assert not windowed.calls
    monkeypatch.delattr(apply_module.os, "sysconf")  # as on Windows
    apply_deepsif_raw(raw, eeg_fwd, cov, estimator=windowed)


# --------------------------------------------------------------- units


@pytest.fixture
def microvolts(eeg_info, windowed, monkeypatch):
    """Return a recording in µV of several pieces, and its pieces."""
    monkeypatch.setattr(apply_module, "_GROUP", 8)
    monkeypatch.setattr(apply_module, "_PIECE", 0)
    raw = mne.io.RawArray(1e6 * noise((32, 5000)), eeg_info)
    length = window_length(windowed.n_times, windowed.sfreq, eeg_info["sfreq"])
    pieces = list(chunks(5000, length, 8))
    assert len(pieces) > 3
    return raw, pieces


class StoppedError(Exception):
    """What ends an estimate of hours."""


def stop_at(monkeypatch, n_pieces):
    """Let the estimate of this and later pieces fail; return how many were begun."""
    begun, estimate = [], apply_module.estimate_sources

    def fail(*args, **kwargs):
        begun.append(1)
        if len(begun) >= n_pieces:
            raise StoppedError
        return estimate(*args, **kwargs)

    monkeypatch.setattr(apply_module, "estimate_sources", fail)
    return begun


UNITS = "MNE wants V: multiply"


def test_units_are_checked_before_the_work(
    microvolts, eeg_fwd, cov, windowed, monkeypatch
):
    """On the first piece of a long recording: the rest need not be awaited."""
    raw, _ = microvolts
    begun = stop_at(monkeypatch, 1)
    with pytest.raises(StoppedError), pytest.warns(RuntimeWarning, match=UNITS):
        apply_deepsif_raw(raw, eeg_fwd, cov, estimator=windowed)
    assert len(begun) == 1


def test_units_after_a_flat_beginning(microvolts, eeg_fwd, cov, windowed, monkeypatch):
    """A flat piece says nothing: the next one does, before it is estimated."""
    raw, pieces = microvolts
    raw[:, : pieces[0][1]] = 0.0
    stop_at(monkeypatch, 2)
    with pytest.raises(StoppedError), pytest.warns(RuntimeWarning, match=UNITS):
        apply_deepsif_raw(raw, eeg_fwd, cov, estimator=windowed)
    stop_at(monkeypatch, 1)
    with pytest.raises(StoppedError), warnings.catch_warnings():
        warnings.simplefilter("error")
        apply_deepsif_raw(raw, eeg_fwd, cov, estimator=windowed)


@pytest.mark.parametrize("flat", (False, True))
def test_units_are_said_once(microvolts, eeg_fwd, cov, windowed, flat):
    """However many pieces there are; right units are not remarked upon."""
    raw, pieces = microvolts
    if flat:
        raw[:, : pieces[0][1]] = 0.0
    windowed.calls.clear()
    with pytest.warns(RuntimeWarning, match=UNITS) as said:
        apply_deepsif_raw(raw, eeg_fwd, cov, estimator=windowed)
    assert len(said) == 1 and len(windowed.calls) == len(pieces)
    raw._data *= 1e-6
    apply_deepsif_raw(raw, eeg_fwd, cov, estimator=windowed)


# --------------------------------------------------------------- slow activity


def test_slow_activity(eeg_info, eeg_fwd, cov, windowed):
    """As published, what does not change within a window is left out: a warning."""
    names = eeg_info["ch_names"]
    windowed = replace(windowed, encoder="sensors", ch_names=names)
    topography = noise((32, 1))
    times = np.arange(1000) / 250
    for freq in (0.0, 0.3, 10.0):
        data = topography * np.cos(2 * np.pi * freq * times)
        evoked = mne.EvokedArray(data, eeg_info)
        raw = mne.io.RawArray(data, eeg_info)
        epochs = mne.EpochsArray(data[np.newaxis], eeg_info)
        for door, inst in (
            (apply_deepsif, evoked),
            (apply_deepsif_raw, raw),
            (apply_deepsif_epochs, epochs),
        ):
            if freq < 1:
                match = "% of the whitened data's power does not change within"
                with pytest.warns(RuntimeWarning, match=match):
                    stc = door(inst, eeg_fwd, cov, estimator=windowed)
            else:
                stc = door(inst, eeg_fwd, cov, estimator=windowed)
            if freq == 0 and door is apply_deepsif:
                assert_allclose(stc.data, 0, atol=1e-30)


def test_single_sample(evoked, eeg_fwd, cov, windowed):
    """There is nothing that changes: as published, zero, with a warning."""
    windowed = replace(windowed, encoder="sensors", ch_names=evoked.ch_names)
    evoked.crop(0.1, 0.1)
    with pytest.warns(RuntimeWarning, match="100 % .* few samples"):
        stc = apply_deepsif(evoked, eeg_fwd, cov, estimator=windowed)
    assert stc.shape[1] == 1
    assert_allclose(stc.data, 0, atol=1e-30)


def test_generic_weights_see_slow_activity(truth, eeg_fwd, cov):
    """An offset and a single sample are explained as well as a wave."""
    evoked, _ = truth
    peak = evoked.copy().crop(0.1, 0.1)
    offset = evoked.copy()
    offset.data[:] = peak.data
    wave = evoked.copy()
    wave.data = peak.data * np.cos(2 * np.pi * 5 * evoked.times)
    maps = []
    for inst in (peak, offset, wave):
        stc, residual = apply_deepsif(inst, eeg_fwd, cov, return_residual=True)
        rest = np.square(residual.data).sum() / np.square(inst.data).sum()
        assert rest < 0.3
        maps.append(np.sqrt(np.square(stc.data).sum(1)))
    for other in maps[1:]:
        assert np.corrcoef(maps[0], other)[0, 1] > 0.99


# --------------------------------------------------------------- fit


def test_goodness_of_fit(evoked, eeg_fwd, cov, estimator):
    """It is 1 minus the whitened power of the residual over that of the data."""
    evoked.data += noise(evoked.data.shape)
    evoked.info["bads"] = ["Cz"]
    stc, residual = apply_deepsif(
        evoked, eeg_fwd, cov, estimator=estimator, return_residual=True
    )
    share = goodness_of_fit(evoked, residual, cov)
    evoked.apply_proj()
    fit = mne.apply_forward(eeg_fwd, stc, evoked.info)
    white = [mne.whiten_evoked(x, cov) for x in (evoked, residual, fit)]
    data, rest, fit = (np.square(x.pick(residual.ch_names).data) for x in white)
    assert_allclose(share, 1 - rest.sum(0) / data.sum(0), atol=1e-6)
    assert share.max() > 0.95
    assert_allclose(goodness_of_fit(evoked, evoked, cov), 0, atol=1e-12)
    evoked.data[:, 3] = 0
    assert np.flatnonzero(np.isnan(goodness_of_fit(evoked, residual, cov))) == [3]
    with pytest.raises(TypeError, match="residual must be an instance of Evoked"):
        goodness_of_fit(evoked, stc, cov)
    with pytest.raises(ValueError, match="1 of its channels .* 100 times instead of 1"):
        goodness_of_fit(evoked.pick(["Fz"]).crop(0, 0), residual.pick(["Pz"]), cov)


# --------------------------------------------------------------- the sensor encoder


@pytest.fixture
def sensor_estimator(minimum_norm, evoked):
    names = evoked.ch_names[25:5:-1]
    return minimum_norm("sensors", ch_names=names)


def test_sensor_encoder(evoked, eeg_fwd, sensor_estimator):
    """Its channels in its order, average-referenced over them, not whitened."""
    names = sensor_estimator.ch_names
    apply_deepsif(evoked, eeg_fwd, estimator=sensor_estimator)  # and no warning
    ((data, gain, _),) = sensor_estimator.given
    expected = evoked.copy().pick(names).reorder_channels(names).data
    assert_allclose(data, expected - expected.mean(0), atol=1e-18)
    assert len(gain) == len(names)
    assert_allclose(gain.mean(0), 0, atol=1e-9 * np.abs(gain).max())


def test_sensor_encoder_residual(evoked, eeg_fwd, sensor_estimator):
    """The residual's rows belong to its channel names."""
    _, residual = apply_deepsif(
        evoked, eeg_fwd, estimator=sensor_estimator, return_residual=True
    )
    ((data, gain, _),) = sensor_estimator.given
    fit = gain @ sensor_estimator.estimate(data, gain, 250.0)
    assert sorted(residual.ch_names) == sorted(sensor_estimator.ch_names)
    rows = [residual.ch_names.index(name) for name in sensor_estimator.ch_names]
    assert_allclose(residual.data[rows], data - fit, atol=1e-18)


@pytest.mark.parametrize("how", ("missing", "bad", "not in the forward"))
def test_sensor_encoder_without_its_channels(evoked, eeg_fwd, sensor_estimator, how):
    name = sensor_estimator.ch_names[3]
    if how == "missing":
        evoked.drop_channels([name])
    elif how == "bad":
        evoked.info["bads"] = [name]
    else:
        eeg_fwd = mne.pick_channels_forward(eeg_fwd, exclude=[name])
    match = rf"1 of 20 channels .*\['{name}'\].*interpolate_to.*fit.*'generic'"
    with pytest.raises(ValueError, match=match):
        apply_deepsif(evoked, eeg_fwd, estimator=sensor_estimator)


# --------------------------------------------------------------- bad input


def test_wrong_instances(evoked, epochs, raw, eeg_fwd, cov, estimator):
    kwargs = dict(estimator=estimator)
    with pytest.raises(TypeError, match="evoked must be an instance of Evoked"):
        apply_deepsif(epochs, eeg_fwd, cov, **kwargs)
    with pytest.raises(TypeError, match="epochs must be an instance of BaseEpochs"):
        apply_deepsif_epochs(raw, eeg_fwd, cov, **kwargs)
    with pytest.raises(TypeError, match="raw must be an instance of BaseRaw"):
        apply_deepsif_raw(evoked, eeg_fwd, cov, **kwargs)
    with pytest.raises(TypeError, match="label must be an instance of"):
        apply_deepsif(evoked, eeg_fwd, cov, label="V1", **kwargs)
    with pytest.raises(ValueError, match="Invalid value for the 'pick_ori'"):
        apply_deepsif(evoked, eeg_fwd, cov, pick_ori="max-power", **kwargs)


@pytest.mark.parametrize("value", (np.nan, np.inf, -np.inf))
def test_not_finite(evoked, epochs, raw, eeg_fwd, cov, estimator, value):
    for inst in (evoked, epochs, raw):
        inst.info["bads"] = []
    evoked.data[3, 50] = value
    epochs.get_data(copy=False)[2, 3, 50] = value
    raw[3, 50] = value
    match = rf"NaN or infinite values in 1 channel.*\['{evoked.ch_names[3]}'\]"
    kwargs = dict(estimator=estimator)
    with pytest.raises(ValueError, match=match):
        apply_deepsif(evoked, eeg_fwd, cov, **kwargs)
    with pytest.raises(ValueError, match=match):
        apply_deepsif_epochs(epochs, eeg_fwd, cov, **kwargs)
    with pytest.raises(ValueError, match=match):
        apply_deepsif_raw(raw, eeg_fwd, cov, **kwargs)


def test_empty_time_range(evoked, epochs, raw, eeg_fwd, cov, estimator):
    kwargs = dict(estimator=estimator)
    with pytest.raises(ValueError, match="start=200, stop=200 hold no sample"):
        apply_deepsif_raw(raw, eeg_fwd, cov, start=200, stop=200, **kwargs)
    with pytest.raises(ValueError, match="start=300.* which has 300"):
        apply_deepsif_raw(raw, eeg_fwd, cov, start=300, **kwargs)
    with pytest.raises(TypeError, match="start must be an instance of int"):
        apply_deepsif_raw(raw, eeg_fwd, cov, start=0.5, **kwargs)
    with pytest.raises(ValueError, match="epochs is empty"):
        apply_deepsif_epochs(epochs[:0], eeg_fwd, cov, **kwargs)
    evoked.data = evoked.data[:, :0]
    with pytest.raises(ValueError, match="The data have no samples"):
        apply_deepsif(evoked, eeg_fwd, cov, **kwargs)


def test_all_bad(evoked, eeg_fwd, cov, estimator):
    evoked.info["bads"] = evoked.ch_names
    with pytest.raises(ValueError, match="All 32 channels .* marked bad"):
        apply_deepsif(evoked, eeg_fwd, cov, estimator=estimator)


def test_no_reference(evoked, eeg_fwd, cov, estimator):
    evoked.del_proj()
    with pytest.raises(ValueError, match="EEG average reference"):
        apply_deepsif(evoked, eeg_fwd, cov, estimator=estimator)


def test_applied_references(evoked, epochs, raw, eeg_fwd, cov, estimator):
    """An applied average reference is as good; another one is an error."""
    kwargs = dict(estimator=estimator)
    doors = {
        apply_deepsif: evoked,
        apply_deepsif_epochs: epochs,
        apply_deepsif_raw: raw,
    }
    for apply, inst in doors.items():
        expected = apply(inst, eeg_fwd, cov, **kwargs)
        inst.del_proj()
        average = inst.copy().set_eeg_reference("average")
        stc = apply(average, eeg_fwd, cov, **kwargs)
        if apply is apply_deepsif_epochs:
            expected, stc = expected[0], stc[0]
        assert_allclose(stc.data, expected.data, atol=1e-8 * expected.data.max())
        with pytest.raises(ValueError, match="Custom EEG reference is not allowed"):
            apply(inst.set_eeg_reference(["Cz"]), eeg_fwd, cov, **kwargs)


def test_volume_source_space(evoked, eeg_fwd, cov, estimator):
    sphere = mne.make_sphere_model((0.0, 0.0, 0.04), 0.125, evoked.info)
    src = mne.setup_volume_source_space(pos=60.0, sphere=(0.0, 0.0, 0.04, 0.09))
    fwd = mne.make_forward_solution(evoked.info, None, src, sphere, mindist=0.0)
    with pytest.raises(ValueError, match="surface source space of both hemispheres"):
        apply_deepsif(evoked, fwd, cov, estimator=estimator)


def test_label_elsewhere(evoked, eeg_fwd, cov, estimator):
    kwargs = dict(estimator=estimator)
    label = mne.Label([1, 2], hemi="lh", subject="bert")
    with pytest.raises(ValueError, match="label is of subject 'bert', fwd of subject"):
        apply_deepsif(evoked, eeg_fwd, cov, label=label, **kwargs)
    label = mne.Label([9999], hemi="lh", subject="fsaverage5")
    with pytest.raises(ValueError, match="No vertices match the label"):
        apply_deepsif(evoked, eeg_fwd, cov, label=label, **kwargs)


# --------------------------------------------------------------- the real recording


def test_real_recording(
    sample_dir,
    sample_evoked,
    sample_fwd,
    sample_cov,
    sample_leadfield,
    estimator,
    parcels,
):
    """On MEG and EEG our minimum norm of parcels resembles MNE's of vertices."""
    estimator = replace(estimator, regularization=1 / 9.0)
    stc = apply_deepsif(
        sample_evoked,
        sample_fwd,
        sample_cov,
        estimator=estimator,
        subjects_dir=sample_dir,
    )
    inverse = make_inverse_operator(
        sample_evoked.info, sample_fwd, sample_cov, fixed=True, depth=None
    )
    expected = apply_inverse(sample_evoked, inverse, 1 / 9.0, "MNE")
    assert stc.subject == expected.subject == "sample_fs5"
    assert_allclose(stc.times, expected.times)
    for mine, other in zip(stc.vertices, expected.vertices):
        assert_array_equal(mine, other)
    means = [_parcel_sums(x, parcels) for x in (stc, expected)]
    assert np.corrcoef(means)[0, 1] > 0.6
    fits = [
        mne.apply_forward(sample_fwd, x, sample_evoked.info) for x in (stc, expected)
    ]
    leadfield = sample_leadfield
    fits = [leadfield.whiten(fit.pick(leadfield.ch_names).data) for fit in fits]
    assert np.corrcoef(fits[0].ravel(), fits[1].ravel())[0, 1] > 0.9


def _parcel_sums(stc, parcels):
    """Sum over each parcel's vertices (numbered as the template's) at 100 ms."""
    lh, rh = parcels.by_hemi()
    parcel = np.concatenate([lh[stc.vertices[0]], rh[stc.vertices[1]]])
    data = stc.data[:, stc.time_as_index(0.1)[0]]
    return np.bincount(parcel[parcel >= 0], data[parcel >= 0])

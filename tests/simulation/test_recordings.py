"""Simulated recordings, against MNE's own forward model and the ratios asked for."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import subprocess
import sys

import mne
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mne_deepsif import make_leadfield, simulate_evoked, simulate_raw, stc_metrics
from mne_deepsif.simulation.jansen_rit import simulate_jansen_rit
from mne_deepsif.simulation.waveforms import SFREQ

QUIET = dict(background_snr=None, snr=200.0)
SEEDS = [20, 150]


@pytest.fixture(scope="module")
def options(parcels):
    return dict(parcels=parcels, seeds=SEEDS, random_state=0)


@pytest.fixture(scope="module")
def simulated(eeg_fwd, eeg_info, options):
    return simulate_evoked(eeg_fwd, eeg_info, **options)


@pytest.fixture(scope="module")
def simulated_raw(eeg_fwd, eeg_info, options):
    options = options | dict(n_spikes=4, duration=8.0)
    return simulate_raw(eeg_fwd, eeg_info, **options)


def _whiten(evoked, fwd, cov, parcels):
    return make_leadfield(evoked.info, fwd, cov, parcels=parcels).whiten(evoked.data)


# --------------------------------------------------------------- the forward model


def test_noise_free_evoked_is_applied_forward(eeg_fwd, eeg_info, options):
    """With noise of almost nothing, data are what MNE's forward makes of the stc."""
    evoked, stc, _ = simulate_evoked(eeg_fwd, eeg_info, **options, snr=200.0)
    expected = mne.apply_forward(eeg_fwd, stc, evoked.info)
    assert evoked.ch_names == expected.ch_names
    assert_allclose(evoked.times, expected.times, atol=1e-9)
    assert_allclose(evoked.data, expected.data, atol=1e-8 * expected.data.max())
    assert evoked.info["sfreq"] == 250.0 and evoked.times[0] == -0.5
    assert stc.shape == (eeg_fwd["nsource"], 250)


def test_free_and_fixed_forwards_give_the_same(eeg_fwd, eeg_info, options, simulated):
    fixed = mne.convert_forward_solution(eeg_fwd, surf_ori=True, force_fixed=True)
    evoked, stc, _ = simulate_evoked(fixed, eeg_info, **options)
    assert_allclose(evoked.data, simulated[0].data, atol=1e-10)
    assert_allclose(stc.data, simulated[1].data, atol=1e-18)


def test_raw_is_applied_forward(eeg_fwd, eeg_info, options):
    options = options | dict(n_spikes=2, duration=4.0, snr=200.0)
    raw, stc, truth = simulate_raw(eeg_fwd, eeg_info, **options)
    expected = mne.apply_forward_raw(eeg_fwd, stc, raw.info)
    data = raw.get_data()
    assert data.shape == (32, 1000)
    assert_allclose(data, expected.get_data(), atol=1e-7 * data.max())
    assert_array_equal(truth.stc.times, stc.times)


@pytest.mark.parametrize("kind", ("eeg", "mag"))
def test_subject(sample_fwd, sample_evoked, sample_cov, sample_dir, parcels, kind):
    """On a real subject, with a recording's covariance: bads and SSP are dropped."""
    info = mne.pick_info(
        sample_evoked.info, mne.pick_types(sample_evoked.info, **_kind(kind))
    )
    evoked, stc, truth = simulate_evoked(
        sample_fwd,
        info,
        sample_cov,
        nave=20,
        snr=None,
        parcels=parcels,
        duration=0.5,
        subjects_dir=sample_dir,
        random_state=1,
    )
    assert evoked.nave == 20 and evoked.info["bads"] == []
    assert info["lowpass"] == 40 and evoked.info["lowpass"] == info["sfreq"] / 2
    assert stc.subject == truth.stc.subject == truth.labels[0].subject
    fwd = mne.pick_channels_forward(sample_fwd, evoked.ch_names)
    clean = mne.apply_forward(fwd, stc, evoked.info)
    picks = [sample_cov["names"].index(name) for name in evoked.ch_names]
    expected = np.sqrt(np.diag(sample_cov["data"])[picks] / 20)
    measured = (evoked.data - clean.data).std(1)
    assert_allclose(np.median(measured / expected), 1, rtol=0.1)
    assert_allclose(truth.noise_cov["data"], sample_cov["data"])


def _kind(kind):
    return dict(eeg=True) if kind == "eeg" else dict(meg=kind)


# --------------------------------------------------------------- sources


def test_truth(eeg_fwd, parcels, simulated):
    """Patches, labels, extents, peaks and amplitude say the same as the estimate."""
    _, stc, truth = simulated
    assert [patch[0] for patch in truth.patches] == SEEDS
    assert_allclose(truth.areas, [parcels.areas[p].sum() for p in truth.patches])
    assert (truth.areas > 5e-4).all() and (truth.areas < 2e-2).all()  # 5 to 200 cm²
    for label, patch, seed in zip(truth.labels, truth.patches, SEEDS):
        hemi = parcels.hemi[seed]
        assert label.hemi == ("lh", "rh")[hemi]
        assert_array_equal(
            np.unique(parcels.by_hemi()[hemi][label.vertices]), np.sort(patch)
        )
        inside = truth.stc.in_label(label)
        assert len(inside.vertices[hemi]) == len(label.vertices)
    assert truth.peak_times[0][0] == 0 and abs(truth.peak_times[1][0]) <= 0.1
    # A m per m² at the seed times the area that a vertex stands for
    number = np.flatnonzero(truth.stc.vertices[parcels.hemi[SEEDS[0]]] >= 0)
    assert number.size
    total = np.abs(truth.stc.data).sum(0).max()
    assert 0.2 * 5e-4 * truth.areas.min() < total < 5e-4 * truth.areas.sum()
    assert stc_metrics.localization_error(truth.stc, truth.stc, eeg_fwd["src"]) == 0


def test_amplitude_is_physiological(eeg_fwd, eeg_info, options):
    """Moment of the seed's parcel: 0.5 nA m per mm² times its area."""
    evoked, stc, truth = simulate_evoked(eeg_fwd, eeg_info, **options, **QUIET)
    waves = np.abs(truth.waveforms).max(1)
    assert_allclose(waves, 5e-4, rtol=0.02)
    at = int(np.argmin(np.abs(truth.stc.times)))
    assert_allclose(truth.waveforms[0, at], 5e-4, rtol=0.02)
    parcels, seed = options["parcels"], SEEDS[0]
    vertices = np.flatnonzero(parcels.by_hemi()[parcels.hemi[seed]] == seed)
    label = mne.Label(vertices, hemi=("lh", "rh")[parcels.hemi[seed]])
    moment = stc.in_label(label).data.sum(0)
    assert_allclose(moment, truth.waveforms[0] * parcels.areas[seed], rtol=1e-6)
    assert 5e-6 < np.abs(evoked.data).max() < 5e-4  # V


def test_peaks_and_waveforms_as_given(eeg_fwd, eeg_info, options):
    given = dict(peak_times=[-0.2, 0.3], duration=1.2, **QUIET)
    _, _, truth = simulate_evoked(eeg_fwd, eeg_info, **options, **given)
    assert_allclose(np.concatenate(truth.peak_times), [-0.2, 0.3], atol=0.002)
    at = np.abs(truth.waveforms).argmax(1) / 250 - 0.6
    assert_allclose(at, [-0.2, 0.3], atol=0.005)
    waves = np.sin(np.linspace(0, 20, 2 * 250)).reshape(2, 250)
    options = options | dict(waveforms=3 * waves, amplitude=-1e-3)
    _, stc, truth = simulate_evoked(eeg_fwd, eeg_info, **options, **QUIET)
    expected = -1e-3 * waves / np.abs(waves).max(1, keepdims=True)
    assert_allclose(truth.waveforms, expected)


@pytest.mark.parametrize("kind", ("evoked", "bursts"))
def test_other_waveforms(eeg_fwd, eeg_info, options, kind):
    options = options | dict(waveforms=kind, duration=1.5)
    _, _, truth = simulate_evoked(eeg_fwd, eeg_info, **options, **QUIET)
    assert_allclose(np.abs(truth.waveforms).max(1), 5e-4, rtol=0.02)
    edges = np.abs(truth.waveforms[:, [0, -1]])
    assert (edges < 5e-5).all()


def test_correlated_sources(eeg_fwd, eeg_info, options):
    """The same waveform, later by 10 to 50 ms."""
    same = options | dict(correlated=True, duration=1.2)
    _, _, truth = simulate_evoked(eeg_fwd, eeg_info, **same, **QUIET)
    lag = truth.peak_times[1][0] - truth.peak_times[0][0]
    assert 0.008 <= lag <= 0.052
    first, second = truth.waveforms
    shift = int(round(lag * 250))
    assert_allclose(second[shift:], first[:-shift], atol=1e-9)
    same = options | dict(correlated=True, n_spikes=3, duration=5.0)
    _, _, truth = simulate_raw(eeg_fwd, eeg_info, **same, **QUIET)
    lags = truth.peak_times[1] - truth.peak_times[0]
    assert_allclose(lags, lags[0], atol=0.005)
    assert 0.006 <= lags[0] <= 0.054


def test_spikes_of_a_raw_recording(simulated_raw, eeg_fwd):
    """Annotations mark the peaks of each patch, a second apart."""
    raw, stc, truth = simulated_raw
    for i, times in enumerate(truth.peak_times):
        marked = raw.annotations.description == f"spike/{i}"
        assert_allclose(np.sort(raw.annotations.onset[marked]), times, atol=1e-6)
        assert len(times) == 4 and np.diff(times).min() > 0.99
        samples = np.rint(times * 250).astype(int)
        assert_allclose(truth.waveforms[i, samples], 5e-4, rtol=0.5)
        assert truth.waveforms[i].max() < 1e-3
    part = stc.copy().crop(1.0, 2.0)  # before its values are computed
    assert part.shape == (eeg_fwd["nsource"], 251)


# --------------------------------------------------------------- ratios


def test_snr(eeg_fwd, eeg_info, parcels, options):
    """Whitened power near the peaks over that of the noise; the truth has its cov."""
    for snr, nave in ((0.0, 1), (12.0, 9)):
        evoked, stc, truth = simulate_evoked(
            eeg_fwd, eeg_info, **options, snr=snr, nave=nave, duration=4.0
        )
        clean = evoked.copy()
        clean.data = mne.apply_forward(eeg_fwd, stc, evoked.info).data
        noise = evoked.copy()
        noise.data = evoked.data - clean.data
        cov = mne.make_ad_hoc_cov(evoked.info)
        power = np.zeros(evoked.times.size, bool)
        for times in truth.peak_times:
            power |= np.abs(evoked.times - times[0]) < 0.101
        signal = _whiten(clean, eeg_fwd, cov, parcels)[:, power]
        white = _whiten(noise, eeg_fwd, cov, parcels)
        ratio = np.mean(signal**2) / np.mean(white**2)
        assert_allclose(10 * np.log10(ratio), snr, atol=0.3)
        white = _whiten(noise, eeg_fwd, truth.noise_cov, parcels)
        assert_allclose(np.mean(white**2), 1 / nave, rtol=0.05)


def test_background_snr(eeg_fwd, eeg_info, parcels, options):
    same = options | dict(snr=200.0, duration=2.0)
    evoked, stc, truth = simulate_evoked(eeg_fwd, eeg_info, **same, background_snr=6)
    patches, _, _ = simulate_evoked(eeg_fwd, eeg_info, **same, background_snr=None)
    ongoing = patches.copy()
    ongoing.data = evoked.data - patches.data
    cov = mne.make_ad_hoc_cov(evoked.info)
    near = np.zeros(evoked.times.size, bool)
    for times in truth.peak_times:
        near |= np.abs(evoked.times - times[0]) < 0.101
    signal = _whiten(patches, eeg_fwd, cov, parcels)[:, near]
    background = _whiten(ongoing, eeg_fwd, cov, parcels)
    ratio = np.mean(signal**2) / np.mean(background**2)
    assert_allclose(10 * np.log10(ratio), 6, atol=0.1)
    outside = np.setdiff1d(np.arange(len(stc.data)), _rows(stc, truth.stc))
    assert stc.data[outside].any()


def _rows(stc, part):
    left = np.searchsorted(stc.vertices[0], part.vertices[0])
    right = np.searchsorted(stc.vertices[1], part.vertices[1])
    return np.r_[left, len(stc.vertices[0]) + right]


def test_background_is_ongoing_activity(eeg_fwd, eeg_info, options):
    """Far from the patches there is the neural masses' background: slow, coupled."""
    _, stc, truth = simulate_evoked(eeg_fwd, eeg_info, **options, duration=4.0)
    outside = np.setdiff1d(np.arange(len(stc.data)), _rows(stc, truth.stc))
    power = np.square(np.abs(np.fft.rfft(stc.data[outside]))).mean(0)
    frequencies = np.fft.rfftfreq(stc.shape[1], stc.tstep)
    share = power[(frequencies > 0.5) & (frequencies < 16)].sum() / power[1:].sum()
    psp = simulate_jansen_rit(4.0, n_parcels=200, mu=0.093, random_state=1)[0]
    reference = np.square(np.abs(np.fft.rfft(psp))).mean(0)
    frequencies = np.fft.rfftfreq(psp.shape[1], 1 / SFREQ)
    expected = reference[(frequencies > 0.5) & (frequencies < 16)].sum()
    assert_allclose(share, expected / reference[1:].sum(), atol=0.06)


# --------------------------------------------------------------- seeds and channels


def test_random_state(eeg_fwd, eeg_info, parcels, simulated, options):
    evoked, stc, _ = simulate_evoked(eeg_fwd, eeg_info, **options)
    assert_array_equal(evoked.data, simulated[0].data)
    assert_array_equal(stc.data, simulated[1].data)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    other = simulate_evoked(eeg_fwd, eeg_info, parcels=parcels, random_state=1)
    assert len(other[2].patches) == 1 and other[2].patches[0][0] not in SEEDS
    assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_channels_of_info_and_forward(eeg_fwd, eeg_info, options):
    """Order of info, without what the forward lacks; ready for an inverse."""
    names = eeg_info["ch_names"][::-1][:20]
    extra = mne.create_info(["EOG", "STI"], 250.0, ["eog", "stim"])
    raw = mne.io.RawArray(np.zeros((32, 2)), eeg_info).pick(names)
    raw.reorder_channels(names)
    raw.add_channels([mne.io.RawArray(np.zeros((2, 2)), extra)], force_update_info=True)
    raw.info["bads"] = names[:1]
    evoked, stc, _ = simulate_evoked(eeg_fwd, raw.info, **options, snr=200.0)
    assert evoked.ch_names == names
    (proj,) = evoked.info["projs"]
    assert not proj["active"] and "average" in proj["desc"].lower()
    fwd = mne.pick_channels_forward(eeg_fwd, names, ordered=True)
    clean = mne.apply_forward(fwd, stc, evoked.info)
    assert_allclose(evoked.data, clean.data, atol=1e-7 * clean.data.max())


def test_applied_average_reference(eeg_fwd, eeg_info, options, simulated):
    """A recording that was referenced gives a simulation that has the projector."""
    raw = mne.io.RawArray(np.zeros((32, 2)), eeg_info)
    info = raw.set_eeg_reference(projection=False).info
    evoked, _, _ = simulate_evoked(eeg_fwd, info, **options)
    assert not evoked.info["custom_ref_applied"]
    assert_allclose(evoked.data, simulated[0].data, atol=1e-12)


def test_defaults(eeg_fwd, eeg_info):
    """One call with nothing but a forward and an info: 994 parcels."""
    evoked, stc, truth = simulate_evoked(eeg_fwd, eeg_info)
    assert evoked.data.shape == (32, 250) and np.isfinite(evoked.data).all()
    assert len(truth.patches) == 1


def test_torch_is_not_needed():
    code = (
        "import sys, mne_deepsif as m; m.simulate_evoked; print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert out.strip() == "False"


# --------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("bad", "match"),
    (
        (dict(seeds=[200]), r"seeds must be parcels .* got \[200\]"),
        (dict(seeds=[-1]), "seeds must be parcels"),
        (dict(seeds=[3, 3]), "seeds must differ"),
        (dict(seeds=[0.5]), "seeds must be numbers"),
        (dict(seeds=None, n_sources=0), "n_sources must be from 1 to"),
        (dict(seeds=None, n_sources=201), "n_sources must be from 1 to"),
        (dict(amplitude=np.nan), "amplitude must be finite"),
        (dict(amplitude=0.0), "amplitude must be finite and not zero"),
        (dict(snr=np.nan), "snr must be finite"),
        (dict(background_snr=np.inf), "background_snr must be finite"),
        (dict(duration=0.0), "duration must be at least"),
        (dict(duration=np.nan), "duration must be at least"),
        (dict(nave=0), "nave must be at least 1"),
        (dict(peak_times=[0.0]), "peak_times must be 2 finite"),
        (dict(peak_times=[0.0, np.nan]), "peak_times must be 2 finite"),
        (dict(peak_times=[0.0, 0.6]), "peak_times must lie in the window"),
        (dict(waveforms="alpha"), "waveforms"),
        (dict(waveforms=np.ones((2, 3))), "shape .*, got shape"),
        (dict(waveforms=np.full((2, 250), np.nan)), "finite array"),
        (dict(waveforms=np.zeros((2, 250))), "must not be all zero"),
    ),
)
def test_bad_values(eeg_fwd, eeg_info, options, bad, match):
    with pytest.raises(ValueError, match=match):
        simulate_evoked(eeg_fwd, eeg_info, **options | bad)


@pytest.mark.parametrize("n_spikes", (0, 9, -1))
def test_bad_n_spikes(eeg_fwd, eeg_info, options, n_spikes):
    with pytest.raises(ValueError, match="n_spikes must be from 1 to 8"):
        simulate_raw(eeg_fwd, eeg_info, **options, duration=8.0, n_spikes=n_spikes)


def test_bad_objects(eeg_fwd, eeg_info, options):
    with pytest.raises(TypeError, match="fwd must be"):
        simulate_evoked(eeg_info, eeg_info)
    with pytest.raises(TypeError, match="info must be"):
        simulate_evoked(eeg_fwd, eeg_fwd)
    with pytest.raises(ValueError, match="must share EEG or MEG channels"):
        simulate_evoked(eeg_fwd, mne.create_info(["a"], 250.0, "eeg"))
    short = mne.make_ad_hoc_cov(mne.pick_info(eeg_info, np.arange(30)))
    with pytest.raises(ValueError, match="noise_cov must have all channels"):
        simulate_evoked(eeg_fwd, eeg_info, short, **options)

"""The order of channels: right ones are silent, wrong ones are told where they can."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import warnings

import mne
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mne_deepsif import (
    apply_deepsif_epochs,
    apply_deepsif_raw,
    assess_deepsif,
    make_template_forward,
)
from mne_deepsif.head.leadfield import channel_std
from mne_deepsif.trust.order import Order, _gains, _rearrangements, find_order
from mne_deepsif.trust.verdict import _describe_order, warn_if_disordered

N, SFREQ = 64, 250.0


@pytest.fixture(scope="module")
def sensors():
    """Return places on half a sphere, and a smooth leadfield of sources below."""
    rng = np.random.default_rng(0)
    places, sources = rng.standard_normal((2, 400, 3))
    for points in (places, sources):
        points[:, 2] = np.abs(points[:, 2])
        points /= np.linalg.norm(points, axis=1, keepdims=True)
    places = places[:N]
    away = places[:, None] - 0.5 * sources
    gain = np.sum(away * sources, axis=2) / np.linalg.norm(away, axis=2) ** 3
    return places, gain - gain.mean(0)


def simulate(gain, snr=10.0, n_sources=5, n_times=250, seed=0):
    """Return sources with independent time courses, and noise of variance 1."""
    rng = np.random.default_rng(seed)
    picks = rng.choice(gain.shape[1], n_sources, replace=False)
    waves = np.cumsum(rng.standard_normal((n_sources, n_times)), axis=1)
    data = gain[:, picks] @ waves
    return snr * data / data.std() + rng.standard_normal(data.shape)


def order_of(data, gain, sfreq=SFREQ):
    eye, ones = np.eye(len(gain)), np.ones((len(gain), 1))
    return find_order(data, gain, eye, ones, sfreq)


def test_right_order(sensors):
    _, gain = sensors
    for seed in range(5):
        order = order_of(simulate(gain, seed=seed), gain)
        assert order.is_told and order.unpredicted < 0.5
        assert not order.is_random and not order.is_swapped("eeg")


def test_right_order_of_a_single_field():
    """What one patch makes in 64 electrodes, nearly without noise, suits swaps well."""
    montage = mne.channels.make_standard_montage("biosemi64")
    info = mne.create_info(montage.ch_names, SFREQ, "eeg").set_montage(montage)
    fwd = mne.convert_forward_solution(make_template_forward(info), force_fixed=True)
    gain = fwd["sol"]["data"] - fwd["sol"]["data"].mean(0)
    rng = np.random.default_rng(0)
    wave = np.exp(-0.5 * ((np.arange(125) - 60) / 4) ** 2)
    gains, n_told = [], 0
    for field in gain[:, rng.choice(gain.shape[1], 40, replace=False)].T:
        data = 100 * np.outer(field / field.std(), wave)
        data += rng.standard_normal(data.shape)
        order = find_order(data, gain, np.eye(N) - 1 / N, np.ones((N, 1)), SFREQ)
        if order is not None:
            gains.append(order.gain)
            n_told += order.is_swapped("eeg")
            assert order.n_seen < 1.05 and order.n_channels == N
    assert np.mean(np.array(gains) > 15) > 0.1  # too much for several fields
    assert n_told <= 1


def test_random_order(sensors):
    """In random orders the share of what is not predicted is 1, on average."""
    _, gain = sensors
    rng, data, shares = np.random.default_rng(1), simulate(gain), []
    for _ in range(20):
        order = order_of(data[rng.permutation(N)], gain)
        assert order.is_random
        shares.append(order.unpredicted)
    assert 0.85 < np.mean(shares) < 1.15


def test_exchanged_channels(sensors):
    """The pair that is exchanged is the first that is named."""
    places, gain = sensors
    data = simulate(gain)
    distance = np.linalg.norm(places - places[:1], axis=1)
    far = int(distance.argmax())
    swapped = data.copy()
    swapped[[0, far]] = data[[far, 0]]
    order = order_of(swapped, gain)
    assert order.swaps[0] == (0, far)
    assert order.is_swapped("eeg") and not order.is_random
    assert not order.is_swapped("grad")


@pytest.mark.parametrize(
    "rearrangement", [(), (1,), (8,), (N - 1,), (8, 16, 8), (0, 48, 16), (0, 32, 32)]
)
def test_rearranged_rows(sensors, rearrangement):
    """Shifts, headboxes and the reverse order are named, and nothing in the right one.

    The places are drawn at random, so neighbouring rows are no neighbours.
    """
    _, gain = sensors
    orders = dict(_rearrangements(N))
    for seed in range(3):
        data = simulate(gain, seed=seed)
        right = order_of(data, gain)
        assert right.rearranged_gain < 0 and not right.is_rearranged
        wrong = np.empty_like(data)
        wrong[orders[rearrangement]] = data
        order = order_of(wrong, gain)
        assert order.is_rearranged and order.rearrangement == rearrangement
        assert_allclose(wrong[orders[order.rearrangement]], data)


def test_few_channels_are_not_rearranged():
    """With 19 electrodes, right orders would be called shifted: shallow sources."""
    names = "Fp1 Fp2 F7 F3 Fz F4 F8 T7 C3 Cz C4 T8 P7 P3 Pz P4 P8 O1 O2".split()
    for ch_names, montage in ((names, "biosemi64"), (None, "biosemi32")):
        montage = mne.channels.make_standard_montage(montage)
        info = mne.create_info(ch_names or montage.ch_names, SFREQ, "eeg")
        info.set_montage(montage)
        gain = shallow_gain(info)
        for seed in range(40):
            data = burst(gain, seed)
            order = order_of(data, gain)
            if order is not None:
                assert not order.is_rearranged
            moved = order_of(np.roll(data, 8, axis=0), gain)
            if ch_names and moved is not None:
                assert not moved.is_rearranged


def shallow_gain(info):
    """Return the leadfield of radial sources under the scalp of a sphere."""
    sphere = mne.make_sphere_model("auto", "auto", info)
    radial = np.random.default_rng(0).standard_normal((300, 3))
    radial[:, 2] = np.abs(radial[:, 2])
    radial /= np.linalg.norm(radial, axis=1, keepdims=True)
    radius = sphere["layers"][-1]["rad"]
    pos = dict(rr=sphere["r0"] + 0.78 * radius * radial, nn=radial)
    src = mne.setup_volume_source_space(pos=pos)
    trans = mne.transforms.Transform("head", "mri")
    fwd = mne.make_forward_solution(info, trans, src, sphere, meg=False)
    gain = fwd["sol"]["data"].reshape(len(info["chs"]), -1, 3)
    gain = np.einsum("cns,ns->cn", gain, fwd["src"][0]["nn"][fwd["src"][0]["vertno"]])
    gain -= gain.mean(0)
    return gain / gain.std()


def burst(gain, seed):
    """Return one to three oscillations of 0.2 s, and noise of -10 dB."""
    rng = np.random.default_rng(seed)
    picks = rng.choice(gain.shape[1], 1 + seed % 3, replace=False)
    times = np.arange(125) / SFREQ - 0.25
    waves = [
        np.exp(-((times / 0.04) ** 2) / 2)
        * np.sin(2 * np.pi * rng.uniform(4, 15) * times + rng.uniform(0, 6))
        for _ in picks
    ]
    data = gain[:, picks] / np.linalg.norm(gain[:, picks], axis=0) @ np.array(waves)
    data *= np.sqrt(10) / data.std()
    noise = rng.standard_normal(data.shape)
    return data + noise - noise.mean(0)


def test_words_about_rows():
    names = [f"E{i}" for i in range(1, 33)]
    words = {(): "reversed", (1,): "row of E1 seems to be that called E2"}
    words[8, 24, 8] = "E9 to E16 seem to be exchanged with E25 to E32"
    for rearrangement, text in words.items():
        order = Order(0.5, 0.1, [], 1.0, rearrangement, 9.0)
        assert text in _describe_order(order, "eeg", names)
    assert "no more like" in _describe_order(Order(0.9, 0.1, [], 20.0), "eeg", names)
    assert _describe_order(Order(0.1, 0.1, [], 1.0), "eeg", names) is None


def test_gain_of_a_swap_is_that_of_the_distance(sensors):
    """The formula for all pairs against the distance, computed anew for some."""
    _, gain = sensors
    fields, precision = simulate(gain)[:, :5], np.linalg.inv(gain @ gain.T + np.eye(N))

    def distance(fields):
        return np.trace(fields.T @ precision @ fields)

    gains, start = _gains(fields, precision)
    assert_allclose(start, distance(fields))
    for i, j in ((0, 1), (7, 30), (63, 2)):
        other = fields.copy()
        other[[i, j]] = fields[[j, i]]
        assert_allclose(gains[i, j], start - distance(other), rtol=1e-9)


@pytest.mark.parametrize("lowpass", [0, 20])
def test_noise_tells_nothing(sensors, lowpass):
    """Noise has no order, be it white or slow."""
    _, gain = sensors
    for seed in range(5):
        noise = np.random.default_rng(seed).standard_normal((N, 250))
        if lowpass:
            noise = mne.filter.filter_data(noise, SFREQ, None, lowpass, verbose="error")
        order = order_of(noise, gain)
        assert not order.is_random and not order.is_swapped("eeg")


def test_artefacts_are_no_order(sensors):
    """A bad electrode, drifts and the power line do not count."""
    _, gain = sensors
    rng, times = np.random.default_rng(0), np.arange(250) / SFREQ
    weights = rng.standard_normal((N, 1))
    spoilt = dict(
        electrode=simulate(gain), drift=simulate(gain), line=simulate(gain), flat=None
    )
    spoilt["electrode"][3] += 1e3 * rng.standard_normal(250)
    spoilt["drift"] += 1e3 * weights * times + 1e4
    spoilt["line"] += 1e3 * weights * np.sin(2 * np.pi * 50 * times)
    spoilt["flat"] = simulate(gain) * (np.arange(N) != 5)[:, None]
    assert order_of(spoilt.pop("electrode"), gain) is None
    reference = np.eye(N) - 1 / N  # through it, bad electrodes reach all others
    for n_bad, level in ((3, 30), (3, 1000), (5, 30), (5, 1000)):
        data = simulate(gain)
        drifts = rng.standard_normal((n_bad, 250)).cumsum(axis=1)
        data[:n_bad] += level * data.std() * drifts / drifts.std()
        assert find_order(data, gain, reference, np.ones((N, 1)), SFREQ) is None
    for data in spoilt.values():
        order = order_of(data, gain)
        assert not order.is_random and not order.is_swapped("eeg")


def test_what_cannot_be_judged(sensors):
    _, gain = sensors
    data = simulate(gain)
    assert order_of(data[:15], gain[:15]) is None  # few channels
    assert order_of(np.zeros((N, 250)), gain) is None
    assert order_of(data[:, :1], gain) is None
    assert order_of(data[:, :5], gain) is None  # nothing below 40 Hz
    assert not order_of(data[:, :12], gain).is_told


def test_scale_and_epochs(sensors):
    """Units do not matter; epochs are looked at together."""
    _, gain = sensors
    data = simulate(gain)
    one = order_of(data, gain)
    two = order_of(1e-6 * data, 1e-6 * gain)
    assert_allclose(one[:2], two[:2], rtol=1e-6)
    three = order_of(np.stack([data, data]), gain)
    assert_allclose(one.unpredicted, three.unpredicted, rtol=1e-6)


# --------------------------------------------------------------- at the front doors


@pytest.fixture(scope="module")
def shuffled(recordings):
    """Give a good recording whose rows are in another order than its names."""
    evoked = recordings[0].copy()
    order = np.random.default_rng(0).permutation(len(evoked.ch_names))
    evoked.data[:] = evoked.data[order]
    return evoked


def test_report_tells(eeg_fwd, recordings, shuffled, estimator):
    truth = recordings[2]
    report = assess_deepsif(
        shuffled, eeg_fwd, truth.noise_cov, estimator=estimator, n_passes=0
    )
    assert not report.is_trustworthy
    exchanged, names = recordings[0].copy(), recordings[0].ch_names
    pair = [names.index(name) for name in ("O1", "AF4")]
    exchanged.data[pair] = exchanged.data[pair[::-1]]
    report = assess_deepsif(
        exchanged, eeg_fwd, truth.noise_cov, estimator=estimator, n_passes=0
    )
    assert any("another order" in reason for reason in report.reasons), report.reasons


@pytest.mark.parametrize("kind", ["epochs", "raw"])
def test_epochs_and_raw_warn_once(
    eeg_fwd, recordings, shuffled, estimator, kind, monkeypatch
):
    """Several pieces are estimated, and the first is judged."""
    monkeypatch.setattr("mne_deepsif.apply._PIECE", 0)
    monkeypatch.setattr("mne_deepsif.apply._GROUP", 2)
    evoked, _, truth = recordings
    for data, wrong in ((evoked, False), (shuffled, True)):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            if kind == "raw":
                raw = mne.io.RawArray(np.tile(data.data, 3), data.info)
                apply_deepsif_raw(raw, eeg_fwd, truth.noise_cov, estimator=estimator)
            else:
                epochs = mne.EpochsArray(np.stack(3 * [data.data]), data.info)
                cov = truth.noise_cov
                apply_deepsif_epochs(epochs, eeg_fwd, cov, estimator=estimator)
        said = [str(one.message) for one in said]
        found = [one for one in said if "EEG channels are no more like" in one]
        assert len(found) == wrong


def test_pairs_are_named(plan, recordings):
    data = recordings[0].data[plan.picks].copy()
    warn_if_disordered(data, plan)  # silent
    names = plan.leadfield.ch_names
    i, j = names.index("O1"), names.index("AF4")
    data[[i, j]] = data[[j, i]]
    pair = " and ".join(names[k] for k in sorted((i, j)))
    with pytest.warns(RuntimeWarning, match=rf"EEG channels are exchanged \({pair}"):
        warn_if_disordered(data, plan)


def test_real_recording(sample_evoked, sample_leadfield):
    """MEG and EEG of the sample: silent, and told when rows of a type are mixed."""
    leadfield = sample_leadfield
    rows = [sample_evoked.ch_names.index(name) for name in leadfield.ch_names]
    data, std = sample_evoked.data[rows], channel_std(leadfield)
    types = np.array(leadfield.ch_types)
    rng = np.random.default_rng(0)
    for kind in ("eeg", "mag", "grad"):
        picks = np.flatnonzero(types == kind)
        rest = (
            leadfield.gain[picks],
            leadfield.projector[np.ix_(picks, picks)],
            std[picks],
            sample_evoked.info["sfreq"],
            kind,
        )
        order = find_order(data[picks], *rest)
        assert not order.is_random and not order.is_swapped(kind)
        assert find_order(data[rng.permutation(picks)], *rest).is_random

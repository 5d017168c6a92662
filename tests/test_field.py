"""Inputs from the field: estimated rightly, or one clear word about it."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import errno
import os
import re
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import mne
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter1d

from mne_deepsif import (
    DeepSIFEstimator,
    DeepSIFStream,
    apply_deepsif,
    apply_deepsif_epochs,
    apply_deepsif_raw,
    assess_deepsif,
    cache,
    data_path,
    make_deepsif_operator,
    make_template_parcels,
    make_template_subject,
    simulate_evoked,
)
from mne_deepsif import apply as apply_module
from mne_deepsif.head.leadfield import make_leadfield
from mne_deepsif.head.reference import check_average_reference


def brain_data(fwd, n_times, seed=0):
    """Fields of a few dipoles with slow courses, and some noise: V."""
    rng = np.random.default_rng(seed)
    gain = fwd["sol"]["data"]
    gain = gain[:, rng.choice(gain.shape[1], 30, replace=False)]
    courses = rng.standard_normal((30, n_times)) * rng.standard_normal((30, 1)) ** 3
    data = gain @ gaussian_filter1d(courses, 2.0)
    data /= data.std()
    return 1e-5 * (data + 0.05 * rng.standard_normal(data.shape))


@pytest.fixture
def evoked(eeg_info, eeg_fwd):
    return mne.EvokedArray(brain_data(eeg_fwd, 125), eeg_info, tmin=-0.1)


def close(one, two, tol=1e-7):
    """Check that two estimates agree."""
    assert_allclose(one.data, two.data, atol=tol * np.abs(two.data).max())


# --------------------------------------------------------------- average references


@pytest.mark.parametrize("active", (False, True))
def test_incomplete_average_projector(evoked, eeg_fwd, cov, plain, active):
    """MNE leaves bads out of the projector; interpolated later, they are good."""
    evoked.del_proj()
    evoked.info["bads"] = ["C3", "Oz"]
    evoked.set_eeg_reference("average", projection=True)
    if active:
        evoked.apply_proj()
    evoked.interpolate_bads()
    before = [str(proj) for proj in evoked.info["projs"]]
    stc = apply_deepsif(evoked, eeg_fwd, cov, estimator=plain)
    assert [str(proj) for proj in evoked.info["projs"]] == before
    complete = evoked.copy()
    if not active:  # else MNE adds the complete one to the other
        complete.del_proj()
    complete.set_eeg_reference("average", projection=True)
    close(stc, apply_deepsif(complete, eeg_fwd, cov, estimator=plain))
    # neither the reference of the one nor that of the others matters
    good = [name not in ("C3", "Oz") for name in evoked.ch_names]
    evoked.data += 1e-5
    if active:
        evoked.data[good] += 1e-5
    close(apply_deepsif(evoked, eeg_fwd, cov, estimator=plain), stc)


def test_average_projectors_of_two_amplifiers(evoked, eeg_fwd, cov, plain):
    """Each removes the reference of its own channels: nothing is missing."""
    evoked.del_proj()
    halves = evoked.ch_names[:20], evoked.ch_names[20:]
    for names in halves:
        info = mne.create_info(names, 100.0, "eeg")
        half = mne.EvokedArray(np.zeros((len(names), 1)), info)
        half.set_eeg_reference("average", projection=True)
        evoked.add_proj(half.info["projs"])
    stc = apply_deepsif(evoked, eeg_fwd, cov, estimator=plain)
    leadfield = make_leadfield(evoked.info, eeg_fwd, cov, parcels=plain.parcels)
    assert len(leadfield.whitener) == 30
    evoked.data[:20] += 1e-5
    close(apply_deepsif(evoked, eeg_fwd, cov, estimator=plain), stc)


def interpolated(info, fwd, n_bads, seed, n_times=125):
    """Average over the good channels, then interpolate the others."""
    raw = mne.io.RawArray(brain_data(fwd, n_times, seed), info).del_proj()
    rng = np.random.default_rng(seed)
    raw.info["bads"] = list(rng.choice(info["ch_names"], n_bads, replace=False))
    return raw.set_eeg_reference("average").interpolate_bads()


@pytest.mark.parametrize("n_bads", (1, 2, 4, 6, 8))
@pytest.mark.parametrize("n_times", (1, 5, 125))
def test_average_then_interpolated(eeg_info, eeg_fwd, n_bads, n_times):
    """Always accepted, in single precision and with few samples as well."""
    for seed in range(5):
        raw = interpolated(eeg_info, eeg_fwd, n_bads, seed, n_times)
        check_average_reference(raw.info, raw.get_data(), raw.ch_names)
        single = raw.get_data().astype(np.float32).astype(float)
        check_average_reference(raw.info, single, raw.ch_names)
        raw.info["bads"] = raw.ch_names[:1]  # or what is called bad afterwards
        check_average_reference(raw.info, raw.get_data(), raw.ch_names[1:])


def test_estimate_of_average_then_interpolated(eeg_info, eeg_fwd, cov, plain):
    """It is that of the same data with a projector, from all front doors."""
    raw = interpolated(eeg_info, eeg_fwd, 6, 0, 500)
    projected = raw.copy().set_eeg_reference("average", projection=True)
    estimates = []
    for inst in (raw, projected):
        evoked = mne.EvokedArray(inst.get_data(), inst.info)
        epochs = mne.make_fixed_length_epochs(inst, 0.5, preload=True, proj=False)
        kwargs = dict(noise_cov=cov, estimator=plain)
        estimates.append(
            (
                apply_deepsif(evoked, eeg_fwd, **kwargs),
                apply_deepsif_raw(inst, eeg_fwd, **kwargs),
                apply_deepsif_epochs(epochs, eeg_fwd, **kwargs)[2],
            )
        )
    for one, two in zip(*estimates):
        close(one, two)


@pytest.mark.parametrize(
    "reference",
    ("Cz", "ears", "chain", "pairs", "Laplacian", "REST"),
)
@pytest.mark.parametrize("n_bads", (0, 4))
def test_other_references_stay_refused(eeg_info, eeg_fwd, reference, n_bads):
    """Whether channels were interpolated afterwards or not."""
    names = eeg_info["ch_names"]
    for seed in range(5):
        data = brain_data(eeg_fwd, 125, seed)
        raw = mne.io.RawArray(data, eeg_info).del_proj()
        if reference == "REST":
            raw.set_eeg_reference("REST", forward=eeg_fwd)
        else:
            raw.set_eeg_reference(make_reference(reference, names, seed))
        if n_bads:
            raw.info["bads"] = names[seed : 4 * n_bads : 4]
            raw.interpolate_bads()
        match = "Custom EEG reference is not allowed.*linked ears.*projection=True"
        with pytest.raises(ValueError, match=match):
            check_average_reference(raw.info, raw.get_data(), names)


def make_reference(kind, names, seed):
    rng = np.random.default_rng(seed)
    if kind == "Cz":
        return ["Cz"]
    if kind == "ears":
        return ["T7", "T8"]
    if kind == "chain":  # the sum over a chain is small
        return {a: [c] for a, c in zip(names, names[1:])}
    if kind == "pairs":
        return {a: [c] for a, c in zip(names[::2], names[1::2])}
    return {
        name: rng.choice([x for x in names if x != name], 4, replace=False).tolist()
        for name in names
    }


def test_reference_is_checked_where_the_data_are(eeg_info, eeg_fwd, cov, plain):
    """A recording that begins with zeros has a reference all the same."""
    data = np.zeros((32, 6000))
    data[:, 4500:] = brain_data(eeg_fwd, 1500)
    raw = mne.io.RawArray(data, eeg_info).del_proj().set_eeg_reference(["Cz"])
    with pytest.raises(ValueError, match="Custom EEG reference is not allowed"):
        apply_deepsif_raw(raw, eeg_fwd, cov, estimator=plain)
    epochs = mne.make_fixed_length_epochs(raw, 0.1, preload=True, proj=False)
    with pytest.raises(ValueError, match="Custom EEG reference is not allowed"):
        apply_deepsif_epochs(epochs, eeg_fwd, cov, estimator=plain)


# --------------------------------------------------------------- fast activity


def oscillation(info, fwd, cov, freq, noise=0.1, slow=0.0):
    """One dipole at 500 Hz: a burst, a slow wave and white noise, as an Evoked."""
    info = info.copy()
    with info._unlock():
        info["sfreq"] = 500.0
    times = np.arange(500) / 500
    course = np.hanning(500) * np.sin(2 * np.pi * freq * times)
    course += slow * np.sin(2 * np.pi * 5 * times)
    topography = fwd["sol"]["data"][:, 3000]
    topography = topography - topography.mean()
    data = 2e-6 * topography[:, np.newaxis] / topography.std() * course
    white = np.random.default_rng(0).standard_normal(data.shape)
    return mne.EvokedArray(data + noise * 2e-6 * white, info)


def said(function, *args, **kwargs):
    """Return the texts of all warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function(*args, **kwargs)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize(
    "freq, slow, noise, lost",
    ((20, 0, 1.0, False), (58, 0, 0.1, False), (80, 4, 0.1, False))
    + ((70, 0, 0.1, True), (80, 0.5, 1.0, True), (150, 0, 1.0, True)),
)
def test_activity_above_the_band(
    eeg_info, eeg_fwd, cov, plain, freq, slow, noise, lost, monkeypatch
):
    """A warning names the limit and the share of the power, at all front doors."""
    evoked = oscillation(eeg_info, eeg_fwd, cov, freq, noise, slow)
    monkeypatch.setattr(apply_module, "_GROUP", 4)  # several of them
    monkeypatch.setattr(apply_module, "_PIECE", 0)
    raw = mne.io.RawArray(np.tile(evoked.data, 5), evoked.info)
    epochs = mne.EpochsArray(np.stack([evoked.data] * 6), evoked.info, proj=False)
    for function, inst in (
        (apply_deepsif, evoked),
        (apply_deepsif_raw, raw),
        (apply_deepsif_epochs, epochs),
    ):
        texts = said(function, inst, eeg_fwd, cov, estimator=plain)
        texts = [text for text in texts if "62.5 Hz" in text]
        assert len(texts) == lost
        if lost:
            assert "% of the whitened data's power is above" in texts[0]
            share = float(re.search(r"(\d+)%", texts[0])[1])
            assert share == pytest.approx(100 * share_above(evoked, 62.5), abs=1)
    report = assess_deepsif(evoked, eeg_fwd, cov, estimator=plain, n_passes=0)
    assert any("62.5 Hz" in reason for reason in report.reasons) == lost


def test_estimate_above_the_band(eeg_info, eeg_fwd, cov, tiny_estimator):
    """What the warning advises: right at all front doors, and no warning any more."""
    evoked = oscillation(eeg_info, eeg_fwd, cov, 80).crop(0.3, 0.7)
    raw = mne.io.RawArray(evoked.data, evoked.info)
    epochs = mne.EpochsArray(evoked.data[np.newaxis], evoked.info, proj=False)
    (text,) = said(apply_deepsif_raw, raw, eeg_fwd, cov, estimator=tiny_estimator)
    rate = re.search(r"estimator=model\.at\((\d+)\)", text)[1]
    faster = tiny_estimator.model_.at(float(rate))
    operator = make_deepsif_operator(evoked.info, eeg_fwd, cov, estimator=faster)
    stc, residual = apply_deepsif(evoked, operator, return_residual=True)
    given = evoked.data - evoked.data.mean(0)
    assert np.square(residual.data).sum() < 0.1 * np.square(given).sum()
    assert not any("above" in text for text in said(apply_deepsif, evoked, operator))
    close(apply_deepsif_raw(raw, operator), stc, 1e-4)
    close(apply_deepsif_epochs(epochs, operator)[0], stc, 1e-4)
    stream = DeepSIFStream(operator)
    parts = [stream.push(raw.get_data()), stream.finish()]
    found = np.concatenate([part.data for part in parts], axis=1)
    assert_allclose(found, stc.data, atol=1e-4 * np.abs(stc.data).max())


def share_above(evoked, limit):
    """All channels have the same noise: whitening is the average reference."""
    data = evoked.data - evoked.data.mean(0)
    data = np.hstack([data, data[:, ::-1]])
    power = np.square(np.abs(np.fft.rfft(data))).sum(0)
    frequencies = np.fft.rfftfreq(data.shape[1], 1 / evoked.info["sfreq"])
    weights = np.where(frequencies > 0, 2, 1) * power
    return weights[frequencies > limit].sum() / weights.sum()


def test_noise_above_the_band(eeg_info, eeg_fwd, cov, plain):
    """White noise of sensors is not what anybody misses."""
    evoked = oscillation(eeg_info, eeg_fwd, cov, 10, noise=3)
    assert share_above(evoked, 62.5) > 0.5
    raw = mne.io.RawArray(evoked.data, evoked.info)
    assert not said(apply_deepsif_raw, raw, eeg_fwd, cov, estimator=plain)
    evoked.data[:] = 0
    raw = mne.io.RawArray(evoked.data, evoked.info)
    assert not said(apply_deepsif_raw, raw, eeg_fwd, cov, estimator=plain)


def test_band_of_slow_data(evoked, eeg_fwd, cov, plain):
    """At the network's rate or below there is nothing to lose."""
    evoked.resample(120.0)
    texts = said(apply_deepsif, evoked, eeg_fwd, cov, estimator=plain)
    assert not any("half the network's sampling rate" in text for text in texts)


# --------------------------------------------------------------- epochs and a generator


@pytest.fixture(params=("array", "preloaded", "on disk", "not dropped yet"))
def epochs(request, eeg_info, eeg_fwd, tmp_path):
    """Forty epochs of different size, three of which are rejected."""
    data = brain_data(eeg_fwd, 40 * 50) * np.repeat(1 + np.arange(40), 50) / 40
    data[3, [160, 710, 1999]] = 1e-3
    raw = mne.io.RawArray(data, eeg_info)
    events = mne.make_fixed_length_events(raw, duration=0.2)
    kwargs = dict(tmin=0, tmax=0.196, baseline=None, reject=dict(eeg=5e-4))
    preload = request.param in ("array", "preloaded")
    epochs = mne.Epochs(raw, events, proj=False, preload=preload, **kwargs)
    if request.param == "array":
        return mne.EpochsArray(epochs.get_data(), eeg_info, proj=False)
    if request.param == "on disk":
        epochs.save(tmp_path / "x-epo.fif")
        epochs = mne.read_epochs(tmp_path / "x-epo.fif", proj=False, preload=False)
    return epochs


@pytest.mark.parametrize("n_group", (7, 64))
def test_generator_beside_the_epochs(epochs, eeg_fwd, cov, plain, n_group, monkeypatch):
    """Both iterations go on as if the other were not there."""
    monkeypatch.setattr(apply_module, "_GROUP", n_group)
    expected = [epoch.copy() for epoch in epochs]
    assert len(expected) == 37
    operator = make_deepsif_operator(epochs.info, eeg_fwd, cov, estimator=plain)
    stcs = apply_deepsif_epochs(epochs, operator)
    kwargs = dict(return_generator=True)
    generators = [apply_deepsif_epochs(epochs, operator, **kwargs) for _ in range(2)]
    triples = list(zip(generators[0], epochs, generators[1]))
    assert len(triples) == len(stcs) == 37
    for (one, epoch, two), data, stc in zip(triples, expected, stcs):
        assert_array_equal(epoch, data)
        assert_array_equal(one.data, stc.data)
        assert_array_equal(two.data, stc.data)
    for number, epoch in enumerate(epochs):  # a list within the loop
        if number in (0, 20):
            apply_deepsif_epochs(epochs[:3] if epochs.preload else epochs, operator)
        assert_array_equal(epoch, expected[number])
    assert number == 36


def test_generator_keeps_few_epochs(eeg_info, eeg_fwd, cov, plain, monkeypatch):
    """Epochs that are not loaded are read group by group, when they are needed."""
    monkeypatch.setattr(apply_module, "_GROUP", 4)
    raw = mne.io.RawArray(brain_data(eeg_fwd, 2000), eeg_info)
    epochs = mne.make_fixed_length_epochs(raw, 0.2, proj=False)
    numbers = []
    monkeypatch.setattr(
        type(epochs),
        "_get_epoch_from_raw",
        lambda self, idx, verbose=None: numbers.append(idx) or raw.get_data()[:, :50],
    )
    stcs = apply_deepsif_epochs(
        epochs, eeg_fwd, cov, estimator=plain, return_generator=True
    )
    assert not numbers
    next(stcs)
    assert numbers == [0, 1, 2, 3]


# --------------------------------------------------------------- part of the cortex


@pytest.mark.parametrize("region", ("one hemisphere", "label", "one vertex"))
def test_forward_of_a_label(evoked, eeg_fwd, cov, plain, region):
    """A denser source space would not help."""
    labels = {
        "one hemisphere": mne.Label(np.arange(10242), hemi="rh", subject="fsaverage5"),
        "label": mne.grow_labels(
            "fsaverage5", 100, 35, 0, subjects_dir=make_template_subject()
        )[0],
        "one vertex": mne.Label([100], hemi="lh", subject="fsaverage5"),
    }
    fwd = mne.forward.restrict_forward_to_label(eeg_fwd, [labels[region]])
    match = "parcels have no vertex.*only a part of the cortex.*placed into this part"
    with pytest.warns(RuntimeWarning, match=match) as caught:
        stc = apply_deepsif(evoked, fwd, cov, estimator=plain)
    assert not any("denser" in str(warning.message) for warning in caught)
    assert stc.data.any()


@pytest.mark.parametrize("spacing", ("ico1", "ico2", "ico3", "oct4"))
def test_coarse_source_space(spacing, eeg_info, cov):
    """It covers the whole cortex, but not densely."""
    from mne_deepsif.head.template import make_template_trans

    src = mne.setup_source_space(
        "fsaverage5", spacing, "white", make_template_subject(), add_dist=False
    )
    sphere = mne.make_sphere_model((0.0, 0.0, 0.04), 0.125, eeg_info)
    trans = make_template_trans(eeg_info)
    fwd = mne.make_forward_solution(eeg_info, trans, src, sphere, mindist=0.0)
    with pytest.warns(RuntimeWarning, match="Use a denser source space"):
        make_leadfield(eeg_info, fwd, cov, parcels=make_template_parcels())


# --------------------------------------------------------------- where surfaces are


@pytest.fixture(scope="module")
def other(eeg_fwd, tmp_path_factory):
    """Give another subject: the template under another name, with other numbers.

    Return its folder, its forward and the rows of its vertices in the template's.
    """
    path = tmp_path_factory.mktemp("subjects")
    make_template_subject(path)
    (path / "fsaverage5").rename(path / "other")
    order = np.random.default_rng(0).permutation(10242)
    fwd, rows = eeg_fwd.copy(), []
    for hemi, s in zip(("lh", "rh"), fwd["src"]):
        place = np.argsort(order)  # of the template's vertices among the other's
        vertno = np.sort(place[s["vertno"]])
        rows.append(sum(map(len, rows)) + np.searchsorted(s["vertno"], order[vertno]))
        rr, nn, tris = s["rr"][order], s["nn"][order], place[s["tris"]]
        s.update(rr=rr, nn=nn, tris=tris, vertno=vertno, subject_his_id="other")
        s["inuse"] = np.isin(np.arange(10242), vertno).astype(int)
        fname = path / "other" / "surf" / f"{hemi}.sphere.reg"
        mne.write_surface(
            fname, mne.read_surface(fname)[0][order], tris, overwrite=True
        )
    rows = np.concatenate(rows)
    columns = (3 * rows[:, np.newaxis] + np.arange(3)).ravel()
    fwd["sol"]["data"] = fwd["sol"]["data"][:, columns]
    fwd["_orig_sol"] = fwd["_orig_sol"][:, columns]
    fwd["source_rr"] = fwd["source_rr"][rows]
    fwd["source_nn"] = fwd["source_nn"][columns]
    return path, fwd, rows


@pytest.mark.parametrize("how", ("argument", "environment", "config"))
def test_where_surfaces_are_found(
    other, eeg_info, eeg_fwd, cov, plain, how, monkeypatch
):
    """Where MNE finds them."""
    path, fwd, rows = other
    kwargs = dict(noise_cov=cov, parcels=plain.parcels)
    monkeypatch.delenv("SUBJECTS_DIR", raising=False)
    if how == "argument":
        kwargs["subjects_dir"] = path
    elif how == "environment":
        monkeypatch.setenv("SUBJECTS_DIR", str(path))
    else:
        monkeypatch.setenv("_MNE_FAKE_HOME_DIR", str(path))
        mne.set_config("SUBJECTS_DIR", str(path), set_env=False)
    found = make_leadfield(eeg_info, fwd, **kwargs).parcel_of_vertex
    expected = make_leadfield(eeg_info, eeg_fwd, cov, parcels=plain.parcels)
    expected = np.concatenate(expected.parcel_of_vertex)[rows]
    assert_array_equal(np.concatenate(found), expected)


@pytest.mark.parametrize("door", ("evoked", "operator", "epochs", "raw"))
def test_subjects_dir(other, evoked, eeg_fwd, cov, plain, door, monkeypatch):
    """Every front door finds the subject, and estimates what the template would."""
    path, fwd, rows = other
    monkeypatch.setenv("SUBJECTS_DIR", str(path))
    kwargs = dict(noise_cov=cov, estimator=plain)
    if door == "evoked":
        stc = apply_deepsif(evoked, fwd, **kwargs)
    elif door == "operator":
        operator = make_deepsif_operator(evoked.info, fwd, **kwargs)
        stc = apply_deepsif(evoked, operator)
    elif door == "epochs":
        epochs = mne.EpochsArray(evoked.data[np.newaxis], evoked.info, proj=False)
        stc = apply_deepsif_epochs(epochs, fwd, **kwargs)[0]
    else:
        raw = mne.io.RawArray(evoked.data, evoked.info)
        stc = apply_deepsif_raw(raw, fwd, **kwargs)
    expected = apply_deepsif(evoked, eeg_fwd, **kwargs).data[rows]
    assert_allclose(stc.data, expected, atol=1e-6 * np.abs(expected).max())
    assert stc.subject == "other"


def test_subjects_dir_in_training_and_simulation(
    other, eeg_info, parcels, small_training, monkeypatch
):
    path, fwd, _ = other
    settings = dict(n_times=32, n_steps=2, batch_size=8, random_state=0)
    settings |= dict(device="cpu", precision="float32", weights=None, parcels=parcels)
    monkeypatch.setenv("SUBJECTS_DIR", str(path))
    DeepSIFEstimator(**settings).fit(fwd, eeg_info)
    simulate_evoked(fwd, eeg_info, parcels=parcels, random_state=0)


def test_no_subjects_dir(other, evoked, cov, plain, monkeypatch, tmp_path):
    """The warning says where it looked, what it costs and what to do."""
    _, fwd, _ = other
    monkeypatch.delenv("SUBJECTS_DIR", raising=False)
    monkeypatch.setenv("_MNE_FAKE_HOME_DIR", str(tmp_path))
    match = "no subjects_dir is given or set.*peaks moved by up to.*SUBJECTS_DIR"
    with pytest.warns(RuntimeWarning, match=match):
        apply_deepsif(evoked, fwd, cov, estimator=plain)
    monkeypatch.setenv("SUBJECTS_DIR", str(tmp_path))
    with pytest.warns(RuntimeWarning, match=f"in {tmp_path}.*peaks moved by"):
        make_leadfield(evoked.info, fwd, cov, parcels=plain.parcels)


# --------------------------------------------------------------- threads, processes


SCRIPT = """
import multiprocessing
import sys
from concurrent.futures import ThreadPoolExecutor

import joblib
import mne
import numpy as np

import mne_deepsif

mne.set_log_level("ERROR")
kind, folder = sys.argv[1:]
evoked = mne.read_evokeds(f"{folder}/x-ave.fif", 0)
fwd = mne.read_forward_solution(f"{folder}/x-fwd.fif")
cov = mne.make_ad_hoc_cov(evoked.info)


def work(number):
    with mne.use_log_level("ERROR"):
        scaled = evoked.copy()
        scaled.data *= number
        return mne_deepsif.apply_deepsif(scaled, fwd, cov).data / number


def work_in_pool(numbers):
    if kind == "loky":
        return joblib.Parallel(2)(map(joblib.delayed(work), numbers))
    if kind == "threads":
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(work, numbers))
    with multiprocessing.get_context(kind).Pool(2) as pool:
        return pool.map(work, numbers)


if __name__ == "__main__":
    expected = work(1)  # with two threads
    for found in work_in_pool([1, -2, 3, -4]):
        assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max() > 0
    print("the same")
"""
START_METHODS = [
    "fork",
    pytest.param("threads", marks=pytest.mark.slow),
    pytest.param("spawn", marks=pytest.mark.slow),
    pytest.param("loky", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("kind", START_METHODS)
def test_pools(kind, evoked, eeg_fwd, tmp_path):
    """All give the same, and a forked process does not wait for ever."""
    if kind == "fork" and not hasattr(os, "fork"):
        pytest.skip("needs fork")
    evoked.save(tmp_path / "x-ave.fif")
    mne.write_forward_solution(tmp_path / "x-fwd.fif", eeg_fwd)
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-W", "ignore", tmp_path / "script.py", kind, tmp_path],
        env=os.environ | {"OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.stdout.endswith("the same\n"), run.stderr


def test_two_threads_at_once(evoked, eeg_fwd, cov, tiny_estimator):
    """Each front door, with one estimator or one operator, from two threads."""
    operator = make_deepsif_operator(
        evoked.info, eeg_fwd, cov, estimator=tiny_estimator
    )
    expected = apply_deepsif(evoked, operator).data
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(apply_deepsif, evoked, operator) for _ in range(6)]
        jobs += [
            pool.submit(apply_deepsif, evoked, eeg_fwd, cov, estimator=tiny_estimator)
            for _ in range(6)
        ]
    for job in jobs:
        found = job.result().data
        assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


# --------------------------------------------------------------- the data folder


@pytest.mark.parametrize("place", ("below a file", "a file", "/proc/nowhere"))
def test_unwritable_data_folder(place, tmp_path, monkeypatch):
    """The error names the setting, whatever needed the folder."""
    if place == "/proc/nowhere" and not os.path.isdir("/proc"):
        pytest.skip("needs a folder that nobody can write to")
    (tmp_path / "file").touch()
    places = {"below a file": tmp_path / "file" / "data", "a file": tmp_path / "file"}
    monkeypatch.setenv("MNE_DEEPSIF_DATA", str(places.get(place, place)))
    match = "cannot write to its data folder.*set MNE_DEEPSIF_DATA.*mne.set_config"
    for function in (data_path, make_template_parcels, make_template_subject):
        with pytest.raises(OSError, match=match):
            function()


def test_read_only_data_folder(tmp_path, monkeypatch):
    """What is there can be used. For what is missing, the error names the setting."""
    monkeypatch.setenv("MNE_DEEPSIF_DATA", str(tmp_path))
    expected = make_template_parcels(20)

    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(cache.tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(cache.tempfile, "mkdtemp", refuse)
    assert_array_equal(make_template_parcels(20).mapping, expected.mapping)
    for make in (lambda: make_template_parcels(21), make_template_subject):
        shutil.rmtree(tmp_path / "subjects", ignore_errors=True)
        with pytest.raises(OSError, match="Read-only.*set MNE_DEEPSIF_DATA") as error:
            make()
        assert error.value.errno == errno.EROFS


def test_a_folder_of_your_own_that_cannot_be_written(tmp_path):
    """The setting would not help."""
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as error:
        make_template_subject(tmp_path / "file" / "subjects")
    assert "MNE_DEEPSIF_DATA" not in str(error.value)

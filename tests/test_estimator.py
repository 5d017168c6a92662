"""DeepSIFEstimator: scikit-learn's rules, files, times, amplitudes, bad input."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import _thread
import copy
import logging
import pickle
from dataclasses import replace

import joblib
import mne
import numpy as np
import pytest
from mne.utils import catch_logging
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import estimator_checks

from mne_deepsif import (
    DeepSIFEstimator,
    apply_deepsif,
    apply_deepsif_epochs,
    apply_deepsif_raw,
    make_parcels,
    read_deepsif,
)
from mne_deepsif.head.leadfield import make_leadfield
from mne_deepsif.head.template import make_template_trans
from mne_deepsif.network.architectures import make_network
from mne_deepsif.network.encoder import N_KERNELS
from mne_deepsif.simulation import library

SFREQ, N_TIMES = 125.0, 32


pytestmark = pytest.mark.usefixtures("small_training")


@pytest.fixture(scope="module")
def params(parcels):
    """Give what an estimator needs to train for a moment."""
    return dict(
        weights=None,
        parcels=parcels,
        n_times=N_TIMES,
        n_steps=4,
        batch_size=8,
        device="cpu",
        precision="float32",
        random_state=0,
    )


@pytest.fixture(scope="module")
def fitted(params, eeg_fwd, eeg_info, cov):
    """Train an estimator long enough to find strong sources."""
    estimator = DeepSIFEstimator(**params | dict(n_steps=250, batch_size=32))
    estimator.fit(eeg_fwd, eeg_info, cov)
    return estimator


@pytest.fixture(scope="module")
def brief(params, eeg_fwd, eeg_info, cov):
    """Train for a few updates: the output is not zero, and that is all."""
    return DeepSIFEstimator(**params).fit(eeg_fwd, eeg_info, cov)


@pytest.fixture(scope="module")
def by_sensors(params, eeg_fwd, eeg_info, cov):
    settings = params | dict(n_steps=100, batch_size=32)
    estimator = DeepSIFEstimator(encoder="sensors", **settings)
    return estimator.fit(eeg_fwd, eeg_info, cov)


@pytest.fixture(scope="module")
def _strong(parcels, eeg_fwd, eeg_info, cov):
    leadfield = make_leadfield(eeg_info, eeg_fwd, cov, parcels=parcels)
    seed = parcels.centers[:, 2].argmax()
    near = np.linalg.norm(parcels.centers - parcels.centers[seed], axis=1) < 0.03
    sources = np.zeros((parcels.n_parcels, 64))
    sources[near] = 1e-5 * np.exp(-0.5 * ((np.arange(64) - 30) / 6) ** 2)
    data = leadfield.vertex_area @ sources
    stc = mne.SourceEstimate(data, leadfield.vertices, 0, 1 / 250, "fsaverage5")
    return mne.apply_forward(eeg_fwd, stc, eeg_info).data


@pytest.fixture
def strong(_strong, eeg_info):
    """Sensor data of one patch at the top of the head, without noise, at 250 Hz."""
    return mne.EvokedArray(_strong.copy(), eeg_info, nave=10)


@pytest.fixture
def evoked(eeg_info):
    """0.6 s of noise with a time course, as 10 averages, at 250 Hz."""
    rng = np.random.default_rng(0)
    data = rng.standard_normal((32, 150)) * np.hanning(150)
    return mne.EvokedArray(1e-6 * data, eeg_info, tmin=-0.1, nave=10)


def state(estimator):
    return {k: v.numpy().copy() for k, v in estimator.network_.state_dict().items()}


def assert_same(one, two):
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert_array_equal(value, two[name], err_msg=name)


# --------------------------------------------------------------- scikit-learn's rules


def test_init_only_stores(params):
    """Also what is wrong; clone and get_params see the very same objects."""
    wrong = dict(encoder=3, architecture=[], sfreq="fast", device=object())
    estimator = DeepSIFEstimator(**params | wrong)
    assert estimator.get_params().items() >= (params | wrong).items()
    assert set(vars(estimator)) == set(estimator.get_params())
    assert DeepSIFEstimator().get_params()["weights"] == "generic"
    assert estimator.set_params(n_steps=7).n_steps == 7


@pytest.mark.parametrize(
    "name",
    (
        *("do_not_raise_errors_in_init_or_set_params", "estimator_cloneable"),
        *("estimator_repr", "get_params_invariance", "no_attributes_set_in_init"),
        *("parameters_default_constructible", "set_params", "valid_tag_types"),
    ),
)
def test_checks_of_scikit_learn(name):
    """All that need no X and y."""
    check = getattr(estimator_checks, f"check_{name}", None)
    if check is None:
        pytest.skip("scikit-learn is older than this check")
    check("DeepSIFEstimator", DeepSIFEstimator())


FITTED = (
    *("network_", "parcels_", "sfreq_", "n_times_", "ch_names_"),
    *("history_", "recipe_", "metrics_", "fingerprint_", "model_"),
)


@pytest.mark.parametrize("name", FITTED)
def test_fitted_attributes_come_with_fit(brief, name):
    """Before, there are none, as scikit-learn's tools expect; then the model's."""
    estimator = DeepSIFEstimator()
    assert not hasattr(estimator, name)
    with pytest.raises(AttributeError, match=name):
        getattr(estimator, name)
    assert hasattr(brief, name)
    if name != "model_":
        assert getattr(brief, name) is getattr(brief.model_, name.removesuffix("_"))
    assert not hasattr(clone(brief), name)


@pytest.mark.parametrize("given", ({}, dict(n_steps=3), dict(encoder="sensors")))
def test_repr_before_fit(given):
    """As scikit-learn writes it: what is not the default."""
    estimator = DeepSIFEstimator(**given)
    assert repr(estimator) == BaseEstimator.__repr__(estimator)
    inside = ", ".join(f"{name}={value!r}" for name, value in given.items())
    assert repr(estimator) == f"DeepSIFEstimator({inside})"


def test_repr_after_fit(brief, by_sensors, tmp_path):
    """Whose head and which channels, what it reads, how many parcels, which window."""
    assert repr(brief) == (
        "<DeepSIFEstimator | fitted on fsaverage5 (32 channels), "
        "encoder='backprojection', architecture='compact', 200 parcels, "
        "windows of 256 ms at 125 Hz>"
    )
    assert "encoder='sensors'" in repr(by_sensors)
    brief.save(tmp_path / "x-deepsif.safetensors")
    assert repr(read_deepsif(tmp_path / "x-deepsif.safetensors")) == repr(brief)
    assert repr(clone(brief)).startswith("DeepSIFEstimator(")


def test_clone(brief):
    cloned = clone(brief)
    before, after = (x.get_params() for x in (brief, cloned))
    one, two = (x.pop("parcels") for x in (before, after))
    assert_array_equal(one.mapping, two.mapping)
    assert before == after
    with pytest.raises(NotFittedError):
        cloned.predict(None)


def test_clone_keeps_the_weights_to_start_from(params, brief, eeg_fwd, eeg_info, cov):
    """They are a fitted estimator; a clone of them would have forgotten."""
    settings = params | dict(weights=brief, parcels=None, n_steps=1)
    cloned = clone(DeepSIFEstimator(**settings))
    assert cloned.weights is brief
    assert cloned.fit(eeg_fwd, eeg_info, cov).recipe_["start"] == brief.recipe_


@pytest.mark.parametrize(("verbose", "says"), (("INFO", True), (None, False)))
def test_verbose_is_that_of_fit(params, eeg_fwd, eeg_info, cov, verbose, says):
    """The log level is as before afterwards, also if fit fails."""
    with mne.use_log_level("ERROR"), catch_logging() as log:
        estimator = DeepSIFEstimator(**params | dict(n_steps=1, verbose=verbose))
        estimator.fit(eeg_fwd, eeg_info, cov)
        text = log.getvalue()
        assert ("Validation loss" in text and "after 0 updates" in text) == says
        with pytest.raises(ValueError, match="precision"):
            estimator.set_params(precision="half").fit(eeg_fwd, eeg_info, cov)
        assert mne.utils.logger.level == logging.ERROR


def test_not_fitted(params, evoked, eeg_fwd, cov, tmp_path):
    estimator = DeepSIFEstimator(**params)
    match = "DeepSIFEstimator.*is not fitted"
    with pytest.raises(NotFittedError, match=match):
        estimator.predict(evoked, eeg_fwd)
    with pytest.raises(NotFittedError, match=match):
        estimator.save(tmp_path / "x-deepsif.safetensors")
    with pytest.raises(NotFittedError, match=match):
        apply_deepsif(evoked, eeg_fwd, cov, estimator=estimator)
    with pytest.raises(NotFittedError, match=match):
        DeepSIFEstimator(**params | dict(weights=estimator)).fit(eeg_fwd)
    assert list(tmp_path.iterdir()) == []


def test_fit_changes_nothing_but_what_it_learns(params, eeg_fwd, eeg_info, cov):
    """Parameters are the same objects, the input is as it was; it returns self."""
    estimator = DeepSIFEstimator(**params)
    before = estimator.get_params()
    gain, noise = eeg_fwd["sol"]["data"].copy(), cov.data.copy()
    names, projs = list(eeg_info["ch_names"]), len(eeg_info["projs"])
    assert estimator.fit(eeg_fwd, eeg_info, cov) is estimator
    after = estimator.get_params()
    assert all(after[name] is value for name, value in before.items())
    learned = {n for n in vars(estimator) if n.endswith("_") and not n.startswith("_")}
    assert learned == {"model_"}
    assert_array_equal(eeg_fwd["sol"]["data"], gain)
    assert_array_equal(cov.data, noise)
    assert eeg_info["ch_names"] == names and len(eeg_info["projs"]) == projs
    assert estimator.sfreq_ == SFREQ and estimator.n_times_ == N_TIMES
    assert estimator.ch_names_ is None
    assert [step for step, _ in estimator.history_] == [0, 4]
    assert estimator.recipe_["fit_on"] == "fsaverage5"
    assert estimator.recipe_["n_channels"] == 32
    losses = [loss for _, loss in estimator.history_]
    assert estimator.metrics_ == {
        "validation_loss_before": losses[0],
        "validation_loss_after": min(losses),
    }


def test_same_seed_same_result_and_refit_forgets(params, brief, eeg_fwd, eeg_info, cov):
    other = DeepSIFEstimator(**params | dict(random_state=1, n_steps=2))
    other.fit(eeg_fwd, eeg_info, cov)
    assert (state(other)["embed.weight"] != state(brief)["embed.weight"]).any()
    other.set_params(random_state=0, n_steps=4).fit(eeg_fwd, eeg_info, cov)
    assert_same(state(other), state(brief))
    assert other.history_ == brief.history_


def test_fit_leaves_global_generators_alone(params, eeg_fwd, eeg_info, cov):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    DeepSIFEstimator(**params | dict(n_steps=1)).fit(eeg_fwd, eeg_info, cov)
    assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_fit_without_info_and_noise_covariance(params, brief, eeg_fwd):
    """All channels, an average reference, MNE's ad-hoc noise: as given by hand."""
    estimator = DeepSIFEstimator(**params).fit(eeg_fwd)
    assert estimator.recipe_ == brief.recipe_
    assert_same(state(estimator), state(brief))


def test_training_helps(fitted):
    first, best = fitted.history_[0][1], min(loss for _, loss in fitted.history_)
    assert_allclose(first, 1, rtol=1e-5)  # the first estimate is zero
    assert best < 0.8


def test_published_architecture(params, evoked, eeg_fwd, eeg_info, cov, tmp_path):
    """It reads channels, as published; it goes through a file."""
    settings = params | dict(architecture="published", n_steps=5)
    estimator = DeepSIFEstimator(encoder="sensors", **settings)
    stc = estimator.fit(eeg_fwd, eeg_info, cov).predict(evoked)
    assert stc.data.any() and np.isfinite(stc.data).all()
    fname = tmp_path / "x-deepsif.safetensors"
    estimator.save(fname)
    again = read_deepsif(fname).predict(evoked, eeg_fwd, cov)
    assert_array_equal(again.data, stc.data)
    with pytest.raises(ValueError, match="reads channels.*use encoder='sensors'"):
        DeepSIFEstimator(**settings).fit(eeg_fwd, eeg_info, cov)


# --------------------------------------------------------------- from given weights


def test_fit_from_given_weights(params, brief, eeg_fwd, eeg_info, cov, tmp_path):
    """Where training ruins the network, the given weights come back as they were."""
    fname = tmp_path / "start-deepsif.safetensors"
    brief.save(fname)
    before = state(brief)
    for weights in (brief, fname):
        settings = params | dict(weights=weights, parcels=None, learning_rate=1e6)
        estimator = DeepSIFEstimator(**settings | dict(n_times=7, sfreq=1.0))
        estimator.fit(eeg_fwd, eeg_info, cov)
        assert_same(state(estimator), before)
        scores = estimator.metrics_
        for name in ("peak_error", "roc_auc"):
            assert scores[f"{name}_before"] == scores[f"{name}_after"] > 0
        assert estimator.n_times_ == N_TIMES and estimator.sfreq_ == SFREQ  # theirs
        assert estimator.recipe_["start"] == brief.recipe_
        assert estimator.network_ is not brief.network_
    settings |= dict(learning_rate=1e-3, random_state=1, n_steps=300, batch_size=32)
    settings["weights"] = str(fname)
    with catch_logging() as log:
        estimator = DeepSIFEstimator(**settings, verbose="INFO")
        estimator.fit(eeg_fwd, eeg_info, cov)
    assert_same(state(brief), before)
    moved = np.abs(state(estimator)["embed.weight"] - before["embed.weight"])
    assert 0 < moved.max() < 0.2
    # the loss is that of the estimate, not of the network's answer
    first, last = (
        estimator.metrics_[f"validation_loss_{when}"] for when in ("before", "after")
    )
    assert last < first < brief.metrics_["validation_loss_after"]
    scores = estimator.metrics_
    first, last = (1e3 * scores[f"peak_error_{when}"] for when in ("before", "after"))
    assert last < first
    assert f"peak error {first:.1f} -> {last:.1f} mm" in log.getvalue()
    assert scores["roc_auc_before"] < scores["roc_auc_after"] < 1
    assert 24 <= scores["n_windows"] <= 32


def test_given_weights_of_other_sizes(params, eeg_fwd, eeg_info, cov, brief):
    """Their sizes count, not the defaults of the architecture."""
    start = clone(brief).fit(eeg_fwd, eeg_info, cov)
    n_parcels = start.parcels_.n_parcels
    wide = make_network("compact", N_KERNELS * n_parcels, n_parcels, N_TIMES, width=24)
    start.model_ = replace(start.model_, network=wide)
    estimator = DeepSIFEstimator(**params | dict(weights=start))
    assert estimator.fit(eeg_fwd, eeg_info, cov).network_.sizes["width"] == 24


def test_given_weights_of_other_kind(params, brief, by_sensors, eeg_fwd):
    settings = params | dict(encoder="sensors")
    for weights, name, value in (
        (brief, "encoder", "sensors"),
        (by_sensors, "architecture", "published"),
    ):
        other = {"weights": weights, name: value}
        estimator = DeepSIFEstimator(**settings | other)
        match = f"are for {name}='.*', got {name}='{value}'; use weights=None"
        with pytest.raises(ValueError, match=match):
            estimator.fit(eeg_fwd)
    parcels = brief.parcels_
    moved = replace(parcels, mapping=np.roll(parcels.mapping, 1))
    with pytest.raises(ValueError, match="belong to another parcellation"):
        DeepSIFEstimator(**params | dict(weights=brief, parcels=moved)).fit(eeg_fwd)


def test_sensor_weights_keep_their_channels(
    params, by_sensors, eeg_fwd, eeg_info, cov, evoked
):
    """Personalised on data in another order, it reads the same rows."""
    names = eeg_info["ch_names"][::-1]
    shuffled = evoked.copy().reorder_channels(names).info
    settings = params | dict(weights=by_sensors, encoder="sensors")
    estimator = DeepSIFEstimator(**settings).fit(eeg_fwd, shuffled, cov)
    assert estimator.ch_names_ == by_sensors.ch_names_ == eeg_info["ch_names"]
    shuffled["bads"] = names[:1]
    with pytest.raises(ValueError, match=rf"1 of 32 channels .*\['{names[0]}'\]"):
        DeepSIFEstimator(**settings).fit(eeg_fwd, shuffled, cov)


def test_ctrl_c(params, eeg_fwd, eeg_info, cov, monkeypatch):
    """It ends the training, not the program, and says so."""

    def press(self, step):
        if step == 3:
            _thread.interrupt_main()

    monkeypatch.setattr(mne.utils.ProgressBar, "update", press)
    estimator = DeepSIFEstimator(**params | dict(n_steps=3000))
    with catch_logging("INFO") as log:
        estimator.fit(eeg_fwd, eeg_info, cov)
        said = log.getvalue()
    assert 3 <= estimator.recipe_["n_steps"] < 3000
    assert "Interrupted after" in said and "keeping the best weights so far" in said


def test_checkpoint(params, brief, eeg_fwd, eeg_info, cov, tmp_path):
    """A training that was cut ends as one that was not."""
    fname = tmp_path / "checkpoint.pt"
    settings = params | dict(checkpoint=fname)
    DeepSIFEstimator(**settings).fit(eeg_fwd, eeg_info, cov)
    estimator = DeepSIFEstimator(**settings).fit(eeg_fwd, eeg_info, cov)
    assert_same(state(estimator), state(brief))
    settings["batch_size"] = 4
    with pytest.raises(ValueError, match="checkpoint.pt was written with other"):
        DeepSIFEstimator(**settings).fit(eeg_fwd, eeg_info, cov)


# --------------------------------------------------------------- files


@pytest.mark.parametrize("which", ("fitted", "by_sensors"))
def test_save_and_read(request, which, strong, eeg_fwd, cov, tmp_path):
    """Output, parameters, parcels and history come back; one file, whole."""
    estimator = request.getfixturevalue(which)
    fname = tmp_path / "x-deepsif.safetensors"
    estimator.save(fname)
    assert list(tmp_path.iterdir()) == [fname]
    again = read_deepsif(str(fname))
    expected = estimator.predict(strong, eeg_fwd, cov)
    assert expected.data.any()
    assert_array_equal(again.predict(strong, eeg_fwd, cov).data, expected.data)
    by_name = apply_deepsif(strong, eeg_fwd, cov, estimator=fname)
    assert_array_equal(by_name.data, expected.data)
    learned = ("sfreq_", "n_times_", "ch_names_", "history_", "recipe_", "metrics_")
    for name in learned:
        assert getattr(again, name) == getattr(estimator, name), name
    for name, value in estimator.fingerprint_.items():
        assert_array_equal(again.fingerprint_[name], value)
    before, after = estimator.get_params(), again.get_params()
    assert after["device"] == "auto"  # the file serves on any machine
    for name in ("parcels", "device"):
        before.pop(name), after.pop(name)
    assert after == before
    for name in ("subject", "mapping", "areas", "centers", "n_vertices_lh"):
        assert_array_equal(
            getattr(again.parcels_, name), getattr(estimator.parcels_, name)
        )
    difference = again.parcels_.adjacency != estimator.parcels_.adjacency
    assert difference.nnz == 0


# --------------------------------------------------------------- predict


def test_predict_is_apply(fitted, evoked, eeg_fwd, cov):
    """For Evoked, Epochs and Raw, with the forward of fit or another one."""
    kwargs = dict(estimator=fitted)
    stc = fitted.predict(evoked)
    assert stc.data.any()
    expected = apply_deepsif(evoked, eeg_fwd, cov, **kwargs)
    assert_array_equal(stc.data, expected.data)
    assert_allclose(stc.times, evoked.times)
    assert_array_equal(fitted.predict(evoked, eeg_fwd, cov).data, expected.data)

    epochs = mne.EpochsArray(
        np.stack([evoked.data, -evoked.data]), evoked.info, tmin=-0.1, proj=False
    )
    expected = apply_deepsif_epochs(epochs, eeg_fwd, cov, **kwargs)
    for one, two in zip(fitted.predict(epochs), expected, strict=True):
        assert_array_equal(one.data, two.data)

    raw = mne.io.RawArray(evoked.data, evoked.info)
    expected = apply_deepsif_raw(raw, eeg_fwd, cov, **kwargs)
    assert_array_equal(fitted.predict(raw).data, expected.data)


def test_predict_wrong_input(fitted, by_sensors, evoked, eeg_fwd, tmp_path):
    with pytest.raises(TypeError, match="inst must be an instance of Evoked"):
        fitted.predict(evoked.data)
    fitted.save(tmp_path / "x-deepsif.safetensors")
    again = read_deepsif(tmp_path / "x-deepsif.safetensors")
    with pytest.raises(ValueError, match="keeps no forward solution; pass fwd"):
        again.predict(evoked)


@pytest.mark.parametrize("which", ("fitted", "by_sensors"))
def test_channel_order_does_not_matter(request, which, strong):
    estimator = request.getfixturevalue(which)
    expected = estimator.predict(strong)
    assert expected.data.any()
    names = np.random.default_rng(0).permutation(strong.ch_names)
    stc = estimator.predict(strong.reorder_channels(list(names)))
    assert_allclose(stc.data, expected.data, atol=1e-3 * np.abs(expected.data).max())


def test_bad_channels(fitted, evoked, eeg_fwd):
    """A bad channel is not looked at; the estimate stays about the same."""
    expected = fitted.predict(evoked).data
    evoked.info["bads"] = ["Cz"]
    one = fitted.predict(evoked).data
    evoked.data[evoked.ch_names.index("Cz")] = 1.0  # V
    assert_array_equal(fitted.predict(evoked).data, one)
    assert 0.5 < np.corrcoef(one.ravel(), expected.ravel())[0, 1] < 0.99999


def test_sensors_demand_their_channels(by_sensors, evoked, eeg_fwd, cov):
    assert by_sensors.ch_names_ == evoked.ch_names
    match = r"1 of 32 channels .*\['Cz'\].*interpolate_to.*fit.*'generic'"
    with pytest.raises(ValueError, match=match):
        by_sensors.predict(evoked.copy().drop_channels(["Cz"]))
    evoked.info["bads"] = ["Cz"]
    with pytest.raises(ValueError, match=match):
        by_sensors.predict(evoked)


def test_sensors_of_one_type_only(params, eeg_info, eeg_fwd):
    """Channels in V and in T cannot be read as they are."""
    meg = mne.channels.read_meg_canonical_info("neuromag")
    meg = mne.pick_info(meg, mne.pick_types(meg, meg="mag")[::8])
    with meg._unlock():
        meg["dev_head_t"] = mne.transforms.Transform("meg", "head")
        meg["dev_head_t"]["trans"][2, 3] = 0.05
        meg["projs"] = []
    for ch in meg["chs"]:
        ch["loc"][:3] *= 1.5  # out of the sphere
    raws = [mne.io.RawArray(np.zeros((len(i["chs"]), 1)), i) for i in (eeg_info, meg)]
    for raw in raws:
        with raw.info._unlock():
            raw.info["sfreq"] = 250.0
    with raws[0].info._unlock():
        raws[0].info["dev_head_t"] = meg["dev_head_t"]
    info = raws[0].add_channels([raws[1]], force_update_info=True).info
    sphere = mne.make_sphere_model((0.0, 0.0, 0.04), 0.125, info)
    src = eeg_fwd["src"].copy()
    for s in src:
        mne.transform_surface_to(s, "mri", eeg_fwd["mri_head_t"], copy=False)
    fwd = mne.make_forward_solution(
        info, make_template_trans(info), src, sphere, mindist=0.0
    )
    estimator = DeepSIFEstimator(encoder="sensors", **params)
    with pytest.raises(ValueError, match=r"one type.*\['eeg', 'mag'\]; pick one, or"):
        estimator.fit(fwd, info)
    estimator.set_params(encoder="backprojection").fit(fwd, info)
    assert estimator.recipe_["n_channels"] == len(info["ch_names"])


# --------------------------------------------------------------- amplitudes


@pytest.mark.parametrize("which", ("fitted", "by_sensors"))
@pytest.mark.parametrize("factor", (1e-6, 3.0, 1e9))
@pytest.mark.filterwarnings("ignore:The data of type 'eeg' vary")
def test_scale_of_the_data_is_that_of_the_estimate(request, which, strong, factor):
    estimator = request.getfixturevalue(which)
    expected = estimator.predict(strong).data
    assert expected.any()
    strong.data *= factor
    out = estimator.predict(strong).data / factor
    assert_allclose(out, expected, atol=1e-4 * np.abs(expected).max())


def test_a_strong_source_is_explained(fitted, strong, eeg_fwd):
    """MNE's forward of the estimate resembles the data of a simulated patch."""
    fit = mne.apply_forward(eeg_fwd, fitted.predict(strong), strong.info).data
    # referenced, and without the constant in time, which the scale is not fitted to
    fit, data = (x - x.mean(0) for x in (fit, strong.data))
    fit, data = (x - x.mean(1, keepdims=True) for x in (fit, data))
    assert np.corrcoef(fit.ravel(), data.ravel())[0, 1] > 0.7
    assert 0.3 < np.linalg.norm(fit) / np.linalg.norm(data) < 1.1


@pytest.mark.parametrize("which", ("fitted", "by_sensors"))
def test_data_of_zeros(request, which, strong):
    """They hold no activity: the estimate is zero, not NaN."""
    estimator = request.getfixturevalue(which)
    strong.data[:] = 0
    assert not estimator.predict(strong).data.any()


@pytest.mark.parametrize("which", ("fitted", "by_sensors"))
def test_data_without_change(request, which, strong):
    """A topography that stays: channels as published see nothing of it."""
    estimator = request.getfixturevalue(which)
    expected = np.abs(estimator.predict(strong).data).max()
    strong.data[:] = 3e-6 * np.random.default_rng(0).standard_normal((32, 1))
    if which == "by_sensors":
        with pytest.warns(RuntimeWarning, match="does not change within"):
            out = estimator.predict(strong).data
        assert np.abs(out).max() <= 1e-5 * expected
    else:
        assert np.isfinite(estimator.predict(strong).data).all()


# --------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("name", "value"),
    (
        ("encoder", "channels"),
        ("architecture", "transformer"),
        ("precision", "float8"),
    ),
)
def test_fit_wrong_option(params, eeg_fwd, name, value):
    estimator = DeepSIFEstimator(**params | {name: value})
    match = f"Invalid value for the '{name}' parameter.*{value!r} instead"
    with pytest.raises(ValueError, match=match):
        estimator.fit(eeg_fwd)


def test_fit_wrong_types(params, evoked, eeg_fwd):
    with pytest.raises(TypeError, match="fwd must be an instance of Forward"):
        DeepSIFEstimator(**params).fit(evoked)
    with pytest.raises(TypeError, match="parcels must be an instance of Parcels"):
        DeepSIFEstimator(**params | dict(parcels="nmm_994")).fit(eeg_fwd)
    with pytest.raises(TypeError, match="info must be an instance of Info"):
        DeepSIFEstimator(**params).fit(eeg_fwd, evoked)


def test_fit_on_another_library(params, eeg_fwd):
    """A library that does not fit the network says what would."""
    whole = library.make_library(None)
    for wrong in (replace(whole, sfreq=250.0), replace(whole, background=np.eye(7))):
        estimator = DeepSIFEstimator(**params | dict(library=wrong))
        with pytest.raises(ValueError, match="library must have 200 parcels .* 125 Hz"):
            estimator.fit(eeg_fwd)
    with pytest.raises(TypeError, match="library must be an instance of Library"):
        DeepSIFEstimator(**params | dict(library="library")).fit(eeg_fwd)


def test_fit_on_own_library(params, eeg_fwd, monkeypatch, tmp_path):
    """Training draws from a given library. Files do not keep it."""
    whole = library.make_library(None)
    expected = DeepSIFEstimator(**params).fit(eeg_fwd)
    other = replace(whole, waveforms=whole.waveforms[:, ::-1] ** 3)

    def fail(*args, **kwargs):
        raise AssertionError("nothing is simulated")

    monkeypatch.setattr(library, "make_library", fail)
    same = clone(DeepSIFEstimator(**params | dict(library=whole))).fit(eeg_fwd)
    assert same.history_ == expected.history_
    different = DeepSIFEstimator(**params | dict(library=other)).fit(eeg_fwd)
    assert different.history_ != expected.history_
    same.save(tmp_path / "own-deepsif.safetensors")
    assert read_deepsif(tmp_path / "own-deepsif.safetensors").library is None


@pytest.fixture
def no_training(monkeypatch):
    """Make any simulation or training fail: what is wrong is found before."""

    def fail(*args, **kwargs):
        raise AssertionError("too late")

    monkeypatch.setattr(library, "make_library", fail)
    monkeypatch.setattr("mne_deepsif.estimator.Trainer", fail)


@pytest.mark.parametrize(
    ("name", "value", "match"),
    (
        ("device", "gpu", "device must be a torch device .* 'gpu'"),
        ("n_steps", 0, "n_steps must be 1 or more, got 0"),
        ("batch_size", 0, "batch_size must be 1 or more"),
        ("precision", "half", "precision"),
        ("checkpoint", "nowhere/state.pt", "existing folder.*'nowhere/state.pt'"),
        ("checkpoint", ".", "checkpoint must be a file"),
    ),
)
def test_what_is_wrong_is_found_before(
    params, eeg_fwd, no_training, tmp_path, monkeypatch, name, value, match
):
    """Neither the library nor the training is begun."""
    monkeypatch.chdir(tmp_path)
    estimator = DeepSIFEstimator(**params | {name: value})
    with pytest.raises((ValueError, FileNotFoundError), match=match):
        estimator.fit(eeg_fwd)


def test_wrong_geometry_is_found_before(params, eeg_fwd, eeg_info, no_training):
    """As apply_deepsif would after it."""
    fwd, info = eeg_fwd.copy(), eeg_info.copy()
    for one in (fwd["info"], info):
        for ch in one["chs"]:
            ch["loc"][:3] *= 1e-3
    with pytest.raises(ValueError, match="Then make the forward solution again"):
        DeepSIFEstimator(**params).fit(fwd, info)


def test_custom_reference(params, evoked, eeg_fwd, brief):
    """Fit cannot know which it is. What it learns holds for any of all channels."""
    mastoid = evoked.copy().del_proj().set_eeg_reference(["T7", "T8"])
    with catch_logging() as log:
        settings = params | dict(weights=brief, parcels=None, n_steps=1)
        estimator = DeepSIFEstimator(**settings, verbose="INFO")
        estimator.fit(eeg_fwd, mastoid.info)
    assert "set_eeg_reference('average', projection=True)" in log.getvalue()
    with pytest.raises(ValueError, match="Custom EEG reference is not allowed"):
        estimator.predict(mastoid)
    mastoid.set_eeg_reference("average", projection=True)
    whole = evoked.copy().del_proj().set_eeg_reference("average", projection=True)
    expected = estimator.predict(whole).data
    found = estimator.predict(mastoid).data
    assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def test_fit_without_channels(params, eeg_fwd, eeg_info):
    info = eeg_info.copy()
    info["bads"] = info["ch_names"]
    with pytest.raises(ValueError, match="All 32 channels .* marked bad"):
        DeepSIFEstimator(**params).fit(eeg_fwd, info)


def test_other_parcellation(params, parcels, evoked, eeg_fwd, eeg_info, monkeypatch):
    """Parcels from labels serve as well as the template's."""
    labels = parcels.to_labels()
    merged = [one + two for one, two in zip(labels[:60:2], labels[1:60:2])]
    coarse = make_parcels(merged)
    whole = library.make_library(None)
    patches = np.stack([np.arange(30), (np.arange(30) + 1) % 30], 1)
    part = replace(
        whole,
        patches=patches,
        decay=np.ones((30, 2)),
        background=whole.background[:30],
    )
    monkeypatch.setattr(library, "make_library", lambda parcels, **_: part)
    estimator = DeepSIFEstimator(**params | dict(parcels=coarse))
    estimator.fit(eeg_fwd, eeg_info)
    stc = estimator.predict(evoked)
    lh, rh = coarse.by_hemi()
    inside = np.concatenate([lh[stc.vertices[0]], rh[stc.vertices[1]]]) >= 0
    assert stc.data[inside].any() and not stc.data[~inside].any()


# --------------------------------------------------------------- threads, processes


def assert_close(out, expected):
    """Equal within what the order of float32 sums makes of it."""
    assert expected.any()
    assert_allclose(out, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("which", ("fitted", "by_sensors"))
def test_pickle(request, which, strong):
    """With the forward of fit, so that predict needs none."""
    estimator = request.getfixturevalue(which)
    again = pickle.loads(pickle.dumps(estimator))
    assert_array_equal(again.predict(strong).data, estimator.predict(strong).data)
    assert again.recipe_ == estimator.recipe_ and again.history_ == estimator.history_
    assert copy.deepcopy(estimator).predict(strong).data.any()


@pytest.mark.parametrize("backend", ("threading", "loky"))
def test_n_jobs_does_not_matter(fitted, strong, backend):
    """Through joblib, as a user does it: the estimator goes to other processes."""
    inputs = [strong, strong.copy().crop(0.02), strong.copy().crop(0, 0.2)]
    expected = [fitted.predict(inst).data for inst in inputs]
    parallel = joblib.Parallel(n_jobs=2, backend=backend)
    stcs = parallel(joblib.delayed(fitted.predict)(inst) for inst in inputs)
    for stc, want in zip(stcs, expected, strict=True):
        assert_close(stc.data, want)

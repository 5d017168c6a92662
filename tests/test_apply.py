"""Front doors, with a plain minimum norm as estimator so that all can be checked."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
import pytest
from mne.minimum_norm import apply_inverse, make_inverse_operator
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from mne_deepsif import apply_deepsif, apply_deepsif_epochs, apply_deepsif_raw
from mne_deepsif.leadfield import make_leadfield


class MinimumNorm(BaseEstimator):
    """Has what the front doors use of an estimator; linear in the data."""

    def __init__(self, encoder="backprojection", regularization=1e-2):
        self.encoder = encoder
        self.regularization = regularization

    def fit(self, parcels, ch_names=None):
        self.parcels_ = parcels
        self.sfreq_, self.n_times_ = 125.0, 64
        self.ch_names_ = ch_names
        return self

    def _estimate(self, data, gain, sfreq):
        self.given = data, gain, sfreq
        gram = gain @ gain.T
        gram += self.regularization * np.trace(gram) / len(gram) * np.eye(len(gram))
        return gain.T @ np.linalg.lstsq(gram, data, rcond=1e-12)[0]


@pytest.fixture
def estimator(parcels):
    return MinimumNorm().fit(parcels)


@pytest.fixture(scope="module")
def cov(eeg_info):
    return mne.make_ad_hoc_cov(eeg_info)


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


@pytest.fixture
def epochs(evoked):
    data = np.stack([evoked.data, -2 * evoked.data, 0.5 * evoked.data])
    return mne.EpochsArray(data, evoked.info, tmin=-0.1, proj=False)


@pytest.fixture
def raw(evoked):
    return mne.io.RawArray(np.tile(evoked.data, 3), evoked.info)


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
    assert not stc.data[~_in_parcels(estimator.parcels_, stc.vertices)].any()


def _in_parcels(parcels, vertices):
    lh, rh = parcels.by_hemi()
    return np.concatenate([lh[vertices[0]], rh[vertices[1]]]) >= 0


def test_amplitude_explains_the_data(truth, eeg_fwd, cov, estimator):
    """With hardly any regularisation, MNE's forward of the estimate is the data."""
    evoked, _ = truth
    estimator.regularization = 1e-9
    stc = apply_deepsif(evoked, eeg_fwd, cov, estimator=estimator)
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


def test_the_estimator_gets_whitened_data(evoked, eeg_fwd, cov, estimator):
    """It sees what make_leadfield makes, with nave, and the rate of the data."""
    apply_deepsif(evoked, eeg_fwd, cov, estimator=estimator)
    data, gain, sfreq = estimator.given
    leadfield = make_leadfield(
        evoked.info, eeg_fwd, cov, parcels=estimator.parcels_, nave=10
    )
    assert_array_equal(data, leadfield.whiten(evoked.data))
    assert_array_equal(gain, leadfield.gain_white)
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


def test_raw(evoked, raw, eeg_fwd, cov, estimator):
    """Indices are start and stop; times count from the first sample of raw."""
    evoked.nave = 1
    expected = apply_deepsif(evoked, eeg_fwd, cov, estimator=estimator)
    stc = apply_deepsif_raw(raw, eeg_fwd, cov, estimator=estimator)
    assert_allclose(stc.data, np.tile(expected.data, 3), atol=1e-20)
    part = apply_deepsif_raw(
        raw, eeg_fwd, cov, estimator=estimator, start=100, stop=200
    )
    assert_allclose(part.data, expected.data, atol=1e-20)
    assert_allclose(part.times, raw.times[100:200])


# --------------------------------------------------------------- the sensor encoder


@pytest.fixture
def sensor_estimator(parcels, evoked):
    names = evoked.ch_names[25:5:-1]
    return MinimumNorm("sensors").fit(parcels, names)


def test_sensor_encoder(evoked, eeg_fwd, sensor_estimator):
    """Its channels in its order, average-referenced over them, not whitened."""
    names = sensor_estimator.ch_names_
    apply_deepsif(evoked, eeg_fwd, estimator=sensor_estimator)  # and no warning
    data, gain, _ = sensor_estimator.given
    expected = evoked.copy().pick(names).reorder_channels(names).data
    assert_allclose(data, expected - expected.mean(0), atol=1e-18)
    assert len(gain) == len(names)
    assert_allclose(gain.mean(0), 0, atol=1e-9 * np.abs(gain).max())


def test_sensor_encoder_residual(evoked, eeg_fwd, sensor_estimator):
    """The residual's rows belong to its channel names."""
    _, residual = apply_deepsif(
        evoked, eeg_fwd, estimator=sensor_estimator, return_residual=True
    )
    data, gain, _ = sensor_estimator.given
    fit = gain @ sensor_estimator._estimate(data, gain, 250.0)
    assert sorted(residual.ch_names) == sorted(sensor_estimator.ch_names_)
    rows = [residual.ch_names.index(name) for name in sensor_estimator.ch_names_]
    assert_allclose(residual.data[rows], data - fit, atol=1e-18)


@pytest.mark.parametrize("how", ("missing", "bad", "not in the forward"))
def test_sensor_encoder_without_its_channels(evoked, eeg_fwd, sensor_estimator, how):
    name = sensor_estimator.ch_names_[3]
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


@pytest.mark.parametrize("wrong", (3, MinimumNorm, BaseEstimator()))
def test_wrong_estimator(evoked, eeg_fwd, cov, wrong):
    with pytest.raises(TypeError, match="estimator must be an instance of .*DeepSIF"):
        apply_deepsif(evoked, eeg_fwd, cov, estimator=wrong)


def test_not_fitted(evoked, eeg_fwd, cov):
    with pytest.raises(NotFittedError, match="MinimumNorm.* is not fitted"):
        apply_deepsif(evoked, eeg_fwd, cov, estimator=MinimumNorm())


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
    sample_dir, sample_evoked, sample_fwd, sample_cov, estimator, parcels
):
    """On MEG and EEG our minimum norm of parcels resembles MNE's of vertices."""
    estimator.regularization = 1 / 9.0
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
    leadfield = make_leadfield(
        sample_evoked.info,
        sample_fwd,
        sample_cov,
        parcels=parcels,
        subjects_dir=sample_dir,
    )
    fits = [leadfield.whiten(fit.pick(leadfield.ch_names).data) for fit in fits]
    assert np.corrcoef(fits[0].ravel(), fits[1].ravel())[0, 1] > 0.9


def _parcel_sums(stc, parcels):
    """Sum over each parcel's vertices (numbered as the template's) at 100 ms."""
    lh, rh = parcels.by_hemi()
    parcel = np.concatenate([lh[stc.vertices[0]], rh[stc.vertices[1]]])
    data = stc.data[:, stc.time_as_index(0.1)[0]]
    return np.bincount(parcel[parcel >= 0], data[parcel >= 0])

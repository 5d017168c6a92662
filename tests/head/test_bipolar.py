"""Bipolar EEG: the difference of two gains, or one clear word about it."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mne_deepsif import (
    DeepSIFEstimator,
    apply_deepsif,
    apply_deepsif_epochs,
    apply_deepsif_raw,
    assess_deepsif,
    estimate_extent,
    explained_by,
    make_deepsif_operator,
    make_template_subject,
    make_template_trans,
)
from mne_deepsif.head.bipolar import find_bipolar, match_bipolar


@pytest.fixture
def evoked(eeg_info):
    data = 1e-5 * np.random.default_rng(0).standard_normal((32, 125))
    return mne.EvokedArray(data, eeg_info, tmin=-0.1)


def close(one, two, tol=1e-7):
    """Check that two estimates agree."""
    assert_allclose(one.data, two.data, atol=tol * np.abs(two.data).max())


def chain(names):
    """Pair each electrode with the next."""
    return list(zip(names[:-1], names[1:]))


def make_bipolar(evoked, pairs):
    """Re-reference to pairs of electrodes, as mne.set_bipolar_reference does."""
    anodes, cathodes = map(list, zip(*pairs))
    evoked = mne.set_bipolar_reference(evoked.copy().del_proj(), anodes, cathodes)
    return evoked.pick([f"{a}-{c}" for a, c in pairs])


@pytest.fixture
def bipolar(evoked):
    """31 differences of 32 electrodes, which tell as much as an average reference."""
    return make_bipolar(evoked, chain(evoked.ch_names))


@pytest.fixture
def bipolar_cov(eeg_info, cov):
    """Give the noise of the differences, which is not independent."""
    mixing = differences(eeg_info["ch_names"], chain(eeg_info["ch_names"]))
    names = [f"{a}-{c}" for a, c in chain(eeg_info["ch_names"])]
    full = mixing @ np.diag(cov["data"]) @ mixing.T
    return mne.Covariance(full, names, [], [], 1000)


def differences(names, pairs):
    mixing = np.zeros((len(pairs), len(names)))
    for row, (anode, cathode) in enumerate(pairs):
        mixing[row, names.index(anode)] = 1
        mixing[row, names.index(cathode)] = -1
    return mixing


def names_info(names, bipolar=False):
    info = mne.create_info(names, 100.0, "eeg")
    for ch in info["chs"]:
        ch["coil_type"] = 5 if bipolar else ch["coil_type"]
    return info


@pytest.mark.parametrize(
    "names, expected",
    (
        (["Fp1-F7", "F7-T7"], 2),
        (["EEG FP1-F7", "EEG F3 - C3"], 2),
        (["Fp1_F7", "F7/T7", "T7P7", "P7--O1", "P10 O2", "F3–C3"], 6),
        (["POL Fp1-F7", "EEG F7-T7-Ref", "T7-P7 [uV]", "EEG P7-EEG O1"], 4),
        (["P10", "AFF5h", "Fp1 [uV]", "EEG F7", "C3h"], 0),
        (["T8-P8-0", "T8-P8-1", "P8-O2"], 3),  # running numbers
        (["T8_P8-0", "T8_P8-1", "P8_O2"], 3),
        (["A1T3", "T3C3", "C3Cz", "CzC4", "C4T4", "T4A2"], 6),
        (["Fp1", "Fp2", "T3/T7", "T4/T8", "T5/P7", "T6/P8", "Cz"], 0),  # two names
        (["T7_T3", "T8_T4", "P7_T5", "P8_T6", "A1 M1", "M2-A2"], 0),
        (["A1_Fp1", "A2_AF7", "A3_AF3", "B1_Oz", "C3 Fz"], 0),  # plugs
        (["A1 Cz", "A2 AF7", "Fp1F7", "F7T7", "T7P7"], 3),
        (["Fp1_F7", "F7-T7"], 1),  # too few without a hyphen
        (["Fp1_F7", "F7_T7", "T7_P7", *(f"E{i}" for i in range(28))], 0),
        (["E1-E32", "E32-E4"], 2),  # not the 10-05 system, but a chain
        (["EEG 001-EEG 002", "EEG 002-EEG 003"], 2),
        (["Fp1-A1", "Fp2-A2"], 2),  # two references
        (["Fp1", "F7", "Cz-Pz"], 1),
        (["Fp1-A1", "Fp2-A1"], 0),  # one reference
        (["Fp1-Cz", "Fp2-Cz", "F7-Cz", "F8-Cz", "EMG", "EOG", "ECG"], 0),  # the same
        (["Fp1-Ref", "F7-Ref", "Cz-Ref"], 0),
        (["EEG-001", "EEG-002"], 0),
        (["A-1", "A-2", "B-1"], 0),
        (["Fp1", "Cz"], 0),
    ),
)
def test_names_of_bipolar_channels(names, expected):
    assert len(find_bipolar(names_info(names))) == expected
    assert len(find_bipolar(names_info(names, bipolar=True))) == len(names)


@pytest.mark.parametrize("montage", mne.channels.get_builtin_montages())
def test_names_of_montages_are_single(montage):
    names = mne.channels.make_standard_montage(montage).ch_names
    assert not find_bipolar(mne.create_info(names, 100.0, "eeg"))


@pytest.mark.parametrize("form", ("{}_{}", "{}{}", "EEG {}/{}", "{}-{} [µV]"))
def test_other_forms_of_names(eeg_fwd, bipolar, form):
    """Each channel is the difference of the same two rows."""
    expected = match_bipolar(eeg_fwd, bipolar.info)["sol"]["data"]
    for ch in bipolar.info["chs"]:
        ch["coil_type"] = 1
    names = {name: form.format(*name.split("-")) for name in bipolar.ch_names}
    bipolar.rename_channels(names)
    fwd = match_bipolar(eeg_fwd, bipolar.info)
    assert fwd["sol"]["row_names"] == bipolar.ch_names
    assert_allclose(fwd["sol"]["data"], expected)


def test_bipolar_is_the_difference_of_two_gains(evoked, eeg_fwd, bipolar):
    fwd = match_bipolar(eeg_fwd, bipolar.info)
    assert fwd["sol"]["row_names"] == fwd["info"]["ch_names"] == bipolar.ch_names
    pairs = chain(evoked.ch_names)
    picked = mne.pick_channels_forward(eeg_fwd, evoked.ch_names, ordered=True)
    expected = differences(evoked.ch_names, pairs) @ picked["sol"]["data"]
    assert_allclose(fwd["sol"]["data"], expected)
    fixed = [mne.convert_forward_solution(f, force_fixed=True) for f in (fwd, picked)]
    fixed = [f["sol"]["data"] for f in fixed]
    fixed[1] = differences(evoked.ch_names, pairs) @ fixed[1]
    assert_allclose(fixed[0], fixed[1], atol=1e-6 * np.abs(fixed[1]).max())
    assert match_bipolar(fwd, bipolar.info) is fwd  # it knows both places now


@pytest.mark.parametrize("how", ("coil type", "names"))
def test_bipolar(evoked, eeg_fwd, cov, bipolar, bipolar_cov, plain, how):
    """The estimate is that of the average reference: both tell the same."""
    if how == "names":
        for ch in bipolar.info["chs"]:
            ch["coil_type"] = 1
    expected = apply_deepsif(evoked, eeg_fwd, cov, estimator=plain)
    stc = apply_deepsif(bipolar, eeg_fwd, bipolar_cov, estimator=plain)
    close(stc, expected, 1e-6)
    operator = make_deepsif_operator(
        bipolar.info, eeg_fwd, bipolar_cov, estimator=plain
    )
    stc, residual = apply_deepsif(bipolar, operator, return_residual=True)
    close(stc, expected, 1e-6)
    assert residual.ch_names == bipolar.ch_names
    kwargs = dict(estimator=plain, n_passes=0)
    reports = [
        assess_deepsif(evoked, eeg_fwd, cov, **kwargs),
        assess_deepsif(bipolar, eeg_fwd, bipolar_cov, **kwargs),
    ]
    for name in ("snr", "residual", "eyes"):
        values = [report.features[name] for report in reports]
        assert values[0] == pytest.approx(values[1], abs=0.1)
    shares = [
        explained_by(estimate_extent(stc, eeg_fwd["src"]), stc, data, eeg_fwd, noise)
        for data, noise in ((evoked, cov), (bipolar, bipolar_cov))
    ]
    assert_allclose(shares[0], shares[1], atol=1e-6)


@pytest.mark.parametrize("advice", (False, True))
@pytest.mark.parametrize("how", ("coil type", "names"))
def test_bipolar_with_one_place_is_refused(bipolar, plain, advice, how):
    """What MNE makes of the data's own info is the potential of the anode."""
    if how == "names":
        for ch in bipolar.info["chs"]:
            ch["coil_type"] = 1
    if advice:  # of the former error
        bipolar.set_eeg_reference("average", projection=True)
    fwd = sphere_forward(bipolar.info)
    cov = mne.make_ad_hoc_cov(bipolar.info)
    match = r"31 EEG channels are bipolar.*does not mend.*'Fp1' and 'AF3'.*info\['bads'"
    for door, inst in (
        (apply_deepsif, bipolar),
        (apply_deepsif_raw, mne.io.RawArray(bipolar.data, bipolar.info)),
        (apply_deepsif_epochs, mne.EpochsArray(bipolar.data[None], bipolar.info)),
    ):
        with pytest.raises(ValueError, match=match):
            door(inst, fwd, cov, estimator=plain)


def sphere_forward(info):
    """Forward solution of 324 vertices in a sphere."""
    sphere = mne.make_sphere_model((0.0, 0.0, 0.04), 0.125, info)
    src = mne.setup_source_space(
        "fsaverage5", "ico2", "white", make_template_subject(), add_dist=False
    )
    return mne.make_forward_solution(
        info, make_template_trans(info), src, sphere, mindist=0.0
    )


def test_bipolar_without_a_telling_name(evoked, eeg_fwd, plain):
    """Nobody knows the cathode, unless its place is in the channel's loc."""
    pairs = chain(evoked.ch_names)
    named = make_bipolar(evoked, pairs)
    places = {ch["ch_name"]: ch["loc"][:3] for ch in evoked.info["chs"]}
    numbers = {name: f"D{i}" for i, name in enumerate(named.ch_names)}
    unnamed = named.copy().rename_channels(numbers)
    cov = mne.make_ad_hoc_cov(unnamed.info)
    with pytest.raises(ValueError, match="the two electrodes of each channel"):
        apply_deepsif(unnamed, sphere_forward(unnamed.info), cov, estimator=plain)
    expected = match_bipolar(sphere_forward(evoked.info), named.info)
    for ch, (_, cathode) in zip(unnamed.info["chs"], pairs):
        ch["loc"][3:6] = places[cathode]
    found = match_bipolar(sphere_forward(unnamed.info), unnamed.info)
    assert_allclose(
        found["sol"]["data"],
        expected["sol"]["data"],
        atol=1e-6 * np.abs(expected["sol"]["data"]).max(),
    )
    for ch in unnamed.info["chs"]:  # the recording's reference, as a montage puts it
        ch["loc"][3:6] = places["Cz"] + 0.01
    with pytest.raises(ValueError, match="does not know both of their places"):
        apply_deepsif(unnamed, sphere_forward(unnamed.info), cov, estimator=plain)


def test_a_few_bipolar_channels_are_left_out(evoked, eeg_fwd, cov, plain):
    """Beside single electrodes they tell nothing new, but would spoil the average."""
    expected = apply_deepsif(evoked, eeg_fwd, cov, estimator=plain)
    both = mne.set_bipolar_reference(
        evoked.copy().del_proj(), ["Fp1", "O1"], ["Fp2", "O2"], drop_refs=False
    )
    both.set_eeg_reference("average", projection=True)
    assert len(both.ch_names) == 34
    assert match_bipolar(eeg_fwd, both.info) is eeg_fwd
    cov = mne.make_ad_hoc_cov(both.info)
    for data in (both, both.copy().apply_proj()):
        for fwd in (eeg_fwd, eeg_fwd.copy()):
            stc = apply_deepsif(data, fwd, cov, estimator=plain)
            close(stc, expected)


def test_bipolar_in_training(eeg_fwd, bipolar, parcels, small_training):
    settings = dict(n_times=32, n_steps=2, batch_size=8, random_state=0)
    settings |= dict(device="cpu", precision="float32", weights=None, parcels=parcels)
    estimator = DeepSIFEstimator(encoder="sensors", **settings)
    estimator.fit(eeg_fwd, bipolar.info)
    assert estimator.model_.ch_names == bipolar.ch_names
    assert np.isfinite(estimator.predict(bipolar).data).all()

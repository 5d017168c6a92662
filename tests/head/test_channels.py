"""Channels: against MNE's inverse operator, and the rules for spans."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
import pytest
from mne.minimum_norm import make_inverse_operator, prepare_inverse_operator
from numpy.testing import assert_allclose

from mne_deepsif.head.channels import good_spans
from mne_deepsif.head.leadfield import make_leadfield


def _power(data):
    """Gram matrix: equal for data that differ by a rotation of the channels."""
    return data.T @ data


# --------------------------------------------------------------- which channels


def test_demanded_channels(make, eeg_info):
    """ch_names sets the order; a bad one is an error with three ways out."""
    names = eeg_info["ch_names"][20:10:-1]
    assert make(ch_names=names).ch_names == names
    info = eeg_info.copy()
    info["bads"] = names[:1]
    with pytest.raises(ValueError, match=rf"{names[0]}.*interpolate_to.*fit.*generic"):
        make(info, ch_names=names)


def test_all_channels_bad(make, eeg_info, eeg_cov):
    info = eeg_info.copy()
    info["bads"] = info["ch_names"]
    with pytest.raises(ValueError, match="All 32 channels .* are marked bad"):
        make(info)


def test_no_channel_in_common(make):
    info = mne.create_info(["X1", "X2"], 100.0, "eeg")
    with pytest.raises(ValueError, match="data and the forward have no channel in com"):
        make(info)
    cov = mne.Covariance(np.ones(2), ["A", "B"], [], [], 1)
    with pytest.raises(ValueError, match="noise covariance have no channel in common"):
        make(noise_cov=cov)
    with pytest.raises(ValueError, match="neither EEG nor MEG"):
        make(mne.create_info(2, 100.0, "misc"))


def test_one_channel_is_not_enough(make, eeg_info):
    evoked = mne.EvokedArray(np.ones((32, 1)), eeg_info).del_proj()
    info = mne.pick_info(evoked.set_eeg_reference("average").info, [0])
    with pytest.raises(RuntimeError, match="will yield no components"):
        make(info)


def test_moved_sensors(make, eeg_info):
    """A forward made for other sensor positions is reported."""
    info = eeg_info.copy()
    for ch in info["chs"]:
        ch["loc"][:3] += 0.01
    with pytest.warns(RuntimeWarning, match="17 mm apart"):
        make(info)
    for ch in info["chs"]:  # unknown positions are not
        ch["loc"][:3] = np.nan
    make(info)


# --------------------------------------------------------------- noise


def test_ad_hoc_covariance(make, eeg_info):
    """Without a noise covariance there is a warning, and MNE's ad-hoc one."""
    with pytest.warns(RuntimeWarning, match="No noise covariance was given"):
        leadfield = make(noise_cov=None)
    expected = make(noise_cov=mne.make_ad_hoc_cov(eeg_info))
    assert_allclose(leadfield.whitener, expected.whitener)


# --------------------------------------------------------------- spans


def spans_by_hand(raw, start, stop):
    """Look at each sample whether an annotation covers it."""
    times = (np.arange(raw.n_times) + raw.first_samp) / raw.info["sfreq"]
    covered = np.zeros(raw.n_times, bool)
    edges = {start, stop}
    for mark in raw.annotations:
        if mark["description"].lower().startswith(("bad", "edge")):
            end = mark["onset"] + mark["duration"]
            covered |= (times >= mark["onset"] - 1e-9) & (times < end - 1e-9)
            edges.add(int(np.flatnonzero(times >= mark["onset"] - 1e-9)[0]))
    runs, begin = [], None
    for sample in range(start, stop + 1):
        free = sample < stop and not covered[sample]
        if begin is not None and (not free or sample in edges):
            runs.append((begin, sample))
            begin = None
        if free and begin is None:
            begin = sample
    return runs


@pytest.mark.parametrize("first_samp", (0, 1234))
@pytest.mark.parametrize("span", ((0, 1000), (150, 900), (205, 215)))
def test_good_spans(first_samp, span):
    """What is free of bad spans; edges cut, other annotations do not."""
    info = mne.create_info(1, 100.0, "eeg")
    raw = mne.io.RawArray(np.zeros((1, 1000)), info, first_samp=first_samp)
    raw.set_meas_date(0)
    marks = (
        (2.0, 0.5, "BAD_blink"),
        (2.3, 0.4, "bad"),  # overlaps the first
        (4.0, 0.0, "EDGE boundary"),
        (5.0, 1.0, "speech"),
        (8.5, 1.5, "Bad end"),
    )
    onsets, durations, texts = zip(*marks)
    onsets = np.array(onsets) + raw.first_time
    raw.set_annotations(mne.Annotations(onsets, durations, texts, orig_time=0))
    found = good_spans(raw, *span)
    assert found == spans_by_hand(raw, *span)
    if span == (0, 1000):
        assert found == [(0, 200), (270, 400), (400, 850)]
    elif span == (205, 215):
        assert not found


# --------------------------------------------------------------- the real recording


@pytest.fixture(scope="module")
def sample(sample_dir, sample_fwd, sample_cov, parcels):
    """Make the leadfield of the sample recording for an info."""

    def function(info, fwd=sample_fwd, noise_cov=sample_cov, **kwargs):
        return make_leadfield(
            info, fwd, noise_cov, parcels=parcels, subjects_dir=sample_dir, **kwargs
        )

    return function


def _mne_whiten(evoked, fwd, noise_cov, **kwargs):
    """Whiten as MNE's inverse operator does; return the data and its channels."""
    inverse = make_inverse_operator(
        evoked.info, fwd, noise_cov, fixed=True, depth=None, **kwargs
    )
    inverse = prepare_inverse_operator(inverse, evoked.nave, 1 / 9.0)
    names = inverse["info"]["ch_names"]
    data = inverse["whitener"] @ inverse["proj"] @ evoked.copy().pick(names).data
    return data, names


@pytest.mark.parametrize("picks", (["meg", "eeg"], ["eeg"], ["mag"], ["grad"]))
def test_whitening_is_that_of_minimum_norm(
    sample, sample_evoked, sample_fwd, sample_cov, picks
):
    """Same channels, same whitened data: rank, projectors, reference and nave."""
    evoked = sample_evoked.pick(picks, exclude=())
    expected, names = _mne_whiten(evoked, sample_fwd, sample_cov)
    leadfield = sample(evoked.info, nave=evoked.nave)
    assert leadfield.ch_names == names
    data = leadfield.whiten(evoked.copy().pick(names).data)
    assert_allclose(leadfield.gain_white, leadfield.whitener @ leadfield.gain)
    expected = _power(expected)
    assert_allclose(_power(data), expected, atol=1e-9 * expected.max())


def test_whitening_is_that_of_whiten_evoked(sample, sample_evoked, sample_cov):
    leadfield = sample(sample_evoked.info, nave=sample_evoked.nave)
    expected = mne.whiten_evoked(sample_evoked, sample_cov).pick(leadfield.ch_names)
    data = leadfield.whiten(sample_evoked.pick(leadfield.ch_names).data)
    assert_allclose(_power(data), _power(expected.data), atol=1e-9 * _power(data).max())


@pytest.mark.parametrize("where", ("data", "noise_cov", "fwd"))
def test_bads(sample, sample_evoked, sample_fwd, sample_cov, where):
    """Bads of data and covariance count; those of the forward do not, as in MNE."""
    info, cov, fwd = sample_evoked.info, sample_cov.copy(), sample_fwd.copy()
    owner = dict(data=info, noise_cov=cov, fwd=fwd["info"])[where]
    owner["bads"] = [*owner["bads"], "EEG 010", "MEG 0111"]
    inverse = make_inverse_operator(info, fwd, cov, fixed=True)
    leadfield = sample(info, fwd, cov)
    assert leadfield.ch_names == inverse["info"]["ch_names"]
    assert ("EEG 010" in leadfield.ch_names) == (where == "fwd")


def test_missing_anywhere(sample, sample_evoked, sample_fwd, sample_cov):
    """Channels that one of the three lacks are left out."""
    info = sample_evoked.drop_channels(["EEG 001"]).info
    names = sample_fwd["sol"]["row_names"]
    fwd = mne.pick_channels_forward(sample_fwd, exclude=["EEG 002"])
    cov = mne.pick_channels_cov(sample_cov, exclude=["EEG 003"])
    used = sample(info, fwd, cov).ch_names
    assert {"EEG 001", "EEG 002", "EEG 003"} & set(used) == set()
    assert len(used) == len(names) - 3 - 2


def test_projectors_need_not_be_active(sample, sample_evoked):
    """What the projectors remove does not matter; whether they are active neither."""
    leadfield = sample(sample_evoked.info)
    names = leadfield.ch_names
    data = sample_evoked.copy().pick(names).data
    proj = next(p for p in sample_evoked.info["projs"] if p["desc"] == "PCA-v1")
    topography = np.zeros(len(names))
    for name, value in zip(proj["data"]["col_names"], proj["data"]["data"][0]):
        if name in names:
            topography[names.index(name)] = value
    artefact = 1e-12 * topography[:, np.newaxis]
    info = sample_evoked.info.copy()
    for proj in info["projs"]:
        proj["active"] = False
    raw = sample(info)
    assert_allclose(raw.gain, leadfield.gain, atol=1e-12 * np.abs(raw.gain).max())
    white = raw.whiten(data + artefact)
    expected = leadfield.whiten(data)
    assert_allclose(_power(white), _power(expected), atol=1e-6 * _power(white).max())


def test_meg_needs_no_reference(sample, sample_evoked, sample_fwd):
    """EEG without reference is no matter where the EEG is not used."""
    info = sample_evoked.info.copy()
    info["projs"].pop()  # the average reference
    with pytest.raises(ValueError, match="EEG average reference"):
        sample(info)
    fwd = mne.pick_types_forward(sample_fwd, meg=True, eeg=False)
    assert set(sample(info, fwd).ch_types) == {"mag", "grad"}


def test_maxwell_filtered(sample, sample_dir, sample_fwd):
    """The rank of Maxwell-filtered data is MNE's, by info or given."""
    raw = mne.io.read_raw_fif(sample_dir / "sample_audvis_trunc_raw_sss.fif")
    with pytest.warns(RuntimeWarning, match="Too few samples"):
        cov = mne.compute_raw_covariance(raw, rank="info")
    rank = mne.compute_rank(cov, rank="info", info=raw.info)
    assert rank["meg"] < 80
    leadfield = sample(raw.info, noise_cov=cov, rank="info")
    assert len(leadfield.whitener) == sum(rank.values())
    evoked = mne.EvokedArray(raw.get_data(), raw.info)
    expected, names = _mne_whiten(evoked, sample_fwd, cov, rank="info")
    data = leadfield.whiten(evoked.pick(names).data)
    assert_allclose(_power(data), _power(expected), atol=1e-9 * _power(data).max())
    given = sample(raw.info, noise_cov=cov, rank=dict(meg=60, eeg=50))
    assert len(given.whitener) == 110


def test_compensation_must_match(sample, sample_evoked):
    info = sample_evoked.info
    for ch in info["chs"]:
        if ch["ch_name"].startswith("MEG"):
            ch["coil_type"] = int(ch["coil_type"]) + (3 << 16)
    with pytest.raises(RuntimeError, match="Compensation grade"):
        sample(info)


def test_types_must_match(sample, sample_evoked):
    """Magnetometers that the data call gradiometers would be whitened as these."""
    evoked = sample_evoked.pick("mag")
    info = mne.create_info(evoked.ch_names, evoked.info["sfreq"], "grad")
    with pytest.raises(
        ValueError, match="102 channel.*'grad' in the data and 'mag' in"
    ):
        sample(info, noise_cov=mne.make_ad_hoc_cov(info))


def test_tilted_helmet(sample, sample_evoked):
    """A forward of another head position is reported."""
    trans = mne.transforms.rotation(x=np.deg2rad(5))
    info = sample_evoked.info
    info["dev_head_t"]["trans"] = info["dev_head_t"]["trans"] @ trans
    with pytest.warns(RuntimeWarning, match="mm apart in head coordinates"):
        sample(info)

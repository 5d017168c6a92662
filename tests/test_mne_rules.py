"""MNE's rules: in each situation, what apply_inverse or apply_lcmv does."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import shutil

import mne
import numpy as np
import pytest
from mne.beamformer import apply_lcmv, make_lcmv
from mne.minimum_norm import (
    apply_inverse,
    apply_inverse_epochs,
    apply_inverse_raw,
    make_inverse_operator,
    prepare_inverse_operator,
)
from numpy.testing import assert_allclose, assert_array_equal

from mne_deepsif import (
    apply_deepsif,
    apply_deepsif_epochs,
    apply_deepsif_raw,
    make_template_source_space,
    make_template_subject,
)
from mne_deepsif.head.leadfield import make_leadfield
from mne_deepsif.head.template import make_template_trans


@pytest.fixture(scope="module")
def plain(minimum_norm):
    """Give a minimum norm of parcels, so that only the rules can differ from MNE's."""
    return minimum_norm(regularization=1 / 9)


@pytest.fixture
def ours(plain):
    """Our estimate."""

    def function(evoked, fwd, cov, **kwargs):
        return apply_deepsif(evoked, fwd, cov, estimator=plain, **kwargs)

    return function


def mne_minimum_norm(evoked, fwd, cov):
    inverse = make_inverse_operator(evoked.info, fwd, cov, fixed=True, depth=None)
    return apply_inverse(evoked, inverse, 1 / 9, "MNE")


def lcmv(evoked, fwd, cov):
    fwd = mne.convert_forward_solution(fwd, force_fixed=True)
    # the beamformer of white noise: what it does with channels is what matters
    data_cov = cov if cov is not None else mne.make_ad_hoc_cov(evoked.info)
    filters = make_lcmv(evoked.info, fwd, data_cov, reg=0.05, noise_cov=cov)
    return apply_lcmv(evoked, filters)


MNE = pytest.mark.parametrize("mne_function", (mne_minimum_norm, lcmv))


@pytest.fixture(scope="module")
def cov(eeg_info):
    """Draw a full noise covariance of the 32 electrodes."""
    mixing = 1e-6 * np.random.default_rng(0).standard_normal((32, 96))
    return mne.Covariance(mixing @ mixing.T, eeg_info["ch_names"], [], [], nfree=1000)


@pytest.fixture
def evoked(eeg_info):
    """Band-limited noise with a source at its largest in the middle."""
    rng = np.random.default_rng(1)
    times = np.arange(125) / 250
    course = np.exp(-0.5 * ((times - 0.25) / 0.03) ** 2) * np.sin(60 * times)
    data = rng.standard_normal((32, 1)) * course + 0.1 * rng.standard_normal((32, 125))
    return mne.EvokedArray(1e-5 * data, eeg_info, tmin=-0.1, nave=7)


def same(one, two, tol=1e-7):
    """Say whether two estimates agree."""
    return np.allclose(one.data, two.data, rtol=0, atol=tol * np.abs(two.data).max())


def error_of(function, *args):
    """Return the type and first words of what a call raises, None if nothing."""
    try:
        function(*args)
    except Exception as error:
        return type(error), str(error)[:40]


# --------------------------------------------------------------- which channels


def used(function, evoked, fwd, cov):
    """List those of three channels whose data matter to the estimate."""
    expected = function(evoked, fwd, cov)
    names = []
    for name in ("Cz", "Pz", "Fz"):
        changed = evoked.copy()
        changed.data[evoked.ch_names.index(name)] *= -3
        if not same(function(changed, fwd, cov), expected):
            names.append(name)
    return names


@MNE
@pytest.mark.parametrize("where", ("data", "noise_cov", "fwd"))
def test_bads(evoked, eeg_fwd, cov, ours, mne_function, where):
    """A channel that data or covariance call bad does not matter, as in MNE."""
    cov, fwd = cov.copy(), eeg_fwd.copy()
    owner = dict(data=evoked.info, noise_cov=cov, fwd=fwd["info"])[where]
    owner["bads"] = ["Cz"]
    names = used(ours, evoked, fwd, cov)
    assert names == used(mne_function, evoked, fwd, cov)
    assert ("Cz" in names) == (where == "fwd")  # the forward's list does not count


@pytest.mark.parametrize("where", ("data", "noise_cov", "fwd"))
def test_missing(evoked, eeg_fwd, cov, ours, where):
    """A channel that one of the three lacks is left out, or an error, as in MNE."""
    args = dict(data=evoked, fwd=eeg_fwd, noise_cov=cov)
    if where == "data":
        evoked.drop_channels(["Cz"])
        assert mne_minimum_norm(evoked, eeg_fwd, cov).data.any()
        assert ours(evoked, eeg_fwd, cov).data.any()
        return
    if where == "fwd":
        args["fwd"] = mne.pick_channels_forward(eeg_fwd, exclude=["Cz"])
    else:
        args["noise_cov"] = mne.pick_channels_cov(cov, exclude=["Cz"])
    args = args.values()
    assert used(mne_minimum_norm, *args) == used(ours, *args) == ["Pz", "Fz"]


@MNE
def test_channel_order(evoked, eeg_fwd, cov, ours, mne_function):
    """Nobody's order matters."""
    rng = np.random.default_rng(0)
    names = [list(rng.permutation(evoked.ch_names)) for _ in range(3)]
    shuffled = (
        evoked.copy().reorder_channels(names[0]),
        mne.pick_channels_forward(eeg_fwd, names[1], ordered=True),
        mne.pick_channels_cov(cov, names[2], ordered=True),
    )
    for function in (ours, mne_function):
        assert same(function(*shuffled), function(evoked, eeg_fwd, cov))


# --------------------------------------------------------------- projectors, reference


@MNE
def test_projectors(evoked, eeg_fwd, cov, ours, mne_function):
    """Active or not, they take their topography out of the data and the gain."""
    artefact = 1e-5 * np.random.default_rng(3).standard_normal((32, 1))
    blink = mne.EvokedArray(artefact * np.ones(20), evoked.info)
    evoked.add_proj(mne.compute_proj_evoked(blink, n_eeg=1))
    spoilt = evoked.copy()
    spoilt.data += artefact
    active = evoked.copy().apply_proj()
    for function in (ours, mne_function):
        expected = function(evoked, eeg_fwd, cov)
        assert same(function(active, eeg_fwd, cov), expected)
        assert same(function(spoilt, eeg_fwd, cov), expected)
        without = evoked.copy().del_proj(-1)
        assert not same(function(without, eeg_fwd, cov), expected, 0.01)


@MNE
def test_average_reference(evoked, eeg_fwd, cov, ours, mne_function):
    """As a projector the former reference does not matter; missing it is an error."""
    moved = evoked.copy()
    moved.data -= moved.data[:1]
    for function in (ours, mne_function):
        expected = function(evoked, eeg_fwd, cov)
        assert same(function(moved, eeg_fwd, cov), expected)
    evoked.del_proj()
    with pytest.warns(RuntimeWarning, match="No average EEG reference"):
        expected = error_of(mne_function, evoked, eeg_fwd, cov)
    assert error_of(ours, evoked, eeg_fwd, cov) == expected
    assert expected[0] is ValueError


@MNE
def test_custom_reference(evoked, eeg_fwd, cov, ours, mne_function):
    """An error, as in MNE; an applied average is not, unlike in MNE."""
    projected = ours(evoked, eeg_fwd, cov)
    evoked.del_proj()
    custom = evoked.copy().set_eeg_reference(["Cz"])
    average = evoked.copy().set_eeg_reference("average")
    for inst in (custom, average):
        error = error_of(mne_function, inst, eeg_fwd, cov)
        assert error[0] is ValueError and error[1].startswith("Custom EEG reference")
    assert error_of(ours, custom, eeg_fwd, cov) == error
    assert same(ours(average, eeg_fwd, cov), projected)


def test_compensation(sample_evoked, sample_fwd, sample_cov, plain, sample_dir):
    """CTF compensation of the data must be that of the forward."""
    sample_evoked.pick("mag")
    for ch in sample_evoked.info["chs"]:
        ch["coil_type"] = int(ch["coil_type"]) + (3 << 16)
    args = sample_evoked.info, sample_fwd, sample_cov
    expected = error_of(make_inverse_operator, *args)
    assert expected[0] is RuntimeError
    kwargs = dict(estimator=plain, subjects_dir=sample_dir)
    with pytest.raises(RuntimeError, match="Compensation grade"):
        apply_deepsif(sample_evoked, sample_fwd, sample_cov, **kwargs)


# --------------------------------------------------------------- noise


def test_nave(evoked, eeg_fwd, cov, ours):
    """The covariance is of single trials: nave and a smaller one are the same."""
    smaller = cov.copy()
    smaller["data"] = cov["data"] / evoked.nave
    single = evoked.copy()
    single.nave = 1
    inverse = make_inverse_operator(evoked.info, eeg_fwd, cov, fixed=True)
    scaled = [
        prepare_inverse_operator(inverse, nave, 1 / 9)["noise_cov"]["eig"]
        for nave in (1, evoked.nave)
    ]
    assert_allclose(scaled[0], evoked.nave * scaled[1])
    assert same(ours(evoked, eeg_fwd, cov), ours(single, eeg_fwd, smaller))


@pytest.mark.parametrize("nave", (0, -1))
def test_nave_not_positive(evoked, eeg_fwd, cov, ours, nave):
    """An error, as MNE's."""
    inverse = make_inverse_operator(evoked.info, eeg_fwd, cov, fixed=True)
    evoked = evoked.copy()
    evoked.nave = nave
    assert error_of(apply_inverse, evoked, inverse)[0] is ValueError
    with pytest.raises(ValueError, match="number of averages"):
        ours(evoked, eeg_fwd, cov)


@pytest.mark.parametrize("rank", (None, "info", dict(eeg=20)))
def test_rank(evoked, eeg_fwd, cov, parcels, rank):
    """The whitener has the rank of MNE's."""
    inverse = make_inverse_operator(evoked.info, eeg_fwd, cov, fixed=True, rank=rank)
    inverse = prepare_inverse_operator(inverse, 1, 1 / 9)
    expected = np.linalg.matrix_rank(inverse["whitener"], tol=1e-3)
    leadfield = make_leadfield(evoked.info, eeg_fwd, cov, parcels=parcels, rank=rank)
    assert np.linalg.matrix_rank(leadfield.whitener, tol=1e-3) == expected


@pytest.fixture(scope="module")
def maxwell(sample_dir):
    """Maxwell-filtered raw of rank 64 or so."""
    return mne.io.read_raw_fif(sample_dir / "sample_audvis_trunc_raw_sss.fif")


def test_maxwell_filtered(maxwell, sample_dir, sample_fwd, parcels):
    """The rank of the noise is that of the data; of an ad-hoc one, MNE warns."""
    kwargs = dict(parcels=parcels, subjects_dir=sample_dir)
    info = maxwell.copy().pick("meg").info
    with pytest.warns(RuntimeWarning, match="Too few samples"):
        cov = mne.compute_raw_covariance(maxwell, picks="meg", rank="info")
    rank = mne.compute_rank(cov, "info", info=info)["meg"]
    assert rank < 80
    for given in (None, "info"):
        inverse = make_inverse_operator(
            info, sample_fwd, cov, fixed=True, rank=given, use_cps=True
        )
        whitener = prepare_inverse_operator(inverse, 1, 1 / 9)["whitener"]
        leadfield = make_leadfield(info, sample_fwd, cov, rank=given, **kwargs)
        assert len(leadfield.whitener) == np.linalg.matrix_rank(whitener)
    ad_hoc = mne.make_ad_hoc_cov(info)
    match = rf"exceeds the theoretical rank from the info \(306 > {rank}\)"
    with pytest.warns(RuntimeWarning, match=match):
        make_inverse_operator(info, sample_fwd, ad_hoc, fixed=True)
    with pytest.warns(RuntimeWarning, match=match):
        make_leadfield(info, sample_fwd, ad_hoc, **kwargs)


@pytest.mark.parametrize("picks", (["mag"], ["grad"], ["eeg"], ["meg", "eeg"]))
def test_channel_types(
    sample_evoked, sample_fwd, sample_cov, plain, sample_dir, parcels, picks
):
    """MEG and EEG together, or one of them: the channels that MNE takes."""
    sample_evoked.pick(picks)
    kwargs = dict(subjects_dir=sample_dir)
    stc = apply_deepsif(
        sample_evoked, sample_fwd, sample_cov, estimator=plain, **kwargs
    )
    inverse = make_inverse_operator(
        sample_evoked.info, sample_fwd, sample_cov, fixed=True
    )
    leadfield = make_leadfield(
        sample_evoked.info, sample_fwd, sample_cov, parcels=parcels, **kwargs
    )
    assert leadfield.ch_names == inverse["info"]["ch_names"]
    expected = apply_inverse(sample_evoked, inverse, 1 / 9, "MNE")
    assert stc.subject == expected.subject
    for mine, other in zip(stc.vertices, expected.vertices):
        assert_array_equal(mine, other)


# --------------------------------------------------------------- source spaces


@pytest.mark.parametrize("kind", ("surf_ori", "fixed"))
def test_orientation_of_the_forward(evoked, eeg_fwd, cov, ours, kind):
    """However it is stored, the forward gives the same, here and in MNE."""
    fwd = mne.convert_forward_solution(
        eeg_fwd, surf_ori=True, force_fixed=kind == "fixed"
    )
    for function in (ours, mne_minimum_norm):
        assert same(function(evoked, fwd, cov), function(evoked, eeg_fwd, cov), 1e-5)


@pytest.fixture(scope="module")
def template_dir():
    make_template_subject()
    from mne_deepsif import data_path

    return next(data_path().glob("**/fsaverage5/surf")).parents[1]


@pytest.mark.parametrize("spacing", ("ico4", "oct5", "oct6", "all"))
def test_source_spaces(evoked, eeg_info, eeg_fwd, cov, ours, template_dir, spacing):
    """All vertices of any decimation, and the same source moments in sum."""
    if spacing == "all":
        src = make_template_source_space()
    else:
        src = mne.setup_source_space(
            "fsaverage5", spacing, "white", template_dir, add_dist=False
        )
    sphere = mne.make_sphere_model((0.0, 0.0, 0.04), 0.125, eeg_info)
    trans = make_template_trans(eeg_info)
    fwd = mne.make_forward_solution(eeg_info, trans, src, sphere, mindist=0.0)
    fwd = mne.convert_forward_solution(fwd, surf_ori=True, force_fixed=True)
    stc, expected = ours(evoked, fwd, cov), mne_minimum_norm(evoked, fwd, cov)
    for mine, other, s in zip(stc.vertices, expected.vertices, fwd["src"]):
        assert_array_equal(mine, other)
        assert_array_equal(mine, s["vertno"])
    assert stc.shape == expected.shape
    reference = ours(evoked, eeg_fwd, cov)
    moments = [np.abs(x.data).sum(0) for x in (stc, reference)]
    assert_allclose(moments[0], moments[1], rtol=0.15)
    fits = [
        mne.apply_forward(f, x, evoked.info).data
        for f, x in ((fwd, stc), (eeg_fwd, reference))
    ]
    assert np.corrcoef(fits[0].ravel(), fits[1].ravel())[0, 1] > 0.99


@pytest.mark.parametrize("subject", ("fsaverage5", None))
def test_subject(evoked, eeg_fwd, cov, ours, subject):
    """It is the forward's, never invented."""
    fwd = eeg_fwd.copy()
    for s in fwd["src"]:
        if subject is None:
            del s["subject_his_id"]
    expected = mne_minimum_norm(evoked, fwd, cov)
    if subject is None:
        with pytest.warns(RuntimeWarning, match="No sphere.reg surfaces"):
            stc = ours(evoked, fwd, cov)
    else:
        stc = ours(evoked, fwd, cov)
    assert stc.subject == expected.subject == subject


# --------------------------------------------------------------- times, units


def test_times(evoked, eeg_fwd, cov, ours, plain):
    """Tmin and tstep are those of the data, for evoked, epochs and raw."""
    inverse = make_inverse_operator(evoked.info, eeg_fwd, cov, fixed=True)
    epochs = mne.EpochsArray(evoked.data[np.newaxis], evoked.info, tmin=-0.2)
    raw = mne.io.RawArray(evoked.data, evoked.info, first_samp=1000)
    kwargs = dict(estimator=plain)
    pairs = (
        (ours(evoked, eeg_fwd, cov), apply_inverse(evoked, inverse, method="MNE")),
        (
            apply_deepsif_epochs(epochs, eeg_fwd, cov, **kwargs)[0],
            apply_inverse_epochs(epochs, inverse, 1 / 9, "MNE")[0],
        ),
        (
            apply_deepsif_raw(raw, eeg_fwd, cov, start=5, stop=90, **kwargs),
            apply_inverse_raw(raw, inverse, 1 / 9, "MNE", start=5, stop=90),
        ),
    )
    for stc, expected in pairs:
        assert stc.tmin == pytest.approx(expected.tmin, abs=1e-12)
        assert stc.tstep == pytest.approx(expected.tstep, rel=1e-12)
        assert_allclose(stc.times, expected.times, atol=1e-12)


def test_input_is_left_alone(evoked, eeg_fwd, cov, ours):
    """Nothing that is given is changed."""
    given = evoked.copy(), eeg_fwd.copy(), cov.copy()
    ours(evoked, eeg_fwd, cov, return_residual=True)
    assert_array_equal(evoked.data, given[0].data)
    assert not mne.utils.object_diff(evoked.info, given[0].info)
    assert not mne.utils.object_diff(dict(eeg_fwd), dict(given[1]))
    assert not mne.utils.object_diff(dict(cov), dict(given[2]))


@pytest.mark.parametrize("pick_ori", (None, "vector"))
def test_units_and_apply_forward(evoked, eeg_fwd, cov, ours, pick_ori):
    """A m: MNE's forward of either estimate explains the data equally well."""
    data = evoked.data - evoked.data.mean(0)
    stcs = (
        ours(evoked, eeg_fwd, cov, pick_ori=pick_ori),
        mne_minimum_norm(evoked, eeg_fwd, cov),
    )
    shares = []
    for stc in stcs:
        fit = mne.apply_forward(eeg_fwd, stc, evoked.info).data
        fit -= fit.mean(0)
        shares.append(1 - np.sum((data - fit) ** 2) / np.sum(data**2))
    assert shares[1] > 0.5
    assert_allclose(shares[0], shares[1], atol=0.1)
    norms = [np.linalg.norm(stc.data) for stc in stcs]
    assert 0.3 < norms[0] / norms[1] < 3


# --------------------------------------------------------------- what MNE does with it


def test_label_time_course(evoked, eeg_fwd, cov, ours, parcels):
    """MNE's mean over a parcel's label is the parcel's moment per vertex."""
    stc = ours(evoked, eeg_fwd, cov)
    lh, _ = parcels.by_hemi()
    parcel = lh[1000]
    vertices = np.flatnonzero(lh == parcel)
    label = mne.Label(vertices, hemi="lh", subject="fsaverage5")
    course = mne.extract_label_time_course(stc, [label], eeg_fwd["src"], mode="mean")
    row = np.searchsorted(stc.vertices[0], vertices[vertices < 2562][0])
    assert_allclose(course[0], stc.data[row], rtol=1e-6)


def test_save_and_read(evoked, eeg_fwd, cov, ours, tmp_path):
    """MNE writes and reads it."""
    stc = ours(evoked, eeg_fwd, cov)
    stc.save(tmp_path / "x", overwrite=True)
    again = mne.read_source_estimate(tmp_path / "x", subject="fsaverage5")
    assert_allclose(again.data, stc.data, rtol=1e-6)
    assert_allclose(again.times, stc.times, atol=1e-6)


def test_plot(evoked, eeg_fwd, cov, ours, template_dir):
    """MNE draws it on the template's surface."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    stc = ours(evoked, eeg_fwd, cov)
    kwargs = dict(subjects_dir=template_dir, hemi="lh", surface="white")
    kwargs |= dict(spacing="ico3", smoothing_steps="nearest", initial_time=0.15)
    with pytest.warns(FutureWarning, match="matplotlib 3D backend"):  # no other here
        figure = stc.plot(backend="matplotlib", time_viewer=False, **kwargs)
    assert figure.axes
    matplotlib.pyplot.close(figure)


@pytest.fixture(scope="module")
def both_subjects(sample_dir, template_dir, tmp_path_factory):
    """Folder with the template and the subject of the sample recording."""
    path = tmp_path_factory.mktemp("subjects")
    shutil.copytree(template_dir / "fsaverage5" / "surf", path / "fsaverage5" / "surf")
    (path / "sample_fs5").symlink_to(sample_dir / "sample_fs5")
    return path


@pytest.mark.slow
def test_morph(evoked, eeg_fwd, cov, ours, both_subjects):
    """To another subject by the spherical registration, as any SourceEstimate."""
    stc = ours(evoked, eeg_fwd, cov)
    morph = mne.compute_source_morph(
        stc,
        subject_to="sample_fs5",
        subjects_dir=both_subjects,
        spacing=4,
        smooth="nearest",
    )
    there = morph.apply(stc)
    assert there.subject == "sample_fs5"
    peaks = [stc.get_peak(vert_as_index=True), there.get_peak(vert_as_index=True)]
    assert peaks[0][1] == pytest.approx(peaks[1][1], abs=0.01)


def test_to_original_src(evoked, ours, both_subjects, template_dir, cov):
    """Back from a source space of ours that was morphed for a subject."""
    src = mne.setup_source_space(
        "fsaverage5", "oct4", "white", template_dir, add_dist=False
    )
    morphed = mne.morph_source_spaces(src, "sample_fs5", subjects_dir=both_subjects)
    trans = make_template_trans(evoked.info)
    # a sphere around all of it: no vertex may be lost
    sphere = mne.make_sphere_model((0.0, 0.0, 0.04), 0.14, evoked.info)
    fwd = mne.make_forward_solution(evoked.info, trans, morphed, sphere, mindist=0.0)
    assert fwd["nsource"] == sum(s["nuse"] for s in morphed)
    with pytest.warns(RuntimeWarning, match="trans, .* may be inverted, missing or"):
        stc = ours(evoked, fwd, cov, subjects_dir=both_subjects)
    assert stc.subject == "sample_fs5"
    original = stc.to_original_src(src, subjects_dir=both_subjects)
    assert original.subject == "fsaverage5"
    for vertices, s in zip(original.vertices, src, strict=True):
        assert_array_equal(vertices, s["vertno"])
    assert_allclose(np.sort(original.data[:, 62]), np.sort(stc.data[:, 62]))

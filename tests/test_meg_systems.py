"""MEG as it is recorded: CTF with reference channels, OPM, after a Maxwell filter."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
import pytest
from mne.io.constants import FIFF
from mne.minimum_norm import apply_inverse, make_inverse_operator
from numpy.testing import assert_allclose

from mne_deepsif import apply_deepsif, apply_deepsif_epochs, apply_deepsif_raw
from mne_deepsif.head.template import make_template_trans

N_REFERENCES = 6
SEED = 900  # vertex in whose neighbourhood the sources are, left hemisphere


def wave(sfreq, n_times):
    """Return a spike of 20 nA m in the middle."""
    times = (np.arange(n_times) - n_times // 2) / sfreq
    return 20e-9 * np.exp(-((times / 0.03) ** 2))


def patch(fwd):
    """Return the gain of a patch of 10 mm, as a vector, and its centre (m)."""
    fixed = mne.convert_forward_solution(fwd, force_fixed=True)
    points = fwd["source_rr"]
    near = np.linalg.norm(points - points[SEED], axis=1) < 0.01
    return fixed["sol"]["data"][:, near].mean(1), points[SEED]


def distance(stc, fwd, point):
    """Return the distance (m) of the largest amplitude from a point."""
    return np.linalg.norm(fwd["source_rr"][np.abs(stc.data).max(1).argmax()] - point)


# --------------------------------------------------------------- CTF


def ctf_info():
    """275 axial gradiometers, six reference magnetometers, third-order gradient."""
    info = mne.channels.read_meg_canonical_info("ctf275")
    meg = info["ch_names"]
    rng = np.random.default_rng(0)
    references = mne.create_info([f"R{i}" for i in range(N_REFERENCES)], 1000.0, "mag")
    for index, ch in enumerate(references["chs"]):
        turn = np.roll(np.eye(3), index, axis=1)
        place = [0.1 * (index // 3) - 0.05, 0.0, 0.25]
        ch["loc"] = np.concatenate([place, turn.ravel()])
        ch.update(kind=FIFF.FIFFV_REF_MEG_CH, coil_type=FIFF.FIFFV_COIL_CTF_REF_MAG)
    chs = [*info["chs"], *references["chs"]]
    names = [*meg, *references["ch_names"]]
    info = mne.create_info(names, 1000.0, "mag")
    weights = 0.2 * rng.standard_normal((len(meg), N_REFERENCES))
    table = dict(
        nrow=len(meg),
        ncol=N_REFERENCES,
        row_names=meg,
        col_names=references["ch_names"],
        data=weights,
    )
    comp = dict(ctfkind=0x47334252, kind=3, save_calibrated=True, data=table)
    comp.update(rowcals=np.ones(len(meg)), colcals=np.ones(N_REFERENCES))
    to_head = np.eye(4)
    to_head[2, 3] = 0.05
    with info._unlock():
        info["chs"], info["comps"] = chs, [comp]
        info["dev_head_t"] = mne.transforms.Transform("meg", "head", to_head)
    info._check_consistency()
    return info


@pytest.fixture(scope="module")
def ctf(template_src):
    """Raw without and with compensation, both forwards, centre of the source."""
    info = ctf_info()
    sphere = mne.make_sphere_model((0.0, 0.0, 0.04), None, info)
    trans = make_template_trans(info)

    def forward(raw):
        return mne.make_forward_solution(
            raw.info, trans, template_src, sphere, eeg=False, mindist=0.0
        )

    names, weights = info["ch_names"], info["comps"][0]["data"]["data"]
    raw = mne.io.RawArray(np.zeros((len(names), 1000)), info)
    plain = forward(raw)
    third = forward(raw.copy().apply_gradient_compensation(3))
    field, centre = patch(plain)
    seen, _ = patch(third)
    rng = np.random.default_rng(1)
    # what the references see of the brain: what compensation takes away
    references = np.linalg.lstsq(weights, field - seen, rcond=None)[0]
    course = wave(1000.0, 1000)
    outside = 1e-11 * rng.standard_normal((N_REFERENCES, 1000))
    raw._data[: len(field)] = np.outer(field, course) + weights @ outside
    raw._data[: len(field)] += 5e-15 * rng.standard_normal((len(field), 1000))
    raw._data[len(field) :] = np.outer(references, course) + outside
    compensated = raw.copy().apply_gradient_compensation(3)
    return raw, compensated, plain, third, centre


def test_ctf_compensation(ctf):
    """Compensated data with their forward: the source is found, as MNE finds it."""
    _, raw, _, fwd, centre = ctf
    evoked = mne.EvokedArray(raw.get_data(), raw.info)
    cov = mne.make_ad_hoc_cov(evoked.info)
    stc, residual = apply_deepsif(evoked, fwd, cov, return_residual=True)
    inverse = make_inverse_operator(evoked.info, fwd, cov, fixed=True)
    expected = apply_inverse(evoked, inverse, 1 / 9, "sLORETA")
    assert residual.ch_names == inverse["info"]["ch_names"]  # no reference channel
    assert distance(expected, fwd, centre) < 0.02
    assert distance(stc, fwd, centre) < 0.02
    seen = evoked.copy().pick(residual.ch_names).data
    peak = slice(450, 550)
    rest = np.square(residual.data[:, peak]).sum()
    assert rest < 0.2 * np.square(seen[:, peak]).sum()
    # the channels that it was compensated with are not needed any more
    alone = apply_deepsif(evoked.copy().pick(residual.ch_names), fwd, cov)
    assert_allclose(alone.data, stc.data, atol=1e-5 * np.abs(stc.data).max())


def test_ctf_grade_of_data_and_forward(ctf):
    """Neither data nor forward may be compensated alone, as in MNE."""
    raw, compensated, plain, third, _ = ctf
    for inst, fwd in ((raw, third), (compensated, plain)):
        cov = mne.make_ad_hoc_cov(inst.info)
        with pytest.raises(RuntimeError, match="Compensation grade"):
            make_inverse_operator(inst.info, fwd, cov)
        epochs = mne.EpochsArray(inst.get_data()[np.newaxis], inst.info)
        for door, given in (
            (apply_deepsif, epochs.average(picks="all")),
            (apply_deepsif_epochs, epochs),
            (apply_deepsif_raw, inst),
        ):
            with pytest.raises(RuntimeError, match="Compensation grade"):
                door(given, fwd, cov)


# --------------------------------------------------------------- OPM


def opm_info(eeg_info):
    """Radial QuSpin sensors in a helmet 20 mm beyond electrodes."""
    names = [f"OPM {name}" for name in eeg_info["ch_names"]]
    info = mne.create_info(names, 1000.0, "mag")
    for ch, electrode in zip(info["chs"], eeg_info["chs"], strict=True):
        out = electrode["loc"][:3] - [0, 0, 0.04]
        out /= np.linalg.norm(out)
        x = np.cross(out, [0, 1, 0])
        x /= np.linalg.norm(x)
        place = electrode["loc"][:3] + 0.02 * out
        ch["loc"][:] = np.r_[place, x, np.cross(out, x), out]
        ch["coil_type"] = FIFF.FIFFV_COIL_QUSPIN_ZFOPM_MAG
    info["dev_head_t"] = mne.transforms.Transform("meg", "head", np.eye(4))
    return info


def test_opm(eeg_info, template_src):
    """A source is found, as MNE finds it."""
    info = opm_info(eeg_info)
    fwd = mne.make_forward_solution(
        info,
        make_template_trans(info),
        template_src,
        mne.make_sphere_model((0.0, 0.0, 0.04), None, info),
        eeg=False,
        mindist=0.0,
    )
    field, centre = patch(fwd)
    data = np.outer(field, wave(1000.0, 1000))
    rng = np.random.default_rng(0)
    data += 0.05 * np.abs(data).max() * rng.standard_normal(data.shape)
    evoked = mne.EvokedArray(data, info)
    cov = mne.make_ad_hoc_cov(info)
    stc = apply_deepsif(evoked, fwd, cov)
    inverse = make_inverse_operator(info, fwd, cov, fixed=True)
    expected = apply_inverse(evoked, inverse, 1 / 9, "sLORETA")
    assert distance(expected, fwd, centre) < 0.02
    assert distance(stc, fwd, centre) < 0.02


# --------------------------------------------------------------- Maxwell filter


def test_maxwell_filtered(sample_dir, sample_fwd):
    """306 channels of rank 69: a source is found in what the filter keeps of it."""
    raw = mne.io.read_raw_fif(sample_dir / "sample_audvis_trunc_raw_sss.fif")
    raw.pick("meg").load_data()
    with pytest.warns(RuntimeWarning, match="Too few samples"):
        cov = mne.compute_raw_covariance(raw, picks="meg", rank="info")
    rank = mne.compute_rank(cov, "info", info=raw.info)["meg"]
    fwd = mne.pick_channels_forward(sample_fwd, raw.ch_names, ordered=True)
    field, centre = patch(fwd)
    kept, _, _ = np.linalg.svd(raw.get_data(), full_matrices=False)
    kept = kept[:, :rank]
    field = kept @ (kept.T @ field)
    background = raw.get_data(stop=600)
    course = wave(raw.info["sfreq"], background.shape[1])
    evoked = mne.EvokedArray(
        np.outer(field, course) + 0.01 * background, raw.info, nave=10_000
    )
    stc, residual = apply_deepsif(
        evoked, fwd, cov, subjects_dir=sample_dir, return_residual=True
    )
    inverse = make_inverse_operator(raw.info, fwd, cov, fixed=True, rank="info")
    expected = apply_inverse(evoked, inverse, 1 / 9, "sLORETA")
    assert distance(expected, fwd, centre) < 0.02
    assert distance(stc, fwd, centre) < 0.02
    # nothing was made of the directions that the filter removed
    assert np.linalg.matrix_rank(residual.data, tol=1e-6 * np.abs(field).max()) <= rank

"""Seizure onset zones as labels and electrodes, worked out by hand."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
import pytest

from mne_deepsif import metrics, stc_metrics


def _label(vertices, hemi="lh", name=None):
    return mne.Label(vertices, hemi=hemi, name=name, subject="grid")


@pytest.fixture
def regions():
    """Rows 0 and 1 of the left grid, rows 2 to 4, and all of the right grid."""
    return [
        _label(np.arange(10)),
        _label(np.arange(10, 25)),
        _label(np.arange(25), "rh"),
    ]


@pytest.fixture
def aparc():
    """One vertex for each label of the atlas, and what lies outside of it."""
    names = [name for one in metrics.SUBLOBAR_REGIONS.values() for name in one]
    return [
        _label([vertex], hemi, f"{name}-{hemi}")
        for hemi in ("lh", "rh")
        for vertex, name in enumerate([*names, "unknown"])
    ]


def test_sublobar_labels(aparc):
    """20 regions with their names, and each of the 68 labels once."""
    regions = stc_metrics.sublobar_labels(aparc[::-1])
    assert [r.name for r in regions[:2]] == ["orbitofrontal-lh", "lateral frontal-lh"]
    assert [r.hemi for r in regions] == ["lh"] * 10 + ["rh"] * 10
    assert list(regions[0].vertices) == [0, 1, 2]  # the first three of the atlas
    for hemi in ("lh", "rh"):
        vertices = [list(r.vertices) for r in regions if r.hemi == hemi]
        assert sorted(sum(vertices, [])) == list(range(34))


def test_sublobar_labels_need_the_whole_atlas(aparc):
    with pytest.raises(ValueError, match="none lies in orbitofrontal-rh"):
        stc_metrics.sublobar_labels(aparc[:35])


def test_soz_error_by_hand(src, make_stc):
    """SOZ: vertices 0 and 1, as a label or as positions; estimate: 3 and 10."""
    est = make_stc([3, 10])  # (30, 0) and (0, 20) mm
    # from the SOZ: (0, 0) -> 20 mm, (10, 0) -> 20 mm; back: 20 mm and 20 mm
    for soz in ([_label([0, 1])], [[0, 0, 0], [0.01, 0, 0]]):
        assert stc_metrics.soz_error(soz, est, src) == pytest.approx(0.02)
    # as one electrode at (0, 0): 20 mm; back 30 and 20 mm
    error = stc_metrics.soz_error(np.zeros((1, 3)), est, src)
    assert error == pytest.approx((0.02 + 0.025) / 2)


def test_sublobar_scores_by_hand(src, make_stc, regions):
    """SOZ in the first region; active there and, more strongly, on the right."""
    est = make_stc([3], [4])
    est.data[1] *= 2
    for soz in ([_label([0])], [[0, -0.005, 0.002]]):  # nearest to vertex 0
        assert stc_metrics.sublobar_concordance(soz, est, src, regions) == 0
        assert stc_metrics.sublobar_sensitivity(soz, est, src, regions) == 1
        assert stc_metrics.sublobar_specificity(soz, est, src, regions) == 1 / 2
    on_right = [_label([0]), _label([7], "rh")]
    assert stc_metrics.sublobar_concordance(on_right, est, src, regions) == 1
    # a label across both regions of the left: one of two holds activity
    across = [_label([9, 10])]
    assert stc_metrics.sublobar_sensitivity(across, est, src, regions) == 1 / 2


def test_soz_between_the_vertices_of_src(src, make_stc, make_grid, regions):
    """A label without a vertex of a decimated source space still has its region."""
    coarse = [make_grid(0, vertno=np.arange(0, 25, 2)), src[1]]
    est, soz = make_stc([4]), [_label([1])]
    assert stc_metrics.sublobar_concordance(soz, est, coarse, regions) == 1
    assert stc_metrics.soz_error(soz, est, coarse) == pytest.approx(0.03)


@pytest.mark.parametrize("soz", ([], np.zeros((0, 3))))
def test_no_soz(src, make_stc, regions, soz):
    est = make_stc([3])
    assert np.isnan(stc_metrics.soz_error(soz, est, src))
    assert np.isnan(stc_metrics.sublobar_concordance(soz, est, src, regions))
    assert np.isnan(stc_metrics.sublobar_sensitivity(soz, est, src, regions))
    assert np.isnan(stc_metrics.sublobar_specificity(soz, est, src, regions))


def test_empty_estimate(src, make_stc, regions):
    """An estimate of zero is scored as the array functions do."""
    est, soz = make_stc([3]) * 0, [_label([0])]
    assert np.isnan(stc_metrics.soz_error(soz, est, src))
    assert np.isnan(stc_metrics.sublobar_concordance(soz, est, src, regions))
    assert stc_metrics.sublobar_sensitivity(soz, est, src, regions) == 0
    assert stc_metrics.sublobar_specificity(soz, est, src, regions) == 1


def test_what_is_refused(src, make_stc, regions):
    with pytest.raises(ValueError, match="soz must lie on the surfaces of src"):
        stc_metrics.soz_error([_label([25])], make_stc([3]), src)
    with pytest.raises(TypeError, match="soz must be an instance of"):
        stc_metrics.soz_error(_label([2]), make_stc([3]), src)

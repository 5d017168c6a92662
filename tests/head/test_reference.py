"""The reference of EEG: which ones are the average, and which are refused."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mne_deepsif.head.reference import check_average_reference


def test_reference_does_not_matter(make):
    """Adding the same to all channels changes nothing after whitening."""
    leadfield = make()
    data = np.random.default_rng(0).standard_normal((32, 5))
    assert_allclose(leadfield.whiten(data + 3), leadfield.whiten(data), rtol=1e-6)


def _evoked(info, reference):
    """Random data with the projectors of info removed and a reference applied."""
    rng = np.random.default_rng(0)
    info = info.copy()
    for proj in list(info["projs"]):
        info["projs"].remove(proj)
    evoked = mne.EvokedArray(1e-6 * rng.standard_normal((32, 50)), info)
    return evoked if reference is None else evoked.set_eeg_reference(reference)


def test_missing_reference(make, eeg_info):
    with pytest.raises(ValueError, match=r"EEG average reference .* mandatory"):
        make(_evoked(eeg_info, None).info)


def test_applied_average_reference(make, eeg_info):
    """It counts as much as the projector, and gives the same whitened gain."""
    evoked = _evoked(eeg_info, "average")
    assert evoked.info["custom_ref_applied"]
    assert_allclose(make(evoked.info).gain_white, make().gain_white)
    assert not evoked.info["projs"]  # the caller's info stays
    check_average_reference(evoked.info, evoked.data, evoked.ch_names)


def test_average_reference_with_channels_marked_bad_later(eeg_info):
    """The mean of all channels or of the good ones may be zero."""
    evoked = _evoked(eeg_info, "average")
    evoked.info["bads"] = evoked.ch_names[:3]
    check_average_reference(evoked.info, evoked.data, evoked.ch_names[3:])
    again = _evoked(eeg_info, None)
    again.info["bads"] = again.ch_names[:3]
    again.set_eeg_reference("average")
    check_average_reference(again.info, again.data, again.ch_names[3:])


def test_average_reference_of_a_flat_stretch(eeg_info):
    """Rounding leaves the same 1e-18 V on all channels, which is no reference."""
    data = np.full((len(eeg_info["ch_names"]), 10), 1e-18)
    evoked = _evoked(eeg_info, "average")
    check_average_reference(evoked.info, data, evoked.ch_names)


def test_custom_reference(eeg_info):
    evoked = _evoked(eeg_info, eeg_info["ch_names"][:1])
    with pytest.raises(ValueError, match="Custom EEG reference is not allowed"):
        check_average_reference(evoked.info, evoked.data, evoked.ch_names)
    # no EEG channel is used: no matter
    check_average_reference(evoked.info, evoked.data, ["MEG 0111"])

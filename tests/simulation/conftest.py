"""A parcellation on which neural masses are quick."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import pytest

from mne_deepsif import make_template_parcels


@pytest.fixture(scope="module")
def coarse():
    """40 parcels: neural masses are quick."""
    return make_template_parcels(40)

"""The report of versions."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import io
from importlib.metadata import version

import mne_deepsif


def test_versions():
    """Ours come first, then what MNE reports."""
    file = io.StringIO()
    mne_deepsif.sys_info(file, dependencies="user", check_version=False)
    first, *lines = file.getvalue().splitlines()
    assert first.split() == ["mne_deepsif", mne_deepsif.__version__]
    text = "\n".join(lines)
    assert version("torch") in text and str(mne_deepsif.data_path()) in text
    assert "Platform" in text and version("mne") in text

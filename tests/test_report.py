"""The section of MNE's report."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import matplotlib
import mne
import numpy as np
import pytest

from mne_deepsif import add_deepsif, estimate_extent, simulate_evoked

matplotlib.use("agg")
from matplotlib import pyplot as plt  # noqa: E402

PARTS = ("Estimate at its peak", "Table of extents", "Extents", "Time courses", "Trust")


@pytest.fixture(scope="module")
def recording(eeg_fwd, eeg_info, parcels):
    evoked, _, truth = simulate_evoked(
        eeg_fwd, eeg_info, seeds=[20], parcels=parcels, snr=15.0, random_state=0
    )
    return evoked, eeg_fwd, truth.noise_cov


def test_section(recording, plain, tmp_path):
    """All parts are there, in order; no figure stays open; they can be replaced."""
    report = mne.Report(title="A recording")
    add_deepsif(report, *recording, estimator=plain, n_passes=2)
    (text,) = report.get_contents()[2]
    places = [text.index(f'id="DeepSIF-{name.replace(" ", "_")}"') for name in PARTS]
    assert places == sorted(places) and text.count("<img") == 4
    assert not plt.get_fignums()
    assert "explained (%)" in text and "extent0-" in text
    report.save(tmp_path / "report.html", open_browser=False)
    evoked, fwd, noise_cov = recording
    silent = evoked.copy()
    silent.data[:] = 0
    with np.errstate(all="ignore"):
        add_deepsif(
            *(report, silent, fwd, noise_cov),
            estimator=plain,
            n_passes=0,
            replace=True,
        )
    (text,) = report.get_contents()[2]
    assert text.count("there is no extent") == 3 and text.count("<img") == 2


def test_table_is_that_of_the_extents(recording, plain):
    """Windows, names, areas."""
    from mne_deepsif import apply_deepsif, explained_by
    from mne_deepsif.report import _make_table

    evoked, fwd, noise_cov = recording
    stc = apply_deepsif(evoked, fwd, noise_cov, estimator=plain)
    extents = estimate_extent(stc, fwd, min_area=1e-4)
    shares = explained_by(extents, stc, evoked, fwd, noise_cov)
    html = _make_table(extents, shares)
    assert html.count("<tr>") == len(extents) + 1
    first = extents[0]
    assert f"<td>{first.label.name}</td><td>{1e4 * first.area:.1f}</td>" in html
    assert f"<td>{100 * shares[0]:.0f}</td>" in html


def test_errors(recording):
    with pytest.raises(TypeError, match="report must be an instance of"):
        add_deepsif(None, *recording)
    with pytest.raises(TypeError, match="fwd must be an instance of Forward"):
        add_deepsif(mne.Report(), recording[0], None)

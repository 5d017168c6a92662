"""The figures of "Figures and reports" in the documentation.

    python -m benchmarks.making.figures_viz

Two sources on the template's head, 64 electrodes, 15 dB. Figures go to ``doc/figures``.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import argparse

import matplotlib
import mne
import numpy as np

import mne_deepsif

from ..options import figures_folder, parse_args

# MNI coordinates (m) near which the sources are: temporal left, parietal right
PLACES = (-0.060, -0.025, 0.000), (0.035, -0.055, 0.050)


def simulate():
    """Return evoked response, forward solution and noise covariance."""
    montage = mne.channels.make_standard_montage("biosemi64")
    info = mne.create_info(montage.ch_names, 500.0, "eeg").set_montage(montage)
    fwd = mne_deepsif.make_template_forward(info)
    parcels = mne_deepsif.make_template_parcels()
    seeds = [
        int(np.linalg.norm(parcels.centers - place, axis=1).argmin())
        for place in PLACES
    ]
    evoked, _, truth = mne_deepsif.simulate_evoked(
        fwd, info, seeds=seeds, snr=15.0, random_state=1
    )
    evoked.set_eeg_reference(projection=True)
    return evoked, fwd, truth.noise_cov


def main():
    """Draw the figures."""
    args = parse_args(argparse.ArgumentParser(description=__doc__.split("\n")[0]))
    matplotlib.use("agg")
    mne.set_log_level("ERROR")
    evoked, fwd, noise_cov = simulate()
    stc = mne_deepsif.apply_deepsif(evoked, fwd, noise_cov)
    extents = mne_deepsif.estimate_extent(stc, fwd, evoked, noise_cov)
    report = mne_deepsif.assess_deepsif(evoked, fwd, noise_cov)
    figures = dict(
        estimate=mne_deepsif.plot_estimate(stc),
        extents_cortex=mne_deepsif.plot_extents(extents),
        extents_courses=mne_deepsif.plot_extent_courses(extents, stc),
        trust=mne_deepsif.plot_trust(report),
    )
    for name, figure in figures.items():
        figure.savefig(figures_folder(args.results) / f"{name}.png", dpi=110)


if __name__ == "__main__":
    main()

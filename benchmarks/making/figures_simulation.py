"""Draw the figures of doc/simulation.rst.

    python -m benchmarks.making.figures_simulation [--tvb-python PATH]

With ``--tvb-python`` The Virtual Brain simulates once (minutes); its spectrum is kept
in results/spectrum_tvb.json; else the stored one is drawn, if there is one. The figures
go to doc/figures, or all to ``--results``.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import mne
import numpy as np
from PIL import Image
from scipy.signal import welch

from mne_deepsif import (
    make_distance_connectome,
    make_template_parcels,
    read_tvb_connectivity,
    simulate_jansen_rit,
)
from mne_deepsif.head.anatomy import HEMIS
from mne_deepsif.simulation import make_patches, patch_areas
from mne_deepsif.simulation.connectome import NMM_994_INDEX
from mne_deepsif.simulation.jansen_rit import INPUT_SETTINGS
from mne_deepsif.simulation.waveforms import (
    SFREQ,
    SPIKE_THRESHOLD,
    find_spikes,
    make_bursts,
    make_evoked,
    make_spikes,
)

from ..options import figures_folder, parse_args
from ..provenance import ROOT

TVB = ROOT / "benchmarks" / "studies" / "jansen_rit_tvb.py"
SHARED = ROOT.parent / "shared/data/reference/connectivity_998.zip"
LOWEST = 0.6  # amplitude at the dark end of the patches' colours
STYLE = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}


def save(figure, fname):
    figure.savefig(fname, dpi=110)
    plt.close(figure)
    Image.open(fname).convert("RGB").quantize(256).save(fname, optimize=True)
    print(f"{fname}: {fname.stat().st_size / 1e3:.0f} kB")


# --------------------------------------------------------------- spikes


def draw_spikes(connectome):
    """Traces of seeds under the three inputs, and the library's waveforms."""
    rng = np.random.default_rng(0)
    figure = plt.figure(figsize=(8.0, 4.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.5))
    axes = left.subplots(3, sharex=True, sharey=True)
    n_parcels = connectome.n_parcels
    A = np.full((3, n_parcels), 3.25)
    A[:, n_parcels // 3] = 3.55
    inputs = np.array(INPUT_SETTINGS)
    psp = simulate_jansen_rit(
        6.0,
        connectome,
        n_networks=3,
        A=A,
        mu=inputs[:, 0],
        noise_std=inputs[:, 1],
        picks=[n_parcels // 3],
        random_state=4,
    )[:, 0]
    times = np.arange(psp.shape[1]) / SFREQ
    for i, (trace, (mu, std)) in enumerate(zip(psp, INPUT_SETTINGS)):
        ax = axes[i]
        ax.plot(times, trace, lw=0.6, color="k")
        peaks = find_spikes(trace)
        ax.plot(times[peaks], trace[peaks] + 1, "v", ms=3, color="C3")
        ax.set(title=f"input {mu}/ms, noise × {std}", ylim=(-4, 16))
        ax.axhline(SPIKE_THRESHOLD, color="0.7", lw=0.6, ls=":")
    axes[1].set_ylabel("PSP (mV)")
    axes[2].set_xlabel("time (s)")
    spikes = make_spikes(connectome, 200, rng, n_networks=16, duration=6.0)
    groups = (
        ("spikes", spikes[:12]),
        ("evoked responses", make_evoked(256, rng)[:15]),
        ("200 spikes, mean ± SD", spikes),
        ("rhythmic bursts", make_bursts(6, rng)),
    )
    axes = right.subplots(2, 2, sharex=True, sharey=True)
    for ax, (title, windows) in zip(axes.ravel(), groups):
        draw_windows(ax, title, windows, "mean" in title)
    right.supxlabel("time (s)", size=8)
    right.supylabel("relative to the peak", size=8)
    return figure


def draw_windows(ax, title, windows, average):
    times = (np.arange(windows.shape[1]) - windows.shape[1] // 2) / SFREQ
    if average:
        mean, std = windows.mean(0), windows.std(0)
        ax.fill_between(times, mean - std, mean + std, alpha=0.3, lw=0)
        ax.plot(times, mean, lw=1)
    else:
        ax.plot(times, windows.T, lw=0.6, alpha=0.7)
    ax.set(title=title, xlim=(-0.6, 0.6), ylim=(-1.1, 1.1))


# --------------------------------------------------------------- spectra


def spectrum(psp):
    """Return the power per Hz of (..., n_times), mean over all but networks."""
    frequencies, power = welch(psp, SFREQ, nperseg=1000, detrend="constant")
    return frequencies[1:], power.reshape(len(psp), -1, power.shape[-1]).mean(1)[:, 1:]


def run_tvb(python, connectome, fname, duration=6.0):
    """Simulate with The Virtual Brain and store its spectrum."""
    with tempfile.TemporaryDirectory() as folder:
        files = [f"{folder}/in.npz", f"{folder}/out.npz"]
        np.savez(
            files[0],
            weights=connectome.weights.toarray(),
            lengths=connectome.tract_lengths.toarray(),
            A=np.full(connectome.n_parcels, 3.25),
            mu=0.087,
            noise_std=1.0,
            duration=duration + 1,
            speed=3.0,
            initial=np.zeros(6),
        )
        command = [python, str(TVB), *files]
        subprocess.run(command, check=True, capture_output=True)
        psp = np.load(files[1])["psp"][:, 2000::4]
    frequencies, power = spectrum(psp[None])
    stored = dict(
        source="tvb-library, HeunStochastic, dt 0.5 ms, 3 m/s, papers' connectome",
        duration=duration,
        frequencies=frequencies.tolist(),
        power=[float(f"{value:.4g}") for value in power[0]],
    )
    fname.write_text(json.dumps(stored) + "\n", encoding="utf-8")


def draw_spectra(connectome, papers, tvb_spectrum):
    """Background activity under both connectomes, and The Virtual Brain's."""
    cases = {"ours, distance rule": (connectome, None)}
    if papers is not None:
        cases["ours, papers' connectome"] = (papers, 3.0)
    spectra = {}
    for label, (network, speed) in cases.items():
        psp = simulate_jansen_rit(
            6.0, network, n_networks=16, speed=speed, random_state=0
        )
        level = psp.mean((1, 2))
        frequencies, spectra[label] = spectrum(psp[level < 1.5 * np.median(level)])
    reference = spectra[label].mean(0)  # the last
    if tvb_spectrum.is_file():
        tvb = json.loads(tvb_spectrum.read_text(encoding="utf-8"))
        spectra["The Virtual Brain, papers' connectome"] = np.array([tvb["power"]])
    figure, axes = plt.subplots(
        2, figsize=(5.0, 4.2), height_ratios=(2, 1), sharex=True, layout="constrained"
    )
    for (label, power), style in zip(spectra.items(), ("C0-", "C1-", "k--")):
        mean, low, high = power.mean(0), power.min(0), power.max(0)
        axes[0].loglog(frequencies, mean, style, lw=1.2, label=label)
        axes[1].plot(frequencies, mean / reference, style, lw=1)
        band = low / reference, high / reference
        axes[1].fill_between(
            frequencies, *band, color=style.strip("-"), alpha=0.2, lw=0
        )
    axes[0].set(ylabel="power (mV²/Hz)", xlim=(0.5, 100), ylim=(3e-6, 3e-2))
    axes[0].legend(frameon=False, loc="lower left")
    axes[1].set(xlabel="frequency (Hz)", ylabel="ratio", ylim=(0.7, 1.3))
    return figure


# --------------------------------------------------------------- patches


def draw_patches(parcels):
    """Two patches of different reach on the inflated template."""
    left = np.flatnonzero(parcels.hemi == 0)
    lateral = left[parcels.centers[left, 0].argsort()]
    seeds = np.repeat(lateral[[40, 80]], 12)
    patches, decay = make_patches(seeds, parcels.adjacency, parcels.centers, 0)
    areas = 1e4 * patch_areas(patches, parcels.areas)
    chosen = [np.argsort(areas[:12])[3], 12 + np.argsort(areas[12:])[10]]
    figure = plt.figure(figsize=(7.0, 2.6))
    for i, number in enumerate(chosen):
        ax = figure.add_axes((0.44 * i - 0.04, -0.2, 0.52, 1.3), projection="3d")
        ax.patch.set_visible(False)  # the axes overlap
        filled = patches[number] >= 0
        values = np.zeros(parcels.n_parcels + 1)  # the last: no parcel
        values[patches[number][filled]] = decay[number][filled]
        draw_surface(ax, values[parcels.by_hemi()[0]], "lh")
        text = f"{filled.sum()} parcels, {areas[number]:.0f} cm²"
        figure.text(0.22 + 0.44 * i, 0.92, text, ha="center")
    colors = plt.cm.ScalarMappable(plt.Normalize(LOWEST, 1), "viridis")
    bar = figure.add_axes((0.91, 0.2, 0.015, 0.6))
    figure.colorbar(colors, cax=bar, label="amplitude (seed: 1)")
    return figure


def draw_surface(ax, values, hemi):
    from nilearn import datasets, plotting

    surfaces, side = datasets.fetch_surf_fsaverage("fsaverage5"), HEMIS[hemi]
    plotting.plot_surf_stat_map(
        surfaces[f"infl_{side}"],
        values,
        hemi=side,
        view="lateral",
        bg_map=surfaces[f"sulc_{side}"],
        threshold=0.1,
        vmin=LOWEST,
        vmax=1,
        avg_method="max",  # sharp borders
        cmap="viridis",
        symmetric_cbar=False,
        colorbar=False,
        engine="matplotlib",
        axes=ax,
        figure=ax.figure,
    )


def draw_areas(parcels):
    """Histogram of the extents."""
    seeds = np.arange(5000) % parcels.n_parcels
    patches, _ = make_patches(seeds, parcels.adjacency, parcels.centers, 0)
    areas = 1e4 * patch_areas(patches, parcels.areas)
    figure, ax = plt.subplots(figsize=(3.6, 2.4), layout="constrained")
    ax.hist(areas, bins=40, color="C0")
    ax.set(xlabel="extent (cm²)", ylabel="patches")
    low, middle, high = np.percentile(areas, (5, 50, 95))
    ax.set_title(f"median {middle:.0f}, 5 to 95 %: {low:.0f} to {high:.0f} cm²")
    return figure


# --------------------------------------------------------------- bifurcation


def draw_bifurcation(mu=0.1):
    """Sweep over A: range of the PSP without noise, spikes per second with it."""
    A = np.linspace(3.0, 3.8, 81)
    quiet = simulate_jansen_rit(
        4.0, n_networks=len(A), A=A, mu=mu, noise_std=0, transient=6.0
    )[:, 0]
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.0, 2.6), layout="constrained")
    left.plot(A, quiet.max(1), ".", ms=3, label="largest")
    left.plot(A, quiet.min(1), ".", ms=3, label="smallest")
    left.set(xlabel="A (mV)", ylabel="PSP (mV)", title=f"no noise, input {mu}/ms")
    left.annotate("at rest", (3.2, 2.2), ha="center")
    left.annotate("rhythmic spikes", (3.63, 6), ha="center")
    left.legend(frameon=False)
    coupling = 0.006  # input per ms from the neighbours at rest
    gains = np.linspace(3.2, 3.7, 21)
    for mu, std in INPUT_SETTINGS:
        psp = simulate_jansen_rit(
            20.0,
            n_networks=len(gains),
            n_parcels=16,
            A=gains,
            mu=mu + coupling,
            noise_std=std,
            random_state=0,
        )
        rates = [sum(len(find_spikes(x)) for x in part) / 320 for part in psp]
        right.plot(gains, rates, ".-", ms=3, lw=0.8, label=f"{mu}/ms, × {std}")
    for gain in (3.25, 3.5, 3.55, 3.6):
        right.axvline(gain, color="0.8", lw=0.8, zorder=0)
    right.set(xlabel="A (mV)", ylabel="spikes per second", title="with noise")
    right.legend(frameon=False, title="input, noise")
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tvb-python")
    parser.add_argument("--connectome", default=SHARED)
    args = parse_args(parser)
    tvb_spectrum = args.results / "spectrum_tvb.json"
    mne.set_log_level("WARNING")  # no progress bars
    plt.rcParams.update(STYLE)
    parcels = make_template_parcels()
    connectome = make_distance_connectome(parcels.centers, parcels.hemi)
    papers = None
    if Path(args.connectome).is_file():
        papers = read_tvb_connectivity(args.connectome, NMM_994_INDEX)
        if args.tvb_python:
            run_tvb(args.tvb_python, papers, tvb_spectrum)
    folder = figures_folder(args.results)
    save(draw_bifurcation(), folder / "bifurcation.png")
    save(draw_patches(parcels), folder / "patches.png")
    save(draw_areas(parcels), folder / "extents.png")
    save(draw_spectra(connectome, papers, tvb_spectrum), folder / "spectra.png")
    save(draw_spikes(connectome), folder / "spikes.png")


if __name__ == "__main__":
    main()

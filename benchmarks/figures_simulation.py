"""Draw the figures of doc/simulation.rst.

    python benchmarks/figures_simulation.py [--tvb-python PATH] [--connectome ZIP]

With ``--tvb-python`` The Virtual Brain simulates once (minutes); its spectrum is kept
in results/spectrum_tvb.json; else the stored one is drawn.
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
from mne_deepsif.anatomy import HEMIS
from mne_deepsif.connectome import NMM_994_INDEX
from mne_deepsif.patches import make_patches, patch_areas
from mne_deepsif.waveforms import (
    SFREQ,
    SPIKE_INPUTS,
    find_spikes,
    make_bursts,
    make_evoked,
    make_spikes,
)

HERE = Path(__file__).parent
OUT = HERE.parent / "doc" / "figures"
SHARED = HERE.parents[1] / "shared/data/reference/connectivity_998.zip"
TVB_SPECTRUM = HERE / "results" / "spectrum_tvb.json"
STYLE = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}


def save(figure, name):
    OUT.mkdir(parents=True, exist_ok=True)
    figure.savefig(OUT / name, dpi=110)
    plt.close(figure)
    Image.open(OUT / name).convert("RGB").quantize(128).save(OUT / name, optimize=True)
    size = (OUT / name).stat().st_size
    print(f"{OUT / name}: {size / 1e3:.0f} kB")


# --------------------------------------------------------------- spikes


def draw_spikes(connectome):
    """Traces of seeds under the three inputs, and the library's waveforms."""
    rng = np.random.default_rng(0)
    figure, axes = plt.subplot_mosaic(
        [["0", "a", "b"], ["1", "a", "b"], ["2", "c", "d"]],
        figsize=(8.0, 4.2),
        width_ratios=(1.3, 1, 1),
        layout="constrained",
    )
    n_parcels = connectome.n_parcels
    A = np.full((3, n_parcels), 3.25)
    A[:, n_parcels // 3] = 3.55
    inputs = np.array(SPIKE_INPUTS)
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
    for i, (trace, (mu, std)) in enumerate(zip(psp, SPIKE_INPUTS)):
        ax = axes[str(i)]
        ax.plot(times, trace, lw=0.6, color="k")
        peaks = find_spikes(trace)
        ax.plot(times[peaks], trace[peaks] + 1, "v", ms=3, color="C3")
        ax.set(title=f"A = 3.55, input {mu}/ms, noise {std}", ylabel="PSP (mV)")
        ax.set_ylim(-3, 16)
    axes["2"].set_xlabel("time (s)")
    spikes = make_spikes(connectome, 200, rng, n_networks=16, duration=6.0)
    groups = {
        "a": ("spikes", spikes[:15]),
        "b": ("evoked responses", make_evoked(256, rng)[:15]),
        "c": ("spikes, mean and SD", spikes),
        "d": ("rhythmic bursts", make_bursts(6, rng)),
    }
    for key, (title, windows) in groups.items():
        draw_windows(axes[key], title, windows, key == "c")
    return figure


def draw_windows(ax, title, windows, average):
    times = (np.arange(windows.shape[1]) - windows.shape[1] // 2) / SFREQ
    if average:
        mean, std = windows.mean(0), windows.std(0)
        ax.fill_between(times, mean - std, mean + std, alpha=0.3, lw=0)
        ax.plot(times, mean, lw=1)
    else:
        ax.plot(times, windows.T, lw=0.6, alpha=0.7)
    ax.set(title=title, xlim=(-0.6, 0.6), xlabel="time (s)", ylabel="relative to peak")


# --------------------------------------------------------------- spectra


def spectrum(psp):
    """Return the power per Hz of (..., n_times), mean over all but networks."""
    frequencies, power = welch(psp, SFREQ, nperseg=1000, detrend="constant")
    return frequencies[1:], power.reshape(len(psp), -1, power.shape[-1]).mean(1)[:, 1:]


def run_tvb(python, connectome, duration=6.0):
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
        command = [python, str(HERE / "jansen_rit_tvb.py"), *files]
        subprocess.run(command, check=True, capture_output=True)
        psp = np.load(files[1])["psp"][:, 2000::4]
    frequencies, power = spectrum(psp[None])
    stored = dict(
        source="tvb-library, HeunStochastic, dt 0.5 ms, 3 m/s, papers' connectome",
        duration=duration,
        frequencies=frequencies.tolist(),
        power=[float(f"{value:.4g}") for value in power[0]],
    )
    TVB_SPECTRUM.write_text(json.dumps(stored) + "\n", encoding="utf-8")


def draw_spectra(connectome, papers):
    """Background activity under both connectomes, and The Virtual Brain's."""
    figure, ax = plt.subplots(figsize=(4.5, 3.0), layout="constrained")
    cases = {"ours, distance rule": (connectome, None, "C0")}
    if papers is not None:
        cases["ours, papers' connectome"] = (papers, 3.0, "C1")
    for label, (network, speed, color) in cases.items():
        psp = simulate_jansen_rit(
            6.0, network, n_networks=16, speed=speed, random_state=0
        )
        calm = psp.mean((1, 2)) < 1.5 * np.median(psp.mean((1, 2)))
        frequencies, power = spectrum(psp[calm])
        ax.fill_between(
            frequencies, power.min(0), power.max(0), color=color, alpha=0.3, lw=0
        )
        ax.loglog(frequencies, power.mean(0), color=color, label=label)
    if TVB_SPECTRUM.is_file():
        tvb = json.loads(TVB_SPECTRUM.read_text(encoding="utf-8"))
        label = "The Virtual Brain, papers' connectome"
        ax.loglog(tvb["frequencies"], tvb["power"], "k--", lw=1, label=label)
    ax.set(xlim=(0.5, 100), xlabel="frequency (Hz)", ylabel="power (mV²/Hz)")
    ax.legend(frameon=False)
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
    colors = plt.cm.ScalarMappable(plt.Normalize(0, 1), "inferno")
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
        vmin=0,
        vmax=1,
        cmap="inferno",
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
    left.legend(frameon=False)
    coupling = 0.006  # input per ms from the neighbours at rest
    gains = np.linspace(3.2, 3.7, 21)
    for mu, std in SPIKE_INPUTS:
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
        right.plot(gains, rates, ".-", ms=3, lw=0.8, label=f"{mu}/ms, noise {std}")
    for gain in (3.25, 3.5, 3.55, 3.6):
        right.axvline(gain, color="0.8", lw=0.8, zorder=0)
    right.set(xlabel="A (mV)", ylabel="spikes per second", title="with noise")
    right.legend(frameon=False)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tvb-python")
    parser.add_argument("--connectome", default=SHARED)
    args = parser.parse_args()
    mne.set_log_level("WARNING")  # no progress bars
    plt.rcParams.update(STYLE)
    parcels = make_template_parcels()
    connectome = make_distance_connectome(parcels.centers, parcels.hemi)
    papers = None
    if Path(args.connectome).is_file():
        papers = read_tvb_connectivity(args.connectome, NMM_994_INDEX)
        if args.tvb_python:
            run_tvb(args.tvb_python, papers)
    save(draw_bifurcation(), "bifurcation.png")
    save(draw_patches(parcels), "patches.png")
    save(draw_areas(parcels), "extents.png")
    save(draw_spectra(connectome, papers), "spectra.png")
    save(draw_spikes(connectome), "spikes.png")


if __name__ == "__main__":
    main()

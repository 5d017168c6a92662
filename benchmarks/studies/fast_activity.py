"""Activity above 62.5 Hz: the generic weights at their own rate and at higher ones.

    python -m benchmarks.studies.fast_activity   # writes fast_activity.txt

One patch with a burst, 64 electrodes, 1000 Hz, white noise up to 500 Hz; the gain is
the one that made the data. "Filtered": the data have nothing above 50 Hz. Per kind of
data and rate of the network (``Model.at``): the distance from the peak to the patch
(mean), the amplitude at the true peak over the true one (median), the largest amplitude
at any time over the true one (median), the correlation of the patch's mean time course
with the true one (median), the largest difference from the estimate at 125 Hz over that
one's peak (median), and the time it takes over that at 125 Hz (median; all rates take
turns).
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import argparse
import time

import mne
import numpy as np

import mne_deepsif
from mne_deepsif.inverse.weights import load_model
from mne_deepsif.stc_metrics import peak_error

from ..options import parse_args
from ..provenance import as_lines, provenance

SFREQ = 1000.0  # Hz
RATES = (125, 250, 400, 1000)  # Hz, of the network
# frequency of the burst (Hz), largest of the data (Hz), noise (dB), other activity (dB)
DATA = {
    "10 Hz, filtered, 5 dB": (10, 50, 5.0, None),
    "10 Hz, 5 dB": (10, None, 5.0, None),
    "80 Hz, 20 dB": (80, None, 20.0, None),
    "80 Hz, 5 dB": (80, None, 5.0, None),
    "80 Hz, background at 10 dB": (80, None, 20.0, 10.0),
    "150 Hz, 5 dB": (150, None, 5.0, None),
}


def make_info():
    """Return 64 electrodes."""
    montage = mne.channels.make_standard_montage("biosemi64")
    info = mne.create_info(montage.ch_names, SFREQ, "eeg").set_montage(montage)
    raw = mne.io.RawArray(np.zeros((64, 1)), info)
    return raw.set_eeg_reference(projection=True).info


def simulate(fwd, info, kind, seed):
    """Return data and the true activity."""
    freq, highest, snr, background = DATA[kind]
    times = np.arange(1000) / SFREQ - 0.5
    course = np.hanning(1000) ** 4 * np.sin(2 * np.pi * freq * times)
    evoked, _, truth = mne_deepsif.simulate_evoked(
        fwd,
        info,
        waveforms=course[np.newaxis],
        background_snr=background,
        snr=snr,
        random_state=seed,
    )
    return evoked.filter(None, highest), truth.stc


def score(stc, true, own, src):
    """Return what the table shows, but for the time."""
    all_true = true.expand(stc.vertices).data
    at = np.abs(all_true).sum(0).argmax()
    patch = np.abs(all_true[:, at]) > 0
    courses = all_true[patch].mean(0), stc.data[patch].mean(0)
    now = stc.copy().crop(*2 * [stc.times[at]])
    return (
        1e3 * peak_error(true.copy().crop(*2 * [stc.times[at]]), now, src),
        np.abs(now.data).max() / np.abs(all_true[:, at]).max(),
        np.abs(stc.data).max() / np.abs(all_true).max(),
        np.corrcoef(*courses)[0, 1],
        np.abs(stc.data - own.data).max() / np.abs(own.data).max(),
    )


def measure(fwd, info, operators, kind, n_samples):
    """Return scores and seconds, (n_samples, n_rates, 6)."""
    rows = np.zeros((n_samples, len(operators), 6))
    for row, seed in zip(rows, range(n_samples), strict=True):
        evoked, true = simulate(fwd, info, kind, seed)
        stcs = []
        for one, operator in zip(row, operators, strict=True):
            start = time.perf_counter()
            stcs.append(mne_deepsif.apply_deepsif(evoked, operator))
            one[5] = time.perf_counter() - start
        for one, stc in zip(row, stcs, strict=True):
            one[:5] = score(stc, true, stcs[0], fwd["src"])
    return rows


def main():
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=6, help="samples of each kind")
    args = parse_args(parser, smoke=True)
    mne.set_log_level("ERROR")
    info = make_info()
    fwd = mne_deepsif.make_template_forward(info)
    cov, generic = mne.make_ad_hoc_cov(info), load_model("generic")
    operators = [
        mne_deepsif.make_deepsif_operator(info, fwd, cov, estimator=generic.at(rate))
        for rate in RATES
    ]
    lines = as_lines(provenance())
    titles = "data", "rate (Hz)", "peak (mm)", "amplitude", "largest", "correlation"
    title = "{:28s}{:>10s}{:>11s}{:>11s}{:>9s}{:>13s}  difference   time"
    lines += ["", title.format(*titles)]
    for kind in DATA:
        rows = measure(fwd, info, operators, kind, 1 if args.smoke else args.n)
        for rate, values in zip(RATES, rows.swapaxes(0, 1), strict=True):
            peak, middle = values[:, 0].mean(), np.median(values, 0)
            seconds = np.median(values[:, 5] / rows[:, 0, 5])
            lines.append(
                f"{kind:28s}{rate:10d}{peak:11.1f}{middle[1]:11.2f}{middle[2]:9.2f}"
                f"{middle[3]:13.3f}{middle[4]:12.3f}{seconds:7.2f}"
            )
        print("\n".join(lines), flush=True)
    (args.results / "fast_activity.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

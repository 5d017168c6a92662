"""From the files of many systems to sources on the template.

    python -m benchmarks.studies.readers      # writes results/readers.json, readers.txt

Each file is opened with its reader of MNE and used as it is: the reference becomes the
average, the noise ad hoc. Where a file has no positions of EEG electrodes, those of the
montage that its names stand for are added. What is estimated is the first second.

There is no file of CTF and of optically pumped magnetometers (OPM) at hand. Theirs are
made: the sensors that MNE knows, around the template, with one simulated spike, written
to a FIF file and read again.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import argparse
import json
import tempfile
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import mne
import numpy as np
from mne.io.constants import FIFF

import mne_deepsif

from ..options import parse_args
from ..provenance import ROOT, as_lines, provenance

READERS = ROOT.parent / "shared" / "data" / "readers"
PERSYST = "Persyst/sub-pt1_ses-02_task-monitor_acq-ecog_run-01_clip2.lay"


class Recording(NamedTuple):
    """A file, how it is read, and the montage that its names stand for."""

    system: str
    reader: str
    fname: str
    montage: str | None = None
    options: dict = {}  # of the reader; values with a slash are files
    prefix: str = ""  # of the names, before those of the montage
    make: Callable | None = None  # writes the file


# ---------------------------------------------------------------- files that are made


def make_ctf():
    """Return an Info of CTF's axial gradiometers and three reference magnetometers."""
    info = mne.channels.read_meg_canonical_info("ctf275")
    references = mne.create_info(["BG1", "BG2", "BG3"], 1200.0, "mag")
    for axis, ch in enumerate(references["chs"]):
        ch["loc"][:] = np.r_[0.0, 0.0, 0.3, np.roll(np.eye(3), -axis, 0).ravel()]
        ch.update(kind=FIFF.FIFFV_REF_MEG_CH, coil_type=FIFF.FIFFV_COIL_CTF_REF_MAG)
    chs = [*info["chs"], *references["chs"]]
    info = mne.create_info([ch["ch_name"] for ch in chs], 1200.0, "mag")
    turn = mne.transforms.rotation(z=-np.pi / 4)  # CTF's X points to the nose and left
    shift = mne.transforms.translation(y=0.02, z=0.05)
    with info._unlock():
        info["chs"] = chs
        info["dev_head_t"] = mne.transforms.Transform("meg", "head", shift @ turn)
    return info


def make_opm():
    """Return an Info of 64 radial QuSpin sensors, 15 mm beyond electrodes of a cap."""
    cap = mne.channels.make_standard_montage("biosemi64")
    cap = mne.create_info(cap.ch_names, 1000.0, "eeg").set_montage(cap)
    names = [f"OPM {name}" for name in cap["ch_names"]]
    info = mne.create_info(names, 1000.0, "mag")
    middle = np.array([0, 0, 0.04])  # of the head, in head coordinates
    for ch, electrode in zip(info["chs"], cap["chs"]):
        out = electrode["loc"][:3] - middle
        out /= np.linalg.norm(out)
        x = np.cross(out, [0, 1, 0])
        x /= np.linalg.norm(x)
        place = electrode["loc"][:3] + 0.015 * out
        ch["loc"][:] = np.r_[place, x, np.cross(out, x), out]
        ch["coil_type"] = FIFF.FIFFV_COIL_QUSPIN_ZFOPM_MAG
    info["dev_head_t"] = mne.transforms.Transform("meg", "head", np.eye(4))
    return info


def write(info, fname):
    """Write a recording of a second with a spike, 10 dB above the noise."""
    fwd = mne_deepsif.make_template_forward(info)
    kwargs = dict(seeds=[500], n_spikes=1, duration=2.0, random_state=0)
    raw, _, _ = mne_deepsif.simulate_raw(fwd, info, **kwargs)
    data = np.zeros((info["nchan"], len(raw.times)))  # zero in reference channels
    data[[info["ch_names"].index(name) for name in raw.ch_names]] = raw.get_data()
    mne.io.RawArray(data, info).save(fname)


RECORDINGS = (
    Recording("BrainVision", "brainvision", "brainvision/test.vhdr", "standard_1005"),
    Recording("EDF", "edf", "edf/test.edf"),
    Recording("BDF (BioSemi)", "bdf", "edf/test.bdf", "standard_1005"),
    Recording("EGI, raw", "egi", "egi/test_egi.raw", "GSN-HydroCel-256"),
    Recording("EGI, mff", "egi", "EGI/test_egi_multiepoch_paused.mff"),
    Recording("EEGLAB", "eeglab", "eeglab/test_raw_chanloc.set"),
    Recording(
        "Nicolet",
        "nicolet",
        "nicolet/test_nicolet_raw.data",
        "standard_1005",
        dict(ch_type="eeg"),
    ),
    Recording("ANT", "ant", "ant/test_CA_208.cnt", "standard_1005"),
    Recording("Nihon Kohden", "nihon", "NihonKohden/MB0400FU.EEG", "standard_1005"),
    Recording(
        "Nihon Kohden, EDF",
        "edf",
        "NihonKohden/MB0400FU.EDF",
        "standard_1005",
        prefix="EEG ",
    ),
    Recording("Persyst", "persyst", PERSYST, "standard_1005"),
    Recording(
        "KIT",
        "kit",
        "kit/test.sqd",
        options=dict(
            mrk="kit/test_mrk.sqd", elp="kit/test_elp.txt", hsp="kit/test_hsp.txt"
        ),
    ),
    Recording("RICOH", "kit", "kit/Example_RICOH160-1_10020-export_anonymyze.con"),
    Recording(
        "4D/BTi",
        "bti",
        "bti/test_pdf_linux",
        options=dict(
            config_fname="bti/test_config_linux", head_shape_fname="bti/test_hs_linux"
        ),
    ),
    Recording("CTF, simulated", "fif", "ctf_raw.fif", make=make_ctf),
    Recording("OPM, simulated", "fif", "opm_raw.fif", make=make_opm),
)


def read(recording):
    """Open a file with its reader, and load its first second."""
    options = {
        key: READERS / value if "/" in value else value
        for key, value in recording.options.items()
    }
    reader = getattr(mne.io, f"read_raw_{recording.reader}")
    with tempfile.TemporaryDirectory() as folder:
        fname = (Path(folder) if recording.make else READERS) / recording.fname
        if recording.make:
            write(recording.make(), fname)
        raw = reader(fname, **options)
        return raw.crop(0, min(1, raw.times[-1])).load_data()


def add_positions(raw, montage, prefix):
    """Keep the EEG channels that a montage knows, and give them its positions."""
    bare = {
        name: name.removeprefix(prefix).partition("-")[0]
        for name in raw.ch_names
        if name.startswith(prefix)
    }
    known = {x.lower() for x in mne.channels.make_standard_montage(montage).ch_names}
    bare = {name: short for name, short in bare.items() if short.lower() in known}
    raw.pick(list(bare)).rename_channels(bare)
    return raw.set_montage(montage, match_case=False)


def estimate(raw):
    """Return the number of channels behind an estimate on the template."""
    if "eeg" in raw:
        raw.set_eeg_reference(projection=True)
    fwd = mne_deepsif.make_template_forward(raw.info)
    cov = mne.make_ad_hoc_cov(raw.info)
    operator = mne_deepsif.make_deepsif_operator(raw.info, fwd, cov)
    stc = mne_deepsif.apply_deepsif_raw(raw, operator)
    assert np.isfinite(stc.data).all() and stc.data.any()
    return len(operator.leadfield.ch_names)


def listen(raw):
    """Return what :func:`estimate` returns, and what it says: an error, or warnings."""
    with warnings.catch_warnings(record=True) as said, mne.use_log_level("WARNING"):
        warnings.simplefilter("always")
        try:
            found = estimate(raw)
        except ValueError as error:
            return None, [str(error)]
    return found, [str(warning.message) for warning in said]


def try_out(recording):
    """Go from a file to sources, and say how it went, as a dict."""
    raw = read(recording)
    types = raw.get_channel_types()
    counts = {kind: types.count(kind) for kind in ("eeg", "mag", "grad", "ref_meg")}
    if recording.montage is not None:
        raw = add_positions(raw, recording.montage, recording.prefix)
    n_used, said = listen(raw)
    return dict(
        reader=f"mne.io.read_raw_{recording.reader}",
        channels={kind: n for kind, n in counts.items() if n},
        sfreq=raw.info["sfreq"],
        montage=recording.montage,
        n_used=n_used,
        said=said,
    )


def as_text(system, result):
    """Return a line of the table, and what was said."""
    channels = ", ".join(f"{n} {kind}" for kind, n in result["channels"].items())
    used = result["n_used"]
    outcome = "no estimate" if used is None else f"{used} channels used"
    montage = result["montage"] or "-"
    line = f"{system:18s} {channels:20s} {result['sfreq']:7g}  {montage:17s} {outcome}"
    # the same is said before a forward and before an estimate
    said = [part for text in result["said"][:1] for part in textwrap.wrap(text, 80)]
    return [line, *(f"    {part}" for part in said)]


def main():
    """Try all files, print and store how it went."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args = parse_args(parser, smoke=True)
    mne.set_log_level("ERROR")
    results = {
        recording.system: try_out(recording)
        for recording in RECORDINGS[: 2 if args.smoke else None]
    }
    record = provenance()
    titles = "system", "channels of the file", "Hz", "montage added", "outcome"
    lines = [*as_lines(record), "", "{:18s} {:20s} {:>7s}  {:17s} {}".format(*titles)]
    for system, result in results.items():
        lines += as_text(system, result)
    text = "\n".join(lines) + "\n"
    print(text)
    (args.results / "readers.txt").write_text(text, encoding="utf-8")
    record = json.dumps(record | {"recordings": results}, indent=1)
    (args.results / "readers.json").write_text(record + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

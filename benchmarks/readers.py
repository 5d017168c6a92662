"""From the files of many systems to sources on the template.

    python benchmarks/readers.py      # writes results/readers.json, readers.txt

Each file is opened with its reader of MNE and used as it is: the reference becomes the
average, the noise ad hoc. Where a file has no positions of EEG electrodes, those of the
montage that its names stand for are added. What is estimated is the first second.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import argparse
import json
import textwrap
import warnings
from typing import NamedTuple

import mne
import numpy as np
from options import parse_args
from provenance import ROOT, as_lines, provenance

import mne_deepsif

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
)


def read(recording):
    """Open a file with its reader, and load its first second."""
    options = {
        key: READERS / value if "/" in value else value
        for key, value in recording.options.items()
    }
    reader = getattr(mne.io, f"read_raw_{recording.reader}")
    raw = reader(READERS / recording.fname, **options)
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

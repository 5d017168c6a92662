"""The real subject, the template, and their sensors."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from functools import cache
from pathlib import Path

import mne
import numpy as np

import mne_deepsif
from mne_deepsif.head.template import (
    make_template_bem,
    make_template_source_space,
    make_template_trans,
)

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
LIBRARY_SEED = 9000  # of waveforms and background; training has others
# tilt of a helmet (degrees), and which of its sensors; "meg" are all 306
HELMETS = {"mag": (0.0,), "mag tilted by 5°": (5.0,), "meg": (0.0, True)}
TEN_TWENTY = tuple("Fp1 Fp2 F7 F3 Fz F4 F8 T7 C3 Cz C4 T8 P7 P3 Pz P4 P8 O1 O2".split())
MONTAGES = {"10-20": ("colin27_1020", TEN_TWENTY)}  # a montage of MNE, and channels
SAMPLE_BEM = DATA / "sample" / "sample_fs5" / "bem"


# ---------------------------------------------------------------- sensors
def sample_info(kind):
    """Return the good channels of some types of the sample recording, as at 500 Hz."""
    evoked = mne.read_evokeds(DATA / "sample" / "sample_audvis-ave.fif", 0)
    info = evoked.pick(kind, exclude="bads").info
    with info._unlock():
        info["sfreq"], info["lowpass"] = 500.0, 250.0  # the data are not filtered
    return info


def biosemi_info(sfreq=500.0, montage="biosemi64", ch_names=None):
    """Return an Info with an average-reference projector on the template head."""
    if isinstance(montage, str):
        montage = mne.channels.make_standard_montage(montage)
    info = mne.create_info(ch_names or montage.ch_names, sfreq, "eeg")
    raw = mne.io.RawArray(np.zeros((len(info.ch_names), 1)), info.set_montage(montage))
    return raw.set_eeg_reference(projection=True).info


def helmet(tilt, kind="mag"):
    """Return the 102 magnetometers, upright or tilted to the left."""
    info = mne.channels.read_meg_canonical_info("neuromag")
    trans = mne.transforms.rotation(0, np.deg2rad(tilt), 0)
    trans[:3, 3] = [0.0, 0.0, 0.048]
    with info._unlock():
        info["dev_head_t"] = mne.transforms.Transform("meg", "head", trans)
        info["projs"], info["sfreq"] = [], 500.0
    return mne.pick_info(info, mne.pick_types(info, meg=kind))


def magnes(n=148):
    """Return magnetometers of a 4D helmet of 248: those that lie farthest apart.

    Coils and their place around a head are those of a recording.
    """
    names = ("pdf", "config", "hs")
    fnames = [DATA / "readers" / "bti" / f"test_{name}_linux" for name in names]
    with mne.utils.use_log_level("error"):  # of its reference channels
        info = mne.io.read_raw_bti(*fnames, rename_channels=False).info
    info = mne.pick_info(info, mne.pick_types(info, meg="mag"))
    places = np.array([ch["loc"][:3] for ch in info["chs"]])
    chosen = [int(places[:, 2].argmax())]
    gaps = np.linalg.norm(places - places[chosen[0]], axis=1)
    while len(chosen) < n:
        chosen.append(int(gaps.argmax()))
        near = np.linalg.norm(places - places[chosen[-1]], axis=1)
        gaps = np.minimum(gaps, near)
    info = mne.pick_info(info, sorted(chosen))
    with info._unlock():
        info["projs"], info["comps"], info["sfreq"] = [], [], 500.0
    return info


def sensor_info(subject, sensors):
    """Return the sensors of a subject.

    Parameters
    ----------
    subject : "sample" | "template"
        The head.
    sensors : str
        Channel types joined by ``+``, such as ``"mag+eeg"``. On the template, a montage
        of MNE, one of ``MONTAGES`` or ``HELMETS``, ``"authors"`` (their 75 electrodes),
        ``"magnes 148"``, or the subject's, such as ``"sample mag"``.

    Returns
    -------
    info : Info
        The good channels.
    """
    if subject == "sample":
        return sample_info(sensors.split("+"))
    if sensors.startswith("sample "):
        return sample_info(sensors.removeprefix("sample "))
    if sensors in HELMETS:
        return helmet(*HELMETS[sensors])
    if sensors == "magnes 148":
        return magnes()
    if sensors == "authors":
        from .authors import read_info

        return read_info()
    montage, names = MONTAGES.get(sensors, (sensors, None))
    return biosemi_info(montage=montage, ch_names=names)


# ---------------------------------------------------------------- anatomy
def subjects_dir(subject):
    """Return the folder with a subject's surfaces."""
    if subject == "sample":
        return DATA / "sample"
    return mne_deepsif.make_template_subject()


def sample_forward(info=None):
    """Return the real subject's forward solution (all 20 484 vertices)."""
    if info is None:
        info = mne.read_evokeds(DATA / "sample" / "sample_audvis-ave.fif", 0).info
    trans, src, bem = anatomy("sample", info)
    return mne.make_forward_solution(info, trans, src, bem, mindist=0.0)


def anatomy(subject, info, skull=1.0, n_vertices=10242):
    """Return co-registration, source space and head model.

    Parameters
    ----------
    subject : "sample" | "template"
        The head.
    info : Info
        The sensors.
    skull : float
        Factor of the conductivity of the skull.
    n_vertices : int
        Number of vertices of a hemisphere: 10242, or 2562 (ico-4).

    Returns
    -------
    trans : Transform
        From head to MRI.
    src : SourceSpaces
        The first vertices of fsaverage5's topology.
    bem : ConductorModel
        The head model.
    """
    if subject == "sample":
        trans = mne.read_trans(DATA / "sample" / "sample_fs5-trans.fif")
        src = mne.read_source_spaces(SAMPLE_BEM / "sample_fs5-src.fif")
        return trans, decimate(src, n_vertices), sample_bem(skull)
    layers = (0.3,)
    if "eeg" in info.get_channel_types():
        layers = (0.3, 0.006 * skull, 0.3)
    src = decimate(make_template_source_space(), n_vertices)
    return make_template_trans(info), src, make_template_bem(conductivity=layers)


def decimate(src, n_vertices):
    """Use the first vertices only, which are those of a coarser icosahedron."""
    for s in src:
        s["inuse"][n_vertices:] = 0
        s.update(nuse=n_vertices, vertno=np.arange(n_vertices))
    return src


@cache
def sample_bem(skull=1.0):
    """Return the real subject's head model; the skull's conductivity times a factor."""
    surfaces = mne.read_bem_surfaces(SAMPLE_BEM / "sample_fs5-1280-1280-1280-bem.fif")
    surfaces[1]["sigma"] *= skull  # scalp, skull, brain
    return mne.make_bem_solution(surfaces)

"""MNE's data sets of responses. Each is a function that yields cases."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import mne

import mne_deepsif
from mne_deepsif.head.template import SUBJECT

from . import cases
from .cases import (
    AUDITORY,
    HEMIS,
    KINDS,
    SOMATOSENSORY,
    VISUAL,
    Case,
    carry_region,
    only_in,
    read_region,
    white_positions,
)
from .heads import Problem
from .subjects import DATA, subjects_dir

# conditions of the data set: start of the name, region, window, is it one-sided?
MULTIMODAL = (
    ("Visual", "pericalcarine", VISUAL, True),
    ("Somato", "postcentral", SOMATOSENSORY, True),
    ("Auditory", "transversetemporal", AUDITORY, False),
)
CONTRALATERAL = {"left": "rh", "right": "lh"}
OPM_TRIGGER = 257  # electrical stimulation of the left median nerve
OPM_REJECT = dict(mag=2e-10)  # T


def sample_responses():
    """Yield the visual and the auditory response of the whole sample data set."""
    root = cases.find_dataset("sample")
    folder, surfaces = root / "MEG" / "sample", root / "subjects"
    fwd = mne.read_forward_solution(folder / "sample_audvis-meg-eeg-oct-6-fwd.fif")
    cov = mne.read_cov(folder / "sample_audvis-cov.fif")
    white = white_positions("sample", surfaces)
    label = surfaces / "sample" / "label"
    visual = [mne.read_label(label / f"{hemi}.V1.label") for hemi in HEMIS]
    auditory = read_region("sample", surfaces, "transversetemporal")
    for condition, window, labels in (
        ("Left visual", VISUAL, visual),
        ("Right Auditory", AUDITORY, auditory),
    ):
        evoked = mne.read_evokeds(
            folder / "sample_audvis-ave.fif", condition, baseline=(None, 0)
        )
        places = [one.pos for one in labels]
        for sensors, picks in KINDS.items():
            one = evoked.copy().pick(picks, exclude="bads")
            problem = Problem(one.info, fwd, cov, surfaces)
            yield Case(condition, sensors, one, problem, window, places, white)


def somato():
    """Yield the response to the median nerve: its N20 in the postcentral gyrus."""
    root = cases.find_dataset("somato")
    folder, subject = root / "derivatives" / "sub-01", "01"
    surfaces = root / "derivatives" / "freesurfer" / "subjects"
    raw = mne.io.read_raw_fif(root / "sub-01" / "meg" / "sub-01_task-somato_meg.fif")
    events = mne.find_events(raw, stim_channel="STI 014")
    epochs = _epoch(_filter(raw), events=events, event_id=1, tmin=-0.2, tmax=0.25)
    problem = Problem(
        epochs.info,
        mne.read_forward_solution(folder / "sub-01_task-somato-fwd.fif"),
        mne.compute_covariance(epochs, tmax=0),
        surfaces,
    )
    places = [label.pos for label in read_region(subject, surfaces, "postcentral")]
    white = white_positions(subject, surfaces)
    evoked = epochs.average()
    yield Case("somato", "meg", evoked, problem, SOMATOSENSORY, places, white)


def _filter(raw):
    """Return the MEG of a recording between 1 and 40 Hz."""
    return raw.load_data().pick("meg").filter(1.0, 40.0)


def _epoch(raw, **options):
    """Cut a recording; the epochs begin with their baseline."""
    return mne.Epochs(raw, baseline=(None, 0), preload=True, **options)


# ---------------------------------------------------------------- without an MRI
def multimodal():
    """Yield the eight responses of Otaniemi's subject, by MEG on the template's head.

    Four visual quadrants, both median nerves, and both ears. The data set has no MRI.
    So the places are regions of the sample subject's atlas on the template, and an
    error of the head is part of the distance, for all methods. Visual and
    somatosensory places are those of the hemisphere across from the stimulus.
    """
    root = cases.find_dataset("multimodal")
    atlas = find_atlas()
    raw = mne.io.read_raw_fif(root / "multimodal_raw.fif")
    conditions = raw.acqparser.get_condition(raw, None)
    limits = dict(reject=raw.acqparser.reject, flat=raw.acqparser.flat)
    raw = _filter(raw)
    limits = {name: _of_types(raw, limit) for name, limit in limits.items()}
    surfaces = subjects_dir("template")
    fwd = mne_deepsif.make_template_forward(raw.info)
    white = white_positions(SUBJECT, surfaces)
    for condition in conditions:
        (name,) = condition["event_id"]
        epochs = _epoch(raw, **limits, **condition)
        cov = mne.compute_covariance(epochs, tmax=0)
        problem = Problem(epochs.info, fwd, cov, surfaces)
        region, window, one_sided = _look_up(name)
        places = carry_region(atlas, (SUBJECT, surfaces), region)
        if one_sided:
            places = only_in(places, CONTRALATERAL[name.split()[-1]])
        title = f"multimodal, {name}"
        yield Case(title, "meg", epochs.average(), problem, window, places, white)


def _of_types(raw, limits):
    """Return the limits of the types of channels that a recording has."""
    return {kind: limit for kind, limit in limits.items() if kind in raw} or None


def _look_up(condition):
    """Return region, window, and whether the place is in one hemisphere."""
    return next(rest for start, *rest in MULTIMODAL if condition.startswith(start))


def find_atlas():
    """Return a subject with FreeSurfer's ``aparc`` and the folder that it is in."""
    if (DATA / "sample").is_dir():
        return "sample_fs5", DATA / "sample"
    return "sample", cases.find_dataset("sample") / "subjects"


# ---------------------------------------------------------------- few sensors
def opm():
    """Yield the response to the left median nerve, by nine optical magnetometers.

    They lie over the right hemisphere, so its postcentral gyrus is the place.
    """
    root = cases.find_dataset("opm")
    folder, surfaces, subject = root / "MEG" / "OPM", root / "subjects", "OPM_sample"
    raw = mne.io.read_raw_fif(folder / "OPM_SEF_raw.fif")
    trigger = dict(mask=OPM_TRIGGER, mask_type="and")
    events = mne.find_events(raw, stim_channel="STI101", **trigger)
    span = dict(event_id=OPM_TRIGGER, tmin=-0.2, tmax=0.25, proj=False)
    epochs = _epoch(_filter(raw), events=events, reject=OPM_REJECT, **span)
    problem = Problem(
        epochs.info,
        mne.read_forward_solution(folder / "OPM_sample-fwd.fif"),
        mne.compute_covariance(epochs, tmax=0),
        surfaces,
    )
    if (surfaces / subject / "label" / "rh.aparc.annot").is_file():
        labels = read_region(subject, surfaces, "postcentral")
        places = [label.pos for label in labels]
    else:  # of the sample subject's atlas
        places = carry_region(find_atlas(), (subject, surfaces), "postcentral")
    places = only_in(places, "rh")
    white = white_positions(subject, surfaces)
    yield Case("OPM", "meg", epochs.average(), problem, SOMATOSENSORY, places, white)

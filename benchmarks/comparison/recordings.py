"""Real recordings: how far each method's peak is from where anatomy says.

A recording is a function that yields cases; it raises ``Skip`` where data are absent.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from functools import cache

import mne
import numpy as np
from scipy.io import loadmat

import mne_deepsif

from .cases import AUDITORY, HEMIS, KINDS, VISUAL, Case, Skip, white_positions
from .datasets import multimodal, opm, sample_responses, somato
from .heads import Problem, keep
from .methods import find_method
from .phantoms import phantom_ctf, phantom_elekta
from .subjects import DATA, biosemi_info, sample_forward, subjects_dir

WINDOWS = {"Left visual": VISUAL, "Right Auditory": AUDITORY}
VEP_PEAK = 0.093  # s


# ---------------------------------------------------------------- what is scored
def score_recordings(methods):
    """Apply methods to all recordings that are here.

    Parameters
    ----------
    methods : list of str
        The methods, at their usual settings.

    Returns
    -------
    found : list of dict
        Where the peak is, and its distance (mm) to the anatomical place; or why a
        recording was skipped, or why a method failed.
    """
    found = []
    for name, cases in RECORDINGS.items():
        try:
            for case in cases():
                found += [score_case(case, method) for method in methods]
        except Skip as skip:
            found.append(dict(recording=name, skipped=str(skip)))
        except Exception as error:  # of files unlike those that are asked for
            text = f"{type(error).__name__}: {error}"[:300]
            found.append(dict(recording=name, skipped=text))
    return found


def score_case(case, name):
    """Apply one method to one case."""
    row = dict(recording=case.recording, sensors=case.sensors, method=name)
    method = find_method(name)
    try:
        estimate = method.prepare(case.problem, **method.settings[0])
        hemi, vertex, when = peak_of(estimate(case.evoked), *case.window)
    except Exception as error:  # counted and shown, whatever it is
        where = dict(hemi="-", time=np.nan)
        return row | where | dict(failed=f"{type(error).__name__}: {error}"[:300])
    place = case.white[hemi][vertex]
    places = case.places[hemi]
    gaps = np.linalg.norm(places - place, axis=1) if len(places) else [np.nan]
    return row | dict(
        hemi=HEMIS[hemi],
        time=float(when),
        distance=1e3 * float(np.min(gaps)),
    )


def peak_of(stc, tmin, tmax):
    """Return hemisphere (0 lh, 1 rh), vertex and time of the largest |amplitude|."""
    stc = stc.copy().crop(tmin, tmax)
    stc = mne.SourceEstimate(
        np.abs(stc.data), stc.vertices, stc.tmin, stc.tstep, stc.subject
    )
    row, when = stc.get_peak(vert_as_index=True)
    hemi = int(row >= len(stc.vertices[0]))
    return hemi, stc.vertices[hemi][row - hemi * len(stc.vertices[0])], when


# ---------------------------------------------------------------- in ../shared/data
def sample():
    """Yield the visual and the auditory response, by EEG, MEG and both.

    They are averages of six trials. Without them, those of MNE's data set are taken.
    """
    folder = DATA / "sample"
    if not folder.is_dir():
        yield from sample_responses()
        return
    fwd = keep(["sample", "all channels"], sample_forward)
    cov = mne.read_cov(folder / "sample_audvis-cov.fif")
    white = white_positions("sample_fs5", folder)
    for condition, window in WINDOWS.items():
        evoked = mne.read_evokeds(
            folder / "sample_audvis-ave.fif", condition, baseline=(None, 0)
        )
        for sensors, picks in KINDS.items():
            one = evoked.copy().pick(picks, exclude="bads")
            problem = Problem(one.info, fwd, cov, folder)
            places = sample_places(condition)
            yield Case(condition, sensors, one, problem, window, places, white)


@cache
def sample_places(condition):
    """Return V1, or the transverse temporal gyrus."""
    folder = DATA / "sample"
    if condition == "Left visual":
        names = [f"{hemi}.V1_sample_native.label" for hemi in HEMIS]
        labels = [mne.read_label(folder / "sample_fs5" / "label" / n) for n in names]
    else:
        labels = mne.read_labels_from_annot(
            "sample_fs5", "aparc", subjects_dir=folder, regexp="transversetemporal"
        )
    return [label.pos for label in labels]  # V1's numbering is another one: positions


def vep():
    """Yield the authors' visual response: 64 electrodes on the template's head.

    Its place is the region in which the authors' own output peaks.
    """
    folder = DATA / "reference"
    _demand(folder)
    data = loadmat(folder / "vep_data1.mat")["data"].T
    unit = 5e-6 / np.abs(data).max()  # the file has arbitrary units
    evoked = mne.EvokedArray(data * unit, biosemi_info(), tmin=-0.2)
    problem = Problem(
        evoked.info,
        mne_deepsif.make_template_forward(evoked.info),
        mne.make_ad_hoc_cov(evoked.info, std=0.3e-6),
        subjects_dir("template"),
    )
    window = VEP_PEAK - 0.01, VEP_PEAK + 0.01
    white = white_positions("fsaverage5", problem.subjects_dir)
    yield Case("VEP", "eeg", evoked, problem, window, authors_place(white), white)


def authors_place(white):
    """Return where the authors' output peaks: the centre of a region."""
    folder = DATA / "reference"
    output = loadmat(folder / "vep_reference_output.mat")["all_out"][0].T
    time = round((VEP_PEAK + 0.2) * 500)
    region = np.abs(output[:, time - 3 : time + 4]).max(axis=1).argmax()
    mapping = loadmat(folder / "fs_cortex_20k_region_mapping.mat")["rm"].ravel()
    center = np.concatenate(white)[mapping == region].mean(axis=0)
    return [center[np.newaxis]] * 2  # whichever hemisphere the peak is in


def _demand(folder):
    if not folder.is_dir():
        raise Skip(f"{folder} is not there")


RESPONSES = {
    "sample": sample,
    "VEP": vep,
    "somato": somato,
    "multimodal": multimodal,
    "OPM": opm,
}
PHANTOMS = {"phantom Elekta": phantom_elekta, "phantom CTF": phantom_ctf}
RECORDINGS = RESPONSES | PHANTOMS

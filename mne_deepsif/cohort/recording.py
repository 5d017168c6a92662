"""A recording: from raw data, epochs or evokeds to averages and a noise covariance."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from collections import Counter
from pathlib import Path

import mne
import numpy as np
from mne.utils import warn

from .._mne import FIFF, update_info

_REPEATED = "DROP DUPLICATE"  # in MNE's drop log


def read_recording(fname):
    """Read a file of raw data, epochs or evokeds, by MNE's rules for names.

    Parameters
    ----------
    fname : path-like
        The file.

    Returns
    -------
    inst : Raw | Epochs | list of Evoked
        What is in it. Raw data are not loaded.
    """
    fname = Path(fname)
    if not fname.exists():
        raise FileNotFoundError(f"file {str(fname)!r} does not exist.")
    try:
        return _choose_reader(fname)(fname)
    except (ImportError, PermissionError):
        raise  # they say themselves what to do
    except Exception as error:
        raise ValueError(
            f"MNE cannot read file {str(fname)!r} by its name alone ({error}). Read it "
            "in Python with the reader of its system (mne.io.read_raw_...), save it by "
            "raw.save('..._raw.fif'), and give that file."
        ) from error


def _choose_reader(fname):
    name = fname.name.removesuffix(".gz").removesuffix(".fif")
    if name.endswith(("-ave", "_ave", "-evk", "_evk")):
        return mne.read_evokeds
    if name.endswith(("-epo", "_epo")):
        return mne.read_epochs
    return mne.io.read_raw


def prepare_raw(raw, settings):
    """Pick the channels of the brain and filter, in place.

    Parameters
    ----------
    raw : Raw
        The recording.
    settings : EstimateSettings | CohortSettings
        The settings.
    """
    picks = mne.pick_types(raw.info, meg=True, eeg=True, ref_meg=True, exclude=())
    if not len(picks):
        kinds = sorted(set(raw.get_channel_types()))
        raise ValueError(f"no EEG or MEG channels, only {', '.join(kinds)}")
    raw.pick(picks)
    if settings.l_freq is not None or settings.h_freq is not None:
        raw.load_data().filter(settings.l_freq, settings.h_freq)


def set_reference(inst):
    """Give EEG an average reference as a projector, unless it has a reference.

    If that is not the average, the estimate raises: only the user knows whether all
    channels share it.
    """
    has_one = inst.info["custom_ref_applied"] or any(
        _is_reference(proj) for proj in inst.info["projs"]
    )
    if "eeg" in inst and not has_one:
        inst.set_eeg_reference(projection=True)


def set_positions(inst, montage):
    """Make sure that EEG electrodes have positions, from a montage if they have none.

    Parameters
    ----------
    inst : Raw | Epochs | Evoked
        The data, changed in place.
    montage : str | None
        Name of a standard montage of MNE.
    """
    picks = mne.pick_types(inst.info, eeg=True)
    places = np.array([inst.info["chs"][pick]["loc"][:3] for pick in picks])
    lost = [
        inst.ch_names[pick]
        for pick, place in zip(picks, places)
        if not np.isfinite(place).all() or not place.any()
    ]
    if not lost:
        return
    if montage is None:
        raise ValueError(
            f"no positions of {len(lost)} of {len(picks)} electrodes "
            f"({', '.join(lost[:5])}{', ...' if len(lost) > 5 else ''}): add "
            "electrodes.tsv with coordsystem.json to a BIDS dataset, or name a "
            "standard montage (setting montage)"
        )
    _drop_unplaced(inst, picks, montage)
    inst.set_montage(montage, match_case=False)


def _drop_unplaced(inst, picks, montage):
    """Drop the electrodes that a montage does not know, if they are the fewer."""
    known = mne.channels.make_standard_montage(montage).ch_names
    known = {name.lower() for name in known}
    names = [inst.ch_names[pick] for pick in picks]
    unknown = [name for name in names if name.lower() not in known]
    shown = f"{', '.join(unknown[:5])}{', ...' if len(unknown) > 5 else ''}"
    if len(unknown) > len(names) / 2:
        raise ValueError(
            f"montage {montage!r} has no place for {len(unknown)} of {len(names)} "
            f"electrodes ({shown}): name the montage that the cap has, or rename them"
        )
    if unknown:
        warn(f"Left out, as the montage has no place for them: {shown}.")
        inst.drop_channels(unknown)


def make_epochs(raws, settings):
    """Cut epochs around events from all runs of a recording.

    Parameters
    ----------
    raws : dict of Raw
        The runs by name, with events as annotations.
    settings : EstimateSettings | CohortSettings
        The settings.

    Returns
    -------
    epochs : Epochs
        The epochs, loaded, with the baseline subtracted. EEG has a reference.
    """
    _check_runs(raws, settings)
    event_id = _choose_events(raws, settings.events)
    found, dropped = [], Counter()
    n_events, n_repeated = Counter(), Counter()  # by condition
    for raw in raws.values():
        set_reference(raw)  # over the channels that are good in all runs
    _share_projectors(raws)
    for raw in raws.values():
        here = set(raw.annotations.description)
        ids = {name: number for name, number in event_id.items() if name in here}
        if not ids:
            continue
        events, ids = mne.events_from_annotations(raw, ids)
        if not len(events):  # all outside of the data
            continue
        tmin, tmax = settings.span
        epochs = mne.Epochs(
            *(raw, events, ids, tmin, tmax),
            baseline=settings.baseline_of(),
            picks=np.arange(raw.info["nchan"]),
            preload=True,
            proj=False,
            event_repeated="drop",
            verbose="error",  # what is dropped is told below
        )
        epochs.set_annotations(None)  # they cannot be concatenated
        dropped.update(reason for log in epochs.drop_log for reason in log)
        names = {number: name for name, number in ids.items()}
        for number, log in zip(events[:, 2], epochs.drop_log):
            n_events[names[number]] += 1
            n_repeated[names[number]] += _REPEATED in log
        if not len(epochs):
            continue
        resample(epochs, settings.sfreq)
        found.append(epochs)
    _warn_repeated(n_events, n_repeated)
    if not found:
        raise ValueError(
            f"no epoch is left of the events {sorted(event_id)}: {_describe(dropped)}"
        )
    if len(found) == 1:
        return found[0]
    # verbose: of rates before resampling; on_mismatch: of where MEG, if any, was
    return mne.concatenate_epochs(found, on_mismatch="ignore", verbose="error")


def resample(inst, sfreq):
    """Resample epochs or an Evoked in place, to a length that only its times decide."""
    if sfreq is None:
        return
    # rounding, as the first and last samples are at times that the old rate allows
    n_times = int((inst.times[-1] - inst.times[0]) * sfreq + 1e-6)
    if sfreq != inst.info["sfreq"]:
        inst.resample(sfreq)
    inst.crop(inst.times[0], inst.times[n_times - 1])


def _describe(why):
    why.pop("IGNORED", None)
    if not why:
        return "all lie outside of the data"
    return ", ".join(f"{reason} ({n})" for reason, n in why.most_common(3))


def _warn_repeated(n_events, n_repeated):
    """Warn of events that another event at the same sample displaced."""
    lost = [
        f"{name} ({'all' if n == n_events[name] else n} of {n_events[name]})"
        for name, n in sorted(n_repeated.items())
        if n
    ]
    if lost:
        warn(
            "Of events at the same sample, only the first is averaged. Left out: "
            f"{', '.join(lost)}. Name the events to estimate (setting events)."
        )


def _check_runs(raws, settings):
    """Raise if runs cannot be averaged together."""
    rates = {name: raw.info["sfreq"] for name, raw in raws.items()}
    if len(set(rates.values())) > 1 and settings.sfreq is None:
        raise ValueError(
            f"runs have different sampling rates ({_list(rates, ' Hz')}): choose one "
            "for all (setting sfreq)"
        )
    names = {name: tuple(sorted(raw.ch_names)) for name, raw in raws.items()}
    if len(set(names.values())) > 1:
        counts = {name: len(raw.ch_names) for name, raw in raws.items()}
        raise ValueError(
            f"runs have different channels ({_list(counts, ' channels')}): they cannot "
            "be averaged; make them sessions, or drop what they do not share"
        )
    first = next(iter(raws.values()))
    moved = [name for name, raw in raws.items() if _is_moved(raw.info, first.info)]
    if "meg" in first and moved:
        raise ValueError(
            f"runs {moved} have another head position (dev_head_t) than the first: "
            "realign all to one with mne.preprocessing.maxwell_filter(destination=...),"
            " or estimate one run alone"
        )
    applied = [name for name, raw in raws.items() if raw.info["custom_ref_applied"]]
    if "eeg" in first and 0 < len(applied) < len(raws):
        raise ValueError(
            f"runs {applied} have an EEG reference that was applied, the others have "
            "not: use set_eeg_reference(projection=True) for all"
        )
    for raw in raws.values():
        raw.reorder_channels(first.ch_names)
        # a channel that is bad in one run is bad in their average
        raw.info["bads"] = sorted(
            {bad for r in raws.values() for bad in r.info["bads"]}
        )


def _share_projectors(raws):
    """Apply the projectors of all runs to each of them, if they differ.

    What one run lacks is then missing in their average, and in its leadfield.
    """
    runs = list(raws.values())
    if all(raw.info["projs"] == runs[0].info["projs"] for raw in runs):
        return
    before = [_fields(raw.info) for raw in runs]
    projs = [proj for raw in runs for proj in raw.info["projs"]]
    for raw in runs:
        raw.add_proj(projs).apply_proj()  # those it has not
        update_info(raw.info, projs=runs[0].info["projs"])  # also in their order
    fields = _fields(runs[0].info)
    if any(len(one) < len(fields) for one in before):
        names = ", ".join(dict.fromkeys(proj["desc"] for proj in fields))
        n_fields = sum(proj["data"]["nrow"] for proj in fields)
        warn(
            f"Runs have different SSP projectors: all {n_fields} of their fields are "
            f"removed from each run ({names})."
        )


def _fields(info):
    """Return the projectors that are no reference of EEG."""
    return [proj for proj in info["projs"] if not _is_reference(proj)]


def _is_reference(proj):
    return proj["kind"] == FIFF.FIFFV_PROJ_ITEM_EEG_AVREF


def _is_moved(info, other):
    """Tell whether the head is elsewhere in the helmet."""
    one, two = (
        np.nan if each["dev_head_t"] is None else each["dev_head_t"]["trans"]
        for each in (info, other)
    )
    return not np.allclose(one, two, rtol=1e-6, equal_nan=True)  # as MNE does


def _list(values, unit):
    return ", ".join(f"{name}: {value:g}{unit}" for name, value in values.items())


def _choose_events(raws, wanted):
    """Return {name: number} of the events that are wanted."""
    names = sorted(
        {str(x) for raw in raws.values() for x in raw.annotations.description}
    )
    names = [name for name in names if not name.upper().startswith(("BAD", "EDGE"))]
    if not names:
        raise ValueError(
            "no events: neither events.tsv nor the annotations of the data have any"
        )
    chosen = [
        name
        for name in names
        if wanted is None or any(_has_tags(name, one) for one in wanted)
    ]
    for one in wanted or ():
        if not any(_has_tags(name, one) for name in names):
            raise ValueError(f"no event {one!r}: there are {', '.join(names)}")
    return {name: number for number, name in enumerate(chosen, start=1)}


def _has_tags(name, wanted):
    return set(wanted.split("/")) <= set(name.split("/"))


def average(epochs, wanted):
    """Return the average of each condition.

    Parameters
    ----------
    epochs : Epochs
        The epochs.
    wanted : tuple of str | None
        The conditions. None takes each kind of event.

    Returns
    -------
    evokeds : list of Evoked
        The averages. The condition is the comment.
    """
    evokeds = []
    for condition in wanted or sorted(epochs.event_id):
        try:
            some = epochs[condition]
        except KeyError:
            names = ", ".join(sorted(epochs.event_id))
            raise ValueError(f"no event {condition!r}: there are {names}") from None
        if not len(some):
            raise ValueError(f"no epoch is left of the event {condition!r}")
        evoked = some.average(picks="all")
        evoked.comment = condition
        evokeds.append(evoked)
    return evokeds


def make_noise_cov(epochs, baseline):
    """Estimate the noise covariance of single trials from the baseline.

    Parameters
    ----------
    epochs : Epochs
        The epochs.
    baseline : tuple of float
        First and last time of the baseline (s).

    Returns
    -------
    noise_cov : Covariance
        Shrunk, and of the rank of the data.
    """
    tmin, tmax = baseline
    return mne.compute_covariance(
        epochs, tmin=tmin, tmax=tmax, method="shrunk", rank="info"
    )

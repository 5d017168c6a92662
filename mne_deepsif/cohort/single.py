"""One recording, given as a file: what ``mne-deepsif estimate`` does."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from pathlib import Path

import mne

from ..cache import hash_file
from ..head.template import make_template_forward
from .derivatives import versions, write_json
from .estimates import (
    Results,
    choose_samples,
    write_evoked_estimates,
    write_raw_estimate,
)
from .recording import (
    average,
    make_epochs,
    make_noise_cov,
    prepare_raw,
    read_recording,
    resample,
    set_positions,
    set_reference,
)
from .run import describe_weights

_NAMED = {"baseline", "adhoc", "template"}  # not files


def plan_single(settings):
    """Return lines that say what would run; nothing is computed.

    Parameters
    ----------
    settings : EstimateSettings
        The settings.

    Returns
    -------
    lines : list of str
        The lines.
    """
    _check_files(settings)
    inst = read_recording(settings.file)
    kind = "Evoked" if isinstance(inst, list) else type(inst).__name__
    first = inst[0] if isinstance(inst, list) else inst
    lines = dict(file=f"{settings.file} ({kind}, {len(first.ch_names)} channels)")
    if isinstance(inst, mne.BaseEpochs):
        lines["conditions"] = ", ".join(settings.events or sorted(inst.event_id))
    elif isinstance(inst, list):
        lines["conditions"] = ", ".join(x.comment for x in _choose(inst, settings))
    else:
        _check_quiet_span(settings)
        lines["conditions"] = ", ".join(settings.events or ["none: continuous"])
    for name in ("forward", "noise_cov", "weights"):
        lines[name] = getattr(settings, name)
    lines["results"] = str(_make_results(settings, {}).fname(None, "*"))
    return [f"{name:<12}{text}" for name, text in lines.items()]


def run_single(settings, command):
    """Estimate a recording and write the results.

    Parameters
    ----------
    settings : EstimateSettings
        The settings.
    command : str
        What was run.

    Returns
    -------
    fnames : list of Path
        The files written.
    """
    sources = _check_files(settings)
    weights = describe_weights(settings.weights)
    sidecar = dict(
        Sources=[str(path) for path in sources],
        Weights=weights,
        Settings=settings.that_matter(),
    )
    results = _make_results(settings, sidecar)
    record = results.fname(None, "_deepsif.json")
    if record.exists() and not settings.overwrite:
        raise FileExistsError(f"{record} exists: use --overwrite, or another --out.")
    results.folder.mkdir(parents=True, exist_ok=True)
    inst = read_recording(settings.file)
    if isinstance(inst, mne.io.BaseRaw) and settings.events is None:
        _run_continuous(inst, settings, results)
    else:
        _run_averages(inst, settings, results)
    about = dict(GeneratedBy=versions() | dict(command=command))
    inputs = {str(path): hash_file(path) for path in sources}
    write_json(record, sidecar | about | dict(Inputs=inputs, Outputs=results.outputs))
    return [results.folder / name for name in results.outputs] + [record]


def _check_files(settings):
    """Return the files that are read; raise if one is not there."""
    sources = {"file": settings.file}
    for name in ("forward", "noise_cov"):
        if getattr(settings, name) not in _NAMED:
            sources[name] = getattr(settings, name)
    for name, fname in sources.items():
        if not Path(fname).exists():
            raise FileNotFoundError(f"{name} {fname!r} does not exist.")
    return [Path(fname) for fname in sources.values()]


def _make_results(settings, sidecar):
    file = Path(settings.file)
    folder = file.parent if settings.out is None else Path(settings.out)
    return Results(folder, Path(file.name.removesuffix(".gz")).stem, sidecar)


def _run_continuous(raw, settings, results):
    _check_quiet_span(settings)
    choose_samples(raw, settings)  # raises before any work
    prepare_raw(raw, settings)
    set_reference(raw)
    fwd = _make_forward(raw, settings)
    if settings.noise_cov != "baseline":
        noise_cov = _read_cov(raw.info, settings)
    else:
        tmin, tmax = settings.baseline
        noise_cov = mne.compute_raw_covariance(
            raw, tmin, tmax, method="shrunk", rank="info"
        )
    write_raw_estimate(raw, fwd, noise_cov, settings, results)


def _check_quiet_span(settings):
    """Raise if nothing says what is noise in continuous data."""
    continuous = settings.events is None and settings.noise_cov == "baseline"
    if continuous and settings.baseline is None:
        raise ValueError(
            "noise_cov of continuous data needs a quiet span: give its two times as "
            "baseline, or noise_cov as a file, or events to average"
        )


def _run_averages(inst, settings, results):
    if isinstance(inst, list):
        evokeds = _choose(inst, settings)
        if settings.noise_cov == "baseline":
            raise ValueError(
                "noise_cov of averages must be a file or adhoc: the covariance of "
                "single trials cannot be estimated from their average"
            )
        for evoked in evokeds:
            _tidy(evoked, settings)
        noise_cov = _read_cov(evokeds[0].info, settings)
    else:
        epochs = _make_epochs(inst, settings)
        if settings.noise_cov == "baseline":
            noise_cov = make_noise_cov(epochs, settings.baseline_of(epochs))
        else:
            noise_cov = _read_cov(epochs.info, settings)
        evokeds = average(epochs, settings.events)
    fwd = _make_forward(evokeds[0], settings)
    write_evoked_estimates(evokeds, fwd, noise_cov, settings.weights, settings, results)


def _make_epochs(inst, settings):
    if isinstance(inst, mne.io.BaseRaw):
        prepare_raw(inst, settings)
        return make_epochs({Path(settings.file).name: inst}, settings)
    _tidy(inst.load_data(), settings)
    return inst


def _tidy(inst, settings):
    """Pick, reference, crop, correct the baseline of and resample epochs or Evoked."""
    if settings.l_freq is not None or settings.h_freq is not None:
        raise ValueError(
            "l_freq and h_freq filter continuous data, and the file holds averages or "
            "epochs: filter before you cut epochs"
        )
    inst.pick(mne.pick_types(inst.info, meg=True, eeg=True, ref_meg=True, exclude=()))
    set_reference(inst)
    _crop(inst, settings)
    has_none = inst.baseline is None and inst.times[0] < 0
    if settings.baseline is not None or has_none:
        inst.apply_baseline(settings.baseline_of(inst))
    resample(inst, settings.sfreq)


def _crop(inst, settings):
    """Crop epochs or an Evoked to tmin and tmax, as far as they are given."""
    first, last = inst.times[[0, -1]]
    tmin = first if settings.tmin is None else settings.tmin
    tmax = last if settings.tmax is None else settings.tmax
    slack = 0.5 / inst.info["sfreq"]
    if not first - slack <= tmin < tmax <= last + slack:
        raise ValueError(
            f"tmin and tmax must be within the file's {first:g} to {last:g} s, tmin "
            f"before tmax, got {tmin:g} and {tmax:g}"
        )
    inst.crop(max(tmin, first), min(tmax, last))


def _choose(evokeds, settings):
    """Return the averages that are wanted; give names to those without."""
    evokeds = [evoked for evoked in evokeds if evoked.kind == "average"]
    if not evokeds:
        raise ValueError("file has no averages, only standard errors")
    for number, evoked in enumerate(evokeds):
        evoked.comment = evoked.comment or f"average{number}"
    names = [evoked.comment for evoked in evokeds]
    missing = sorted(set(settings.events or ()) - set(names))
    if missing:
        raise ValueError(f"events {missing} are not in the file, which has {names}")
    return [
        x for x in evokeds if settings.events is None or x.comment in settings.events
    ]


def _read_cov(info, settings):
    if settings.noise_cov == "adhoc":
        return mne.make_ad_hoc_cov(info)
    return mne.read_cov(settings.noise_cov)


def _make_forward(inst, settings):
    if settings.forward != "template":
        return mne.read_forward_solution(settings.forward)
    set_positions(inst, settings.montage)
    return make_template_forward(inst.info)

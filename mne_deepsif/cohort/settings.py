"""Settings of the commands: each is an option, a key of a TOML file, and a field."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path

MANY = "+"  # one value or more
_DATATYPES = ("eeg", "meg")


def _setting(default, text, kind=str, *, many=None, choices=None, matters=True):
    """Define a setting. What does not matter to the results is not hashed."""
    metadata = dict(help=text, kind=kind, many=many, choices=choices, matters=matters)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """Checks values, wherever they come from."""

    def __post_init__(self):
        for one in fields(self):
            value = _check(one, getattr(self, one.name))
            object.__setattr__(self, one.name, value)

    def that_matter(self):
        """Return the settings that the results depend on, as a dict."""
        return {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if one.metadata["matters"]
        }


def _check(one, value):
    """Return a value of the right type, lists as tuples; raise if it cannot be."""
    meta = one.metadata
    if value is None and one.default is None:
        return None
    if meta["many"] is None:
        return _check_one(one.name, value, meta)
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        value = [value]
    values = tuple(_check_one(one.name, x, meta) for x in value)
    if len(values) == 0 or meta["many"] not in (MANY, len(values)):
        wanted = "at least one value" if meta["many"] == MANY else "two values"
        raise ValueError(f"{one.name} must be {wanted}, got {list(values)}.")
    return values


def _check_one(name, value, meta):
    kind = meta["kind"]
    if kind is str and isinstance(value, Path):
        value = str(value)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        words = {str: "text", int: "an integer", float: "a number", bool: "true/false"}
        raise ValueError(f"{name} must be {words[kind]}, got {value!r}.")
    if meta["choices"] and value not in meta["choices"]:
        raise ValueError(f"{name} must be one of {meta['choices']}, got {value!r}.")
    return value


@dataclass(frozen=True, kw_only=True)
class _RecordingSettings(_Settings):
    """What the estimates of one recording depend on."""

    events: tuple | None = _setting(
        None,
        "names of events to average, e.g. spike; tags as in MNE: spike takes spike/left"
        " too (default: all)",
        many=MANY,
    )
    tmin: float | None = _setting(
        None, "start of an epoch (s; default -0.2), without events: of the range", float
    )
    tmax: float | None = _setting(
        None, "end of an epoch (s; default 0.5), without events: of the range", float
    )
    baseline: tuple | None = _setting(
        None,
        "two times (s) of the baseline, which is subtracted and gives the noise"
        " covariance (default: tmin and 0)",
        float,
        many=2,
    )
    l_freq: float | None = _setting(
        None, "high-pass filter (Hz) of continuous data", float
    )
    h_freq: float | None = _setting(
        None, "low-pass filter (Hz) of continuous data", float
    )
    sfreq: float | None = _setting(
        None, "sampling rate of the estimates (Hz; default: the recording's)", float
    )
    montage: str | None = _setting(
        None, "MNE's standard montage for EEG without positions, e.g. standard_1005"
    )
    weights: str = _setting(
        "generic",
        "name or file (.safetensors) of the weights",
        matters=False,  # their SHA-256 does
    )
    min_area: float = _setting(1e-4, "smallest extent to keep (m²)", float)
    report: bool = _setting(True, "write an HTML report", bool)
    subjects_dir: str | None = _setting(
        None, "FreeSurfer subjects directory of individual forwards", matters=False
    )

    @property
    def span(self):
        """First and last time of an epoch (s)."""
        return (
            -0.2 if self.tmin is None else self.tmin,
            0.5 if self.tmax is None else self.tmax,
        )

    def _check_span(self):
        first, last = self.span
        if not first < last:
            raise ValueError(f"tmin must be before tmax, got {first} and {last}.")

    def baseline_of(self, inst=None):
        """Return the times of the baseline (s), within what was cut elsewhere."""
        if self.baseline is not None:
            return self.baseline
        return (self.span[0] if inst is None else inst.times[0], 0.0)

    def __post_init__(self):
        """Check the values."""
        super().__post_init__()
        if None not in (self.tmin, self.tmax):
            self._check_span()
        if None not in (self.l_freq, self.h_freq) and self.l_freq >= self.h_freq:
            raise ValueError(
                "l_freq must be below h_freq (else MNE stops the band between), got "
                f"{self.l_freq} and {self.h_freq}."
            )
        if self.sfreq is not None and not self.sfreq >= 50:
            raise ValueError(f"sfreq must be 50 Hz or more, got {self.sfreq}.")


@dataclass(frozen=True, kw_only=True)
class EstimateSettings(_RecordingSettings):
    """Settings of ``mne-deepsif estimate``."""

    file: str = _setting(
        "", "recording: *_ave.fif, *_epo.fif, or anything that mne.io.read_raw reads"
    )
    forward: str = _setting("template", "forward solution: template or a file")
    noise_cov: str = _setting("baseline", "noise covariance: baseline, adhoc or a file")
    out: str | None = _setting(None, "folder of the results (default: the file's)")
    overwrite: bool = _setting(False, "replace results of an earlier run", bool)
    dry_run: bool = _setting(False, "say what would run, and stop", bool)


@dataclass(frozen=True, kw_only=True)
class CohortSettings(_RecordingSettings):
    """Settings of :func:`run_cohort` and of ``mne-deepsif cohort``.

    Each field is documented by ``mne-deepsif cohort --help``, where it is an option of
    the same name (``personalise=500`` is ``--personalise 500``).
    """

    root: str = _setting("", "folder of the BIDS dataset", matters=False)
    out: str | None = _setting(
        None,
        "folder of the results (default: derivatives/mne_deepsif in root)",
        matters=False,
    )
    subjects: tuple | None = _setting(
        None, "labels without sub- (default: all)", many=MANY, matters=False
    )
    sessions: tuple | None = _setting(
        None, "labels without ses- (default: all)", many=MANY, matters=False
    )
    tasks: tuple | None = _setting(
        None, "labels without task- (default: all)", many=MANY, matters=False
    )
    datatype: str | None = _setting(
        None, "eeg or meg (default: both)", choices=_DATATYPES, matters=False
    )
    personalise: int = _setting(
        0, "updates of a training on each recording's own forward (0: none)", int
    )
    jobs: int = _setting(1, "processes on this machine", int, matters=False)
    dask: str | None = _setting(
        None, "address of a Dask scheduler that takes their place", matters=False
    )
    dry_run: bool = _setting(False, "say what would run, and stop", bool, matters=False)

    def __post_init__(self):
        """Check the values."""
        super().__post_init__()
        self._check_span()  # of epochs in any case
        first, last = self.baseline_of()
        if not self.span[0] <= first < last <= self.span[1]:
            raise ValueError(
                f"baseline must be two times from tmin to tmax, {self.span[0]} to "
                f"{self.span[1]} s, got {first} and {last}."
            )
        for name, least in (("personalise", 0), ("jobs", 1)):
            if getattr(self, name) < least:
                value = getattr(self, name)
                raise ValueError(f"{name} must be {least} or more, got {value}.")

    @property
    def folder(self):
        """Where results are written."""
        if self.out is not None:
            return Path(self.out)
        return Path(self.root) / "derivatives" / "mne_deepsif"


@dataclass(frozen=True, kw_only=True)
class GroupSettings(_Settings):
    """Settings of ``mne-deepsif group``."""

    folder: str = _setting("", "folder that the command cohort wrote")
    condition: str = _setting("", "the condition: desc- in the names of the files")
    task: str | None = _setting(
        None, "label without task-; needed if the cohort has several"
    )
    datatype: str | None = _setting(
        None, "eeg or meg; needed if the cohort has both", choices=_DATATYPES
    )
    acquisition: str | None = _setting(
        None, 'label without acq-; needed if the cohort has several ("": none)'
    )
    processing: str | None = _setting(
        None, 'label without proc-; needed if the cohort has several ("": none)'
    )
    contrast: str | None = _setting(
        None, "a second condition, whose activity is subtracted"
    )
    baseline: tuple | None = _setting(
        None,
        "two times (s) whose mean activity is subtracted; needed without contrast",
        float,
        many=2,
    )
    tmin: float | None = _setting(None, "start of the average (s)", float)
    tmax: float | None = _setting(None, "end of the average (s)", float)
    permutations: int = _setting(1024, "of the cluster test (0: no test)", int)
    p_threshold: float = _setting(0.001, "p-value that forms clusters", float)
    jobs: int = _setting(1, "processes of the cluster test", int)
    out: str | None = _setting(None, "folder of the results (default: group in folder)")
    subjects_dir: str | None = _setting(
        None, "FreeSurfer subjects directory with the subjects and fsaverage"
    )


def read_settings(kind, config=None, given=()):
    """Return settings from a TOML file and what was given beside it, which wins.

    Parameters
    ----------
    kind : type
        The class of the settings.
    config : path-like | None
        The file.
    given : dict
        Values by name.

    Returns
    -------
    settings : object
        Settings of that class.
    """
    values = {} if config is None else _read_toml(config)
    known = [one.name for one in fields(kind)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"{config}: unknown keys {unknown}; allowed are {known}.")
    values |= dict(given)
    try:
        settings = kind(**values)
    except ValueError as error:
        where = "" if config is None else f" (options and {config})"
        raise ValueError(f"{error}{where}") from None
    needed = [one.name for one in fields(kind) if one.default == ""]
    for name in needed:
        if not getattr(settings, name):
            raise ValueError(f"{name} is needed, as an argument or as a key of config.")
    return settings


def _read_toml(fname):
    try:
        with open(fname, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ValueError(f"config {fname}: {error.strerror}.") from error
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"config {fname} is not valid TOML: {error}.") from error

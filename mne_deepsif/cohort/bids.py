"""A BIDS dataset: which recordings it has, their files, and individual forwards."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import dataclass
from pathlib import Path

_DATATYPES = ("eeg", "meg")
# a file is about a recording if each of these agrees with it or is left out
_SHARED = ("session", "task", "acquisition", "processing", "run")
_SIDECARS = (
    *("channels.tsv", "coordsystem.json", "eeg.json", "electrodes.tsv"),
    *("events.json", "events.tsv", "meg.json"),
)


@dataclass(frozen=True)
class Recording:
    """All runs of a subject in one session and task: they are averaged together.

    Attributes
    ----------
    runs : tuple of BIDSPath
        The files of the runs.
    """

    runs: tuple

    @property
    def entities(self):
        """Entities that all runs share, by name."""
        entities = {k: v for k, v in self.runs[0].entities.items() if v is not None}
        return {k: v for k, v in entities.items() if k not in ("run", "split")}

    @property
    def name(self):
        """How the names of its results begin."""
        path = self.runs[0].copy()
        path.update(run=None, split=None, suffix=None, extension=None)
        return path.basename

    @property
    def place(self):
        """Folder of its results, below the folder of derivatives."""
        return self.runs[0].directory.relative_to(self.runs[0].root)

    @property
    def datatype(self):
        """``"eeg"`` or ``"meg"``."""
        return self.runs[0].datatype

    def inputs(self):
        """Return the files of its data, and those that say what is in them.

        The latter lie beside the data or in a folder above.
        """
        folder = self.runs[0].directory
        found = list(folder.glob(f"sub-{self.runs[0].subject}_*"))
        while folder != self.runs[0].root:
            folder = folder.parent
            found += (p for p in folder.iterdir() if p.name.endswith(_SIDECARS))
        return sorted(path for path in found if self._agrees(path))

    def _agrees(self, path):
        """Tell whether a file may be about this recording."""
        entities = _read_entities(path)
        return all(
            entities.get(name) in {None, *_values(self, name)} for name in _SHARED
        )


def import_mne_bids():
    """Import mne-bids, or say how to install it."""
    try:
        import mne_bids
    except ImportError as error:
        raise ImportError(
            "BIDS datasets need mne-bids, which is not installed: pip install "
            "mne-deepsif[bids]"
        ) from error
    return mne_bids


def find_recordings(settings):
    """Return the recordings of a dataset that are wanted.

    Parameters
    ----------
    settings : CohortSettings
        The settings.

    Returns
    -------
    recordings : list of Recording
        In the order of their names.
    """
    mne_bids = import_mne_bids()
    root = Path(settings.root)
    if not (root / "dataset_description.json").is_file():
        raise ValueError(
            f"root must be a BIDS dataset, but {root} has no dataset_description.json."
        )
    groups = {}
    for subject in _find_subjects(root, settings.subjects):
        paths = mne_bids.find_matching_paths(
            root,
            subjects=subject,
            sessions=settings.sessions,
            tasks=settings.tasks,
            suffixes=_DATATYPES if settings.datatype is None else settings.datatype,
            extensions=sorted(_extensions(mne_bids)),
            datatypes=_DATATYPES if settings.datatype is None else settings.datatype,
            ignore_nosub=True,
        )
        for path in paths:
            if path.split not in (None, "01", "1"):
                continue  # MNE reads the other parts with the first
            recording = Recording((path,))
            key = (recording.place, recording.name)
            groups.setdefault(key, []).append(path)
    chosen = [Recording(tuple(sorted(groups[key], key=str))) for key in sorted(groups)]
    if not chosen:
        names = ("subjects", "sessions", "tasks", "datatype")
        asked = {name: getattr(settings, name) for name in names}
        asked = {name: value for name, value in asked.items() if value is not None}
        raise ValueError(f"root {root} has no recording of EEG or MEG for {asked}.")
    return chosen


def _extensions(mne_bids):
    """Return the endings of data files."""
    allowed = mne_bids.config.ALLOWED_DATATYPE_EXTENSIONS
    return {extension for name in _DATATYPES for extension in allowed[name]}


def _find_subjects(root, wanted):
    found = sorted(path.name[4:] for path in root.glob("sub-*") if path.is_dir())
    found = [subject for subject in found if subject != "emptyroom"]
    if wanted is None:
        return found
    wanted = [subject.removeprefix("sub-") for subject in wanted]
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise ValueError(f"subjects: {missing} are not in {root}.")
    return sorted(set(wanted))


def read_runs(recording):
    """Read the runs of a recording, with events, channels and positions.

    Parameters
    ----------
    recording : Recording
        The recording.

    Returns
    -------
    raws : dict of Raw
        By the name of the run. Data are not loaded.
    """
    mne_bids = import_mne_bids()
    return {path.basename: mne_bids.read_raw_bids(path) for path in recording.runs}


def find_forward(recording, folder):
    """Return the file of the individual forward of a recording, or None.

    Parameters
    ----------
    recording : Recording
        The recording.
    folder : path-like
        Folder of derivatives, one pipeline in each of its folders.

    Returns
    -------
    fname : Path | None
        The file ``sub-*_fwd.fif`` (or ``-fwd.fif``) of the subject whose entities all
        agree with those of the recording; the one with most entities.
    """
    subject = f"sub-{recording.runs[0].subject}"
    found = {}
    for fname in sorted(Path(folder).glob(f"*/{subject}/**/*fwd.fif")):
        if not fname.name.startswith(f"{subject}_"):
            continue
        if fname.parent.name in set(_DATATYPES) - {recording.datatype}:
            continue
        entities = _read_entities(fname)
        if all(_values(recording, k) == {v} for k, v in entities.items()):
            found.setdefault(len(entities), []).append(fname)
    best = found[max(found)] if found else [None]
    if len(best) > 1:
        raise ValueError(
            f"several forward solutions fit ({', '.join(map(str, best))}): keep one"
        )
    return best[0]


def _read_entities(path):
    """Return the entities in a file's name that tell recordings apart."""
    mne_bids = import_mne_bids()
    entities = mne_bids.get_entities_from_fname(path.name, on_error="ignore")
    return {k: entities.get(k) for k in _SHARED if entities.get(k) is not None}


def _values(recording, name):
    """Return the values that an entity has in the runs."""
    return {getattr(path, name) for path in recording.runs}

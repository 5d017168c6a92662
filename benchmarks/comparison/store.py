"""The store: one file for each cell, written whole or not at all."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from mne_deepsif.cache import whole_file

from .methods import find_method, version_of
from .scenarios import Chunk, Scenario


@dataclass(frozen=True)
class Cell:
    """A scenario, a method, the number of its settings, and a chunk of samples.

    Parameters
    ----------
    scenario : Scenario
        The scenario.
    method : str
        Name of the method.
    setting : int
        Which of the method's settings; 0 are the usual ones.
    chunk : Chunk
        Which samples.
    """

    scenario: Scenario
    method: str
    setting: int
    chunk: Chunk

    @property
    def settings(self):
        """The settings, a dict."""
        return find_method(self.method).settings[self.setting]

    def key(self):
        """Return all that the rows depend on; it can be written as JSON."""
        return dict(
            scenario=asdict(self.scenario),
            method=self.method,
            settings=self.settings,
            version=version_of(self.method, self.scenario.sources.judged),
            chunk=self.chunk._asdict(),
        )


class Store:
    """A folder of cells.

    Parameters
    ----------
    folder : path-like
        The folder; all processes must see it.
    """

    def __init__(self, folder):
        self.folder = Path(folder)

    def fname(self, cell):
        """Return the file of a cell."""
        text = json.dumps(cell.key(), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        parts = (cell.scenario.name, cell.method)
        folder, name = (re.sub(r"\W+", "-", Path(part).name) for part in parts)
        return self.folder / folder / f"{name}-{digest}.json"

    def missing(self, plan):
        """Return the cells of a plan that have no file."""
        return [cell for cell in plan if not self.fname(cell).is_file()]

    def save(self, cell, record):
        """Write the rows of a cell, and what else is known of it."""
        fname = self.fname(cell)
        fname.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(fname) as part:
            part.write_text(json.dumps(dict(key=cell.key()) | record))

    def load(self, cell):
        """Read what was saved."""
        return json.loads(self.fname(cell).read_text())

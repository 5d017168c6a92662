"""Fixtures shared by the tests, and the warnings that are allowed."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import functools
import os
import signal
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import mne
import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from mne_deepsif import Model, make_template_parcels, make_template_source_space
from mne_deepsif.cache import cached
from mne_deepsif.head.leadfield import make_leadfield
from mne_deepsif.head.template import make_template_trans
from mne_deepsif.inverse.model import PreparedModel

SHARED = Path(__file__).parents[2] / "shared"

# pyproject.toml turns warnings into errors; these are let through, each for a reason
ALLOWED_WARNINGS = (
    # most tests feed the front doors with random numbers, and it says so
    "ignore:The estimate may be wrong:RuntimeWarning",
    # Hypothesis shows the array that fails; as an error, it would hide what failed
    "ignore:Generating overly large repr",
)


def pytest_configure(config):
    """Add the exceptions; keep what the package builds from run to run."""
    for line in ALLOWED_WARNINGS:
        config.addinivalue_line("filterwarnings", line)
    if "MNE_DEEPSIF_DATA" not in os.environ:
        os.environ["MNE_DEEPSIF_DATA"] = str(config.cache.mkdir("mne_deepsif_data"))
    mne.set_log_level("WARNING")
    # one thread for each of several processes; numba's reach torch through OpenMP as
    # soon as MNE computes a forward, so the processes must start with this setting
    if config.getoption("numprocesses", None):
        os.environ["NUMBA_NUM_THREADS"] = "1"
    if hasattr(config, "workerinput"):
        threadpool_limits(1)
        torch.set_num_threads(1)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # as in any process started in the background; some tests press Ctrl-C
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def parcels():
    """Give a coarse parcellation of the template: every parcel has ico4 vertices."""
    return make_template_parcels(200)


# --------------------------------------------------------------- without any file


@pytest.fixture(scope="session")
def eeg_info():
    """32 EEG electrodes with positions and an average reference projector."""
    montage = mne.channels.make_standard_montage("biosemi32")
    info = mne.create_info(montage.ch_names, 250.0, "eeg")
    return _add_reference(info.set_montage(montage))


def _add_reference(info):
    raw = mne.io.RawArray(np.zeros((info["nchan"], 1)), info)
    return raw.set_eeg_reference(projection=True).info


@pytest.fixture(scope="session")
def template_src():
    """Source space of the template, ico4 (MRI coordinates)."""
    return _decimate(make_template_source_space())


@pytest.fixture(scope="session")
def eeg_fwd(eeg_info, template_src):
    """Free-orientation forward of the template: ico4, in a sphere that holds it."""
    sphere = mne.make_sphere_model((0.0, 0.0, 0.04), 0.125, eeg_info)
    trans = make_template_trans(eeg_info)
    return mne.make_forward_solution(eeg_info, trans, template_src, sphere, mindist=0.0)


@pytest.fixture(scope="session")
def cov(eeg_info):
    """Ad-hoc noise covariance of the electrodes."""
    return mne.make_ad_hoc_cov(eeg_info)


def _decimate(src, n_vertices=2562):
    """Keep the first vertices: those of ico4 on an icosahedral surface."""
    src = src.copy()
    for s in src:
        s["inuse"][n_vertices:] = 0
        s.update(nuse=n_vertices, vertno=np.arange(n_vertices))
    return src


@pytest.fixture
def epochs(evoked):
    """Give three epochs of a module's evoked: as it is, inverted, and weaker."""
    data = np.stack([evoked.data, -2 * evoked.data, 0.5 * evoked.data])
    return mne.EpochsArray(data, evoked.info, tmin=-0.1, proj=False)


@pytest.fixture
def raw(evoked):
    """Give a recording in which a module's evoked follows itself twice."""
    return mne.io.RawArray(np.tile(evoked.data, 3), evoked.info)


# --------------------------------------------------------------- without a network


@dataclass(frozen=True, eq=False)
class MinimumNorm(Model):
    """A model whose estimate is linear in the data, which is quick and exact."""

    regularization: float = 1e-2
    given: list = field(default_factory=list)  # data, gain, sfreq of each estimate

    def prepare(self, gain, patterns=None):
        """Return what estimates with the kernel of a minimum norm."""
        return _Kernel(self, gain)


class _Kernel(PreparedModel):
    def __init__(self, model, gain):
        self.model, self.gain = model, gain
        gram = gain @ gain.T
        gram += model.regularization * np.trace(gram) / len(gram) * np.eye(len(gram))
        self.kernel = gain.T @ np.linalg.pinv(gram, rcond=1e-12, hermitian=True)

    def estimate(
        self, data, sfreq, *, band=None, mixing=None, fit=False, keep=slice(None)
    ):
        self.model.given.append((data, self.gain, sfreq))
        kernel = self.kernel if mixing is None else mixing @ self.kernel
        sources = kernel @ data
        sources = sources[..., keep]
        return (sources, self.gain @ self.kernel @ data) if fit else sources


@pytest.fixture(scope="session")
def minimum_norm(parcels):
    """Make a linear model of the coarse parcels."""

    def make(encoder="backprojection", **fields):
        return MinimumNorm(None, encoder, parcels, 125.0, 64, **fields)

    return make


@pytest.fixture
def plain(minimum_norm):
    """Give an estimator that is linear and exact."""
    return minimum_norm()


# --------------------------------------------------------------- a moment of training


@contextmanager
def _small_training(parcels):
    """Make fit quick: a synthetic library, a small network, few validation samples."""
    from mne_deepsif import estimator
    from mne_deepsif.simulation import Library, library, make_patches
    from mne_deepsif.training import personal

    rng = np.random.default_rng(0)
    seeds = np.arange(parcels.n_parcels)
    patches, decay = make_patches(seeds, parcels.adjacency, parcels.centers, 0)
    times = (np.arange(96) - 48) / 125.0
    widths = rng.uniform(0.02, 0.06, 60)[:, None]
    background = rng.standard_normal((parcels.n_parcels, 1500))
    made = Library(
        patches=patches,
        decay=decay,
        waveforms=np.exp(-0.5 * (times / widths) ** 2).astype(np.float16),
        background=background.astype(np.float16),
        sfreq=125.0,
    )
    make_network = estimator.make_network

    def small(architecture, *args, **sizes):
        if architecture == "compact":
            sizes = {"width": 40, "gate_width": 40} | sizes
        else:
            sizes = {"n_hidden": 20, "n_layers": 1} | sizes
        return make_network(architecture, *args, **sizes)

    options = functools.partial(estimator.TrainingOptions, n_validation=32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "make_library", lambda parcels, **_: made)
        patch.setattr(estimator, "make_network", small)
        patch.setattr(estimator, "TrainingOptions", options)
        patch.setattr(personal, "_N_PATCHES", 1500)
        yield


@pytest.fixture(scope="module")
def small_training(parcels):
    """Make fit quick in a whole module."""
    with _small_training(parcels):
        yield


@pytest.fixture(scope="module")
def small_template_training():
    """Make fit quick in a whole module, on the parcels of the generic weights."""
    with _small_training(make_template_parcels()):
        yield


@pytest.fixture(scope="session")
def tiny_estimator(parcels, eeg_fwd, eeg_info):
    """Train for a few updates: the output is not zero, and that is all."""
    from mne_deepsif import DeepSIFEstimator

    settings = dict(n_times=32, n_steps=4, batch_size=8, random_state=0)
    settings |= dict(device="cpu", precision="float32", weights=None, parcels=parcels)
    with _small_training(parcels):
        return DeepSIFEstimator(**settings).fit(eeg_fwd, eeg_info)


# --------------------------------------------------------------- the real recording


@pytest.fixture(scope="session")
def sample_dir():
    """Folder of the sample recording (not in a user's clone)."""
    path = SHARED / "data" / "sample"
    if not path.is_dir():
        pytest.skip(f"needs the sample recording in {path}")
    return path


@pytest.fixture(scope="session")
def _sample_evoked(sample_dir):
    fname = sample_dir / "sample_audvis-ave.fif"
    return mne.read_evokeds(fname, condition="Left visual")


@pytest.fixture
def sample_evoked(_sample_evoked):
    """'Left visual': 306 MEG and 60 EEG channels, two of them bad, 6 trials."""
    return _sample_evoked.copy()


@pytest.fixture(scope="session")
def sample_cov(sample_dir):
    """Noise covariance of single trials."""
    return mne.read_cov(sample_dir / "sample_audvis-cov.fif")


@pytest.fixture(scope="session")
def sample_fwd(sample_dir, _sample_evoked):
    """Free-orientation MEG and EEG forward, ico4 (3-layer BEM), kept on disk."""

    def make():
        bem_dir = sample_dir / "sample_fs5" / "bem"
        surfaces = mne.read_bem_surfaces(bem_dir / "sample_fs5-1280-1280-1280-bem.fif")
        src = mne.read_source_spaces(bem_dir / "sample_fs5-src.fif")
        return mne.make_forward_solution(
            _sample_evoked.info,
            sample_dir / "sample_fs5-trans.fif",
            _decimate(src),
            mne.make_bem_solution(surfaces),
            mindist=0.0,
        )

    # it takes half a minute
    return cached(
        *("test-sample", [1], "-fwd.fif"),
        *(mne.read_forward_solution, mne.write_forward_solution, make),
    )


@pytest.fixture(scope="session")
def sample_leadfield(_sample_evoked, sample_fwd, sample_cov, sample_dir, parcels):
    """Leadfield of all channels of the sample recording."""
    where = dict(parcels=parcels, subjects_dir=sample_dir)
    return make_leadfield(_sample_evoked.info, sample_fwd, sample_cov, **where)

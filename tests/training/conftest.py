"""A small problem to train on."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import fields, replace

import mne
import numpy as np
import pytest
import torch
from scipy import sparse

from mne_deepsif.network.architectures import make_network
from mne_deepsif.network.device import sparse_tensor
from mne_deepsif.network.encoder import N_KERNELS, N_SCALES, backprojection_kernels
from mne_deepsif.network.prior import CorticalPrior
from mne_deepsif.simulation import Library
from mne_deepsif.training.batches import TrainingLeadfield
from mne_deepsif.training.bundle import read_bundle, save_bundle
from mne_deepsif.training.cortical import CorticalLeadfield, Truth, to_tensor
from mne_deepsif.training.personal import draw_patches
from mne_deepsif.training.trainer import Trainer, TrainingOptions

N_PARCELS, N_CHANNELS, N_TIMES = 12, 8, 32


@pytest.fixture(scope="module")
def library():
    """Patches of three parcels on a ring, bumps, hardly any background."""
    rng = np.random.default_rng(0)
    seeds = np.arange(N_PARCELS).repeat(2)
    times = (np.arange(96) - 48) / 125
    widths = rng.uniform(0.02, 0.06, 60)[:, None]
    return Library(
        patches=(seeds[:, None] + [0, 1, -1]) % N_PARCELS,
        decay=np.tile(np.float32([1, 0.6, 0.6]), (len(seeds), 1)),
        waveforms=np.exp(-0.5 * (times / widths) ** 2).astype(np.float16),
        background=rng.standard_normal((N_PARCELS, 2000)).astype(np.float16),
        sfreq=125.0,
    )


@pytest.fixture(scope="module")
def sensors():
    """Two leadfields with noise of several sizes, whitened."""
    rng = np.random.default_rng(1)
    made = []
    for _ in range(2):
        std = rng.uniform(0.5, 2, N_CHANNELS)
        gain = rng.standard_normal((N_CHANNELS, N_PARCELS))
        made.append(TrainingLeadfield(gain, np.diag(1 / std)))
    return made


OPTIONS = TrainingOptions(
    n_steps=20,
    batch_size=8,
    n_leadfields=2,
    n_warmup=5,
    n_times=N_TIMES,
    n_validation=32,
    validate_every=5,
    precision="float32",
)


@pytest.fixture(scope="session")
def network():
    """Make a small network; its first estimate is zero unless ``readout`` is not."""

    def make(seed=0, readout=0.0):
        n_features = N_KERNELS * N_PARCELS
        sizes = dict(width=24, gate_width=24)
        made = make_network("compact", n_features, N_PARCELS, N_TIMES, seed, **sizes)
        if readout:
            generator = torch.Generator().manual_seed(seed)
            torch.nn.init.normal_(made.readout.weight, 0, readout, generator=generator)
        return made

    return make


@pytest.fixture(scope="session")
def make_trainer(network):
    """Make a trainer; keyword arguments are options of the training or of itself."""

    def make(library, sensors, net=None, **kw):
        names = {field.name for field in fields(TrainingOptions)}
        options = replace(OPTIONS, **{k: v for k, v in kw.items() if k in names})
        others = {k: v for k, v in kw.items() if k not in names}
        net = network() if net is None else net
        return Trainer(net, library, sensors, options, **others)

    return make


N_PLACES, N_HEAD_PARCELS = 162, 20


@pytest.fixture(scope="session")
def cortex_arrays():
    """Give what is the same for all heads, on a sphere of 162 places."""
    rng = np.random.default_rng(4)
    sphere = mne.surface._get_ico_surface(2)
    edges = np.vstack([sphere["tris"][:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
    neighbours = np.arange(N_PLACES)[:, None].repeat(6, 1)
    for place in range(N_PLACES):
        found = np.unique(edges[edges[:, 0] == place, 1])
        neighbours[place, : len(found)] = found
    times = (np.arange(160) - 80) / 125
    widths = rng.uniform(0.02, 0.06, 40)[:, None]
    return dict(
        neighbours=neighbours,
        area=rng.uniform(1e-5, 3e-5, N_PLACES).astype(np.float32),
        parcel_areas=rng.uniform(1e-4, 3e-4, N_HEAD_PARCELS).astype(np.float32),
        middles=np.arange(8, N_PLACES),
        profiles=np.eye(N_HEAD_PARCELS, dtype=np.float32) + 0.05,
        scales=np.array([0, 1, 4]),
        waveforms=np.exp(-0.5 * (times / widths) ** 2).astype(np.float32),
        background=rng.standard_normal((3000, N_HEAD_PARCELS)).astype(np.float32),
    )


@pytest.fixture(scope="session")
def head_arrays():
    """Give two heads of 8 cm, with 40 electrodes and 24 magnetometers."""
    heads = {}
    for number in (0, 3):
        rng = np.random.default_rng(number)
        rr = 0.08 * mne.surface._get_ico_surface(2)["rr"].astype(np.float32)
        electrodes = rng.standard_normal((40, 3)).astype(np.float32)
        normals = rr + 0.02 * rng.standard_normal((2, N_PLACES, 3))
        parcel = np.arange(N_PLACES) % N_HEAD_PARCELS
        parcel[:8] = -1
        heads[number] = dict(
            eeg=rng.standard_normal((4, 40, 30)),
            eeg_patterns=rng.standard_normal((30, N_PLACES, 3)),
            meg=rng.standard_normal((2, 2, 24, 22)),
            meg_patterns=rng.standard_normal((22, N_PLACES, 3)),
            electrodes=electrodes,
            caps=np.arange(40) < np.array([[19], [24], [36]]),
            normals=normals / np.linalg.norm(normals, axis=2, keepdims=True),
            parcel=np.array([parcel, np.roll(parcel, 1)]),
            rr=rr,
            n_smoothings=2,
        )
    return heads


@pytest.fixture(scope="session")
def bundle(cortex_arrays, head_arrays, tmp_path_factory):
    """Write a bundle."""
    fname = tmp_path_factory.mktemp("bundle") / "bundle.npz"
    save_bundle(fname, cortex_arrays, head_arrays)
    return fname


@pytest.fixture(scope="session")
def cortex(bundle):
    """Read what is the same for all heads."""
    return read_bundle(bundle)[0]


@pytest.fixture(scope="session")
def head(bundle):
    """Read a head."""
    return read_bundle(bundle)[1][3]


# a cortex that is a line
N_LINE = 20  # parcels
PLACES = np.arange(3 * N_LINE) * [[1e-2], [0], [0]]  # a line: 1 cm from each to next


@pytest.fixture(scope="session")
def graph():
    """Give the distances between neighbours along the line."""
    n = PLACES.shape[1]
    graph = sparse.diags_array([1e-2, 1e-2], offsets=[-1, 1], shape=(n, n))
    return graph.tocsr()


@pytest.fixture(scope="session")
def patches(graph):
    """Give patches on the line."""
    middles = np.arange(10, 50)
    return draw_patches(PLACES.T, graph, middles, np.random.default_rng(0), 300)


@pytest.fixture(scope="session")
def pair(patches):
    """Give a leadfield of three places a parcel, and the truth that equals it."""
    rng = np.random.default_rng(1)
    n = PLACES.shape[1]
    parcel = np.arange(n) // 3
    gain = rng.standard_normal((15, n))
    whole = sparse.csr_array((np.ones(n), (np.arange(n), parcel)))
    fine, uniform = to_tensor(gain), to_tensor(gain @ whole.toarray())
    prior = CorticalPrior(fine, torch.as_tensor(parcel), uniform, torch.eye(N_LINE))
    leadfield = CorticalLeadfield(
        kernels=backprojection_kernels(uniform),
        scanning=prior.scan_kernels(fine.T.expand(N_SCALES, -1, -1), prior.parcel),
        prior=prior,
        spread=sparse_tensor(sparse.hstack([sparse.eye_array(n), whole])),
        rr=to_tensor(PLACES.T),
        centre=to_tensor(patches.centre),
        targets=to_tensor(patches.activity.toarray()).half(),
        power=to_tensor(patches.activity.power(2).sum(axis=1)),
        inside=torch.ones(n),
    )
    truth = Truth(
        patch_gain=to_tensor(patches.activity @ gain.T),
        background=torch.zeros(15, N_LINE),
        noise=torch.eye(15),
    )
    return leadfield, truth

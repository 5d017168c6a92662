"""A small problem to train on."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from mne_deepsif.network.architectures import make_network
from mne_deepsif.network.encoder import N_KERNELS
from mne_deepsif.simulation import Library
from mne_deepsif.training.batches import TrainingLeadfield
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

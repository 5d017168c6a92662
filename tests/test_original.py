"""Checkpoints of the papers' authors: read, compared with the equations, refused."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import argparse
import os
import pickle
import sys
import types
from pathlib import Path

import mne
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from mne_deepsif import apply_deepsif, read_deepsif, read_original_checkpoint
from mne_deepsif.head.leadfield import make_leadfield

N_HIDDEN, N_LAYERS = 12, 3


@pytest.fixture(scope="module")
def state(eeg_info, parcels):
    """Give random weights under the names of the authors' checkpoints."""
    n_channels, n_parcels = len(eeg_info.ch_names), parcels.n_parcels
    shapes = {
        "spatial.fc11": (n_channels, n_channels),
        "spatial.fc12": (n_channels, n_channels),
        "spatial.fc21": (N_HIDDEN, n_channels),
        "spatial.fc22": (N_HIDDEN, N_HIDDEN),
        "spatial.fc23": (N_HIDDEN, n_channels),
        "spatial.value": (N_HIDDEN, N_HIDDEN),
    }
    shapes = {f"{name}.weight": shape for name, shape in shapes.items()} | {
        f"{name}.bias": shape[:1] for name, shape in shapes.items()
    }
    for layer in range(N_LAYERS):
        n_in = n_parcels if layer else N_HIDDEN
        for kind, n in (("ih", n_in), ("hh", n_parcels)):
            shapes[f"temporal.rnns.0.weight_{kind}_l{layer}"] = (4 * n_parcels, n)
            shapes[f"temporal.rnns.0.bias_{kind}_l{layer}"] = (4 * n_parcels,)
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(shape, generator=generator) / shape[-1] ** 0.5
        for name, shape in shapes.items()
    }


class Classes:
    """The authors' modules, which pickle finds by name where a file is written."""

    def __init__(self):
        self.module = types.ModuleType("network")
        for name in ("MLPSpatialFilter", "TemporalFilter"):
            setattr(self.module, name, type(name, (), {"__module__": "network"}))

    def save(self, state, fname, output="value_activation", activation="ELU", **more):
        """Write what the authors' main.py writes."""
        classes = [self.module.MLPSpatialFilter, self.module.TemporalFilter]
        attributes = [32, 200, N_LAYERS, *classes, output, "rnn"]
        checkpoint = {
            "epoch": 7,
            "arch": "TemporalInverseNet",
            "state_dict": state,
            "best_result": np.float64(1.5),
            "lr": 3e-4,
            "info": "",
            "train_loss": np.arange(3.0),
            "attribute_list": [*attributes, activation, "ELU", N_HIDDEN],
            "optimizer": {"state": {}, "param_groups": [{"lr": 3e-4, "params": [0]}]},
        }
        sys.modules["network"] = self.module
        try:
            torch.save(checkpoint | more, fname)
        finally:
            del sys.modules["network"]
        return fname


@pytest.fixture(scope="module")
def checkpoint(state, tmp_path_factory):
    """Give the file of a checkpoint as the authors' training script writes it."""
    return Classes().save(state, tmp_path_factory.mktemp("original") / "epoch_7")


@pytest.fixture(scope="module")
def estimator(checkpoint, eeg_info, parcels):
    return read_original_checkpoint(checkpoint, eeg_info.ch_names, parcels)


@pytest.fixture
def evoked(eeg_info):
    """One second at 500 Hz, average-referenced."""
    rng = np.random.default_rng(0)
    data = 1e-6 * rng.standard_normal((32, 500)) * np.hanning(500)
    info = eeg_info.copy()
    with info._unlock():
        info["sfreq"] = 500.0
    return mne.EvokedArray(data, info)


# --------------------------------------------------------------- the network


def written_out(w, data, last_elu=True):
    """Compute the network in torch: (n_channels, n_times) to (n_times, n_parcels).

    The input is free of its time mean and has a largest value of 1. Per time: residual
    block with identity skip, residual block with linear skip, linear layer. Then LSTM
    layers, the last hidden state of which is the output.
    """
    x = torch.as_tensor(data - data.mean(1, keepdims=True), dtype=torch.float64).T
    x = x / x.abs().max()

    def linear(name, x):
        return x @ w[f"spatial.{name}.weight"].double().T + w[f"spatial.{name}.bias"]

    def elu(x):
        return torch.where(x > 0, x, x.exp() - 1)

    x = elu(linear("fc12", elu(linear("fc11", x))) + x)
    x = elu(linear("fc22", elu(linear("fc21", x))) + linear("fc23", x))
    x = elu(linear("value", x)) if last_elu else linear("value", x)
    for layer in range(N_LAYERS):
        kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        w_in, w_state, b_in, b_state = (
            w[f"temporal.rnns.0.{kind}_l{layer}"].double() for kind in kinds
        )
        h = c = torch.zeros(w_state.shape[1], dtype=torch.float64)
        hidden = []
        for now in x:
            gates = w_in @ now + b_in + w_state @ h + b_state
            i, f, g, o = gates.chunk(4)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            hidden.append(h)
        x = torch.stack(hidden)
    return x.numpy()


def test_estimate_is_that_of_the_equations(estimator, state, evoked, parcels):
    """The estimate is what the papers' text says, but for its amplitude."""
    data = evoked.data - evoked.data.mean(0)
    expected = written_out(state, data).T
    gain = 1e9 * data @ expected.T  # a leadfield under which the sign is right
    found = estimator.model_.estimate(data, gain, 500.0)
    assert found.shape == (parcels.n_parcels, 500)
    scale = np.sum(found * expected) / np.sum(expected**2)
    assert scale > 0
    assert_allclose(found / scale, expected, atol=2e-5)


@pytest.mark.parametrize("output", ("value", "value_activation"))
def test_spatial_output(output, state, eeg_info, parcels, tmp_path):
    """The checkpoint says, else the caller, else it is as in the released files."""
    names = eeg_info.ch_names
    fname = Classes().save(state, tmp_path / "x.pt", output)
    bare = tmp_path / "bare.pt"
    torch.save(state, bare)
    told = read_original_checkpoint(bare, names, parcels, spatial_output=output)
    other = read_original_checkpoint(
        Classes().save(state, tmp_path / "y.pt", "value_activation"),
        names,
        parcels,
        spatial_output=output,
    )
    data = np.random.default_rng(1).standard_normal((32, 20))
    expected = written_out(state, data, last_elu=output == "value_activation")
    X = data - data.mean(1, keepdims=True)
    X = torch.as_tensor(X.T[None] / np.abs(X).max(), dtype=torch.float32)
    for one in (read_original_checkpoint(fname, names, parcels), told, other):
        with torch.inference_mode():
            assert_allclose(one.network_(X)[0], expected, atol=1e-5)
    silent = read_original_checkpoint(bare, names, parcels)
    assert silent.network_.sizes["spatial_output"] == "value"


def test_estimator_is_fitted(estimator, eeg_info, parcels):
    assert estimator.encoder == "sensors" and estimator.architecture == "published"
    assert estimator.sfreq_ == 500.0 and estimator.n_times_ == 500
    assert estimator.ch_names_ == eeg_info.ch_names
    assert estimator.parcels_ is parcels
    assert not estimator.network_.training
    assert not any(p.is_meta for p in estimator.network_.parameters())


def test_apply_and_round_trip(estimator, evoked, eeg_fwd, tmp_path):
    """It gives a SourceEstimate, and the same one after saving and reading."""
    cov = mne.make_ad_hoc_cov(evoked.info)
    stc = apply_deepsif(evoked, eeg_fwd, cov, estimator=estimator)
    assert stc.data.shape == (eeg_fwd["nsource"], 500)
    assert np.isfinite(stc.data).all() and stc.data.any()
    shuffled = evoked.copy().reorder_channels(evoked.ch_names[::-1])
    again = apply_deepsif(shuffled, eeg_fwd, cov, estimator=estimator)
    assert_allclose(again.data, stc.data, atol=1e-6 * np.abs(stc.data).max())

    estimator.save(tmp_path / "original-deepsif.safetensors")
    read = read_deepsif(tmp_path / "original-deepsif.safetensors")
    assert read.recipe_ == {"original": "epoch_7"}
    assert read.network_.sizes == estimator.network_.sizes
    gain = make_leadfield(evoked.info, eeg_fwd, cov, parcels=read.parcels_).gain
    before, after = (
        x.model_.estimate(evoked.data, gain, 500.0) for x in (estimator, read)
    )
    assert_array_equal(after, before)


def test_a_missing_channel_is_named(estimator, evoked, eeg_fwd):
    evoked = evoked.drop_channels(["Cz"])
    with pytest.raises(ValueError, match=r"1 of 32 channels.*\['Cz'\]"):
        apply_deepsif(evoked, eeg_fwd, estimator=estimator)


@pytest.mark.parametrize("dtype", (torch.float16, torch.float64))
def test_other_precisions(dtype, state, eeg_info, parcels, tmp_path):
    torch.save({k: v.to(dtype) for k, v in state.items()}, tmp_path / "x.pt")
    read = read_original_checkpoint(tmp_path / "x.pt", eeg_info.ch_names, parcels)
    assert {p.dtype for p in read.network_.parameters()} == {torch.float32}


# --------------------------------------------------------------- nothing is executed


class Evil:
    """Pickles as a call that makes a folder."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("where", ("top", "inside", "state_dict"))
def test_malicious_file_does_not_run(where, state, eeg_info, parcels, tmp_path):
    made = tmp_path / "made"
    calls = {
        "system": Evil(os.system, f"mkdir {made}"),
        "method": Evil(Path.mkdir, made),
        "eval": Evil(eval, f"__import__('os').mkdir({str(made)!r})"),
    }
    for name, evil in calls.items():
        content = {
            "top": evil,
            "inside": {"state_dict": state, "info": evil},
            "state_dict": {"state_dict": {**state, "x": evil}},
        }[where]
        fname = tmp_path / f"{name}.pt"
        torch.save(content, fname)
        with pytest.raises(ValueError, match="refers to .*, which is refused"):
            read_original_checkpoint(fname, eeg_info.ch_names, parcels)
        plain = tmp_path / "plain.pt"  # by pickle itself
        plain.write_bytes(pickle.dumps(evil, protocol=2))
        with pytest.raises(ValueError, match="refused|not a readable"):
            read_original_checkpoint(plain, eeg_info.ch_names, parcels)
        assert not made.exists()
    torch.load(fname, weights_only=False)  # the file does what it is made for
    assert made.exists()


def test_names_that_are_let_through_stay_inert(
    state, eeg_info, parcels, tmp_path, monkeypatch
):
    """The authors' classes are not imported, NumPy's functions not called."""
    module = Classes()
    fname = module.save(state, tmp_path / "x.pt")
    monkeypatch.setitem(sys.modules, "network", types.ModuleType("network"))
    before = torch.serialization.get_safe_globals()
    read_original_checkpoint(fname, eeg_info.ch_names, parcels)
    assert set(torch.serialization.get_safe_globals()) == set(before)
    with pytest.raises(pickle.UnpicklingError, match="Unsupported global"):
        torch.load(fname, weights_only=True)  # so it was us who let them through


def test_refused_object_is_named(state, eeg_info, parcels, tmp_path):
    fname = tmp_path / "x.pt"
    Classes().save(state, fname, args=argparse.Namespace(lr=1))
    with pytest.raises(ValueError, match="refers to argparse.Namespace.*state_dict"):
        read_original_checkpoint(fname, eeg_info.ch_names, parcels)


# --------------------------------------------------------------- what does not fit


def change(state, **changes):
    """Return the state with some entries replaced, or left out where None."""
    names = {name.replace(".", "_"): name for name in state}
    new = state | {names.get(key, key): value for key, value in changes.items()}
    return {name: value for name, value in new.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "match"),
    (
        (dict(spatial_value_bias=None), r"Missing: \['spatial.value.bias'\]"),
        (dict(batch_norm=torch.zeros(3)), r"not part of it: \['batch_norm'\]"),
        (
            dict(spatial_fc12_weight=torch.zeros(32, 31)),
            r"'spatial.fc12.weight': \(\(32, 31\), \(32, 32\)\)",
        ),
        (dict(temporal_rnns_0_weight_hh_l1=None), "Missing: .*weight_hh_l"),
        (dict(spatial_fc21_weight=torch.zeros(3)), "another network"),
        (dict(temporal_rnns_0_weight_hh_l0=None), "another network"),
        (dict(spatial_fc11_bias=[1.0]), "no state dictionary"),
    ),
)
def test_wrong_weights(changes, match, state, eeg_info, parcels, tmp_path):
    fname = Classes().save(change(state, **changes), tmp_path / "x.pt")
    with pytest.raises(ValueError, match=match):
        read_original_checkpoint(fname, eeg_info.ch_names, parcels)


def test_wrong_arguments(checkpoint, eeg_info, parcels, tmp_path):
    names = eeg_info.ch_names
    with pytest.raises(ValueError, match="ch_names must hold 32 .* got 31"):
        read_original_checkpoint(checkpoint, names[:-1], parcels)
    with pytest.raises(ValueError, match=r"got 32 \(31 different\)"):
        read_original_checkpoint(checkpoint, [names[1], *names[1:]], parcels)
    with pytest.raises(TypeError, match="ch_names"):
        read_original_checkpoint(checkpoint, "Cz", parcels)
    with pytest.raises(TypeError, match="parcels"):
        read_original_checkpoint(checkpoint, names, "nmm_994")
    with pytest.raises(ValueError, match="spatial_output"):
        read_original_checkpoint(checkpoint, names, parcels, spatial_output="relu")
    with pytest.raises(FileNotFoundError, match="none.pt.*does not exist"):
        read_original_checkpoint(tmp_path / "none.pt", names, parcels)


def test_wrong_number_of_parcels(state, eeg_info, parcels, tmp_path):
    few = {
        name: value[: 4 * 9, :9] if "weight_hh" in name else value
        for name, value in state.items()
    }
    few = {
        name: value[: 4 * 9] if name.startswith("temporal") else value
        for name, value in few.items()
    }
    for layer in (1, 2):
        few[f"temporal.rnns.0.weight_ih_l{layer}"] = torch.zeros(36, 9)
    torch.save(few, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="parcels must be the 9 parcels.*got 200"):
        read_original_checkpoint(tmp_path / "x.pt", eeg_info.ch_names, parcels)


def test_other_activation(state, eeg_info, parcels, tmp_path):
    Classes().save(state, tmp_path / "x.pt", activation="ReLU")
    with pytest.raises(ValueError, match="activation 'ReLU'"):
        read_original_checkpoint(tmp_path / "x.pt", eeg_info.ch_names, parcels)
    Classes().save(state, tmp_path / "y.pt", output="hidden")
    with pytest.raises(ValueError, match="'hidden' in place 5. Give spatial_output"):
        read_original_checkpoint(tmp_path / "y.pt", eeg_info.ch_names, parcels)


@pytest.mark.parametrize("content", (b"", b"no checkpoint", b"PK\x03\x04 broken"))
def test_unreadable_file(content, eeg_info, parcels, tmp_path):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(ValueError, match="x.pt.*not a readable PyTorch checkpoint"):
        read_original_checkpoint(tmp_path / "x.pt", eeg_info.ch_names, parcels)


def test_not_a_dictionary(eeg_info, parcels, tmp_path):
    torch.save([torch.zeros(3)], tmp_path / "x.pt")
    with pytest.raises(ValueError, match="no state dictionary.*it is a list"):
        read_original_checkpoint(tmp_path / "x.pt", eeg_info.ch_names, parcels)

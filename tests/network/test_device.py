"""Devices and precisions: which are chosen on which machine."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from mne_deepsif.network.device import (
    check_device,
    one_thread,
    open_threads,
    place_network,
    resolve_device,
    resolve_precision,
)


def test_resolve_device(monkeypatch):
    for there, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert resolve_device() == expected
        assert resolve_device("cpu") == "cpu"
        assert resolve_device("cuda:1") == "cuda:1"


def test_resolve_precision(monkeypatch):
    assert resolve_precision("bfloat16", "cpu") is torch.bfloat16
    assert resolve_precision("float32", "cuda") is torch.float32
    for fast, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(
            torch.cpu, "_is_avx512_bf16_supported", lambda fast=fast: fast
        )
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda fast=fast: fast)
        assert resolve_precision("auto", "cpu") is expected
        assert resolve_precision("auto", "cuda:0") is expected
        assert resolve_precision("auto", "mps") is torch.float32


@pytest.mark.parametrize("bias", [True, False])
def test_place_network(bias):
    """Where half precision holds the weights, a layer does as well with them."""
    linear = torch.nn.Linear(30, 20, bias=bias)
    network = torch.nn.Sequential(linear, torch.nn.ELU())
    x = torch.randn(2, 3, 30, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(place_network(network, "cpu")(x), network(x))
        network.half().float()
        placed = place_network(network, "cpu")
        torch.testing.assert_close(placed(x), network(x))
        if torch.backends.quantized.engine in ("fbgemm", "x86"):
            assert placed[0] is not linear
            assert (placed[0].in_features, placed[0].out_features) == (30, 20)
        assert network[0] is linear
        linear.weight[0, 0] = torch.nan
        assert place_network(network, "cpu")(x)[..., 0].isnan().all()


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta:x", ""])
def test_check_device(device):
    assert check_device("cpu") == "cpu"
    assert check_device("auto") == resolve_device("auto")
    with pytest.raises(ValueError, match=f"torch device .* got '{device}': .+"):
        check_device(device)


def test_threads():
    """As many as torch has, with one of torch each; afterwards all is as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with open_threads("cpu") as (threads, n_threads):
            found = set(threads.map(lambda _: torch.get_num_threads(), range(8)))
        with ThreadPoolExecutor(1) as later:
            after = later.submit(torch.get_num_threads).result()
        assert (n_threads, found) == (2, {1})
        assert torch.get_num_threads() == after == 2
    finally:
        torch.set_num_threads(before)


def test_one_thread():
    """Within, also after an error; the number before comes back."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ZeroDivisionError), one_thread():
            assert torch.get_num_threads() == 1
            raise ZeroDivisionError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)

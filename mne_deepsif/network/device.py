"""Where and how a network computes: device and precision."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import copy
import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import numpy as np
import torch
from torch import nn


def _use_one_thread():
    """Leave the threads of the parent alone, which a forked process does not have.

    OpenMP would wait for them for ever.
    """
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_use_one_thread)


def resolve_device(device="auto"):
    """Return the name of the torch device to use: CUDA if there is one."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(device="auto"):
    """Return what :func:`resolve_device` does; raise if it cannot be used."""
    name = resolve_device(device)
    try:
        torch.empty(0, device=name)
    except (AssertionError, RuntimeError, NotImplementedError) as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise ValueError(
            "device must be a torch device of this machine, such as 'cpu', or 'auto', "
            f"got {device!r}: {reason}."
        ) from None
    return name


@contextmanager
def open_threads(device="auto"):
    """Open a pool of threads for estimates that do not depend on each other.

    Each uses one thread of torch. Two estimates on a core each take less time than one
    on both, which cannot share out all that it does.

    Parameters
    ----------
    device : str
        Torch device of the estimates. A GPU gets a single thread. So does a call from
        another thread than the main one, since torch's number of threads is that of the
        process.

    Yields
    ------
    threads : concurrent.futures.Executor
        The pool.
    n_threads : int
        Number of its threads: that of torch.
    """
    _expect_sparse()
    n_torch = torch.get_num_threads()
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or resolve_device(device) != "cpu":
        with ThreadPoolExecutor(1) as threads:
            yield threads, 1
        return
    try:
        with ThreadPoolExecutor(
            n_torch, initializer=torch.set_num_threads, initargs=(1,)
        ) as threads:
            yield threads, n_torch
    finally:  # threads that begin later have the number that was set last
        torch.set_num_threads(n_torch)


@contextmanager
def one_thread():
    """Let torch compute with one thread, if this is the main thread.

    The products of a few windows are too small to be shared out. On a busy machine,
    threads that wait for each other within each take many times as long.
    """
    n_torch = torch.get_num_threads()
    if n_torch == 1 or threading.current_thread() is not threading.main_thread():
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_torch)


def resolve_precision(precision, device):
    """Return the torch dtype for matrix products on a device."""
    if precision == "auto":
        if device == "cpu":
            fast = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
        else:
            fast = device.startswith("cuda") and torch.cuda.is_bf16_supported()
        precision = "bfloat16" if fast else "float32"
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[precision]


def place_network(network, device):
    """Return a network for estimates on a device; the given one stays as it is.

    Few windows pass through the layers faster than their weights can be read. So
    weights that half precision holds exactly, such as the generic ones, are read in it
    where torch has such products.
    """
    if device != "cpu":
        return copy.deepcopy(network).to(device)
    if not _has_half_products():
        return network
    halved = {
        id(layer): _HalfLinear(layer)
        for layer in network.modules()
        if type(layer) is nn.Linear and _is_half(layer.weight)
    }
    return copy.deepcopy(network, halved) if halved else network


def _has_half_products():
    return torch.backends.quantized.engine in ("fbgemm", "x86")


def _is_half(weight):
    half = weight.half()
    return half.isfinite().all() and torch.equal(weight, half.float())


class _HalfLinear(nn.Module):
    """A linear layer that keeps its weights in half precision, and computes in single.

    Parameters
    ----------
    linear : Linear
        The layer. Half precision must hold its weights exactly.
    """

    def __init__(self, linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight, bias = (
            None if x is None else x.detach() for x in (linear.weight, linear.bias)
        )
        self._packed = torch.ops.quantized.linear_prepack_fp16(weight, bias)

    def forward(self, x):
        """Map (..., in_features) to (..., out_features)."""
        return torch.ops.quantized.linear_dynamic_fp16(x, self._packed)


class FewRows:
    """The product of a few rows with a large matrix, which takes as long as to read it.

    FBGEMM's product, which reads half precision and computes in single, comes close to
    that, unlike torch's own. So the matrix is the sum of two that are in half
    precision. What this leaves out is some 1e-11 of its largest number.

    Parameters
    ----------
    matrix : tensor of shape (n_in, n_out)
        The matrix, on the CPU, without a gradient.
    """

    _STEP = 2.0**-11  # between two numbers of half precision

    def __init__(self, matrix):
        self._unit = float(matrix.abs().max().clamp_min(1e-30))
        matrix = matrix.T / self._unit
        high = matrix.half().float()
        parts = high, ((matrix - high) / self._STEP).half().float()
        prepack = torch.ops.quantized.linear_prepack_fp16
        self._parts = [prepack(part.contiguous(), None) for part in parts]

    def __call__(self, rows):
        """Multiply rows (n_rows, n_in)."""
        high, low = self._parts
        multiply = torch.ops.quantized.linear_dynamic_fp16
        rows = rows * self._unit
        return multiply(rows, high).add_(multiply(rows * self._STEP, low))

    @staticmethod
    def suits(matrix):
        """Say whether torch has these products, on the device of a matrix."""
        return matrix.device.type == "cpu" and _has_half_products()


def sparse_tensor(matrix, device="cpu"):
    """Turn a sparse array of SciPy into a sparse tensor in single precision."""
    _expect_sparse()
    matrix = matrix.tocsr().astype(np.float32)
    return torch.sparse_csr_tensor(
        torch.as_tensor(matrix.indptr, dtype=torch.int64),
        torch.as_tensor(matrix.indices, dtype=torch.int64),
        torch.as_tensor(matrix.data),
        matrix.shape,
        device=device,
    )


@cache
def _expect_sparse():
    """Swallow what torch says once of its sparse matrices: beta, and unchecked.

    To ignore it each time would change the filters of warnings while other threads do.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.sparse_csr_tensor([0, 1], [0], [1.0], (1, 1))

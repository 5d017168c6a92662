"""Where and how a network computes: device and precision."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import os
import warnings

import numpy as np
import torch


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


def resolve_precision(precision, device):
    """Return the torch dtype for matrix products on a device."""
    if precision == "auto":
        if device == "cpu":
            fast = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
        else:
            fast = device.startswith("cuda") and torch.cuda.is_bf16_supported()
        precision = "bfloat16" if fast else "float32"
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[precision]


def sparse_tensor(matrix, device="cpu"):
    """Turn a sparse array of SciPy into a sparse tensor in single precision."""
    matrix = matrix.tocsr().astype(np.float32)
    with warnings.catch_warnings():  # torch calls its sparse matrices a beta version
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(
            torch.as_tensor(matrix.indptr, dtype=torch.int64),
            torch.as_tensor(matrix.indices, dtype=torch.int64),
            torch.as_tensor(matrix.data),
            matrix.shape,
            device=device,
        )

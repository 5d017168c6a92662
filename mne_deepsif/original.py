"""Read PyTorch checkpoints of the papers' authors without running pickled code."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import re
from pathlib import Path
from pickle import UnpicklingError

import torch
from mne.utils import _check_option, _validate_type

from .estimator import DeepSIFEstimator
from .head.parcels import Parcels
from .inverse.model import Model
from .network.architectures import PublishedNetwork

SFREQ, N_TIMES = 500.0, 500  # of all published networks
_OUTPUTS = ("value", "value_activation")
# Other things that the authors' training script stores: its classes, NumPy numbers.
# None of them is needed, so inert objects take their place.
_IGNORED = (
    "network.MLPSpatialFilter",
    "network.MLPSpatialFilter2",
    "network.TemporalFilter",
    "numpy.dtype",
    "numpy.ndarray",
    "numpy.core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
)


def read_original_checkpoint(fname, ch_names, parcels, *, spatial_output=None):
    """Read a PyTorch checkpoint of the papers' authors.

    The authors are those of :footcite:`SunEtAl2022`.

    Parameters
    ----------
    fname : path-like
        The file: a state dictionary, or a dictionary that holds one as
        ``'state_dict'``. Pickled code is not run. The file may hold tensors, plain
        Python values, NumPy numbers and the authors' own classes, by name only.
        Anything else is refused.
    ch_names : list of str
        Names of the channels, in the order in which the network reads them. The file
        does not hold them; see :doc:`/original`.
    parcels : Parcels
        The parcellation, in the order of the network's output.
    spatial_output : "value" | "value_activation" | None
        The spatial module ends with its last linear layer (``"value"``) or with an ELU
        after it (``"value_activation"``). None takes what the file says. A bare state
        dictionary says nothing: it gets ``"value"``, as when the authors load the files
        that they released.

    Returns
    -------
    estimator : DeepSIFEstimator
        A fitted estimator with ``encoder="sensors"`` and ``architecture="published"``,
        at 500 Hz with windows of 500 samples.

    See Also
    --------
    read_deepsif : Read what ``DeepSIFEstimator.save`` wrote.

    References
    ----------
    .. footbibliography::
    """
    _validate_type(ch_names, (list, tuple), "ch_names")
    _validate_type(parcels, Parcels, "parcels")
    _check_option("spatial_output", spatial_output, [None, *_OUTPUTS])
    checkpoint = _load(Path(fname))
    state = _find_state(checkpoint, fname)
    output = _resolve_output(checkpoint, spatial_output, fname)
    network = _make_network(state, output, fname)
    _check_sizes(network, ch_names, parcels, fname)

    estimator = DeepSIFEstimator(
        weights=None,
        encoder="sensors",
        architecture="published",
        parcels=parcels,
        sfreq=SFREQ,
        n_times=N_TIMES,
    )
    estimator.model_ = Model(
        network=network,
        encoder="sensors",
        parcels=parcels,
        sfreq=SFREQ,
        n_times=N_TIMES,
        architecture="published",
        ch_names=list(ch_names),
        recipe={"original": Path(fname).name},
    )
    return estimator


def _load(fname):
    """Read tensors and plain values; refuse objects that only code can rebuild."""
    if not fname.is_file():
        raise FileNotFoundError(f"fname={str(fname)!r} does not exist.")
    try:
        with torch.serialization.safe_globals([_inert(name) for name in _IGNORED]):
            return torch.load(fname, map_location="cpu", weights_only=True)
    except Exception as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if isinstance(error, UnpicklingError) and refused:
            raise ValueError(
                f"fname={str(fname)!r} refers to {refused[1]}, which is refused: "
                "rebuilding it could run any code. If you trust the file, load it "
                "where it was made and save only its weights, with "
                "torch.save(checkpoint['state_dict'], ...)."
            ) from None
        raise ValueError(
            f"fname={str(fname)!r} is not a readable PyTorch checkpoint ({error})."
        ) from error


class _Inert:
    """Takes the place of an object and ignores everything it is given."""

    def __init__(self, *args):
        pass

    def __setstate__(self, state):
        pass


def _inert(full_name):
    """Return a class of this name that does nothing."""
    module, _, name = full_name.rpartition(".")
    return type(name, (_Inert,), {"__module__": module})


def _find_state(checkpoint, fname):
    keys = list(checkpoint) if isinstance(checkpoint, dict) else []
    state = checkpoint.get("state_dict", checkpoint) if keys else None
    if not isinstance(state, dict) or not all(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise ValueError(
            f"fname={str(fname)!r} is no state dictionary, and holds no state "
            f"dictionary as 'state_dict': it is a {type(checkpoint).__name__} with the "
            f"keys {keys[:10]}. Give a file written by the authors' main.py or by "
            "torch.save(net.state_dict(), ...)."
        )
    return state


def _resolve_output(checkpoint, spatial_output, fname):
    """Return which output of the spatial module the LSTM reads."""
    if "attribute_list" not in checkpoint:
        return spatial_output or "value"
    attributes = checkpoint["attribute_list"]
    attributes = list(attributes) if isinstance(attributes, (list, tuple)) else []
    stored, _, activation = (attributes + 8 * [None])[5:8]
    if activation != "ELU":
        raise ValueError(
            f"fname={str(fname)!r} was trained with the activation {activation!r} "
            "(place 7 of its 'attribute_list'). architecture='published' supports only "
            "'ELU', as in the papers."
        )
    if (spatial_output or stored) not in _OUTPUTS:
        raise ValueError(
            f"fname={str(fname)!r} does not say which output of the spatial module is "
            f"used: its 'attribute_list' has {stored!r} in place 5. Give "
            f"spatial_output, one of {_OUTPUTS}."
        )
    return spatial_output or stored


def _make_network(state, spatial_output, fname):
    """Build the network with the sizes in the state dictionary."""
    lstm = "temporal.rnns.0.weight_hh_l"
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    spatial, temporal = shapes.get("spatial.fc21.weight"), shapes.get(f"{lstm}0")
    if not (spatial and temporal and len(spatial) == len(temporal) == 2):
        raise ValueError(
            f"fname={str(fname)!r} holds another network than the published one, which "
            "has the matrices 'spatial.fc21.weight' and "
            f"'temporal.rnns.0.weight_hh_l0'. Its keys are {list(shapes)[:6]} ..."
        )
    with torch.device("meta"):  # no memory, no random numbers
        network = PublishedNetwork(
            n_features=spatial[1],
            n_parcels=temporal[1],
            n_hidden=spatial[0],
            n_layers=sum(name.startswith(lstm) for name in shapes),
            spatial_output=spatial_output,
        )
    expected = {name: tuple(v.shape) for name, v in network.state_dict().items()}
    if shapes != expected:
        wrong = {n: (shapes[n], expected[n]) for n in expected if n in shapes}
        wrong = {n: pair for n, pair in wrong.items() if pair[0] != pair[1]}
        raise ValueError(
            f"fname={str(fname)!r} does not fit the published network. Missing: "
            f"{sorted(expected.keys() - shapes)}; not part of it: "
            f"{sorted(shapes.keys() - expected)}; wrong shape (found, expected): "
            f"{wrong}."
        )
    state = {name: value.float() for name, value in state.items()}
    network.load_state_dict(state, assign=True)
    return network.eval()


def _check_sizes(network, ch_names, parcels, fname):
    n_channels = network.spatial.fc11.in_features
    if len(set(ch_names)) != len(ch_names) or len(ch_names) != n_channels:
        raise ValueError(
            f"ch_names must hold {n_channels} different names, one for each channel "
            f"that the network in {str(fname)!r} reads, in its order, got "
            f"{len(ch_names)} ({len(set(ch_names))} different)."
        )
    n_parcels = network.temporal.rnns[0].hidden_size
    if parcels.n_parcels != n_parcels:
        raise ValueError(
            f"parcels must be the {n_parcels} parcels for which the network in "
            f"{str(fname)!r} was trained, in its order, got {parcels.n_parcels}. "
            "Make them from labels with mne_deepsif.make_parcels."
        )

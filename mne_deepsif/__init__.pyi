"""Types of what the package exports, for editors and type checkers.

The code has its types in its docstrings. ``tests/test_types.py`` holds both together.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TextIO, TypeAlias, overload

import mne
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator

from . import cohort as cohort
from . import comparators as comparators
from . import metrics as metrics
from . import patches as patches
from . import simulation as simulation
from . import stc_metrics as stc_metrics
from .extent import Extent as Extent
from .extent import Extents as Extents
from .head.leadfield import Leadfield as Leadfield
from .head.parcels import Parcels as Parcels
from .inverse.clock import StreamEvent as StreamEvent
from .inverse.model import Model as Model
from .inverse.operator import DeepSIFOperator as DeepSIFOperator
from .inverse.stream import DeepSIFStream as DeepSIFStream
from .inverse.stream import StreamEstimate as StreamEstimate
from .simulation._recordings import Truth as Truth
from .simulation.connectome import Connectome as Connectome
from .simulation.ingredients import Library
from .simulation.jansen_rit import JansenRit
from .trust.report import TrustReport as TrustReport

__version__: str

PathLike: TypeAlias = str | os.PathLike[str]
Verbose: TypeAlias = bool | str | int | None
Rank: TypeAlias = Literal["info", "full"] | dict[str, int] | None
Affine: TypeAlias = ArrayLike | Callable[[np.ndarray], np.ndarray] | None
Surface: TypeAlias = Literal["inflated", "white", "pial"]
Estimator: TypeAlias = PathLike | DeepSIFEstimator

class DeepSIFEstimator(BaseEstimator):
    model_: Model
    network_: torch.nn.Module
    parcels_: Parcels
    sfreq_: float
    n_times_: int
    ch_names_: list[str] | None
    history_: list[tuple[int, float]]
    recipe_: dict[str, Any]
    metrics_: dict[str, Any] | None
    fingerprint_: dict[str, Any] | None

    def __init__(
        self,
        weights: PathLike | DeepSIFEstimator | Model | None = "generic",
        encoder: Literal["backprojection", "sensors"] = "backprojection",
        *,
        architecture: Literal["compact", "published"] = "compact",
        parcels: Parcels | None = None,
        sfreq: float = 125.0,
        n_times: int = 64,
        n_steps: int = 2000,
        batch_size: int = 256,
        learning_rate: float | None = None,
        patience: int | None = None,
        device: str = "auto",
        precision: Literal["auto", "bfloat16", "float32"] = "auto",
        checkpoint: PathLike | None = None,
        library: Library | None = None,
        random_state: int | None = None,
        verbose: Verbose = None,
    ) -> None: ...
    def fit(
        self,
        fwd: mne.Forward,
        info: mne.Info | None = None,
        noise_cov: mne.Covariance | None = None,
        *,
        subjects_dir: PathLike | None = None,
    ) -> Self: ...
    def predict(
        self,
        inst: mne.Evoked | mne.BaseEpochs | mne.io.BaseRaw,
        fwd: mne.Forward | None = None,
        noise_cov: mne.Covariance | None = None,
        *,
        subjects_dir: PathLike | None = None,
        verbose: Verbose = None,
    ) -> (
        mne.SourceEstimate
        | mne.VectorSourceEstimate
        | list[mne.SourceEstimate | mne.VectorSourceEstimate]
    ): ...
    def save(
        self, fname: PathLike, *, overwrite: bool = False, verbose: Verbose = None
    ) -> None: ...

def add_deepsif(
    report: mne.Report,
    evoked: mne.Evoked,
    fwd: mne.Forward,
    noise_cov: mne.Covariance | None = None,
    *,
    estimator: Estimator = "generic",
    windows: list[tuple[float, float]] | None = None,
    min_area: float = 0.0001,
    n_passes: int = 10,
    rank: Rank = None,
    subjects_dir: PathLike | None = None,
    title: str = "DeepSIF",
    tags: tuple[str, ...] = ...,
    replace: bool = False,
    verbose: Verbose = None,
) -> None: ...
@overload
def apply_deepsif(
    evoked: mne.Evoked,
    fwd: mne.Forward | DeepSIFOperator,
    noise_cov: mne.Covariance | None = None,
    *,
    estimator: Estimator = "generic",
    label: mne.Label | mne.BiHemiLabel | None = None,
    pick_ori: Literal["normal", "vector"] | None = None,
    rank: Rank = None,
    return_residual: Literal[False] = False,
    subjects_dir: PathLike | None = None,
    verbose: Verbose = None,
) -> mne.SourceEstimate | mne.VectorSourceEstimate: ...
@overload
def apply_deepsif(
    evoked: mne.Evoked,
    fwd: mne.Forward | DeepSIFOperator,
    noise_cov: mne.Covariance | None = None,
    *,
    estimator: Estimator = "generic",
    label: mne.Label | mne.BiHemiLabel | None = None,
    pick_ori: Literal["normal", "vector"] | None = None,
    rank: Rank = None,
    return_residual: Literal[True],
    subjects_dir: PathLike | None = None,
    verbose: Verbose = None,
) -> tuple[mne.SourceEstimate | mne.VectorSourceEstimate, mne.Evoked]: ...
@overload
def apply_deepsif_epochs(
    epochs: mne.BaseEpochs,
    fwd: mne.Forward | DeepSIFOperator,
    noise_cov: mne.Covariance | None = None,
    *,
    estimator: Estimator = "generic",
    label: mne.Label | mne.BiHemiLabel | None = None,
    pick_ori: Literal["normal", "vector"] | None = None,
    rank: Rank = None,
    return_generator: Literal[False] = False,
    subjects_dir: PathLike | None = None,
    verbose: Verbose = None,
) -> list[mne.SourceEstimate | mne.VectorSourceEstimate]: ...
@overload
def apply_deepsif_epochs(
    epochs: mne.BaseEpochs,
    fwd: mne.Forward | DeepSIFOperator,
    noise_cov: mne.Covariance | None = None,
    *,
    estimator: Estimator = "generic",
    label: mne.Label | mne.BiHemiLabel | None = None,
    pick_ori: Literal["normal", "vector"] | None = None,
    rank: Rank = None,
    return_generator: Literal[True],
    subjects_dir: PathLike | None = None,
    verbose: Verbose = None,
) -> Iterator[mne.SourceEstimate | mne.VectorSourceEstimate]: ...
def apply_deepsif_raw(
    raw: mne.io.BaseRaw,
    fwd: mne.Forward | DeepSIFOperator,
    noise_cov: mne.Covariance | None = None,
    *,
    estimator: Estimator = "generic",
    start: int | None = None,
    stop: int | None = None,
    decim: int = 1,
    label: mne.Label | mne.BiHemiLabel | None = None,
    pick_ori: Literal["normal", "vector"] | None = None,
    reject_by_annotation: bool = True,
    rank: Rank = None,
    subjects_dir: PathLike | None = None,
    verbose: Verbose = None,
) -> mne.SourceEstimate | mne.VectorSourceEstimate: ...
def assess_deepsif(
    evoked: mne.Evoked,
    fwd: mne.Forward | DeepSIFOperator,
    noise_cov: mne.Covariance | None = None,
    *,
    estimator: Estimator = "generic",
    n_passes: int = 10,
    rank: Rank = None,
    subjects_dir: PathLike | None = None,
    random_state: int | None = 0,
    verbose: Verbose = None,
) -> TrustReport: ...
def assign_vertices(
    parcels: Parcels, src: mne.SourceSpaces, subjects_dir: PathLike | None = None
) -> list[np.ndarray]: ...
def data_path() -> Path: ...
def estimate_extent(
    stc: mne.SourceEstimate | mne.VectorSourceEstimate,
    src: mne.Forward | mne.SourceSpaces,
    evoked: mne.Evoked | None = None,
    noise_cov: mne.Covariance | None = None,
    *,
    windows: list[tuple[float, float]] | None = None,
    labels: Sequence[mne.Label] | None = None,
    rule: Literal["probability", "peak", "authors"] | None = None,
    min_probability: float | None = None,
    min_area: float = 0.0,
    rank: Rank = None,
    subjects_dir: PathLike | None = None,
    verbose: Verbose = None,
) -> Extents: ...
def explained_by(
    extents: Sequence[Extent],
    stc: mne.SourceEstimate,
    evoked: mne.Evoked,
    fwd: mne.Forward,
    noise_cov: mne.Covariance,
    *,
    rank: Rank = None,
) -> np.ndarray: ...
def fetch_weights(name: str = "generic") -> Path: ...
def goodness_of_fit(
    evoked: mne.Evoked,
    residual: mne.Evoked,
    noise_cov: mne.Covariance,
    *,
    rank: Rank = None,
) -> np.ndarray: ...
def make_deepsif_operator(
    info: mne.Info,
    fwd: mne.Forward,
    noise_cov: mne.Covariance | None = None,
    *,
    estimator: Estimator = "generic",
    rank: Rank = None,
    subjects_dir: PathLike | None = None,
    verbose: Verbose = None,
) -> DeepSIFOperator: ...
def make_distance_connectome(
    centers: ArrayLike,
    hemi: ArrayLike,
    *,
    length: float = 0.01,
    n_neighbors: int = 30,
    homotopic: float = 0.1,
    strength: float = 17.8,
) -> Connectome: ...
def make_leadfield(
    info: mne.Info,
    fwd: mne.Forward,
    noise_cov: mne.Covariance | None = None,
    *,
    parcels: Parcels,
    ch_names: Sequence[str] | None = None,
    rank: Rank = None,
    nave: int = 1,
    subjects_dir: PathLike | None = None,
    verbose: Verbose = None,
) -> Leadfield: ...
def make_library(
    parcels: Parcels,
    sfreq: float = 125.0,
    *,
    n_patches: int = 20000,
    n_waveforms: int = 40000,
    background: float = 300.0,
    papers_only: bool = False,
    connectome: Connectome | None = None,
    random_state: int = 0,
) -> Library: ...
def make_parcels(
    labels: Sequence[mne.Label] | str, subjects_dir: PathLike | None = None
) -> Parcels: ...
def make_template_bem(
    *,
    conductivity: tuple[float, ...] = ...,
    skull_scale: float = 1.0,
    scalp_scale: float = 1.0,
    affine: Affine = None,
    ico: Literal[2, 3, 4] = 3,
    verbose: Verbose = None,
) -> mne.bem.ConductorModel: ...
def make_template_forward(
    info: mne.Info,
    *,
    head: Literal["fsaverage5", "fsaverage"] = "fsaverage5",
    trans: Literal["fsaverage"] | mne.transforms.Transform | PathLike | None = None,
    n_jobs: int | None = None,
    verbose: Verbose = None,
) -> mne.Forward: ...
def make_template_parcels(n_parcels: int = 994) -> Parcels: ...
def make_template_source_space(
    *, affine: Affine = None, verbose: Verbose = None
) -> mne.SourceSpaces: ...
def make_template_subject(
    subjects_dir: PathLike | None = None, *, verbose: Verbose = None
) -> Path: ...
def make_template_trans(
    info: mne.Info, *, affine: Affine = None, verbose: Verbose = None
) -> mne.transforms.Transform: ...
def plot_compare_estimates(
    stcs: dict[str, mne.SourceEstimate],
    *,
    initial_time: float | None = None,
    views: Sequence[str] | None = None,
    surface: Surface = "inflated",
    threshold: float = 0.3,
    vmax: float | None = None,
    unit: str | dict[str, str] = "nAm",
    subject: str | None = None,
    subjects_dir: PathLike | None = None,
) -> Figure: ...
def plot_estimate(
    stc: mne.SourceEstimate | mne.VectorSourceEstimate,
    *,
    initial_time: float | None = None,
    views: Sequence[str] | None = None,
    surface: Surface = "inflated",
    threshold: float = 0.3,
    vmax: float | None = None,
    unit: str = "nAm",
    title: str | None = None,
    subject: str | None = None,
    subjects_dir: PathLike | None = None,
    backend: Literal["matplotlib", "pyvista"] = "matplotlib",
) -> Figure | mne.viz.Brain: ...
def plot_extent_courses(
    extents: Sequence[Extent], stc: mne.SourceEstimate, *, unit: str = "nAm"
) -> Figure: ...
def plot_extents(
    extents: Sequence[Extent],
    *,
    views: Sequence[str] | None = None,
    surface: Surface = "inflated",
    unit: str = "nAm",
    subject: str | None = None,
    subjects_dir: PathLike | None = None,
) -> Figure: ...
def plot_trust(
    report: TrustReport,
    *,
    views: Sequence[str] | None = None,
    surface: Surface = "inflated",
    subjects_dir: PathLike | None = None,
) -> Figure: ...
def read_deepsif(fname: PathLike) -> DeepSIFEstimator: ...
def read_original_checkpoint(
    fname: PathLike,
    ch_names: Sequence[str],
    parcels: Parcels,
    *,
    spatial_output: Literal["value", "value_activation"] | None = None,
) -> DeepSIFEstimator: ...
def read_tvb_connectivity(
    fname: PathLike, index: ArrayLike | None = None
) -> Connectome: ...
def simulate_evoked(
    fwd: mne.Forward,
    info: mne.Info,
    noise_cov: mne.Covariance | None = None,
    *,
    n_sources: int = 1,
    seeds: ArrayLike | None = None,
    waveforms: Literal["spikes", "evoked", "bursts"] | ArrayLike = "spikes",
    correlated: bool = False,
    peak_times: ArrayLike | None = None,
    amplitude: float = 0.0005,
    background_snr: float | None = 15.0,
    snr: float | None = 10.0,
    nave: int = 1,
    duration: float = 1.0,
    parcels: Parcels | None = None,
    subjects_dir: PathLike | None = None,
    random_state: int | None = None,
    verbose: Verbose = None,
) -> tuple[mne.Evoked, mne.SourceEstimate, Truth]: ...
def simulate_jansen_rit(
    duration: float,
    connectome: Connectome | None = None,
    *,
    n_networks: int = 1,
    n_parcels: int | None = None,
    A: float | ArrayLike = 3.25,
    mu: float | ArrayLike = 0.087,
    noise_std: float | ArrayLike = 1.0,
    stimulus: ArrayLike | None = None,
    stimulus_weights: float | ArrayLike = 1.0,
    picks: ArrayLike | None = None,
    parameters: JansenRit = ...,
    coupling: float = 1.0,
    speed: float | None = None,
    dt: float = 0.5,
    sfreq: float = 500.0,
    transient: float = 0.5,
    initial: float | ArrayLike = 0.0,
    dtype: Literal["float32", "float64"] = "float32",
    n_jobs: int | None = -1,
    random_state: int | None = None,
    verbose: Verbose = None,
) -> np.ndarray: ...
def simulate_raw(
    fwd: mne.Forward,
    info: mne.Info,
    noise_cov: mne.Covariance | None = None,
    *,
    n_sources: int = 1,
    seeds: ArrayLike | None = None,
    n_spikes: int = 10,
    correlated: bool = False,
    amplitude: float = 0.0005,
    background_snr: float | None = 15.0,
    snr: float | None = 10.0,
    duration: float = 60.0,
    parcels: Parcels | None = None,
    subjects_dir: PathLike | None = None,
    random_state: int | None = None,
    verbose: Verbose = None,
) -> tuple[mne.io.BaseRaw, mne.SourceEstimate, Truth]: ...
def sys_info(fid: TextIO | None = None, **kwargs: Any) -> None: ...

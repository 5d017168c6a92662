"""DeepSIFEstimator: fit on a forward solution, predict, save and read."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import mne
import numpy as np
from mne.utils import _check_option, _validate_type, logger, use_log_level, verbose
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from . import __version__
from .apply import apply_deepsif, apply_deepsif_epochs, apply_deepsif_raw
from .cache import check_writable
from .head.bipolar import match_bipolar
from .head.fingerprint import make_fingerprint
from .head.geometry import check_forward_geometry
from .head.leadfield import channel_std, make_leadfield
from .head.parcels import Parcels, make_template_parcels
from .inverse.files import one_clear_error, read_model, write_model
from .inverse.model import Model
from .inverse.operator import resolve_model
from .network.architectures import ARCHITECTURES, make_network
from .network.device import check_device
from .network.encoder import N_KERNELS
from .simulation.ingredients import Library
from .training.batches import TrainingLeadfield
from .training.personal import draft_personal_leadfield
from .training.score import score_estimates
from .training.trainer import Trainer, TrainingOptions, load_optimizer

# The library of a fit from given weights, which know such waveforms: as good as the
# full one, and there much sooner (doc/decisions.rst). Its patches are not used, since
# a personal leadfield has its own.
_SHORT_LIBRARY = dict(n_patches=1, n_waveforms=8000, background=60.0)

_N_SCORED = 40  # windows of each held-out forward

# parameters that a file does not keep: they depend on the machine or the session
_NOT_STORED = {
    "weights": None,
    "parcels": None,
    "checkpoint": None,
    "library": None,
    "device": "auto",
    "verbose": None,
}


class DeepSIFEstimator(BaseEstimator):
    """Deep-learning source imaging of extended sources.

    The method of :footcite:`SunEtAl2022` with the interface of scikit-learn.

    Parameters
    ----------
    weights : str | path-like | DeepSIFEstimator | Model | None
        Where :meth:`fit` starts: a name (see :func:`mne_deepsif.fetch_weights`), a
        file, a fitted estimator or model, or None for random weights.
    encoder : "backprojection" | "sensors"
        What the network reads. ``"backprojection"``: the data, projected back onto
        the parcels through the whitened leadfield. This works for any sensors and any
        head. ``"sensors"``: the channels themselves, as published.
    architecture : "compact" | "published"
        The network. ``"compact"`` is our own, ``"published"`` that of the papers
        (residual MLP, three LSTM layers with one unit per parcel).
    parcels : Parcels | None
        The parcellation. None takes that of ``weights`` or, with random weights, the
        template's 994 parcels.
    sfreq : float
        Sampling rate of the network (Hz); given ``weights`` keep theirs. Data of other
        rates are resampled.
    n_times : int
        Window of the network in samples; given ``weights`` keep theirs.
    n_steps : int
        Number of training updates in :meth:`fit`.
    batch_size : int
        Simulated samples per update.
    learning_rate : float | None
        Largest learning rate. None is 1e-3 from random weights, 3e-4 from others.
    patience : int | None
        Stop after this many validations without progress; there is one every 250
        updates. None never stops early.
    device : str
        Torch device; ``"auto"`` takes a GPU where there is one.
    precision : "auto" | "bfloat16" | "float32"
        Precision of the training. ``"auto"`` is bfloat16 where the processor has it.
    checkpoint : path-like | None
        File for the state of the training. If it exists, :meth:`fit` resumes from it.
    library : Library | None
        What the simulated sources are made of, at the network's rate: waveforms,
        background activity and, for random weights, patches. None simulates
        :func:`make_library`, for given weights with 8000 waveforms and 60 s of
        background, otherwise with its defaults.
    random_state : int | None
        Seed of weights, simulation and batches.
    verbose : bool | str | int | None
        Log level of :meth:`fit`, as in MNE.

    Attributes
    ----------
    model_ : Model
        The fitted model. The attributes below are read from it.
    network_ : torch.nn.Module
        The trained network, on the CPU.
    parcels_ : Parcels
        The parcellation.
    sfreq_ : float
        Sampling rate of the network (Hz).
    n_times_ : int
        Window of the network in samples.
    ch_names_ : list of str | None
        Channels that ``encoder="sensors"`` reads, in order; None for the other encoder.
    history_ : list of tuple
        Number of updates and validation loss, for each validation.
    recipe_ : dict
        How the weights were made.
    metrics_ : dict | None
        How good the weights are. After :meth:`fit`, each before and after it: the
        validation loss and, from given weights that read back-projections, the mean
        peak error (m) and area under the ROC curve of estimates of ``n_windows``
        simulated windows of the validation.
    fingerprint_ : dict | None
        Positions of cortex and sensors in :meth:`fit`. You get a warning if you use
        another forward solution.

    See Also
    --------
    apply_deepsif : Apply an estimator to an Evoked.

    References
    ----------
    .. footbibliography::
    """

    def __init__(
        self,
        weights="generic",
        encoder="backprojection",
        *,
        architecture="compact",
        parcels=None,
        sfreq=125.0,
        n_times=64,
        n_steps=2000,
        batch_size=256,
        learning_rate=None,
        patience=None,
        device="auto",
        precision="auto",
        checkpoint=None,
        library=None,
        random_state=None,
        verbose=None,
    ):
        self.weights = weights
        self.encoder = encoder
        self.architecture = architecture
        self.parcels = parcels
        self.sfreq = sfreq
        self.n_times = n_times
        self.n_steps = n_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.patience = patience
        self.device = device
        self.precision = precision
        self.checkpoint = checkpoint
        self.library = library
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_clone__(self):
        """Clone the parameters, but share fitted weights to start from."""
        clone = super().__sklearn_clone__()
        clone.weights = self.weights
        return clone

    def __repr__(self, N_CHAR_MAX=700):
        """Describe the fit or, before fitting, list the parameters."""
        if not hasattr(self, "model_"):
            return super().__repr__(N_CHAR_MAX)
        return f"<DeepSIFEstimator | {_describe(self.model_)}>"

    def fit(self, fwd, info=None, noise_cov=None, *, subjects_dir=None):
        """Train on data simulated with a forward solution.

        With given weights, this is the personalisation of :footcite:`SunEtAl2023`, if
        these read back-projections. The sources are patches of any size, from a single
        vertex on. A quarter of the data come from the forward solution itself. For the
        others, the head is moved by 1 to 5 mm, electrodes are misplaced, and normals
        are tilted, since no forward solution is exact. You get the weights with the
        lowest validation loss. The starting weights count too, so ``fit`` cannot make
        them worse on the data it simulates. At the end, it logs what that means: peak
        error and area under the ROC curve before and after, on patches and forwards
        kept for the validation, many of them weak or small. Ctrl-C stops early and
        keeps the best so far.

        From random weights, sources are patches of whole parcels, as in the papers, and
        the forward solution is exact.

        Parameters
        ----------
        fwd : mne.Forward
            The forward solution.
        info : mne.Info | None
            Measurement info of the data: bad channels, projectors and reference. None
            takes all channels of the forward solution and an average reference.
        noise_cov : mne.Covariance | None
            Noise covariance. None is MNE's ad-hoc covariance.
        subjects_dir : path-like | None
            As in :func:`mne_deepsif.apply_deepsif`.

        Returns
        -------
        self : DeepSIFEstimator
            The fitted estimator.

        References
        ----------
        .. footbibliography::
        """
        _validate_type(fwd, mne.Forward, "fwd")
        _validate_type(info, (mne.Info, None), "info")
        level = nullcontext() if self.verbose is None else use_log_level(self.verbose)
        with level:
            self._fit(fwd, info, noise_cov, subjects_dir)
        return self

    def _fit(self, fwd, info, noise_cov, subjects_dir):
        """Check all that can be wrong, then simulate and train, which takes minutes."""
        start = self._starting_point()
        rng = check_random_state(self.random_state)
        seed = int(rng.randint(2**31))
        options = self._make_options(start, seed)
        device = check_device(self.device)
        if self.checkpoint is not None:
            _check_checkpoint(self.checkpoint)
        parcels = self._resolve_parcels() if start is None else start.parcels
        sfreq = float(self.sfreq) if start is None else start.sfreq
        self._check_library(parcels, sfreq)
        info = _training_info(fwd) if info is None else info
        noise_cov = mne.make_ad_hoc_cov(info) if noise_cov is None else noise_cov
        given, fwd = fwd, match_bipolar(fwd, info)
        leadfield = make_leadfield(
            info,
            fwd,
            noise_cov,
            parcels=parcels,
            ch_names=None if start is None else start.ch_names,
            subjects_dir=subjects_dir,
        )
        check_forward_geometry(info, fwd, leadfield, parcels)
        if info["custom_ref_applied"] and "eeg" in leadfield.ch_types:
            logger.info(
                "The fit holds for any reference that all EEG channels share. But data "
                "whose reference is not the average need set_eeg_reference('average', "
                "projection=True) before they are estimated."
            )
        fingerprint = make_fingerprint(fwd, leadfield)
        is_personal = start is not None and self.encoder == "backprojection"
        if is_personal:
            scans = start.network.sizes.get("scan_width", 0) > 0
            logger.info("Making forward solutions with usual errors, to train on ...")
            with ThreadPoolExecutor(1) as pool:  # while the library is simulated
                draft = pool.submit(
                    draft_personal_leadfield, leadfield, fwd, parcels, scans, seed
                )
                pool.submit(load_optimizer)
                library = self._resolve_library(parcels, sfreq, **_SHORT_LIBRARY)
            leadfields = draft.result().complete(library.background)
        else:
            leadfields = [make_training_leadfield(leadfield, self.encoder)]
            library = self._resolve_library(parcels, sfreq)
        network = self._make_network(leadfield, parcels, start, seed)
        trainer = self._train(network, leadfields, library, options, device)
        scores = _compare_estimates(start.network, trainer) if is_personal else {}
        self.model_ = self._make_model(
            trainer, leadfield, parcels, sfreq, start, fingerprint, scores
        )
        self._fwd, self._noise_cov, self._subjects_dir = given, noise_cov, subjects_dir

    def _make_model(
        self, trainer, leadfield, parcels, sfreq, start, fingerprint, scores
    ):
        reads_channels = self.encoder == "sensors"
        return Model(
            network=trainer.network,
            encoder=self.encoder,
            parcels=parcels,
            sfreq=sfreq,
            n_times=trainer.options.n_times,
            architecture=self.architecture,
            ch_names=list(leadfield.ch_names) if reads_channels else None,
            recipe={
                "version": __version__,
                "n_steps": trainer.step,
                "fit_on": leadfield.subject,
                "n_channels": len(leadfield.ch_names),
                "start": None if start is None else start.recipe,
                "gain_sha256": hashlib.sha256(leadfield.gain.tobytes()).hexdigest(),
            },
            history=list(trainer.history),
            metrics={
                "validation_loss_before": trainer.history[0][1],
                "validation_loss_after": trainer.best_loss,
            }
            | scores,
            fingerprint=fingerprint,
            device=self.device,
        )

    def _make_network(self, leadfield, parcels, start, seed):
        n_times = int(self.n_times) if start is None else start.n_times
        sizes = {} if start is None else start.network.sizes
        n_features = len(leadfield.gain)
        if self.encoder == "backprojection":
            n_features = N_KERNELS * parcels.n_parcels
        network = make_network(
            self.architecture, n_features, parcels.n_parcels, n_times, seed, **sizes
        )
        if start is not None:
            network.load_state_dict(start.network.state_dict())
        return network

    def _make_options(self, start, seed):
        _check_option("precision", self.precision, ["auto", "bfloat16", "float32"])
        learning_rate = self.learning_rate
        if learning_rate is None:
            learning_rate = 1e-3 if start is None else 3e-4
        return TrainingOptions(
            n_steps=self.n_steps,
            batch_size=self.batch_size,
            learning_rate=learning_rate,
            n_times=int(self.n_times) if start is None else start.n_times,
            validate_every=min(250, self.n_steps),
            n_warmup=min(200, max(1, self.n_steps // 10)),
            patience=self.patience,
            precision=self.precision,
            seed=seed % 2**31,
        )

    def _train(self, network, leadfields, library, options, device):
        progress = mne.utils.ProgressBar(self.n_steps, mesg="Training", unit=" updates")
        n_shown = 0

        def show(trainer):
            nonlocal n_shown
            progress.update(trainer.step)
            if len(trainer.history) > n_shown:
                n_shown = len(trainer.history)
                n_updates, loss = trainer.history[-1]
                logger.info("Validation loss %.4f after %d updates.", loss, n_updates)

        trainer = Trainer(
            network,
            library,
            leadfields,
            options,
            device=device,
            checkpoint=self.checkpoint,
            callback=show,
        )
        if trainer.run():
            logger.info(
                "Interrupted after %d updates: keeping the best weights so far "
                "(validation loss %.3f).",
                trainer.step,
                trainer.best_loss,
            )
        first, best = trainer.history[0][1], trainer.best_loss
        logger.info("Validation loss %.3f -> %.3f.", first, best)
        return trainer

    def _starting_point(self):
        """Check and return the model to start from (None: random weights)."""
        _check_option("encoder", self.encoder, ["backprojection", "sensors"])
        _check_option("architecture", self.architecture, list(ARCHITECTURES))
        if self.architecture == "published" and self.encoder != "sensors":
            raise ValueError(
                f"architecture='published' reads channels, got encoder={self.encoder!r}"
                "; use encoder='sensors'."
            )
        if self.weights is None:
            return None
        start = resolve_model(self.weights)
        for name in ("encoder", "architecture"):
            if getattr(start, name) != getattr(self, name):
                raise ValueError(
                    f"weights={self.weights!r} are for {name}={getattr(start, name)!r},"
                    f" got {name}={getattr(self, name)!r}; use weights=None to train "
                    "from random weights."
                )
        if self.parcels is not None and self.parcels is not start.parcels:
            if not np.array_equal(self.parcels.mapping, start.parcels.mapping):
                raise ValueError(
                    f"weights={self.weights!r} belong to another parcellation than "
                    "parcels. Use weights=None to train from random weights, or "
                    "parcels=None to take the parcels of the weights."
                )
        return start

    def _resolve_parcels(self):
        _validate_type(self.parcels, (Parcels, None), "parcels")
        return make_template_parcels() if self.parcels is None else self.parcels

    def _check_library(self, parcels, sfreq):
        _validate_type(self.library, (Library, None), "library")
        if self.library is None:
            return
        n_parcels, rate = len(self.library.background), self.library.sfreq
        if (n_parcels, rate) != (parcels.n_parcels, sfreq):
            raise ValueError(
                f"library must have {parcels.n_parcels} parcels and be sampled at "
                f"{sfreq:g} Hz, as the network is, got {n_parcels} parcels at {rate:g} "
                "Hz. Use make_library(parcels, sfreq), or arrays of these sizes."
            )

    def _resolve_library(self, parcels, sfreq, **sizes):
        from .simulation.library import make_library  # here: numba is slow to load

        if self.library is not None:
            return self.library
        return make_library(parcels, sfreq=sfreq, **sizes)

    @verbose
    def predict(
        self, inst, fwd=None, noise_cov=None, *, subjects_dir=None, verbose=None
    ):
        """Estimate the sources of Evoked, Epochs or Raw.

        Parameters
        ----------
        inst : Evoked | Epochs | Raw
            The data.
        fwd : mne.Forward | None
            Forward solution. None takes that of :meth:`fit`.
        noise_cov : mne.Covariance | None
            Noise covariance. If ``fwd`` is None, None takes that of :meth:`fit`.
        subjects_dir : path-like | None
            As in :func:`mne_deepsif.apply_deepsif`.
        %(verbose)s

        Returns
        -------
        stc : SourceEstimate | list of SourceEstimate
            The result of :func:`mne_deepsif.apply_deepsif` (or of ``_epochs``,
            ``_raw``).
        """
        check_is_fitted(self, "model_")
        if fwd is None:
            fwd = getattr(self, "_fwd", None)
            noise_cov = noise_cov or getattr(self, "_noise_cov", None)
            subjects_dir = subjects_dir or getattr(self, "_subjects_dir", None)
        if fwd is None:
            raise ValueError(
                "fwd=None: this estimator was read from a file, which keeps no forward "
                "solution; pass fwd to predict."
            )
        _validate_type(inst, (mne.Evoked, mne.BaseEpochs, mne.io.BaseRaw), "inst")
        function = apply_deepsif_raw
        if isinstance(inst, mne.Evoked):
            function = apply_deepsif
        elif isinstance(inst, mne.BaseEpochs):
            function = apply_deepsif_epochs
        return function(inst, fwd, noise_cov, estimator=self, subjects_dir=subjects_dir)

    @verbose
    def save(self, fname, *, overwrite=False, verbose=None):
        """Save to a safetensors file.

        Parameters
        ----------
        fname : path-like
            File name; should end with ``-deepsif.safetensors``.
        overwrite : bool
            Replace an existing file.
        %(verbose)s
        """
        check_is_fitted(self, "model_")
        params = self.get_params(deep=False) | _NOT_STORED
        write_model(self.model_, fname, params, overwrite=overwrite)


def _from_model(name):
    """Make a property that reads a field of the fitted model."""

    def read(estimator):
        if "model_" not in vars(estimator):
            raise AttributeError(f"{name}_ exists only after fit.")
        return getattr(estimator.model_, name)

    return property(read)


# the fitted attributes that users of scikit-learn expect
for _name in (
    *("network", "parcels", "sfreq", "n_times", "ch_names"),
    *("history", "recipe", "metrics", "fingerprint"),
):
    setattr(DeepSIFEstimator, f"{_name}_", _from_model(_name))


def _describe(model):
    """Describe in one line what a model was fitted on, and what it reads."""
    recipe = model.recipe
    head = recipe.get("fit_on")
    place = f"fitted on {head}" if head else "fitted"
    if n_channels := recipe.get("n_channels"):
        place += f" ({n_channels} channels)"
    window = f"{1e3 * model.n_times / model.sfreq:.0f} ms at {model.sfreq:g} Hz"
    kind = f"encoder={model.encoder!r}, architecture={model.architecture!r}"
    return f"{place}, {kind}, {model.parcels.n_parcels} parcels, windows of {window}"


def _compare_estimates(network, trainer):
    """Score the network at the start and the trained one on the held-out windows."""
    logger.info("Estimating held-out patches with the weights before and after ...")
    drawn = [[part[:_N_SCORED] for part in batch] for batch in trainer.validation]
    before, after = (
        score_estimates(one, trainer.validation_batches, drawn)
        for one in (network, trainer.network)
    )
    logger.info(
        "Held-out patches: peak error %.1f -> %.1f mm, AUC %.3f -> %.3f (n = %d).",
        *(1e3 * before.peak_error, 1e3 * after.peak_error),
        *(before.roc_auc, after.roc_auc, after.n_windows),
    )
    return {
        "peak_error_before": before.peak_error,
        "peak_error_after": after.peak_error,
        "roc_auc_before": before.roc_auc,
        "roc_auc_after": after.roc_auc,
        "n_windows": after.n_windows,
    }


def _check_checkpoint(fname):
    """Raise before the training if its state cannot be kept in a file."""
    _validate_type(fname, "path-like", "checkpoint")
    if not Path(fname).parent.is_dir() or Path(fname).is_dir():
        raise FileNotFoundError(
            "checkpoint must be a file in an existing folder, new or of a training to "
            f"resume, got {str(fname)!r}. Make the folder first, or add a name."
        )
    check_writable(Path(fname).parent)


def _training_info(fwd):
    """Return the forward's channels as Info, with an average reference for EEG."""
    picks = mne.pick_types(fwd["info"], meg=True, eeg=True, ref_meg=False, exclude=[])
    given = mne.pick_info(fwd["info"], picks)  # a forward's Info is incomplete
    ch_types = given.get_channel_types()
    info = mne.create_info(given["ch_names"], 1.0, ch_types)
    for ch, given_ch in zip(info["chs"], given["chs"], strict=True):
        ch.update(given_ch)
    info["dev_head_t"] = given["dev_head_t"]
    raw = mne.io.RawArray(np.zeros((len(ch_types), 1)), info, verbose="error")
    if "eeg" in ch_types:
        raw.set_eeg_reference(projection=True, verbose="error")
    return raw.info


def make_training_leadfield(leadfield, encoder):
    """Prepare a leadfield for training: gain in units of channel noise."""
    if encoder == "sensors":
        ch_types = sorted(set(leadfield.ch_types))
        if len(ch_types) > 1:
            raise ValueError(
                "encoder='sensors' needs channels of one type, since it reads them as "
                f"they are, got {ch_types}; pick one, or use encoder='backprojection'."
            )
        return TrainingLeadfield(leadfield.gain)
    # noise of the channels, recovered from the whitener
    std = channel_std(leadfield)
    return TrainingLeadfield(leadfield.gain / std, leadfield.whitener * std.T)


def read_deepsif(fname):
    """Read an estimator saved with :meth:`DeepSIFEstimator.save`.

    Parameters
    ----------
    fname : path-like
        A ``.safetensors`` file. No code in it is executed.

    Returns
    -------
    estimator : DeepSIFEstimator
        The fitted estimator.

    Notes
    -----
    A file that is damaged, or was not written by :meth:`DeepSIFEstimator.save`, raises
    a ValueError that names the file. Before anything is built, the sizes in the header
    are compared with the arrays. A checksum covers header and arrays.
    """
    model, params = read_model(fname)
    with one_clear_error(fname):
        estimator = DeepSIFEstimator(**params | _NOT_STORED)
    estimator.model_ = model
    return estimator

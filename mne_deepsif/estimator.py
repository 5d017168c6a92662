"""DeepSIFEstimator: fit on a forward solution, predict, save and read."""

import copy
import hashlib
from contextlib import nullcontext
from functools import lru_cache

import mne
import numpy as np
from mne.utils import _check_option, _validate_type, logger, use_log_level, verbose
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from . import __version__
from .checks import make_fingerprint
from .leadfield import make_leadfield
from .parcels import Parcels, make_template_parcels
from .windows import cut, overlap_add, pad, window_length

_BATCH = 64  # windows that go through the network at once


class DeepSIFEstimator(BaseEstimator):
    """Deep-learning source imaging of extended sources.

    The method of :footcite:`SunEtAl2022`, by scikit-learn's rules.

    Parameters
    ----------
    weights : str | path-like | DeepSIFEstimator | None
        What :meth:`fit` starts from: a name (see :func:`mne_deepsif.fetch_weights`), a
        file, a fitted estimator, or None for random weights.
    encoder : "backprojection" | "sensors"
        What the network reads: the data projected back on the parcels through the
        whitened leadfield, so that any sensors and any head serve, or, as published,
        the channels themselves.
    architecture : "compact" | "published"
        The network: ours, or that of the papers (residual MLP, three LSTM layers with
        one unit per parcel).
    parcels : Parcels | None
        The parcellation; None is the template's, about 994 parcels.
    sfreq : float
        Sampling rate of the network (Hz). Data of other rates are resampled.
    n_times : int
        Window of the network in samples.
    n_steps : int
        Number of training updates in :meth:`fit`.
    batch_size : int
        Simulated samples per update.
    learning_rate : float | None
        Largest learning rate; None is 1e-3 from random weights, 3e-4 from others.
    patience : int | None
        Stop early after so many validations (one every 250 updates) without progress.
    device : str
        Torch device; ``"auto"`` takes a GPU where there is one.
    precision : "auto" | "bfloat16" | "float32"
        Precision of the training; ``"auto"`` is bfloat16 where the processor has it.
    checkpoint : path-like | None
        File from which an interrupted :meth:`fit` goes on.
    random_state : int | None
        Seed of weights, simulation and batches.
    verbose : bool | str | int | None
        Log level of :meth:`fit`, as in MNE.

    Attributes
    ----------
    network_ : torch.nn.Module
        The trained network, on the CPU.
    parcels_ : Parcels
        The parcellation.
    sfreq_ : float
        Sampling rate of the network (Hz).
    n_times_ : int
        Window of the network in samples.
    ch_names_ : list of str | None
        Channels of ``encoder="sensors"``, in order; None for the other encoder.
    history_ : list of tuple
        Updates done and validation loss.
    recipe_ : dict
        How the weights came about.
    metrics_ : dict | None
        How good they are: after :meth:`fit`, the validation loss before and after.
    fingerprint_ : dict | None
        Where cortex and sensors of :meth:`fit` were; other forwards raise a warning.

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
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_clone__(self):
        """Clone the parameters; fitted weights to start from stay as they are."""
        clone = super().__sklearn_clone__()
        clone.weights = self.weights
        return clone

    def fit(self, fwd, info=None, noise_cov=None, *, subjects_dir=None):
        """Train on data simulated with a forward solution.

        From given weights this is the personalisation of :footcite:`SunEtAl2023`. The
        weights with the lowest validation loss are kept, those it started with
        included, so it cannot get worse on simulated data. Ctrl-C stops early and keeps
        the best weights so far.

        Parameters
        ----------
        fwd : mne.Forward
            The forward solution.
        info : mne.Info | None
            Measurement info with bad channels, projectors and reference of the data;
            None takes all channels of the forward solution and an average reference.
        noise_cov : mne.Covariance | None
            Noise covariance; None is MNE's ad-hoc one.
        subjects_dir : path-like | None
            Where the subject's ``sphere.reg`` is, for forwards of a subject's own.

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
        from .library import make_library

        start = self._starting_point()
        _check_precision(self.precision)
        rng = check_random_state(self.random_state)
        seed = int(rng.randint(2**31))
        parcels = start.parcels_ if start is not None else self._resolve_parcels()
        info = _training_info(fwd) if info is None else info
        noise_cov = mne.make_ad_hoc_cov(info) if noise_cov is None else noise_cov
        leadfield = make_leadfield(
            info,
            fwd,
            noise_cov,
            parcels=parcels,
            ch_names=None if start is None else start.ch_names_,
            subjects_dir=subjects_dir,
        )
        sensors = _sensors(leadfield, self.encoder)
        sfreq = start.sfreq_ if start is not None else float(self.sfreq)
        library = make_library(parcels, sfreq=sfreq)
        trainer = self._train(sensors, parcels, library, start, seed)
        self.network_ = trainer.network
        self.parcels_ = parcels
        self.sfreq_ = sfreq
        self.n_times_ = trainer.options.n_times
        self.history_ = list(trainer.history)
        named = self.encoder == "sensors"
        self.ch_names_ = list(leadfield.ch_names) if named else None
        self.recipe_ = {
            "version": __version__,
            "n_steps": trainer.step,
            "fit_on": leadfield.subject,
            "n_channels": len(leadfield.ch_names),
            "start": start.recipe_ if start is not None else None,
            "gain_sha256": hashlib.sha256(leadfield.gain.tobytes()).hexdigest(),
        }
        self.metrics_ = {
            "validation_loss_before": trainer.history[0][1],
            "validation_loss_after": trainer.best_loss,
        }
        self.fingerprint_ = make_fingerprint(fwd, leadfield)
        self._fwd, self._noise_cov, self._subjects_dir = fwd, noise_cov, subjects_dir

    def _train(self, sensors, parcels, library, start, seed):
        from .network import N_KERNELS, make_network
        from .training import Trainer, TrainingOptions, resolve_device

        n_features = len(sensors.gain)
        if self.encoder == "backprojection":
            n_features = N_KERNELS * parcels.n_parcels
        n_times = int(self.n_times) if start is None else start.n_times_
        sizes = {} if start is None else start.network_.sizes
        network = make_network(
            self.architecture, n_features, parcels.n_parcels, n_times, seed, **sizes
        )
        if start is not None:
            network.load_state_dict(start.network_.state_dict())
        learning_rate = self.learning_rate
        if learning_rate is None:
            learning_rate = 1e-3 if start is None else 3e-4
        options = TrainingOptions(
            n_steps=self.n_steps,
            batch_size=self.batch_size,
            learning_rate=learning_rate,
            n_times=n_times,
            validate_every=min(250, self.n_steps),
            n_warmup=min(200, max(1, self.n_steps // 10)),
            patience=self.patience,
            precision=self.precision,
            seed=seed % 2**31,
        )
        progress = mne.utils.ProgressBar(self.n_steps, mesg="Training")
        trainer = Trainer(
            network,
            library,
            [sensors],
            options,
            device=resolve_device(self.device),
            checkpoint=self.checkpoint,
            callback=lambda trainer: progress.update(trainer.step),
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
        """Return the estimator to start from (None: random weights), checked."""
        from .network import ARCHITECTURES

        _check_option("encoder", self.encoder, ["backprojection", "sensors"])
        _check_option("architecture", self.architecture, list(ARCHITECTURES))
        if self.architecture == "published" and self.encoder != "sensors":
            raise ValueError(
                f"architecture='published' reads channels, got encoder={self.encoder!r}"
                "; use encoder='sensors'."
            )
        if self.weights is None:
            return None
        if isinstance(self.weights, DeepSIFEstimator):
            start = self.weights
            check_is_fitted(start)
        else:
            from .weights import load_estimator

            start = load_estimator(self.weights)
        for name in ("encoder", "architecture"):
            if getattr(start, name) != getattr(self, name):
                raise ValueError(
                    f"weights={self.weights!r} are for {name}={getattr(start, name)!r},"
                    f" got {name}={getattr(self, name)!r}; use weights=None to train "
                    "from random weights."
                )
        if self.parcels is not None and self.parcels is not start.parcels_:
            if not np.array_equal(self.parcels.mapping, start.parcels_.mapping):
                raise ValueError(
                    f"weights={self.weights!r} belong to another parcellation than "
                    "parcels; use weights=None, or parcels=None to take theirs."
                )
        return start

    def _resolve_parcels(self):
        _validate_type(self.parcels, (Parcels, None), "parcels")
        return make_template_parcels() if self.parcels is None else self.parcels

    @verbose
    def predict(
        self, inst, fwd=None, noise_cov=None, *, subjects_dir=None, verbose=None
    ):
        """Estimate the sources of data.

        Parameters
        ----------
        inst : Evoked | Epochs | Raw
            The data.
        fwd : mne.Forward | None
            Forward solution; None takes that of :meth:`fit`.
        noise_cov : mne.Covariance | None
            Noise covariance; None takes that of :meth:`fit`.
        subjects_dir : path-like | None
            As in :func:`mne_deepsif.apply_deepsif`.
        %(verbose)s

        Returns
        -------
        stc : SourceEstimate | list of SourceEstimate
            What :func:`mne_deepsif.apply_deepsif` (or ``_epochs``, ``_raw``) returns.
        """
        from . import apply

        check_is_fitted(self)
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
        function = apply.apply_deepsif_raw
        if isinstance(inst, mne.Evoked):
            function = apply.apply_deepsif
        elif isinstance(inst, mne.BaseEpochs):
            function = apply.apply_deepsif_epochs
        return function(inst, fwd, noise_cov, estimator=self, subjects_dir=subjects_dir)

    def _estimate(self, data, gain, sfreq, mixing=None):
        """Estimate the activity of the parcels.

        Parameters
        ----------
        data : array of shape (n_channels, n_times) or (n_samples, n_channels, n_times)
            Whitened data (``encoder="backprojection"``) or the channels, of one or
            more recordings (epochs) of equal length.
        gain : array of shape (n_channels, n_parcels)
            Leadfield in the same units.
        sfreq : float
            Sampling rate of the data (Hz).
        mixing : array of shape (n_rows, n_parcels) | None
            Return ``mixing @ sources`` instead, which is less work for few rows.

        Returns
        -------
        sources : array of shape (..., n_parcels or n_rows, n_times)
            Source activity that explains the data best, scale per window.
        """
        n_times = data.shape[-1]
        length = window_length(self.n_times_, self.sfreq_, sfreq)
        padded = pad(data, length)
        windows = cut(padded, length, self.n_times_)
        batch = windows.reshape(-1, *windows.shape[-2:])
        sources = self._estimate_windows(batch, gain, mixing)
        sources = sources.reshape(*windows.shape[:-2], *sources.shape[-2:])
        sources = overlap_add(sources, length, padded.shape[-1])
        first = (padded.shape[-1] - n_times) // 2
        return sources[..., first : first + n_times]

    def _estimate_windows(self, windows, gain, mixing=None):
        """Map (n_windows, n_channels, n_times) to (n_windows, n_rows, n_times)."""
        import torch

        from .training import resolve_device

        device = resolve_device(self.device)
        network = self.network_
        if device != "cpu":  # a copy: others may be using it
            network = copy.deepcopy(network).to(device)
        unit = np.sqrt(np.mean(np.square(gain)))  # keeps float32 away from underflow
        gain = np.asarray(gain / unit, np.float32)
        kernels = correlation = None
        if self.encoder == "backprojection":
            make = _make_kernels if device == "cpu" else _make_kernels.__wrapped__
            kernels = make(gain.tobytes(), gain.shape).to(device)
            pairs = np.array(self.parcels_.adjacency.nonzero(), np.int32)
            correlation = _make_correlation(pairs.tobytes(), gain.shape[1])
            correlation = [block.to(device) for block in correlation]
        gain = torch.as_tensor(gain, device=device)
        if mixing is not None:
            mixing = torch.as_tensor(mixing, device=device)
        scale = np.abs(windows).max((1, 2), keepdims=True)
        scale = np.where(scale > 0, scale, 1.0)
        data = torch.as_tensor(windows / scale, device=device)
        with torch.inference_mode():
            sources = [
                _estimate_batch(network, batch, gain, kernels, correlation, mixing)
                for batch in data.split(_BATCH)
            ]
        return torch.cat(sources).cpu().numpy() * (scale / unit)

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
        check_is_fitted(self)
        from .files import write_estimator

        write_estimator(self, fname, overwrite=overwrite)


def _check_precision(precision):
    _check_option("precision", precision, ["auto", "bfloat16", "float32"])


def _training_info(fwd):
    """Return the forward's channels as Info, with an average reference for EEG."""
    picks = mne.pick_types(fwd["info"], meg=True, eeg=True, ref_meg=False, exclude=[])
    given = mne.pick_info(fwd["info"], picks)  # a forward's Info is not a whole one
    ch_types = given.get_channel_types()
    info = mne.create_info(given["ch_names"], 1.0, ch_types)
    for ch, given_ch in zip(info["chs"], given["chs"], strict=True):
        ch.update(given_ch)
    info["dev_head_t"] = given["dev_head_t"]
    raw = mne.io.RawArray(np.zeros((len(ch_types), 1)), info, verbose="error")
    if "eeg" in ch_types:
        raw.set_eeg_reference(projection=True, verbose="error")
    return raw.info


def _sensors(leadfield, encoder):
    """Return the leadfield as training takes it: gain in units of channel noise."""
    from .training import Sensors

    if encoder == "sensors":
        ch_types = sorted(set(leadfield.ch_types))
        if len(ch_types) > 1:
            raise ValueError(
                "encoder='sensors' needs channels of one type, since it reads them as "
                f"they are, got {ch_types}; pick one, or use encoder='backprojection'."
            )
        return Sensors(leadfield.gain)
    # the covariance that the whitener stands for, back in channel space
    std = np.sqrt(np.square(np.linalg.pinv(leadfield.whitener)).sum(1))
    std = np.where(std > 0, std, std.max())
    return Sensors(leadfield.gain / std[:, None], leadfield.whitener * std)


@lru_cache(maxsize=12)  # some MB each; a trust report needs 11
def _make_kernels(gain, shape):
    """Make the kernels of a leadfield, given as bytes; kept for the next call."""
    import torch

    from .network import backprojection_kernels

    gain = np.frombuffer(gain, np.float32).reshape(shape).astype(float)
    return backprojection_kernels(torch.as_tensor(gain)).float()


@lru_cache(maxsize=4)  # 4 MB each
def _make_correlation(pairs, n_parcels):
    """Make the prior correlation of parcels, from pairs of neighbours as bytes."""
    from .reweighting import neighbour_correlation

    pairs = np.frombuffer(pairs, np.int32).reshape(2, -1)
    shape = n_parcels, n_parcels
    return neighbour_correlation(
        sparse.coo_array((np.ones(len(pairs[0])), tuple(pairs)), shape=shape)
    )


def _estimate_batch(network, data, gain, kernels, correlation, mixing=None):
    """Map (n_windows, n_channels, n_times) to (n_windows, n_rows, n_times)."""
    from .network import encode, principal_components
    from .reweighting import reweight

    if kernels is None:
        data = (data - data.mean(-1, keepdim=True)).float()
        estimate = network(encode(data)).mT
        estimate = _least_squares_scale(data, estimate, gain) * estimate
        return estimate if mixing is None else mixing @ estimate.double()
    patterns, courses = principal_components(data, network.sizes["n_components"])
    patterns, courses = patterns.float(), courses.float()
    answer = network(encode(patterns, kernels)).mT
    estimate = reweight(answer, patterns, gain, correlation)
    estimate = _least_squares_scale(patterns, estimate, gain) * estimate
    if mixing is None:
        return estimate @ courses
    return (mixing @ estimate.double()) @ courses.double()


def _least_squares_scale(data, estimate, gain):
    """Return the factor (n_windows, 1, 1) >= 0 with which gain @ estimate fits best."""
    predicted = gain @ estimate
    power = predicted.square().sum((1, 2), keepdim=True)
    product = (data * predicted).sum((1, 2), keepdim=True)
    # a fit with the wrong sign explains nothing: the sign is the network's to say
    return (product / power.clamp_min(1e-30)).clamp_min(0.0)

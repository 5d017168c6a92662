"""The operator: leadfield and model, prepared once for many recordings."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import dataclass
from functools import cached_property

import mne
from mne.utils import _validate_type, verbose
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from ..head.bipolar import match_bipolar, place_cathodes
from ..head.channels import check_same_sensors
from ..head.eyes import eye_gain
from ..head.fingerprint import check_fingerprint
from ..head.geometry import check_forward_geometry
from ..head.leadfield import Leadfield, make_leadfield
from ..head.patterns import make_patterns
from .model import Model
from .modes import leadfield_modes
from .weights import load_model


@dataclass(frozen=True)
class DeepSIFOperator:
    """A forward solution, a noise covariance and an estimator, ready for data.

    Made by :func:`make_deepsif_operator`.

    Attributes
    ----------
    info : Info
        Measurement info that it was made for.
    leadfield : Leadfield
        Whitened leadfield of the parcels, for a single trial.
    model : Model
        The fitted model.
    estimator : str | path-like | DeepSIFEstimator | Model
        The argument from which ``model`` was made.
    doubt : str | None
        What is doubtful about the positions of the sensors.
    """

    info: mne.Info
    leadfield: Leadfield
    model: Model
    estimator: object
    doubt: str | None = None

    def __repr__(self):
        """Describe the operator in one line."""
        n_channels, n_parcels = self.leadfield.gain.shape
        subject = self.leadfield.subject
        return (
            f"<DeepSIFOperator | {n_channels} channels, {n_parcels} parcels, "
            f"subject {subject!r}>"
        )

    @cached_property
    def _eyes(self):
        """Fields of the eyes at the channels used, for the trust report."""
        names = self.leadfield.ch_names
        picks = mne.pick_channels(self.info["ch_names"], names, ordered=True)
        return eye_gain(mne.pick_info(self.info, picks))

    @cached_property
    def _modes(self):
        """The modes of the leadfield: values and vectors."""
        return leadfield_modes(self.leadfield.gain_white)

    @cached_property
    def _patterns(self):
        """Patterns of activity within the parcels."""
        return make_patterns(self.leadfield)

    @cached_property
    def _prepared(self):
        """The model, prepared for the leadfield in the units that its encoder reads."""
        leadfield = self.leadfield
        if self.model.encoder == "sensors":
            return self.model.prepare(leadfield.gain)
        patterns = self._patterns.gain_of(leadfield.whitener)
        return self.model.prepare(leadfield.gain_white, patterns)

    @cached_property
    def _to_parcels(self):
        """Matrix from the rows of an estimate to the mean activity of the parcels."""
        if self._prepared.has_patterns:
            return self._patterns.to_parcels(self.leadfield)
        return sparse.eye_array(self.leadfield.gain.shape[1], format="csr")

    @property
    def _activity(self):
        """Dipole moments (A m) of the vertices for each row of an estimate (A/m)."""
        if self._prepared.has_patterns:
            return self._patterns.activity
        return self.leadfield.vertex_area

    @property
    def _gain(self):
        """Gain (n_channels, n_rows) of each row of an estimate."""
        if self._prepared.has_patterns:
            return self._patterns.gain
        return self.leadfield.gain


@verbose
def make_deepsif_operator(
    info,
    fwd,
    noise_cov=None,
    *,
    estimator="generic",
    rank=None,
    subjects_dir=None,
    verbose=None,
):
    """Prepare forward solution, noise covariance and estimator for repeated use.

    ``apply_deepsif(evoked, operator)`` returns the same as
    ``apply_deepsif(evoked, fwd, noise_cov)`` but saves the time that the leadfield
    takes. So do the functions for epochs and raw. Compare
    :func:`mne.minimum_norm.make_inverse_operator`.

    Parameters
    ----------
    info : Info
        Measurement info of the data: channels, bads, projectors, reference.
    fwd : Forward
        As in :func:`apply_deepsif`.
    noise_cov : Covariance | None
        As in :func:`apply_deepsif`.
    estimator : str | path-like | DeepSIFEstimator
        As in :func:`apply_deepsif`.
    rank : None | 'info' | 'full' | dict
        As in :func:`apply_deepsif`.
    subjects_dir : path-like | None
        As in :func:`apply_deepsif`.
    %(verbose)s

    Returns
    -------
    operator : DeepSIFOperator
        Pass it to the ``apply_deepsif`` functions in place of ``fwd``.

    Notes
    -----
    Use it for data with the same channels, bad channels, projectors, compensation and
    sensor positions. Other data raise an error; other positions, a warning. Sampling
    rate, length and number of averages may differ.
    """
    _validate_type(info, mne.Info, "info")
    model = resolve_model(estimator)
    if model.encoder == "sensors" and noise_cov is None:
        noise_cov = mne.make_ad_hoc_cov(info)  # data are not whitened: no warning
    fwd = match_bipolar(fwd, info)
    leadfield = make_leadfield(
        info,
        fwd,
        noise_cov,
        parcels=model.parcels,
        ch_names=model.ch_names,
        rank=rank,
        subjects_dir=subjects_dir,
    )
    check_fingerprint(model.fingerprint, fwd, leadfield)
    doubt = check_forward_geometry(info, fwd, leadfield, model.parcels)
    info = place_cathodes(info, fwd).copy()
    return DeepSIFOperator(info, leadfield, model, estimator, doubt)


def resolve_operator(info, fwd, noise_cov, estimator, rank, subjects_dir):
    """Make an operator, or check that the given one fits the data."""
    if not isinstance(fwd, DeepSIFOperator):
        return make_deepsif_operator(
            info,
            fwd,
            noise_cov,
            estimator=estimator,
            rank=rank,
            subjects_dir=subjects_dir,
        )
    given = dict(noise_cov=noise_cov, rank=rank, subjects_dir=subjects_dir)
    given["estimator"] = None if estimator == "generic" else estimator
    for name, value in given.items():
        if value is not None:
            raise ValueError(
                f"{name} is part of the operator that was given as fwd. Pass it to "
                "make_deepsif_operator instead."
            )
    check_same_sensors(info, fwd.info, fwd.leadfield)
    return fwd


def resolve_model(estimator):
    """Return the fitted model of a name, a file, an estimator or a model.

    Parameters
    ----------
    estimator : str | path-like | DeepSIFEstimator | Model
        The argument of the public functions.

    Returns
    -------
    model : Model
        The model.
    """
    if isinstance(estimator, Model):
        return estimator
    if isinstance(estimator, BaseEstimator) and hasattr(estimator, "fit"):
        check_is_fitted(estimator, "model_")
        return estimator.model_.on(estimator.device)
    allowed = "str, path-like, DeepSIFEstimator, or Model"
    _validate_type(estimator, ("path-like",), "estimator", allowed)
    return load_model(estimator)

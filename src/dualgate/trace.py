"""The stages of a mixture's prediction."""

from dataclasses import dataclass

import numpy as np

from dualgate.density import MixtureDensity

TRACE_WIDTH = 8  # numbers for each expert that a prediction holds of a row, on its way and in a trace


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class MixtureTrace:
    """Every stage of a prediction, by name.

    Parameters
    ----------
    phys_features, quality_features : ndarray of shape (n_samples, n_gate_features) or None
        Features of each tower; None for a dropped tower.
    phys_logits, quality_logits : ndarray of shape (n_samples, n_outputs) or None
        Outputs of each tower.
    log_evidence : None or ndarray of shape (n_samples, n_experts)
        Log probability of the row under each expert, up to a constant of the row, where the experts have it; it is
        added to the logits that the fusion gives.
    log_weights : ndarray of shape (n_samples, n_experts)
        Output of the fusion, before routing.
    expert_predictions : ndarray of shape (n_samples, n_experts), [unit of y]
        Of several targets (n_samples, n_experts, n_targets).
    expert_variances : None or ndarray of shape (n_samples, n_experts), [unit of y, squared]
        Of the prediction of each expert, where it has one; of several targets a covariance, (n_samples, n_experts,
        n_targets, n_targets).
    snr : None or ndarray of shape (n_samples,)
        Signal-to-noise ratio, where there are errors.
    misfit : None or ndarray of shape (n_samples,), [dimensionless]
        Squared distance of a row from the experts in units of its errors, for each pixel, where experts describe rows;
        about 1 for rows like the training rows.
    root_prediction : None or ndarray of shape (n_samples,), [unit of y]
        Of the one ridge for all rows, where there is one.
    routing : "soft", "hard" or int
        How `log_weights` become `weights`.
    fallback_confidence : None or float
        Largest weight below which the root's prediction is used.
    """

    log_weights: np.ndarray
    expert_predictions: np.ndarray
    root_prediction: np.ndarray | None = None
    log_evidence: np.ndarray | None = None
    expert_variances: np.ndarray | None = None
    snr: np.ndarray | None = None
    misfit: np.ndarray | None = None
    phys_features: np.ndarray | None = None
    quality_features: np.ndarray | None = None
    phys_logits: np.ndarray | None = None
    quality_logits: np.ndarray | None = None
    routing: str | int = "soft"
    fallback_confidence: float | None = None

    def __repr__(self):
        stages = (
            f"  {name}: {values.shape}" if isinstance(values, np.ndarray) else f"  {name}: {values!r}"
            for name, values in vars(self).items()
        )
        return "\n".join([f"MixtureTrace of {len(self.log_weights):,} rows", *stages])

    @property
    def weights(self):
        """Weights of the experts after routing (n_samples, n_experts); a row sums to one."""
        weights = np.exp(self.log_weights)
        if self.routing != "soft":
            n_kept = 1 if self.routing == "hard" else min(self.routing, weights.shape[1])
            order = np.argsort(-weights, axis=1, kind="stable")
            np.put_along_axis(weights, order[:, n_kept:], 0.0, axis=1)
        return weights / weights.sum(axis=1, keepdims=True)

    @property
    def fell_back(self):
        """Whether the prediction of a row is the root ridge's (n_samples,), bool."""
        if self.fallback_confidence is None:
            return np.zeros(len(self.log_weights), dtype=bool)
        return np.exp(self.log_weights.max(axis=1)) < self.fallback_confidence

    @property
    def prediction(self):
        """Weighted sum of the experts' predictions (n_samples,) or (n_samples, n_targets), [unit of y]."""
        mixed = np.einsum("nk,nk...->n...", self.weights, self.expert_predictions)
        return mixed if self.fallback_confidence is None else np.where(self.fell_back, self.root_prediction, mixed)

    @property
    def density(self):
        """Mixture of the experts' Gaussians, as a :class:`~dualgate.MixtureDensity`."""
        with np.errstate(divide="ignore"):
            log_weights = np.log(self.weights)
        single = self.expert_predictions.ndim == 2
        means, variances = self.expert_predictions, self.expert_variances
        if single:
            means, variances = means[..., None], variances[..., None, None]
        return MixtureDensity(log_weights, means, variances, single)

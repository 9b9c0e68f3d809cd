"""What is asked of some rows of a seed beside the fits: the Bayes limit, the leakage audit, shuffles, coefficients."""

from dataclasses import astuple

import numpy as np

from dualgate.datasets import bayes_limit
from dualgate.evaluation import leakage_audit, permutation_contribution
from dualgate.features import NoiseWhitenedPCA, WienerScores
from dualgate.study.readers import n_flux

SHUFFLES, RESAMPLES = 5, 300  # of the permutation contributions
MIN_SIZE = 300  # effective draws a row: the sampling costs a third of a percent of the variance that is left
AUDIT_NUMBERS = ("target ridge", "target boosting", "snr ridge", "snr boosting", "errors")


def limit_of_rows(data, test, n_rows, seed):
    """Find the Bayes limit of the first `n_rows` test rows: posterior mean and standard deviation of each."""
    rows = test[:n_rows]
    found = bayes_limit(data.X[rows], min_size=MIN_SIZE, random_state=seed)
    prior = np.mean(found.std**2) / (1 - found.r2)  # variance of the target before anything is seen
    return {"rows": len(rows), "prediction": found.prediction, "std": found.std, "prior_variance": prior}


def audit_rows(data, test, reduced, n_rows, seed):
    """Audit the quality features of the first `n_rows` test rows; intervals (5, 3) in the order of `AUDIT_NUMBERS`."""
    rows = test[:n_rows]
    X = np.asarray(data.X[rows])
    errors = X[:, n_flux(data) :]
    audit = leakage_audit(
        reduced.features["quality"][rows], np.asarray(data.y)[rows], reduced.snr[rows], errors=errors,
        n_resamples=RESAMPLES, random_state=seed,
    )  # fmt: skip
    found = [audit.target["ridge"], audit.target["boosting"], audit.snr["ridge"], audit.snr["boosting"], audit.errors]
    return {"audit": np.array([astuple(each)[:3] for each in found]), "rows": len(rows)}


def permuted(model, trace, y, test, seed):
    """Permutation contribution of each tower on the test rows: intervals (3, 3) of phys, quality and both."""
    from dualgate.gating.nets import run_gates

    if trace.phys_features is None or trace.quality_features is None or np.ptp(y[test]) == 0:
        return {}
    each = trace.expert_predictions[test]

    def predict(phys, quality):
        *_, log_weights = run_gates(model.net_, {"phys": phys, "quality": quality})
        return (np.exp(log_weights) * each).sum(axis=1)

    found = permutation_contribution(
        predict, trace.phys_features[test], trace.quality_features[test], y[test],
        n_repeats=SHUFFLES, n_resamples=RESAMPLES, random_state=seed,
    )  # fmt: skip
    return {"permutation": np.array([astuple(each)[:3] for each in (found.phys, found.quality, found.both)])}


def pixel_coefficients(experts):
    """Coefficients of nine experts at most and of the root on the pixels; nothing where the projection has no way back.

    Returns
    -------
    found : dict
        `coef_pixels` (n_experts + 1, n_pixels), the root last [unit of y per unit of flux].
    """
    if experts.n_quality_bins_ > 1:
        return {}
    projection = experts._unfrozen()
    coefs = np.vstack([experts.coef_, experts.root_coef_])
    if isinstance(projection, WienerScores):
        coefs = projection.to_pixels(coefs)
    elif isinstance(projection, NoiseWhitenedPCA):
        coefs = coefs @ projection.components_ / projection.noise_
    elif projection is not None:
        return {}
    return {"coef_pixels": coefs.astype(np.float32)}

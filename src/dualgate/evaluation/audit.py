"""Leakage audit: quality statistics must predict the noise of a row and not its target."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dualgate.evaluation.scores import Interval, bootstrap_scores, check_finite, same_rows

ALPHAS = np.logspace(-8, 4, 13)  # of standardised columns
MAX_COMPONENTS = 200  # of the error vector: they predict the target nearly as well as all pixels do


@dataclass(frozen=True)
class LeakageAudit:
    """What quality statistics predict of the target and of the SNR, by cross-validated R^2, and the verdict on it.

    Parameters
    ----------
    target : dict of str to Interval, [dimensionless]
        R^2 of the target from the statistics, by learner: "ridge" and "boosting".
    snr : dict of str to Interval, [dimensionless]
        R^2 of ln(SNR) from the statistics, by learner.
    errors : Interval, default=None, [dimensionless]
        R^2 of the target from the raw error vector by ridge; None where none was given. It shows what the statistics
        protect from and does not enter the verdict.
    target_limit : float, default=0.05, [dimensionless]
        R^2 of the target that must not be reached.
    snr_floor : float, default=0.5, [dimensionless]
        R^2 of ln(SNR) that must be exceeded.

    Examples
    --------
    >>> clean, sharp = Interval(0.01, -0.01, 0.03), Interval(0.9, 0.88, 0.92)
    >>> LeakageAudit({"ridge": clean}, {"ridge": sharp}).verdict
    'pass'
    >>> LeakageAudit({"ridge": clean}, {"ridge": sharp}, target_limit=0.02).verdict
    'marginal'
    """

    target: dict
    snr: dict
    errors: Interval | None = None
    target_limit: float = 0.05
    snr_floor: float = 0.5

    @property
    def verdict(self) -> str:
        """Return "pass" without `reasons`, "fail" where a whole interval is on the wrong side, else "marginal"."""
        faults = list(self._faults())
        return "fail" if any(certain for _, certain in faults) else "marginal" if faults else "pass"

    @property
    def reasons(self) -> tuple:
        """Why the audit does not pass, one sentence for each interval that is at fault; empty where it passes."""
        return tuple(reason for reason, _ in self._faults())

    def _faults(self):
        """Yield the reason of every fault, and whether it is certain: the whole interval on the wrong side."""
        leak = "the target", "predictable", self.target, "allowed below", self.target_limit, -1
        gap = "the SNR", "unpredictable", self.snr, "required above", self.snr_floor, 1
        for what, kind, intervals, asked, limit, sign in (leak, gap):
            for learner, found in intervals.items():
                margins = sign * (np.array([found.low, found.high]) - limit)
                if not margins.min() > 0:
                    certain = bool(margins.max() <= 0)
                    finding = f"{what} {'is' if certain else 'may be'} {kind} from the quality features"
                    yield f"{finding}: R² = {found} by {learner}, {asked} {limit:g}", certain


def leakage_audit(
    quality_features: ArrayLike,
    target: ArrayLike,
    snr: ArrayLike,
    *,
    errors: ArrayLike | None = None,
    n_folds: int = 5,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    random_state=0,
) -> LeakageAudit:
    r"""Test whether quality statistics predict the target, and whether they predict the noise.

    Errors of a measurement depend on what was measured: photon noise follows the spectrum, so that the target can be
    predicted from the raw error vector. The input of a quality tower must predict ln(SNR) and not the target. Ridge
    and histogram gradient boosting predict both out of fold, and the worse case counts: the larger R^2 of the target,
    the smaller of the SNR. R^2 out of fold may be below zero. A ValueError is raised where the numbers of rows differ
    or a value is not finite.

    Parameters
    ----------
    quality_features : array-like of shape (n_samples, n_features), [any units]
        Input of the quality tower, such as :class:`~dualgate.features.QualityStatistics` of the errors.
    target : array-like of shape (n_samples,), [unit of y]
        What must not be predictable.
    snr : array-like of shape (n_samples,), [dimensionless]
        Signal-to-noise ratio, above 0 or a ValueError is raised; its logarithm must be predictable.
    errors : array-like of shape (n_samples, n_pixels), default=None
        Raw error vectors, for comparison; a few thousand rows are enough. The ridge takes the leading principal
        components of standardised pixels, 200 or as many as there are.
    n_folds : int, default=5
        Folds, drawn at random.
    n_resamples : int, default=1000
        Bootstrap resamples of the rows for the intervals.
    confidence : float, default=0.95
        Coverage of the percentile intervals, between 0 and 1. They include the scatter of rows, not that of folds.
    random_state : int, default=0
        Seed of folds, components and resamples.

    Returns
    -------
    audit : LeakageAudit
        With the default limits; ``dataclasses.replace(audit, target_limit=0.02)`` judges by others.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> snr, target = np.exp(rng.normal(size=400)), rng.normal(size=400)
    >>> leakage_audit(1 / snr[:, None], target, snr).target["ridge"].value < 0.05
    True
    >>> leakage_audit(np.column_stack([1 / snr, target]), target, snr).verdict
    'fail'
    """
    target, snr = same_rows(target=target, snr=snr)
    if not (snr > 0).all():
        row = int(np.flatnonzero(~(snr > 0))[0])
        raise ValueError(f"leakage_audit.snr is {snr[row]} at row {row} and must be above 0: its logarithm is taken.")
    features = check_finite("leakage_audit.quality_features", quality_features, (len(target), None))
    folds = KFold(n_folds, shuffle=True, random_state=random_state)

    def r2_of(wanted, columns_of):
        """R^2 of `wanted` out of fold with each learner, on the same resamples."""
        guesses = {n: cross_val_predict(learner, X, wanted, cv=folds) for n, (learner, X) in columns_of.items()}
        table = bootstrap_scores(wanted, guesses, n_resamples=n_resamples, random_state=random_state)
        return {name: table.estimate("r2", name).interval(confidence) for name in guesses}

    # stopped early: when it overfits, its R^2 out of fold hides a leak
    boosting = HistGradientBoostingRegressor(early_stopping=True, random_state=random_state)
    ridge = make_pipeline(StandardScaler(), RidgeCV(ALPHAS))
    learners = {"ridge": (ridge, features), "boosting": (boosting, features)}
    of_errors = None
    if errors is not None:
        pixels = check_finite("leakage_audit.errors", errors, (len(target), None))
        of_errors = r2_of(target, {"errors": (ridge, _leading_components(pixels, random_state))})["errors"]
    return LeakageAudit(r2_of(target, learners), r2_of(np.log(snr), learners), of_errors)


def _leading_components(errors, random_state):
    """Scores of standardised pixels (n_samples, n_components): unsupervised, so that all rows may enter."""
    if not np.ptp(errors, axis=0).any():
        return np.zeros((len(errors), 1))
    n_components = min(MAX_COMPONENTS, *errors.shape)
    projection = PCA(n_components, svd_solver="randomized", random_state=random_state)
    scores = projection.fit_transform(StandardScaler().fit_transform(errors))
    spread = scores.std(axis=0)
    return scores[:, spread > 1e-6 * spread.max()]  # collinear pixels leave components of rounding errors alone

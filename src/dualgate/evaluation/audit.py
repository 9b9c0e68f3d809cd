"""Leakage audit: quality statistics must know the noise of a row and not its target."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dualgate.evaluation._checks import same_rows
from dualgate.evaluation.resampling import Interval, bootstrap_r2, percentile_interval, weight_blocks

ALPHAS = np.logspace(-8, 4, 13)  # of standardised columns
MAX_COMPONENTS = 200  # of the error vector: with these the target is read off nearly as well as with all pixels


@dataclass(frozen=True)
class LeakageAudit:
    """What quality statistics know of the target and of the SNR, by cross-validated R^2.

    Parameters
    ----------
    target : dict of str to Interval, [dimensionless]
        R^2 of the target from the statistics, by learner: "ridge" and "boosting".
    snr : dict of str to Interval, [dimensionless]
        R^2 of ln(SNR) from the statistics, by learner.
    errors : Interval or None, [dimensionless]
        R^2 of the target from the raw error vector by ridge; None where none was given. It says what the statistics
        protect from and decides nothing.
    target_limit, snr_floor : float, [dimensionless]
        What the audit demanded.
    """

    target: dict
    snr: dict
    errors: Interval | None
    target_limit: float
    snr_floor: float

    @property
    def worst_target(self) -> Interval:
        """R^2 of the target with the learner that reads most of it."""
        return max(self.target.values(), key=lambda found: found.value)

    @property
    def worst_snr(self) -> Interval:
        """R^2 of ln(SNR) with the learner that reads least of it."""
        return min(self.snr.values(), key=lambda found: found.value)

    @property
    def passes(self) -> bool:
        """Whether the whole interval of `worst_target` is below its limit and that of `worst_snr` above its floor."""
        return not self.reasons

    @property
    def reasons(self) -> tuple:
        """Why the audit does not pass, in words; empty where it does."""
        reasons = []
        for learner, found in self.target.items():
            if not found.high < self.target_limit:
                verb = "leak" if found.low >= self.target_limit else "are not shown to keep from"
                reasons.append(
                    f"the statistics {verb} the target: R² = {found} by {learner}, allowed below {self.target_limit:g}"
                )
        for learner, found in self.snr.items():
            if not found.low > self.snr_floor:
                verb = "do not know" if found.high <= self.snr_floor else "are not shown to know"
                reasons.append(
                    f"the statistics {verb} the SNR: R² = {found} by {learner}, wanted above {self.snr_floor:g}"
                )
        return tuple(reasons)


def leakage_audit(
    quality_features: ArrayLike,
    target: ArrayLike,
    snr: ArrayLike,
    *,
    errors: ArrayLike | None = None,
    target_limit: float = 0.05,
    snr_floor: float = 0.5,
    n_folds: int = 5,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    random_state=0,
) -> LeakageAudit:
    r"""Ask whether quality statistics give the target away, and whether they know the noise.

    Errors of a measurement depend on what was measured: photon noise follows the spectrum, so that the raw error
    vector is a spectrum in disguise. A quality tower may read only what tells ln(SNR) and not the target. Ridge and
    histogram gradient boosting predict both out of fold, and the worse case counts: the larger R^2 of the target,
    the smaller of the SNR. R^2 out of fold may be below zero.

    Parameters
    ----------
    quality_features : array-like of shape (n_samples, n_features), [any units]
        What the quality tower reads, such as :class:`~dualgate.features.QualityStatistics` of the errors.
    target : array-like of shape (n_samples,), [unit of y]
        What must not be known.
    snr : array-like of shape (n_samples,), [dimensionless]
        Signal-to-noise ratio, above 0; its logarithm must be known.
    errors : array-like of shape (n_samples, n_pixels), default=None
        Raw error vectors, for comparison; a few thousand rows are enough. Read by ridge on the leading principal
        components of standardised pixels, 200 or as many as there are.
    target_limit : float, default=0.05
        R^2 of the target that must not be reached.
    snr_floor : float, default=0.5
        R^2 of ln(SNR) that must be exceeded.
    n_folds : int, default=5
        Folds, drawn at random.
    n_resamples : int, default=1000
        Bootstrap resamples of the rows for the intervals.
    confidence : float, default=0.95
        Coverage of the percentile intervals, between 0 and 1. They know the scatter of rows, not that of folds.
    random_state : int, default=0
        Seed of folds, components and resamples.

    Returns
    -------
    audit : LeakageAudit

    Raises
    ------
    ValueError
        If the numbers of rows differ, a value is not finite or a ratio is not above 0.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> snr, target = np.exp(rng.normal(size=400)), rng.normal(size=400)
    >>> leakage_audit(1 / snr[:, None], target, snr).worst_target.value < 0.05
    True
    >>> leakage_audit(np.column_stack([1 / snr, target]), target, snr).passes
    False
    """
    target, snr = same_rows(target=target, snr=snr)
    if not (snr > 0).all():
        row = int(np.flatnonzero(~(snr > 0))[0])
        raise ValueError(f"leakage_audit.snr is {snr[row]} at row {row} and must be above 0: its logarithm is asked.")
    features = _table("quality_features", quality_features, len(target))
    folds = KFold(n_folds, shuffle=True, random_state=random_state)

    def judge(wanted, columns_of):
        """R^2 of `wanted` out of fold with each learner, on the same resamples."""
        guesses = [cross_val_predict(learner, columns, wanted, cv=folds) for learner, columns in columns_of.values()]
        (values,) = bootstrap_r2(wanted, guesses, np.ones((1, len(wanted))))
        blocks = weight_blocks(len(wanted), n_resamples, random_state)
        draws = np.concatenate([bootstrap_r2(wanted, guesses, weights) for weights in blocks]).T
        return {
            name: percentile_interval(value, ends, confidence)
            for name, value, ends in zip(columns_of, values, draws, strict=True)
        }

    boosting = HistGradientBoostingRegressor(early_stopping=True, random_state=random_state)  # overfit, it hides a leak
    ridge = make_pipeline(StandardScaler(), RidgeCV(ALPHAS))
    learners = {"ridge": (ridge, features), "boosting": (boosting, features)}
    raw = {}
    if errors is not None:
        raw["errors"] = (ridge, _leading_components(_table("errors", errors, len(target)), random_state))
    of_target = judge(target, learners | raw)
    of_errors = of_target.pop("errors", None)
    return LeakageAudit(of_target, judge(np.log(snr), learners), of_errors, target_limit, snr_floor)


def _leading_components(errors, random_state):
    """Scores of standardised pixels (n_samples, n_components): seen without the target, so all rows may make them."""
    if errors.shape[1] == 1:
        return errors
    n_components = min(MAX_COMPONENTS, *errors.shape)
    reader = PCA(n_components, svd_solver="randomized", random_state=random_state)
    scores = reader.fit_transform(StandardScaler().fit_transform(errors))
    spread = scores.std(axis=0)
    return scores[:, spread > 1e-6 * spread.max()]  # pixels that say the same leave components of rounding alone


def _table(name, columns, n_samples):
    columns = np.asarray(columns)
    if columns.ndim != 2 or len(columns) != n_samples:
        raise ValueError(
            f"leakage_audit.{name} has shape {columns.shape} and must be ({n_samples}, n_columns): one row for every "
            "target."
        )
    if not np.isfinite(columns).all():
        row, column = np.argwhere(~np.isfinite(columns))[0]
        raise ValueError(
            f"leakage_audit.{name} is {columns[row, column]} at row {row}, column {column}, and must be "
            "finite. Leave such rows out."
        )
    varying = columns[:, np.ptp(columns, axis=0) > 0]  # a constant column tells nothing
    return varying if varying.shape[1] else np.zeros((n_samples, 1))

"""Bootstrap over rows: many predictions judged on the same resamples, by one matrix product."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import r2_score

from dualgate.evaluation._checks import same_rows

BLOCK_ELEMENTS = 4_000_000  # bootstrap weights held at once: 32 MB of float64


@dataclass(frozen=True)
class Interval:
    """A number and the range it is known to.

    Parameters
    ----------
    value : float
        The estimate itself.
    low, high : float
        Ends of the interval, `low <= high`.
    confidence : float, default=0.95
        Coverage that the procedure aims at, between 0 and 1.

    Examples
    --------
    >>> print(Interval(0.05, 0.041, 0.062))
    +0.050 [+0.041, +0.062]
    """

    value: float
    low: float
    high: float
    confidence: float = 0.95

    def __str__(self):
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def percentile_interval(value: float, draws: ArrayLike, confidence: float = 0.95) -> Interval:
    """Interval around an estimate from its bootstrap draws.

    Parameters
    ----------
    value : float
        The estimate.
    draws : array-like of shape (n_resamples,)
        The same number in every resample; draws that are NaN are left out.
    confidence : float, default=0.95
        Coverage of the percentile interval, between 0 and 1.

    Returns
    -------
    interval : Interval
        With NaN ends where no draw is finite.

    Raises
    ------
    ValueError
        If `confidence` is outside 0 to 1.

    Examples
    --------
    >>> print(percentile_interval(0.5, [0.0, 0.5, 1.0], confidence=0.8))
    +0.500 [+0.100, +0.900]
    """
    if not 0 < confidence < 1:
        raise ValueError(f"percentile_interval.confidence={confidence} must lie between 0 and 1. Try 0.95.")
    draws, tail = np.asarray(draws, dtype=float), (1 - confidence) / 2
    draws = draws[np.isfinite(draws)]
    low, high = np.quantile(draws, [tail, 1 - tail]) if len(draws) else (np.nan, np.nan)
    return Interval(float(value), float(low), float(high), confidence)


def bootstrap_weights(n_samples: int, *, n_resamples: int = 1000, random_state=None) -> np.ndarray:
    """How often every row appears in every bootstrap resample.

    Parameters
    ----------
    n_samples : int
        Rows to resample, at least 2.
    n_resamples : int, default=1000
        Resamples, at least 1.
    random_state : int, SeedSequence or Generator, default=None
        Passed to :func:`numpy.random.default_rng`.

    Returns
    -------
    weights : ndarray of shape (n_resamples, n_samples)
        Multinomial counts; every resample sums to `n_samples`.

    Raises
    ------
    ValueError
        If there are fewer than two rows or no resample.

    References
    ----------
    Efron, B. (1979). Bootstrap methods: another look at the jackknife. Annals of Statistics 7, 1.

    Examples
    --------
    >>> bootstrap_weights(5, n_resamples=3, random_state=0).sum(axis=1).tolist()
    [5.0, 5.0, 5.0]
    """
    if n_samples < 2 or n_resamples < 1:
        raise ValueError(
            f"bootstrap_weights.n_samples={n_samples} must be at least 2 and n_resamples={n_resamples} at least 1."
        )
    rng = np.random.default_rng(random_state)
    drawn = rng.integers(n_samples, size=(n_resamples, n_samples))
    drawn += n_samples * np.arange(n_resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(float)


def weight_blocks(n_samples: int, n_resamples: int, random_state=None) -> Iterator[np.ndarray]:
    """Yield :func:`bootstrap_weights` in blocks that stay small however many rows there are.

    Examples
    --------
    >>> [len(block) for block in weight_blocks(1_000_000, 10, 0)]
    [4, 4, 2]
    """
    rng = np.random.default_rng(random_state)
    step = max(1, BLOCK_ELEMENTS // n_samples)
    for start in range(0, n_resamples, step):
        yield bootstrap_weights(n_samples, n_resamples=min(step, n_resamples - start), random_state=rng)


def bootstrap_r2(y_true: ArrayLike, y_preds: ArrayLike, weights: ArrayLike) -> np.ndarray:
    """R^2 of several predictions under several weightings of the same rows.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,), [unit of y]
        Observed targets.
    y_preds : array-like of shape (n_predictions, n_samples), [unit of y]
        Predictions to compare.
    weights : array-like of shape (n_weightings, n_samples)
        Non-negative row weights: bootstrap counts, or 0 and 1 for the members of a slice, or their products.

    Returns
    -------
    r2 : ndarray of shape (n_weightings, n_predictions), [dimensionless]
        Predictions of one weighting are paired: they are judged on the same rows. NaN where the weighted
        targets do not vary.

    Raises
    ------
    ValueError
        If the numbers of rows differ or a value is not finite.

    Examples
    --------
    >>> bootstrap_r2([0.0, 1.0, 2.0], [[0.0, 1.0, 2.0], [1.0, 1.0, 1.0]], [[1, 1, 1], [2, 0, 1]]).tolist()
    [[1.0, 0.0], [1.0, -0.125]]
    """
    y_true, *y_preds = same_rows(y_true=y_true, **{f"y_preds[{index}]": guess for index, guess in enumerate(y_preds)})
    weights = np.asarray(weights, dtype=float)
    if weights.ndim != 2 or weights.shape[1] != len(y_true):
        raise ValueError(f"weights has shape {weights.shape} and must be (n_weightings, {len(y_true)}).")
    y = y_true - y_true.mean()  # sums of squares lose fewer digits around zero
    moments = weights @ np.column_stack([np.ones_like(y), y, y**2])
    unexplained = weights @ np.square(y_true - np.stack(y_preds)).T  # (n_weightings, n_predictions)
    total, first, second = moments.T
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = second - first**2 / total
        r2 = 1.0 - unexplained / spread[:, None]
    varies = spread > 1e-12 * second
    return np.where(varies[:, None], r2, np.nan)


def delta_r2(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    y_reference: ArrayLike,
    *,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    random_state=None,
) -> Interval:
    """R^2 of one prediction minus R^2 of another on the same rows, with a paired bootstrap interval.

    Both predictions are judged on the same resampled rows, so what makes a row hard for both cancels. The
    interval knows the scatter of test rows alone; the scatter of refitted models takes several seeds.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,), [unit of y]
        Observed targets.
    y_pred, y_reference : array-like of shape (n_samples,), [unit of y]
        The prediction in question and the one it should beat.
    n_resamples : int, default=1000
        Bootstrap resamples.
    confidence : float, default=0.95
        Coverage of the percentile interval, between 0 and 1.
    random_state : int, SeedSequence or Generator, default=None
        Passed to :func:`numpy.random.default_rng`.

    Returns
    -------
    delta : Interval, [dimensionless]
        Positive where `y_pred` is better.

    Raises
    ------
    ValueError
        If the numbers of rows differ, a value is not finite or `confidence` is outside 0 to 1.

    References
    ----------
    Efron, B., & Tibshirani, R. (1993). An introduction to the bootstrap. Chapman & Hall, chapter 13.

    Examples
    --------
    >>> y = [0.0, 1.0, 2.0, 3.0]
    >>> print(delta_r2(y, y, y, random_state=0))
    +0.000 [+0.000, +0.000]
    """
    if not 0 < confidence < 1:
        raise ValueError(f"delta_r2.confidence={confidence} must lie between 0 and 1. Try 0.95.")
    y_true, y_pred, y_reference = same_rows(y_true=y_true, y_pred=y_pred, y_reference=y_reference)
    blocks = weight_blocks(len(y_true), n_resamples, random_state)
    draws = [bootstrap_r2(y_true, [y_pred, y_reference], weights) for weights in blocks]
    better, worse = np.concatenate(draws).T
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(better - worse, [tail, 1 - tail])
    value = r2_score(y_true, y_pred) - r2_score(y_true, y_reference)
    return Interval(float(value), float(low), float(high), confidence)

"""What a gate does with regimes and quality: trends with a test, confusion, tables of weights."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm, rankdata, spearmanr, t

from dualgate.evaluation._checks import same_rows
from dualgate.evaluation.diagnostics import SNR_EDGES, snr_bins
from dualgate.evaluation.metrics import bin_members, check_distributions
from dualgate.evaluation.resampling import Interval


@dataclass(frozen=True, eq=False)
class Trend:
    """Whether one quantity rises or falls with another, and its mean in bins.

    Parameters
    ----------
    rho : Interval, [dimensionless]
        Spearman's rank correlation; NaN where either quantity is constant.
    p_value : float
        Probability of so large a correlation, of either sign, between independent quantities.
    means : tuple of Interval, [unit of values]
        Mean within every bin with its t-interval; NaN ends where a bin has fewer than two rows.
    counts : ndarray of int, shape (n_bins,)
        Rows in every bin.
    edges : tuple of float, [unit of x]
        Upper ends of all bins but the last.
    """

    rho: Interval
    p_value: float
    means: tuple
    counts: np.ndarray
    edges: tuple

    @property
    def direction(self) -> str:
        """Return "rises" or "falls" where the interval of rho excludes zero, else "not shown"."""
        if self.rho.low > 0:
            return "rises"
        return "falls" if self.rho.high < 0 else "not shown"


def trend(x: ArrayLike, values: ArrayLike, *, edges: ArrayLike = SNR_EDGES, confidence: float = 0.95) -> Trend:
    r"""Trend of gate entropy, confidence or temperature with SNR, or of any quantity with another.

    The interval of Spearman's correlation takes its variance from the influence of every row, its effect on all
    ranks included, and Fisher's transform for its shape; it asks for no normal distribution and allows ties.

    Parameters
    ----------
    x : array-like of shape (n_samples,), [any unit]
        What the trend runs along, such as the SNR; 0 or more.
    values : array-like of shape (n_samples,), [any unit]
        What may rise or fall with it.
    edges : array-like of shape (n_bins - 1,), [unit of x], default=SNR_EDGES
        Increasing upper ends of all bins but the last, as in :func:`snr_bins`.
    confidence : float, default=0.95
        Coverage of all intervals, between 0 and 1.

    Returns
    -------
    trend : Trend

    Raises
    ------
    ValueError
        If the numbers of rows differ, there are fewer than four, or a value is not finite.

    References
    ----------
    Spearman, C. (1904). The proof and measurement of association between two things. American Journal of
    Psychology 15, 72. Borkowf, C. B. (2002). Computing the nonnull asymptotic variance and the asymptotic relative
    efficiency of Spearman's rank correlation. Computational Statistics & Data Analysis 39, 271.

    Examples
    --------
    >>> snr = np.arange(1.0, 11.0)
    >>> found = trend(snr, 1 / snr)
    >>> found.direction, round(found.rho.value, 3)
    ('falls', -1.0)
    >>> [round(mean.value, 3) for mean in found.means]
    [0.75, 0.292, 0.17, 0.112]
    """
    x, values = same_rows(x=x, values=values)
    if len(x) < 4:
        raise ValueError(f"trend.x has {len(x)} rows and must have at least 4: a rank correlation needs them.")
    bins = snr_bins(x, edges)
    n_bins = len(np.asarray(edges)) + 1
    groups = [values[bins == code] for code in range(n_bins)]
    constant = np.ptp(x) == 0 or np.ptp(values) == 0
    rho, p_value = (np.nan, np.nan) if constant else spearmanr(x, values)
    return Trend(
        _rank_interval(x, values, float(rho), confidence),
        float(p_value),
        tuple(_mean_interval(group, confidence) for group in groups),
        np.array([len(group) for group in groups]),
        tuple(float(edge) for edge in edges),
    )


@dataclass(frozen=True, eq=False)
class RegimeConfusion:
    """Where the gate puts the rows of every true regime.

    Parameters
    ----------
    mean_weights : ndarray of shape (n_regimes, n_regimes), [dimensionless]
        Mean weight of every regime's experts (columns) for rows of every true regime (rows); a row sums to one, and
        is NaN where a regime has no rows.
    counts : ndarray of int, shape (n_regimes, n_regimes)
        Rows of every true regime (rows) whose largest weight is on a regime (columns).
    """

    mean_weights: np.ndarray
    counts: np.ndarray

    @property
    def accuracy(self) -> float:
        """Share of rows whose largest weight is on the true regime."""
        return float(np.trace(self.counts) / self.counts.sum())


def regime_confusion(weights: ArrayLike, regimes: ArrayLike, n_bins: int = 1) -> RegimeConfusion:
    """Confusion of the gate's regimes with the true ones, by mean weight and by first choice.

    Parameters
    ----------
    weights : array-like of shape (n_samples, n_regimes * n_bins), [dimensionless]
        Expert weights, such as `trace.weights`; quality bins vary fastest.
    regimes : array-like of int, shape (n_samples,)
        True regime of every row, counted from 0.
    n_bins : int, default=1
        Quality bins of every regime, 4 for 9x4 experts. Their weights are added.

    Returns
    -------
    confusion : RegimeConfusion

    Raises
    ------
    ValueError
        If the weights are no distributions, or a regime has no expert.

    Examples
    --------
    >>> found = regime_confusion([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]], [0, 0, 1])
    >>> found.mean_weights.round(2).tolist()
    [[0.65, 0.35], [0.2, 0.8]]
    >>> found.counts.tolist()
    [[1, 1], [0, 1]]
    """
    weights = regime_weights(weights, n_bins)
    members = bin_members(regimes, len(weights), weights.shape[1])
    chosen = bin_members(weights.argmax(axis=1), len(weights), weights.shape[1])
    return RegimeConfusion(_group_means(members, weights), (members @ chosen.T).astype(int))


def mean_weights(
    weights: ArrayLike, regimes: ArrayLike, bins: ArrayLike, *, n_regimes: int | None = None, n_bins: int = 4
) -> np.ndarray:
    """Mean expert weights of the rows of every regime and SNR bin.

    Parameters
    ----------
    weights : array-like of shape (n_samples, n_experts), [dimensionless]
        Expert weights, such as `trace.weights`, or their sums by regime from :func:`regime_weights`.
    regimes : array-like of int, shape (n_samples,)
        True regime of every row, counted from 0.
    bins : array-like of int, shape (n_samples,)
        SNR bin of every row, such as :func:`snr_bins`.
    n_regimes : int, default=None
        How many regimes there are; None takes the largest code plus one.
    n_bins : int, default=4
        How many SNR bins there are.

    Returns
    -------
    table : ndarray of shape (n_regimes, n_bins, n_experts), [dimensionless]
        Sums to one over experts; NaN where no row has this regime and bin.

    Raises
    ------
    ValueError
        If the weights are no distributions, or a code is out of range.

    Examples
    --------
    >>> mean_weights([[0.8, 0.2], [0.6, 0.4]], [0, 0], [1, 1], n_bins=2).round(2).tolist()
    [[[nan, nan], [0.7, 0.3]]]
    """
    weights = check_distributions(weights, "mean_weights")
    of_regime, of_bin = bin_members(regimes, len(weights), n_regimes), bin_members(bins, len(weights), n_bins)
    members = of_regime[:, None] * of_bin  # (n_regimes, n_bins, n_samples)
    return _group_means(members, weights)


def regime_weights(weights: ArrayLike, n_bins: int = 1) -> np.ndarray:
    """Weight of every regime: the sum over its quality bins' experts.

    Parameters
    ----------
    weights : array-like of shape (n_samples, n_regimes * n_bins), [dimensionless]
        Expert weights; quality bins vary fastest.
    n_bins : int, default=1
        Quality bins of every regime.

    Returns
    -------
    summed : ndarray of shape (n_samples, n_regimes), [dimensionless]

    Raises
    ------
    ValueError
        If the weights are no distributions, or their number is no multiple of `n_bins`.

    Examples
    --------
    >>> regime_weights([[0.1, 0.2, 0.3, 0.4]], n_bins=2).round(2).tolist()
    [[0.3, 0.7]]
    """
    weights = check_distributions(weights, "regime_weights")
    n_samples, n_experts = weights.shape
    if n_bins < 1 or n_experts % n_bins:
        raise ValueError(
            f"regime_weights.n_bins={n_bins} must divide the {n_experts} experts: every regime has one for each "
            "quality bin. Try 1 for experts by regime alone."
        )
    return weights.reshape(n_samples, -1, n_bins).sum(axis=2)


def _group_means(members, weights):
    """Mean rows of `weights` in every group (..., n_samples) of 0 and 1; NaN for an empty group."""
    counts = members.sum(axis=-1, keepdims=True)
    return np.divide(
        members @ weights, counts, where=counts > 0, out=np.full((*counts.shape[:-1], weights.shape[1]), np.nan)
    )


def _mean_interval(group, confidence):
    if not len(group):
        return Interval(float("nan"), float("nan"), float("nan"), confidence)
    half = np.nan
    if len(group) > 1:
        half = t.ppf((1 + confidence) / 2, len(group) - 1) * group.std(ddof=1) / np.sqrt(len(group))
    return Interval(float(group.mean()), float(group.mean() - half), float(group.mean() + half), confidence)


def _rank_interval(x, values, rho, confidence):
    """Interval of Spearman's correlation from the influence of every row."""
    if not np.isfinite(rho):
        return Interval(rho, rho, rho, confidence)
    if 1 - rho**2 < 1e-12:  # a perfect order has no scatter to measure
        return Interval(rho, rho, rho, confidence)
    n = len(x)
    a, b = (rankdata(column) / n for column in (x, values))
    spread_a, spread_b = a.std(), b.std()
    a, b = (a - a.mean()) / spread_a, (b - b.mean()) / spread_b
    influence = a * b - rho * (a**2 + b**2) / 2  # of a row on the correlation of given ranks
    influence += _shift(x, b - rho * a) / spread_a + _shift(values, a - rho * b) / spread_b  # and on the others' ranks
    error = influence.std() / np.sqrt(n) / (1 - rho**2)
    reach = norm.ppf((1 + confidence) / 2) * error
    low, high = np.tanh(np.arctanh(rho) + np.array([-reach, reach]))
    return Interval(rho, float(low), float(high), confidence)


def _shift(column, slope):
    """Mean change of `slope` times rank when a row like each of these joins: it lifts all above it, (n_samples,)."""
    _, place = np.unique(column, return_inverse=True)
    sums = np.bincount(place, slope)
    above = sums.sum() - np.cumsum(sums) + sums / 2  # rows tied with it are lifted by half
    return above[place] / len(column)

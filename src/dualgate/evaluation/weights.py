"""What expert weights show: trends of the gate with SNR, and its choices at regime edges."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest, norm, rankdata, sem, spearmanr, t
from sklearn.utils import Bunch

from dualgate._validation import check_number, check_numbers
from dualgate.evaluation.scores import Interval, check_finite, same_rows
from dualgate.snr import SNR_NAMES, quality_bins


def trend(snr: ArrayLike, values: ArrayLike, *, confidence: float = 0.95) -> Bunch:
    """Trend of gate entropy, confidence, temperature or any other quantity with SNR.

    The interval of Spearman's correlation takes its variance from the influence of every row, its effect on all
    ranks included, and Fisher's transform for its shape; it assumes no normal distribution and allows ties. A
    ValueError is raised where the numbers of rows differ, there are fewer than four, or a value is not finite.

    Parameters
    ----------
    snr : array-like of shape (n_samples,), [dimensionless]
        Signal-to-noise ratio, 0 or more.
    values : array-like of shape (n_samples,), [any unit]
        What may rise or fall with it, such as ``scipy.stats.entropy(weights, axis=1)``.
    confidence : float, default=0.95
        Coverage of all intervals, between 0 and 1.

    Returns
    -------
    trend : Bunch with the attributes

        rho : Interval, [dimensionless]
            Spearman's rank correlation; NaN where either quantity is constant.
        p_value : float
            Probability of so large a correlation, of either sign, between independent quantities.
        means : tuple of Interval, [unit of values]
            Mean within bins X, L, M and H with its t-interval; NaN ends where a bin has fewer than two rows.

    References
    ----------
    Spearman, C. (1904). The proof and measurement of association between two things. American Journal of
    Psychology 15, 72. Borkowf, C. B. (2002). Computing the nonnull asymptotic variance and the asymptotic relative
    efficiency of Spearman's rank correlation. Computational Statistics & Data Analysis 39, 271.

    Examples
    --------
    >>> snr = np.arange(1.0, 11.0)
    >>> found = trend(snr, 1 / snr)
    >>> round(found.rho.value, 3)
    -1.0
    >>> [round(mean.value, 3) for mean in found.means]
    [0.75, 0.292, 0.17, 0.112]
    """
    snr, values = same_rows(snr=snr, values=values)
    if len(snr) < 4:
        raise ValueError(f"trend.snr has {len(snr)} rows and must have at least 4: a rank correlation needs them.")
    bins, constant = quality_bins(snr), np.ptp(snr) == 0 or np.ptp(values) == 0
    rho, p_value = (np.nan, np.nan) if constant else spearmanr(snr, values)
    return Bunch(
        rho=_rank_interval(snr, values, float(rho), confidence),
        p_value=float(p_value),
        means=tuple(_mean_interval(values[bins == code], confidence) for code in range(len(SNR_NAMES))),
    )


def _mean_interval(group, confidence):
    mean = float(group.mean()) if len(group) else float("nan")
    reach = float(t.ppf((1 + confidence) / 2, len(group) - 1) * sem(group)) if len(group) > 1 else float("nan")
    return Interval(mean, mean - reach, mean + reach, confidence)


def _rank_interval(x, values, rho, confidence):
    """Interval of Spearman's correlation from the influence of every row."""
    if not 1 - rho**2 >= 1e-12:  # unknown, or a perfect order without scatter
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


def boundary_samples(conditions: ArrayLike, edges: Sequence[Sequence[float]], distances: Sequence[float]) -> Bunch:
    """Find the rows within a stated distance of a regime edge.

    A ValueError is raised where the shapes do not match, a condition is not finite, edges do not increase or a distance
    is not positive.

    Parameters
    ----------
    conditions : array-like of shape (n_samples, n_conditions), [any units]
        Physical conditions, such as T_eff [K] and [M/H] [dex].
    edges : sequence of n_conditions increasing sequences, [units of the conditions]
        Edges between the bins of every condition, as `HierarchicalExperts.regime_edges`. A value on an edge belongs
        to the bin above it.
    distances : sequence of n_conditions floats above 0, [units of the conditions]
        How far a row may lie from an edge to count as near, such as ``(100.0, 0.1)``.

    Returns
    -------
    boundary : Bunch with the attributes

        near : ndarray of bool, shape (n_samples,)
            Whether a row is within the stated distance of an edge of any condition.
        bins : ndarray of int, shape (n_samples, n_conditions)
            Bin of every condition.
        across : ndarray of int, shape (n_samples, n_conditions)
            Bin on the other side of the nearest edge; the row's own bin where that edge is too far.
        shape : tuple of int, length n_conditions
            Number of bins of every condition. The first condition varies slowest in a regime's code.

    Examples
    --------
    >>> stars = [[4450.0, -0.5], [4000.0, -0.95], [4000.0, -0.5]]
    >>> boundary = boundary_samples(stars, ((4500, 5250), (-1, 0)), (100.0, 0.1))
    >>> boundary.near.tolist(), boundary.across.tolist()
    ([True, True, False], [[1, 1], [0, 0], [0, 1]])
    """
    owner, conditions = "boundary_samples", check_finite("boundary_samples.conditions", conditions, (None, None))
    if not len(edges) == len(distances) == conditions.shape[1]:
        raise ValueError(
            f"boundary_samples.conditions has {conditions.shape[1]} columns, edges has {len(edges)} entries and "
            f"distances {len(distances)}: edges and distances must have one entry for each condition."
        )
    bins, across = np.empty(conditions.shape, dtype=int), np.empty(conditions.shape, dtype=int)
    for place, (values, cuts, distance) in enumerate(zip(conditions.T, edges, distances, strict=True)):
        check_numbers(owner, f"edges[{place}]", cuts, lambda cuts: (np.diff(cuts) > 0).all(), "numbers that increase")
        check_number(owner, f"distances[{place}]", distance, low=0, strict=True)
        ends = np.array([-np.inf, *cuts, np.inf], dtype=values.dtype)  # an edge has the conditions' own precision
        bins[:, place] = own = np.digitize(values, ends[1:-1])
        below, above = values - ends[own], ends[own + 1] - values
        near = np.minimum(below, above) / np.float64(distance) <= 1
        across[:, place] = own + np.where(above < below, 1, -1) * near
    shape = tuple(len(cuts) + 1 for cuts in edges)
    return Bunch(near=(across != bins).any(axis=1), bins=bins, across=across, shape=shape)


def boundary_crossings(chosen: ArrayLike, boundary: Bunch, *, confidence: float = 0.95) -> Bunch:
    """Find the rows that the gate puts on the wrong side of an edge they lie near.

    Near a corner, where edges of several conditions are near, the regime diagonally across counts as a neighbour. A
    ValueError is raised where `chosen` does not fit the regimes or the rows of `boundary`.

    Parameters
    ----------
    chosen : array-like of int, shape (n_samples,)
        Regime that the gate gives the largest weight. Where a regime has experts for several quality bins, their
        weights are added: ``weights.reshape(n_samples, n_regimes, n_bins).sum(axis=2).argmax(axis=1)``.
    boundary : Bunch
        From :func:`boundary_samples` for the same rows, with the edges of these regimes.
    confidence : float, default=0.95
        Coverage of the intervals.

    Returns
    -------
    crossings : Bunch with the attributes

        crossed : ndarray of bool, shape (n_samples,)
            The chosen regime is not the true one but a neighbour across a near edge.
        missed : ndarray of bool, shape (n_samples,)
            The chosen regime is not the true one, wherever it lies; `crossed` is part of it.
        crossing_rate : Interval, [dimensionless]
            Share of the near rows that crossed, with a Wilson interval.
        missed_near, missed_far : Interval, [dimensionless]
            Share of missed rows among the near rows and among all others.

    References
    ----------
    Wilson, E. B. (1927). Probable inference, the law of succession, and statistical inference. Journal of the
    American Statistical Association 22, 209.

    Examples
    --------
    >>> boundary = boundary_samples([[0.95], [0.95], [0.2]], [[1.0]], [0.1])
    >>> boundary_crossings([1, 0, 1], boundary).crossed.tolist()
    [True, False, False]
    """
    near, n_regimes = boundary.near, int(np.prod(boundary.shape))
    chosen = np.asarray(chosen)
    if chosen.shape != near.shape or not np.isin(chosen, np.arange(n_regimes)).all():
        raise ValueError(
            f"boundary_crossings.chosen has shape {chosen.shape} and must hold one code from 0 to {n_regimes - 1} for "
            f"each of the {len(near):,} rows of boundary."
        )
    chosen = np.stack(np.unravel_index(chosen, boundary.shape), axis=1)
    missed = (chosen != boundary.bins).any(axis=1)
    crossed = missed & ((chosen == boundary.bins) | (chosen == boundary.across)).all(axis=1)
    return Bunch(
        crossed=crossed,
        missed=missed,
        crossing_rate=_share(crossed[near], confidence),
        missed_near=_share(missed[near], confidence),
        missed_far=_share(missed[~near], confidence),
    )


def _share(marks, confidence):
    """Share of true marks with its Wilson interval; NaN where there are no rows."""
    if not len(marks):
        return Interval(float("nan"), float("nan"), float("nan"), confidence)
    ends = binomtest(int(marks.sum()), len(marks)).proportion_ci(confidence, method="wilson")
    return Interval(float(marks.mean()), float(ends.low), float(ends.high), confidence)

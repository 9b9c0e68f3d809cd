"""Rows near a regime edge, and what a gate makes of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest

from dualgate.evaluation.interpretation import regime_weights
from dualgate.evaluation.resampling import Interval


@dataclass(frozen=True, eq=False)
class BoundarySamples:
    """Which rows lie near an edge of a regime, near which, and what lies across it.

    Parameters
    ----------
    near : ndarray of bool, shape (n_samples,)
        Whether a row is within the stated distance of an edge of any condition.
    condition : ndarray of int, shape (n_samples,)
        The condition whose edge is nearest, in units of its stated distance; -1 for a row that is not near.
    edge : ndarray of int, shape (n_samples,)
        Which edge of that condition, counted from 0; -1 for a row that is not near.
    offsets : ndarray of shape (n_samples, n_conditions), [units of the conditions]
        Value minus the nearest edge of every condition.
    bins : ndarray of int, shape (n_samples, n_conditions)
        Bin of every condition.
    across : ndarray of int, shape (n_samples, n_conditions)
        Bin on the other side of the nearest edge; the row's own bin where that edge is too far.
    shape : tuple of int, length n_conditions
        Number of bins of every condition. The first condition varies slowest in a regime's code.
    """

    near: np.ndarray
    condition: np.ndarray
    edge: np.ndarray
    offsets: np.ndarray
    bins: np.ndarray
    across: np.ndarray
    shape: tuple

    @property
    def regimes(self) -> np.ndarray:
        """Code of every row's own regime (n_samples,)."""
        return np.ravel_multi_index(tuple(self.bins.T), self.shape)

    @property
    def neighbours(self) -> np.ndarray:
        """Code of the regime across the nearest edge (n_samples,); -1 for a row that is not near."""
        rows, bins = np.flatnonzero(self.near), self.bins.copy()
        bins[rows, self.condition[rows]] = self.across[rows, self.condition[rows]]
        return np.where(self.near, np.ravel_multi_index(tuple(bins.T), self.shape), -1)


def boundary_samples(
    conditions: ArrayLike, edges: Sequence[Sequence[float]], distances: Sequence[float]
) -> BoundarySamples:
    """Find the rows within a stated distance of a regime edge.

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
    boundary : BoundarySamples

    Raises
    ------
    ValueError
        If the shapes do not match, a condition is not finite, edges do not increase or a distance is not positive.

    Examples
    --------
    >>> stars = [[4450.0, -0.5], [4000.0, -0.95], [4000.0, -0.5]]
    >>> boundary = boundary_samples(stars, ((4500, 5250), (-1, 0)), (100.0, 0.1))
    >>> boundary.near.tolist(), boundary.condition.tolist()
    ([True, True, False], [0, 1, -1])
    >>> boundary.regimes.tolist(), boundary.neighbours.tolist()
    ([1, 1, 1], [4, 0, -1])
    """
    conditions = np.asarray(conditions)
    conditions = conditions if conditions.dtype.kind == "f" else conditions.astype(float)
    _check_conditions(conditions, edges, distances)
    parts = [_side(values, cuts) for values, cuts in zip(conditions.T, edges, strict=True)]
    nearest, bins, across, offsets = (np.stack(part, axis=1) for part in zip(*parts, strict=True))
    reach = np.abs(offsets) / np.asarray(distances, dtype=float)  # 1 at the stated distance
    close = reach <= 1
    near, condition = close.any(axis=1), reach.argmin(axis=1)
    edge = np.take_along_axis(nearest, condition[:, None], axis=1)[:, 0]
    return BoundarySamples(
        near,
        np.where(near, condition, -1),
        np.where(near, edge, -1),
        offsets,
        bins,
        np.where(close, across, bins),
        tuple(len(cuts) + 1 for cuts in edges),
    )


@dataclass(frozen=True, eq=False)
class BoundaryCrossings:
    """How often the gate's first choice lies on the wrong side of a near edge.

    Parameters
    ----------
    crossed : ndarray of bool, shape (n_samples,)
        The regime of largest weight is not the true one but a neighbour across a near edge.
    missed : ndarray of bool, shape (n_samples,)
        The regime of largest weight is not the true one, wherever it lies; `crossed` is part of it.
    crossing_rate : Interval, [dimensionless]
        Share of the near rows that crossed, with a Wilson interval.
    missed_near, missed_far : Interval, [dimensionless]
        Share of missed rows among the near rows and among all others.
    """

    crossed: np.ndarray
    missed: np.ndarray
    crossing_rate: Interval
    missed_near: Interval
    missed_far: Interval


def boundary_crossings(
    weights: ArrayLike, boundary: BoundarySamples, n_bins: int = 1, *, confidence: float = 0.95
) -> BoundaryCrossings:
    """Find the rows that the gate puts on the wrong side of an edge they lie near.

    Near a corner, where edges of several conditions are near, the regime diagonally across counts as a neighbour.

    Parameters
    ----------
    weights : array-like of shape (n_samples, n_regimes * n_bins), [dimensionless]
        Expert weights, such as `trace.weights`; quality bins vary fastest.
    boundary : BoundarySamples
        From :func:`boundary_samples` for the same rows, with the edges of these regimes.
    n_bins : int, default=1
        Quality bins of every regime, 4 for 9x4 experts. Their weights are added.
    confidence : float, default=0.95
        Coverage of the intervals.

    Returns
    -------
    crossings : BoundaryCrossings

    Raises
    ------
    ValueError
        If the weights do not fit the regimes or the rows of `boundary`, or are no distributions.

    References
    ----------
    Wilson, E. B. (1927). Probable inference, the law of succession, and statistical inference. Journal of the
    American Statistical Association 22, 209.

    Examples
    --------
    >>> boundary = boundary_samples([[0.95], [0.95], [0.2]], [[1.0]], [0.1])
    >>> boundary_crossings([[0.3, 0.7], [0.6, 0.4], [0.4, 0.6]], boundary).crossed.tolist()
    [True, False, False]
    """
    weights = regime_weights(weights, n_bins)
    n_regimes = int(np.prod(boundary.shape))
    if weights.shape != (len(boundary.near), n_regimes):
        raise ValueError(
            f"boundary_crossings.weights are for {weights.shape[0]} rows and {weights.shape[1]} regimes and must be "
            f"for {len(boundary.near)} rows and {n_regimes} regimes with n_bins={n_bins}."
        )
    top = np.stack(np.unravel_index(weights.argmax(axis=1), boundary.shape), axis=1)
    missed = (top != boundary.bins).any(axis=1)
    crossed = missed & ((top == boundary.bins) | (top == boundary.across)).all(axis=1)
    near = boundary.near
    return BoundaryCrossings(
        crossed,
        missed,
        *(_share(marks, confidence) for marks in (crossed[near], missed[near], missed[~near])),
    )


def _side(values, cuts):
    """Index of the nearest edge, own bin, bin across that edge, and value minus edge, each (n_samples,)."""
    cuts = np.asarray(cuts, dtype=values.dtype)  # an edge is a value of the conditions' own precision
    gaps = values[:, None] - cuts
    nearest = np.abs(gaps).argmin(axis=1)
    offset = np.take_along_axis(gaps, nearest[:, None], axis=1)[:, 0]
    return nearest, np.digitize(values, cuts), np.where(offset >= 0, nearest, nearest + 1), offset


def _share(marks, confidence):
    """Share of true marks with its Wilson interval; NaN where there are no rows."""
    if not len(marks):
        return Interval(float("nan"), float("nan"), float("nan"), confidence)
    test = binomtest(int(marks.sum()), len(marks))
    ends = test.proportion_ci(confidence, method="wilson")
    return Interval(float(marks.mean()), float(ends.low), float(ends.high), confidence)


def _check_conditions(conditions, edges, distances):
    if conditions.ndim != 2 or len(edges) != conditions.shape[1] or len(distances) != conditions.shape[1]:
        raise ValueError(
            f"boundary_samples.conditions has shape {conditions.shape}, edges has {len(edges)} entries and distances "
            f"{len(distances)}: conditions must be (n_samples, n_conditions), the others one entry a condition."
        )
    if not np.isfinite(conditions).all():
        row, column = np.argwhere(~np.isfinite(conditions))[0]
        raise ValueError(
            f"boundary_samples.conditions is {conditions[row, column]} at row {row}, condition {column}, and must be "
            "finite. Leave such rows out."
        )
    for place, cuts in enumerate(edges):
        if len(cuts) == 0 or not (np.diff(np.asarray(cuts, dtype=float)) > 0).all():
            raise ValueError(f"boundary_samples.edges[{place}]={cuts!r} must be numbers that increase, at least one.")
    for place, distance in enumerate(distances):
        if not distance > 0:
            raise ValueError(
                f"boundary_samples.distances[{place}]={distance!r} must be positive. Try a tenth of the bin."
            )

"""Scores of predictive densities and of intervals, row by row; their means compare models on the same rows."""

import numpy as np
from numpy.typing import ArrayLike

from dualgate._validation import check_number
from dualgate.density import MixtureDensity
from dualgate.evaluation.scores import check_finite


def log_score(y: ArrayLike, density) -> np.ndarray:
    """Logarithm of the density at the truth (Good 1952, J. R. Stat. Soc. B 14, 107); the larger, the better.

    Parameters
    ----------
    y : array-like of shape (n_samples,) or (n_samples, n_targets), [unit of y]
        Observed targets.
    density : MixtureDensity, or tuple of two array-likes of shape (n_samples,)
        Such as `predict_density` returns; or mean and standard deviation of a Gaussian for every row, as in
        ``model.predict(X, return_std=True)``.

    Returns
    -------
    score : ndarray of shape (n_samples,), [log of 1 / unit of y]
        Of several targets that of the joint density.

    Examples
    --------
    >>> log_score([0.0, 1.0], ([0.0, 0.0], [1.0, 1.0])).round(3).tolist()
    [-0.919, -1.419]
    """
    return _density_of(density).log_density(_truth(y))


def crps(y: ArrayLike, density) -> np.ndarray:
    """Continuous ranked probability score (Matheson & Winkler 1976, Manage. Sci. 22, 1087); the smaller, the better.

    It is in the unit of y; of a density without any width it is the absolute error.

    Parameters
    ----------
    y, density
        As in :func:`log_score`.

    Returns
    -------
    score : ndarray of shape (n_samples,) or (n_samples, n_targets), [unit of y]

    Examples
    --------
    >>> crps([0.0, 1.0], ([0.0, 0.0], [1.0, 1.0])).round(3).tolist()
    [0.234, 0.602]
    """
    return _density_of(density).crps(_truth(y))


def pit_values(y: ArrayLike, density) -> np.ndarray:
    """Predicted probability of a target below the truth (Dawid 1984, J. R. Stat. Soc. A 147, 278).

    These probability integral transforms are uniform over (0, 1) where densities are right: a histogram with two peaks
    at its ends shows densities that are too narrow, one peak in the middle densities that are too wide.

    Parameters
    ----------
    y, density
        As in :func:`log_score`.

    Returns
    -------
    values : ndarray of shape (n_samples,) or (n_samples, n_targets), in [0, 1]

    Examples
    --------
    >>> pit_values([0.0, 1.0], ([0.0, 0.0], [1.0, 1.0])).round(3).tolist()
    [0.5, 0.841]
    """
    return _density_of(density).cdf(_truth(y))


def interval_score(y: ArrayLike, interval: ArrayLike, coverage: float) -> np.ndarray:
    r"""Width of an interval, and a penalty where it misses the truth; the smaller, the better.

    .. math:: (u - l) + \frac{2}{1 - c} \left( \max(l - y, 0) + \max(y - u, 0) \right)

    Its expectation is smallest for the quantiles (1 - c) / 2 and (1 + c) / 2 (Gneiting & Raftery 2007, J. Am. Stat.
    Assoc. 102, 359, section 6.2).

    Parameters
    ----------
    y : array-like of shape (n_samples,) or (n_samples, n_targets), [unit of y]
        Observed targets.
    interval : array-like of shape (n_samples, 2) or (n_samples, n_targets, 2), [unit of y]
        Lower and upper end, such as `predict_interval` returns; an infinite one has an infinite score.
    coverage : float in (0, 1)
        What the interval was asked to hold.

    Returns
    -------
    score : ndarray of the shape of y, [unit of y]

    Examples
    --------
    >>> interval_score([0.0, 1.5], [[-1.0, 1.0], [-1.0, 1.0]], 0.9).round(3).tolist()
    [2.0, 12.0]
    """
    low, high = ends_of("interval_score", y, interval)
    check_coverage("interval_score", coverage)
    y = _truth(y)
    missed = np.maximum(low - y, 0) + np.maximum(y - high, 0)
    return high - low + 2 / (1 - coverage) * missed


def ends_of(owner, y, interval):
    """Lower and upper ends of intervals, of the shape of y."""
    interval = np.asarray(interval, dtype=float)
    if interval.shape != (*np.shape(y), 2) or not (interval[..., 0] <= interval[..., 1]).all():
        raise ValueError(
            f"{owner}.interval of shape {interval.shape} must be {(*np.shape(y), 2)}, the shape of y and two ends, the "
            "lower one first."
        )
    return interval[..., 0], interval[..., 1]


def check_coverage(owner, coverage):
    """Raise a ValueError where a coverage does not lie between 0 and 1."""
    check_number(owner, "coverage", coverage, low=0, strict=True)
    if not coverage < 1:
        raise ValueError(f"{owner}.coverage={coverage!r} must be a number below 1: 0.9 is 90 %.")


def _truth(y):
    y = np.asarray(y, dtype=float)
    return check_finite("y", y, (None,) * max(y.ndim, 1))


def _density_of(density):
    """Density of Gaussians that are given by their mean and standard deviation."""
    if isinstance(density, MixtureDensity):
        return density
    if not isinstance(density, tuple) or len(density) != 2:
        raise ValueError(
            f"density is a {type(density).__name__} and must be a MixtureDensity, such as predict_density returns, or "
            "a tuple (mean, std)."
        )
    mean = check_finite("mean", density[0], (None,))
    std = check_finite("std", density[1], (len(mean),), " like mean")
    if not (std > 0).all():
        raise ValueError(f"std={std.min():g} at row {std.argmin()} must be above zero.")
    return MixtureDensity(np.zeros((len(mean), 1)), mean[:, None, None], np.square(std)[:, None, None, None])

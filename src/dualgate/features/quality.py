"""Statistics of an error vector: how well a row was measured."""

import numpy as np

from dualgate.features.fixed import FixedFeatures

STATISTICS = ("mean", "std", "min", "max", "median", "sum", "q25", "q75", "skew", "kurtosis")
TYPICAL_ROWS = 100  # whose median is the typical error
_QUANTILES = np.array([0.25, 0.5, 0.75])
_BLOCK_VALUES = 1 << 16  # values worked on at a time: they stay in the processor's cache


class QualityStatistics(FixedFeatures):
    """Ten statistics of every row of errors, without any reference to single pixels.

    Mean, standard deviation, minimum, maximum, median, sum, quartiles, skewness and excess kurtosis (both biased
    estimators, as in `scipy.stats`), all float64. They keep the signal-to-noise ratio and little else, which is all a
    quality tower should use; the error vector itself would identify the star. Skewness and kurtosis of a row of equal
    values are 0 here, where SciPy gives NaN.

    Errors that are NaN or infinite, of pixels that were not measured, are left out; the sum is then the mean times the
    number of pixels, so that it does not depend on how many were measured. A row without any has the statistics of
    equal errors of typical size.

    Parameters
    ----------
    subset : None or list of str, default=None
        Which statistics, in this order; None is all of `STATISTICS`. ``("mean", "std", "min", "max", "median")``
        is a five-dimensional variant. `fit` raises a ValueError if it names a statistic that does not exist, or none.

    Attributes
    ----------
    names_ : list of str
        The statistics computed.
    typical_error_ : float
        Median error of a hundred rows seen in `fit`, spread over all; 1 if none was measured.
    n_features_in_ : int
        Number of pixels seen in `fit`.

    Examples
    --------
    >>> QualityStatistics(subset=["mean", "max"]).fit_transform([[1.0, 2.0, 6.0]])
    array([[3., 6.]])
    """

    _prefix = "error_"

    def __init__(self, subset=None):
        self.subset = subset

    def _prepare(self, X):
        names = list(STATISTICS if self.subset is None else self.subset)
        unknown = [name for name in names if name not in STATISTICS]
        if unknown or not names:
            raise ValueError(
                f"QualityStatistics.subset={self.subset!r} must list some of {', '.join(STATISTICS)}"
                + (f"; {unknown[0]!r} is none of them." if unknown else "; it lists none.")
            )
        some = X[:: max(1, len(X) // TYPICAL_ROWS)]
        measured = some[np.isfinite(some)]
        self.typical_error_ = float(np.median(measured)) if measured.size else 1.0
        return names

    def _compute(self, X):
        table = _statistics(X, self.typical_error_)
        return np.column_stack([table[name] for name in self.names_])


def _statistics(X, typical):
    """All ten statistics of rows by name, each (n_rows,) and float64."""
    n_rows, n_pixels = X.shape
    size, count = min(n_rows, max(1, _BLOCK_VALUES // n_pixels)), np.full(n_rows, n_pixels)
    ordered, sums, scratch = np.empty((n_rows, 8)), np.empty((n_rows, 4)), np.empty((2, size, n_pixels))
    for start in range(0, n_rows, size):
        block, here = np.sort(X[start : start + size], axis=1), slice(start, start + size)  # faster than a partition
        if not np.isfinite(block[:, [0, -1]]).all():
            count[here] = _measured_first(block, typical)
        ordered[here] = np.take_along_axis(block, _ranks(count[here]), axis=1)
        _power_sums(block, count[here, None], scratch[:, : len(block)], sums[here])

    smallest, largest, quartiles = ordered[:, 0], ordered[:, 1], ordered[:, 2:].reshape(n_rows, -1, 2)
    lower, upper, positions = quartiles[..., 0], quartiles[..., 1], np.outer(count - 1, _QUANTILES)
    q25, median, q75 = (lower + (positions - positions.astype(int)) * (upper - lower)).T
    total = sums[:, 0]
    # for a row of equal values these are rounding errors, which must not be divided by each other
    variance, third, fourth = np.where(smallest == largest, 0.0, sums[:, 1:].T / count)
    safe = np.where(variance > 0, variance, 1.0)
    skew = third / safe**1.5
    kurtosis = np.where(variance > 0, fourth / safe**2 - 3.0, 0.0)
    sizes = total / count, np.sqrt(variance), smallest, largest, median, total * (n_pixels / count)
    return dict(zip(STATISTICS, (*sizes, q25, q75, skew, kurtosis), strict=True))


def _measured_first(block, typical):
    """Sort rows anew, infinite where not measured and `typical` where nothing was; returns the number of each row."""
    measured = np.isfinite(block)
    block[~measured] = np.inf
    block[~measured.any(axis=1)] = typical
    block.sort(axis=1)
    return np.isfinite(block).sum(axis=1)


def _ranks(count):
    """Places of the smallest and largest of so many ordered values, and of the two that enclose each quartile."""
    last = count[:, None] - 1
    below = (last * _QUANTILES).astype(int)
    pairs = np.stack([below, np.minimum(below + 1, last)], axis=2)
    return np.hstack([np.zeros_like(last), last, pairs.reshape(len(count), -1)])


def _power_sums(block, count, scratch, out):
    """Write sums of the first `count` (n_rows, 1) values, and of powers two to four of their deviations, to `out`."""
    (deviation, square), ones = scratch, np.ones(block.shape[1])
    np.copyto(deviation, block)
    absent = np.arange(block.shape[1]) >= count if count.min() < block.shape[1] else None
    if absent is not None:
        deviation[absent] = 0
    out[:, 0] = deviation @ ones
    deviation -= out[:, :1] / count
    if absent is not None:
        deviation[absent] = 0
    np.multiply(deviation, deviation, out=square)
    out[:, 1] = square @ ones
    for place, values in enumerate((deviation, square), start=2):  # inner products of rows, by BLAS
        out[:, place] = np.matmul(square[:, None, :], values[:, :, None])[:, 0, 0]

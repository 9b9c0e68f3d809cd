"""Statistics of an error vector: how well a row was measured."""

import numpy as np

from dualgate.features.fixed import FixedFeatures

STATISTICS = ("mean", "std", "min", "max", "median", "sum", "q25", "q75", "skew", "kurtosis")
_BLOCK_VALUES = 1 << 16  # values worked on at a time: they stay in the processor's cache


class QualityStatistics(FixedFeatures):
    """Ten statistics of every row of errors, without any reference to single pixels.

    Mean, standard deviation, minimum, maximum, median, sum, quartiles, skewness and excess kurtosis (both biased
    estimators, as in `scipy.stats`), all float64. They keep the signal-to-noise ratio and little else, which is all a
    quality tower should use; the error vector itself would identify the star. Skewness and kurtosis of a row of equal
    values are 0 here, where SciPy gives NaN.

    Parameters
    ----------
    subset : None or list of str, default=None
        Which statistics, in this order; None is all of `STATISTICS`. ``("mean", "std", "min", "max", "median")``
        is a five-dimensional variant. `fit` raises a ValueError if it names a statistic that does not exist, or none.

    Attributes
    ----------
    names_ : list of str
        The statistics computed.
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

    def _prepare(self, n_pixels):
        names = list(STATISTICS if self.subset is None else self.subset)
        unknown = [name for name in names if name not in STATISTICS]
        if unknown or not names:
            raise ValueError(
                f"QualityStatistics.subset={self.subset!r} must list some of {', '.join(STATISTICS)}"
                + (f"; {unknown[0]!r} is none of them." if unknown else "; it lists none.")
            )
        return names

    def _compute(self, X):
        table = _statistics(X)
        return np.column_stack([table[name] for name in self.names_])


def _statistics(X):
    """All ten statistics of rows by name, each (n_rows,) and float64."""
    n_rows, n_pixels = X.shape
    positions = np.array([0.25, 0.5, 0.75]) * (n_pixels - 1)
    below = positions.astype(int)
    ranks = np.r_[0, n_pixels - 1, np.stack([below, np.minimum(below + 1, n_pixels - 1)], axis=1).ravel()]
    size = min(n_rows, max(1, _BLOCK_VALUES // n_pixels))
    ordered, sums, scratch = np.empty((n_rows, len(ranks))), np.empty((n_rows, 4)), np.empty((2, size, n_pixels))
    for start in range(0, n_rows, size):
        block, here = np.sort(X[start : start + size], axis=1), slice(start, start + size)  # faster than a partition
        ordered[here] = block[:, ranks]
        _power_sums(block, scratch[:, : len(block)], sums[here])

    smallest, largest, quartiles = ordered[:, 0], ordered[:, 1], ordered[:, 2:].reshape(n_rows, -1, 2)
    lower, upper = quartiles[..., 0], quartiles[..., 1]
    q25, median, q75 = (lower + (positions - below) * (upper - lower)).T
    total = sums[:, 0]
    # for a row of equal values these are rounding errors, which must not be divided by each other
    variance, third, fourth = np.where(smallest == largest, 0.0, sums[:, 1:].T / n_pixels)
    safe = np.where(variance > 0, variance, 1.0)
    skew = third / safe**1.5
    kurtosis = np.where(variance > 0, fourth / safe**2 - 3.0, 0.0)
    columns = (total / n_pixels, np.sqrt(variance), smallest, largest, median, total, q25, q75, skew, kurtosis)
    return dict(zip(STATISTICS, columns, strict=True))


def _power_sums(block, scratch, out):
    """Write sums of rows, and of powers two to four of their deviations from the mean, to `out` (n_rows, 4)."""
    (deviation, square), ones = scratch, np.ones(block.shape[1])
    np.copyto(deviation, block)
    out[:, 0] = deviation @ ones
    deviation -= out[:, :1] / block.shape[1]
    np.multiply(deviation, deviation, out=square)
    out[:, 1] = square @ ones
    for place, values in enumerate((deviation, square), start=2):  # inner products of rows, by BLAS
        out[:, place] = np.matmul(square[:, None, :], values[:, :, None])[:, 0, 0]

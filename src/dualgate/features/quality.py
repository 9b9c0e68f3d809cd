"""Statistics of an error vector: how well a row was measured."""

import numpy as np
from numpy.lib.stride_tricks import as_strided

from dualgate.features.fixed import FixedFeatures

STATISTICS = ("mean", "std", "min", "max", "median", "sum", "q25", "q75", "skew", "kurtosis")
_BLOCK_VALUES = 1 << 18  # values worked on at a time: they stay in the processor's cache
_RUN, _GROUP, _MAX_RUNS = 512, 8, 16  # 512 is the most that numpy sorts without a partition


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
    ranks = np.stack([below, np.minimum(below + 1, n_pixels - 1)], axis=1)
    size = min(n_rows, max(1, _BLOCK_VALUES // n_pixels))
    # memory is taken once: touching fresh pages costs more than the arithmetic
    ordered, sums = np.empty((n_rows, 2 + ranks.size)), np.empty((n_rows, 4))
    scratch = np.empty((2, size, n_pixels))
    select = _Selection(ranks, size, n_pixels, X.dtype) if _RUN < n_pixels <= _RUN * _MAX_RUNS else _sorted_values
    for start in range(0, n_rows, size):
        block, here = X[start : start + size], slice(start, start + size)
        select(block, ranks, ordered[here])
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
    deviation, square = scratch
    np.copyto(deviation, block)
    np.sum(deviation, axis=1, out=out[:, 0])
    deviation -= out[:, :1] / block.shape[1]
    np.multiply(deviation, deviation, out=square)
    np.einsum("ij,ij->i", deviation, deviation, out=out[:, 1])
    np.einsum("ij,ij->i", square, deviation, out=out[:, 2])
    np.einsum("ij,ij->i", square, square, out=out[:, 3])


def _sorted_values(block, ranks, out):
    """Smallest and largest value of rows, and those of `ranks` (n_pairs, 2), into `out` (n_rows, 2 + 2 n_pairs)."""
    ordered = np.sort(block, axis=1)
    out[:, 0], out[:, 1], out[:, 2:] = ordered[:, 0], ordered[:, -1], ordered[:, ranks.ravel()]


class _Selection:
    """What `_sorted_values` finds, several times faster for rows of a few thousand pixels.

    Runs of `_RUN` values are sorted, which numpy does in registers, and cut into groups with a largest value, the top.
    The tops, sorted, bracket every rank: at most ``_GROUP * j`` values of earlier groups and ``_GROUP - 1`` of each run
    are below top j, and at least ``_GROUP * (j + 1)`` are not above it. The few groups that may lie within the bracket
    are sorted once more.
    """

    def __init__(self, ranks, n_rows, n_pixels, dtype):
        n_runs = -(-n_pixels // _RUN)
        self.n_groups = _RUN // _GROUP
        self.first = (ranks[:, 0] - n_runs * (_GROUP - 1)) // _GROUP  # tops that bracket, (n_pairs,)
        self.last = ranks[:, 1] // _GROUP
        self.width = min(self.n_groups, (self.last - self.first).max())  # groups of one run within a bracket
        self.runs = np.empty((n_rows, n_runs, _RUN), dtype)
        shape, (step,) = (n_rows * n_runs * self.n_groups - self.width + 1, self.width * _GROUP), self.runs.strides[2:]
        self.windows = as_strided(self.runs, shape, (_GROUP * step, step), writeable=False)  # from every group on
        self.start = self.n_groups * np.arange(n_rows * n_runs).reshape(n_rows, 1, n_runs)

    def __call__(self, block, ranks, out):
        n_rows, n_pixels = block.shape
        runs = self.runs[:n_rows]
        flat = runs.reshape(n_rows, -1)
        flat[:, :n_pixels], flat[:, n_pixels:] = block, np.inf
        runs.sort(axis=2)
        np.min(runs[:, :, 0], axis=1, out=out[:, 0])
        np.maximum(runs[:, :-1, -1].max(axis=1), runs[:, -1, (n_pixels - 1) % _RUN], out=out[:, 1])
        tops = np.ascontiguousarray(runs[:, :, _GROUP - 1 :: _GROUP])
        ordered = np.sort(tops.reshape(n_rows, -1), axis=1)
        low, high = ordered[:, np.maximum(self.first, 0)], ordered[:, self.last]  # (n_rows, n_pairs)
        low[:, self.first < 0] = -np.inf
        # groups up to `low` are passed over, in every run: (n_rows, n_pairs, n_runs)
        passed = (tops[:, None] <= low[:, :, None, None]).view(np.int8).sum(axis=3, dtype=np.int8)
        passed = np.minimum(passed, self.n_groups - self.width, dtype=np.intp)
        window = self.windows[self.start[:n_rows] + passed].reshape(n_rows, len(ranks), -1)
        window.sort(axis=2)
        # a place outside the window belongs to a value that ties with that end of the bracket
        place = ranks - _GROUP * passed.sum(axis=2)[:, :, None]
        inside = np.minimum(np.maximum(place, 0), window.shape[2] - 1)
        value = window[np.arange(n_rows)[:, None, None], np.arange(len(ranks))[:, None], inside]
        low, high = low[:, :, None], high[:, :, None]
        np.copyto(value, low, where=place < inside)
        np.copyto(value, high, where=place > inside)
        np.minimum(np.maximum(value, low), high, out=out[:, 2:].reshape(value.shape))

"""Sufficient statistics of linear regression, cell by cell: what streams is something you can add."""

import os
from pathlib import Path

import numpy as np
from scipy.linalg.blas import get_blas_funcs

SINGLE_ROWS = 4096  # rows of a cell that are multiplied at a time: in single precision, before they add up in double
NARROW = 256  # features up to which rows in single precision are summed in double throughout: it takes no longer
FAR = 10.0  # standard deviations from the origin beyond which single precision loses digits of the scatter
_TILE = 64  # columns of a triangle that are mirrored at a time
_FAR_ROWS = 32  # rows that tell whether rows lie far from the origin
_ADDED = ("count", "x_sum", "y_sum", "y_square_sum", "moment", "gram")


class CellStatistics:
    """Counts and moments of rows (x, y), any number of cells at once.

    All arrays share their leading axes, written ``...`` below: cells, or folds x regimes x quality bins. Addition
    merges two sets of rows, subtraction takes rows away again, and `sum` merges along a leading axis, so that a
    parent is the sum of its children and the rows outside a fold are the whole less the fold. Every ridge, held-out
    error and pooled model follows from these without another look at the data.

    Sums are taken about `origin`, so that digits survive where the data lie far from zero; statistics with different
    origins still add. Rows in double precision are summed in double; wide rows in single precision are multiplied in
    single, and added in double after four thousand rows of a cell, unless they lie many deviations away.

    Memory: ``8 * n_cells * n_features**2`` bytes.

    Parameters
    ----------
    count : ndarray of shape (...)
        Number of rows, or the sum of their weights.
    x_sum : ndarray of shape (..., n_features)
        Sum of x - origin.
    y_sum, y_square_sum : ndarray of shape (...)
    moment : ndarray of shape (..., n_features)
        Sum of (x - origin) y.
    gram : ndarray of shape (..., n_features, n_features)
        Sum of (x - origin) (x - origin)'.
    origin : ndarray of shape (n_features,)

    Examples
    --------
    >>> import numpy as np
    >>> X, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([1.0, 3.0, 0.0, -1.0])
    >>> statistics = CellStatistics.zeros(2, 1).update(X, y, cells=np.array([0, 0, 1, 1]))
    >>> coef, intercept = statistics.solve([1e-9])
    >>> coef[0].round(3), intercept[0].round(3)
    (array([[ 2.],
           [-1.]]), array([1., 2.]))
    """

    def __init__(self, count, x_sum, y_sum, y_square_sum, moment, gram, origin):
        self.count, self.x_sum, self.y_sum, self.y_square_sum = count, x_sum, y_sum, y_square_sum
        self.moment, self.gram, self.origin = moment, gram, origin

    def __sizeof__(self):
        """Bytes of the arrays too: Dask decides by them what to move."""
        return object.__sizeof__(self) + sum(value.nbytes for value in vars(self).values() if hasattr(value, "nbytes"))

    @classmethod
    def zeros(cls, n_cells, n_features, *, origin=None):
        """Statistics of no rows yet.

        Parameters
        ----------
        n_cells, n_features : int
        origin : None or array-like of shape (n_features,), default=None
            A point near the data, such as the mean of a few rows; None is zero.

        Returns
        -------
        statistics : CellStatistics
            With one leading axis of length `n_cells`.

        Raises
        ------
        MemoryError
            If the arrays would not fit into three quarters of the machine's memory.
        """
        problem = describe_excess(n_cells, n_features)
        if problem:
            raise MemoryError(f"CellStatistics: {problem}. Use fewer cells, or project the features first.")
        origin = np.zeros(n_features) if origin is None else np.array(origin, dtype=np.float64)
        with np.errstate(over="ignore"):
            single = origin.astype(np.float32)  # so that rows of either precision are moved by the very same
        origin = np.where(np.isfinite(single), single, origin)
        axes = ((), (n_features,), (), (), (n_features,), (n_features, n_features))
        return cls(*(np.zeros((n_cells, *each)) for each in axes), origin)

    @classmethod
    def from_rows(cls, X, y, cells, n_cells, *, sample_weight=None):
        """Sum rows about their mean; the arguments are those of `zeros` and `update`."""
        empty = cls.zeros(n_cells, X.shape[1], origin=X.mean(axis=0, dtype=np.float64))
        return empty.update(X, y, cells, sample_weight=sample_weight)

    def update(self, X, y, cells, *, sample_weight=None):
        """Add rows in place.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features), float32 or float64
        y : ndarray of shape (n_samples,)
        cells : ndarray of int of shape (n_samples,)
            Cell of each row, 0 to n_cells - 1.
        sample_weight : None or ndarray of shape (n_samples,), default=None
            Not negative; a row of weight two counts as two rows. None is one each.

        Returns
        -------
        self : CellStatistics
        """
        order = np.argsort(cells, kind="stable")
        edges = np.searchsorted(cells[order], np.arange(len(self.count) + 1))
        origin = self.origin
        if X.dtype == np.float32 and X.shape[1] > NARROW:
            with np.errstate(over="ignore"):  # a single that overflowed is not equal
                single = origin.astype(np.float32)
            origin = single if np.array_equal(origin, single) else origin
        for cell in np.flatnonzero(np.diff(edges)):
            for first in range(edges[cell], edges[cell + 1], SINGLE_ROWS):
                last = min(first + SINGLE_ROWS, edges[cell + 1])
                rows = slice(first, last) if len(self.count) == 1 else order[first:last]
                x = X[rows] - origin
                if x.dtype == np.float32 and _is_far(x):
                    x = X[rows] - self.origin
                root = np.ones(len(x)) if sample_weight is None else np.sqrt(sample_weight[rows])
                self._add(cell, x, y[rows], root)
        return self

    def _add(self, cell, x, y, root):
        """Add rows of one cell, each times `root`, the square root of its weight; `x` is overwritten."""
        if np.any(root != 1):
            x *= root[:, None].astype(x.dtype)
        near = y.mean()
        sums = [each.astype(x.dtype) @ x for each in (root, root * (y - near))]
        self.count[cell] += root @ root
        self.x_sum[cell] += sums[0]
        self.moment[cell] += sums[1] + near * sums[0].astype(np.float64)
        self.y_sum[cell] += root @ (root * y)
        self.y_square_sum[cell] += np.square(root * y).sum()
        _add_products(self.gram[cell], x)

    @classmethod
    def _map(cls, function, *parts):
        """Apply a function to the arrays of statistics about the same origin."""
        return cls(*(function(*(getattr(part, name) for part in parts)) for name in _ADDED), parts[0].origin)

    def __add__(self, other):
        return self._map(np.add, self, other.about(self.origin))

    def __radd__(self, other):
        return self if isinstance(other, int) and other == 0 else NotImplemented  # where `sum` begins

    def __sub__(self, other):
        return self._map(np.subtract, self, other.about(self.origin))

    def about(self, origin):
        """Return the statistics of the same rows, summed about another origin (n_features,), or one for each cell."""
        step = self.origin - origin
        if not step.any():
            return self
        cross = self.x_sum[..., :, None] * step[..., None, :]
        square = step[..., :, None] * step[..., None, :]
        gram = self.gram + cross + cross.swapaxes(-1, -2) + self.count[..., None, None] * square
        x_sum = self.x_sum + self.count[..., None] * step
        moment = self.moment + self.y_sum[..., None] * step
        return CellStatistics(self.count, x_sum, self.y_sum, self.y_square_sum, moment, gram, origin)

    def scaled(self, scale):
        """Return the statistics of the same rows with columns divided by `scale` (n_features,)."""
        x_sum, moment, gram = self.x_sum / scale, self.moment / scale, self.gram / scale[:, None] / scale
        return CellStatistics(self.count, x_sum, self.y_sum, self.y_square_sum, moment, gram, self.origin / scale)

    def __getitem__(self, index):
        """Select along the leading axes."""
        return self._map(lambda values: values[index], self)

    def sum(self, axis):
        """Merge the cells along leading axes (non-negative integers)."""
        return self._map(lambda values: values.sum(axis=axis), self)

    def reshape(self, *shape):
        """Arrange the cells in leading axes of the given shape."""
        n_leading = self.count.ndim
        return self._map(lambda values: values.reshape(*shape, *values.shape[n_leading:]), self)

    @classmethod
    def stack(cls, parts):
        """Join statistics about the same origin along a new first axis."""
        return cls._map(lambda *values: np.stack(values), *parts)

    def means(self):
        """Means of x and y per cell; `origin` and zero where a cell is empty."""
        count = np.where(self.count > 0, self.count, 1.0)
        return self.origin + self.x_sum / count[..., None], self.y_sum / count

    def spreads(self):
        """Return the standard deviation of features within cells (n_features,); 1 where it is zero but for rounding."""
        axes, count = tuple(range(self.count.ndim)), float(self.count.sum())
        within = np.einsum("...jj->...j", self.centred()[0]).sum(axis=axes) / count
        size = np.einsum("...jj->...j", self.gram).sum(axis=axes) / count + self.origin**2
        return np.where(within > (10 * np.finfo(np.float64).eps) ** 2 * size * count, np.sqrt(np.abs(within)), 1.0)

    def centred(self):
        """Return `gram` and `moment` about the means of each cell, which a ridge with intercept needs."""
        x_mean, y_mean = self.means()
        gram = self.gram - self.x_sum[..., :, None] * (x_mean - self.origin)[..., None, :]
        return gram, self.moment - self.x_sum * y_mean[..., None]

    def squared_error(self, coef, intercept):
        """Sum of squared errors that a linear model makes on the rows of each cell.

        Parameters
        ----------
        coef : ndarray of shape (..., n_features)
        intercept : ndarray of shape (...)

        Returns
        -------
        error : ndarray of shape (...)
            Never negative.
        """
        level = intercept + coef @ self.origin
        product = np.matmul(self.gram, coef[..., None])[..., 0] + 2 * (level[..., None] * self.x_sum - self.moment)
        error = (product * coef).sum(-1) + self.y_square_sum
        return np.maximum(error + level * (self.count * level - 2 * self.y_sum), 0.0)

    def solve(self, alphas):
        """Ridge of every cell for a path of penalties; the intercept is not penalised.

        Parameters
        ----------
        alphas : sequence of float
            Above zero.

        Returns
        -------
        coef : ndarray of shape (n_alphas, ..., n_features)
        intercept : ndarray of shape (n_alphas, ...)
        """
        coef = solve_ridge(*self.centred(), alphas)
        x_mean, y_mean = self.means()
        return coef, y_mean - (x_mean * coef).sum(-1)


def _add_products(gram, x):
    """Add ``x' x`` to `gram`."""
    width = x.shape[1]
    if width <= NARROW:
        gram += x.T @ x
        return
    # NumPy takes as long to mirror a large triangle, column by column, as for a third of the product
    lower = get_blas_funcs("syrk", (x,))(1.0, x.T).T
    for start in range(0, width, _TILE):
        rows, stop = slice(start, start + _TILE), start + _TILE
        gram[rows, :stop] += lower[rows, :stop]
        gram[:start, rows] = gram[rows, :start].T
        gram[rows, rows] = np.tril(gram[rows, rows]) + np.tril(gram[rows, rows], -1).T


def _is_far(x):
    """Whether a column of rows lies far from zero for its scatter, by some of the rows (n_rows, n_features)."""
    some = x[:: max(1, len(x) // _FAR_ROWS)].astype(np.float64)
    return bool(np.any(np.abs(some.mean(axis=0)) > FAR * some.std(axis=0)))


def training_sets(folds):
    """Statistics outside each fold, then of all rows: (n_folds, ...) becomes (n_folds + 1, ...)."""
    total = folds.sum(0)
    return CellStatistics.stack([*(total - folds[fold] for fold in range(len(folds.count))), total])


def describe_excess(n_cells, n_features):
    """Name the memory of statistics that exceed three quarters of what there is, and what would fit; else empty."""
    needed, limit = 12 * n_cells * n_features**2, memory_limit()
    if needed <= limit:
        return ""
    return (
        f"the statistics of {n_cells:,} cells x {n_features:,} features would take {needed / 2**30:.1f} GiB, three "
        f"quarters of this machine's memory are {limit / 2**30:.1f} GiB: {limit // (12 * n_features**2):,} cells of "
        f"{n_features:,} features fit, or {n_cells:,} cells of {int((limit / 12 / n_cells) ** 0.5):,} features"
    )


def memory_limit(mounted="/sys/fs/cgroup", own="/proc/self/cgroup"):
    """Three quarters of the memory [bytes] of the machine, or of the least control group that this process is in.

    Where the system reports none it is three quarters of 8 GiB.
    """
    try:
        limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, ValueError, OSError):
        limits = [8 * 2**30]
    lines = Path(own).read_text().splitlines() if Path(own).is_file() else []  # on Linux alone
    for _, controllers, group in (line.split(":", 2) for line in lines):
        if controllers and "memory" not in controllers.split(","):
            continue
        base, name = ("memory", "memory.limit_in_bytes") if controllers else ("", "memory.max")  # version 1, 2
        for place in Path(mounted, base, group.lstrip("/"), name).parents:
            text = (place / name).read_text().strip() if (place / name).is_file() else ""
            limits += [int(text)] if text.isdigit() else []  # without a limit it is "max"
    return min(limits) * 3 // 4


def solve_ridge(gram, moment, alphas, towards=None):
    """Coefficients of ``min |y - Xw|^2 + alpha |w - towards|^2`` from centred statistics, for a path of penalties.

    Penalties are above zero; infinity gives `towards`, (..., n_features), None is zero. One eigendecomposition serves
    the whole path, a single penalty is solved without. Returns coefficients (n_alphas, ..., n_features).
    """
    right = moment if towards is None else moment - np.matmul(gram, towards[..., None])[..., 0]
    if len(alphas) == 1 and np.isfinite(alphas[0]):
        penalised = gram + alphas[0] * np.eye(gram.shape[-1])
        return np.linalg.solve(penalised, right[..., None])[None, ..., 0] + (0.0 if towards is None else towards)
    values, vectors = np.linalg.eigh(gram)
    rotated = np.matmul(vectors.swapaxes(-1, -2), right[..., None])[..., 0]
    # rounding may push the eigenvalue of an absent direction just below zero
    path = [np.matmul(vectors, (rotated / (values.clip(min=0) + alpha))[..., None])[..., 0] for alpha in alphas]
    return np.stack(path) + (0.0 if towards is None else towards)

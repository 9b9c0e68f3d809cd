"""Sufficient statistics of linear regression, cell by cell: what streams is something you can add."""

from dataclasses import dataclass, fields

import numpy as np

_BLOCK_ROWS = 2048  # rows multiplied in the precision of the data before they are added in double


@dataclass(frozen=True, eq=False)
class CellStatistics:
    """Counts and moments of rows (x, y), any number of cells at once.

    All arrays share their leading axes, written ``...`` below: cells, or folds x regimes x quality bins. Addition
    merges two sets of rows, subtraction takes rows away again, and `sum` merges along a leading axis, so that a
    parent is the sum of its children and the rows outside a fold are the whole less the fold. Every ridge, held-out
    error and pooled model follows from these without another look at the data.

    Memory: ``8 * n_cells * n_features**2`` bytes and little more.

    Parameters
    ----------
    count : ndarray of shape (...)
        Number of rows.
    x_sum : ndarray of shape (..., n_features)
    y_sum, y_square_sum : ndarray of shape (...)
    gram : ndarray of shape (..., n_features, n_features)
        Sum of x x'.
    moment : ndarray of shape (..., n_features)
        Sum of x y.
    """

    count: np.ndarray
    x_sum: np.ndarray
    y_sum: np.ndarray
    y_square_sum: np.ndarray
    gram: np.ndarray
    moment: np.ndarray

    @classmethod
    def from_rows(cls, X, y, cells, n_cells):
        """Sum the rows of each cell.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)
        y : ndarray of shape (n_samples,)
        cells : ndarray of int of shape (n_samples,)
            Cell of each row, 0 to `n_cells` - 1.
        n_cells : int

        Returns
        -------
        statistics : CellStatistics
            With one leading axis of length `n_cells`.
        """
        width = X.shape[1]
        gram = np.zeros((n_cells, width, width))
        moment, x_sum = np.zeros((n_cells, width)), np.zeros((n_cells, width))
        order = np.argsort(cells, kind="stable")
        stops = np.cumsum(np.bincount(cells, minlength=n_cells))
        for cell, (start, stop) in enumerate(zip(np.r_[0, stops[:-1]], stops, strict=True)):
            for first in range(start, stop, _BLOCK_ROWS):
                rows = order[first : min(first + _BLOCK_ROWS, stop)]
                # about the block's own mean, which single precision would lose against a far-off origin
                near = X[rows].mean(axis=0, dtype=np.float64)
                block = X[rows] - near.astype(X.dtype)
                near = near.astype(X.dtype).astype(np.float64)
                rest = block.sum(axis=0, dtype=np.float64)
                cross = np.outer(near, rest + 0.5 * len(rows) * near)
                gram[cell] += (block.T @ block) + cross + cross.T
                moment[cell] += block.T.astype(np.float64) @ y[rows] + near * y[rows].sum()
                x_sum[cell] += rest + len(rows) * near
        return cls(
            count=np.bincount(cells, minlength=n_cells).astype(np.float64),
            x_sum=x_sum,
            y_sum=np.bincount(cells, y, minlength=n_cells),
            y_square_sum=np.bincount(cells, y * y, minlength=n_cells),
            gram=gram,
            moment=moment,
        )

    def _map(self, function, *others):
        names = [field.name for field in fields(self)]
        return CellStatistics(*(function(*(getattr(part, name) for part in (self, *others))) for name in names))

    def __add__(self, other):
        return self._map(np.add, other)

    def __sub__(self, other):
        return self._map(np.subtract, other)

    def __getitem__(self, index):
        """Select along the leading axes."""
        return self._map(lambda values: values[index])

    def sum(self, axis):
        """Merge the cells along leading axes (non-negative integers)."""
        return self._map(lambda values: values.sum(axis=axis))

    def reshape(self, *shape):
        """Arrange the cells in leading axes of the given shape."""
        n_leading = self.count.ndim
        return self._map(lambda values: values.reshape(*shape, *values.shape[n_leading:]))

    def means(self):
        """Means of x and y per cell; zero where a cell is empty."""
        count = np.maximum(self.count, 1.0)
        return self.x_sum / count[..., None], self.y_sum / count

    def centred(self):
        """Gram and moment about the means of each cell: what a ridge with intercept needs.

        Returns
        -------
        gram : ndarray of shape (..., n_features, n_features)
        moment : ndarray of shape (..., n_features)
        """
        x_mean, y_mean = self.means()
        gram = self.gram - self.x_sum[..., :, None] * x_mean[..., None, :]
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
        product = np.matmul(self.gram, coef[..., None])[..., 0] + 2 * (intercept[..., None] * self.x_sum - self.moment)
        error = (product * coef).sum(-1) + self.y_square_sum
        return np.maximum(error + intercept * (self.count * intercept - 2 * self.y_sum), 0.0)


def solve_ridge(gram, moment, alphas, towards=None):
    """Coefficients of ``min |y - Xw|^2 + alpha |w - towards|^2`` from centred statistics, for a path of penalties.

    One eigendecomposition serves the whole path.

    Parameters
    ----------
    gram : ndarray of shape (..., n_features, n_features)
    moment : ndarray of shape (..., n_features)
    alphas : sequence of float
        Above zero; infinity gives `towards`.
    towards : None or ndarray of shape (..., n_features)
        What the penalty pulls to; None is zero.

    Returns
    -------
    coef : ndarray of shape (n_alphas, ..., n_features)
    """
    right = moment if towards is None else moment - np.matmul(gram, towards[..., None])[..., 0]
    values, vectors = np.linalg.eigh(gram)
    rotated = np.matmul(vectors.swapaxes(-1, -2), right[..., None])[..., 0]
    # rounding may push the eigenvalue of an absent direction just below zero
    path = [np.matmul(vectors, (rotated / (values.clip(min=0) + alpha))[..., None])[..., 0] for alpha in alphas]
    return np.stack(path) + (0.0 if towards is None else towards)

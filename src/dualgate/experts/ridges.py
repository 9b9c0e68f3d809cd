"""Ridges of many cells at once, for every training set, with penalties chosen by held-out error."""

from dataclasses import dataclass

import numpy as np

from dualgate._validation import owner_name
from dualgate.statistics import describe_excess, solve_ridge, training_sets


@dataclass(frozen=True, eq=False)
class Ridges:
    """Linear models of some cells, once per training set.

    Parameters
    ----------
    coef : ndarray of shape (n_folds + 1, n_cells, n_features)
        Without fold 0, 1, ..., and last on all rows.
    intercept : ndarray of shape (n_folds + 1, n_cells)
    alpha : ndarray of shape (n_cells,)
        Penalty chosen for each cell; infinity is the parent itself.
    """

    coef: np.ndarray
    intercept: np.ndarray
    alpha: np.ndarray

    @classmethod
    def of_cells(cls, coef, intercept, alpha, count):
        """Take models (n_folds + 1, n_regimes, n_bins, ...), their penalties, and the rows of folds and cells."""
        n_sets, n_regimes, n_bins, width = coef.shape
        cells = n_regimes * n_bins
        alpha = np.where(count.sum((0, 2))[:, None] > 0, np.broadcast_to(alpha, (n_regimes, n_bins)), np.inf)
        return cls(coef.reshape(n_sets, cells, width), intercept.reshape(n_sets, cells), alpha.ravel())

    def in_units(self, unit, level, scale):
        """Return the same models of columns `unit` times as large, for a target ``level + scale * y``."""
        return Ridges(self.coef * (scale / unit), self.intercept * scale + level, self.alpha)

    def of_parents(self, parents):
        """Repeat the models so that entry c is the model of cell c's parent."""
        return Ridges(self.coef[:, parents], self.intercept[:, parents], self.alpha[parents])


def check_memory_for(owner, n_cells, width):
    """Raise a ValueError where the statistics of `n_cells` folds x cells would not fit in memory."""
    problem = describe_excess(n_cells, width)
    if problem:
        raise ValueError(
            f"{owner_name(owner)}.projection={owner.projection!r} leaves {width:,} columns: {problem}, counting every "
            "fold x regime x quality bin. Set projection to 'whitened' or a transformer such as "
            "sklearn.decomposition.PCA(50), or use fewer regimes."
        )


def penalties(owner, folds):
    """Return the penalties to choose from: the owner's, or a grid that suits the variances of the columns."""
    if owner.alphas is not None:
        return check_given_alphas(owner)
    total = folds.sum((0, 1, 2))
    variances = np.diagonal(total.centred()[0]) / float(total.count)
    variances = variances[variances > 1e-12 * variances.max()] if variances.max() > 0 else np.ones(1)
    low, high = np.log10(1e-2 * variances.min()), np.log10(1e6 * variances.mean())
    return np.logspace(low, high, int(np.ceil(2 * (high - low))) + 1)


def check_given_alphas(owner):
    """Return the owner's penalties as an array, None where there are none to check."""
    if owner.alphas is None:
        return None
    try:
        alphas = np.atleast_1d(np.asarray(owner.alphas, dtype=np.float64))
    except (TypeError, ValueError):
        alphas = np.empty(0)
    if alphas.ndim != 1 or len(alphas) == 0 or not (np.isfinite(alphas).all() and np.all(alphas > 0)):
        raise ValueError(
            f"{owner_name(owner)}.alphas={owner.alphas!r} must be one or more finite numbers above zero, such as "
            "numpy.logspace(-2, 4, 13)."
        )
    return alphas


def fit_ridges(folds, alphas, *, parents=None, shrink=False):
    """Ridge for each cell, its penalty chosen by squared error on the held-out folds.

    Parameters
    ----------
    folds : CellStatistics, leading axes (n_folds, n_cells)
    alphas : ndarray of shape (n_alphas,)
    parents : Ridges or None
        What a cell falls back on where it has no training row.
    shrink : bool
        Pull the coefficients to the parents' instead of to zero; the parent itself is then a candidate.

    Returns
    -------
    ridges : Ridges
    """
    n_cells, width = folds.moment.shape[1:]
    models = Ridges(
        np.zeros((len(folds.count) + 1, n_cells, width)),
        np.zeros((len(folds.count) + 1, n_cells)),
        np.full(n_cells, np.inf),
    )
    candidates = np.sort(np.r_[alphas, np.inf] if shrink else alphas)[::-1]  # a tie goes to the stronger penalty
    for cell in range(n_cells):
        here = training_sets(folds[:, cell : cell + 1])[:, 0]
        parent = None if parents is None else (parents.coef[:, cell], parents.intercept[:, cell])
        coefs, intercepts = _ridge_path(here, candidates, parent, shrink)
        errors = folds[:, cell].squared_error(coefs[:, :-1], intercepts[:, :-1]).sum(axis=1)
        best = int(np.argmin(errors))
        models.coef[:, cell], models.intercept[:, cell] = coefs[best], intercepts[best]
        models.alpha[cell] = candidates[best] if here.count[-1] > 0 else np.inf
    return models


def _ridge_path(sets, alphas, parent, shrink):
    """Coefficients (n_alphas, n_sets, n_features) and intercepts of one cell on every training set."""
    coef = solve_ridge(*sets.centred(), alphas, parent[0] if shrink else None)
    x_mean, y_mean = sets.means()
    intercept = y_mean - (x_mean * coef).sum(-1)
    if parent is not None:
        to_parent = np.isinf(alphas)[:, None] | (sets.count == 0)
        coef = np.where(to_parent[..., None], parent[0], coef)
        intercept = np.where(to_parent, parent[1], intercept)
    return coef, intercept


def add_intercepts(sets, coef, root):
    """Find the intercepts that go with coefficients solved jointly, and let a regime without rows be the root.

    A cell goes through its means of x and y, one without rows through its regime's.

    Parameters
    ----------
    sets : CellStatistics, leading axes (n_folds + 1, n_regimes, n_bins)
    coef : ndarray of shape (..., n_folds + 1, n_regimes, n_bins, n_features)
    root : Ridges

    Returns
    -------
    coef : ndarray of the same shape
    intercept : ndarray of shape (..., n_folds + 1, n_regimes, n_bins)
    """
    x_mean, y_mean = sets.means()
    regime_x, regime_y = (values[:, :, None] for values in sets.sum(2).means())
    own = y_mean - (x_mean * coef).sum(-1)
    intercept = np.where(sets.count > 0, own, regime_y - (regime_x * coef).sum(-1))
    return fall_back(sets, coef, intercept, root)


def fall_back(sets, coef, intercept, root):
    """Put the root's model in the place of regimes without rows; shapes are those of `add_intercepts`."""
    nothing = sets.count.sum(2, keepdims=True) == 0
    coef = np.where(nothing[..., None], root.coef[:, :, None], coef)
    return coef, np.where(nothing, root.intercept[:, :, None], intercept)

"""Ridges of many cells at once, for every training set, with penalties chosen by held-out error."""

import numbers
from dataclasses import dataclass

import numpy as np

from dualgate._validation import check_numbers, owner_name
from dualgate.statistics import describe_excess, solve_ridge, training_sets

TIE = 1e-9  # relative difference of held-out errors that is rounding


@dataclass(frozen=True, eq=False)
class Ridges:
    """Linear models of some cells on every training set: without fold 0, 1, ..., and last on all rows."""

    coef: np.ndarray  # (n_folds + 1, n_cells, n_features)
    intercept: np.ndarray  # (n_folds + 1, n_cells)
    alpha: np.ndarray  # (n_cells,), the penalty chosen for each; infinity is the parent's model

    @classmethod
    def of_cells(cls, coef, intercept, alpha, count):
        """Make them from models (n_folds + 1, n_regimes, n_bins, ...), penalties, and row counts of folds and cells."""
        n_sets, n_regimes, n_bins, width = coef.shape
        alpha = np.where(count.sum((0, 2))[:, None] > 0, np.broadcast_to(alpha, (n_regimes, n_bins)), np.inf)
        return cls(coef.reshape(n_sets, -1, width), intercept.reshape(n_sets, -1), alpha.ravel())

    def in_units(self, unit, level, scale):
        """Return the same models of columns `unit` times as large, for a target ``level + scale * y``."""
        return Ridges(self.coef * (scale / unit), self.intercept * scale + level, self.alpha)

    def ending_as(self, other):
        """Return these models without folds, followed by those of `other` on all rows."""
        coef, intercept = np.r_[self.coef[:-1], other.coef[-1:]], np.r_[self.intercept[:-1], other.intercept[-1:]]
        return Ridges(coef, intercept, other.alpha)

    def take(self, cells):
        """Select the models of these cells, which may repeat."""
        return Ridges(self.coef[:, cells], self.intercept[:, cells], self.alpha[cells])


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
    alphas = [owner.alphas] if isinstance(owner.alphas, numbers.Real) else owner.alphas
    wanted = "one or more finite numbers above zero, such as numpy.logspace(-2, 4, 13)"
    return check_numbers(owner, "alphas", alphas, lambda array: np.all(array > 0), wanted)


def errors_of_sets(errors, y_squares):
    """Held-out error by which each training set chooses, from squared errors (n_candidates, n_folds) of the folds.

    A set without a fold chooses by the others, so that its model has not seen that fold's rows; the last set, of all
    rows, by all folds. Errors (n_candidates, n_folds + 1) that differ by rounding, for targets with the sum of squares
    `y_squares`, are made equal.
    """
    total = errors.sum(axis=1, keepdims=True)
    errors = np.hstack([total - errors, total])
    least = errors.min(axis=0)
    return np.where(errors <= least + TIE * (least + 1e-3 * y_squares), least, errors)


def fit_ridges(folds, alphas, *, parents=None, shrink=False):
    """Ridge for each cell of `folds` (n_folds, n_cells), its penalty chosen by squared error on the held-out folds.

    A cell without training rows takes its parent's model, `parents` holding one for each cell. `shrink` pulls the
    coefficients to the parent's instead of to zero, and the parent's model itself is then a candidate.
    """
    candidates = np.sort(np.r_[alphas, np.inf] if shrink else alphas)[::-1]  # a tie goes to the stronger penalty
    chosen = []
    for cell in range(folds.count.shape[1]):  # one at a time: training sets take more memory than the cells themselves
        rows = folds[:, cell]
        sets = training_sets(rows)
        coef = solve_ridge(*sets.centred(), candidates, parents.coef[:, cell] if shrink else None)
        x_mean, y_mean = sets.means()
        intercept = y_mean - (x_mean * coef).sum(-1)
        if parents is not None:
            to_parent = np.isinf(candidates)[:, None] | (sets.count == 0)
            coef = np.where(to_parent[..., None], parents.coef[:, cell], coef)
            intercept = np.where(to_parent, parents.intercept[:, cell], intercept)
        errors = rows.squared_error(coef[:, :-1], intercept[:, :-1])
        best = errors_of_sets(errors, rows.y_square_sum.sum()).argmin(axis=0), np.arange(len(sets.count))
        chosen.append((coef[best], intercept[best], candidates[best[0][-1]] if sets.count[-1] > 0 else np.inf))
    coef, intercept, penalty = zip(*chosen, strict=True)
    return Ridges(np.stack(coef, axis=1), np.stack(intercept, axis=1), np.array(penalty))

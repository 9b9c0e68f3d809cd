"""What the experts of neighbouring cells share: one function for each strategy, on sufficient statistics alone.

A strategy receives the statistics of every fold, regime and quality bin and solves ``n_folds + 1`` problems at once:
one without each fold, whose held-out error chooses the penalties and whose models cross-fit the gate's predictions, and
one on all rows, which stays. A new strategy is a function registered in `SHARING`.
"""

from dataclasses import dataclass

import numpy as np

from dualgate._validation import owner_name
from dualgate.statistics import CellStatistics, describe_excess, solve_ridge


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


def check_alphas(owner, folds):
    """Return the penalties to choose from: the owner's, or a grid that suits the variances of the columns."""
    if owner.alphas is None:
        total = folds.sum((0, 1, 2))
        variances = np.diagonal(total.centred()[0]) / float(total.count)
        variances = variances[variances > 1e-12 * variances.max()] if variances.max() > 0 else np.ones(1)
        low, high = np.log10(1e-2 * variances.min()), np.log10(1e6 * variances.mean())
        return np.logspace(low, high, int(np.ceil(2 * (high - low))) + 1)
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


def training_sets(folds):
    """Statistics outside each fold, then of all rows: (n_folds, n_cells) becomes (n_folds + 1, n_cells)."""
    total = folds.sum(0)
    return CellStatistics.stack([*(total - folds[fold] for fold in range(len(folds.count))), total])


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


def _regimes_of(folds):
    """Merge the quality bins: leading axes (n_folds, n_regimes)."""
    return folds.sum(2)


def independent(folds, alphas, root):
    r"""Fit a ridge of its own, with a penalty of its own, in every cell: :math:`w_{ks}`."""
    n_folds, n_regimes, n_bins = folds.count.shape
    everywhere = np.zeros(n_regimes, dtype=int)
    regimes = fit_ridges(_regimes_of(folds), alphas, parents=root.of_parents(everywhere))
    if n_bins == 1:
        return regimes
    parents = regimes.of_parents(np.repeat(np.arange(n_regimes), n_bins))
    return fit_ridges(folds.reshape(n_folds, n_regimes * n_bins), alphas, parents=parents)


def shrink(folds, alphas, root):
    r"""Pull every cell to its regime and every regime to the root.

    .. math:: \min_{w_{ks}} \lVert y - X w_{ks} \rVert^2 + \alpha_{ks} \lVert w_{ks} - w_k \rVert^2
    """
    n_folds, n_regimes, n_bins = folds.count.shape
    everywhere = np.zeros(n_regimes, dtype=int)
    regimes = fit_ridges(_regimes_of(folds), alphas, parents=root.of_parents(everywhere), shrink=True)
    if n_bins == 1:
        return regimes
    parents = regimes.of_parents(np.repeat(np.arange(n_regimes), n_bins))
    return fit_ridges(folds.reshape(n_folds, n_regimes * n_bins), alphas, parents=parents, shrink=True)


def offset(folds, alphas, root):
    r"""Add to a regime's ridge an offset that all regimes share: :math:`w_k + \Delta_s`, solved jointly and exactly.

    .. math::
        \min \sum_{ks} \lVert y - b_{ks} - X (w_k + \Delta_s) \rVert^2
        + \alpha \sum_k \lVert w_k \rVert^2 + \beta \sum_s \lVert \Delta_s \rVert^2

    The two penalties are chosen one after the other: alpha with all offsets at zero, then beta.
    """
    n_folds, n_regimes, n_bins = folds.count.shape
    sets = training_sets(folds.reshape(n_folds, n_regimes * n_bins)).reshape(n_folds + 1, n_regimes, n_bins)

    def candidate(alpha, beta):
        coef = np.stack([solve_offset(*sets[i].centred(), alpha, beta) for i in range(n_folds + 1)])
        x_mean, y_mean = sets.means()
        intercept = y_mean - (x_mean * coef).sum(-1)
        # a regime that is empty is the root; a cell that is empty keeps w_k + Delta_s, about the regime's means
        regime_x, regime_y = (values[:, :, None] for values in sets.sum(2).means())
        intercept = np.where(sets.count > 0, intercept, regime_y - (regime_x * coef).sum(-1))
        nothing = sets.count.sum(2) == 0
        coef[nothing], intercept[nothing] = _spread(root, nothing, n_bins)
        return folds.squared_error(coef[:-1], intercept[:-1]).sum(), coef, intercept

    descending = np.sort(alphas)[::-1]
    alpha = min(descending, key=lambda value: candidate(value, np.inf)[0])
    betas = [np.inf] if n_bins == 1 else [np.inf, *descending]
    beta = min(betas, key=lambda value: candidate(alpha, value)[0])
    _, coef, intercept = candidate(alpha, beta)
    shape = (n_folds + 1, n_regimes * n_bins)
    return Ridges(coef.reshape(*shape, -1), intercept.reshape(shape), np.full(shape[1], alpha))


def _spread(root, where, n_bins):
    """Repeat the root's model of each training set for the regimes marked in `where` (n_sets, n_regimes)."""
    sets = np.nonzero(where)[0]
    coef, intercept = root.coef[sets, 0], root.intercept[sets, 0]
    return np.repeat(coef[:, None], n_bins, axis=1), np.repeat(intercept[:, None], n_bins, axis=1)


def solve_offset(gram, moment, alpha, beta):
    """Solve the joint problem of `offset` by eliminating the regimes.

    Parameters
    ----------
    gram : ndarray of shape (n_regimes, n_bins, n_features, n_features)
        Centred per cell.
    moment : ndarray of shape (n_regimes, n_bins, n_features)
    alpha, beta : float
        Above zero; an infinite `beta` leaves no offset.

    Returns
    -------
    coef : ndarray of shape (n_regimes, n_bins, n_features)
        The sums w_k + Delta_s.
    """
    n_regimes, n_bins, width = moment.shape
    regime_gram = gram.sum(1) + alpha * np.eye(width)
    regime_moment = moment.sum(1)
    if np.isinf(beta):
        regime = np.linalg.solve(regime_gram, regime_moment[..., None])[..., 0]
        return np.repeat(regime[:, None], n_bins, axis=1)
    # rows: A_k w_k + sum_s G_ks Delta_s = c_k  and  sum_k G_ks w_k + (sum_k G_ks + beta I) Delta_s = c_s
    beside = gram.transpose(0, 2, 1, 3).reshape(n_regimes, width, n_bins * width)  # [G_k1 ... G_kS]
    eliminated = np.linalg.solve(regime_gram, np.concatenate([beside, regime_moment[..., None]], axis=2))
    below = beside.transpose(0, 2, 1)
    schur = -np.matmul(below, eliminated[..., :-1]).sum(0)
    right = moment.sum(0).ravel() - np.matmul(below, eliminated[..., -1:])[..., 0].sum(0)
    for level, block in enumerate(gram.sum(0) + beta * np.eye(width)):
        own = slice(level * width, (level + 1) * width)
        schur[own, own] += block
    offsets = np.linalg.solve(schur, right)
    regime = eliminated[..., -1] - np.matmul(eliminated[..., :-1], offsets)
    return regime[:, None] + offsets.reshape(n_bins, width)


SHARING = {"independent": independent, "offset": offset, "shrink": shrink}

"""What the experts of neighbouring cells share: one function for each strategy, on sufficient statistics alone.

A strategy receives the statistics of every fold, regime and quality bin and solves ``n_folds + 1`` problems at once:
one without each fold, whose held-out error chooses the penalties and whose models cross-fit the gate's predictions, and
one on all rows, which stays. A new strategy is a function registered in `SHARING`.
"""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from dualgate.experts.ridges import Ridges, add_intercepts, fall_back, fit_ridges
from dualgate.statistics import solve_ridge, training_sets

MAX_ROUNDS = 2000  # of alternating least squares; some ten are usual
TOLERANCE = 1e-9  # of the scales and shifts, which are of order one


def independent(folds, alphas, root):
    r"""Fit a ridge of its own, with a penalty of its own, in every cell: :math:`w_{ks}`."""
    return _nested(folds, alphas, root, shrink=False)


def shrink(folds, alphas, root):
    r"""Pull every cell to its regime and every regime to the root.

    .. math:: \min_{w_{ks}} \lVert y - X w_{ks} \rVert^2 + \alpha_{ks} \lVert w_{ks} - w_k \rVert^2
    """
    return _nested(folds, alphas, root, shrink=True)


def _nested(folds, alphas, root, *, shrink):
    """Ridges of regimes below the root, then of cells below their regimes."""
    n_folds, n_regimes, n_bins = folds.count.shape
    parents = root.of_parents(np.zeros(n_regimes, dtype=int))
    regimes = fit_ridges(folds.sum(2), alphas, parents=parents, shrink=shrink)
    if n_bins == 1:
        return regimes
    parents = regimes.of_parents(np.repeat(np.arange(n_regimes), n_bins))
    return fit_ridges(folds.reshape(n_folds, n_regimes * n_bins), alphas, parents=parents, shrink=shrink)


def offset(folds, alphas, root):
    r"""Add to a regime's ridge an offset that all regimes share: :math:`w_k + \Delta_s`, solved jointly and exactly.

    .. math::
        \min \sum_{ks} \lVert y - b_{ks} - X (w_k + \Delta_s) \rVert^2
        + \alpha \sum_k \lVert w_k \rVert^2 + \beta \sum_s \lVert \Delta_s \rVert^2

    The two penalties are chosen one after the other: alpha with all offsets at zero, then beta.
    """
    n_bins = folds.count.shape[2]
    sets = training_sets(folds)
    centred = sets.centred()

    def candidate(alpha, beta):
        coef = np.stack([solve_offset(gram, moment, alpha, beta) for gram, moment in zip(*centred, strict=True)])
        coef, intercept = add_intercepts(sets, coef, root)
        return folds.squared_error(coef[:-1], intercept[:-1]).sum(), coef, intercept

    descending = np.sort(alphas)[::-1]
    alpha = min(descending, key=lambda value: candidate(value, np.inf)[0])
    betas = [np.inf] if n_bins == 1 else [np.inf, *descending]
    beta = min(betas, key=lambda value: candidate(alpha, value)[0])
    _, coef, intercept = candidate(alpha, beta)
    return Ridges.of_cells(coef, intercept, alpha, folds.count)


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


def alpha(folds, alphas, root):
    r"""Leave to a quality bin nothing but its penalty: :math:`w_k(\alpha_s)`, a ridge path for each regime.

    .. math:: w_k(\alpha) = \arg\min_w \min_b \lVert y - b - X w \rVert^2 + \alpha \lVert w \rVert^2

    over the rows of all bins of regime k; alpha_s is the penalty with the smallest held-out error in bin s, summed over
    the regimes. The intercept belongs to the ridge, so that all cells of a regime meet at its means. A bin that is
    empty in all regimes takes the penalty that is best for all bins together.
    """
    sets = training_sets(folds)
    n_bins, regimes = folds.count.shape[2], sets.sum(2)
    descending = np.sort(alphas)[::-1]  # a tie goes to the stronger penalty
    path = (np.repeat(each[:, :, :, None], n_bins, axis=3) for each in regimes.solve(descending))
    coef, intercept = fall_back(sets, *path, root)
    errors = folds.squared_error(coef[:, :-1], intercept[:, :-1]).sum((1, 2))
    errors = np.where(folds.count.sum((0, 1)) > 0, errors, errors.sum(1, keepdims=True))
    best = errors.argmin(axis=0)
    coef, intercept = (
        np.stack([models[each, :, :, level] for level, each in enumerate(best)], axis=2) for models in (coef, intercept)
    )
    return Ridges.of_cells(coef, intercept, descending[best], folds.count)


def scale(folds, alphas, root):
    r"""Scale and shift a regime's ridge by what all regimes share, about the regime's mean.

    .. math::
        f_{ks}(x) = \gamma_s\, w_k \cdot (x - \bar x_k) + b_k + \beta_s, \qquad
        \min \sum_{ks} \lVert y - f_{ks}(X) \rVert^2 + \alpha \sum_{ks} \pi_s \lVert \gamma_s w_k \rVert^2

    with :math:`\pi_s` the share of rows in bin s. Slopes are scaled about :math:`\bar x_k`, the mean of the regime's
    training rows, so that noise may flatten a regime's line without moving its level, and so that the origin of x does
    not matter. The penalty sees the coefficients of the cells: it is the same for (c gamma, w / c), and no scale can
    escape it. Two conventions fix what is left open: :math:`\sum_s \pi_s \gamma_s^2 = 1` with
    :math:`\sum_s \pi_s \gamma_s \ge 0`, and :math:`\sum_s \pi_s \beta_s = 0`.

    A bin that is empty in all regimes has gamma = 1 and beta = 0. One alpha is chosen for all cells.
    """
    sets = training_sets(folds)
    sums, means = about_regimes(sets), sets.sum(2).means()[0]
    n_sets, _, n_bins = sets.count.shape
    start, lowest = (np.ones((n_sets, n_bins)), np.zeros((n_sets, n_bins))), np.inf
    for value in np.sort(alphas)[::-1]:
        *start, regime, level, settled = solve_scale(sums, value, start)
        coef = start[0][:, None, :, None] * regime[:, :, None]
        intercept = level[:, :, None] + start[1][:, None] - (coef * means[:, :, None]).sum(-1)
        coef, intercept = fall_back(sets, coef, intercept, root)
        error = folds.squared_error(coef[:-1], intercept[:-1]).sum()
        if error < lowest:  # a tie goes to the stronger penalty
            lowest, chosen = error, (coef, intercept, value, settled)
    coef, intercept, value, settled = chosen
    if not settled:
        warnings.warn(
            f"HierarchicalExperts: sharing='scale' did not settle within {MAX_ROUNDS:,} rounds at alpha={value:g}: its "
            "scales are approximate. Use larger alphas or fewer quality bins.",
            ConvergenceWarning,
            stacklevel=2,
        )
    return Ridges.of_cells(coef, intercept, value, folds.count)


def about_regimes(sets):
    """Move the sums of cells (..., n_regimes, n_bins) to the mean of x of each regime.

    Returns
    -------
    sums : tuple (count, x_sum, y_sum, gram, moment)
        As in `CellStatistics`.
    """
    step = (sets.sum(sets.count.ndim - 1).means()[0] - sets.origin)[..., None, :]
    cross = sets.x_sum[..., :, None] * step[..., None, :]
    square = step[..., :, None] * step[..., None, :]
    gram = sets.gram - cross - cross.swapaxes(-1, -2) + sets.count[..., None, None] * square
    x_sum = sets.x_sum - sets.count[..., None] * step
    return sets.count, x_sum, sets.y_sum, gram, sets.moment - sets.y_sum[..., None] * step


def solve_scale(sums, alpha, start):
    """Solve the joint problem of `scale` by alternating exact least squares.

    Parameters
    ----------
    sums : tuple of ndarray
        Of `about_regimes`, leading axes (n_sets, n_regimes, n_bins).
    alpha : float
        Above zero.
    start : tuple (gamma, beta) of ndarray of shape (n_sets, n_bins)

    Returns
    -------
    gamma, beta : ndarray of shape (n_sets, n_bins)
    coef : ndarray of shape (n_sets, n_regimes, n_features)
        The w_k; zero where a regime is empty.
    level : ndarray of shape (n_sets, n_regimes)
        The b_k.
    settled : bool
        Whether it converged.
    """
    gamma, beta = start
    for _ in range(MAX_ROUNDS):
        before = gamma, beta
        coef, level = _regimes_given_bins(sums, alpha, gamma, beta)
        gamma, beta = _bins_given_regimes(sums, alpha, coef, level)
        settled = max(np.abs(gamma - before[0]).max(), np.abs(beta - before[1]).max()) < TOLERANCE
        if settled:
            break
    return gamma, beta, *_regimes_given_bins(sums, alpha, gamma, beta), settled


def _regimes_given_bins(sums, alpha, gamma, beta):
    """Ridge of every regime in gamma_s (x - mean), with its own intercept, on y - beta_s."""
    count, x_sum, y_sum, gram, moment = sums
    factor = gamma[:, None, :, None]
    n_rows = np.maximum(count.sum(-1), 1.0)
    sum_x = (factor * x_sum).sum(2)
    sum_y = (y_sum - beta[:, None] * count).sum(2)
    square = np.matmul(gamma[:, None, None] ** 2, gram.reshape(*count.shape, -1))[:, :, 0].reshape(gram[:, :, 0].shape)
    square -= sum_x[..., :, None] * (sum_x / n_rows[..., None])[..., None, :]
    right = (factor * (moment - beta[:, None, :, None] * x_sum)).sum(2) - sum_x * (sum_y / n_rows)[..., None]
    coef = solve_ridge(square, right, [alpha])[0]
    return coef, (sum_y - (sum_x * coef).sum(-1)) / n_rows


def _bins_given_regimes(sums, alpha, coef, level):
    """Scale and shift of every bin, by least squares in two unknowns, and brought to their conventions."""
    count, x_sum, y_sum, gram, moment = sums
    n_rows = count.sum(1)
    share = n_rows / n_rows.sum(1, keepdims=True)
    along = coef[:, :, None]
    product = np.matmul(gram, along[..., None])[..., 0]
    square = (product * along).sum((1, 3)) + alpha * share * np.square(coef).sum((1, 2))[:, None]
    line = (x_sum * along).sum(-1)  # of w_k (x - mean), over the rows of a cell
    total = line.sum(1)
    right = (moment * along).sum((1, 3)) - (line * level[..., None]).sum(1)
    rest = (y_sum - count * level[..., None]).sum(1)
    determinant = square * n_rows - total**2
    known = determinant > 1e-12 * square * n_rows  # not where a bin is empty, or all coefficients are zero
    gamma = np.where(known, (right * n_rows - total * rest) / np.where(known, determinant, 1.0), 1.0)
    beta = np.where(n_rows > 0, (rest - gamma * total) / np.maximum(n_rows, 1.0), 0.0)
    size = np.sqrt((share * gamma**2).sum(1, keepdims=True))
    size = np.where((share * gamma).sum(1, keepdims=True) < 0, -size, size)
    gamma = np.where(n_rows > 0, gamma / np.where(size == 0, 1.0, size), 1.0)
    return gamma, np.where(n_rows > 0, beta - (share * beta).sum(1, keepdims=True), 0.0)


SHARING = {
    "alpha": alpha,
    "independent": independent,
    "offset": offset,
    "scale": scale,
    "shrink": shrink,
}

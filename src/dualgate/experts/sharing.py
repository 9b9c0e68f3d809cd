"""What the experts of neighbouring cells share: one function for each strategy, on sufficient statistics alone.

A strategy receives the statistics of every fold, regime and quality bin and solves ``n_folds + 1`` problems at once:
one without each fold, whose held-out error chooses the penalties and whose models cross-fit the gate's predictions, and
one on all rows, which is used for new rows. A new strategy is a function registered in `SHARING`.
"""

import warnings

import numpy as np
from scipy.linalg import block_diag
from sklearn.exceptions import ConvergenceWarning

from dualgate.experts.ridges import Ridges, errors_of_sets, fit_ridges
from dualgate.statistics import solve_ridge, training_sets

MAX_ROUNDS = 2000  # of alternating least squares; some ten are usual
TOLERANCE = 1e-9  # of the scales and shifts, which are of order one


def independent(folds, alphas, root, *, shrink=False):
    r"""Fit a ridge of its own, with a penalty of its own, in every cell: :math:`w_{ks}`."""
    n_folds, n_regimes, n_bins = folds.count.shape
    parents = root.take(np.zeros(n_regimes, dtype=int))
    regimes = fit_ridges(folds.sum(2), alphas, parents=parents, shrink=shrink)
    if n_bins == 1:
        return regimes
    parents = regimes.take(np.repeat(np.arange(n_regimes), n_bins))
    return fit_ridges(folds.reshape(n_folds, n_regimes * n_bins), alphas, parents=parents, shrink=shrink)


def shrink(folds, alphas, root):
    r"""Pull every cell to its regime and every regime to the root.

    .. math:: \min_{w_{ks}} \lVert y - X w_{ks} \rVert^2 + \alpha_{ks} \lVert w_{ks} - w_k \rVert^2
    """
    return independent(folds, alphas, root, shrink=True)


def offset(folds, alphas, root):
    r"""Add to a regime's ridge an offset that all regimes share: :math:`w_k + \Delta_s`, solved jointly and exactly.

    .. math::
        \min \sum_{ks} \lVert y - b_{ks} - X (w_k + \Delta_s) \rVert^2
        + \alpha \sum_k \lVert w_k \rVert^2 + \beta \sum_s \lVert \Delta_s \rVert^2

    The two penalties are chosen one after the other: alpha with all offsets at zero, then beta. The line of a cell
    passes through its means of x and y, that of an empty cell through its regime's.
    """
    sets = training_sets(folds)
    centred, filled = sets.centred(), sets.count > 0
    (x_mean, y_mean), (regime_x, regime_y) = sets.means(), sets.sum(2).means()
    x_mean = np.where(filled[..., None], x_mean, regime_x[:, :, None])
    y_mean = np.where(filled, y_mean, regime_y[:, :, None])

    def solve(alphas, betas):
        coef = np.stack([solve_offset(*each) for each in zip(*centred, alphas, betas, strict=True)])
        return _fall_back(sets, coef, y_mean - (x_mean * coef).sum(-1), root)

    def choose(values, solve):
        """Value that is best for each training set, of which `solve` takes one each."""
        errors = [_errors(folds, *solve(np.full(len(sets.count), value))).sum((1, 2)) for value in values]
        return np.array(values)[errors_of_sets(np.stack(errors), folds.y_square_sum.sum()).argmin(axis=0)]

    descending = np.sort(alphas)[::-1]  # a tie goes to the stronger penalty
    nothing = np.full(len(sets.count), np.inf)
    alpha = choose(descending, lambda values: solve(values, nothing))
    beta = nothing if folds.count.shape[2] == 1 else choose([np.inf, *descending], lambda values: solve(alpha, values))
    return Ridges.of_cells(*solve(alpha, beta), alpha[-1], folds.count)


def solve_offset(gram, moment, alpha, beta):
    """Solve the joint problem of `offset` for centred sums (n_regimes, n_bins, ...) by eliminating the regimes.

    Returns the coefficients w_k + Delta_s (n_regimes, n_bins, n_features); an infinite `beta` leaves no offset.
    """
    n_regimes, n_bins, width = moment.shape
    regime_gram = gram.sum(1) + alpha * np.eye(width)
    regime_moment = moment.sum(1)
    if np.isinf(beta):
        regime = np.linalg.solve(regime_gram, regime_moment[..., None])[..., 0]
        return np.repeat(regime[:, None], n_bins, axis=1)
    # rows: A_k w_k + sum_s G_ks Delta_s = c_k  and  sum_k G_ks w_k + (sum_k G_ks + beta I) Delta_s = c_s
    coupling = gram.transpose(0, 2, 1, 3).reshape(n_regimes, width, n_bins * width)  # [G_k1 ... G_kS]
    eliminated = np.linalg.solve(regime_gram, np.concatenate([coupling, regime_moment[..., None]], axis=2))
    reduced = np.matmul(coupling.transpose(0, 2, 1), eliminated).sum(0)
    schur = block_diag(*(gram.sum(0) + beta * np.eye(width))) - reduced[:, :-1]
    offsets = np.linalg.solve(schur, moment.sum(0).ravel() - reduced[:, -1])
    regime = eliminated[..., -1] - np.matmul(eliminated[..., :-1], offsets)
    return regime[:, None] + offsets.reshape(n_bins, width)


def alpha(folds, alphas, root):
    r"""Let only the penalty depend on the quality bin: :math:`w_k(\alpha_s)`, a ridge path for each regime.

    .. math:: w_k(\alpha) = \arg\min_w \min_b \lVert y - b - X w \rVert^2 + \alpha \lVert w \rVert^2

    over the rows of all bins of regime k; alpha_s is the penalty with the smallest held-out error in bin s, summed over
    the regimes. The intercept belongs to the ridge, so that the lines of all cells of a regime meet at its means. A bin
    that is empty in all regimes takes the penalty that is best for all bins together.
    """
    sets = training_sets(folds)
    n_bins = folds.count.shape[2]
    descending = np.sort(alphas)[::-1]  # a tie goes to the stronger penalty
    path = (np.repeat(each[:, :, :, None], n_bins, axis=3) for each in sets.sum(2).solve(descending))
    coef, intercept = _fall_back(sets, *path, root)
    errors = _errors(folds, coef, intercept).sum(2)  # (n_alphas, n_folds, n_bins)
    errors = np.where(folds.count.sum((0, 1)) > 0, errors, errors.sum(2, keepdims=True))
    squares = folds.y_square_sum.sum()
    best = np.stack([errors_of_sets(each, squares).argmin(axis=0) for each in np.moveaxis(errors, 2, 0)], axis=1)
    chosen = best[:, None], *np.ogrid[: len(best), : folds.count.shape[1], :n_bins]
    return Ridges.of_cells(coef[chosen], intercept[chosen], descending[best[-1]], folds.count)


def scale(folds, alphas, root):
    r"""Scale and shift a regime's ridge by factors and offsets that all regimes share, about the regime's mean.

    .. math::
        f_{ks}(x) = \gamma_s\, w_k \cdot (x - \bar x_k) + b_k + \beta_s, \qquad
        \min \sum_{ks} \lVert y - f_{ks}(X) \rVert^2 + \alpha \sum_{ks} \pi_s \lVert \gamma_s w_k \rVert^2

    with :math:`\pi_s` the share of rows in bin s. Slopes are scaled about :math:`\bar x_k`, the mean of the regime's
    training rows, so that noise may flatten a regime's line without moving its level, and so that the origin of x does
    not matter. The penalty is on the coefficients of the cells: it is the same for (c gamma, w / c), so that no scale
    avoids it. Two conventions make the solution unique: :math:`\sum_s \pi_s \gamma_s^2 = 1` with
    :math:`\sum_s \pi_s \gamma_s \ge 0`, and :math:`\sum_s \pi_s \beta_s = 0`.

    A bin that is empty in all regimes has gamma = 1 and beta = 0. One alpha is chosen for all cells.
    """
    sets = training_sets(folds)
    means = sets.sum(2).means()[0]
    sums = sets.about(means[:, :, None])
    n_sets, _, n_bins = sets.count.shape
    start, squares = (np.ones((n_sets, n_bins)), np.zeros((n_sets, n_bins))), folds.y_square_sum.sum()
    descending, errors, found = np.sort(alphas)[::-1], [], []  # a tie goes to the stronger penalty
    for value in descending:
        *start, regime, level, settled = solve_scale(sums, value, start)
        coef = start[0][:, None, :, None] * regime[:, :, None]
        intercept = level[:, :, None] + start[1][:, None] - (coef * means[:, :, None]).sum(-1)
        coef, intercept = _fall_back(sets, coef, intercept, root)
        errors.append(_errors(folds, coef, intercept).sum((1, 2)))
        found.append((coef, intercept, settled))
    best = errors_of_sets(np.stack(errors), squares).argmin(axis=0)
    coef, intercept = (np.stack([found[each][part][place] for place, each in enumerate(best)]) for part in (0, 1))
    if not found[best[-1]][2]:
        warnings.warn(
            f"HierarchicalExperts: sharing='scale' did not converge within {MAX_ROUNDS:,} rounds at "
            f"alpha={descending[best[-1]]:g}: its scales are approximate. Use larger alphas or fewer quality bins.",
            ConvergenceWarning,
            stacklevel=2,
        )
    return Ridges.of_cells(coef, intercept, descending[best[-1]], folds.count)


def solve_scale(sums, alpha, start):
    """Solve the joint problem of `scale` by alternating exact least squares, `sums` about each regime's mean.

    Starts from and returns gamma and beta (n_sets, n_bins), then w_k (n_sets, n_regimes, n_features), zero where a
    regime is empty, b_k (n_sets, n_regimes), and whether it converged.
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
    factor = gamma[:, None, :, None]
    n_rows = np.maximum(sums.count.sum(-1), 1.0)
    sum_x = (factor * sums.x_sum).sum(2)
    sum_y = (sums.y_sum - beta[:, None] * sums.count).sum(2)
    cells = sums.gram.reshape(*sums.count.shape, -1)
    square = np.matmul(gamma[:, None, None] ** 2, cells)[:, :, 0].reshape(sums.gram[:, :, 0].shape)
    square -= sum_x[..., :, None] * (sum_x / n_rows[..., None])[..., None, :]
    right = (factor * (sums.moment - beta[:, None, :, None] * sums.x_sum)).sum(2) - sum_x * (sum_y / n_rows)[..., None]
    coef = solve_ridge(square, right, [alpha])[0]
    return coef, (sum_y - (sum_x * coef).sum(-1)) / n_rows


def _bins_given_regimes(sums, alpha, coef, level):
    """Scale and shift of every bin, by least squares in two unknowns, normalised by the conventions of `scale`."""
    n_rows = sums.count.sum(1)
    share = n_rows / n_rows.sum(1, keepdims=True)
    along = coef[:, :, None]
    product = np.matmul(sums.gram, along[..., None])[..., 0]
    square = (product * along).sum((1, 3)) + alpha * share * np.square(coef).sum((1, 2))[:, None]
    line = (sums.x_sum * along).sum(-1)  # of w_k (x - mean), over the rows of a cell
    total = line.sum(1)
    right = (sums.moment * along).sum((1, 3)) - (line * level[..., None]).sum(1)
    rest = (sums.y_sum - sums.count * level[..., None]).sum(1)
    mean_line, mean_rest = (values / np.maximum(n_rows, 1.0) for values in (total, rest))
    centred = square - total * mean_line
    known = centred > 1e-12 * square  # not where a bin is empty, or all coefficients are zero
    gamma = np.where(known, (right - total * mean_rest) / np.where(known, centred, 1.0), 1.0)
    beta = mean_rest - gamma * mean_line
    size = np.copysign(np.sqrt((share * gamma**2).sum(1, keepdims=True)), (share * gamma).sum(1, keepdims=True))
    gamma = np.where(n_rows > 0, gamma / np.where(size == 0, 1.0, size), 1.0)
    return gamma, np.where(n_rows > 0, beta - (share * beta).sum(1, keepdims=True), 0.0)


def _errors(folds, coef, intercept):
    """Squared error of every fold's rows by the models (..., n_folds + 1, n_regimes, n_bins) that did not see them."""
    return folds.squared_error(coef[..., :-1, :, :, :], intercept[..., :-1, :, :])


def _fall_back(sets, coef, intercept, root):
    """Replace the models (..., n_folds + 1, n_regimes, n_bins) of regimes without rows by the root's."""
    nothing = sets.count.sum(2, keepdims=True) == 0
    coef = np.where(nothing[..., None], root.coef[:, :, None], coef)
    return coef, np.where(nothing, root.intercept[:, :, None], intercept)


SHARING = {
    "alpha": alpha,
    "independent": independent,
    "offset": offset,
    "scale": scale,
    "shrink": shrink,
}

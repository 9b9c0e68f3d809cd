"""Linear discriminants: what a row's projected columns say of its regime, and of the target within it."""

from dataclasses import dataclass

import numpy as np

from dualgate.experts.ridges import training_sets

MAX_COLUMNS = 1024  # projected columns up to which discriminants are found


@dataclass(frozen=True, eq=False)
class Discriminants:
    r"""Ridges of the target, of every regime's membership and of the target within every regime.

    With :math:`1_k` the membership of regime k, the targets are :math:`y`, :math:`1_k` and
    :math:`1_k (y - \bar y)`: linear estimates of where a row stands, which a gate learns from more easily than from the
    columns themselves.

    Parameters
    ----------
    coef : ndarray of shape (n_folds + 1, n_discriminants, n_projected)
        Without fold 0, 1, ..., and last on all rows.
    intercept : ndarray of shape (n_folds + 1, n_discriminants)
    """

    coef: np.ndarray
    intercept: np.ndarray

    def __call__(self, projected, folds=None):
        """Discriminants of rows (n_samples, n_discriminants); by `folds`, each row by models that did not see it."""
        if folds is None:
            return projected @ self.coef[-1].T + self.intercept[-1]
        found = np.empty((len(projected), self.coef.shape[1]))
        for fold in range(len(self.coef) - 1):
            rows = folds == fold
            found[rows] = projected[rows] @ self.coef[fold].T + self.intercept[fold]
        return found


def find_discriminants(folds, alpha):
    """Solve for the discriminants from the statistics of every fold, regime and quality bin.

    Parameters
    ----------
    folds : CellStatistics, leading axes (n_folds, n_regimes, n_bins)
    alpha : float
        Penalty, above zero.

    Returns
    -------
    discriminants : Discriminants or None
        None for more than `MAX_COLUMNS` columns.
    """
    width = folds.moment.shape[-1]
    if width > MAX_COLUMNS:
        return None
    n_folds, n_regimes, _ = folds.count.shape
    regimes = training_sets(folds.sum(2).reshape(n_folds, n_regimes))
    whole = regimes.sum(1)
    gram, moment = whole.centred()
    x_mean, y_mean = whole.means()
    step, n_rows = (x_mean - whole.origin)[:, None], np.maximum(whole.count, 1.0)[:, None]
    member = regimes.x_sum - regimes.count[..., None] * step
    slope = regimes.moment - regimes.y_sum[..., None] * step - y_mean[:, None, None] * member
    within = regimes.y_sum - regimes.count * y_mean[:, None]
    moments = np.concatenate([moment[:, None], member, slope], axis=1)
    means = np.hstack([y_mean[:, None], regimes.count / n_rows, within / n_rows])
    coef = np.linalg.solve(gram + alpha * np.eye(width), moments.swapaxes(1, 2)).swapaxes(1, 2)
    return Discriminants(coef, means - np.einsum("fdj,fj->fd", coef, x_mean))

"""Discriminants: estimates of a row's regime, and of the target within it, from its projected columns."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import logsumexp

from dualgate.statistics import training_sets

MAX_COLUMNS = 1024  # projected columns up to which discriminants are found
MIN_VARIANCE = 1e-8  # of a membership, which is between 0 and 1
MIN_LOG = -20.0  # lower bound of the log-probability of a regime


@dataclass(frozen=True, eq=False)
class Discriminants:
    r"""Ridges of the target, of each regime's membership and of the target within each, and Gaussian log-probabilities.

    With :math:`1_k` the membership of regime k, the targets of the ridges are :math:`y`, :math:`1_k` and
    :math:`1_k (y - \bar y)`. Then follow :math:`\log p(k | m)` where the rows of each regime are a Gaussian in the
    estimated memberships m (quadratic discriminants; in the columns themselves they would overfit noise). A
    gate learns more easily from these estimates than from the columns.

    The leading axis of every array, n_folds + 1, holds the models without fold 0, 1, ..., and last that of all rows.

    References
    ----------
    Hastie, Tibshirani & Friedman 2009, The Elements of Statistical Learning, sections 4.2 and 4.3.
    """

    coef: np.ndarray  # (n_folds + 1, n_linear, n_projected)
    intercept: np.ndarray  # (n_folds + 1, n_linear)
    centre: np.ndarray  # (n_folds + 1, n_regimes, n_regimes - 1), mean memberships of each regime
    root: np.ndarray  # (n_folds + 1, n_regimes, n_regimes - 1, n_regimes - 1), inverse Cholesky factors of covariances
    level: np.ndarray  # (n_folds + 1, n_regimes), log(share * det(root)); minus infinity where there are no rows

    def __call__(self, projected, folds=None):
        """Discriminants of rows (n_samples, 3 n_regimes + 1); by `folds`, each row by models that did not see it."""
        if folds is None:
            return self._of(projected, -1)
        found = np.empty((len(projected), self.coef.shape[1] + self.level.shape[1]))
        for fold in range(len(self.coef) - 1):
            rows = folds == fold
            found[rows] = self._of(projected[rows], fold)
        return found

    def in_units(self, unit):
        """Return the same discriminants of columns that are `unit` (n_projected,) times as large."""
        return replace(self, coef=self.coef / unit)

    def _of(self, projected, model):
        projected = np.asarray(projected, dtype=np.float64)
        logs = np.empty((len(projected), self.level.shape[1]))
        linear = projected @ self.coef[model].T + self.intercept[model]
        member = linear[:, 1 : self.level.shape[1]]  # of all regimes but the last, which follows from the others
        for k, (centre, root) in enumerate(zip(self.centre[model], self.root[model], strict=True)):
            logs[:, k] = self.level[model, k] - 0.5 * np.square((member - centre) @ root.T).sum(axis=1)
        logs -= logsumexp(logs, axis=1, keepdims=True)
        return np.hstack([linear, logs.clip(min=MIN_LOG)])


def find_discriminants(folds, alpha):
    """Solve for the discriminants from statistics (n_folds, n_regimes, n_bins); None above `MAX_COLUMNS` columns."""
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
    intercept = means - np.einsum("fdj,fj->fd", coef, x_mean)
    member = slice(1, n_regimes)
    return Discriminants(coef, intercept, *_gaussians(regimes, coef[:, member], intercept[:, member]))


def _gaussians(regimes, coef, intercept):
    """Centre, inverse root of the covariance and level of every regime in the membership ridges.

    Covariances of small regimes are shrunk towards the pooled one.
    """
    width, count = coef.shape[1], regimes.count
    centre = np.einsum("fdj,fkj->fkd", coef, regimes.means()[0]) + intercept[:, None]
    spread = np.matmul(np.matmul(coef[:, None], regimes.centred()[0]), coef[:, None].swapaxes(-1, -2))
    pooled = spread.sum(1, keepdims=True) / np.maximum(count.sum(1), 1.0)[:, None, None, None]
    # `width` rows of the pooled covariance in addition, and a minimal variance in every direction
    covariance = (spread + width * pooled) / np.maximum(count + width, 1.0)[..., None, None]
    root = np.linalg.inv(np.linalg.cholesky(covariance + MIN_VARIANCE * np.eye(width)))
    with np.errstate(divide="ignore"):
        share = np.log(count) - np.log(np.maximum(count.sum(1, keepdims=True), 1.0))
    return centre, root, share + np.log(np.einsum("...ii->...i", root)).sum(-1)

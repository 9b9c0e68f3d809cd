"""What the experts of neighbouring cells share: one function for each strategy, on sufficient statistics alone.

A strategy receives the statistics of every fold, regime and quality bin and solves ``n_folds + 1`` problems at once:
one without each fold, whose held-out error chooses the penalties and whose models cross-fit the gate's predictions, and
one on all rows, which stays. A new strategy is a function registered in `SHARING`.
"""

import numpy as np

from dualgate.experts.noise import noise
from dualgate.experts.ridges import fit_ridges
from dualgate.experts.sharing_joint import alpha, offset, scale


def _regimes_of(folds):
    """Merge the quality bins: leading axes (n_folds, n_regimes)."""
    return folds.sum(2)


def independent(folds, alphas, root, known):
    r"""Fit a ridge of its own, with a penalty of its own, in every cell: :math:`w_{ks}`."""
    n_folds, n_regimes, n_bins = folds.count.shape
    everywhere = np.zeros(n_regimes, dtype=int)
    regimes = fit_ridges(_regimes_of(folds), alphas, parents=root.of_parents(everywhere))
    if n_bins == 1:
        return regimes
    parents = regimes.of_parents(np.repeat(np.arange(n_regimes), n_bins))
    return fit_ridges(folds.reshape(n_folds, n_regimes * n_bins), alphas, parents=parents)


def shrink(folds, alphas, root, known):
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


SHARING = {
    "alpha": alpha,
    "independent": independent,
    "noise": noise,
    "offset": offset,
    "scale": scale,
    "shrink": shrink,
}

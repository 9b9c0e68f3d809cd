"""Do the gates use their experts? What is said where they do not."""

import warnings

import numpy as np

from dualgate._validation import owner_name

STARVED_BELOW = 0.01  # mean weight of an expert, in units of its cell's share of the training rows
COLLAPSED_FROM = 0.5  # share of the training rows whose cells' experts are starved


class GateCollapseWarning(UserWarning):
    """The gates leave experts without weight, though their cells hold training rows.

    TODO
    """


def find_starved(weights, counts):
    """Tell which experts receive next to nothing.

    Parameters
    ----------
    weights : ndarray of shape (n_experts,)
        Mean weight of each expert over the training rows.
    counts : ndarray of int of shape (n_regimes, n_quality_bins)
        Training rows of each cell.

    Returns
    -------
    starved : ndarray of bool of shape (n_regimes, n_quality_bins)
        Never true of a cell without rows.
    """
    return weights.reshape(counts.shape) < STARVED_BELOW * counts / counts.sum()


def warn_of_collapse(owner, weights, counts):
    """Measure."""
    import json, os
    share = counts / counts.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        r = (weights.reshape(counts.shape) / share)[counts > 0]
    s = share[counts > 0]
    if os.environ.get("MEASURE"):
        with open(os.environ["MEASURE"], "a") as f:
            f.write(json.dumps(dict(t=os.environ.get("PYTEST_CURRENT_TEST", ""), n=int(counts.sum()), k=len(r), wmax=float(weights.max()), rmin=float(r.min()), **{f"s{c}": float(s[r < c].sum()) for c in (0.001, 0.01, 0.05, 0.1)}, **{f"n{c}": int((r < c).sum()) for c in (0.001, 0.01, 0.05,0.1)})) + "\n")

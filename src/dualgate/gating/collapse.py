"""Do the gates use their experts? What is said where they do not."""

import warnings

import numpy as np

from dualgate._validation import owner_name

# Healthy fits leave experts with less than a hundredth (regimes that were found and are alike share one expert among
# them, a quality tower alone cannot tell regimes), but hardly a tenth of the rows with less than a thousandth.
STARVED_BELOW = 1e-3  # mean weight of an expert, in units of its cell's share of the training rows
COLLAPSED_FROM = 0.25  # share of the training rows whose own expert is starved
MAX_NAMED = 6  # experts that the warning names before it stops


class GateCollapseWarning(UserWarning):
    """The gates leave experts without weight, though their cells hold training rows.

    It comes after the gates of a `DualTowerMoERegressor` were trained, when the cells of all starved experts together
    hold a quarter of the training rows or more, and names these experts. Starved is an expert whose mean weight over
    the training rows of the gates is less than a thousandth of its cell's share of the rows; a few of them are common
    and cost nothing where neighbours do as well. Then one or a few experts answer nearly all rows. A smaller `lr` or
    more `warmup_epochs`, an `entropy_penalty` that is smaller or below zero, features that tell the regimes, or fewer
    regimes are what to try; silence it with ``warnings.simplefilter("ignore", GateCollapseWarning)``.
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

    Examples
    --------
    >>> find_starved(np.array([0.9999, 0.0001, 0.0]), np.array([[50], [50], [0]])).ravel()
    array([False,  True, False])
    """
    return weights.reshape(counts.shape) < STARVED_BELOW * counts / counts.sum()


def warn_of_collapse(owner, weights, counts):
    """Warn if the cells of starved experts hold many of the training rows; parameters as in `find_starved`."""
    starved = find_starved(weights, counts)
    share = counts[starved].sum() / counts.sum()
    if share < COLLAPSED_FROM:
        return
    names = [f"regime {k}" + (f" in quality bin {s}" if counts.shape[1] > 1 else "") for k, s in np.argwhere(starved)]
    warnings.warn(
        f"{owner_name(owner)}: the gates leave {len(names)} of {counts.size} experts without weight, whose cells hold "
        f"{share:.0%} of the training rows: {', '.join(names[:MAX_NAMED])}{', ...' if len(names) > MAX_NAMED else ''}. "
        "Try a smaller lr, more warmup_epochs, a smaller entropy_penalty, other gate features, or fewer regimes.",
        GateCollapseWarning,
        stacklevel=4,
    )

"""Experts that the gates do not use, and the warning about them."""

import warnings

import numpy as np

from dualgate._validation import owner_name

# In healthy fits some experts have less than a hundredth (similar regimes that were found share one expert, a quality
# tower alone cannot tell regimes apart), but hardly a tenth of the rows belong to experts with less than a thousandth.
STARVED_BELOW = 1e-3  # mean weight of an expert, in units of its cell's share of the training rows
COLLAPSED_FROM = 0.25  # share of the training rows whose own expert is starved
MAX_NAMED = 6  # experts that the warning names at most


class GateCollapseWarning(UserWarning):
    """The gates give experts no weight, though the cells of these experts hold training rows.

    An expert is starved if its mean weight over the training rows is less than a thousandth of its cell's share of the
    rows. A few starved experts are common and harmless where neighbouring experts predict as well. The warning is given
    after the gates of a `DualTowerMoERegressor` are trained if the cells of starved experts together hold a quarter of
    the training rows or more; then a few experts predict nearly all rows. It names the starved experts. Try a smaller
    `lr`, more `warmup_epochs`, an `entropy_penalty` that is smaller or negative, features that separate the regimes, or
    fewer regimes; silence it with ``warnings.simplefilter("ignore", GateCollapseWarning)``.
    """


def find_starved(weights, counts):
    """Find experts whose mean weight (n_experts,) is low for the row counts of their cells (n_regimes, n_quality_bins).

    Cells without rows are never starved.

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

"""Experts that the gates do not use, and the warning about them."""

import warnings

from dualgate._validation import name_cells, owner_name

# in healthy fits some experts have less than a hundredth (similar regimes that were found share one expert, a quality
# tower alone cannot tell regimes apart), but hardly a tenth of the rows belong to experts with less than a thousandth
STARVED_BELOW = 1e-3  # mean weight of an expert, in units of its cell's share of the training rows
COLLAPSED_FROM = 0.25  # share of the training rows whose own expert is starved


class GateCollapseWarning(UserWarning):
    """The gates give experts no weight, though the cells of these experts hold training rows.

    An expert is starved if its mean weight over the training rows is less than a thousandth of its cell's share of the
    rows. A few starved experts are common and harmless where neighbouring experts predict as well. The warning is given
    after the gates of a `DualTowerMoERegressor` are trained if the cells of starved experts together hold a quarter of
    the training rows or more; then a few experts predict nearly all rows. It names the starved experts. Try a smaller
    `lr`, more `warmup_epochs`, an `entropy_penalty` that is smaller or negative, features that separate the regimes, or
    fewer regimes; silence it with ``warnings.simplefilter("ignore", GateCollapseWarning)``.
    """


def warn_of_collapse(owner, weights, counts):
    """Warn if experts of low mean weight (n_experts,) have cells with many rows, `counts` (n_regimes, n_bins)."""
    starved = weights.reshape(counts.shape) < STARVED_BELOW * counts / counts.sum()  # never a cell without rows
    share = counts[starved].sum() / counts.sum()
    if share >= COLLAPSED_FROM:
        warnings.warn(
            f"{owner_name(owner)}: the gates leave {starved.sum()} of {counts.size} experts without weight, whose "
            f"cells hold {share:.0%} of the training rows: {name_cells(starved)}. Try a smaller lr, more "
            "warmup_epochs, a smaller entropy_penalty, other gate features, or fewer regimes.",
            GateCollapseWarning,
            stacklevel=4,
        )

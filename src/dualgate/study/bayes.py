"""The share of the Bayes limit that methods reach, from the posteriors of some test rows."""

import math
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from sklearn.metrics import r2_score

from dualgate.evaluation import SNR_NAMES, Interval, percentile_interval
from dualgate.evaluation.resampling import weight_blocks
from dualgate.study.runner import SeedRecord
from dualgate.study.scoring import StudyScores, bins_of


def bayes_share(records: Sequence[SeedRecord], scores: StudyScores) -> dict | None:
    """Pool the Bayes limit over seeds, and find the share of it that every method reaches; None where it is not known.

    The limit's expected R^2, 1 - mean posterior variance / prior variance, scatters less than the R^2 that the
    posterior means have on the same few rows. Nothing is trained for it, so that its rows are all that scatters.

    Parameters
    ----------
    records : sequence of SeedRecord
    scores : StudyScores

    Returns
    -------
    found : dict or None
        `limit`: `rows`, `r2`, `r2_by_snr` and `observed`, the R^2 of the posterior means; `shares`: Interval by method.
    """
    if any(record.limit is None for record in records):
        return None
    rows = [int(record.limit["rows"]) for record in records]
    left = np.concatenate(
        [np.square(record.limit["std"]) / float(record.limit["prior_variance"]) for record in records]
    )
    codes = np.concatenate(
        [np.full(n, -1) if record.snr is None else bins_of(record)[:n] for record, n in zip(records, rows, strict=True)]
    )
    n_resamples = scores.tables[0].draws["r2"].shape[-1]
    weights = np.concatenate(list(weight_blocks(len(left), n_resamples, [record.seed for record in records])))
    r2 = known_share(left, np.ones(len(left), dtype=bool), weights)
    observed = [r2_score(record.y[:n], record.limit["prediction"]) for record, n in zip(records, rows, strict=True)]
    limit = {
        "rows": len(left),
        "r2": asdict(r2),
        "r2_by_snr": {name: asdict(known_share(left, codes == code, weights)) for code, name in enumerate(SNR_NAMES)},
        "observed": float(np.mean(observed)),
    }
    return {"limit": limit, "shares": {name: ratio(scores.r2(name), r2) for name in scores.names}}


def known_share(left, members, weights) -> Interval:
    """One less the mean of `left` over the members, with its interval over the resamples `weights`."""
    if not members.any():
        return Interval(math.nan, math.nan, math.nan)
    size = weights[:, members].sum(axis=1)
    draws = np.divide(weights[:, members] @ left[members], size, where=size > 0, out=np.full(len(size), math.nan))
    return percentile_interval(1 - left[members].mean(), 1 - draws)


def ratio(part: Interval, whole: Interval) -> Interval:
    """Ratio of two independent numbers above zero; their relative errors add up in squares.

    Examples
    --------
    >>> print(ratio(Interval(0.4, 0.37, 0.43), Interval(0.5, 0.45, 0.55)))
    +0.800 [+0.700, +0.900]
    """
    value = part.value / whole.value
    below = math.hypot(part.value - part.low, value * (whole.high - whole.value)) / whole.value
    above = math.hypot(part.high - part.value, value * (whole.value - whole.low)) / whole.value
    return Interval(value, value - below, value + above, part.confidence)

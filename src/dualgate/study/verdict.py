"""What the numbers decide: intervals over seeds and rows, and the three verdicts."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import sem, t

from dualgate.evaluation import Interval
from dualgate.study.config import Thresholds

CONTINUE, MARGINAL, FALL_BACK = "continue", "marginal", "fall back to one tower"


@dataclass(frozen=True)
class Decision:
    """One of the three verdicts, and why.

    Parameters
    ----------
    verdict : str
        `CONTINUE`, `MARGINAL` or `FALL_BACK`.
    reason : str
        The comparison that decided, in words.
    """

    verdict: str
    reason: str


def decide(gain: Interval, thresholds: Thresholds | None = None) -> Decision:
    """Verdict on a gain of R^2 over the best single tower.

    Continue when the gain is at least 0.01 and its interval lies above zero; marginal when it is at least 0.005 and
    its interval lies above zero (or what the thresholds say); otherwise fall back to one tower. A gain that cannot be
    told from zero does not pay for a second tower, however large its estimate, and the reason then says that it was
    not shown rather than that it is absent.

    Parameters
    ----------
    gain : Interval, [dimensionless]
        R^2 of the dual model minus R^2 of the best single tower.
    thresholds : Thresholds, default=None
        Its `continue_` and `marginal` are used; None is `Thresholds()`.

    Returns
    -------
    decision : Decision

    Examples
    --------
    >>> decide(Interval(0.05, 0.03, 0.07)).verdict
    'continue'
    >>> decide(Interval(0.007, 0.002, 0.012)).verdict
    'marginal'
    >>> decide(Interval(0.05, -0.01, 0.11)).verdict
    'fall back to one tower'
    """
    bars = thresholds or Thresholds()
    if not math.isfinite(gain.value):
        return Decision(FALL_BACK, "the gain could not be measured")
    if gain.value < bars.marginal:
        return Decision(FALL_BACK, f"the gain is below {bars.marginal:+}")
    if not gain.low > 0:
        return Decision(
            FALL_BACK,
            "the interval reaches zero, so that a gain is not shown; more rows or seeds would narrow it",
        )
    if gain.value < bars.continue_:
        return Decision(MARGINAL, f"the interval lies above zero, but the gain is below {bars.continue_:+}")
    return Decision(CONTINUE, f"the interval lies above zero and the gain is at least {bars.continue_:+}")


def seed_interval(values, draws, *, confidence: float = 0.95) -> Interval:
    """Mean over seeds with an interval that knows test rows and seeds: the wider of two.

    Every seed has rows, a split and a fit of its own, so that the values of several seeds are independent
    draws of one number and the t-interval of their mean holds all there is: test rows, training rows and
    initial weights. With three seeds its width is itself a matter of luck, and seeds that happen to agree
    would feign precision. So the interval is never narrower than the bootstrap over test rows of the mean
    of the seeds. With one seed that bootstrap stands alone, and the scatter of fits is not in it.

    Parameters
    ----------
    values : array-like of shape (n_seeds,)
        The number in every seed; seeds where it is NaN are left out.
    draws : array-like of shape (n_seeds, n_resamples)
        The number in every bootstrap resample of every seed's test rows.
    confidence : float, default=0.95
        Coverage that the interval aims at, between 0 and 1.

    Returns
    -------
    interval : Interval
        NaN throughout where no seed has the number.

    References
    ----------
    Davison, A., & Hinkley, D. (1997). Bootstrap methods and their application. Cambridge, section 3.8
    (hierarchical data).

    Examples
    --------
    >>> print(seed_interval([0.1, 0.2, 0.3], [[0.1, 0.1], [0.2, 0.2], [0.3, 0.3]]))
    +0.200 [-0.048, +0.448]
    """
    values, draws = np.asarray(values, dtype=float), np.asarray(draws, dtype=float)
    known = np.isfinite(values)
    if not known.any():
        return Interval(float("nan"), float("nan"), float("nan"), confidence)
    values, means = values[known], draws[known].mean(axis=0)
    tail = (1 - confidence) / 2
    value = values.mean()
    means = means[np.isfinite(means)]
    low, high = np.quantile(means, [tail, 1 - tail]) if len(means) else (np.nan, np.nan)
    if len(values) > 1:
        half = t.ppf(1 - tail, len(values) - 1) * sem(values)
        low, high = min(low, value - half), max(high, value + half)
    return Interval(float(value), float(low), float(high), confidence)

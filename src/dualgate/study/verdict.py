"""What the numbers decide: intervals over seeds and rows, and the three verdicts."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.stats import sem, t

from dualgate.evaluation import Interval
from dualgate.study.config import Thresholds

PASS, MARGINAL, FAIL = "pass", "marginal", "fail"
LADDER = (FAIL, MARGINAL, PASS)


@dataclass(frozen=True)
class Decision:
    """One of the three verdicts, and why.

    Parameters
    ----------
    verdict : str
        `PASS`, `MARGINAL` or `FAIL`.
    reason : str
        The comparison that decided, in words.
    """

    verdict: str
    reason: str


def judge(found: Interval, bar: float, *, zero: float | None = 0.0) -> Decision:
    """Verdict on a number that should reach a bar; the interval decides, never the estimate alone.

    Pass where the whole interval is at or above the bar. Fail where the whole interval is below it, and where a gain is
    not shown, that is where the interval reaches down to zero. Marginal in between: a gain, but the bar lies within
    the interval.

    Parameters
    ----------
    found : Interval
    bar : float, [unit of the number]
        What is asked for.
    zero : float, default=0.0
        What the number is without any effect; None where there is no such value, and then an interval that holds the
        bar is marginal.

    Returns
    -------
    decision : Decision

    Examples
    --------
    >>> judge(Interval(0.03, 0.02, 0.04), 0.01).verdict, judge(Interval(0.03, 0.005, 0.055), 0.01).verdict
    ('pass', 'marginal')
    >>> judge(Interval(0.03, -0.01, 0.07), 0.01).reason
    'the interval includes zero: a gain is not shown, more rows or seeds would narrow it'
    """
    if not all(map(math.isfinite, (found.value, found.low, found.high))):
        return Decision(FAIL, "it could not be measured")
    asked = f"{bar:+g}" if zero == 0 else f"{bar:g}"
    if found.low >= bar:
        return Decision(PASS, f"the whole interval is at or above {asked}")
    if found.high < bar:
        return Decision(FAIL, f"the whole interval is below {asked}")
    if zero is not None and not found.low > zero:
        where = "zero" if zero == 0 else f"{zero:g}"
        return Decision(FAIL, f"the interval includes {where}: a gain is not shown, more rows or seeds would narrow it")
    return Decision(
        MARGINAL, f"the interval includes {asked}" + (": a gain is shown, its size is not" if zero == 0 else "")
    )


def decide(gain: Interval, thresholds: Thresholds | None = None) -> Decision:
    """Verdict on a gain of R^2 over the best single tower, against `continue_` of the thresholds.

    Parameters
    ----------
    gain : Interval, [dimensionless]
        R^2 of the dual model minus R^2 of the best single tower.
    thresholds : Thresholds, default=None
        None is `Thresholds()`.

    Returns
    -------
    decision : Decision
        Of :func:`judge`.

    Examples
    --------
    >>> decide(Interval(0.05, 0.03, 0.07)).verdict
    'pass'
    >>> decide(Interval(0.05, -0.01, 0.11)).verdict
    'fail'
    """
    return judge(gain, (thresholds or Thresholds()).continue_)


def weakest(verdicts: Iterable[str]) -> str:
    """Return the lowest of some verdicts.

    Examples
    --------
    >>> weakest([PASS, MARGINAL])
    'marginal'
    """
    return min(verdicts, key=LADDER.index)


def strongest(verdicts: Iterable[str]) -> str:
    """Return the highest of some verdicts."""
    return max(verdicts, key=LADDER.index)


def seed_interval(values, draws, *, confidence: float = 0.95) -> Interval:
    """Mean over seeds with an interval that knows test rows and seeds: the wider of two.

    Every seed has rows, a split and a fit of its own, so that the values of several seeds are independent
    draws of one number and the t-interval of their mean holds all there is: test rows, training rows and
    initial weights. With three seeds its width is itself a matter of luck, and seeds that happen to agree
    would feign precision. So the interval is never narrower than the bootstrap over test rows of the mean
    of the seeds. With one seed that bootstrap stands alone, and the scatter of fits is not in it. Seeds that
    divide one table share its rows and are less independent than that; of more than a handful the interval is too
    narrow.

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
    means = means[np.isfinite(means)]
    low, high = np.quantile(means, [tail, 1 - tail]) if len(means) else (np.nan, np.nan)
    return _widened(values, low, high, confidence)


def pool_intervals(intervals: Iterable[Interval]) -> Interval:
    """Mean over seeds of a number that comes with an interval in each: the wider of two, as in :func:`seed_interval`.

    In place of the bootstrap stand the half widths of the seeds, which add up as independent errors do.

    Parameters
    ----------
    intervals : iterable of Interval
        One a seed; those with NaN are left out.

    Returns
    -------
    interval : Interval

    Examples
    --------
    >>> print(pool_intervals([Interval(0.1, 0.0, 0.2), Interval(0.1, 0.0, 0.2), Interval(0.1, 0.0, 0.2)]))
    +0.100 [+0.042, +0.158]
    """
    known = [each for each in intervals if math.isfinite(each.value)]
    if not known:
        return Interval(float("nan"), float("nan"), float("nan"))
    values = np.array([each.value for each in known])
    below, above = (
        math.sqrt(sum(reach**2 for reach in reaches)) / len(known)
        for reaches in ([each.value - each.low for each in known], [each.high - each.value for each in known])
    )
    return _widened(values, values.mean() - below, values.mean() + above, known[0].confidence)


def _widened(values, low, high, confidence):
    """Interval about the mean of the seeds' values, no narrower than Student's."""
    value = values.mean()
    if len(values) > 1:
        half = t.ppf((1 + confidence) / 2, len(values) - 1) * sem(values)
        low, high = min(low, value - half), max(high, value + half)
    return Interval(float(value), float(low), float(high), confidence)

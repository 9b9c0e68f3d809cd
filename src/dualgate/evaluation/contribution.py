"""Which tower brings what: Shapley values of R^2, and what is lost when a tower's features are shuffled."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from dualgate.evaluation._checks import same_rows
from dualgate.evaluation.resampling import Interval, percentile_interval, weight_blocks
from dualgate.evaluation.scores import ALL_ROWS, ScoreTable, bootstrap_scores


@dataclass(frozen=True)
class TowerShares:
    """What each tower adds to a score, so that both shares make up the whole gain.

    Parameters
    ----------
    phys, quality : Interval, [unit of the score]
        Shapley value of the physics and of the quality tower.
    total : Interval, [unit of the score]
        Gain of both towers over none, ``phys + quality``.
    interaction : Interval, [unit of the score]
        Gain of both less the gains of each alone: positive where the towers help each other, negative where they
        know the same.
    """

    phys: Interval
    quality: Interval
    total: Interval
    interaction: Interval


def shapley_values(none: ArrayLike, phys: ArrayLike, quality: ArrayLike, both: ArrayLike) -> dict[str, np.ndarray]:
    r"""Split the gain of two towers between them, for single scores or arrays of draws.

    .. math:: \phi_{phys} = \tfrac12 [(v_{phys} - v_{none}) + (v_{both} - v_{quality})]

    and alike for quality: what a tower adds, averaged over the two orders in which the towers may join.

    Parameters
    ----------
    none, phys, quality, both : array-like of one shape, [unit of the score]
        Score with no tower, with one alone and with both; larger is better.

    Returns
    -------
    shares : dict of str to ndarray of that shape, [unit of the score]
        "phys", "quality", "total" and "interaction" as in :class:`TowerShares`.

    References
    ----------
    Shapley, L. S. (1953). A value for n-person games. Contributions to the Theory of Games II, Princeton, 307.

    Examples
    --------
    >>> {name: round(float(share), 3) for name, share in shapley_values(0.3, 0.5, 0.3, 0.55).items()}
    {'phys': 0.225, 'quality': 0.025, 'total': 0.25, 'interaction': 0.05}
    """
    none, phys, quality, both = (np.asarray(score, dtype=float) for score in (none, phys, quality, both))
    return {
        "phys": ((phys - none) + (both - quality)) / 2,
        "quality": ((quality - none) + (both - phys)) / 2,
        "total": both - none,
        "interaction": both - phys - quality + none,
    }


def shapley_towers(
    y_true: ArrayLike,
    none: ArrayLike,
    phys: ArrayLike,
    quality: ArrayLike,
    both: ArrayLike,
    *,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    random_state=None,
) -> TowerShares:
    """Shapley value of R^2 of each tower, from four predictions of the same rows.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,), [unit of y]
        Observed targets.
    none : array-like of shape (n_samples,), [unit of y]
        Prediction without a tower, such as the global ridge or experts under fixed weights.
    phys, quality : array-like of shape (n_samples,), [unit of y]
        Predictions with one tower alone.
    both : array-like of shape (n_samples,), [unit of y]
        Prediction with both towers.
    n_resamples : int, default=1000
        Bootstrap resamples of the rows, the same for all four.
    confidence : float, default=0.95
        Coverage of the percentile intervals, between 0 and 1.
    random_state : int, SeedSequence or Generator, default=None
        Passed to :func:`numpy.random.default_rng`.

    Returns
    -------
    shares : TowerShares, [dimensionless]

    Raises
    ------
    ValueError
        If the numbers of rows differ, a value is not finite or `confidence` is outside 0 to 1.

    Examples
    --------
    >>> y, guess = [0.0, 1.0, 2.0, 3.0], [1.0, 1.0, 2.0, 2.0]
    >>> shares = shapley_towers(y, [1.5] * 4, guess, [1.5] * 4, guess, random_state=0)
    >>> round(shares.phys.value, 3), shares.quality.value
    (0.6, 0.0)
    """
    predictions = {"none": none, "phys": phys, "quality": quality, "both": both}
    table = bootstrap_scores(y_true, predictions, n_resamples=n_resamples, random_state=random_state)
    values, draws = shapley_samples(table, **{name: name for name in predictions})
    return TowerShares(**{name: percentile_interval(values[name], draws[name], confidence) for name in values})


def shapley_samples(table: ScoreTable, none: str, phys: str, quality: str, both: str, *, part: str = ALL_ROWS):
    """Shapley values of R^2 from a table of scores, and their draws: in any slice, and to be pooled over seeds.

    Parameters
    ----------
    table : ScoreTable
        From :func:`bootstrap_scores`.
    none, phys, quality, both : str
        Names of the four predictions in it.
    part : str, default="all"
        Which slice.

    Returns
    -------
    values : dict of str to float, [dimensionless]
        "phys", "quality", "total" and "interaction".
    draws : dict of str to ndarray of shape (n_resamples,), [dimensionless]

    Examples
    --------
    >>> guesses = {"ridge": [1.5] * 4, "p": [1.0, 1.0, 2.0, 2.0], "q": [1.5] * 4, "pq": [0.0, 1.0, 2.0, 3.0]}
    >>> table = bootstrap_scores([0.0, 1.0, 2.0, 3.0], guesses, random_state=0)
    >>> values, draws = shapley_samples(table, "ridge", "p", "q", "pq")
    >>> {name: round(value, 3) for name, value in values.items()}
    {'phys': 0.8, 'quality': 0.2, 'total': 1.0, 'interaction': 0.4}
    """
    four = [table.sample("r2", name, part) for name in (none, phys, quality, both)]
    values = {name: float(share) for name, share in shapley_values(*(value for value, _ in four)).items()}
    return values, shapley_values(*(draws for _, draws in four))


@dataclass(frozen=True)
class PermutationContribution:
    """What R^2 loses when one tower reads the features of other rows.

    Parameters
    ----------
    phys, quality : Interval, [dimensionless]
        Loss of R^2 with the physics and with the quality tower's features shuffled; 0 for a tower that is ignored.
    both : Interval, [dimensionless]
        Loss with both shuffled, by the same permutation.
    """

    phys: Interval
    quality: Interval
    both: Interval


def permutation_contribution(
    predict: Callable,
    phys_features: ArrayLike,
    quality_features: ArrayLike,
    y_true: ArrayLike,
    *,
    n_repeats: int = 20,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    random_state=None,
) -> PermutationContribution:
    """Permutation importance of each tower: its features are shuffled among rows, all columns together.

    What the experts see stays in place: `predict` holds it. The intervals know the test rows and the shuffles: in a
    resample, a row that was given the features of another counts as often as both of them do. A model is judged here
    on combinations of features that no row has; :func:`shapley_towers` asks models trained without the tower instead.

    Parameters
    ----------
    predict : callable
        ``predict(phys_features, quality_features)`` returns predictions (n_samples,), row by row.
    phys_features, quality_features : array-like of shape (n_samples, n_features), [any units]
        What each tower reads, such as `trace.phys_features` and `trace.quality_features`.
    y_true : array-like of shape (n_samples,), [unit of y]
        Observed targets.
    n_repeats : int, default=20
        Shuffles of each tower, at least 2.
    n_resamples : int, default=1000
        Bootstrap resamples.
    confidence : float, default=0.95
        Coverage of the percentile intervals, between 0 and 1.
    random_state : int, SeedSequence or Generator, default=None
        Passed to :func:`numpy.random.default_rng`.

    Returns
    -------
    contribution : PermutationContribution

    Raises
    ------
    ValueError
        If the numbers of rows differ, a prediction is not finite or there are fewer than two repeats.

    References
    ----------
    Breiman, L. (2001). Random forests. Machine Learning 45, 5.

    Examples
    --------
    >>> def predict(phys, quality):
    ...     return phys[:, 0]
    >>> y = np.arange(10.0)
    >>> found = permutation_contribution(predict, y[:, None], np.ones((10, 1)), y, random_state=0)
    >>> found.phys.low > 0, found.quality.value
    (True, 0.0)
    """
    phys, quality, y = np.asarray(phys_features), np.asarray(quality_features), np.asarray(y_true, dtype=float)
    if len(phys) != len(y) or len(quality) != len(y):
        raise ValueError(
            f"permutation_contribution.phys_features has {len(phys)} rows, quality_features {len(quality)} and y_true "
            f"{len(y)}: all must describe the same rows."
        )
    if n_repeats < 2:
        raise ValueError(f"permutation_contribution.n_repeats={n_repeats} must be at least 2. Try 20.")
    rng = np.random.default_rng(random_state)
    orders = [rng.permutation(len(y)) for _ in range(n_repeats)]
    names = ["predict(phys, quality)", *(f"predict of shuffle {repeat}" for repeat in range(n_repeats))]
    y, guess = same_rows(y_true=y, **{names[0]: predict(phys, quality)})
    losses = []  # squared errors after a shuffle less those before, (n_samples, 3)
    for name, order in zip(names[1:], orders, strict=True):
        inputs = [(phys[order], quality), (phys, quality[order]), (phys[order], quality[order])]
        _, *shuffled = same_rows(y_true=y, **{f"{name}, {part}": predict(*both) for part, both in enumerate(inputs)})
        losses.append(np.square(y[:, None] - np.stack(shuffled, axis=1)) - np.square(y - guess)[:, None])
    values = np.mean(losses, axis=(0, 1)) / y.var()
    blocks = weight_blocks(len(y), n_resamples, rng)
    draws = np.concatenate([_resampled_losses(y, losses, orders, weights) for weights in blocks])
    return PermutationContribution(
        *(percentile_interval(value, ends, confidence) for value, ends in zip(values, draws.T, strict=True))
    )


def _resampled_losses(y, losses, orders, weights):
    """Loss of R^2 in every resample (n_resamples, 3): a shuffled row counts as often as both rows it is made of."""
    lost, total = np.zeros((len(weights), 3)), np.zeros((len(weights), 1))
    for loss, order in zip(losses, orders, strict=True):
        pairs = weights * np.take(weights, order, axis=1)
        lost += pairs @ loss
        total += pairs.sum(axis=1, keepdims=True)
    first, second = weights @ np.column_stack([y - y.mean(), np.square(y - y.mean())]).T[..., None] / len(y)
    with np.errstate(divide="ignore", invalid="ignore"):  # a handful of rows may draw one row only: no spread, NaN
        return lost / total / (second - first**2)

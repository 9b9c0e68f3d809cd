"""What each tower contributes: Shapley values, permutation importance and the correlation of the towers."""

from collections.abc import Callable
from numbers import Integral

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_consistent_length

from dualgate._validation import check_number
from dualgate.evaluation.scores import Estimate, Interval, check_finite, same_rows, weight_blocks


def shapley_values(none, phys, quality, both) -> dict:
    r"""Split the gain of two towers between them.

    .. math:: \phi_{phys} = \tfrac12 [(v_{phys} - v_{none}) + (v_{both} - v_{quality})]

    and alike for quality: what a tower adds, averaged over the two orders in which the towers may join.

    Parameters
    ----------
    none, phys, quality, both : float, ndarray or Estimate, [unit of the score]
        Score with no tower, with one alone and with both; larger is better. Estimates come from
        :meth:`ScoreTable.estimate`, and the shares have intervals then.

    Returns
    -------
    shares : dict of str to the same kind, [unit of the score]
        "phys" and "quality", which add up to "total", the gain of both towers over none; and "interaction", the gain
        of both less the gains of each alone: negative where the towers carry the same information.

    References
    ----------
    Shapley, L. S. (1953). A value for n-person games. Contributions to the Theory of Games II, Princeton, 307.

    Examples
    --------
    >>> {name: round(share, 3) for name, share in shapley_values(0.3, 0.5, 0.3, 0.55).items()}
    {'phys': 0.225, 'quality': 0.025, 'total': 0.25, 'interaction': 0.05}
    """
    return {
        "phys": ((phys - none) + (both - quality)) / 2,
        "quality": ((quality - none) + (both - phys)) / 2,
        "total": both - none,
        "interaction": both - phys - quality + none,
    }


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
) -> dict[str, Interval]:
    """Permutation importance of each tower: its features are shuffled among rows, all columns together.

    The experts' predictions stay in place: `predict` holds them. The intervals include the scatter of test rows and of
    shuffles: in a resample, a row that was given the features of another counts as often as both of them do. The model
    is scored on combinations of features that no row has; :func:`shapley_values` compares models trained without the
    tower instead. A ValueError is raised where the numbers of rows differ or a prediction is not finite.

    Parameters
    ----------
    predict : callable
        ``predict(phys_features, quality_features)`` returns predictions (n_samples,), row by row.
    phys_features, quality_features : array-like of shape (n_samples, n_features), [any units]
        Input of each tower, such as `trace.phys_features` and `trace.quality_features`.
    y_true : array-like of shape (n_samples,), [unit of y]
        Observed targets.
    n_repeats : int, default=20
        Shuffles of each tower, at least 2.
    n_resamples, random_state : default=1000 and None
        As in :func:`bootstrap_weights`.
    confidence : float, default=0.95
        Coverage of the percentile intervals, between 0 and 1.

    Returns
    -------
    losses : dict of str to Interval, [dimensionless]
        Loss of R^2 with the features of "phys", of "quality" and, by the same permutation, of "both" towers shuffled;
        0 for a tower that is ignored.

    References
    ----------
    Breiman, L. (2001). Random forests. Machine Learning 45, 5.

    Examples
    --------
    >>> def predict(phys, quality):
    ...     return phys[:, 0]
    >>> y = np.arange(10.0)
    >>> losses = permutation_contribution(predict, y[:, None], np.ones((10, 1)), y, random_state=0)
    >>> losses["phys"].low > 0, losses["quality"].value
    (True, 0.0)
    """
    phys, quality, y = np.asarray(phys_features), np.asarray(quality_features), np.asarray(y_true, dtype=float)
    check_consistent_length(phys, quality, y)
    check_number("permutation_contribution", "n_repeats", n_repeats, kind=Integral, low=2, hint="try 20.")
    rng = np.random.default_rng(random_state)
    orders = [rng.permutation(len(y)) for _ in range(n_repeats)]

    def squares(*features):
        return np.square(np.subtract(*same_rows(y_true=y, **{"predict(phys, quality)": predict(*features)})))

    before = squares(phys, quality)
    losses = []  # squared errors after a shuffle less those before, (n_samples, 3)
    for order in orders:
        shuffled = (phys[order], quality), (phys, quality[order]), (phys[order], quality[order])
        losses.append(np.stack([squares(*features) - before for features in shuffled], axis=1))
    values = np.mean(losses, axis=(0, 1)) / y.var()
    blocks = weight_blocks(len(y), n_resamples, rng)
    draws = np.concatenate([_resampled_losses(y, losses, orders, weights) for weights in blocks])
    return {
        part: Estimate(value, ends).interval(confidence)
        for part, value, ends in zip(("phys", "quality", "both"), values, draws.T, strict=True)
    }


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


def tower_correlation(phys: ArrayLike, quality: ArrayLike) -> float:
    r"""Linear similarity of two towers' outputs, whatever their widths: the RV coefficient.

    .. math:: RV = \|A^T B\|_F^2 / (\|A^T A\|_F \, \|B^T B\|_F)

    with A and B the outputs less their column means. For towers of width one it is the squared correlation. A
    common offset of a row's logits changes no weight; pass softmax weights where it should not count. A ValueError is
    raised where the two differ in rows, are not 2-D or hold a value that is not finite.

    Parameters
    ----------
    phys : array-like of shape (n_samples, n_phys_outputs)
        Outputs of the physics tower, such as `trace.phys_logits`.
    quality : array-like of shape (n_samples, n_quality_outputs)
        Outputs of the quality tower for the same rows.

    Returns
    -------
    similarity : float, [dimensionless]
        0 for towers that share no linear direction, 1 for outputs equal up to a rotation and a factor; NaN where one
        of them is constant.

    References
    ----------
    Robert, P., & Escoufier, Y. (1976). A unifying tool for linear multivariate statistical methods: the
    RV-coefficient. Applied Statistics 25, 257.

    Examples
    --------
    >>> towers = [[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]]
    >>> round(tower_correlation(towers, towers), 3)
    1.0
    """
    phys = check_finite("tower_correlation.phys", phys, (None, None)).astype(float)
    quality = check_finite("tower_correlation.quality", quality, (len(phys), None)).astype(float)
    a, b = phys - phys.mean(axis=0), quality - quality.mean(axis=0)
    scale = np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)
    tiny = 1e-12 * np.square(np.linalg.norm(phys)) * np.square(np.linalg.norm(quality))
    return float(np.square(np.linalg.norm(a.T @ b)) / scale) if scale > tiny else float("nan")

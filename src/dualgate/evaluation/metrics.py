"""Scores of predictions and of gates: functions of arrays, no estimator needed."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import entr
from sklearn.metrics import r2_score

from dualgate.evaluation._checks import same_rows
from dualgate.evaluation.resampling import bootstrap_r2


def recovery_ratio(y_true: ArrayLike, y_pred: ArrayLike, y_global: ArrayLike, y_oracle: ArrayLike) -> float:
    r"""Share of the oracle's gain over the global model that the gate keeps.

    .. math:: \rho = (R^2_{gate} - R^2_{global}) / (R^2_{oracle} - R^2_{global})

    Parameters
    ----------
    y_true : array-like of shape (n_samples,), [unit of y, such as dex]
        Observed targets.
    y_pred, y_global, y_oracle : array-like of shape (n_samples,), [unit of y]
        Predictions of the mixture, of one ridge for all, of the true expert.

    Returns
    -------
    ratio : float, [dimensionless]
        1 when the gate loses nothing, 0 when it is no better than the global model; soft weights may
        exceed 1.

    Raises
    ------
    ValueError
        If the oracle is no better than the global model: there is then no gain to keep a share of.

    Examples
    --------
    >>> round(recovery_ratio([0, 1, 2], [0, 1, 2], [1, 1, 1], [0, 1, 2]), 3)
    1.0
    """
    y_true, y_pred, y_global, y_oracle = same_rows(y_true=y_true, y_pred=y_pred, y_global=y_global, y_oracle=y_oracle)
    gate, lower, upper = (r2_score(y_true, guess) for guess in (y_pred, y_global, y_oracle))
    if not upper > lower:
        raise ValueError(
            f"recovery_ratio.y_oracle has R^2 = {upper:.4f} and must beat y_global with R^2 = {lower:.4f}: "
            "the ratio is a share of the gain between them. Report the R^2 themselves instead."
        )
    return float((gate - lower) / (upper - lower))


def gate_entropy(weights: ArrayLike) -> np.ndarray:
    r"""Shannon entropy of every row's expert weights, :math:`-\sum_k w_k \ln w_k`.

    Parameters
    ----------
    weights : array-like of shape (n_samples, n_experts), [dimensionless]
        Non-negative expert weights whose rows sum to one.

    Returns
    -------
    entropy : ndarray of shape (n_samples,), [nats]
        0 for a gate that names one expert, ln(n_experts) for one that trusts all alike.

    Raises
    ------
    ValueError
        If a weight is negative or a row does not sum to one.

    Examples
    --------
    >>> gate_entropy([[1.0, 0.0], [0.5, 0.5]]).round(3).tolist()
    [0.0, 0.693]
    """
    return entr(check_distributions(weights, "gate_entropy")).sum(axis=1)


def gate_confidence(weights: ArrayLike) -> np.ndarray:
    """Largest expert weight of every row.

    Parameters
    ----------
    weights : array-like of shape (n_samples, n_experts), [dimensionless]
        Non-negative expert weights whose rows sum to one.

    Returns
    -------
    confidence : ndarray of shape (n_samples,), [dimensionless]
        Between 1 / n_experts and 1.

    Raises
    ------
    ValueError
        If a weight is negative or a row does not sum to one.

    Examples
    --------
    >>> gate_confidence([[0.7, 0.2, 0.1], [0.0, 0.0, 1.0]]).tolist()
    [0.7, 1.0]
    """
    return check_distributions(weights, "gate_confidence").max(axis=1)


def r2_by_bin(y_true: ArrayLike, y_pred: ArrayLike, bins: ArrayLike, n_bins: int | None = None) -> np.ndarray:
    """R^2 within every bin, each against the bin's own mean.

    A bin's targets may spread less than all targets, so the R^2 of all rows is no average of these.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n_samples,), [unit of y]
        Observed and predicted targets.
    bins : array-like of int, shape (n_samples,)
        Bin of every row, counted from 0, such as regime codes or :func:`~dualgate.evaluation.snr_bins`.
    n_bins : int, default=None
        How many bins there are; None takes the largest code plus one.

    Returns
    -------
    r2 : ndarray of shape (n_bins,), [dimensionless]
        NaN where a bin has fewer than two rows or only one target value.

    Raises
    ------
    ValueError
        If a code is not an integer of 0 to n_bins - 1, or the lengths differ.

    Examples
    --------
    >>> r2_by_bin([0, 1, 2, 5], [0, 1, 2, 4], [0, 0, 1, 1]).round(3).tolist()
    [1.0, 0.778]
    """
    y_true, y_pred = same_rows(y_true=y_true, y_pred=y_pred)
    members = bin_members(bins, len(y_true), n_bins)
    return bootstrap_r2(y_true, [y_pred], members)[:, 0]


def bin_members(bins: ArrayLike, n_samples: int, n_bins: int | None = None) -> np.ndarray:
    """Membership of every row in every bin as 0 and 1.

    Parameters
    ----------
    bins : array-like of int, shape (n_samples,)
        Bin of every row, counted from 0.
    n_samples : int
        How many rows there must be.
    n_bins : int, default=None
        How many bins there are; None takes the largest code plus one.

    Returns
    -------
    members : ndarray of shape (n_bins, n_samples)
        1.0 where the row lies in the bin. It serves as weights of :func:`bootstrap_r2`.

    Raises
    ------
    ValueError
        If a code is not an integer of 0 to n_bins - 1, or there are not `n_samples` of them.

    Examples
    --------
    >>> bin_members([1, 0, 1], 3)
    array([[0., 1., 0.],
           [1., 0., 1.]])
    """
    bins = np.asarray(bins)
    if bins.shape != (n_samples,):
        raise ValueError(f"bins has shape {bins.shape} and must be ({n_samples},): one code for every row.")
    if not np.issubdtype(bins.dtype, np.integer):
        raise ValueError(f"bins has dtype {bins.dtype} and must hold integer codes from 0. Try numpy.digitize.")
    n_bins = int(bins.max(initial=-1)) + 1 if n_bins is None else n_bins
    if bins.min(initial=0) < 0 or bins.max(initial=-1) >= n_bins:
        raise ValueError(
            f"bins runs from {bins.min()} to {bins.max()} and must stay within 0 and n_bins - 1 = "
            f"{n_bins - 1}. Leave out rows without a bin, or raise n_bins."
        )
    return (bins == np.arange(n_bins)[:, None]).astype(float)


def check_distributions(weights, owner):
    """Rows of `weights` as float64 distributions over experts, (n_samples, n_experts)."""
    weights = np.asarray(weights, dtype=float)
    if weights.ndim != 2:
        raise ValueError(f"{owner}.weights has shape {weights.shape} and must be (n_samples, n_experts).")
    wrong = (weights < 0).any(axis=1) | ~(np.abs(weights.sum(axis=1) - 1) <= 1e-4)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"{owner}.weights row {row} is {weights[row].tolist()} and must be non-negative and sum to one. "
            "Pass trace.weights, not logits."
        )
    return weights

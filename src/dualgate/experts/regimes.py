"""Regimes: the physical bins of the training rows, as codes or as conditions with edges."""

import numbers
import warnings

import numpy as np

from dualgate._validation import owner_name

SPARSE_FROM = 100  # codes as large as this, half of them missing, are conditions or labels and not codes


class EmptyCellWarning(UserWarning):
    """A regime, or a cell of regime and quality bin, holds no training row.

    It is raised when `HierarchicalExperts` is fitted and names the cell, and the range of each condition where regimes
    are given as conditions: swapped or logarithmic ones show there. The cell takes the expert of its parent: the
    regime's, or the root ridge. Where a bin is learned from all regimes (``sharing="offset"``, ``"scale"``,
    ``"alpha"``), the regime's expert is adapted to the bin. Merge regimes or widen `quality_edges` to avoid it, or
    silence it with ``warnings.simplefilter("ignore", EmptyCellWarning)``.
    """


def regime_codes(owner, regimes, edges, n_samples, *, n_known=None):
    """Turn `regimes` into integer codes.

    Parameters
    ----------
    owner : object
        Whose argument it is, for messages.
    regimes : None or array-like of shape (n_samples,) or (n_samples, n_conditions)
        None is one regime for all; one-dimensional values are codes 0, 1, ...; two-dimensional values are physical
        conditions, cut at `edges`.
    edges : None or sequence of n_conditions increasing sequences
        A condition equal to an edge belongs to the bin above it. The first condition varies slowest.
    n_samples : int
    n_known : None or int
        Regimes there are; None asks that the rows themselves make the codes likely.

    Returns
    -------
    codes : ndarray of int of shape (n_samples,)
    n_regimes : int
        With conditions, every bin of the grid; with codes, the largest plus one.
    """
    if regimes is None:
        return np.zeros(n_samples, dtype=np.intp), 1
    name = owner_name(owner)
    regimes = np.asarray(regimes)
    if regimes.ndim not in (1, 2) or len(regimes) != n_samples:
        raise ValueError(
            f"{name}: regimes has shape {regimes.shape}, X has {n_samples:,} rows: regimes must have one entry per "
            "row, integer codes (n_samples,) or conditions (n_samples, n_conditions)."
        )
    if regimes.dtype.kind not in "iufb" or not np.isfinite(regimes).all():
        raise ValueError(
            f"{name}: regimes of dtype {regimes.dtype} must be finite numbers: integer codes 0, 1, ... or physical "
            "conditions. sklearn.preprocessing.OrdinalEncoder turns names into codes."
        )
    if regimes.ndim == 2:
        return _cut(name, regimes, edges)
    codes = regimes.astype(np.intp)
    if np.any(codes != regimes):
        raise ValueError(
            f"{name}: regimes holds {regimes[codes != regimes][0]!r}: one-dimensional regimes are integer codes. Give "
            "conditions as (n_samples, n_conditions) and set regime_edges."
        )
    if np.any(codes < 0):
        raise ValueError(
            f"{name}: regimes holds the negative code {codes.min()}: codes count from 0. Drop the rows whose regime "
            "is not known."
        )
    if n_known is not None:
        return codes, int(codes.max()) + 1
    n_found = len(np.unique(codes))
    if codes.max() >= SPARSE_FROM and 2 * n_found < codes.max() + 1:
        raise ValueError(
            f"{name}: regimes holds {n_found:,} different codes up to {codes.max():,}: codes must be 0, 1, ..., one "
            "for each regime. Give a physical condition as (n_samples, 1) with regime_edges."
        )
    if codes.max() >= n_samples:
        raise ValueError(
            f"{name}: regimes holds the code {codes.max():,} for {n_samples:,} rows: codes must be 0, 1, ..., one for "
            "each regime. numpy.unique(regimes, return_inverse=True) makes them so."
        )
    return codes, int(codes.max()) + 1


def check_edges(owner, parameter, edges):
    """Return `edges` as an increasing array of finite numbers."""
    try:
        array = np.asarray(edges, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.empty((0, 0))
    if array.ndim != 1 or len(array) == 0 or not np.isfinite(array).all() or np.any(np.diff(array) <= 0):
        raise ValueError(
            f"{owner_name(owner)}.{parameter}={edges!r} must be finite numbers that increase, such as (2, 4, 7)."
        )
    return array


def describe_conditions(regimes, edges):
    """Tell what values each physical condition takes, and its edges; empty where regimes are codes."""
    if regimes is None or np.ndim(regimes) != 2:
        return ""
    conditions = np.asarray(regimes)
    ranges = (
        f"condition {place} runs from {values.min():g} to {values.max():g}, its edges are {tuple(these)}"
        for place, (values, these) in enumerate(zip(conditions.T, edges, strict=True))
    )
    return f" Of the conditions, {'; '.join(ranges)}."


def _cut(name, conditions, edges):
    if edges is None or isinstance(edges, numbers.Number) or len(edges) != conditions.shape[1]:
        raise ValueError(
            f"{name}: regimes holds {conditions.shape[1]} conditions per row, HierarchicalExperts.regime_edges="
            f"{edges!r} must hold edges for each of them, such as ((4500, 5250), (-1, 0)) for two."
        )
    codes, n_regimes = np.zeros(len(conditions), dtype=np.intp), 1
    for values, these in zip(conditions.T, edges, strict=True):
        these = check_edges("HierarchicalExperts", "regime_edges", these)
        if values.dtype.kind == "f":
            these = these.astype(values.dtype)  # an edge is a value of the conditions' own precision
        codes = codes * (len(these) + 1) + np.digitize(values, these)
        n_regimes *= len(these) + 1
    return codes, n_regimes

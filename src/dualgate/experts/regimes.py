"""Regimes: the physical bins of the training rows, as codes or as conditions with edges."""

import numbers
import warnings

import numpy as np

from dualgate._validation import check_number, make_generator, owner_name

SPARSE_FROM = 100  # codes as large as this, half of them missing, are conditions or labels and not codes


class EmptyCellWarning(UserWarning):
    """A regime, or a cell of regime and quality bin, holds no training row.

    It comes when `HierarchicalExperts` is fitted and names the cell. The cell then takes the expert of its parent: the
    regime's, or the root ridge. Where a bin is learnt from all regimes, the regime's expert is moved there, by offset,
    scale, penalty or noise (``sharing="offset"``, ``"scale"``, ``"alpha"``, ``"noise"``). Merge regimes or
    widen `quality_edges` to be rid of it, or silence it with
    ``warnings.simplefilter("ignore", EmptyCellWarning)``.
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


def equal_edges(values, n_bins):
    """Edges that cut `values` into bins of equal counts, halfway between two of them; fewer bins where many are equal.

    A value belongs to the bin below the first edge that is not smaller.
    """
    ordered = np.sort(values)
    last = np.unique(ordered[-(-np.arange(1, n_bins) * len(ordered) // n_bins) - 1])  # largest of each bin but one
    last = last[last < ordered[-1]]
    return (last + ordered[np.searchsorted(ordered, last, side="right")]) / 2


def count_cells(owner, cells, n_regimes, n_bins):
    """Count the rows of each cell (n_regimes, n_bins), and warn of empty ones."""
    counts = np.bincount(cells, minlength=n_regimes * n_bins).reshape(n_regimes, n_bins)
    empty = [f"regime {k}" for k in np.flatnonzero(counts.sum(1) == 0)]
    if n_bins > 1:
        partly = (counts == 0) & (counts.sum(1, keepdims=True) > 0)
        empty += [f"regime {k} in quality bin {s}" for k, s in np.argwhere(partly)]
    if empty:
        warnings.warn(
            f"{owner_name(owner)}: regimes leaves {len(empty)} of {counts.size} cells without training rows: "
            f"{', '.join(empty[:6])}{', ...' if len(empty) > 6 else ''}. Each leans on its parent; merge "
            "regimes or widen quality_edges to avoid it.",
            EmptyCellWarning,
            stacklevel=4,
        )
    return counts


def draw_folds(owner, cells):
    """Draw a fold for every row: random, and spread evenly over each cell."""
    check_number(owner, "cv", owner.cv, kind=numbers.Integral, low=2, hint="folds hold out rows in turn. Try 5.")
    shuffled = make_generator(owner, owner.random_state).permutation(len(cells))
    folds = np.empty(len(cells), dtype=np.intp)
    folds[shuffled[np.argsort(cells[shuffled], kind="stable")]] = np.arange(len(cells)) % owner.cv
    return folds


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

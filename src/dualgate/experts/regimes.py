"""Regimes: the physical bins of the training rows, as codes or as conditions with edges."""

import numbers

import numpy as np

from dualgate._validation import check_numbers, owner_name

SPARSE_FROM = 100  # codes as large as this, half of them missing, are conditions or labels and not codes


class EmptyCellWarning(UserWarning):
    """A regime, or a cell of regime and quality bin, holds no training row, or a component of a mixture too few.

    It is given when `FactorExperts` is fitted, and names the components that are left with fewer rows than their
    regressions have coefficients, or when `HierarchicalExperts` is fitted, and names the cells. Where regimes are given
    as conditions it also names the range of each, which shows swapped or logarithmic ones. A cell takes the expert of
    its parent: the regime's, or the root ridge. Where a bin is learned from all regimes (``sharing="offset"``,
    ``"scale"``, ``"alpha"``), the regime's expert is adapted to the bin. Merge regimes or widen `quality_edges` to
    avoid it, or silence it with ``warnings.simplefilter("ignore", EmptyCellWarning)``.
    """


def regime_codes(owner, regimes, edges, n_samples, *, n_known=None):
    """Codes (n_samples,) of `regimes`, in the three forms that `HierarchicalExperts.fit` takes, and how many there are.

    Conditions make a grid cut at `edges`, the first condition slowest and a condition equal to an edge in the bin above
    it. Codes make the largest plus one; where `n_known` regimes are known, rows may hold a few of them only.
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
    n_found, highest = len(np.unique(codes)), int(codes.max())
    if n_known is None and (highest >= n_samples or (highest >= SPARSE_FROM and 2 * n_found <= highest)):
        raise ValueError(
            f"{name}: regimes holds {n_found:,} different codes up to {highest:,} in {n_samples:,} rows: codes must be "
            "0, 1, ..., one for each regime. numpy.unique(regimes, return_inverse=True) numbers labels so; give a "
            "physical condition as (n_samples, 1) with regime_edges."
        )
    return codes, highest + 1


def check_edges(owner, parameter, edges):
    """Return `edges` as an increasing array of finite numbers."""
    wanted = "finite numbers that increase, such as (2, 4, 7)"
    return check_numbers(owner, parameter, edges, lambda array: np.all(np.diff(array) > 0), wanted)


def describe_conditions(regimes, edges):
    """Name the range and the edges of each physical condition, for a message; empty where regimes are codes."""
    if regimes is None or np.ndim(regimes) != 2:
        return ""
    pairs = zip(np.asarray(regimes).T, (tuple(np.asarray(each).tolist()) for each in edges), strict=True)
    ranges = (
        f"{place} runs from {x.min():g} to {x.max():g}, its edges are {cut}" for place, (x, cut) in enumerate(pairs)
    )
    return f" Conditions: condition {'; condition '.join(ranges)}."


def _cut(name, conditions, edges):
    if edges is None or isinstance(edges, numbers.Number) or len(edges) != conditions.shape[1]:
        raise ValueError(
            f"{name}: regimes holds {conditions.shape[1]} conditions per row, {name}.regime_edges={edges!r} must hold "
            "edges for each of them, such as ((4500, 5250), (-1, 0)) for two."
        )
    codes, n_regimes = np.zeros(len(conditions), dtype=np.intp), 1
    for values, these in zip(conditions.T, edges, strict=True):
        these = check_edges(name, "regime_edges", these)
        if values.dtype.kind == "f":
            these = these.astype(values.dtype)  # an edge is a value of the conditions' own precision
        codes = codes * (len(these) + 1) + np.digitize(values, these)
        n_regimes *= len(these) + 1
    return codes, n_regimes

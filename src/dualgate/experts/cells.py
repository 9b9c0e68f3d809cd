"""Cells, regime x quality bin: which cell and fold a row belongs to, and the sums over each of them."""

import math
import numbers
import warnings
from dataclasses import dataclass

import numpy as np

from dualgate._validation import check_choice, check_number, make_generator, owner_name
from dualgate.experts.regimes import EmptyCellWarning, check_edges
from dualgate.rows import Pass, Pieces, in_threads
from dualgate.snr import equal_edges, quality_bins
from dualgate.statistics import CellStatistics

AUTO_BINS = 4  # quality bins of ``quality_edges="auto"``
MIN_CELL_ROWS = 10  # rows of a cell, on average; with fewer, quality bins are merged


@dataclass(frozen=True)
class Target:
    """Targets in units in which their squares keep their digits.

    Parameters
    ----------
    mean, scale : float
        Sums are of (y - mean) / scale.
    low, high : float
        Range of the training targets.
    """

    mean: float
    scale: float
    low: float
    high: float

    @classmethod
    def of(cls, owner, y):
        """Take the units from `y`, and warn where it is constant."""
        low, high = float(y.min()), float(y.max())
        if low == high:
            warnings.warn(
                f"{owner_name(owner)}: y is constant ({y[0]:g}) over {len(y):,} rows: every expert predicts that "
                "number. Check that y is the target column.",
                UserWarning,
                stacklevel=4,
            )
        return cls(float(y.mean()), high - low or 1.0, low, high)

    def scaled(self, y):
        """Return `y` in these units."""
        return (y - self.mean) / self.scale

    def widened(self, y):
        """Return the same units with the range of `y` added."""
        return Target(self.mean, self.scale, min(self.low, float(y.min())), max(self.high, float(y.max())))


class CellSums(Pass):
    """Statistics of every fold and cell, and the reduced rows that are kept.

    `found` holds ``statistics`` (one axis over folds x regimes x quality bins) and ``kept``, pieces of reduced columns.

    Parameters
    ----------
    reduction : Reduction
        Fitted.
    shape : tuple of int
        (n_folds, n_regimes, n_bins).
    origin : ndarray of shape (n_projected,)
        About which the sums are taken.
    y : ndarray of shape (n_samples,)
        Targets in the units of `Target`.
    codes : None or ndarray of int of shape (n_samples,)
        Regimes; None asks `finder`.
    folds : ndarray of int of shape (n_samples,)
    edges : ndarray of shape (n_bins - 1,)
        Of the quality bins.
    finder : None or RegimeFinder
    kept : None or ndarray of bool of shape (n_samples,)
        Rows whose reduced columns, cells and folds are wanted.
    training : bool
        Whether these are the rows that the reduction learned from.
    n_jobs : None or int
    """

    row_wise = ("y", "codes", "folds", "kept")

    def __init__(
        self, reduction, shape, origin, y, codes, folds, edges, *, finder=None, kept=None, training=True, n_jobs=None
    ):
        self.reduction, self.shape, self.origin, self.edges = reduction, shape, origin, edges
        self.y, self.codes, self.folds, self.kept = y, codes, folds, kept
        self.finder, self.training, self.n_jobs = finder, training, n_jobs

    def begin(self):  # noqa: D102
        statistics = CellStatistics.zeros(math.prod(self.shape), len(self.origin), origin=self.origin)
        return {"statistics": statistics, "kept": Pieces()}

    def update(self, start, block):  # noqa: D102
        def reduce(first, last):
            return self.reduction.reduce(start + first, block[first:last], training=self.training)

        self.take_in(start, in_threads(reduce, len(block), self.n_jobs))

    def take_in(self, start, columns):
        """Add reduced rows from number `start` on; `columns` as in `ReducedRows.columns`."""
        rows = self.rows_of(start, len(columns["projected"]))
        codes = self.finder.codes(columns) if self.codes is None else self.codes[rows]
        n_bins = self.shape[2]
        cells = codes * n_bins + (quality_bins(columns["snr"], self.edges) if n_bins > 1 else 0)
        folds = self.folds[rows]
        self.found["statistics"].update(columns["projected"], self.y[rows], folds * math.prod(self.shape[1:]) + cells)
        if self.kept is not None:
            kept = self.kept[rows]
            columns = {**columns, "cells": cells, "folds": folds}
            self.found["kept"].add(start, {name: values[kept] for name, values in columns.items()})

    @property
    def statistics(self):
        """`found` statistics with leading axes (n_folds, n_regimes, n_bins)."""
        return self.found["statistics"].reshape(*self.shape)


def find_edges(owner, snr, n_regimes, n_rows):
    """Edges of the quality bins, given or found.

    Parameters
    ----------
    owner : HierarchicalExperts
    snr : None or ndarray of shape (n_samples,)
        Signal-to-noise ratios, of all rows or of a sample.
    n_regimes : int
    n_rows : None or int
        Training rows: with fewer than `MIN_CELL_ROWS` for each cell, neighbouring bins are merged, the emptiest first.
        None merges nothing.

    Returns
    -------
    edges : ndarray of shape (n_bins - 1,)
    """
    if owner.quality_edges is None:
        return np.empty(0)
    if isinstance(owner.quality_edges, str):
        edges = equal_edges(snr, AUTO_BINS)
    else:
        edges = check_edges(owner, "quality_edges", owner.quality_edges)
    while n_rows is not None and len(edges) and n_rows < MIN_CELL_ROWS * n_regimes * (len(edges) + 1):
        counts = np.bincount(quality_bins(snr, edges), minlength=len(edges) + 1)
        edges = np.delete(edges, np.argmin(counts[:-1] + counts[1:]))
    return edges


def check_quality_edges(owner):
    """Raise a ValueError where `quality_edges` is not as described, or has no errors to go with."""
    edges = owner.quality_edges
    if edges is None:
        return
    if isinstance(edges, str):
        check_choice(owner, "quality_edges", edges, ["auto"])
    else:
        check_edges(owner, "quality_edges", edges)
    if owner.error_columns is None:
        raise ValueError(
            f"{owner_name(owner)}.quality_edges={edges!r} needs error_columns, which is None: name the columns of X "
            "that hold the errors, or set quality_edges=None."
        )


def warn_of_empty_cells(owner, counts, ranges=""):
    """Warn of cells without training rows; `counts` (n_regimes, n_bins), `ranges` says what conditions were met."""
    empty = [f"regime {k}" for k in np.flatnonzero(counts.sum(1) == 0)]
    if counts.shape[1] > 1:
        partly = (counts == 0) & (counts.sum(1, keepdims=True) > 0)
        empty += [f"regime {k} in quality bin {s}" for k, s in np.argwhere(partly)]
    if empty:
        warnings.warn(
            f"{owner_name(owner)}: regimes leaves {len(empty)} of {counts.size} cells without training rows: "
            f"{', '.join(empty[:6])}{', ...' if len(empty) > 6 else ''}.{ranges} Each takes its parent's expert; merge "
            "regimes or widen quality_edges to avoid it.",
            EmptyCellWarning,
            stacklevel=5,
        )


def draw_folds(owner, cells):
    """Give every row a fold: as the splitter `cv` divides them, or at random and spread evenly over each cell."""
    if not isinstance(check_folds(owner), numbers.Integral):
        return _split_folds(owner, cells)
    shuffled = make_generator(owner, owner.random_state).permutation(len(cells))
    folds = np.empty(len(cells), dtype=np.intp)
    folds[shuffled[np.argsort(cells[shuffled], kind="stable")]] = np.arange(len(cells)) % owner.cv
    return folds


def _split_folds(owner, cells):
    folds = np.full(len(cells), -1)
    for fold, (_, test) in enumerate(owner.cv.split(np.zeros((len(cells), 1)), cells)):
        if np.any(folds[test] >= 0):
            folds[:] = -1
            break
        folds[test] = fold
    if np.any(folds < 0):
        raise ValueError(
            f"{owner_name(owner)}.cv={owner.cv!r} must hold out every row exactly once, as KFold does: penalties and "
            "cross-fitted predictions need one fold for each row."
        )
    return folds


def check_folds(owner):
    """Return `cv` if it is a number of folds or a splitter."""
    if hasattr(owner.cv, "split") and not isinstance(owner.cv, str):
        return owner.cv
    return check_number(owner, "cv", owner.cv, kind=numbers.Integral, low=2, hint="folds hold out rows in turn. Try 5.")

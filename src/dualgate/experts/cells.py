"""Cells, regime x quality bin: which cell and fold a row belongs to, and the sums over each of them."""

import math
import numbers
import warnings
from dataclasses import dataclass

import numpy as np

from dualgate._validation import check_choice, check_number, make_generator, name_cells, owner_name
from dualgate.experts.regimes import EmptyCellWarning, check_edges
from dualgate.rows import Pass, Pieces, in_threads
from dualgate.snr import equal_edges, quality_bins
from dualgate.statistics import CellStatistics

QUANTILE_BINS = 4  # quality bins of ``quality_edges="quantile"``
MIN_CELL_ROWS = 10  # rows of a cell, on average; with fewer, quality bins are merged


@dataclass(frozen=True)
class Target:
    """Range of the training targets, and the units (y - mean) / scale in which their squares keep their digits."""

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
    """Statistics of every fold and cell, and the reduced columns of rows that are kept for the gates.

    `shape` is (n_folds, n_regimes, n_bins), `origin` (n_projected,) about which the sums are taken, and `y` in the
    units of `Target`; without `codes` the regimes are those of `finder`; `kept` is None or a mask of rows; `training`
    whether the reduction was fitted to these rows.
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
        cells, folds = cells_of(codes, columns.get("snr"), self.edges), self.folds[rows]
        self.found["statistics"].update(columns["projected"], self.y[rows], folds * math.prod(self.shape[1:]) + cells)
        if self.kept is not None:
            kept = self.kept[rows]
            columns = {**columns, "cells": cells, "folds": folds}
            self.found["kept"].add(start, {name: values[kept] for name, values in columns.items()})

    @property
    def statistics(self):  # noqa: D102  leading axes (n_folds, n_regimes, n_bins)
        return self.found["statistics"].reshape(*self.shape)


def cells_of(codes, snr, edges):
    """Cell of rows of these regimes and signal-to-noise ratios, which may be None where there is one quality bin."""
    return codes * (len(edges) + 1) + (quality_bins(snr, edges) if len(edges) else 0)


def find_edges(owner, snr, n_regimes, n_rows):
    """Edges (n_bins - 1,) of the quality bins, given, or found in the signal-to-noise ratios of a sample of rows.

    With fewer than `MIN_CELL_ROWS` of `n_rows` training rows for each cell neighbouring bins are merged, the emptiest
    pair first; `n_rows` None merges nothing.
    """
    edges = owner.quality_edges
    if edges is None:
        return np.empty(0)
    edges = equal_edges(snr, QUANTILE_BINS) if isinstance(edges, str) else check_edges(owner, "quality_edges", edges)
    while n_rows is not None and len(edges) and n_rows < MIN_CELL_ROWS * n_regimes * (len(edges) + 1):
        counts = np.bincount(quality_bins(snr, edges), minlength=len(edges) + 1)
        edges = np.delete(edges, np.argmin(counts[:-1] + counts[1:]))
    return edges


def check_quality_edges(owner):
    """Raise a ValueError where `quality_edges` is not as described, or has no errors to go with."""
    edges = owner.quality_edges
    if isinstance(edges, str):
        check_choice(owner, "quality_edges", edges, ["quantile"])
    elif edges is not None:
        check_edges(owner, "quality_edges", edges)
    if edges is not None and owner.error_columns is None:
        raise ValueError(
            f"{owner_name(owner)}.quality_edges={edges!r} needs error_columns, which is None: name the columns of X "
            "that hold the errors, or set quality_edges=None."
        )


def warn_of_empty_cells(owner, counts, ranges=""):
    """Warn of cells without training rows; `counts` (n_regimes, n_bins), `ranges` of `describe_conditions`."""
    empty = counts == 0
    if empty.any():
        warnings.warn(
            f"{owner_name(owner)}: regimes leaves {empty.sum()} of {counts.size} cells without training rows: "
            f"{name_cells(empty)}.{ranges} Each takes its parent's expert; merge regimes or widen quality_edges to "
            "avoid it.",
            EmptyCellWarning,
            stacklevel=5,
        )


def draw_folds(owner, cells):
    """Fold of every row: as the splitter `cv` divides them, or at random and spread evenly over each cell."""
    n_rows = len(cells)
    if isinstance(check_folds(owner), numbers.Integral):
        shuffled = make_generator(owner, owner.random_state).permutation(n_rows)
        rows, fold = shuffled[np.argsort(cells[shuffled], kind="stable")], np.arange(n_rows) % owner.cv
    else:
        tests = [test for _, test in owner.cv.split(np.zeros((n_rows, 1)), cells)]
        rows, fold = np.concatenate(tests), np.repeat(np.arange(len(tests)), [len(test) for test in tests])
        if len(tests) < 2 or not np.array_equal(np.sort(rows), np.arange(n_rows)):
            raise ValueError(
                f"{owner_name(owner)}.cv={owner.cv!r} must hold out every row exactly once, in two folds or more, as "
                "KFold does: penalties and cross-fitted predictions need one fold for each row."
            )
    folds = np.empty(n_rows, dtype=np.intp)
    folds[rows] = fold
    return folds


def check_folds(owner):
    """Return `cv` if it is a number of folds or a splitter."""
    if hasattr(owner.cv, "split") and not isinstance(owner.cv, str):
        return owner.cv
    return check_number(owner, "cv", owner.cv, kind=numbers.Integral, low=2, hint="folds hold out rows in turn. Try 5.")

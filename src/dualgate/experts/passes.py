"""The two passes over the rows that a fit of the experts makes: what it must know first, and then its sums."""

import copy
import warnings

import numpy as np
from sklearn.frozen import FrozenEstimator

from dualgate._validation import owner_name
from dualgate.experts.noise import noise_power, typical_noise
from dualgate.experts.ridges import check_memory_for
from dualgate.features import NoiseWhitenedPCA, WienerScores
from dualgate.passes import Pass, Pieces, run_passes
from dualgate.rows import RowSource, in_threads
from dualgate.statistics import CellStatistics


class Survey(Pass):
    """First pass: the signal-to-noise ratio of every row, and what the projection learns from all of them."""

    def __init__(self, experts, *, learns):
        self.experts, self.learns = experts, learns
        self.ratios = Pieces()

    def update(self, start, block):  # noqa: D102
        flux, error = self.experts._split(block, start)
        ratios = self.experts._ratio(flux, error)
        if ratios is not None:
            self.ratios.add(start, ratios)
        if self.learns == "add":
            self.experts.projection_.add(self.experts._projection_input(block))
        elif self.learns:
            self.experts.projection_.partial_fit(self.experts._projection_input(block))

    def part(self, start, stop):  # noqa: D102
        if self.learns == "partial_fit":
            raise ValueError(
                f"{owner_name(self.experts)}.projection={self.experts.projection!r} learns from one block after "
                "another, which a cluster cannot do: fit it first and wrap it in sklearn.frozen.FrozenEstimator, or "
                "use 'whitened'."
            )
        experts = copy.copy(self.experts)
        if self.learns == "add":
            experts.projection_ = copy.copy(experts.projection_)
            experts.projection_.statistics_ = experts.projection_.statistics_.empty()
        return Survey(experts, learns=self.learns)

    def lighten(self):  # noqa: D102
        part = copy.copy(self)
        part.experts = self.experts if self.learns == "add" else None
        return part

    def merge(self, other):  # noqa: D102
        self.ratios.merge(other.ratios)
        if self.learns == "add":
            self.experts.projection_.statistics_.merge(other.experts.projection_.statistics_)
        return self

    def detach(self):  # noqa: D102
        if self.learns != "add":
            return None
        statistics = self.experts.projection_.statistics_
        moments, statistics.moments = statistics.moments, None
        return moments

    def attach(self, moments):  # noqa: D102
        self.experts.projection_.statistics_.moments = moments

    def finish(self):
        """Return the signal-to-noise ratios (n_samples,), None without errors, and the fitted projection."""
        if self.learns == "add":
            self.experts.projection_.finish()
        return self.ratios.joined() if self.ratios.found else None, self.experts.projection_


class CellSums(Pass):
    """Second pass: the statistics of every fold and cell, and the projected columns of the rows that are kept.

    With ``sharing="noise"`` the noise power of the rows is summed too, into `noise_power` (folds x cells).

    Parameters
    ----------
    experts : HierarchicalExperts
        With a fitted projection.
    statistics : CellStatistics
        Of no rows yet, one leading axis over folds x cells.
    y : ndarray of shape (n_samples,)
        Targets; the sums hold them in units of `y_scale` about `y_mean`, so that their squares keep their digits.
    cells : ndarray of int of shape (n_samples,)
        Fold x cell of every row.
    kept : None or ndarray of bool of shape (n_samples,)
        Rows whose projected columns are wanted; `kept_rows` holds them, and what comes with them, by name.
    training : bool
        Whether these are the rows that the projection learned from.
    """

    def __init__(self, experts, statistics, y, cells, kept=None, *, first=0, training=True, n_jobs=None):
        self.experts, self.statistics, self.cells, self.kept = experts, statistics, cells, kept
        self.first, self.training, self.n_jobs, self.kept_rows = first, training, n_jobs, Pieces()
        self.noise_power = np.zeros(len(statistics.count)) if experts.sharing == "noise" else None
        self.y_range = (float(y.min()), float(y.max()))
        self.y_mean, self.y_scale = y.mean(), self.y_range[1] - self.y_range[0] or 1.0
        self.y = (y - self.y_mean) / self.y_scale
        if self.y_range[0] == self.y_range[1]:
            warnings.warn(
                f"HierarchicalExperts: y is constant ({y[0]:g}) over {len(y):,} rows: every expert predicts that "
                "number. Check that y is the target column.",
                UserWarning,
                stacklevel=6,
            )

    def turned_to(self, y, cells):
        """Return the pass over other rows, in the same units; `onto` adds these sums to it."""
        other = copy.copy(self)
        other.statistics, other.noise_power, other.training = self._empty(), self._no_power(), False
        other.y, other.cells = (y - self.y_mean) / self.y_scale, cells
        other.y_range = (min(self.y_range[0], float(y.min())), max(self.y_range[1], float(y.max())))
        return other

    def onto(self, earlier):
        """Add the sums of earlier rows; returns self."""
        self.statistics = earlier.statistics + self.statistics
        self._add_power(earlier.noise_power)
        return self

    def _no_power(self):
        return None if self.noise_power is None else np.zeros_like(self.noise_power)

    def _add_power(self, power):
        if self.noise_power is not None:
            self.noise_power = self.noise_power + power

    def _empty(self):
        return CellStatistics.zeros(
            len(self.statistics.count), len(self.statistics.origin), origin=self.statistics.origin
        )

    def update(self, start, block):  # noqa: D102
        self.add(start, **in_threads(lambda i, j: self._read(start + i, block[i:j]), len(block), self.n_jobs))

    def _read(self, first, rows):
        columns = self.experts._reduce(rows, first if self.training else None)
        if self.noise_power is not None:
            columns["noise_power"] = noise_power(self.experts, rows)
        return columns

    def add(self, start, projected, noise_power=None, **beside):
        """Take in projected rows from number `start` on, their noise power where it is summed, and what is kept too."""
        rows = slice(start - self.first, start - self.first + len(projected))
        self.statistics.update(projected, self.y[rows], self.cells[rows])
        if self.noise_power is not None:
            self._add_power(np.bincount(self.cells[rows], noise_power, minlength=len(self.noise_power)))
        if self.kept is not None:
            wanted = self.kept[rows]
            self.kept_rows.add(start, {name: each[wanted] for name, each in {"projected": projected, **beside}.items()})

    def part(self, start, stop):  # noqa: D102
        rows = slice(start, stop)
        part = copy.copy(self)
        part.statistics, part.kept_rows, part.first = self._empty(), Pieces(), start
        part.noise_power = self._no_power()
        part.y, part.cells = self.y[rows], self.cells[rows]
        part.kept = None if self.kept is None else self.kept[rows]
        return part

    def lighten(self):  # noqa: D102
        part = copy.copy(self)
        part.experts = part.y = part.cells = part.kept = None
        return part

    def merge(self, other):  # noqa: D102
        if self.statistics is not None:
            self.statistics = self.statistics + other.statistics
        self.kept_rows.merge(other.kept_rows)
        self._add_power(other.noise_power)
        return self

    def detach(self):  # noqa: D102
        statistics, self.statistics = self.statistics, None
        return statistics

    def attach(self, statistics):  # noqa: D102
        self.statistics = statistics


def survey(experts, rows, sample, checkpoint, n_jobs=None, along=(), target=(None, None)):
    """Fit the projection of `experts`, and find the signal-to-noise ratio of every row.

    What is in memory is handed to the projection whole. Of a source, the whitened projection and any other with
    `partial_fit` see every block; one without learns from a sample of the rows. Wiener scores read the rows several
    times before.

    Parameters
    ----------
    experts : HierarchicalExperts
    rows : ndarray, DataFrame or RowSource
    sample : ndarray or DataFrame
        A few of these rows, spread over all.
    checkpoint : Checkpoint
    n_jobs : None or int
    along : sequence of Pass
        What else wants to see every row.
    target : tuple (y, codes)
        Targets and regimes of all rows, or None, for a supervised projection.

    Returns
    -------
    ratios : ndarray of shape (n_samples,) or None
        None where no quality bins are asked for.
    projection : transformer or None
        Fitted.
    origin : ndarray of shape (n_projected,)
        Mean of the sample's projected columns.
    along : list of Pass
        As they are after all rows.
    """
    projection, learns = experts.projection_, ""
    if not (projection is None or isinstance(projection, FrozenEstimator)):
        seen = experts._projection_input(sample)
        if isinstance(projection, WienerScores):
            _learn_factors(experts, rows, seen, checkpoint, n_jobs, target)
        elif isinstance(projection, NoiseWhitenedPCA):
            learns = "add"
            projection.begin(seen, seen)
        elif isinstance(rows, RowSource) and hasattr(projection, "partial_fit"):
            learns = "partial_fit"
        else:
            projection.fit(seen if isinstance(rows, RowSource) else experts._projection_input(rows))
    passes = [Survey(experts, learns=learns), *along]
    if learns or along or experts._error_columns is not None:
        passes = run_passes(experts, passes, rows, n_jobs=n_jobs, checkpoint=checkpoint)
    ratios, experts.projection_ = passes[0].finish()
    experts._noise = typical_noise(experts, sample)
    origin = experts._project(sample).mean(axis=0, dtype=np.float64)
    return ratios, experts.projection_, origin, passes[1:]


def _learn_factors(experts, rows, seen, checkpoint, n_jobs, target):
    """Fit Wiener scores, a stage of the checkpoint for each step."""
    projection = experts.projection_
    projection.begin(seen, seen)
    chosen = projection.choose(len(rows))
    if chosen is not None:
        rows = rows.iloc[chosen] if hasattr(rows, "iloc") else rows[chosen]

    def run(sums):
        return run_passes(experts, [sums], rows, n_jobs=n_jobs, checkpoint=checkpoint)[0]

    projection.learn(*target, experts._weigh, run, checkpoint.stage)


def begin_sums(experts, origin, y, sorted_rows, n_jobs=None):
    """Make the second pass.

    Parameters
    ----------
    experts : HierarchicalExperts
        With a fitted projection.
    origin : ndarray of shape (n_projected,)
        About which the sums are taken.
    y : ndarray of shape (n_samples,)
    sorted_rows : tuple (cells, folds, kept)
        Of every row; `kept` marks those whose projected columns are wanted, or is None.
    n_jobs : None or int

    Returns
    -------
    sums : CellSums
    """
    cells, folds, kept = sorted_rows
    n_cells = experts.n_folds_ * experts.n_experts_
    check_memory_for(experts, n_cells, len(origin))
    statistics = CellStatistics.zeros(n_cells, len(origin), origin=origin)
    return CellSums(experts, statistics, y, folds * experts.n_experts_ + cells, kept, n_jobs=n_jobs)

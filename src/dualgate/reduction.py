"""The reduction: the only stage that reads X. It turns rows into the few numbers that gates and experts work with."""

import copy
import numbers
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from sklearn import config_context
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.frozen import FrozenEstimator

from dualgate._components import realise
from dualgate._validation import (
    MASK_ROWS,
    allows_nan,
    check_choice,
    check_number,
    column_index,
    find_error_columns,
    require_positive_errors,
    resolve_columns,
    take_columns,
)
from dualgate.features import (
    FrozenProjection,
    NoiseWhitenedPCA,
    PlainColumns,
    Projection,
    SignalPCA,
    TransformerProjection,
    WienerScores,
)
from dualgate.rows import Collect, FitStages, Subset, choose_spread, open_rows, spread_rows, take_rows
from dualgate.snr import signal_to_noise

PROJECTIONS = {"whitened": NoiseWhitenedPCA, "wiener": partial(WienerScores, supervised=True)}
GUARD_ROWS, GUARD_COLUMNS = 8192, 1024  # of the comparison of components with the columns themselves
HELD_ROWS = 200_000  # rows up to which all are held reduced; of more, sums alone and a share for the gates
STAGES = "projected", "snr", "variances", "information"
FEATURES = "features_"  # how the columns of gate features are called in what `Reduction.reduce` returns


class Reduction(BaseEstimator):
    """What reads rows of X: columns, errors, projection, and the features of each gate.

    Parameters
    ----------
    columns, error_columns, projection, n_components
        As in :class:`~dualgate.experts.HierarchicalExperts`.
    gates : dict of str to PhysGate or QualityGate, default=None
        Under "phys" and "quality"; a dropped tower is absent.
    information : bool, default=False
        Whether the experts work with the information of a row, where the projection has it. Projected columns are then
        found only where there are gates to read them.
    n_jobs : None or int, default=None
        Threads that read and compute.
    owner : str, default="HierarchicalExperts"
        Class whose parameters these are, for messages.

    Attributes
    ----------
    columns_ : ndarray of int
        Flux columns.
    error_columns_ : ndarray of int or None
        Their errors.
    projection_ : Projection
    refined_by_ : None or estimator
        Experts that learned the loadings again.
    n_features_in_ : int
    """

    def __init__(
        self,
        columns=None,
        error_columns=None,
        projection="auto",
        n_components=50,
        *,
        gates=None,
        information=False,
        n_jobs=None,
        owner="HierarchicalExperts",
    ):
        self.columns = columns
        self.error_columns = error_columns
        self.projection = projection
        self.n_components = n_components
        self.gates = gates
        self.information = information
        self.n_jobs = n_jobs
        self.owner = owner

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        named = isinstance(self.projection, str) and self.projection in PROJECTIONS
        knows = named or (allows_nan(self.projection) and getattr(self.projection, "reads_errors", False))
        takes = self.error_columns is not None and knows and all(map(allows_nan, (self.gates or {}).values()))
        tags.input_tags.allow_nan = takes
        return tags

    def fit(self, X, y=None, *, regimes=None):
        """Fit projection and gate features.

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)
        y : None or array-like of shape (n_samples,), default=None
            Targets, for a supervised projection.
        regimes : None or ndarray of int of shape (n_samples,), default=None
            Regime codes, for the same.

        Returns
        -------
        self : Reduction
        """
        source = open_rows(self, X, reset=True)
        return self.prepare(X, source).learn(X, source, y, regimes)

    def prepare(self, X, source):
        """Find the columns and make the projection, before any row is read; returns self."""
        width = source.shape[1]
        self.n_features_in_ = width
        if all(isinstance(name, str) for name in getattr(X, "columns", [0])):
            self.feature_names_in_ = np.asarray(X.columns, dtype=object)
        self.columns_ = resolve_columns(self.owner, "columns", self.columns, X, width)
        self.error_columns_ = None
        if self.error_columns is not None:
            self.error_columns_ = find_error_columns(self.owner, self.error_columns, X, self.columns_)
        self.projection_, self.refined_by_ = self._make_projection(), None
        self._input = self.columns_
        if self.projection_.reads_errors:
            self._input = np.r_[self.columns_, self.error_columns_]
        return self

    @property
    def informs(self):
        """Whether reduced rows have `information`."""
        return self.information and self.projection_.informs

    @property
    def n_projected(self):
        """Number of projected columns where it is known before any row is read, else None."""
        return len(self.columns_) if isinstance(self.projection_, PlainColumns) else None

    def _make_projection(self):
        if self.n_components != "auto":
            check_number(self.owner, "n_components", self.n_components, kind=numbers.Integral, low=1)
        value, width, paired = self.projection, len(self.columns_), self.error_columns_ is not None
        if value == "auto" and isinstance(value, str):
            value = None if width <= self.n_components else "whitened" if paired else SignalPCA(self.n_components)
        if value is None:
            return PlainColumns()
        if isinstance(value, str):
            check_choice(self.owner, "projection", value, ["auto", *PROJECTIONS])
            errors = slice(width, 2 * width) if paired else None
            made = PROJECTIONS[value](self.n_components).set_params(columns=slice(0, width), error_columns=errors)
        else:
            kinds = (TransformerMixin, FrozenEstimator, Projection)
            made = realise(self.owner, "projection", value, default=None, base=kinds)
            if isinstance(made, FrozenEstimator) and isinstance(made.estimator, Projection):
                made = FrozenProjection(made)
            elif not isinstance(made, Projection):
                made = TransformerProjection(made)
        if made.reads_errors and not paired:
            raise ValueError(
                f"{self.owner}.projection={value!r} needs error_columns, which is None: name the columns of X that "
                "hold the errors."
            )
        if "n_jobs" in vars(made) and made.n_jobs is None:
            made.n_jobs = self.n_jobs
        return made

    @property
    def settings(self):
        """What the reduced rows depend on, other than X, y and regimes: the key under which they are kept."""
        gates = {name: gate.feature_settings() for name, gate in (self.gates or {}).items()}
        own = [self.columns_, self.error_columns_, self.n_components, self.projection, self.information, gates]
        return [*own, self.refined_by_]

    def learn(self, X, source, y=None, codes=None, stages=None):
        """Fit gate features to a sample of the rows, and the projection to all of them.

        Parameters
        ----------
        X : array-like or RowSource
            As the user gave it, for the names of its columns.
        source : RowSource
        y, codes : None or ndarray of shape (n_samples,), default=None
            Targets and regimes, for a supervised projection.
        stages : None or FitStages, default=None
            Keeps what was found so far.

        Returns
        -------
        self : Reduction
        """
        inputs = self.inputs(source)
        with config_context(assume_finite=source.in_memory, transform_output="default"):
            if self.gates:
                sample = self._masked(spread_rows(source, n_jobs=self.n_jobs, finite=not allows_nan(self)))
                for gate in self.gates.values():
                    gate.fit_rows(X, sample)
                del sample  # wide rows of a source: the projection draws its own
            self.projection_ = self.projection_.learn(inputs, inputs, y, codes, stages=stages, depends=self.settings)
            chosen_here = isinstance(self.projection, str) and isinstance(self.projection_, SignalPCA)
            guarded = inputs.shape[1] <= GUARD_COLUMNS  # no row is read for a comparison that is not made
            if chosen_here and guarded and y is not None and self._loses_target(inputs, y, codes):
                self.projection_ = PlainColumns()
        return self

    def inputs(self, source):
        """Return the rows of a source with the columns that the projection reads."""
        whole = np.array_equal(self._input, np.arange(source.shape[1]))
        return source if whole else Subset(source, columns=self._input)

    def inform(self, source, stages, numbers=None, *, plain=False):
        """Read what experts need of training rows, by loadings that did not see them.

        Parameters
        ----------
        source : RowSource of n_rows rows
        stages : FitStages
        numbers : None or ndarray of int of shape (n_rows,), default=None
            Their numbers among the training rows; None is 0, 1, ...
        plain : bool, default=False
            Whether nuisances are left out, as they are where loadings are learned.

        Returns
        -------
        columns : dict of str to ndarray
            ``information`` and what else the projection informs of, or else what the projection gives.
        """
        reading = Collect(partial(self._inform, numbers, plain), n_jobs=self.n_jobs)
        (reading,) = stages.run("information", self, [reading], self.inputs(source), self.n_jobs)
        return reading.found.joined()

    def _inform(self, numbers, plain, first_row, block):
        rows = first_row + np.arange(len(block))
        rows = rows if numbers is None else numbers[rows]
        if self.informs and plain:
            return {"information": self.projection_.information(block, rows)}
        if self.informs:
            return self.projection_.inform(block, rows)
        return self.projection_.project(block, rows)

    def _loses_target(self, inputs, y, codes):
        """Whether the components of a sample lose what the columns tell of the target."""
        chosen = choose_spread(len(inputs), GUARD_ROWS)
        sample = take_rows(inputs, chosen, n_jobs=self.n_jobs)
        components = self.projection_.project(sample)["projected"]
        codes = None if codes is None else np.asarray(codes)[chosen]
        return loses_target(sample, components, np.asarray(y, dtype=np.float64)[chosen], codes)

    def describe_units(self, block):
        """Say in what unit flux or errors of odd rows seem to be, as a sentence and a space, or nothing."""
        return self.projection_.describe_units(take_columns(block, self._input))

    def without_gates(self):
        """Return the same reduction without gate features."""
        reduction = copy.copy(self)
        reduction.gates = {}
        return reduction

    def with_gates(self, gates):
        """Return the same reduction with the towers of other gates, whose features stay those that were fitted."""
        missing = [name for name in gates if name not in (self.gates or {})]
        if missing:
            raise ValueError(
                f"DualTowerMoERegressor.{missing[0]}_gate is used, but the rows were reduced without it: drop it here "
                "too, or reduce the rows with it."
            )
        reduction = copy.copy(self)
        reduction.gates = {name: self.gates[name].with_tower_of(gate) for name, gate in gates.items()}
        return reduction

    def read(self, X, *, training=False, numbers=None, stages=None):
        """Reduce all rows of `X`.

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)
        training : bool, default=False
            Whether these are the rows of `fit`, in their order.
        numbers : None or ndarray of int of shape (n_samples,), default=None
            Numbers of these rows among those of `fit`, where they are some of them.
        stages : None or FitStages, default=None
            Runs the pass over the rows.

        Returns
        -------
        rows : ReducedRows
            About half a kilobyte for a row of a spectrum.
        """
        return ReducedRows.of(self, self._collect(open_rows(self, X, reset=False), training, stages, numbers))

    def hold(self, source, stages):
        """Reduce all training rows where they are few enough to be held, up to `HELD_ROWS`, else return `source`.

        Parameters
        ----------
        source : RowSource
            The rows of `fit`.
        stages : FitStages

        Returns
        -------
        rows : ReducedRows or RowSource
        """
        if len(source) > HELD_ROWS:
            return source
        columns = stages.stage("reduced rows", self.settings, lambda: self._collect(source, True, stages))
        return ReducedRows.of(self, columns)

    def _collect(self, source, training, stages=None, numbers=None):
        reading = Collect(partial(self._reduce_block, training, numbers), n_jobs=self.n_jobs)
        (reading,) = (stages or FitStages()).run("reduced rows", self, [reading], source, n_jobs=self.n_jobs)
        return reading.found.joined()

    def _reduce_block(self, training, numbers, first_row, block):
        rows = first_row if numbers is None else numbers[first_row + np.arange(len(block))]
        return self.reduce(rows, block, training=training or numbers is not None)

    def reduce(self, first_row, block, *, training=False):
        """Reduce a block of rows.

        Parameters
        ----------
        first_row : int or ndarray of int of shape (n_rows,)
            Number of the first row, or of each.
        block : ndarray of shape (n_rows, n_features)
        training : bool, default=False
            Whether these are rows of `fit`, which are then projected as :meth:`Projection.project` does with those.

        Returns
        -------
        columns : dict of str to ndarray
            As `ReducedRows.columns`.
        """
        row_numbers = first_row + np.arange(len(block)) if np.ndim(first_row) == 0 else first_row
        if self.error_columns_ is not None:
            block = self._masked(block)
            error = take_columns(block, self.error_columns_)
            require_positive_errors(self.owner, error, self.error_columns_, first_row=row_numbers[0])
        with config_context(assume_finite=True, transform_output="default"):  # the rows were checked at the door
            columns = {FEATURES + name: gate.transform(block) for name, gate in (self.gates or {}).items()}
            inputs, known = take_columns(block, self._input), row_numbers if training else None
            if self.informs:
                columns |= self.projection_.inform(inputs, known)
            if self.gates or not self.informs:
                columns |= self.projection_.project(inputs, known)
        found = columns["information" if self.informs else "projected"]
        if not np.isfinite(found).all():
            row = int(np.flatnonzero(~np.isfinite(found).all(axis=1))[0])
            name = type(self.projection_.transformer or self.projection_).__name__
            raise ValueError(
                f"{self.owner}.projection={name} returned NaN or infinity for row "
                f"{row_numbers[row]} of X: projected columns must be finite. "
                f"{self.describe_units(block[row : row + 1])}Check its parameters and that row."
            )
        if self.error_columns_ is not None:
            columns["snr"] = signal_to_noise(take_columns(block, self.columns_), error)
        return columns

    def _masked(self, rows):
        """Return rows in which pixels that were not measured have an infinite error, and no finite flux."""
        if not allows_nan(self):
            return rows
        masked, places = rows, [column_index(columns) for columns in (self.columns_, self.error_columns_)]
        for start in range(0, len(rows), MASK_ROWS):
            some = slice(start, start + MASK_ROWS)
            parts = [rows[some, place] for place in places]
            measured = [np.isfinite(part) for part in parts]
            if not np.array_equal(*measured) or np.isnan(parts[1].min()):
                masked = rows.copy() if masked is rows else masked
                for place, part, value in zip(places, parts, (np.nan, np.inf), strict=True):
                    masked[some, place] = np.where(measured[0] & measured[1], part, value)
        return masked

    def snr_of(self, block):
        """Signal-to-noise ratio of the rows of a block (n_rows,), where there are `error_columns`."""
        block = self._masked(block)
        return signal_to_noise(take_columns(block, self.columns_), take_columns(block, self.error_columns_))


def loses_target(columns, components, y, codes=None):
    """Whether linear models of the target lose by working on components in place of the columns.

    Components hold what columns share; a target that depends on what each column has alone is lost. Compared are the
    adjusted R^2 of least squares, of y and of y within each regime; of more than `GUARD_COLUMNS` columns, or half the
    rows, components are kept.

    Parameters
    ----------
    columns : ndarray of shape (n_samples, n_columns)
    components : ndarray of shape (n_samples, n_components)
    y : ndarray of shape (n_samples,)
    codes : None or ndarray of int of shape (n_samples,), default=None
    """
    n_rows, width = columns.shape
    if width > min(GUARD_COLUMNS, n_rows // 2) or np.ptp(y) == 0:
        return False
    centred = y - y.mean()
    regimes = [] if codes is None else [np.where(codes == code, centred, 0.0) for code in np.unique(codes)]
    targets = np.column_stack([centred, *regimes])
    targets -= targets.mean(axis=0)
    total = np.square(targets).sum(axis=0)

    def adjusted(design):
        design = design - design.mean(axis=0, dtype=np.float64)
        scale = design.std(axis=0)
        left, values, _ = np.linalg.svd(design / np.where(scale > 0, scale, 1.0), full_matrices=False)
        left = left[:, values > 1e-9 * values[0]]
        unexplained = 1 - np.square(left.T @ targets).sum(axis=0) / np.where(total > 0, total, 1.0)
        return 1 - unexplained * (n_rows - 1) / max(n_rows - left.shape[1] - 1, 1)

    excess = (adjusted(columns) - adjusted(components)).max()
    return bool(excess > max(0.01, 4 * np.sqrt(2 * width) / (n_rows - width)))


@dataclass(frozen=True, eq=False, repr=False)
class ReducedRows:
    """Rows that were reduced once, for any number of fits and predictions by mixtures with the same reduction.

    `DualTowerMoERegressor.fit`, `predict` and `trace` take them in place of X. The mixture may differ from the one that
    the reduction was made for in fusion, dropped towers, quality bins, sharing and everything about training.

    Parameters
    ----------
    reduction : Reduction
    projected : None or ndarray of shape (n_samples, n_projected)
        What ridge experts work with.
    snr : None or ndarray of shape (n_samples,)
        Signal-to-noise ratio ||flux|| / ||error||; None without errors.
    features : dict of str to ndarray of shape (n_samples, n_gate_features)
        Features of each gate, under "phys" and "quality".
    variances : None or ndarray of shape (n_samples, n_projected)
        Posterior variances of the projected columns, where the projection has them.
    information : None or ndarray of shape (n_samples, n_factors * (n_factors + 3) / 2)
        What factor experts work with; see :meth:`~dualgate.features.Projection.information`.
    beside : dict of str to ndarray
        What else the projection informs of; see :meth:`~dualgate.features.Projection.inform`.
    """

    reduction: Reduction
    projected: np.ndarray | None
    snr: np.ndarray | None
    features: dict
    variances: np.ndarray | None = None
    information: np.ndarray | None = None
    beside: dict = field(default_factory=dict)

    @classmethod
    def of(cls, reduction, columns):
        """Make them from `columns`, a mapping such as `Reduction.reduce` returns."""
        features = {name.removeprefix(FEATURES): columns[name] for name in columns if name.startswith(FEATURES)}
        named = {name: columns.get(name) for name in STAGES}
        beside = {name: values for name, values in columns.items() if name not in STAGES and FEATURES not in name}
        return cls(reduction, features=features, beside=beside, **named)

    @property
    def columns(self):
        """All arrays by name: ``projected``, ``snr``, ``variances`` where known, and ``features_phys`` and the like."""
        named = {name: getattr(self, name) for name in STAGES} | self.beside
        named |= {FEATURES + name: values for name, values in self.features.items()}
        return {name: values for name, values in named.items() if values is not None}

    def __repr__(self):
        return f"ReducedRows({len(self):,} rows: {', '.join(f'{n} {v.shape[1:]}' for n, v in self.columns.items())})"

    def __len__(self):
        return len(self.information if self.projected is None else self.projected)

    def __getitem__(self, rows):
        return ReducedRows.of(self.reduction, {name: values[rows] for name, values in self.columns.items()})

"""Ridge experts for every cell of regime x quality bin, in closed form from sufficient statistics."""

import copy
import math
import numbers
from dataclasses import dataclass, replace

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from dualgate._validation import allows_nan, check_choice, check_number, make_generator
from dualgate.experts.cells import (
    QUANTILE_BINS,
    CellSums,
    Target,
    cells_of,
    check_folds,
    check_quality_edges,
    draw_folds,
    find_edges,
    warn_of_empty_cells,
)
from dualgate.experts.regimes import describe_conditions, regime_codes
from dualgate.experts.ridges import Ridges, check_given_alphas, check_memory_for, fit_ridges, penalties
from dualgate.experts.sharing import SHARING
from dualgate.features.discriminants import find_discriminants
from dualgate.reduction import ReducedRows, Reduction
from dualgate.rows import FitStages, map_blocks, open_fit_rows, open_rows, run_passes, spread_rows
from dualgate.snr import quality_bins
from dualgate.statistics import CellStatistics
from dualgate.trace import TRACE_WIDTH

FIXED = ("columns", "error_columns", "quality_edges", "regime_edges", "projection", "n_components", "cv")


@dataclass(frozen=True, eq=False)
class Solution:
    """Experts solved from statistics; each `Ridges` is without every fold, and last on all rows."""

    models: Ridges
    root: Ridges
    root_alpha: float  # in columns divided by `unit`
    unit: np.ndarray  # (n_projected,), what columns were divided by before they were penalised
    counts: np.ndarray  # (n_regimes, n_bins), training rows
    edges: np.ndarray  # (n_bins - 1,)
    bounds: tuple  # of the predictions


@dataclass(frozen=True, eq=False)
class LearnedRows:
    """What a fit leaves for the gates."""

    columns: dict | None  # reduced columns of the rows that were kept, with their `cells` and `folds`
    solution: Solution
    statistics: CellStatistics  # leading axes (n_folds, n_regimes, n_bins)


@dataclass(frozen=True, eq=False)
class PartialState:
    """Sums of all calls of `partial_fit` so far, and what the first one fixed."""

    reduction: Reduction
    statistics: CellStatistics  # leading axes (n_folds, n_regimes, n_bins)
    target: Target
    edges: np.ndarray
    generator: np.random.Generator
    fixed: dict

    def of_same(self, owner):
        """Return this if the parameters of `owner` that the first call fixed are as they were."""
        for name, value in self.fixed.items():
            if repr(getattr(owner, name)) != repr(value):
                raise ValueError(
                    f"HierarchicalExperts.{name}={getattr(owner, name)!r} differs from {value!r}, which the first call "
                    "of partial_fit fixed: set it back, or begin with a new object."
                )
        return self


class HierarchicalExperts(RegressorMixin, BaseEstimator):
    r"""One ridge regression for each cell of physical regime and quality bin.

    Expert ``k * n_quality_bins_ + s`` serves regime k at quality bin s. All of them, the root ridge over all rows and
    the models without each fold follow from one pass over the rows. Without regimes `predict` and `score` use the root
    alone: search over parameters of the experts inside a :class:`~dualgate.DualTowerMoERegressor`.

    Parameters
    ----------
    columns : column specification, default=None
        Columns the experts read, as in ColumnTransformer (slice, list, names, mask, callable); None is all columns.
    error_columns : None or column specification, default=None
        Errors of those columns, one each, in the same order. Needed for quality bins and used by ``"whitened"`` and
        ``"wiener"``; with these two, or objects of theirs, a pixel whose flux or error is NaN or infinite counts as not
        measured.
    quality_edges : None, "quantile" or increasing sequence of float, default=None
        Edges of the quality bins in signal-to-noise ratio ||flux|| / ||error||; a ratio equal to an edge belongs to
        the bin below. ``(2, 4, 7)`` makes four bins, None a single one. ``"quantile"`` cuts the ratios of the training
        rows (of the first call of `partial_fit`) into four bins of equal counts, fewer where many ratios are equal.
        Where rows are few, less than ten a cell, neighbouring bins are merged.
    regime_edges : None or sequence of increasing sequences, default=None
        One sequence per physical condition, for `regimes` given to `fit` as conditions (n_samples, n_conditions).
        ``((4500, 5250), (-1, 0))`` makes nine regimes.
    sharing : {"shrink", "independent", "offset", "scale", "alpha"}, default="shrink"
        What the cells share.

        - ``"independent"``: every cell its own ridge and penalty.
        - ``"offset"``: w_k + Delta_s, with Delta_s common to all regimes, solved jointly.
        - ``"shrink"``: ridge towards the regime's ridge, which is a ridge towards the root.
        - ``"scale"``: gamma_s w_k (x - mean of regime k) + b_k + beta_s, with gamma_s and beta_s common to all regimes.
        - ``"alpha"``: w_k(alpha_s), one ridge path for each regime, one penalty for each quality bin.
    alphas : None or sequence of float above zero, default=None
        Penalties to choose from by held-out error, as in RidgeCV. None is a log grid from a hundredth of the smallest
        to a million times the mean variance of the projected columns.
    projection : {"auto", "whitened", "wiener"}, None or transformer, default="auto"
        What reduces the columns before the ridges. None keeps the columns, whose penalties are then in units of their
        scatter within a cell. ``"auto"`` is None for up to `n_components` columns, above that ``"whitened"`` where
        there are `error_columns` and :class:`~dualgate.features.SignalPCA` where there are none.
        ``"whitened"`` is :class:`~dualgate.features.NoiseWhitenedPCA`, ``"wiener"`` a supervised
        :class:`~dualgate.features.WienerScores`; supervised WienerScores use y and the regimes, and reduce training
        rows by loadings that did not see them. Any other transformer receives the selected columns, and never y. A
        fitted one stays as it is inside :class:`sklearn.frozen.FrozenEstimator`; a NoiseWhitenedPCA or WienerScores
        with error columns is given [flux | error].
    n_components : int, default=50
        Components of the projections ``"auto"`` and ``"whitened"``, at most; free factors of ``"wiener"``.
    clip : bool, default=False
        Hold every prediction within the range of the training targets. A linear expert overshoots where the noise is
        strong; no use where targets beyond the training range are expected.
    cv : int, default=5
        Folds for choosing penalties and for the cross-fitted predictions of `fit_predict_each`.
    n_jobs : None or int, default=None
        Threads that read rows and compute; -1 is one per core. Matrix products have threads of their own.
    random_state : int, RandomState or None, default=None
        Draws the folds.

    Attributes
    ----------
    n_regimes_, n_quality_bins_, n_experts_ : int
    coef_ : ndarray of shape (n_experts, n_projected)
        Coefficients in projected columns.
    intercept_ : ndarray of shape (n_experts,), [unit of y]
    alpha_ : ndarray of shape (n_experts,)
        Penalty of each expert; infinity is the parent itself. With ``"offset"`` that of the regimes; one
        for all with ``"scale"``, for a bin with ``"alpha"``.
    quality_edges_ : ndarray of shape (n_quality_bins - 1,)
        Edges of the quality bins, given or found.
    root_coef_, root_intercept_ : ndarray of shape (n_projected,), float
        The one ridge for all rows.
    y_range_ : tuple of float
        Smallest and largest training target, what predictions are held within; infinite without `clip`.
    cell_counts_ : ndarray of int of shape (n_regimes, n_quality_bins)
        Training rows of each cell.
    projection_ : transformer or None
    columns_ : ndarray of int
    n_features_in_ : int

    References
    ----------
    Hoerl & Kennard 1970, Technometrics 12, 55 (ridge regression). Jacobs et al. 1991, Neural Computation 3, 79
    (mixtures of experts).

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X, regimes = rng.normal(size=(200, 3)), np.repeat([0, 1], 100)
    >>> y = np.where(regimes == 0, X[:, 0], -X[:, 1])
    >>> experts = HierarchicalExperts(random_state=0).fit(X, y, regimes=regimes)
    >>> experts.predict_each(np.eye(3)).round(1) + 0.0
    array([[ 1.,  0.],
           [ 0., -1.],
           [ 0.,  0.]])
    """

    # cross-validation under metadata routing slices `regimes` without being asked
    __metadata_request__fit = {"regimes": True}  # noqa: RUF012  (scikit-learn reads it from the class)
    __metadata_request__predict = {"regimes": False}  # noqa: RUF012

    def __init__(
        self,
        columns=None,
        error_columns=None,
        *,
        quality_edges=None,
        regime_edges=None,
        sharing="shrink",
        alphas=None,
        projection="auto",
        n_components=50,
        clip=False,
        cv=5,
        n_jobs=None,
        random_state=None,
    ):
        self.columns = columns
        self.error_columns = error_columns
        self.quality_edges = quality_edges
        self.regime_edges = regime_edges
        self.sharing = sharing
        self.alphas = alphas
        self.projection = projection
        self.n_components = n_components
        self.clip = clip
        self.cv = cv
        self.n_jobs = n_jobs
        self.random_state = random_state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = allows_nan(self.make_reduction())
        return tags

    def fit(self, X, y, *, regimes=None, checkpoint=None):
        """Fit every expert.

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)
            Up to 200,000 rows are read once, reduced and held; more are read block by block and only their sums kept.
            A fit of Wiener scores reads up to 60,000 of the rows some times before.
        y : array-like of shape (n_samples,)
            Targets.
        regimes : None or array-like of shape (n_samples,) or (n_samples, n_conditions), default=None
            Integer codes, or conditions to be cut at `regime_edges`. None is one regime.
        checkpoint : None or path, default=None
            Directory that keeps what was found so far, so that a fit that was killed continues there. It needs an
            integer `random_state` and stays until deleted. Its files are pickles, which can run any code when they are
            read: name a directory that you alone write. Files that others own or may write are refused.

        Returns
        -------
        self : HierarchicalExperts

        Raises
        ------
        ValueError
            If a parameter, `X`, `y`, the errors or `regimes` are not as described.

        Warns
        -----
        EmptyCellWarning
            If a regime or a cell holds no row.
        """
        self._fit(X, y, regimes, checkpoint)
        return self

    def fit_predict_each(self, X, y, *, regimes=None):
        """Fit, and predict every training row by experts that did not see it.

        Parameters
        ----------
        X, y, regimes
            As in `fit`.

        Returns
        -------
        expert_predictions : ndarray of shape (n_samples, n_experts), [unit of y]
            Cross-fitted, penalties included. The loadings of most projections are those of all rows.
        """
        learned = self._fit(X, y, regimes, keep=True)
        return self.cross_fitted(learned)

    def _fit(self, X, y, regimes, checkpoint=None, *, keep=False):
        vars(self).pop("coef_", None)  # a fit that fails leaves no part of an older one
        source, y = open_fit_rows(self, X, y)
        self.check_parameters()
        codes, n_regimes = regime_codes(self, regimes, self.regime_edges, len(y))
        stages = FitStages.of(self, None, checkpoint, source, y, codes)
        reduction = self.make_reduction().prepare(X, source)
        self.check_memory(reduction, n_regimes)
        reduction.learn(X, source, y, codes, stages)
        ranges = describe_conditions(regimes, self.regime_edges)
        kept = np.ones(len(y), dtype=bool) if keep else None
        rows = reduction.hold(source, stages)
        return self.learn(reduction, rows, y, codes, n_regimes, stages=stages, kept=kept, ranges=ranges)

    def check_parameters(self):
        """Raise a ValueError where a parameter is not as described; nothing is read for it."""
        check_choice(self, "sharing", self.sharing, SHARING)
        check_given_alphas(self)
        check_quality_edges(self)
        check_folds(self)

    def make_reduction(self, gates=None, n_jobs=None):
        """Make the reduction, not fitted, to what these experts and the given gates work with."""
        settings = {name: getattr(self, name) for name in ("columns", "error_columns", "projection", "n_components")}
        n_jobs = n_jobs if self.n_jobs is None else self.n_jobs
        return Reduction(**settings, gates=gates, n_jobs=n_jobs, owner=type(self).__name__)

    def check_memory(self, reduction, n_regimes):
        """Raise a ValueError where the sums would not fit in memory, if their width is known before rows are read."""
        if reduction.n_projected is None:
            return
        edges = self.quality_edges
        n_bins = 1 if edges is None else QUANTILE_BINS if isinstance(edges, str) else len(edges) + 1
        n_folds = self.cv if isinstance(self.cv, numbers.Integral) else self.cv.get_n_splits()
        check_memory_for(self, n_folds * n_regimes * n_bins, reduction.n_projected)

    def learn_reduction(self, reduction, X, source, y, codes, stages):
        """Fit a prepared reduction; what `learn` is to begin with, here nothing."""
        reduction.learn(X, source, y, codes, stages)

    def learn(
        self, reduction, rows, y, codes, n_regimes, *, finder=None, begun=None, kept=None, stages=None, ranges="",
        depends=(),
    ):  # fmt: skip
        """Fit to `ReducedRows`, or to a source that a fitted reduction reads once; returns `LearnedRows`.

        `codes` are the regimes of the rows, 0 to n_regimes - 1, None where `finder` finds them, `begun` is what
        `learn_reduction` returned, and `kept` a mask of the rows that are returned. `ranges` describes conditions in a
        warning of empty cells, `depends` is what the sums depend on in addition to the parameters of this object, for
        `stages`.
        """
        target, stages, in_hand = Target.of(self, y), stages or FitStages(), isinstance(rows, ReducedRows)
        sample = rows
        if not in_hand:
            some = spread_rows(rows, n_jobs=reduction.n_jobs, finite=not allows_nan(reduction))
            sample = ReducedRows.of(reduction, reduction.reduce(0, some))
        edges = find_edges(self, sample.snr, n_regimes, len(y))
        if in_hand and codes is None:
            codes = finder.codes(rows.columns)
        known = np.zeros(len(y), dtype=np.intp) if codes is None else codes
        folds = draw_folds(self, cells_of(known, rows.snr, edges) if in_hand else known)
        shape, origin = (int(folds.max()) + 1, n_regimes, len(edges) + 1), sample.projected.mean(axis=0, dtype=float)
        check_memory_for(self, math.prod(shape), len(origin))

        def sums_of(codes):
            return CellSums(
                reduction, shape, origin, target.scaled(y), codes, folds, edges,
                finder=finder, kept=kept, n_jobs=reduction.n_jobs,
            )  # fmt: skip

        sums = sums_of(codes)
        if in_hand:
            sums.take_in(0, rows.columns)
        else:
            depends = [reduction.settings, edges, folds, kept, depends]
            sums.found = stages.stage(
                "cell sums", depends, lambda: stages.run("cell sums", self, [sums], rows, reduction.n_jobs)[0].found
            )
        solution = self._solve(reduction, sums.statistics, target, edges)
        crossed = finder.codes_without_folds(rows.columns, y, folds) if in_hand and finder is not None else codes
        if crossed is not codes and np.any(crossed != codes):
            sums = sums_of(crossed)  # of what cross-fitted predictions and gates learn from
            sums.take_in(0, rows.columns)
            models = self._solve(reduction, sums.statistics, target, edges).models.ending_as(solution.models)
            solution = replace(solution, models=models)
        self._assign(reduction, solution)
        warn_of_empty_cells(self, self.cell_counts_, ranges)
        kept = sums.found["kept"].joined() if kept is not None and kept.any() else None
        return LearnedRows(kept, solution, sums.statistics)

    def _solve(self, reduction, statistics, target, edges):
        """Solve for the experts of all rows and without each fold, from statistics (n_folds, n_regimes, n_bins)."""
        unit = np.ones(len(statistics.origin))
        if not reduction.projection_.common_unit:
            unit = statistics.sum(0).spreads()
        scaled = statistics.scaled(unit)
        alphas = penalties(self, scaled)
        root = fit_ridges(scaled.sum((1, 2)).reshape(len(scaled.count), 1), alphas)
        models = SHARING[self.sharing](scaled, alphas, root)
        root_alpha = root.alpha[0]
        root, models = (each.in_units(unit, target.mean, target.scale) for each in (root, models))
        counts = statistics.count.sum(axis=0).astype(int)
        bounds = (target.low, target.high) if self.clip else (-np.inf, np.inf)
        return Solution(models, root, root_alpha, unit, counts, edges, bounds)

    def _assign(self, reduction, solution):
        """Take over a solution, with all that scikit-learn asks a fitted estimator for."""
        vars(self).pop("_partial", None)
        self.reduction_ = reduction.without_gates()
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(reduction, name):
                setattr(self, name, getattr(reduction, name))
        self.columns_, self.projection_ = reduction.columns_, reduction.projection_.transformer
        models, root = solution.models, solution.root
        self.cell_counts_, self.quality_edges_, self.y_range_ = solution.counts, solution.edges, solution.bounds
        self.n_regimes_, self.n_quality_bins_ = solution.counts.shape
        self.n_experts_ = solution.counts.size
        self.coef_, self.intercept_, self.alpha_ = models.coef[-1], models.intercept[-1], models.alpha
        self.root_coef_, self.root_intercept_ = root.coef[-1, 0], root.intercept[-1, 0]

    @property
    def n_projected(self):
        """Number of projected columns."""
        return self.coef_.shape[1]

    def projected_coefficients(self):
        """Coefficients of every expert and, last, of the root in projected columns (n_experts + 1, n_projected)."""
        return np.vstack([self.coef_, self.root_coef_])

    def stages(self, columns):
        """Stages of a prediction that are the experts', by the names of a `MixtureTrace`, from reduced columns."""
        each = self.predict_reduced(columns)
        return {"expert_predictions": each[:, :-1], "root_prediction": each[:, -1]}

    def cross_fitted_stages(self, learned):
        """Return the same for the kept training rows, by models that did not see them; without the root."""
        return {"expert_predictions": self.cross_fitted(learned)}

    def discriminants(self, learned):
        """Linear discriminants of the cells in projected columns, None where there are too many columns."""
        unit = learned.solution.unit
        found = find_discriminants(learned.statistics.scaled(unit), learned.solution.root_alpha)
        return None if found is None else found.in_units(unit)

    def cross_fitted(self, learned):
        """Predictions of the kept training rows (n_samples, n_experts) by models that did not see them."""
        projected, folds, models = learned.columns["projected"], learned.columns["folds"], learned.solution.models
        predictions = np.empty((len(projected), self.n_experts_))
        for fold in range(len(models.coef) - 1):
            rows = folds == fold
            predictions[rows] = projected[rows] @ models.coef[fold].T + models.intercept[fold]
        return np.clip(predictions, *self.y_range_)

    def partial_fit(self, X, y, *, regimes=None, n_regimes=None):
        """Add rows to those of earlier calls and solve again; rows are not kept, their sums are.

        The first call fixes what cannot change once rows are summed: columns, bins, regimes, folds, and the projection,
        which it learns from its own rows. Give it some thousand typical ones, or a projection that was fitted before,
        wrapped in :class:`sklearn.frozen.FrozenEstimator`. Rows of an earlier `fit` are not included, and cells that
        are still empty follow their parents without a warning. A call that raises leaves the experts as they were.

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
            Targets.
        regimes : None or array-like, as in `fit`, default=None
        n_regimes : None or int, default=None
            Of all rows to come, where `regimes` are codes; read in the first call. None is what that call holds.

        Returns
        -------
        self : HierarchicalExperts

        Raises
        ------
        ValueError
            As `fit`, if a later call brings an unknown regime, or a parameter that the first call fixed was changed.
        """
        self.check_parameters()
        check_number(self, "cv", self.cv, kind=numbers.Integral, low=2, hint="partial_fit draws folds at random.")
        known = vars(self).get("_partial")
        source, y = open_fit_rows(self, X, y, reset=known is None, min_samples=2 if known is None else 1)
        n_known = n_regimes if known is None else known.statistics.count.shape[1]
        codes, n_found = regime_codes(self, regimes, self.regime_edges, len(y), n_known=n_known)
        if known is None:
            state = self._begin_partial(X, source, y, codes, n_found if n_regimes is None else n_regimes)
        else:
            state = known.of_same(self)
        reduction, statistics, edges = state.reduction, state.statistics, state.edges
        n_known = statistics.count.shape[1]
        if n_found > n_known:
            raise ValueError(
                f"HierarchicalExperts.partial_fit: regimes holds the code {codes.max()}, the first call fixed "
                f"{n_known} regimes, 0 to {n_known - 1}: give n_regimes= in the first call."
            )
        generator = copy.deepcopy(state.generator)  # a call that raises must not move it
        sums = CellSums(
            reduction, statistics.count.shape, statistics.origin, state.target.scaled(y), codes,
            generator.integers(self.cv, size=len(y)), edges, training=known is None, n_jobs=self.n_jobs,
        )  # fmt: skip
        (sums,) = run_passes(self, [sums], source, n_jobs=self.n_jobs)
        statistics, target = statistics + sums.statistics, state.target.widened(y)
        self._assign(reduction, self._solve(reduction, statistics, target, edges))
        self._partial = replace(state, statistics=statistics, target=target, generator=generator)
        return self

    def _begin_partial(self, X, source, y, codes, n_regimes):
        """Fix what cannot change once rows are summed."""
        check_number(self, "n_regimes", n_regimes, kind=numbers.Integral, low=1)
        reduction = self.make_reduction().prepare(X, source).learn(X, source, y, codes)
        sample = reduction.reduce(0, spread_rows(source, n_jobs=self.n_jobs, finite=not allows_nan(reduction)))
        edges = find_edges(self, sample.get("snr"), n_regimes, None)
        shape, origin = (self.cv, n_regimes, len(edges) + 1), sample["projected"].mean(axis=0, dtype=np.float64)
        check_memory_for(self, math.prod(shape), len(origin))
        empty = CellStatistics.zeros(math.prod(shape), len(origin), origin=origin).reshape(*shape)
        fixed, generator = {name: getattr(self, name) for name in FIXED}, make_generator(self, self.random_state)
        return PartialState(reduction, empty, Target.of(self, y), edges, generator, fixed)

    def predict_each(self, X, *, with_root=False):
        """Prediction of every expert for every row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        with_root : bool, default=False
            Return the prediction of the root ridge too.

        Returns
        -------
        expert_predictions : ndarray of shape (n_samples, n_experts), [unit of y]
        root_prediction : ndarray of shape (n_samples,), [unit of y]
            Only if `with_root`.
        """
        each = self._over_blocks(X, lambda columns, first: self.predict_reduced(columns))
        return (each[:, :-1], each[:, -1]) if with_root else each[:, :-1]

    def predict_reduced(self, columns):
        """Prediction of every expert and, last, of the root, from reduced columns (n_samples, n_experts + 1)."""
        projected, coef = columns["projected"], self.projected_coefficients()
        unit = np.abs(coef).max() or 1.0  # keeps coefficients of any unit within single precision
        product = projected @ (coef / unit).T.astype(projected.dtype)
        return np.clip(product.astype(np.float64) * unit + np.r_[self.intercept_, self.root_intercept_], *self.y_range_)

    def score_variances(self, columns):
        """Variance that the posterior variances of scores give the prediction of every expert (n_rows, n_experts)."""
        if "variances" not in columns:
            return np.zeros((len(columns["projected"]), self.n_experts_))
        return columns["variances"].astype(np.float64) @ np.square(self.coef_).T

    def watch(self):
        """Return None: ridges do not describe rows."""

    def predict(self, X, *, regimes=None):
        """Prediction by each row's own expert where its regime is known, by the root ridge where not.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        regimes : None or array-like, as in `fit`, default=None
            True regimes make this the reference that a gate is measured against.

        Returns
        -------
        prediction : ndarray of shape (n_samples,), [unit of y]
        """
        if regimes is None:
            return self._over_blocks(X, lambda columns, first: self.predict_reduced(columns)[:, -1])
        bins = self.quality_bins(X)
        cells = self._known_codes(regimes, len(bins)) * self.n_quality_bins_ + bins

        def own(columns, first):
            each = self.predict_reduced(columns)
            return each[np.arange(len(each)), cells[first : first + len(each)]]

        return self._over_blocks(X, own)

    def quality_bins(self, X):
        """Quality bin of every row of `X`, 0 for the lowest signal-to-noise ratio.

        Returns
        -------
        bins : ndarray of int of shape (n_samples,)
        """
        if hasattr(self, "n_quality_bins_") and self.n_quality_bins_ == 1:
            return np.zeros(len(open_rows(self, X, reset=False)), dtype=np.intp)
        return quality_bins(self._over_blocks(X, lambda columns, first: columns["snr"]), self.quality_edges_)

    def cells_of(self, regimes, snr, n_rows):
        """Cell of rows whose regimes are known, as codes or conditions, at these signal-to-noise ratios."""
        return cells_of(self._known_codes(regimes, n_rows), snr, self.quality_edges_)

    def _known_codes(self, regimes, n_rows):
        codes, n_regimes = regime_codes(self, regimes, self.regime_edges, n_rows, n_known=self.n_regimes_)
        if n_regimes > self.n_regimes_:
            raise ValueError(
                f"{type(self).__name__}.predict: regimes holds the code {codes.max()}, the experts were fitted with "
                f"regimes 0 to {self.n_regimes_ - 1}: fit with rows of that regime, or leave regimes=None."
            )
        return codes

    def _over_blocks(self, X, function):
        """Join ``function(columns, first_row)`` over the reduced columns of all rows."""
        check_is_fitted(self, "coef_")
        source = open_rows(self, X, reset=False)

        def run(first, block):
            return function(self.reduction_.reduce(first, block), first)

        return map_blocks(self, run, source, n_jobs=self.n_jobs, width=TRACE_WIDTH * self.n_experts_)

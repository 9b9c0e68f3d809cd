"""Experts that say how likely each of them is to have made a row: a factor mixture, joint with the target."""

import numbers
import warnings
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import KDTree
from scipy.special import log_softmax, logsumexp, softmax
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.cluster import KMeans
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted

from dualgate._validation import allows_nan, check_number
from dualgate.density import MixtureDensity
from dualgate.experts.factor_mixture import (
    PLANE_ROWS,
    ColumnNoise,
    FactorMixture,
    MixtureSums,
    first_mixture,
    log_prior,
    maximise,
)
from dualgate.experts.novelty import NoveltyScale, Oddities, Watch, misfit_of
from dualgate.experts.regimes import EmptyCellWarning, regime_codes
from dualgate.features.discriminants import find_discriminants
from dualgate.features.factors import Span, posterior_mean, split_information, unfold
from dualgate.intervals import CALIBRATION_ROWS, IntervalScale
from dualgate.reduction import ReducedRows, Reduction
from dualgate.rows import (
    ArrayRows,
    FitStages,
    choose_spread,
    iter_blocks,
    map_blocks,
    open_fit_rows,
    open_rows,
    run_passes,
)
from dualgate.statistics import CellStatistics
from dualgate.trace import TRACE_WIDTH, MixtureTrace

FACTORS = (8, 16, 24)  # factors of a component that "auto" compares, as long as the score rises
GROUPS = (1, 2, 4, 6, 8, 12)  # components for each regime that "auto" compares, as long as the score rises
ALONE = (1, 2, 3, 5, 9, 16, 28, 50)  # components that it compares where no regimes are given
SEARCH_ROWS = 10_000  # rows that these are compared on
COMPONENT_ROWS = 60  # rows for each component that "auto" asks for
SLOPE_CLUSTERS, SLOPE_ROWS = 14, 50  # where slopes are compared: at most so many clusters, of so many rows
LEAST_STRETCH = 0.2  # of directions in which slopes do not differ, where the most is one more
TARGET_WEIGHT = 0.5  # of the target beside the scores that are clustered
SAME = 1e-3  # difference of moments, in units of the scores and the target, below which components are the same
NAMED = 10  # components that a warning names
FEWEST_ROWS = 16  # rows of a group of targets that the mixture starts from
CHOICE_STEPS, START_STEPS, ROUND_STEPS = 4, 6, 2  # of expectation-maximisation: to compare, to start, between loadings
FEW_COMPONENTS = 9  # up to which clusters are compared after twice as many steps
FOLD_STEPS = 6  # of a mixture without a fold: after the first alone, what it knew of those rows makes intervals narrow
FOLD_ROWS = 30_000  # up to which these are taken: of more, with a thousand for each component, each is known less
MOST_COLUMNS = 24  # of a projection without errors
SCORE_PENALTY = 1.0  # of ridges on the scores, whose variance is at most one: as of one row


@dataclass(frozen=True, eq=False)
class TargetScale:
    """Units (y - mean) / scale of every target (n_targets,)."""

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, y):
        """Take the units from targets (n_samples, n_targets)."""
        scale = y.std(axis=0)
        return cls(y.mean(axis=0), np.where(scale > 1e-12 * np.abs(y).max(axis=0), scale, 1.0))

    def scaled(self, y):
        """Return targets in these units."""
        return (y - self.mean) / self.scale


@dataclass(frozen=True, eq=False)
class FactorStart:
    """A factor mixture before its last steps, in units of the target."""

    mixture: FactorMixture
    target: TargetScale


@dataclass(frozen=True, eq=False)
class Climbed:
    """What some steps of expectation-maximisation led to."""

    mixture: FactorMixture
    noise: ColumnNoise | None
    n_steps: int
    log_density: float


@dataclass(frozen=True, eq=False)
class LearnedFactors:
    """What a fit leaves for the gates."""

    columns: dict  # reduced columns of the rows that were kept, with their `cells` and `folds`
    mixtures: list  # without every fold, and last of all rows
    y: np.ndarray  # (n_kept, n_targets), scaled


class FactorExperts(RegressorMixin, BaseEstimator):
    r"""Experts whose weights are a likelihood: a mixture of factor analysers with known noise, joint with the target.

    A row is :math:`x = \bar x + V z + \epsilon` with noise of known variances E, its errors squared. In component k
    the factors are :math:`z = m_k + U_k t` and the target is :math:`y = c_k + V_k^T t + N(0, S_k)`, with a few
    :math:`t \sim N(0, I)`. For a row with these errors the probability of every component, its best prediction and the
    variance of that follow in closed form; nothing about noise has to be learned. Errors are a condition, never
    evidence: p(row | component, errors).

    Inside a :class:`~dualgate.DualTowerMoERegressor` the log evidence of the components is added to the logits that the
    fusion gives; with both towers dropped it decides alone. On its own this class is a regressor that predicts by
    the likelihood.

    Parameters
    ----------
    columns : column specification, default=None
        Columns the experts read, as in ColumnTransformer; None is all columns.
    error_columns : None or column specification, default=None
        Errors of those columns, one each, in the same order. A pixel whose flux or error is NaN, or whose error is
        infinite, has weight zero. Without errors the noise is estimated.
    n_components : "auto" or int, default="auto"
        Components of the mixture. ``"auto"`` adds components as long as the log density of held-out targets rises by
        more than its standard error; the more rows, the more components. With regimes it is a multiple of their number.
    n_factors : "auto" or int, default="auto"
        Factors t in each component; at most as many as there are loadings. ``"auto"`` is 8, or 16 or 24 if the log
        density of held-out targets rises by more than its standard error.
    regime_edges : None or sequence of increasing sequences, default=None
        As in :class:`HierarchicalExperts`. Regimes are where the mixture starts, not what its components end as.
    projection : None, "auto", "wiener", "whitened" or transformer, default=None
        What has the loadings V. None is ``"wiener"``, a supervised :class:`~dualgate.features.WienerScores` of 24
        factors, where there are errors, else ``"auto"`` as in :class:`HierarchicalExperts`. The columns of a projection
        without errors are factors with noise that is estimated, the same for every row. A fitted projection stays as it
        is inside :class:`sklearn.frozen.FrozenEstimator`.
    refine : int, default=4
        Rounds in which the loadings are learned again under the mixture, each followed by two of its steps. It
        needs loadings that were learned from the noisy rows.
    max_iter : int, default=20
        Last steps of expectation-maximisation, at most.
    tol : float, default=1e-3
        Steps end when the log posterior density of the parameters rises by less a row.
    max_rows : int, default=100_000
        Rows that these steps read, spread over all.
    cv : int, default=5
        Folds without which the mixture is solved again, for the towers of a mixture of experts to train on.
    n_jobs : None or int, default=None
        Threads that read rows and compute; -1 is one per core.
    random_state : int, RandomState or None, default=None
        Draws the clusters that a fit without regimes starts from.

    Attributes
    ----------
    noise_ : ColumnNoise or None
        Estimated noise of the projected columns; None where errors are known.
    mixture_ : FactorMixture
        Components, with targets in units of their standard deviation over the training rows.
    n_components_, n_experts_ : int
    novelty_ : NoveltyScale
        What is usual among the training rows.
    log_density_ : float
        Mean over the rows of the last step, of row and target together, up to a constant of the rows.
    n_iter_ : int
        Last steps that were done.
    projection_ : transformer
    columns_ : ndarray of int
    n_features_in_ : int

    References
    ----------
    Ghahramani & Hinton 1996, Technical Report CRG-TR-96-1 (mixtures of factor analysers). Bovy, Hogg & Roweis 2011,
    Ann. Appl. Stat. 5, 1657 (known noise). Gershenfeld 1997, Annals of the New York Academy of Sciences 808, 18
    (mixtures joint with a target).

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> z = rng.normal(size=2000)
    >>> error = rng.uniform(0.1, 2.0, size=(2000, 1)) * np.ones(20)
    >>> flux = np.outer(z, np.sin(np.arange(20))) + error * rng.normal(size=(2000, 20))
    >>> experts = FactorExperts(slice(0, 20), slice(20, 40), n_components=4, random_state=0)
    >>> X, y = np.hstack([flux, error]), z
    >>> bool(experts.fit(X, y).score(X, y) > 0.8)
    True
    """

    __metadata_request__fit = {"regimes": True}  # noqa: RUF012  (scikit-learn reads it from the class)

    def __init__(
        self,
        columns=None,
        error_columns=None,
        *,
        n_components="auto",
        n_factors="auto",
        regime_edges=None,
        projection=None,
        refine=4,
        max_iter=20,
        tol=1e-3,
        max_rows=100_000,
        cv=5,
        n_jobs=None,
        random_state=None,
    ):
        self.columns = columns
        self.error_columns = error_columns
        self.n_components = n_components
        self.n_factors = n_factors
        self.regime_edges = regime_edges
        self.projection = projection
        self.refine = refine
        self.max_iter = max_iter
        self.tol = tol
        self.max_rows = max_rows
        self.cv = cv
        self.n_jobs = n_jobs
        self.random_state = random_state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = allows_nan(self.make_reduction())
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X, y, *, regimes=None, checkpoint=None):
        """Fit loadings and mixture.

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)
            A source is read block by block, about once for every step and twice for every round of the loadings.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Targets; several are modelled jointly.
        regimes : None or array-like of shape (n_samples,) or (n_samples, n_conditions), default=None
            Integer codes, or conditions to be cut at `regime_edges`. None starts from clusters.
        checkpoint : None or path, default=None
            Directory that keeps what was found so far, as in :class:`HierarchicalExperts`.

        Returns
        -------
        self : FactorExperts

        Raises
        ------
        ValueError
            If a parameter, `X`, `y`, the errors or `regimes` are not as described.

        Warns
        -----
        EmptyCellWarning
            If rows are few or the number of components is given, and some are left with fewer rows than coefficients.
        UserWarning
            If such components have become the same, or a target is constant.
        """
        vars(self).pop("mixture_", None)  # a fit that fails leaves no part of an older one
        source, y = open_fit_rows(self, X, y)
        self.check_parameters()
        codes, n_regimes = regime_codes(self, regimes, self.regime_edges, len(y))
        codes = None if regimes is None else codes
        stages = FitStages.of(self, None, checkpoint, source, y, codes)
        reduction = self.make_reduction().prepare(X, source)
        begun = self.learn_reduction(reduction, X, source, y, codes, stages)
        rows = reduction.hold(source, stages)
        kept = np.zeros(len(y), dtype=bool)
        kept[choose_spread(len(y), CALIBRATION_ROWS)] = True
        learned = self.learn(reduction, rows, y, codes, n_regimes, begun=begun, kept=kept, stages=stages)
        density = density_of(self.cross_fitted_stages(learned))
        self.intervals_ = IntervalScale.of(density, y[kept], learned.columns.get("snr"))
        return self

    def check_parameters(self):
        """Raise a ValueError where a parameter is not as described; nothing is read for it."""
        for name in ("n_components", "n_factors"):
            value = getattr(self, name)
            if not isinstance(value, str) or value != "auto":
                check_number(self, name, value, kind=numbers.Integral, low=1, hint="or 'auto'.")
        for name, low in {"refine": 0, "max_iter": 1, "max_rows": 2, "cv": 2}.items():
            check_number(self, name, getattr(self, name), kind=numbers.Integral, low=low)
        check_number(self, "tol", self.tol, low=0)
        if self.random_state is not None and not isinstance(self.random_state, np.random.RandomState):
            check_number(self, "random_state", self.random_state, kind=numbers.Integral, low=0)

    def make_reduction(self, gates=None, n_jobs=None):
        """Make the reduction, not fitted, to what these experts and the given gates work with."""
        n_jobs = n_jobs if self.n_jobs is None else self.n_jobs
        projection = self.projection
        if projection is None:
            projection = "auto" if self.error_columns is None else "wiener"
        n_components = "auto" if projection == "wiener" else MOST_COLUMNS
        return Reduction(
            self.columns, self.error_columns, projection, n_components,
            gates=gates, information=True, n_jobs=n_jobs, owner=type(self).__name__,
        )  # fmt: skip

    def check_memory(self, reduction, n_regimes):
        """Nothing to check: information is held for at most `max_rows` rows."""

    def learn_reduction(self, reduction, X, source, y, codes, stages):
        """Fit a prepared reduction, with loadings that are refined under the mixture.

        Returns
        -------
        begun : None or FactorStart
            The mixture that the loadings belong to; None where they are not refined.
        """
        reduction.learn(X, source, y, codes, stages)
        if not (self.refine and reduction.informs and reduction.projection_.refinable):
            return None
        reduction.refined_by_, y = clone(self), y.reshape(len(y), -1)
        target = TargetScale.of(y)
        read = reduction.projection_.rows_read_
        chosen, rows = (slice(None), source) if read is None else (read, source[read])
        y, codes = target.scaled(y)[chosen], None if codes is None else np.asarray(codes)[chosen]
        mixture = None
        for turn in range(self.refine):

            def advance(turn=turn, mixture=mixture):
                information = reduction.inform(rows, stages, read, plain=True)["information"]
                first = mixture is None
                mixture = self._begin(information, y, codes) if first else mixture
                n_steps = START_STEPS if first else ROUND_STEPS
                mixture = self._climb(mixture, information, y, n_steps).mixture
                step = reduction.projection_.refining_pass(mixture, information, y)
                (step,) = stages.run(f"loadings {turn}", reduction, [step], reduction.inputs(rows), reduction.n_jobs)
                moved = mixture.moved(*reduction.projection_.end_refining(step))
                return {"projection": reduction.projection_, "mixture": moved}

            depends = [reduction.settings, turn]
            found = stages.stage("refined loadings", depends, advance)
            reduction.projection_, mixture = found["projection"], found["mixture"]
        return FactorStart(mixture, target)

    def _begin(self, information, y, codes):
        """Return the mixture to start from, with the numbers of components and factors that are asked for or chosen."""
        sizes, factors = [self.n_components], [self.n_factors]
        if self.n_components == "auto":
            sizes = ALONE if codes is None else [len(np.unique(codes)) * groups for groups in GROUPS]
        if self.n_factors == "auto":
            factors = FACTORS
        patience = 0 if codes is not None else 1  # one size may have started badly
        few = choose_spread(len(y), SEARCH_ROWS if codes is None else len(y))  # that sizes are compared on
        known, seen, some = y[few], None if codes is None else codes[few], information[few]
        n_loadings, held_out = split_information(information[:1])[1].shape[1], np.arange(len(few)) % self.cv == 0
        most = max(sizes[0], (~held_out).sum() // COMPONENT_ROWS)
        sizes = [size for size in sizes if size <= most]
        factors = [n for n in factors if n < n_loadings + FACTORS[0]]  # one number may reach all loadings
        if codes is None and self.n_factors == "auto" and n_loadings <= FACTORS[1]:
            factors = [n_loadings]  # all of them cost little

        def score(n_components, n_factors):
            rest, steps = ~held_out, CHOICE_STEPS
            if codes is None and n_components <= FEW_COMPONENTS:
                steps *= 2
            own = None if codes is None else seen[rest]
            mixture = self._first(some[rest], known[rest], own, n_components, n_factors)
            mixture = self._climb(mixture, some[rest], known[rest], steps).mixture
            return log_score(mixture, some[held_out], known[held_out])

        n_components = rising(sizes, lambda number: score(number, factors[0]), patience)
        n_factors = rising(factors, lambda number: score(n_components, number))
        return self._first(information, y, codes, n_components, n_factors)

    def _first(self, information, y, codes, n_components, n_factors):
        return first_mixture(information, y, self._labels(information, y, codes, n_components), n_factors)

    def _labels(self, information, y, codes, n_components):
        """Component that every row starts in: groups of y within its regime, or clusters of scores and y."""
        leading = (y - y.mean(axis=0)) @ np.linalg.svd(y - y.mean(axis=0), full_matrices=False)[2][0]
        n_components = max(1, min(n_components, len(y) // 2))
        if codes is None:
            seed = self.random_state if isinstance(self.random_state, numbers.Integral) else 0
            scores = weigh_directions(posterior_mean(information), y, seed)
            return cluster(np.column_stack([scores, TARGET_WEIGHT / np.sqrt(y.shape[1]) * y]), n_components, seed)
        labels, n_found = np.empty(len(y), dtype=np.intp), 0
        present, counts = np.unique(codes, return_counts=True)
        groups = max(1, round(n_components / len(present)))
        for code, count in zip(present, counts, strict=True):
            own, n_groups = np.flatnonzero(codes == code), max(1, min(groups, count // FEWEST_ROWS))
            rank = np.argsort(np.argsort(leading[own], kind="stable"), kind="stable")
            labels[own] = n_found + rank * n_groups // count
            n_found += n_groups
        return labels

    def _climb(self, mixture, information, y, n_steps, noise=None):
        """Take steps of expectation-maximisation; with `noise`, `information` are columns, and it is estimated."""
        before, rows, n_done = -np.inf, information, 0
        span = Span.of(split_information(information)[0]) if noise is None else None
        mixture = replace(mixture, span=span)
        while n_done < n_steps:
            n_done += 1
            if noise is not None:
                rows = noise.information(information)
            sums = self._sums(mixture, rows, y, 1)
            sums = {name: values[0] for name, values in sums.items()}
            level = sums["log_density"] + log_prior(mixture)
            if noise is not None:
                level -= 0.5 * len(y) * np.log(noise.variance).sum() + 0.5 * noise.squares_of(information).sum()
            mixture = maximise(sums, span=span)
            noise = None if noise is None else noise.updated(sums, mixture)
            if level - before < self.tol * len(y):
                break
            before = level
        return Climbed(mixture, noise, n_done, float(sums["log_density"] / len(y)))

    def _sums(self, mixture, information, y, n_folds):
        step = MixtureSums(mixture, y, n_folds, self.n_jobs)
        (step,) = run_passes(self, [step], ArrayRows(information), n_jobs=self.n_jobs)
        return step.found

    def learn(
        self, reduction, rows, y, codes, n_regimes, *, finder=None, begun=None, kept=None, stages=None, ranges="",
        depends=(),
    ):  # fmt: skip
        """Fit the mixture to reduced rows, or to rows of a source, which a fitted reduction reads once.

        Parameters
        ----------
        begun : None or FactorStart, default=None
            What `learn_reduction` returned.
        reduction, rows, y, codes, n_regimes, kept, stages
            As in :meth:`HierarchicalExperts.learn`. `finder`, `ranges` and `depends` are those of ridges alone.

        Returns
        -------
        learned : LearnedFactors
        """
        stages, single, y = stages or FitStages(), y.ndim == 1, y.reshape(len(y), -1)
        if isinstance(rows, ReducedRows) and reduction.projection_.informs and rows.information is None:
            raise ValueError(
                "FactorExperts: the rows were reduced for other experts, without the information of each row: reduce "
                "them with make_reduction of a mixture whose experts are 'factor'."
            )
        target = TargetScale.of(y) if begun is None else begun.target
        chosen = choose_spread(len(y), self.max_rows)
        if isinstance(rows, ReducedRows):
            columns = rows.columns if len(chosen) == len(y) else rows[chosen].columns
        else:
            columns = stages.stage(
                "information",
                [reduction.settings, chosen, self],
                lambda: reduction.inform(rows[chosen], stages, chosen),
            )
        scaled, codes_read = target.scaled(y), None if codes is None else np.asarray(codes)[chosen]
        for_gates, mixture = kept is not None and kept.any(), None if begun is None else begun.mixture

        def solve():
            climbed = self._solve(columns, scaled[chosen], codes_read, mixture)
            return climbed | {"mixtures": self._without_folds(climbed, columns, scaled[chosen], for_gates)}

        found = stages.stage("factor mixture", [reduction.settings, self, for_gates], solve)
        per_regime = len(chosen) if codes_read is None else np.unique(codes_read, return_counts=True)[1].min()
        few_rows = per_regime < FEWEST_ROWS or len(chosen) < COMPONENT_ROWS * found["mixture"].shape[0]
        if (
            self.n_components != "auto" or few_rows
        ):  # a number that was chosen here, of enough rows, is nobody's mistake
            warn_of_components(found["mixture"], len(chosen))
        if np.ptp(y, axis=0).min() == 0:
            warnings.warn("FactorExperts: y is constant, and so is every prediction: check the target.", stacklevel=3)
        self._assign(reduction, found, target, single)
        self.novelty_ = stages.stage(
            "novelty", [reduction.settings, self], lambda: NoveltyScale(self._judge(self._described(columns))[1])
        )
        if not for_gates:
            return None
        return self._for_gates(reduction, rows, found["mixtures"], scaled, chosen, codes, kept, stages)

    def _solve(self, columns, y, codes, mixture):
        """Find mixture and, of columns without errors, their noise."""
        noise = ColumnNoise.of(columns["projected"]) if "information" not in columns else None
        if mixture is None:
            mixture = self._begin(information_of(columns, noise), y, codes)
        rows = columns["information" if noise is None else "projected"]
        return vars(self._climb(mixture, rows, y, self.max_iter, noise))

    def _without_folds(self, climbed, columns, y, for_gates):
        """Mixtures without every fold, and last of all rows; the last alone where there are no gates."""
        mixture = climbed["mixture"]
        if not for_gates:
            return [mixture]
        information = information_of(columns, climbed["noise"])
        sums = self._sums(mixture, information, y, self.cv)
        whole = {name: values.sum(axis=0) for name, values in sums.items()}

        def without(fold):
            begun = maximise({name: whole[name] - sums[name][fold] for name in sums}, span=mixture.span)
            if len(y) > FOLD_ROWS:
                return begun
            rest = np.arange(len(y)) % self.cv != fold
            return self._climb(begun, information[rest], y[rest], FOLD_STEPS).mixture

        return [*map(without, range(self.cv)), mixture]

    def _for_gates(self, reduction, rows, mixtures, y, chosen, codes, kept, stages):
        """Return what gates are trained on: reduced columns, and the mixture without each fold."""
        folds = np.full(len(y), -1)
        folds[chosen] = np.arange(len(chosen)) % self.cv
        places = np.flatnonzero(kept)
        if isinstance(rows, ReducedRows):
            columns = rows[places].columns
        else:
            columns = stages.stage(
                "rows for gates", [reduction.settings, places],
                lambda: reduction.read(rows[places], numbers=places, stages=stages).columns,
            )  # fmt: skip
        if codes is None:
            cells = self.mixture_.most_likely(information_of(columns, self.noise_), y[places])
        else:
            cells = np.asarray(codes)[places]
        return LearnedFactors({**columns, "cells": cells, "folds": folds[places]}, mixtures, y[places])

    def _assign(self, reduction, found, target, single):
        self.reduction_ = reduction.without_gates()
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(reduction, name):
                setattr(self, name, getattr(reduction, name))
        self.columns_, self.projection_ = reduction.columns_, reduction.projection_.transformer
        self.mixture_, self.noise_, self.target_, self._single = found["mixture"], found["noise"], target, single
        self.n_iter_, self.log_density_ = found["n_steps"], found["log_density"]
        self.n_components_ = self.n_experts_ = self.n_regimes_ = self.mixture_.shape[0]
        self.n_quality_bins_, self.cell_counts_ = 1, np.exp(self.mixture_.log_share)[:, None]

    @property
    def n_projected(self):
        """Number of projected columns, those of the scores."""
        return self.mixture_.shape[1]

    def projected_coefficients(self):
        """Coefficients of every expert on the scores of rows with typical errors (n_experts, n_projected)."""
        width, planes = self.n_projected, self.mixture_.planes[:, :, :-1]
        if self.noise_ is None:
            precision = unfold(self.reduction_.projection_.typical_information()[None], width)[0]
        else:
            precision = np.diag(1 / self.noise_.variance)
        inner = np.eye(planes.shape[2]) + planes.transpose(0, 2, 1) @ precision @ planes
        solved = np.linalg.solve(inner, self.mixture_.slopes[:, :, :1])[..., 0]  # (K, q)
        per_moment = self.target_.scale[0] * np.einsum("krq,kq->kr", planes, solved)
        if self.noise_ is None:
            return per_moment @ (precision + np.eye(width))  # scores are solve(A + I, b)
        return per_moment / (self.noise_.spread * self.noise_.variance)

    def stages(self, columns):
        """Stages of a prediction that are the experts', by the names of a `MixtureTrace`, from reduced columns."""
        stages, explained = self._stages(
            self.mixture_, information_of(columns, self.noise_), columns.get("candidate_evidence")
        )
        weights = softmax(stages["log_evidence"], axis=1)
        return stages | {"misfit": misfit_of(self._described(columns), (weights * explained).sum(axis=1))}

    def cross_fitted_stages(self, learned):
        """Return the same for the kept training rows, by mixtures that were solved without them."""
        information, folds, joined = information_of(learned.columns, self.noise_), learned.columns["folds"], None
        for fold in np.unique(folds):
            own = np.flatnonzero(folds == fold)
            found, _ = self._stages(learned.mixtures[fold], information[own])
            joined = joined or {name: np.empty((len(folds), *values.shape[1:])) for name, values in found.items()}
            for name, values in found.items():
                joined[name][own] = values
        return joined

    def _stages(self, mixture, information, candidates=None):
        evidence, predictions, covariance, explained, _ = predict_with(mixture, information, candidates)
        predictions = predictions * self.target_.scale + self.target_.mean
        covariance = covariance * np.multiply.outer(self.target_.scale, self.target_.scale)
        if self._single:
            predictions, covariance = predictions[..., 0], covariance[..., 0, 0]
        stages = {"log_evidence": evidence, "expert_predictions": predictions, "expert_variances": covariance}
        return stages, explained

    def discriminants(self, learned):
        """Linear discriminants of regimes, or of components where no regimes were given, in the scores."""
        projected, cells, folds = (learned.columns[name] for name in ("projected", "cells", "folds"))
        n_cells = int(cells.max()) + 1
        statistics = CellStatistics.zeros(self.cv * n_cells, projected.shape[1], origin=projected.mean(axis=0))
        statistics.update(projected, learned.y[:, 0], np.maximum(folds, 0) * n_cells + cells)
        return find_discriminants(statistics.reshape(self.cv, n_cells, 1), SCORE_PENALTY)

    def predict_density(self, X):
        """Predictive density of the target of every row.

        Rows that are far outside what the training rows were are counted in an
        :class:`~dualgate.experts.ExtrapolationWarning`.

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)

        Returns
        -------
        density : MixtureDensity
            A mixture of Gaussians for every row.
        """
        return density_of(self._watched_stages(X))

    def _watched_stages(self, X):
        """Stages of all rows and their signal-to-noise ratio, with a warning of rows that are far outside."""
        watch = self.watch()

        def run(first, block):
            columns = self.reduction_.reduce(first, block)
            stages = self.stages(columns)
            watch.see(stages["misfit"], first, block)
            return stages | {"snr": columns["snr"]} if "snr" in columns else stages

        width = TRACE_WIDTH * self.n_experts_
        stages = map_blocks(self, run, open_rows(self, X, reset=False), n_jobs=self.n_jobs, width=width)
        watch.warn(self)
        return stages

    def predict_interval(self, X, coverage=0.9):
        """Find an interval that holds the target of a row with a given probability.

        As :meth:`DualTowerMoERegressor.predict_interval`. Only experts that were fitted on their own have it.

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)
        coverage : float in (0, 1), default=0.9

        Returns
        -------
        interval : ndarray of shape (n_samples, 2) or (n_samples, n_targets, 2), [unit of y]
        """
        stages = self._watched_stages(X)
        return self.intervals_.interval(self, density_of(stages), stages.get("snr"), coverage)

    def watch(self):
        """Return what counts rows that are far outside, and warns of them."""
        check_is_fitted(self, "mixture_")
        return Watch(self.novelty_, self.reduction_)

    def score_samples(self, X):
        """How well the mixture describes each row, for finding unusual ones.

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)

        Returns
        -------
        scores : ndarray of shape (n_samples,), [dimensionless]
            ``(n - chi2) / sqrt(2 n)`` with the number n of measured columns and the squared Mahalanobis distance chi2
            of the row from the components, in units of its errors: log p(row | components, errors) about its expected
            value, in its standard deviations. About 0 with scatter 1 for rows like the training rows, however noisy;
            far below for others.
        """

        def score(columns):
            n_measured = columns["n_measured"]
            return (1 - self.stages(columns)["misfit"]) * n_measured / np.sqrt(2 * np.maximum(n_measured, 1))

        return self._map_columns(X, score)

    def novelty(self, X):
        """Probability that a row like the training rows, measured as well, is as unusual as each of these.

        A row is unusual by its residual in units of its errors (too small a one too), by its distance from the
        components within the factors, or by the number of its pixels that were left out.

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)

        Returns
        -------
        p_values : ndarray of shape (n_samples,), in (0, 1]
            Uniform for rows like the training rows. Below that of the most unusual training row, where no p-value is
            known, they go on falling, so that they can be sorted.
        """
        return self._map_columns(X, lambda columns: self.novelty_.p_values(self._judge(columns)[1]))

    def predict_velocity(self, X):
        """Posterior of the velocity along the line of sight, which needs a projection with `Nuisances.velocity`.

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)

        Returns
        -------
        velocity, std : ndarray of shape (n_samples,), [km/s]
            Mean and standard deviation over the velocities within the prior; away from us is positive.

        Raises
        ------
        ValueError
            If velocities were not set free.
        """

        def average(columns):
            if "velocity" not in columns:
                raise ValueError(
                    "FactorExperts.predict_velocity: the velocity of a row is taken to be zero. Set it free by "
                    "for_spectra(wave, velocity=160), the largest one in km/s, or by nuisances of the projection."
                )
            candidates = columns["candidate_evidence"]
            share = predict_with(self.mixture_, columns["information"], candidates)[-1]
            mean = (share * columns["velocity"]).sum(axis=1)
            apart = np.where(share > 0, columns["velocity"] - mean[:, None], 0)
            return np.stack([mean, (share * (columns["velocity_variance"] + apart**2)).sum(axis=1)], axis=1)

        mean, variance = self._map_columns(X, average).T
        return mean, np.sqrt(variance)

    def check_errors(self, X):
        """Compare the residuals of rows with their stated errors.

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)
            Some 2,000 rows tell the common factor to a per cent, and that of a pixel to some per cent.

        Returns
        -------
        errors : Bunch
            factor : float
                True errors in units of the stated ones: by this and by `by_pixel` stated errors must be multiplied.
            by_pixel : ndarray of shape (n_pixels,)
                The same for every pixel, in units of `factor`; NaN where none was measured.
            by_row : ndarray of shape (n_samples,)
                The same for every row, `factor` included; NaN for a row without a measured pixel.

        Raises
        ------
        TypeError
            If the projection reads no errors.
        """
        check_is_fitted(self, "mixture_")
        reduction = self.reduction_
        source = reduction.inputs(open_rows(self, X, reset=False))
        blocks = iter_blocks(self, source, n_jobs=self.n_jobs)
        found = [reduction.projection_.residual_power(block) for _, block in blocks]
        squares, freedom = (np.sum([each[place] for each in found], axis=0) for place in (0, 1))
        by_row = np.concatenate([each[2] for each in found])
        with np.errstate(invalid="ignore", divide="ignore"):
            factor = np.sqrt(squares.sum() / freedom.sum())
            return Bunch(factor=float(factor), by_pixel=np.sqrt(squares / freedom) / factor, by_row=by_row)

    def _described(self, columns):
        """Reduced columns with the chi-square of their rows, also where the noise was estimated."""
        return columns if self.noise_ is None else columns | self.noise_.deviations(columns["projected"])

    def _judge(self, columns):
        """Return what the mixture predicts for rows, and in what ways these are unusual."""
        information, candidates = information_of(columns, self.noise_), columns.get("candidate_evidence")
        found = predict_with(self.mixture_, information, candidates)
        if candidates is not None:
            information = np.take_along_axis(information, candidates.argmax(axis=1)[:, None, None], axis=1)[:, 0]
        return found, Oddities.of(columns, information, found[0], found[3])

    def _map_columns(self, X, function):
        check_is_fitted(self, "mixture_")

        def run(first, block):
            return function(self._described(self.reduction_.reduce(first, block)))

        width = TRACE_WIDTH * self.n_experts_
        return map_blocks(self, run, open_rows(self, X, reset=False), n_jobs=self.n_jobs, width=width)

    def predict(self, X, return_std=False):
        """Predict by the experts, weighed by their evidence.

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)
        return_std : bool, default=False
            Whether to return the standard deviation of the predictive density too.

        Returns
        -------
        prediction : ndarray of shape (n_samples,) or (n_samples, n_targets), [unit of y]
        std : ndarray of the same shape, [unit of y]
            Only if `return_std`.
        """
        density = self.predict_density(X)
        return (density.mean, density.std) if return_std else density.mean


def density_of(stages):
    """Predictive density from the stages of experts that decide alone."""
    return MixtureTrace(log_weights=log_softmax(stages["log_evidence"], axis=1), **stages).density


def rising(candidates, score_of, patience=0):
    """Return the last candidate up to which the scores of held-out rows rise by more than their standard error.

    The search looks past `patience` candidates in a row that do not rise; the next has to rise by as many standard
    errors more.
    """
    best, best_scores, n_failed = candidates[0], None, 0
    for candidate in candidates if len(candidates) > 1 else ():
        scores = score_of(candidate)
        gain = 0.0 if best_scores is None else scores - best_scores
        if best_scores is None or gain.mean() > (1 + n_failed) * gain.std() / np.sqrt(len(gain)):
            best, best_scores, n_failed = candidate, scores, 0
        elif n_failed == patience:
            break
        else:
            n_failed += 1
    return best


def predict_with(mixture, information, candidates=None):
    """Evidence, prediction, covariance and what is explained by every component, over the candidates of a row.

    `candidates` (n_rows, n_candidates) is their evidence, for `information` with an axis of candidates; also returned
    is then their probability (n_rows, n_candidates), else None.
    """
    if candidates is None:
        return *mixture.predict(information), None
    used = np.isfinite(candidates)
    found = []
    for values in mixture.predict(information[used]):
        found.append(np.zeros((*used.shape, *values.shape[1:])))
        found[-1][used] = values
    evidence, predictions, covariance, explained = found
    joint = evidence + candidates[..., None]
    share = softmax(joint, axis=1)
    mean = (share[..., None] * predictions).sum(axis=1)
    apart = predictions - mean[:, None]
    covariance = covariance + apart[..., :, None] * apart[..., None, :]
    covariance = (share[..., None, None] * covariance).sum(axis=1)
    best = candidates.argmax(axis=1)[:, None, None]
    explained = np.take_along_axis(explained, best, axis=1)[:, 0]
    log_evidence = logsumexp(joint, axis=1)
    return log_evidence, mean, covariance, explained, softmax(logsumexp(joint, axis=2), axis=1)


def warn_of_components(mixture, n_rows):
    """Warn of components of a mixture, solved from `n_rows`, with too few rows or the same as another one."""
    n_components, _, n_factors, n_targets = mixture.shape
    rows = np.exp(mixture.log_share) * (n_rows + n_components) - 1  # `maximise` adds one row to each
    few = np.flatnonzero(rows < n_factors + 1)
    if len(few):
        each = ", ".join(f"{number} ({max(rows[number], 0):.1f} rows)" for number in few[:NAMED])
        warnings.warn(
            f"FactorExperts: {len(few)} of {n_components} components are left with fewer rows than the "
            f"{n_factors + 1} coefficients of their regression: {each}{', ...' if len(few) > NAMED else ''}. They "
            "stay near the mean of all rows. Lower n_components or n_factors, merge regimes or add rows to avoid it.",
            EmptyCellWarning,
            stacklevel=4,
        )
    lines = np.concatenate([mixture.planes[:, :, :-1], mixture.slopes.swapaxes(1, 2)], axis=1)
    spread = lines @ lines.swapaxes(1, 2)
    spread[:, -n_targets:, -n_targets:] += mixture.covariance
    moments = np.concatenate([mixture.planes[:, :, -1], mixture.levels, spread.reshape(n_components, -1)], axis=1)
    own = np.setdiff1d(np.arange(n_components), few)
    places = np.arange(len(own))
    near = KDTree(moments[own]).query(moments[own], k=2, p=np.inf, distance_upper_bound=SAME)[1]  # one is itself
    nearest = np.where(near[:, 0] == places, near[:, 1], near[:, 0])  # the number of all where there is none
    alike = nearest < len(own)
    same = own[np.unique(np.sort(np.column_stack([places, nearest])[alike], axis=1), axis=0)]
    if len(same):
        pairs = ", ".join(f"{first} and {second}" for first, second in same[:NAMED])
        warnings.warn(
            f"FactorExperts: components {pairs}{', ...' if len(same) > NAMED else ''} have become the same, in mean, "
            f"covariance and regression: lower n_components={n_components} or merge regimes.",
            stacklevel=4,
        )


def cluster(places, n_clusters, seed):
    """Cluster of every row, numbered without gaps."""
    labels = KMeans(n_clusters, n_init=3, random_state=seed).fit_predict(places)
    return np.unique(labels, return_inverse=True)[1]


def weigh_directions(scores, y, seed):
    """Scores, stretched along the directions in which the slopes of y differ from place to place.

    The slopes are those of ridges in a few clusters; the outer products of their deviations from the mean have these
    directions (a coarse form of the outer product of gradients: Xia, Tong, Li & Zhu 2002, JRSS B 64, 363).
    """
    scores = scores - scores.mean(axis=0)
    places = cluster(scores, max(1, min(SLOPE_CLUSTERS, len(scores) // SLOPE_ROWS)), seed)
    shares, slopes = np.bincount(places) / len(scores), []
    for place in range(len(shares)):
        own, levels = (part[places == place] - part[places == place].mean(axis=0) for part in (scores, y))
        slopes.append(np.linalg.solve(own.T @ own + PLANE_ROWS * np.eye(scores.shape[1]), own.T @ levels))
    deviations = np.sqrt(shares)[:, None, None] * (slopes - np.tensordot(shares, slopes, axes=1))
    values, axes = np.linalg.eigh(np.einsum("krt,kst->rs", deviations, deviations))
    lengths = np.sqrt(np.maximum(values, 0))
    return scores @ axes * (LEAST_STRETCH + (lengths / lengths.max() if lengths.max() > 0 else 1.0))


def information_of(columns, noise):
    """Information of rows from their reduced columns; with `noise`, of columns without errors."""
    return columns["information"] if noise is None else noise.information(columns["projected"])


def log_score(mixture, information, y):
    """Log density of every row's target under a mixture, given the row."""
    evidence, predictions, covariance, _ = mixture.predict(information)
    return MixtureDensity(log_softmax(evidence, axis=1), predictions, covariance).log_density(y)

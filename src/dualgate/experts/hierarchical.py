"""Ridge experts for every cell of regime x quality bin, in closed form from sufficient statistics."""

import numbers

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

from dualgate._validation import check_number, make_generator
from dualgate.checkpoint import Checkpoint
from dualgate.experts.discriminants import find_discriminants
from dualgate.experts.noise import known_noise
from dualgate.experts.passes import begin_sums, survey
from dualgate.experts.predicting import Predicts
from dualgate.experts.reading import ReadsRows
from dualgate.experts.regimes import regime_codes
from dualgate.experts.ridges import check_alphas, fit_ridges
from dualgate.experts.sharing import SHARING
from dualgate.passes import run_passes
from dualgate.rows import check_fit_rows, spread_rows


class HierarchicalExperts(Predicts, ReadsRows, RegressorMixin, BaseEstimator):
    r"""One ridge regression for each cell of physical regime and quality bin.

    Expert ``k * n_quality_bins_ + s`` serves regime k at quality bin s. All of them, the root ridge over all rows and
    the models without each fold follow from one pass over the rows. Without regimes `predict` and `score` speak of the
    root alone: search over parameters of the experts inside a :class:`~dualgate.DualTowerMoERegressor`.

    Parameters
    ----------
    columns : column specification
        Columns the experts read, as in ColumnTransformer (slice, list, names, mask, callable); None is all columns.
    error_columns : None or column specification
        Errors of those columns, one each, in the same order. Needed for quality bins and used by ``"whitened"``.
    quality_edges : None, "auto" or increasing sequence of float
        Edges of the quality bins in signal-to-noise ratio ||flux|| / ||error||; a ratio equal to an edge belongs to
        the bin below. ``(2, 4, 7)`` makes four bins, None a single one. ``"auto"`` cuts the ratios of the training rows
        (of the first call of `partial_fit`) into four bins of equal counts, fewer where many ratios are equal.
    regime_edges : None or sequence of increasing sequences
        One sequence per physical condition, for `regimes` given to `fit` as conditions (n_samples, n_conditions).
        ``((4500, 5250), (-1, 0))`` makes nine regimes.
    sharing : {"shrink", "independent", "offset", "scale", "alpha", "noise"}
        What the cells share.

        - ``"independent"``: every cell its own ridge and penalty.
        - ``"offset"``: w_k + Delta_s, with Delta_s common to all regimes, solved jointly.
        - ``"shrink"``: ridge towards the regime's ridge, which is a ridge towards the root.
        - ``"scale"``: gamma_s w_k (x - mean of regime k) + b_k + beta_s, with gamma_s and beta_s common to all regimes.
        - ``"alpha"``: w_k(alpha_s), one ridge path for each regime, one penalty for each quality bin.
        - ``"noise"``: (C_k + s^2 D + alpha/n I)^-1 c_k, with C_k the covariance of the regime less its known noise and
          s^2 D the noise of the cell: all rows of a regime inform every quality bin. It needs `error_columns`, and a
          projection that keeps track of the noise: ``"whitened"``, a NoiseWhitenedPCA with errors, or None.
    alphas : None or sequence of float above zero
        Penalties to choose from by held-out error, as in RidgeCV. None is a log grid from a hundredth of the smallest
        to a million times the mean variance of the projected columns.
    projection : None, "whitened", "wiener" or transformer
        What the ridges read in place of the columns. ``"whitened"`` is :class:`~dualgate.features.NoiseWhitenedPCA`,
        ``"wiener"`` a supervised :class:`~dualgate.features.WienerScores`, each with `n_components`; WienerScores see y
        where they are supervised, and training rows are read by loadings that did not see them. Any other
        transformer receives the selected columns, and never y. One that is fitted already
        stays so inside :class:`sklearn.frozen.FrozenEstimator`; a NoiseWhitenedPCA with errors is given
        [flux | error].
    n_components : int
        Components of the ``"whitened"`` projection, at most; free factors of ``"wiener"``.
    clip : bool
        Hold every prediction within the range of the training targets. A linear expert overshoots where the noise is
        strong; no use where targets beyond the training range are expected.
    cv : int
        Folds for choosing penalties and for the cross-fitted predictions of `fit_predict_each`.
    n_jobs : None or int
        Threads that read rows and compute; -1 is one per core. Matrix products have threads of their own.
    random_state : int, RandomState or None
        Draws the folds.

    Attributes
    ----------
    n_regimes_, n_quality_bins_, n_experts_ : int
    coef_ : ndarray of shape (n_experts, n_projected)
        Coefficients in projected columns.
    intercept_ : ndarray of shape (n_experts,), [unit of y]
    alpha_ : ndarray of shape (n_experts,)
        Penalty of each expert; infinity is the parent itself. With ``"offset"`` that of the regimes; one
        for all with ``"scale"``, for a regime with ``"noise"``, for a bin with ``"alpha"``.
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
        projection=None,
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

    def fit(self, X, y, *, regimes=None, checkpoint=None):
        """Fit every expert.

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)
            A source, or an array on disk (memory map, h5py, Zarr, Dask), is read twice, block by block; part of it some
            times more for Wiener scores.
        y : array-like of shape (n_samples,)
            Targets.
        regimes : None or array-like of shape (n_samples,) or (n_samples, n_conditions)
            Integer codes, or conditions to be cut at `regime_edges`. None is one regime.
        checkpoint : None or path
            File that keeps what was found so far, so that a fit that was killed goes on. It needs an integer
            `random_state` and stays until deleted; 192 rows tell X from others: give other rows another file.

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
        self._fit(X, y, regimes, checkpoint=checkpoint)
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
            Cross-fitted; penalties and projection are those of the whole.
        """
        kept, folds, models = self._fit(X, y, regimes, keep=True)
        return self._cross_fitted(kept["projected"], folds, models)

    def _cross_fitted(self, projected, folds, models):
        predictions = np.empty((len(projected), self.n_experts_))
        for fold in range(self.n_folds_):
            rows = folds == fold
            predictions[rows] = projected[rows] @ models.coef[fold].T + models.intercept[fold]
        return self._bounded(predictions)

    def _fit(self, X, y, regimes, *, keep=False, checkpoint=None):
        """Fit; where rows are kept, return their projected columns, folds, and models without each fold."""
        rows, y = check_fit_rows(self, X, y)
        self._forget()
        codes, n_regimes = regime_codes(self, regimes, self.regime_edges, len(y))
        checkpoint = Checkpoint.of(self, checkpoint, rows, y, codes)
        self._prepare(X, rows)
        found = checkpoint.stage("survey", lambda: (*self._survey(rows, (y, codes), checkpoint)[:3], self._noise))
        ratios, self.projection_, origin, self._noise = found
        cells, folds = self._sort(codes, n_regimes, ratios)
        kept = np.ones(len(y), dtype=bool) if keep else None
        sums = begin_sums(self, origin, y, (cells, folds, kept), self.n_jobs)
        (sums,) = checkpoint.stage("sums", lambda: self._run([sums], rows, checkpoint))
        return sums.kept_rows.joined() if keep else None, folds, self._solve(sums)

    def _survey(self, rows, target, checkpoint=None):
        sample, checkpoint = spread_rows(rows, n_jobs=self.n_jobs), checkpoint or Checkpoint(None)
        return survey(self, rows, sample, checkpoint, self.n_jobs, target=target)

    def _run(self, passes, rows, checkpoint=None):
        return run_passes(self, passes, rows, n_jobs=self.n_jobs, checkpoint=checkpoint)

    def _forget(self):
        """Leave no half of an older fit to one that fails."""
        vars(self).pop("coef_", None)
        vars(self).pop("_sums", None)

    def partial_fit(self, X, y, *, regimes=None, n_regimes=None):
        """Add rows to those of earlier calls and solve again; rows are not kept, their sums are.

        The first call fixes what cannot change once rows are summed: columns, bins, regimes, and the projection, which
        it learns from its own rows. Give it some thousand typical ones, or a projection that was fitted before, wrapped
        in :class:`sklearn.frozen.FrozenEstimator`. Rows seen by an earlier `fit` are not remembered, and cells that are
        still empty follow their parents without a warning.

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
            Targets.
        regimes : None or array-like, as in `fit`
        n_regimes : None or int
            Of all rows to come, where `regimes` are codes; read in the first call. None is what that call holds.

        Returns
        -------
        self : HierarchicalExperts

        Raises
        ------
        ValueError
            As `fit`, and if a later call brings a regime that is not known.
        """
        begins = "_sums" not in vars(self)
        rows, y = check_fit_rows(self, X, y, reset=begins, min_samples=2 if begins else 1)
        n_known = n_regimes if begins else self.n_regimes_
        codes, n_found = regime_codes(self, regimes, self.regime_edges, len(y), n_known=n_known)
        if begins:
            self._forget()
            self._prepare(X, rows)
            self.n_regimes_ = n_found if n_regimes is None else n_regimes
            check_number(self, "n_regimes", self.n_regimes_, kind=numbers.Integral, low=1)
            self._generator = make_generator(self, self.random_state)
        if n_found > self.n_regimes_:
            raise ValueError(
                f"HierarchicalExperts.partial_fit: regimes holds the code {codes.max()}, the first call fixed "
                f"{self.n_regimes_} regimes, 0 to {self.n_regimes_ - 1}: give n_regimes= in the first call."
            )
        if begins:
            ratios, self.projection_, origin, _ = self._survey(rows, (y, codes))
            self._find_edges(ratios)
            self.n_experts_, self.n_folds_ = self.n_regimes_ * self.n_quality_bins_, self.cv
        else:
            ratios = self._ratios(rows)
        cells = self._cells(codes, ratios)
        folds = self._generator.integers(self.n_folds_, size=len(cells))
        if begins:
            sums = begin_sums(self, origin, y, (cells, folds, None), self.n_jobs)
        else:
            sums = self._sums.turned_to(y, folds * self.n_experts_ + cells)
        (sums,) = self._run([sums], rows)
        self._sums = sums if begins else sums.onto(self._sums)  # only now: rows that fail leave no half behind
        counts = self._sums.statistics.count.reshape(self.n_folds_, self.n_regimes_, self.n_quality_bins_)
        self.cell_counts_ = counts.sum(axis=0).astype(int)
        self._solve(self._sums)
        return self

    def _solve(self, sums):
        """Solve for the experts of all rows and without each fold."""
        statistics = sums.statistics.reshape(self.n_folds_, self.n_regimes_, self.n_quality_bins_)
        alphas = check_alphas(self, statistics)
        root = fit_ridges(statistics.sum((1, 2)).reshape(self.n_folds_, 1), alphas)
        noise = None if sums.noise_power is None else known_noise(self, sums.noise_power)
        models = SHARING[self.sharing](statistics, alphas, root, noise)
        self._discriminants = find_discriminants(statistics, root.alpha[0])
        for model in (root, models):
            model.coef[:] *= sums.y_scale
            model.intercept[:] = model.intercept * sums.y_scale + sums.y_mean
        self.y_range_ = sums.y_range if self.clip else (-np.inf, np.inf)
        self.coef_, self.intercept_, self.alpha_ = models.coef[-1], models.intercept[-1], models.alpha
        self.root_coef_, self.root_intercept_ = root.coef[-1, 0], root.intercept[-1, 0]
        return models

"""Ridge experts for every cell of regime x quality bin, in closed form from sufficient statistics."""

import numbers
import warnings

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from dualgate._components import realise
from dualgate._validation import (
    check_choice,
    check_number,
    check_rows,
    check_rows_and_target,
    require_positive_errors,
    resolve_columns,
    take_columns,
)
from dualgate.experts.regimes import check_edges, count_cells, draw_folds, regime_codes
from dualgate.experts.sharing import SHARING, check_alphas, check_memory_for, fit_ridges
from dualgate.features import NoiseWhitenedPCA, signal_to_noise
from dualgate.features.whitened import take_error_columns
from dualgate.statistics import CellStatistics


class HierarchicalExperts(RegressorMixin, BaseEstimator):
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
    quality_edges : None or increasing sequence of float
        Edges of the quality bins in signal-to-noise ratio ||flux|| / ||error||; a ratio equal to an edge belongs to
        the bin below. ``(2, 4, 7)`` makes four bins, None a single one.
    regime_edges : None or sequence of increasing sequences
        One sequence per physical condition, for `regimes` given to `fit` as conditions (n_samples, n_conditions).
        ``((4500, 5250), (-1, 0))`` makes nine regimes.
    sharing : {"shrink", "offset", "independent"}
        What the cells share.

        - ``"independent"``: every cell its own ridge and penalty.
        - ``"offset"``: w_k + Delta_s, with Delta_s common to all regimes, solved jointly.
        - ``"shrink"``: ridge towards the regime's ridge, which is a ridge towards the root.
    alphas : None or sequence of float above zero
        Penalties to choose from by held-out error, as in RidgeCV. None is a log grid from a hundredth of the smallest
        to a million times the mean variance of the projected columns.
    projection : None, "whitened" or transformer
        Linear map of the columns before the ridge. ``"whitened"`` is :class:`~dualgate.features.NoiseWhitenedPCA` with
        `n_components`; a transformer of your own receives the selected columns, and never y.
    n_components : int
        Components of the ``"whitened"`` projection, at most.
    clip : bool
        Hold every prediction within the range of the training targets. A linear expert overshoots where the noise is
        strong; no use where targets beyond the training range are expected.
    cv : int
        Folds for choosing penalties and for the cross-fitted predictions of `fit_predict_each`.
    random_state : int, RandomState or None
        Draws the folds.

    Attributes
    ----------
    n_regimes_, n_quality_bins_, n_experts_ : int
    coef_ : ndarray of shape (n_experts, n_projected)
        Coefficients in projected columns, taken from `center_`.
    intercept_ : ndarray of shape (n_experts,), [unit of y]
    alpha_ : ndarray of shape (n_experts,)
        Penalty of each expert; infinity is the parent itself. With ``"offset"`` that of the regimes.
    root_coef_, root_intercept_ : ndarray of shape (n_projected,), float
        The one ridge for all rows.
    center_ : ndarray of shape (n_projected,)
        Mean of the projected columns.
    y_range_ : tuple of float
        Smallest and largest training target, what predictions are held within; infinite without `clip`.
    cell_counts_ : ndarray of int of shape (n_regimes, n_quality_bins)
        Training rows of each cell.
    projection_ : transformer or None
    columns_ : ndarray of int
    n_features_in_ : int

    See Also
    --------
    dualgate.DualTowerMoERegressor : Chooses among the experts without knowing the regime.

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
        self.random_state = random_state

    def fit(self, X, y, *, regimes=None):
        """Fit every expert.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
            Targets.
        regimes : None or array-like of shape (n_samples,) or (n_samples, n_conditions)
            Integer codes, or conditions to be cut at `regime_edges`. None is one regime.

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
        self._fit(X, y, regimes)
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
        projected, folds, models = self._fit(X, y, regimes)
        predictions = np.empty((len(projected), self.n_experts_))
        for fold in range(self.n_folds_):
            rows = folds == fold
            predictions[rows] = projected[rows] @ models.coef[fold].T + models.intercept[fold]
        return self._bounded(predictions)

    def _fit(self, X, y, regimes):
        array, y = check_rows_and_target(self, X, y)
        check_choice(self, "sharing", self.sharing, SHARING)
        vars(self).pop("coef_", None)  # a fit that fails leaves no half of an older one
        codes, self.n_regimes_ = regime_codes(self, regimes, self.regime_edges, len(array))
        self._regime_edges = self.regime_edges
        self.columns_ = resolve_columns(self, "columns", self.columns, X, array.shape[1])
        self._error_columns = None
        if self.error_columns is not None:
            take_error_columns(self, X, array, self.columns_)
            self._error_columns = resolve_columns(self, "error_columns", self.error_columns, X, array.shape[1])
        bins = self._bins(array, fitting=True)
        cells = codes * self.n_quality_bins_ + bins
        self.n_experts_ = self.n_regimes_ * self.n_quality_bins_
        self.cell_counts_ = count_cells(self, cells, self.n_regimes_, self.n_quality_bins_)

        self.projection_ = self._make_projection()
        if self.projection_ is not None:
            self.projection_.fit(self._projection_input(array))  # without y, which cross-fitting must not see
        projected = self._project(array)
        self.center_ = projected.mean(axis=0, dtype=np.float64)
        projected = projected - self.center_.astype(projected.dtype)
        check_memory_for(self, self.cv * self.n_experts_, projected.shape[1])
        folds = draw_folds(self, cells)
        self.n_folds_ = int(folds.max()) + 1
        y_mean, y_scale = y.mean(), np.ptp(y) or 1.0  # sums of squares keep their digits in any unit
        statistics = CellStatistics.from_rows(
            projected, (y - y_mean) / y_scale, folds * self.n_experts_ + cells, self.n_folds_ * self.n_experts_
        ).reshape(self.n_folds_, self.n_regimes_, self.n_quality_bins_)
        if y.min() == y.max():
            warnings.warn(
                f"HierarchicalExperts: y is constant ({y[0]:g}) over {len(y):,} rows: every expert predicts that "
                "number. Check that y is the target column.",
                UserWarning,
                stacklevel=4,
            )
        self.y_range_ = (float(y.min()), float(y.max())) if self.clip else (-np.inf, np.inf)
        alphas = check_alphas(self, statistics)
        root = fit_ridges(statistics.sum((1, 2)).reshape(self.n_folds_, 1), alphas)
        models = SHARING[self.sharing](statistics, alphas, root)
        for model in (root, models):
            model.coef[:] *= y_scale
            model.intercept[:] = model.intercept * y_scale + y_mean
        self.coef_, self.intercept_, self.alpha_ = models.coef[-1], models.intercept[-1], models.alpha
        self.root_coef_, self.root_intercept_ = root.coef[-1, 0], root.intercept[-1, 0]
        return projected, folds, models

    def predict_each(self, X, *, with_root=False):
        """Prediction of every expert for every row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        with_root : bool
            Return the prediction of the root ridge too.

        Returns
        -------
        expert_predictions : ndarray of shape (n_samples, n_experts), [unit of y]
        root_prediction : ndarray of shape (n_samples,), [unit of y]
            Only if `with_root`.
        """
        check_is_fitted(self, "coef_")
        array = check_rows(self, X, reset=False)
        if self._error_columns is not None:
            require_positive_errors(self, take_columns(array, self._error_columns), self._error_columns)
        projected = self._project(array)
        coef = np.vstack([self.coef_, self.root_coef_])
        intercept = np.r_[self.intercept_, self.root_intercept_] - coef @ self.center_
        unit = np.abs(coef).max() or 1.0  # keeps coefficients of any unit within single precision
        product = projected @ (coef / unit).T.astype(projected.dtype)
        each = self._bounded(product.astype(np.float64) * unit + intercept)
        return (each[:, :-1], each[:, -1]) if with_root else each[:, :-1]

    def _bounded(self, predictions):
        return np.clip(predictions, *self.y_range_)

    def predict(self, X, *, regimes=None):
        """Prediction by each row's own expert where its regime is known, by the root ridge where not.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        regimes : None or array-like, as in `fit`
            True regimes make this the oracle that a gate is measured against.

        Returns
        -------
        prediction : ndarray of shape (n_samples,), [unit of y]
        """
        each, root = self.predict_each(X, with_root=True)
        if regimes is None:
            return root
        codes, n_regimes = regime_codes(self, regimes, self._regime_edges, len(each))
        if n_regimes > self.n_regimes_:
            raise ValueError(
                f"HierarchicalExperts.predict: regimes holds the code {codes.max()}, the experts know regimes 0 to "
                f"{self.n_regimes_ - 1}: fit with rows of that regime, or leave regimes=None."
            )
        return each[np.arange(len(each)), codes * self.n_quality_bins_ + self.quality_bins(X)]

    def quality_bins(self, X):
        """Quality bin of every row, 0 for the lowest signal-to-noise ratio.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        bins : ndarray of int of shape (n_samples,)
        """
        check_is_fitted(self, "coef_")
        array = check_rows(self, X, reset=False)
        if self._error_columns is not None:
            require_positive_errors(self, take_columns(array, self._error_columns), self._error_columns)
        return self._bins(array)

    def _bins(self, array, fitting=False):
        if fitting:
            edges = () if self.quality_edges is None else check_edges(self, "quality_edges", self.quality_edges)
            if len(edges) and self.error_columns is None:
                raise ValueError(
                    f"HierarchicalExperts.quality_edges={self.quality_edges!r} needs error_columns, which is None: "
                    "name the columns of X that hold the errors, or set quality_edges=None."
                )
            self._edges, self.n_quality_bins_ = np.asarray(edges), len(edges) + 1
        if self.n_quality_bins_ == 1:
            return np.zeros(len(array), dtype=np.intp)
        flux, error = take_columns(array, self.columns_), take_columns(array, self._error_columns)
        return np.digitize(signal_to_noise(flux, error), self._edges, right=True)

    def _make_projection(self):
        check_number(self, "n_components", self.n_components, kind=numbers.Integral, low=1)
        if self.projection is None:
            return None
        if self.projection == "whitened":
            width, paired = len(self.columns_), self._error_columns is not None
            error_columns = slice(width, 2 * width) if paired else None
            return NoiseWhitenedPCA(self.n_components, columns=slice(0, width), error_columns=error_columns)
        if isinstance(self.projection, str):
            check_choice(self, "projection", self.projection, ["whitened"])
        return realise(self, "projection", self.projection, default=None, base=TransformerMixin)

    def _projection_input(self, array):
        """Select the columns; for the whitened projection, their errors beside them."""
        flux = take_columns(array, self.columns_)
        if not isinstance(self.projection_, NoiseWhitenedPCA) or self.projection_.error_columns is None:
            return flux
        both = np.r_[self.columns_, self._error_columns]
        return take_columns(array, both)

    def _project(self, array):
        if self.projection_ is None:
            return take_columns(array, self.columns_)
        projected = np.asarray(self.projection_.transform(self._projection_input(array)))
        if projected.ndim != 2 or projected.dtype.kind != "f":
            raise ValueError(
                f"HierarchicalExperts.projection={self.projection!r} returned an array of shape {projected.shape} and "
                f"dtype {projected.dtype}: it must return floats of shape (n_samples, n_projected)."
            )
        return projected

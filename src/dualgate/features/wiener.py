"""Wiener scores: posterior means of the factors of a row, given the error of every pixel."""

import numbers
from functools import partial

import numpy as np
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from dualgate._validation import check_number, check_target, require_samples
from dualgate.features.factors import FactorSums, fill, known_factors, posterior
from dualgate.features.loadings import Loadings, clean_factors, first_factors, independent_factors, open_clean
from dualgate.features.nuisances import KeptReading, scores_beside
from dualgate.features.projection import PixelProjection
from dualgate.rows import choose_spread, open_rows, spread_rows

FIRST_TURNS = 2  # in which pixels of the sample that lie are left out
FEW_OUTLIERS = 5e-5  # share of the pixels that may be outliers by chance: seven times that of Gaussian noise
MOST_REGIMES = 50  # of which each has loadings of its own: sums grow with their square
IN_ALL, FEWEST = 24, 6  # factors of ``n_components="auto"`` in all, and free ones at least


class WienerScores(PixelProjection):
    r"""Posterior means of a few factors behind a row, given the row's own errors.

    A row is :math:`x = \bar x + V z + \epsilon` with factors :math:`z \sim N(0, I)` and noise of known variances
    :math:`E = \mathrm{diag}(e^2)`. The scores are the posterior means of z,

    .. math:: A = V^T E^{-1} V + I, \qquad \hat z = A^{-1} V^T E^{-1} (x - \bar x),

    with posterior variances :math:`\mathrm{diag}(A^{-1})`: 1 for a row without information, near 0 for a precise one.
    This is generalised least squares with a Gaussian prior, or factor analysis with known noise. A noisy row has small
    scores, so that the best prediction is the same linear function of them at any quality. A pixel whose flux or error
    is NaN, or whose error is infinite or 1e5 times as large as others of the row, has weight zero.

    The loadings V come from noise-free flux where there is some (`clean` of `fit`), else from the noisy rows by
    expectation-maximisation. With `supervised`, the target and the regimes have loadings of their own while fitting and
    are factors like others afterwards: the signal of the target is weak, and an unsupervised fit finds it last.

    Parameters
    ----------
    n_components : int or "auto", default=24
        Free factors. A supervised fit adds one for y, and with K regimes, up to 50, ``2 K - 1`` for both. ``"auto"`` is
        as many as make 24 factors in all, and at least 6.
    columns : None or column specification, default=None
        Flux columns, as in ColumnTransformer; None is all columns.
    error_columns : None or column specification, default=None
        Their errors, one column per flux column, in the same order. Without, the noise is taken to be the same
        everywhere, with the variance of the components left out (probabilistic principal components).
    return_variances : bool, default=False
        Whether `transform` appends the posterior variances to the scores.
    supervised : bool, default=False
        Whether `fit` uses y and regimes. A model of y that is trained on ``fit(X, y).transform(X)`` of the same rows
        is then too optimistic; `fit_transform`, and with it a :class:`~sklearn.pipeline.Pipeline`, gives every training
        row the scores of loadings that did not see it.
    smooth : bool, default=False
        Whether neighbouring columns are neighbouring pixels of a spectrum, so that loadings in units of the typical
        noise are smooth. The degree of smoothness is estimated from the rows. It gains nothing where the noise jumps
        from pixel to pixel.
    max_iter : int, default=10
        Steps of expectation-maximisation, each of which is one pass over the rows.
    max_rows : None or int, default=60_000
        Rows that the steps read, spread over all; None is all rows.
    cv : int, default=5
        Folds of `fit_transform`; row i of those read belongs to fold ``i % cv``.
    nuisances : None or Nuisances, default=None
        What a row carries that says nothing of the object, integrated out wherever rows are read with the loadings.
        The loadings themselves are learned without it, but for the pixels that a robust one leaves out.
    n_jobs : None or int, default=None
        Threads; -1 is one per core. Matrix products use the threads of BLAS in addition.
    random_state : int, default=0
        Seed of the randomised eigensolver that the fit starts with.

    Attributes
    ----------
    mean_ : ndarray of shape (n_pixels,)
    noise_ : ndarray of shape (n_pixels,)
        Typical error of each pixel.
    loadings_ : ndarray of shape (n_pixels, n_factors)
        V in the unit of the flux. The strongest factor is first and columns are orthogonal in units of the noise,
        unless :class:`~dualgate.experts.FactorExperts` refined them.
    n_iter_ : int
        Steps of expectation-maximisation that were done; 0 after a fit with `clean`.
    signal_variance_ : ndarray of shape (n_factors,)
        Summed variance of each factor over the pixels, in units of the noise variance.

    References
    ----------
    Bailey 2012, PASP 124, 1015 (principal components of noisy, incomplete data). Tipping & Bishop 1999, J. R. Stat.
    Soc. B 61, 611 (probabilistic principal components). Rubin & Thayer 1982, Psychometrika 47, 69 (EM).

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> error = np.where(rng.uniform(size=(2000, 20)) < 0.5, 0.1, 10.0)  # half the pixels are useless
    >>> z = rng.normal(size=2000)
    >>> flux = z[:, None] * np.sin(np.arange(20)) + error * rng.normal(size=(2000, 20))
    >>> wiener = WienerScores(1, columns=slice(0, 20), error_columns=slice(20, 40)).fit(np.c_[flux, error])
    >>> score = wiener.transform(np.c_[flux, error])[:, 0]
    >>> bool(abs(np.corrcoef(score, z)[0, 1]) > 0.99)
    True
    """

    def __init__(
        self,
        n_components=24,
        *,
        columns=None,
        error_columns=None,
        return_variances=False,
        supervised=False,
        smooth=False,
        max_iter=10,
        max_rows=60_000,
        cv=5,
        nuisances=None,
        n_jobs=None,
        random_state=0,
    ):
        self.n_components = n_components
        self.columns = columns
        self.error_columns = error_columns
        self.return_variances = return_variances
        self.supervised = supervised
        self.smooth = smooth
        self.max_iter = max_iter
        self.max_rows = max_rows
        self.cv = cv
        self.nuisances = nuisances
        self.n_jobs = n_jobs
        self.random_state = random_state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.multi_output = True
        return tags

    @property
    def _outputs(self):
        return {"projected": "score"} | ({"variances": "variance"} if self.return_variances else {})

    def fit(self, X, y=None, *, regimes=None, clean=None):
        """Find the loadings.

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)
            A source is read block by block, ``max_iter`` times.
        y : None or array-like of shape (n_samples,), default=None
            Targets, required by a supervised fit from noisy rows and ignored otherwise.
        regimes : None or array-like of int of shape (n_samples,), default=None
            Regime codes, for a supervised fit from noisy rows.
        clean : None or array-like or RowSource of shape (n_clean, n_pixels) or (n_clean, n_features), default=None
            Noise-free flux of similar objects, any number of rows. Columns are chosen as in `X` if there are as many.
            The loadings are then its principal components in units of the typical noise of `X`.

        Returns
        -------
        self : WienerScores

        Raises
        ------
        ValueError
            If a parameter is out of range, errors are not above zero, fluxes and errors differ in number, no pixel is
            measured, or a supervised fit lacks y.
        """
        rows = open_rows(self, X, reset=True)
        require_samples(self, rows, 2)
        check_consistent_length(rows, y, regimes)
        self._find_columns(X, rows.shape[1])
        if rows.in_memory:
            self._split(rows.read(0, len(rows)))  # a message then has the number of the row
        if clean is None:
            return self.learn(X, rows, y, regimes)
        self._start_fit(X, spread_rows(rows, n_jobs=self.n_jobs, finite=False), len(rows), clean=True)
        n_kept = self._factors.free.shape[1]
        factors = clean_factors(self, n_kept, *open_clean(clean, self.columns_, self.n_features_in_))
        self.rows_read_, self.n_iter_ = np.zeros(0, dtype=np.intp), 0
        self._finish(factors, [], np.eye(factors.free.shape[1]))
        return self

    def fit_transform(self, X, y=None, *, regimes=None, clean=None):
        """Find the loadings, and the scores of the same rows by loadings that did not see them.

        Loadings that are found with y carry some of a row's own target into its scores. Each row is therefore given
        the scores of loadings that were found without its fold, as in
        :class:`~sklearn.preprocessing.TargetEncoder`: ``fit(X, y).transform(X)`` is not ``fit_transform(X, y)``.

        Parameters
        ----------
        X, y, regimes, clean
            As in `fit`.

        Returns
        -------
        scores : ndarray, as from `transform`
            Rows that the steps did not read (see `max_rows`), and all rows after a fit with `clean`, have the scores of
            `transform`.
        """
        self.fit(X, y, regimes=regimes, clean=clean)
        return self._project_all(X, training=True)

    def _start_fit(self, X, sample, n_rows, y=None, codes=None, *, clean=False):
        auto = isinstance(self.n_components, str) and self.n_components == "auto"
        for name, low in {"n_components": 1, "max_iter": 1, "cv": 2}.items():
            if name != "n_components" or not auto:
                check_number(self, name, getattr(self, name), kind=numbers.Integral, low=low)
        if self.max_rows is not None:
            check_number(self, "max_rows", self.max_rows, kind=numbers.Integral, low=2)
        self._find_columns(X, sample.shape[1])
        few = self.max_rows is None or n_rows <= self.max_rows
        self.rows_read_ = None if few else choose_spread(n_rows, self.max_rows)
        chosen = slice(None) if few else self.rows_read_
        if self.nuisances is not None:
            self.nuisances.check(len(self.columns_))
        self._known = np.zeros((n_rows, 0))[chosen]
        if self.supervised and not clean:
            codes = None if codes is None else np.asarray(codes)[chosen]
            if codes is not None and len(np.unique(codes)) > MOST_REGIMES:
                codes = None
            self._known = known_factors(check_target(self, y)[chosen], codes)
        n_free = max(FEWEST, IN_ALL - self._known.shape[1]) if auto else self.n_components
        flux, error = self._split(sample)
        self.mean_, self.noise_, self._factors = first_factors(*fill(flux, error), n_free, self.random_state)
        self._has_outliers = False
        if self.nuisances is not None and self.nuisances.robust:
            measured = self.read(sample)[0] > 0
            for _ in range(FIRST_TURNS):
                agrees = KeptReading(self.read, self._factors)(sample)[0] > 0
                self._has_outliers = measured.sum() - agrees.sum() > FEW_OUTLIERS * measured.sum()
                if not self._has_outliers:
                    break
                first = first_factors(*fill(np.where(agrees, flux, np.nan), error), n_free, self.random_state)
                self.mean_, self.noise_, self._factors = first

    def begin(self, X, sample, n_rows, y=None, codes=None):  # noqa: D102
        self._start_fit(X, sample, n_rows, y, codes)
        self._factors.known = np.zeros((len(self.mean_), self._known.shape[1]))
        self.n_iter_, self._penalties = 0, None

    def next_pass(self):  # noqa: D102
        if self.n_iter_ == self.max_iter:
            return None
        return FactorSums(self._reading(self._factors), self._factors, self._known, self.cv, self.n_jobs)

    def _reading(self, factors):
        """Return what reads rows to learn loadings from them, without pixels that lie where the sample has some."""
        return KeptReading(self.read, factors) if self._has_outliers else self.read

    def end_pass(self, step):  # noqa: D102
        found = Loadings(step.found, self._factors.free.shape[1], self.smooth, self._penalties)
        self._factors, self._penalties = found.all, found.penalties
        self.n_iter_ += 1
        if self.n_iter_ == self.max_iter:
            folds = [found.without(fold) for fold in range(self.cv)]
            _, _, turned = np.linalg.svd(np.hstack([self._factors.free, self._factors.known]), full_matrices=False)
            self._finish(self._factors, folds, turned.T)
            self._penalties = None  # those of the factors before the rotation

    def _finish(self, factors, folds, rotation):
        """Keep means and loadings, in units of the noise, in one orientation for all folds, which is returned."""
        loadings = factors.turned(rotation, 0).free
        signs = np.sign(loadings[np.argmax(np.abs(loadings), axis=0), np.arange(loadings.shape[1])])
        rotation = rotation * np.where(signs == 0, 1.0, signs)
        self.mean_ = self.mean_ + self.noise_ * factors.shift
        self._bases = [each.turned(rotation, factors.shift) for each in (*folds, factors)]  # the last is of all rows
        self.loadings_ = self._bases[-1].free * self.noise_[:, None]
        self.signal_variance_ = np.square(self._bases[-1].free).sum(axis=0)
        for name in ("_factors", "_known"):  # of the fit alone
            self.__dict__.pop(name, None)
        return rotation

    @property
    def refinable(self):
        """Whether the loadings were learned from noisy rows."""
        return self.n_iter_ > 0

    def refining_pass(self, prior, information, y):  # noqa: D102
        known = np.zeros((len(y), 0))
        factors = self._bases[-1]
        return FactorSums(
            self._reading(factors), factors, known, self.cv, self.n_jobs, prior=prior, information=information, y=y
        )

    def end_refining(self, step):  # noqa: D102
        sums, kept = independent_factors(step.found)
        penalties = None if self._penalties is None else self._penalties[[*kept, -1]]
        found = Loadings(sums, len(kept), self.smooth, penalties)
        folds = [found.without(fold) for fold in range(self.cv)]
        signs = self._finish(found.all, folds, np.eye(len(kept)))
        self._penalties = found.penalties
        n_factors = len(step.found["second"]) - 1
        shift = np.zeros(n_factors)
        shift[kept] = found.shift
        return shift, np.linalg.solve(found.turn @ signs, np.eye(n_factors)[kept])

    def project(self, block, rows=None, first_row=0):  # noqa: D102
        if self.nuisances is not None:
            return scores_beside(self.inform(block, rows, first_row=first_row))

        def found(weights, weighted, factors):
            means, covariances = posterior(weights, weighted, factors)
            return means, np.einsum("nii->ni", covariances)

        scores, variances = self._by_basis(block, rows, found, first_row, dtype=block.dtype)
        return {"projected": scores, "variances": variances}

    def _outputs_of(self, block, rows, first_row):
        if self.return_variances or self.nuisances is not None:
            return self.project(block, rows, first_row)
        (scores,) = self._by_basis(block, rows, partial(posterior, mean_only=True), first_row, dtype=block.dtype)
        return {"projected": scores}

    def _folds_of(self, rows):
        """Fold of rows of the fit by number, -1 for those that it did not read."""
        n_folds, read = len(self._bases) - 1, self.rows_read_
        if n_folds == 0 or read is None:
            return rows % n_folds if n_folds else np.full(len(rows), -1)
        place = np.minimum(np.searchsorted(read, rows), len(read) - 1)
        return np.where(read[place] == rows, place % n_folds, -1)

    def to_pixels(self, coef):  # noqa: D102
        check_is_fitted(self, "loadings_")
        loadings = self._bases[-1].free
        operator = np.linalg.solve(loadings.T @ loadings + np.eye(loadings.shape[1]), loadings.T)
        return np.atleast_2d(coef) @ operator / self.noise_

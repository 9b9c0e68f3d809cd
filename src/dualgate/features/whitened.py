"""Principal components of the signal, seen through the noise."""

import numbers

import numpy as np
from scipy.linalg import eigh
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.extmath import randomized_range_finder
from sklearn.utils.validation import check_is_fitted

from dualgate._validation import (
    check_number,
    find_error_columns,
    require_positive_errors,
    resolve_columns,
    take_columns,
)
from dualgate.features.factors import STEP, Basis, information, relative_power, weigh
from dualgate.features.projection import Projection
from dualgate.rows import Pass, map_blocks, open_rows
from dualgate.statistics import CellStatistics

_DENSE_LIMIT = 1024  # pixels up to which every eigenvector is computed; above, only the leading ones
_SUM_ROWS = 4096  # rows worked on at a time
_OVERSAMPLES = 30  # directions beyond those kept, for the accuracy of the last ones
_WEIGHT_STEPS = 3  # weights and mean noise follow from each other; a few rounds settle both


class NoiseWhitenedPCA(Projection, TransformerMixin, BaseEstimator):
    r"""Leading components of the signal after every pixel is divided by its typical noise.

    With :math:`C` the covariance of the measured flux and :math:`N` the diagonal of mean squared errors, the whitened
    covariance of the noise-free signal is :math:`S = N^{-1/2} C N^{-1/2} - I`. Its leading eigenvectors :math:`V`
    give the scores :math:`z = V^T N^{-1/2} (x - \bar x)`. Without error columns :math:`N = I` and this is principal
    component analysis.

    Mean, C and N are weighted by the quality of the rows, :math:`\omega_i = 1 / r_i` with
    :math:`r_i = \langle e_{ip}^2 / N_p \rangle_p` the noise power of row i. Where rows differ much in quality the few
    worst would otherwise fill the covariance with their noise, and the components would chase it.

    Parameters
    ----------
    n_components : int
        Components to keep, at most as many as there are pixels or rows less one.
    columns : column specification
        Flux columns, as in ColumnTransformer; None is all columns.
    error_columns : None or column specification
        Their errors, one column per flux column, in the same order.
    random_state : int
        Seed of the randomised eigensolver that serves more than 1,024 pixels.

    Attributes
    ----------
    mean_ : ndarray of shape (n_pixels,)
        Mean flux, weighted.
    noise_ : ndarray of shape (n_pixels,)
        Root mean square error of each pixel, weighted; ones without error columns.
    components_ : ndarray of shape (n_components, n_pixels)
        Orthonormal rows, in whitened pixels.
    signal_variance_ : ndarray of shape (n_components,)
        Eigenvalues of S, in units of the noise variance; noise alone gives about zero.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> flux = rng.normal(size=(500, 1)) * [3.0, 3.0, 0.0] + rng.normal(size=(500, 3)) * [1.0, 1.0, 9.0]
    >>> X = np.c_[flux, np.ones((500, 2)), np.full((500, 1), 9.0)]
    >>> whitened = NoiseWhitenedPCA(1, columns=slice(0, 3), error_columns=slice(3, 6)).fit(X)
    >>> np.abs(whitened.components_).round(1)  # the noisy third pixel is not mistaken for signal
    array([[0.7, 0.7, 0. ]])
    """

    def __init__(self, n_components=16, *, columns=None, error_columns=None, random_state=0):
        self.n_components = n_components
        self.columns = columns
        self.error_columns = error_columns
        self.random_state = random_state

    @property
    def reads_errors(self):
        """Whether `error_columns` are given."""
        return self.error_columns is not None

    def fit(self, X, y=None):
        """Find the components in one pass over the rows.

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)
        y : None
            Ignored.

        Returns
        -------
        self : NoiseWhitenedPCA

        Raises
        ------
        ValueError
            If errors are not above zero, or fluxes and errors differ in number.
        """
        return self.learn(X, open_rows(self, X, reset=True))

    def begin(self, X, sample, n_rows, y=None, codes=None):  # noqa: D102
        check_number(self, "n_components", self.n_components, kind=numbers.Integral, low=1)
        self.n_features_in_ = sample.shape[1]
        self.columns_ = resolve_columns(self, "columns", self.columns, X, sample.shape[1])
        self._error_columns = None if self.error_columns is None else find_error_columns(self, self.error_columns, X, self.columns_)
        self._step = WhiteningSums(self._split, WhiteningStatistics.about(*self._split(sample)))

    def next_pass(self):  # noqa: D102
        return self.__dict__.pop("_step", None)

    def end_pass(self, step):  # noqa: D102
        statistics = step.found
        self.mean_, self.noise_, covariance = statistics.whiten()
        kept = min(self.n_components, len(self.mean_), max(1, statistics.n_rows - 1))
        variance, vectors = leading(covariance, kept, self.random_state)
        signs = np.sign(vectors[np.argmax(np.abs(vectors), axis=0), np.arange(kept)])
        self.components_ = np.ascontiguousarray((vectors * np.where(signs == 0, 1.0, signs)).T)
        self.signal_variance_ = variance - (1.0 if self.reads_errors else 0.0)

    def _split(self, array, first_row=0):
        """Flux, and errors where there are some."""
        if self._error_columns is None:
            return take_columns(array, self.columns_), None
        error = take_columns(array, self._error_columns)
        require_positive_errors(self, error, self._error_columns, first_row=first_row)
        return take_columns(array, self.columns_), error

    def transform(self, X):
        """Project the flux.

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)

        Returns
        -------
        scores : ndarray of shape (n_samples, n_components)
            Of the precision of `X`.
        """
        check_is_fitted(self, "components_")
        rows = open_rows(self, X, reset=False)
        return map_blocks(self, lambda first, block: self.project(block)["projected"], rows)

    def project(self, block, rows=None):  # noqa: D102
        flux = take_columns(block, self.columns_)
        mean, unit = self.mean_.astype(flux.dtype), self.noise_.astype(flux.dtype)
        operator = self.components_.T.astype(flux.dtype)
        scores = np.empty((len(flux), operator.shape[1]), flux.dtype)
        for start in range(0, len(flux), STEP):  # deviations first: a large mean would cost digits in the product
            deviation = flux[start : start + STEP] - mean
            deviation /= unit
            np.dot(deviation, operator, out=scores[start : start + STEP])
        return {"projected": scores}

    def information(self, block):
        """Return A (n_rows, n_components, n_components) and b (n_rows, n_components) of rows, given their errors."""
        weights, weighted = weigh(*self._split(block), self.mean_, self.noise_)
        return information(weights, weighted, Basis(self.components_.T))

    def noise_power(self, block):
        """Return the mean squared error of rows in units of the typical noise (n_rows,)."""
        return relative_power(self._split(block)[1], self.noise_)

    def to_pixels(self, coef):
        """Coefficients on pixels that predict what `coef` predicts from the scores.

        Parameters
        ----------
        coef : ndarray of shape (n_models, n_components)

        Returns
        -------
        coefficients : ndarray of shape (n_models, n_pixels), [unit of y per unit of flux]
        """
        check_is_fitted(self, "components_")
        return np.atleast_2d(coef) @ self.components_ / self.noise_

    def get_feature_names_out(self, input_features=None):
        """Names of the scores.

        Parameters
        ----------
        input_features : ignored

        Returns
        -------
        names : ndarray of str
        """
        check_is_fitted(self, "components_")
        return np.array([f"whitened_{i}" for i in range(len(self.components_))], dtype=object)


class WhiteningSums(Pass):
    """The one pass of `NoiseWhitenedPCA`."""

    def __init__(self, split, empty):
        self.split, self.empty = split, empty

    def begin(self):  # noqa: D102
        return self.empty.empty()

    def update(self, start, block):  # noqa: D102
        self.found.update(*self.split(block, start))


class WhiteningStatistics:
    """Weighted mean, covariance and noise of flux rows: what adds up over blocks of rows and over machines.

    A row's weight is the inverse of its noise power, measured in `unit`, the typical noise of a sample of rows.

    Parameters
    ----------
    unit : ndarray of shape (n_pixels,)
    origin : ndarray of shape (n_pixels,), in `unit`
        A point near the data.
    weighted : bool
        Whether rows come with errors.
    """

    def __init__(self, unit, origin, weighted):
        self.unit, self.origin, self.weighted, self.n_rows = unit, origin, weighted, 0
        self.moments = CellStatistics.zeros(1, len(unit), origin=origin)
        self.noise_power = np.zeros(len(unit))
        self._scratch = np.empty((0, 0))  # kept from update to update: new memory costs more than the sums

    def __getstate__(self):
        return vars(self) | {"_scratch": np.empty((0, 0))}

    @classmethod
    def about(cls, flux, error):
        """Statistics of no rows yet, for rows like these."""
        if error is None:
            unit = np.full(flux.shape[1], np.abs(flux).max() or 1.0, dtype=np.float64)
        else:
            unit = _typical_noise(error)
        origin = (flux / unit.astype(flux.dtype)).mean(axis=0, dtype=np.float64)
        return cls(unit, origin, error is not None)

    def empty(self):
        """Statistics of no rows yet, which can be added to these."""
        return WhiteningStatistics(self.unit, self.origin, self.weighted)

    def update(self, flux, error):
        """Add rows in place."""
        unit = self.unit.astype(flux.dtype)
        if self._scratch.dtype != flux.dtype or len(self._scratch) < min(_SUM_ROWS, len(flux)):
            self._scratch = np.empty((min(_SUM_ROWS, len(flux)), len(unit)), flux.dtype)
        for start in range(0, len(flux), _SUM_ROWS):
            rows, weights = slice(start, start + _SUM_ROWS), None
            if error is not None:
                power = np.divide(error[rows], unit, out=self._scratch[: len(error[rows])])
                power *= power
                weights = 1 / power.mean(axis=1, dtype=np.float64)
                self.noise_power += weights.astype(power.dtype) @ power
            whitened = np.divide(flux[rows], unit, out=self._scratch[: len(flux[rows])])
            nothing = np.zeros(len(whitened), dtype=int)
            self.moments.update(whitened, nothing, nothing, sample_weight=weights)
        self.n_rows += len(flux)

    def __add__(self, other):
        total = self.empty()
        total.n_rows = self.n_rows + other.n_rows
        total.noise_power = self.noise_power + other.noise_power
        total.moments = self.moments + other.moments
        return total

    def whiten(self):
        """Return the mean, the noise of each pixel, and N^-1/2 C N^-1/2, the covariance seen through it."""
        count = float(self.moments.count[0])
        noise = np.sqrt(self.noise_power / count) if self.weighted else 1 / self.unit
        covariance = self.moments.centred()[0][0]
        covariance /= count
        covariance /= noise[:, None] * noise
        return self.moments.means()[0][0] * self.unit, self.unit * noise, covariance


def _typical_noise(error):
    """Root mean square error of each pixel over rows weighted by their quality, which in turn follows from it."""
    unit = np.median(error[:: max(1, len(error) // 100)])  # squares of errors like 1e-21 would underflow in float32
    power = np.square(error / unit)
    weights = np.full(len(error), 1 / len(error))
    for _ in range(_WEIGHT_STEPS):
        noise_power = weights.astype(power.dtype) @ power
        weights = 1 / (power @ (1 / noise_power)).astype(np.float64)
        weights /= weights.sum()
    return np.sqrt(weights.astype(power.dtype) @ power).astype(np.float64) * float(unit)


def leading(covariance, n_kept, seed):
    """Leading eigenvalues and eigenvectors of a symmetric positive semi-definite matrix, largest first."""
    size = len(covariance)
    if size <= _DENSE_LIMIT or n_kept > size // 4:
        values, vectors = eigh(covariance, subset_by_index=(size - n_kept, size - 1))
        return values[::-1], vectors[:, ::-1]
    low = covariance.astype(np.float32)
    basis = randomized_range_finder(low, size=n_kept + _OVERSAMPLES, n_iter=4, random_state=seed)
    values, small = eigh((basis.T @ (low @ basis)).astype(np.float64))
    leading = np.argsort(values)[::-1][:n_kept]
    return values[leading], basis.astype(np.float64) @ small[:, leading]

"""Principal components of the signal, seen through the noise."""

import numbers

import numpy as np
from scipy.linalg import eigh, get_blas_funcs
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.extmath import randomized_range_finder
from sklearn.utils.validation import check_is_fitted

from dualgate._validation import (
    check_number,
    check_rows,
    require_positive_errors,
    resolve_columns,
    take_columns,
)

_DENSE_LIMIT = 1024  # pixels up to which every eigenvector is computed; above, only the leading ones
_BLOCK_ROWS = 4096
_OVERSAMPLES = 30  # directions beyond those kept, for the accuracy of the last ones
_WEIGHT_STEPS = 3  # weights and mean noise follow from each other; a few rounds settle both


class NoiseWhitenedPCA(TransformerMixin, BaseEstimator):
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

    def fit(self, X, y=None):
        """Find the components in one pass over the rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
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
        array = check_rows(self, X, reset=True)
        check_number(self, "n_components", self.n_components, kind=numbers.Integral, low=1)
        self.columns_ = resolve_columns(self, "columns", self.columns, X, array.shape[1])
        flux = take_columns(array, self.columns_)
        weights, self.noise_ = np.full(len(flux), 1 / len(flux)), np.ones(flux.shape[1])
        if self.error_columns is not None:
            weights, self.noise_ = _quality_weights(take_error_columns(self, X, array, self.columns_))
        self.mean_ = _weighted_sum(weights, flux)
        covariance = _whitened_covariance(flux, weights, self.mean_, self.noise_)
        kept = min(self.n_components, flux.shape[1], max(1, len(flux) - 1))
        variance, vectors = _leading(covariance, kept, self.random_state)
        signs = np.sign(vectors[np.argmax(np.abs(vectors), axis=0), np.arange(kept)])
        self.components_ = np.ascontiguousarray((vectors * np.where(signs == 0, 1.0, signs)).T)
        self.signal_variance_ = variance - (1.0 if self.error_columns is not None else 0.0)
        return self

    def transform(self, X):
        """Project the flux.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        scores : ndarray of shape (n_samples, n_components)
            Of the precision of `X`.
        """
        check_is_fitted(self, "components_")
        flux = take_columns(check_rows(self, X, reset=False), self.columns_)
        operator = (self.components_ / self.noise_).T.astype(flux.dtype)
        # an offset after the product, not a centred copy of the rows before it
        return flux @ operator - (self.mean_ @ (self.components_ / self.noise_).T).astype(flux.dtype)

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


def take_error_columns(owner, X, array, flux_columns):
    """Select the errors that belong to `flux_columns`, and check their number and sign."""
    columns = resolve_columns(owner, "error_columns", owner.error_columns, X, array.shape[1])
    if len(columns) != len(flux_columns):
        raise ValueError(
            f"{type(owner).__name__}.error_columns selects {len(columns):,} columns, columns selects "
            f"{len(flux_columns):,}: every flux needs one error. X has {array.shape[1]:,} columns; X = [flux | error] "
            "has an even number, twice the number of pixels."
        )
    error = take_columns(array, columns)
    require_positive_errors(owner, error, columns)
    return error


def _weighted_sum(weights, rows, function=np.asarray):
    """Sum of ``weights @ function(rows)`` over blocks, each in the precision of the rows, the sum in double."""
    total = np.zeros(rows.shape[1])
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = function(rows[start : start + _BLOCK_ROWS])
        total += weights[start : start + _BLOCK_ROWS].astype(rows.dtype) @ block
    return total


def _quality_weights(error):
    """Weights of the rows, which sum to one, and the root mean square error of each pixel under them."""
    unit = np.median(error[:: max(1, len(error) // 100)])  # squares of errors like 1e-21 would underflow in float32

    def power(block):
        return np.square(block / unit)

    weights = np.full(len(error), 1 / len(error))
    noise_power = _weighted_sum(weights, error, power)
    for _ in range(_WEIGHT_STEPS):
        inverse = (1 / noise_power).astype(error.dtype)
        starts = range(0, len(error), _BLOCK_ROWS)
        weights = 1 / np.concatenate([power(error[i : i + _BLOCK_ROWS]) @ inverse for i in starts]).astype(np.float64)
        weights /= weights.sum()
        noise_power = _weighted_sum(weights, error, power)
    return weights, np.sqrt(noise_power) * float(unit)


def _whitened_covariance(flux, weights, mean, noise):
    """N^-1/2 cov(flux) N^-1/2 of weighted rows, summed over blocks in double precision."""
    upper = np.zeros((flux.shape[1], flux.shape[1]))
    syrk = get_blas_funcs("syrk", dtype=flux.dtype)  # half the work of a general product
    scale = np.sqrt(weights * len(weights))
    for start in range(0, len(flux), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        block = (flux[rows] - mean.astype(flux.dtype)) / noise.astype(flux.dtype)
        block *= scale[rows, None].astype(flux.dtype)
        upper += syrk(1.0, block.T)
    upper /= len(flux)
    return np.triu(upper) + np.triu(upper, 1).T


def _leading(covariance, n_kept, seed):
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

"""Statistics of an error vector: how well a row was measured."""

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from dualgate._validation import check_rows

STATISTICS = ("mean", "std", "min", "max", "median", "sum", "q25", "q75", "skew", "kurtosis")
_BLOCK_VALUES = 1 << 18  # values worked on at a time: they stay in the processor's cache


def signal_to_noise(flux, error):
    r"""Signal-to-noise ratio of whole rows, the length of the flux over the length of the error.

    .. math:: \mathrm{SNR} = \lVert flux \rVert / \lVert error \rVert

    The flux is the measured one, so pure noise has a ratio of about one.

    Parameters
    ----------
    flux, error : ndarray of shape (n_samples, n_pixels), [same unit]
        Measured values and their standard deviations.

    Returns
    -------
    snr : ndarray of shape (n_samples,), [dimensionless]

    Examples
    --------
    >>> import numpy as np
    >>> signal_to_noise(np.array([[3.0, 4.0]]), np.array([[1.0, 0.0]]))
    array([5.])
    """
    power = [np.einsum("ij,ij->i", part, part, dtype=np.float64) for part in (flux, error)]
    return np.sqrt(power[0] / power[1])


class QualityStatistics(TransformerMixin, BaseEstimator):
    """Ten statistics of every row of errors, without any reference to single pixels.

    Mean, standard deviation, minimum, maximum, median, sum, quartiles, skewness and excess kurtosis (both biased
    estimators, as in `scipy.stats`). They keep the signal-to-noise ratio and little else, which is what a quality
    tower may know; the error vector itself would give the star away. A row of equal values has no shape: its skewness
    and kurtosis are 0 here, where SciPy gives NaN.

    Parameters
    ----------
    subset : None or list of str
        Which statistics, in this order; None is all of `STATISTICS`. ``("mean", "std", "min", "max", "median")``
        is a five-dimensional variant.

    Attributes
    ----------
    names_ : list of str
        The statistics computed.
    n_features_in_ : int
        Number of pixels seen in `fit`.

    Examples
    --------
    >>> QualityStatistics(subset=["mean", "max"]).fit_transform([[1.0, 2.0, 6.0]])
    array([[3., 6.]])
    """

    def __init__(self, subset=None):
        self.subset = subset

    def fit(self, X, y=None):
        """Check the parameters; nothing is learned.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_pixels)
            Error rows.
        y : None
            Ignored.

        Returns
        -------
        self : QualityStatistics

        Raises
        ------
        ValueError
            If `subset` names a statistic that does not exist, or names none.
        """
        check_rows(self, X, reset=True)
        self.names_ = list(STATISTICS if self.subset is None else self.subset)
        unknown = [name for name in self.names_ if name not in STATISTICS]
        if unknown or not self.names_:
            raise ValueError(
                f"QualityStatistics.subset={self.subset!r} must list some of {', '.join(STATISTICS)}"
                + (f"; {unknown[0]!r} is none of them." if unknown else "; it lists none.")
            )
        return self

    def transform(self, X):
        """Compute the statistics.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_pixels)
            Error rows.

        Returns
        -------
        statistics : ndarray of shape (n_samples, n_statistics), float64
        """
        check_is_fitted(self, "names_")
        X = check_rows(self, X, reset=False)
        rows = max(1, _BLOCK_VALUES // X.shape[1])
        blocks = [_statistics(X[start : start + rows]) for start in range(0, len(X), rows)]
        return np.concatenate(blocks)[:, [STATISTICS.index(name) for name in self.names_]]

    def get_feature_names_out(self, input_features=None):
        """Names of the statistics.

        Parameters
        ----------
        input_features : ignored

        Returns
        -------
        names : ndarray of str
        """
        check_is_fitted(self, "names_")
        return np.array([f"error_{name}" for name in self.names_], dtype=object)


def _statistics(block):
    """All ten statistics of a block (n_rows, n_pixels), in float64."""
    n_pixels = block.shape[1]
    ordered = np.sort(block, axis=1)  # vectorised in numpy; faster than selecting six order statistics
    smallest, largest = ordered[:, 0], ordered[:, -1]
    positions = np.array([0.25, 0.5, 0.75]) * (n_pixels - 1)
    below = positions.astype(int)
    above = np.minimum(below + 1, n_pixels - 1)
    lower, upper = ordered[:, below].astype(np.float64), ordered[:, above]
    q25, median, q75 = (lower + (positions - below) * (upper - lower)).T

    values = block.astype(np.float64)
    total = values.sum(axis=1)
    mean = total / n_pixels
    deviation = values - mean[:, None]
    # a row of equal values keeps rounding noise here; it must not be divided by itself
    deviation[smallest == largest] = 0.0
    square = deviation * deviation
    variance = square.mean(axis=1)
    third = np.einsum("ij,ij->i", square, deviation) / n_pixels
    fourth = np.einsum("ij,ij->i", square, square) / n_pixels
    safe = np.where(variance > 0, variance, 1.0)
    skew = third / safe**1.5
    kurtosis = np.where(variance > 0, fourth / safe**2 - 3.0, 0.0)
    return np.column_stack([mean, np.sqrt(variance), smallest, largest, median, total, q25, q75, skew, kurtosis])

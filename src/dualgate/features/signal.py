"""Principal components of columns whose errors are not given: as many as rise above the columns' own noise."""

import numbers

import numpy as np

from dualgate._validation import check_number
from dualgate.features.factors import Factors
from dualgate.features.projection import PixelProjection
from dualgate.features.whitened import WhiteningSums, leading
from dualgate.rows import open_rows
from dualgate.statistics import describe_excess

GROUP = 1024  # columns whose noise is estimated from each other, at most
ROWS_PER_COLUMN = 4  # of such a group, at least: with fewer, its columns would predict each other's noise
SHRINKAGE = 1e-3  # of the correlations towards none, for their inverse
N_MATRICES = 4  # of columns x columns that a fit holds at once
CONSTANT = 1e-12  # of its mean: the standard deviation of a column that is constant


class SignalPCA(PixelProjection):
    r"""Principal components of columns in units of their noise, of which those above the noise are kept.

    The noise of a column is the part of its variance that the other columns do not predict, :math:`1 / (R^{-1})_{jj}`
    of the correlations R, in groups of at most a quarter as many columns as rows. In units of their noise the
    components do not depend on the units of the columns, and pure noise has eigenvalues up to
    :math:`(1 + \sqrt{\beta})^2`, with :math:`\beta` columns per row. Components are kept above the threshold that is
    optimal for denoising (Gavish & Donoho 2014, with known noise); at least one is kept.

    Parameters
    ----------
    n_components : int, default=50
        Components to keep, at most.
    random_state : int, default=0
        Seed of the randomised eigensolver that serves more than 1,024 columns.

    Attributes
    ----------
    mean_, noise_ : ndarray of shape (n_features,)
        Mean and noise of each column; the noise of a constant column is infinite.
    components_ : ndarray of shape (n_kept, n_features)
        Orthonormal rows, in columns divided by their noise.
    signal_variance_ : ndarray of shape (n_kept,)
        Variance of each component less that of the noise, in units of the latter.

    References
    ----------
    Joreskog 1969, Psychometrika 34, 51 (noise from partial correlations). Gavish & Donoho 2014, IEEE Transactions on
    Information Theory 60, 5040.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(500, 2)) @ rng.normal(size=(2, 30)) + 0.1 * rng.normal(size=(500, 30))
    >>> len(SignalPCA().fit(X * np.logspace(-3, 3, 30)).components_)
    2
    """

    columns = error_columns = None  # all columns, whose errors are not given
    _outputs = {"projected": "component"}  # noqa: RUF012

    def __init__(self, n_components=50, *, random_state=0):
        self.n_components = n_components
        self.random_state = random_state

    def fit(self, X, y=None):
        """Find the components in one pass over the rows.

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)
        y : None, default=None
            Ignored.

        Returns
        -------
        self : SignalPCA

        Raises
        ------
        ValueError
            If `n_components` is not an integer above zero.
        """
        return self.learn(X, open_rows(self, X, reset=True))

    def begin(self, X, sample, n_rows, y=None, codes=None):  # noqa: D102
        check_number(self, "n_components", self.n_components, kind=numbers.Integral, low=1)
        self._find_columns(X, sample.shape[1])
        problem = describe_excess(N_MATRICES, sample.shape[1])
        if problem:
            raise ValueError(
                f"SignalPCA: {problem}. Select fewer columns, or reduce them first, by a transformer such as "
                "sklearn.random_projection.GaussianRandomProjection(1000) as projection of the experts and features of "
                "the physics gate."
            )
        self._step = WhiteningSums.about(self._split, *self._split(sample))

    def next_pass(self):  # noqa: D102
        return vars(self).pop("_step", None)

    def end_pass(self, step):  # noqa: D102
        (self.mean_, _, covariance), n_rows = step.whiten(), step.found["n_rows"]
        width, spread = len(self.mean_), np.sqrt(np.diagonal(covariance).clip(min=0))
        spread = np.where(spread <= CONSTANT * np.abs(self.mean_), np.inf, spread)
        correlation = covariance / spread[:, None] / spread
        self.noise_ = spread * np.sqrt(unexplained(correlation, n_rows))
        covariance = covariance / self.noise_[:, None] / self.noise_
        variance, vectors = leading(covariance, max(1, min(self.n_components, width, n_rows - 1)), self.random_state)
        kept = max(1, int(np.sum(variance > signal_threshold(width / n_rows))))
        self.components_, self.signal_variance_ = np.ascontiguousarray(vectors[:, :kept].T), variance[:kept] - 1
        self._bases = [Factors(self.components_.T, np.zeros((width, 0)), np.zeros(width))]

    def project(self, block, rows=None, first_row=0):  # noqa: D102
        scaled = (block - self.mean_) / self.noise_  # in double: columns may be far from zero
        return {"projected": (scaled @ self.components_.T).astype(block.dtype)}

    def to_pixels(self, coef):  # noqa: D102
        return np.atleast_2d(coef) @ self.components_ / self.noise_


def unexplained(correlation, n_rows):
    """Share of each column's variance that others do not predict (n_features,), in groups of spread columns."""
    width, share = len(correlation), np.ones(len(correlation))
    n_groups = -(-width // min(GROUP, max(1, n_rows // ROWS_PER_COLUMN)))
    for group in range(n_groups):
        columns = slice(group, None, n_groups)
        own = (1 - SHRINKAGE) * correlation[columns, columns]
        own[np.diag_indices_from(own)] += SHRINKAGE
        # residuals of least squares have one degree of freedom less for each column
        share[columns] = n_rows / (n_rows - len(own)) / np.diagonal(np.linalg.inv(own))
    return share


def signal_threshold(ratio):
    """Eigenvalue, in units of the noise variance, above which a component is kept; `ratio` is columns per row."""
    beta = min(ratio, 1 / ratio)
    edge = 2 * (beta + 1) + 8 * beta / ((beta + 1) + np.sqrt(beta**2 + 14 * beta + 1))
    return edge * max(ratio, 1.0)

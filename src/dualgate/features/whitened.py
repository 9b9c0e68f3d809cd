"""Principal components of the signal in units of the noise."""

import numbers
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from sklearn.utils.extmath import randomized_range_finder
from sklearn.utils.validation import check_is_fitted

from dualgate._validation import MASK_ROWS, check_number, find_missing, take_columns
from dualgate.features.factors import STEP, Factors, fill
from dualgate.features.projection import PixelProjection
from dualgate.rows import Pass, open_rows
from dualgate.statistics import CellStatistics

_DENSE_LIMIT = 1024  # pixels up to which every eigenvector is computed; above, only the leading ones
_SUM_ROWS = 4096  # rows worked on at a time
_OVERSAMPLES = 30  # directions beyond those kept, for the accuracy of the last ones
_FILL_ROWS, _FILL_STEPS = 1024, 2  # of the components that fill missing pixels while fitting
_LEAST = 1e-9  # signal variance, and noise over signal, of a component that missing pixels are predicted by
_WEIGHT_STEPS = 3  # weights and mean noise depend on each other; a few rounds converge


class NoiseWhitenedPCA(PixelProjection):
    r"""Leading components of the signal after every pixel is divided by its typical noise.

    With :math:`C` the covariance of the measured flux and :math:`N` the diagonal of mean squared errors, the whitened
    covariance of the noise-free signal is :math:`S = N^{-1/2} C N^{-1/2} - I`. Its leading eigenvectors :math:`V`
    give the scores :math:`z = V^T N^{-1/2} (x - \bar x)`. Without error columns :math:`N = I` and this is principal
    component analysis.

    Mean, C and N are weighted by the quality of the rows, :math:`\omega_i = 1 / r_i` with
    :math:`r_i = \langle e_{ip}^2 / N_p \rangle_p` the noise power of row i. Where rows differ much in quality the few
    worst would otherwise dominate the covariance, and the components would describe their noise.

    With error columns, a pixel whose flux or error is NaN or infinite was not measured: it is filled with what the
    components predict from the measured pixels of the row, with :math:`r_i N` for its noise and the signal variances
    for the prior of the scores. A row without any pixel has scores of zero.

    Parameters
    ----------
    n_components : int, default=16
        Components to keep, at most the number of pixels, and the number of rows minus one.
    columns : None or column specification, default=None
        Flux columns, as in ColumnTransformer; None is all columns.
    error_columns : None or column specification, default=None
        Their errors, one column per flux column, in the same order; None is no errors.
    random_state : int, default=0
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
    >>> np.abs(whitened.components_).round(1)  # the noisy third pixel has no weight
    array([[0.7, 0.7, 0. ]])
    """

    def __init__(self, n_components=16, *, columns=None, error_columns=None, random_state=0):
        self.n_components = n_components
        self.columns = columns
        self.error_columns = error_columns
        self.random_state = random_state

    _outputs = {"projected": "whitened"}  # noqa: RUF012

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.reads_errors
        return tags

    def fit(self, X, y=None):
        """Find the components in one pass over the rows.

        Parameters
        ----------
        X : array-like or RowSource of shape (n_samples, n_features)
        y : None, default=None
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
        self._find_columns(X, sample.shape[1])
        flux, error = self._split(sample)
        missing, filling = find_missing(flux, error), None
        if missing is not None:
            flux, error = fill(flux, error)
            filling = self._start(flux, error, missing)
        self._step = WhiteningSums.about(self._split, flux, error, filling)

    def _start(self, flux, error, missing):
        """Fit to rows whose missing pixels were filled with the mean, and again with what the components predict."""
        some = slice(None, None, -(-len(flux) // _FILL_ROWS))
        flux, error, missing, n_pixels = flux[some].copy(), error[some], missing[some], flux.shape[1]
        columns = {"columns": slice(0, n_pixels), "error_columns": slice(n_pixels, None)}
        for _ in range(_FILL_STEPS):
            model = NoiseWhitenedPCA(self.n_components, **columns, random_state=self.random_state)
            filling = model.fit(np.hstack([flux, error])).filling()
            flux = filling.filled(flux, error, missing)
        return filling

    def filling(self):
        """Return what fills pixels that were not measured."""
        check_is_fitted(self, "components_")
        return Filling(self.mean_, self.noise_, self.components_, self.signal_variance_)

    def next_pass(self):  # noqa: D102
        return self.__dict__.pop("_step", None)

    def end_pass(self, step):  # noqa: D102
        self.mean_, self.noise_, covariance = step.whiten()
        kept = min(self.n_components, len(self.mean_), max(1, step.found["n_rows"] - 1))
        variance, vectors = leading(covariance, kept, self.random_state)
        signs = np.sign(vectors[np.argmax(np.abs(vectors), axis=0), np.arange(kept)])
        self.components_ = np.ascontiguousarray((vectors * np.where(signs == 0, 1.0, signs)).T)
        self._bases = [Factors(self.components_.T, np.zeros((len(self.mean_), 0)), np.zeros(len(self.mean_)))]
        self.signal_variance_ = variance - (1.0 if self.reads_errors else 0.0)

    def project(self, block, rows=None, first_row=0):  # noqa: D102
        flux = take_columns(block, self.columns_)
        error = take_columns(block, self._error_columns) if self.reads_errors else None
        mean, unit = self.mean_.astype(flux.dtype), self.noise_.astype(flux.dtype)
        operator = self.components_.T.astype(flux.dtype)
        scores = np.empty((len(flux), operator.shape[1]), flux.dtype)
        for start in range(0, len(flux), STEP):  # deviations first: a large mean would cost digits in the product
            here = slice(start, start + STEP)
            deviation = flux[here] - mean
            deviation /= unit
            with np.errstate(invalid="ignore"):
                np.dot(deviation, operator, out=scores[here])
                if error is None or np.isfinite(np.sum(error[here]) + np.sum(scores[here])):
                    continue
            missing = find_missing(flux[here], error[here])
            if missing is not None:
                np.copyto(deviation, 0, where=missing)
                np.dot(deviation, operator, out=scores[here])
                rows = np.flatnonzero(missing.any(axis=1))
                filling = self.filling()
                for some in np.split(rows, range(MASK_ROWS, len(rows), MASK_ROWS)):
                    seen = scores[start + some]
                    scores[start + some] = filling.scores(seen, error[start + some], missing[some])
        return {"projected": scores}

    def to_pixels(self, coef):  # noqa: D102
        check_is_fitted(self, "components_")
        return np.atleast_2d(coef) @ self.components_ / self.noise_


class WhiteningSums(Pass):
    """Weighted mean, covariance and noise of flux rows: the one pass of `NoiseWhitenedPCA`.

    A row's weight is the inverse of its noise power in units of `unit` (n_pixels,), the typical noise of a sample of
    rows. `split` maps (block, first_row) to flux and errors; sums are taken about `origin` (n_pixels,), in `unit`.
    `filling` (`Filling` or None) predicts flux that was not measured, whose error is taken to be the typical one of the
    pixel times that of the row.
    """

    def __init__(self, split, unit, origin, filling=None):
        self.split, self.unit, self.origin, self.filling = split, unit, origin, filling

    @classmethod
    def about(cls, split, flux, error, filling=None):
        """Make the pass for rows like these."""
        if error is None:
            unit = np.full(flux.shape[1], np.abs(flux).max() or 1.0, dtype=np.float64)
        else:
            unit = _typical_noise(error)
        return cls(split, unit, (flux / unit.astype(flux.dtype)).mean(axis=0, dtype=np.float64), filling)

    def begin(self):  # noqa: D102
        moments = CellStatistics.zeros(1, len(self.unit), origin=self.origin)
        return {"moments": moments, "noise_power": np.zeros(len(self.unit)), "n_rows": 0}

    def update(self, start, block):  # noqa: D102
        flux, error = self.split(block, start)
        unit = self.unit.astype(flux.dtype)
        share = np.full(len(unit), 1 / len(unit), flux.dtype)
        scratch = np.empty((min(_SUM_ROWS, len(flux)), len(unit)), flux.dtype)
        for first in range(0, len(flux), _SUM_ROWS):
            rows, weights = slice(first, first + _SUM_ROWS), None
            own_flux, own_error = flux[rows], None if error is None else error[rows]
            missing = None if error is None else find_missing(own_flux, own_error)
            if missing is not None:
                own_flux, own_error = self._completed(own_flux, own_error, missing)
            if error is not None:
                power = np.divide(own_error, unit, out=scratch[: len(own_error)])
                power *= power
                weights = 1 / (power @ share).astype(np.float64)
                self.found["noise_power"] += weights.astype(power.dtype) @ power
            whitened = np.divide(own_flux, unit, out=scratch[: len(own_flux)])
            nothing = np.zeros(len(whitened), dtype=int)
            self.found["moments"].update(whitened, nothing, nothing, sample_weight=weights)
            self.found["n_rows"] += len(whitened)

    def _completed(self, flux, error, missing):
        """Fill missing pixels of the rows that have others, and add the noise that they lack to the sums."""
        some = ~missing.all(axis=1)
        flux, error, missing = flux[some], error[some], missing[some]
        filling = self.filling
        if filling is None:  # none was missing in the sample
            filling = Filling(self.origin * self.unit, self.unit, np.zeros((0, len(self.unit))), np.zeros(0))
        diagonal = np.einsum("ii->i", self.found["moments"].gram[0])
        diagonal += missing.sum(axis=0)  # an error of the row's own size, times the weight of the row
        typical = np.sqrt(noise_power(error, self.unit, missing))[:, None] * self.unit
        return filling.filled(flux, error, missing), np.where(missing, typical.astype(error.dtype), error)

    def whiten(self):
        """Return the mean, the noise of each pixel, and N^-1/2 C N^-1/2, the covariance in units of the noise."""
        moments, noise_power = self.found["moments"], self.found["noise_power"]
        count = float(moments.count[0])
        noise = np.sqrt(noise_power / count) if noise_power.any() else 1 / self.unit
        covariance = moments.centred()[0][0]
        covariance /= count
        covariance /= noise[:, None] * noise
        return moments.means()[0][0] * self.unit, self.unit * noise, covariance


@dataclass(frozen=True, eq=False)
class Filling:
    """What components (n_components, n_pixels) of a `signal` variance each say of pixels that were not measured.

    Scores s of a row have the prior N(0, signal) and noise of r times the typical one. With the scores c of the
    measured pixels alone and the products P of the components over the others, the posterior mean is
    s = (I + r / signal - P)^-1 c.
    """

    mean: np.ndarray
    noise: np.ndarray
    components: np.ndarray
    signal: np.ndarray

    def scores(self, seen, error, missing):
        """Scores of rows from those of their measured pixels alone, `seen` (n_rows, n_components)."""
        lost, found = self._solve(seen, error, missing)
        return seen + np.einsum("nij,nj->ni", lost, found)

    def filled(self, flux, error, missing):
        """Return a copy of `flux` with predictions where it is `missing`."""
        flux, components = flux.copy(), self.components.astype(flux.dtype)
        mean, noise = self.mean.astype(flux.dtype), self.noise.astype(flux.dtype)
        rows = np.flatnonzero(missing.any(axis=1))
        for start in range(0, len(rows), MASK_ROWS):
            some = rows[start : start + MASK_ROWS]
            lacking = missing[some]
            deviation = np.where(lacking, 0, (flux[some] - mean) / noise)
            found = self._solve(deviation @ components.T, error[some], lacking)[1].astype(flux.dtype)
            flux[some] = np.where(lacking, mean + noise * (found @ components), flux[some])
        return flux

    def _solve(self, seen, error, missing):
        """Products P of every row, and the posterior mean of its scores."""
        width, loadings = len(self.components), np.ascontiguousarray(self.components.T.astype(error.dtype))
        lost = np.empty((len(seen), width, width))
        for product, lacking in zip(lost, missing, strict=True):
            own = loadings[lacking]
            product[:] = own.T @ own
        power = noise_power(error, self.noise, missing)
        system = np.eye(width) - lost
        diagonal = np.einsum("nii->ni", system)
        diagonal += np.maximum(power[:, None] / np.maximum(self.signal, _LEAST), _LEAST)
        return lost, np.linalg.solve(system, seen[..., None].astype(np.float64))[..., 0]


def noise_power(error, noise, missing):
    """Mean squared error of the measured pixels of each row, in units of the typical one; 1 where there are none."""
    ratio = np.where(missing, 0, error) / noise.astype(error.dtype)
    count = (~missing).sum(axis=1)
    power = np.einsum("ij,ij->i", ratio, ratio, dtype=np.float64) / np.maximum(count, 1)
    return np.where(count > 0, power, 1.0)


def _typical_noise(error):
    """Root mean square error of each pixel, rows weighted by the inverse of their noise power in its unit."""
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

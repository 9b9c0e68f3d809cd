"""Factor analysis of rows whose noise is known pixel by pixel: the loadings behind Wiener scores.

A row in units of the typical noise is ``mean + V z + B u + noise``: free factors z ~ N(0, I), known factors u that are
given for training rows alone (such as the target), and noise of known variance. Expectation-maximisation finds
V, B and the mean from sums over rows, kept by fold, so that the loadings without a fold cost no further reading.
"""

import copy

import numpy as np
from scipy.linalg import solveh_banded

from dualgate.passes import Pass

_SHRINK_STEPS = 20  # fixed-point steps for the two penalties of each factor
_ROWS = 4096  # rows worked on at a time
_TINY = 1e-9  # of the mean weight of a pixel: keeps what no row measured solvable


def n_products(width):
    """Number of different products of `width` columns, squares included."""
    return width * (width + 1) // 2


def products(loadings, dtype):
    """All products of two columns (n_pixels, n_products), as `unfold` arranges them."""
    rows, columns = np.tril_indices(loadings.shape[1])
    return (loadings[:, rows] * loadings[:, columns]).astype(dtype)


def unfold(folded, width):
    """Symmetric matrices (n, width, width) from their lower triangles (n, n_products)."""
    rows, columns = np.tril_indices(width)
    square = np.empty((len(folded), width, width))
    square[:, rows, columns] = folded
    square[:, columns, rows] = folded
    return square


def weigh(flux, error, mean, noise, dtype=np.float32):
    """Weights of pixels and weighted deviations from the mean, both in units of the typical noise.

    A pixel whose flux or error is not finite has weight zero, and so has one whose error is infinite.

    Parameters
    ----------
    flux : ndarray of shape (n_rows, n_pixels)
    error : ndarray of shape (n_rows, n_pixels) or None
        None is the typical noise everywhere.
    mean, noise : ndarray of shape (n_pixels,)

    Returns
    -------
    weights : ndarray of shape (n_rows, n_pixels)
        (noise / error)^2.
    weighted : ndarray of shape (n_rows, n_pixels)
        weights * (flux - mean) / noise.
    """
    unit = noise.astype(flux.dtype)
    deviation = np.subtract(flux, mean.astype(flux.dtype), dtype=flux.dtype)
    deviation /= unit
    deviation = deviation.astype(dtype, copy=False)
    if error is None:
        weights = np.ones(flux.shape, dtype)
    else:
        weights = np.divide(unit, error).astype(dtype, copy=False)
        weights *= weights
    with np.errstate(invalid="ignore"):
        known = np.isfinite(np.dot(deviation.sum(axis=1), weights.sum(axis=1)))
    if not known:
        bad = ~(np.isfinite(deviation) & np.isfinite(weights))
        weights[bad] = deviation[bad] = 0
    deviation *= weights
    return weights, deviation


def posterior(weights, weighted, loadings, folded):
    """Mean and covariance of the factors of every row, given its pixels.

    .. math:: S = (V^T E^{-1} V + I)^{-1}, \\qquad m = S V^T E^{-1} (x - mean)

    Parameters
    ----------
    weights, weighted : ndarray of shape (n_rows, n_pixels)
        From :func:`weigh`.
    loadings : ndarray of shape (n_pixels, n_factors)
    folded : ndarray of shape (n_pixels, n_products)
        From :func:`products`, of the weights' precision.

    Returns
    -------
    mean : ndarray of shape (n_rows, n_factors)
    covariance : ndarray of shape (n_rows, n_factors, n_factors)
    """
    width = loadings.shape[1]
    precision = unfold(weights @ folded, width)
    precision[:, np.arange(width), np.arange(width)] += 1
    covariance = np.linalg.inv(precision)
    moment = (weighted @ loadings.astype(weighted.dtype)).astype(np.float64)
    return np.einsum("nij,nj->ni", covariance, moment), covariance


class Factors:
    """Loadings of free and known factors and the mean, in units of the typical noise.

    Parameters
    ----------
    free : ndarray of shape (n_pixels, n_free)
    known : ndarray of shape (n_pixels, n_known)
    shift : ndarray of shape (n_pixels,)
        Mean of the rows, less the mean that :func:`weigh` subtracted.
    """

    def __init__(self, free, known, shift):
        self.free, self.known, self.shift = free, known, shift

    def rotated(self, rotation):
        """Loadings of all factors together, turned (n_pixels, n_factors)."""
        return np.hstack([self.free, self.known]) @ rotation


class FactorSums(Pass):
    """One pass of expectation-maximisation: what its maximisation needs, summed over the rows of every fold.

    Parameters
    ----------
    read : callable, block -> (weights, weighted)
        See :func:`weigh`; picklable.
    factors : Factors
        The present ones.
    known : ndarray of shape (n_samples, n_known)
        Known factors of every row.
    n_folds : int
        Row i belongs to fold ``i % n_folds``.
    """

    def __init__(self, read, factors, known, n_folds):
        self.read, self.factors, self.known, self.n_folds, self.first = read, factors, known, n_folds, 0
        self._empty()

    def _empty(self):
        n_pixels, width = len(self.factors.shift), self.factors.free.shape[1] + self.known.shape[1] + 1
        self.gram = np.zeros((self.n_folds, n_pixels, n_products(width)))
        self.moment = np.zeros((self.n_folds, n_pixels, width))
        self.second = np.zeros((width, width))
        self.n_rows = 0

    def update(self, start, block):  # noqa: D102
        for first in range(0, len(block), _ROWS):
            self._add(start + first, block[first : first + _ROWS])

    def _add(self, start, block):
        weights, weighted = self.read(block)
        known = self.known[start - self.first : start - self.first + len(block)]
        present = self.factors
        expected = (known @ present.known.T + present.shift).astype(weights.dtype)
        expected *= weights
        free, covariance = posterior(
            weights, weighted - expected, present.free, products(present.free, weights.dtype)
        )
        n_free = free.shape[1]
        factors = np.hstack([free, known, np.ones((len(block), 1))])
        second = factors[:, :, None] * factors[:, None, :]
        second[:, :n_free, :n_free] += covariance
        rows, columns = np.tril_indices(factors.shape[1])
        folded = second[:, rows, columns].astype(weights.dtype)
        for fold in range(self.n_folds):
            here = slice((fold - start) % self.n_folds, None, self.n_folds)
            self.gram[fold] += weights[here].T @ folded[here]
            self.moment[fold] += weighted[here].T @ factors[here].astype(weights.dtype)
        self.second += second.sum(axis=0)
        self.n_rows += len(block)

    def part(self, start, stop):  # noqa: D102
        part = copy.copy(self)
        part.first, part.known = start, self.known[start:stop]
        part._empty()
        return part

    def lighten(self):  # noqa: D102
        part = copy.copy(self)
        part.read = part.known = part.factors = None
        return part

    def merge(self, other):  # noqa: D102
        for name in ("gram", "moment", "second", "n_rows"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self


class Loadings:
    """The maximisation: loadings from the sums of a pass, of all rows or without a fold.

    Each factor's loadings have a Gaussian prior, a penalty on their second differences (`smooth`) and one on their
    size, and both penalties are those that make the loadings most probable (empirical Bayes). Free factors are turned
    and scaled after each step so that their prior stays N(0, I), which speeds up the expectation-maximisation.

    Parameters
    ----------
    sums : FactorSums
        After all rows.
    smooth : bool
        Whether neighbouring columns are neighbouring pixels, so that loadings may be taken as smooth.
    penalties : ndarray of shape (2, width) or None
        Of roughness and of size, from the step before.

    References
    ----------
    Liu, Rubin & Wu 1998, Biometrika 85, 755 (parameter expansion). MacKay 1992, Neural Computation 4, 415 (evidence).
    """

    def __init__(self, sums, smooth, penalties=None):
        self.sums, self.smooth = sums, smooth
        self.n_free, self.width = sums.factors.free.shape[1], sums.moment.shape[2] - 1
        second = sums.second / sums.n_rows
        free, rest = slice(0, self.n_free), slice(self.n_free, None)
        self._slope = np.linalg.lstsq(second[rest, rest], second[rest, free], rcond=None)[0]  # z on (u, 1)
        spread = second[free, free] - self._slope.T @ second[rest, rest] @ self._slope
        self._turn = np.linalg.cholesky(spread + 1e-12 * np.eye(self.n_free))
        gram, moment = sums.gram.sum(axis=0), sums.moment.sum(axis=0)
        gram = unfold(gram, moment.shape[1])
        if penalties is None:
            penalties = _first_penalties(gram, moment, smooth)
        solution = _solve(gram, moment, penalties)
        self.penalties = _update_penalties(gram, solution, penalties, smooth)
        self.all = self._factors(solution)

    def without(self, fold):
        """Return the factors that the rows outside a fold find."""
        gram = self.sums.gram.sum(axis=0) - self.sums.gram[fold]
        moment = self.sums.moment.sum(axis=0) - self.sums.moment[fold]
        return self._factors(_solve(unfold(gram, moment.shape[1]), moment, self.penalties))

    def _factors(self, solution):
        free = solution[:, : self.n_free]
        rest = solution[:, self.n_free :] + free @ self._slope.T
        return Factors(free @ self._turn, rest[:, :-1], rest[:, -1])


def _roughness(n_pixels):
    """Eigenvalues of the squared second difference, as if the pixels were a ring."""
    frequency = np.pi * (np.arange(n_pixels) + 0.5) / n_pixels
    return (2 - 2 * np.cos(frequency)) ** 2


def _first_penalties(gram, moment, smooth):
    """Penalties from unpenalised loadings, their noise taken off."""
    n_pixels, width = moment.shape
    precision = _precision(gram)
    ridge = _TINY * precision
    ridge[-1] = 0
    loadings = _solve(gram, moment, np.stack([np.zeros(width), ridge]))
    size = np.square(loadings).sum(axis=0)
    rough = np.square(np.diff(loadings, n=2, axis=0)).sum(axis=0) if smooth else np.full(width, np.inf)
    noise = n_pixels / precision
    size = np.maximum(size - noise, 0.02 * size) + 1e-300
    rough = np.maximum(rough - 6 * noise, 0.02 * rough) + 1e-300  # 6 = 1 + 4 + 1, the power of a second difference
    penalties = np.stack([n_pixels / rough, n_pixels / size if not smooth else 0 * size])
    penalties[:, -1] = 0  # the mean is what it is
    return penalties


def _precision(gram):
    """Typical precision of the loadings of every factor (width,)."""
    diagonal = np.einsum("pii->pi", gram)
    return np.median(diagonal, axis=0) + _TINY * diagonal.mean(axis=0) + 1e-300


def _update_penalties(gram, loadings, penalties, smooth):
    """Raise the evidence: the expected roughness and size of the loadings under the present penalties."""
    n_pixels = len(loadings)
    size = np.square(loadings).sum(axis=0)
    rough = np.square(np.diff(loadings, n=2, axis=0)).sum(axis=0) if smooth else np.zeros_like(size)
    powers = _roughness(n_pixels)
    precision = _precision(gram)
    updated = penalties.copy()
    for factor in range(loadings.shape[1] - 1):
        stiff, ridge = updated[:, factor]
        for _ in range(_SHRINK_STEPS):
            uncertain = 1 / (precision[factor] + stiff * powers + ridge)
            if smooth:
                stiff = n_pixels / (rough[factor] + (powers * uncertain).sum())
            else:
                ridge = n_pixels / (size[factor] + uncertain.sum())
        updated[:, factor] = stiff, ridge
    return updated


def _solve(gram, moment, penalties):
    """Loadings (n_pixels, width) from the normal equations of every pixel, tied to their neighbours by roughness."""
    n_pixels, width = moment.shape
    stiff, ridge = penalties
    floor = _TINY * np.einsum("pii->pi", gram).mean(axis=0)
    gram = gram + np.eye(width) * (ridge + floor)
    if not stiff.any() or n_pixels < 3:
        return np.linalg.solve(gram, moment[..., None])[..., 0]
    # lower bands of the matrix over (pixel, factor), pixel slowest: a block tridiagonal with one block more
    bands = np.zeros((2 * width + 1, n_pixels * width))
    for column in range(width):
        for row in range(column, width):
            bands[row - column, column::width] += gram[:, row, column]
    for step, values in enumerate(_second_difference_bands(n_pixels)):
        for factor in range(width):
            bands[step * width, factor::width][: n_pixels - step] += stiff[factor] * values
    solution = solveh_banded(bands, moment.ravel(), overwrite_ab=True, lower=True, check_finite=False)
    return solution.reshape(n_pixels, width)


def _second_difference_bands(n_pixels):
    """Diagonal and two lower bands of D'D, D the second difference of neighbouring pixels."""
    kernel = np.array([1.0, -2.0, 1.0])
    bands = [np.zeros(n_pixels - step) for step in range(3)]
    for step in range(3):
        for offset in range(3 - step):
            bands[step][offset : offset + n_pixels - 2] += kernel[offset] * kernel[offset + step]
    return bands

"""Factor analysis of rows whose noise is known pixel by pixel: the loadings behind Wiener scores.

A row in units of the typical noise is ``mean + V z + B u + noise``: free factors z ~ N(0, I), known factors u that are
given for training rows alone (such as the target), and noise of known variance. Expectation-maximisation finds
V, B and the mean from sums over rows, kept by fold, so that the loadings without a fold cost no further reading.
"""

import copy

import numpy as np

from dualgate.passes import Pass

_ROWS = 4096  # rows worked on at a time


def n_products(width):
    """Count the different products of `width` columns, squares included."""
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
    r"""Mean and covariance of the factors of every row, given its pixels.

    .. math:: S = (V^T E^{-1} V + I)^{-1}, \qquad m = S V^T E^{-1} (x - mean)

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
        """Return the loadings of all factors together, turned (n_pixels, n_factors)."""
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
        self.gram = self.moment = self.second = 0.0  # arrays from the first rows on: what is empty travels light
        self.n_rows = 0

    def _begin(self):
        n_pixels, width = len(self.factors.shift), self.factors.free.shape[1] + self.known.shape[1] + 1
        self.gram = np.zeros((self.n_folds, n_pixels, n_products(width)))
        self.moment = np.zeros((self.n_folds, n_pixels, width))
        self.second = np.zeros((width, width))

    def update(self, start, block):  # noqa: D102
        if self.n_rows == 0:
            self._begin()
        for first in range(0, len(block), _ROWS):
            self._add(start + first, block[first : first + _ROWS])

    def _add(self, start, block):
        weights, weighted = self.read(block)
        known = self.known[start - self.first : start - self.first + len(block)]
        present = self.factors
        expected = (known @ present.known.T + present.shift).astype(weights.dtype)
        expected *= weights
        free, covariance = posterior(weights, weighted - expected, present.free, products(present.free, weights.dtype))
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
        part.gram = part.moment = part.second = 0.0
        part.n_rows = 0
        return part

    def lighten(self):  # noqa: D102
        part = copy.copy(self)
        part.read = part.known = part.factors = None
        return part

    def merge(self, other):  # noqa: D102
        for name in ("gram", "moment", "second", "n_rows"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self


def known_factors(y, regimes=None):
    """Factors that are known while fitting: y, or with regimes their means and the slope of y in each.

    Parameters
    ----------
    y : ndarray of shape (n_samples,)
    regimes : None or ndarray of int of shape (n_samples,)

    Returns
    -------
    known : ndarray of shape (n_samples, n_known)
        Uncorrelated, of mean zero and variance one.
    """
    columns = y[:, None]
    if regimes is not None:
        member = (regimes[:, None] == np.unique(regimes)).astype(np.float64)
        columns = np.hstack([member, member * (y - y.mean())[:, None]])
    columns = columns - columns.mean(axis=0)
    scale = columns.std(axis=0)
    left, values, _ = np.linalg.svd(columns / np.where(scale > 0, scale, 1.0), full_matrices=False)
    return left[:, values > 1e-6 * max(values[0], 1.0)] * np.sqrt(len(y))


def scores_of(weights, weighted, shift, scaled, folded):
    """Scores and variances of rows, by loadings whose mean is `shift` away from the one that was subtracted."""
    if shift.any():
        weighted = weighted - weights * shift.astype(weights.dtype)
    scores, covariance = posterior(weights, weighted, scaled, folded)
    variances = np.einsum("nii->ni", covariance)
    return scores.astype(weights.dtype), variances.astype(weights.dtype)


def fill(flux, error):
    """Put the pixel's own mean, and its typical error, in the place of what was not measured."""
    bad = ~np.isfinite(flux)
    if error is not None:
        bad |= ~np.isfinite(error)
    if not bad.any():
        return flux, error
    count = np.maximum((~bad).sum(axis=0), 1)

    def filled(values):
        mean = np.where(bad, 0, values).sum(axis=0) / count
        return np.where(bad, mean, values)

    if error is None:
        return filled(flux), None
    error = filled(error)
    never = ~(error > 0)  # a pixel that no row measured
    return filled(flux), np.where(never, error[~never].max(initial=1.0), error)


def folds_of(rows, chosen, n_folds):
    """Fold of rows of a fit by number, -1 for those it did not read; `chosen` are those it read, None for all."""
    if chosen is None:
        return rows % n_folds
    if len(chosen) == 0:
        return np.full(len(rows), -1)
    place = np.minimum(np.searchsorted(chosen, rows), len(chosen) - 1)
    return np.where(chosen[place] == rows, place % n_folds, -1)

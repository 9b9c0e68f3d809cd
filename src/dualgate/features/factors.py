"""Factor analysis of rows whose noise is known pixel by pixel: the loadings behind Wiener scores.

A row in units of the typical noise is ``mean + V z + B u + noise``: free factors z ~ N(0, I), known factors u that are
given for training rows alone (such as the target), and noise of known variance. Expectation-maximisation finds
V, B and the mean from sums over rows, kept by fold, so that the loadings without a fold cost no further reading.
"""

import numpy as np

from dualgate.rows import Pass, in_threads

STEP = 512  # rows worked on at a time, so that what is made of them stays in the cache
_ROWS = 2048  # rows whose sums are taken at a time
_MAX_STRAIN = 1e-3 / np.finfo(np.float32).eps  # collinearity of factors that single precision still bears


def n_products(width):
    """Count the different products of `width` columns, squares included."""
    return width * (width + 1) // 2


def unfold(folded, width):
    """Symmetric matrices (n, width, width) from their lower triangles (n, n_products)."""
    rows, columns = np.tril_indices(width)
    square = np.empty((len(folded), width, width))
    square[:, rows, columns] = folded
    square[:, columns, rows] = folded
    return square


def weigh(flux, error, mean, noise):
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
        (noise / error)^2, of the precision of `flux`.
    weighted : ndarray of shape (n_rows, n_pixels)
        weights * (flux - mean) / noise.
    """
    unit = noise.astype(flux.dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        deviation = np.subtract(flux, mean.astype(flux.dtype))
        deviation /= unit
        if error is None:
            weights = np.ones(flux.shape, flux.dtype)
        else:
            weights = np.divide(unit, error)
            weights *= weights
        known = np.isfinite(np.dot(deviation.sum(axis=1), weights.sum(axis=1)))
    if not known:
        bad = ~(np.isfinite(deviation) & np.isfinite(weights))
        weights[bad] = deviation[bad] = 0
    deviation *= weights
    return weights, deviation


class Basis:
    """Loadings of free factors, those of what is known of a row beside them, and the products of both.

    Parameters
    ----------
    loadings : ndarray of shape (n_pixels, n_factors)
    beside : None or ndarray of shape (n_pixels, n_beside)
        Loadings of what is known; None is nothing.
    """

    def __init__(self, loadings, beside=None):
        self.loadings, self._products = loadings, {}
        self.beside = np.zeros((len(loadings), 0)) if beside is None else beside

    def __getstate__(self):
        return vars(self) | {"_products": {}}  # a hundred times larger than what they are made of

    def products(self, dtype):
        """All products of two free factors' loadings, as `unfold` arranges them, then of each with those beside."""
        if dtype not in self._products:
            rows, columns = np.tril_indices(self.loadings.shape[1])
            own = self.loadings[:, rows] * self.loadings[:, columns]
            crossed = self.beside[:, :, None] * self.loadings[:, None, :]
            self._products[dtype] = np.hstack([own, crossed.reshape(len(own), -1)]).astype(dtype)
        return self._products[dtype]

    def operator(self, weights):
        """Matrix from the deviations of a row with these weights of pixels to its factors (n_factors, n_pixels)."""
        weighted = self.loadings.T * weights
        return np.linalg.solve(weighted @ self.loadings + np.eye(len(weighted)), weighted)


def relative_power(error, noise):
    """Mean squared error of rows in units of the typical noise (n_rows,)."""
    ratio = error / noise.astype(error.dtype)
    return np.einsum("ij,ij->i", ratio, ratio, dtype=np.float64) / ratio.shape[1]


def information(weights, weighted, basis, given=None):
    r"""Information of every row on its factors, :math:`A = V^T E^{-1} V` and :math:`b = V^T E^{-1} (x - mean - B u)`.

    Parameters are those of :func:`posterior`; `given` is None where nothing is known of the rows.

    Returns
    -------
    A : ndarray of shape (n_rows, n_factors, n_factors)
    b : ndarray of shape (n_rows, n_factors)
    """
    width, dtype = basis.loadings.shape[1], weights.dtype
    power = weights @ basis.products(dtype)
    moment = (weighted @ basis.loadings.astype(dtype)).astype(np.float64)
    if given is not None:
        crossed = power[:, n_products(width) :].reshape(len(power), -1, width)
        moment -= np.einsum("nk,nkj->nj", given, crossed, dtype=np.float64)
    return unfold(power[:, : n_products(width)], width), moment


def posterior(weights, weighted, basis, given):
    r"""Mean and covariance of the factors of every row, given its pixels.

    .. math:: S = (V^T E^{-1} V + I)^{-1}, \qquad m = S V^T E^{-1} (x - mean - B u)

    Parameters
    ----------
    weights, weighted : ndarray of shape (n_rows, n_pixels)
        From :func:`weigh`.
    basis : Basis
        V, with B beside it.
    given : ndarray of shape (n_rows, n_beside)
        u, what is known of the rows.

    Returns
    -------
    mean : ndarray of shape (n_rows, n_factors)
    covariance : ndarray of shape (n_rows, n_factors, n_factors)
    """
    precision, moment = information(weights, weighted, basis, given)
    width, dtype = basis.loadings.shape[1], weights.dtype
    precision[:, np.arange(width), np.arange(width)] += 1
    covariance = np.linalg.inv(precision)
    mean = np.einsum("nij,nj->ni", covariance, moment)
    # the variance of a factor over what it were with the others known: digits that the inverse has lost
    strain = np.einsum("nii,nii->ni", precision, covariance)
    lost = ~((strain > 0) & (strain < _MAX_STRAIN)).all(axis=1)
    if dtype != np.float64 and lost.any():
        exact = weights[lost].astype(np.float64), weighted[lost].astype(np.float64)
        mean[lost], covariance[lost] = posterior(*exact, basis, given[lost])
    return mean, covariance


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

    `found` holds ``gram`` (n_folds, n_pixels, n_products), ``moment`` (n_folds, n_pixels, width), ``second`` (width,
    width) and ``n_rows``, with width the number of factors and one for the mean.

    Parameters
    ----------
    read : callable, (block, first_row) -> (weights, weighted)
        See :func:`weigh`; picklable.
    factors : Factors
        The present ones.
    known : ndarray of shape (n_samples, n_known)
        Known factors of every row.
    n_folds : int
        Row i belongs to fold ``i % n_folds``.
    n_jobs : None or int
        Threads of the expectation.
    """

    row_wise = ("known",)

    def __init__(self, read, factors, known, n_folds, n_jobs=None):
        self.read, self.factors, self.known, self.n_folds, self.n_jobs = read, factors, known, n_folds, n_jobs
        self.basis = Basis(factors.free, np.column_stack([factors.known, factors.shift]))

    def begin(self):  # noqa: D102
        n_pixels, width = len(self.factors.shift), self.factors.free.shape[1] + self.known.shape[1] + 1
        return {
            "gram": np.zeros((self.n_folds, n_pixels, n_products(width))),
            "moment": np.zeros((self.n_folds, n_pixels, width)),
            "second": np.zeros((width, width)),
            "n_rows": 0,
        }

    def update(self, start, block):  # noqa: D102
        width = self.found["moment"].shape[1]
        scratch = np.empty((2, min(_ROWS, len(block)), width), block.dtype)  # allocated once: new memory costs much
        for first in range(0, len(block), _ROWS):
            self._add(start + first, block[first : first + _ROWS], scratch)

    def _add(self, start, block, scratch):
        (weights, weighted), width = scratch[:, : len(block)], self.found["moment"].shape[2]
        factors = np.empty((len(block), width), block.dtype)
        folded = np.empty((len(block), n_products(width)), block.dtype)

        def expect(first, last):
            second = np.zeros((1, n_products(width)))
            for row in range(first, last, STEP):
                rows = slice(row, min(row + STEP, last))
                weights[rows], weighted[rows] = self.read(block[rows], start + row)
                factors[rows], pairs = self._expect(start + row, weights[rows], weighted[rows])
                folded[rows] = pairs
                second += pairs.sum(axis=0)
            return second

        second = in_threads(expect, len(block), self.n_jobs).sum(axis=0, keepdims=True)
        for fold in range(self.n_folds):
            here = slice((fold - start) % self.n_folds, None, self.n_folds)
            self.found["gram"][fold] += weights[here].T @ folded[here]
            self.found["moment"][fold] += weighted[here].T @ factors[here]
        self.found["second"] += unfold(second, width)[0]
        self.found["n_rows"] += len(block)

    def _expect(self, start, weights, weighted):
        """Factors of rows from number `start` on, the known ones and the mean's one among them, and their products."""
        known = self.known[self.rows_of(start, len(weights))]
        given = np.column_stack([known, np.ones(len(weights))])
        free, covariance = posterior(weights, weighted, self.basis, given)
        factors = np.hstack([free, given])
        rows, columns = np.tril_indices(factors.shape[1])
        pairs = factors[:, rows] * factors[:, columns]
        n_own = n_products(free.shape[1])
        pairs[:, :n_own] += covariance[:, rows[:n_own], columns[:n_own]]
        return factors, pairs


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
    centred = y - y.mean()
    if np.abs(centred).max() <= 1e-12 * np.abs(y).max():
        centred = np.zeros(len(y))  # constant but for rounding
    columns = centred[:, None]
    if regimes is not None:
        if regimes.shape != y.shape or regimes.dtype.kind not in "iu":
            raise ValueError(
                f"WienerScores.fit: regimes of shape {regimes.shape} and dtype {regimes.dtype} must be integer codes, "
                "one per row; numpy.digitize cuts conditions."
            )
        member = (regimes[:, None] == np.unique(regimes)).astype(np.float64)
        columns = np.hstack([member, member * columns])
    columns = columns - columns.mean(axis=0)
    scale = columns.std(axis=0)
    left, values, _ = np.linalg.svd(columns / np.where(scale > 0, scale, 1.0), full_matrices=False)
    return left[:, values > 1e-6 * max(values[0], 1.0)] * np.sqrt(len(y))


def scores_of(read, block, first_row, bases, folds):
    """Scores and variances of rows, a few at a time.

    Parameters
    ----------
    read : callable, (block, first_row) -> (weights, weighted)
    block : ndarray of shape (n_rows, n_columns)
    first_row : int
        Number of its first row.
    bases : list of Basis
    folds : ndarray of int of shape (n_rows,)
        Which of them each row is given.

    Returns
    -------
    scores, variances : ndarray of shape (n_rows, n_factors)
    """
    scores, variances = np.empty((2, len(block), bases[-1].loadings.shape[1]), block.dtype)
    for start in range(0, len(block), STEP):
        weights, weighted = read(block[start : start + STEP], first_row + start)
        present = folds[start : start + STEP]
        for fold in np.unique(present):
            here = np.flatnonzero(present == fold)
            own = (weights, weighted) if len(here) == len(present) else (weights[here], weighted[here])
            means, covariances = posterior(*own, bases[fold], np.ones((len(here), 1)))
            scores[start + here], variances[start + here] = means, np.einsum("nii->ni", covariances)
    return scores, variances


def fill(flux, error):
    """Put the pixel's own mean, and its typical error, in the place of what was not measured."""
    bad = ~np.isfinite(flux)
    if error is not None:
        bad |= ~np.isfinite(error)
    if not bad.any():
        return flux, error
    never = bad.all(axis=0)
    if never.all():
        raise ValueError(
            "WienerScores.fit: X holds no pixel that was measured, flux and error finite, among the rows that the fit "
            "starts with: check what columns and error_columns select."
        )
    count = np.maximum((~bad).sum(axis=0), 1)

    def filled(values):
        mean = np.where(bad, 0, values).sum(axis=0) / count
        return np.where(bad, mean.astype(values.dtype), values)

    if error is None:
        return filled(flux), None
    error = filled(error)
    return filled(flux), np.where(never, error[:, ~never].mean(axis=1, keepdims=True), error)


def folds_of(rows, chosen, n_folds):
    """Fold of rows of a fit by number, -1 for those it did not read; `chosen` are those it read, None for all."""
    if chosen is None:
        return rows % n_folds
    if len(chosen) == 0:
        return np.full(len(rows), -1)
    place = np.minimum(np.searchsorted(chosen, rows), len(chosen) - 1)
    return np.where(chosen[place] == rows, place % n_folds, -1)

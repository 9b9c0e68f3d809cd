"""Factor analysis of rows whose noise is known pixel by pixel: the loadings behind Wiener scores.

A row in units of the typical noise is ``mean + V z + B u + noise``: free factors z ~ N(0, I), known factors u that are
given for training rows alone (such as the target), and noise of known variance. Expectation-maximisation finds
V, B and the mean from sums over rows, kept by fold, so that loadings without a fold need no further pass.
"""

from dataclasses import dataclass, field

import numpy as np

from dualgate.rows import Pass, choose_spread, in_threads

STEP = 512  # rows worked on at a time, so that intermediate arrays stay in the cache
FAINT = 1e-10  # of the largest weight of a row: some surveys give masked pixels huge errors, which must not count
SPAN_ROWS, SPAN_ROUNDS = 2_000, 3  # rows that a span is found from, and how often
SPAN_SHARE = 8  # products for each direction of a span
WITHIN = 1e-5  # of its norm: what a matrix may lose, which moves predictions no more than single precision does
MOST_INFORMED = 1e5  # norm of a matrix above which what is lost counts beside the prior, whose information is 1
_ROWS = 2048  # rows whose sums are taken at a time
_MAX_STRAIN = 1e-3 / np.finfo(np.float32).eps  # collinearity of factors up to which single precision is accurate


def n_products(width):
    """Count the different products of `width` columns, squares included."""
    return width * (width + 1) // 2


def _places(width):
    """Place of every entry of a symmetric matrix (width, width) among the products of its lower triangle."""
    rows, columns = np.indices((width, width))
    return n_products(np.maximum(rows, columns)) + np.minimum(rows, columns)


def unfold(folded, width):
    """Symmetric matrices (n, width, width) from their lower triangles (n, n_products)."""
    return folded.astype(np.float64)[:, _places(width)]


def weigh(flux, error, mean, noise, out=None):
    """Weights of pixels, (noise / error)^2, and weights times deviations from the mean, in units of the typical noise.

    Both have the precision of `flux` and are written to `out` (2, n_rows, n_pixels). Without `error` all weights are
    one; a pixel whose flux or error is NaN or infinite, or that is too faint beside others of its row, has weight zero.
    """
    weights, weighted = out = np.empty((2, *flux.shape), flux.dtype) if out is None else out
    unit = noise.astype(flux.dtype)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        np.subtract(flux, mean.astype(flux.dtype), out=weighted)
        weighted /= unit
        if error is None:
            weights[:] = 1
        else:
            np.divide(unit, error, out=weights)
            weights *= weights
            weighted *= weights
        known = np.isfinite(np.vdot(weights, weighted)) and weights.min(initial=1) > FAINT * weights.max(initial=1)
    if not known:
        measured = np.isfinite(weights) & np.isfinite(weighted)
        measured &= weights > FAINT * weights.max(axis=1, keepdims=True, where=measured, initial=0)
        np.copyto(out, 0, where=~measured)
    return out


@dataclass(frozen=True, eq=False)
class Span:
    """A few directions that hold the matrices A of most rows, as far as single precision tells.

    Errors follow few patterns, such as the brightness of the object and of the sky: where all pixels were measured, 37
    numbers hold the 300 of 24 factors. Rows with other errors, or without some pixels, lie outside.

    Parameters
    ----------
    directions : ndarray of shape (n_directions, n_products)
        Orthonormal.
    """

    directions: np.ndarray

    @classmethod
    def of(cls, folded):
        """Find the span of rows of lower triangles, or None where it would save nothing."""
        n_directions = folded.shape[1] // SPAN_SHARE
        some = folded[choose_spread(len(folded), SPAN_ROWS)].astype(np.float64)
        some = some[some.any(axis=1)]
        if folded.dtype != np.float32 or n_directions < 2 or len(some) < 2 * n_directions:
            return None
        some /= np.linalg.norm(some, axis=1, keepdims=True)
        inside = np.ones(len(some), dtype=bool)
        for _ in range(SPAN_ROUNDS):  # of the better half of the rows, so that those outside do not turn them
            directions = np.linalg.eigh(some[inside].T @ some[inside])[1][:, -n_directions:].T
            left = np.linalg.norm(some - some @ directions.T @ directions, axis=1)
            inside = left <= max(WITHIN, np.median(left))
        return cls(directions) if np.median(left) <= WITHIN else None

    def coordinates(self, folded):
        """Coordinates of rows of lower triangles (n_rows, n_directions), and whether each row lies inside."""
        directions = self.directions.astype(folded.dtype)
        found = folded @ directions.T
        left = folded - found @ directions
        lost, norm = (np.sqrt(np.einsum("ij,ij->i", each, each, dtype=np.float64)) for each in (left, folded))
        return found, (lost <= WITHIN * norm) & (norm < MOST_INFORMED)


@dataclass
class Factors:
    """Loadings of free and known factors and the mean, in units of the typical noise."""

    free: np.ndarray  # (n_pixels, n_free)
    known: np.ndarray  # (n_pixels, n_known)
    shift: np.ndarray  # (n_pixels,), mean of the rows less the mean that `weigh` subtracted
    _products: dict = field(default_factory=dict, repr=False)

    def __getstate__(self):
        return vars(self) | {"_products": {}}  # a hundred times larger than the loadings

    def products(self, dtype):
        """Products of the loadings of two free factors, as `unfold` arranges them, then of known with free ones.

        The shift counts as known, unless it is zero.
        """
        if dtype not in self._products:
            rows, columns = np.tril_indices(self.free.shape[1])
            own = self.free[:, rows] * self.free[:, columns]
            rest = np.column_stack([self.known, self.shift]) if self.shift.any() else self.known
            crossed = rest[:, :, None] * self.free[:, None, :]
            self._products[dtype] = np.hstack([own, crossed.reshape(len(own), -1)]).astype(dtype)
        return self._products[dtype]

    def made(self, key, make):
        """Return what was made of these loadings under `key`; ``make()`` makes it where it is missing."""
        if key not in self._products:
            self._products[key] = make()
        return self._products[key]

    def turned(self, rotation, shift):
        """Return all factors as free ones, turned by `rotation` (n_factors, n_factors), about another mean."""
        free = np.hstack([self.free, self.known]) @ rotation
        return Factors(free, np.zeros((len(free), 0)), self.shift - shift)


def split_information(packed):
    """Split rows of information into the lower triangles of A (n_rows, n_products) and b (n_rows, width)."""
    width = int((np.sqrt(9 + 8 * packed.shape[1]) - 3) / 2)
    return packed[:, : n_products(width)], packed[:, n_products(width) :]


def information(weights, weighted, factors, known=None):
    r"""Return :math:`A = V^T E^{-1} V`, as lower triangles, and :math:`b = V^T E^{-1} (x - mean - B u)` of every row.

    `weights` and `weighted` are from :func:`weigh`, `known` (n_rows, n_known) is u; None is no known factors.
    """
    (n_rows, _), width, dtype = weights.shape, factors.free.shape[1], weights.dtype
    power = weights @ factors.products(dtype)
    crossed = power[:, n_products(width) :].reshape(n_rows, -1, width)
    given = np.ones(crossed.shape[:2])
    if known is not None:
        given[:, : known.shape[1]] = known
    moment = (weighted @ factors.free.astype(dtype)).astype(np.float64)
    moment -= np.einsum("nk,nkj->nj", given, crossed, dtype=np.float64)
    return power[:, : n_products(width)], moment


def posterior_mean(packed):
    """Mean of the factors of every row of information under the prior N(0, I)."""
    folded, moment = split_information(packed)
    width, means = moment.shape[1], np.empty(moment.shape)
    for start in range(0, len(packed), STEP):
        rows = slice(start, start + STEP)
        means[rows] = np.linalg.solve(unfold(folded[rows], width) + np.eye(width), moment[rows, :, None])[..., 0]
    return means


def posterior(weights, weighted, factors, known=None, *, mean_only=False):
    """Mean ``solve(A + I, b)`` and covariance ``inv(A + I)`` of the free factors of every row; see `information`.

    With `mean_only`, which is faster, the covariance is left out.
    """
    found = list((solve_mean if mean_only else _mean_and_covariance)(*information(weights, weighted, factors, known)))
    strain = found.pop()
    lost = ~((strain > 0) & (strain < _MAX_STRAIN)).all(axis=1)
    if weights.dtype != np.float64 and lost.any():
        exact = weights[lost].astype(np.float64), weighted[lost].astype(np.float64)
        again = posterior(*exact, factors, None if known is None else known[lost], mean_only=mean_only)
        for values, better in zip(found, again, strict=True):
            values[lost] = better
    return found


def _mean_and_covariance(folded, moment):
    """Mean, covariance and, as digits that the inverse has lost, variance over that if other factors were known."""
    precision = unfold(folded, moment.shape[1])
    precision += np.eye(moment.shape[1])
    covariance = np.linalg.inv(precision)
    strain = np.einsum("nii,nii->ni", precision, covariance)
    return np.einsum("nij,nj->ni", covariance, moment), covariance, strain


def solve_mean(folded, moment):
    """Solve A + I for the mean of every row of information, of all rows at once and in their precision.

    Returns the means and, as digits that this has lost, the ratio of diagonal to pivot; that of the last factor is its
    posterior variance over that if other factors were known.
    """
    (n_rows, width), dtype = moment.shape, folded.dtype
    system = np.empty((width, width + 1, n_rows), dtype)
    system[:, :-1], system[:, -1] = np.ascontiguousarray(folded.T)[_places(width)], moment.T
    diagonal = np.einsum("iin->in", system[:, :-1])
    diagonal += 1
    strain, scratch = diagonal.copy(), np.empty_like(system)
    for i in range(width):
        np.multiply((system[i + 1 :, i] / diagonal[i])[:, None], system[i, i + 1 :], out=scratch[i + 1 :, i + 1 :])
        system[i + 1 :, i + 1 :] -= scratch[i + 1 :, i + 1 :]
    strain /= diagonal
    mean = system[:, -1]
    for i in reversed(range(width)):
        mean[i] /= diagonal[i]
        mean[:i] -= system[:i, i] * mean[i]
    return mean.T.copy(), strain.T


class FactorSums(Pass):
    """One pass of expectation-maximisation: what its maximisation needs, summed over the rows of every fold.

    `read` maps (block, first_row, out) to the results of `weigh` and is picklable, `known` (n_samples, n_known) holds
    the known factors, row i belongs to fold ``i % n_folds``. The factors of a row are those of the prior N(0, I) or,
    given `prior`, what ``prior.factors_of(information, y)`` returns for its entries of `information` and `y`: <z> and
    the lower triangle of <z z'>. With `width` the number of factors plus one for the mean, `found` is ``gram``
    (n_folds, n_pixels, n_products), ``moment`` (n_folds, n_pixels, width), ``second`` (width, width) and ``n_rows``.
    """

    row_wise = ("known", "information", "y")

    def __init__(self, read, factors, known, n_folds, n_jobs=None, *, prior=None, information=None, y=None):
        self.read, self.factors, self.known, self.n_folds, self.n_jobs = read, factors, known, n_folds, n_jobs
        self.prior, self.information, self.y = prior, information, y

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
                self.read(block[rows], start + row, out=scratch[:, rows])
                factors[rows], pairs = self._expect(start + row, weights[rows], weighted[rows])
                folded[rows] = pairs
                second += pairs.sum(axis=0)
            return second

        second = in_threads(expect, len(block), self.n_jobs).sum(axis=0, keepdims=True)
        gram = np.empty(self.found["gram"].shape[1:], block.dtype)
        for fold in range(self.n_folds):
            here = slice((fold - start) % self.n_folds, None, self.n_folds)
            self.found["gram"][fold] += np.matmul(weights[here].T, folded[here], out=gram)
            self.found["moment"][fold] += weighted[here].T @ factors[here]
        self.found["second"] += unfold(second, width)[0]
        self.found["n_rows"] += len(block)

    def _expect(self, start, weights, weighted):
        """Factors of rows from number `start` on, including the known ones and a constant, and their products."""
        these = self.rows_of(start, len(weights))
        if self.prior is not None:
            free, squares = self.prior.factors_of(self.information[these], self.y[these])
            factors = np.column_stack([free, np.ones(len(weights))])
            return factors, np.hstack([squares, factors])
        known = self.known[these]
        free, covariance = posterior(weights, weighted, self.factors, known)
        factors = np.column_stack([free, known, np.ones(len(weights))])
        rows, columns = np.tril_indices(factors.shape[1])
        pairs = factors[:, rows] * factors[:, columns]
        n_own = n_products(free.shape[1])
        pairs[:, :n_own] += covariance[:, rows[:n_own], columns[:n_own]]
        return factors, pairs


def known_factors(y, regimes=None):
    """Factors that are known while fitting: y, or with regimes their memberships and the slope of y in each.

    Of several targets, y (n_samples, n_targets), the slopes are common to all regimes. The factors are uncorrelated, of
    mean zero and variance one (n_samples, n_known).
    """
    columns = y.reshape(len(y), -1)
    centred = columns - columns.mean(axis=0)
    centred[:, np.abs(centred).max(axis=0) <= 1e-12 * np.abs(columns).max(axis=0)] = 0  # constant but for rounding
    spread = centred.std(axis=0)
    columns = centred / np.where(spread > 0, spread, 1.0) if centred.shape[1] > 1 else centred
    if regimes is not None:
        if regimes.shape != y.shape[:1] or regimes.dtype.kind not in "iu":
            raise ValueError(
                f"WienerScores.fit: regimes of shape {regimes.shape} and dtype {regimes.dtype} must be integer codes, "
                "one per row; numpy.digitize cuts conditions."
            )
        member = (regimes[:, None] == np.unique(regimes)).astype(np.float64)
        columns = np.hstack([member, member * columns if columns.shape[1] == 1 else columns])
    columns = columns - columns.mean(axis=0)
    scale = columns.std(axis=0)
    left, values, _ = np.linalg.svd(columns / np.where(scale > 0, scale, 1.0), full_matrices=False)
    return left[:, values > 1e-6 * max(values[0], 1.0)] * np.sqrt(len(y))


def fill(flux, error):
    """Replace what was not measured by the mean of the pixel, its error by the pixel's typical one."""
    bad = ~np.isfinite(flux)
    if error is not None:
        bad |= ~np.isfinite(error)
    if not bad.any():
        return flux, error
    never = bad.all(axis=0)
    if never.all():
        raise ValueError(
            "X holds no pixel that was measured, flux and error finite, among the rows that the fit "
            "starts with: check what columns and error_columns select."
        )
    count = np.maximum((~bad).sum(axis=0), 1)

    def filled(values):  # three times faster than scikit-learn's SimpleImputer
        mean = np.where(bad, 0, values).sum(axis=0) / count
        return np.where(bad, mean.astype(values.dtype), values)

    if error is None:
        return filled(flux), None
    error = filled(error)
    return filled(flux), np.where(never, error[:, ~never].mean(axis=1, keepdims=True), error)

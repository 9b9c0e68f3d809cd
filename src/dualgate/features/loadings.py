"""The maximisation behind Wiener scores: loadings from sums over rows, with penalties from the evidence."""

import numpy as np
from scipy.linalg import solveh_banded
from scipy.linalg.lapack import dpstrf
from scipy.sparse import diags

from dualgate._validation import require_finite, take_columns
from dualgate.features.factors import Factors, unfold
from dualgate.features.whitened import NoiseWhitenedPCA, leading
from dualgate.rows import ArrayRows, as_source, iter_blocks
from dualgate.statistics import CellStatistics

_SHRINK_STEPS = 20  # fixed-point steps for the penalty of each factor
LEAST_SPREAD = 1e-5  # variance of a factor beside those kept, in units of the largest, that counts as any
_MIN_SIGNAL = 0.05  # variance, in units of the noise, that a factor starts with at least
_MIN_NOISE = 1e-6  # of the variance of a column, where there are no errors
_TINY = 1e-9  # of the mean weight of a pixel: keeps the equations of unmeasured pixels solvable


class Loadings:
    """The maximisation: loadings from the sums of a pass, of all rows or without a fold.

    The loadings of each factor have a Gaussian prior: a penalty on their second differences (`smooth`) or on their
    size, of the strength that makes the loadings most probable (empirical Bayes). Free factors are turned and scaled
    after each step, to ``solve(turn, z - shift)``, so that they have the covariance I: their prior stays N(0, I), which
    speeds up the expectation-maximisation.

    `sums` are those of :class:`~dualgate.features.factors.FactorSums`, `n_free` is the number of free factors, which
    come before the known ones, `penalties` (width,) are those of the previous step.

    References
    ----------
    Liu, Rubin & Wu 1998, Biometrika 85, 755 (parameter expansion). MacKay 1992, Neural Computation 4, 415 (evidence).
    """

    def __init__(self, sums, n_free, smooth, penalties=None):
        self.sums, self.smooth, self.n_free = sums, smooth, n_free
        second = sums["second"] / sums["n_rows"]
        free, rest = slice(0, self.n_free), slice(self.n_free, None)
        self._slope = np.linalg.lstsq(second[rest, rest], second[rest, free], rcond=None)[0]  # z on (u, 1)
        spread = second[free, free] - self._slope.T @ second[rest, rest] @ self._slope
        self.turn = np.linalg.cholesky(spread + 1e-12 * np.eye(self.n_free))
        self.shift = self._slope[-1]
        gram, moment = sums["gram"].sum(axis=0), sums["moment"].sum(axis=0)
        gram = unfold(gram, moment.shape[1])
        if penalties is None:
            penalties = _first_penalties(gram, moment, smooth)
        self._present = penalties
        solution = _solve(gram, moment, penalties, smooth)
        self.penalties = _update_penalties(gram, solution, penalties, smooth)
        self.all = self._factors(solution)

    def without(self, fold):
        """Return the factors from the rows outside a fold, under the same penalties."""
        gram, moment = (self.sums[name].sum(axis=0) - self.sums[name][fold] for name in ("gram", "moment"))
        return self._factors(_solve(unfold(gram, moment.shape[1]), moment, self._present, self.smooth))

    def _factors(self, solution):
        free = solution[:, : self.n_free]
        rest = solution[:, self.n_free :] + free @ self._slope.T
        return Factors(free @ self.turn, rest[:, :-1], rest[:, -1])


def _power(loadings, smooth):
    """Squared second differences of the loadings of every factor, or their squares, summed over the pixels."""
    return np.square(np.diff(loadings, n=2 if smooth else 0, axis=0)).sum(axis=0)


def _precision(gram):
    """Typical precision of the loadings of every factor (width,)."""
    diagonal = np.einsum("pii->pi", gram)
    return np.median(diagonal, axis=0) + _TINY * diagonal.mean(axis=0) + 1e-300


def _first_penalties(gram, moment, smooth):
    """Penalties from unpenalised loadings, their noise subtracted; the mean, which is last, has none."""
    precision = _precision(gram)
    power = _power(_solve(gram, moment, np.append(_TINY * precision[:-1], 0), False), smooth)
    noise = (6 if smooth else 1) * len(gram) / precision  # 6 = 1 + 4 + 1, the power of a second difference
    power = np.maximum(power - noise, 0.02 * power) + 1e-300
    return np.append(len(gram) / power[:-1], 0)


def _update_penalties(gram, loadings, penalties, smooth):
    """Raise the evidence: the expected power of the loadings under the present penalties."""
    n_pixels, power, precision = len(loadings), _power(loadings, smooth)[:-1], _precision(gram)[:-1]
    # eigenvalues of the penalised square: of the second difference as if the pixels were a ring
    frequency = np.pi * (np.arange(n_pixels) + 0.5) / n_pixels
    modes = (2 - 2 * np.cos(frequency)) ** 2 if smooth else np.ones(n_pixels)
    updated = penalties[:-1]
    for _ in range(_SHRINK_STEPS):
        uncertain = 1 / (precision + np.multiply.outer(modes, updated))
        updated = n_pixels / (power + modes @ uncertain)
    return np.append(updated, penalties[-1])


def _solve(gram, moment, penalties, smooth):
    """Solve the normal equations of all pixels, coupled by `smooth` penalties, for the loadings (n_pixels, width)."""
    n_pixels, width = moment.shape
    floor = _TINY * np.einsum("pii->pi", gram).mean(axis=0)
    gram = gram + np.eye(width) * (floor if smooth else floor + penalties)
    if not smooth or n_pixels < 3:
        return np.linalg.solve(gram, moment[..., None])[..., 0]
    # lower bands of the matrix over (pixel, factor), pixel slowest: a block tridiagonal with one block more
    bands = np.zeros((2 * width + 1, n_pixels * width))
    for column in range(width):
        for row in range(column, width):
            bands[row - column, column::width] += gram[:, row, column]
    second = diags([1.0, -2.0, 1.0], [0, 1, 2], shape=(n_pixels - 2, n_pixels))
    for step in range(3):
        values = (second.T @ second).diagonal(step)
        for factor in range(width):
            bands[step * width, factor::width][: n_pixels - step] += penalties[factor] * values
    solution = solveh_banded(bands, moment.ravel(), overwrite_ab=True, lower=True, check_finite=False)
    return solution.reshape(n_pixels, width)


def independent_factors(sums):
    """Leave out factors that are linear functions of others, from the sums of a pass, of free factors alone.

    Returns
    -------
    sums : dict of str to ndarray
        Of the factors that are left.
    kept : ndarray of int of shape (n_kept,)
        Their numbers.
    """
    second = sums["second"] / sums["n_rows"]
    spread = second[:-1, :-1] - np.outer(second[-1, :-1], second[-1, :-1])
    _, pivots, rank, _ = dpstrf(spread, tol=LEAST_SPREAD * spread.diagonal().max())
    kept = np.sort(pivots[: max(rank, 1)] - 1)
    if len(kept) == len(spread):
        return sums, kept
    present = np.append(kept, len(spread))
    rows, columns = np.tril_indices(len(present))
    gram = [unfold(fold, len(second))[:, present][:, :, present][:, rows, columns] for fold in sums["gram"]]
    moment, second = sums["moment"][..., present], sums["second"][np.ix_(present, present)]
    return {**sums, "gram": np.array(gram), "moment": moment, "second": second}, kept


def open_clean(clean, columns, n_features):
    """Open noise-free rows, and find which of their columns are flux: `columns` of `n_features`, or all."""
    rows = as_source(clean) or ArrayRows(np.asarray(clean))
    if rows.shape[1] not in (len(columns), n_features):
        raise ValueError(
            f"WienerScores.fit: clean has shape {rows.shape} and must have {len(columns):,} columns, one per flux "
            f"column, or {n_features:,} like X."
        )
    return rows, columns if rows.shape[1] == n_features else np.arange(len(columns))


def clean_factors(owner, n_kept, rows, columns):
    """At most `n_kept` principal components of noise-free rows, in units of the noise of `owner`, as factors."""
    n_kept, origin = max(1, min(n_kept, len(columns), len(rows) - 1)), owner.mean_ / owner.noise_
    sums = CellStatistics.zeros(1, len(columns), origin=origin)
    for first, block in iter_blocks(owner, rows):
        flux = take_columns(block, columns)
        require_finite(owner, "clean", flux, first_row=first)
        nothing = np.zeros(len(flux), dtype=int)
        sums.update(flux / owner.noise_.astype(flux.dtype), nothing, nothing)
    variance, vectors = leading(sums.centred()[0][0] / len(rows), n_kept, owner.random_state)
    loadings = vectors * np.sqrt(variance.clip(min=0))
    return Factors(loadings, np.zeros((len(columns), 0)), sums.means()[0][0] - origin)


def first_factors(flux, error, n_components, seed):
    """Mean, typical noise and first factors from a sample of rows: noise-whitened principal components.

    Without `error` the noise is the same everywhere, with the variance that the components leave.
    """
    n_pixels = flux.shape[1]
    most = n_pixels if error is not None else max(1, n_pixels - 1)
    kept = max(1, min(n_components, most, len(flux) - 1))
    errors = {} if error is None else {"error_columns": slice(n_pixels, None)}
    pca = NoiseWhitenedPCA(kept, columns=slice(0, n_pixels), random_state=seed, **errors)
    pca.fit(flux if error is None else np.hstack([flux, error]))
    noise, signal = pca.noise_, pca.signal_variance_
    if error is None:
        spread = np.square(flux - pca.mean_).mean(axis=0, dtype=np.float64)
        left = (spread.sum() - signal.sum()) / max(1, n_pixels - kept)
        variance = max(left, _MIN_NOISE * spread.mean()) or 1.0
        noise, signal = np.full(n_pixels, np.sqrt(variance)), signal / variance - 1
    loadings = pca.components_.T * np.sqrt(np.maximum(signal, _MIN_SIGNAL))
    return pca.mean_, noise, Factors(loadings, np.zeros((n_pixels, 0)), np.zeros(n_pixels))

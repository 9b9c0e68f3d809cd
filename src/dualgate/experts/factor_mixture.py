r"""Mixtures of factor analysers with known noise, joint with the target.

Component k: factors :math:`z = m_k + U_k t`, target :math:`y = c_k + V_k^T t + N(0, S_k)`, :math:`t \sim N(0, I)`. A
row enters through its information, A and b of :func:`~dualgate.features.factors.information`. With
:math:`G = U_k^T A U_k`, :math:`h = U_k^T (b - A m_k)` and :math:`L = I + G` it has

.. math::

    l_k = \log \pi_k + b^T m_k - m_k^T A m_k / 2 - \log |L| / 2 + h^T L^{-1} h / 2, \qquad
    f_k = c_k + V_k^T L^{-1} h, \qquad \mathrm{cov}_k = S_k + V_k^T L^{-1} V_k.

Where y is known, L gains :math:`V_k S_k^{-1} V_k^T`, h gains :math:`V_k S_k^{-1} (y - c_k)`, and :math:`l_k` the
density of y. Arrays have the axes (component, row) last, so that a step is one matrix product and some elementwise
operations for many rows and all components at once.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.special import logsumexp

from dualgate.features.factors import Span, n_products, split_information, unfold
from dualgate.rows import Pass, in_threads

STEP = 256  # rows worked on at a time, so that intermediate arrays stay in the cache
NEGLIGIBLE = 1e-7  # share of a row that is taken for none; also keeps denormal numbers out of the products
PLANE_ROWS = 30.0  # penalty of planes and slopes, as of so many rows with information I about the mean of all rows
LEVEL_ROWS, LEVEL_VARIANCE = 2.0, 0.05  # rows that the variance of y of every component includes, and theirs
LEAST_NOISE = 0.01  # of the variance of a column whose errors are not known
TINY = 1e-12


@dataclass(frozen=True, eq=False)
class FactorMixture:
    """Components of a factor mixture; y is in units of the fit.

    Parameters
    ----------
    log_share : ndarray of shape (n_components,)
    planes : ndarray of shape (n_components, n_loadings, n_factors + 1)
        [U_k m_k].
    slopes : ndarray of shape (n_components, n_factors, n_targets)
        V_k.
    levels : ndarray of shape (n_components, n_targets)
        c_k.
    covariance : ndarray of shape (n_components, n_targets, n_targets)
        S_k.
    span : None or Span, default=None
        Directions that hold the matrices A of most rows, which saves most of the products with them.
    """

    log_share: np.ndarray
    planes: np.ndarray
    slopes: np.ndarray
    levels: np.ndarray
    covariance: np.ndarray
    span: Span | None = None
    _operators: dict = field(default_factory=dict, repr=False, init=False)

    def __getstate__(self):
        return vars(self) | {"_operators": {}}

    @property
    def shape(self):
        """Numbers of components, loadings, factors and targets."""
        return *self.planes.shape[:2], *self.slopes.shape[1:]

    def operators(self, dtype, spanned=False):
        """Matrices from information to [U m]' A [U m], as (pair, component) by products, and from b to [U m]' b.

        With `spanned`, A is given by its coordinates in the span.
        """
        if spanned:
            key = "spanned", dtype
            if key not in self._operators:
                to_pairs, to_moments = self.operators(np.dtype(np.float64))
                to_pairs = to_pairs @ self.span.directions.T
                self._operators[key] = to_pairs.astype(dtype), to_moments.astype(dtype)
            return self._operators[key]
        if dtype not in self._operators:
            _, width, n_factors, _ = self.shape
            rows, columns = np.tril_indices(width)
            first, second = np.tril_indices(n_factors + 1)
            above, below = self.planes[:, rows], self.planes[:, columns]
            pairs = above[:, :, first] * below[:, :, second]
            mixed = rows != columns
            pairs[:, mixed] += below[:, mixed][:, :, first] * above[:, mixed][:, :, second]
            self._operators[dtype] = (
                np.ascontiguousarray(pairs.transpose(2, 0, 1).reshape(-1, len(rows)).astype(dtype)),
                np.ascontiguousarray(self.planes.transpose(2, 0, 1).reshape(-1, width).astype(dtype)),
            )
        return self._operators[dtype]

    def moved(self, shift, turn):
        """Return the same mixture for factors ``turn @ (z - shift)``."""
        planes = self.planes.copy()
        planes[:, :, -1] -= shift
        planes, slopes, covariance = turn @ planes, self.slopes, self.covariance
        n_left = planes.shape[1]
        if n_left < slopes.shape[1]:  # no more factors than loadings: the rest of t is noise of the target
            _, _, axes = np.linalg.svd(planes[:, :, :-1], full_matrices=True)
            slopes = axes @ slopes
            covariance = covariance + slopes[:, n_left:].swapaxes(1, 2) @ slopes[:, n_left:]
            turned = planes[:, :, :-1] @ axes[:, :n_left].swapaxes(1, 2)
            planes, slopes = np.concatenate([turned, planes[:, :, -1:]], axis=2), slopes[:, :n_left]
        return FactorMixture(self.log_share, planes, slopes, self.levels, covariance)

    def parts(self, information):
        """Yield the numbers of some rows, their A, their b, and whether A is given by coordinates in the span."""
        folded, moment = split_information(information)
        groups = [(np.arange(len(folded)), folded, False)]
        if self.span is not None:
            found, inside = self.span.coordinates(folded)
            groups = [(np.flatnonzero(inside), found, True), (np.flatnonzero(~inside), folded, False)]
        for rows, precision, spanned in groups:
            for start in range(0, max(len(rows), not (len(folded) or spanned)), STEP):
                some = rows[start : start + STEP]
                yield some, precision[some], moment[some], spanned

    def _project(self, precision, moment, spanned, y=None):
        """Lower triangles of L (q, q, K, n), h (q, K, n), and l_k without what solving L adds (K, n)."""
        (n_components, _, n_factors, _), dtype, n_rows = self.shape, moment.dtype, len(moment)
        to_pairs, to_moments = self.operators(dtype, spanned)
        pairs = (to_pairs @ precision.T).reshape(-1, n_components, n_rows)
        moments = (to_moments @ moment.T).reshape(n_factors + 1, n_components, n_rows)
        cross = n_products(n_factors)
        evidence = moments[-1] - 0.5 * pairs[-1] + self.log_share[:, None]
        h = moments[:-1] - pairs[cross:-1]
        lower = np.empty((n_factors, n_factors, n_components, n_rows), dtype)
        for row in range(n_factors):
            lower[row, : row + 1] = pairs[n_products(row) : n_products(row + 1)]
            lower[row, row] += 1
        if y is not None:
            inverse = np.linalg.inv(self.covariance)
            weighed = self.slopes @ inverse  # (K, q, T)
            deviation = y.T - self.levels[:, :, None]  # (K, T, n)
            h += np.matmul(weighed, deviation).transpose(1, 0, 2)
            added = np.matmul(weighed, self.slopes.transpose(0, 2, 1)).transpose(1, 2, 0)[..., None]
            for row in range(n_factors):
                lower[row, : row + 1] += added[row, : row + 1]
            distance = np.einsum("ktn,kts,ksn->kn", deviation, inverse, deviation, optimize=True)
            size = np.linalg.slogdet(2 * np.pi * self.covariance)[1]
            evidence = evidence - 0.5 * (distance + size[:, None])
        return lower, h, evidence

    def expect(self, precision, moment, spanned, y):
        """Find what the rows tell of components and factors when y is known too.

        Parameters
        ----------
        precision, moment, spanned
            A and b of rows, from `parts`.
        y : ndarray of shape (n_rows, n_targets)

        Returns
        -------
        log_density : ndarray of shape (n_rows,)
            Of row and target, up to what all mixtures share.
        pairs : ndarray of shape (n_pairs, n_components, n_rows)
            Lower triangle of share times <t~ t~'>, t~ = (t, 1); the last is the share.
        """
        lower, h, evidence = self._project(precision, moment, spanned, y)
        n_factors = len(h)
        scratch, log_size = np.empty_like(lower[0]), np.zeros_like(h[0])
        column = np.empty_like(h)
        for pivot in range(n_factors):  # sweeps; the lower triangle ends as minus the inverse
            diagonal = np.maximum(lower[pivot, pivot], 1)  # every pivot of I + G is at least one, but for rounding
            log_size += np.log(diagonal)
            np.reciprocal(diagonal, out=diagonal)
            column[:pivot], column[pivot], column[pivot + 1 :] = lower[pivot, :pivot], 0, lower[pivot + 1 :, pivot]
            for row in range(n_factors):
                if row != pivot:
                    factor = column[row] * diagonal
                    np.multiply(factor, column[: row + 1], out=scratch[: row + 1])
                    lower[row, : row + 1] -= scratch[: row + 1]
                    lower[(row, pivot) if row > pivot else (pivot, row)] = factor
            np.negative(diagonal, out=lower[pivot, pivot])
        means = np.zeros_like(h)
        for row in range(n_factors):
            for other in range(n_factors):
                np.multiply(lower[max(row, other), min(row, other)], h[other], out=scratch[0])
                means[row] -= scratch[0]
        evidence = evidence - 0.5 * log_size + 0.5 * np.einsum("qkn,qkn->kn", h, means)
        log_density = logsumexp(evidence, axis=0)
        share = np.exp(evidence - log_density).astype(moment.dtype)
        share[share < NEGLIGIBLE] = 0
        pairs = np.empty((n_products(n_factors + 1), *share.shape), moment.dtype)
        for row in range(n_factors):
            own = pairs[n_products(row) : n_products(row + 1)]
            np.multiply(means[row], means[: row + 1], out=own)
            own -= lower[row, : row + 1]
        pairs[n_products(n_factors) : -1], pairs[-1] = means, 1
        pairs *= share
        return log_density, pairs

    def _map(self, function, information):
        """Arrays of all rows from those that ``function(rows, precision, moment, spanned)`` returns for some."""
        joined = None
        for rows, *some in self.parts(information):
            found = function(rows, *some)
            joined = joined or [np.empty((len(information), *values.shape[1:]), values.dtype) for values in found]
            for values, part in zip(joined, found, strict=True):
                values[rows] = part
        return tuple(joined)

    def most_likely(self, information, y):
        """Component that is most likely for every row, y known too (n_rows,)."""
        return self._map(lambda rows, *some: [self.expect(*some, y[rows])[1][-1].argmax(axis=0)], information)[0]

    def factors_of(self, information, y):
        """Find <z> (n_rows, n_loadings) and the lower triangle of <z z'> (n_rows, n_products) of rows with known y."""
        _, width, n_factors, _ = self.shape
        rows, columns = np.tril_indices(width)
        first, second = np.tril_indices(n_factors + 1)
        above, below = self.planes[:, rows], self.planes[:, columns]
        folded = above[:, :, first] * below[:, :, second]
        mixed = first != second
        folded[:, :, mixed] += above[:, :, second[mixed]] * below[:, :, first[mixed]]
        folded = folded.transpose(1, 2, 0).reshape(len(rows), -1).astype(information.dtype)
        lines = self.planes.transpose(1, 2, 0).reshape(width, -1).astype(information.dtype)

        def find(own, *some):
            pairs = self.expect(*some, y[own])[1]
            squares = (folded @ pairs.reshape(-1, len(own))).T
            return (lines @ pairs[-n_factors - 1 :].reshape(-1, len(own))).T, squares

        return self._map(find, information)

    def predict(self, information):
        """Find evidence and prediction of every component.

        Parameters
        ----------
        information : ndarray of shape (n_rows, n_products + n_loadings)

        Returns
        -------
        log_evidence : ndarray of shape (n_rows, n_components)
        predictions : ndarray of shape (n_rows, n_components, n_targets)
        covariance : ndarray of shape (n_rows, n_components, n_targets, n_targets)
        explained : ndarray of shape (n_rows, n_components)
            What a component explains of ``(x - mean)' E^-1 (x - mean)``; the rest is the squared Mahalanobis distance
            of the row from the component.
        """
        return self._map(self._predict, information)

    def _predict(self, _, precision, moment, spanned):
        """Eliminate the factors from [[L, h, V], [h', 0, 0], [V', 0, 0]]: minus the rest are the quadratic forms."""
        lower, h, evidence = self._project(precision, moment, spanned)
        n_factors, n_targets = len(h), self.shape[3]
        slopes = self.slopes.transpose(2, 1, 0).astype(h.dtype)  # (T, q, K)
        beside = np.empty((1 + n_targets, n_factors, *h.shape[1:]), h.dtype)
        beside[0], beside[1:] = h, slopes[..., None]
        forms = np.zeros((1 + n_targets, 1 + n_targets, *h.shape[1:]), h.dtype)
        scratch, log_size = np.empty_like(h), np.zeros_like(h[0])
        for pivot in range(n_factors):
            diagonal = np.maximum(lower[pivot, pivot], 1)
            log_size += np.log(diagonal)
            inverse = 1 / diagonal
            for row in range(pivot + 1, n_factors):
                factor = lower[row, pivot] * inverse
                span = slice(pivot + 1, row + 1)
                np.multiply(factor, lower[span, pivot], out=scratch[span])
                lower[row, span] -= scratch[span]
                for line in beside:
                    np.multiply(factor, line[pivot], out=scratch[0])
                    line[row] -= scratch[0]
            for i, line in enumerate(beside):
                factor = line[pivot] * inverse
                for j in range(i + 1):
                    np.multiply(factor, beside[j, pivot], out=scratch[0])
                    forms[i, j] += scratch[0]
        evidence = evidence + 0.5 * forms[0, 0]
        explained = 2 * (evidence - self.log_share[:, None])
        evidence = evidence - 0.5 * log_size
        predictions = self.levels.T[:, :, None] + forms[1:, 0]
        covariance = np.empty((n_targets, n_targets, *h.shape[1:]))
        for i in range(n_targets):
            for j in range(i + 1):
                covariance[i, j] = covariance[j, i] = self.covariance[:, i, j, None] + forms[1 + i, 1 + j]
        return evidence.T, predictions.transpose(2, 1, 0), covariance.transpose(3, 2, 0, 1), explained.T


class MixtureSums(Pass):
    """One step of expectation-maximisation: what `maximise` needs, summed over rows of information.

    `y` has the shape (n_samples, n_targets). Row i belongs to fold ``i % n_folds``, over which the sums are kept apart.
    """

    row_wise = ("y",)

    def __init__(self, mixture, y, n_folds=1, n_jobs=None):
        self.mixture, self.y, self.n_folds, self.n_jobs = mixture, y, n_folds, n_jobs

    def begin(self):  # noqa: D102
        n_components, width, n_factors, n_targets = self.mixture.shape
        folds, lines, pairs = (self.n_folds,), n_factors + 1, n_products(n_factors + 1)
        return {
            "products": np.zeros((*folds, pairs * n_components, n_products(width))),
            "moments": np.zeros((*folds, lines * n_components, width)),
            "pairs": np.zeros((*folds, pairs, n_components)),
            "targets": np.zeros((*folds, lines, n_components, n_targets)),
            "squares": np.zeros((*folds, n_components, n_targets, n_targets)),
            "log_density": np.zeros(folds),
            "n_rows": np.zeros(folds),
        }

    def update(self, start, block):  # noqa: D102
        for fold in range(self.n_folds):
            rows = np.arange((fold - start) % self.n_folds, len(block), self.n_folds)
            if len(rows):
                own = block if self.n_folds == 1 else block[rows]
                y = self.y[self.rows_of(start, len(block))][rows]
                found = in_threads(lambda first, last, own=own, y=y: self._sum(own[first:last], y[first:last]),
                                   len(own), self.n_jobs)  # fmt: skip
                for name, values in found.items():
                    self.found[name][fold] += values.sum(axis=0)

    def _sum(self, information, y):
        empty = self.begin()
        sums = {name: values[:1] for name, values in empty.items()}
        n_lines, span = self.mixture.shape[2] + 1, self.mixture.span
        products, moments = (np.zeros_like(sums[name][0], information.dtype) for name in ("products", "moments"))
        within = None if span is None else np.zeros((len(products), len(span.directions)), information.dtype)
        for rows, precision, moment, spanned in self.mixture.parts(information):
            own = y[rows]
            log_density, pairs = self.mixture.expect(precision, moment, spanned, own)
            into = within if spanned else products
            into += pairs.reshape(-1, len(rows)) @ precision
            moments += pairs[-n_lines:].reshape(-1, len(rows)) @ moment
            sums["pairs"][0] += pairs.sum(axis=2, dtype=np.float64)
            sums["targets"][0] += pairs[-n_lines:] @ own
            sums["squares"][0] += np.einsum("kn,nt,ns->kts", pairs[-1], own, own, optimize=True)
            sums["log_density"] += log_density.sum()
        sums["products"][0] += products
        if span is not None:
            sums["products"][0] += within @ span.directions
        sums["moments"][0] += moments
        sums["n_rows"] += len(information)
        return sums


def log_prior(mixture, penalty=PLANE_ROWS):
    """Log density of the parameters under what `maximise` adds to the rows, up to a constant."""
    if not penalty:
        return 0.0
    inverse = np.linalg.inv(mixture.covariance)
    slopes = np.einsum("kqt,kts,kqs->", mixture.slopes, inverse, mixture.slopes)
    levels = np.linalg.slogdet(mixture.covariance)[1].sum() + LEVEL_VARIANCE * np.einsum("ktt->", inverse)
    planes = np.square(mixture.planes).sum()
    return mixture.log_share.sum() - 0.5 * (penalty * (planes + slopes) + LEVEL_ROWS * levels)


def maximise(sums, penalty=PLANE_ROWS, *, span=None):
    """Find the mixture that the sums of a step make most likely.

    Parameters
    ----------
    sums : dict of str to ndarray
        As `MixtureSums.found`, for one fold or summed over folds.
    penalty : float, default=30.0
        Of planes and slopes: each is as if so many further rows had told it to be zero. 0 is maximum likelihood, and
        then no step makes the likelihood of the rows fall.
    span : None or Span, default=None
        Of the mixture that is returned.

    Returns
    -------
    mixture : FactorMixture
        In each component t has the mean 0 and the covariance I over its rows (parameter expansion: Liu, Rubin & Wu
        1998, Biometrika 85, 755).
    """
    n_lines, n_components, n_targets = sums["targets"].shape
    n_factors, width = n_lines - 1, sums["moments"].shape[1]
    rows, columns = np.tril_indices(width)
    first, second = np.tril_indices(n_lines)
    place = np.empty((n_lines, n_lines), dtype=int)
    place[first, second] = place[second, first] = np.arange(len(first))
    by_component = sums["products"].reshape(len(first), n_components, -1)
    moments = sums["moments"].reshape(n_lines, n_components, width)
    counts, some = np.maximum(sums["pairs"][-1], TINY), 1.0 if penalty else 0.0
    planes = np.empty((n_components, width, n_lines))
    slopes, levels = np.empty((n_components, n_factors, n_targets)), np.empty((n_components, n_targets))
    covariance = np.empty((n_components, n_targets, n_targets))
    for k in range(n_components):
        folded = np.empty((width, width, len(first)))
        folded[rows, columns] = folded[columns, rows] = by_component[:, k].T
        system = folded[:, :, place].transpose(0, 2, 1, 3).reshape(width * n_lines, width * n_lines)
        system += (penalty + TINY * max(np.trace(system), 1.0)) * np.eye(len(system))
        planes[k] = np.linalg.solve(system, moments[:, k].T.ravel()).reshape(width, n_lines)
        gram, target = sums["pairs"][:, k][place], sums["targets"][:, k]
        ridge = np.diag(np.r_[np.full(n_factors, penalty), 0.0]) + TINY * max(np.trace(gram), 1.0) * np.eye(n_lines)
        coef = np.linalg.solve(gram + ridge, target)
        left = sums["squares"][k] - coef.T @ target - target.T @ coef + coef.T @ gram @ coef
        prior = some * LEVEL_ROWS
        covariance[k] = ((left + left.T) / 2 + prior * LEVEL_VARIANCE * np.eye(n_targets)) / (counts[k] + prior)
        mean = gram[-1, :-1] / counts[k]  # of t, which is turned and scaled to N(0, I)
        spread = gram[:-1, :-1] - np.outer(gram[-1, :-1], mean) + some * np.eye(n_factors)
        turn = np.linalg.cholesky(spread / (counts[k] + some))
        planes[k, :, -1] += planes[k, :, :-1] @ mean
        planes[k, :, :-1] = planes[k, :, :-1] @ turn
        levels[k] = coef[-1] + mean @ coef[:-1]
        slopes[k] = turn.T @ coef[:-1]
    log_share = np.log((counts + some) / (counts + some).sum())
    return FactorMixture(log_share, planes, slopes, levels, covariance, span)


@dataclass(frozen=True, eq=False)
class ColumnNoise:
    """Noise of projected columns whose errors are not known, the same for all rows.

    Columns are taken in units of their `spread` about their `origin`, each is a factor z plus noise of its `variance`.
    """

    origin: np.ndarray
    spread: np.ndarray
    variance: np.ndarray

    @classmethod
    def of(cls, projected):
        """Begin with a tenth of the variance of every column."""
        origin, spread = projected.mean(axis=0, dtype=np.float64), projected.std(axis=0, dtype=np.float64)
        constant = spread <= 10 * np.finfo(projected.dtype).eps * np.sqrt(len(projected)) * np.abs(origin)
        return cls(origin, np.where(constant, np.inf, spread), np.full(len(origin), 0.1))

    def information(self, projected):
        """Information of rows of projected columns, as of a projection that knows errors."""
        moment = (projected - self.origin) / (self.spread * self.variance)
        precision = np.diag(1 / self.variance)[np.tril_indices(len(self.variance))]
        return np.hstack([np.broadcast_to(precision, (len(moment), len(precision))), moment]).astype(projected.dtype)

    def deviations(self, projected):
        """Return what a projection that knows errors informs of beside information."""
        return {"chi_square": self.squares_of(projected), "n_measured": np.full(len(projected), len(self.variance))}

    def squares_of(self, projected):
        """Squared deviations of rows from the origin in units of the noise, summed over the columns (n_rows,)."""
        return np.square((projected - self.origin) / self.spread) @ (1 / self.variance)

    def updated(self, sums, mixture):
        """Return the noise that the sums of a step and the mixture that they made ask for."""
        n_lines, n_components, _ = sums["targets"].shape
        first, second = np.tril_indices(n_lines)
        place = np.empty((n_lines, n_lines), dtype=int)
        place[first, second] = place[second, first] = np.arange(len(first))
        moments = sums["moments"].reshape(n_lines, n_components, -1)
        squares = np.einsum("krp,pqk,krq->r", mixture.planes, sums["pairs"][place], mixture.planes, optimize=True)
        crossed = self.variance * np.einsum("krp,pkr->r", mixture.planes, moments)
        total = np.where(np.isfinite(self.spread), sums["n_rows"], 0)
        left = (total - 2 * crossed + squares) / sums["n_rows"]
        return ColumnNoise(self.origin, self.spread, np.clip(left, LEAST_NOISE, 1.0))


def first_mixture(information, y, labels, n_factors):
    """Make a mixture to start from: the principal plane and the regression of the rows of every label.

    Parameters
    ----------
    information : ndarray of shape (n_samples, n_products + n_loadings)
    y : ndarray of shape (n_samples, n_targets)
    labels : ndarray of int of shape (n_samples,)
        0 to n_components - 1, each present.
    n_factors : int
        At most; no more than there are loadings.
    """
    folded, moment = split_information(information)
    n_factors = min(n_factors, moment.shape[1])
    width, n_targets, shares, scores = moment.shape[1], y.shape[1], np.bincount(labels) / len(labels), []
    uncertain = np.zeros((len(shares), width, width))
    for start in range(0, len(labels), STEP):
        rows = slice(start, start + STEP)
        covariance = np.linalg.inv(unfold(folded[rows], width) + np.eye(width))
        scores.append(np.einsum("nij,nj->ni", covariance, moment[rows]))
        np.add.at(uncertain, labels[rows], covariance)
    scores = np.concatenate(scores)
    found = []
    for label, share in enumerate(shares):
        own, levels = scores[labels == label], y[labels == label]
        n_rows, mean, level = len(own), own.mean(axis=0), levels.mean(axis=0)
        spread = (own - mean).T @ (own - mean) + uncertain[label] + n_factors * np.eye(width)
        values, axes = np.linalg.eigh(spread / (n_rows + n_factors))
        plane = axes[:, ::-1][:, :n_factors] * np.sqrt(values[::-1][:n_factors])
        t = (own - mean) @ plane / np.square(plane).sum(axis=0)
        slope = np.linalg.solve(t.T @ t + n_factors * np.eye(n_factors), t.T @ (levels - level))
        left = levels - level - t @ slope
        variance = left.T @ left / n_rows + LEVEL_VARIANCE * np.eye(n_targets)
        found.append((np.log(share), np.column_stack([plane, mean]), slope, level, variance))
    return FactorMixture(*map(np.array, zip(*found, strict=True)))

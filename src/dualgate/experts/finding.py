"""Regimes that are not given: clusters of rows, refined until the target is linear in each."""

from dataclasses import dataclass

import numpy as np
from scipy.special import softmax
from sklearn.cluster import KMeans

MIN_ROWS_PER_REGIME = 20  # regimes that are found are no smaller on average
MAX_DIMENSIONS = 32  # of where a row is, and of what its line is drawn over
MAX_FEATURES = 20  # of these for the gate's features
FIND_ROWS = 20_000  # rows from which regimes are found, at most
START_ROWS = 12_000  # rows on which the starts compete
START_STEPS, LAST_STEPS, N_FINALISTS = 25, 50, 2
CROSSED_ROWS, CROSSED_STEPS = 2000, 10  # rows up to which each is sorted without its fold; steps that unlearn a fold
TINY = 1e-9  # directions with less than this share of the largest variance are rounding
CLOSE = 1e-3  # models whose errors differ by less than about this share rank as equal: rounding does not choose
COPIES = 1e-3  # the same, where the gate's features and the experts' columns overlap
RARE = 1e-3  # share of the rows at either end of a column that is clipped
FAR = 6.0  # standard deviations at which coordinates are clipped


class RegimeFinder:
    r"""Find regimes in which the target is linear and which can be told from the columns alone.

    A cluster-weighted model: regime k holds a share :math:`\pi_k` of the rows, which lie about its mean as a Gaussian
    and whose target is linear with a Gaussian residual,

    .. math:: p(z, y) = \sum_k \pi_k\, N(z; \mu_k, \Sigma_k)\, N(y; b_k + w_k \cdot x, \sigma_k^2) ,

    with x the columns that the experts read and z those and the gate's features together. Expectation-maximisation
    starts from k-means clusters of several kinds; the model with the smallest squared error of
    :math:`\sum_k p(k | z)\,(b_k + w_k \cdot x)` on a held-out fifth of the rows is chosen. Where it is not better than
    the k-means clusters of the gate's features by two standard errors, these are the regimes. A row belongs to the
    regime of the largest :math:`p(k | z)`, which does not depend on its target.

    At most `n_regimes` are found: no more than a twentieth of the rows, nor than different rows. `tower` names the gate
    in whose features they are found.

    References
    ----------
    Jordan & Jacobs 1994, Neural Computation 6, 181. Xu, Jordan & Hinton 1995, Advances in Neural Information Processing
    Systems 7, 633. Gershenfeld 1997, Annals of the New York Academy of Sciences 808, 18.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).uniform(-1, 1, size=(500, 1))
    >>> finder = RegimeFinder(2, 0).fit(x, x, np.abs(x[:, 0] - 0.5))
    >>> len(set(finder.predict(np.array([[-0.9], [0.1]]), np.array([[-0.9], [0.1]])))), bool(finder.refined_)
    (1, True)
    """

    def __init__(self, n_regimes, random_state, tower="phys"):
        self.n_regimes, self.random_state, self.tower = n_regimes, random_state, tower

    def fit(self, features, projected, y, *, common_unit=False):
        """Find regimes from gate features, projected columns and targets of rows; returns self.

        With `common_unit` the projected columns share a unit, so that their variances tell which of them lead.
        """
        self._turned, self._line = Directions(features, MAX_FEATURES), Directions(projected, scale=not common_unit)
        gate, n_rows = self._tamed(features), len(y)
        n_found = min(self.n_regimes, max(1, n_rows // MIN_ROWS_PER_REGIME), len(np.unique(gate, axis=0)))
        self._clusters = KMeans(n_found, n_init=3, random_state=self.random_state).fit(gate)
        self.n_regimes_, self.refined_ = n_found, False
        if n_found > 1 and np.ptp(y) > 0 and len(self._line.spread):
            self._place = Directions(self._coordinates(features, projected), least=COPIES)
            self._y_mean, self._y_scale = y.mean(), y.std()
            self._refine(features, projected, y)
        return self

    def codes(self, columns):
        """Regime of every row from reduced columns, as `ReducedRows.columns` names them."""
        return self.predict(columns[f"features_{self.tower}"], columns["projected"])

    def codes_without_folds(self, columns, y, folds):
        """Regime of every training row (n_samples,), by a model that did not see the targets of its fold.

        Expectation-maximisation goes on without the fold, from the regimes that were found. Of many rows, or of
        clusters that were not refined, these are the regimes of `codes`: one target among many changes little.
        """
        if not self.refined_ or len(y) > CROSSED_ROWS:
            return self.codes(columns)
        sample = self._sample(columns[f"features_{self.tower}"], columns["projected"], y)
        codes = np.empty(len(y), dtype=np.intp)
        for fold in np.unique(folds):
            rest = sample.take(folds != fold)
            model = climb(rest, self._model.memberships(rest), CROSSED_STEPS)
            codes[folds == fold] = self._sort(sample.place[folds == fold], model)
        return codes

    def predict(self, features, projected):
        """Regime of every row from gate features and projected columns (n_samples,)."""
        if not self.refined_:
            return self._clusters.predict(self._tamed(features))
        z = self._place(self._coordinates(features, projected))
        return self._sort(np.column_stack([np.ones(len(z)), z, products(z)]), self._model)

    def _sort(self, place, model):
        return (place @ model.place[:, self._taken]).argmax(axis=1)

    def _sample(self, features, projected, y):
        x = np.column_stack([self._line(projected), np.ones(len(y))])
        return Sample.of(self._place(self._coordinates(features, projected)), x, (y - self._y_mean) / self._y_scale)

    def _tamed(self, features):
        return np.arcsinh(self._turned.standardised(features))

    def _coordinates(self, features, projected):
        """Directions of the gate's features, and as many of the projected columns as there is room for."""
        of_gate = self._turned(features)
        of_line = self._line(projected)[:, : MAX_DIMENSIONS - of_gate.shape[1]]
        return np.clip(np.hstack([of_gate, of_line]), -FAR, FAR)

    def _refine(self, features, projected, y):
        """Let models from several starts compete, and keep the best if it beats the clusters."""
        rng, hot, labels = np.random.default_rng(self.random_state), np.eye(self.n_regimes_), self._clusters.labels_
        sample, order = self._sample(features, projected, y), rng.permutation(len(y))
        held_out, rest = sample.take(order[: len(y) // 5]), sample.take(order[len(y) // 5 :])
        few = order[len(y) // 5 :][:START_ROWS]
        starts = [labels[few], *_starts(sample.x[few, :-1] * self._line.spread, self.n_regimes_, rng)]
        few = sample.take(few)
        models = [climb(few, hot[start], START_STEPS) for start in starts]
        models.sort(key=lambda model: model.rank(held_out))
        models = [climb(rest, model.memberships(rest), LAST_STEPS) for model in models[:N_FINALISTS]]
        best = min(models, key=lambda model: model.rank(held_out))
        plain = maximise(rest, hot[labels[order[len(y) // 5 :]]])
        gain = plain.squared_error(held_out) - best.squared_error(held_out)
        if gain.mean() > 2 * gain.std() / np.sqrt(len(gain)):
            self._model, self.refined_ = best, True
            self._taken = np.unique((sample.place @ best.place).argmax(axis=1))
            self.n_regimes_ = len(self._taken)


def _starts(line, n_regimes, rng):
    """Codes to start from: k-means clusters in the leading three and six directions, and in all."""
    for n_leading in (3, 3, 6, 6, None):
        seed = int(rng.integers(2**31))
        yield KMeans(n_regimes, n_init=1, random_state=seed).fit_predict(line[:, :n_leading])


class Directions:
    """Principal directions of columns, the leading `n_most` of those with `least` of the largest variance.

    With `scale` columns are standardised first, because each has a unit of its own.
    """

    def __init__(self, columns, n_most=MAX_DIMENSIONS, *, scale=True, least=TINY):
        columns = np.asarray(columns, dtype=np.float64)
        self.low, self.high = np.quantile(columns, (RARE, 1 - RARE), axis=0)  # outliers do not change the scales
        columns = np.clip(columns, self.low, self.high)
        self.mean, spread = columns.mean(axis=0), columns.std(axis=0)
        constant = spread <= 10 * np.finfo(np.float64).eps * np.sqrt(len(columns)) * np.abs(self.mean)
        self.scale = np.where(constant, np.inf, spread if scale else spread.max())
        values = self.standardised(columns)
        self.centre = values.mean(axis=0)
        variances, axes = np.linalg.eigh(np.cov(values, rowvar=False, ddof=0).reshape(2 * values.shape[1:]))
        kept = np.flatnonzero(variances > least * variances[-1])[::-1][:n_most]
        self.spread = np.sqrt(variances[kept])  # standard deviation along each direction
        self.axes = axes[:, kept] / self.spread

    def standardised(self, columns):
        """Columns about their means in standard deviations; those that are constant are zero."""
        return (np.clip(columns, self.low, self.high) - self.mean) / self.scale

    def __call__(self, columns):
        """Coordinates (n_samples, n_directions) of variance one along the principal directions."""
        return (self.standardised(columns) - self.centre) @ self.axes


def products(columns):
    """All products of two columns (n_rows, n_columns (n_columns + 1) / 2)."""
    i, j = np.triu_indices(columns.shape[1])
    return columns[:, i] * columns[:, j]


@dataclass(frozen=True, eq=False)
class Sample:
    """Rows to learn from, with the sums' terms of every row: 1, z, its products, those of x, x y, y y."""

    terms: np.ndarray  # (n_rows, n_terms)
    x: np.ndarray  # (n_rows, n_line), the last column constant
    y: np.ndarray  # (n_rows,)
    width: int

    @classmethod
    def of(cls, z, x, y):
        """Collect the terms of some rows."""
        pieces = [np.ones(len(y)), z, products(z), products(x), x * y[:, None], y**2]
        return cls(np.column_stack(pieces), x, y, z.shape[1])

    @property
    def place(self):
        """Terms of where the rows are (n_rows, n_place_terms)."""
        return self.terms[:, : 1 + self.width + self.width * (self.width + 1) // 2]

    def take(self, rows):
        """Return some of the rows."""
        return Sample(self.terms[rows], self.x[rows], self.y[rows], self.width)


@dataclass(frozen=True, eq=False)
class ClusterWeighted:
    """Gaussians of where the rows of each regime are, as coefficients of 1, z and its products, and lines."""

    place: np.ndarray  # (n_place_terms, n_regimes): log p(k, z) up to a constant
    coef: np.ndarray  # (n_regimes, n_line), the last for the constant column
    variance: np.ndarray  # (n_regimes,), of the residuals

    def memberships(self, sample):
        """p(k | z, y) of every row."""
        residual = sample.y[:, None] - sample.x @ self.coef.T
        logits = sample.place @ self.place - 0.5 * (np.log(self.variance) + residual**2 / self.variance)
        return softmax(logits, axis=1)

    def squared_error(self, sample):
        """Squared error of the prediction of every row, each regime weighed by p(k | z)."""
        weights = softmax(sample.place @ self.place, axis=1)
        return (sample.y - (weights * (sample.x @ self.coef.T)).sum(axis=1)) ** 2

    def rank(self, sample):
        """Logarithm of the mean squared error, in steps of `CLOSE`."""
        return np.floor(np.log(self.squared_error(sample).mean() + TINY) / CLOSE)


def climb(sample, memberships, n_steps):
    """Expectation-maximisation, from memberships on."""
    for _ in range(n_steps):
        memberships = maximise(sample, memberships).memberships(sample)
    return maximise(sample, memberships)


def maximise(sample, memberships):
    """Parameters of every regime from the memberships of the rows; small regimes lean on all rows."""
    sums = memberships.T @ sample.terms  # (n_regimes, n_terms)
    width, n_line, n_place = sample.width, sample.x.shape[1], sample.place.shape[1]
    count, mean, covariance = _moments(sums, width)
    pooled, rows = _moments(sums.sum(axis=0, keepdims=True), width)[2], count[:, None, None]
    covariance = (rows * covariance + width * pooled) / (rows + width)
    precision = np.linalg.inv(covariance)
    turned = np.einsum("kij,kj->ki", precision, mean)
    level = np.log((count + 1) / (len(memberships) + len(count))) - 0.5 * np.linalg.slogdet(covariance)[1]
    i, j = np.triu_indices(width)
    squares = precision[:, i, j] * np.where(i == j, -0.5, -1.0)
    place = np.column_stack([level - 0.5 * (mean * turned).sum(axis=1), turned, squares]).T
    gram, moment, y_squares = _square(sums[:, n_place : -n_line - 1], n_line), sums[:, -n_line - 1 : -1], sums[:, -1]
    coef = np.linalg.solve(gram + np.diag(np.r_[np.ones(n_line - 1), TINY]), moment[..., None])[..., 0]
    residual = y_squares - 2 * (coef * moment).sum(axis=1) + np.einsum("ki,kij,kj->k", coef, gram, coef)
    return ClusterWeighted(place, coef, (residual.clip(min=0) + 0.01) / (count + 1) + 1e-4)


def _moments(sums, width):
    """Count, mean and covariance of z from the sums of each regime."""
    count = np.maximum(sums[:, 0], TINY)
    mean = sums[:, 1 : 1 + width] / count[:, None]
    products = _square(sums[:, 1 + width : 1 + width + width * (width + 1) // 2], width) / count[:, None, None]
    return sums[:, 0], mean, products - mean[:, :, None] * mean[:, None]


def _square(upper, width):
    """Symmetric matrices (n_regimes, width, width) from their upper triangles."""
    matrix = np.empty((len(upper), width, width))
    i, j = np.triu_indices(width)
    matrix[:, i, j] = matrix[:, j, i] = upper
    return matrix

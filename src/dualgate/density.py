"""Predictive densities: a mixture of Gaussians for every row."""

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp, ndtr

from dualgate._validation import make_generator

CRPS_ROWS = 256  # rows worked on at a time: every pair of Gaussians counts
FAR, HALVINGS = 39.0, 64  # standard deviations within which quantiles lie, and steps of their bisection


@dataclass(frozen=True, eq=False, repr=False)
class MixtureDensity:
    """A mixture of Gaussians for every row, of one target or of several jointly.

    Shapes below are those of one target; of several, `mean`, `std`, `cdf` and `quantile` have a last axis (n_targets,)
    and are those of each target alone, `sample` and `log_density` are joint.

    Parameters
    ----------
    log_weights : ndarray of shape (n_samples, n_experts)
        Weights sum to one.
    means : ndarray of shape (n_samples, n_experts, n_targets), [unit of y]
    covariance : ndarray of shape (n_samples, n_experts, n_targets, n_targets), [unit of y, squared]
    single : bool, default=True
        Whether there is one target, without an axis of its own.
    """

    log_weights: np.ndarray
    means: np.ndarray
    covariance: np.ndarray
    single: bool = True

    def __repr__(self):
        return f"MixtureDensity({self.means.shape[0]:,} rows, {self.means.shape[1]} Gaussians each)"

    def __len__(self):
        return len(self.means)

    def __getitem__(self, rows):
        return MixtureDensity(self.log_weights[rows], self.means[rows], self.covariance[rows], self.single)

    def _out(self, values):
        return values[..., 0] if self.single else values

    def _in(self, y):
        """Values as (n_samples, n_targets); a number is the same for every row."""
        shape = len(self), self.means.shape[2]
        y = np.asarray(y, dtype=np.float64)
        if self.single and y.shape == (len(self),):
            y = y[:, None]
        try:
            return np.broadcast_to(y, shape)
        except ValueError:
            wanted = (len(self),) if self.single else shape
            raise ValueError(
                f"MixtureDensity: y has shape {y.shape}, it must be a number or of shape {wanted}."
            ) from None

    @property
    def _spread(self):
        """Standard deviation of every Gaussian and target (n_samples, n_experts, n_targets)."""
        return np.sqrt(np.einsum("nktt->nkt", self.covariance))

    @property
    def mean(self):
        """Mean (n_samples,), [unit of y]."""
        return self._out(self._mean)

    @property
    def _mean(self):
        return np.einsum("nk,nkt->nt", np.exp(self.log_weights), self.means)

    @property
    def std(self):
        """Standard deviation (n_samples,), [unit of y]."""
        return self._out(np.sqrt(self._variance))

    @property
    def _variance(self):
        squares = self._spread**2 + (self.means - self._mean[:, None]) ** 2
        return np.einsum("nk,nkt->nt", np.exp(self.log_weights), squares)

    def cdf(self, y):
        """Probability of a smaller value than `y`.

        Parameters
        ----------
        y : float or array-like of shape (n_samples,), [unit of y]

        Returns
        -------
        probability : ndarray of shape (n_samples,)
        """
        return self._out(self._cdf(self._in(y)))

    def survival(self, y):
        """Probability that the target is above `y`; with all digits where it is small.

        Parameters
        ----------
        y : float or array-like of shape (n_samples,), [unit of y]

        Returns
        -------
        survival : ndarray of shape (n_samples,)
        """
        return self._out(self._cdf(self._in(y), -1))

    def _cdf(self, y, sign=1):
        """Probability of a smaller target, or of a larger one where `sign` is -1."""
        each = ndtr(sign * (y[:, None] - self.means) / self._spread)
        return np.einsum("nk,nkt->nt", np.exp(self.log_weights), each)

    def quantile(self, probability, *, above=False):
        """Value below which the target lies with this probability.

        Parameters
        ----------
        probability : float or array-like of shape (n_samples,), in [0, 1]
            0 and 1 give minus and plus infinity.
        above : bool, default=False
            Return the value above which the target lies with this probability, which may then be tiny.

        Returns
        -------
        quantile : ndarray of shape (n_samples,), [unit of y]
        """
        probability = self._in(probability)
        if not ((probability >= 0) & (probability <= 1)).all():
            raise ValueError(
                f"MixtureDensity.quantile: probability, from {probability.min():g} to {probability.max():g}, must be "
                "between 0 and 1."
            )
        spread = self._spread
        low, high = (self.means - FAR * spread).min(axis=1), (self.means + FAR * spread).max(axis=1)
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            below = self._cdf(middle, -1) > probability if above else self._cdf(middle) < probability
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        found, end = 0.5 * (low + high), -np.inf if above else np.inf
        found[probability == 0], found[probability == 1] = -end, end
        return self._out(found)

    def sample(self, n_draws=1, random_state=None):
        """Draw targets.

        Parameters
        ----------
        n_draws : int, default=1
            For each row.
        random_state : int, RandomState, Generator or None, default=None

        Returns
        -------
        draws : ndarray of shape (n_draws, n_samples), [unit of y]
        """
        generator = make_generator(self, random_state)
        steps = np.cumsum(np.exp(self.log_weights), axis=1)
        steps /= steps[:, -1:]
        drawn = (generator.uniform(size=(n_draws, len(self), 1)) > steps).sum(axis=2)
        rows = np.arange(len(self))
        factors = np.linalg.cholesky(self.covariance)[rows, drawn]  # (n_draws, n_samples, n_targets, n_targets)
        noise = generator.normal(size=(n_draws, *self.means.shape[::2]))
        return self._out(self.means[rows, drawn] + np.einsum("dnts,dns->dnt", factors, noise))

    def crps(self, y):
        """Continuous ranked probability score at `y`; the smaller, the better.

        Parameters
        ----------
        y : float or array-like of shape (n_samples,), [unit of y]

        Returns
        -------
        crps : ndarray of shape (n_samples,), [unit of y]
            In closed form: Grimit et al. 2006, Q. J. R. Meteorol. Soc. 132, 2925.
        """
        spread, weights, y = self._spread, np.exp(self.log_weights), self._in(y)
        first = np.einsum("nk,nkt->nt", weights, _mean_distance(y[:, None] - self.means, spread))
        second = np.empty_like(first)
        for row in range(0, len(self), CRPS_ROWS):
            rows = slice(row, row + CRPS_ROWS)
            means, own = self.means[rows], spread[rows]
            apart = means[:, :, None] - means[:, None]
            distance = _mean_distance(apart, np.sqrt(own[:, :, None] ** 2 + own[:, None] ** 2))
            second[rows] = np.einsum("nk,nj,nkjt->nt", weights[rows], weights[rows], distance, optimize=True)
        return self._out(first - 0.5 * second)

    def log_density(self, y):
        """Logarithm of the density at `y`.

        Parameters
        ----------
        y : float or array-like of shape (n_samples,), [unit of y]

        Returns
        -------
        log_density : ndarray of shape (n_samples,), [log of 1 / unit of y]
        """
        deviation = self._in(y)[:, None] - self.means
        if self.means.shape[2] == 1:
            variance = self.covariance[..., 0, 0]
            distance, log_size = deviation[..., 0] ** 2 / variance, np.log(2 * np.pi * variance)
        else:
            solved = np.linalg.solve(self.covariance, deviation[..., None])[..., 0]
            distance = np.einsum("nkt,nkt->nk", deviation, solved)
            log_size = np.linalg.slogdet(2 * np.pi * self.covariance)[1]
        return logsumexp(self.log_weights - 0.5 * (distance + log_size), axis=1)


def _mean_distance(mean, spread):
    """Mean of |u| for u ~ N(mean, spread^2)."""
    z = mean / spread
    return spread * np.sqrt(2 / np.pi) * np.exp(-0.5 * z**2) + mean * (2 * ndtr(z) - 1)

"""Adaptive multiple importance sampling in the unit box: each proposal is fitted to the weighted draws so far.

Cornuet et al. 2012, Scand. J. Stat. 39, 798, with the weights of all rounds by the balance heuristic (Veach & Guibas
1995, SIGGRAPH 95, 419) and a share of the prior in every proposal (Owen & Zhou 2000, JASA 95, 135).
"""

from dataclasses import dataclass
from math import gamma, pi

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import brentq
from scipy.spatial.distance import cdist
from scipy.special import softmax

ROUND_DRAWS = 512
_PRIOR_SHARE = 1 / 16  # of the draws of a round
_CENTRES = 64  # kernels of a proposal
_FREEDOM = 5  # degrees of freedom of a kernel: heavier tails than any posterior here
_FLOOR = 1e-5  # of the box: smallest width of a proposal, added in quadrature


def effective_size(weights):
    """Kish's effective number of draws, 1 / sum w^2, of weights that sum to one along the last axis."""
    return 1 / np.einsum("...i,...i->...", weights, weights)


def moments(weights, values):
    """Weighted mean of `values` (n_draws,) and their standard deviation; `weights` (..., n_draws) sum to one.

    The weighted sum of squares is divided by 1 - sum w^2, which makes the variance unbiased; for one draw it is 0.
    """
    mean = weights @ values
    spread = weights @ values**2 - mean**2
    freedom = 1 - 1 / effective_size(weights)
    return mean, np.sqrt(np.maximum(spread, 0) / np.maximum(freedom, 1e-12))


@dataclass(frozen=True, eq=False)
class KernelProposal:
    """Student-t kernels of one shape centred on draws of earlier rounds, mixed with the uniform prior."""

    centres: np.ndarray  # (_CENTRES, n_dims)
    scale: np.ndarray  # (n_dims, n_dims), lower Cholesky factor of the shape of a kernel

    @classmethod
    def from_weighted(cls, draws, weights, rng):
        """Fit to weighted draws (n_draws, n_dims): their covariance, narrowed for the number of kernels."""
        n_dims = draws.shape[1]
        ahead = np.cumsum(weights)
        even = (np.arange(_CENTRES) + rng.random()) / _CENTRES  # systematic resampling
        centres = draws[np.minimum(np.searchsorted(ahead, even), len(draws) - 1)]
        covariance = np.cov(draws, rowvar=False, aweights=weights, ddof=0) + _FLOOR**2 * np.eye(n_dims)
        # Silverman's width in n_dims dimensions
        width = (4 / (n_dims + 2) / _CENTRES) ** (1 / (n_dims + 4))
        return cls(centres, width * np.linalg.cholesky(covariance))

    def draw(self, n_draws, rng):
        """Draws (n_draws, n_dims); those outside of the unit box have posterior density zero."""
        n_dims = self.centres.shape[1]
        n_prior = int(_PRIOR_SHARE * n_draws)
        n_kernel = n_draws - n_prior
        steps = rng.standard_normal((n_kernel, n_dims)) @ self.scale.T
        steps *= np.sqrt(_FREEDOM / rng.chisquare(_FREEDOM, (n_kernel, 1)))
        return np.vstack([rng.random((n_prior, n_dims)), self.centres[rng.integers(_CENTRES, size=n_kernel)] + steps])

    def density(self, draws):
        """Density at draws (n_draws, n_dims) within the unit box."""
        n_dims = self.centres.shape[1]
        scaled = (solve_triangular(self.scale, each.T, lower=True).T for each in (draws, self.centres))
        kernels = (1 + cdist(*scaled, "sqeuclidean") / _FREEDOM) ** (-(_FREEDOM + n_dims) / 2)
        height = gamma((_FREEDOM + n_dims) / 2) / gamma(_FREEDOM / 2) / (_FREEDOM * pi) ** (n_dims / 2)
        height /= np.prod(np.diag(self.scale))
        return _PRIOR_SHARE + (1 - _PRIOR_SHARE) * height * kernels.mean(axis=1)


def tempered(log_likelihood, log_density, size):
    """Weights likelihood^t / density with the largest t <= 1 whose effective size is `size`, if there is one."""

    def excess(t):
        return effective_size(softmax(t * log_likelihood - log_density)) - size

    t = 1.0
    if excess(1.0) < 0:
        t = brentq(excess, 0, 1, xtol=1e-4) if excess(0.0) > 0 else 0.0
    return softmax(t * log_likelihood - log_density)


def sample_posterior(log_likelihood, draws, known, rng, *, min_size, n_rounds):
    """Draws (n_draws, n_dims) of a posterior under a uniform prior in the unit box, and weights that sum to one.

    The first proposal is fitted to `draws` of the prior whose log-likelihoods are `known`; they are not among the draws
    returned. Sampling stops at the effective size `min_size`, after `n_rounds` (at least 1) at the latest.
    """
    log_density, proposals = np.zeros(len(known)), []
    kept = np.empty((0, draws.shape[1]))
    values, density = np.empty(0), np.empty(0)
    for _ in range(n_rounds):
        guide = tempered(known, log_density, _CENTRES)
        proposal = KernelProposal.from_weighted(draws, guide, rng)
        fresh = proposal.draw(ROUND_DRAWS, rng)
        fresh = fresh[((fresh >= 0) & (fresh < 1)).all(axis=1)]
        proposals.append(proposal)
        density = np.concatenate(
            [density + proposal.density(kept), sum(earlier.density(fresh) for earlier in proposals)]
        )
        kept = np.vstack([kept, fresh])
        values = np.concatenate([values, log_likelihood(fresh)])
        weights = softmax(values - np.log(density))
        draws, known, log_density = kept, values, np.log(density)
        if effective_size(weights) >= min_size:
            break
    return kept, weights

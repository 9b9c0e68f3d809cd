"""The Bayes limit: how well log g can be known from simulated spectra at all, because the simulator is known."""

import numbers
import warnings
from dataclasses import dataclass

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import ArrayLike
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_array, check_consistent_length
from threadpoolctl import threadpool_limits

from dualgate._validation import check_number, check_target, make_generator, require_finite
from dualgate.datasets.emulator import HIGH, LABELS, LOW, load_emulator
from dualgate.datasets.importance import effective_size, moments, normalised, sample_posterior
from dualgate.datasets.projection import SpectrumBasis, log_likelihood, log_likelihoods
from dualgate.datasets.synthesis import WAVE
from dualgate.rows import as_source, iter_blocks

TOLERANCE = 0.01  # of chi^2, what the projection may lose of a star at the smallest errors, mean over stars
_BASIS_STARS, _HELD_OUT = 1024, 512
_TILE = 512  # stars emulated together
_ROWS = 64  # rows worked on together
_GUIDES = 2048  # prior draws that guide the first proposal
_LOG_G = LABELS.index("log_g")
_PRIOR_VARIANCE = (HIGH[_LOG_G] - LOW[_LOG_G]) ** 2 / 12  # [dex^2]


class BayesLimitWarning(UserWarning):
    """The limit is less exact than asked for.

    It comes when some rows stay below `min_size` effective draws, or when errors are so small that the projection loses
    part of a spectrum. More rounds or draws, or a smaller `min_size`, silence the first; the second means that the
    errors are far below those of the simulator: `warnings.simplefilter("ignore", BayesLimitWarning)`.
    """


@dataclass(frozen=True, eq=False)
class BayesLimit:
    """What the best regressor knows of every row, and its R^2.

    Attributes
    ----------
    prediction : ndarray of shape (n_samples,), [dex]
        Posterior mean of log g: no other prediction has a smaller mean squared error.
    std : ndarray of shape (n_samples,), [dex]
        Posterior standard deviation.
    effective_sample_size : ndarray of shape (n_samples,)
        Kish's number of draws behind each of them, (sum w)^2 / sum w^2.
    r2 : float
        Expected R^2 of `prediction`: 1 - mean posterior variance / prior variance. Needs no truth.
    r2_observed : float or None
        R^2 of `prediction` on the given `y`.
    """

    prediction: np.ndarray
    std: np.ndarray
    effective_sample_size: np.ndarray
    r2: float
    r2_observed: float | None = None


def bayes_limit(
    X: ArrayLike,
    *,
    y: ArrayLike | None = None,
    n_samples: int = 65_536,
    n_rounds: int = 48,
    min_size: float = 1000,
    random_state=None,
    n_jobs: int | None = -1,
) -> BayesLimit:
    r"""Find the best R^2 of log g that any regressor can reach on rows of simulated spectra.

    The simulator draws T_eff, log g, [M/H], [alpha/M] and [C/M] uniformly, and the flux of a row is the emulator's
    spectrum plus Gaussian noise with the row's own errors. So the posterior mean

    .. math:: \hat y = \frac{\int y(\theta) L(\theta) d\theta}{\int L(\theta) d\theta}, \quad
        -2 \ln L(\theta) = \sum_p (x_p - m_p(\theta))^2 / e_p^2

    can be computed, and under squared error nothing predicts better. It is found by importance sampling in two stages.
    Draws of the prior, emulated once, serve all rows; a row on which they are worth less than `min_size` draws gets
    fresh ones, round by round, from kernels about the draws that its likelihood prefers (adaptive multiple importance
    sampling). Spectra are compared in as many principal components as keep chi^2 within 0.01 of its value in pixels.

    The error vector is taken as given, as a condition of the observation that says nothing of the star. Photon noise
    makes it a copy of the spectrum without noise, and a regressor that reads the star from there can pass this limit.

    Parameters
    ----------
    X : array-like or RowSource of shape (n_rows, 8192)
        [flux | error] as :func:`make_spectra` gives it: in units of the star's mean noise-free flux, at noise level 1,
        so that the error is the standard deviation of the noise in the flux. Errors are above zero.
    y : array-like of shape (n_rows,), default=None, [dex]
        True log g, for `r2_observed`.
    n_samples : int, default=65536
        Draws of the prior, at least 100.
    n_rounds : int, default=48
        Rounds of 512 fresh draws for a row, at most; 0 leaves the draws of the prior alone.
    min_size : float, default=1000
        Effective number of draws at which a row is done, at least 2. Sampling costs 1 / min_size of the unexplained
        variance in `r2_observed`.
    random_state : int, RandomState, Generator or None, default=None
        Seed of the draws.
    n_jobs : int or None, default=-1
        Threads; -1 is one per core. It never changes a number.

    Returns
    -------
    limit : BayesLimit
        ``prediction``, ``std``, ``effective_sample_size``, ``r2`` and ``r2_observed``.

    Raises
    ------
    ValueError
        If an argument is out of range, X has not 8,192 columns, a value is not finite or an error not above zero.

    Warns
    -----
    BayesLimitWarning
        If rows stay below `min_size`, or errors are too small for the projection.

    References
    ----------
    Cornuet, J.-M., et al. (2012). Adaptive multiple importance sampling. Scand. J. Stat. 39, 798.
    Kish, L. (1965). Survey sampling. Wiley, section 8.2.

    Examples
    --------
    >>> from dualgate.datasets import bayes_limit, make_spectra
    >>> data = make_spectra(3, random_state=2)
    >>> limit = bayes_limit(data.X, n_samples=5000, min_size=100, random_state=0)
    >>> bool((limit.effective_sample_size >= 100).all()), bool((limit.std < 1.3).all())
    (True, True)
    """
    owner = "bayes_limit"
    check_number(owner, "n_samples", n_samples, kind=numbers.Integral, low=100, hint="try 65536.")
    check_number(owner, "n_rounds", n_rounds, kind=numbers.Integral, low=0, hint="try 48.")
    check_number(owner, "min_size", min_size, low=2, hint="try 1000.")
    X = _check_spectra(owner, X)
    if y is not None:
        y = check_target(owner, y)
        check_consistent_length(X, y)
    seed = int(make_generator(owner, random_state).integers(2**63))
    with threadpool_limits(1, user_api="blas"):  # and blocks of fixed size: no bit depends on n_jobs
        smallest = _smallest_errors(owner, X, n_jobs)
        sampler = _Sampler.prepare(smallest, seed, n_samples, n_rounds, min_size, n_jobs)
        parts = []
        for first, block in iter_blocks(owner, X, n_jobs=n_jobs):
            block = np.asarray(block)
            parts += Parallel(n_jobs=n_jobs, require="sharedmem")(
                delayed(sampler)(first + start, block[start : start + _ROWS]) for start in range(0, len(block), _ROWS)
            )
    prediction, std, size = np.concatenate(parts, axis=1)
    _warn_of_few(size, min_size)
    return BayesLimit(
        prediction,
        std,
        size,
        r2=float(1 - np.mean(std**2) / _PRIOR_VARIANCE),
        r2_observed=None if y is None else float(r2_score(y, prediction)),
    )


@dataclass(frozen=True, eq=False)
class _Sampler:
    """Posterior moments of rows: basis, draws of the prior and their coefficients, shared by all threads."""

    basis: SpectrumBasis
    draws: np.ndarray  # (n_samples, 5), in the unit box
    coefficients: np.ndarray  # (n_components, n_samples)
    seed: int
    n_rounds: int
    min_size: float

    @classmethod
    def prepare(cls, smallest, seed, n_samples, n_rounds, min_size, n_jobs):
        stars = _emulate(np.random.default_rng([seed, 0]).random((_BASIS_STARS + _HELD_OUT, len(LABELS))))
        basis = SpectrumBasis.from_spectra(*np.split(stars, [_BASIS_STARS]), smallest, tolerance=TOLERANCE)
        if basis.lost > TOLERANCE:
            warnings.warn(
                f"bayes_limit.X has errors so small that {basis.directions.shape[1]} components lose {basis.lost:.3g} "
                f"of chi^2 of a spectrum, more than {TOLERANCE}: the rows with the least noise are blurred.",
                BayesLimitWarning,
                stacklevel=3,
            )
        draws = np.random.default_rng([seed, 1]).random((n_samples, len(LABELS)))
        parts = Parallel(n_jobs=n_jobs, require="sharedmem")(
            delayed(_coefficients)(basis, draws[start : start + _TILE]) for start in range(0, n_samples, _TILE)
        )
        coefficients = np.ascontiguousarray(np.vstack(parts).T)
        return cls(basis, draws, coefficients, seed, n_rounds, min_size)

    def __call__(self, first, rows):
        """Posterior mean, standard deviation and effective size of `rows`, (3, n_rows); the first is row `first`."""
        flux, error = np.hsplit(rows, 2)
        gram, moment = self.basis.statistics(flux, error)
        results = np.empty((3, len(rows)))
        for row, known in enumerate(log_likelihoods(gram, moment, self.coefficients)):
            draws, weights = self.draws, normalised(known)
            if self.n_rounds and effective_size(weights) < self.min_size:
                draws, weights = self._refine(first + row, gram[row], moment[row], known)
            log_g = LOW[_LOG_G] + draws[:, _LOG_G] * (HIGH - LOW)[_LOG_G]
            results[:, row] = *moments(weights, log_g), effective_size(weights)
        return results

    def _refine(self, row, gram, moment, known):
        guides = np.argsort(-known, kind="stable")[:_GUIDES]
        return sample_posterior(
            lambda draws: log_likelihood(gram, moment, _coefficients(self.basis, draws)),
            self.draws[guides],
            known[guides],
            np.random.default_rng([self.seed, 2, row]),
            min_size=self.min_size,
            n_rounds=self.n_rounds,
        )


def _emulate(draws):
    """Noise-free flux of draws in the unit box."""
    return load_emulator()(LOW + draws * (HIGH - LOW))


def _coefficients(basis, draws):
    return basis.coefficients(_emulate(draws)).astype(np.float64)


def _check_spectra(owner, X):
    """Return `X` as a row source or a finite array of [flux | error]."""
    source = as_source(X)
    if source is None:
        source = check_array(
            X, dtype=[np.float64, np.float32], ensure_all_finite=False, input_name="X", estimator=owner
        )
        require_finite(owner, "X", source)
    if source.shape[1] != 2 * len(WAVE):
        raise ValueError(
            f"{owner}.X has {source.shape[1]:,} columns and must have {2 * len(WAVE):,}, [flux | error] of the "
            "simulator's own pixels: the limit is known for its spectra alone. Try make_spectra(2000).X."
        )
    return source


def _smallest_errors(owner, X, n_jobs):
    """Smallest error of every pixel in any row; all must be above zero."""
    smallest = np.full(len(WAVE), np.inf)
    for first, block in iter_blocks(owner, X, n_jobs=n_jobs):
        error = np.asarray(block)[:, len(WAVE) :]
        if not error.min() > 0:
            row, pixel = np.argwhere(~(error > 0))[0]
            raise ValueError(
                f"{owner}.X has an error of {error[row, pixel]} at X[{first + row}, {len(WAVE) + pixel}]: errors must "
                "be above zero. Give a pixel that was not measured a large error."
            )
        np.minimum(smallest, error.min(axis=0), out=smallest)
    return smallest


def _warn_of_few(size, min_size):
    few = size < min_size
    if few.any():
        warnings.warn(
            f"bayes_limit: {few.sum():,} of {len(size):,} rows have fewer than min_size={min_size:g} effective draws "
            f"(fewest {size.min():.1f}, row {size.argmin()}): their std is rough. Raise n_rounds or n_samples.",
            BayesLimitWarning,
            stacklevel=3,
        )

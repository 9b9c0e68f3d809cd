"""The Bayes limit of simulated spectra: the posterior mean of log g, by sampling from the known simulator."""

import numbers
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import ArrayLike
from scipy.special import softmax
from sklearn.metrics import r2_score
from sklearn.utils import Bunch
from sklearn.utils.validation import check_consistent_length

from dualgate._validation import check_number, check_target, make_generator, require_finite
from dualgate.datasets.emulator import HIGH, LABELS, LOW, WAVE, load_emulator
from dualgate.datasets.importance import effective_size, moments, sample_posterior
from dualgate.datasets.likelihoods import TOLERANCE, ContinuumLikelihood, SpectrumBasis, log_likelihoods
from dualgate.rows import ArrayRows, as_source, one_blas_thread

_BASIS_STARS, _HELD_OUT = 1024, 512
_TILE = 512  # stars emulated together
_ROWS = 64  # rows worked on together
_GUIDES = 2048  # prior draws that guide the first proposal
_LOG_G = LABELS.index("log_g")
_PRIOR_VARIANCE = (HIGH[_LOG_G] - LOW[_LOG_G]) ** 2 / 12  # [dex^2]


class BayesLimitWarning(UserWarning):
    """The limit is less exact than requested.

    Issued when rows stay below `min_size` effective draws, or when errors are so small that the projection loses part
    of a spectrum. More rounds or draws, or a smaller `min_size`, remove the first cause; the second means that the
    errors are far below those of the simulator. To silence it: `warnings.simplefilter("ignore", BayesLimitWarning)`.
    """


def bayes_limit(
    X: ArrayLike,
    *,
    y: ArrayLike | None = None,
    n_samples: int = 65_536,
    n_rounds: int = 48,
    min_size: float = 1000,
    continuum: float | None = None,
    random_state=None,
    n_jobs: int | None = -1,
) -> Bunch:
    r"""Compute the best R^2 of log g that any regressor can reach on rows of simulated spectra.

    The simulator draws T_eff, log g, [M/H], [alpha/M] and [C/M] uniformly, and the flux of a row is the emulator's
    spectrum plus Gaussian noise with the row's own errors. So the posterior mean

    .. math:: \hat y = \frac{\int y(\theta) L(\theta) d\theta}{\int L(\theta) d\theta}, \quad
        -2 \ln L(\theta) = \sum_p (x_p - m_p(\theta))^2 / e_p^2

    can be computed, and it has the smallest expected squared error. The integrals use importance sampling in two
    stages. Draws of the prior, emulated once, are shared by all rows; a row for which their effective number is below
    `min_size` gets new draws, round by round, from kernels at the draws of largest likelihood (adaptive multiple
    importance sampling). Spectra are compared in as many principal components as keep chi^2 within 0.01 of its value in
    pixels.

    The error vector is a condition of the observation here, not evidence about the star. Because of photon noise it
    contains the noise-free spectrum, so that a regressor that predicts log g from the errors can exceed this limit.

    Parameters
    ----------
    X : array-like or RowSource of shape (n_rows, 8192)
        [flux | error] as from :func:`make_spectra`: in units of the star's mean noise-free flux, at noise level 1, so
        that the error is the standard deviation of the noise in the flux. Errors are above zero.
    y : array-like of shape (n_rows,), default=None, [dex]
        True log g, for `r2_observed`.
    n_samples : int, default=65536
        Draws of the prior, at least 100.
    n_rounds : int, default=48
        Largest number of rounds, of 512 new draws each, for a row; 0 uses the draws of the prior only.
    min_size : float, default=1000
        Effective number of draws at which sampling of a row stops, at least 2. The sampling error lowers `r2_observed`
        by 1 / min_size of the unexplained variance.
    continuum : float or None, default=None
        Width of an uncertain continuum, above 0 and at most 1: the limit is that of spectra times 1 + sum_j c_j P_j(u),
        with Legendre polynomials of degree 0 to 3 in the position u, -1 to 1, of a pixel in the band, and unknown
        c_j ~ N(0, continuum^2), as ``make_spectra(faults={"continuum": ...})`` makes them. The c_j are integrated out
        exactly. None takes the continuum as known.
    random_state : int, RandomState, Generator or None, default=None
        Seed of the draws.
    n_jobs : int or None, default=-1
        Threads; -1 is one per core. The result does not depend on it.

    Returns
    -------
    limit : Bunch
        prediction, std : ndarray of shape (n_rows,), [dex]
            Posterior mean of log g, which has the smallest mean squared error, and posterior standard deviation.
        effective_sample_size : ndarray of shape (n_rows,)
            Kish's number of draws behind each of them, (sum w)^2 / sum w^2.
        r2 : float
            Expected R^2 of `prediction`: 1 - mean posterior variance / prior variance. It does not use `y`.
        r2_observed : float or None
            R^2 of `prediction` on the given `y`.

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
    check_number("bayes_limit", "n_samples", n_samples, kind=numbers.Integral, low=100, hint="try 65536.")
    check_number("bayes_limit", "n_rounds", n_rounds, kind=numbers.Integral, low=0, hint="try 48.")
    check_number("bayes_limit", "min_size", min_size, low=2, hint="try 1000.")
    if continuum is not None:
        check_number("bayes_limit", "continuum", continuum, low=0, high=1, strict=True, hint="try 0.05, or None.")
    source = _open_spectra(X)
    if y is not None:
        y = check_target("bayes_limit", y)
        check_consistent_length(source, y)
    seed = int(make_generator("bayes_limit", random_state).integers(2**63))
    threads = Parallel(n_jobs=n_jobs, require="sharedmem")
    ranges = [(start, min(start + _ROWS, len(source))) for start in range(0, len(source), _ROWS)]
    with one_blas_thread():  # and blocks of fixed size: no bit depends on n_jobs
        smallest = np.min(threads(delayed(_smallest_errors)(source, *rows) for rows in ranges), axis=0)
        stars = _emulate(np.random.default_rng([seed, 0]).random((_BASIS_STARS + _HELD_OUT, len(LABELS))))
        basis = SpectrumBasis.from_spectra(*np.split(stars, [_BASIS_STARS]), smallest)
        if basis.lost > TOLERANCE:
            warnings.warn(
                f"bayes_limit.X has errors so small that {basis.directions.shape[1]} components lose {basis.lost:.3g} "
                f"of chi^2 of a spectrum, more than {TOLERANCE}: posteriors of rows with little noise are too wide. "
                "Use errors like those of make_spectra.",
                BayesLimitWarning,
                stacklevel=2,
            )
        draws = np.random.default_rng([seed, 1]).random((n_samples, len(LABELS)))
        tiles = (draws[start : start + _TILE] for start in range(0, n_samples, _TILE))
        project = delayed(lambda tile: basis.coefficients(_emulate(tile)))
        coefficients = np.hstack(threads(project(tile) for tile in tiles))
        likelihood = basis.statistics, log_likelihoods
        if continuum is not None:
            marginal = ContinuumLikelihood(basis, float(continuum))
            likelihood = marginal.statistics, marginal.log_likelihoods
        sampler = _Sampler(basis, *likelihood, draws, coefficients, seed, n_rounds, min_size)
        parts = threads(delayed(sampler)(source, *rows) for rows in ranges)
    prediction, std, size = np.concatenate(parts, axis=1)
    few = np.sum(size < min_size)
    if few:
        warnings.warn(
            f"bayes_limit: {few:,} of {len(size):,} rows have fewer than min_size={min_size:g} effective draws (fewest "
            f"{size.min():.1f}, row {size.argmin()}): their std is inaccurate. Raise n_rounds or n_samples.",
            BayesLimitWarning,
            stacklevel=2,
        )
    return Bunch(
        prediction=prediction,
        std=std,
        effective_sample_size=size,
        r2=float(1 - np.mean(std**2) / _PRIOR_VARIANCE),
        r2_observed=None if y is None else float(r2_score(y, prediction)),
    )


def _open_spectra(X):
    """Return `X`, [flux | error] of the pixels of the simulator, as a row source."""
    source = as_source(X)
    source = ArrayRows(np.asarray(X)) if source is None else source
    if source.shape[1] != 2 * len(WAVE):
        raise ValueError(
            f"bayes_limit.X has {source.shape[1]:,} columns and must have {2 * len(WAVE):,}, [flux | error] of the "
            "pixels of make_spectra: the limit exists for simulated spectra only. Try make_spectra(2000).X."
        )
    return source


def _smallest_errors(source, start, stop):
    """Smallest error of every pixel in a block of rows, which must be finite and have errors above zero."""
    rows = source.read(start, stop)
    require_finite("bayes_limit", "X", rows, first_row=start)
    error = rows[:, len(WAVE) :]
    if not error.min() > 0:
        row, pixel = np.argwhere(~(error > 0))[0]
        raise ValueError(
            f"bayes_limit.X has an error of {error[row, pixel]} at X[{start + row}, {len(WAVE) + pixel}]: errors must "
            "be above zero. Give a pixel that was not measured a large error."
        )
    return error.min(axis=0)


@dataclass(frozen=True, eq=False)
class _Sampler:
    """Posterior moments of rows: basis, draws of the prior and their coefficients, shared by all threads."""

    basis: SpectrumBasis
    statistics: Callable  # (flux, error) -> arrays that replace the pixels, one element a row
    likelihood: Callable  # (*statistics, coefficients) -> log-likelihoods (n_rows, n_stars)
    draws: np.ndarray  # (n_samples, 5), in the unit box
    coefficients: np.ndarray  # (n_components, n_samples)
    seed: int
    n_rounds: int
    min_size: float

    def __call__(self, source, start, stop):
        """Posterior mean, standard deviation and effective size (3, n_rows) of the rows from `start` to `stop`."""
        statistics = self.statistics(*np.hsplit(source.read(start, stop), 2))
        results = np.empty((3, stop - start))
        for row, known in enumerate(self.likelihood(*statistics, self.coefficients)):
            draws, weights = self.draws, softmax(known)
            if self.n_rounds and effective_size(weights) < self.min_size:
                draws, weights = self._refine(start + row, [part[row : row + 1] for part in statistics], known)
            log_g = LOW[_LOG_G] + draws[:, _LOG_G] * (HIGH - LOW)[_LOG_G]
            results[:, row] = *moments(weights, log_g), effective_size(weights)
        return results

    def _refine(self, row, statistics, known):
        def log_likelihood(draws):
            return self.likelihood(*statistics, self.basis.coefficients(_emulate(draws)))[0]

        guides = np.argsort(-known, kind="stable")[:_GUIDES]
        rng = np.random.default_rng([self.seed, 2, row])
        options = {"min_size": self.min_size, "n_rounds": self.n_rounds}
        return sample_posterior(log_likelihood, self.draws[guides], known[guides], rng, **options)


def _emulate(draws):
    """Noise-free flux of draws in the unit box."""
    return load_emulator()(LOW + draws * (HIGH - LOW))

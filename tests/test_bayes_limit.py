"""The Bayes limit: posteriors that are calibrated, agree with brute force, and know when they are rough."""

import warnings

import numpy as np
import pytest
from numpy.polynomial.hermite_e import hermegauss
from numpy.polynomial.legendre import legvander
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.metrics import r2_score

from dualgate.datasets import BayesLimitWarning, bayes_limit, importance, make_spectra, stream_spectra
from dualgate.datasets.emulator import HIGH, LOW, load_emulator
from dualgate.datasets.importance import KernelProposal, effective_size, moments, sample_posterior
from dualgate.datasets.likelihoods import TOLERANCE, ContinuumLikelihood, SpectrumBasis, log_likelihoods
from dualgate.evaluation import bootstrap_scores

PRIOR_STD = np.sqrt(16 / 12)


@pytest.fixture(scope="module")
def rows():
    """Stars of the prior under errors of other stars, which so tell nothing of them."""
    stars = make_spectra(100, random_state=5, noise_level=0)
    error = np.roll(stars.error, 1, axis=0)
    noise = np.random.default_rng(0).standard_normal(error.shape)
    return np.hstack([stars.flux + error * noise, error]).astype(np.float32), stars.y


@pytest.fixture(scope="module")
def limit(rows):
    X, y = rows
    return bayes_limit(X, y=y, n_samples=4000, min_size=100, random_state=0, n_jobs=1)


def test_posteriors_are_calibrated_and_expected_and_observed_r2_agree(rows, limit):
    y, squares = rows[1], ((rows[1] - limit.prediction) / limit.std) ** 2
    standardised = (y - limit.prediction) / limit.std
    assert abs(standardised.mean()) < 3 * standardised.std() / np.sqrt(len(y))
    assert abs(squares.mean() - 1) < 3 * squares.std() / np.sqrt(len(y))
    assert limit.r2 == pytest.approx(1 - np.mean(limit.std**2) / PRIOR_STD**2)
    assert limit.r2_observed == pytest.approx(r2_score(y, limit.prediction))
    scatter = bootstrap_scores(y, {"limit": limit.prediction}, random_state=0).draws["r2"].std()
    assert abs(limit.r2 - limit.r2_observed) < 3 * scatter
    assert limit.effective_sample_size.min() >= 100


def test_two_stages_agree_with_very_many_draws_of_the_prior():
    data = make_spectra(60, random_state=5)
    noisy = data.X[np.argsort(data.snr)[10:12]]
    brute = bayes_limit(noisy, n_samples=30_000, n_rounds=0, min_size=300, random_state=1, n_jobs=1)
    staged = bayes_limit(noisy, n_samples=500, min_size=1500, random_state=2, n_jobs=1)
    scatter = brute.std * np.sqrt(1 / brute.effective_sample_size + 1 / staged.effective_sample_size)
    assert (np.abs(brute.prediction - staged.prediction) < 4 * scatter).all()
    assert_allclose(brute.std, staged.std, rtol=0.15)


@pytest.mark.parametrize(("factor", "low", "high"), [(1e3, -0.01, 0.01), (0.3, 0.85, 1.0)])
def test_noise_decides_what_can_be_known(factor, low, high):
    data = make_spectra(12, random_state=6)
    clean = make_spectra(12, random_state=6, noise_level=0).flux
    error = data.error * factor
    X = np.hstack([clean + factor * (data.flux - clean), error])
    limit = bayes_limit(X, y=data.y, n_samples=4000, min_size=100, random_state=0, n_jobs=1)
    assert low <= limit.r2 <= high
    if factor > 1:  # the posterior is the prior
        assert_allclose(limit.prediction, 3, atol=0.1)
        assert_allclose(limit.std, PRIOR_STD, rtol=0.02)
    else:
        assert limit.r2_observed > low


@pytest.mark.filterwarnings("ignore::dualgate.datasets.BayesLimitWarning")  # of the second warning
def test_few_draws_and_errors_below_the_projection_are_warned_of(rows):
    X = rows[0][:20]
    with pytest.warns(BayesLimitWarning, match="of 20 rows have fewer than min_size=100"):
        rough = bayes_limit(X, n_samples=200, n_rounds=0, min_size=100, random_state=0, n_jobs=1)
    assert np.median(rough.effective_sample_size) < 50
    assert (rough.effective_sample_size >= 1).all()
    assert rough.r2_observed is None
    tiny = np.hstack([X[:2, :4096], np.full((2, 4096), np.float32(1e-5))])
    with pytest.warns(BayesLimitWarning, match="errors so small that 192 components lose"):
        bayes_limit(tiny, n_samples=100, n_rounds=0, min_size=2, random_state=0, n_jobs=1)


def test_numbers_depend_on_the_seed_but_not_on_threads_or_storage(monkeypatch):
    monkeypatch.setattr(importance, "ROUND_DRAWS", 64)
    source = stream_spectra(70, random_state=3).X

    def numbers(X, seed, n_jobs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BayesLimitWarning)
            limit = bayes_limit(X, n_samples=600, n_rounds=1, random_state=seed, n_jobs=n_jobs)
        return np.stack([limit.prediction, limit.std, limit.effective_sample_size])

    one = numbers(np.asarray(source), 0, 1)
    assert_array_equal(one, numbers(source, 0, 2))
    assert (one[0] != numbers(source[:5], 1, 1)[0, 0]).all()
    twice = numbers(np.asarray(source)[[0, 0]], 0, 1)[0]
    assert twice[0] != twice[1]  # rows have draws of their own


def test_projection_keeps_the_likelihood():
    data = make_spectra(6, random_state=8)
    stars = load_emulator()(LOW + np.random.default_rng(0).random((900, 5)) * (HIGH - LOW))
    basis = SpectrumBasis.from_spectra(stars[:700], stars[700:800], data.error.min(axis=0))
    gram, moment = basis.statistics(data.flux, data.error)
    coefficients = basis.coefficients(stars[800:])
    weighed = (data.flux[:, None].astype(float) - stars[800:]) / data.error[:, None]
    exact = -0.5 * np.einsum("ijk,ijk->ij", weighed, weighed)
    found = log_likelihoods(gram, moment, coefficients)
    difference = found - exact
    difference -= np.median(difference, axis=1, keepdims=True)
    assert basis.lost <= TOLERANCE
    # chi^2 loses 2 r' E^-1 (x - m) at most, of variance 4 r' E^-1 r: half of it is the log-likelihood
    assert np.sqrt(np.mean(difference**2)) < 2 * np.sqrt(TOLERANCE)


def test_an_uncertain_continuum_is_integrated_out():
    """Against a grid in the four coefficients, pixel by pixel."""
    width, data = 0.05, make_spectra(3, random_state=8, faults={"continuum": 0.05})
    error = 12 * data.error  # so that the grid, which follows the prior, resolves the likelihood
    stars = load_emulator()(LOW + np.random.default_rng(0).random((305, 5)) * (HIGH - LOW))
    basis = SpectrumBasis.from_spectra(stars[:200], stars[200:300], data.error.min(axis=0))
    coefficients = basis.coefficients(stars[300:])
    models = basis.mean + coefficients.T @ (basis.directions / basis.weight[:, None]).T
    marginal = ContinuumLikelihood(basis, width)
    found = marginal.log_likelihoods(*marginal.statistics(data.flux, error), coefficients)
    nodes, weights = hermegauss(16)
    grid = width * np.stack(np.meshgrid(*[nodes] * 4), axis=-1).reshape(-1, 4)
    share = np.log(np.prod(np.meshgrid(*[weights] * 4), axis=0)).ravel()
    response = legvander(np.linspace(-1, 1, 4096), 3)
    exact = np.empty_like(found)
    for row, star in np.ndindex(exact.shape):
        templates = models[star][:, None] * response / error[row][:, None]
        residual = (data.flux[row] - models[star]) / error[row]
        chi2 = residual @ residual - 2 * grid @ (templates.T @ residual)
        chi2 += np.einsum("ij,jk,ik->i", grid, templates.T @ templates, grid)
        exact[row, star] = logsumexp(share - chi2 / 2)
    difference = found - exact
    assert_allclose(difference, np.broadcast_to(difference[:, :1], difference.shape), atol=0.01)
    narrow = ContinuumLikelihood(basis, 1e-7)
    plain = log_likelihoods(*basis.statistics(data.flux, error), coefficients)
    difference = narrow.log_likelihoods(*narrow.statistics(data.flux, error), coefficients) - plain
    assert_allclose(difference, np.broadcast_to(difference[:, :1], difference.shape), atol=1e-3)
    assert_allclose(  # rows alone as with many others
        marginal.log_likelihoods(
            *marginal.statistics(np.tile(data.flux, (4, 1)), np.tile(error, (4, 1))), coefficients
        ),
        np.tile(found, (4, 1)),
        rtol=1e-8,
    )


def test_an_uncertain_continuum_lowers_the_limit_and_posteriors_stay_calibrated():
    options = {"n_samples": 3000, "min_size": 60, "random_state": 0, "n_jobs": 1}
    known = bayes_limit(make_spectra(60, random_state=9).X, **options)
    data = make_spectra(60, random_state=9, faults={"continuum": 0.05})
    uncertain = bayes_limit(data.X, y=data.y, continuum=0.05, **options)
    assert uncertain.r2 < known.r2 - 0.05
    squares = ((data.y - uncertain.prediction) / uncertain.std) ** 2
    assert abs(squares.mean() - 1) < 3 * squares.std() / np.sqrt(len(squares))


def test_sampling_finds_a_posterior_of_two_narrow_peaks_one_at_a_wall():
    centres, width, share = (0.0, 0.6), 0.05, 0.25

    def log_likelihood(draws):
        first, second = (norm.logpdf(draws[:, 0], centre, width) for centre in centres)
        rest = norm.logpdf(draws[:, 1:], 0.5, 0.1).sum(axis=1)
        # half of the peak at the wall lies outside
        return np.logaddexp(np.log(2 * share) + first, np.log(1 - share) + second) + rest

    rng = np.random.default_rng(0)
    start = rng.random((3000, 5))
    draws, weights = sample_posterior(log_likelihood, start, log_likelihood(start), rng, min_size=2000, n_rounds=60)
    assert effective_size(weights) >= 2000
    scatter = 1 / np.sqrt(effective_size(weights))
    assert weights[draws[:, 0] < 0.3].sum() == pytest.approx(share, abs=4 * 0.43 * scatter)
    mean, std = moments(weights, draws[:, 1])
    assert mean == pytest.approx(0.5, abs=4 * 0.1 * scatter)
    assert std == pytest.approx(0.1, rel=4 * scatter)


def test_density_of_a_proposal_is_that_of_its_draws():
    rng = np.random.default_rng(1)
    cloud = 0.5 + 0.05 * rng.standard_normal((500, 2))
    proposal = KernelProposal.from_weighted(cloud, np.full(500, 1 / 500), rng)
    draws = proposal.draw(100_000, rng)
    cell = (np.abs(draws - 0.5) < 0.05).all(axis=1)
    grid = np.linspace(0.4525, 0.5475, 20)
    grid = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    assert cell.mean() == pytest.approx(0.01 * proposal.density(grid).mean(), rel=0.03)


def test_moments_are_unbiased_for_few_draws():
    values = np.random.default_rng(2).standard_normal((4000, 4))
    squares = [moments(np.array([0.4, 0.3, 0.2, 0.1]), each)[1] ** 2 for each in values]
    assert np.mean(squares) == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": np.ones((3, 10))}, "bayes_limit.X has 10 columns and must have 8,192"),
        ({"X": np.zeros((3, 8192))}, r"bayes_limit.X has an error of 0.0 at X\[0, 4096\]"),
        ({"X": np.full((3, 8192), np.nan)}, "Input X of bayes_limit contains NaN"),
        ({"y": [1.0, 2.0]}, "inconsistent numbers of samples"),
        ({"n_samples": 10}, "bayes_limit.n_samples=10"),
        ({"n_rounds": -1}, "bayes_limit.n_rounds=-1"),
        ({"min_size": 1}, "bayes_limit.min_size=1"),
        ({"continuum": 0}, "bayes_limit.continuum=0 must be a number above 0"),
    ],
)
def test_messages_name_what_is_wrong(change, message):
    arguments = {"X": np.ones((3, 8192)), **change}
    with pytest.raises(ValueError, match=message):
        bayes_limit(arguments.pop("X"), **arguments)

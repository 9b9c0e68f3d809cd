"""Laws of mixtures of Gaussians, row by row."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import trapezoid
from scipy.special import log_softmax

from dualgate import MixtureDensity

GRID = np.linspace(-12, 12, 4001)


@pytest.fixture
def density():
    rng = np.random.default_rng(0)
    weights = log_softmax(rng.normal(size=(5, 3)), axis=1)
    return MixtureDensity(weights, 2 * rng.normal(size=(5, 3, 1)), rng.uniform(0.05, 2, size=(5, 3, 1, 1)))


@pytest.fixture
def joint():
    rng = np.random.default_rng(1)
    root = rng.normal(size=(4, 3, 2, 2))
    covariance = root @ root.swapaxes(2, 3) + 0.1 * np.eye(2)
    return MixtureDensity(log_softmax(rng.normal(size=(4, 3)), axis=1), rng.normal(size=(4, 3, 2)), covariance, False)


def test_density_integrates_to_one_with_its_mean_scatter_and_distribution(density):
    values = np.exp([density.log_density(value) for value in GRID]).T
    assert_allclose(trapezoid(values, GRID), 1, atol=1e-6)
    assert_allclose(trapezoid(values * GRID, GRID), density.mean, atol=1e-5)
    assert_allclose(trapezoid(values * (GRID - density.mean[:, None]) ** 2, GRID), density.std**2, rtol=1e-4)
    place = 2600
    assert_allclose(trapezoid(values[:, :place], GRID[:place]), density.cdf(GRID[place - 1]), atol=1e-6)


def test_crps_is_the_integral_over_the_distribution(density):
    y = np.linspace(-2, 2, 5)
    distribution = np.array([density.cdf(value) for value in GRID]).T
    expected = trapezoid((distribution - (y[:, None] <= GRID)) ** 2, GRID)
    assert_allclose(density.crps(y), expected, atol=4e-3)


def test_small_probabilities_keep_their_digits_on_both_sides(density, joint):
    y = 0.3
    assert_allclose(density.survival(y), 1 - density.cdf(y), atol=1e-14)
    for each in (density, joint):
        for probability in (1e-200, 1e-20, 0.3):
            assert_allclose(each.survival(each.quantile(probability, above=True)), probability, rtol=1e-6)
            assert_allclose(each.cdf(each.quantile(probability)), probability, rtol=1e-6)
    assert_allclose(density.quantile(0.2, above=True), density.quantile(0.8))
    assert_allclose(density.quantile([0, 1, 0, 1, 0], above=True), np.array([1, -1, 1, -1, 1]) * np.inf)


@pytest.mark.parametrize("probability", [0.001, 0.3, 0.5, 0.95])
def test_quantile_inverts_the_distribution(density, joint, probability):
    assert_allclose(density.cdf(density.quantile(probability)), probability, atol=1e-9)
    assert_allclose(joint.cdf(joint.quantile(probability)), probability, atol=1e-9)


def test_draws_have_the_moments_of_the_density(density, joint):
    draws = density.sample(40_000, random_state=0)
    assert draws.shape == (40_000, 5)
    assert_allclose(draws.mean(axis=0), density.mean, atol=5 * density.std.max() / 200)
    assert_allclose(draws.std(axis=0), density.std, rtol=0.03)
    assert_allclose((draws < 0.5).mean(axis=0), density.cdf(0.5), atol=0.015)
    several = joint.sample(40_000, random_state=0)
    assert several.shape == (40_000, 4, 2)
    means, weights = joint.means, np.exp(joint.log_weights)
    deviation = means - joint.mean[:, None]
    spread = np.einsum("nk,nkts->nts", weights, joint.covariance + deviation[..., :, None] * deviation[..., None, :])
    drawn = several - several.mean(axis=0)
    assert_allclose(np.einsum("dnt,dns->nts", drawn, drawn) / 40_000, spread, atol=0.06 * np.abs(spread).max())


def test_a_joint_density_factorises_where_targets_are_independent(density):
    twice = MixtureDensity(
        density.log_weights[:, :1] * 0,
        np.repeat(density.means[:, :1], 2, axis=2),
        density.covariance[:, :1] * np.eye(2),
        single=False,
    )
    alone = MixtureDensity(density.log_weights[:, :1] * 0, density.means[:, :1], density.covariance[:, :1])
    y = np.column_stack([np.linspace(-1, 1, 5), np.linspace(0, 3, 5)])
    assert_allclose(twice.log_density(y), alone.log_density(y[:, 0]) + alone.log_density(y[:, 1]))
    assert_allclose(twice.cdf(y)[:, 1], alone.cdf(y[:, 1]))


def test_rows_can_be_chosen_and_wrong_shapes_are_named(density):
    assert_allclose(density[2:4].mean, density.mean[2:4])
    with pytest.raises(ValueError, match=r"shape \(3,\), it must be a number or of shape \(5,\)"):
        density.cdf(np.zeros(3))
    for probability in (1.5, [0.5, 0.5, -0.1, 0.5, 0.5], np.nan):
        with pytest.raises(ValueError, match=r"quantile: probability, from .* must be between 0 and 1"):
            density.quantile(probability)


def test_a_quantile_may_have_a_probability_of_its_own_for_every_row(density, joint):
    each = np.array([0.0, 0.2, 0.5, 0.9, 1.0])
    found = density.quantile(each)
    assert_allclose(found, [density.quantile(value)[row] for row, value in enumerate(each)])
    assert found[0] == -np.inf
    assert found[-1] == np.inf
    each = np.array([[0.1, 0.8], [0.5, 0.5], [0.0, 1.0], [0.9, 0.2]])
    assert_allclose(joint.cdf(joint.quantile(each)), each, atol=1e-9)

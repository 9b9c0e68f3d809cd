"""The mathematics of the factor mixture: conditioning, expectation-maximisation, recovery."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import subspace_angles
from scipy.stats import multivariate_normal

from dualgate.experts.factor_mixture import ColumnNoise, FactorMixture, MixtureSums, first_mixture, maximise
from dualgate.features.factors import Span, n_products, split_information

P, R, Q, K, T = 12, 4, 2, 3, 2


def random_mixture(rng, n_targets=T):
    root = rng.normal(size=(K, n_targets, n_targets))
    return FactorMixture(
        np.log(rng.dirichlet(np.ones(K))),
        rng.normal(size=(K, R, Q + 1)),
        rng.normal(size=(K, Q, n_targets)),
        rng.normal(size=(K, n_targets)),
        root @ root.transpose(0, 2, 1) + 0.1 * np.eye(n_targets),
    )


def information_of(x, variances, loadings):
    """Information of rows about mean zero, pixel by pixel; an infinite variance is a masked pixel."""
    precision = np.einsum("pi,np,pj->nij", loadings, 1 / variances, loadings)
    moment = np.einsum("pi,np->ni", loadings, x / variances)
    return np.hstack([precision[:, *np.tril_indices(R)], moment])


def summed(mixture, information, y, **options):
    step = MixtureSums(mixture, y, **options)
    step.update(0, information)
    return {name: values.sum(axis=0) for name, values in step.found.items()}


def test_it_is_gaussian_conditioning_in_pixel_space():
    rng = np.random.default_rng(0)
    loadings, x, y = rng.normal(size=(P, R)), 2 * rng.normal(size=(8, P)), rng.normal(size=(8, T))
    variances = np.exp(rng.normal(size=(8, P)))
    variances[3, :5] = np.inf  # masked
    mixture, information = random_mixture(rng), information_of(x, variances, loadings)
    evidence, predictions, covariance, explained = mixture.predict(information)
    density = mixture.expect(*split_information(information), False, y)[0]
    for row in range(8):
        seen = np.isfinite(variances[row])
        noise, flux, own = np.diag(variances[row, seen]), x[row, seen], loadings[seen]
        base, joint = multivariate_normal(np.zeros(len(flux)), noise).logpdf(flux), []
        for k in range(K):
            plane, centre = own @ mixture.planes[k, :, :-1], own @ mixture.planes[k, :, -1]
            spread, slope = plane @ plane.T + noise, mixture.slopes[k]
            marginal = multivariate_normal(centre, spread)
            assert_allclose(evidence[row, k], mixture.log_share[k] + marginal.logpdf(flux) - base, atol=1e-8)
            solved = np.linalg.solve(spread, np.column_stack([flux - centre, plane @ slope]))
            assert_allclose(predictions[row, k], mixture.levels[k] + (plane @ slope).T @ solved[:, 0], atol=1e-8)
            left = mixture.covariance[k] + slope.T @ slope - (plane @ slope).T @ solved[:, 1:]
            assert_allclose(covariance[row, k], left, atol=1e-8)
            assert_allclose(
                flux @ np.linalg.solve(noise, flux) - explained[row, k], (flux - centre) @ solved[:, 0], atol=1e-8
            )
            both = np.vstack([plane, slope.T])
            whole = both @ both.T
            whole[: len(flux), : len(flux)] += noise
            whole[len(flux) :, len(flux) :] += mixture.covariance[k]
            mean = np.r_[centre, mixture.levels[k]]
            joint.append(mixture.log_share[k] + multivariate_normal(mean, whole).logpdf(np.r_[flux, y[row]]))
        assert_allclose(density[row], np.logaddexp.reduce(joint) - base, atol=1e-8)


def test_factors_of_rows_are_their_posterior_moments():
    rng = np.random.default_rng(1)
    loadings, mixture, y = rng.normal(size=(P, R)), random_mixture(rng, 1), rng.normal(size=(5, 1))
    x, variances = rng.normal(size=(5, P)), np.full((5, P), 0.5)
    means, squares = mixture.factors_of(information_of(x, variances, loadings), y)
    for row in range(5):
        weights, mean, second = [], np.zeros((K, R)), np.zeros((K, R, R))
        for k in range(K):
            # z alone: prior N(m, U U'), seen through x and y, as one Gaussian over (x, y, z)
            lines = np.vstack([loadings @ mixture.planes[k, :, :-1], mixture.slopes[k].T])
            spread = lines @ lines.T + np.diag(np.r_[np.full(P, 0.5), mixture.covariance[k].ravel()])
            centre = np.r_[loadings @ mixture.planes[k, :, -1], mixture.levels[k]]
            gain = mixture.planes[k, :, :-1] @ lines.T @ np.linalg.inv(spread)
            deviation = np.r_[x[row], y[row]] - centre
            mean[k] = mixture.planes[k, :, -1] + gain @ deviation
            plane = mixture.planes[k, :, :-1]
            second[k] = plane @ plane.T - gain @ lines @ plane.T + np.outer(mean[k], mean[k])
            weights.append(mixture.log_share[k] + multivariate_normal(centre, spread).logpdf(np.r_[x[row], y[row]]))
        weights = np.exp(np.array(weights) - np.logaddexp.reduce(weights))
        assert_allclose(means[row], weights @ mean, atol=1e-8)
        assert_allclose(squares[row], np.einsum("k,kij->ij", weights, second)[np.tril_indices(R)], atol=1e-8)


@pytest.mark.parametrize("n_targets", [1, 2])
def test_no_step_makes_the_likelihood_fall(n_targets):
    rng = np.random.default_rng(2)
    loadings, truth = rng.normal(size=(P, R)), random_mixture(rng, n_targets)
    information, y, _ = draw(rng, truth, loadings, 400)
    mixture, densities = random_mixture(rng, n_targets), []
    for _ in range(40):
        sums = summed(mixture, information, y)
        densities.append(sums["log_density"])
        mixture = maximise(sums, penalty=0)
    assert np.diff(densities).min() > -1e-7 * abs(densities[-1])
    assert densities[-1] > densities[0] + 100


def draw(rng, mixture, loadings, n_rows):
    """Rows of a planted mixture, with errors that differ by a factor of ten."""
    component = rng.choice(K, size=n_rows, p=np.exp(mixture.log_share))
    t = rng.normal(size=(n_rows, mixture.shape[2]))
    z = np.einsum("nrq,nq->nr", mixture.planes[component, :, :-1], t) + mixture.planes[component, :, -1]
    noise = np.linalg.cholesky(mixture.covariance)[component]
    y = np.einsum("nqt,nq->nt", mixture.slopes[component], t) + mixture.levels[component]
    y += np.einsum("nts,ns->nt", noise, rng.normal(size=y.shape))
    variances = np.exp(2 * rng.uniform(np.log(0.1), 0, size=(n_rows, 1))) * np.ones(P)
    x = z @ loadings.T + np.sqrt(variances) * rng.normal(size=variances.shape)
    return information_of(x, variances, loadings), y, component


def test_a_planted_mixture_is_found():
    rng = np.random.default_rng(3)
    truth, loadings, n_rows = random_mixture(rng, 1), rng.normal(size=(P, R)), 20_000
    truth.planes[:, :, -1] *= 3  # apart from each other
    information, y, component = draw(rng, truth, loadings, n_rows)
    mixture = first_mixture(information, y, component, Q)
    for _ in range(60):
        mixture = maximise(summed(mixture, information, y))
    scatter = 5 / np.sqrt(n_rows * np.exp(truth.log_share))  # five standard errors of a mean of unit variance
    for k in range(K):
        assert_allclose(np.exp(mixture.log_share[k] - truth.log_share[k]), 1, atol=scatter[k])
        size = np.linalg.norm(truth.planes[k, :, :-1], axis=0).max()
        assert_allclose(mixture.planes[k, :, -1], truth.planes[k, :, -1], atol=size * scatter[k] + 0.01)
        found, planted = mixture.planes[k, :, :-1], truth.planes[k, :, :-1]
        assert subspace_angles(found, planted).max() < 0.1
        covered = found @ found.T, planted @ planted.T
        assert_allclose(*covered, atol=2 * scatter[k] * size**2 + 0.02)
        regression = found @ mixture.slopes[k], planted @ truth.slopes[k]
        assert_allclose(*regression, atol=scatter[k] * size * np.sqrt(covered[1].max() + 1) + 0.02)
        assert_allclose(mixture.covariance[k], truth.covariance[k], rtol=3 * scatter[k] + 0.02)


def test_one_component_with_a_factor_for_every_loading_is_least_squares():
    """Means and covariances are then free: the prediction of a row of typical noise is that of least squares."""
    rng = np.random.default_rng(4)
    z = rng.normal(size=(500, R)) * [1, 2, 3, 2]
    x, variance = z + 0.3 * rng.normal(size=z.shape), np.full((500, R), 0.09)
    y = z @ rng.normal(size=(R, 1)) + 0.5 * rng.normal(size=(500, 1))
    information = information_of(x, variance, np.eye(R))
    mixture = first_mixture(information, y, np.zeros(500, dtype=int), R)
    for _ in range(200):
        mixture = maximise(summed(mixture, information, y), penalty=0)
    design = np.column_stack([x, np.ones(500)])
    expected = design @ np.linalg.lstsq(design, y, rcond=None)[0]
    assert_allclose(mixture.predict(information)[1][:, 0], expected, atol=1e-6 * y.std())


def test_one_component_of_columns_is_probabilistic_principal_components():
    """Where y tells nothing, the plane is that of Tipping & Bishop 1999: eigenvectors times root(value - noise)."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(2000, 2)) @ rng.normal(size=(2, R)) * 2 + rng.normal(size=(2000, R))
    x -= x.mean(axis=0)
    y = rng.normal(size=(2000, 1))
    design = np.column_stack([x, np.ones(2000)])
    y -= design @ np.linalg.lstsq(design, y, rcond=None)[0]  # not correlated with any column
    information = information_of(x, np.ones_like(x), np.eye(R))
    mixture = first_mixture(information, y, np.zeros(2000, dtype=int), 2)
    for _ in range(400):
        mixture = maximise(summed(mixture, information, y), penalty=0)
    values, axes = np.linalg.eigh(x.T @ x / len(x))
    plane = axes[:, -2:] * np.sqrt(values[-2:] - 1)
    found = mixture.planes[0, :, :-1]
    assert_allclose(found @ found.T, plane @ plane.T, atol=1e-5)
    assert_allclose(mixture.slopes, 0, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(1, 99), max_size=4, unique=True), order=st.randoms(use_true_random=False))
def test_sums_do_not_depend_on_blocks_or_their_order(cuts, order):
    rng = np.random.default_rng(6)
    mixture, loadings = random_mixture(rng), rng.normal(size=(P, R))
    information, y, _ = draw(rng, random_mixture(rng), loadings, 100)
    whole = MixtureSums(mixture, y, n_folds=3)
    whole.update(0, information)
    edges = [0, *sorted(cuts), 100]
    parts = [whole.part(*ends) for ends in pairwise(edges)]
    for part, (start, stop) in zip(parts, pairwise(edges), strict=True):
        part.update(start, information[start:stop])
    order.shuffle(parts)
    merged = MixtureSums(mixture, y, n_folds=3)
    for part in parts:
        merged.merge(part.found)
    for name, values in whole.found.items():
        assert_allclose(merged.found[name], values, rtol=1e-9, atol=1e-9)


def test_noise_of_columns_is_found():
    rng = np.random.default_rng(7)
    loadings, noise = rng.normal(size=(8, 2)), rng.uniform(0.2, 1.0, size=8)
    t = rng.normal(size=(5000, 2))
    x = 5 + 3 * (t @ loadings.T + noise * rng.normal(size=(5000, 8)))
    y = t[:, :1] + 0.1 * rng.normal(size=(5000, 1))
    column_noise = ColumnNoise.of(x)
    mixture = None
    for _ in range(60):
        information = column_noise.information(x)
        mixture = mixture or first_mixture(information, y, np.zeros(len(y), dtype=int), 2)
        sums = summed(mixture, information, y)
        mixture = maximise(sums)
        column_noise = column_noise.updated(sums, mixture)
    expected = noise**2 / (np.square(loadings).sum(axis=1) + noise**2)
    assert_allclose(column_noise.variance, np.maximum(expected, 0.01), rtol=0.1, atol=0.005)


def test_a_span_changes_nothing_but_the_time():
    rng, width, n_factors = np.random.default_rng(1), 16, 3
    loadings, n_rows = rng.normal(size=(400, width)), 700
    patterns = 1 + rng.uniform(size=(3, 400))  # of errors: all rows follow them but every twentieth
    weights = rng.gamma(2, size=(n_rows, 3)) @ patterns
    weights[::20] *= rng.uniform(size=weights[::20].shape) < 0.8
    rows, columns = np.tril_indices(width)
    folded, x = weights @ (loadings[:, rows] * loadings[:, columns]), rng.normal(size=(n_rows, width)) @ loadings.T
    moment = (weights * x + np.sqrt(weights) * rng.normal(size=weights.shape)) @ loadings
    information, y = np.hstack([folded, moment]).astype(np.float32), rng.normal(size=(n_rows, 1))
    planes = rng.normal(size=(K, width, n_factors + 1))
    slopes, levels = rng.normal(size=(K, n_factors, 1)), rng.normal(size=(K, 1))
    mixture = FactorMixture(np.log(np.full(K, 1 / K)), planes, slopes, levels, np.ones((K, 1, 1)))
    span = Span.of(information[:, : n_products(width)])
    inside = span.coordinates(information[:, : n_products(width)])[1]
    assert not inside[::20].any()
    assert inside.sum() == n_rows - 35
    spanned, exact = replace(mixture, span=span), information.astype(np.float64)
    for found, whole, expected in zip(spanned.predict(information), mixture.predict(information),
                                      mixture.predict(exact), strict=True):  # fmt: skip
        assert_allclose(found, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())
        assert np.abs(found - expected).mean() < 3 * np.abs(whole - expected).mean() + 1e-5 * np.abs(expected).mean()
    sums, expected = summed(spanned, information, y), summed(mixture, exact, y)
    for name, values in sums.items():
        assert_allclose(values, expected[name], rtol=1e-3, atol=1e-4 * np.abs(expected[name]).max(), err_msg=name)
    again, fresh = (each.predict(exact) for each in (spanned, replace(mixture, span=span)))
    for one, other in zip(again, fresh, strict=True):  # whatever precision was asked for before
        assert_array_equal(one, other)
    assert Span.of(folded) is None  # double precision is left whole
    assert Span.of(rng.uniform(size=(700, 136)).astype(np.float32)) is None  # no pattern

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.decomposition import PCA

from dualgate.features import NoiseWhitenedPCA


def test_without_errors_it_is_principal_component_analysis():
    X = np.random.default_rng(0).normal(size=(300, 12)) @ np.random.default_rng(1).normal(size=(12, 12))
    ours, theirs = NoiseWhitenedPCA(5).fit(X), PCA(5).fit(X)
    assert_allclose(np.abs(ours.transform(X)), np.abs(theirs.transform(X)), rtol=1e-6, atol=1e-9)
    assert_allclose(ours.signal_variance_, theirs.explained_variance_ * 299 / 300, rtol=1e-9)


@pytest.mark.parametrize("n_pixels", [60, 1500])  # dense and randomised eigensolver
def test_a_planted_direction_is_found_beneath_louder_noise(n_pixels):
    rng = np.random.default_rng(2)
    direction = rng.normal(size=n_pixels)
    noise = np.where(np.arange(n_pixels) % 3 == 0, 50.0, 0.3)
    clean = rng.normal(size=(2000, 1)) * direction
    X = np.hstack([clean + noise * rng.normal(size=clean.shape), np.broadcast_to(noise, clean.shape)])
    model = NoiseWhitenedPCA(2, columns=slice(0, n_pixels), error_columns=slice(n_pixels, None)).fit(X)
    planted = direction / noise
    planted /= np.linalg.norm(planted)
    assert abs(model.components_[0] @ planted) > 0.99
    assert_allclose(model.signal_variance_[0], np.sum((direction / noise) ** 2), rtol=0.1)
    # plain PCA chases the noise instead
    assert abs(PCA(1, random_state=0).fit(X[:, :n_pixels]).components_[0] @ planted) < 0.5


def test_noise_has_unit_variance_in_every_score():
    rng = np.random.default_rng(3)
    noise = rng.uniform(0.5, 2, 30)
    X = np.hstack([noise * rng.normal(size=(5000, 30)), np.broadcast_to(noise, (5000, 30))])
    scores = NoiseWhitenedPCA(10, columns=slice(0, 30), error_columns=slice(30, 60)).fit_transform(X)
    assert_allclose(scores.std(axis=0), 1, rtol=0.1)


def test_components_are_orthonormal_and_float32_rows_stay_float32():
    X = np.random.default_rng(4).normal(size=(100, 2000)).astype(np.float32)
    model = NoiseWhitenedPCA(20).fit(X)
    assert_allclose(model.components_ @ model.components_.T, np.eye(20), atol=1e-5)
    assert model.transform(X).dtype == np.float32


@pytest.mark.parametrize("unit", [1e-21, 1e-17, 1e15])
def test_the_unit_of_flux_does_not_matter_in_single_precision(unit):
    rng = np.random.default_rng(5)
    error = rng.uniform(0.5, 2, (200, 1)) * rng.uniform(0.5, 2, 20)
    X = np.hstack([rng.normal(size=(200, 1)) * 3 + error * rng.normal(size=(200, 20)), error]).astype(np.float32)
    model = NoiseWhitenedPCA(2, columns=slice(0, 20), error_columns=slice(20, 40))
    expected = model.fit_transform(X)
    assert_allclose(model.fit_transform((X * np.float32(unit)).astype(np.float32)), expected, atol=2e-3)


def test_a_few_bad_rows_do_not_fill_the_components():
    rng = np.random.default_rng(6)
    n_pixels = 40
    direction = np.ones(n_pixels) / np.sqrt(n_pixels)
    error = np.where(np.arange(1000) < 20, 100.0, 1.0)[:, None] * np.ones(n_pixels)
    X = np.hstack([3.0 * rng.normal(size=(1000, 1)) * direction + error * rng.normal(size=error.shape), error])
    model = NoiseWhitenedPCA(1, columns=slice(0, n_pixels), error_columns=slice(n_pixels, None)).fit(X)
    assert abs(model.components_[0] @ direction) > 0.98
    assert abs(PCA(1, random_state=0).fit(X[:, :n_pixels]).components_[0] @ direction) < 0.7


def test_pure_noise_has_no_signal_variance():
    rng = np.random.default_rng(7)
    noise = rng.uniform(0.5, 2, 5)
    X = np.hstack([noise * rng.normal(size=(20_000, 5)), np.broadcast_to(noise, (20_000, 5))])
    model = NoiseWhitenedPCA(5, columns=slice(0, 5), error_columns=slice(5, 10)).fit(X)
    assert_allclose(model.signal_variance_, 0, atol=0.05)

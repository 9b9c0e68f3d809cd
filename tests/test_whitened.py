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

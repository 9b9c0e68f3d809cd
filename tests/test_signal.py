"""Components above the noise of columns without errors: their number, their units, and wherever the rows lie."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import dualgate.rows.sources
from dualgate import HierarchicalExperts
from dualgate.features import SignalPCA


def columns(n_rows=800, width=60, n_signals=4, seed=0, uneven=1.0):
    rng = np.random.default_rng(seed)
    noise = np.exp(uneven * rng.normal(size=width))
    loadings = rng.normal(size=(n_signals, width)) * noise * 0.6
    z = rng.normal(size=(n_rows, n_signals))
    return z @ loadings + noise * rng.normal(size=(n_rows, width)), z, noise


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("n_rows", "width", "high"), [(800, 60, 1.1), (300, 200, 1.2), (300, 1200, 1.2)])
def test_as_many_components_are_kept_as_there_are_signals(n_rows, width, high, seed):
    X, z, noise = columns(n_rows, width, seed=seed)
    pca = SignalPCA().fit(X)
    assert len(pca.components_) == 4
    assert 0.9 < np.median(pca.noise_ / noise) < high  # few rows: what others could predict is not all found
    fitted = z - z.mean(axis=0)
    scores = np.linalg.qr(pca.transform(X) - pca.transform(X).mean(axis=0))[0]
    assert np.linalg.norm(scores.T @ fitted) ** 2 > 0.9 * np.linalg.norm(fitted) ** 2


def test_few_rows_find_the_noise_below_a_strong_signal():
    X, _, noise = columns(400, 100, uneven=0.0)
    strong = X + 5 * np.random.default_rng(1).normal(size=(400, 1)) * np.linspace(1, 2, 100)
    pca = SignalPCA().fit(strong)
    assert_allclose(np.median(pca.noise_ / noise), 1, atol=0.1)  # shrunk by columns per row it would be 4
    assert len(pca.components_) == 5


@pytest.mark.parametrize("shape", [(500, 40), (100, 300)])
def test_pure_noise_leaves_one_component(shape):
    counts = [len(SignalPCA().fit(np.random.default_rng(seed).normal(size=shape)).components_) for seed in range(5)]
    assert counts == [1] * 5


def test_units_and_origins_of_the_columns_do_not_matter():
    X, *_ = columns()
    unit, origin = np.logspace(-8, 8, 60), np.linspace(-1e6, 1e6, 60)
    plain, other = SignalPCA().fit(X), SignalPCA().fit(X * unit + origin * unit)
    assert_allclose(np.abs(other.transform(X * unit + origin * unit)), np.abs(plain.transform(X)), rtol=1e-4, atol=1e-5)


def test_constant_columns_and_copies_are_harmless():
    X, *_ = columns()
    odd = np.column_stack([X, np.full(800, 7.0), X[:, 3]])
    pca = SignalPCA().fit(odd)
    assert np.isfinite(pca.transform(odd)).all()
    assert len(pca.components_) in (4, 5)


def test_a_file_gives_what_memory_gives(tmp_path, monkeypatch):
    X, *_ = columns(3000)
    np.save(tmp_path / "x.npy", X)
    monkeypatch.setattr(dualgate.rows.sources, "BLOCK_BYTES", 60 * 8 * 700)
    stored = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert_allclose(SignalPCA().fit(stored).transform(stored), SignalPCA().fit(X).transform(X), rtol=1e-9, atol=1e-9)


def test_coefficients_on_pixels_predict_what_those_on_components_do():
    X, *_ = columns()
    pca = SignalPCA().fit(X)
    coef = np.random.default_rng(1).normal(size=(2, len(pca.components_)))
    assert_allclose((X - pca.mean_) @ pca.to_pixels(coef).T, pca.transform(X) @ coef.T, rtol=1e-8, atol=1e-8)


def test_columns_that_share_nothing_stay_as_they_are():
    rng = np.random.default_rng(0)
    X, regimes = rng.normal(size=(3000, 80)), rng.integers(0, 2, 3000)
    y = X @ rng.normal(size=80) / 4 + 0.5 * rng.normal(size=3000)
    experts = HierarchicalExperts(random_state=0).fit(X[:2000], y[:2000], regimes=regimes[:2000])
    assert experts.projection_ is None
    assert experts.score(X[2000:], y[2000:]) > 0.9
    shared, z, _ = columns(2000, 80)
    assert len(HierarchicalExperts(random_state=0).fit(shared, z[:, 0]).projection_.components_) == 4

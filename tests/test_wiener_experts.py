"""Experts that read Wiener scores: wherever the rows lie, and whatever happens on the way."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.frozen import FrozenEstimator

import dualgate.features.factors
import dualgate.rows.sources
import dualgate.rows.store
from dualgate import DualTowerMoERegressor, HierarchicalExperts, PhysGate, QualityGate
from dualgate.datasets import make_spectra
from dualgate.features import WienerScores
from dualgate.rows import ArrayRows, cluster

FLUX, ERROR = slice(0, 20), slice(20, 40)


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    rng = np.random.default_rng(0)
    regimes, error = rng.integers(3, size=3000), np.exp(rng.uniform(-2, 0.5, size=(3000, 1))) * np.ones(20)
    factors = rng.normal(size=(3000, 4))
    true = factors @ rng.normal(size=(4, 20)) + 3
    y = np.einsum("ij,ij->i", factors, rng.normal(size=(3, 4))[regimes])
    X = np.hstack([true + error * rng.normal(size=error.shape), error])
    path = tmp_path_factory.mktemp("wiener") / "x.npy"
    np.save(path, X)
    return X, np.load(path, mmap_mode="r"), y, regimes, true


def experts(projection="wiener", **params):
    return HierarchicalExperts(FLUX, ERROR, projection=projection, n_components=4, random_state=0, **params)


def wiener(**params):
    return WienerScores(4, columns=FLUX, error_columns=ERROR, **params)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(dualgate.rows.sources, "BLOCK_BYTES", 40 * 8 * 600)
    monkeypatch.setattr(dualgate.rows.sources, "_THREAD_ROWS", 200)
    monkeypatch.setattr(dualgate.rows.store, "EVERY_BLOCKS", 1)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_file_gives_what_memory_gives(problem, small_blocks, n_jobs):
    X, stored, y, regimes, _ = problem
    here = experts().fit(X, y, regimes=regimes)
    there = experts(n_jobs=n_jobs).fit(stored, y, regimes=regimes)
    assert_allclose(there.coef_, here.coef_, rtol=1e-5, atol=1e-7)
    assert_allclose(there.predict_each(stored), here.predict_each(X), rtol=1e-5, atol=1e-6)


def test_experts_read_what_the_scores_say(problem):
    """Trained on training scores and applied to scores, of the same loadings that a fit of its own finds."""
    X, _, y, regimes, _ = problem
    model = experts("wiener", sharing="independent", alphas=[1.0]).fit(X, y, regimes=regimes)
    alone = wiener(supervised=True).fit(X, y, regimes=regimes)
    assert_allclose(model.projection_.loadings_, alone.loadings_, rtol=1e-7)
    training, scores = wiener(supervised=True).fit_transform(X, y, regimes=regimes), alone.transform(X)
    for regime in range(3):
        rows = regimes == regime
        centred = training[rows] - training[rows].mean(axis=0)
        coef = np.linalg.solve(centred.T @ centred + np.eye(centred.shape[1]), centred.T @ (y - y.mean())[rows])
        assert_allclose(model.coef_[regime], coef, rtol=1e-6)
        expected = y[rows].mean() + (scores - training[rows].mean(axis=0)) @ coef
        assert_allclose(model.predict_each(X)[:, regime], expected, rtol=1e-6, atol=1e-8)


def test_a_fit_killed_among_the_factor_steps_goes_on(problem, small_blocks, tmp_path, monkeypatch):
    X, _, y, regimes, _ = problem
    expected = experts().fit(ArrayRows(X), y, regimes=regimes)
    source, blocks, sums = ArrayRows(X), [], []
    run, limit = dualgate.features.factors.FactorSums.update, [27]  # the third block of the sixth step

    def update(self, start, block):
        blocks.append(start)
        if len(blocks) > limit[0]:
            raise KeyboardInterrupt
        sums.append(start)
        run(self, start, block)

    monkeypatch.setattr(dualgate.features.factors.FactorSums, "update", update)
    with pytest.raises(KeyboardInterrupt):
        experts().fit(source, y, regimes=regimes, checkpoint=tmp_path / "fit")
    assert sums[-2:] == [0, 600]
    limit[0], n_before = 10**6, len(sums)
    model = experts().fit(source, y, regimes=regimes, checkpoint=tmp_path / "fit")
    assert sums[n_before] == 1200  # neither earlier steps nor earlier blocks of this one
    assert len(sums) == 10 * 5
    assert_array_equal(model.coef_, expected.coef_)
    assert_array_equal(model.projection_.loadings_, expected.projection_.loadings_)


def test_scores_that_were_fitted_before_stay_as_they_are(problem, small_blocks):
    X, stored, y, regimes, true = problem
    fitted = wiener().fit(X, clean=true)
    loadings = fitted.loadings_.copy()
    model = experts(FrozenEstimator(fitted)).fit(stored, y, regimes=regimes)
    assert_array_equal(model.projection_.loadings_, loadings)
    assert_allclose(model.coef_, experts(FrozenEstimator(fitted)).fit(X, y, regimes=regimes).coef_, rtol=1e-6)
    parts = experts(FrozenEstimator(fitted))
    for rows in (slice(0, 1000), slice(1000, 3000)):
        parts.partial_fit(X[rows], y[rows], regimes=regimes[rows], n_regimes=3)
    assert parts.cell_counts_.sum() == 3000


def test_neither_the_unit_nor_the_precision_of_spectra_matters():
    data = make_spectra(700, random_state=0)
    X = data.X.reshape(700, 2, -1)[:, :, ::8].reshape(700, -1).astype(np.float64)  # [flux | error] on a coarser grid
    options = {"max_epochs": 3, "experts__quality_edges": (2, 4), "experts__projection__max_iter": 3}
    model = DualTowerMoERegressor.for_spectra(data.wave[::8], experts="hierarchical", random_state=0, **options)
    expected = model.fit(X[:500], data.y[:500], regimes=data.regimes[:500]).predict(X[500:])
    for rows in (X.astype(np.float32), X * 1e-17, (X * 1e-17).astype(np.float32)):
        found = model.fit(rows[:500], data.y[:500], regimes=data.regimes[:500]).predict(rows[500:])
        assert_allclose(found, expected, rtol=0, atol=1e-3)


@pytest.mark.loopback
def test_a_cluster_finds_the_same_factors(problem):
    dask_distributed = pytest.importorskip("distributed")
    _, stored, y, regimes, _ = problem
    here = experts(wiener(supervised=True, max_iter=3)).fit(stored, y, regimes=regimes)
    options = {"dashboard_address": ":0", "memory_limit": 0, "silence_logs": "CRITICAL", "processes": False}
    with (
        dask_distributed.LocalCluster(n_workers=2, threads_per_worker=1, **options) as workers,
        dask_distributed.Client(workers) as client,
        cluster.use(client, chunk_rows=700),
    ):
        there = experts(wiener(supervised=True, max_iter=3)).fit(stored, y, regimes=regimes)
    assert_allclose(there.projection_.loadings_, here.projection_.loadings_, rtol=1e-6, atol=1e-8)
    assert_allclose(there.coef_, here.coef_, rtol=1e-5, atol=1e-7)


def test_variances_that_nobody_knows_cannot_be_read(problem):
    X, _, y, regimes, _ = problem
    for projection in ("whitened", None):
        model = DualTowerMoERegressor(
            PhysGate(FLUX), QualityGate(ERROR, score_variances=True), experts=experts(projection), max_epochs=1
        )
        with pytest.raises(ValueError, match=r"QualityGate\.score_variances=True, but the projection"):
            model.fit(X, y, regimes=regimes)


def test_a_frame_of_integers_is_read_as_floats():
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    z = rng.normal(size=(400, 2))
    flux = np.round(100 * (z @ rng.normal(size=(2, 10))) + 20 * rng.normal(size=(400, 10))).astype(int)
    frame = pd.DataFrame(np.hstack([flux, np.full((400, 10), 20)]), columns=[f"c{i}" for i in range(20)])
    experts = HierarchicalExperts(slice(0, 10), slice(10, 20), projection="wiener", n_components=2, random_state=0)
    whole, real = experts.fit(frame, z[:, 0]).coef_, experts.fit(frame.astype(float), z[:, 0]).coef_
    assert np.abs(real).max() > 0.1
    np.testing.assert_allclose(whole, real)


def test_scores_that_read_errors_need_error_columns():
    X, y = np.random.default_rng(0).normal(size=(50, 12)), np.arange(50.0)
    scores = WienerScores(2, columns=slice(0, 6), error_columns=slice(6, 12))
    with pytest.raises(ValueError, match=r"(?s)HierarchicalExperts\.projection.*needs error_columns, which is None"):
        HierarchicalExperts(projection=scores).fit(X, y)


def test_frozen_scores_must_know_the_columns_they_are_given():
    rng = np.random.default_rng(0)
    X = np.hstack([rng.normal(size=(50, 3)), rng.normal(size=(50, 6)), np.ones((50, 6))])
    flux, error = slice(3, 9), slice(9, 15)
    scores = WienerScores(2, columns=flux, error_columns=error, max_iter=1).fit(X)
    with pytest.raises(ValueError, match=r"projection was fitted to 15 columns"):
        HierarchicalExperts(flux, error, projection=FrozenEstimator(scores)).fit(X, X[:, 3])

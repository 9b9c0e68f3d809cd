"""Threads and processes that predict, fit, and share a checkpoint find what one finds alone, bit for bit."""

import pickle
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from threading import Barrier

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone
from threadpoolctl import threadpool_info

import golden_models
from dualgate import DualTowerMoERegressor, HierarchicalExperts, PhysGate, QualityGate
from dualgate.features import Nuisances, WienerScores
from dualgate.rows import FitStages, Pass, RowSource, Store, sources, store
from dualgate.rows.sources import one_blas_thread

FLUX, ERROR = golden_models.FLUX, golden_models.ERROR
pytestmark = pytest.mark.filterwarnings("ignore::dualgate.experts.ExtrapolationWarning")


def spectral(**nuisances):
    read = {"columns": FLUX, "error_columns": ERROR, "supervised": True}
    free = Nuisances(scale=0.1, robust=True, free_errors=True, **nuisances)
    experts = golden_models.MODELS["factor mixture"]().experts
    return DualTowerMoERegressor(
        "drop", "drop", experts=experts.set_params(projection=WienerScores(3, nuisances=free, **read)), random_state=0
    )


def towers():
    experts = HierarchicalExperts(FLUX, ERROR, projection="wiener", n_components=4, quality_edges=(10.0,))
    gates = PhysGate(FLUX), QualityGate(ERROR, score_variances=True)
    return DualTowerMoERegressor(*gates, experts=experts, max_epochs=2, random_state=0)


MODELS = {
    "factor mixture": golden_models.MODELS["factor mixture"],
    "robust, moving": lambda: spectral(wave=np.linspace(8400, 8500, golden_models.P), velocity=350),
    "dual tower": towers,
}


@pytest.fixture(scope="module")
def rows():
    return golden_models.rows()


@pytest.fixture(scope="module")
def fitted(rows):
    return {name: make().fit(rows["X"], rows["y"], regimes=rows["regimes"]) for name, make in MODELS.items()}


def answers(model, X):
    found = [*model.predict(X, return_std=True), model.predict_interval(X, 0.8), model.predict_weights(X)]
    return found + ([model.novelty(X), model.score_samples(X)] if hasattr(model, "novelty") else [])


def refit(name, rows):
    return answers(MODELS[name]().fit(rows["X"], rows["y"], regimes=rows["regimes"]), rows["X_new"])


@pytest.mark.parametrize("name", MODELS)
def test_eight_threads_predict_what_one_does(name, fitted, rows):
    X = rows["X_new"].copy()
    if name != "dual tower":
        X[3, 2:5], X[4, golden_models.P + 1] = np.nan, np.inf
    expected = answers(fitted[name], X)
    fresh, together = pickle.loads(pickle.dumps(fitted[name])), Barrier(8)  # nothing is made ahead of its first use

    def ask(_):
        together.wait()
        return answers(fresh, X)

    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(ask, range(8)):
            for one, other in zip(found, expected, strict=True):
                assert_array_equal(one, other)


def test_four_threads_fit_what_one_does(fitted, rows):
    together = Barrier(4)

    def fit(name):
        together.wait()
        return refit(name, rows)

    names = [*MODELS, "dual tower"]
    with ThreadPoolExecutor(4) as pool:
        for name, found in zip(names, pool.map(fit, names), strict=True):
            for one, other in zip(found, answers(fitted[name], rows["X_new"]), strict=True):
                assert_array_equal(one, other)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems start processes anew, which takes seconds each")
def test_four_processes_fit_what_one_does(fitted, rows):
    names = [*MODELS, "dual tower"]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        with ProcessPoolExecutor(4, mp_context=get_context("fork")) as pool:
            results = list(pool.map(refit, names, [rows] * 4))
    for name, found in zip(names, results, strict=True):
        for one, other in zip(found, answers(fitted[name], rows["X_new"]), strict=True):
            assert_array_equal(one, other)


def test_blas_has_its_threads_again_when_the_last_has_left():
    def n_threads():
        return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]

    before, entered, left = n_threads(), Barrier(2), Barrier(2)

    def work(first):
        with one_blas_thread():
            entered.wait()
            assert set(n_threads()) == {1}
            if first:
                left.wait()
        if not first:
            assert set(n_threads()) == {1}  # the other is still inside
            left.wait()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, (True, False)))
    assert n_threads() == before


# ---- one checkpoint --------------------------------------------------------------------------------------------------


class Rows(RowSource):
    """Rows of an array that are read block by block, as from a disk."""

    def __init__(self, X):
        self.X, self.shape, self.dtype = X, X.shape, X.dtype

    def read(self, start, stop):
        return self.X[start:stop].copy()


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(sources, "BLOCK_BYTES", 4 * 8 * 32)
    monkeypatch.setattr(sources, "_THREAD_ROWS", 32)
    monkeypatch.setattr(store, "EVERY_BLOCKS", 1)


def test_fits_that_share_a_checkpoint_find_what_one_finds(small_blocks, tmp_path):
    rng = np.random.default_rng(0)
    X, y = np.exp(rng.normal(size=(400, 4))), rng.normal(size=400)
    model = HierarchicalExperts([0, 1], [2, 3], quality_edges="quantile", random_state=0)
    expected = clone(model).fit(Rows(X), y)
    for turn in range(3):
        together = Barrier(4)

        def fit(_, together=together, turn=turn):
            together.wait()
            return clone(model).fit(Rows(X), y, checkpoint=tmp_path / str(turn))

        with ThreadPoolExecutor(4) as pool:
            for found in pool.map(fit, range(4)):
                assert_array_equal(found.coef_, expected.coef_)
        assert not list(tmp_path.rglob("*.part"))


class Sums(Pass):
    def update(self, start, block):
        self.found = self.found + block.sum(axis=0)


def test_what_another_process_writes_meanwhile_is_not_mixed_with_what_was_there(small_blocks, tmp_path, monkeypatch):
    """The other process reads on between the moment where this one opens its file and where it has taken it in."""
    X = np.random.default_rng(0).normal(size=(320, 4))

    class Stops(Rows):
        def read(self, start, stop):
            if start == self.stops:
                raise OSError("gone")
            return super().read(start, stop)

    source = Stops(X)

    def run():
        return FitStages(Store(tmp_path), 0).run("sums", "test", [Sums()], source)[0].found

    source.stops = 96
    with pytest.raises(OSError, match="gone"):
        run()
    opened = store.StoredResult.__getitem__

    def other_goes_on(self, name):
        found = opened(self, name)
        if name != "blocks" and source.stops == 96:
            source.stops = 224
            with pytest.raises(OSError, match="gone"):
                run()
            source.stops = None
        return found

    monkeypatch.setattr(store.StoredResult, "__getitem__", other_goes_on)
    assert_array_equal(run(), sum(X[start : start + 32].sum(axis=0) for start in range(0, 320, 32)))

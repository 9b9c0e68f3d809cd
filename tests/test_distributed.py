"""Passes on a Dask cluster find what they find on one machine."""

import os
import signal
import sys
import threading
import time

import joblib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import GridSearchCV

from dualgate.rows import (
    ArrayRows,
    Collect,
    FitStages,
    Pass,
    Pieces,
    RowSource,
    Store,
    Subset,
    as_source,
    cluster,
    run_passes,
)
from dualgate.statistics import CellStatistics
from small_models import whitened_experts, whitened_mixture

dask_distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.loopback


@pytest.fixture(scope="module")
def client():
    options = {"dashboard_address": ":0", "memory_limit": 0, "silence_logs": "CRITICAL"}
    with (
        dask_distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, **options) as local,
        dask_distributed.Client(local) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def stored(planted, tmp_path_factory):
    """The planted rows as a file that every worker can open, and what else a fit takes."""
    path = tmp_path_factory.mktemp("rows") / "x.npy"
    np.save(path, planted[0].X)
    return np.load(path, mmap_mode="r"), planted[0].y, planted[0].regimes


def sums_of(y, n_features):
    """Statistics of four cells, and the numbers of the rows, of a pass that travels by value."""

    class Sums(Pass):
        row_wise = ("y", "cells")

        def __init__(self):
            self.y, self.cells = y, np.arange(len(y)) % 4

        def begin(self):
            return {"statistics": CellStatistics.zeros(4, n_features), "n": 0, "rows": Pieces()}

        def update(self, start, block):
            here = self.rows_of(start, len(block))
            self.found["statistics"].update(block, self.y[here], self.cells[here])
            self.found["n"] += len(block)
            self.found["rows"].add(start, start + np.arange(len(block)))

    return Sums()


def run(X, y):
    """Sums over all rows, and the sum of every row."""
    sums, totals = run_passes(
        "test", [sums_of(y, X.shape[1]), Collect(lambda first, rows: rows.sum(axis=1))], as_source(X)
    )
    assert_array_equal(sums.found["rows"].joined(), np.arange(len(y)))
    assert sums.found["n"] == len(y)
    statistics = sums.found["statistics"]
    return np.hstack([statistics.gram.ravel(), statistics.moment.ravel(), statistics.y_sum]), totals.found.joined()


def close(left, right):
    """Agree to a millionth of the largest."""
    assert_allclose(left, right, rtol=0, atol=1e-6 * np.abs(right).max())


@pytest.mark.parametrize("kind", ["narrow", "wide in single precision", "dask", "subset"])
@pytest.mark.parametrize("chunk_rows", [None, 700])
def test_a_cluster_finds_what_one_machine_finds(client, stored, tmp_path, kind, chunk_rows):
    X, y, _ = stored
    if kind == "wide in single precision":
        np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(4000, 300)).astype(np.float32))
        X = np.load(tmp_path / "x.npy", mmap_mode="r")
    elif kind == "dask":
        X = pytest.importorskip("dask.array").from_array(np.asarray(X), chunks=(900, 16)) * 1.0
        X = Subset(as_source(X), columns=np.arange(16)[::-1])
    elif kind == "subset":
        X = as_source(X)[np.random.default_rng(0).permutation(4000)]
    here = run(X, y)
    with cluster.use(client, chunk_rows=chunk_rows):
        there, again = run(X, y), run(X, y)
    close(there[0], here[0])
    assert_array_equal(there[0], again[0])  # merged in the order of the rows, whichever is finished first
    assert_array_equal(there[1], here[1])


def test_a_worker_killed_in_the_middle_changes_nothing(client, tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.normal(size=(40_000, 400)).astype(np.float32))
    X, y = np.load(tmp_path / "x.npy", mmap_mode="r"), rng.normal(size=40_000)
    with cluster.use(client, chunk_rows=500):
        undisturbed = run(X, y)
    pids = client.run(os.getpid)
    killed = []

    def kill():
        while not killed:
            working = [worker for worker, tasks in client.processing().items() if any("_work" in key for key in tasks)]
            done = [key for keys in client.has_what().values() for key in keys if "_work" in key]
            if working and done and working[0] in pids:
                os.kill(pids[working[0]], signal.SIGKILL)
                killed.append(len(done))
            time.sleep(0.001)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with cluster.use(client, chunk_rows=500):
        there = run(X, y)
    killer.join(timeout=5)
    assert killed
    assert killed[0] < 80  # tasks of the only pass
    for one, other in zip(there, undisturbed, strict=True):
        assert_array_equal(one, other)
    client.wait_for_workers(2)


def test_a_failure_leaves_the_sums_of_earlier_rows(client, stored, tmp_path):
    X, y, _ = stored
    bad = np.array(X)
    bad[3000, 2] = np.nan
    np.save(tmp_path / "bad.npy", bad)
    sums = sums_of(y, 16)
    with cluster.use(client, chunk_rows=700):
        run_passes("Owner", [sums], as_source(X))
        with pytest.raises(ValueError, match=r"X of Owner .*X\[3000, 2\]=nan"):
            run_passes("Owner", [sums], as_source(np.load(tmp_path / "bad.npy", mmap_mode="r")))
        counted = Collect(lambda first, rows: np.isnan(rows).sum(axis=1))
        run_passes(HistGradientBoostingRegressor(), [counted], as_source(np.load(tmp_path / "bad.npy", mmap_mode="r")))
        assert counted.found.joined().sum() == 1  # for an estimator that takes NaN
        assert sums.found["n"] == 4000
        run_passes("Owner", [sums], as_source(X))
    assert sums.found["statistics"].count.sum() == 8000


class Held(RowSource):
    """Rows in memory, and what cannot be pickled if asked."""

    def __init__(self, X, lock=None):
        self.X, self.lock, self.shape, self.dtype = X, lock, X.shape, X.dtype

    def read(self, start, stop):
        return self.X[start:stop]


def test_a_source_must_name_its_rows(client, stored, monkeypatch):
    dask_array = pytest.importorskip("dask.array")
    X, y, _ = stored
    monkeypatch.setattr(cluster, "SOURCE_BYTES", 1000)
    persisted = dask_array.from_array(np.asarray(X), chunks=(900, 16)).persist()
    for source, error, words in (
        (Held(np.asarray(X)), ValueError, "a Held, is .* when pickled"),
        (Held(np.asarray(X), threading.Lock()), TypeError, "a Held, cannot be sent"),
        (persisted, ValueError, "persisted"),
    ):
        with cluster.use(client), pytest.raises(error, match=words):
            run(source, y)
    with pytest.raises(TypeError, match="client='tcp"), cluster.use("tcp://scheduler:8786"):
        pass
    with pytest.raises(ValueError, match="chunk_rows"), cluster.use(client, chunk_rows=0):
        pass


def test_what_is_in_memory_stays_here_and_a_store_is_refused(client, stored, monkeypatch, tmp_path):
    X, y, _ = stored
    stages = FitStages(Store(tmp_path), 0)
    with cluster.use(client):
        with pytest.raises(ValueError, match="are for one machine"):
            stages.run("sums", "test", [sums_of(y, 16)], as_source(X))
        monkeypatch.setattr(client, "submit", None)
        run(ArrayRows(np.array(X)), y)
        stages.run("sums", "test", [sums_of(y, 16)], ArrayRows(np.array(X)))


def test_dask_is_told_the_size_of_statistics():
    assert sys.getsizeof(CellStatistics.zeros(3, 50)) > 8 * 3 * 50**2


# ---- fits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("params", [{}, {"sharing": "scale", "quality_edges": "quantile", "projection": None}])
def test_experts_fitted_on_a_cluster_are_those_of_one_machine(client, stored, planted, params):
    X, y, regimes = stored

    def fitted():
        whole, parts = (whitened_experts(planted[0], **params) for _ in range(2))
        whole.fit(X, y, regimes=regimes)
        for rows in (slice(0, 1500), slice(1500, 4000)):
            parts.partial_fit(X[rows], y[rows], regimes=regimes[rows], n_regimes=4)
        return whole, parts

    here = fitted()
    with cluster.use(client, chunk_rows=700):
        there = fitted()
    for one, other in zip(there, here, strict=True):
        close(one.coef_, other.coef_)
        close(one.predict_each(planted[1].X), other.predict_each(planted[1].X))
        assert_array_equal(one.cell_counts_, other.cell_counts_)
        assert_allclose(one.quality_edges_, other.quality_edges_)


def test_a_mixture_fitted_on_a_cluster_is_that_of_one_machine(client, stored, planted):
    X, y, regimes = stored
    model = whitened_mixture(planted[0], max_epochs=3)
    here = model.fit(X, y, regimes=regimes).predict(planted[1].X)
    with cluster.use(client, chunk_rows=1000):
        there = model.fit(X, y, regimes=regimes).predict(planted[1].X)
    assert_allclose(there, here, rtol=1e-4, atol=1e-4)


def test_a_search_goes_through_joblib(client, planted):
    train = planted[0]
    search = GridSearchCV(whitened_experts(train, projection=None), {"sharing": ["independent", "shrink"]}, cv=2)
    expected = search.fit(train.X, train.y, regimes=train.regimes).cv_results_["mean_test_score"]
    with joblib.parallel_config(backend="dask"):
        search.fit(train.X, train.y, regimes=train.regimes)
    assert_allclose(search.cv_results_["mean_test_score"], expected)

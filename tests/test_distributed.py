import os
import signal
import sys
import threading
import time

import joblib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.model_selection import GridSearchCV

from dualgate import DualTowerMoERegressor, HierarchicalExperts, PhysGate, QualityGate, distributed
from dualgate.rows import RowSource
from dualgate.statistics import CellStatistics

dask_distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def client():
    with (
        dask_distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",
            memory_limit=0,
            silence_logs="CRITICAL",
        ) as cluster,
        dask_distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def stored(planted, tmp_path_factory):
    """The planted rows as a file that every worker can open, and what else a fit takes."""
    path = tmp_path_factory.mktemp("rows") / "x.npy"
    np.save(path, planted[0].X)
    return np.load(path, mmap_mode="r"), planted[0].y, planted[0].regimes


def experts_of(planted, **params):
    experts = HierarchicalExperts(
        planted.flux, planted.error, quality_edges=(5,), projection="whitened", n_components=5, random_state=0
    )
    return experts.set_params(**params)


def close(left, right):
    """Agree to a millionth of the largest."""
    assert_allclose(left, right, rtol=0, atol=1e-6 * np.abs(right).max())


@pytest.mark.parametrize("projection", ["whitened", None])
@pytest.mark.parametrize("group_bytes", [1, 1 << 26])
def test_a_cluster_finds_what_one_machine_finds(client, stored, planted, projection, group_bytes, monkeypatch):
    monkeypatch.setattr(distributed, "GROUP_BYTES", group_bytes)
    X, y, regimes = stored
    here = experts_of(planted[0], projection=projection).fit(X, y, regimes=regimes)
    with distributed.use(client, chunk_rows=700):
        there = experts_of(planted[0], projection=projection).fit(X, y, regimes=regimes)
        again = experts_of(planted[0], projection=projection).fit(X, y, regimes=regimes)
    close(there.coef_, here.coef_)
    close(there.predict_each(planted[1].X), here.predict_each(planted[1].X))
    assert_array_equal(there.coef_, again.coef_)  # merged in the order of the rows, whoever is first
    assert_array_equal(there.cell_counts_, here.cell_counts_)


@pytest.mark.parametrize("sharing", ["noise", "scale"])
def test_a_cluster_adds_up_noise_and_finds_the_same_bins(client, stored, planted, sharing):
    X, y, regimes = stored
    params = {"sharing": sharing, "quality_edges": "auto", "projection": None}
    here = experts_of(planted[0], **params).fit(X, y, regimes=regimes)
    parts, alone = (experts_of(planted[0], **params) for _ in range(2))
    with distributed.use(client, chunk_rows=700):
        there = experts_of(planted[0], **params).fit(X, y, regimes=regimes)
        for rows in (slice(0, 1500), slice(1500, 4000)):
            parts.partial_fit(X[rows], y[rows], regimes=regimes[rows], n_regimes=4)
    for rows in (slice(0, 1500), slice(1500, 4000)):
        alone.partial_fit(X[rows], y[rows], regimes=regimes[rows], n_regimes=4)
    close(there.coef_, here.coef_)
    assert_allclose(there.quality_edges_, here.quality_edges_)
    close(parts.coef_, alone.coef_)


def test_a_mixture_and_a_later_part_of_the_rows(client, stored, planted):
    X, y, regimes = stored
    model = DualTowerMoERegressor(
        PhysGate([0, 1]),
        QualityGate(planted[0].error, "passthrough"),
        experts=experts_of(planted[0], random_state=None),
        max_epochs=3,
        random_state=0,
    )
    here = model.fit(X, y, regimes=regimes).predict(planted[1].X)
    with distributed.use(client, chunk_rows=1000):
        there = model.fit(X, y, regimes=regimes).predict(planted[1].X)
        parts = experts_of(planted[0], projection=None)
        for rows in (slice(0, 1500), slice(1500, 4000)):
            parts.partial_fit(X[rows], y[rows], regimes=regimes[rows], n_regimes=4)
    assert_allclose(there, here, rtol=1e-4, atol=1e-4)
    alone = experts_of(planted[0], projection=None)
    for rows in (slice(0, 1500), slice(1500, 4000)):
        alone.partial_fit(X[rows], y[rows], regimes=regimes[rows], n_regimes=4)
    assert_allclose(parts.coef_, alone.coef_, rtol=1e-6, atol=1e-9)
    assert parts.cell_counts_.sum() == 4000


def test_what_travels_is_light(client, stored, planted, monkeypatch):
    """No task but the summing ones, whose results stay where they are, holds more than a group of cells."""
    monkeypatch.setattr(distributed, "GROUP_BYTES", 8 * 8**2 * 3)  # three cells of eight columns
    sizes = []
    submit = client.submit

    def spied(function, *args, **kwargs):
        future = submit(function, *args, **kwargs)
        if function.__name__ in ("_take", "_add"):
            sizes.append(submit(lambda statistics: statistics.gram.nbytes, future))
        return future

    monkeypatch.setattr(client, "submit", spied)
    X, y, regimes = stored
    with distributed.use(client, chunk_rows=2000):
        experts_of(planted[0], projection=None).fit(X, y, regimes=regimes)
    assert len(sizes) > 2 * 40 / 3
    assert max(client.gather(sizes)) <= distributed.GROUP_BYTES


def test_cells_taken_by_several_threads_at_once_are_whole(tmp_path, monkeypatch):
    """Wide rows in single precision wait to be added in double; only one thread may do that."""
    monkeypatch.setattr(distributed, "GROUP_BYTES", 1)
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.normal(size=(6000, 400)).astype(np.float32))
    X, y, regimes = np.load(tmp_path / "x.npy", mmap_mode="r"), rng.normal(size=6000), rng.integers(0, 4, 6000)
    model = HierarchicalExperts(alphas=[1.0], cv=2, random_state=0)
    here = model.fit(X, y, regimes=regimes).coef_
    options = {"dashboard_address": ":0", "silence_logs": "CRITICAL", "memory_limit": 0}
    with (
        dask_distributed.LocalCluster(n_workers=1, threads_per_worker=4, **options) as cluster,
        dask_distributed.Client(cluster) as client,
        distributed.use(client, chunk_rows=1000),
    ):
        close(model.fit(X, y, regimes=regimes).coef_, here)


def test_dask_knows_how_much_statistics_weigh():
    assert sys.getsizeof(CellStatistics.zeros(3, 50)) > 8 * 3 * 50**2


def test_a_failure_leaves_the_sums_of_earlier_rows(client, stored, planted, tmp_path):
    X, y, regimes = stored
    bad = np.array(X)
    bad[3000, 2] = np.nan
    np.save(tmp_path / "bad.npy", bad)
    parts = experts_of(planted[0], projection=None, quality_edges=None).partial_fit(X, y, regimes=regimes)
    with distributed.use(client, chunk_rows=700), pytest.raises(ValueError, match=r"X\[3000, 2\]=nan"):
        parts.partial_fit(np.load(tmp_path / "bad.npy", mmap_mode="r"), y, regimes=regimes)
    parts.partial_fit(X, y, regimes=regimes)
    assert parts.cell_counts_.sum() == 8000


class Held(RowSource):
    """Rows in memory, and what cannot be pickled if asked."""

    def __init__(self, X, lock=None):
        self.X, self.lock, self.shape, self.dtype = X, lock, X.shape, X.dtype

    def read(self, start, stop):
        return self.X[start:stop]


def test_a_source_must_name_its_rows(client, stored, planted, monkeypatch):
    dask_array = pytest.importorskip("dask.array")
    X, y, regimes = stored
    monkeypatch.setattr(distributed, "SOURCE_BYTES", 1000)
    persisted = dask_array.from_array(np.asarray(X), chunks=(900, 16)).persist()
    held = Held(np.asarray(X))
    locked = Held(np.asarray(X), threading.Lock())
    for source, error, words in (
        (held, ValueError, "a Held, is .* when pickled"),
        (locked, TypeError, "a Held, cannot be sent"),
        (persisted, ValueError, "persisted"),
    ):
        with distributed.use(client), pytest.raises(error, match=words):
            experts_of(planted[0]).fit(source, y, regimes=regimes)
    with pytest.raises(TypeError, match="client='tcp"), distributed.use("tcp://scheduler:8786"):
        pass


def test_a_worker_killed_in_the_middle_changes_nothing(client, planted, tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40_000, 400)).astype(np.float32)
    np.save(tmp_path / "x.npy", X)
    X, y = np.load(tmp_path / "x.npy", mmap_mode="r"), rng.normal(size=40_000)
    model = HierarchicalExperts(alphas=[1.0], random_state=0, cv=2)
    here = model.fit(X, y).coef_
    with distributed.use(client, chunk_rows=500):
        undisturbed = model.fit(X, y).coef_
    pids = client.run(os.getpid)
    killed = []

    def kill():
        while not killed:
            working = [worker for worker, tasks in client.processing().items() if any("_work" in key for key in tasks)]
            done = [key for keys in client.has_what().values() for key in keys if "_work" in key]
            if working and done and working[0] in pids:
                os.kill(pids[working[0]], signal.SIGKILL)
                killed.append((len(done), working[0]))
            time.sleep(0.001)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with distributed.use(client, chunk_rows=500):
        there = model.fit(X, y).coef_
    killer.join(timeout=5)
    assert killed
    assert killed[0][0] < 80  # tasks of the only pass
    assert_array_equal(there, undisturbed)
    close(there, here)
    client.wait_for_workers(2)


def test_a_dask_array_is_read_by_the_workers(client, stored, planted):
    dask_array = pytest.importorskip("dask.array")
    X, y, regimes = stored
    lazy = dask_array.from_array(np.asarray(X), chunks=(900, 16)) * 1.0
    with distributed.use(client, chunk_rows=1300):
        there = experts_of(planted[0]).fit(lazy, y, regimes=regimes)
    assert_allclose(there.coef_, experts_of(planted[0]).fit(X, y, regimes=regimes).coef_, rtol=1e-6)


def test_a_search_goes_through_joblib(client, planted):
    train = planted[0]
    search = GridSearchCV(experts_of(train, projection=None), {"sharing": ["independent", "shrink"]}, cv=2)
    expected = search.fit(train.X, train.y, regimes=train.regimes).cv_results_["mean_test_score"]
    with joblib.parallel_config(backend="dask"):
        search.fit(train.X, train.y, regimes=train.regimes)
    assert_allclose(search.cv_results_["mean_test_score"], expected)


def test_what_is_in_memory_stays_here_and_a_checkpoint_is_refused(client, stored, planted, monkeypatch, tmp_path):
    X, y, regimes = stored
    with distributed.use(client):
        with pytest.raises(ValueError, match="is for one machine"):
            experts_of(planted[0]).fit(X, y, regimes=regimes, checkpoint=tmp_path / "fit")
        monkeypatch.setattr(client, "submit", None)
        experts_of(planted[0]).fit(planted[0].X, y, regimes=regimes)
    with pytest.raises(ValueError, match="chunk_rows"), distributed.use(client, chunk_rows=0):
        pass

"""What was computed before is used again for the same rows, parameters and code, and for nothing else."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline

from dualgate import HierarchicalExperts
from dualgate.rows import (
    ArrayRows,
    FitStages,
    Pass,
    RowSource,
    Store,
    StoreError,
    Subset,
    sources,
    store,
)
from dualgate.rows.store import code_hash, digest, fingerprint, whole_file

# runs two passes over a file of rows, and prints a line whenever it reads
CHILD = """
import sys
import numpy as np
from sklearn.linear_model import Ridge
from dualgate.rows import ArrayRows, Collect, FitStages, Pass, sources, store
from dualgate.statistics import CellStatistics

sources.BLOCK_BYTES, sources._THREAD_ROWS = 300 * 4 * 128, 128
store.EVERY_BLOCKS = 3

class Told(ArrayRows):
    def read(self, start, stop):
        print("block", flush=True)
        return super().read(start, stop)

class Sums(Pass):
    row_wise = ("y",)
    def __init__(self, y, origin):
        self.y, self.origin = y, origin
    def begin(self):
        return CellStatistics.zeros(1, 300, origin=self.origin)
    def update(self, start, block):
        self.found.update(block, self.y[self.rows_of(start, len(block))], np.zeros(len(block), int))

def total(first, block):
    return block.sum(axis=1)

folder = sys.argv[1]
rows, y = Told(np.load(folder + "/x.npy", mmap_mode="r")), np.load(folder + "/y.npy")
stages = FitStages.of(Ridge(random_state=0), None, folder + "/store" if len(sys.argv) > 2 else None, rows, y)
totals = stages.stage("totals", (), lambda: stages.run("run", None, [Collect(total)], rows)[0].found.joined())
sums = stages.run("sums", None, [Sums(y, rows.array[:9].mean(axis=0)), Collect(total)], rows)
np.savez(folder + "/fitted", totals=totals, gram=sums[0].found.gram, again=sums[1].found.joined())
"""


def start(folder, *more):
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD, str(folder), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def fitted(folder):
    with np.load(folder / "fitted.npz") as file:
        return {name: file[name] for name in file}


def test_ten_kills_at_random_blocks_change_nothing(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.normal(size=(5000, 300)).astype(np.float32))
    np.save(tmp_path / "y.npy", rng.normal(size=5000))
    child = start(tmp_path)
    n_blocks = len(child.communicate()[0].splitlines())
    assert child.returncode == 0
    expected = fitted(tmp_path)
    (tmp_path / "fitted.npz").unlink()

    for _ in range(10):
        child = start(tmp_path, "checkpoint")
        for _ in range(rng.integers(9, 13)):  # four for the fingerprint, then blocks
            assert child.stdout.readline() == "block\n"
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
        assert child.returncode == -signal.SIGKILL
        assert not (tmp_path / "fitted.npz").exists()
    child = start(tmp_path, "checkpoint")
    n_last = len(child.communicate()[0].splitlines())
    assert child.returncode == 0
    assert n_last < n_blocks - 20  # the killed ones had done the rest
    for name, values in fitted(tmp_path).items():
        assert_array_equal(values, expected[name])


# ---- the store -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "directory"])
def test_a_store_returns_what_was_saved(kind, tmp_path):
    place = None if kind == "memory" else tmp_path / "new"
    kept = Store(place)
    saved = {"a": np.arange(3.0), "n": 7, "model": PCA(3), "text": "b", "none": None, "list": [np.arange(2), {1: 2}]}
    kept.save("seed_0/all", saved)
    assert "seed_0/all" in kept
    assert "all" not in kept
    again = kept if kind == "memory" else Store(place)
    found = again.load("seed_0/all")
    assert set(found) == set(saved)
    assert_array_equal(found["a"], np.arange(3.0))
    assert (int(found["n"]), found["model"].n_components, found["text"], found["none"]) == (7, 3, "b", None)
    assert_array_equal(found["list"][0], np.arange(2))
    kept.save("seed_0/all", {"now": np.array([1])})
    assert list(again.load("seed_0/all")) == ["now"]
    kept.discard("seed_0/all")
    assert "seed_0/all" not in again
    with pytest.raises(KeyError):
        kept.load("seed_0/all")


def test_a_damaged_file_is_named(tmp_path):
    kept = Store(tmp_path / "store")
    kept.save("result", {"a": np.arange(1000.0), "b": [PCA()]})
    result, path = kept.load("result"), tmp_path / "store" / "result.zip"
    path.write_bytes(path.read_bytes()[:-40])
    for read in (lambda: kept.load("result"), lambda: result["a"], lambda: result["b"]):
        with pytest.raises(StoreError, match=r"result\.zip.*delete it"):
            read()
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="is a file"):
        Store(tmp_path / "file")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no POSIX system")
class TestPicklesOfOthers:
    def kept(self, tmp_path):
        kept = Store(tmp_path)
        kept.save("result", {"a": Told(tmp_path / "read")})
        return kept, tmp_path / "result.zip"

    @pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
    def test_files_are_written_for_the_user_alone(self, umask, tmp_path):
        before = os.umask(umask)
        try:
            kept, path = self.kept(tmp_path)
        finally:
            os.umask(before)
        assert path.stat().st_mode & 0o777 == 0o600
        assert isinstance(kept.load("result")["a"], Path)
        assert (tmp_path / "read").exists()

    @pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
    def test_a_file_that_others_may_write_is_not_read(self, mode, tmp_path):
        kept, path = self.kept(tmp_path)
        path.chmod(mode)
        with pytest.raises(StoreError, match=rf"result\.zip: holds pickles.* written by others \(mode {mode:o}\)"):
            kept.load("result")
        path.chmod(0o644)
        kept.load("result")["a"]

    def test_a_file_of_another_user_is_not_read(self, tmp_path, monkeypatch):
        kept, path = self.kept(tmp_path)
        result = kept.load("result")
        monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
        for read in (lambda: kept.load("result"), lambda: result["a"]):
            with pytest.raises(StoreError, match=r"belongs to user .* delete it"):
                read()
        assert not (tmp_path / "read").exists()

    def test_a_fit_does_not_go_on_from_the_files_of_others(self, tmp_path):
        X = np.random.default_rng(0).normal(size=(60, 3))
        experts = HierarchicalExperts(random_state=0)
        experts.fit(X, X[:, 0], checkpoint=tmp_path)
        for path in tmp_path.glob("*.zip"):
            path.chmod(0o666)
        with pytest.raises(StoreError, match="chmod go-w"):
            experts.fit(X, X[:, 0], checkpoint=tmp_path)


class Told:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return touched, (self.path,)


def touched(path):
    path.touch()
    return path


def test_two_writers_of_one_file_leave_a_whole_one(tmp_path):
    path = tmp_path / "x"
    with whole_file(path) as one:
        one.write(b"half of")
        with whole_file(path) as other:
            other.write(b"the other")
        assert path.read_bytes() == b"the other"
        one.write(b" the first")
    assert path.read_bytes() == b"half of the first"
    with pytest.raises(TypeError), whole_file(path) as file:
        file.write("text")
    assert path.read_bytes() == b"half of the first"
    assert list(tmp_path.iterdir()) == [path]


# ---- keys ------------------------------------------------------------------------------------------------------------


def a_function():
    """Differs from others by its name and source."""


def test_a_digest_tells_values_from_others(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    X, other = rng.normal(size=(2, 400, 3))
    np.save(tmp_path / "x.npy", X)

    def values():  # new objects at every call
        frozen = [FrozenEstimator(PCA(2, svd_solver="full").fit(rows)) for rows in (X, other)]
        plain = [0, 0.0, False, "0", b"0", None, (), [], {}, (0,), [0], ((0,), 1), (0, (1,)), {"a": 1}, {"a": (1, 2)}]
        return [
            *plain,
            *(X.copy(), X.copy().T, X.copy().ravel(), X.astype(np.float32), other, np.array(["a", 1], dtype=object)),
            *(ArrayRows(X.copy()), ArrayRows(X[:, ::-1]), ArrayRows(np.load(tmp_path / "x.npy", mmap_mode="r"))),
            *(PCA(3), PCA(4), Ridge(), make_pipeline(PCA(3)), make_pipeline(PCA(4)), *frozen),
            *(PCA, Ridge, np.sort, np.add, a_function, partial(a_function), partial(a_function, 1), PCA(3).fit),
            *(slice(3), slice(4), {1, 2}, {1, 3}, SimpleNamespace(a=1), SimpleNamespace(a=2)),
        ]

    digests = [digest(value) for value in values()]
    assert digests == [digest(value) for value in values()]
    assert len(set(digests)) == len(digests)
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest(ArrayRows(np.asfortranarray(X))) == digest(ArrayRows(X))
    assert digest(KNeighborsRegressor(n_jobs=2)) == digest(KNeighborsRegressor()) != digest(KNeighborsRegressor(3))
    for value in (lambda: 0, {"a": partial(lambda: 0)}, values, Ridge(alpha=lambda: 0), sys.stdout):
        with pytest.raises(TypeError, match=r"cannot be told from others.*function or class of a module"):
            digest(value)
    before = digest(partial(a_function))
    monkeypatch.setattr(store.inspect, "getsource", lambda value: "edited")
    assert digest(partial(a_function)) != before


def test_a_fingerprint_notices_what_can_be_noticed(tmp_path):
    X = np.random.default_rng(0).normal(size=(3000, 3))
    np.save(tmp_path / "x.npy", X)
    first = fingerprint(ArrayRows(X))
    X[1234, 1] += 1e-9
    assert fingerprint(ArrayRows(X)) != first
    stored = [digest(ArrayRows(np.load(tmp_path / "x.npy", mmap_mode="r")))]
    (tmp_path / "x.npy").rename(tmp_path / "y.npy")
    stored.append(digest(ArrayRows(np.load(tmp_path / "y.npy", mmap_mode="r"))))
    stored.append(digest(ArrayRows(np.load(tmp_path / "y.npy", mmap_mode="r"))[:2999]))
    os.utime(tmp_path / "y.npy", ns=(1, 1))
    stored.append(digest(ArrayRows(np.load(tmp_path / "y.npy", mmap_mode="r"))))
    assert stored[0] == stored[1]
    assert len(set(stored)) == 3


def test_the_hash_of_code_covers_all_but_the_study_and_of_that_what_is_imported(tmp_path, monkeypatch):
    below = {"__init__.py": "", "room/inner.py": "", "room/table.npz": "0"}
    study = {
        "study/__init__.py": "",
        "study/run.py": "from dualgate.study.inputs import rows\nfrom dualgate.room import inner",
        "study/inputs.py": "def rows():\n    import dualgate.study.config",
        "study/config.py": "import dualgate.study.run",
        "study/page.py": "import dualgate.study.run",
    }
    monkeypatch.setattr(store, "PACKAGE", tmp_path / "dualgate")
    for name, text in {**below, **study}.items():
        path = tmp_path / "dualgate" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def changed_by(*module):
        found = set()
        for name, text in {**below, **study}.items():
            before = code_hash.__wrapped__(*module)
            (tmp_path / "dualgate" / name).write_text(text + "\n# changed")
            found |= {name} if code_hash.__wrapped__(*module) != before else set()
            (tmp_path / "dualgate" / name).write_text(text)
        return found

    assert changed_by() == set(below)
    assert changed_by("dualgate.study.run") == {*below, "study/run.py", "study/inputs.py", "study/config.py"}


# ---- stages ----------------------------------------------------------------------------------------------------------


class Failing(RowSource):
    """Rows of an array, of which the block from `fails` on cannot be read; the first rows of other blocks are kept."""

    def __init__(self, X):
        self.X, self.shape, self.dtype, self.fails, self.starts = X, X.shape, X.dtype, None, []

    def read(self, start, stop):
        if stop - start == 100:
            if start == self.fails:
                raise OSError("the disk is gone")
            self.starts.append(start)
        return self.X[start:stop].copy()


class Total(Pass):
    def update(self, start, block):
        self.found = self.found + block.sum(axis=0)


@pytest.fixture
def rows(monkeypatch):
    monkeypatch.setattr(sources, "BLOCK_BYTES", 4 * 8 * 100)
    monkeypatch.setattr(sources, "_THREAD_ROWS", 100)
    monkeypatch.setattr(store, "EVERY_BLOCKS", 1)
    return Failing(np.random.default_rng(0).normal(size=(1000, 4)))


def test_a_stage_is_computed_once_for_what_it_depends_on(tmp_path, monkeypatch):
    seen = []

    def stages(identity=0):
        return FitStages(Store(tmp_path), identity)

    def compute():
        seen.append(len(seen))
        return seen[-1]

    for expected, (identity, name, depends) in enumerate([(0, "a", 1), (0, "a", 2), (0, "b", 1), (1, "a", 1)]):
        assert stages(identity).stage(name, depends, compute) == expected
        assert stages(identity).stage(name, depends, compute) == expected
    keeps_nothing = FitStages()
    assert keeps_nothing.stage("a", lambda: 0, compute) == 4  # without a digest of what it depends on
    assert keeps_nothing.stage("a", lambda: 0, compute) == 5
    monkeypatch.setattr(store, "code_hash", lambda: "edited")
    assert stages().stage("a", 1, compute) == 6


def test_passes_are_taken_up_where_they_failed_and_finished_stages_read_nothing(rows, tmp_path):
    def fit(fails):
        stages = FitStages(Store(tmp_path), 0)

        def steps():
            found = []
            for place, rows.fails in enumerate(fails):
                found += [each.found for each in stages.run(f"step {place}", "test", [Total(), Total()], rows)]
            return np.stack(found)

        return stages.stage("steps", (), steps)

    for fails in ([400], [None, 700]):
        with pytest.raises(OSError, match="gone"):
            fit(fails)
    assert_allclose(fit([None] * 3), np.tile(rows.X.sum(axis=0), (6, 1)))
    assert sorted(rows.starts) == sorted([*range(0, 1000, 100)] * 3)
    assert [path.name[:5] for path in tmp_path.glob("ste*")] == ["steps"]  # which holds all that its steps found
    fit([0])


def test_a_changed_row_is_noticed_when_it_is_read_again(rows, tmp_path):
    def run(name, source=rows, stages=None):
        (stages or FitStages(Store(tmp_path / "store"), 0)).run(name, "Owner", [Total()], source)

    run("one")
    run("two")
    place = np.flatnonzero(~np.isin(np.arange(1000), sources.choose_spread(1000, 192)))[-1]
    rows.X[place, 2] += 1e-12
    first = place // 100 * 100
    changed = rf"X of Owner changed since .*rows {first} to {first + 99} .*Delete the store"
    with pytest.raises(ValueError, match=changed):
        run("three")
    run("four", rows[np.flatnonzero(np.arange(1000) != place)])  # other rows have checksums of their own
    run("five", Subset(rows, columns=np.array([1, 0, 3, 2])))
    with pytest.raises(ValueError, match=r"rows 0 to"):
        run("six", Subset(Failing(rows.X + 1), columns=np.array([1, 0, 3, 2])))


def test_a_store_needs_a_seed_and_a_cache_is_cleared_by_joblib(rows, tmp_path):
    cache, seeded = joblib.Memory(tmp_path, verbose=0), Ridge(random_state=1)
    for memory in (None, joblib.Memory(None), str(tmp_path)):
        assert FitStages.of(Ridge(random_state=None), memory, None, rows).store is None
    assert FitStages.of(seeded, joblib.Memory(None), None, rows).store is None
    with pytest.raises(ValueError, match=r"Ridge.random_state=None must be an integer.*checkpoint="):
        FitStages.of(Ridge(), None, tmp_path / "store", rows)
    identities = [
        FitStages.of(Ridge(random_state=seed), str(tmp_path), None, rows, value).identity
        for seed, value in ((1, 0), (2, 0), (1, 1), (np.int64(1), 0))
    ]
    assert len(set(identities)) == 3
    assert [FitStages.of(seeded, cache, None, rows).stage("a", 0, lambda each=each: each) for each in (1, 2)] == [1, 1]
    cache.clear(warn=False)
    assert FitStages.of(seeded, cache, None, rows).stage("a", 0, lambda: 3) == 3


# ---- fits ------------------------------------------------------------------------------------------------------------


def test_a_fit_goes_on_after_a_failure_and_another_fit_begins_its_own(rows, tmp_path):
    X, y = rows.X, np.random.default_rng(1).normal(size=1000)
    X[:, 2:] = np.exp(X[:, 2:])
    params = {"quality_edges": "quantile", "random_state": 0}
    expected = HierarchicalExperts([0, 1], [2, 3], **params).fit(rows, y)
    rows.fails = 600
    with pytest.raises(OSError, match="gone"):
        HierarchicalExperts([0, 1], [2, 3], **params).fit(rows, y, checkpoint=tmp_path / "fit")
    rows.fails = None
    model = HierarchicalExperts([0, 1], [2, 3], **params).fit(rows, y, checkpoint=tmp_path / "fit")
    assert_array_equal(model.quality_edges_, expected.quality_edges_)
    assert_allclose(model.coef_, expected.coef_, rtol=1e-6)
    other = HierarchicalExperts([0, 1], [2, 3], **params).fit(rows, y + 1, checkpoint=tmp_path / "fit")
    assert_allclose(other.intercept_, expected.intercept_ + 1, rtol=1e-6)
    again = HierarchicalExperts([0, 1], [2, 3], **params).fit(rows, y, checkpoint=tmp_path / "fit")
    assert_array_equal(again.coef_, model.coef_)

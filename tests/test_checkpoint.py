import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import dualgate.checkpoint
import dualgate.rows
from dualgate.experts import HierarchicalExperts
from dualgate.rows import ArrayRows

# fits experts to a file of rows, and says so whenever it reads a block
CHILD = """
import sys
import numpy as np
import dualgate.checkpoint, dualgate.rows
from dualgate.experts import HierarchicalExperts
from dualgate.rows import ArrayRows

dualgate.rows.BLOCK_BYTES, dualgate.rows._THREAD_ROWS, dualgate.rows.SAMPLE_ROWS = 40 * 4 * 128, 128, 256
dualgate.checkpoint.EVERY_BLOCKS = 3

class Told(ArrayRows):
    def read(self, start, stop):
        print("block", flush=True)
        return super().read(start, stop)

folder = sys.argv[1]
rows = Told(np.load(folder + "/x.npy", mmap_mode="r"))
y, regimes = np.load(folder + "/y.npy"), np.load(folder + "/regimes.npy")
model = HierarchicalExperts(
    slice(0, 20), slice(20, 40), quality_edges=(3,), projection="whitened", n_components=5, random_state=0
)
model.fit(rows, y, regimes=regimes, checkpoint=folder + "/fit.checkpoint" if len(sys.argv) > 2 else None)
np.savez(folder + "/fitted", coef=model.coef_, intercept=model.intercept_, counts=model.cell_counts_)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    rng = np.random.default_rng(0)
    regimes, error = rng.integers(3, size=5000), np.exp(rng.uniform(-2, 0.5, size=(5000, 1))) * np.ones(20)
    true = rng.normal(size=(5000, 4)) @ rng.normal(size=(4, 20)) + 3
    y = np.einsum("ij,ij->i", true, rng.normal(size=(3, 20))[regimes]) + rng.normal(size=5000)
    X = np.hstack([true + error * rng.normal(size=error.shape), error]).astype(np.float32)
    for name, values in {"x": X, "y": y, "regimes": regimes}.items():
        np.save(folder / f"{name}.npy", values)
    return folder


def start(folder, *more):
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD, str(folder), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def fitted(folder):
    with np.load(folder / "fitted.npz") as file:
        return {name: file[name] for name in file}


def test_ten_kills_at_random_blocks_change_nothing(folder):
    child = start(folder)
    n_blocks = len(child.communicate()[0].splitlines())
    assert child.returncode == 0
    expected = fitted(folder)
    (folder / "fitted.npz").unlink()

    rng = np.random.default_rng(1)
    for _ in range(10):
        child = start(folder, "checkpoint")
        lines = [child.stdout.readline() for _ in range(rng.integers(14, 20))]  # a few for the sample, then blocks
        assert lines[-1] == "block\n"
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
        assert child.returncode == -signal.SIGKILL
        assert not (folder / "fitted.npz").exists()
    child = start(folder, "checkpoint")
    n_last = len(child.communicate()[0].splitlines())
    assert child.returncode == 0
    assert n_last < n_blocks - 20  # it went on where the others had come to
    for name, values in fitted(folder).items():
        assert_array_equal(values, expected[name])


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(dualgate.rows, "BLOCK_BYTES", 4 * 8 * 100)
    monkeypatch.setattr(dualgate.rows, "_THREAD_ROWS", 100)
    monkeypatch.setattr(dualgate.checkpoint, "EVERY_BLOCKS", 1)
    rng = np.random.default_rng(0)
    return ArrayRows(rng.normal(size=(1000, 4))), rng.normal(size=1000)


def test_a_fit_that_fails_goes_on_and_a_finished_one_reads_nothing(small, tmp_path, monkeypatch):
    rows, y = small
    path = tmp_path / "fit"
    expected = HierarchicalExperts(random_state=0).fit(rows, y).coef_
    n_read = []

    def read(start, stop, limit):
        n_read.append(start)
        if start >= limit:
            raise OSError("the disk is gone")
        return rows.array[start:stop]

    monkeypatch.setattr(rows, "read", lambda start, stop: read(start, stop, 500), raising=False)
    monkeypatch.setattr(dualgate.rows, "spread_rows", lambda rows, *args, **kwargs: rows.array[:100])
    monkeypatch.setattr("dualgate.experts.hierarchical.spread_rows", lambda rows, **kwargs: rows.array[:100])
    monkeypatch.setattr("dualgate.checkpoint.describe", lambda rows: rows.shape)
    with pytest.raises(OSError, match="disk"):
        HierarchicalExperts(random_state=0).fit(rows, y, checkpoint=path)
    n_read.clear()
    monkeypatch.setattr(rows, "read", lambda start, stop: read(start, stop, 10**9))
    model = HierarchicalExperts(random_state=0).fit(rows, y, checkpoint=path)
    assert min(n_read) == 500
    np.testing.assert_allclose(model.coef_, expected, rtol=1e-6)
    n_read.clear()
    again = HierarchicalExperts(random_state=0).fit(rows, y, checkpoint=path)
    assert n_read == []
    assert_array_equal(again.coef_, model.coef_)


def test_noise_and_edges_survive_a_failure(small, tmp_path, monkeypatch):
    rows, y = small
    rows.array[:, 2:] = np.exp(rows.array[:, 2:])
    params = {"sharing": "noise", "quality_edges": "auto", "random_state": 0}
    monkeypatch.setattr("dualgate.experts.hierarchical.spread_rows", lambda rows, **kwargs: rows.array[::3])
    monkeypatch.setattr("dualgate.checkpoint.describe", lambda rows: rows.shape)
    expected = HierarchicalExperts([0, 1], [2, 3], **params).fit(rows, y)
    starts = []

    def read(start, stop):
        starts.append(start)
        if starts.count(700) == 2:  # the first reading is done
            raise OSError("the disk is gone")
        return rows.array[start:stop]

    monkeypatch.setattr(rows, "read", read, raising=False)
    with pytest.raises(OSError, match="disk"):
        HierarchicalExperts([0, 1], [2, 3], **params).fit(rows, y, checkpoint=tmp_path / "fit")
    monkeypatch.setattr("dualgate.experts.hierarchical.spread_rows", None)  # what was found is not looked for again
    starts.clear()
    fitted = HierarchicalExperts([0, 1], [2, 3], **params).fit(rows, y, checkpoint=tmp_path / "fit")
    assert min(starts) == 700
    assert_array_equal(fitted.quality_edges_, expected.quality_edges_)
    np.testing.assert_allclose(fitted.coef_, expected.coef_, rtol=1e-6)


def test_a_checkpoint_of_another_fit_is_refused(small, tmp_path):
    rows, y = small
    path = tmp_path / "fit"
    HierarchicalExperts(random_state=0).fit(rows, y, checkpoint=path)
    for model, targets in ((HierarchicalExperts(random_state=1), y), (HierarchicalExperts(random_state=0), y + 1)):
        with pytest.raises(ValueError, match="written by another fit"):
            model.fit(rows, targets, checkpoint=path)
    with pytest.raises(ValueError, match="written by another fit"):
        HierarchicalExperts(random_state=0).fit(ArrayRows(rows.array + 1), y, checkpoint=path)


def test_messages(small, tmp_path):
    rows, y = small
    (tmp_path / "text").write_text("no pickle")
    with pytest.raises(ValueError, match="is no checkpoint"):
        HierarchicalExperts(random_state=0).fit(rows, y, checkpoint=tmp_path / "text")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        HierarchicalExperts(random_state=0).fit(rows, y, checkpoint=tmp_path / "no" / "fit")
    with pytest.raises(ValueError, match="random_state"):
        HierarchicalExperts().fit(rows, y, checkpoint=tmp_path / "fit")

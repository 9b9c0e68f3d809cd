"""Disks that are full, closed or lose files: a clear error, what stood there stays, and nothing half-written."""

import os
import time
from contextlib import contextmanager
from errno import EACCES, EFBIG, ENOSPC
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone

from dualgate import HierarchicalExperts
from dualgate.datasets import open_spectra, write_spectra
from dualgate.export import save_model
from dualgate.rows import ArrayRows, FitStages, Pass, Store, sources, store, whole_file
from dualgate.study.cli import main
from dualgate.study.report import write_report
from planted_study import planted_results

resource = pytest.importorskip("resource")
X = np.random.default_rng(0).normal(size=(600, 300))
Y = X[:, 0] + X[:, 1]
MODEL = HierarchicalExperts(projection=None, random_state=0).fit(X[:, :100], Y)


@contextmanager
def room_for(n_bytes):
    """Let the system refuse what a file would have beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def failing(name, error):
    """Let `open` or `fsync` of what is written fail."""
    with pytest.MonkeyPatch.context() as patch:

        def fail(*args, **options):
            raise OSError(error, os.strerror(error), *args[: name == "open"])

        patch.setattr(*((store, "open") if name == "open" else (store.os, name)), fail, raising=False)
        yield


FAULTS = {
    "no room": (lambda: room_for(1000), EFBIG),
    "no space when it is brought to the disk": (lambda: failing("fsync", ENOSPC), ENOSPC),
    "permission denied": (lambda: failing("open", EACCES), EACCES),
}


def spectra(path):
    pytest.importorskip("tables")
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(50, 3)), columns=["T_eff", "log_g", "M_H"])
    flux = rng.uniform(size=(50, 100))
    write_spectra(path, flux, 0.1 + flux, table, np.linspace(8000, 8100, 100), overwrite=True)


results = cache(planted_results)
WRITERS = {
    "result.zip": lambda path: Store(path.parent).save("result", {"a": X, "b": [MODEL]}),
    "model.dualgate": lambda path: save_model(MODEL, path),
    "spectra.h5": spectra,
    "results.json": lambda path: write_report(results(), path.parent),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_cannot_be_written_is_named_and_the_old_one_stays(name, fault, tmp_path, monkeypatch):
    monkeypatch.setattr("dualgate.study.report.draw_figures", lambda results: {})
    path, (broken, error) = tmp_path / name, FAULTS[fault]
    path.write_bytes(b"what stood there")
    with broken(), pytest.raises(OSError, match=name) as raised:
        WRITERS[name](path)
    assert os.strerror(error) in str(raised.value)
    assert path.read_bytes() == b"what stood there"
    assert [each.name for each in tmp_path.iterdir()] == [name]
    WRITERS[name](path)
    assert path.read_bytes() != b"what stood there"
    assert not list(tmp_path.glob("*.part"))


def test_what_a_kill_left_is_deleted_a_day_later(tmp_path):
    path = tmp_path / "a[1].zip"  # no pattern
    old, young, other = (tmp_path / f"{name}.7.{'0' * 32}.part" for name in ("a[1].zip", "a[1].zip.b", "a1.zip"))
    young = tmp_path / f"a[1].zip.8.{'0' * 32}.part"
    for each in (old, young, other):
        each.write_bytes(b"half")
    for each in (old, other):
        os.utime(each, (time.time() - 2 * store.PART_SECONDS,) * 2)
    with whole_file(path) as file:
        file.write(b"whole")
    assert sorted(tmp_path.iterdir()) == sorted([path, young, other])


# ---- fits ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(sources, "BLOCK_BYTES", 8 * 300 * 64)
    monkeypatch.setattr(sources, "_THREAD_ROWS", 64)
    monkeypatch.setattr(store, "EVERY_BLOCKS", 1)


def on_disk(folder):
    np.save(folder / "x.npy", X)
    return np.load(folder / "x.npy", mmap_mode="r")


@pytest.mark.parametrize("error", [ENOSPC, EACCES])
def test_a_fit_whose_disk_fails_says_where_and_goes_on_from_what_it_had(error, small_blocks, tmp_path, monkeypatch):
    rows, checkpoint = on_disk(tmp_path), tmp_path / "fit"
    model = HierarchicalExperts(projection=None, quality_edges=None, random_state=0)
    monkeypatch.setattr("dualgate.reduction.HELD_ROWS", 0)  # as of many rows: their sums are read block by block
    fsync, left, read, seen = os.fsync, [6], ArrayRows.read, []

    def watch(self, start, stop):
        seen.append(start)
        return read(self, start, stop)

    monkeypatch.setattr(ArrayRows, "read", watch)
    expected = clone(model).fit(rows, Y, checkpoint=tmp_path / "another")
    n_read = len(seen)

    def fail(number):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(error, os.strerror(error))
        fsync(number)

    with monkeypatch.context() as patch:
        patch.setattr(store.os, "fsync", fail)
        with pytest.raises(OSError, match=rf"{os.strerror(error)}: '.*fit.*zip'"):
            clone(model).fit(rows, Y, checkpoint=checkpoint)
    kept = {path.name for path in checkpoint.iterdir()}
    assert kept
    assert all(name.endswith(".zip") for name in kept)
    seen.clear()
    again = clone(model).fit(rows, Y, checkpoint=checkpoint)
    assert len(seen) < n_read
    assert_array_equal(again.coef_, expected.coef_)


class Total(Pass):
    def update(self, start, block):
        self.found = self.found + block.sum(axis=0)


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("kind", ["memory map", "h5py", "zarr", "shards"])
def test_a_file_that_is_lost_between_passes_is_named(kind, small_blocks, tmp_path):
    lose = cut
    if kind == "memory map":
        rows, path = on_disk(tmp_path), tmp_path / "x.npy"
    elif kind == "h5py":
        h5py = pytest.importorskip("h5py")
        path = tmp_path / "x.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("x", data=X, chunks=(50, 300))
        rows = h5py.File(path, "r", rdcc_nbytes=0)["x"]
    elif kind == "zarr":
        zarr, path = pytest.importorskip("zarr"), tmp_path / "x.zarr"
        rows = zarr.create_array(str(path), data=X, chunks=(50, 300))

        def lose(path):
            path.rename(tmp_path / "elsewhere")
    else:
        pytest.importorskip("tables")
        path, lose = tmp_path / "x.h5", Path.unlink
        spectra(path)
        rows = open_spectra(path, random_state=0).X
    source, stages = sources.as_source(rows), FitStages(Store(tmp_path / "store"), 0)
    (first,) = stages.run("one", "test", [Total()], source)
    kept = {each: each.read_bytes() for each in (tmp_path / "store").iterdir()}
    lose(path)
    with pytest.raises(OSError, match=path.name):
        stages.run("two", "test", [Total()], source)
    assert {each: each.read_bytes() for each in (tmp_path / "store").iterdir()} == kept
    assert first.found.shape == (source.shape[1],)


def test_the_command_says_what_stopped_it_and_how_to_go_on(tmp_path, monkeypatch, capsys):
    def fail(self):
        self.store.save(self.plan[0].name, {})
        raise OSError(ENOSPC, "No space left on device", str(tmp_path / "rows.zip"))

    monkeypatch.setattr("dualgate.study.cli.StudyRun.__call__", fail)
    assert main(["study", "--out", str(tmp_path)]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("dualgate study was stopped: [Errno 28] No space left on device: ")
    assert "1 finished stages are in" in shown
    assert f"\n  dualgate study --out {tmp_path}" in shown

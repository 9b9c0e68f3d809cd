import pickle
import warnings

import h5py
import joblib
import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_score

from dualgate import HierarchicalExperts
from dualgate.experts import SHARING, EmptyCellWarning
from dualgate.rows import (
    ArrayRows,
    Collect,
    Pass,
    Pieces,
    RowSource,
    Subset,
    as_source,
    iter_blocks,
    map_blocks,
    open_fit_rows,
    open_rows,
    run_passes,
    sources,
    spread_rows,
)
from dualgate.rows.passes import add_found
from dualgate.statistics import CellStatistics
from small_models import whitened_experts, whitened_mixture


class Counted(RowSource):
    """Rows of an array that count how often each was read; the whole must never be asked for."""

    def __init__(self, X):
        self.X, self.shape, self.dtype = X, X.shape, X.dtype
        self.reads = np.zeros(len(X), dtype=int)
        self.largest = 0

    def read(self, start, stop):
        self.reads[start:stop] += 1
        self.largest = max(self.largest, stop - start)
        return self.X[start:stop].copy()


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks and samples so small that a few thousand rows are many of them."""
    monkeypatch.setattr(sources, "BLOCK_BYTES", 16 * 8 * 512)
    monkeypatch.setattr(sources, "_THREAD_ROWS", 128)
    monkeypatch.setattr(sources, "SAMPLE_ROWS", 512)


# ---- sources ---------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(rows=st.lists(st.integers(0, 299), max_size=60), columns=st.permutations(range(3)), again=st.data())
def test_a_subset_of_a_subset_is_numpys(rows, columns, again):
    X = np.arange(900.0).reshape(300, 3)
    subset = Subset(Counted(X), columns=np.array(columns))[np.array(rows, dtype=int)]
    assert not isinstance(subset.source, Subset)
    X = X[rows][:, columns]
    assert_array_equal(subset.read(0, len(rows)), X)
    assert_array_equal(subset.read_rows(np.arange(len(rows))[::-1]), X[::-1])
    key = again.draw(st.one_of(st.slices(len(rows)), st.just(np.arange(len(rows)) % 2 == 0)))
    assert_array_equal(np.asarray(Subset(subset[key], columns=np.array([2, 0]))), X[key][:, [2, 0]])


def test_blocks_are_the_rows_in_order_whatever_the_threads():
    X = np.random.default_rng(0).normal(size=(3000, 16))
    for n_jobs in (None, 3):
        blocks = [(first, block.copy()) for first, block in iter_blocks("test", Counted(X), n_jobs=n_jobs)]
        assert_array_equal(np.concatenate([block for _, block in blocks]), X)
        assert [first for first, _ in blocks] == list(range(0, 3000, 512))


def test_a_sample_comes_from_everywhere():
    X = np.arange(6000.0)[:, None]
    sample = spread_rows(Counted(X))[:, 0]
    assert len(np.unique(sample)) == len(sample) <= 512
    assert sample[0] == 0
    assert sample[-1] == 5999
    assert np.abs(np.histogram(sample, 8, (0, 6000))[0] - 64).max() <= 64


def on_disk(kind, X, folder):
    folder.mkdir(exist_ok=True)
    if kind == "memmap":
        np.save(folder / "x.npy", X)
        return np.load(folder / "x.npy", mmap_mode="r")
    if kind == "memmap slice":
        np.save(folder / "x.npy", np.vstack([X[:7] + 1, X]))
        return np.load(folder / "x.npy", mmap_mode="r")[7:]
    if kind == "h5py":
        with h5py.File(folder / "x.h5", "w") as file:
            file["x"] = X
        return h5py.File(folder / "x.h5", "r")["x"]
    if kind == "zarr":
        return zarr.array(X, chunks=(700, X.shape[1]))
    import dask.array

    return dask.array.from_array(X, chunks=(700, X.shape[1]))


KINDS = ("memmap", "memmap slice", "h5py", "zarr", "dask")


@pytest.mark.parametrize("kind", [*KINDS, "array", "columns first", "frame", "list"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int32])
def test_the_blocks_do_not_depend_on_where_the_rows_lie(kind, dtype, tmp_path):
    X = np.round(10 * np.random.default_rng(0).normal(size=(1500, 16))).astype(dtype)
    kept = np.float32 if dtype == np.float32 and kind != "list" else np.float64
    in_memory = {"array": X, "columns first": np.asfortranarray(X), "frame": pd.DataFrame(X), "list": X.tolist()}
    source = open_rows(Ridge(), in_memory[kind] if kind in in_memory else on_disk(kind, X, tmp_path), reset=True)
    assert (source.shape, source.dtype, source.in_memory) == (X.shape, kept, kind in in_memory)
    expected = list(iter_blocks("test", ArrayRows(X.astype(kept))))
    for (first, block), (number, wanted) in zip(iter_blocks("test", source, n_jobs=2), expected, strict=True):
        assert (first, block.dtype, block.flags.c_contiguous) == (number, kept, True)
        assert_array_equal(block, wanted)
    assert np.shares_memory(block, X) == (kind == "array" and dtype == kept)  # no copy where none is needed
    assert_array_equal(spread_rows(source), spread_rows(ArrayRows(X.astype(kept))))
    rows = np.random.default_rng(1).permutation(1500)[:300]
    assert_array_equal(source[rows].read(0, 300), X[rows])


def test_results_are_no_views_of_a_block_that_is_overwritten():
    X = np.random.default_rng(0).normal(size=(3000, 16))
    assert_array_equal(map_blocks("test", lambda first, block: block[:, 2:5], Counted(X)), X[:, 2:5])
    (collected,) = run_passes("test", [Collect(lambda first, block: {"a": block[:, 1]})], Counted(X))
    assert_array_equal(collected.found.joined()["a"], X[:, 1])


# ---- the door --------------------------------------------------------------------------------------------


def test_rows_are_checked_once_at_the_door_or_when_they_are_read(tmp_path):
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(2000, 3)), columns=list("abc"))
    model = Ridge()
    open_rows(model, frame, reset=True)
    for X in (frame.to_numpy(), on_disk("memmap", frame.to_numpy(), tmp_path)):
        with pytest.warns(UserWarning, match="does not have valid feature names") as caught:
            open_rows(model, X, reset=False)
        assert len(caught) == 1
    open_rows(model, frame.to_numpy(), reset=True)
    with pytest.raises(ValueError, match="expecting 3 features"):
        open_rows(model, ArrayRows(np.ones((5, 2))), reset=False)
    frame.iloc[1990, 1] = np.nan
    for X in (frame, ArrayRows(frame.to_numpy())):
        with pytest.raises(ValueError, match=r"X of Ridge .*X\[1990, 1\]=nan"):
            open_rows(model, X, reset=True)
    source = open_rows(model, Counted(frame.to_numpy()), reset=True)
    with pytest.raises(ValueError, match=r"X of Ridge .*X\[1990, 1\]=nan"):
        list(iter_blocks(model, source))
    takes_nan = HistGradientBoostingRegressor()
    for X in (frame, Counted(frame.to_numpy())):
        assert sum(len(block) for _, block in iter_blocks(takes_nan, open_rows(takes_nan, X, reset=True))) == 2000


@pytest.mark.parametrize("dtype", ["U", "S", object, "string"])
def test_text_is_no_target_even_where_it_holds_numbers(dtype):
    text = pd.Series(["1", "2.5", "3"], dtype=dtype) if dtype == "string" else np.array(["1", "2.5", "3"], dtype=dtype)
    for rows in (np.ones((3, 2)), Counted(np.ones((3, 2)))):
        with pytest.raises(ValueError, match=r"y of Ridge has shape \(3,\) and dtype .* one number per row"):
            open_fit_rows(Ridge(), rows, text)


def test_a_target_is_one_finite_number_for_each_row():
    X, numbers = np.ones((3, 2)), np.array([1, 2.5, np.float32(3)], dtype=object)
    assert_array_equal(open_fit_rows(Ridge(), X, numbers)[1], [1, 2.5, 3])
    for wrong, words in (
        (np.array([1, 2, None], dtype=float), r"contains NaN or infinity in 1 rows \(first: row 2\)"),
        *((None, "y to be passed"), ([1, 2], "inconsistent"), (np.ones((3, 2)), r"shape \(3, 2\)")),
    ):
        with pytest.raises(ValueError, match=words):
            open_fit_rows(HierarchicalExperts(), X, wrong)
    with pytest.raises(ValueError, match="X has 3 samples: Ridge needs at least 4"):
        open_fit_rows(Ridge(), X, numbers, min_samples=4)


# ---- passes ----------------------------------------------------------------------------------------------


class Moments(Pass):
    row_wise = ("weight", "absent")

    def __init__(self, weight):
        self.weight, self.absent = weight, None

    def begin(self):
        return {"n": 0, "sum": np.zeros(3), "statistics": CellStatistics.zeros(2, 3), "rows": Pieces()}

    def update(self, start, block):
        weight = self.weight[self.rows_of(start, len(block))]
        self.found["n"] += len(block)
        self.found["sum"] += weight @ block
        self.found["statistics"].update(block, weight, np.arange(start, start + len(block)) % 2)
        self.found["rows"].add(start, {"weight": weight})


@settings(max_examples=25)
@given(cuts=st.lists(st.integers(0, 700), max_size=6).map(sorted), shuffle=st.randoms(use_true_random=False))
def test_parts_of_a_pass_add_up_to_the_whole(cuts, shuffle):
    rng = np.random.default_rng(0)
    X, weight = rng.normal(size=(700, 3)), rng.normal(size=700)
    whole = [Moments(weight), Collect(lambda first, rows: first + np.arange(len(rows)))]
    ranges = list(zip([0, *cuts], [*cuts, 700], strict=True))
    parts = [[each.part(*ends) for each in whole] for ends in ranges]
    for ends, part in zip(ranges, parts, strict=True):
        for first, block in iter_blocks("test", ArrayRows(X), start=ends[0], stop=ends[1]):
            for each in part:
                each.update(first, block)
    shuffle.shuffle(parts)
    run_passes("test", whole, ArrayRows(X))
    total = [each.part(0, 700) for each in whole]
    for part in parts:
        total = [each.merge(other.found) for each, other in zip(total, part, strict=True)]
    assert total[0].found["n"] == 700
    assert_allclose(total[0].found["sum"], weight @ X)
    assert_allclose(total[0].found["statistics"].gram, whole[0].found["statistics"].gram, atol=1e-9)
    assert_array_equal(total[0].found["rows"].joined()["weight"], weight)
    assert_array_equal(total[1].found.joined(), np.arange(700))
    assert add_found(Moments(weight).found, {**Moments(weight).found, "n": 3})["n"] == 3  # valid before any row


@pytest.mark.parametrize("kind", ["memmap", "memmap slice", "h5py", "zarr"])
def test_a_source_pickles_by_its_place(kind, planted, tmp_path):
    X = planted[0].X
    data = pickle.dumps(as_source(on_disk(kind, X, tmp_path)))
    assert len(data) < 10_000 or kind == "zarr"  # an in-memory Zarr array is its own numbers
    assert_array_equal(pickle.loads(data).read(5, 900), X[5:900])


def test_the_mixture_fits_in_two_readings_and_predicts_in_one(planted):
    train, test = planted
    source = Counted(train.X)
    model = whitened_mixture(train).fit(source, train.y, regimes=train.regimes)
    sample = 2 * 512  # read once more, with rows in between, to learn what is typical
    assert source.reads.min() == 2
    assert source.reads.sum() <= 2 * len(train.y) + sample
    assert source.largest <= 512
    unseen = Counted(test.X)
    prediction = model.predict(unseen)
    assert unseen.reads.max() == 1
    assert_allclose(prediction, model.predict(test.X), rtol=1e-6)
    assert_allclose(model.trace(unseen).weights, model.predict_weights(test.X), rtol=1e-6)
    here = whitened_mixture(train).fit(train.X, train.y, regimes=train.regimes)
    assert model.score(test.X, test.y) > here.score(test.X, test.y) - 0.01


def test_few_gate_rows_are_enough_and_the_experts_still_see_all(planted, monkeypatch):
    train, test = planted
    params = {"experts__alphas": [2.0], "experts__sharing": "independent"}  # the folds may differ
    everything = whitened_mixture(train, **params).fit(Counted(train.X), train.y, regimes=train.regimes)
    for module in ("reduction", "mixture"):
        monkeypatch.setattr(f"dualgate.{module}.HELD_ROWS", 1500)
    few = whitened_mixture(train, **params).fit(Counted(train.X), train.y, regimes=train.regimes)
    assert_allclose(few.experts_.coef_, everything.experts_.coef_, rtol=1e-6)
    assert few.score(test.X, test.y) > everything.score(test.X, test.y) - 0.02
    assert not np.allclose(few.predict(test.X), everything.predict(test.X))
    found = whitened_mixture(train, n_regimes=16).fit(Counted(train.X), train.y)  # regimes are found block by block too
    assert found.experts_.n_regimes_ == 16
    assert found.score(test.X, test.y) > found.experts_.score(test.X, test.y) + 0.1


@pytest.mark.parametrize("sharing", sorted(SHARING))
@pytest.mark.parametrize("projection", [None, "whitened", PCA(6)])
def test_every_sharing_finds_the_same_in_a_source(planted, sharing, projection):
    train, test = planted
    model = whitened_experts(train, sharing=sharing, projection=projection, quality_edges="quantile", n_jobs=2)
    here = model.fit_predict_each(train.X, train.y, regimes=train.regimes)
    each, edges = model.predict_each(test.X), model.quality_edges_
    there = model.fit_predict_each(Counted(train.X), train.y, regimes=train.regimes)
    assert_allclose(model.quality_edges_, edges)
    assert_allclose(there, here, rtol=1e-5, atol=1e-5)
    assert_allclose(model.predict_each(test.X), each, rtol=1e-5, atol=1e-5)


def test_cross_validation_slices_a_source(planted):
    train = planted[0]
    model = whitened_experts(train, projection=None)
    source = Counted(train.X)
    scores = cross_val_score(model, source, train.y, cv=3, params={"regimes": train.regimes})
    assert source.largest <= 512
    expected = cross_val_score(model, train.X, train.y, cv=3, params={"regimes": train.regimes})
    assert_allclose(scores, expected, rtol=1e-6)


@pytest.mark.parametrize(("row", "column", "value"), [(700, 5, np.nan), (3456, 3, np.inf), (2345, 9, -1.0)])
def test_messages_give_the_row_of_the_source(planted, row, column, value):
    train = planted[0]
    X = train.X.copy()
    X[row, column] = value  # column 5 is read by no gate
    model = whitened_mixture(train, max_epochs=1, n_jobs=2)
    with pytest.raises(ValueError, match=rf"X\[{row}, {column}\]"):
        model.fit(Counted(X), train.y, regimes=train.regimes)
    model.fit(train.X, train.y, regimes=train.regimes)
    with pytest.raises(ValueError, match=rf"X\[{row}, {column}\]"):
        model.predict(Counted(X))
    with pytest.raises(ValueError, match="expecting 16 features"):
        model.predict(Counted(train.X[:, :9]))


# ---- partial_fit -----------------------------------------------------------------------------------------


def test_partial_fit_is_the_fit_on_all_rows(planted):
    train, test = planted
    frozen = FrozenEstimator(whitened_experts(train).fit(train.X, train.y).projection_)
    for projection in (None, frozen):
        params = {"projection": projection, "alphas": [2.0], "sharing": "independent"}
        whole = whitened_experts(train, **params).fit(train.X, train.y, regimes=train.regimes)
        parts = whitened_experts(train, **params)
        for start in range(0, 4000, 1000):
            rows = slice(start, start + 1000)
            parts.partial_fit(train.X[rows], train.y[rows], regimes=train.regimes[rows], n_regimes=4)
        assert_allclose(parts.coef_, whole.coef_, rtol=1e-6, atol=1e-9)
        assert_allclose(parts.predict_each(test.X), whole.predict_each(test.X), rtol=1e-6, atol=1e-8)
        assert_array_equal(parts.cell_counts_, whole.cell_counts_)


def test_partial_fit_learns_a_regime_that_comes_late(planted):
    train, test = planted
    experts, bad = whitened_experts(train, projection=None), train.X.copy()
    bad[1700, 3] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error", EmptyCellWarning)
        for rows in np.array_split(np.argsort(train.regimes, kind="stable"), 8):
            experts.partial_fit(train.X[rows], train.y[rows], regimes=train.regimes[rows], n_regimes=4)
            with pytest.raises(ValueError, match=r"X\[1700, 3\]=nan"):  # the rows before it leave no trace
                experts.partial_fit(Counted(bad), train.y, regimes=train.regimes)
    assert experts.cell_counts_.sum() == 4000
    whole = whitened_experts(train, projection=None).fit(train.X, train.y, regimes=train.regimes)
    assert experts.score(test.X, test.y) == pytest.approx(whole.score(test.X, test.y), abs=0.01)
    with pytest.raises(ValueError, match="expecting 16 features"):
        experts.partial_fit(train.X[:5, :15], train.y[:5], regimes=np.zeros(5, int))
    experts.partial_fit(train.X[:2], train.y[:2], regimes=[3, 2])  # a large code in few rows
    one = experts.predict(test.X[:1], regimes=[3])
    assert_allclose(one, experts.predict(test.X[:5], regimes=[3] * 5)[:1])
    with pytest.raises(ValueError, match="X has 5 rows"):
        experts.predict(test.X[:5], regimes=[0])
    assert whole.partial_fit(train.X[:200], train.y[:200]).n_regimes_ == 1  # starts from nothing after a fit


# ---- rows that were read before --------------------------------------------------------------------------


def test_a_fit_on_rows_read_before_is_the_fit_on_the_rows(planted):
    train, test = planted
    source = Counted(train.X)

    def reduction_of(**params):
        return whitened_mixture(train, **params).make_reduction().fit(source, train.y, regimes=train.regimes)

    reduction = reduction_of(n_jobs=2)
    seen, unseen = reduction.read(source, training=True), reduction.read(test.X)
    assert np.median(source.reads) == 2  # rows of the sample are read more often
    for params in (
        {},
        {"quality_gate": "drop"},
        {"experts__quality_edges": None, "fusion": "poe"},
        {"experts__quality_edges": "quantile", "experts__sharing": "alpha"},
    ):
        direct = whitened_mixture(train, **params).fit(Counted(train.X), train.y, regimes=train.regimes)
        reduced = whitened_mixture(train, **params).fit(seen, train.y, regimes=train.regimes)
        assert_allclose(reduced.experts_.coef_, direct.experts_.coef_, rtol=1e-6)
        assert_allclose(reduced.predict(unseen), reduced.predict(test.X), rtol=1e-5)
        assert reduced.score(test.X, test.y) == pytest.approx(direct.score(test.X, test.y), abs=0.02)
    assert_array_equal(seen[100:200].snr, seen.snr[100:200])
    with pytest.raises(ValueError, match="quality_gate"):
        whitened_mixture(train).fit(reduction_of(quality_gate="drop").read(source), train.y, regimes=train.regimes)


# ---- threads and empty sources ---------------------------------------------------------------------------


def test_threads_change_nothing_and_processes_do_not_reach_the_readers(planted, tmp_path):
    train, test = planted
    stored = on_disk("memmap", train.X, tmp_path)
    one, two = (whitened_mixture(train, n_jobs=n).fit(stored, train.y, regimes=train.regimes) for n in (1, 2))
    assert_allclose(one.predict(test.X), two.predict(test.X), rtol=1e-6)
    expected = whitened_experts(train).fit(stored, train.y, regimes=train.regimes)
    with joblib.parallel_config("loky", n_jobs=2):
        fitted = whitened_experts(train).fit(stored, train.y, regimes=train.regimes)
        assert_allclose(fitted.coef_, expected.coef_, rtol=1e-9)
        assert_allclose(fitted.predict_each(as_source(stored)), expected.predict_each(train.X), rtol=1e-6)


def test_no_rows_and_copies_of_maps_are_as_in_memory(planted, tmp_path):
    train = planted[0]
    experts = whitened_experts(train).fit(train.X, train.y)
    with pytest.raises(ValueError, match="0 sample"):
        experts.predict(Counted(train.X)[:0])
    assert as_source(on_disk("memmap", train.X, tmp_path).astype(np.float32)) is None

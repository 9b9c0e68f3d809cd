import pickle
from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.linear_model import Ridge

import dualgate.statistics
from dualgate.statistics import CellStatistics, memory_limit, solve_ridge

RNG = np.random.default_rng(0)
X, CELLS = RNG.normal(size=(60, 4)) + 2.0, RNG.integers(0, 3, 60)
Y = X @ [1.0, -2.0, 0.5, 0.0] + CELLS + 0.1 * RNG.normal(size=60)
WIDE = (RNG.normal(size=(900, 300)) * RNG.uniform(0.5, 2, 300) + RNG.normal(size=300)).astype(np.float32)
WIDE_Y, WIDE_CELLS = WIDE[:, 0] - WIDE[:, 1] + RNG.normal(size=900), RNG.integers(0, 2, 900)


def same(left, right, rtol):
    """All moments agree, relative to the largest of their kind."""
    right = right.about(left.origin)
    for name in ("count", "x_sum", "y_sum", "y_square_sum", "moment", "gram"):
        one, other = getattr(left, name), getattr(right, name)
        assert_allclose(one, other, rtol=rtol, atol=rtol * np.abs(other).max())


@given(cuts=st.lists(st.integers(1, 59), unique=True).map(sorted), shuffle=st.randoms(use_true_random=False))
def test_any_split_in_any_order_adds_up_to_the_whole(cuts, shuffle):
    parts = list(zip(np.split(X, cuts), np.split(Y, cuts), np.split(CELLS, cuts), strict=True))
    shuffle.shuffle(parts)
    total = reduce(add, (CellStatistics.from_rows(*part, 3) for part in parts))  # each about an origin of its own
    expected = [Ridge(alpha=2.0).fit(X[c == CELLS], Y[c == CELLS]) for c in range(3)]
    coef, intercept = total.solve([2.0])
    assert_allclose(coef[0], [ridge.coef_ for ridge in expected], rtol=1e-8)
    assert_allclose(intercept[0], [ridge.intercept_ for ridge in expected], rtol=1e-8)


@settings(max_examples=20)
@given(
    cuts=st.lists(st.integers(1, 899), unique=True, max_size=6).map(sorted),
    shuffle=st.randoms(use_true_random=False),
    flush=st.integers(50, 1000),
)
def test_wide_rows_in_single_precision_add_up_however_they_come(cuts, shuffle, flush):
    parts = list(zip(np.split(WIDE, cuts), np.split(WIDE_Y, cuts), np.split(WIDE_CELLS, cuts), strict=True))
    shuffle.shuffle(parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dualgate.statistics, "SINGLE_ROWS", flush)
        total = CellStatistics.zeros(2, 300, origin=WIDE[:10].mean(axis=0))
        for part in parts:
            total.update(*part)
        merged = reduce(add, (CellStatistics.from_rows(*part, 2) for part in parts))
    whole = CellStatistics.from_rows(WIDE.astype(np.float64), WIDE_Y, WIDE_CELLS, 2)
    same(total, whole, 1e-6)
    same(merged, whole, 1e-6)
    for cell in range(2):
        rows = cell == WIDE_CELLS
        ridge = Ridge(alpha=3.0).fit(WIDE[rows].astype(np.float64), WIDE_Y[rows])
        assert_allclose(total.solve([3.0])[0][0, cell], ridge.coef_, rtol=0, atol=1e-5 * np.abs(ridge.coef_).max())


def test_flushing_keeps_the_digits_that_single_precision_loses(monkeypatch):
    def error(flush):
        monkeypatch.setattr(dualgate.statistics, "SINGLE_ROWS", flush)
        rng = np.random.default_rng(2)
        total, exact = CellStatistics.zeros(1, 260), np.zeros((260, 260))
        for _ in range(2):
            rows = (1 + 0.2 * rng.normal(size=(20_000, 260))).astype(np.float32)
            total.update(rows, np.zeros(20_000), np.zeros(20_000, dtype=int))
            exact += rows.T.astype(np.float64) @ rows
        return np.sqrt(np.square(total.gram[0] / exact - 1).mean())

    assert error(2000) < 1e-7
    assert error(10**9) > 2 * error(2000)


@pytest.mark.parametrize("n_features", [20, 300])
def test_batches_that_drift_in_single_precision_keep_the_digits_of_double(n_features):
    rng = np.random.default_rng(4)
    scale, step = rng.uniform(0.5, 2, n_features), rng.normal(size=n_features)
    total, exact = (CellStatistics.zeros(2, n_features) for _ in range(2))
    for drift in (0.0, 1e2, 3e3, 3e4):
        rows = (scale * rng.normal(size=(700, n_features)) + drift * (2 + step)).astype(np.float32)
        batch = rows[:, 0] - drift * (2 + step[0]) + rng.normal(size=700), (rng.random(700) < 0.1).astype(int)
        only = [CellStatistics.zeros(2, n_features).update(each, *batch) for each in (rows, rows.astype(np.float64))]
        for one, other in zip(*(each.centred() for each in only), strict=True):  # about means far from the origin
            assert_allclose(one, other, rtol=0, atol=1e-4 * np.abs(other).max())
        total.update(rows, *batch)
        exact.update(rows.astype(np.float64), *batch)
    same(total, exact, 1e-6)


def test_weights_count_rows_exactly():
    weights = np.random.default_rng(3).integers(0, 4, 60)
    repeated = np.repeat(np.arange(60), weights)
    weighted = CellStatistics.zeros(3, 4).update(X, Y, CELLS, sample_weight=weights.astype(float))
    same(weighted, CellStatistics.zeros(3, 4).update(X[repeated], Y[repeated], CELLS[repeated]), 1e-12)
    ridge = Ridge(alpha=2.0).fit(X, Y, sample_weight=weights)
    coef, intercept = weighted.sum(0).solve([2.0])
    assert_allclose(coef[0], ridge.coef_, rtol=1e-9)
    assert_allclose(intercept[0], ridge.intercept_, rtol=1e-9)


def test_rows_are_taken_away_and_a_parent_is_the_sum_of_its_children():
    whole, part = (CellStatistics.from_rows(X[:n], Y[:n], CELLS[:n], 3) for n in (60, 25))
    rest = CellStatistics.from_rows(X[25:], Y[25:], CELLS[25:], 3)
    same(whole - part, rest, 1e-12)
    assert_allclose((whole - part).solve([0.3])[0], rest.solve([0.3])[0], rtol=1e-8)
    same(sum(whole[[cell]] for cell in range(3)), whole.sum(0)[None], 1e-12)
    assert_allclose(whole.sum(0).solve([5.0])[0][0], Ridge(alpha=5.0).fit(X, Y).coef_, rtol=1e-8)


def test_scaled_statistics_are_those_of_scaled_columns():
    scale = np.array([1e-17, 3.0, 1e9, 0.1])
    scaled = CellStatistics.from_rows(X, Y, CELLS, 3).scaled(scale)
    same(scaled, CellStatistics.from_rows(X / scale, Y, CELLS, 3), 1e-9)
    assert_allclose(scaled.solve([2.0])[0], CellStatistics.from_rows(X / scale, Y, CELLS, 3).solve([2.0])[0], rtol=1e-7)
    far = WIDE + np.float32(3e4)
    later = far / np.float32(3)
    wide = CellStatistics.from_rows(far, WIDE_Y, WIDE_CELLS, 2).scaled(np.full(300, 3.0))
    wide.update(later, WIDE_Y, WIDE_CELLS)  # about an origin that has no equal in single precision
    both = [
        CellStatistics.from_rows(rows, WIDE_Y, WIDE_CELLS, 2) for rows in (far.astype(float) / 3, later.astype(float))
    ]
    same(wide, sum(both), 1e-6)


def test_squared_error_is_that_of_the_rows():
    statistics = CellStatistics.from_rows(X, Y, CELLS, 3)
    coef, intercept = RNG.normal(size=(3, 4)), RNG.normal(size=3)
    residual = Y - (X * coef[CELLS]).sum(1) - intercept[CELLS]
    expected = np.bincount(CELLS, residual**2)
    assert_allclose(statistics.squared_error(coef, intercept), expected, rtol=1e-10)


def test_pulling_towards_a_point_solves_the_pulled_problem():
    gram, moment = CellStatistics.from_rows(X, Y, CELLS, 3).sum(0).centred()
    towards = np.array([1.0, 1.0, 1.0, 1.0])
    coef, parent = solve_ridge(gram, moment, [7.0, np.inf], towards)
    # the gradient of |y - Xw|^2 + 7 |w - towards|^2 vanishes
    assert_allclose(gram @ coef - moment + 7.0 * (coef - towards), 0, atol=1e-9)
    assert_allclose(parent, towards)
    assert_allclose(solve_ridge(gram, moment, [7.0], towards)[0], coef)  # one penalty takes another way


def test_a_pickle_in_the_middle_of_a_sum_goes_on():
    halves = [(WIDE[:450], WIDE_Y[:450], WIDE_CELLS[:450]), (WIDE[450:], WIDE_Y[450:], WIDE_CELLS[450:])]
    through = pickle.loads(pickle.dumps(CellStatistics.zeros(2, 300).update(*halves[0]))).update(*halves[1])
    straight = CellStatistics.zeros(2, 300).update(*halves[0]).update(*halves[1])
    assert np.array_equal(through.gram, straight.gram)


def test_memory_is_checked_before_it_is_taken(monkeypatch):
    monkeypatch.setattr(dualgate.statistics, "memory_limit", lambda: 12 * 4096**2 * 9)
    with pytest.raises(MemoryError, match=r"10 cells x 4,096 features .* 9 cells of 4,096 features fit") as error:
        CellStatistics.zeros(10, 4096)
    assert "10 cells of 3,885 features" in str(error.value)


def test_the_memory_of_a_container_is_the_least_of_its_groups(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def limits(own):
        return memory_limit(tmp_path, write("cgroup", own)) * 4 // 3

    write("memory.max", "max\n")
    write("slice/memory.max", "4000\n")
    write("slice/job/memory.max", "9000\n")
    write("memory/memory.limit_in_bytes", "500\n")
    write("memory/docker/memory.limit_in_bytes", "700\n")
    assert limits("0::/slice/job\n") == 4000
    assert limits("0::/\n") == memory_limit(tmp_path, tmp_path / "no Linux") * 4 // 3 > 2**20
    assert limits("7:cpu,memory:/docker\n6:cpu:/slice\n") == 500
    assert limits("4:memory:/outside/of/this/container\n0::/\n") == 500
    assert 2**20 < memory_limit() < 2**60

from functools import reduce
from operator import add

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.linear_model import Ridge

from dualgate.statistics import CellStatistics, solve_ridge

RNG = np.random.default_rng(0)
X, CELLS = RNG.normal(size=(60, 4)) + 2.0, RNG.integers(0, 3, 60)
Y = X @ [1.0, -2.0, 0.5, 0.0] + CELLS + 0.1 * RNG.normal(size=60)


def ridges(statistics, alpha):
    gram, moment = statistics.centred()
    return solve_ridge(gram, moment, [alpha])[0]


@settings(deadline=None)
@given(cuts=st.lists(st.integers(1, 59), unique=True).map(sorted), shuffle=st.randoms(use_true_random=False))
def test_any_split_in_any_order_adds_up_to_the_whole(cuts, shuffle):
    parts = list(zip(np.split(X, cuts), np.split(Y, cuts), np.split(CELLS, cuts), strict=True))
    shuffle.shuffle(parts)
    total = reduce(add, (CellStatistics.from_rows(*part, 3) for part in parts))
    expected = [Ridge(alpha=2.0).fit(X[c == CELLS], Y[c == CELLS]).coef_ for c in range(3)]
    assert_allclose(ridges(total, 2.0), expected, rtol=1e-8)


def test_subtraction_takes_rows_away():
    whole, part = (CellStatistics.from_rows(X[:n], Y[:n], CELLS[:n], 3) for n in (60, 25))
    rest = CellStatistics.from_rows(X[25:], Y[25:], CELLS[25:], 3)
    assert_allclose((whole - part).gram, rest.gram)
    assert_allclose(ridges(whole - part, 0.3), ridges(rest, 0.3), rtol=1e-8)


def test_a_parent_is_the_sum_of_its_children():
    parent = CellStatistics.from_rows(X, Y, CELLS, 3).sum(0)
    assert_allclose(ridges(parent, 5.0), Ridge(alpha=5.0).fit(X, Y).coef_, rtol=1e-8)


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


def test_float32_rows_are_summed_in_double():
    rng = np.random.default_rng(1)
    rows = (rng.normal(size=(20_000, 3)) + 5).astype(np.float32)
    cells = np.zeros(len(rows), dtype=int)
    statistics = CellStatistics.from_rows(rows, np.ones(len(rows)), cells, 1)
    exact = rows.astype(np.float64).T @ rows.astype(np.float64)
    assert_allclose(statistics.gram[0], exact, rtol=1e-6)

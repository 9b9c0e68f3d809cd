"""Regimes that nobody gave: what is planted is found, and what is not there does no harm."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import KFold

from dualgate import DualTowerMoERegressor, HierarchicalExperts, PhysGate
from dualgate.experts.finding import RegimeFinder
from dualgate.rows import ArrayRows


def hidden(n_rows, seed):
    """Rows evenly spread over four columns; on which side of two planes they lie decides their rule."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1, 1, size=(n_rows, 4))
    regimes = (X[:, 0] > 0.3).astype(int) + (X[:, 0] > -0.4)
    rules = np.array([[0.0, 2.0, 0.0, 0.0], [0.0, -2.0, 1.0, 0.0], [0.0, 0.0, -2.0, 2.0]])
    return X, np.einsum("ij,ij->i", X, rules[regimes]) + 0.05 * rng.normal(size=n_rows), regimes


X, Y, REGIMES = hidden(2000, seed=0)


def found(columns=X, y=Y, n_regimes=3, seed=0):
    finder = RegimeFinder(n_regimes, seed).fit(columns, columns, y)
    return finder, finder.predict(columns, columns)


def test_regimes_that_only_the_target_shows_are_found():
    finder, codes = found()
    clusters = finder._clusters.labels_
    assert finder.refined_
    assert adjusted_rand_score(REGIMES, codes) > 0.85
    assert adjusted_rand_score(REGIMES, clusters) < 0.5  # where rows are does not tell: they are evenly spread
    other, _, regimes = hidden(1000, seed=1)
    assert adjusted_rand_score(regimes, finder.predict(other, other)) > 0.85


def test_the_same_seed_finds_the_same():
    assert_array_equal(found()[1], found()[1])


@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_the_unit_of_the_target_does_not_matter(unit):
    assert adjusted_rand_score(found()[1], found(y=unit * Y + 3 * unit)[1]) > 0.99


def test_the_units_of_the_columns_do_not_matter():
    assert adjusted_rand_score(found()[1], found(X * [1e-20, 1.0, 1e20, 7.0] + [0, 3, 0, -2])[1]) > 0.95


@pytest.mark.parametrize("useless", [np.zeros((2000, 3)), np.full((2000, 2), 0.1), 5 * X + 1])
def test_columns_that_say_nothing_new_change_little(useless):
    assert adjusted_rand_score(REGIMES, found(np.hstack([X, useless]))[1]) > 0.85


def test_where_one_line_serves_all_the_regimes_do_no_harm():
    rule, (other, _, _) = np.array([1.0, -1.0, 0.5, 0.0]), hidden(2000, seed=1)
    y = X @ rule + np.random.default_rng(1).normal(size=len(X))
    finder, codes = found(y=y)
    experts = HierarchicalExperts(random_state=0).fit(X, y, regimes=codes)
    predicted = experts.predict(other, regimes=finder.predict(other, other))
    assert np.mean((predicted - other @ rule) ** 2) < 0.02  # the noise has a variance of one


def test_a_constant_target_leaves_clusters():
    finder, codes = found(y=np.full(2000, 2.0))
    assert not finder.refined_
    assert len(np.unique(codes)) == 3


@pytest.mark.parametrize(
    ("columns", "n_regimes", "expected"),
    [(X[:500], 1, 1), (X[:30], 9, 1), (X[:59], 9, 2), (np.repeat(X[:2], 100, axis=0), 9, 2), (np.ones((90, 3)), 4, 1)],
    ids=["one", "few rows", "few regimes", "copies", "constant"],
)
def test_no_more_regimes_than_rows_allow(columns, n_regimes, expected):
    finder, codes = found(columns, np.random.default_rng(2).normal(size=len(columns)), n_regimes)
    assert finder.n_regimes_ <= expected
    assert set(codes) <= set(range(finder.n_regimes_))


def test_an_outlier_does_not_disturb():
    wild = X.copy()
    wild[5] = 1e6
    assert adjusted_rand_score(REGIMES, found(wild)[1]) > 0.6


@pytest.mark.parametrize("width", [8, 120])
def test_neither_the_unit_nor_the_precision_of_columns_matters(width):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(600, 5))
    regimes, loadings = (z[:, 0] > 0).astype(int) + (z[:, 1] > 0), rng.normal(size=(5, width))
    columns = (z @ loadings + 0.3 * rng.normal(size=(600, width)) + 2).astype(np.float32).astype(np.float64)
    y = np.einsum("ij,ij->i", z, rng.normal(size=(3, 5))[regimes]) + regimes + 0.1 * rng.normal(size=600)
    # few epochs: rounding, 1e-7 in all that the gates read, grows with every step of their training
    model = DualTowerMoERegressor(n_regimes=3, max_epochs=3, random_state=0)
    expected, counts = model.fit(columns, y).predict(columns), model.experts_.cell_counts_
    for rows in (columns.astype(np.float32), columns * 1e-17, (columns * 1e-17).astype(np.float32)):
        assert_allclose(model.fit(rows, y).predict(rows), expected, rtol=0, atol=1e-3)
        assert_array_equal(model.experts_.cell_counts_, counts)


@pytest.mark.parametrize("projection", [None, PCA(4, random_state=0)])
def test_array_and_source_find_the_same(projection):
    model = DualTowerMoERegressor(PhysGate(slice(0, 4)), n_regimes=3, max_epochs=1, random_state=0)
    model.set_params(experts__projection=projection)
    array, source = (model.fit(rows, Y).experts_ for rows in (X, ArrayRows(X)))
    assert_array_equal(array.cell_counts_, source.cell_counts_)
    assert_array_equal(array.coef_, source.coef_)


def learned_regimes(columns, y, seed, codes=None):
    """Finder, reduced rows, and what experts learn, with regimes found or these; folds that do not depend on them."""
    reduction = DualTowerMoERegressor(quality_gate="drop").make_reduction().fit(columns)
    rows = reduction.read(columns, training=True)
    finder = RegimeFinder(3, seed).fit(rows.features["phys"], rows.projected, y)
    experts, kept = HierarchicalExperts(cv=KFold(5)), np.ones(len(y), dtype=bool)
    asked = finder if codes is None else None
    learned = experts.learn(reduction, rows, y, codes, finder.n_regimes_, finder=asked, kept=kept)
    return finder, rows, learned, experts.cross_fitted(learned)[np.arange(len(y)), learned.columns["cells"]]


def test_new_rows_have_experts_of_the_regimes_found_and_gates_those_without_the_fold():
    columns, y, _ = hidden(400, seed=3)
    y = y + np.random.default_rng(4).normal(size=400)
    finder, rows, learned, _ = learned_regimes(columns, y, 0)
    codes, crossed = finder.codes(rows.columns), finder.codes_without_folds(rows.columns, y, learned.columns["folds"])
    assert np.any(codes != crossed)
    assert_array_equal(learned.columns["cells"], crossed)
    whole, without = (learned_regimes(columns, y, 0, each)[2].solution.models for each in (codes, crossed))
    assert_array_equal(learned.solution.models.coef, np.r_[without.coef[:-1], whole.coef[-1:]])


def noise_in_predictions(seed, size=300):
    """Share of the noise of targets that is in the cross-fitted predictions of the rows' own experts."""
    (columns, clean, _), noise = hidden(size, seed), np.random.default_rng(seed + 100).normal(size=size)
    # what the predictions owe to the columns has either sign
    crossed = [learned_regimes(columns, clean + sign * noise, seed)[3] for sign in (1, -1)]
    return noise @ (crossed[0] - crossed[1]) / (2 * noise @ noise)


def test_cross_fitted_predictions_of_found_regimes_have_not_seen_their_noise():
    repeats = [noise_in_predictions(seed) for seed in range(20)]
    assert abs(np.mean(repeats)) < 2 * np.std(repeats, ddof=1) / np.sqrt(len(repeats))


def test_a_mixture_gains_by_what_is_found():
    model = DualTowerMoERegressor(n_regimes=3, random_state=0).fit(X, Y)
    other, y, _ = hidden(1000, seed=1)
    assert model.score(other, y) > 0.9

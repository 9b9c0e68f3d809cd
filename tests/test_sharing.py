"""Each way of sharing against a dense reference and a planted truth, and laws that hold for all of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import least_squares
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge

from dualgate.experts import SHARING, HierarchicalExperts
from dualgate.experts import sharing as strategies
from dualgate.experts.cells import CellSums, find_edges
from dualgate.experts.ridges import fit_ridges
from dualgate.snr import signal_to_noise
from dualgate.statistics import CellStatistics

N_FOLDS, ALPHAS = 3, np.array([0.1, 2.0, 50.0])


class Cells:
    """Rows of every fold, regime and quality bin, noisier in the lower bins, and the strategies that solve them."""

    def __init__(self, n_rows=400, shape=(3, 4), width=3, seed=0):
        rng = np.random.default_rng(seed)
        self.shape, self.variances = shape, rng.uniform(0.5, 2, width)
        self.k, self.s = (rng.integers(0, n, n_rows) for n in shape)
        self.fold = rng.integers(0, N_FOLDS, n_rows)
        self.power = 2.0 / (1 + self.s) ** 2 * rng.uniform(0.8, 1.2, n_rows)
        true = rng.normal(size=(n_rows, width)) + self.k[:, None]
        scatter = np.sqrt(self.power[:, None] * self.variances) * rng.normal(size=true.shape)
        self.rules = rng.normal(size=(shape[0], width))
        self.X = true + scatter
        self.y = np.einsum("ij,ij->i", true, self.rules[self.k]) + 0.3 * rng.normal(size=n_rows) + 2 * self.k

    def keep(self, rows):
        """Drop the other rows."""
        for name in ("k", "s", "fold", "power", "X", "y"):
            setattr(self, name, getattr(self, name)[rows])
        return self

    def solve(self, sharing, alphas=ALPHAS):
        full = (N_FOLDS, *self.shape)
        cells = np.ravel_multi_index((self.fold, self.k, self.s), full)
        folds = CellStatistics.from_rows(self.X, self.y, cells, int(np.prod(full))).reshape(*full)
        root = fit_ridges(folds.sum((1, 2)).reshape(N_FOLDS, 1), alphas)
        return SHARING[sharing](folds, alphas, root)

    def predict(self, models, training_set=-1):
        """Prediction of every cell for every row."""
        return self.X @ models.coef[training_set].T + models.intercept[training_set]

    def training(self, training_set):
        """Rows of a training set: without fold 0, 1, ..., and last all."""
        return self.fold != training_set if training_set < N_FOLDS else np.ones(len(self.y), dtype=bool)


# ---- scale -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training_set", range(N_FOLDS + 1))
def test_scale_is_the_joint_least_squares_solution(training_set):
    cells, alpha = Cells(), 30.0
    n_regimes, n_bins = cells.shape
    rows = cells.training(training_set)
    X, y, k, s = cells.X[rows], cells.y[rows], cells.k[rows], cells.s[rows]
    centre = np.stack([X[k == regime].mean(0) for regime in range(n_regimes)])
    share = np.bincount(s) / len(s)

    def split(values):
        gamma, beta, level, coef = np.split(values, np.cumsum([n_bins, n_bins, n_regimes]))
        return gamma, beta, level, coef.reshape(n_regimes, -1)

    def residuals(values):
        gamma, beta, level, coef = split(values)
        fitted = gamma[s] * np.einsum("ij,ij->i", X - centre[k], coef[k]) + level[k] + beta[s]
        penalties = np.sqrt(alpha * share) * gamma * coef[..., None]
        return np.r_[y - fitted, penalties.ravel()]

    start = np.r_[np.ones(n_bins), np.zeros(n_bins + n_regimes), np.full(3 * n_regimes, 0.1)]
    gamma, beta, level, coef = split(least_squares(residuals, start, xtol=1e-14, ftol=1e-14, gtol=1e-12).x)
    models = cells.solve("scale", [alpha])
    expected = gamma[:, None] * coef[:, None]
    assert_allclose(models.coef[training_set].reshape(expected.shape), expected, atol=1e-5)
    levels = level[:, None] + beta - (expected * centre[:, None]).sum(-1)
    assert_allclose(models.intercept[training_set].reshape(levels.shape), levels, atol=1e-5)


@pytest.mark.parametrize(("sharing", "alphas"), [("offset", [1e-7]), ("scale", [1e-7, 1.0])])
def test_what_regimes_share_is_recovered(sharing, alphas):
    rng = np.random.default_rng(1)
    n, factors, shifts = 3000, np.array([0.2, 0.6, 1.0, 1.4])[:, None], np.array([0.5, 0.0, -1.0, 2.0])
    k, s = rng.integers(0, 5, n), rng.choice(4, n, p=[0.1, 0.2, 0.3, 0.4])
    X, rules, level = rng.normal(size=(n, 6)) + 3, rng.normal(size=(5, 1, 6)), 10 * rng.normal(size=5)
    centre = np.stack([X[k == regime].mean(0) for regime in range(5)])
    planted = factors * rules if sharing == "scale" else rules + rng.normal(size=(4, 6))
    y = np.einsum("ij,ij->i", X - centre[k], planted[k, s]) + level[k] + shifts[s]
    error = np.linalg.norm(X, axis=1, keepdims=True) / np.sqrt(6) / (1 + 2.0 * s[:, None]) * np.ones(6)
    experts = HierarchicalExperts(
        slice(0, 6), slice(6, 12), quality_edges=(2, 4, 6), sharing=sharing, alphas=alphas, random_state=0
    ).fit(np.hstack([X, error]), y, regimes=k)
    assert_allclose(experts.coef_, planted.reshape(20, 6), atol=1e-5)
    assert_allclose(experts.predict(np.hstack([X, error]), regimes=k), y, atol=1e-4)
    assert_allclose(experts.alpha_, 1e-7)


def test_scale_settles_where_bins_and_regimes_almost_coincide():
    cells = Cells(n_rows=3000, shape=(3, 3))
    cells.keep((cells.k == cells.s) | (np.random.default_rng(0).uniform(size=3000) < 0.02))
    models = cells.solve("scale", [1.0])
    again = cells.solve("scale", [1.0 + 1e-9])
    assert_allclose(again.coef, models.coef, atol=1e-5)


def test_scale_says_when_it_did_not_settle(monkeypatch):
    monkeypatch.setattr(strategies, "MAX_ROUNDS", 2)
    with pytest.warns(ConvergenceWarning, match="sharing='scale' did not converge within 2 rounds"):
        Cells().solve("scale")


# ---- alpha -----------------------------------------------------------------------------------------------


def test_alpha_is_one_dense_path_per_regime_and_one_penalty_per_bin():
    cells = Cells(n_rows=120, width=8)
    n_regimes, n_bins = cells.shape
    models = cells.solve("alpha")

    def ridge(training_set, regime, alpha):
        rows = cells.training(training_set) & (cells.k == regime)
        return Ridge(alpha=alpha).fit(cells.X[rows], cells.y[rows])

    def held_out_error(level, alpha, training_set):
        error = 0.0
        for fold, regime in np.ndindex(N_FOLDS, n_regimes):
            if fold == training_set:  # a model without these rows chooses by the others
                continue
            rows = (cells.fold == fold) & (cells.k == regime) & (cells.s == level)
            model = ridge(fold, regime, alpha)
            error += np.square(cells.y[rows] - cells.X[rows] @ model.coef_ - model.intercept_).sum()
        return error

    for level, training_set in np.ndindex(n_bins, N_FOLDS + 1):
        alpha = min(ALPHAS, key=lambda value: held_out_error(level, value, training_set))
        for regime in range(n_regimes):
            cell, expected = regime * n_bins + level, ridge(training_set, regime, alpha)
            assert training_set < N_FOLDS or models.alpha[cell] == alpha
            assert_allclose(models.coef[training_set, cell], expected.coef_, rtol=1e-6, atol=1e-9)
            assert_allclose(models.intercept[training_set, cell], expected.intercept_, rtol=1e-6, atol=1e-8)


def noisy_rows(n, seed, width=12, levels=(2.0, 1.0, 0.5, 0.25)):
    """Two regimes, and noise whose level alone varies."""
    rng, rules = np.random.default_rng(seed), np.random.default_rng(50).normal(size=(2, width))
    k, level = rng.integers(0, 2, n), np.array(levels)[rng.integers(0, len(levels), n)][:, None]
    true, shape = rng.normal(size=(n, width)), np.linspace(0.5, 1.5, width)
    y = np.einsum("ij,ij->i", true, rules[k]) + 5 * k
    return np.hstack([true + level * shape * rng.normal(size=true.shape), level * shape]), y, k


def noisy_experts(**params):
    edges = (0.75, 1.5, 2.6)
    return HierarchicalExperts(slice(0, 12), slice(12, 24), quality_edges=edges, random_state=0).set_params(**params)


@pytest.mark.parametrize("sharing", sorted(SHARING))
def test_one_bin_is_a_ridge_for_each_regime(sharing):
    cells = Cells(n_rows=600, shape=(3, 1))
    models = cells.solve(sharing, [4.0])
    root = Ridge(alpha=4.0).fit(cells.X, cells.y).coef_
    for regime in range(3):
        own = cells.k == regime
        towards = root if sharing == "shrink" else np.zeros(3)
        ridge = Ridge(alpha=4.0).fit(cells.X[own], cells.y[own] - cells.X[own] @ towards)
        assert_allclose(models.coef[-1, regime], ridge.coef_ + towards, rtol=1e-7, atol=1e-9)
        assert_allclose(models.intercept[-1, regime], ridge.intercept_, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("sharing", sorted(SHARING))
def test_the_origin_of_x_and_y_does_not_matter(sharing):
    cells = Cells()
    before = cells.predict(cells.solve(sharing))
    cells.X, cells.y = cells.X + np.array([30.0, -20.0, 5.0]), cells.y + 7.0
    assert_allclose(cells.predict(cells.solve(sharing)) - 7.0, before, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sharing", sorted(SHARING))
def test_a_model_without_a_fold_does_not_know_it(sharing):
    cells = Cells()
    before = cells.solve(sharing, [3.0]).coef
    cells.y = np.where(cells.fold == 1, 100.0 * cells.y**2, cells.y)
    after = cells.solve(sharing, [3.0]).coef
    if sharing not in ("shrink", "offset"):  # which also choose whether to share at all, from all folds together
        assert_allclose(after[1], before[1], rtol=1e-6, atol=1e-8)
    assert not np.allclose(after[-1], before[-1])


@pytest.mark.parametrize("sharing", sorted(SHARING))
def test_a_bin_that_is_empty_in_all_regimes_is_harmless(sharing):
    cells = Cells(n_rows=1200)
    without_regime = Cells(n_rows=1200).keep((cells.s != 2) & (cells.k != 1)).solve(sharing)
    assert np.isfinite(without_regime.coef).all()
    assert np.isinf(without_regime.alpha[4:8]).all()
    cells.keep(cells.s != 2)
    models = cells.solve(sharing)
    prediction = cells.predict(models)
    assert np.isfinite(models.coef).all()
    assert np.isfinite(prediction).all()
    cell = cells.k * 4 + 2  # the empty bin predicts rows of others about as well as the regime
    assert np.mean(np.square(cells.y - prediction[np.arange(len(cell)), cell])) < 0.6 * np.var(cells.y)


@given(order=st.permutations(range(5)))
@settings(max_examples=20, deadline=None)
def test_the_order_in_which_parts_are_merged_does_not_matter(order):
    X, y, k = noisy_rows(600, 8)
    experts = noisy_experts().fit(X, y, regimes=k)
    shape, edges = (5, 2, 4), experts.quality_edges_
    sums = CellSums(experts.reduction_, shape, X[:, :12].mean(0), y, k, np.arange(600) % 5, edges)
    bounds = np.linspace(0, 600, 6).astype(int)
    total = sums.part(0, 0)
    for place in order:
        part = sums.part(bounds[place], bounds[place + 1])
        part.update(part.first, X[bounds[place] : bounds[place + 1]])
        total.merge(part.found)
    sums.update(0, X)
    for name in ("count", "x_sum", "y_sum", "y_square_sum", "moment", "gram"):
        assert_allclose(getattr(total.statistics, name), getattr(sums.statistics, name), rtol=1e-9, atol=1e-9)
    assert_array_equal(total.statistics.count.sum(0), experts.cell_counts_)


@pytest.mark.parametrize("sharing", sorted(SHARING))
@pytest.mark.parametrize("edges", [None, (1.2,), (0.7, 0.9, 1.2, 1.5, 1.9, 2.5, 3.0), "quantile"])
def test_any_number_of_bins_works(sharing, edges):
    X, y, k = noisy_rows(1500, 9)
    experts = noisy_experts(sharing=sharing, quality_edges=edges)
    crossed = experts.fit_predict_each(X, y, regimes=k)
    n_bins = {None: 1, "quantile": 4}.get(edges) or len(edges) + 1
    assert experts.n_quality_bins_ == n_bins == len(experts.quality_edges_) + 1
    assert crossed.shape == (1500, 2 * n_bins)
    own = k * n_bins + experts.quality_bins(X)
    assert np.mean(np.square(y - crossed[np.arange(1500), own])) < 0.5 * np.var(y)


# ---- bins of equal counts, regimes on any grid -------------------------------------------------------------


def test_auto_bins_hold_equal_counts_and_stay_as_they_were_found():
    X, y, k = noisy_rows(1003, 10)
    experts = noisy_experts(sharing="shrink", quality_edges="quantile").fit(X, y, regimes=k)
    bins = experts.quality_bins(X)
    assert_array_equal(np.bincount(bins), [251, 251, 251, 250])
    assert_array_equal(experts.cell_counts_.sum(0), np.bincount(bins))
    ratios = signal_to_noise(X[:, :12], X[:, 12:])
    assert_array_equal(np.digitize(ratios, experts.quality_edges_, right=True), bins)
    given = noisy_experts(sharing="shrink", quality_edges=experts.quality_edges_.tolist()).fit(X, y, regimes=k)
    assert_array_equal(given.coef_, experts.coef_)
    first = slice(0, 400)
    parts = noisy_experts(sharing="shrink", quality_edges="quantile").partial_fit(X[first], y[first], regimes=k[first])
    edges = parts.quality_edges_
    assert_array_equal(np.bincount(parts.quality_bins(X[first])), [100] * 4)
    parts.partial_fit(X[400:] * np.r_[np.full(12, 9.0), np.ones(12)], y[400:], regimes=k[400:])
    assert_array_equal(parts.quality_edges_, edges)
    assert parts.cell_counts_[:, 3].sum() > 600


def test_with_few_rows_the_emptiest_neighbours_merge():
    snr = np.repeat([0.5, 1.5, 2.5, 3.5], [10, 1, 2, 17])
    assert_array_equal(find_edges(noisy_experts(quality_edges=(1, 2, 3)), snr, 1, 30), [1, 3])
    assert_array_equal(find_edges(noisy_experts(quality_edges=(1, 2, 3)), snr, 2, 30), [])
    assert_array_equal(find_edges(noisy_experts(quality_edges=(1, 2, 3)), snr, 2, None), [1, 2, 3])


@pytest.mark.parametrize("grid", [(3, 3), (4, 4), (2, 5), (2, 2, 2)])
@pytest.mark.parametrize("sharing", sorted(SHARING))
def test_regimes_lie_on_any_grid(grid, sharing):
    rng = np.random.default_rng(12)
    n_regimes = int(np.prod(grid))
    conditions = rng.uniform(0, 1, size=(150 * n_regimes, len(grid)))
    conditions[0] = 1 / np.array(grid)  # an edge belongs to the bin above
    codes = np.ravel_multi_index(tuple((conditions * grid).astype(int).T), grid)
    rules = rng.normal(size=(n_regimes, 3))
    X = rng.normal(size=(len(codes), 3))
    y = np.einsum("ij,ij->i", X, rules[codes]) + codes
    error = np.full_like(X, 0.01)
    edges = tuple(tuple(np.arange(1, n) / n) for n in grid)
    experts = HierarchicalExperts(slice(0, 3), slice(3, 6), regime_edges=edges, sharing=sharing, random_state=0)
    experts.fit(np.hstack([X, error]), y, regimes=conditions)
    assert experts.n_regimes_ == n_regimes
    assert_allclose(experts.coef_, rules, atol=0.02)
    assert_allclose(experts.predict(np.hstack([X, error]), regimes=conditions), y, atol=0.2)

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, PredefinedSplit, ShuffleSplit
from sklearn.preprocessing import FunctionTransformer

from dualgate.experts import SHARING, EmptyCellWarning, HierarchicalExperts
from dualgate.experts.sharing import solve_offset
from dualgate.statistics import CellStatistics


def planted_experts(planted, **params):
    # columns of one unit, left as they are: without a projection they would be standardised
    params = {"quality_edges": (5,), "projection": FunctionTransformer(), "random_state": 0, **params}
    return HierarchicalExperts(planted.flux, planted.error, **params)


def test_independent_experts_are_ridges_of_their_cells(planted):
    train, _ = planted
    experts = planted_experts(train, sharing="independent", alphas=[3.0]).fit(train.X, train.y, regimes=train.regimes)
    bins = experts.quality_bins(train.X)
    for expert in range(experts.n_experts_):
        own = (train.regimes == expert // 2) & (bins == expert % 2)
        ridge = Ridge(alpha=3.0).fit(train.X[own, :8], train.y[own])
        assert_allclose(experts.coef_[expert], ridge.coef_, rtol=1e-6)
        assert_allclose(experts.predict_each(train.X)[:, expert], ridge.predict(train.X[:, :8]), rtol=1e-6, atol=1e-8)
    assert_allclose(experts.predict(train.X), Ridge(alpha=3.0).fit(train.X[:, :8], train.y).predict(train.X[:, :8]))


def test_offset_is_the_joint_least_squares_solution():
    rng = np.random.default_rng(0)
    n, width, n_regimes, n_bins, alpha, beta = 400, 3, 3, 4, 2.0, 5.0
    X, k, s = rng.normal(size=(n, width)), rng.integers(0, n_regimes, n), rng.integers(0, n_bins, n)
    y = rng.normal(size=n) + X @ [1, 2, 3] + k
    # dense design: a block per regime, a block per bin, an unpenalised intercept per cell
    cells = k * n_bins + s
    blocks = [np.where((k == i)[:, None], X, 0) for i in range(n_regimes)]
    blocks += [np.where((s == j)[:, None], X, 0) for j in range(n_bins)]
    design = np.hstack([*blocks, np.eye(n_regimes * n_bins)[cells]])
    penalty = np.r_[np.full(n_regimes * width, alpha), np.full(n_bins * width, beta), np.zeros(n_regimes * n_bins)]
    dense = np.linalg.solve(design.T @ design + np.diag(penalty), design.T @ y)
    regime = dense[: n_regimes * width].reshape(n_regimes, 1, width)
    offsets = dense[n_regimes * width : (n_regimes + n_bins) * width].reshape(1, n_bins, width)
    statistics = CellStatistics.from_rows(X, y, cells, n_regimes * n_bins).reshape(n_regimes, n_bins)
    assert_allclose(solve_offset(*statistics.centred(), alpha, beta), regime + offsets, rtol=1e-9)


def test_shrinking_solves_its_equation(planted):
    train, _ = planted
    experts = planted_experts(train, sharing="shrink", alphas=[40.0]).fit(train.X, train.y, regimes=train.regimes)
    bins, flux = experts.quality_bins(train.X), train.X[:, :8]

    def pulled(rows, towards):
        X, y = flux[rows] - flux[rows].mean(0), train.y[rows] - train.y[rows].mean()
        return towards + np.linalg.solve(X.T @ X + 40.0 * np.eye(8), X.T @ (y - X @ towards))

    root = Ridge(alpha=40.0).fit(flux, train.y).coef_
    for regime in range(4):
        parent = pulled(train.regimes == regime, root)
        for level in range(2):
            expert = 2 * regime + level
            expected = pulled((train.regimes == regime) & (bins == level), parent)
            if np.isfinite(experts.alpha_[expert]):
                assert_allclose(experts.coef_[expert], expected, rtol=1e-6)
    assert np.isfinite(experts.alpha_).any()


@pytest.mark.parametrize("sharing", sorted(SHARING))
def test_quality_bins_in_the_experts_approach_the_best_linear_rule(planted, sharing):
    train, test = planted
    scores = {}
    for edges in (None, (5,)):
        experts = planted_experts(train, sharing=sharing, quality_edges=edges)
        experts.fit(train.X, train.y, regimes=train.regimes)
        scores[edges] = r2_score(test.y, experts.predict(test.X, regimes=test.regimes))
    best = r2_score(test.y, test.bayes())
    assert scores[(5,)] > scores[None] + 0.01
    if sharing not in ("offset", "alpha"):  # noise scales each rule by a factor, which neither can follow
        assert scores[(5,)] > best - 0.01


def test_more_noise_makes_smaller_coefficients(planted):
    train, _ = planted
    experts = planted_experts(train).fit(train.X, train.y, regimes=train.regimes)
    size = np.linalg.norm(experts.coef_[:, 2:], axis=1).reshape(4, 2)
    assert_allclose(size[:, 0] / size[:, 1], 1.01 / 3.25, rtol=0.2)


def test_cross_fitted_predictions_do_not_see_their_row():
    rng = np.random.default_rng(2)
    X, y, regimes = rng.normal(size=(60, 25)), rng.normal(size=60), np.repeat([0, 1], 30)
    experts = HierarchicalExperts(sharing="independent", alphas=[1e-6], random_state=0)
    crossed = experts.fit_predict_each(X, y, regimes=regimes)[np.arange(60), regimes]
    seen = experts.predict_each(X)[np.arange(60), regimes]
    # pure noise: fitted values follow the target, honest ones do not
    assert np.corrcoef(seen, y)[0, 1] > 0.8
    assert abs(np.corrcoef(crossed, y)[0, 1]) < 0.4


def test_alpha_is_chosen_by_held_out_error():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(80, 40))
    noisy = HierarchicalExperts(random_state=0, alphas=[1e-3, 1e4]).fit(X, rng.normal(size=80))
    clean = HierarchicalExperts(random_state=0, alphas=[1e-3, 1e4]).fit(X, X @ rng.normal(size=40))
    assert noisy.root_coef_ @ noisy.root_coef_ < 1e-3 < clean.root_coef_ @ clean.root_coef_


@pytest.mark.parametrize("sharing", sorted(SHARING))
def test_an_empty_cell_is_its_parent_and_is_named(planted, sharing):
    train, _ = planted
    bins = planted_experts(train).fit(train.X, train.y, regimes=train.regimes).quality_bins(train.X)
    missing = (train.regimes == 2) & (bins == 1)
    kept = (train.regimes != 1) & ~missing
    experts = planted_experts(train, sharing=sharing, alphas=[2.0])
    with pytest.warns(EmptyCellWarning, match="leaves 3 of 8 cells .*: regime 1, regime 2 in quality bin 1"):
        experts.fit(train.X[kept], train.y[kept], regimes=train.regimes[kept])
    assert_allclose(experts.coef_[2:4], np.tile(experts.root_coef_, (2, 1)))
    assert_allclose(experts.intercept_[2:4], experts.root_intercept_)
    assert np.isinf(experts.alpha_[2:4]).all()
    each = experts.predict_each(train.X)
    assert np.var(train.y[missing] - each[missing, 5]) < 0.6 * np.var(train.y[missing])
    if sharing == "independent":
        own = kept & (train.regimes == 2)
        ridge = Ridge(alpha=2.0).fit(train.X[own, :8], train.y[own])
        assert_allclose(each[:, 5], ridge.predict(train.X[:, :8]), rtol=1e-6, atol=1e-8)
        assert np.isinf(experts.alpha_[5])


@pytest.mark.parametrize("projection", ["whitened", PCA(6)])
def test_a_projection_of_full_rank_keeps_the_prediction(planted, projection):
    train, test = planted
    plain, projected = (
        planted_experts(train, quality_edges=None, alphas=[1e-6], projection=p)
        .set_params(columns=slice(2, 8), error_columns=slice(10, 16))
        .fit(train.X, train.y, regimes=train.regimes)
        for p in (FunctionTransformer(), projection)
    )
    assert_allclose(projected.predict_each(test.X), plain.predict_each(test.X), rtol=1e-6, atol=1e-6)


def test_clipped_experts_stay_within_the_training_targets(planted):
    train, test = planted
    free = planted_experts(train).fit(train.X, train.y, regimes=train.regimes)
    held = planted_experts(train, clip=True)
    crossed = held.fit_predict_each(train.X, train.y, regimes=train.regimes)
    low, high = train.y.min(), train.y.max()
    wild = test.X * 5.0
    assert free.predict_each(wild).max() > high
    assert_allclose(held.predict_each(wild), free.predict_each(wild).clip(low, high))
    assert crossed.min() >= low
    assert crossed.max() <= high


@pytest.mark.parametrize("sharing", sorted(SHARING))
def test_the_units_and_origins_of_columns_do_not_matter(sharing):
    rng = np.random.default_rng(5)
    X, regimes = rng.normal(size=(400, 4)), rng.integers(0, 2, 400)
    y = np.where(regimes, X[:, 1], -X[:, 1]) + 0.5 * rng.normal(size=400)
    experts = HierarchicalExperts(sharing=sharing, random_state=0)
    plain = experts.fit(X, y, regimes=regimes).predict_each(X)
    other = X * [1, 1e7, 5000, 1e-3] + [0, 1.6e9, 0, 1]
    assert_allclose(experts.fit(other, y, regimes=regimes).predict_each(other), plain, atol=1e-4)
    assert r2_score(y, plain[np.arange(400), regimes]) > 0.7


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_regimes_far_apart_keep_their_digits(dtype):
    rng = np.random.default_rng(6)
    X, regimes = rng.normal(size=(400, 4)), rng.integers(0, 2, 400)
    y = np.where(regimes, X[:, 1], -X[:, 1])
    X[:, :2] += 1e4 * regimes[:, None]
    X = X.astype(dtype)
    experts = HierarchicalExperts(random_state=0, sharing="independent", alphas=[0.01]).fit(X, y, regimes=regimes)
    own = X[regimes == 1].astype(np.float64)
    assert_allclose(experts.coef_[1], Ridge(alpha=0.01).fit(own, y[regimes == 1]).coef_, atol=1e-3)


def test_a_projection_never_sees_the_target():
    from sklearn.feature_selection import SelectKBest, f_regression

    X, y = np.random.default_rng(7).normal(size=(50, 30)), np.arange(50.0)
    with pytest.raises((TypeError, ValueError)):
        HierarchicalExperts(projection=SelectKBest(f_regression)).fit(X, y)


@pytest.mark.parametrize(("x_unit", "y_unit"), [(1e-17, 1e22), (1e10, 1e-35), (1.0, 1e160)])
def test_units_do_not_matter(x_unit, y_unit):
    rng = np.random.default_rng(8)
    X = rng.normal(size=(300, 4)).astype(np.float32)
    y = X[:, 1] + 0.1 * rng.normal(size=300)
    plain = HierarchicalExperts(random_state=0).fit(X, y).predict(X)
    other = HierarchicalExperts(random_state=0).fit(X * np.float32(x_unit), y * y_unit).predict(X * np.float32(x_unit))
    assert_allclose(other / y_unit, plain, atol=1e-4)


def test_what_was_fitted_stays_when_parameters_are_set_later(planted):
    train, test = planted
    experts = planted_experts(train, projection="whitened", clip=True).fit(train.X, train.y, regimes=train.regimes)
    before = experts.predict(test.X, regimes=test.regimes)
    experts.set_params(projection=None, clip=False, regime_edges=((0.5,),), quality_edges=(1, 2, 3))
    assert_allclose(experts.predict(test.X, regimes=test.regimes), before)
    with pytest.raises(ValueError, match="negative code"):
        experts.fit(train.X, train.y, regimes=train.regimes - 1)
    with pytest.raises(NotFittedError):
        experts.predict(test.X)


def test_a_call_of_partial_fit_that_raises_changes_nothing(planted):
    train, test = planted
    experts = planted_experts(train, projection=None).partial_fit(
        train.X[:900], train.y[:900], regimes=train.regimes[:900]
    )
    before, counts = experts.predict_each(test.X), experts.cell_counts_.copy()
    bad = train.X[900:1800].copy()
    bad[500, train.error] = -1.0  # found while rows are read
    for X, regimes in ((bad, train.regimes[900:1800]), (train.X[900:1800], train.regimes[900:1800] + 9)):
        with pytest.raises(ValueError, match=r"error_columns selects an error of -1|regimes holds the code"):
            experts.partial_fit(X, train.y[900:1800], regimes=regimes)
        assert_allclose(experts.predict_each(test.X), before, rtol=0)
        assert_allclose(experts.cell_counts_, counts)
    again = planted_experts(train, projection=None)
    for rows in (slice(0, 900), slice(900, 1800)):
        for each in (experts, again) if rows.start else (again,):
            each.partial_fit(train.X[rows], train.y[rows], regimes=train.regimes[rows])
    assert_allclose(experts.coef_, again.coef_, rtol=0)
    assert experts.cell_counts_.sum() == 1800


@pytest.mark.parametrize("cv", [1, 0, 2.5, "five"])
def test_folds_are_checked_before_any_row_is_read(planted, cv):
    train, _ = planted
    for method in ("fit", "partial_fit"):
        with pytest.raises(ValueError, match=r"HierarchicalExperts\.cv="):
            getattr(planted_experts(train, cv=cv), method)(train.X, train.y, regimes=train.regimes)


def test_what_the_first_call_of_partial_fit_fixed_cannot_change_and_the_rest_changes_whole(planted):
    train, _ = planted
    halves = slice(0, 2000), slice(2000, 4000)
    parts = planted_experts(train, projection=None)
    parts.partial_fit(train.X[halves[0]], train.y[halves[0]], regimes=train.regimes[halves[0]])
    for params in ({"quality_edges": (2,)}, {"regime_edges": ((0.5,),)}, {"cv": 3}):
        changed = {name: getattr(parts, name) for name in params}
        with pytest.raises(ValueError, match=rf"{next(iter(params))}=.*differs from"):
            parts.set_params(**params).partial_fit(train.X[:9], train.y[:9], regimes=train.regimes[:9])
        parts.set_params(**changed)
    parts.set_params(sharing="independent").partial_fit(
        train.X[halves[1]], train.y[halves[1]], regimes=train.regimes[halves[1]]
    )
    whole = planted_experts(train, projection=None, sharing="independent")
    for rows in halves:
        whole.partial_fit(train.X[rows], train.y[rows], regimes=train.regimes[rows])
    assert_allclose(parts.coef_, whole.coef_, rtol=0)


def test_a_splitter_divides_the_folds(planted):
    train, _ = planted
    splitter = KFold(4, shuffle=True, random_state=0)
    experts = planted_experts(train, cv=splitter, alphas=[1e-6], sharing="independent", quality_edges=None)
    crossed = experts.fit_predict_each(train.X, train.y, regimes=train.regimes)
    learned, held_out = next(splitter.split(train.X))
    alone = planted_experts(train, alphas=[1e-6], sharing="independent", quality_edges=None)
    alone.fit(train.X[learned], train.y[learned], regimes=train.regimes[learned])
    assert_allclose(crossed[held_out], alone.predict_each(train.X[held_out]), rtol=1e-6, atol=1e-6)
    for refused in (ShuffleSplit(3), PredefinedSplit(np.zeros(4000))):
        with pytest.raises(ValueError, match=r"cv=.* must hold out every row exactly once, in two folds or more"):
            planted_experts(train, cv=refused).fit(train.X, train.y, regimes=train.regimes)


def test_few_rows_have_few_quality_bins_and_empty_cells_show_the_conditions_met(planted):
    train, _ = planted
    few = planted_experts(train, quality_edges=(1, 5, 9)).fit(train.X[:60], train.y[:60], regimes=train.regimes[:60])
    assert few.n_quality_bins_ == 1
    assert set(few.quality_edges_) <= {1, 5, 9}
    many = planted_experts(train, quality_edges="quantile").fit(train.X, train.y, regimes=train.regimes)
    assert many.n_quality_bins_ == 4
    swapped = np.column_stack([np.linspace(-2, 0.5, 4000), np.linspace(3800, 6000, 4000)])
    with pytest.warns(EmptyCellWarning, match=r"condition 0 runs from -2 to 0.5, its edges are \(4500, 5250\)"):
        planted_experts(train, regime_edges=((4500, 5250), (-1, 0))).fit(train.X, train.y, regimes=swapped)

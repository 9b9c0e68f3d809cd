"""Factor experts: alone and in the mixture, wherever the rows lie, with pixels missing, several targets, bad input."""

import pickle
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import log_softmax, softmax
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import r2_score

import dualgate.rows.sources
import dualgate.rows.store
from dualgate import DualTowerMoERegressor, FactorExperts, HierarchicalExperts, PhysGate, QualityGate
from dualgate.experts import EmptyCellWarning
from dualgate.experts.factor_experts import warn_of_components
from dualgate.experts.factor_mixture import FactorMixture
from dualgate.features import WienerScores
from dualgate.rows import cluster

P = 30
FLUX, ERROR = slice(0, P), slice(P, None)


def draw(n_rows, seed):
    """Three regimes with a line of their own each, and errors that differ by a factor of ten."""
    rng, planted = np.random.default_rng(seed), np.random.default_rng(0)
    loadings, slopes = planted.normal(size=(4, P)), planted.normal(size=(3, 4))
    regimes, error = rng.integers(3, size=n_rows), np.exp(rng.uniform(-2, 0.3, size=(n_rows, 1))) * np.ones(P)
    factors = rng.normal(size=(n_rows, 4))
    factors[:, 0] += 2 * regimes
    y = np.einsum("ij,ij->i", factors, slopes[regimes]) + 0.1 * rng.normal(size=n_rows)
    flux = 3 + factors @ loadings + error * rng.normal(size=error.shape)
    return np.hstack([flux, error]), y, regimes, factors


@pytest.fixture(scope="module")
def problem():
    return draw(1500, 1)


@pytest.fixture(scope="module")
def unseen():
    return draw(3000, 2)


def experts(**params):
    return FactorExperts(FLUX, ERROR, **{"refine": 2, "random_state": 0, **params})


@pytest.fixture(scope="module")
def fitted(problem):
    X, y, regimes, _ = problem
    return experts().fit(X, y, regimes=regimes)


def towers(**params):
    return DualTowerMoERegressor(
        PhysGate(FLUX), QualityGate(ERROR), experts=experts(), **{"max_epochs": 3, "random_state": 0, **params}
    )


# ---- what it predicts ------------------------------------------------------------------------------------------------


def best_predictions(X):
    """Posterior means of rows of `draw` under the planted mixture itself."""
    planted = np.random.default_rng(0)
    loadings, slopes = planted.normal(size=(4, P)), planted.normal(size=(3, 4))
    planes = np.tile(np.eye(4, 5), (3, 1, 1))
    planes[:, 0, 4] = 2 * np.arange(3)
    levels = 2 * np.arange(3)[:, None] * slopes[:, :1]
    truth = FactorMixture(np.log(np.full(3, 1 / 3)), planes, slopes[:, :, None], levels, np.full((3, 1, 1), 0.01))
    precision = np.einsum("rp,np,sp->nrs", loadings, X[:, ERROR] ** -2, loadings)[:, *np.tril_indices(4)]
    moment = ((X[:, FLUX] - 3) / X[:, ERROR] ** 2) @ loadings.T
    evidence, predictions, _, _ = truth.predict(np.hstack([precision, moment]))
    return (softmax(evidence, axis=1) * predictions[..., 0]).sum(axis=1)


def test_it_comes_near_the_bayes_limit_and_is_calibrated(fitted, unseen):
    density = fitted.predict_density(unseen[0])
    assert r2_score(unseen[1], density.mean) > 0.985 * r2_score(unseen[1], best_predictions(unseen[0]))
    inside = np.abs(density.cdf(unseen[1]) - 0.5) < 0.45
    noisy = unseen[0][:, P] > np.median(unseen[0][:, P])
    for rows in (noisy, ~noisy):  # five standard errors of a share of 0.9 in 1,500 rows, and as much for the fit
        assert abs(inside[rows].mean() - 0.9) < 0.05


def test_predictions_are_the_moments_of_the_density(fitted, unseen):
    X = unseen[0][:200]
    density, (mean, std) = fitted.predict_density(X), fitted.predict(X, return_std=True)
    assert_allclose(mean, density.mean)
    assert_allclose(std, density.std)
    stages = fitted.stages(fitted.reduction_.reduce(0, X))
    weights = softmax(stages["log_evidence"], axis=1)
    assert_allclose((weights * stages["expert_predictions"]).sum(axis=1), mean)


def test_it_needs_no_regimes(problem, unseen):
    X, y, _, _ = problem
    model = experts().fit(X, y)
    assert model.score(unseen[0], unseen[1]) > 0.93 * experts().fit(X, y, regimes=problem[2]).score(*unseen[:2])
    assert experts(n_components=5).fit(X, y).n_components_ == 5


def one_factor(target, seed, n_rows=5000):
    """Rows of three factors of which the target bends along one, and its exact posterior mean."""
    rng = np.random.default_rng(seed)
    loadings, factors = rng.normal(size=(3, 20)), rng.normal(size=(n_rows, 3))
    error = np.exp(rng.uniform(np.log(0.5), np.log(2), size=(n_rows, 1))) * np.ones(20)
    x = factors @ loadings + error * rng.normal(size=error.shape)
    covariance = np.linalg.inv(np.einsum("rp,np,sp->nrs", loadings, error**-2, loadings) + np.eye(3))
    mean = np.einsum("nij,nj->ni", covariance, (x / error**2) @ loadings.T)[:, :1]
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    best = target(mean + np.sqrt(covariance[:, :1, 0]) * nodes) @ weights / weights.sum()
    return np.hstack([x, error]), target(factors[:, 0]) + 0.1 * rng.normal(size=n_rows), best


@pytest.mark.parametrize(("target", "seed"), [(np.abs, 21), (lambda z: np.sin(2 * z), 22)])
def test_a_bent_target_is_found_without_regimes(target, seed):
    X, y, best = one_factor(target, seed)
    model = FactorExperts(slice(0, 20), slice(20, 40), random_state=0, refine=2).fit(X[:2000], y[:2000])
    assert model.score(X[2000:], y[2000:]) > 0.94 * r2_score(y[2000:], best[2000:])


def test_a_linear_target_needs_one_component():
    X, y, best = one_factor(lambda z: 2 * z, 23)
    model = FactorExperts(slice(0, 20), slice(20, 40), random_state=0, refine=2).fit(X[:2000], y[:2000])
    assert model.n_components_ == 1
    assert model.score(X[2000:], y[2000:]) > 0.99 * r2_score(y[2000:], best[2000:])


def test_rows_choose_the_number_of_components():
    X, y, _, _ = draw(4000, 3)
    few, many = (experts(refine=0).fit(X[:n], y[:n]).n_components_ for n in (150, 4000))
    assert few < many


def test_regimes_set_the_least_number_of_components(problem):
    X, y, regimes, _ = problem
    assert experts(refine=0).fit(X[:200], y[:200], regimes=regimes[:200]).n_components_ == 3


def test_refined_loadings_tell_more_of_the_target():
    """A weak factor that decides the target is not among the strongest, which are found without the target."""
    rng = np.random.default_rng(0)
    factors, error = rng.normal(size=(5000, 6)), np.full((5000, 1), 0.5) * np.ones(P)
    strength = np.array([3, 2, 1, 0.15, 0.15, 0.15])[:, None]
    X = np.hstack([factors @ (strength * rng.normal(size=(6, P))) + error * rng.normal(size=error.shape), error])
    y, train, test = factors[:, 3], slice(0, 2000), slice(2000, None)
    loadings = WienerScores(5, columns=FLUX, error_columns=ERROR, max_iter=2)
    models = [experts(projection=loadings, refine=refine).fit(X[train], y[train]) for refine in (0, 8)]
    scores = [model.score(X[test], y[test]) for model in models]
    assert scores[1] > scores[0] + 0.05


def test_clean_loadings_stay_as_they_are(problem):
    X, y, regimes, factors = problem
    flux = 3 + factors @ np.random.default_rng(0).normal(size=(4, P))
    loadings = WienerScores(4, columns=FLUX, error_columns=ERROR).fit(X, clean=flux)
    model = experts(projection=FrozenEstimator(loadings)).fit(X, y, regimes=regimes)
    assert_array_equal(model.projection_.estimator.loadings_, loadings.loadings_)
    assert model.score(*draw(2000, 6)[:2]) > 0.5


# ---- what was not measured -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", ["flux is NaN", "error is NaN", "error is infinite"])
def test_a_masked_pixel_counts_for_nothing(fitted, unseen, mark):
    X = unseen[0][:50].copy()
    expected = X.copy()
    expected[:, 3], expected[:, P + 3] = 0, 1e12  # an error so large that nothing is learned
    if mark == "flux is NaN":
        X[:, 3] = np.nan
    else:
        X[:, P + 3] = np.nan if mark == "error is NaN" else np.inf
    for model in (fitted, mixture_of(fitted)):
        assert_allclose(model.predict(X), model.predict(expected), rtol=1e-6, atol=1e-6)


def mixture_of(model):
    """Mixture without towers that has the fitted experts."""
    mixture = DualTowerMoERegressor("drop", "drop", experts=clone(model), random_state=0)
    X, y, regimes, _ = draw(1500, 1)
    return mixture.fit(X, y, regimes=regimes)


def test_a_row_without_pixels_is_answered_by_the_prior(fitted, problem):
    X, y, _, _ = problem
    row = X[:1].copy()
    row[:, FLUX] = np.nan
    mean, std = fitted.predict(row, return_std=True)
    shares = np.exp(fitted.mixture_.log_share)
    assert_allclose(mean, shares @ fitted.mixture_.levels[:, 0] * y.std() + y.mean(), rtol=1e-6)
    assert_allclose([mean[0], std[0]], [y.mean(), y.std()], atol=0.15 * y.std())


def test_a_fit_with_a_third_of_the_pixels_missing(problem, unseen, fitted):
    X, y, regimes, _ = problem
    X, rng = X.copy(), np.random.default_rng(0)
    X[:, FLUX][rng.uniform(size=(len(X), P)) < 0.3] = np.nan
    masked = unseen[0].copy()
    masked[:, FLUX][rng.uniform(size=(len(masked), P)) < 0.3] = np.nan
    model = DualTowerMoERegressor("drop", "drop", experts=experts(), random_state=0).fit(X, y, regimes=regimes)
    assert model.score(masked, unseen[1]) > fitted.score(*unseen[:2]) - 0.12


def test_towers_need_every_pixel(problem):
    X, y, regimes, _ = problem
    X = X.copy()
    X[4, 2] = np.nan
    with pytest.raises(ValueError, match=r"X\[4, 2\]=nan"):
        towers().fit(X, y, regimes=regimes)


# ---- units, precision, places ----------------------------------------------------------------------------------------


def test_neither_unit_nor_precision_matters(problem, unseen, fitted):
    X, y, regimes, _ = problem
    expected = fitted.predict(unseen[0][:500])
    for unit, precision in ((1e-17, np.float64), (1.0, np.float32), (1e-17, np.float32)):
        model = experts().fit((unit * X).astype(precision), 10 * y - 3, regimes=regimes)
        found = model.predict((unit * unseen[0][:500]).astype(precision))
        assert_allclose((found + 3) / 10, expected, atol=2e-2 * y.std())


def test_a_file_gives_what_memory_gives_and_a_killed_fit_goes_on(problem, tmp_path, monkeypatch):
    X, y, regimes, _ = problem
    monkeypatch.setattr(dualgate.rows.sources, "BLOCK_BYTES", 2 * P * 8 * 256)
    monkeypatch.setattr(dualgate.rows.sources, "_THREAD_ROWS", 128)
    monkeypatch.setattr(dualgate.rows.store, "EVERY_BLOCKS", 1)
    np.save(tmp_path / "x.npy", X)
    stored = np.load(tmp_path / "x.npy", mmap_mode="r")
    model = DualTowerMoERegressor("drop", "drop", experts=experts(n_components=6), random_state=0)
    expected = clone(model).fit(X, y, regimes=regimes).predict(X)
    assert_allclose(clone(model).fit(stored, y, regimes=regimes).predict(stored), expected, rtol=1e-6, atol=1e-6)
    read, left = dualgate.rows.sources.ArrayRows.read_into, [0]

    def dies(self, start, stop, out):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return read(self, start, stop, out)

    rng, deaths = np.random.default_rng(0), 0
    monkeypatch.setattr(dualgate.rows.sources.ArrayRows, "read_into", dies)
    for _ in range(60):
        left[0] = int(rng.integers(5, 40))
        try:
            clone(model).fit(stored, y, regimes=regimes, checkpoint=tmp_path / "fit")
        except KeyboardInterrupt:
            deaths += 1
        else:
            break
    assert deaths >= 3
    left[0] = -1
    found = clone(model).fit(stored, y, regimes=regimes, checkpoint=tmp_path / "fit")
    assert_array_equal(found.predict(stored), clone(model).fit(stored, y, regimes=regimes).predict(stored))


@pytest.mark.loopback
def test_a_cluster_finds_the_same_mixture(problem):
    dask_distributed = pytest.importorskip("distributed")
    X, y, regimes, _ = problem
    here = experts(n_components=6).fit(X, y, regimes=regimes)
    options = {"dashboard_address": ":0", "memory_limit": 0, "silence_logs": "CRITICAL", "processes": False}
    with (
        dask_distributed.LocalCluster(n_workers=2, threads_per_worker=1, **options) as workers,
        dask_distributed.Client(workers) as client,
        cluster.use(client, chunk_rows=400),
    ):
        there = experts(n_components=6).fit(X, y, regimes=regimes)
    assert_allclose(there.predict(X), here.predict(X), rtol=1e-5, atol=1e-5)


def test_memory_does_not_mix_up_parameters(problem, tmp_path):
    X, y, regimes, _ = problem
    model = DualTowerMoERegressor("drop", "drop", experts=experts(), memory=str(tmp_path), random_state=0)
    for params in ({"experts__n_factors": 2}, {"experts__n_factors": 3}, {"experts__n_factors": 2}):
        cached = clone(model).set_params(**params).fit(X, y, regimes=regimes).predict(X)
        alone = clone(model).set_params(memory=None, **params).fit(X, y, regimes=regimes).predict(X)
        assert_array_equal(cached, alone)


# ---- several targets -------------------------------------------------------------------------------------------------


def test_several_targets_are_modelled_jointly(problem, unseen):
    X, y, regimes, factors = problem
    both = np.column_stack([y, factors[:, 0]])
    model = DualTowerMoERegressor("drop", "drop", experts=experts(), random_state=0).fit(X, both, regimes=regimes)
    truth = np.column_stack([unseen[1], unseen[3][:, 0]])
    found, density = model.predict(unseen[0]), model.predict_density(unseen[0])
    assert found.shape == truth.shape
    alone = experts().fit(X, y, regimes=regimes)
    assert r2_score(truth[:, 0], found[:, 0]) > alone.score(*unseen[:2]) - 0.02
    each = [density.log_density(truth)]
    independent = [experts().fit(X, both[:, i], regimes=regimes).predict_density(unseen[0]) for i in range(2)]
    each.append(sum(one.log_density(truth[:, i]) for i, one in enumerate(independent)))
    assert each[0].mean() > each[1].mean()  # the targets share factors: together they are more probable
    assert model.trace(unseen[0][:3]).prediction.shape == (3, 2)


def test_one_column_of_targets_is_one_target(problem):
    X, y, _, _ = problem
    assert_allclose(experts().fit(X, y[:, None]).predict(X)[:, 0], experts().fit(X, y).predict(X), rtol=1e-7)


def test_ridges_and_towers_take_one_target(problem):
    X, y, regimes, _ = problem
    both = np.column_stack([y, y])
    for model in (HierarchicalExperts(FLUX, ERROR), towers()):
        with pytest.raises(ValueError, match=r"one number per row, \(n_samples,\)"):
            model.fit(X, both, regimes=regimes)


# ---- in the mixture --------------------------------------------------------------------------------------------------


def test_without_towers_the_experts_decide(problem, unseen, fitted):
    X, y, regimes, _ = problem
    model = DualTowerMoERegressor("drop", "drop", experts=experts(), random_state=0).fit(X, y, regimes=regimes)
    rows = unseen[0][:100]
    alone = experts(random_state=model.experts_.random_state).fit(X, y, regimes=regimes)
    assert_allclose(model.predict(rows), alone.predict(rows), rtol=1e-9)
    trace = model.trace(rows)
    assert_allclose(trace.log_weights, log_softmax(trace.log_evidence, axis=1))
    assert_allclose(model.predict(rows, return_std=True), alone.predict(rows, return_std=True))
    assert_allclose(model.score_samples(rows), alone.score_samples(rows))
    assert model.net_ is None
    assert trace.phys_logits is None
    assert_array_equal(pickle.loads(pickle.dumps(model)).predict(rows), model.predict(rows))


def test_evidence_is_added_to_the_logits(problem, unseen):
    X, y, regimes, _ = problem
    model = towers().fit(X, y, regimes=regimes)
    trace = model.trace(unseen[0][:100])
    features = {"phys": trace.phys_features, "quality": trace.quality_features}
    logits = model.fuse(features, np.zeros_like(trace.log_evidence))
    assert_allclose(log_softmax(logits + trace.log_evidence, axis=1), trace.log_weights, atol=1e-4)
    assert_allclose(model.fuse(features, trace.log_evidence), trace.log_weights, atol=1e-6)


@pytest.mark.parametrize("fusion", ["concat", "logit_add", "poe", "temperature"])
def test_towers_begin_with_no_correction(problem, unseen, fusion):
    X, y, regimes, _ = problem
    model = towers(fusion=fusion, lr=1e-12, max_epochs=1).fit(X, y, regimes=regimes)
    trace = model.trace(unseen[0][:100])
    assert_allclose(trace.log_weights, log_softmax(trace.log_evidence, axis=1), atol=1e-4)


def test_towers_correct_where_regimes_have_sharp_edges():
    """The likelihood cannot describe boxes with Gaussians; a tower that sees the coordinate can."""
    rng = np.random.default_rng(0)
    place, error = rng.uniform(-1, 1, size=6000), np.full((6000, 8), 0.05)
    regimes, own = np.digitize(place, [-0.33, 0.33]), rng.normal(size=6000)
    y = np.array([1.0, -1.0, 1.0])[regimes] * own
    flux = np.column_stack([place + 0 * own, own])[:, [0, 0, 0, 0, 1, 1, 1, 1]] + error * rng.normal(size=(6000, 8))
    X, train, test = np.hstack([flux, error]), slice(0, 4000), slice(4000, None)
    options = {"experts": FactorExperts(slice(0, 8), slice(8, None), n_components=3, refine=0), "random_state": 0}
    alone = DualTowerMoERegressor("drop", "drop", **options)
    both = DualTowerMoERegressor(PhysGate(slice(0, 8)), "drop", lr=0.02, **options)
    scores = [model.fit(X[train], y[train], regimes=regimes[train]).score(X[test], y[test]) for model in (alone, both)]
    assert scores[1] > scores[0] + 0.01


def test_a_fusion_without_towers_is_named(problem):
    X, y, regimes, _ = problem
    model = DualTowerMoERegressor("drop", "drop", "poe", experts=experts(), random_state=0)
    with pytest.warns(UserWarning, match="fusion='poe' changes nothing where both towers are dropped"):
        model.fit(X, y, regimes=regimes)
    with pytest.raises(ValueError, match="leave no tower: keep at least one, or use experts='factor'"):
        DualTowerMoERegressor("drop", "drop").fit(X, y)
    with pytest.raises(ValueError, match=r"fallback_confidence=0\.5 needs a root ridge"):
        DualTowerMoERegressor("drop", "drop", experts="factor", fallback_confidence=0.5).fit(X, y)
    ridges = DualTowerMoERegressor(max_epochs=1, random_state=0).fit(X, y, regimes=regimes)
    assert not hasattr(ridges, "score_samples")


@pytest.mark.filterwarnings("ignore::dualgate.experts.ExtrapolationWarning")  # rows with errors that are not theirs
def test_pixel_coefficients_predict_rows_of_typical_noise(fitted, problem):
    model = mixture_of(fitted)
    rows = problem[0].copy()
    rows[:, ERROR] = model.experts_.projection_.noise_
    each = model.trace(rows).expert_predictions
    coef = model.pixel_coefficients()
    product = rows[:, FLUX] @ coef.T
    assert_allclose(each - each[:1], product - product[:1], atol=1e-6 * np.abs(each).max())


# ---- unusual rows ----------------------------------------------------------------------------------------------------


def test_usual_rows_score_alike_however_noisy_and_unusual_ones_far_below(fitted, unseen):
    X = unseen[0]
    scores = fitted.score_samples(X)
    noisy = X[:, P] > np.median(X[:, P])
    for rows in (noisy, ~noisy):
        assert abs(scores[rows].mean()) < 0.15
        assert abs(scores[rows].std() - 1) < 0.15
    strange = X[:200].copy()
    strange[:, :P:2] += 6 * strange[:, P::2]  # six errors in every second pixel
    assert fitted.score_samples(strange).max() < -20
    masked = X[:300].copy()
    masked[:, :10] = np.nan
    assert abs(fitted.score_samples(masked).mean()) < 0.25


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_components": 0}, r"n_components=0"),
        ({"n_components": "many"}, r"n_components='many'"),
        ({"n_factors": 0}, r"n_factors=0"),
        ({"refine": -1}, r"refine=-1"),
        ({"max_iter": 0}, r"max_iter=0"),
        ({"tol": -1.0}, r"tol=-1"),
        ({"cv": 1}, r"cv=1"),
        ({"max_rows": 1}, r"max_rows=1"),
    ],
)
def test_parameters_are_checked(problem, params, message):
    with pytest.raises(ValueError, match=f"FactorExperts.{message}"):
        experts(**params).fit(problem[0], problem[1])


def test_before_fit():
    with pytest.raises(NotFittedError):
        experts().predict(np.ones((2, 2 * P)))


def case(name):
    X, y, regimes, _ = draw(300, 7)
    if name == "constant y":
        y = np.full_like(y, 3.0)
    elif name == "a regime with one row":
        regimes = np.r_[3, regimes[1:]]
    elif name == "fewer rows than parameters":
        X, y, regimes = X[:12], y[:12], regimes[:12]
    elif name == "tiny and huge errors":
        X[:150, ERROR], X[150:, ERROR] = 1e-30, 1e30
    elif name == "a row without pixels":
        X[:5, FLUX] = np.nan
    elif name == "two rows":
        X, y, regimes = X[:2], y[:2], np.array([0, 1])
    return X, y, regimes


@pytest.mark.parametrize(
    "name",
    ["constant y", "a regime with one row", "fewer rows than parameters", "tiny and huge errors",
     "a row without pixels", "two rows"],
)  # fmt: skip
@pytest.mark.parametrize("given", [True, False])
def test_extremes_give_finite_predictions(name, given):
    X, y, regimes = case(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model = experts().fit(X, y, regimes=regimes if given else None)
    mean, std = model.predict(X, return_std=True)
    assert np.isfinite(mean).all()
    assert (np.isfinite(std) & (std >= 0)).all()
    if name == "constant y":
        assert_allclose(mean, 3.0, atol=1e-6)


WARNINGS = {
    "constant y": (UserWarning, "y is constant, and so is every prediction"),
    "a regime with one row": (EmptyCellWarning, r"1 of 4 components are left with fewer rows .*: 3 \([0-9.]+ rows\)"),
    "fewer rows than parameters": (EmptyCellWarning, r"[23] of 3 components are left with fewer rows than the"),
    "two rows": (EmptyCellWarning, r"0 \(1\.0 rows\), 1 \(1\.0 rows\).*Lower n_components or n_factors"),
}


@pytest.mark.parametrize("name", WARNINGS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_extremes_are_named(name):
    X, y, regimes = case(name)
    category, message = WARNINGS[name]
    with pytest.warns(category, match=message):
        experts().fit(X, y, regimes=regimes)


@pytest.mark.parametrize("error", [1e-30, 1e30])
def test_errors_of_any_size_give_finite_predictions(problem, error):
    X, y, _, _ = problem
    X = X.copy()
    X[:, ERROR] = error
    mean, std = experts(refine=1).fit(X[:300], y[:300]).predict(X, return_std=True)
    assert np.isfinite(mean).all()
    assert (np.isfinite(std) & (std > 0)).all()
    if error > 1:  # nothing was measured
        assert_allclose(mean, y[:300].mean(), atol=1e-3)


@pytest.mark.parametrize(
    ("value", "columns", "message"),
    [(np.nan, FLUX, "X holds no pixel that was measured"), (0.0, ERROR, "error_columns selects an error of 0.0")],
)
def test_what_cannot_be_fitted_is_named(problem, value, columns, message):
    X = problem[0].copy()
    X[:, columns] = value
    with pytest.raises(ValueError, match=message):
        experts().fit(X, problem[1])


def planted_mixture(shares):
    """One component for every share, alike but for their means."""
    n = len(shares)
    planes, slopes = np.tile(np.eye(4, 3), (n, 1, 1)), np.ones((n, 2, 1))
    planes[:, 0, -1] = np.arange(n)
    return FactorMixture(np.log(shares), planes, slopes, np.zeros((n, 1)), np.ones((n, 1, 1)))


def test_components_without_rows_and_the_same_ones_are_named():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_components(planted_mixture(np.full(4, 0.25)), 1000)
    rows = np.array([500, 0, 499.5, 0.5])
    with pytest.warns(EmptyCellWarning, match=r"2 of 4 .* 3 coefficients .*: 1 \(0\.0 rows\), 3 \(0\.5 rows\)\."):
        warn_of_components(planted_mixture((rows + 1) / 1004), 1000)
    mixture = planted_mixture(np.full(4, 0.25))
    mixture.planes[3] = mixture.planes[1]
    mixture.planes[3, :, :-1], mixture.slopes[3] = -mixture.planes[1, :, :-1], -mixture.slopes[1]  # t may be turned
    with pytest.warns(UserWarning, match="components 1 and 3 have become the same.*lower n_components=4"):
        warn_of_components(mixture, 1000)


def test_one_pixel():
    rng = np.random.default_rng(0)
    x, error = rng.normal(size=(400, 1)), np.full((400, 1), 0.1)
    model = FactorExperts([0], [1], random_state=0).fit(np.hstack([x, error]), 2 * x[:, 0])
    assert model.score(np.hstack([x, error]), 2 * x[:, 0]) > 0.95


@pytest.mark.parametrize("given", [True, False])
def test_more_components_than_rows_can_fill(problem, given):
    X, y, regimes, _ = problem
    with pytest.warns(EmptyCellWarning, match="components are left with fewer rows than"):
        model = experts(n_components=60, refine=0).fit(X[:200], y[:200], regimes=regimes[:200] if given else None)
    assert np.isfinite(model.predict(X[:200])).all()

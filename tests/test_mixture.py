import pickle

import joblib
import numpy as np
import pytest
import sklearn
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import dualgate.statistics
import small_models
from dualgate import DualTowerMoERegressor, HierarchicalExperts, QualityGate
from dualgate.gating import FUSIONS, TemperatureFusion
from dualgate.reduction import Reduction


def planted_model(planted, **params):
    return small_models.planted_model(planted, **{"max_epochs": 30, "experts__quality_edges": (5,), **params})


def quick(planted, **params):
    return planted_model(planted, **{"max_epochs": 3, "experts__quality_edges": None, **params})


@pytest.mark.parametrize("edges", [None, (5,)])
@pytest.mark.parametrize("fusion", sorted(FUSIONS))
def test_the_gate_recovers_planted_regimes(planted, fusion, edges):
    train, test = planted
    model = planted_model(train, fusion=fusion, experts__quality_edges=edges)
    trace = model.fit(train.X, train.y, regimes=train.regimes).trace(test.X)
    over_regimes = trace.weights.reshape(len(test.y), -1, model.experts_.n_quality_bins_).sum(axis=2)
    assert np.mean(over_regimes.argmax(axis=1) == test.regimes) > 0.95
    oracle = r2_score(test.y, model.experts_.predict(test.X, regimes=test.regimes))
    assert r2_score(test.y, trace.prediction) > oracle - 0.02


@pytest.mark.parametrize("fusion", sorted(FUSIONS))
def test_quality_in_the_experts_beats_the_single_tower(planted, fusion):
    train, test = planted
    dual = planted_model(train, fusion=fusion).fit(train.X, train.y, regimes=train.regimes)
    single = planted_model(train, quality_gate="drop", experts__quality_edges=None)
    single.fit(train.X, train.y, regimes=train.regimes)
    # the coefficients should be 0.31 as large for the noisy rows; a gate over plain experts cannot do that
    assert dual.score(test.X, test.y) > single.score(test.X, test.y) + 0.02
    levels = dual.trace(test.X).weights.reshape(len(test.y), -1, 2).sum(axis=1)
    assert np.mean(levels.argmax(axis=1) == 1 - test.level) > 0.95


def test_without_regimes_it_finds_its_own(planted):
    train, test = planted
    model = planted_model(train, n_regimes=16).fit(train.X, train.y)
    assert model.score(test.X, test.y) > r2_score(test.y, model.experts_.predict(test.X)) + 0.1
    # clusters of where a row is: 16 of them tile the four planted quarters nearly purely
    winner = model.predict_weights(test.X).reshape(len(test.y), -1, 2).sum(axis=2).argmax(axis=1)
    purity = sum(np.bincount(test.regimes[winner == k]).max() for k in np.unique(winner)) / len(winner)
    assert purity > 0.85


def test_the_mixture_is_the_weighted_sum_of_its_stages(planted):
    train, test = planted
    model = quick(train).fit(train.X, train.y, regimes=train.regimes)
    trace = model.trace(test.X)
    assert_allclose(trace.weights.sum(axis=1), 1)
    assert_allclose(model.predict(test.X), (np.exp(trace.log_weights) * trace.expert_predictions).sum(1), rtol=1e-5)
    assert_array_equal(model.predict_weights(test.X), trace.weights)
    assert_array_equal(trace.expert_predictions, model.experts_.predict_each(test.X))
    assert_array_equal(trace.root_prediction, model.experts_.predict(test.X))
    assert_array_equal(trace.phys_features, test.X[:, :2])


def test_routing_and_fallback(planted):
    train, test = planted
    model = quick(train, max_epochs=1).fit(train.X, train.y, regimes=train.regimes)
    soft = model.trace(test.X)
    hard = clone(model).set_params(routing="hard").fit(train.X, train.y, regimes=train.regimes).trace(test.X)
    best = soft.weights.argmax(axis=1)
    assert_array_equal(hard.prediction, soft.expert_predictions[np.arange(len(best)), best])
    two = model.set_params(routing=2).trace(test.X)
    assert_array_equal((two.weights > 0).sum(axis=1), 2)
    ratio = np.take_along_axis(two.weights, two.weights.argsort(1)[:, -2:], 1) / np.sort(soft.weights, 1)[:, -2:]
    assert_allclose(ratio[:, 0], ratio[:, 1])  # what is kept keeps its proportions
    assert_allclose(model.set_params(routing=99).predict(test.X), soft.prediction)
    middle = float(np.median(soft.weights.max(axis=1)))
    fallen = model.set_params(routing="soft", fallback_confidence=middle).trace(test.X)
    assert 0.4 < fallen.fell_back.mean() < 0.6
    assert_array_equal(fallen.prediction[fallen.fell_back], fallen.root_prediction[fallen.fell_back])
    assert_array_equal(fallen.prediction[~fallen.fell_back], soft.prediction[~fallen.fell_back])


@pytest.mark.parametrize("dropped", ["phys_gate", "quality_gate"])
def test_a_dropped_tower_has_no_say(planted, dropped):
    train, test = planted
    model = planted_model(train, max_epochs=3).set_params(**{dropped: "drop"})
    model.fit(train.X, train.y, regimes=train.regimes)
    other = test.X.copy()
    other[:, [0, 1] if dropped == "phys_gate" else train.error] += 0.5
    assert_array_equal(model.predict_weights(other), model.predict_weights(test.X))
    trace = model.trace(test.X)
    assert getattr(trace, dropped.replace("gate", "logits")) is None
    assert trace.weights.shape == (len(test.y), 8)


def test_in_sample_predictions_flatter_the_gate():
    rng = np.random.default_rng(0)
    X, y, one = rng.normal(size=(300, 40)), rng.normal(size=300), np.zeros(300, dtype=int)  # nothing to learn
    params = {"random_state": 0, "experts": HierarchicalExperts(alphas=[1e-3])}
    honest, flattered = (
        DualTowerMoERegressor(cross_fit=cross_fit, **params).fit(X, y, regimes=one).history_[0]["train_loss"]
        for cross_fit in (True, False)
    )
    assert flattered < 1 < honest  # one is what the mean of y would lose


def test_same_seed_same_bits_and_global_generators_untouched(planted):
    train, test = planted
    before = np.random.get_state()[1].copy(), torch.random.get_rng_state()  # noqa: NPY002

    def predictions(state):
        return quick(train).set_params(random_state=state).fit(train.X, train.y).predict(test.X)

    for make in (int, np.random.RandomState, np.random.default_rng):
        assert_array_equal(predictions(make(5)), predictions(make(5)))
    assert not np.array_equal(predictions(0), predictions(1))
    predictions(None)
    assert_array_equal(before[0], np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(before[1], torch.random.get_rng_state())


@pytest.mark.parametrize("dump", [pickle, joblib])
def test_a_saved_model_predicts_the_same(planted, dump, tmp_path):
    train, test = planted
    model = quick(train).fit(train.X, train.y)
    with open(tmp_path / "model", "w+b") as file:
        dump.dump(model, file)
        file.seek(0)
        again = dump.load(file)
    assert_array_equal(again.predict(test.X), model.predict(test.X))


def test_search_over_fusions_and_hidden_layers_on_the_plain_default_object():
    rng = np.random.default_rng(0)
    X, regimes = rng.normal(size=(200, 6)), rng.integers(0, 2, 200)
    y = X[:, 0] * np.where(regimes, 1, -1)
    plain = DualTowerMoERegressor(max_epochs=2, random_state=0)
    space = {"fusion": sorted(FUSIONS), "quality_gate__hidden": [(8,), (4, 4)]}
    search = GridSearchCV(plain, space, cv=2, n_jobs=2).fit(X, y, regimes=regimes)
    assert len(search.cv_results_["params"]) == 8
    assert plain.quality_gate is None
    assert search.best_estimator_.quality_gate.hidden == search.best_params_["quality_gate__hidden"]
    assert search.best_estimator_.experts_.n_regimes_ == 2


def test_nested_parameters_leave_the_callers_objects_alone():
    gate, fusion = QualityGate(hidden=(4,)), TemperatureFusion()
    model = DualTowerMoERegressor(quality_gate=gate, fusion=fusion)
    model.set_params(quality_gate__hidden=(9, 9), experts__sharing="offset", fusion="concat", fusion__hidden=7)
    assert gate.hidden == (4,)
    assert (model.quality_gate.hidden, model.experts.sharing, model.fusion.hidden) == ((9, 9), "offset", 7)
    with pytest.raises(ValueError, match="Invalid parameter 'nonsense'"):
        DualTowerMoERegressor().set_params(experts__nonsense=1)


@pytest.mark.parametrize("routing", [False, True])
def test_regimes_are_sliced_by_cross_validation(planted, routing):
    train, _ = planted
    seen = []

    class Watching(DualTowerMoERegressor):
        def fit(self, X, y, *, regimes=None):
            seen.append((X, regimes))
            return super().fit(X, y, regimes=regimes)

    X = np.column_stack([np.arange(400.0), train.X[:400]])
    model = Watching(max_epochs=1, random_state=0)
    with sklearn.config_context(enable_metadata_routing=routing):
        cross_validate(model, X, train.y[:400], cv=KFold(4), params={"regimes": train.regimes[:400]})
        GridSearchCV(model, {"fusion": ["poe"]}, cv=KFold(4)).fit(X, train.y[:400], regimes=train.regimes[:400])
    assert len(seen) == 4 + 5
    for rows, regimes in seen:
        assert_array_equal(regimes, train.regimes[rows[:, 0].astype(int)])


def test_works_in_a_pipeline(planted):
    train, test = planted
    model = make_pipeline(FunctionTransformer(), quick(train))
    model.fit(train.X, train.y, dualtowermoeregressor__regimes=train.regimes)
    alone = quick(train).fit(train.X, train.y, regimes=train.regimes)
    assert_array_equal(model.predict(test.X), alone.predict(test.X))


def test_memory_computes_features_and_experts_once(planted, tmp_path):
    train, _ = planted

    def fit(**params):
        return quick(train, **params).fit(train.X, train.y, regimes=train.regimes).predict(train.X)

    def entries():
        return {path.name for path in tmp_path.rglob("*") if path.is_file()}

    fit(memory=str(tmp_path))
    first = entries()
    assert first
    networks = "cnn", torch.nn.Linear, lambda n_features, n_outputs: torch.nn.Linear(n_features, n_outputs)
    for name, values in {"fusion": FUSIONS, "phys_gate__network": networks}.items():
        for value in values:
            assert_array_equal(fit(memory=str(tmp_path), **{name: value}), fit(**{name: value}))
    assert entries() == first
    quick(train, memory=str(tmp_path)).fit(train.X, train.y + 1, regimes=train.regimes)  # other data, other fit
    assert len(entries()) > len(first)


def test_for_spectra_is_an_ordinary_estimator_whose_parts_can_be_set():
    wave = np.linspace(8000, 8800, 300)
    model = DualTowerMoERegressor.for_spectra(wave, experts="hierarchical", fusion="poe", random_state=3)
    assert (model.fusion, model.random_state) == ("poe", 3)
    model.set_params(experts__quality_edges=None, quality_gate="drop", max_epochs=2)
    assert clone(model).experts.quality_edges is None
    rng = np.random.default_rng(0)
    X = np.hstack([rng.normal(1, 0.1, (120, 300)), np.full((120, 300), 0.1)])
    conditions = np.column_stack([rng.uniform(3750, 6000, 120), rng.uniform(-2.5, 0.75, 120)])
    model.set_params(experts__regime_edges=((4800,), (-1,))).fit(X, rng.normal(size=120), regimes=conditions)
    trace = model.trace(X)
    assert trace.phys_features.shape == (120, 9 + 1 + 3 * 4)  # lines, then discriminants of y and of four regimes
    assert trace.quality_features is None
    assert list(model.phys_gate_.get_feature_names_out()[:2]) == ["ca_8498_depth", "ca_8498_width"]
    names = model.tower_feature_names()["phys"]
    assert len(names) == 22
    assert names[8:11] == ["ca_width", "y", "regime_0"]


def test_target_unit_and_offset_do_not_change_the_fit(planted):
    train, test = planted
    base = quick(train).fit(train.X, train.y, regimes=train.regimes).predict(test.X)
    other = quick(train).fit(train.X, 1e4 * train.y + 5e5, regimes=train.regimes).predict(test.X)
    assert_allclose((other - 5e5) / 1e4, base, atol=1e-3)


def test_a_column_of_large_numbers_hides_no_other():
    rng = np.random.default_rng(0)
    X, regimes = rng.normal(size=(1500, 3)), rng.integers(0, 3, 1500)
    X[:, 0] += 2 * regimes
    y = X[:, 1] * np.array([2.0, -1.0, 0.5])[regimes] + X[:, 2]
    large = np.column_stack([X, 1.6e9 + 1e7 * rng.normal(size=1500)])
    plain, other = (
        DualTowerMoERegressor(random_state=0, max_epochs=10).fit(rows, y, regimes=regimes) for rows in (X, large)
    )
    assert other.experts_.score(large, y) > plain.experts_.score(X, y) - 0.01
    assert other.score(large, y) > plain.score(X, y) - 0.03
    assert plain.score(X, y) > 0.7


def test_any_random_state_of_the_experts_works_without_regimes(planted):
    train, _ = planted
    for state in (np.random.default_rng(0), np.random.RandomState(0), 3):
        experts = HierarchicalExperts(train.flux, random_state=state)
        model = DualTowerMoERegressor(experts=experts, n_regimes=2, max_epochs=1, random_state=0)
        assert model.fit(train.X[:400], train.y[:400]).experts_.n_regimes_ <= 2


def test_a_dropped_tower_has_no_parameters():
    with pytest.raises(ValueError, match=r"phys_gate='drop' has no parameters: set phys_gate=None.*phys_gate__hidden"):
        DualTowerMoERegressor(phys_gate="drop").set_params(phys_gate__hidden=(4,))
    model = DualTowerMoERegressor(phys_gate="drop").set_params(phys_gate=None, phys_gate__hidden=(4,))
    assert model.phys_gate.hidden == (4,)


def test_what_cannot_be_told_from_others_is_named_where_results_are_stored(planted, tmp_path):
    train, _ = planted
    model = quick(train).set_params(phys_gate__features=FunctionTransformer(lambda rows: rows))
    with pytest.raises(TypeError, match=r"<lambda>.*use a function or class of a module"):
        model.fit(train.X, train.y, regimes=train.regimes, checkpoint=tmp_path / "store")


def test_statistics_that_do_not_fit_are_refused_before_any_row_is_read(monkeypatch):
    rng, read = np.random.default_rng(0), []
    X, y = rng.normal(size=(500, 8192)), rng.normal(size=500)
    monkeypatch.setattr(dualgate.statistics, "memory_limit", lambda: 2**30)
    monkeypatch.setattr(Reduction, "learn", lambda *arguments: read.append(1))
    with pytest.raises(ValueError, match=r"HierarchicalExperts\.projection=None leaves 8,192 columns: .* GiB"):
        DualTowerMoERegressor(experts=HierarchicalExperts(projection=None)).fit(X, y)
    assert read == []


def test_memory_and_a_file_give_the_same_mixture(planted, tmp_path):
    train, test = planted
    np.save(tmp_path / "x.npy", train.X)
    stored = np.load(tmp_path / "x.npy", mmap_mode="r")
    for regimes in (train.regimes, None):
        here, there = (quick(train).fit(rows, train.y, regimes=regimes) for rows in (train.X, stored))
        assert_array_equal(there.predict(test.X), here.predict(test.X))
        assert_array_equal(here.predict(stored), here.predict(train.X))


def test_a_trace_prints_its_stages_in_a_few_lines(planted):
    train, test = planted
    trace = quick(train).fit(train.X, train.y, regimes=train.regimes).trace(test.X)
    lines = repr(trace).splitlines()
    assert lines[0] == "MixtureTrace of 2,000 rows"
    assert len(lines) < 15


def test_plain_defaults_find_the_planted_regimes_and_few_components(planted):
    train, test = planted
    rng = np.random.default_rng(3)
    mixing = rng.normal(size=(8, 120)) * np.logspace(-2, 2, 120)
    unit = 0.1 * np.abs(mixing).mean(axis=0)
    wide, other = (each.X[:, :8] @ mixing + unit * rng.normal(size=(len(each.y), 120)) for each in (train, test))
    model = DualTowerMoERegressor(random_state=0).fit(wide, train.y, regimes=train.regimes)
    assert len(model.experts_.projection_.components_) == 8
    oracle = r2_score(test.y, model.experts_.predict(other, regimes=test.regimes))
    assert model.score(other, test.y) > oracle - 0.03
    assert model.score(other, test.y) > model.experts_.score(other, test.y) + 0.1


def test_a_linear_start_is_the_logistic_regression_of_the_cells(planted):
    train, _ = planted
    params = {"loss": "cross_entropy", "lr": 1e-12, "max_epochs": 1, "validation_fraction": 0.0, "quality_gate": "drop"}
    model = planted_model(train, fusion="logit_add", start="linear", experts__quality_edges=None, **params)
    weights = model.fit(train.X, train.y, regimes=train.regimes).predict_weights(train.X)
    place = StandardScaler().fit_transform(train.X[:, :2])
    expected = (
        LogisticRegression(C=len(place) / 300, max_iter=1000, tol=1e-8).fit(place, train.regimes).predict_proba(place)
    )
    assert_allclose(weights, expected, atol=2e-3)


def test_the_start_with_the_smaller_held_out_loss_is_kept(planted):
    train, _ = planted
    losses = {}
    for start in ("linear", "random"):
        model = planted_model(train, start=start, experts__quality_edges=None, lr=1e-3, max_epochs=2)
        losses[start] = min(e["valid_loss"] for e in model.fit(train.X, train.y, regimes=train.regimes).history_)
    assert losses["linear"] < 0.7 * losses["random"]
    with pytest.raises(ValueError, match=r"DualTowerMoERegressor\.start='cold' must be one of 'linear', 'random'"):
        planted_model(train, start="cold").fit(train.X, train.y)

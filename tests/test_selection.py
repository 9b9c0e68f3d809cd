"""The one-standard-error rule against hand calculation and simulation, and single against dual towers."""

import pickle
from statistics import mean, stdev

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import make_regression
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.preprocessing import FunctionTransformer
from sklearn.tree import DecisionTreeRegressor

from conftest import Planted
from dualgate import (
    DualTowerMoERegressor,
    HierarchicalExperts,
    OneStandardError,
    PhysGate,
    QualityGate,
    select_towers,
)
from dualgate.gating import FUSIONS
from dualgate.rows import ArrayRows
from dualgate.selection import tower_levels

FOLDS = KFold(3, shuffle=True, random_state=0)


def results(scores, metric="score", **params):
    """Make ``cv_results_`` of candidates x splits."""
    columns = {f"split{split}_test_{metric}": np.array(column) for split, column in enumerate(np.transpose(scores))}
    each = [dict(zip(params, values, strict=True)) for values in zip(*params.values(), strict=True)]
    return {"params": each or [{} for _ in scores], **columns}


def depth(parameters):
    return parameters["max_depth"]


def test_the_rule_agrees_with_a_calculation_by_hand():
    simple, best = [0.50, 0.62, 0.71, 0.54], [0.55, 0.63, 0.77, 0.56]
    found = OneStandardError().compare([simple, best], [0, 1])
    gains = [b - a for a, b in zip(simple, best, strict=True)]
    margin = stdev(gains) * (1 / 4 + 1 / 3) ** 0.5
    assert_allclose([found["behind"][0], found["margin"][0]], [mean(gains), margin])
    assert mean(gains) > margin
    assert found["chosen"] == found["best"] == 1
    own = stdev(best) / 2  # the splits differ more than the candidates do
    assert own > mean(gains)
    classical = OneStandardError(paired=False).compare([simple, best], [0, 1])
    assert_allclose([classical["margin"][0], classical["standard_error"][1]], own)
    assert classical["chosen"] == 0
    wide = OneStandardError(test_ratio=9.0).compare([simple, best], [0, 1])
    assert_allclose(wide["margin"][0], stdev(gains) * (1 / 4 + 9) ** 0.5)
    assert wide["chosen"] == 0


def test_the_simplest_wins_ties_and_the_best_wins_among_the_equally_simple():
    tied = [[0.5, 0.7, 0.6]] * 3
    assert OneStandardError()(results(tied)) == 0
    assert OneStandardError(depth)(results(tied, max_depth=[3, 1, 2])) == 1
    noisy = [[0.50, 0.70, 0.61], [0.53, 0.69, 0.63], [0.49, 0.72, 0.65], [0.50, 0.70, 0.60]]
    assert OneStandardError(depth)(results(noisy, max_depth=[1, 1, 2, 1])) == 1


def test_candidates_with_failed_splits_are_left_out():
    scores = [[0.5, np.nan, 0.6], [0.5, 0.7, 0.55], [np.inf, 0.7, 0.6], [0.9, 0.95, 0.9]]
    found = OneStandardError().compare(scores, [0, 1, 2, 3])
    assert found["chosen"] == 3
    assert_array_equal(found["within"], [False, False, False, True])
    assert_array_equal(np.isnan(found["mean"]), [True, False, True, False])


@settings(max_examples=50)
@given(
    st.lists(st.lists(st.integers(-64, 64), min_size=4, max_size=4), min_size=1, max_size=5),
    st.lists(st.integers(-640, 640), min_size=4, max_size=4),
)
def test_how_hard_the_splits_are_does_not_matter(scores, hardness):
    scores, hardness = np.array(scores) / 64, np.array(hardness) / 64  # sums are exact
    found, moved = (OneStandardError().compare(each, range(len(each))) for each in (scores, scores + hardness))
    assert (found["best"], found["chosen"]) == (moved["best"], moved["chosen"])
    assert_array_equal(found["margin"], moved["margin"])
    assert found["within"][found["chosen"]]
    assert found["chosen"] <= found["best"]


def choices(gain, *, between, n_trials=300, **params):
    """How often the simple candidate is chosen where the better of four others, all alike, gains so much."""
    rng, simple = np.random.default_rng(0), 0
    for _ in range(n_trials):
        scores = rng.normal(0, between, 5) + rng.normal(0, 0.005, (5, 5))
        scores[1:] += gain
        simple += OneStandardError(**params).compare(scores, [0, 1, 1, 1, 1])["chosen"] == 0
    return simple / n_trials


def test_why_the_rule_is_paired():
    for between in (0.005, 0.03):  # scatter of the splits, common to all candidates
        assert choices(0.0, between=between) > 0.6  # four chances to be better by luck
        assert choices(0.015, between=between) < 0.1
    assert choices(0.015, between=0.03, paired=False) > 0.15  # a gain of three scatters, and missed
    assert choices(0.0, between=0.0, test_ratio=0.0) < choices(0.0, between=0.0) - 0.1  # as if rows were not shared


def test_in_a_search_with_several_metrics():
    X, y = make_regression(300, 5, noise=20.0, random_state=0)
    errors = ["r2", "neg_mean_absolute_error"]
    grid = {"max_depth": [2, 3, 4, 6, 9, 14]}
    refit = OneStandardError(depth, metric="neg_mean_absolute_error")
    search = GridSearchCV(DecisionTreeRegressor(random_state=0), grid, scoring=errors, refit=refit, cv=FOLDS)
    search = pickle.loads(pickle.dumps(clone(search).fit(X, y)))
    scores = [
        cross_val_score(DecisionTreeRegressor(max_depth=each, random_state=0), X, y, scoring=errors[1], cv=FOLDS)
        for each in grid["max_depth"]
    ]
    best = scores[int(np.argmax(np.mean(scores, axis=1)))]
    within = [mean(best - each) <= np.std(best - each, ddof=1) * (1 / 3 + 1 / 2) ** 0.5 for each in scores]
    assert search.best_index_ == within.index(True)
    assert search.best_estimator_.get_depth() == search.best_params_["max_depth"] < 14


def test_in_a_search_over_fusions_with_regimes(small):
    search = GridSearchCV(towers(small), {"fusion": ["logit_add", "poe"]}, refit=OneStandardError(), cv=FOLDS)
    search.fit(small.X, small.y, regimes=small.regimes)
    assert search.best_index_ == OneStandardError()(search.cv_results_)
    assert search.best_estimator_.experts_.n_regimes_ == 4
    assert search.best_estimator_.fusion == search.best_params_["fusion"]


@pytest.mark.parametrize(
    ("rule", "scores", "named"),
    [
        (OneStandardError(), [[0.5, 0.6]], "metric='score' must be a score of the search, which has 'r2'"),
        (OneStandardError("max_depth", "r2"), [[0.5, 0.6]], "by='max_depth' must be None or a callable"),
        (OneStandardError(metric="r2"), [[0.5]], "1 split, 1 candidates"),
        (OneStandardError(metric="r2"), np.full((2, 3), np.nan), "3 splits, 0 candidates.*error_score='raise'"),
        (OneStandardError(metric="r2", test_ratio=-1), [[0.5, 0.6]], "test_ratio=-1 must be a number at least 0"),
    ],
)
def test_the_rule_refuses_what_is_wrong(rule, scores, named):
    with pytest.raises(ValueError, match=named):
        rule(results(scores, metric="r2"))


@pytest.fixture(scope="module")
def small():
    return Planted(900, seed=0)


def towers(planted, **params):
    experts = HierarchicalExperts(planted.flux, planted.error, quality_edges=(5,))
    model = DualTowerMoERegressor(
        PhysGate([0, 1]), QualityGate(planted.error, "passthrough"), experts=experts, random_state=0, max_epochs=6
    )
    return model.set_params(**params)


def some(model, *names):
    """The default candidates of these names, in their levels."""
    levels = [{name: level[name] for name in level if name in names} for level in tower_levels(model)]
    return [level for level in levels if level]


PHYSICS, DUAL = "physics tower, quality bins", "both towers (poe), quality bins"


def test_two_towers_are_chosen_where_they_help(small):
    model = towers(small)
    levels = some(model, "physics tower", PHYSICS, DUAL)
    found = select_towers(model, small.X, small.y, regimes=small.regimes, candidates=levels, cv=FOLDS)
    assert found.chosen == found.best == DUAL
    assert_array_equal(found.table["level"], [0, 1, 2])
    assert found.table.loc[DUAL, "behind"] == 0
    assert found.table.loc[PHYSICS, "behind"] > 0.02
    fresh = Planted(500, seed=1)
    assert found.best_estimator_.score(fresh.X, fresh.y) > found.table.loc[PHYSICS, "mean"]
    assert found.best_estimator_.fusion == "poe"
    assert (model.fusion, hasattr(model, "net_")) == ("concat", False)
    assert f"Chosen: {DUAL}, the best" in repr(found)


def test_rows_read_together_give_the_scores_of_rows_read_apart(small):
    model = towers(small, max_epochs=1, experts__quality_edges=None)  # one expert: the towers have no say
    levels = [{"strong": {"experts__alphas": (1e5,)}}, {"weak": {"experts__alphas": (1.0,), "quality_gate": "drop"}}]
    found = select_towers(model, small.X, small.y, regimes=np.zeros(900, int), candidates=levels, cv=FOLDS)
    params = {"regimes": np.zeros(900, int)}
    for scores, changes in zip(found.split_scores, (levels[0]["strong"], levels[1]["weak"]), strict=True):
        alone = clone(model).set_params(**changes)
        assert_allclose(scores, cross_val_score(alone, small.X, small.y, params=params, cv=FOLDS), rtol=1e-6)
    assert found.chosen == "weak"


def test_a_single_tower_is_chosen_where_quality_tells_nothing():
    n_lucky, chosen = 0, []
    for seed in (3, 4):
        planted = Planted(400, seed)
        planted.X[:, planted.error] = 0.7
        model = towers(planted, experts__quality_edges=None, max_epochs=10, lr=0.03, start="random")
        levels = some(model, "physics tower", "both towers (logit_add)", "both towers (temperature)")
        found = select_towers(model, planted.X, planted.y, regimes=planted.regimes, candidates=levels, cv=FOLDS)
        n_lucky += found.best != "physics tower"
        chosen.append(found.chosen)
    assert n_lucky > 0  # two towers were the best by chance
    assert chosen == ["physics tower"] * 2
    assert found.best_estimator_.quality_gate_ is None


class CountedRows(ArrayRows):
    """Rows that count how often one is read."""

    n_read = 0

    def read(self, start, stop):
        self.n_read += stop - start
        return super().read(start, stop)


def test_all_candidates_share_the_reading_of_a_source(small):
    model = towers(small, max_epochs=1)
    both = {"both": {}, "poe": {"fusion": "poe"}}
    n_read = []
    for candidates in ([both], [{"physics": {"quality_gate": "drop"}, "hard": {"routing": "hard"}}, both]):
        rows = CountedRows(small.X)
        found = select_towers(model, rows, small.y, regimes=small.regimes, candidates=candidates, cv=2)
        n_read.append(rows.n_read)
    assert n_read[0] == n_read[1] > 0
    array = select_towers(model, small.X, small.y, regimes=small.regimes, candidates=candidates, cv=2)
    assert_allclose(array.split_scores, found.split_scores, rtol=1e-5)


@pytest.mark.parametrize(
    "reading",
    [
        {"phys_gate": PhysGate([0, 1], FunctionTransformer(np.zeros_like), discriminants=False)},
        {"experts__columns": [0, 1], "experts__error_columns": None},
    ],
)
def test_candidates_that_read_differently_read_for_themselves(small, reading):
    model = towers(small, experts__quality_edges=None)
    levels = [{"blind": {**reading, "quality_gate": "drop"}}, {"seeing": {"quality_gate": "drop"}}]
    frame, regimes = pd.DataFrame(small.X), pd.Series(small.regimes, index=small.y)
    options = {"regimes": regimes, "cv": FOLDS, "scoring": "neg_mean_absolute_error"}
    found = select_towers(model, frame, small.y, candidates=levels, **options)
    assert found.chosen == "seeing"
    assert found.table["mean"].max() < 0


def test_the_default_candidates_grow_from_one_tower_to_two_with_bins(small):
    levels = tower_levels(towers(small))
    assert [len(level) for level in levels] == [4, len(FUSIONS), 4, len(FUSIONS)]
    models = [[towers(small).set_params(**changes) for changes in level.values()] for level in levels]
    dropped = [{(each.phys_gate, each.quality_gate).count("drop") for each in level} for level in models]
    assert dropped == [{1}, {0}, {1}, {0}]
    edges = [{each.experts.quality_edges for each in level} for level in models]
    assert edges == [{None}, {None}, {(5,)}, {(5,)}]
    assert [list(level) for level in tower_levels(towers(small, quality_gate="drop"))] == [
        ["physics tower", "physics tower (hidden layer)"],
        [PHYSICS, "physics tower (hidden layer), quality bins"],
    ]
    assert len(tower_levels(towers(small, experts__quality_edges=None))) == 2


@pytest.mark.parametrize("candidates", [[], [{}], {"one": {}}, [{"one": {}}, {"one": {}}], [{"one": "poe"}], ["one"]])
def test_selection_refuses_what_is_wrong(small, candidates):
    model = towers(small)
    with pytest.raises(ValueError, match="candidates must be a sequence of levels"):
        select_towers(model, small.X, small.y, candidates=candidates)
    with pytest.raises(TypeError, match=r"model is a Ridge.*refit=OneStandardError"):
        select_towers(Ridge(), small.X, small.y)
    with pytest.raises(ValueError, match="Invalid parameter 'fusoin'"):
        select_towers(model, small.X, small.y, candidates=[{"typo": {"fusoin": "poe"}}])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        select_towers(model, small.X, small.y[:-1])

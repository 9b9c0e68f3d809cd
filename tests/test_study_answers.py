"""What the study answers, interprets and recommends, on records whose truth is known."""

import warnings
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from dualgate.datasets import stream_spectra
from dualgate.experts.regimes import EmptyCellWarning
from dualgate.features import QualityStatistics
from dualgate.features.quality import STATISTICS
from dualgate.gating import GateCollapseWarning
from dualgate.study import analyse, run_study
from dualgate.study.answers import Candidates, answer_all, recommend
from dualgate.study.bayes import bayes_share
from dualgate.study.config import StudyConfig, Thresholds
from dualgate.study.data import ERRORS, LINES, REGIMES, SIMULATOR, StudyRows
from dualgate.study.extras import limit_of_rows
from dualgate.study.gates import describe_gates, lead_of
from dualgate.study.places import changes
from dualgate.study.roster import ROSTER, choose_methods
from dualgate.study.scoring import StudyScores
from dualgate.study.stages import READING, SURVEY, Stage, Stages
from dualgate.study.verdict import FAIL, MARGINAL, PASS
from planted_study import planted_record, planted_rows, quick_model

NAMES = ("global", "oracle_9", "phys_9", "quality_9", "logit_add_9", "temperature_9", "concat_9")
OFFERS = frozenset({ERRORS, LINES, REGIMES, SIMULATOR})
METHODS = [ROSTER[name] for name in NAMES]


def candidates_of(errors, n_samples=1500):
    records = [planted_record(seed, errors, n_samples=n_samples) for seed in (1, 2, 3)]
    return Candidates(METHODS, StudyScores(records, METHODS, 200, Thresholds()))


# ---- what to ship ------------------------------------------------------------------------------------------


def test_the_simplest_of_equals_is_shipped():
    """Towers that predict alike differ by luck, and luck is within its own error in most draws."""
    shipped = []
    for trial in range(20):
        records = [planted_record(10 * trial + seed, {}, n_samples=200) for seed in range(3)]
        found = recommend(Candidates(METHODS, StudyScores(records, METHODS, 100, Thresholds())), PASS)
        assert found["candidates"][0]["name"] == "global"
        shipped.append(NAMES.index(found["name"]))
    assert np.mean(np.array(shipped) == 0) > 0.4
    assert np.median(shipped) < NAMES.index("logit_add_9")


def test_a_model_that_is_clearly_better_is_shipped():
    found = recommend(candidates_of({"global": 0.8, "phys_9": 0.7, "concat_9": 0.3}), PASS)
    assert found["name"] == found["best"] == "concat_9"
    assert [line["name"] for line in found["candidates"] if line["within"]] == ["concat_9"]


def test_a_dual_model_that_failed_is_no_candidate():
    found = recommend(candidates_of({"global": 0.8, "phys_9": 0.4, "concat_9": 0.3}), FAIL)
    assert found["name"] == "phys_9"
    assert {line["name"] for line in found["candidates"]} == {"global", "phys_9", "quality_9"}


def test_what_differs_by_less_than_its_error_is_within():
    """The lag and its error are those of the paired difference, not of two scores on their own."""
    candidates = candidates_of({"global": 0.8})
    scores = candidates.scores
    for record in scores.records:  # the physics tower is the concat model but for a little more noise of its own
        rng = np.random.default_rng(record.seed)
        for part in (record.predictions, record.validation):
            part["phys_9"] = part["concat_9"] + 0.05 * rng.normal(size=len(part["concat_9"]))
        record.validation_r2["phys_9"] = 0.0
    paired = StudyScores(scores.records, METHODS, 200, Thresholds()).validation_lag("phys_9", "concat_9")
    assert paired[1] < 0.3 * scores.validation_lag("quality_9", "concat_9")[1]


# ---- questions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fall", "scatter", "verdict"),
    [((-0.9, -0.8), 0.35, PASS), ((-0.9, -0.8), 0.5, FAIL), ((-0.1, 0.1), 0.35, FAIL), ((0.8, 0.9), 0.35, FAIL)],
)
def test_the_temperature_must_fall_and_pay(fall, scatter, verdict):
    rho = {"value": float(np.mean(fall)), "low": fall[0], "high": fall[1], "confidence": 0.95}
    gates = {"temperature_9": {"temperature": {"rho": rho}}}
    answers = answer_all(candidates_of({"temperature_9": scatter}), gates, Thresholds())
    assert {answer["id"]: answer["verdict"] for answer in answers}["Q6.2"] == verdict


def test_a_verdict_carries_the_interval_that_decides():
    candidates = candidates_of({"phys_9": 0.5, "quality_9": 0.9, "global": 0.9, "concat_9": 0.3, "oracle_9": 0.3})
    answers = {answer["id"]: answer for answer in answer_all(candidates, {}, Thresholds())}
    assert answers.keys() == {"Q6.1", "S1.2, S4.1", "S1.2", "S4.1", "S5.2"}
    for answer in answers.values():
        for part in answer["parts"]:
            reached = PASS if part["low"] >= part["bar"] else FAIL
            assert part["verdict"] == reached
            assert part["low"] <= part["value"] <= part["high"]
    assert answers["S5.2"]["dual"] == "concat_9"
    assert {answer["verdict"] for answer in answers.values()} == {PASS}


# ---- gates -------------------------------------------------------------------------------------------------


def traced(record, name, phys, quality, weights):
    cut = record.n_validation
    zeros = np.zeros((cut, 1))
    pad = [np.vstack([np.repeat(zeros, each.shape[1], axis=1), each]) for each in (phys, quality, np.log(weights))]
    record.traces[name] = {
        "phys_logits": pad[0],
        "quality_logits": pad[1],
        "log_weights": np.vstack([np.full((cut, 9), -np.log(9)), pad[2][cut:]]),
        "expert_predictions": np.zeros((len(pad[0]), 9)),
        "root_prediction": np.zeros(len(pad[0])),
    }


def test_a_planted_gate_is_read_as_it_was_planted():
    """Temperatures that fall with SNR, a physics tower that knows the regime, a quality tower that knows the bin."""
    names = ("temperature_9", "logit_add_9")
    records = [planted_record(seed, {}) for seed in (1, 2)]
    for record in records:
        rng = np.random.default_rng(record.seed)
        own = np.eye(9)[record.regimes]
        phys = 5 * own + 0.1 * rng.normal(size=own.shape)
        cold = -record.snr[:, None] + 0.1 * rng.normal(size=(len(own), 1))
        bins = np.eye(9)[np.digitize(record.snr, [2, 4, 7])] + 0.1 * rng.normal(size=own.shape)
        weights = 0.9 * own + 0.1 / 9
        traced(record, "temperature_9", phys, cold, weights)
        traced(record, "logit_add_9", phys, bins, weights)
    methods = [ROSTER[name] for name in names]
    scores = StudyScores(records, [ROSTER[name] for name in NAMES], 50, Thresholds())
    found = describe_gates(records, methods, scores, Thresholds())
    assert found["temperature_9"]["temperature"]["rho"]["high"] < -0.9
    means = [each["value"] for each in found["temperature_9"]["temperature"]["means"]]
    assert means == sorted(means, reverse=True)
    assert min(means) >= 1
    assert found["logit_add_9"]["axes"]["physics"]["low"] > 0.8
    assert found["logit_add_9"]["axes"]["quality"]["low"] > 0.8
    assert found["logit_add_9"]["accuracy"] == 1
    assert_allclose(np.diag(found["logit_add_9"]["confusion"]), 0.9 + 0.1 / 9, atol=1e-3)


@given(seed=st.integers(0, 999))
def test_the_lead_of_an_axis_is_an_analysis_of_variance(seed):
    rng = np.random.default_rng(seed)
    own, other, outputs = rng.integers(3, size=40), rng.integers(2, size=40), rng.normal(size=(40, 2))
    rows = rng.integers(40, size=40)  # a resample is the same as its rows written out
    weights = np.bincount(rows, minlength=40)[None].astype(float)

    def explained(groups, x):
        """What a one-way analysis of variance explains beyond its degrees of freedom."""
        codes = np.unique(groups)
        within = sum(np.square(x[groups == g] - x[groups == g].mean(0)).sum() for g in codes)
        between = np.square(x - x.mean(0)).sum() - within
        return between - (len(codes) - 1) * within / (len(x) - len(codes))

    x = outputs[rows]
    expected = (explained(own[rows], x) - explained(other[rows], x)) / np.square(x - x.mean(0)).sum()
    assert_allclose(lead_of(outputs, own, other, weights), [expected], rtol=1e-9)


def test_towers_that_know_no_axis_speak_of_none():
    """Nine regimes would explain more of nothing than four bins, and rows drawn twice look like groups."""
    found = []
    for trial in range(40):
        record = planted_record(trial, {}, n_samples=200)
        rng = np.random.default_rng(1000 + trial)
        phys, quality = rng.normal(size=(2, 200, 9))
        traced(record, "logit_add_9", phys, quality, np.full((200, 9), 1 / 9))
        scores = StudyScores([record], [ROSTER[name] for name in NAMES], 20, Thresholds())
        gates = describe_gates([record], [ROSTER["logit_add_9"]], scores, Thresholds())
        found += [gates["logit_add_9"]["axes"][tower]["low"] > 0 for tower in ("physics", "quality")]
    assert np.mean(found) < 0.1  # 0.025 of them by chance


def test_a_share_of_nothing_is_none():
    """An oracle that is no better than one ridge, but for luck, has no gain that a gate could keep."""
    shares = [
        StudyScores([planted_record(seed, {"oracle_9": 0.5, "global": 0.5})], METHODS, 200, Thresholds()).recovery(
            "concat_9", "global", "oracle_9"
        )
        for seed in range(30)
    ]
    assert sum(share is not None for share in shares) <= 4
    clear = StudyScores([planted_record(0, {"oracle_9": 0.3, "global": 0.8})], METHODS, 200, Thresholds())
    assert clear.recovery("concat_9", "global", "oracle_9").low > 0


def test_a_handful_of_rows_decides_nothing():
    candidates = candidates_of({"temperature_9": 0.3, "phys_9": 0.6, "concat_9": 0.3})
    gates = {"temperature_9": {"temperature": {"rho": {"value": -0.9, "low": -0.95, "high": -0.8, "confidence": 0.95}}}}
    whole = answer_all(candidates, gates, Thresholds())
    assert [part["what"] for part in of(whole, "S1.2")["parts"]] == ["ΔR² in bin X", "ΔR² in bin L"]
    for record in candidates.scores.records:
        record.snr = np.where(record.snr < 2, 5.0, record.snr)
        record.snr[:4] = 1.0  # four rows of each seed
    few = Candidates(METHODS, StudyScores(candidates.scores.records, METHODS, 200, Thresholds()))
    assert [part["what"] for part in of(answer_all(few, gates, Thresholds()), "S1.2")["parts"]] == ["ΔR² in bin L"]
    for record in candidates.scores.records:
        record.snr = np.full(len(record.snr), 5.0)
    none = Candidates(METHODS, StudyScores(candidates.scores.records, METHODS, 200, Thresholds()))
    assert {answer["id"] for answer in answer_all(none, gates, Thresholds())} & {"S1.2", "Q6.2"} == set()


def of(answers, key):
    return next(answer for answer in answers if answer["id"] == key)


# ---- the Bayes limit ---------------------------------------------------------------------------------------


def test_the_best_possible_prediction_has_a_share_of_one():
    """The target is a prediction plus noise of known size: the prediction itself is the Bayes estimate."""
    records = [planted_record(seed, {}, n_samples=4000) for seed in (1, 2, 3)]
    for record in records:
        rng = np.random.default_rng(100 + record.seed)
        best = 0.9 * record.y + np.sqrt(0.9 * 0.1) * rng.normal(size=len(record.y))
        record.predictions["concat_9"] = best
        record.limit = {"rows": 500, "std": np.full(500, np.sqrt(0.1)), "prior_variance": 1.0, "prediction": best[:500]}
    found = bayes_share(records, StudyScores(records, METHODS, 100, Thresholds()))
    assert found["limit"]["r2"]["value"] == pytest.approx(0.9)
    assert found["limit"]["observed"] == pytest.approx(0.9, abs=0.02)
    assert found["shares"]["concat_9"].low < 1 < found["shares"]["concat_9"].high
    assert found["shares"]["phys_9"].high < 0.9
    assert analyse(records, methods=METHODS, n_resamples=50)["limit"]["rows"] == 1500


def test_the_limit_is_that_of_the_first_test_rows():
    """Their targets are what the posterior means predict."""
    data = stream_spectra(400, random_state=5)
    found = limit_of_rows(data, np.arange(100, 200), 30, 5)
    assert found["rows"] == len(found["prediction"]) == 30
    first, others = (
        np.corrcoef(found["prediction"], data.y[rows])[0, 1] for rows in (slice(100, 130), slice(170, 200))
    )
    assert first > 0.6 > others


def test_a_change_that_helps_is_a_gain():
    candidates = [
        ROSTER[name] for name in ("concat_9x4", "concat_9x4_no_lines", "concat_9x4_in_sample", "phys_9x4_clean")
    ]
    record = planted_record(1, {"concat_9x4": 0.5, "concat_9x4_no_lines": 0.3, "concat_9x4_in_sample": 0.8})
    found = changes(Candidates(candidates, StudyScores([record], candidates, 100, Thresholds())))
    assert {each["name"]: np.sign(each["gain"]["value"]) for each in found} == {
        "concat_9x4_no_lines": 1, "concat_9x4_in_sample": -1
    }  # fmt: skip
    assert {each["reference"] for each in found} == {"concat_9x4"}


@pytest.mark.parametrize(
    ("target", "snr", "verdict"),
    [((0.0, 0.04), (0.9, 1.0), PASS), ((0.0, 0.06), (0.9, 1.0), MARGINAL), ((0.1, 0.2), (0.9, 1.0), FAIL),
     ((0.0, 0.04), (0.4, 0.6), MARGINAL), ((0.0, 0.04), (0.1, 0.3), FAIL)],
)  # fmt: skip
def test_features_must_know_the_noise_and_not_the_target(target, snr, verdict):
    record = planted_record(1, {})
    low = [[0.02, 0.0, 0.04], [0.95, 0.9, 1.0]]  # boosted trees find nothing wrong
    lines = [[np.mean(target), *target], low[0], [np.mean(snr), *snr], low[1], [0.97, 0.96, 0.98]]
    record.audit = {"rows": 300, "audit": np.array(lines)}
    assert analyse([record], methods=METHODS, n_resamples=20)["audit"]["verdict"] == verdict


# ---- readings ----------------------------------------------------------------------------------------------


def scored_model(data, seed):
    return quick_model(data, seed).set_params(experts__projection="wiener")


def test_features_that_a_gate_does_not_read_might_as_well_not_be_there():
    """Five of ten statistics, left out before the features are made or after."""
    data = planted_rows(3, n_samples=1500)
    method, stages = ROSTER["concat_9x4_quality_5"], Stages()
    statistics = QualityStatistics(subset=[STATISTICS[place] for place in method.kept["quality"]])
    whole = replace(ROSTER["concat_9x4"], name=method.name)
    (one,) = run_study(lambda seed: data, [3], methods=[method], make_model=quick_model, stages=stages)
    (two,) = run_study(
        lambda seed: data, [3], methods=[whole],
        make_model=lambda data, seed: quick_model(data, seed).set_params(quality_gate__features=statistics),
    )  # fmt: skip
    assert_allclose(one.predictions[method.name], two.predictions[method.name], rtol=1e-5, atol=1e-6)
    (three,) = run_study(lambda seed: data, [3], methods=[whole], make_model=quick_model)
    assert np.abs(three.predictions[method.name] - one.predictions[method.name]).max() > 1e-3


def test_every_ablation_and_every_reader_is_a_model_of_its_own():
    """All run on spectra, and none is another one by another name."""
    methods = choose_methods(["ablation", "representation", "concat_9", "concat_9x4"], OFFERS)[0]
    methods = [method for method in methods if method.gated]
    settings = StudyConfig.of({"rows": 1000, "scores": {"n_iter": 1}, "training": {"max_epochs": 3}})
    rows = StudyRows(settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyCellWarning)  # of 36 cells of 800 rows
        warnings.simplefilter("ignore", GateCollapseWarning)  # which a high learning rate may well do
        (record,) = run_study(rows.make, [3], methods=methods, make_model=rows.make_model)
    assert all(np.isfinite(found).all() for found in record.predictions.values())
    for one, two in combinations(record.predictions, 2):
        assert np.abs(record.predictions[one] - record.predictions[two]).max() > 1e-3, (one, two)


def test_training_rows_are_read_by_loadings_that_did_not_see_them():
    data = planted_rows(3, n_samples=1200)
    data.n_flux, data.ordered = 12, True
    stages = Stages()
    method = replace(ROSTER["concat_9"], reader="wiener")
    run_study(lambda seed: data, [3], methods=[method], make_model=scored_model, stages=stages)
    place = dict(stages._memory)
    found = {kind: next(v for k, v in place.items() if kind in k.name) for kind in (READING, SURVEY)}
    (rows,) = (v for k, v in place.items() if k.name.startswith("rows"))
    reader, reading = found[SURVEY]["reader"], found[READING]
    seen, unseen = data.X[rows["train"]], data.X[rows["held_out"]]
    assert_allclose(reading["projected"][rows["train"]], reader.read(seen, training=True).projected, rtol=1e-6)
    assert_allclose(reading["variances"][rows["held_out"]], reader.read(unseen).variances, rtol=1e-6)
    assert not np.allclose(reading["projected"][rows["train"]], reader.read(seen).projected, rtol=1e-3)


def test_a_method_may_change_a_tower_without_another_reading():
    data = planted_rows(3, n_samples=1200)
    data.n_flux = 12
    method = replace(ROSTER["concat_9"], reader="wiener", name="seeing")
    blind = replace(method, parameters={**method.parameters, "phys_gate__scores": False}, name="blind")
    stages = Stages()
    (record,) = run_study(lambda seed: data, [3], methods=[method, blind], make_model=scored_model, stages=stages)
    assert sum(READING in place.name for place in stages._memory) == 1
    assert not np.allclose(record.predictions["seeing"], record.predictions["blind"])
    assert Stage(3, "rows", "rows", "") in stages

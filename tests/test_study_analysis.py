"""Verdicts, choices and readings of gates, on numbers and records whose truth is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.stats import t
from sklearn.metrics import r2_score

from dualgate.evaluation import Estimate, Interval, LeakageAudit
from dualgate.study.analysis import (
    DECIDE,
    FAIL,
    LADDER,
    MARGINAL,
    PASS,
    StudyScores,
    answer_all,
    bayes_limit_of,
    describe_gates,
    gains_of_changes,
    judge,
    lead_of,
    ratio,
    recommend,
    seed_interval,
)
from dualgate.study.methods import DUAL, METHODS, SINGLE, TABLE
from dualgate.study.results import GateReport, PooledTrend
from planted_study import GOOD, analyse, planted_record

NAMES = ("global", "oracle_9", "phys_9", "quality_9", "logit_add_9", "temperature_9", "concat_9")
CHOSEN = [METHODS[name] for name in NAMES]


def scores_of(errors, n_samples=1500, seeds=(1, 2, 3), n_resamples=200, methods=CHOSEN):
    records = [planted_record(seed, errors, n_samples=n_samples) for seed in seeds]
    return StudyScores(records, methods, n_resamples)


# ---- verdicts and intervals over seeds -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "value", "high", "verdict", "reason"),
    [(0.03, 0.05, 0.1, PASS, "at or above"), (0.01, 0.02, 0.1, PASS, "at or above +0.01"),
     (0.0099, 0.05, 0.1, MARGINAL, "excludes zero and includes"), (0.001, 0.005, 0.01, MARGINAL, "includes +0.01"),
     (0.001, 0.005, 0.0099, FAIL, "below +0.01"), (0.0, 0.05, 0.1, FAIL, "includes zero"),
     (-0.02, 0.05, 0.1, FAIL, "includes zero"), (-0.05, -0.03, -0.01, FAIL, "below +0.01"),
     (np.nan, np.nan, np.nan, FAIL, "not be measured"), (np.nan, 0.05, np.nan, FAIL, "not be measured")],
)  # fmt: skip
def test_verdict_on_planted_numbers(low, value, high, verdict, reason):
    found = judge(Interval(value, low, high), 0.01)
    assert (found.verdict, reason in found.reason) == (verdict, True)


def test_a_share_has_no_zero_to_be_told_from():
    verdicts = [judge(Interval(low + 0.1, low, low + 0.2), 0.8, zero=False).verdict for low in (0.8, 0.7, -0.1, 0.5)]
    assert verdicts == [PASS, MARGINAL, FAIL, FAIL]


ENDS = st.lists(st.floats(-0.1, 0.1), min_size=3, max_size=3).map(sorted)


@given(ends=ENDS, other=st.floats(-0.1, 0.1), more=st.floats(0, 0.1), zero=st.booleans())
def test_more_gain_never_lowers_the_verdict_and_the_estimate_decides_nothing(ends, other, more, zero):
    low, value, high = ends
    before, after, moved = (
        judge(Interval(*each), 0.01, zero=zero).verdict
        for each in ((value, low, high), (value + more, low + more, high + more), (other, low, high))
    )
    assert LADDER.index(after) <= LADDER.index(before)
    assert moved == before


def test_seeds_that_agree_are_pooled_as_their_rows_are():
    """Intervals and draws of the same numbers give the same pooled interval, and seeds that differ widen it."""
    draws = 0.3 + 0.02 * np.random.default_rng(0).normal(size=(3, 20_000))
    one = seed_interval(Interval(0.3, *np.quantile(line, [0.025, 0.975])) for line in draws)
    two = seed_interval([Estimate(0.3, line) for line in draws])
    assert_allclose([one.low, one.high], [two.low, two.high], atol=5e-4)
    assert two.high - two.low == pytest.approx(2 * 1.96 * 0.02 / np.sqrt(3), rel=0.05)
    values = np.array([0.1, 0.12, 0.17])
    student = t.interval(0.95, 2, values.mean(), values.std(ddof=1) / np.sqrt(3))
    for found in (seed_interval(Interval(*[value] * 3) for value in values),
                  seed_interval([Estimate(value, np.full(50, value)) for value in values])):  # fmt: skip
        assert_allclose([found.low, found.high], student)


def test_one_seed_has_the_interval_of_its_rows_and_seeds_without_the_number_are_left_out():
    alone = seed_interval([Estimate(0.5, np.linspace(0, 1, 1001))])
    assert_allclose([alone.low, alone.high], [0.025, 0.975])
    draws = np.random.default_rng(0).normal(size=(2, 100))
    two = [Estimate(0.1, draws[0]), Estimate(0.3, draws[1])]
    nothing = Estimate(np.nan, np.full(100, np.nan))
    assert seed_interval([two[0], nothing, two[1]]) == seed_interval(two)
    assert np.isnan([seed_interval([nothing]).value, seed_interval([]).value]).all()


def test_interval_covers_the_truth_about_as_often_as_it_should():
    """Scatter of rows and of seeds alike; the truth is 0."""
    rng, hits = np.random.default_rng(1), []
    for _ in range(400):
        values = rng.normal(scale=0.01, size=3) + rng.normal(scale=0.01, size=3)
        found = seed_interval([Estimate(value, value + rng.normal(scale=0.01, size=200)) for value in values])
        hits.append(found.low <= 0 <= found.high)
    assert np.mean(hits) >= 0.92


# ---- which methods are compared ------------------------------------------------------------------------------


def test_validation_rows_choose_and_test_rows_judge():
    """One dual is better on the test rows, another on the validation rows: the latter is judged."""
    record = planted_record(0, GOOD | {"poe_9": 0.55, "concat_9": 0.3}, {"poe_9": 0.9, "concat_9": 0.1})
    found = analyse([record, planted_record(1, GOOD)], n_resamples=50)
    assert found.answer("gate").dual == "poe_9"
    records = record, planted_record(1, GOOD)
    here, there = ([r2_score(r.y, r.predictions[name]) for r in records] for name in ("poe_9", "phys_9"))
    assert found.answer("gate").parts[0].found.value == pytest.approx(np.mean(here) - np.mean(there))
    assert_allclose(list(found.method("poe_9").r2_by_seed.values()), here)


def test_each_question_has_models_of_its_own():
    """A single tower over 9x4 experts tells nothing of a second tower over nine."""
    found = analyse([planted_record(0, GOOD | {"phys_9x4": 0.3, "poe_9": 0.5})], n_resamples=50)
    compared = {key: (found.answer(key).dual, found.answer(key).single) for key in ("gain", "gate", "experts", "first")}
    assert {METHODS[compared[key][0]].experts for key in ("gate", "first")} == {"9"}
    assert compared["gain"] == ("poe_9x4", "phys_9x4")
    assert compared["experts"] == ("poe_9x4", "phys_9")
    assert compared["gate"][1] == compared["first"][1] == "phys_9"


def test_the_best_of_eight_equal_duals_rarely_passes():
    """Duals no better than the single tower must not win by being many."""
    methods, verdicts = [method for method in TABLE if method.kind in (SINGLE, DUAL)], []
    for trial in range(40):
        records = [planted_record(100 * trial + seed, {"quality_9": 0.9}) for seed in range(3)]
        for record in records:  # validation scores by luck alone
            luck = np.random.default_rng(record.seed).normal(0, 0.01, len(record.validation_r2))
            noisy = zip(record.validation_r2.items(), luck, strict=True)
            record.validation_r2 = {name: score + shift for (name, score), shift in noisy}
        verdicts.append(answer_all(StudyScores(records, methods, 100), {})[0].verdict)
    assert np.mean([verdict == FAIL for verdict in verdicts]) >= 0.9


def test_a_change_that_helps_is_a_gain():
    methods = [METHODS[n] for n in ("concat_9x4", "concat_9x4_no_lines", "concat_9x4_in_sample", "phys_9x4_clean")]
    errors = {"concat_9x4": 0.5, "concat_9x4_no_lines": 0.3, "concat_9x4_in_sample": 0.8}
    found = gains_of_changes(scores_of(errors, seeds=(1,), methods=methods))
    assert {each.reference for each in found} == {"concat_9x4"}
    assert {each.name: each.gain.value > 0 for each in found} == {
        "concat_9x4_no_lines": True, "concat_9x4_in_sample": False
    }  # fmt: skip


# ---- what to recommend ---------------------------------------------------------------------------------------


def test_the_simplest_of_equals_is_recommended():
    """Towers that predict alike differ by luck, and luck is within its own error in most draws."""
    chosen = []
    for trial in range(20):
        seeds = range(10 * trial, 10 * trial + 3)
        found = recommend(scores_of({}, n_samples=200, seeds=seeds, n_resamples=100), PASS)
        assert found.candidates[0].name == "global"
        chosen.append(NAMES.index(found.name))
    assert np.mean(np.array(chosen) == 0) > 0.4
    assert np.median(chosen) < NAMES.index("logit_add_9")


def test_a_model_that_is_clearly_better_is_recommended_unless_its_gain_failed():
    found = recommend(scores_of({"global": 0.8, "phys_9": 0.7, "concat_9": 0.3}), PASS)
    assert found.name == found.best == "concat_9"
    assert [line.name for line in found.candidates if line.within] == ["concat_9"]
    failed = recommend(scores_of({"global": 0.8, "phys_9": 0.4, "concat_9": 0.3}), FAIL)
    assert failed.name == "phys_9"
    assert {line.name for line in failed.candidates} == {"global", "phys_9", "quality_9"}


def test_the_error_of_being_behind_is_that_of_the_paired_difference():
    scores = scores_of({"global": 0.8})
    for record in scores.records:  # the physics tower is the concat model but for a little more noise of its own
        noise = 0.05 * np.random.default_rng(record.seed).normal(size=len(record.y_validation))
        record.validation["phys_9"] = record.validation["concat_9"] + noise
    paired = StudyScores(scores.records, CHOSEN, 200)
    near, far = (paired.validation_behind(METHODS[name], METHODS["concat_9"])[1] for name in ("phys_9", "quality_9"))
    assert near < 0.3 * far


# ---- questions -----------------------------------------------------------------------------------------------


def falling(low, high):
    rho = Interval((low + high) / 2, low, high)
    return {"temperature_9": GateReport(trends={"temperature": PooledTrend(rho, 0.0, [])})}


@pytest.mark.parametrize(
    ("fall", "scatter", "verdict"),
    [((-0.9, -0.8), 0.35, PASS), ((-0.9, -0.8), 0.5, FAIL), ((-0.1, 0.1), 0.35, FAIL), ((0.8, 0.9), 0.35, FAIL)],
)
def test_the_temperature_must_fall_and_pay(fall, scatter, verdict):
    answers = answer_all(scores_of({"temperature_9": scatter}), falling(*fall))
    assert {answer.key: answer.verdict for answer in answers}["temperature"] == verdict


def test_questions_are_answered_that_the_methods_can_answer():
    scores = scores_of({"phys_9": 0.5, "quality_9": 0.9, "global": 0.9, "concat_9": 0.3, "oracle_9": 0.3})
    verdicts = {answer.key: answer.verdict for answer in answer_all(scores, {})}
    assert verdicts == dict.fromkeys(["gain", "low_snr", "physics", "gate", "first", "recovery"], PASS)


def test_the_better_bin_and_the_weaker_tower_decide():
    parts = [judge(Interval(value, value - 0.1, value + 0.1), 0.0, what=f"at {value}") for value in (0.5, -0.5)]
    for order in (parts, parts[::-1]):
        assert DECIDE["low_snr"](order) is parts[0]
        assert DECIDE["axes"](order) is parts[1]
    assert DECIDE["temperature"]([parts[1], parts[0], parts[1]]) is parts[1]
    assert DECIDE["temperature"]([parts[0], parts[0], parts[1]]) is parts[0]


def test_a_handful_of_rows_decides_nothing():
    scores, gates = scores_of({"temperature_9": 0.3, "phys_9": 0.6, "concat_9": 0.3}), falling(-0.95, -0.8)

    def asked(snr_of):
        for record in scores.records:
            record.snr = snr_of(record.snr)
        answers = {each.key: each for each in answer_all(StudyScores(scores.records, CHOSEN, 200), gates)}
        return [part.what for part in answers["low_snr"].parts] if "low_snr" in answers else answers.keys()

    few = np.r_[np.ones(4), np.full(1496, 5.0)]
    assert asked(lambda snr: snr) == ["ΔR² in SNR bin X", "ΔR² in SNR bin L"]
    assert asked(lambda snr: np.where(snr < 2, few, snr)) == ["ΔR² in SNR bin L"]
    assert asked(lambda snr: np.full(len(snr), 5.0)).isdisjoint({"low_snr", "temperature"})


def test_a_share_of_nothing_is_none():
    """Experts of the true regime that are no better than one ridge, but for luck, have no gain to keep."""
    equal = [scores_of({"oracle_9": 0.5, "global": 0.5}, 300, (seed,)) for seed in range(30)]
    assert sum(scores.recovery(METHODS["concat_9"]) is not None for scores in equal) <= 4
    assert scores_of({"oracle_9": 0.3, "global": 0.8}, 300, (0,)).recovery(METHODS["concat_9"]).low > 0


@pytest.mark.parametrize(
    ("target", "snr", "verdict"),
    [((0.0, 0.04), (0.9, 1.0), PASS), ((0.0, 0.06), (0.9, 1.0), MARGINAL), ((0.1, 0.2), (0.9, 1.0), FAIL),
     ((0.0, 0.04), (0.4, 0.6), MARGINAL), ((0.0, 0.04), (0.1, 0.3), FAIL)],
)  # fmt: skip
def test_features_must_predict_the_noise_and_not_the_target(target, snr, verdict):
    record = planted_record(1, {})
    fine = Interval(0.02, 0.0, 0.04), Interval(0.95, 0.9, 1.0)  # boosted trees find nothing wrong
    read = (
        {"ridge": Interval(np.mean(it), *it), "boosting": each} for it, each in zip((target, snr), fine, strict=True)
    )
    record.audit = {"rows": 300, "audit": LeakageAudit(*read, Interval(0.97, 0.96, 0.98))}
    assert analyse([record], methods=CHOSEN, n_resamples=20).audit.verdict == verdict


# ---- gates ---------------------------------------------------------------------------------------------------


def traced(record, name, phys, quality, weights):
    """Give a method's gate these outputs on the test rows, and others on the validation rows."""
    cut, zeros = record.n_validation, np.zeros((record.n_validation, 9))
    uneven = np.log(np.r_[0.92, np.full(8, 0.01)])
    record.traces[name] = {
        "phys_logits": np.vstack([zeros, phys]),
        "quality_logits": np.vstack([zeros[:, : quality.shape[1]], quality]),
        "log_weights": np.vstack([np.tile(uneven, (cut, 1)), np.log(weights)]),
        "expert_predictions": np.zeros((cut + len(phys), 9)),
        "root_prediction": np.zeros(cut + len(phys)),
    }


def test_a_planted_gate_is_read_as_it_was_planted():
    """Temperatures that fall with SNR, a physics tower that follows the regime, a quality tower that does the bin."""
    records = [planted_record(seed, {}) for seed in (1, 2)]
    for record in records:
        rng, own = np.random.default_rng(record.seed), np.eye(9)[record.regimes]
        phys = 5 * own + 0.1 * rng.normal(size=own.shape)
        bins = np.eye(9)[np.digitize(record.snr, [2, 4, 7])] + 0.1 * rng.normal(size=own.shape)
        cold = -record.snr[:, None] + 0.1 * rng.normal(size=(len(own), 1))
        weights = (0.8 * np.eye(9) + 0.1 * np.roll(np.eye(9), 1, axis=1) + 0.1 / 9)[record.regimes]
        traced(record, "temperature_9", phys, cold, weights)
        traced(record, "logit_add_9", phys, bins, weights)
    methods = [METHODS["temperature_9"], METHODS["logit_add_9"]]
    found = describe_gates(StudyScores(records, CHOSEN, 50), methods)
    cooled, added = found["temperature_9"].trends["temperature"], found["logit_add_9"]
    assert cooled.rho.high < -0.9
    means = [each.value for each in cooled.means]
    assert means == sorted(means, reverse=True)
    assert min(means) >= 1
    assert added.axes["physics"].low > 0.8
    assert added.axes["quality"].low > 0.8
    assert added.accuracy == 1
    assert_allclose(added.confusion, 0.8 * np.eye(9) + 0.1 * np.roll(np.eye(9), 1, axis=1) + 0.1 / 9, atol=1e-3)


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


def test_towers_without_an_axis_follow_none():
    """Nine regimes would explain more of nothing than four bins, and rows drawn twice look like groups."""
    found = []
    for trial in range(40):
        record = planted_record(trial, {}, n_samples=200)
        phys, quality = np.random.default_rng(1000 + trial).normal(size=(2, 200, 9))
        traced(record, "logit_add_9", phys, quality, np.full((200, 9), 1 / 9))
        gates = describe_gates(StudyScores([record], CHOSEN, 20), [METHODS["logit_add_9"]])
        found += [gates["logit_add_9"].axes[tower].low > 0 for tower in ("physics", "quality")]
    assert np.mean(found) < 0.1  # 0.025 of them by chance


# ---- the Bayes limit -----------------------------------------------------------------------------------------


def test_the_best_possible_prediction_has_a_share_of_one():
    """The target is a prediction plus noise of known size: the prediction itself is the Bayes estimate."""
    records = [planted_record(seed, {}, n_samples=4000) for seed in (1, 2, 3)]
    for record in records:
        noise = np.sqrt(0.9 * 0.1) * np.random.default_rng(100 + record.seed).normal(size=len(record.y))
        best = record.predictions["concat_9"] = 0.9 * record.y + noise
        record.limit = {"rows": 500, "std": np.full(500, np.sqrt(0.1)), "prior_variance": 1.0, "prediction": best[:500]}
    found, scores = bayes_limit_of(StudyScores(records, CHOSEN, 100)), StudyScores(records, CHOSEN, 100)
    assert found.rows == 1500
    assert found.r2.value == pytest.approx(0.9)
    assert found.observed == pytest.approx(0.9, abs=0.02)
    shares = {name: ratio(scores.interval("r2", METHODS[name]), found.r2) for name in ("concat_9", "phys_9")}
    assert shares["concat_9"].low < 1 < shares["concat_9"].high
    assert shares["phys_9"].high < 0.9
    assert analyse(records, methods=CHOSEN, n_resamples=100).method("phys_9").share_of_limit == shares["phys_9"]

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.stats import t
from sklearn.metrics import r2_score

from dualgate.evaluation import Interval
from dualgate.study import analyse, decide, seed_interval
from dualgate.study.answers import Candidates, comparisons
from dualgate.study.config import Thresholds
from dualgate.study.methods import DUAL, SINGLE
from dualgate.study.roster import GLOBAL, ORACLES, all_methods
from dualgate.study.scoring import StudyScores
from dualgate.study.verdict import FAIL, LADDER, MARGINAL, PASS, judge, pool_intervals
from planted_study import GOOD, planted_record, planted_results


@pytest.fixture(scope="module")
def results():
    return planted_results()


@pytest.mark.parametrize(
    ("low", "value", "high", "verdict"),
    [
        (0.03, 0.05, 0.1, PASS),
        (0.01, 0.02, 0.1, PASS),
        (0.0099, 0.05, 0.1, MARGINAL),
        (0.001, 0.005, 0.01, MARGINAL),
        (0.001, 0.005, 0.0099, FAIL),
        (0.0, 0.05, 0.1, FAIL),
        (-0.02, 0.05, 0.1, FAIL),
        (-0.05, -0.03, -0.01, FAIL),
        (float("nan"), float("nan"), float("nan"), FAIL),
        (float("nan"), 0.05, float("nan"), FAIL),
    ],
)
def test_verdict_on_planted_numbers(low, value, high, verdict):
    assert decide(Interval(value, low, high)).verdict == verdict


def test_a_share_has_no_zero_to_be_told_from():
    verdicts = [judge(Interval(low + 0.1, low, low + 0.2), 0.8, zero=None).verdict for low in (0.8, 0.7, -0.1, 0.5)]
    assert verdicts == [PASS, MARGINAL, FAIL, FAIL]


def test_a_gain_that_is_not_shown_is_not_called_absent():
    assert "not shown" in decide(Interval(0.05, -0.01, 0.11)).reason
    assert "below" in decide(Interval(0.001, -0.01, 0.0099)).reason


def test_thresholds_move_the_verdict():
    gain = Interval(0.03, 0.01, 0.05)
    assert decide(gain).verdict == PASS
    assert decide(gain, Thresholds(continue_=0.04)).verdict == MARGINAL
    assert decide(gain, Thresholds(continue_=0.06)).verdict == FAIL
    assert "+0.04" in decide(gain, Thresholds(continue_=0.04)).reason


ENDS = st.lists(st.floats(-0.1, 0.1), min_size=3, max_size=3).map(sorted)


@given(ends=ENDS, more=st.floats(0, 0.1), zero=st.sampled_from([0.0, None]))
def test_more_gain_never_lowers_the_verdict(ends, more, zero):
    before, after = (
        judge(Interval(value + shift, low + shift, high + shift), 0.01, zero=zero)
        for shift in (0, more)
        for low, value, high in [ends]
    )
    assert LADDER.index(after.verdict) >= LADDER.index(before.verdict)


@given(ends=ENDS, value=st.floats(-0.1, 0.1))
def test_the_estimate_decides_nothing(ends, value):
    """Only the ends of the interval do."""
    low, first, high = ends
    assert decide(Interval(first, low, high)).verdict == decide(Interval(value, low, high)).verdict


def test_seeds_that_agree_are_pooled_as_their_rows_are():
    """Intervals and draws of the same numbers give the same pooled interval, and seeds that differ widen it."""
    rng = np.random.default_rng(0)
    draws = np.array([0.3, 0.3, 0.3])[:, None] + 0.02 * rng.normal(size=(3, 20_000))
    each = [Interval(0.3, *np.quantile(line, [0.025, 0.975])) for line in draws]
    one, two = pool_intervals(each), seed_interval([0.3, 0.3, 0.3], draws)
    assert_allclose([one.low, one.high], [two.low, two.high], atol=5e-4)
    apart = pool_intervals([Interval(value, value, value) for value in (0.1, 0.2, 0.3)])
    assert_allclose(apart.high - apart.low, 2 * t.ppf(0.975, 2) * 0.1 / np.sqrt(3))
    assert np.isnan(pool_intervals([]).value)


def test_interval_is_students_when_rows_do_not_matter():
    values = np.array([0.1, 0.12, 0.17])
    interval = seed_interval(values, np.repeat(values[:, None], 50, axis=1))
    assert_allclose([interval.low, interval.high], t.interval(0.95, 2, values.mean(), values.std(ddof=1) / np.sqrt(3)))


def test_seeds_that_agree_by_luck_do_not_feign_precision():
    draws = 0.1 + 0.02 * np.random.default_rng(0).normal(size=(3, 5000))
    interval = seed_interval([0.1, 0.1, 0.1], draws)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 0.02 / np.sqrt(3), rel=0.05)


def test_one_seed_has_the_interval_of_its_rows():
    draws = np.linspace(0, 1, 1001)[None]
    interval = seed_interval([0.5], draws)
    assert_allclose([interval.low, interval.high], [0.025, 0.975])


def test_seeds_without_the_number_are_left_out():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(3, 100))
    draws[1] = np.nan
    assert seed_interval([0.1, np.nan, 0.3], draws) == seed_interval([0.1, 0.3], draws[[0, 2]])
    assert np.isnan(seed_interval([np.nan], [[np.nan, np.nan]]).value)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    """Scatter of rows and of seeds alike; the truth is 0."""
    rng = np.random.default_rng(1)
    hits = []
    for _ in range(400):
        values = rng.normal(scale=0.01, size=3) + rng.normal(scale=0.01, size=3)
        interval = seed_interval(values, values[:, None] + rng.normal(scale=0.01, size=(3, 200)))
        hits.append(interval.low <= 0 <= interval.high)
    assert np.mean(hits) >= 0.92


def test_validation_rows_choose_and_test_rows_judge():
    """One dual is better on the test rows, another on the validation rows: the latter is judged."""
    record = planted_record(0, GOOD | {"poe_9": 0.55, "concat_9": 0.3}, {"poe_9": 0.9, "concat_9": 0.1})
    answer = analyse([record], n_resamples=50)["questions"]["gate"]
    assert answer["dual"] == "poe_9"
    here, there = (r2_score(record.y, record.predictions[name]) for name in ("poe_9", "phys_9"))
    assert answer["gain"]["value"] == pytest.approx(here - there)


def test_each_question_has_duals_of_its_own(results):
    kinds = {method.name: method.experts for method in all_methods() if method.kind == DUAL}
    assert kinds[results["questions"]["gate"]["dual"]] == "9"
    assert kinds[results["questions"]["experts"]["dual"]] == "9x4"
    assert results["questions"]["overall"]["dual"] == "poe_9x4"
    assert results["questions"]["experts"]["verdict"] == PASS


def test_the_gate_is_judged_with_the_experts_left_as_they_are():
    """A single tower over 9x4 experts says nothing against a second tower over nine."""
    record = planted_record(0, GOOD | {"phys_9x4": 0.3, "poe_9": 0.5})
    questions = analyse([record], n_resamples=50)["questions"]
    assert questions["gate"]["single"] == "phys_9"
    assert questions["overall"]["single"] == "phys_9x4"
    assert questions["experts"]["single"] == "phys_9"


def test_table_holds_the_mean_of_the_seeds(results):
    line = next(method for method in results["methods"] if method["name"] == "poe_9x4")
    records = [planted_record(seed, GOOD) for seed in (1, 2, 3)]
    scores = [r2_score(record.y, record.predictions["poe_9x4"]) for record in records]
    assert line["r2"]["value"] == pytest.approx(np.mean(scores))
    assert_allclose(list(line["r2_by_seed"].values()), scores)


def test_recovery_is_left_out_where_the_oracle_gains_nothing():
    record = planted_record(0, {GLOBAL.name: 0.2, ORACLES["9"].name: 0.6, ORACLES["9x4"].name: 0.1})
    ratios = {method["name"]: method["rho"] for method in analyse([record], n_resamples=50)["methods"]}
    assert ratios["poe_9"] is None
    assert ratios["poe_9x4"] is not None


def test_the_best_of_eight_equal_duals_rarely_passes():
    """Duals no better than the single tower must not win by being many."""
    methods = [method for method in all_methods() if method.kind in (SINGLE, DUAL)]
    verdicts = []
    for trial in range(40):
        records = [planted_record(100 * trial + seed, {"quality_9": 0.9}) for seed in range(3)]
        for record in records:  # validation scores by luck alone
            luck = np.random.default_rng(record.seed).normal(0, 0.01, len(record.validation_r2))
            noisy = zip(record.validation_r2.items(), luck, strict=True)
            record.validation_r2 = {name: score + shift for (name, score), shift in noisy}
        scores = StudyScores(records, methods, 100, Thresholds())
        verdicts.append(comparisons(Candidates(methods, scores), Thresholds())["overall"]["verdict"])
    assert np.mean([verdict == FAIL for verdict in verdicts]) >= 0.9

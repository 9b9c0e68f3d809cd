import numpy as np
import pytest
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dualgate.evaluation import Interval, LeakageAudit, leakage_audit
from dualgate.evaluation.audit import ALPHAS
from dualgate.features import QualityStatistics


def spectra(n_samples=1000, n_pixels=60, seed=0):
    """Errors of a level of their own with a faint imprint of the target in each pixel, and their statistics."""
    rng = np.random.default_rng(seed)
    target, level = rng.uniform(1, 5, n_samples), np.exp(rng.normal(size=n_samples) * 0.5)
    imprint = np.linspace(-0.02, 0.02, n_pixels)
    errors = level[:, None] * (1 + (target[:, None] - 3) * imprint + 0.01 * rng.normal(size=(n_samples, n_pixels)))
    statistics = QualityStatistics(subset=["mean", "median", "sum"]).fit_transform(errors)
    return statistics, target, 5 / level, errors


def highest(intervals):
    return max(found.value for found in intervals.values())


def test_clean_statistics_pass_where_the_raw_errors_give_the_target_away():
    statistics, target, snr, errors = spectra()
    honest = leakage_audit(statistics, target, snr, errors=errors, n_resamples=300)
    assert honest.verdict == "pass"
    assert honest.reasons == ()
    assert highest(honest.target) < 0.05
    assert min(found.low for found in honest.snr.values()) > 0.8
    assert honest.errors.low > 0.5
    # ridge is scikit-learn's, out of fold
    learner = make_pipeline(StandardScaler(), RidgeCV(ALPHAS))
    guess = cross_val_predict(learner, statistics, np.log(snr), cv=KFold(5, shuffle=True, random_state=0))
    assert honest.snr["ridge"].value == pytest.approx(r2_score(np.log(snr), guess))
    assert honest.snr["ridge"].low < honest.snr["ridge"].value < honest.snr["ridge"].high


@pytest.mark.parametrize("leak", [lambda t: t, lambda t: (t - 3) ** 2], ids=["linear", "even"])
def test_a_leaking_statistic_is_flagged_by_the_learner_that_fits_it(leak):
    """A parabola around the mean is invisible to ridge: boosting must find its even part of another target."""
    statistics, target, snr, _ = spectra()
    wanted = np.abs(target - 3)
    audit = leakage_audit(np.column_stack([statistics, leak(target)]), wanted, snr, n_resamples=100)
    assert audit.verdict == "fail"
    assert highest(audit.target) > 0.9
    assert any("the target is predictable" in reason and "boosting" in reason for reason in audit.reasons)


def test_statistics_that_do_not_predict_the_noise_are_flagged():
    _, target, snr, _ = spectra()
    audit = leakage_audit(np.random.default_rng(0).normal(size=(len(snr), 3)), target, snr, n_resamples=100)
    assert audit.verdict == "fail"
    assert highest(audit.snr) < 0.1
    assert any("the SNR is unpredictable" in reason for reason in audit.reasons)


NONE, WIDE, HIGH = Interval(0.0, -0.01, 0.01), Interval(0.02, -0.03, 0.07), Interval(0.9, 0.8, 0.95)


@pytest.mark.parametrize(
    ("target", "snr", "limits", "verdict"),
    [
        (NONE, HIGH, {}, "pass"),
        (WIDE, HIGH, {}, "marginal"),
        (WIDE, HIGH, {"target_limit": 0.1}, "pass"),
        (NONE, HIGH, {"snr_floor": 0.9}, "marginal"),
        (NONE, HIGH, {"snr_floor": 0.95}, "fail"),
        (HIGH, HIGH, {}, "fail"),
        (NONE, WIDE, {}, "fail"),
    ],
)
@pytest.mark.parametrize("learner", ["ridge", "boosting"])
def test_the_worse_learner_decides_and_an_interval_over_a_limit_is_marginal(target, snr, limits, verdict, learner):
    clean, sharp = (dict.fromkeys(("ridge", "boosting"), found) for found in (NONE, HIGH))
    audit = LeakageAudit(clean | {learner: target}, sharp | {learner: snr}, **limits)
    assert audit.verdict == verdict
    assert (verdict == "pass") == (not audit.reasons)
    assert ("may be" in " ".join(audit.reasons)) == (verdict == "marginal")


@pytest.mark.parametrize("shape", ["one value", "one level a row"])
def test_errors_without_information_are_no_accident(shape):
    """White noise: all errors alike, or alike within a row and of random size."""
    rng = np.random.default_rng(1)
    level = np.ones(300) if shape == "one value" else rng.uniform(1, 2, 300)
    errors = np.repeat(level[:, None], 30, axis=1)
    target, snr = rng.normal(size=300), rng.uniform(1, 5, 300)
    audit = leakage_audit(errors[:, :2], target, snr, errors=errors, n_resamples=50)
    assert audit.errors.value < 0.05
    assert highest(audit.target) < 0.05


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"snr": [0.0, 1.0]}, r"leakage_audit.snr is 0.0 at row 0"),
        ({"quality_features": [1.0, 2.0]}, r"leakage_audit.quality_features has shape \(2,\)"),
        ({"quality_features": [[1.0], [np.nan]]}, r"leakage_audit.quality_features is nan at row 1"),
        ({"errors": [[1.0]]}, r"leakage_audit.errors has shape \(1, 1\) and must be \(2, any\)"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {"quality_features": [[1.0], [2.0]], "target": [1.0, 2.0], "snr": [1.0, 2.0], "n_folds": 2}
    with pytest.raises(ValueError, match=message):
        leakage_audit(**arguments | change)

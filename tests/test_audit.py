import numpy as np
import pytest
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dualgate.evaluation import LeakageAudit, leakage_audit
from dualgate.evaluation.audit import ALPHAS
from dualgate.evaluation.resampling import Interval
from dualgate.features import QualityStatistics


def spectra(n_samples=1000, n_pixels=60, seed=0):
    """Errors of a level of their own with a faint imprint of the target in each pixel, and their statistics."""
    rng = np.random.default_rng(seed)
    target, level = rng.uniform(1, 5, n_samples), np.exp(rng.normal(size=n_samples) * 0.5)
    imprint = np.linspace(-0.02, 0.02, n_pixels)
    errors = level[:, None] * (1 + (target[:, None] - 3) * imprint + 0.01 * rng.normal(size=(n_samples, n_pixels)))
    statistics = QualityStatistics(subset=["mean", "median", "sum"]).fit_transform(errors)
    return statistics, target, 5 / level, errors


@pytest.fixture(scope="module")
def honest():
    statistics, target, snr, errors = spectra()
    return leakage_audit(statistics, target, snr, errors=errors, n_resamples=300)


def test_clean_statistics_pass_where_the_raw_errors_give_the_target_away(honest):
    assert honest.passes
    assert honest.reasons == ()
    assert honest.worst_target.high < 0.05
    assert honest.worst_snr.low > 0.8
    assert honest.errors.low > 0.5


@pytest.mark.parametrize("leak", [lambda t: t, lambda t: (t - 3) ** 2], ids=["linear", "even"])
def test_a_leaking_statistic_is_flagged_by_whoever_can_read_it(leak):
    """A parabola around the mean is invisible to ridge: boosting must find its even part of another target."""
    statistics, target, snr, _ = spectra()
    wanted = np.abs(target - 3)
    audit = leakage_audit(np.column_stack([statistics, leak(target)]), wanted, snr, n_resamples=100)
    assert not audit.passes
    assert audit.worst_target.value > 0.9
    assert any("leak the target" in reason and "boosting" in reason for reason in audit.reasons)


def test_statistics_that_know_no_noise_are_flagged():
    _, target, snr, _ = spectra()
    audit = leakage_audit(np.random.default_rng(0).normal(size=(len(snr), 3)), target, snr, n_resamples=100)
    assert not audit.passes
    assert audit.worst_snr.value < 0.1
    assert any("do not know the SNR" in reason for reason in audit.reasons)


def test_the_worse_learner_counts_and_an_interval_over_the_limit_does_not_pass():
    good, wide = Interval(0.0, -0.01, 0.01), Interval(0.02, -0.03, 0.07)
    known = {"ridge": Interval(0.9, 0.8, 0.95), "boosting": Interval(0.95, 0.9, 0.97)}
    audit = LeakageAudit({"ridge": good, "boosting": wide}, known, None, 0.05, 0.5)
    assert audit.worst_target == wide
    assert audit.worst_snr == known["ridge"]
    assert not audit.passes
    assert "not shown" in audit.reasons[0]
    assert LeakageAudit({"ridge": good, "boosting": wide}, known, None, 0.1, 0.5).passes


def test_ridge_is_scikit_learns_out_of_fold(honest):
    statistics, _, snr, _ = spectra()
    learner = make_pipeline(StandardScaler(), RidgeCV(ALPHAS))
    guess = cross_val_predict(learner, statistics, np.log(snr), cv=KFold(5, shuffle=True, random_state=0))
    assert honest.snr["ridge"].value == pytest.approx(r2_score(np.log(snr), guess))
    assert honest.snr["ridge"].low < honest.snr["ridge"].value < honest.snr["ridge"].high


@pytest.mark.parametrize("shape", ["one value", "one level a row"])
def test_errors_that_say_nothing_are_no_accident(shape):
    """White noise: all errors alike, or alike within a row and of random size."""
    rng = np.random.default_rng(1)
    level = np.ones(300) if shape == "one value" else rng.uniform(1, 2, 300)
    errors = np.repeat(level[:, None], 30, axis=1)
    target, snr = rng.normal(size=300), rng.uniform(1, 5, 300)
    audit = leakage_audit(errors[:, :2], target, snr, errors=errors, n_resamples=50)
    assert audit.errors.value < 0.05
    assert audit.worst_target.value < 0.05


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"snr": [0.0, 1.0]}, r"leakage_audit.snr is 0.0 at row 0"),
        ({"quality_features": [1.0, 2.0]}, r"leakage_audit.quality_features has shape \(2,\)"),
        ({"quality_features": [[1.0], [np.nan]]}, r"leakage_audit.quality_features is nan at row 1"),
        ({"errors": [[1.0]]}, r"leakage_audit.errors has shape \(1, 1\)"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {"quality_features": [[1.0], [2.0]], "target": [1.0, 2.0], "snr": [1.0, 2.0], "n_folds": 2}
    with pytest.raises(ValueError, match=message):
        leakage_audit(**arguments | change)

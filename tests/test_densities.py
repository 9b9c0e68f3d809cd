"""Scores of densities and intervals: against closed forms, and the truth scores best."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import kstest, norm

from dualgate import MixtureDensity
from dualgate.evaluation import ReliabilityDisplay, crps, interval_score, log_score, pit_values

RNG = np.random.default_rng(0)
MEAN, STD = RNG.normal(size=4000), np.exp(RNG.normal(size=4000))
Y = MEAN + STD * RNG.normal(size=4000)
SNR = RNG.uniform(0.5, 12, size=4000)
DENSITY = MixtureDensity(np.zeros((4000, 1)), MEAN[:, None, None], np.square(STD)[:, None, None, None])


@pytest.fixture
def ax():
    return Figure(layout="constrained").add_subplot()


def test_gaussians_by_mean_and_std_are_those_of_closed_forms():
    z = (Y - MEAN) / STD
    assert_allclose(log_score(Y, (MEAN, STD)), norm.logpdf(Y, MEAN, STD))
    assert_allclose(pit_values(Y, (MEAN, STD)), norm.cdf(z))
    expected = STD * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))
    assert_allclose(crps(Y, (MEAN, STD)), expected, atol=1e-12)
    for score in (log_score, crps, pit_values):
        assert_array_equal(score(Y, (MEAN, STD)), score(Y, DENSITY))


def test_values_of_the_right_density_are_uniform():
    assert kstest(pit_values(Y, DENSITY), "uniform").pvalue > 0.01
    assert kstest(pit_values(Y, (MEAN, 1.2 * STD)), "uniform").pvalue < 1e-6


@pytest.mark.parametrize(("shift", "factor"), [(0.3, 1), (0, 1.5), (0, 0.7), (-0.2, 1.2)])
def test_the_truth_scores_best(shift, factor):
    wrong = MEAN + shift * STD, factor * STD
    assert log_score(Y, wrong).mean() < log_score(Y, DENSITY).mean()
    assert crps(Y, wrong).mean() > crps(Y, DENSITY).mean()
    quantile = norm.ppf(0.95)
    right, worse = (
        np.stack([mean - quantile * std, mean + quantile * std], axis=1) for mean, std in ((MEAN, STD), wrong)
    )
    assert interval_score(Y, worse, 0.9).mean() > interval_score(Y, right, 0.9).mean()


@given(coverage=st.floats(0.01, 0.99), low=st.floats(-5, 5), width=st.floats(0, 5))
def test_an_interval_score_is_that_of_its_two_quantiles(coverage, low, width):
    """It is the sum of the pinball losses of both ends, times 2 / (1 - coverage)."""
    tail, high = (1 - coverage) / 2, low + width
    pinball = [
        np.where(end > Y, (1 - level) * (end - Y), level * (Y - end)) for end, level in ((low, tail), (high, 1 - tail))
    ]
    found = interval_score(Y, np.tile([low, high], (len(Y), 1)), coverage)
    assert_allclose(found, sum(pinball) / tail, rtol=1e-6, atol=1e-6)


def test_several_targets():
    y, interval = np.zeros((3, 2)), np.tile([-1.0, 1.0], (3, 2, 1))
    assert_array_equal(interval_score(y, interval, 0.5), 2 * np.ones((3, 2)))
    density = MixtureDensity(np.zeros((3, 1)), np.zeros((3, 1, 2)), np.tile(np.eye(2), (3, 1, 1, 1)), False)
    assert_allclose(log_score(y, density), -np.log(2 * np.pi))
    assert crps(y, density).shape == pit_values(y, density).shape == (3, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: interval_score(Y, np.zeros((10, 2)), 0.9), r"interval_score\.interval of shape \(10, 2\) must be"),
        (lambda: interval_score([1.0], [[2.0, 1.0]], 0.9), "the lower one first"),
        (lambda: interval_score([1.0], [[0.0, np.nan]], 0.9), r"interval_score\.interval"),
        (lambda: interval_score([np.nan], [[0.0, 1.0]], 0.9), "y is nan at row 0"),
        (lambda: interval_score([1.0], [[0.0, 1.0]], 90), r"coverage=90 must be a number below 1"),
        (lambda: interval_score([1.0], [[0.0, 1.0]], 0), r"coverage=0 must be a number above 0"),
        (lambda: crps(Y, MEAN), "density is a ndarray and must be a MixtureDensity"),
        (lambda: crps(Y, (MEAN, -STD)), "std=.* must be above zero"),
        (lambda: log_score(Y, (MEAN, STD[:5])), r"std has shape \(5,\) and must be \(4000,\) like mean"),
        (lambda: pit_values(Y[:5], DENSITY), r"y has shape \(5,\), it must be"),
        (lambda: ReliabilityDisplay.from_predictions(Y, [np.zeros((4000, 2))]), "holds 1 sets .* coverages holds 10"),
        (lambda: ReliabilityDisplay.from_predictions(Y, DENSITY, coverages=[90]), "coverage=90"),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_reliability_is_the_share_inside_of_every_bin(ax):
    display = ReliabilityDisplay.from_predictions(Y, (MEAN, STD * np.where(SNR > 7, 2.0, 1.0)), snr=SNR, ax=ax)
    assert list(display.shares) == ["X", "L", "M", "H"]
    for name in "XLM":
        off = np.abs(display.shares[name] - display.coverages)
        assert (off < 4.5 * np.sqrt(0.25 / display.counts[name])).all()
    expected = 2 * norm.cdf(2 * norm.ppf(0.5 + np.array(display.coverages) / 2)) - 1
    assert_allclose(display.shares["H"], expected, atol=0.05)
    assert_allclose(display.lines_[3].get_ydata(), 100 * (display.shares["H"] - display.coverages))
    assert ax.get_legend().get_texts()[0].get_text() == "X (SNR ≤ 2)"
    assert ax.get_xlabel() == "stated coverage"


def test_reliability_of_an_estimator_is_that_of_its_intervals(ax):
    class Asked:
        def predict_interval(self, X, coverage):
            reach = norm.ppf(0.5 + coverage / 2) * STD
            return np.stack([MEAN - reach, MEAN + reach], axis=1)

    found = ReliabilityDisplay.from_estimator(Asked(), None, Y, ax=ax)
    expected = ReliabilityDisplay.from_predictions(Y, DENSITY, ax=ax)
    assert_allclose(found.shares["all"], expected.shares["all"])
    assert found.counts == {"all": 4000}
    assert ax.get_legend() is None

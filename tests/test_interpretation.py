import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import spearmanr
from sklearn.metrics import confusion_matrix

from dualgate.evaluation import mean_weights, regime_confusion, regime_weights, snr_bins, trend


def cloud(n_samples, slope, rng):
    snr = np.exp(rng.normal(1.3, 0.6, n_samples))
    return snr, slope * np.log(snr) + rng.normal(size=n_samples) * (0.3 + 1 / snr)


@pytest.mark.parametrize(("slope", "direction"), [(0.3, "rises"), (-0.3, "falls"), (0.0, "not shown")])
def test_a_planted_trend_is_found_and_noise_shows_none(slope, direction):
    found = trend(*cloud(2000, slope, np.random.default_rng(0)))
    assert found.direction == direction
    assert (found.p_value < 0.01) == (slope != 0)
    assert found.rho.low < found.rho.value < found.rho.high


def test_bins_have_the_means_of_their_rows():
    snr, values = cloud(500, 1.0, np.random.default_rng(1))
    found, bins = trend(snr, values), snr_bins(snr)
    assert_allclose([mean.value for mean in found.means], [values[bins == code].mean() for code in range(4)])
    assert_array_equal(found.counts, np.bincount(bins, minlength=4))


def test_noise_is_called_a_trend_about_as_rarely_as_it_should():
    rng = np.random.default_rng(2)
    found = [trend(*rng.uniform(size=(2, 60))) for _ in range(400)]
    assert 0.02 <= np.mean([each.direction != "not shown" for each in found]) <= 0.09
    assert np.mean([each.p_value < 0.05 for each in found]) == pytest.approx(0.05, abs=0.03)


@pytest.mark.parametrize("ties", [False, True])
def test_the_interval_of_a_rank_correlation_covers_its_truth(ties):
    """The truth is the correlation of a very large sample of the same heteroscedastic cloud."""
    rng = np.random.default_rng(3)

    def draw(n_samples):
        snr, values = cloud(n_samples, 0.7, rng)
        return (np.ceil(snr), np.round(values)) if ties else (snr, values)

    truth = spearmanr(*draw(400_000)).statistic
    found = [trend(*draw(300)).rho for _ in range(300)]
    assert 0.91 <= np.mean([each.low <= truth <= each.high for each in found]) <= 0.985


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("shape", ["rise", "hump"])
def test_the_interval_is_as_wide_as_a_bootstrap_makes_it(shape, swap):
    """On a hump a row also matters by how it moves the others' ranks: a quarter of the width."""
    rng = np.random.default_rng(4)
    x, noise = rng.uniform(size=1000), rng.normal(size=1000)
    values = 5 + (x + 0.3 * noise if shape == "rise" else 0.02 * noise - (x - 0.6) ** 2)
    x, values = (values, x) if swap else (x, values)
    rows = rng.integers(1000, size=(500, 1000))
    low, high = np.quantile([spearmanr(x[r], values[r]).statistic for r in rows], [0.025, 0.975])
    found = trend(x, values).rho
    assert found.high - found.low == pytest.approx(high - low, rel=0.1)


@given(power=st.floats(0.2, 3))
def test_ranks_do_not_see_the_scale(power):
    snr, values = cloud(50, 0.7, np.random.default_rng(5))
    here, there = trend(snr, values).rho, trend(snr, np.exp(power * values)).rho
    assert_allclose([there.low, there.high], [here.low, here.high])
    back = trend(snr, -values).rho
    assert_allclose([back.low, back.high], [-here.high, -here.low])


def test_constant_values_have_no_trend():
    found = trend([1.0, 3.0, 5.0, 9.0], [0.5] * 4)
    assert np.isnan([found.rho.value, found.p_value]).all()
    assert found.direction == "not shown"
    assert [mean.value for mean in found.means] == [0.5] * 4
    assert np.isnan(found.means[0].low)  # one row


def test_a_trend_needs_rows():
    with pytest.raises(ValueError, match=r"trend.x has 3 rows"):
        trend([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])


def gate(n_samples=400, n_experts=12, seed=0):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(n_experts), n_samples), rng.integers(0, 3, n_samples), rng.integers(0, 4, n_samples)


def test_counts_are_scikit_learns_confusion_of_the_first_choice():
    weights, regimes, _ = gate()
    found = regime_confusion(weights, regimes, n_bins=4)
    first = regime_weights(weights, 4).argmax(axis=1)
    assert_array_equal(found.counts, confusion_matrix(regimes, first))
    assert found.accuracy == pytest.approx(np.mean(first == regimes))


def test_mean_weights_sum_to_one_and_average_to_the_mean_of_all_rows():
    weights, regimes, _ = gate()
    found = regime_confusion(weights, regimes, n_bins=4)
    assert_allclose(found.mean_weights.sum(axis=1), 1)
    shares = np.bincount(regimes) / len(regimes)
    assert_allclose(shares @ found.mean_weights, regime_weights(weights, 4).mean(axis=0))


def test_a_perfect_gate_has_a_diagonal_confusion():
    regimes = np.array([0, 1, 2, 1])
    found = regime_confusion(np.eye(9)[regimes], regimes)
    assert_array_equal(found.counts[:3, :3], np.diag([1, 2, 1]))
    assert_allclose(found.mean_weights[:3, :3], np.eye(3))
    assert np.isnan(found.mean_weights[3:]).all()
    assert found.accuracy == 1


def test_the_table_holds_the_mean_of_every_regime_and_bin():
    weights, regimes, bins = gate()
    table = mean_weights(weights, regimes, bins)
    for regime in range(3):
        for bin_ in range(4):
            assert_allclose(table[regime, bin_], weights[(regimes == regime) & (bins == bin_)].mean(axis=0))


def test_n_bins_must_divide_the_experts():
    with pytest.raises(ValueError, match=r"regime_weights.n_bins=2 must divide the 9 experts"):
        regime_confusion(np.full((2, 9), 1 / 9), [0, 1], n_bins=2)

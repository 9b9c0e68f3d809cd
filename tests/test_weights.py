import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import spearmanr

from dualgate.datasets.simulator import REGIME_EDGES
from dualgate.evaluation import boundary_crossings, boundary_samples, quality_bins, trend
from dualgate.experts.regimes import regime_codes

DISTANCES = (100.0, 0.1)


def cloud(n_samples, slope, rng):
    snr = np.exp(rng.normal(1.3, 0.6, n_samples))
    return snr, slope * np.log(snr) + rng.normal(size=n_samples) * (0.3 + 1 / snr)


@pytest.mark.parametrize("slope", [0.3, -0.3])
def test_a_planted_trend_is_found_and_bins_have_the_means_of_their_rows(slope):
    snr, values = cloud(2000, slope, np.random.default_rng(0))
    found = trend(snr, values)
    assert min(slope * found.rho.low, slope * found.rho.high) > 0
    assert found.rho.low < found.rho.value < found.rho.high
    assert found.p_value < 0.01
    expected = [values[quality_bins(snr) == code].mean() for code in range(4)]
    assert_allclose([mean.value for mean in found.means], expected)


def test_noise_shows_a_trend_about_as_rarely_as_it_should():
    """The true mean of the noise within the bin (2, 4] is zero."""
    rng = np.random.default_rng(2)
    found = [trend(*rng.uniform(size=(2, 60))) for _ in range(400)]
    assert 0.02 <= np.mean([each.rho.low > 0 or each.rho.high < 0 for each in found]) <= 0.09
    assert np.mean([each.p_value < 0.05 for each in found]) == pytest.approx(0.05, abs=0.03)
    means = [trend(np.full(4, 3.0), rng.normal(size=4)).means[1] for _ in range(400)]
    assert 0.92 <= np.mean([each.low <= 0 <= each.high for each in means]) <= 0.98


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
def test_ranks_do_not_depend_on_the_scale(power):
    snr, values = cloud(50, 0.7, np.random.default_rng(5))
    here, there = trend(snr, values).rho, trend(snr, np.exp(power * values)).rho
    assert_allclose([there.low, there.high], [here.low, here.high])
    back = trend(snr, -values).rho
    assert_allclose([back.low, back.high], [-here.high, -here.low])


def test_constant_values_have_no_trend():
    found = trend([1.0, 3.0, 5.0, 9.0, 9.0], [0.5] * 5)
    assert np.isnan([found.rho.value, found.p_value]).all()
    assert [mean.value for mean in found.means] == [0.5] * 4
    assert np.isnan(found.means[0].low)  # one row
    assert found.means[3].low == 0.5


def stars(n_samples=2000, seed=0):
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.uniform(3750, 6000, n_samples), rng.uniform(-2.5, 0.75, n_samples)])


def regimes(conditions):
    """Code of every row's own regime, as the experts cut it."""
    return regime_codes("test", np.asarray(conditions), REGIME_EDGES, len(conditions))[0]


def test_near_is_by_distance_alone_and_bins_are_those_of_the_experts():
    conditions = np.vstack([stars(), [[4500, -1], [5250, 0], [4500, 0]]])
    found = boundary_samples(conditions, REGIME_EDGES, DISTANCES)
    gaps = [np.abs(conditions[:, [i]] - np.array(REGIME_EDGES[i])).min(axis=1) / DISTANCES[i] for i in (0, 1)]
    assert_array_equal(found.near, np.min(gaps, axis=0) <= 1)
    for values in (conditions, conditions.astype(np.float32)):
        found = boundary_samples(values, REGIME_EDGES, DISTANCES)
        assert_array_equal(np.ravel_multi_index(tuple(found.bins.T), found.shape), regimes(values))


@given(step=st.floats(0.05, 0.95), row=st.integers(0, 1999), column=st.sampled_from([0, 1]))
def test_a_step_over_the_nearest_edge_leads_across(step, row, column):
    boundary = boundary_samples(stars(), REGIME_EDGES, (1e4, 1e4))  # every row is near the edges of both conditions
    moved, cuts = stars()[row], np.array(REGIME_EDGES[column])
    edge = cuts[np.abs(cuts - moved[column]).argmin()]
    width = 0.75e3 if column == 0 else 1.0  # narrower than any bin
    moved[column] = edge - np.sign(moved[column] - edge) * step * width
    there = boundary.bins[row].copy()
    there[column] = boundary.across[row, column]
    assert regimes(moved[None])[0] == np.ravel_multi_index(there, boundary.shape)


def test_a_row_on_an_edge_is_above_it_and_below_lies_across():
    boundary = boundary_samples([[4500, -0.5], [4000, -1.0]], REGIME_EDGES, DISTANCES)
    assert boundary.near.all()
    assert boundary.bins.tolist() == [[1, 1], [0, 1]]
    assert boundary.across.tolist() == [[0, 1], [0, 0]]
    assert boundary_samples(np.float32([[0.7]]), [[0.7]], [0.1]).bins.tolist() == [[1]]  # an edge has their precision


def test_crossings_are_wrong_choices_over_a_near_edge_and_no_others():
    rows = [[4450, -0.5], [4450, -0.5], [4450, -0.5], [4000, -0.5], [4450, -0.95], [4450, -0.95]]
    boundary = boundary_samples(rows, REGIME_EDGES, DISTANCES)
    top = [4, 1, 7, 4, 3, 8]  # over the edge, right, too far, far from any edge, over the corner, too far
    crossings = boundary_crossings(top, boundary)
    assert crossings.crossed.tolist() == [True, False, False, False, True, False]
    assert crossings.missed.tolist() == [True, False, True, True, True, True]
    assert crossings.crossing_rate.value == pytest.approx(2 / 5)
    assert crossings.missed_near.value == pytest.approx(4 / 5)
    assert crossings.missed_far.value == 1
    assert np.isnan(boundary_crossings([0], boundary_samples([[0.0]], [[1.0]], [0.1])).crossing_rate.value)  # no rows


def test_a_gate_with_a_noisy_condition_crosses_near_edges():
    """Regimes from conditions with an error of 60 K: mistakes are crossings, and far rows are safe."""
    conditions = stars(5000)
    noisy = conditions + np.random.default_rng(1).normal(size=conditions.shape) * [60, 1e-6]
    boundary = boundary_samples(conditions, REGIME_EDGES, (200.0, 0.1))
    crossings = boundary_crossings(regimes(noisy), boundary)
    assert crossings.missed.sum() > 50
    assert_array_equal(crossings.crossed[boundary.near], crossings.missed[boundary.near])
    assert crossings.missed_far.high < crossings.missed_near.low


NEAR = boundary_samples([[0.95]], [[1.0]], [0.1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: trend([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]), "trend.snr has 3 rows"),
        (lambda: boundary_samples([1.0], [[1.0]], [0.1]), r"boundary_samples.conditions has shape \(1,\)"),
        (lambda: boundary_samples([[1.0]], [[1.0], [2.0]], [0.1]), "boundary_samples.* edges has 2 entries"),
        (lambda: boundary_samples([[np.nan]], [[1.0]], [0.1]), "boundary_samples.conditions is nan at row 0"),
        (lambda: boundary_samples([[1.0]], [[2.0, 1.0]], [0.1]), r"boundary_samples.edges\[0\]"),
        (lambda: boundary_samples([[1.0]], [[1.0]], [0.0]), r"boundary_samples.distances\[0\]=0.0"),
        (lambda: boundary_crossings([0, 1], NEAR), r"boundary_crossings.chosen has shape \(2,\)"),
        (lambda: boundary_crossings([2], NEAR), "boundary_crossings.chosen .* code from 0 to 1"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.stats import ortho_group
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from dualgate.evaluation import (
    bootstrap_scores,
    permutation_contribution,
    row_slices,
    shapley_values,
    tower_correlation,
)

SCORES = st.tuples(*[st.floats(-1, 1)] * 4)


def problem(n_samples=500, seed=0):
    """Targets of a physics part, a quality part and noise, and what each tower would predict."""
    rng = np.random.default_rng(seed)
    phys, quality, noise = rng.normal(size=(3, n_samples))
    y = 2 * phys + quality + 0.5 * noise
    return y, np.zeros(n_samples), 2 * phys, quality, 2 * phys + quality


@given(first=SCORES, second=SCORES)
def test_shares_have_shapleys_axioms(first, second):
    none, phys, quality, both = first
    here, there = shapley_values(*first), shapley_values(none, quality, phys, both)
    assert here["phys"] + here["quality"] == pytest.approx(both - none) == here["total"]
    assert here["phys"] == there["quality"]
    assert here["interaction"] == pytest.approx(there["interaction"])
    alone = shapley_values(none, phys, none, phys)  # a tower that adds nothing gets nothing
    assert (alone["phys"], alone["quality"]) == (pytest.approx(phys - none), 0)
    other, total = shapley_values(*second), shapley_values(*np.add(first, second))
    assert total == pytest.approx({name: here[name] + other[name] for name in total}, abs=1e-12)


def table_of(n_samples=500, **slices):
    """Scores of the four predictions of `problem`."""
    y, *guesses = problem(n_samples)
    guesses = dict(zip(("none", "phys", "quality", "both"), guesses, strict=True))
    return bootstrap_scores(y, guesses, row_slices(n_samples, **slices), n_resamples=100, random_state=0)


def test_independent_parts_get_the_variance_they_explain():
    """Without interaction the shares are the parts' shares of the variance, 4 and 1 of 5.25."""
    table = table_of(20_000)
    shares = shapley_values(*(table.estimate("r2", name) for name in table.names))
    values = [shares[name].value for name in ("phys", "quality", "interaction")]
    assert_allclose(values, [4 / 5.25, 1 / 5.25, 0], atol=0.01)
    assert_allclose(shares["phys"].draws + shares["quality"].draws, shares["total"].draws)


def test_shares_are_of_the_rows_of_a_slice_and_equal_for_towers_with_the_same_information():
    snr = np.random.default_rng(0).uniform(1, 9, 500)
    table, (y, *guesses) = table_of(snr=snr), problem()
    shares = shapley_values(*(table.estimate("r2", name, "H") for name in table.names))
    expected = shapley_values(*(r2_score(y[snr > 7], guess[snr > 7]) for guess in guesses))
    assert {name: share.value for name, share in shares.items()} == pytest.approx(expected)
    shares = shapley_values(*(table.estimate("r2", name) for name in ("none", "phys", "phys", "phys")))
    assert shares["phys"].interval() == shares["quality"].interval()
    assert shares["interaction"].interval().high < 0


def linear(phys, quality):
    return 2 * phys[:, 0] + phys[:, 1] * 0 + quality[:, 0]


def features(n_samples, seed=0):
    y, _, phys, quality, _ = problem(n_samples, seed)
    return np.column_stack([phys / 2, np.ones(n_samples)]), quality[:, None], y


def test_an_ignored_tower_contributes_exactly_nothing():
    phys, quality, y = features(300)
    found = permutation_contribution(lambda p, q: 2 * p[:, 0], phys, quality, y, n_resamples=50, random_state=0)
    assert (found["quality"].value, found["quality"].low, found["quality"].high) == (0, 0, 0)
    assert found["phys"].low > 0
    assert found["both"] == found["phys"]


def test_permutation_agrees_with_scikit_learn_on_single_columns():
    phys, quality, y = features(2000)
    found = permutation_contribution(linear, phys, quality, y, n_repeats=10, n_resamples=100, random_state=0)
    model = LinearRegression(fit_intercept=False).fit(np.eye(2), [2.0, 1.0])
    columns = np.column_stack([phys[:, 0], quality])
    theirs = permutation_importance(model, columns, y, n_repeats=10, random_state=1).importances_mean
    assert_allclose([found["phys"].value, found["quality"].value], theirs, rtol=0.03)


def test_permutation_intervals_cover_the_truth():
    """A shuffled part of variance v costs 2 v of the variance of y: 8 / 5.25 and 2 / 5.25."""
    hits = []
    for seed in range(120):
        contribution = permutation_contribution(
            linear, *features(200, seed), n_repeats=20, n_resamples=200, random_state=seed
        )
        pairs = [(contribution["phys"], 8 / 5.25), (contribution["quality"], 2 / 5.25)]
        hits.append([found.low <= truth <= found.high for found, truth in pairs])
    assert (np.abs(np.mean(hits, axis=0) - 0.95) < 0.05).all()


def test_the_correlation_is_of_linear_directions_alone():
    """It ignores rotation, scale, offset and order; of width one it is the squared correlation."""
    rng = np.random.default_rng(1)
    phys, other = rng.normal(size=(2, 5000, 4))
    quality = phys[:, :2] + other[:, :2]
    turned = 3 * phys @ ortho_group.rvs(4, random_state=0) + 5
    assert_allclose(tower_correlation(turned, quality), tower_correlation(phys, quality))
    assert_allclose(tower_correlation(quality, phys), tower_correlation(phys, quality))
    assert tower_correlation(phys, turned) == pytest.approx(1)
    assert tower_correlation(phys, other) < 0.01
    one = tower_correlation(phys[:, :1], quality[:, :1])
    assert one == pytest.approx(np.corrcoef(phys[:, 0], quality[:, 0])[0, 1] ** 2)
    assert np.isnan(tower_correlation(phys, np.full((5000, 4), 0.1)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda phys, *rest: permutation_contribution(linear, phys[1:], *rest), "inconsistent numbers of samples"),
        (lambda *data: permutation_contribution(linear, *data, n_repeats=1), r"permutation_contribution.n_repeats=1"),
        (lambda phys, quality, _: tower_correlation(phys, quality[1:]), "tower_correlation.quality has shape"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(*features(20))

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from dualgate.evaluation import (
    bootstrap_r2,
    bootstrap_scores,
    delta_r2,
    percentile_interval,
    r2_by_bin,
    recovery_ratio,
    row_slices,
    snr_bins,
)
from dualgate.evaluation.resampling import weight_blocks
from dualgate.study.verdict import seed_interval

SKLEARN = {
    "r2": r2_score,
    "mae": mean_absolute_error,
    "rmse": root_mean_squared_error,
    "bias": lambda y, guess: np.mean(guess - y),
}


def problem(n_samples=300, seed=0):
    rng = np.random.default_rng(seed)
    y, noise = rng.normal(3, 1, size=n_samples), rng.normal(size=n_samples)
    guesses = {"global": y + 0.9 * noise + 0.2, "mixture": y + 0.6 * noise, "oracle": y + 0.5 * noise}
    return y, guesses, rng.uniform(0.5, 12, n_samples), rng.integers(0, 9, n_samples)


@pytest.mark.parametrize("score", sorted(SKLEARN))
def test_every_score_is_scikit_learns_in_every_slice(score):
    y, guesses, snr, regimes = problem()
    slices = row_slices(len(y), snr=snr, regimes=regimes, near=snr > 6)
    table = bootstrap_scores(y, guesses, slices, n_resamples=2, random_state=0)
    expected = [[SKLEARN[score](y[mask], guess[mask]) for guess in guesses.values()] for mask in slices.values()]
    assert_allclose(table.values[score], expected, atol=1e-12)
    assert table.counts.tolist() == [mask.sum() for mask in slices.values()]
    assert len(slices) == 1 + 4 + 9 + 2


def test_slices_by_snr_are_those_of_r2_by_bin():
    y, guesses, snr, _ = problem()
    table = bootstrap_scores(y, guesses, row_slices(len(y), snr=snr), n_resamples=2, random_state=0)
    assert_allclose(table.values["r2"][1:, 1], r2_by_bin(y, guesses["mixture"], snr_bins(snr), 4))


@pytest.mark.parametrize("score", sorted(SKLEARN))
def test_draws_are_the_scores_of_resampled_rows(score):
    """Repeat every row as often as the resample has it, and score that with scikit-learn."""
    y, guesses, snr, _ = problem(80)
    slices = row_slices(len(y), snr=snr)
    table = bootstrap_scores(y, guesses, slices, n_resamples=4, random_state=3)
    (weights,) = weight_blocks(len(y), 4, 3)
    for draw, counts in enumerate(weights.astype(int)):
        rows = np.repeat(np.arange(len(y)), counts)
        for place, mask in enumerate(slices.values()):
            inside = rows[mask[rows]]
            expected = [SKLEARN[score](y[inside], guess[inside]) for guess in guesses.values()]
            assert_allclose(table.draws[score][place, :, draw], expected, atol=1e-12)


def test_draws_do_not_depend_on_blocks_and_agree_with_bootstrap_r2(monkeypatch):
    y, guesses, *_ = problem(100)
    whole = bootstrap_scores(y, guesses, n_resamples=30, random_state=1)
    (weights,) = weight_blocks(len(y), 30, 1)
    assert_allclose(whole.draws["r2"][0].T, bootstrap_r2(y, list(guesses.values()), weights))
    monkeypatch.setattr("dualgate.evaluation.resampling.BLOCK_ELEMENTS", 700)
    assert_allclose(bootstrap_scores(y, guesses, n_resamples=30, random_state=1).draws["r2"], whole.draws["r2"])


def test_gain_and_recovery_are_those_of_the_plain_functions():
    y, guesses, *_ = problem()
    table = bootstrap_scores(y, guesses, n_resamples=500, random_state=0)
    gain = table.interval("r2", "mixture", reference="global")
    plain = delta_r2(y, guesses["mixture"], guesses["global"], n_resamples=500, random_state=0)
    assert_allclose([gain.value, gain.low, gain.high], [plain.value, plain.low, plain.high])
    ratio = table.recovery("mixture", "global", "oracle")
    assert ratio.value == pytest.approx(recovery_ratio(y, guesses["mixture"], guesses["global"], guesses["oracle"]))
    assert ratio.low < ratio.value < ratio.high
    assert np.isnan(table.recovery("mixture", "oracle", "global").value)


def test_samples_of_several_seeds_pool():
    """What the study does with one number of three seeds: stack, and widen to the scatter of seeds."""
    tables = []
    for seed in range(3):
        y, guesses, snr, _ = problem(seed=seed)
        tables.append(bootstrap_scores(y, guesses, row_slices(len(y), snr=snr), n_resamples=100, random_state=seed))
    values, draws = zip(*(t.sample("r2", "mixture", "L", reference="global") for t in tables), strict=True)
    pooled = seed_interval(values, draws)
    stacked = np.stack([t.values["r2"] for t in tables])
    assert pooled.value == pytest.approx((stacked[:, 2, 1] - stacked[:, 2, 0]).mean())
    assert pooled.low < pooled.value < pooled.high


@settings(max_examples=20)
@given(scale=st.floats(0.1, 10), shift=st.floats(-100, 100))
def test_scores_follow_the_unit_of_the_target(scale, shift):
    y, guesses, *_ = problem(50)
    moved = {name: scale * guess + shift for name, guess in guesses.items()}
    here = bootstrap_scores(y, guesses, n_resamples=3, random_state=0)
    there = bootstrap_scores(scale * y + shift, moved, n_resamples=3, random_state=0)
    assert_allclose(there.draws["r2"], here.draws["r2"], rtol=1e-6)
    for score in ("mae", "rmse", "bias"):
        assert_allclose(there.draws[score], scale * here.draws[score], rtol=1e-6, atol=1e-9)


def test_a_slice_without_rows_is_unknown_and_not_an_error():
    y, guesses, *_ = problem(20)
    table = bootstrap_scores(y, guesses, {"none": np.zeros(20, dtype=bool)}, n_resamples=5, random_state=0)
    assert table.counts.tolist() == [0]
    assert all(np.isnan(values).all() for values in table.values.values())
    assert np.isnan(table.interval("mae", "global", "none").low)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    """Errors of standard deviation 0.5 around a bias of 0.1: RMSE is sqrt(0.26)."""
    rng = np.random.default_rng(2)
    hits = []
    for _ in range(150):
        y = rng.normal(size=200)
        table = bootstrap_scores(y, {"a": y + rng.normal(0.1, 0.5, 200)}, n_resamples=200, random_state=rng)
        found = [table.interval(score, "a") for score in ("rmse", "bias", "mae")]
        truth = [np.sqrt(0.26), 0.1, 0.5 * np.sqrt(2 / np.pi) * np.exp(-0.02) + 0.1 * 0.15852]
        hits.append([each.low <= value <= each.high for each, value in zip(found, truth, strict=True)])
    assert (np.abs(np.mean(hits, axis=0) - 0.94) < 0.055).all()


def test_a_percentile_interval_leaves_out_what_is_not_known():
    assert percentile_interval(0.5, [0.0, np.nan, 1.0], 0.5).low == 0.25
    with pytest.raises(ValueError, match=r"percentile_interval.confidence=95"):
        percentile_interval(0.5, [0.0], 95)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda y, g: bootstrap_scores(y, {}), r"predictions is empty"),
        (lambda y, g: bootstrap_scores(y, {"a": y[:-1]}), r"predictions\['a'\] has shape"),
        (lambda y, g: bootstrap_scores(y, g, {"s": np.ones(len(y))}), r"slices\['s'\] has shape .* dtype float64"),
        (lambda y, g: bootstrap_scores(y, g, n_resamples=2).sample("r2", "best"), r"ScoreTable.name='best'"),
        (lambda y, g: bootstrap_scores(y, g, n_resamples=2).sample("mse", "oracle"), r"ScoreTable.score='mse'"),
        (lambda y, g: bootstrap_scores(y, g, n_resamples=2).sample("r2", "oracle", "X"), r"ScoreTable.part='X'"),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    y, guesses, *_ = problem(20)
    with pytest.raises(ValueError, match=message):
        call(y, guesses)

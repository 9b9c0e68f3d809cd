import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from dualgate.evaluation import (
    bootstrap_scores,
    bootstrap_weights,
    percentile_interval,
    r2_by_bin,
    row_slices,
    snr_bins,
)
from dualgate.evaluation.scores import weight_blocks

SKLEARN = {
    "r2": r2_score,
    "mae": mean_absolute_error,
    "rmse": root_mean_squared_error,
    "bias": lambda y, guess: np.mean(guess - y),
}


def problem(n_samples=300, seed=0):
    """Targets, a global, a better and an oracle prediction of them, SNR and regimes."""
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
    assert_allclose(table.values["r2"][1:5, 1], r2_by_bin(y, guesses["mixture"], snr_bins(snr), 4))


@pytest.mark.parametrize("score", sorted(SKLEARN))
def test_draws_are_the_scores_of_resampled_rows(score):
    """Repeat every row as often as the resample has it, and score that with scikit-learn."""
    y, guesses, snr, _ = problem(80)
    slices = row_slices(len(y), snr=snr)
    table = bootstrap_scores(y, guesses, slices, n_resamples=4, random_state=3)
    for draw, counts in enumerate(bootstrap_weights(len(y), n_resamples=4, random_state=3).astype(int)):
        rows = np.repeat(np.arange(len(y)), counts)
        for place, mask in enumerate(slices.values()):
            inside = rows[mask[rows]]
            expected = [SKLEARN[score](y[inside], guess[inside]) for guess in guesses.values()]
            assert_allclose(table.draws[score][place, :, draw], expected, atol=1e-12)


def test_draws_do_not_depend_on_the_size_of_blocks(monkeypatch):
    y, guesses, *_ = problem(100)
    whole = bootstrap_scores(y, guesses, n_resamples=30, random_state=1)
    weights = bootstrap_weights(100, n_resamples=30, random_state=1)
    monkeypatch.setattr("dualgate.evaluation.scores.BLOCK_ELEMENTS", 700)
    assert_allclose(bootstrap_scores(y, guesses, n_resamples=30, random_state=1).draws["r2"], whole.draws["r2"])
    assert_allclose(np.concatenate(list(weight_blocks(100, 30, 1))), weights)


def test_bootstrap_counts_are_those_of_sampling_with_replacement():
    counts = bootstrap_weights(50, n_resamples=4000, random_state=0)
    assert (counts.sum(axis=1) == 50).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(50), abs=0.1)
    assert counts.var() == pytest.approx(1 - 1 / 50, rel=0.02)


def test_gain_and_recovery_follow_from_the_scores_of_the_same_rows():
    y, guesses, *_ = problem()
    table = bootstrap_scores(y, guesses, n_resamples=500, random_state=0)
    lower, gate, upper = (r2_score(y, guess) for guess in guesses.values())
    assert table.estimate("r2", "mixture", reference="global").value == pytest.approx(gate - lower)
    ratio = table.recovery("mixture", "global", "oracle").interval()
    assert ratio.value == pytest.approx((gate - lower) / (upper - lower))
    assert ratio.low < ratio.value < ratio.high
    backwards = table.recovery("mixture", "oracle", "global").interval()  # an oracle worse than the global model
    assert np.isnan([backwards.value, backwards.low]).all()
    assert table.recovery("global", "mixture", "oracle").interval().high < 0
    ends = [table.recovery(name, "global", "mixture") for name in guesses]
    assert [found.value for found in ends[:2]] == pytest.approx([0, 1])
    assert ends[2].value > 1
    assert_allclose(ends[1].draws, 1)


def test_estimates_are_paired_draw_by_draw():
    y, guesses, *_ = problem()
    table = bootstrap_scores(y, guesses, n_resamples=20, random_state=0)
    first, second = (table.estimate("mae", name) for name in ("global", "oracle"))
    found = (first - second + second) / 2
    assert found.value == pytest.approx(table.values["mae"][0, 0] / 2)
    assert_allclose(found.draws, table.draws["mae"][0, 0] / 2)


@settings(max_examples=20)
@given(scale=st.floats(0.1, 10), shift=st.floats(-100, 100) | st.just(1e6))
def test_scores_follow_the_unit_of_the_target(scale, shift):
    y, guesses, *_ = problem(50)
    moved = {name: scale * guess + shift for name, guess in guesses.items()}
    here = bootstrap_scores(y, guesses, n_resamples=3, random_state=0)
    there = bootstrap_scores(scale * y + shift, moved, n_resamples=3, random_state=0)
    assert_allclose(there.draws["r2"], here.draws["r2"], rtol=1e-6)
    for score in ("mae", "rmse", "bias"):
        assert_allclose(there.draws[score], scale * here.draws[score], rtol=1e-6, atol=1e-9)


def test_a_bin_without_spread_and_a_slice_without_rows_are_unknown():
    scores = r2_by_bin([1.0, 1.0, 7.0, 2.0, 3.0], [1.0, 2.0, 7.0, 2.0, 3.0], [0, 0, 1, 2, 2], n_bins=4)
    assert np.isnan(scores).tolist() == [True, True, False, True]
    assert scores[2] == 1
    y, guesses, *_ = problem(20)
    table = bootstrap_scores(y, guesses, {"none": np.zeros(20, dtype=bool)}, n_resamples=5, random_state=0)
    assert table.counts.tolist() == [0]
    assert all(np.isnan(values).all() for values in table.values.values())
    assert np.isnan(table.estimate("mae", "global", "none").interval().low)


def test_a_gain_changes_sign_with_its_ends_and_pairing_narrows_its_interval():
    """Two predictions with common errors differ by less than their separate scatter suggests."""
    y, guesses, *_ = problem(400)
    table, other = (bootstrap_scores(y, guesses, random_state=seed) for seed in (0, 1))
    paired = table.estimate("r2", "mixture", reference="global").interval()
    back = table.estimate("r2", "global", reference="mixture").interval()
    assert_allclose([paired.value, paired.low, paired.high], [-back.value, -back.high, -back.low])
    assert paired.low > 0
    apart = (table.estimate("r2", "mixture") - other.estimate("r2", "global")).interval()
    assert paired.high - paired.low < 0.9 * (apart.high - apart.low)


def test_gains_cover_the_truth_as_often_as_their_confidence():
    """Errors of variance 0.25 and 0.3 around unit targets: the true gain is 0.05."""
    rng = np.random.default_rng(5)
    hits = []
    for _ in range(200):
        y, common = rng.normal(size=(2, 300))
        pair = {name: y + scale * common for name, scale in zip("ab", np.sqrt([0.25, 0.3]), strict=True)}
        table = bootstrap_scores(y, pair, n_resamples=300, random_state=rng)
        interval = table.estimate("r2", "a", reference="b").interval()
        hits.append(interval.low <= 0.05 <= interval.high)
    assert 0.89 <= np.mean(hits) <= 0.99


def test_intervals_of_errors_cover_the_truth_as_often_as_their_confidence():
    """Errors of standard deviation 0.5 around a bias of 0.1: RMSE is sqrt(0.26)."""
    rng = np.random.default_rng(2)
    hits = []
    for _ in range(150):
        y = rng.normal(size=200)
        table = bootstrap_scores(y, {"a": y + rng.normal(0.1, 0.5, 200)}, n_resamples=200, random_state=rng)
        found = [table.estimate(score, "a").interval() for score in ("rmse", "bias", "mae")]
        truth = [np.sqrt(0.26), 0.1, 0.5 * np.sqrt(2 / np.pi) * np.exp(-0.02) + 0.1 * 0.15852]
        hits.append([each.low <= value <= each.high for each, value in zip(found, truth, strict=True)])
    assert (np.abs(np.mean(hits, axis=0) - 0.94) < 0.055).all()


def test_a_percentile_interval_leaves_out_what_is_not_known():
    assert percentile_interval(0.5, [0.0, np.nan, 1.0], 0.5).low == 0.25
    with pytest.raises(ValueError, match=r"Estimate.interval.confidence=95"):
        percentile_interval(0.5, [0.0], 95)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda y, g: r2_by_bin(y, [0, 1], y), r"y_pred has shape \(2,\) and must be \(20,\) like y_true"),
        (lambda y, g: r2_by_bin([0, 1], [0, np.nan], [0, 1]), "y_pred is nan at row 1"),
        (lambda y, g: r2_by_bin([0.0], [0.0], [0]), "y_true has 1 rows"),
        (lambda y, g: r2_by_bin([0.0, 1.0], [0, 1], [0, 3], 2), "bins runs from 0 to 3"),
        (lambda y, g: r2_by_bin([0.0, 1.0], [0, 1], [0.0, 1.0]), r"bins has shape \(2,\), dtype float64"),
        (lambda y, g: r2_by_bin([0.0, 1.0], [0, 1], [0]), "bins has shape"),
        (lambda y, g: bootstrap_weights(1), r"bootstrap_weights.n_samples=1"),
        (lambda y, g: bootstrap_weights(2, n_resamples=0), r"bootstrap_weights.n_resamples=0"),
        (lambda y, g: bootstrap_scores(y, {}), r"predictions is empty"),
        (lambda y, g: bootstrap_scores(y, {"a": y[:-1]}), r"predictions\['a'\] has shape"),
        (lambda y, g: bootstrap_scores(y, g, {"s": np.ones(len(y))}), r"slices\['s'\] has shape .* dtype float64"),
        (lambda y, g: bootstrap_scores(y, g, n_resamples=2).estimate("r2", "best"), r"ScoreTable.name='best'"),
        (lambda y, g: bootstrap_scores(y, g, n_resamples=2).estimate("mse", "oracle"), r"ScoreTable.score='mse'"),
        (lambda y, g: bootstrap_scores(y, g, n_resamples=2).estimate("r2", "oracle", "X"), r"ScoreTable.part='X'"),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    y, guesses, *_ = problem(20)
    with pytest.raises(ValueError, match=message):
        call(y, guesses)

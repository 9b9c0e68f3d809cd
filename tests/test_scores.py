import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from dualgate.evaluation import Estimate, bootstrap_scores, bootstrap_weights, row_slices
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


def test_draws_sample_with_replacement_whatever_the_size_of_blocks(monkeypatch):
    y, guesses, *_ = problem(100)
    whole = bootstrap_scores(y, guesses, n_resamples=30, random_state=1)
    weights = bootstrap_weights(100, n_resamples=4000, random_state=1)
    assert (weights.sum(axis=1) == 100).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(100), abs=0.1)
    assert weights.var() == pytest.approx(1 - 1 / 100, rel=0.02)
    monkeypatch.setattr("dualgate.evaluation.scores.BLOCK_ELEMENTS", 700)
    assert_allclose(bootstrap_scores(y, guesses, n_resamples=30, random_state=1).draws["r2"], whole.draws["r2"])
    assert_allclose(np.concatenate(list(weight_blocks(100, 4000, 1))), weights)


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
    first, second = (table.estimate("mae", name) for name in ("global", "oracle"))
    half = (first - second + second) / 2  # draw by draw
    assert half.value == pytest.approx(table.values["mae"][0, 0] / 2)
    assert_allclose(half.draws, table.draws["mae"][0, 0] / 2)


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


def test_slices_without_spread_or_rows_are_unknown():
    y, codes = np.array([1.0, 1.0, 7.0, 2.0, 3.0]), np.array([0, 0, 1, 2, 2])
    guess = y + (np.arange(5) == 1)
    slices = row_slices(5, regimes=codes, n_regimes=4)
    table = bootstrap_scores(y, {"guess": guess}, slices, n_resamples=5, random_state=0)
    assert np.isnan(table.values["r2"][1:, 0]).tolist() == [True, True, False, True]
    assert table.values["r2"][3] == 1
    assert table.counts.tolist() == [5, 2, 1, 2, 0]
    assert all(np.isnan(values[4]).all() for values in table.values.values())
    assert np.isnan(table.estimate("mae", "guess", "regime 3").interval().low)


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


def test_intervals_cover_the_truth_as_often_as_their_confidence():
    """Errors of variance 0.25 around a bias of 0.1, and others of variance 0.3, of targets of variance one."""
    rng = np.random.default_rng(5)
    truth = [0.04, np.sqrt(0.26), 0.1, 0.5 * np.sqrt(2 / np.pi) * np.exp(-0.02) + 0.1 * 0.15852]
    hits = []
    for _ in range(200):
        y, common = rng.normal(size=(2, 300))
        pair = {"a": y + 0.5 * common + 0.1, "b": y + np.sqrt(0.3) * common}
        table = bootstrap_scores(y, pair, n_resamples=300, random_state=rng)
        found = [table.estimate("r2", "a", reference="b"), *(table.estimate(s, "a") for s in ("rmse", "bias", "mae"))]
        ends = [each.interval() for each in found]
        hits.append([each.low <= value <= each.high for each, value in zip(ends, truth, strict=True)])
    assert (np.abs(np.mean(hits, axis=0) - 0.94) < 0.05).all()


def test_an_interval_leaves_out_what_is_not_known():
    assert Estimate(0.5, np.array([0.0, np.nan, 1.0])).interval(0.5).low == 0.25


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda y, g: row_slices(2, regimes=[0, 3], n_regimes=2), "bins runs from 0 to 3"),
        (lambda y, g: row_slices(2, regimes=[0.0, 1.0]), r"bins has shape \(2,\), dtype float64"),
        (lambda y, g: row_slices(2, snr=[1.0]), "bins has shape"),
        (lambda y, g: Estimate(0.5, y).interval(95), r"Estimate.interval.confidence=95"),
        (lambda y, g: bootstrap_weights(1), r"bootstrap_weights.n_samples=1"),
        (lambda y, g: bootstrap_weights(2, n_resamples=0), r"bootstrap_weights.n_resamples=0"),
        (lambda y, g: bootstrap_scores(y, {}), r"predictions is empty"),
        (lambda y, g: bootstrap_scores(y, {"a": y[:-1]}), r"predictions\['a'\] has shape \(19,\) .* like y_true"),
        (lambda y, g: bootstrap_scores([0, 1], {"a": [0, np.nan]}), r"predictions\['a'\] is nan at row 1"),
        (lambda y, g: bootstrap_scores([0.0], {"a": [0.0]}), "y_true has 1 rows"),
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

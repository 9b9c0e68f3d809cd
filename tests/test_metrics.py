import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose
from scipy.special import softmax
from sklearn.metrics import r2_score

from dualgate.evaluation import (
    bin_members,
    bootstrap_r2,
    bootstrap_weights,
    delta_r2,
    gate_confidence,
    gate_entropy,
    r2_by_bin,
    recovery_ratio,
)

LOGITS = arrays(float, (6, 4), elements=st.floats(-30, 30))


def planted(n_samples=400, seed=0):
    """Targets with a global, a better and an oracle prediction of them."""
    rng = np.random.default_rng(seed)
    y, noise = rng.normal(size=n_samples), rng.normal(size=n_samples)
    return y, y + 0.9 * noise, y + 0.6 * noise, y + 0.5 * noise


def test_recovery_is_one_at_the_oracle_and_nought_at_the_global_model():
    y, worst, _, oracle = planted()
    assert recovery_ratio(y, oracle, worst, oracle) == pytest.approx(1)
    assert recovery_ratio(y, worst, worst, oracle) == pytest.approx(0)


def test_recovery_exceeds_one_when_soft_weights_beat_the_oracle():
    y, worst, oracle, better = planted()
    assert recovery_ratio(y, better, worst, oracle) > 1


@given(scale=st.floats(0.1, 10), shift=st.floats(-100, 100))
def test_recovery_ignores_the_unit_of_the_target(scale, shift):
    columns = planted(50)
    here = recovery_ratio(*(columns[i] for i in (0, 2, 1, 3)))
    there = recovery_ratio(*(scale * columns[i] + shift for i in (0, 2, 1, 3)))
    assert there == pytest.approx(here, rel=1e-6)


def test_recovery_refuses_an_oracle_no_better_than_the_global_model():
    y, worst, _, oracle = planted()
    with pytest.raises(ValueError, match=r"recovery_ratio.y_oracle has R"):
        recovery_ratio(y, worst, oracle, worst)


@given(logits=LOGITS)
def test_entropy_and_confidence_keep_their_bounds(logits):
    weights = softmax(logits, axis=1)
    entropy, confidence = gate_entropy(weights), gate_confidence(weights)
    assert (entropy >= 0).all()
    assert (entropy <= np.log(4) + 1e-12).all()
    assert (confidence >= 0.25).all()
    assert (-np.log(confidence) <= entropy + 1e-12).all()  # min-entropy never exceeds Shannon's


@given(logits=LOGITS)
def test_a_higher_temperature_never_sharpens_a_gate(logits):
    sharp, flat = softmax(logits, axis=1), softmax(logits / 2, axis=1)
    assert (gate_entropy(flat) >= gate_entropy(sharp) - 1e-9).all()


def test_entropy_of_equal_weights_is_the_logarithm_of_their_number():
    assert_allclose(gate_entropy(np.full((3, 9), 1 / 9)), np.log(9))
    assert_allclose(gate_entropy(np.eye(5)), 0)


@pytest.mark.parametrize("weights", [[[0.5, 0.6]], [[-0.1, 1.1]], [[np.nan, 1.0]], [0.5, 0.5]])
@pytest.mark.parametrize("score", [gate_entropy, gate_confidence])
def test_gate_scores_refuse_what_is_no_distribution(score, weights):
    with pytest.raises(ValueError, match=rf"{score.__name__}.weights"):
        score(weights)


def test_r2_by_bin_is_scikit_learns_in_every_bin():
    y, guess, *_ = planted()
    bins = np.arange(len(y)) % 3
    expected = [r2_score(y[bins == code], guess[bins == code]) for code in range(3)]
    assert_allclose(r2_by_bin(y, guess, bins), expected)


def test_r2_by_bin_is_nan_where_targets_do_not_vary():
    scores = r2_by_bin([1.0, 1.0, 7.0, 2.0, 3.0], [1.0, 2.0, 7.0, 2.0, 3.0], [0, 0, 1, 2, 2], n_bins=4)
    assert np.isnan(scores).tolist() == [True, True, False, True]
    assert scores[2] == 1


@pytest.mark.parametrize(
    ("bins", "message"), [([0, 3], "runs from 0 to 3"), ([0.0, 1.0], "dtype float64"), ([0], "shape")]
)
def test_bins_are_checked_by_name(bins, message):
    with pytest.raises(ValueError, match=f"bins (has )?{message}"):
        bin_members(bins, 2, n_bins=2)


def test_weighted_r2_is_scikit_learns_for_every_weighting_and_prediction():
    y, *guesses = planted(60)
    weights = bootstrap_weights(60, n_resamples=5, random_state=3)
    expected = [[r2_score(y, guess, sample_weight=row) for guess in guesses] for row in weights]
    assert_allclose(bootstrap_r2(y, guesses, weights), expected)


def test_weighted_r2_survives_a_large_offset():
    y, guess, *_ = planted(60)
    ones = np.ones((1, 60))
    assert_allclose(bootstrap_r2(y + 1e6, [guess + 1e6], ones), bootstrap_r2(y, [guess], ones), rtol=1e-6)


def test_bootstrap_counts_are_those_of_sampling_with_replacement():
    counts = bootstrap_weights(50, n_resamples=4000, random_state=0)
    assert (counts.sum(axis=1) == 50).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(50), abs=0.1)
    assert counts.var() == pytest.approx(1 - 1 / 50, rel=0.02)


def test_delta_of_a_prediction_with_itself_is_certainly_nought():
    y, guess, *_ = planted()
    interval = delta_r2(y, guess, guess, random_state=0)
    assert (interval.value, interval.low, interval.high) == (0, 0, 0)


def test_delta_changes_sign_with_its_arguments():
    y, worst, better, _ = planted()
    there = delta_r2(y, better, worst, random_state=0)
    back = delta_r2(y, worst, better, random_state=0)
    assert_allclose([there.value, there.low, there.high], [-back.value, -back.high, -back.low])
    assert there.low > 0


def test_delta_does_not_depend_on_the_size_of_its_blocks(monkeypatch):
    y, worst, better, _ = planted()
    whole = delta_r2(y, better, worst, n_resamples=100, random_state=0)
    monkeypatch.setattr("dualgate.evaluation.resampling.BLOCK_ELEMENTS", 7 * len(y))
    blocks = delta_r2(y, better, worst, n_resamples=100, random_state=0)
    assert_allclose([blocks.low, blocks.high], [whole.low, whole.high])


def test_pairing_narrows_the_interval():
    """Two predictions with common errors differ by less than their separate scatter suggests."""
    y, worst, better, _ = planted()
    paired = delta_r2(y, better, worst, random_state=0)
    rows = [bootstrap_r2(y, [p], bootstrap_weights(len(y), random_state=s)) for s, p in enumerate((better, worst))]
    apart = np.quantile(rows[0] - rows[1], [0.025, 0.975])
    assert paired.high - paired.low < 0.9 * np.diff(apart)[0]


def test_delta_interval_covers_the_truth_about_as_often_as_it_says():
    """Errors of variance 0.25 and 0.3 around unit targets: the true gain is 0.05."""
    rng = np.random.default_rng(5)
    hits = []
    for _ in range(200):
        y, common = rng.normal(size=(2, 300))
        good, bad = (y + scale * common for scale in np.sqrt([0.25, 0.3]))
        interval = delta_r2(y, good, bad, n_resamples=300, random_state=rng)
        hits.append(interval.low <= 0.05 <= interval.high)
    assert 0.89 <= np.mean(hits) <= 0.99


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (([0, 1, 2], [0, 1], [0, 1, 2]), "y_pred has shape"),
        (([0, 1], [0, np.nan], [0, 1]), "y_pred is nan at row 1"),
        (([0.0], [0.0], [0.0]), "y_true has 1 rows"),
    ],
)
def test_rows_that_do_not_match_are_named(columns, message):
    with pytest.raises(ValueError, match=message):
        delta_r2(*columns)

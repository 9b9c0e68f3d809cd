"""The loadings behind Wiener scores: planted ones are found, and no row reaches those it is scored with."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import subspace_angles
from scipy.stats import multivariate_normal
from sklearn.linear_model import Ridge

from dualgate.features import NoiseWhitenedPCA, WienerScores
from dualgate.features.factors import Factors, FactorSums, known_factors, unfold, weigh
from dualgate.features.loadings import Loadings, _solve

P = 10


def spectra(n_rows, loadings, seed=0, quality=1.0, floor=0.5, uneven=0.5):
    """Rows [flux | error] of planted loadings (n_factors, n_pixels), and their factors."""
    rng = np.random.default_rng(seed)
    level = np.exp(quality * rng.normal(size=(n_rows, 1)))
    error = level * floor * np.exp(uneven * rng.normal(size=(n_rows, loadings.shape[1])))
    factors = rng.normal(size=(n_rows, len(loadings)))
    return np.hstack([factors @ loadings + error * rng.normal(size=error.shape), error]), factors


def scores(n_components, n_pixels, **params):
    columns = {"columns": slice(0, n_pixels), "error_columns": slice(n_pixels, 2 * n_pixels)}
    return WienerScores(n_components, **columns, **params)


def angle(left, right):
    """Largest angle between the spaces that columns span, in degrees."""
    return np.degrees(subspace_angles(left, right).max())


def read(block, first_row=0, out=None):
    return weigh(block[:, :P], block[:, P:], np.full(P, 0.3), np.linspace(0.5, 2, P), out)


def small(n_rows=90, n_known=1, seed=0):
    """Few rows, a place to start from, and what is known of the rows."""
    rng = np.random.default_rng(seed)
    X, _ = spectra(n_rows, rng.normal(size=(2, P)), seed)
    factors = Factors(rng.normal(size=(P, 2)), rng.normal(size=(P, n_known)), 0.1 * rng.normal(size=P))
    return X, factors, rng.normal(size=(n_rows, n_known))


def likelihood(X, factors, known):
    """Log-likelihood of the rows, by their dense covariances, in units of the noise."""
    mean, noise = np.full(P, 0.3), np.linspace(0.5, 2, P)
    total = 0.0
    for row, u in zip(X, known, strict=True):
        covariance = factors.free @ factors.free.T + np.diag(np.square(row[P:] / noise))
        total += multivariate_normal((factors.known @ u) + factors.shift, covariance).logpdf((row[:P] - mean) / noise)
    return total


@pytest.mark.parametrize("n_known", [0, 2])
def test_no_step_lowers_the_likelihood(n_known):
    X, factors, known = small(n_known=n_known)
    values = [likelihood(X, factors, known)]
    for _ in range(12):
        sums = FactorSums(read, factors, known, 2)
        sums.update(0, X)
        factors = Loadings(sums.found, 2, False, np.zeros(3 + n_known)).all
        values.append(likelihood(X, factors, known))
    assert np.all(np.diff(values) > -1e-7 * abs(values[0]))
    assert values[-1] > values[0] + 100


def test_sums_are_those_of_every_row_by_itself():
    X, factors, known = small()
    sums = FactorSums(read, factors, known, 3)
    sums.update(0, X)
    gram, moment = np.zeros((3, P, 4, 4)), np.zeros((3, P, 4))
    noise, second = np.linspace(0.5, 2, P), np.zeros((4, 4))
    for i, row in enumerate(X):
        weights = np.square(noise / row[P:])
        deviation = (row[:P] - 0.3) / noise
        covariance = np.linalg.inv(factors.free.T @ np.diag(weights) @ factors.free + np.eye(2))
        mean = covariance @ factors.free.T @ (weights * (deviation - factors.known @ known[i] - factors.shift))
        each = np.r_[mean, known[i], 1]
        pairs = np.outer(each, each)
        pairs[:2, :2] += covariance
        gram[i % 3] += weights[:, None, None] * pairs
        moment[i % 3] += np.outer(weights * deviation, each)
        second += pairs
    assert_allclose(unfold(sums.found["gram"].reshape(3 * P, -1), 4).reshape(gram.shape), gram, rtol=1e-9, atol=1e-9)
    assert_allclose(sums.found["moment"], moment, rtol=1e-9, atol=1e-9)
    assert_allclose(sums.found["second"], second, rtol=1e-9, atol=1e-9)


@settings(max_examples=25)
@given(cuts=st.lists(st.integers(0, 90), max_size=4).map(sorted), order=st.randoms(use_true_random=False))
def test_parts_in_any_order_are_the_whole(cuts, order):
    X, factors, known = small()
    whole = FactorSums(read, factors, known, 4)
    whole.update(0, X)
    total = FactorSums(read, factors, known, 4)
    parts = []
    for start, stop in zip([0, *cuts], [*cuts, len(X)], strict=True):
        part = pickle.loads(pickle.dumps(total.part(start, stop)))
        if start < stop:
            part.update(start, X[start:stop])
        parts.append(part.found)
    order.shuffle(parts)
    for part in parts:
        total.merge(pickle.loads(pickle.dumps(part)))
    for name in ("gram", "moment", "second", "n_rows"):
        assert_allclose(total.found[name], whole.found[name], rtol=1e-9, atol=1e-9, err_msg=name)


def test_what_travels_is_light():
    rng = np.random.default_rng(0)
    factors = Factors(rng.normal(size=(500, 20)), np.zeros((500, 1)), np.zeros(500))
    sums = FactorSums(read, factors, np.zeros((1000, 1)), 5)
    sums.factors.products(np.dtype(np.float64))
    assert len(pickle.dumps(sums.part(10, 20))) < 3 * 500 * 22 * 8  # loadings twice and no products


def test_planted_factors_are_found_beneath_uneven_noise():
    planted = np.random.default_rng(1).normal(size=(3, 40)) * [[1.0], [0.7], [0.5]]
    X, _ = spectra(1500, planted, quality=1.5, floor=3.0, uneven=1.5)
    one, many = (angle(scores(3, 40, max_iter=n).fit(X).loadings_, planted.T) for n in (1, 20))
    plain = NoiseWhitenedPCA(3, columns=slice(0, 40), error_columns=slice(40, 80)).fit(X)
    rival = angle(plain.components_.T * plain.noise_[:, None], planted.T)
    assert many < 0.6 * rival
    assert many < one
    found = scores(3, 40, max_iter=20).fit(X)
    wanted = planted.T @ planted
    assert np.linalg.norm(found.loadings_ @ found.loadings_.T - wanted) < 0.1 * np.linalg.norm(wanted)


def test_the_weak_direction_of_the_target_is_found():
    rng = np.random.default_rng(2)
    strong = rng.normal(size=(7, 60)) * np.repeat([1.0, 0.3], [4, 3])[:, None]
    weak = 0.15 * rng.normal(size=(1, 60))  # weaker than what has nothing to do with it
    X, factors = spectra(1500, np.vstack([strong, weak]), quality=0.5, floor=1.0)
    y = factors[:, -1]
    test, truth = spectra(1500, np.vstack([strong, weak]), seed=3, quality=0.5, floor=1.0)
    found = {}
    for supervised in (True, False):
        model = scores(4 + (not supervised), 60, supervised=supervised, max_iter=5).fit(X, y)
        ridge = Ridge(1.0).fit(model.project(X, np.arange(len(X)))["projected"], y)
        found[supervised] = ridge.score(model.transform(test), truth[:, -1])
    assert found[True] > found[False] + 0.1
    ideal = scores(8, 60).fit(X, clean=factors @ np.vstack([strong, weak]))
    best = Ridge(1.0).fit(ideal.transform(X), y).score(ideal.transform(test), truth[:, -1])
    assert found[True] > 0.75 * best


def test_regimes_bring_their_means_and_a_slope_each():
    rng = np.random.default_rng(3)
    y, regimes = 1e-21 * rng.normal(size=900), rng.integers(0, 3, 900)
    known = known_factors(y, regimes)
    assert known.shape == (900, 5)
    assert_allclose(known.T @ known / 900, np.eye(5), atol=1e-9)
    wanted = np.column_stack([regimes == 1, (regimes == 2) * y / y.std(), y / y.std()]).astype(float)
    wanted -= wanted.mean(axis=0)
    assert_allclose(known @ (known.T @ wanted) / 900, wanted, atol=1e-9)
    assert known_factors(np.full(9, 0.1)).shape == (9, 0)
    assert known_factors(np.full(9, 0.1), np.arange(9) % 2).shape == (9, 1)


@pytest.mark.parametrize("smooth", [False, True])
def test_a_fold_is_left_out_as_if_it_had_not_been_read(smooth):
    X, factors, known = small()
    sums = FactorSums(read, factors, known, 3)
    sums.update(0, X)
    found = Loadings(sums.found, 2, smooth)
    fewer = FactorSums(read, factors, np.delete(known, np.s_[2::3], axis=0), 1)
    fewer.update(0, np.delete(X, np.s_[2::3], axis=0))
    solution = _solve(unfold(fewer.found["gram"][0], 4), fewer.found["moment"][0], found._present, smooth)
    for name in ("free", "known", "shift"):
        assert_allclose(getattr(found.without(2), name), getattr(found._factors(solution), name), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("smooth", [False, True])
def test_the_maximisation_solves_its_normal_equations(smooth):
    X, factors, known = small()
    sums = FactorSums(read, factors, known, 2)
    sums.update(0, X)
    gram, moment = unfold(sums.found["gram"].sum(axis=0), 4), sums.found["moment"].sum(axis=0)
    penalties = np.array([3.0, 20.0, 0.5, 0])
    square = np.diff(np.eye(P), n=2 if smooth else 0, axis=0)
    square = square.T @ square
    system = np.zeros((P, 4, P, 4))
    for pixel in range(P):
        system[pixel, :, pixel] += gram[pixel]
    for factor in range(4):
        system[:, factor, :, factor] += penalties[factor] * square
    expected = np.linalg.solve(system.reshape(4 * P, 4 * P), moment.ravel()).reshape(P, 4)
    assert_allclose(_solve(gram, moment, penalties, smooth), expected, rtol=1e-5, atol=1e-6)


def test_turned_and_scaled_factors_say_the_same_of_the_rows():
    X, factors, known = small(n_known=2)
    sums = FactorSums(read, factors, known, 2)
    sums.update(0, X)
    penalties = np.zeros(5)
    solution = _solve(unfold(sums.found["gram"].sum(axis=0), 5), sums.found["moment"].sum(axis=0), penalties, False)
    found, second = Loadings(sums.found, 2, False, penalties).all, sums.found["second"] / len(X)
    rest = np.column_stack([found.known, found.shift])
    turned = found.free @ found.free.T + rest @ second[2:, 2:] @ rest.T
    assert_allclose(turned, solution @ second @ solution.T, rtol=1e-9, atol=1e-9)


def test_a_training_row_is_held_against_the_mean_and_loadings_of_its_fold():
    X, factors = spectra(60, np.random.default_rng(10).normal(size=(2, 12)))
    model = scores(2, 12, supervised=True, max_iter=3, cv=3)
    model.begin(X, X, len(X), factors[:, 0])
    mean = model.mean_.copy()
    while (step := model.next_pass()) is not None:
        step.update(0, X)
        last = Loadings(step.found, 2, model.smooth, model._penalties)
        model.end_pass(step)
    training = model.project(X, np.arange(len(X)))["projected"]
    for row in range(9):
        fold = last.without(row % 3)
        V = np.hstack([fold.free, fold.known]) * model.noise_[:, None]
        gain = V.T @ np.linalg.inv(V @ V.T + np.diag(np.square(X[row, 12:])))
        expected = V @ gain @ (X[row, :12] - mean - model.noise_ * fold.shift)
        found = model.noise_ * (model._bases[row % 3].free @ training[row])
        assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


def test_smooth_loadings_are_found_from_few_rows():
    place = np.linspace(0, 1, 120)
    planted = np.array([np.sin(7 * place), np.exp(-30 * (place - 0.4) ** 2), np.cos(11 * place)])
    X, _ = spectra(60, planted, quality=0.5, floor=2.0)
    rough, smooth = (
        angle(scores(3, 120, smooth=smooth, max_iter=15).fit(X).loadings_, planted.T) for smooth in (False, True)
    )
    assert smooth < 0.7 * rough


def test_without_smoothness_the_order_of_pixels_says_nothing():
    planted = np.random.default_rng(7).normal(size=(2, 30))
    X, factors = spectra(300, planted)
    order = np.random.default_rng(8).permutation(30)
    for smooth in (False, True):
        model = scores(2, 30, supervised=True, smooth=smooth, max_iter=3)
        here = model.fit(X, factors[:, 0]).loadings_[order]
        there = model.fit(X[:, np.r_[order, 30 + order]], factors[:, 0]).loadings_
        same = np.allclose(np.abs(there), np.abs(here), rtol=1e-5, atol=1e-6)
        assert same == (not smooth)


def test_rows_that_are_not_read_have_the_scores_of_others():
    planted = np.random.default_rng(9).normal(size=(2, 30))
    X, factors = spectra(1000, planted)
    model = scores(2, 30, supervised=True, max_rows=128, cv=5, max_iter=2).fit(X, factors[:, 0])
    training, whole = (model.project(X, rows)["projected"] for rows in (np.arange(len(X)), None))
    read_rows = np.flatnonzero((training != whole).any(axis=1))
    assert_array_equal(read_rows, model.rows_read_)
    assert len(read_rows) == 128
    fold = read_rows[2::5]
    for wrong in (0, 1, 3, 4):
        model._bases[wrong] = None  # the third fold alone
    for row in (fold[0], fold[-1]):
        found = model.project(X[row : row + 1], np.array([row]))["projected"]
        assert_allclose(found, training[row : row + 1], rtol=1e-9, atol=1e-12)

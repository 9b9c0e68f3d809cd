"""Nuisances of spectra: what is integrated out, left out or estimated beside the factors of a row."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import kstest
from sklearn.base import clone
from sklearn.metrics import r2_score

from dualgate import FactorExperts
from dualgate.experts import ExtrapolationWarning
from dualgate.features import Nuisances, WienerScores
from dualgate.features.factors import Factors, split_information, unfold, weigh
from dualgate.features.nuisances import LIGHT, Reader

P, LINES = 300, (8020.0, 8055.0, 8090.0, 8130.0)
WAVE = np.linspace(8000, 8150, P)
FLUX, ERROR = slice(0, P), slice(P, None)


def spectra_of(z, wave=WAVE):
    """Noise-free spectra with four lines whose depths are two factors, at the wavelengths of each row."""
    depth = np.array([[0.10, 0.05], [0.12, -0.04], [0.05, 0.10], [0.1, 0.02]])
    spectrum = np.ones((len(z), P))
    for line, width, slopes in zip(LINES, (2, 2, 2, 30), depth, strict=True):  # the last one looks like a continuum
        spectrum -= (0.3 + z @ slopes)[:, None] * np.exp(-0.5 * ((wave - line) / width) ** 2)
    return spectrum


def draw(n_rows, seed, *, velocity=0.0, levels=(0.05, 0.3)):
    """Clean flux, errors, standard normal noise and target of some rows."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n_rows, 2))
    velocity = np.broadcast_to(velocity, n_rows)[:, None]
    clean = spectra_of(z, WAVE / (1 + velocity / LIGHT))
    error = np.exp(rng.uniform(*np.log(levels), (n_rows, 1))) * rng.uniform(0.8, 1.25, (n_rows, P))
    return clean, error, rng.normal(size=clean.shape), z[:, 0] + 0.3 * z[:, 1] ** 2


def joined(flux, error):
    return np.hstack([flux, error])


def experts(**nuisances):
    made = Nuisances(WAVE, **nuisances) if nuisances else None
    scores = WienerScores(4, columns=FLUX, error_columns=ERROR, supervised=True, smooth=True, nuisances=made)
    return FactorExperts(FLUX, ERROR, n_components=3, n_factors=2, projection=scores, refine=1, random_state=0)


@pytest.fixture(scope="module")
def train():
    clean, error, noise, y = draw(2500, 0)
    return joined(clean + error * noise, error), y


@pytest.fixture(scope="module")
def robust(train):
    return experts(robust=True, free_errors=True, scale=0.1).fit(*train)


@pytest.fixture(scope="module")
def moving(train):
    return experts(velocity=150.0, robust=True).fit(*train)


@pytest.fixture(scope="module")
def unseen():
    return draw(1200, 1)


@pytest.fixture
def rows():
    """Deviations of rows and a set of factors in units of a noise that is one everywhere."""
    rng = np.random.default_rng(3)
    mean, error = rng.normal(5, 1, 40), rng.uniform(0.5, 2, (30, 40))
    factors = Factors(rng.normal(size=(40, 3)), np.zeros((40, 0)), np.zeros(40))
    flux = mean + rng.normal(size=(30, 3)) @ factors.free.T + error * rng.normal(size=(30, 40))
    return flux, error, mean, factors


def read(rows, nuisances, **options):
    flux, error, mean, factors = rows
    reader = Reader(nuisances, factors, mean, np.ones(len(mean)))
    return reader.read(*weigh(flux, error, mean, np.ones(len(mean))), **options)


def parts_of(found, width=3):
    folded, moment = split_information(found["information"])
    return unfold(folded, width), moment


# ---- integrated out --------------------------------------------------------------------------------------------------


def test_information_is_that_of_rows_whose_covariance_has_the_nuisances(rows):
    flux, error, mean, factors = rows
    templates = np.random.default_rng(0).normal(size=(2, 40))
    nuisances = Nuisances(scale=0.3, continuum=0.1, degree=2, templates=templates)
    found = read(rows, nuisances)
    loadings = np.column_stack([mean[:, None] * nuisances.multipliers(40), templates.T])
    for row, (precision, moment) in enumerate(zip(*parts_of(found), strict=True)):
        inverse = np.linalg.inv(np.diag(error[row] ** 2) + loadings @ loadings.T)
        assert_allclose(precision, factors.free.T @ inverse @ factors.free, rtol=1e-8, atol=1e-8)
        assert_allclose(moment, factors.free.T @ inverse @ (flux[row] - mean), rtol=1e-8, atol=1e-8)
        assert_allclose(found["chi_square"][row], (flux[row] - mean) @ inverse @ (flux[row] - mean), rtol=1e-8)


def test_without_freedom_nothing_changes(rows):
    plain = read(rows, Nuisances())
    assert_allclose(read(rows, Nuisances(scale=1e-9, continuum=1e-9))["information"], plain["information"], rtol=1e-9)
    assert_allclose(read(rows, Nuisances(robust=True))["information"], plain["information"])


def test_what_a_nuisance_may_do_changes_no_prediction(train, unseen):
    clean, error, noise, y = unseen
    model = experts(continuum=0.3).fit(*train)
    response = 1 + 0.05 * np.linspace(-1, 1, P) ** 3
    flux = clean + error * noise
    before, after = (model.predict(joined(*each)) for each in ((flux, error), (flux * response, error * response)))
    plain = experts().fit(*train)
    moved = plain.predict(joined(flux * response, error * response)) - plain.predict(joined(flux, error))
    assert np.linalg.norm(after - before) < 0.2 * np.linalg.norm(moved)
    assert r2_score(y, before) > 0.9 * r2_score(y, plain.predict(joined(flux, error)))


def test_correlated_neighbours_have_the_information_of_their_covariance(rows):
    flux, error, mean, factors = rows
    flux, error = flux.copy(), error.copy()
    flux[4, [3, 20]], error[7, 11] = np.nan, np.inf
    found = read((flux, error, mean, factors), Nuisances(correlation=(0.3, 0.1)))
    for row, (precision, moment) in enumerate(zip(*parts_of(found), strict=True)):
        here = np.isfinite(flux[row]) & np.isfinite(error[row])
        apart = np.abs(np.subtract.outer(np.arange(40), np.arange(40)))
        correlation = np.select([apart == 0, apart == 1, apart == 2], [1.0, 0.3, 0.1], 0.0)[np.ix_(here, here)]
        inverse = np.linalg.inv(correlation * np.outer(error[row, here], error[row, here]))
        own, deviation = factors.free[here], (flux[row] - mean)[here]
        assert_allclose(precision, own.T @ inverse @ own, rtol=1e-8)
        assert_allclose(moment, own.T @ inverse @ deviation, rtol=1e-7, atol=1e-8)
        assert_allclose(found["chi_square"][row], deviation @ inverse @ deviation, rtol=1e-8)


# ---- left out --------------------------------------------------------------------------------------------------------


def test_planted_bad_pixels_are_left_out_and_no_others():
    rng = np.random.default_rng(5)
    flux, error = rng.normal(size=(200, 400)), np.ones((200, 400))
    loadings = Factors(rng.normal(size=(400, 3)) / 5, np.zeros((400, 0)), np.zeros(400))
    planted = np.zeros(flux.shape, dtype=bool)
    for row in range(0, 200, 2):
        planted[row, rng.choice(400, 1 + row // 8, replace=False)] = True
    flux[planted] += 20
    reader = Reader(Nuisances(robust=True), loadings, np.zeros(400), np.ones(400))
    found = reader.read(*weigh(flux, error, np.zeros(400), np.ones(400)))
    assert_allclose(found["n_bad"], planted.sum(axis=1), atol=1)
    assert found["n_bad"][1::2].mean() < 0.03
    masked = np.where(planted, np.inf, error)
    expected = Reader(Nuisances(), loadings, np.zeros(400), np.ones(400)).read(
        *weigh(flux, masked, np.zeros(400), np.ones(400))
    )
    same = found["n_bad"] == planted.sum(axis=1)
    assert same.mean() > 0.95
    for name in ("information", "chi_square", "n_measured"):
        assert_allclose(found[name][same], expected[name][same], rtol=1e-6, atol=1e-6)


def test_cosmic_rays_cost_nothing(robust, unseen):
    clean, error, noise, y = unseen
    flux = clean + error * noise
    rng = np.random.default_rng(7)
    struck = flux.copy()
    for row in struck:
        row[rng.choice(P, 5, replace=False)] += 3.0
    scores = [r2_score(y, robust.predict(joined(each, error))) for each in (flux, struck)]
    assert scores[1] > scores[0] - 0.02
    fragile = clone(robust).set_params(projection__nuisances=None)
    X = joined(flux, error)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)
        fragile.fit(X, y)
        assert r2_score(y, fragile.predict(joined(struck, error))) < scores[0] - 0.3


def test_the_size_of_the_errors_is_found(robust, unseen):
    clean, error, noise, _ = unseen
    flux = clean + error * noise
    expected, std = robust.predict(joined(flux, error), return_std=True)
    for factor in (0.5, 2.0):
        found, stated = robust.predict(joined(flux, factor * error), return_std=True)
        assert np.sqrt(np.mean(((found - expected) / std) ** 2)) < 0.05
        assert_allclose(stated.mean(), std.mean(), rtol=0.05)


# ---- velocity --------------------------------------------------------------------------------------------------------


def test_velocities_are_found_with_their_scatter(moving):
    rng = np.random.default_rng(11)
    velocity = rng.uniform(-140, 140, 800)
    clean, error, noise, y = draw(800, 12, velocity=velocity, levels=(0.02, 0.1))
    X = joined(clean + error * noise, error)
    mean, std = moving.predict_velocity(X)
    assert std.min() > 0
    assert 0.85 < 1.4826 * np.median(np.abs((mean - velocity) / std)) < 1.15
    slope = np.gradient(clean, WAVE, axis=1) * WAVE / LIGHT
    bound = 1 / np.sqrt(np.square(slope / error).sum(axis=1))
    assert np.median(np.abs(mean - velocity)) / 0.6745 < 1.5 * np.median(bound)
    still = draw(800, 12, levels=(0.02, 0.1))
    at_rest = moving.predict(joined(still[0] + still[1] * still[2], still[1]))
    assert r2_score(y, moving.predict(X)) > r2_score(y, at_rest) - 0.03


def test_velocity_needs_to_be_set_free(robust, unseen):
    clean, error, _, _ = unseen
    with pytest.raises(ValueError, match=r"predict_velocity: the velocity of a row is taken to be zero.*velocity=160"):
        robust.predict_velocity(joined(clean, error))


def test_answers_do_not_depend_on_the_rows_beside(moving, robust, unseen):
    clean, error, noise, _ = unseen
    X = joined(clean + error * noise, error)
    X[::7, :40] += 5.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)
        for model in (moving, robust):
            alone = np.concatenate([model.predict(X[row : row + 1]) for row in range(0, 60)])
            assert_allclose(model.predict(X)[:60], alone, rtol=1e-6, atol=1e-8)


# ---- unusual rows, units, errors -------------------------------------------------------------------------------------


def test_p_values_are_uniform_for_usual_rows_at_any_noise(robust, unseen):
    clean, error, noise, _ = unseen
    p_values = robust.novelty(joined(clean + error * noise, error))
    noisy = error.mean(axis=1) > np.median(error.mean(axis=1))
    for own in (noisy, ~noisy):
        assert kstest(p_values[own], "uniform").statistic < 0.08


def test_unusual_rows_have_small_p_values(robust, unseen):
    clean, error, noise, _ = unseen
    precise = error.mean(axis=1) < 0.15
    noise = (error * noise)[precise]
    clean, error = clean[precise], error[precise]
    strange = clean.copy()
    strange[:, 200:240] -= 0.5
    others = {
        "zero": np.zeros_like(clean),
        "noise": noise,
        "twice": 2 * (clean + noise),
        "line": strange + noise,
    }
    for name, flux in others.items():
        p_values = robust.novelty(joined(flux, error))
        assert (p_values < 0.01).mean() > 0.95, name
        assert (p_values > 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda flux, error: (10 * flux, 10 * error), r"Flux and errors are about (9\.\d|10) times"),
        (lambda flux, error: (30 * flux, error), r"Their flux is about 3\d times"),
        (lambda flux, error: (flux, error**-2.0), "look like inverse variances: give the errors, 1 / sqrt"),
        (lambda flux, error: (flux, error**2), "look like variances: give the errors, sqrt"),
        (lambda flux, error: (flux, 1e6 * error), r"Their errors are about .*e\+05 times"),
    ],
)
def test_wrong_units_are_named(robust, change, message):
    clean, error, noise, _ = draw(300, 21, levels=(0.02, 0.06))
    flux, error = change(clean + error * noise, error)
    with pytest.warns(ExtrapolationWarning, match=rf"300 of 300 rows are far outside.*{message}"):
        robust.predict(joined(flux, error))


def test_overflow_is_an_error_that_names_the_row(robust, unseen):
    clean, error, noise, _ = unseen
    X = joined(clean + error * noise, error)
    X[5] *= 1e-160
    with pytest.raises(ValueError, match=r"row 5 of X has an error of .*give flux and errors in their unit"):
        robust.predict(X)


def test_errors_are_checked_and_corrected(robust, unseen):
    clean, error, noise, _ = unseen
    wave = np.exp(0.3 * np.sin(np.linspace(0, 6, P)))
    flux, stated = clean + error * noise, error / (1.7 * wave)
    found = robust.check_errors(joined(flux, stated))
    assert_allclose(found.factor * found.by_pixel, 1.7 * wave, rtol=0.1)
    assert_allclose(found.factor, 1.7 * np.sqrt(np.mean(wave**2)), rtol=0.05)
    again = robust.check_errors(joined(flux, stated * found.factor * found.by_pixel))
    assert_allclose(again.factor, 1, rtol=0.01)
    assert_allclose(np.median(again.by_row), 1, rtol=0.02)


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": -1}, r"Nuisances\.scale=-1"),
        ({"continuum": np.nan}, r"Nuisances\.continuum=nan"),
        ({"degree": 1.5}, r"Nuisances\.degree=1\.5"),
        ({"wave": np.arange(7)}, r"Nuisances\.wave has 7 pixels and the spectra have 300"),
        ({"wave": None, "velocity": 10}, r"Nuisances\.velocity=10 needs wave"),
        ({"wave": WAVE[::-1]}, r"Nuisances\.wave must increase"),
        ({"velocity": 1000}, r"Nuisances\.velocity=1000 km/s is 54 pixels, and 37 are the most"),
        ({"templates": np.ones((2, 5))}, r"Nuisances\.templates has 5 pixels"),
        ({"correlation": (0.9, 0.0)}, r"Nuisances\.correlation=\(0\.9, 0\.0\): no noise has"),
        ({"correlation": (0.1, 0.1, 0.1)}, r"Nuisances\.correlation=\(0\.1, 0\.1, 0\.1\) must be 1 or 2 numbers"),
    ],
)
def test_bad_nuisances_are_named(train, options, message):
    model = experts(scale=0.1)
    model.projection.nuisances.set_params(**options)
    with pytest.raises(ValueError, match=message):
        model.fit(*train)


def test_scores_and_their_variances_are_of_the_same_information(robust, unseen):
    clean, error, noise, _ = unseen
    X = joined(clean + error * noise, error)
    projection = robust.projection_
    found = projection.project(X)
    precision, moment = parts_of(projection.inform(X), projection.loadings_.shape[1])
    inverse = np.linalg.inv(precision + np.eye(precision.shape[1]))
    assert_allclose(found["projected"], np.einsum("nij,nj->ni", inverse, moment), rtol=1e-6, atol=1e-9)
    assert_allclose(found["variances"], np.einsum("nii->ni", inverse), rtol=1e-6)
    assert_allclose(projection.transform(X), found["projected"])


def test_cosmic_rays_among_the_training_rows_cost_little(train, unseen):
    X, y = train
    struck, rng = X.copy(), np.random.default_rng(9)
    for row in struck:
        row[rng.choice(P, 3, replace=False)] += rng.choice([-4.0, 4.0], 3)
    clean, error, noise, truth = unseen
    rows = joined(clean + error * noise, error)
    scores = [experts(robust=True, free_errors=True, scale=0.1).fit(each, y).score(rows, truth) for each in (X, struck)]
    assert scores[1] > scores[0] - 0.02

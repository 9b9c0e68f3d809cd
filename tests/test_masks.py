"""Pixels that were not measured: weight zero wherever rows are read, and no change for pixels that were."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import r2_score
from sklearn.utils import get_tags

import dualgate.rows.sources
from dualgate import DualTowerMoERegressor, FactorExperts, HierarchicalExperts, PhysGate, QualityGate
from dualgate.datasets import join_spectra
from dualgate.features import LineWindows, NoiseWhitenedPCA, QualityStatistics, WienerScores, signal_to_noise
from dualgate.features.lines import WINDOWS
from dualgate.features.quality import STATISTICS

P = 160
WAVE = np.linspace(8120, 8750, P)
FLUX, ERROR = slice(0, P), slice(P, None)
PATTERN = 1 + 0.5 * np.sin(np.arange(P) / 7)


def loadings():
    """Four lines of the windows and a slope, each wide enough for its neighbours to tell of a pixel."""
    centres = [np.mean(cores) for cores, *_ in WINDOWS.values()]
    lines = [-0.3 * np.exp(-0.5 * ((WAVE - centre) / 12) ** 2) for centre in centres]
    return np.vstack([*lines, 0.1 * np.linspace(-1, 1, P)])


def draw(n_rows, seed, *, worse=1.0):
    """Flux, errors that are `worse`, targets and two regimes with a line of their own each."""
    rng = np.random.default_rng(seed)
    regimes, factors = rng.integers(2, size=n_rows), rng.normal(size=(n_rows, 5))
    factors[:, 0] += 4 * regimes
    slopes = np.array([[0, 1, 0.5, -0.5, 0.3], [0, -0.5, 1, 0.5, 0.3]])
    error = worse * np.exp(rng.uniform(-4, -2, size=(n_rows, 1))) * PATTERN
    flux = 1 + factors @ loadings() + error * rng.normal(size=error.shape)
    return flux, error, np.einsum("ij,ij->i", factors, slopes[regimes]), regimes


def mask_of(n_rows, share, seed=0):
    return np.random.default_rng(seed).uniform(size=(n_rows, P)) < share


def variants(flux, error, mask):
    """The same rows with pixels that are missing in different ways, one of them changing from pixel to pixel."""

    def rows(place, value):
        X = np.hstack([flux, error])
        X[:, place][mask] = value
        return X

    mixed = rows(FLUX, np.nan)
    mixed[:, FLUX][:, ::2], mixed[:, ERROR][:, ::2] = flux[:, ::2], np.where(mask, np.inf, error)[:, ::2]
    wild = rows(ERROR, np.inf)
    wild[:, FLUX][mask] = -1e30
    dead = rows(FLUX, np.nan)
    dead[:, ERROR][mask] = 0
    return {
        "flux NaN": rows(FLUX, np.nan), "flux infinite": rows(FLUX, -np.inf), "error NaN": rows(ERROR, np.nan),
        "error infinite": rows(ERROR, np.inf), "mixed": mixed, "wild flux": wild, "error 0": dead,
    }  # fmt: skip


def dual(**params):
    quick = {"experts": "hierarchical", "random_state": 0, "max_epochs": 3, "experts__quality_edges": "quantile"}
    return DualTowerMoERegressor.for_spectra(WAVE, **quick | params)


def whitened(**params):
    return HierarchicalExperts(FLUX, ERROR, projection="whitened", n_components=6, random_state=0, **params)


def factor(**params):
    return FactorExperts(FLUX, ERROR, n_components=2, n_factors=5, random_state=0, **params)


def spectra(**params):
    quick = {"experts__n_components": 2, "experts__n_factors": 5, "random_state": 0}
    return DualTowerMoERegressor.for_spectra(WAVE, **quick | params)


MODELS = {"dual tower": dual, "whitened": whitened, "factor": factor, "spectra": spectra}


@pytest.fixture(scope="module")
def problem():
    return draw(1500, 1)


@pytest.fixture(scope="module")
def fitted(problem):
    flux, error, y, regimes = problem
    return {name: make().fit(np.hstack([flux, error]), y, regimes=regimes) for name, make in MODELS.items()}


def stages(model, X):
    """All that a model says of rows, by name."""
    if isinstance(model, HierarchicalExperts):
        return {"each": model.predict_each(X), "bins": model.quality_bins(X)}
    if isinstance(model, FactorExperts):
        density = model.predict_density(X)
        return {"mean": density.mean, "std": density.std, "score": model.score_samples(X)}
    return {name: part for name, part in vars(model.trace(X)).items() if isinstance(part, np.ndarray)}


# ---- what is missing has weight zero ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_every_way_of_missing_is_the_same_bit_for_bit(fitted, name):
    flux, error, *_ = draw(300, 2)
    expected, *found = [stages(fitted[name], X) for X in variants(flux, error, mask_of(300, 0.2)).values()]
    for each in found:
        for stage, values in each.items():
            assert_array_equal(values, expected[stage], err_msg=stage)


@pytest.mark.parametrize("name", MODELS)
def test_a_fit_sees_every_way_of_missing_the_same(problem, name):
    flux, error, y, regimes = (each[:400] for each in problem)
    X = variants(flux, error, mask_of(400, 0.1))
    found = [
        MODELS[name]().fit(X[way], y, regimes=regimes).predict(X["flux NaN"])
        for way in ("flux NaN", "mixed", "error 0")
    ]
    assert_array_equal(found[1:], [found[0]] * 2)


@pytest.mark.parametrize("precision", [np.float64, np.float32])
def test_a_huge_error_is_a_mask(fitted, precision):
    flux, error, *_ = draw(400, 3)
    mask = mask_of(400, 0.3)
    huge = np.hstack([flux, np.where(mask, 1e6 * error, error)]).astype(precision)
    gone = join_spectra(flux, error, mask).astype(precision)
    wiener = fitted["factor"].projection_
    assert_allclose(wiener.transform(gone), wiener.transform(huge), atol=1e-6 if precision is np.float64 else 1e-5)
    for name in ("factor", "spectra"):
        found, expected = (np.array(fitted[name].predict(X, return_std=True)) for X in (gone, huge))
        assert_allclose(found, expected, atol=1e-6 if precision is np.float64 else 1e-4)


def test_masked_and_unmasked_information_add_up(fitted):
    flux, error, *_ = draw(200, 4)
    mask, wiener = mask_of(200, 0.3), fitted["factor"].projection_
    whole, left, rest = (wiener.information(join_spectra(flux, error, each)) for each in (None, mask, ~mask))
    assert_allclose(left + rest, whole, rtol=1e-9, atol=1e-9 * np.abs(whole).max())
    share = np.abs(left).sum() / np.abs(whole).sum()
    assert 0.65 < share < 0.75


def test_masks_cost_no_more_than_larger_errors(fitted):
    flux, error, y, _ = draw(4000, 5)
    masked, worse = join_spectra(flux, error, mask_of(4000, 0.3)), np.hstack(draw(4000, 5, worse=0.7**-0.5)[:2])
    for name in ("factor", "dual tower"):
        scores = [r2_score(y, fitted[name].predict(X)) for X in (masked, worse, np.hstack([flux, error]))]
        assert scores[2] > scores[0] > scores[1] - (0.01 if name == "factor" else 0.02), (name, scores)


# ---- what was measured does not change -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_rows_do_not_depend_on_masked_rows_beside_them(fitted, name):
    flux, error, *_ = draw(300, 6)
    mask = mask_of(300, 0.3)
    mask[::3] = False
    whole, some = (stages(fitted[name], join_spectra(flux, error, each)) for each in (None, mask))
    alone = stages(fitted[name], join_spectra(flux, error, mask)[1:2])
    for stage, values in some.items():
        assert_array_equal(values[::3], whole[stage][::3], err_msg=stage)
        assert_allclose(values[1:2], alone[stage], rtol=1e-6, atol=1e-6, err_msg=stage)


# ---- features --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_pixels", [1, 2, 7, 512, 4096])
def test_quality_statistics_are_those_of_measured_errors(n_pixels):
    rng = np.random.default_rng(n_pixels)
    error = np.exp(rng.normal(size=(70, n_pixels)))
    model, mask = QualityStatistics().fit(error), rng.uniform(size=error.shape) < rng.uniform(0, 1, size=(70, 1))
    mask[np.arange(70), rng.integers(n_pixels, size=70)] = False
    mask[::5] = False
    found = model.transform(np.where(mask, np.where(rng.uniform(size=error.shape) < 0.5, np.nan, np.inf), error))
    alone = [QualityStatistics().fit_transform(row[None, ~gone])[0] for row, gone in zip(error, mask, strict=True)]
    expected, total = np.array(alone), STATISTICS.index("sum")
    expected[:, total] = expected[:, STATISTICS.index("mean")] * n_pixels
    assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    assert_array_equal(found[::5], model.transform(error)[::5])


def test_signal_to_noise_leaves_pixels_out():
    flux, error, *_ = draw(5, 0)
    mask = mask_of(5, 0.5)
    mask[0] = True
    X = join_spectra(flux, error, mask)
    pairs = [(flux[row, ~mask[row]], error[row, ~mask[row]]) for row in range(1, 5)]
    expected = [np.linalg.norm(own) / np.linalg.norm(noise) for own, noise in pairs]
    assert_allclose(signal_to_noise(X[:, FLUX], X[:, ERROR]), [0, *expected])
    assert_allclose(signal_to_noise(X[:, FLUX], error), [0, *expected])


def test_lines_are_measured_between_masked_pixels():
    rng = np.random.default_rng(0)
    clean = 1 + rng.normal(size=(300, 5)) @ loadings()
    lines, mask = LineWindows(WAVE).fit(clean), mask_of(300, 0.15)
    expected = lines.transform(clean)
    found, filled = (lines.transform(np.where(mask, value, clean)) for value in (np.nan, 1.0))
    scatter = [np.std(each - expected, axis=0) / expected.std(axis=0) for each in (found, filled)]
    assert scatter[0].max() < 0.1 < scatter[1].max()
    straight = 2 + (WAVE - 8400) / 500
    assert_allclose(
        lines.transform(np.where(mask, np.inf, straight))[:, :-1],
        np.repeat(lines.transform(straight[None])[:, :-1], 300, axis=0),
        atol=0.2,
    )


def test_whitened_scores_of_masked_rows_are_those_of_a_gaussian(problem):
    flux, error, *_ = problem
    X, mask = np.hstack([flux, error]), mask_of(40, 0.4)
    model = NoiseWhitenedPCA(5, columns=FLUX, error_columns=ERROR).fit(X)
    whole, found = model.transform(X[:40]), model.transform(join_spectra(flux[:40], error[:40], mask))
    for row, gone in enumerate(mask):
        deviation, seen = (flux[row] - model.mean_) / model.noise_, model.components_[:, ~gone]
        power = np.mean(np.square(error[row] / model.noise_)[~gone])
        prior = np.diag(power / model.signal_variance_)
        mean = np.linalg.solve(seen @ seen.T + prior, seen @ deviation[~gone])
        deviation[gone] = mean @ model.components_[:, gone]
        assert_allclose(found[row], model.components_ @ deviation, rtol=1e-6, atol=1e-6)
    by_mean = model.transform(np.hstack([np.where(mask, model.mean_, flux[:40]), error[:40]]))
    assert np.square(found - whole).sum() < 0.3 * np.square(by_mean - whole).sum()


def test_components_are_found_in_masked_rows(problem):
    flux, error, *_ = problem
    model = NoiseWhitenedPCA(5, columns=FLUX, error_columns=ERROR)
    X, mask = np.hstack([flux, error]), mask_of(len(flux), 0.3)
    mask[:50] = True  # rows without a pixel
    expected, found = model.fit(X).signal_variance_, model.fit(join_spectra(flux, error, mask))
    assert_allclose(found.signal_variance_, expected, rtol=0.15)
    assert_allclose(found.noise_ / found.noise_.mean(), PATTERN / PATTERN.mean(), rtol=0.1)
    overlap = np.linalg.svd(model.fit(X).components_ @ found.components_.T)[1]
    assert overlap[:4].min() > 0.98


def test_filled_pixels_lack_no_noise():
    noise = np.random.default_rng(0).normal(size=(3000, 20))
    model = NoiseWhitenedPCA(20, columns=slice(0, 20), error_columns=slice(20, 40))
    model.fit(join_spectra(noise, np.ones_like(noise), mask_of(3000, 0.3)[:, :20]))
    assert abs(model.signal_variance_.mean()) < 0.05


def test_rows_without_any_pixel_are_refused():
    with pytest.raises(ValueError, match="X holds no pixel that was measured"):
        NoiseWhitenedPCA(3, columns=FLUX, error_columns=ERROR).fit(np.full((5, 2 * P), np.nan))


# ---- whole models ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_a_fit_to_masked_rows_is_close_to_that_of_complete_ones(problem, fitted, name):
    flux, error, y, regimes = problem
    X = join_spectra(flux, error, mask_of(len(flux), 0.1))
    model = MODELS[name]().fit(X, y, regimes=regimes)
    unseen_flux, unseen_error, unseen_y, unseen_regimes = draw(2000, 7)
    unseen, known = np.hstack([unseen_flux, unseen_error]), {}
    if name == "whitened":
        known = {"regimes": unseen_regimes}
    scores = [r2_score(unseen_y, each.predict(unseen, **known)) for each in (model, fitted[name])]
    assert scores[0] > scores[1] - 0.02, scores
    masked = join_spectra(unseen_flux, unseen_error, mask_of(2000, 0.1))
    assert r2_score(unseen_y, model.predict(masked, **known)) > scores[1] - 0.04


@pytest.mark.parametrize("name", MODELS)
def test_a_row_without_pixels_has_a_finite_answer(problem, fitted, name):
    flux, error, y, regimes = problem
    mask = np.zeros(flux.shape, dtype=bool)
    mask[:20] = True
    X = join_spectra(flux, error, mask)
    for model in (fitted[name], MODELS[name]().fit(X, y, regimes=regimes)):
        for stage, values in stages(model, X[:40]).items():
            assert np.isfinite(values).all(), stage
            assert_allclose(values[:20], values[:1].repeat(20, axis=0), err_msg=stage)
    if name == "factor":
        density = fitted[name].predict_density(X[:1])
        assert_allclose([density.mean[0], density.std[0]], [y.mean(), y.std()], atol=0.15 * y.std())


@pytest.mark.parametrize("precision", [np.float64, np.float32])
@pytest.mark.parametrize("name", MODELS)
def test_a_file_gives_what_memory_gives(problem, tmp_path, monkeypatch, name, precision):
    flux, error, y, regimes = (each[:600] for each in problem)
    monkeypatch.setattr(dualgate.rows.sources, "BLOCK_BYTES", 2 * P * 8 * 256)
    monkeypatch.setattr(dualgate.rows.sources, "_THREAD_ROWS", 128)
    X = variants(flux, error, mask_of(600, 0.1))["mixed"].astype(precision)
    np.save(tmp_path / "x.npy", X)
    stored = np.load(tmp_path / "x.npy", mmap_mode="r")
    here, there = (MODELS[name]().fit(each, y, regimes=regimes) for each in (X, stored))
    assert_allclose(there.predict(stored), here.predict(X), atol=(1e-6 if precision is np.float64 else 0.02) * y.std())


def test_ridges_on_wiener_scores(problem):
    flux, error, y, regimes = problem
    X = join_spectra(flux, error, mask_of(len(flux), 0.2))
    experts = HierarchicalExperts(FLUX, ERROR, projection="wiener", quality_edges="quantile", n_components=5, cv=3)
    crossed = experts.set_params(random_state=0).fit_predict_each(X, y, regimes=regimes)
    assert np.isfinite(crossed).all()
    assert r2_score(y, experts.predict(X, regimes=regimes)) > 0.8
    experts.fit(X[:700], y[:700], regimes=regimes[:700])
    assert r2_score(y[700:], experts.predict(X[700:], regimes=regimes[700:])) > 0.8


def test_regimes_are_found_and_sums_extended_with_pixels_missing(problem):
    flux, error, y, regimes = problem
    X = join_spectra(flux, error, mask_of(len(flux), 0.1))
    assert r2_score(y, dual(n_regimes=3).fit(X, y).predict(X)) > 0.6
    experts = whitened().partial_fit(X[:700], y[:700], regimes=regimes[:700])
    assert r2_score(y, experts.partial_fit(X[700:], y[700:], regimes=regimes[700:]).predict(X, regimes=regimes)) > 0.6


# ---- tags say where, and join_spectra how ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "takes"),
    [
        (dual(), True),
        (dual(quality_gate="drop"), True),
        (DualTowerMoERegressor.for_spectra(WAVE), True),
        (DualTowerMoERegressor.for_spectra(WAVE, towers=True, max_epochs=1), True),
        (dual(phys_gate=PhysGate(FLUX)), False),
        (dual(quality_gate=QualityGate(ERROR, PCA(2))), False),
        (DualTowerMoERegressor(max_epochs=1), False),
        (factor(), True),
        (FactorExperts(), False),
        (factor(projection="whitened"), True),
        (factor(projection=WienerScores(3)), False),
        (whitened(), True),
        (whitened().set_params(projection=NoiseWhitenedPCA(3, columns=FLUX, error_columns=ERROR)), True),
        (whitened().set_params(projection=PCA(3)), False),
        (HierarchicalExperts(FLUX, projection="whitened"), False),
        (HierarchicalExperts(FLUX, ERROR), False),
        (NoiseWhitenedPCA(3), False),
        (NoiseWhitenedPCA(3, columns=FLUX, error_columns=ERROR), True),
        (QualityGate(ERROR), True),
        (PhysGate(FLUX, LineWindows(WAVE)), True),
        (PhysGate(FLUX), False),
        (PhysGate([3]), False),
    ],
)
def test_tags_say_where_pixels_may_be_missing(problem, model, takes):
    flux, error, y, regimes = (each[:200] for each in problem)
    X = join_spectra(flux, error, mask_of(200, 0.05))
    assert get_tags(model).input_tags.allow_nan == takes
    known = {"regimes": regimes} if hasattr(model, "predict") else {}
    if not takes:
        with pytest.raises(ValueError, match="contains NaN or infinity"):
            model.fit(X, y, **known)
        return
    model.fit(X, y, **known)
    assert np.isfinite(model.predict(X) if known else model.transform(X)).all()


def test_a_frozen_projection_takes_masked_rows(problem):
    flux, error, y, regimes = problem
    X = join_spectra(flux, error, mask_of(len(flux), 0.1))
    frozen = FrozenEstimator(WienerScores(5, columns=FLUX, error_columns=ERROR).fit(X))
    model = whitened().set_params(projection=frozen)
    assert get_tags(model).input_tags.allow_nan
    assert r2_score(y, model.fit(X, y, regimes=regimes).predict(X, regimes=regimes)) > 0.5


def test_spectra_are_joined():
    flux, error = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones((2, 3), dtype=np.float32)
    bits = np.array([[0, 8, 0], [1, 0, 0]])
    X = join_spectra(flux, error, bits)
    assert_array_equal(X, [[0, np.nan, 2, 1, np.inf, 1], [np.nan, 4, 5, np.inf, 1, 1]])
    assert X.dtype == np.float32
    assert_array_equal(join_spectra(flux, error, bits & 8 > 0)[1], [3, 4, 5, 1, 1, 1])
    assert join_spectra(flux, error.astype(np.float64)).dtype == np.float64
    assert_array_equal(flux, np.arange(6).reshape(2, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones(3), np.ones(3)), r"join_spectra\.flux has shape \(3,\)"),
        ((np.ones((2, 3)), np.ones((3, 2))), r"join_spectra\.error has shape \(3, 2\).* flux has shape \(2, 3\)"),
        ((np.ones((2, 3)), np.ones((2, 3)), np.zeros(3, dtype=bool)), r"join_spectra\.mask has shape \(3,\)"),
        (
            (np.ones((2, 3)), np.ones((2, 3)), np.zeros((2, 3))),
            r"join_spectra\.mask .* dtype float64.*bool or integers",
        ),
        ((np.full((2, 3), "1"), np.ones((2, 3))), r"join_spectra\.flux .*dtype <U1"),
    ],
)
def test_spectra_that_cannot_be_joined(arguments, message):
    with pytest.raises(ValueError, match=message):
        join_spectra(*arguments)

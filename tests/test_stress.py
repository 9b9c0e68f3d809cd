"""Numerical stress: rows, columns, errors and targets far from what is usual; and rows that do not depend on others."""

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from threadpoolctl import threadpool_limits

import golden_models
from dualgate import DualTowerMoERegressor, FactorExperts, HierarchicalExperts, PhysGate, QualityGate
from dualgate.experts import EmptyCellWarning
from dualgate.features.factors import weigh
from dualgate.rows import RowSource

P = 24
FLUX, ERROR = slice(0, P), slice(P, None)
pytestmark = pytest.mark.filterwarnings(
    "ignore::dualgate.experts.ExtrapolationWarning",
    "ignore::dualgate.experts.EmptyCellWarning",
    "ignore::dualgate.gating.GateCollapseWarning",
)


def draw(n_rows, seed=1, level=(-2, 0.3)):
    """Two regimes with a line of their own each, and errors exp(level)."""
    rng, planted = np.random.default_rng(seed), np.random.default_rng(0)
    loadings, slopes = planted.normal(size=(3, P)), planted.normal(size=(2, 3))
    regimes, error = rng.integers(2, size=n_rows), np.exp(rng.uniform(*level, size=(n_rows, 1))) * np.ones(P)
    factors = rng.normal(size=(n_rows, 3))
    factors[:, 0] += 3 * regimes
    y = np.einsum("ij,ij->i", factors, slopes[regimes]) + 0.1 * rng.normal(size=n_rows)
    return np.hstack([4 + factors @ loadings + error * rng.normal(size=error.shape), error]), y, regimes


def factor(**params):
    experts = FactorExperts(FLUX, ERROR, n_components=4, n_factors=3, refine=1)
    return DualTowerMoERegressor("drop", "drop", experts=experts, random_state=0).set_params(**params)


def ridges(**params):
    experts = HierarchicalExperts(FLUX, ERROR)
    gates = PhysGate(FLUX), QualityGate(ERROR)
    return DualTowerMoERegressor(*gates, experts=experts, max_epochs=2, random_state=0).set_params(**params)


MODELS = {
    "factor": factor,
    "ridges": ridges,
    "ridges on Wiener scores": lambda: ridges(experts__projection="wiener"),
    "ridges of bins": lambda: ridges(experts__quality_edges=(20.0,)),
}


def check(model, X, y, regimes, X_new):
    """Fit, and find finite predictions, densities and intervals; returns the predictions."""
    model.fit(X, y, regimes=regimes)
    mean, std = model.predict(X_new, return_std=True)
    interval = model.predict_interval(X_new, 0.5)
    assert np.isfinite(mean).all()
    assert np.isfinite(std).all()
    assert (std > 0).all()
    assert np.isfinite(interval).all()
    assert (interval[:, 0] <= interval[:, 1]).all()
    return mean


# ---- what a fit must survive -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
class TestFits:
    def test_duplicate_and_collinear_columns(self, name):
        X, y, regimes = draw(400)
        X[:, 5], X[:, 6:9] = X[:, 4], X[:, 1:2] + X[:, 2:3]
        check(MODELS[name](), X, y, regimes, X[:50])

    def test_constant_pixels(self, name):
        X, y, regimes = draw(400)
        X[:, :6] = 1.0
        X[:, 6] = 0.0
        check(MODELS[name](), X, y, regimes, X[:50])

    def test_duplicate_rows_count_as_rows(self, name):
        X, y, regimes = draw(40)
        many = np.tile(X, (10, 1)), np.tile(y, 10), np.tile(regimes, 10)
        check(MODELS[name](), *many, draw(50, 2)[0])

    @pytest.mark.filterwarnings("ignore:FactorExperts. components .* have become the same")
    def test_one_row_many_times(self, name):
        X, y, regimes = (np.repeat(each[:1], 60, axis=0) for each in draw(5))
        with pytest.warns(UserWarning, match="y is constant"):
            found = MODELS[name]().fit(X, y, regimes=0 * regimes).predict(X)
        assert_allclose(found, y, atol=1e-6)

    @pytest.mark.parametrize("n_rows", [2, 3, 7, 20, 50])
    def test_few_rows(self, name, n_rows):
        X, y, regimes = draw(n_rows, 3)
        regimes[:2] = 0, 1
        found = MODELS[name]().fit(X, y, regimes=regimes).predict(draw(30, 2)[0])
        assert np.isfinite(found).all()
        assert np.abs(found - y.mean()).max() < 100 * max(y.std(), 1)

    @pytest.mark.parametrize("unit", [1e20, 1e-20])
    def test_flux_in_any_unit(self, name, unit):
        (X, y, regimes), X_new = draw(600), draw(200, 2)[0]
        expected = check(MODELS[name](), X, y, regimes, X_new)
        found = check(MODELS[name](), unit * X, y, regimes, unit * X_new)
        assert_allclose(found, expected, atol=0.1 * y.std())

    def test_a_target_far_from_zero(self, name):
        (X, y, regimes), X_new = draw(600), draw(200, 2)[0]
        expected = check(MODELS[name](), X, y, regimes, X_new)
        assert_allclose(check(MODELS[name](), X, y + 1e9, regimes, X_new) - 1e9, expected, atol=0.02 * y.std())

    def test_errors_over_twelve_orders_of_magnitude(self, name):
        X, y, regimes = draw(600, level=np.log([1e-6, 1e6]))
        X_new, y_new, _ = draw(300, 2, level=np.log([1e-6, 1e6]))
        found = check(MODELS[name](), X, y, regimes, X_new)
        assert np.abs(found - y.mean()).max() < 1e3 * y.std() or "Wiener" not in name
        if name != "ridges" and name != "ridges of bins":  # whitened columns have one noise for all rows
            clean = X_new[:, P] < 0.1
            assert np.std(found[clean] - y_new[clean]) < 0.6 * y.std()


def test_cells_of_one_row_and_of_none():
    X, y, regimes = draw(200)
    codes = np.where(np.arange(200) == 7, 3, regimes)  # regime 2 has no row, regime 3 has one
    with pytest.warns(EmptyCellWarning, match="regime 2"):
        model = HierarchicalExperts(FLUX, ERROR, random_state=0).fit(X, y, regimes=codes)
    assert np.isfinite(model.predict_each(X)).all()


@pytest.mark.parametrize("alphas", [[1e-12], [1e12], [1e-12, 1e12]])
@pytest.mark.parametrize("sharing", ["shrink", "independent", "offset", "scale", "alpha"])
def test_penalties_at_both_ends(alphas, sharing):
    X, y, regimes = draw(120)
    X[:, 5] = X[:, 4]  # rank-deficient
    model = HierarchicalExperts(FLUX, ERROR, quality_edges=(20.0,), sharing=sharing, alphas=alphas, random_state=0)
    found = model.fit(X, y, regimes=regimes).predict(X, regimes=regimes)
    assert np.isfinite(found).all()
    assert np.abs(found - y).max() < 20 * y.std()


# ---- as many experts as anybody asks for -----------------------------------------------------------------------------


def test_a_thousand_ridges():
    rng, n_regimes = np.random.default_rng(0), 1000  # ten thousand take ten times as long
    regimes = np.tile(np.arange(n_regimes), 3)
    X, levels = rng.normal(size=(len(regimes), 2)), rng.normal(size=n_regimes)
    y = levels[regimes] + X[:, 0] + 0.1 * rng.normal(size=len(regimes))
    model = HierarchicalExperts(projection=None, alphas=[1e-3], cv=2, random_state=0).fit(X, y, regimes=regimes)
    assert model.n_experts_ == n_regimes
    assert np.std(model.predict(X, regimes=regimes) - y) < 0.5
    assert model.predict_each(X[:5]).shape == (5, n_regimes)


def test_hundreds_of_components():
    n_regimes = 300
    X, y, _ = draw(3 * n_regimes)
    order = np.argsort(y)
    regimes = np.empty(len(y), dtype=int)
    regimes[order] = np.arange(len(y)) // 3
    model = factor(experts__n_components=n_regimes, experts__n_factors=1, experts__refine=0, experts__max_iter=2)
    mean = check(model.set_params(experts__cv=2), X, y, regimes, draw(100, 2)[0])
    assert model.experts_.n_experts_ == n_regimes
    assert np.std(mean - draw(100, 2)[1]) < 0.7 * y.std()


def test_many_experts_take_a_block_in_parts(monkeypatch):
    X, y, regimes = draw(300)
    model = factor().fit(X, y, regimes=regimes)
    expected, sizes = model.predict_density(X), []
    reduce = type(model.reduction_).reduce

    def watch(self, first, block, **options):
        sizes.append(len(block))
        return reduce(self, first, block, **options)

    monkeypatch.setattr(type(model.reduction_), "reduce", watch)
    monkeypatch.setattr("dualgate.rows.sources._THREAD_ROWS", 128)
    monkeypatch.setattr("dualgate.mixture.TRACE_WIDTH", 1 << 30)
    found = model.predict_density(X)
    assert sizes == [128, 128, 44]
    assert_allclose(found.mean, expected.mean, rtol=1e-6)
    assert_allclose(found.std, expected.std, rtol=1e-6)


# ---- a row's answer is its own ---------------------------------------------------------------------------------------


class InBlocks(RowSource):
    """Rows that are read in blocks of other sizes."""

    def __init__(self, X):
        self.X, self.shape, self.dtype = X, X.shape, X.dtype

    def read(self, start, stop):
        return self.X[start:stop].copy()


@pytest.fixture(scope="module")
def spectra():
    """Rows on a wavelength grid, with velocities, faults and missing pixels among them."""
    rng, wave = np.random.default_rng(0), np.linspace(8130, 8740, 120)
    lines = np.exp(-0.5 * ((wave[:, None] - [8450, 8498, 8542, 8620, 8662]) / 6) ** 2)
    depth = rng.uniform(0.1, 0.6, size=(500, 5))
    error = np.exp(rng.uniform(-4, -1.5, size=(500, 1))) * np.ones(120)
    X = np.hstack([1 - depth @ lines.T + error * rng.normal(size=error.shape), error])
    return wave, X, depth @ rng.normal(size=5)


NUISANCES = "experts__projection__nuisances__"
OWN = {
    "factor mixture, robust": {},
    "velocity": {"velocity": 160},
    "continuum, velocity, neighbours": {"continuum": 0.05, "velocity": 160, NUISANCES + "correlation": (0.3, 0.1)},
    "dual tower": {"experts": "hierarchical", "max_epochs": 2, "experts__quality_edges": (20.0,)},
}


@pytest.mark.parametrize("name", OWN)
def test_an_answer_depends_neither_on_other_rows_nor_on_blocks(name, spectra, monkeypatch):
    wave, X, y = spectra
    small = {"experts__n_components": 3, "experts__projection__n_components": 6, "experts__refine": 1}
    if name == "dual tower":
        small = {"experts__projection__n_components": 6, "phys_gate__features": None}
    model = DualTowerMoERegressor.for_spectra(wave, random_state=0, **{**small, **OWN[name]}).fit(X[:300], y[:300])
    rows = X[300:].copy()
    rows[3, 10:20] += 50 * rows[3, 130:140]  # outliers
    if name != "dual tower":
        rows[5, :60], rows[6, 120:160] = np.nan, np.inf

    def density(X):
        found = model.predict_density(X)
        return np.stack([found.std, found.quantile(0.1), found.cdf(0.0)], axis=1)

    asked = {"predict": model.predict, "density": density, "interval": lambda X: model.predict_interval(X, 0.8)}
    if name != "dual tower":
        asked |= {"novelty": model.novelty, "score": model.score_samples}
    if "velocity" in name:
        asked["velocity"] = lambda X: np.stack(model.predict_velocity(X), axis=1)
    order, wild = np.random.default_rng(1).permutation(200), rows.copy()
    wild[100:, :120] = 1e6  # what lies beside the first hundred
    for what, ask in asked.items():
        expected = ask(rows)
        close = {"rtol": 1e-5, "atol": 1e-6 * np.nanstd(expected)}
        assert_allclose(ask(rows[order]), expected[order], **close, err_msg=what)
        assert_allclose(ask(wild)[:100], expected[:100], **close, err_msg=what)
        for row in (0, 3, 5, 6, 199):
            assert_allclose(ask(rows[row : row + 1])[0], expected[row], **close, err_msg=f"{what}, row {row}")
        with monkeypatch.context() as smaller:
            smaller.setattr("dualgate.rows.sources.BLOCK_BYTES", 240 * 8 * 64)
            smaller.setattr("dualgate.rows.sources._THREAD_ROWS", 16)
            assert_allclose(ask(InBlocks(rows)), expected, **close, err_msg=f"{what}, blocks")


def test_the_weight_of_a_pixel_depends_on_its_row_alone():
    rng = np.random.default_rng(0)
    flux, error = rng.normal(size=(200, 12)), np.exp(rng.uniform(*np.log([1e-9, 1e9]), size=(200, 12)))
    flux[::7, 3], error[::5, 2], error[::11] = np.nan, np.inf, 1e-3
    mean, noise = np.zeros(12), np.ones(12)
    for precision in (np.float32, np.float64):
        together = weigh(flux.astype(precision), error.astype(precision), mean, noise)
        for row in range(200):
            own = slice(row, row + 1)
            alone = weigh(flux[own].astype(precision), error[own].astype(precision), mean, noise)
            assert_array_equal(alone, together[:, own])


# ---- golden file -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("name", golden_models.MODELS)
def test_predictions_are_those_of_earlier_versions(name, n_threads):
    """Made by `python tests/golden_models.py`; where a change of method changes them, it writes them again."""
    with np.load(Path(golden_models.__file__).with_name("golden.npz")) as stored, threadpool_limits(n_threads):
        X, y, regimes, X_new = (stored[each] for each in ("X", "y", "regimes", "X_new"))
        for what, values in golden_models.answers(name, X, y, regimes, X_new).items():
            expected = stored[f"{name}: {what}"]
            assert_allclose(values, expected, rtol=1e-6, atol=1e-6 * expected.std(), err_msg=what)


def test_the_golden_data_are_what_the_script_draws():
    with np.load(Path(golden_models.__file__).with_name("golden.npz")) as stored:
        for name, values in golden_models.rows().items():
            assert_array_equal(stored[name], values)

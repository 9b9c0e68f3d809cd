"""The contract of projections: what every one gives for a row, wherever the rows are."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from dualgate import HierarchicalExperts
from dualgate.features import (
    FrozenProjection,
    NoiseWhitenedPCA,
    PlainColumns,
    Projection,
    TransformerProjection,
    WienerScores,
)
from dualgate.features.factors import split_information, unfold
from dualgate.rows import Collect

P = 30
FLUX, ERROR = slice(0, P), slice(P, 2 * P)
PROJECTIONS = {
    "whitened": NoiseWhitenedPCA(4, columns=FLUX, error_columns=ERROR),
    "whitened, no errors": NoiseWhitenedPCA(4, columns=FLUX),
    "wiener": WienerScores(4, columns=FLUX, error_columns=ERROR, max_iter=2, return_variances=True),
    "wiener, no errors": WienerScores(4, columns=FLUX, max_iter=2, return_variances=True),
    "wiener, supervised": WienerScores(
        2, columns=FLUX, error_columns=ERROR, supervised=True, smooth=True, max_iter=2, return_variances=True
    ),
}


@pytest.fixture(scope="module")
def problem():
    """Rows [flux | error] of four factors, and a target that is linear in them."""
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(500, 4))
    error = np.exp(rng.normal(size=(500, 1))) * rng.uniform(0.5, 2, size=(500, P))
    flux = 3 + factors @ rng.normal(size=(4, P)) + error * rng.normal(size=error.shape)
    return np.hstack([flux, error]), factors @ [1.0, -1, 0.5, 2]


@pytest.fixture(params=sorted(PROJECTIONS))
def fitted(request, problem):
    return clone(PROJECTIONS[request.param]).fit(*problem)


def test_information_is_that_of_the_loadings_and_gives_the_scores_and_their_variances(fitted, problem):
    X = problem[0][:40]
    found = FrozenProjection(FrozenEstimator(fitted)).information(X)
    folded, moments = split_information(found)
    found = unfold(folded, moments.shape[1]), moments
    errors = X[:, ERROR] if fitted.reads_errors else np.broadcast_to(fitted.noise_, (40, P))
    loadings = getattr(fitted, "loadings_", None)
    loadings = fitted.components_.T * fitted.noise_[:, None] if loadings is None else loadings
    for row, error, A, b in zip(X[:, FLUX], errors, *found, strict=True):
        assert_allclose(A, loadings.T @ np.diag(error**-2) @ loadings, rtol=1e-8, atol=1e-8)
        assert_allclose(b, loadings.T @ ((row - fitted.mean_) / error**2), rtol=1e-8, atol=1e-8)
    if isinstance(fitted, WienerScores):
        A, b = found[0] + np.eye(found[0].shape[1]), found[1]
        variances = np.einsum("nii->ni", np.linalg.inv(A))
        expected = np.hstack([np.linalg.solve(A, b[..., None])[..., 0], variances])
        assert_allclose(fitted.transform(X), expected, rtol=1e-7, atol=1e-9)
    names = fitted.get_feature_names_out()
    assert len(set(names)) == fitted.transform(X).shape[1]


def test_noise_power_is_the_mean_squared_error_in_units_of_the_typical_one(fitted, problem):
    X = problem[0]
    if fitted.reads_errors:
        expected = np.mean((X[:, ERROR] / fitted.noise_) ** 2, axis=1)
        assert_allclose(FrozenProjection(FrozenEstimator(fitted)).noise_power(X), expected)
    else:
        with pytest.raises(TypeError, match=f"{type(fitted).__name__} reads no errors"):
            fitted.noise_power(X)


@pytest.mark.parametrize("projection", [PlainColumns(), TransformerProjection(PCA(2))], ids=["plain", "transformer"])
def test_what_a_projection_does_not_have_is_an_error(projection):
    for method in (projection.information, projection.noise_power):
        with pytest.raises(TypeError, match=f"{type(projection).__name__} .* is not defined"):
            method(np.ones((3, P)))


def test_coefficients_on_pixels_predict_what_those_on_scores_predict(fitted, problem):
    X, coef = problem[0].copy(), np.random.default_rng(1).normal(size=(2, len(fitted.signal_variance_)))
    X[:, ERROR] = fitted.noise_
    scores = fitted.transform(X)[:, : coef.shape[1]]
    pixels = FrozenProjection(FrozenEstimator(fitted)).to_pixels(coef)
    assert_allclose((X[:, FLUX] - fitted.mean_) @ pixels.T, scores @ coef.T, rtol=1e-8, atol=1e-8)
    assert TransformerProjection(PCA(2)).to_pixels(coef) is None


def test_a_memory_map_has_the_scores_of_memory(fitted, problem, tmp_path):
    np.save(tmp_path / "x.npy", problem[0])
    stored = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert_array_equal(fitted.transform(stored), fitted.transform(problem[0]))
    again = clone(fitted)
    assert_array_equal(again.fit_transform(stored, problem[1]), clone(fitted).fit_transform(*problem))


def test_frozen_projections_stay_as_they_are_inside_experts(fitted, problem):
    """The experts are those on scores that were computed beforehand."""
    X, y = problem
    own = X if fitted.reads_errors else X[:, FLUX]  # experts hand over flux alone to what reads no errors
    fitted = clone(fitted).fit(own, y)
    options = {"quality_edges": None, "random_state": 0}
    before = fitted.transform(own)[:, : len(fitted.signal_variance_)]
    experts = HierarchicalExperts(FLUX, ERROR, projection=FrozenEstimator(fitted), **options)
    found = experts.fit(X, y).predict(X)
    expected = HierarchicalExperts(projection=FunctionTransformer(), **options).fit(before, y).predict(before)
    assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("max_iter", [1, 8])
def test_a_supervised_pipeline_learns_from_scores_that_did_not_see_the_target(max_iter):
    rng = np.random.default_rng(4)
    X = rng.normal(size=(300, 3)) @ rng.normal(size=(3, 200)) * 2 + rng.normal(size=(300, 200))
    X, y = np.hstack([X, np.ones((300, 200))]), rng.normal(size=300)
    columns = {"columns": slice(0, 200), "error_columns": slice(200, 400)}
    wiener = WienerScores(3, supervised=True, max_iter=max_iter, **columns)
    pipeline = make_pipeline(wiener, Ridge(1e-6)).fit(X, y)
    seen, crossed = pipeline[0].transform(X), clone(wiener).fit_transform(X, y)
    assert Ridge(1e-6).fit(seen, y).score(seen, y) > 0.2
    assert pipeline[-1].score(crossed, y) < 0.05
    assert_allclose(pipeline[-1].coef_, Ridge(1e-6).fit(crossed, y).coef_)


class Broken(TransformerMixin, BaseEstimator):
    """Gives NaN or infinity for rows whose first column is large."""

    def __init__(self, value=np.nan):
        self.value = value

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        return np.where(X[:, :1] > 100, self.value, X[:, :3])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_projection_that_returns_no_numbers_is_named(value, problem):
    X, y = problem
    experts = HierarchicalExperts(FLUX, ERROR, projection=Broken(value), random_state=0).fit(X, y)
    bad = X.copy()
    bad[7, 0] = 1000
    message = r"HierarchicalExperts\.projection=Broken returned NaN or infinity for row 7"
    with pytest.raises(ValueError, match=message):
        experts.predict(bad)
    with pytest.raises(ValueError, match=message):
        clone(experts).fit(bad, y)


class Brightest(Projection, BaseEstimator):
    """The columns of the largest mean, found in a pass of its own."""

    def __init__(self, n_columns=3):
        self.n_columns = n_columns

    def begin(self, X, sample, n_rows, y=None, codes=None):
        self._step = Collect(lambda first, block: np.abs(block).mean(axis=1))
        self._width = sample.shape[1]

    def next_pass(self):
        return self.__dict__.pop("_step", None)

    def end_pass(self, step):
        assert len(step.found.joined()) == 500
        self.kept_ = np.arange(self._width)[: self.n_columns]

    def project(self, block, rows=None):
        return {"projected": block[:, self.kept_]}


def test_a_projection_of_ones_own_needs_four_methods(problem):
    X, y = problem
    found = HierarchicalExperts(FLUX, ERROR, projection=Brightest(), random_state=0).fit(X, y).predict(X)
    plain = HierarchicalExperts(FLUX, ERROR, projection=FunctionTransformer(lambda X: X[:, :3]), random_state=0)
    assert_allclose(found, plain.fit(X, y).predict(X))


def test_scores_keep_their_digits_far_from_zero():
    """The product of components and deviations, whatever the mean: rows that single precision holds exactly."""
    rng = np.random.default_rng(0)
    X = np.round(rng.normal(size=(400, P)) @ rng.normal(size=(P, P)) * 16) / 16 + 1e5
    model = NoiseWhitenedPCA(5).fit(X)
    centred = (X - model.mean_) @ model.components_.T
    assert_allclose(model.transform(X), centred, rtol=0, atol=1e-13 * np.abs(centred).max())
    low = model.transform(X.astype(np.float32))
    assert_allclose(low - low.mean(axis=0), centred - centred.mean(axis=0), rtol=0, atol=1e-6 * np.abs(centred).max())

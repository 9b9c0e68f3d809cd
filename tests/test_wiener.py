"""Wiener scores: laws that hold row by row, whatever the loadings."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import linalg
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

import dualgate.rows.sources
from dualgate.datasets import make_spectra
from dualgate.features import WienerScores
from dualgate.rows import ArrayRows

P, R, N = 12, 3, 60
FLUX, ERROR = slice(0, P), slice(P, 2 * P)


def rows_of(n_rows=N, seed=0, n_pixels=P, n_factors=R, *, quality=1.0, loadings=None):
    """Rows [flux | error] with planted factors, and the noise-free flux."""
    rng = np.random.default_rng(seed)
    if loadings is None:
        loadings = np.random.default_rng(99).normal(size=(n_factors, n_pixels))
    level = np.exp(quality * rng.normal(size=(n_rows, 1)))
    error = level * rng.uniform(0.3, 1.5, size=(n_rows, n_pixels))
    clean = 5 + rng.normal(size=(n_rows, len(loadings))) @ loadings
    return np.hstack([clean + error * rng.normal(size=error.shape), error]), clean


def scores(n_components=R, n_pixels=P, **params):
    return WienerScores(n_components, columns=slice(0, n_pixels), error_columns=slice(n_pixels, 2 * n_pixels), **params)


@pytest.fixture(scope="module")
def fitted():
    X, clean = rows_of(400)
    return scores(return_variances=True).fit(X, clean=clean)


def dense(model, X):
    """Means and variances of the factors by conditioning a joint Gaussian, row by row."""
    found = []
    for flux, error in zip(X[:, FLUX], X[:, ERROR], strict=True):
        with np.errstate(invalid="ignore"):
            use = np.isfinite(flux) & np.isfinite(error)
        V = model.loadings_[use]
        total = linalg.cho_factor(V @ V.T + np.diag(error[use] ** 2)) if use.any() else None
        gain = linalg.cho_solve(total, V).T if use.any() else np.zeros((V.shape[1], 0))
        found.append(np.r_[gain @ (flux - model.mean_)[use], np.diag(np.eye(V.shape[1]) - gain @ V)])
    return np.array(found)


def masked(X, share, seed=0):
    """A copy in which some pixels were not measured, in one of three ways."""
    X, rng = X.copy(), np.random.default_rng(seed)
    n_pixels = X.shape[1] // 2
    kind = np.where(rng.uniform(size=(len(X), n_pixels)) < share, rng.integers(1, 4, size=(len(X), n_pixels)), 0)
    X[:, :n_pixels][kind == 1] = np.nan
    X[:, n_pixels:][kind == 2] = np.nan
    X[:, n_pixels:][kind == 3] = np.inf
    return X


def test_scores_and_variances_are_those_of_a_joint_gaussian(fitted):
    X, _ = rows_of(seed=1)
    assert_allclose(fitted.transform(X), dense(fitted, X), rtol=1e-9, atol=1e-10)
    X = masked(X, 0.4)
    X[0, :P] = np.nan  # nothing measured: nothing known
    X[1, ERROR] = np.inf
    assert_allclose(fitted.transform(X), dense(fitted, X), rtol=1e-9, atol=1e-10)
    assert_array_equal(fitted.transform(X[:2]), [[0] * R + [1] * R] * 2)


def test_single_precision_agrees_with_double(fitted):
    X, _ = rows_of(seed=2)
    low = fitted.transform(X.astype(np.float32))
    assert low.dtype == np.float32
    assert_allclose(low, fitted.transform(X), rtol=1e-4, atol=1e-5)


def test_rows_that_single_precision_cannot_solve_are_solved_in_double(fitted):
    X, _ = rows_of(seed=3)
    X[:, ERROR] *= 1e-5
    X[:, 2:P] = np.nan  # two bright pixels, three factors
    X = X.astype(np.float32)
    expected = dense(fitted, X.astype(np.float64))
    low = fitted.transform(X)
    assert_allclose(low, expected, atol=2e-2 * np.abs(expected).max())
    assert np.all((low[:, R:] > 0) & (low[:, R:] <= 1))


@settings(max_examples=20)
@given(
    power=st.sampled_from([-21, -17, -3, 4, 20]),
    shift=st.floats(-100, 100),
    single=st.booleans(),
    supervised=st.booleans(),
    mask=st.booleans(),
)
def test_neither_unit_nor_zero_of_the_flux_matters(power, shift, single, supervised, mask):
    X, clean = rows_of(150)
    y = clean[:, 0]
    X = masked(X, 0.2) if mask else X
    model = scores(supervised=supervised, max_iter=2)
    expected = model.fit(X, y).transform(X)
    dtype = np.float32 if single else np.float64
    moved = X.copy()
    moved[:, FLUX] += shift
    moved = (moved * 10.0**power).astype(dtype)
    found = model.fit(moved, y).transform(moved)
    tolerance = 5e-3 if single else 1e-6
    assert_allclose(np.abs(found), np.abs(expected), atol=tolerance * np.abs(expected).max())


def test_a_pixel_that_no_row_measured_needs_no_unit():
    X, _ = rows_of(200)
    X[:, 3] = np.nan
    expected = scores(max_iter=2).fit(X).transform(X)
    small = X * 1e-21
    model = scores(max_iter=2).fit(small)
    assert_allclose(model.transform(small), expected, rtol=1e-5, atol=1e-6)
    assert model.noise_[3] < 1e-20
    with pytest.raises(ValueError, match="no pixel that was measured"):
        scores().fit(np.hstack([np.full((9, P), np.nan), np.ones((9, P))]))


def test_masked_pixels_are_pixels_left_out(fitted):
    X, _ = rows_of(seed=4)
    rest = np.setdiff1d(np.arange(P), [1, 5, 6])
    for column, value in ((FLUX, np.nan), (FLUX, np.inf), (ERROR, np.nan), (ERROR, np.inf)):
        Z = X.copy()
        Z[:, np.r_[column][[1, 5, 6]]] = value
        V, weights = fitted.loadings_[rest], 1 / np.square(X[:, P + rest])
        for row in range(5):
            A = (V.T * weights[row]) @ V + np.eye(R)
            expected = linalg.solve(A, V.T @ (weights[row] * (X[row, rest] - fitted.mean_[rest])))
            assert_allclose(fitted.transform(Z[row : row + 1])[0, :R], expected, rtol=1e-8)


def test_a_row_alone_is_the_row_in_a_block(fitted, tmp_path, monkeypatch):
    X, _ = rows_of(1500, seed=5)
    X = masked(X, 0.1)
    whole = fitted.transform(X)
    assert_allclose(np.vstack([fitted.transform(X[i : i + 1]) for i in (0, 7, 511, 512, 1499)]),
                    whole[[0, 7, 511, 512, 1499]], rtol=1e-10, atol=1e-12)  # fmt: skip
    np.save(tmp_path / "x.npy", X)
    on_disk = np.load(tmp_path / "x.npy", mmap_mode="r")
    monkeypatch.setattr(dualgate.rows.sources, "BLOCK_BYTES", 8 * 2 * P * 600)
    model = pickle.loads(pickle.dumps(fitted))
    for rows in (on_disk, ArrayRows(X)):
        for n_jobs in (1, 2):
            assert_allclose(model.set_params(n_jobs=n_jobs).transform(rows), whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"supervised": True, "smooth": True}], ids=str)
def test_a_fit_reads_a_source_in_blocks_and_threads_as_it_reads_memory(options, tmp_path, monkeypatch):
    X, clean = rows_of(3000, seed=6)
    X, y = masked(X, 0.1), clean[:, 0] + clean[:, 3]
    expected = scores(max_iter=3, **options).fit(X, y)
    np.save(tmp_path / "x.npy", X)
    monkeypatch.setattr(dualgate.rows.sources, "BLOCK_BYTES", 8 * 2 * P * 700)
    for rows in (np.load(tmp_path / "x.npy", mmap_mode="r"), X):
        found = scores(max_iter=3, n_jobs=2, **options).fit(rows, y)
        assert_allclose(found.loadings_, expected.loadings_, rtol=1e-6, atol=1e-8)
        assert_allclose(found.fit_transform(rows, y), expected.fit_transform(X, y), rtol=1e-6, atol=1e-7)


def test_a_refit_forgets_the_fit_before():
    first, second = rows_of(200)[0], rows_of(200, seed=7, loadings=np.eye(P)[:R] * 3)[0]
    model = scores(max_iter=2).fit(first)
    model.transform(first)
    assert_array_equal(model.fit(second).transform(second), scores(max_iter=2).fit(second).transform(second))


def test_what_is_pickled_is_light(fitted):
    X, _ = rows_of(2000, n_pixels=200)
    model = scores(20, n_pixels=200, max_iter=1, cv=2).fit(X)
    before = model.project(X, np.arange(2000))["projected"]
    text = pickle.dumps(model)
    assert len(text) < 8 * 200 * 20 * 6  # loadings thrice; products of loadings would be ten times as much each
    assert_array_equal(pickle.loads(text).project(X, np.arange(2000))["projected"], before)


def test_errors_that_are_not_above_zero_are_named(fitted, monkeypatch):
    monkeypatch.setattr(dualgate.rows.sources, "SAMPLE_ROWS", 256)
    X, _ = rows_of(5000)
    X[4321, P + 2] = 0
    for call in (scores(max_rows=100).fit, fitted.transform):
        with pytest.raises(ValueError, match=r"error of 0.0 at X\[4321, 14\] \(1 such"):
            call(X)
    with pytest.raises(ValueError, match=r"at X\[4321, 14\]"):
        fitted.transform(ArrayRows(X))


@pytest.mark.parametrize(
    ("params", "arguments", "words"),
    [
        ({"n_components": 0}, {}, r"WienerScores\.n_components=0"),
        ({"max_iter": 0}, {}, r"WienerScores\.max_iter=0"),
        ({"cv": 1}, {}, r"WienerScores\.cv=1"),
        ({"max_rows": 1}, {}, r"WienerScores\.max_rows=1"),
        ({"supervised": True}, {}, "requires y"),
        ({"supervised": True}, {"y": np.full(N, np.nan)}, "NaN"),
        ({}, {"y": np.zeros(N - 1)}, "inconsistent"),
        ({"supervised": True}, {"y": np.zeros(N), "regimes": np.zeros(3, int)}, "inconsistent"),
        ({}, {"clean": np.zeros((5, P + 1))}, r"clean has shape \(5, 13\)"),
        ({}, {"clean": np.full((5, P), np.nan)}, "clean"),
        ({"error_columns": slice(P, 2 * P - 1)}, {}, "selects 11 columns, columns selects 12"),
    ],
    ids=str,
)
def test_messages(params, arguments, words):
    with pytest.raises(ValueError, match=words):
        scores().set_params(**params).fit(rows_of()[0], **arguments)


@pytest.mark.parametrize("with_errors", [True, False])
def test_loadings_from_noise_free_flux_are_its_whitened_components(with_errors, tmp_path):
    X, _ = rows_of(500)
    clean = np.random.default_rng(1).normal(size=(300, P)) @ np.random.default_rng(2).normal(size=(P, P))
    model = scores() if with_errors else WienerScores(R, columns=FLUX)
    model.fit(X, clean=clean)
    pca = PCA(R).fit(clean / model.noise_)
    assert_allclose(np.abs(model.loadings_.T / model.noise_ @ pca.components_.T),
                    np.diag(np.sqrt(pca.explained_variance_ * 299 / 300)), atol=1e-6)  # fmt: skip
    assert_allclose(model.mean_, clean.mean(axis=0), atol=1e-9)
    np.save(tmp_path / "clean.npy", clean)
    beside = np.hstack([clean, np.full_like(clean, np.nan)])
    for other in (beside, np.load(tmp_path / "clean.npy", mmap_mode="r"), ArrayRows(beside), clean.tolist()):
        assert_allclose(type(model)(**model.get_params()).fit(X, clean=other).loadings_, model.loadings_, rtol=1e-7)
    whole = np.round(10 * clean).astype(int)
    assert_allclose(
        type(model)(**model.get_params()).fit(X, clean=whole).loadings_,
        type(model)(**model.get_params()).fit(X, clean=whole * 1.0).loadings_,
    )
    assert_array_equal(model.fit_transform(X, clean=clean), model.transform(X))


def test_masked_scores_are_unbiased():
    X, clean = rows_of(4000, n_pixels=60, quality=0.3)
    model = scores(n_pixels=60, return_variances=True).fit(X, clean=clean)
    true = np.linalg.lstsq(model.loadings_, (clean - model.mean_).T, rcond=None)[0].T
    found = model.transform(masked(X, 0.3))
    means, variances = found[:, :R], found[:, R:]
    assert np.isfinite(found).all()
    for factor in range(R):
        # E[z | x] = the score, whatever was masked: a regression of z on it has slope one and no offset
        slope, offset = np.polyfit(means[:, factor], true[:, factor], 1)
        assert_allclose([slope, offset], [1, 0], atol=0.01)
        assert_allclose(np.mean((true - means)[:, factor] ** 2 / variances[:, factor]), 1, atol=0.1)


def test_thirty_per_cent_of_the_pixels_cost_what_they_knew_and_no_more():
    """The same as errors larger by 0.7 ** -0.5 cost, for T_eff next to nothing."""
    n_pixels, train, share = 4096, 1000, 0.3
    data = make_spectra(2000, random_state=0)
    clean = make_spectra(400, random_state=0, start=2000, noise_level=0).X[:, :n_pixels]
    model = scores(12, n_pixels=n_pixels).fit(data.X[:train], clean=clean)
    louder, rng = data.X[train:].copy(), np.random.default_rng(0)
    error = louder[:, n_pixels:]
    louder[:, :n_pixels] += np.sqrt(1 / (1 - share) - 1) * error * rng.normal(size=error.shape)
    error /= np.sqrt(1 - share)
    tests = [model.transform(rows) for rows in (data.X[train:], masked(data.X[train:], share), louder)]
    first = model.transform(data.X[:train])
    for name, allowed in (("T_eff", 0.02), ("log_g", 0.06)):
        y = data.labels[name].to_numpy()
        ridge = Ridge(1.0).fit(first, y[:train])
        full, fewer, noisier = (ridge.score(each, y[train:]) for each in tests)
        assert full > 0.35
        assert full - fewer < allowed
        assert abs(fewer - noisier) < 0.025

"""Resampling: flux is conserved, the stated covariance is that of the noise, and little information is lost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import solve, toeplitz
from sklearn.base import clone

from dualgate.datasets import ResampledRows, join_spectra, make_spectra, resample
from dualgate.datasets.emulator import WAVE, load_emulator
from dualgate.datasets.resampling import Resampler, pixel_edges
from dualgate.features import Nuisances
from dualgate.rows import ArrayRows


def grid(rng, n_pixels, low, high):
    """Grid of uneven steps, without gaps."""
    return low + np.cumsum(rng.uniform(0.8, 1.2, n_pixels)) * (high - low) / n_pixels


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32), n_from=st.integers(20, 90), n_to=st.integers(5, 90))
def test_flux_is_conserved(seed, n_from, n_to):
    rng = np.random.default_rng(seed)
    wave, to = grid(rng, n_from, 30, 70), grid(rng, n_to, 0, 120)  # wider than what it is made of
    flux = rng.uniform(0, 5, (3, n_from))
    found = Resampler(wave, to, 0).weights
    for edges, each in ((pixel_edges(wave), flux), (pixel_edges(to), (found @ flux.T).T)):
        total = each @ (edges[1] - edges[0])
        assert_allclose(total, flux @ np.subtract(*pixel_edges(wave)[::-1]), rtol=1e-10)


def test_constant_flux_stays_and_the_same_grid_changes_nothing():
    rng = np.random.default_rng(0)
    wave, to = grid(rng, 80, 100, 200), grid(rng, 50, 110, 190)
    assert_allclose(resample(np.full((2, 80), 3.0), np.ones((2, 80)), wave, to).flux, 3, rtol=1e-12)
    flux, error = rng.normal(size=(4, 80)), rng.uniform(1, 2, (4, 80))
    same = resample(flux, error, wave, wave)
    assert_allclose(same.flux, flux, atol=1e-12)
    assert_allclose(same.error, error, rtol=1e-12)
    assert_allclose(same.correlation, 0, atol=1e-12)


def noise(rng, error, rho, n_rows):
    """Noise (n_rows, n_pixels) of these errors and correlations of neighbours."""
    n_pixels = len(error)
    covariance = toeplitz(np.r_[1, rho, np.zeros(n_pixels - 1 - len(rho))])
    return rng.normal(size=(n_rows, n_pixels)) @ np.linalg.cholesky(covariance).T * error


@pytest.mark.parametrize("rho", [(), (0.3,), (-0.2, 0.1)])
def test_errors_and_correlations_are_those_of_the_noise(rho):
    rng, n_rows = np.random.default_rng(1), 20_000
    wave, to = grid(rng, 60, 0, 60), grid(rng, 45, 2, 58)
    error = rng.uniform(1, 2, 60)
    mask = np.zeros(60, dtype=bool)
    mask[[20, 21, 40]] = True
    rows = noise(rng, error, rho, n_rows)
    new = resample(
        rows, np.tile(error, (n_rows, 1)), wave, to, mask=np.tile(mask, (n_rows, 1)), correlation=rho or None
    )
    seen = ~new.mask[0]
    assert not seen.all()
    assert_allclose(new.flux[:, seen].std(axis=0), new.error[0, seen], rtol=5 / np.sqrt(2 * n_rows))
    found = np.corrcoef(np.where(seen, new.flux, 0)[:, seen].T)
    places = np.flatnonzero(seen)
    for lag in (1, 2):
        pairs = [found[i, j] for i in range(len(places)) for j in range(i) if places[i] - places[j] == lag]
        assert_allclose(np.mean(pairs), new.correlation[lag - 1], atol=0.006)
    clone(Nuisances(correlation=new.correlation)).check(len(to))  # noise can have them


def test_masked_pixels_spoil_nothing_else():
    rng = np.random.default_rng(2)
    wave, to = np.arange(50.0), np.arange(3, 45) + 0.3
    flux, error = rng.normal(size=(2, 50)), np.ones((2, 50))
    plain, mask = resample(flux, error, wave, to), np.zeros((2, 50), dtype=bool)
    mask[0, 20] = True
    spoilt = flux.copy()
    spoilt[0, 20], spoilt[1, 30] = 1e30, np.nan
    for some in (resample(spoilt, error, wave, to, mask=mask), resample(spoilt, np.where(mask, -1, error), wave, to)):
        bad = np.zeros(some.mask.shape, dtype=bool)
        bad[0, 17], bad[1, 27] = True, True  # one pixel each, of which less than half is good
        assert_array_equal(some.mask, bad)
        assert np.isnan(some.flux[bad]).all()
        assert np.isinf(some.error[bad]).all()
        assert_allclose(some.flux[0, 16], flux[0, 19], rtol=1e-12)  # the part that is good
        assert_allclose(some.error[0, 16], 1, rtol=1e-12)
        far = np.abs(to - 20) > 2
        assert_allclose(some.flux[0, far], plain.flux[0, far], rtol=1e-12)
    assert resample(flux, error, wave, to, coverage=0.9).mask.sum() == 0


def test_nothing_is_made_up_where_there_is_no_flux():
    wave = np.r_[np.arange(10.0), 30 + np.arange(10.0)]  # two arms
    new = resample(np.ones((1, 20)), np.ones((1, 20)), wave, np.arange(-5, 45.0))
    assert_array_equal(~new.mask[0], np.isin(np.arange(-5, 45), wave))


def test_rows_may_have_grids_of_their_own():
    rng = np.random.default_rng(3)
    waves, to = np.array([grid(rng, 40, 0, 40) for _ in range(3)]), np.arange(5, 35.0)
    flux, error = rng.normal(size=(3, 40)), rng.uniform(1, 2, (3, 40))
    together = resample(flux, error, waves, to)
    for i in range(3):
        alone = resample(flux[i], error[i], waves[i], to)
        assert_array_equal(together.flux[i], alone.flux[0])
        assert_array_equal(together.error[i], alone.error[0])


def test_row_sources_are_resampled_when_they_are_read():
    rng = np.random.default_rng(4)
    wave, to = np.arange(40.0), np.arange(4, 35, 1.5)
    flux, error = rng.normal(size=(50, 40)), rng.uniform(1, 2, (50, 40))
    flux[3, 7] = np.nan
    rows = ResampledRows(ArrayRows(join_spectra(flux, error)), wave, to)
    new = resample(flux, error, wave, to)
    assert_array_equal(np.asarray(rows), np.hstack([new.flux, new.error]))
    assert_array_equal(rows[[30, 2]].read(0, 2), np.hstack([new.flux, new.error])[[30, 2]])


@pytest.mark.parametrize(
    ("ratio", "shift", "least"),
    [
        (1.0, 0.5, 0.99),
        (1.0, 0.1, 0.99),
        (1.1, 0.25, 0.96),
        (1.5, 0.7, 0.96),
        (2.0, 0.1, 0.96),
        (3.0, 0.5, 0.88),
        (0.8, 0.1, 0.92),
    ],
)
def test_little_information_is_lost(ratio, shift, least):
    """A fit on the new grid with the two stated correlations, against the fit on the native grid."""
    low, high = np.searchsorted(WAVE, [8450, 8700])
    wave, step = WAVE[low:high], WAVE[1] - WAVE[0]
    to = np.arange(wave[0] + (shift + 3) * step, wave[-1] - 3 * step, ratio * step)
    weights = Resampler(wave, to, 0.5).weights.toarray()
    used = weights.sum(axis=0) * ratio > 0.999  # what lies beyond the new grid is not lost by resampling
    stars, log_g = make_spectra(4, random_state=5), np.eye(5)[1]
    for labels, error in zip(stars.labels.to_numpy()[:, :5], stars.error[:, low:high].astype(np.float64), strict=True):
        slope = np.diff(load_emulator()(np.array([labels - 0.02 * log_g, labels + 0.02 * log_g])), axis=0)[:, low:high]
        native = np.sum((slope[0] / error)[used] ** 2)
        new = resample(slope, error[None], wave, to)
        stated = toeplitz(np.r_[1, new.correlation, np.zeros(len(to) - 3)]) * np.outer(new.error, new.error)
        fit = solve(stated, new.flux[0], assume_a="sym")  # generalised least squares that is told `stated`
        kept = (fit @ new.flux[0]) ** 2 / np.sum((fit @ weights * error) ** 2) / native
        assert least < kept < 1.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"wave": np.arange(9.0)}, r"flux of shape \(2, 10\), error \(2, 10\), mask \(\), wave \(9,\)"),
        ({"wave": np.zeros(10)}, r"resample\.wave="),
        ({"to": [3.0, 2.0]}, r"resample\.to="),
        ({"mask": np.zeros((2, 9))}, r"mask \(2, 9\)"),
        ({"correlation": (0.9, 0.0)}, r"resample\.correlation="),
        ({"coverage": 0.0}, r"resample\.coverage=0\.0"),
    ],
)
def test_bad_input_is_named(change, message):
    options = {"flux": np.ones((2, 10)), "error": np.ones((2, 10)), "wave": np.arange(10.0), "to": [2.0, 3.0], **change}
    with pytest.raises(ValueError, match=message):
        resample(**options)

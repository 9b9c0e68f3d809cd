"""Faults of simulated spectra: seeded by row, and each does what it says."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.interpolate import CubicSpline
from scipy.stats import kstest

from dualgate.datasets import make_spectra, stream_spectra
from dualgate.datasets.faults import CONTINUUM_TERMS, FAULTS, LIGHT_SPEED, POSITION, moving_average
from dualgate.datasets.noise import detector

N, PIXELS = 300, 4096
EXAMPLES = {
    "companion": 0.3,
    "velocity": (-160, 160),
    "shift": 2.5,
    "correlation": (0.3, 0.1),
    "scale": 0.05,
    "tilt": 0.05,
    "continuum": 0.05,
    "sky": 0.01,
    "cosmic_rays": 10,
    "errors": (0.5, 2.0),
    "errors_by_wavelength": 0.3,
    "bad_pixels": 0.1,
}


def made(n_samples=N, **options):
    return make_spectra(n_samples, random_state=7, n_jobs=1, **options)


@pytest.fixture(scope="module")
def data():
    return made()


@pytest.fixture(scope="module")
def clean():
    return made(noise_level=0)


def test_every_fault_has_an_example():
    assert list(EXAMPLES) == list(FAULTS)


def test_no_faults_are_the_rows_without_them(data):
    assert_array_equal(made(40, faults={}).X, data.X[:40])
    assert_array_equal(np.asarray(stream_spectra(40, random_state=7, faults={}).X), data.X[:40])


@pytest.mark.parametrize("faults", [{name: size} for name, size in EXAMPLES.items()] + [EXAMPLES], ids=str)
def test_faults_of_a_row_depend_on_the_seed_and_the_row(faults, data):
    whole = made(140, faults=faults)
    assert (data.X[:140] != whole.X).any(axis=1).all()
    assert_array_equal(whole.y, data.y[:140])
    assert_array_equal(whole.labels[data.labels.columns[:6]], data.labels.iloc[:140, :6])
    source = stream_spectra(140, random_state=7, faults=faults).X
    for first, last in ((0, 3), (120, 140), (64, 65)):
        assert_array_equal(source.read(first, last), whole.X[first:last])
    later = made(12, start=125, faults=faults)
    assert_array_equal(later.X, whole.X[125:137])
    assert_array_equal(later.labels, whole.labels[125:137])
    assert_array_equal(
        stream_spectra(12, random_state=7, start=125, faults=faults).labels, later.labels.drop(columns="snr")
    )
    other = make_spectra(12, random_state=8, start=125, faults=faults, n_jobs=1)
    assert (other.X != later.X).any(axis=1).all()


def test_draws_of_a_fault_do_not_depend_on_other_faults():
    rays, both = (
        made(20, noise_level=0, faults=faults) for faults in ({"cosmic_rays": 5}, {"tilt": 0, "cosmic_rays": 5})
    )
    assert_array_equal(rays.X, both.X)
    with_rest = made(20, faults=EXAMPLES)
    assert_array_equal(with_rest.labels.velocity, made(20, faults={"velocity": (-160, 160)}).labels.velocity)


@pytest.mark.parametrize("name", ["scale", "tilt", "continuum"])
def test_calibration_multiplies_flux_and_error_alike(name, data, clean):
    faulty, quiet = (made(faults={name: 0.05}, noise_level=level) for level in (1, 0))
    response = (quiet.flux / clean.flux).astype(float)
    assert_allclose(faulty.flux, data.flux * response, rtol=1e-5, atol=1e-6)
    assert_allclose(faulty.error, data.error * response, rtol=1e-5)
    if name == "scale":
        assert_allclose(response, 1.05, rtol=1e-6)
    elif name == "tilt":
        signs = np.sign(response[:, -1] - 1)
        assert_allclose(response, 1 + 0.05 * signs[:, None] * POSITION, rtol=1e-5)
        assert abs(signs.mean()) < 4 / np.sqrt(N)
    else:
        basis = np.polynomial.legendre.legvander(POSITION, CONTINUUM_TERMS - 1)
        terms, residual = np.linalg.lstsq(basis, response.T - 1)[:2]
        assert residual.max() < 1e-8
        assert kstest(terms.ravel() / 0.05, "norm").pvalue > 1e-3
        assert np.abs(np.corrcoef(terms) - np.eye(CONTINUUM_TERMS)).max() < 4 / np.sqrt(N)


def test_a_shift_of_whole_pixels_moves_the_flux_and_a_fraction_is_found_by_correlation(clean):
    for pixels in (3, -7):
        moved = made(20, noise_level=0, faults={"shift": pixels}).flux
        inside = slice(max(pixels, 0), PIXELS + min(pixels, 0))
        assert_allclose(moved[:, inside], np.roll(clean.flux[:20], pixels, axis=1)[:, inside], atol=1e-6)
    moved = made(20, noise_level=0, faults={"shift": 2.4}).flux
    lags = np.arange(-5, 6)
    still, moved = (np.diff(flux, axis=1) for flux in (clean.flux[:20], moved))  # without the slope of the continuum
    inside = slice(10, -10)
    match = np.array([np.sum(np.roll(still, lag, axis=1)[:, inside] * moved[:, inside], axis=1) for lag in lags])
    top = match.argmax(axis=0)
    assert (lags[top] == 2).all()
    left, middle, right = (match[top + step, np.arange(20)] for step in (-1, 0, 1))
    peak = 2 + (left - right) / (left - 2 * middle + right) / 2  # of the parabola
    assert_allclose(peak, 2.4, atol=0.1)


def test_a_velocity_is_the_doppler_formula_and_is_among_the_labels(clean):
    moved = made(noise_level=0, faults={"velocity": (-300, 500)})
    velocity = moved.labels.velocity.to_numpy()
    assert kstest((velocity + 300) / 800, "uniform").pvalue > 1e-3
    inside = slice(30, -30)
    for row in range(5):
        beta = velocity[row] / LIGHT_SPEED
        observed = clean.wave * np.sqrt((1 + beta) / (1 - beta))
        expected = CubicSpline(observed, clean.flux[row].astype(float))(clean.wave[inside])
        assert_allclose(moved.flux[row, inside], expected, atol=1e-3)
    fixed = made(5, noise_level=0, faults={"velocity": 120})
    assert_array_equal(fixed.labels.velocity, 120)
    assert "velocity" not in clean.labels


def test_noise_of_the_sky_stays_where_it_is_when_the_star_moves(data):
    moved = made(faults={"shift": 10})
    lines = detector().sky > np.quantile(detector().sky, 0.98)
    assert_allclose(moved.error[:, lines], data.error[:, lines], rtol=0.05)


@pytest.mark.parametrize("correlations", [(0.3, 0.1), (-0.2, 0.0), (0.0, 0.4), (2 / 3, 1 / 6), (0.0, -0.5)])
def test_noise_has_the_autocorrelation_asked_for_and_its_variance(correlations, clean):
    z = (made(faults={"correlation": correlations}).flux - clean.flux) / clean.error
    found = [np.mean(z[:, lag:] * z[:, : PIXELS - lag]) for lag in range(4)]
    assert_allclose(found, [1, *correlations, 0], atol=0.01)
    weights = moving_average(*correlations)
    assert_allclose(np.correlate(weights, weights, "full")[2:], [1, *correlations], atol=1e-12)


def test_exactly_so_many_pixels_are_raised_by_so_many_errors(data):
    for value, count, size in ((10, 10, 30), ((4, 100.0), 4, 100)):
        jumps = (made(faults={"cosmic_rays": value}).flux - data.flux) / data.error
        assert_array_equal(np.sum(jumps != 0, axis=1), count)
        assert_allclose(jumps[jumps != 0], size, rtol=1e-3)
    places = np.argwhere(jumps != 0)[:, 1]
    assert kstest(places / PIXELS, "uniform").pvalue > 1e-3


def test_stated_errors_are_wrong_and_the_noise_is_not(data, clean):
    for value in (0.5, 2.0, (0.5, 2.0)):
        faulty = made(faults={"errors": value})
        assert_array_equal(faulty.flux, data.flux)
        low, high = np.broadcast_to(value, 2)
        factor = np.median(faulty.error / data.error, axis=1)
        chi_square = np.mean(((faulty.flux - clean.flux) / faulty.error) ** 2, axis=1)
        assert_allclose(chi_square * factor**2, 1, atol=6 * np.sqrt(2 / PIXELS))
        if low == high:
            assert_allclose(factor, value, rtol=1e-6)
        else:
            assert kstest(np.log(factor / low) / np.log(high / low), "uniform").pvalue > 1e-3
    faulty = made(faults={"errors_by_wavelength": 0.3})
    assert_array_equal(faulty.flux, data.flux)
    ratio = faulty.error / data.error
    assert_allclose(ratio, np.broadcast_to(np.exp(0.3 * np.sin(np.pi * POSITION)), ratio.shape), rtol=1e-5)


def test_a_residual_of_the_sky_has_its_shape_and_a_normal_size(data):
    residual = (made(faults={"sky": 0.01}).flux - data.flux).astype(float)
    shape = detector().sky / detector().light
    sizes = residual @ shape / (shape @ shape)
    assert_allclose(residual, sizes[:, None] * shape, atol=1e-4 * np.abs(residual).max())
    assert abs(np.mean(sizes > 0) - 0.5) < 2 / np.sqrt(N)
    double = (made(20, faults={"sky": 0.02}).flux - data.flux[:20]).astype(float)
    assert_allclose(double, 2 * residual[:20], atol=1e-4 * np.abs(residual).max())
    light = np.exp(-0.4 * np.log(10) * (data.labels.mag - 20))
    assert kstest(sizes * light / 0.01, "norm").statistic < 0.15  # but for seeing and cloud


def test_bad_pixels_have_no_flux_and_infinite_error(data):
    faulty = made(faults={"bad_pixels": 0.25})
    bad = np.isnan(faulty.flux)
    assert_array_equal(bad, np.isposinf(faulty.error))
    assert_array_equal(bad.sum(axis=1), PIXELS // 4)
    assert_array_equal(faulty.X[:, :PIXELS][~bad], data.flux[~bad])
    assert_array_equal(faulty.error[~bad], data.error[~bad])
    assert_allclose(faulty.snr, data.snr, rtol=0.2)


def test_a_companion_has_its_share_of_the_light_and_a_star_of_its_own(data, clean):
    flux = {share: made(noise_level=0, faults={"companion": share}).flux for share in (0.2, 1.0)}
    assert_allclose(flux[0.2].mean(axis=1), 1, atol=1e-5)
    assert_allclose(flux[0.2], 0.8 * clean.flux + 0.2 * flux[1.0], atol=1e-5)
    distances = np.linalg.norm(flux[1.0][:, None, ::64] - clean.flux[None, :, ::64], axis=2)
    assert distances.min() > 0
    assert_allclose(flux[1.0].std(axis=0).mean(), clean.flux.std(axis=0).mean(), rtol=0.1)  # the same stars in all


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ("tilt", "{function}.faults='tilt' must be a dictionary"),
        ({"tlit": 0.1, "tilt": 0.1}, "{function}.faults names 'tlit': the faults are 'companion', 'velocity', 'shift'"),
        ({"companion": 1.5}, r"{function}.faults\['companion'\]=1.5 must be a number at least 0 and at most 1"),
        ({"velocity": (1, 2, 3)}, r"faults\['velocity'\]=\(1, 2, 3\) must be one number or a pair"),
        ({"velocity": (50, -50)}, r"faults\['velocity'\]=-50 must be a number at least 50"),
        ({"velocity": 3e5}, r"faults\['velocity'\]=300000.0 .* at most 10000"),
        ({"shift": np.nan}, r"faults\['shift'\]=nan"),
        ({"correlation": 0.3}, r"faults\['correlation'\]=0.3 must be two numbers"),
        ({"correlation": (0.7, 0.0)}, r"faults\['correlation'\]=\(0.7, 0.0\) must be correlations that noise can have"),
        ({"correlation": (0.0, 0.6)}, r"faults\['correlation'\]=\(0.0, 0.6\) must be correlations that noise can have"),
        ({"scale": -1}, r"faults\['scale'\]=-1 .* at least -0.95"),
        ({"tilt": "much"}, r"faults\['tilt'\]='much' must be a number"),
        ({"continuum": -0.1}, r"faults\['continuum'\]=-0.1"),
        ({"sky": 2}, r"faults\['sky'\]=2"),
        ({"cosmic_rays": 2.5}, r"faults\['cosmic_rays'\]=2.5 must be an integer"),
        ({"cosmic_rays": (3, "big")}, r"faults\['cosmic_rays'\]='big'"),
        ({"errors": 0}, r"faults\['errors'\]=0 must be a number at least 1e-06"),
        ({"errors_by_wavelength": 9}, r"faults\['errors_by_wavelength'\]=9"),
        ({"bad_pixels": 1}, r"faults\['bad_pixels'\]=1 .* at most 0.99"),
    ],
)
@pytest.mark.parametrize("function", [make_spectra, stream_spectra])
def test_wrong_faults_are_named(function, faults, message):
    with pytest.raises(ValueError, match=message.replace("{function}", function.__name__)):
        function(2, faults=faults)

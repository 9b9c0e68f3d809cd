import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import trapezoid

from dualgate.features import LinePixels, LineWindows

WAVE = np.linspace(7100, 8850, 4096)


def gaussian(wave, at, depth, sigma):
    return depth * np.exp(-0.5 * ((wave - at) / sigma) ** 2)


def features_of(flux, wave=WAVE):
    lines = LineWindows(wave).fit(flux[None])
    return dict(zip(lines.names_, lines.transform(flux[None])[0], strict=True))


@pytest.mark.parametrize(("name", "at"), [("ca_8498", 8498.02), ("ca_8542", 8542.09), ("ca_8662", 8662.14)])
def test_width_of_a_planted_line_is_its_area(name, at):
    found = features_of(1 - gaussian(WAVE, at, 0.4, 1.5))
    assert_allclose(found[f"{name}_width"], 0.4 * 1.5 * np.sqrt(2 * np.pi), rtol=1e-3)
    assert 0.25 < found[f"{name}_depth"] < 0.4
    others = [found[n] for n in found if n.endswith(("depth", "width")) and name not in n and n != "ca_width"]
    assert_allclose(others, 0, atol=1e-6)
    assert_allclose(found["ca_width"], found[f"{name}_width"], rtol=1e-6)


def test_sodium_doublet_adds_up_and_calcium_sums():
    flux = 1 - gaussian(WAVE, 8183.26, 0.2, 1) - gaussian(WAVE, 8194.81, 0.3, 1)
    found = features_of(flux)
    assert_allclose(found["na_8190_width"], 0.5 * np.sqrt(2 * np.pi), rtol=2e-3)
    assert_allclose(found["ca_width"], 0, atol=1e-9)


def test_a_sloping_continuum_and_the_unit_of_flux_do_not_matter():
    line = 1 - gaussian(WAVE, 8542.09, 0.5, 2)
    sloped = 7.5e-17 * line * (1 + 2e-4 * (WAVE - 8000))
    assert_allclose(list(features_of(sloped).values()), list(features_of(line).values()), atol=2e-4)


def test_a_coarse_grid_measures_the_same_width():
    coarse = np.linspace(8000, 8800, 700)
    fine, rough = (features_of(1 - gaussian(w, 8662.14, 0.5, 3), w) for w in (WAVE, coarse))
    assert_allclose(rough["ca_8662_width"], fine["ca_8662_width"], rtol=0.01)


def test_pure_noise_stays_finite():
    noise = np.random.default_rng(0).normal(size=(200, 4096))
    assert np.isfinite(LineWindows(WAVE).fit_transform(np.vstack([noise, np.zeros((1, 4096))]))).all()


@pytest.mark.parametrize(
    ("wave", "message"),
    [
        (WAVE[:-1], r"wave has shape \(4095,\)"),
        (WAVE[::-1], "must be one-dimensional, finite and increase"),
        (np.linspace(4000, 5000, 4096), "covers 4000.0 to 5000.0 angstrom"),
    ],
)
def test_bad_wave_is_named(wave, message):
    with pytest.raises(ValueError, match=rf"LineWindows\.wave.*|{message}") as caught:
        LineWindows(wave).fit(np.ones((2, 4096)))
    assert caught.match(message)


def test_pixels_over_the_continuum_add_up_to_the_width_that_line_windows_measure():
    rng = np.random.default_rng(0)
    flux = 5 * (1 + 1e-4 * (WAVE - 8000)) * (1 - gaussian(WAVE, 8542.09, 0.4, 1.5) + 0.02 * rng.normal(size=WAVE.size))
    pixels = LinePixels(WAVE).fit(flux[None])
    kept = pixels.transform(flux[None])[0]
    calcium = (pixels.wave_ > 8522) & (pixels.wave_ < 8562)
    width = trapezoid(1 - kept[calcium], pixels.wave_[calcium])
    assert_allclose(width, features_of(flux)["ca_8542_width"], atol=0.02)


@pytest.mark.parametrize("half_width", [1.0, 12.5])
def test_pixels_are_those_around_the_lines_and_no_others(half_width):
    pixels = LinePixels(WAVE, half_width=half_width).fit(np.ones((1, 4096)))
    step = WAVE[1] - WAVE[0]
    expected = [(8183.26, 8194.81), (8498.02, 8498.02), (8542.09, 8542.09), (8662.14, 8662.14)]
    windows = np.split(pixels.wave_, np.flatnonzero(np.diff(pixels.wave_) > 1.5 * step) + 1)
    for kept, (first, last) in zip(windows, expected, strict=True):
        assert_allclose([kept[0], kept[-1]], [first - half_width, last + half_width], atol=step)
    assert len(pixels.get_feature_names_out()) == len(pixels.wave_) == len(set(pixels.names_))


def test_pixels_know_neither_slope_nor_unit_and_other_pixels_do_not_matter():
    rng = np.random.default_rng(1)
    flux = 1 + 0.1 * rng.normal(size=(3, 4096))
    pixels = LinePixels(WAVE, half_width=8).fit(flux)  # of no side-band
    assert_allclose(pixels.transform(7.5e-17 * flux), pixels.transform(flux))
    assert_allclose(pixels.transform(2 + 3e-4 * (WAVE[None] - 8000)), 1)
    inside = np.isin(WAVE, pixels.wave_)
    moved = flux * np.where(inside, 1.3, 1.0)
    assert_allclose(pixels.transform(moved), 1.3 * pixels.transform(flux))


def test_pixels_of_noise_stay_finite_and_a_coarse_grid_keeps_some_of_every_line():
    noise = np.vstack([np.random.default_rng(0).normal(size=(200, 4096)), np.zeros((1, 4096))])
    assert np.isfinite(LinePixels(WAVE).fit_transform(noise)).all()
    coarse = LinePixels(np.linspace(8000, 8800, 9), half_width=0.5).fit(np.ones((1, 9)))
    assert {name.rsplit("_", 1)[0] for name in coarse.names_} == {"na_8190", "ca_8498", "ca_8542", "ca_8662"}


@pytest.mark.parametrize("half_width", [0, -3.0, 31, np.nan, "wide"])
def test_a_half_width_out_of_range_is_named(half_width):
    with pytest.raises(ValueError, match=r"LinePixels\.half_width=.* must be a .*number above 0 and at most 30"):
        LinePixels(WAVE, half_width=half_width).fit(np.ones((1, 4096)))


def test_pixels_name_themselves_when_wave_is_wrong():
    with pytest.raises(ValueError, match=r"LinePixels\.wave has shape \(4095,\)"):
        LinePixels(WAVE[:-1]).fit(np.ones((1, 4096)))

"""The physics of direct synthesis: laws, limits, and what the Sun and other stars show."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.interpolate import CubicSpline

from dualgate.datasets.emulator import WAVE, load_emulator
from synthesis.atmosphere import Atmosphere, model_atmosphere, planck, solve_gas
from synthesis.atoms import (
    ATOMIC_MASS,
    IONISATION,
    MASSES,
    abundances,
    air_to_vacuum,
    partition_function,
    read_lines,
    saha,
)
from synthesis.molecules import (
    MOLECULES,
    SYSTEMS,
    band_cross_section,
    equilibrium_constant,
    franck_condon,
    molecular_pressures,
)
from synthesis.opacity import h_minus_bound_free, h_minus_free_free
from synthesis.spectrum import emergent_flux, fine_grid, formal_solution, synthesize, voigt

CALCIUM = np.linspace(8535.0, 8550.0, 40)
SODIUM = np.linspace(8180.0, 8198.0, 45)
IRON = np.linspace(8684.0, 8693.0, 25)


def depth(window, *labels):
    """Mean fraction of the continuum that atomic lines take away in a window."""
    without = synthesize(*labels, wave=window, lines=False, bands=False)
    return 1 - (synthesize(*labels, wave=window, bands=False) / without).mean()


def band_depth(window, *labels):
    """Mean fraction that molecular bands take away in a window."""
    return 1 - (synthesize(*labels, wave=window) / synthesize(*labels, wave=window, bands=False)).mean()


@pytest.fixture(scope="module")
def sun():
    return model_atmosphere(5772, 4.44)


@pytest.mark.parametrize("temperature", [4000.0, 5040.0, 6300.0])
def test_h_minus_agrees_with_an_independent_fit(temperature):
    """Gray (2005), equations 8.11 to 8.13, fits other calculations than John (1988)."""
    wave, theta = np.linspace(5000, 12000, 30), 5040 / temperature
    alpha = np.polynomial.polynomial.polyval(
        wave, [1.99654, -1.18267e-5, 2.64243e-6, -4.40524e-10, 3.23992e-14, -1.39568e-18, 2.78701e-23]
    )
    stimulated = 1 - np.exp(-1.439e8 / (wave * temperature))
    bound_free = 4.158e-28 * alpha * theta**2.5 * 10 ** (0.754 * theta) * stimulated
    log = np.log10(wave)
    f0 = np.polynomial.polynomial.polyval(log, [-2.2763, -1.6850, 0.76661, -0.053346])
    f1 = np.polynomial.polynomial.polyval(log, [15.2827, -9.2846, 1.99381, -0.142631])
    f2 = np.polynomial.polynomial.polyval(log, [-197.789, 190.266, -67.9775, 10.6913, -0.625151])
    free_free = 1e-26 * 10 ** (f0 + f1 * np.log10(theta) + f2 * np.log10(theta) ** 2)
    assert_allclose(h_minus_bound_free(wave, np.array([temperature]))[0], bound_free, rtol=0.01)
    assert_allclose(h_minus_free_free(wave, np.array([temperature]))[0], free_free, rtol=0.02)


def test_saha_agrees_with_its_logarithmic_form():
    t = np.array([3500.0, 5000.0, 7000.0])
    ratio = partition_function("Fe", 2, t) / partition_function("Fe", 1, t)
    textbook = np.log10(ratio) + 2.5 * np.log10(t) - 5040 / t * IONISATION["Fe"] - 0.1762  # Gray 2005, equation 1.20
    assert_allclose(np.log10(saha("Fe", t)), textbook, atol=0.01)


def test_gas_conserves_charge_and_pressure():
    t, pressure, abundance = np.array([3300.0, 4500.0, 6500.0, 9000.0]), np.full(4, 1e5), abundances(-0.5)
    electron, atoms, nuclei = solve_gas(pressure, t, abundance)
    ions = {name: nuclei * abundance[name] * saha(name, t) / (saha(name, t) + electron) for name in abundance}
    ions["H"] = atoms * saha("H", t) / electron
    ions["He"] = 0.0
    assert_allclose(sum(ions.values()), electron, rtol=1e-6)
    h2 = atoms**2 / equilibrium_constant("H2", t)
    others = sum(abundance.values()) - 1
    assert_allclose(electron + atoms + ions["H"] + h2 + others * nuclei, pressure, rtol=1e-6)


@pytest.mark.parametrize(("T_eff", "log_g", "M_H"), [(5772, 4.44, 0.0), (4000, 1.0, -2.5), (3750, 5.0, 0.75)])
def test_atmosphere_is_in_hydrostatic_equilibrium(T_eff, log_g, M_H):
    layers = model_atmosphere(T_eff, log_g, M_H)
    density = layers.nuclei * sum(layers.abundance[name] * MASSES[name] for name in MASSES) * ATOMIC_MASS
    weight = 10**log_g * density / layers.rosseland  # dP / dtau
    gained = CubicSpline(np.log(layers.tau), weight * layers.tau).antiderivative()(np.log(layers.tau))
    assert_allclose(layers.gas_pressure - layers.gas_pressure[0], gained, rtol=0.02)


def test_solar_pressures_are_those_of_the_empirical_sun(sun):
    """Holweger & Müller 1974, Solar Physics 39, 19: log P = 5.1, log Pe = 1.75 at tau = 1; 4.6 and 0.6 at 0.1."""
    for tau, gas, electron in ((1.0, 5.1, 1.75), (0.1, 4.6, 0.6)):
        assert abs(np.log10(np.interp(tau, sun.tau, sun.gas_pressure)) - gas) < 0.15
        assert abs(np.log10(np.interp(tau, sun.tau, sun.electron_pressure)) - electron) < 0.2


def test_molecules_hold_no_more_nuclei_than_there_are():
    t, abundance = np.array([3000.0, 4500.0]), abundances(0.3, 0.2, 0.4)
    nuclei, atoms, electron = np.full((3, 2), [[1e5], [8e4], [1.0]])
    gas = molecular_pressures(t, nuclei, atoms, electron, abundance)
    for element in ("C", "N", "O", "Ti"):
        held = sum(gas[name] * m.atoms.count(element) for name, m in MOLECULES.items() if name in gas)
        assert_allclose(held + gas[element] * nuclei * abundance[element], nuclei * abundance[element], rtol=1e-6)


def test_carbon_monoxide_takes_the_carbon_of_cool_gas():
    gas = np.full((3, 2), [[1e5], [8e4], [1.0]])
    cool, hot = molecular_pressures(np.array([3000.0, 6000.0]), *gas, abundances())["C"]
    assert cool < 0.01 < 0.9 < hot


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.molecule)
def test_franck_condon_factors_sum_to_one(system):
    assert_allclose(franck_condon(system)[:, :3].sum(axis=0), 1.0, atol=0.01)


@pytest.mark.parametrize(("system", "head"), [(0, 7873.0), (1, 7589.0), (1, 7628.0), (1, 7666.0)])
def test_bands_have_their_heads_where_they_are_observed(system, head):
    """CN red 2-0 and the three components of TiO gamma 0-1, air wavelengths: Pearse & Gaydon 1976."""
    grid = fine_grid(*air_to_vacuum(np.array([head - 40, head + 40])))
    section = band_cross_section(SYSTEMS[system], grid, np.array([3500.0]), 2e5)[0]
    pixels = air_to_vacuum(np.arange(head - 30, head + 30, 2.0))
    means = np.array([section[np.abs(grid - pixel) < 2].mean() for pixel in pixels])
    steepest = np.argmax(means[3:] / means[:-3])  # the rise at the head is the steepest within 30 Å
    assert abs(np.arange(head - 27, head + 30, 2.0)[steepest] - head) < 10


@pytest.mark.parametrize("damping", [0.01, 0.3, 2.0])
def test_voigt_keeps_its_area_and_has_lorentz_wings(damping):
    assert_allclose(2 * quad(lambda u: voigt(damping, u), 0, np.inf)[0], np.sqrt(np.pi), rtol=1e-6)
    assert_allclose(voigt(damping, 60.0), damping / np.sqrt(np.pi) / 60.0**2, rtol=0.01)


def test_isothermal_gas_shines_as_a_black_body(sun):
    wave = fine_grid(8000, 8003)
    layers = Atmosphere(**{**vars(sun), "temperature": np.full_like(sun.tau, 5000.0)})
    opacity = sun.rosseland[:, None] * (1 + 50 * np.random.default_rng(0).random(len(wave)))
    assert_allclose(formal_solution(layers, wave, opacity), np.pi * planck(wave, 5000.0), rtol=1e-6)


def test_linear_source_function_gives_the_eddington_barbier_flux(sun):
    """For S = a + b tau the flux is pi (a + 2/3 b), exactly."""
    wave = fine_grid(8000, 8001)
    scale = planck(wave.mean(), 5000.0)
    source = scale * (1 + 1.5 * sun.tau)
    hc_k = 1.438777  # [cm K]
    temperature = hc_k / (wave.mean() * 1e-8 * np.log1p(1e20 / (wave.mean() ** 5 * source)))
    layers = Atmosphere(**{**vars(sun), "temperature": temperature})
    opacity = np.repeat(sun.rosseland[:, None], len(wave), axis=1)
    assert_allclose(formal_solution(layers, wave, opacity), np.pi * scale * 2.0, rtol=0.01)


@pytest.mark.parametrize(
    ("line", "half_width", "measured"),
    [(8542.09, 25, 3.67), (8498.02, 12, 1.46), (8688.62, 1.5, 0.268), (8194.82, 2, 0.30), (8806.76, 1.5, 0.51)],
)
def test_solar_lines_have_their_measured_widths(sun, line, half_width, measured):
    """Equivalent widths [Å] from the atlas of Moore, Minnaert & Houtgast 1966, NBS Monograph 61."""
    centre = float(air_to_vacuum(line))
    grid = fine_grid(centre - half_width, centre + half_width)
    depths = 1 - emergent_flux(sun, grid, bands=False) / emergent_flux(sun, grid, lines=False, bands=False)
    assert_allclose(np.trapezoid(depths, grid), measured, rtol=0.2)


@pytest.mark.parametrize("window", [CALCIUM, IRON], ids=["Ca II 8542", "Fe I 8688"])
def test_lines_grow_with_metallicity_and_vanish_without_metals(window):
    depths = [depth(window, 5000, 3.0, M_H) for M_H in (-9.0, -2.5, -1.5, -0.5, 0.5)]
    assert (np.diff(depths) > 0).all()
    assert depths[1] < 0.3 * depths[-1]
    assert abs(depths[0]) < 1e-4


def test_calcium_grows_towards_giants_and_sodium_towards_dwarfs():
    """Calcium does below log g = 3; above it pressure-broadened wings are as strong (Erdelyi-Mendes & Barbuy 1991)."""
    calcium = [depth(CALCIUM, 4800, log_g, 0.0) for log_g in (4.5, 3.0, 2.0, 1.0)]
    sodium = [depth(SODIUM, 4200, log_g, 0.0) for log_g in (1.0, 2.5, 3.5, 5.0)]
    assert (np.diff(calcium[1:]) > 0.02).all()
    assert calcium[-1] > 1.5 * max(calcium[:2])
    assert (np.diff(sodium[1:]) > 0).all()
    assert sodium[-1] > 1.5 * sodium[0]


def test_enhancements_act_on_their_own_elements_and_titanium_oxide_is_for_cool_stars():
    assert depth(CALCIUM, 5000, 3.0, -1.0, 0.4) > 1.05 * depth(CALCIUM, 5000, 3.0, -1.0, 0.0)
    assert_allclose(depth(IRON, 5000, 3.0, -1.0, 0.4), depth(IRON, 5000, 3.0, -1.0, 0.0), rtol=0.1)
    rich, poor = (band_depth(np.linspace(7880.0, 7920.0, 95), 4300, 2.0, 0.3, 0.0, C) for C in (0.3, -0.5))  # CN
    assert rich > poor + 0.02
    cool, hot = (band_depth(np.linspace(7600.0, 7640.0, 95), T, 4.5) for T in (3750, 5000))  # TiO
    assert hot < 0.01 < 0.15 < cool


def test_a_window_shows_what_the_whole_band_shows():
    whole = synthesize(4500, 3.0)
    part = slice(3300, 3420)
    assert_allclose(synthesize(4500, 3.0, wave=WAVE[part]), whole[part], rtol=2e-3)


def test_line_list_is_sorted_and_inside_the_band():
    waves = np.array([line.wave for line in read_lines()])
    assert (np.diff(waves) >= 0).all()
    assert len(waves) > 300
    assert air_to_vacuum(7100) < waves.min() < waves.max() < air_to_vacuum(8850)
    assert_allclose(air_to_vacuum(8542.09), 8544.44, atol=0.01)


@pytest.mark.parametrize(
    "star", [(5772, 4.44), (4200, 1.6, -0.5, 0.2, 0.0), (4800, 2.5, -1.8, 0.3, -0.4), (3900, 4.7, 0.2, 0.0, 0.1)]
)
def test_emulator_repeats_direct_synthesis(star):
    truth = synthesize(*star)
    error = load_emulator()(np.array([[*star, 0, 0, 0][:5]]))[0] / (truth / truth.mean()) - 1
    assert np.sqrt((error**2).mean()) < 0.005
    assert np.abs(error).max() < 0.04

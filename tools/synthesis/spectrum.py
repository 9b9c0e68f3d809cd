"""Direct synthesis: the emergent spectrum of one star by formal solution of radiative transfer in LTE."""

import numpy as np
from scipy.special import wofz

from dualgate.datasets.emulator import WAVE
from synthesis.atmosphere import model_atmosphere, planck
from synthesis.atoms import (
    ATOMIC_MASS,
    BOLTZMANN,
    BOLTZMANN_EV,
    LIGHT,
    MASSES,
    PLANCK,
    air_to_vacuum,
    partition_function,
    read_lines,
    saha,
)
from synthesis.molecules import SYSTEMS, band_cross_section, molecular_pressures
from synthesis.opacity import continuum_opacity

RESOLUTION = 5000.0
FINE_STEP = 5e-6  # of ln(wave): 1.5 km/s
_MU = np.array([0.35505103, 0.84494897])  # Gauss points for the integral of mu I(mu), exact to third degree
_MU_WEIGHT = np.array([0.18195862, 0.31804138])
_LINE_SECTION = 0.0265400  # pi e^2 / (m c) [cm2 Hz]
# [rad / s]: Ca II 4p lives 6.9 ns (Jin & Church 1993, Phys. Rev. Lett. 70, 3213); 1e8, typical, for everything else
_NATURAL_WIDTH = {("Ca", 2): 1.45e8}
_WING_END = 3e-4  # of the continuum
_BAND_TEMPERATURES = np.array([2400.0, 3000.0, 3600.0, 4300.0, 5200.0, 6500.0, 9000.0])


def fine_grid(low, high):
    """Wavelengths of the synthesis [vacuum Å], uniform in the logarithm and the same for every window."""
    first, last = np.floor(np.log(low) / FINE_STEP), np.ceil(np.log(high) / FINE_STEP)
    return np.exp(np.arange(first, last + 1) * FINE_STEP)


def voigt(damping, offset):
    """Hjerting function H(a, u), the Voigt profile in Doppler units with H(0, 0) = 1."""
    return wofz(offset + 1j * damping).real


def _line_states(atmosphere, free):
    """Return number density over partition function, by (element, stage), each of shape (n_layers,)."""
    t, states = atmosphere.temperature, {}
    for element, stage in {(line.element, line.stage) for line in read_lines()}:
        ionised = saha(element, t) / atmosphere.electron_pressure
        share = (1.0 if stage == 1 else ionised) / (1 + ionised)
        number = atmosphere.nuclei * atmosphere.abundance[element] * free.get(element, 1.0) * share
        states[element, stage] = number / partition_function(element, stage, t)
    return states


def _add_lines(opacity, wave, atmosphere, continuum, free):
    """Add the opacity of every atomic line to ``opacity`` of shape (n_layers, n_waves), in place."""
    t = atmosphere.temperature
    states = _line_states(atmosphere, free)
    perturbers = (atmosphere.hydrogen_pressure + 0.85 * atmosphere.h2_pressure) / (
        BOLTZMANN * t
    ) + 0.42 * atmosphere.abundance["He"] * atmosphere.nuclei
    electrons = atmosphere.electron_pressure / (BOLTZMANN * t)
    log_low = np.log(wave[0])
    for line in read_lines():
        centre = LIGHT / (line.wave * 1e-8)
        thermal = 2 * BOLTZMANN * t / (MASSES[line.element] * ATOMIC_MASS)
        doppler = centre / LIGHT * np.sqrt(thermal + atmosphere.turbulence**2)  # [Hz]
        excited = 10**line.log_gf * np.exp(-line.energy / (BOLTZMANN_EV * t))
        stimulated = -np.expm1(-PLANCK * centre / (BOLTZMANN * t))
        peak = _LINE_SECTION * states[line.element, line.stage] * excited * stimulated
        peak /= np.sqrt(np.pi) * doppler
        width = 10**line.log_damping * (t / 1e4) ** ((1 - line.damping_alpha) / 2) * perturbers
        width += _NATURAL_WIDTH.get((line.element, line.stage), 1e8) + 2e-6 * electrons  # Stark width: rough
        damping = width / (4 * np.pi * doppler)
        strength = peak / continuum
        if strength.max() < 1e-3:
            continue
        # in points of the grid: where the Lorentz wing falls to _WING_END, and at least 6 Doppler widths
        doppler_points = doppler / centre / FINE_STEP
        wings = peak * damping / np.sqrt(np.pi)
        wing = np.sqrt((wings / continuum / _WING_END).max() * (doppler_points**2).max())
        reach = int(np.ceil(np.clip(wing, 6 * doppler_points.max(), 4000)))
        place = (np.log(line.wave) - log_low) / FINE_STEP
        first, last = max(int(place) - reach, 0), min(int(place) + reach + 2, len(wave))
        if first >= last:
            continue
        core_reach = min(reach, int(15 * doppler_points.max()))
        core_first, core_last = max(int(place) - core_reach, first), min(int(place) + core_reach + 2, last)
        spans = [(first, last, False)]
        if core_first < core_last:
            spans = [(first, core_first, False), (core_first, core_last, True), (core_last, last, False)]
        for start, stop, exact in spans:
            if start >= stop:
                continue
            offset = (np.arange(start, stop) - place) / doppler_points[:, None]
            if exact:
                opacity[:, start:stop] += peak[:, None] * voigt(damping[:, None], offset)
            else:
                inverse = 1 / offset**2
                opacity[:, start:stop] += wings[:, None] * (inverse + 1.5 * inverse**2)


def _add_bands(opacity, wave, atmosphere, pressures):
    """Add the opacity of the molecular bands, in place."""
    t = atmosphere.temperature
    where = np.clip(np.interp(t, _BAND_TEMPERATURES, np.arange(len(_BAND_TEMPERATURES))), 0, None)
    weights = np.maximum(0.0, 1 - np.abs(where[:, None] - np.arange(len(_BAND_TEMPERATURES))))
    for system in SYSTEMS:
        velocity = np.hypot(atmosphere.turbulence, 1.3e5)
        section = band_cross_section(system, wave, _BAND_TEMPERATURES, velocity)
        number = pressures[system.molecule] / (BOLTZMANN * t)
        opacity += (number[:, None] * weights) @ section


def emergent_flux(atmosphere, wave, *, lines=True, bands=True):
    """Flux that leaves the star, per unit wavelength [arbitrary, one scale for all stars].

    Parameters
    ----------
    atmosphere : Atmosphere
    wave : ndarray of shape (n_waves,)
        From :func:`fine_grid` [vacuum Å].
    lines, bands : bool, default=True
        Whether atomic lines and molecular bands absorb.

    Returns
    -------
    flux : ndarray of shape (n_waves,)
    """
    t = atmosphere.temperature
    knots = np.linspace(wave[0], wave[-1], 12)
    gas = (t, atmosphere.electron_pressure, atmosphere.hydrogen_pressure, atmosphere.h2_pressure)
    coarse = continuum_opacity(knots, *gas)
    index = np.clip(np.searchsorted(knots, wave) - 1, 0, len(knots) - 2)
    right = (wave - knots[index]) / (knots[1] - knots[0])
    opacity = coarse[:, index] * (1 - right) + coarse[:, index + 1] * right
    if lines or bands:
        pressures = molecular_pressures(
            t,
            atmosphere.nuclei * BOLTZMANN * t,
            atmosphere.hydrogen_pressure,
            atmosphere.electron_pressure,
            atmosphere.abundance,
        )
    if lines:
        _add_lines(opacity, wave, atmosphere, coarse.min(axis=1), pressures)
    if bands:
        _add_bands(opacity, wave, atmosphere, pressures)
    return formal_solution(atmosphere, wave, opacity)


def formal_solution(atmosphere, wave, opacity):
    """Integrate the source function (Planck, linear in optical depth between layers) over depth and angle."""
    flux = np.empty(len(wave))
    step = np.diff(np.log(atmosphere.tau))[:, None]
    scale = (atmosphere.tau / atmosphere.rosseland)[:, None]
    for start in range(0, len(wave), 2048):
        part = slice(start, start + 2048)
        slope = opacity[:, part] * scale  # d tau_wave / d ln tau
        rise = 0.5 * (slope[1:] + slope[:-1]) * step
        depth = slope[0] + np.concatenate([np.zeros_like(rise[:1]), np.cumsum(rise, axis=0)])
        source = planck(wave[part], atmosphere.temperature[:, None])
        gradient = np.diff(source, axis=0) / np.maximum(rise, 1e-12)
        total = 0.5 * source[0]
        for mu, weight in zip(_MU, _MU_WEIGHT, strict=True):
            through = np.exp(-depth / mu)
            total = total + weight * mu * (gradient * (through[:-1] - through[1:])).sum(axis=0)
            total += weight * mu * through[-1] * gradient[-1]
        flux[part] = 2 * np.pi * total
    return flux


def instrument(fine_wave, fine_flux, wave, resolution=RESOLUTION):
    """Spectrum as seen at a resolution: Gaussian of full width wave / resolution, sampled at ``wave`` [vacuum Å]."""
    sigma = 1 / resolution / np.sqrt(8 * np.log(2)) / FINE_STEP
    reach = int(np.ceil(4.5 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    smooth = np.convolve(fine_flux, kernel / kernel.sum(), mode="same")
    return np.interp(wave, fine_wave, smooth)


def synthesize(T_eff, log_g, M_H=0.0, a_M=0.0, C_M=0.0, *, wave=None, lines=True, bands=True):
    """Spectrum of a star by direct synthesis, without noise.

    LTE: Saha and Boltzmann populations, H- continuum, Voigt profiles with van der Waals damping for the lines of
    ``lines.csv``, the band systems CN red and TiO gamma, a plane-parallel atmosphere in hydrostatic equilibrium. Not
    in it: departures from LTE, convection's effect on the temperature, Paschen lines, FeH and water.

    Parameters
    ----------
    T_eff : float
        Effective temperature [K], meant for 3750 to 6000.
    log_g : float
        log10 of the surface gravity [cm/s2], meant for 1 to 5.
    M_H, a_M, C_M : float, default=0.0
        Metallicity, alpha and carbon enhancement [dex].
    wave : ndarray of shape (n_pixels,), default=None
        Pixel centres [air Å]; None means the 4,096 pixels of the data set. A part of them is faster.
    lines, bands : bool, default=True
        Whether atomic lines and molecular bands absorb.

    Returns
    -------
    flux : ndarray of shape (n_pixels,)
        At R = 5,000, per unit wavelength [arbitrary, one scale for all stars].

    Examples
    --------
    >>> import numpy as np
    >>> triplet = np.linspace(8530, 8560, 60)
    >>> giant, dwarf = (synthesize(4800, g, wave=triplet, bands=False) for g in (1.5, 4.5))
    >>> bool((giant / giant.max()).mean() < (dwarf / dwarf.max()).mean())
    True
    """
    wave = WAVE if wave is None else np.asarray(wave, dtype=float)
    vacuum = air_to_vacuum(wave)
    fine = fine_grid(vacuum[0] * (1 - 5e-4), vacuum[-1] * (1 + 5e-4))
    atmosphere = model_atmosphere(T_eff, log_g, M_H, a_M, C_M)
    return instrument(fine, emergent_flux(atmosphere, fine, lines=lines, bands=bands), vacuum)

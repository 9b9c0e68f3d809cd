"""A model atmosphere: temperature, pressures and number densities against Rosseland optical depth."""

from dataclasses import dataclass

import numpy as np

from synthesis.atoms import (
    ATOMIC_MASS,
    BOLTZMANN,
    ELEMENTS,
    LIGHT,
    MASSES,
    PLANCK,
    abundances,
    saha,
)
from synthesis.molecules import equilibrium_constant
from synthesis.opacity import continuum_opacity

LOG_TAU = np.linspace(-5.0, 1.6, 34)
_ROSSELAND_WAVE = np.array(
    [3200, 3700, 4200, 4800, 5500, 6300, 7200, 8200, 9500, 11000, 13000, 15500, 18500, 23000, 30000], dtype=float
)


@dataclass(frozen=True, eq=False)
class Atmosphere:
    """State of the gas in every layer, from the surface inwards.

    Attributes
    ----------
    tau : ndarray of shape (n_layers,)
        Rosseland optical depth.
    temperature : ndarray of shape (n_layers,)
        [K].
    gas_pressure, electron_pressure, hydrogen_pressure, h2_pressure : ndarray of shape (n_layers,)
        Total, of electrons, of neutral hydrogen atoms and of hydrogen molecules [dyn/cm2].
    nuclei : ndarray of shape (n_layers,)
        Number density of hydrogen nuclei, bound or free [1/cm3].
    rosseland : ndarray of shape (n_layers,)
        Rosseland mean opacity [1/cm].
    abundance : dict
        Nuclei per hydrogen nucleus, by element.
    turbulence : float
        Microturbulent velocity [cm/s].
    """

    tau: np.ndarray
    temperature: np.ndarray
    gas_pressure: np.ndarray
    electron_pressure: np.ndarray
    hydrogen_pressure: np.ndarray
    h2_pressure: np.ndarray
    nuclei: np.ndarray
    rosseland: np.ndarray
    abundance: dict
    turbulence: float


def temperature_law(tau, T_eff):
    """Temperature at Rosseland optical depth ``tau`` [K] (Krishna Swamy 1966, ApJ 145, 174).

    The Eddington form T^4 = 3/4 T_eff^4 (tau + q(tau)) with a Hopf function q fitted to the Sun and to a K dwarf: its
    surface is cooler than that of the exact grey solution, because of line blanketing.
    """
    hopf = 1.39 - 0.815 * np.exp(-2.54 * tau) - 0.025 * np.exp(-30.0 * tau)
    return T_eff * (0.75 * (tau + hopf)) ** 0.25


def planck(wave, temperature):
    """Planck function per unit wavelength, arbitrary scale; ``wave`` [Å] and ``temperature`` [K] broadcast."""
    x = PLANCK * LIGHT / (wave * 1e-8 * BOLTZMANN * temperature)
    return 1e20 / (wave**5 * np.expm1(x))


def _gas(pressure, electron, phi_h, k_h2, others):
    """Pressures of atomic hydrogen and of all hydrogen nuclei where electrons have pressure ``electron``."""
    linear = (1 + phi_h / electron) * (1 + others)
    quadratic = (1 + 2 * others) / k_h2
    rest = np.maximum(pressure - electron, 1e-30)
    atoms = 2 * rest / (linear + np.sqrt(linear**2 + 4 * quadratic * rest))
    return atoms, atoms * (1 + phi_h / electron) + 2 * atoms**2 / k_h2


def solve_gas(pressure, temperature, abundance):
    """Electron, atomic-hydrogen and hydrogen-nuclei pressures of a gas [dyn/cm2].

    Charge is conserved between electrons and the first ions of every element (Saha), hydrogen also forms H2. The
    electron pressure is found by bisection in its logarithm.

    Parameters
    ----------
    pressure, temperature : ndarray of shape (n_layers,)
        Gas pressure [dyn/cm2] and temperature [K].
    abundance : dict
        Nuclei per hydrogen nucleus, by element.

    Returns
    -------
    electron, atoms, nuclei : ndarray of shape (n_layers,)
        Partial pressures [dyn/cm2].
    """
    metals = [name for name in ELEMENTS if name not in ("H", "He")]
    weights = np.array([abundance[name] for name in metals])
    phi = np.stack([saha(name, temperature) for name in metals])
    phi_h, k_h2 = saha("H", temperature), equilibrium_constant("H2", temperature)
    others = weights.sum() + abundance["He"]
    low, high = np.log(pressure) - 25.0, np.log(pressure) - 0.1
    for _ in range(45):
        middle = 0.5 * (low + high)
        electron = np.exp(middle)
        atoms, nuclei = _gas(pressure, electron, phi_h, k_h2, others)
        charge = atoms * phi_h / electron + nuclei * (weights @ (phi / (phi + electron)))
        low, high = np.where(charge > electron, middle, low), np.where(charge > electron, high, middle)
    electron = np.exp(0.5 * (low + high))
    return (electron, *_gas(pressure, electron, phi_h, k_h2, others))


def _rosseland(temperature, electron, atoms, h2):
    """Rosseland mean of the continuous opacity [1/cm]."""
    wave, t = _ROSSELAND_WAVE[None, :], temperature[:, None]
    step = 5.0
    weight = (planck(wave, t + step) - planck(wave, t - step)) * np.gradient(_ROSSELAND_WAVE)
    opacity = continuum_opacity(_ROSSELAND_WAVE, temperature, electron, atoms, h2)
    return weight.sum(axis=1) / (weight / opacity).sum(axis=1)


def microturbulence(log_g):
    """Microturbulent velocity [cm/s]: 2.13 - 0.23 log g km/s (Kirby et al. 2009, ApJ 705, 328)."""
    return 1e5 * (2.13 - 0.23 * log_g)


def model_atmosphere(T_eff, log_g, M_H=0.0, a_M=0.0, C_M=0.0):
    """Plane-parallel atmosphere in hydrostatic equilibrium.

    Integrates dP / dtau = g / kappa on a fixed temperature law until the pressures agree with the opacities they
    imply.

    Parameters
    ----------
    T_eff : float
        Effective temperature [K].
    log_g : float
        log10 of the surface gravity [cm/s2].
    M_H, a_M, C_M : float
        Metallicity, alpha and carbon enhancement [dex].

    Returns
    -------
    atmosphere : Atmosphere

    Examples
    --------
    >>> sun = model_atmosphere(5772, 4.44)
    >>> bool(4.6 < np.log10(np.interp(1.0, sun.tau, sun.gas_pressure)) < 5.4)
    True
    """
    tau = 10**LOG_TAU
    temperature = temperature_law(tau, T_eff)
    abundance = abundances(M_H, a_M, C_M)
    mass = sum(abundance[name] * MASSES[name] for name in ELEMENTS) * ATOMIC_MASS
    gravity = 10.0**log_g
    k_h2 = equilibrium_constant("H2", temperature)
    step = np.diff(np.log(tau))
    pressure = 10 ** (4.0 + 0.6 * (log_g - 4.44)) * tau**0.6
    for _ in range(60):
        electron, atoms, nuclei = solve_gas(pressure, temperature, abundance)
        h2 = atoms**2 / k_h2
        rosseland = _rosseland(temperature, electron, atoms, h2)
        density = nuclei / (BOLTZMANN * temperature) * mass
        slope = gravity * tau * density / rosseland  # dP / dln tau
        # at the top P grows like tau**0.6 for opacity by H- (kappa proportional to P**0.7), so P = slope / 0.6
        updated = slope[0] / 0.6 + np.concatenate([[0.0], np.cumsum(0.5 * (slope[1:] + slope[:-1]) * step)])
        change = np.abs(np.log(updated / pressure)).max()
        pressure = np.sqrt(pressure * updated)
        if change < 1e-5:
            break
    electron, atoms, nuclei = solve_gas(pressure, temperature, abundance)
    h2 = atoms**2 / k_h2
    return Atmosphere(
        tau=tau,
        temperature=temperature,
        gas_pressure=pressure,
        electron_pressure=electron,
        hydrogen_pressure=atoms,
        h2_pressure=h2,
        nuclei=nuclei / (BOLTZMANN * temperature),
        rosseland=_rosseland(temperature, electron, atoms, h2),
        abundance=abundance,
        turbulence=microturbulence(log_g),
    )

"""Molecules: dissociation equilibrium from spectroscopic constants, and the band systems CN red and TiO gamma.

Constants of the molecules: Huber & Herzberg 1979, *Constants of Diatomic Molecules*. Oscillator strengths of the 0-0
bands: CN red 2.37e-3 (Bauschlicher, Langhoff & Taylor 1988, ApJ 332, 531), TiO gamma 0.0786 (Alvarez & Plez 1998,
A&A 330, 1109); the other bands follow by Franck-Condon factors of Morse oscillators. Dissociation energies: Huber &
Herzberg, and CN from Costes et al. 1990.

Accuracy: band heads fall within a few Å of where they are observed, bands degrade to the red, and the number of lines,
their strengths and their dependence on temperature are right on average. Positions of single rotational lines are not
accurate: branches are those of a rigid transition without spin-rotation structure. This suffices for the blended lines
at R = 5,000, not for work on a single line.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.linalg import eigh_tridiagonal

from synthesis.atoms import ATOMIC_MASS, BOLTZMANN, BOLTZMANN_EV, LIGHT, PLANCK, partition_function, saha

HC_K = PLANCK * LIGHT / BOLTZMANN  # 1.4388 cm K


@dataclass(frozen=True)
class Diatomic:
    """Spectroscopic constants of a molecule's ground state.

    Attributes
    ----------
    atoms : tuple of str
        The two elements.
    reduced_mass : float
        [u].
    rotation, vibration : float
        B_e and omega_e [1/cm].
    electronic : tuple of (weight, energy)
        Low electronic levels: statistical weight and energy [1/cm].
    dissociation : float
        D_0 [eV].
    symmetry : int
        2 for equal atoms.
    """

    atoms: tuple
    reduced_mass: float
    rotation: float
    vibration: float
    electronic: tuple
    dissociation: float
    symmetry: int = 1


MOLECULES = {
    "H2": Diatomic(("H", "H"), 0.50391, 60.853, 4401.2, ((1, 0.0),), 4.478, 2),
    "CO": Diatomic(("C", "O"), 6.8562, 1.9313, 2169.8, ((1, 0.0),), 11.09),
    "CN": Diatomic(("C", "N"), 6.4622, 1.8997, 2068.6, ((2, 0.0), (4, 9245.0)), 7.74),
    "N2": Diatomic(("N", "N"), 7.0015, 1.9982, 2358.6, ((1, 0.0),), 9.759, 2),
    "OH": Diatomic(("O", "H"), 0.9481, 18.911, 3737.8, ((2, 0.0), (2, 139.0)), 4.392),
    "SiO": Diatomic(("Si", "O"), 10.177, 0.72675, 1241.6, ((1, 0.0),), 8.26),
    "TiO": Diatomic(("Ti", "O"), 11.994, 0.5354, 1009.0, ((2, 0.0), (2, 97.0), (2, 198.0), (2, 3448.0)), 6.87),
}


def internal_partition(name, temperature):
    """Return a molecule's internal partition function: rigid rotator, harmonic oscillator, energies from v = 0."""
    molecule, t = MOLECULES[name], np.asarray(temperature, dtype=float)
    electronic = sum(weight * np.exp(-HC_K * energy / t) for weight, energy in molecule.electronic)
    rotation = t / (HC_K * molecule.rotation * molecule.symmetry) + 1 / (3 * molecule.symmetry)
    return electronic * rotation / -np.expm1(-HC_K * molecule.vibration / t)


def equilibrium_constant(name, temperature):
    """p(A) p(B) / p(AB) for a molecule [dyn/cm2], by statistical mechanics."""
    molecule, t = MOLECULES[name], np.asarray(temperature, dtype=float)
    a, b = molecule.atoms
    thermal = (2 * np.pi * molecule.reduced_mass * ATOMIC_MASS * BOLTZMANN * t / PLANCK**2) ** 1.5
    atoms = partition_function(a, 1, t) * partition_function(b, 1, t)
    bound = internal_partition(name, t) * np.exp(molecule.dissociation / (BOLTZMANN_EV * t))
    return BOLTZMANN * t * thermal * atoms / bound


def molecular_pressures(temperature, nuclei_pressure, hydrogen_pressure, electron_pressure, abundance):
    """Partial pressures of molecules that bind C, N, O, Si and Ti [dyn/cm2].

    Parameters
    ----------
    temperature, nuclei_pressure, hydrogen_pressure, electron_pressure : ndarray of shape (n_layers,)
        [K], and pressures of all hydrogen nuclei, of hydrogen atoms and of electrons [dyn/cm2].
    abundance : dict
        Nuclei per hydrogen nucleus, by element.

    Returns
    -------
    pressures : dict
        One ndarray of shape (n_layers,) for each of CO, CN, N2, OH, SiO, TiO; and for each of the five elements the
        share of its nuclei that no molecule holds.
    """
    k = {name: equilibrium_constant(name, temperature) for name in MOLECULES}
    total = {name: nuclei_pressure * abundance[name] for name in ("C", "N", "O", "Si", "Ti")}
    ionised = {name: 1 + saha(name, temperature) / electron_pressure for name in total}
    free = {name: total[name] / ionised[name] for name in total}
    for _ in range(60):
        cost_c = ionised["C"] + free["N"] / k["CN"]
        cost_o = ionised["O"] + hydrogen_pressure / k["OH"] + free["Si"] / k["SiO"] + free["Ti"] / k["TiO"]
        # x = p(CO) solves (total C - x)(total O - x) = x cost_c cost_o K
        half = 0.5 * (total["C"] + total["O"] + cost_c * cost_o * k["CO"])
        product = total["C"] * total["O"]
        co = product / (half + np.sqrt(np.maximum(half**2 - product, 0.0)))
        free["C"] = (total["C"] - co) / cost_c
        free["O"] = (total["O"] - co) / cost_o
        cost_n = ionised["N"] + free["C"] / k["CN"]
        free["N"] = 2 * total["N"] / (cost_n + np.sqrt(cost_n**2 + 8 * total["N"] / k["N2"]))
        for metal, oxide in (("Si", "SiO"), ("Ti", "TiO")):
            free[metal] = np.sqrt(free[metal] * total[metal] / (ionised[metal] + free["O"] / k[oxide]))
    pressures = {
        name: free[a] * free[b] / k[name]
        for name, (a, b) in ((n, m.atoms) for n, m in MOLECULES.items())
        if "H" not in (a, b)
    }
    pressures["OH"] = free["O"] * hydrogen_pressure / k["OH"]
    return pressures | {name: free[name] * ionised[name] / total[name] for name in total}


@dataclass(frozen=True)
class BandSystem:
    """An electronic transition: constants (omega_e, omega_e x_e, B_e, alpha_e, r_e [Å]) of both states.

    ``origin`` is T_e [1/cm], ``shifts`` the offsets of its spin components, ``strength`` the oscillator strength of
    the 0-0 band and ``bands`` the (upper, lower) vibrational quantum numbers that reach 7100 to 8850 Å.
    """

    molecule: str
    origin: float
    upper: tuple
    lower: tuple
    shifts: tuple
    strength: float
    bands: tuple


SYSTEMS = (
    BandSystem(
        "CN",
        9245.3,
        (1812.56, 12.609, 1.7151, 0.01708, 1.2333),
        (2068.59, 13.087, 1.8997, 0.0174, 1.1718),
        (26.3, -26.3),
        2.37e-3,
        tuple((v + d, v) for d in (1, 2, 3) for v in range(7)),
    ),
    BandSystem(
        "TiO",
        14163.0,
        (867.78, 3.942, 0.50739, 0.00315, 1.6640),
        (1009.02, 4.498, 0.53541, 0.00301, 1.6202),
        (70.0, 3.0, -72.0),
        0.0786,
        tuple((v, v + d) for d in (-1, 0, 1, 2, 3) for v in range(6) if v + d >= 0),
    ),
)


def _vibration(state, reduced_mass, grid):
    """Wave functions of a Morse oscillator on a grid of distances [Å], shape (n_grid, 12)."""
    omega, anharmonic, _, _, r_e = state
    scale = 16.857629 / reduced_mass  # hbar^2 / 2 m [Å2 / cm]
    depth, width = omega**2 / (4 * anharmonic), np.sqrt(anharmonic / scale)
    step = grid[1] - grid[0]
    potential = np.minimum(depth * (1 - np.exp(-width * (grid - r_e))) ** 2, 2e5)
    diagonal = potential + 2 * scale / step**2
    _, waves = eigh_tridiagonal(diagonal, np.full(len(grid) - 1, -scale / step**2), select="i", select_range=(0, 11))
    return waves


def franck_condon(system):
    """Franck-Condon factors of a band system, array indexed by (upper v, lower v)."""
    mass = MOLECULES[system.molecule].reduced_mass
    grid = np.linspace(system.lower[4] - 0.45, system.lower[4] + 0.8, 2000)
    return (_vibration(system.upper, mass, grid).T @ _vibration(system.lower, mass, grid)) ** 2


def _level(state, v):
    omega, anharmonic, rotation, alpha, _ = state
    return omega * (v + 0.5) - anharmonic * (v + 0.5) ** 2, rotation - alpha * (v + 0.5)


def band_lines(system):
    """Every rotational line of a band system.

    Returns
    -------
    wave, energy, strength : ndarray of shape (n_lines,)
        Vacuum wavelength [Å], energy of the lower level [1/cm], and weight: the cross section integrated over
        wavenumber [cm] is ``strength * exp(-1.4388 energy / T) / internal_partition``.
    """
    factors = franck_condon(system)
    molecule = MOLECULES[system.molecule]
    weight = sum(w for w, energy in molecule.electronic if energy < 500)
    j = np.arange(1, 181 if system.molecule == "TiO" else 121)
    ground = _level(system.lower, 0)[0]
    origin_00 = system.origin + _level(system.upper, 0)[0] - ground
    parts = []
    for upper, lower in system.bands:
        (g_upper, b_upper), (g_lower, b_lower) = _level(system.upper, upper), _level(system.lower, lower)
        origin = system.origin + g_upper - g_lower
        strength = system.strength * factors[upper, lower] / factors[0, 0] * origin / origin_00
        for shift in system.shifts:
            for change, share in ((-1, 0.25), (0, 0.5), (1, 0.25)):
                k = j + change
                wavenumber = origin + shift + b_upper * k * (k + 1) - b_lower * j * (j + 1)
                energy = g_lower - ground + b_lower * j * (j + 1)
                intensity = 8.8528e-13 * strength * weight * share * (2 * j + 1) / len(system.shifts)
                parts.append(np.stack([1e8 / wavenumber, energy, intensity]))
    return np.concatenate(parts, axis=1)


@cache
def _inside(system, low, high):
    wave, energy, strength = band_lines(system)
    inside = (wave > low) & (wave < high)
    return wave[inside], energy[inside], strength[inside]


def band_cross_section(system, wave, temperatures, velocity):
    """Cross section per molecule at given temperatures [cm2], Gaussian lines on a grid uniform in log wavelength.

    Parameters
    ----------
    system : BandSystem
    wave : ndarray of shape (n_waves,)
        Uniform in its logarithm, vacuum [Å].
    temperatures : ndarray of shape (n_temperatures,)
        [K].
    velocity : float
        Doppler velocity, sqrt(2) times the standard deviation [cm/s].

    Returns
    -------
    section : ndarray of shape (n_temperatures, n_waves)
        Corrected for stimulated emission.
    """
    step = np.log(wave[1] / wave[0])
    line_wave, energy, strength = _inside(system, wave[0], wave[-1])
    place = np.log(line_wave / wave[0]) / step
    index = place.astype(int)
    right = place - index
    reach = int(np.ceil(4 * velocity / LIGHT / step))
    kernel = np.exp(-((np.arange(-reach, reach + 1) * step * LIGHT / velocity) ** 2))
    kernel /= kernel.sum() * step
    section = np.empty((len(temperatures), len(wave)))
    for i, t in enumerate(temperatures):
        # integral over wavenumber = line strength; d wavenumber = wavenumber d ln(wave)
        integral = strength * np.exp(-HC_K * energy / t) / internal_partition(system.molecule, t) * line_wave * 1e-8
        density = np.bincount(index, integral * (1 - right), len(wave) + 1)
        density += np.bincount(index + 1, integral * right, len(wave) + 1)
        smooth = np.convolve(density[: len(wave)], kernel, mode="same")
        section[i] = smooth * -np.expm1(-HC_K * 1e8 / (wave * t))
    return section

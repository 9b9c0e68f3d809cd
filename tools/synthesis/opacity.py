"""Continuous opacity: H- bound-free and free-free, hydrogen, and scattering by H, H2 and electrons."""

import numpy as np

from synthesis.atoms import BOLTZMANN, LIGHT, PLANCK

_H_MINUS_EDGE = 1.6419  # photodetachment threshold [micron]
_H_MINUS_BF = (152.519, 49.534, -118.858, 92.536, -34.194, 4.982)
# rows n = 2 to 6, columns A to F of John (1988), table 3a (valid beyond 0.3645 micron)
_H_MINUS_FF = np.array(
    [
        [2483.3460, 285.8270, -2054.2910, 2827.7760, -1341.5370, 208.9520],
        [-3449.8890, -1158.3820, 8746.5230, -11485.6320, 5303.6090, -812.9390],
        [2200.0400, 2427.7190, -13651.1050, 16755.5240, -7510.4940, 1132.7380],
        [-696.2710, -1841.4000, 8624.9700, -10051.5300, 4400.0670, -655.0200],
        [88.2830, 444.5170, -1863.8640, 2095.2880, -901.7880, 132.9850],
    ]
)


def h_minus_bound_free(wave, temperature):
    """Opacity of H- photodetachment per neutral hydrogen atom and electron pressure [cm4/dyn].

    Parameters
    ----------
    wave : ndarray of shape (n_waves,)
        Wavelength [Å].
    temperature : ndarray of shape (n_layers,)
        [K].

    Returns
    -------
    opacity : ndarray of shape (n_layers, n_waves)
        Corrected for stimulated emission.

    References
    ----------
    John, T. L. 1988, A&A 193, 189.
    """
    micron, t = np.asarray(wave) * 1e-4, np.asarray(temperature)[:, None]
    root = np.sqrt(np.maximum(1 / micron - 1 / _H_MINUS_EDGE, 0.0))
    section = 1e-18 * micron**3 * root**3 * np.polynomial.polynomial.polyval(root, _H_MINUS_BF)
    boltzmann = 1.439e4 / t
    return 0.750 * t**-2.5 * np.exp(boltzmann / _H_MINUS_EDGE) * -np.expm1(-boltzmann / micron) * section


def h_minus_free_free(wave, temperature):
    """Opacity of electrons passing hydrogen atoms, per neutral atom and electron pressure [cm4/dyn].

    Takes and returns what :func:`h_minus_bound_free` does (John 1988); below 0.3645 micron, where it is a
    hundredth of the bound-free opacity, the value at 0.3645 micron is used.
    """
    micron = np.maximum(np.asarray(wave) * 1e-4, 0.3645)
    powers = np.stack([micron**2, np.ones_like(micron), micron**-1, micron**-2, micron**-3, micron**-4])
    theta = (5040.0 / np.asarray(temperature))[:, None]
    return 1e-29 * (theta ** ((np.arange(2, 7) + 1) / 2)) @ (_H_MINUS_FF @ powers)


def hydrogen_opacity(wave, temperature):
    """Bound-free and free-free opacity of neutral hydrogen per atom [cm2], with Kramers' cross sections."""
    wave, t = np.asarray(wave), np.asarray(temperature)[:, None]
    kt = 8.617333e-5 * t
    total = np.zeros((t.shape[0], wave.shape[0]))
    for n in range(1, 9):
        edge = 911.763 * n**2
        section = 7.91e-18 * n * (wave / edge) ** 3 * (wave <= edge)
        total += n**2 * np.exp(-13.598 * (1 - 1 / n**2) / kt) * section
    # levels above n = 8 and the free states, as an integral over energy
    frequency = LIGHT / (wave * 1e-8)
    kramers = 7.91e-18 * (wave / 911.763) ** 3 * kt / (2 * 13.598)
    total += kramers * np.exp(-13.598 * (1 - 1 / 8.5**2) / kt)
    return total * -np.expm1(-PLANCK * frequency / (BOLTZMANN * t))


def continuum_opacity(wave, temperature, electron_pressure, hydrogen_pressure, h2_pressure):
    """Continuous opacity of the gas [1/cm]; scattering counts as absorption.

    Parameters
    ----------
    wave : ndarray of shape (n_waves,)
        Wavelength [Å].
    temperature, electron_pressure, hydrogen_pressure, h2_pressure : ndarray of shape (n_layers,)
        [K] and [dyn/cm2].

    Returns
    -------
    opacity : ndarray of shape (n_layers, n_waves)

    References
    ----------
    Dalgarno 1962 in Kurucz 1970, SAO Special Report 309 (Rayleigh scattering by H and H2).
    """
    wave = np.asarray(wave, dtype=float)
    kt = BOLTZMANN * np.asarray(temperature)
    rayleigh_h = 5.799e-13 / wave**4 + 1.422e-6 / wave**6 + 2.784 / wave**8
    rayleigh_h2 = 8.14e-13 / wave**4 + 1.28e-6 / wave**6 + 1.61 / wave**8
    h_minus = h_minus_bound_free(wave, temperature) + h_minus_free_free(wave, temperature)
    per_atom = electron_pressure[:, None] * h_minus + hydrogen_opacity(wave, temperature) + rayleigh_h
    return (
        (hydrogen_pressure / kt)[:, None] * per_atom
        + (h2_pressure / kt)[:, None] * rayleigh_h2
        + (electron_pressure / kt)[:, None] * 6.652e-25
    )

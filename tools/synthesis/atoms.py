"""Facts about atoms: abundances, ionisation, partition functions, and the lines of 7100 to 8850 Å.

Solar abundances: Asplund, Grevesse, Sauval & Scott 2009, ARA&A 47, 481. Ionisation energies: NIST. Partition
functions: Gray 2005, *The Observation and Analysis of Stellar Photospheres*, table D.2 (its one outlier, Ni II at
5040 K / T = 0.8, is interpolated). Lines: see the head of ``lines.csv``.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

BOLTZMANN = 1.380649e-16  # erg / K
BOLTZMANN_EV = 8.617333e-5  # eV / K
PLANCK = 6.62607015e-27  # erg s
LIGHT = 2.99792458e10  # cm / s
ATOMIC_MASS = 1.66053907e-24  # g
ELECTRON_MASS = 9.1093837e-28  # g
ALPHA_ELEMENTS = ("O", "Mg", "Si", "S", "Ca", "Ti", "Ne")

# element: log abundance (H = 12), mass [u], first ionisation energy [eV]
_ELEMENTS = {
    "H": (12.00, 1.008, 13.598),
    "He": (10.93, 4.003, 24.587),
    "C": (8.43, 12.011, 11.260),
    "N": (7.83, 14.007, 14.534),
    "O": (8.69, 15.999, 13.618),
    "Ne": (7.93, 20.180, 21.565),
    "Na": (6.24, 22.990, 5.139),
    "Mg": (7.60, 24.305, 7.646),
    "Al": (6.45, 26.982, 5.986),
    "Si": (7.51, 28.086, 8.152),
    "S": (7.12, 32.06, 10.360),
    "K": (5.03, 39.098, 4.341),
    "Ca": (6.34, 40.078, 6.113),
    "Ti": (4.95, 47.867, 6.828),
    "V": (3.93, 50.942, 6.746),
    "Cr": (5.64, 51.996, 6.767),
    "Mn": (5.43, 54.938, 7.434),
    "Fe": (7.50, 55.845, 7.902),
    "Co": (4.99, 58.933, 7.881),
    "Ni": (6.22, 58.693, 7.640),
    "Cu": (4.19, 63.546, 7.726),
}
ELEMENTS = tuple(_ELEMENTS)
MASSES = {name: row[1] for name, row in _ELEMENTS.items()}
IONISATION = {name: row[2] for name, row in _ELEMENTS.items()}
SECOND_IONISATION = {"Ca": 11.872, "Ti": 13.576, "Fe": 16.199}

# log10 of the partition function at theta = 5040 K / T = 0.4, 0.6, ..., 2.0
_THETA = np.arange(0.4, 2.01, 0.2)
_PARTITION = """
H 1 0.303 0.301 0.301 0.301 0.301 0.301 0.301 0.301 0.301
H 2 0 0 0 0 0 0 0 0 0
He 1 0 0 0 0 0 0 0 0 0
He 2 0.301 0.301 0.301 0.301 0.301 0.301 0.301 0.301 0.301
C 1 1.037 0.994 0.975 0.964 0.958 0.954 0.951 0.950 0.948
C 2 0.782 0.775 0.774 0.773 0.772 0.771 0.770 0.769 0.767
N 1 0.729 0.645 0.616 0.606 0.603 0.602 0.602 0.602 0.602
N 2 0.993 0.965 0.953 0.946 0.942 0.939 0.937 0.934 0.932
O 1 0.991 0.964 0.953 0.947 0.944 0.941 0.939 0.937 0.935
O 2 0.655 0.614 0.604 0.602 0.602 0.602 0.602 0.602 0.602
Ne 1 0 0 0 0 0 0 0 0 0
Ne 2 0.766 0.760 0.754 0.748 0.743 0.737 0.732 0.727 0.723
Na 1 1.043 0.493 0.357 0.320 0.309 0.307 0.306 0.306 0.306
Na 2 0 0 0 0 0 0 0 0 0
Mg 1 0.478 0.110 0.027 0.007 0.002 0.001 0.001 0.001 0.000
Mg 2 0.326 0.304 0.301 0.301 0.301 0.301 0.301 0.301 0.301
Al 1 0.973 0.806 0.774 0.768 0.767 0.766 0.764 0.762 0.760
Al 2 0.053 0.006 0 0 0 0 0 0 0
Si 1 1.111 1.030 0.996 0.976 0.961 0.949 0.940 0.932 0.925
Si 2 0.778 0.764 0.759 0.755 0.750 0.746 0.741 0.736 0.731
S 1 1.036 0.990 0.965 0.949 0.937 0.929 0.921 0.915 0.910
S 2 0.792 0.688 0.640 0.618 0.608 0.604 0.603 0.602 0.602
K 1 1.329 0.642 0.429 0.351 0.320 0.308 0.303 0.302 0.302
K 2 0 0 0 0 0 0 0 0 0
Ca 1 1.332 0.465 0.181 0.073 0.028 0.010 0.003 0.001 0.000
Ca 2 0.658 0.483 0.391 0.344 0.320 0.309 0.304 0.302 0.301
Ti 1 2.333 1.818 1.596 1.480 1.411 1.367 1.337 1.316 1.300
Ti 2 1.995 1.872 1.797 1.746 1.708 1.678 1.653 1.632 1.613
V 1 2.408 1.945 1.770 1.681 1.625 1.584 1.552 1.525 1.502
V 2 2.023 1.832 1.720 1.648 1.597 1.560 1.531 1.507 1.487
Cr 1 1.977 1.380 1.141 1.022 0.956 0.917 0.892 0.875 0.865
Cr 2 1.489 1.125 0.944 0.856 0.813 0.793 0.784 0.781 0.780
Mn 1 1.640 1.037 0.865 0.808 0.788 0.781 0.779 0.778 0.778
Mn 2 1.319 1.052 0.940 0.889 0.866 0.855 0.850 0.848 0.848
Fe 1 2.049 1.664 1.519 1.446 1.402 1.372 1.350 1.332 1.317
Fe 2 1.881 1.749 1.682 1.638 1.604 1.575 1.549 1.525 1.504
Co 1 2.012 1.716 1.598 1.529 1.478 1.437 1.402 1.371 1.344
Co 2 1.714 1.606 1.531 1.470 1.418 1.373 1.334 1.300 1.269
Ni 1 1.753 1.577 1.521 1.490 1.467 1.447 1.428 1.410 1.394
Ni 2 1.386 1.215 1.120 1.037 0.988 0.953 0.927 0.908 0.893
Cu 1 0.763 0.536 0.425 0.368 0.337 0.320 0.310 0.305 0.303
Cu 2 0.379 0.140 0.045 0.009 0 0 0 0 0
"""
_TABLE = {
    (element, int(stage)): np.array(values, dtype=float)
    for element, stage, *values in (row.split() for row in _PARTITION.split("\n") if row)
}


def partition_function(element, stage, temperature):
    """Partition function of an atom (``stage=1``) or its first ion (``stage=2``) [dimensionless].

    Linear in 5040 K / T between the entries of Gray (2005); outside 2,520 to 12,600 K the nearest entry holds.
    """
    return 10 ** np.interp(5040.0 / np.asarray(temperature, dtype=float), _THETA, _TABLE[element, stage])


def saha(element, temperature):
    """Ion to atom ratio times the electron pressure, n(II) Pe / n(I), for an element [dyn/cm2]."""
    t = np.asarray(temperature, dtype=float)
    thermal = (2 * np.pi * ELECTRON_MASS * BOLTZMANN * t / PLANCK**2) ** 1.5 * BOLTZMANN * t
    ratio = partition_function(element, 2, t) / partition_function(element, 1, t)
    return 2 * ratio * thermal * np.exp(-IONISATION[element] / (BOLTZMANN_EV * t))


def abundances(M_H=0.0, a_M=0.0, C_M=0.0):
    """Return the number of nuclei per hydrogen nucleus, by element.

    ``M_H`` scales everything heavier than helium, ``a_M`` the alpha elements (O, Ne, Mg, Si, S, Ca, Ti) and ``C_M``
    carbon on top of it [dex].
    """
    result = {}
    for name, (log_n, _, _) in _ELEMENTS.items():
        shift = 0.0 if name in ("H", "He") else M_H
        shift += a_M * (name in ALPHA_ELEMENTS) + C_M * (name == "C")
        result[name] = 10 ** (log_n - 12 + shift)
    return result


def air_to_vacuum(wave):
    """Vacuum wavelength of an air wavelength [both Å] (Morton 2000, ApJS 130, 403, inverse by N. Piskunov)."""
    wave = np.asarray(wave, dtype=float)
    s2 = (1e4 / wave) ** 2
    n = 1 + 8.336624212083e-5 + 2.408926869968e-2 / (130.1065924522 - s2) + 1.599740894897e-4 / (38.92568793293 - s2)
    return wave * n


@dataclass(frozen=True)
class Line:
    """One spectral line.

    Attributes
    ----------
    element : str
        Chemical symbol.
    stage : int
        1 for the atom, 2 for the first ion.
    wave : float
        Vacuum wavelength [Å].
    energy : float
        Excitation energy of the lower level [eV].
    log_gf : float
        log10 of statistical weight times oscillator strength.
    log_damping : float
        log10 of the full width by collisions with hydrogen per atom at 10,000 K [rad cm3 / s].
    damping_alpha : float
        Velocity exponent of that cross section; the width goes as T to the (1 - alpha) / 2.
    """

    element: str
    stage: int
    wave: float
    energy: float
    log_gf: float
    log_damping: float
    damping_alpha: float


def _estimated_damping(element, stage, wave, energy):
    """Unsöld's (1955) van der Waals width, raised by 0.22 dex.

    0.22 dex is the median by which Barklem et al. (2000) exceed this estimate for the 97 lines they share.
    """
    limit = IONISATION[element] if stage == 1 else SECOND_IONISATION[element]
    lower = 2.5 * (13.598 * stage / max(limit - energy, 0.3)) ** 2
    upper = 2.5 * (13.598 * stage / max(limit - energy - 12398.42 / wave, 0.3)) ** 2
    speed = np.sqrt(8 * BOLTZMANN * 1e4 / (np.pi * 1.02 * ATOMIC_MASS))
    return np.log10(17 * (6.46e-34 * abs(upper - lower)) ** 0.4 * speed**0.6) + 0.22


@cache
def read_lines():
    """Return the lines of ``lines.csv``, a tuple of :class:`Line` ordered in wavelength."""
    lines = []
    for row in Path(__file__).with_name("lines.csv").read_text().splitlines():
        if row.startswith("#"):
            continue
        element, stage, air, energy, log_gf, log_damping, alpha = row.split(",")
        wave = float(air_to_vacuum(float(air)))
        energy, stage = float(energy), int(stage)
        if log_damping:
            damping = float(log_damping), float(alpha)
        else:
            damping = float(_estimated_damping(element, stage, wave, energy)), 0.4
        lines.append(Line(element, stage, wave, energy, float(log_gf), *damping))
    return tuple(sorted(lines, key=lambda line: line.wave))

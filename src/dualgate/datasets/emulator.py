"""The emulator: noise-free spectra by interpolation between directly synthesised stars.

log flux = mean + (intercept + coordinates @ slope + kernel(coordinates, centres) @ weights) @ basis. The basis holds
the leading principal components of several thousand direct syntheses. A linear trend in five coordinates of the labels
and a Matern kernel between the synthesised stars (kriging) give the components, both in closed form. The arrays are in
``emulator.npz``, which ``tools/build_emulator.py`` computes from the physics in ``tools/synthesis``.
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files

import numpy as np

WAVE = 7100.2137 + 0.42724609375 * np.arange(4096)  # the pixels [air Å]
LABELS = ("T_eff", "log_g", "M_H", "a_M", "C_M")
LOW = np.array([3750.0, 1.0, -2.5, -0.25, -0.75])
HIGH = np.array([6000.0, 5.0, 0.75, 0.5, 0.5])
_LOG_O_C = 0.26  # log10 of oxygen over carbon in the Sun
FLOATS = ("intercept", "slope", "centres", "lengths", "weights", "mean")
_SPREAD = 0.02  # [dex]
_ROWS = 8  # per step: their intermediate arrays fit in the processor's cache


def carbon_coordinate(a_M, C_M, spread=_SPREAD):
    """Coordinate from oxygen-rich to carbon-rich, the inverse hyperbolic sine of log C / O divided by ``spread`` [dex].

    Carbon monoxide binds the rarer of the two elements, so that bands of TiO and CN change within 0.1 dex about
    C / O = 1: the coordinate is steepest there.
    """
    return np.arcsinh((C_M - a_M - _LOG_O_C) / spread)


def coordinates(labels):
    """Coordinates (n_rows, 5) in which spectra change smoothly, each within -1 to 1, of `LABELS` (n_rows, 5).

    They are proportional to 5040 K / T_eff, log g, [M/H], [alpha/M] and the C / O coordinate.
    """
    T_eff, log_g, M_H, a_M, C_M = np.asarray(labels, dtype=np.float64).T
    raw = np.stack([5040 / T_eff, log_g, M_H, a_M, carbon_coordinate(a_M, C_M)], axis=1)
    low = np.array([5040 / HIGH[0], *LOW[1:4], carbon_coordinate(HIGH[3], LOW[4])])
    high = np.array([5040 / LOW[0], *HIGH[1:4], carbon_coordinate(LOW[3], HIGH[4])])
    return 2 * (raw - low) / (high - low) - 1


def matern(scaled, centres, lengths):
    """Matern 5/2 kernel (n_rows, n_centres) between coordinates of rows and of centres, of correlation `lengths`."""
    a, b = scaled / lengths, centres / lengths
    a_norms, b_norms = (a**2).sum(axis=1), (b**2).sum(axis=1)
    kernel = 2 * a @ b.T
    for start in range(0, len(a), _ROWS):
        rows = kernel[start : start + _ROWS]
        distance = a_norms[start : start + _ROWS, None] + b_norms
        distance -= rows  # |a - b|^2, which rounding may make negative
        distance = np.sqrt(5 * np.abs(distance, out=distance), out=distance)
        np.exp(-distance, out=rows)
        rows *= 1 + distance + distance * distance / 3
    return kernel


@dataclass(frozen=True, eq=False)
class Emulator:
    """A model of log flux, called with labels."""

    intercept: np.ndarray  # (n_components,), where every coordinate is zero
    slope: np.ndarray  # (5, n_components), from coordinates to components
    centres: np.ndarray  # (n_centres, 5), coordinates of the synthesised stars
    lengths: np.ndarray  # (5,), of the kernel
    weights: np.ndarray  # (n_centres, n_components), from kernel values to components
    basis: np.ndarray  # (n_components, n_pixels), float32, from components to log flux
    mean: np.ndarray  # (n_pixels,), float32, of log flux

    def __call__(self, labels):
        """Flux (n_rows, n_pixels), float32, with mean one, of stars with `LABELS` (n_rows, 5)."""
        scaled = coordinates(labels)
        components = self.intercept + scaled @ self.slope + matern(scaled, self.centres, self.lengths) @ self.weights
        flux = components.astype(np.float32) @ self.basis
        for start in range(0, len(flux), _ROWS):
            rows = flux[start : start + _ROWS]
            rows += self.mean
            np.exp(rows, out=rows)
            rows /= rows.mean(axis=1, keepdims=True)
        return flux


@cache
def load_emulator():
    """Return the emulator in ``emulator.npz``: float32 arrays, the basis as 16-bit integers with one scale per row."""
    with as_file(files("dualgate.datasets").joinpath("emulator.npz")) as path, np.load(path) as file:
        stored = {name: file[name] for name in file.files}
    stored["basis"] = stored["basis"].astype(np.float32) * stored.pop("scale")[:, None]
    for name in FLOATS[:-1]:
        stored[name] = stored[name].astype(np.float64)
    return Emulator(**stored)

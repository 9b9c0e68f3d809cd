"""The emulator: spectra of :func:`~dualgate.datasets.synthesis.synthesize` by interpolation in the labels.

log flux = mean + (intercept + coordinates @ slope + kernel(coordinates, centres) @ weights) @ basis. The basis holds
the leading principal components of several thousand direct syntheses. A linear trend in five coordinates of the labels
and a Matern kernel between the synthesised stars (kriging) give the components, both in closed form. Everything is in
``emulator.npz``, which ``tools/build_emulator.py`` regenerates from the physics.
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files

import numpy as np

LABELS = ("T_eff", "log_g", "M_H", "a_M", "C_M")
LOW = np.array([3750.0, 1.0, -2.5, -0.25, -0.75])
HIGH = np.array([6000.0, 5.0, 0.75, 0.5, 0.5])
_LOG_O_C = 0.26  # log10 of oxygen over carbon in the Sun
_FLOATS = ("intercept", "slope", "centres", "lengths", "weights", "mean")
_SPREAD = 0.02  # [dex]
_ROWS = 8  # worked on at a time: they stay in the processor's cache


def carbon_coordinate(a_M, C_M, spread=_SPREAD):
    """Where a star stands between oxygen-rich and carbon-rich.

    Carbon monoxide takes what there is less of, so that bands of TiO and CN change within 0.1 dex about C / O = 1. The
    inverse hyperbolic sine of log C / O spreads that place out, ``spread`` [dex] to either side.
    """
    return np.arcsinh((C_M - a_M - _LOG_O_C) / spread)


def coordinates(labels):
    """Coordinates in which spectra change smoothly, each within -1 to 1.

    Parameters
    ----------
    labels : array-like of shape (n_rows, 5)
        T_eff [K], log g, [M/H], [alpha/M], [C/M].

    Returns
    -------
    coordinates : ndarray of shape (n_rows, 5)
        From 5040 K / T_eff, log g, [M/H], [alpha/M] and the C / O coordinate.
    """
    T_eff, log_g, M_H, a_M, C_M = np.asarray(labels, dtype=np.float64).T
    raw = np.stack([5040 / T_eff, log_g, M_H, a_M, carbon_coordinate(a_M, C_M)], axis=1)
    low = np.array([5040 / HIGH[0], *LOW[1:4], carbon_coordinate(HIGH[3], LOW[4])])
    high = np.array([5040 / LOW[0], *HIGH[1:4], carbon_coordinate(LOW[3], HIGH[4])])
    return 2 * (raw - low) / (high - low) - 1


def matern(scaled, centres, lengths):
    """Matern 5/2 kernel between rows of coordinates.

    Parameters
    ----------
    scaled : ndarray of shape (n_rows, n_labels)
        Where to evaluate.
    centres : ndarray of shape (n_centres, n_labels)
        The synthesised stars.
    lengths : ndarray of shape (n_labels,)
        Correlation length of each coordinate.

    Returns
    -------
    kernel : ndarray of shape (n_rows, n_centres)
        1 where a row is at a centre.
    """
    a, b = scaled / lengths, centres / lengths
    squares = (a**2).sum(axis=1)[:, None], (b**2).sum(axis=1)
    kernel = 2 * a @ b.T
    scratch = np.empty((2, min(_ROWS, len(a)), len(b)))
    for start in range(0, len(a), _ROWS):
        rows = slice(start, start + _ROWS)
        product = kernel[rows]
        distance, term = scratch[:, : len(product)]
        # (1 + distance + distance^2 / 3) exp(-distance), distance^2 = 5 |a - b|^2
        np.add(squares[0][rows], squares[1], out=distance)
        distance -= product
        np.abs(distance, out=distance)  # rounding may leave less than nothing
        distance *= 5
        np.sqrt(distance, out=distance)
        np.multiply(distance, distance, out=term)
        term /= 3
        np.add(1, distance, out=product)
        product += term
        np.negative(distance, out=distance)
        product *= np.exp(distance, out=distance)
    return kernel


@dataclass(frozen=True, eq=False)
class Emulator:
    """A model of log flux; call it with labels.

    Attributes
    ----------
    intercept : ndarray of shape (n_components,)
        Components where every coordinate is zero.
    slope : ndarray of shape (5, n_components)
        From coordinates to components.
    centres : ndarray of shape (n_centres, 5)
        Coordinates of the synthesised stars.
    lengths : ndarray of shape (5,)
        Correlation lengths of the kernel.
    weights : ndarray of shape (n_centres, n_components)
        From kernel values to components.
    basis : ndarray of shape (n_components, n_pixels), float32
        From components to log flux.
    mean : ndarray of shape (n_pixels,), float32
        Mean log flux.
    """

    intercept: np.ndarray
    slope: np.ndarray
    centres: np.ndarray
    lengths: np.ndarray
    weights: np.ndarray
    basis: np.ndarray
    mean: np.ndarray

    def __call__(self, labels):
        """Flux of stars, mean one over the band.

        Parameters
        ----------
        labels : array-like of shape (n_rows, 5)
            T_eff [K], log g, [M/H], [alpha/M], [C/M].

        Returns
        -------
        flux : ndarray of shape (n_rows, n_pixels), float32
        """
        scaled = coordinates(labels)
        components = self.intercept + scaled @ self.slope + matern(scaled, self.centres, self.lengths) @ self.weights
        flux = components.astype(np.float32) @ self.basis
        for start in range(0, len(flux), _ROWS):
            rows = flux[start : start + _ROWS]
            rows += self.mean
            np.exp(rows, out=rows)
            rows /= rows.mean(axis=1, keepdims=True)
        return flux


def save_emulator(path, emulator):
    """Write an emulator, its basis as 16-bit integers with one scale per component."""
    scale = np.abs(emulator.basis).max(axis=1) / 32767
    arrays = {name: getattr(emulator, name).astype(np.float32) for name in _FLOATS}
    np.savez_compressed(
        path,
        **arrays,
        basis=np.round(emulator.basis / scale[:, None]).astype(np.int16),
        scale=scale.astype(np.float32),
    )


@cache
def load_emulator():
    """Return the emulator that comes with the package."""
    with as_file(files("dualgate.datasets").joinpath("emulator.npz")) as path, np.load(path) as file:
        stored = {name: file[name] for name in file.files}
    stored["basis"] = stored["basis"].astype(np.float32) * stored.pop("scale")[:, None]
    for name in _FLOATS[:-1]:
        stored[name] = stored[name].astype(np.float64)
    return Emulator(**stored)

"""Wavelengths: in air and in vacuum, at rest and shifted, the grids that rows share."""

import numpy as np

from dualgate.datasets.faults import LIGHT_SPEED

UNITS = {"angstrom": 1.0, "nm": 10.0, "um": 1e4, "m": 1e10}  # [angstrom]
_SAME = 0.01  # of a pixel, by which two wavelengths may differ and still be one pixel


def _index(wave):
    """Refractive index of standard air at wavelengths in vacuum."""
    square = (1e4 / wave) ** 2  # wave number, [1/um^2]
    return 1 + 0.05792105 / (238.0185 - square) + 0.00167917 / (57.362 - square)


def _check(owner, wave):
    wave = np.asarray(wave, dtype=np.float64)
    if wave.size and not np.min(wave) >= 2000:
        raise ValueError(f"{owner}.wave has {np.min(wave):g}: air and vacuum are told apart from 2000 angstrom on.")
    return wave


def to_air(wave):
    """Convert wavelengths in vacuum to wavelengths in standard air.

    Parameters
    ----------
    wave : array-like, [angstrom]
        At least 2000.

    Returns
    -------
    wave : ndarray, [angstrom]

    References
    ----------
    Ciddor 1996, Applied Optics 35, 1566.

    Examples
    --------
    >>> float(to_air(8544.438).round(2))
    8542.09
    """
    wave = _check("to_air", wave)
    return wave / _index(wave)


def to_vacuum(wave):
    """Convert wavelengths in standard air to wavelengths in vacuum, the inverse of :func:`to_air`.

    Parameters
    ----------
    wave : array-like, [angstrom]
        At least 2000.

    Returns
    -------
    wave : ndarray, [angstrom]
    """
    wave = _check("to_vacuum", wave)
    vacuum = wave
    for _ in range(4):  # the index changes so slowly that each step wins four digits
        vacuum = wave * _index(vacuum)
    return vacuum


def stretch_of(owner, redshift, velocity):
    """Return 1 + z of a redshift or of a velocity [km/s], a number or one per row; None where neither is given."""
    if redshift is None and velocity is None:
        return None
    if redshift is not None and velocity is not None:
        raise ValueError(f"{owner}: give redshift or velocity, not both.")
    name, value = ("redshift", redshift) if velocity is None else ("velocity", velocity)
    value = np.asarray(value, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        beta = value / LIGHT_SPEED
        stretch = 1 + value if velocity is None else np.sqrt((1 + beta) / (1 - beta))
    wrong = ~(np.isfinite(stretch) & (stretch > 0))
    if value.ndim > 1 or wrong.any():
        raise ValueError(
            f"{owner}.{name} of shape {value.shape} has {wrong.sum():,} values that are no {name}: it must be one "
            "number, or one for each row. Leave out rows without one."
        )
    return stretch


def union_of(owner, waves):
    """Return the grid (n_pixels,) that holds every one of `waves`, increasing, and their places in it.

    Raise a ValueError where they are not pieces of one grid.
    """
    values = np.sort(np.concatenate(waves))
    step = min(np.diff(wave).min() for wave in waves)
    grid = values[np.r_[True, np.diff(values) > _SAME * step]]
    if len(grid) > 1 and np.diff(grid).min() < (1 - 2 * _SAME) * step:
        raise ValueError(
            f"{owner} has spectra on different wavelength grids: these are not pieces of one. Give the grid that all "
            "are resampled to by to=."
        )
    return grid, [np.searchsorted(grid, wave - _SAME * step) for wave in waves]

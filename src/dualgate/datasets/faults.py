"""Faults of real spectra for the simulator: each one changes rows in place and has a random stream for every row.

A fault acts on the spectrum of the star before there is noise, on the noise in units of its error, or on the measured
spectrum. `FAULTS` lists them in the order in which they act.
"""

import numbers
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.polynomial.legendre import legval
from scipy.constants import speed_of_light
from scipy.ndimage import map_coordinates

from dualgate._validation import check_number
from dualgate.datasets.emulator import HIGH, LABELS, LOW, WAVE, load_emulator

LIGHT_SPEED = speed_of_light / 1e3  # [km/s]
POSITION = np.linspace(-1, 1, len(WAVE))  # of a pixel in the band
CONTINUUM_TERMS = 4  # Legendre polynomials of a cubic
_LOWEST_RESPONSE = 0.05  # a calibration is above zero, however wide its polynomials


def moving_average(rho1, rho2):
    """Coefficients (3,) of the filter that gives white noise these autocorrelations and keeps its variance.

    They solve b0^2 + b1^2 + b2^2 = 1, b1 (b0 + b2) = rho1 and b0 b2 = rho2; None where no filter does.
    """
    root = (1 + 2 * rho2) ** 2 - 4 * rho1**2
    square = (1 + 2 * rho2 + np.sqrt(max(root, 0))) / 2  # (b0 + b2)^2, the larger solution
    if root < 0 or 1 + 2 * rho2 < 0 or square < 4 * rho2:
        return None
    total, difference = np.sqrt(square), np.sqrt(square - 4 * rho2)
    return np.array([(total + difference) / 2, rho1 / total if total else 0.0, (total - difference) / 2])


def _number(owner, name, value, **bounds):
    return float(check_number(owner, name, value, **bounds))


def _range(owner, name, value, **bounds):
    """Lower and upper limit: of a number twice the number."""
    pair = value if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"{owner}.{name}={value!r} must be one number or a pair, the lowest and the highest.")
    low = check_number(owner, name, pair[0], **bounds)
    high = check_number(owner, name, pair[1], **{**bounds, "low": low})
    return float(low), float(high)


def _count_and_size(owner, name, value):
    count, size = value if isinstance(value, (tuple, list)) and len(value) == 2 else (value, 30.0)
    check_number(owner, name, count, kind=numbers.Integral, low=0, high=len(WAVE), hint="or a pair, (10, 30.0).")
    return int(count), _number(owner, name, size, low=-1e6, high=1e6)


def _correlations(owner, name, value):
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(f"{owner}.{name}={value!r} must be two numbers, the correlations at 1 and at 2 pixels.")
    pair = tuple(_number(owner, name, each, low=-1, high=1) for each in value)
    if moving_average(*pair) is None:
        raise ValueError(
            f"{owner}.{name}={value!r} must be correlations that noise can have: 1 + 2 rho1 cos(x) + 2 rho2 "
            "cos(2 x) is at least 0 for every x. Try (0.2, 0.05)."
        )
    return pair


def _companion(share, streams, flux, *_):
    labels = LOW + np.array([stream.random(len(LABELS)) for stream in streams]) * (HIGH - LOW)
    flux += np.float32(share) * (load_emulator()(labels) - flux)


def velocities(limits, streams):
    """Radial velocity of every row [km/s], positive away from the observer."""
    return np.array([stream.uniform(*limits) for stream in streams])


def _velocity(limits, streams, flux, *_):
    ratio = velocities(limits, streams) / LIGHT_SPEED
    emitted = WAVE / np.sqrt((1 + ratio) / (1 - ratio))[:, None]
    _resample(flux, (emitted - WAVE[0]) / (WAVE[1] - WAVE[0]))


def _shift(pixels, streams, flux, *_):
    _resample(flux, np.tile(np.arange(len(WAVE)) - pixels, (len(flux), 1)))


def _resample(flux, sources):
    """Read every row by cubic splines at fractional pixels (n_rows, n_pixels), beyond an end the pixel at the end."""
    for row, source in zip(flux, sources, strict=True):
        row[:] = map_coordinates(row, source[None], order=3, mode="nearest")


def _correlate(correlations, streams, noise, *_):
    weights = moving_average(*correlations).astype(np.float32)
    white = np.hstack([noise, [stream.standard_normal(2, dtype=np.float32) for stream in streams]])
    noise[:] = weights[0] * white[:, :-2] + weights[1] * white[:, 1:-1] + weights[2] * white[:, 2:]


def _calibrate(response, flux, error):
    response = np.maximum(response, _LOWEST_RESPONSE).astype(np.float32)
    flux *= response
    error *= response


def _scale(size, streams, flux, error, _):
    _calibrate(1 + size, flux, error)


def _tilt(size, streams, flux, error, _):
    signs = np.array([[2 * stream.integers(2) - 1] for stream in streams])
    _calibrate(1 + size * signs * POSITION, flux, error)


def _continuum(width, streams, flux, error, _):
    terms = width * np.array([stream.standard_normal(CONTINUUM_TERMS) for stream in streams])
    _calibrate(1 + legval(POSITION, terms.T), flux, error)


def _sky(share, streams, flux, error, sky):
    sizes = np.array([[stream.standard_normal()] for stream in streams])
    flux += (share * sizes).astype(np.float32) * sky


def _cosmic_rays(rays, streams, flux, error, _):
    count, size = rays
    for stream, row, sigma in zip(streams, flux, error, strict=True):
        hit = stream.choice(len(row), count, replace=False)
        row[hit] += np.float32(size) * sigma[hit]


def _errors(limits, streams, flux, error, _):
    error *= np.array([[np.exp(stream.uniform(*np.log(limits)))] for stream in streams]).astype(np.float32)


def _errors_by_wavelength(size, streams, flux, error, _):
    error *= np.exp(size * np.sin(np.pi * POSITION)).astype(np.float32)


def _bad_pixels(share, streams, flux, error, _):
    for stream, row, sigma in zip(streams, flux, error, strict=True):
        bad = stream.choice(len(row), round(share * len(row)), replace=False)
        row[bad], sigma[bad] = np.nan, np.inf


@dataclass(frozen=True)
class Fault:
    """One fault: what it acts on, "star", "noise" or "measurement"; check of its value; change of the rows."""

    stage: str
    check: Callable  # (owner, name, value) -> value
    apply: Callable  # (value, generator of every row, flux, error, sky), arrays (n_rows, n_pixels) changed in place


FAULTS = {
    "companion": Fault("star", partial(_number, low=0, high=1), _companion),
    "velocity": Fault("star", partial(_range, low=-10_000, high=10_000), _velocity),
    "shift": Fault("star", partial(_number, low=-len(WAVE), high=len(WAVE)), _shift),
    "correlation": Fault("noise", _correlations, _correlate),
    "scale": Fault("measurement", partial(_number, low=-0.95, high=1e6), _scale),
    "tilt": Fault("measurement", partial(_number, low=-0.95, high=0.95), _tilt),
    "continuum": Fault("measurement", partial(_number, low=0, high=1), _continuum),
    "sky": Fault("measurement", partial(_number, low=0, high=1), _sky),
    "cosmic_rays": Fault("measurement", _count_and_size, _cosmic_rays),
    "errors": Fault("measurement", partial(_range, low=1e-6, high=1e6), _errors),
    "errors_by_wavelength": Fault("measurement", partial(_number, low=-5, high=5), _errors_by_wavelength),
    "bad_pixels": Fault("measurement", partial(_number, low=0, high=0.99), _bad_pixels),
}


def check_faults(owner, faults):
    """Return the checked values by name, in the order in which the faults act."""
    if faults is not None and not isinstance(faults, dict):
        raise ValueError(f"{owner}.faults={faults!r} must be a dictionary, such as {{'tilt': 0.05}}.")
    faults = faults or {}
    unknown = [name for name in faults if name not in FAULTS]
    if unknown:
        raise ValueError(
            f"{owner}.faults names {', '.join(map(repr, unknown))}: the faults are {', '.join(map(repr, FAULTS))}."
        )
    return {
        name: fault.check(owner, f"faults[{name!r}]", faults[name]) for name, fault in FAULTS.items() if name in faults
    }

"""Noise of twelve exposures of 900 s with the medium-resolution arm of the Subaru Prime Focus Spectrograph.

A compact model of the instrument's published exposure-time calculator (Hirata et al. 2012, arXiv:1204.5151; Yabe et al.
2017), fitted to its predictions at six seeing values from 0.5 to 1.5 arcsec. Per pixel and exposure the variance is

    71 + 1.176 sky + (0.0226 sky)^2 + object       [electrons^2],

from read-out and dark current, photons of the sky within the extraction, residuals of the sky subtraction, and photons
of the star. Sky lines: Hanuschik 2003, A&A 407, 1157. Telluric absorption: Hinkle et al. 2003.
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from dualgate.datasets.emulator import WAVE

N_EXPOSURES = 12
READOUT, SKY_PHOTONS, SKY_RESIDUAL = 71.0, 1.176, 5.1e-4
SEEING_RANGE = (0.9, 1.1)  # [arcsec]
# seeing [arcsec]; light in the fibre and brightness of the sky, relative to 1.0 arcsec
_SEEING = (0.5, 0.7, 0.8, 1.0, 1.2, 1.5)
_LIGHT = (2.391, 1.644, 1.212, 1.000, 0.657, 0.391)
_SKY = (1.214, 1.076, 0.987, 1.000, 0.940, 0.906)
_THROUGHPUT_WAVE = np.arange(7100.0, 8851.0, 175.0)  # [Å]
_THROUGHPUT = (0.2415, 0.2500, 0.2442, 0.2528, 0.2432, 0.2435, 0.2366, 0.2322, 0.2191, 0.2132, 0.2072)
_MIDDLE = 7975.0  # [Å]
_ROWS = 8  # per step: their intermediate arrays fit in the processor's cache


def _rows(name):
    text = files("dualgate.datasets").joinpath(name).read_text()
    return [row.split(",") for row in text.splitlines() if not row.startswith("#")]


@dataclass(frozen=True, eq=False)
class Detector:
    """Electrons per pixel in 900 s at a seeing of 1 arcsec, arrays of shape (n_pixels,), float32."""

    sky: np.ndarray  # electrons from the sky
    light: np.ndarray  # electrons from a star of magnitude 20 per unit of flux, after absorption by the atmosphere
    transmission: np.ndarray  # of the atmosphere, 0 to 1


@cache
def detector():
    """Return the detector on the pixels of the data set."""
    throughput = np.interp(WAVE, _THROUGHPUT_WAVE, _THROUGHPUT)
    lines = np.array(_rows("sky_lines.csv"), dtype=float)
    sigma = 1.3 / np.sqrt(8 * np.log(2))  # [Å]
    emission = np.zeros_like(WAVE)
    for wave, intensity in lines:
        near = np.abs(WAVE - wave) < 8 * sigma
        profile = np.exp(-0.5 * ((WAVE[near] - wave) / sigma) ** 2)
        emission[near] += intensity * profile / (sigma * np.sqrt(2 * np.pi))
    sky = throughput * (5900.0 * emission + 385.0 + 54.0 * (WAVE - _MIDDLE) / 875.0)
    transmission = np.ones_like(WAVE)
    for first, run in _rows("telluric.csv"):
        percent = np.array(run.split(), dtype=float)
        grid = float(first) + np.arange(len(percent))
        inside = (grid[0] <= WAVE) & (grid[-1] >= WAVE)
        transmission[inside] = np.interp(WAVE[inside], grid, percent / 100)
    # an AB magnitude is a constant flux per frequency; unit flux per wavelength is (wave / middle)^2 of that
    light = 447.9 * throughput * transmission * (WAVE / _MIDDLE) ** (2 - 0.595)
    return Detector(*(array.astype(np.float32) for array in (sky, light, transmission)))


def conditions_of_night(uniform):
    """Light and sky brightness (n_rows,) relative to a clear night of 1 arcsec seeing.

    Of the `uniform` random numbers (n_rows, 2) the first gives the seeing, uniform in 0.9 to 1.1 arcsec, and the second
    the transparency, 1 - 0.9 u^6: a mostly clear sky with some cloud.
    """
    seeing = SEEING_RANGE[0] + (SEEING_RANGE[1] - SEEING_RANGE[0]) * uniform[:, 0]
    light = np.exp(np.interp(seeing, _SEEING, np.log(_LIGHT))) * (1 - 0.9 * uniform[:, 1] ** 6)
    return light, np.interp(seeing, _SEEING, _SKY)


def flux_error(clean, mag, light, sky, out=None):
    """Return the standard deviation of the calibrated flux (n_rows, n_pixels), float32, in units of its mean.

    From noise-free flux `clean` (n_rows, n_pixels) with mean one, AB magnitudes `mag` (n_rows,), and `light` and `sky`
    (n_rows,) of :func:`conditions_of_night`. It is written into `out` if that is given.
    """
    chip = detector()
    out = np.empty(clean.shape, dtype=np.float32) if out is None else out
    brightness = (light * 10 ** (-0.4 * (np.asarray(mag) - 20))).astype(np.float32)[:, None]
    sky = np.asarray(sky, dtype=np.float32)[:, None]
    photons, residual = np.float32(SKY_PHOTONS) * sky, np.float32(SKY_RESIDUAL) * sky * sky
    square = chip.sky * chip.sky
    for start in range(0, len(clean), _ROWS):
        rows = slice(start, start + _ROWS)
        electrons = chip.light * brightness[rows]
        variance = electrons * clean[rows] + chip.sky * photons[rows] + square * residual[rows] + np.float32(READOUT)
        np.divide(np.sqrt(variance), electrons * np.float32(np.sqrt(N_EXPOSURES)), out=out[rows])
    return out


def sky_flux(mag, light, sky):
    """Light of the sky (n_rows, n_pixels), float32, in units of the star's mean flux.

    The arguments are those of :func:`flux_error`. The sky is calibrated as the star is, so that it is bright where the
    atmosphere absorbs.
    """
    chip = detector()
    brightness = light * 10 ** (-0.4 * (np.asarray(mag) - 20))
    return chip.sky / chip.light * (sky / brightness).astype(np.float32)[:, None]

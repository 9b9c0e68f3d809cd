"""Simulated stellar spectra with their errors, any row of an endless table: in memory, in blocks or as a row source."""

import numbers
import zlib

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from dualgate._validation import check_choice, check_number, make_generator
from dualgate.datasets.emulator import HIGH, LABELS, LOW, WAVE, load_emulator
from dualgate.datasets.faults import FAULTS, check_faults, velocities
from dualgate.datasets.noise import conditions_of_night, flux_error, sky_flux
from dualgate.rows import RowSource, in_threads
from dualgate.snr import signal_to_noise

REGIME_EDGES = ((4500.0, 5250.0), (-1.0, 0.0))  # of T_eff [K] and of [M/H]
MAG_RANGE = (20.5, 22.5)
WHITE_ERROR = 0.35  # of the mean flux
_LOW = np.array([*LOW, MAG_RANGE[0]])
_SPAN = np.array([*(HIGH - LOW), MAG_RANGE[1] - MAG_RANGE[0]])
_WORD = 2**64 - 1
_TILE = 128  # rows that are always computed together, so that no bit depends on the caller's block size

_DESCRIPTION = """\
Simulated stellar spectra for the regression of surface gravity
---------------------------------------------------------------

Rows        {n_samples} stars, from row {start} of the table with the seed {seed}. Row i of the table depends on the
            seed and on i alone.
X           ({n_samples}, 8192), float32: flux of 4,096 pixels, then its standard deviation at noise level 1.
            The unit is the star's own mean noise-free flux, known from its magnitude.
y           log10 of the surface gravity [cm/s2], 1 to 5.
wave        pixel centres, air wavelength [angstrom], 7100.2 to 8849.8; resolution R = 5,000.
labels      T_eff 3750 to 6000 K, log_g 1 to 5, M_H -2.5 to 0.75, a_M -0.25 to 0.5, C_M -0.75 to 0.5 [dex] and
            mag 20.5 to 22.5, independent and uniform; snr = ||flux|| / ||error||.
regimes     0 to 8, 3 * (T_eff bin, edges 4500 and 5250 K) + ([M/H] bin, edges -1 and 0).
Noise       {noise!r} at level {noise_level:g}. "sky": lines of the night sky, photons and read-out of twelve
            exposures of 900 s with the medium-resolution arm of the Subaru PFS; "white": the same error everywhere.
Faults      {faults}
Physics     LTE line formation (Saha, Boltzmann), H- continuum, Voigt profiles with van der Waals damping, bands of CN
            and TiO, hydrostatic plane-parallel atmospheres; evaluated by an emulator of the direct synthesis.
Left out    departures from LTE, Paschen lines, FeH, water, rotation, extinction. Velocity and binaries are faults.
"""


def check_noise(owner, noise_level, random_state):
    """Return the noise level as a float, and the seed: an int as it is, else what `make_generator` draws."""
    check_number(owner, "noise_level", noise_level, low=0, high=1e6, hint="0 gives noise-free flux. Try 1.0.")
    if isinstance(random_state, numbers.Integral) and not isinstance(random_state, bool):
        seed = check_number(owner, "random_state", random_state, low=0, high=2**63 - 1)
    else:
        seed = make_generator(owner, random_state).integers(2**63)
    return float(noise_level), int(seed)


def generator_of_rows(seed):
    """Return a function from row i to ``Philox(key=seed, counter=i << 64)``, one generator that it sets to each row."""
    bits = np.random.Philox(key=seed)
    generator = np.random.Generator(bits)
    state = bits.state
    state["buffer"] = [0] * 4
    words = state["state"] = {"key": state["state"]["key"].tolist()}

    def at_row(row):
        words["counter"] = [0, row & _WORD, row >> 64 & _WORD, row >> 128]
        bits.state = state
        return generator

    return at_row


def labelled_spectra(X, labels, wave):
    """Bunch of the fields that follow from spectra and from the frame of their labels."""
    conditions = labels[["T_eff", "M_H"]].to_numpy(dtype=np.float64)
    hot, rich = (np.digitize(values, edges) for values, edges in zip(conditions.T, REGIME_EDGES, strict=True))
    return Bunch(
        X=X,
        y=labels["log_g"].to_numpy(dtype=np.float64, copy=True),
        wave=wave,
        conditions=conditions,
        regimes=3 * hot + rich,
        regime_edges=REGIME_EDGES,
        labels=labels,
    )


class SimulatedSpectra(RowSource):
    """Rows of an endless table of simulated spectra, [flux | error], each simulated when it is read.

    Returned by :func:`stream_spectra`. Row i of the table is a function of the seed and of i: it has the same bits in
    blocks of any size and in any order. A pickle holds the parameters; each process loads the emulator.

    Attributes
    ----------
    start : int
        First row of the table in this source.
    seed : int
        Seed of the table.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, owner, n_samples, random_state, noise_level, noise, start, faults):
        check_number(owner, "n_samples", n_samples, kind=numbers.Integral, low=1, hint="try 1000.")
        check_number(owner, "start", start, kind=numbers.Integral, low=0, hint="try 0.")
        self.noise = check_choice(owner, "noise", noise, ("sky", "white"))
        self.noise_level, self.seed = check_noise(owner, noise_level, random_state)
        self.faults = check_faults(owner, faults)
        self.start = int(start)  # Python's integers do not overflow
        self.shape = (int(n_samples), 2 * len(WAVE))

    def describe(self):
        """Bunch of this source and of everything that follows from the labels of its rows."""
        at_row = generator_of_rows(self.seed)
        uniform = np.empty((len(self), len(_LOW)))
        for row, numbers_of_row in enumerate(uniform, self.start):
            at_row(row).random(out=numbers_of_row)
        labels = pd.DataFrame(_LOW + uniform * _SPAN, columns=[*LABELS, "mag"])
        if "velocity" in self.faults:
            labels["velocity"] = velocities(self.faults["velocity"], self._streams("velocity", self.start, len(self)))
        data = labelled_spectra(self, labels, WAVE.copy())
        data.description = _DESCRIPTION.format(n_samples=len(self), **{**vars(self), "faults": self.faults or "none"})
        return data

    def _streams(self, name, start, n_rows):
        """Return the generators of a fault, one for each row; the upper word of their key is 0 for stars."""
        key = self.seed + (zlib.crc32(name.encode()) << 64)
        return map(generator_of_rows(key), range(start, start + n_rows))

    def _add_faults(self, stage, start, flux, error=None, sky=None):
        """Change the rows from `start` on in place by the faults of a stage."""
        for name, value in self.faults.items():
            if FAULTS[name].stage == stage:
                FAULTS[name].apply(value, self._streams(name, start, len(flux)), flux, error, sky)

    def read(self, start, stop):  # noqa: D102
        out = np.empty((stop - start, self.shape[1]), self.dtype)
        self.read_into(start, stop, out)
        return out

    def read_into(self, start, stop, out):  # noqa: D102
        start, stop = self.start + int(start), self.start + int(stop)
        at_row = generator_of_rows(self.seed)
        uniform = np.empty((_TILE, len(_LOW) + 2))
        for tile in range(start - start % _TILE, stop, _TILE):
            here = slice(max(start - tile, 0), min(stop - tile, _TILE))
            flux, error = np.hsplit(out[tile + here.start - start : tile + here.stop - start], 2)
            for row in range(_TILE):
                generator = at_row(tile + row)
                generator.random(out=uniform[row])
                if self.noise_level > 0 and here.start <= row < here.stop:
                    generator.standard_normal(out=flux[row - here.start], dtype=np.float32)
            stars = _LOW + uniform[:, : len(_LOW)] * _SPAN
            clean = load_emulator()(stars[:, : len(LABELS)])
            self._add_faults("star", tile, clean)
            clean, mag = clean[here], stars[here, len(LABELS)]
            light, sky = conditions_of_night(uniform[here, len(_LOW) :])
            if self.noise == "white":
                error[:] = WHITE_ERROR
            else:
                flux_error(clean, mag, light, sky, out=error)
            if self.noise_level == 0:
                flux[:] = clean
            else:
                self._add_faults("noise", tile + here.start, flux)
                flux *= error
                flux *= np.float32(self.noise_level)
                flux += clean
            if self.faults:
                self._add_faults("measurement", tile + here.start, flux, error, sky_flux(mag, light, sky))


def make_spectra(n_samples=1000, *, random_state=None, noise_level=1.0, noise="sky", start=0, faults=None, n_jobs=-1):
    """Make a set of simulated stellar spectra with known errors, for the regression of surface gravity.

    Stars of the cool half of the main sequence and of the giant branch (and of the gaps between, as in a grid of
    models), observed at magnitude 20.5 to 22.5 by a fibre spectrograph on an eight-metre telescope. The noise-free
    spectra are those of an emulator of LTE line formation.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of rows, at least 1. A row takes 32 kB.
    random_state : int, RandomState, Generator or None, default=None
        An int is the seed of the table whose rows these are: the first rows of a long set are the rows of a short one.
        A generator gives the seed by one draw; None is new every time. The global generator of numpy is not used.
    noise_level : float, default=1.0
        Factor on the noise in the flux, at least 0. Flux is clean + error * N(0, 1) * noise_level and is not clipped.
        ``noise_level=0`` gives the clean flux of the same stars; ``error`` is that of level 1 in every case.
    noise : {"sky", "white"}, default="sky"
        "sky" follows sky lines, photons and read-out, seeing and cloud. "white" gives every pixel of every row the same
        error, 0.35 of the mean flux, so that the errors carry no information.
    start : int, default=0
        First row of the table, for a further set from the same one, or for the next block of a long one.
    faults : dict or None, default=None
        Faults of real spectra by name, with their size. They act in the order of this table, whose first four concern
        the star or the noise and whose others the measured spectrum. Each fault of a row depends on the seed, the row
        and the fault alone, so that stars, noise and the other faults are those of the same rows without it. Labels
        and ``y`` stay those of the (first) star.

        ======================  =======================================================================================
        "companion"             share of the light (0 to 1) from a second star with labels drawn like those of the first
        "velocity"              radial velocity [km/s], positive away from the observer, or the limits of a uniform
                                distribution, with the relativistic Doppler formula; ``labels.velocity`` has it
        "shift"                 shift of the star's spectrum towards longer wavelengths [pixels], any fraction; the sky
                                stays, and pixels from beyond the band repeat the pixel at its end
        "correlation"           (rho1, rho2), correlation of the noise of pixels that are 1 and 2 apart; its variance
                                stays
        "scale"                 flux and error times 1 + scale: calibration acts on both alike
        "tilt"                  flux and error times 1 + tilt * u or 1 - tilt * u, at random; u is -1 to 1 in the band
        "continuum"             flux and error times 1 + sum_j c_j P_j(u), Legendre polynomials of degree 0 to 3 with
                                coefficients of this standard deviation (at least 0.05)
        "sky"                   N(0, 1) times this share of the sky's light is left in the flux
        "cosmic_rays"           number of pixels that are raised by 30 errors, or (number, errors)
        "errors"                factor between stated and true errors, or the limits of a log-uniform distribution; the
                                noise in the flux keeps the true ones
        "errors_by_wavelength"  stated errors times exp(size * sin(pi u)), the same in every row
        "bad_pixels"            share of the pixels that have flux NaN and infinite error; ``snr`` is without them
        ======================  =======================================================================================
    n_jobs : int or None, default=-1
        Threads; -1 is one per core. Rows do not depend on it.

    Returns
    -------
    data : Bunch
        X : ndarray of shape (n_samples, 8192), float32
            [flux | error], in units of the star's mean noise-free flux.
        y : ndarray of shape (n_samples,)
            log10 of the surface gravity [cm/s2].
        flux, error : ndarray of shape (n_samples, 4096)
            Views of X.
        wave : ndarray of shape (4096,)
            Pixel centres [air Å].
        conditions : ndarray of shape (n_samples, 2)
            T_eff [K] and [M/H] [dex].
        regimes, regime_edges : ndarray of shape (n_samples,), int, and tuple
            0 to 8, three bins of T_eff times three of [M/H], T_eff major; edges of these bins.
        snr : ndarray of shape (n_samples,)
            ||flux|| / ||error||; about 28, 42, 26 and 4 % of rows are in the bins up to 2, 2 to 4, 4 to 7, and above.
        labels : DataFrame
            T_eff, log_g, M_H, a_M, C_M, mag, snr, and velocity where `faults` names it. Uniform and independent, in the
            ranges of ``description``.
        feature_names : list of str
            Names of the columns of X, such as "flux_7100.2".
        description : str
            What the set is.

    Raises
    ------
    ValueError
        If an argument is out of range; the message names it.

    See Also
    --------
    stream_spectra : The same rows, simulated when they are read, for sets that do not fit in memory.

    References
    ----------
    Hirata et al. 2012, arXiv:1204.5151 (noise). Hanuschik 2003, A&A 407, 1157 (sky lines). Barklem et al. 2000, A&AS
    142, 467 (damping). Asplund et al. 2009, ARA&A 47, 481 (abundances). John 1988, A&A 193, 189 (H- opacity).

    Examples
    --------
    >>> from dualgate.datasets import make_spectra
    >>> data = make_spectra(4, random_state=0)
    >>> data.X.shape, data.flux.base is data.X
    ((4, 8192), True)
    >>> clean = make_spectra(4, random_state=0, noise_level=0)
    >>> bool((clean.error == data.error).all())
    True
    """
    source = SimulatedSpectra("make_spectra", n_samples, random_state, noise_level, noise, start, faults)
    X = np.empty(source.shape, source.dtype)
    flux, error = np.hsplit(X, 2)

    def fill(start, stop):
        source.read_into(start, stop, X[start:stop])
        parts = flux[start:stop], error[start:stop]
        if "bad_pixels" in source.faults:
            good = np.isfinite(parts[1])
            parts = (np.where(good, part, 0) for part in parts)
        return signal_to_noise(*parts)

    load_emulator()  # once, before the threads start
    snr = in_threads(fill, len(X), n_jobs)
    names = [f"{kind}_{wave:.1f}" for kind in ("flux", "error") for wave in WAVE]
    data = source.describe()
    data.labels["snr"] = snr
    data.update(X=X, flux=flux, error=error, snr=snr, feature_names=names)
    return data


def stream_spectra(n_samples, *, random_state=None, noise_level=1.0, noise="sky", start=0, faults=None):
    """Simulate the rows of :func:`make_spectra` when they are read, for sets that fit neither in memory nor on disk.

    Rows take no memory, but a row is simulated each time it is read.

    Parameters
    ----------
    n_samples, random_state, noise_level, noise, start, faults
        As in :func:`make_spectra`.

    Returns
    -------
    data : Bunch
        X : SimulatedSpectra of shape (n_samples, 8192), float32
            [flux | error], bit for bit those of :func:`make_spectra`. The seed is kept as ``X.seed``.
        y, wave, conditions, regimes, regime_edges, labels, description
            As in :func:`make_spectra`, but ``labels`` lacks snr, which would need the spectra.

    Examples
    --------
    >>> from dualgate.datasets import make_spectra, stream_spectra
    >>> data = stream_spectra(1000, random_state=0)
    >>> data.X
    SimulatedSpectra(1,000 rows x 8,192 columns, float32)
    >>> bool((data.X.read(998, 1000) == make_spectra(2, random_state=0, start=998).X).all())
    True
    """
    return SimulatedSpectra("stream_spectra", n_samples, random_state, noise_level, noise, start, faults).describe()

"""Measured spectra from survey files, Parquet, specutils objects and tables of arrays, as rows [flux | error]."""

import os
from collections.abc import Mapping
from threading import Lock

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from dualgate._validation import check_choice
from dualgate.datasets.arms import ERROR_KINDS, NOT_STATED, join_arms, native
from dualgate.datasets.containers import read_columns, read_objects, read_parquet
from dualgate.datasets.joining import join_spectra
from dualgate.datasets.layouts import read_fits
from dualgate.datasets.resampling import check_grid, possible, resample
from dualgate.datasets.wavelengths import UNITS, stretch_of, to_air, to_vacuum
from dualgate.rows import RowSource

CONVERT = {"air": to_air, "vacuum": to_vacuum}
PER = {"wavelength": 2, "frequency": -2}  # power of (PIVOT / wavelength) by which flux density becomes this
KEPT_BYTES = 1 << 28  # of rows of files that are kept in memory
PIVOT = 8000.0  # [angstrom], where the conversion changes nothing
CHOICES = {
    "uncertainty": ERROR_KINDS, "wave_unit": UNITS, "medium": CONVERT, "convert_to": CONVERT, "flux_per": PER,
}  # fmt: skip


class SurveyFiles(RowSource):
    """Rows [flux | error] of many survey files, of which those read last are kept, up to 256 MB.

    Returned by :func:`read_spectra` for a list of paths. A file that is missing or damaged raises an OSError that names
    it.

    Attributes
    ----------
    files : list of str
    """

    dtype = np.dtype(np.float32)

    def __init__(self, files, counts, n_pixels, options):
        self.files, self.options, self.ends = files, options, np.cumsum(counts)
        self.shape = int(self.ends[-1]), 2 * n_pixels
        self._kept, self._lock = {}, Lock()

    def __getstate__(self):
        return {**vars(self), "_kept": {}, "_lock": None}

    def __setstate__(self, state):
        vars(self).update(state, _lock=Lock())

    def read(self, start, stop):  # noqa: D102
        block = np.empty((stop - start, self.shape[1]), self.dtype)
        done = 0
        while done < len(block):
            which = int(np.searchsorted(self.ends, start + done, side="right"))
            begin = int(self.ends[which - 1]) if which else 0
            part = self._rows(which)[start + done - begin : stop - begin]
            block[done : done + len(part)] = part
            done += len(part)
        return block

    def _rows(self, which):
        with self._lock:  # one thread reads, the others find what it has read
            if which not in self._kept:
                begin = int(self.ends[which - 1]) if which else 0
                X = _read_one(self.files[which], self.options).X
                if X.shape != (self.ends[which] - begin, self.shape[1]):
                    raise ValueError(f"{self.files[which]!r} has changed since it was opened: call read_spectra again.")
                if X.nbytes + sum(each.nbytes for each in self._kept.values()) > KEPT_BYTES:
                    self._kept.clear()
                self._kept[which] = X
            return self._kept[which]


def read_spectra(
    source, *, arm=None, bad_bits=None, uncertainty=None, wave=None, wave_unit=None, medium=None, convert_to=None,
    flux_per=None, redshift=None, velocity=None, to=None,
):  # fmt: skip
    """Read measured spectra: PFS, DESI and SDSS-V files, Parquet, specutils objects, NDData, tables of arrays.

    FITS files are told by the names of their HDUs and need ``pip install "dualgate[astro]"``: PFS pfsCoadd,
    pfsCalibrated, pfsObject and pfsSingle; DESI coadd; SDSS-V mwmStar, mwmVisit, apStar and spec. A pixel is masked
    where a bad bit is set, where flux is not finite, and where the error is not finite and above zero. Nothing is
    converted unless an argument asks for it; `provenance` states what was taken.

    Parameters
    ----------
    source : path, HDUList, object, table, or list of paths
        A FITS or Parquet file; an object with `flux`, `spectral_axis`, `uncertainty` and `mask` as specutils has them,
        or a list of such (two-dimensional ones are arms, others rows); NDData with ``wave=``; a dict, DataFrame or
        structured array whose columns flux, error (or variance, ivar), wave and mask hold arrays or lists. A list of
        paths gives a row source, of which each file is read once here and again whenever its rows are needed.
    arm : None or str, default=None
        Arm of DESI ("B", "R", "Z"; None joins all) or instrument of SDSS-V ("BOSS", "APOGEE").
    bad_bits : None, "any", or sequence of str or int, default=None
        Names or numbers of mask bits that make a pixel bad; () is none. None is BAD, CR, SAT and NO_DATA for PFS, what
        the pipeline takes for bad for APOGEE, any bit otherwise.
    uncertainty : None or {"error", "variance", "ivar"}, default=None
        The column of errors in a table, or what an NDData without a kind of its own holds. None is the first there is.
    wave : None or array-like of shape (n_pixels,), default=None
        Wavelengths of an object or table that has none.
    wave_unit : None or {"angstrom", "nm", "um", "m"}, default=None
        Of wavelengths without a unit, in tables, Parquet and `wave`; None is angstrom.
    medium : None or {"air", "vacuum"}, default=None
        What the wavelengths are measured in, if the file does not state it or is wrong.
    convert_to : None or {"air", "vacuum"}, default=None
        Convert wavelengths. The embedded data (:func:`make_spectra`) are in air, the surveys in vacuum.
    flux_per : None or {"wavelength", "frequency"}, default=None
        Convert flux density, times (8000 angstrom / wavelength) squared or its inverse. PFS is per frequency, the
        embedded data, DESI and SDSS-V are per wavelength.
    redshift, velocity : None, float, str or array-like of shape (n_samples,), default=None, [dimensionless], [km/s]
        Moves spectra to the rest frame; a name is a column of the table. One number shifts `wave`; one for each row
        resamples every row, onto `to` or the grid of the file.
    to : None or array-like of shape (n_to,), default=None, [angstrom]
        Grid that spectra are resampled to (:func:`resample`), in the medium and frame that result.

    Returns
    -------
    data : Bunch
        X : ndarray or SurveyFiles of shape (n_samples, 2 * n_pixels)
            [flux | error]; NaN and infinite where masked.
        flux, error, mask : ndarray of shape (n_samples, n_pixels)
            As measured; True is masked. Not there for a list of paths.
        wave : ndarray of shape (n_pixels,), [angstrom]
            Increasing.
        ids : ndarray of shape (n_samples,)
            objId, TARGETID, sdss_id; else the row number.
        table : DataFrame of n_samples rows
            What the file holds about each object.
        correlation : None or ndarray of shape (2,)
            Mean correlation of the noise one and two pixels apart, from COVAR or resampling; None is not known. For
            ``Nuisances(correlation=...)``.
        provenance : dict
            format, files, flux_unit, flux_per, wave_unit (in the file), medium, frame, uncertainty, bad_bits, masked
            (share of pixels), resampled.

    Raises
    ------
    ImportError
        If astropy or pyarrow is needed and not installed.
    OSError
        If a file is truncated or damaged; the message names the file and the HDU.
    ValueError
        If an HDU or column is missing, lengths differ, a mask bit is unknown, rows have different grids and `to` is
        None, or a conversion is asked for that `provenance` does not allow.
    TypeError
        If `source` is none of these.

    Examples
    --------
    >>> import numpy as np
    >>> from dualgate.datasets import read_spectra
    >>> table = {"flux": [[1.0, 2.0, 3.0]], "ivar": [[4.0, 0.0, -1.0]], "wave": [500.0, 501.0, 502.0], "mag": [21.0]}
    >>> data = read_spectra(table, wave_unit="nm", medium="air")
    >>> data.X
    array([[1. , nan, nan, 0.5, inf, inf]])
    >>> data.wave, list(data.table)
    (array([5000., 5010., 5020.]), ['mag'])
    """
    options = {
        "arm": arm, "bad_bits": bad_bits, "uncertainty": uncertainty, "wave": wave, "wave_unit": wave_unit,
        "medium": medium, "convert_to": convert_to, "flux_per": flux_per, "redshift": redshift, "velocity": velocity,
        "to": to,
    }  # fmt: skip
    for name, choices in CHOICES.items():
        if options[name] is not None:
            check_choice("read_spectra", name, options[name], choices)
    if isinstance(source, (list, tuple)) and source and all(isinstance(each, (str, os.PathLike)) for each in source):
        return _open_files([os.path.abspath(path) for path in source], options)
    return _read_one(source, options)


def _open_files(files, options):
    """Read the tables and grids of files, whose rows become a source."""
    first, counts, tables, ids, masked = None, [], [], [], []
    for path in files:
        data = _read_one(path, options)
        first = first or data
        if data.wave.shape != first.wave.shape or not np.allclose(data.wave, first.wave, rtol=1e-7, atol=0):
            raise ValueError(
                f"{path!r} has another wavelength grid, {len(data.wave):,} pixels from {data.wave[0]:.3f}, than "
                f"{files[0]!r}, {len(first.wave):,} from {first.wave[0]:.3f}: give the grid of all by to=."
            )
        counts.append(len(data.ids))
        tables.append(data.table.assign(file=path))
        ids.append(data.ids)
        masked.append(data.provenance["masked"])
    masked = float(np.average(masked, weights=counts))
    return Bunch(
        X=SurveyFiles(files, counts, len(first.wave), options), wave=first.wave, ids=np.concatenate(ids),
        table=pd.concat(tables, ignore_index=True), correlation=first.correlation,
        provenance={**first.provenance, "files": files, "masked": masked},
    )  # fmt: skip


def _read_one(source, options):
    """Read one file or object."""
    owner, files = type(source).__name__, []
    if isinstance(source, (str, os.PathLike)):
        owner, files = repr(str(source)), [os.path.abspath(source)]
    arms, ids, table, facts = _take(source, owner, options)
    facts["files"] = files
    if options["medium"] is not None:
        facts["medium"] = options["medium"]
    return _finish(owner, join_arms(arms, owner), ids, table, facts, options)


def _take(source, owner, options):
    """Read arms, ids, table and facts of whatever kind of source it is."""
    if isinstance(source, (str, os.PathLike)):
        if not str(source).lower().endswith((".parquet", ".pq")):
            return read_fits(source, options["arm"], options["bad_bits"])
        return read_columns(read_parquet(source), owner, options, "Parquet")
    if hasattr(source, "filename") and isinstance(source, list):
        return read_fits(source, options["arm"], options["bad_bits"])
    if hasattr(source, "uncertainty"):
        return read_objects([source], owner, options)
    if isinstance(source, (list, tuple)) and source and all(hasattr(each, "uncertainty") for each in source):
        return read_objects(list(source), owner, options)
    names = getattr(getattr(source, "dtype", None), "names", None) or getattr(source, "colnames", None)
    if isinstance(source, Mapping) or hasattr(source, "columns") or names:
        columns = {name: source[name] for name in (names or getattr(source, "columns", source))}
        return read_columns(columns, owner, options, "table of arrays")
    raise TypeError(
        f"read_spectra.source is a {type(source).__name__}: it must be the path of a FITS or Parquet file, a list of "
        "paths, an object with flux and uncertainty as in specutils, or a table with the columns flux, error and wave."
    )


def _finish(owner, arm, ids, table, facts, options):
    """Convert, shift and resample what was read as far as the options ask, and put it together."""
    stretch = _check_frame(owner, table, facts, options)
    convert = options["convert_to"]
    if convert is not None and facts["medium"] == NOT_STATED:
        raise ValueError(f"read_spectra.convert_to={convert!r}: {owner} does not state air or vacuum; give medium.")
    to = None if options["to"] is None else check_grid("read_spectra", "to", options["to"])
    if arm.ragged and to is None:
        raise ValueError(
            f"{owner} has spectra on different wavelength grids: give the grid that all are resampled to by to=."
        )
    waves = arm.wave if arm.ragged else [arm.wave]
    _convert_flux(owner, arm, waves, facts, options["flux_per"])
    if convert not in (None, facts["medium"]):
        waves = [CONVERT[convert](each) for each in waves]
        facts["medium"] = f"{convert}, converted from {facts['medium']}"
    by_row, wave = arm.ragged or np.ndim(stretch) == 1, waves[0]
    if stretch is not None:
        waves = waves if arm.ragged or not by_row else waves * len(arm.flux)
        waves = [each / ratio for each, ratio in zip(waves, np.broadcast_to(stretch, len(waves)), strict=True)]
    wave = to if to is not None else wave if by_row else waves[0]
    correlation, resampled = facts.pop("correlation", None), None
    dtype = np.result_type(*{each.dtype for each in arm.flux}, np.float32)
    if to is not None or by_row:
        correlation = None if correlation is None else possible(correlation)
        new = [
            resample(arm.flux[i], np.sqrt(arm.variance[i]), each, wave, mask=arm.bad[i], correlation=correlation)
            for i, each in (enumerate(waves) if by_row else [(slice(None), waves[0])])
        ]
        flux, error, mask = (np.concatenate([part[name] for part in new]) for name in ("flux", "error", "mask"))
        correlation = np.mean([part.correlation for part in new], axis=0)
        resampled = f"to {len(wave):,} pixels from {wave[0]:g} to {wave[-1]:g} angstrom"
    else:
        flux, error = arm.flux, np.sqrt(arm.variance)
        mask = arm.bad | ~np.isfinite(flux) | ~np.isfinite(error)
    flux, error = flux.astype(dtype, copy=False), error.astype(dtype)
    return Bunch(
        X=join_spectra(flux, error, mask), flux=flux, error=error, mask=mask, wave=wave, ids=native(ids),
        table=table, correlation=correlation,
        provenance={**facts, "masked": float(mask.mean()), "resampled": resampled},
    )  # fmt: skip


def _convert_flux(owner, arm, waves, facts, per):
    """Make flux density one per wavelength or per frequency, in place."""
    if per in (None, facts["flux_per"]):
        return
    if facts["flux_per"] not in PER:
        raise ValueError(f"read_spectra.flux_per={per!r}: {owner} does not state what its flux density is per.")
    factors = [(PIVOT / each) ** PER[per] for each in waves]
    if arm.ragged:
        arm.flux = [(flux * factor).astype(flux.dtype) for flux, factor in zip(arm.flux, factors, strict=True)]
        arm.variance = [variance * factor**2 for variance, factor in zip(arm.variance, factors, strict=True)]
    else:
        arm.flux, arm.variance = (arm.flux * factors[0]).astype(arm.flux.dtype), arm.variance * factors[0] ** 2
    facts["flux_unit"] += f" x ({PIVOT:g} angstrom / wavelength)^{PER[per]}"
    facts["flux_per"] = f"{per}, converted from {facts['flux_per']}"


def _check_frame(owner, table, facts, options):
    """Return 1 + z, a number or one for each row, and state the frame that results; None where none was asked for."""
    given = {}
    for name in ("redshift", "velocity"):
        value = options[name]
        if isinstance(value, str):
            if value not in table:
                raise ValueError(f"read_spectra.{name}={value!r}: {owner} has the columns {', '.join(table)}.")
            value = table[value].to_numpy(np.float64)
        given[name] = value
    stretch = stretch_of("read_spectra", **given)
    if stretch is None:
        return None
    if facts["frame"].startswith("rest"):
        raise ValueError(f"read_spectra: {owner} is at rest already ({facts['frame']}); leave redshift and velocity.")
    if stretch.ndim and len(stretch) != len(table):
        raise ValueError(
            f"read_spectra: {len(stretch)} redshifts or velocities for the {len(table)} rows of {owner}. For a list of "
            "paths give one number or the name of a column."
        )
    facts["frame"] = f"rest, by the {'redshift' if given['velocity'] is None else 'velocity'} given"
    return stretch

"""Measured spectra from survey files, Parquet, specutils objects and tables of arrays, as rows [flux | error]."""

import os
from collections.abc import Mapping
from threading import Lock

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from dualgate._validation import check_choice
from dualgate.datasets.arms import ERROR_KINDS, NOT_STATED, bad_pixels, facts_of, join_arms, make_arm, native, rows_of
from dualgate.datasets.joining import join_spectra
from dualgate.datasets.layouts import read_fits
from dualgate.datasets.resampling import check_grid, possible, resample
from dualgate.datasets.wavelengths import UNITS, stretch_of, to_air, to_vacuum
from dualgate.rows import RowSource

COLUMNS = {  # names of columns in tables, the first that is there is read
    "flux": ("flux",),
    "error": ("error", "err", "e_flux", "sigma", "std"),
    "variance": ("variance", "var"),
    "ivar": ("ivar", "inverse_variance"),
    "wave": ("wave", "wavelength", "lambda", "loglam"),
    "mask": ("mask", "pixel_flags", "and_mask"),
    "ids": ("ids", "id", "object_id", "sdss_id", "targetid", "objid"),
}
CONVERT = {"air": to_air, "vacuum": to_vacuum}
PER = {"wavelength": 2, "frequency": -2}  # power of (PIVOT / wavelength) by which flux density becomes this
PIVOT = 8000.0  # [angstrom], where the conversion changes nothing
CHOICES = {
    "uncertainty": ERROR_KINDS, "wave_unit": UNITS, "medium": CONVERT, "convert_to": CONVERT, "flux_per": PER,
}  # fmt: skip


class SurveyFiles(RowSource):
    """Rows [flux | error] of many survey files, of which the last one that was read is kept.

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
        self._last, self._lock = (None, None), Lock()

    def __getstate__(self):
        return {**vars(self), "_last": (None, None), "_lock": None}

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
            if self._last[0] != which:
                begin = int(self.ends[which - 1]) if which else 0
                X = _read_one(self.files[which], self.options).X
                if X.shape != (self.ends[which] - begin, self.shape[1]):
                    raise ValueError(f"{self.files[which]!r} has changed since it was opened: call read_spectra again.")
                self._last = which, X
            return self._last[1]


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
        return _from_columns(_read_parquet(source), owner, options, "Parquet")
    if hasattr(source, "filename") and isinstance(source, list):
        return read_fits(source, options["arm"], options["bad_bits"])
    if hasattr(source, "uncertainty"):
        return _from_objects([source], owner, options)
    if isinstance(source, (list, tuple)) and source and all(hasattr(each, "uncertainty") for each in source):
        return _from_objects(list(source), owner, options)
    names = getattr(getattr(source, "dtype", None), "names", None) or getattr(source, "colnames", None)
    if isinstance(source, Mapping) or hasattr(source, "columns") or names:
        columns = {name: source[name] for name in (names or list(source))}
        return _from_columns(columns, owner, options, "table of arrays")
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


# ---- objects and tables --------------------------------------------------------------------------------------------


def _from_objects(objects, owner, options):
    """Spectra of specutils, or NDData: flux or data, uncertainty, mask and a spectral axis with a unit."""
    bands = [str((getattr(each, "meta", None) or {}).get("band", i)).upper() for i, each in enumerate(objects)]
    if options["arm"] is not None:
        objects = [each for each, band in zip(objects, bands, strict=True) if band == options["arm"].upper()]
        if not objects:
            raise ValueError(f"read_spectra.arm={options['arm']!r}: the {owner} has the arms {', '.join(bands)}.")
    arms, units, kind = [], set(), None
    for each in objects:
        flux = getattr(each, "flux", None)
        unit = getattr(each, "unit", None) if flux is None else getattr(flux, "unit", None)
        flux = np.asarray(each.data if flux is None else getattr(flux, "value", flux))
        axis = getattr(each, "spectral_axis", None)
        if axis is None or options["wave"] is not None:
            wave = _given_wave(owner, options)
        else:
            wave = np.asarray(axis.to_value("Angstrom"))
        kind = getattr(each.uncertainty, "uncertainty_type", None)
        kind = {"std": "error", "var": "variance"}.get(kind, kind) or "none"
        kind = (options["uncertainty"] or kind) if kind in ("unknown", "none") else kind
        if each.uncertainty is None or kind not in ERROR_KINDS:
            raise ValueError(
                f"{owner} has an uncertainty of the kind {kind!r}: spectra need StdDevUncertainty, VarianceUncertainty "
                "or InverseVariance."
            )
        power = {"error": 1, "variance": 2, "ivar": -2}[kind]
        quantity = each.uncertainty.quantity if each.uncertainty.unit is not None and unit is not None else None
        errors = np.asarray(each.uncertainty.array if quantity is None else quantity.to_value(unit**power))
        mask = getattr(each, "mask", None)
        mask = np.zeros(flux.shape, dtype=bool) if mask is None else np.broadcast_to(mask, flux.shape)
        bad = bad_pixels(owner, mask, options["bad_bits"], "any")
        arms.append(make_arm(owner, wave, flux, errors, kind, np.atleast_2d(bad)))
        units.add(NOT_STATED if unit is None else str(unit))
    if len(units) > 1:
        raise ValueError(f"{owner} has spectra in the units {', '.join(sorted(units))}: convert them to one.")
    if len(arms) > 1 and all(len(arm.flux) == 1 for arm in arms):  # rows, not arms
        parts = [[getattr(arm, name)[0] for arm in arms] for name in ("flux", "variance", "bad")]
        arms = [make_arm(owner, [arm.wave for arm in arms], *parts[:2], "variance", parts[2])]
    n_rows = len(arms[0].flux)
    facts = facts_of(owner, kind, options["bad_bits"], flux_unit=str(unit or NOT_STATED), flux_per=_per(unit))
    return arms, np.arange(n_rows), pd.DataFrame(index=range(n_rows)), facts


def _per(unit):
    """Tell what flux density in a unit of astropy is per."""
    known = {"frequency": "Jy", "wavelength": "erg / (s cm2 Angstrom)"} if unit is not None else {}
    return next((per for per, like in known.items() if unit.is_equivalent(like)), NOT_STATED)


def _given_wave(owner, options):
    if options["wave"] is None:
        raise ValueError(f"{owner} has no wavelengths: give those of its pixels by wave=.")
    return np.asarray(options["wave"], dtype=np.float64) * UNITS[options["wave_unit"] or "angstrom"]


def _read_parquet(path):
    """Columns of a Parquet file, those of structures by their own names: flux of spectrum.flux."""
    try:
        from pyarrow.parquet import read_table
    except ImportError as error:
        raise ImportError(f'read_spectra needs pyarrow for Parquet ({error}): "dualgate[parquet]".') from error
    if not os.path.isfile(path):
        raise FileNotFoundError(f"read_spectra.source={str(path)!r} is no file.")
    try:
        table = read_table(path).flatten()
    except (OSError, ValueError) as problem:
        raise OSError(f"{str(path)!r} is no whole Parquet file ({problem}). Restore it, or leave it out.") from problem
    return {
        name.rpartition(".")[2]: column.to_numpy()
        for name, column in zip(table.column_names, table.columns, strict=True)
    }


def _from_columns(columns, owner, options, form):
    """Spectra of a table: columns of arrays by name, all others the table of what is known of each."""
    found = {}
    for kind, aliases in COLUMNS.items():
        names = [name for alias in aliases for name in columns if str(name).lower() == alias]
        found.update({kind: names[0]} if names else {})
    kinds = [kind for kind in ERROR_KINDS if kind in found and options["uncertainty"] in (None, kind)]
    if "flux" not in found or not kinds:
        raise ValueError(
            f"{owner} has the columns {', '.join(map(str, columns))}: flux and {options['uncertainty'] or 'error'} (or "
            "variance, ivar) are needed."
        )
    kind = kinds[0]
    flux, errors = _cells(columns[found["flux"]]), _cells(columns[found[kind]])
    if "wave" in found and options["wave"] is None:
        wave, unit = columns[found["wave"]], UNITS[options["wave_unit"] or "angstrom"]
        wave = np.asarray(wave, dtype=np.float64) if np.ndim(wave[0]) == 0 else _cells(wave)
        log = str(found["wave"]).lower() == "loglam"
        scale = (lambda values: 10 ** values.astype(np.float64)) if log else (lambda values: unit * values)
        wave = [scale(row) for row in wave] if isinstance(wave, list) else scale(wave)
    else:
        wave = _given_wave(owner, options)
    bad = None
    if "mask" in found:
        mask = _cells(columns[found["mask"]])
        bad = [bad_pixels(owner, row, options["bad_bits"], "any") for row in mask]
    arm = make_arm(f"{owner}, columns {', '.join(map(str, found.values()))}", wave, flux, errors, kind, bad)
    used = {found[name] for name in found if name != "ids"}
    rest = {str(name): values for name, values in columns.items() if name not in used and len(values) == len(flux)}
    rest = {name: native(values) for name, values in rest.items() if all(np.ndim(value) == 0 for value in values)}
    table = pd.DataFrame(rest, index=range(len(flux)))
    ids = np.asarray(columns[found["ids"]]) if "ids" in found else np.arange(len(flux))
    facts = facts_of(form, kind, options["bad_bits"], wave_unit=options["wave_unit"] or "angstrom, taken")
    return [arm], ids, table, facts


def _cells(column):
    """Rows of a column of arrays or lists; a column of numbers is one row."""
    return rows_of(column if isinstance(column, np.ndarray) else list(column))

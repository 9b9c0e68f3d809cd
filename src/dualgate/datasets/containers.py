"""Spectra in memory and in Parquet: objects like those of specutils, NDData, tables whose cells hold arrays."""

import os

import numpy as np
import pandas as pd

from dualgate.datasets.arms import ERROR_KINDS, NOT_STATED, bad_pixels, facts_of, make_arm, native, rows_of
from dualgate.datasets.wavelengths import UNITS

COLUMNS = {  # names of columns in tables, the first that is there is read
    "flux": ("flux",),
    "error": ("error", "err", "e_flux", "sigma", "std"),
    "variance": ("variance", "var"),
    "ivar": ("ivar", "inverse_variance"),
    "wave": ("wave", "wavelength", "lambda", "loglam"),
    "mask": ("mask", "pixel_flags", "and_mask"),
    "ids": ("ids", "id", "object_id", "sdss_id", "targetid", "objid"),
}


def read_objects(objects, owner, options):
    """Read spectra of specutils, or NDData: flux or data, uncertainty, mask and a spectral axis with a unit."""
    bands = [str((getattr(each, "meta", None) or {}).get("band", i)).upper() for i, each in enumerate(objects)]
    if options["arm"] is not None:
        objects = [each for each, band in zip(objects, bands, strict=True) if band == options["arm"].upper()]
        if not objects:
            raise ValueError(f"read_spectra.arm={options['arm']!r}: the {owner} has the arms {', '.join(bands)}.")
    arms, units, flat = [], set(), True
    for each in objects:
        flux = getattr(each, "flux", None)
        unit = getattr(each, "unit", None) if flux is None else getattr(flux, "unit", None)
        flux = np.asarray(each.data if flux is None else getattr(flux, "value", flux))
        flat = flat and flux.ndim == 1
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
    if len(arms) > 1 and flat:  # rows, not arms
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


def read_parquet(path):
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


def read_columns(columns, owner, options, form):
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

"""Survey files in FITS, read by the names of their HDUs: Subaru PFS, DESI, SDSS-V.

A layout returns arms, identifiers, a table of one row for each spectrum, and what the survey's data model states.
astropy is imported when a file is read.
"""

import re
import warnings
from contextlib import contextmanager

import numpy as np
import pandas as pd

from dualgate.datasets.arms import bad_pixels, facts_of, make_arm, native, rows_of
from dualgate.datasets.wavelengths import UNITS

PFS_BAD = ("BAD", "CR", "SAT", "NO_DATA")  # the survey's tutorials mask the first three
APOGEE_BITS = {name: bit for bit, name in enumerate((
    "BADPIX", "CRPIX", "SATPIX", "UNFIXABLE", "BADDARK", "BADFLAT", "BADERR", "NOSKY", "LITTROW_GHOST", "PERSIST_HIGH",
    "PERSIST_MED", "PERSIST_LOW", "SIG_SKYLINE", "SIG_TELLURIC", "NOT_ENOUGH_PSF",
))}  # fmt: skip
APOGEE_BAD = (*list(APOGEE_BITS)[:8], "NOT_ENOUGH_PSF")  # those that the pipeline itself takes for bad
CGS_VACUUM = {"flux_unit": "1e-17 erg / (s cm2 angstrom)", "flux_per": "wavelength", "medium": "vacuum"}
SDSS_FRAME = "rest, by the survey's velocity"


class FitsFile:
    """HDUs of a file by name; what is wrong with one names the file and the HDU."""

    def __init__(self, path, hdus):
        self.path, self.hdus = path, hdus
        self.names = [hdu.name for hdu in hdus]

    def __getitem__(self, name):
        if name not in self.names:
            raise ValueError(
                f"{self.path!r} has no HDU {name!r}: it has {', '.join(filter(None, self.names))}. The file is "
                "incomplete or of another data model than its other HDUs tell."
            )
        return self.hdus[self.names.index(name)]

    @contextmanager
    def reading(self, name):
        """Name the file and the HDU in what astropy raises."""
        try:
            yield
        except (OSError, TypeError, KeyError, IndexError, AttributeError) as problem:
            raise OSError(
                f"{self.path!r} cannot be read at HDU {name!r} ({type(problem).__name__}: {problem}): it is truncated, "
                "damaged or of another data model. Restore the file, or leave it out."
            ) from problem

    def values(self, name):
        """Array of an image, rows of a table with the one column `value`."""
        hdu = self[name]
        with self.reading(name):
            return list(hdu.data["value"]) if hasattr(hdu, "columns") else native(hdu.data)

    def table(self, name):
        """Columns of a table that hold one number or one text a row."""
        hdu = self[name]
        with self.reading(name):
            columns = {column: _plain(hdu.data[column]) for column in hdu.columns.names}
        return pd.DataFrame({column: values for column, values in columns.items() if values is not None})


def _plain(values):
    """Numbers, or texts; None for a column of arrays."""
    if values.dtype == object:  # of variable length: characters one by one, or numbers
        texts = [np.asarray(value) for value in values]
        return [text_of(value) for value in texts] if all(text.dtype.kind in "SU" for text in texts) else None
    return None if values.ndim > 1 else native(values).astype(str) if values.dtype.kind in "SU" else native(values)


def text_of(characters):
    """Text whose characters are an array; a plain array keeps the line ends, which astropy's strips."""
    return np.asarray(characters).view(np.ndarray).astype("S1").tobytes().decode()


@contextmanager
def open_fits(source):
    """Open a file, or take an HDUList, as a FitsFile; a truncated one is an error."""
    try:
        from astropy.io import fits
    except ImportError as error:
        raise ImportError(f'read_spectra needs astropy for FITS ({error}): pip install "dualgate[astro]".') from error
    if isinstance(source, fits.HDUList):
        yield FitsFile(source.filename() or "HDUList", source)
        return
    path = str(source)
    with open(source, "rb") as stream:  # closed here whatever astropy raises
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", "File may have been truncated")
                hdus = fits.open(stream, memmap=False, lazy_load_hdus=False)
        except (OSError, UserWarning) as problem:
            raise OSError(f"{path!r} is no whole FITS file ({problem}). Restore it, or leave it out.") from problem
        yield FitsFile(path, hdus)


def read_fits(source, arm=None, bad_bits=None):
    """Read a FITS file or an HDUList: (arms, ids, table, facts)."""
    with open_fits(source) as file:
        if any(name.endswith("_FLUX") for name in file.names) or "FIBERMAP" in file.names:
            return _read_desi(file, arm, bad_bits)
        if "FLUX" in file.names or "COVAR" in file.names:
            return _read_pfs(file, arm, bad_bits)
        if any("flux" in _columns(hdu) for hdu in file.hdus):
            return _read_sdss_tables(file, arm, bad_bits)
        if len(file.hdus) > 3 and str(file.hdus[1].header.get("BUNIT")).startswith("Flux"):
            return _read_apstar(file, arm, bad_bits)
        raise ValueError(
            f"{file.path!r} has the HDUs {', '.join(filter(None, file.names))}: they are not those of PFS (FLUX, "
            "COVAR), DESI (B_FLUX, FIBERMAP), SDSS-V mwmStar or spec (a table with a column flux) or apStar. Read it "
            "by other means and pass arrays or a specutils object."
        )


def _no_arms(file, arm):
    if arm is not None:
        raise ValueError(f"read_spectra.arm={arm!r}: the arms in {file.path!r} are merged; leave arm None.")


# ---- PFS -----------------------------------------------------------------------------------------------------------


def _read_pfs(file, arm, bad_bits):
    _no_arms(file, arm)
    many = "METADATA" in file.names or "TARGETFLUX" in file.names  # pfsCoadd, pfsCalibrated; else pfsObject, pfsSingle
    flux, mask, target = rows_of(file.values("FLUX")), rows_of(file.values("MASK")), file["TARGET"]
    covariance = _pfs_covariance(file, many)
    if many:
        table, wave = file.table("TARGET"), file.values("WAVELENGTH")
        with file.reading("METADATA"):
            names = [
                {name: int(bit) for name, bit in re.findall(r"^MP_(\w+): (\d+)", text_of(each), re.MULTILINE)}
                for each in file["METADATA"].data["metadata"]
            ]
    else:
        table = pd.DataFrame([{key: target.header.get(key.upper()) for key in
                               ("catId", "tract", "patch", "objId", "ra", "dec", "targetType")}])  # fmt: skip
        wave = file.values("WAVELENGTH") if "WAVELENGTH" in file.names else _pfs_wave(file)
        header = file["MASK"].header
        names = [{key.removeprefix("MP_"): bit for key, bit in header.items() if key.startswith("MP_")}]
    if not len(flux) == len(mask) == len(names) == len(table) == len(covariance[0]):
        raise ValueError(
            f"{file.path!r} has {len(flux)} rows in FLUX, {len(mask)} in MASK, {len(covariance[0])} in COVAR, "
            f"{len(table)} in TARGET, {len(names)} in METADATA: they must be as many."
        )
    bad = [
        bad_pixels(f"{file.path!r}, HDU MASK", row, bad_bits, PFS_BAD, name)
        for row, name in zip(mask, names, strict=True)
    ]
    nm = UNITS["nm"]
    waves = nm * wave if isinstance(wave, np.ndarray) else [nm * row for row in wave]
    found = make_arm(f"{file.path!r}, HDUs WAVELENGTH, FLUX, COVAR, MASK", waves, flux, covariance[0], "variance", bad)
    facts = facts_of(
        "PFS pfsCoadd or pfsCalibrated" if many else "PFS pfsObject or pfsSingle", "variance, row 0 of COVAR", bad_bits,
        PFS_BAD, flux_unit="nJy", flux_per="frequency", wave_unit="nm", medium="vacuum", frame="barycentric",
        correlation=_pfs_correlation(covariance, bad),
    )  # fmt: skip
    return [found], table["objId"].to_numpy(), table, facts


def _pfs_covariance(file, many):
    """Variance and covariance with the next pixel and the one after, rows of each."""
    hdu = file["COVAR"]
    with file.reading("COVAR"):
        if hasattr(hdu, "columns"):
            return [rows_of(list(hdu.data[f"row_{k}"])) for k in range(3)]
        data = native(hdu.data) if many else native(hdu.data)[None]  # (n_rows, 3, n_pixels)
        return [data[:, k] for k in range(3)]


def _pfs_wave(file):
    """Wavelengths [nm] by the header, whose first pixel is number 2, as the survey writes and reads it."""
    header, n_pixels = file["FLUX"].header, len(file.values("FLUX"))
    with file.reading("FLUX"):
        scale = UNITS[header.get("CUNIT1", "nm").strip().lower()] / UNITS["nm"]
        if header["CTYPE1"].strip() != "WAVE":
            raise ValueError(f"{file.path!r}, HDU FLUX has CTYPE1={header['CTYPE1']!r}: it must be WAVE.")
        return scale * (header["CRVAL1"] + (np.arange(n_pixels) + 2 - header["CRPIX1"]) * header["CDELT1"])


def _pfs_correlation(covariance, bad):
    """Mean correlations (2,) of pixels one and two apart, over good pixels of all rows."""
    found = []
    for lag in (1, 2):
        parts = []
        for variance, between, wrong in zip(covariance[0], covariance[lag], bad, strict=True):
            square = np.where(wrong, 0, variance).astype(np.float64)
            square = square[:-lag] * square[lag:]
            seen = (square > 0) & np.isfinite(square) & np.isfinite(between[:-lag])
            parts.append(between[:-lag][seen] / np.sqrt(square[seen]))
        parts = np.concatenate(parts)
        found.append(parts.mean() if len(parts) else 0.0)
    return np.array(found)


# ---- DESI ----------------------------------------------------------------------------------------------------------


def _read_desi(file, arm, bad_bits):
    found = [name.removesuffix("_FLUX") for name in file.names if name.endswith("_FLUX")]
    if arm is not None and arm.upper() not in found:
        raise ValueError(f"read_spectra.arm={arm!r}: {file.path!r} has the arms {', '.join(found)}.")
    table, arms = file.table("FIBERMAP"), []
    for each in found if arm is None else [arm.upper()]:
        owner = f"{file.path!r}, HDUs {each}_WAVELENGTH, {each}_FLUX, {each}_IVAR, {each}_MASK"
        mask = bad_pixels(owner, file.values(f"{each}_MASK"), bad_bits, "any")
        arrays = [file.values(f"{each}_{name}") for name in ("WAVELENGTH", "FLUX", "IVAR")]
        arms.append(make_arm(owner, *arrays, "ivar", mask))
        if len(arms[-1].flux) != len(table):
            raise ValueError(
                f"{file.path!r} has {len(arms[-1].flux)} rows in {each}_FLUX and {len(table)} in FIBERMAP: as many as "
                "there are targets are needed."
            )
    facts = facts_of("DESI coadd", "ivar", bad_bits, "any", **CGS_VACUUM, frame="barycentric")
    facts["arms"] = found if arm is None else [arm.upper()]
    return arms, table["TARGETID"].to_numpy(), table, facts


# ---- SDSS-V --------------------------------------------------------------------------------------------------------


def _columns(hdu):
    return [name.lower() for name in hdu.columns.names] if hasattr(hdu, "columns") else []


def _read_sdss_tables(file, arm, bad_bits):
    """Read mwmStar and mwmVisit, a table for each instrument and observatory; spec, a table of one spectrum."""
    hdus = [hdu for hdu in file.hdus if "flux" in _columns(hdu) and len(hdu.data)]
    if "loglam" in _columns(hdus[0]) if hdus else False:
        return _read_spec(file, hdus[0], arm, bad_bits)
    named = {}
    for hdu in hdus:
        instrument = str(hdu.header.get("INSTRMNT") or hdu.name.split("/")[0]).strip().upper()
        named.setdefault(instrument, []).append(hdu)
    if len(named) != 1 and (arm is None or arm.upper() not in named):
        raise ValueError(
            f"read_spectra.arm={arm!r}: {file.path!r} has spectra of {' and '.join(named) or 'no instrument'}, whose "
            "wavelengths differ. Choose one by arm='BOSS' or arm='APOGEE'."
        )
    instrument = arm.upper() if arm else next(iter(named))
    apogee = instrument == "APOGEE"
    default, names = (APOGEE_BAD, APOGEE_BITS) if apogee else ("any", None)
    parts, tables, label = {"wave": [], "flux": [], "ivar": [], "bad": []}, [], ""
    for hdu in named.get(instrument, []):
        label = f"{file.path!r}, HDU {hdu.name!r}"
        with file.reading(hdu.name):
            data, columns = hdu.data, _columns(hdu)
            flux = native(np.atleast_2d(data["flux"]))
            wave = np.atleast_2d(data["wavelength"]) if "wavelength" in columns else np.tile(_log_wave(
                *(hdu.header[key] for key in ("CRVAL", "CDELT", "NPIXELS"))), (len(flux), 1))  # fmt: skip
            mask = native(np.atleast_2d(data["pixel_flags"]).astype(np.int64))
            parts["ivar"] += list(native(np.atleast_2d(data["ivar"])))
        parts["flux"] += list(flux)
        parts["wave"] += list(native(wave))
        parts["bad"] += list(bad_pixels(label, mask, bad_bits, default, names))
        tables.append(file.table(hdu.name) if file.names.count(hdu.name) == 1 else pd.DataFrame(index=range(len(flux))))
    if not tables:
        raise ValueError(f"read_spectra.arm={arm!r}: {file.path!r} has spectra of {', '.join(named)} alone.")
    table = pd.concat(tables, ignore_index=True)
    facts = facts_of("SDSS-V mwmStar or mwmVisit", "ivar", bad_bits, default, **CGS_VACUUM, frame=SDSS_FRAME)
    facts["arms"] = [instrument]
    ids = table["sdss_id"].to_numpy() if "sdss_id" in table else np.arange(len(table))
    return [make_arm(label, parts["wave"], parts["flux"], parts["ivar"], "ivar", parts["bad"])], ids, table, facts


def _log_wave(first, step, n_pixels):
    return 10 ** (first + step * np.arange(n_pixels))


def _read_spec(file, hdu, arm, bad_bits):
    _no_arms(file, arm)
    label = f"{file.path!r}, HDU {hdu.name!r}"
    with file.reading(hdu.name):
        name = "mask" if "mask" in _columns(hdu) else "and_mask"
        wave, flux, ivar, mask = (native(hdu.data[each]) for each in ("loglam", "flux", "ivar", name))
    table = file.table("SPALL") if "SPALL" in file.names else pd.DataFrame(index=[0])
    facts = facts_of("SDSS-V spec", "ivar", bad_bits, f"any of {name}", **CGS_VACUUM, frame="barycentric")
    ids = next((table[each].to_numpy() for each in ("SDSS_ID", "CATALOGID") if each in table), np.arange(1))
    mask = bad_pixels(label, np.atleast_2d(mask), bad_bits, "any")
    return [make_arm(label, 10 ** wave.astype(np.float64), flux, ivar, "ivar", mask)], ids, table[:1], facts


def _read_apstar(file, arm, bad_bits):
    _no_arms(file, arm)
    with file.reading("1, 2 or 3"):
        header = file.hdus[1].header
        flux, error, mask = (native(np.atleast_2d(file.hdus[k].data))[:1] for k in (1, 2, 3))  # row 0: all visits
        wave = _log_wave(header["CRVAL1"], header["CDELT1"], header["NAXIS1"])
    label = f"{file.path!r}, HDUs 1 to 3"
    bad = bad_pixels(label, mask, bad_bits, APOGEE_BAD, APOGEE_BITS)
    table = pd.DataFrame([{key: file.hdus[0].header.get(key) for key in ("OBJID", "RA", "DEC", "VHELIO", "SNR")}])
    facts = facts_of("SDSS-V apStar, combined", "error", bad_bits, APOGEE_BAD, **CGS_VACUUM, frame=SDSS_FRAME)
    return [make_arm(label, wave, flux, error, "error", bad)], table["OBJID"].to_numpy(), table, facts

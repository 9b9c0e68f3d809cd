"""Small files in the layouts of the surveys, written to the letter of their data models; no survey made them."""

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.wcs import WCS

BITS = {"BAD": 0, "SAT": 1, "CR": 3, "NO_DATA": 8, "SUSPECT": 12}  # as a file of PFS may number them


def spectra(n_rows=3, n_pixels=60, seed=0):
    """Flux, variance and mask of rows; the mask has BAD, CR and the harmless SUSPECT."""
    rng = np.random.default_rng(seed)
    flux = rng.normal(10, 1, (n_rows, n_pixels)).astype(np.float32)
    variance = rng.uniform(0.5, 2, (n_rows, n_pixels)).astype(np.float32)
    mask = np.zeros((n_rows, n_pixels), np.int32)
    mask[:, 3], mask[0, 10], mask[1:2, 20] = 1 << BITS["SUSPECT"], 1 << BITS["CR"], 1 << BITS["BAD"]
    return flux, variance, mask


def _vary(values):
    """Rows as a column of arrays of variable length."""
    return np.array([*values, None], dtype=object)[:-1]


def write_pfs_coadd(path, flux, variance, mask, wave, rho=(0.0, 0.0), drop=()):
    """Write a pfsCoadd as PfsTargetSpectra.writeFits of Subaru-PFS/datamodel 355df2a; one `wave` [nm] or one a row."""
    rows, ids = range(len(flux)), np.arange(len(flux), dtype=np.int16)
    same = len({len(row) for row in flux}) == 1

    def component(values, name, code):
        if same:
            kind = fits.CompImageHDU if code == "J" else fits.ImageHDU
            return kind(data=np.array(list(values)), name=name)
        return fits.BinTableHDU.from_columns([fits.Column("value", f"P{code}()", array=_vary(values))], name=name)

    covariance = []
    for row in variance:
        parts = [row, np.zeros_like(row), np.zeros_like(row)]
        for lag in (1, 2):
            parts[lag][:-lag] = rho[lag - 1] * np.sqrt(row[:-lag] * row[lag:])
        covariance.append(np.array(parts, np.float32))
    text = "".join(f"MP_{name}: {bit}\n" for name, bit in BITS.items())
    texts = [f"DATE: '2025-01-0{i + 1}'\n{text}VERSION: 7\n" for i in rows]
    target = [
        fits.Column("targetId", "I", array=ids), fits.Column("catId", "J", array=[10092 for _ in rows]),
        fits.Column("tract", "J", array=[1 for _ in rows]), fits.Column("patch", "PA()", array=["1,1" for _ in rows]),
        fits.Column("objId", "K", array=[2**40 + i for i in rows]), fits.Column("ra", "D", array=[150.0 for _ in rows]),
        fits.Column("dec", "D", array=[2.0 for _ in rows]),
        fits.Column("targetType", "I", array=[1 + i % 2 for i in rows]),
    ]  # fmt: skip
    wave_hdu = component(wave, "WAVELENGTH", "D") if np.ndim(wave[0]) else fits.ImageHDU(wave, name="WAVELENGTH")
    hdus = [
        fits.PrimaryHDU(header=fits.Header({"DAMD_VER": 1})), fits.BinTableHDU.from_columns(target, name="TARGET"),
        fits.BinTableHDU.from_columns([
            fits.Column("targetId", "I", array=ids), fits.Column("filterName", "PA()", array=["g_ps1" for _ in rows]),
            fits.Column("fiberFlux", "E", array=np.ones(len(ids))),
        ], name="TARGETFLUX"),
        wave_hdu, component(flux, "FLUX", "E"), component(mask, "MASK", "J"),
        fits.BinTableHDU.from_columns([
            fits.Column(f"row_{k}", "PE()", array=_vary([each[k] for each in covariance])) for k in range(3)
        ], name="COVAR"),
        fits.BinTableHDU.from_columns([
            fits.Column("targetId", "I", array=ids), fits.Column("metadata", "PA()", array=texts),
        ], name="METADATA"),
    ]  # fmt: skip
    fits.HDUList([hdu for hdu in hdus if hdu.name not in drop]).writeto(path)
    return str(path)


def write_pfs_object(path, flux, variance, mask, wave):
    """Write a pfsObject as PfsFiberArray of Subaru-PFS/datamodel 355df2a, wavelengths [nm] in the header."""
    wcs = WCS(naxis=1)
    wcs.wcs.ctype, wcs.wcs.cunit = ["WAVE"], [u.nm]
    wcs.wcs.crval, wcs.wcs.crpix = [0.5 * (wave[0] + wave[-1])], [0.5 * len(wave) + 1.5]
    wcs.wcs.cdelt = [(wave[-1] - wave[0]) / (len(wave) - 1)]
    header = wcs.to_header()
    header["DAMD_VER"] = 2
    planes = fits.Header([("HIERARCH " * (len(name) > 5) + f"MP_{name}", bit) for name, bit in BITS.items()])
    planes.extend(header)
    target = fits.Header({"CATID": 1, "TRACT": 2, "PATCH": "1,1", "OBJID": 77, "RA": 150.0, "DEC": 2.0})
    target["HIERARCH TARGETTYPE"] = 1
    columns = [fits.Column("filterName", "1A", array=["g"]), fits.Column("fiberFlux", "E", array=[1.0])]
    covariance = np.array([variance, np.zeros_like(variance), np.zeros_like(variance)])
    fits.HDUList([
        fits.PrimaryHDU(), fits.ImageHDU(flux, header=header, name="FLUX"),
        fits.CompImageHDU(mask, header=planes, name="MASK"),
        fits.BinTableHDU.from_columns(columns, header=target, name="TARGET"),
        fits.ImageHDU(covariance, header=header, name="COVAR"),
    ]).writeto(path)  # fmt: skip
    return str(path)


def write_desi(path, arms, table, drop=()):
    """Write a DESI coadd (desidatamodel ca5aa4c): `arms` is {"B": (wave, flux, ivar, mask)}; the order is arbitrary."""
    hdus = [fits.PrimaryHDU()]
    for arm, (wave, flux, ivar, mask) in arms.items():
        images = {
            f"{arm}_FLUX": (flux, "10**-17 erg/(s cm2 Angstrom)"),
            f"{arm}_IVAR": (ivar, "10**+34 (s2 cm4 Angstrom2) / erg2"),
            f"{arm}_WAVELENGTH": (wave, "Angstrom"),
            f"{arm}_RESOLUTION": (np.ones((len(flux), 11, len(wave)), np.float32), ""),
        }
        hdus.append(fits.CompImageHDU(mask.astype(np.uint32), name=f"{arm}_MASK"))
        hdus += [fits.ImageHDU(data, fits.Header({"BUNIT": unit}), name) for name, (data, unit) in images.items()]
    hdus.append(fits.BinTableHDU(np.rec.fromarrays(list(table.values()), names=list(table)), name="FIBERMAP"))
    fits.HDUList([hdu for hdu in hdus if hdu.name not in drop]).writeto(path)
    return str(path)


def write_mwm_star(path, rows, sdss_id=42):
    """Write an mwmStar: BOSS and APOGEE tables of APO and LCO; `rows` is {"APOGEE/APO": (flux, ivar, flags)}."""
    hdus = [fits.PrimaryHDU(header=fits.Header({"V_ASTRA": "0.6.0", "SDSS_ID": sdss_id}))]
    for name in ("BOSS/APO", "BOSS/LCO", "APOGEE/APO", "APOGEE/LCO"):
        instrument = name.split("/")[0]
        first, step, n_pixels = {"BOSS": (3.5523, 1e-4, 40), "APOGEE": (4.179, 6e-6, 50)}[instrument]
        flux, ivar, flags = rows.get(name, np.empty((3, 0, n_pixels)))
        wave = np.tile(10 ** (first + step * np.arange(n_pixels)), (len(flux), 1))
        pixels = {"wavelength": wave, "flux": flux, "ivar": ivar, "pixel_flags": flags}
        columns = [
            fits.Column("sdss_id", "K", array=[sdss_id] * len(flux)),
            fits.Column("telescope", "6A", array=["apo25m"] * len(flux)),
            *[fits.Column(key, f"{n_pixels}E", dim=f"({n_pixels})", array=each) for key, each in pixels.items()],
        ]  # fmt: skip
        hdu = fits.BinTableHDU.from_columns(columns, name=name)
        hdu.header["INSTRMNT"] = instrument
        hdus.append(hdu)
    fits.HDUList(hdus).writeto(path)
    return str(path)


def write_ap_star(path, flux, error, mask):
    """Write an apStar: images whose first row is the combined spectrum, log-linear wavelengths."""
    header = fits.Header({"CRVAL1": 4.179, "CDELT1": 6e-6, "BUNIT": "Flux (10^-17 erg/s/cm^2/Ang)"})
    fits.HDUList([
        fits.PrimaryHDU(header=fits.Header({"OBJID": "2M1", "NVISITS": 2, "RA": 1.0, "DEC": 2.0})),
        fits.ImageHDU(flux, header=header), fits.ImageHDU(error), fits.ImageHDU(mask),
    ]).writeto(path)  # fmt: skip
    return str(path)


def write_spec(path, flux, ivar, mask):
    """Write a BOSS spec: a table of one spectrum, a pixel a row."""
    pixels = {"FLUX": flux, "LOGLAM": 3.6 + 1e-4 * np.arange(len(flux)), "IVAR": ivar, "AND_MASK": mask}
    columns = [fits.Column(key, "J" if key == "AND_MASK" else "E", array=each) for key, each in pixels.items()]
    known = fits.BinTableHDU.from_columns([fits.Column("CATALOGID", "K", array=[5])], name="SPALL")
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns, name="COADD"), known]).writeto(path)
    return str(path)

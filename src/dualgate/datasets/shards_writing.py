"""Writing spectra to HDF5 files that `~dualgate.datasets.open_spectra` reads."""

import os
from pathlib import Path

import numpy as np

from dualgate._validation import check_choice
from dualgate.datasets.shards_layout import ERROR, FLUX, OPEN_FILES, PARAMS, REQUIRED, WAVE, load_extra

COMPRESSIONS = ("gzip", "lzf")
_CHUNK_BYTES = 1 << 20  # what HDF5 keeps at hand of a dataset by default


def write_spectra(path, flux, error, params, wave, *, compression=None, overwrite=False):
    """Write spectra to one HDF5 file, a shard for :func:`open_spectra`.

    The file appears when it is complete: a crash leaves nothing under its name.

    Parameters
    ----------
    path : str or Path
        The file. While it is written its name ends in ".part".
    flux : array-like of shape (n_rows, n_pixels)
        Noise-free flux in any unit, kept as float32.
    error : array-like of shape (n_rows, n_pixels)
        Standard deviation of the noise in that unit, kept as float32. A pixel without one (NaN, infinite, not above
        zero) is repaired when it is read; every row needs one good error.
    params : DataFrame of n_rows rows, or dict of columns
        Numbers: T_eff [K], log_g [of cm/s2], M_H [dex], and whatever else belongs to a row, such as a_M, C_M, mag, snr,
        redshift. The index is not kept.
    wave : array-like of shape (n_pixels,)
        Pixel centres [angstrom].
    compression : {None, "gzip", "lzf"}, default=None
        "gzip" is smaller, None is fastest to read.
    overwrite : bool, default=False
        Whether to replace a file of that name.

    Raises
    ------
    ImportError
        If h5py or PyTables is not installed.
    FileExistsError
        If there is such a file and `overwrite` is False.
    FileNotFoundError
        If the directory does not exist.
    ValueError
        If shapes disagree, flux or a required parameter is not finite, a required parameter is missing, a parameter is
        no number, or a row has no good error.

    See Also
    --------
    open_spectra : Read such files.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from dualgate.datasets import make_spectra, open_spectra, write_spectra
    >>> clean = make_spectra(3, random_state=0, noise_level=0)
    >>> with TemporaryDirectory() as folder:
    ...     write_spectra(f"{folder}/a.h5", clean.flux, clean.error, clean.labels, clean.wave, compression="gzip")
    ...     open_spectra(f"{folder}/a.h5").labels.equals(clean.labels)
    True
    """
    h5py = load_extra("write_spectra", "h5py")
    load_extra("write_spectra", "tables")
    path = Path(path)
    if compression is not None:
        check_choice("write_spectra", "compression", compression, COMPRESSIONS)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"write_spectra.path={str(path)!r}: the directory {path.parent} does not exist.")
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"write_spectra.path={str(path)!r} exists: it must be a new name. Pass overwrite=True to replace the file."
        )
    flux, error, wave = _check_arrays(flux, error, wave)
    table = _check_params(params, len(flux))
    beside = path.with_name(path.name + ".part")
    try:
        with h5py.File(beside, "w") as file:
            file[WAVE] = wave
            rows = max(1, min(len(flux), _CHUNK_BYTES // (4 * flux.shape[1])))
            options = {"chunks": (rows, flux.shape[1]), "compression": compression, "shuffle": compression is not None}
            file.create_dataset(FLUX, data=flux, **options)
            file.create_dataset(ERROR, data=error, **options)
        table.to_hdf(beside, key=PARAMS, mode="a", format="fixed")
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        OPEN_FILES.close(path)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _check_arrays(flux, error, wave):
    """Return flux and error as float32 and wave as float64, of shapes that agree."""
    with np.errstate(over="ignore"):
        flux, error = np.asarray(flux, dtype=np.float32), np.asarray(error, dtype=np.float32)
    wave = np.asarray(wave, dtype=np.float64)
    if flux.ndim != 2 or 0 in flux.shape:
        raise ValueError(
            f"write_spectra.flux has shape {flux.shape}: it must be (n_rows, n_pixels), at least one of each."
        )
    if error.shape != flux.shape:
        raise ValueError(f"write_spectra.error has shape {error.shape}, flux {flux.shape}: the shapes must be equal.")
    if wave.shape != flux.shape[1:] or not np.isfinite(wave).all():
        raise ValueError(
            f"write_spectra.wave has shape {wave.shape}, flux {flux.shape}: it must be one finite wavelength per pixel."
        )
    if not np.isfinite(flux).all():
        row, pixel = np.argwhere(~np.isfinite(flux))[0]
        raise ValueError(
            f"write_spectra.flux[{row}, {pixel}]={flux[row, pixel]} must be finite, as float32: interpolate the pixel "
            "or drop the row."
        )
    hopeless = ~((error > 0) & (error < np.inf)).any(axis=1)
    if hopeless.any():
        raise ValueError(
            f"write_spectra.error has no value that is finite and above zero in row {np.argmax(hopeless)} "
            f"({hopeless.sum():,} such rows): nothing could stand for the bad ones. Drop these rows."
        )
    return flux, error, wave


def _check_params(params, n_rows):
    """Return the parameters as a frame that HDF5 can hold: numbers under names."""
    import pandas as pd

    table = pd.DataFrame(params).reset_index(drop=True)
    if len(table) != n_rows:
        raise ValueError(
            f"write_spectra.params has {len(table):,} rows, flux {n_rows:,}: there must be one per spectrum."
        )
    lacking = [name for name in REQUIRED if name not in table]
    if lacking:
        raise ValueError(
            f"write_spectra.params lacks {', '.join(map(repr, lacking))}: it must have {', '.join(REQUIRED)}."
        )
    if not table.columns.is_unique:
        raise ValueError(f"write_spectra.params has the columns {list(table.columns)}: names must not come twice.")
    for name, column in table.items():
        if not isinstance(name, str) or not isinstance(column.dtype, np.dtype) or column.dtype.kind not in "fiub":
            raise ValueError(
                f"write_spectra.params has the column {name!r} of dtype {column.dtype}: columns must be numbers of "
                "numpy under names that are strings. Convert it, by astype(float) for instance, or drop it."
            )
        if name in REQUIRED and not np.isfinite(column.to_numpy()).all():
            row = int(np.argmin(np.isfinite(column.to_numpy())))
            raise ValueError(f"write_spectra.params[{name!r}][{row}]={column[row]} must be finite: drop the row.")
    return table

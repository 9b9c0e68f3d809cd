"""One HDF5 file of spectra, a shard: its layout, reading, writing, and the files that stay open.

A shard holds ``spectrumdataset/wave`` (n_pixels,), ``dataset/arrays/flux/value`` and ``dataset/arrays/error/value``
(n_rows, n_pixels), and the table ``dataset/params`` of one row per spectrum, written by pandas.
"""

import os
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from threading import RLock

import numpy as np

from dualgate._validation import check_choice, require_finite
from dualgate.rows import whole_file

WAVE, FLUX, ERROR = "spectrumdataset/wave", "dataset/arrays/flux/value", "dataset/arrays/error/value"
PARAMS = "dataset/params"
REQUIRED = ("T_eff", "log_g", "M_H")
_CHUNK_BYTES = 1 << 20  # the size of HDF5's cache of a dataset by default
_MAX_OPEN = 64  # files that stay open for reading; the least recently used is closed first


def import_hdf5(owner):
    """Import h5py, and PyTables, which pandas needs; both come with an extra of the package."""
    try:
        import h5py
        import tables  # noqa: F401
    except ImportError as error:
        raise ImportError(f'{owner} needs h5py and PyTables ({error}): pip install "dualgate[hdf5]".') from error
    return h5py


_LOCK = RLock()  # h5py and PyTables may share one HDF5 library, which is not safe for threads


def _stamp(path):
    now = os.stat(path)
    return now.st_ino, now.st_size, now.st_mtime_ns


@lru_cache(maxsize=_MAX_OPEN)
def _open(path):
    """Return the stamp of a file, the open file, its flux and its error."""
    stamp, file = _stamp(path), import_hdf5("SpectraFiles").File(path, "r")
    return stamp, file, file[FLUX], file[ERROR]


def _forget_open_files():
    global _LOCK
    _LOCK = RLock()
    _open.cache_clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_open_files)


@contextmanager
def _reading(path, what, errors=(OSError, RuntimeError, KeyError)):
    """Hold the lock, and name the shard in what HDF5 raises."""
    with _LOCK:
        try:
            yield
        except errors as problem:
            raise OSError(
                f"shard {path!r} cannot be read at {what} ({type(problem).__name__}: {problem}): it is missing, "
                "damaged, truncated or in another format. Restore the file, or leave it out of open_spectra.paths."
            ) from problem


def read_rows(path, first, last, out):
    """Read [flux | error] of rows `first` to `last` of a shard into `out` (n_rows, 2 * n_pixels)."""
    n_pixels = out.shape[1] // 2
    with _reading(path, f"rows {first:,} to {last:,}"):
        stamp, file, flux, error = _open(path)
        if stamp != _stamp(path):  # HDF5 reads zeros where an open file was truncated
            file.close()
            _open.cache_clear()
            _, _, flux, error = _open(path)
        if flux.shape != error.shape or flux.shape[1] != n_pixels or len(flux) < last:
            raise ValueError(
                f"shard {path!r} has changed since it was opened: flux is {flux.shape}, error {error.shape}. "
                "Call open_spectra again."
            )
        flux.read_direct(out, np.s_[first:last], np.s_[:, :n_pixels])
        error.read_direct(out, np.s_[first:last], np.s_[:, n_pixels:])


def read_head(path):
    """Return the wavelengths (n_pixels,) of a shard and the frame of its parameters, whose layout is checked."""
    import pandas as pd

    h5py = import_hdf5("open_spectra")
    with _reading(path, "its arrays"):
        _open.cache_clear()  # PyTables may refuse a file that h5py has open
        with h5py.File(path, "r") as file:
            lacking = [name for name in (WAVE, FLUX, ERROR, PARAMS) if name not in file]
            if lacking:
                raise ValueError(
                    f"shard {path!r} lacks {', '.join(map(repr, lacking))}: it must hold {WAVE}, {FLUX}, {ERROR} and "
                    f"{PARAMS}. write_spectra writes such a file."
                )
            shapes = [file[name].shape for name in (FLUX, ERROR, WAVE)]
            dtypes = {name: file[name].dtype for name in (FLUX, ERROR, WAVE)}
            wave = file[WAVE][()]
    with _reading(path, repr(PARAMS), Exception):  # pandas, PyTables and pickle raise all kinds
        _open.cache_clear()
        table = pd.read_hdf(path, PARAMS, mode="r")
    if not isinstance(table, pd.DataFrame):
        raise ValueError(f"shard {path!r} has a {type(table).__name__} in {PARAMS!r}: it must be a DataFrame.")
    _require_layout(f"shard {path!r}", *shapes, table)
    for name, dtype in {**dtypes, **{name: table[name].dtype for name in REQUIRED}}.items():
        if dtype.kind not in "fiu":
            raise ValueError(f"shard {path!r} has {name!r} of dtype {dtype}: it must be numbers.")
    return wave.astype(np.float64), table


def _require_layout(owner, flux, error, wave, table):
    """Raise a ValueError where the shapes of the arrays and the table of parameters do not belong together."""
    if len(flux) != 2 or 0 in flux or flux != error or wave != flux[1:]:
        raise ValueError(
            f"{owner} has flux of shape {flux}, error of shape {error} and wave of shape {wave}: they must be (n_rows, "
            "n_pixels) twice and (n_pixels,), with at least one row and one pixel."
        )
    if len(table) != flux[0] or not set(REQUIRED) <= set(table):
        raise ValueError(
            f"{owner} has {len(table):,} rows of params for {flux[0]:,} spectra, with the columns {list(table)}: they "
            f"must have one row for each spectrum and the columns {', '.join(REQUIRED)}."
        )


def write_spectra(path, flux, error, params, wave, *, compression=None, overwrite=False):
    """Write spectra to one HDF5 file, a shard for :func:`open_spectra`.

    The file gets its name when it is complete; a crash leaves no file of that name.

    Parameters
    ----------
    path : str or Path
        The file. Its name ends in ".part" while it is written.
    flux : array-like of shape (n_rows, n_pixels)
        Noise-free flux in any unit, kept as float32.
    error : array-like of shape (n_rows, n_pixels)
        Standard deviation of the noise in that unit, kept as float32. A pixel without one (NaN, infinite, not above
        zero) is repaired when it is read; every row needs one good error.
    params : DataFrame of n_rows rows, or dict of columns
        Numbers: T_eff [K], log_g [of cm/s2], M_H [dex], and any other column, such as a_M, C_M, mag, snr,
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
        not a number, or a row has no good error.

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
    h5py = import_hdf5("write_spectra")
    path = Path(path)
    if compression is not None:
        check_choice("write_spectra", "compression", compression, ("gzip", "lzf"))
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"write_spectra.path={str(path)!r} exists: it must be a new name. Pass overwrite=True to replace the file."
        )
    flux, error, wave, table = _check_spectra(flux, error, wave, params)
    rows = max(1, min(len(flux), _CHUNK_BYTES // (4 * flux.shape[1])))
    options = {"chunks": (rows, flux.shape[1]), "compression": compression, "shuffle": compression is not None}
    with whole_file(path) as unfinished:
        with h5py.File(unfinished.name, "w") as file:
            file[WAVE] = wave
            file.create_dataset(FLUX, data=flux, **options)
            file.create_dataset(ERROR, data=error, **options)
        table.to_hdf(unfinished.name, key=PARAMS, mode="a", format="fixed")
        _open.cache_clear()  # Windows does not replace an open file


def _check_spectra(flux, error, wave, params):
    """Return flux and error as float32, wave as float64, and a table that HDF5 can hold: numbers under names."""
    import pandas as pd

    with np.errstate(over="ignore"):
        flux, error = np.asarray(flux, dtype=np.float32), np.asarray(error, dtype=np.float32)
    wave = np.asarray(wave, dtype=np.float64)
    table = pd.DataFrame(params).reset_index(drop=True)
    _require_layout("write_spectra", flux.shape, error.shape, wave.shape, table)
    require_finite("write_spectra", "flux", flux)
    require_finite("write_spectra", "wave", wave[:, None])
    hopeless = ~((error > 0) & (error < np.inf)).any(axis=1)
    if hopeless.any():
        raise ValueError(
            f"write_spectra.error has no value that is finite and above zero in row {np.argmax(hopeless)} "
            f"({hopeless.sum():,} such rows): bad errors cannot be replaced. Drop these rows."
        )
    for name, column in table.items():
        numeric = isinstance(column.dtype, np.dtype) and column.dtype.kind in "fiub"
        if not (numeric and isinstance(name, str) and table.columns.is_unique):
            raise ValueError(
                f"write_spectra.params has the column {name!r} of dtype {column.dtype}: columns must be numbers of "
                "numpy under unique names that are strings. Convert it, by astype(float) for instance, or drop it."
            )
    require_finite("write_spectra", f"params {REQUIRED}", table[list(REQUIRED)].to_numpy(np.float64))
    return flux, error, wave, table

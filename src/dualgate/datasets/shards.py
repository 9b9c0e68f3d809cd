"""Spectra in HDF5 files, the shards of one long table whose rows are read when they are needed.

A shard holds ``spectrumdataset/wave`` (n_pixels,), ``dataset/arrays/flux/value`` and ``dataset/arrays/error/value``
(n_rows, n_pixels), and the table ``dataset/params`` of one row per spectrum, written by pandas. Flux is noise-free and
noise with the standard deviation of the error is added when a row is read, or flux is measured and read as it is.
"""

import glob
import numbers
import os
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from dualgate._validation import check_choice, check_number, require_finite
from dualgate.datasets.simulator import check_noise, generator_of_rows, labelled_spectra
from dualgate.rows import RowSource, whole_file

WAVE, FLUX, ERROR = "spectrumdataset/wave", "dataset/arrays/flux/value", "dataset/arrays/error/value"
PARAMS = "dataset/params"
REQUIRED = ("T_eff", "log_g", "M_H")
_CHUNK_BYTES = 1 << 18  # of compressed rows that are read together, so that scattered rows are read quickly
_SPARE_BYTES = 1 << 22  # of a shard, for what is beside flux and errors
_NOISE_STREAM = 1  # the noise is independent of what the simulator draws for the same seed and row
_LOCK = Lock()  # h5py and PyTables may share one HDF5 library, which is not safe for threads


def _renew_lock():
    """Forget that another thread of the parent may hold the lock; h5py lets no read be cut by a fork."""
    global _LOCK
    _LOCK = Lock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_renew_lock)


class SpectraFiles(RowSource):
    """Spectra in HDF5 shards, [flux | error], as a row source that adds noise to a row of noise-free flux.

    Returned by :func:`open_spectra`. The noise of a row is a function of the seed and of the row's number in all shards
    together, so that a row has the same bits in any block and in any order. A pickle holds the names of the files.
    Reading raises an OSError where a file is damaged or missing, and a ValueError where flux is not finite or a row has
    no error that is finite and above zero; both name the shard.

    Attributes
    ----------
    files : list of str
        The shards.
    seed : int
        Seed of the noise.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, files, counts, shape, *, noise_level, seed, clip, measured=False):
        self.files, self.shape, self.measured = files, shape, measured
        self.noise_level, self.seed, self.clip = noise_level, seed, clip
        self.counts, self.ends = counts, np.cumsum(counts)  # rows of each shard, and the one after its last

    def read(self, start, stop):  # noqa: D102
        block = np.empty((stop - start, self.shape[1]), self.dtype)
        at_row, draw = generator_of_rows(self.seed | _NOISE_STREAM << 64), np.empty(self.shape[1] // 2, np.float32)
        done = 0
        while done < len(block):
            row = int(start) + done
            shard = np.searchsorted(self.ends, row, side="right")
            path, first = self.files[shard], row - int(self.ends[shard] - self.counts[shard])
            part = block[done : done + self.counts[shard] - first]
            _read_rows(path, first, first + len(part), part)
            flux, error = np.hsplit(part, 2)
            done += len(part)
            if self.measured:
                bad = ~(np.isfinite(flux) & (error > 0) & (error < np.inf))
                flux[bad], error[bad] = np.nan, np.inf
                continue
            require_finite(f"shard {path!r}", "flux", flux, first_row=first)
            repair_errors(f"shard {path!r}", error, first)
            for i in range(len(part) if self.noise_level > 0 else 0):
                at_row(row + i).standard_normal(out=draw, dtype=np.float32)
                draw *= error[i]
                draw *= np.float32(self.noise_level)
                flux[i] += draw
            if self.clip:
                np.maximum(flux, 0, out=flux)
        return block


def open_spectra(paths, *, stop=None, measured=False, target="log_g", noise_level=1.0, random_state=None, clip=True):
    """Open spectra in HDF5 shards as a row source, whose rows are read when they are needed.

    The shards, which :func:`write_spectra` writes, are one long table, in the order in which they are given. A spectrum
    that is read is flux + error * N(0, 1) * noise_level, then clipped at zero from below. Errors that are NaN, infinite
    or not above zero are replaced by that of the nearest good pixel of the row, the left one on a tie. Spectra that
    were measured (``measured=True``) have their noise already and are read as they are.

    Parameters
    ----------
    paths : str, Path, or list of them
        Files, or patterns such as "spectra/shard_*.h5", whose matches are sorted alphabetically ("10" before "2").
        Open only files that you trust: pandas may unpickle the contents of the table of parameters.
    stop : int, default=None
        The row after the last; None is all. A slice of ``X`` leaves out others. The noise of a row does not depend on
        either.
    measured : bool, default=False
        Whether flux was measured: no noise is added, nothing is clipped or replaced, and the table may have any columns
        or lack any. A pixel whose flux is not finite, or whose error is not finite and above zero, is NaN with infinite
        error.
    target : str or list of str, default="log_g"
        Columns of the table that are `y`.
    noise_level : float, default=1.0
        Factor on the noise, at least 0. 0 gives the flux in the file. The errors do not depend on it.
    random_state : int, RandomState, Generator or None, default=None
        An int is the seed of the noise. A generator gives the seed by one draw; None draws a new one. Use different
        seeds for sets that are opened separately, such as training and test shards: with one seed, rows of the same
        number have the same draws of N(0, 1).
    clip : bool, default=True
        Whether flux below zero becomes zero, noise-free or not.

    Returns
    -------
    data : Bunch
        X : SpectraFiles of shape (n_samples, 2 * n_pixels), float32
            [flux | error], in the unit of the file. The shards are ``X.files``, the seed is ``X.seed``.
        y : ndarray of shape (n_samples,) or (n_samples, n_targets)
            Measured spectra have none if the files lack the target "log_g".
        conditions, regimes, regime_edges
            As in :func:`make_spectra`; measured spectra only have them if T_eff, log_g and M_H are known of all.
        wave : ndarray of shape (n_pixels,)
            Pixel centres [angstrom].
        labels : DataFrame
            The parameters in the files; NaN in the rows of shards that lack the column.
        snr : ndarray of shape (n_samples,)
            As stored; absent if the files lack it.

    Raises
    ------
    ImportError
        If h5py or PyTables is not installed.
    FileNotFoundError
        If a path or pattern matches no file.
    OSError
        If a file is damaged or truncated; the message names the shard.
    ValueError
        If an argument is out of range or a file is given twice; if a shard lacks a dataset or a required parameter
        (T_eff, log_g, M_H), its shapes disagree, its wavelength grid differs, or a required parameter is not finite.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from dualgate.datasets import make_spectra, open_spectra, write_spectra
    >>> clean = make_spectra(4, random_state=0, noise_level=0)
    >>> with TemporaryDirectory() as folder:
    ...     write_spectra(f"{folder}/shard_0.h5", clean.flux, clean.error, clean.labels, clean.wave)
    ...     data = open_spectra(f"{folder}/shard_*.h5", random_state=0)
    >>> data.X
    SpectraFiles(4 rows x 8,192 columns, float32)
    >>> bool((data.y == clean.y).all())
    True
    """
    noise_level, seed = check_noise("open_spectra", noise_level, random_state)
    if measured and noise_level != 1:
        raise ValueError(f"open_spectra.noise_level={noise_level}: measured spectra have their noise; leave it out.")
    paths, required = _find_shards(paths), () if measured else REQUIRED
    waves, tables = zip(*(_read_head(path, required) for path in paths), strict=True)
    wave = waves[0]
    for path, other in zip(paths, waves, strict=True):
        if wave.shape != other.shape or not np.allclose(other, wave, rtol=np.finfo(np.float32).eps, atol=0):
            raise ValueError(
                f"shard {path!r} has another wavelength grid, {len(other):,} pixels from {other[0]:.4f} to "
                f"{other[-1]:.4f}, than {paths[0]!r}, {len(wave):,} pixels from {wave[0]:.4f} to {wave[-1]:.4f}: all "
                "shards must have the same pixels. Open it alone, or resample it to the same wave."
            )
    counts = [len(table) for table in tables]
    total, hint = sum(counts), f"{len(paths):,} shards hold {sum(counts):,} rows, counted from 0."
    stop = total if stop is None else stop
    check_number("open_spectra", "stop", stop, kind=numbers.Integral, low=1, high=total, hint=hint)
    shape = int(stop), 2 * len(wave)
    X = SpectraFiles(paths, counts, shape, noise_level=noise_level, seed=seed, clip=bool(clip), measured=measured)
    labels = pd.concat(tables, ignore_index=True)[: len(X)]
    for path, table, end in zip(paths, tables, X.ends, strict=True):
        rows = table[list(required)].to_numpy(np.float64)[: max(0, len(X) - end + len(table))]
        require_finite(f"shard {path!r}", f"params {required}", rows)
    lacking = [name for name in np.atleast_1d(target) if name not in labels]
    if lacking and not (measured and target == "log_g"):
        raise ValueError(f"open_spectra.target={target!r}: the files have the columns {', '.join(map(str, labels))}.")
    stars = set(REQUIRED) <= set(labels) and np.isfinite(labels[list(REQUIRED)].to_numpy(np.float64)).all()
    data = labelled_spectra(X, labels, wave) if stars else Bunch(X=X, wave=wave, labels=labels)
    if not lacking:
        data.y = labels[target].to_numpy(dtype=np.float64, copy=True)
    if "snr" in labels:
        data.snr = labels["snr"].to_numpy(copy=True)
    return data


def _find_shards(paths):
    """Absolute names (list of str) of the files that paths and patterns match, in their order."""
    found, paths = [], [paths] if isinstance(paths, (str, os.PathLike)) else paths
    if not isinstance(paths, Iterable) or not all(isinstance(each, (str, os.PathLike)) for each in paths):
        raise ValueError(f"open_spectra.paths={paths!r} must be a path, a pattern, or a list of them.")
    for each in paths:
        pattern = os.fspath(each)
        matches = [pattern] if os.path.isfile(pattern) else sorted(filter(os.path.isfile, glob.glob(pattern)))
        if not matches:
            raise FileNotFoundError(
                f"open_spectra.paths={pattern!r} matches no file (in {os.getcwd()!r}): it must name HDF5 files or be a "
                "pattern of their names, such as 'spectra/*.h5'."
            )
        found += map(os.path.abspath, matches)
    if not found:
        raise ValueError(f"open_spectra.paths={paths!r} names no file: give at least one shard.")
    twice = np.flatnonzero(pd.Series(map(os.path.realpath, found)).duplicated())
    if len(twice):
        raise ValueError(f"open_spectra.paths has the same file twice, {found[twice[0]]!r}: give each shard once.")
    return found


def write_spectra(path, flux, error, params, wave, *, measured=False, compression=None, overwrite=False):
    """Write spectra to one HDF5 file, a shard for :func:`open_spectra`.

    The file gets its name when it is complete; a crash leaves no file of that name.

    Parameters
    ----------
    path : str or Path
        The file. Its name ends in ".part" while it is written.
    flux : array-like of shape (n_rows, n_pixels)
        Noise-free flux in any unit, kept as float32; measured flux where `measured`.
    error : array-like of shape (n_rows, n_pixels)
        Standard deviation of the noise in that unit, kept as float32. A pixel without one (NaN, infinite, not above
        zero) is repaired when it is read; every row needs one good error.
    params : DataFrame of n_rows rows, or dict of columns
        Numbers: T_eff [K], log_g [of cm/s2], M_H [dex], and any other column, such as a_M, C_M, mag, snr,
        redshift. The index is not kept.
    wave : array-like of shape (n_pixels,)
        Pixel centres [angstrom].
    measured : bool, default=False
        Whether flux was measured, for ``open_spectra(measured=True)``: flux and error may be NaN or infinite where a
        pixel is masked, and `params` may have any columns of numbers, or NaN in them.
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
    OSError
        If there is no room for the arrays as they are without compression; a file that was there stays.
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
    h5py = _import_hdf5("write_spectra")
    path = Path(path)
    if compression is not None:
        check_choice("write_spectra", "compression", compression, ("gzip", "lzf"))
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"write_spectra.path={str(path)!r} exists: it must be a new name. Pass overwrite=True to replace the file."
        )
    flux, error, wave, table = _check_spectra(flux, error, wave, params, () if measured else REQUIRED)
    rows = max(1, min(len(flux), _CHUNK_BYTES // (4 * flux.shape[1])))
    options = {"chunks": (rows, flux.shape[1]), "compression": compression, "shuffle": compression is not None}
    with whole_file(path) as unfinished:
        if hasattr(os, "posix_fallocate"):  # where a disk fills while it writes, HDF5 may end the process
            os.posix_fallocate(unfinished.fileno(), 0, flux.nbytes + error.nbytes + _SPARE_BYTES)
        with h5py.File(unfinished.name, "w") as file:
            file[WAVE] = wave
            file.create_dataset(FLUX, data=flux, **options)
            file.create_dataset(ERROR, data=error, **options)
        table.to_hdf(unfinished.name, key=PARAMS, mode="a", format="fixed")


def _check_spectra(flux, error, wave, params, required):
    """Return flux and error as float32, wave as float64, and a table that HDF5 can hold: numbers under names."""
    with np.errstate(over="ignore"):
        flux, error = np.asarray(flux, dtype=np.float32), np.asarray(error, dtype=np.float32)
    wave = np.asarray(wave, dtype=np.float64)
    table = pd.DataFrame(params).reset_index(drop=True)
    _require_layout("write_spectra", flux.shape, error.shape, wave.shape, table, required)
    require_finite("write_spectra", "wave", wave[:, None])
    if required:
        require_finite("write_spectra", "flux", flux)
        _good_errors("write_spectra", error)
    for name, column in table.items():
        numeric = isinstance(column.dtype, np.dtype) and column.dtype.kind in "fiub"
        if not (numeric and isinstance(name, str) and table.columns.is_unique):
            raise ValueError(
                f"write_spectra.params has the column {name!r} of dtype {column.dtype}: columns must be numbers of "
                "numpy under unique names that are strings. Convert it, by astype(float) for instance, or drop it."
            )
    require_finite("write_spectra", f"params {required}", table[list(required)].to_numpy(np.float64))
    return flux, error, wave, table


# ---- one file -------------------------------------------------------------------------------------------------------


def _import_hdf5(owner):
    """Import h5py, and PyTables, which pandas needs; both come with an extra of the package."""
    try:
        import h5py
        import tables  # noqa: F401
    except ImportError as error:
        raise ImportError(f'{owner} needs h5py and PyTables ({error}): pip install "dualgate[hdf5]".') from error
    return h5py


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


def _read_rows(path, first, last, out):
    """Read [flux | error] of rows `first` to `last` of a shard into `out` (n_rows, 2 * n_pixels)."""
    n_pixels = out.shape[1] // 2
    with _reading(path, f"rows {first:,} to {last:,}"), _import_hdf5("SpectraFiles").File(path, "r") as file:
        flux, error = file[FLUX], file[ERROR]
        if flux.shape != error.shape or flux.shape[1] != n_pixels or len(flux) < last:
            raise ValueError(
                f"shard {path!r} has changed since it was opened: flux is {flux.shape}, error {error.shape}. "
                "Call open_spectra again."
            )
        flux.read_direct(out, np.s_[first:last], np.s_[:, :n_pixels])
        error.read_direct(out, np.s_[first:last], np.s_[:, n_pixels:])


def _read_head(path, required):
    """Return the wavelengths (n_pixels,) of a shard and the frame of its parameters, whose layout is checked."""
    h5py = _import_hdf5("open_spectra")
    with _reading(path, "its arrays"), h5py.File(path, "r") as file:
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
        table = pd.read_hdf(path, PARAMS, mode="r")
    if not isinstance(table, pd.DataFrame):
        raise ValueError(f"shard {path!r} has a {type(table).__name__} in {PARAMS!r}: it must be a DataFrame.")
    _require_layout(f"shard {path!r}", *shapes, table, required)
    for name, dtype in {**dtypes, **{name: table[name].dtype for name in required}}.items():
        if dtype.kind not in "fiu":
            raise ValueError(f"shard {path!r} has {name!r} of dtype {dtype}: it must be numbers.")
    return wave.astype(np.float64), table


def _require_layout(owner, flux, error, wave, table, required):
    """Raise a ValueError where the shapes of the arrays and the table of parameters do not belong together."""
    if len(flux) != 2 or 0 in flux or flux != error or wave != flux[1:]:
        raise ValueError(
            f"{owner} has flux of shape {flux}, error of shape {error} and wave of shape {wave}: they must be (n_rows, "
            "n_pixels) twice and (n_pixels,), with at least one row and one pixel."
        )
    if len(table) != flux[0] or not set(required) <= set(table):
        raise ValueError(
            f"{owner} has {len(table):,} rows of params for {flux[0]:,} spectra, with the columns {list(table)}: they "
            f"must have one row for each spectrum and the columns {', '.join(required) or 'that it has'}."
        )


def _good_errors(owner, error, first=0):
    """Mark the errors that are finite and above zero; every row must have one, the first is row `first`."""
    good = (error > 0) & (error < np.inf)
    hopeless = ~good.any(axis=1)
    if hopeless.any():
        raise ValueError(
            f"{owner} has no error that is finite and above zero in row {first + np.argmax(hopeless)} "
            f"({hopeless.sum():,} such rows): bad errors cannot be replaced. Leave these rows out."
        )
    return good


def repair_errors(owner, error, first=0):
    """Replace errors that are not finite and above zero by that of the nearest good pixel, left on a tie, in place."""
    good = _good_errors(owner, error, first)
    for row in np.flatnonzero(~good.all(axis=1)):
        pixels, lacking = np.flatnonzero(good[row]), np.flatnonzero(~good[row])
        middles = (pixels[1:] + pixels[:-1]) / 2
        error[row, lacking] = error[row, pixels[np.searchsorted(middles, lacking)]]

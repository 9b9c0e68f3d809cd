"""The files behind `~dualgate.datasets.open_spectra`: what a shard holds, finding shards, and the few kept open.

A shard holds ``spectrumdataset/wave`` (n_pixels,), ``dataset/arrays/flux/value`` and ``dataset/arrays/error/value``
(n_rows, n_pixels), and the table ``dataset/params`` of one row per spectrum, written by pandas.
"""

import glob
import os
from collections import OrderedDict
from importlib import import_module
from threading import RLock

import numpy as np

WAVE, FLUX, ERROR = "spectrumdataset/wave", "dataset/arrays/flux/value", "dataset/arrays/error/value"
PARAMS = "dataset/params"
REQUIRED = ("T_eff", "log_g", "M_H")
_MAX_OPEN = 64


def load_extra(owner, name):
    """Import h5py or tables, which come with an extra of the package."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(f'{owner} needs h5py and PyTables ({error}): pip install "dualgate[hdf5]".') from error


class OpenFiles:
    """The HDF5 files a process holds open for reading: no more than `limit`, the least used are closed.

    Threads take turns by `lock`; HDF5 would make them wait anyway. A fork starts with none.
    """

    def __init__(self, limit=_MAX_OPEN):
        self.limit = limit
        self._forget()
        if hasattr(os, "register_at_fork"):  # not on Windows
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self):
        self.lock, self.files = RLock(), OrderedDict()

    def read(self, path, first, last, out):
        """Read [flux | error] of rows `first` to `last` of a shard into `out` (n_rows, 2 * n_pixels)."""
        n_pixels = out.shape[1] // 2
        with self.lock:
            try:
                flux, error = self._open(path)
                if flux.shape != error.shape or flux.shape[1] != n_pixels or len(flux) < last:
                    raise ValueError(
                        f"shard {path!r} has changed since it was opened: flux is {flux.shape}, error {error.shape}. "
                        "Call open_spectra again."
                    )
                flux.read_direct(out, np.s_[first:last], np.s_[:, :n_pixels])
                error.read_direct(out, np.s_[first:last], np.s_[:, n_pixels:])
            except (OSError, RuntimeError, KeyError) as problem:
                self.close(path)
                raise OSError(
                    f"shard {path!r} cannot be read at rows {first:,} to {last:,} ({problem}): it is damaged, was cut "
                    "short or is gone. Restore the file, or leave it out of open_spectra.paths."
                ) from problem

    def _open(self, path):
        h5py = load_extra("SpectraFiles", "h5py")
        now = os.stat(path)
        stamp = now.st_ino, now.st_size, now.st_mtime_ns
        if path in self.files and self.files[path][1] != stamp:  # HDF5 would read zeros where an open file was cut off
            self.close(path)
        if path not in self.files:
            file = h5py.File(path, "r")
            self.files[path] = file, stamp, file[FLUX], file[ERROR]
        self.files.move_to_end(path)
        while len(self.files) > self.limit:
            self.files.popitem(last=False)[1][0].close()
        return self.files[path][2:]

    def close(self, path):
        """Close a file if it is open, under this or another name."""
        with self.lock:
            for name in [name for name in self.files if os.path.realpath(name) == os.path.realpath(path)]:
                self.files.pop(name)[0].close()


OPEN_FILES = OpenFiles()


def find_shards(owner, paths):
    """Turn paths and patterns into the absolute names of files, each once.

    Parameters
    ----------
    owner : str
        Whose `paths` they are, for messages.
    paths : str, Path, or list of them

    Returns
    -------
    found : list of str
    """
    found = []
    for each in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        pattern = os.fspath(each)
        matches = [pattern] if os.path.isfile(pattern) else sorted(filter(os.path.isfile, glob.glob(pattern)))
        if not matches:
            raise FileNotFoundError(
                f"{owner}.paths={pattern!r} matches no file (in {os.getcwd()!r}): it must name HDF5 files or a pattern "
                "that does, such as 'spectra/*.h5'."
            )
        found += map(os.path.abspath, matches)
    if not found:
        raise ValueError(f"{owner}.paths={paths!r} names no file: give at least one shard.")
    seen = {}
    for path in found:
        first = seen.setdefault(os.path.realpath(path), path)
        if first is not path:
            raise ValueError(
                f"{owner}.paths has the same file twice, {path!r} and {first!r}: its rows would count twice. Give each "
                "shard once."
            )
    return found


def read_head(path):
    """Read of a shard what is not spectra.

    Returns
    -------
    wave : ndarray of shape (n_pixels,)
    table : DataFrame of n_rows rows
        The parameters.
    """
    h5py = load_extra("open_spectra", "h5py")
    load_extra("open_spectra", "tables")
    with OPEN_FILES.lock:  # h5py and PyTables may share one HDF5: a file is open in one of them at a time
        OPEN_FILES.close(path)
        try:
            with h5py.File(path, "r") as file:
                wave, shape = _check_arrays(path, file)
        except (OSError, RuntimeError, KeyError) as problem:
            raise OSError(
                f"shard {path!r} cannot be opened ({problem}): it is no HDF5 file, is damaged, was cut short or is "
                "being written. Restore the file, or leave it out of open_spectra.paths."
            ) from problem
        table = _read_table(path)
    lacking = [name for name in REQUIRED if name not in table]
    if lacking:
        raise ValueError(
            f"shard {path!r} lacks the parameter {', '.join(map(repr, lacking))} in {PARAMS!r}: it has "
            f"{', '.join(map(repr, table.columns))}. Write it anew with {', '.join(REQUIRED)}."
        )
    for name in REQUIRED:
        if table[name].dtype.kind not in "fiu":
            raise ValueError(
                f"shard {path!r} has {name!r} of dtype {table[name].dtype} in {PARAMS!r}: it must be numbers."
            )
    if len(table) != shape[0]:
        raise ValueError(
            f"shard {path!r} has {shape[0]:,} spectra and {len(table):,} rows of parameters: there must be one of "
            "each for a star. Write it anew."
        )
    return wave, table


def _check_arrays(path, file):
    """Return wave and the shape of flux, when a shard's arrays are there and agree."""
    for name in (WAVE, FLUX, ERROR, PARAMS):
        if name not in file:
            raise ValueError(
                f"shard {path!r} lacks {name!r}: it must hold {WAVE}, {FLUX}, {ERROR} and {PARAMS}. "
                "write_spectra writes such a file."
            )
    wave, flux, error = file[WAVE], file[FLUX], file[ERROR]
    for name, array in ((WAVE, wave), (FLUX, flux), (ERROR, error)):
        if array.dtype.kind not in "fiu":
            raise ValueError(f"shard {path!r} has {name!r} of dtype {array.dtype}: it must be numbers.")
    if flux.ndim != 2 or flux.shape != error.shape or wave.shape != flux.shape[1:]:
        raise ValueError(
            f"shard {path!r} has flux of shape {flux.shape}, error of shape {error.shape} and wave of shape "
            f"{wave.shape}: they must be (n_rows, n_pixels), the same, and (n_pixels,). Write it anew."
        )
    if 0 in flux.shape:
        raise ValueError(f"shard {path!r} is empty, flux has shape {flux.shape}: leave it out of open_spectra.paths.")
    return wave[:].astype(np.float64), flux.shape


def _read_table(path):
    import pandas as pd

    try:
        table = pd.read_hdf(path, PARAMS, mode="r")
    except Exception as problem:  # pandas, PyTables and pickle raise all kinds
        raise OSError(
            f"shard {path!r} has {PARAMS!r} that pandas cannot read ({type(problem).__name__}: {problem}): it must be "
            "written by DataFrame.to_hdf, or is damaged. Restore the file, or leave it out of open_spectra.paths."
        ) from problem
    if not isinstance(table, pd.DataFrame):
        raise ValueError(f"shard {path!r} has a {type(table).__name__} in {PARAMS!r}: it must be a DataFrame.")
    return table


def require_same_grid(path, wave, first_path, first_wave):
    """Raise a ValueError if a shard has another wavelength grid than the first; rounding to float32 is forgiven."""
    if wave.shape != first_wave.shape:
        what = f"{len(wave):,} pixels where {first_path!r} has {len(first_wave):,}"
    else:
        differs = ~(np.abs(wave - first_wave) <= np.finfo(np.float32).eps * np.abs(first_wave))
        if not differs.any():
            return
        pixel = int(np.argmax(differs))
        what = f"pixel {pixel} at {wave[pixel]:.4f} where {first_path!r} has it at {first_wave[pixel]:.4f}"
    raise ValueError(
        f"shard {path!r} has another wavelength grid, {what}: all shards must have the same pixels. Open it alone, or "
        "resample it to the same wave."
    )

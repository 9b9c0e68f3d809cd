"""Tables with named columns: NumPy, CSV and Parquet files as rows for the study."""

import hashlib
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from dualgate.experts.regimes import regime_codes
from dualgate.study.config import ConfigError, DataConfig, nearest

HASH_BYTES = 1 << 22  # read at a time


class Table:
    """A table in memory, columns by name.

    Parameters
    ----------
    path : str
        A `.npz`, `.npy`, `.csv` or `.parquet` file. Of a `.npz` file every array is a column or, in two dimensions,
        several; a `.npy` file holds a structured array, or a plain one whose columns are named "0", "1", ...

    Raises
    ------
    OSError, ValueError, ImportError
        If the file cannot be read as what its name says.
    """

    def __init__(self, path: str):
        self.path = path
        self.arrays = _READERS[Path(path).suffix.lower()](path)

    def select(self, key: str, entries, n_rows: int | None = None) -> np.ndarray:
        """Return the columns that a key of `[data]` names, side by side, of shape (n_rows, n_columns).

        Raises
        ------
        ConfigError
            If an entry names no column, or one that does not hold finite numbers.
        """
        names = [name for entry in entries for name in self._find(key, entry)]
        lengths = {name: len(self.arrays[name]) for name in names}
        if len(set(lengths.values())) > 1:
            raise ConfigError(f"[data] {key}: names columns of different length: {lengths}")
        columns = [self._numbers(key, name) for name in names]
        return np.hstack([column.reshape(len(column), -1)[:n_rows] for column in columns])

    def _find(self, key, entry):
        names = list(self.arrays)
        if entry in self.arrays:
            return [entry]
        first, colon, last = entry.partition(":")
        if colon and all(part.isdigit() or not part for part in (first, last)):
            found = names[slice(int(first) if first else None, int(last) if last else None)]
        else:
            found = [name for name in names if fnmatchcase(name, entry)]
        if not found:
            known = names if len(names) < 8 else [*names[:5], "..."]
            raise ConfigError(f"[data] {key} = {entry!r}: names no column of {self.path!r}; {nearest(entry, known)}")
        return found

    def _numbers(self, key, name):
        values = self.arrays[name]
        if values.dtype.kind not in "iufb" or values.ndim not in (1, 2):
            raise ConfigError(
                f"[data] {key}: column {name!r} has dtype {values.dtype} and {values.ndim} dimensions; it must hold "
                "numbers, one or a vector for each row"
            )
        values = values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)
        if not np.isfinite(values).all():
            row = int(np.argwhere(~np.isfinite(values))[0, 0])
            raise ConfigError(f"[data] {key}: column {name!r} is not finite in row {row}; drop such rows, or fill them")
        return values


def read_rows(table: Table, data: DataConfig, rows: int | None) -> Bunch:
    """Rows of a table as the study takes them: X = [flux | error], or [flux | quality] where there are no errors.

    Parameters
    ----------
    table : Table
    data : DataConfig
    rows : int or None
        Only so many, from the first.

    Returns
    -------
    data : Bunch
        `X`, `y`, `regimes`, `conditions`, `regime_edges`, `snr` and `wave`, None where the table has none; `n_flux`,
        how many columns of X are flux; `paired`, whether errors stand beside them; `ordered`, true: rows may be sorted
        by anything.
    """

    def take(key):
        entries = getattr(data, key)
        entries = (entries,) if isinstance(entries, str) else entries
        return None if entries is None else table.select(key, entries, rows)

    flux, error, quality = take("flux"), take("error"), take("quality")
    parts = {"error": error, "quality": quality, "target": take("target"), "snr": take("snr")}
    parts |= {"regimes": take("regimes"), "conditions": take("conditions")}
    for key, part in parts.items():
        if part is not None and len(part) != len(flux):
            raise ConfigError(f"[data] {key}: has {len(part):,} rows, flux has {len(flux):,}; there must be as many")
        if part is not None and key in ("target", "snr", "regimes") and part.shape[1] != 1:
            raise ConfigError(f"[data] {key}: names {part.shape[1]} columns; it must name one")
    if error is not None:
        _check_errors(error, flux)
    conditions, regimes, snr = parts["conditions"], parts["regimes"], parts["snr"]
    if snr is not None and not (snr >= 0).all():
        raise ConfigError(f"[data] snr: is {snr.min()} in row {int(snr.argmin())}; it must not be negative")
    known = conditions if conditions is not None else None if regimes is None else regimes[:, 0]
    return Bunch(
        X=np.hstack([flux, error if error is not None else quality]),
        n_flux=flux.shape[1],
        paired=error is not None,
        y=parts["target"][:, 0].astype(np.float64),
        regimes=None if known is None else regime_codes("[data]", known, data.regime_edges, len(flux))[0],
        conditions=conditions,
        regime_edges=data.regime_edges,
        snr=None if snr is None else snr[:, 0],
        wave=_read_wave(table, data.wave, flux.shape[1]),
        ordered=True,
    )


def file_hash(path: str) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(HASH_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _check_errors(error, flux):
    if error.shape != flux.shape:
        raise ConfigError(
            f"[data] error: names {error.shape[1]} columns, flux {flux.shape[1]}; there must be one for each, in the "
            "same order"
        )
    if not (error > 0).all():
        row, column = np.argwhere(~(error > 0))[0]
        raise ConfigError(f"[data] error: is {error[row, column]} in row {row}; errors must be above zero")


def _read_wave(table, wave, n_pixels):
    """Wavelengths, from the configuration, an array of the table, or a file of numbers."""
    if wave is None:
        return None
    if isinstance(wave, str) and wave not in table.arrays:
        try:
            wave = np.load(wave) if wave.endswith(".npy") else np.loadtxt(wave)
        except (OSError, ValueError) as error:
            raise ConfigError(f"[data] wave = {wave!r}: names no array of the table and no file: {error}") from None
    else:
        wave = table.arrays[wave] if isinstance(wave, str) else np.array(wave)
    if wave.shape != (n_pixels,):
        raise ConfigError(
            f"[data] wave: has shape {wave.shape}; it must hold one for each of {n_pixels:,} flux columns"
        )
    return wave


def _read_npz(path):
    with np.load(path) as file:  # no pickles
        return {name: file[name] for name in file.files}


def _read_npy(path):
    array = np.load(path)
    if array.dtype.names is not None:
        return {name: array[name] for name in array.dtype.names}
    if array.ndim != 2:
        raise ValueError(f"{path}: holds an array of shape {array.shape}; it must have named fields or two dimensions.")
    return {str(place): column for place, column in enumerate(array.T)}


def _read_csv(path):
    import pandas as pd

    return _columns(pd.read_csv(path))


def _read_parquet(path):
    if find_spec("pyarrow") is None:
        raise ImportError(f'{path}: Parquet files need pyarrow; install it with: pip install "dualgate[parquet]"')
    import pandas as pd

    return _columns(pd.read_parquet(path, engine="pyarrow"))


def _columns(frame):
    return {str(name): frame[name].to_numpy() for name in frame.columns}


_READERS = {".npz": _read_npz, ".npy": _read_npy, ".csv": _read_csv, ".parquet": _read_parquet}

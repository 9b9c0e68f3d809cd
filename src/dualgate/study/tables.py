"""Tables with named columns: NumPy, CSV and Parquet files as rows for the study."""

import hashlib
import zipfile
import zlib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from dualgate.experts.regimes import regime_codes
from dualgate.study.config import ConfigError, DataConfig, nearest

HASH_BYTES = 1 << 22  # read at a time
REGIME_ROWS = 20  # a regime has on average, at least: what has more values is no regime
READ, NOT_READ = ("flux", "error", "quality"), ("target", "regimes", "conditions", "snr")  # by the model


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

    def select(self, key: str, entries) -> np.ndarray:
        """Return the columns that a key of `[data]` names, side by side, of shape (n_rows, n_columns).

        Raises
        ------
        ConfigError
            If an entry names no column, or one that does not hold finite numbers.
        """
        columns = [(name, self._numbers(key, name)) for name in self.find(key, entries)]
        lengths = {name: len(column) for name, column in columns}
        if len(set(lengths.values())) > 1:
            raise ConfigError(f"[data] {key}: names columns of different length: {lengths}; name those of one length")
        return np.hstack([column.reshape(len(column), -1) for _, column in columns])

    def find(self, key: str, entries) -> list[str]:
        """Names of the columns that a key of `[data]` names.

        Raises
        ------
        ConfigError
            If an entry names no column.
        """
        return [name for entry in entries for name in self._find(key, entry)]

    def labels(self, key: str, entry: str) -> np.ndarray:
        """Return the column of labels that a key of `[data]` names: whole numbers or texts, of shape (n_rows,).

        Raises
        ------
        ConfigError
            If it names several columns, or one that holds something else.
        """
        name, *more = self.find(key, [entry])
        values = self.values(key, name)
        if more or values.ndim != 1:
            raise ConfigError(f"[data] {key} = {entry!r}: names more than one column; it must name one")
        if values.dtype.kind == "O":
            missing = [row for row, value in enumerate(values) if not isinstance(value, str)]
            if missing:
                raise ConfigError(
                    f"[data] {key}: column {name!r} is {values[missing[0]]!r} in {_place(missing[0])}; it must hold a "
                    "text in every row, or a number in every row; drop such rows, or fill them"
                )
            return values.astype(str)
        if values.dtype.kind == "U":
            return values
        values = self._numbers(key, name)
        if (values != np.floor(values)).any():
            raise ConfigError(
                f"[data] {key}: column {name!r} holds {values[values != np.floor(values)][0]}; it must hold whole "
                "numbers or texts, one for each regime. Give a physical condition as conditions, with regime_edges"
            )
        return values

    def values(self, key: str, name: str) -> np.ndarray:
        """Return a column as it is, or an array of the file.

        Raises
        ------
        ConfigError
            If the file does not hold it whole, or holds Python objects there.
        """
        try:
            return self.arrays[name]
        except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ConfigError(
                f"[data] {key}: column {name!r} cannot be read from {self.path!r}: {error}. Save it anew, as numbers"
            ) from None

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
        values = self.values(key, name)
        if values.dtype.kind not in "iufb" or values.ndim not in (1, 2):
            raise ConfigError(
                f"[data] {key}: column {name!r} has dtype {values.dtype} and {values.ndim} dimensions; it must hold "
                "numbers, one or a vector for each row"
            )
        values = values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)
        if not np.isfinite(values).all():
            row = _place(np.argwhere(~np.isfinite(values))[0, 0])
            raise ConfigError(f"[data] {key}: column {name!r} is not finite in {row}; drop such rows, or fill them")
        return values


def read_rows(table: Table, data: DataConfig, rows: int | None) -> Bunch:
    """Rows of a table as the study takes them: X = [flux | error], or [flux | quality] where there are no errors.

    Parameters
    ----------
    table : Table
    data : DataConfig
    rows : int or None
        Only so many, drawn at random, the same ones every time; they stay in the table's order.

    Returns
    -------
    data : Bunch
        `X`, `y`, `regimes`, `conditions`, `regime_edges`, `snr` and `wave`, None where the table has none; `n_flux`,
        how many columns of X are flux; `paired`, whether errors stand beside them; `ordered`, true: rows may be sorted
        by anything.

    Raises
    ------
    ConfigError
        If a key names a column that it must not, or one whose values are not what they must be.
    """
    _check_roles(table, data)
    parts = {key: table.select(key, entries) for key, entries in _named(data).items() if key != "regimes"}
    if data.regimes is not None:
        parts["regimes"] = table.labels("regimes", data.regimes)
    _check_parts(parts)
    n_rows = len(parts["flux"])
    if rows is not None and rows < n_rows:
        chosen = np.sort(np.random.default_rng(0).permutation(n_rows)[:rows])
        parts = {key: part[chosen] for key, part in parts.items()}
    flux, conditions, snr = parts["flux"], parts.get("conditions"), parts.get("snr")
    regimes = _regimes(parts["regimes"], data.regimes) if "regimes" in parts else None
    if conditions is not None:
        regimes = regime_codes("[data]", conditions, data.regime_edges, len(flux))[0]
    return Bunch(
        X=np.hstack([flux, parts["error"] if "error" in parts else parts["quality"]]),
        n_flux=flux.shape[1],
        paired="error" in parts,
        y=_target(parts["target"][:, 0], data.target),
        regimes=regimes,
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


def _named(data):
    """Entries of every key that names columns."""
    given = {key: getattr(data, key) for key in (*READ, *NOT_READ)}
    return {key: (each,) if isinstance(each, str) else each for key, each in given.items() if each is not None}


def _place(row):
    """Where a value is, for messages."""
    return f"row {int(row)}, counted from 0"


def _check_roles(table, data):
    """Check that the model reads no column that is not known when it predicts, and none in two ways."""
    names = {key: table.find(key, entries) for key, entries in _named(data).items()}
    whys = {
        "target": "is to be predicted and must not be read",
        "regimes": "is not known when predicting and must not be read",
        "conditions": "are not known when predicting and must not be read",
        "snr": "is no measurement; quality may name it",
    }
    for key, other in [(key, other) for place, key in enumerate(READ) for other in (*NOT_READ, *READ[place + 1 :])]:
        shared = [name for name in names.get(key, ()) if name in names.get(other, ())]
        if shared and (key, other) != ("quality", "snr"):  # how noisy a row is may well be read
            why = whys.get(other, "is read for something else")
            raise ConfigError(f"[data] {key}: names {shared[0]!r}, but {other} {why}; leave the column out of {key}")


def _check_parts(parts):
    """Check lengths, numbers of columns, and signs."""
    flux, error, snr = parts["flux"], parts.get("error"), parts.get("snr")
    for key, part in parts.items():
        if len(part) != len(flux):
            raise ConfigError(f"[data] {key}: has {len(part):,} rows, flux has {len(flux):,}; there must be as many")
        if key in ("target", "snr") and part.shape[1] != 1:
            raise ConfigError(f"[data] {key}: names {part.shape[1]} columns; it must name one")
    if error is not None and error.shape != flux.shape:
        raise ConfigError(
            f"[data] error: names {error.shape[1]} columns, flux {flux.shape[1]}; there must be one for each, in the "
            "same order"
        )
    if error is not None and not (error > 0).all():
        row, column = np.argwhere(~(error > 0))[0]
        raise ConfigError(f"[data] error: is {error[row, column]} in {_place(row)}; errors must be above zero")
    if snr is not None and not (snr >= 0).all():
        raise ConfigError(f"[data] snr: is {snr.min()} in {_place(snr.argmin())}; it must not be negative")


def _target(y, name):
    if len(y) and np.ptp(y) == 0:
        raise ConfigError(
            f"[data] target: {name!r} does not vary, it is {y[0]} in every row; there is nothing to predict. Name "
            "another column"
        )
    return y.astype(np.float64)


def _regimes(labels, name):
    """Codes 0, 1, ... of labels, in the order of their values."""
    found, codes = np.unique(labels, return_inverse=True)
    if len(found) * REGIME_ROWS > max(len(labels), 1):
        raise ConfigError(
            f"[data] regimes: {name!r} holds {len(found):,} different values in {len(labels):,} rows; there must be "
            f"{REGIME_ROWS} rows or more for each on average. Merge some, or give a physical condition as conditions, "
            "with regime_edges"
        )
    return codes.reshape(-1)


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
        wave = table.values("wave", wave) if isinstance(wave, str) else np.array(wave)
    if wave.shape != (n_pixels,):
        raise ConfigError(
            f"[data] wave: has shape {wave.shape}; it must hold one for each of {n_pixels:,} flux columns"
        )
    return wave


class _Arrays(Mapping):
    """Arrays of a `.npz` file by name, each read when it is asked for, and kept."""

    def __init__(self, path):
        self.path, self._kept = path, {}
        with np.load(path) as file:  # no pickles
            self._names = dict.fromkeys(file.files)

    def __iter__(self):
        return iter(self._names)

    def __len__(self):
        return len(self._names)

    def __contains__(self, name):
        return name in self._names

    def __getitem__(self, name):
        if name not in self._kept:
            with np.load(self.path) as file:
                self._kept[name] = file[name]
        return self._kept[name]


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


_READERS = {".npz": _Arrays, ".npy": _read_npy, ".csv": _read_csv, ".parquet": _read_parquet}

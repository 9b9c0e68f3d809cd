"""Where a study's rows come from, simulated, HDF5 shards or tables, and the default model for them."""

import zipfile
import zlib
from contextlib import nullcontext, suppress
from fnmatch import fnmatchcase
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from dualgate import DualTowerMoERegressor, FactorExperts, HierarchicalExperts, PhysGate, QualityGate
from dualgate.datasets import open_spectra, stream_spectra
from dualgate.evaluation import SNR_EDGES
from dualgate.experts.regimes import regime_codes
from dualgate.features.lines import check_wave
from dualgate.rows import ArrayRows, RowSource, as_source
from dualgate.rows.store import digest
from dualgate.study.config import MIN_ROWS, ConfigError, StudyConfig, nearest

ERRORS, REGIMES, LINES = "errors", "regimes", "spectral lines"  # what methods may need of the rows
SIMULATOR = "known simulator"
PROJECT_FROM = 100  # flux columns of a table from which experts work on principal components
REGIME_ROWS = 20  # a regime has on average, at least: what has more values is no regime
READ, NOT_READ = ("flux", "error", "quality"), ("target", "regimes", "conditions", "snr")  # by the model


class StudyRows:
    """Rows of a study by seed; nothing is read before it is asked for."""

    def __init__(self, config: StudyConfig):
        self.config, self.data = config, config.data

    @cached_property
    def table(self):
        """Rows of the table, read once."""
        with _open_table(self.data.source) as columns:
            return _read_rows(_Table(self.data.source, columns), self.data, self.config.rows)

    @cached_property
    def offers(self) -> frozenset:
        """What the rows have that a method may need: `ERRORS`, `REGIMES`, `LINES`, `SIMULATOR`."""
        there = {ERRORS: True, REGIMES: True, LINES: True, SIMULATOR: self.data.kind == "embedded"}
        if self.data.kind == "table":
            table, lines = self.table, self.table.paired and _covers_lines(self.table.wave)
            there |= {ERRORS: table.paired, REGIMES: table.regimes is not None, LINES: lines}
        return frozenset(name for name, has in there.items() if has)

    def check(self):
        """Raise ConfigError where rows cannot be read, or are fewer than a study needs, before the work."""
        if self.data.kind == "embedded":
            return
        try:
            n_rows = len(self.make(0).y)
        except ConfigError:
            raise
        except (OSError, ValueError, ImportError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
            words = error
            if self.data.kind == "table" and not isinstance(error, ImportError):
                words = f"{self.data.source!r} cannot be read as a table of numbers: {error}"
            raise _fault("source", words) from None
        if n_rows < MIN_ROWS:
            raise _fault("source", f"{self.data.source!r} holds {n_rows} rows, the study needs {MIN_ROWS} or more")

    def make(self, seed: int) -> Bunch:
        """Rows of one seed: simulated ones, those of shards with noise of this seed, or those of the table."""
        if self.data.kind == "embedded":
            return stream_spectra(self.config.rows, random_state=seed)
        if self.data.kind == "table":
            return self.table
        spectra = open_spectra(self.data.source, stop=self.config.rows, random_state=seed)
        spectra.ordered = True
        return spectra

    def make_model(self, data: Bunch, seed: int, experts: str = "hierarchical") -> DualTowerMoERegressor:
        """Build the default model for the rows, with the scores and the training of the configuration."""
        if LINES in self.offers:
            model, scores = spectral_model(data, seed, experts), dict(vars(self.config.scores))
            components = scores.pop("components")
            if experts == "factor":
                model.set_params(experts__n_components=components)
                del scores["max_iter"]  # the loadings are refined
            model.set_params(**{f"experts__projection__{key}": it for key, it in scores.items()})
        else:
            model = table_model(data, seed, experts)
        return model.set_params(**vars(self.config.training))

    def model_sources(self) -> dict[str, str]:
        """Python source of the default model, and of the factor mixture without towers and with them, as `RunFacts`."""
        if LINES in self.offers:
            return {}  # as they are there
        seed, sources = self.config.seeds[0], {}
        data, alone = self.make(seed), {"phys_gate": "drop", "quality_gate": "drop"}
        kinds = {"model": ("hierarchical", {}), "factor_model": ("factor", alone), "factor_towers": ("factor", {})}
        for name, (experts, changes) in kinds.items():
            model = table_model(data, seed, experts).set_params(n_jobs=None, random_state=None, **changes)
            sources[name] = " ".join(repr(model).split())
        return sources

    def fingerprint(self) -> list:
        """Return what identifies these rows: the values of a table; names, sizes and times of shards."""
        if self.data.kind == "embedded":
            return ["embedded"]
        if self.data.kind == "table":
            return [digest(dict(self.table))]
        paths = map(Path, open_spectra(self.data.source, stop=self.config.rows).X.files)
        return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in paths]


def n_flux(data) -> int:
    """Return how many columns of the rows are flux; their errors follow."""
    return len(data.wave) if data.get("n_flux") is None else data.n_flux


class TypicalErrors(RowSource):
    """Rows whose errors are all replaced by the typical ones that a fitted reduction to factors found."""

    def __init__(self, X, reduction):
        self.source = as_source(X) or ArrayRows(X)
        self.shape, self.dtype = self.source.shape, self.source.dtype
        self._columns, self._noise = reduction.error_columns_, reduction.projection_.transformer.noise_

    def read(self, start, stop):  # noqa: D102
        block = self.source.read(start, stop).copy()
        block[:, self._columns] = self._noise
        return block


def spectral_model(data: Bunch, seed: int, experts: str = "hierarchical") -> DualTowerMoERegressor:
    """Build the default model for spectra `[flux | error]` on the pixels of `data.wave`.

    The rows have no faults, and a model that finds the size of the errors in the residuals would not be blind to them.
    """
    return DualTowerMoERegressor.for_spectra(
        data.wave, experts=experts, towers=True, robust=False, n_jobs=-1, random_state=seed
    )


def table_model(data: Bunch, seed: int, experts: str = "hierarchical") -> DualTowerMoERegressor:
    """Build the default model for other rows: the physics gate reads the flux, the quality gate the other columns."""
    flux, others = slice(0, data.n_flux), slice(data.n_flux, None)
    binned = (others, SNR_EDGES) if data.paired else (None, None)  # quality bins are of the SNR
    projection = "whitened" if data.n_flux >= PROJECT_FROM else None
    if experts == "factor":
        experts = FactorExperts(flux, others)
    else:
        experts = HierarchicalExperts(flux, binned[0], quality_edges=binned[1], projection=projection, clip=True)
    quality = QualityGate(others, features=None if data.paired else "passthrough")
    training = {"start": "random", "weight_decay": 0.0}  # as for spectra: every method is trained alike
    gates = PhysGate(flux, discriminants=False), quality
    return DualTowerMoERegressor(*gates, experts=experts, n_jobs=-1, random_state=seed, **training)


# ---- tables ------------------------------------------------------------------------------------------------


def _open_table(path):
    """Open a table as a context that gives its columns by name; those of a `.npz` file are read when asked for."""
    kind = Path(path).suffix.lower()
    if kind == ".npz":
        if Path(path).is_file() and not zipfile.is_zipfile(path):
            raise ValueError("it is no archive of arrays, such as numpy.savez writes")
        return np.load(path)  # no pickles
    if kind == ".parquet" and find_spec("pyarrow") is None:
        raise ImportError(f'{path}: Parquet files need pyarrow; install it with: pip install "dualgate[parquet]"')
    read = {".csv": pd.read_csv, ".parquet": pd.read_parquet, ".npy": lambda path: pd.DataFrame(np.load(path))}
    frame = read[kind](path)
    return nullcontext({str(name): frame[name].to_numpy() for name in frame.columns})


def _fault(key, words):
    """Return the error of a key of `[data]`."""
    return ConfigError(f"[data] {key}: {words}")


class _Table:
    """Columns of an open table as the keys of `[data]` name them; ConfigError where one is not what it must be."""

    def __init__(self, path, columns):
        self.path, self.columns, self.names, self.n_rows = path, columns, list(columns), None

    def find(self, key, entries):
        """Names of the columns that entries name: each by its name, by positions, or by a pattern."""
        return [name for entry in entries for name in self._find(key, entry)]

    def _find(self, key, entry):
        first, colon, last = entry.partition(":")
        if entry in self.names:
            return [entry]
        if colon and all(part.isdigit() or not part for part in (first, last)):
            found = self.names[slice(int(first) if first else None, int(last) if last else None)]
        else:
            found = [name for name in self.names if fnmatchcase(name, entry)]
        if not found:
            known = self.names if len(self.names) < 8 else [*self.names[:5], "..."]
            raise _fault(key, f"{entry!r} names no column of {self.path!r}; {nearest(entry, known)}")
        return found

    def values(self, key, name):
        """Return an array as it is."""
        try:
            return self.columns[name]
        except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            words = f"column {name!r} cannot be read from {self.path!r}: {error}. Save it again, as numbers"
            raise _fault(key, words) from None

    def column(self, key, name):
        """Return a column as it is, with as many rows as those before."""
        values = self.values(key, name)
        self.n_rows = len(values) if self.n_rows is None else self.n_rows
        if len(values) != self.n_rows:
            raise _fault(key, f"column {name!r} has {len(values):,} rows; it must have {self.n_rows:,} as the others")
        return values

    def numbers(self, key, entries):
        """Return columns of finite numbers, or arrays of several, side by side, (n_rows, n_columns)."""
        found = []
        for name in self.find(key, entries):
            values = self.column(key, name)
            if values.dtype.kind not in "iufb" or values.ndim not in (1, 2):
                words = f"has dtype {values.dtype} and {values.ndim} dimensions; it must hold numbers"
                raise _fault(key, f"column {name!r} {words}, one or a vector for each row")
            values = values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)
            found.append(values.reshape(len(values), -1))
            for row in np.flatnonzero(~np.isfinite(found[-1]).all(axis=1))[:1]:
                raise _fault(key, f"column {name!r} is not finite in {_place(row)}; drop such rows, or fill them")
        return np.hstack(found)

    def regimes(self, key, entries):
        """Return codes 0, 1, ... of a column of numbers or texts, in the order of its values."""
        name, *more = self.find(key, entries)
        values = self.column(key, name)
        if more or values.ndim != 1:
            raise _fault(key, f"{entries[0]!r} names more than one column; it must name one")
        codes, found = pd.factorize(values, sort=True)
        for row in np.flatnonzero(codes < 0)[:1]:
            raise _fault(key, f"column {name!r} has no value in {_place(row)}; drop such rows, or fill them")
        if len(found) * REGIME_ROWS > max(len(values), 1):
            words = f"holds {len(found):,} different values in {len(values):,} rows; there must be {REGIME_ROWS} rows"
            otherwise = "Merge some, or give a physical condition as conditions, with regime_edges"
            raise _fault(key, f"{name!r} {words} or more for each on average. {otherwise}")
        return codes


def _read_rows(table, data, rows):
    """Rows of a table: X = [flux | error], or [flux | quality] without errors; what the table has not is None.

    `rows` of them are drawn at random, the same ones every time, and stay in the table's order.
    """
    given = {key: getattr(data, key) for key in (*READ, *NOT_READ) if getattr(data, key) is not None}
    given = {key: (each,) if isinstance(each, str) else each for key, each in given.items()}
    _check_roles({key: table.find(key, entries) for key, entries in given.items()})
    parts = {
        key: (table.regimes if key == "regimes" else table.numbers)(key, entries) for key, entries in given.items()
    }
    _check_parts(parts, data.target)
    if rows is not None and rows < table.n_rows:
        chosen = np.sort(np.random.default_rng(0).permutation(table.n_rows)[:rows])
        parts = {key: part[chosen] for key, part in parts.items()}
    flux, others = parts["flux"], parts["error"] if "error" in parts else parts["quality"]
    if "conditions" in parts:
        parts["regimes"] = regime_codes("[data]", parts["conditions"], data.regime_edges, len(flux))[0]
    return Bunch(
        X=np.hstack([flux, others]),
        n_flux=flux.shape[1],
        paired="error" in parts,  # whether the other columns are errors of the flux
        y=parts["target"][:, 0].astype(np.float64),
        regimes=parts.get("regimes"),
        conditions=parts.get("conditions"),
        regime_edges=data.regime_edges,
        snr=parts["snr"][:, 0] if "snr" in parts else None,
        wave=_read_wave(table, data.wave, flux.shape[1]),
        ordered=True,  # by anything
    )


def _check_roles(names):
    """Check that the model reads no column that is not known when it predicts, and none in two ways."""
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
            raise _fault(key, f"names {shared[0]!r}, but {other} {why}; leave the column out of {key}")


def _check_parts(parts, target):
    """Check numbers of columns and signs, and that the target varies."""
    flux, error, snr, y = parts["flux"], parts.get("error"), parts.get("snr"), parts["target"]
    for key in {"target", "snr"} & parts.keys():
        if parts[key].shape[1] != 1:
            raise _fault(key, f"names {parts[key].shape[1]} columns; it must name one")
    if error is not None and error.shape != flux.shape:
        words = f"names {error.shape[1]} columns, flux {flux.shape[1]}"
        raise _fault("error", f"{words}; there must be one for each, in the same order")
    for row, column in np.argwhere(~(error > 0))[:1] if error is not None else ():
        raise _fault("error", f"is {error[row, column]} in {_place(row)}; errors must be above zero")
    if snr is not None and not (snr >= 0).all():
        raise _fault("snr", f"is {snr.min()} in {_place(snr.argmin())}; it must not be negative")
    if len(y) and np.ptp(y) == 0:
        words = f"{target!r} does not vary, it is {y[0, 0]} in every row"
        raise _fault("target", f"{words}; there is nothing to predict. Name another column")


def _read_wave(table, wave, n_pixels):
    """Wavelengths, from the configuration, an array of the table, or a file of numbers."""
    if wave is None:
        return None
    if not isinstance(wave, str):
        found = np.array(wave)
    elif wave in table.names:
        found = table.values("wave", wave)
    else:
        try:
            found = np.load(wave) if wave.endswith(".npy") else np.loadtxt(wave)
        except (OSError, ValueError) as error:
            raise _fault("wave", f"{wave!r} names no array of the table and no file: {error}") from None
    if found.shape != (n_pixels,):
        raise _fault("wave", f"has shape {found.shape}; it must hold one for each of {n_pixels:,} flux columns")
    return found


def _covers_lines(wave):
    """Whether wavelengths cover the windows of the lines; a grid for something else is no mistake."""
    with suppress(ValueError):
        return wave is not None and len(check_wave("[data]", wave)) > 0
    return False


def _place(row):
    """Where a value is, for messages."""
    return f"row {int(row)}, counted from 0"

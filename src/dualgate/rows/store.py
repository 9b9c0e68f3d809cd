"""What was computed before: a store of results by name, and the keys that tell when a result may be used again."""

import ast
import hashlib
import inspect
import numbers
import os
import pickle
import uuid
import zlib
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path

import joblib
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_memory

from dualgate._validation import check_number, owner_name
from dualgate.rows.passes import run_passes
from dualgate.rows.sources import RUN_ROWS, ColumnSubset, RowSource, RowSubset, iter_blocks, spread_rows

EVERY_BLOCKS = 16  # blocks between two writings; with wide rows a write takes about as long as a quarter of a block
NEUTRAL = ("n_jobs", "verbose", "device", "memory")  # parameters of estimators that change no result
PACKAGE = Path(__file__).parents[1]
_SUFFIXES = (".npz", ".pickle")  # of arrays by name, and of other objects
_DEPENDENCIES = ("numpy", "scipy", "scikit-learn", "torch", "skorch")


class StoreError(RuntimeError):
    """A stored result cannot be read; the message names the file to delete."""


class Store:
    """Results by name, in memory or in a directory.

    A dictionary of arrays and numbers is kept as `.npz`, anything else as a pickle, as trustworthy as its writer. A
    file is replaced in one step, so that a kill at any moment, or two processes that write one name, leave a whole one.

    Parameters
    ----------
    directory : None, str, Path or joblib.Memory, default=None
        None keeps results in memory. A directory is made when the first result is written.

    Raises
    ------
    StoreError
        If `directory` is a file.
    """

    def __init__(self, directory=None):
        if isinstance(directory, joblib.Memory):  # below what `Memory.clear` clears
            directory = Path(directory.store_backend.location, "dualgate") if directory.store_backend else None
        self.directory = None if directory is None else Path(directory)
        if self.directory is not None and self.directory.exists() and not self.directory.is_dir():
            raise StoreError(f"{directory}: is a file, results are stored in a directory: delete it or name another.")
        self._memory = {}

    def __contains__(self, name):
        return name in self._memory or self._find(name) is not None

    def load(self, name):
        """Return a result. Arrays of an `.npz` file are read when they are asked for, by name.

        Raises
        ------
        KeyError
            If there is none.
        StoreError
            If its file is damaged.
        """
        path = self._find(name)
        if path is None:
            return self._memory[name]
        with _readable(path):
            if path.suffix == ".npz":
                return StoredArrays(path)
            with open(path, "rb") as file:
                return pickle.load(file)

    def save(self, name, value):
        """Keep a result: arrays and numbers by name, or any object that can be pickled."""
        if self.directory is None:
            self._memory[name] = value
            return
        arrays = isinstance(value, dict) and all(isinstance(key, str) and _is_numeric(value[key]) for key in value)
        path, other = (self.directory / f"{name}{suffix}" for suffix in _SUFFIXES[:: 1 if arrays else -1])
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            if arrays:
                np.savez(file, **value)
            else:
                pickle.dump(value, file, protocol=5)
        other.unlink(missing_ok=True)

    def discard(self, name):
        """Forget a result, if there is one."""
        self._memory.pop(name, None)
        path = self._find(name)
        if path is not None:
            path.unlink(missing_ok=True)

    def _find(self, name):
        """Path of a result's file, None where there is none."""
        if self.directory is None:
            return None
        paths = (self.directory / f"{name}{suffix}" for suffix in _SUFFIXES)
        return next((path for path in paths if path.exists()), None)


def _is_numeric(value):
    return isinstance(value, (np.ndarray, np.generic, numbers.Number)) and np.asarray(value).dtype != object


class StoredArrays(Mapping):
    """Arrays of an `.npz` file by name, each read when it is asked for."""

    def __init__(self, path):
        self.path = path
        with open(path, "rb") as file, np.load(file) as arrays:  # NumPy leaves a damaged file open
            self._names = arrays.files

    def __iter__(self):
        return iter(self._names)

    def __len__(self):
        return len(self._names)

    def __getitem__(self, name):
        if name not in self._names:
            raise KeyError(name)
        with _readable(self.path), open(self.path, "rb") as file, np.load(file) as arrays:
            return arrays[name]


@contextmanager
def _readable(path):
    try:
        yield
    except FileNotFoundError:  # another process discarded it
        raise KeyError(path.name) from None
    except Exception as error:  # damaged bytes make zip files, NumPy and pickles raise nearly anything
        reason = str(error) or type(error).__name__
        raise StoreError(f"{path}: cannot be read ({reason}): delete it, and it is computed again.") from None


@contextmanager
def whole_file(path):
    """Open a file for writing in binary; it takes the place of `path` in one step if the block ends well."""
    part = path.with_name(f"{path.name}.{os.getpid()}.{uuid.uuid4().hex}.part")  # of this process and write alone
    try:
        with open(part, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


# ---- keys ------------------------------------------------------------------------------------------------------------


def digest(*values):
    """SHA-256 of values, equal where the values are.

    Row sources count by their `fingerprint`; estimators by class and parameters but the `NEUTRAL` ones, frozen ones by
    what they learned; functions and classes by name and source; anything else by its pickle. Raises a TypeError for a
    lambda, a function inside another, or what cannot be pickled.
    """
    return hashlib.sha256(repr(_describe(values)).encode()).hexdigest()


def _describe(value):
    """Nested tuples of plain values whose text tells a value from others."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return type(value).__name__, *map(_describe, value)
    if isinstance(value, dict):
        return "dict", *sorted((repr(_describe(name)), _describe(each)) for name, each in value.items())
    if isinstance(value, RowSource):
        return _describe(fingerprint(value))
    if isinstance(value, FrozenEstimator):
        return _describe(type(value.estimator)), _describe(vars(value.estimator))
    if isinstance(value, BaseEstimator):
        params = value.get_params(deep=False).items()
        return _describe(type(value)), _describe({name: each for name, each in params if name not in NEUTRAL})
    if isinstance(value, partial):
        return "partial", *map(_describe, (value.func, value.args, value.keywords))
    try:
        found = joblib.hash(np.ascontiguousarray(value) if isinstance(value, np.ndarray) else value, hash_name="sha1")
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise TypeError(
            f"{value!r} cannot be told from others ({error}), so that results which depend on it cannot be stored: use "
            "a function or class of a module and what can be pickled, or leave memory= and checkpoint= None."
        ) from None
    if inspect.isfunction(value) or inspect.isclass(value):
        with suppress(OSError, TypeError):  # compiled
            return found, inspect.getsource(value)
    return found


def fingerprint(source):
    """Describe a source by what tells its rows from others, for `digest`.

    In memory that is a hash of all bytes. Elsewhere it is the shape, a few rows spread over all and, where files are
    known, their sizes and times, but not their names.
    """
    shape = tuple(source.shape), source.dtype.str
    if source.in_memory:
        found = hashlib.sha256()
        for _, block in iter_blocks(source, source):
            found.update(block.reshape(-1).view(np.uint8))
        return *shape, found.hexdigest()
    times = [(os.stat(path).st_size, os.stat(path).st_mtime_ns) for path in source.files]
    return *shape, spread_rows(source, 3 * RUN_ROWS, finite=False), times


@cache
def code_hash(*modules):
    """SHA-256 over the source of modules of dualgate, and of everything of dualgate that they import.

    Imports inside functions and in the tables of lazy packages count, as do the numbers (`.npz`, `.csv`) in a module's
    directory and the versions of the numerical libraries. Raises a ValueError where there is no such module.
    """
    unknown = [module for module in modules if _source_path(module) is None]
    if unknown:
        raise ValueError(f"code_hash: {unknown[0]!r} is no module of dualgate.")
    found = hashlib.sha256(repr([version(name) for name in _DEPENDENCIES]).encode())
    waiting, seen = list(modules), set()
    while waiting:
        path = _source_path(waiting.pop())
        if path is not None and path not in seen:
            seen |= {path, *path.parent.glob("*.npz"), *path.parent.glob("*.csv")}
            waiting += _imported(path)
    for path in sorted(seen):
        found.update(f"{path.name}:".encode() + path.read_bytes())
    return found.hexdigest()


def _imported(path):
    """Names that a file may import as modules."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("dualgate."):
            names.append(node.value)
    return names


def _source_path(module):
    """Path of a module of dualgate, None where there is none of that name."""
    place = PACKAGE.parent.joinpath(*module.split("."))
    paths = (place / "__init__.py", place.with_name(f"{place.name}.py"))
    return next((path for path in paths if PACKAGE in path.parents and path.is_file()), None)


# ---- stages of a fit -------------------------------------------------------------------------------------------------


class FitStages:
    """The stages of a fit, each of which is computed once for what it depends on.

    Without a store nothing is kept; a store in memory keeps finished stages. `identity` is what every stage depends on,
    such as rows, targets and seed.
    """

    def __init__(self, store=None, identity=None):
        self.store, self.identity = store, None if store is None else digest(identity)
        self._stage, self._runs = "", []  # the stage that is computed now, and the names of its runs

    @classmethod
    def of(cls, estimator, memory, checkpoint, source, *values):
        """Make the stages of an estimator's fit to `source`, which depend on further values such as targets.

        They are kept in the directory `checkpoint`, or else in `memory` (None, str or joblib.Memory). The estimator's
        `random_state` must be an integer with `checkpoint`; with `memory` alone nothing is kept if it is not.
        """
        seed = estimator.random_state
        if checkpoint is not None:
            hint = "with checkpoint= it must be an integer, so that a fit that continues draws what the first one drew."
            check_number(estimator, "random_state", seed, kind=numbers.Integral, low=0, hint=hint)
            store = Store(checkpoint)
        elif memory is None or not isinstance(seed, numbers.Integral) or check_memory(memory).store_backend is None:
            return cls()
        else:
            store = Store(check_memory(memory))
        return cls(store, (fingerprint(source), int(seed), values))

    def stage(self, name, depends, compute):
        """Return a stage's result, stored or from ``compute()`` now.

        It depends on `depends`, the identity and the code of the module of `compute`. Passes that `compute` runs by
        `run` are continued after a kill. A stage has no stages inside.
        """
        if self.store is None:
            return compute()
        module = getattr(compute, "func", compute).__module__
        key = self._key(name, depends, code_hash(module) if _source_path(module) else module)
        with suppress(KeyError):
            return self.store.load(key)
        self._stage, self._runs = key, []
        result = compute()
        self.store.save(key, result)
        for run in self._runs:  # the result of the stage replaces them
            self.store.discard(run)
        self._stage, self._runs = "", []
        return result

    def run(self, name, owner, passes, source, n_jobs=None):
        """Run passes as `run_passes` does; a directory keeps what they found every few blocks, to continue from there.

        Raises a ValueError if rows are not those that were read before.
        """
        if self.store is None or self.store.directory is None:
            return run_passes(owner, passes, source, n_jobs=n_jobs)
        key, chosen, whole = self._key(name, self._stage), [], source
        while isinstance(whole, (RowSubset, ColumnSubset)):
            chosen.append(whole.rows if isinstance(whole, RowSubset) else whole.columns)
            whole = whole.source
        self._runs.append(key)
        keeper = Keeper(self.store, key, owner, self._key("checksums", source.shape, chosen))
        passes = run_passes(owner, passes, source, n_jobs=n_jobs, keeper=keeper)
        keeper.save(passes, len(source))
        return passes

    def _key(self, name, *depends):
        return f"{name}-{digest(name, self.identity, depends)[:40]}"


class Keeper:
    """Stores under `name` what running passes have found, and under `checksums` those of the blocks that were read."""

    def __init__(self, store, name, owner, checksums):
        self.store, self.name, self.owner, self.checksums = store, name, owner, checksums
        self._n_blocks, self._n_rows = 0, 0
        self._known = store.load(checksums) if checksums in store else {}

    def resume(self, passes):
        """Give passes what they had found, and return the row to continue from."""
        if self.name in self.store:
            stored = self.store.load(self.name)
            self._n_rows = stored["n_rows"]
            for each, found in zip(passes, stored["found"], strict=True):
                each.found = found
        return self._n_rows

    def step(self, passes, first, block):
        """Compare a block with what was read before, and store what was found every few blocks."""
        last, found = first + len(block) - 1, zlib.crc32(block.data)
        if self._known.setdefault((first, last), found) != found:
            raise ValueError(
                f"X of {owner_name(self.owner)} changed since {self.store.directory} was begun: rows "
                f"{first:,} to {last:,} are not those that were read before. Delete the store, and fit again."
            )
        self._n_blocks += 1
        if self._n_blocks % EVERY_BLOCKS == 0:
            self.save(passes, last + 1)

    def save(self, passes, n_rows):
        """Store what was found in the first `n_rows` rows, unless it is stored already."""
        if n_rows == self._n_rows:
            return
        self.store.save(self.name, {"found": [each.found for each in passes], "n_rows": n_rows})
        self.store.save(self.checksums, self._known)
        self._n_rows = n_rows

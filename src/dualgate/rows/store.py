"""What was computed before: a store of results by name, and the keys that tell when a result may be used again."""

import glob
import hashlib
import inspect
import numbers
import os
import pickle
import re
import time
import uuid
import zlib
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import joblib
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_memory

from dualgate._validation import check_number, owner_name
from dualgate.rows.passes import run_here, run_passes, runner
from dualgate.rows.sources import RUN_ROWS, RowSource, Subset, iter_blocks, spread_rows

EVERY_BLOCKS = 16  # blocks between two writings; with wide rows a write takes about as long as a quarter of a block
PART_SECONDS = 86_400  # after which an unfinished file is one that a kill left
NEUTRAL = ("n_jobs", "verbose", "device", "memory")  # parameters of estimators that change no result
PACKAGE = Path(__file__).parents[1]
_CODE = (".py", ".npz", ".csv")  # suffixes of what may change a result
_DEPENDENCIES = ("numpy", "scipy", "scikit-learn", "torch", "skorch")


class StoreError(RuntimeError):
    """A stored result cannot be read, or is not to be trusted; the message names the file and what to do."""


class Store:
    """Results by name, in memory or in the files of a directory. A result is a dictionary of values by name.

    A file is a `.zip` of pickles, one for each value. Reading a pickle runs what its writer put into it, so that a file
    is written for its owner alone and, on POSIX systems, read only if it belongs to the user and nobody else may write
    it. It is replaced in one step, so that a kill at any moment, or two processes that write one name, leave a whole
    one.

    Parameters
    ----------
    directory : None, str or Path, default=None
        None keeps results in memory. A directory is made when the first result is written.

    Raises
    ------
    StoreError
        If `directory` is a file.
    """

    def __init__(self, directory=None):
        self.directory, self._memory = None if directory is None else Path(directory), {}
        if self.directory is not None and self.directory.exists() and not self.directory.is_dir():
            raise StoreError(f"{directory}: is a file, results are stored in a directory: delete it or name another.")

    def __contains__(self, name):
        return name in self._memory if self.directory is None else self._path(name).exists()

    def load(self, name):
        """Return a result as a mapping; a value in a file is read when it is asked for.

        Raises
        ------
        KeyError
            If there is none.
        StoreError
            If its file is damaged, here or when a value is asked for.
        """
        return self._memory[name] if self.directory is None else StoredResult(self._path(name))

    def save(self, name, result):
        """Keep a result, a dictionary of values that can be pickled."""
        if self.directory is None:
            self._memory[name] = result
            return
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path, mode=0o600) as file, ZipFile(file, "w") as archive:
            for key, value in result.items():
                with archive.open(key, "w", force_zip64=True) as part:
                    pickle.dump(value, part, protocol=5)

    def discard(self, name):
        """Forget a result, if there is one."""
        if self.directory is None:
            self._memory.pop(name, None)
        else:
            self._path(name).unlink(missing_ok=True)

    def _path(self, name):
        return self.directory / f"{name}.zip"


class StoredResult(Mapping):
    """Values of a result in a file, each read when it is asked for; no file stays open."""

    def __init__(self, path):
        self.path = path
        with self._open() as archive:
            self._names = archive.namelist()

    def __iter__(self):
        return iter(self._names)

    def __len__(self):
        return len(self._names)

    def __getitem__(self, name):
        if name not in self._names:
            raise KeyError(name)
        with self._open() as archive, archive.open(name) as part:
            return pickle.load(part)

    @contextmanager
    def _open(self):
        try:
            with open(self.path, "rb") as file:
                require_own(self.path, os.fstat(file.fileno()))
                with ZipFile(file) as archive:
                    yield archive
        except StoreError:
            raise
        except FileNotFoundError:  # there is none, or another process discarded it
            raise KeyError(self.path.stem) from None
        except Exception as error:  # damaged bytes make zip files and pickles raise nearly anything
            reason = str(error) or type(error).__name__
            raise StoreError(f"{self.path}: cannot be read ({reason}): delete it, and it is computed again.") from None


def require_own(path, status):
    """Raise a StoreError unless a file of pickles belongs to the user, and nobody else may write it."""
    if not hasattr(os, "geteuid"):  # no POSIX system
        return
    if status.st_uid != os.geteuid():
        fault, cure = f"belongs to user {status.st_uid}, not to you ({os.geteuid()})", "use a directory of your own"
    elif status.st_mode & 0o022:
        fault, cure = f"can be written by others (mode {status.st_mode & 0o777:o})", f"chmod go-w {path}"
    else:
        return
    raise StoreError(
        f"{path}: holds pickles, which can run any code when they are read, and {fault}: delete it, and it is computed "
        f"again, or, if you trust whoever wrote it, {cure}."
    )


@contextmanager
def whole_file(path, *, mode=0o666):
    """Open a file for writing in binary; it takes the place of `path` in one step if the block ends well.

    `mode` is what others may do with it, as far as the process allows. An error of the disk names `path`; what stood
    there stays. Parts that killed processes left of this file are deleted a day later.
    """
    for old in path.parent.glob(f"{glob.escape(path.name)}.*.part"):
        with suppress(OSError):  # another process was faster, or it is somebody else's
            if time.time() - old.stat().st_mtime > PART_SECONDS:
                old.unlink()
    part = path.with_name(f"{path.name}.{os.getpid()}.{uuid.uuid4().hex}.part")  # of this process and write alone
    try:
        with open(part, "xb", opener=partial(os.open, mode=mode)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:  # that of a full disk names no file
        if error.errno is not None and error.filename in (None, part, str(part)):
            error.filename, error.filename2 = str(path), None
        raise
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
        return *shape, joblib.hash(np.ascontiguousarray(source.read(0, len(source))), hash_name="sha1")
    times = [(os.stat(path).st_size, os.stat(path).st_mtime_ns) for path in source.files]
    return *shape, spread_rows(source, 3 * RUN_ROWS, finite=False), times


@cache
def code_hash(module=None):
    """SHA-256 over all code and numbers of dualgate below the study, and the versions of the numerical libraries.

    With a module of the study it covers that one too, and all modules of the study that it imports, directly or not.
    """
    study = PACKAGE / "study"
    files = {path for path in PACKAGE.rglob("*.*") if path.suffix in _CODE and study not in path.parents}
    waiting = [] if module is None else [module]
    while waiting:
        path = PACKAGE.parent.joinpath(*waiting.pop().split(".")).with_suffix(".py")
        if path not in files:
            files.add(path)
            waiting += re.findall(r"dualgate\.study\.\w+", path.read_text())
    found = hashlib.sha256(repr([version(name) for name in _DEPENDENCIES]).encode())
    for path in sorted(files):
        found.update(f"{path.relative_to(PACKAGE)}:".encode() + path.read_bytes())
    return found.hexdigest()


# ---- stages of a fit -------------------------------------------------------------------------------------------------


class FitStages:
    """The stages of a fit, each of which is computed once for what it depends on.

    Without a store nothing is kept. `identity` is what every stage depends on, such as rows, targets and seed; the code
    counts as well.
    """

    def __init__(self, store=None, identity=None):
        self.store, self.identity = store, None if store is None else digest(identity, code_hash())
        self._stage, self._runs = "", []  # the stage that is computed now, and the names of its runs

    @classmethod
    def of(cls, estimator, memory, checkpoint, source, *values):
        """Make the stages of an estimator's fit to `source`, which depend on further values such as targets.

        They are kept in the directory `checkpoint`, or else in `memory` (None, str or joblib.Memory). The estimator's
        `random_state` must be an integer with `checkpoint`; with `memory` alone nothing is kept if it is not.
        """
        seed = estimator.random_state
        if checkpoint is not None:
            if not isinstance(checkpoint, (str, os.PathLike)):
                raise ValueError(
                    f"{owner_name(estimator)}.fit: checkpoint={checkpoint!r} must be None or the path of a directory."
                )
            hint = "with checkpoint= it must be an integer, so that a fit that continues draws what the first one drew."
            check_number(estimator, "random_state", seed, kind=numbers.Integral, low=0, hint=hint)
        else:
            cache = check_memory(memory).store_backend
            if cache is None or not isinstance(seed, numbers.Integral):
                return cls()
            checkpoint = Path(cache.location, "dualgate")  # below what `Memory.clear` clears
        return cls(Store(checkpoint), (fingerprint(source), int(seed), values))

    def stage(self, name, depends, compute):
        """Return a stage's result, stored or from ``compute()`` now, which depends on `depends` and the identity.

        Passes that `compute` runs by `run` are continued after a kill. A stage has no stages inside.
        """
        if self.store is None:
            return compute()
        key = self._key(name, depends)
        with suppress(KeyError):
            return self.store.load(key)["result"]
        self._stage, self._runs = key, []
        result = compute()
        self.store.save(key, {"result": result})
        for run in self._runs:  # the result of the stage replaces them
            self.store.discard(run)
        self._stage, self._runs = "", []
        return result

    def run(self, name, owner, passes, source, n_jobs=None):
        """Run passes as `run_passes` does; a directory keeps what they found every few blocks, to continue from there.

        Raises a ValueError if rows are not those that were read before, or on a cluster.
        """
        if self.store is None or self.store.directory is None:
            return run_passes(owner, passes, source, n_jobs=n_jobs)
        if runner.get() is not run_here and not source.in_memory:
            raise ValueError(
                f"{owner_name(owner)}: checkpoint= and memory= are for one machine: leave them None on a cluster, "
                "where work that is lost is done again."
            )
        key, chosen = self._key(name, self._stage), ()
        if isinstance(source, Subset):
            chosen = source.row_numbers, source.column_numbers
        sums = self._key("checksums", source.shape, chosen)
        self._runs.append(key)
        checksums, n_read, done = {}, 0, []
        with suppress(KeyError):  # there is none, or another process has finished the stage and discarded it
            checksums = self.store.load(sums)["blocks"]
            n_read, done = self.store.load(key)["done"]  # one value: another process may replace the file at any time
        for each, found in zip(passes, done, strict=bool(done)):
            each.found = found
        for number, (first, block) in enumerate(iter_blocks(owner, source, start=n_read, n_jobs=n_jobs), start=1):
            last, checksum = first + len(block) - 1, zlib.crc32(block.data)
            if checksums.setdefault((first, last), checksum) != checksum:
                raise ValueError(
                    f"X of {owner_name(owner)} changed since {self.store.directory} was begun: rows {first:,} to "
                    f"{last:,} are not those that were read before. Delete the store, and fit again."
                )
            for each in passes:
                each.update(first, block)
            if number % EVERY_BLOCKS == 0 or last + 1 == len(source):
                self.store.save(key, {"done": (last + 1, [each.found for each in passes])})
                self.store.save(sums, {"blocks": checksums})
        return passes

    def _key(self, name, *depends):
        return f"{name}-{digest(name, self.identity, depends)[:40]}"

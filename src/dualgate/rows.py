"""Rows that do not fit in memory: any array-like on disk or on a cluster, read block by block.

`as_source` knows what is read this way; a new kind of storage is a subclass of `RowSource`.
"""

import os
from abc import ABC, abstractmethod

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from sklearn import config_context, get_config
from sklearn.utils.validation import check_consistent_length, validate_data
from threadpoolctl import threadpool_limits

from dualgate._validation import (
    allows_nan,
    check_rows,
    check_rows_and_target,
    check_target,
    require_finite,
    require_samples,
)

BLOCK_BYTES = 1 << 27  # of a block; large enough for fast products, small beside everything else
SAMPLE_ROWS = 8192  # rows that stand for all where a fit needs rows at hand and not only their sums
_RUN_ROWS = 64  # rows of a sample that are read together
_GAP_ROWS = 8  # rows that are read and thrown away rather than asking twice
_THREAD_ROWS = 512  # rows a thread works on at a time


class RowSource(ABC):
    """A table of numbers whose rows are read when they are needed.

    `fit` and `predict` read it block by block and never hold the whole. A slice, a mask or an array of row numbers
    gives a `RowSubset`, which is a source itself, so that scikit-learn's cross-validation works on sources as well;
    `read` gives an array.

    Attributes
    ----------
    shape : tuple of int
        (n_samples, n_features).
    dtype : numpy.dtype
        float32 or float64.
    """

    ndim = 2

    @abstractmethod
    def read(self, start, stop):
        """Read the rows from `start` up to but without `stop`.

        Parameters
        ----------
        start, stop : int
            0 <= start <= stop <= n_samples.

        Returns
        -------
        block : ndarray of shape (stop - start, n_features)
            Of `dtype`; the same numbers whatever rows are asked for beside them. Threads may call this at once.
        """

    def read_into(self, start, stop, out):
        """Read rows into the array `out`; a source that can write there at once overrides this."""
        out[:] = self.read(start, stop)

    def read_rows(self, rows):
        """Read rows by number.

        Parameters
        ----------
        rows : ndarray of int
            In any order.

        Returns
        -------
        block : ndarray of shape (n_rows, n_features)
        """
        out = np.empty((len(rows), self.shape[1]), self.dtype)
        order = np.argsort(rows, kind="stable")
        ordered = rows[order]
        # near neighbours are read together, with the rows between them
        parts = np.flatnonzero((np.diff(ordered) > _GAP_ROWS) | (np.diff(ordered // _THREAD_ROWS) > 0)) + 1
        for places in np.split(np.arange(len(rows)), parts):
            if len(places):
                first, last = ordered[places[0]], ordered[places[-1]] + 1
                out[order[places]] = self.read(int(first), int(last))[ordered[places] - first]
        return out

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, key):
        if isinstance(key, tuple):  # scikit-learn asks for X[rows, ...]
            if len(key) != 2 or key[1] is not Ellipsis:
                raise TypeError(f"{type(self).__name__} is indexed by rows alone: use columns= to choose columns.")
            key = key[0]
        if isinstance(key, (int, np.integer)):
            row = range(len(self))[key]
            return self.read(row, row + 1)[0]
        return RowSubset(self, np.arange(len(self))[key])

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.read(0, len(self)), dtype=dtype)

    def __repr__(self):
        return f"{type(self).__name__}({self.shape[0]:,} rows x {self.shape[1]:,} columns, {self.dtype})"


class RowSubset(RowSource):
    """Some rows of another source, in the order of `rows`."""

    def __init__(self, source, rows):
        if isinstance(source, RowSubset):
            source, rows = source.source, source.rows[rows]
        self.source, self.rows = source, rows
        self.shape, self.dtype = (len(rows), source.shape[1]), source.dtype

    def read(self, start, stop):  # noqa: D102
        out = np.empty((stop - start, self.shape[1]), self.dtype)
        self.read_into(start, stop, out)
        return out

    def read_into(self, start, stop, out):  # noqa: D102
        rows = self.rows[start:stop]
        if len(rows) and rows[-1] - rows[0] + 1 == len(rows) and np.all(np.diff(rows) == 1):
            self.source.read_into(int(rows[0]), int(rows[-1]) + 1, out)
        else:
            out[:] = self.source.read_rows(rows)


class ArrayRows(RowSource):
    """An array-like on disk: memory map, h5py dataset, Zarr or Dask array, anything that slices into an array."""

    def __init__(self, array):
        if len(array.shape) != 2 or array.dtype.kind not in "fiub":
            raise ValueError(
                f"X is a {type(array).__name__} of shape {tuple(array.shape)} and dtype {array.dtype}: rows must be "
                "numbers in two dimensions, (n_samples, n_features)."
            )
        self.array, self.shape = array, tuple(int(n) for n in array.shape)
        self.dtype = np.dtype(np.float32 if array.dtype in (np.float16, np.float32) else np.float64)

    def read(self, start, stop):  # noqa: D102
        return np.asarray(self.array[start:stop], dtype=self.dtype)

    def __getstate__(self):
        """Name the file instead of copying the numbers."""
        state = dict(vars(self))
        if isinstance(self.array, np.memmap):
            state["array"] = _describe_memmap(self.array)
        elif type(self.array).__module__.startswith("h5py"):
            state["array"] = ("h5py", os.path.abspath(self.array.file.filename), self.array.name)
        return state

    def __setstate__(self, state):
        if isinstance(state["array"], tuple) and state["array"][0] == "h5py":
            import h5py

            state["array"] = h5py.File(state["array"][1], "r")[state["array"][2]]
        elif isinstance(state["array"], tuple):
            _, path, dtype, offset, shape, strides = state["array"]
            buffer = np.memmap(path, mode="r")
            state["array"] = np.ndarray(shape, dtype, buffer, offset, strides)
        vars(self).update(state)


def _describe_memmap(array):
    """Where in its file a memory map, or a slice of one, lies: what reopens it elsewhere."""
    whole = array
    while isinstance(whole.base, np.memmap):
        whole = whole.base
    place = array.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
    return "memmap", os.path.abspath(whole.filename), array.dtype, whole.offset + place, array.shape, array.strides


def as_source(X):
    """Return `X` as a RowSource if it is one or lies on disk or on a cluster; None for everything else."""
    if isinstance(X, RowSource):
        return X
    home = type(X).__module__.partition(".")[0]
    on_disk = (isinstance(X, np.memmap) and X.filename is not None) or (
        home in ("h5py", "zarr", "dask") and hasattr(X, "shape")
    )
    return ArrayRows(X) if on_disk and not hasattr(X, "columns") else None


def spread_rows(rows, n_rows=None, *, n_jobs=None, finite=True):
    """Return at most `n_rows` rows (None is `SAMPLE_ROWS`), in short runs spread evenly over all."""
    n_rows = SAMPLE_ROWS if n_rows is None else n_rows
    chosen = np.arange(len(rows)) if len(rows) <= n_rows else choose_spread(len(rows), n_rows)
    return take_rows(rows, chosen, n_jobs=n_jobs, finite=finite)


def take_rows(rows, chosen, *, n_jobs=None, finite=True):
    """Return the rows of these numbers, which increase."""
    if isinstance(rows, RowSource):
        sample = in_threads(lambda first, last: rows.read_rows(chosen[first:last]), len(chosen), n_jobs)
        if finite and not np.isfinite(np.sum(sample)):
            bad = int(np.argmin(np.isfinite(sample).all(axis=1)))
            require_finite(rows, "X", sample[bad : bad + 1], first_row=int(chosen[bad]))
        return sample
    return rows.iloc[chosen] if hasattr(rows, "iloc") else rows[chosen]


def choose_spread(n_rows, n_chosen):
    """Numbers of at most `n_chosen` rows out of more, in short runs spread evenly."""
    run = min(_RUN_ROWS, n_chosen)
    starts = np.linspace(0, n_rows - run, n_chosen // run).astype(int)
    return np.unique(starts[:, None] + np.arange(run))


def block_rows(n_columns, dtype=np.float32):
    """Rows of a block of `BLOCK_BYTES`, a multiple of what a thread works on."""
    rows = BLOCK_BYTES // (n_columns * np.dtype(dtype).itemsize)
    return max(_THREAD_ROWS, rows - rows % _THREAD_ROWS)


def iter_blocks(owner, X, *, start=0, stop=None, n_jobs=None):
    """Yield (first row, block) over rows from `start` to `stop`; a block of a source is overwritten by the next.

    Parameters
    ----------
    owner : object
        Whose `X` it is, for messages.
    X : ndarray, DataFrame or RowSource
        Blocks of a source are checked for NaN and infinity here; what is in memory was checked when it came in.
    n_jobs : None or int
        Threads that read.
    """
    stop = len(X) if stop is None else stop
    step = block_rows(X.shape[1], getattr(X, "dtype", np.float64))
    is_source = isinstance(X, RowSource)
    buffer = np.empty((min(step, stop - start), X.shape[1]), X.dtype) if is_source else None
    for first in range(start, stop, step):
        last = min(first + step, stop)
        if is_source:
            block = buffer[: last - first]
            _fill(X, first, block, n_jobs)
            if not allows_nan(owner):
                require_finite(owner, "X", block, first_row=first)
        else:
            block = X.iloc[first:last] if hasattr(X, "iloc") else X[first:last]
        yield first, block


def _fill(source, first, block, n_jobs):
    """Read rows from `first` on into `block`, in threads."""

    def read(start, stop):
        source.read_into(first + start, first + stop, block[start:stop])
        return np.empty(0)

    in_threads(read, len(block), n_jobs)


def in_threads(function, n_rows, n_jobs, *, offset=0):
    """Join ``function(start, stop)`` over short runs of rows, in joblib threads; BLAS keeps to one in each."""
    starts = range(offset, offset + n_rows, _THREAD_ROWS)
    ranges = [(start, min(start + _THREAD_ROWS, offset + n_rows)) for start in starts]
    if effective_n_jobs(n_jobs) == 1 or len(ranges) == 1:
        return function(offset, offset + n_rows)
    with threadpool_limits(1, user_api="blas"):
        parts = Parallel(n_jobs=n_jobs, require="sharedmem")(delayed(function)(*each) for each in ranges)
    return join(parts)


def join(parts):
    """Concatenate arrays, or the arrays of dictionaries, name by name."""
    if isinstance(parts[0], dict):
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return np.concatenate(parts)


def map_blocks(owner, function, X, *, n_jobs=None):
    """Join ``function(first_row, block)`` over all rows, in joblib threads."""
    results = []
    for first, block in iter_blocks(owner, X, n_jobs=n_jobs):

        def run(start, stop, first=first, block=block):
            return function(first + start, block[start:stop])

        results.append(in_threads(run, len(block), n_jobs))
    return join(results)


def describe(X):
    """Describe rows by what tells them from others, for a checkpoint: size, kind and a few rows."""
    edges = np.asarray(spread_rows(X, 3 * _RUN_ROWS))
    return tuple(X.shape), str(edges.dtype), edges


def check_rows_or_source(estimator, X, *, reset):
    """Validate `X` as rows, or return it as a RowSource, whose blocks are checked when they are read."""
    source = as_source(X)
    if source is None:
        return check_rows(estimator, X, reset=reset)
    require_samples(estimator, source, 1)
    validate_data(estimator, source, reset=reset, skip_check_array=True)
    return source


def checked_once(rows):
    """Let components inside take rows as finite: those in memory were checked; blocks of a source still are."""
    assumed = get_config()["assume_finite"] or not isinstance(rows, RowSource)
    return config_context(assume_finite=assumed, transform_output="default")


def check_fit_rows(estimator, X, y, *, reset=True, min_samples=2):
    """Validate training rows, in memory or as a RowSource, and their target."""
    source = as_source(X)
    if source is None:
        return check_rows_and_target(estimator, X, y, reset=reset, min_samples=min_samples)
    y = check_target(estimator, y)
    check_consistent_length(source, y)
    require_samples(estimator, source, min_samples)
    validate_data(estimator, source, reset=reset, skip_check_array=True)
    return source, y

"""Tables that are read block by block, whether their rows lie in memory, on disk or on a cluster.

`as_source` decides what is read from where it lies; a new kind of storage is a subclass of `RowSource`.
"""

import os
from abc import ABC, abstractmethod

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from sklearn import config_context, get_config
from sklearn.utils.validation import check_consistent_length, validate_data
from threadpoolctl import threadpool_limits

from dualgate._validation import allows_nan, check_rows, check_target, require_finite, require_samples

BLOCK_BYTES = 1 << 27  # of a block; large enough for fast products, small compared with everything else
SAMPLE_ROWS = 8192  # rows of a sample, where a fit needs the rows themselves and not only sums over them
RUN_ROWS = 64  # rows of a sample that are read together
_GAP_ROWS = 8  # rows that are read and discarded rather than reading twice
_THREAD_ROWS = 512  # rows a thread works on at a time


class RowSource(ABC):
    """A table of numbers whose rows are read when they are needed.

    `fit` and `predict` read it block by block and never hold the whole. A slice, a mask or an array of row numbers
    gives another source, so that scikit-learn's cross-validation works on sources as well; `read` gives an array.

    Attributes
    ----------
    shape : tuple of int
        (n_samples, n_features).
    dtype : numpy.dtype
        float32 or float64.
    in_memory : bool
        Whether `read` returns a view of rows in memory that were validated; False by default.
    files : sequence of str
        Paths of the files that hold the rows, where there are any: their sizes and times tell when rows changed.
    """

    ndim = 2
    in_memory = False
    files = ()

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
            Of `dtype`; the numbers of a row do not depend on the other rows asked for. Several threads may call this
            at a time.
        """

    def read_into(self, start, stop, out):
        """Read rows into the array `out`; a source that can write there directly overrides this."""
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

    @property
    def files(self):  # noqa: D102
        return self.source.files

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
    """An array: in memory, or a memory map, h5py dataset, Zarr or Dask array, anything that slices into an array.

    float32 and float64 are kept, other numbers become float64. Of an array in memory `read` returns views.
    """

    def __init__(self, array):
        if len(array.shape) != 2 or array.dtype.kind not in "fiub":
            raise ValueError(
                f"X is a {type(array).__name__} of shape {tuple(array.shape)} and dtype {array.dtype}: rows must be "
                "numbers in two dimensions, (n_samples, n_features)."
            )
        self.array, self.shape = array, tuple(int(n) for n in array.shape)
        self.dtype = np.dtype(np.float32 if array.dtype == np.float32 else np.float64)
        self.in_memory = isinstance(array, np.ndarray) and not _is_mapped(array)
        if _is_mapped(array):
            self.files = (os.path.abspath(array.filename),)
        elif type(array).__module__.startswith("h5py"):
            self.files = (os.path.abspath(array.file.filename),)

    def read(self, start, stop):  # noqa: D102
        return np.asarray(self.array[start:stop], dtype=self.dtype)

    def read_rows(self, rows):  # noqa: D102
        return np.array(self.array[rows], self.dtype, order="C") if self.in_memory else super().read_rows(rows)

    def __getstate__(self):
        """Name the file instead of copying the numbers."""
        state = dict(vars(self))
        if _is_mapped(self.array):
            state["array"] = _describe_memmap(self.array)
        elif type(self.array).__module__.startswith("h5py"):
            state["array"] = ("h5py", self.array.name)
        return state

    def __setstate__(self, state):
        if isinstance(state["array"], tuple) and state["array"][0] == "h5py":
            import h5py

            state["array"] = h5py.File(state["files"][0], "r")[state["array"][1]]
        elif isinstance(state["array"], tuple):
            _, dtype, offset, shape, strides = state["array"]
            buffer = np.memmap(state["files"][0], mode="r")
            state["array"] = np.ndarray(shape, dtype, buffer, offset, strides)
        vars(self).update(state)


def _is_mapped(array):
    return isinstance(array, np.memmap) and array.filename is not None


def _describe_memmap(array):
    """Where in its file a memory map, or a slice of one, lies: what reopens it elsewhere."""
    whole = array
    while isinstance(whole.base, np.memmap):
        whole = whole.base
    place = array.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
    return "memmap", array.dtype, whole.offset + place, array.shape, array.strides


def as_source(X):
    """Return `X` as a RowSource if it is one or lies on disk or on a cluster; None for everything else."""
    if isinstance(X, RowSource):
        return X
    home = type(X).__module__.partition(".")[0]
    on_disk = _is_mapped(X) or (home in ("h5py", "zarr", "dask") and hasattr(X, "shape"))
    return ArrayRows(X) if on_disk and not hasattr(X, "columns") else None


def open_rows(estimator, X, *, reset):
    """Return `X` as a validated RowSource.

    What is in memory becomes a float array here and must be finite, unless the estimator takes NaN. Of what lies on
    disk or on a cluster each block is checked when it is read.

    Parameters
    ----------
    estimator : estimator
        Gets `n_features_in_`, and `feature_names_in_` from a DataFrame, or is checked against them.
    X : array-like, DataFrame or RowSource of shape (n_samples, n_features)
    reset : bool
        Whether this is a fit.

    Returns
    -------
    source : RowSource
    """
    source = as_source(X)
    if source is None:
        return ArrayRows(check_rows(estimator, X, reset=reset))
    require_samples(estimator, source, 1)
    validate_data(estimator, source, reset=reset, skip_check_array=True)
    if source.in_memory and not allows_nan(estimator):
        require_finite(estimator, "X", source.read(0, len(source)))
    return source


def open_fit_rows(estimator, X, y, *, reset=True, min_samples=2):
    """Return training rows as a validated RowSource, and their target as finite numbers (n_samples,)."""
    source = open_rows(estimator, X, reset=reset)
    y = check_target(estimator, y)
    check_consistent_length(source, y)
    require_samples(estimator, source, min_samples)
    return source, y


def checked_once(source):
    """Let components inside a fit take rows in memory as finite, because `open_rows` checked them."""
    assumed = get_config()["assume_finite"] or source.in_memory
    return config_context(assume_finite=assumed, transform_output="default")


def spread_rows(source, n_rows=None, *, n_jobs=None, finite=True):
    """Return at most `n_rows` rows (None is `SAMPLE_ROWS`), in short runs spread evenly over all."""
    n_rows = SAMPLE_ROWS if n_rows is None else n_rows
    chosen = np.arange(len(source)) if len(source) <= n_rows else choose_spread(len(source), n_rows)
    return take_rows(source, chosen, n_jobs=n_jobs, finite=finite)


def take_rows(source, chosen, *, n_jobs=None, finite=True):
    """Return a copy of the rows of these numbers, which increase; with `finite` they are checked."""
    sample = in_threads(lambda first, last: source.read_rows(chosen[first:last]), len(chosen), n_jobs)
    if finite and not source.in_memory and not np.isfinite(np.sum(sample)):
        bad = int(np.argmin(np.isfinite(sample).all(axis=1)))
        require_finite(source, "X", sample[bad : bad + 1], first_row=int(chosen[bad]))
    return sample


def choose_spread(n_rows, n_chosen):
    """Numbers of at most `n_chosen` rows out of more, in short runs spread evenly."""
    run = min(RUN_ROWS, n_chosen)
    starts = np.linspace(0, n_rows - run, n_chosen // run).astype(int)
    return np.unique(starts[:, None] + np.arange(run))


def block_rows(n_columns, dtype=np.float32):
    """Rows of a block of `BLOCK_BYTES`, a multiple of what a thread works on."""
    rows = BLOCK_BYTES // (n_columns * np.dtype(dtype).itemsize)
    return max(_THREAD_ROWS, rows - rows % _THREAD_ROWS)


def iter_blocks(owner, source, *, start=0, stop=None, n_jobs=None, finite=None):
    """Yield (first row, block) over rows from `start` to `stop`, the same blocks wherever the rows lie.

    A block is C-contiguous and must not be changed: of rows in memory it is a view. Otherwise the next block
    overwrites it.

    Parameters
    ----------
    owner : object
        Whose `X` it is, for messages.
    source : RowSource
    n_jobs : None or int
        Threads that read.
    finite : None or bool
        Whether blocks that are read must be finite; None is unless `owner` takes NaN.
    """
    stop = len(source) if stop is None else stop
    finite = not allows_nan(owner) if finite is None else finite
    step = block_rows(source.shape[1], source.dtype)
    if not source.in_memory:
        buffer = np.empty((min(step, stop - start), source.shape[1]), source.dtype)
    for first in range(start, stop, step):
        last = min(first + step, stop)
        if source.in_memory:
            yield first, np.ascontiguousarray(source.read(first, last))
            continue
        block = buffer[: last - first]
        _fill(source, first, block, n_jobs)
        if finite:
            require_finite(owner, "X", block, first_row=first)
        yield first, block


def _fill(source, first, block, n_jobs):
    """Read rows from `first` on into `block`, in threads."""

    def read(start, stop):
        source.read_into(first + start, first + stop, block[start:stop])
        return np.empty(0)

    in_threads(read, len(block), n_jobs)


def in_threads(function, n_rows, n_jobs):
    """Join ``function(start, stop)`` over short runs of rows, in joblib threads; BLAS keeps to one in each."""
    ranges = [(start, min(start + _THREAD_ROWS, n_rows)) for start in range(0, n_rows, _THREAD_ROWS)]
    if effective_n_jobs(n_jobs) == 1 or len(ranges) <= 1:
        return function(0, n_rows)
    with threadpool_limits(1, user_api="blas"):
        parts = Parallel(n_jobs=n_jobs, require="sharedmem")(delayed(function)(*each) for each in ranges)
    return join(parts)


def map_block(function, first, block, n_jobs=None):
    """Join ``function(first_row, rows)`` over the rows of a block, in threads; what it returns is no view of them."""
    results = in_threads(lambda start, stop: function(first + start, block[start:stop]), len(block), n_jobs)
    if isinstance(results, dict):
        return {name: _own(values, block) for name, values in results.items()}
    return _own(results, block)


def _own(values, block):
    return values.copy() if np.may_share_memory(values, block) else values


def map_blocks(owner, function, source, *, n_jobs=None):
    """Join ``function(first_row, block)``, an array or several by name, over all rows, in joblib threads."""
    return join(
        [map_block(function, first, block, n_jobs) for first, block in iter_blocks(owner, source, n_jobs=n_jobs)]
    )


def join(parts):
    """Concatenate arrays, or the arrays of dictionaries, name by name."""
    if isinstance(parts[0], dict):
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return np.concatenate(parts)

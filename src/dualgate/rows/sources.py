"""Tables that are read block by block, whether their rows lie in memory, on disk or on a cluster.

`as_source` decides what is read from where it lies; a new kind of storage is a subclass of `RowSource`.
"""

import os
from abc import ABC, abstractmethod
from contextlib import contextmanager
from mmap import mmap
from threading import Lock

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from sklearn.utils import gen_batches
from sklearn.utils.validation import check_consistent_length, validate_data
from threadpoolctl import threadpool_limits

from dualgate._validation import (
    allows_nan,
    check_jobs,
    check_rows,
    check_target,
    require_finite,
    require_samples,
    take_columns,
)

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
        """Read rows by number, an array of integers in any order."""
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
        return Subset(self, np.arange(len(self))[key])

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.read(0, len(self)), dtype=dtype)

    def __repr__(self):
        return f"{type(self).__name__}({self.shape[0]:,} rows x {self.shape[1]:,} columns, {self.dtype})"


class Subset(RowSource):
    """Some rows of another source, some of its columns, or both.

    Parameters
    ----------
    source : RowSource
    rows, columns : None or ndarray of int, default=None
        Their numbers, in any order; None is all.
    """

    def __init__(self, source, rows=None, columns=None):
        if isinstance(source, Subset):
            rows, columns = _within(source.row_numbers, rows), _within(source.column_numbers, columns)
            source = source.source
        self.source, self.row_numbers, self.column_numbers, self.files = source, rows, columns, source.files
        self.in_memory, self.dtype = source.in_memory and rows is None, source.dtype
        self.shape = tuple(
            n if some is None else len(some) for n, some in zip(source.shape, (rows, columns), strict=True)
        )

    def read(self, start, stop):  # noqa: D102
        rows = None if self.row_numbers is None else self.row_numbers[start:stop]
        if rows is None:
            block = self.source.read(start, stop)
        elif len(rows) and np.all(np.diff(rows) == 1):
            block = self.source.read(int(rows[0]), int(rows[-1]) + 1)
        else:
            block = self.source.read_rows(rows)
        return block if self.column_numbers is None else take_columns(block, self.column_numbers)


def _within(chosen, some):
    """Numbers of `some` of the chosen ones; None is all."""
    return chosen if some is None else some if chosen is None else chosen[some]


def whole_of(source):
    """Return the source that a subset was taken from, any other source itself."""
    return source.source if isinstance(source, Subset) else source


class ArrayRows(RowSource):
    """An array in memory, a memory map, an h5py dataset, a Zarr or Dask array, or anything that slices into an array.

    float32 and float64 are kept, other numbers become float64. What lies in a file is pickled by its place there.

    Parameters
    ----------
    array : array-like of shape (n_samples, n_features)

    Raises
    ------
    ValueError
        If the array does not hold numbers in two dimensions.
    """

    def __init__(self, array):
        shape, dtype = getattr(array, "shape", ()), getattr(array, "dtype", None)
        if len(shape) != 2 or getattr(dtype, "kind", None) not in tuple("fiub"):
            raise ValueError(
                f"X is a {type(array).__name__} of shape {tuple(shape)} and dtype {dtype}: rows must be an array of "
                "numbers in two dimensions, (n_samples, n_features)."
            )
        self.array, self.shape = array, tuple(int(n) for n in array.shape)
        self.dtype = np.dtype(np.float32 if array.dtype == np.float32 else np.float64)
        self.in_memory = isinstance(array, np.ndarray) and not _is_mapped(array)
        self._place, self._n_bytes = None, 0  # file or directory that must still be there, and at least so large
        if _is_mapped(array):
            self.files = (os.path.abspath(array.filename),)
        elif type(array).__module__.startswith("h5py"):
            self.files = (os.path.abspath(array.file.filename),)
            if os.path.isfile(self.files[0]):  # some drivers have none
                self._place, self._n_bytes = self.files[0], os.path.getsize(self.files[0])
        elif hasattr(getattr(array, "store", None), "root"):  # a directory of Zarr
            self._place = os.path.abspath(os.path.join(array.store.root, array.path))

    def read(self, start, stop):  # noqa: D102
        if _is_mapped(self.array):
            _require_whole(self.array)
        block = np.asarray(self.array[start:stop], dtype=self.dtype)
        # HDF5 and Zarr read what is missing as zeros or fill values
        if self._place is not None and not (
            os.path.exists(self._place) and os.path.getsize(self._place) >= self._n_bytes
        ):
            raise OSError(f"X: {self._place!r} has vanished or become shorter since it was opened: open it again.")
        return block

    def read_rows(self, rows):  # noqa: D102
        return np.asarray(self.array[rows], self.dtype, order="C") if self.in_memory else super().read_rows(rows)

    def __reduce__(self):
        if not self.files:
            return type(self), (self.array,)
        if not _is_mapped(self.array):
            return _open_dataset, (type(self), self.files[0], self.array.name)
        whole = _whole_map(self.array)
        place = self.array.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
        layout = self.array.shape, self.array.dtype, whole.offset + place, self.array.strides
        return _open_map, (type(self), self.files[0], *layout)


def _open_map(kind, path, shape, dtype, offset, strides):
    array = np.ndarray.__new__(np.memmap, shape, dtype, np.memmap(path, mode="r"), offset, strides)
    array.filename = path
    return kind(array)


def _open_dataset(kind, path, name):
    import h5py

    return kind(h5py.File(path, "r")[name])


def _is_mapped(array):
    return isinstance(array, np.memmap) and array.filename is not None


def _whole_map(array):
    """Return the memory map that an array is part of."""
    while isinstance(array.base, np.memmap):
        array = array.base
    return array


def _require_whole(array):
    """Raise an OSError where the file of a memory map has become shorter: reading on would end the process."""
    whole = _whole_map(array)
    if isinstance(whole.base, mmap) and whole.base.size() < whole.offset + whole.nbytes:
        raise OSError(
            f"X: {str(array.filename)!r} has {whole.base.size():,} bytes, fewer than when it was mapped: it was cut or "
            "written again. Restore it, and open it again."
        )


def as_source(X):
    """Return `X` as a RowSource if it is one or lies on disk or on a cluster; None for everything else."""
    if isinstance(X, RowSource):
        return X
    home = type(X).__module__.partition(".")[0]
    on_disk = _is_mapped(X) or (home in ("h5py", "zarr", "dask") and hasattr(X, "shape"))
    return ArrayRows(X) if on_disk and not hasattr(X, "columns") else None


def open_rows(estimator, X, *, reset):
    """Return `X` as a RowSource; the estimator gets its number and names of columns, or is checked against them.

    Rows in memory become a float array here and must be finite, unless the estimator takes NaN; others are checked
    block by block when they are read.
    """
    check_jobs(estimator)
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


def spread_rows(source, n_rows=None, *, n_jobs=None, finite=True):
    """Return at most `n_rows` rows (None is `SAMPLE_ROWS`), in short runs spread evenly over all, not to be changed."""
    chosen = choose_spread(len(source), SAMPLE_ROWS if n_rows is None else n_rows)
    if source.in_memory and len(chosen) == len(source):
        return np.ascontiguousarray(source.read(0, len(source)))
    return take_rows(source, chosen, n_jobs=n_jobs, finite=finite)


def take_rows(source, chosen, *, n_jobs=None, finite=True):
    """Return a copy of the rows of these numbers, which increase; with `finite` they are checked."""
    sample = in_threads(lambda first, last: source.read_rows(chosen[first:last]), len(chosen), n_jobs)
    if finite and not source.in_memory and not np.isfinite(np.sum(sample)):
        bad = int(np.argmin(np.isfinite(sample).all(axis=1)))
        require_finite(source, "X", sample[bad : bad + 1], first_row=int(chosen[bad]))
    return sample


def choose_spread(n_rows, n_chosen):
    """Numbers of at most `n_chosen` rows, in short runs spread evenly over all; of as many or fewer all."""
    if n_rows <= n_chosen:
        return np.arange(n_rows)
    run = min(RUN_ROWS, n_chosen)
    starts = np.linspace(0, n_rows - run, n_chosen // run).astype(int)
    return np.unique(starts[:, None] + np.arange(run))


def block_rows(n_columns, dtype=np.float32):
    """Rows of a block of `BLOCK_BYTES`, a multiple of what a thread works on."""
    rows = BLOCK_BYTES // (n_columns * np.dtype(dtype).itemsize)
    return max(_THREAD_ROWS, rows - rows % _THREAD_ROWS)


def iter_blocks(owner, source, *, start=0, stop=None, n_jobs=None, finite=None):
    """Yield (first row, block) over rows from `start` to `stop`, the same blocks wherever the rows lie.

    A block is C-contiguous and must not be changed: of rows in memory it is a view, otherwise the next one overwrites
    it. `n_jobs` threads read; `finite` requires finite rows, by default unless `owner`, whose `X` it is, takes NaN.
    """
    stop = len(source) if stop is None else stop
    finite = not allows_nan(owner) if finite is None else finite
    step = block_rows(source.shape[1], source.dtype)
    buffer = None if source.in_memory else np.empty((min(step, stop - start), source.shape[1]), source.dtype)
    for first in range(start, stop, step):
        last = min(first + step, stop)
        if buffer is None:
            yield first, np.ascontiguousarray(source.read(first, last))
            continue
        block = buffer[: last - first]

        def fill(low, high, first=first, block=block):
            source.read_into(first + low, first + high, block[low:high])

        in_threads(fill, len(block), n_jobs)
        if finite:
            require_finite(owner, "X", block, first_row=first)
        yield first, block


class _Limits:
    """Threads that keep BLAS to one, and what gives its threads back."""

    lock, n_inside, restore = Lock(), 0, None

    @classmethod
    def renew(cls):
        """Forget that another thread of the parent may hold the lock."""
        cls.lock = Lock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_Limits.renew)


@contextmanager
def one_blas_thread():
    """Keep BLAS to one thread until the last of the threads that are inside leaves."""
    with _Limits.lock:
        if _Limits.n_inside == 0:
            _Limits.restore = threadpool_limits(1, user_api="blas").restore_original_limits
        _Limits.n_inside += 1
    try:
        yield
    finally:
        with _Limits.lock:
            _Limits.n_inside -= 1
            if _Limits.n_inside == 0:
                _Limits.restore()


def in_threads(function, n_rows, n_jobs):
    """Join ``function(start, stop)`` over short runs of rows, in joblib threads; BLAS keeps to one in each."""
    ranges = [(rows.start, rows.stop) for rows in gen_batches(n_rows, _THREAD_ROWS)]
    if effective_n_jobs(n_jobs) == 1 or len(ranges) <= 1:
        return function(0, n_rows)
    with one_blas_thread():
        return join(Parallel(n_jobs=n_jobs, require="sharedmem")(delayed(function)(*each) for each in ranges))


def join(parts):
    """Concatenate arrays, or the arrays of dictionaries name by name; None where nothing was returned."""
    if parts[0] is None:
        return None
    if isinstance(parts[0], dict):
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return np.concatenate(parts)

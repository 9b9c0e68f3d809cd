"""Passes: computations that read every row once, in blocks, and whose results add up over parts of the rows."""

from abc import ABC, abstractmethod
from contextvars import ContextVar
from copy import copy
from functools import cached_property

import numpy as np
from sklearn.utils import gen_batches

from dualgate.rows.sources import block_rows, in_threads, iter_blocks, join


class Pass(ABC):
    """A computation over all rows, fed block by block, whose result adds up over parts of the rows; picklable.

    A subclass writes `update`, which adds the rows of a block to `found`, and `begin` where 0 is no empty `found`. The
    rest is common: a cluster runs a `part` of the pass over each chunk of the rows, and `merge` adds what the parts
    found; a checkpoint keeps `found` and sets it again. So nothing but `found` may change while rows are read. What
    follows from the sums is no part of the pass: the caller reads `found` at the end, as
    :meth:`~dualgate.features.projection.Projection.end_pass` does. An algorithm that iterates makes a new pass for each
    step.

    Attributes
    ----------
    found : object
        What was found so far: anything that `+` joins (numbers, arrays, `CellStatistics`, `Pieces`), or a dictionary of
        these. Valid before the first row too.
    first : int
        Number of the first row of this part.
    row_wise : tuple of str
        Names of attributes with one entry for each row of X (an array, or None): a part holds its own rows of them.
    """

    row_wise = ()
    first = 0

    @abstractmethod
    def update(self, start, block):
        """Add rows to `found`.

        Parameters
        ----------
        start : int
            Number of the first row.
        block : ndarray of shape (n_rows, n_features)
            Overwritten afterwards, and not to be changed.
        """

    def begin(self):
        """Return what is found in no rows."""
        return 0

    @cached_property
    def found(self):  # noqa: D102
        return self.begin()

    def rows_of(self, start, n_rows):
        """Slice of the row-wise attributes for `n_rows` rows from number `start` on."""
        return slice(start - self.first, start - self.first + n_rows)

    def part(self, start, stop):
        """Return the pass over the rows from `start` to `stop` alone, with nothing found yet."""
        part = copy(self)
        vars(part).pop("found", None)
        for name in self.row_wise:
            values = getattr(self, name)
            setattr(part, name, None if values is None else values[self.rows_of(start, stop - start)])
        part.first = start
        return part

    def merge(self, found):
        """Add what was found in other rows; returns self."""
        self.found = add_found(self.found, found)
        return self


def add_found(one, other):
    """Add what was found in two parts of the rows; dictionaries name by name."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {name: add_found(one[name], other[name]) for name in one}
    return one + other


class Pieces:
    """Results for runs of rows, by the number of the first, in whatever order they come; `+` joins two parts."""

    def __init__(self, found=None):
        self.found = {} if found is None else found

    def add(self, start, values):
        """Keep a copy of the results of the rows from `start` on: an array, or several by name."""
        copied = isinstance(values, dict)
        self.found[start] = {name: np.array(values[name]) for name in values} if copied else np.array(values)

    def __add__(self, other):
        return Pieces(self.found | other.found)

    def joined(self):
        """All results in the order of the rows."""
        return join([self.found[start] for start in sorted(self.found)])


class Collect(Pass):
    """Keep the result of a function for every row.

    Parameters
    ----------
    function : callable, (first_row, block) -> array, or dict of arrays
        One entry for each row of the block, which holds consecutive rows; picklable.
    n_jobs : None or int, default=None
        Threads that compute.
    width : int, default=1
        Numbers that the function holds for each row; where they are many, it gets a block in several parts.

    Attributes
    ----------
    found : Pieces
    """

    def __init__(self, function, *, n_jobs=None, width=1):
        self.function, self.n_jobs, self.width = function, n_jobs, width

    def begin(self):  # noqa: D102
        return Pieces()

    def update(self, start, block):  # noqa: D102
        for rows in gen_batches(len(block), block_rows(self.width, np.float64)):

            def compute(first, last, part=block[rows], start=start + rows.start):
                return self.function(start + first, part[first:last])

            self.found.add(start + rows.start, in_threads(compute, rows.stop - rows.start, self.n_jobs))


def map_blocks(owner, function, source, *, n_jobs=None, width=1):
    """Join ``function(first_row, block)``, an array or several by name, over all rows, in joblib threads.

    `width` is how many numbers the function holds for each row.
    """
    (collected,) = run_here(owner, [Collect(function, n_jobs=n_jobs, width=width)], source, n_jobs)
    return collected.found.joined()


def run_passes(owner, passes, source, *, n_jobs=None):
    """Run several passes over the rows of a source at once, here or on a cluster, reading every row once.

    `owner` names whose `X` it is in messages, `n_jobs` threads read. Returns the passes.
    """
    return runner.get()(owner, passes, source, n_jobs)


def run_here(owner, passes, source, n_jobs):
    """Run passes on this machine; the arguments are those of `run_passes`."""
    for first, block in iter_blocks(owner, source, n_jobs=n_jobs):
        for each in passes:
            each.update(first, block)
    return passes


runner = ContextVar("runner", default=run_here)  # `dualgate.rows.cluster` puts a cluster here

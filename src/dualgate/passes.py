"""Passes: computations that read every row once, in blocks, and can be merged with those over other rows."""

from abc import ABC, abstractmethod
from contextvars import ContextVar
from copy import copy

from dualgate.rows import in_threads, iter_blocks, join


class Pass(ABC):
    """A computation over all rows, fed block by block; picklable."""

    @abstractmethod
    def update(self, start, block):
        """Take in the rows from number `start` on."""

    @abstractmethod
    def part(self, start, stop):
        """Return an empty pass for the rows from `start` to `stop` alone, light enough to be sent to a worker."""

    @abstractmethod
    def merge(self, other):
        """Take in what another part found, apart from statistics that were detached from both; returns self."""

    def lighten(self):
        """Return a copy without what `merge` does not need from another part, to be sent back."""
        return self

    def detach(self):
        """Take out the `CellStatistics`, which a cluster merges cell by cell; None where there are none."""
        return None

    def attach(self, statistics):  # noqa: B027  (a pass without statistics has nothing to put)
        """Put merged statistics in the place of those that were taken out."""


class Pieces:
    """Results for runs of rows, by the number of the first, in whatever order they come."""

    def __init__(self):
        self.found = {}

    def add(self, start, values):
        """Keep the results of the rows from `start` on: an array, or several by name."""
        self.found[start] = values

    def merge(self, other):
        """Take in the results of other rows."""
        self.found.update(other.found)

    def joined(self):
        """All results in the order of the rows."""
        return join([self.found[start] for start in sorted(self.found)])


class Collect(Pass):
    """Keep what a function says of every row, or of those that are marked.

    Parameters
    ----------
    function : callable
        From a block of rows to an array, or several by name; picklable. With `numbered`, from the block and the number
        of its first row.
    kept : None or ndarray of bool of shape (n_samples,)
    n_jobs : None or int
    numbered : bool
        Not with `kept`.
    """

    def __init__(self, function, kept=None, *, n_jobs=None, numbered=False):
        self.function, self.kept, self.n_jobs, self.numbered = function, kept, n_jobs, numbered
        self.first, self.pieces = 0, Pieces()

    def update(self, start, block):  # noqa: D102
        if self.kept is not None:
            wanted = self.kept[start - self.first : start - self.first + len(block)]
            block = block if wanted.all() else block[wanted]
        if len(block):
            number = (lambda i: (start + i,)) if self.numbered else (lambda i: ())
            results = in_threads(lambda i, j: self.function(block[i:j], *number(i)), len(block), self.n_jobs)
            self.pieces.add(start, results)

    def part(self, start, stop):  # noqa: D102
        part = copy(self)
        part.first, part.pieces = start, Pieces()
        part.kept = None if self.kept is None else self.kept[start:stop]
        return part

    def lighten(self):  # noqa: D102
        part = copy(self)
        part.function = part.kept = None
        return part

    def merge(self, other):  # noqa: D102
        self.pieces.merge(other.pieces)
        return self


def run_passes(owner, passes, X, *, n_jobs=None, checkpoint=None):
    """Run several passes over the rows of `X` at once, reading every row once; returns them as they then are.

    Parameters
    ----------
    owner : object
        Whose `X` it is, for messages.
    passes : list of Pass
    X : ndarray, DataFrame or RowSource
    n_jobs : None or int
        Threads that read.
    checkpoint : None or Checkpoint
        Where the passes are kept every few blocks, and taken up again.
    """
    return runner.get()(owner, passes, X, n_jobs, checkpoint)


def run_here(owner, passes, X, n_jobs, checkpoint):
    """Run passes on this machine; the arguments are those of `run_passes`."""
    passes, start = (passes, 0) if checkpoint is None else checkpoint.resume(passes)
    for first, block in iter_blocks(owner, X, start=start, n_jobs=n_jobs):
        for each in passes:
            each.update(first, block)
        if checkpoint is not None:
            checkpoint.step(passes, first + len(block))
    return passes


runner = ContextVar("runner", default=run_here)  # `dualgate.distributed` puts a cluster here

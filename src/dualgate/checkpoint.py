"""A fit that survives being killed: what it has found so far, kept in a file that is always whole."""

import numbers
import os
import pickle
from pathlib import Path

import joblib
import numpy as np
import scipy
import sklearn

import dualgate
from dualgate._validation import check_number
from dualgate.rows import describe

EVERY_BLOCKS = 16  # blocks between two writings; with wide rows a write takes about as long as a quarter of a block


class Checkpoint:
    """What a fit has found so far.

    The file is a pickle and as trustworthy as who wrote it. It is replaced in one step, so that a kill at any moment
    leaves the older or the newer state, and it stays when the fit is done: fitting again then takes seconds.

    Parameters
    ----------
    path : None, str or Path
        None keeps nothing.
    identity : object
        Everything that the result depends on; a file that was written for something else is refused.

    Raises
    ------
    ValueError
        If the file belongs to another fit, or is no checkpoint.
    OSError
        If it cannot be read, or its directory does not exist.
    """

    def __init__(self, path, identity=None):
        self.path = None if path is None else Path(path)
        self.done, self.running, self._n_blocks = {}, None, 0
        if self.path is None:
            return
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"checkpoint={str(path)!r}: the directory {self.path.parent} does not exist.")
        versions = [module.__version__ for module in (dualgate, np, scipy, sklearn)]
        self.identity = joblib.hash((identity, versions))
        if self.path.exists():
            self._load()

    @classmethod
    def of(cls, estimator, path, rows, *values):
        """Make the checkpoint of an estimator's fit on these rows and values, or one that keeps nothing."""
        if path is None:
            return cls(None)
        check_number(
            estimator,
            "random_state",
            estimator.random_state,
            kind=numbers.Integral,
            low=0,
            hint="with checkpoint= it must be an integer, so that a fit that goes on draws what the first one drew.",
        )
        params = {name: value for name, value in estimator.get_params().items() if not name.endswith("n_jobs")}
        return cls(path, (type(estimator).__name__, params, describe(rows), values))

    def _load(self):
        hint = "delete the file to begin anew, or name another one"
        try:
            with open(self.path, "rb") as file:
                state = pickle.load(file)
            identity, done, running = state["identity"], state["done"], state["running"]
        except (
            pickle.UnpicklingError,
            EOFError,
            KeyError,
            TypeError,
            AttributeError,
            ImportError,
            IndexError,
        ) as error:
            raise ValueError(
                f"checkpoint={str(self.path)!r} is no checkpoint of this version ({error}): {hint}."
            ) from None
        if identity != self.identity:
            raise ValueError(
                f"checkpoint={str(self.path)!r} was written by another fit (other rows, targets, parameters or "
                f"versions): {hint}."
            )
        self.done, self.running = done, running

    def stage(self, name, compute):
        """Return the result of a stage: of an earlier run where it is known, else of `compute`."""
        if name not in self.done:
            self.done[name] = compute()
            self.running = None
            self.save()
        return self.done[name]

    def resume(self, passes):
        """Return the passes of the running stage and the row to go on from."""
        return (passes, 0) if self.running is None else self.running

    def step(self, passes, next_row):
        """Count a block, and write every few of them."""
        self._n_blocks += 1
        if self.path is not None and self._n_blocks % EVERY_BLOCKS == 0:
            self.running = (passes, next_row)
            self.save()

    def save(self):
        """Write the file anew, whole or not at all."""
        if self.path is None:
            return
        state = {"identity": self.identity, "done": self.done, "running": self.running}
        beside = self.path.with_name(self.path.name + ".part")
        with open(beside, "wb") as file:
            pickle.dump(state, file, protocol=5)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, self.path)

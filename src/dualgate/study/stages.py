"""Finished stages of a study: kept in memory, or as files that are always whole."""

import os
import pickle
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ROWS, SURVEY, READING, FIT = "rows", "survey", "reading", "fit"  # kinds of stages
LIMIT, AUDIT = "limit", "audit"


@dataclass(frozen=True)
class Stage:
    """A piece of work that is done once.

    Parameters
    ----------
    seed : int
        Seed it belongs to.
    key : str
        Name among the stages of its seed.
    kind : str
        Which stages take about as long: "rows", "survey", "reading", "limit", "audit", or "fit" with the kind of
        experts.
    label : str
        What is shown while it runs.
    reader : str
        The reader whose rows it makes or needs, if any.
    size : int
        How many rows it looks at, where that is asked for.
    """

    seed: int
    key: str
    kind: str = field(compare=False)
    label: str = field(compare=False)
    reader: str = field(default="", compare=False)
    size: int = field(default=0, compare=False)


class StageError(RuntimeError):
    """A file of a finished stage cannot be read; the message says which to delete."""


class Stages:
    """What finished stages found, by seed and key.

    Arrays are kept in `.npz` files. The fitted reader of a survey is a pickle, as trustworthy as who wrote it. A file
    is replaced in one step, so that a kill at any moment leaves all that was finished before.

    Parameters
    ----------
    directory : Path or None
        Made when the first stage is kept; None keeps stages in memory.
    """

    def __init__(self, directory: Path | None = None):
        self.directory = None if directory is None else Path(directory)
        self._memory = {}

    def __contains__(self, stage: Stage) -> bool:
        if self.directory is None:
            return self._place(stage) in self._memory
        return self._place(stage).exists()

    def load(self, stage: Stage):
        """Return the arrays of a stage by name, each read when it is asked for; or the object of a survey.

        Raises
        ------
        StageError
            If its file is damaged.
        """
        place = self._place(stage)
        if self.directory is None:
            return self._memory[place]
        with _whole(place):
            return _unpickle(place) if place.suffix == ".pickle" else StoredArrays(place)

    def save(self, stage: Stage, result):
        """Keep what a stage found: arrays and numbers by name, or any object for a survey."""
        place = self._place(stage)
        if self.directory is None:
            self._memory[place] = result
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place.with_name(place.name + ".part")
        with open(beside, "wb") as file:
            if place.suffix == ".pickle":
                pickle.dump(result, file, protocol=5)
            else:
                np.savez(file, **result)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, place)

    def _place(self, stage):
        suffix = ".pickle" if stage.kind == SURVEY else ".npz"
        name = Path(f"seed_{stage.seed}", f"{stage.key}{suffix}")
        return name if self.directory is None else self.directory / name


class StoredArrays(Mapping):
    """Arrays of a stage's `.npz` file by name, each read when it is asked for; StageError where it is damaged."""

    def __init__(self, path):
        self.path = path
        with open(path, "rb") as file, np.load(file) as arrays:  # no pickles
            self._names = frozenset(arrays.files)

    def __iter__(self):
        return iter(self._names)

    def __len__(self):
        return len(self._names)

    def __getitem__(self, name):
        if name not in self._names:
            raise KeyError(name)
        with _whole(self.path), np.load(self.path) as file:
            return file[name]


@contextmanager
def _whole(path):
    """Say which file of a stage cannot be read."""
    try:
        yield
    except Exception as error:  # damaged bytes make zip files, NumPy and pickles raise nearly anything
        reason = str(error) or type(error).__name__
        raise StageError(f"{path}: is no whole stage ({reason}): delete it, and it is run again.") from None


def _unpickle(path):
    with open(path, "rb") as file:
        return pickle.load(file)

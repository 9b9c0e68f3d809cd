"""What a method of the study is: a view on a fit, and what tells one fit from another."""

import hashlib
import json
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from sklearn.base import BaseEstimator

REFERENCE, SINGLE, DUAL, VARIANT, PEER = "reference", "single tower", "dual tower", "variant", "peer"
MIXTURE, ORACLE, ROOT = "mixture", "oracle", "root"  # whose prediction a method is


@dataclass(frozen=True)
class Reader:
    """One way to read the rows: what changes in the default model before its features and projection are fitted.

    Parameters
    ----------
    parameters : mapping, default={}
        For `set_params` of the default model.
    needs : frozenset of str, default=frozenset()
        What the rows must have, as in `StudyRows.offers`.
    make : callable, (data, train, seed) -> mapping, default=None
        Further parameters, for what depends on the rows: it is called once a seed, before the reader is fitted to the
        rows `train` of `data`.
    """

    parameters: Mapping = field(default_factory=dict)
    needs: frozenset = frozenset()
    make: Callable | None = None

    @property
    def key(self) -> str:
        """Name of what it reads: the same for readers that differ in nothing but their name."""
        return digest([self.parameters, self.make])[:12]


@dataclass(frozen=True)
class Method:
    """One model of the comparison.

    Methods whose fits are the same share one: routing, oracle and root are but views on it.

    Parameters
    ----------
    name : str
        Key in `results.json`.
    label : str
        Name in tables and figures.
    kind : str
        `REFERENCE` (no gate), `SINGLE`, `DUAL`, `VARIANT` (never chosen to answer a question) or `PEER`.
    experts : str
        "4", "9", "9x4", or empty where there are none.
    parameters : mapping, default={}
        What makes the default model this one, for `set_params`.
    group : str
        One of the roster's groups.
    description : str
        One line for `dualgate study --list`.
    main : bool, default=False
        Whether it runs where no methods are chosen.
    reader : str, default="default"
        Name of the reader; every reader reads the rows of a seed once.
    view : str, default="mixture"
        `MIXTURE`, `ORACLE` (each row's own expert, its regime known) or `ROOT` (the ridge for all rows).
    routing : "soft", "hard" or int
        As in `DualTowerMoERegressor`, at prediction.
    one_regime : bool, default=False
        Fit with all rows in one regime.
    peer : callable, seed -> regressor, default=None
        A scikit-learn regressor in the mixture's place, on the columns [projected | quality features].
    kept : mapping, default={}
        Numbers of the features that a gate, "phys" or "quality", still reads; where it is not named, all.
    needs : frozenset of str, default=frozenset()
        What the rows must have.
    package : str
        What must be importable, if anything; its version is part of the fit's name.
    """

    name: str
    label: str
    kind: str
    experts: str = ""
    parameters: Mapping = field(default_factory=dict)
    group: str = "reference"
    description: str = ""
    main: bool = False
    reader: str = "default"
    view: str = MIXTURE
    routing: str | int = "soft"
    one_regime: bool = False
    peer: Callable | None = None
    kept: Mapping = field(default_factory=dict)
    needs: frozenset = frozenset()
    package: str = ""

    @property
    def gated(self) -> bool:
        """Whether a trained gate speaks."""
        return self.view == MIXTURE and self.peer is None

    def fit_key(self, reader: Reader) -> str:
        """Name of the fit: the same for methods that differ in their view alone."""
        packages = [self.package, _version(self.package)] if self.package else []
        return digest([reader.key, self.parameters, self.kept, self.one_regime, self.peer, *packages])[:12]


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:  # it is not there, or was put there by hand
        return None


def digest(value) -> str:
    """SHA-256 of plain values, estimators and functions; the same in every process.

    Examples
    --------
    >>> digest({"a": 1, "b": (2,)}) == digest({"b": [2], "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(_describe(value), sort_keys=True).encode()).hexdigest()


def _describe(value):
    """Describe a value by what JSON knows."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, numbers.Number):
        return value.item()
    if isinstance(value, Mapping):
        return {str(name): _describe(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_describe(each) for each in value]
    if isinstance(value, slice):
        return ["slice", value.start, value.stop, value.step]
    if isinstance(value, np.ndarray):
        return [str(value.dtype), list(value.shape), hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()]
    if isinstance(value, BaseEstimator):
        return [type(value).__qualname__, _describe(value.get_params(deep=False))]
    if callable(value) and "<" not in value.__qualname__:  # a name that finds it again
        return [value.__module__, value.__qualname__]
    raise TypeError(f"{value!r} cannot be told from others: use plain values, estimators or functions of a module.")

"""Deleted at the merge: the names of the new core, made of the old one."""

import dataclasses
import hashlib
import json
import os
import pickle
import sys
import types
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

import dualgate
from dualgate import DualTowerMoERegressor
from dualgate import _fitting, reduced

RENAMED = {
    "phys_gate__discriminants": "phys_gate__scores",
    "quality_gate__score_variances": "quality_gate__variances",
    "experts__projection__max_iter": "experts__projection__n_iter",
}
_set, _get = DualTowerMoERegressor.set_params, DualTowerMoERegressor.get_params
DualTowerMoERegressor.set_params = lambda self, **more: _set(self, **{RENAMED.get(k, k): v for k, v in more.items()})


def _params(self, deep=True):
    found = _get(self, deep)
    return found | {new: found[old] for new, old in RENAMED.items() if old in found} if deep else found


DualTowerMoERegressor.get_params = _params


class ReducedRows(reduced.ReducedRows):
    def __init__(self, reduction=None, projected=None, snr=None, features=None, variances=None, reader=None,
                 noise_power=None):  # fmt: skip
        super().__init__(reader or reduction.reader, projected, snr, features, variances)

    def __getitem__(self, rows):
        return dataclasses.replace(self, **vars(super().__getitem__(rows)))


class Reduction:
    def __init__(self, model):
        self.model = model

    @classmethod
    def of(cls, model):
        return cls(model)

    def fit(self, X, y=None, regimes=None):
        self.reader = _fitting.fit_reader(self.model, X, y, regimes)
        return self

    def read(self, X, *, training=False):
        found = self.reader.read(X, training=training)
        return ReducedRows(self, found.projected, found.snr, found.features, found.variances)


def _fuse(self, features):
    from dualgate.gating._nets import run_gates

    return run_gates(self.net_, features)[-1]


def _pixels(self):
    from dualgate.features import NoiseWhitenedPCA, WienerScores

    experts = self.experts_
    projection = experts._unfrozen()
    coefs = np.vstack([experts.coef_, experts.root_coef_])
    if isinstance(projection, WienerScores):
        return projection.to_pixels(coefs)
    if isinstance(projection, NoiseWhitenedPCA):
        return coefs @ projection.components_ / projection.noise_
    return coefs if projection is None else None


DualTowerMoERegressor.fuse, DualTowerMoERegressor.pixel_coefficients = _fuse, _pixels


class StoreError(RuntimeError):
    pass


class _Arrays(Mapping):
    def __init__(self, path):
        self.path = path
        with open(path, "rb") as raw, np.load(raw) as file:
            self.names = frozenset(file.files)

    def __iter__(self):
        return iter(self.names)

    def __len__(self):
        return len(self.names)

    def __getitem__(self, name):
        if name not in self.names:
            raise KeyError(name)
        try:
            with np.load(self.path) as file:
                return file[name]
        except Exception as error:
            raise StoreError(f"{self.path}: cannot be read ({error}): delete it") from None


class Store:
    def __init__(self, directory=None):
        self.directory = None if directory is None else Path(directory)
        self.memory = {}

    def _paths(self, name):
        return [self.directory / f"{name}{end}" for end in (".npz", ".pickle")]

    def __contains__(self, name):
        if self.directory is None:
            return name in self.memory
        return any(path.exists() for path in self._paths(name))

    def load(self, name):
        if self.directory is None:
            return self.memory[name]
        path = next(path for path in self._paths(name) if path.exists())
        try:
            return _Arrays(path) if path.suffix == ".npz" else pickle.loads(path.read_bytes())
        except Exception as error:
            raise StoreError(f"{path}: cannot be read ({error}): delete it") from None

    def save(self, name, value):
        if self.directory is None:
            self.memory[name] = value
            return
        npz, other = self._paths(name)
        arrays = isinstance(value, dict) and all(np.asarray(each).dtype != object for each in value.values())
        path = npz if arrays else other
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        with open(part, "wb") as file:
            np.savez(file, **value) if arrays else pickle.dump(value, file)
        os.replace(part, path)


def digest(*value):
    return hashlib.sha256(json.dumps(_describe(value), sort_keys=True).encode()).hexdigest()


def _describe(value):
    import numbers

    from sklearn.base import BaseEstimator

    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, numbers.Number):
        return value.item()
    if isinstance(value, Mapping):
        return {str(name): _describe(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_describe(each) for each in value]
    if isinstance(value, BaseEstimator):
        return [type(value).__qualname__, _describe(value.get_params(deep=False))]
    if callable(value) and "<" not in value.__qualname__:
        return [value.__module__, value.__qualname__]
    raise TypeError(f"{value!r} cannot be told from others")


def code_hash(*modules):
    found = hashlib.sha256()
    home = Path(dualgate.__file__).parent
    for path in sorted(home.rglob("*.py")):
        if path.parent.name != "study" or path.stem in ("run", "methods", "inputs"):
            found.update(path.read_bytes())
    return found.hexdigest()


for name, members in {
    "dualgate.reduction": (Reduction, ReducedRows),
    "dualgate.rows.store": (Store, StoreError, digest, code_hash),
}.items():
    sys.modules[name] = types.ModuleType(name)
    for member in members:
        setattr(sys.modules[name], member.__name__, member)
import dualgate.rows  # noqa: E402

dualgate.rows.store = sys.modules["dualgate.rows.store"]

"""The work of one seed: its rows, its readings, and the fits on them."""

import time
from dataclasses import replace
from functools import cached_property

import numpy as np
from sklearn.base import clone

from dualgate._fitting import fit_reader
from dualgate.reduced import ReducedRows
from dualgate.study.extras import audit_rows, limit_of_rows, permuted, pixel_coefficients
from dualgate.study.methods import DUAL, MIXTURE, ORACLE, ROOT
from dualgate.study.readers import READERS
from dualgate.study.stages import AUDIT, LIMIT, READING, ROWS, SURVEY, Stage
from dualgate.trace import MixtureTrace

TRAIN, VALIDATION = 0.8, 0.1  # shares of the rows; the rest is the test part
TRACED = ("log_weights", "expert_predictions", "root_prediction", "phys_logits", "quality_logits")
SINGLE_PRECISION = {"log_weights", "phys_logits", "quality_logits"}  # a target may need all the digits it has
BESIDE = ("snr", "variances", "noise_power")  # what a reading may hold of a row beside its projected columns


class SeedWork:
    """Runs the stages of one seed; rows are asked for only when a stage needs them.

    Parameters
    ----------
    make_data : callable, seed -> data
    make_model : callable, (data, seed) -> estimator
    seed : int
    stages : Stages
        Where what a stage builds on is found.
    """

    def __init__(self, make_data, make_model, seed, stages):
        self.make_data, self.make_model, self.seed, self.stages = make_data, make_model, seed, stages
        self._reduced = None, None  # the reader's name and its rows: those of one reader at a time

    @cached_property
    def data(self):
        """Rows of this seed."""
        return self.make_data(self.seed)

    @cached_property
    def base(self):
        """The default model."""
        return self.make_model(self.data, self.seed)

    def run(self, stage, method):
        """Return what a stage finds, with its `seconds`."""
        start = time.perf_counter()
        if stage.kind == ROWS:
            found = self._rows()
        elif stage.kind == SURVEY:
            found = {"reader": self._survey(stage.reader)}
        elif stage.kind == READING:
            found = self._read(stage)
        elif stage.kind == LIMIT:
            found = limit_of_rows(self.data, self._test(), stage.size, self.seed)
        elif stage.kind == AUDIT:
            found = audit_rows(self.data, self._test(), self.reduced(stage.reader), stage.size, self.seed)
        elif method.peer is not None:
            found = self._fit_peer(method)
        else:
            found = self._fit_mixture(method)
        return {**found, "seconds": time.perf_counter() - start}

    def _rows(self):
        """Tell what is known of the rows without reading them, and divide them."""
        data = self.data
        train, held_out, n_validation = split_rows(len(data.y), self.seed if data.get("ordered") else None)
        edges = data.get("regime_edges") if data.get("conditions") is not None else None
        known = {name: data.get(name) for name in ("regimes", "conditions", "snr", "wave")}
        return {
            "y": np.asarray(data.y, dtype=np.float64),
            "train": train,
            "held_out": held_out,
            "n_validation": n_validation,
            "n_edges": len(edges or ()),
            **{f"edges_{place}": np.asarray(each, dtype=float) for place, each in enumerate(edges or ())},
            **{name: np.asarray(values) for name, values in known.items() if values is not None},
        }

    def _part(self, name):
        """Return an array of the rows' stage; None where it has none of that name."""
        return self.stages.load(Stage(self.seed, ROWS, ROWS, "")).get(name)

    def _test(self):
        """Numbers of the test rows."""
        return self._part("held_out")[int(self._part("n_validation")) :]

    def _model(self, reader, *, whole=False):
        """Make the model of a reader; what depends on the rows only where it is to read them."""
        found = READERS[reader]
        more = found.make(self.data, self._part("train"), self.seed) if whole and found.make else {}
        return clone(self.base).set_params(**found.parameters).set_params(**more)

    def _survey(self, reader):
        """Fit gates' features and projection to the training rows."""
        train, regimes = self._part("train"), self._part("regimes")
        known = {} if regimes is None else {"regimes": regimes[train]}
        return fit_reader(self._model(reader, whole=True), self.data.X[train], self._part("y")[train], **known)

    def _read(self, stage):
        """Read all rows once: the few numbers of each that gates and experts work with.

        Training rows are read as such: what was learned from a row would flatter it.
        """
        reader = self._reader(stage.reader)
        train, held_out = self._part("train"), self._part("held_out")
        parts = [
            (train, reader.read(self.data.X[train], training=True)),
            (held_out, reader.read(self.data.X[held_out])),
        ]
        joined = _join([(rows, _columns(reduced)) for rows, reduced in parts])
        self._reduced = stage.reader, _as_reduced(reader, joined)
        return joined

    def _reader(self, name):
        return self.stages.load(Stage(self.seed, f"{SURVEY}-{READERS[name].key}", SURVEY, ""))["reader"]

    def reduced(self, reader):
        """Rows as a reader reads them, from its finished stages."""
        if self._reduced[0] != reader:
            found = self.stages.load(Stage(self.seed, f"{READING}-{READERS[reader].key}", READING, ""))
            self._reduced = reader, _as_reduced(self._reader(reader), found)
        return self._reduced[1]

    def _fit_mixture(self, method):
        """Fit a mixture to the training rows, and trace the others through it."""
        rows, y = _with_features(self.reduced(method.reader), method.kept), self._part("y")
        train, held_out = self._part("train"), self._part("held_out")
        regimes = np.zeros(len(y), dtype=np.intp) if method.one_regime else self._part("regimes")
        model = self._model(method.reader).set_params(**method.parameters)
        model.fit(rows[train], y[train], regimes=None if regimes is None else regimes[train])
        start = time.perf_counter()
        unseen = rows[held_out]
        trace = model.trace(unseen)
        found = {name: getattr(trace, name) for name in TRACED if getattr(trace, name) is not None}
        found = {name: it.astype(np.float32) if name in SINGLE_PRECISION else it for name, it in found.items()}
        if regimes is not None:
            found["own"] = model.experts_.cells_of(regimes[held_out], unseen.snr, len(unseen))
        found |= {"coef": model.experts_.coef_, "intercept": model.experts_.intercept_}
        found |= pixel_coefficients(model.experts_) | _snr(unseen)
        if method.kind == DUAL:
            test = slice(int(self._part("n_validation")), None)
            found |= permuted(model, trace, y[held_out], test, self.seed)
        return found | {"seconds_predict": time.perf_counter() - start}

    def _fit_peer(self, method):
        """Fit another regressor to what experts and quality gate read."""
        rows, y = self.reduced(method.reader), self._part("y")
        beside = [] if rows.variances is None else [np.log(rows.variances)]
        quality = [rows.features["quality"]] if "quality" in rows.features else []
        columns = np.hstack([rows.projected, *beside, *quality])
        train, held_out = self._part("train"), self._part("held_out")
        model = method.peer(self.seed).fit(columns[train], y[train])
        start = time.perf_counter()
        prediction = model.predict(columns[held_out])
        return {"prediction": prediction} | _snr(rows[held_out]) | {"seconds_predict": time.perf_counter() - start}


def split_rows(n_rows: int, seed: int | None):
    """Divide rows: which train, which are held out, and how many of these are for validation, the rest for the test.

    Parameters
    ----------
    n_rows : int
    seed : int or None
        Divides at random, as files may be sorted by anything; None takes rows in their order.

    Examples
    --------
    >>> train, held_out, n_validation = split_rows(20, None)
    >>> len(train), held_out.tolist(), n_validation
    (16, [16, 17, 18, 19], 2)
    """
    n_train, n_seen = (int(share * n_rows) for share in (TRAIN, TRAIN + VALIDATION))
    order = np.arange(n_rows) if seed is None else np.random.default_rng(seed).permutation(n_rows)
    return np.sort(order[:n_train]), order[n_train:], n_seen - n_train


def gate_trace(method, arrays) -> MixtureTrace:
    """Every stage of a fitted mixture's prediction, routed as the method says.

    In double precision weights sum to one closely enough for a target whose spread is small beside its mean.
    """
    stages = {name: np.asarray(arrays[name], dtype=np.float64) for name in TRACED if name in arrays}
    return MixtureTrace(**stages, routing=method.routing)


def answer(method, arrays) -> np.ndarray:
    """Prediction of a method for the held-out rows, from the arrays of its fit."""
    if method.peer is not None:
        return arrays["prediction"]
    if method.view == ROOT:
        return arrays["root_prediction"]
    if method.view == ORACLE:
        own = arrays["own"]
        return arrays["expert_predictions"][np.arange(len(own)), own]
    assert method.view == MIXTURE, method.view
    return gate_trace(method, arrays).prediction


def _columns(reduced):
    """Everything that was read of rows, by name."""
    features = {f"features_{name}": values for name, values in reduced.features.items()}
    beside = {name: getattr(reduced, name) for name in BESIDE if getattr(reduced, name) is not None}
    return {"projected": reduced.projected, **beside, **features}


def _join(parts):
    """Put parts of the rows in their places: `parts` are pairs of row numbers and columns by name."""
    n_rows = sum(len(rows) for rows, _ in parts)
    joined = {}
    for name, first in parts[0][1].items():
        joined[name] = np.empty((n_rows, *first.shape[1:]), dtype=first.dtype)
        for rows, columns in parts:
            joined[name][rows] = columns[name]
    return joined


def _as_reduced(reader, found):
    prefix = "features_"
    features = {name.removeprefix(prefix): found[name] for name in found if name.startswith(prefix)}
    return ReducedRows(reader, found["projected"], features=features, **{name: found.get(name) for name in BESIDE})


def _with_features(rows, kept):
    """Rows whose gates read some of their features alone."""
    features = {name: values[:, kept[name]] if name in kept else values for name, values in rows.features.items()}
    return replace(rows, features=features)


def _snr(rows):
    return {} if rows.snr is None else {"snr": rows.snr}

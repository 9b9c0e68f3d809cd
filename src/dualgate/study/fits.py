"""The work of one seed: its rows, its readings, and the fits on them."""

import time
from functools import cached_property

import numpy as np
from sklearn.base import clone

from dualgate._fitting import fit_reader
from dualgate.reduced import ReducedRows
from dualgate.study.methods import MIXTURE, ORACLE, ROOT
from dualgate.study.roster import READERS
from dualgate.study.stages import READING, ROWS, SURVEY, Stage
from dualgate.trace import MixtureTrace

TRAIN, VALIDATION = 0.8, 0.1  # shares of the rows; the rest is the test part
TRACED = ("log_weights", "expert_predictions", "root_prediction", "phys_logits", "quality_logits")


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
            found = {"reader": fit_reader(self._model(stage.reader), self.data.X[self._part("train")])}
        elif stage.kind == READING:
            found = self._read(stage)
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
        known = {name: data.get(name) for name in ("regimes", "conditions", "snr")}
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

    def _model(self, reader):
        return clone(self.base).set_params(**READERS[reader].parameters)

    def _read(self, stage):
        """Read all rows once: the few numbers of each that gates and experts work with."""
        rows = self._reader(stage.reader).read(self.data.X)
        self._reduced = stage.reader, rows
        features = {f"features_{name}": values for name, values in rows.features.items()}
        return {"projected": rows.projected, **features, **({} if rows.snr is None else {"snr": rows.snr})}

    def _reader(self, name):
        return self.stages.load(Stage(self.seed, f"{SURVEY}-{READERS[name].key}", SURVEY, ""))["reader"]

    def reduced(self, reader):
        """Rows as a reader reads them, from its finished stages."""
        if self._reduced[0] != reader:
            found = self.stages.load(Stage(self.seed, f"{READING}-{READERS[reader].key}", READING, ""))
            prefix = "features_"
            features = {name.removeprefix(prefix): found[name] for name in found if name.startswith(prefix)}
            rows = ReducedRows(self._reader(reader), found["projected"], found.get("snr"), features)
            self._reduced = reader, rows
        return self._reduced[1]

    def _fit_mixture(self, method):
        """Fit a mixture to the training rows, and trace the others through it."""
        rows, y = self.reduced(method.reader), self._part("y")
        train, held_out = self._part("train"), self._part("held_out")
        regimes = np.zeros(len(y), dtype=np.intp) if method.one_regime else self._part("regimes")
        model = self._model(method.reader).set_params(**method.parameters)
        model.fit(rows[train], y[train], regimes=None if regimes is None else regimes[train])
        start = time.perf_counter()
        unseen = rows[held_out]
        trace = model.trace(unseen)
        found = {name: getattr(trace, name) for name in TRACED if getattr(trace, name) is not None}
        found = {name: values.astype(np.float32) for name, values in found.items()}
        if regimes is not None:
            found["own"] = model.experts_.cells_of(regimes[held_out], unseen.snr, len(unseen))
        experts = {"coef": model.experts_.coef_, "intercept": model.experts_.intercept_}
        return found | experts | _snr(unseen) | {"seconds_predict": time.perf_counter() - start}

    def _fit_peer(self, method):
        """Fit another regressor to the projected columns and the quality features."""
        rows, y = self.reduced(method.reader), self._part("y")
        columns = np.hstack([rows.projected, *(rows.features[name] for name in ("quality",) if name in rows.features)])
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
    """Every stage of a fitted mixture's prediction, routed as the method says."""
    stages = {name: arrays[name] for name in TRACED if name in arrays}
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


def _snr(rows):
    return {} if rows.snr is None else {"snr": rows.snr}

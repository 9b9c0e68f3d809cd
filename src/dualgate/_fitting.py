"""What the mixture's fit is made of: parameter checks, a cache, regimes of its own, and what the gates learn from."""

import numbers
from copy import copy
from dataclasses import dataclass
from functools import partial

import joblib
import numpy as np
import sklearn
from sklearn.base import clone
from sklearn.utils.validation import check_memory

import dualgate
from dualgate._validation import check_choice, check_number, make_generator, resolve_columns
from dualgate.checkpoint import Checkpoint
from dualgate.experts.passes import begin_sums, survey
from dualgate.experts.regimes import regime_codes
from dualgate.finding import RegimeFinder, finding_rows
from dualgate.passes import Collect, run_passes
from dualgate.reduced import ReducedRows, RowReader
from dualgate.rows import RowSource, check_rows_or_source, checked_once, map_blocks, spread_rows, take_rows

GATE_ROWS = 200_000  # rows of a source that the towers learn from, at most; the experts learn from all
LOSSES = ("mse", "cross_entropy")


def check_parameters(model):
    """Check the constructor arguments of a `DualTowerMoERegressor` that are not components."""
    if model.phys_gate == "drop" and model.quality_gate == "drop":
        raise ValueError(
            "DualTowerMoERegressor.phys_gate='drop' and quality_gate='drop' leave no tower: keep at least one."
        )
    check_choice(model, "loss", model.loss, LOSSES)
    check_routing(model)
    for name, low in {"n_regimes": 1, "max_epochs": 1, "warmup_epochs": 0, "patience": 1}.items():
        check_number(model, name, getattr(model, name), kind=numbers.Integral, low=low)
    if model.batch_size is not None:
        check_number(model, "batch_size", model.batch_size, kind=numbers.Integral, low=1)
    check_number(model, "lr", model.lr, low=0, strict=True)
    check_number(model, "entropy_penalty", model.entropy_penalty)
    check_number(model, "weight_decay", model.weight_decay, low=0)
    check_number(model, "validation_fraction", model.validation_fraction, low=0, high=0.5)


def check_routing(model):
    """Check the arguments that act at prediction, and may have been set after `fit`."""
    if model.routing not in ("soft", "hard"):
        hint = "use 'soft', 'hard', or how many experts to keep."
        check_number(model, "routing", model.routing, kind=numbers.Integral, low=1, hint=hint)
    if model.fallback_confidence is not None:
        check_number(model, "fallback_confidence", model.fallback_confidence, low=0, high=1)


@dataclass
class Lesson:
    """Fitted gates and experts, and the rows that their towers are to learn from.

    Parameters
    ----------
    gates : dict of str to PhysGate or QualityGate
        Under "phys" and "quality"; a dropped tower is absent.
    experts : HierarchicalExperts
    features : dict of str to ndarray of shape (n_rows, n_gate_features)
    predictions : ndarray of shape (n_rows, n_experts)
        Cross-fitted, unless asked otherwise.
    cells : ndarray of int of shape (n_rows,)
        True cell of each row.
    y : ndarray of shape (n_rows,)
    """

    gates: dict
    experts: object
    features: dict
    predictions: np.ndarray
    cells: np.ndarray
    y: np.ndarray


def learn(model, X, rows, y, regimes, generator, checkpoint):
    """Fit gates and experts to validated rows: in memory, read before, or read now from a source."""
    if isinstance(rows, RowSource):
        return learn_from_source(model, rows, y, regimes, generator, checkpoint)
    if checkpoint is not None:
        raise ValueError(
            f"DualTowerMoERegressor.fit: checkpoint={checkpoint!r} is for rows that are read block by block, X is in "
            "memory: leave it None, or give a memory map or another row source."
        )
    if isinstance(rows, ReducedRows):
        return learn_from_reduced(model, rows, y, regimes, generator)
    return learn_from_array(model, X if hasattr(X, "columns") else rows, y, regimes, generator)


def learn_from_array(model, rows, y, regimes, generator):
    """Fit gates and experts to rows in memory, an array or a DataFrame, through the cache."""
    cache = Cache(model.memory, rows, y, regimes)
    gates, features = {}, {}
    for name, gate in _make_gates(model).items():
        gates[name], features[name] = cached_features(cache, gate, rows, y)
    experts = _make_experts(model, generator)
    if regimes is None:
        regimes = cache(find_codes, experts, rows, y, next(iter(features.values())), model.n_regimes)
    experts, predictions, reduced = cache(fit_experts, experts, rows, y, regimes, model.cross_fit)
    features = gate_readings(gates, experts, features, **reduced)
    codes, _ = regime_codes(model, regimes, experts._regime_edges, len(y))
    cells = codes * experts.n_quality_bins_
    if model.loss == "cross_entropy" and experts.n_quality_bins_ > 1:
        cells += experts.quality_bins(rows)
    return Lesson(gates, experts, features, predictions, cells, y)


def learn_from_source(model, source, y, regimes, generator, checkpoint):
    """Fit gates and experts in two passes over a source; the towers learn from at most `GATE_ROWS` of its rows."""
    if model.memory is not None:
        raise ValueError(
            f"DualTowerMoERegressor.memory={model.memory!r} keeps fits of rows in memory, X is a row source: set "
            "memory=None, and give fit a checkpoint= path to be safe from a kill."
        )
    checkpoint = Checkpoint.of(model, checkpoint, source, y, regimes)
    reader = RowReader(_make_gates(model), _make_experts(model, generator), model.n_jobs)

    def survey():
        sample = spread_rows(source, n_jobs=model.n_jobs)
        along = [] if regimes is not None else [_begin_finding(model, reader, source, y, sample)]
        target = y, known_codes(reader, regimes, len(y))
        return reader, *reader.fit(source, source, sample, checkpoint, along, target)

    reader, ratios, origin, along = checkpoint.stage("survey", survey)
    experts = reader.experts
    codes, n_regimes = regime_codes(
        experts, along[0].pieces.joined() if along else regimes, experts.regime_edges if not along else None, len(y)
    )
    cells, folds = experts._sort(codes, n_regimes, ratios)
    kept = _choose_rows(len(y), generator)

    def sums():
        passes = [begin_sums(experts, origin, y, (cells, folds, kept), model.n_jobs)]
        passes += [Collect(gate.transform, kept, n_jobs=model.n_jobs) for gate in reader.gates.values()]
        return run_passes(model, passes, source, n_jobs=model.n_jobs, checkpoint=checkpoint)

    sums, *seen = checkpoint.stage("sums", sums)
    models, reduced = experts._solve(sums), sums.kept_rows.joined()
    features = {name: each.pieces.joined() for name, each in zip(reader.gates, seen, strict=True)}
    features = gate_readings(reader.gates, experts, features, **reduced, folds=folds[kept])
    predictions = _predict_each(model.cross_fit, experts, reduced["projected"], folds[kept], models)
    return Lesson(reader.gates, experts, features, predictions, cells[kept], y[kept])


def learn_from_reduced(model, reduced, y, regimes, generator):
    """Fit the experts to rows that were read before; gates and projection are those of the reader."""
    own = _make_gates(model)
    missing = [name for name in own if name not in reduced.reader.gates]
    if missing:
        raise ValueError(
            f"DualTowerMoERegressor.{missing[0]}_gate is used, but the rows were read without it: drop it here too, or "
            "read the rows with it."
        )
    gates = {name: _with_tower(reduced.reader.gates[name], gate) for name, gate in own.items()}
    features = {name: reduced.features[name] for name in gates}
    experts = _make_experts(model, generator)
    experts._read_like(reduced.reader.experts)
    edges = experts.regime_edges
    if regimes is None:
        regimes, edges = _find_in_reduced(model, experts, next(iter(features.values())), reduced.projected, y), None
    codes, n_regimes = regime_codes(experts, regimes, edges, len(y))
    cells, folds = experts._sort(codes, n_regimes, reduced.snr)
    sums = begin_sums(experts, reduced.projected.mean(axis=0, dtype=np.float64), y, (cells, folds, None))
    sums.add(0, reduced.projected, reduced.noise_power)
    kept = _choose_rows(len(y), generator)
    taken = reduced[kept]
    predictions = _predict_each(model.cross_fit, experts, taken.projected, folds[kept], experts._solve(sums))
    features = gate_readings(gates, experts, taken.features, taken.projected, taken.variances, folds[kept])
    return Lesson(gates, experts, features, predictions, cells[kept], y[kept])


def _with_tower(fitted, own):
    """Return a gate with the features of `fitted` and the tower of `own`."""
    own._check_tower()
    return copy(fitted).set_params(**{name: getattr(own, name) for name in own.tower_parameters})


def gate_readings(gates, experts, features, projected, variances=None, folds=None):
    """Collect what each tower reads of some rows: features of its gate, and what the gate wants to know of the experts.

    Parameters
    ----------
    gates : dict of str to PhysGate or QualityGate
    experts : HierarchicalExperts
    features : dict of str to ndarray of shape (n_samples, n_gate_features)
    projected, variances
        From the experts.
    folds : None or ndarray of int of shape (n_samples,)
        Folds of training rows, so that no discriminant has seen the row it is taken of.

    Returns
    -------
    readings : dict of str to ndarray of shape (n_samples, n_read)
    """
    found = experts._discriminants
    wanted = found is not None and any(getattr(gate, "scores", False) for gate in gates.values())
    discriminants = found(projected, folds) if wanted else None
    return {name: gate.reading(features[name], discriminants, variances) for name, gate in gates.items()}


def fit_reader(model, X, y=None, regimes=None):
    """Fit what turns rows of X into `ReducedRows` for this mixture and for all that read alike.

    Targets and regimes are for a projection that is supervised, such as that of `for_spectra`.
    """
    rows = check_rows_or_source(model, X, reset=True)
    reader = RowReader(
        _make_gates(model), _make_experts(model, make_generator(model, model.random_state)), model.n_jobs
    )
    with checked_once(rows):
        sample = spread_rows(rows, n_jobs=model.n_jobs)
        reader.fit(X, rows, sample, target=(y, known_codes(reader, regimes, len(rows))))
    return reader


def known_codes(reader, regimes, n_rows):
    """Codes of regimes that were given, None where they are to be found."""
    return None if regimes is None else regime_codes(reader.experts, regimes, reader.experts.regime_edges, n_rows)[0]


def _choose_rows(n_rows, generator):
    """Mark all rows, or `GATE_ROWS` of them at random."""
    kept = np.zeros(n_rows, dtype=bool)
    kept[generator.permutation(n_rows)[:GATE_ROWS]] = True
    return kept


def _make_gates(model):
    names = [name for name in ("phys", "quality") if getattr(model, f"{name}_gate") != "drop"]
    return {name: model._realise(f"{name}_gate") for name in names}


def _make_experts(model, generator):
    experts, seed = model._realise("experts"), int(generator.integers(2**31))
    if experts.random_state is None:
        experts.set_params(random_state=seed)
    if experts.n_jobs is None:
        experts.set_params(n_jobs=model.n_jobs)
    return experts


def _predict_each(cross_fit, experts, projected, folds, models):
    """Prediction of every expert for training rows, by models that did not see them where `cross_fit` is set."""
    if cross_fit:
        return experts._cross_fitted(projected, folds, models)
    return experts._predict_projected(projected)[:, :-1]


def _find_in_reduced(model, experts, features, projected, y):
    """Regimes of rows that were read before, found on as many as it takes."""
    chosen = finding_rows(len(y), projected.shape[1])
    finder = RegimeFinder(model.n_regimes, experts.random_state)
    finder.fit(features[chosen], projected[chosen], y[chosen], scores=experts.projection is not None)
    return map_blocks(model, lambda i, block: finder.predict(features[i : i + len(block)], block), projected)


def _begin_finding(model, reader, source, y, sample):
    """Make the pass that gives every row of a source its regime, by what is found in some of its rows."""
    gate = next(iter(reader.gates.values())).fit(sample)
    chosen = finding_rows(len(y), source.shape[1])
    rows = take_rows(source, chosen, n_jobs=model.n_jobs)
    finder = _ScoutedFinder(reader.experts, model.n_regimes).fit(gate.transform(rows), rows, y[chosen])
    return Collect(partial(finder.predict_rows, gate), n_jobs=model.n_jobs)


class _ScoutedFinder:
    """Regimes found with a projection that was fitted to some rows alone, before the experts know theirs."""

    def __init__(self, experts, n_regimes):
        self.experts = clone(experts).set_params(quality_edges=None)
        self.finder = RegimeFinder(n_regimes, experts.random_state)

    def fit(self, features, rows, y):
        self.experts._prepare(rows, rows)
        survey(self.experts, rows, rows, Checkpoint(None), self.experts.n_jobs, target=(y, None))
        projected = self.experts._reduce(rows, 0)["projected"]  # scores of loadings that did not see the row
        self.finder.fit(features, projected, y, scores=self.experts.projection is not None)
        return self

    def predict_rows(self, gate, rows):
        """Regimes of rows of X."""
        return self.finder.predict(gate.transform(rows), self.experts._project(rows))


class Cache:
    """Call functions through joblib's Memory; the rows are hashed once, not once per call."""

    def __init__(self, memory, rows, y, regimes):
        self.memory = None if memory is None else check_memory(memory)
        self.key = None
        if self.memory is not None:
            names = [str(name) for name in getattr(rows, "columns", [])]
            versions = dualgate.__version__, sklearn.__version__
            self.key = joblib.hash((np.asarray(rows), names, y, regimes, versions), hash_name="sha1")  # outruns md5

    def __call__(self, function, component, rows, y, *extra):
        """Return ``function(component, rows, y, key, *extra)``, from the cache where it is known."""
        if self.memory is None:
            return function(component, rows, y, None, *extra)
        for name, spec in component.get_params(deep=False).items():
            if name.endswith("columns") and callable(spec):  # what it selects is known by its result, not its name
                component.set_params(**{name: resolve_columns(component, name, spec, rows, rows.shape[1]).tolist()})
        return self.memory.cache(function, ignore=["rows", "y"])(component, rows, y, self.key, *extra)


def fit_gate(gate, rows, y, key):
    """Fit a gate and compute its features; `key` stands for the rows in the cache."""
    return gate, gate.fit(rows, y).transform(rows)


def cached_features(cache, gate, rows, y):
    """Fit a gate through the cache, without its tower: a search over towers computes the features once."""
    plain = type(gate)()
    bare = clone(gate).set_params(**{name: getattr(plain, name) for name in gate.tower_parameters})
    fitted, features = cache(fit_gate, bare, rows, y)
    return _with_tower(fitted, gate), features


def find_codes(experts, rows, y, key, features, n_regimes):
    """Find the regimes of rows in memory; `key` stands for the rows in the cache."""
    chosen = finding_rows(len(y), rows.shape[1])
    scout = _ScoutedFinder(experts, n_regimes).fit(features[chosen], take_rows(rows, chosen), y[chosen])
    project = scout.experts._project
    return map_blocks(
        experts, lambda i, block: scout.finder.predict(features[i : i + len(block)], project(block)), rows
    )


def fit_experts(experts, rows, y, key, regimes, cross_fit):
    """Fit the experts, predict the training rows and reduce them; `key` stands for the rows in the cache."""
    reduced, folds, models = experts._fit(rows, y, regimes, keep=True)
    predictions = _predict_each(cross_fit, experts, reduced["projected"], folds, models)
    return experts, predictions, reduced | {"folds": folds}

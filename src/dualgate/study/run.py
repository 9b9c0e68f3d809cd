"""Run every stage of a study that is not finished, and gather what the analysis needs of every seed."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, field, replace
from functools import cached_property

import numpy as np
from sklearn.base import clone
from sklearn.metrics import r2_score

import dualgate.study._old_core  # noqa: F401, I001  deleted at the merge
from dualgate.datasets import bayes_limit
from dualgate.evaluation import gate_entropy, leakage_audit, permutation_contribution, tower_correlation
from dualgate.reduction import ReducedRows, Reduction
from dualgate.study.inputs import spectral_model
from dualgate.study.methods import BINNED, BINS, MIXTURE, ORACLE, READERS, ROOT, Method, main_methods, n_flux
from dualgate.trace import MixtureTrace

ROWS, REDUCTION, REDUCED, FIT = "rows", "reduction", "reduced rows", "fit"  # kinds of stages
LIMIT, AUDIT = "limit", "audit"
TRAIN, VALIDATION = 0.8, 0.1  # shares of the rows; the rest is the test part
TRACED = ("log_weights", "expert_predictions", "root_prediction", "phys_logits", "quality_logits")
SINGLE_PRECISION = {"log_weights", "phys_logits", "quality_logits"}  # a target may need all the digits it has
SHUFFLES, RESAMPLES = 5, 300  # of the permutation contributions
MIN_SIZE = 300  # effective draws a row: the sampling costs a third of a percent of the variance that is left
AUDIT_NUMBERS = ("target ridge", "target boosting", "snr ridge", "snr boosting", "errors")


@dataclass
class SeedRecord:
    """One seed's test targets and predictions: everything that outlives its rows.

    Parameters
    ----------
    seed : int
        Seed of the rows, the split and the models.
    n_train, n_validation : int
        Rows that the models were fitted to, and rows that chose among them.
    y : ndarray of shape (n_test,), [unit of y]
        Test targets.
    y_validation : ndarray of shape (n_validation,), [unit of y]
        Targets of the rows that choose among models.
    snr : ndarray of shape (n_test,) or None, [dimensionless]
        Signal-to-noise ratio of the test rows; None where the rows have none.
    regimes : ndarray of int, shape (n_test,), or None
        Regime of the test rows, where it is known.
    conditions : ndarray of shape (n_test, n_conditions) or None, [unit of each]
        Physical conditions of the test rows, where they are known.
    edges : tuple of ndarray
        Edges of the regimes along each condition.
    n_regimes, n_bins : int
        Regimes and quality bins that the experts of the fits have.
    predictions : dict of str to ndarray of shape (n_test,), [unit of y]
        By method name.
    validation : dict of str to ndarray of shape (n_validation,), [unit of y]
        Predictions of the validation rows by method name.
    validation_r2 : dict of str to float
        R^2 on the validation rows by method name.
    entropy : dict of str to ndarray of shape (n_test,), [nats]
        Gate entropy by method name.
    n_experts : dict of str to int
        Number of experts by method name.
    towers : dict of str to float
        Likeness of the two towers' outputs by method name, from
        :func:`~dualgate.evaluation.tower_correlation`.
    seconds : dict of str to float, [s]
        Duration of every stage: "rows" (targets and split), "reduction" (first pass, training rows: the projection),
        "reduced rows" (second pass, all rows: features and projected columns), each with the reader's name where it is
        not the default, then "fit" and "predict" of every fit, named after its first method.
    wave : ndarray of shape (n_pixels,) or None, [angstrom]
        Wavelengths of the flux columns.
    limit : dict or None
        Bayes limit of the first `rows` test rows: `prediction` and `std` of each [unit of y], `prior_variance` of y.
    audit : dict or None
        Leakage audit of the first `rows` test rows: `audit`, intervals (5, 3) in the order of `AUDIT_NUMBERS`.
    traces : dict of str to mapping
        Arrays of each method's fit on validation and test rows, by stage of the prediction, read when they are asked
        for: `log_weights`, `expert_predictions`, `phys_logits`, ..., `coef`, `intercept`, and where they are known
        `coef_pixels` (n_experts + 1, n_pixels), the root last, and `permutation`, the contributions (3, 3) of the
        physics tower, the quality tower and both.
    """

    seed: int
    n_train: int
    n_validation: int
    y: np.ndarray
    y_validation: np.ndarray
    snr: np.ndarray | None
    regimes: np.ndarray | None
    conditions: np.ndarray | None = None
    edges: tuple = ()
    n_regimes: int = 9
    n_bins: int = 4
    predictions: dict = field(default_factory=dict)
    validation: dict = field(default_factory=dict)
    validation_r2: dict = field(default_factory=dict)
    entropy: dict = field(default_factory=dict)
    n_experts: dict = field(default_factory=dict)
    towers: dict = field(default_factory=dict)
    seconds: dict = field(default_factory=dict)
    wave: np.ndarray | None = None
    limit: dict | None = None
    audit: dict | None = None
    traces: dict = field(default_factory=dict)

    @property
    def n_rows(self) -> int:
        """Rows of this seed, all parts together."""
        return self.n_train + self.n_validation + len(self.y)


# ---- stages ------------------------------------------------------------------------------------------------


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
        Which stages take about as long: one of the kinds above, or `FIT` with the kind of experts.
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

    @property
    def name(self) -> str:
        """Name in the store."""
        return f"seed_{self.seed}-{self.key}"


class Observer:
    """Is told of every stage; this one does nothing."""

    def begin(self, stage: Stage):
        """Learn that a stage begins."""

    def end(self, stage: Stage, seconds: float | None):
        """Learn that a stage has ended, now or in an earlier run, after so many seconds, or was not needed (None)."""


@dataclass(frozen=True)
class Extras:
    """What is computed of test rows besides the fits.

    Parameters
    ----------
    limit_rows : int, default=0
        Test rows of every seed whose Bayes limit is computed; it needs the simulator's own spectra.
    audit_rows : int, default=0
        Test rows of the first seed that are audited for leakage; they need errors.
    """

    limit_rows: int = 0
    audit_rows: int = 0

    def of_seed(self, seed: int, seeds: Sequence[int]) -> "Extras":
        """Return what is computed for one seed: the audit is for the first.

        Examples
        --------
        >>> [Extras(limit_rows=9, audit_rows=5).of_seed(seed, [42, 123]).audit_rows for seed in (42, 123)]
        [5, 0]
        """
        return self if seed == seeds[0] else replace(self, audit_rows=0)


def fit_stage(method: Method, seed: int) -> Stage:
    """Return the stage that fits a method; methods that share a fit have equal ones."""
    kind = f"{FIT} {method.experts or method.name}"
    return Stage(seed, f"fit-{method.fit_key(READERS[method.reader])}", kind, f"seed {seed}: {method.name}",
                 method.reader)  # fmt: skip


def _rows_stage(seed):
    return Stage(seed, "rows", ROWS, f"seed {seed}: rows")


def _reader_stage(kind, reader, seed):
    """Return the stage that fits (`REDUCTION`) or applies (`REDUCED`) the reduction of a reader."""
    label = f"seed {seed}: {kind}" + ("" if reader == "default" else f" {reader}")
    return Stage(seed, f"{kind.replace(' ', '-')}-{READERS[reader].key}", kind, label, reader)


def plan_stages(
    methods: Sequence[Method], seed: int, extras: Extras | None = None
) -> list[tuple[Stage, Method | None]]:
    """Every stage of one seed in order, each fit with the first method that asks for it.

    Parameters
    ----------
    methods : sequence of Method
    seed : int
    extras : Extras, default=None
        None is nothing besides the fits.

    Returns
    -------
    plan : list of (Stage, Method or None)

    Examples
    --------
    >>> from dualgate.study.methods import METHODS
    >>> [stage.label for stage, _ in plan_stages([METHODS["oracle_9"], METHODS["phys_9"]], 42)]
    ['seed 42: rows', 'seed 42: reduction', 'seed 42: reduced rows', 'seed 42: oracle_9']
    """
    extras = extras or Extras()
    plan = {_rows_stage(seed): None}
    for reader in dict.fromkeys(method.reader for method in methods):
        plan |= {_reader_stage(kind, reader, seed): None for kind in (REDUCTION, REDUCED)}
        for method in methods:
            if method.reader == reader:
                plan.setdefault(fit_stage(method, seed), method)
        if extras.audit_rows and reader == methods[0].reader:
            rows = extras.audit_rows
            plan[Stage(seed, f"audit-{rows}", AUDIT, f"seed {seed}: leakage audit", reader, rows)] = None
    if extras.limit_rows:
        rows = extras.limit_rows
        plan[Stage(seed, f"limit-{rows}", LIMIT, f"seed {seed}: Bayes limit of {rows} rows", size=rows)] = None
    return list(plan.items())


class _Memory(dict):
    """Finished stages in memory, with the interface of a store."""

    load, save = dict.__getitem__, dict.__setitem__


def run_study(
    make_data: Callable,
    seeds: Iterable[int],
    *,
    methods: Sequence[Method] | None = None,
    make_model: Callable | None = None,
    store=None,
    observer: Observer | None = None,
    extras: Extras | None = None,
) -> list[SeedRecord]:
    """Train and test every method on every seed's own rows; what is finished already is not run again.

    Parameters
    ----------
    make_data : callable, seed -> data
        Rows of one seed as an object with `X` (an array or a row source), `y`, `regimes` (None where they are not
        known), `snr` if X has no errors, and whatever `make_model` reads. The first 80 % train, the next 10 % choose
        among models, the rest test; where its attribute `ordered` is true the rows are divided at random instead.
    seeds : iterable of int
        Seeds of rows and models.
    methods : sequence of Method, default=None
        None is :func:`~dualgate.study.methods.main_methods`.
    make_model : callable, (data, seed) -> estimator, default=None
        The default model, with an expert for each regime and quality bin; methods change its parameters. None takes
        `DualTowerMoERegressor.for_spectra`.
    store : Store, default=None
        Where finished stages are; None keeps them in memory.
    observer : Observer, default=None
        Told of every stage of :func:`plan_stages`.
    extras : Extras, default=None
        What is computed of test rows besides the fits; None is nothing.

    Returns
    -------
    records : list of SeedRecord, one a seed
    """
    methods = main_methods() if methods is None else methods
    store, seeds = _Memory() if store is None else store, list(seeds)
    return [
        _run_seed(
            SeedWork(make_data, make_model or spectral_model, seed, store), methods, observer or Observer(),
            (extras or Extras()).of_seed(seed, seeds),
        )
        for seed in seeds
    ]  # fmt: skip


def _run_seed(work, methods, observer, extras):
    """Run what is missing of one seed; its rows are gone when it returns."""
    store, plan = work.store, plan_stages(methods, work.seed, extras)
    wanted = {
        stage.reader for stage, _ in plan if stage.kind not in (REDUCTION, REDUCED) and stage.name not in store
    }
    for stage, method in plan:
        if stage.name not in store:
            if stage.kind in (REDUCTION, REDUCED) and stage.reader not in wanted:
                observer.end(stage, None)
                continue
            observer.begin(stage)
            store.save(stage.name, work.run(stage, method))
        observer.end(stage, float(store.load(stage.name)["seconds"]))
    return _gather(store, methods, plan)


# ---- the work of one seed ----------------------------------------------------------------------------------


class SeedWork:
    """Runs the stages of one seed; rows are asked for only when a stage needs them.

    Parameters
    ----------
    make_data : callable, seed -> data
    make_model : callable, (data, seed) -> estimator
    seed : int
    store : Store
        Where the stages are that a stage builds on.
    """

    def __init__(self, make_data, make_model, seed, store):
        self.make_data, self.make_model, self.seed, self.store = make_data, make_model, seed, store
        self._reduced = None, None  # the reader's name and its rows: those of one reader at a time

    @cached_property
    def data(self):
        """Rows of this seed."""
        return self.make_data(self.seed)

    @cached_property
    def base(self):
        """The default model."""
        return self.make_model(self.data, self.seed)

    def run(self, stage: Stage, method: Method | None) -> dict:
        """Return what a stage finds, with its `seconds`."""
        work = {ROWS: self._rows, REDUCTION: self._fit_reduction, REDUCED: self._reduce, LIMIT: self._limit,
                AUDIT: self._audit}  # fmt: skip
        start = time.perf_counter()
        if method is not None:
            found = self._fit_mixture(method) if method.peer is None else self._fit_peer(method)
        else:
            found = work[stage.kind](stage)
        return {**found, "seconds": np.asarray(time.perf_counter() - start)}

    def _rows(self, stage):
        """Describe the rows without reading them, and divide them."""
        data = self.data
        train, held_out, n_validation = split_rows(len(data.y), self.seed if data.get("ordered") else None)
        edges = (data.get("regime_edges") or ()) if data.get("conditions") is not None else ()
        known = {name: data.get(name) for name in ("regimes", "conditions", "snr", "wave")}
        found = {"y": np.asarray(data.y, dtype=np.float64), "train": train, "held_out": held_out}
        found |= {"n_validation": n_validation, "n_edges": len(edges)}
        found |= {f"edges_{place}": np.asarray(each, dtype=float) for place, each in enumerate(edges)}
        found |= {name: values for name, values in known.items() if values is not None}
        if "regimes" in found:
            found["n_regimes"] = np.prod([len(each) + 1 for each in edges]) if edges else max(found["regimes"]) + 1
        return {name: np.asarray(values) for name, values in found.items()}

    def _part(self, name):
        """Return an array of the rows' stage; None where it has none of that name."""
        return self.store.load(_rows_stage(self.seed).name).get(name)

    def _test(self, n_rows):
        """Numbers of the first test rows."""
        return self._part("held_out")[int(self._part("n_validation")) :][:n_rows]

    def _regimes(self, one_regime=False):
        """Regimes of all rows and their edges, for the model; None where they are not known.

        Codes are given as a condition: a regime without a training row has its expert all the same.
        """
        codes = self._part("regimes")
        n_regimes = 1 if one_regime or codes is None else int(self._part("n_regimes"))
        if n_regimes > 1:
            return codes[:, None].astype(float), (np.arange(n_regimes - 1) + 0.5,)
        known = one_regime or codes is not None
        return np.zeros(len(self._part("y")), dtype=np.intp) if known else None, None

    def _model(self, reader, edges, more=()):
        """Make the model of a reader."""
        return clone(self.base).set_params(
            **READERS[reader].parameters, experts__regime_edges=edges, **dict(more)
        )  # fmt: skip

    def _fit_reduction(self, stage):
        """Fit gates' features and projection to the training rows."""
        train, (regimes, edges), make = self._part("train"), self._regimes(), READERS[stage.reader].make
        more = {} if make is None else make(self.data, train, self.seed)
        reduction = Reduction.of(self._model(stage.reader, edges, more))
        known = {} if regimes is None else {"regimes": regimes[train]}
        return {"reduction": reduction.fit(self.data.X[train], self._part("y")[train], **known)}

    def _reduce(self, stage):
        """Read all rows once: the few numbers of each that gates and experts work with.

        Training rows are read as such: what was learned from a row would flatter it.
        """
        reduction, joined = self._reduction(stage.reader), {}
        for part, training in (("train", True), ("held_out", False)):
            rows = self._part(part)
            for name, values in _columns(reduction.read(self.data.X[rows], training=training)).items():
                joined.setdefault(name, np.empty((len(self._part("y")), *values.shape[1:]), values.dtype))[rows] = values
        self._reduced = stage.reader, _as_reduced(reduction, joined)
        return joined

    def _reduction(self, reader):
        return self.store.load(_reader_stage(REDUCTION, reader, self.seed).name)["reduction"]

    def reduced(self, reader: str) -> ReducedRows:
        """Rows as a reader reduces them, from its finished stages."""
        if self._reduced[0] != reader:
            found = self.store.load(_reader_stage(REDUCED, reader, self.seed).name)
            self._reduced = reader, _as_reduced(self._reduction(reader), found)
        return self._reduced[1]

    def _fit_mixture(self, method):
        """Fit a mixture to the training rows, and trace the others through it."""
        rows, y, (regimes, edges) = self.reduced(method.reader), self._part("y"), self._regimes(method.one_regime)
        features = {name: it[:, method.kept[name]] if name in method.kept else it for name, it in rows.features.items()}
        rows, train, held_out = replace(rows, features=features), self._part("train"), self._part("held_out")
        model = self._model(method.reader, edges).set_params(**method.parameters)
        model.fit(rows[train], y[train], regimes=None if regimes is None else regimes[train])
        start = time.perf_counter()
        unseen, experts = rows[held_out], model.experts_
        trace = model.trace(unseen)
        found = {name: getattr(trace, name) for name in TRACED if getattr(trace, name) is not None}
        found = {name: it.astype(np.float32) if name in SINGLE_PRECISION else it for name, it in found.items()}
        if regimes is not None:
            found["own"] = experts.cells_of(regimes[held_out], unseen.snr, len(unseen))
        found |= {"coef": experts.coef_, "intercept": experts.intercept_}
        found |= {"n_regimes": np.asarray(experts.n_regimes_), "n_bins": np.asarray(experts.n_quality_bins_)}
        pixels = model.pixel_coefficients() if experts.n_quality_bins_ == 1 else None
        found |= {} if pixels is None else {"coef_pixels": pixels.astype(np.float32)}
        found |= self._permuted(model, trace, y[held_out]) | _snr(unseen)
        return found | {"seconds_predict": np.asarray(time.perf_counter() - start)}

    def _permuted(self, model, trace, y):
        """Permutation contribution of each tower on the test rows; of every fit with both, whoever asks first."""
        test = slice(int(self._part("n_validation")), None)
        if trace.phys_features is None or trace.quality_features is None or np.ptp(y[test]) == 0:
            return {}
        each = trace.expert_predictions[test]
        found = permutation_contribution(
            lambda phys, quality: (np.exp(model.fuse({"phys": phys, "quality": quality})) * each).sum(axis=1),
            trace.phys_features[test], trace.quality_features[test], y[test],
            n_repeats=SHUFFLES, n_resamples=RESAMPLES, random_state=self.seed,
        )  # fmt: skip
        return {"permutation": np.array([astuple(part)[:3] for part in (found.phys, found.quality, found.both)])}

    def _fit_peer(self, method):
        """Fit another regressor to what experts and quality gate read."""
        rows, y = self.reduced(method.reader), self._part("y")
        parts = [rows.projected, None if rows.variances is None else np.log(rows.variances), rows.features.get("quality")]
        columns = np.hstack([part for part in parts if part is not None])
        train, held_out = self._part("train"), self._part("held_out")
        model = method.peer(self.seed).fit(columns[train], y[train])
        start = time.perf_counter()
        found = {"prediction": model.predict(columns[held_out])} | _snr(rows[held_out])
        return found | {"seconds_predict": np.asarray(time.perf_counter() - start)}

    def _limit(self, stage):
        """Compute the Bayes limit of some test rows: posterior mean and standard deviation of each."""
        rows = self._test(stage.size)
        found = bayes_limit(self.data.X[rows], min_size=MIN_SIZE, random_state=self.seed)
        prior = np.mean(found.std**2) / (1 - found.r2)  # variance of the target before anything is seen
        found = {"rows": len(rows), "prediction": found.prediction, "std": found.std, "prior_variance": prior}
        return {name: np.asarray(values) for name, values in found.items()}

    def _audit(self, stage):
        """Audit the quality features of some test rows."""
        rows, reduced = self._test(stage.size), self.reduced(stage.reader)
        errors = np.asarray(self.data.X[rows])[:, n_flux(self.data) :]
        audit = leakage_audit(
            reduced.features["quality"][rows], np.asarray(self.data.y)[rows], reduced.snr[rows], errors=errors,
            n_resamples=RESAMPLES, random_state=self.seed,
        )  # fmt: skip
        target, snr = audit.target, audit.snr
        found = [target["ridge"], target["boosting"], snr["ridge"], snr["boosting"], audit.errors]
        return {"audit": np.array([astuple(each)[:3] for each in found]), "rows": np.asarray(len(rows))}


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


def _columns(reduced):
    """Everything that a reduction keeps of rows, by name."""
    found = {"projected": reduced.projected, "snr": reduced.snr, "variances": reduced.variances}
    found |= {f"features_{name}": values for name, values in reduced.features.items()}
    return {name: values for name, values in found.items() if values is not None}


def _as_reduced(reduction, found):
    features = {name.removeprefix("features_"): found[name] for name in found if name.startswith("features_")}
    return ReducedRows(reduction, found["projected"], found.get("snr"), features, found.get("variances"))


def _snr(rows):
    return {} if rows.snr is None else {"snr": rows.snr}


# ---- from fits to records ----------------------------------------------------------------------------------


def gate_trace(method: Method, arrays) -> MixtureTrace:
    """Every stage of a fitted mixture's prediction, routed as the method asks.

    In double precision weights sum to one closely enough for a target whose spread is small against its mean.
    """
    stages = {name: np.asarray(arrays[name], dtype=np.float64) for name in TRACED if name in arrays}
    return MixtureTrace(**stages, routing=method.routing)


def answer(method: Method, arrays) -> np.ndarray:
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


def _gather(store, methods, plan):
    """Make the record of a seed from its finished stages."""
    seed = plan[0][0].seed
    rows = store.load(plan[0][0].name)
    cut, held_out, y = int(rows["n_validation"]), rows["held_out"], rows["y"]
    known = {
        name: rows[name][held_out[cut:]] if name in rows else None for name in ("snr", "regimes", "conditions")
    }
    edges = tuple(rows[f"edges_{place}"] for place in range(int(rows["n_edges"])))
    record = SeedRecord(
        seed, len(rows["train"]), cut, y[held_out[cut:]], y[held_out[:cut]], edges=edges, wave=rows.get("wave"), **known
    )
    for stage, _ in plan:
        if stage.kind in (LIMIT, AUDIT):
            setattr(record, stage.kind, dict(store.load(stage.name)))
    for method in methods:
        arrays = store.load(fit_stage(method, seed).name)
        prediction = np.asarray(answer(method, arrays), dtype=float)
        record.validation[method.name], record.predictions[method.name] = prediction[:cut], prediction[cut:]
        record.validation_r2[method.name] = r2_score(record.y_validation, prediction[:cut])
        record.traces[method.name] = arrays
        if "snr" in arrays:
            record.snr = arrays["snr"][cut:]
        if method.peer is None and not method.one_regime:
            record.n_regimes = int(arrays["n_regimes"])
        if method.experts in (BINNED, BINS):
            record.n_bins = int(arrays["n_bins"])
        if method.gated:
            trace = gate_trace(method, arrays)
            record.entropy[method.name] = gate_entropy(trace.weights)[cut:]
            record.n_experts[method.name] = trace.log_weights.shape[1]
            if trace.phys_logits is not None and trace.quality_logits is not None:
                record.towers[method.name] = tower_correlation(trace.phys_logits[cut:], trace.quality_logits[cut:])
    record.seconds = _durations(store, plan)
    return record


def _durations(store, plan):
    """Seconds of every finished stage, as in `SeedRecord.seconds`."""
    seconds = {}
    for stage, method in plan:
        if stage.name not in store:
            continue
        found = store.load(stage.name)
        if method is None:
            seconds[stage.label.removeprefix(f"seed {stage.seed}: ")] = float(found["seconds"])
        else:
            predicting = float(found["seconds_predict"])
            seconds[f"fit {method.name}"] = float(found["seconds"]) - predicting
            seconds[f"predict {method.name}"] = predicting
    return seconds
